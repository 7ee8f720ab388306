"""
Knowledge: what was learned, as SQL to read it, on a connection lent by the ledger.

Every row that is shown was verified by its checksum, and so were those that it names.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from elytron.errors import Corrupt
from elytron.ledger import reads, rows
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.learned import BY_PERSON
from elytron.ledger.learning import MEMORY_COLUMNS
from elytron.ledger.naming import CONCEPT_COLUMNS, ConceptRow, concept_rows
from elytron.ledger.relating import HOLDS, RELATION_COLUMNS, RelationRow
from elytron.records import Concept, ConceptDetails, Memory, Relation

ORIGINS = ("told", "extracted", "proposed")  # by their numbers in the schema
_KEYS = "(SELECT value FROM carray(?))"
_EXAMPLES = 5
_DETAILS_MAX = 100
_YEAR_10000_US = 253_402_300_800_000_000


@dataclass(frozen=True, slots=True)
class Sought:
    """Which memories are meant: those that hold at a time, and that the rest fits, where given."""

    at_us: int
    about: str | None = None  # a folded name
    kind: str | None = None
    session: str | None = None
    kinds: tuple[str, ...] | None = None
    since_us: int | None = None
    until_us: int | None = None
    before: str | None = None  # an id

    def where(self) -> tuple[str, tuple[Any, ...]]:
        """The condition on `memories m` as SQL, which begins with place ?1, and its values."""
        parts = (
            ("m.kind = ?", self.kind),
            (
                "m.kind IN (SELECT value FROM json_each(?))",
                None if self.kinds is None else list(self.kinds),
            ),
            ("m.created_us >= ?", self.since_us),
            ("m.created_us < ?", self.until_us),
            ("m.session = (SELECT key FROM sessions WHERE id = ?)", self.session),
            (
                "m.key IN (SELECT source FROM mentions WHERE concept ="
                " (SELECT key FROM concepts WHERE folded = ?))",
                self.about,
            ),
            ("m.key < (SELECT key FROM memories WHERE id = ?)", self.before),
        )
        used = [(sql, value) for sql, value in parts if value is not None]
        where = "".join([f" AND {sql}" for sql, _ in used])
        return HOLDS.format("m") + where, (self.at_us, *[value for _, value in used])


# -- memories


def memories(db: Database, sought: Sought, *, limit: int, source: object) -> list[Memory]:
    """The newest first."""
    where, values = sought.where()
    sql = f"SELECT {_MEMORY} FROM memories m WHERE {where} ORDER BY m.key DESC LIMIT ?"
    return _memories(db, rows.fetch(db, sql, (*values, limit)), source)


def memories_of(db: Database, keys: Sequence[int], source: object) -> dict[int, Memory]:
    """Memories by key, of keys that were found in the same snapshot; else `Corrupt`."""
    sql = f"SELECT {_MEMORY} FROM memories m WHERE m.key IN {_KEYS}"
    found = rows.fetch(db, sql, (Integers(keys),))
    whole = dict(zip([row[0] for row in found], _memories(db, found, source), strict=True))
    rows.check_there(whole, keys, "memory", source)
    return whole


def memory(db: Database, id: str, source: object) -> Memory | None:
    found = rows.fetch(db, f"SELECT {_MEMORY} FROM memories m WHERE m.id = ?", (id,))
    return next(iter(_memories(db, found, source)), None)


def memory_terms(
    db: Database, sought: Sought, *, limit: int, source: object
) -> list[tuple[int, bytes]]:
    """
    (key, hashed terms) of the newest *limit* memories that are meant, and behind them of the newest
    *limit* pinned ones, in their order. Terms are not verified.
    """
    where, values = sought.where()
    sql = f"SELECT m.key, m.terms FROM memories m WHERE {where}"
    newest = "ORDER BY m.key DESC LIMIT ?"
    found = rows.fetch(db, f"{sql} {newest}", (*values, limit))
    if len(found) == limit:  # there may be older ones
        sql += f" AND m.pinned = 1 AND m.key < ? {newest}"
        found += rows.fetch(db, sql, (*values, found[-1][0], limit))
    return _terms(found, source)


def memory_terms_of(
    db: Database, sought: Sought, keys: Sequence[int], *, source: object
) -> list[tuple[int, bytes]]:
    """As `memory_terms`, of those of these keys that are meant."""
    where, values = sought.where()
    sql = f"SELECT m.key, m.terms FROM memories m WHERE {where} AND m.key IN {_KEYS}"
    return _terms(rows.fetch(db, sql, (*values, Integers(keys))), source)


def _terms(found: list[tuple[int, bytes]], source: object) -> list[tuple[int, bytes]]:
    for key, terms in found:
        if type(terms) is not bytes:
            raise Corrupt(f"{source}: memory row {key} is damaged; the file was left as it is")
    return found


def memory_page(
    db: Database, *, after_key: int, limit: int, source: object
) -> list[tuple[int, Memory]]:
    """(key, memory) of the next memories by key."""
    sql = f"SELECT {_MEMORY} FROM memories m WHERE m.key > ? ORDER BY m.key LIMIT ?"
    found = rows.fetch(db, sql, (after_key, limit))
    return list(zip([row[0] for row in found], _memories(db, found, source), strict=True))


_MEMORY = f"{MEMORY_COLUMNS}, m.uses, m.last_used_us"
_SESSION = 6


def _memories(db: Database, found: list[Any], source: object) -> list[Memory]:
    for row in found:
        *values, checksum = row[:12]
        if rows.checksum(tuple(values)) != checksum:
            raise Corrupt(
                f"{source}: memory row {row[0]} is damaged (its checksum does not match); the file"
                " was left as it is"
            )
    sessions = reads.session_ids(db, {row[_SESSION] for row in found} - {None}, source)
    about = _about(db, [row[0] for row in found], source)
    return [_to_memory(row, sessions, about) for row in found]


def _to_memory(
    row: tuple[Any, ...], sessions: dict[int, str], about: dict[int, list[str]]
) -> Memory:
    key, name, content, kind, importance, pinned, session, begin, end, created, metadata = row[:11]
    uses, last_used = row[12:]
    return Memory(
        name,
        content,
        kind,
        tuple(sorted(about.get(key, ()))),
        importance,
        bool(pinned),
        None if session is None else sessions[session],
        _to_time(begin),
        _to_time(end),
        rows.to_datetime(created),
        json.loads(metadata) if metadata else {},
        uses,
        _to_time(last_used) if _is_time(last_used) else None,  # no checksum covers it
    )


def _about(db: Database, keys: Sequence[int], source: object) -> dict[int, list[str]]:
    """The names that each of these memories was told to be about."""
    pairs = rows.fetch(
        db,
        f"SELECT source, concept FROM mentions WHERE told = {BY_PERSON} AND source IN {_KEYS}",
        (Integers(keys),),
    )
    named = concepts_of(db, {concept for _, concept in pairs if type(concept) is int}, source)
    about = dict[int, list[str]]()
    for key, concept in pairs:
        if concept in named:
            about.setdefault(key, []).append(named[concept].name)
    return about


# -- concepts


def concepts_of(db: Database, keys: Iterable[int], source: object) -> dict[int, ConceptRow]:
    """Rows of concepts by key."""
    sql = f"SELECT {CONCEPT_COLUMNS} FROM concepts c WHERE c.key IN {_KEYS}"
    return {row.key: row for row in concept_rows(db.execute(sql, (Integers(keys),)), source)}


def concepts(
    db: Database,
    *,
    question: str | None,
    type: str | None,
    origin: int | None,
    limit: int,
    source: object,
) -> list[Concept]:
    """
    The most mentioned first, then by name; with a *question*, a folded name or a part of one, first
    those that begin with it.
    """
    found = rows.fetch(
        db,
        f"SELECT {CONCEPT_COLUMNS}, ifnull(n.times, 0) FROM concepts c LEFT JOIN"
        " (SELECT concept, count(*) AS times FROM mentions GROUP BY concept) n ON n.concept = c.key"
        " WHERE (?1 IS NULL OR instr(c.folded, ?1)) AND (?2 IS NULL OR c.type = ?2)"
        " AND (?3 IS NULL OR c.origin = ?3)"
        " ORDER BY instr(c.folded, ifnull(?1, '')) != 1, ifnull(n.times, 0) DESC, c.folded"
        " LIMIT ?4",
        (question, type, origin, limit),
    )
    verified = concept_rows([row[:-1] for row in found], source)
    return [to_concept(row, times) for row, (*_, times) in zip(verified, found, strict=True)]


def concept(db: Database, folded: str, source: object) -> Concept | None:
    """One concept by its folded name."""
    sql = f"SELECT {CONCEPT_COLUMNS} FROM concepts c WHERE c.folded = ?"
    row = next(iter(concept_rows(rows.fetch(db, sql, (folded,)), source)), None)
    if row is None:
        return None
    times = db.execute("SELECT count(*) FROM mentions WHERE concept = ?", (row.key,)).get
    return to_concept(row, times)


def concept_details(
    db: Database, folded: str, *, at_us: int, source: object
) -> ConceptDetails | None:
    """A concept, and where it occurs."""
    found = concept(db, folded, source)
    if found is None:
        return None
    key = db.execute("SELECT key FROM concepts WHERE folded = ?", (folded,)).get
    first_us, last_us = db.execute(
        "SELECT min(at_us), max(at_us) FROM (SELECT m.at_us FROM mentions n"
        " CROSS JOIN messages m ON m.key = n.source WHERE n.concept = ?1 UNION ALL"
        " SELECT m.created_us FROM mentions n CROSS JOIN memories m ON m.key = n.source"
        " WHERE n.concept = ?1)",
        (key,),
    ).get
    newest = "SELECT m.key FROM mentions n CROSS JOIN {0} m ON m.key = n.source"
    newest += " WHERE n.concept = ? ORDER BY n.source DESC LIMIT ?"
    examples = _keys(db, newest.format("messages"), (key, _EXAMPLES))
    held = reads.messages(db, examples, source)
    return ConceptDetails(
        found,
        None if first_us is None else reads.to_time(first_us, source),
        None if last_us is None else reads.to_time(last_us, source),
        tuple([held[one] for one in examples]),
        tuple(memories(db, Sought(at_us, about=folded), limit=_DETAILS_MAX, source=source)),
        tuple(relations(db, at_us=at_us, folded=folded, limit=_DETAILS_MAX, source=source)),
    )


def to_concept(row: ConceptRow, times: int) -> Concept:
    """A row, and how often it is mentioned, as a `Concept`."""
    return Concept(
        row.name,
        row.type,
        row.description,
        row.confidence,
        ORIGINS[row.origin],
        times,
        rows.to_datetime(row.created_us),
    )


# -- relations


def relations(
    db: Database,
    *,
    at_us: int,
    folded: str | None = None,
    relation: str | None = None,
    limit: int,
    source: object,
) -> list[Relation]:
    """Those that hold at a time, the newest first; of one concept, or of all."""
    where = HOLDS.format("r")
    key = None
    if folded is not None:
        key = db.execute("SELECT key FROM concepts WHERE folded = ?", (folded,)).get
        if key is None:
            return []
        where += " AND (r.source = ?4 OR r.target = ?4)"
    found = rows.fetch(
        db,
        f"SELECT {RELATION_COLUMNS} FROM relations r WHERE {where}"
        " AND (?2 IS NULL OR r.relation = ?2) AND (?4 IS NULL OR 1) ORDER BY r.key DESC LIMIT ?3",
        (at_us, relation, limit, key),
    )
    facts = [_verified(row, source) for row in found]
    ends = {end for fact in facts for end in (fact.source, fact.target)}
    named = concepts_of(db, ends, source)
    messages = [fact.learned_from for fact in facts if fact.learned_from is not None]
    ids = dict[int, str](
        rows.fetch(db, f"SELECT key, id FROM messages WHERE key IN {_KEYS}", (Integers(messages),))
    )
    return [
        Relation(
            named[fact.source].name,
            fact.relation,
            named[fact.target].name,
            fact.strength,
            _to_time(fact.valid_from_us),
            _to_time(fact.valid_to_us),
            None if fact.learned_from is None else ids.get(fact.learned_from),
        )
        for fact in facts
        # One whose concept was removed is on its way out.
        if fact.source in named and fact.target in named
    ]


def _verified(row: tuple[Any, ...], source: object) -> RelationRow:
    *values, checksum = row
    if rows.checksum(tuple(values)) != checksum:
        raise Corrupt(
            f"{source}: relation row {row[0]} is damaged (its checksum does not match); the file"
            " was left as it is"
        )
    return RelationRow(*values)


def _is_time(at_us: object) -> bool:
    return type(at_us) is int and 0 <= at_us < _YEAR_10000_US


def _to_time(at_us: int | None) -> datetime | None:
    return None if at_us is None else rows.to_datetime(at_us)


def _keys(db: Database, sql: str, values: tuple[Any, ...]) -> list[int]:
    return [key for (key,) in rows.fetch(db, sql, values)]
