"""
Janitor: one thread of a store that looks after its agents, now and then and when one is near a
limit.

It keeps no limit by itself: whoever writes does. So a janitor that is stopped stops nothing.
Of several processes on one store one does the periodic round; a file lock says which, and a
small file beside it when the last one was.
"""

import logging
import threading
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from elytron.config import Config
from elytron.errors import Busy, Corrupt, ElytronError
from elytron.ledger.files import read_json, translate_os_errors, write_json
from elytron.ledger.lock import FileLock
from elytron.ledger.rows import to_datetime
from elytron.reports import JanitorUsage
from elytron.upkeep.clock import Clock
from elytron.upkeep.memory import TRIMMER

_log = logging.getLogger("elytron.upkeep")
_STATE = "janitor.json"
_LOCK = "janitor.lock"
_LOOK_AGAIN_S = 60.0  # whether the store is still there
_BACK_OFF_S = 60.0  # after a failure; doubled after each further one
_TIME_MAX_US = 4_102_444_800_000_000  # the year 2100; a later time is none
_NEAR_MAX = 1000  # agents that wait to be looked after; the periodic round finds the others


class _Signal:
    """What the thread waits for. Not the janitor itself, which may be forgotten meanwhile."""

    def __init__(self) -> None:
        self.wake = threading.Event()
        self.stopping = False


