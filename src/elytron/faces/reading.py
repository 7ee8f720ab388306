"""
Reading: the commands that only look. They make nothing on disk.

Rich is imported by those that print for people, once it is known that they do.
"""

from collections.abc import Mapping
from typing import Any

import click

from elytron.agent import Agent
from elytron.errors import InvalidArgument
from elytron.faces import costs, documents
from elytron.faces.options import Place, common, held_agent, hint, limit_option, quoted, selection
from elytron.faces.output import emit, note, say
from elytron.store import Store

_HISTORY_TEXT_MAX = 1000  # characters of a message that `history` shows
_RECALL_TEXT_MAX = 400
_ALL = 1 << 40  # no message is that long
_SESSIONS_MAX = 1000  # sessions among which a name that was meant is looked for
_archived_option = click.option(
    "--archived", is_flag=True, help="Search the archive too; takes longer."
)


@click.command()
@common
@click.argument("agent")
@click.argument("session", required=False)
@limit_option(50)
@click.option("--before", metavar="ID", help="Only those saved before the message with this id.")
@click.option("--ids", is_flag=True, help="Show the messages' ids.")
@click.option("--full", is_flag=True, help="Show long messages whole.")
def history(
    place: Place,
    agent: str,
    session: str | None,
    limit: int,
    before: str | None,
    ids: bool,
    full: bool,
) -> None:
    """Show the newest messages, oldest first.

    Of one SESSION, or of all in the order of saving. Times are on the clock of whoever saved. A
    session that is not there is no error: nothing is shown, and a note names the nearest.

    JSON: a list of messages, each with id, role, content, at, session, user, metadata, position,
    importance, pinned, embed (false if it was saved so).
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        messages = memory.history(session, limit=limit, before=before)
        if place.as_json:
            documents.write(messages)
            return
        if not messages:
            _nothing_in(store, memory, session)
            return
    from elytron.faces import tables
    from elytron.faces.terminal import show

    text_max = _ALL if full else _HISTORY_TEXT_MAX
    show(*tables.history(messages, text_max=text_max, ids=ids))


def _nothing_in(store: Store, memory: Agent, session: str | None) -> None:
    most = min(_SESSIONS_MAX, store.config.max_query_rows)
    names = [held.id for held in memory.sessions(limit=most)] if session else []
    if session and session not in names:
        note(f"no session is called {quoted(session)}{hint(session, names)}")
    else:
        note("no messages")


@click.command()
@common
@click.argument("agent")
@limit_option(100)
def sessions(place: Place, agent: str, limit: int) -> None:
    """List an agent's sessions, the one last spoken in first.

    JSON: a list, each with id, messages, first_at and last_at.
    """
    with place.open() as store:
        found = held_agent(store, agent).sessions(limit=limit)
    if place.as_json:
        documents.write(found)
        return
    from elytron.faces import tables
    from elytron.faces.terminal import show

    show(tables.sessions(found))


@click.command()
@common
@click.argument("agent")
@click.argument("question")
@limit_option(8)
@selection
@_archived_option
@click.option("--why", is_flag=True, help="Show what makes up each score.")
@click.option("--ids", is_flag=True, help="Show the ids.")
@click.option("--full", is_flag=True, help="Show long messages whole.")
def recall(
    place: Place,
    agent: str,
    question: str,
    limit: int,
    archived: bool,
    why: bool,
    ids: bool,
    full: bool,
    **only: Any,
) -> None:
    """Find what answers a question, best first.

    Messages and memories; the latter, and hits from the archive, are marked. TIME is ISO 8601;
    without a zone it is local time. Words of the question are emphasised on a terminal. Nothing
    found is no error. With an embedder, what shares no word with the question is found too; while
    that does not answer, words do, and a note says so.

    JSON: a list of hits, each with kind (`message`, or that of the memory), message (as in
    `history`), memory (as in `memories`, or null), score, similarity, why, matched
    and archived.
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        found = memory.recall(question, limit=limit, archived=archived, **only)
        languages = store.config.languages
        if not place.as_json:
            _note_words_alone(store, memory)
    if place.as_json:
        documents.write(found)
        return
    from elytron.faces import tables
    from elytron.faces.matches import Matches
    from elytron.faces.terminal import show

    if not found:
        note(f"nothing was found: {_sought(only)} holds a word of this question")
        return
    text_max = _ALL if full else _RECALL_TEXT_MAX
    matches = Matches(question, languages)
    show(*tables.hits(found, matches, text_max=text_max, why=why, ids=ids))


def _sought(only: Mapping[str, Any]) -> str:
    """What was looked at, where nothing of it was found."""
    narrowed = any(value for name, value in only.items() if name != "at")
    return "nothing that these options allow" if narrowed else "no message"


