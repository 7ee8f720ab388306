"""
Graph file: the file in a graph's place, from looking at it to closing it.

Its position and identity are kept in a table of the graph itself, written in the transaction that
brings it there. The main file changes only at a checkpoint, so its checksum is taken after each,
and compared before the file is opened again: LadybugDB does not notice a flipped byte by itself.
What is found damaged is set aside, and told; building it anew is the projection's business.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from elytron.errors import Busy, DiskFull, Unavailable
from elytron.graph.database import Database, EngineFault
from elytron.graph.engines import Fault, Limits, opening_fault_of, without_values
from elytron.graph.files import GraphFolder
from elytron.graph.wire import GraphState, Statement

ROOM_MIN_BYTES = 8 << 20  # on the disk, besides: a checkpoint without room ends the worker
_CHECKPOINT_TIMEOUT_S = 60
_OPEN_TIMEOUT_S = 60
_CLOSED_WAL_MAX_BYTES = 256 << 10  # replayed in some milliseconds when it is opened again
_OPENINGS_MAX = 2  # that killed the worker, one after the other
_CRC_CHUNK_BYTES = 1 << 20
_READ = Statement("MATCH (e:Elytron) WHERE e.name = 'state' RETURN e.value")
# Deleted and made anew, as all that changes: Kuzu's SET scrambles strings.
_FORGET = Statement("MATCH (e:Elytron) WHERE e.name = 'state' DELETE e")
_KEEP = "CREATE (:Elytron {name: 'state', value: $value})"
_CHECKPOINT = Statement("CHECKPOINT")
OWN_TABLE = Statement("CREATE NODE TABLE Elytron(name STRING PRIMARY KEY, value STRING)")


class EngineFailed(Exception):
    """
    The engine failed where it must not. The process has to end, and to close nothing before:
    Kuzu scrambles a file whose checkpoint is tried again.
    """

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


@dataclass(frozen=True)
class Known:
    """What is kept of a graph within it."""

    position: int
    identity: str
    live: int
    dead: int

    def statements(self) -> tuple[Statement, Statement]:
        return _FORGET, Statement(_KEEP, {"value": json.dumps(vars(self))})


class GraphFile:
    """The file in the graph's place. Not for two threads at once, but for reading and writing."""

    def __init__(self, module: ModuleType, folder: GraphFolder, limits: Limits) -> None:
        self._module = module
        self._folder = folder
        self._limits = limits
        self._descriptor = -1
        self._kept: dict[str, Any] = {}  # what `state.json` says
        self.database: Database | None = None
        self.known: Known | None = None
        self.set_aside: str | None = None  # why, until another graph was built

    def state(self) -> GraphState:
        known, size_bytes = self.known, self._folder.bytes()
        if known is None:
            return GraphState(None, None, 0, 0, 0, size_bytes, self.set_aside)
        checkpoints = int(self._kept.get("checkpoints", 0))
        return GraphState(
            known.position,
            known.identity,
            known.live,
            known.dead,
            checkpoints,
            size_bytes,
            self.set_aside,
        )

    def open(self) -> None:
        """
        Open what is in the graph's place, if it is what was left there; else set it aside.

        Raises:
            Busy: another process has it open, past our lock.
            DiskFull, Unavailable: it can neither be opened nor set aside.
        """
        with os_errors(self._folder.path):
            if not self._folder.exists():
                return
            why = None
            try:
                why = self._mismatch() or self._engine_open()
            finally:
                if self.known is None:
                    self._let_go()
            if why is not None:
                self._refuse_if_locked()
                self._folder.set_aside()
                self.set_aside = why

    def write(self, statements: Sequence[Statement], after: Known, deadline: float) -> None:
        """In one transaction, which brings the graph to *after*. Raises EngineFault."""
        assert self.database is not None
        self.database.write([*statements, *after.statements()], deadline)
        self.known = after

    def checkpoint(self) -> None:
        """
        Bring the log into the main file. While nobody uses it.

        Raises:
            EngineFailed, DiskFull, Unavailable
        """
        assert self.database is not None
        check_room(self._folder)
        with os_errors(self._folder.path):
            # If the process dies in between, the checksum is of neither state of the file.
            self._folder.write_state(self._kept | {"checkpointing": True})
            checkpoint(self.database)
            self._kept |= {"checkpoints": int(self._kept.get("checkpoints", 0)) + 1}
            self._keep()

    def replace(self, built: "Built") -> None:
        """Put the file that was built in the place of this one, and open it."""
        self.close(keep_log=True)
        with os_errors(self._folder.path):
            self._kept = {
                "engine": self._folder.engine,
                "checkpoints": 0,
                "built_at_us": time.time_ns() // 1000,
                "built_because": built.because,
            }
            self._folder.install()
            self._descriptor = os.open(self._folder.main, os.O_RDONLY)
            self.known, self.set_aside = built.known, None
            self._keep()
        self._let_go()
        self.open()

    def close(self, *, keep_log: bool = False) -> None:
        """
        Close the file; a log of some size is brought into it first. Harmless if it is not open.

        Raises:
            EngineFailed: it could not be closed.
        """
        if self.database is None:
            return
        if not keep_log and self._folder.wal_bytes() > _CLOSED_WAL_MAX_BYTES:
            try:
                self.checkpoint()
            except (DiskFull, Unavailable) as error:
                raise EngineFailed(str(error)) from error
        database, self.database = self.database, None
        close(database)
        self._let_go()

    def _mismatch(self) -> str | None:
        """Why the main file is not the one that was left, or None; and open a descriptor on it."""
        main, kept = self._folder.main, self._folder.read_state()
        if not stat.S_ISREG(main.lstat().st_mode):
            return "it is no file"
        if kept is None:
            return "what was written of it (state.json) is missing or damaged"
        if not os.access(main, os.R_OK | os.W_OK):
            return "it may not be read and written"
        self._kept = kept
        # Opened before the engine opens it, and closed after the engine closed it: closing any
        # descriptor of the file gives the engine's lock away.
        self._descriptor = os.open(main, os.O_RDONLY)
        if kept.get("opening", 0) >= _OPENINGS_MAX:
            return "the engine died of opening it"
        if kept.get("checkpointing"):
            return None  # the engine's own recovery has to do
        if kept.get("bytes") != os.fstat(self._descriptor).st_size:
            return "its size is not the one that was left"
        if kept.get("crc32") != _crc32(self._descriptor):
            return "its checksum is not the one that was left"
        return None

    def _engine_open(self) -> str | None:
        """Why the engine cannot open it, or None."""
        deadline = time.monotonic() + _OPEN_TIMEOUT_S
        opening = int(self._kept.get("opening", 0)) + 1
        self._folder.write_state(self._kept | {"opening": opening})
        try:
            self.database = Database(self._module, self._folder.main, self._limits)
            rows = self.database.values(_READ, deadline)
            self.known = Known(**json.loads(rows[0][0]))
        except EngineFault as error:
            return self._opening_failed(error)
        except (LookupError, TypeError, ValueError):
            return "it does not say what it holds"
        self._kept.pop("opening", None)
        if self._kept.pop("checkpointing", None):
            self._keep()
        else:
            self._folder.write_state(self._kept)
        return None

    def _opening_failed(self, error: EngineFault) -> str:
        # The engine lives, so this is no opening that it died of.
        self._kept.pop("opening", None)
        with contextlib.suppress(OSError):  # the engine's error is the one to tell
            self._folder.write_state(self._kept)
        has_room = free_bytes(self._folder.path) >= ROOM_MIN_BYTES
        fault = opening_fault_of(error.said, has_room=has_room)
        if fault is Fault.DAMAGED:
            return f"the engine cannot open it: {without_values(error.said)}"
        if fault is Fault.LOCKED:
            self._refuse_if_locked()
            raise self._locked("another process") from error
        if fault is Fault.MEMORY:
            raise error
        raise DiskFull(
            f"no room left on the disk of {self._folder.path}, so the graph cannot be opened:"
            " free some"
        ) from error

    def _refuse_if_locked(self) -> None:
        """A file that another program has open may look damaged, and is not. Raises Busy."""
        pid = _lock_holder(self._folder.main)
        if pid is not None:
            raise self._locked(f"process {pid}")

    def _locked(self, holder: str) -> Busy:
        return Busy(
            f"the graph {self._folder.main} is open in {holder}, which is no worker of ours; close"
            " it there, and try again"
        )

    def _keep(self) -> None:
        """Write down what the main file is now. Raises OSError."""
        assert self.known is not None
        self._kept |= {
            "position": self.known.position,
            "identity": self.known.identity,
            "live": self.known.live,
            "dead": self.known.dead,
            "bytes": os.fstat(self._descriptor).st_size,
            "crc32": _crc32(self._descriptor),
        }
        self._folder.write_state(self._kept)

    def _let_go(self) -> None:
        """Forget the file. The engine's part is closed first, the descriptor last."""
        self.known = None
        if self.database is not None:
            database, self.database = self.database, None
            with contextlib.suppress(EngineFault):  # it is set aside, or the disk is full
                database.close()
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


