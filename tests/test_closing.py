"""Closing: what was taken in is written, what comes later is refused, and all is given back."""

import gc
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

import elytron
from elytron import Busy, Closed, Unavailable
from elytron.open_agent import OpenAgent, Use
from every_verb import calls
from ledgers import held, ledger_path, lock_held
from patience import in_the_end
from quiet import alone, without_janitor

MESSAGE = {"role": "user", "content": "Hello", "id": "one"}
NOTHING = {
    "save nothing": lambda bob: bob.save_many([]),
    "import nothing": lambda bob: bob.import_([]),
}
CLOSED = "was closed; (nothing was written|this step wrote nothing).*: open it again"


@pytest.mark.parametrize("begun", [False, True])
def test_a_closed_store_refuses_every_verb_and_says_so(store, begun):
    bob = store.agent("bob")
    if begun:
        bob.save(**MESSAGE)
    verbs = calls(store, bob)
    store.close()
    refused = {}
    for name, verb in verbs.items():
        try:
            verb()
        except Closed as error:
            refused[name] = str(error)
    assert refused.keys() == verbs.keys()
    for name, said in refused.items():
        assert re.search(CLOSED, said), (name, said)


@pytest.mark.parametrize("verb", NOTHING)
def test_a_closed_store_refuses_what_would_do_nothing_too(store, verb):
    bob = store.agent("bob")
    store.close()
    with pytest.raises(Closed, match=CLOSED):
        NOTHING[verb](bob)


def test_closing_twice_is_harmless(store, bob):
    bob.save(**MESSAGE)
    store.close()
    store.close()


def test_a_with_block_closes_even_after_an_error(folder):
    store = elytron.open(folder)
    bob = store.agent("bob")

    def work():
        with store:
            bob.save(**MESSAGE)
            raise LookupError("of the caller")

    with pytest.raises(LookupError, match="of the caller"):
        work()
    with pytest.raises(Closed):
        bob.get("one")


def test_closing_waits_for_what_was_submitted(folder):
    with elytron.open(folder) as store:
        futures = [store.agent("bob").submit("user", f"Number {n}") for n in range(300)]
    assert all(future.done() for future in futures)
    with elytron.open(folder) as store:
        assert list(held(store.agent("bob"))) == [future.result().id for future in futures]


def test_closing_waits_for_a_save_under_way_in_another_thread(open_store, folder):
    store = alone(open_store())
    bob = store.agent("bob")
    bob.save("user", "First")
    receipts = []
    with lock_held(folder):
        saving = threading.Thread(target=lambda: receipts.append(bob.save(**MESSAGE)))
        saving.start()
        while not bob._agents.quota.items:  # until it waits for the lock
            saving.join(timeout=0.001)
        closing = threading.Thread(target=store.close)
        closing.start()
        closing.join(timeout=0.05)
        assert closing.is_alive()
    closing.join(timeout=30)
    saving.join(timeout=30)
    assert receipts[0].new
    assert open_store().agent("bob").get("one").content == "Hello"


def test_closing_while_an_agent_is_in_use_is_busy_and_can_be_done_again(open_store):
    store = alone(open_store(save_timeout_s=0.05))
    store.agent("bob").save(**MESSAGE)
    store.agent("eve").save(**MESSAGE)
    with store._agents.use("bob", create=False):
        with pytest.raises(Busy, match=r"1 agents were still in use after 0\.05 s"):
            store.close()
        with pytest.raises(Closed):
            store.agent("eve")
    store.close()
    assert store._agents.open_count == 0


def test_a_closed_store_gives_its_descriptors_and_threads_back(folder):
    process = psutil.Process()
    before = (process.num_fds(), threading.active_count())
    for _ in range(3):
        with elytron.open(folder) as store:
            for name in ("bob", "eve"):
                store.agent(name).submit("user", "Hello").result(timeout=30)
                store.agent(name).history()
    gc.collect()
    assert process.num_fds() <= before[0]
    assert threading.active_count() <= before[1]


def test_a_store_that_failed_to_open_leaves_nothing_behind(tmp_path):
    process = psutil.Process()
    before = process.num_fds()
    (tmp_path / "file").write_text("")
    for _ in range(3):
        with pytest.raises(elytron.Unavailable):
            elytron.open(tmp_path / "file")
    gc.collect()
    assert process.num_fds() <= before


