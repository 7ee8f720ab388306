"""
Writes: each op as SQL, inside a transaction that the ledger has begun.

An op that fails with one of our errors has changed nothing yet, so its neighbours in the same
transaction stand; the one op of several steps, a `Save` of many, undoes itself by a savepoint.
"""

import time
from typing import Any

import apsw

from elytron.errors import Conflict, Corrupt, NotFound
from elytron.ledger import rows
from elytron.ledger.ops import (
    DELETED_BYTES,
    Delete,
    DeleteSession,
    Edit,
    Op,
    Reindex,
    Save,
    SaveOne,
)
from elytron.ledger.schema import DELETE, EDIT, MESSAGE, SAVE, SESSION, UNINDEXED_MAX, USER
from elytron.records import Draft, Receipt
from elytron.text import folded_words

_FIND_MESSAGE = f"SELECT {rows.STORED} FROM messages m WHERE m.id = ?"
# One statement for what every save has to know; each costs more to run than to answer.
_FIND = """
SELECT (SELECT key FROM messages WHERE id = ?1), (SELECT key FROM sessions WHERE id = ?2),
    (SELECT key FROM users WHERE id = ?3), (SELECT ifnull(max(seq), 0) FROM changes)
"""
_FIND_INDEXED = "SELECT key FROM indexed"
_FIND_NEWEST = "SELECT key, session, position, role, user FROM messages ORDER BY key DESC LIMIT 1"
_FIND_LAST = (
    "SELECT key, session, position, role, user FROM messages WHERE session = ?"
    " ORDER BY position DESC LIMIT 1"
)
_PAGE_BYTES = 4096
# The index of a message takes about twice the bytes of its hashed terms; WAL frames for it, and
# for the pages around, three times. Each page of it is merged about once a level, of which there
# are four or five.
_INDEXED_TIMES = 3
_MERGE_TIMES = 15
_MERGE_MIN_PAGES = 8
_NOBODY = (0, None, -1, None, None)
_ADD_MESSAGE = "INSERT INTO messages VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_ADD_WORDS = "INSERT INTO words(rowid, terms) VALUES(?, ?)"
# (next number of the one sequence, next ordinal, oldest ordinal)
_NEXT = """
SELECT 1 + max((SELECT ifnull(max(key), 0) FROM messages),
        (SELECT ifnull(max(seq), 0) FROM changes)),
    1 + ifnull((SELECT ordinal FROM changes ORDER BY seq DESC LIMIT 1), 0),
    ifnull((SELECT ordinal FROM changes ORDER BY seq LIMIT 1), 1)
"""


