"""
Moves: the ops by which messages leave a ledger in numbers, come back, and leave room behind.

Part of `writes.py`, under whose transaction all of it runs.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

from elytron.errors import Conflict
from elytron.ledger import rows, space, words
from elytron.ledger.beginning import note_repair
from elytron.ledger.carried import CARRIED
from elytron.ledger.carrying import Carrying
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.ops import (
    AllowGraph,
    Expel,
    GoOn,
    Grant,
    MergeWords,
    Move,
    Moved,
    NoteGone,
    Op,
    PutName,
    Remove,
    ResetWords,
    Restore,
    Returning,
    TakeOver,
    Tidy,
    Vacuum,
)
from elytron.ledger.schema import (
    CONCEPT,
    DELETE,
    EDIT,
    MEMORY,
    MESSAGE,
    RELATION,
    SAVE,
    SESSION,
    USER,
)
from elytron.records import Draft
from elytron.text import folded_words

_KEYS = "(SELECT value FROM carray(?))"
TAKEN_OVER = "heal:"  # before the name of a segment whose moving was ended by another


class Transaction(Protocol):
    """What is needed of the writes that this is a part of."""

    source: object
    messages: int
    granted_bytes: int | None
    graph_bytes: int
    half_done: bool

    def add_change(self, op: int, kind: int, key: int | None = None) -> int: ...
    def add_changes(
        self, op: int, kind: int, keys: Sequence[int | None], *, above: int = 0
    ) -> int: ...
    def add_message(self, row: tuple[Any, ...], draft: Draft) -> None: ...
    def add_user(self, id: str, arrived_us: int) -> int: ...
    def drop_vectors(self, keys: Sequence[int]) -> None: ...
    def drop_words(self, keys: Sequence[int]) -> object: ...
    def replace_words(self, entries: Sequence[tuple[int, bytes]]) -> None: ...
    def whole(self, value: object) -> int: ...


class Taken(NamedTuple):
    """
    What a `Remove` took.

    `keys` are those of the messages: of two who archive the same, and of who archives beside one
    who edits or deletes, each has to know what left by its own hand.
    """

    messages: int = 0
    keys: tuple[int, ...] = ()


class Moves:
    """The moving statements of one connection."""

    def __init__(self, writes: Transaction, db: Database) -> None:
        self._writes = writes
        self._db = db

    def apply(self, op: Op) -> Any:
        """Apply one op and return its result."""
        match op:
            case Move(segments, run):
                return self._move(segments, run)
            case Moved(segments, run):
                self._moved(segments, run)
            case TakeOver(dead, run):
                return self._take_over(dead, run)
            case NoteGone(keys):
                self._note_gone(keys)
            case Remove():
                return self._remove(op)
            case Restore(returning, segment, run):
                if segment is not None:
                    self._check_moving((segment,), run)
                came = [one for one in returning if self._restore(one)]
                self._writes.replace_words([(one.key, one.draft.terms) for one in came])
                return len(came)
            case Tidy(at_once):
                return self._tidy(at_once)
            case _:
                return self._clean(op)
        return None

    def _clean(self, op: Op) -> Any:
        """What is left to be done when messages have moved."""
        match op:
            case Expel():
                return self._expel(op)
            case PutName():
                return self._put_name(op)
            case GoOn(number):
                self._go_on(number)
            case ResetWords():
                self._reset_words()
            case Vacuum(pages):
                return space.vacuum(self._db, pages)
            case MergeWords(pages, _, begin):
                return words.merge(self._db, -pages if begin else pages)
            case Grant(granted_bytes):
                self._grant(granted_bytes)
            case AllowGraph(graph_bytes):
                self._db.execute("REPLACE INTO meta VALUES('graph_bytes', ?)", (str(graph_bytes),))
                self._writes.graph_bytes = graph_bytes
            case _ if isinstance(op, CARRIED):
                return Carrying(self._writes, self._db).apply(op)
            case _:  # or a caller would take it for done
                raise AssertionError(f"no op of a ledger: {type(op).__name__}")
        return None

    def _move(self, segments: Sequence[str], run: str) -> bool:
        is_taken = False
        for segment in segments:
            taken_over = f"{TAKEN_OVER}{segment}"
            for name, by in rows.fetch(
                self._db,
                "SELECT segment, run FROM moving WHERE segment IN (VALUES(?), (?))",
                (segment, taken_over),
            ):
                if name == taken_over:
                    raise self._ended()
                is_taken = is_taken or by != run
        self._db.executemany(
            "REPLACE INTO moving VALUES(?, ?)", [(segment, run) for segment in segments]
        )
        return is_taken

    def _moved(self, segments: Sequence[str], run: str) -> None:
        for segment in segments:
            self._db.execute("DELETE FROM moving WHERE segment = ? AND run = ?", (segment, run))
        self._db.execute("DELETE FROM gone WHERE NOT EXISTS (SELECT 1 FROM moving)")

    def _take_over(self, dead: Sequence[str], run: str) -> int:
        taken = 0
        for one in dead:
            # What was taken over before keeps its name; the others' names may be taken by it.
            self._db.execute(
                "REPLACE INTO moving SELECT DISTINCT"
                " CASE WHEN segment LIKE ?3 || '%' THEN segment ELSE ?3 || segment END, ?2"
                " FROM moving WHERE run = ?1",
                (one, run, TAKEN_OVER),
            )
            taken += self._db.changes()
            self._db.execute(
                "DELETE FROM moving WHERE run = ? AND segment NOT LIKE ? || '%'", (one, TAKEN_OVER)
            )
        return taken

    def _note_gone(self, keys: Sequence[int]) -> None:
        if self._db.execute("SELECT EXISTS (SELECT 1 FROM moving)").get:
            self._db.executemany(
                "INSERT OR IGNORE INTO gone VALUES(0, ?, ?)", [(str(key), key) for key in keys]
            )

    def _remove(self, op: Remove) -> Taken:
        self._check_moving(op.segments, op.run)
        held = {
            key: version(row, mark)
            for key, row, mark in rows.fetch(
                self._db,
                "SELECT m.key, m.checksum, k.checksum FROM messages m"
                f" LEFT JOIN marks k ON k.key = m.key WHERE m.key IN {_KEYS}",
                (Integers([key for key, _ in op.rows]),),
            )
        }
        leaving = [
            key
            for key, checksum in op.rows
            if key in held and (checksum is None or held[key] == checksum)
        ]
        self._drop(leaving)
        return Taken(len(leaving), tuple(leaving))

    def _check_moving(self, segments: Collection[str], run: str) -> None:
        """
        Raises:
            Conflict: somebody took the run for dead and has put right what it did, or brings back
                what it archived. All stays where it is.
        """
        noted = rows.fetch(self._db, "SELECT segment FROM moving WHERE run = ?", (run,))
        if not {segment for (segment,) in noted}.issuperset(segments):
            raise self._ended()

    def _ended(self) -> Conflict:
        return Conflict(
            f"{self._writes.source}: another process has ended this archiving or restoring; this"
            " step moved nothing: run it again"
        )

    def _drop(self, leaving: list[int]) -> None:
        if not leaving:
            return
        keys = Integers(leaving)
        # A position that was given away is not given again, or the message could not come back to
        # it: also not where one that stays has a higher one, which may be deleted; nor where one
        # that left before had it.
        self._db.execute(
            "INSERT INTO tails SELECT session, max(position) FROM messages"
            f" WHERE key IN {_KEYS} GROUP BY session"
            " ON CONFLICT(session) DO UPDATE SET position = max(position, excluded.position)",
            (keys,),
        )
        # The numbers have to lie above the keys, which may be the newest; but the rows go first,
        # since what they leave may be all the room there is.
        newest = self._db.execute("SELECT ifnull(max(key), 0) FROM messages").get
        self._db.execute(f"DELETE FROM messages WHERE key IN {_KEYS}", (keys,))
        self._writes.add_changes(DELETE, MESSAGE, leaving, above=self._writes.whole(newest))
        self._writes.messages -= len(leaving)
        self._drop_beside(leaving)

    def _drop_beside(self, gone: list[int]) -> None:
        """Remove what stands beside messages: words, vectors, marks, mentions."""
        self._writes.drop_words(gone)
        self._writes.drop_vectors(gone)
        keys = Integers(gone)
        for table in ("marks", "uses"):
            self._db.execute(f"DELETE FROM {table} WHERE key IN {_KEYS}", (keys,))
        self._db.execute(f"DELETE FROM mentions WHERE source IN {_KEYS}", (keys,))

    def _restore(self, returning: Returning) -> bool:
        """Bring one message back to its key and place, but not if its id, or its key, is held."""
        draft = returning.draft
        if self._db.execute(
            "SELECT 1 FROM messages WHERE id = ? OR key = ?", (draft.id, returning.key)
        ).get:
            return False
        if self._db.execute(
            "SELECT 1 FROM gone WHERE (kind, id) IN (VALUES(?, ?), (?, ?), (0, ?)) AND key >= ?",
            (MESSAGE, draft.id, SESSION, draft.session, str(returning.key), returning.key),
        ).get:
            return False
        session = self._session(returning, draft)
        user = None
        if draft.user is not None:
            user = self._db.execute("SELECT key FROM users WHERE id = ?", (draft.user,)).get
            if user is None:
                user = self._writes.add_user(draft.user, draft.arrived_us)
        row = (
            returning.key,
            draft.id,
            session,
            self._place(session, returning),
            user,
            returning.responds_to,
            draft.role,
            draft.at_us,
            draft.offset_min,
            draft.arrived_us,
            draft.embedding,
            draft.metadata,
            draft.content,
        )
        self._writes.add_message(row, draft)
        # Its key is behind what later readers have seen, so it is told again.
        self._writes.add_change(SAVE, MESSAGE, returning.key)
        return True

    def _session(self, returning: Returning, draft: Draft) -> int:
        found = self._db.execute("SELECT key FROM sessions WHERE id = ?", (draft.session,)).get
        if found is not None:
            return self._writes.whole(found)
        row = (returning.session_key, draft.session, draft.arrived_us)
        self._db.execute("INSERT INTO sessions VALUES(?, ?, ?, ?)", (*row, rows.checksum(row)))
        newest = self._writes.add_change(SAVE, SESSION, returning.session_key)
        # Which positions it gave away is forgotten, but each message took a number of the sequence:
        # what is saved from now on comes after all that may still come back.
        self._db.execute(
            "REPLACE INTO tails VALUES(?, ?)",
            (returning.session_key, newest - returning.session_key),
        )
        return returning.session_key

    def _place(self, session: int, returning: Returning) -> int:
        """
        Its old position; if the session was begun anew in the meantime, one before 0.

        That one is counted from the key of the new session, so that the old messages stand in
        their order whichever comes back first.
        """
        position = returning.position
        if session != returning.session_key:
            position = returning.key - session
        taken = self._db.execute(
            "SELECT 1 FROM messages WHERE session = ? AND position = ?", (session, position)
        ).get
        if not taken:
            return position
        first = self._db.execute(
            "SELECT min(position) FROM messages WHERE session = ?", (session,)
        ).get
        return min(0, self._writes.whole(first or 0)) - 1

    def _tidy(self, at_once: int) -> int:
        learned = " AND key NOT IN (SELECT ifnull(session, 0) FROM memories)"
        sessions = self._keys(
            "SELECT key FROM sessions s WHERE NOT EXISTS"
            f" (SELECT 1 FROM messages WHERE session = s.key){learned} LIMIT ?",
            (at_once,),
        )
        users = self._keys(
            "SELECT key FROM users WHERE key NOT IN"
            " (SELECT user FROM messages WHERE user IS NOT NULL) LIMIT ?",
            (at_once,),
        )
        for kind, table, keys in ((SESSION, "sessions", sessions), (USER, "users", users)):
            if keys:
                self._writes.add_changes(DELETE, kind, keys)
                self._db.execute(f"DELETE FROM {table} WHERE key IN {_KEYS}", (Integers(keys),))
        self._db.execute("DELETE FROM tails WHERE session NOT IN (SELECT key FROM sessions)")
        return len(sessions) + len(users)

    def _expel(self, op: Expel) -> bool:
        if not self._is_damaged(op):  # since it was found to be
            return False
        note_repair(self._db)
        key, add = op.key, self._writes.add_change
        newest = self._db.execute("SELECT ifnull(max(key), 0) FROM messages").get
        if op.table == "concepts":
            facts = self._keys(
                "SELECT key FROM relations WHERE source = ?1 OR target = ?1 LIMIT ?2",
                (key, op.at_once),
            )
            if facts:
                self._db.execute(f"DELETE FROM relations WHERE key IN {_KEYS}", (Integers(facts),))
                self._writes.add_changes(DELETE, RELATION, facts)
                return True
            self._db.execute("DELETE FROM mentions WHERE concept = ?", (key,))
            for beside in ("unlinked", "described"):
                self._db.execute(f"DELETE FROM {beside} WHERE concept = ?", (key,))
        self._db.execute(f"DELETE FROM {op.table} WHERE key = ?", (key,))
        match op.table:
            case "messages":  # its position may be anything, so it is not kept free
                self._writes.add_changes(DELETE, MESSAGE, [key], above=self._writes.whole(newest))
                self._writes.messages -= 1
                self._drop_beside([key])
            case "memories":
                self._writes.drop_vectors([key])
                self._db.execute("DELETE FROM mentions WHERE source = ?", (key,))
                add(DELETE, MEMORY, key)
            case "concepts" | "relations":
                add(DELETE, CONCEPT if op.table == "concepts" else RELATION, key)
            case "marks":
                add(EDIT, MESSAGE, key)
        return False

    def _put_name(self, op: PutName) -> str:
        held = self._db.execute(f"SELECT id FROM {op.table} WHERE key = ?", (op.key,)).get
        if held is not None and not self._is_damaged(op):
            return str(held)
        name = held if isinstance(held, str) else op.name
        note_repair(self._db)
        row: tuple[Any, ...] = (op.key, name, op.created_us)
        if op.table == "users":
            row = (op.key, name, " ".join(folded_words(name)), op.created_us)
        self._db.execute(f"DELETE FROM {op.table} WHERE key = ?", (op.key,))
        values = ", ".join("?" * (len(row) + 1))
        self._db.execute(f"INSERT INTO {op.table} VALUES({values})", (*row, rows.checksum(row)))
        return name

    def _is_damaged(self, op: Expel | PutName) -> bool:
        row = self._db.execute(
            f"SELECT {op.columns} FROM {op.table} m WHERE key = ?", (op.key,)
        ).get
        return row is not None and rows.checksum(row[:-1]) != row[-1]

    def _go_on(self, number: int) -> None:
        # No message with that key is held, unless others went on above it just now.
        if not self._db.execute("SELECT 1 FROM messages WHERE key >= ?", (number,)).get:
            self._writes.add_changes(DELETE, MESSAGE, [number], above=number)
            note_repair(self._db)

    def _reset_words(self) -> None:
        words.reset(self._db)
        self._db.execute("UPDATE indexed SET key = (SELECT ifnull(max(key), 0) FROM messages)")

    def _grant(self, granted_bytes: int | None) -> None:
        if granted_bytes is None:
            self._db.execute("DELETE FROM meta WHERE name = 'granted_bytes'")
        else:
            self._db.execute("REPLACE INTO meta VALUES('granted_bytes', ?)", (str(granted_bytes),))
        self._writes.granted_bytes = granted_bytes

    def _keys(self, sql: str, values: tuple[Any, ...]) -> list[int]:
        return [key for (key,) in rows.fetch(self._db, sql, values)]


def version(row_checksum: int, mark_checksum: int | None) -> int:
    """What changes when a message is edited, or something else is said of its worth."""
    return row_checksum << 32 | (0 if mark_checksum is None else mark_checksum)
