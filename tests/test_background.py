"""The background: whose turn it is, how it fails, and that it ends."""

import gc
import threading
import weakref

import pytest

import elytron
from elytron.errors import Busy, Closed
from elytron.upkeep.background import Background

WAIT_S = 60


class Watch:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Idle(Background):
    """One whose thread is never started, so that `tick` alone works."""

    def _start(self) -> None:
        pass


@pytest.fixture
def clock_s() -> Watch:
    return Watch()


def test_an_agent_is_worked_on_once_it_has_been_quiet_for_a_second(clock_s):
    done = []
    background = Idle(lambda name: done.append(name) or False, clock_s=clock_s)
    background.note("bob")
    assert background.tick() == pytest.approx(1.0)
    clock_s.now_s += 0.9
    background.note("bob")
    clock_s.now_s += 0.9
    assert background.tick() == pytest.approx(0.1)
    assert done == []
    clock_s.now_s += 0.1
    background.tick()
    assert done == ["bob"]
    assert background.tick() == 60.0


def test_one_who_never_is_quiet_is_worked_on_after_ten_seconds(clock_s):
    done = []
    background = Idle(lambda name: done.append(name) or False, clock_s=clock_s)
    for _ in range(21):
        background.note("bob")
        background.tick()
        clock_s.now_s += 0.5
    assert done == ["bob"]


def test_work_that_is_not_finished_goes_on_at_once(clock_s):
    steps = []
    background = Idle(lambda name: steps.append(name) or len(steps) < 3, clock_s=clock_s)
    background.note("bob")
    clock_s.now_s += 1
    for _ in range(5):
        background.tick()
    assert steps == ["bob"] * 3


def test_half_of_the_time_is_left_to_others(clock_s):
    def work(name):
        clock_s.now_s += 0.25
        return True

    background = Idle(work, clock_s=clock_s)
    background.note("bob")
    clock_s.now_s += 1
    assert background.tick() == pytest.approx(0.25)


def test_the_one_that_waits_longest_comes_first(clock_s):
    done = []
    background = Idle(lambda name: done.append(name) or False, clock_s=clock_s)
    for name in ("carol", "alice", "bob"):
        background.note(name)
        clock_s.now_s += 0.1
    clock_s.now_s += 2
    for _ in range(3):
        background.tick()
    assert done == ["carol", "alice", "bob"]


@pytest.mark.parametrize("error", [Busy("taken"), ZeroDivisionError("a defect")])
def test_a_failure_is_counted_put_off_and_keeps_nobody_else_waiting(clock_s, error):
    tried = []

    def work(name):
        tried.append(name)
        if name == "bad":
            raise error
        return False

    background = Idle(work, clock_s=clock_s)
    background.note("bad")
    background.note("good")
    clock_s.now_s += 1
    background.tick()
    background.tick()
    assert tried == ["bad", "good"]
    assert background.failures == 1
    assert background.last_error.startswith("bad: ")
    clock_s.now_s += 4.9
    background.tick()
    assert tried == ["bad", "good"]
    clock_s.now_s += 0.2
    background.tick()
    assert tried == ["bad", "good", "bad"]
    clock_s.now_s += 9.9  # twice as long
    background.tick()
    assert len(tried) == 3
    clock_s.now_s += 0.2
    background.tick()
    assert len(tried) == 4


def test_what_was_written_during_the_work_is_worked_on_too(clock_s):
    seen = []

    def work(name):
        if not seen:
            background.note(name)  # as a commit of another thread would
        seen.append(name)
        return False

    background = Idle(work, clock_s=clock_s)
    background.note("bob")
    clock_s.now_s += 1
    background.tick()
    clock_s.now_s += 1
    background.tick()
    assert seen == ["bob", "bob"]


def test_the_thread_works_and_ends_with_stop():
    worked = threading.Event()

    def work(name):
        worked.set()
        return False

    background = Background(work)
    background.note("bob")
    assert worked.wait(WAIT_S)
    thread = background._thread
    background.stop(WAIT_S)
    assert not thread.is_alive()
    background.note("bob")
    assert background._thread is None, "it does not begin again"


def test_a_thread_that_is_just_being_started_is_waited_for(monkeypatch):
    """Saves begin it on one thread while another closes the store."""
    starting, go_on, start = threading.Event(), threading.Event(), threading.Thread.start
    begun = []

    def start_late(thread):
        if thread.name == "elytron-background":
            starting.set()
            assert go_on.wait(WAIT_S)
            begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    background = Background(lambda name: False)
    noting = threading.Thread(target=background.note, args=("bob",))
    noting.start()
    assert starting.wait(WAIT_S)
    stopping = threading.Thread(target=background.stop, args=(WAIT_S,))
    stopping.start()
    while not background.stopping():
        stopping.join(0.001)
    assert stopping.is_alive()
    go_on.set()
    for thread in (noting, stopping):
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert background._thread is None
    (thread,) = begun
    assert not thread.is_alive()


def test_a_save_stands_though_no_thread_could_be_started_behind_it(folder, monkeypatch, caplog):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    with elytron.open(folder) as store:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            assert store.agent("bob").save("user", "Hello").new
        assert "background work could not begin: can't start new thread" in caplog.text
        assert "the janitor could not begin" in caplog.text
        assert store._agents.background._thread is None
        store.agent("bob").save("user", "Hello again")
        assert store._agents.background._thread.is_alive()


def test_the_thread_ends_when_the_store_was_closed():
    def work(name):
        raise Closed("closed")

    background = Background(work)
    background.note("bob")
    thread = background._thread
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_background_that_is_forgotten_takes_its_thread_along():
    background = Background(lambda name: False)
    background.note("bob")
    thread, gone = background._thread, weakref.ref(background)
    background.abandon()
    del background
    thread.join(WAIT_S)
    gc.collect()
    assert gone() is None
    assert not thread.is_alive()


def test_what_is_begun_goes_on_at_once_though_its_own_commits_are_noted(clock_s):
    """Each step of the work commits, and so is noted as if somebody had saved."""
    steps = []

    def work(name):
        background.note(name)
        steps.append(clock_s.now_s)
        return len(steps) < 4

    background = Idle(work, clock_s=clock_s)
    background.note("bob")
    clock_s.now_s += 1
    for _ in range(4):
        background.tick()
    assert steps == [clock_s.now_s] * 4


def test_a_long_work_lets_others_have_their_turn(clock_s):
    done = []

    def work(name):
        done.append(name)
        clock_s.now_s += 0.1
        return name == "long"

    background = Idle(work, clock_s=clock_s)
    background.note("long")
    clock_s.now_s += 0.5
    background.note("short")
    clock_s.now_s += 1
    for _ in range(3):
        background.tick()
    assert "short" in done
