"""
A file system of which one call fails, whoever makes it: our own code, or SQLite.

    calls = FaultyCalls(folder)
    with calls.armed(7, FAILING):                 # the seventh call from now on fails
        bob.save(...)

SQLite's calls to the system are replaced where it looks them up itself, so that it makes of an
error number what it would make of the system's. Our own are caught in `os`, `io` and `fcntl`, and
only those that elytron's code makes. Closing and unlocking never fail: they do their work whatever
they return.
"""

import builtins
import contextlib
import ctypes
import errno
import fcntl
import io
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

BLOCK = 512  # bytes
_PASSED = frozenset(
    "pathlib shutil os io contextlib genericpath posixpath glob json json.encoder".split()
)
# What the worker and the embedder are told goes through pipes and sockets, not to a disk.
_NO_DISK = ("elytron.graph.process", "elytron.embed.")


class Mode(NamedTuple):
    """How calls fail: with what error (0: SQLite reads fewer bytes), and whether for good."""

    name: str
    error: int
    for_good: bool

    @property
    def needs_room(self) -> bool:
        """Whether only calls that may take room fail."""
        return self.error == errno.ENOSPC


MODES = {
    mode.name: mode
    for mode in (
        Mode("failing once", errno.EIO, for_good=False),
        Mode("failing for good", errno.EIO, for_good=True),
        Mode("full once", errno.ENOSPC, for_good=False),
        Mode("full for good", errno.ENOSPC, for_good=True),
        Mode("cut short", 0, for_good=False),
    )
}


class FaultyCalls:
    """Counts the calls while armed, and fails the nth, or all from the nth on."""

    def __init__(self, folder: Path) -> None:
        self._mutex = threading.Lock()
        self._nth, self._mode = 0, Mode("", errno.EIO, for_good=False)
        self._armed = False
        self.count = 0
        self.failed: list[str] = []
        self._sync = _Sync(self, folder)
        self._system = _System(self)

    def close(self) -> None:
        self._system.close()
        self._sync.close()

    @property
    def fired(self) -> bool:
        return bool(self.failed)

    @contextlib.contextmanager
    def armed(self, nth: int, mode: Mode) -> Iterator[None]:
        """Fail the *nth* call from now on; none, and only count, if it is 0."""
        with pytest.MonkeyPatch.context() as patch:
            _patch_python(self, patch)
            self.count, self.failed = 0, []
            self._nth, self._mode, self._armed = nth, mode, True
            try:
                yield
            finally:
                self._armed = False

    def disarm(self) -> None:
        self._armed = False

    def fails(
        self, call: str, what: object, *, takes_room: bool = False, reads: bool = False
    ) -> int:
        """The error number with which this call is to fail; 0 if not, -1 to be cut short."""
        with self._mutex:
            if not self._armed:
                return 0
            mode = self._mode
            if (mode.needs_room and not takes_room) or (mode.error == 0 and not reads):
                return 0
            self.count += 1
            if not self._nth or self.count < self._nth:
                return 0
            if self.count > self._nth and not mode.for_good:
                return 0
            if len(self.failed) < 20:
                self.failed.append(f"{call} {what}")
            return mode.error or -1


# -- SQLite


class _Sync:
    """
    SQLite's syncing, which may fail.

    It calls `fsync` itself, past its table of system calls, so the entry is replaced in the table
    of methods that all its files share. Not by a VFS in Python: what that raises is pending while
    SQLite makes its next calls, and Python code must not run then.
    """

    _OFFSET = 5 * 8  # after a version and four other methods
    _IOERR_FSYNC = 1034

    def __init__(self, calls: FaultyCalls, folder: Path) -> None:
        db = apsw.Connection(str(folder / "to-find-the-table.db"))
        pointer = ctypes.c_void_p()
        db.file_control("main", apsw.SQLITE_FCNTL_FILE_POINTER, ctypes.addressof(pointer))
        assert pointer.value is not None
        table = ctypes.c_void_p.from_address(pointer.value).value
        assert table is not None
        self._entry = ctypes.c_void_p.from_address(table + self._OFFSET)
        db.close()
        assert self._entry.value is not None
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
        self._address, plain = self._entry.value, prototype(self._entry.value)

        def sync(file: int, flags: int) -> int:
            failed = calls.fails("sqlite sync", flags, takes_room=True)
            return self._IOERR_FSYNC if failed else int(plain(file, flags))

        self._kept = prototype(sync)
        self._put(ctypes.cast(self._kept, ctypes.c_void_p).value)

    def _put(self, address: int | None) -> None:
        """Write the entry; the table is in memory that is for reading only."""
        page = mmap.PAGESIZE
        start = ctypes.addressof(self._entry) // page * page
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        assert protect(start, page, mmap.PROT_READ | mmap.PROT_WRITE) == 0
        self._entry.value = address
        protect(start, page, mmap.PROT_READ)

    def close(self) -> None:
        self._put(self._address)


