"""
mem0: what its `get_all` returns, saved as JSON.

An object with `results` and, of versions with a graph, `relations`; the bare list of older
versions; or one memory a line.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.importers.pieces import (
    EMPTY,
    LeftOut,
    Piece,
    Reading,
    Taught,
    Told,
    bad,
    derived_id,
    text_of,
)
from elytron.importers.source import PIECE_MAX_BYTES, Item, Source
from elytron.importers.times import iso_time
from elytron.records import BadLine

FACT = "fact"  # the kind of such a memory
WHAT = "memories and relations"
OTHER_MEMBERS = "members beside `results` and `relations`, such as page numbers"
SCORES = "scores, which are of one search"
_OWN = ("id", "memory", "score")  # the rest is kept in metadata
_TARGETS = ("target", "destination")  # as `get_all` and as `search` call it


def reading(source: Source, _config: Config) -> Reading:
    if source.first_byte == b"[":
        return Reading("item", lambda: _memories(source.items()), WHAT)
    if source.first_byte == b"{" and not _is_whole(source):
        return Reading("line", lambda: _memories(source.lines(PIECE_MAX_BYTES)), WHAT)
    return Reading("item", lambda: _object(source), WHAT)


def _is_whole(source: Source) -> bool:
    """Whether the file is one object with all memories, on one line or over several."""
    if not source.is_by_lines():
        return True
    first = next(source.lines(PIECE_MAX_BYTES))
    return isinstance(first, Item) and isinstance(first.value, dict) and "results" in first.value


def _object(source: Source) -> Iterator[Piece]:
    try:
        whole = source.whole()
    except InvalidArgument as error:
        yield BadLine(1, str(error))
        return
    if not isinstance(whole, dict) or not isinstance(whole.get("results"), list):
        yield BadLine(1, "expected an object with `results`, a list")
        return
    if set(whole) - {"results", "relations"}:
        yield LeftOut(OTHER_MEMBERS)
    results = whole["results"]
    yield from _memories(Item(number, value) for number, value in enumerate(results, 1))
    relations = whole.get("relations") or []
    if not isinstance(relations, list):
        yield BadLine(len(results) + 1, "`relations` must be a list")
        return
    for place, value in enumerate(relations, 1):
        number = len(results) + place
        try:
            yield _relation(number, value, f"relation {place}")
        except InvalidArgument as error:
            yield bad(number, f"relation {place}", str(error))


def _memories(items: Iterable[Item | BadLine]) -> Iterator[Piece]:
    for item in items:
        if isinstance(item, BadLine):
            yield item
            continue
        try:
            yield from _memory(item.number, item.value)
        except InvalidArgument as error:
            yield BadLine(item.number, str(error))


def _memory(number: int, value: Any) -> Iterator[Piece]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"expected a memory; got {type(value).__name__}")
    content = text_of(value, "memory")
    if not content.strip():
        yield LeftOut(EMPTY)
        return
    metadata = {n: member for n, member in value.items() if n not in _OWN and member is not None}
    memory: dict[str, Any] = {
        "content": content,
        "kind": FACT,
        "id": text_of(value, "id") if "id" in value else derived_id("mem0", content),
        "metadata": metadata or None,
    }
    for member, argument in (("created_at", "valid_from"), ("expiration_date", "valid_to")):
        if value.get(member) is not None:
            memory[argument] = iso_time(text_of(value, member), member)
    if value.get("score") is not None:
        yield LeftOut(SCORES)
    yield Taught(number, memory)


def _relation(number: int, value: Any, place: str) -> Told:
    if not isinstance(value, dict):
        raise InvalidArgument(f"expected a relation; got {type(value).__name__}")
    target = next((member for member in _TARGETS if member in value), _TARGETS[0])
    return Told(
        number,
        text_of(value, "source"),
        text_of(value, "relationship"),
        text_of(value, target),
        place,
    )
