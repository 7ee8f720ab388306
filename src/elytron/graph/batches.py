"""
Batches: which rows of a ledger go into one transaction of the graph.

From a page of changes follows what was touched (`touched`, pure); from that, and the rows as they
are now, what is removed and made (`changed`). A build takes all rows in pages (`built`).

Rows are read as they are now, not as they were at the change, so a later change of the same row
does its work twice; in the end all is as in the ledger. What is newer than the page is left to
its own change: it would be made twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from elytron.graph.statements import Batch, Edge, relation_values
from elytron.ledger import feeds
from elytron.ledger.database import Database
from elytron.ledger.feeds import ConceptRow, MemoryRow, MentionRow, MessageRow, RelationRow
from elytron.ledger.schema import (
    CONCEPT,
    LINK,
    MEMORY,
    MESSAGE,
    RELATION,
    SESSION,
    USER,
)

PAGE_MAX = 1000  # changes
BUILD_MAX = 1000  # rows; the worker takes 370 MB for 100,000 messages, and 420 with 4,000
_PAGE_BYTES = 4 << 20  # of text, where there is more than one row
_LINK_BYTES = 100  # what a link counts of that
LINKS_MAX = 50_000  # of one change
_TABLES = {
    USER: "User",
    SESSION: "Session",
    MESSAGE: "Message",
    MEMORY: "Memory",
    CONCEPT: "Concept",
}

Change = tuple[int, int, int, int]  # number, op, kind, key


class Page(NamedTuple):
    """A page of changes after *position*, up to *end*, the number of its last one."""

    changes: list[Change]
    position: int
    end: int


class TooMany(Exception):
    """One change touches more links than a transaction may have: build anew."""


@dataclass(frozen=True, slots=True)
class Touched:
    """
    Keys that a page of changes is about, by kind.

    `old` may be in the graph already and are removed; `new` cannot be. Both are made, if they are
    still there. `linked` are messages and memories that stay, but for what they mention.
    """

    old: dict[int, set[int]] = field(default_factory=dict)
    new: dict[int, set[int]] = field(default_factory=dict)
    linked: dict[int, set[int]] = field(default_factory=dict)

    def all(self, kind: int) -> set[int]:
        return self.old.get(kind, set()) | self.new.get(kind, set())


def touched(changes: Iterable[Change], position: int) -> Touched:
    """What changes after *position* are about. A key is the number of the first save."""
    found = Touched()
    linked: dict[int, set[int]] = {}
    for _, op, kind, key in changes:
        if op == LINK:
            linked.setdefault(kind, set()).add(key)
        else:
            side = found.old if key <= position else found.new
            side.setdefault(kind, set()).add(key)
    for kind, keys in linked.items():
        # One that is newer than the position and not made here is gone by now.
        found.linked[kind] = {key for key in keys if key <= position} - found.all(kind)
    return found


def cut(db: Database, changes: list[Change], position: int) -> Page:
    """As many of these changes as one transaction may take; at least one."""
    keys = sorted({key for _, _, kind, key in changes if kind in (MESSAGE, MEMORY)})
    weights = feeds.text_bytes(db, keys)
    concepts = sorted({key for _, _, kind, key in changes if kind == CONCEPT and key <= position})
    links = feeds.links(db, concepts)
    total, seen = 0, set[int]()
    for count, (_, _, _, key) in enumerate(changes):
        if key in seen:
            continue
        seen.add(key)
        total += weights.get(key, 0) + _LINK_BYTES * links.get(key, 0)
        if total > _PAGE_BYTES and count:
            return Page(changes[:count], position, changes[count][0] - 1)
    if len(seen) == 1 and links.get(changes[0][3], 0) > LINKS_MAX:
        raise TooMany
    return Page(changes, position, changes[-1][0])


def changed(db: Database, page: Page, source: object) -> Batch:
    """
    What a page of changes does to the graph. All within one snapshot of the ledger.

    Raises:
        Corrupt: a row is not what was written.
    """
    found = touched(page.changes, page.position)
    messages = feeds.messages(db, found.all(MESSAGE), source)
    memories = feeds.memories(db, found.all(MEMORY), source)
    concepts = feeds.concepts(db, found.all(CONCEPT), source)
    again = {row.key for row in concepts} & found.old.get(CONCEPT, set())
    relations = {row.key: row for row in feeds.relations(db, found.all(RELATION), source)}
    for row in feeds.relations_of(db, again, source, upto=page.end):
        relations.setdefault(row.key, row)
    mentions = _mentions(db, found, messages, memories, again)
    remade = [row for row in messages if row.key in found.old.get(MESSAGE, ())]
    answers = {row.key: row for row in (*messages, *feeds.replies(db, remade, source))}
    return Batch(
        gone={
            table: sorted(found.old[kind]) for kind, table in _TABLES.items() if kind in found.old
        },
        gone_relations=sorted(found.old.get(RELATION, ())),
        unlinked={_TABLES[kind]: sorted(keys) for kind, keys in found.linked.items() if keys},
        users=feeds.places(db, "users", found.all(USER), source),
        sessions=feeds.places(db, "sessions", found.all(SESSION), source),
        messages=messages,
        memories=memories,
        concepts=concepts,
        edges={
            **_message_edges(db, messages, list(answers.values()), source),
            "learned_in": _learned_in(memories),
            **_mention_edges(db, mentions, messages, memories, source),
            "relates_to": _relation_edges(db, list(relations.values()), concepts, source),
        },
    )


def built(db: Database, table: str, *, after: int, upto: int, source: object) -> tuple[Batch, int]:
    """
    (batch, last key) of the next rows of a table, for a new graph; no key is 0, for the end.

    Tables in the order of `feeds.TABLES`, so that the ends of a relation are there before it.
    """
    keys = feeds.next_keys(db, table, after=after, upto=upto, limit=BUILD_MAX)
    if not keys:
        return Batch(), 0
    if table in ("messages", "memories"):
        keys = _within(keys, feeds.text_bytes(db, keys))
    return _built(db, table, keys, source), keys[-1]


def _built(db: Database, table: str, keys: list[int], source: object) -> Batch:
    match table:
        case "users":
            return Batch(users=feeds.places(db, table, keys, source))
        case "sessions":
            return Batch(sessions=feeds.places(db, table, keys, source))
        case "concepts":
            return Batch(concepts=feeds.concepts(db, keys, source))
        case "messages":
            messages = feeds.messages(db, keys, source)
            edges = _message_edges(db, messages, messages, source)
            mentions = feeds.mentions_by(db, keys)
            edges |= _mention_edges(db, mentions, messages, [], source)
            return Batch(messages=messages, edges=edges)
        case "memories":
            memories = feeds.memories(db, keys, source)
            mentions = feeds.mentions_by(db, keys)
            edges = {"learned_in": _learned_in(memories)}
            edges |= _mention_edges(db, mentions, [], memories, source)
            return Batch(memories=memories, edges=edges)
    relations = feeds.relations(db, keys, source)
    return Batch(edges={"relates_to": _relation_edges(db, relations, [], source)})


def _within(keys: list[int], weights: dict[int, int]) -> list[int]:
    """As many keys as one page of text has room for; at least one."""
    total = 0
    for count, key in enumerate(keys):
        total += weights.get(key, 0)
        if total > _PAGE_BYTES and count:
            return keys[:count]
    return keys


def _mentions(
    db: Database,
    found: Touched,
    messages: Sequence[MessageRow],
    memories: Sequence[MemoryRow],
    again: set[int],
) -> list[MentionRow]:
    """What is to be made of mentions: those by what is made or linked, and of concepts remade."""
    sources = {row.key for row in messages} | {row.key for row in memories}
    for keys in found.linked.values():
        sources |= keys
    mentions = {(row.source, row.concept): row for row in feeds.mentions_by(db, sources)}
    for row in feeds.mentions_of(db, again) if again else ():
        mentions.setdefault((row.source, row.concept), row)
    return list(mentions.values())


def _message_edges(
    db: Database,
    messages: Sequence[MessageRow],
    answers: Sequence[MessageRow],
    source: object,
) -> dict[str, list[Edge]]:
    """Who sent them, where they stand, and what these *answers* answer."""
    known = {row.key: row for row in messages}
    missing = {row.responds_to for row in answers if row.responds_to is not None} - known.keys()
    if missing:
        known |= {row.key: row for row in feeds.messages(db, missing, source)}
    return {
        "sent": [Edge(row.user, row.id) for row in messages if row.user is not None],
        "part_of": [Edge(row.id, row.session, (row.position,)) for row in messages],
        "responds_to": [
            Edge(row.id, asked.id, ((row.at_us - asked.at_us) / 1e6,))
            for row in answers
            if row.responds_to is not None and (asked := known.get(row.responds_to)) is not None
        ],
    }


def _learned_in(memories: Sequence[MemoryRow]) -> list[Edge]:
    return [Edge(row.id, row.session) for row in memories if row.session is not None]


def _mention_edges(
    db: Database,
    mentions: Sequence[MentionRow],
    messages: Sequence[MessageRow],
    memories: Sequence[MemoryRow],
    source: object,
) -> dict[str, list[Edge]]:
    """Mentions by ids and names. What has gone meanwhile, or is not there yet, is left out."""
    if not mentions:
        return {}
    names = _names(db, {row.concept for row in mentions}, source)
    sources = {row.source for row in mentions}
    said = {row.key: row.id for row in messages}
    learned = {row.key: row.id for row in memories}
    missing = sources - said.keys() - learned.keys()
    if missing:
        said |= {row.key: row.id for row in feeds.messages(db, missing, source)}
        learned |= {row.key: row.id for row in feeds.memories(db, missing, source)}
    return {
        name: [
            Edge(ids[row.source], names[row.concept], (row.confidence,))
            for row in mentions
            if row.source in ids and row.concept in names
        ]
        for name, ids in (("message_mentions", said), ("memory_mentions", learned))
    }


def _relation_edges(
    db: Database,
    relations: Sequence[RelationRow],
    concepts: Sequence[ConceptRow],
    source: object,
) -> list[Edge]:
    names = {row.key: row.name for row in concepts}
    ends = {key for row in relations for key in (row.source, row.target)}
    names |= _names(db, ends - names.keys(), source)
    return [
        Edge(names[row.source], names[row.target], relation_values(row))
        for row in relations
        if row.source in names and row.target in names
    ]


def _names(db: Database, keys: set[int], source: object) -> dict[int, str]:
    return {row.key: row.name for row in feeds.concepts(db, keys, source)} if keys else {}
