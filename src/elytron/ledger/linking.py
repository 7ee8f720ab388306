"""
Linking: what the background found in texts, written in one transaction with how far it has come.

Nothing is written for a text that is gone or changed since it was read: so what is erased
meanwhile leaves no name behind, and of two processes that do the same work one is heard.
"""

import time
from collections.abc import Iterable

from elytron.ledger import rows
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.learned import (
    HEARD_MAX,
    Heard,
    LearnedRelation,
    Link,
    Linked,
    LinkResult,
    Mention,
)
from elytron.ledger.naming import Concepts, Notes
from elytron.ledger.relating import RelationRow, Relations
from elytron.ledger.schema import EXTRACTED, LINK, MESSAGE

_KEYS = "(SELECT value FROM carray(?))"
_MOVED = LinkResult(applied=False)


class Links:
    """The statements of `Link`, of one connection."""

    def __init__(
        self, notes: Notes, db: Database, concepts: Concepts, relations: Relations
    ) -> None:
        self._notes = notes
        self._db = db
        self._concepts = concepts
        self._relations = relations

    def link(self, op: Link) -> LinkResult:
        """Apply a `Link`; see there."""
        if not self._is_where_it_began(op):
            return _MOVED
        whole = self._whole(op.sources)
        learned = [relation for relation in op.relations if relation.learned_from in whole]
        made, unmade = self._make(op, whole.values(), learned)
        keys = dict[str, int | None]()
        linked = sum([self._mention(source, keys) for source in whole.values()])
        related = self._relate(op, whole, learned)
        self._hear(heard for heard in op.heard if not heard.times or heard.key in whole)
        self._go_on(op)
        return LinkResult(True, linked, made, related, unmade)

    def _is_where_it_began(self, op: Link) -> bool:
        if op.before is not None:
            seq = self._db.execute("SELECT seq FROM readers WHERE name = ?", (op.reader,)).get
            if (seq or 0) != op.before:
                return False
        return all(
            self._db.execute("SELECT key FROM unlinked WHERE concept = ?", (looked.concept,)).get
            == looked.before
            for looked in op.looked
        )

    def _whole(self, sources: Iterable[Linked]) -> dict[int, Linked]:
        """Those sources that are still what was looked through, by key."""
        sources = list(sources)
        held = dict[int, tuple[int, bool]]()
        for table, is_message in (("messages", True), ("memories", False)):
            wanted = [one.key for one in sources if (one.kind == MESSAGE) == is_message]
            sql = f"SELECT key, checksum FROM {table} WHERE key IN {_KEYS}"
            for key, checksum in rows.fetch(self._db, sql, (Integers(wanted),)):
                held[key] = checksum, is_message
        return {
            one.key: one
            for one in sources
            if held.get(one.key) == (one.checksum, one.kind == MESSAGE)
        }

    def _make(
        self, op: Link, sources: Iterable[Linked], learned: list[LearnedRelation]
    ) -> tuple[int, int]:
        """Make those new concepts that something names: (how many, how many had no room)."""
        named = {
            end: relation.learned_from
            for relation in learned
            for end in (relation.source, relation.target)
        }
        named |= {mention.folded: source.key for source in sources for mention in source.mentions}
        made = unmade = 0
        room = self._concepts.room if op.concepts else 0
        now_us = time.time_ns() // 1000
        for new in op.concepts:
            if new.folded not in named:
                continue
            # What somebody told, as in an import, is not of the text that names it.
            read_in = named[new.folded] if new.origin == EXTRACTED else None
            held = self._concepts.find(new.folded)
            if held is not None:
                self._concepts.better(held, new, read_in)
            elif made < room:
                self._concepts.make(new, now_us, read_in)
                made += 1
            else:
                unmade += 1
        return made, unmade

    def _mention(self, source: Linked, keys: dict[str, int | None]) -> bool:
        """Make a source's mentions those that were found; whether they differed."""
        held = {
            concept: (confidence, why)
            for concept, confidence, why in rows.fetch(
                self._db,
                "SELECT concept, confidence, told FROM mentions WHERE source = ?",
                (source.key,),
            )
        }
        stay = {key for key, (_, why) in held.items() if why not in source.replaces}
        wanted = dict[int, tuple[float, int]]()
        for mention in source.mentions:
            key = self._key(mention, keys)
            if key is not None and key not in stay:
                # Where it is found in two ways, the surer one counts.
                wanted[key] = max(
                    wanted.get(key, (0.0, 0)), (float(mention.confidence), mention.why)
                )
        stay.update([key for key in source.kept if key not in wanted])
        gone = [key for key in held if key not in stay and wanted.get(key) != held[key]]
        new = [(key, *found) for key, found in wanted.items() if held.get(key) != found]
        if not gone and not new:
            return False
        self._db.executemany(
            "DELETE FROM mentions WHERE source = ? AND concept = ?",
            [(source.key, key) for key in gone],
        )
        self._db.executemany(
            "INSERT INTO mentions VALUES(?, ?, ?, ?)", [(source.key, *found) for found in new]
        )
        self._notes.add_change(LINK, source.kind, source.key)
        return True

    def _key(self, mention: Mention, keys: dict[str, int | None]) -> int | None:
        """The key of the concept that is named; None if there is none."""
        if mention.folded not in keys:
            keys[mention.folded] = self._db.execute(
                "SELECT key FROM concepts WHERE folded = ?", (mention.folded,)
            ).get
        return keys[mention.folded]

    def _relate(self, op: Link, whole: dict[int, Linked], learned: list[LearnedRelation]) -> int:
        """
        Make the relations that were read, and delete those that are not read any more, with the
        concepts that nothing else was known of.
        """
        made = 0
        read = dict[int, set[tuple[int, str, int]]]()
        for relation in learned:
            source = self._concepts.find(relation.source)
            target = self._concepts.find(relation.target)
            if source is None or target is None:
                continue
            three = (source.key, relation.relation, target.key)
            read.setdefault(relation.learned_from, set()).add(three)
            new = RelationRow(
                0,
                *three,
                relation.strength,
                relation.valid_from_us,
                relation.valid_to_us,
                relation.learned_from,
            )
            if not self._relations.is_known(new):
                self._relations.add(new)
                made += 1
        ends = set[int]()
        for key in op.extracted:
            if key in whole:
                gone = [
                    held
                    for held in self._relations.learned_from(key)
                    if (held.source, held.relation, held.target) not in read.get(key, ())
                ]
                self._relations.delete([held.key for held in gone])
                ends.update([end for held in gone for end in (held.source, held.target)])
        if ends:
            self._concepts.drop_untold(ends)
        return made

    def _hear(self, heard: Iterable[Heard]) -> None:
        any_heard = False
        for one in heard:
            any_heard = True
            if one.times:
                self._db.execute("REPLACE INTO heard VALUES(?, ?, ?, ?)", one)
            else:
                self._db.execute("DELETE FROM heard WHERE folded = ?", (one.folded,))
        if any_heard:
            over = self._db.execute("SELECT count(*) FROM heard").get - HEARD_MAX
            self._db.execute(
                "DELETE FROM heard WHERE folded IN"
                " (SELECT folded FROM heard ORDER BY times, key LIMIT ?)",
                (max(0, over),),
            )

    def _go_on(self, op: Link) -> None:
        """Note how far this has come."""
        if op.after is not None:
            self._db.execute("REPLACE INTO readers VALUES(?, ?)", (op.reader, op.after))
        for looked in op.looked:
            if looked.after:
                self._db.execute(
                    "UPDATE unlinked SET key = ? WHERE concept = ?", (looked.after, looked.concept)
                )
            else:
                self._db.execute("DELETE FROM unlinked WHERE concept = ?", (looked.concept,))
