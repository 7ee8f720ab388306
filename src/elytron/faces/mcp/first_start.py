"""
First start: a file of the reference memory server, taken over once.

Once, since what is deleted here later must not come back with the next start. Two things say that
it was: a file beside the agents, which stays when all that an agent holds is erased, and a memory,
which goes with the agent into a backup and under another name. Either is enough.
"""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from elytron.agent import Agent
from elytron.errors import InvalidArgument
from elytron.importers import migrated
from elytron.importers.mcp import import_graph
from elytron.records import ImportReport

_log = logging.getLogger("elytron.mcp")


def take_over(agent: Agent, path: Path, *, store: Path) -> ImportReport | None:
    """
    Import a `memory.jsonl` into *agent*, unless that was done before.

    Args:
        store: the folder of the agent's store.

    Returns None if it was, or if there is no such file, as before the first start of all.

    Raises:
        Corrupt: the file that would say so is damaged; nothing was imported.
        As `import_graph`: nothing was imported, unless the error says how much was.
    """
    path = path.expanduser()
    if not path.exists():
        _log.warning("there is no %s, so nothing is taken over", path)
        return None
    digest = migrated.digest_of(path)
    if migrated.read(store, agent.name, file=digest) is not None:
        return None
    noted = f"taken-over:{digest}"
    mark = migrated.mark_of(path)
    if agent.get_memory(noted) is not None:
        migrated.write(store, agent.name, mark, file=digest)
        return None
    try:
        report = import_graph(agent, path)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{error}; mend it, or take over the rest with `elytron import --skip-bad` and start"
            " without it"
        ) from error
    now = datetime.now(UTC)
    # A memory that held for a moment only, so no question finds it.
    agent.remember(
        f"{path.name} was taken over",
        kind="import",
        id=noted,
        valid_from=now - timedelta(microseconds=1),
        valid_to=now,
    )
    migrated.write(store, agent.name, mark, file=digest)
    return report
