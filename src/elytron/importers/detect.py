"""
Detect: which format a file has, by what is in it. Its name says nothing.
"""

import itertools
from typing import Any

from elytron.errors import InvalidArgument
from elytron.importers import langgraph, openai_sessions
from elytron.importers.source import HEAD_MAX, PIECE_MAX_BYTES, Item, Source
from elytron.importers.tables import Tables

FORMATS = (
    "jsonl",
    "openai",
    "chatgpt",
    "locomo",
    "claude",
    "mem0",
    "mcp",
    "openai-sessions",
    "langgraph",
)
_BY_ITEM = {
    "mapping": "chatgpt",
    "chat_messages": "claude",
    "memory": "mem0",
    "conversation": "locomo",
    "role": "openai",
}
_BY_LINE = {
    "results": "mem0",
    "memory": "mem0",
    "entityType": "mcp",
    "relationType": "mcp",
    "messages": "openai",
    "role": "jsonl",
    "content": "jsonl",
}


def detect(source: Source | Tables) -> str:
    """
    One of `FORMATS`.

    Raises:
        InvalidArgument: nothing in its first lines or items tells.
    """
    found = None
    if isinstance(source, Tables):
        found = _of_tables(source)
    elif source.first_byte == b"[":
        found = _first_known(source.items(), _BY_ITEM)
    elif source.first_byte == b"{" and source.is_by_lines():
        found = _first_known(source.lines(PIECE_MAX_BYTES), _BY_LINE)
    elif source.first_byte == b"{":
        found = _first_known([_whole(source)], {"messages": "openai", "results": "mem0"})
    if found is None:
        raise InvalidArgument(
            f"{source.path} has none of the formats {', '.join(FORMATS)}, as far as its beginning"
            " shows; if it is one of them, name it as the format; nothing was imported"
        )
    return found


def _of_tables(tables: Tables) -> str | None:
    if openai_sessions.table_of(tables) is not None:
        return "openai-sessions"
    return "langgraph" if langgraph.is_store(tables) else None


def _first_known(values: Any, formats: dict[str, str]) -> str | None:
    for value in itertools.islice(values, HEAD_MAX):
        if isinstance(value, Item) and isinstance(value.value, dict):
            for member, name in formats.items():
                if member in value.value:
                    return name
    return None


def _whole(source: Source) -> Item | None:
    try:
        return Item(1, source.whole())
    except InvalidArgument:
        return None
