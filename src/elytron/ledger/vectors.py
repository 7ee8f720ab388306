"""
Vectors: what the embedder made of texts, written in a transaction of the ledger.

A vector belongs to one message or memory; those with an equal text share it, and when its owner
goes, one of them inherits it. Nothing is written for a text that is gone or changed since it was
read. Reading is in `vector_reads.py`.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from elytron.errors import Conflict, Corrupt
from elytron.ledger import rows
from elytron.ledger.database import Database
from elytron.ledger.embedded import (
    ROW_BYTES,
    Added,
    AddVectors,
    DropVectors,
    EmbeddedOp,
    EvictVectors,
    Made,
    MendVectors,
    ReduceVectors,
    SetProjection,
)
from elytron.ledger.integers import Integers
from elytron.ledger.schema import MESSAGE, NO_VECTOR_ROOM

_KEYS = "(SELECT value FROM carray(?))"
_STATE = "SELECT name, dim, projection, last, removed, bytes FROM embedder"
_ADD = "INSERT INTO vectors VALUES(?, ?, ?, ?, ?, ?, ?)"
_ROWS = "SELECT number, key, digest, projection, scale, data, checksum FROM vectors"
_SIZE = "ifnull(octet_length(data), 0)"
_ANY = "SELECT EXISTS (SELECT 1 FROM embedder) OR EXISTS (SELECT 1 FROM unembedded)"
_PAST = "SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'vectors_past'"


class State(NamedTuple):
    """Whose vectors a ledger has, and what they come to; see `embedder` in the schema."""

    name: str
    dim: int
    projection: int
    last: int
    removed: int
    bytes: int


def state(db: Database) -> State | None:
    """
    None if there are no vectors, and never were any of this embedder.

    Raises:
        Corrupt: it is not what was written.
    """
    found = db.execute(_STATE).get
    if found is None:
        return None
    held = State(*found)
    if type(held.name) is not str or any(type(number) is not int for number in held[1:]):
        raise Corrupt("what is noted of its vectors is damaged; run `elytron check --repair`")
    return held


def any_noted(db: Database) -> bool:
    """Whether there are vectors, or reasons why there are none."""
    return bool(db.execute(_ANY).get)


def checksum(row: Sequence[Any]) -> int:
    """CRC-32 of (key, digest, projection, scale, data); none if the data cannot be such."""
    *numbers, data = row
    if type(data) is not bytes:
        return -1
    return zlib.crc32(data, rows.checksum(tuple(numbers)))


def projection_checksum(row: Sequence[Any]) -> int:
    """CRC-32 of (version, input, dims, fitted_on, last, data)."""
    return checksum(row)


class Vectors:
    """The statements on vectors, of one connection. *source* names the ledger in errors."""

    def __init__(self, db: Database, *, source: object) -> None:
        self._db = db
        self._source = source

    def apply(self, op: EmbeddedOp) -> Any:
        """Apply one op and return its result."""
        match op:
            case AddVectors():
                return self._add(op)
            case EvictVectors():
                return self._evict(op.keys)
            case SetProjection():
                return self._set_projection(op)
            case ReduceVectors():
                return self._reduce(op)
            case DropVectors():
                return self._drop_some(op.at_once)
            case MendVectors():
                self._mend(op)
                return None

    def _add(self, op: AddVectors) -> Added:
        if op.before is not None:
            seq = self._db.execute("SELECT seq FROM readers WHERE name = ?", (op.reader,)).get
            if (seq or 0) != op.before:
                return Added(applied=False)
        held = self._held_by(op)
        if (0 if held is None else held.projection) != op.projection:
            return Added(applied=False)
        new_bytes = sum([ROW_BYTES + len(one.data) for one in op.made if one.data is not None])
        held_bytes = 0 if held is None else held.bytes
        if op.limit_bytes is not None and new_bytes and held_bytes + new_bytes > op.limit_bytes:
            return Added(applied=False)
        whole = self._whole([*op.made, *op.left_out])
        whole_made = [one for one in op.made if one.key in whole]
        has = self._has([one.key for one in whole_made])
        new = [one for one in whole_made if has.get(one.key) != one.digest]
        drop(self._db, [one.key for one in new])
        if not self._insert(new, op):
            return Added(applied=False)  # the vector that one was to share has gone meanwhile
        self._leave_out([(one.key, one.reason) for one in op.left_out if one.key in whole])
        if op.after is not None:
            self._db.execute("REPLACE INTO readers VALUES(?, ?)", (op.reader, op.after))
        owners = set(self._owners([one.key for one in new]))
        return Added(True, len(owners), len(new) - len(owners), len(whole_made) - len(new))

    def _has(self, keys: Sequence[int]) -> dict[int, int]:
        """Of these, by key, the digest of the text whose vector each has or shares."""
        sql = f"SELECT key, digest FROM vectors WHERE key IN {_KEYS} UNION ALL"
        sql += f" SELECT key, digest FROM shared WHERE key IN {_KEYS}"
        return dict(rows.fetch(self._db, sql, (Integers(keys), Integers(keys))))

    def _owners(self, keys: Sequence[int]) -> list[int]:
        sql = f"SELECT key FROM vectors WHERE key IN {_KEYS}"
        return [key for (key,) in rows.fetch(self._db, sql, (Integers(keys),))]

    def _held_by(self, op: AddVectors) -> State | None:
        """What is held, checked to be the same embedder's."""
        held = state(self._db)
        if held is not None and op.made and (held.name, held.dim) != (op.embedder, op.dim):
            raise Conflict(
                f"{self._source}: its vectors are of {held.name} with {held.dim} dimensions, not of"
                f" {op.embedder} with {op.dim}; run `elytron reembed`"
            )
        return held

    def _whole(self, wanted: Iterable[Any]) -> set[int]:
        """The keys of those texts that are still what was embedded."""
        wanted = list(wanted)
        held = set[tuple[int, int]]()
        for table, is_message in (("messages", True), ("memories", False)):
            keys = [one.key for one in wanted if (one.kind == MESSAGE) == is_message]
            if keys:
                sql = f"SELECT key, checksum FROM {table} WHERE key IN {_KEYS}"
                held.update(rows.fetch(self._db, sql, (Integers(keys),)))
        return {one.key for one in wanted if (one.key, one.checksum) in held}

    def _insert(self, new: Sequence[Made], op: AddVectors) -> bool:
        """
        Write the vector of each text that has none; the others share it. Whoever made it may be
        gone: then the first of the others has it. False, and nothing written, if one is missing.
        """
        made = {one.digest: (one.scale, one.data) for one in op.made if one.data is not None}
        held = set(digests(self._db, {one.digest for one in new}))
        if any(one.digest not in held and one.digest not in made for one in new):
            return False
        own, sharing = [], []
        for one in new:
            if one.digest in held:
                sharing.append((one.key, one.digest))
            else:
                held.add(one.digest)
                own.append((one.key, one.digest, op.projection, *made[one.digest]))
        if own and state(self._db) is None:
            past = self._db.execute(_PAST).get or 0
            self._db.execute(
                "INSERT INTO embedder VALUES(1, ?, ?, ?, ?, ?, 0)",
                (op.embedder, op.dim, op.projection, past, past),
            )
        self._write(own)
        self._db.executemany("REPLACE INTO shared VALUES(?, ?)", sharing)
        return True

    def _write(self, vectors: Sequence[tuple[Any, ...]]) -> None:
        """Write rows of (key, digest, projection, scale, data) under the next numbers."""
        if not vectors:
            return
        held = state(self._db)
        assert held is not None, "there is an embedder where there are vectors"
        self._db.executemany(
            _ADD,
            [(held.last + nth, *row, checksum(row)) for nth, row in enumerate(vectors, 1)],
        )
        added_bytes = sum([len(row[-1]) + ROW_BYTES for row in vectors])
        self._db.execute(
            "UPDATE embedder SET last = last + ?, bytes = bytes + ?", (len(vectors), added_bytes)
        )

    def _leave_out(self, reasons: Sequence[tuple[int, int]]) -> None:
        has = self._has([key for key, _ in reasons])
        self._db.executemany(
            "REPLACE INTO unembedded VALUES(?, ?)",
            [(key, reason) for key, reason in reasons if key not in has],
        )

    def _evict(self, wanted: Sequence[int]) -> bool:
        """
        Remove vectors for good, from those who share them too; whether more of these are left, who
        go first.
        """
        owners = self._owners(wanted)  # of those that went meanwhile there is nothing to note
        sharing = f"digest IN (SELECT digest FROM vectors WHERE key IN {_KEYS})"
        others = rows.fetch(
            self._db,
            f"SELECT key FROM shared WHERE {sharing} LIMIT ?",
            (Integers(owners), len(wanted)),
        )
        more = len(others) == len(wanted)
        gone = [*([] if more else owners), *[key for (key,) in others]]
        drop(self._db, gone, inherited=False)
        self._leave_out([(key, NO_VECTOR_ROOM) for key in gone])
        return more

    def _set_projection(self, op: SetProjection) -> bool:
        held = state(self._db)
        if held is None or (held.name, held.dim) != (op.embedder, op.input):
            return False
        if held.projection >= op.version:
            return False
        row = (op.version, op.input, op.dims, op.fitted_on, held.last, op.data)
        self._db.execute(
            "INSERT INTO projections VALUES(?, ?, ?, ?, ?, ?, ?)", (*row, projection_checksum(row))
        )
        self._db.execute("UPDATE embedder SET projection = ?", (op.version,))
        return True

    def _reduce(self, op: ReduceVectors) -> int:
        held = state(self._db)
        if held is None or held.projection != op.version:
            return 0
        reduced = {one.number: one for one in op.reduced}
        numbers = Integers(reduced)
        found = rows.fetch(
            self._db,
            f"SELECT number, key, digest, {_SIZE} FROM vectors"
            f" WHERE number IN {_KEYS} AND projection <> ?",
            (numbers, op.version),
        )
        self._db.execute(
            f"DELETE FROM vectors WHERE number IN {_KEYS} AND projection <> ?",
            (numbers, op.version),
        )
        _count_removed(self._db, [row[3] for row in found])
        self._write(
            [
                (key, digest, op.version, reduced[number].scale, reduced[number].data)
                for number, key, digest, _ in found
            ]
        )
        return len(found)

    def _drop_some(self, at_once: int) -> tuple[int, bool]:
        gone = 0
        for table in ("shared", "unembedded"):
            self._db.execute(
                f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} LIMIT ?)",
                (at_once - gone,),
            )
            gone += self._db.changes()
            if gone >= at_once:
                return gone, True
        found = rows.fetch(
            self._db, f"SELECT number, {_SIZE} FROM vectors LIMIT ?", (at_once - gone,)
        )
        numbers = Integers([number for number, _ in found])
        self._db.execute(f"DELETE FROM vectors WHERE number IN {_KEYS}", (numbers,))
        _count_removed(self._db, [size_bytes for _, size_bytes in found])
        gone += len(found)
        if gone >= at_once:
            return gone, True
        # The next embedder's numbers go on from here: what others have in memory stays older.
        self._db.execute(
            "REPLACE INTO meta SELECT 'vectors_past', CAST(last AS TEXT) FROM embedder"
        )
        self._db.execute("DELETE FROM projections")
        self._db.execute("DELETE FROM embedder")
        return gone, False

    def _mend(self, op: MendVectors) -> None:
        for table, column, keys in (
            ("vectors", "number", op.numbers),
            ("shared", "key", op.shared),
            ("unembedded", "key", op.reasons),
        ):
            if keys:
                sql = f"DELETE FROM {table} WHERE {column} IN {_KEYS}"
                self._db.execute(sql, (Integers(keys),))
        if op.numbers or op.shared or op.reasons:
            return
        count, newest, held_bytes = counted(self._db)
        self._db.execute(
            "UPDATE embedder SET bytes = ?1, last = max(last, ?2, removed),"
            " removed = max(last, ?2, removed) - ?3",
            (held_bytes, newest, count),
        )


