"""
The SQLite ledger of one agent: opened, written in whole transactions, read in snapshots.

What is written is decided above (admission) and put into SQL in `writes.py`; what is read is
in `reads.py`. Here: files, the order of writers, checkpoints, and errors made ours.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from elytron.config import Config
from elytron.errors import Busy, DiskFull, ElytronError, Unavailable
from elytron.ledger import files, renamed, words
from elytron.ledger.connection import PAGE_BYTES, STORAGE_ERRORS, translate
from elytron.ledger.lock import WritersLock
from elytron.ledger.opening import LedgerFile, Locked
from elytron.ledger.ops import IndexWords, MergeWords, NoteUses, Op, Reindex, Save, SaveOne
from elytron.ledger.pool import Readers, Slots
from elytron.ledger.room import NoRoom, Room
from elytron.ledger.uses import Counts, Uses
from elytron.ledger.wal import Wal
from elytron.ledger.writes import Writes

_log = logging.getLogger("elytron.ledger")
_TRIES = 5  # to open it, while others delete it


class Ledger:
    """
    One agent's file. `commit` is for one thread at a time; `reading` for many.

    Several processes may hold the same ledger: each commit and checkpoint is ordered by the
    lock file, and readers see the last commit.
    """

    def __init__(
        self,
        store: Path,
        name: str,
        config: Config,
        *,
        slots: Slots,
        vfs: str | None = None,
        upkeep: bool = False,
        carrying: bool = False,
        uses: Uses | None = None,
        on_near: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            upkeep: this one makes room for others; it may use the file's last pages.
            carrying: it may be opened while it is half done, see `carrying.py`.
            uses: what all who have this agent open in this process count of its messages' uses.
            on_near: called now and then, in `commit`, while the file is near its limit. Must
                return at once.
        """
        self._file = LedgerFile(store, name, config, vfs=vfs, carrying=carrying)
        self.folder = self._file.folder
        self.path = self._file.path
        self._wal_path = f"{self.path}-wal"
        self.name = name
        self.is_outdated = self._file.is_outdated
        self._config = config
        self._wal = Wal(self.path, limit_bytes=config.wal_limit_bytes)
        self._room = Room(name, config, upkeep=upkeep)
        self._on_near = on_near
        self.uses = uses or Uses.of(config.wal_limit_bytes)
        self._committing = False
        self._index_due = False
        self._wrote = False
        self._writer: apsw.Connection | None = None
        self._writes: Writes | None = None
        self._lock = WritersLock(
            self.folder / files.LOCK, timeout_s=config.save_timeout_s, gone=self._file.gone
        )
        self._file.is_elsewhere = self._lock.is_gone
        self._locked = self._lock.held
        self._readers = Readers(
            self._file.connect_reader,
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
        for _ in range(_TRIES):
            found = self._file.find(create=create)
            if found is None:
                return False
            try:
                self._open(begin=create and not found)
            except ElytronError as error:
                if not self._close_if_gone():
                    raise
                _log.info("%s was taken away while it was opened: %s", self.folder, error)
            except BaseException:
                self.close()
                raise
            else:
                return True
        raise Busy(f"{self.folder} is taken away again and again; nothing was written: retry later")

    def _open(self, *, begin: bool) -> None:
        with files.translate_os_errors(self.folder):
            self._lock.open()
        if begin:
            self._file.begin(self._lock.held_here)
        self._writer = self._open_writer(self._lock.held_here)
        self._lock.check_here()

    def _close_if_gone(self) -> bool:
        """Give everything back; whether the agent was deleted, or renamed, while it was opened."""
        try:
            with files.translate_os_errors(self.folder):
                return self._lock.is_gone() or renamed.pending(self.folder)
        finally:
            self.close()

    @property
    def source(self) -> Path:
        """How messages name it."""
        return self.path

    @property
    def remains(self) -> tuple[str, ...]:
        """Where copies of what was erased may be, beyond our reach: nowhere."""
        return ()

    @property
    def languages(self) -> str:
        """What its words are indexed for, as names separated by commas."""
        return self._file.languages

    def _open_writer(self, locked: Locked) -> apsw.Connection:
        db = self._file.connect_writer(locked)
        try:
            self._room.forget()
            self._wal.attach(db, wal_bytes=self._wal_bytes())
            self._wal.look(db, locked)
            self._writes = Writes(
                db,
                source=self.path,
                change_max=self._config.change_max,
                wal_limit_bytes=self._config.wal_limit_bytes,
                max_concepts=self._config.max_concepts,
            )
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Give everything back; the WAL is emptied if nobody else is using it."""
        self._readers.close()
        if self._wrote and self.uses.any:  # who only reads makes nothing on the disk
            self._save_uses()
        db, self._writer = self._writer, None
        if db is not None:
            try:
                self._checkpoint_on_close(db)
                db.close()
            except apsw.Error as error:
                raise translate(error, self.path) from error
            finally:
                self._lock.close()
        self._lock.close()

    def _save_uses(self) -> None:
        """Write what is counted of uses, if that takes no waiting; they are no promise."""
        while self.uses.any:
            outcome = self.commit([NoteUses(self.uses.take())], time.monotonic())[0]
            if isinstance(outcome, ElytronError):
                _log.info("uses counted in %s were not written: %s", self.path, outcome)
                return

    def _checkpoint_on_close(self, db: apsw.Connection) -> None:
        try:
            if not self._wal_bytes():
                return
            with self._locked(time.monotonic()):
                db.set_busy_timeout(0)
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (Busy, apsw.BusyError):
            _log.debug("%s is closed with its WAL: others use it", self.path)
        except (apsw.Error, Unavailable) as error:  # what it holds stays safe in the WAL
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
            For each op its result, or the `ElytronError` that it met. A `NoRoom` is for all
            of them: whoever can makes room, and tries again.
        """
        try:
            with self._locked(deadline):
                if self._index_due and any(isinstance(op, SaveOne | Save) for op in ops):
                    self._index(deadline)
                db = self._ready_writer(deadline, need_bytes=sum([op.size_bytes for op in ops]))
                try:
                    results = self._transact(db, ops)
                except NoRoom:
                    self._committing = False
                    raise
                except STORAGE_ERRORS as error:
                    committing = self._give_up(db)
                    locked = isinstance(error, apsw.BusyError | apsw.LockedError)
                    if committing or locked or len(ops) == 1:
                        # Under COMMIT the outcome may be open, and each caller has to hear it;
                        # and who is locked out once would be for each op again.
                        return [self._failure(error, committing=committing)] * len(ops)
                else:
                    self._catch_up(deadline)
                    return results
        except ElytronError as error:
            return [error] * len(ops)
        return [self.commit([op], deadline)[0] for op in ops]

    def checkpoint_due(self) -> bool:
        """Whether the WAL has reached half its limit."""
        return self._wal.due()

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
                self._wal.checkpoint(db)
        except (Busy, apsw.BusyError):
            _log.debug("checkpoint of %s put off: it is locked", self.path)
        except (apsw.Error, ElytronError) as error:
            _log.warning("checkpoint of %s failed: %s", self.path, error)

    def empty_wal(self, deadline: float) -> None:
        """
        Copy the WAL into the file and cut it to nothing.

        Raises:
            Busy: a reader, or another program, kept it until *deadline*.
        """
        with self._locked(deadline):
            try:
                self._wal.empty(self._ready_writer(deadline, need_bytes=0), deadline)
            except STORAGE_ERRORS as error:
                raise translate(error, self.path) from error

    def rebuild(self, deadline: float) -> None:
        """
        Write the whole file anew, in place (VACUUM). Saves wait meanwhile: some 10 ms a MB.

        Never a copy renamed over it: with a second process connected that destroys it.

        Raises:
            DiskFull: there is no room for the copy in the WAL; nothing was changed.
            Busy: a reader kept the WAL until *deadline*. While one stays, the copy would too.
        """
        with self._locked(deadline):
            db = self._ready_writer(deadline, need_bytes=0)
            try:
                need_bytes = 2 * db.pragma("page_count") * PAGE_BYTES
                free_bytes = files.free_bytes(self.folder)
                if free_bytes is not None and free_bytes < need_bytes:
                    raise DiskFull(
                        f"rebuilding {self.path} takes up to {need_bytes} bytes for a while,"
                        f" {free_bytes} are free; nothing was changed: free some"
                    )
                self._wal.empty(db, deadline)
                db.pragma("temp_store", "file")  # the copy: not a file's size of memory
                try:
                    db.execute("VACUUM")
                finally:
                    db.pragma("temp_store", "memory")
                    self._wal.empty(db, deadline)
            except STORAGE_ERRORS as error:
                self._give_up(db)
                raise translate(error, self.path, full=self._disk_full) from error

    def _transact(self, db: apsw.Connection, ops: Sequence[Op]) -> list[Any]:
        assert self._writes is not None, "set with the connection"
        writes, results = self._writes, list[Any]()
        uses = Counts()
        need_bytes = sum([op.size_bytes for op in ops])
        try:
            db.execute("BEGIN IMMEDIATE")
            held = self._begin(db, ops, need_bytes)
            for op in ops:
                try:
                    results.append(writes.apply(op))
                except NoRoom:
                    raise
                except ElytronError as error:
                    results.append(error)
            self._check_count(held)
            if writes.saved and not isinstance(ops[0], IndexWords | MergeWords):
                self._index_due = self._index_due or writes.index_due()
                if self.uses.due:
                    uses = self.uses.take()
                    writes.note_uses(uses)
            self._committing = True
            db.execute("COMMIT")
            self._committing = False
            writes.committed()
            self._wrote = True
            for op in ops:
                if isinstance(op, Reindex) and op.languages is not None:
                    self._file.languages = op.languages
        except BaseException as error:
            if not db.get_autocommit():
                with contextlib.suppress(apsw.Error):  # the first error is the one to tell
                    db.execute("ROLLBACK")
            self.uses.put_back(uses)
            if isinstance(error, apsw.FullError):
                self._room.check_full(
                    db,
                    need_bytes=need_bytes,
                    granted_bytes=writes.granted_bytes,
                    free_bytes=files.free_bytes(self.folder) or 0,
                )
            raise
        return results

    def _catch_up(self, deadline: float) -> None:
        """
        Index and merge what is due, in commits of their own that fit into the WAL.

        What was saved is durable before, so a failure here costs nobody a receipt: reading looks
        at the unindexed messages itself. It is tried again before the next messages are saved, and
        then it is told.
        """
        if not self._index_due:
            return
        for step in (self._index, self._tell_if_near):
            try:
                step(deadline)
            except (ElytronError, *STORAGE_ERRORS) as error:
                _log.info("catching up in %s is put off: %s", self.path, error)

    def _index(self, deadline: float) -> None:
        """Index what is due, then merge a little. Raises `NoRoom` where a limit is in the way."""
        writes, more = self._writes, True
        assert writes is not None, "set with the connection"
        while more:
            more = self._step(IndexWords(writes.index_bytes), deadline)
        self._index_due = False
        db = self._ready_writer(deadline, need_bytes=0)
        try:
            segments, _ = words.segments(db)
        except STORAGE_ERRORS as error:
            raise translate(error, self.path) from error
        step = words.step_pages(segments, wal_limit_bytes=self._config.wal_limit_bytes)
        pages, more = writes.merge_pages(), step > 0
        while more and pages > 0:
            more = self._step(MergeWords(step, words.merge_bytes(step, segments)), deadline)
            pages -= step

    def _step(self, op: Op, deadline: float) -> bool:
        """One op in a transaction of its own; errors are ours."""
        db = self._ready_writer(deadline, need_bytes=op.size_bytes)
        try:
            (result,) = self._transact(db, [op])
        except STORAGE_ERRORS as error:
            self._give_up(db)
            raise translate(error, self.path, full=self._disk_full) from error
        if isinstance(result, ElytronError):
            raise result
        return bool(result)

    def _begin(self, db: apsw.Connection, ops: Sequence[Op], need_bytes: int) -> int:
        """Let the file have as many pages as it may for these ops; how many messages it has."""
        assert self._writes is not None, "set with the connection"
        self._writes.begin()
        self._room.graph_bytes = self._writes.graph_bytes
        self._room.bind(db, ops, granted_bytes=self._writes.granted_bytes, need_bytes=need_bytes)
        return self._writes.messages

    def _tell_if_near(self, _deadline: float) -> None:
        db, writes = self._writer, self._writes
        if db is None or writes is None:
            return
        near = self._config.soft_limit_ratio * self._config.max_messages_per_agent
        if writes.messages >= near or self._room.is_near(db):
            self._on_near()

    def _check_count(self, held: int) -> None:
        """
        Raises:
            NoRoom: with these ops there are more messages than `max_messages_per_agent`.
        """
        assert self._writes is not None, "set with the connection"
        now = self._writes.messages
        if now > self._config.max_messages_per_agent and now > held:
            raise self._room.no_messages(held=held, new=now - held)

    def _give_up(self, db: apsw.Connection) -> bool:
        """After an error: whether COMMIT was under way. A doubtful connection is dropped."""
        committing, self._committing = self._committing, False
        db.close()
        self._writer = None
        return committing

    def _failure(self, error: apsw.Error | UnicodeDecodeError, *, committing: bool) -> ElytronError:
        ours = translate(error, self.path, committing=committing, full=self._disk_full)
        ours.__cause__ = error
        return ours

    def _ready_writer(self, deadline: float, *, need_bytes: int) -> apsw.Connection:
        """The writing connection, with room in the WAL for a commit of *need_bytes*."""
        if self._writer is None:
            self._lock.check_here()
            # Under the lock already; to take it again would be to give it back too early.
            self._writer = self._open_writer(lambda _deadline: contextlib.nullcontext())
        else:
            self._file.check_same()
        assert self._writes is not None, "set with the connection"
        if self.uses.due:
            need_bytes += self.uses.at_once * PAGE_BYTES
        try:
            self._wal.make_room(self._writer, deadline, need_bytes=need_bytes)
        except apsw.Error as error:
            raise translate(error, self.path, full=self._disk_full) from error
        return self._writer

    def _disk_full(self) -> ElytronError:
        free_bytes = files.free_bytes(self.folder)
        free = "" if free_bytes is None else f" ({free_bytes} bytes free)"
        return DiskFull(
            f"no room left on the disk of {self.path}{free}; nothing was written: free some"
        )

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
        self._file.check_same()
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
        return files.file_size(self.path), self._wal_bytes()

    def _wal_bytes(self) -> int:
        return files.file_size(self._wal_path)
