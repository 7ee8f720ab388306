"""
Writing: the commands that put messages in, take them out, or move them.

Rich is imported by those that print for people, once it is known that they do.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from elytron.embed.policy import DISABLED
from elytron.errors import InvalidArgument, NotFound
from elytron.faces import costs, documents
from elytron.faces.forgetting import delete_all, yes_option
from elytron.faces.options import (
    Place,
    common,
    common_without_store,
    held_agent,
    quoted,
    read_json_object,
    read_stdin,
    time_option,
)
from elytron.faces.output import note, say
from elytron.faces.progress import counting
from elytron.faces.visible import counted

# Those of `elytron.importers`, which is imported once a file is.
FORMATS = (
    "auto", "jsonl", "openai", "chatgpt", "locomo", "claude", "mem0", "mcp", "openai-sessions",
    "langgraph",
)  # fmt: skip
EXPORT_FORMATS = ("auto", "jsonl", "parquet")


@click.command()
@common_without_store
@click.argument("file", type=click.Path(path_type=Path), required=False)
def demo(place: Place, file: Path | None) -> None:
    """Show a memory at work, on a conversation.

    Pours it in, asks five questions and one in Cypher, and shows what it costs.

    With FILE, that file; without, a conversation of some 450 messages that comes with Elytron.
    The memory is temporary and removed at the end, unless --store says where to keep it
    (ELYTRON_STORE is not used, so that a real store is not filled by accident).

    JSON: store, kept, import (as in `import`), questions (each with question, answer,
    evidence, rank, milliseconds and hits), graph (agent, query, rows, seconds and bytes, or null)
    and usage (as in `usage`).
    """
    from elytron.faces import demo as show

    show.run(place, file)


@click.command(name="import")
@common
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--agent", metavar="NAME", help="Into this agent; else as the file says.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="auto", metavar="FORMAT",
    help=f"What the file is: {', '.join(FORMATS[1:])}; or `auto`, which looks into it.",
)  # fmt: skip
@click.option("--skip-bad", is_flag=True, help="Leave out what is not acceptable; report it.")
@click.option(
    "--questions", type=click.IntRange(0, 10_000), default=5, show_default=True, metavar="N",
    help="Ask the first N questions of a file that brings some.",
)  # fmt: skip
def import_(
    place: Place, file: Path, agent: str | None, form: str, skip_bad: bool, questions: int
) -> None:
    """Save what is in a file of another program.

    Running it twice adds nothing twice. Reads JSON Lines, OpenAI chat messages, the exports of
    ChatGPT and Claude (conversations.json or the ZIP), LoCoMo, the get_all of mem0, memory.jsonl
    of the MCP reference server, and the SQLite files of OpenAI Agents sessions and of LangGraph's
    store. One bad line, and nothing is imported, unless --skip-bad. A file that brings questions,
    as LoCoMo does, has some of them asked.

    JSON: file, imported, seconds, messages_per_second and agents, each with agent, imported,
    already_held, bad (line and reason), left_out (counts by reason), memories, concepts and
    relations (how many of the imported are these) and what (what is counted, in words).
    """
    from elytron.faces import pouring
    from elytron.faces.asking import ask, shown

    with place.open() as store:
        poured = pouring.pour(
            store, file, agent=agent, format=form, skip_bad=skip_bad, silent=place.as_json
        )
        if place.as_json:
            documents.write(poured)
            return
        from elytron.faces import tables, usage_tables
        from elytron.faces.demo import speed
        from elytron.faces.terminal import show

        show(tables.imports(poured.agents), *tables.bad_lines(poured.agents))
        show("", speed(poured, store))
        answers = ask(store, pouring.carried_questions(file, questions, agent=agent))
        show(*shown(answers, hits_max=1, languages=store.config.languages), "")
        show(usage_tables.usages(costs.read(store, [report.agent for report in poured.agents])))


@click.command()
@common
@click.argument("agent")
@click.argument("role")
@click.argument("content")
@click.option("--session", metavar="SESSION", help="The conversation; `default` if not given.")
@click.option("--user", metavar="USER", help="Who said it.")
@time_option("--at", zone_needed=True, help="When it was said; now if not given.")
@click.option("--id", metavar="ID", help="Its id; saving the same id again is harmless.")
@click.option(
    "--metadata", metavar="JSON", callback=read_json_object, help="A JSON object, kept as it is."
)
@click.option(
    "--importance", type=float, metavar="X", help="0 to 1, 0.5 if not given; the least leave first."
)
@click.option("--pin", is_flag=True, help="It never leaves for the archive.")
@click.option(
    "--embed/--no-embed", default=None,
    help="Whether it gets a vector; else its role and its length say.",
)  # fmt: skip
def save(
    place: Place,
    agent: str,
    role: str,
    content: str,
    session: str | None,
    user: str | None,
    at: datetime | None,
    id: str | None,
    metadata: dict[str, Any] | None,
    importance: float | None,
    pin: bool,
    embed: bool | None,
) -> None:
    """Save one message, durably.

    Once this returns it is on the disk. ROLE is system, developer, user, assistant, tool or
    function. CONTENT - reads stdin; one newline at its end is taken off. Prints the message's id.
    It does not wait for a vector: what is missing `elytron embed` makes.

    JSON: id, new (false if it was held already) and embedding (`queued`, or why there is none).
    """
    with place.open() as store:
        if content == "-":
            content = read_stdin(store.config.max_message_bytes)
        receipt = store.agent(agent).save(
            role,
            content,
            session=session,
            user=user,
            at=at,
            metadata=metadata,
            id=id,
            importance=importance,
            pinned=pin,
            embed=embed,
        )
    if place.as_json:
        documents.write(receipt)
        return
    say(f"saved {receipt.id}" if receipt.new else f"held already: {receipt.id}")
    if embed and receipt.embedding == DISABLED:
        note("it gets no vector: embeddings are off; set `enable_embeddings` and `embedder`")


@click.command()
@common
@click.argument("agent")
@click.option("-o", "--output", metavar="FILE", help="Write here; else, or for -, to stdout.")
@click.option("--archived", is_flag=True, help="What is in the archive, too.")
@click.option(
    "--format", "form", type=click.Choice(EXPORT_FORMATS), default="auto", show_default=True,
    help="What to write; `auto` goes by the name of the FILE.",
)  # fmt: skip
def export(place: Place, agent: str, output: str | None, archived: bool, form: str) -> None:
    """Write all messages as JSON Lines or Parquet.

    In the order of arrival, with --archived those of the archive first. JSON Lines can be
    imported again. A FILE is replaced once the export is whole, and keeps its mode; a pipe or a
    device is written into. Parquet needs a FILE, and the extra `parquet`.

    JSON: the lines themselves; with a FILE, messages (their number) and file.
    """
    to_stdout = output is None or output == "-"
    if to_stdout and form == "parquet":
        raise InvalidArgument("parquet is written to a file only; name one with -o FILE")
    with place.open() as store:
        memory = held_agent(store, agent)
        if to_stdout:
            memory.export(documents.OutputLines(), archived=archived)
            return
        chosen = None if form == "auto" else form
        bar = counting(memory, "exporting", archived=archived, silent=place.as_json)
        with bar as on_progress:
            count = memory.export(
                output or "", archived=archived, format=chosen, on_progress=on_progress
            )
    if place.as_json:
        documents.write({"messages": count, "file": output})
    else:
        say(f"wrote {count:,} messages to {output}")


@click.command()
@common
@click.argument("agent")
def reindex(place: Place, agent: str) -> None:
    """Make an agent's word index anew.

    For the present `languages`; needed after that setting was changed.

    JSON: messages, the number of those that were indexed.
    """
    with place.open() as store:
        memory = held_agent(store, agent)
        with counting(memory, "indexing", silent=place.as_json) as on_progress:
            count = memory.reindex(on_progress=on_progress)
    if place.as_json:
        documents.write({"messages": count})
    else:
        say(f"indexed {count:,} messages")


@click.command()
@common
@click.argument("agent")
@click.argument("name")
def rename(place: Place, agent: str, name: str) -> None:
    """Give an agent another name.

    It keeps all that it has, under NAME, which no agent may have; its graph is built anew when it
    is next asked. Programs that have it open are refused until they open the store anew.

    JSON: agent, the new name, and renamed, the old one.
    """
    with place.open() as store:
        held_agent(store, agent)
        store.rename(agent, name)
    if place.as_json:
        documents.write({"agent": name, "renamed": agent})
        return
    say(f"{quoted(agent)} is called {quoted(name)} now")


@click.command()
@common
@click.argument("agent")
@click.argument("id", required=False)
@click.option("--session", metavar="SESSION", help="A whole session instead.")
@click.option(
    "--memory", "memory_id", metavar="ID", help="What was remembered under this id instead."
)
@click.option("--all", "whole", is_flag=True, help="The agent itself instead, with all its files.")
@yes_option
def delete(
    place: Place,
    agent: str,
    id: str | None,
    session: str | None,
    memory_id: str | None,
    whole: bool,
    yes: bool,
) -> None:
    """Remove a message, a session, a memory or an agent for good.

    The message with this ID, or with --session all messages of that session. With --all the agent
    goes, with its archive, its graph and what repairs have set aside, also a damaged one; that asks
    first.

    JSON: messages, the number of those that were deleted; with --memory, memories; with --all,
    agent, messages and archived (null where they cannot be counted) and bytes.
    """
    if sum(named is not None for named in (id, session, memory_id)) + whole != 1:
        raise InvalidArgument(
            "name the ID of a message, a --session or a --memory to delete, or say --all"
        )
    if whole:
        delete_all(place, agent, yes=yes)
        return
    if memory_id is not None:
        _delete_memory(place, agent, memory_id)
        return
    with place.open() as store:
        memory = held_agent(store, agent)
        count = int(memory.delete(id)) if id is not None else memory.delete_session(session or "")
        if not count:
            what = f"session is called {quoted(session)}" if session else f"message has the id {id}"
            hint = "" if session else f" (or is it a memory? `--memory {id}`)"
            raise NotFound(f"no {what} in the memory of {quoted(agent)}; nothing was deleted{hint}")
    if place.as_json:
        documents.write({"messages": count})
        return
    say(f"deleted {counted(count, 'message', 'messages')}")


def _delete_memory(place: Place, agent: str, id: str) -> None:
    with place.open() as store:
        if not held_agent(store, agent).delete_memory(id):
            raise NotFound(f"nothing remembered by {quoted(agent)} has the id {quoted(id)}")
    if place.as_json:
        documents.write({"memories": 1})
        return
    say(f"deleted {counted(1, 'memory', 'memories')}")
