"""
Deleting: one agent with all that it has.

Nothing of it is touched before the step that lets it be gone: until then it is whole, but for its
graph, which is made anew when it is asked. What that step is, its ledgers know: the rename of its
folder, or a transaction.
"""

import contextlib
import logging
import time
from pathlib import Path
from typing import NamedTuple

from elytron.archive import Archive
from elytron.errors import Busy, Corrupt, ElytronError, NotFound
from elytron.ledger import deleted, files, strays, surveys
from elytron.ledger.ledgers import Ledger, Ledgers
from elytron.reports import Deleted
from elytron.upkeep import replacing
from elytron.upkeep.housekeeping import Housekeeping
from elytron.upkeep.runs import Run

_log = logging.getLogger("elytron.upkeep")


def none_called(name: str, ledgers: Ledgers) -> NotFound:
    return NotFound(f"{ledgers.shown} holds no agent called {name!r}; nothing was deleted")


def delete(name: str, ledgers: Ledgers, upkeep: Housekeeping, *, timeout_s: float) -> Deleted:
    """
    See `Store.delete`. Nobody else in this process may use the agent, or do its chores.

    Args:
        timeout_s: how long other processes are waited for.
    """
    deadline = time.monotonic() + timeout_s
    folder = files.agent_folder(ledgers.folder, name)
    _check_whose(folder, name)
    ledger = ledgers.new(name, uses=upkeep.uses_of(name), upkeep=True, carrying=True)
    counted = _counted(ledger) or _left(folder)
    if counted is None:
        raise none_called(name, ledgers)
    archived = _archived(upkeep.archive_of(name))
    upkeep.graphs.drop(name, deadline=deadline)
    file_bytes = 0

    def alone() -> None:
        nonlocal file_bytes
        if Run(folder).others():
            raise Busy(
                f"another process moves messages of {name!r} between ledger and archive; nothing"
                " was deleted: retry later"
            )
        file_bytes = files.folder_bytes(folder)

    # On a server an agent may have no folder.
    with replacing.only(folder) if folder.is_dir() else contextlib.nullcontext():
        if not ledgers.remove(name, alone=alone, deadline=deadline):
            raise none_called(name, ledgers)
    upkeep.forget(name)
    try:
        upkeep.sweep()
    except ElytronError as error:
        raise error.saying(
            f"{name!r} is deleted; what is left to do after that met {error.code!r}, and until the"
            f" next clean-up files of it may lie in {ledgers.folder / deleted.FOLDER}: look at the"
            " disk"
        ) from error
    return Deleted(name, counted.messages, archived, file_bytes + counted.bytes)


class _Counted(NamedTuple):
    """Messages in a ledger, if they can be counted, and bytes that are in no file of its own."""

    messages: int | None
    bytes: int


def _check_whose(folder: Path, name: str) -> None:
    """
    Raises:
        Corrupt: the files say that they are another agent's, who would lose them.
    """
    try:
        marked = files.read_marker(folder)
    except Corrupt as error:
        _log.info("%s", error)
        return
    if marked not in (None, name):
        raise Corrupt(
            f"{folder} holds the memory of {marked!r}, not of {name!r}; it was left as it is: move"
            " it to where it belongs"
        )


def _counted(ledger: Ledger) -> _Counted | None:
    """What a ledger holds; None if there is none."""
    try:
        with contextlib.closing(ledger):
            if not ledger.open(create=False):
                return None
            with ledger.reading() as db:
                messages = surveys.counts(db, ("messages",))["messages"]
            return _Counted(messages, 0 if ledger.path.exists() else ledger.file_sizes()[0])
    except Corrupt as error:  # for that one may want it gone
        _log.info("%s", error)
        return _Counted(None, 0)


def _left(folder: Path) -> _Counted | None:
    """What stands for a memory that was never there, where a stopped restore left a copy of one."""
    return _Counted(None, 0) if strays.is_unfinished(folder) else None


def _archived(archive: Archive) -> int | None:
    try:
        return archive.manifest().messages if archive.exists() else 0
    except Corrupt as error:
        _log.info("%s", error)
        return None
