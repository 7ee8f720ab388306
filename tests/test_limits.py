"""`max_messages_per_agent` at every moment, and what leaves when it is reached."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

import elytron
import elytron.aio
from clocks import DAY_S, FakeClock
from elytron import OverBudget
from elytron.config_sources import load
from elytron.ledger import files
from elytron.store import Store
from elytron.upkeep.janitor import Janitor
from ledgers import held
from limits import check_order, everything, in_threads, watched

MAX = 100


def text(number: int) -> str:
    return f"Message number {number} says word{number}"


def save_one_by_one(bob, session: str, count: int) -> list[str]:
    return [
        bob.save("user", text(n), session=session, id=f"{session}-{n}").id for n in range(count)
    ]


@pytest.fixture
def nobody_comes_by(monkeypatch):
    """Without the janitor, who makes room before a save has to."""
    monkeypatch.setattr(Janitor, "start", lambda _self: None)


@pytest.mark.usefixtures("nobody_comes_by")
@pytest.mark.parametrize(("threads", "each"), [(1, 400), (8, 50), (16, 30)])
def test_saves_never_hold_more_than_the_limit(folder, open_store, threads, each):
    bob = open_store(max_messages_per_agent=MAX, keep_messages=50).agent("bob")
    with watched(folder) as samples:
        ids = in_threads(threads, lambda number: save_one_by_one(bob, f"s{number}", each))
    most = max(samples.held)
    assert MAX - threads < most <= MAX, "and the limit itself can be held"
    trimmed = min(samples.held[samples.held.index(most) :])
    assert trimmed >= MAX - 10 - threads, "10 % leave, once a batch does not fit any more"
    check_order(bob, {f"s{number}": some for number, some in enumerate(ids)})
    usage = bob.usage()
    assert usage.messages + usage.archived == threads * each
    assert bob.check().ok


@pytest.mark.usefixtures("nobody_comes_by")
def test_exactly_the_limit_is_held_without_any_leaving(folder, open_store):
    bob = open_store(max_messages_per_agent=MAX, keep_messages=50).agent("bob")
    save_one_by_one(bob, "s", MAX)
    assert (bob.usage().messages, bob.usage().archived) == (MAX, 0)
    archive = files.agent_folder(folder, "bob") / "archive"
    assert not archive.exists()
    bob.save("user", "One more")
    assert archive.exists(), "where it was looked for"
    usage = bob.usage()
    assert (usage.messages, usage.archived) == (MAX - 9, 10), "10 % leave at once"
    for _ in range(9):
        bob.save("user", "And more")
    assert bob.usage().archived == 10


@pytest.mark.ledgers
def test_the_oldest_leave_first_and_the_rest_answers(open_store):
    bob = open_store(max_messages_per_agent=MAX).agent("bob")
    ids = save_one_by_one(bob, "s", MAX + 20)
    archived = bob.usage().archived
    assert list(held(bob)) == ids[archived:]
    assert bob.recall(f"word{MAX + 5}")[0].message.id == ids[MAX + 5]
    assert bob.recall("word3") == []
    assert bob.recall("word3", archived=True)[0].message.id == ids[3]


def many(start: int, end: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": text(n), "id": f"m{n}"} for n in range(start, end)]


@pytest.mark.ledgers
@pytest.mark.parametrize("sizes", [(60, 60, 60), (100, 1, 99, 100), (7,) * 40])
def test_save_many_never_holds_more_than_the_limit(folder, open_store, sizes):
    bob = open_store(max_messages_per_agent=MAX, keep_messages=0).agent("bob")
    start = 0
    with watched(folder) as samples:
        for count in sizes:
            assert len(bob.save_many(many(start, start + count))) == count
            start += count
    assert max(samples.held) <= MAX
    check_order(bob, {"default": [f"m{n}" for n in range(start)]})


def test_submitted_saves_never_hold_more_than_the_limit(folder, open_store):
    bob = open_store(max_messages_per_agent=MAX, keep_messages=0).agent("bob")
    with watched(folder) as samples:
        futures = [bob.submit(**message) for message in many(0, 500)]
        bob.flush(timeout_s=60)
    assert [future.result().new for future in futures] == [True] * 500
    assert max(samples.held) <= MAX
    check_order(bob, {"default": [f"m{n}" for n in range(500)]})


@pytest.mark.ledgers
def test_a_batch_of_submitted_saves_larger_than_the_room_is_settled_one_by_one(open_store, where):
    """All wait for one commit while it is held up, then come as one batch."""
    count = 300 if where == "here" else 20
    bob = open_store(max_messages_per_agent=10, keep_messages=0).agent("bob")
    bob.save("user", "First", id="first")
    futures = [bob.submit(**message) for message in many(0, count)]
    bob.flush(timeout_s=60)
    assert all(future.result().new for future in futures)
    assert bob.usage().messages <= 10
    check_order(bob, {"default": ["first", *(f"m{n}" for n in range(count))]})


@pytest.mark.ledgers
@pytest.mark.parametrize("maximum", [MAX, 700])
def test_an_import_never_holds_more_than_the_limit(folder, open_store, maximum):
    """An import commits 500 at once, which may be more than the limit itself."""
    bob = open_store(max_messages_per_agent=maximum, keep_messages=0).agent("bob")
    with watched(folder) as samples:
        report = bob.import_(many(0, 1200))
    assert report.imported == 1200
    assert max(samples.held) <= maximum
    check_order(bob, {"default": [f"m{n}" for n in range(1200)]})
    assert bob.import_(many(0, 1200)).already_held == 1200, "what is archived is not doubled"


@pytest.mark.ledgers
def test_the_async_face_never_holds_more_than_the_limit(folder, address):
    path, place = address

    async def run() -> None:
        settings = {**place, "max_messages_per_agent": MAX, "keep_messages": 0}
        async with elytron.aio.open(path, **settings) as store:
            bob = store.agent("bob")
            await asyncio.gather(*(bob.save(**message) for message in many(0, 300)))

    with watched(folder) as samples:
        asyncio.run(run())
    assert max(samples.held) <= MAX
    with elytron.open(path, **place) as store:  # the janitor of the first may move some until then
        usage = store.agent("bob").usage()
        assert usage.messages + usage.archived == 300


SAVER = """
import json, sys, elytron
path, place, name = sys.argv[1:]
settings = {**json.loads(place), "max_messages_per_agent": 100, "keep_messages": 0}
with elytron.open(path, **settings) as store:
    bob = store.agent("bob")
    sys.stdin.readline()
    for number in range(150):
        key = f"{name}-{number}"
        assert bob.save("user", f"This is {key}", id=key, session=name).new
