"""The nine tools of the reference memory server: its names, schemas, answers and behaviour."""

import json
import threading

import anyio
import pytest
from mcp import Client, MCPError

from elytron.faces.mcp.knowledge_graph import Entity, KnowledgeGraph
from elytron.faces.mcp.reference_profile import GRAPH_URI, reference_profile
from elytron.faces.mcp.server import Face
from elytron.faces.mcp.tools import ITEMS_MAX
from mcp_servers import ask, error_of, graphing, told

ENTITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "The name of the entity"},
        "entityType": {"type": "string", "description": "The type of the entity"},
        "observations": {
            "type": "array",
            "items": {"type": "string"},
            "description": "An array of observation contents associated with the entity",
        },
    },
    "required": ["name", "entityType", "observations"],
}
RELATION = {
    "type": "object",
    "properties": {
        "from": {
            "type": "string",
            "description": "The name of the entity where the relation starts",
        },
        "to": {"type": "string", "description": "The name of the entity where the relation ends"},
        "relationType": {"type": "string", "description": "The type of the relation"},
    },
    "required": ["from", "to", "relationType"],
}


def listed(item, description=None):
    """A schema of a list."""
    more = {} if description is None else {"description": description}
    return {"type": "array", "items": item, **more}


def names(description):
    return listed({"type": "string"}, description)


def an_object(**members):
    return {"type": "object", "properties": members, "required": list(members)}


def of_entity(list_name, named, contents):
    texts = {"type": "string", "description": f"The name of the entity {named}"}
    return an_object(entityName=texts, **{list_name: names(contents)})


ADDITION = of_entity(
    "contents", "to add the observations to", "An array of observation contents to add"
)
DELETION = of_entity(
    "observations", "containing the observations", "An array of observations to delete"
)
ADDED = an_object(entityName={"type": "string"}, addedObservations=listed({"type": "string"}))
GRAPH = an_object(entities=listed(ENTITY), relations=listed(RELATION))
DONE = an_object(success={"type": "boolean"}, message={"type": "string"})
QUERY = {
    "type": "string",
    "maxLength": 2048,
    "description": "The search query to match against entity names, types, and observation content",
}
# name -> (takes, gives, (read only, destructive, idempotent)), as its source has them
TOOLS = {
    "create_entities": (
        an_object(entities=listed(ENTITY)), an_object(entities=listed(ENTITY)),
        (False, False, False),
    ),
    "create_relations": (
        an_object(relations=listed(RELATION)), an_object(relations=listed(RELATION)),
        (False, False, False),
    ),
    "add_observations": (
        an_object(observations=listed(ADDITION)), an_object(results=listed(ADDED)),
        (False, False, False),
    ),
    "delete_entities": (
        an_object(entityNames=names("An array of entity names to delete")), DONE,
        (False, True, True),
    ),
    "delete_observations": (
        an_object(deletions=listed(DELETION)), DONE, (False, True, True),
    ),
    "delete_relations": (
        an_object(relations=listed(RELATION, "An array of relations to delete")), DONE,
        (False, True, True),
    ),
    "read_graph": ({"type": "object", "properties": {}}, GRAPH, (True, False, True)),
    "search_nodes": (an_object(query=QUERY), GRAPH, (True, False, True)),
    "open_nodes": (
        an_object(names=names("An array of entity names to retrieve")), GRAPH,
        (True, False, True),
    ),
}  # fmt: skip
ALICE = {"name": "Alice", "entityType": "person", "observations": ["likes tea", "plays chess"]}
LYON = {"name": "Lyon", "entityType": "city", "observations": []}
LIVES = {"from": "Alice", "to": "Lyon", "relationType": "lives in"}


@pytest.fixture
def call(bob):
    return graphing(bob)


@pytest.fixture
def held(call):
    """The same, once Alice lives in Lyon."""
    call("create_entities", entities=[ALICE, LYON])
    call("create_relations", relations=[LIVES])
    return call


