"""The command line of memories, concepts and the graph: for people, for programs, when wrong."""

import contextlib
import json
import math
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

import elytron
from elytron.errors import DeadlineExceeded, GraphUnavailable, InvalidArgument
from elytron.faces import exits, graph_tables, graph_values, progress, usage_tables
from elytron.records import GraphUsage, Usage
from elytron.reports import WorkerUsage
from test_cli import Outcome, run

Run = Callable[..., Outcome]
AT = datetime(2026, 3, 2, 18, 4, 10, tzinfo=UTC)
HOSTILE = "\x1b]0;gone\x07[bold]red[/bold]\u202e"


def node(label: str, **properties: Any) -> dict[str, Any]:
    return {"_ID": {"offset": 1, "table": 2}, "_LABEL": label, **properties}


def printed(part: RenderableType, *, width: int = 80) -> str:
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(part)
    return captured.get()


@pytest.fixture
def elytron_command(folder: Path) -> Run:
    """`elytron` on the store in *folder*."""

    def command(*words: object, **more: Any) -> Outcome:
        return run(*words, store=folder, **more)

    return command


@pytest.fixture
def held(folder: Path, elytron_command: Run) -> Run:
    """The same, once bob knows of Alice, Lyon and Marc."""
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save("user", "Alice lives in Lyon.", session="web", user="alice", at=AT, id="m1")
        bob.save("assistant", "Noted: Lyon.", session="web", at=AT + timedelta(minutes=1), id="m2")
        bob.remember("Alice prefers Python", about=["Alice", "Python"], importance=0.8, id="k1")
        bob.relate("Alice", "lives in", "Lyon")
        bob.relate("Marc", "works in", "Lyon")
        bob.flush()
    return elytron_command


# -- values in a cell, and for programs


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "true"),
        (7, "7"),
        (0.1 + 0.2, "0.3"),
        (1e-9, "1e-09"),
        (math.nan, "nan"),
        (Decimal("12.50"), "12.50"),
        ("it's text\nof two lines", "it's text of two lines"),
        (AT, "2026-03-02 18:04:10"),
        (date(2026, 3, 2), "2026-03-02"),
        (timedelta(seconds=90), "0:01:30"),
        (b"\x00\xff", "00ff"),
        ([1, None, "a", ["b"]], "[1, null, 'a', ['b']]"),
        ({"a": 1, "b": {"c": "d"}}, "{a: 1, b: {c: 'd'}}"),
    ],
)
def test_a_value_is_shown_in_words(value, shown):
    assert graph_values.words(value, limit=100) == shown


def test_a_node_is_shown_as_cypher_writes_it_without_what_is_not_set():
    lyon = node("Concept", name="Lyon", key=4, type=None, confidence=1.0)
    assert graph_values.words(lyon, limit=100) == "(:Concept {name: 'Lyon', confidence: 1})"
    assert graph_values.words(node("Concept", key=4), limit=100) == "(:Concept)"


def test_a_relation_and_a_path_are_shown_as_cypher_writes_them():
    ends = {"_SRC": {"offset": 1, "table": 2}, "_DST": {"offset": 2, "table": 2}}
    lives = {**node("RELATES_TO", relation="lives in", key=9), **ends}
    assert graph_values.words(lives, limit=100) == "[:RELATES_TO {relation: 'lives in'}]"
    nodes = [node("Concept", name="Alice"), node("Concept", name="Lyon")]
    path = {"_NODES": nodes, "_RELS": [lives]}
    assert graph_values.words(path, limit=200) == (
        "(:Concept {name: 'Alice'})-[:RELATES_TO {relation: 'lives in'}]-(:Concept {name: 'Lyon'})"
    )


def test_the_small_names_of_the_other_engine_are_understood_too():
    lyon = {"_id": {"offset": 1, "table": 2}, "_label": "Concept", "name": "Lyon"}
    assert graph_values.words(lyon, limit=100) == "(:Concept {name: 'Lyon'})"


def test_a_long_or_deep_value_does_not_flood_a_cell():
    assert graph_values.words("x" * 1000, limit=10) == "xxxxxxxxxx… (990 more characters)"
    assert graph_values.words(list(range(1000)), limit=10_000).endswith("99, …]")
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    assert len(graph_values.words(deep, limit=10_000)) < 30


