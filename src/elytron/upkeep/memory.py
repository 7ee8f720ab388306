"""
Memory: what malloc keeps for later goes back to the system.

Many threads have many arenas in glibc, and each keeps what its busiest moment took: a store under
load held twice what it used, and rose for as long as was looked (`bench/soak.py`). What is free is
given back now and then; with few arenas there is less of it that cannot be. How many there are is
the whole process's, so only programs of our own set it. Where the C library has no such call
nothing is done.
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

ARENAS_MAX = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h
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


def bound_arenas() -> bool:
    """
    Have no more than two arenas from now on, unless MALLOC_ARENA_MAX says how many; whether that
    was done. To be called before there are threads: arenas that are there stay.
    """
    set_option = _of_libc("mallopt")
    if set_option is None or "MALLOC_ARENA_MAX" in os.environ:
        return False
    return bool(set_option(_M_ARENA_MAX, ARENAS_MAX))


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    return _of_libc("malloc_trim")


def _of_libc(name: str) -> Callable[..., int] | None:
    """A function of the C library; None if it has none of that name."""
    if sys.platform != "linux":
        return None
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return found


TRIMMER = Trimmer()
