"""
The budget: never more is given than there is, whoever asks, dies, or damages its file.

The numbers are small, so that exact fits and refusals happen.
"""

import gc
import itertools
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from elytron import Busy
from elytron.ledger.budget import Budget
from elytron.ledger.lock import FileLock
from test_interrupts import interrupted

TIMEOUT_S = 30.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "budget.db"


@pytest.fixture
def open_budget(path: Path) -> Iterator[Callable[..., Budget]]:
    """A budget of 100 bytes, counted; closed after the test."""
    opened: list[Budget] = []

    def open_one(**changed) -> Budget:
        budget = Budget(path, **{"total_bytes": 100, "timeout_s": TIMEOUT_S, **changed})
        opened.append(budget)
        if budget.needs_recount:
            budget.recount({})
        return budget

    yield open_one
    for budget in opened:
        budget.close()


@pytest.fixture
def budget(open_budget) -> Budget:
    return open_budget()


def die(budget: Budget) -> None:
    """What is left when the process of a budget is killed: its rows, and files without locks."""
    budget._file.close()
    if budget._life is not None:
        budget._life.close()


# -- the verbs


@pytest.mark.parametrize(
    ("free", "need", "step", "growth"),
    [
        (100, 10, 30, 30),  # a whole step
        (20, 10, 30, 20),  # what is there is enough
        (10, 10, 30, 10),
        (9, 10, 30, 0),
        (100, 40, 30, 40),  # the need is more than a step
        (0, 0, 30, 0),
        (5, 0, 0, 0),
    ],
)
def test_taking_gives_a_step_or_what_is_free_but_no_less_than_the_need(
    budget, free, need, step, growth
):
    budget.recount({"bob": 0, "eve": 100 - free})
    assert budget.take("bob", need_bytes=need, step_bytes=step) == growth
    assert budget.grant("bob") == growth
    assert budget.free_bytes() == free - growth


def test_settling_lowers_a_grant_and_never_raises_it(budget):
    assert budget.settle("bob", 10) == 0
    budget.take("bob", need_bytes=50, step_bytes=50)
    assert budget.settle("bob", 60) == 50
    assert budget.settle("bob", 20) == 20
    assert (budget.grant("bob"), budget.free_bytes()) == (20, 80)
    budget.forget("bob")
    budget.forget("eve")
    assert (budget.uses(), budget.free_bytes()) == ({}, 100)


def test_a_reserve_is_counted_once_an_agent_and_changed_by_asking_again(budget):
    assert budget.reserve("bob", 40)
    assert budget.reserve("bob", 40)
    assert budget.reserved_bytes() == 40
    assert budget.reserve("eve", 60)
    assert not budget.reserve("amy", 1)
    assert not budget.reserve("bob", 41)
    assert budget.reserved_bytes() == 100
    assert budget.reserve("bob", 10)
    assert budget.free_bytes() == 30
    budget.release("bob")
    budget.release("bob")
    assert budget.reserved_bytes() == 60


def test_two_budgets_on_one_agent_have_a_reserve_each(budget, open_budget):
    other = open_budget()
    assert budget.reserve("bob", 40)
    assert other.reserve("bob", 40)
    assert budget.free_bytes() == 20
    other.release("bob")
    assert other.free_bytes() == 60


def test_nobody_is_granted_anything_before_the_store_is_counted(path):
    """The store may have been there before its total was set."""
    budget = Budget(path, total_bytes=100, timeout_s=TIMEOUT_S)
    assert budget.needs_recount
    assert budget.take("bob", need_bytes=1, step_bytes=1) == 0
    assert not budget.reserve("bob", 1)
    assert budget.free_bytes() == 0
    budget.close()
    budget = Budget(path, total_bytes=100, timeout_s=TIMEOUT_S)
    assert budget.needs_recount, "whoever made it died before the count"
    budget.recount({"bob": 70, "eve": 50})
    assert not budget.needs_recount
    assert (budget.uses(), budget.free_bytes()) == ({"bob": 70, "eve": 50}, -20)
    assert budget.take("eve", need_bytes=1, step_bytes=1) == 50
    budget.settle("bob", 40)
    assert budget.take("eve", need_bytes=1, step_bytes=30) == 60
    budget.close()


def test_recounting_raises_forgets_and_leaves_those_that_are_being_written(budget):
    budget.recount({"low": 10, "high": 10, "gone": 10, "written": 10})
    budget.reserve("written", 5)
    budget.recount({"low": 20, "high": 5, "new": 7})
    assert budget.uses() == {"low": 20, "high": 10, "new": 7, "written": 10}


