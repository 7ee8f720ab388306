"""
Importers: conversations and memories from files of other programs, into agents.

`docs/formats.md` describes the formats.

    import_file(store, "chat.jsonl", agent="Bob Technique")
"""

import os
from collections.abc import Callable

from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.importers import (
    chatgpt,
    claude,
    jsonl,
    langgraph,
    locomo,
    mcp,
    mem0,
    openai,
    openai_sessions,
)
from elytron.importers.detect import FORMATS, detect
from elytron.importers.locomo import CarriedQuestion
from elytron.importers.opening import open_file
from elytron.importers.passes import Passes
from elytron.importers.pieces import Reading
from elytron.importers.source import Source
from elytron.importers.tables import Tables
from elytron.records import ImportReport
from elytron.store import Store

__all__ = ["FORMATS", "CarriedQuestion", "detect_format", "import_file", "questions"]

_READERS = {
    "jsonl": jsonl.reading,
    "openai": openai.reading,
    "chatgpt": chatgpt.reading,
    "locomo": locomo.reading,
    "claude": claude.reading,
    "mem0": mem0.reading,
    "mcp": mcp.reading,
}
_DATABASE_READERS = {
    "openai-sessions": openai_sessions.reading,
    "langgraph": langgraph.reading,
}


def import_file(
    store: Store,
    path: str | os.PathLike[str],
    *,
    agent: str | None = None,
    format: str = "auto",
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[ImportReport]:
    """
    Save what is in a file. Running it twice adds nothing twice.

    The file is read twice: first all of it is checked, then all of it is written: messages in
    commits of at most 500, memories, concepts and relations one by one.

    Args:
        agent: into this agent. If None, LoCoMo's samples go into agents named by their
            `sample_id`, and other files into the agent named as the file without its ending.
        format: one of `FORMATS`, or `auto` to look into the file.
        skip_bad: leave out what is not acceptable, and report it, rather than refuse the file.
        on_progress: called with (pieces dealt with, pieces of the file), messages for the most
            part, bad ones among both, while the file is written; not yet while it is checked.

    Returns:
        A report for each agent. `bad` holds at most the first 1000 bad pieces, `left_out` how
        many there were beyond. A `BadLine`'s `line` counts the lines of a file read by lines,
        the rows of a database, and of any other the items of its array, from 1.

    Raises:
        NotFound: there is no such file.
        Unavailable: it cannot be read.
        InvalidArgument: it has no known format; or a piece of it is bad, the error says which
            and why. Nothing was imported, unless the error says how much was: when something
            changed between the two readings.
        As `Agent.save` and `Agent.remember`: with how much was imported before.

    Holds at most one piece of 32 MB of JSON, 500 messages and 8 MB besides, whatever the
    file's size.
    """
    with open_file(path, store=store.path) as source:
        reading = _reading(source, format, store.config)
        return Passes(
            store, source, reading, agent=agent, skip_bad=skip_bad, on_progress=on_progress
        ).run()


def detect_format(path: str | os.PathLike[str]) -> str:
    """
    The one of `FORMATS` that a file has, by what is in it.

    Raises:
        NotFound, Unavailable: it is not there, or cannot be read.
        InvalidArgument: it has none of them.
    """
    with open_file(path) as source:
        return detect(source)


def questions(
    path: str | os.PathLike[str], limit: int, *, agent: str | None = None
) -> list[CarriedQuestion]:
    """
    Questions with answers that a file brings with it, one of each agent in turn.

    Args:
        limit: at most this many, 1 or more.
        agent: the name under which the file was imported, if one was given.

    Returns:
        (agent, question, answer, ids of the messages that hold it) of each. Only LoCoMo has
        any; a file of another format gives an empty list.

    Raises:
        NotFound, Unavailable: it is not there, or cannot be read.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidArgument(f"limit must be a whole number from 1; got {limit!r:.50}")
    with open_file(path) as source:
        try:
            if isinstance(source, Tables) or detect(source) != "locomo":
                return []
        except InvalidArgument:  # a format that only its user knows, so not this one
            return []
        found = locomo.questions(source, limit)
    return found if agent is None else [question._replace(agent=agent) for question in found]


def _reading(source: Source | Tables, format: str, config: Config) -> Reading:
    if format not in ("auto", *FORMATS):
        raise InvalidArgument(
            f"format {format!r:.50} is unknown; use auto or one of {', '.join(FORMATS)}"
        )
    name = detect(source) if format == "auto" else format
    if isinstance(source, Tables):
        if name not in _DATABASE_READERS:
            raise InvalidArgument(
                f"{source.path} is an SQLite database, which {name} is not; nothing was imported"
            )
        return _DATABASE_READERS[name](source, config)
    if name not in _READERS:
        raise InvalidArgument(
            f"{source.path} is no SQLite database, which {name} is; nothing was imported"
        )
    return _READERS[name](source, config)
