"""
Backup files: what a backup is on the disk, and which of its files count.

    elytron-backup.json            that this is a backup, of which format, and when one last ended
    lock                           held by whoever writes to it, or reads it to restore
    agents/FOLDER/agent.json       whose copy this is, and of which files it is made
    agents/FOLDER/ledger-*.db      a ledger, as SQLite copied it
    agents/FOLDER/archive-*.json   the manifest of its archive at the same moment
    agents/FOLDER/segments/        the segments that it lists

The rename of `agent.json` into place is the commit of one agent's copy. No other file is written
over: what is new has a new name, and what no `agent.json` names does not count and is removed.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elytron.archive import Entry, Manifest, manifest
from elytron.archive.durable import PART, PartFile
from elytron.errors import Busy, Corrupt, ElytronError, InvalidArgument, NotFound, Unavailable
from elytron.ledger import files
from elytron.ledger.files import sync_folder
from elytron.ledger.lock import FileLock

_log = logging.getLogger("elytron.backup")
FORMAT = 1
AGENT = "agent.json"
SEGMENTS = "segments"
_LOCK, _AGENTS = "lock", "agents"
_CHUNK_BYTES = 1 << 20
_CHECKSUM_BYTES = 16
_FAILED_NAMED_MAX = 20  # of the agents that were not backed up
_NAMED_CHARS = 100  # of each name, or what they are in would be longer than is read
# What is named in a backup is opened, and may be removed: never another path.
_PART_NAME = re.compile(r"(ledger-[0-9a-f]{16}\.db|archive-[0-9a-f]{16}\.json)", re.ASCII)
_NUMBER_MAX = 1 << 57  # as microseconds the year 6537, which a `datetime` can be
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a copy: its name in the agent's folder, bytes, and BLAKE2b in 32 hex digits."""

    name: str
    bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Copy:
    """
    One agent's copy.

    Attributes:
        at_us: when it was made.
        schema: the version of the ledger's.
        begun_us: when the ledger was begun, by itself; tells two ledgers of one name apart.
        sequence: the last number that the ledger gave away; it only rises.
        stamp: what the file system said of the source just before, see `stamps.py`.
        settled: any write since would have changed that.
    """

    agent: str
    at_us: int
    schema: int
    begun_us: int
    sequence: int
    messages: int
    archived: int
    ledger: Part
    archive: Part
    stamp: list[list[Any]]
    settled: bool


