"""
The lock file that orders the writers of one ledger, in this process and in others.

SQLite's own busy handler starves: with 8 processes the longest wait was 1.6 s, in another run
8.6 s. A file lock around each transaction makes it 0.2 to 0.3 s (`bench/locks.py`). The lock is
a `flock`, which a dead process gives up at once. It is polled, so that the wait can end at a
deadline; a sleep of half a millisecond with jitter is as fair here as the kernel's queue.
"""

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from elytron.errors import Busy, ElytronError, Unavailable
from elytron.ledger import forks

_POLL_S = 0.0005

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class FileLock:
    """
    An exclusive lock on a file, for one holder at a time. Not for two threads at once: the
    writer lets one thread at a time commit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        forks.guard_lock(self)

    def acquire(self, deadline: float, timeout_s: float) -> None:
        """
        Take the lock before *deadline* on the monotonic clock.

        Raises:
            Busy: another held it all that time, and is named where the system tells. *timeout_s*
                is for the message.
            Unavailable: it cannot be locked.
        """
        while not self.try_acquire():
            if time.monotonic() >= deadline:
                raise Busy(
                    f"{_holder(self.stat())} held {self.path} for {timeout_s:g} s and nothing was"
                    " written; retry later, or raise `save_timeout_s`"
                )
            time.sleep(_POLL_S * (0.5 + random.random()))

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it; whether it was taken."""
        try:
            return _try_lock(self._descriptor)
        except OSError as error:
            raise Unavailable(
                f"{self.path} cannot be locked: {error.strerror}; nothing was written: look at the"
                " disk, and retry"
            ) from error

    def stat(self) -> os.stat_result:
        """Of the file that is locked, whatever has its name now."""
        return os.fstat(self._descriptor)

    def has_its_name(self) -> bool:
        """Whether its path still leads to it. If not, the folder was taken away meanwhile."""
        try:
            return os.path.samestat(os.stat(self.path), self.stat())
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(
                f"{self.path} cannot be looked at: {error.strerror}; nothing was written: look at"
                " the disk, and retry"
            ) from error

    def release(self) -> None:
        _unlock(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # the descriptor is gone either way
                os.close(self._descriptor)
            self._descriptor = -1


class WritersLock:
    """The lock of those who write one agent's ledger, which lies in the agent's folder."""

    def __init__(self, path: Path, *, timeout_s: float, gone: Callable[[], ElytronError]) -> None:
        """
        Args:
            gone: what is said to whoever has the lock of an agent that was deleted.
        """
        self._path = path
        self._timeout_s = timeout_s
        self._gone = gone
        self._lock: FileLock | None = None

    def open(self) -> None:
        """Open the file. `close` must follow. Raises `OSError`."""
        self._lock = FileLock(self._path)

    def close(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    @contextlib.contextmanager
    def held(self, deadline: float) -> Iterator[None]:
        """Have it for the length of the block. Raises as `FileLock.acquire`."""
        assert self._lock is not None, "the ledger is closed"
        try:
            # Within, since Ctrl-C may strike between the two; to release twice is harmless.
            self._lock.acquire(deadline, self._timeout_s)
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def held_here(self, deadline: float) -> Iterator[None]:
        """The same, once it is known that it is the one that others look at."""
        with self.held(deadline):
            self.check_here()
            yield

    def is_gone(self) -> bool:
        """Whether the folder that it is in is not the agent's any more."""
        return not (self._path.parent.exists() if self._lock is None else self._lock.has_its_name())

    def check_here(self) -> None:
        """
        Raise what is said of an agent that was deleted, if it was: under a lock that went with its
        folder nobody is alone with what is at its path now.
        """
        if self.is_gone():
            raise self._gone()


def _holder(file: os.stat_result) -> str:
    """Who holds the lock on a file, for an error."""
    pid = _holder_pid(file)
    if pid is None:
        return "another process"
    if pid == os.getpid():
        return "this process itself"
    import psutil

    try:
        stopped = psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:  # it ended just now, or may not be looked at
        stopped = False
    return f"process {pid}, which is stopped," if stopped else f"process {pid}"


def _holder_pid(file: os.stat_result) -> int | None:
    """The process that holds it, by Linux's own list; None where that does not say."""
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as listed:
            for line in listed:
                _, kind, *_, pid, at, _, _ = line.split()
                if kind == "FLOCK" and at == place and int(pid) > 0:  # 0 in another container
                    return int(pid)
    except (OSError, ValueError):  # there is no such list, or it is another
        return None
    return None
