"""
Statements: the schema of the graph, and a batch of ledger rows as Cypher.

Pure. All texts are constants, since an engine keeps each for ever; what varies is in parameters.
What belongs into a batch is decided in `batches.py`. A changed node is removed and made anew: SET
on strings is broken in Kuzu. Nothing is COPYed: the second COPY into a table kills LadybugDB.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from elytron.graph.wire import Statement
from elytron.ledger.feeds import ConceptRow, MemoryRow, MessageRow, Place, RelationRow
from elytron.ledger.rows import to_datetime
from elytron.ledger.schema import EXTRACTED, PROPOSED, TOLD

ROWS_MAX = 1000  # of one statement
ORIGINS = {TOLD: "told", EXTRACTED: "extracted", PROPOSED: "proposed"}
# What a row takes on the disk beside its text, and what a character of text takes; measured high.
_NODE_BYTES, _LINK_BYTES, _CHARACTER_BYTES = 450, 80, 2
# A graph without a row; and what its first rows take more, a column having room for many.
EMPTY_BYTES = {"ladybug": 1 << 19, "kuzu": 12 << 20}
_FIRST_BYTES, _FIRST_NODE_BYTES = 3 << 20, 4096
_ENGINE_TIMES = {"ladybug": 1, "kuzu": 3}
# Links that go with a node that is removed for good, counted without asking: they are dead space.
_LINKS_OF = {"Message": 3, "Memory": 2, "Concept": 4}


class _Node(NamedTuple):
    """A node table: its columns, the first of them the primary key."""

    name: str
    columns: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        return self.columns[0][0]


class _Link(NamedTuple):
    """A relation table, or one pair of ends of it."""

    name: str
    source: str
    target: str
    columns: tuple[tuple[str, str], ...] = ()


_NODES = {
    node.name: node
    for node in (
        _Node("User", (("id", "STRING"), ("key", "INT64"), ("created_at", "TIMESTAMP"))),
        _Node("Session", (("id", "STRING"), ("key", "INT64"), ("created_at", "TIMESTAMP"))),
        _Node(
            "Message",
            (
                ("id", "STRING"),
                ("key", "INT64"),
                ("role", "STRING"),
                ("content", "STRING"),
                ("at", "TIMESTAMP"),
                ("session", "STRING"),
                ("user", "STRING"),
                ("metadata", "STRING"),
            ),
        ),
        _Node(
            "Memory",
            (
                ("id", "STRING"),
                ("key", "INT64"),
                ("content", "STRING"),
                ("kind", "STRING"),
                ("importance", "DOUBLE"),
                ("pinned", "BOOL"),
                ("session", "STRING"),
                ("valid_from", "TIMESTAMP"),
                ("valid_to", "TIMESTAMP"),
                ("created_at", "TIMESTAMP"),
                ("metadata", "STRING"),
            ),
        ),
        _Node(
            "Concept",
            (
                ("name", "STRING"),
                ("key", "INT64"),
                ("folded", "STRING"),
                ("type", "STRING"),
                ("description", "STRING"),
                ("confidence", "DOUBLE"),
                ("origin", "STRING"),
            ),
        ),
    )
}
_LINKS = {
    "sent": _Link("SENT", "User", "Message"),
    "part_of": _Link("PART_OF", "Message", "Session", (("position", "INT64"),)),
    "responds_to": _Link("RESPONDS_TO", "Message", "Message", (("delay_seconds", "DOUBLE"),)),
    "message_mentions": _Link("MENTIONS", "Message", "Concept", (("confidence", "DOUBLE"),)),
    "memory_mentions": _Link("MENTIONS", "Memory", "Concept", (("confidence", "DOUBLE"),)),
    "relates_to": _Link(
        "RELATES_TO",
        "Concept",
        "Concept",
        (
            ("key", "INT64"),
            ("relation", "STRING"),
            ("strength", "DOUBLE"),
            ("valid_from", "TIMESTAMP"),
            ("valid_to", "TIMESTAMP"),
        ),
    ),
    "learned_in": _Link("LEARNED_IN", "Memory", "Session"),
}


class Edge(NamedTuple):
    """One relation: the ids, or names, of its ends, and its values in the order of the columns."""

    source: str
    target: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """
    What one transaction does to the graph: first it removes, then it makes.

    `gone` are keys of nodes by table, `gone_relations` those of RELATES_TO; what is not there is
    passed over. `unlinked` are keys of messages and memories that lose their MENTIONS. Edges are
    by the names in `LINKS`; one whose end is not there is passed over too.
    """

    gone: Mapping[str, Sequence[int]] = field(default_factory=dict)
    gone_relations: Sequence[int] = ()
    unlinked: Mapping[str, Sequence[int]] = field(default_factory=dict)
    users: Sequence[Place] = ()
    sessions: Sequence[Place] = ()
    messages: Sequence[MessageRow] = ()
    memories: Sequence[MemoryRow] = ()
    concepts: Sequence[ConceptRow] = ()
    edges: Mapping[str, Sequence[Edge]] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        return sum(
            map(len, (self.users, self.sessions, self.messages, self.memories, self.concepts))
        )

    @property
    def added(self) -> int:
        """Nodes and relations made."""
        return self.nodes + sum(map(len, self.edges.values()))

    @property
    def removed(self) -> int:
        """
        About how many are removed. Of a node that is made anew, its links are too; of one that is
        not, they are guessed.
        """
        again = self._again()
        gone = sum(map(len, self.gone.values()))
        for table, keys in self.gone.items():
            gone += (len(keys) - len(again.get(table, ()))) * _LINKS_OF.get(table, 0)
        for name, edges in self.edges.items() if again else ():
            sources = again.get(_LINKS[name].source, frozenset())
            targets = again.get(_LINKS[name].target, frozenset())
            gone += sum([edge.source in sources or edge.target in targets for edge in edges])
        return gone + len(self.gone_relations) + sum(map(len, self.unlinked.values()))

    def _again(self) -> dict[str, frozenset[str]]:
        """Ids, or names, of nodes that are removed and made anew, by table."""
        if not self.gone:
            return {}
        made = {
            "User": {row.key: row.id for row in self.users},
            "Session": {row.key: row.id for row in self.sessions},
            "Message": {row.key: row.id for row in self.messages},
            "Memory": {row.key: row.id for row in self.memories},
            "Concept": {row.key: row.name for row in self.concepts},
        }
        return {
            table: frozenset([made[table][key] for key in keys if key in made[table]])
            for table, keys in self.gone.items()
        }

    def growth_bytes(self, engine: str) -> int:
        """About so much larger does the graph's file become, its log aside."""
        texts = sum([len(row.content) + len(row.metadata or "") for row in self.messages])
        texts += sum([len(row.content) + len(row.metadata or "") for row in self.memories])
        links = self.added - self.nodes
        size_bytes = _NODE_BYTES * self.nodes + _LINK_BYTES * links + _CHARACTER_BYTES * texts
        return size_bytes * _ENGINE_TIMES[engine]


