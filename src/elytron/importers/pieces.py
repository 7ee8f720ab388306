"""
Pieces: what a reader finds in a file, one after the other.

A reader decides what a piece is, never what follows from it: `passes.py` does that.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from elytron.errors import InvalidArgument
from elytron.importers.repeats import Repeats
from elytron.records import BadLine

PART_MAX_BYTES = 8192  # a part of a message that is not text; larger ones hold encoded data
ABANDONED = "on an abandoned branch"
EMPTY = "empty"
NO_TEXT = "no text, only images, sounds, files or the like"
REASONING = "the model's reasoning"
PART_DATA = f"data of an image, a sound or a file, over {PART_MAX_BYTES} bytes"


class Found(NamedTuple):
    """A message. `place` says where in its line or item it stands, if that holds several."""

    line: int
    message: dict[str, Any]
    place: str = ""


class LeftOut(NamedTuple):
    """Something of the source that a memory does not take. The reasons are a fixed few."""

    reason: str
    times: int = 1


class AgentBegins(NamedTuple):
    """What follows belongs to the agent of this name."""

    name: str


class Taught(NamedTuple):
    """
    A memory: the arguments of `Agent.remember`, its id among them.

    What is `aside` only makes another be found, and is not counted.
    """

    line: int
    memory: dict[str, Any]
    place: str = ""
    aside: bool = False


class Described(NamedTuple):
    """A concept, of this type if the source says one. What is said of it here already stays."""

    line: int
    name: str
    type: str | None
    place: str = ""


class Told(NamedTuple):
    """A fact about two concepts."""

    line: int
    source: str
    relation: str
    target: str
    place: str = ""


Learned = Taught | Described | Told
Piece = Found | Learned | BadLine | LeftOut | AgentBegins


class Reading(NamedTuple):
    """
    How a file is read. `pieces` reads it from its start, as often as it is called.

    `noun` is what the numbers of its pieces count: lines, or items of its array. `what` is what
    it brings.
    """

    noun: str
    pieces: Callable[[], Iterator[Piece]]
    what: str = "messages"


def bad(line: int, place: str, reason: str) -> BadLine:
    """A bad piece whose reason says where in its line or item it stands."""
    return BadLine(line, f"{place}: {reason}" if place else reason)


def text_of(value: dict[str, Any], member: str) -> str:
    """
    A member that has to be a string.

    Raises:
        InvalidArgument: it is missing, or something else.
    """
    found = value.get(member)
    if not isinstance(found, str):
        got = type(found).__name__ if member in value else "nothing"
        raise InvalidArgument(f"`{member}` must be a string; got {got}")
    return found


def derived_id(kind: str, *values: str) -> str:
    """An id made of what it is for: the same values always give the same."""
    text = json.dumps(values)  # all ASCII, so that a lone surrogate gets as far as admission
    return f"{kind}:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def made_id(repeats: Repeats, *values: object) -> str:
    """
    An id for a message that has none, 32 hex digits.

    Made from its values and from how often the same came before in the file. So reading a file
    again gives the same ids, wherever in it a message has moved to.

    Raises:
        InvalidArgument: the values are nested too deep.
    """
    try:
        # All ASCII, so that a lone surrogate gets as far as admission, which names it.
        text = json.dumps(values, sort_keys=True)
    except RecursionError as error:
        raise InvalidArgument("it is nested too deep") from error
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    before = repeats.count(key).to_bytes(8, "big")
    return hashlib.blake2b(key + before, digest_size=16).hexdigest()


def split_parts(parts: list[Any]) -> tuple[str, list[Any], int]:
    """
    Tell the text of a message from its images, sounds and files.

    Returns:
        (text, rest, cut): the texts joined by newlines; the other parts, those over
        `PART_MAX_BYTES` cut down to their type and size; and how many were cut.
    """
    texts: list[str] = []
    rest: list[Any] = []
    cut = 0
    for part in parts:
        text = part if isinstance(part, str) else None
        if isinstance(part, dict):
            text = next(
                (part[n] for n in ("text", "refusal") if isinstance(part.get(n), str)), None
            )
        if text is not None:
            texts.append(text)
            continue
        size_bytes = _json_bytes(part)
        if size_bytes > PART_MAX_BYTES:
            kinds = ("type", "content_type")
            kind = {n: str(part[n])[:100] for n in kinds if n in part} if type(part) is dict else {}
            part = {**kind, "left_out_bytes": size_bytes}
            cut += 1
        rest.append(part)
    return "\n".join([text for text in texts if text]), rest, cut


def _json_bytes(value: Any) -> int:
    try:
        return len(json.dumps(value))
    except RecursionError as error:
        raise InvalidArgument("it is nested too deep") from error
