"""Neighbourhood: which points and lines a picture of the concepts around one has. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from elytron.records import Concept, Related, Relation

_MENTIONED = "mentioned with"
_WIDTH_RATIO = 1.7  # of a picture, which is wider than it is high


class Point(NamedTuple):
    """A concept, `depth` steps away; `told` says what ties it to what is nearer."""

    name: str
    depth: int
    told: str


class Line(NamedTuple):
    """Between two points, by their places; not `told` where they are only mentioned together."""

    source: int
    target: int
    label: str
    told: bool


class Neighbourhood(NamedTuple):
    """The chosen concept first."""

    points: tuple[Point, ...]
    lines: tuple[Line, ...]


def neighbourhood(
    chosen: Concept,
    related: Mapping[str, Sequence[Related]],
    relations: Iterable[Relation],
    *,
    limit: int,
) -> Neighbourhood:
    """
    What lies around a concept.

    Args:
        related: what the graph found near the chosen one, and near some of those, by name; empty
            where the graph was not asked.
        relations: facts, of which those between two points are lines.
        limit: points at most, the chosen one apart.

    Without *related*, the facts' own ends are what is near.
    """
    facts = tuple(relations)
    points = (Point(chosen.name, 0, ""), *_near(chosen.name, related, facts)[:limit])
    places = {point.name: place for place, point in enumerate(points)}
    lines: dict[tuple[int, int], Line] = {}

    def tie(one: str, other: str, label: str, *, told: bool) -> None:
        source, target = places.get(one), places.get(other)
        if source is None or target is None or source == target or (target, source) in lines:
            return
        lines.setdefault((source, target), Line(source, target, label, told))

    for fact in facts:
        tie(fact.source, fact.target, fact.relation, told=True)
    for name, others in related.items():
        for other in others:
            if other.depth == 1:
                tie(name, other.name, _tie(other), told=False)
    return Neighbourhood(points, tuple(lines.values()))


def places(near: Neighbourhood) -> list[tuple[float, float]]:
    """
    Where each point is drawn: the chosen one in the middle, those beside it on a ring, those
    further away on a wider one, each about where what it is tied to stands. Always the same.
    """
    angles: dict[int, float] = {}
    first = [place for place, point in enumerate(near.points) if point.depth == 1]
    for n, place in enumerate(first):
        angles[place] = math.tau * n / len(first)
    outer = [place for place, point in enumerate(near.points) if point.depth > 1]
    outer.sort(key=lambda place: (_towards(place, near.lines, angles), place))
    # Half a step on, so that none hides behind one of the inner ring.
    start = _towards(outer[0], near.lines, angles) + 0.35 if outer else 0.0
    for n, place in enumerate(outer):
        angles[place] = start + math.tau * n / len(outer)
    found = []
    for place, point in enumerate(near.points):
        radius = (0.0, 1.0, 1.6)[min(point.depth, 2)]
        turned = angles.get(place, 0.0) - math.pi / 2
        found.append((_WIDTH_RATIO * radius * math.cos(turned), radius * math.sin(turned)))
    return found


def _towards(place: int, lines: Iterable[Line], angles: Mapping[int, float]) -> float:
    """The angle of the first point of the inner ring that this one is tied to."""
    for line in lines:
        if place in (line.source, line.target):
            other = line.target if line.source == place else line.source
            if other in angles:
                return angles[other]
    return 0.0


def _near(
    chosen: str, related: Mapping[str, Sequence[Related]], facts: Iterable[Relation]
) -> list[Point]:
    """All but the chosen one, nearest first."""
    found: dict[str, Point] = {}
    for near in related.get(chosen, ()):
        found.setdefault(near.name, Point(near.name, near.depth, _tie(near)))
    for name, others in related.items():
        for near in others:
            if name != chosen and near.depth == 1:
                found.setdefault(near.name, Point(near.name, 2, _tie(near, name)))
    if not found:
        for fact in facts:
            if chosen in (fact.source, fact.target):
                other = fact.target if fact.source == chosen else fact.source
                found.setdefault(other, Point(other, 1, fact.relation))
    found.pop(chosen, None)
    return sorted(found.values(), key=_depth)


def _depth(point: Point) -> int:
    return point.depth


def _tie(near: Related, to: str = "") -> str:
    """What ties a concept to the chosen one, or to another that is named."""
    if near.relation != _MENTIONED:
        return f"{near.relation}, {to}" if to else near.relation
    told = f"{_MENTIONED} {to}".strip()
    return f"{told}, {near.times} times" if near.times > 1 else told
