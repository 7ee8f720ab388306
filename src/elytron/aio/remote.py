"""Aio, from afar: `elytron.connect` for asyncio, forwarded to a pool of threads."""

from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from elytron.aio.base import call, shielded
from elytron.aio.store import AsyncAgent, AsyncStore
from elytron.errors import DeadlineExceeded, OutcomeUnknown, Unavailable
from elytron.records import Message, Receipt
from elytron.remote.agent import RemoteAgent
from elytron.remote.store import RemoteStore

_T = TypeVar("_T")
_PART = 500  # messages that are read at once
_UNUSABLE = (Unavailable, DeadlineExceeded, OutcomeUnknown)  # the server, for the others too


class _Writes:
    """The writes that have a thread or wait for one, whoever still awaits them."""

    def __init__(self) -> None:
        self._under_way: set[Future[Any]] = set()

    def track(self, future: "Future[Any]") -> None:
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)

    def settle(self) -> None:
        """Wait until they are done; or until one finds no server, as the others would in turn."""
        waiting = set(self._under_way)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_EXCEPTION)
            if any(isinstance(future.exception(), _UNUSABLE) for future in done):
                return


class AsyncRemoteStore(AsyncStore):
    """A store that is served elsewhere. Got from `elytron.aio.connect`."""

    _store: RemoteStore

    def __init__(self, store: RemoteStore, threads: int) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="elytron-async")
        self._writes = _Writes()

    def agent(self, name: str) -> AsyncAgent:
        """See `Store.agent`. Touches nothing, so it is not awaited."""
        return AsyncRemoteAgent(self._store.agent(name), self._pool, self._writes)

    def _close(self) -> None:
        if not self._store._connection.forked:  # its threads are the parent's
            self._writes.settle()
        super()._close()

    async def _call(self, function: Callable[[], _T]) -> _T:
        self._store.check_usable()  # a pool that was shut down would say it less well
        return await call(self._pool, function)


class AsyncRemoteAgent(AsyncAgent):
    """One agent of a store elsewhere; each verb as on `AsyncAgent`."""

    _agent: RemoteAgent

    def __init__(self, agent: RemoteAgent, pool: ThreadPoolExecutor, writes: _Writes) -> None:
        super().__init__(agent, pool)
        self._writes = writes

    async def submit(
        self,
        role: str,
        content: str,
        *,
        session: str | None = None,
        user: str | None = None,
        at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
        importance: float | None = None,
        pinned: bool = False,
        embed: bool | None = None,
    ) -> "Future[Receipt]":
        """See `Agent.submit`; `asyncio.wrap_future` makes the future awaitable."""
        message = self._agent._admitted(
            {
                "role": role,
                "content": content,
                "session": session,
                "user": user,
                "at": at,
                "metadata": metadata,
                "id": id,
                "importance": importance,
                "pinned": pinned,
                "embed": embed,
            }
        )
        # On the loop, which keeps the order; a thread only to wait for room.
        future = self._agent._submit_at_once(message)
        if future is not None:
            return future
        return await self._call_writing(lambda: self._agent._submit_admitted(message))

    async def flush(self, *, timeout_s: float | None = None) -> None:
        """See `Agent.flush`."""
        await self._call(lambda: self._agent.flush(timeout_s=timeout_s))

    async def messages(self, *, archived: bool = False) -> AsyncIterator[Message]:
        """See `Agent.messages`; for `async for`."""
        messages = self._agent.messages(archived=archived)
        while part := await self._call(lambda: list(islice(messages, _PART))):
            for message in part:
                yield message

    async def _call(self, function: Callable[[], _T]) -> _T:
        self._agent.check_usable()
        return await call(self._pool, function)

    async def _call_writing(self, function: Callable[[], _T]) -> _T:
        """A call that goes on when its awaiting is cancelled; `close` waits for it."""
        self._agent.check_usable()
        future = self._pool.submit(function)
        self._writes.track(future)
        return await shielded(future)
