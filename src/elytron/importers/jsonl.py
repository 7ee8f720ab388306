"""
JSON Lines: one message a line, as `Agent.export` writes them.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.importers.pieces import Found, Piece, Reading, made_id
from elytron.importers.repeats import Repeats
from elytron.importers.source import Source
from elytron.records import BadLine
from elytron.write.admission import MEMBERS

_HASHED = ("session", "role", "user", "at", "content", "metadata")
_ESCAPE_BYTES = 6  # of one byte, as \u0001
_REST_BYTES = 1 << 14  # ids, names and times, escaped


def reading(source: Source, config: Config) -> Reading:
    # Content and metadata have the same limit each.
    line_max_bytes = 2 * _ESCAPE_BYTES * config.max_message_bytes + _REST_BYTES
    return Reading("line", lambda: _pieces(source, line_max_bytes))


def _pieces(source: Source, line_max_bytes: int) -> Iterator[Piece]:
    with Repeats() as repeats:
        for item in source.lines(line_max_bytes):
            if isinstance(item, BadLine):
                yield item
                continue
            try:
                yield Found(item.number, message_of(item.value, repeats))
            except InvalidArgument as error:
                yield BadLine(item.number, str(error))


def message_of(value: Any, repeats: Repeats) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"expected an object; got {type(value).__name__}")
    unknown = next((name for name in value if name not in MEMBERS), None)
    if unknown is not None:
        raise InvalidArgument(f"unknown member {unknown!r:.50}; a message has {', '.join(MEMBERS)}")
    message = {name: member for name, member in value.items() if member is not None}
    if not isinstance(message.get("metadata", {}), dict):
        raise InvalidArgument(
            f"metadata must be an object; got {type(message['metadata']).__name__}"
        )
    if "id" not in message:
        message["id"] = made_id(repeats, *[message.get(name) for name in _HASHED])
    if "at" in message:
        message["at"] = _time(message["at"])
    return message


def _time(text: object) -> datetime:
    if not isinstance(text, str):
        raise InvalidArgument(f"at must be a string; got {type(text).__name__}")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(
            "at is no time in ISO 8601, such as 2026-03-02T18:04:10+01:00"
        ) from error
