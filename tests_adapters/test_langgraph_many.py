"""The store for LangGraph: more namespaces, and more items of one, than are read at once."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from langgraph.store.base import ListNamespacesOp, MatchCondition, SearchOp

import elytron
from elytron.adapters.langgraph import ElytronStore
from elytron.adapters.langgraph_records import Record, group, listed, parts, remembered

ALL = 1000
WHEN = datetime(2026, 11, 1, tzinfo=UTC)


def places(found: list[Any]) -> list[tuple[Any, ...]]:
    return [(item.namespace, item.key) for item in found]


def test_a_namespace_may_have_more_items_than_are_read_at_once(bob: elytron.Agent) -> None:
    memory = ElytronStore(bob, rows_max=5)
    for number in range(12):
        memory.put(("a",), str(number), {"n": number})
    found = memory.search(("a",), limit=ALL)
    assert {item.value["n"] for item in found} == set(range(12))
    pages = [memory.search(("a",), limit=5, offset=at) for at in range(0, 15, 5)]
    assert [place for page in pages for place in places(page)] == places(found)


@pytest.mark.parametrize("together_max", [0, 50_000])
def test_there_may_be_more_namespaces_than_can_be_read_at_once(
    bob: elytron.Agent, together_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed in parts: they are read one by one, or together where there are few memories."""
    monkeypatch.setattr("elytron.adapters.langgraph_held._AMONG_MAX", together_max)
    memory = ElytronStore(bob, rows_max=20)
    users = [("memories", f"user{number}") for number in range(60)]
    spaces = [*users, ("memories", "user59", "deep"), ("alone",)]
    for space in spaces:
        memory.put(space, "k", {"text": "pizza", "of": space[-1]})
    again = ElytronStore(bob, rows_max=20)
    assert again.list_namespaces(limit=ALL) == sorted(spaces)
    assert len(again.search((), limit=ALL)) == len(spaces)
    assert {item.namespace for item in again.search(("memories", "user59"))} == {
        ("memories", "user59"),
        ("memories", "user59", "deep"),
    }
    assert places(again.search(("alone",), query="pizza")) == [(("alone",), "k")]
    for space in spaces:
        again.delete(space, "k")
    assert again.list_namespaces(limit=ALL) == []
    assert [one.metadata["namespace"] for one in bob.memories(limit=ALL)] == ["[]"]


def test_every_namespace_is_listed_where_a_search_for_its_beginning_looks() -> None:
    spaces = [tuple("ab"[number >> at & 1] for at in range(4)) for number in range(16)]
    for space in [space[:length] for space in spaces for length in (1, 2, 3, 4)]:
        listing = listed(space, spread=True)["session"]
        for length in range(len(space) + 1):
            assert listing in parts(space[:length])
    two = {listed(("memories", str(number)), spread=True)["session"] for number in range(5000)}
    assert two == set(parts(()))


def test_what_was_listed_by_one_store_is_listed_in_parts_by_the_next(bob: elytron.Agent) -> None:
    """The list that a store had before there were parts of it, with as much as it can show."""
    for number in range(19):
        bob.remember(**listed((f"old{number}",)))
        bob.remember(
            **remembered(Record((f"old{number}",), "k", {}, WHEN, WHEN, None, None), expires=None)
        )
    memory = ElytronStore(bob, rows_max=21)
    for number in range(5):
        memory.put((f"new{number}",), "k", {})
    assert len(memory.list_namespaces(limit=ALL)) == 24
    assert len(memory.search((), limit=ALL)) == 24


def test_a_list_of_namespaces_may_be_longer_than_what_is_read_at_once(bob: elytron.Agent) -> None:
    for number in range(20):
        bob.remember(**listed((f"old{number}",)))
    memory = ElytronStore(bob, rows_max=20)
    assert memory.list_namespaces() == []
    memory.put(("old7",), "k", {})
    assert memory.list_namespaces() == [("old7",)]
    assert places(memory.search(())) == [(("old7",), "k")]


class Counting:
    """An agent that notes what it is asked."""

    def __init__(self, agent: elytron.Agent) -> None:
        self.agent = agent
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.agent, name)

        def ask(*given: Any, **named: Any) -> Any:
            self.asked.append(name)
            return verb(*given, **named)

        return ask


