"""
Uses: how often messages were recalled, counted in memory until a commit takes some along.

A page for each would be too dear for every recall, so a crash may lose what is counted here.
"""

import threading
import time
from collections.abc import Iterable

from elytron.ledger.connection import PAGE_BYTES

_COUNTED_MAX = 1024  # messages; what comes beyond is not counted until some are written

Counts = dict[int, tuple[int, int]]  # key -> times, and when last in us


class Uses:
    """Uses of one ledger's messages that are not written yet."""

    def __init__(self, *, at_once: int) -> None:
        """
        Args:
            at_once: how many messages' uses one commit writes.
        """
        self.at_once = at_once
        self._counts: Counts = {}
        self._mutex = threading.Lock()

    @classmethod
    def of(cls, wal_limit_bytes: int) -> "Uses":
        """Those of a ledger with such a WAL: each use may touch a page of its own."""
        return cls(at_once=min(64, wal_limit_bytes // PAGE_BYTES // 16))

    @property
    def due(self) -> bool:
        """Whether there are enough for a commit to take some along."""
        return len(self._counts) >= self.at_once

    @property
    def any(self) -> bool:
        return bool(self._counts)

    def note(self, keys: Iterable[int]) -> None:
        """Count that these messages were recalled now."""
        now_us = time.time_ns() // 1000
        with self._mutex:
            for key in keys:
                if key in self._counts or len(self._counts) < _COUNTED_MAX:
                    self._counts[key] = (self._counts.get(key, (0, 0))[0] + 1, now_us)

    def last(self) -> dict[int, int]:
        """When each of these messages was last recalled, in us."""
        with self._mutex:
            return {key: last_us for key, (_, last_us) in self._counts.items()}

    def take(self) -> Counts:
        """Up to `at_once` of them, to be written."""
        with self._mutex:
            return dict(
                [self._counts.popitem() for _ in range(min(self.at_once, len(self._counts)))]
            )

    def put_back(self, counts: Counts) -> None:
        """What was taken and could not be written."""
        with self._mutex:
            for key, (times, last_us) in counts.items():
                again, again_us = self._counts.get(key, (0, 0))
                self._counts[key] = (times + again, max(last_us, again_us))
