"""
Backing up: the command that copies a store, and the half of `restore` that brings it back.

Rich is imported by those that print for people, once it is known that they do.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

from elytron.errors import Corrupt, ElytronError
from elytron.faces import documents
from elytron.faces.options import DEFAULT_STORE, Place, common
from elytron.store import as_path, folder_to_restore, names_of
from elytron.upkeep.bringing_back import bring_back


@click.command()
@common
@click.argument("to", metavar="DEST", type=click.Path(path_type=Path))
@click.argument("agents", metavar="[AGENT]...", nargs=-1)
def backup(place: Place, to: Path, agents: tuple[str, ...]) -> None:
    """Copy agents into the folder DEST, while everybody goes on saving.

    All of them if none is named. DEST is made, or brought up to date: an agent that was not written
    to since is passed over. One that is damaged or gone keeps the copy that it has there; the
    others are copied, and the command ends with 8. `restore --from DEST` brings them back.

    JSON: path, at, agents (each with agent, copied, messages, archived, copied_bytes and at),
    failed (each with agent and cause), removed (names of agents that were deleted, and are not in
    the backup any more), kept (folders with copies that were kept, since something in them may be
    nowhere else any more: after a repair, a listing made again, a renaming; each is a backup by
    itself) and ok.
    """
    with place.open() as store, _bar("backing up", silent=place.as_json) as on_progress:
        report = store.backup(to, agents=agents or None, on_progress=on_progress)
    if place.as_json:
        documents.write(report)
    else:
        from elytron.faces import backup_tables
        from elytron.faces.terminal import show

        show(*backup_tables.backed_up(report))
    _raise_worst(one.cause for one in report.failed)


def restore(
    place: Place,
    source: Path,
    agents: tuple[str, ...] | None,
    *,
    replace: bool,
    dry_run: bool,
) -> None:
    """The command `restore --from`."""
    with _bar("restoring", silent=place.as_json) as on_progress:
        report = bring_back(
            as_path(source, what="a backup"),
            folder_to_restore(place.path or DEFAULT_STORE),
            place.settled(),
            wanted=names_of(agents),
            replace=replace,
            dry_run=dry_run,
            on_progress=on_progress,
        )
    if place.as_json:
        documents.write(report)
    else:
        from elytron.faces import backup_tables
        from elytron.faces.terminal import show

        show(*backup_tables.restored(report))
    _raise_worst(one.cause for one in report.failed)


@contextlib.contextmanager
def _bar(doing: str, *, silent: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar over agents, taken away before the report; none for programs."""
    if silent:
        yield None
        return
    from elytron.faces.terminal import progress

    with progress(doing, transient=True) as on_progress:
        yield on_progress


def _raise_worst(causes: Iterable[ElytronError]) -> None:
    """Raise what kept an agent from being done, damage first."""
    for cause in sorted(causes, key=lambda cause: not isinstance(cause, Corrupt)):
        raise cause
