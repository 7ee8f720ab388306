"""Vectors follow in the background: nobody who saves, or closes, waits for the embedder."""

import os
import time

import pytest

import elytron
from elytron.embed import policy
from elytron.errors import Busy, Closed, EmbedderUnavailable, Forked
from elytron.upkeep import background
from elytron.write.writer import Writer
from embedders import (
    DIM,
    WAIT_S,
    Hashing,
    by_hand,
    check_vectors,
    covered,
    down,
    gate,
    query,
    steps,
)
from ledgers import held
from limits import in_threads

# In a file and on a server.
pytestmark = pytest.mark.ledgers

TEXTS = [f"This is a message number {number}." for number in range(9)]


@pytest.fixture
def at_once(monkeypatch):
    """The background begins as soon as something is saved."""
    monkeypatch.setattr(background, "_QUIET_S", 0.0)
    monkeypatch.setattr(background, "_BACK_OFF_S", 0.01)


def save_all(bob, texts=TEXTS):
    for text in texts:
        bob.save("user", text)


def test_flush_waits_for_the_vectors(open_store):
    bob = open_store(embedder=Hashing()).agent("bob")
    save_all(bob)
    bob.remember("A memory that has one as well.", id="memory")
    bob.flush()
    assert len(covered(bob)) == 10
    check_vectors(bob, dim=DIM)
    bob.flush()


def test_no_write_of_a_flush_waits_longer_than_the_flush_may(open_store, monkeypatch):
    """Method: the deadlines that the writer is given; by the settings it would be 300 s."""
    store = open_store(embedder=Hashing(), save_timeout_s=300)
    bob = by_hand(store.agent("bob"))
    store._agents.background.abandon()
    deadlines, call = {}, Writer.call

    def noted(writer, op, deadline=None):
        deadlines[type(op).__name__] = deadline
        return call(writer, op, deadline)

    monkeypatch.setattr(Writer, "call", noted)
    save_all(bob)
    bob.flush(timeout_s=WAIT_S)
    latest = time.monotonic() + WAIT_S
    for name in ("Link", "AddVectors"):
        assert deadlines[name] is not None
        assert deadlines[name] <= latest


def test_flush_says_that_the_embedder_is_down_and_what_was_saved_is_kept(open_store):
    bob = open_store(embedder=Hashing(fail=down)).agent("bob")
    save_all(bob)
    with pytest.raises(EmbedderUnavailable):
        bob.flush()
    assert len(list(bob.messages())) == 9


def test_they_are_made_without_being_asked_for(open_store, at_once):
    with gate() as last:

        def wait_for_it(texts, _kind):
            if "The last of all messages." in texts:
                last.reached.set()

        bob = open_store(embedder=Hashing(fail=wait_for_it)).agent("bob")
        save_all(bob)
        bob.save("user", "The last of all messages.")
        assert last.reached.wait(WAIT_S)
    bob.flush()
    check_vectors(bob, dim=DIM)
    assert len(covered(bob)) == 10


def test_an_embedder_that_was_down_is_tried_again_without_being_asked_for(open_store, at_once):
    with gate() as answered:
        count = 0

        def fails_twice(_texts, _kind):
            nonlocal count
            count += 1
            if count <= 4:  # each time it is also asked whether it is well
                raise ConnectionError
            answered.reached.set()

        store = open_store(embedder=Hashing(fail=fails_twice))
        bob = store.agent("bob")
        bob._agents.embeddings.calls._check_rested = lambda kind: None
        save_all(bob)
        assert answered.reached.wait(WAIT_S)
    bob.flush()
    assert len(covered(bob)) == 9


def test_who_saves_waits_for_no_embedder(open_store, at_once):
    with gate() as stopped:
        bob = open_store(embedder=Hashing(fail=stopped)).agent("bob")
        bob.save("user", TEXTS[0])
        assert stopped.reached.wait(WAIT_S)
        save_all(bob, TEXTS[1:])
        assert bob.submit("user", "And one more that is submitted.").result(WAIT_S).new
        bob.edit(next(iter(bob.messages())).id, "An edited message, as it is now.")
        assert bob.recall("edited message")[0].message.content.startswith("An edited")
        assert bob.usage().embeddings.reasons == {policy.QUEUED: 10}
        with pytest.raises(Busy):
            bob.flush(timeout_s=0.05)
    bob.flush()
    assert len(covered(bob)) == 10
    check_vectors(bob, dim=DIM)


