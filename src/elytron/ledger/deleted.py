"""
Deleted: what is left of agents that were deleted: their files for a moment, and that it was meant.

The rename of an agent's folder into `deleted/` is the deletion: before it the agent is whole, after
it there is none, whatever process or version looks. A note follows, then the files are removed; of
a process that died in between the next one that comes by does the rest.

A note tells a backup that an agent is missing on purpose. It is an empty file, whose name is the
hash of the agent's name and the time: it takes no bytes, and does not say who that was. The folder
on its way out has both in its name too, so that there is no moment at which the agent is gone and
nothing tells of it. Notes are for backups made before their time; as none is made within it or
before it any more, they need no removing when a name is used afresh.

An agent that was renamed is missing under its old name on purpose, too. Its note has the hash of
the new name as well, since a backup keeps what it has of the one until it has the other.
"""

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from elytron.errors import DiskFull, OutcomeUnknown, Unavailable
from elytron.ledger import files
from elytron.ledger.files import sync_folder

FOLDER = "deleted"
KEPT_MAX = 10_000  # notes, the newest
_NAME = re.compile(
    r"(?:[a-z0-9-]{1,40}-)?(?P<hash>[0-9a-f]{20})\.(?P<us>\d{1,17})(?:\.(?P<heir>[0-9a-f]{20}))?",
    re.ASCII,
)
_HASH_LENGTH = 20
_TRIES_MAX = 1000  # to remove a folder that others are removing too


class _Left(NamedTuple):
    """A note, or a folder that is still to be removed."""

    path: Path
    key: str
    at_us: int
    is_note: bool
    heir: str | None  # the key of what it was renamed to


class Gone(NamedTuple):
    """When an agent was deleted or renamed, and the key of who has all that it had, if anybody."""

    at_us: int
    heir: str | None


def key_of(name: str) -> str:
    """What stands for an agent in notes: the hash of its exact name, as in its folder's."""
    return key_in(files.folder_name(name))


def key_in(folder_name: str) -> str:
    """The same of the name of an agent's folder."""
    return folder_name[-_HASH_LENGTH:]


def take_away(store: Path, name: str) -> bool:
    """
    Let there be no such agent, durably; False if there is no folder.

    To be called with the lock of the agent's writers in hand. `finish` must follow.

    Raises:
        OutcomeUnknown: it is gone, and may be there again, whole, after a power loss.
        Unavailable, DiskFull: nothing was changed.
    """
    folder, home = files.agent_folder(store, name), store / FOLDER
    with files.translate_os_errors(home):
        files.make_folders(home)
        at_us = next_us(store, name)
        try:
            folder.replace(home / f"{folder.name}.{at_us}")
        except FileNotFoundError:
            return False
    try:
        sync_folder(home)
        sync_folder(folder.parent)
    except OSError as error:
        raise OutcomeUnknown(
            f"the disk failed when {name!r} had just been deleted ({error.strerror}), so it may be"
            " there again after a power loss: delete it again, and look at the disk"
        ) from error
    return True


def finish(store: Path) -> None:
    """
    Note which agents were deleted, and remove what is left of their files.

    Raises:
        Unavailable, DiskFull: something could not be removed; the others were.
    """
    home, failed = store / FOLDER, None
    for left in _all(home):
        if left.is_note:
            continue
        try:
            with files.translate_os_errors(left.path):
                (home / f"{left.key}.{left.at_us}").touch()
                sync_folder(home)
                _remove(left.path)
                sync_folder(home)
        except (Unavailable, DiskFull) as error:
            failed = error
    _forget_oldest(home)
    if failed is not None:
        raise failed


class Fates:
    """What became of agents, as the notes have it now."""

    def __init__(self, store: Path) -> None:
        self._left: dict[str, list[_Left]] = {}
        for left in sorted(_all(store / FOLDER), key=_age):
            self._left.setdefault(left.key, []).append(left)

    def of(self, key: str, since_us: int = 0) -> Gone | None:
        """Of the one that was called so then; None if it still is, or is again."""
        first = self._next(key, since_us)
        end = first
        while end is not None and end.heir is not None:
            then = self._next(end.heir, end.at_us + 1)
            if then is None:
                break
            end = then
        if first is None or end is None or end.heir == key:
            return None
        return Gone(first.at_us, end.heir)

    def last_us(self, key: str) -> int:
        """When one called so was last deleted or renamed; 0 for never."""
        return self._left[key][-1].at_us if key in self._left else 0

    def _next(self, key: str, since_us: int) -> _Left | None:
        return next((left for left in self._left.get(key, ()) if left.at_us >= since_us), None)


def note_renamed(store: Path, old: str, new: str, at_us: int) -> None:
    """Note, durably, that the agent *old* is called *new* since *at_us*. Raises `OSError`."""
    home = store / FOLDER
    files.make_folders(home)
    (home / f"{key_of(old)}.{at_us}.{key_of(new)}").touch()
    sync_folder(home)


def next_us(store: Path, name: str) -> int:
    """Now, and later than all notes of an agent and of its name, whatever the clock says."""
    key = key_of(name)
    told = [left.at_us for left in _all(store / FOLDER) if key in (left.key, left.heir)]
    return max([time.time_ns() // 1000, *[at_us + 1 for at_us in told]])


def lift(store: Path, name: str) -> None:
    """Forget that an agent was deleted, since it is brought back as it was."""
    finish(store)
    home, key = store / FOLDER, key_of(name)
    with files.translate_os_errors(home):
        notes = [left for left in _all(home) if left.key == key and left.is_note]
        for left in notes:
            left.path.unlink(missing_ok=True)
        if notes:
            sync_folder(home)


def _all(home: Path) -> Iterator[_Left]:
    with files.translate_os_errors(home), contextlib.suppress(FileNotFoundError):
        with os.scandir(home) as entries:
            found = [(Path(entry.path), entry.is_file(follow_symlinks=False)) for entry in entries]
        for path, is_note in found:
            said = _NAME.fullmatch(path.name)
            if said is not None:  # else it is not ours
                yield _Left(path, said["hash"], int(said["us"]), is_note, said["heir"])


def _age(left: _Left) -> int:
    return left.at_us


def _forget_oldest(home: Path) -> None:
    """Keep the newest notes: all of other names, and the last of an agent's deletions in a row."""
    kept: list[_Left] = []
    after: dict[str, _Left] = {}
    notes = sorted([left for left in _all(home) if left.is_note], key=_age, reverse=True)
    for left in notes:
        # Else what became of the next one of that name would be told of the one that was deleted.
        if left.heir is not None or left.key not in after or after[left.key].heir is not None:
            kept.append(left)
        after[left.key] = left
    with files.translate_os_errors(home):
        for left in {*notes} - {*kept[:KEPT_MAX]}:
            left.path.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """Remove a folder, which may be a link to where it is. Others may be at it too."""
    for _ in range(_TRIES_MAX):
        is_link = folder.is_symlink()
        with contextlib.suppress(FileNotFoundError):  # another was faster
            shutil.rmtree(folder.resolve() if is_link else folder)
        if is_link:
            folder.unlink(missing_ok=True)
        if not os.path.lexists(folder):
            return
    raise OSError(errno.ENOTEMPTY, "others write to it", str(folder))
