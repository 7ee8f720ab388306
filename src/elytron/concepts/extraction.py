"""
Extraction: what a caller's `extract` function returned, checked. Pure.

What is good is taken and what is wrong is counted: one bad name does not cost the others. Nothing
of it is believed: a model writes these answers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from elytron.concepts.names import folded_name
from elytron.text import plain, unprintable_at

CONCEPTS_MAX = 50
RELATIONS_MAX = 100
_NAME_MAX = 200  # characters, of a name and of a relation
_TYPE_MAX = 200
_DESCRIPTION_MAX = 2000
_CONFIDENCE = 0.7  # where the extractor gives none
_REASONS_MAX = 20

Extract = Callable[[str], Any]


class ExtractedConcept(NamedTuple):
    """A concept that a text is about. `confidence` is 0 to 1."""

    name: str
    folded: str
    type: str | None
    description: str | None
    confidence: float


class ExtractedRelation(NamedTuple):
    """A fact of two concepts, by their folded names. `valid_from` is aware, or None."""

    source: str
    relation: str
    target: str
    strength: float
    valid_from: datetime | None


class Extracted(NamedTuple):
    """
    What an answer holds. The ends of its relations are among its concepts.

    `wrong` says what was left out: which item and why, never its text; at most 20 of them.
    """

    concepts: tuple[ExtractedConcept, ...]
    relations: tuple[ExtractedRelation, ...]
    wrong: tuple[str, ...]


class _Wrong(ValueError):
    """Why one item is left out."""


def checked(answer: object) -> Extracted:
    """
    Check what an `extract` function returned.

    Args:
        answer: a mapping, or an object with attributes, of `concepts` and `relations`, each of
            which may be missing; None for nothing. A concept is a name, or has `name`, `type`,
            `description`, `confidence`; a relation is (source, relation, target), or has these,
            `strength` and `valid_from` (an aware time, or such a time as ISO text). At most 50
            concepts and 100 relations are taken.
    """
    concepts: dict[str, ExtractedConcept] = {}
    relations: dict[tuple[str, str, str], ExtractedRelation] = {}
    wrong: list[str] = []
    for place, item in _items(answer, "concepts", CONCEPTS_MAX, wrong):
        try:
            concept = _concept(item)
            concepts.setdefault(concept.folded, concept)
        except _Wrong as why:
            wrong.append(f"concept {place}: {why}")
        except Exception as error:  # noqa: BLE001 - of an item's own methods; told, others go on
            wrong.append(f"concept {place}: {type(error).__name__}")
    for place, item in _items(answer, "relations", RELATIONS_MAX, wrong):
        try:
            ends, relation = _relation(item)
        except _Wrong as why:
            wrong.append(f"relation {place}: {why}")
            continue
        except Exception as error:  # noqa: BLE001 - as above
            wrong.append(f"relation {place}: {type(error).__name__}")
            continue
        new = {end.folded: end for end in ends if end.folded not in concepts}
        if len(concepts) + len(new) > CONCEPTS_MAX:
            wrong.append(f"relation {place}: its concepts are more than {CONCEPTS_MAX}")
            continue
        concepts.update(new)
        relations.setdefault((relation.source, relation.relation, relation.target), relation)
    return Extracted(
        tuple(concepts.values()), tuple(relations.values()), tuple(wrong[:_REASONS_MAX])
    )


def _items(answer: object, name: str, most: int, wrong: list[str]) -> Iterable[tuple[int, object]]:
    """The first *most* items of a part of the answer, numbered from 1."""
    if answer is None:
        return []
    if not isinstance(answer, Mapping) and not hasattr(answer, "concepts"):
        if name == "concepts":
            wrong.append(f"the answer is a {type(answer).__name__}, which has no concepts")
        return []
    part = _member(answer, name)
    if part is None:
        return []
    if isinstance(part, str | bytes | Mapping) or not isinstance(part, Iterable):
        wrong.append(f"{name} are a {type(part).__name__}, not a list")
        return []
    found = list[object]()
    try:
        found.extend(islice(part, most + 1))
    except Exception as error:  # noqa: BLE001 - of the answer's own iterator; what came is taken
        wrong.append(f"{name} ended with {type(error).__name__}")
    if len(found) > most:
        wrong.append(f"there are more than {most} {name}")
    return enumerate(found[:most], 1)


def _member(item: object, name: str) -> Any:
    return item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)


def _concept(item: object) -> ExtractedConcept:
    if isinstance(item, str):
        return _named(item)
    name, folded = _name(_member(item, "name"), "its name")
    return ExtractedConcept(
        name,
        folded,
        _text(_member(item, "type"), "its type", _TYPE_MAX),
        _text(_member(item, "description"), "its description", _DESCRIPTION_MAX),
        _share(_member(item, "confidence"), "its confidence", _CONFIDENCE),
    )


def _named(text: object, what: str = "its name") -> ExtractedConcept:
    name, folded = _name(text, what)
    return ExtractedConcept(name, folded, None, None, _CONFIDENCE)


def _relation(item: object) -> tuple[tuple[ExtractedConcept, ...], ExtractedRelation]:
    parts: Sequence[object]
    strength: object = None
    valid_from: object = None
    # A named tuple is read by its names.
    if isinstance(item, Sequence) and not isinstance(item, str) and not hasattr(item, "source"):
        parts = item
        if len(parts) != 3:
            raise _Wrong(f"it has {len(parts)} parts, not source, relation and target")
    else:
        parts = [_member(item, name) for name in ("source", "relation", "target")]
        strength, valid_from = _member(item, "strength"), _member(item, "valid_from")
    source, target = _named(parts[0], "its source"), _named(parts[2], "its target")
    relation = _line(parts[1], "its relation")
    if source.folded == target.folded:
        raise _Wrong("its source is its target")
    return (source, target), ExtractedRelation(
        source.folded,
        relation,
        target.folded,
        _share(strength, "its strength", 1.0),
        _time(valid_from),
    )


def _line(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"{what} is {_kind(value)}, not text")
    # Models write in lines and paragraphs; a name is one line.
    line = " ".join(plain(value).split())
    if not 1 <= len(line) <= _NAME_MAX:
        raise _Wrong(f"{what} has {len(line)} characters; it may have 1 to {_NAME_MAX}")
    place = unprintable_at(line)
    if place is not None:
        raise _Wrong(f"{what} has a control character, at {place}")
    return line


def _name(value: object, what: str) -> tuple[str, str]:
    name = _line(value, what)
    folded = folded_name(name)
    if not folded:
        raise _Wrong(f"{what} has nothing but accents")
    return name, folded


def _text(value: object, what: str, most: int) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _Wrong(f"{what} is {_kind(value)}, not text")
    if len(value) > most:
        raise _Wrong(f"{what} has {len(value)} characters; it may have {most}")
    text = " ".join(plain(value).split())
    if unprintable_at(text) is not None:
        raise _Wrong(f"{what} has a control character, or half a one")
    return text or None


def _share(value: object, what: str, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(f"{what} is {_kind(value)}, not a number")
    if value != value:
        raise _Wrong(f"{what} is not a number")
    if not 0 <= value <= 1:
        raise _Wrong(f"{what} is not between 0 and 1")
    return float(value) + 0.0  # -0.0 would come back as 0.0


def _time(value: object) -> datetime | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _Wrong("its valid_from is no time in ISO form") from None
    if not isinstance(value, datetime):
        raise _Wrong(f"its valid_from is {_kind(value)}, not a time")
    if value.utcoffset() is None:
        raise _Wrong("its valid_from has no time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise _Wrong("its valid_from is out of range") from None


def _kind(value: object) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"
