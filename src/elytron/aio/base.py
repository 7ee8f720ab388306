"""The async verbs' base: one agent, and the pool that its calls run on."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from elytron import agent as synchronous

_T = TypeVar("_T")


class AsyncVerbs:
    """What the async verbs on one agent have in common."""

    def __init__(self, agent: synchronous.Agent, pool: ThreadPoolExecutor) -> None:
        self._agent = agent
        self._pool = pool

    @property
    def name(self) -> str:
        return self._agent.name

    async def _call(self, function: Callable[[], _T]) -> _T:
        self._agent._agents.check_usable()
        return await call(self._pool, function)

    async def _call_writing(self, function: Callable[[], _T]) -> _T:
        """A call that goes on when its awaiting is cancelled; `flush` and `close` wait for it."""
        self._agent._agents.check_usable()
        future = self._pool.submit(function)
        self._agent._agents.calls.track(self.name, future)
        return await shielded(future)


async def call(pool: ThreadPoolExecutor, function: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(pool, function)


async def shielded(future: "Future[_T]") -> _T:
    """What becomes of *future*, which goes on when this awaiting of it is cancelled."""
    inner = asyncio.wrap_future(future)
    # Else asyncio complains of a failure that nobody awaits any more.
    inner.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(inner)