def test_a_dead_writers_reserve_is_kept_as_far_as_its_wal_is_still_there(open_budget):
    wals = {"bob": 15, "eve": 0, "amy": 40}
    dead, budget = open_budget(wal_bytes=wals.__getitem__), open_budget(wal_bytes=wals.__getitem__)
    for agent in wals:
        assert dead.reserve(agent, 20)
    assert budget.reserve("amy", 20)
    die(dead)
    assert budget.free_bytes() == 20, "nobody needed the room yet"
    assert budget.take("zoe", need_bytes=60, step_bytes=0) == 60
    assert budget.reserved_bytes() == 35, "amy is written here, so her WAL is counted"
    assert not budget.reserve("bob", 21)
    assert budget.reserve("bob", 20), "the WAL that is there is the one that it is for"
    assert (budget.reserved_bytes(), budget.free_bytes()) == (40, 0)


def test_the_sign_of_life_of_one_who_died_with_no_reserve_is_tidied_away(path, budget, open_budget):
    dead = open_budget()
    dead.reserve("bob", 1)
    dead.release("bob")
    die(dead)
    stray = path.with_name("budget.not-ours.live")
    stray.touch()
    assert len(list(path.parent.glob("*.live"))) == 2
    assert budget.take("bob", need_bytes=101, step_bytes=0) == 0
    assert list(path.parent.glob("*.live")) == [stray]


def test_closing_gives_everything_back(path, open_budget):
    open_budget().close()
    before, opened = sorted(path.parent.iterdir()), len(os.listdir("/dev/fd"))
    for _ in range(3):
        budget = open_budget()
        assert budget.reserve("bob", 100)
        assert len(os.listdir("/dev/fd")) <= opened + 3
        budget.close()
        budget.close()
    assert sorted(path.parent.iterdir()) == before
    gc.collect()
    assert len(os.listdir("/dev/fd")) <= opened
    Budget(path.with_name("never"), total_bytes=1, timeout_s=1).close()
    assert sorted(path.parent.iterdir()) == before, "nothing is opened before the first verb"


def test_whoever_holds_the_budget_makes_others_busy_and_no_more(path, open_budget):
    budget = open_budget(timeout_s=0.05)
    lock = FileLock(path.with_suffix(".lock"))
    lock.acquire(0.0, 0.0)
    with pytest.raises(Busy, match=r"0\.05 s"):
        budget.take("bob", need_bytes=1, step_bytes=1)
    lock.close()
    db = apsw.Connection(str(path))
    db.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Busy):
        budget.take("bob", need_bytes=1, step_bytes=1)
    db.close()
    inside, ended = threading.Event(), threading.Event()
    holder = threading.Thread(
        target=lambda: budget._run(lambda _: (inside.set(), ended.wait(TIMEOUT_S)))
    )
    holder.start()
    inside.wait(TIMEOUT_S)
    with pytest.raises(Busy, match=r"0\.05 s"):
        budget.take("bob", need_bytes=1, step_bytes=1)
    ended.set()
    holder.join()
    assert budget.take("bob", need_bytes=1, step_bytes=1) == 1


# -- threads and processes


def test_eight_threads_that_take_at_once_never_get_more_than_there_is(budget):
    began = threading.Barrier(8)
    lowest = []

    def work(number: int) -> None:
        dice, agent = random.Random(number), f"agent-{number % 5}"
        began.wait(TIMEOUT_S)
        budget.take(agent, need_bytes=0, step_bytes=100)
        began.wait(TIMEOUT_S)  # all is given, and nobody has given any back
        lowest.append(budget.free_bytes())
        began.wait(TIMEOUT_S)
        for _ in range(20):
            budget.take(agent, need_bytes=dice.randrange(9), step_bytes=dice.randrange(20))
            budget.reserve(f"agent-{number}", dice.randrange(15))
            lowest.append(budget.free_bytes())
            budget.settle(agent, dice.randrange(40))

    crew = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(TIMEOUT_S)
    assert len(lowest) == 168
    assert min(lowest) == 0, "the last byte was given, and no more"


TAKER = """
import random, sys
from pathlib import Path
from elytron.ledger.budget import Budget
budget = Budget(Path(sys.argv[1]), total_bytes=100, timeout_s=30)
dice = random.Random(sys.argv[2])
print(budget.grant("bob"), flush=True)
sys.stdin.readline()
lowest = 100
for _ in range(60):
    agent = dice.choice("abcd")
    budget.take(agent, need_bytes=dice.randrange(9), step_bytes=dice.randrange(20))
    budget.reserve(dice.choice("abcd"), dice.randrange(15))
    lowest = min(lowest, budget.free_bytes())
    budget.settle(agent, dice.randrange(40))
print(lowest, flush=True)
budget.close()
"""


def test_four_processes_that_take_at_once_never_get_more_than_there_is(path, budget, start_script):
    crew = [start_script(TAKER, path, name) for name in "abcd"]
    for process in crew:
        assert process.stdout.readline() == "0\n"
    # So the first of them to look finds nothing free, in whatever order they have their turns.
    assert budget.take("a", need_bytes=0, step_bytes=100) == 100
    for process in crew:
        process.stdin.write("go\n")
        process.stdin.flush()
    lowest = []
    while any(process.poll() is None for process in crew):
        lowest.append(budget.free_bytes())
    for process in crew:
        printed, complaints = process.communicate(timeout=60)
        assert not complaints, complaints
        lowest.append(int(printed))
    assert min(lowest) == 0
    assert budget.reserved_bytes() == 0
    assert budget.free_bytes() == 100 - sum(budget.uses().values())


