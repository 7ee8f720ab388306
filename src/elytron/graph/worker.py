"""
The worker process: the only place that imports a native graph engine.

It reads requests from its stdin and writes answers to its stdout, several at a time. It may die
at any moment, and ends by itself: with its parent, when it takes more memory than it may, when
the engine fails where it must not, and when nobody has asked for a while. What becomes of the
calls that were under way then is decided by the client.

Threads take turns at reading: whoever reads a request lets the next one read, and answers it. So
a request passes from the pipe to the engine and back without changing threads.
"""

import importlib.util  # noqa: F401 - Kuzu takes it for loaded
import itertools
import json
import os
import sys
import threading
import time
from importlib import import_module
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple, NoReturn

from elytron.errors import DeadlineExceeded, ElytronError, GraphUnavailable, InvalidArgument
from elytron.graph import exits
from elytron.graph.database import EngineFault
from elytron.graph.engines import Fault, Limits, how_to_install, shown, without_values
from elytron.graph.graph_file import EngineFailed
from elytron.graph.graphs import Graphs
from elytron.graph.held import HeldGraph
from elytron.graph.wire import (
    Answer,
    Behind,
    FrameTooLarge,
    Request,
    Statement,
    frame,
    pack_answer,
    read_frame,
    statements_of,
    unpack_request,
)

_BUSY_TICK_S = 0.05
_HELD_TICK_S = 0.1
_IDLE_TICK_S = 0.5
_TICKS_BETWEEN_SHRINKING = 10
_SOFT_SHARE = 0.6  # of its memory: from here on unused graphs are closed
_FAR_SHARE = 1.25  # from here on nothing is tried any more
_RETIRE_SHARE = 0.75  # from here on it asks to be replaced
_TEXTS_MAX = 2000  # distinct queries: LadybugDB keeps 33 KB of each for ever
_CLOSE_S = 5.0
_LAST_WORDS_S = 0.2
_MARGIN_SHARE, _MARGIN_MAX_S = 0.1, 0.25  # of a call's time, for the answer to come back in time
_OWN_MESSAGES_MAX = 300


class Options(NamedTuple):
    """What the client tells the worker when it starts it."""

    engine: str
    parent: int
    threads: int
    buffer_bytes: int
    db_size_bytes: int
    connections: int
    open_graphs: int
    memory_bytes: int
    frame_bytes: int
    idle_s: float


def import_engine(name: str) -> ModuleType:
    """
    The native module of an engine, `ladybug` or `kuzu`; never both in one process.

    Raises:
        GraphUnavailable: it is not installed, or cannot be loaded here; with what to install.
    """
    # Its other backend has other faults, none of which were measured.
    os.environ.pop("LBUG_PYTHON_BACKEND", None)
    try:
        return import_module(name)
    except ImportError as error:
        if getattr(error, "name", None) == name:
            raise GraphUnavailable(how_to_install(name)) from error
        said = without_values(str(error))
        raise GraphUnavailable(f"{how_to_install(name)} (it cannot be loaded: {said})") from error


