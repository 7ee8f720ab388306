"""
Carried: the ops by which an agent's rows come from another store. `ops.py` lists them with all
others; what each does is in `carrying.py`.

While an agent is carried its ledger says so, and takes no other op: what a program saved there
would be gone with the next row that is compared.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

PAGE_BYTES = 4096
PUT_MAX = 500  # rows in one op
# What a row may write besides twice its bytes; and for each index, whose entries come in any order.
ROW_BYTES = 64
# As the ledger's own record of it has them.
HALF, WHOLE, GOING, RENAMING = "half", "whole", "going", "renaming"


class Table(NamedTuple):
    """
    One table whose rows are carried as they are.

    Attributes:
        columns: all of them, in their order.
        kinds: a letter for each: whole number, float, string or bytes; a capital where it may be
            NULL.
        key: of the primary key, how many columns; the first ones.
        paged: whether it is read in parts, by its first column, which is a whole number then. The
            others are small.
        large: the columns that decide how much a row weighs.
        indexes: how many it has beside its own.
    """

    columns: tuple[str, ...]
    kinds: str
    key: int = 1
    paged: bool = True
    large: tuple[str, ...] = ()
    indexes: int = 0

    @property
    def listed(self) -> str:
        """Its columns in SQL."""
        return ", ".join(self.columns)


def _table(columns: str, kinds: str, *, large: str = "", **rest: Any) -> Table:
    return Table(tuple(columns.split()), kinds, large=tuple(large.split()), **rest)


# In this order what others name comes first. Not carried are what is made anew, the index of words,
# and what only the store itself can say: how large the ledger and the graph may be.
TABLES = {
    "meta": _table("name value", "ss", paged=False),
    "sessions": _table("key id created_us checksum", "isii", indexes=1),
    "users": _table("key id folded created_us checksum", "issii", indexes=2),
    "messages": _table(
        "key id session position user responds_to role at_us offset_min arrived_us embedding"
        " metadata content checksum terms",
        "isiiIIsiiisSsib",
        large="content metadata terms",
        indexes=2,
    ),
    "memories": _table(
        "key id content kind importance pinned session valid_from_us valid_to_us created_us"
        " metadata checksum last_used_us uses terms",
        "isssfiIIIiSiIib",
        large="content metadata terms",
        indexes=3,
    ),
    "concepts": _table(
        "key name folded type description confidence origin created_us checksum",
        "issSSfiii",
        large="description",
        indexes=1,
    ),
    "relations": _table(
        "key source relation target strength valid_from_us valid_to_us learned_from checksum",
        "iisifIIIi",
        indexes=3,
    ),
    "mentions": _table("source concept confidence told", "iifi", key=2, indexes=1),
    "marks": _table("key importance pinned checksum", "iFii"),
    "uses": _table("key uses last_us", "iii"),
    "tails": _table("session position", "ii"),
    "moving": _table("segment run", "ss", paged=False),
    "gone": _table("kind id key", "isi", key=2, paged=False),
    "heard": _table("folded name times key", "ssii", paged=False),
    "unlinked": _table("concept key", "ii"),
    "described": _table("concept source parts", "iii", indexes=1),
    "readers": _table("name seq", "si", paged=False),
    "embedder": _table("one name dim projection last removed bytes", "isiiiii"),
    "projections": _table(
        "version input dims fitted_on last data checksum", "iiiiibi", large="data"
    ),
    "vectors": _table(
        "number key digest projection scale data checksum", "iiiifbi", large="data", indexes=2
    ),
    "shared": _table("key digest", "ii", indexes=1),
    "unembedded": _table("key reason", "ii"),
    "changes": _table("seq ordinal op kind key", "iiiii"),
}
# What is carried of `meta`: the rest is the store's, or the ledger's own.
META = ("created_us", "languages", "repaired_us", "vectors_past")

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class BeginCarrying:
    """
    From now on this ledger takes the rows of *origin*, from this *run* only. Result: whether some
    had come from there before.

    Raises `Conflict` if it holds something else: what did not come from there, or what was changed
    here since it did. With *anew* what another carrying left half done does not count.
    """

    origin: str
    run: str
    anew: bool = False
    size_bytes: int = 8 * PAGE_BYTES
    items: int = 1


@dataclass(frozen=True, slots=True)
class PutRows:
    """
    Add rows to a table. One in whose place another stands is passed over. Result: how many came.

    Raises `Conflict` if another run has taken over.
    """

    run: str
    table: str
    rows: tuple[Row, ...]
    size_bytes: int
    items: int = 1


@dataclass(frozen=True, slots=True)
class DropRows:
    """Remove rows of a table by their primary keys. Result: None. Raises as `PutRows`."""

    run: str
    table: str
    keys: tuple[Row, ...]
    size_bytes: int
    items: int = 1


@dataclass(frozen=True, slots=True)
class EndCarrying:
    """All rows have come; the ledger takes other ops again. Result: None. Raises as `PutRows`."""

    run: str
    size_bytes: int = 8 * PAGE_BYTES
    items: int = 1


CARRIED = (BeginCarrying, PutRows, DropRows, EndCarrying)
CarriedOp = BeginCarrying | PutRows | DropRows | EndCarrying


def put_bytes(table: Table, row: Row) -> int:
    """What adding, or removing, a row may write."""
    size = sum([len(value.encode()) for value in row if isinstance(value, str)])
    size += sum([len(value) for value in row if isinstance(value, bytes)])
    return ROW_BYTES + 8 * len(row) + 2 * size + PAGE_BYTES * table.indexes
