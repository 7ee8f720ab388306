"""
Connections: how a ledger file is opened, and what SQLite's errors mean to a caller.

SQLite comes with the pinned `apsw`; nothing else in the process may open these files, since
two copies of SQLite, or any other descriptor closed on the file, break each other's locks.
"""

import time
from collections.abc import Callable
from pathlib import Path

import apsw

from elytron.errors import (
    Busy,
    Corrupt,
    DiskFull,
    ElytronError,
    InvalidArgument,
    OutcomeUnknown,
    Unavailable,
)
from elytron.ledger import forks, integers

PAGE_BYTES = 4096
FRAME_BYTES = PAGE_BYTES + 24  # a page in the WAL with its header
# Our own lock comes first: only recovery, the last moment of a checkpoint, and programs that are
# not ours meet SQLite's.
BUSY_TIMEOUT_MS = 2000
_DEADLINE_CHECK_STEPS = 50_000  # virtual machine steps, some milliseconds


def connect(
    path: Path, *, create: bool, cache_mb: float, wal_limit_bytes: int, vfs: str | None
) -> apsw.Connection:
    """
    Open a ledger file with every default set by us.

    Errors are apsw's: the caller knows what it was doing. A connection never checkpoints by
    itself, neither after a commit nor on closing (a forked child might do that).
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    db = apsw.Connection(str(path), flags=flags, vfs=vfs)
    forks.guard_connection(db)
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        db.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        db.wal_autocheckpoint(0)
        db.convert_binding = integers.bind
        db.set_busy_timeout(BUSY_TIMEOUT_MS)
        db.pragma("synchronous", "full")
        db.pragma("fullfsync", 1)
        db.pragma("checkpoint_fullfsync", 1)
        db.pragma("secure_delete", 1)
        db.pragma("temp_store", "memory")
        db.pragma("mmap_size", 0)
        db.pragma("cache_size", -int(cache_mb * 1024))
        db.pragma("journal_size_limit", wal_limit_bytes)
    except BaseException:
        db.close()
        raise
    return db


class Deadline:
    """Stops a connection's statement once its time is over. Moved on for each read."""

    def __init__(self, db: apsw.Connection) -> None:
        self.at = float("inf")
        db.set_progress_handler(self._is_over, _DEADLINE_CHECK_STEPS)

    def _is_over(self) -> bool:
        return time.monotonic() > self.at


# What a statement may raise: SQLite's errors, and text that is no UTF-8 any more.
STORAGE_ERRORS = (apsw.Error, UnicodeDecodeError)


def translate(
    error: apsw.Error | UnicodeDecodeError,
    source: object,
    *,
    committing: bool = False,
    full: Callable[[], ElytronError] | None = None,
) -> ElytronError:
    """
    What an error of SQLite means for the caller.

    Args:
        source: the ledger's path, for the message.
        committing: the error came out of COMMIT, so a failing disk leaves the outcome open.
        full: says whether the disk or the size limit is exhausted.
    """
    match error:
        case apsw.FullError():
            if full is not None:
                return full()
            return DiskFull(f"no room left on the disk of {source}; nothing was written: free some")
        case apsw.BusyError() | apsw.LockedError() | apsw.ProtocolError():
            return Busy(f"{source} is locked by another program; nothing was written, retry later")
        case apsw.InterruptError():
            return Busy(f"reading {source} took longer than `read_timeout_s`; ask for less")
        case apsw.SQLError() if "transaction" in str(error):
            return Unavailable(f"{source}: {error}; nothing was written: close the store")
        case (
            UnicodeDecodeError()
            | apsw.CorruptError()
            | apsw.NotADBError()
            | apsw.FormatError()
            | apsw.ConstraintError()
            | apsw.MismatchError()
            | apsw.SQLError()
        ):
            return Corrupt(
                f"{source} is damaged: {error}; the file was left as it is: run"
                " `elytron check --repair`, or restore it from a backup"
            )
        case apsw.TooBigError():
            return InvalidArgument(f"a value is too large for {source}: {error}")
        case apsw.IOError() if committing:
            return OutcomeUnknown(
                f"the disk of {source} failed during the commit ({error}); the write may or may"
                " not be durable: save again with the same id"
            )
        case apsw.IOError() | apsw.CantOpenError() | apsw.ReadOnlyError() | apsw.PermissionsError():
            return Unavailable(
                f"{source} cannot be used: {error}; nothing was written: look at the disk, and"
                " retry"
            )
        case _:
            return Unavailable(
                f"{source}: {type(error).__name__}: {error}; nothing was written: retry, or close"
                " the store and open it again"
            )
