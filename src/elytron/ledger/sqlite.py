"""
The SQLite ledger of one agent: opened, written in whole transactions, read in snapshots.

What is written is decided above (admission) and put into SQL in `writes.py`; what is read is
in `reads.py`. Here: files, the order of writers, checkpoints, and errors made ours.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from elytron.config import Config
from elytron.errors import Busy, Corrupt, DiskFull, ElytronError, OverBudget, Unavailable
from elytron.ledger import files, schema
from elytron.ledger.connection import (
    BUSY_TIMEOUT_MS,
    FRAME_BYTES,
    PAGE_BYTES,
    STORAGE_ERRORS,
    connect,
    translate,
)
from elytron.ledger.lock import FileLock
from elytron.ledger.ops import Op, Reindex
from elytron.ledger.pool import Readers, Slots
from elytron.ledger.writes import Writes, identity, set_up

_log = logging.getLogger("elytron.ledger")
# What a commit may add to the WAL besides what its ops announce: FTS5's merging. At most a
# quarter of the WAL's limit is kept free for it.
_ROOM_FRAMES = 256


class Ledger:
    """
    One agent's file. `commit` is for one thread at a time; `reading` for many.

    Several processes may hold the same ledger: each commit and checkpoint is ordered by the
    lock file, and readers see the last commit.
    """

    def __init__(
        self, store: Path, name: str, config: Config, *, slots: Slots, vfs: str | None = None
    ) -> None:
        self.folder = files.agent_folder(store, name)
        self.path = self.folder / files.LEDGER
        self._file_path = str(self.path)  # for what is asked at each commit
        self._wal_path = f"{self.path}-wal"
        self.name = name
        self.languages = ",".join(config.languages)
        self._config = config
        self._vfs = vfs
        self._wal_frames = 0
        self._committing = False
        self._file_id: tuple[int, int] | None = None
        self._writer: apsw.Connection | None = None
        self._writes: Writes | None = None
        self._lock: FileLock | None = None
        self._readers = Readers(
            self._open_reader,
            size=config.max_connections,
            timeout_s=config.read_timeout_s,
            slots=slots,
        )

    # -- opening and closing

    def open(self, *, create: bool) -> bool:
        """
        Open the ledger, making it if *create*.

        Returns:
            False if there is none and *create* is False: nothing was made.

        Raises:
            Corrupt: the marker says that there was a ledger, and it is missing, empty,
                another agent's, or no ledger.
            Unavailable, DiskFull, Busy: as they say.
        """
        marked = files.read_marker(self.folder)
        if marked is None and not create and not self._lost_its_marker():
            return False
        if marked is not None and marked != self.name:
            raise Corrupt(
                f"{self.folder} holds the memory of {marked!r}, not of {self.name!r};"
                " it was left as it is"
            )
        with files.translate_os_errors(self.folder):
            if marked is None:
                self.folder.mkdir(parents=True, exist_ok=True)
            elif not files.has_ledger(self.folder):
                raise Corrupt(
                    f"{self.path} is missing or empty, but its marker says that it held a memory;"
                    " restore it from a backup (nothing was created in its place)"
                )
            self._lock = FileLock(self.folder / files.LOCK)
        try:
            if marked is None and create:
                self._create()
            self._writer = self._open_writer()
        except BaseException:
            self.close()
            raise
        return True

    def _lost_its_marker(self) -> bool:
        """Whether a whole ledger of this agent lies here, though no marker says so."""
        return files.has_ledger(self.folder) and name_within(self.folder) == self.name

    def _create(self) -> None:
        with self._locked(time.monotonic() + self._config.save_timeout_s):
            if files.read_marker(self.folder) is not None:
                return  # another process was faster
            try:
                db = self._connect(create=True)
                try:
                    if db.pragma("user_version") == 0:
                        db.pragma("page_size", PAGE_BYTES)
                        db.pragma("auto_vacuum", "incremental")
                        db.pragma("journal_mode", "wal")
                        db.pragma("application_id", schema.APPLICATION_ID)
                        self._migrate(db, begin=True)
                    # A ledger without its marker: begun by one who was stopped just before.
                    self._check_identity(db)
                    # On the disk before the marker vouches for it.
                    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                finally:
                    db.close()
            except STORAGE_ERRORS as error:
                raise translate(error, self.path, full=self._full) from error
            files.write_marker(self.folder, self.name)

    def _migrate(self, db: apsw.Connection, *, begin: bool = False) -> None:
        for number in range(db.pragma("user_version"), schema.VERSION):
            with db:
                db.execute(schema.MIGRATIONS[number]).fetchall()
                db.pragma("user_version", number + 1)
                if begin:
                    set_up(db, name=self.name, languages=self.languages)

    def _open_writer(self) -> apsw.Connection:
        """Open the connection that writes, after a look at whose file it is."""
        try:
            db = self._connect(create=False)
            try:
                self._check_identity(db)
                version = db.pragma("user_version")
                if version > schema.VERSION:
                    raise Unavailable(
                        f"{self.path} has schema {version}; this version reads up to"
                        f" {schema.VERSION}: upgrade elytron"
                    )
                if version < schema.VERSION:
                    with self._locked(time.monotonic() + self._config.save_timeout_s):
                        self._migrate(db)
                room = self._config.max_db_size_bytes - self._config.wal_limit_bytes
                db.pragma("max_page_count", max(1, room // PAGE_BYTES))
                db.set_wal_hook(self._count_frames)
                self._file_id = _file_id(self._file_path)
                self._wal_frames = self._wal_bytes() // FRAME_BYTES
                self._writes = Writes(
                    db,
                    source=self.path,
                    change_max=self._config.change_max,
                    wal_limit_bytes=self._config.wal_limit_bytes,
                )
            except BaseException:
                db.close()
                raise
        except STORAGE_ERRORS as error:
            raise translate(error, self.path) from error
        return db

    def _check_identity(self, db: apsw.Connection) -> None:
        """That this is a ledger, and this agent's; notes the languages it is indexed in."""
        if db.pragma("application_id") != schema.APPLICATION_ID:
            raise Corrupt(f"{self.path} is no Elytron ledger; it was left as it is")
        name, self.languages = identity(db, self.path)
        if name != self.name:
            raise Corrupt(
                f"{self.path} is the memory of {name!r}, not of {self.name!r}; it was left as it is"
            )

    def _connect(self, *, create: bool) -> apsw.Connection:
        return connect(
            self.path,
            create=create,
            cache_mb=self._config.page_cache_mb,
            wal_limit_bytes=self._config.wal_limit_bytes,
            vfs=self._vfs,
        )

    def _open_reader(self) -> apsw.Connection:
        try:
            db = self._connect(create=False)
            db.pragma("query_only", 1)
        except STORAGE_ERRORS as error:
            raise translate(error, self.path) from error
        return db

    def close(self) -> None:
        """Give everything back; the WAL is emptied if nobody else is using it."""
        self._readers.close()
        db, self._writer = self._writer, None
        if db is not None:
            try:
                if self._wal_bytes():
                    self._checkpoint_on_close(db)
                db.close()
            except apsw.Error as error:
                raise translate(error, self.path) from error
            finally:
                self._close_lock()
        self._close_lock()

    def _close_lock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def _checkpoint_on_close(self, db: apsw.Connection) -> None:
        try:
            with self._locked(time.monotonic()):
                db.set_busy_timeout(0)
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (Busy, apsw.BusyError):
            _log.debug("%s is closed with its WAL: others use it", self.path)
        except apsw.Error as error:  # what it holds stays safe in the WAL
            _log.warning("%s is closed with its WAL: %s", self.path, error)

    # -- writing

    def commit(self, ops: Sequence[Op], deadline: float) -> list[Any]:
        """
        Apply ops in one durable transaction.

        Args:
            ops: in order. If the transaction fails as a whole, the ops are tried one by one,
                so each succeeds or fails by itself.
            deadline: on the monotonic clock, for the lock and for readers in the way.

        Returns:
            For each op its result, or the `ElytronError` that it met.
        """
        try:
            with self._locked(deadline):
                db = self._ready_writer(deadline, need_bytes=sum([op.size_bytes for op in ops]))
                try:
                    return self._transact(db, ops)
                except STORAGE_ERRORS as error:
                    committing = self._give_up(db)
                    locked = isinstance(error, apsw.BusyError | apsw.LockedError)
                    if committing or locked or len(ops) == 1:
                        # Under COMMIT the outcome may be open, and each caller has to hear it;
                        # and who is locked out once would be for each op again.
                        return [self._failure(error, committing=committing)] * len(ops)
        except ElytronError as error:
            return [error] * len(ops)
        return [self.commit([op], deadline)[0] for op in ops]

    def checkpoint_due(self) -> bool:
        """Whether the WAL has reached half its limit."""
        return self._wal_frames * FRAME_BYTES * 2 >= self._config.wal_limit_bytes

    def checkpoint(self) -> None:
        """
        Copy the WAL into the file, as far as readers let it; never waits for them.

        A failure costs nobody a receipt, so it is only logged: what was committed is safe in
        the WAL, and the next commit tries again. At the WAL's limit it becomes that commit's
        own error.
        """
        db = self._writer
        if db is None:
            return
        try:
            with self._locked(time.monotonic()):
                frames, done = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                # Fully copied: the next commit begins the WAL anew.
                self._wal_frames = 0 if frames == done else frames
        except (Busy, apsw.BusyError):
            _log.debug("checkpoint of %s put off: it is locked", self.path)
        except apsw.Error as error:
            _log.warning("checkpoint of %s failed: %s", self.path, error)

    def _transact(self, db: apsw.Connection, ops: Sequence[Op]) -> list[Any]:
        assert self._writes is not None, "set with the connection"
        writes, results = self._writes, list[Any]()
        try:
            db.execute("BEGIN IMMEDIATE")
            for op in ops:
                try:
                    results.append(writes.apply(op))
                except ElytronError as error:
                    results.append(error)
            if writes.backlog_bytes:
                # Not for a deletion: it must be possible in a ledger that is full.
                writes.catch_up()
            self._committing = True
            db.execute("COMMIT")
            self._committing = False
            for op in ops:
                if isinstance(op, Reindex) and op.languages is not None:
                    self.languages = op.languages
        except BaseException:
            if not db.get_autocommit():
                with contextlib.suppress(apsw.Error):  # the first error is the one to tell
                    db.execute("ROLLBACK")
            raise
        return results

    def _give_up(self, db: apsw.Connection) -> bool:
        """After an error: whether COMMIT was under way. A doubtful connection is dropped."""
        committing, self._committing = self._committing, False
        db.close()
        self._writer = None
        return committing

    def _failure(self, error: apsw.Error | UnicodeDecodeError, *, committing: bool) -> ElytronError:
        ours = translate(error, self.path, committing=committing, full=self._full)
        ours.__cause__ = error
        return ours

    def _ready_writer(self, deadline: float, *, need_bytes: int) -> apsw.Connection:
        """The writing connection, with room in the WAL for a commit of *need_bytes*."""
        if self._writer is None:
            self._writer = self._open_writer()
        elif _file_id(self._file_path) != self._file_id:
            # What went into a file that has lost its name would be gone with the last close.
            raise Corrupt(
                f"{self.path} was removed or replaced while it was open; nothing was written:"
                " close the store, and restore the file"
            )
        assert self._writes is not None, "set with the connection"
        self._make_room(self._writer, deadline, need_bytes + self._writes.backlog_bytes)
        return self._writer

    def _make_room(self, db: apsw.Connection, deadline: float, need_bytes: int) -> None:
        """
        Empty the WAL, if a commit of *need_bytes* might take it past its limit.

        Raises:
            Busy: a reader kept it until *deadline*.
        """
        limit = self._config.wal_limit_bytes
        room_bytes = min(_ROOM_FRAMES * FRAME_BYTES, limit // 4) + need_bytes
        frames = self._wal_frames
        try:
            if need_bytes > limit // 64:
                # Other processes write too. What we saw after our last commit is good enough
                # for a small one. (Asking the file system would be dearer: on Linux a `stat`
                # makes the next write to the file bring its times to the disk, 50 us.)
                frames, _ = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            if frames > 0 and frames * FRAME_BYTES + room_bytes >= limit:
                self._empty_wal(db, deadline)
        except apsw.Error as error:
            raise translate(error, self.path, full=self._full) from error

    def _empty_wal(self, db: apsw.Connection, deadline: float) -> None:
        wait_s = max(0.0, deadline - time.monotonic())
        db.set_busy_timeout(int(wait_s * 1000))
        try:
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._wal_frames = 0
        except apsw.BusyError as error:
            raise Busy(
                f"the WAL of {self.path} is at its limit of {self._config.wal_limit_bytes} bytes"
                f" and a reader kept it for {wait_s:.1f} s; nothing was written: end that reader,"
                " or raise `wal_limit_mb`"
            ) from error
        finally:
            db.set_busy_timeout(BUSY_TIMEOUT_MS)

    def _count_frames(self, _db: apsw.Connection, _name: str, frames: int) -> int:
        self._wal_frames = frames
        return apsw.SQLITE_OK

    def _full(self) -> ElytronError:
        """Tell the size limit from a full disk: only one of them has no room left."""
        limit = self._config.max_db_size_bytes
        held = self._file_bytes() + self._wal_bytes()
        slack = self._config.wal_limit_bytes + 2 * self._config.max_message_bytes + limit // 20
        free = shutil.disk_usage(self.folder).free
        if held + slack >= limit and free > slack:
            return OverBudget(
                f"the memory of {self.name!r} is at its limit: it has {held} of {limit} bytes, of"
                f" which {self._config.wal_limit_bytes} are kept for its WAL; nothing was written:"
                " delete something, or raise `max_db_size_mb`"
            )
        return DiskFull(
            f"no room left on the disk of {self.path} ({free} bytes free); nothing was written:"
            " free some"
        )

    @contextlib.contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        assert self._lock is not None, "the ledger is closed"
        try:
            # Within, since Ctrl-C may strike between the two; to release twice is harmless.
            self._lock.acquire(deadline, self._config.save_timeout_s)
            yield
        finally:
            self._lock.release()

    # -- reading

    @contextlib.contextmanager
    def reading(self, *, snapshot: bool = False) -> Iterator[apsw.Connection]:
        """
        A connection to read with, for at most `read_timeout_s`.

        Args:
            snapshot: all statements see one moment. Without it each sees its own.

        Raises:
            Busy: no reader came free, or the reading took too long.
            Corrupt, Unavailable: the file is damaged or gone.
        """
        reader = self._readers.borrow()
        broken = True
        try:
            if snapshot:
                reader.db.execute("BEGIN")
            yield reader.db
            if snapshot:
                reader.db.execute("COMMIT")
            broken = False
        except STORAGE_ERRORS as error:
            raise translate(error, self.path) from error
        finally:
            self._readers.give_back(reader, broken=broken)

    def file_sizes(self) -> tuple[int, int]:
        """Bytes of the ledger's file and of its WAL."""
        return self._file_bytes(), self._wal_bytes()

    def _file_bytes(self) -> int:
        return _size(self.path)

    def _wal_bytes(self) -> int:
        return _size(self._wal_path)


def _file_id(path: str) -> tuple[int, int] | None:
    """Which file has this name now; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path | str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def name_within(folder: Path) -> str | None:
    """Whose the ledger in *folder* is, by what it says itself; None if it does not say."""
    path = folder / files.LEDGER
    try:
        db = connect(path, create=False, cache_mb=0.1, wal_limit_bytes=0, vfs=None)
        try:
            if db.pragma("application_id") != schema.APPLICATION_ID:
                return None
            return identity(db, path)[0]
        finally:
            db.close()
    except (*STORAGE_ERRORS, Corrupt) as error:
        _log.warning("%s cannot say whose it is: %s", path, error)
        return None
