"""Integers: many numbers as one bound value, whichever database is asked."""

import array
from collections.abc import Iterable
from typing import Any

import apsw


class Integers:
    """Numbers to be bound where a statement says `carray(?)`."""

    __slots__ = ("values",)

    def __init__(self, values: Iterable[int]) -> None:
        self.values = array.array("q", values)


def bind(_cursor: apsw.Cursor, _place: int, value: object) -> Any:
    """How SQLite is given `Integers`: apsw asks for it where it does not know a value's type."""
    if not isinstance(value, Integers):
        raise TypeError(f"a {type(value).__name__} cannot be bound to a statement")
    # carray refuses an empty buffer; no key is 0.
    return apsw.carray(value.values or array.array("q", [0]), flags=apsw.SQLITE_CARRAY_INT64)
