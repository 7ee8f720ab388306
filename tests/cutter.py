"""
A way to a PostgreSQL server that is cut at the nth message.

    with Cutter(port) as cutter:
        cutter.arm(3, after=True)        # the third message arrives, and its answer does not
        ...
        cutter.arm(0)
        cutter.settle(server)            # what it was asked for is done or undone
"""

import contextlib
import selectors
import socket
import struct
import threading
from typing import Self

from postgres_server import Server, wait_until

_PIECE_BYTES = 65536
_WAIT_MAX_S = 60


class Cutter:
    """Forwards to a server on this machine; counts the messages that go to it."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._mutex = threading.Lock()
        self._nth, self._after = 0, False
        self.count = 0
        self.kinds: list[str] = []
        self.fired = False
        self._cut_ports = list[int]()  # the server knows those connections by them
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def arm(self, nth: int, *, after: bool = False) -> None:
        """
        Cut at the *nth* message from now on; never if it is 0.

        Args:
            after: the server still gets it.
        """
        with self._mutex:
            self._nth, self._after, self.count, self.fired = nth, after, 0, False
            self.kinds = []

    def settle(self, server: Server) -> None:
        """Wait until the server knows of each cut: it may still be at what it was asked before."""
        with self._mutex:
            ports, self._cut_ports = self._cut_ports, []
        at_work = "SELECT FROM pg_stat_activity WHERE client_port = ANY(%s)"
        if ports:
            wait_until(lambda: not server.execute(at_work, (ports,)))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.send(b"x")
        self._thread.join(_WAIT_MAX_S)
        assert not self._thread.is_alive()
        for one in (self._listener, self._wake, self._woken):
            one.close()

    def _counts(self, kind: str, port: int) -> tuple[bool, bool]:
        """Count one message, from a *port*: (does it go on, is the connection cut)."""
        with self._mutex:
            self.count += 1
            self.kinds.append(kind)
            cut = self.count == self._nth
            if cut:
                self.fired = True
                self._cut_ports.append(port)
            return not cut or self._after, cut

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            selector.register(self._listener, selectors.EVENT_READ, None)
            selector.register(self._woken, selectors.EVENT_READ, "end")
            while True:
                for key, _ in selector.select():
                    if key.data == "end":
                        return
                    if key.data is None:
                        _Path(self, selector, stack)
                    else:
                        key.data()


class _Path:
    """One connection through the cutter."""

    def __init__(
        self, cutter: Cutter, selector: selectors.BaseSelector, stack: contextlib.ExitStack
    ) -> None:
        self._cutter, self._selector = cutter, selector
        self._client, _ = cutter._listener.accept()
        self._server = socket.create_connection(cutter._target, timeout=_WAIT_MAX_S)
        self._port = int(self._server.getsockname()[1])
        self._held, self._started = b"", False
        for one, act in ((self._client, self._up), (self._server, self._down)):
            stack.enter_context(one)
            one.settimeout(_WAIT_MAX_S)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each message waits
            selector.register(one, selectors.EVENT_READ, act)

    def _up(self) -> None:
        """From the program to the server, message by message."""
        self._held += self._read(self._client)
        while (message := self._message()) is not None:
            kind = chr(message[0]) if self._started else "start"
            self._started = True
            goes_on, cut = self._cutter._counts(kind, self._port)
            if goes_on:
                self._send(self._server, message)
            if cut:
                self._close()
                return

    def _message(self) -> bytes | None:
        """The next whole message that was read; the first of a connection has no kind."""
        head = 1 if self._started else 0
        if len(self._held) < head + 4:
            return None
        end = head + struct.unpack_from("!i", self._held, head)[0]
        if len(self._held) < end:
            return None
        message, self._held = self._held[:end], self._held[end:]
        return message

    def _down(self) -> None:
        self._send(self._client, self._read(self._server))

    def _read(self, one: socket.socket) -> bytes:
        try:
            piece = one.recv(_PIECE_BYTES)
        except OSError:
            piece = b""
        if not piece:
            self._close()
        return piece

    def _send(self, one: socket.socket, piece: bytes) -> None:
        if one.fileno() < 0 or not piece:
            return
        try:
            one.sendall(piece)
        except OSError:
            self._close()

    def _close(self) -> None:
        for one in (self._client, self._server):
            if one.fileno() >= 0:
                self._selector.unregister(one)
                one.close()
