"""
Unlearning: memories, concepts and relations taken out again, in steps that fit into the WAL.
"""

from collections.abc import Sequence
from typing import Any

from elytron.ledger import rows, vectors
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.learned import (
    BY_PERSON,
    ClearLearned,
    ForgetHeard,
    ForgetLearned,
    Forgotten,
    LearnedOp,
    SweepLearned,
)
from elytron.ledger.naming import Concepts, Notes
from elytron.ledger.schema import DELETE, MEMORY, RELATION, TOLD

_KEYS = "(SELECT value FROM carray(?))"
_ROW_BYTES = 2 * 4096  # of a relation or concept that goes: two pages, at the worst
_MEMORY_BYTES = 6 * 4096  # of a memory, besides its text: its id, session, a mention, its vector
_TEXT_BYTES = "octet_length(content) + ifnull(octet_length(metadata), 0) + octet_length(terms)"


class Unlearning:
    """The forgetting statements of one connection."""

    def __init__(self, notes: Notes, db: Database, concepts: Concepts) -> None:
        self._notes = notes
        self._db = db
        self._concepts = concepts

    def apply(self, op: LearnedOp) -> Any:
        """Apply one op and return its result."""
        match op:
            case ForgetLearned():
                return self._forget(op)
            case SweepLearned():
                return self._sweep(op)
            case ForgetHeard():
                self._db.execute("DELETE FROM heard")
                return None
            case ClearLearned():
                return self._clear(op)
        raise AssertionError(f"no op that forgets: {type(op).__name__}")

    def drop_memories(self, keys: Sequence[int]) -> None:
        """Remove memories and what stands beside them."""
        bound = Integers(keys)
        self._notes.add_changes(DELETE, MEMORY, keys)
        vectors.drop(self._db, keys)
        for table, column in (("memories", "key"), ("mentions", "source")):
            self._db.execute(f"DELETE FROM {table} WHERE {column} IN {_KEYS}", (bound,))

    def drop_names(self, messages: Sequence[int]) -> None:
        """
        Erase what was heard in these messages last, what an extractor read in them of concepts, and
        the concepts that nobody told of and nothing but them names: to be called before they go,
        or say something else.

        What they say then is linked and read anew, so that they count for none of these until it
        is.
        """
        bound = Integers(messages)
        self._db.execute(f"DELETE FROM heard WHERE key IN {_KEYS}", (bound,))
        untold = self._keys(
            "SELECT DISTINCT m.concept FROM mentions m JOIN concepts c ON c.key = m.concept"
            f" WHERE c.origin <> {TOLD} AND m.source IN {_KEYS}",
            (bound,),
        )
        if untold:
            self._concepts.drop(self._concepts.unnamed(untold, apart_from=messages))
        self._concepts.forget_texts(messages)
        if untold:
            self._db.execute(
                f"DELETE FROM mentions WHERE source IN {_KEYS} AND concept IN {_KEYS}",
                (bound, Integers(untold)),
            )

    def _forget(self, op: ForgetLearned) -> Forgotten:
        at_once = max(1, op.size_bytes // _ROW_BYTES)
        relations = self._keys(
            f"SELECT key FROM relations WHERE learned_from IN {_KEYS} LIMIT ?",
            (Integers(op.messages), at_once),
        )
        if relations:
            self._drop_relations(relations)
            return Forgotten(relations=len(relations), more=True)
        self._db.execute(f"DELETE FROM heard WHERE key IN {_KEYS}", (Integers(op.messages),))
        if self._concepts.forget_texts(op.messages, at_once=max(1, at_once // 2)):
            return Forgotten(more=True)
        memories = self._fitting(
            f"SELECT key, {_TEXT_BYTES} FROM memories WHERE session IN {_KEYS}"
            " ORDER BY key LIMIT ?",
            Integers(op.sessions),
            op.size_bytes,
        )
        if not memories:
            return Forgotten()
        told = self._keys(
            f"SELECT DISTINCT concept FROM mentions WHERE told = {BY_PERSON} AND source IN {_KEYS}",
            (Integers(memories),),
        )
        self.drop_memories(memories)
        concepts = self._concepts.unnamed(told, apart_from=op.messages)
        self._concepts.drop(concepts)
        return Forgotten(len(memories), len(concepts), more=True)

    def _sweep(self, op: SweepLearned) -> Forgotten:
        mentions = rows.fetch(
            self._db,
            "SELECT source, concept FROM mentions m"
            " WHERE NOT EXISTS (SELECT 1 FROM concepts WHERE key = m.concept)"
            " OR (NOT EXISTS (SELECT 1 FROM messages WHERE key = m.source)"
            " AND NOT EXISTS (SELECT 1 FROM memories WHERE key = m.source)) LIMIT ?",
            (op.at_once,),
        )
        self._db.executemany("DELETE FROM mentions WHERE source = ? AND concept = ?", mentions)
        relations = self._keys(
            "SELECT key FROM relations WHERE source NOT IN (SELECT key FROM concepts)"
            " OR target NOT IN (SELECT key FROM concepts) LIMIT ?",
            (op.at_once,),
        )
        self._drop_relations(relations)
        notes = self._keys(
            "SELECT concept FROM described WHERE concept NOT IN (SELECT key FROM concepts) LIMIT ?",
            (op.at_once,),
        )
        self._db.execute(f"DELETE FROM described WHERE concept IN {_KEYS}", (Integers(notes),))
        concepts = self._keys(
            f"SELECT key FROM concepts c WHERE origin IN {_KEYS}"
            " AND NOT EXISTS (SELECT 1 FROM mentions WHERE concept = c.key)"
            " AND NOT EXISTS (SELECT 1 FROM relations WHERE source = c.key)"
            " AND NOT EXISTS (SELECT 1 FROM relations WHERE target = c.key)"
            " AND (? OR NOT EXISTS (SELECT 1 FROM unlinked WHERE concept = c.key)) LIMIT ?",
            # No origin is beyond: that TOLD is 0 would else be taken for no key at all.
            (Integers(op.origins or (-1,)), op.unlooked, op.at_once),
        )
        self._concepts.drop(concepts)
        full = op.at_once in (len(mentions), len(relations), len(notes), len(concepts))
        return Forgotten(0, len(concepts), len(relations), more=full)

    def _clear(self, op: ClearLearned) -> Forgotten:
        """One kind after the other, so that each step is bounded."""
        memories = self._fitting(
            f"SELECT key, {_TEXT_BYTES} FROM memories WHERE ? ORDER BY key LIMIT ?",
            1,
            op.size_bytes,
        )
        if memories:
            self.drop_memories(memories)
            return Forgotten(memories=len(memories), more=True)
        at_once = max(1, op.size_bytes // _ROW_BYTES)
        relations = self._keys("SELECT key FROM relations LIMIT ?", (at_once,))
        if relations:
            self._drop_relations(relations)
            return Forgotten(relations=len(relations), more=True)
        mentions = rows.fetch(
            self._db, "SELECT source, concept FROM mentions LIMIT ?", (4 * at_once,)
        )
        if mentions:
            self._db.executemany("DELETE FROM mentions WHERE source = ? AND concept = ?", mentions)
            return Forgotten(more=True)
        concepts = self._keys("SELECT key FROM concepts LIMIT ?", (at_once,))
        if concepts:
            self._concepts.drop(concepts)
            return Forgotten(concepts=len(concepts), more=True)
        for table in ("heard", "unlinked", "described"):
            self._db.execute(f"DELETE FROM {table}")
        return Forgotten()

    def _drop_relations(self, keys: list[int]) -> None:
        if keys:
            self._notes.add_changes(DELETE, RELATION, keys)
            self._db.execute(f"DELETE FROM relations WHERE key IN {_KEYS}", (Integers(keys),))

    def _fitting(self, sql: str, value: Any, size_bytes: int) -> list[int]:
        """Of rows (key, bytes of text) as many as may go in one commit; one at least."""
        fitting = list[int]()
        most = 1 + size_bytes // _MEMORY_BYTES
        for key, text_bytes in rows.fetch(self._db, sql, (value, most)):
            size_bytes -= _MEMORY_BYTES + (text_bytes if type(text_bytes) is int else 0)
            if fitting and size_bytes < 0:
                break
            fitting.append(key)
        return fitting

    def _keys(self, sql: str, values: tuple[Any, ...]) -> list[int]:
        return [key for (key,) in rows.fetch(self._db, sql, values)]
