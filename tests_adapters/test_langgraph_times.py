"""The store for LangGraph: when an item was made, when it was last used, and when it expires."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import elytron
from elytron.adapters.langgraph import ElytronStore

ALL = 1000


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_minutes(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(bob: elytron.Agent, clock: Clock) -> ElytronStore:
    return ElytronStore(bob, clock=clock)


def test_the_last_update_comes_first_and_when_it_was_made_stays(
    memory: ElytronStore, clock: Clock
) -> None:
    made = clock.now
    for key in ("one", "two", "three"):
        memory.put(("a",), key, {"key": key})
        clock.pass_minutes(1)
    memory.put(("a",), "one", {"key": "one", "again": True})
    assert [item.key for item in memory.search(("a",))] == ["one", "three", "two"]
    item = memory.get(("a",), "one")
    assert item is not None
    assert (item.created_at, item.updated_at) == (made, clock.now)
    memory.delete(("a",), "one")
    memory.put(("a",), "one", {"anew": True})
    item = memory.get(("a",), "one")
    assert item is not None
    assert item.created_at == clock.now


def test_an_item_expires_after_its_minutes_without_use(memory: ElytronStore, clock: Clock) -> None:
    memory.put(("a",), "k", {"text": "pizza"}, ttl=10)
    memory.put(("a",), "stays", {})
    clock.pass_minutes(9.9)
    assert memory.get(("a",), "k", refresh_ttl=False) is not None
    clock.pass_minutes(0.2)
    assert memory.get(("a",), "k") is None
    assert [item.key for item in memory.search(("a",))] == ["stays"]
    assert memory.search(("a",), query="pizza") == []


@pytest.mark.parametrize(
    "use",
    [
        lambda memory: memory.get(("a",), "k"),
        lambda memory: memory.search(("a",)),
        lambda memory: memory.search(("a",), query="pizza"),
        lambda memory: memory.put(("a",), "k", {"text": "pizza"}, ttl=10),
    ],
)
def test_every_use_makes_an_item_live_on(
    memory: ElytronStore, clock: Clock, use: Callable[[ElytronStore], Any]
) -> None:
    memory.put(("a",), "k", {"text": "pizza"}, ttl=10)
    for _ in range(3):
        clock.pass_minutes(9)
        use(memory)
    clock.pass_minutes(9)
    assert memory.get(("a",), "k", refresh_ttl=False) is not None
    clock.pass_minutes(1.1)
    assert memory.get(("a",), "k") is None


def test_the_defaults_of_the_ttl_hold(bob: elytron.Agent, clock: Clock) -> None:
    memory = ElytronStore(bob, ttl={"default_ttl": 5, "refresh_on_read": False}, clock=clock)
    memory.put(("a",), "default", {})
    memory.put(("a",), "longer", {}, ttl=20)
    memory.put(("a",), "for ever", {}, ttl=None)
    memory.put(("a",), "beyond all calendars", {}, ttl=1e18)
    clock.pass_minutes(4)
    assert len(memory.search(("a",))) == 4
    clock.pass_minutes(2)
    assert memory.get(("a",), "default") is None
    clock.pass_minutes(15)
    assert [item.key for item in memory.search(("a",))] == ["beyond all calendars", "for ever"]


def test_a_put_changes_whether_an_item_expires(memory: ElytronStore, clock: Clock) -> None:
    memory.put(("a",), "k", {"n": 1}, ttl=10)
    memory.put(("a",), "k", {"n": 2})
    clock.pass_minutes(1000)
    assert memory.get(("a",), "k") is not None
    memory.put(("a",), "k", {"n": 3}, ttl=10)
    clock.pass_minutes(11)
    assert memory.get(("a",), "k") is None
    memory.put(("a",), "k", {"n": 4})
    item = memory.get(("a",), "k")
    assert item is not None
    assert (item.value, item.created_at) == ({"n": 4}, clock.now)


def test_namespaces_of_what_has_expired_are_not_listed(memory: ElytronStore, clock: Clock) -> None:
    memory.put(("a",), "k", {}, ttl=10)
    memory.put(("b",), "k", {})
    clock.pass_minutes(11)
    assert memory.list_namespaces() == [("b",)]


def test_a_sweep_deletes_what_has_expired_and_nothing_else(
    memory: ElytronStore, bob: elytron.Agent, clock: Clock
) -> None:
    for number in range(30):
        memory.put((f"s{number % 3}",), str(number), {"n": number}, index=["n"], ttl=10 + number)
    assert memory.sweep_ttl() == 0
    clock.pass_minutes(20.5)
    assert memory.sweep_ttl() == 11
    assert len(memory.search((), limit=ALL, refresh_ttl=False)) == 19
    clock.pass_minutes(1000)
    assert memory.sweep_ttl() == 19
    assert bob.memories(limit=ALL, as_of=datetime(1, 1, 1, tzinfo=UTC)) == []


def test_any_use_sweeps_once_the_interval_is_over(bob: elytron.Agent, clock: Clock) -> None:
    memory = ElytronStore(bob, ttl={"sweep_interval_minutes": 0}, clock=clock)
    memory.put(("a",), "k", {}, ttl=1)
    clock.pass_minutes(2)
    memory.put(("b",), "k", {})
    assert len(bob.memories(limit=ALL, as_of=datetime(1, 1, 1, tzinfo=UTC))) == 2


def test_a_sweep_deletes_more_than_can_be_read_at_once(bob: elytron.Agent, clock: Clock) -> None:
    memory = ElytronStore(bob, rows_max=10, clock=clock)
    for number in range(25):
        memory.put(("a",), str(number), {}, ttl=1 if number % 5 else 1000)
    clock.pass_minutes(2)
    assert memory.sweep_ttl() == 20
    assert len(memory.search(("a",), limit=ALL)) == 5


def test_a_sweep_finds_what_has_expired_behind_more_that_lives_than_is_read_at_once(
    bob: elytron.Agent, clock: Clock
) -> None:
    memory = ElytronStore(bob, rows_max=10, clock=clock)
    for number in range(40):
        memory.put(("a",), str(number), {}, ttl=1 if number < 15 or number == 25 else 1000)
    clock.pass_minutes(2)
    assert memory.sweep_ttl() == 16
    assert bob.usage().memories == 25


def test_a_sweep_that_fails_leaves_the_use_that_it_was_part_of(
    bob: elytron.Agent,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> Any:
        raise elytron.Busy("no reader came free")

    memory = ElytronStore(bob, ttl={"sweep_interval_minutes": 0}, clock=clock)
    monkeypatch.setattr(memory._held, "namespaces", fail)
    memory.put(("old1",), "k", {"n": 1})
    item = memory.get(("old1",), "k")
    assert item is not None
    assert item.value == {"n": 1}
    assert "not all deleted" in caplog.text
