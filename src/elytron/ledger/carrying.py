"""
Carrying: how rows leave one ledger, verified, and come into another, as they are.

Part of `writes.py`, under whose transaction the ops run. What is to be carried is decided in
`upkeep/transferring.py`.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from elytron.errors import Conflict, Corrupt, Unavailable
from elytron.ledger import feeds, rows, vectors
from elytron.ledger.carried import (
    CARRIED,
    GOING,
    HALF,
    META,
    PUT_MAX,
    RENAMING,
    TABLES,
    WHOLE,
    BeginCarrying,
    CarriedOp,
    DropRows,
    EndCarrying,
    PutRows,
    Row,
)
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.ops import IndexWords, MergeWords

WHILE_HALF = (*CARRIED, IndexWords, MergeWords)  # the ops that a half-done ledger takes
_KEYS = "(SELECT value FROM carray(?))"
MARK = "carried"  # its name in `meta`
_PART_BYTES = 4 << 20  # of rows in memory at once, if there is more than one
_SUM_BYTES = 16
# A ledger that has none of these holds nothing: that something was there does not count.
_CONTENT = (
    "sessions", "users", "messages", "memories", "concepts", "relations", "marks", "moving",
    "vectors",
)  # fmt: skip
# Of how many values, from the first on, the checksum behind them is made.
_CHECKSUMMED = {
    "messages": 13, "memories": 11, "concepts": 8, "relations": 8, "users": 4, "sessions": 3,
    "marks": 3,
}  # fmt: skip
_TYPES = {"i": int, "f": float, "s": str, "b": bytes}
_NAMES_OF_META = ", ".join([f"'{name}'" for name in META])


# -- what a ledger says of its being carried


@dataclass(frozen=True, slots=True)
class Mark:
    """
    That a ledger's rows come from another.

    Attributes:
        origin: what tells that one from others.
        run: who may write them.
        state: `half` until all have come, then `whole`; or `going` while all of them are deleted,
            or `renaming` while those of *origin* become those of *run*.
        number, marks: what `now` said when they last had.
    """

    origin: str
    run: str
    state: str
    number: int = 0
    marks: int = 0


def mark(db: Database, source: object) -> Mark | None:
    """
    None if its rows are its own.

    Raises:
        Corrupt: it is not what was written.
    """
    return parsed(db.execute("SELECT value FROM meta WHERE name = ?", (MARK,)).get, source)


def parsed(said: str | None, source: object) -> Mark | None:
    """The same of what `meta` says."""
    if said is None:
        return None
    try:
        return Mark(**json.loads(said))
    except (ValueError, TypeError) as error:
        raise Corrupt(
            f"{source}: what it says of where its rows come from is damaged; it was left as it is"
        ) from error


def is_half(db: Database, source: object) -> bool:
    """Whether only some of its rows may have come."""
    return is_half_said(db.execute("SELECT value FROM meta WHERE name = ?", (MARK,)).get, source)


def is_half_said(said: str | None, source: object) -> bool:
    """The same of what `meta` says."""
    found = parsed(said, source)
    return found is not None and found.state != WHOLE


def is_going(said: str | None, source: object) -> bool:
    """Whether all that is there is about to be deleted."""
    found = parsed(said, source)
    return found is not None and found.state == GOING


def is_leaving(said: str | None, source: object) -> bool:
    """The same, or it is about to be another agent's."""
    found = parsed(said, source)
    return found is not None and found.state in (GOING, RENAMING)


def half_done(source: object) -> Unavailable:
    """What is said to whoever would use a ledger of which only some rows have come."""
    return Unavailable(
        f"{source} is being brought over from another store, and not whole yet; nothing was"
        " written: run `elytron migrate store` again, to its end"
    )


# -- reading


