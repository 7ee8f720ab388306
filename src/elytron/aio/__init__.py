"""
Aio: the same verbs for asyncio.

Forwarding only. `save` waits on the writer's future and holds no thread; the other verbs run on a
small pool of our own, never asyncio's default one. A cancelled `await` means unknown, not
undone: the write goes on, `flush` and `close` wait for it, and saving again with the same id is
harmless.
"""

from concurrent.futures import ThreadPoolExecutor

from elytron.aio.base import call
from elytron.aio.store import AsyncAgent, AsyncStore, open
from elytron.remote import connect as connect_here

__all__ = ["AsyncAgent", "AsyncStore", "connect", "open"]


async def connect(
    url: str, *, token: str | None = None, timeout_s: float = 60, connections_max: int = 10
) -> "AsyncStore":
    """`elytron.connect` for asyncio: `async with await elytron.aio.connect(...) as store:`."""
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
