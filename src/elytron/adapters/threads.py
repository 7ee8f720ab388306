"""
Threads: where the adapters of asyncio frameworks wait for our verbs, which are synchronous.

One small pool for all of them, made on first use; never asyncio's default one.
"""

import inspect
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

from elytron.aio.base import call
from elytron.errors import InvalidArgument

_T = TypeVar("_T")
THREADS_MAX = 8


async def run(function: Callable[[], _T]) -> _T:
    """Await *function*. Cancelled, a write that has begun goes on."""
    return await call(_pool(os.getpid()), function)


@lru_cache(maxsize=1)
def _pool(_process: int) -> ThreadPoolExecutor:
    """A forked process has the pool of its parent, but none of its threads."""
    return ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="elytron-adapter")


def check_synchronous(owner: Any, verb: str, what: str) -> Any:
    """
    *owner*, if it has our synchronous verbs.

    Raises:
        InvalidArgument: it is something else, or one of `elytron.aio`.
    """
    function = getattr(owner, verb, None)
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise InvalidArgument(
            f"expected {what} of a store that `elytron.open` opened; got"
            f" {type(owner).__module__}.{type(owner).__name__}. The adapter brings its own threads"
        )
    return owner
