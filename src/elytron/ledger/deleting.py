"""
Deleting: the ops by which single messages and sessions leave a ledger for good.

Part of `writes.py`, under whose transaction all of it runs.
"""

from collections.abc import Sequence
from typing import Protocol

from elytron.ledger import rows
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.learned import BY_EXTRACTOR
from elytron.ledger.ops import DELETED_BYTES, Delete, DeleteSession
from elytron.ledger.schema import DELETE, MESSAGE, RELATION, SESSION

_KEYS = "(SELECT value FROM carray(?))"
_READ_BYTES = 4 * 4096  # of a concept or fact that was read in a message, and goes with it


class Transaction(Protocol):
    """What is needed of the writes that this is a part of."""

    messages: int

    def add_change(self, op: int, kind: int, key: int | None = None) -> int: ...
    def add_changes(
        self, op: int, kind: int, keys: Sequence[int | None], *, above: int = 0
    ) -> int: ...
    def drop_names(self, keys: Sequence[int]) -> None: ...
    def drop_vectors(self, keys: Sequence[int]) -> None: ...
    def drop_words(self, keys: Sequence[int]) -> object: ...
    def next_number(self) -> int: ...
    def whole(self, value: object) -> int: ...


class Deletions:
    """The deleting statements of one connection."""

    def __init__(self, writes: Transaction, db: Database) -> None:
        self._writes = writes
        self._db = db

    def delete(self, op: Delete) -> bool:
        """Apply a `Delete`; see there."""
        self._note_gone(MESSAGE, op.id)
        key = self._db.execute("SELECT key FROM messages WHERE id = ?", (op.id,)).get
        if key is None:
            return False
        self._drop_messages([key])
        return True

    def delete_session(self, op: DeleteSession) -> tuple[int, bool]:
        """Apply a `DeleteSession`; see there."""
        self._note_gone(SESSION, op.session)
        session = self._db.execute("SELECT key FROM sessions WHERE id = ?", (op.session,)).get
        if session is None:
            return 0, False
        leaving, room_bytes = list[int](), op.size_bytes
        for key, text_bytes, read in rows.fetch(
            self._db,
            "SELECT m.key, octet_length(m.content) + ifnull(octet_length(m.metadata), 0),"
            " (SELECT count(*) FROM mentions n WHERE n.source = m.key"
            f" AND n.told = {BY_EXTRACTOR})"
            " + (SELECT count(*) FROM relations r WHERE r.learned_from = m.key)"
            " FROM messages m WHERE m.session = ? ORDER BY m.position LIMIT ?",
            (session, 1 + op.size_bytes // DELETED_BYTES),
        ):
            room_bytes -= DELETED_BYTES + _READ_BYTES * read + self._writes.whole(text_bytes)
            if leaving and room_bytes < 0:
                self._drop_messages(leaving)
                return len(leaving), True
            leaving.append(self._writes.whole(key))
        self._drop_messages(leaving)
        learned = "SELECT EXISTS (SELECT 1 FROM memories WHERE session = ?)"
        if not self._db.execute(learned, (session,)).get:  # else it goes with the last of these
            self._db.execute("DELETE FROM sessions WHERE key = ?", (session,))
            self._writes.add_change(DELETE, SESSION, session)
        return len(leaving), False

    def _note_gone(self, kind: int, id: str) -> None:
        """Keep copies that are on their way to the archive, or back from it, from staying."""
        if self._db.execute("SELECT EXISTS (SELECT 1 FROM moving)").get:
            newest = self._writes.next_number() - 1  # the next may be that of a new message
            self._db.execute("REPLACE INTO gone VALUES(?, ?, ?)", (kind, id, newest))

    def _drop_messages(self, leaving: Sequence[int]) -> None:
        if not leaving:
            return
        self._writes.next_number()  # where there is none, that is told before anything is changed
        keys = (Integers(leaving),)
        # What was read in them alone is deleted with them; an archived one keeps its facts.
        learned = f"learned_from IN {_KEYS}"
        facts = rows.fetch(self._db, f"SELECT key FROM relations WHERE {learned}", keys)
        if facts:
            self._writes.add_changes(DELETE, RELATION, [fact for (fact,) in facts])
            self._db.execute(f"DELETE FROM relations WHERE {learned}", keys)
        self._writes.drop_names(leaving)  # once no fact holds them
        # Noted first: the numbers have to lie above the keys, which may be the newest.
        self._writes.add_changes(DELETE, MESSAGE, leaving)
        self._db.execute(f"DELETE FROM messages WHERE key IN {_KEYS}", keys)
        self._writes.drop_words(leaving)
        self._writes.drop_vectors(leaving)
        for table in ("marks", "uses"):
            self._db.execute(f"DELETE FROM {table} WHERE key IN {_KEYS}", keys)
        self._db.execute(f"DELETE FROM mentions WHERE source IN {_KEYS}", keys)
        self._writes.messages -= len(leaving)
