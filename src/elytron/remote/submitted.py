"""
Submitted: saves that nobody waits for, sent in the order in which they were submitted.

Of one agent one part is under way at a time, so that order holds; what gathers meanwhile goes
together in the next. If one of them is refused they are sent one by one, so that it fails alone;
if the server cannot be used they fail together, since each by itself would only take its time.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from elytron.errors import Busy, Closed, Conflict, InvalidArgument, NotFound, OverBudget
from elytron.records import Receipt

WAITING_MAX = 10_000  # saves that were submitted and are not settled
WAITING_MAX_CHARS = 64_000_000  # of their texts; one alone may have more
_PART_MAX = 256
_PART_MAX_CHARS = 1_000_000
_WAIT_S = 30  # for room among them
_OF_ONE = (InvalidArgument, Conflict, NotFound, OverBudget)  # refused, whatever becomes of others

Message = Mapping[str, Any]
SaveMany = Callable[[str, list[Message]], list[Receipt]]
_Future = Future[Receipt]


class _Waiting(NamedTuple):
    message: Message
    chars: int
    outcome: _Future


class Submitted:
    """What was submitted on one connection. Its threads are made with the first."""

    def __init__(self, save_many: SaveMany, threads: int) -> None:
        """`save_many` saves messages of one agent, all of them or none."""
        self._save_many = save_many
        self._threads = threads
        self._changed = threading.Condition()  # also the mutex of all below
        self._count = self._chars = 0  # of those that are not settled
        self._closing = self._given_up = False
        self._pool: ThreadPoolExecutor | None = None
        self._queues: dict[str, deque[_Waiting]] = {}  # of agents with one under way
        self._unsettled: dict[str, set[_Future]] = {}

    def submit(self, agent: str, message: Message) -> _Future:
        """
        Queue one message; what becomes of it. It cannot be cancelled.

        Raises:
            Busy: too many wait already, and none of them was settled in time.
            Closed: nothing is taken any more.
        """
        chars = _size(message)
        with self._changed:
            if not self._changed.wait_for(lambda: self._has_room(chars), _WAIT_S):
                raise Busy(
                    f"{self._count} saves with {self._chars} characters wait to be sent, at most"
                    f" {WAITING_MAX} with {WAITING_MAX_CHARS} may; retry later"
                )
            return self._queue(agent, message, chars)

    def submit_at_once(self, agent: str, message: Message) -> _Future | None:
        """The same without waiting; None where there is no room now."""
        chars = _size(message)
        with self._changed:
            return self._queue(agent, message, chars) if self._has_room(chars) else None

    def wait(self, agent: str, timeout_s: float | None) -> bool:
        """Wait until what was submitted for *agent* by now is settled; whether it is."""
        with self._changed:
            unsettled = set(self._unsettled.get(agent, ()))
        return not wait(unsettled, timeout_s).not_done

    def close(self) -> None:
        """Wait until all of it is settled, and end the threads. Fails the rest at a failure."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._pool is not None:
            self._pool.shutdown()

    def _has_room(self, chars: int) -> bool:
        fits = not self._count or self._chars + chars <= WAITING_MAX_CHARS
        return self._closing or (self._count < WAITING_MAX and fits)

    def _queue(self, agent: str, message: Message, chars: int) -> _Future:
        if self._closing:
            raise Closed("the connection was closed; connect again")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="elytron-remote")
        outcome = _Future()
        outcome.set_running_or_notify_cancel()
        queue = self._queues.get(agent)
        if queue is None:
            queue = deque[_Waiting]()
            self._pool.submit(self._send_all, agent, queue)
            self._queues[agent] = queue
        queue.append(_Waiting(message, chars, outcome))
        self._unsettled.setdefault(agent, set()).add(outcome)
        self._count += 1
        self._chars += chars
        return outcome

    def _send_all(self, agent: str, queue: deque[_Waiting]) -> None:
        while part := self._next(agent, queue):
            self._send(agent, part)

    def _next(self, agent: str, queue: deque[_Waiting]) -> list[_Waiting]:
        part: list[_Waiting] = []
        chars = 0
        with self._changed:
            while queue and len(part) < _PART_MAX and chars < _PART_MAX_CHARS:
                part.append(queue.popleft())
                chars += part[-1].chars
            if not part:
                del self._queues[agent]
        return part

    def _send(self, agent: str, part: list[_Waiting]) -> None:
        try:
            if self._given_up:
                raise Closed("the connection was closed before this was sent; connect again")
            receipts = self._save_many(agent, [waiting.message for waiting in part])
        except _OF_ONE as error:
            if len(part) == 1:
                self._settle(agent, part, error)
                return
            for waiting in part:
                self._send(agent, [waiting])
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self._given_up = self._closing  # so that closing ends
            self._settle(agent, part, error)
        else:
            self._settle(agent, part, receipts)

    def _settle(
        self, agent: str, part: list[_Waiting], result: list[Receipt] | BaseException
    ) -> None:
        with self._changed:
            rest = self._unsettled[agent]
            rest.difference_update(waiting.outcome for waiting in part)
            if not rest:
                del self._unsettled[agent]
            self._count -= len(part)
            self._chars -= sum(waiting.chars for waiting in part)
            self._changed.notify_all()
        if isinstance(result, BaseException):
            for waiting in part:
                waiting.outcome.set_exception(result)
            return
        for waiting, receipt in zip(part, result, strict=True):
            waiting.outcome.set_result(receipt)


def _size(message: Message) -> int:
    """The characters of a message that weigh."""
    return len(message["content"]) + len(str(message.get("metadata") or ""))
