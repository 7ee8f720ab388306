"""
Client: asks the worker, within the caller's deadline, whatever happens to it.

A worker that dies is started again, and what died with it is asked again, alone: then whoever
kills it twice is the one that does, and the others get their answers. What a graph holds is
decided by the projection; what a caller may ask is decided here and in `readonly.py`.
"""

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elytron.config import Config
from elytron.errors import (
    Busy,
    Closed,
    DeadlineExceeded,
    DiskFull,
    ElytronError,
    Forked,
    GraphUnavailable,
    InvalidArgument,
    Unavailable,
)
from elytron.graph.files import GraphFolder, GraphLock
from elytron.graph.graph_file import ROOM_MIN_BYTES, free_bytes
from elytron.graph.process import Death, WorkerProcess
from elytron.graph.readonly import question
from elytron.graph.turns import Turns
from elytron.graph.wire import Answer, Request, frame_max_bytes, rows_of
from elytron.graph.wire import Behind as Behind
from elytron.graph.wire import GraphState as GraphState
from elytron.graph.wire import Rows as Rows
from elytron.graph.wire import Statement as Statement
from elytron.ledger import forks
from elytron.ledger.files import translate_os_errors

_log = logging.getLogger("elytron.graph")
_CALLS_MAX = 32  # under way at once: as many threads as the worker may have
_DEATHS_MAX = 8  # of workers over one call, whoever's fault they were
_RETIRE_WAIT_S = 2.0
_REFUSED_S = 2.0  # before an engine that was missing is looked for again
_RELEASE_S = 30.0
_WORKER_BYTES = 64 << 20  # of a worker that has nothing open
_BUFFER_MIN_BYTES = 32 << 20  # or LadybugDB's checkpoint runs out of it
_HARMLESS = ("idle", "closed", "unasked")  # ways to end that are nobody's fault
_ERRORS: Mapping[str, type[ElytronError]] = {
    error.code: error
    for error in (Busy, DeadlineExceeded, DiskFull, GraphUnavailable, InvalidArgument, Unavailable)
}


class WorkerStatus(NamedTuple):
    """How the worker process is."""

    running: bool
    pid: int | None
    rss_bytes: int
    open_graphs: int
    starts: int
    last_error: str | None  # why it was last replaced
    engine_version: str | None


