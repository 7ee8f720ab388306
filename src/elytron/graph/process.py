"""
Process: one worker process, as the client sees it, from starting it to what it died of.

Any number of threads may ask it at once; one thread of its own hands out the answers. It is killed
when a call is not answered by its deadline, since native code that hangs cannot be ended
otherwise. Whether a call that died with it is asked again is the client's decision.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import elytron.graph
from elytron.errors import GraphUnavailable, InvalidArgument
from elytron.graph import exits
from elytron.graph.wire import (
    Answer,
    FrameTooLarge,
    Request,
    frame,
    pack_request,
    read_frame,
    unpack_answer,
)

START_MAX_S = 30.0
_CLOSE_S = 8.0  # the worker gives itself a little less
_REAP_S = 5.0
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from elytron.graph.worker import main; main()"
)


class Death(NamedTuple):
    """Why a worker ended before it answered."""

    kind: str  # "deadline", "memory", "disk", "crash", "idle", "closed"; "unasked": before
    number: int  # of the request that it died of, where that is known; else 0
    why: str  # for people
    calls: int = 0  # that died with it


class _Call:
    """A request that waits for its answer."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.settled = threading.Event()
        self.outcome: Answer | Death | None = None

    def settle(self, outcome: Answer | Death) -> None:
        self.outcome = outcome
        self.settled.set()


