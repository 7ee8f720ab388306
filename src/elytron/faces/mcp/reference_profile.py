"""
Reference profile: the nine tools of the reference memory server, with its names, schemas and
answers, so that whoever uses `@modelcontextprotocol/server-memory` changes one line.

Descriptions are its own, as models are used to them.
"""

import json
from collections.abc import Mapping
from typing import Any

from elytron.agent import Agent
from elytron.errors import InvalidArgument
from elytron.faces.mcp.knowledge_graph import ROWS_MAX, Edge, Entity, Graph, KnowledgeGraph
from elytron.faces.mcp.tools import (
    Answer,
    Arguments,
    Document,
    MemoryTool,
    Profile,
    Schema,
    fields,
    text,
    texts,
)

GRAPH_URI = "memory://knowledge-graph"
QUERY_MAX = 2048  # characters
ANSWER_CHARS = 4_000_000  # of a graph in JSON
_INSTRUCTIONS = "A knowledge graph of entities, observations and relations that is kept for good."

_ENTITY = fields(
    {
        "name": text("The name of the entity"),
        "entityType": text("The type of the entity"),
        "observations": texts("An array of observation contents associated with the entity"),
    }
)
_RELATION = fields(
    {
        "from": text("The name of the entity where the relation starts"),
        "to": text("The name of the entity where the relation ends"),
        "relationType": text("The type of the relation"),
    }
)
_GRAPH = fields(
    {
        "entities": {"type": "array", "items": _ENTITY},
        "relations": {"type": "array", "items": _RELATION},
    }
)
_DONE = fields({"success": {"type": "boolean"}, "message": {"type": "string"}})


def reference_profile(agent: Agent, *, rows_max: int = ROWS_MAX) -> Profile:
    """The nine tools on one agent, and the graph as a document."""
    verbs = _Verbs(KnowledgeGraph(agent, rows_max=rows_max))
    return Profile(
        "reference",
        _INSTRUCTIONS,
        (*_creating(verbs), *_deleting(verbs), *_reading(verbs)),
        in_order=True,
        document=Document(
            GRAPH_URI,
            "knowledge-graph",
            "Knowledge Graph",
            "The full knowledge graph with all entities and relations",
            verbs.document,
        ),
    )


def _items(name: str, item: Schema, description: str | None = None) -> Schema:
    listed: Schema = {"type": "array", "items": item}
    if description is not None:
        listed["description"] = description
    return fields({name: listed})


def _creating(verbs: "_Verbs") -> tuple[MemoryTool, ...]:
    addition = fields(
        {
            "entityName": text("The name of the entity to add the observations to"),
            "contents": texts("An array of observation contents to add"),
        }
    )
    added = fields(
        {
            "entityName": {"type": "string"},
            "addedObservations": {"type": "array", "items": {"type": "string"}},
        }
    )
    return (
        MemoryTool(
            name="create_entities",
            title="Create Entities",
            description="Create multiple new entities in the knowledge graph",
            takes=_items("entities", _ENTITY),
            gives=_items("entities", _ENTITY),
            run=verbs.create_entities,
        ),
        MemoryTool(
            name="create_relations",
            title="Create Relations",
            description="Create multiple new relations between entities in the knowledge graph."
            " Relations should be in active voice",
            takes=_items("relations", _RELATION),
            gives=_items("relations", _RELATION),
            run=verbs.create_relations,
        ),
        MemoryTool(
            name="add_observations",
            title="Add Observations",
            description="Add new observations to existing entities in the knowledge graph",
            takes=_items("observations", addition),
            gives=_items("results", added),
            run=verbs.add_observations,
        ),
    )


def _deleting(verbs: "_Verbs") -> tuple[MemoryTool, ...]:
    deletion = fields(
        {
            "entityName": text("The name of the entity containing the observations"),
            "observations": texts("An array of observations to delete"),
        }
    )
    return (
        MemoryTool(
            name="delete_entities",
            title="Delete Entities",
            description="Delete multiple entities and their associated relations from the"
            " knowledge graph",
            takes=fields({"entityNames": texts("An array of entity names to delete")}),
            gives=_DONE,
            run=verbs.delete_entities,
            destroys=True,
            repeats=True,
        ),
        MemoryTool(
            name="delete_observations",
            title="Delete Observations",
            description="Delete specific observations from entities in the knowledge graph",
            takes=_items("deletions", deletion),
            gives=_DONE,
            run=verbs.delete_observations,
            destroys=True,
            repeats=True,
        ),
        MemoryTool(
            name="delete_relations",
            title="Delete Relations",
            description="Delete multiple relations from the knowledge graph",
            takes=_items("relations", _RELATION, "An array of relations to delete"),
            gives=_DONE,
            run=verbs.delete_relations,
            destroys=True,
            repeats=True,
        ),
    )