def test_an_agent_that_failed_to_open_leaves_nothing_behind(folder):
    with elytron.open(folder) as store:
        store.agent("bob").save(**MESSAGE)
    ledger_path(folder).write_bytes(b"garbage" * 1000)
    process = psutil.Process()
    with elytron.open(folder) as store:
        without_janitor(store)  # who would have a file open now and then
        before = process.num_fds()
        for _ in range(3):
            with pytest.raises(elytron.Corrupt):
                store.agent("bob").history()
            with pytest.raises(elytron.Corrupt):
                store.agent("bob").save(**MESSAGE)
        gc.collect()
        assert process.num_fds() <= before
        assert store._agents.open_count == 0


def test_a_forgotten_store_is_told_by_a_warning_and_loses_nothing(folder, start_script):
    process = start_script(
        """
        import sys, elytron
        store = elytron.open(sys.argv[1])
        store.agent("bob").save("user", "Hello", id="one")
        """,
        folder,
    )
    _, complaints = process.communicate(timeout=60)
    assert "was never closed" in complaints
    with elytron.open(folder) as store:
        assert held(store.agent("bob")) == {"one": "Hello"}


def test_a_store_of_which_only_an_agent_was_kept_is_told_by_a_warning_too(folder, start_script):
    process = start_script(
        """
        import sys, elytron
        bob = elytron.open(sys.argv[1]).agent("bob")
        bob.save("user", "Hello", id="one")
        """,
        folder,
    )
    _, complaints = process.communicate(timeout=60)
    assert "was never closed" in complaints
    with elytron.open(folder) as store:
        assert held(store.agent("bob")) == {"one": "Hello"}


# -- many agents


def test_agents_beyond_the_limit_are_put_to_rest_and_opened_again(open_store):
    store = open_store(max_open_agents=3)
    for turn in range(3):
        for n in range(8):
            store.agent(f"agent {n}").save("user", f"Turn {turn}", id=str(turn))
            assert store._agents.open_count <= 3
    for n in range(8):
        assert list(held(store.agent(f"agent {n}"))) == ["0", "1", "2"]


def test_more_agents_in_use_at_once_than_allowed_are_busy(open_store):
    store = alone(open_store(max_open_agents=2, save_timeout_s=0.05))
    for name in ("bob", "eve", "amy"):
        store.agent(name).save(**MESSAGE)
    with store._agents.use("bob", create=False), store._agents.use("eve", create=False):
        for verb in (
            lambda: store.agent("amy").history(),
            lambda: store.agent("new").save("user", "x"),
        ):
            with pytest.raises(Busy, match=r"2 open agents.*0\.05 s.*`max_open_agents`"):
                verb()
        assert store.agent("eve").get("one").content == "Hello"
    assert store.agent("amy").get("one").content == "Hello"
    assert store.agents() == ["amy", "bob", "eve"]


def test_who_waits_for_an_agent_that_cannot_be_opened_hears_what_the_first_heard(
    open_store, folder, monkeypatch
):
    """Each would else try for as long as the first, one after the other."""
    with open_store() as store:
        store.agent("bob").save("user", "Hello")
    store = open_store()
    opened, go_on = list[str](), threading.Event()
    gone = Unavailable("the disk is away", retryable=True)

    def cannot(self, *, create: bool) -> bool:
        opened.append(self.ledger.name)
        assert go_on.wait(30)
        raise gone

    monkeypatch.setattr(OpenAgent, "open", cannot)
    with ThreadPoolExecutor(5) as crew:
        first = crew.submit(store.agent("bob").history)
        while not opened:
            go_on.wait(0.01)
        others = [crew.submit(store.agent("bob").usage) for _ in range(4)]
        while len(store._agents._changed._waiters) < len(others):
            go_on.wait(0.01)
        go_on.set()
        heard = [future.exception(30) for future in (first, *others)]
    assert [str(error) for error in heard] == ["the disk is away"] * 5
    assert all(isinstance(error, Unavailable) and error.retryable for error in heard)
    assert len({id(error) for error in heard}) == 5, "each has its own traceback"
    assert opened == ["bob"]
    monkeypatch.undo()
    assert len(store.agent("bob").history()) == 1


def test_threads_and_descriptors_do_not_grow_with_the_agents(open_store):
    """200 agents; at most 40 threads and 400 descriptors, as the design promises."""
    store = open_store()
    process = psutil.Process()
    before = (process.num_fds(), process.num_threads())
    for n in range(200):
        agent = store.agent(f"agent {n}")
        agent.submit("user", "Hello").result(timeout=30)
        agent.save("user", "Hello again")
        assert len(agent.history()) == 2
        if n % 10 == 9:
            assert process.num_fds() - before[0] <= 400
            assert process.num_threads() - before[1] <= 40
    assert len(store.agents()) == 200


