"""
Copies: messages that are in the archive twice, and which of them stays.

Two processes that archive the same message, of which one dies or finds its segment replaced, leave
two. One is taken out in the same step in which it is seen that the segment with the other still
counts. So of two who each take out a copy, one finds that there is no second any more.
"""

import heapq
import itertools
import logging
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from elytron.archive.archive import Archive
from elytron.archive.entries import Archived, Entry
from elytron.archive.segments import hash_id
from elytron.errors import Conflict, Corrupt

_ATTEMPTS_MAX = 5  # when others change the archive at the same time
_log = logging.getLogger("elytron.archive")


class Motion(NamedTuple):
    """Names of segments whose messages others move now, and of those that give way to others."""

    others: frozenset[str] = frozenset()
    yielding: frozenset[str] = frozenset()


class United(NamedTuple):
    """How many copies were taken out, and how many messages others move, so that theirs stayed."""

    removed: int
    left: int


class Twice(NamedTuple):
    """
    Messages that are in the archive more than once.

    Attributes:
        entries: the segments that count.
        places: of each such message, by its id, in which of them it is: their numbers, rising, as
            often as it is there.
    """

    entries: tuple[Entry, ...]
    places: Mapping[str, list[int]]


def twice(archive: Archive, ids: Collection[str] | None = None) -> Twice:
    """
    Those of these messages, or of all, that the archive has more than once.

    Memory: four bytes a message, of the segments' trailers. Read are only segments that seem to
    have one; damaged ones are passed over. Of a million messages a hundred share their hash with
    another by chance, so that to look for all of them is nearly to read all.

    Raises:
        Conflict: others changed the archive meanwhile.
    """
    entries = archive.manifest().entries if ids is None or ids else ()
    hashes = [archive.hashes(entry) for entry in entries]
    if ids is None:
        suspects = _repeated(hashes)
    else:
        suspects = _repeated_of({hash_id(one) for one in ids}, hashes)
    places = defaultdict[str, list[int]](list)
    for number, entry in enumerate(entries):
        if suspects.isdisjoint(hashes[number]):
            continue
        try:
            for archived in archive.read(entry):
                if hash_id(archived.message.id) in suspects:
                    places[archived.message.id].append(number)
        except Corrupt as error:  # `check` names it; or it was replaced
            _log.info("%s", error)
    if not archive.manifest().names.issuperset([entry.name for entry in entries]):
        raise Conflict(f"segments in {archive.folder} were replaced meanwhile; repeat it")
    wanted = places.keys() if ids is None else places.keys() & set(ids)
    return Twice(entries, {one: places[one] for one in wanted if len(places[one]) > 1})


def _repeated(hashes: Iterable["array[int]"]) -> set[int]:
    """What stands in more than one of these, or twice in one. Each of them rises."""
    pairs = itertools.pairwise(heapq.merge(*hashes))
    return {before for before, after in pairs if before == after}


def _repeated_of(wanted: set[int], hashes: Iterable["array[int]"]) -> set[int]:
    """The same, of a few."""
    seen, repeated = set[int](), set[int]()
    for some in hashes:
        for hashed in some if not wanted.isdisjoint(some) else ():
            if hashed in wanted:
                (repeated if hashed in seen else seen).add(hashed)
    return repeated


def unite(
    archive: Archive, ids: Collection[str] | None, *, motion: Callable[[], Motion] = Motion
) -> United:
    """
    Take all but one of each of these messages, or of all, out of the archive.

    That in a segment at rest stays before that in one which yields, and of several the last, which
    is the one that is shown. While others move a segment, what it has stays, there and elsewhere:
    they may be about to take it out.

    Args:
        motion: what moves. Asked once the listing is read, so that what is listed and does not
            move then had come to rest before.
    """
    removed = left = 0
    for _ in range(_ATTEMPTS_MAX):
        try:
            found = twice(archive, ids)
            moving = motion()
            others, yielding = _numbers(found, moving.others), _numbers(found, moving.yielding)
            decided = {
                one: places for one, places in found.places.items() if others.isdisjoint(places)
            }
            left = len(found.places) - len(decided)
            for number, leaves, needs in _plan(decided, yielding):
                needed = [found.entries[other].name for other in needs]
                removed += _take_copies(archive, found.entries[number], leaves, needed)
        except (Conflict, Corrupt) as error:  # replaced, or the disk failed just now
            _log.info("%s", error)
        else:
            return United(removed, left)
    return United(removed, max(1, left))


def _numbers(found: Twice, names: Collection[str]) -> set[int]:
    return {number for number, entry in enumerate(found.entries) if entry.name in names}


def _plan(
    places: Mapping[str, list[int]], yielding: Collection[int]
) -> Iterator[tuple[int, Counter[str], set[int]]]:
    """
    What to take out, segment by segment: of which id how many, and which others have to stay.

    In an order in which none needs one that was written anew before.
    """
    leaves = defaultdict[int, Counter[str]](Counter)
    needs = defaultdict[int, set[int]](set)
    for one, numbers in places.items():
        stays = ([number for number in numbers if number not in yielding] or numbers)[-1]
        for number, times in Counter(numbers).items():
            if number != stays:
                needs[number].add(stays)
            if spare := times - (number == stays):
                leaves[number][one] = spare
    for number in sorted(leaves, key=lambda number: (number not in yielding, number)):
        yield number, leaves[number], needs[number]


def _take_copies(
    archive: Archive, entry: Entry, leaves: Counter[str], needs: Collection[str]
) -> int:
    """Take the first of these messages out of a segment; returns how many went."""
    new = archive.replace([entry], _without(archive.read(entry), leaves), needs=needs)
    return entry.messages - sum([kept.messages for kept in new])


def _without(messages: Iterable[Archived], leaves: Counter[str]) -> Iterator[Archived]:
    spare = Counter(leaves)
    for archived in messages:
        if spare[archived.message.id] > 0:
            spare[archived.message.id] -= 1
        else:
            yield archived
