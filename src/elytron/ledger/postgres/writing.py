"""
Writing: the ledger's writes, within one transaction on PostgreSQL.
"""

import time
from collections.abc import Iterable
from typing import NamedTuple

from psycopg import errors as server_errors

from elytron.errors import Busy
from elytron.ledger import carrying
from elytron.ledger.postgres.known import Known, Last, new_version
from elytron.ledger.postgres.link import Link
from elytron.ledger.writes import Writes
from elytron.records import Draft

_FIND = """
SELECT a.version, a.messages, a.bytes, a.seq,
    (SELECT value FROM meta m WHERE m.agent_id = %(agent)s::uuid AND m.name = 'graph_bytes'),
    (SELECT i.key FROM indexed i WHERE i.agent_id = %(agent)s::uuid),
    (SELECT value FROM meta m WHERE m.agent_id = %(agent)s::uuid AND m.name = 'carried')
FROM agents a WHERE a.agent_id = %(agent)s::uuid
"""
# A statement of its own: of one that had to wait, only the row that it waited for would be new.
LOCK = "SELECT FROM agents WHERE agent_id = %(agent)s::uuid FOR UPDATE"
_NOTE = """
UPDATE agents SET version = %(next)s::bigint, messages = %(messages)s::bigint,
    bytes = greatest(0, bytes + %(more)s::bigint), seq = greatest(
        seq,
        (SELECT max(m.key) FROM messages m WHERE m.agent_id = %(agent)s::uuid),
        (SELECT max(c.seq) FROM changes c WHERE c.agent_id = %(agent)s::uuid))
WHERE agent_id = %(agent)s::uuid RETURNING version, messages, bytes, seq
"""
# What a new agent begins with. Another process may be as far at the same moment; the first of these
# locks the row even so, so that nobody deletes the agent between them.
_BEGIN = (
    "INSERT INTO agents VALUES(%(agent)s::uuid, %(name)s::text, 0, 0, 0, 0)"
    " ON CONFLICT (agent_id) DO UPDATE SET name = excluded.name",
    "INSERT INTO names VALUES(%(agent)s::uuid, %(name)s::text) ON CONFLICT (agent_id) DO NOTHING",
    "INSERT INTO indexed VALUES(%(agent)s::uuid, 0) ON CONFLICT (agent_id) DO NOTHING",
    "INSERT INTO meta SELECT %(agent)s::uuid, name, value FROM (VALUES"
    " ('agent', %(name)s::text), ('languages', %(languages)s::text),"
    " ('created_us', %(created_us)s::text)) given(name, value)"
    " ON CONFLICT (agent_id, name) DO NOTHING",
)
_LOCK_GRACE_MS = 50  # a server that is asked for no waiting at all would wait for ever


class Begun(NamedTuple):
    """What an agent's rows say of themselves."""

    name: str
    languages: str
    carried: str | None


class LinkWrites(Writes):
    """The writing statements of one transaction."""

    def __init__(
        self, db: Link, *, source: object, change_max: int, wal_limit_bytes: int, max_concepts: int
    ) -> None:
        super().__init__(
            db,
            source=source,
            change_max=change_max,
            wal_limit_bytes=wal_limit_bytes,
            max_concepts=max_concepts,
        )
        self._link = db
        self.is_gone = self.is_renaming = False

    def lock(self, deadline: float) -> Known:
        """
        Begin the transaction, and have the agent to itself; what is held.

        Raises:
            Busy: another process had it until *deadline*; or its rows are gone: see `is_gone`.
        """
        wait_ms = lock(self._link, deadline)
        self._link.weighed_bytes = 0
        try:
            found = self._link.native(_FIND)
        except server_errors.LockNotAvailable as error:
            raise taken(self.source, wait_ms) from error
        version, self.messages, size_bytes, seq, graph, indexed, carried = (
            found[0] if found else (0, 0, 0, 0, None, None, None)
        )
        if not found or carrying.is_leaving(carried, self.source):
            self.is_gone = True
            self.is_renaming = bool(found) and not carrying.is_going(carried, self.source)
            raise Busy(
                f"{self.source} was deleted just now; nothing was written: retry, which opens what"
                " is there"
            )
        self.half_done = carrying.is_half_said(carried, self.source)
        self.graph_bytes = int(graph) if str(graph).isdecimal() else 0
        return Known(version, self.messages, size_bytes, seq, self.graph_bytes, indexed or 0)

    def add_names(self, known: Known, drafts: Iterable[Draft]) -> None:
        """Make the sessions and users of these messages that are not there yet."""
        for draft in drafts:
            held = known.sessions.get(draft.session)
            session = None if held is None else held.session
            user = None if draft.user is None else known.users.get(draft.user)
            if session is not None and (user is not None or draft.user is None):
                continue
            session, user, last = self.add_parents(draft, session, user)
            known.seq = max(known.seq, last)
            if held is None:
                known.put(draft.session, Last(session, None, -1, None, None))
            if draft.user is not None and user is not None:
                known.put_user(draft.user, user)

    def note(self, known: Known) -> None:
        """Note what the ops have changed in the agent's row, and in *known*."""
        given = {
            "next": new_version(),
            "messages": self.messages,
            "more": self._link.weighed_bytes,
        }
        ((known.version, known.messages, known.bytes, known.seq),) = self._link.native(_NOTE, given)
        known.graph_bytes = self.graph_bytes


def lock(db: Link, deadline: float) -> int:
    """
    Begin a transaction that has the agent's row to itself, once its next statement is done, and
    waits for that no longer than until *deadline*; in how many ms that is.
    """
    wait_ms = max(_LOCK_GRACE_MS, int(1000 * (deadline - time.monotonic())) - _LOCK_GRACE_MS)
    db.execute("BEGIN")
    db.later("SELECT set_config('lock_timeout', %s, true)", (f"{wait_ms}ms",))
    db.later(LOCK, {})
    return wait_ms


def taken(source: object, wait_ms: int) -> Busy:
    """What is said to whoever waited for that in vain."""
    return Busy(
        f"another program had {source} to itself for {wait_ms / 1000:g} s and nothing was written;"
        " retry later, or raise `save_timeout_s`"
    )


def begin(db: Link, *, name: str, languages: Iterable[str]) -> None:
    """The first rows of a new agent, unless they are there."""
    values = {
        "name": name,
        "languages": ",".join(languages),
        "created_us": str(time.time_ns() // 1000),
    }
    db.execute("BEGIN")
    for sql in _BEGIN[:-1]:
        db.later(sql, values)
    db.native(_BEGIN[-1], values)
    db.execute("COMMIT")


def find(db: Link) -> Begun | None:
    """Whose rows they are; None if there are none."""
    sql = "SELECT name, value FROM meta WHERE agent_id = %(agent)s::uuid"
    held = dict(db.native(sql))
    if not held:
        return None
    return Begun(held.get("agent", ""), held.get("languages", ""), held.get(carrying.MARK))
