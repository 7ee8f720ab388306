"""
Claude: the `conversations.json` of a data export of claude.ai.

Each conversation is a list of messages. Where a question was edited, or an answer asked for again,
the messages say which they follow, and the last of several that follow the same one is taken.
"""

from collections.abc import Iterator
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
    text_of,
)
from elytron.importers.source import Source
from elytron.importers.times import iso_time
from elytron.records import BadLine

ATTACHED = "texts of attachments that would make a message too long"
SUMMARIES = "summaries of conversations"
_ROLES = {"human": "user", "assistant": "assistant"}
_REASONING = ("thinking", "redacted_thinking")
_FILES = ("files", "files_v2")
# A pasted text is an attachment, often with nothing beside it.
_ATTACHMENT = "\n\n[attachment: {}]\n"


def reading(source: Source, config: Config) -> Reading:
    return Reading("item", lambda: _pieces(source, config.max_message_bytes))


def _pieces(source: Source, text_max_bytes: int) -> Iterator[Piece]:
    for item in source.items():
        if isinstance(item, BadLine):
            yield item
            continue
        try:
            yield from _conversation(item.number, item.value, text_max_bytes)
        except InvalidArgument as error:
            yield BadLine(item.number, str(error))


def _conversation(number: int, value: Any, text_max_bytes: int) -> Iterator[Piece]:
    """
    The messages of one conversation, in order.

    Raises:
        InvalidArgument: it is none, before anything was yielded.
    """
    if not isinstance(value, dict) or not isinstance(value.get("chat_messages"), list):
        raise InvalidArgument("expected a conversation with `chat_messages`, a list")
    session = text_of(value, "uuid")
    messages: list[Any] = value["chat_messages"]
    taken = _taken(messages)
    title = value.get("name")
    if value.get("summary"):
        yield LeftOut(SUMMARIES)
    for place, message in enumerate(messages, 1):
        if place not in taken:
            continue
        where = f"message {place}"
        try:
            if not isinstance(message, dict):
                raise InvalidArgument(f"expected a message; got {type(message).__name__}")
            found, left_out = _message(message, text_max_bytes)
        except InvalidArgument as error:
            yield bad(number, where, str(error))
            continue
        yield from left_out
        if found is None:
            continue
        if isinstance(title, str) and title:
            found["metadata"] = {"title": title, **found["metadata"]}
            title = None
        yield Found(number, {**found, "session": session}, where)
    if len(taken) < len(messages):
        yield LeftOut(ABANDONED, len(messages) - len(taken))


def _taken(messages: list[Any]) -> set[int]:
    """
    The places, from 1, of the messages that were shown last.

    Of those that follow one and the same message only the last stays, and what follows the others
    goes with them. A message that says nothing of the kind stays.
    """
    follows: list[str | None] = []
    for message in messages:
        parent = message.get("parent_message_uuid") if isinstance(message, dict) else None
        follows.append(parent if isinstance(parent, str) else None)
    last = {parent: place for place, parent in enumerate(follows, 1) if parent is not None}
    gone: set[str] = set()
    taken: set[int] = set()
    for place, (message, parent) in enumerate(zip(messages, follows, strict=True), 1):
        if parent is not None and (parent in gone or last[parent] != place):
            gone.add(str(message.get("uuid")))
        else:
            taken.add(place)
    return taken


def _message(
    message: dict[str, Any], text_max_bytes: int
) -> tuple[dict[str, Any] | None, list[LeftOut]]:
    """A message as ours, if there is anything to keep, and what of it is left out."""
    sender = text_of(message, "sender")
    text, rest, left_out = _content(message)
    attachments = _list(message, "attachments")
    text, names, cut = _with_attachments(text, attachments, text_max_bytes)
    if cut:
        left_out.append(LeftOut(ATTACHED, cut))
    files = [file for member in _FILES for file in _list(message, member)]
    names += [name for file in files if (name := _name(file)) and name not in names]
    if not text.strip():
        return None, [*left_out, LeftOut(NO_TEXT if rest or names or files else EMPTY)]
    metadata: dict[str, Any] = {}
    if rest:
        metadata["parts"] = rest
    if names:
        metadata["files"] = names
    return {
        "id": text_of(message, "uuid"),
        "role": _ROLES.get(sender, sender),
        "content": text,
        "at": iso_time(text_of(message, "created_at"), "created_at"),
        "metadata": metadata,
    }, left_out


def _content(message: dict[str, Any]) -> tuple[str, list[Any], list[LeftOut]]:
    """(text, other parts, what is left out) of a message, without its attachments."""
    parts = _list(message, "content")
    told = [part for part in parts if not _is_reasoning(part)]
    text, rest, cut = split_parts(told)
    left_out = [LeftOut(PART_DATA, cut)] if cut else []
    if len(told) < len(parts):
        left_out.append(LeftOut(REASONING, len(parts) - len(told)))
    if not text.strip() and not rest:
        # What older exports have, and newer ones with a note for each part that is no text.
        other = message.get("text")
        text = other if isinstance(other, str) and not parts else text
    return text, rest, left_out


def _is_reasoning(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in _REASONING


def _with_attachments(
    text: str, attachments: list[Any], text_max_bytes: int
) -> tuple[str, list[str], int]:
    """(the text with those of attachments behind it, all their names, how many did not fit)."""
    names: list[str] = []
    cut = 0
    room_bytes = text_max_bytes - _bytes(text)
    for attachment in attachments:
        name = _name(attachment)
        if name is not None:
            names.append(name)
        extracted = attachment.get("extracted_content") if isinstance(attachment, dict) else None
        if not isinstance(extracted, str) or not extracted.strip():
            continue
        more = _ATTACHMENT.format(name or "text") + extracted
        if _bytes(more) > room_bytes:
            cut += 1
            continue
        room_bytes -= _bytes(more)
        text = text + more if text.strip() else more.lstrip("\n")
    return text, names, cut


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))  # admission is the one that names a surrogate


def _name(file: Any) -> str | None:
    name = file.get("file_name") if isinstance(file, dict) else None
    return name if isinstance(name, str) and name else None


def _list(message: dict[str, Any], member: str) -> list[Any]:
    found = message.get(member)
    if found is None:
        return []
    if not isinstance(found, list):
        raise InvalidArgument(f"`{member}` must be a list; got {type(found).__name__}")
    return found