print("done")
"""


@pytest.mark.ledgers
def test_two_processes_together_never_hold_more_than_the_limit(
    folder, address, open_store, start_script
):
    path, place = address
    crew = [start_script(SAVER, path, json.dumps(place), name) for name in "ab"]
    bob = open_store(max_messages_per_agent=MAX, keep_messages=0).agent("bob")
    with watched(folder) as samples:
        for process in crew:
            process.stdin.write("go\n")
            process.stdin.flush()
        ours = save_one_by_one(bob, "c", 150)
    for process in crew:
        assert process.communicate(timeout=60) == ("done\n", "")
    assert max(samples.held) <= MAX
    assert bob.usage().messages <= MAX
    theirs = {name: [f"{name}-{n}" for n in range(150)] for name in "ab"}
    check_order(bob, {"c": ours, **theirs})
    assert bob.check().ok


# -- refused


def test_more_at_once_than_the_limit_is_refused_whole_and_nothing_leaves_in_vain(
    folder, open_store
):
    bob = open_store(max_messages_per_agent=MAX).agent("bob")
    save_one_by_one(bob, "s", 60)
    before = held(bob)
    with pytest.raises(OverBudget, match=r"60 messages of at most 100, and 101 are new"):
        bob.save_many(many(0, MAX + 1))
    assert held(bob) == before
    assert bob.usage().archived == 0
    assert len(bob.save_many(many(0, MAX))) == MAX, "and the limit itself goes"
    assert set(everything(bob)) == {*before, *(f"m{n}" for n in range(MAX))}


def test_a_memory_full_of_pins_refuses_and_nothing_leaves_in_vain(folder, open_store):
    store = open_store(max_messages_per_agent=10)
    bob = store.agent("bob")
    for number in range(9):
        bob.save("user", text(number), id=f"m{number}", pinned=True)
    bob.save("user", "The only one that may leave", id="free")
    with pytest.raises(OverBudget, match="unpin"):
        bob.save_many(many(20, 22))
    assert bob.usage().archived == 0, "one could leave, and that would not do"
    assert bob.save("user", "One", id="one").new
    assert "free" not in held(bob)
    bob.pin("one")
    before = held(bob)
    for verb in (
        lambda: bob.save("user", "Too much"),
        lambda: bob.submit("user", "Too much").result(timeout=30),
        lambda: bob.import_([{"role": "user", "content": "Too much"}]),
    ):
        with pytest.raises(OverBudget, match="10 messages of at most 10"):
            verb()
    assert held(bob) == before
    bob.unpin("m3")
    assert bob.save("user", "Now it goes").new
    assert "m3" not in held(bob)


def test_without_auto_cleanup_the_limit_refuses(folder, open_store):
    bob = open_store(max_messages_per_agent=MAX, auto_cleanup=False).agent("bob")
    save_one_by_one(bob, "s", MAX)
    for verb in (
        lambda: bob.save("user", "Too much"),
        lambda: bob.save_many(many(0, 2)),
        lambda: bob.submit("user", "Too much").result(timeout=30),
    ):
        with pytest.raises(OverBudget, match="max_messages_per_agent"):
            verb()
    assert (bob.usage().messages, bob.usage().archived) == (MAX, 0)
    bob.delete("s-3")
    assert bob.save("user", "Room again").new
    assert not bob.save("user", text(4), session="s", id="s-4").new, "a retry needs no room"
    bob.archive(older_than_days=0, keep=50)
    assert bob.usage().messages == 50
    assert bob.save("user", "Room again").new


def test_one_refused_write_costs_its_neighbours_nothing(open_store):
    """A batch of two that fit and one that never does."""
    bob = open_store(max_messages_per_agent=10, keep_messages=0).agent("bob")
    for number in range(8):
        bob.save("user", text(number), pinned=True)
    results = in_threads(
        4,
        lambda number: (
            bob.save("user", f"Single {number}").new if number else _refused(bob, many(0, 5))
        ),
    )
    assert results == [True] * 4
    assert bob.usage().messages <= 10


def _refused(bob, messages) -> bool:
    with pytest.raises(OverBudget):
        bob.save_many(messages)
    return True


# -- rules


RULES = [
    {"role": "system", "pinned": True},
    {"session": "scratch-*", "archive_after_days": 1, "importance": 0.1},
    {"role": "tool", "importance": 0.2},
]


@pytest.mark.usefixtures("nobody_comes_by")
def test_rules_say_what_leaves_first_and_what_never_does(open_store):
    bob = open_store(max_messages_per_agent=40, keep_messages=0, retention_rules=RULES).agent("bob")
    for number in range(8):
        bob.save("system", text(number), id=f"system-{number}", session="scratch-1")
        bob.save("tool", text(number), id=f"tool-{number}")
        bob.save("user", text(number), id=f"scratch-{number}", session="scratch-2")
        bob.save("user", text(number), id=f"own-{number}", importance=0.05 if number == 7 else None)
        bob.save("user", text(number), id=f"other-{number}", session="my-scratch-1")
    for number in range(16):
        bob.save("user", text(number), id=f"new-{number}")
    gone = {key.rpartition("-")[0] for key in everything(bob).keys() - held(bob).keys()}
    assert gone == {"scratch", "tool", "own"}
    assert {f"system-{n}" for n in range(8)} <= held(bob).keys()
    assert held(bob).keys() >= {f"own-{n}" for n in range(7)}, "a value of its own outranks"
    assert "own-7" not in held(bob)
    kinds = [key.rpartition("-")[0] for key in held(bob)]
    assert (kinds.count("scratch"), kinds.count("other")) == (0, 8)


def test_rules_give_an_age_of_their_own(folder):
    clock = FakeClock()
    with Store(folder, load({"retention_rules": RULES, "keep_messages": 0}), clock=clock) as store:
        bob = store.agent("bob")
        bob.save("user", "Short-lived", id="short", session="scratch-9")
        bob.save("user", "Usual", id="usual")
        bob.save("system", "For ever", id="pinned", session="scratch-9")
        clock.pass_s(2 * DAY_S)
        cleanup = bob.enforce_limits()
        assert cleanup.reasons == {"age": 1}
        assert set(held(bob)) == {"usual", "pinned"}
        clock.pass_s(60 * DAY_S)
        bob.enforce_limits()
        assert set(held(bob)) == {"pinned"}


# -- age


def aged(folder, **settings) -> tuple[Store, FakeClock]:
    clock = FakeClock()
    return Store(folder, load({"reserve_mb": 0, **settings}), clock=clock), clock


def test_what_is_older_than_the_setting_leaves_down_to_what_is_kept(folder):
    store, clock = aged(folder, keep_messages=20, archive_after_days=30)
    with store:
        bob = store.agent("bob")
        ids = save_one_by_one(bob, "s", 100)
        clock.pass_s(29 * DAY_S)
        assert bob.enforce_limits().archived == 0
        clock.pass_s(11 * DAY_S)
        dry = bob.enforce_limits(dry_run=True)
        assert (len(dry.leaving), dry.archived, dry.reasons) == (80, 0, {"age": 80})
        assert bob.usage().messages == 100
        done = bob.enforce_limits()
        assert (done.leaving, done.archived) == (dry.leaving, 80)
        assert list(held(bob)) == ids[80:]
        assert bob.enforce_limits().archived == 0, "and no more, however often"
        check_order(bob, {"s": ids})


def test_old_messages_that_were_imported_today_stay(folder):
    store, clock = aged(folder, keep_messages=0, archive_after_days=30)
    long_ago = datetime.now(UTC) - timedelta(days=3000)
    with store:
        bob = store.agent("bob")
        bob.import_([{**message, "at": long_ago} for message in many(0, 50)])
        assert bob.enforce_limits().archived == 0
        clock.pass_s(31 * DAY_S)
        assert bob.enforce_limits().archived == 50


def test_what_was_restored_is_not_archived_again_at_once(folder):
    store, clock = aged(folder, keep_messages=0, archive_after_days=30)
    with store:
        bob = store.agent("bob")
        save_one_by_one(bob, "s", 10)
        clock.pass_s(40 * DAY_S)
        bob.enforce_limits()
        assert bob.restore(session="s").restored == 10
        assert bob.enforce_limits().archived == 0
        clock.pass_s(31 * DAY_S)
        assert bob.enforce_limits().archived == 10


def test_a_clock_that_leaps_ahead_leaves_what_is_kept(folder):
    store, clock = aged(folder, keep_messages=20)
    with store:
        bob = store.agent("bob")
        ids = save_one_by_one(bob, "s", 50)
        clock.leap_s(365 * DAY_S)
        bob.enforce_limits()
        assert list(held(bob)) == ids[-20:]
        clock.leap_s(-365 * DAY_S)
        bob.enforce_limits()
        check_order(bob, {"s": ids})


def test_a_clock_that_is_set_back_takes_nothing(folder):
    store, clock = aged(folder, keep_messages=0)
    with store:
        bob = store.agent("bob")
        save_one_by_one(bob, "s", 20)
        clock.leap_s(-3000 * DAY_S)
        assert bob.enforce_limits().leaving == ()
        assert bob.usage().forecast.messages_per_day >= 0


def test_pins_stay_whatever_their_age(folder):
    store, clock = aged(folder, keep_messages=0)
    with store:
        bob = store.agent("bob")
        save_one_by_one(bob, "s", 5)
        bob.pin("s-2")
        clock.pass_s(100 * DAY_S)
        bob.enforce_limits()
        assert list(held(bob)) == ["s-2"]