def test_values_for_programs_are_what_json_knows():
    row = {
        "at": AT,
        "day": date(2026, 3, 2),
        "took": timedelta(seconds=90),
        "raw": b"\x00\xff",
        "odd": [math.nan, -math.inf, 0.5, Decimal("1.5")],
        "node": node("Concept", name="Lyon"),
        "map": {1: True},
    }
    assert json.loads(json.dumps(graph_values.plain(row), allow_nan=False)) == {
        "at": "2026-03-02T18:04:10+00:00",
        "day": "2026-03-02",
        "took": 90.0,
        "raw": "00ff",
        "odd": ["nan", "-inf", 0.5, "1.5"],
        "node": node("Concept", name="Lyon"),
        "map": {"1": True},
    }


def test_a_table_of_rows_puts_numbers_on_the_right_and_obeys_no_text():
    found = [{"name": HOSTILE, "n": 1}, {"name": "Lyon", "n": 1000}, {"name": None, "n": None}]
    shown = printed(graph_tables.rows(found, text_max=100))
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[2].endswith("    1")
    assert lines[3].endswith(" 1000")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[bold]red[/bold]" in shown


# -- memories, concepts, relations


def test_what_is_remembered_is_found_again(elytron_command, folder):
    saved = elytron_command(
        "remember", "bob", "Alice prefers Python", "--about", "Alice", "--about", "Python",
        "--importance", "0.8", "--kind", "preference", "--id", "k1", "--pin", "--session", "web",
        "--valid-from", "2026-01-01T00:00+01:00", "--metadata", '{"by": "shell"}',
    )  # fmt: skip
    assert (saved.code, saved.out, saved.err) == (0, "remembered k1\n", "")
    (memory,) = elytron_command("memories", "bob", "--json").document
    assert memory["content"] == "Alice prefers Python"
    assert sorted(memory["about"]) == ["Alice", "Python"]
    assert (memory["kind"], memory["importance"], memory["pinned"]) == ("preference", 0.8, True)
    assert (memory["session"], memory["metadata"]) == ("web", {"by": "shell"})
    assert datetime.fromisoformat(memory["valid_from"]) == datetime.fromisoformat(
        "2026-01-01T00:00+01:00"
    )
    shown = elytron_command("memories", "bob", "which language?", "--ids").out
    shown = shown or elytron_command("memories", "bob", "Python", "--ids").out
    assert "about Alice, Python" in shown
    assert "pinned" in shown
    assert "id k1" in shown


def test_remembering_the_same_id_again_says_that_it_is_held(held):
    again = held("remember", "bob", "Alice prefers Python", "--about", "Alice", "--about",
                 "Python", "--importance", "0.8", "--id", "k1")  # fmt: skip
    assert (again.code, again.out) == (0, "held already: k1\n")


def test_a_memory_comes_from_stdin_without_its_last_newline(elytron_command):
    elytron_command("remember", "bob", "-", stdin="two\nlines\n")
    assert elytron_command("memories", "bob", "--json").document[0]["content"] == "two\nlines"


def test_what_is_replaced_is_still_found_in_the_past(held):
    new = ("remember", "bob", "Alice prefers Rust", "--about", "Alice", "--id", "k2")
    assert held(*new, "--valid-from", "2026-06-01T00:00+02:00", "--replaces", "k1").code == 0
    in_may = held("memories", "bob", "--as-of", "2026-05-01", "--json").document
    in_july = held("memories", "bob", "--as-of", "2026-07-01", "--json").document
    assert [memory["id"] for memory in in_may] == ["k1"]
    assert [memory["id"] for memory in in_july] == ["k2"]


def test_memories_are_paged_back_by_the_id_of_the_last_one(held):
    held("remember", "bob", "Alice likes tea", "--id", "k2")
    older = held("memories", "bob", "--before", "k2", "--json").document
    assert [memory["id"] for memory in older] == ["k1"]
    assert held("memories", "bob", "--before", "k1").err == "nothing is remembered\n"
    refused = held("memories", "bob", "tea", "--before", "k2")
    assert (refused.code, refused.out) == (2, "")
    assert "leave it out with a question" in refused.err


def test_a_memory_is_deleted_by_its_id(held):
    assert held("delete", "bob", "--memory", "k1").out == "deleted 1 memory\n"
    gone = held("delete", "bob", "--memory", "k1")
    assert (gone.code, gone.out) == (3, "")
    assert held("memories", "bob").err == "nothing is remembered\n"
    assert held("delete", "bob", "m1", "--memory", "k1").code == 2