class BackupFiles:
    """The folder of a backup. `locked` comes before all that writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, store: Path) -> None:
        """
        Make the folder a backup, unless it is one.

        Raises:
            InvalidArgument: it lies in the store's folder, is a store, or holds something else.
            Unavailable: it cannot be written to, or is a backup of a newer format.
        """
        for path in (self.path, self.path / _AGENTS):  # which may be a link
            files.check_outside(path, store)
        with files.translate_os_errors(self.path):
            if self.exists():
                return
            files.make_folders(self.path)
            held = [name for name in os.listdir(self.path) if not name.startswith(files.BACKUP)]
            if files.is_store(self.path):
                raise InvalidArgument(f"{self.path} is a store; choose a folder of its own")
            if held:
                raise InvalidArgument(
                    f"{self.path} is no backup and not empty (it holds {len(held)} other files or"
                    " folders); choose an empty folder"
                )
            self._say({"format": FORMAT})

    def exists(self) -> bool:
        """
        Whether there is a backup.

        Raises:
            Unavailable: it is of a newer format. Corrupt: it does not say of which.
        """
        said = files.read_json(self.path / files.BACKUP)
        if said is None:
            return False
        _check_format(said.get("format"), self.path)
        return True

    def finish(self, at: str, *, failed: Collection[str]) -> None:
        """Note that a backup came to its end; of many that failed only some by name."""
        named = [name[:_NAMED_CHARS] for name in sorted(failed)[:_FAILED_NAMED_MAX]]
        said = {"failed": len(failed), "such_as": named}
        with files.translate_os_errors(self.path):
            self._say({"format": FORMAT, "at": at, **said})

    def _say(self, value: dict[str, object]) -> None:
        files.write_json(self.path / files.BACKUP, value)

    @contextlib.contextmanager
    def locked(self, *, writing: bool) -> Iterator[None]:
        """
        Alone with the folder. Who only reads goes without the lock where nothing can be written.

        Raises:
            Busy: another process is at it.
        """
        try:
            lock = FileLock(self.path / _LOCK)
        except OSError as error:
            if writing or error.errno not in _READ_ONLY:
                with files.translate_os_errors(self.path):
                    raise
            _log.info("%s is read without its lock: %s", self.path, error.strerror)
            yield
            return
        with contextlib.closing(lock):
            if not lock.try_acquire():
                raise Busy(
                    f"another backup or restore is at work in {self.path}; nothing was written:"
                    " wait until it has ended"
                )
            try:
                yield
            finally:
                lock.release()

    def folder(self, name: str) -> Path:
        return self.path / _AGENTS / files.folder_name(name)

    def prepare(self, name: str, former: Copy | None) -> None:
        """Make the agent's folder, durably, and remove what a backup that was stopped left."""
        folder = self.folder(name)
        with files.translate_os_errors(folder):
            if not (folder / SEGMENTS).is_dir():
                (folder / SEGMENTS).mkdir(parents=True, exist_ok=True)
                for parent in (folder, folder.parent, self.path):
                    sync_folder(parent)
            if former is not None and self.has(former):
                self.tidy(former)
            elif not (folder / AGENT).exists():
                self._remove(folder, {*os.listdir(folder)} - {SEGMENTS})

    def copies(self) -> dict[str, Copy | ElytronError]:
        """
        All copies by the agents' names; of one that is damaged, or cannot be read now, by its
        folder's, what is wrong.
        """
        found: dict[str, Copy | ElytronError] = {}
        for folder in files.folders_in(self.path / _AGENTS):
            try:
                copy = _read(folder)
            except (Corrupt, Unavailable) as error:
                found[folder.name] = error
                continue
            if copy is not None:
                found[copy.agent] = copy
        return found

    def copy_of(self, name: str) -> Copy | None:
        """
        An agent's copy; None if there is none.

        Raises:
            Corrupt: there is one, and what is said of it is damaged.
        """
        return _read(self.folder(name))

    def entries(self, copy: Copy) -> Manifest:
        """
        What the copy's archive holds.

        Raises:
            Corrupt: that is damaged.
        """
        path = self.folder(copy.agent) / copy.archive.name
        found = manifest.read(path)
        if found is None:
            raise _damaged(path, "it is not what was written")
        return found

    def segment(self, name: str, entry: Entry) -> Path:
        return self.folder(name) / SEGMENTS / entry.name

    def has(self, copy: Copy) -> bool:
        """Whether each file of a copy is there, by their sizes."""
        try:
            self.check_sizes(copy)
        except Corrupt as error:
            _log.warning("%s", error)
            return False
        return True

    def check_sizes(self, copy: Copy) -> None:
        """
        Raises:
            Corrupt: a file is missing, or not as large as it was.
        """
        for path, size_bytes, _ in self._files(copy):
            if files.file_size(path) != size_bytes:
                raise _damaged(path, f"it has {files.file_size(path)} bytes of {size_bytes}")

    def verify(self, copy: Copy) -> None:
        """
        Read all files of a copy.

        Raises:
            Corrupt: one is not what was written.
        """
        self.check_sizes(copy)
        for path, _, checksum in self._files(copy):
            with files.translate_os_errors(path):
                if checksum_of(path) != checksum:
                    raise _damaged(path, "it is not what was written")

    def _files(self, copy: Copy) -> Iterator[tuple[Path, int, str]]:
        """Path, bytes and checksum of each file of a copy."""
        folder = self.folder(copy.agent)
        for part in (copy.ledger, copy.archive):
            yield folder / part.name, part.bytes, part.checksum
        for entry in self.entries(copy).entries:
            yield self.segment(copy.agent, entry), entry.bytes, entry.checksum

    def commit(self, copy: Copy) -> None:
        """Have a copy count, whose files are durable; remove those that do not count any more."""
        folder = self.folder(copy.agent)
        value = asdict(copy)
        write_file(
            folder / AGENT,
            json.dumps({"format": FORMAT, "checksum": _checksum(value), "copy": value}).encode(),
        )
        sync_folder(folder)
        self.tidy(copy)

    def remove(self, copy: Copy) -> None:
        """Remove the files of a copy that shall not count. Its segments wait for `tidy`."""
        self._remove(self.folder(copy.agent), {copy.ledger.name, copy.archive.name})

    def folders(self) -> list[Path]:
        """The folders of agents, by their names; also those in which no copy counts."""
        folders = files.folders_in(self.path / _AGENTS)
        return [folder for folder in folders if files.is_folder_name(folder.name)]

    def drop(self, name: str) -> None:
        """Remove an agent's copy with all its files; it does not count from the first step on."""
        self.clear(self.folder(name))

    def clear(self, folder: Path) -> None:
        """Remove an agent's folder, durably, whoever it is of. As `drop`."""
        with files.translate_os_errors(folder):
            (folder / AGENT).unlink(missing_ok=True)
            sync_folder(folder)
            remove_folder(folder)
            sync_folder(folder.parent)

    def tidy(self, copy: Copy) -> None:
        """Remove what the agent's copy is not made of: what was forgotten since, and leavings."""
        folder = self.folder(copy.agent)
        counts = {copy.ledger.name, copy.archive.name, AGENT, SEGMENTS}
        self._remove(folder, {*os.listdir(folder)} - counts)
        listed = self.entries(copy).names
        self._remove(folder / SEGMENTS, {*os.listdir(folder / SEGMENTS)} - listed)

    def _remove(self, folder: Path, names: Collection[str]) -> None:
        ours = [name for name in names if not (folder / name).is_dir()]  # else it is a NAS's, say
        for name in ours:
            (folder / name).unlink()
        if ours:
            sync_folder(folder)


