"""
Learning: the commands for what was learned: memories, concepts and the relations between them.

They are answered from the ledger; no graph is needed for any. Rich is imported by those that
print for people, once it is known that they do.
"""

from datetime import datetime
from typing import Any

import click

from elytron.agent import Agent
from elytron.errors import InvalidArgument, NotFound
from elytron.faces import documents
from elytron.faces.options import (
    Place,
    common,
    held_agent,
    hint,
    limit_option,
    quoted,
    read_json_object,
    read_stdin,
    time_option,
)
from elytron.faces.output import note, say
from elytron.faces.visible import counted
from elytron.store import Store

ORIGINS = ("told", "extracted", "proposed")
_TEXT_MAX = 1000  # characters of a memory that are shown
_ALL = 1 << 40  # no memory is that long
_HINTED_MAX = 1000  # concepts among which a name that was meant is looked for


@click.command()
@common
@click.argument("agent")
@click.argument("text")
@click.option(
    "--about", metavar="NAME", multiple=True,
    help="A concept that it is about, made if it is new; may be repeated.",
)  # fmt: skip
@click.option("--kind", metavar="KIND", default="fact", show_default=True, help="What it is.")
@click.option("--importance", type=float, metavar="X", help="0 to 1, 0.5 if not given.")
@click.option("--session", metavar="SESSION", help="The conversation that it was learned in.")
@time_option("--valid-from", zone_needed=True, help="It holds from this time on.")
@time_option("--valid-to", zone_needed=True, help="It holds before this time.")
@click.option("--replaces", metavar="ID", help="The memory with this id holds no longer.")
@click.option("--pin", is_flag=True, help="It is never left out for its worth.")
@click.option("--id", metavar="ID", help="Its id; remembering the same id again is harmless.")
@click.option(
    "--metadata", metavar="JSON", callback=read_json_object, help="A JSON object, kept as it is."
)
def remember(place: Place, agent: str, text: str, about: tuple[str, ...], **more: Any) -> None:
    """Remember something that was learned.

    A fact, a preference, a summary: in a sentence, with the concepts that it is about. A TEXT -
    reads stdin. What it replaces is closed, not overwritten: `memories --as-of` still finds it.
    Prints its id.

    JSON: id, new (false if it was held already) and embedding.
    """
    pinned = more.pop("pin")
    with place.open() as store:
        if text == "-":
            text = read_stdin(store.config.max_message_bytes)
        receipt = store.agent(agent).remember(text, about=about, pinned=pinned, **more)
    if place.as_json:
        documents.write(receipt)
        return
    say(f"remembered {receipt.id}" if receipt.new else f"held already: {receipt.id}")


@click.command()
@common
@click.argument("agent")
@click.argument("question", required=False)
@click.option("--about", metavar="NAME", help="Only those about this concept.")
@click.option("--kind", metavar="KIND", help="Only those of this kind.")
@click.option("--session", metavar="SESSION", help="Only those learned in this session.")
@time_option("--as-of", zone_needed=False, help="Those that held then, instead of now.")
@limit_option(50)
@click.option("--before", metavar="ID", help="Only those remembered before the one with this id.")
@click.option("--ids", is_flag=True, help="Show their ids.")
@click.option("--full", is_flag=True, help="Show long ones whole.")
def memories(
    place: Place, agent: str, question: str | None, ids: bool, full: bool, **only: Any
) -> None:
    """Show what was remembered and holds.

    With a QUESTION those that answer it, best first; else the newest first.

    JSON: a list, each with id, content, kind, about, importance, pinned, session, valid_from,
    valid_to, created, metadata, uses and last_used.
    """
    with place.open() as store:
        found = held_agent(store, agent).memories(question, **only)
    if place.as_json:
        documents.write(found)
        return
    if not found:
        note("nothing is remembered" if question is None else "no memory holds such a word")
        return
    from elytron.faces import graph_tables
    from elytron.faces.terminal import show

    show(*graph_tables.memories(found, text_max=_ALL if full else _TEXT_MAX, ids=ids))


@click.command()
@common
@click.argument("agent")
@click.argument("source")
@click.argument("relation")
@click.argument("target")
@click.option("--strength", type=float, metavar="X", default=1.0, help="0 to 1; 1 if not given.")
@time_option("--valid-from", zone_needed=True, help="It holds from this time on.")
@time_option("--valid-to", zone_needed=True, help="It holds before this time.")
@click.option(
    "--replaces", is_flag=True, help="Other targets of the same SOURCE and RELATION hold no longer."
)
def relate(place: Place, agent: str, source: str, relation: str, target: str, **more: Any) -> None:
    """Say how two concepts are related.

    As in `elytron relate Bob Alice "lives in" Lyon`. Concepts that are new are made. The same
    again changes nothing.

    JSON: source, relation and target.
    """
    with place.open() as store:
        store.agent(agent).relate(source, relation, target, **more)
    if place.as_json:
        documents.write({"source": source, "relation": relation, "target": target})
    else:
        say(f"related: {source} {relation} {target}")


