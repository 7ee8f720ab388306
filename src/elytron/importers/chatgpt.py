"""
ChatGPT: the `conversations.json` of a data export.

Each conversation is a tree of messages, with a branch for every edited question and every
answer that was asked for again. The branch that was shown last is taken.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.importers.pieces import (
    ABANDONED,
    EMPTY,
    NO_TEXT,
    PART_DATA,
    REASONING,
    Found,
    LeftOut,
    Piece,
    Reading,
    bad,
    split_parts,
)
from elytron.importers.source import Source
from elytron.records import BadLine

HIDDEN = "hidden in ChatGPT"
UPLOADED = "names of files that were uploaded"
_REASONING = ("thoughts", "reasoning_recap")
_NO_OTHERS = ("content_type", "parts", "language", "response_format_name")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXTS = ("text", "result", "content")  # where content without `parts` may have its text


def reading(source: Source, _config: Config) -> Reading:
    return Reading("item", lambda: _pieces(source))


def _pieces(source: Source) -> Iterator[Piece]:
    for item in source.items():
        if isinstance(item, BadLine):
            yield item
            continue
        try:
            yield from _conversation(item.number, item.value)
        except InvalidArgument as error:
            yield BadLine(item.number, str(error))


def _conversation(number: int, value: Any) -> Iterator[Piece]:
    """
    The messages of one conversation, in order.

    Raises:
        InvalidArgument: it is none, before anything was yielded.
    """
    if not isinstance(value, dict) or not isinstance(value.get("mapping"), dict):
        raise InvalidArgument("expected a conversation with a `mapping` of messages")
    session = value.get("conversation_id") or value.get("id")
    if not isinstance(session, str):
        raise InvalidArgument("the conversation has no `conversation_id` and no `id`")
    nodes = {name: node for name, node in value["mapping"].items() if isinstance(node, dict)}
    branch = _branch(nodes, value.get("current_node"))
    title = value.get("title")
    at = _time(value.get("create_time"))
    for name in branch:
        message = nodes[name].get("message")
        if message is None:
            continue
        place = f"message {name!r:.60}"
        try:
            if not isinstance(message, dict):
                raise InvalidArgument(f"expected a message; got {type(message).__name__}")
            at = _time(message.get("create_time")) or at
            found, left_out = _message(message, name)
        except InvalidArgument as error:
            yield bad(number, place, str(error))
            continue
        yield from left_out
        if found is None:
            continue
        if isinstance(title, str) and title:
            found["metadata"] = {"title": title, **found["metadata"]}
            title = None
        yield Found(number, {**found, "session": session, "at": at}, place)
    on_branch = set(branch)
    abandoned = [n for n, node in nodes.items() if n not in on_branch and node.get("message")]
    if abandoned:
        yield LeftOut(ABANDONED, len(abandoned))


def _branch(nodes: dict[str, Any], current: object) -> list[str]:
    """The nodes from the root to the one that was shown last. Cycles and gaps end it."""
    name = current if isinstance(current, str) and current in nodes else _newest_leaf(nodes)
    branch: dict[str, None] = {}  # as a set that keeps the order
    while isinstance(name, str) and name in nodes and name not in branch:
        branch[name] = None
        name = nodes[name].get("parent")
    return list(reversed(branch))


def _newest_leaf(nodes: dict[str, Any]) -> str | None:
    """Down from the root, at each fork to the child that was made last."""

    def newest(names: list[str]) -> str | None:
        return max(names, key=lambda name: _made(nodes[name]), default=None)

    roots = [n for n, node in nodes.items() if not _is_node(nodes, node.get("parent"))]
    # A root without children says nothing, if there is another.
    name = newest([n for n in roots if nodes[n].get("children")] or roots)
    seen: set[str] = set()
    while name is not None and name not in seen:
        seen.add(name)
        children = nodes[name].get("children")
        below = [c for c in children if _is_node(nodes, c)] if isinstance(children, list) else []
        following = newest([child for child in below if child not in seen])
        if following is None:
            return name
        name = following
    return name


def _is_node(nodes: dict[str, Any], name: object) -> bool:
    return isinstance(name, str) and name in nodes


def _made(node: dict[str, Any]) -> float:
    message = node.get("message")
    made = message.get("create_time") if isinstance(message, dict) else None
    return made if isinstance(made, int | float) else -1


def _time(seconds: Any) -> datetime | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidArgument(f"create_time must be a number; got {type(seconds).__name__}")
    try:
        at = _EPOCH + timedelta(seconds=seconds)
    except (OverflowError, ValueError) as error:
        raise InvalidArgument("create_time is no number of seconds since 1970") from error
    if at < _EPOCH:
        raise InvalidArgument("create_time is before 1970")
    return at


def _message(message: dict[str, Any], name: str) -> tuple[dict[str, Any] | None, list[LeftOut]]:
    """A message as ours, if there is anything to keep, and what of it is left out."""
    flags = message.get("metadata")
    flags = flags if isinstance(flags, dict) else {}
    if flags.get("is_visually_hidden_from_conversation"):
        return None, [LeftOut(HIDDEN)]
    uploaded = flags.get("attachments")
    left_out = [LeftOut(UPLOADED, len(uploaded))] if isinstance(uploaded, list) and uploaded else []
    content = message.get("content") or {}
    if not isinstance(content, dict):
        raise InvalidArgument(f"content must be an object; got {type(content).__name__}")
    kind = content.get("content_type")
    if kind in _REASONING:
        return None, [LeftOut(REASONING)]
    parts = content.get("parts")
    if not isinstance(parts, list):
        parts = [content[member] for member in _TEXTS if isinstance(content.get(member), str)][:1]
    text, rest, cut = split_parts(parts)
    if not text.strip():
        others = [member for name, member in content.items() if name not in _NO_OTHERS]
        return None, [*left_out, LeftOut(NO_TEXT if rest or any(others) or left_out else EMPTY)]
    metadata: dict[str, Any] = {}
    if kind not in (None, "text"):
        metadata["content_type"] = kind
    if rest:
        metadata["parts"] = rest
    author = message.get("author")
    if not isinstance(author, dict):
        raise InvalidArgument("the message has no `author`")
    found = {
        "id": message.get("id") or name,
        "role": author.get("role"),
        "content": text,
        "metadata": metadata,
    }
    if author.get("name"):
        found["user"] = author["name"]
    return found, [*left_out, LeftOut(PART_DATA, cut)] if cut else left_out
