"""
Migrating: the commands that bring memories over: another program's, or those of another store.

Rich is imported once it is known that a person reads.
"""

from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

import click

from elytron.errors import ElytronError, InvalidArgument
from elytron.faces import documents, moving
from elytron.faces.options import Place, common, quoted
from elytron.faces.output import note
from elytron.faces.visible import clip_name, counted
from elytron.store import Store

if TYPE_CHECKING:
    from elytron.importers import kuzu

_NAME_SHOWN = 30  # characters of a name beside a bar


@click.group()
def migrate() -> None:
    """Bring memories over, from another program or another store."""


@migrate.command("kuzu")
@common
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--agent", metavar="NAME", help="Into this agent; else named as the folder.")
@click.option(
    "--zone", metavar="ZONE",
    help="Zone of the times there, which have none, as Europe/Paris; the local one if not given.",
)  # fmt: skip
@click.option("--python", metavar="FILE", help="A Python that has kuzu; else this one.")
def from_kuzu(
    place: Place, path: Path, agent: str | None, zone: str | None, python: str | None
) -> None:
    """Bring over the memories of a Locrits program.

    PATH is a kuzu.db, the folder of one agent that holds it, or the folder of all agents, such as
    data/memory: then each becomes an agent named as its folder. The databases are opened
    read-only and left as they are; end the program that uses them first. Running it twice doubles
    nothing, and goes on where it was stopped. Needs the extra `kuzu`, here or in the Python that
    --python names.

    Carried are messages, memories, concepts with what mentions them, relations, and what sessions
    were called. Embeddings are left out. What could not be carried is listed.

    JSON: agents, each with agent, source, imported, already_held, memories, concepts, mentions,
    relations, bad (line and reason) and left_out (counts by reason); failed, each with source,
    error and message.
    """
    from elytron.importers import kuzu

    times = kuzu.zone_named(zone)
    found = kuzu.find(path)
    if agent is not None and len(found) > 1:
        raise InvalidArgument(
            f"{path} holds {len(found)} databases, so they cannot all go into {quoted(agent)};"
            " leave out --agent, or give the folder of one"
        )
    done: list[kuzu.Migration] = []
    failed: list[tuple[kuzu.Found, ElytronError]] = []
    with place.open() as store:
        for database in found:
            try:
                name = agent if agent is not None else database.agent
                done.append(_one(store, database, name, times, python, silent=place.as_json))
            except ElytronError as error:
                if len(found) == 1:
                    raise
                failed.append((database, error))  # told below, after the others had their turn
    if place.as_json:
        documents.write(
            {
                "agents": done,
                "failed": [
                    {"source": str(database.path), "error": failure.code, "message": str(failure)}
                    for database, failure in failed
                ],
            }
        )
    else:
        _show(done)
    if failed:
        for _, failure in failed[1:]:
            note(f"elytron: {failure}")
        raise failed[0][1]


migrate.add_command(moving.store)


def _one(
    store: Store,
    database: "kuzu.Found",
    name: str,
    zone: tzinfo | None,
    python: str | None,
    *,
    silent: bool,
) -> "kuzu.Migration":
    from elytron.importers import kuzu

    if silent:
        return kuzu.migrate(store, database, agent=name, zone=zone, python=python)
    from elytron.faces.terminal import progress

    with progress(f"migrating {clip_name(name, _NAME_SHOWN)}") as on_progress:
        return kuzu.migrate(
            store, database, agent=name, zone=zone, python=python, on_progress=on_progress
        )


def _show(done: "list[kuzu.Migration]") -> None:
    from rich.text import Text

    from elytron.faces import tables
    from elytron.faces.columns import DIM, Columns, Head
    from elytron.faces.terminal import show
    from elytron.records import ImportReport

    heads = (
        Head("agent", "name"),
        Head("messages", "number"),
        Head("held", "number"),
        Head("memories", "number"),
        Head("concepts", "number"),
        Head("relations", "number"),
        Head("bad", "number"),
    )
    cells = [
        (
            tables.name_of(report.agent),
            f"{report.imported:,}",
            f"{report.already_held:,}",
            f"{report.memories:,}",
            f"{report.concepts:,}",
            f"{report.relations:,}",
            f"{len(report.bad):,}",
        )
        for report in done
    ]
    if cells:
        show(Columns(heads, cells))
    for report in done:
        if report.left_out:
            show("", Text(f"not carried from {report.source}:", DIM))
            show(*[Text(f"  {count:,} {why}") for why, count in report.left_out.items()])
    show(*tables.bad_lines([ImportReport(r.agent, 0, 0, r.bad, r.left_out) for r in done]))
    if done:
        show("", f"{counted(len(done), 'database was', 'databases were')} left as they were")