@click.command()
@common
@click.argument("agent")
@click.argument("source")
@click.argument("relation", required=False)
@click.argument("target", required=False)
@time_option("--at", zone_needed=True, help="It held until then; until now if not given.")
def unrelate(
    place: Place,
    agent: str,
    source: str,
    relation: str | None,
    target: str | None,
    at: datetime | None,
) -> None:
    """Say that a relation holds no longer.

    All of SOURCE, or only those of this RELATION, or to this TARGET. They are closed, not
    deleted: `relations --as-of` still finds them.

    JSON: closed, their number.
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        closed = memory.unrelate(source, relation, target, at=at)
        if not closed:
            what = " ".join(map(quoted, filter(None, (source, relation, target))))
            raise NotFound(f"no relation {what} holds; nothing was changed")
    if place.as_json:
        documents.write({"closed": closed})
    else:
        say(f"closed {counted(closed, 'relation', 'relations')}")


@click.command()
@common
@click.argument("agent")
@click.argument("name", required=False)
@click.option("--relation", metavar="RELATION", help="Only those called so.")
@time_option("--as-of", zone_needed=False, help="Those that held then, instead of now.")
@limit_option(1000)
def relations(place: Place, agent: str, name: str | None, **only: Any) -> None:
    """List the relations that hold.

    Of the concept called NAME, in both directions, or of all.

    JSON: a list, each with source, relation, target, strength, valid_from, valid_to and
    learned_from (the id of the message that it was read in, if it was).
    """
    with place.open() as store:
        found = held_agent(store, agent).relations(name, **only)
    if place.as_json:
        documents.write(found)
        return
    if not found:
        note("no relation holds" if name is None else f"no relation of {quoted(name)} holds")
        return
    from elytron.faces import graph_tables
    from elytron.faces.terminal import show

    show(graph_tables.relations(found))


@click.command()
@common
@click.argument("agent")
@click.argument("question", required=False)
@click.option("--type", metavar="TYPE", help="Only those of this type, as person.")
@click.option(
    "--origin", type=click.Choice(ORIGINS),
    help="Only those that were told, extracted from messages, or are proposed as they recur.",
)  # fmt: skip
@limit_option(100)
def concepts(place: Place, agent: str, question: str | None, **only: Any) -> None:
    """List the concepts, the most mentioned first.

    With a QUESTION, those with a name that holds it.

    JSON: a list, each with name, type, description, confidence, origin, mentions and created.
    """
    with place.open() as store:
        found = held_agent(store, agent).concepts(question, **only)
    if place.as_json:
        documents.write(found)
        return
    if not found:
        note(
            "no concepts" if question is None else f"no concept has {quoted(question)} in its name"
        )
        return
    from elytron.faces import graph_tables
    from elytron.faces.terminal import show

    show(graph_tables.concepts(found))


@click.command()
@common
@click.argument("agent")
@click.argument("name")
@click.option("--rename", metavar="NAME", help="Call it so; what names it stays linked.")
@click.option("--type", metavar="TYPE", help="Say what it is, as person.")
@click.option("--description", metavar="TEXT", help="Describe it.")
@click.option("--confidence", type=float, metavar="X", help="How sure it is, 0 to 1.")
@click.option("--confirm", is_flag=True, help="A proposed one is one: it stays.")
@click.option("--delete", is_flag=True, help="Remove it, with its relations, for good.")
@click.option("--full", is_flag=True, help="Show long messages whole.")
def concept(
    place: Place, agent: str, name: str, confirm: bool, delete: bool, full: bool, **changes: Any
) -> None:
    """Show a concept, or change it.

    When it was first and last mentioned, the newest messages and memories that do, and its
    relations. Any change confirms a proposed one.

    JSON: concept (as in `concepts`), first_at, last_at, examples (messages as in `history`),
    memories and relations; with --delete, deleted.
    """
    changes = {field: value for field, value in changes.items() if value is not None}
    if delete and (changes or confirm):
        raise InvalidArgument("--delete stands alone; nothing was changed")
    with place.open() as store:
        memory = held_agent(store, agent)
        if delete:
            if not memory.delete_concept(name):
                raise _unknown(store, memory, name)
            _say_deleted(place, name)
            return
        if changes or confirm:
            name = memory.set_concept(name, **changes).name
        details = memory.concept(name)
        if details is None:
            raise _unknown(store, memory, name)
    if place.as_json:
        documents.write(details)
        return
    from elytron.faces import graph_tables
    from elytron.faces.terminal import show

    show(*graph_tables.concept(details, text_max=_ALL if full else _TEXT_MAX))


def _say_deleted(place: Place, name: str) -> None:
    if place.as_json:
        documents.write({"deleted": name})
    else:
        say(f"deleted {name}")


def near_names(store: Store, memory: Agent, name: str) -> str:
    """The concepts whose names come nearest to one that is not among them, as a hint."""
    most = min(_HINTED_MAX, store.config.max_query_rows)
    return hint(name, [known.name for known in memory.concepts(limit=most)])


def _unknown(store: Store, memory: Agent, name: str) -> NotFound:
    return NotFound(f"no concept is called {quoted(name)}{near_names(store, memory, name)}")
