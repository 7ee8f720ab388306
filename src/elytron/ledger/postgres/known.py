"""
Known: what a process remembers of an agent's rows, so that a save has nothing to ask.

It holds as long as the agent's row has the version that this process saw last: each commit of
anybody gives it another one, by chance. Were they counted, a server that lost its last commits, as
a standby may that was behind, would come to the same number by other ways.
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from elytron.ledger.postgres.link import Link
from elytron.records import Draft

_NAMES_MAX = 1024  # sessions, and users, that are remembered of an agent

_SESSIONS = """
SELECT s.id, s.key, m.key, m.position, m.role, m."user", t.position
FROM sessions s
LEFT JOIN LATERAL (
    SELECT key, position, role, "user" FROM messages
    WHERE agent_id = %(agent)s::uuid AND session = s.key ORDER BY position DESC LIMIT 1
) m ON true
LEFT JOIN tails t ON t.agent_id = %(agent)s::uuid AND t.session = s.key
WHERE s.agent_id = %(agent)s::uuid AND s.id = ANY(%(ids)s::text[])
"""
_USERS = """
SELECT id, key FROM users WHERE agent_id = %(agent)s::uuid AND id = ANY(%(ids)s::text[])
"""


def new_version() -> int:
    """One that no row had before."""
    return secrets.randbits(63)


class Last(NamedTuple):
    """A session by its key, and the last message in it, if there is one."""

    session: int
    key: int | None
    position: int  # that was given away last; -1 if none was
    role: str | None
    user: int | None


@dataclass(slots=True)
class Known:
    """What is known of an agent as of `version`."""

    version: int
    messages: int
    bytes: int
    seq: int  # the last number of the agent's one sequence
    graph_bytes: int
    indexed: int  # the key up to which messages are in the word index
    sessions: OrderedDict[str, Last] = field(default_factory=OrderedDict)
    users: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def covers(self, drafts: Iterable[Draft]) -> bool:
        """Whether the sessions and users of these messages are known."""
        return all(
            [
                draft.session in self.sessions and (draft.user is None or draft.user in self.users)
                for draft in drafts
            ]
        )

    def is_short_for(self, drafts: Sequence[Draft]) -> bool:
        """Whether they are of more sessions, or users, than are remembered."""
        sessions = {draft.session for draft in drafts}
        users = {draft.user for draft in drafts}
        return max(len(sessions), len(users)) > _NAMES_MAX // 2

    def learn(self, db: Link, drafts: Sequence[Draft]) -> None:
        """Ask for sessions and users that are not known; in a transaction that has the lock."""
        for draft in drafts:  # so that what is learned now does not drive them out
            if draft.session in self.sessions:
                self.sessions.move_to_end(draft.session)
            if draft.user is not None and draft.user in self.users:
                self.users.move_to_end(draft.user)
        sessions = {draft.session for draft in drafts} - self.sessions.keys()
        users = {draft.user for draft in drafts if draft.user is not None} - self.users.keys()
        if sessions:
            for name, session, key, position, role, user, tail in db.native(
                _SESSIONS, {"ids": sorted(sessions)}
            ):
                place = max(-1 if position is None else position, -1 if tail is None else tail)
                self.put(name, Last(session, key, place, role, user))
        if users:
            for name, key in db.native(_USERS, {"ids": sorted(users)}):
                self.put_user(name, key)

    def put(self, session: str, last: Last) -> None:
        """Note what is last in a session now."""
        self.sessions[session] = last
        self.sessions.move_to_end(session)
        if len(self.sessions) > _NAMES_MAX:
            self.sessions.popitem(last=False)

    def put_user(self, user: str, key: int) -> None:
        """Note the key of a user."""
        self.users[user] = key
        if len(self.users) > _NAMES_MAX:
            self.users.popitem(last=False)

    def forget_names(self) -> None:
        """After what may have removed a session, a user, or the last message of one."""
        self.sessions.clear()
        self.users.clear()
