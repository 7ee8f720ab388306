"""A graph beside its ledger: brought up, asked, and both put side by side as plain values."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import elytron
from elytron.config import Config
from elytron.graph.client import GraphClient, GraphState, Rows, Statement
from elytron.graph.files import GraphFolder
from elytron.graph.projection import Projection
from elytron.ledger import files
from elytron.ledger.sqlite import Ledger

DEADLINE_S = 60.0
START = datetime(2024, 5, 8, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ORIGINS = ("told", "extracted", "proposed")
_NODES = {
    "User": ("id", "key", "created_at"),
    "Session": ("id", "key", "created_at"),
    "Message": ("id", "key", "role", "content", "at", "session", "user", "metadata"),
    "Memory": (
        "id", "key", "content", "kind", "importance", "pinned", "session", "valid_from",
        "valid_to", "created_at", "metadata",
    ),
    "Concept": ("name", "key", "folded", "type", "description", "confidence", "origin"),
}  # fmt: skip
_RELATIONS = {
    "SENT": "MATCH (a:User)-[r:SENT]->(b:Message) RETURN a.id, b.id",
    "PART_OF": "MATCH (a:Message)-[r:PART_OF]->(b:Session) RETURN a.id, b.id, r.position",
    "RESPONDS_TO": "MATCH (a:Message)-[r:RESPONDS_TO]->(b:Message)"
    " RETURN a.id, b.id, r.delay_seconds",
    "MENTIONS": "MATCH (a:Message)-[r:MENTIONS]->(b:Concept) RETURN a.id, b.name, r.confidence",
    "MEMORY_MENTIONS": "MATCH (a:Memory)-[r:MENTIONS]->(b:Concept)"
    " RETURN a.id, b.name, r.confidence",
    "LEARNED_IN": "MATCH (a:Memory)-[r:LEARNED_IN]->(b:Session) RETURN a.id, b.id",
    "RELATES_TO": "MATCH (a:Concept)-[r:RELATES_TO]->(b:Concept) RETURN a.name, b.name, r.key,"
    " r.relation, r.strength, r.valid_from, r.valid_to",
}
_IN_LEDGER = {
    "User": "SELECT id, key, created_us FROM users",
    "Session": "SELECT id, key, created_us FROM sessions",
    "Message": "SELECT m.id, m.key, m.role, m.content, m.at_us, s.id, u.id, m.metadata"
    " FROM messages m JOIN sessions s ON s.key = m.session LEFT JOIN users u ON u.key = m.user",
    "Memory": "SELECT m.id, m.key, m.content, m.kind, m.importance, m.pinned, s.id,"
    " m.valid_from_us, m.valid_to_us, m.created_us, m.metadata"
    " FROM memories m LEFT JOIN sessions s ON s.key = m.session",
    "Concept": "SELECT name, key, folded, type, description, confidence, origin FROM concepts",
    "SENT": "SELECT u.id, m.id FROM messages m JOIN users u ON u.key = m.user",
    "PART_OF": "SELECT m.id, s.id, m.position FROM messages m JOIN sessions s ON s.key = m.session",
    "RESPONDS_TO": "SELECT m.id, a.id, (m.at_us - a.at_us) / 1e6 FROM messages m"
    " JOIN messages a ON a.key = m.responds_to",
    "MENTIONS": "SELECT m.id, c.name, n.confidence FROM mentions n"
    " JOIN messages m ON m.key = n.source JOIN concepts c ON c.key = n.concept",
    "MEMORY_MENTIONS": "SELECT m.id, c.name, n.confidence FROM mentions n"
    " JOIN memories m ON m.key = n.source JOIN concepts c ON c.key = n.concept",
    "LEARNED_IN": "SELECT m.id, s.id FROM memories m JOIN sessions s ON s.key = m.session",
    "RELATES_TO": "SELECT a.name, b.name, r.key, r.relation, r.strength, r.valid_from_us,"
    " r.valid_to_us FROM relations r JOIN concepts a ON a.key = r.source"
    " JOIN concepts b ON b.key = r.target",
}
# Columns that the ledger has otherwise than the graph.
_TIMES = {
    "User": (2,), "Session": (2,), "Message": (4,), "Memory": (7, 8, 9), "RELATES_TO": (5, 6)
}  # fmt: skip

Content = dict[str, list[tuple[Any, ...]]]


class Graph:
    """The graph of one agent whose ledger is open."""

    def __init__(
        self, agent: elytron.Agent, ledger: Ledger, projection: Projection, client: GraphClient
    ) -> None:
        self.name = agent.name
        self.ledger = ledger
        self.projection = projection
        self.client = client
        self.folder: Path = ledger.folder / "graph"

    def catch_up(self, *, timeout_s: float = DEADLINE_S) -> int:
        """The position that it has after."""
        deadline = time.monotonic() + timeout_s
        position, _ = self.projection.catch_up(
            self.name, self.ledger, self.folder, deadline=deadline
        )
        return position

    def rebuild(self, because: str = "asked to") -> GraphState:
        return self.projection.rebuild(
            self.name,
            self.ledger,
            self.folder,
            because=because,
            deadline=time.monotonic() + DEADLINE_S,
        )

    def ask(self, statement: Statement, *, rows_max: int = 1_000_000) -> Rows:
        return self.projection.ask(
            self.name,
            self.ledger,
            self.folder,
            statement,
            rows_max=rows_max,
            bytes_max=64 << 20,
            build_deadline=time.monotonic() + DEADLINE_S,
            timeout_s=DEADLINE_S,
        )

    def rows(self, text: str, **params: Any) -> list[tuple[Any, ...]]:
        return self.ask(Statement(text, params)).rows

    def state(self) -> GraphState:
        return self.client.state(self.folder, deadline=time.monotonic() + DEADLINE_S)

    def drop(self) -> int:
        return self.client.drop(self.folder, deadline=time.monotonic() + DEADLINE_S)

    def content(self) -> Content:
        """All that the graph holds, sorted."""
        texts = {
            name: f"MATCH (n:{name}) RETURN {', '.join([f'n.{column}' for column in columns])}"
            for name, columns in _NODES.items()
        }
        return {name: _sorted(self.rows(text)) for name, text in (texts | _RELATIONS).items()}

    def ledger_content(self) -> Content:
        """What the graph ought to hold, from SQL that has nothing of the projection's."""
        found: Content = {}
        with self.ledger.reading(snapshot=True) as db:
            for name, sql in _IN_LEDGER.items():
                rows = [tuple(row) for row in db.execute(sql)]
                found[name] = _sorted([_as_graph(name, row) for row in rows])
        return found


