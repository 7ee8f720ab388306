"""
Kuzu concepts: the concepts of an origin's database, on their way into an agent.

The origin kept them by ids, several perhaps of one name; here the name says which it is. Most are
made with the messages that mention them, in one commit a page; the others by what they are related
to, or else by a memory of the kind `concept` that says what they are.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from elytron.agent import Agent
from elytron.concepts.names import folded_name
from elytron.errors import Conflict, InvalidArgument
from elytron.importers.kuzu_rows import CONCEPT_KIND, Row, share
from elytron.importers.learning import rows_max
from elytron.ledger.learned import BY_PERSON, Link, Linked, Mention, NewConcept
from elytron.ledger.schema import MESSAGE, TOLD
from elytron.records import Concept
from elytron.text import unprintable_at

_NAME_MAX = 200  # characters
_TYPE_MAX, _DESCRIPTION_MAX = 200, 2000  # characters; the rest is cut
_TOPIC = "topic"
_READER = "migrated"  # not moved: a migration keeps no place in the changes
ONE_NAME = "concepts of a name that another has: both are one here"
ARCHIVED = "mentions of messages that are not held, since they are archived or bad"
NO_ROOM = "concepts beyond `max_concepts`"


class Known(NamedTuple):
    """A concept of the database, by the name that it has here."""

    row: str  # its id there
    concept: NewConcept


class Concepts:
    """
    Use once. Takes topics and concepts first, then the messages of each page, then relations.

    Args:
        refuse: called with (place, reason) for what cannot be taken.
        left_out: counts, by reason, what is not taken.
    """

    def __init__(
        self, agent: Agent, refuse: Callable[[int, str], None], left_out: Counter[str]
    ) -> None:
        self._agent = agent
        self._refuse = refuse
        self._left_out = left_out
        self._topics: dict[str, str] = {}  # id -> folded name
        self._ids: dict[str, str] = {}
        self._known: dict[str, Known] = {}  # by folded name
        self._seen = 0
        self._started = datetime.now(UTC)
        self._settled: set[str] = set()  # folded names that the agent has by now
        self.made = self.mentioned = self.related = 0

    def topics(self, page: Sequence[Row]) -> None:
        """Take topics; they become concepts of the type `topic`."""
        for row in page:
            self._take(row, self._topics, _TOPIC, row["description"] or row["category"], 1.0)

    def concepts(self, page: Sequence[Row]) -> None:
        """Take concepts."""
        for row in page:
            confidence = share(row["confidence"], 1.0)
            self._take(row, self._ids, row["type"], row["description"], confidence)

    def _take(
        self, row: Row, ids: dict[str, str], kind: Any, description: Any, confidence: float
    ) -> None:
        self._seen += 1
        name = " ".join(str(row["name"] or "").split())
        if not name or len(name) > _NAME_MAX or unprintable_at(name) is not None:
            self._refuse(
                self._seen,
                f"a concept: its name must have 1 to {_NAME_MAX} characters, none of control;"
                f" it has {len(name)}",
            )
            return
        folded = folded_name(name)
        ids[row["id"]] = folded
        if folded in self._known:
            self._left_out[ONE_NAME] += 1
            return
        concept = NewConcept(
            name,
            folded,
            TOLD,
            confidence,
            _text(kind, _TYPE_MAX),
            _text(description, _DESCRIPTION_MAX),
        )
        self._known[folded] = Known(row["id"], concept)

    def names_of_topics(self, ids: Iterable[str]) -> list[str]:
        """The names of topics by their ids; those that were refused are left out."""
        folded = dict.fromkeys(self._topics[row] for row in ids if row in self._topics)
        return [self._known[name].concept.name for name in folded]

    def mentions(self, page: Sequence[Row]) -> None:
        """Note what the messages of a page mention, which are in the agent by now."""
        wanted = {row["id"]: self._mentions_of(row) for row in page if row["mentions"]}
        held = self._held([message for message, mentions in wanted.items() if mentions])
        sources = []
        for message, mentions in wanted.items():
            if message in held:
                key, checksum = held[message]
                sources.append(Linked(key, MESSAGE, checksum, mentions, (BY_PERSON,)))
            else:
                self._left_out[ARCHIVED] += len(mentions)
        for part in self._parts(sources):
            self._link(part)

    def _mentions_of(self, row: Row) -> tuple[Mention, ...]:
        found = {
            self._ids[concept]: share(confidence, 1.0)
            for concept, confidence in row["mentions"]
            if concept in self._ids
        }
        return tuple(Mention(name, confidence, BY_PERSON) for name, confidence in found.items())

    def _held(self, ids: list[str]) -> dict[str, tuple[int, int]]:
        """(key, checksum) of those messages that the ledger holds, by id."""

        def read(db: Any, _source: object) -> dict[str, tuple[int, int]]:
            sql = "SELECT key, checksum FROM messages WHERE id = ?"
            found = {one: db.execute(sql, (one,)).get for one in ids}
            return {one: row for one, row in found.items() if row is not None}

        return self._agent._read(read, default={})

    def _parts(self, sources: list[Linked]) -> Iterable[Link]:
        """What is to be noted, in ops that fit into one commit each."""
        limit_bytes = self._agent._config.commit_bytes
        part: list[Linked] = []
        for source in sources:
            if part and self._op([*part, source]).size_bytes > limit_bytes:
                yield self._op(part)
                part = []
            part.append(source)
        if part:
            yield self._op(part)

    def _op(self, sources: list[Linked]) -> Link:
        named = dict.fromkeys(m.folded for source in sources for m in source.mentions)
        new = [self._known[name].concept for name in named if name not in self._settled]
        return Link(_READER, None, None, sources=tuple(sources), concepts=tuple(new))

    def _link(self, op: Link) -> None:
        result = self._agent._write(op)
        self.made += result.concepts
        self._left_out[NO_ROOM] += result.unmade
        self._settled.update(concept.folded for concept in op.concepts)
        self.mentioned += sum(len(source.mentions) for source in op.sources)

    def relations(self, page: Sequence[Row]) -> None:
        """Take relations between concepts."""
        for row in page:
            ends = [self._ids.get(row[end]) for end in ("source", "target")]
            if ends[0] is None or ends[1] is None:
                self._left_out["relations of concepts that could not be taken"] += 1
                continue
            source, target = (self._known[end].concept.name for end in ends if end is not None)
            relation = " ".join(str(row["relation"] or "related to").split())
            if self._is_related(source, relation, target):
                continue
            try:
                self._agent.relate(source, relation, target, strength=share(row["strength"], 1.0))
            except InvalidArgument as error:
                self._refuse(self._seen, f"a relation: {error}")
            else:
                self.related += 1

    def _is_related(self, source: str, relation: str, target: str) -> bool:
        try:
            limit = rows_max(self._agent)
            held = self._agent.relations(source, relation=relation, limit=limit)
        except InvalidArgument:  # `relate` will say what is wrong
            return False
        return any(folded_name(fact.target) == folded_name(target) for fact in held)

    def finish(self) -> None:
        """Make those that nothing mentioned, and say what is known of those that relations made."""
        for folded, known in self._known.items():
            if folded not in self._settled:
                try:
                    self._settle(known)
                except (InvalidArgument, Conflict) as error:
                    self._refuse(self._seen, f"a concept: {error}")

    def _settle(self, known: Known) -> None:
        new = known.concept
        held = self._agent.concept(new.name)
        if held is None:
            self._agent.remember(
                new.description or new.name,
                about=[new.name],
                kind=CONCEPT_KIND,
                id=f"{CONCEPT_KIND}:{known.row}"[:_NAME_MAX],
            )
            self.made += 1
        else:
            # By a relation, or by a session that was about it.
            self.made += held.concept.created >= self._started
        if held is not None and _is_described(held.concept):
            return  # what was said of it here counts
        if new.type is not None or new.description is not None or new.confidence < 1.0:
            self._agent.set_concept(
                new.name, type=new.type, description=new.description, confidence=new.confidence
            )


def _is_described(concept: Concept) -> bool:
    return concept.type is not None or concept.description is not None


def _text(value: Any, limit: int) -> str | None:
    return str(value or "").strip()[:limit] or None