def test_many_threads_share_few_agents_places(open_store):
    """Eight threads over eight agents with room for two: each waits its turn, none fails."""
    store = open_store(max_open_agents=2)
    store.agent("agent 0").save("user", "First")
    barrier = threading.Barrier(8)

    def work(mine):
        barrier.wait(timeout=30)
        for n in range(10):
            agent = store.agent(f"agent {(mine + n) % 8}")
            agent.save("user", f"{mine} {n}", id=f"{mine}-{n}")
            assert agent.get(f"{mine}-{n}") is not None

    with ThreadPoolExecutor(8) as crew:
        list(crew.map(work, range(8)))
    assert sum(agent.messages for agent in store.usage().agents) == 81


def test_readers_beyond_the_limit_wait_and_then_are_busy(open_store):
    store = alone(open_store(max_connections=2, read_timeout_s=0.05))
    bob = store.agent("bob")
    bob.save(**MESSAGE)
    with store._agents.use("bob", create=False) as agent:
        with agent.ledger.reading(), agent.ledger.reading():
            with pytest.raises(Busy, match=r"all 2 readers of this agent.*`max_connections`"):
                bob.history()
            bob.save("user", "Writing needs no reader")
        assert len(in_the_end(bob.history)) == 2


def test_readers_of_the_whole_store_are_bounded_too(open_store):
    store = alone(open_store(max_readers=1, read_timeout_s=0.05))
    for name in ("bob", "eve"):
        store.agent(name).save(**MESSAGE)
    with (
        store._agents.use("bob", create=False) as agent,
        agent.ledger.reading(),
        pytest.raises(Busy, match=r"all 1 readers of the store.*`max_readers`"),
    ):
        store.agent("eve").history()
    assert len(in_the_end(store.agent("eve").history)) == 1


def test_a_read_that_takes_too_long_is_stopped(open_store):
    store = open_store(read_timeout_s=0.05)
    bob = store.agent("bob")
    bob.save(**MESSAGE)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    with (
        store._agents.use("bob", create=False) as agent,
        pytest.raises(Busy, match="`read_timeout_s`"),
        agent.ledger.reading() as db,
    ):
        db.execute(endless).fetchall()
    assert in_the_end(bob.history)[0].id == "one"


def test_no_agent_is_forgotten_while_another_is_put_aside(open_store):
    """While one is deleted or renamed, others come and go beside it, and all are closed."""
    process = psutil.Process()
    before = process.num_fds()
    store = open_store(max_open_agents=2)
    for name in ("bob", "eve", "amy"):
        store.agent(name).save(**MESSAGE)
    with store._agents.put_aside("new"):
        for name in ("bob", "eve", "amy", "bob"):
            assert len(store.agent(name).history()) == 1
            assert store._agents.open_count <= 2
    store.close()
    gc.collect()
    assert process.num_fds() <= before


def test_a_place_that_nobody_fills_because_of_ctrl_c_is_taken_by_the_next(open_store):
    store = alone(open_store(save_timeout_s=0.05))
    bob = store.agent("bob")
    bob.save(**MESSAGE)
    with store._agents.put_aside("bob"):
        pass
    store._agents._take_place("bob", Use())  # who took it has gone before it was opened
    assert bob.get("one").content == "Hello"
    assert store.delete("bob")
    store._agents._take_place("bob", Use())
    refused = pytest.raises(Busy, match=r"'bob' was being opened, deleted or renamed .*0\.05 s")
    with store._agents.put_aside("bob"), refused:
        bob.save(**MESSAGE)
    assert bob.save(**MESSAGE).new


def test_an_agent_that_cannot_be_put_aside_stays_open(open_store):
    store = alone(open_store(save_timeout_s=0.05))
    bob = store.agent("bob")
    bob.save(**MESSAGE)
    refused = pytest.raises(Busy, match="still in use")
    with store._agents.use("bob", create=False) as used, refused, store._agents.put_aside("bob"):
        pytest.fail("it was in use")
    with store._agents.use("bob", create=False) as again:
        assert again is used
    store.rename("bob", "eve")
    assert held(store.agent("eve")) == {"one": "Hello"}


def test_closing_waits_for_chores_under_way_in_another_thread(open_store):
    store = alone(open_store(save_timeout_s=0.05, max_total_mb=200))
    store.agent("bob").save(**MESSAGE)
    go_on, at_work = threading.Event(), threading.Event()

    def chore() -> None:
        with store._upkeep.chores("bob"):
            at_work.set()
            assert go_on.wait(30)

    with ThreadPoolExecutor(1) as crew:
        future = crew.submit(chore)
        assert at_work.wait(30)
        with pytest.raises(Busy, match=r"1 agents were still in use after 0\.05 s"):
            store.close()
        go_on.set()
        future.result(30)
        store.close()
    assert store._upkeep.sharing._budget._file._db is None
