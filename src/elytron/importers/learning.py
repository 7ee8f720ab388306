"""
Learning: what an import does with memories, concepts and facts, by an agent's public verbs.

Messages go in commits of 500 (`passes.py`); these one by one, each with its own fsync.
"""

import hashlib
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from elytron.agent import Agent
from elytron.concepts.names import folded_name
from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.importers.pieces import Described, Learned, Taught, Told, derived_id
from elytron.importers.repeats import Repeats
from elytron.ledger.rows import to_us
from elytron.records import Memory
from elytron.text import Analyzer
from elytron.write import remembering
from elytron.write.admission import IdClock, check_metadata

_ROWS_MAX = 1000  # facts among which one is looked for, within the agent's `max_query_rows`
_CONCEPT = "concept"  # the kind of a memory that is there for a moment only
_DEFAULTS: dict[str, Any] = {
    "about": (), "kind": "fact", "importance": None, "pinned": False, "session": None,
    "valid_from": None, "valid_to": None, "metadata": None, "replaces": None,
}  # fmt: skip


class Target(Protocol):
    """Where an import goes: a `Store`, or `OneAgent`."""

    @property
    def config(self) -> Config: ...

    def agent(self, name: str, /) -> Agent: ...


class OneAgent:
    """A single agent as the target, whatever it is asked for."""

    def __init__(self, agent: Agent, config: Config) -> None:
        self._agent = agent
        self.config = config

    def agent(self, _name: str, /) -> Agent:
        return self._agent


class LearnedCheck:
    """Finds what `write_learned` would refuse: the same admission, and ids used twice."""

    def __init__(self, config: Config, ids: Repeats) -> None:
        self._ids = ids
        self._admit_memory = partial(
            remembering.admit_memory,
            config=config,
            analyzer=Analyzer(config.languages),
            ids=IdClock(),
        )

    def check(self, agent: Agent, piece: Learned, *, holds_some: bool) -> None:
        """
        Raises:
            InvalidArgument: it is not acceptable, or its id has other content already.
        """
        match piece:
            case Taught(memory=memory):
                self._check_memory(agent, memory, holds_some)
            case Described(name=name, type=kind):
                remembering.admit_change(
                    name, rename=None, type=kind, description=None, confidence=None
                )
            case Told(source=source, relation=relation, target=target):
                remembering.to_name(source, "source")
                remembering.check_relation(relation)
                remembering.to_name(target, "target")

    def _check_memory(self, agent: Agent, memory: dict[str, Any], holds_some: bool) -> None:
        draft = self._admit_memory(**{**_DEFAULTS, **memory}).draft
        since_us = draft.valid_from_us if draft.from_given else None
        said = _said(draft.content, draft.kind, draft.session, draft.metadata, since_us)
        key = f"{agent.name}\0memory\0{draft.id}".encode()
        if self._ids.first(hashlib.blake2b(key, digest_size=16).digest(), said) != said:
            raise InvalidArgument(
                f"memory id {draft.id!r} came before in the file with other content"
            )
        held = agent.get_memory(draft.id) if holds_some else None
        if held is not None and _said_of(held, compare_since=draft.from_given) != said:
            raise InvalidArgument(
                f"memory id {draft.id!r} is held with other content; `edit_memory` or delete that"
                " memory"
            )


def _said(
    content: str, kind: str, session: str | None, metadata: str | None, since_us: int | None
) -> bytes:
    """What may not differ under one id, as a hash."""
    values = repr((content, kind, session, metadata, since_us))
    return hashlib.blake2b(values.encode(), digest_size=16).digest()


def _said_of(held: Memory, *, compare_since: bool) -> bytes:
    metadata = check_metadata(held.metadata) if held.metadata else None
    since = held.valid_from if compare_since else None
    since_us = None if since is None else to_us(since)
    return _said(held.content, held.kind, held.session, metadata, since_us)


def rows_max(agent: Agent) -> int:
    """How many facts may be read at once. An agent elsewhere keeps its settings to itself."""
    config: Config | None = getattr(agent, "_config", None)
    return _ROWS_MAX if config is None else min(_ROWS_MAX, config.max_query_rows)


def write_learned(agent: Agent, piece: Learned, *, started: datetime) -> bool:
    """
    Write one piece. Returns whether it is new.

    Args:
        started: when the import began: a concept that is younger was made by it.

    Raises:
        As `Agent.remember` and `Agent.relate`; then it was not written.
    """
    match piece:
        case Taught(memory=memory):
            others = {name: value for name, value in memory.items() if name != "content"}
            return agent.remember(memory["content"], **others).new
        case Described(name=name, type=kind):
            return _describe(agent, name, kind, started)
        case Told(source=source, relation=relation, target=target):
            return _tell(agent, source, relation, target)


def _describe(agent: Agent, name: str, kind: str | None, started: datetime) -> bool:
    held = agent.concept(name)
    maker = derived_id(_CONCEPT, folded_name(name))
    if held is None:
        # A concept outlives the memory that made it, and no other verb makes one alone.
        agent.remember(name, about=[name], kind=_CONCEPT, id=maker)
    if agent.get_memory(maker) is not None:  # or was left by an import that was killed just then
        agent.delete_memory(maker)
    if kind is not None and (held is None or held.concept.type is None):
        agent.set_concept(name, type=kind)
    return held is None or held.concept.created >= started


def _tell(agent: Agent, source: str, relation: str, target: str) -> bool:
    wanted = folded_name(target)
    told = remembering.check_relation(relation)
    held = agent.relations(source, relation=told, limit=rows_max(agent))
    from_source = [fact for fact in held if folded_name(fact.source) == folded_name(source)]
    if any(folded_name(fact.target) == wanted for fact in from_source):
        return False
    agent.relate(source, relation, target)
    return True
