"""
Parameters: which values a Cypher query may be given. Pure.

The engines say little of a value that they cannot take, and some of what they say quotes it; so
it is refused here, by its name.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from elytron.errors import InvalidArgument

_NAMES_MAX = 100
_DEPTH_MAX = 32
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_PLAIN = (str, bytes, float, datetime, date, timedelta, Decimal, UUID)


def check_parameters(params: object) -> dict[str, Any]:
    """
    Values by name, as a query takes them.

    Raises:
        InvalidArgument: more than 100; a name that is no string; a value of another kind than
            text, numbers, times, lists and mappings; a number beyond 64 bits; a list that is empty
            or of several kinds; more than 32 levels; a lone surrogate.
    """
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise InvalidArgument(
            f"params must be a mapping of names to values; got {type(params).__name__}"
        )
    if len(params) > _NAMES_MAX:
        raise InvalidArgument(f"{len(params)} params, at most {_NAMES_MAX}; pass lists instead")
    for name, value in params.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InvalidArgument(
                f"the name of a param must be letters, digits and _; got {name!r:.50}"
            )
        _check(f"param {name}", value, 0)
    return dict(params)


def check_whole(what: str, text: str) -> None:
    """
    Raises:
        InvalidArgument: the text has half a character, which no engine takes.
    """
    bad = next((n for n, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
    if bad is not None:
        raise InvalidArgument(f"{what} has a lone surrogate at {bad}; remove it")


def _check(what: str, value: object, depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise InvalidArgument(f"{what} has more than {_DEPTH_MAX} levels; flatten it")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise InvalidArgument(f"{what} is a number beyond 64 bits; pass it as text")
    elif isinstance(value, str):
        check_whole(what, value)
    elif isinstance(value, Mapping):
        _check_members(what, value, depth)
    elif isinstance(value, list | tuple | set | frozenset | range):
        _check_items(what, value, depth)
    elif isinstance(value, datetime):
        _check_time(what, value)
    elif not isinstance(value, _PLAIN):
        raise InvalidArgument(
            f"{what} is a {type(value).__name__}, which no graph holds; pass text, a number, a"
            " time, or lists and mappings of these"
        )


def _check_members(what: str, members: Mapping[Any, object], depth: int) -> None:
    for name, item in members.items():
        if not isinstance(name, str):
            raise InvalidArgument(f"{what} has a key that is no string; make it one")
        _check(what, item, depth + 1)


def _check_time(what: str, at: datetime) -> None:
    try:
        at.astimezone(UTC)
    except (OverflowError, ValueError):
        raise InvalidArgument(f"{what} is in UTC outside the years 1 to 9999") from None


def _check_items(what: str, items: Iterable[object], depth: int) -> None:
    kinds = set[str]()
    for item in items:
        _check(what, item, depth + 1)
        if item is not None:
            kinds.add(_kind(item))
    if not kinds:
        raise InvalidArgument(
            f"{what} is a list without a value, so its type is unknown; leave the condition out"
        )
    if len(kinds) > 1:
        listed = " and ".join(sorted(kinds))
        raise InvalidArgument(f"{what} is a list of {listed}; make all its items of one kind")


def _kind(item: object) -> str:
    if isinstance(item, list | tuple | set | frozenset | range):
        return "lists"
    if isinstance(item, Mapping):
        return "mappings"
    return type(item).__name__
