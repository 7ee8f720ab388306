"""
Files: where an agent's ledger lies, and whether what lies there can be trusted.

An agent's name is anything a person may type; its folder is a readable slug and a hash of the
exact name. The marker beside a ledger is written once the ledger stands, so that a ledger
which is missing or empty later is known to be lost, and is never begun afresh.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from elytron.errors import Corrupt, DiskFull, InvalidArgument, Unavailable
from elytron.text import fold, plain, unprintable_at

_log = logging.getLogger("elytron.ledger")
NAME_MAX = 1000  # characters of an agent's name
LEDGER = "ledger.db"
LOCK = "ledger.lock"
MARKER = "ledger.json"
ARCHIVE = "archive"  # the folder in an agent's folder
RENAMING = "renaming.json"  # that the agent gets another name, see `renamed.py`
BACKUP = "elytron-backup.json"  # says that a folder is a backup, and no store
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # errors of a full disk
_STORE_MARKER = "elytron.json"
_FORMAT = 1
_MARKER_MAX_BYTES = 64 * 1024
_SLUG_MAX = 40
_FOLDER_NAME = re.compile(rf"[a-z0-9-]{{1,{_SLUG_MAX}}}-[0-9a-f]{{20}}", re.ASCII)
_NETWORK = re.compile(
    r"^(nfs\d?|cifs|smb\w*|afs|afpfs|ceph|glusterfs|lustre|gpfs|beegfs|ncpfs|9p|davfs|webdav"
    r"|fuse\.(sshfs|glusterfs|s3fs|rclone|gcsfuse|davfs|smbnetfs|ceph\S*))$"
)


class Mount(NamedTuple):
    mountpoint: str
    fstype: str


def check_name(name: object) -> str:
    """
    An agent's name, if it can be one: 1 to 1000 characters, no control characters.

    Raises:
        InvalidArgument: with what is wrong and where.
    """
    if not isinstance(name, str):
        raise InvalidArgument(f"an agent's name must be a string; got {type(name).__name__}")
    name = plain(name)
    if not name.strip():
        raise InvalidArgument("an agent's name must not be empty")
    if len(name) > NAME_MAX:
        raise InvalidArgument(f"an agent's name has {len(name)} characters; at most {NAME_MAX}")
    bad = unprintable_at(name)
    if bad is not None:
        raise InvalidArgument(
            f"an agent's name has a control character or a lone surrogate at {bad}; remove it"
        )
    return name


def folder_name(name: str) -> str:
    """
    The agent's folder: a slug to read and 20 hex digits of a hash of the exact name.

    Lower case, ASCII, at most 61 characters: the same on every file system, and never a path.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", fold(name)).strip("-")[:_SLUG_MAX].strip("-") or "agent"
    return f"{slug}-{hashlib.blake2b(name.encode(), digest_size=10).hexdigest()}"


def is_folder_name(name: str) -> bool:
    """Whether some agent's folder may be called so."""
    return _FOLDER_NAME.fullmatch(name) is not None


def agent_folder(store: Path, name: str) -> Path:
    return store / "agents" / folder_name(name)


def network_type(path: Path, mounts: Iterable[Mount]) -> str | None:
    """The type of the network file system that *path* lies on, or None if it is local."""
    best = Mount("", "")
    for mount in mounts:
        inside = path == Path(mount.mountpoint) or Path(mount.mountpoint) in path.parents
        # The later of two mounts on one point hides the earlier.
        if inside and len(mount.mountpoint) >= len(best.mountpoint):
            best = mount
    return best.fstype if _NETWORK.match(best.fstype) else None


def _mounts() -> list[Mount]:
    import psutil

    try:
        return [Mount(p.mountpoint, p.fstype) for p in psutil.disk_partitions(all=True)]
    except (OSError, psutil.Error):  # no mount table to read, as in some containers
        return []


def from_here(path: Path) -> Path:
    """
    The path as it is from where the program is now, since it may go elsewhere. Links stay links.
    From a folder that this user may not come to by its name, it stays as it is.

    Raises:
        Unavailable: where the program is cannot be told, as its folder is gone.
    """
    if path.is_absolute():
        return path
    with translate_os_errors(path):
        here = Path.cwd()
    return here / path if os.access(here, os.X_OK) else path


