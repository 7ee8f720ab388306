"""
Wire: stdin and stdout as the protocol has them, with nothing else on them.

Messages are read and written on threads that never hold up the end of the process, since a read
may last for ever. What is wrong with a message is answered, and the next one is read.
"""

import asyncio
import json
import logging
import os
import queue
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

LINE_MAX_BYTES = 4 << 20  # of one message, as over HTTP
CALLS_MAX = 256  # requests that wait for their answer; then no more are read
DRAIN_MAX_S = 10.0  # for these answers, once no more is read
_LAST_WRITE_MAX_S = 2.0
_READ_BYTES = 1 << 16
_LISTENING = "subscriptions/listen"  # is answered at its end only

_log = logging.getLogger("elytron.mcp")


@dataclass(frozen=True, slots=True)
class Wire:
    """The descriptors of the protocol, and the process that began it."""

    requests: int
    answers: int
    parent: int


def claim_wire() -> Wire:
    """
    Take stdin and stdout for the protocol. Whatever else is printed from now on goes to stderr,
    by native code and by processes that are started, too; whoever else reads, reads nothing.
    """
    sys.stdout.flush()
    wire = Wire(os.dup(0), os.dup(1), os.getppid())
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(2, 1)
    except OSError:  # stderr was closed
        os.dup2(nowhere, 1)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (wire.requests, wire.answers):
            msvcrt.setmode(descriptor, os.O_BINARY)
    return wire


class _Aside:
    """One thread for calls that may block for ever, which does not keep the process."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]]
        self._calls = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, call: Callable[[], Any]) -> Any:
        """
        Raises:
            OSError: as the call does.
        """
        future = asyncio.get_running_loop().create_future()
        self._calls.put((call, future))
        return await future

    def _work(self) -> None:
        while True:
            call, future = self._calls.get()
            result, failure = None, None
            try:
                result = call()
            except OSError as error:
                failure = error
            try:
                future.get_loop().call_soon_threadsafe(_settle, future, result, failure)
            except RuntimeError:  # the loop has ended, and so has whoever waited
                return


def _settle(future: "asyncio.Future[Any]", result: Any, failure: OSError | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


@dataclass
class _Waiting:
    """The requests that have no answer yet."""

    ids: Counter[Any] = field(default_factory=Counter)  # a client may use one twice
    changed: anyio.Event = field(default_factory=anyio.Event)

    def note(self, message: types.JSONRPCMessage) -> None:
        """Take account of a message that comes in or goes out."""
        match message:
            case types.JSONRPCRequest(id=id, method=method) if method != _LISTENING:
                self.ids[id] += 1
            case types.JSONRPCResponse(id=id) | types.JSONRPCError(id=id):
                self._drop(id)
            case types.JSONRPCNotification(method="notifications/cancelled", params=params):
                self._drop((params or {}).get("requestId"))

    def _drop(self, id: Any) -> None:
        if isinstance(id, str | int) and id in self.ids:
            self.ids[id] -= 1
            if not self.ids[id]:
                del self.ids[id]
            self.changed.set()
            self.changed = anyio.Event()

    async def at_most(self, count: int) -> None:
        while self.ids.total() > count:
            await self.changed.wait()


class Conversation:
    """
    One client over a wire, for as long as `streams` lasts.

    `end` stops the reading; requests under way are still answered.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._waiting = _Waiting()
        self._reading = anyio.CancelScope()
        self._one_writer = anyio.Lock()
        self._written = anyio.Event()  # the last of all
        self._writer = _Aside("elytron-mcp-write")

    def end(self) -> None:
        self._reading.cancel()

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[tuple[Any, Any]]:
        """The two streams that the protocol's library reads from and writes to."""
        incoming, requests = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        answers, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, incoming)
            tasks.start_soon(self._write, outgoing)
            yield requests, answers
            with anyio.move_on_after(_LAST_WRITE_MAX_S):  # a client may have stopped to read
                await self._written.wait()
            tasks.cancel_scope.cancel()

    async def _read(self, incoming: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        async with incoming:
            with self._reading:
                async for line in self._lines():
                    message = await self._message(line)
                    if message is None:
                        continue
                    self._waiting.note(message)
                    await incoming.send(SessionMessage(message))
                    await self._waiting.at_most(CALLS_MAX - 1)
            with anyio.move_on_after(DRAIN_MAX_S) as drain:
                await self._waiting.at_most(0)
            if drain.cancelled_caught:
                _log.warning("%s requests end without an answer", self._waiting.ids.total())

    async def _lines(self) -> AsyncIterator[bytes | None]:
        """Lines that are not blank; None in the place of one that is too long."""
        reader = _Aside("elytron-mcp-read")
        held, skipping = bytearray(), False
        while chunk := await reader.run(partial(os.read, self._wire.requests, _READ_BYTES)):
            held += chunk
            if b"\n" in chunk:
                *lines, held = held.split(b"\n")
                for line in lines:
                    if skipping or len(line) > LINE_MAX_BYTES:
                        skipping = False
                        yield None
                    elif line.strip():
                        yield bytes(line)
            if len(held) > LINE_MAX_BYTES:
                held, skipping = bytearray(), True
        if held.strip():
            yield bytes(held)

    async def _message(self, line: bytes | None) -> types.JSONRPCMessage | None:
        """What a line says; None, and an answer that says so, for what is no message."""
        if line is None:
            told = f"Message too large: over {LINE_MAX_BYTES} bytes"
            await self._refuse(None, types.INVALID_REQUEST, told)
            return None
        try:
            message: types.JSONRPCMessage = types.jsonrpc_message_adapter.validate_json(
                line, by_name=False
            )
        except ValidationError:
            await self._refuse(*_what_is_wrong(line))
            return None
        if isinstance(message, types.JSONRPCNotification) and "id" in json.loads(line):
            # Taken for a notification because of its id, whose sender would wait for ever.
            await self._refuse(*_what_is_wrong(line))
            return None
        return message

    async def _refuse(self, id: str | int | None, code: int, told: str) -> None:
        error = types.ErrorData(code=code, message=told)
        await self._send(types.JSONRPCError(jsonrpc="2.0", id=id, error=error))

    async def _write(self, outgoing: MemoryObjectReceiveStream[SessionMessage]) -> None:
        async with outgoing:
            async for message in outgoing:
                await self._send(message.message)
                self._waiting.note(message.message)
        self._written.set()

    async def _send(self, message: types.JSONRPCMessage) -> None:
        line = message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        try:
            async with self._one_writer:
                await self._writer.run(partial(_write_all, self._wire.answers, line))
        except OSError as error:
            _log.info("the client reads no more (%s)", error.strerror)
            self.end()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _what_is_wrong(line: bytes) -> tuple[str | int | None, int, str]:
    """(id, code, words) for a line that is no message."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None, types.PARSE_ERROR, "Parse error: one JSON object a line is expected"
    given = value.get("id") if isinstance(value, dict) else None
    known = isinstance(given, str | int) and not isinstance(given, bool)
    return (
        given if known else None,
        types.INVALID_REQUEST,
        "Invalid request: no message of JSON-RPC 2.0",
    )