def graph(result):
    assert not result.is_error, told(result)
    assert json.loads(told(result)) == result.structured_content
    return result.structured_content


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    import elytron

    with elytron.open(tmp_path_factory.mktemp("offered")) as store:
        server = Face(reference_profile(store.agent("bob"))).server()

        async def main():
            async with Client(server) as client:
                return (await client.list_tools()).tools

        return {tool.name: tool for tool in anyio.run(main)}


def test_the_tools_are_the_nine_in_their_order(offered):
    assert list(offered) == list(TOOLS)


@pytest.mark.parametrize("name", TOOLS)
def test_each_tool_has_the_schemas_and_hints_of_the_reference_server(offered, name):
    tool, (takes, gives, hints) = offered[name], TOOLS[name]
    assert tool.input_schema == takes
    assert tool.output_schema == gives
    said = tool.annotations
    assert (said.read_only_hint, said.destructive_hint, said.idempotent_hint) == hints
    assert said.open_world_hint is False


def test_entities_and_relations_are_made_and_read_in_their_order(call):
    made = call("create_entities", entities=[ALICE, LYON])
    assert made.structured_content == {"entities": [ALICE, LYON]}
    assert json.loads(told(made)) == [ALICE, LYON]
    assert call("create_relations", relations=[LIVES]).structured_content == {"relations": [LIVES]}
    assert graph(call("read_graph")) == {"entities": [ALICE, LYON], "relations": [LIVES]}


def test_an_empty_graph_is_read_and_nothing_is_made(folder, call):
    assert graph(call("read_graph")) == {"entities": [], "relations": []}
    assert not folder.exists()


def test_what_is_there_already_is_not_made_again(held):
    other = {"name": "Alice", "entityType": "robot", "observations": ["is new"]}
    zoe = {"name": "Zoe", "entityType": "cat", "observations": ["purrs", "purrs"]}
    assert held("create_entities", entities=[other, zoe, zoe]).structured_content == {
        "entities": [zoe]
    }
    assert held("create_relations", relations=[LIVES]).structured_content == {"relations": []}
    found = graph(held("read_graph"))
    assert found["entities"] == [ALICE, LYON, {**zoe, "observations": ["purrs"]}]
    assert found["relations"] == [LIVES]


def test_a_relation_is_made_once_in_one_call_and_each_way_by_itself(held):
    back = {"from": "Lyon", "to": "Alice", "relationType": "lives in"}
    made = held("create_relations", relations=[back, back, LIVES])
    assert made.structured_content == {"relations": [back]}


def test_a_relation_of_an_entity_that_is_not_there_is_an_error_and_none_is_made(held):
    new = {"from": "Lyon", "to": "Alice", "relationType": "houses"}
    result = held("create_relations", relations=[new, {**new, "to": "Nobody"}])
    assert error_of(result) == "not-found"
    assert "Entity with name Nobody not found" in told(result)
    assert graph(held("read_graph"))["relations"] == [LIVES]


def test_observations_are_added_once_each(held):
    wanted = [{"entityName": "Alice", "contents": ["likes tea", "is tall", "is tall"]}]
    result = held("add_observations", observations=wanted)
    assert result.structured_content == {
        "results": [{"entityName": "Alice", "addedObservations": ["is tall"]}]
    }
    observations = ["likes tea", "plays chess", "is tall"]
    assert graph(held("read_graph"))["entities"][0]["observations"] == observations


def test_observations_for_a_missing_entity_are_an_error_and_none_is_added(held):
    wanted = [
        {"entityName": "Alice", "contents": ["is tall"]},
        {"entityName": "Nobody", "contents": ["is small"]},
    ]
    result = held("add_observations", observations=wanted)
    assert error_of(result) == "not-found"
    assert graph(held("read_graph"))["entities"][0] == ALICE


