"""
Answers: what a server sent, read within bounds, and as what was asked for.

A server may be none of ours, or broken. What it sends is never shown: it may hold what people said.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from urllib3.response import BaseHTTPResponse

from elytron.errors import ElytronError, OutcomeUnknown, Unavailable
from elytron.remote.attempts import TooSlow

ANSWER_MAX_BYTES = 256 << 20  # of one that comes whole, and of a line of one that flows
_PIECE_BYTES = 1 << 18
_T = TypeVar("_T")


class TooLong(Exception):
    """An answer is over `ANSWER_MAX_BYTES`; the rest of it was not read."""


def whole(answer: BaseHTTPResponse, *, timeout_s: float) -> bytes:
    """
    The bytes of an answer, as they are sent; the connection is free afterwards.

    Raises:
        TooLong: it is over the bound.
        HTTPError: it broke off, or had not come after `timeout_s`.
    """
    give_up_s = time.monotonic() + timeout_s
    pieces: list[bytes] = []
    size_bytes = 0
    try:
        # Never unpacked, which nobody asked for: what is small packed may fill the memory.
        while piece := answer.read1(_PIECE_BYTES, decode_content=False):
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > ANSWER_MAX_BYTES:
                raise TooLong
            if time.monotonic() > give_up_s:
                raise TooSlow("its answer had not come whole")
        return b"".join(pieces)
    finally:
        answer.close()  # read to its end it went back to the pool, else it is of no use
        answer.release_conn()


def split(answer: BaseHTTPResponse) -> Iterator[bytes]:
    """
    The lines of an answer that flows in, without their ends.

    Raises:
        TooLong: a line is over the bound.
    """
    rest = bytearray()
    for chunk in answer.stream(1 << 16, decode_content=False):
        first, *others = chunk.split(b"\n")
        rest += first
        for line in others:
            yield bytes(rest)
            rest = bytearray(line)
        if len(rest) > ANSWER_MAX_BYTES:
            raise TooLong
    if rest:
        yield bytes(rest)


def told(line: bytes) -> dict[str, Any]:
    """
    What a line of an answer says; nothing where it is a mere sign of life.

    Raises:
        ValueError, RecursionError: it is no object in JSON.
    """
    value = json.loads(line) if line else {}
    if not isinstance(value, dict):
        raise ValueError("no object")  # noqa: TRY004 - as of what is no JSON
    return value


def as_asked(url: str, verb: str, read: Callable[[Any], _T], sent: Any, *, writes: bool) -> _T:
    """
    What *read* makes of what was sent.

    Raises:
        OutcomeUnknown, Unavailable: nothing, as it is no answer to that verb.
    """
    try:
        return read(sent)
    except (ValueError, TypeError, KeyError, RecursionError):
        # The cause would show what was sent.
        raise unreadable(url, verb, writes=writes) from None


def unreadable(url: str, verb: str, *, writes: bool) -> ElytronError:
    """The error for an answer that is none."""
    said = f"what {url} sent is no answer to `{verb}`"
    if writes:
        return OutcomeUnknown(f"{said}, so it may or may not be done; look, or do it again")
    return Unavailable(f"{said}; is it an `elytron serve` of this version?")