@dataclass(frozen=True)
class Built:
    """A whole file that may take the graph's place, closed."""

    known: Known
    because: str


def checkpoint(database: Database) -> None:
    """However long it takes, within reason: one cut short is fatal. Raises EngineFailed."""
    try:
        database.run([_CHECKPOINT], time.monotonic() + _CHECKPOINT_TIMEOUT_S)
    except EngineFault as error:
        raise EngineFailed(error.said) from error


def close(database: Database) -> None:
    """Raises EngineFailed."""
    try:
        database.close()
    except EngineFault as error:
        raise EngineFailed(error.said) from error


def check_room(folder: GraphFolder, main: Path | None = None) -> None:
    """
    Refuse to write where the disk may not hold the next checkpoint, while nothing is broken yet.

    Args:
        main: the file that is written, if it is not the graph's.

    Raises:
        DiskFull
    """
    free = free_bytes(folder.path)
    # A checkpoint writes aside what it changes: nearly the whole file, however small the log.
    wanted = ROOM_MIN_BYTES + folder.main_bytes(main) + 2 * folder.wal_bytes(main)
    if free < wanted:
        raise DiskFull(
            f"{free:,} bytes are left on the disk of {folder.path}, and the graph wants"
            f" {wanted:,}: free some; the graph itself may go, it is built anew from the ledger"
        )


