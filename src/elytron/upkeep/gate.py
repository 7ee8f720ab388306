"""
Gate: one process at a time at a kind of background work for an agent.

What follows the changes is right whoever does it, and however many at once: only one of them is
heard. But then each of eight processes links each message, or pays an embedder for it. So whoever
is at it locks a file, which a dead process gives up at once. It is a courtesy and no condition: a
process that was stopped in the midst of it keeps nobody from an answer.
"""

import contextlib
import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path

from elytron.errors import Unavailable
from elytron.ledger.lock import FileLock

_log = logging.getLogger("elytron.upkeep")
_POLL_S = 0.002


class Gate:
    """The gate of one kind of work, by the path of its file. Nothing is made before it is used."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def passing(self, *, wait_s: float = 0.0) -> Iterator[bool]:
        """
        Whether it is ours for the length of the block; if another process is at it, after *wait_s*.

        Where the file cannot be locked it is ours: what is wrong there is told by the work itself.
        """
        try:
            lock = FileLock(self._path)  # opened each time: many agents must not hold one each
        except OSError as error:
            _log.debug("%s cannot be locked: %s", self._path, error)
            yield True
            return
        with contextlib.closing(lock):
            yield self._acquire(lock, wait_s)

    def _acquire(self, lock: FileLock, wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        try:
            while not (ours := lock.try_acquire()) and time.monotonic() < deadline:
                time.sleep(_POLL_S * (0.5 + random.random()))
        except Unavailable as error:
            _log.debug("%s", error)
            return True
        return ours
