"""
Values: how Python's values become PostgreSQL's, and come back as SQLite would give them.

Whole numbers always go as bigint, so that a statement has the same types whatever it is given;
what is true or false comes back as 1 or 0; a sum of bigints, which PostgreSQL makes a numeric,
comes back as a whole number. PostgreSQL's text cannot hold U+0000: it is written as two
characters, and so is the one that marks it.
"""

import re
import struct
import sys
from array import array
from decimal import Decimal
from typing import Any

from psycopg import adapt, pq
from psycopg.abc import AdaptContext
from psycopg.types.numeric import Int8BinaryDumper, NumericBinaryLoader, NumericLoader

from elytron.ledger.integers import Integers

Buffer = bytes | bytearray | memoryview

_MARK = "\x10"  # seldom in a text, and allowed in one
_MARKED = re.compile(f"{_MARK}([d0])")
_PLAIN = {"d": _MARK, "0": "\0"}
_TEXT, _INT8, _INT8_ARRAY = 25, 20, 1016
_EIGHT = int.from_bytes(struct.pack("!i", 8), sys.byteorder)  # as it stands in memory
_KINDS = {int: "i", bool: "i", float: "f", str: "s", bytes: "b", type(None): "n", list: "t"}


def escaped(text: str) -> str:
    """*text* without U+0000."""
    if _MARK in text or "\0" in text:
        return text.replace(_MARK, f"{_MARK}d").replace("\0", f"{_MARK}0")
    return text


def plain(text: str) -> str:
    """What was `escaped`, as it was."""
    if _MARK in text:
        return _MARKED.sub(lambda found: _PLAIN[found[1]], text)
    return text


def plain_rows(rows: list[tuple[Any, ...]], types: list[int]) -> list[tuple[Any, ...]]:
    """*rows*, of columns of these *types*, with their texts as they were."""
    for at, oid in enumerate(types):
        if oid == _TEXT and any([row[at] is not None and _MARK in row[at] for row in rows]):
            rows = [
                row if row[at] is None else (*row[:at], plain(row[at]), *row[at + 1 :])
                for row in rows
            ]
    return rows


def kinds(values: "tuple[Any, ...] | list[Any]") -> str:
    """A letter for each value, as `dialect.translate` wants them."""
    return "".join([_KINDS.get(type(value)) or _kind(value) for value in values])


def _kind(value: object) -> str:
    for cls, kind in ((Integers, "a"), (int, "i"), (float, "f"), (str, "s")):
        if isinstance(value, cls):
            return kind
    if isinstance(value, bytearray | memoryview):
        return "b"
    raise TypeError(f"a {type(value).__name__} cannot be bound to a statement")


class _Text(adapt.Dumper):
    oid = _TEXT

    def dump(self, obj: str) -> Buffer | None:
        return escaped(obj).encode()


class _BinaryText(_Text):
    format = pq.Format.BINARY


class _Array(adapt.Dumper):
    """`Integers` as a bigint[]."""

    format = pq.Format.BINARY
    oid = _INT8_ARRAY

    def dump(self, obj: Integers) -> Buffer | None:
        count = len(obj.values)
        if not count:
            return struct.pack("!iii", 0, 0, _INT8)
        numbers = obj.values[:]
        if sys.byteorder == "little":
            numbers.byteswap()
        halves = array("i", numbers.tobytes())
        items = array("i", [_EIGHT]) * (3 * count)  # of each its size, and its two halves
        items[1::3], items[2::3] = halves[::2], halves[1::2]
        return struct.pack("!iiiii", 1, 0, _INT8, count, 1) + items.tobytes()


class _BoolLoader(adapt.Loader):
    def load(self, data: Buffer) -> int:
        return int(bytes(data) == b"t")


class _BoolBinaryLoader(adapt.Loader):
    format = pq.Format.BINARY

    def load(self, data: Buffer) -> int:
        return int(bytes(data) == b"\x01")


def _number(value: Decimal) -> int | float:
    return int(value) if value.is_finite() and value.as_tuple().exponent == 0 else float(value)


class _WholeLoader(adapt.Loader):
    """Whole if PostgreSQL has no digits behind the point, as of a sum of whole numbers."""

    _of: type[adapt.Loader] = NumericLoader

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._loader = self._of(oid, context)

    def load(self, data: Buffer) -> int | float:
        return _number(self._loader.load(data))


class _WholeBinaryLoader(_WholeLoader):
    format = pq.Format.BINARY
    _of = NumericBinaryLoader


def register(context: AdaptContext) -> None:
    """Have the values of *context*, a connection, go and come as said above."""
    adapters = context.adapters
    for cls in (int, bool):
        adapters.register_dumper(cls, Int8BinaryDumper)
    adapters.register_dumper(str, _Text)  # in an array; by itself the next
    adapters.register_dumper(str, _BinaryText)
    adapters.register_dumper(Integers, _Array)
    adapters.register_loader("bool", _BoolLoader)
    adapters.register_loader("bool", _BoolBinaryLoader)
    adapters.register_loader("numeric", _WholeLoader)
    adapters.register_loader("numeric", _WholeBinaryLoader)