def test_the_same_observation_may_be_of_two_entities(held):
    held("add_observations", observations=[{"entityName": "Lyon", "contents": ["likes tea"]}])
    gone = [{"entityName": "Alice", "observations": ["likes tea"]}]
    held("delete_observations", deletions=gone)
    first, second = graph(held("read_graph"))["entities"]
    assert first["observations"] == ["plays chess"]
    assert second["observations"] == ["likes tea"]


def test_an_observation_that_was_deleted_or_closed_may_be_added_anew(bob, held):
    held("delete_observations", deletions=[{"entityName": "Alice", "observations": ["likes tea"]}])
    wanted = [{"entityName": "Alice", "contents": ["likes tea"]}]
    held("add_observations", observations=wanted)
    (memory,) = [memory for memory in bob.memories() if memory.content == "likes tea"]
    bob.close_memory(memory.id)
    added = held("add_observations", observations=wanted).structured_content
    assert added["results"][0]["addedObservations"] == ["likes tea"]
    assert graph(held("read_graph"))["entities"][0]["observations"] == ["plays chess", "likes tea"]


def test_a_text_that_mentions_an_entity_is_no_observation_of_it(held):
    held("add_observations", observations=[{"entityName": "Alice", "contents": ["met in Lyon"]}])
    assert graph(held("open_nodes", names=["Lyon"]))["entities"] == [LYON]


def test_deleting_an_entity_takes_its_observations_and_relations(bob, held):
    result = held("delete_entities", entityNames=["Alice"])
    message = "Entities deleted successfully"
    assert result.structured_content == {"success": True, "message": message}
    assert told(result) == message
    assert graph(held("read_graph")) == {"entities": [LYON], "relations": []}
    assert not bob.memories()
    # And made anew, it is as new.
    again = {"name": "Alice", "entityType": "robot", "observations": []}
    held("create_entities", entities=[again])
    assert graph(held("open_nodes", names=["Alice"])) == {"entities": [again], "relations": []}


def test_what_is_missing_is_told_where_it_should_have_been_deleted(held):
    assert told(held("delete_entities", entityNames=["Lyon", "Nobody", "x" * 300])) == (
        f"Deleted 1 of 3 entities. Not found: Nobody, {'x' * 300}"
    )
    gone = [
        {"entityName": "Alice", "observations": ["likes tea", "never said"]},
        {"entityName": "Nobody", "observations": ["x"]},
    ]
    assert told(held("delete_observations", deletions=gone)) == (
        "Deleted 1 of 3 observations. Entities not found: Nobody"
    )
    other = {"from": "Nobody", "to": "Alice", "relationType": "knows"}
    assert told(held("delete_relations", relations=[other])) == (
        "Deleted 0 of 1 relations. The rest matched nothing."
    )


def test_deleting_a_relation_takes_just_that_one(held):
    works = {**LIVES, "relationType": "works in"}
    held("create_relations", relations=[works])
    assert told(held("delete_relations", relations=[LIVES])) == "Relations deleted successfully"
    assert graph(held("read_graph"))["relations"] == [works]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("ALICE", ["Alice"]), ("cit", ["Lyon"]), ("Chess", ["Alice"]), ("o", ["Alice", "Lyon"]),
        ("", ["Alice", "Lyon"]), ("nowhere", []),
    ],
)  # fmt: skip
def test_searching_looks_for_a_part_of_names_types_and_observations(held, query, found):
    answer = graph(held("search_nodes", query=query))
    assert [entity["name"] for entity in answer["entities"]] == found
    assert answer["relations"] == ([LIVES] if found else [])


def test_opening_gives_the_named_and_the_relations_that_touch_them(held):
    answer = graph(held("open_nodes", names=["Lyon", "Nobody", "Lyon", ""]))
    assert answer == {"entities": [LYON], "relations": [LIVES]}
    answer = graph(held("open_nodes", names=["Lyon", "Alice"]))
    assert answer == {"entities": [ALICE, LYON], "relations": [LIVES]}


