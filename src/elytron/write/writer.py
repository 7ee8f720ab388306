"""
Writer: group commit for one agent, by whoever is waiting.

There is no writer thread. The first caller to come leads: it commits what is queued, its own
item among it, and then passes the lead on. So a lone save pays for no hand-over, and while one
commit is on its way to the disk the next batch gathers. What `submit` queues is committed by
a thread of the store's small pool, the same way, or by a caller who waits behind it.
`bench/save.py` measures both.

Ctrl-C may strike between any two calls. So nothing rests on a step being taken: who leads, what
is being committed and who holds a place are kept here by name, and whoever is cut short puts
right what is in its own name (`_abandon`).
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from elytron.config import Config
from elytron.errors import Busy, ElytronError, OutcomeUnknown
from elytron.ledger import bundles
from elytron.ledger.embedded import EMBEDDED
from elytron.ledger.ops import Op
from elytron.ledger.room import NoRoom
from elytron.write.queue import Item, Queueable, Quota

_ROOM_TRIES = 100  # how often room is made for one write,
_REFUSALS_MAX = 2  # how often there may be none to make, before a write is refused
_ROOM_TIMES_MAX = 8  # each time for twice as much, up to so many times
_GATHER_YIELDS = 40  # how often a leader lets other threads run before it commits
_here = threading.local()  # whether this thread is in a callback of a future


def is_telling() -> bool:
    """Whether this thread settles futures: then we are in a callback of one."""
    return getattr(_here, "is_telling", False)


class CommitTarget(Protocol):
    """What the writer needs of a ledger."""

    def commit(self, ops: Sequence[Any], deadline: float) -> list[Any]: ...
    def checkpoint_due(self) -> bool: ...
    def checkpoint(self) -> None: ...


def grouped(config: Config, target: CommitTarget, batch_max: int) -> Callable[..., Any]:
    """
    What many callers call, each with something to commit and a deadline, so that *target* is
    called with what all of them wait for.
    """
    writer = Writer(
        target,
        quota=Quota(items_max=config.queue_max, bytes_max=config.queue_max_bytes),
        batch_max=batch_max,
        batch_max_bytes=config.commit_bytes,
        timeout_s=config.save_timeout_s,
        run_soon=lambda _work: False,  # everybody waits
    )
    return writer.call


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
        run_soon: Callable[[Callable[[], None]], bool],
        make_room: Callable[[NoRoom, float], bool] = lambda _short, _deadline: False,
        on_written: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            make_room: asked when a limit is reached, with a deadline on the monotonic clock;
                whether there is room now. What is waiting waits for it, so order is kept.
            on_written: called after each commit. Must return at once.
            run_soon: has a function called on a thread of the store's pool; False if there is
                none any more, at the interpreter's end.
        """
        self._ledger = ledger
        self._quota = quota
        self._batch_max = batch_max
        self._batch_max_bytes = batch_max_bytes
        self._timeout_s = timeout_s
        self._run_soon = run_soon
        self._make_room = make_room
        self._on_written = on_written
        self._mutex = threading.Lock()
        self._queue: deque[Item] = deque()
        self._leader: object | None = None  # an item whose caller leads, or a token of the pool
        self._token: object | None = None  # of the pool, while no thread of it has begun
        self._batch: list[Item] = []  # what the leader is committing
        self._untold: deque[Item] = deque()  # settled, and their futures are not
        self._last_batch = 1
        self.failed = 0  # submitted writes that failed, whether anybody looked or not

    @property
    def queued(self) -> int:
        return len(self._queue)

    def call(self, op: Queueable, deadline: float | None = None) -> Any:
        """
        Write *op* and wait until it is durable.

        Args:
            deadline: until when its turn has to come, on the monotonic clock; `timeout_s` from now
                if None.

        Raises:
            ElytronError: what the ledger said of this op.
            Busy: not begun within `save_timeout_s`; nothing was written.
        """
        if deadline is None:
            deadline = time.monotonic() + self._timeout_s
        item = Item(op, deadline, None)
        try:
            # In a callback it goes beyond, one a thread: others' room may come only after it.
            self._quota.take(item, item.deadline, beyond=is_telling())
            self._queue.append(item)
            if not self._take_lead(item):
                self._wait(item)
            if self._leader is item:
                while item.outcome is None or not self._pass_on(item):
                    self._commit_batch()
                self._tell_soon()
        except BaseException:
            self._abandon(item)
            raise
        (outcome,) = item.outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def call_by(self, op: Queueable, until_s: float = math.inf) -> Any:
        """`call` for who waits no longer than to *until_s*, on the monotonic clock."""
        return self.call(op, min(until_s, time.monotonic() + self._timeout_s))

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
        now = time.monotonic()
        item = Item(op, now + self._timeout_s, future)
        try:
            self._quota.take(item, item.deadline if wait else now)
            self._queue.append(item)
            with self._mutex:
                leads = self._leader is None and not self._call_pool()
                if leads:
                    self._leader = item
            if leads:
                self._lead(item)
                self._tell()
        except BaseException:
            self._abandon(item)
            raise
        return future

    def commit_queued(self) -> "set[Future[Any]]":
        """
        For a callback that waits for others' writes, on the thread that they may wait for: commit
        what nobody is committing. Returns the futures of what is durable and was not told yet.
        """
        leader = object()
        while self._queue:
            with self._mutex:
                if not self._is_free():
                    break
                self._leader = leader
            self._lead(leader)
        self._tell_soon()
        return {item.future for item in self._untold.copy() if item.future is not None}

    def _is_free(self) -> bool:
        """Whether nobody leads, or only a thread of the pool is to begin. Needs the mutex."""
        return self._leader is None or self._leader is self._token

    def _take_lead(self, item: Item) -> bool:
        """Lead, if nobody does; else be ready to be woken."""
        with self._mutex:
            if self._is_free():
                self._leader = item
                return True
            signal = threading.Lock()
            signal.acquire()
            item.signal = signal  # held before it is seen: `wake` may release it at once
            if item.outcome is not None:  # settled just before
                item.wake()
        return False

    def _wait(self, item: Item) -> None:
        """Wait to be settled or to be called to lead."""
        signal = item.signal
        assert signal is not None
        wait_s = max(0.0, item.deadline - time.monotonic())
        if signal.acquire(timeout=wait_s):
            return
        with self._mutex:
            if item.outcome is not None or self._leader is item:  # at the last moment
                return
            begun = item not in self._queue
            if not begun:
                self._queue.remove(item)
        if not begun:
            raise Busy(
                f"not written within {wait_s:.1f} s, behind {len(self._queue)} others;"
                " retry later, or raise `save_timeout_s`"
            )
        # In the batch being committed: its end is near, and only that tells the outcome.
        signal.acquire()

    def _abandon(self, item: Item) -> None:
        """Put right what is in the name of an item whose caller was cut short or refused."""
        with self._mutex:
            if item in self._queue:
                self._queue.remove(item)
            committing = item in self._batch
        if not committing:
            self._quota.give_back([item])
        while not self._pass_on(item):
            self._commit_batch()
        self._tell_soon()

    def _pass_on(self, leader: object) -> bool:
        """
        If *leader* leads, or nobody does: call who is to lead next; nobody, if the queue is
        empty.

        Returns:
            False if there is nobody to call, since the pool has ended: *leader* has to go on.
        """
        with self._mutex:
            if self._leader is not None and self._leader is not leader:
                return True
            heir = self._heir()
            if heir is not None and heir.future is not None:
                if not self._call_pool():
                    self._leader = leader
                    return False
            elif heir is not None and heir.signal is not None:
                self._leader = heir
                heir.wake()
            else:
                # Nobody, or one on its way into `call`, who will find nobody leading.
                self._leader = None
            return True

    def _heir(self) -> Item | None:
        """
        Who is to lead next: the first in the queue; or, if it was submitted, the first after it
        whose caller waits, since all threads of the pool may be in callbacks. Needs the mutex.
        """
        if not self._queue or self._queue[0].future is None:
            return self._queue[0] if self._queue else None
        # A copy, since others append without the mutex.
        waiting = [item for item in self._queue.copy() if item.signal is not None]
        return waiting[0] if waiting else self._queue[0]

    def _call_pool(self) -> bool:
        """Have a thread of the pool lead, if it still has any. Call with the mutex held."""
        if self._token is None:
            token = object()
            if not self._run_soon(partial(self._lead_from_pool, token)):
                return False
            self._token = token
        self._leader = self._token
        return True

    def _lead_from_pool(self, token: object) -> None:
        """Lead for one batch; nothing, if the lead went elsewhere."""
        with self._mutex:
            if self._token is token:
                self._token = None
            if self._leader is not token:
                return
        try:
            self._lead(token)
        finally:
            self._tell()

    def _lead(self, leader: object) -> None:
        """Commit one batch and pass the lead on; more, if nobody can be called."""
        try:
            self._commit_batch()
        finally:
            while not self._pass_on(leader):
                self._commit_batch()

    def _tell_soon(self) -> None:
        """Have the pool tell: a caller may hold what a callback waits for."""
        if self._untold and not self._run_soon(self._tell):
            self._tell()

    def _tell(self) -> None:
        """Settle the futures of what was committed, now that the lead is in other hands."""
        outer, _here.is_telling = is_telling(), True
        try:
            while self._untold:
                try:
                    item = self._untold.popleft()
                except IndexError:  # another was faster
                    return
                if item.is_told:
                    continue
                item.tell()
        finally:
            _here.is_telling = outer
            self._tell_soon()  # the others, where a callback has ended the thread

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
        """Commit what waits, up to a batch, and tell each of its outcome."""
        bundles.begin()
        try:
            if self._last_batch > 1:
                self._gather()
            self._fill_batch()
            if self._batch:
                deadline = max([item.deadline for item in self._batch])
                self._settle(self._commit([item.op for item in self._batch], deadline))
        except BaseException as error:
            # Not ours, so a bug or an interrupt: nobody may be left waiting for ever.
            unknown = OutcomeUnknown(
                f"the commit was cut short ({type(error).__name__}); the write may or may not be"
                " durable: save again with the same id"
            )
            with self._mutex:
                for item in self._batch:
                    if item in self._queue:  # cut short between the two
                        self._queue.remove(item)
            self._settle([unknown] * len(self._batch))
            raise
        finally:
            self._batch = []
            bundles.end()
        self._on_written()
        if self._ledger.checkpoint_due():
            self._ledger.checkpoint()

    def _commit(self, ops: list[Any], deadline: float) -> list[Any]:
        """Commit ops; where a limit is in the way have room made, for all or for each alone."""
        outcomes = self._ledger.commit(ops, deadline)
        if not all(isinstance(outcome, NoRoom) for outcome in outcomes):
            return self._each_short(ops, outcomes, deadline)
        if any(isinstance(op, EMBEDDED) for op in ops):
            # Nothing leaves for the sake of vectors: they are made later, or not at all.
            return outcomes if len(ops) == 1 else self._each_short(ops, outcomes, deadline)
        refusals = 0
        for number in range(_ROOM_TRIES):
            # What is needed is estimated, and others may be faster to use the room that was made.
            times = min(2**number, _ROOM_TIMES_MAX)
            try:
                made = self._make_room(outcomes[0].asked(ops, times=times), deadline)
            except ElytronError as error:
                return [error] * len(ops)
            # Also where none was made: another process may have, or may just have taken it.
            outcomes = self._ledger.commit(ops, deadline)
            if not all(isinstance(outcome, NoRoom) for outcome in outcomes):
                return self._each_short(ops, outcomes, deadline)
            if time.monotonic() > deadline:
                break
            refusals += not made
            if refusals == _REFUSALS_MAX:
                break
        return outcomes if len(ops) == 1 else self._each_short(ops, outcomes, deadline)

    def _each_short(self, ops: list[Any], outcomes: list[Any], deadline: float) -> list[Any]:
        """Commit those that met a limit again, each alone; the others are done."""
        return [
            self._commit([op], deadline)[0] if isinstance(outcome, NoRoom) else outcome
            for op, outcome in zip(ops, outcomes, strict=True)
        ]

    def _fill_batch(self) -> None:
        size_bytes = 0
        with self._mutex:
            while self._queue and len(self._batch) < self._batch_max:
                item = self._queue[0]
                size_bytes += item.size_bytes
                if self._batch and size_bytes > self._batch_max_bytes:
                    break
                self._batch.append(item)  # first: it must not be in neither for a moment
                self._queue.popleft()
        self._last_batch = len(self._batch)

    def _settle(self, outcomes: list[Any]) -> None:
        self._quota.give_back(self._batch)
        for item, outcome in zip(self._batch, outcomes, strict=True):
            if item.future is not None and isinstance(outcome, ElytronError):
                self.failed += 1
            item.settle(outcome)  # first: whoever tells it takes it from there at once
            if item.future is not None and not item.is_noted:
                self._untold.append(item)
                item.is_noted = True  # in this order: twice does no harm
