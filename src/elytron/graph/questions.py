"""
Questions: what is near a concept, and the shortest way between two, asked of the graph.

Both go one relation at a time from what was reached, given as a list of keys: measured on 10,000
concepts and 50,000 relations that takes a millisecond a step, and the engines' own recursive
patterns take tens of them, or more memory than there is. Texts are constants. No condition may
stand on the far end of a relation alone: the engines then read all relations first.

Who asks gives a callable that puts one statement to an agent's graph; results are of both engines
the same.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from elytron.errors import InvalidArgument
from elytron.graph.wire import Rows, Statement
from elytron.records import Related, Relation
from elytron.text import fold, folded_words

DEPTH_MAX = 6
WAY_MAX = 10
ROWS_MAX = 200_000  # of one step: the neighbours of all that was reached, by kind of relation
MENTIONED_WITH = "mentioned with"

_FIND = "MATCH (c:Concept) WHERE c.folded IN $names RETURN c.folded, c.key"
_HOLDS = (
    "(r.valid_from IS NULL OR r.valid_from <= cast($at AS TIMESTAMP))"
    " AND (r.valid_to IS NULL OR r.valid_to > cast($at AS TIMESTAMP))"
)
_STEP = f"MATCH (a:Concept)-[r:RELATES_TO]-(b:Concept) WHERE {_HOLDS} AND "
_NEXT = " RETURN a.key, b.key, b.name, b.type, r.relation, r.strength"
_BY = "r.relation = $relation AND "
_FROM_NAME, _FROM_KEYS = "a.folded = $folded", "a.key IN $keys"
_FURTHER = f"{_STEP}{_FROM_KEYS} RETURN b.key, min(a.key)"
_TOGETHER = (
    "MATCH (a:Concept)<-[:MENTIONS]-(s)-[:MENTIONS]->(b:Concept) WHERE a.folded = $folded"
    " RETURN a.key, b.key, b.name, b.type, count(*)"
)
_BETWEEN = (
    "MATCH (a:Concept)-[r:RELATES_TO]->(b:Concept) WHERE a.key IN $keys"
    f" AND [a.key, b.key] IN $pairs AND {_HOLDS}"
    " RETURN a.key, b.key, a.name, b.name, r.key, r.relation, r.strength, r.valid_from, r.valid_to"
)

Ask = Callable[[Statement], Rows | None]


@dataclass(frozen=True, slots=True)
class Nearby:
    """What is near the concept *name*; see `Agent.related`."""

    name: str
    depth: int = 2
    relation: str | None = None
    as_of: datetime | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Way:
    """The shortest way between two concepts; see `Agent.path`."""

    source: str
    target: str
    max_depth: int = 6
    as_of: datetime | None = None


class _Fact(NamedTuple):
    """A relation on the way, with its key in the ledger."""

    key: int
    relation: Relation


def check_depth(depth: object, what: str, highest: int) -> int:
    """A number of relations, from 1 to *highest*."""
    if not isinstance(depth, int) or isinstance(depth, bool) or not 1 <= depth <= highest:
        raise InvalidArgument(
            f"{what} must be a whole number from 1 to {highest}; got {depth!r:.50}"
        )
    return depth


def nearby(question: Nearby, ask: Ask) -> list[Related]:
    """
    The concepts near one: by depth, then by name; at depth 1 those mentioned with it come last,
    most often first.

    Args:
        ask: has to let through `ROWS_MAX` rows.

    One statement a depth, and one for what is mentioned with it.
    """
    at = _moment(question.as_of)
    found: list[Related] = []
    reached: list[int] = []
    seen, shown = set[int](), set[int]()
    for depth in range(1, question.depth + 1):
        nearest = _step(question, reached, seen, at, ask)
        reached = [key for key in nearest if key not in seen]
        seen.update(reached)
        fresh = [nearest[key].at(depth) for key in reached if key not in shown]
        found += sorted(fresh, key=_by_name)
        if depth == 1 and question.relation is None:
            shown |= seen
            found += _together(question, shown, ask)
        if not reached or len(found) >= question.limit:
            break
    return found[: question.limit]


def way(
    question: Way,
    ask: Ask,
    learned_from: Callable[[Sequence[int]], dict[int, str]] = lambda _: {},
) -> list[Relation] | None:
    """
    The relations from one concept to another, in order, over as few as possible.

    Args:
        ask: has to let through `ROWS_MAX` rows.
        learned_from: gives the ids of the messages that relations were read in, by their keys
            (`feeds.learned_from`); the graph does not hold them.

    Searches from both ends in turn, from the one that has reached less: one statement to find
    them, one a step, one for the relations.
    """
    source, target = _folded(question.source), _folded(question.target)
    found = dict(_rows(ask(Statement(_FIND, {"names": [source, target]}))))
    if len(found) < len({source, target}):
        return None
    if source == target:
        return []
    at = _moment(question.as_of)
    keys = _meet(found[source], found[target], question.max_depth, at, ask)
    if keys is None:
        return None
    facts = _between(keys, at, ask)
    if facts is None:  # changed by another process since
        return None
    learned = learned_from([fact.key for fact in facts])
    return [
        fact.relation if fact.key not in learned else _with_source(fact.relation, learned[fact.key])
        for fact in facts
    ]


class _Near(NamedTuple):
    """A concept one step on, and the strongest relation that leads there."""

    name: str
    type: str | None
    relation: str
    strength: float

    def at(self, depth: int) -> Related:
        return Related(self.name, self.type, depth, self.relation)


def _by_name(related: Related) -> tuple[str, str]:
    return fold(related.name), related.name


def _step(question: Nearby, keys: list[int], seen: set[int], at: str, ask: Ask) -> dict[int, _Near]:
    """
    What lies one relation from any of *keys*, those already reached included; without keys from
    where the question begins, which is noted as *seen*.
    """
    params: dict[str, Any] = {"at": at}
    text = _STEP
    if question.relation is not None:
        text, params["relation"] = text + _BY, question.relation
    if keys:
        text, params["keys"] = text + _FROM_KEYS, keys
    else:
        text, params["folded"] = text + _FROM_NAME, _folded(question.name)
    nearest: dict[int, _Near] = {}
    for start, key, *values in _rows(ask(Statement(text + _NEXT, params))):
        seen.add(start)
        near = _Near(*values)
        held = nearest.get(key)
        if held is None or (-near.strength, near.relation) < (-held.strength, held.relation):
            nearest[key] = near
    return nearest


def _together(question: Nearby, shown: set[int], ask: Ask) -> list[Related]:
    """What is mentioned with it, but for what is *shown* already, to which it is added."""
    found = _rows(ask(Statement(_TOGETHER, {"folded": _folded(question.name)})))
    related = [
        Related(name, kind, 1, MENTIONED_WITH, times)
        for start, key, name, kind, times in found
        if key != start and key not in shown
    ]
    shown.update([key for _, key, *_ in found])
    return sorted(related, key=lambda one: (-one.times, *_by_name(one)))


def _meet(source: int, target: int, max_depth: int, at: str, ask: Ask) -> list[int] | None:
    """The keys along a shortest way, both ends included."""
    # Of each side: what it has reached, and from where.
    sides: tuple[dict[int, int], dict[int, int]] = ({source: 0}, {target: 0})
    edges = [[source], [target]]
    for _ in range(max_depth):
        near = 0 if len(edges[0]) <= len(edges[1]) else 1
        here, there = sides[near], sides[1 - near]
        found = _rows(ask(Statement(_FURTHER, {"keys": edges[near], "at": at})))
        fresh = {key: before for key, before in found if key not in here}
        here.update(fresh)
        met = fresh.keys() & there.keys()
        if met:
            middle = min(met)
            before, after = _back(middle, sides[0]), _back(middle, sides[1])
            return [*reversed(before), *after[1:]]
        edges[near] = sorted(fresh)
        if not fresh:
            return None
    return None


def _back(key: int, before: dict[int, int]) -> list[int]:
    """From *key* back to where its side began."""
    keys = [key]
    while before[keys[-1]]:
        keys.append(before[keys[-1]])
    return keys


def _between(keys: list[int], at: str, ask: Ask) -> list[_Fact] | None:
    """The strongest relation between each two that follow each other."""
    steps = list(itertools.pairwise(keys))
    pairs = [list(step) for step in steps] + [[after, before] for before, after in steps]
    params = {"keys": keys, "pairs": pairs, "at": at}
    best: dict[frozenset[int], _Fact] = {}
    for a, b, source, target, key, *values in _rows(ask(Statement(_BETWEEN, params))):
        relation, strength, valid_from, valid_to = values
        fact = _Fact(key, Relation(source, relation, target, strength, valid_from, valid_to))
        held = best.get(frozenset((a, b)))
        if held is None or (-strength, key) < (-held.relation.strength, held.key):
            best[frozenset((a, b))] = fact
    facts = [best.get(frozenset(step)) for step in steps]
    return [fact for fact in facts if fact is not None] if all(facts) else None


def _with_source(relation: Relation, message: str) -> Relation:
    return Relation(
        relation.source,
        relation.relation,
        relation.target,
        relation.strength,
        relation.valid_from,
        relation.valid_to,
        message,
    )


def _folded(name: str) -> str:
    """What two spellings of one name have in common, as the ledger compares them."""
    return " ".join(folded_words(name)) or fold(name)


def _rows(rows: Rows | None) -> list[tuple[Any, ...]]:
    return [] if rows is None else rows.rows


def _moment(as_of: datetime | None) -> str:
    moment = datetime.now(UTC) if as_of is None else as_of.astimezone(UTC)
    return moment.replace(tzinfo=None).isoformat()