class WorkerProcess:
    """A process that was started. Safe for many threads."""

    def __init__(self, options: dict[str, Any], frame_max_bytes: int) -> None:
        """
        Start it; `wait_ready` tells when it can be asked.

        Raises:
            GraphUnavailable: there is no interpreter to start, or the system refuses.
        """
        self.started_at = time.monotonic()
        self.version: str | None = None
        self.open_graphs = 0
        self.wants_to_retire = False
        self._frame_max_bytes = frame_max_bytes
        self._popen = _start(options)
        self._mutex = threading.Lock()  # of what follows
        self._calls: dict[int, _Call] = {}
        self._death: Death | None = None
        self._killed: Death | None = None
        self._last_words: dict[str, Any] = {}
        self._refusal: str | None = None
        self._sending = threading.Lock()
        self._ready = threading.Event()
        if sys.platform != "win32":
            assert self._popen.stdin is not None
            os.set_blocking(self._popen.stdin.fileno(), False)
        self._reader = threading.Thread(
            target=self._read, name="elytron-graph-answers", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def death(self) -> Death | None:
        return self._death

    def wait_ready(self, deadline: float) -> bool:
        """
        Wait until it can be asked; whether it can, or has died meanwhile.

        Raises:
            GraphUnavailable: its engine is not installed.
        """
        ready = self._ready.wait(max(0.0, deadline - time.monotonic()))
        if self._refusal is not None:
            raise GraphUnavailable(self._refusal)
        if not ready and time.monotonic() - self.started_at > START_MAX_S:
            self._kill(Death("crash", 0, f"it was not ready after {START_MAX_S:g} s"))
        return ready

    def ask(self, request: Request, deadline: float) -> Answer | Death:
        """
        The answer, or why there is none. Returns by *deadline*.

        Raises:
            InvalidArgument: the request cannot be sent.
        """
        try:
            data = frame(pack_request(request), self._frame_max_bytes)
        except FrameTooLarge as error:
            raise InvalidArgument(f"a request to the graph has {error}; send less") from error
        call = _Call(request)
        with self._mutex:
            if self._death is not None:
                return self._death._replace(kind="unasked")
            self._calls[request.number] = call
        if not self._send(data, deadline) or not call.settled.wait(deadline - time.monotonic()):
            self._kill(Death("deadline", request.number, "a call was not answered in time"))
            call.settled.wait(_REAP_S)
        with self._mutex:
            self._calls.pop(request.number, None)
        return call.outcome or Death("deadline", request.number, "it could not be killed")

    def close(self) -> None:
        """End it in order; by force if that takes too long. Harmless if it has ended."""
        with self._mutex:
            self._killed = self._killed or Death("closed", 0, "it was closed")
        stdin = self._popen.stdin
        assert stdin is not None
        # Not while somebody writes, or the number of the descriptor might be another's by then.
        if self._sending.acquire(timeout=_REAP_S):
            try:
                stdin.close()
            finally:
                self._sending.release()
        else:
            self._popen.kill()
        self._reader.join(_CLOSE_S)
        if self._reader.is_alive():
            self._popen.kill()
            self._reader.join(_REAP_S)

    def let_go(self) -> None:
        """Have it end by itself, without waiting."""
        with contextlib.suppress(OSError, ValueError):  # closed already
            if self._popen.stdin is not None:
                self._popen.stdin.close()

    def leave_to_parent(self) -> None:
        """In a forked child: let go of the pipes, so that the parent's death ends the worker."""
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # it is closed either way
                    pipe.close()
        self._popen.returncode = 0  # not ours to wait for

    def _send(self, data: bytes, deadline: float) -> bool:
        """Write a frame; whether that was done by *deadline*. A dead worker counts as done."""
        if not self._sending.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        try:
            stdin = self._popen.stdin
            assert stdin is not None
            if stdin.closed:
                return True
            return _write_all(stdin.fileno(), data, deadline)
        except OSError:  # the reader notices that the worker ended, and why
            return True
        finally:
            self._sending.release()

    def _kill(self, death: Death) -> None:
        with self._mutex:
            if self._death is not None:
                return
            self._killed = self._killed or death
        self._popen.kill()

    def _read(self) -> None:
        """In a thread of its own, until the worker ends."""
        stdout = self._popen.stdout
        assert stdout is not None
        reason = ""
        try:
            while (data := read_frame(_reader_of(stdout), self._frame_max_bytes)) is not None:
                self._take(unpack_answer(data))
        except (OSError, FrameTooLarge, ValueError, TypeError) as error:
            reason = f"it answered what cannot be read ({type(error).__name__})"
            self._popen.kill()
        self._end(reason)

    def _take(self, answer: Answer) -> None:
        if answer.kind == "hello":
            self.version, self._refusal = answer.value.get("version"), answer.value.get("error")
            if self._refusal is None:
                self._ready.set()
            return
        if answer.kind == "last-words":
            self._last_words = answer.value
            return
        self.open_graphs = answer.open_graphs
        self.wants_to_retire = answer.retire
        with self._mutex:
            call = self._calls.pop(answer.number, None)
        if call is not None:
            call.settle(answer)

    def _end(self, reason: str) -> None:
        """Reap the process, and tell everybody who waits."""
        assert self._popen.stdout is not None
        try:
            code = self._popen.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()  # it closed its end, and goes on
            code = self._popen.wait()
        with self._mutex:
            calls, self._calls = list(self._calls.values()), {}
            death = self._killed or _death(code, self._last_words, reason)
            self._death = death._replace(calls=len(calls))
        self._popen.stdout.close()
        with self._sending, contextlib.suppress(OSError):  # nobody is there to take the rest
            if self._popen.stdin is not None:
                self._popen.stdin.close()
        self._ready.set()
        for call in calls:
            call.settle(self._death)


def _death(code: int, words: dict[str, Any], reason: str) -> Death:
    number, said = int(words.get("number", 0)), str(words.get("said", ""))
    match code:
        case exits.IDLE:
            return Death("idle", 0, "nobody asked for a while")
        case exits.MEMORY:
            return Death("memory", 0, f"it took too much memory ({said})")
        case exits.DISK:
            return Death("disk", number, f"the disk failed it ({said})")
    if code < 0:
        with contextlib.suppress(ValueError):  # a number that has no name
            reason = reason or f"it was ended by {signal.Signals(-code).name}"
    return Death("crash", 0, reason or f"it ended with code {code} {said}".strip())


def _start(options: dict[str, Any]) -> "subprocess.Popen[bytes]":
    if not sys.executable or getattr(sys, "frozen", False):
        raise GraphUnavailable(
            "the graph needs a Python interpreter to start its worker with, and `sys.executable`"
            " names none here"
        )
    # As we were found, so that an editable install or a changed path holds for it, too.
    here = str(Path(elytron.graph.__file__).parents[2])
    paths = [os.path.abspath(path) for path in sys.path]
    if here not in paths:
        paths.insert(0, here)
    # One arena for each core would keep what others have freed.
    environment = os.environ | {"MALLOC_ARENA_MAX": "2"}
    environment.pop("LBUG_PYTHON_BACKEND", None)
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-I", "-c", _BOOT, json.dumps(paths), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=os.path.abspath(os.sep),
            env=environment,
        )
    except OSError as error:
        raise GraphUnavailable(f"the graph's worker cannot be started: {error.strerror}") from error


def _write_all(descriptor: int, data: bytes, deadline: float) -> bool:
    """Write to a pipe that does not block; whether all of it went before *deadline*."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            waiter = select.poll()
            waiter.register(descriptor, select.POLLOUT)
            waiter.poll(left_s * 1000)
    return True


def _reader_of(stdout: Any) -> Callable[[int], bytes | None]:
    def read(size_bytes: int) -> bytes | None:
        parts, left = [], size_bytes
        while left:
            data = stdout.read(min(left, 1 << 20))
            if not data:
                return None
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    return read
