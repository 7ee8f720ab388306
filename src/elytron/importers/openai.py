"""
OpenAI chat messages: an array of them, one `{"messages": [...]}`, or one such a line.
"""

from collections.abc import Callable, Iterator
from typing import Any

from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.importers.pieces import (
    EMPTY,
    NO_TEXT,
    PART_DATA,
    Found,
    LeftOut,
    Piece,
    Reading,
    bad,
    made_id,
    split_parts,
)
from elytron.importers.repeats import Repeats
from elytron.importers.source import PIECE_MAX_BYTES, Item, Source
from elytron.records import BadLine

OTHER_MEMBERS = "settings beside `messages`, such as tools"
_CALLS = "[calls]"
_STEM_MAX = 150  # characters of the file's name in a session's


def reading(source: Source, _config: Config) -> Reading:
    session = session_of(source.path.stem)
    if source.first_byte == b"[":
        return Reading("item", lambda: _conversation(source.items(), session(1)))
    if source.first_byte == b"{" and not source.is_by_lines():
        return Reading("item", lambda: _object(source, session(1)))
    return Reading("line", lambda: _lines(source, session))


def session_of(stem: str) -> Callable[[int], str]:
    """Names the sessions of a file: its own name and the number of the conversation in it."""
    name = "".join([c if c.isprintable() else "_" for c in stem])[:_STEM_MAX]
    return lambda number: f"{name}-{number}"


def _object(source: Source, session: str) -> Iterator[Piece]:
    try:
        whole = source.whole()
    except InvalidArgument as error:
        yield BadLine(1, str(error))
        return
    if not isinstance(whole, dict) or not isinstance(whole.get("messages"), list):
        yield BadLine(1, "expected an object with `messages`, a list")
        return
    if len(whole) > 1:
        yield LeftOut(OTHER_MEMBERS)
    yield from _conversation((Item(n, m) for n, m in enumerate(whole["messages"], 1)), session)


def _conversation(items: Iterator[Item | BadLine], session: str) -> Iterator[Piece]:
    """One conversation, a message an item."""
    with Repeats() as repeats:
        for item in items:
            if isinstance(item, BadLine):
                yield item
            else:
                yield from _pieces(item.number, "", item.value, session, repeats)


def _lines(source: Source, session: Callable[[int], str]) -> Iterator[Piece]:
    """One conversation a line."""
    with Repeats() as repeats:
        for number, item in enumerate(source.lines(PIECE_MAX_BYTES), 1):
            if isinstance(item, BadLine):
                yield item
                continue
            example = item.value
            messages = example.get("messages") if isinstance(example, dict) else None
            if not isinstance(messages, list):
                yield BadLine(item.number, "expected an object with `messages`, a list")
                continue
            if len(example) > 1:
                yield LeftOut(OTHER_MEMBERS)
            for place, value in enumerate(messages, 1):
                yield from _pieces(item.number, f"message {place}", value, session(number), repeats)


def _pieces(line: int, place: str, value: Any, session: str, repeats: Repeats) -> Iterator[Piece]:
    try:
        message, left_out = _message(value, session)
        yield from left_out
        if message is not None:
            members = ("session", "role", "user", "content", "metadata")
            message["id"] = made_id(repeats, *[message.get(name) for name in members])
            yield Found(line, message, place)
    except InvalidArgument as error:
        yield bad(line, place, str(error))


def _message(value: Any, session: str) -> tuple[dict[str, Any] | None, list[LeftOut]]:
    """A chat message as ours, if it has anything to keep, and what of it is left out."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"expected a message; got {type(value).__name__}")
    if "role" not in value:
        raise InvalidArgument("`role` is missing")
    content, parts, cut = _content(value)
    left_out = [LeftOut(PART_DATA, cut)] if cut else []
    calls = _calls(value)
    if not content.strip():
        if not calls:
            return None, [LeftOut(NO_TEXT if parts else EMPTY)]
        content = calls
    own = ["role", "content", "name"]
    if value.get("content") is None:
        own.append("refusal")  # it stands for the content
    metadata = {n: member for n, member in value.items() if n not in own and member is not None}
    if parts:
        metadata["parts"] = parts
    message = {"role": value.get("role"), "content": content, "session": session}
    if value.get("name"):
        message["user"] = value["name"]
    if metadata:
        message["metadata"] = metadata
    return message, left_out


def _content(value: dict[str, Any]) -> tuple[str, list[Any], int]:
    """(text, other parts, how many of these were cut) of a message."""
    content = value.get("content")
    if content is None:
        content = value.get("refusal") or ""
    if isinstance(content, list):
        return split_parts(content)
    if not isinstance(content, str):
        raise InvalidArgument(
            f"content must be a string or a list of parts; got {type(content).__name__}"
        )
    return content, [], 0


def _calls(value: dict[str, Any]) -> str:
    """The calls of a message in words, one a line; empty if there are none."""
    calls = value.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InvalidArgument(f"tool_calls must be a list; got {type(calls).__name__}")
    functions = [
        call.get("function") or call.get("custom") for call in calls if isinstance(call, dict)
    ]
    functions.append(value.get("function_call"))
    return "\n".join(
        f"{_CALLS} {function.get('name')}({function.get('arguments', function.get('input', ''))})"
        for function in functions
        if isinstance(function, dict)
    )