class Janitor:
    """Looks after the agents of one store. `tick` does what is due; the thread calls it."""

    def __init__(
        self,
        store: Path,
        config: Config,
        *,
        clock: Clock,
        names: Callable[[], list[str]],
        look_after: Callable[[str, bool], None],
        sweep: Callable[[], None],
    ) -> None:
        """
        Args:
            names: the agents there are.
            look_after: does one agent's chores; with True where saves have come near a limit, so
                that the next ones find room.
            sweep: does what is about no agent that is there.
        """
        self._store = store
        self._clock = clock
        self._names = names
        self._look_after = look_after
        self._sweep = sweep
        self._periodic = config.auto_cleanup
        self._interval_s = config.cleanup_interval_hours * 3600
        self._mutex = threading.Lock()
        self._round = threading.Lock()  # held while a round goes on
        self._signal = _Signal()
        self._thread: threading.Thread | None = None
        self._near: dict[str, None] = {}
        self._due_s: float | None = None  # on the steady clock
        self._last_us: int | None = None
        self._last_error: str | None = None
        self._failures = 0

    def start(self) -> None:
        """Begin to look after the store, if that has not begun. Called by the first write."""
        if self._thread is not None or self._signal.stopping:
            return
        with self._mutex:
            if self._thread is not None or self._signal.stopping:
                return
            thread = threading.Thread(
                target=_watch,
                args=(weakref.ref(self), self._signal),
                name="elytron-janitor",
                daemon=True,  # a program that forgets to close its store still ends
            )
            try:
                thread.start()
            except RuntimeError as error:  # the next write tries again
                _log.warning("the janitor could not begin: %s", error)
                return
            self._thread = thread  # not before: one that was never started cannot be joined

    def near(self, name: str) -> None:
        """Have an agent looked after soon. Returns at once."""
        with self._mutex:
            if len(self._near) < _NEAR_MAX:
                self._near[name] = None
        self._signal.wake.set()

    def forget(self, name: str) -> None:
        """An agent that was to be looked after is there no more."""
        with self._mutex:
            self._near.pop(name, None)

    def stop(self, timeout_s: float) -> None:
        """
        End the thread, after the agent that it is looking after. Idempotent.

        It is waited for no longer than *timeout_s*: a hook may keep it.
        """
        self._signal.stopping = True
        self._signal.wake.set()
        with self._mutex:  # one that is being started is waited for, too
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
            if thread.is_alive():
                _log.warning(
                    "the janitor is still at work after %g s; it ends by itself", timeout_s
                )
                return
            self._thread = None

    def abandon(self) -> None:
        """Let the thread end without waiting for it."""
        self._signal.stopping = True
        self._signal.wake.set()

    def tick(self) -> float:
        """Do what is due now; returns in how many seconds to look again."""
        while not self._signal.stopping and (name := self._next_near()) is not None:
            self._try(name, ahead=True)
        if not self._periodic:
            return _LOOK_AGAIN_S
        if self._due_in_s() <= 0:
            self.run()
        return min(_LOOK_AGAIN_S, max(0.0, self._due_in_s()))

    def run(self) -> bool:
        """
        Look after every agent now; False if another process, or thread, is at it.

        One agent's failure keeps nobody else's chores from being done. It is kept for `usage`,
        and all is tried again after a minute, then two, four, up to the interval.
        """
        if not self._round.acquire(blocking=False):
            return False
        try:
            with translate_os_errors(self._store):
                lock = FileLock(self._store / _LOCK)
            try:
                lock.acquire(0.0, 0.0)
                self._run()
            except Busy as error:
                _log.debug("another process cleans up: %s", error)
                self._put_off(_LOOK_AGAIN_S)
                return False
            finally:
                lock.close()
        finally:
            self._round.release()
        return True

    def _run(self) -> None:
        self._last_error = None
        failures = int(not self._swept())
        for name in self._names():
            if self._signal.stopping:
                return
            failures += not self._try(name, ahead=False)
        failures += not self._note(self._clock.now_us())
        if failures:
            self._failures += 1
            self._put_off(min(self._interval_s, _BACK_OFF_S * 2 ** min(self._failures - 1, 20)))
        else:
            self._failures = 0
            self._put_off(self._interval_s)

    def _swept(self) -> bool:
        try:
            self._sweep()
        except ElytronError as error:
            _log.warning("what is left of agents that were deleted stays: %s", error)
            self._last_error = str(error)
            return False
        return True

    def _try(self, name: str, *, ahead: bool) -> bool:
        try:
            self._look_after(name, ahead)
        except ElytronError as error:
            _log.warning("looking after %r failed: %s", name, error)
            self._last_error = f"{name}: {error}"
            return False
        except Exception as error:  # noqa: BLE001 - counted, and the others' turn comes
            _log.exception("looking after %r failed", name)
            self._last_error = f"{name}: {type(error).__name__}: {error}"
            return False
        return True

    def _note(self, last_us: int) -> bool:
        """Write down when the last round was; whether that went."""
        self._last_us = last_us
        try:
            with translate_os_errors(self._store):
                write_json(self._store / _STATE, {"last_run_us": last_us})
        except ElytronError as error:
            _log.warning("that the clean-up ran cannot be written down: %s", error)
            self._last_error = str(error)
            return False
        return True

    def _next_near(self) -> str | None:
        with self._mutex:
            name = next(iter(self._near), None)
            if name is not None:
                del self._near[name]
            return name

    def _put_off(self, wait_s: float) -> None:
        self._due_s = self._clock.monotonic() + wait_s

    def _due_in_s(self) -> float:
        """Seconds until the next periodic round. What other processes did counts too."""
        if self._due_s is None or self._due_s <= self._clock.monotonic():
            self._read_state()
        assert self._due_s is not None, "set from the state"
        return self._due_s - self._clock.monotonic()

    def _last_run_us(self) -> int | None:
        """When the last round was, by the state file; None if that does not say."""
        try:
            state = read_json(self._store / _STATE) or {}
        except Corrupt as error:  # it is written anew with the next round
            _log.warning("%s", error)
            return None
        last_us = state.get("last_run_us")
        return last_us if type(last_us) is int and 0 <= last_us < _TIME_MAX_US else None

    def _read_state(self) -> None:
        """Note when the last round was, by whichever process, and so when the next one is due."""
        last_us = self._last_run_us()
        now_us = self._clock.now_us()
        ours = last_us is not None and last_us == self._last_us
        if last_us is None or last_us > now_us:
            # A store that begins now, or a clock that was set back: the first round is an
            # interval away, and no further.
            last_us = now_us
            if self._store.is_dir():  # else nothing was written yet, and nothing is made
                self._note(last_us)
        self._last_us = last_us
        if ours and self._failures and self._due_s is not None:
            return  # it was put off already, and nobody has done better since
        wait_s = last_us / 1e6 + self._interval_s - now_us / 1e6
        if self._due_s is None or wait_s > 0:
            self._put_off(wait_s)

    def usage(self) -> JanitorUsage:
        """When it last ran and will run next."""
        last_us, next_at = self._last_run_us(), None  # another process may have been at it
        if last_us is None:
            last_us = self._last_us
        if self._periodic and self._due_s is not None:
            wait_s = max(0.0, self._due_s - self._clock.monotonic())
            next_at = to_datetime(self._clock.now_us() + int(wait_s * 1e6))
        last_at: datetime | None = None if last_us is None else to_datetime(last_us)
        thread = self._thread
        running = thread is not None and thread.is_alive()
        return JanitorUsage(running, last_at, next_at, self._last_error, self._failures)


def _watch(found: "weakref.ref[Janitor]", signal: _Signal) -> None:
    """The thread: does what is due until the store is closed, or forgotten."""
    while not signal.stopping:
        signal.wake.clear()
        janitor = found()
        if janitor is None:
            return
        wait_s = _LOOK_AGAIN_S
        try:
            wait_s = janitor.tick()
        except ElytronError as error:
            _log.warning("the clean-up failed and is tried again: %s", error)
            janitor._last_error = str(error)
        except Exception as error:  # noqa: BLE001 - counted; without its thread nobody tidies
            _log.exception("the clean-up failed and is tried again")
            janitor._last_error = f"{type(error).__name__}: {error}"
        del janitor
        TRIMMER.trim()
        signal.wake.wait(wait_s)
