"""
Transfers: what has no bound of its own, in either direction, in memory that has one.

Out: `export` and `messages`, a page at a time, at the pace of whoever reads. In: `import_`, a part
at a time, at the pace of the ledger.
"""

import asyncio
import dataclasses
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.responses import Response

from elytron.aio import AsyncAgent, AsyncStore
from elytron.errors import Busy, ElytronError, InvalidArgument
from elytron.faces.http import asked as requests
from elytron.faces.http import problems, streams
from elytron.faces.http.asked import Asked, flag
from elytron.faces.http.guard import Refused
from elytron.importers import jsonl, source
from elytron.importers.repeats import Repeats
from elytron.lines import to_line
from elytron.records import BadLine, ImportReport, Message

LINE_MAX_BYTES = 4 << 20
_BAD_MAX = 1000  # bad lines that are listed; the rest are counted
_UNLISTED = "bad lines that are not listed"
_PARTS_MAX = 8  # that wait to be written; each is what came in one piece, at most 256 KB
_BATCH = 100  # messages that are sent in one piece,
_BATCH_BYTES = 256 * 1024  # or fewer, once they are so many: a piece is held until it is taken
_LOOK_S = 0.5  # between two looks at whether the client is still there


class Exports:
    """The routes by which all messages of an agent leave, so many at once."""

    def __init__(self, store: AsyncStore, *, at_once_max: int) -> None:
        self._store = store
        self._at_once_max = at_once_max
        self._under_way = 0

    async def export(self, asked: Asked) -> Response:
        """JSON Lines, as `elytron export` writes them. What is broken off is not whole."""
        agent, archived = self._read(asked)
        return self._stream(_pieces(agent, archived, to_line, asked))

    async def messages(self, asked: Asked) -> Response:
        """Whole records, and a line that says how it ended."""
        agent, archived = self._read(asked)
        return self._stream(_told(agent, archived, asked))

    def _read(self, asked: Asked) -> tuple[AsyncAgent, bool]:
        parameters = asked.parameters("agent", "archived")
        name = asked.agent(parameters, writes=False)
        return self._store.agent(name), flag(parameters, "archived")

    def _stream(self, lines: AsyncIterator[bytes]) -> Response:
        if self._under_way >= self._at_once_max:
            raise Busy(
                f"{self._at_once_max} exports are under way, the most there may be; retry later, or"
                " raise --max-streams"
            )
        self._under_way += 1
        return streams.Stream(lines, self._leave, media_type=requests.NDJSON)

    def _leave(self) -> None:
        self._under_way -= 1


async def _pieces(
    agent: AsyncAgent, archived: bool, shape: Callable[[Message], Any], asked: Asked
) -> AsyncIterator[bytes]:
    batch: list[bytes] = []
    size_bytes = 0
    async for message in agent.messages(archived=archived):
        batch.append(streams.line(shape(message)))
        size_bytes += len(batch[-1])
        if len(batch) == _BATCH or size_bytes >= _BATCH_BYTES:
            asked.check_still()
            yield b"".join(batch)
            batch.clear()
            size_bytes = 0
    if batch:
        asked.check_still()
        yield b"".join(batch)


async def _told(agent: AsyncAgent, archived: bool, asked: Asked) -> AsyncIterator[bytes]:
    count = 0
    try:
        async for piece in _pieces(agent, archived, lambda one: {"message": one}, asked):
            count += piece.count(b"\n")
            yield piece
        yield streams.line({"end": count})
    except ElytronError as error:
        yield streams.line(problems.body(error))
    except Refused as refusal:
        yield streams.line(problems.body(refusal.error))


