"""Trailers: the ends of segments, kept in memory within a bound, to look ids up in."""

import threading
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path

from elytron.archive.segments import Trailer, read_trailer
from elytron.errors import Corrupt

# Hashes of a quarter of a million messages; beyond, trailers are read again, some 20 KB each.
CACHE_MAX_BYTES = 1 << 20
_OVERHEAD_BYTES = 500  # of one trailer besides its hashes


class Trailers:
    """A cache of trailers, the longest unused leave first. Safe for many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mutex = threading.Lock()
        self._held: OrderedDict[str, Trailer] = OrderedDict()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        return self._bytes

    def may_hold(self, name: str, hashed_ids: Collection[int]) -> list[int]:
        """Those of the ids that may be in a segment: all of them, if its trailer is damaged."""
        try:
            trailer = self._trailer(name)
        except Corrupt:
            return list(hashed_ids)  # whoever reads the segment is told what is wrong with it
        return [hashed_id for hashed_id in hashed_ids if trailer.may_hold(hashed_id)]

    def hashes(self, name: str) -> "array[int]":
        """The hashes of the ids in a segment, rising; none, if its trailer is damaged."""
        try:
            return self._trailer(name).hashes
        except Corrupt:
            return array("I")  # as above

    def together(self, names: Sequence[str], messages: int) -> "array[int] | None":
        """
        The hashes of all ids in these segments, rising, by which one look tells that an id is in
        none; None where that is not known, or so many *messages* would take too much memory.
        """
        if messages * array("I").itemsize > CACHE_MAX_BYTES // 4:
            return None
        found = array("I")
        for name in names:
            try:
                found.extend(self._trailer(name).hashes)
            except Corrupt:
                return None  # it may hold any
        return array("I", sorted(found))

    def keep_only(self, names: Collection[str]) -> None:
        """Drop the trailers of segments that are gone."""
        with self._mutex:
            for name in [name for name in self._held if name not in names]:
                self._drop(name)

    def _trailer(self, name: str) -> Trailer:
        with self._mutex:
            held = self._held.get(name)
            if held is not None:
                self._held.move_to_end(name)
                return held
        trailer = read_trailer(self._folder, name)
        with self._mutex:
            if name not in self._held:
                self._held[name] = trailer
                self._bytes += _size_bytes(trailer)
            while self._bytes > CACHE_MAX_BYTES:
                self._drop(next(iter(self._held)))
        return trailer

    def _drop(self, name: str) -> None:
        self._bytes -= _size_bytes(self._held.pop(name))


def is_among(hashes: "array[int]", hashed_id: int) -> bool:
    """Whether a hash is among rising ones."""
    place = bisect_left(hashes, hashed_id)
    return place < len(hashes) and hashes[place] == hashed_id


def _size_bytes(trailer: Trailer) -> int:
    return trailer.hashes.itemsize * len(trailer.hashes) + _OVERHEAD_BYTES
