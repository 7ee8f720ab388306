"""
The budget's file: two small tables, opened, checked, and read and written by one at a time.

It holds nobody's data, so a damaged one is put aside and begun anew. SQLite notices neither a
changed number nor one that vanished with its page; each row has a checksum, and the whole is
checked when it is opened. What the numbers mean is in `budget.py`.
"""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import apsw

from elytron.errors import Busy, Corrupt
from elytron.ledger import files
from elytron.ledger.connection import STORAGE_ERRORS, connect, translate
from elytron.ledger.lock import FileLock
from elytron.ledger.rows import checksum, fetch

_log = logging.getLogger("elytron.store")
_T = TypeVar("_T")

APPLICATION_ID = 0x454C5942  # "ELYB"
HOLDER = re.compile(r"[0-9a-f]{16}")  # it becomes part of a path
NOBODY = ""  # holds what the WAL of an agent still takes whose writer died
_VERSION = 1
_CACHE_MB = 0.5
_SCHEMA = (
    "CREATE TABLE state(counted INTEGER NOT NULL, checksum INTEGER NOT NULL) STRICT",
    "CREATE TABLE grants(agent TEXT PRIMARY KEY, bytes INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE reserves(agent TEXT NOT NULL, holder TEXT NOT NULL, bytes INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL, PRIMARY KEY(agent, holder)) STRICT, WITHOUT ROWID",
)


class BudgetFile:
    """`budget.db` and the lock beside it. Safe for many threads and processes."""

    def __init__(
        self,
        path: Path,
        *,
        timeout_s: float,
        vfs: str | None,
        opened: Callable[[apsw.Connection], None],
    ) -> None:
        """
        Args:
            opened: run in a transaction whenever a file is opened, which may be another than
                before.
        """
        self.path = path
        self._timeout_s = timeout_s
        self._vfs = vfs
        self._opened = opened
        self._turn = threading.RLock()
        self._lock: FileLock | None = None
        self._db: apsw.Connection | None = None
        self._file_id: tuple[int, int] | None = None
        self._durable = True

    def run(
        self,
        work: Callable[[apsw.Connection], _T],
        *,
        durable: bool = False,
        committed: Callable[[_T], None] | None = None,
    ) -> _T:
        """
        Do *work* in one transaction, alone. If the file turns out to be damaged, in a new one.

        Args:
            durable: the transaction is on the disk when this returns, and not only in the file.
            committed: told the result, if it was committed, before anybody else has the file.

        Raises:
            Busy, DiskFull, Unavailable: see `Budget`.
        """
        with self._alone() as deadline:
            try:
                result = self._transact(work, deadline, durable=durable)
            except Corrupt as error:
                self._put_aside(error)
                result = self._transact(work, deadline, durable=durable)
            if committed is not None:
                committed(result)
            return result

    def close(self) -> None:
        """Give everything back; the next verb would open it again."""
        self._disconnect()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[float]:
        """Keep other threads and processes out; the time by which all waiting has to end."""
        deadline = time.monotonic() + self._timeout_s
        try:
            if not self._turn.acquire(timeout=self._timeout_s):
                raise Busy(
                    f"other threads held {self.path} for {self._timeout_s:g} s and nothing was"
                    " written; retry later, or raise `save_timeout_s`"
                )
            if self._lock is None:
                with files.translate_os_errors(self.path):
                    self._lock = FileLock(self.path.with_suffix(".lock"))
            try:
                self._lock.acquire(deadline, self._timeout_s)
                yield deadline
            finally:
                self._lock.release()
        finally:
            # Ctrl-C may strike on either side of the waiting. Who does not have it is told so.
            with contextlib.suppress(RuntimeError):
                self._turn.release()

    def _transact(
        self, work: Callable[[apsw.Connection], _T], deadline: float, *, durable: bool
    ) -> _T:
        finished = False
        try:
            db = self._connected()
            db.set_busy_timeout(max(1, int((deadline - time.monotonic()) * 1000)))
            if durable != self._durable:
                db.pragma("synchronous", "full" if durable else "off")
                self._durable = durable
            db.execute("BEGIN IMMEDIATE")
            result = work(db)
            db.execute("COMMIT")
            finished = True
        except STORAGE_ERRORS as error:
            raise translate(error, self.path) from error
        finally:
            if not finished:  # closing undoes what was begun, and what is doubtful goes with it
                self._disconnect()
        return result

    def _connected(self) -> apsw.Connection:
        """The connection, if it is still on the file that has the name; else a new one."""
        if self._db is not None and self._file_id == files.file_id(self.path):
            return self._db
        self._disconnect()
        self._remove_if_emptied()
        db = connect(self.path, create=True, cache_mb=_CACHE_MB, wal_limit_bytes=0, vfs=self._vfs)
        try:
            # A process may be killed at any time, so there has to be a journal.
            db.pragma("journal_mode", "truncate")
            with db:
                if _is_empty(db):
                    _log.info("%s is new: what agents take has to be measured", self.path)
                    _set_up(db)
                else:
                    _check(db, self.path)
                self._opened(db)
        except BaseException:
            db.close()
            raise
        self._db, self._file_id, self._durable = db, files.file_id(self.path), True
        return db

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(apsw.Error):  # what led here is the error to tell
                db.close()

    def _remove_if_emptied(self) -> None:
        """Begun anew in the same file, it would look to others like the one they know."""
        with files.translate_os_errors(self.path), contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size == 0:
                self.path.unlink()

    def _put_aside(self, error: Corrupt) -> None:
        """Out of the way and no further: it might be somebody's. Others see that it is gone."""
        aside = self.path.with_name(f"{self.path.name}.damaged")
        _log.warning("%s; moved to %s, and what agents take has to be measured", error, aside)
        with files.translate_os_errors(self.path), contextlib.suppress(FileNotFoundError):
            self.path.replace(aside)


