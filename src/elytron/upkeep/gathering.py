"""
Gathering: the rows of several ledgers of one agent, brought together in a new one.

The first source keeps its keys and places. What later ones have besides goes where it was if that
is free, and to the end if it is not: nothing is put in the place of something else.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import apsw

from elytron.ledger import rows
from elytron.ledger.beginning import note_repair
from elytron.ledger.pages import Image
from elytron.ledger.rescued import ABOUT, NAMED, TEXTS, Outline, Row, rows_of
from elytron.ledger.schema import DELETE, MESSAGE, SESSION
from elytron.text import folded_words

_COMMIT_BYTES = 1 << 20
_ROW_BYTES = 500
_INSERT = {
    "sessions": "INSERT INTO sessions VALUES(?,?,?,?)",
    "users": "INSERT INTO users VALUES(?,?,?,?,?)",
    "concepts": "INSERT INTO concepts VALUES(?,?,?,?,?,?,?,?,?)",
    "messages": "INSERT INTO messages VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "memories": "INSERT INTO memories VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "relations": "INSERT INTO relations VALUES(?,?,?,?,?,?,?,?,?)",
    "marks": "INSERT OR IGNORE INTO marks VALUES(?,?,?,?)",
    "mentions": "INSERT OR IGNORE INTO mentions VALUES(?,?,?,?)",
    "uses": "INSERT OR IGNORE INTO uses VALUES(?,?,?)",
    "described": "INSERT OR IGNORE INTO described VALUES(?,?,?)",
}
# Where a row's checksum stands; of the values before it it is made.
_CHECKSUM = {"sessions": 3, "users": 4, "concepts": 8, "messages": 13, "memories": 11,
             "relations": 8, "marks": 3}  # fmt: skip
_BY = {"sessions": "id", "users": "id", "concepts": "folded", "messages": "id", "memories": "id"}
_ARRIVED = {"messages": "arrived_us", "memories": "created_us"}


@dataclass(frozen=True, slots=True)
class Later:
    """
    What else is known of a source that surely is a later state of the first one.

    Attributes:
        than_us: what has arrived by then is older than it.
        settled: keys of what was edited in the first one since.
        all: what all of its states tell together, in which something may stand that was gone again.
        moves: whether messages may have left for the archive in it. Then only what `all` says was
            deleted is known to have been.
    """

    than_us: int
    settled: Collection[int]
    all: Outline
    moves: bool

    def forgot(self, key: int, id: str, session: str | None) -> bool:
        """Whether a message or memory that was removed from it was deleted for good."""
        if self.all.ids.get(key, id) != id:  # another, which had the same key
            return False
        named = {(0, str(key)), (MESSAGE, id), (SESSION, session)}
        return not self.moves or not named.isdisjoint(self.all.gone)


class Source:
    """
    One ledger that rows are taken from.

    Rows only come to those that are here, unless it is surely a later state of the first source, as
    `later` says. Nothing is taken from before number `since`: whether that was deleted in the first
    one is not known any more; and nothing of `forgotten` sessions and users. What it does not name
    itself has its name in `base`, from which it went on; but not by the numbers that the first
    source has given away since, the `diverged` ones: here they are something else.
    """

    def __init__(
        self,
        image: Image,
        outline: Outline,
        *,
        skip: frozenset[int] = frozenset(),
        skip_ids: frozenset[str] = frozenset(),
        only: Callable[[int], bool] = lambda _: True,
        since: int = 0,
        forgotten: frozenset[int] = frozenset(),
        later: "Later | None" = None,
        base: "Source | None" = None,
        diverged: frozenset[int] = frozenset(),
    ) -> None:
        self.image = image
        self.outline = outline
        self.skip = skip
        self.skip_ids = skip_ids
        self.only = only
        self.since = since
        self.forgotten = forgotten
        self.later = later
        self.diverged = diverged
        self._base = base
        self.keys: dict[int, int] = {}  # new by old, of what was taken from here
        self.parents: dict[str, dict[int, int]] = {table: {} for table in NAMED}
        self.concepts: set[int] = set()  # old keys of those that were taken from here
        self.taken: Counter[str] = Counter()

    def parent(self, table: str, key: int) -> int | None:
        """The new key of a session, user or concept."""
        found = self.parents[table].get(key)
        if found is None and self._base is not None and key not in self.diverged:
            found = self._base.parent(table, key)
        return found

    def text(self, key: int | None) -> int | None:
        """The new key of a message or memory that something here refers to."""
        found = None if key is None else self.keys.get(key)
        return key if found is None and key not in self.diverged else found

    def is_newer(self, key: object, held_key: object) -> bool:
        """Whether a row is a newer state of one that is held."""
        return self.later is not None and key == held_key and key not in self.later.settled


class Gathering:
    """The new ledger's rows. *db* is a connection to it; its tables are empty."""

    def __init__(self, db: apsw.Connection, *, last: int, session_id: Callable[[int], str | None]):
        """
        Args:
            last: the greatest number that any source has used.
            session_id: what else knows the id of a session by its key in the first source.
        """
        self._db = db
        self.last = last
        self.nameless = 0  # sessions and users whose names are lost
        self._session_id = session_id
        self._used: set[int] = set()
        self._waiting_bytes = 0

    def take(self, source: Source) -> Counter[str]:
        """Take the rows that are not here yet; how many, by table."""
        for tables in (NAMED, TEXTS, ABOUT):
            for table, row in rows_of(source.image, tables, only=source.only):
                if row[0] not in source.skip and row[0] >= source.since:
                    self._take(source, table, row)
        if source.later is not None:
            self._forget(source.skip & source.outline.deleted.keys(), source.later)
        self.settle()
        return source.taken

    def _take(self, source: Source, table: str, row: Row) -> None:
        if table in NAMED:
            self._parent(source, table, row)
        elif table == "messages":
            self._message(source, row)
        elif table == "memories":
            self._memory(source, row)
        elif table == "relations":
            self._relation(source, row)
        elif table == "described":
            if row[0] in source.concepts:
                place = source.parents["concepts"][row[0]], source.text(row[1])
                self._insert(source, table, (*place, row[2]))
        elif row[0] in source.keys and (
            table != "mentions" or row[1] in source.parents["concepts"]
        ):
            about = source.keys[row[0]]
            if table == "mentions":
                values = (about, source.parents["concepts"][row[1]], *row[2:])
            else:
                values = (about, *row[1:])
            self._insert(source, table, values)

    def _parent(self, source: Source, table: str, row: Row) -> None:
        """A session, user or concept: one that has its name already is the same."""
        name = row[2] if table == "concepts" else row[1]
        held = self._key(table, name)
        if held is None:
            held = self._free(row[0])
            self._insert(source, table, (held, *row[1:]))
            if table == "concepts":
                source.concepts.add(row[0])
        source.parents[table][row[0]] = held

    def _message(self, source: Source, row: Row) -> None:
        if row[1] in source.skip_ids or not source.forgotten.isdisjoint((row[2], row[4])):
            return
        if not self._is_wanted(source, "messages", row):
            return
        session = self._session(source, row[2], row[9])
        user = None if row[4] is None else self._user(source, row[4], row[9])
        key = self._free(row[0])
        taken = "SELECT 1 FROM messages WHERE session = ? AND position = ?"
        position = row[3]
        if key != row[0] or self._db.execute(taken, (session, position)).get:
            last = "SELECT ifnull(max(position), -1) FROM messages WHERE session = ?"
            # Behind all that is there. Its own, if it is: one before it may be lost.
            position = max(position, self._db.execute(last, (session,)).get + 1)
        answers = source.text(row[5])
        terms = row[14] if type(row[14]) is bytes else b""
        source.keys[row[0]] = key
        values = (key, row[1], session, position, user, answers, *row[6:14], terms)
        self._insert(source, "messages", values, size_bytes=len(row[12]) + len(terms))

    def _memory(self, source: Source, row: Row) -> None:
        if row[6] in source.forgotten or not self._is_wanted(source, "memories", row):
            return
        session = None if row[6] is None else self._session(source, row[6], row[9])
        key = self._free(row[0])
        source.keys[row[0]] = key
        values = (key, *row[1:6], session, *row[7:])
        self._insert(source, "memories", values, size_bytes=len(row[2]))

    def _relation(self, source: Source, row: Row) -> None:
        ends = [source.parent("concepts", row[at]) for at in (1, 3)]
        if None in ends:
            return
        values = [ends[0], row[2], ends[1]]
        same = (
            "SELECT key, checksum FROM relations WHERE source = ? AND relation = ? AND target = ?"
            " AND valid_from_us IS ?"
        )
        held = self._db.execute(same, (*values, row[5])).fetchall()
        if held:
            if not source.is_newer(row[0], held[0][0]) or held[0][1] == row[8]:
                return
            self._drop("relations", row[0])
        key = self._free(row[0])
        learned_from = source.text(row[7])
        self._insert(source, "relations", (key, *values, *row[4:7], learned_from, row[8]))

    def _is_wanted(self, source: Source, table: str, row: Row) -> bool:
        """Whether a row with an id is to be taken; an older one is taken out for it."""
        held = self._db.execute(f"SELECT key, checksum FROM {table} WHERE id = ?", (row[1],)).get
        if held is None:
            return True
        newer = source.is_newer(row[0], held[0])
        if newer and held[1] != row[_CHECKSUM[table]]:
            # What is said of it stays.
            self._execute(f"DELETE FROM {table} WHERE key = ?", (row[0],))
            self._used.discard(row[0])
            return True
        if newer:  # the same, and perhaps something new is said of it
            source.keys[row[0]] = row[0]
        return False

    def _session(self, source: Source, key: int, at_us: int) -> int:
        """The session of a row; one whose own row is lost is made again by what else names it."""
        held = source.parent("sessions", key)
        if held is None:
            name = source.outline.ids.get(key)
            if name is None and key not in source.diverged:
                name = self._session_id(key)
            name = name or self._lost("session", key)
            row = (key, name, at_us)
            self._parent(source, "sessions", (*row, rows.checksum(row)))
            held = source.parents["sessions"][key]
        return held

    def _user(self, source: Source, key: int, at_us: int) -> int:
        held = source.parent("users", key)
        if held is None:
            name = source.outline.ids.get(key) or self._lost("user", key)
            row = (key, name, " ".join(folded_words(name)), at_us)
            self._parent(source, "users", (*row, rows.checksum(row)))
            held = source.parents["users"][key]
        return held

    def _lost(self, what: str, key: int) -> str:
        self.nameless += 1
        return f"lost-{what}-{key}"

    def _forget(self, keys: Iterable[int], later: Later) -> None:
        """Remove messages and memories that were deleted later; what came since stays."""
        for table, arrived in _ARRIVED.items():
            find = (
                f"SELECT t.id, s.id FROM {table} t LEFT JOIN sessions s ON s.key = t.session"
                f" WHERE t.key = ? AND t.{arrived} < ?"
            )
            for key in keys:
                found = self._db.execute(find, (key, later.than_us)).get
                if found is not None and later.forgot(key, *found):
                    self._drop(table, key)

    def hear(self, source: Source) -> None:
        """Take the names that were heard; of one source alone, since they are counted."""
        for _, row in rows_of(source.image, ("heard",)):
            if row[3] <= self.last:  # else it is of no message
                self._execute("INSERT OR IGNORE INTO heard VALUES(?, ?, ?, ?)", row)
        self.settle()

    def finish(self, deleted: Mapping[int, int]) -> None:
        """
        What the ledger needs besides its rows, once all are taken.

        Args:
            deleted: keys, each with its kind, of what no backup shall bring back.
        """
        # Which positions were given away is not known any more: each message took a number of the
        # sequence, so that what is saved from now on comes after all that may still come back.
        self._execute("INSERT INTO tails SELECT key, max(0, ? - key) FROM sessions", (self.last,))
        # The list of changes begins here, and says that there was one before it.
        number = self.last + 1
        gone = [(kind, key) for key, kind in sorted(deleted.items()) if key not in self._used]
        for behind, (kind, key) in enumerate([(SESSION, number), *gone]):
            values = (number + behind, 2 + behind, DELETE, kind, key)
            self._execute("INSERT INTO changes VALUES(?, ?, ?, ?, ?)", values)
        note_repair(self._db)
        self.settle()

    def note_moving(self, segments: Iterable[str]) -> None:
        """
        Note that messages may be in these segments of the archive and here too: whoever next looks
        after the agent puts that right.
        """
        for segment in segments:
            self._execute("INSERT INTO moving VALUES(?, 'salvage')", (segment,))
        self.settle()

    def settle(self) -> None:
        """Commit what was taken so far."""
        if not self._db.get_autocommit():
            self._db.execute("COMMIT")
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._waiting_bytes = 0

    @property
    def used(self) -> set[int]:
        """The keys that are taken."""
        return self._used

    def _key(self, table: str, name: str) -> int | None:
        found: int | None = self._db.execute(
            f"SELECT key FROM {table} WHERE {_BY[table]} = ?", (name,)
        ).get
        return found

    def _free(self, key: int) -> int:
        """A key: the old one, if nothing else has it."""
        if key in self._used or key < 1:
            self.last += 1
            key = self.last
        self._used.add(key)
        return key

    def _drop(self, table: str, key: int) -> None:
        self._execute(f"DELETE FROM {table} WHERE key = ?", (key,))
        if table != "relations":
            for beside in ("marks", "uses"):
                self._execute(f"DELETE FROM {beside} WHERE key = ?", (key,))
            self._execute("DELETE FROM mentions WHERE source = ?", (key,))
        self._used.discard(key)

    def _insert(self, source: Source, table: str, values: Row, *, size_bytes: int = 0) -> None:
        at = _CHECKSUM.get(table)
        if at is not None:  # a key may be another one here
            values = (*values[:at], rows.checksum(values[:at]), *values[at + 1 :])
        self._execute(_INSERT[table], values, size_bytes)
        source.taken[table] += 1

    def _execute(self, sql: str, values: tuple[Any, ...], size_bytes: int = 0) -> None:
        if self._db.get_autocommit():
            self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(sql, values)
        self._waiting_bytes += _ROW_BYTES + size_bytes
        if self._waiting_bytes > _COMMIT_BYTES:
            self.settle()
