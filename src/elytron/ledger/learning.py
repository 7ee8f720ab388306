"""
Learning: the ops on memories, concepts and relations as SQL, inside a transaction of the ledger.

Each op stands behind a savepoint, so one that fails has changed nothing. Forgetting is in
`unlearning.py`, what the background finds in texts in `linking.py`, reading in `knowledge.py`.
"""

from collections.abc import Sequence
from typing import Any

from elytron.errors import Conflict, InvalidArgument, NotFound
from elytron.ledger import rows, vectors
from elytron.ledger.database import Database
from elytron.ledger.learned import (
    BY_PERSON,
    ClearLearned,
    CloseMemory,
    DeleteConcept,
    DeleteMemory,
    EditMemory,
    ForgetHeard,
    ForgetLearned,
    LearnedOp,
    Link,
    MemoryDraft,
    ReindexMemories,
    Remember,
    SetConcept,
    SweepLearned,
)
from elytron.ledger.linking import Links
from elytron.ledger.naming import Concepts, Notes
from elytron.ledger.relating import Relations
from elytron.ledger.schema import EDIT, MEMORY, SAVE, SESSION
from elytron.ledger.unlearning import Unlearning
from elytron.records import Receipt

# In the order of the checksum, which follows them; the session is a key.
MEMORY_COLUMNS = (
    "m.key, m.id, m.content, m.kind, m.importance, m.pinned, m.session, m.valid_from_us,"
    " m.valid_to_us, m.created_us, m.metadata, m.checksum"
)
_FIND = f"SELECT {MEMORY_COLUMNS} FROM memories m WHERE m.id = ?"
_CONTENT, _SESSION, _FROM, _TO = 2, 6, 7, 8