def free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free
    except FileNotFoundError:
        return shutil.disk_usage(path.parent).free


class os_errors(contextlib.AbstractContextManager[None]):  # noqa: N801
    """Turn an `OSError` on *path* into the error whose way out a caller can take."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __exit__(self, _type: object, error: object, _traceback: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room left on the disk of {self._path}: free some") from error
        raise Unavailable(
            f"{self._path} cannot be used for the graph: {error.strerror}; give this user the"
            " right to write there, or delete the folder, which is made anew"
        ) from error


def _crc32(descriptor: int) -> int:
    """Of a whole file, some 1 GB a second."""
    crc = 0
    os.lseek(descriptor, 0, os.SEEK_SET)
    while data := os.read(descriptor, _CRC_CHUNK_BYTES):
        crc = zlib.crc32(data, crc)
    return crc


def _lock_holder(path: Path) -> int | None:
    """The process that holds an engine's lock on *path*, as far as the system says."""
    if sys.platform != "linux":
        return None  # the layout below is another
    try:
        import fcntl
        import struct

        layout = "hhqqi4x"  # of `struct flock`; the last field is the holder
        asked = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            told = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
        finally:
            os.close(descriptor)
        kind, *_, pid = struct.unpack(layout, told)
    except OSError:
        return None
    return pid if kind != fcntl.F_UNLCK else None