class Writes:
    """The writing statements of one connection. *source* names the ledger in errors."""

    def __init__(
        self, db: apsw.Connection, *, source: object, change_max: int, wal_limit_bytes: int
    ) -> None:
        self._db = db
        self._execute = db.execute
        self._source = source
        self._change_max = change_max
        self._waiting_bytes = 0  # terms saved on this connection and not indexed yet
        self._waiting_max_bytes = wal_limit_bytes // 128
        self._stirred_bytes = 0  # terms of index entries written or removed since the last merge
        self._merge_max_pages = wal_limit_bytes // _PAGE_BYTES // 8

    @property
    def backlog_bytes(self) -> int:
        """What indexing the waiting messages would write, besides merging."""
        return _INDEXED_TIMES * self._waiting_bytes

    def catch_up(self) -> None:
        """
        Index the messages that have no words yet, once there are `UNINDEXED_MAX` of them or
        their terms are a 128th of the WAL's limit, and merge a little of the index.

        To be called at the end of each transaction that saves. FTS5 touches four pages a
        commit, as many as all the rest; taken together for 64 messages it costs one save in 64
        a millisecond. Reading looks at the unindexed ones itself.
        """
        newest = self._execute("SELECT ifnull(max(key), 0) FROM messages").get
        indexed = self._whole(self._execute(_FIND_INDEXED).get)
        if newest - indexed < UNINDEXED_MAX and self._waiting_bytes < self._waiting_max_bytes:
            return
        for key, terms in rows.fetch(
            self._db, "SELECT key, terms FROM messages WHERE key > ? ORDER BY key", (indexed,)
        ):
            if type(terms) is not bytes:
                raise self._damaged(f"message row {key}")
            self._execute(_ADD_WORDS, (key, rows.to_tokens(terms)))
            self._stirred_bytes += len(terms)
        self._execute("UPDATE indexed SET key = ?", (newest,))
        pages = _MERGE_MIN_PAGES + _MERGE_TIMES * self._stirred_bytes // _PAGE_BYTES
        self._execute(
            "INSERT INTO words(words, rank) VALUES('merge', ?)",
            (min(pages, self._merge_max_pages),),
        )
        self._waiting_bytes = self._stirred_bytes = 0

    def apply(self, op: Op) -> Any:
        """Apply one op and return its result."""
        match op:
            case SaveOne(draft):
                return self._save(draft)
            case Save(drafts):
                return self._save_many(drafts)
            case Edit():
                self._edit(op)
            case Delete():
                return self._delete(op)
            case DeleteSession():
                return self._delete_session(op)
            case Reindex():
                self._reindex(op)
        return None

    def _save_many(self, drafts: tuple[Draft, ...]) -> list[Receipt]:
        self._execute("SAVEPOINT many")
        try:
            receipts = [self._save(draft) for draft in drafts]
        except BaseException:
            # A full ledger has rolled all of it back already, the savepoint included.
            if not self._db.get_autocommit():
                self._execute("ROLLBACK TO many")
                self._execute("RELEASE many")
            raise
        self._execute("RELEASE many")
        return receipts

    def _save(self, draft: Draft) -> Receipt:
        execute = self._execute
        held, session, user, changed = execute(_FIND, (draft.id, draft.session, draft.user)).get
        if held is not None:
            return self._saved_before(draft)
        newest = execute(_FIND_NEWEST).get or _NOBODY
        if session is None or (user is None and draft.user is not None):
            session, user, changed = self._add_parents(draft, session, user)
        # Mostly the newest message of all; to seek the session's last one costs ten times more.
        last = newest if newest[1] == session else execute(_FIND_LAST, (session,)).get or _NOBODY
        last_key, _, last_position, last_role, last_user = last
        # A message answers the one before it, if another speaker said that.
        other = user != last_user if user or last_user else draft.role != last_role
        key = max(newest[0], changed) + 1
        row = (
            key,
            draft.id,
            session,
            self._whole(last_position) + 1,
            user,
            last_key if last_key and other else None,
            draft.role,
            draft.at_us,
            draft.offset_min,
            draft.arrived_us,
            draft.embedding,
            draft.metadata,
            draft.content,
        )
        execute(_ADD_MESSAGE, (*row, rows.checksum(row), draft.terms))
        self._waiting_bytes += len(draft.terms)
        return Receipt(draft.id, True, draft.embedding)

    def _saved_before(self, draft: Draft) -> Receipt:
        """Let a retry pass; refuse other content under a known id."""
        held = self._execute(_FIND_MESSAGE, (draft.id,)).get
        rows.verify(held, self._source)
        session = self._execute("SELECT id FROM sessions WHERE key = ?", (held[2],)).get
        user = None
        if held[4] is not None:
            user = self._execute("SELECT id FROM users WHERE key = ?", (held[4],)).get
        same = (session, user, held[6], held[11], held[12]) == (
            draft.session,
            draft.user,
            draft.role,
            draft.metadata,
            draft.content,
        )
        if not same or (draft.at_given and held[7] != draft.at_us):
            raise Conflict(
                f"id {draft.id!r} is held with other content; use a new id, or `edit` that message"
            )
        return Receipt(draft.id, False, held[10])

    def _add_parents(
        self, draft: Draft, session: int | None, user: int | None
    ) -> tuple[int, int | None, int]:
        """(session, user, last change), with those made that are missing."""
        if session is None:
            session = self._add_change(SAVE, SESSION)
            row = (session, draft.session, draft.arrived_us)
            self._execute("INSERT INTO sessions VALUES(?, ?, ?, ?)", (*row, rows.checksum(row)))
        if user is None and draft.user is not None:
            user = self._add_change(SAVE, USER)
            folded = " ".join(folded_words(draft.user))
            named = (user, draft.user, folded, draft.arrived_us)
            self._execute("INSERT INTO users VALUES(?, ?, ?, ?, ?)", (*named, rows.checksum(named)))
        return session, user, max(session, user or 0)

    def _edit(self, op: Edit) -> None:
        held = self._execute(_FIND_MESSAGE, (op.id,)).get
        if held is None:
            raise NotFound(f"no message has the id {op.id!r}; nothing was changed")
        rows.verify(held, self._source)
        row = (*held[:12], op.content)
        self._execute(
            "UPDATE messages SET content = ?, terms = ?, checksum = ? WHERE key = ?",
            (op.content, op.terms, rows.checksum(row), row[0]),
        )
        self._replace_words(row[0], op.terms)
        self._add_change(EDIT, MESSAGE, row[0])

    def _delete(self, op: Delete) -> bool:
        key = self._execute("SELECT key FROM messages WHERE id = ?", (op.id,)).get
        if key is None:
            return False
        self._drop_message(key)
        return True

    def _delete_session(self, op: DeleteSession) -> tuple[int, bool]:
        session = self._execute("SELECT key FROM sessions WHERE id = ?", (op.session,)).get
        if session is None:
            return 0, False
        removed, room_bytes = 0, op.size_bytes
        for key, text_bytes in rows.fetch(
            self._db,
            "SELECT key, octet_length(content) + ifnull(octet_length(metadata), 0)"
            " FROM messages WHERE session = ? ORDER BY position LIMIT ?",
            (session, 1 + op.size_bytes // DELETED_BYTES),
        ):
            room_bytes -= DELETED_BYTES + self._whole(text_bytes)
            if removed and room_bytes < 0:
                return removed, True
            self._drop_message(key)
            removed += 1
        self._execute("DELETE FROM sessions WHERE key = ?", (session,))
        self._add_change(DELETE, SESSION, session)
        return removed, False

    def _drop_message(self, key: int) -> None:
        # Noted first: the number has to lie above the key, which may be the newest.
        self._add_change(DELETE, MESSAGE, key)
        self._execute("DELETE FROM messages WHERE key = ?", (key,))
        self._replace_words(key, None)
        self._execute("DELETE FROM vectors WHERE key = ?", (key,))
        self._execute("DELETE FROM edges WHERE source = ? OR target = ?", (key, key))

    def _replace_words(self, key: int, terms: bytes | None) -> None:
        if key <= self._whole(self._execute(_FIND_INDEXED).get):  # else its turn is still to come
            self._stirred_bytes += len(terms or b"") + _PAGE_BYTES // 64
            self._execute("DELETE FROM words WHERE rowid = ?", (key,))
            if terms is not None:
                self._execute(_ADD_WORDS, (key, rows.to_tokens(terms)))

    def _reindex(self, op: Reindex) -> None:
        for key, content, terms in op.entries:
            self._execute(
                "UPDATE messages SET terms = ? WHERE key = ? AND content = ?", (terms, key, content)
            )
            if self._db.changes():  # else deleted or edited in the meantime, and indexed with that
                self._replace_words(key, terms)
        if op.languages is not None:
            self._execute("UPDATE meta SET value = ? WHERE name = 'languages'", (op.languages,))

    def _whole(self, value: object) -> int:
        """A number of the ledger's own bookkeeping, which no checksum guards."""
        if type(value) is not int:
            raise self._damaged("its bookkeeping")
        return value

    def _damaged(self, what: str) -> Corrupt:
        return Corrupt(f"{self._source}: {what} is damaged; nothing was written")

    def _add_change(self, op: int, kind: int, key: int | None = None) -> int:
        """
        Note a change of the row *key*, or of a new row whose key is the number returned.

        Holds at most `change_max`: the oldest tenth goes when that is reached.
        """
        seq, ordinal, oldest = map(self._whole, self._execute(_NEXT).get)
        if ordinal - oldest >= self._change_max:
            self._execute(
                "DELETE FROM changes WHERE seq IN (SELECT seq FROM changes ORDER BY seq LIMIT ?)",
                (max(1, self._change_max // 10),),
            )
        self._execute(
            "INSERT INTO changes VALUES(?, ?, ?, ?, ?)",
            (seq, ordinal, op, kind, seq if key is None else key),
        )
        return seq


def set_up(db: apsw.Connection, *, name: str, languages: str) -> None:
    """The first rows of a new ledger."""
    created_us = time.time_ns() // 1000
    for key, value in (("agent", name), ("languages", languages), ("created_us", created_us)):
        db.execute("INSERT INTO meta VALUES(?, ?)", (key, str(value)))
    db.execute("INSERT INTO indexed VALUES(0)")


def identity(db: apsw.Connection, source: object) -> tuple[str, str]:
    """(agent, languages) as the ledger itself has them."""
    found = dict(rows.fetch(db, "SELECT name, value FROM meta"))
    if "agent" not in found or "languages" not in found:
        raise Corrupt(f"{source} does not say whose it is; the file was left as it is")
    return found["agent"], found["languages"]
