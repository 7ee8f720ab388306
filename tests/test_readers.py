"""Readers of one ledger: how many stay open while nobody reads."""

from contextlib import ExitStack
from itertools import count
from pathlib import Path

import apsw

from elytron.ledger.pool import SPARE_UNUSED_MAX_S, Readers, Slots


class _Connection(apsw.Connection):
    was_closed = False

    def close(self, force: bool = False) -> None:
        self.was_closed = True
        super().close(force)


class Opened:
    """Connections to one file, and a clock that is moved by hand."""

    def __init__(self, path: Path) -> None:
        self._path = str(path / "a.db")
        self.connections: list[_Connection] = []
        self.now_s = 1000.0
        self.readers = Readers(
            self._open,
            size=8,
            timeout_s=5,
            slots=Slots(in_use_max=8, spare_max=3),
            monotonic=lambda: self.now_s,
        )

    def _open(self) -> apsw.Connection:
        self.connections.append(_Connection(self._path))
        return self.connections[-1]

    @property
    def open(self) -> int:
        return sum(not connection.was_closed for connection in self.connections)

    def read(self, at_once: int) -> None:
        with ExitStack() as lent:
            for _ in range(at_once):
                lent.callback(self.readers.give_back, self.readers.borrow())


def test_after_a_busy_moment_one_reader_and_the_spares_stay_open(tmp_path):
    opened = Opened(tmp_path)
    opened.read(8)
    assert opened.open == 4
    opened.readers.close()
    assert opened.open == 0


def test_a_spare_that_was_not_needed_for_a_minute_is_closed(tmp_path):
    opened = Opened(tmp_path)
    opened.read(8)
    for second in count(1):
        opened.now_s += 1
        opened.read(1)
        if second > SPARE_UNUSED_MAX_S + 3:
            break
    assert opened.open == 1
    opened.read(4)  # and its place among the store's spares is free again
    assert opened.open == 4
    opened.readers.close()


def test_spares_that_are_needed_each_minute_stay(tmp_path):
    opened = Opened(tmp_path)
    for _ in range(10):
        opened.now_s += SPARE_UNUSED_MAX_S - 1
        opened.read(4)
    assert len(opened.connections) == 4
    opened.readers.close()
