"""
Graph values: what a Cypher query gave, in words for people and as what JSON knows.

Values are those of `elytron.Agent.cypher`. A node or a relation is a mapping of its properties,
with `_LABEL` and, for a relation, `_SRC` and `_DST`; Kuzu writes these names small.
"""

import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from elytron.faces.visible import clip, one_line

_ITEMS_MAX = 100  # of a list or a mapping that are shown
_LEVELS_MAX = 6
_INNER = ("key", "folded")  # properties of nodes and relations that tell a person nothing
_WHOLE_FLOAT_MAX = 1e15  # floats up to here are written out


def words(value: Any, *, limit: int) -> str:
    """A value on one line; of a long one the first *limit* characters. None is empty."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _inside(value, 0)
    return clip(one_line(text), limit)


def is_number(value: Any) -> bool:
    """Whether a column of such values is easier to read when they stand on the right."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _inside(value: Any, level: int) -> str:
    """A value inside another, where a string has to be told from a name."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'" if level else value
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return _mapping(value, level)
    if isinstance(value, list | tuple):
        return _joined([_inside(item, level + 1) for item in value[:_ITEMS_MAX]], len(value), level)
    return str(value)


def _float(value: float) -> str:
    if not math.isfinite(value) or abs(value) >= _WHOLE_FLOAT_MAX or 0 < abs(value) < 1e-4:
        return repr(value)
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _joined(parts: list[str], count: int, level: int) -> str:
    if level >= _LEVELS_MAX:
        return "[…]"
    return f"[{', '.join(parts)}{', …' if count > len(parts) else ''}]"


def _mapping(value: Mapping[Any, Any], level: int) -> str:
    if level >= _LEVELS_MAX:
        return "{…}"
    own = {str(name).lower(): part for name, part in value.items() if str(name).startswith("_")}
    if "_nodes" in own and "_rels" in own:
        return _steps(own["_nodes"], own["_rels"], level)
    rest = [(name, part) for name, part in value.items() if str(name).lower() not in own]
    if "_label" in own:
        rest = [(name, part) for name, part in rest if part is not None and name not in _INNER]
    pairs = [f"{name}: {_inside(part, level + 1)}" for name, part in rest[:_ITEMS_MAX]]
    if len(rest) > len(pairs):
        pairs.append("…")
    inside = f"{{{', '.join(pairs)}}}"
    if "_label" not in own:
        return inside
    label = f":{own['_label']}{' ' + inside if pairs else ''}"
    return f"[{label}]" if "_src" in own else f"({label})"


def _steps(nodes: list[Any], relations: list[Any], level: int) -> str:
    """A path as `(:Concept …)-[:RELATES_TO …]-(:Concept …)`."""
    parts = []
    for number, node in enumerate(nodes[:_ITEMS_MAX]):
        parts.append(_inside(node, level + 1))
        if number < len(relations):
            parts.append(f"-{_inside(relations[number], level + 1)}-")
    return "".join(parts)


def plain(value: Any) -> Any:
    """
    The same as what JSON knows: times in ISO 8601, durations in seconds, bytes in hexadecimal;
    numbers that JSON lacks, and all else, as text.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)