def page_end(db: Database, table: str, *, after: int) -> int | None:
    """Up to where the next rows may be in memory together; None if there are no more."""
    spec = TABLES[table]
    weight = " + ".join([f"ifnull(octet_length({name}), 0)" for name in spec.large]) or "0"
    first = spec.columns[0]
    sql = f"SELECT {first}, {weight} FROM {table} WHERE {first} > ? ORDER BY {first} LIMIT ?"
    end, size_bytes = None, 0
    for key, row_bytes in rows.fetch(db, sql, (after, PUT_MAX)):
        size_bytes += row_bytes
        if end is not None and key != end and size_bytes > _PART_BYTES:
            break
        end = key
    return end


def between(db: Database, table: str, *, after: int, upto: int) -> list[Row]:
    """All rows from one key to another, in the order of their keys."""
    spec = TABLES[table]
    first, order = spec.columns[0], ", ".join(spec.columns[: spec.key])
    sql = f"SELECT {spec.listed} FROM {table} WHERE {first} > ? AND {first} <= ? ORDER BY {order}"
    return rows.fetch(db, sql, (after, upto))


def now(db: Database) -> tuple[int, int]:
    """
    The last number of the sequence, and a checksum of what was said of messages' worth: what a
    person may have written since changes one of them.
    """
    said = rows.fetch(db, "SELECT key, checksum FROM marks ORDER BY key")
    return feeds.latest(db), zlib.crc32(ascii(said).encode())


def small(db: Database, table: str) -> list[Row]:
    """All rows of a table that is not read in parts."""
    where = f" WHERE name IN ({_NAMES_OF_META})" if table == "meta" else ""
    return rows.fetch(db, f"SELECT {TABLES[table].listed} FROM {table}{where}")


def counted(db: Database, table: str) -> int:
    """How many rows there are. SQLite counts in an index, where there is one."""
    where = f" WHERE name IN ({_NAMES_OF_META})" if table == "meta" else ""
    return int(db.execute(f"SELECT count(*) FROM {table}{where}").get)


def total_of(row: Row) -> int:
    """A number of 128 bits by which a row is known, whichever database and Python it is in."""
    return int.from_bytes(hashlib.blake2b(ascii(row).encode(), digest_size=_SUM_BYTES).digest())


def verify(table: str, row: Row, source: object) -> None:
    """
    Raises:
        Corrupt: the row is not what was written.
    """
    at = _CHECKSUMMED.get(table)
    whole = _fits(TABLES[table].kinds, row)
    if whole and at is not None:
        whole = rows.checksum(row[:at]) == row[at]
    elif whole and table in ("vectors", "projections"):
        numbers = row[1:-1] if table == "vectors" else row[:-1]
        whole = vectors.checksum(numbers) == row[-1]
    if not whole:
        named = row[0] if isinstance(row[0], int) else "?"
        raise Corrupt(
            f"{source}: row {named} of {table} is damaged; it was left as it is, and so was what"
            " was carried of this agent before: run `elytron check --repair`, then carry it again"
        )


def _fits(kinds: str, row: Row) -> bool:
    return all(
        type(value) is _TYPES[kind.lower()] or (value is None and kind.isupper())
        for kind, value in zip(kinds, row, strict=True)
    )


# -- writing


class Transaction(Protocol):
    """What is needed of the writes that this is a part of."""

    source: object
    messages: int
    half_done: bool

    def drop_words(self, keys: Sequence[int]) -> object: ...
    def replace_words(self, entries: Sequence[tuple[int, bytes]]) -> None: ...
    def whole(self, value: object) -> int: ...


