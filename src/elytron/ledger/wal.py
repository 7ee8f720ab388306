"""
Wal: the write-ahead log of one ledger, kept under its limit.

The connection is the ledger's; every call here is made under the ledger's lock file, but for
`due`.
"""

import logging
import time
from pathlib import Path

import apsw

from elytron.errors import Busy
from elytron.ledger import files, frames
from elytron.ledger.connection import BUSY_TIMEOUT_MS, FRAME_BYTES
from elytron.ledger.opening import Locked

_log = logging.getLogger("elytron.ledger")
# What a commit may add to the WAL besides what its ops announce: FTS5's merging. At most a
# quarter of the WAL's limit is kept free for it.
_ROOM_FRAMES = 256
# Who holds the lock longer has opened this ledger before us, and has looked.
_LOOK_WAIT_S = 1.0


class Wal:
    """How many frames the log has, as far as we know, and when it has to be emptied."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self._path = path
        self._log_path = path.with_name(f"{path.name}-wal")
        self._limit_bytes = limit_bytes
        self._frames = 0

    def attach(self, db: apsw.Connection, *, wal_bytes: int) -> None:
        """Count the frames that *db* writes from now on; there are *wal_bytes* already."""
        db.set_wal_hook(self._count_frames)
        self._frames = wal_bytes // FRAME_BYTES

    def look(self, db: apsw.Connection, locked: Locked) -> None:
        """
        Set the log aside, and say so, if commits stand in it that SQLite does not read.

        To be called for a new connection, before it writes over them. Afterwards the log is
        emptied, so that what is written then does not mix with what is left of it.
        """
        try:
            if not self._is_suspicious(db):
                return
            with locked(time.monotonic() + _LOOK_WAIT_S):
                taken = _counting(db)
                lost = frames.read(self._log_path).lost(taken)
                if lost is None:  # another process was writing it just then
                    return
                self._set_aside(lost)
                self._frames = 0
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (Busy, apsw.BusyError) as error:
            _log.warning("the log of %s is left as it is: %s", self._path, error)

    def _set_aside(self, lost: frames.Lost) -> None:
        kept = frames.set_aside(self._path, self._log_path, lost)
        _log.error(
            "%s: %s; %s: run `elytron check --repair`",
            self._path,
            lost,
            f"it is kept as {kept.name}" if kept else "it is one too many to be kept",
        )

    def _is_suspicious(self, db: apsw.Connection) -> bool:
        size_bytes = files.file_size(self._log_path)
        if not size_bytes:
            return False
        taken = _counting(db)
        return frames.is_suspicious(str(self._log_path), taken=taken, size_bytes=size_bytes)

    def due(self) -> bool:
        """Whether it has reached half its limit."""
        return self._frames * FRAME_BYTES * 2 >= self._limit_bytes

    def make_room(self, db: apsw.Connection, deadline: float, *, need_bytes: int) -> None:
        """
        Empty it, if a commit of *need_bytes* might take it past its limit.

        Raises:
            Busy: a reader kept it until *deadline*.
        """
        room_bytes = min(_ROOM_FRAMES * FRAME_BYTES, self._limit_bytes // 4) + need_bytes
        # Other processes write too. (To ask for the file's size would be dearer: on Linux a `stat`
        # makes the next write to it bring its times to the disk, 50 us.)
        taken = _counting(db)
        if frames.stands_behind(self._log_path, taken):
            taken = self._without_remains(db, taken)
        if taken > 0 and taken * FRAME_BYTES + room_bytes >= self._limit_bytes:
            self.empty(db, deadline)

    def _without_remains(self, db: apsw.Connection, taken: int) -> int:
        """
        Empty the log where a process was killed before its commit counted; how many frames it has.

        A shorter commit, written over the first frames of that one, would leave the others behind
        it, as if they had been lost.
        """
        lost = frames.read(self._log_path).lost(taken)
        if lost is not None:
            self._set_aside(lost)
        try:
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            _log.info("a commit that was cut short stays in the log of %s: it is read", self._path)
            return taken
        self._frames = 0
        return 0

    def empty(self, db: apsw.Connection, deadline: float) -> None:
        """
        Copy it into the file and cut it to nothing.

        Raises:
            Busy: a reader kept it until *deadline*.
        """
        wait_s = max(0.0, deadline - time.monotonic())
        db.set_busy_timeout(int(wait_s * 1000))
        try:
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._frames = 0
        except apsw.BusyError as error:
            raise Busy(
                f"the WAL of {self._path} has a limit of {self._limit_bytes} bytes and has to be"
                f" emptied, but a reader kept it for {wait_s:.1f} s; nothing was written: end that"
                " reader, or raise `wal_limit_mb`"
            ) from error
        finally:
            db.set_busy_timeout(BUSY_TIMEOUT_MS)

    def checkpoint(self, db: apsw.Connection) -> None:
        """Copy it into the file, as far as readers let it; never waits for them."""
        frames, done = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        # Fully copied: the next commit begins the WAL anew.
        self._frames = 0 if frames == done else frames

    def _count_frames(self, _db: apsw.Connection, _name: str, frames: int) -> int:
        self._frames = frames
        return apsw.SQLITE_OK


def _counting(db: apsw.Connection) -> int:
    """How many frames of the log count now."""
    try:
        return db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
    except apsw.BusyError:
        # Another process has just opened it, and reads the log through; a statement waits for that.
        db.execute("SELECT count(*) FROM sqlite_schema").get  # noqa: B018
        return db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