def test_a_relation_is_shown_until_it_is_closed_and_then_in_the_past(held):
    assert held("relate", "bob", "Alice", "works at", "Isohypse").out == (
        "related: Alice works at Isohypse\n"
    )
    shown = held("relations", "bob", "Alice").out
    assert "lives in" in shown
    assert "Isohypse" in shown
    assert "Marc" not in shown
    before = datetime.now(UTC).isoformat()
    assert held("unrelate", "bob", "Alice", "works at").out == "closed 1 relation\n"
    now = held("relations", "bob", "Alice", "--json").document
    assert [fact["relation"] for fact in now] == ["lives in"]
    then = held("relations", "bob", "Alice", "--as-of", before, "--json").document
    assert {fact["relation"] for fact in then} == {"lives in", "works at"}


def test_closing_what_does_not_hold_ends_with_3(held):
    refused = held("unrelate", "bob", "Alice", "works at")
    assert refused.code == 3
    assert refused.err == "elytron: no relation 'Alice' 'works at' holds; nothing was changed\n"


def test_a_relation_replaces_the_other_targets(held):
    held("relate", "bob", "Alice", "lives in", "Paris", "--replaces", "--strength", "0.5")
    (fact,) = held("relations", "bob", "Alice", "--json").document
    assert (fact["target"], fact["strength"]) == ("Paris", 0.5)


def test_concepts_are_listed_with_what_is_known_of_them(held):
    named = {concept["name"]: concept for concept in held("concepts", "bob", "--json").document}
    assert {"Alice", "Lyon", "Marc", "Python"} <= named.keys()
    assert named["Lyon"]["mentions"] == 2
    assert named["Alice"]["origin"] == "told"
    assert "Lyon" in held("concepts", "bob").out
    assert "Marc" not in held("concepts", "bob", "lyo").out
    assert "Alice" not in held("concepts", "bob", "--origin", "proposed").out


def test_a_concept_is_shown_with_where_it_occurs(held):
    shown = held("concept", "bob", "alice").out
    for part in ("Alice", "lives in", "Alice prefers Python", "Alice lives in Lyon."):
        assert part in shown
    details = held("concept", "bob", "Lyon", "--json").document
    assert details["concept"]["name"] == "Lyon"
    assert {message["id"] for message in details["examples"]} == {"m1", "m2"}
    assert {fact["source"] for fact in details["relations"]} == {"Alice", "Marc"}


def test_a_concept_that_is_missing_ends_with_3_and_names_those_that_come_near(held):
    missing = held("concept", "bob", "Alise")
    assert missing.code == 3
    assert "no concept is called 'Alise'; did you mean 'Alice'?" in missing.err
    few = held("concept", "bob", "Alise", "--set", "max_query_rows=9")
    assert (few.code, few.err) == (3, missing.err)


def test_a_concept_is_changed_and_deleted(held):
    changed = held("concept", "bob", "lyon", "--type", "place", "--rename", "Lugdunum", "--json")
    assert changed.document["concept"]["name"] == "Lugdunum"
    assert changed.document["concept"]["type"] == "place"
    refused = held("concept", "bob", "Lugdunum", "--delete", "--type", "x")
    assert refused.code == 2
    assert held("concept", "bob", "Lugdunum", "--delete").out == "deleted Lugdunum\n"
    assert held("concept", "bob", "Lugdunum").code == 3


def test_a_proposed_concept_is_confirmed(elytron_command):
    for place in ("the island of", "a trip to", "all about"):
        elytron_command("save", "bob", "user", f"Tell me of {place} Zanzibar, please.")
    proposed = elytron_command("concepts", "bob", "--origin", "proposed", "--json").document
    assert [concept["name"] for concept in proposed] == ["Zanzibar"]
    confirmed = elytron_command("concept", "bob", "zanzibar", "--confirm", "--json").document
    assert confirmed["concept"]["origin"] == "told"


def test_reading_commands_make_nothing_on_disk(elytron_command, folder):
    for words in (
        ("memories", "bob"), ("relations", "bob"), ("concepts", "bob"), ("concept", "bob", "x"),
        ("unrelate", "bob", "x"), ("related", "bob", "x"), ("path", "bob", "x", "y"),
        ("cypher", "bob", "RETURN 1"), ("graph", "bob"),
    ):  # fmt: skip
        refused = elytron_command(*words)
        assert refused.code == 3, words
        assert not folder.exists()


