"""
Events: what agents hold, and which limits come near, told as it happens (server-sent events).

Nothing runs while nobody listens. Each listener asks for a look when its own interval is over, and
gets what another one has just asked for; a look that takes long is asked for the less often.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from elytron.aio import AsyncStore
from elytron.errors import Busy, ElytronError, InvalidArgument
from elytron.faces import documents
from elytron.faces.http import problems
from elytron.faces.http.asked import Asked, encoded
from elytron.faces.http.streams import Stream
from elytron.faces.http.tokens import Access
from elytron.reports import Alarm

EVENT_STREAM = "text/event-stream"
INTERVAL_S = 2.0
INTERVAL_RANGE_S = (0.2, 300.0)
_BEAT_S = 15.0  # between two signs of life, at most
_RETRY_MS = 3000  # after which a browser connects again
_ALARMS_MAX = 100  # that wait for one listener; the oldest go
_REST = 10  # times as long as a look took pass before the next


@dataclass(eq=False)
class _Listener:
    access: Access
    agent: str | None
    alarms: "deque[Alarm]" = field(default_factory=lambda: deque(maxlen=_ALARMS_MAX))
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def hears(self, alarm: Alarm) -> bool:
        if self.agent is not None:
            return alarm.agent == self.agent
        return self.access.allows(alarm.agent, writes=False)


class Events:
    """The listeners of one server, on its event loop."""

    def __init__(
        self, store: AsyncStore, *, listeners_max: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._listeners_max = listeners_max
        self._clock = clock
        self._listeners: set[_Listener] = set()
        self._looks: dict[str | None, _Look] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False

    async def answer(self, asked: Asked) -> Response:
        """`usage` at once and then each `interval_s`; `alarm` when a limit comes near."""
        parameters = asked.parameters("agent", "interval_s")
        interval_s = _interval(parameters)
        agent = None
        if "agent" in parameters:
            agent = asked.agent(parameters, writes=False)
            self._store.agent(agent)  # an impossible name
        if self._ended or len(self._listeners) >= self._listeners_max:
            raise Busy(f"{len(self._listeners)} listen, the most there may be; see --max-streams")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._store.on_alarm(self._hook)
        listener = _Listener(asked.access, agent)
        self._listeners.add(listener)  # now, so that no more than those that may come in
        told = self._told(listener, interval_s, asked)
        return Stream(told, lambda: self._leave(listener), media_type=EVENT_STREAM)

    def end(self) -> None:
        """Every listener's stream ends."""
        self._ended = True
        for listener in self._listeners:
            listener.news.set()

    async def _told(
        self, listener: _Listener, interval_s: float, asked: Asked
    ) -> AsyncIterator[bytes]:
        yield b"retry: %d\n\n" % _RETRY_MS
        due_s = spoken_s = self._clock()
        while not self._ended and asked.still_allowed():
            while listener.alarms:
                yield _event("alarm", listener.alarms.popleft())
                spoken_s = self._clock()
            if self._clock() >= due_s:
                yield await self._usage(listener, interval_s)
                spoken_s = self._clock()
                due_s = max(due_s + interval_s, spoken_s)
            elif self._clock() >= spoken_s + _BEAT_S:
                yield b": still here\n\n"
                spoken_s = self._clock()
            await _wait(listener.news, min(due_s, spoken_s + _BEAT_S) - self._clock())

    async def _usage(self, listener: _Listener, interval_s: float) -> bytes:
        access = listener.access
        try:
            if listener.agent is not None:
                return _event("usage", await self._look(listener.agent, interval_s))
            if access.agents is None:
                return _event("usage", await self._look(None, interval_s))
            held = [name for name in await self._store.agents() if name in access.agents]
            return _event("usage", {"agents": [await self._look(n, interval_s) for n in held]})
        except ElytronError as error:
            return _event("error", problems.body(error))

    async def _look(self, agent: str | None, interval_s: float) -> Any:
        look = self._looks.setdefault(agent, _Look())
        async with look.mutex:
            age_s = self._clock() - look.at_s
            if look.value is None or age_s >= max(interval_s, _REST * look.took_s):
                began_s = self._clock()
                source = self._store if agent is None else self._store.agent(agent)
                look.value = documents.plain(await source.usage())
                look.at_s, look.took_s = began_s, self._clock() - began_s
            return look.value

    def _leave(self, listener: _Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners:
            self._looks.clear()
        elif all(other.agent != listener.agent for other in self._listeners):
            self._looks.pop(listener.agent, None)

    def _hook(self, alarm: Alarm) -> None:
        """On the janitor's thread."""
        if self._loop is not None and not self._loop.is_closed() and not self._ended:
            self._loop.call_soon_threadsafe(self._hand_out, alarm)

    def _hand_out(self, alarm: Alarm) -> None:
        for listener in self._listeners:
            if listener.hears(alarm):
                listener.alarms.append(alarm)
                listener.news.set()


@dataclass
class _Look:
    value: Any = None
    at_s: float = 0.0
    took_s: float = 0.0
    mutex: asyncio.Lock = field(default_factory=asyncio.Lock)


async def _wait(news: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, timeout_s)):
            await news.wait()
    except TimeoutError:
        return
    news.clear()


def _event(name: str, value: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encoded(value))


def _interval(parameters: dict[str, str]) -> float:
    low, high = INTERVAL_RANGE_S
    text = parameters.get("interval_s", str(INTERVAL_S))
    try:
        value = float(text) if len(text) <= 20 else float("nan")
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise InvalidArgument(f"`interval_s` is {low:g} to {high:g}; got {text!r:.50}")
    return value
