"""
Relating: facts about two concepts as rows: told, told again, closed.

A fact that ended is closed, not removed, so that the past can be asked.
"""

from typing import Any, NamedTuple

from elytron.errors import InvalidArgument
from elytron.ledger import rows
from elytron.ledger.database import Database
from elytron.ledger.learned import CLOSED_MAX, LearnedOp, Relate, Unrelate
from elytron.ledger.naming import Concepts, Notes
from elytron.ledger.schema import DELETE, EDIT, RELATION, SAVE

# In the order of the checksum, which follows them.
RELATION_COLUMNS = (
    "r.key, r.source, r.relation, r.target, r.strength, r.valid_from_us, r.valid_to_us,"
    " r.learned_from, r.checksum"
)
_SELECT = f"SELECT {RELATION_COLUMNS} FROM relations r"
# Of a row that has times, at the time ?1.
HOLDS = "ifnull({0}.valid_from_us, ?1) <= ?1 AND ifnull({0}.valid_to_us, ?1 + 1) > ?1"


class RelationRow(NamedTuple):
    """A row of `relations` but its checksum; source and target are keys of concepts."""

    key: int
    source: int
    relation: str
    target: int
    strength: float
    valid_from_us: int | None
    valid_to_us: int | None
    learned_from: int | None


class Relations:
    """The relations of one connection."""

    def __init__(self, notes: Notes, db: Database, concepts: Concepts) -> None:
        self._notes = notes
        self._db = db
        self._concepts = concepts

    def apply(self, op: LearnedOp) -> Any:
        """Apply one op and return its result."""
        match op:
            case Relate():
                return self._relate(op)
            case Unrelate():
                return self._unrelate(op)
        raise AssertionError(f"no op on relations: {type(op).__name__}")

    def _relate(self, op: Relate) -> bool:
        source, target = self._concepts.tell((op.source, op.target), op.now_us)
        facts = self._facts(source, op.relation)
        same = [fact for fact in facts if fact.target == target]
        held = _told_before(op, same)
        later = None
        if held is None or op.valid_to_us is not None:
            later = _told_for_later(op, same)
        if held is not None:
            new = held._replace(
                strength=op.strength,
                valid_from_us=held.valid_from_us if op.valid_from_us is None else op.valid_from_us,
                valid_to_us=held.valid_to_us if op.valid_to_us is None else op.valid_to_us,
                # Told now: it stays when the message goes that it was read in.
                learned_from=None,
            )
        else:
            from_us = op.valid_from_us
            if from_us is None and op.replaces:
                from_us = op.now_us
            new = RelationRow(
                0, source, op.relation, target, op.strength, from_us, op.valid_to_us, None
            )
        changed = 0
        if op.replaces:
            changed = self._replace(op, new, [fact for fact in facts if fact.target != target])
        if later is not None:
            # It holds from now on, in two rows: they meet where the later one begins.
            new = new._replace(valid_to_us=later.valid_from_us)
            if op.valid_to_us is not None and later.valid_to_us != op.valid_to_us:
                self._write(later._replace(valid_to_us=op.valid_to_us))
                changed += 1
        if held is None:
            self.add(new)
        elif new != held:
            self._write(new)
        return held is None or new != held or changed > 0

    def _replace(self, op: Relate, new: RelationRow, others: list[RelationRow]) -> int:
        """Close those of *others* that would hold beside a new fact; how many."""
        begin_us = op.now_us if op.valid_from_us is None else op.valid_from_us
        closed = 0
        for fact in others:
            ended = fact.valid_to_us is not None and fact.valid_to_us <= begin_us
            later = fact.valid_from_us is not None and fact.valid_from_us > begin_us
            if ended or (later and _ends_before(new, fact)):
                continue
            if later and op.valid_from_us is not None:
                assert fact.valid_from_us is not None
                raise InvalidArgument(
                    "the fact to be replaced begins at"
                    f" {rows.to_datetime(fact.valid_from_us).isoformat()}, after the new one;"
                    " nothing was changed: give the new one a `valid_to`"
                )
            closed += 1
            if closed > CLOSED_MAX:
                raise InvalidArgument(
                    f"more than {CLOSED_MAX} facts would be replaced by one; nothing was changed:"
                    " `unrelate` them first"
                )
            # One that begins later than now never held.
            end_us = fact.valid_from_us if later else begin_us
            self._write(fact._replace(valid_to_us=end_us))
        return closed

    def _unrelate(self, op: Unrelate) -> tuple[int, bool]:
        source = self._concepts.find(op.source)
        target = None if op.target is None else self._concepts.find(op.target)
        if source is None or (op.target is not None and target is None):
            return 0, False
        found = rows.fetch(
            self._db,
            f"{_SELECT} WHERE r.source = ?2 AND {HOLDS.format('r')}"
            " AND (?3 IS NULL OR r.relation = ?3)"
            " AND (?4 IS NULL OR r.target = ?4) ORDER BY r.key LIMIT ?5",
            (
                op.at_us, source.key, op.relation, None if target is None else target.key,
                op.at_once + 1,
            ),
        )  # fmt: skip
        facts = [self._verified(row) for row in found]
        for fact in facts[: op.at_once]:
            self._write(fact._replace(valid_to_us=op.at_us))
        return min(len(facts), op.at_once), len(facts) > op.at_once

    def add(self, new: RelationRow) -> int:
        """Write a new row, whose key is made; returns it."""
        key = self._notes.add_change(SAVE, RELATION)
        # A whole number, or -0.0, would come back as another text, and the checksum is of that.
        row = (key, *new[1:4], float(new.strength) + 0.0, *new[5:])
        self._db.execute(
            "INSERT INTO relations VALUES(?,?,?,?,?,?,?,?,?)", (*row, rows.checksum(row))
        )
        return key

    def is_known(self, new: RelationRow) -> bool:
        """Whether the same fact is there and has no end, or was read in the same message."""
        return any(
            fact.target == new.target
            and (fact.valid_to_us is None or fact.learned_from == new.learned_from)
            for fact in self._facts(new.source, new.relation)
        )

    def learned_from(self, message: int) -> list[RelationRow]:
        """What was read in a message."""
        found = rows.fetch(self._db, f"{_SELECT} WHERE r.learned_from = ?", (message,))
        return [self._verified(row) for row in found]

    def delete(self, keys: list[int]) -> None:
        self._db.executemany("DELETE FROM relations WHERE key = ?", [(key,) for key in keys])
        if keys:
            self._notes.add_changes(DELETE, RELATION, keys)

    def _facts(self, source: int, relation: str) -> list[RelationRow]:
        sql = f"{_SELECT} WHERE r.source = ? AND r.relation = ? ORDER BY r.key"
        return [self._verified(row) for row in rows.fetch(self._db, sql, (source, relation))]

    def _verified(self, row: tuple[Any, ...]) -> RelationRow:
        if rows.checksum(tuple(row[:-1])) != row[-1]:
            raise self._notes.damaged(f"relation row {row[0]}")
        return RelationRow(*row[:-1])

    def _write(self, row: RelationRow) -> None:
        self._db.execute(
            "UPDATE relations SET strength = ?, valid_from_us = ?, valid_to_us = ?,"
            " learned_from = ?, checksum = ? WHERE key = ?",
            (*row[4:], rows.checksum(row), row.key),
        )
        self._notes.add_change(EDIT, RELATION, row.key)


