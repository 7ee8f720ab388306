"""
Naming: concepts as rows: found by their folded names, made, confirmed, changed, removed.

All within the caller's transaction. Which names are acceptable is decided by admission; that two
spellings are one name, by whoever folds them.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from elytron.errors import Conflict, Corrupt, NotFound, OverBudget
from elytron.ledger import rows
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.learned import BY_EXTRACTOR, Name, NewConcept, SetConcept
from elytron.ledger.schema import CONCEPT, DELETE, EDIT, EXTRACTED, SAVE, TOLD

CONCEPT_COLUMNS = (
    "c.key, c.name, c.folded, c.type, c.description, c.confidence, c.origin, c.created_us,"
    " c.checksum"
)
_FIND = f"SELECT {CONCEPT_COLUMNS} FROM concepts c WHERE c.folded = ?"
_KEYS = "(SELECT value FROM carray(?))"
_ALL = (1 << 63) - 1
_TYPE, _DESCRIPTION = 1, 2  # what of a concept is from a message: the column `parts`


class Notes(Protocol):
    """What is needed of the writes that this is a part of."""

    source: object

    def add_change(self, op: int, kind: int, key: int | None = None) -> int: ...
    def add_changes(
        self, op: int, kind: int, keys: Sequence[int | None], *, above: int = 0
    ) -> int: ...
    def damaged(self, what: str) -> Corrupt: ...


class ConceptRow(NamedTuple):
    """A row of `concepts` but its checksum."""

    key: int
    name: str
    folded: str
    type: str | None
    description: str | None
    confidence: float
    origin: int
    created_us: int


class Concepts:
    """The concepts of one connection. *max_concepts* of them at most are made."""

    def __init__(self, notes: Notes, db: Database, *, max_concepts: int) -> None:
        self._notes = notes
        self._db = db
        self._max = max_concepts

    def find(self, folded: str) -> ConceptRow | None:
        """
        Raises:
            Corrupt: its row is not what was written.
        """
        found = self._db.execute(_FIND, (folded,)).get
        if found is None:
            return None
        *values, checksum = found
        if rows.checksum(tuple(values)) != checksum:
            raise self._notes.damaged(f"concept row {values[0]}")
        return ConceptRow(*values)

    def tell(self, names: Iterable[Name], now_us: int) -> list[int]:
        """
        The keys of concepts that a person named, in order: made where new, else confirmed.

        Raises:
            OverBudget: there are `max_concepts` already.
        """
        keys = []
        for name in names:
            held = self.find(name.folded)
            if held is None:
                if not self.room:
                    raise OverBudget(
                        f"{self._notes.source} holds {self._max} concepts, as many as it may;"
                        " nothing was written: delete some, or raise `max_concepts`"
                    )
                keys.append(self.make(NewConcept(name.shown, name.folded, TOLD), now_us))
            else:
                if held.origin != TOLD:
                    self._write(held._replace(origin=TOLD, confidence=1.0))
                keys.append(held.key)
        return keys

    @property
    def room(self) -> int:
        """How many more there may be."""
        return max(0, self._max - int(self._db.execute("SELECT count(*) FROM concepts").get))

    def make(self, new: NewConcept, now_us: int, read_in: int | None = None) -> int:
        """
        Write the row of a new one; returns its key. Older texts are to be looked through.

        Args:
            read_in: the message that an extractor has it from.
        """
        key = self._notes.add_change(SAVE, CONCEPT)
        row = (
            key, new.name, new.folded, new.type, new.description, float(new.confidence) + 0.0,
            new.origin, now_us,
        )  # fmt: skip
        self._db.execute(
            "INSERT INTO concepts VALUES(?,?,?,?,?,?,?,?,?)", (*row, rows.checksum(row))
        )
        self._look_through(key, key)
        self._note_read(key, read_in, type=new.type, description=new.description)
        return key

    def better(self, held: ConceptRow, new: NewConcept, read_in: int | None) -> None:
        """
        Raise a concept to a surer origin, with what is known from there; or have an extractor tell
        of it what none has told yet, as after an edit. Else it stays.
        """
        told = new.type is not None or new.description is not None
        mute = held.type is None and held.description is None
        if new.origin > held.origin or (new.origin == held.origin and not (told and mute)):
            return
        self._note_read(
            held.key,
            read_in,
            type=None if held.type else new.type,
            description=None if held.description else new.description,
        )
        self._write(
            held._replace(
                origin=new.origin,
                type=held.type or new.type,
                description=held.description or new.description,
                confidence=max(held.confidence, float(new.confidence) + 0.0),
            )
        )

    def _note_read(
        self, key: int, read_in: int | None, *, type: str | None, description: str | None
    ) -> None:
        parts = _TYPE * (type is not None) + _DESCRIPTION * (description is not None)
        if read_in is not None and parts:
            self._db.execute("REPLACE INTO described VALUES(?, ?, ?)", (key, read_in, parts))

    def forget_texts(self, messages: Sequence[int], *, at_once: int = _ALL) -> int:
        """
        Erase the types and descriptions that an extractor read in these messages, of *at_once*
        concepts at most; of how many. Where it is not noted in which message, as by earlier
        versions, those of extracted concepts that it read in one of these, as they may be from
        there.
        """
        bound = Integers(messages)
        found = rows.fetch(
            self._db,
            f"SELECT d.parts, {CONCEPT_COLUMNS} FROM described d"
            f" CROSS JOIN concepts c ON c.key = d.concept WHERE d.source IN {_KEYS} LIMIT ?",
            (bound, at_once),
        )
        if found:
            keys = Integers([row[1] for row in found])
            self._db.execute(f"DELETE FROM described WHERE concept IN {_KEYS}", (keys,))
        for parts, *row in found:
            self._forget_parts(row, parts)
        unnoted = rows.fetch(
            self._db,
            f"SELECT DISTINCT {CONCEPT_COLUMNS} FROM mentions m"
            " JOIN concepts c ON c.key = m.concept"
            f" WHERE m.told = {BY_EXTRACTOR} AND c.origin = {EXTRACTED}"
            " AND (c.type IS NOT NULL OR c.description IS NOT NULL)"
            " AND NOT EXISTS (SELECT 1 FROM described WHERE concept = c.key)"
            f" AND m.source IN {_KEYS} LIMIT ?",
            (bound, at_once - len(found)),
        )
        for row in unnoted:
            self._forget_parts(row, _TYPE | _DESCRIPTION)
        return len(found) + len(unnoted)

    def _forget_parts(self, row: Sequence[Any], parts: int) -> None:
        *values, checksum = row
        held = ConceptRow(*values)
        new = held._replace(
            type=None if parts & _TYPE else held.type,
            description=None if parts & _DESCRIPTION else held.description,
        )
        if rows.checksum(held) == checksum:
            if new != held:
                self._write(new)
        else:  # it is damaged, and stays so for `check` to find; but what was read goes
            self._db.execute(
                "UPDATE concepts SET type = ?, description = ? WHERE key = ?",
                (new.type, new.description, new.key),
            )

    def change(self, op: SetConcept) -> tuple[ConceptRow, int]:
        """
        The row as it is then, and how often it is mentioned.

        Raises:
            NotFound: no concept has this name.
            Conflict: another has the new one.
        """
        held = self.find(op.folded)
        if held is None:
            raise NotFound("no concept has this name; nothing was changed: `relate` makes one")
        new = held._replace(origin=TOLD)
        if held.origin != TOLD:
            new = new._replace(confidence=1.0)
        if op.rename is not None:
            other = self.find(op.rename.folded)
            if other is not None and other.key != held.key:
                raise Conflict(
                    f"another concept (row {other.key}) has the new name; nothing was changed:"
                    " take another name, or delete that one"
                )
            new = new._replace(name=op.rename.shown, folded=op.rename.folded)
        if op.type is not None:
            new = new._replace(type=op.type or None)
        if op.description is not None:
            new = new._replace(description=op.description or None)
        if op.confidence is not None:
            new = new._replace(confidence=op.confidence)
        if new != held:
            seq = self._write(new)
            if new.folded != held.folded:
                self._look_through(held.key, seq)
        self._note_told(held.key, op)
        times = self._db.execute("SELECT count(*) FROM mentions WHERE concept = ?", (held.key,)).get
        return new, int(times)

    def _note_told(self, key: int, op: SetConcept) -> None:
        """What a person said is not from a message any more."""
        parts = self._db.execute("SELECT parts FROM described WHERE concept = ?", (key,)).get
        told = _TYPE * (op.type is not None) + _DESCRIPTION * (op.description is not None)
        left = (parts or 0) & ~told
        if parts is not None and left:
            self._db.execute("UPDATE described SET parts = ? WHERE concept = ?", (left, key))
        elif parts is not None:
            self._db.execute("DELETE FROM described WHERE concept = ?", (key,))

    def _write(self, new: ConceptRow) -> int:
        self._db.execute(
            "UPDATE concepts SET name = ?, folded = ?, type = ?, description = ?, confidence = ?,"
            " origin = ?, checksum = ? WHERE key = ?",
            (*new[1:7], rows.checksum(new), new.key),
        )
        return self._notes.add_change(EDIT, CONCEPT, new.key)

    def _look_through(self, key: int, before: int) -> None:
        """Note that what was saved *before* a number of the sequence may name this concept."""
        self._db.execute(
            "REPLACE INTO unlinked SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM messages)"
            " OR EXISTS (SELECT 1 FROM memories)",
            (key, before),
        )

    def unnamed(self, keys: Iterable[int], *, apart_from: Iterable[int] = ()) -> list[int]:
        """Those of these concepts that nothing but these messages names."""
        found = rows.fetch(
            self._db,
            f"SELECT key FROM concepts c WHERE key IN {_KEYS}"
            " AND NOT EXISTS (SELECT 1 FROM mentions WHERE concept = c.key"
            f" AND source NOT IN {_KEYS})"
            " AND NOT EXISTS (SELECT 1 FROM relations WHERE source = c.key)"
            " AND NOT EXISTS (SELECT 1 FROM relations WHERE target = c.key)",
            (Integers(keys), Integers(apart_from)),
        )
        return [key for (key,) in found]

    def drop_untold(self, keys: Iterable[int]) -> None:
        """
        Remove those of these that nobody told of and nothing names any more; but not those that
        older texts are still to be looked through for.
        """
        untold = rows.fetch(
            self._db,
            f"SELECT key FROM concepts c WHERE key IN {_KEYS} AND origin <> {TOLD}"
            " AND NOT EXISTS (SELECT 1 FROM unlinked WHERE concept = c.key)",
            (Integers(keys),),
        )
        self.drop(self.unnamed([key for (key,) in untold]) if untold else [])

    def drop(self, keys: Sequence[int], *, at_once: int = _ALL) -> bool:
        """
        Remove these concepts, and at most so many mentions and relations of them; whether more may
        be left.
        """
        if not keys:
            return False
        bound = Integers(keys)
        self._db.execute(f"DELETE FROM concepts WHERE key IN {_KEYS}", (bound,))
        for table in ("unlinked", "described"):
            self._db.execute(f"DELETE FROM {table} WHERE concept IN {_KEYS}", (bound,))
        # Nothing is told of their mentions and relations: they go with them.
        self._notes.add_changes(DELETE, CONCEPT, keys)
        self._db.execute(
            "DELETE FROM mentions WHERE (source, concept) IN (SELECT source, concept FROM mentions"
            f" WHERE concept IN {_KEYS} LIMIT ?)",
            (bound, at_once),
        )
        full = self._db.changes() == at_once
        self._db.execute(
            "DELETE FROM relations WHERE key IN (SELECT key FROM relations"
            f" WHERE source IN {_KEYS} OR target IN {_KEYS} LIMIT ?)",
            (bound, Integers(keys), at_once),
        )
        return full or self._db.changes() == at_once


def concept_rows(found: Iterable[tuple[Any, ...]], source: object) -> Iterable[ConceptRow]:
    """
    Rows of `CONCEPT_COLUMNS`, verified.

    Raises:
        Corrupt: one is not what was written.
    """
    for *values, checksum in found:
        if rows.checksum(tuple(values)) != checksum:
            raise Corrupt(
                f"{source}: concept row {values[0]} is damaged (its checksum does not match); the"
                " file was left as it is"
            )
        yield ConceptRow(*values)
