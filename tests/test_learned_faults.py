"""
What was learned is true, whichever call to the disk fails, whoever dies, and whoever else writes.

Method as in `test_faults.py`: fail the 1st call of a kind, then the 2nd, until a run ends with no
fault fired. A verb that returned has been done; one that raised has done nothing, but for
`OutcomeUnknown`; and done once more it is done.
"""

import itertools
import shutil
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest

import elytron
from elytron import Agent, Config, ElytronError, OutcomeUnknown, Store
from faulty_disk import NAME, FaultyDisk

SETTINGS = Config(link_concepts=False)
THEN = datetime(2024, 5, 8, tzinfo=UTC)
FAULTS = [("xWrite", apsw.IOError), ("xSync", apsw.IOError), ("xRead", apsw.IOError)]

VERBS: dict[str, Callable[[Agent], object]] = {
    "remember": lambda bob: bob.remember(
        "New " + "word " * 3000, id="new", about=["Alice", "New"], session="new", replaces="old"
    ),
    "edit": lambda bob: bob.edit_memory("old", "Edited"),
    "close": lambda bob: bob.close_memory("old", at=THEN),
    "delete": lambda bob: bob.delete_memory("old"),
    "relate": lambda bob: bob.relate(
        "Alice", "lives in", "Paris", replaces=True, valid_from=THEN
    ),
    "unrelate": lambda bob: bob.unrelate("Alice", at=THEN),
    "rename": lambda bob: bob.set_concept("Alice", rename="Alicia"),
    "delete concept": lambda bob: bob.delete_concept("Alice"),
}  # fmt: skip


@pytest.fixture(scope="module")
def disk() -> Iterator[FaultyDisk]:
    disk = FaultyDisk()
    yield disk
    disk.unregister()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "store"
    with Store(folder, SETTINGS) as store:
        bob = store.agent("bob")
        bob.remember("Old " + "word " * 2000, id="old", about=["Alice", "Lyon"])
        bob.relate("Alice", "lives in", "Lyon")
        bob.relate("Alice", "knows", "Bruno")
    return folder


def knowledge(bob: Agent) -> tuple[Any, ...]:
    """All that is known, but for the times that the clock gave."""
    memories = [bob.get_memory(name) for name in ("old", "new")]
    return (
        [one and (one.content, one.about, one.session, bool(one.valid_to)) for one in memories],
        [(one.name, one.mentions) for one in bob.concepts()],
        [(one.source, one.relation, one.target, one.valid_to) for one in bob.relations()],
        [(one.source, one.target) for one in bob.relations(as_of=datetime(2020, 1, 1, tzinfo=UTC))],
    )


def known(folder: Path) -> tuple[Any, ...]:
    with Store(folder, SETTINGS) as store:
        bob = store.agent("bob")
        assert bob.check().ok
        return knowledge(bob)


@pytest.mark.parametrize(("call", "error"), FAULTS, ids=str)
@pytest.mark.parametrize("verb", VERBS)
def test_it_is_done_whole_or_not_at_all_whichever_call_fails(
    tmp_path, disk, template, verb, call, error
):
    before = known(template)
    done = tmp_path / "done"
    shutil.copytree(template, done)
    with Store(done, SETTINGS) as store:
        VERBS[verb](store.agent("bob"))
    after = known(done)
    assert after != before
    for nth in itertools.count(1):
        folder = tmp_path / str(nth)
        shutil.copytree(template, folder)
        store = Store(folder, SETTINGS, vfs=NAME)
        bob = store.agent("bob")
        bob.get_memory("old")
        disk.arm(call, nth, error)
        try:
            VERBS[verb](bob)
            allowed = [after]
        except OutcomeUnknown:
            allowed = [before, after]
        except ElytronError:
            allowed = [before]
        fired = disk.fired
        disk.disarm()
        store.close()
        with Store(folder, SETTINGS) as again:
            bob = again.agent("bob")
            assert knowledge(bob) in allowed
            if knowledge(bob) == before:
                VERBS[verb](bob)
        assert known(folder) == after
        shutil.rmtree(folder)
        if not fired:
            assert nth > 1
            return


LOOP = """
import sys, elytron
bob = elytron.open(sys.argv[1]).agent("bob")
number = 0
while True:
    id = f"{sys.argv[2]}-{number}"
    before = f"{sys.argv[2]}-{number - 1}" if number else None
    bob.remember(f"I am {id} " + "word " * (number % 50 * 40), id=id, replaces=before,
                 about=["Alice", id], session=f"s{number % 3}")
    bob.relate("Alice", "is at", id, replaces=True)
    print(id, flush=True)
    number += 1
"""


def test_what_a_killed_process_learned_is_there_and_whole(folder, start_script):
    for number in range(5):
        process = start_script(LOOP, folder, number)
        for _ in range(3 + 9 * number):
            last = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
        printed, _ = process.communicate(timeout=60)
        last = [last, *printed.split("\n")[:-1]][-1]
        with elytron.open(folder) as store:
            bob = store.agent("bob")
            held = bob.get_memory(last)
            assert held.about == tuple(sorted(["Alice", last]))
            open_ones = [
                memory.id for memory in bob.memories() if memory.id.startswith(f"{number}-")
            ]
            assert len(open_ones) == 1, "what is replaced is closed in the same commit"
            assert len(bob.relations("Alice", relation="is at")) == 1
            assert bob.check().ok


SAVER = """
import sys, elytron
name = sys.argv[2]
sys.stdin.readline()
with elytron.open(sys.argv[1]) as store:
    bob = store.agent("bob")
    for number in range(40):
        about = ["Alice", f"C{number}"]
        assert bob.remember(f"{number} of {name}", id=f"{name}-{number}", about=about).new
        bob.relate("Alice", "has", f"C{number}")
        bob.relate("Alice", "is at", name, replaces=True)
        bob.save("user", f"Alice and C{number}")
print("done")
"""


def test_four_processes_learn_beside_each_other_and_each_name_is_one_concept(folder, start_script):
    crew = [start_script(SAVER, folder, name) for name in "abcd"]
    for process in crew:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in crew:
        assert process.communicate(timeout=60) == ("done\n", "")
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        assert {memory.id for memory in bob.memories(limit=1000)} == {
            f"{name}-{number}" for name in "abcd" for number in range(40)
        }
        told = bob.concepts(origin="told", limit=1000)
        assert len({concept.name.lower() for concept in told}) == len(told) == 45
        assert len(bob.relations("Alice", relation="has")) == 40, "told four times, noted once"
        assert len(bob.relations("Alice", relation="is at")) == 1
        bob.flush()
        assert bob.concept("Alice").concept.mentions == 320
        assert bob.check().ok