class Learning:
    """The statements on what was learned, of one connection."""

    def __init__(self, notes: Notes, db: Database, *, max_concepts: int) -> None:
        self._notes = notes
        self._db = db
        self._concepts = Concepts(notes, db, max_concepts=max_concepts)
        self._relations = Relations(notes, db, self._concepts)
        self._links = Links(notes, db, self._concepts, self._relations)
        self._unlearning = Unlearning(notes, db, self._concepts)

    def apply(self, op: LearnedOp) -> Any:
        """Apply one op, or after an error nothing of it, and return its result."""
        self._db.execute("SAVEPOINT learned")
        try:
            result = self._apply(op)
        except BaseException:
            # A full ledger has rolled all of it back already, the savepoint included.
            if not self._db.get_autocommit():
                self._db.execute("ROLLBACK TO learned")
                self._db.execute("RELEASE learned")
            raise
        self._db.execute("RELEASE learned")
        return result

    def drop_names(self, messages: Sequence[int]) -> None:
        """See `Unlearning.drop_names`."""
        self._unlearning.drop_names(messages)

    def _apply(self, op: LearnedOp) -> Any:
        match op:
            case Remember():
                return self._remember(op)
            case EditMemory():
                self._edit(op)
            case CloseMemory():
                self._close(op.id, op.at_us, keep_end=not op.at_given, clip=False)
            case DeleteMemory():
                return self._delete(op.id)
            case SetConcept():
                return self._concepts.change(op)
            case DeleteConcept():
                return self._delete_concept(op)
            case ReindexMemories():
                self._db.executemany(
                    "UPDATE memories SET terms = ?3 WHERE key = ?1 AND content = ?2", op.entries
                )
            case Link():
                return self._links.link(op)
            case ForgetLearned() | SweepLearned() | ForgetHeard() | ClearLearned():
                return self._unlearning.apply(op)
            case _:
                return self._relations.apply(op)
        return None

    # -- memories

    def _remember(self, op: Remember) -> Receipt:
        draft = op.draft
        held = self._db.execute(_FIND, (draft.id,)).get
        if held is not None:
            return self._remembered_before(held, draft)
        if op.replaces is not None:
            at_us = draft.created_us if draft.valid_from_us is None else draft.valid_from_us
            self._close(op.replaces, at_us, keep_end=True, clip=not draft.from_given)
        concepts = self._concepts.tell(op.about, draft.created_us)
        session = None if draft.session is None else self._session(draft)
        key = self._notes.add_change(SAVE, MEMORY)
        row = (
            key, draft.id, draft.content, draft.kind, draft.importance, int(draft.pinned), session,
            draft.valid_from_us, draft.valid_to_us, draft.created_us, draft.metadata,
        )  # fmt: skip
        self._db.execute(
            f"INSERT INTO memories VALUES({','.join('?' * 15)})",
            (*row, rows.checksum(row), None, 0, draft.terms),
        )
        self._db.executemany(
            "INSERT OR IGNORE INTO mentions VALUES(?, ?, 1.0, ?)",
            [(key, concept, BY_PERSON) for concept in concepts],
        )
        return Receipt(draft.id)

    def _remembered_before(self, held: tuple[Any, ...], draft: MemoryDraft) -> Receipt:
        """Let a retry pass; refuse other content under a known id."""
        self._verify(held)
        session = self._db.execute("SELECT id FROM sessions WHERE key = ?", (held[_SESSION],)).get
        same = (held[_CONTENT], held[3], session, held[10]) == (
            draft.content,
            draft.kind,
            draft.session,
            draft.metadata,
        )
        if not same or (draft.from_given and held[_FROM] != draft.valid_from_us):
            raise Conflict(
                f"memory id {draft.id!r} is held with other content; use a new id, or"
                " `Agent.edit_memory()` it"
            )
        return Receipt(draft.id, new=False)

    def _session(self, draft: MemoryDraft) -> int:
        """The key of the session that it was learned in, which is made if it is new."""
        found = self._db.execute("SELECT key FROM sessions WHERE id = ?", (draft.session,)).get
        if found is not None:
            return int(found)
        key = self._notes.add_change(SAVE, SESSION)
        row = (key, draft.session, draft.created_us)
        self._db.execute("INSERT INTO sessions VALUES(?, ?, ?, ?)", (*row, rows.checksum(row)))
        return key

    def _edit(self, op: EditMemory) -> None:
        held = self._held(op.id)
        if held[_CONTENT] != op.content:
            self._write((*held[:_CONTENT], op.content, *held[_CONTENT + 1 :]))
            vectors.drop(self._db, [held[0]])
        self._db.execute("UPDATE memories SET terms = ? WHERE key = ?", (op.terms, held[0]))

    def _close(self, id: str, at_us: int, *, keep_end: bool, clip: bool) -> None:
        """
        End a memory at a time.

        Args:
            keep_end: one that ended before stays as it is.
            clip: one that begins later never held; else it is refused.
        """
        held = self._held(id)
        if held[_TO] is not None and keep_end and held[_TO] <= at_us:
            return
        if held[_FROM] is not None and clip:
            at_us = max(at_us, held[_FROM])
        if held[_FROM] is not None and held[_FROM] > at_us:
            raise InvalidArgument(
                f"memory {id!r} holds from {rows.to_datetime(held[_FROM]).isoformat()} on, and"
                " cannot end before that; nothing was changed"
            )
        if held[_TO] != at_us:
            self._write((*held[:_TO], at_us, *held[_TO + 1 :]))

    def _delete(self, id: str) -> bool:
        key = self._db.execute("SELECT key FROM memories WHERE id = ?", (id,)).get
        if key is None:
            return False
        self._unlearning.drop_memories([key])
        return True

    def _held(self, id: str) -> tuple[Any, ...]:
        """The row of a memory, verified, without its checksum."""
        held = self._db.execute(_FIND, (id,)).get
        if held is None:
            raise NotFound(f"no memory has the id {id!r}; nothing was changed")
        self._verify(held)
        return tuple(held[:-1])

    def _verify(self, held: tuple[Any, ...]) -> None:
        if rows.checksum(tuple(held[:-1])) != held[-1]:
            raise self._notes.damaged(f"memory row {held[0]}")

    def _write(self, row: tuple[Any, ...]) -> None:
        self._db.execute(
            "UPDATE memories SET content = ?, valid_to_us = ?, checksum = ? WHERE key = ?",
            (row[_CONTENT], row[_TO], rows.checksum(row), row[0]),
        )
        self._notes.add_change(EDIT, MEMORY, row[0])

    def _delete_concept(self, op: DeleteConcept) -> tuple[bool, bool]:
        # By its name alone, so that a damaged one can go.
        key = self._db.execute("SELECT key FROM concepts WHERE folded = ?", (op.folded,)).get
        if key is None:
            return False, False
        return True, self._concepts.drop([key], at_once=op.at_once)