def _note_words_alone(store: Store, memory: Agent) -> None:
    """A word to a person where vectors were to answer too, and did not."""
    if not store.config.enable_embeddings:
        return
    embeddings = memory.usage().embeddings
    if embeddings.model is not None and embeddings.failures and embeddings.last_error:
        note(f"words alone answered: {embeddings.last_error}")


@click.command()
@common
@click.argument("agent")
@click.argument("question")
@click.option(
    "--max-tokens", type=int, metavar="N", default=800, show_default=True, help="The budget."
)
@limit_option(50, help="At most so many hits are considered.")
@selection
@_archived_option
def context(
    place: Place, agent: str, question: str, max_tokens: int, limit: int, **only: Any
) -> None:
    """Pack the hits for a prompt, under a budget of tokens.

    Session by session, each message with its date and speaker, and memories among them. Tokens
    are estimated. Nothing but the text goes to stdout, so it can be piped into a prompt.

    JSON: text, hits (as in `recall`) and tokens.
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        packed = memory.context(question, max_tokens=max_tokens, limit=limit, **only)
        if not place.as_json:
            _note_words_alone(store, memory)
    if place.as_json:
        documents.write(packed)
        return
    if not packed.hits:
        note("nothing was found, or nothing fits into the budget")
        return
    say(packed.text)


@click.command()
@common
@click.argument("agent", required=False)
@click.option("--prometheus", is_flag=True, help="The whole store, for Prometheus to read.")
def usage(place: Place, agent: str | None, prometheus: bool) -> None:
    """Show what an agent, or the store, costs.

    Beside the limits, and when they come near at the present rate. Without AGENT, all of them.
    --prometheus needs the extra `metrics`.

    JSON: for one agent its usage, with agent, limit_bytes, messages, max_messages, pinned,
    archived, sessions, users, first_at, last_at, bytes (file, live, dead, wal, words, vectors,
    graph, archive, total), archive, embeddings (model, dim, reduced_to, reasons, bytes and more),
    forecast and more; for the store path, total_bytes, limit_bytes, archive_bytes, reserve_bytes,
    janitor, what this process uses, and agents, a list of these.
    """
    if prometheus:
        _metrics(place, agent)
    elif agent is None:
        _store_usage(place)
    else:
        _agent_usage(place, agent)


def _agent_usage(place: Place, agent: str) -> None:
    with place.open() as store:
        found = costs.read(store, [held_agent(store, agent).name])
        archive_limit_bytes = store.config.max_archive_bytes
    if place.as_json:
        documents.write(found[0])
    else:
        from elytron.faces import usage_tables
        from elytron.faces.terminal import show

        show(usage_tables.usages(found), "")
        show(usage_tables.details(found[0], archive_limit_bytes=archive_limit_bytes))
    costs.raise_first_error(found)


def _store_usage(place: Place) -> None:
    with place.open() as store:
        found = costs.read_store(store)
    total_bytes = found.total_bytes
    if place.as_json:
        partly = {"path": store.shown, "total_bytes": total_bytes, "agents": found.agents}
        documents.write(partly if found.usage is None else found.usage)
    else:
        from elytron.faces import usage_tables
        from elytron.faces.terminal import show

        limit = store.config.max_total_bytes
        show(usage_tables.usages(found.agents), "")
        show(usage_tables.total(store.shown, len(found.agents), total_bytes, limit))
        if found.usage is not None:
            show(usage_tables.store_details(found.usage))
    costs.raise_first_error(found.agents)


def _metrics(place: Place, agent: str | None) -> None:
    if agent is not None:
        raise InvalidArgument("--prometheus is for the whole store; leave the AGENT out")
    if place.as_json:
        raise InvalidArgument("--prometheus has a form of its own; leave --json out")
    from elytron.faces import metrics

    with place.open() as store:
        text = metrics.render(store)
    emit(text.decode(), encoding="utf-8")  # names hold nothing that a terminal would obey


@click.command()
@common
def agents(place: Place) -> None:
    """List the agents of the store.

    What each holds, since when, and its size. One that cannot be read is listed with its error.

    JSON: a list, each with name, messages, sessions, first_at, last_at and bytes; or, for one
    that cannot be read, with agent and cause.
    """
    with place.open() as store:
        found = costs.read(store, store.agents())
    if place.as_json:
        documents.write(costs.rows(found))
    elif not found:
        note(f"{store.shown} holds no agents")
    else:
        from elytron.faces import usage_tables
        from elytron.faces.terminal import show

        show(usage_tables.agents(found))
    costs.raise_first_error(found)
