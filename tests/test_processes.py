"""Several processes, and processes that die, stop, or fork."""

import os
import signal
from collections import Counter

import pytest

import elytron
from elytron import Busy
from ledgers import check_index, held, marker_path
from quiet import alone

pytestmark = pytest.mark.disk  # they meet while they wait for it

SAVER = """
import sys, elytron
folder, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.readline()
with elytron.open(folder) as store:
    bob = store.agent("bob")
    for number in range(count):
        assert bob.save("user", f"Number {number} of {name}", id=f"{name}-{number}").new
print("done")
"""


def test_four_processes_save_to_one_agent_and_nothing_is_lost_or_doubled(folder, start_script):
    """The agent does not exist yet: all four make it at once."""
    crew = [start_script(SAVER, folder, name, 50) for name in "abcd"]
    for process in crew:  # all wait at the same line
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in crew:
        printed, complaints = process.communicate(timeout=60)
        assert (printed, complaints) == ("done\n", "")
    with elytron.open(folder) as store:
        messages = list(store.agent("bob").messages())
    assert Counter(m.id for m in messages) == Counter(f"{n}-{i}" for n in "abcd" for i in range(50))
    assert sorted(message.position for message in messages) == list(range(200))
    for name in "abcd":  # each process's own order is kept
        ours = [message.id for message in messages if message.id.startswith(name)]
        assert ours == [f"{name}-{number}" for number in range(50)]


def test_two_processes_see_what_the_other_saved(folder, start_script, store, bob):
    bob.save("user", "From the parent", id="parent")
    process = start_script(
        """
        import sys, elytron
        with elytron.open(sys.argv[1]) as store:
            bob = store.agent("bob")
            print(bob.get("parent").content, flush=True)
            bob.save("user", "From the child", id="child")
            bob.edit("parent", "Edited by the child")
        """,
        folder,
    )
    printed, complaints = process.communicate(timeout=60)
    assert (printed, complaints) == ("From the parent\n", "")
    assert held(bob) == {"parent": "Edited by the child", "child": "From the child"}
    assert bob.recall("edited")[0].message.id == "parent"


LOOP = """
import sys, elytron
bob = elytron.open(sys.argv[1]).agent("bob")
number = 0
while True:
    id = f"{sys.argv[2]}-{number}"
    content = f"I am {id} mark{sys.argv[2]}mark{number} " + "word " * (number % 50 * 40)
    bob.save("user", content, id=id, session=f"s{number % 3}")
    print(id, flush=True)
    number += 1
"""


def test_every_receipt_of_a_killed_process_is_true(folder, start_script):
    """Ten rounds on one store: SIGKILL after so many receipts, at whatever it is doing then."""
    receipts: list[str] = []
    for number in range(10):
        process = start_script(LOOP, folder, number)
        for _ in range(5 + 13 * number):
            receipts.append(process.stdout.readline().strip())
        process.kill()
        rest = process.stdout.read()  # `communicate` passes over what `readline` has read ahead
        process.wait(timeout=60)
        receipts += [line for line in rest.split("\n")[:-1] if line]
        with elytron.open(folder) as store:
            shown = held(store.agent("bob"))
            assert set(receipts) <= set(shown)
            assert len(shown) <= len(receipts) + number + 1, "at most one more in each round"
            assert all(content.startswith(f"I am {key} ") for key, content in shown.items())
            for key in receipts[-3:]:
                mark = "mark" + key.replace("-", "mark")
                assert store.agent("bob").recall(mark)[0].message.id == key
        check_index(folder)


BEGIN = """
import sys, elytron
from elytron.ledger import files
step = sys.argv[2]
def stop(*_args, **_kwargs):
    print("here", flush=True)
    sys.stdin.readline()
    raise AssertionError("was to be killed")
if step == "before the store":
    files.make_store = stop
elif step == "before the marker":
    files.write_marker = stop
elif step == "before the marker's rename":
    from pathlib import Path
    real = Path.replace
    Path.replace = lambda self, target: stop() if "ledger" in self.name else real(self, target)
elif step == "before the schema":
    from elytron.ledger import opening
    opening.LedgerFile._migrate = stop
elif step == "in the schema":
    from elytron.ledger import opening
    opening.set_up = stop
elytron.open(sys.argv[1]).agent("bob").save("user", "Hello", id="one")
"""
STEPS = (
    "before the store", "before the schema", "in the schema", "before the marker",
    "before the marker's rename",
)  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_while_it_begins_an_agent_leaves_nothing_in_the_way(
    folder, start_script, step
):
    process = start_script(BEGIN, folder, step)
    assert process.stdout.readline() == "here\n"
    process.kill()
    process.communicate(timeout=60)
    assert not marker_path(folder).exists()
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        assert bob.history() == []
        assert bob.usage().messages == 0
        assert bob.save("user", "Hello", id="one").new
    with elytron.open(folder) as store:
        assert held(store.agent("bob")) == {"one": "Hello"}


