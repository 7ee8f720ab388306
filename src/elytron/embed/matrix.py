"""
Matrix: the vectors of one agent in memory, to find those nearest to a question.

While they are few each is compared exactly, one byte a dimension. Beyond that only the signs are
kept, one bit a dimension, and the nearest by these are candidates, which the caller compares
exactly. It finds candidates, no more: what it holds of vectors that are gone or changed meanwhile
is for the caller to leave out.

Source: sign bits as sketches, Charikar, "Similarity estimation techniques from rounding
algorithms", 2002.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_BLOCK, _BLOCK_MIN = 1 << 15, 64  # vectors held and compared together
_WORD_BITS = 64
# Sign bits find the nearest among this many times as many.
_SIGNS_TIMES = 4


class Row(Protocol):
    """What is needed of a stored vector."""

    @property
    def key(self) -> int: ...
    @property
    def projection(self) -> int: ...
    @property
    def scale(self) -> float: ...
    @property
    def data(self) -> bytes: ...


class _Block:
    """Some thousand vectors: their keys, and bytes with scales, or sign bits, a column a word."""

    def __init__(self, size: int, dims: int, *, signs: bool) -> None:
        self.count = 0
        self.keys = np.empty(size, np.int64)
        self.scales = np.empty(0 if signs else size, np.float32)
        self.rows = np.empty((0 if signs else size, dims), np.int8)
        self.signs = np.empty((-(-dims // _WORD_BITS), size if signs else 0), np.uint64)

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.scales.nbytes + self.rows.nbytes + self.signs.nbytes

    @property
    def room(self) -> int:
        return len(self.keys) - self.count

    def append(self, rows: Sequence[Row], *, signs: bool) -> None:
        part = slice(self.count, self.count + len(rows))
        self.keys[part] = [row.key for row in rows]
        data = np.frombuffer(b"".join([row.data for row in rows]), np.int8)
        data = data.reshape(len(rows), -1)
        if signs:
            self.signs[:, part] = _signs(data)
        else:
            self.rows[part] = data
            self.scales[part] = [row.scale for row in rows]
        self.count += len(rows)

    def to_signs(self) -> None:
        """Keep the signs alone, from here on."""
        signs = np.empty((self.signs.shape[0], len(self.keys)), np.uint64)
        signs[:, : self.count] = _signs(self.rows[: self.count])
        self.signs, self.rows, self.scales = signs, self.rows[:0].copy(), self.scales[:0].copy()

    def scores(self, query: Floats) -> Floats:
        rows = self.rows[: self.count].astype(np.float32)
        scores: Floats = (rows @ query) * self.scales[: self.count]
        return scores

    def differing(self, wanted: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """In how many signs each differs."""
        found = np.zeros(self.count, np.uint16)
        for word, column in zip(wanted, self.signs, strict=True):
            found += np.bitwise_count(column[: self.count] ^ word)
        return found


class _Group:
    """The vectors of one projection, in blocks, so that growing copies nothing."""

    def __init__(self, dims: int, *, signs: bool) -> None:
        self.dims = dims
        self.signs = signs
        self._blocks: list[_Block] = []

    @property
    def count(self) -> int:
        return sum([block.count for block in self._blocks])

    @property
    def bytes(self) -> int:
        return sum([block.bytes for block in self._blocks])

    def append(self, rows: Sequence[Row]) -> None:
        while rows:
            if not self._blocks or not self._blocks[-1].room:
                size = min(_BLOCK, max(_BLOCK_MIN, self.count // 8, len(rows)))
                self._blocks.append(_Block(size, self.dims, signs=self.signs))
            block = self._blocks[-1]
            taken = block.room
            block.append(rows[:taken], signs=self.signs)
            rows = rows[taken:]

    def reduce_to_signs(self) -> None:
        """Keep the signs alone, from here on."""
        self.signs = True
        for block in self._blocks:
            block.to_signs()

    def nearest(self, query: Floats, count: int) -> list[tuple[float, int]]:
        """(score, key) of the *count* nearest, in no order; some more where only signs are kept."""
        if self.signs:
            return self._nearest_by_signs(query, _SIGNS_TIMES * count)
        scores = np.concatenate([block.scores(query) for block in self._blocks])
        best = _largest(scores, count)
        return list(zip(scores[best].tolist(), self._keys(best), strict=True))

    def _nearest_by_signs(self, query: Floats, count: int) -> list[tuple[float, int]]:
        wanted = _signs(query[None, :])[:, 0]
        differing = np.concatenate([block.differing(wanted) for block in self._blocks])
        best = _smallest(differing, count, most=_WORD_BITS * len(wanted))
        scores = 1.0 - differing[best] * (2.0 / self.dims)
        return list(zip(scores.tolist(), self._keys(best), strict=True))

    def _keys(self, places: NDArray[np.intp]) -> list[int]:
        """The keys at these places, counted through all blocks."""
        keys = np.empty(len(places), np.int64)
        start = 0
        for block in self._blocks:
            within = (places >= start) & (places < start + block.count)
            keys[within] = block.keys[places[within] - start]
            start += block.count
        found: list[int] = keys.tolist()
        return found


class Matrix:
    """
    Candidates of one agent. Not for two threads at once.

    `last` is the number of the newest vector it has; `removed` how many had been removed when it
    was loaded.
    """

    def __init__(self, *, exact_max: int, expected: int = 0) -> None:
        """
        Args:
            exact_max: up to so many vectors all bytes are kept and compared.
            expected: so many will be there once it is loaded.
        """
        self._signs = expected > exact_max
        self._exact_max = exact_max
        self._groups: dict[tuple[int, int], _Group] = {}
        self.last = 0
        self.removed = 0

    @property
    def count(self) -> int:
        return sum([group.count for group in self._groups.values()])

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        return sum([group.bytes for group in self._groups.values()])

    @property
    def projections(self) -> set[int]:
        return {projection for projection, _ in self._groups}

    def append(self, rows: Sequence[Row], *, last: int) -> None:
        """Add the next vectors, the newest of which has the number *last*."""
        parts: dict[tuple[int, int], list[Row]] = {}
        for row in rows:
            parts.setdefault((row.projection, len(row.data)), []).append(row)
        for place, part in parts.items():
            group = self._groups.get(place)
            if group is None:
                group = self._groups[place] = _Group(place[1], signs=self._signs)
            group.append(part)
        self.last = last
        if not self._signs and self.count > self._exact_max:
            self._signs = True
            for group in self._groups.values():
                group.reduce_to_signs()

    def nearest(self, queries: Mapping[int, Floats], *, count: int) -> list[int]:
        """
        The keys of the vectors nearest to a question, best first.

        Args:
            queries: the question by projection, each of unit length.
            count: at least so many, if there are; four times as many where only signs are kept,
                since these err.

        Reads all of it: `bench/vectors.py` has a whole recall among a million.
        """
        found: list[tuple[float, int]] = []
        for (projection, dims), group in self._groups.items():
            query = queries.get(projection)
            if query is not None and len(query) == dims:
                found += group.nearest(query, count)
        found.sort(reverse=True)
        return list(dict.fromkeys([key for _, key in found]))


def _signs(rows: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Which numbers of each row are above zero, shape (words of 64 bits, rows)."""
    bits = np.packbits(rows > 0, axis=1)  # type: ignore[operator]
    short = -bits.shape[1] % (_WORD_BITS // 8)
    if short:
        bits = np.pad(bits, ((0, 0), (0, short)))
    return np.ascontiguousarray(bits).view(np.uint64).T


def _largest(scores: Floats, count: int) -> NDArray[np.intp]:
    if count >= len(scores):
        return np.arange(len(scores))
    return np.argpartition(scores, -count)[-count:]


def _smallest(numbers: NDArray[np.uint16], count: int, *, most: int) -> NDArray[np.intp]:
    """Where the *count* smallest are; of equals the last, which are the newest. No copy is made."""
    if count >= len(numbers):
        return np.arange(len(numbers))
    counted = np.zeros(most + 1, np.int64)
    for start in range(0, len(numbers), _BLOCK):
        counted += np.bincount(numbers[start : start + _BLOCK], minlength=most + 1)
    limit = int(np.searchsorted(np.cumsum(counted), count))
    below = np.flatnonzero(numbers < limit)
    equal = np.flatnonzero(numbers == limit)
    return np.concatenate([below, equal[len(equal) - (count - len(below)) :]])
