"""
Migrated: which databases of the origin were carried over into a store, so that a program that
starts does not do it again.

A small file for each agent in `<store>/migrated/`: not in the agent's own folder, so that it is
there before anything is written and stays when the agent is cleared or deleted. Otherwise what
was deleted would come back with the next start.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from elytron.errors import Corrupt
from elytron.ledger import files

_FOLDER = "migrated"


class Mark(NamedTuple):
    """What was carried over, as it was then: where it lay, how big it was, its time."""

    source: str
    bytes: int
    modified_ns: int


def mark_of(source: Path) -> Mark:
    """The present state of a database, without opening it."""
    state = os.stat(source)
    return Mark(str(source.resolve()), state.st_size, state.st_mtime_ns)


def read(store: Path, agent: str) -> Mark | None:
    """
    What was carried over into an agent, or None if nothing was.

    Raises:
        Corrupt: the file says nothing that can be understood.
    """
    path = _path(store, agent)
    found = files.read_json(path)
    if found is None:
        return None
    source, size, modified = (found.get(name) for name in ("source", "bytes", "modified_ns"))
    if not (isinstance(source, str) and isinstance(size, int) and isinstance(modified, int)):
        raise Corrupt(
            f"{path} is damaged; remove it, and the agent's old database is migrated again, which"
            " doubles nothing"
        )
    return Mark(source, size, modified)


def write(store: Path, agent: str, mark: Mark) -> None:
    """Say, durably, that all of a database was carried over into an agent."""
    path = _path(store, agent)
    with files.translate_os_errors(path.parent):
        path.parent.mkdir(exist_ok=True)
        files.write_json(
            path, {**mark._asdict(), "agent": agent, "at": datetime.now(UTC).isoformat()}
        )


def _path(store: Path, agent: str) -> Path:
    return store / _FOLDER / f"{files.folder_name(agent)}.json"