RESERVER = """
import os, sys
from pathlib import Path
from elytron.ledger.budget import Budget
budget = Budget(Path(sys.argv[1]), total_bytes=100, timeout_s=30)
assert budget.reserve("bob", 60)
if len(sys.argv) > 2 and os.fork() == 0:  # as a pool of workers does; it outlives its parent
    budget.close()
    print("reserved", flush=True)
    sys.stdin.readline()
    os._exit(0)
if len(sys.argv) == 2:
    print("reserved", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("with_fork", [(), ("fork",)], ids=["alone", "with a fork"])
def test_reserves_of_a_killed_process_are_given_back_and_of_a_stopped_one_are_not(
    path, budget, start_script, with_fork
):
    process = start_script(RESERVER, path, *with_fork)
    assert process.stdout.readline() == "reserved\n"
    os.kill(process.pid, signal.SIGSTOP)
    assert budget.take("eve", need_bytes=41, step_bytes=41) == 0
    assert not budget.reserve("eve", 41)
    assert budget.reserved_bytes() == 60
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert budget.take("eve", need_bytes=41, step_bytes=41) == 41
    assert budget.reserved_bytes() == 0
    assert not list(path.parent.glob("*.live"))


BELIEVER = """
import itertools, random, sys
from pathlib import Path
from elytron.ledger.budget import Budget
budget = Budget(Path(sys.argv[1]), total_bytes=1000, timeout_s=30)
dice = random.Random(sys.argv[2])
for number in itertools.count():
    believed = budget.take("bob", need_bytes=1, step_bytes=dice.randrange(50))
    print(believed, flush=True)
    budget.reserve(f"agent {number} " + "x" * 300, 1)  # so that the file grows by pages
    used = dice.randrange(believed + 1)
    print(used, flush=True)
    budget.settle("bob", used)
"""


def test_a_process_killed_at_any_time_leaves_no_number_below_what_it_believed(
    path, open_budget, start_script
):
    """Ten rounds on one file: SIGKILL after so many lines, at whatever it is doing then."""
    budget = open_budget(total_bytes=1000)
    for number in range(10):
        process = start_script(BELIEVER, path, number)
        for _ in range(1 + 7 * number):
            believed = process.stdout.readline()
        process.kill()
        lines = [believed, *process.stdout]
        _, complaints = process.communicate(timeout=60)
        assert not complaints, complaints
        whole = [int(line) for line in lines if line.endswith("\n")]
        fresh = open_budget(total_bytes=1000)
        assert fresh.grant("bob") == budget.grant("bob") >= whole[-1]
        assert fresh.free_bytes() >= 0
        assert fresh.take("bob", need_bytes=0, step_bytes=1001) <= 1000
        assert fresh.reserved_bytes() == 0
        fresh.settle("bob", 0)
    assert not path.with_name("budget.db.damaged").exists()


FORK = """
import os, sys
from pathlib import Path
from elytron.ledger.budget import Budget
budget = Budget(Path(sys.argv[1]), total_bytes=100, timeout_s=30)
assert budget.reserve("bob", 10)
child = os.fork()
if child == 0:
    budget.close()
    anew = Budget(Path(sys.argv[1]), total_bytes=100, timeout_s=30)
    assert anew.reserve("bob", 20)
    anew.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert budget.reserved_bytes() == 10
assert budget.take("bob", need_bytes=90, step_bytes=0) == 90
budget.close()
"""


def test_a_forked_child_leaves_its_parents_budget_alone(path, budget, run_script):
    run_script(FORK, path)
    assert (budget.uses(), budget.reserved_bytes()) == ({"bob": 90}, 0)


@pytest.mark.parametrize("verb", ["take", "reserve"])
def test_a_verb_interrupted_anywhere_leaves_the_budget_usable(open_budget, verb):
    """
    Method: interrupt where Python first looks for signals, then where it does so next, and so
    on, until a run ends without it. Afterwards the same budget and another can go on.
    """
    other = open_budget(timeout_s=1.0)
    for nth in itertools.count(1):
        budget = open_budget(timeout_s=1.0)
        if verb == "take":
            where = interrupted(lambda b=budget: b.take("bob", need_bytes=1, step_bytes=1), nth)
        else:
            where = interrupted(lambda b=budget: b.reserve("bob", 30), nth)
        assert other.free_bytes() >= 0, where
        assert budget.reserve("bob", 30), where
        other.settle("bob", 0)
        budget.close()
        assert other.reserved_bytes() == 0, where
        if not where:
            assert nth > 50
            return
