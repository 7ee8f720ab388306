"""
Opening: the file of one agent's ledger: where it lies, whose it is, and how it is begun.

A ledger is begun once. Its marker is written when it stands; from then on a ledger that is
missing, empty or another's is an error, never a reason to begin anew.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import apsw

from elytron.config import Config
from elytron.errors import Busy, Corrupt, ElytronError, Unavailable
from elytron.ledger import carrying, deleted, files, pages, renamed, schema, swapping
from elytron.ledger.beginning import identity, set_up
from elytron.ledger.connection import PAGE_BYTES, STORAGE_ERRORS, connect, translate
from elytron.ledger.lock import FileLock

_log = logging.getLogger("elytron.ledger")
_TRIES = 3  # to open it, while another process puts another file in its place


class Locked(Protocol):
    """The lock of the ledger's writers, held until a deadline comes or the block ends."""

    def __call__(self, deadline: float) -> AbstractContextManager[None]: ...


class LedgerFile:
    """One agent's file. `languages` are those that it says it is indexed in, once opened."""

    def __init__(
        self, store: Path, name: str, config: Config, *, vfs: str | None, carrying: bool = False
    ) -> None:
        self._store = store
        self.folder = files.agent_folder(store, name)
        self.path = self.folder / files.LEDGER
        self.name = name
        self.languages = ",".join(config.languages)
        self._config = config
        self._vfs = vfs
        self._carrying = carrying
        self._path_text = str(self.path)  # for what is asked at each commit
        self.is_elsewhere: Callable[[], bool] = lambda: False  # the folder is another by now
        self._opened: tuple[int, int] | None = None  # which file it was
        self._opened_us = 0

    def find(self, *, create: bool) -> bool | None:
        """
        Whether there is a ledger: None if there is none and *create* is False.

        Raises:
            Corrupt: its marker says that there was one, and it is missing, empty or another's.
        """
        self._opened = None
        self._finish_swap()
        self._finish_renaming()
        marked = files.read_marker(self.folder)
        if marked is None and not create and not self._lost_its_marker():
            return None
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
        return marked is not None

    def _finish_swap(self) -> None:
        """Bring a repair to its end that was cut short while it replaced the file."""
        if not swapping.pending(self.folder):
            return
        timeout_s = self._config.save_timeout_s
        with files.translate_os_errors(self.folder):
            lock = FileLock(self.folder / files.LOCK)
        try:
            lock.acquire(time.monotonic() + timeout_s, timeout_s)
            swapping.finish(self.folder)
        finally:
            lock.close()

    def _finish_renaming(self) -> None:
        """Bring a renaming to its end that was cut short, or wait for the one that is at it."""
        if not renamed.pending(self.folder):
            return
        timeout_s = self._config.save_timeout_s
        with files.translate_os_errors(self.folder):
            try:
                lock = FileLock(self.folder / files.LOCK)
            except FileNotFoundError:  # it has got its other name just now
                return
        try:
            lock.acquire(time.monotonic() + timeout_s, timeout_s)
            if lock.has_its_name():
                self.finish_renaming()
        finally:
            lock.close()

    def finish_renaming(self, *, just_moved: bool = False) -> None:
        """The same, with the lock of the ledger's writers in hand. See `renamed.py`."""
        renamed.finish(self.folder, lambda: self.connect(create=False), just_moved=just_moved)

    def _lost_its_marker(self) -> bool:
        """Whether a whole ledger of this agent lies here, though no marker says so."""
        return files.has_ledger(self.folder) and name_within(self.folder) == self.name

    def begin(self, locked: Locked) -> None:
        """Make the ledger, unless another process was faster."""
        with locked(time.monotonic() + self._config.save_timeout_s):
            if files.read_marker(self.folder) is not None:
                return
            try:
                db = self.connect(create=True)
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
                raise translate(error, self.path) from error
            files.write_marker(self.folder, self.name)

    def _migrate(self, db: apsw.Connection, *, begin: bool = False) -> None:
        for number in range(db.pragma("user_version"), schema.VERSION):
            with db:
                db.execute(schema.MIGRATIONS[number]).fetchall()
                db.pragma("user_version", number + 1)
                if begin and number == 0:
                    set_up(db, name=self.name, languages=self.languages)
            if begin:  # all of them together are more than the smallest log may hold
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def connect_writer(self, locked: Locked) -> apsw.Connection:
        """Open the connection that writes, after a look at whose file it is."""
        if self._opened is not None:  # after an error: the readers still have that file
            self.check_same()
        for _ in range(_TRIES):
            before, now_us = files.file_id(self._path_text), time.time_ns() // 1000
            self._finish_swap()
            db = self._connect_writer(locked)
            # In between a repair may have put another file there: then the log is not this one's.
            if files.file_id(self._path_text) == before and not swapping.pending(self.folder):
                self._opened, self._opened_us = before, now_us
                return db
            db.close()
        raise Busy(f"{self.path} is being replaced by a repair; nothing was written: retry later")

    def check_same(self) -> None:
        """
        Raises:
            Busy, Corrupt: the file that was opened has lost its name, see `gone`. What is written
                into it would be gone with the last close.
        """
        if files.file_id(self._path_text) != self._opened:
            raise self.gone()

    def is_outdated(self) -> bool:
        """Whether the file that was opened has lost its name, and what there is may be opened."""
        opened = self._opened
        if opened is None or files.file_id(self._path_text) == opened:
            return False
        if self._is_followed():
            return True
        gone = self._left()
        return gone is not None and gone.heir is None

    def _is_followed(self) -> bool:
        """
        Whether there is an agent: one that was begun since, or the same with another file, by a
        repair or a restore: those set the former aside, with its log. Beside a file that others
        copied here would lie the log of the former.
        """
        with files.translate_os_errors(self.folder):
            if not (self.folder / files.MARKER).exists():
                return False
        if self.is_elsewhere():
            return True
        aside = [folder / files.LEDGER for folder in swapping.aside_folders(self.folder)]
        return self._opened in map(files.file_id, aside)

    def _left(self) -> deleted.Gone | None:
        """
        That the agent was deleted or renamed; None if nothing says so. Then a disk may have been
        taken away, and a save would begin an empty memory.
        """
        return deleted.Fates(self._store).of(deleted.key_of(self.name), self._opened_us)

    def gone(self) -> ElytronError:
        """What is said to whoever has a file open that has lost its name."""
        is_followed, gone, is_under_way = self._is_followed(), self._left(), False
        if not is_followed and gone is None:
            is_under_way = renamed.is_under_way(self._store, self.name)
            gone = self._left()  # of one that has come to its end just before
        if not (is_followed or is_under_way or gone is not None):
            return Corrupt(
                f"{self.path} was removed or replaced while it was open, and nothing says that"
                f" {self.name!r} was deleted, renamed or repaired; nothing was written: look at the"
                " disk, close the store and open it again, and if the file is gone restore it"
            )
        if is_followed or (gone and gone.heir is None):
            return Busy(
                f"{self.path} was deleted or replaced just now; nothing was written: retry, which"
                " opens what is there"
            )
        return renamed.refused(self.name)

    def _connect_writer(self, locked: Locked) -> apsw.Connection:
        try:
            db = self.connect(create=False)
            try:
                self._check_identity(db)
                version = db.pragma("user_version")
                if version > schema.VERSION:
                    raise Unavailable(
                        f"{self.path} has schema {version}; this version reads up to"
                        f" {schema.VERSION}: upgrade elytron"
                    )
                if version < schema.VERSION:
                    with locked(time.monotonic() + self._config.save_timeout_s):
                        self._migrate(db)
            except BaseException:
                db.close()
                raise
        except STORAGE_ERRORS as error:
            raise translate(error, self.path) from error
        return db

    def connect_reader(self) -> apsw.Connection:
        """Open a connection that cannot write."""
        try:
            db = self.connect(create=False)
            try:
                db.pragma("query_only", 1)
                db.pragma("user_version")  # which opens the log: of the same file, if that is there
                self.check_same()
            except BaseException:
                db.close()
                raise
        except STORAGE_ERRORS as error:
            raise translate(error, self.path) from error
        return db

    def connect(self, *, create: bool) -> apsw.Connection:
        return connect(
            self.path,
            create=create,
            cache_mb=self._config.page_cache_mb,
            wal_limit_bytes=self._config.wal_limit_bytes,
            vfs=self._vfs,
        )

    def _check_identity(self, db: apsw.Connection) -> None:
        """That this is a ledger, and this agent's; notes the languages it is indexed in."""
        if db.pragma("application_id") != schema.APPLICATION_ID:
            raise Corrupt(f"{self.path} is no Elytron ledger; it was left as it is")
        name, self.languages = identity(db, self.path)
        if name != self.name:
            raise Corrupt(
                f"{self.path} is the memory of {name!r}, not of {self.name!r}; it was left as it is"
            )
        if not self._carrying and carrying.is_half(db, self.path):
            raise carrying.half_done(self.path)


def name_within(folder: Path) -> str | None:
    """Whose the ledger in *folder* is, by what it says itself; None if it does not say."""
    path = folder / files.LEDGER
    if swapping.pending(folder):
        return swapping.agent_of(folder)
    try:
        db = connect(path, create=False, cache_mb=0.1, wal_limit_bytes=0, vfs=None)
        try:
            if db.pragma("application_id") != schema.APPLICATION_ID:
                return pages.name_in(path)
            if not db.pragma("user_version"):  # it is just being made, by another process
                return None
            return identity(db, path)[0]
        finally:
            db.close()
    except (*STORAGE_ERRORS, Corrupt) as error:
        _log.warning("%s cannot say whose it is: %s", path, error)
        return pages.name_in(path)
