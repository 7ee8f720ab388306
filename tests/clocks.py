"""A clock that a test moves on."""

import time

from elytron.upkeep.clock import Clock

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


class FakeClock(Clock):
    """
    Stands still until it is moved on. It begins at the true time, since messages arrive by that.

    `pass_s` moves both of its clocks; `leap_s` only the wall's, as when somebody sets it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now_us = time.time_ns() // 1000
        self._steady_s = 1000.0

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._steady_s

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self._steady_s += seconds
        self.leap_s(seconds)

    def leap_s(self, seconds: float) -> None:
        """Set the wall clock, ahead or back."""
        self._now_us += int(seconds * 1e6)
