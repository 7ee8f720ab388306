"""
Connections: what uvicorn leaves unbounded of one connection, bounded.

Its reader of HTTP (httptools) knows no limit on the head of a request, on the time that a request
takes to arrive, on the time that an answer takes to be read, or on connections that send nothing.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from elytron.faces.http.guard import STREAMED
from elytron.remote.calls import TOO_MANY

HEAD_MAX_BYTES = 65_536  # of a request: its address and its headers
HEADERS_MAX = 100
_GATHERED_MAX_BYTES = 65_536


class _HeadTooLarge(Exception):
    pass


class _Gathering:
    """
    A transport that sends what is written in one go of the loop together: the head of an answer and
    its body are one packet, which wakes its reader once.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _GATHERED_MAX_BYTES:
            self._send()

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
            if not self._transport.is_closing():  # else its reader left in this go of the loop
                self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """One client's connection. Made by `bounded`, which gives it its limits."""

    connections_max: int
    timeout_s: float
    _overdue: asyncio.TimerHandle | None = None  # when what was begun has to be here
    _unread: asyncio.TimerHandle | None = None  # when what was sent has to be taken
    _head = True  # what comes next is of the head of a request
    _head_bytes = 0
    _whole = True  # there is no request of which a part is missing

    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Gathering(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > self.connections_max:
            self._answer(503, f"{TOO_MANY}; raise --max-requests")
            return
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._overdue, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # or it has become a web socket
        if self._head and self._head_bytes > HEAD_MAX_BYTES:
            self._answer(431, "the head of the request is too large")
        elif self._overdue is None and not (self._whole and self._is_answering()):
            self._begin()  # a part of a request, perhaps after a whole one; or empty lines

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._whole = True, False
        # To write to a connection that closes is an error, which is then not ours.
        self.scope["elytron.is_closing"] = self.transport.is_closing  # type: ignore[typeddict-unknown-key]

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= HEADERS_MAX:
            raise _HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head, self._whole = True, True
        super().on_message_complete()
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.timeout_s, self._hang_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _begin(self) -> None:
        self._overdue = self.loop.call_later(self.timeout_s, self._late)

    def _late(self) -> None:
        """What was begun is not here in time: end it, and say so where nothing was said yet."""
        self._overdue = None
        if self.transport.is_closing():
            return
        cycle = self.cycle
        read = self._whole or self._head
        if self._is_answering() and (read or self.scope["path"] in STREAMED):
            self._begin()  # it is being answered, or read at the pace that the guard keeps
        elif self._whole or (cycle is not None and cycle.response_started):
            self._hang_up()
        else:
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
            self._answer(408, f"the request took over {self.timeout_s:g} s to arrive")

    def _hang_up(self) -> None:
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        self._answer(400, msg)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _answer(self, status: int, told: str) -> None:
        """Say why, and close; nothing is said where it would pass for the answer to another."""
        if self._is_answering() and (self._head or self.cycle.response_started):
            self.transport.close()
            return
        body = told.encode("ascii")
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: text/plain; charset=utf-8\r\n"
            + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            + body
        )
        self.transport.close()


def bounded(*, connections_max: int, timeout_s: float) -> type[Connection]:
    """The class of connections with these limits, as uvicorn wants it."""
    limits = {"connections_max": connections_max, "timeout_s": timeout_s}
    return type("BoundedConnection", (Connection,), limits)
