"""The writer: who commits for whom, how much may wait, and that everybody is answered."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apsw
import pytest

import elytron
from elytron import Busy, Conflict, OutcomeUnknown
from elytron.ledger.room import NoRoom
from elytron.write import queue
from elytron.write.writer import Writer
from ledgers import lock_held
from patience import in_the_end
from writing import WAIT_S, Bench, Item, spawn, until


@pytest.fixture
def bench():
    made = []

    def make(**settings: Any) -> Bench:
        made.append(Bench(**settings))
        return made[-1]

    yield make
    for one in made:
        one.disk.gate.set()
        one.until(lambda one=one: one.quota.items == one.quota.bytes == one.writer.queued == 0)


def test_those_who_come_during_a_commit_are_committed_together(bench):
    b = bench()
    first = b.lead()
    others = [b.call(f"other {n}") for n in range(8)]
    b.until(lambda: b.writer.queued == 8)
    assert b.disk.batches == []
    b.disk.gate.set()
    assert first.result(WAIT_S) == "first"
    assert [other.result(WAIT_S) for other in others] == [f"other {n}" for n in range(8)]
    assert [len(batch) for batch in b.disk.batches] == [1, 8]


def test_who_tells_while_another_settles_loses_no_future(bench, monkeypatch):
    b = bench()
    settle = queue.Item.settle

    def settle_while_another_tells(item: queue.Item, outcome: Any) -> None:
        b.writer._tell()
        settle(item, outcome)

    monkeypatch.setattr(queue.Item, "settle", settle_while_another_tells)
    b.lead()
    futures = [b.writer.submit(Item(str(n))) for n in range(4)]
    b.disk.gate.set()
    assert [future.result(WAIT_S) for future in futures] == [*"0123"]


def test_a_batch_is_no_longer_than_its_limit_and_keeps_the_order(bench):
    b = bench(batch_max=3)
    b.lead()
    futures = [b.writer.submit(Item(str(n))) for n in range(8)]
    b.disk.gate.set()
    for future in futures:
        future.result(WAIT_S)
    assert [len(batch) for batch in b.disk.batches] == [1, 3, 3, 2]
    assert b.disk.written == ["first", *"01234567"]


def test_a_batch_is_no_larger_than_its_limit_unless_one_alone_is(bench):
    b = bench(batch_max_bytes=10, bytes_max=1000)
    b.lead()
    futures = [b.writer.submit(Item(str(size), size)) for size in (4, 6, 1, 50, 5, 5, 1)]
    b.disk.gate.set()
    for future in futures:
        future.result(WAIT_S)
    assert b.disk.batches[1:] == [["4", "6"], ["1"], ["50"], ["5", "5"], ["1"]]


def test_a_bad_item_fails_alone(bench):
    b = bench()
    b.lead()
    others = [b.call(str(n), bad=n == 2) for n in range(5)]
    b.until(lambda: b.writer.queued == 5)
    b.disk.gate.set()
    for n, other in enumerate(others):
        if n == 2:
            with pytest.raises(Conflict):
                other.result(WAIT_S)
        else:
            assert other.result(WAIT_S) == str(n)


def test_a_queue_full_of_messages_is_busy_and_takes_nothing_in(bench):
    b = bench(items_max=3, timeout_s=0.05)
    b.lead()
    futures = [b.writer.submit(Item(str(n))) for n in range(2)]
    for refused in (lambda: b.writer.call(Item("x")), lambda: b.writer.submit(Item("x"))):
        with pytest.raises(Busy, match=r"\(3 of 3 messages.*nothing was written.*`queue_max`"):
            refused()
    with pytest.raises(Busy):
        b.writer.submit(Item("x"), wait=False)
    b.disk.gate.set()
    assert [future.result(WAIT_S) for future in futures] == ["0", "1"]
    assert in_the_end(lambda: b.writer.call(Item("now"))) == "now"
    assert b.disk.written == ["first", "0", "1", "now"]


def test_a_queue_full_of_bytes_is_busy_and_takes_nothing_in(bench):
    b = bench(bytes_max=10, timeout_s=0.05)
    b.lead()
    future = b.writer.submit(Item("nine", 9))
    with pytest.raises(Busy, match=r"10 of 10 bytes\).*`queue_max_mb`"):
        b.writer.call(Item("one", 1))
    b.disk.gate.set()
    future.result(WAIT_S)
    assert in_the_end(lambda: b.writer.call(Item("ten", 10))) == "ten"


def test_who_waits_for_a_place_gets_it(bench):
    b = bench(items_max=2)
    b.lead()
    b.writer.submit(Item("second"))
    third = b.call("third")
    b.until(lambda: b.quota._waiting == 1)
    b.disk.gate.set()
    assert third.result(WAIT_S) == "third"


def test_one_item_larger_than_the_whole_queue_goes_alone(bench):
    b = bench(items_max=5, bytes_max=10)
    b.disk.gate.set()
    assert b.writer.call(Item("large", size_bytes=11)) == "large"
    assert b.writer.call(Item("many", items=6)) == "many"
    b.disk.gate.clear()
    b.disk.entered = threading.Semaphore(0)
    first = b.lead()
    large = b.call("large again", size_bytes=1000)
    b.until(lambda: b.quota._waiting == 1)
    b.disk.gate.set()
    assert (first.result(WAIT_S), large.result(WAIT_S)) == ("first", "large again")
    assert ["large again"] in b.disk.batches


def test_who_waited_too_long_is_withdrawn_and_never_written(bench):
    b = bench(timeout_s=0.1)
    first = b.lead()
    with pytest.raises(Busy, match=r"not written within 0\.[01] s.*`save_timeout_s`"):
        b.writer.call(Item("late"))
    assert (b.writer.queued, b.quota.items) == (0, 1)
    b.disk.gate.set()
    assert first.result(WAIT_S) == "first"
    assert b.writer.call(Item("next")) == "next"
    assert b.disk.written == ["first", "next"]


class Signal:
    """Wakes as its lock does, and tells when that is waited for without a bound."""

    def __init__(self, lock: Any, unbounded: threading.Event) -> None:
        self.release = lock.release
        self._lock, self._unbounded = lock, unbounded

    def acquire(self, timeout: float = -1) -> bool:
        if timeout < 0:
            self._unbounded.set()
        return bool(self._lock.acquire(timeout=timeout))


def test_who_is_in_the_batch_already_is_not_withdrawn(bench, monkeypatch):
    """
    Its end is near, and only that tells the outcome.

    Method: the third comes too late for any turn, and is let look at the clock once the second
    leads a commit of both.
    """
    b = bench()
    begun, waits_on, go_on = (threading.Event() for _ in range(3))
    commit, wait = b.disk.commit, Writer._wait

    def commit_slowly(ops: list[Item], deadline: float) -> list[Any]:
        if ops[0].name == "second":
            begun.set()
            assert go_on.wait(WAIT_S)
        return commit(ops, deadline)

    def look_late(writer: Writer, item: queue.Item) -> None:
        if item.op.name == "third":
            assert begun.wait(WAIT_S)
            item.signal = Signal(item.signal, waits_on)
        wait(writer, item)

    monkeypatch.setattr(b.disk, "commit", commit_slowly)
    monkeypatch.setattr(Writer, "_wait", look_late)
    first = b.lead()
    second = b.call("second")
    b.until(lambda: b.writer.queued == 1 and b.writer._queue[0].signal is not None)
    third = spawn(b.writer.call, Item("third"), 0.0)
    b.until(lambda: b.writer.queued == 2 and b.writer._queue[1].signal is not None)
    b.disk.gate.set()
    assert first.result(WAIT_S) == "first"
    assert waits_on.wait(WAIT_S)
    go_on.set()
    assert (second.result(WAIT_S), third.result(WAIT_S)) == ("second", "third")
    assert b.disk.batches == [["first"], ["second", "third"]]


def test_a_commit_that_breaks_leaves_nobody_waiting(bench):
    """Not one of our errors, so a bug: everyone in the batch hears that the outcome is open."""
    b = bench()
    first = b.lead()
    others = [b.call(str(n)) for n in range(3)]
    b.until(lambda: b.writer.queued == 3)
    b.disk.error = ZeroDivisionError("a bug")
    b.disk.gate.set()
    with pytest.raises(ZeroDivisionError):
        first.result(WAIT_S)
    assert [other.result(WAIT_S) for other in others] == ["0", "1", "2"]
    b.disk.gate.clear()
    leader = b.call("leader")
    assert b.disk.entered.acquire(timeout=WAIT_S)
    assert b.disk.entered.acquire(timeout=WAIT_S)
    future = b.writer.submit(Item("submitted"))
    b.disk.error = KeyboardInterrupt()
    b.disk.gate.set()
    with pytest.raises(KeyboardInterrupt):
        leader.result(WAIT_S)
    assert future.result(WAIT_S) == "submitted"


def test_a_commit_of_submitted_items_that_breaks_is_told_by_their_futures(bench):
    b = bench()
    b.disk.error = ZeroDivisionError("a bug")
    future = b.writer.submit(Item("submitted"))
    b.disk.gate.set()
    with pytest.raises(OutcomeUnknown, match=r"ZeroDivisionError.*same id"):
        future.result(WAIT_S)
    assert b.writer.call(Item("next")) == "next"


@pytest.mark.parametrize("verb", ["call", "submit"])
def test_who_is_told_of_a_commit_may_write_again_at_once(bench, verb):
    """A reply saved as soon as its question is: the future's callback writes by itself."""
    b = bench(timeout_s=WAIT_S / 2)
    b.disk.gate.set()
    replies: list[Any] = []
    told = threading.Event()

    def reply(_question: object) -> None:
        try:
            replies.append(getattr(b.writer, verb)(Item("reply")))
        finally:
            told.set()

    b.writer.submit(Item("question")).add_done_callback(reply)
    assert told.wait(WAIT_S)
    assert b.writer.call(Item("next")) == "next"
    assert len(replies) == 1
    b.until(lambda: "reply" in b.disk.written)


