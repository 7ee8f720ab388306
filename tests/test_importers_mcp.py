"""The reference memory server's file: entities, observations, relations."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import elytron
from elytron import InvalidArgument
from elytron.importers import detect_format, import_file, mcp, pieces
from elytron.importers.mcp import import_graph, observation_id
from test_cli import run
from test_importers_common import DATA, writing
from test_importers_odd_files import JSON_TOKENS, attempt


@pytest.fixture
def write(tmp_path):
    return writing(tmp_path)


def entity(name: Any, *observations: Any, kind: Any = "person") -> str:
    line = {"type": "entity", "name": name, "entityType": kind, "observations": list(observations)}
    return json.dumps(line)


def relation(source: Any, kind: Any, target: Any) -> str:
    return json.dumps({"type": "relation", "from": source, "to": target, "relationType": kind})


def graph(agent: elytron.Agent) -> Any:
    return (
        {(concept.name, concept.type) for concept in agent.concepts()},
        {(memory.about, memory.content, memory.kind) for memory in agent.memories()},
        {(fact.source, fact.relation, fact.target) for fact in agent.relations()},
    )


def test_entities_observations_and_relations_arrive(store):
    assert detect_format(DATA / "memory.jsonl") == "mcp"
    (report,) = import_file(store, DATA / "memory.jsonl")
    assert (report.agent, report.imported, report.already_held) == ("memory", 8, 1)
    assert (report.memories, report.concepts, report.relations) == (3, 3, 2)
    assert report.left_out == {pieces.EMPTY: 1}
    concepts, memories, facts = graph(store.agent("memory"))
    assert concepts == {("Alice", "person"), ("Lyon", "city"), ("Elytron", None)}
    assert memories == {
        (("Alice",), "Likes Python", "observation"),
        (("Alice",), "Lives in Lyon", "observation"),
        (("Elytron",), "Remembers things", "observation"),
    }
    assert facts == {("Alice", "lives_in", "Lyon"), ("Alice", "uses", "Elytron")}


def test_importing_twice_adds_nothing_twice(store):
    import_file(store, DATA / "memory.jsonl")
    before = graph(store.agent("memory"))
    (report,) = import_file(store, DATA / "memory.jsonl")
    assert (report.imported, report.already_held) == (0, 9)
    assert graph(store.agent("memory")) == before


def test_a_file_that_has_grown_adds_what_is_new(store, write):
    lines = [entity("Alice", "Likes Python"), relation("Alice", "knows", "Bob")]
    import_file(store, write(*lines), agent="x")
    lines = [entity("Alice", "Likes Python", "Likes Rust"), entity("Bob", kind="dog"), *lines[1:]]
    (report,) = import_file(store, write(*lines), agent="x")
    assert (report.memories, report.concepts, report.relations) == (1, 0, 0)
    assert ("Bob", "dog") in graph(store.agent("x"))[0], "it was made by the relation, untyped"


def test_what_is_said_of_a_concept_here_stays(store, write):
    agent = store.agent("x")
    agent.remember("Alice is a cat", about=["Alice"])
    agent.set_concept("Alice", type="cat")
    import_file(store, write(entity("ALICE", kind="person")), agent="x")
    assert graph(agent)[0] == {("Alice", "cat")}


def test_two_spellings_of_a_name_are_one_concept(store, write):
    lines = [entity("Alice", "Likes Python"), entity("alice", "Likes Python", "Likes Rust")]
    (report,) = import_file(store, write(*lines), agent="x")
    assert (report.memories, report.concepts, report.already_held) == (2, 1, 1)
    assert report.left_out == {mcp.ONE_NAME: 1}
    assert observation_id("Alice", "x") == observation_id("ALICE", "x")
    assert observation_id("Alice", "x") != observation_id("Alice", "y")


def test_lines_and_members_of_other_programs_are_counted(store, write):
    more = json.loads(entity("Alice", "Likes Python")) | {"createdAt": "2025-01-01"}
    lines = [json.dumps(more), '{"type": "session", "id": 1}']
    (report,) = import_file(store, write(*lines), format="mcp", agent="x")
    assert report.imported == 2
    assert report.left_out == {mcp.OTHER_MEMBERS: 1, mcp.OTHER_TYPE: 1}


BAD = {
    "no JSON": ("nonsense", "not JSON"),
    "a list": ("[]", "expected an object; got list"),
    "no type": ("{}", "`type` must be a string; got nothing"),
    "no name": (entity(None), "`name` must be a string; got NoneType"),
    "a long name": (entity("x" * 201), "at most 200"),
    "a name of nothing": (entity(" "), "name is empty"),
    "a name with a line break": (entity("a\nb"), "control character"),
    "a name with a surrogate": (entity("a\ud800"), "surrogate"),
    "a type that is no text": (entity("A", kind=5), "`entityType` must be a string"),
    "a long type": (entity("A", kind="x" * 201), "at most 200"),
    "an observation that is no text": (entity("A", 5), "observation 1: expected a string; got int"),
    "an observation with a NUL": (entity("A", "a\0b"), "observation 1: content has a NUL"),
    "observations that are no list": (
        '{"type": "entity", "name": "A", "entityType": "x", "observations": "y"}', "must be a list",
    ),
    "no end": ('{"type": "relation", "from": "A", "relationType": "x"}', "`to` must be a string"),
    "an end that is a number": (relation("A", "x", 5), "`to` must be a string"),
    "a relation without a word": (relation("A", "", "B"), "relation is empty"),
    "two members of one name": ('{"type": "entity", "type": "relation"}', "two members"),
    "nested without end": ('{"type": ' + "[" * 50_000, "too deep"),
    "not UTF-8": (b'{"type": "entity", "name": "caf\xe9"}', "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_is_named_and_the_others_are_taken_if_asked(kind, store, write):
    line, reason = BAD[kind]
    path = write(entity("First", "one"), line, entity("Last", "two"))
    with pytest.raises(InvalidArgument, match="line 2: ") as caught:
        import_file(store, path, agent="x", format="mcp")
    assert reason in str(caught.value)
    assert "nothing was imported" in str(caught.value)
    assert store.agents() == []
    (report,) = import_file(store, path, agent="x", format="mcp", skip_bad=True)
    assert report.memories == 2
    assert {bad.line for bad in report.bad} == {2}


def test_one_agent_takes_a_graph_by_its_own_verbs(store):
    agent = store.agent("x")
    calls: list[tuple[int, int]] = []
    report = import_graph(
        agent, DATA / "memory.jsonl", on_progress=lambda *call: calls.append(call)
    )
    assert (report.agent, report.imported) == ("x", 8)
    assert calls[-1] == (9, 9)
    assert import_graph(agent, DATA / "memory.jsonl").already_held == 9


def test_a_graph_is_taken_by_an_agent_that_reads_few_rows_at_once(open_store):
    agent = open_store(max_query_rows=20).agent("x")
    assert import_graph(agent, DATA / "memory.jsonl").imported == 8
    assert import_graph(agent, DATA / "memory.jsonl").already_held == 9


def test_an_empty_file_is_a_graph_without_anything(store, write):
    assert import_graph(store.agent("x"), write()) == elytron.ImportReport("x", 0, 0, what=mcp.WHAT)
    assert store.agents() == []


def test_a_graph_over_the_agents_own_limits_is_told_with_what_was_taken(open_store, write):
    agent = open_store(max_message_kb=1).agent("x")
    path = write(entity("Alice", "short", "long" * 1000))
    with pytest.raises(InvalidArgument, match=r"observation 2: .*max_message_kb.* at least 1 were"):
        import_graph(agent, path)
    report = import_graph(agent, path, skip_bad=True)
    assert (report.concepts, report.already_held, len(report.bad)) == (0, 2, 1)


SAMPLES = (("memory.jsonl", "mcp"), ("mem0.json", "mem0"))


@given(data=st.data())
def test_whatever_is_done_to_a_file_nothing_is_lost_unsaid(data, tmp_path_factory):
    """
    As for files of messages: any damage gives a named error and changes nothing, or is reported.

    Method: put tokens of JSON into a good file, in place of a few bytes, and cut it.
    """
    draw = data.draw
    file, kind = draw(st.sampled_from(SAMPLES))
    content = (DATA / file).read_bytes()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        behind = content[place + draw(st.sampled_from((0, 1, 6))) :]
        content = content[:place] + draw(st.sampled_from(JSON_TOKENS)) + behind
    if draw(st.booleans()):
        content = content[: draw(st.integers(1, len(content)))]
    tmp = tmp_path_factory.mktemp("damage")
    path = tmp / file
    path.write_bytes(content)
    with elytron.open(tmp / "strict", reserve_mb=0) as store:
        outcome = attempt(store, path, kind, skip_bad=False)
        assert isinstance(outcome, list) or store.agents() == []
    calls: list[tuple[int, int]] = []
    with elytron.open(tmp / "lenient", reserve_mb=0) as store:
        reports = attempt(
            store, path, kind, skip_bad=True, on_progress=lambda *call: calls.append(call)
        )
        if not isinstance(reports, list):
            assert store.agents() == []
            return
        (report,) = reports
        dealt_with = report.imported + report.already_held + len(report.bad)
        assert (calls[-1] if calls else (0, 0)) == (dealt_with, dealt_with)
        agent = store.agent(report.agent)
        assert len(agent.memories()) == report.memories
        assert len(agent.relations()) == report.relations
        before = graph(agent)
        (again,) = attempt(store, path, kind, skip_bad=True)
        assert again.imported == 0
        assert graph(agent) == before


def test_the_command_line_says_what_it_took(tmp_path):
    args = ("import", DATA / "memory.jsonl", "--store", tmp_path / "store")
    first, again = run(*args), run(*args)
    assert "8 observations, entities and relations saved" in first.out
    assert "9 observations, entities and relations were held already" in " ".join(again.out.split())
    listed = json.loads(run(*args, "--json", "--format", "mcp").out)["agents"]
    assert [agent["already_held"] for agent in listed] == [9]


def test_an_import_that_was_killed_while_it_made_a_concept_leaves_nothing_when_it_is_repeated(
    store, write, monkeypatch
):
    """Method: what deletes the memory that makes a concept never returns."""
    agent, path = store.agent("x"), write(entity("Alice"))

    def killed(*_: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(elytron.Agent, "delete_memory", killed)
        with pytest.raises(KeyboardInterrupt):
            import_graph(agent, path)
    assert len(agent.memories()) == 1
    import_graph(agent, path)
    assert (agent.memories(), graph(agent)[0]) == ([], {("Alice", "person")})
