"""
Slopes: what a series of samples gains in an hour, and how sure that is.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

BLOCKS_MAX = 60
Z_95 = 1.96


def quantiles(times_ms: list[float]) -> tuple[float, float]:
    """Median and p99; 0 of none."""
    ordered = sorted(times_ms) or [0.0]
    return statistics.median(ordered), ordered[len(ordered) * 99 // 100]


class Slope(NamedTuple):
    """What is gained in an hour, and between what bounds that lies."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} an hour ({self.low:+.2f} to {self.high:+.2f})"


def slope(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """
    Theil and Sen's slope an hour, with Sen's interval.

    Neighbours resemble each other, which would make the interval too narrow: so of the medians
    of at most `BLOCKS_MAX` blocks. Needs four samples; else it is not a number.
    """
    blocks = min(BLOCKS_MAX, len(values) // 2)
    if blocks < 2:
        return Slope(math.nan, math.nan, math.nan)
    edges = [len(values) * number // blocks for number in range(blocks + 1)]
    points = [
        (statistics.median(seconds[low:high]) / 3600, statistics.median(values[low:high]))
        for low, high in itertools.pairwise(edges)
    ]
    pairs = sorted([(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2)])
    width = Z_95 * math.sqrt(blocks * (blocks - 1) * (2 * blocks + 5) / 18)
    low = max(0, round((len(pairs) - width) / 2))
    high = min(len(pairs) - 1, round((len(pairs) + width) / 2))
    return Slope(statistics.median(pairs), pairs[low], pairs[high])