class Imports:
    """The route by which any number of messages come in."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        # Each holds a thread for as long as its client sends; the other verbs need some too.
        self._most = max(1, store.config.async_threads // 2)
        self._slots = asyncio.Semaphore(self._most)

    async def import_(self, asked: Asked) -> Response:
        """
        JSON Lines of docs/formats.md, written in commits of at most 500 while they arrive.

        A client that goes away has imported what was committed until then.
        """
        parameters = asked.parameters("agent", "skip_bad")
        agent = self._store.agent(asked.agent(parameters, writes=True))
        if not asked.sends(requests.NDJSON):
            raise asked.refuse_kind(requests.NDJSON)
        skip_bad = flag(parameters, "skip_bad")
        wait_s = self._store.config.save_timeout_s
        try:
            async with asyncio.timeout(wait_s):
                await self._slots.acquire()
        except TimeoutError:
            raise Busy(
                f"{self._most} imports were under way for {wait_s:g} s, the most there may be;"
                " retry later, or raise `async_threads`"
            ) from None
        try:
            report = await _written(agent, asked, skip_bad=skip_bad)
        finally:
            self._slots.release()
        return Response(requests.encoded(report), media_type=requests.JSON)


async def _written(agent: AsyncAgent, asked: Asked, *, skip_bad: bool) -> ImportReport:
    arriving = _Arriving()
    lines = _Lines(arriving.parts(), skip_bad=skip_bad)
    feeding = asyncio.ensure_future(arriving.feed(asked))
    try:
        report = await agent.import_(lines.messages(), skip_bad=skip_bad)
    except _Stopped:
        await feeding  # raises what kept it from being whole
        raise
    finally:
        arriving.stop()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
    return lines.complete(report)


class _Stopped(Exception):
    """The body ended before it was whole; what is not committed yet is dropped."""


class _Arriving:
    """A body on its way from the event loop to the thread that writes it."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue(_PARTS_MAX)
        self._room = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()

    async def feed(self, asked: Asked) -> None:
        """Hand the parts over; waits while there is no room, so that the client has to."""
        try:
            async for part in asked.parts():
                asked.check_still()
                await self._put(part)
            await self._put(None)
        except BaseException:
            self.stop()
            raise

    async def _put(self, part: bytes | None) -> None:
        while not self._stopped.is_set():
            self._room.clear()
            try:
                self._queue.put_nowait(part)
            except queue.Full:
                await self._room.wait()
            else:
                return

    def stop(self) -> None:
        """No more will come, and what is not taken yet is not wanted."""
        self._stopped.set()

    def parts(self) -> Iterator[bytes]:
        """The parts, on the thread that writes."""
        while True:
            try:
                part = self._queue.get(timeout=_LOOK_S)
            except queue.Empty:
                part = b""
            if self._stopped.is_set():
                raise _Stopped
            if part is None:
                return
            if part:
                self._loop.call_soon_threadsafe(self._room.set)
                yield part


class _Lines:
    """The messages in a body, with the lines that are none set aside."""

    def __init__(self, parts: Iterator[bytes], *, skip_bad: bool) -> None:
        self.skip_bad = skip_bad
        self._parts = parts
        self._bad: list[BadLine] = []
        self._refused = 0

    def messages(self) -> Iterator[dict[str, Any]]:
        """Each with the number of its line; ends at the first bad one unless those are skipped."""
        with Repeats() as repeats:
            for number, line in enumerate(self._split(), 1):
                if line is not None and not line.strip():
                    continue
                try:
                    message = _message(number, line, repeats)
                except InvalidArgument as error:
                    self._refuse(BadLine(number, str(error)))
                    if not self.skip_bad:
                        return
                else:
                    yield message

    def _refuse(self, bad: BadLine) -> None:
        self._refused += 1
        if len(self._bad) < _BAD_MAX:
            self._bad.append(bad)

    def _split(self) -> Iterator[bytes | None]:
        """The lines without their ends; None for one that is too long to be held."""
        rest = bytearray()
        over = False
        for part in self._parts:
            *whole, last = part.split(b"\n")
            for end in whole:
                rest += end
                yield None if over or len(rest) > LINE_MAX_BYTES else bytes(rest)
                rest, over = bytearray(), False
            over = over or len(rest) + len(last) > LINE_MAX_BYTES
            rest = bytearray() if over else rest + last
        if rest or over:
            yield None if over else bytes(rest)

    def complete(self, report: ImportReport) -> ImportReport:
        """
        The report with what never came as far as the agent.

        Raises:
            InvalidArgument: a line was bad, and those are not skipped.
        """
        if self._bad and not self.skip_bad:
            first = self._bad[0]
            raise InvalidArgument(
                f"line {first.line}: {first.reason}. {report.imported} messages were imported"
                f" before it and {report.already_held} were held already; mend it and import"
                " again (nothing is doubled), or skip what is bad"
            )
        bad = sorted([*report.bad, *self._bad], key=lambda one: one.line)
        left_out = dict(report.left_out or {})
        unlisted = left_out.get(_UNLISTED, 0) + self._refused - len(self._bad)
        unlisted += max(0, len(bad) - _BAD_MAX)
        if unlisted:
            left_out[_UNLISTED] = unlisted
        return dataclasses.replace(report, bad=tuple(bad[:_BAD_MAX]), left_out=left_out or None)


def _message(number: int, line: bytes | None, repeats: Repeats) -> dict[str, Any]:
    if line is None:
        raise InvalidArgument(f"it is over {LINE_MAX_BYTES:,} bytes; split it")
    value = source.parse(line)
    if isinstance(value, dict) and "line" in value:
        number = value.pop("line")  # of the file that it is from
        if type(number) is not int or not 0 < number < 1 << 53:
            raise InvalidArgument("`line` must be the number of a line, from 1")
    return {**jsonl.message_of(value, repeats), "line": number}
