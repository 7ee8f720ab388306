"""Integers: many numbers, or texts, as one bound value, whichever database is asked."""

import array
import json
from collections.abc import Iterable
from typing import Any

import apsw


class Integers:
    """Numbers to be bound where a statement says `carray(?)`."""

    __slots__ = ("values",)

    def __init__(self, values: Iterable[int]) -> None:
        self.values = array.array("q", values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Integers) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]


def bind(_cursor: apsw.Cursor, _place: int, value: object) -> Any:
    """
    How SQLite is given `Integers`, or a list of texts for `json_each(?)`: apsw asks for it where it
    does not know a value's type.
    """
    if isinstance(value, list):
        return json.dumps(value)
    if not isinstance(value, Integers):
        raise TypeError(f"a {type(value).__name__} cannot be bound to a statement")
    # carray refuses an empty buffer; no key is 0.
    return apsw.carray(value.values or array.array("q", [0]), flags=apsw.SQLITE_CARRAY_INT64)
