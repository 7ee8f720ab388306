"""
A nursery: a process that has imported everything and opened nothing, and forks from there.

A thousand processes are killed in a proof. Begun anew each takes half a second to import what it
needs; forked here, a few milliseconds. It is a process of its own, since tests have threads.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_WAIT_S = 120
_CHUNK = 1 << 16


class Wire:
    """Lines of JSON over a socket, one line a time. Whoever is killed may leave half of one."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._rest = b""
        self.at_end = False

    def tell(self, **members: Any) -> None:
        """Send one line; it has the time, which is the same clock in every process."""
        members["t"] = time.monotonic_ns()
        self.end.sendall(json.dumps(members).encode() + b"\n")

    def lines(self) -> list[dict[str, Any]]:
        """What has come, whole lines only; waits for something if nothing has."""
        try:
            data = self.end.recv(_CHUNK)
        except ConnectionResetError:
            data = b""
        self.at_end = not data
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in whole]


class Child:
    """A forked process: its number, and the wire to it."""

    def __init__(self, pid: int, end: socket.socket, reap: Callable[[int], int]) -> None:
        self.pid = pid
        self.wire = Wire(end)
        self._reap = reap
        self._heard: list[dict[str, Any]] = []

    def hear_for(self, wait_s: float) -> None:
        """Wait for so long, or until it says that it is done; what it says is kept for later."""
        until_s = time.monotonic() + wait_s
        while (rest_s := until_s - time.monotonic()) > 0 and not self.wire.at_end:
            if select.select([self.wire.end], [], [], rest_s)[0]:
                self._heard += self.wire.lines()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def to_end(self, deadline_s: float = _WAIT_S) -> Iterator[dict[str, Any]]:
        """All that it says until it ends, or for so long between two words."""
        self.wire.end.settimeout(deadline_s)
        yield from self._heard
        while not self.wire.at_end:
            yield from self.wire.lines()

    def ended(self) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        self.wire.end.close()
        return self._reap(self.pid)


class Nursery:
    """Forks functions of one module, each with a wire as its first argument."""

    def __init__(self, module: str, complaints: Path) -> None:
        """
        Args:
            complaints: where the processes' standard error goes.
        """
        self.complaints = complaints
        ours, theirs = socket.socketpair()  # one order at a time, each answered
        self._control = ours
        ours.settimeout(_WAIT_S)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("ELYTRON_")
        }
        with complaints.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", __file__, str(theirs.fileno()), module],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=file,
                env=environment | {"OPENBLAS_NUM_THREADS": "1"},  # threads do not survive a fork
            )
        theirs.close()

    def start(self, function: str, **arguments: Any) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            order = json.dumps({"function": function, "arguments": arguments}).encode()
            socket.send_fds(self._control, [order], [theirs.fileno()])
            return Child(int(self._control.recv(100)), ours, self._reap)

    def _reap(self, pid: int) -> int:
        self._control.send(json.dumps({"reap": pid}).encode())
        return int(self._control.recv(100))

    def close(self) -> None:
        self._control.close()
        self._process.wait(timeout=_WAIT_S)


@contextlib.contextmanager
def nursery(module: str, complaints: Path) -> Iterator[Nursery]:
    one = Nursery(module, complaints)
    try:
        yield one
    finally:
        one.close()


def _born(function: Any, end: socket.socket, arguments: dict[str, Any]) -> int:
    """The life of a child; its exit code."""
    wire = Wire(end)
    try:
        function(wire, **arguments)
    except BrokenPipeError:  # nobody listens any more
        return 1
    except BaseException:  # noqa: BLE001 - told, whatever it is
        with contextlib.suppress(OSError):
            wire.tell(failed=traceback.format_exc()[-6000:])
        return 1
    return 0


def _serve(control: socket.socket, module: Any) -> None:
    alive: set[int] = set()
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, _CHUNK, 1)
        if not order:
            break
        wanted = json.loads(order)
        if "reap" in wanted:
            _, status = os.waitpid(wanted["reap"], 0)
            alive.discard(wanted["reap"])
            control.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            end = socket.socket(fileno=descriptors[0])
            os._exit(_born(getattr(module, wanted["function"]), end, wanted["arguments"]))
        os.close(descriptors[0])
        alive.add(pid)
        control.send(str(pid).encode())
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    _serve(
        socket.socket(fileno=int(sys.argv[1])),
        importlib.import_module(sys.argv[2]),
    )
