"""
Feeds: what a projection reads of a ledger, a page at a time, each row verified.

What it does with it is decided in `graph/`. Ids are given where a row has the key of a session or
user, names where it has the key of a concept. Mentions have no checksum: they follow from texts.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from elytron.errors import Corrupt
from elytron.ledger import rows
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers

_KEYS = "(SELECT value FROM carray(?))"
_MEMORIES = (
    "SELECT key, id, content, kind, importance, pinned, session, valid_from_us, valid_to_us,"
    " created_us, metadata, checksum FROM memories"
)
_CONCEPTS = (
    "SELECT key, name, folded, type, description, confidence, origin, created_us, checksum"
    " FROM concepts"
)
_RELATIONS = (
    "SELECT key, source, relation, target, strength, valid_from_us, valid_to_us, learned_from,"
    " checksum FROM relations"
)
_PLACES = {
    "users": "SELECT key, id, folded, created_us, checksum FROM users",
    "sessions": "SELECT key, id, created_us, checksum FROM sessions",
}
_LATEST = (
    "SELECT max(ifnull((SELECT max(seq) FROM changes), 0),"
    " ifnull((SELECT max(key) FROM messages), 0))"
)
TABLES = ("users", "sessions", "concepts", "messages", "memories", "relations")


class Place(NamedTuple):
    """A user or a session."""

    key: int
    id: str
    created_us: int


class MessageRow(NamedTuple):
    """A message, with the ids of its session and user, and the key of what it answers."""

    key: int
    id: str
    role: str
    content: str
    at_us: int
    session_key: int
    session: str
    position: int
    user: str | None
    responds_to: int | None
    metadata: str | None


class MemoryRow(NamedTuple):
    """A memory, with the id of the session that it was learned in, if that is still there."""

    key: int
    id: str
    content: str
    kind: str
    importance: float
    pinned: bool
    session: str | None
    valid_from_us: int | None
    valid_to_us: int | None
    created_us: int
    metadata: str | None


class ConceptRow(NamedTuple):
    """A concept; `origin` as in the schema."""

    key: int
    name: str
    folded: str
    type: str | None
    description: str | None
    confidence: float
    origin: int


class RelationRow(NamedTuple):
    """A relation, with the keys of its concepts."""

    key: int
    source: int
    relation: str
    target: int
    strength: float
    valid_from_us: int | None
    valid_to_us: int | None


class MentionRow(NamedTuple):
    """That a message or memory names a concept, by their keys."""

    source: int
    concept: int
    confidence: float


def latest(db: Database) -> int:
    """The number of the last change, saves of messages included; 0 for an empty ledger."""
    return int(db.execute(_LATEST).get)


def identity(db: Database, source: object) -> str:
    """
    What tells this ledger from others, without the agent's name in it.

    Raises:
        Corrupt: the ledger does not say whose it is.
    """
    found = dict(
        rows.fetch(db, "SELECT name, value FROM meta WHERE name IN ('agent','created_us')")
    )
    if len(found) < 2:
        raise Corrupt(f"{source} does not say whose it is; the file was left as it is")
    name = hashlib.sha256(found["agent"].encode()).hexdigest()[:16]
    return f"{name}-{found['created_us']}"


def is_complete(db: Database, *, after: int) -> bool:
    """Whether no change after a number has been forgotten."""
    oldest = db.execute("SELECT seq, ordinal FROM changes ORDER BY seq LIMIT 1").get
    return oldest is None or oldest[1] <= 1 or oldest[0] <= after + 1


def newest(db: Database, table: str, *, upto: int, limit: int) -> list[tuple[int, str]]:
    """(key, id or name) of the newest rows up to a key. Not verified: they are only compared."""
    assert table in TABLES, table
    column = "name" if table == "concepts" else "id"
    return rows.fetch(
        db,
        f"SELECT key, {column} FROM {table} WHERE key <= ? ORDER BY key DESC LIMIT ?",
        (upto, limit),
    )


def changed(db: Database, keys: Iterable[int], *, after: int) -> set[int]:
    """Those of *keys* that a change after a number is about."""
    sql = f"SELECT DISTINCT key FROM changes WHERE seq > ? AND key IN {_KEYS}"
    return {key for (key,) in rows.fetch(db, sql, (after, Integers(keys)))}


def counts(db: Database) -> dict[str, int]:
    """How many rows there are of each kind that becomes a node or a relation."""
    return {
        table: int(db.execute(f"SELECT count(*) FROM {table}").get)
        for table in (*TABLES, "mentions")
    }


# -- what a row weighs, so that a page can be cut before it is read


def text_bytes(db: Database, keys: Sequence[int]) -> dict[int, int]:
    """Bytes of text of those of *keys* that are messages or memories."""
    found = rows.fetch(
        db,
        "SELECT key, octet_length(content) + ifnull(octet_length(metadata), 0) FROM messages"
        f" WHERE key IN {_KEYS} UNION ALL"
        " SELECT key, octet_length(content) + ifnull(octet_length(metadata), 0) FROM memories"
        f" WHERE key IN {_KEYS}",
        (Integers(keys), Integers(keys)),
    )
    return dict(found)


def links(db: Database, concepts: Sequence[int]) -> dict[int, int]:
    """How many mentions and relations each of these concepts has."""
    found: dict[int, int] = {}
    for column, table in (
        ("concept", "mentions"),
        ("source", "relations"),
        ("target", "relations"),
    ):
        sql = f"SELECT {column}, count(*) FROM {table} WHERE {column} IN {_KEYS} GROUP BY 1"
        for key, count in rows.fetch(db, sql, (Integers(concepts),)):
            found[key] = found.get(key, 0) + count
    return found


def next_keys(db: Database, table: str, *, after: int, upto: int, limit: int) -> list[int]:
    """The next *limit* keys of a table, from one key to another."""
    assert table in TABLES, table
    sql = f"SELECT key FROM {table} WHERE key > ? AND key <= ? ORDER BY key LIMIT ?"
    return [key for (key,) in rows.fetch(db, sql, (after, upto, limit))]


# -- rows by their keys


def places(db: Database, table: str, keys: Iterable[int], source: object) -> list[Place]:
    """Users or sessions, in the order of their keys."""
    sql = f"{_PLACES[table]} WHERE key IN {_KEYS} ORDER BY key"
    found = _verified(db, sql, (Integers(keys),), table, source)
    return [Place(row[0], row[1], row[-1]) for row in found]


def messages(db: Database, keys: Iterable[int], source: object) -> list[MessageRow]:
    """Messages, in the order of their keys."""
    sql = f"SELECT {rows.STORED} FROM messages m WHERE m.key IN {_KEYS} ORDER BY m.key"
    return _messages(db, sql, (Integers(keys),), source)


def replies(db: Database, answered: Sequence[MessageRow], source: object) -> list[MessageRow]:
    """The messages that answer these. Looks at each message of their sessions: edits are rare."""
    if not answered:
        return []
    sql = (
        f"SELECT {rows.STORED} FROM messages m WHERE m.session IN {_KEYS}"
        f" AND m.responds_to IN {_KEYS} ORDER BY m.key"
    )
    sessions = Integers({row.session_key for row in answered})
    return _messages(db, sql, (sessions, Integers([row.key for row in answered])), source)


def memories(db: Database, keys: Iterable[int], source: object) -> list[MemoryRow]:
    """Memories, in the order of their keys."""
    sql = f"{_MEMORIES} WHERE key IN {_KEYS} ORDER BY key"
    found = _verified(db, sql, (Integers(keys),), "memories", source)
    sessions = _ids(db, "sessions", {row[6] for row in found} - {None}, source)
    return [
        MemoryRow._make((*row[:5], bool(row[5]), sessions.get(row[6]), *row[7:])) for row in found
    ]


def concepts(db: Database, keys: Iterable[int], source: object) -> list[ConceptRow]:
    """Concepts, in the order of their keys."""
    sql = f"{_CONCEPTS} WHERE key IN {_KEYS} ORDER BY key"
    found = _verified(db, sql, (Integers(keys),), "concepts", source)
    return [ConceptRow(*row[:-1]) for row in found]


def relations(db: Database, keys: Iterable[int], source: object) -> list[RelationRow]:
    """Relations, in the order of their keys."""
    sql = f"{_RELATIONS} WHERE key IN {_KEYS} ORDER BY key"
    return _relations(db, sql, (Integers(keys),), source)


def relations_of(
    db: Database, concepts: Iterable[int], source: object, *, upto: int
) -> list[RelationRow]:
    """Relations from or to these concepts, up to a key."""
    sql = f"{_RELATIONS} WHERE (source IN {_KEYS} OR target IN {_KEYS}) AND key <= ? ORDER BY key"
    bound = list(concepts)
    return _relations(db, sql, (Integers(bound), Integers(bound), upto), source)


def mentions_by(db: Database, sources: Iterable[int]) -> list[MentionRow]:
    """What these messages and memories name."""
    sql = f"SELECT source, concept, confidence FROM mentions WHERE source IN {_KEYS}"
    found = rows.fetch(db, sql, (Integers(sources),))
    return [MentionRow(*row) for row in found if type(row[1]) is int]  # `check` names the others


def mentions_of(db: Database, concepts: Iterable[int]) -> list[MentionRow]:
    """Who names these concepts."""
    sql = f"SELECT source, concept, confidence FROM mentions WHERE concept IN {_KEYS}"
    return [MentionRow(*row) for row in rows.fetch(db, sql, (Integers(concepts),))]


def learned_from(db: Database, relations: Iterable[int]) -> dict[int, str]:
    """The ids of the messages that these relations were read in, where those are held."""
    sql = (
        "SELECT r.key, m.id FROM relations r JOIN messages m ON m.key = r.learned_from"
        f" WHERE r.key IN {_KEYS}"
    )
    return dict(rows.fetch(db, sql, (Integers(relations),)))


def _relations(
    db: Database, sql: str, values: tuple[Any, ...], source: object
) -> list[RelationRow]:
    return [RelationRow(*row[:-1]) for row in _verified(db, sql, values, "relations", source)]


def _messages(db: Database, sql: str, values: tuple[Any, ...], source: object) -> list[MessageRow]:
    found = rows.fetch(db, sql, values)
    for row in found:
        rows.verify(row, source)
    sessions = _ids(db, "sessions", {row[rows.SESSION] for row in found}, source, all_of=True)
    users = _ids(db, "users", {row[rows.USER] for row in found} - {None}, source, all_of=True)
    return [
        MessageRow(
            key=row[0],
            id=row[1],
            role=row[6],
            content=row[12],
            at_us=row[7],
            session_key=row[rows.SESSION],
            session=sessions[row[rows.SESSION]],
            position=row[3],
            user=None if row[rows.USER] is None else users[row[rows.USER]],
            responds_to=row[5],
            metadata=row[11],
        )
        for row in found
    ]


def _ids(
    db: Database, table: str, keys: set[int], source: object, *, all_of: bool = False
) -> dict[int, str]:
    """The ids of users or sessions by key; with *all_of* none may be missing."""
    named = {place.key: place.id for place in places(db, table, keys, source)} if keys else {}
    if all_of and len(named) < len(keys):
        raise Corrupt(
            f"{source}: {len(keys) - len(named)} {table} that messages name are missing; the file"
            " was left as it is"
        )
    return named


def _verified(
    db: Database, sql: str, values: tuple[Any, ...], table: str, source: object
) -> list[tuple[Any, ...]]:
    """
    Rows without the checksum that each ends with.

    Raises:
        Corrupt: one is not what was written.
    """
    found = []
    for *row, checksum in rows.fetch(db, sql, values):
        if rows.checksum(tuple(row)) != checksum:
            raise Corrupt(
                f"{source}: row {row[0]} of {table} is damaged (its checksum does not match); the"
                " file was left as it is"
            )
        found.append(tuple(row))
    return found