def _reading(verbs: "_Verbs") -> tuple[MemoryTool, ...]:
    query = "The search query to match against entity names, types, and observation content"
    return (
        MemoryTool(
            name="read_graph",
            title="Read Graph",
            description="Read the entire knowledge graph",
            takes=fields({}),
            gives=_GRAPH,
            run=verbs.read_graph,
            reads=True,
            repeats=True,
        ),
        MemoryTool(
            name="search_nodes",
            title="Search Nodes",
            description="Search for nodes in the knowledge graph based on a query",
            takes=fields({"query": text(query, maxLength=QUERY_MAX)}),
            gives=_GRAPH,
            run=verbs.search_nodes,
            reads=True,
            repeats=True,
        ),
        MemoryTool(
            name="open_nodes",
            title="Open Nodes",
            description="Open specific nodes in the knowledge graph by their names",
            takes=fields({"names": texts("An array of entity names to retrieve")}),
            gives=_GRAPH,
            run=verbs.open_nodes,
            reads=True,
            repeats=True,
        ),
    )


class _Verbs:
    """What the nine tools do. Their words are those of the reference server."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph

    def create_entities(self, asked: Arguments) -> Answer:
        wanted = [
            Entity(one["name"], one["entityType"], tuple(one["observations"]))
            for one in asked["entities"]
        ]
        made = [entity.shown() for entity in self._graph.create_entities(wanted)]
        return Answer(_json(made), {"entities": made})

    def create_relations(self, asked: Arguments) -> Answer:
        made = [edge.shown() for edge in self._graph.create_edges(_edges(asked))]
        return Answer(_json(made), {"relations": made})

    def add_observations(self, asked: Arguments) -> Answer:
        wanted = [(one["entityName"], one["contents"]) for one in asked["observations"]]
        results = [
            {"entityName": name, "addedObservations": new}
            for name, new in self._graph.add_observations(wanted)
        ]
        return Answer(_json(results), {"results": results})

    def delete_entities(self, asked: Arguments) -> Answer:
        names = asked["entityNames"]
        deleted, missing = self._graph.delete_entities(names)
        if not missing:
            return _done("Entities deleted successfully")
        return _done(
            f"Deleted {len(deleted)} of {len(names)} entities. Not found: {', '.join(missing)}"
        )

    def delete_observations(self, asked: Arguments) -> Answer:
        wanted = [(one["entityName"], one["observations"]) for one in asked["deletions"]]
        count, missing = self._graph.delete_observations(wanted)
        requested = sum(len(contents) for _, contents in wanted)
        if count == requested:
            return _done("Observations deleted successfully")
        told = f"Deleted {count} of {requested} observations."
        return _done(f"{told} Entities not found: {', '.join(missing)}" if missing else told)

    def delete_relations(self, asked: Arguments) -> Answer:
        wanted = _edges(asked)
        count = self._graph.delete_edges(wanted)
        if count == len(wanted):
            return _done("Relations deleted successfully")
        return _done(f"Deleted {count} of {len(wanted)} relations. The rest matched nothing.")

    def read_graph(self, _asked: Arguments) -> Answer:
        return _graph(self._graph.read())

    def search_nodes(self, asked: Arguments) -> Answer:
        return _graph(self._graph.search(asked["query"]))

    def open_nodes(self, asked: Arguments) -> Answer:
        return _graph(self._graph.open(asked["names"]))

    def document(self) -> str:
        """The whole graph in JSON."""
        return _graph(self._graph.read()).text


def _edges(asked: Arguments) -> list[Edge]:
    return [Edge(one["from"], one["to"], one["relationType"]) for one in asked["relations"]]


def _done(message: str) -> Answer:
    return Answer(message, {"success": True, "message": message})


def _graph(graph: Graph) -> Answer:
    shown: Mapping[str, Any] = graph.shown()
    told = _json(shown)
    if len(told) > ANSWER_CHARS:
        raise InvalidArgument(
            f"the answer has {len(told):,} characters, at most {ANSWER_CHARS:,}: search for less"
            " (`search_nodes`), or open some by name (`open_nodes`)"
        )
    return Answer(told, shown)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