def check_store_path(path: Path, *, allow_network: bool) -> None:
    """
    Refuse a path that cannot hold a store. Creates nothing.

    Raises:
        Unavailable: a file, a network file system, or a store of a newer format.
        Corrupt: the store's own marker is unreadable.
    """
    with translate_os_errors(path):
        try:
            unusable = b"\0" in str(path).encode()
        except UnicodeEncodeError:  # SQLite takes paths in UTF-8 alone
            unusable = True
        if unusable:
            raise Unavailable(f"{path!r:.200} is no path in UTF-8; choose another path")
        for part in (path, *path.parents):
            if part.exists():
                if not part.is_dir():
                    raise Unavailable(
                        f"{part} is a file; a store needs a folder: choose another path"
                    )
                break
        if (path / BACKUP).exists():
            raise Unavailable(
                f"{path} is a backup, not a store; `elytron restore --from {path}` brings it back"
                " into a store"
            )
        real = Path(os.path.realpath(path))
    if not allow_network:
        network = network_type(real, _mounts())
        if network is not None:
            raise Unavailable(
                f"{path} is on a network file system ({network}), where locks may not hold;"
                " use a local disk, or set `allow_network_path` if you know that they do"
            )
    marker = read_json(path / _STORE_MARKER)
    if marker is not None and marker.get("format") != _FORMAT:
        raise Unavailable(
            f"{path} has format {marker.get('format')!r}; this version reads {_FORMAT}:"
            " upgrade elytron"
        )


def check_outside(path: Path, store: Path) -> None:
    """
    Refuse a path among the store's own files: only SQLite may open or replace those.

    Raises:
        InvalidArgument: it lies in the store's folder.
    """
    # By their parts: `commonpath` refuses two drives of Windows.
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(store)):
        raise InvalidArgument(f"{path} is in the store's own folder; choose another path")


def is_store(path: Path) -> bool:
    """Whether a store was made here."""
    return (path / _STORE_MARKER).exists()


def make_store(path: Path) -> None:
    """Make the store's folders and marker, durably. Harmless if they are there."""
    with translate_os_errors(path):
        make_folders(path / "agents")
        if not (path / _STORE_MARKER).exists():
            write_json(path / _STORE_MARKER, {"format": _FORMAT})


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing, durably."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def write_marker(folder: Path, name: str) -> None:
    """Say, durably, that the ledger in *folder* is complete and whose it is."""
    with translate_os_errors(folder):
        write_json(folder / MARKER, {"format": _FORMAT, "agent": name})
        sync_folder(folder.parent)


def read_marker(folder: Path) -> str | None:
    """
    The exact name of the agent in *folder*, or None if no ledger was ever completed there.

    One whose renaming was cut short has the name that its folder has.

    Raises:
        Corrupt: there is a marker, but it cannot be understood.
    """
    name = marked(folder)
    if name is None or folder_name(name) == folder.name:
        return name
    note = read_json(folder / RENAMING) or {}
    called = note.get("to")
    if note.get("from") == name and isinstance(called, str) and folder_name(called) == folder.name:
        return called
    return marked(folder)  # it may have ended just between the two


def marked(folder: Path) -> str | None:
    """What the marker itself says, see `read_marker`."""
    marker = read_json(folder / MARKER)
    if marker is None:
        return None
    name = marker.get("agent")
    if marker.get("format") != _FORMAT or not isinstance(name, str):
        raise Corrupt(f"{folder / MARKER} is damaged; the ledger beside it was left as it is")
    return name


def may_hold_ledger(folder: Path) -> bool:
    """Whether there is a marker, or a ledger that lost it."""
    with translate_os_errors(folder):
        return (folder / MARKER).exists() or has_ledger(folder)


def has_ledger(folder: Path) -> bool:
    """Whether there is a ledger file with something in it."""
    try:
        found = os.stat(folder / LEDGER)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


