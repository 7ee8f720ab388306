"""
Queue: an op that waits for its commit, and how many may wait in a whole store.
"""

import contextlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from elytron.errors import Busy


class Queueable(Protocol):
    """What is queued: an op, or whatever else the target knows to commit."""

    @property
    def items(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...


class Item:
    """An op in the queue, and the one who waits for it: a blocked caller or a future."""

    __slots__ = (
        "deadline",
        "future",
        "has_place",
        "is_noted",
        "items",
        "op",
        "outcome",
        "signal",
        "size_bytes",
    )

    def __init__(self, op: Queueable, deadline: float, future: "Future[Any] | None") -> None:
        self.op = op
        self.deadline = deadline
        self.future = future
        self.items = op.items
        self.size_bytes = op.size_bytes
        self.has_place = False
        self.is_noted = False  # as one whose future is to be settled
        self.outcome: Any = None  # a one-tuple once settled: the result or the error
        self.signal: threading.Lock | None = None  # held by a caller who waits; released to wake

    @property
    def is_told(self) -> bool:
        return self.future is not None and self.future.done()

    def settle(self, outcome: Any) -> None:
        """Note the outcome and wake a blocked caller; only the first time counts."""
        if self.outcome is not None:
            return
        self.outcome = (outcome,)
        self.wake()

    def tell(self) -> None:
        """Settle the future. Its callbacks run here, so nothing may be held or led meanwhile."""
        assert self.future is not None
        (outcome,) = self.outcome
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)

    def wake(self) -> None:
        if self.signal is not None:
            with contextlib.suppress(RuntimeError):  # released already: two may wake at once
                self.signal.release()


class Quota:
    """Places in the queues of a whole store, in messages and bytes."""

    def __init__(self, *, items_max: int, bytes_max: int) -> None:
        self.items_max = items_max
        self.bytes_max = bytes_max
        self.items = 0
        self.bytes = 0
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0

    def take(self, item: Item, deadline: float, *, beyond: bool = False) -> None:
        """
        Wait for room until *deadline*; not if it may go *beyond* the bounds. An op larger than the
        whole quota has to be alone.

        Raises:
            Busy: no room came. Nothing was queued.
        """
        with self._changed:
            while (
                self.items
                and not beyond
                and (
                    self.items + item.items > self.items_max
                    or self.bytes + item.size_bytes > self.bytes_max
                )
            ):
                wait_s = deadline - time.monotonic()
                self._waiting += 1
                try:
                    came = wait_s > 0 and self._changed.wait(wait_s)
                finally:
                    self._waiting -= 1
                if not came:
                    raise Busy(
                        f"the write queue is full ({self.items} of {self.items_max} messages,"
                        f" {self.bytes} of {self.bytes_max} bytes); nothing was written: retry"
                        " later, or raise `queue_max` or `queue_max_mb`"
                    )
            self.items += item.items
            self.bytes += item.size_bytes
            item.has_place = True

    def give_back(self, items: Sequence[Item]) -> None:
        """Give back the places of those who have one."""
        with self._changed:
            for item in items:
                if item.has_place:
                    item.has_place = False
                    self.items -= item.items
                    self.bytes -= item.size_bytes
            if self._waiting:
                self._changed.notify_all()
