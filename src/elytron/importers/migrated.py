"""
Migrated: which databases of the origin and which files of the reference memory server were carried
over into a store, so that a program that starts does not do it again.

Small files in `<store>/migrated/`, for each agent one and one a file: not in the agent's own
folder, so that they are there before anything is written and stay when the agent is cleared or
deleted. Otherwise what was deleted would come back with the next start.
"""

import hashlib
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
    """The present state of a database or a file, without opening it."""
    state = os.stat(source)
    return Mark(str(source.resolve()), state.st_size, state.st_mtime_ns)


def digest_of(source: Path) -> str:
    """What one file of several is known by: a hash of its path, 32 hex digits."""
    return hashlib.blake2b(str(source.resolve()).encode(), digest_size=16).hexdigest()


def read(store: Path, agent: str, *, file: str = "") -> Mark | None:
    """
    What was carried over into an agent, or None if nothing was.

    Args:
        file: the `digest_of` the file that is asked about; if empty, it is the origin's database.

    Raises:
        Corrupt: the file says nothing that can be understood.
    """
    path = _path(store, agent, file)
    found = files.read_json(path)
    if found is None:
        return None
    source, size, modified = (found.get(name) for name in ("source", "bytes", "modified_ns"))
    if not (isinstance(source, str) and isinstance(size, int) and isinstance(modified, int)):
        raise Corrupt(
            f"{path} is damaged; remove it, and what it stands for is carried over again, which"
            " doubles nothing"
        )
    return Mark(source, size, modified)


def write(store: Path, agent: str, mark: Mark, *, file: str = "") -> None:
    """Say, durably, that all of a database, or of a file, was carried over into an agent."""
    path = _path(store, agent, file)
    with files.translate_os_errors(path.parent):
        path.parent.mkdir(exist_ok=True)
        files.write_json(
            path, {**mark._asdict(), "agent": agent, "at": datetime.now(UTC).isoformat()}
        )


def _path(store: Path, agent: str, file: str) -> Path:
    name = files.folder_name(agent)
    return store / _FOLDER / (f"{name}-{file}.json" if file else f"{name}.json")