_INT, _LONG, _PATH, _ADDRESS, _SIZE = (
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
)
_READ = (ctypes.c_ssize_t, _INT, _ADDRESS, _SIZE)
# What each returns, then what it takes. A failure is -1 for all of them.
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "open": (_INT, _PATH, _INT, _INT),
    "stat": (_INT, _PATH, _ADDRESS),
    "lstat": (_INT, _PATH, _ADDRESS),
    "fstat": (_INT, _INT, _ADDRESS),
    "ftruncate": (_INT, _INT, _LONG),
    "fcntl": (_INT, _INT, _INT, _ADDRESS),
    "read": _READ,
    "pread": (*_READ, _LONG),
    "pread64": (*_READ, _LONG),
    "write": _READ,
    "pwrite": (*_READ, _LONG),
    "pwrite64": (*_READ, _LONG),
    "unlink": (_INT, _PATH),
    "mmap": (ctypes.c_ssize_t, _ADDRESS, _SIZE, _INT, _INT, _INT, _LONG),
}
_LOCKS = (fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GETLK)


class _System:
    """The system calls that SQLite makes, each of which may fail."""

    def __init__(self, calls: FaultyCalls) -> None:
        self._calls = calls
        self._layer = apsw.VFS("faulty-calls-system", "")  # reaches the base's table
        self._kept: list[Any] = []  # what SQLite holds the addresses of
        for name, signature in _SIGNATURES.items():
            with contextlib.suppress(apsw.Error):  # named otherwise on this platform
                self._replace(name, signature)

    def _replace(self, name: str, signature: tuple[Any, ...]) -> None:
        address = self._layer.xGetSystemCall(name)
        if not address:
            return
        prototype = ctypes.CFUNCTYPE(*signature, use_errno=True)
        plain = prototype(address)

        def called(*arguments: Any) -> int:
            error = 0
            if not (name == "fcntl" and not _takes_lock(arguments)):
                error = self._calls.fails(
                    f"sqlite {name}",
                    arguments[0],
                    takes_room="write" in name or (name == "open" and _creates(arguments)),
                    reads="read" in name,
                )
            if error and "write" in name and arguments[2] >= BLOCK:
                # As on a disk that fills up: what fitted is there. A block is never torn.
                plain(arguments[0], arguments[1], arguments[2] // 2, *arguments[3:])
            if error > 0:
                ctypes.set_errno(error)
                return -1
            if error < 0:
                return int(plain(arguments[0], arguments[1], arguments[2] // 2, *arguments[3:]))
            return int(plain(*arguments))

        kept = prototype(called)
        self._kept += [plain, kept]
        pointer = ctypes.cast(kept, ctypes.c_void_p).value
        assert pointer is not None
        self._layer.xSetSystemCall(name, pointer)

    def close(self) -> None:
        self._layer.xSetSystemCall(None, 0)
        self._layer.unregister()


def _takes_lock(arguments: tuple[Any, ...]) -> bool:
    if arguments[1] not in _LOCKS:
        return False
    return bool(ctypes.c_short.from_address(arguments[2]).value != fcntl.F_UNLCK)


def _creates(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments[1] & os.O_CREAT) and not os.path.exists(arguments[0])


# -- our own code


def _patch_python(calls: FaultyCalls, patch: pytest.MonkeyPatch) -> None:
    for name in ("stat", "scandir", "listdir", "statvfs", "unlink", "rmdir", "fstat"):
        patch.setattr(os, name, _counted(calls, name, getattr(os, name)))
    for name in ("fsync", "replace", "mkdir", "truncate", "posix_fallocate"):
        patch.setattr(os, name, _counted(calls, name, getattr(os, name), takes_room=True))
    patch.setattr(os, "open", _counted_open(calls, os.open))
    patch.setattr(os, "write", _counted_write(calls, os.write))
    patch.setattr(os, "read", _counted_read(calls, os.read))
    patch.setattr(fcntl, "flock", _counted_flock(calls, fcntl.flock))
    opened = _counted_file(calls, io.open)
    patch.setattr(io, "open", opened)
    patch.setattr(builtins, "open", opened)


def _is_ours() -> bool:
    """Whether elytron's code made the call, itself or through the standard library."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _PASSED:
        frame = frame.f_back
    name = str(frame.f_globals.get("__name__"))
    return name.startswith("elytron.") and not name.startswith(_NO_DISK)


def _raise(error: int, what: object) -> None:
    raise OSError(error, os.strerror(error), str(what))


def _counted(
    calls: FaultyCalls, name: str, plain: Callable[..., Any], *, takes_room: bool = False
) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        if _is_ours() and (error := calls.fails(name, arguments[0], takes_room=takes_room)):
            _raise(error, arguments[0])
        return plain(*arguments, **named)

    return counted


def _counted_open(calls: FaultyCalls, plain: Callable[..., int]) -> Callable[..., int]:
    def counted(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if _is_ours():
            creates = bool(flags & os.O_CREAT) and not os.path.exists(path)
            if error := calls.fails("open", path, takes_room=creates):
                _raise(error, path)
        return plain(path, flags, *arguments, **named)

    return counted


def _counted_write(calls: FaultyCalls, plain: Callable[..., int]) -> Callable[..., int]:
    def counted(descriptor: int, data: Any) -> int:
        if _is_ours() and (error := calls.fails("write", descriptor, takes_room=True)):
            plain(descriptor, bytes(data)[: len(data) // 2])
            _raise(error, descriptor)
        return plain(descriptor, data)

    return counted


def _counted_read(calls: FaultyCalls, plain: Callable[..., bytes]) -> Callable[..., bytes]:
    def counted(descriptor: int, count: int) -> bytes:
        if _is_ours() and (error := calls.fails("read", descriptor)):
            _raise(error, descriptor)
        return plain(descriptor, count)

    return counted


def _counted_flock(calls: FaultyCalls, plain: Callable[..., None]) -> Callable[..., None]:
    def counted(file: Any, operation: int) -> None:
        locks = operation != fcntl.LOCK_UN
        if locks and _is_ours() and (error := calls.fails("flock", file)):
            _raise(error, file)
        plain(file, operation)

    return counted


def _counted_file(calls: FaultyCalls, plain: Callable[..., Any]) -> Callable[..., Any]:
    def counted(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if not _is_ours() or str(file).startswith("/proc/"):
            return plain(file, mode, *arguments, **named)
        writes = mode[:1] in "wax"
        if error := calls.fails("open", file, takes_room=writes and not os.path.exists(file)):
            _raise(error, file)
        return _File(calls, plain(file, mode, *arguments, **named), str(file))

    return counted


class _File:
    """An open file whose reading and writing may fail."""

    def __init__(self, calls: FaultyCalls, file: Any, name: str) -> None:
        self._calls, self._file, self._name = calls, file, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        for line in self._file:
            self._fail("read a line of")
            yield line

    def read(self, *arguments: Any) -> Any:
        self._fail("read")
        return self._file.read(*arguments)

    def write(self, data: Any) -> Any:
        self._fail("write", takes_room=True)
        return self._file.write(data)

    def flush(self) -> None:
        self._fail("flush", takes_room=True)
        self._file.flush()

    def _fail(self, call: str, *, takes_room: bool = False) -> None:
        if error := self._calls.fails(call, self._name, takes_room=takes_room):
            _raise(error, self._name)
