"""Several programs on one agent at once: nothing lost, nothing doubled, no error, no wait."""

import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import elytron
from elytron import Busy, Conflict
from elytron.graph.client import GraphClient
from elytron.graph.engines import Limits
from elytron.graph.files import GraphFolder
from elytron.graph.held import HeldGraph
from elytron.ledger import ops, surveys, texts
from elytron.ledger.lock import FileLock
from elytron.open_agent import Chase
from elytron.upkeep import archiving
from elytron.upkeep.gate import Gate
from elytron.upkeep.runs import Run
from elytron.write.admission import IdClock
from ledgers import held

pytestmark = pytest.mark.disk  # they meet while they wait for it
Start = Callable[..., "subprocess.Popen[str]"]
BENCH = Path(__file__).parent.parent / "bench" / "processes.py"
ROOMY = {"max_messages_per_agent": 1_000_000, "max_db_size_mb": 2000}
WAIT_S = 60


def loaded(path: Path) -> ModuleType:
    """A script of the bench. That folder is not on the path, where its names would hide others."""
    spec = importlib.util.spec_from_file_location("processes_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["processes_bench"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = loaded(BENCH)


@pytest.mark.parametrize(
    ("settings", "kill_every_s"),
    [(ROOMY, None), ({"max_messages_per_agent": 100}, None), (ROOMY, 1.0)],
    ids=["roomy", "archiving", "killed"],
)
def test_eight_processes_on_one_agent_lose_and_double_nothing_and_meet_no_error(
    tmp_path: Path, settings: dict[str, Any], kill_every_s: float | None
) -> None:
    """For the length of three seconds; `bench/processes.py` does it for minutes."""
    outcome = bench.run(tmp_path, seconds=3, settings=settings, kill_every_s=kill_every_s)
    assert outcome.wrong == []
    assert outcome.messages > 50
    assert {"save", "save_many", "recall", "history"} <= outcome.took_s.keys()
    assert outcome.archived or settings is ROOMY


def told(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


BEGINNING = """
import sys, elytron
from elytron.ledger import opening
def stop(*arguments, **options):
    print("begun", flush=True)
    sys.stdin.readline()
opening.set_up = stop if sys.argv[2] == "in the schema" else opening.set_up
if sys.argv[2] == "before the schema":
    opening.LedgerFile._migrate = stop
elytron.open(sys.argv[1]).agent("bob").save("user", "Hello")
"""


@pytest.mark.parametrize("step", ["before the schema", "in the schema"])
def test_who_reads_an_agent_that_another_process_is_making_finds_nothing_and_nothing_wrong(
    folder: Path,
    start_script: Start,
    bob: elytron.Agent,
    step: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = start_script(BEGINNING, folder, step)
    assert told(process) == "begun"
    assert bob.history() == []
    assert bob.get("one") is None
    assert not bob.exists()
    assert not caplog.records
    process.kill()
    process.wait(timeout=WAIT_S)
    assert bob.save("user", "Hello", id="one").new


def test_a_run_that_begins_while_another_looks_for_dead_ones_is_taken_for_none(
    open_store: Callable[..., elytron.Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_store(), open_store()
    store.agent("bob").save("user", "Hello")
    plain, noted = Run.others, list[tuple[str, str]]()
    with (
        store._agents.upkeep.chores("bob") as ours,
        other._agents.upkeep.chores("bob") as theirs,
    ):
        assert ours is not None
        assert theirs is not None
        desk = theirs.desk

        def others(run: Run) -> set[str]:
            alive = plain(run)
            if run is not desk.run and not noted:  # just now
                noted.append(("run-theirs", desk.run.begin()))
                desk.commit(ops.Move(("run-theirs",), desk.run.token))
            return alive

        monkeypatch.setattr(Run, "others", others)
        archiving.heal(ours.desk)
        assert noted == ours.desk.read(surveys.moving), "it is not taken over"
        assert not archiving.left_behind(ours.desk)


def test_who_is_kept_from_making_room_since_others_do_is_not_told(
    open_store: Callable[..., elytron.Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = open_store(max_messages_per_agent=5).agent("bob")
    for number in range(5):
        bob.save("user", f"Number {number}")
    plain, ended = archiving.archive, [Conflict("another has ended it") for _ in range(7)]

    def archive(*arguments: Any, **options: Any) -> int:
        if ended:
            raise ended.pop()
        return plain(*arguments, **options)

    monkeypatch.setattr(archiving, "archive", archive)
    assert bob.save("user", "One more").new
    assert not ended
    assert bob.usage().messages <= 5


ASKER = """
import sys, time, elytron
with elytron.open(sys.argv[1]) as store:
    bob, last, count = store.agent("bob"), 0, int(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        (row,) = bob.cypher("MATCH (m:Message) RETURN count(m) AS held")
        assert row["held"] >= last >= 0, "an answer is never older than one before"
        last = row["held"]
        print("answered", flush=True)
"""


def test_processes_that_ask_the_graph_are_answered_in_turns_though_one_of_them_is_killed(
    folder: Path, start_script: Start, bob: elytron.Agent
) -> None:
    """Four ask twenty times, a fifth is killed while it asks, and we save meanwhile."""
    bob.save_many([{"role": "user", "content": f"Number {n} of Lyon"} for n in range(200)])
    crew = [start_script(ASKER, folder, 20) for _ in range(4)]
    doomed = start_script(ASKER, folder, 10_000)
    for process in (*crew, doomed):
        assert told(process) == "ready"
    for process in (*crew, doomed):
        go(process)
    for number in range(30):
        bob.save("user", f"Saved meanwhile, number {number}")
        if number == 10:
            assert told(doomed) == "answered"
            doomed.kill()
            doomed.communicate(timeout=WAIT_S)
    for process in crew:
        printed, complaints = process.communicate(timeout=WAIT_S)
        assert (printed, complaints) == ("answered\n" * 20, "")
    (row,) = bob.cypher("MATCH (m:Message) RETURN count(m) AS held")
    assert row == {"held": 230}


def test_who_has_opened_a_graph_also_asks_it_before_it_is_given_up(tmp_path: Path) -> None:
    """Else each opens it for the next one's sake, and nobody is answered."""
    folder = GraphFolder(tmp_path / "graph", "ladybug")
    folder.path.mkdir()
    limits = Limits(buffer_bytes=1 << 26, db_size_bytes=1 << 28, connections=1)
    graph = HeldGraph(ModuleType("no engine"), folder, limits, lambda *_: None)
    graph._hold(time.monotonic() + WAIT_S)
    wanting = FileLock(folder.wanted)
    assert wanting.try_acquire()
    now = time.monotonic()
    graph._held_since, graph.used_at = now - 1, now - 100
    assert not graph.is_wanted(), "not used yet"
    graph._fresh = False
    assert graph.is_wanted()
    graph.used_at = time.monotonic() + WAIT_S
    assert graph.is_wanted(), "in use, and held for long"
    graph._held_since = time.monotonic() + WAIT_S
    assert not graph.is_wanted(), "in use, and held for a moment"
    wanting.close()
    graph._lock.release()


@pytest.mark.parametrize("times", [2, 3])
def test_a_question_whose_time_went_by_while_others_had_the_graph_is_asked_again_in_bounds(
    bob: elytron.Agent, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    bob.save("user", "Hello")
    bob.cypher("RETURN 1 AS one")
    plain, busy = GraphClient.query, [Busy("others have it") for _ in range(times)]

    def query(self: GraphClient, *arguments: Any, **options: Any) -> Any:
        if busy:
            raise busy.pop()
        return plain(self, *arguments, **options)

    monkeypatch.setattr(GraphClient, "query", query)
    if times == 3:
        with pytest.raises(Busy, match="others have it"):
            bob.cypher("RETURN 1 AS one")
    assert bob.cypher("RETURN 1 AS one") == [{"one": 1}]


GRIPPING = """
import contextlib, sys, threading, time, elytron
from elytron.graph.client import GraphClient
from elytron.ledger.lock import FileLock
folder, what = sys.argv[1:]
store = elytron.open(folder)
bob = store.agent("bob")
with contextlib.ExitStack() as stack:
    agent = stack.enter_context(store._agents.use("bob", create=True))
    if what == "the write lock":
        stack.enter_context(agent.ledger._locked(time.monotonic() + 10))
    elif what == "the links":
        stack.enter_context(agent.linking.gate.passing())
    elif what == "a snapshot":
        db = stack.enter_context(agent.ledger.reading(snapshot=True))
        db.execute("SELECT count(*) FROM messages").get
    elif what == "a clean-up":
        stack.enter_context(store._agents.upkeep.chores("bob")).desk.run.begin()
    elif what == "the round of the janitor":
        FileLock(store.path / "janitor.lock").acquire(0, 0)
    elif what == "the graph":
        bob.cypher("RETURN 1 AS one")
    else:
        bob.cypher("RETURN 1 AS one")
        plain, sent = GraphClient._call, threading.Event()
        def call(self, verb, *arguments, **options):
            sent.set()
            return plain(self, verb, *arguments, **options)
        GraphClient._call = call
        slow = "MATCH (a:Message), (b:Message), (c:Message), (d:Message), (e:Message)"
        threading.Thread(target=lambda: bob.cypher(slow + " RETURN count(*)"), daemon=True).start()
        assert sent.wait(30)
    print("held", flush=True)
    sys.stdin.readline()
"""
GRIPS = (
    "the write lock", "the links", "a snapshot", "a clean-up", "the round of the janitor",
    "the graph", "the graph, in a long question",
)  # fmt: skip


@pytest.mark.parametrize("what", GRIPS)
def test_whatever_a_killed_process_held_the_next_one_has_at_once(
    folder: Path, start_script: Start, store: elytron.Store, what: str
) -> None:
    bob, eve = store.agent("bob"), store.agent("eve")
    bob.save_many([{"role": "user", "content": f"Number {n} of Lyon"} for n in range(100)])
    eve.save("user", "Hello")
    eve.cypher("RETURN 1 AS one")  # our own worker is there
    process = start_script(GRIPPING, folder, what)
    assert told(process) == "held"
    process.kill()
    process.wait(timeout=WAIT_S)
    bob.save("user", "After it", id="after")
    bob.flush()
    assert store.cleanup()
    bob.reclaim(full=True)  # no reader may be left
    (row,) = bob.cypher("MATCH (m:Message {id: 'after'}) RETURN count(m) AS held")
    assert row == {"held": 1}
    assert bob.check().ok


def test_a_process_that_is_stopped_is_named_and_keeps_nobody_for_longer_than_was_said(
    folder: Path, start_script: Start, open_store: Callable[..., elytron.Store]
) -> None:
    """With the write lock: `Busy`, and nothing is written; afterwards all goes on."""
    # Without links: a save that waits behind the background's is told of that, and of no process.
    bob = open_store(save_timeout_s=0.3, link_concepts=False).agent("bob")
    bob.save("user", "Before", id="before")
    process = start_script(GRIPPING, folder, "the write lock")
    assert told(process) == "held"
    with pytest.raises(Busy, match=rf"process {process.pid} held .* for 0\.3 s"):
        bob.save("user", "Meanwhile", id="meanwhile")
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)  # until it has stopped
    for verb in (
        lambda: bob.archive(older_than_days=0, keep=0),
        lambda: bob.edit("before", "Edited"),
        lambda: bob.delete("before"),
    ):
        with pytest.raises(Busy, match=f"process {process.pid}, which is stopped, held"):
            verb()
    assert held(bob) == {"before": "Before"}
    os.kill(process.pid, signal.SIGCONT)
    process.communicate("go\n", timeout=WAIT_S)
    assert bob.save("user", "Meanwhile", id="meanwhile").new


def test_a_process_that_was_stopped_while_it_linked_keeps_nobody_from_an_answer(
    folder: Path, start_script: Start, bob: elytron.Agent
) -> None:
    bob.save("user", "I live in Lyon", id="one")
    process = start_script(GRIPPING, folder, "the links")
    assert told(process) == "held"
    os.kill(process.pid, signal.SIGSTOP)
    bob.relate("Lyon", "is in", "France")
    bob.save("user", "Lyon is large", id="two")
    bob.flush()
    (row,) = bob.cypher(
        "MATCH (m:Message)-[:MENTIONS]->(:Concept {name: 'Lyon'}) RETURN count(m) AS mentions"
    )
    assert row == {"mentions": 2}


def test_what_there_was_to_do_ends_though_others_bring_ever_more(tmp_path: Path) -> None:
    steps: list[float] = []

    def step(until_s: float) -> bool:
        steps.append(until_s)
        return True

    chase = Chase(
        step,
        goal=lambda _until_s: lambda: len(steps) == 3,
        gate=Gate(tmp_path / "gate"),
        patience_s=1,
    )
    chase.to_end(timeout_s=30, what="it")
    assert len(steps) == 3
    with chase.gate.passing() as ours:
        assert ours
        assert chase.step() is None, "another has the gate"
    assert chase.step()


def test_older_texts_get_their_turn_of_linking_though_there_are_always_new_ones(
    bob: elytron.Agent,
) -> None:
    bob.save_many([{"role": "user", "content": f"Lyon, day {n}"} for n in range(3)])
    bob.flush()
    bob.relate("Lyon", "is in", "France")
    with bob._agents.use("bob", create=True) as opened:
        assert opened is not None
        with opened.linking.turn:
            for number in range(4):
                bob.save("user", f"Something else, {number}")
                opened.linking._step(math.inf)
            with opened.ledger.reading() as db:
                assert texts.last_unlinked(db) == 0


EMBEDDER = """
import os, sys, elytron
from elytron import open_agent
open_agent._VECTORS_PATIENCE_S = 3600.0  # else one that stands still is taken for one that hangs
folder, name, asked = sys.argv[1:]
asked = os.open(asked, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def embed(texts, kind):
    for text in texts:
        os.write(asked, f"{text}\\n".encode())
    return [[float(len(text)), 1.0, 2.0] for text in texts]
with elytron.open(folder, embedder=embed) as store:
    bob = store.agent("bob")
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(40):
        bob.save("user", f"This is number {number} of {name}, and long enough")
    bob.flush()
    print("done", flush=True)
    sys.stdin.readline()
"""


def test_of_several_processes_one_asks_the_embedder_for_each_text(
    folder: Path, tmp_path: Path, start_script: Start
) -> None:
    crew = [start_script(EMBEDDER, folder, name, tmp_path / "asked") for name in "abc"]
    for process in crew:
        assert told(process) == "ready"
    for process in crew:
        go(process)
    for process in crew:
        assert told(process) == "done"
    for process in crew:
        _, complaints = process.communicate("go\n", timeout=WAIT_S)
        assert not complaints
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert len(set(asked)) == 120
    assert len(asked) == 120


MAKER = """
import sys
from elytron.write.admission import IdClock
clock = IdClock()
sys.stdin.readline()
print("\\n".join(clock.next(1_700_000_000_000_000) for _ in range(20_000)))
"""


def test_processes_at_one_moment_make_ids_of_their_own(start_script: Start) -> None:
    """All by the same reading of the clock, so that only chance tells them apart."""
    crew = [start_script(MAKER) for _ in range(4)]
    made = [process.communicate("go\n", timeout=WAIT_S)[0].split() for process in crew]
    assert all(ids == sorted(ids) for ids in made)
    assert len({one for ids in made for one in ids}) == 4 * 20_000


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**45)), max_size=50))
def test_ids_rise_and_two_clocks_never_make_the_same(steps: list[tuple[bool, int]]) -> None:
    clocks, made = (IdClock(), IdClock()), (list[str](), list[str]())
    for which, now_us in steps:
        made[which].append(clocks[which].next(now_us))
    assert all(ids == sorted(ids) for ids in made)
    assert len({*made[0], *made[1]}) == len(steps)
