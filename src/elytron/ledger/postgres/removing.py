"""
Removing: all rows of one agent, and the files that belong to them.

No transaction is about rows and files both. So a mark is committed first, that the agent is going:
from then on nobody writes to it or opens it. Then, in one transaction that holds the agent's row,
its files are taken away and its rows deleted. Who comes by after a process that died in between
does that again, and nobody who begins the agent anew can lose files to it.

The mark is one that a version which knows nothing of this takes for a migration that is half done,
so that it refuses the agent too.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict

from psycopg import errors as server_errors

from elytron.errors import Busy, Corrupt
from elytron.ledger import carrying
from elytron.ledger.carried import GOING
from elytron.ledger.postgres import writing
from elytron.ledger.postgres.known import new_version
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.schema import AGENT_TABLES

_log = logging.getLogger("elytron.ledger")
_NAMED = "SELECT 1 FROM names WHERE agent_id = %(agent)s::uuid"
SAID = "SELECT value FROM meta WHERE agent_id = %(agent)s::uuid AND name = 'carried'"
MARK = (
    "INSERT INTO meta VALUES(%(agent)s::uuid, 'carried', %(said)s::text)"
    " ON CONFLICT (agent_id, name) DO UPDATE SET value = excluded.value"
)
# So that whoever knows the agent as it was saves nothing more to it.
REFUSE = "UPDATE agents SET version = %(next)s::bigint WHERE agent_id = %(agent)s::uuid"
DELETE = "DELETE FROM {table} WHERE agent_id = %(agent)s::uuid"


def begin(link: Link, source: str, *, alone: Callable[[], None], deadline: float) -> bool:
    """
    Have an agent count as going, durably; False if there is none. *link* is bound to it.

    Args:
        alone: called once nobody else writes to it; what it raises stops this.

    Raises:
        Busy: another process had it until *deadline*, or is renaming it.
    """
    try:
        said = locked(link, source, deadline)
        if _is_renaming(said, source):
            raise Busy(
                f"{source} is being renamed, and nothing was deleted: repeat it, under the name"
                " that it has then"
            )
        if writing.find(link) is None and not link.native(_NAMED):
            return False
        alone()
        link.later(MARK, {"said": json.dumps(asdict(carrying.Mark("", "", GOING)))})
        link.native(REFUSE, {"next": new_version()})
        link.execute("COMMIT")
    finally:
        link.undo()  # nothing, if it was committed
    return True


def _is_renaming(said: str | None, source: str) -> bool:
    try:
        return carrying.is_leaving(said, source) and not carrying.is_going(said, source)
    except Corrupt as error:  # for that one may want it gone
        _log.info("%s", error)
        return False


def finish(link: Link, source: str, *, take_away: Callable[[], object], deadline: float) -> None:
    """
    Delete the rows of an agent that is going, once *take_away* has taken its files; nothing if it
    is not, since another has done that. *link* is bound to it.

    Raises:
        Busy: another process had it until *deadline*.
    """
    try:
        if carrying.is_going(locked(link, source, deadline), source):
            take_away()
            for table in sorted(AGENT_TABLES):
                link.later(DELETE.format(table=table), {})
            link.execute("COMMIT")
    finally:
        link.undo()


def locked(link: Link, source: str, deadline: float) -> str | None:
    """Begin a transaction that has the agent to itself; what it says of its being carried."""
    wait_ms = writing.lock(link, deadline)
    try:
        said = link.native(SAID)
    except server_errors.LockNotAvailable as error:
        raise writing.taken(source, wait_ms) from error
    return said[0][0] if said else None