def test_an_agent_whose_embedder_hangs_keeps_no_other_from_its_place(open_store, at_once):
    with gate() as stopped:
        store = open_store(embedder=Hashing(fail=stopped), max_open_agents=1, save_timeout_s=WAIT_S)
        store.agent("bob").save("user", TEXTS[0])
        assert stopped.reached.wait(WAIT_S)
        carol = store.agent("carol")
        assert carol.save("user", TEXTS[1]).new
        assert store.agent("bob").save("user", TEXTS[2]).new
    for name, count in (("bob", 2), ("carol", 1)):
        agent = store.agent(name)
        agent.flush(timeout_s=WAIT_S)
        assert len(covered(agent)) == count
        check_vectors(agent, dim=DIM)


@pytest.mark.files  # of those on a server more than one stay open
def test_what_was_asked_for_an_agent_that_was_put_to_rest_meanwhile_is_still_written(open_store):
    store = open_store(embedder=Hashing(), max_open_agents=1)
    bob = by_hand(store.agent("bob"))
    save_all(bob)
    agents = bob._agents
    with agents._embedding_of("bob") as first:
        begun = first.begin()
    rows = first.ask(begun)
    store.agent("carol").save("user", "Hello")
    with agents._embedding_of("bob") as second:
        assert second is not first
        assert second.finish(begun, rows).applied
    assert len(covered(bob)) == 9
    check_vectors(bob, dim=DIM)


def test_closing_waits_for_no_call_that_hangs(folder, at_once):
    with gate() as stopped:
        store = elytron.open(folder, embedder=Hashing(fail=stopped))
        bob = store.agent("bob")
        save_all(bob)
        assert stopped.reached.wait(WAIT_S)
        store.close()
        store.close()
        with pytest.raises(Closed):
            bob.save("user", "too late for this one")
        assert not stopped.opened.is_set()
    with elytron.open(folder, embedder=Hashing()) as store:
        bob = store.agent("bob")
        bob.flush()
        assert len(covered(bob)) == 9
        check_vectors(bob, dim=DIM)


def test_who_waits_for_a_vector_hears_that_the_store_is_closed(folder):
    with gate() as stopped:
        store = elytron.open(folder, embedder=Hashing(fail=stopped), save_timeout_s=WAIT_S)
        bob = by_hand(store.agent("bob"))
        save_all(bob)

        def work(number):
            if number == 0:
                with pytest.raises(Closed):
                    bob.embed()
            else:
                assert stopped.reached.wait(WAIT_S)
                store.close()

        in_threads(2, work)


HANGING = """
import sys, threading, elytron
reached = threading.Event()
def embedder(texts, kind):
    reached.set()
    threading.Event().wait()
from elytron.upkeep import background
background._QUIET_S = 0.0
store = elytron.open(sys.argv[1], embedder=embedder)
store.agent("bob").save("user", "This is saved and stays.")
assert reached.wait(60)
if sys.argv[2] == "close":
    store.close()
print("end", flush=True)
"""


def test_a_program_ends_though_its_embedder_hangs(folder, run_script):
    assert run_script(HANGING, folder, "close") == "end\n"
    with elytron.open(folder) as store:
        assert len(list(store.agent("bob").messages())) == 1