# -- asking the graph


def test_what_is_near_a_concept_is_shown_the_nearest_first(held):
    found = held("related", "bob", "alice", "--depth", "2", "--json").document
    by_name = {near["name"]: near for near in found}
    assert (by_name["Lyon"]["depth"], by_name["Lyon"]["relation"]) == (1, "lives in")
    assert (by_name["Marc"]["depth"], by_name["Marc"]["relation"]) == (2, "works in")
    assert "works in" in held("related", "bob", "alice").out


def test_an_unknown_name_is_no_error_and_gets_a_hint(held):
    unknown = held("related", "bob", "Alise")
    assert (unknown.code, unknown.out) == (0, "")
    assert unknown.err == "no concept is called 'Alise'; did you mean 'Alice'?\n"


def test_the_way_between_two_concepts_is_shown_step_by_step(held):
    way = held("path", "bob", "Alice", "Marc", "--json").document
    assert [(step["source"], step["relation"], step["target"]) for step in way] == [
        ("Alice", "lives in", "Lyon"),
        ("Marc", "works in", "Lyon"),
    ]
    assert "works in" in held("path", "bob", "Alice", "Marc").out
    assert held("path", "bob", "Alice", "Python", "--json").document is None
    assert "no way from 'Alice' to 'Python'" in held("path", "bob", "Alice", "Python").err
    assert "the same concept" in held("path", "bob", "Alice", "alice").err


def test_a_query_is_shown_as_a_table_and_given_to_programs_as_rows(held):
    query = "MATCH (m:Message)-[:MENTIONS]->(c:Concept {name: $name}) RETURN m.id AS id, m.at AS at"
    asked = ("cypher", "bob", f"{query} ORDER BY id", "--param", "name=Lyon")
    assert held(*asked).out.splitlines() == [
        "id   at",
        "─" * 24,
        "m1   2026-03-02 18:04:10",
        "m2   2026-03-02 18:05:10",
    ]
    assert held(*asked, "--json").document == [
        {"id": "m1", "at": "2026-03-02T18:04:10+00:00"},
        {"id": "m2", "at": "2026-03-02T18:05:10+00:00"},
    ]


def test_parameters_are_json_where_they_can_be(held):
    asked = held(
        "cypher", "bob", "RETURN $a AS a, $b AS b, $c AS c, $d AS d, $e AS e", "--json",
        "--param", "a=3", "--param", "b=[1, 2]", "--param", "c=2026-03-01", "--param", 'd="3"',
        "--param", "e=NaN",
    )  # fmt: skip
    expected = {"a": 3, "b": [1, 2], "c": "2026-03-01", "d": "3", "e": "NaN"}
    assert asked.document == [expected]


def test_a_query_comes_from_stdin_and_no_row_is_no_error(held):
    asked = held("cypher", "bob", "-", stdin="MATCH (c:Concept {name: 'x'})\nRETURN c\n")
    assert (asked.code, asked.out, asked.err) == (0, "", "no rows\n")


def test_a_node_in_a_cell_is_readable(held):
    shown = held("cypher", "bob", "MATCH (c:Concept {name: 'Lyon'}) RETURN c", COLUMNS="120").out
    assert "(:Concept {name: 'Lyon'" in shown
    assert "offset" not in shown


def test_a_wrong_query_shows_its_place_under_the_engine_s_words(held):
    wrong = held("cypher", "bob", "MATCH (m:Message RETURN m")
    assert (wrong.code, wrong.out) == (2, "")
    *_, line, marks = wrong.err.splitlines()
    assert line.lstrip().startswith('"MATCH (m:Message RETURN m')
    assert line[marks.index("^") :].startswith("RETURN")
    for_programs = held("cypher", "bob", "MATCH (m:Message RETURN m", "--json").err.splitlines()
    assert json.loads(for_programs[-1])["error"] == "invalid-argument"


@pytest.mark.parametrize(
    "query",
    [
        "CREATE (:Concept {name: 'x'})",
        "MATCH (c:Concept) DELETE c",
        "COPY (MATCH (m:Message) RETURN m) TO 'stolen.csv'",
        "MATCH (m:Message) RETURN m; MATCH (m:Message) RETURN m",
    ],
)
def test_a_query_that_writes_ends_with_2_and_changes_nothing(held, query):
    refused = held("cypher", "bob", query)
    assert (refused.code, refused.out) == (2, "")
    count = held("cypher", "bob", "MATCH (c:Concept) RETURN count(c) AS n", "--json")
    assert count.document == [{"n": len(held("concepts", "bob", "--json").document)}]


