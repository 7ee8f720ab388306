"""mem0: memories with their times and whose they are, and relations."""

import json
from typing import Any

import pytest

from elytron import InvalidArgument
from elytron.importers import detect_format, import_file, mem0, pieces
from test_importers_common import DATA, pouring


@pytest.fixture
def pour(store, tmp_path):
    return pouring(store, tmp_path)


def memory(**members: Any) -> dict[str, Any]:
    return {"id": "a", "memory": "Alice likes Python", "created_at": None, **members}


def test_results_become_memories_and_relations_facts(store):
    (report,) = import_file(store, DATA / "mem0.json")
    assert (report.agent, report.imported, report.memories, report.relations) == ("mem0", 4, 2, 2)
    assert report.left_out == {pieces.EMPTY: 1}
    agent = store.agent("mem0")
    lives = agent.get_memory("0ea83ded-5480-46de-9f77-7c8351ff806e")
    assert lives is not None
    assert (lives.content, lives.kind) == ("Alice lives in Lyon", mem0.FACT)
    assert lives.valid_from is not None
    assert lives.valid_from.isoformat() == "2025-11-29T15:52:12.238999+00:00"
    whose = {name: lives.metadata[name] for name in ("user_id", "agent_id", "run_id", "hash")}
    assert whose == {
        "user_id": "alice", "agent_id": "bob", "run_id": "r1",
        "hash": "dc01f316503549347bbffec94db41a7a",
    }  # fmt: skip
    likes = agent.get_memory("33f90e2d-cd58-4d3e-83ee-344cc8bf5334")
    assert likes is not None
    assert likes.metadata["metadata"] == {"topic": "work"}
    assert likes.valid_to is not None
    assert likes.valid_to.isoformat() == "2099-01-01T00:00:00+00:00"
    facts = {(fact.source, fact.relation, fact.target) for fact in agent.relations()}
    assert facts == {("alice", "lives_in", "lyon"), ("alice", "likes", "python")}
    (hit,) = agent.memories("python")
    assert hit.id == likes.id


def test_importing_twice_adds_nothing_twice(store):
    import_file(store, DATA / "mem0.json")
    agent = store.agent("mem0")
    before = agent.memories(), agent.relations(), agent.concepts()
    (report,) = import_file(store, DATA / "mem0.json", format="mem0")
    assert (report.imported, report.already_held, report.memories) == (0, 4, 0)
    assert (agent.memories(), agent.relations(), agent.concepts()) == before


def test_the_bare_list_the_object_on_one_line_and_one_memory_a_line_say_the_same(store, tmp_path):
    whole = json.loads((DATA / "mem0.json").read_text(encoding="utf-8"))
    forms = {
        "list.json": json.dumps(whole["results"]),
        "line.json": json.dumps(whole),
        "lines.jsonl": "\n".join(map(json.dumps, whole["results"])),
        "page.json": json.dumps({"count": 3, "next": None, **whole}, indent=1),
    }
    for name, text in forms.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert detect_format(path) == "mem0"
        (report,) = import_file(store, path)
        assert report.memories == 2, name
        assert (mem0.OTHER_MEMBERS in (report.left_out or {})) == (name == "page.json")


def test_a_memory_without_an_id_gets_one_made_from_its_text(store, pour):
    value = [{"memory": "Alice likes Python"}, {"memory": "Alice likes Python"}]
    report = pour(value, "mem0")
    assert (report.imported, report.already_held) == (1, 1)
    assert pour(value, "mem0").already_held == 2


def test_what_was_changed_there_since_is_refused_or_left_as_it_is(store, pour):
    pour([memory()], "mem0")
    with pytest.raises(InvalidArgument, match="'a' is held with other content"):
        pour([memory(id="b"), memory(memory="Alice likes Rust")], "mem0")
    assert store.agent("bob").get_memory("b") is None
    report = pour([memory(id="b"), memory(memory="Alice likes Rust")], "mem0", skip_bad=True)
    assert (report.imported, [bad.line for bad in report.bad]) == (1, [2])
    held = store.agent("bob").get_memory("a")
    assert held is not None
    assert held.content == "Alice likes Python"


def test_one_id_with_two_texts_in_a_file_is_found_before_anything_is_written(store, folder, pour):
    with pytest.raises(InvalidArgument, match="item 2: memory id 'a' came before in the file"):
        pour([memory(), memory(memory="other")], "mem0")
    assert not folder.exists()


BAD = {
    "no text": ({"memory": None}, "`memory` must be a string; got NoneType"),
    "an id that is a number": ({"id": 5}, "`id` must be a string; got int"),
    "a long id": ({"id": "x" * 201}, "at most 200"),
    "a time that is none": ({"created_at": "soon"}, "ISO 8601"),
    "a time in numbers": ({"created_at": 5}, "`created_at` must be a string"),
    "an end before its beginning": (
        {"created_at": "2025-01-02T00:00:00Z", "expiration_date": "2025-01-01"}, "valid_to",
    ),
    "a NUL": ({"memory": "a\0b"}, "NUL"),
    "a lone surrogate": ({"memory": "\ud800"}, "surrogate"),
    "a surrogate in metadata": ({"metadata": {"a": "\ud800"}}, "surrogate"),
    "a text that is too long": ({"memory": "x" * (300 << 10)}, "max_message_kb"),
    "metadata that is too long": ({"metadata": {"a": "x" * (300 << 10)}}, "max_message_kb"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_memory_is_named_and_the_others_are_taken_if_asked(kind, store, pour):
    members, reason = BAD[kind]
    value = {"results": [memory(id="first"), memory(**members), memory(id="last")]}
    with pytest.raises(InvalidArgument, match="item 2: ") as caught:
        pour(value, "mem0")
    assert reason in str(caught.value)
    assert "nothing was imported" in str(caught.value)
    assert store.agents() == []
    report = pour(value, "mem0", skip_bad=True)
    assert (report.imported, [bad.line for bad in report.bad]) == (2, [2])


@pytest.mark.parametrize(
    ("relation", "reason"),
    [
        (5, "expected a relation; got int"),
        ({"source": "a", "relationship": "b"}, "`target` must be a string; got nothing"),
        ({"source": "a" * 201, "relationship": "b", "target": "c"}, "at most 200"),
        ({"source": "a", "relationship": " ", "target": "c"}, "relation is empty"),
    ],
)
def test_a_bad_relation_is_named(relation, reason, store, pour):
    value = {"results": [memory()], "relations": [relation]}
    with pytest.raises(InvalidArgument, match="item 2: ") as caught:
        pour(value, "mem0")
    assert reason in str(caught.value)
    report = pour(value, "mem0", skip_bad=True)
    assert (report.imported, len(report.bad)) == (1, 1)


@pytest.mark.parametrize("value", [{"results": 5}, {"results": [], "relations": 5}, [5], 5])
def test_what_is_no_list_of_memories_is_refused(value, store, pour):
    with pytest.raises(InvalidArgument, match="nothing was imported"):
        pour(value, "mem0")


def test_an_answer_without_memories_brings_nothing(store, pour):
    report = pour({"results": []}, "auto")
    assert (report.imported, report.already_held, store.agents()) == (0, 0, [])


def test_progress_counts_memories_and_relations(store):
    calls: list[tuple[int, int]] = []
    import_file(store, DATA / "mem0.json", on_progress=lambda *call: calls.append(call))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
