"""
Knowledge graph: the reference memory server's entities, observations and relations, in an agent.

An entity is a concept with its type, an observation a memory of the kind `observation` about it,
and a relation a relation. Only public verbs are used. As there, names are compared exactly; but two
names that differ in case, accents and signs alone are one concept, so the second is refused.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from elytron.agent import Agent
from elytron.concepts.names import folded_name
from elytron.errors import Conflict, ElytronError, InvalidArgument, NotFound
from elytron.faces.mcp.tools import check_count
from elytron.importers.mcp import OBSERVATION, observation_id
from elytron.records import Concept, Memory, Relation
from elytron.write.remembering import check_line, check_relation, to_name

CONCEPT = "concept"  # the kind of a memory that is there for a moment only
ROWS_MAX = 10_000  # the usual `max_query_rows`
_PROPOSED = "proposed"


@dataclass(frozen=True, slots=True)
class Entity:
    """A node, as the reference server shows it."""

    name: str
    type: str
    observations: tuple[str, ...]

    def shown(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "entityType": self.type,
            "observations": list(self.observations),
        }


@dataclass(frozen=True, slots=True)
class Edge:
    """A relation, as the reference server shows it."""

    source: str
    target: str
    type: str

    def shown(self) -> dict[str, str]:
        return {"from": self.source, "to": self.target, "relationType": self.type}


@dataclass(frozen=True, slots=True)
class Graph:
    """Entities and relations in the order in which they were made."""

    entities: tuple[Entity, ...]
    edges: tuple[Edge, ...]

    def shown(self) -> dict[str, Any]:
        return {
            "entities": [entity.shown() for entity in self.entities],
            "relations": [edge.shown() for edge in self.edges],
        }


class KnowledgeGraph:
    """The graph of one agent. Safe for many threads and processes."""

    def __init__(self, agent: Agent, *, rows_max: int = ROWS_MAX) -> None:
        """
        Args:
            rows_max: rows of one read, at most `max_query_rows`.
        """
        self._agent = agent
        self._rows_max = rows_max

    # -- reading

    def read(self) -> Graph:
        """
        All of it.

        Raises:
            InvalidArgument: there are more entities than one read gives.
        """
        concepts = [*self._concepts("told"), *self._concepts("extracted")]
        concepts.sort(key=lambda concept: concept.created)
        names = [concept.name for concept in concepts]
        observations = self._all_observations(names)
        entities = [_entity(one, observations.get(one.name, ())) for one in concepts]
        return Graph(tuple(entities), tuple(self._all_edges(names)))

    def search(self, query: str) -> Graph:
        """
        Entities whose name, type or observations have *query* in them, whatever its case; and the
        relations that begin or end at one of them.
        """
        sought = query.lower()
        whole = self.read()
        found = [entity for entity in whole.entities if _has(entity, sought)]
        names = {entity.name for entity in found}
        edges = [edge for edge in whole.edges if edge.source in names or edge.target in names]
        return Graph(tuple(found), tuple(edges))

    def open(self, names: Sequence[str]) -> Graph:
        """The entities of these names, and the relations that begin or end at one of them."""
        check_count(len(names))
        entities: list[Entity] = []
        edges = dict[Edge, None]()
        found = filter(None, map(self._find, dict.fromkeys(names)))
        for concept in sorted(found, key=lambda concept: concept.created):
            entities.append(_entity(concept, self._contents(concept.name)))
            edges |= dict.fromkeys(self._edges(concept.name))
        return Graph(tuple(entities), tuple(edges))

    # -- writing

    def create_entities(self, entities: Sequence[Entity]) -> list[Entity]:
        """Make those whose name has no type yet; returns them."""
        check_count(len(entities) + sum(len(entity.observations) for entity in entities))
        for entity in entities:
            _check_entity(entity)
        self._check_distinct([entity.name for entity in entities])
        made = list[Entity]()
        with _Told(lambda: f"{len(made)} of {len(entities)} entities were made"):
            for entity in entities:
                if self._is_new(entity):
                    self._make(entity)
                    made.append(entity)
        return made

    def _is_new(self, entity: Entity) -> bool:
        held = self._find(entity.name)
        if held is None:
            return True
        # One without a type was only mentioned, or a call ended before it was made.
        adds = entity.type.strip() or not set(entity.observations) <= set(self._contents(held.name))
        return held.type is None and bool(adds)

    def _make(self, entity: Entity) -> None:
        for content in dict.fromkeys(entity.observations):
            self._observe(entity.name, content)
        if not entity.observations:
            # A concept outlives the memory that made it, and no other verb makes one alone.
            made = self._agent.remember(entity.name, about=[entity.name], kind=CONCEPT)
            self._agent.delete_memory(made.id)
        held = self._agent.concept(entity.name)
        spelt = to_name(entity.name).shown
        if held is None:
            raise NotFound(f"the entity {entity.name!r:.220} was deleted while it was made")
        self._agent.set_concept(
            entity.name,
            rename=None if held.concept.name == spelt else spelt,
            type=entity.type.strip(),
        )

    def add_observations(
        self, additions: Sequence[tuple[str, Sequence[str]]]
    ) -> list[tuple[str, list[str]]]:
        """
        Add texts to entities, each once; returns which were new.

        Raises:
            NotFound: an entity is not there. Nothing was added.
        """
        check_count(sum(len(contents) for _, contents in additions))
        for name, contents in additions:
            self._need(name)
            _check_contents(contents)
        added: list[tuple[str, list[str]]] = []
        with _Told(lambda: f"{sum(len(new) for _, new in added)} observations were added"):
            for name, contents in additions:
                held = set(self._contents(name))
                added.append((name, []))
                for content in contents:
                    if content not in held:
                        held.add(content)
                        self._observe(name, content)
                        added[-1][1].append(content)
        return added

    def create_edges(self, edges: Sequence[Edge]) -> list[Edge]:
        """
        Make relations that are not there yet; returns them.

        Raises:
            NotFound: an entity is not there. Nothing was made.
        """
        check_count(len(edges))
        for edge in edges:
            check_relation(edge.type)
            self._need(edge.source)
            self._need(edge.target)
        made: list[Edge] = []
        with _Told(lambda: f"{len(made)} of {len(edges)} relations were made"):
            for edge in dict.fromkeys(edges):
                if not self._holds(edge):
                    self._agent.relate(edge.source, edge.type, edge.target)
                    made.append(edge)
        return made

    # -- deleting

    def delete_entities(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Delete entities, their observations and their relations; returns (deleted, missing)."""
        check_count(len(names))
        deleted: list[str] = []
        missing: list[str] = []
        with _Told(lambda: f"{len(deleted)} of {len(names)} entities were deleted"):
            for name in names:
                concept = self._find(name)
                if concept is None:
                    (deleted if name in deleted else missing).append(name)
                    continue
                for kind in (OBSERVATION, CONCEPT):
                    for memory in self._memories(concept.name, kind):
                        if memory.about == (concept.name,):
                            self._agent.delete_memory(memory.id)
                self._agent.delete_concept(name)
                deleted.append(name)
        return deleted, missing

    def delete_observations(
        self, deletions: Sequence[tuple[str, Sequence[str]]]
    ) -> tuple[int, list[str]]:
        """Delete texts of entities; returns (how many there were, names that are missing)."""
        check_count(sum(len(contents) for _, contents in deletions))
        count, missing = 0, list[str]()
        with _Told(lambda: f"{count} observations were deleted"):
            for name, contents in deletions:
                concept = self._find(name)
                if concept is None:
                    missing.append(name)
                    continue
                for memory in self._memories(concept.name, OBSERVATION):
                    if memory.content in contents:
                        count += self._agent.delete_memory(memory.id)
        return count, missing

    def delete_edges(self, edges: Sequence[Edge]) -> int:
        """Close relations, so that they do not hold from now on; returns how many did."""
        check_count(len(edges))
        count = 0
        with _Told(lambda: f"{count} of {len(edges)} relations were deleted"):
            for edge in dict.fromkeys(edges):
                if self._find(edge.source) and self._find(edge.target):
                    count += self._agent.unrelate(edge.source, edge.type, edge.target)
        return count

    # -- what it is made of

    def _concepts(self, origin: str) -> list[Concept]:
        found = self._agent.concepts(origin=origin, limit=self._rows_max)
        if len(found) == self._rows_max:
            raise InvalidArgument(
                f"the graph has {self._rows_max} entities or more, too many for one answer: open"
                " some by name (`open_nodes`), or raise `max_query_rows`"
            )
        return found

    def _find(self, name: str) -> Concept | None:
        """The entity of just this name."""
        concept = self._same(name)
        return concept if concept is not None and concept.name == to_name(name).shown else None

    def _same(self, name: str) -> Concept | None:
        """The entity that has this name here, however it is spelt."""
        try:
            to_name(name)
        except InvalidArgument:  # no concept can be called that
            return None
        details = self._agent.concept(name)
        return None if details is None or details.concept.origin == _PROPOSED else details.concept

    def _need(self, name: str) -> None:
        if self._find(name) is None:
            raise NotFound(f"Entity with name {name:.200} not found")

    def _check_distinct(self, names: Iterable[str]) -> None:
        """Refuse names that are one with another here, though they are spelt otherwise."""
        spelt = dict[str, str]()
        for name in dict.fromkeys(to_name(name).shown for name in names):
            held = self._same(name)
            taken = held is not None and held.type is not None
            other = spelt.setdefault(folded_name(name), held.name if held and taken else name)
            if other != name:
                raise Conflict(
                    f"the name {name!r} is one with {other!r} here, where case, accents and signs"
                    " do not count: use that, or a name with other letters; nothing was made"
                )

    def _memories(self, name: str, kind: str) -> list[Memory]:
        """Told to be about an entity, the oldest first."""
        found = self._agent.memories(about=name, kind=kind, limit=self._rows_max)
        shown = to_name(name).shown  # texts that only mention it are found too
        return [memory for memory in reversed(found) if shown in memory.about]

    def _contents(self, name: str) -> tuple[str, ...]:
        return tuple(memory.content for memory in self._memories(name, OBSERVATION))

    def _all_observations(self, names: Iterable[str]) -> dict[str, Sequence[str]]:
        found = self._agent.memories(kind=OBSERVATION, limit=self._rows_max)
        if len(found) == self._rows_max:  # one entity after the other instead
            return {name: self._contents(name) for name in names}
        contents: dict[str, list[str]] = {}
        for memory in reversed(found):
            for name in memory.about:
                contents.setdefault(name, []).append(memory.content)
        return dict(contents)

    def _all_edges(self, names: Iterable[str]) -> list[Edge]:
        found = self._agent.relations(limit=self._rows_max)
        if len(found) < self._rows_max:
            return [_edge(relation) for relation in reversed(found)]
        return list(dict.fromkeys(edge for name in names for edge in self._edges(name)))

    def _edges(self, name: str) -> list[Edge]:
        found = self._agent.relations(name, limit=self._rows_max)
        return [_edge(relation) for relation in reversed(found)]

    def _holds(self, edge: Edge) -> bool:
        found = self._agent.relations(edge.source, relation=edge.type, limit=self._rows_max)
        return any((held.source, held.target) == (edge.source, edge.target) for held in found)

    def _observe(self, name: str, content: str) -> None:
        """Remember an observation once, whoever else does at the same time."""
        known = observation_id(name, content)
        receipt = self._agent.remember(content, about=[name], kind=OBSERVATION, id=known)
        if receipt.new:
            return
        held = self._agent.get_memory(known)
        if held is not None and held.valid_to is not None:  # it was closed, and holds anew
            self._agent.remember(content, about=[name], kind=OBSERVATION)


class _Told:
    """Adds to an error what was done before it, since each part is durable at once."""

    def __init__(self, done: Callable[[], str]) -> None:
        self._done = done

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, ElytronError):
            error.args = (f"{error}. {self._done()} before that",)


def _entity(concept: Concept, observations: Iterable[str]) -> Entity:
    return Entity(concept.name, concept.type or "", tuple(observations))


def _edge(relation: Relation) -> Edge:
    return Edge(relation.source, relation.target, relation.relation)


def _has(entity: Entity, sought: str) -> bool:
    return any(sought in text.lower() for text in (entity.name, entity.type, *entity.observations))


def _check_entity(entity: Entity) -> None:
    to_name(entity.name)
    if entity.type.strip():
        check_line(entity.type, "entityType")
    _check_contents(entity.observations)


def _check_contents(contents: Iterable[str]) -> None:
    if not all(contents):
        raise InvalidArgument("an observation is empty; give it a character or more")
