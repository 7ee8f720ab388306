"""
Held: one agent's graph in the worker, from taking its lock to giving it back.

Orders those who use it: questions beside one another and beside one writer; a checkpoint, a swap
and closing alone. Which graphs are held at all is decided in `graphs.py`.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from elytron.errors import Busy
from elytron.graph.database import Database, EngineFault
from elytron.graph.engines import Limits
from elytron.graph.files import GraphFolder, GraphLock
from elytron.graph.graph_file import (
    OWN_TABLE,
    Built,
    GraphFile,
    Known,
    check_room,
    checkpoint,
    close,
    os_errors,
)
from elytron.graph.turns import Turns
from elytron.graph.wire import Behind, GraphState, Statement

WAL_MAX_BYTES = 4 << 20
_WAL_LATE_BYTES = 8 * WAL_MAX_BYTES  # from here on a write waits for the checkpoint
_BUILD_WAL_MAX_BYTES = 8 << 20
_CHECKPOINT_WAIT_S = 0.5  # for readers to leave, as long as it is not late
_BUILD_IDLE_S = 30.0
# Whoever waits gets it once it was not used for a moment: most questions are several calls. And
# once it was held for so long, whoever uses it: to open it again takes a third of that.
_HOLD_UNUSED_S, _HOLD_MAX_S = 0.05, 0.3
_USE_SHARE, _USE_MAX_S = 0.25, 1.0  # of a call's time, kept for what comes after waiting
_FRESH_MAX_S = 2.0  # that whoever opens it may take to do that and use it


@dataclass
class _Build:
    database: Database
    identity: str
    because: str
    added: int
    used_at: float


class HeldGraph:
    """One agent's graph. Safe for many threads."""

    def __init__(
        self,
        module: ModuleType,
        folder: GraphFolder,
        limits: Limits,
        make_room: Callable[["HeldGraph", float], None],
    ) -> None:
        self.folder = folder
        self._module = module
        self._limits = limits
        self._make_room = make_room  # called before one more is held
        self._turns = Turns(f"the graph in {folder.path}")
        self._writing = threading.Lock()
        self._lock = GraphLock(folder)
        self._file = GraphFile(module, folder, limits)
        self._build: _Build | None = None
        self._looked = False  # whether what lies in the folder was opened, or is not there
        self._spoiled = False  # a write failed: Kuzu must be opened anew after that
        self._held_since = 0.0
        self._fresh = False  # held, and not used since
        self.used_at = time.monotonic()

    @property
    def held(self) -> bool:
        return self._lock.held

    @property
    def building(self) -> bool:
        return self._build is not None

    # What is asked of it, each within a deadline on the monotonic clock.

    def query(
        self,
        statement: Statement,
        *,
        needs: int,
        identity: str,
        rows_max: int,
        bytes_max: int,
        deadline: float,
    ) -> Any:
        with self._opened(deadline):
            known, database = self._file.known, self._file.database
            if known is None or known.identity != identity or known.position < needs:
                raise Behind(self._file.state())
            assert database is not None
            return database.read(
                statement, rows_max=rows_max, bytes_max=bytes_max, deadline=deadline
            )

    def state(self, *, deadline: float) -> GraphState:
        with self._opened(deadline):
            return self._file.state()

    def apply(
        self,
        statements: Sequence[Statement],
        *,
        expected: int,
        position: int,
        added: int,
        removed: int,
        again: bool,
        deadline: float,
    ) -> GraphState:
        with self._opened(deadline), self._writer(deadline):
            known = self._file.known
            if known is None:
                raise Behind(self._file.state())
            # Asked again after the worker died: the transaction may have been committed before.
            if not (again and known.position == position):
                if known.position != expected:
                    raise Behind(self._file.state())
                check_room(self.folder)
                live, dead = known.live + added - removed, known.dead + removed
                after = replace(known, position=position, live=live, dead=dead)
                try:
                    self._file.write(statements, after, deadline)
                except EngineFault:
                    self._spoiled = True
                    raise
            state = self._file.state()
        return self._after_checkpoint(deadline) or state

    def begin(
        self, schema: Sequence[Statement], *, identity: str, because: str, deadline: float
    ) -> None:
        with self._turns.alone(deadline):
            with os_errors(self.folder.path):
                self.folder.path.mkdir(exist_ok=True)
            check_room(self.folder)
            self._hold(deadline)
            self._abandon()
            with os_errors(self.folder.path):
                self.folder.clear_building()
            database = Database(self._module, self.folder.building, self._limits)
            self._build = _Build(database, identity, because, 0, time.monotonic())
            try:
                database.run([OWN_TABLE, *schema], deadline)
            except EngineFault:
                self._abandon()
                raise

    def load(self, statements: Sequence[Statement], *, added: int, deadline: float) -> None:
        with self._turns.together(deadline), self._writer(deadline):
            build = self._build
            if build is None:
                raise Behind(self._file.state())
            check_room(self.folder, self.folder.building)
            build.used_at = time.monotonic()
            build.database.write(statements, deadline)
            build.added += added
            if self.folder.wal_bytes(self.folder.building) > _BUILD_WAL_MAX_BYTES:
                checkpoint(build.database)
            build.used_at = time.monotonic()

    def finish(self, *, position: int, again: bool, deadline: float) -> GraphState:
        with self._turns.alone(deadline):
            build = self._build
            if build is None:
                if again:  # the swap may have been done before the worker died
                    self._look(deadline)
                state = self._file.state()
                if again and state.position == position:
                    return state
                raise Behind(state)
            check_room(self.folder, self.folder.building)
            known = Known(position, build.identity, build.added, 0)
            build.database.write(known.statements(), deadline)
            checkpoint(build.database)
            self._build = None
            close(build.database)
            self._file.replace(Built(known, build.because))
            self._looked, self._spoiled = True, False
            return self._file.state()

    # What the worker does with it by itself.

    def interrupt(self) -> None:
        """Have what runs on it end early."""
        build = self._build
        for database in (self._file.database, build.database if build else None):
            if database is not None:
                database.interrupt()

    def give_back(self, deadline: float) -> None:
        """Close it and give its lock back, once nobody uses it. Raises Busy."""
        with self._turns.alone(deadline):
            self._close()

    def give_back_now(self, *, also_building: bool = False) -> bool:
        """The same, if nobody uses it; whether it is given back."""
        if self._build is not None and not also_building:
            return False
        with self._turns.alone_now() as free:
            if free:
                self._close()
            return free

    def is_wanted(self) -> bool:
        """Whether another process waits for it, and may have it by now; or its folder is gone."""
        now = time.monotonic()
        held_s, unused_s = now - self._held_since, now - self.used_at
        if self._build is not None or held_s < (_FRESH_MAX_S if self._fresh else _HOLD_UNUSED_S):
            return False
        if unused_s < _HOLD_UNUSED_S and held_s < _HOLD_MAX_S:
            return False
        try:
            return self._lock.is_wanted()
        except OSError:
            return True

    def abandon_if_idle(self) -> None:
        """Give up a build that nobody went on with."""
        build = self._build
        if build is not None and time.monotonic() - build.used_at > _BUILD_IDLE_S:
            with self._turns.alone_now() as free:
                if free and self._build is build:
                    self._abandon()

    # How that is done.

    @contextlib.contextmanager
    def _opened(self, deadline: float) -> Iterator[None]:
        """
        With the graph looked at and open, beside others.

        Raises:
            Busy: it came so late that there would be no time to use it.
        """
        deadline -= min(_USE_MAX_S, _USE_SHARE * max(0.0, deadline - time.monotonic()))
        while True:
            with self._turns.together(deadline):
                if self._is_ready():
                    self.used_at = time.monotonic()
                    self._fresh = False
                    yield
                    self.used_at = time.monotonic()
                    return
            with self._turns.alone(deadline):
                if self._spoiled:
                    self._file.close(keep_log=True)
                    self._looked = self._spoiled = False
                if not self._is_ready():
                    self._look(deadline)

    def _is_ready(self) -> bool:
        # Without a folder there is nothing to lock, until another process makes it.
        seen = self._looked and not self._spoiled
        return seen and (self._lock.held or not self.folder.path.is_dir())

    def _look(self, deadline: float) -> None:
        """Open what is there. Called alone."""
        if self.folder.path.is_dir():
            self._hold(deadline)
            try:
                self._file.open()
            except BaseException:
                if self._build is None:
                    self._lock.release()
                raise
        self._looked = True

    def _hold(self, deadline: float) -> None:
        """Take the lock, unless it is held."""
        if not self._lock.held:
            self._make_room(self, deadline)
            with os_errors(self.folder.path):
                self._lock.acquire(deadline)
            self._held_since, self._fresh = time.monotonic(), True

    @contextlib.contextmanager
    def _writer(self, deadline: float) -> Iterator[None]:
        if not self._writing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Busy(f"another write to the graph in {self.folder.path} took too long; try again")
        try:
            yield
        finally:
            self._writing.release()

    def _after_checkpoint(self, deadline: float) -> GraphState | None:
        """What the graph is once its log, if it was over its size, is in the file."""
        wal_bytes = self.folder.wal_bytes()
        if wal_bytes <= WAL_MAX_BYTES:
            return None
        if wal_bytes <= _WAL_LATE_BYTES:
            deadline = min(deadline, time.monotonic() + _CHECKPOINT_WAIT_S)
        try:
            with self._turns.alone(deadline):
                if self._file.database is not None and not self._spoiled:
                    self._file.checkpoint()
                return self._file.state()
        except Busy:
            if wal_bytes > _WAL_LATE_BYTES:
                raise
            return None  # the next write tries again

    def _abandon(self) -> None:
        build, self._build = self._build, None
        if build is not None:
            close(build.database)
            with os_errors(self.folder.path):
                self.folder.clear_building()

    def _close(self) -> None:
        self._abandon()
        self._file.close()
        self._looked = self._spoiled = False
        self._lock.release()
