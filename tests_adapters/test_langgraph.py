"""The store for LangGraph: beside LangGraph's own, and where that has nothing to compare."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

import elytron
from elytron.adapters.langgraph import ElytronStore
from elytron.adapters.langgraph_records import group
from programs import ROOT, documented, run_program

ALL = 1000


@pytest.fixture
def memory(bob: elytron.Agent) -> ElytronStore:
    return ElytronStore(bob)


def places(found: list[Any]) -> list[tuple[Any, ...]]:
    return [(item.namespace, item.key) for item in found]


# -- beside LangGraph's own

LABELS = st.sampled_from(["a", "b", "c", "*", "é ü"])
SPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["one", "two", "", "a.b", "drei\n"])
SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "red", "\0 \ud800"])
VALUES = st.dictionaries(
    st.sampled_from(["n", "colour", "deep"]),
    SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from("xy"), SCALARS),
)
NUMBERED = st.builds(lambda value, n: {**value, "n": n}, VALUES, st.integers(-2, 2))
OPERATORS = st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
FILTERS = (
    st.none()
    | st.dictionaries(
        st.just("n"),
        st.integers(-2, 2) | st.dictionaries(OPERATORS, st.integers(-2, 2), min_size=1),
    )
    | st.dictionaries(st.sampled_from(["colour", "deep"]), SCALARS | VALUES)
)
CONDITIONS = st.builds(
    MatchCondition,
    match_type=st.sampled_from(["prefix", "suffix"]),
    path=st.lists(LABELS, max_size=3).map(tuple),
)
OPS = st.one_of(
    st.tuples(SPACES, KEYS, NUMBERED | st.none()).map(lambda parts: PutOp(*parts)),
    st.tuples(SPACES, KEYS).map(lambda parts: GetOp(*parts)),
    st.tuples(
        st.lists(LABELS, max_size=2).map(tuple),
        FILTERS,
        st.integers(0, 4) | st.just(ALL),
        st.integers(0, 2),
    ).map(lambda parts: SearchOp(*parts)),
    st.tuples(
        st.none() | st.lists(CONDITIONS, max_size=2).map(tuple),
        st.none() | st.integers(1, 3),
        st.integers(0, 3) | st.just(ALL),
        st.integers(0, 2),
    ).map(lambda parts: ListNamespacesOp(*parts)),
)


def seen(item: Any) -> Any:
    return None if item is None else (item.namespace, item.key, item.value)


def whole(op: Any) -> Any:
    return op._replace(limit=ALL, offset=0)


@pytest.mark.parametrize("calls_max", [0, 50])
@settings(max_examples=60)
@given(batches=st.lists(st.lists(OPS, max_size=5), max_size=6))
def test_whatever_is_done_gives_what_the_store_of_langgraph_gives(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    calls_max: int,
    batches: list[list[Any]],
) -> None:
    """
    Two differences are meant: namespaces that hold nothing are not listed, and the order of a
    search without a query is by the last update, so parts of it are compared by their size.
    """
    monkeypatch.setattr("elytron.adapters.langgraph_held._CALLS_MAX", calls_max)
    with elytron.open(tmp_path_factory.mktemp("store")) as opened:
        ours, theirs = ElytronStore(opened.agent("Bob")), InMemoryStore()
        for ops in batches:
            held = {item.namespace for item in theirs.search((), limit=ALL)}
            found, expected = ours.batch(ops), theirs.batch(ops)
            for op, one, other in zip(ops, found, expected, strict=True):
                if isinstance(op, GetOp):
                    assert seen(one) == seen(other)
                elif isinstance(op, SearchOp):
                    assert len(one) == len(other)
                    if op.limit == ALL and not op.offset:
                        assert sorted(map(repr, map(seen, one))) == sorted(
                            map(repr, map(seen, other))
                        )
                elif isinstance(op, ListNamespacesOp):
                    prefixes = {ns[: op.max_depth] for ns in held}
                    other = [ns for ns in other if ns in prefixes]
                    assert op.limit != ALL or op.offset or one == other
            for op in ops:
                if isinstance(op, ListNamespacesOp | SearchOp):
                    (everything,) = ours.batch([whole(op)])
                    assert ours.batch([op]) == [everything[op.offset : op.offset + op.limit]]


def test_a_batch_reads_what_was_there_before_it_writes(memory: ElytronStore) -> None:
    memory.put(("a",), "k", {"n": 1})
    ops: list[Any] = [
        PutOp(("a",), "k", {"n": 2}),
        GetOp(("a",), "k"),
        PutOp(("a",), "k", {"n": 3}),
        SearchOp(("a",)),
        PutOp(("a",), "other", {"n": 4}),
        PutOp(("a",), "other", None),
    ]
    results = memory.batch(ops)
    assert results[1].value == {"n": 1}
    assert [item.value for item in results[3]] == [{"n": 1}]
    assert [results[at] for at in (0, 2, 4, 5)] == [None] * 4
    held = memory.get(("a",), "k")
    assert held is not None
    assert held.value == {"n": 3}
    assert memory.get(("a",), "other") is None


# -- items


def test_items_outlive_the_store(
    memory: ElytronStore, open_store: Callable[..., elytron.Store]
) -> None:
    value = {"text": "pizza \0 \ud800", "n": 0.1 + 0.2, "big": 10**40, "list": [None, {"x": []}]}
    memory.put(("users", "alice"), "food", value)
    again = ElytronStore(open_store().agent("Bob"))
    item = again.get(("users", "alice"), "food")
    assert item is not None
    assert item.value == value
    assert again.list_namespaces() == [("users", "alice")]


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (PutOp(("a.b",), "k", {}), InvalidNamespaceError),
        (PutOp(("",), "k", {}), InvalidNamespaceError),
        (GetOp(("a.b",), "k"), InvalidNamespaceError),
        (PutOp(("a",), "k", {"set": {1}}), elytron.InvalidArgument),
        (PutOp(("a",), "k", [1]), elytron.InvalidArgument),  # type: ignore[arg-type]
        (PutOp(("a",), 7, {}), elytron.InvalidArgument),  # type: ignore[arg-type]
        (PutOp(("a",), "k", {"huge": 10**5000}), elytron.InvalidArgument),
        (PutOp(("a",), "k", {}, ttl=float("nan")), elytron.InvalidArgument),
        (PutOp(("a",), "k", {}, ttl=-1), elytron.InvalidArgument),
        ("no operation", ValueError),
    ],
)
def test_of_a_batch_with_something_bad_in_it_nothing_is_written(
    memory: ElytronStore, bob: elytron.Agent, op: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        memory.batch([PutOp(("a",), "good", {}), op])
    assert not bob.exists()


def test_a_value_that_is_too_long_names_the_limit_and_not_the_value(memory: ElytronStore) -> None:
    with pytest.raises(elytron.InvalidArgument, match="max_message_kb") as caught:
        memory.put(("a",), "k", {"text": "secret" * 100_000})
    assert "secret" not in str(caught.value)
    assert memory.search(("a",)) == []


def test_odd_labels_and_keys_are_places_of_their_own(memory: ElytronStore) -> None:
    spaces = [("a",), ("a ",), (" a",), ("A",), ("a", "b"), ("a\n",), ("x" * 300,), ("#",), ("*",)]
    keys = ["k", "k ", " k", "", "K", "x" * 5000, "\0", "\ud800", "a.k"]
    for space in spaces:
        for key in keys:
            memory.put(space, key, {"stands": [*space, key]})
    for space in spaces:
        for key in keys:
            item = memory.get(space, key)
            assert item is not None
            assert item.value == {"stands": [*space, key]}
        own = [item for item in memory.search(space, limit=ALL) if item.namespace == space]
        assert len(own) == len(keys)
        if space != ("*",):
            hits = memory.search(space, query="stands", limit=ALL)
            assert {item.namespace[: len(space)] for item in hits} == {space}
    assert memory.list_namespaces() == sorted(spaces)
    assert len({group(space) for space in spaces}) == len(spaces)


def test_a_filter_on_what_is_no_number_fits_nothing(memory: ElytronStore) -> None:
    memory.put(("a",), "none", {})
    memory.put(("a",), "word", {"n": "many"})
    memory.put(("a",), "text", {"n": "3"})
    assert [item.key for item in memory.search(("a",), filter={"n": {"$gt": 1}})] == ["text"]
    assert memory.search(("a",), filter={"n": {"$gt": 10**400}}) == []
    with pytest.raises(ValueError, match=r"\$regex"):
        memory.search(("a",), filter={"n": {"$regex": "x"}})


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({"$gt": "2026-02-01"}, ["2026-03-01"]),
        ({"$gte": "2026-02-01", "$lt": "2026-03-01"}, ["2026-02-01"]),
        ({"$lte": "2026-02-01"}, ["2026-01-01", "2026-02-01"]),
        ({"$gt": 1}, []),
    ],
)
def test_a_filter_compares_texts_as_texts(
    memory: ElytronStore, wanted: dict[str, Any], keys: list[str]
) -> None:
    for day in ("2026-01-01", "2026-02-01", "2026-03-01"):
        memory.put(("a",), day, {"day": day})
    found = memory.search(("a",), filter={"day": wanted})
    assert sorted(item.key for item in found) == keys


# -- searching


def test_a_query_finds_by_words_best_first_within_the_namespace(memory: ElytronStore) -> None:
    memory.put(("users", "alice"), "food", {"text": "Alice likes pizza with olives"})
    memory.put(("users", "alice"), "place", {"text": "Alice lives in Lyon"})
    memory.put(("users", "bob"), "food", {"text": "Bob likes pizza"})
    memory.put(("docs",), "recipe", {"text": "How pizza is made"})
    found = memory.search(("users", "alice"), query="who likes pizza with olives?")
    assert found[0].key == "food"
    assert {item.namespace for item in found} == {("users", "alice")}
    assert found[0].score is not None
    assert {item.namespace for item in memory.search(("users",), query="pizza")} == {
        ("users", "alice"),
        ("users", "bob"),
    }
    assert len(memory.search((), query="pizza")) == 3
    assert memory.search(("users",), query="pizza", filter={"text": "Bob likes pizza"})[0].key
    assert memory.search(("users",), query="zeppelin") == []
    assert len(memory.search(("users",), query="  ")) == 3


def test_equal_items_are_all_found_and_paged_through(memory: ElytronStore) -> None:
    for number in range(130):
        memory.put((f"space{number}",), "same", {"text": "pizza"})
    for number in range(130):
        memory.put(("many",), str(number), {"text": "pizza"})
    assert len(memory.search((), query="pizza", limit=ALL)) == 260
    pages = [memory.search((), query="pizza", limit=50, offset=at) for at in range(0, 300, 50)]
    assert [len(page) for page in pages] == [50] * 5 + [10]
    assert len({place for page in pages for place in places(page)}) == 260


def test_a_filter_is_looked_for_behind_the_best(memory: ElytronStore) -> None:
    for number in range(200):
        memory.put(("a",), str(number), {"text": "pizza " * (1 + number % 3), "n": number})
    found = memory.search(("a",), query="pizza", filter={"n": {"$gte": 195}}, limit=5)
    assert sorted(item.value["n"] for item in found) == [195, 196, 197, 198, 199]


def test_only_the_fields_of_the_index_are_searched(bob: elytron.Agent) -> None:
    memory = ElytronStore(bob, index={"fields": ["text", "notes[*].body"]})
    value = {"text": "pizza", "secret": "olives", "notes": [{"body": "sushi"}, {"body": "ramen"}]}
    memory.put(("a",), "k", value)
    memory.put(("a",), "own", value, index=["secret"])
    memory.put(("a",), "not", value, index=False)
    memory.put(("a",), "all", value, index=["$"])
    memory.put(("a",), "nothing there", value, index=["absent"])

    def keys(query: str) -> set[str]:
        return {item.key for item in memory.search(("a",), query=query, limit=ALL)}

    assert keys("pizza") == {"k", "all"}
    assert keys("ramen") == {"k", "all"}
    assert keys("olives") == {"own", "all"}
    assert len(memory.search(("a",), limit=ALL)) == 5
    memory.put(("a",), "k", value, index=["secret"])
    memory.put(("a",), "own", value, index=False)
    memory.put(("a",), "not", value)
    memory.put(("a",), "all", {"text": "udon"})
    assert keys("pizza") == {"not"}
    assert keys("olives") == {"k"}
    assert keys("udon") == {"all"}
    for item in memory.search(("a",), limit=ALL):
        memory.delete(item.namespace, item.key)
    assert bob.memories(limit=ALL) == []


def by_meaning(texts: list[str]) -> list[list[float]]:
    """A made-up embedding in which what is eaten is near what is eaten."""
    food = ("pizza", "sushi", "eat", "dinner")
    return [[1.0, 0.1] if any(word in text for word in food) else [0.1, 1.0] for text in texts]


def test_with_an_embedder_a_query_finds_by_meaning(folder: Path) -> None:
    with ElytronStore.from_path(
        folder, index={"embed": by_meaning, "dims": 2, "fields": ["text"]}
    ) as memory:
        memory.put(("a",), "food", {"text": "Alice likes pizza"})
        memory.put(("a",), "place", {"text": "Alice lives in Lyon"})
        memory.agent.flush()
        found = memory.search(("a",), query="dinner")
        assert [item.key for item in found][:1] == ["food"]
    memory.close()


def test_what_the_index_and_the_ttl_do_not_have_is_refused(
    bob: elytron.Agent, folder: Path
) -> None:
    with pytest.raises(elytron.InvalidArgument, match="from_path"):
        ElytronStore(bob, index={"embed": by_meaning, "dims": 2})
    with pytest.raises(elytron.InvalidArgument, match="fields"):
        ElytronStore(bob, index={"field": ["a"]})
    with pytest.raises(elytron.InvalidArgument, match="default_ttl"):
        ElytronStore.from_path(folder, ttl={"minutes": 1})


# -- at the same time


def test_puts_and_deletes_at_the_same_time_leave_what_one_of_them_wrote(
    bob: elytron.Agent,
) -> None:
    """Eight threads, each with a store of its own as another process has, at four places."""
    together = threading.Barrier(8)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        memory = ElytronStore(bob, index={"fields": ["text"]})
        try:
            together.wait(30)
            for turn in range(30):
                place = (("a", str(turn % 2)), str(turn % 4))
                if (number + turn) % 5 == 0:
                    memory.delete(*place)
                else:
                    memory.put(*place, {"text": f"pizza {number} {turn}", "by": number})
        except BaseException as error:  # noqa: BLE001 - it is shown below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed
    memory = ElytronStore(bob)
    for turn in range(4):
        memory.put(("a", str(turn % 2)), str(turn), {"last": turn})
    assert sorted(item.value["last"] for item in memory.search(("a",), limit=ALL)) == [0, 1, 2, 3]
    assert memory.list_namespaces() == [("a", "0"), ("a", "1")]


def test_the_asynchronous_verbs_do_the_same(memory: ElytronStore) -> None:
    async def use() -> None:
        await asyncio.gather(*[memory.aput(("a",), str(n), {"n": n}) for n in range(50)])
        found = await asyncio.gather(*[memory.aget(("a",), str(n)) for n in range(50)])
        assert [item.value["n"] for item in found if item is not None] == list(range(50))
        assert len(await memory.asearch(("a",), limit=ALL)) == 50
        await memory.adelete(("a",), "7")
        assert await memory.alist_namespaces() == [("a",)]
        assert len(await memory.asearch(("a",), limit=ALL)) == 49

    asyncio.run(use())


def test_the_example_shows_that_the_memory_outlives_its_program(tmp_path: Path) -> None:
    printed = run_program(str(ROOT / "examples" / "langgraph_store.py"), cwd=tmp_path)
    assert "What is my favourite food? -> My favourite food is pizza." in printed


def test_the_documented_program_works_as_printed(tmp_path: Path) -> None:
    assert "pizza" in run_program("-c", documented("LangGraph"), cwd=tmp_path)