def counted(db: Database) -> tuple[int, int, int]:
    """(how many vectors there are, the greatest number, their bytes), by their rows."""
    sql = f"SELECT count(*), ifnull(max(number), 0), ifnull(sum({_SIZE}), 0) FROM vectors"
    count, newest, data_bytes = db.execute(sql).get
    return count, newest, data_bytes + ROW_BYTES * count


def digests(db: Database, wanted: Iterable[int]) -> list[int]:
    """Those of *wanted* of which a vector is held."""
    values = list(wanted)
    if not values:
        return []
    sql = f"SELECT DISTINCT digest FROM vectors WHERE digest IN {_KEYS}"
    return [digest for (digest,) in rows.fetch(db, sql, (Integers(values),))]


def drop(db: Database, keys: Sequence[int], *, inherited: bool = True) -> None:
    """
    Remove what there is of vectors of these messages or memories, in the caller's transaction.

    Args:
        inherited: where others share one, the newest of them inherits it.
    """
    if not keys or not any_noted(db):
        return
    bound = Integers(keys)
    for table in ("unembedded", "shared"):
        db.execute(f"DELETE FROM {table} WHERE key IN {_KEYS}", (bound,))
    for row in rows.fetch(db, f"{_ROWS} WHERE key IN {_KEYS}", (bound,)) if inherited else ():
        _bequeath(db, row)
    found = rows.fetch(db, f"SELECT {_SIZE} FROM vectors WHERE key IN {_KEYS}", (bound,))
    if found:
        db.execute(f"DELETE FROM vectors WHERE key IN {_KEYS}", (bound,))
        _count_removed(db, [size_bytes for (size_bytes,) in found])