def test_submitted_and_called_items_keep_the_order_of_their_coming(bench):
    b = bench()
    b.lead()
    futures = []
    for n in range(10):
        futures.append(b.writer.submit(Item(str(n))) if n % 2 else b.call(str(n)))
        b.until(lambda n=n: b.writer.queued == n + 1)
    b.disk.gate.set()
    for future in futures:
        future.result(WAIT_S)
    assert b.disk.written == ["first", *"0123456789"]


def test_who_waits_behind_what_was_submitted_leads_where_no_thread_of_the_pool_is_free(bench):
    """All of them may be in slow callbacks, and who waits would be told that it is Busy."""
    b = bench()
    pool: list[Callable[[], None]] = []
    b.writer._run_soon = lambda work: pool.append(work) or True
    first = b.lead()
    future = b.writer.submit(Item("submitted"))
    waiting = b.call("waiting")
    b.until(lambda: b.writer.queued == 2 and b.writer._queue[1].signal is not None)
    b.disk.gate.set()
    assert (first.result(WAIT_S), waiting.result(WAIT_S)) == ("first", "waiting")
    assert b.disk.written == ["first", "submitted", "waiting"]
    while pool:
        pool.pop(0)()
    assert future.result(WAIT_S) == "submitted"


@pytest.mark.parametrize("short", [0, 1])
def test_where_room_was_made_for_some_of_a_batch_only_the_others_are_tried_again(bench, short):
    b = bench()
    b.writer._make_room = lambda _short, _deadline: True
    b.lead()
    others = [b.call(str(n)) for n in range(3)]
    b.until(lambda: b.writer.queued == 3)
    tries: list[list[str]] = []

    def commit(ops: list[Item], _deadline: float) -> list[Any]:
        tries.append([op.name for op in ops])
        refused = {1: tries[0], 2: [tries[0][short]]}.get(len(tries), [])
        return [NoRoom("full", bytes=1) if op.name in refused else op.name for op in ops]

    b.disk.commit = commit
    b.disk.gate.set()
    assert {other.result(WAIT_S) for other in others} == {"0", "1", "2"}
    assert tries == [tries[0], tries[0], [tries[0][short]]]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_called_submitted_and_timed_out_all_settle(bench, seed):
    """Twelve threads, small limits, timeouts around the length of a commit."""
    chance = random.Random(seed)
    b = bench(items_max=6, bytes_max=40, batch_max=4, batch_max_bytes=12, timeout_s=0.004)
    b.disk.gate.set()
    plans = [
        [
            (chance.random() < 0.5, Item(f"{n}-{k}", chance.randrange(1, 20), bad=k % 7 == 6))
            for k in range(40)
        ]
        for n in range(12)
    ]
    barrier = threading.Barrier(12)

    def work(plan: list[tuple[bool, Item]]) -> list[tuple[Item, Any]]:
        barrier.wait(WAIT_S)
        ended: list[tuple[Item, Any]] = []
        for calls, item in plan:
            try:
                result = b.writer.call(item) if calls else b.writer.submit(item)
            except (Busy, Conflict) as error:
                result = error
            ended.append((item, result))
        return ended

    crew = [spawn(work, plan) for plan in plans]
    written, refused = set(), set()
    for one in crew:
        for item, result in one.result(WAIT_S):
            if hasattr(result, "result"):
                result = result.exception(WAIT_S) or result.result()
            (written if result == item.name else refused).add(item.name)
            assert not item.bad or isinstance(result, Busy | Conflict)
    assert len(b.disk.written) == len(set(b.disk.written))
    assert set(b.disk.written) == written
    assert len(written) + len(refused) == 480
    assert written


