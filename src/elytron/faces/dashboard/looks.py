"""
Looks: what agents hold, asked of the store for all open pages together.

Nothing is asked while nobody looks: a page asks for what it shows, and gets what another page
asked for a moment ago. One question at a time, so that looking costs one thread at most.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elytron.aio import AsyncStore
from elytron.errors import ElytronError
from elytron.faces.costs import Unreadable
from elytron.faces.dashboard.bounds import Bounds
from elytron.records import StoreUsage, Usage

Cost = Usage | Unreadable


@dataclass(frozen=True, slots=True)
class Process:
    """What the serving process takes."""

    rss_bytes: int
    threads: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Health:
    """
    The store as a whole, `age_s` seconds old. `usage` is None where an agent that cannot be
    read hides it, which `error` tells.
    """

    usage: StoreUsage | None
    error: str | None
    age_s: float


class Looks:
    """Those of one dashboard, on its event loop."""

    def __init__(
        self, store: AsyncStore, bounds: Bounds, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._bounds = bounds
        self._clock = clock
        self._mutex = asyncio.Lock()
        self._names: tuple[float, list[str]] | None = None
        self._costs: dict[str, tuple[float, Cost]] = {}
        self._health: tuple[float, StoreUsage | None, str | None] | None = None

    async def names(self) -> Sequence[str]:
        """All agents, sorted by name."""
        async with self._mutex:
            now_s = self._clock()
            if self._names is None or now_s - self._names[0] >= self._bounds.look_interval_s:
                self._names = now_s, await self._store.agents()
                held = set(self._names[1])
                self._costs = {name: cost for name, cost in self._costs.items() if name in held}
            return self._names[1]

    def few(self, names: Sequence[str]) -> bool:
        """Whether all of these are looked at each time."""
        open_max = self._store.config.max_open_agents  # beyond, looking would close and open files
        return len(names) <= min(self._bounds.agents_looked_at, open_max)

    async def costs(
        self,
        names: Iterable[str],
        *,
        max_age_s: float | None = None,
    ) -> Mapping[str, Cost]:
        """
        What these agents hold; one that cannot be read says so.

        Args:
            max_age_s: how old an answer may be; `look_interval_s` if None.
        """
        age_s = self._bounds.look_interval_s if max_age_s is None else max_age_s
        found: dict[str, Cost] = {}
        for name in names:
            async with self._mutex:
                held = self._costs.get(name)
                if held is None or self._clock() - held[0] >= age_s:
                    held = self._costs[name] = self._clock(), await self._cost(name)
                found[name] = held[1]
        return found

    def known(self, names: Iterable[str]) -> Mapping[str, Cost]:
        """What is known of these agents from earlier looks, however old."""
        return {name: self._costs[name][1] for name in names if name in self._costs}

    async def _cost(self, name: str) -> Cost:
        try:
            return await self._store.agent(name).usage()
        except ElytronError as error:
            return Unreadable(name, error)

    async def health(self) -> Health:
        """The store as a whole: opens every agent, so where there are many, not often."""
        few = self.few(await self.names())
        max_age_s = self._bounds.look_interval_s if few else self._bounds.survey_max_age_s
        async with self._mutex:
            held = self._health
            if held is None or self._clock() - held[0] >= max_age_s:
                try:
                    held = self._clock(), await self._store.usage(), None
                except ElytronError as error:
                    held = self._clock(), None, str(error)
                self._health = held
            return Health(held[1], held[2], self._clock() - held[0])


def process() -> Process:
    """What this process takes now; microseconds."""
    import psutil

    own: Any = psutil.Process()  # which of the two it has, its stubs do not know
    with own.oneshot():
        count: int = own.num_handles() if sys.platform == "win32" else own.num_fds()
        return Process(own.memory_info().rss, own.num_threads(), count)
