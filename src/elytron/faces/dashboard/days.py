"""Days: messages over time, in as many spans as a picture has room for. Pure."""

from collections.abc import Sequence
from datetime import UTC, date, timedelta
from itertools import accumulate
from typing import NamedTuple

from elytron.records import Message

BYTES_PER_MB = 1 << 20
SPANS_MAX = 92
_WIDTHS = (1, 7, 30, 365)  # days


class Spans(NamedTuple):
    """
    Spans of *days* days each, without a gap. `starts` are their first days; `counts` and `bytes`
    are of the messages said in each; `totals` count on from the first.
    """

    days: int
    starts: tuple[str, ...]
    counts: tuple[int, ...]
    bytes: tuple[int, ...]

    @property
    def messages(self) -> int:
        return sum(self.counts)

    @property
    def totals(self) -> tuple[int, ...]:
        return tuple(accumulate(self.counts))


def spans(messages: Sequence[Message]) -> Spans:
    """Count messages by the day they were said, in UTC, or by wider spans where these are many."""
    if not messages:
        return Spans(1, (), (), ())
    said = [(message.at.astimezone(UTC).date(), message) for message in messages]
    first, last = min(at for at, _ in said), max(at for at, _ in said)
    width = _width((last - first).days + 1)
    counts = [0] * ((last - first).days // width + 1)
    sizes = [0] * len(counts)
    for at, message in said:
        place = (at - first).days // width
        counts[place] += 1
        sizes[place] += len(message.content.encode("utf-8", "replace"))
    starts = tuple(_day(first, n * width) for n in range(len(counts)))
    return Spans(width, starts, tuple(counts), tuple(sizes))


def _width(days: int) -> int:
    for width in _WIDTHS:
        if days <= width * SPANS_MAX:
            return width
    return -(-days // SPANS_MAX)


def _day(first: date, days: int) -> str:
    return (first + timedelta(days=days)).isoformat()
