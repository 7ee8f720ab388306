"""
Readers: a bounded number of reading connections for one ledger.

Three bounds hold: `max_connections` an agent, `max_readers` in use in the whole store (the
slots), and one idle connection an agent plus the store's spares, so that a thousand agents do
not keep a thousand sets of descriptors. A spare that was not needed for a minute is closed: else
all would be open for good after enough busy moments, each with a page cache.
"""

import threading
import time
from collections.abc import Callable

import apsw

from elytron.errors import Busy
from elytron.ledger import bundles
from elytron.ledger.connection import Deadline

_IDLE_EACH = 1
SPARE_UNUSED_MAX_S = 60.0


class Reader:
    """One connection and its deadline."""

    __slots__ = ("db", "deadline", "used_at_s")

    def __init__(self, db: apsw.Connection) -> None:
        self.db = db
        self.deadline = Deadline(db)
        self.used_at_s = 0.0


class Slots:
    """What the readers of all agents of a store share: places in use, and spare idle ones."""

    def __init__(self, *, in_use_max: int, spare_max: int) -> None:
        self.in_use_max = in_use_max
        self.in_use = threading.BoundedSemaphore(in_use_max)
        self.spare = threading.BoundedSemaphore(max(1, spare_max))


class Readers:
    """Lends readers, opening them on demand. Each is for one thread at a time."""

    def __init__(
        self,
        open_db: Callable[[], apsw.Connection],
        *,
        size: int,
        timeout_s: float,
        slots: Slots,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_db = open_db
        self._monotonic = monotonic
        self._size = size
        self._timeout_s = timeout_s
        self._slots = slots
        self._places = threading.BoundedSemaphore(size)
        self._mutex = threading.Lock()
        self._idle: list[Reader] = []
        self._spares = 0  # of the idle ones, how many hold a spare place of the store
        self._closed = False

    def borrow(self) -> Reader:
        """
        A reader whose deadline is `read_timeout_s` from now.

        Raises:
            Busy: all were taken all that time.
        """
        deadline = time.monotonic() + self._timeout_s
        if not self._places.acquire(timeout=self._timeout_s):
            raise Busy(
                f"all {self._size} readers of this agent were taken for {self._timeout_s:g} s;"
                " retry later, or raise `max_connections`"
            )
        try:
            if not self._slots.in_use.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise Busy(
                    f"all {self._slots.in_use_max} readers of the store were taken for"
                    f" {self._timeout_s:g} s; retry later, or raise `max_readers`"
                )
            try:
                reader = self._take_idle() or Reader(self._open_db())
            except BaseException:
                self._slots.in_use.release()
                raise
        except BaseException:
            self._places.release()
            raise
        reader.deadline.at = deadline
        bundles.begin()
        return reader

    def give_back(self, reader: Reader, *, broken: bool = False) -> None:
        """Return a reader; a *broken* one is closed, and so is one too many."""
        bundles.end()
        reader.deadline.at = float("inf")
        reader.used_at_s = self._monotonic()
        unused = None
        with self._mutex:
            keep = not (broken or self._closed) and (
                len(self._idle) - self._spares < _IDLE_EACH
                or self._slots.spare.acquire(blocking=False)
            )
            if keep:
                self._idle.append(reader)
                self._spares = max(self._spares, len(self._idle) - _IDLE_EACH)
                if self._spares and reader.used_at_s - self._idle[0].used_at_s > SPARE_UNUSED_MAX_S:
                    unused = self._idle.pop(0)  # the last to be taken, so the longest unused
                    self._spares -= 1
                    self._slots.spare.release()
        if not keep:
            reader.db.close()
        if unused is not None:
            unused.db.close()
        self._slots.in_use.release()
        self._places.release()

    def _take_idle(self) -> Reader | None:
        with self._mutex:
            if not self._idle:
                return None
            reader = self._idle.pop()
            if self._spares:
                self._spares -= 1
                self._slots.spare.release()
            return reader

    def close(self) -> None:
        """Close the idle readers. Those lent out are closed when they come back."""
        with self._mutex:
            self._closed = True
        while (reader := self._take_idle()) is not None:
            reader.db.close()
