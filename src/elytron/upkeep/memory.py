"""
Memory: what malloc keeps for later goes back to the system.

Many threads have many arenas in glibc, and each keeps what its busiest moment took: a store under
load held twice what it used, and rose for as long as was looked (`bench/soak.py`). Where the C
library has no such call nothing is done.
"""

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

_EACH_S = 30.0  # at most so often: it takes some milliseconds, and each arena's lock in turn


class Trimmer:
    """Gives free memory back, now and then. Of one process, so `TRIMMER` is the only one."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._mutex = threading.Lock()
        self._due_s = monotonic() + _EACH_S

    def trim(self) -> bool:
        """Give back what is free, if that is due and can be done; whether it was."""
        with self._mutex:
            if self._monotonic() < self._due_s:
                return False
            self._due_s = self._monotonic() + _EACH_S
        give_back = _malloc_trim()
        if give_back is not None:
            give_back(0)
        return give_back is not None


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """The C library's own function; None if it has none."""
    if sys.platform != "linux":
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found


TRIMMER = Trimmer()
