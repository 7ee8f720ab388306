"""
Demo of the graph: one question in Cypher that any conversation can answer.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elytron.errors import GraphUnavailable
from elytron.faces.output import note
from elytron.faces.progress import waiting
from elytron.store import Store

if TYPE_CHECKING:  # rich is imported only by commands that print for people
    from rich.console import RenderableType

QUERY = """\
MATCH (u:User)-[:SENT]->(m:Message)-[:MENTIONS]->(c:Concept)
RETURN u.id AS who, c.name AS speaks_of, count(m) AS messages
ORDER BY messages DESC, speaks_of LIMIT 5"""
_CELL_MAX = 60  # characters


@dataclass(frozen=True, slots=True)
class GraphAsked:
    """A query and its rows, how long building and asking took, and what the graph takes."""

    agent: str
    query: str
    rows: Sequence[Mapping[str, Any]]
    seconds: float
    bytes: int


def ask(store: Store, agent: str, *, silent: bool) -> GraphAsked | None:
    """Who speaks most of whom; None where the messages name nobody, or there is no engine."""
    memory = store.agent(agent)
    if not memory.concepts(limit=1):
        return None
    started = time.perf_counter()
    try:
        with waiting(memory, "building the graph of", silent=silent):
            rows = memory.cypher(QUERY)
    except GraphUnavailable as error:  # all else works, and was shown
        note(str(error))
        return None
    seconds = round(time.perf_counter() - started, 3)
    return GraphAsked(agent, QUERY, rows, seconds, memory.usage().graph.bytes) if rows else None


def shown(asked: GraphAsked) -> "Iterator[RenderableType]":
    """The same for people."""
    from rich.text import Text

    from elytron.faces import graph_tables
    from elytron.faces.columns import DIM
    from elytron.faces.visible import human_bytes

    yield Text(asked.query, "magenta")
    yield ""
    yield graph_tables.rows(asked.rows, text_max=_CELL_MAX)
    yield ""
    yield Text(
        f"The graph was made from the messages and asked in {asked.seconds:.1f} s; it takes"
        f" {human_bytes(asked.bytes)}, and may be deleted at any moment.",
        DIM,
    )
