"""
Texts: what those read who go through messages and memories in the order of changes.

Unlike the graph they care for texts alone: what was saved or edited, and is still there.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from elytron.errors import Corrupt
from elytron.ledger import rows
from elytron.ledger.database import Cursor, Database
from elytron.ledger.integers import Integers
from elytron.ledger.learned import BY_TEXT
from elytron.ledger.schema import EDIT, MEMORY, MESSAGE, SAVE

_log = logging.getLogger("elytron.ledger")
# A memory that was saved is told of by itself too, as a message is: of both more is known than the
# changes that are still kept.
_CHANGED = f"""
SELECT * FROM (SELECT seq, kind, key FROM changes WHERE seq > ?1
    AND op IN ({SAVE}, {EDIT}) AND kind IN ({MESSAGE}, {MEMORY}) ORDER BY seq LIMIT ?2)
UNION
SELECT * FROM (SELECT key, {MESSAGE}, key FROM messages WHERE key > ?1 ORDER BY key LIMIT ?2)
UNION
SELECT * FROM (SELECT key, {MEMORY}, key FROM memories WHERE key > ?1 ORDER BY key LIMIT ?2)
ORDER BY 1 LIMIT ?2
"""
_NEWEST = """
SELECT max((SELECT ifnull(max(seq), 0) FROM changes), (SELECT ifnull(max(key), 0) FROM messages))
"""
_TABLES = {MESSAGE: "messages", MEMORY: "memories"}
_STORED = {
    MESSAGE: (rows.STORED, 12),
    MEMORY: (
        "m.key, m.id, m.content, m.kind, m.importance, m.pinned, m.session, m.valid_from_us,"
        " m.valid_to_us, m.created_us, m.metadata, m.checksum",
        2,
    ),
}
_KEYS = "(SELECT value FROM carray(?))"
_ROLE = 6  # of a message


class Text(NamedTuple):
    """The text of a message or memory, as its row has it; a memory has no role."""

    key: int
    kind: int
    role: str | None
    content: str
    checksum: int


class Changed(NamedTuple):
    """
    A page of the texts that were saved or edited: (number, kind, key), in order.

    `reached` is the number up to which nothing else was. `complete` is False if older ones have
    been forgotten.
    """

    found: list[tuple[int, int, int]]
    reached: int
    complete: bool


def place(db: Database, reader: str) -> int:
    """How far a reader has come in the order of changes."""
    seq = db.execute("SELECT seq FROM readers WHERE name = ?", (reader,)).get
    if seq is not None and type(seq) is not int:
        raise Corrupt(f"how far {reader} have come is damaged; the file was left as it is")
    return seq or 0


def newest(db: Database) -> int:
    """The last number of the order of changes."""
    return int(db.execute(_NEWEST).get)


def changed(db: Database, *, after: int, limit: int) -> Changed:
    """The next *limit* texts that were saved or edited after a number."""
    found = rows.fetch(db, _CHANGED, (after, limit))
    oldest = db.execute("SELECT seq, ordinal FROM changes ORDER BY seq LIMIT 1").get
    forgotten = oldest is not None and oldest[1] > 1 and oldest[0] > after + 1
    reached = found[-1][0] if len(found) == limit else max(after, newest(db))
    return Changed(found, reached, not forgotten)


def edited(db: Database, key: int, *, after: int) -> bool:
    """Whether it is told that a message was edited after a number. Reads the changes from there."""
    sql = "SELECT EXISTS (SELECT 1 FROM changes WHERE seq > ? AND op = ? AND kind = ? AND key = ?)"
    return bool(db.execute(sql, (after, EDIT, MESSAGE, key)).get)


def fitting(db: Database, wanted: Sequence[tuple[int, int]], *, bytes_max: int) -> int:
    """How many of these (kind, key), in order, have at most *bytes_max* of text; at least one."""
    sizes: dict[tuple[int, int], int] = {}
    for kind, table in _TABLES.items():
        keys = [key for of, key in wanted if of == kind]
        sql = f"SELECT key, octet_length(content) FROM {table} WHERE key IN {_KEYS}"
        found = rows.fetch(db, sql, (Integers(keys),)) if keys else []
        sizes.update({(kind, key): size_bytes for key, size_bytes in found})
    total = 0
    for count, one in enumerate(wanted):
        total += sizes.get(one, 0)
        if total > bytes_max and count:
            return count
    return len(wanted)


def texts(db: Database, wanted: Iterable[tuple[int, int]], source: object) -> list[Text]:
    """
    The texts of these (kind, key) that are held, each once, in order of their keys.

    A damaged row is left out and logged: it is told by whoever reads it, and `check` finds it.
    """
    found: list[Text] = []
    keys: dict[int, set[int]] = {MESSAGE: set(), MEMORY: set()}
    for kind, key in wanted:
        keys[kind].add(key)
    for kind, some in keys.items():
        content = _STORED[kind][1]
        for row in _stored(db, kind, sorted(some), source):
            try:
                _verify(row, source)
            except Corrupt as error:
                _log.warning("a text is passed over: %s", error)
                continue
            role = row[_ROLE] if kind == MESSAGE else None
            found.append(Text(row[0], kind, role, row[content], row[-1]))
    return sorted(found)


def _stored(db: Database, kind: int, keys: list[int], source: object) -> list[tuple[Any, ...]]:
    """The rows of these keys; if one of them cannot be read at all, one by one, without it."""
    if not keys:
        return []
    sql = f"SELECT {_STORED[kind][0]} FROM {_TABLES[kind]} m WHERE m.key IN {_KEYS}"
    try:
        return rows.fetch(db, sql, (Integers(keys),))
    except UnicodeDecodeError:
        if len(keys) == 1:
            _log.warning("a text is passed over: %s: row %s is no text", source, keys[0])
            return []
    return [row for key in keys for row in _stored(db, kind, [key], source)]


def _verify(row: tuple[Any, ...], source: object) -> None:
    if rows.checksum(row[:-1]) != row[-1]:
        raise Corrupt(f"{source}: row {row[0]} is damaged (its checksum does not match)")


def unlinked(db: Database, *, limit: int) -> list[tuple[int, int]]:
    """
    (concept, key) of concepts for which texts up to that key are still to be looked through, the
    greatest keys first.
    """
    return rows.fetch(db, "SELECT concept, key FROM unlinked ORDER BY key DESC LIMIT ?", (limit,))


def last_unlinked(db: Database) -> int:
    """The last of these concepts, 0 if there is none."""
    return int(db.execute("SELECT ifnull(max(concept), 0) FROM unlinked").get)


def is_unlinked(db: Database, last: int) -> bool:
    """Whether there are such concepts up to one of them."""
    sql = "SELECT EXISTS (SELECT 1 FROM unlinked WHERE concept <= ?)"
    return bool(db.execute(sql, (last,)).get)


def count(db: Database) -> int:
    """How many messages there are."""
    return int(db.execute("SELECT count(*) FROM messages").get)


def mentioned(db: Database, keys: Sequence[int]) -> dict[int, list[int]]:
    """The concepts that were found by name in each of these texts."""
    found: dict[int, list[int]] = {}
    sql = f"SELECT source, concept FROM mentions WHERE source IN {_KEYS} AND told = {BY_TEXT}"
    for source, concept in rows.fetch(db, sql, (Integers(keys),)):
        found.setdefault(source, []).append(concept)
    return found


def heard(db: Database, folded: Iterable[str]) -> dict[str, tuple[str, int, int]]:
    """Of these names (as first written, how often heard, in which message last)."""
    found = db.execute(
        "SELECT h.folded, h.name, h.times, h.key FROM json_each(?) j"
        " CROSS JOIN heard h ON h.folded = j.value",
        (list(folded),),
    )
    return {row[0]: row[1:] for row in found}


def indexed(db: Database) -> int:
    """The key up to which messages are in the word index."""
    return int(db.execute("SELECT key FROM indexed").get)


def contents(db: Database, kind: int, *, up_to: int, above: int) -> Cursor:
    """(key, content as bytes) of texts from a key down to another, not verified. To be closed."""
    return db.execute(
        f"SELECT key, CAST(content AS BLOB) FROM {_TABLES[kind]} WHERE key <= ? AND key > ?"
        " ORDER BY key DESC",
        (up_to, above),
    )
