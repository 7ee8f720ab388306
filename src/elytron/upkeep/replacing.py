"""
Replacing: what a backup brings takes the place of an agent's files, which are kept.
"""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from elytron.errors import Busy, DiskFull, ElytronError, Unavailable
from elytron.ledger import files, frames, swapping
from elytron.ledger.files import sync_folder
from elytron.ledger.lock import FileLock
from elytron.upkeep.backup_files import remove_folder

# What is set aside, in this order. The graph is made anew.
ASIDE = (
    swapping.NOTE,
    files.LEDGER,
    f"{files.LEDGER}-wal",
    f"{files.LEDGER}-shm",
    swapping.PART,
    files.ARCHIVE,
    "graph",
)
_LOCK = "restore.lock"
_FOLDERS_MAX = 1000  # of files set aside within one second


@contextlib.contextmanager
def only(folder: Path) -> Iterator[None]:
    """
    No other restore, nor a deletion, is at the agent in *folder* for the length of the block.

    Raises:
        Busy: one is, or has just taken the folder away.
    """
    with files.translate_os_errors(folder):
        lock = FileLock(folder / _LOCK)
    with contextlib.closing(lock):
        if not (lock.try_acquire() and lock.has_its_name()):
            raise Busy(
                f"another restore, or a deletion, is at work in {folder}; nothing was changed: wait"
                " until it has ended"
            )
        yield


@contextlib.contextmanager
def removed_if_stopped(beside: Path) -> Iterator[None]:
    """Whatever ends the block early, what lies *beside*, and counts for nothing yet, is removed."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the error that brought us here is the one to tell
            remove_folder(beside)
        raise


def swap(folder: Path, name: str) -> Path | None:
    """
    Put what lies beside in its place; returns where the files are that were there.

    From the marker on, until the ledger comes last, the agent is known to be damaged.

    Raises:
        DiskFull, Unavailable: some of it may be done.
    """
    try:
        return _swap(folder, name)
    except OSError as error:
        raise _begun(error, folder) from error


def _swap(folder: Path, name: str) -> Path | None:
    beside = folder / swapping.BESIDE
    with removed_if_stopped(beside):
        files.write_marker(folder, name)
    aside = _set_aside(folder)
    if (beside / files.ARCHIVE).exists():
        (beside / files.ARCHIVE).replace(folder / files.ARCHIVE)
        sync_folder(folder)
    (beside / files.LEDGER).replace(folder / files.LEDGER)
    sync_folder(folder)
    beside.rmdir()
    return aside


def _begun(error: OSError, folder: Path) -> ElytronError:
    what = (
        f"{folder}: {error.strerror}, when the backup was being put in its place; what was there"
        " before is kept beside, and it may be done or not: "
    )
    if error.errno in files.NO_ROOM:
        return DiskFull(what + "free some room, and restore again")
    return Unavailable(what + "look at the disk, and restore again")


def _set_aside(folder: Path) -> Path | None:
    """
    Keep an agent's files in a folder of their own, the ledger first: without it no file beside it
    is taken for what belongs to it.
    """
    # The last would be read into the new ledger, by a repair.
    there = [name for name in ASIDE if (folder / name).exists()]
    there += [path.name for path in frames.aside(folder / files.LEDGER)]
    if not there:
        return None
    aside = new_folder(folder)
    for name in there:
        (folder / name).replace(aside / name)
        sync_folder(aside)  # first, or a power cut might leave it in neither
        sync_folder(folder)
    return aside


def new_folder(folder: Path) -> Path:
    stem = f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in range(1, _FOLDERS_MAX):
        aside = folder / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            aside.mkdir()
            return aside
    raise Busy(f"{folder} has {_FOLDERS_MAX} folders called {stem}; remove some")