HOLDER = """
import sys, time, elytron
store = elytron.open(sys.argv[1])
store._agents.background.abandon()  # it has the same descriptor, and would give the lock up
bob = store.agent("bob")
bob.save("user", "From elsewhere", id="other-0")
with store._agents.use("bob", create=False) as agent:
    with agent.ledger._locked(time.monotonic() + 10):
        print("held", flush=True)
        sys.stdin.readline()
bob.save("user", "From elsewhere", id="other-1")
store.close()
print("done", flush=True)
"""


def test_a_stopped_process_that_holds_the_lock_makes_others_busy_and_no_more(
    open_store, folder, start_script
):
    process = start_script(HOLDER, folder)
    assert process.stdout.readline() == "held\n"
    os.kill(process.pid, signal.SIGSTOP)
    bob = alone(open_store(save_timeout_s=0.2).agent("bob"))
    for verb in (
        lambda: bob.save("user", "From us", id="us"),
        lambda: bob.save_many([{"role": "user", "content": "From us", "id": "us"}]),
        lambda: bob.submit("user", "From us", id="us").result(timeout=30),
        lambda: bob.edit("other-0", "Edited"),
        lambda: bob.delete("other-0"),
        lambda: bob.delete_session("default"),
    ):
        with pytest.raises(Busy, match=r"0\.2 s"):
            verb()
    assert held(bob) == {"other-0": "From elsewhere"}, "reading goes on, and shows what was"
    assert [hit.message.id for hit in bob.recall("elsewhere")] == ["other-0"]
    os.kill(process.pid, signal.SIGCONT)
    printed, complaints = process.communicate("go\n", timeout=60)
    assert (printed, complaints) == ("done\n", "")
    assert bob.save("user", "From us", id="us").new
    assert list(held(bob)) == ["other-0", "other-1", "us"]


def test_a_killed_process_gives_its_lock_up_at_once(open_store, folder, start_script):
    process = start_script(HOLDER, folder)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.communicate(timeout=60)
    bob = open_store(save_timeout_s=0.2).agent("bob")
    assert bob.save("user", "From us", id="us").new


FORKED_HOLDER = """
import os, sys, time, elytron
store = elytron.open(sys.argv[1])
store._agents.background.abandon()
bob = store.agent("bob")
bob.save("user", "From elsewhere", id="other-0")
with store._agents.use("bob", create=False) as agent:
    with agent.ledger._locked(time.monotonic() + 10):
        if os.fork() == 0:  # as a pool of workers does; it outlives its parent
            sys.stdin.readline()
            os._exit(0)
        print("held", flush=True)
        time.sleep(60)
"""


def test_a_killed_process_gives_its_lock_up_though_its_fork_lives_on(
    open_store, folder, start_script
):
    """A `flock` belongs to all who share the descriptor, and a fork shares it."""
    process = start_script(FORKED_HOLDER, folder)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait(timeout=60)
    bob = open_store(save_timeout_s=0.2).agent("bob")
    assert bob.save("user", "From us", id="us").new


FORK = """
import os, sys, warnings, elytron
from elytron import Forked
sys.path.insert(0, sys.argv[3])
from every_verb import calls

warnings.simplefilter("ignore", DeprecationWarning)  # forking beside a thread is the point
store = elytron.open(sys.argv[1])
bob = store.agent("bob")
bob.save("user", "Before the fork", id="before")
future = bob.submit("user", "Submitted before the fork", id="submitted")
bob.flush()
assert bob.cypher("RETURN 1 AS one") == [{"one": 1}]  # its worker has the pipes, and a thread
verbs = calls(store, bob)

reading = bob.messages()
next(reading)
child = os.fork()
if child == 0:
    for name, verb in verbs.items():
        try:
            verb()
        except Forked as error:
            assert "open the store anew" in str(error)
        else:
            print(name, "was not refused", flush=True)
    if sys.argv[2] == "opens anew":
        with elytron.open(sys.argv[1]) as anew:
            anew.agent("bob").save("user", "From the child", id="child")
    if sys.argv[2] == "closes":
        store.close()
        store.close()
    if sys.argv[2] == "vanishes":
        os._exit(0)
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
for number in range(100):
    bob.save("user", f"After the fork {number}", id=f"after-{number}")
bob.submit("user", "Submitted after the fork", id="submitted after").result(timeout=30)
assert len(list(reading)) >= 1
held = [m.id for m in bob.messages()]
assert bob.cypher("RETURN 1 AS one") == [{"one": 1}]
store.close()
with elytron.open(sys.argv[1]) as store:
    assert [m.id for m in store.agent("bob").messages()] == held
print(len(held), "child" in held)
"""


@pytest.mark.parametrize("end", ["exits", "closes", "vanishes", "opens anew"])
def test_a_fork_is_refused_by_every_verb_and_leaves_its_parent_whole(folder, run_script, end):
    count = 103 + (end == "opens anew")
    printed = run_script(FORK, folder, end, os.path.dirname(__file__))
    assert printed == f"{count} {end == 'opens anew'}\n"
