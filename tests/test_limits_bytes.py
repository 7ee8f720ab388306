"""`max_db_size_mb` and `wal_limit_mb` at every moment, as the file system shows them."""

import random

import pytest

import elytron
from elytron import Busy, OutcomeUnknown, OverBudget
from ledgers import held, ledger_path
from limits import check_order, everything, in_threads, sampled, sizes, watched
from patience import in_the_end
from quiet import at_rest

MB = 1 << 20
SMALL = {"max_db_size_mb": 1.5, "wal_limit_mb": 0.25, "reserve_mb": 0, "keep_messages": 0}
LIMIT = int(1.5 * MB)
WAL = MB // 4


def prose(number: int, length: int = 700) -> str:
    dice = random.Random(number)
    words = " ".join(f"{dice.randrange(16**5):05x}" for _ in range(length // 6))
    return f"Message {number} says word{number}: {words}"


def check_bounds(*sampled_sizes: list[tuple[int, int]], wal_times: float = 1) -> None:
    found = [size for some in sampled_sizes for size in some]
    assert found
    assert max(file + wal for file, wal in found) <= LIMIT
    assert max(wal for _, wal in found) <= wal_times * WAL


@pytest.mark.disk
@pytest.mark.parametrize(("threads", "each"), [(1, 600), (8, 75)])
def test_file_and_log_together_stay_within_the_limit_while_twice_that_is_saved(
    folder, open_store, threads, each
):
    bob = open_store(**SMALL).agent("bob")

    def save(thread: int) -> list[str]:
        return [
            bob.save("user", prose(1000 * thread + n), session=f"s{thread}", id=f"{thread}-{n}").id
            for n in range(each)
        ]

    with watched(folder) as samples, sampled(folder) as seen:
        ids = in_threads(threads, save)
    check_bounds(samples.sizes, seen)
    largest = max(file for file, _ in [*samples.sizes, *seen])
    assert largest > (LIMIT - WAL) * 0.85, "the limit is made use of"
    at_rest(bob)
    usage = bob.usage()
    assert usage.archived
    assert usage.messages + usage.archived == threads * each
    check_order(bob, {f"s{number}": some for number, some in enumerate(ids)})
    last = ids[0][-1]
    assert bob.recall(f"word{each - 1}")[0].message.id == last
    assert bob.check().ok


def test_one_clean_up_takes_it_down_to_nine_tenths(folder, open_store):
    bob = open_store(**SMALL).agent("bob")
    number = 0
    while not bob.usage().archived:
        bob.save("user", prose(number))
        number += 1
    assert bob.enforce_limits(dry_run=True).held  # once whoever cleans up has ended
    room = LIMIT - WAL
    assert bob.usage().bytes.live <= 0.92 * room
    assert bob.usage().bytes.live >= 0.75 * room, "and not much further"


@pytest.mark.parametrize("kind", ["long", "short", "mixed", "metadata", "sessions"])
def test_the_limit_holds_whatever_the_messages_are_like(folder, open_store, kind):
    # A step that merges long messages' words in a WAL of a quarter of a megabyte was seen to write
    # twice what it announces, more often where linking commits at its own times: the one exception,
    # in docs/performance.md. One of short ones was seen to write a frame more.
    links = kind not in ("long", "mixed")
    store = open_store(
        **SMALL, max_message_kb=64, max_messages_per_agent=100_000, link_concepts=links
    )
    bob = store.agent("bob")
    dice = random.Random(kind)

    def message(n: int) -> dict:
        length = {"long": 40_000, "short": 10, "mixed": dice.choice([5, 300, 9000, 50_000])}
        made = {"role": "user", "content": prose(n, length.get(kind, 200)), "id": f"m{n}"}
        if kind == "metadata":
            made["metadata"] = {f"k{dice.random()}": "x" * dice.randrange(3000)}
        if kind == "sessions":
            made |= {"session": f"session {n} {'s' * 150}", "user": f"user {n} {'u' * 150}"}
        return made

    counts = {"long": 40, "short": 9000, "mixed": 100, "metadata": 500, "sessions": 800}
    count = counts[kind]
    with watched(folder) as samples, sampled(folder) as seen:
        if kind == "short":
            for start in range(0, count, 100):
                bob.save_many([message(n) for n in range(start, start + 100)])
        else:
            for n in range(count):
                bob.save(**message(n))
    check_bounds(samples.sizes, seen, wal_times=1.02 if links else 1.15)
    assert bob.usage().archived
    assert everything(bob).keys() == {f"m{n}" for n in range(count)}
    assert bob.check().ok


def test_the_least_valuable_leave_first(folder, open_store):
    """Of little importance, then what was never of use, then the oldest."""
    store = open_store(**SMALL)
    bob = store.agent("bob")
    for n in range(40):
        bob.save("user", prose(n), id=f"dear-{n}", importance=0.9)
        bob.save("user", prose(n + 100), id=f"cheap-{n}", importance=0.1)
        bob.save("user", prose(n + 200), id=f"pinned-{n}", importance=0, pinned=True)
        bob.save("user", prose(n + 300), id=f"plain-{n}")
    for n in range(40):
        assert bob.recall(f"word{n + 300}")[0].message.id == f"plain-{n}"
    store.close()
    bob = (again := open_store(**SMALL)).agent("bob")
    seen: set[str] = set()
    with watched(folder) as samples:
        for n in range(1200):
            bob.save("user", prose(n), id=f"new-{n}")
            if samples.held[-1] + len(seen) == 160 + n + 1:
                continue  # none has left
            before, seen = seen, everything(bob).keys() - held(bob).keys()
            kinds = {key.rpartition("-")[0] for key in seen - before}
            rest = {key.rpartition("-")[0] for key in held(bob)}
            assert "cheap" not in rest or kinds == {"cheap"}
    assert {key.rpartition("-")[0] for key in seen} == {"cheap", "new"}, "what was of use stays"
    for kind in ("pinned", "dear", "plain"):
        assert {f"{kind}-{i}" for i in range(40)} <= held(bob).keys()
    left = [key for key in held(bob) if key.startswith("new")]
    assert left == [f"new-{i}" for i in range(1200 - len(left), 1200)], "the oldest of them left"
    again.close()


def test_bytes_outrank_what_is_kept(folder, open_store):
    bob = open_store(**{**SMALL, "keep_messages": 5000}).agent("bob")
    with watched(folder) as samples:
        for n in range(700):
            bob.save("user", prose(n))
    check_bounds(samples.sizes)
    assert bob.usage().archived


def save_until_full(bob: elytron.Agent, **more) -> list[str]:
    ids: list[str] = []
    for n in range(3000):
        try:
            ids.append(bob.save("user", prose(n), id=f"m{n}", **more).id)
        except OverBudget as error:
            assert "max_db_size_mb" in str(error)  # noqa: PT017 - it comes after some that went
            return ids
    raise AssertionError("it was never full")


def test_without_auto_cleanup_a_full_file_refuses_and_deleting_makes_room(folder, open_store):
    bob = open_store(**SMALL, auto_cleanup=False).agent("bob")
    with watched(folder) as samples:
        ids = save_until_full(bob)
    before = held(bob)
    assert list(before) == ids, "every receipt is true"
    for _ in range(3):
        with pytest.raises(OverBudget):
            bob.save_many([{"role": "user", "content": prose(9)}] * 20)
        with pytest.raises(OverBudget):
            bob.edit(ids[0], prose(0, 60_000))
    assert held(bob) == before
    assert bob.usage().archived == 0
    for key in ids[:100]:
        assert bob.delete(key)
    for n in range(50):
        bob.save("user", prose(n), session="later")
    assert bob.delete_session("default") == len(ids) - 100
    assert bob.forget(session="later").messages == 50
    check_bounds(samples.sizes, [sizes(folder)])
    assert bob.check().ok


@pytest.mark.parametrize("verb", ["delete", "delete_session", "archive", "forget", "clear"])
def test_a_full_memory_of_pins_can_be_emptied_by_every_verb_that_removes(folder, open_store, verb):
    bob = open_store(**SMALL).agent("bob")
    with watched(folder) as samples:
        ids = save_until_full(bob, user="alice", pinned=True)
        at_rest(bob)  # it may just be woken, and would archive what is unpinned below
        assert bob.usage().archived == 0
        if verb == "delete":
            for key in ids:
                assert bob.delete(key)
        elif verb == "delete_session":
            assert bob.delete_session("default") == len(ids)
        elif verb == "archive":
            for key in ids[: len(ids) // 2]:
                bob.unpin(key)
            assert bob.archive(older_than_days=0, keep=0).archived == len(ids) // 2
    # To forget rebuilds the file, which may take its size again for a while.
    if verb == "forget":
        assert bob.forget(user="alice").messages == len(ids)
    elif verb == "clear":
        assert bob.clear().messages == len(ids)
    check_bounds(samples.sizes)
    assert bob.save("user", prose(1)).new
    assert bob.check().ok


# -- a reader that never ends


READER = """
import sys, apsw
db = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READWRITE)
db.execute("BEGIN")
print(db.execute("SELECT count(*) FROM messages").get, flush=True)
sys.stdin.readline()
"""


def start_reader(start_script, folder):
    reader = start_script(READER, ledger_path(folder))
    assert int(reader.stdout.readline()) >= 0
    return reader


def end_reader(reader) -> None:
    assert reader.communicate("go\n", timeout=60)[1] == ""


def write(bob: elytron.Agent, verb: str, n: int, saved: list[str]) -> bool:
    """Write once by a verb and note what is there then; whether to go on."""
    if verb == "save":
        saved.append(bob.save("user", prose(n), id=f"n{n}").id)
    elif verb == "submit":
        saved.append(bob.submit("user", prose(n), id=f"n{n}").result(timeout=30).id)
    elif verb == "save_many":
        many = [{"role": "user", "content": prose(n), "id": f"n{n}-{i}"} for i in "abc"]
        saved += [receipt.id for receipt in bob.save_many(many)]
    elif verb == "archive":
        assert bob.archive(older_than_days=0, keep=0).archived
    elif verb == "delete":
        bob.delete(saved[-1])
        saved.pop()
    else:
        put_off = bob.reclaim().put_off
        assert "reader" in put_off
    return verb not in ("archive", "reclaim")


@pytest.mark.parametrize("verb", ["save", "submit", "save_many", "archive", "reclaim", "delete"])
def test_a_reader_that_never_ends_cannot_make_the_log_grow(folder, open_store, start_script, verb):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        for n in range(500):
            bob.save("user", prose(n), id=f"m{n}")
        if verb == "reclaim":
            bob.delete_session("default")
            for n in range(300):
                bob.save("user", prose(n), id=f"r{n}")
    store = open_store(**SMALL, save_timeout_s=0.2, read_timeout_s=0.2)
    bob = store.agent("bob")
    reader = start_reader(start_script, folder)
    saved = list(in_the_end(lambda: everything(bob)))
    with watched(folder) as samples, sampled(folder) as seen:
        try:
            for n in range(400):
                if not write(bob, verb, n, saved):
                    break
            ended = None
        except (Busy, OutcomeUnknown) as error:
            ended = error
            if verb == "delete" and "deleted from the ledger" in str(error):
                saved.pop()
    assert verb == "reclaim" or ended is not None
    check_bounds(samples.sizes, seen)
    assert in_the_end(lambda: everything(bob)).keys() == set(saved)
    end_reader(reader)
    if verb == "archive":
        in_the_end(lambda: bob.archive(older_than_days=0, keep=0))
        assert in_the_end(bob.usage).messages == 0
    in_the_end(lambda: bob.save("user", "It goes on", id="more"))
    assert in_the_end(lambda: everything(bob)).keys() == {*saved, "more"}
    at_rest(bob)
    in_the_end(bob.reclaim)
    assert sizes(folder)[1] == 0
    store.close()
    with elytron.open(folder, **SMALL) as patient:  # a check is not to be hurried
        assert patient.agent("bob").check().ok


WRITER = """
import sys, elytron
folder, name = sys.argv[1:]
settings = dict(max_db_size_mb=1.5, wal_limit_mb=0.25, reserve_mb=0, keep_messages=0,
                link_concepts=False)
with elytron.open(folder, **settings) as store:
    bob = store.agent("bob")
    sys.stdin.readline()
    for number in range(250):
        text = f"Number {number} of {name} " + " ".join(str(number * k) for k in range(100))
        bob.save("user", text, id=f"{name}-{number}", session=name)
print("done")
"""


@pytest.mark.disk
def test_two_processes_together_stay_within_the_limit(folder, open_store, start_script):
    # With links a save was refused once in some ten runs: docs/performance.md, what is known.
    crew = [start_script(WRITER, folder, name) for name in "ab"]
    bob = open_store(**SMALL, link_concepts=False).agent("bob")
    bob.save("user", "First", id="first", session="c")
    with sampled(folder) as seen:
        for process in crew:
            process.stdin.write("go\n")
            process.stdin.flush()
        ours = [bob.save("user", prose(n), id=f"c-{n}", session="c").id for n in range(250)]
        for process in crew:
            assert process.communicate(timeout=60) == ("done\n", "")
    check_bounds(seen)
    theirs = {name: [f"{name}-{n}" for n in range(250)] for name in "ab"}
    # Each archives what it meets, so segments lie as they were finished; times tell the order.
    found = everything(bob)
    for session, keys in {"c": ["first", *ours], **theirs}.items():
        of_session = [key for key in found if found[key].session == session]
        assert sorted(of_session, key=lambda key: found[key].at) == keys
    assert len(found) == 751
    assert bob.usage().archived
    assert bob.check().ok


def test_an_agent_that_was_made_with_a_larger_limit_is_brought_within_a_smaller_one(
    folder, open_store
):
    store = open_store(reserve_mb=0)
    bob = store.agent("bob")
    for start in range(0, 3000, 500):
        bob.save_many([{"role": "user", "content": prose(n)} for n in range(start, start + 500)])
    store.close()
    assert sizes(folder)[0] > 2 * LIMIT
    with elytron.open(folder, **SMALL) as small:
        bob = small.agent("bob")
        bob.enforce_limits()
        assert sum(sizes(folder)) <= LIMIT
        assert bob.save("user", "It goes on").new
        assert len(everything(bob)) == 3001
        assert bob.check().ok
