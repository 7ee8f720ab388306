"""
MCP: the `memory.jsonl` of the reference memory server, entities and relations, one a line.

    import_graph(store.agent("Bob"), "memory.jsonl")

An entity is a concept, an observation a memory about it, and a relation is one.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

from elytron.agent import Agent
from elytron.concepts.names import folded_name
from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.importers.learning import OneAgent
from elytron.importers.passes import Passes
from elytron.importers.pieces import (
    EMPTY,
    Described,
    LeftOut,
    Piece,
    Reading,
    Taught,
    Told,
    bad,
    derived_id,
    text_of,
)
from elytron.importers.repeats import Repeats
from elytron.importers.source import PIECE_MAX_BYTES, Source, open_source
from elytron.records import BadLine, ImportReport

OBSERVATION = "observation"  # the kind of such a memory
WHAT = "observations, entities and relations"
OTHER_TYPE = "lines that are no entity and no relation"
ONE_NAME = "entities of a name that another has: both are one here"
OTHER_MEMBERS = "entities and relations with members that the reference server does not know"
_PIECE_MB = PIECE_MAX_BYTES >> 20
_WIDE: dict[str, Any] = {
    "max_message_kb": _PIECE_MB << 10,
    "wal_limit_mb": 2 * _PIECE_MB,
    "max_db_size_mb": 4 * _PIECE_MB,
}
_ENTITY = {"type", "name", "entityType", "observations"}
_RELATION = {"type", "from", "to", "relationType"}


def import_graph(
    agent: Agent,
    path: str | os.PathLike[str],
    *,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """
    Take over a `memory.jsonl` into one agent. Running it twice adds nothing twice.

    Args:
        agent: or anything with its verbs.
        skip_bad, on_progress: as in `import_file`; pieces are observations, entities, relations.

    Raises:
        NotFound, Unavailable: the file is not there, or cannot be read.
        InvalidArgument: a line is bad. Nothing was imported, unless the error says how much was.
        As `Agent.remember`: with how much was imported before.

    An empty file is one without anything in it, as a new server's.
    """
    if os.path.isfile(path) and not os.path.getsize(path):
        return ImportReport(agent.name, 0, 0, what=WHAT)
    # Only the agent knows its own limits: a text over them is found when it is written.
    target = OneAgent(agent, Config(**_WIDE))
    with open_source(path) as source:
        (report,) = Passes(
            target,
            source,
            reading(source, target.config),
            agent=agent.name,
            skip_bad=skip_bad,
            on_progress=on_progress,
        ).run()
    return report


def observation_id(entity: str, text: str) -> str:
    """The id of an observation's memory. Two spellings of one concept's name give the same."""
    return derived_id(OBSERVATION, folded_name(entity), text)


def reading(source: Source, _config: Config) -> Reading:
    return Reading("line", lambda: _pieces(source), WHAT)


def _pieces(source: Source) -> Iterator[Piece]:
    with Repeats() as names:
        for item in source.lines(PIECE_MAX_BYTES):
            if isinstance(item, BadLine):
                yield item
                continue
            try:
                yield from _line(item.number, item.value, names)
            except InvalidArgument as error:
                yield BadLine(item.number, str(error))


def _line(number: int, value: Any, names: Repeats) -> Iterator[Piece]:
    """
    What one line says.

    Raises:
        InvalidArgument: it is none, before anything was yielded.
    """
    if not isinstance(value, dict):
        raise InvalidArgument(f"expected an object; got {type(value).__name__}")
    match text_of(value, "type"):
        case "entity":
            known, found = _ENTITY, list(_entity(number, value, names))
        case "relation":
            ends = [text_of(value, member) for member in ("from", "relationType", "to")]
            known, found = _RELATION, [Told(number, *ends)]
        case _:
            yield LeftOut(OTHER_TYPE)
            return
    if not known.issuperset(value):
        yield LeftOut(OTHER_MEMBERS)
    yield from found


def _entity(number: int, value: dict[str, Any], names: Repeats) -> Iterator[Piece]:
    name, kind = text_of(value, "name"), text_of(value, "entityType")
    observations = value.get("observations")
    if not isinstance(observations, list):
        raise InvalidArgument("`observations` must be a list of strings")
    for place, text in enumerate(observations, 1):
        where = f"observation {place}"
        if not isinstance(text, str):
            yield bad(number, where, f"expected a string; got {type(text).__name__}")
        elif not text.strip():
            yield LeftOut(EMPTY)
        else:
            memory = {
                "content": text,
                "about": [name],
                "kind": OBSERVATION,
                "id": observation_id(name, text),
            }
            yield Taught(number, memory, where)
    if names.count(derived_id("concept", folded_name(name)).encode()):
        yield LeftOut(ONE_NAME)
        return
    # Last, since an observation makes the concept, and more cheaply.
    yield Described(number, name, kind.strip() or None, "the entity")
