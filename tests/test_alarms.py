"""Hooks: told once when a limit comes near and once when it is reached, whatever they do."""

import random
import threading

import pytest

import elytron
from clocks import FakeClock
from elytron import InvalidArgument, OverBudget
from elytron.config_sources import load
from elytron.store import Store
from ledgers import held

# In a file and on a server.
pytestmark = pytest.mark.ledgers


@pytest.fixture
def make(folder, monkeypatch):
    """A store whose janitor only does what the test has it do, and a hook that notes."""
    stores: list[Store] = []

    def make_one(**settings):
        store = Store(folder, load({"reserve_mb": 0, **settings}), clock=FakeClock())
        monkeypatch.setattr(store._upkeep.janitor, "start", lambda: None)
        stores.append(store)
        told: list[tuple[str, str]] = []
        store.on_alarm(lambda alarm: told.append((alarm.limit, alarm.level)))
        return store, store.agent("bob"), told

    yield make_one
    for store in stores:
        store.close()


def look(store) -> None:
    store._upkeep.clock.pass_s(60)
    store._upkeep.janitor.near("bob")
    store._upkeep.janitor.tick()


def save(bob, count: int, **more) -> None:
    for _ in range(count):
        bob.save("user", "Message", **more)


SOFT, HARD = ("max_messages_per_agent", "soft"), ("max_messages_per_agent", "hard")


def test_each_level_is_told_once_until_it_was_below_again(make):
    store, bob, told = make(max_messages_per_agent=20, auto_cleanup=False)
    save(bob, 17)
    look(store)
    assert told == []
    save(bob, 1)
    for _ in range(3):
        look(store)
    assert told == [SOFT], "from nine tenths on"
    save(bob, 2)
    for _ in range(3):
        look(store)
    assert told == [SOFT, HARD]
    bob.delete(next(iter(held(bob))))
    look(store)
    assert told == [SOFT, HARD], "it comes from above"
    save(bob, 1)
    look(store)
    assert told == [SOFT, HARD, HARD], "reached again"
    for key in list(held(bob))[:10]:
        bob.delete(key)
    look(store)
    save(bob, 8)
    look(store)
    assert told == [SOFT, HARD, HARD, SOFT]


def test_an_alarm_says_whose_limit_it_is_and_how_full(make):
    store, bob, _ = make(max_messages_per_agent=20, auto_cleanup=False, soft_limit_ratio=0.5)
    alarms: list[elytron.Alarm] = []
    store.on_alarm(alarms.append)
    save(bob, 12)
    look(store)
    assert alarms == [elytron.Alarm("bob", "max_messages_per_agent", "soft", 12, 20)]


def test_the_size_limit_is_told_too(make):
    """Told softly while there is room, and as reached once a save was refused."""
    store, bob, told = make(max_db_size_mb=1.5, wal_limit_mb=0.25, auto_cleanup=False)
    refused = False
    for n in range(3000):
        try:
            bob.save("user", f"Message {n} " + " ".join(str(n * k) for k in range(100)))
        except OverBudget:
            refused = True
        look(store)
        if refused:
            break
    # The index gives pages back when it is merged, so the soft limit may be passed twice.
    assert list(dict.fromkeys(told)) == [("max_db_size_mb", "soft"), ("max_db_size_mb", "hard")]


def test_the_archives_limit_is_told_too(make):
    store, bob, told = make(max_archive_mb=1, soft_limit_ratio=0.1)
    for n in range(6):
        bob.save("user", random.Random(n).randbytes(60_000).hex())
    store._upkeep.clock.pass_s(60)  # it stood still while they arrived
    assert bob.archive(older_than_days=0, keep=0).archived == 6
    look(store)
    assert told == [("max_archive_mb", "soft")]


def test_the_archives_limit_is_told_before_messages_are_dropped_for_good(make):
    """It drops from seven eighths on, since an eighth is kept free."""
    store, bob, told = make(max_archive_mb=1)
    for n in range(60):
        bob.save("user", random.Random(n).randbytes(30_000).hex())
        store._upkeep.clock.pass_s(60)
        bob.archive(older_than_days=0, keep=0)
        look(store)
        if bob.usage().archive.dropped:
            break
    assert bob.usage().archive.dropped
    assert told == [("max_archive_mb", "soft"), ("max_archive_mb", "hard")]


def test_a_save_that_the_stores_total_refuses_is_not_told_as_the_agents_limit(make):
    """Two agents have half of it each; no agent is told of the store's limit."""
    store, bob, told = make(max_total_mb=3, max_db_size_mb=3, wal_limit_mb=0.25, auto_cleanup=False)

    def fill_up() -> None:
        for n in range(1000):
            store.agent("alice").save("user", random.Random(n).randbytes(4000).hex())
            bob.save("user", random.Random(n).randbytes(4000).hex())

    for _ in range(2):  # whichever of them it was
        with pytest.raises(OverBudget, match="max_total_mb"):
            fill_up()
    with pytest.raises(OverBudget, match="max_total_mb"):
        bob.save("user", random.Random(0).randbytes(30_000).hex())
    look(store)
    assert told == []


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_a_hook_that_raises_costs_nothing(make, caplog, error):
    store, bob, told = make(max_messages_per_agent=20, auto_cleanup=False)
    later: list[elytron.Alarm] = []

    def bad(_alarm) -> None:
        raise error

    store.on_alarm(bad)
    store.on_alarm(later.append)
    save(bob, 20)
    look(store)
    assert told == [HARD]
    assert [alarm.level for alarm in later] == ["hard"], "those after it are told too"
    assert error.__name__ in caplog.text
    assert store.usage().janitor.last_error is None


def test_a_hook_may_use_the_store(make):
    store, bob, _ = make(max_messages_per_agent=20, auto_cleanup=False)
    done: list[object] = []

    def tidy(alarm: elytron.Alarm) -> None:
        agent = store.agent(alarm.agent)
        done.append(agent.save("user", "From the hook", session="hook").new)
        done.append(agent.archive(older_than_days=0, keep=5).archived)
        done.append(store.usage().agents[0].messages)
        store.on_alarm(lambda alarm: None)

    store.on_alarm(tidy)
    save(bob, 18)
    look(store)
    assert done == [True, 14, 5]


def test_hooks_are_told_by_the_janitors_own_thread_while_saves_go_on(folder):
    told = threading.Event()
    names: list[str] = []

    def hook(_alarm) -> None:
        names.append(threading.current_thread().name)
        told.set()

    with elytron.open(folder, max_messages_per_agent=200, reserve_mb=0) as store:
        store.on_alarm(hook)
        bob = store.agent("bob")
        save(bob, 200)
        assert told.wait(60)
    assert set(names) == {"elytron-janitor"}


def test_what_cannot_be_a_hook_is_refused_and_so_is_one_too_many(make):
    store, _, _ = make()
    with pytest.raises(InvalidArgument, match="callable"):
        store.on_alarm("hook")
    for _ in range(99):
        store.on_alarm(print)
    with pytest.raises(InvalidArgument, match="100 hooks"):
        store.on_alarm(print)
