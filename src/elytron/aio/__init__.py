"""
Aio: the same verbs for asyncio.

Forwarding only. `save` waits on the writer's future and holds no thread; the other verbs run on a
small pool of our own, never asyncio's default one. A cancelled `await` means unknown, not
undone: the write goes on, `flush` and `close` wait for it, and saving again with the same id is
harmless.
"""

from collections.abc import Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from elytron.aio.base import call
from elytron.aio.store import AsyncAgent, AsyncStore, open
from elytron.remote import connect as connect_here

__all__ = ["AsyncAgent", "AsyncStore", "connect", "open"]


def connect(
    url: str, *, token: str | None = None, timeout_s: float = 60, connections_max: int = 10
) -> "_Connecting":
    """
    `elytron.connect` for asyncio: `async with elytron.aio.connect(url) as store:`, or
    `store = await elytron.aio.connect(url)`, to be closed.
    """
    return _Connecting(_connect(url, token, timeout_s, connections_max))


class _Connecting:
    """A connection to come, to be awaited or entered, once."""

    def __init__(self, connecting: Coroutine[None, None, AsyncStore]) -> None:
        self._connecting = connecting
        self._store: AsyncStore | None = None

    def __await__(self) -> Generator[None, None, AsyncStore]:
        return self._connecting.__await__()

    async def __aenter__(self) -> AsyncStore:
        self._store = await self._connecting
        return await self._store.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._store is not None:
            await self._store.__aexit__(kind, error, trace)


async def _connect(
    url: str, token: str | None, timeout_s: float, connections_max: int
) -> AsyncStore:
    opener = ThreadPoolExecutor(1, thread_name_prefix="elytron-connect")
    try:
        store = await call(
            opener,
            lambda: connect_here(
                url, token=token, timeout_s=timeout_s, connections_max=connections_max
            ),
        )
    finally:
        opener.shutdown(wait=False)
    from elytron.aio.remote import AsyncRemoteStore  # needs the extra `client`

    return AsyncRemoteStore(store, int(connections_max))