def _as_graph(name: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
    values = list(row)
    for place in _TIMES.get(name, ()):
        if values[place] is not None:
            values[place] = _EPOCH + timedelta(microseconds=values[place])
    if name == "Memory":
        values[5] = bool(values[5])
    if name == "Concept":
        values[6] = _ORIGINS[values[6]]
    return tuple(values)


def _sorted(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted([tuple(row) for row in rows], key=repr)


@contextmanager
def projecting(
    agent: elytron.Agent,
    client: GraphClient,
    *,
    allow: Callable[[str, int], None] = lambda _name, _size_bytes: None,
) -> Iterator[Graph]:
    """The graph of an agent that holds something, by a projection of its own."""
    agents = agent._agents
    with agents.use(agent.name, create=False) as opened:
        assert opened is not None
        projection = Projection(client, agents.config, allow=allow)
        yield Graph(agent, opened.ledger, projection, client)


@contextmanager
def clients() -> Iterator[Callable[[str], GraphClient]]:
    """Start clients by the name of their engine; all are closed in the end."""
    started: list[GraphClient] = []

    def start(engine: str) -> GraphClient:
        started.append(GraphClient(Config(engine=engine)))
        return started[-1]

    yield start
    for client in started:
        client.close()


def graph_folder(store: Path, agent: str = "bob") -> Path:
    return files.agent_folder(store, agent) / "graph"


def fill(agent: elytron.Agent, count: int, *, first: int = 0) -> None:
    agent.save_many(
        {
            "id": f"m{number}",
            "role": "user" if number % 2 else "assistant",
            "content": f"Alice said {number}",
            "session": f"s{number // 10}",
            "user": "alice" if number % 2 else None,
            "at": START + timedelta(minutes=number),
        }
        for number in range(first, first + count)
    )


def why_built(store: elytron.Store, engine: str = "ladybug") -> str:
    """Why the graph was last built, as is told of it."""
    state = GraphFolder(graph_folder(store.path), engine).read_state()
    assert state is not None
    return str(state["built_because"])


def same(graph: Graph) -> None:
    """That a graph, brought up, holds exactly what its ledger does, and refused nothing."""
    while True:
        position = graph.catch_up()
        wanted, found = graph.ledger_content(), graph.content()
        if graph.catch_up() == position:  # else something was linked in the background meanwhile
            break
    for name, rows in wanted.items():
        assert found[name] == rows, (name, found[name], rows)
    kept = GraphFolder(graph.folder, graph.projection._config.engine).read_state()
    assert kept is not None
    assert "refused" not in kept["built_because"]
