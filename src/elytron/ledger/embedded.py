"""
Embedded: the ops on vectors. `ops.py` lists them with all others; what each does is in
`vectors.py`.

All of them fit into one commit if `size_bytes` is at most the WAL's limit; a step that says "more"
is to be asked for again.
"""

from dataclasses import dataclass
from typing import NamedTuple

_PAGE_BYTES = 4096 + 24
_PAGES_MIN = 12
# A row of `vectors` beside its data; and the entries of its indexes.
ROW_BYTES = 72
# What adding one may write: its row, and a page of the digests' index, which come in any order.
ADDED_PAGES = 1
# What removing one may write, of many that lie together: entries of its indexes, those of an heir
# or of who shared it, and pages that its data fills.
REMOVED_PAGES = 6


def removed_bytes(dim: int) -> int:
    """What a message's vector adds to what its removal may write."""
    return 2 * _PAGE_BYTES + 2 * dim


class Made(NamedTuple):
    """
    The vector of a text, or with `data` None the share that the text has in an equal one's.

    `checksum` is that of the text's row as it was read: of one that changed since, nothing is
    written.
    """

    key: int
    kind: int
    checksum: int
    digest: int
    scale: float = 0.0
    data: bytes | None = None


class LeftOut(NamedTuple):
    """A text that was to have a vector and gets none, with its reason's number."""

    key: int
    kind: int
    checksum: int
    reason: int


class Added(NamedTuple):
    """
    What an `AddVectors` did. Not applied: the reader has been moved meanwhile, another projection
    holds, the room was taken, or a vector that was to be shared is gone. `held` are those who had
    theirs already, `no_room` those whom `max_vector_mb` left out before.
    """

    applied: bool
    added: int = 0
    shared: int = 0
    held: int = 0
    no_room: int = 0


@dataclass(frozen=True, slots=True)
class AddVectors:
    """
    Add vectors that *embedder* made, *dim* numbers each, reduced by a *projection* (0 for none).
    Result: `Added`.

    Args:
        before, after: where the reader of changes has to stand, and how far it comes with these;
            None if they were not found by it.
        left_out: texts that get none.
        limit_bytes: what all vectors may take; not applied if they would take more.

    Raises `Conflict` where the vectors held are another embedder's.
    """

    reader: str
    embedder: str
    dim: int
    projection: int
    before: int | None = None
    after: int | None = None
    made: tuple[Made, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    limit_bytes: int | None = None
    items: int = 1

    @property
    def size_bytes(self) -> int:
        pages = _PAGES_MIN + ADDED_PAGES * (len(self.made) + len(self.left_out))
        data = sum([len(one.data or b"") for one in self.made])
        return pages * _PAGE_BYTES + 2 * data + ROW_BYTES * len(self.made)


@dataclass(frozen=True, slots=True)
class EvictVectors:
    """
    Remove vectors for want of room, by the keys of their owners, from those who share them too,
    and note it of each. Result: whether there are more who share them, so that it is to be
    asked for again.
    """

    keys: tuple[int, ...]
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return (_PAGES_MIN + REMOVED_PAGES * len(self.keys)) * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class SetProjection:
    """
    Reduce vectors by this from now on, if *embedder* still made those held and no projection is as
    new. Result: whether that was so.
    """

    embedder: str
    version: int
    input: int
    dims: int
    fitted_on: int
    data: bytes
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return _PAGES_MIN * _PAGE_BYTES + len(self.data) * 5 // 4


class Reduced(NamedTuple):
    """A vector, by its number, as the present projection has it."""

    number: int
    scale: float
    data: bytes


@dataclass(frozen=True, slots=True)
class ReduceVectors:
    """Put reduced vectors in the place of whole ones, under new numbers. Result: how many."""

    version: int
    reduced: tuple[Reduced, ...]
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return (_PAGES_MIN + 4 * len(self.reduced)) * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class DropVectors:
    """
    Remove vectors, at most *at_once*, with what is noted of others' shares and reasons; with the
    last of them their embedder and its projections. Result: (how many, whether there are more).
    """

    at_once: int
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return (_PAGES_MIN + 4 * self.at_once) * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class MendVectors:
    """
    Remove what is wrong: vectors by their numbers, shares and reasons by their keys. With nothing
    to remove: count anew what there is. Result: None.
    """

    numbers: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()
    reasons: tuple[int, ...] = ()
    items: int = 1

    @property
    def size_bytes(self) -> int:
        count = len(self.numbers) + len(self.shared) + len(self.reasons)
        return (_PAGES_MIN + REMOVED_PAGES * count) * _PAGE_BYTES


EMBEDDED = (AddVectors, EvictVectors, SetProjection, ReduceVectors, DropVectors, MendVectors)
EmbeddedOp = AddVectors | EvictVectors | SetProjection | ReduceVectors | DropVectors | MendVectors
