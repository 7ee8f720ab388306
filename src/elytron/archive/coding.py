"""
Coding: an archived message as a line of JSON, and back, with nothing lost.

A line has the members of `lines.to_line`, which come first in an order that compresses well, and
`position`, `session_key`, `key`, `back` (how many keys before this one is that of the message
it responds to), `arrived_us` and `embedding`. Left out is what says nothing: `position` and `key`
where they are one more than in the line before (`position` only within a session), `back` without
a message before, `arrived_us` where it equals `at`, `embedding` where it is `disabled`. With all
of them written out, files of imported messages with made ids missed their target of 0.45 of the
text: 0.46 to 0.48 (`bench/archive_ratio.py`).
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from elytron.archive.entries import LINE_MAX_BYTES, Archived
from elytron.errors import InvalidArgument
from elytron.lines import to_line
from elytron.records import DECLINED, DEFAULT_IMPORTANCE, ROLES, Message

NO_EMBEDDING = "disabled"
# What is the same from line to line stands together, so that it is one match for the compressor.
_ORDER = (
    "session session_key role back user position key at arrived_us embedding id importance pinned"
    " metadata content"
).split()
_MEMBERS = frozenset(_ORDER)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def to_us(at: datetime) -> int:
    """An aware time as whole microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def to_time(at_us: int) -> datetime:
    """Microseconds since 1970 as a time in UTC."""
    return _EPOCH + timedelta(microseconds=at_us)


def encode(archived: Archived, before: Archived | None) -> bytes:
    """
    *archived* as a line, newline and all, to stand after that of *before*.

    Raises:
        InvalidArgument: it is no JSON in UTF-8, or its line would be over 64 MB.
    """
    message = archived.message
    members: dict[str, Any] = to_line(message)
    members.pop("embed", None)  # `embedding` says it
    members["session_key"] = archived.session_key
    if not _follows(archived, before):
        members["position"] = message.position
    if before is None or archived.key != before.key + 1:
        members["key"] = archived.key
    if archived.responds_to is not None:
        members["back"] = archived.key - archived.responds_to
    if archived.arrived_us != to_us(message.at):
        members["arrived_us"] = archived.arrived_us
    if archived.embedding != NO_EMBEDDING:
        members["embedding"] = archived.embedding
    try:
        text = _encode({name: members.pop(name) for name in _ORDER if name in members})
        line = text.encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"message with key {archived.key} is no JSON in UTF-8 ({type(error).__name__}) and"
            " cannot be archived; edit or delete it"
        ) from error
    assert not members, "a member of `to_line` that the archive would lose"
    if len(line) > LINE_MAX_BYTES:
        raise InvalidArgument(
            f"message with key {archived.key} has a line of {len(line)} bytes, at most"
            f" {LINE_MAX_BYTES}; it cannot be archived: delete it, or pin it"
        )
    return line


def _follows(archived: Archived, before: Archived | None) -> bool:
    return (
        before is not None
        and archived.session_key == before.session_key
        and archived.message.position == before.message.position + 1
    )


def decode(line: bytes, before: Archived | None) -> Archived:
    """
    A line that `encode` made, after that of *before*.

    Raises:
        ValueError: it is no such line. What it says is not in the message.
    """
    try:
        members = json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError:
        raise ValueError("it is not JSON in UTF-8") from None
    if not isinstance(members, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - bad data, not a bad argument
    if not members.keys() <= _MEMBERS:
        raise ValueError("it has members that this version does not know")
    return _archived(_Members(members), before)


class _Members:
    """The members of a line, taken by name and kind."""

    def __init__(self, members: dict[str, Any]) -> None:
        self._members = members

    def has(self, name: str) -> bool:
        return name in self._members

    def take(self, name: str, *kinds: type, default: Any = None) -> Any:
        value = self._members.get(name, default)
        # `True` is an `int`, yet no number.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"its `{name}` is missing or of another kind")
        return value


def _archived(members: _Members, before: Archived | None) -> Archived:
    text = members.take("at", str)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("its `at` is no time") from None
    if at.tzinfo is None:
        raise ValueError("its `at` has no zone")
    session_key = members.take("session_key", int)
    same_session = before is not None and before.session_key == session_key
    next_position = before.message.position + 1 if before is not None and same_session else None
    key = members.take("key", int, default=None if before is None else before.key + 1)
    role = members.take("role", str)
    if role not in ROLES:
        raise ValueError("its `role` is unknown")
    embedding = members.take("embedding", str, default=NO_EMBEDDING)
    message = Message(
        id=members.take("id", str),
        role=role,
        content=members.take("content", str),
        at=at,
        session=members.take("session", str),
        user=members.take("user", str) if members.has("user") else None,
        metadata=members.take("metadata", dict, default={}),
        position=members.take("position", int, default=next_position),
        importance=members.take("importance", int, float, default=DEFAULT_IMPORTANCE),
        pinned=members.take("pinned", bool, default=False),
        embed=False if embedding == DECLINED else None,
    )
    return Archived(
        key,
        message,
        session_key,
        key - members.take("back", int) if members.has("back") else None,
        members.take("arrived_us", int, default=to_us(at)),
        embedding,
    )