def first_bytes(nodes: int) -> int:
    """What so many nodes take beside `growth_bytes` in a graph that has few."""
    return min(_FIRST_BYTES, _FIRST_NODE_BYTES * nodes)


def schema() -> list[Statement]:
    """The tables of an empty graph."""
    texts = []
    for node in _NODES.values():
        columns = ", ".join([f"{name} {kind}" for name, kind in node.columns])
        texts.append(f"CREATE NODE TABLE {node.name}({columns}, PRIMARY KEY({node.key}))")
    tables: dict[str, list[_Link]] = {}
    for link in _LINKS.values():
        tables.setdefault(link.name, []).append(link)
    for name, pairs in tables.items():
        parts = [f"FROM {pair.source} TO {pair.target}" for pair in pairs]
        parts += [f"{column} {kind}" for column, kind in pairs[0].columns]
        texts.append(f"CREATE REL TABLE {name}({', '.join(parts)})")
    return [Statement(text) for text in texts]


def statements(batch: Batch, engine: str) -> list[Statement]:
    """A batch as Cypher, in the order in which it has to be run in one transaction."""
    found = list(_removing(batch))
    for table, rows in _node_rows(batch).items():
        found += _rows(_MAKE_NODE[table], rows)
    for name, edges in batch.edges.items():
        columns = [column for column, _ in _LINKS[name].columns]
        rows = [
            {"a": edge.source, "b": edge.target, **dict(zip(columns, edge.values, strict=True))}
            for edge in edges
        ]
        if engine == "kuzu" and name in _ONE_BY_ONE:
            found += [Statement(_MAKE_ONE_LINK[name], row) for row in rows]
        else:
            found += _rows(_MAKE_LINK[name], rows)
    return found


def _removing(batch: Batch) -> Iterator[Statement]:
    for table, keys in batch.gone.items():
        yield from _keys(_REMOVE_NODE[table], keys)
    if batch.concepts:
        # Another may still have the name, if it was renamed or removed by a change to come.
        for part in _parts([row.name for row in batch.concepts]):
            yield Statement(_FREE_NAMES, {"names": part})
    yield from _keys(_REMOVE_RELATIONS, batch.gone_relations)
    for table, keys in batch.unlinked.items():
        yield from _keys(_UNLINK[table], keys)