def _bequeath(db: Database, row: tuple[Any, ...]) -> None:
    """Give a vector to the newest of those who share it, if anybody does."""
    number, *values, written = row
    _, digest, projection, scale, data = values
    heir = db.execute("SELECT max(key) FROM shared WHERE digest = ?", (digest,)).get
    # A damaged one is not to be made to look whole; `check` finds who shares what is not there.
    if heir is None or type(data) is not bytes or checksum(values) != written:
        return
    db.execute("DELETE FROM shared WHERE key = ?", (heir,))
    held = state(db)
    if held is None or projection == held.projection:
        db.execute("DELETE FROM vectors WHERE number = ?", (number,))
        _count_removed(db, [len(data)])
        Vectors(db, source=None)._write([(heir, digest, projection, scale, data)])
    else:  # under its old number, by which those are known that are still to be reduced
        heirs = checksum((heir, digest, projection, scale, data))
        db.execute(
            "UPDATE vectors SET key = ?, checksum = ? WHERE number = ?", (heir, heirs, number)
        )


def _count_removed(db: Database, sizes: Sequence[int]) -> None:
    removed_bytes = sum(sizes) + ROW_BYTES * len(sizes)
    db.execute(
        "UPDATE embedder SET removed = removed + ?, bytes = max(0, bytes - ?)",
        (len(sizes), removed_bytes),
    )
