"""
Replacing: what a backup brings takes the place of an agent's files, which are kept.
"""

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from elytron.errors import Busy
from elytron.ledger import files, frames, swapping
from elytron.ledger.files import sync_folder

ARCHIVE = "archive"
# What is set aside, in this order. The graph is made anew.
ASIDE = (
    swapping.NOTE,
    files.LEDGER,
    f"{files.LEDGER}-wal",
    f"{files.LEDGER}-shm",
    swapping.PART,
    ARCHIVE,
    "graph",
)
_FOLDERS_MAX = 1000  # of files set aside within one second


def swap(folder: Path, name: str) -> Path | None:
    """
    Put what lies beside in its place; returns where the files are that were there.

    From the marker on, until the ledger comes last, the agent is known to be damaged.
    """
    files.write_marker(folder, name)
    aside = _set_aside(folder)
    beside = folder / swapping.BESIDE
    if (beside / ARCHIVE).exists():
        (beside / ARCHIVE).replace(folder / ARCHIVE)
        sync_folder(folder)
    (beside / files.LEDGER).replace(folder / files.LEDGER)
    sync_folder(folder)
    beside.rmdir()
    return aside


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
        sync_folder(folder)
    sync_folder(aside)
    return aside


def new_folder(folder: Path) -> Path:
    stem = f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in range(1, _FOLDERS_MAX):
        aside = folder / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            aside.mkdir()
            return aside
    raise Busy(f"{folder} has {_FOLDERS_MAX} folders called {stem}; remove some")