def test_names_are_compared_exactly(held):
    assert graph(held("open_nodes", names=["alice"]))["entities"] == []
    assert told(held("delete_entities", entityNames=["ALICE"])).startswith("Deleted 0 of 1")
    result = held("add_observations", observations=[{"entityName": "alice", "contents": ["x"]}])
    assert error_of(result) == "not-found"


@pytest.mark.parametrize("pair", [("alice", "Alice"), ("C++", "C#"), ("Zoë", "Zoe")])
def test_a_name_that_is_one_with_another_here_is_refused_and_not_quietly_left_out(held, pair):
    """Between what is held and what is new, and within one call."""
    entities = [{"name": name, "entityType": "x", "observations": ["said"]} for name in pair]
    result = held("create_entities", entities=entities)
    assert error_of(result) == "conflict"
    assert pair[0] in told(result)
    assert graph(held("read_graph"))["entities"] == [ALICE, LYON]


def test_a_concept_that_was_only_mentioned_is_completed(bob, call):
    """As after a call that ended halfway: nothing of the second one is left out."""
    bob.remember("Alice is here", about=["alice"])
    assert call("create_entities", entities=[ALICE]).structured_content == {"entities": [ALICE]}
    assert graph(call("read_graph"))["entities"] == [ALICE]


def test_concepts_that_were_only_proposed_are_no_entities(bob, call):
    for number in range(8):
        bob.save("user", f"I met Marguerite at work, {number} times.")
    bob.flush()
    assert bob.concepts(origin="proposed")
    assert graph(call("read_graph"))["entities"] == []
    marguerite = {"name": "Marguerite", "entityType": "person", "observations": []}
    call("create_entities", entities=[marguerite])
    assert graph(call("read_graph"))["entities"] == [marguerite]


def test_what_is_observed_is_recalled_as_any_memory(bob, held):
    assert bob.recall("who likes tea?")[0].message.content == "likes tea"
    assert bob.relations("Alice")[0].target == "Lyon"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("create_entities", {}),
        ("create_entities", {"entities": [{"name": "x"}]}),
        ("create_entities", {"entities": [{**ALICE, "name": ""}]}),
        ("create_entities", {"entities": [{**ALICE, "name": "x" * 201}]}),
        ("create_entities", {"entities": [{**ALICE, "name": "a\nb"}]}),
        ("create_entities", {"entities": [{**ALICE, "observations": ["good", ""]}]}),
        ("create_entities", {"entities": [{**ALICE, "observations": "likes tea"}]}),
        ("create_entities", {"entities": [{**ALICE, "entityType": "x" * 201}]}),
        ("create_entities", {"entities": [ALICE, {**LYON, "entityType": "a\x00"}]}),
        ("create_entities", {"entities": [LYON] * (ITEMS_MAX + 1)}),
        ("create_relations", {"relations": [{**LIVES, "relationType": ""}]}),
        ("search_nodes", {"query": "x" * 2049}),
        ("open_nodes", {"names": "Alice"}),
        ("open_nodes", {"names": ["x"] * (ITEMS_MAX + 1)}),
    ],
)
def test_what_cannot_be_taken_is_an_error_and_nothing_is_made(bob, call, tool, arguments):
    assert error_of(call(tool, **arguments)) == "invalid-argument"
    assert not bob.exists()


def test_an_error_halfway_says_how_far_it_came_and_the_rest_can_follow(bob, call):
    """The limit of one text is known to the memory alone, so it is met in the middle."""
    large = {"name": "Large", "entityType": "x", "observations": ["x" * (300 << 10)]}
    result = call("create_entities", entities=[ALICE, large, LYON])
    assert error_of(result) == "invalid-argument"
    assert "1 of 3 entities were made before that" in told(result)
    assert graph(call("read_graph"))["entities"] == [ALICE]