def test_what_looks_into_many_namespaces_takes_few_calls_and_finds_the_same(
    bob: elytron.Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        value = {"text": "pizza", "n": number % 7}
        ElytronStore(bob).put(("memories" if number % 3 else "notes", f"{number}"), "k", value)
    counting: Any = Counting(bob)
    bob.remember("pizza of somebody else", kind="fact")
    ops = [
        SearchOp((), limit=ALL),
        SearchOp(("memories",), filter={"n": {"$gt": 3}}, limit=20, offset=5),
        ListNamespacesOp(limit=ALL),
        ListNamespacesOp(match_conditions=(MatchCondition("suffix", ("7",)),), limit=ALL),
        ListNamespacesOp(max_depth=1),
    ]
    found = []
    for op in ops:
        counting.asked.clear()
        found += ElytronStore(counting).batch([op])
        assert len(counting.asked) <= 5
    counting.asked.clear()
    hits = ElytronStore(counting).search((), query="pizza", limit=ALL)
    assert len(counting.asked) <= 1 + 300 / 25
    assert len(set(places(hits))) == 300
    assert [len(one) for one in found] == [300, 20, 300, 1, 2]
    monkeypatch.setattr("elytron.adapters.langgraph_held._CALLS_MAX", 1000)
    counting.asked.clear()
    assert ElytronStore(counting).batch(ops) == found
    assert len(counting.asked) > 1000


def test_of_a_few_among_many_items_each_namespace_is_asked_for(
    bob: elytron.Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elytron.adapters.langgraph_held._EACH_MAX", 2)
    memory = ElytronStore(bob)
    for number in range(60):
        memory.put(("few", str(number)), "k", {})
    for number in range(30):
        memory.put(("many",), str(number), {})
    counting: Any = Counting(bob)
    assert len(ElytronStore(counting).search(("few",), limit=ALL)) == 60
    assert counting.asked.count("memories") == 61


class Disturbing(Counting):
    """An agent of which the last item of a full first page is taken away once that was read."""

    def __init__(self, agent: elytron.Agent, rows_max: int, times: int, *, anew: bool) -> None:
        super().__init__(agent)
        self.rows_max = rows_max
        self.left = times
        self.anew = anew

    def memories(self, **named: Any) -> list[elytron.Memory]:
        page = self.agent.memories(**named)
        if len(page) == self.rows_max and named["before"] is None and self.left:
            self.left -= 1
            *namespace, key = json.loads(page[-1].metadata["langgraph_item"])
            other = ElytronStore(self.agent)
            other.delete(tuple(namespace), key)
            if self.anew:
                other.put(tuple(namespace), key, {})
        return page


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("spaces", [1, 60])
def test_what_is_deleted_between_two_pages_neither_hides_nor_doubles_another(
    bob: elytron.Agent, spaces: int, anew: bool
) -> None:
    for number in range(100):
        ElytronStore(bob).put(("a", str(number % spaces)), str(number), {})
    disturbing: Any = Disturbing(bob, 65, 3, anew=anew)
    found = ElytronStore(disturbing, rows_max=65).search(("a",), limit=ALL)
    assert len(found) == (100 if anew else 97)
    assert places(found) == places(ElytronStore(bob).search(("a",), limit=ALL))
    never_left_alone: Any = Disturbing(bob, 65, ALL, anew=True)
    with pytest.raises(elytron.Busy, match="changed by others 10 times"):
        ElytronStore(never_left_alone, rows_max=65).search(("a",))


def test_what_others_remember_under_the_kind_of_a_namespace_is_left_out(
    bob: elytron.Agent,
) -> None:
    ElytronStore(bob).put(("a",), "k", {"text": "pizza"})
    bob.remember("pizza", kind=group(("a",)), session=group(("a",)))
    counting: Any = Counting(bob)
    memory = ElytronStore(counting)
    assert places(memory.search(("a",), query="pizza")) == [(("a",), "k")]
    assert places(memory.search(("a",))) == [(("a",), "k")]
    assert "get_memory" not in counting.asked
