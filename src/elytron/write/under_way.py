"""
Under way: futures that nobody may await any more, by agent, until they are settled.
"""

import threading
from concurrent.futures import Future
from typing import Any


class UnderWay:
    """What is under way for the agents of a store. Safe for many threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._futures: dict[str, set[Future[Any]]] = {}

    def track(self, name: str, future: "Future[Any]") -> None:
        """Keep *future*, of this agent, until it is settled."""
        with self._mutex:
            self._futures.setdefault(name, set()).add(future)

        def settled(done: "Future[Any]") -> None:
            with self._mutex:
                futures = self._futures[name]
                futures.discard(done)
                if not futures:
                    del self._futures[name]

        future.add_done_callback(settled)

    def of(self, name: str) -> "set[Future[Any]]":
        """Those of one agent."""
        with self._mutex:
            return set(self._futures.get(name, ()))

    def all(self) -> "set[Future[Any]]":
        """Those of all agents."""
        with self._mutex:
            return {future for futures in self._futures.values() for future in futures}
