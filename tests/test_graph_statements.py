"""What the projection decides, without a graph: statements, what was touched, building anew."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from elytron import InvalidArgument
from elytron.graph import batches, questions
from elytron.graph.batches import touched
from elytron.graph.projection import agree, why_rebuild
from elytron.graph.statements import ROWS_MAX, Batch, Edge, schema, statements, time_text
from elytron.graph.wire import GraphState
from elytron.ledger.feeds import ConceptRow, MemoryRow, MessageRow, Place
from elytron.ledger.schema import (
    CONCEPT,
    DELETE,
    EDIT,
    LINK,
    MEMORY,
    MESSAGE,
    RELATION,
    SAVE,
    SESSION,
    TOLD,
    USER,
)

ENGINES = pytest.mark.parametrize("engine", ["ladybug", "kuzu"])
KEYS = some.integers(1, 12)
CHANGES = some.lists(
    some.tuples(
        some.sampled_from([SAVE, EDIT, DELETE, LINK]),
        some.sampled_from([MESSAGE, SESSION, USER, MEMORY, CONCEPT, RELATION]),
        KEYS,
    )
).map(lambda found: [(20 + n, *change) for n, change in enumerate(found)])
EDGES = {
    "sent": (),
    "part_of": (1,),
    "responds_to": (1.5,),
    "message_mentions": (1.0,),
    "memory_mentions": (1.0,),
    "relates_to": (1, "likes", 0.5, None, None),
    "learned_in": (),
}
STATE = GraphState(90, "ours", 1000, 0, 3, 4096, None)


def batch_of(count: int) -> Batch:
    """*count* of everything that a batch can have."""
    keys = list(range(1, count + 1))
    tables = ("User", "Session", "Message", "Memory", "Concept")
    return Batch(
        gone=dict.fromkeys(tables, keys),
        gone_relations=keys,
        unlinked={"Message": keys, "Memory": keys},
        users=[Place(key, f"u{key}", key) for key in keys],
        sessions=[Place(key, f"s{key}", key) for key in keys],
        messages=[
            MessageRow(key, f"m{key}", "user", "text", key, 1, "s1", key, None, None, None)
            for key in keys
        ],
        memories=[
            MemoryRow(key, f"y{key}", "text", "fact", 0.5, False, None, None, None, key, None)
            for key in keys
        ],
        concepts=[ConceptRow(key, f"c{key}", f"c{key}", None, None, 1.0, TOLD) for key in keys],
        edges={name: [Edge("a", "b", values)] * count for name, values in EDGES.items()},
    )


@ENGINES
def test_no_statement_is_empty_or_has_too_many_rows(engine: str):
    for count in (0, 1, ROWS_MAX, ROWS_MAX + 1):
        for statement in statements(batch_of(count), engine):
            for name in ("rows", "keys", "names"):
                assert 0 < len(statement.params.get(name, [None])) <= ROWS_MAX


@ENGINES
def test_texts_are_constants_that_do_not_grow_in_number(engine: str):
    texts = {statement.text for statement in statements(batch_of(1), engine)}
    many = {statement.text for statement in statements(batch_of(ROWS_MAX + 1), engine)}
    assert texts == many
    assert len(texts) == len(set(texts)) < 30


@ENGINES
def test_all_is_removed_before_anything_is_made_and_nodes_before_their_relations(engine: str):
    order = []
    for statement in statements(batch_of(2), engine):
        removes, links = "DELETE" in statement.text, "]->(b)" in statement.text
        order.append(0 if removes else 2 if links else 1)
    assert order == sorted(order)
    assert set(order) == {0, 1, 2}


@ENGINES
def test_what_varies_is_nowhere_but_in_the_parameters(engine: str):
    said = "'); MATCH (n) DETACH DELETE n; //"
    row = MessageRow(1, said, said, said, 1, 1, said, 1, said, None, said)
    batch = Batch(messages=[row], edges={"sent": [Edge(said, said)]})
    assert not [found for found in statements(batch, engine) if said in found.text]


def test_what_a_batch_adds_is_counted_as_it_is_made():
    batch = batch_of(3)
    made = 0
    for statement in statements(batch, "ladybug"):
        made += len(statement.params.get("rows", ()))
    assert batch.added == made == 3 * (5 + len(EDGES))
    assert Batch().added == Batch().removed == Batch().growth_bytes("ladybug") == 0


def test_a_graph_has_a_table_for_each_kind_of_node_and_relation():
    texts = [statement.text for statement in schema()]
    names = {text.split("TABLE ")[1].partition("(")[0] for text in texts}
    assert names == {
        "User", "Session", "Message", "Memory", "Concept",
        "SENT", "PART_OF", "RESPONDS_TO", "MENTIONS", "RELATES_TO", "LEARNED_IN",
    }  # fmt: skip
    assert len(texts) == len(names)


@given(at=some.datetimes(min_value=datetime(1970, 1, 1), timezones=some.just(UTC)))  # noqa: DTZ001
def test_a_time_is_written_in_utc_to_the_microsecond(at: datetime):
    at_us = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    text = time_text(at_us)
    assert text is not None
    assert datetime.fromisoformat(text).replace(tzinfo=UTC) == at
    assert time_text(None) is None


@given(changes=CHANGES, position=KEYS)
def test_each_change_is_about_what_is_removed_made_or_linked(changes: Any, position: int):
    found = touched(changes, position)
    for kind in (MESSAGE, SESSION, USER, MEMORY, CONCEPT, RELATION):
        about = {key for _, op, of, key in changes if of == kind and op != LINK}
        linked = {key for _, op, of, key in changes if of == kind and op == LINK}
        old, new = found.old.get(kind, set()), found.new.get(kind, set())
        assert old == {key for key in about if key <= position}
        assert new == {key for key in about if key > position}
        # What is made is linked with that; what came later has a change of its own.
        assert found.linked.get(kind, set()) == {
            key for key in linked if key <= position and key not in about
        }


@pytest.mark.parametrize(
    ("changed", "latest", "complete", "why"),
    [
        ({}, 90, True, None),
        ({}, 5000, True, None),
        ({"set_aside": "its checksum"}, 90, True, "the file was damaged: its checksum"),
        ({"position": None}, 90, True, "there was none"),
        ({"identity": "theirs"}, 90, True, "it was of another ledger, engine or version"),
        ({}, 89, True, "the ledger is older than the graph"),
        ({}, 90, False, "more changed than `change_max`"),
        ({"live": 400, "dead": 499}, 90, True, None),
        ({"live": 400, "dead": 500}, 90, True, "500 of 900 rows were dead"),
        ({"live": 7500, "dead": 2500}, 90, True, None),
        ({"live": 7500, "dead": 2501}, 90, True, "2501 of 10001 rows were dead"),
        ({"checkpoints": 399}, 90, True, None),
        ({"checkpoints": 400}, 90, True, "it had 400 checkpoints"),
    ],
)
def test_a_graph_is_built_anew_only_for_a_reason(
    changed: dict[str, Any], latest: int, complete: bool, why: str | None
):
    state = STATE._replace(**changed)
    assert why_rebuild(state, identity="ours", latest=latest, complete=complete) == why


ROWS = some.dictionaries(some.integers(1, 60), some.sampled_from("abc"), max_size=60)


def newest(rows: dict[int, str]) -> list[tuple[int, str]]:
    return sorted(rows.items(), reverse=True)[:32]


@given(ledger=ROWS, changes=ROWS, gone=some.sets(some.integers(1, 60)))
def test_a_graph_of_the_ledgers_own_past_agrees_with_it(
    ledger: dict[int, str], changes: dict[int, str], gone: set[int]
):
    """Whatever changed since, as long as that is known."""
    now = {key: name for key, name in (ledger | changes).items() if key not in gone}
    assert agree(newest(ledger), newest(now), changes.keys() | gone)


@given(ledger=ROWS.filter(bool), data=some.data())
def test_a_graph_whose_newest_rows_are_others_does_not_agree(ledger: dict[int, str], data: Any):
    key = data.draw(some.sampled_from([key for key, _ in newest(ledger)]))
    assert not agree(newest(ledger | {key: "other"}), newest(ledger), set())
    if len(ledger) < 32:
        less = {other: name for other, name in ledger.items() if other != key}
        assert not agree(newest(less), newest(ledger), set())
        assert not agree(newest(ledger), newest(less), set())


@pytest.mark.parametrize("depth", [0, -1, 7, 1.0, True, "2", None])
def test_a_depth_out_of_range_is_refused_with_its_range(depth: Any):
    with pytest.raises(InvalidArgument, match="depth must be a whole number from 1 to 6"):
        questions.check_depth(depth, "depth", questions.DEPTH_MAX)
    assert questions.check_depth(6, "depth", questions.DEPTH_MAX) == 6


def test_a_page_of_rows_is_cut_at_its_text():
    weights = dict.fromkeys(range(1, 6), 3 << 20)
    assert batches._within([1, 2, 3], weights) == [1]
    assert batches._within([1], weights) == [1]
    assert batches._within([1, 2, 3], {1: 1 << 20, 2: 3 << 20, 3: 1}) == [1, 2]
