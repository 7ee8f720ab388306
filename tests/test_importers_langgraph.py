"""Files of LangGraph's `SqliteStore`: items as the adapter keeps them, with their times."""

from pathlib import Path
from typing import Any

import apsw
import pytest

import elytron
from elytron import InvalidArgument
from elytron.adapters.langgraph_records import NAMESPACES, listed, parts, record_id, record_of
from elytron.importers import detect_format, import_file, langgraph
from foreign_databases import langgraph_database

ROWS = (
    ("memories.alice", "m1", {"text": "likes Python", "n": 1.5, "tags": ["a", None]}),
    ("memories.alice", "m2", {"text": "lives in Lyon"}),
    ("prefs", "a.b", {"x": {"y": None}}),
    ("prefs", "t", {"x": 1}, "2099-11-29 15:53:38.496470+00:00", 5.0),
    ("prefs", "gone", {"x": 2}, "2026-03-02 18:00:00", 5.0),
)


def made(path: Path, *rows: tuple[Any, ...], ttl: bool = True) -> Path:
    langgraph_database(path, rows, ttl=ttl)
    return path


def held(agent: elytron.Agent, namespace: tuple[str, ...], key: str) -> Any:
    memory = agent.get_memory(record_id(namespace, key))
    return None if memory is None else record_of(memory)


def test_items_arrive_as_the_adapter_reads_them(store, tmp_path):
    path = made(tmp_path / "graph.db", *ROWS)
    assert detect_format(path) == "langgraph"
    (report,) = import_file(store, path)
    assert (report.agent, report.imported, report.memories) == ("graph", 4, 4)
    assert report.left_out == {langgraph.EXPIRED: 1}
    agent = store.agent("graph")
    item = held(agent, ("memories", "alice"), "m1")
    assert item.value == {"text": "likes Python", "n": 1.5, "tags": ["a", None]}
    assert item.created_at.isoformat() == "2026-03-02T17:04:10+00:00"
    assert item.updated_at.isoformat() == "2026-03-03T08:00:00+00:00"
    assert (item.ttl_minutes, item.fields) == (None, None)
    assert held(agent, ("prefs",), "a.b").value == {"x": {"y": None}}
    assert held(agent, ("prefs",), "t").ttl_minutes == 5.0
    ends = agent.get_memory(record_id(("prefs",), "t"))
    assert ends is not None
    assert ends.valid_to is not None
    assert ends.valid_to.isoformat() == "2099-11-29T15:53:38.496470+00:00"
    assert held(agent, ("prefs",), "gone") is None
    found = {memory.content for memory in agent.memories(session=NAMESPACES)}
    assert found == {"memories.alice", "prefs"}


def test_importing_twice_adds_nothing_twice(store, tmp_path):
    path = made(tmp_path / "graph.db", *ROWS)
    import_file(store, path)
    before = store.agent("graph").memories()
    calls: list[tuple[int, int]] = []
    (report,) = import_file(store, path, on_progress=lambda *call: calls.append(call))
    assert (report.imported, report.already_held) == (0, 4)
    assert store.agent("graph").memories() == before
    assert calls[-1] == (4, 4)


def test_of_many_namespaces_the_further_ones_are_listed_in_parts(open_store, tmp_path):
    """As the adapter lists them, so that none hides another where a list can be read no further."""
    store = open_store(max_query_rows=128)
    spaces = [f"memories.user{number}" for number in range(30)]
    path = made(tmp_path / "graph.db", *[(space, "k", {"of": space}) for space in spaces])
    for _ in range(2):
        import_file(store, path)
    agent = store.agent("graph")
    first = [memory.content for memory in agent.memories(session=NAMESPACES, limit=16)]
    further = [
        memory.content
        for part in parts(("memories",))
        for memory in agent.memories(session=part, limit=16)
    ]
    assert sorted([*first, *further]) == sorted(["-", *spaces])
    assert (len(first), listed(())["content"]) == (3, "-")