class GraphClient:
    """
    The parent's side: one worker process for a store, started on first use.

    *folder* is everywhere the graph's own folder, `<agent folder>/graph`; `begin` makes it.
    *deadline* is on `time.monotonic`. Safe for many threads.

    Every call raises, besides what it says itself:
        Busy: the graph, or every connection to it, stayed in use. Nothing was done.
        DeadlineExceeded: it took too long, or more memory than it may.
        DiskFull, Unavailable: the graph's folder cannot be used. The ledger is not touched.
        GraphUnavailable: the engine is not installed, or the worker died twice over this call.
        Closed, Forked
    """

    def __init__(self, config: Config) -> None:
        """Starts nothing."""
        self._config = config
        self._options = {
            "engine": config.engine,
            "parent": os.getpid(),
            "threads": _CALLS_MAX,
            "buffer_bytes": _buffer_bytes(config),
            "db_size_bytes": config.max_db_size_bytes,
            "connections": config.max_connections,
            "open_graphs": config.max_open_graphs,
            "memory_bytes": config.max_worker_bytes,
            "frame_bytes": frame_max_bytes(config.max_result_bytes),
            "idle_s": config.graph_idle_s,
        }
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self._turns = Turns("the graph's worker")
        self._places = threading.Semaphore(_CALLS_MAX)
        self._mutex = threading.Lock()  # of what follows
        self._worker: WorkerProcess | None = None
        self._starts = 0
        self._last_error: str | None = None
        self._version: str | None = None
        self._refused: tuple[float, str] | None = None
        self._in_child: _InChild | None = None
        self._closed = False

    def query(
        self,
        folder: Path,
        statement: Statement,
        *,
        needs: int,
        identity: str,
        rows_max: int,
        bytes_max: int,
        deadline: float,
    ) -> Rows:
        """
        What a question gives. It can only read: see `readonly.py`; and the engine's own read-only
        transaction around it is always rolled back.

        Args:
            statement: parameters that its text does not use are left out.
            needs, identity: where the graph has to be, at least, and of what.

        Returns:
            Nodes are dicts with `_ID`, `_LABEL` and their properties, relations also with `_SRC`
            and `_DST`. Decimals and UUIDs come as text, times aware in UTC.

        Raises:
            Behind: there is no graph, or it is not there.
            InvalidArgument: the query is wrong, writes, lacks a parameter, or gives more than
                *rows_max* rows or *bytes_max* bytes.

        One round trip, some 0.2 ms and what the engine takes.
        """
        asked = question(statement.text)
        missing = sorted(asked.parameters - set(statement.params))
        if missing:
            raise InvalidArgument(f"the query uses ${missing[0]}, which was not given")
        params = {name: statement.params[name] for name in asked.parameters}
        arguments = {
            "statement": Statement(asked.text, params),
            "needs": needs,
            "identity": identity,
            "rows_max": rows_max,
            "bytes_max": bytes_max,
        }
        return rows_of(self._call("query", folder, arguments, deadline))

    def state(self, folder: Path, *, deadline: float) -> GraphState:
        """
        Open the graph, if there is one, and say where it is.

        A file that is not as it was left is set aside; `set_aside` then says why.
        """
        return GraphState(*self._call("state", folder, {}, deadline))

    def begin(
        self,
        folder: Path,
        schema: Sequence[Statement],
        *,
        identity: str,
        because: str,
        deadline: float,
    ) -> None:
        """
        Begin a fresh file beside the graph, with *schema*; one that was begun is given up.

        Holds the graph's lock until `finish`, or until nobody went on for 30 seconds.
        """
        arguments = {"schema": list(schema), "identity": identity, "because": because}
        self._call("begin", folder, arguments, deadline)

    def load(
        self, folder: Path, statements: Sequence[Statement], *, added: int, deadline: float
    ) -> None:
        """
        Run *statements* in one transaction on the file being built; *added* rows come with it.

        Raises:
            Behind: none is being built, as when the worker died meanwhile. Begin again.
        """
        self._call("load", folder, {"statements": list(statements), "added": added}, deadline)

    def finish(self, folder: Path, *, position: int, deadline: float) -> GraphState:
        """
        Put what was built in the graph's place; it is at *position*.

        Raises:
            Behind: none is being built. Begin again.
        """
        return GraphState(*self._call("finish", folder, {"position": position}, deadline))

    def apply(
        self,
        folder: Path,
        statements: Sequence[Statement],
        *,
        expected: int,
        position: int,
        added: int,
        removed: int,
        deadline: float,
    ) -> GraphState:
        """
        Bring the graph from *expected* to *position*, in one transaction.

        Raises:
            Behind: it is elsewhere. Nothing was written.
            DeadlineExceeded: it may have been written all the same; ask for the state.
        """
        arguments = {
            "statements": list(statements),
            "expected": expected,
            "position": position,
            "added": added,
            "removed": removed,
        }
        return GraphState(*self._call("apply", folder, arguments, deadline))

    def drop(self, folder: Path, *, deadline: float) -> int:
        """
        Delete the graph, whatever of it there is, also what was set aside; how many bytes.

        Needs no engine. Harmless if there is none.
        """
        self._check()
        if not folder.is_dir():
            return 0
        self._call("release", folder, {}, deadline, start=False)
        where = GraphFolder(folder, self._config.engine)
        lock = GraphLock(where)
        with translate_os_errors(folder):
            lock.acquire(deadline)
            try:
                return where.remove()
            finally:
                lock.release()

    def release(self, folder: Path) -> None:
        """
        Have the worker, if it runs, close the graph and give its lock back. A build is given up.

        Waits up to 30 seconds for those who use it.
        """
        self._call("release", folder, {}, time.monotonic() + _RELEASE_S, start=False)

    def status(self) -> WorkerStatus:
        """How the worker is. Starts none, and asks it nothing."""
        self._check()
        with self._mutex:
            worker, starts, version = self._worker, self._starts, self._version
            self._remember(worker.death if worker is not None else None)
            last_error = self._last_error
        if worker is None or worker.death is not None:
            return WorkerStatus(False, None, 0, 0, starts, last_error, version)
        rss_bytes = _rss_bytes(worker.pid)
        version = worker.version or version
        return WorkerStatus(
            True, worker.pid, rss_bytes, worker.open_graphs, starts, last_error, version
        )

    def close(self) -> None:
        """
        End the worker, in order; what it is asked ends early. Harmless a second time.

        In a forked child it does nothing: the worker is the parent's.
        """
        if os.getpid() != self._pid:
            return
        with self._mutex:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def abandon(self) -> None:
        """Let the worker end by itself, as when a store is forgotten without being closed."""
        worker = self._worker
        if os.getpid() == self._pid and worker is not None:
            worker.let_go()

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise Forked(
                "this process was forked from the one that opened the store; open it anew here"
            )
        if self._closed:
            raise Closed("the store was closed; open it again")

    def _call(
        self,
        verb: str,
        folder: Path,
        arguments: dict[str, Any],
        deadline: float,
        *,
        start: bool = True,
    ) -> Any:
        """Ask until there is an answer, or an error that is this call's own."""
        place = os.path.realpath(folder)
        timeout_s = deadline - time.monotonic()
        blamed = 0
        for attempt in range(_DEATHS_MAX):
            self._check()
            with self._turn(bool(blamed), deadline):
                worker = self._ready_worker(deadline) if start else self._running_worker()
                if worker is None:
                    return None
                number = next(self._numbers)
                left_s = deadline - time.monotonic()
                request = Request(number, verb, place, left_s, attempt > 0, arguments)
                outcome = worker.ask(request, deadline)
            if isinstance(outcome, Answer):
                return _value(outcome)
            self._check()  # closed meanwhile
            with self._mutex:
                self._remember(outcome)
            if outcome.kind not in _HARMLESS:
                _log.warning("the graph's worker ended: %s", outcome.kind)
            self._raise_if_guilty(outcome, number, timeout_s, folder, verb)
            if outcome.kind in ("crash", "memory"):
                blamed += 1
            if blamed > 1:  # the second time it was alone
                raise GraphUnavailable(
                    f"the graph's worker ended twice over this call ({outcome.why}); the graph is"
                    " only a copy: if this goes on, rebuild it"
                )
        raise GraphUnavailable(
            f"the graph's worker ended {_DEATHS_MAX} times before it could answer"
            f" ({self._last_error}); try again"
        )

    def _raise_if_guilty(
        self, death: Death, number: int, timeout_s: float, folder: Path, verb: str
    ) -> None:
        """Where it is plain that the worker died of this call; asking again would be no use."""
        if death.kind == "deadline" and death.number == number:
            raise DeadlineExceeded(
                f"the graph did not answer within {timeout_s:.3g} s, and its worker was ended; ask"
                " for less, or give it longer (`graph_timeout_s`)"
            )
        # What we write is bounded, so there it is the worker that has grown: a new one is tried.
        if death.kind == "memory" and death.calls == 1 and verb == "query":
            raise DeadlineExceeded(
                f"this needed more than the {self._config.max_worker_mb:g} MB that the graph's"
                " worker may have; ask for less, or raise `max_worker_mb`"
            )
        if death.kind == "disk" and death.number == number:
            raise disk_error(folder, death.why)

    @contextlib.contextmanager
    def _turn(self, alone: bool, deadline: float) -> Iterator[None]:
        """A place among the calls under way; the only one, for a call that is suspected."""
        self._retire_if_wanted(deadline)
        if not self._places.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Busy(f"{_CALLS_MAX} calls to the graph are under way; try again")
        try:
            with self._turns.alone(deadline) if alone else self._turns.together(deadline):
                yield
        finally:
            self._places.release()

    def _running_worker(self) -> WorkerProcess | None:
        with self._mutex:
            worker = self._worker
        return worker if worker is not None and worker.death is None else None

    def _ready_worker(self, deadline: float) -> WorkerProcess:
        """The worker, started if there is none."""
        with self._mutex:
            self._check()
            worker = self._worker
            if worker is None or worker.death is not None:
                if self._refused is not None and time.monotonic() < self._refused[0]:
                    raise GraphUnavailable(self._refused[1])
                self._remember(worker.death if worker is not None else None)
                worker = self._worker = WorkerProcess(
                    self._options, frame_max_bytes(self._config.max_result_bytes)
                )
                self._in_child = _InChild(worker)
                forks.guard_lock(self._in_child)
                self._starts += 1
        try:
            ready = worker.wait_ready(deadline)
        except GraphUnavailable as error:
            with self._mutex:
                self._refused = time.monotonic() + _REFUSED_S, str(error)
            raise
        if not ready:
            raise DeadlineExceeded("the graph's worker was still starting; try again")
        self._version = worker.version or self._version
        return worker

    def _retire_if_wanted(self, deadline: float) -> None:
        """Replace a worker that has grown, as soon as nothing runs in it."""
        worker = self._worker
        if worker is None or worker.death is not None or not worker.wants_to_retire:
            return
        try:
            with self._turns.alone(min(deadline, time.monotonic() + _RETIRE_WAIT_S)):
                with self._mutex:
                    if self._worker is not worker:
                        return
                    self._worker = None
                    self._last_error = "it had grown"
                worker.close()
        except Busy:
            return  # the next call tries again

    def _remember(self, death: Death | None) -> None:
        """For the status. Called under the mutex."""
        if death is not None and death.kind not in _HARMLESS:
            self._last_error = death.why


class _InChild:
    """What a forked child does with the worker of its parent."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker

    def close(self) -> None:
        self._worker.leave_to_parent()


def disk_error(folder: Path, why: str) -> ElytronError:
    """What a caller can do about a disk that failed the engine."""
    if "No space left" in why or free_bytes(folder) < ROOM_MIN_BYTES:
        return DiskFull(f"no room left on the disk of {folder} for the graph: free some")
    return Unavailable(
        f"the graph in {folder} could not be written or read: {why}; the ledger is not touched"
    )


def _value(answer: Answer) -> Any:
    if answer.kind == "value":
        return answer.value
    if answer.kind == "behind":
        raise Behind(GraphState(*answer.value))
    raise _ERRORS[answer.kind](answer.value)


def _buffer_bytes(config: Config) -> int:
    """Of one graph: a worker with little memory needs some for itself, and for a second graph."""
    share_bytes = (config.max_worker_bytes - _WORKER_BYTES) // 2
    return min(config.graph_buffer_bytes, max(_BUFFER_MIN_BYTES, share_bytes))


def _rss_bytes(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # it ended just now
        return 0
