"""
Writer: group commit for one agent, by whoever is waiting.

There is no writer thread. The first caller to come leads: it commits what is queued, its own
item among it, and then passes the lead on. So a lone save pays for no hand-over, and while one
commit is on its way to the disk the next batch gathers. What `submit` queues is committed by
a thread of the store's small pool, the same way. `bench/save.py` measures both.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from elytron.errors import Busy, ElytronError, OutcomeUnknown
from elytron.ledger.ops import Op

_GATHER_YIELDS = 40  # how often a leader lets other threads run before it commits


class CommitTarget(Protocol):
    """What the writer needs of a ledger."""

    def commit(self, ops: Sequence[Op], deadline: float) -> list[Any]: ...
    def checkpoint_due(self) -> bool: ...
    def checkpoint(self) -> None: ...


class Quota:
    """Places in the queues of a whole store, in messages and bytes."""

    def __init__(self, *, items_max: int, bytes_max: int) -> None:
        self.items_max = items_max
        self.bytes_max = bytes_max
        self.items = 0
        self.bytes = 0
        self._changed = threading.Condition(threading.Lock())
        self._waiting = 0

    def take(self, items: int, size_bytes: int, deadline: float) -> None:
        """
        Wait for room until *deadline*. An op larger than the whole quota has to be alone.

        Raises:
            Busy: no room came. Nothing was queued.
        """
        with self._changed:
            while self.items and (
                self.items + items > self.items_max or self.bytes + size_bytes > self.bytes_max
            ):
                wait_s = deadline - time.monotonic()
                self._waiting += 1
                came = wait_s > 0 and self._changed.wait(wait_s)
                self._waiting -= 1
                if not came:
                    raise Busy(
                        f"the write queue is full ({self.items} of {self.items_max} messages,"
                        f" {self.bytes} of {self.bytes_max} bytes); nothing was written: retry"
                        " later, or raise `queue_max` or `queue_max_mb`"
                    )
            self.items += items
            self.bytes += size_bytes

    def give_back(self, items: int, size_bytes: int) -> None:
        with self._changed:
            self.items -= items
            self.bytes -= size_bytes
            if self._waiting:
                self._changed.notify_all()


class _Item:
    """An op in the queue, and the one who waits for it: a blocked caller or a future."""

    __slots__ = ("deadline", "future", "items", "op", "outcome", "signal", "size_bytes")

    def __init__(self, op: Op, deadline: float, future: "Future[Any] | None") -> None:
        self.op = op
        self.deadline = deadline
        self.future = future
        self.items = op.items
        self.size_bytes = op.size_bytes
        self.outcome: Any = None  # a one-tuple once settled: the result or the error
        self.signal: threading.Lock | None = None  # held by a caller who waits; released to wake

    def settle(self, outcome: Any) -> None:
        self.outcome = (outcome,)
        if self.future is not None:
            if isinstance(outcome, BaseException):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        elif self.signal is not None:
            self.signal.release()


class Writer:
    """Orders the writes of one agent. Safe for many threads."""

    def __init__(
        self,
        ledger: CommitTarget,
        *,
        quota: Quota,
        batch_max: int,
        batch_max_bytes: int,
        timeout_s: float,
        run_soon: Callable[[Callable[[], None]], None],
    ) -> None:
        """
        Args:
            run_soon: has a function called on a thread of the store's pool.
        """
        self._ledger = ledger
        self._quota = quota
        self._batch_max = batch_max
        self._batch_max_bytes = batch_max_bytes
        self._timeout_s = timeout_s
        self._run_soon = run_soon
        self._mutex = threading.Lock()
        self._queue: deque[_Item] = deque()
        self._led = False  # whether somebody leads, or has been called to
        self._last_batch = 1
        self.failed = 0  # submitted writes that failed, whether anybody looked or not

    @property
    def queued(self) -> int:
        return len(self._queue)

    def call(self, op: Op) -> Any:
        """
        Write *op* and wait until it is durable.

        Raises:
            ElytronError: what the ledger said of this op.
            Busy: not begun within `save_timeout_s`; nothing was written.
        """
        item = self._enqueue(op, None)
        with self._mutex:
            leads = not self._led
            if leads:
                self._led = True
            else:
                signal = threading.Lock()
                signal.acquire()
                item.signal = signal  # held before it is seen: `settle` may release it at once
                if item.outcome is not None:  # settled just before
                    item.signal = None
        if not leads and item.signal is not None:
            leads = self._wait(item)
        if leads:
            self._lead(item)
        (outcome,) = item.outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def submit(self, op: Op, *, wait: bool = True) -> "Future[Any]":
        """
        Queue *op*; the future has its result once it is durable. It cannot be cancelled.

        Args:
            wait: wait for room in the queue up to `save_timeout_s`, rather than not at all.

        Raises:
            Busy: no room; nothing was queued.
        """
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # from here on nobody can call it undone
        self._enqueue(op, future, wait=wait)
        with self._mutex:
            leads = not self._led
            self._led = True
        if leads:
            self._run_soon(self._lead_all)
        return future

    def _enqueue(self, op: Op, future: "Future[Any] | None", *, wait: bool = True) -> _Item:
        now = time.monotonic()
        item = _Item(op, now + self._timeout_s, future)
        self._quota.take(item.items, item.size_bytes, item.deadline if wait else now)
        self._queue.append(item)
        return item

    def _wait(self, item: _Item) -> bool:
        """Wait to be settled or to be called to lead; True if called."""
        signal = item.signal
        assert signal is not None
        try:
            if signal.acquire(timeout=max(0.0, item.deadline - time.monotonic())):
                return item.outcome is None
        except BaseException:  # an interrupt: the lead must not be lost with this caller
            with self._mutex:
                called = signal.acquire(blocking=False) and item.outcome is None
                self._withdraw(item)
            if called:
                self._pass_on()
            raise
        with self._mutex:
            if signal.acquire(blocking=False):  # at the last moment
                return item.outcome is None
            if self._withdraw(item):
                raise Busy(
                    f"not written within {self._timeout_s:g} s, behind {len(self._queue)} others;"
                    " retry later, or raise `save_timeout_s`"
                )
        # In the batch being committed: its end is near, and only that tells the outcome.
        signal.acquire()
        return item.outcome is None

    def _withdraw(self, item: _Item) -> bool:
        """Take an item back that no batch holds yet. Call with the mutex held."""
        if item not in self._queue:
            return False
        self._queue.remove(item)
        self._quota.give_back(item.items, item.size_bytes)
        return True

    def _lead(self, item: _Item) -> None:
        """Commit batches until *item* is settled, then pass the lead on."""
        try:
            while item.outcome is None:
                self._commit_batch()
        finally:
            self._pass_on()

    def _lead_all(self) -> None:
        """On a pool thread: commit one batch, then pass the lead on."""
        try:
            self._commit_batch()
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Call the first in the queue to lead; nobody, if it is empty."""
        with self._mutex:
            if not self._queue:
                self._led = False
                return
            heir = self._queue[0]
            if heir.future is None:
                if heir.signal is None:
                    # It is on its way into `call`, and will find nobody leading.
                    self._led = False
                else:
                    heir.signal.release()
                return
        self._run_soon(self._lead_all)

    def _gather(self) -> None:
        """
        Let those whom the last batch released come back with their next message.

        Without it 16 threads under one lock batch 1.7 items. It ends as soon as as many wait
        as last time, or nobody has come for a while; a lone caller never waits here.
        """
        expected, held = min(self._last_batch, self._batch_max), len(self._queue)
        idle = 0
        while held < expected and idle < _GATHER_YIELDS:
            time.sleep(0)
            grown = len(self._queue)
            idle = 0 if grown > held else idle + 1
            held = grown

    def _commit_batch(self) -> None:
        if self._last_batch > 1:
            self._gather()
        batch = self._take_batch()
        self._last_batch = len(batch)
        if not batch:
            return
        deadline = max([item.deadline for item in batch])
        try:
            outcomes = self._ledger.commit([item.op for item in batch], deadline)
        except BaseException as error:
            # Not ours, so a bug or an interrupt: nobody may be left waiting for ever.
            unknown = OutcomeUnknown(
                f"the commit was cut short ({type(error).__name__}); the write may or may not be"
                " durable: save again with the same id"
            )
            self._settle(batch, [unknown] * len(batch))
            raise
        self._settle(batch, outcomes)
        if self._ledger.checkpoint_due():
            self._ledger.checkpoint()

    def _take_batch(self) -> list[_Item]:
        batch: list[_Item] = []
        size_bytes = 0
        with self._mutex:
            while self._queue and len(batch) < self._batch_max:
                item = self._queue[0]
                size_bytes += item.size_bytes
                if batch and size_bytes > self._batch_max_bytes:
                    break
                batch.append(self._queue.popleft())
        return batch

    def _settle(self, batch: list[_Item], outcomes: list[Any]) -> None:
        self._quota.give_back(
            sum([item.items for item in batch]), sum([item.size_bytes for item in batch])
        )
        for item, outcome in zip(batch, outcomes, strict=True):
            if item.future is not None and isinstance(outcome, ElytronError):
                self.failed += 1
            item.settle(outcome)