class Carrying:
    """The carrying statements of one connection."""

    def __init__(self, writes: Transaction, db: Database) -> None:
        self._writes = writes
        self._db = db

    def apply(self, op: CarriedOp) -> Any:
        """Apply one op and return its result."""
        match op:
            case BeginCarrying():
                return self._begin(op)
            case PutRows():
                return self._put(op)
            case DropRows():
                self._drop(op)
            case EndCarrying(run):
                self._end(run)
        return None

    def _begin(self, op: BeginCarrying) -> bool:
        held = mark(self._db, self._writes.source)
        again = held is not None and held.origin == op.origin
        half = held is not None and held.state == HALF
        if not (half and (again or op.anew)) and any(map(self._has, _CONTENT)):
            self._check_unchanged(held, op)
        number = held.number if held is not None and again else 0
        self._say(Mark(op.origin, op.run, HALF, number))
        self._writes.half_done = True
        return again

    def _has(self, table: str) -> bool:
        return bool(self._db.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").get)

    def _check_unchanged(self, held: Mark | None, op: BeginCarrying) -> None:
        """
        Raises:
            Conflict: what is here is not what came from there, and was not touched since.
        """
        if held is not None and held.state == HALF:
            why = "what another migration left half done: end that one, or add `--anew`"
        elif held is None or held.origin != op.origin:
            why = (
                "other content: carry it to another place, or empty it there first"
                " (`elytron clear`)"
            )
        elif (held.number, held.marks) != now(self._db):
            why = (
                "what was carried and has been written to since: carry it to another place, or"
                " empty it there first (`elytron clear`), if what is new there is of no use"
            )
        else:
            return
        raise Conflict(f"{self._writes.source} holds {why}; nothing was changed")

    def _say(self, said: Mark) -> None:
        text = json.dumps(asdict(said))
        self._db.execute("REPLACE INTO meta VALUES(?, ?)", (MARK, text))

    def _ours(self, run: str) -> Mark:
        held = mark(self._db, self._writes.source)
        if held is None or held.run != run or held.state != HALF:
            raise Conflict(
                f"{self._writes.source}: another migration has taken over; what came before stays"
            )
        return held

    def _put(self, op: PutRows) -> int:
        self._ours(op.run)
        places = ", ".join("?" * len(TABLES[op.table].columns))
        # What `meta` says has to be there at every moment.
        verb = "REPLACE" if op.table == "meta" else "INSERT OR IGNORE"
        sql = f"{verb} INTO {op.table} VALUES({places})"
        if op.table != "messages":
            self._db.executemany(sql, op.rows)
            return len(op.rows)
        keys = [row[0] for row in op.rows]
        held, behind = self._held(keys), self._indexed(keys)
        self._db.executemany(sql, op.rows)
        came = self._held(keys) - held
        self._writes.messages += came
        self._writes.replace_words(self._terms(behind))
        return came

    def _drop(self, op: DropRows) -> None:
        self._ours(op.run)
        spec = TABLES[op.table]
        if spec.key > 1 or not spec.paged:
            where = " AND ".join([f"{name} = ?" for name in spec.columns[: spec.key]])
            self._db.executemany(f"DELETE FROM {op.table} WHERE {where}", op.keys)
            return
        keys = [key for (key,) in op.keys]
        if op.table == "messages":
            self._writes.messages -= self._held(keys)
            self._writes.drop_words(keys)
        sql = f"DELETE FROM {op.table} WHERE {spec.columns[0]} IN {_KEYS}"
        self._db.execute(sql, (Integers(keys),))

    def _held(self, keys: Sequence[int]) -> int:
        """How many of these are messages that are here."""
        sql = f"SELECT count(*) FROM messages WHERE key IN {_KEYS}"
        return self._writes.whole(self._db.execute(sql, (Integers(keys),)).get)

    def _indexed(self, keys: Sequence[int]) -> list[int]:
        """Those whose turn to come into the index of words is over, so that they come at once."""
        indexed = self._writes.whole(self._db.execute("SELECT key FROM indexed").get)
        return [key for key in keys if key <= indexed]

    def _terms(self, keys: Sequence[int]) -> list[tuple[int, bytes]]:
        """The terms of those messages that are here."""
        if not keys:
            return []
        sql = f"SELECT key, terms FROM messages WHERE key IN {_KEYS}"
        return rows.fetch(self._db, sql, (Integers(keys),))

    def _end(self, run: str) -> None:
        held = self._ours(run)
        number, marks = now(self._db)
        self._say(replace(held, state=WHOLE, number=number, marks=marks))
        self._writes.half_done = False