def test_a_query_that_runs_away_ends_with_12_and_the_next_is_answered(held):
    runaway = "UNWIND range(1, 1000000000) AS x RETURN sum(x)"
    assert held("cypher", "bob", runaway, "--timeout", "0.5").code == 12
    assert held("cypher", "bob", "RETURN 1 AS one", "--json").document == [{"one": 1}]


def test_a_query_with_too_many_rows_ends_with_2_and_names_the_setting(held):
    many = held("cypher", "bob", "UNWIND range(1, 50) AS x RETURN x", "--set", "max_query_rows=10")
    assert many.code == 2
    assert "max_query_rows" in many.err


def test_the_graph_says_what_it_is_and_is_rebuilt(held):
    assert held("graph", "bob").out == "no graph: it is made when it is first asked\n"
    held("cypher", "bob", "RETURN 1")
    state = held("graph", "bob", "--json").document
    assert state["engine"] == "ladybug"
    assert state["bytes"] > 0
    assert state["position"] > 0
    assert held("graph", "bob", "--rebuild").code == 0
    again = held("graph", "bob", "--json").document
    assert again["built_at"] > state["built_at"]
    assert again["built_because"] != state["built_because"]
    assert "ladybug" in held("graph", "bob").out
    assert "ladybug" in held("usage", "bob").out


# -- errors, progress, usage


@pytest.mark.parametrize(
    ("error", "code"),
    [(GraphUnavailable("no engine"), 11), (DeadlineExceeded("took too long"), 12)],
)
def test_an_error_of_the_graph_has_an_exit_code_of_its_own(error, code, capsys):
    def fail() -> None:
        raise error

    assert exits.run(fail, as_json=False) == code
    assert capsys.readouterr().err == f"elytron: {error}\n"


def test_marks_stay_under_their_place_and_other_errors_stay_on_one_line(capsys):
    def told(message: str) -> str:
        def fail() -> None:
            raise InvalidArgument(message)

        exits.run(fail, as_json=False)
        return capsys.readouterr().err

    assert told('bad\n"\tx = = 1"\n       ^') == 'elytron: bad\n" x = = 1"\n       ^\n'
    assert told("two\nlines ^") == "elytron: two lines ^\n"
    assert told("of YAML:\n    b: }\n       ^") == "elytron: of YAML: b: } ^\n"
    assert told('a\n"\x1b[2J"\n ^') == 'elytron: a\n"\\x1b[2J"\n ^\n'


def test_a_bar_comes_only_where_a_question_lasts(bob, monkeypatch):
    begun, labels = threading.Event(), []

    @contextlib.contextmanager
    def bar(_memory: elytron.Agent, doing: str, *, silent: bool) -> Iterator[None]:
        labels.append((doing, silent))
        begun.set()
        yield

    monkeypatch.setattr(progress, "stepping", bar)
    monkeypatch.setattr(progress, "_PATIENCE_S", 3600.0)
    with progress.waiting(bob, "asking", silent=False):
        pass  # over at once: the rest of the hour is not waited for
    monkeypatch.setattr(progress, "_PATIENCE_S", 0.0)
    with progress.waiting(bob, "asking", silent=True):
        pass
    assert not labels
    with progress.waiting(bob, "asking", silent=False):
        assert begun.wait(60)
    assert labels == [("asking", False)]


def test_usage_tells_of_the_worker_and_what_was_set_aside():
    graph = GraphUsage(4096, "ladybug", 7, AT, "first question", "damaged.ladybug")
    shown = printed(usage_tables.details(Usage("bob", 1, graph=graph), archive_limit_bytes=1))
    assert "first question" in shown
    assert "damaged.ladybug was set aside" in " ".join(shown.split())
    running = WorkerUsage(True, 42, 1 << 20, 2, 1, None, "0.22.0")
    assert "worker 42: 2 graphs open, 1.0 MB" in usage_tables.worker(running).plain
    ended = WorkerUsage(False, None, 0, 0, 3, "killed by signal 11", None)
    assert "killed by signal 11" in usage_tables.worker(ended).plain