def test_a_program_that_forgets_to_close_ends_too(folder, start_script):
    process = start_script(HANGING, folder, "forget")
    printed, _ = process.communicate(timeout=WAIT_S)
    assert (printed, process.returncode) == ("end\n", 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_is_told_to_open_the_store_anew_and_the_parent_goes_on(folder, run_script):
    printed = run_script(
        """
        import os, sys, threading, elytron, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        import numpy as np
        def embedder(texts, kind):
            return np.eye(4)[[len(text) % 4 for text in texts]]
        store = elytron.open(sys.argv[1], embedder=embedder)
        bob = store.agent("bob")
        bob.save("user", "This is a message of the parent.", id="one")
        bob.flush()
        child = os.fork()
        if child == 0:
            try:
                for verb in (bob.flush, bob.embed, lambda: bob.recall("parent")):
                    try:
                        verb()
                    except elytron.Forked:
                        pass
                    else:
                        os._exit(1)
                store.close()
                with elytron.open(sys.argv[1], embedder=embedder) as own:
                    own.agent("bob").save("user", "This is a message of the child.", id="two")
                    own.agent("bob").flush()
                os._exit(0)
            finally:
                os._exit(2)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        bob.save("user", "This is another of the parent.", id="three")
        bob.flush()
        print(sum(bob.usage().embeddings.reasons[key] for key in ("embedded",)))
        store.close()
        """,
        folder,
    )
    assert printed == "0\n3\n"
    assert Forked.__name__ == "Forked"


WORKER = """
import sys, elytron
sys.path.insert(0, sys.argv[3])
from embedders import Hashing
name = sys.argv[2]
with elytron.open(sys.argv[1], embedder=Hashing(), embed_batch_max=3) as store:
    bob = store.agent("bob")
    sys.stdin.readline()
    for number in range(40):
        bob.save("user", f"Message {number % 25}, which both of them say.", id=f"{name}{number}")
        if number % 5 == 4:
            bob.flush(timeout_s=60)
    bob.flush(timeout_s=60)
print("done")
"""


def test_two_processes_embed_the_same_agent_and_nothing_is_doubled_or_lost(folder, start_script):
    crew = [start_script(WORKER, folder, name, os.path.dirname(__file__)) for name in "ab"]
    for process in crew:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in crew:
        assert process.communicate(timeout=WAIT_S) == ("done\n", "")
    with elytron.open(folder, embedder=Hashing()) as store:
        bob = by_hand(store.agent("bob"))
        assert len(covered(bob)) == 80
        assert query(bob, "SELECT count(*) FROM vectors") == [(25,)]
        check_vectors(bob, dim=DIM)
        assert bob.check().findings == ()


KILLED = """
import sys, elytron
sys.path.insert(0, sys.argv[3])
from embedders import Hashing
from elytron.upkeep import background, embedding
background._QUIET_S, embedding.FIT_MIN = 0.0, 30
store = elytron.open(sys.argv[1], embedder=Hashing(), embed_batch_max=3, vector_dims=4)
bob = store.agent("bob")
number = 0
while True:
    bob.save("user", f"Message {number % 70} is said in each round.", id=f"{sys.argv[2]}-{number}")
    print(number, flush=True)
    if number % 7 == 6:
        bob.delete(f"{sys.argv[2]}-{number - 3}")
    if number % 9 == 8:
        bob.flush(timeout_s=60)
    number += 1
"""


def receipts(number, lines):
    """What a round that printed these has saved for sure, and what it may have besides."""
    assert lines == [str(n) for n in range(len(lines))]
    last = len(lines) - 1
    gone = {n - 3 for n in range(last) if n % 7 == 6}
    unsure = {last + 1} | ({last - 3} if last % 7 == 6 else set())
    sure = set(range(len(lines))) - gone - unsure
    return ({f"{number}-{n}" for n in some} for some in (sure, unsure))


def test_killed_at_any_moment_nothing_is_lost_or_stale(folder, start_script):
    there, may_be = set(), set()
    for number in range(6):
        process = start_script(KILLED, folder, number, os.path.dirname(__file__))
        lines = [process.stdout.readline().strip() for _ in range(5 + 9 * number)]
        process.kill()
        rest = process.stdout.read()  # `communicate` passes over what `readline` has read ahead
        process.wait(timeout=WAIT_S)
        sure, not_sure = receipts(number, lines + rest.split("\n")[:-1])
        there |= sure
        may_be |= not_sure
        with elytron.open(folder, embedder=Hashing(), vector_dims=4) as store:
            bob = by_hand(store.agent("bob"))
            assert there <= held(bob).keys() <= there | may_be
            check_vectors(bob)
            assert bob.check().findings == ()
            if number % 2:
                steps(bob)
                assert len(covered(bob)) == len(list(bob.messages()))
                check_vectors(bob)


def test_what_was_edited_is_embedded_though_the_change_was_forgotten(open_store):
    """More changes than are kept pass before the first step."""
    bob = by_hand(open_store(embedder=Hashing(), change_max=100).agent("bob"))
    save_all(bob)
    steps(bob)
    first = next(iter(bob.messages())).id
    bob.edit(first, "An edited message, as it is now.")
    for number in range(150):
        bob.save("user", f"Another message, of the number {number}.")
    assert len(covered(bob)) == 8
    steps(bob)
    assert len(covered(bob)) == 159
    check_vectors(bob, dim=DIM)


def test_while_some_save_and_edit_others_recall_and_embed(open_store):
    store = open_store(embedder=Hashing(), embed_batch_max=4, exact_vectors_max=20)
    bob = store.agent("bob")
    save_all(bob)

    def work(number):
        for turn in range(15):
            if number == 0:
                bob.save("user", f"Thread {number} says its line {turn}.", id=f"t{turn}")
            elif number == 1:
                bob.flush(timeout_s=WAIT_S)
            elif number == 2:
                bob.embed()
            elif number == 3 and turn % 5 == 4:
                bob.delete(f"t{turn - 4}")
            else:
                assert bob.recall("which message has the number 3?")

    in_threads(5, work)
    bob.flush(timeout_s=WAIT_S)
    check_vectors(bob, dim=DIM)
    assert len(covered(bob)) == len(list(bob.messages()))
