"""
LangGraph records: how an item of a LangGraph store is held as a memory, and what fits a search.

Decides only; `langgraph.py` reads and writes. The memory's content is two lines of JSON: the value,
and what changes with it. So one edit replaces an item as a whole. Its metadata say where it is,
its `valid_to` when it expires, which can be moved without touching the content.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from elytron.adapters import items
from elytron.records import Memory
from elytron.text import unprintable_at

Namespace = tuple[str, ...]
FOREVER = datetime(9000, 1, 1, tzinfo=UTC)  # `valid_to` of what had an end and has none any more
NAMESPACES = "langgraph namespaces"  # the session and the kind of what lists them
SPREAD: Namespace = ()  # listed, it says that further ones are listed in parts; no item is there
_PLACE = "langgraph_item"  # where in a memory's metadata its place is
_ID_MAX = 200
_SPREAD_SHARE = 8  # of what one session may have, this part is listed before others are in parts
_NEAR = 2  # labels: what has the same first ones is listed in few parts
_DIGITS = "0123456789abcdef"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Record:
    """One item as it is held. `fields` are the paths that are searched; None for all of it."""

    namespace: Namespace
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    ttl_minutes: float | None
    fields: tuple[str, ...] | None

    def content(self) -> str:
        state = [
            mark(self.namespace, self.key),
            (self.created_at - _EPOCH) // _MICROSECOND,
            (self.updated_at - _EPOCH) // _MICROSECOND,
            self.ttl_minutes,
            self.fields,
        ]
        return f"{items.dumps(self.value, 'the value')}\n{items.dumps(state)}"

    def expires_at(self, now: datetime) -> datetime | None:
        """When it expires if it is used now."""
        if self.ttl_minutes is None:
            return None
        try:
            return min(FOREVER, now + timedelta(minutes=self.ttl_minutes))
        except OverflowError:
            return FOREVER


def record_of(memory: Memory) -> Record:
    """The item that a memory holds."""
    value, _, state = memory.content.partition("\n")
    _, created_us, updated_us, ttl_minutes, fields = json.loads(state)
    *namespace, key = json.loads(memory.metadata[_PLACE])
    return Record(
        tuple(namespace),
        key,
        json.loads(value),
        _EPOCH + created_us * _MICROSECOND,
        _EPOCH + updated_us * _MICROSECOND,
        ttl_minutes,
        None if fields is None else tuple(fields),
    )


def is_record(memory: Memory) -> bool:
    """Whether it holds an item, and not only words by which one is found."""
    return _PLACE in memory.metadata


def namespace_of(memory: Memory) -> Namespace:
    """The namespace of the item that a memory holds."""
    *namespace, _ = json.loads(memory.metadata[_PLACE])
    return tuple(namespace)


def place(namespace: Namespace, key: str) -> dict[str, str]:
    """The metadata of a record: where it is, as JSON, since labels and keys may be any text."""
    return {_PLACE: items.dumps([*namespace, key])}


def mark(namespace: Namespace, key: str) -> str:
    """A word that sets a record apart: of memories with equal texts a recall shows one."""
    return _digest([*namespace, key])[:12]


def lives(memory: Memory, now: datetime) -> bool:
    return memory.valid_to is None or memory.valid_to > now


def record_id(namespace: Namespace, key: str) -> str:
    """The same for the same place, so that an item is found by its primary key."""
    return f"langgraph-{_digest([*namespace, key])}"


def words_id(id: str) -> str:
    """Of the memory that has the words by which a record is found, where these are apart."""
    return f"{id}-words"


def namespace_id(namespace: Namespace, *, spread: bool = False) -> str:
    whole = f"langgraph-namespace-{_digest(list(namespace))}"
    return f"{whole}-spread" if spread else whole


def spread_at(rows_max: int) -> int:
    """So many are listed in one session; of more, the others are in parts."""
    return max(1, rows_max // _SPREAD_SHARE)


def parts(prefix: Namespace) -> list[str]:
    """The sessions, of 256, that list what begins with *prefix*, where it is listed in parts."""
    whole = len(prefix) >= _NEAR
    near = _digest(list(prefix[:_NEAR]))[0] if whole else _DIGITS
    return [f"{NAMESPACES} {first}{second}" for first in near for second in _DIGITS]


def _part(namespace: Namespace) -> str:
    near, own = _digest(list(namespace[:_NEAR])), _digest(list(namespace))
    return f"{NAMESPACES} {near[0]}{own[1]}"  # not own[0]: of two labels, that is near[0] again


def group(namespace: Namespace) -> str:
    """The session of a namespace's records, and their kind. Labels have no dot in them."""
    name = "langgraph:" + ".".join(namespace)
    if len(name) > _ID_MAX or unprintable_at(name) is not None or name != name.strip():
        return f"langgraph#{_digest(list(namespace))}"
    return name


def words_group(namespace: Namespace) -> str:
    """The session of what has words apart."""
    return f"langgraph words {_digest(list(namespace))}"


def _digest(labels: list[str]) -> str:
    return hashlib.sha256(items.dumps(labels).encode()).hexdigest()


def remembered(record: Record, *, expires: datetime | None) -> dict[str, Any]:
    """The arguments of `Agent.remember` for an item that is new."""
    together = group(record.namespace)
    return {
        "content": record.content(),
        "kind": together,
        "session": together,
        "valid_to": expires,
        "metadata": place(record.namespace, record.key),
        "id": record_id(record.namespace, record.key),
    }


def listed(namespace: Namespace, *, spread: bool = False) -> dict[str, Any]:
    """The arguments of `Agent.remember` for what says that a namespace has items."""
    return {
        "content": items.words([".".join(namespace)], otherwise="-"),
        "kind": NAMESPACES,
        "session": _part(namespace) if spread else NAMESPACES,
        "metadata": {"namespace": items.dumps(namespace)},
        "id": namespace_id(namespace, spread=spread),
    }


# -- what fits a search


def fits(value: Any, wanted: Any) -> bool:
    """Whether a value is what a filter wants: equal, or as its operators say, at any depth."""
    if isinstance(wanted, Mapping):
        if any(name.startswith("$") for name in wanted):
            return all(_compare(value, name, operand) for name, operand in wanted.items())
        return isinstance(value, Mapping) and all(
            fits(value.get(name), inner) for name, inner in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(wanted)
            and all(map(fits, value, wanted))
        )
    return bool(value == wanted)


def _compare(value: Any, operator: str, operand: Any) -> bool:
    if operator == "$eq":
        return bool(value == operand)
    if operator == "$ne":
        return bool(value != operand)
    if operator not in ("$gt", "$gte", "$lt", "$lte"):
        raise ValueError(f"unknown operator {operator!r:.50}; use $eq, $ne, $gt, $gte, $lt or $lte")
    left: Any = value
    right: Any = operand
    try:
        left, right = float(value), float(operand)
    except (TypeError, ValueError, OverflowError):
        if not (isinstance(value, str) and isinstance(operand, str)):
            return False  # what is no number is neither more nor less than one
        left, right = value, operand
    if operator in ("$gt", "$gte"):
        return bool(left > right if operator == "$gt" else left >= right)
    return bool(left < right if operator == "$lt" else left <= right)


def matches(namespace: Namespace, match_type: str, path: Namespace) -> bool:
    """Whether a namespace begins, or ends, with a path in which `*` stands for any label."""
    if match_type not in ("prefix", "suffix"):
        raise ValueError(f"unknown match type {match_type!r:.50}; use prefix or suffix")
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if match_type == "prefix" else namespace[-len(path) :]
    return not path or all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))
