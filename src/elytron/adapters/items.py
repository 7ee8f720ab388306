"""
Items: what frameworks hand over, as JSON text that gives the same value back, and as words.

The JSON goes into metadata, as one string: so names keep their order, and what JSON of our own
would refuse (NaN, half a surrogate pair) comes back too. The words are what recall finds.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from elytron.errors import InvalidArgument

TEXT_MAX = 16_000  # characters of an item that are searched
DEPTH_MAX = 100  # levels of lists and mappings; more could be written, but not surely read
_SURROGATES = re.compile("[\ud800-\udfff]")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def dumps(value: object, what: str = "the item") -> str:
    """
    *value* as JSON, for `json.loads`.

    Raises:
        InvalidArgument: it is nothing that JSON can carry.
    """
    if _deeper(value, DEPTH_MAX):
        raise InvalidArgument(f"{what} is nested more than {DEPTH_MAX} levels deep; flatten it")
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{what} is not JSON: {error}") from error
    return _SURROGATES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def storable(text: object) -> bool:
    """Whether a text can be the content of a message as it is, but for its length."""
    if not isinstance(text, str) or not text or text.isspace():
        return False
    return _UNSTORABLE.search(text) is None


def words(parts: Iterable[str], *, otherwise: str) -> str:
    """
    What is searched: the parts that say something, a line each, at most `TEXT_MAX` characters.

    Args:
        otherwise: where none does.
    """
    text = "\n".join([part for part in parts if part and not part.isspace()])
    text = _UNSTORABLE.sub("\ufffd", text[:TEXT_MAX])
    return text if storable(text) else _UNSTORABLE.sub("\ufffd", otherwise[:TEXT_MAX])


def texts(value: object, names: frozenset[str]) -> Iterable[str]:
    """The strings in *value*: itself, those of a list, and what a mapping has under *names*."""
    layer = [value]
    while layer:
        first = layer.pop()
        if isinstance(first, str):
            yield first
        elif isinstance(first, Mapping):
            layer.extend([inner for name, inner in first.items() if name in names][::-1])
        elif isinstance(first, list | tuple):
            layer.extend(first[::-1])


def with_text(value: Any, names: frozenset[str], text: str) -> Any:
    """
    What *value* is once its words were edited: a copy with *text* in place of its one text.

    None if it has several, or none: then nobody can say which of them *text* is.
    """
    said = [part for part in texts(value, names) if part and not part.isspace()]
    return _replaced(value, names, text) if len(said) == 1 else None


def _replaced(value: Any, names: frozenset[str], text: str) -> Any:
    if isinstance(value, str):
        return text if value and not value.isspace() else value
    if isinstance(value, Mapping):
        return {
            name: _replaced(inner, names, text) if name in names else inner
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_replaced(inner, names, text) for inner in value]
    return value


def _deeper(value: object, levels: int) -> bool:
    layer: list[Any] = [value]
    for _ in range(levels + 1):
        inside = {  # each once: of what holds itself twice there would soon be too many
            id(inner): inner
            for outer in layer
            if isinstance(outer, Mapping | list | tuple)
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
        }
        layer = list(inside.values())
        if not layer:
            return False
    return True
