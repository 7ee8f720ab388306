"""
Surveys: what upkeep has to know of a ledger: all its messages in short, and some of them whole.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from elytron.errors import Corrupt
from elytron.ledger import bundles, rows
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.moves import version
from elytron.ledger.reads import messages_of
from elytron.ledger.schema import MESSAGE, SESSION
from elytron.records import DEFAULT_IMPORTANCE, Message

# What a message takes besides its text and terms: its row's numbers, its id twice, its place,
# and about three bytes of the word index for each three of its terms.
_ROW_BYTES = 200


class Worth(NamedTuple):
    """What there is to know of a message when something has to leave."""

    key: int
    session: str
    role: str
    at_us: int
    bytes: int
    importance: float
    pinned: bool
    used_us: int


class Stored(NamedTuple):
    """A message with its numbers in the ledger, for the archive; `version` as in `moves.py`."""

    key: int
    session_key: int
    responds_to: int | None
    arrived_us: int
    embedding: str
    version: int
    message: Message


def worths(db: Database) -> list[Worth]:
    """All messages in short. Not verified: a wrong number costs an order, never a message."""
    found = bundles.fetch(
        db,
        "SELECT m.key, s.id, m.role, max(m.at_us, m.arrived_us),"
        " octet_length(m.content) + ifnull(octet_length(m.metadata), 0)"
        " + 2 * length(m.terms) + ?, k.importance, k.pinned, u.last_us"
        " FROM messages m LEFT JOIN sessions s ON s.key = m.session"
        " LEFT JOIN marks k ON k.key = m.key LEFT JOIN uses u ON u.key = m.key",
        "i" * len(Worth._fields),
        (_ROW_BYTES,),
    )
    return [
        Worth(
            key,
            str(session),
            str(role),
            at_us if type(at_us) is int else 0,
            size if type(size) is int else _ROW_BYTES,
            DEFAULT_IMPORTANCE if importance is None else importance,
            bool(pinned),
            used_us if type(used_us) is int else 0,
        )
        for key, session, role, at_us, size, importance, pinned, used_us in found
    ]


def eldest(db: Database) -> tuple[int, int]:
    """(how many messages there are, when the first of them was said or came, by what is later)."""
    count, at_us = db.execute("SELECT count(*), min(max(at_us, arrived_us)) FROM messages").get
    return count, at_us if type(at_us) is int else 0


def stored(db: Database, keys: Iterable[int], source: object) -> tuple[list[Stored], list[int]]:
    """
    (messages, damaged): these messages in the order of their keys, and the keys of those whose
    rows are not what was written.
    """
    found = bundles.fetch(
        db,
        f"{rows.SELECT_MESSAGES} WHERE m.key IN (SELECT value FROM carray(?)) ORDER BY m.key",
        rows.MESSAGE_COLUMNS,
        (Integers(keys),),
    )
    try:
        return _stored(db, found, source), []
    except Corrupt:  # one by one, to see which
        whole, damaged = list[Stored](), list[int]()
    for row in found:
        try:
            whole += _stored(db, [row], source)
        except Corrupt:
            damaged.append(row[0])
    return whole, damaged


def _stored(db: Database, found: list[Any], source: object) -> list[Stored]:
    return [
        Stored(key, row[2], row[5], row[9], row[10], version(row[13], row[16]), message)
        for row, (key, message) in zip(found, messages_of(db, found, source), strict=True)
    ]


def holds(db: Database, *, id: str, key: int) -> bool:
    """Whether the ledger has a message with this id or this key."""
    return bool(db.execute("SELECT 1 FROM messages WHERE id = ? OR key = ?", (id, key)).get)


def is_gone(db: Database, *, id: str, session: str, key: int) -> bool:
    """Whether a message, or its session, was deleted while something was moving."""
    return bool(
        db.execute(
            "SELECT 1 FROM gone WHERE (kind, id) IN (VALUES(?, ?), (?, ?), (0, ?)) AND key >= ?",
            (MESSAGE, id, SESSION, session, str(key), key),
        ).get
    )


def moving(db: Database) -> list[tuple[str, str]]:
    """(segment, run) of what is on its way between ledger and archive."""
    return rows.fetch(db, "SELECT segment, run FROM moving ORDER BY segment")


def granted_bytes(db: Database) -> int | None:
    """What the store's budget lets the file have; None if nothing was ever granted."""
    found = db.execute("SELECT value FROM meta WHERE name = 'granted_bytes'").get
    return None if found is None else int(found)


def counts(db: Database, tables: Iterable[str]) -> dict[str, int]:
    """How many rows each of these tables has."""
    found: dict[str, int] = {
        table: db.execute(f"SELECT count(*) FROM {table}").get for table in tables
    }
    return found


def about(db: Database, folded: str) -> tuple[int, int]:
    """How many memories, and how many facts, name the concept with this folded name."""
    key = db.execute("SELECT key FROM concepts WHERE folded = ?", (folded,)).get
    if key is None:
        return 0, 0
    memories: int = db.execute(
        "SELECT count(*) FROM mentions m JOIN memories e ON e.key = m.source WHERE m.concept = ?",
        (key,),
    ).get
    facts: int = db.execute(
        "SELECT count(*) FROM relations WHERE source = ? OR target = ?", (key, key)
    ).get
    return memories, facts


def keys_of(db: Database, ids: Iterable[str]) -> set[int]:
    """The keys of those messages, by their ids, that are held."""
    sql = "SELECT m.key FROM json_each(?) j CROSS JOIN messages m ON m.id = j.value"
    return {key for (key,) in rows.fetch(db, sql, (list(ids),))}


def pairs(db: Database, sql: str) -> list[tuple[int, str]]:
    """The two columns of a query."""
    return rows.fetch(db, sql)


def keys(db: Database, sql: str, values: tuple[Any, ...] = ()) -> list[int]:
    """The first column of a query."""
    return [row[0] for row in rows.fetch(db, sql, values)]


def graph_bytes(db: Database) -> int:
    """What the agent's graph may take on the disk beside this file."""
    found = db.execute("SELECT value FROM meta WHERE name = 'graph_bytes'").get
    return int(found) if str(found).isdecimal() else 0
