"""
Clock: what time upkeep takes it to be.

Messages leave for their age, so a clock that leaps ahead must not make all of them old at once.
"""

import sys
import time

_LEAP_MAX_US = 60_000_000


class Clock:
    """
    The system's time, as far as it can be believed.

    Within one process it never runs ahead of the steady clock by more than a minute: after a leap
    ahead, messages grow old by the steady clock until the process begins anew. Backwards it
    is followed: messages grow younger, and nothing leaves for that. (Over a restart a leap
    cannot be told from a long pause; `keep_messages` holds then.)
    """

    def __init__(self) -> None:
        self._begun_us = time.time_ns() // 1000
        self._begun_s = _steady_s()

    def now_us(self) -> int:
        """Microseconds since 1970."""
        steady_us = self._begun_us + int((self.monotonic() - self._begun_s) * 1e6)
        return min(time.time_ns() // 1000, steady_us + _LEAP_MAX_US)

    def monotonic(self) -> float:
        """Seconds that only rise; on Linux those too that the machine sleeps."""
        return _steady_s()


def _steady_s() -> float:
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
