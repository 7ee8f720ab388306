"""
Swapping: a ledger that was written anew takes the place of a damaged one.

The new file is whole, verified and durable before the note of the swap is written; from then on
whoever opens the ledger first finishes the swap, under its lock, so that a crash leaves the old
files or the new one. The ledger's name is never without a file: the old one gets a second name
among what is set aside, then the new one is renamed over it. Whoever has the old one open finds
under the lock, before it writes, that the name is another file's, and refuses.

The log goes after the file: in front of a fresh one it would be taken for its own. Nobody opens the
ledger meanwhile, since the note stands until all is done.
"""

import os
import shutil
from pathlib import Path

from elytron.errors import Corrupt
from elytron.ledger import files, frames

NOTE = "swap.json"
ASIDE, REPLACED = "damaged-", "replaced-"  # folders of what was set aside; never removed by us
PART = "salvage.part"  # where the new ledger is made
BESIDE = "restoring"  # where what comes from a backup is written


def pending(folder: Path) -> bool:
    """Whether a swap was begun in an agent's folder and is not finished."""
    with files.translate_os_errors(folder):
        return (folder / NOTE).exists()


def agent_of(folder: Path) -> str | None:
    """Whose swap is pending; None if there is none."""
    note = files.read_json(folder / NOTE)
    return None if note is None else str(note.get("agent"))


def begin(folder: Path, *, agent: str, new: Path, aside: str) -> None:
    """
    Note, durably, that *new* is to take the ledger's place. Under the ledger's lock.

    Args:
        new: the new ledger, in *folder*.
        aside: the name of the folder, in *folder*, for what was there.
    """
    with files.translate_os_errors(folder):
        for made in new.parents:
            if made == folder:
                break
            files.sync_folder(made)
        note: dict[str, object] = {
            "agent": agent,
            "new": new.relative_to(folder).as_posix(),
            "aside": aside,
        }
        files.write_json(folder / NOTE, note)


def finish(folder: Path) -> None:
    """
    Bring a pending swap to its end; harmless if there is none. Under the ledger's lock.

    Raises:
        Corrupt: the note cannot be understood. Unavailable, DiskFull: finish it later.
    """
    note = files.read_json(folder / NOTE)
    if note is None:
        return
    names = [note.get("agent"), note.get("new"), note.get("aside")]
    if not all(isinstance(name, str) for name in names):
        raise Corrupt(f"{folder / NOTE} is damaged; nothing was replaced")
    agent, new, aside = map(str, names)
    with files.translate_os_errors(folder):
        (folder / aside).mkdir(exist_ok=True)
        _replace(folder / files.LEDGER, folder / new, folder / aside)
        logs = [folder / f"{files.LEDGER}{end}" for end in ("-wal", "-shm")]
        for path in (*logs, *frames.aside(folder / files.LEDGER)):
            if path.exists():
                path.rename(folder / aside / path.name)
        _keep_marker(folder, folder / aside, agent)
        files.sync_folder(folder / aside)
        files.sync_folder(folder)
        (folder / NOTE).unlink()
        files.sync_folder(folder)
        shutil.rmtree(folder / PART, ignore_errors=True)  # nothing is in it any more


def _replace(ledger: Path, new: Path, aside: Path) -> None:
    if not new.exists():  # it is in its place already
        return
    kept = aside / ledger.name
    if ledger.is_dir():  # no ledger at all
        ledger.rename(kept)
    elif ledger.exists() and not kept.exists():
        try:
            os.link(ledger, kept)
        except OSError:  # a file system without second names
            ledger.rename(kept)
    files.sync_folder(aside)
    new.replace(ledger)
    files.sync_folder(ledger.parent)


def _keep_marker(folder: Path, aside: Path, agent: str) -> None:
    """Write the marker anew, if it does not say whose the ledger is."""
    marker = folder / files.MARKER
    try:
        if files.read_marker(folder) == agent:
            return
    except Corrupt:
        shutil.copyfile(marker, aside / marker.name)
    files.write_marker(folder, agent)


def aside_folders(folder: Path) -> list[Path]:
    """What was set aside in an agent's folder, the oldest first."""
    return [folder / name for name in files.names_in(folder) if name.startswith((ASIDE, REPLACED))]


def aside_bytes(folder: Path) -> int:
    """
    What was set aside in an agent's folder, also logs, and what was left there by one that was
    stopped. Looks at each of its files.
    """
    logs = frames.aside(folder / files.LEDGER)
    folders = [*aside_folders(folder), *unfinished(folder)]
    return sum(map(files.file_size, logs)) + sum(map(_bytes, folders))


def _bytes(path: Path) -> int:
    return files.folder_bytes(path) if path.is_dir() else files.file_size(path)


def unfinished(folder: Path) -> list[Path]:
    """What a repair or a restore left that was stopped; the next one removes it."""
    left = (folder / PART, folder / BESIDE, folder / frames.PART)
    with files.translate_os_errors(folder):
        return [path for path in left if path.exists()]
