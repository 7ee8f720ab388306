"""
Writes: each op as SQL, inside a transaction that the ledger has begun.

An op that fails with one of our errors has changed nothing yet, so its neighbours in the same
transaction stand; the one op of several steps, a `Save` of many, undoes itself by a savepoint.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from elytron.embed.policy import DECLINED
from elytron.errors import Conflict, Corrupt, NotFound
from elytron.ledger import carrying, rows, space, surveys, vectors, words
from elytron.ledger.database import Database
from elytron.ledger.deleting import Deletions
from elytron.ledger.embedded import EMBEDDED
from elytron.ledger.learned import LEARNED
from elytron.ledger.learning import Learning
from elytron.ledger.moves import Moves
from elytron.ledger.ops import (
    Beside,
    Delete,
    DeleteSession,
    Edit,
    IndexWords,
    Mark,
    NoteUses,
    Op,
    Reindex,
    Save,
    SaveOne,
)
from elytron.ledger.schema import (
    EDIT,
    MESSAGE,
    SAVE,
    SESSION,
    UNINDEXED_MAX,
    USER,
)
from elytron.records import Draft, Receipt
from elytron.text import folded_words

_FIND_MESSAGE = f"SELECT {rows.STORED} FROM messages m WHERE m.id = ?"
# One statement for what every save has to know; each costs more to run than to answer.
_FIND = """
SELECT (SELECT key FROM messages WHERE id = ?1), (SELECT key FROM sessions WHERE id = ?2),
    (SELECT key FROM users WHERE id = ?3), (SELECT ifnull(max(seq), 0) FROM changes),
    (SELECT position FROM tails WHERE session = (SELECT key FROM sessions WHERE id = ?2))
