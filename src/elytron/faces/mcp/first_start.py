"""
First start: a file of the reference memory server, taken over once.

Once, since what is deleted here later must not come back with the next start.
"""

import hashlib
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from elytron.agent import Agent
from elytron.errors import InvalidArgument
from elytron.importers.mcp import import_graph
from elytron.records import ImportReport

_log = logging.getLogger("elytron.mcp")


def take_over(agent: Agent, path: Path) -> ImportReport | None:
    """
    Import a `memory.jsonl` into *agent*, unless that was done before.

    Returns None if it was, or if there is no such file, as before the first start of all.

    Raises:
        As `import_graph`: nothing was imported, unless the error says how much was.
    """
    path = path.expanduser()
    if not path.exists():
        _log.warning("there is no %s, so nothing is taken over", path)
        return None
    # A memory that held for a moment only, so no question finds it.
    digest = hashlib.blake2b(str(path.resolve()).encode(), digest_size=16).hexdigest()
    noted = f"taken-over:{digest}"
    if agent.get_memory(noted) is not None:
        return None
    try:
        report = import_graph(agent, path)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"{error}; mend it, or take over the rest with `elytron import --skip-bad` and start"
            " without it"
        ) from error
    now = datetime.now(UTC)
    agent.remember(
        f"{path.name} was taken over",
        kind="import",
        id=noted,
        valid_from=now - timedelta(microseconds=1),
        valid_to=now,
    )
    return report