def _node_rows(batch: Batch) -> dict[str, list[dict[str, Any]]]:
    return {
        "User": [_place(row) for row in batch.users],
        "Session": [_place(row) for row in batch.sessions],
        "Message": [_message(row) for row in batch.messages],
        "Memory": [_memory(row) for row in batch.memories],
        "Concept": [_concept(row) for row in batch.concepts],
    }


def _place(row: Place) -> dict[str, Any]:
    return {"id": row.id, "key": row.key, "created_at": time_text(row.created_us)}


def _message(row: MessageRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "key": row.key,
        "role": row.role,
        "content": row.content,
        "at": time_text(row.at_us),
        "session": row.session,
        "user": row.user,
        "metadata": row.metadata,
    }


def _memory(row: MemoryRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "key": row.key,
        "content": row.content,
        "kind": row.kind,
        "importance": row.importance,
        "pinned": row.pinned,
        "session": row.session,
        "valid_from": time_text(row.valid_from_us),
        "valid_to": time_text(row.valid_to_us),
        "created_at": time_text(row.created_us),
        "metadata": row.metadata,
    }


def _concept(row: ConceptRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "key": row.key,
        "folded": row.folded,
        "type": row.type,
        "description": row.description,
        "confidence": row.confidence,
        "origin": ORIGINS[row.origin],
    }


def relation_values(row: RelationRow) -> tuple[Any, ...]:
    """The values of a RELATES_TO in the order of its columns."""
    return (
        row.key,
        row.relation,
        row.strength,
        time_text(row.valid_from_us),
        time_text(row.valid_to_us),
    )


def time_text(at_us: int | None) -> str | None:
    """A time as the engines read it: ISO 8601 in UTC, without an offset."""
    return None if at_us is None else to_datetime(at_us).replace(tzinfo=None).isoformat()


def _parts(values: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), ROWS_MAX):
        yield list(values[start : start + ROWS_MAX])


def _keys(text: str, keys: Sequence[int]) -> Iterator[Statement]:
    for part in _parts(keys):
        yield Statement(text, {"keys": part})


def _rows(text: str, rows: Sequence[dict[str, Any]]) -> Iterator[Statement]:
    for part in _parts(rows):
        yield Statement(text, {"rows": part})


def _values(columns: Sequence[tuple[str, str]], row: str) -> str:
    """The properties of what is made; *row* stands before the name of each value."""
    values = [
        f"{name}: cast({row}{name} AS TIMESTAMP)" if kind == "TIMESTAMP" else f"{name}: {row}{name}"
        for name, kind in columns
    ]
    return " {" + ", ".join(values) + "}" if values else ""


def _make_link(link: _Link, row: str) -> str:
    """Both ends by their index. One MATCH for both would be a product of two scans."""
    source, target = _NODES[link.source], _NODES[link.target]
    return (
        f"MATCH (a:{source.name}) WHERE a.{source.key} = {row}a"
        f" MATCH (b:{target.name}) WHERE b.{target.key} = {row}b"
        f" CREATE (a)-[:{link.name}{_values(link.columns, row)}]->(b)"
    )


_MAKE_NODE = {
    node.name: f"UNWIND $rows AS r CREATE (:{node.name}{_values(node.columns, 'r.')})"
    for node in _NODES.values()
}
_MAKE_LINK = {name: f"UNWIND $rows AS r {_make_link(link, 'r.')}" for name, link in _LINKS.items()}
# Kuzu scans one end's table for each row of a list. Where both may be large, 0.5 ms for each by
# itself are less. (Finding the first ends beforehand, by IN, loses rows.)
_ONE_BY_ONE = frozenset(("responds_to", "message_mentions", "memory_mentions", "relates_to"))
_MAKE_ONE_LINK = {name: _make_link(_LINKS[name], "$") for name in _ONE_BY_ONE}
_REMOVE_NODE = {name: f"MATCH (n:{name}) WHERE n.key IN $keys DETACH DELETE n" for name in _NODES}
_FREE_NAMES = "MATCH (n:Concept) WHERE n.name IN $names DETACH DELETE n"
_REMOVE_RELATIONS = "MATCH (a:Concept)-[r:RELATES_TO]->(b:Concept) WHERE r.key IN $keys DELETE r"
_UNLINK = {
    name: f"MATCH (n:{name})-[r:MENTIONS]->(c:Concept) WHERE n.key IN $keys DELETE r"
    for name in ("Message", "Memory")
}
