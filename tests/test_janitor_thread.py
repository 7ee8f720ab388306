"""The janitor's thread: when it begins, when it ends; and the clock that it goes by."""

import gc
import sys
import threading

import pytest

import elytron
from elytron import Closed
from elytron.upkeep.clock import Clock
from ledgers import held, names
from quiet import alone


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "elytron-janitor"]


@pytest.fixture(autouse=True)
def those_of_other_tests_have_ended():
    """A store of little patience does not wait for its own, nor one that its own hook closes."""
    for thread in threads():
        thread.join(60)


def test_the_thread_begins_with_the_first_write_and_ends_with_close(folder):
    store = elytron.open(folder)
    store.agent("bob").history()
    store.usage()
    assert not threads()
    assert not store.usage().janitor.running
    for name in ("bob", "eve"):
        store.agent(name).save("user", "Hello")
    assert len(threads()) == 1, "one for the store"
    assert store.usage().janitor.running
    store.close()
    store.close()
    assert not threads()
    with pytest.raises(Closed):
        store.cleanup()


def test_a_hook_before_the_first_write_makes_nothing_and_ends_nothing(folder):
    with elytron.open(folder) as store:
        store.on_alarm(lambda alarm: None)
        (thread,) = threads()
        store._upkeep.janitor.near("nobody")
        assert store._upkeep.janitor.tick() <= 60
        assert not folder.exists()
        store.agent("bob").save("user", "Hello")
        assert thread.is_alive()


def test_two_stores_have_two(folder, tmp_path):
    with elytron.open(folder) as store, elytron.open(tmp_path / "other") as other:
        store.agent("bob").save("user", "Hello")
        other.agent("bob").save("user", "Hello")
        assert len(threads()) == 2
    assert not threads()


def test_a_store_that_was_forgotten_warns_and_its_thread_ends(folder):
    opened = [elytron.open(folder)]
    opened[0].agent("bob").save("user", "Hello")
    alone(opened[0])  # which keeps the store for as long as a step takes
    (thread,) = threads()

    def forget() -> None:
        opened.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="never closed"):
        forget()
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_a_fork_has_no_janitor_and_leaves_its_parents_alone(folder, run_script):
    printed = run_script(
        """
        import os, sys, threading, warnings, elytron
        warnings.simplefilter("ignore", DeprecationWarning)
        store = elytron.open(sys.argv[1])
        store.agent("bob").save("user", "Hello")
        def janitors():
            return [t for t in threading.enumerate() if t.name == "elytron-janitor"]
        child = os.fork()
        if child == 0:
            assert not janitors()
            for verb in (store.cleanup, store.usage, store.agent):
                try:
                    verb() if verb != store.agent else verb("bob")
                except elytron.Forked:
                    continue
                os._exit(1)
            store.close()
            with elytron.open(sys.argv[1]) as anew:
                anew.agent("bob").save("user", "From the fork")
                assert len(janitors()) == 1
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert len(janitors()) == 1
        assert store.cleanup()
        store.close()
        print(len(janitors()))
        """,
        folder,
    )
    assert printed == "0\n"


def test_closing_from_a_hook_does_not_wait_for_itself(folder):
    closed = threading.Event()
    store = elytron.open(folder, max_messages_per_agent=10, reserve_mb=0)

    def close(_alarm) -> None:
        store.close()
        closed.set()

    store.on_alarm(close)
    for n in range(10):
        store.agent("bob").save("user", f"Message {n}")
    store._upkeep.janitor.near("bob")
    assert closed.wait(60)
    store.close()
    assert len(threads()) <= 1


def test_reading_leaves_no_trace_of_a_janitor(folder):
    with elytron.open(folder) as store:
        store.usage()
        assert not folder.exists()
        store.agent("bob").save("user", "Hello")
    before = names(folder)
    with elytron.open(folder) as store:
        assert held(store.agent("bob"))
        store.usage()
    assert names(folder) == before


# -- the clock


def test_the_clock_never_runs_ahead_of_the_steady_one_by_more_than_a_minute(monkeypatch):
    from elytron.upkeep import clock as module

    now_ns, steady_s = 1_800_000_000 * 10**9, 5000.0
    monkeypatch.setattr(module.time, "time_ns", lambda: now_ns)
    monkeypatch.setattr(module, "_steady_s", lambda: steady_s)
    clock = Clock()
    begun_us = clock.now_us()
    now_ns += 365 * 86_400 * 10**9
    assert clock.now_us() == begun_us + 60_000_000
    steady_s += 100
    assert clock.now_us() == begun_us + 160_000_000
    now_ns -= 400 * 86_400 * 10**9
    assert clock.now_us() == now_ns // 1000, "backwards it is followed"
    now_ns += 35 * 86_400 * 10**9 + 30 * 10**9
    assert clock.now_us() == now_ns // 1000, "and a little ahead too"


@pytest.mark.skipif(sys.platform != "linux", reason="no clock there counts what is slept through")
def test_what_a_machine_slept_through_has_passed_for_its_messages_too(monkeypatch):
    """Linux stops the monotonic clock meanwhile, and has another that goes on."""
    from elytron.upkeep import clock as module

    now_ns, slept_s = 1_800_000_000 * 10**9, 0.0
    monkeypatch.setattr(module.time, "time_ns", lambda: now_ns)
    monkeypatch.setattr(module.time, "monotonic", lambda: 5000.0)
    monkeypatch.setattr(module.time, "clock_gettime", lambda _clock: 5000.0 + slept_s)
    clock = Clock()
    begun_us, begun_s = clock.now_us(), clock.monotonic()
    now_ns, slept_s = now_ns + 40 * 86_400 * 10**9, 40 * 86_400.0
    assert clock.now_us() == begun_us + 40 * 86_400 * 10**6
    assert clock.monotonic() == begun_s + 40 * 86_400


def test_a_thread_that_has_ended_is_not_told_as_running(folder, monkeypatch):
    with elytron.open(folder) as store:
        janitor = store._upkeep.janitor
        ended = threading.Thread(target=int)
        ended.start()
        ended.join()
        monkeypatch.setattr(janitor, "_thread", ended)
        assert not store.usage().janitor.running