def _is_empty(db: apsw.Connection) -> bool:
    return not fetch(db, "SELECT 1 FROM sqlite_schema") and not db.pragma("application_id")


def _set_up(db: apsw.Connection) -> None:
    for statement in _SCHEMA:
        db.execute(statement)
    db.pragma("application_id", APPLICATION_ID)
    db.pragma("user_version", _VERSION)
    put_counted(db, counted=False)


def _check(db: apsw.Connection, path: Path) -> None:
    """
    That the file is ours, and each number in it is as it was written.

    Raises:
        Corrupt: it is not, or a statement's own error says so.
    """
    if db.pragma("application_id") != APPLICATION_ID or db.pragma("user_version") != _VERSION:
        raise Corrupt(f"{path} is no budget of this version")
    if db.readonly("main") and os.access(path, os.W_OK):
        raise Corrupt(f"{path} is damaged: it says that it is of a format to come")
    schema = {sql for (sql,) in fetch(db, "SELECT sql FROM sqlite_schema")}
    if schema != set(_SCHEMA) or db.pragma("integrity_check") != "ok":
        raise Corrupt(f"{path} is damaged")
    for table in ("state", "grants", "reserves"):
        for *values, stored in fetch(db, f"SELECT * FROM {table}"):
            if checksum(tuple(values)) != stored:
                raise Corrupt(f"{path} is damaged: a row of {table} has the wrong checksum")
    holders = {holder for (holder,) in fetch(db, "SELECT holder FROM reserves")}
    if not all(HOLDER.fullmatch(holder) for holder in holders - {NOBODY}):
        raise Corrupt(f"{path} is damaged: a reserve has no holder")


# -- rows


def counted(db: apsw.Connection) -> bool:
    """Whether what was there before the file has been measured."""
    return bool(db.execute("SELECT counted FROM state").get)


def put_counted(db: apsw.Connection, *, counted: bool) -> None:
    remove(db, "state")
    _put(db, "state", int(counted))


def granted(db: apsw.Connection, agent: str) -> int:
    found = fetch(db, "SELECT bytes FROM grants WHERE agent = ?", (agent,))
    return int(found[0][0]) if found else 0


def put_grant(db: apsw.Connection, agent: str, grant_bytes: int) -> None:
    _put(db, "grants", agent, grant_bytes)


def reserves_of(db: apsw.Connection, agent: str) -> dict[str, int]:
    """Bytes by holder."""
    return dict(fetch(db, "SELECT holder, bytes FROM reserves WHERE agent = ?", (agent,)))


def put_reserve(db: apsw.Connection, agent: str, holder: str, reserve_bytes: int) -> None:
    _put(db, "reserves", agent, holder, reserve_bytes)


def remove(db: apsw.Connection, table: str, **values: str) -> None:
    """Remove the rows of *table* whose columns have these values."""
    where = " AND ".join(f"{column} = ?" for column in values) or "true"
    fetch(db, f"DELETE FROM {table} WHERE {where}", tuple(values.values()))


def total(db: apsw.Connection, table: str) -> int:
    return int(db.execute(f"SELECT ifnull(sum(bytes), 0) FROM {table}").get)


def _put(db: apsw.Connection, table: str, *values: Any) -> None:
    marks = ",".join("?" * (len(values) + 1))
    fetch(db, f"INSERT OR REPLACE INTO {table} VALUES({marks})", (*values, checksum(values)))