def test_a_graph_beyond_one_read_is_read_entity_by_entity(bob):
    call = graphing(bob, rows_max=4)
    many = {**ALICE, "observations": ["one", "two", "three"]}
    more = {**LYON, "observations": ["four", "five"]}
    call("create_entities", entities=[many, more])
    edges = [{**LIVES, "relationType": f"r{number}"} for number in range(3)]
    edges.append({"from": "Lyon", "to": "Alice", "relationType": "houses"})
    call("create_relations", relations=edges[:1])
    call("create_relations", relations=edges[1:3])
    found = graph(call("read_graph"))
    assert found == {"entities": [many, more], "relations": edges[:3]}


def test_more_entities_than_one_read_gives_are_an_error_with_a_way_out(bob):
    call = graphing(bob, rows_max=2)
    call("create_entities", entities=[ALICE, LYON])
    result = call("read_graph")
    assert error_of(result) == "invalid-argument"
    assert "open_nodes" in told(result)
    assert "max_query_rows" in told(result)
    assert graph(call("open_nodes", names=["Lyon"]))["entities"] == [LYON]


def test_an_answer_that_is_too_large_is_an_error_with_a_way_out(call, monkeypatch):
    monkeypatch.setattr("elytron.faces.mcp.reference_profile.ANSWER_CHARS", 100)
    call("create_entities", entities=[ALICE])
    result = call("read_graph")
    assert error_of(result) == "invalid-argument"
    assert "search_nodes" in told(result)


def test_the_same_entities_made_by_many_threads_are_there_once(bob):
    graphs = [KnowledgeGraph(bob) for _ in range(4)]
    start = threading.Barrier(4)

    def make(one):
        start.wait(10)
        one.create_entities([Entity("Alice", "person", tuple(f"fact {n}" for n in range(10)))])

    threads = [threading.Thread(target=make, args=(one,)) for one in graphs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (entity,) = graphs[0].read().entities
    assert sorted(entity.observations) == sorted(f"fact {n}" for n in range(10))


def test_changes_that_are_asked_for_at_once_are_made_in_their_order(bob):
    """A model calls several tools in one turn, and the second needs what the first makes."""

    async def main():
        async with Client(Face(reference_profile(bob)).server()) as client:
            async with anyio.create_task_group() as tasks:
                for tool, arguments in (
                    ("create_entities", {"entities": [ALICE, LYON]}),
                    ("create_relations", {"relations": [LIVES]}),
                    ("delete_entities", {"entityNames": ["Lyon"]}),
                ):
                    tasks.start_soon(client.call_tool, tool, arguments)
                    await anyio.lowlevel.checkpoint()
            return (await client.call_tool("read_graph", {})).structured_content

    assert anyio.run(main) == {"entities": [ALICE], "relations": []}


def test_the_graph_is_a_resource_too(held, bob):
    async def main():
        async with Client(Face(reference_profile(bob)).server()) as client:
            (resource,) = (await client.list_resources()).resources
            assert (str(resource.uri), resource.mime_type) == (GRAPH_URI, "application/json")
            assert not (await client.list_resource_templates()).resource_templates
            with pytest.raises(MCPError, match="Unknown resource"):
                await client.read_resource("memory://other")
            (contents,) = (await client.read_resource(GRAPH_URI)).contents
            return json.loads(contents.text)

    assert anyio.run(main) == {"entities": [ALICE, LYON], "relations": [LIVES]}


def test_a_server_without_a_graph_offers_no_resource(bob):
    from elytron.faces.mcp.memory_profile import memory_profile

    async def main():
        async with Client(Face(memory_profile(bob)).server()) as client:
            with pytest.raises(MCPError, match="Method not found"):
                await client.list_resources()

    anyio.run(main)


def test_calls_of_one_session_see_each_other(bob):
    results = ask(
        reference_profile(bob),
        ("create_entities", {"entities": [ALICE]}),
        ("search_nodes", {"query": "tea"}),
    )
    assert results[1].structured_content["entities"] == [ALICE]
