"""
Background: the thread that links what was saved to concepts, and keeps graphs up to date; and
another that has it embedded.

It works on agents that were written to, once nobody has for a second, or ten seconds after the
first message that waits; and never more than half of the time, or for linking a quarter of it while
there are saves, so that saving keeps its pace. It holds nothing: whoever asks does what is still to
be done first, and so does `flush`.
"""

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from elytron.errors import Closed, ElytronError, Forked

_T = TypeVar("_T")
_log = logging.getLogger("elytron.upkeep")
_QUIET_S = 1.0
_LONGEST_S = 10.0
_LOOK_AGAIN_S = 60.0
_ELSEWHERE_S = 1.0  # before it is looked again whether another process is still at it
_BACK_OFF_S, _BACK_OFF_MAX_S = 5.0, 600.0
_NOTED_MAX = 10_000  # agents that wait; the others' turn comes with their next message


@dataclass(slots=True)
class _Waiting:
    """An agent that was written to: when first and last, and how often working on it failed."""

    first_s: float
    last_s: float
    failures: int = 0
    not_before_s: float = 0.0
    begun: bool = False  # there is more of it to do, whoever writes meanwhile

    @property
    def due_s(self) -> float:
        if self.begun:
            return self.not_before_s
        return max(self.not_before_s, min(self.last_s + _QUIET_S, self.first_s + _LONGEST_S))


class _Signal:
    """What the thread waits for. Not the background itself, which may be forgotten meanwhile."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.ended = threading.Event()

    @property
    def stopping(self) -> bool:
        return self.ended.is_set()

    def end(self) -> None:
        self.ended.set()
        self.wake.set()


class Background:
    """One store's background work. `tick` does what is due; the thread calls it."""

    def __init__(
        self,
        work: Callable[[str], bool | None],
        *,
        clock_s: Callable[[], float] = time.monotonic,
        name: str = "elytron-background",
        rest_while_busy: float = 1.0,
    ) -> None:
        """
        Args:
            work: does one bounded step for an agent; whether there is more to do. None if another
                process is at it: it is looked again a little later, since that one may die.
            name: of the thread.
            rest_while_busy: how long it rests after a step, while there are saves, in times of what
                the step took; else as long as that.
        """
        self._name = name
        self._work = work
        self._clock_s = clock_s
        self._rest_while_busy = rest_while_busy
        self._noted_s = -math.inf  # the last write to any agent
        self.resting = False  # what `tick` returned is a rest, which new messages do not end
        self._mutex = threading.Lock()
        self._waiting: dict[str, _Waiting] = {}
        self._signal = _Signal()
        self._thread: threading.Thread | None = None
        self.failures = 0
        self.last_error: str | None = None

    def note(self, name: str) -> None:
        """An agent was written to. Returns at once."""
        now_s = self._noted_s = self._clock_s()
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.last_s = now_s
            if self._thread is not None:
                return
        with self._mutex:
            if len(self._waiting) < _NOTED_MAX:
                self._waiting.setdefault(name, _Waiting(now_s, now_s))
        if self._thread is None:
            self._start()
        self._signal.wake.set()

    def forget(self, name: str) -> None:
        """What waited for an agent was done by somebody else."""
        with self._mutex:
            self._waiting.pop(name, None)

    def tick(self) -> float:
        """Do one step for the agent whose turn it is; in how many seconds to look again."""
        now_s = self._clock_s()
        self.resting = False
        with self._mutex:
            due = min(self._waiting.items(), key=lambda pair: pair[1].due_s, default=None)
        if due is None:
            return _LOOK_AGAIN_S
        name, waiting = due
        if waiting.due_s > now_s:
            return min(_LOOK_AGAIN_S, waiting.due_s - now_s)
        with self._mutex:
            self._waiting.pop(name, None)  # what is written from here on is noted anew
        more = self._step(name, waiting)
        took_s = self._clock_s() - now_s
        if more or waiting.failures:
            with self._mutex:
                again = self._waiting.setdefault(name, waiting)
                again.failures, again.not_before_s = waiting.failures, waiting.not_before_s
                again.begun = more
        self.resting = True
        is_busy = self._clock_s() - self._noted_s < _QUIET_S
        return took_s * (self._rest_while_busy if is_busy else 1.0)

    def _step(self, name: str, waiting: _Waiting) -> bool:
        try:
            outcome = self._work(name)
        except (Closed, Forked):
            self._signal.end()
            return False
        except ElytronError as error:
            self._failed(name, waiting, str(error), wait_s=getattr(error, "wait_s", None))
            return False
        except Exception as error:  # noqa: BLE001 - counted, and the others' turn comes
            _log.exception("background work for %r failed", name)
            self._failed(name, waiting, type(error).__name__)
            return False
        waiting.failures = 0
        more = outcome is None or outcome
        # Then it is the turn of those who have waited longer.
        waiting.not_before_s = self._clock_s() if more else 0.0
        if outcome is None:
            waiting.not_before_s += _ELSEWHERE_S
        return more

    def _failed(
        self, name: str, waiting: _Waiting, why: str, *, wait_s: float | None = None
    ) -> None:
        """Put an agent's work off, longer each time, and at least for as long as was asked."""
        _log.info("background work for %r is put off: %s", name, why)
        self.failures += 1
        self.last_error = f"{name}: {why}"
        back_off_s = min(_BACK_OFF_MAX_S, _BACK_OFF_S * 2 ** min(waiting.failures, 20))
        waiting.failures += 1
        waiting.not_before_s = self._clock_s() + max(back_off_s, wait_s or 0.0)

    def _start(self) -> None:
        with self._mutex:
            if self._thread is not None or self._signal.stopping:
                return
            thread = threading.Thread(
                target=_watch,
                args=(weakref.ref(self), self._signal),
                name=self._name,
                daemon=True,  # a program that forgets to close its store still ends
            )
            try:
                thread.start()
            except RuntimeError as error:  # what was noted is durable; the next note tries again
                _log.warning("background work could not begin: %s", error)
                return
            self._thread = thread  # not before: one that was never started cannot be joined

    def stopping(self) -> bool:
        """Whether the store is being closed."""
        return self._signal.stopping

    def stop(self, timeout_s: float) -> None:
        """End the thread after the step in hand; it is waited for no longer than *timeout_s*."""
        self._signal.end()
        with self._mutex:  # one that is being started is waited for, too
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
            if thread.is_alive():
                _log.warning("background work goes on after %g s; it ends by itself", timeout_s)
                return
        self._thread = None

    def abandon(self) -> None:
        """Let the thread end without waiting for it."""
        self._signal.end()


def _watch(found: "weakref.ref[Background]", signal: _Signal) -> None:
    """The thread: does what is due until the store is closed, or forgotten."""
    while not signal.stopping:
        signal.wake.clear()
        background = found()
        if background is None:
            return
        wait_s = background.tick()
        pause = signal.ended if background.resting else signal.wake
        del background
        pause.wait(wait_s)


def work_of(
    found: "weakref.ref[_T]", step: Callable[[_T, str], bool | None]
) -> Callable[[str], bool | None]:
    """The background's work for a store, which does not keep the store that it is done for."""

    def work(name: str) -> bool | None:
        agents = found()
        return False if agents is None else step(agents, name)

    return work