def test_a_file_of_the_first_version_without_ends_is_read(store, tmp_path):
    path = made(tmp_path / "graph.db", *[row[:3] for row in ROWS], ttl=False)
    (report,) = import_file(store, path)
    assert (report.imported, report.left_out) == (5, {})


def test_an_item_that_was_changed_since_is_refused_or_left_as_it_is(store, tmp_path):
    import_file(store, made(tmp_path / "a.db", *ROWS), agent="x")
    path = made(tmp_path / "b.db", ("new", "k", {}), (*ROWS[0][:2], {"text": "likes Rust"}))
    with pytest.raises(InvalidArgument, match=r"key 'm1': .* held with other content"):
        import_file(store, path, agent="x")
    (report,) = import_file(store, path, agent="x", skip_bad=True)
    assert (report.imported, len(report.bad)) == (1, 1)
    assert held(store.agent("x"), ("memories", "alice"), "m1").value["text"] == "likes Python"


def test_values_that_are_text_are_read_as_those_that_are_bytes(store, tmp_path):
    import_file(store, made(tmp_path / "graph.db", ("a", "k", '{"text": "caf\\u00e9"}')))
    assert held(store.agent("graph"), ("a",), "k").value == {"text": "café"}


BAD: dict[str, tuple[tuple[Any, ...], str]] = {
    "no JSON": (("b", "k", b"nonsense"), "`value` is not JSON"),
    "not UTF-8": (("b", "k", b'{"a": "\xff"}'), "`value` is not JSON"),
    "a list": (("b", "k", b"[]"), "`value` must be an object; it is list"),
    "nested without end": (("b", "k", b"[" * 100_000), "nested too deep"),
    "too long": (("b", "k", {"a": "x" * (300 << 10)}), "max_message_kb"),
    "far too long": (("b", "k", b" " * (2 << 20)), "at most 1572864"),
    "an empty label": (("b..c", "k", {}), "empty label"),
    "no namespace": (("", "k", {}), "empty label"),
    "an end that is none": (("b", "k", {}, "soon", 5.0), "`expires_at` is no time"),
    "an end that is a number": (("b", "k", {}, 5, 5.0), "`expires_at` must be text"),
    "minutes that are none": (("b", "k", {}, None, "x"), "`ttl_minutes` must be a number"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_item_is_named_and_the_others_are_taken_if_asked(kind, store, tmp_path):
    row, reason = BAD[kind]
    path = made(tmp_path / "graph.db", ROWS[0], row, ("zzz", "k", {"a": 1}))
    with pytest.raises(InvalidArgument, match=r"row [12]: ") as caught:
        import_file(store, path)
    assert reason in str(caught.value)
    assert store.agents() == []
    (report,) = import_file(store, path, skip_bad=True)
    assert (report.imported, len(report.bad)) == (2, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE store SET prefix = x'ff00'", "UPDATE store SET key = CAST(x'ff' AS TEXT)",
        "UPDATE store SET key = x'00'", "UPDATE store SET value = 5",
        "UPDATE store SET created_at = NULL", "UPDATE store SET updated_at = x'00'",
    ],
)  # fmt: skip
def test_a_row_of_wrong_values_is_bad(statement, store, tmp_path):
    path = made(tmp_path / "graph.db", ROWS[0])
    db = apsw.Connection(str(path))
    db.execute(statement)
    db.close()
    with pytest.raises(InvalidArgument, match="row 1: "):
        import_file(store, path)
    (report,) = import_file(store, path, skip_bad=True)
    assert (report.imported, len(report.bad)) == (0, 1)


def test_odd_namespaces_and_keys_are_kept_as_they_are(store, tmp_path):
    rows = [("ä b.\n", "k\0", {"a": "\ud800"}), ("x" * 500, "k" * 500, {"b": 10**30})]
    path = made(tmp_path / "graph.db", *rows)
    assert import_file(store, path)[0].imported == 2
    agent = store.agent("graph")
    assert held(agent, ("ä b", "\n"), "k\0").value == {"a": "\ud800"}
    assert held(agent, ("x" * 500,), "k" * 500).value == {"b": 10**30}
    assert import_file(store, path)[0].already_held == 2