def _told_before(op: Relate, held: list[RelationRow]) -> RelationRow | None:
    """Which of the rows of the same three *op* tells again, if any: one that it overlaps."""
    for fact in held:
        if (fact.valid_from_us, fact.valid_to_us) == (op.valid_from_us, op.valid_to_us):
            return fact
    for fact in held:
        if _begins_later(op, fact):
            continue
        begins = op.valid_from_us is None or _is_before(op.valid_from_us, fact.valid_to_us)
        ends = fact.valid_from_us is None or _is_before(fact.valid_from_us, op.valid_to_us)
        if _is_before(op.now_us, fact.valid_to_us) and begins and ends:
            return fact
    return None


def _told_for_later(op: Relate, held: list[RelationRow]) -> RelationRow | None:
    """
    Of the rows of the same three the first that begins while what is told now still holds.

    Raises:
        InvalidArgument: there are several, and an end that is given is past them.
    """
    later = [
        (fact.valid_from_us, fact)
        for fact in held
        if _begins_later(op, fact)
        and fact.valid_from_us is not None
        and fact.valid_from_us != fact.valid_to_us
        and _is_before(fact.valid_from_us, op.valid_to_us)
    ]
    if len(later) > 1 and op.valid_to_us is not None:
        begins = rows.to_datetime(max(later)[0]).isoformat()
        raise InvalidArgument(
            f"the same fact was told {len(later)} times for later, last from {begins} on; nothing"
            " was changed: give this one a `valid_from`, or end those first"
        )
    return min(later)[1] if later else None


def _begins_later(op: Relate, fact: RelationRow) -> bool:
    """Whether a fact does not hold yet, where one is told without a beginning: as of now."""
    begins_later = fact.valid_from_us is not None and fact.valid_from_us > op.now_us
    return op.valid_from_us is None and begins_later


def _is_before(at_us: int, end_us: int | None) -> bool:
    return end_us is None or at_us < end_us


def _ends_before(new: RelationRow, fact: RelationRow) -> bool:
    """Whether a new fact has ended when another begins."""
    return (
        new.valid_to_us is not None
        and fact.valid_from_us is not None
        and new.valid_to_us <= fact.valid_from_us
    )
