"""
Saving: messages whose sessions and users are known, as one statement.

It counts, numbers and writes them if the agent's row still has the version that this process saw
last, and does nothing else: so one round trip, and one commit, is a save. Everything that is not
plain goes through the ledger's writes, in a transaction.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elytron.ledger import rows
from elytron.ledger.ops import Op, Save, SaveOne
from elytron.ledger.postgres.known import Known, Last, new_version
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.tables import SAID_BYTES
from elytron.ledger.postgres.values import escaped
from elytron.records import Draft, Receipt

AT_ONCE_MAX = 32  # messages in one statement; each count of them is a statement of its own

_TYPES = (
    "bigint", "text", "bigint", "bigint", "bigint", "bigint", "text", "bigint", "bigint", "bigint",
    "text", "text", "text", "bigint", "bytea",
)  # fmt: skip
# A row that another writer holds is passed over, since its version will be another: who waits for
# it has to say for how long, and this statement, a commit of its own, could then not be told from
# one that was done.
_CLAIM = (
    "WITH mine AS (UPDATE agents SET version = %(next)s::bigint, messages = messages + {count},"
    " seq = seq + {count}, bytes = bytes + %(bytes)s::bigint"
    " WHERE agent_id = %(agent)s::uuid AND version = %(version)s::bigint AND EXISTS (SELECT"
    " FROM agents WHERE agent_id = %(agent)s::uuid FOR UPDATE SKIP LOCKED) RETURNING agent_id)"
    " INSERT INTO messages SELECT mine.agent_id, given.* FROM mine, (VALUES {rows}) given"
)

_HELD = (
    "SELECT 1 FROM messages WHERE agent_id = %(agent)s::uuid AND id = ANY(%(ids)s::text[]) LIMIT 1"
)


def _statement(count: int) -> str:
    rows = ", ".join(
        [
            "("
            + ", ".join(
                [
                    f"%(v{number * len(_TYPES) + place})s::{kind}"
                    for place, kind in enumerate(_TYPES)
                ]
            )
            + ")"
            for number in range(count)
        ]
    )
    return _CLAIM.format(count=count, rows=rows)


_STATEMENTS = {count: _statement(count) for count in range(1, AT_ONCE_MAX + 1)}


def drafts_of(ops: Sequence[Op], *, most: int = AT_ONCE_MAX) -> list[Draft] | None:
    """
    The messages of *ops*, if that is all there is to do, and they are at most so many, new and
    unmarked, and none of them is held beside the ledger.
    """
    drafts = list[Draft]()
    for op in ops:
        if not isinstance(op, SaveOne | Save) or not (op.beside is None or op.beside.is_clear()):
            return None
        drafts.extend(op.drafts if isinstance(op, Save) else (op.draft,))
    if not 0 < len(drafts) <= most:
        return None
    if any([draft.pinned or draft.importance is not None for draft in drafts]):
        return None
    return drafts if len({draft.id for draft in drafts}) == len(drafts) else None


def weight(drafts: Sequence[Draft]) -> int:
    """What these messages will count, as `tables` has it."""
    return sum(
        [
            len(escaped(draft.content).encode())
            + len(escaped(draft.metadata or "").encode())
            + 2 * len(draft.terms)
            + SAID_BYTES
            for draft in drafts
        ]
    )


def any_held(db: Link, drafts: Sequence[Draft]) -> bool:
    """Whether one of these ids is held already."""
    return bool(db.native(_HELD, {"ids": [draft.id for draft in drafts]}))


@dataclass(frozen=True, slots=True)
class Claim:
    """The statement that saves plain messages of one agent, and what is known once it is done."""

    agent: uuid.UUID
    source: str  # the agent, for messages
    known: Known
    items: int  # messages: as many rows are written, or none
    size_bytes: int  # as an agent's bytes count
    sql: str
    values: dict[str, Any]
    sessions: dict[str, Last]  # what will be last in each
    seq: int

    def note(self) -> None:
        """It is done: bring `known` up to it."""
        known = self.known
        known.version = self.values["next"]
        known.messages += self.items
        known.bytes += self.size_bytes
        known.seq = self.seq
        for session, last in self.sessions.items():
            known.put(session, last)


def claim(agent: uuid.UUID, source: str, known: Known, drafts: Sequence[Draft]) -> Claim:
    """How to save messages, at most 32, whose sessions and users are known."""
    size_bytes = weight(drafts)
    values: dict[str, Any] = {
        "version": known.version,
        "next": new_version(),
        "bytes": size_bytes,
    }
    sessions = dict[str, Last]()
    key = known.seq
    for number, draft in enumerate(drafts):
        last = sessions.get(draft.session) or known.sessions[draft.session]
        user = None if draft.user is None else known.users[draft.user]
        key += 1
        # A message answers the one before it, if another speaker said that.
        other = user != last.user if user or last.user else draft.role != last.role
        row = (
            key,
            draft.id,
            last.session,
            last.position + 1,
            user,
            last.key if last.key and other else None,
            draft.role,
            draft.at_us,
            draft.offset_min,
            draft.arrived_us,
            draft.embedding,
            draft.metadata,
            draft.content,
        )
        sessions[draft.session] = Last(last.session, key, last.position + 1, draft.role, user)
        for place, value in enumerate((*row, rows.checksum(row), draft.terms)):
            values[f"v{number * len(_TYPES) + place}"] = value
    sql = _STATEMENTS[len(drafts)]
    return Claim(agent, source, known, len(drafts), size_bytes, sql, values, sessions, key)


def save(db: Link, claimed: Claim) -> bool:
    """
    Save them, and note it; False if somebody else has written. *db* is bound to the agent.

    Raises:
        psycopg.errors.UniqueViolation: an id is held already. Nothing was saved.
    """
    db.native(claimed.sql, claimed.values)
    if db.rowcount != claimed.items:
        return False
    claimed.note()
    return True


def receipts(ops: Sequence[Op]) -> list[Any]:
    """What the callers of these ops are told, once their messages are saved."""
    told = list[Any]()
    for op in ops:
        if isinstance(op, SaveOne):
            told.append(Receipt(op.draft.id, True, op.draft.embedding))
        elif isinstance(op, Save):
            told.append([Receipt(draft.id, True, draft.embedding) for draft in op.drafts])
    return told