def main() -> None:
    """Serve until the parent ends. The options are the last argument, in JSON."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    options = Options(**json.loads(sys.argv[-1]))
    # Whatever native code prints must not reach the protocol.
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (requests.fileno(), answers):
            msvcrt.setmode(descriptor, os.O_BINARY)
    Worker(options, requests, answers).serve()


class Worker:
    def __init__(self, options: Options, requests: BinaryIO, answers: int) -> None:
        self._options = options
        self._requests = requests
        self._answers = answers
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._counting = threading.Lock()
        self._idle_threads = 0
        self._threads = 0
        self._running: dict[int, Request] = {}
        self._texts: set[int] = set()
        self._memory_bytes = 0
        self._asked_at = time.monotonic()
        self._ending = False

    def serve(self) -> NoReturn:
        try:
            module = import_engine(self._options.engine)
        except GraphUnavailable as error:
            self._write(Answer(0, "hello", {"error": str(error)}, 0, False))
            os._exit(exits.MISSING)
        threading.excepthook = self._thread_failed
        # Touched once before there are threads: its first use races with itself.
        module.Database(
            ":memory:", buffer_pool_size=1 << 26, max_db_size=1 << 28, max_num_threads=2
        ).close()
        limits = Limits(
            self._options.buffer_bytes, self._options.db_size_bytes, self._options.connections
        )
        self._graphs = Graphs(
            module,
            limits,
            max_open=self._options.open_graphs,
            idle_s=self._options.idle_s,
            is_short=self._is_short,
        )
        self._write(Answer(0, "hello", {"version": module.__version__}, 0, False))
        self._one_more_reader()
        self._watch()

    # Requests and answers

    def _one_more_reader(self) -> None:
        """Have somebody read the next request, unless as many as may be are at work."""
        with self._counting:
            if self._idle_threads or self._threads >= self._options.threads:
                return
            self._threads += 1
        threading.Thread(target=self._read_and_answer, daemon=True).start()

    def _read_and_answer(self) -> None:
        while True:
            with self._counting:
                self._idle_threads += 1
            with self._reading:
                request = self._next()
                with self._counting:
                    self._idle_threads -= 1
                self._running[request.number] = request
            self._one_more_reader()
            try:
                self._write(self._answer(request))
            finally:
                self._asked_at = time.monotonic()
                del self._running[request.number]

    def _next(self) -> Request:
        try:
            data = read_frame(self._requests.read, self._options.frame_bytes)
        except FrameTooLarge:
            os._exit(exits.PROTOCOL)
        if data is None:
            self._end(exits.DONE)
        return unpack_request(data)

    def _answer(self, request: Request) -> Answer:
        left_s = max(0.0, request.timeout_s)
        deadline = time.monotonic() + left_s - min(_MARGIN_MAX_S, _MARGIN_SHARE * left_s)
        value: Any
        try:
            kind, value = "value", self._value(request, deadline)
        except Behind as behind:
            kind, value = "behind", tuple(behind.state)
        except EngineFault as fault:
            error = self._told(request, fault)
            kind, value = error.code, str(error)
        except ElytronError as error:
            kind, value = error.code, str(error)
        except EngineFailed as failed:
            self._die(exits.DISK, request.number, failed.said)
        return Answer(request.number, kind, value, self._graphs.held, self._wants_to_retire())

    def _value(self, request: Request, deadline: float) -> Any:
        asked = dict(request.arguments)
        with self._graphs.using(request.folder) as graph:
            match request.verb:
                case "query":
                    statement = Statement(*asked.pop("statement"))
                    self._texts.add(hash(statement.text))
                    return graph.query(statement, deadline=deadline, **asked)
                case "state":
                    return tuple(graph.state(deadline=deadline))
                case "release":
                    graph.give_back(deadline)
                    return None
                case "begin":
                    schema = list(statements_of(asked.pop("schema")))
                    graph.begin(schema, deadline=deadline, **asked)
                    return None
            return self._changed(graph, request, deadline)

    def _changed(self, graph: HeldGraph, request: Request, deadline: float) -> Any:
        asked = dict(request.arguments)
        if request.verb == "finish":
            return tuple(graph.finish(again=request.again, deadline=deadline, **asked))
        statements = list(statements_of(asked.pop("statements")))
        if request.verb == "load":
            return graph.load(statements, deadline=deadline, **asked)
        assert request.verb == "apply", request.verb
        return tuple(graph.apply(statements, again=request.again, deadline=deadline, **asked))

    def _told(self, request: Request, fault: EngineFault) -> ElytronError:
        """An engine's error in the words of ours, for whoever asked."""
        if fault.fault is Fault.DISK:
            self._die(exits.DISK, request.number, fault.said)
        if fault.fault is Fault.SLOW:
            return DeadlineExceeded(
                f"the graph did not answer within {request.timeout_s:.3g} s; ask for less, or"
                " give it longer (`graph_timeout_s`)"
            )
        if fault.fault is Fault.MEMORY:
            size_mb = self._options.buffer_bytes / (1 << 20)
            return DeadlineExceeded(
                f"the graph needed more than its buffer of {size_mb:.0f} MB; ask for less, or"
                " raise `graph_buffer_mb`"
            )
        if request.verb == "query":
            if fault.fault is Fault.WRITES:
                return InvalidArgument("the query would change the graph, and it can only read")
            if fault.fault in (Fault.QUERY, Fault.OTHER):
                return InvalidArgument(f"the graph cannot answer this: {shown(fault.said)}")
        said = without_values(fault.said)
        statement = fault.statement[:_OWN_MESSAGES_MAX]
        return GraphUnavailable(f"the engine refused `{statement}`: {said}")

    def _write(self, answer: Answer) -> None:
        try:
            data = frame(pack_answer(answer), self._options.frame_bytes)
        except (FrameTooLarge, ValueError, TypeError, OverflowError) as error:
            told = f"the answer cannot be passed on: {error!s:.200}"
            answer = answer._replace(kind=InvalidArgument.code, value=told)
            data = frame(pack_answer(answer), self._options.frame_bytes)
        with self._writing:
            self._write_all(data)

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._answers, view) :]
            except BrokenPipeError:
                os._exit(exits.DONE)  # the parent is gone, and whoever reads notices too

    # Looking after itself

    def _watch(self) -> NoReturn:
        """In the main thread, as long as the process lives."""
        limit_bytes, ticks = self._options.memory_bytes, itertools.count()
        while True:
            quiet_s = _HELD_TICK_S if self._graphs.held else _IDLE_TICK_S
            time.sleep(_BUSY_TICK_S if self._running else quiet_s)
            if os.getppid() != self._options.parent and sys.platform != "win32":
                self._end(exits.DONE)
            self._memory_bytes = memory_bytes()
            try:
                over = bool(self._running) and self._is_over(limit_bytes)
                if over and self._memory_bytes <= _FAR_SHARE * limit_bytes:
                    self._graphs.shrink()  # it may be those that nobody uses
                    over = self._is_over(limit_bytes)
                if over:
                    self._die(exits.MEMORY, 0, f"{self._memory_bytes} bytes")
                if next(ticks) % _TICKS_BETWEEN_SHRINKING == 0:
                    self._graphs.shrink()
                self._graphs.look_after()
            except EngineFailed as failed:
                self._die(exits.DISK, 0, failed.said)
            except ElytronError as error:  # a folder that can no longer be written to
                self._die(exits.DISK, 0, error.code)
            unused_s = time.monotonic() - self._asked_at
            if unused_s > self._options.idle_s and not self._running and not self._graphs.held:
                self._end(exits.IDLE)

    def _is_short(self) -> bool:
        """Whether memory runs short, so that graphs that nobody uses have to go."""
        return self._is_over(int(_SOFT_SHARE * self._options.memory_bytes))

    def _is_over(self, bound_bytes: int) -> bool:
        """Whether it takes more, also once what was freed is given back to the system."""
        if memory_bytes() > bound_bytes:
            _trim()
        self._memory_bytes = memory_bytes()
        return self._memory_bytes > bound_bytes

    def _wants_to_retire(self) -> bool:
        grown = self._memory_bytes > _RETIRE_SHARE * self._options.memory_bytes
        return (grown or len(self._texts) > _TEXTS_MAX) and not self._graphs.building

    def _end(self, code: int) -> NoReturn:
        """Close everything in order, if that can be soon, and end."""
        with self._counting:
            if self._ending:
                threading.Event().wait()  # the first one ends the process
            self._ending = True
        try:
            threading.Thread(target=self._interrupt_all, args=(code,), daemon=True).start()
            self._graphs.close(time.monotonic() + _CLOSE_S)
        finally:
            os._exit(code)

    def _interrupt_all(self, code: int) -> NoReturn:
        """Have everything end early, also what was about to begin; by force if it does not."""
        deadline = time.monotonic() + 2 * _CLOSE_S
        while time.monotonic() < deadline:
            self._graphs.interrupt()
            time.sleep(_BUSY_TICK_S)
        os._exit(code)

    def _die(self, code: int, number: int, said: str) -> NoReturn:
        """End at once, closing nothing; with the reason, if it can still be told."""
        words = {"number": number, "said": without_values(said)}
        data = frame(pack_answer(Answer(0, "last-words", words, 0, False)), 1 << 16)
        if self._writing.acquire(timeout=_LAST_WORDS_S):
            self._write_all(data)
        os._exit(code)

    def _thread_failed(self, failed: Any) -> None:
        """No thread may end by an error unnoticed."""
        if isinstance(failed.exc_value, EngineFailed):
            self._die(exits.DISK, 0, failed.exc_value.said)
        sys.excepthook(failed.exc_type, failed.exc_value, failed.exc_traceback)
        self._die(exits.FAULT, 0, f"{failed.exc_type.__name__}")


def memory_bytes() -> int:
    """The resident memory of this process."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        import psutil

        return int(psutil.Process().memory_info().rss)


def _trim() -> None:
    """Give back what the C library keeps of memory that was freed."""
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
        if trim is not None:
            trim(0)


_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

if __name__ == "__main__":
    main()