class CountingDisk(apsw.VFS):
    """The real file layer, counting its syncs."""

    def __init__(self) -> None:
        self.syncs = 0
        super().__init__("counting", "")

    def xOpen(self, name: Any, flags: list[int]) -> "CountingFile":  # noqa: N802
        return CountingFile(self, name, flags)


class CountingFile(apsw.VFSFile):
    def __init__(self, disk: CountingDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.syncs += 1
        super().xSync(flags)


@pytest.fixture
def counted(folder):
    """(disk, agent): a real ledger on a disk that counts; nobody links what is saved meanwhile."""
    disk = CountingDisk()
    with elytron.Store(folder, elytron.Config(link_concepts=False), vfs="counting") as store:
        bob = store.agent("bob")
        bob.save("user", "First")
        yield disk, bob
    disk.unregister()


def test_each_write_of_a_lone_caller_is_one_sync(counted):
    disk, bob = counted
    for write in (
        lambda: bob.save("user", "Hello", id="one"),
        lambda: bob.save_many([{"role": "user", "content": f"Number {n}"} for n in range(50)]),
        lambda: bob.submit("user", "Submitted").result(WAIT_S),
        lambda: bob.edit("one", "Edited"),
        lambda: bob.delete("one"),
    ):
        before = disk.syncs
        write()
        assert disk.syncs == before + 1
    before = disk.syncs
    bob.history()
    bob.recall("hello")
    assert disk.syncs == before


def test_sixteen_threads_saving_at_once_share_their_commits(counted, folder):
    """Method: nobody can commit before all sixteen wait, twenty times."""
    disk, bob = counted
    before = disk.syncs
    with bob._agents.use("bob", create=False) as agent, ThreadPoolExecutor(16) as crew:
        writer = agent.writer

        def waiting() -> int:
            return len({*map(id, writer._batch.copy()), *map(id, writer._queue.copy())})

        for n in range(20):
            with lock_held(folder):
                saves = [crew.submit(bob.save, "user", f"{mine} {n}") for mine in range(16)]
                until(lambda: waiting() == 16)
            assert all(save.result(WAIT_S).new for save in saves)
    assert bob.usage().messages == 321
    assert disk.syncs - before < 160, "half of what each alone would take"


def test_two_who_wake_the_same_caller_at_once_do_not_trip_over_each_other():
    """
    The leader settles an item at the moment at which its caller finds it settled.

    Method: both have looked at the signal before either releases it.
    """

    class Signal:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.lock.acquire()
            self.both = threading.Barrier(2)

        def locked(self) -> bool:
            self.both.wait(WAIT_S)
            return True

        def release(self) -> None:
            self.lock.release()

    item = queue.Item(Item("one"), 0.0, None)
    item.signal = Signal()
    for one in [spawn(item.wake), spawn(item.wake)]:
        one.result(WAIT_S)
    assert not item.signal.lock.locked()