def write_file(path: Path, data: bytes) -> Part:
    """Write a file that is absent, old or whole; its folder is still to be synced."""
    file = PartFile(path, part=path.with_name(f"{path.name}{PART}"))
    try:
        file.write(data)
        file.take_place()
    except BaseException:
        file.abandon()
        raise
    return Part(path.name, len(data), _digest(data))


def copy_file(source: Path, target: Path, checksum: str) -> None:
    """
    Copy a file that never changes, durably; its folder is still to be synced.

    Raises:
        Corrupt: what was read is not what *checksum* says; nothing is in the target's place.
        FileNotFoundError: there is no source.
    """
    hashed = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    with source.open("rb") as reading:
        file = PartFile(target, part=target.with_name(f"{target.name}{PART}"))
        try:
            while data := reading.read(_CHUNK_BYTES):
                hashed.update(data)
                file.write(data)
            if hashed.hexdigest() != checksum:
                raise _damaged(source, "it is not what was written")
            file.take_place()
        except BaseException:
            file.abandon()
            raise


def sealed(path: Path) -> Part:
    """A file that was written by others, once it is forced to the disk."""
    checksum = checksum_of(path)
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        files.sync_file(descriptor)
    finally:
        os.close(descriptor)
    return Part(path.name, path.stat().st_size, checksum)


def checksum_of(path: Path) -> str:
    """BLAKE2b of a file, as the archive has it of its segments."""
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
        ).hexdigest()


def new_name(kind: str, ending: str) -> str:
    """A name that no file of the backup has had."""
    return f"{kind}-{secrets.token_hex(8)}{ending}"


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it; harmless if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _read(folder: Path) -> Copy | None:
    path = folder / AGENT
    said = files.read_json(path)
    if said is None:
        return None
    _check_format(said.get("format"), path)
    try:
        value = dict(said["copy"])  # type: ignore[call-overload]
        if said["checksum"] != _checksum(value):
            raise _damaged(path, "it is not what was written")
        copy = _parsed(value)
    except (KeyError, TypeError, ValueError, InvalidArgument) as error:
        raise _damaged(path, "it is not what was written") from error
    if files.folder_name(copy.agent) != folder.name:
        raise _damaged(path, f"it is of {copy.agent!r}, whose folder is another")
    return copy


def _parsed(value: dict[str, Any]) -> Copy:
    """
    Raises:
        TypeError, ValueError, InvalidArgument: that is none that we wrote, though its checksum is
            right.
    """
    parts = {name: Part(**value[name]) for name in ("ledger", "archive")}
    copy = Copy(**{**value, **parts})
    files.check_name(copy.agent)
    numbers = [copy.at_us, copy.schema, copy.begun_us, copy.sequence, copy.messages, copy.archived]
    numbers += [part.bytes for part in parts.values()]
    if not all(type(number) is int and 0 <= number <= _NUMBER_MAX for number in numbers):
        raise ValueError("no number")
    if not all(_PART_NAME.fullmatch(part.name) for part in parts.values()):
        raise ValueError("no name of a file")
    return copy


def _check_format(found: object, path: Path) -> None:
    if not isinstance(found, int):
        raise _damaged(path, "it does not say of which format it is")
    if found != FORMAT:
        raise Unavailable(
            f"{path} has format {found!r:.20}; this version reads {FORMAT}: upgrade elytron"
        )


def _checksum(value: dict[str, Any]) -> str:
    return _digest(json.dumps(value).encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES).hexdigest()


def _damaged(path: Path, what: str) -> Corrupt:
    return Corrupt(f"{path} is damaged: {what}; it was left as it is")


def not_in(name: str, path: Path) -> NotFound:
    return NotFound(f"{path} has no backup of {name!r}; nothing was changed")
