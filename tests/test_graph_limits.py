"""The graph within the limits: what it may take, when it goes, and what stands before it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import elytron
from elytron.errors import OverBudget
from elytron.ledger import files
from ledgers import ledger_path, wal_path
from quiet import alone, at_rest

MB = 1 << 20
CONTAINS = "MATCH (m:Message) WHERE m.content CONTAINS $s"
COUNT = "MATCH (m:Message) RETURN count(*) AS n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def graph_folder(store: Path, name: str = "bob") -> Path:
    return files.agent_folder(store, name) / "graph"


def graph_bytes(store: Path, name: str = "bob") -> int:
    found = graph_folder(store, name)
    return sum(files.file_size(path) for path in found.iterdir()) if found.is_dir() else 0


def disk_bytes(store: Path, name: str = "bob") -> int:
    ledger = [files.file_size(path) for path in (ledger_path(store, name), wal_path(store, name))]
    return sum(ledger) + graph_bytes(store, name)


def texts(count: int, *, size: int = 400) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"message {n} " + "lorem ipsum " * (size // 12), "id": f"m{n}"}
        for n in range(count)
    ]


def test_there_is_no_graph_and_no_process_before_the_first_question(folder):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save_many(texts(10))
        bob.relate("Alice", "lives in", "Lyon")
        bob.recall("where does Alice live")
        assert bob.concept("alice").relations[0].target == "Lyon"
        assert bob.check().ok
        assert bob.usage().graph == elytron.GraphUsage()
        assert not graph_folder(folder).exists()
        assert not store.usage().worker.running
        assert bob.cypher(COUNT) == [{"n": 10}]
        assert graph_folder(folder).exists()
        assert store.usage().worker.running


def test_a_question_to_nobody_makes_nothing(folder):
    with elytron.open(folder) as store:
        ghost = store.agent("ghost")
        assert ghost.cypher(COUNT) == []
        assert ghost.related("Alice") == []
        assert ghost.path("Alice", "Lyon") is None
        assert ghost.rebuild_graph() == elytron.GraphUsage()
    assert not folder.exists()


def test_usage_counts_the_graph_among_the_agents_bytes(folder):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save_many(texts(100))
        bob.cypher(COUNT)
        usage = bob.usage()
        assert usage.bytes.graph == usage.graph.bytes == graph_bytes(folder) > 0
        assert usage.bytes.total == disk_bytes(folder)
        assert usage.graph.engine == "ladybug"
        assert usage.graph.built_because == "there was none"


def test_ledger_and_graph_together_stay_within_the_limit_while_saving_goes_on(folder):
    limit_bytes = 6 * MB
    with elytron.open(
        folder, max_db_size_mb=6, wal_limit_mb=1, keep_messages=0, max_messages_per_agent=100_000
    ) as store:
        bob = store.agent("bob")
        asked = refused = 0
        for start in range(0, 6_000, 150):
            bob.save_many([{**text, "id": f"{start}-{text['id']}"} for text in texts(150)])
            assert disk_bytes(folder) <= limit_bytes
            try:
                (row,) = bob.cypher(COUNT)
                assert row["n"] == bob.usage().messages
                asked += 1
            except OverBudget:
                refused += 1
            assert disk_bytes(folder) <= limit_bytes
        at_rest(bob)  # what is moving is in both places
        usage = bob.usage()
        assert usage.messages + usage.archived == 6_000
    assert asked, "the graph was there for a while"
    assert refused, "and there was no room for it at the end"


def test_the_graph_goes_before_any_message_does(folder):
    with elytron.open(
        folder, max_db_size_mb=6, wal_limit_mb=1, keep_messages=0, max_messages_per_agent=100_000
    ) as store:
        bob = store.agent("bob")
        number = 0
        graph = graph_folder(folder) / "graph.ladybug"
        while not graph.exists():
            bob.save_many(texts(200))
            bob.cypher(COUNT)
        while graph.exists():
            assert bob.usage().archived == 0
            bob.save_many([{**text, "id": f"{number}-{text['id']}"} for text in texts(100)])
            number += 1
            assert number < 200
        assert bob.usage().archived == 0, "dropping it was enough"


def test_where_there_is_no_room_a_question_is_refused_and_nothing_is_lost(folder):
    with elytron.open(folder, max_db_size_mb=2, wal_limit_mb=0.5, keep_messages=0) as store:
        bob = store.agent("bob")
        bob.import_(texts(900))
        before = bob.usage()
        with pytest.raises(OverBudget, match="max_db_size_mb"):
            bob.cypher(COUNT)
        after = bob.usage()
        assert (after.messages, after.archived) == (before.messages, before.archived)
        assert graph_bytes(folder) < 64 * 1024
        bob.save("user", "One more", id="more")
        assert bob.get("more") is not None


TOTAL_MB = 26  # what two graphs and the beginning of a third have no room in


def test_the_stores_total_counts_graphs_too(folder):
    """The one that was asked longest ago goes, so that there is room for another."""
    with elytron.open(
        folder,
        max_total_mb=TOTAL_MB,
        wal_limit_mb=0.25,
        max_db_size_mb=20,
        reserve_mb=0,
        link_concepts=False,
    ) as store:
        alone(store)  # it would build one anew that has just gone
        names = ("alice", "bob", "carol")
        for name in names:
            agent = store.agent(name)
            agent.import_([{**text, "id": f"{name}-{text['id']}"} for text in texts(1_000)])
            assert agent.cypher(COUNT) == [{"n": 1_000}]
            assert sum(disk_bytes(folder, each) for each in store.agents()) <= TOTAL_MB * MB
        assert [name for name in names if graph_bytes(folder, name) > MB] == ["bob", "carol"]
        assert {store.agent(name).usage().messages for name in names} == {1_000}


def holds(folder: Path, text: str) -> list[str]:
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize(
    "erase",
    [
        lambda bob: bob.forget(user="alice"),
        lambda bob: bob.forget(session="s"),
        lambda bob: bob.clear(),
    ],
    ids=["user", "session", "all"],
)
def test_what_is_forgotten_is_forgotten_by_the_graph_too(
    folder, erase: Callable[[elytron.Agent], object]
):
    secret = "xylophonequartz"
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save("user", f"my word is {secret}", user="alice", session="s")
        bob.save("user", "good morning", user="carol", session="t")
        assert bob.cypher(COUNT) == [{"n": 2}]
    assert any("graph" in name for name in holds(graph_folder(folder), secret))
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        erase(bob)
        assert not holds(folder, secret)
        assert (
            bob.cypher("MATCH (m:Message) WHERE m.content CONTAINS $s RETURN m", {"s": secret})
            == []
        )
    assert not holds(folder, secret)


def test_a_check_finds_a_graph_that_was_damaged_and_repairs_it(folder):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save_many(texts(50))
        bob.cypher(COUNT)
    graph = graph_folder(folder) / "graph.ladybug"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 0xFF
    graph.write_bytes(data)
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        assert bob.cypher(COUNT) == [{"n": 50}]
        usage = bob.usage().graph
        assert usage.damaged == "damaged.ladybug"
        assert "damaged" in usage.built_because
        report = bob.check()
        assert not report.ok
        assert [finding.part for finding in report.findings] == ["graph"]
        assert bob.check(repair=True).ok
        assert bob.check().ok
        assert bob.cypher(COUNT) == [{"n": 50}]


def test_a_graph_that_there_is_no_room_to_bring_up_to_date_is_not_called_damaged(folder):
    with elytron.open(folder, max_db_size_mb=20, wal_limit_mb=0.5, keep_messages=0) as store:
        bob = store.agent("bob")
        bob.import_(texts(300))
        bob.cypher(COUNT)
        bob.import_([{**text, "id": f"later-{text['id']}"} for text in texts(300)])
    with elytron.open(
        folder, max_db_size_mb=2, wal_limit_mb=0.5, keep_messages=0, auto_cleanup=False
    ) as store:
        bob = store.agent("bob")
        assert bob.check(repair=True).findings == ()
        assert graph_bytes(folder) > 64 * 1024, "it is there still"
        with pytest.raises(OverBudget):
            bob.cypher(COUNT)


def test_a_check_finds_rows_that_the_graph_lacks(folder, monkeypatch):
    from elytron.graph import batches
    from elytron.graph.statements import Batch

    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save_many(texts(5))
        bob.cypher(COUNT)
        with monkeypatch.context() as patch:  # a page of changes that is passed over
            patch.setattr(batches, "changed", lambda *_: Batch())
            bob.save("user", "lost on the way")
            assert bob.cypher(COUNT) == [{"n": 5}]
        report = bob.check()
        assert [finding.part for finding in report.findings] == ["graph"]
        assert bob.check(repair=True).ok
        assert bob.cypher(COUNT) == [{"n": 6}]


def test_closing_the_store_ends_the_worker(folder):
    store = elytron.open(folder)
    bob = store.agent("bob")
    bob.save("user", "hello")
    bob.cypher(COUNT)
    pid = store.usage().worker.pid
    store.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(elytron.Closed):
        bob.cypher(COUNT)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"x": 2**63}, "64 bits"),
        ({"x": [1, "a"]}, "one kind"),
        ({"x": []}, "without a value"),
        ({"x": [None]}, "without a value"),
        ({"x": ...}, "ellipsis"),
        ({"x": "\ud800"}, "surrogate"),
        ({"x": {1: 2}}, "no string"),
        ({"a b": 1}, "letters"),
        ({1: 1}, "letters"),
        ([("x", 1)], "mapping"),
        ({f"x{n}": n for n in range(101)}, "at most 100"),
    ],
    ids=str,
)
def test_a_parameter_that_no_graph_takes_is_refused_by_its_name(folder, params, said):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save("user", "hello")
        with pytest.raises(elytron.InvalidArgument, match=said):
            bob.cypher("RETURN $x AS x", params)
        assert not graph_folder(folder).exists()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (7, "string"),
        ("RETURN '\ud800'", "surrogate"),
        ("x" * 20_001, "at most 20,000"),
        ("RETURN 1, 1", "two columns"),
        ("MATCH (m:Mesage) RETURN m", "Mesage does not exist"),
        ("MATCH (m:Message RETURN m", "line: 1, offset: 17"),
        ("CREATE (:User {id: 'x'})", "line 1, column 1"),
        ("MATCH (m:Message) RETURN m.id; MATCH (m) DELETE m", "one statement"),
        ("UNWIND range(1, 20000) AS x RETURN x", "max_query_rows"),
        ("UNWIND range(1, 5000) AS x RETURN repeat('abcdefgh', 1000) AS s", "max_result_mb"),
    ],
)
def test_a_query_that_is_wrong_is_told_with_its_place_or_its_limit(folder, query, said):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save("user", "hello")
        with pytest.raises(elytron.InvalidArgument, match=said):
            bob.cypher(query)
        assert bob.cypher(COUNT) == [{"n": 1}]


def test_a_query_that_fails_on_a_text_about_a_full_disk_harms_nobody(folder):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save("user", "write failed: No space left on device")
        for _ in range(2):
            with pytest.raises(elytron.InvalidArgument, match="Cast failed"):
                bob.cypher("MATCH (m:Message) RETURN cast(m.content AS INT64)")
        assert store.usage().worker.starts == 1