def agent_names(store: Path, name_within: Callable[[Path], str | None]) -> list[str]:
    """
    The agents of a store, sorted. Reads one small file an agent.

    Args:
        name_within: asks a ledger itself whose it is, where the marker is missing or damaged.

    One that nothing names any more is left out, with a warning in the log.
    """
    names = []
    with translate_os_errors(store / "agents"), contextlib.suppress(FileNotFoundError):
        with os.scandir(store / "agents") as entries:
            folders = [Path(entry.path) for entry in entries if entry.is_dir()]
        for folder in folders:
            try:
                name = read_marker(folder)
            except Corrupt as error:
                _log.warning("%s", error)
                name = None
            if name is None and has_ledger(folder):
                name = name_within(folder)
            if name is not None and folder_name(name) != folder.name:
                _log.warning("%s says that it is %r, whose folder is another", folder, name)
            elif name is not None:
                names.append(name)
    return sorted(names)


class translate_os_errors(contextlib.AbstractContextManager[None]):  # noqa: N801
    """Turn an `OSError` on *path* into the error whose way out a caller can take."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __exit__(self, _type: object, error: object, _traceback: object) -> None:
        if not isinstance(error, OSError):
            return
        raise translated(error, self._path) from error


def translated(error: OSError, path: Path | str) -> DiskFull | Unavailable:
    """What an error of the system on *path* means for the caller."""
    if error.errno in NO_ROOM:
        return DiskFull(f"no room left on the disk of {path}; nothing was written: free some")
    if error.errno == errno.EIO:
        return Unavailable(f"{path} cannot be used: {error.strerror}; look at the disk, and retry")
    return Unavailable(
        f"{path} cannot be used: {error.strerror}; choose a folder that this user may write to"
    )


def read_json(path: Path) -> dict[str, object] | None:
    """
    A small JSON object, or None if there is no such file.

    Raises:
        Corrupt: it is none. Unavailable: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MARKER_MAX_BYTES)
        parsed = json.loads(data)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be read: {error.strerror}; look at the disk, and retry"
        ) from error
    except (ValueError, RecursionError) as error:  # the latter of a file that is all brackets
        raise Corrupt(
            f"{path} is damaged: it is not JSON; it was left as it is: restore it from a backup"
        ) from error
    if not isinstance(parsed, dict):
        raise Corrupt(
            f"{path} is damaged: it is not a JSON object; it was left as it is: restore it from a"
            " backup"
        )
    return parsed


def write_json(path: Path, value: dict[str, object]) -> None:
    """Write *value* so that the file is either absent, old or whole, whatever happens."""
    # Threads and processes may write the same marker at once; each has a file of its own.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            sync_file(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_file(descriptor: int) -> None:
    """Force a file to the disk itself; on macOS `fsync` alone stops at the drive's cache."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* durable."""
    if sys.platform == "win32":  # folders cannot be opened there, and renames are journaled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_size(path: Path | str) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise translated(error, path) from error


def names_in(folder: Path) -> list[str]:
    """
    The names in a folder, sorted; none if it is not there.

    Raises:
        Unavailable: it cannot be listed. `glob` would take it for empty.
    """
    with translate_os_errors(folder), contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(folder))
    return []


def folders_in(folder: Path) -> list[Path]:
    """The folders in one, sorted. As `names_in`."""
    with translate_os_errors(folder):
        return [path for name in names_in(folder) if (path := folder / name).is_dir()]


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder and in those in it; 0 if there is none."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # else it was removed meanwhile
            raise error

    with translate_os_errors(folder):
        return sum(
            [
                file_size(os.path.join(place, name))
                for place, _, names in os.walk(folder, onerror=refuse)
                for name in names
            ]
        )


def file_id(path: Path | str) -> tuple[int, int] | None:
    """Which file has this name now; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise translated(error, path) from error
    return found.st_dev, found.st_ino


def free_bytes(folder: Path) -> int | None:
    """What is free on a folder's disk; None if the system does not tell."""
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:  # asked for beside an error, which is the one to tell
        _log.info("how much is free in %s is not known: %s", folder, error)
        return None