"""
_FIND_INDEXED = "SELECT key FROM indexed"
_FIND_UNINDEXED = "SELECT key, terms FROM messages WHERE key > ? ORDER BY key LIMIT ?"
_FIND_NEWEST = "SELECT key, session, position, role, user FROM messages ORDER BY key DESC LIMIT 1"
_FIND_LAST = (
    "SELECT key, session, position, role, user FROM messages WHERE session = ?"
    " ORDER BY position DESC LIMIT 1"
)
_NUMBER_MAX = (1 << 63) - 1  # of a column
_PAGE_BYTES = 4096
# Each page of the index is merged about once a level, of which there are four or five.
_MERGE_TIMES = 15
_MERGE_MIN_PAGES = 8
_INDEXED_MAX = 4096  # messages in one step; a server's answer is read whole
_TERMS_MAX_BYTES = 4096  # of the messages of others that are indexed along
_NOBODY = (0, None, -1, None, None)
_ADD_MESSAGE = "INSERT INTO messages VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_ADD_CHANGE = "INSERT INTO changes VALUES(?, ?, ?, ?, ?)"
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
        self,
        db: Database,
        *,
        source: object,
        change_max: int,
        wal_limit_bytes: int,
        max_concepts: int,
    ) -> None:
        self._db = db
        self._execute = db.execute
        self.source = source
        self._moves = Moves(self, db)
        self._deletions = Deletions(self, db)
        self._learning = Learning(self, db, max_concepts=max_concepts)
        self._vectors = vectors.Vectors(db, source=source)
        # Known without asking while nobody else writes; see `begin`.
        self.messages = 0
        self.granted_bytes: int | None = None
        self.graph_bytes = 0
        self.half_done = False
        self._version: int | None = None
        self._indexed: int | None = None  # the key up to which there are words
        self._newest = 0  # the key that was saved last on this connection
        self._change_max = change_max
        self._waiting_bytes = 0  # terms saved on this connection and not indexed yet
        self._waiting_max_bytes = wal_limit_bytes // 128
        self._index_max_bytes = wal_limit_bytes // 64
        self._stirred_bytes = 0  # terms of index entries written or removed since the last merge

    def begin(self) -> bool:
        """
        To be called within each transaction, before anything else.

        Returns whether another connection has written since our last commit, so that
        `messages`, `granted_bytes` and `graph_bytes` were read anew.
        """
        others_wrote = space.version(self._db) != self._version
        if others_wrote:
            self.messages = self.whole(self._execute("SELECT count(*) FROM messages").get)
            granted = self._execute("SELECT value FROM meta WHERE name = 'granted_bytes'").get
            self.granted_bytes = None if granted is None else int(granted)
            self.graph_bytes = surveys.graph_bytes(self._db)
            self.half_done = carrying.is_half(self._db, self.source)
            self._indexed = None
        self._version = None  # until this transaction has ended well
        return others_wrote

    def committed(self) -> None:
        """To be called after each commit."""
        self._version = space.version(self._db)

    @property
    def saved(self) -> bool:
        """Whether anything was saved on this connection since the last indexing."""
        return self._waiting_bytes > 0

    def index_due(self) -> bool:
        """
        Whether there are `UNINDEXED_MAX` messages without words, or their terms are a 128th of
        the WAL's limit.

        To be asked at the end of each transaction that saves. FTS5 touches four pages a commit,
        as many as all the rest; taken together for 64 messages it costs one save in 64 a
        millisecond. Reading looks at the unindexed ones itself.
        """
        if self._indexed is None:
            self._indexed = self.whole(self._execute(_FIND_INDEXED).get)
        behind = self._newest - self._indexed
        full = self._waiting_bytes >= self._waiting_max_bytes
        return behind >= UNINDEXED_MAX or (full and behind > 0)

    @property
    def index_bytes(self) -> int:
        """What one `index` may write to the WAL."""
        return words.index_bytes(min(self._waiting_bytes, self._index_max_bytes) + _TERMS_MAX_BYTES)

    def index(self) -> bool:
        """
        Index messages that have no words yet, as many as fit into one commit; whether there are
        more. In the caller's transaction.
        """
        indexed = self.whole(self._execute(_FIND_INDEXED).get)
        newest, terms_bytes, more = indexed, 0, False
        cursor = self._db.execute(_FIND_UNINDEXED, (indexed, _INDEXED_MAX))
        taken = list[tuple[int, bytes]]()
        for key, terms in cursor:
            if type(terms) is not bytes or key <= newest:
                raise self.damaged(f"message row {key}")
            more = bool(taken) and terms_bytes + len(terms) > self._index_max_bytes
            if more:
                break
            taken.append((key, terms))
            terms_bytes += len(terms)
            newest = key
        cursor.close(True)
        more = more or len(taken) == _INDEXED_MAX
        words.add(self._db, taken)
        self._execute("UPDATE indexed SET key = ?", (newest,))
        self._indexed = None  # asked again, should this be undone
        self._stirred_bytes += terms_bytes
        self._waiting_bytes = max(0, self._waiting_bytes - terms_bytes) if more else 0
        return more

    def merge_pages(self) -> int:
        """How many pages of the index are to be merged for what was indexed; then it is noted."""
        pages = _MERGE_MIN_PAGES + _MERGE_TIMES * self._stirred_bytes // _PAGE_BYTES
        self._stirred_bytes = 0
        return pages

    def apply(self, op: Op) -> Any:
        """Apply one op and return its result."""
        if self.half_done and not isinstance(op, carrying.WHILE_HALF):
            raise carrying.half_done(self.source)
        return self._apply(op)

    def _apply(self, op: Op) -> Any:
        match op:
            case SaveOne(draft, beside):
                return self._save(draft, _having(beside))
            case Save(drafts, beside):
                return self._save_many(drafts, _having(beside))
            case Edit():
                self._edit(op)
            case Delete():
                return self._deletions.delete(op)
            case DeleteSession():
                return self._deletions.delete_session(op)
            case Reindex():
                self._reindex(op)
            case Mark():
                self._mark(op)
            case IndexWords():
                return self.index()
            case NoteUses(uses):
                self.note_uses(uses)
            case _ if isinstance(op, LEARNED):
                return self._learning.apply(op)
            case _ if isinstance(op, EMBEDDED):
                return self._vectors.apply(op)
            case _:
                return self._moves.apply(op)
        return None

    def _save_many(self, drafts: tuple[Draft, ...], beside: Beside | None) -> list[Receipt]:
        self._execute("SAVEPOINT many")
        before = self.messages
        try:
            receipts = [self._save(draft, beside) for draft in drafts]
        except BaseException:
            self.messages = before
            # A full ledger has rolled all of it back already, the savepoint included.
            if not self._db.get_autocommit():
                self._execute("ROLLBACK TO many")
                self._execute("RELEASE many")
            raise
        self._execute("RELEASE many")
        return receipts

    def _save(self, draft: Draft, beside: Beside | None) -> Receipt:
        execute = self._execute
        held, session, user, changed, tail = execute(
            _FIND, (draft.id, draft.session, draft.user)
        ).get
        if held is not None:
            return self._saved_before(draft)
        if beside is not None and (told := beside.receipt(self._db, draft)) is not None:
            return told
        newest = execute(_FIND_NEWEST).get or _NOBODY
        if session is None or (user is None and draft.user is not None):
            session, user, changed = self.add_parents(draft, session, user)
        # Mostly the newest message of all; to seek the session's last one costs ten times more.
        last = newest if newest[1] == session else execute(_FIND_LAST, (session,)).get or _NOBODY
        last_key, _, last_position, last_role, last_user = last
        # A message answers the one before it, if another speaker said that.
        other = user != last_user if user or last_user else draft.role != last_role
        key = self._after(max(newest[0], changed))
        row = (
            key,
            draft.id,
            session,
            self._after(max(self.whole(last_position), -1 if tail is None else self.whole(tail))),
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
        self.add_message(row, draft)
        self._waiting_bytes += len(draft.terms)
        self._newest = key
        return Receipt(draft.id, True, draft.embedding)

    def add_message(self, row: tuple[Any, ...], draft: Draft) -> None:
        """Write the row of a message, and its mark if it has one."""
        self._execute(_ADD_MESSAGE, (*row, rows.checksum(row), draft.terms))
        self.messages += 1
        if draft.pinned or draft.importance is not None:
            self.add_mark(row[0], draft.importance, draft.pinned)

    def _saved_before(self, draft: Draft) -> Receipt:
        """Let a retry pass; refuse other content under a known id."""
        held = self._execute(_FIND_MESSAGE, (draft.id,)).get
        rows.verify(held, self.source)
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
                f"id {draft.id!r} is held with other content; use a new id, or `Agent.edit()` it"
            )
        return Receipt(draft.id, False, held[10])

    def add_parents(
        self, draft: Draft, session: int | None, user: int | None
    ) -> tuple[int, int | None, int]:
        """(session, user, last change), with those made that are missing."""
        if session is None:
            session = self.add_change(SAVE, SESSION)
            row = (session, draft.session, draft.arrived_us)
            self._execute("INSERT INTO sessions VALUES(?, ?, ?, ?)", (*row, rows.checksum(row)))
        if user is None and draft.user is not None:
            user = self.add_user(draft.user, draft.arrived_us)
        return session, user, max(session, user or 0)

    def add_user(self, id: str, arrived_us: int) -> int:
        """Write the row of a new user; returns its key."""
        key = self.add_change(SAVE, USER)
        row = (key, id, " ".join(folded_words(id)), arrived_us)
        self._execute("INSERT INTO users VALUES(?, ?, ?, ?, ?)", (*row, rows.checksum(row)))
        return key

    def _edit(self, op: Edit) -> None:
        held = self._execute(_FIND_MESSAGE, (op.id,)).get
        if held is None:
            raise NotFound(f"no message has the id {op.id!r}; nothing was changed")
        rows.verify(held, self.source)
        # Who said that a message is to have no vector said it of its next text, too.
        embedding = held[10] if held[10] == DECLINED else op.embedding
        row = (*held[:10], embedding, held[11], op.content)
        # First: where there is no number, nothing is changed.
        self.add_change(EDIT, MESSAGE, row[0])
        self._execute(
            "UPDATE messages SET content = ?, terms = ?, embedding = ?, checksum = ? WHERE key = ?",
            (op.content, op.terms, embedding, rows.checksum(row), row[0]),
        )
        self.drop_names([row[0]])
        self.drop_vectors([row[0]])
        self.replace_words([(row[0], op.terms)])

    def _mark(self, op: Mark) -> None:
        found = self._execute(
            "SELECT m.key, k.importance, k.pinned, k.checksum FROM messages m"
            " LEFT JOIN marks k ON k.key = m.key WHERE m.id = ?",
            (op.id,),
        ).get
        if found is None:
            raise NotFound(f"no message has the id {op.id!r}; nothing was changed")
        key, importance, pinned, checksum = found
        if checksum is not None and rows.checksum((key, importance, pinned)) != checksum:
            raise self.damaged(f"the mark of message row {key}")
        self.add_mark(
            key,
            importance if op.importance is None else op.importance,
            bool(pinned) if op.pinned is None else op.pinned,
        )

    def add_mark(self, key: int, importance: float | None, pinned: bool) -> None:
        """Write what was said of a message's worth; no row where that is nothing."""
        if importance is None and not pinned:
            self._execute("DELETE FROM marks WHERE key = ?", (key,))
            return
        mark = (key, importance, int(pinned))
        self._execute("REPLACE INTO marks VALUES(?, ?, ?, ?)", (*mark, rows.checksum(mark)))

    def note_uses(self, uses: Mapping[int, tuple[int, int]]) -> None:
        """Add (times, last time in us) to what is counted of messages and memories held."""
        self._db.executemany(
            "INSERT INTO uses SELECT key, ?2, ?3 FROM messages WHERE key = ?1"
            " ON CONFLICT(key) DO UPDATE SET uses = uses + ?2, last_us = max(last_us, ?3)",
            [(key, times, last_us) for key, (times, last_us) in uses.items()],
        )
        self._db.executemany(
            "UPDATE memories SET uses = uses + ?2,"
            " last_used_us = max(ifnull(last_used_us, 0), ?3) WHERE key = ?1",
            [(key, times, last_us) for key, (times, last_us) in uses.items()],
        )

    def drop_names(self, keys: Sequence[int]) -> None:
        """Erase what only these messages' texts are known to name, and nobody has told."""
        self._learning.drop_names(keys)

    def drop_vectors(self, keys: Sequence[int]) -> None:
        vectors.drop(self._db, keys)

    def replace_words(self, entries: Sequence[tuple[int, bytes]]) -> None:
        """Index messages anew, (key, hashed terms), but for those whose turn is still to come."""
        held = self.drop_words([key for key, _ in entries])
        self._stirred_bytes += sum([len(terms) for key, terms in entries if key in held])
        words.add(self._db, [entry for entry in entries if entry[0] in held])

    def drop_words(self, keys: Sequence[int]) -> frozenset[int]:
        """Take messages out of the word index; which were in it. Others' turn never comes."""
        indexed = self.whole(self._execute(_FIND_INDEXED).get)
        held = [key for key in keys if key <= indexed]
        if held:
            self._stirred_bytes += len(held) * (_PAGE_BYTES // 64)
            words.remove(self._db, held)
        return frozenset(held)

    def _reindex(self, op: Reindex) -> None:
        sql, changed = "UPDATE messages SET terms = ? WHERE key = ? AND content = ?", []
        for key, content, terms in op.entries:
            self._execute(sql, (terms, key, content))
            if self._db.changes():  # else deleted or edited in the meantime, and indexed with that
                changed.append((key, terms))
        self.replace_words(changed)
        if op.languages is not None:
            self._execute("UPDATE meta SET value = ? WHERE name = 'languages'", (op.languages,))

    def next_number(self) -> int:
        """What the next row or change is numbered."""
        return self.whole(self._execute(_NEXT).get[0])

    def _after(self, value: object) -> int:
        """The number that follows one of the ledger's own bookkeeping."""
        if self.whole(value) >= _NUMBER_MAX:
            raise self.damaged("its bookkeeping")
        return self.whole(value) + 1

    def whole(self, value: object) -> int:
        """A number of the ledger's own bookkeeping, which no checksum guards."""
        if type(value) is not int:
            raise self.damaged("its bookkeeping")
        return value

    def damaged(self, what: str) -> Corrupt:
        return Corrupt(f"{self.source}: {what} is damaged; nothing was written")

    def add_change(self, op: int, kind: int, key: int | None = None) -> int:
        """Note a change of the row *key*, or of a new row whose key is the number returned."""
        return self.add_changes(op, kind, [key])

    def add_changes(self, op: int, kind: int, keys: Sequence[int | None], *, above: int = 0) -> int:
        """
        Note changes of rows, with numbers that follow each other, all greater than *above*;
        returns the first.

        Holds at most `change_max`: the oldest tenth goes when that is reached.
        """
        seq, ordinal, oldest = map(self.whole, self._execute(_NEXT).get)
        seq = max(seq, above + 1)
        if max(seq, ordinal) > _NUMBER_MAX - len(keys):
            raise self.damaged("its bookkeeping")
        over = ordinal + len(keys) - 1 - oldest - self._change_max
        if over >= 0:
            self._execute(
                "DELETE FROM changes WHERE seq IN (SELECT seq FROM changes ORDER BY seq LIMIT ?)",
                (max(over + 1, self._change_max // 10),),
            )
        added = [
            (seq + nth, ordinal + nth, op, kind, seq + nth if key is None else key)
            for nth, key in enumerate(keys)
        ]
        if len(added) == 1:
            self._execute(_ADD_CHANGE, added[0])
        else:
            self._db.executemany(_ADD_CHANGE, added[-self._change_max :])
        return seq


def _having(beside: Beside | None) -> Beside | None:
    """What holds messages that are to be saved, if it does."""
    return None if beside is None or beside.is_clear() else beside
