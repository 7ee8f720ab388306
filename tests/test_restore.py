"""Restoring: what was archived comes back as it was, to where it was."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import elytron
from elytron import Agent, InvalidArgument, OverBudget, Store
from elytron.ledger import ops
from elytron.upkeep.desk import Desk
from ledgers import flip
from moved import (
    ALL,
    FIRST,
    archive_of,
    archived_ids,
    check_once,
    held_ids,
    segments,
    talk,
    texts,
    visible,
)

# In a file and on a server.
pytestmark = pytest.mark.ledgers

OpenStore = Callable[..., Store]
ROWS = """
SELECT m.key, m.id, s.id, m.position, u.id, m.responds_to, m.role, m.at_us, m.offset_min,
    m.embedding, m.metadata, m.content, m.terms, k.importance, k.pinned
FROM messages m JOIN sessions s ON s.key = m.session LEFT JOIN users u ON u.key = m.user
    LEFT JOIN marks k ON k.key = m.key
ORDER BY m.key
"""


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store(reserve_mb=0)


@pytest.fixture
def bob(store: Store) -> Agent:
    """An agent with 30 messages in two sessions, all of them archived."""
    bob = store.agent("bob")
    bob.save_many(talk(30))
    bob.archive(**ALL)
    return bob


def contents(count: int) -> dict[str, str]:
    return {draft["id"]: draft["content"] for draft in talk(count)}


def named(*numbers: int) -> list[str]:
    return [f"m{number}" for number in numbers]


def test_what_was_archived_and_restored_is_as_if_it_had_never_left(
    open_store: OpenStore, look: Callable[..., list[Any]], check_words: Callable[[], None]
) -> None:
    """All that readers see, and the rows themselves, but for when they arrived."""
    with open_store(reserve_mb=0) as store:
        bob = store.agent("bob")
        bob.save_many(talk(30))
        before = visible(bob)
    rows = look(ROWS)
    with open_store(reserve_mb=0) as store:
        bob = store.agent("bob")
        for keep in (20, 10, 0):
            bob.archive(older_than_days=0, keep=keep)
        assert held_ids(bob) == []
        assert bob.restore(since=FIRST).restored == 30
        assert visible(bob) == before
        assert bob.check().findings == ()
        assert segments(bob) == []
    assert look(ROWS) == rows
    check_words()


def test_one_id_comes_back_and_no_other(bob: Agent) -> None:
    assert bob.restore("m3").restored == 1
    assert held_ids(bob) == ["m3"]
    check_once(bob, contents(30))
    found = bob.get("m3")
    assert found is not None
    assert (found.position, found.session) == (1, "s1")


def test_several_ids_come_back_in_one_call_from_several_segments(store: Store) -> None:
    bob = store.agent("bob")
    for start in (0, 200):  # too large to be merged
        bob.save_many(talk(200, start=start))
        bob.archive(**ALL)
    found = bob.restore(named(3, 250, 7, 3))
    assert (found.restored, found.already_held, found.missing) == (3, 0, ())
    assert held_ids(bob) == named(3, 7, 250)
    check_once(bob, contents(400))


@pytest.mark.parametrize(
    ("conditions", "numbers"),
    [
        ({"session": "s1"}, range(1, 30, 2)),
        ({"since": FIRST + timedelta(minutes=25)}, range(25, 30)),
        ({"until": FIRST + timedelta(minutes=4)}, range(4)),
        ({"since": FIRST + timedelta(minutes=3, microseconds=3), "until": None}, range(3, 30)),
        ({"until": FIRST + timedelta(minutes=3, microseconds=3)}, range(3)),
        ({"since": FIRST + timedelta(minutes=8), "until": FIRST + timedelta(minutes=12)},
         range(8, 12)),
        ({"session": "s0", "since": FIRST + timedelta(minutes=20)}, range(20, 30, 2)),
        ({"ids": named(1, 2, 3, 21), "session": "s1", "until": FIRST + timedelta(minutes=10)},
         (1, 3)),
        ({"session": "nowhere"}, ()),
    ],
)  # fmt: skip
def test_all_conditions_hold_together(bob: Agent, conditions: dict[str, Any], numbers: Any) -> None:
    found = bob.restore(**conditions)
    assert found.restored == len(numbers)
    assert held_ids(bob) == named(*numbers)
    check_once(bob, contents(30))


def test_no_condition_at_all_is_refused(bob: Agent) -> None:
    with pytest.raises(InvalidArgument, match="ids, a session, or a time"):
        bob.restore()


def test_restoring_twice_adds_nothing(bob: Agent) -> None:
    assert bob.restore(named(3, 4)).restored == 2
    again = bob.restore(named(3, 4))
    assert (again.restored, again.already_held, again.missing) == (0, 2, ())
    mixed = bob.restore([*named(3, 5), "nowhere", "nowhere"])
    assert (mixed.restored, mixed.already_held, mixed.missing) == (1, 1, ("nowhere",))
    check_once(bob, contents(30))


def test_ids_that_are_nowhere_are_missing_even_without_an_archive(store: Store) -> None:
    assert store.agent("nobody").restore(["a", "b"]).missing == ("a", "b")
    bob = store.agent("bob")
    bob.save("user", "Hello", id="here")
    found = bob.restore(["here", "a"])
    assert (found.restored, found.already_held, found.missing) == (0, 1, ("a",))


def test_what_came_back_is_not_archived_again_for_its_age(bob: Agent) -> None:
    bob.restore(named(3))
    assert bob.archive(older_than_days=1, keep=0).archived == 0


def test_progress_tells_how_many_came_back_so_far(bob: Agent) -> None:
    told: list[int] = []
    bob.restore(session="s0", on_progress=told.append)
    assert told == [15]


# -- places


def saved_anew(bob: Agent) -> None:
    for number in range(3):
        bob.save("user", f"Anew {number}", session="s0", id=f"anew-{number}")


ANEW = ["Anew 0", "Anew 1", "Anew 2"]
OLD = [draft["content"] for draft in talk(30) if draft["session"] == "s0"]


def test_a_session_begun_anew_keeps_the_old_messages_before_the_new_ones(bob: Agent) -> None:
    saved_anew(bob)
    bob.restore(session="s0")
    assert texts(bob.history("s0")) == OLD + ANEW
    saved_anew_positions = [message.position for message in bob.history("s0")][-3:]
    assert saved_anew_positions == [0, 1, 2]
    assert bob.check().findings == ()


@pytest.mark.parametrize("seed", range(6))
def test_old_messages_keep_their_order_whichever_comes_back_first(store: Store, seed: int) -> None:
    """One by one in any order, out of several segments, with new ones saved in between."""
    chance = random.Random(seed)
    bob = store.agent("bob")
    order = [draft for draft in talk(30) if draft["session"] == "s0"]
    step = 5 if seed % 2 else 15
    for start in range(0, 15, step):
        bob.save_many(order[start : start + step])
        bob.archive(**ALL)
    left, expected = list(order), []
    chance.shuffle(left)
    new: list[str] = []
    while left:
        if chance.random() < 0.3:
            new.append(f"Anew {len(new)}")
            bob.save("user", new[-1], session="s0")
        back = left.pop()
        bob.restore(back["id"])
        expected.append(back)
        old = [draft["content"] for draft in order if draft in expected]
        assert texts(bob.history("s0")) == old + new
        assert texts(list(bob.messages())) == old + new
    assert bob.check().findings == ()


def test_a_session_archived_and_begun_anew_twice_comes_back_in_order(bob: Agent) -> None:
    saved_anew(bob)
    bob.archive(**ALL)
    bob.save("user", "Third", session="s0")
    bob.restore(session="s0", since=FIRST + timedelta(days=1))
    assert texts(bob.history("s0")) == [*ANEW, "Third"]
    bob.restore(session="s0")
    assert texts(bob.history("s0")) == [*OLD, *ANEW, "Third"]
    bob.archive(**ALL)
    bob.restore(session="s0")
    assert texts(bob.history("s0")) == [*OLD, *ANEW, "Third"]


def test_a_session_of_which_a_part_stayed_takes_the_rest_between(store: Store) -> None:
    bob = store.agent("bob")
    bob.save_many(talk(30))
    before = bob.history("s0")
    for key in named(0, 14, 28):
        bob.pin(key)
    bob.archive(**ALL)
    saved_anew(bob)
    bob.restore(session="s0")
    for key in named(0, 14, 28):
        bob.unpin(key)
    assert bob.history("s0") == [*before, *bob.history("s0")[-3:]]
    assert texts(bob.history("s0")) == OLD + ANEW


# -- what happens meanwhile


def meanwhile(kind: type, work: Callable[[], object]) -> Any:
    """Have *work* done once, just after a chore has committed its first op of a kind."""
    plain, todo = Desk.commit, [work]

    def commit(self: Desk, op: ops.Op) -> Any:
        outcome = plain(self, op)
        if isinstance(op, kind) and todo:
            todo.pop()()
        return outcome

    return mock.patch.object(Desk, "commit", commit)


def test_an_edit_while_restoring_is_under_way_stays(bob: Agent) -> None:
    with meanwhile(ops.Restore, lambda: bob.edit("m3", "Edited")):
        assert bob.restore(session="s1").restored == 15
    check_once(bob, contents(30) | {"m3": "Edited"})


@pytest.mark.parametrize("id", ["m3", "m4"])
@pytest.mark.parametrize("step", [ops.Move, ops.Restore])
def test_a_deletion_while_restoring_is_under_way_is_for_good(
    bob: Agent, open_store: OpenStore, step: type, id: str
) -> None:
    """Another process deletes what is coming back, or what stays in the same segment."""

    def erase() -> None:
        with open_store(reserve_mb=0) as other:
            assert other.agent("bob").delete(id)

    with meanwhile(step, erase):
        bob.restore(session="s0")
    expected = contents(30)
    del expected[id]
    check_once(bob, expected)


def test_a_message_that_is_saved_while_restoring_is_under_way_is_not_lost(bob: Agent) -> None:
    with meanwhile(ops.Move, lambda: bob.save("user", "New", session="s0", id="new")):
        assert bob.restore(session="s0").restored == 15
    check_once(bob, contents(30) | {"new": "New"})
    assert texts(bob.history("s0")) == [*OLD, "New"]


# -- damage, and no room


@pytest.mark.files  # the archive's, which are the same
def test_a_damaged_segment_is_named_and_the_rest_comes_back(store: Store) -> None:
    bob = store.agent("bob")
    for start in (0, 1000, 2000):  # too large to be merged
        bob.save_many(talk(1000, start=start))
        bob.archive(**ALL)
    first, second, third = segments(bob)
    whole = second.read_bytes()
    flip(second, len(whole) // 2)
    found = bob.restore(since=FIRST)
    assert (found.restored, list(found.damaged)) == (2000, [second.name])
    assert second.name in found.damaged[second.name]
    assert second.exists()
    assert not first.exists()
    assert not third.exists()
    again = bob.restore(named(3, 1250))
    assert (again.restored, again.already_held, list(again.damaged)) == (0, 1, [second.name])
    second.write_bytes(whole)
    assert bob.restore(named(1250)).restored == 1
    check_once(bob, contents(3000))


def test_more_messages_than_may_be_held_are_refused_and_stay_where_they_are(
    bob: Agent, open_store: OpenStore
) -> None:
    bob._agents.close()
    bob = open_store(reserve_mb=0, max_messages_per_agent=20, keep_messages=0).agent("bob")
    assert bob.restore(session="s0").restored == 15
    with pytest.raises(OverBudget, match="0 messages came back before"):
        bob.restore(session="s1")
    check_once(bob, contents(30))
    assert bob.usage().messages == 15
    assert bob.check().findings == ()


def noise(count: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(1)
    for draft in talk(count):
        yield draft | {"content": chance.randbytes(5000).hex()}


def test_more_bytes_than_may_be_held_are_refused_and_stay_where_they_are(
    open_store: OpenStore,
) -> None:
    """Some come back in commits before the one that has no room."""
    drafts = list(noise(300))
    with open_store(reserve_mb=0) as store:
        store.agent("bob").save_many(drafts[:150])
        store.agent("bob").save_many(drafts[150:])
        store.agent("bob").archive(**ALL)
        store.agent("bob").reclaim(full=True)
    bob = open_store(reserve_mb=0, max_db_size_mb=2, wal_limit_mb=0.5, max_message_kb=64).agent(
        "bob"
    )
    told: list[int] = []
    with pytest.raises(OverBudget) as refused:
        bob.restore(since=FIRST, on_progress=told.append)
    came = bob.usage().messages
    assert 0 < came < 300
    assert told[-1] == came
    assert f"{came} messages came back before" in str(refused.value)
    check_once(bob, {draft["id"]: draft["content"] for draft in drafts})
    assert bob.usage().bytes.total <= 2 << 20
    assert bob.check().findings == ()
    assert bob.delete("m0"), "a ledger that a restore has filled can still be emptied"
    assert bob.save("user", "Saved at the limit").new
    bob.archive(**ALL)
    assert bob.usage().messages == 0


# -- what is saved, and what is deleted, while others are away


def history(bob: Agent, session: str = "s") -> list[str]:
    return [message.id for message in bob.history(session, limit=1000)]


def test_the_place_of_what_left_is_kept_when_the_newest_of_the_session_is_deleted(
    store: Store,
) -> None:
    bob = store.agent("bob")
    for name in ("o0", "o1", "o2", "last"):
        bob.save("user", name, id=name, session="s")
    bob.archive(older_than_days=0, keep=1)
    assert history(bob) == ["last"]
    bob.delete("last")
    for name in ("n0", "n1"):
        bob.save("user", name, id=name, session="s")
    bob.restore(session="s")
    assert history(bob) == ["o0", "o1", "o2", "n0", "n1"]


def test_the_place_of_what_is_still_away_is_kept_when_less_leaves_again(store: Store) -> None:
    bob = store.agent("bob")
    bob.save("user", "p", id="p", session="s", pinned=True)
    for name in ("o1", "o2", "o3"):
        bob.save("user", name, id=name, session="s")
    bob.archive(**ALL)
    bob.restore(["o1"])
    bob.archive(**ALL)
    for name in ("n0", "n1"):
        bob.save("user", name, id=name, session="s")
    bob.restore(session="s")
    assert history(bob) == ["p", "o1", "o2", "o3", "n0", "n1"]


# -- anything, in any order

NUMBERS = some.integers(0, 11)


@settings(max_examples=40)
@given(
    steps=some.lists(
        some.tuples(some.sampled_from(["keep", "ids", "session", "pin", "unpin"]), NUMBERS),
        max_size=12,
    )
)
def test_archiving_and_restoring_in_any_order_is_undone_by_restoring_all(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Nothing that is visible changes, but for what was pinned by hand."""
    with elytron.open(tmp_path_factory.mktemp("any") / "store", reserve_mb=0) as store:
        bob = store.agent("bob")
        bob.save_many(talk(12))
        before = visible(bob, words=12)
        for verb, number in steps:
            if verb == "keep":
                bob.archive(older_than_days=0, keep=number)
            elif verb == "ids":
                bob.restore(named(number, (5 * number) % 12))
            elif verb == "session":
                bob.restore(session=f"s{number % 2}")
            elif bob.get(f"m{number}") is not None:
                getattr(bob, verb)(f"m{number}")
            check_once(bob, contents(12))
        bob.restore(since=FIRST)
        for number in range(12):
            bob.unpin(f"m{number}")
        assert visible(bob, words=12) == before
        assert archived_ids(bob) == []
        assert not archive_of(bob).damaged()
        assert bob.check().findings == ()


STEPS = some.sampled_from(["save", "keep", "id", "session", "delete newest", "delete"])
BEGIN = [("save", 1)] * 4 + [("save", 2)] * 4 + [("keep", 1)]


@settings(max_examples=100)
@given(steps=some.lists(some.tuples(STEPS, some.integers(0, 5)), max_size=12))
def test_a_session_comes_back_in_the_order_in_which_it_was_said(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever was saved, deleted, archived and restored in between, in any order."""
    said: dict[str, list[str]] = {"s0": [], "s1": []}
    with elytron.open(tmp_path_factory.mktemp("any") / "store", reserve_mb=0) as store:
        bob = store.agent("bob")
        for place, (verb, number) in enumerate([*BEGIN, *steps]):
            session = f"s{number % 2}"
            if verb == "save":
                bob.save("user", "x", id=f"m{place}", session=session, pinned=number % 3 == 0)
                said[session].append(f"m{place}")
            elif verb == "keep":
                bob.archive(older_than_days=0, keep=number % 3)
            elif verb == "session":
                bob.restore(session=session)
            elif said[session]:
                known = said[session]
                name = known[-1] if verb == "delete newest" else known[number % len(known)]
                if verb == "id":
                    bob.restore([name])
                else:
                    assert bob.delete(name)
                    known.remove(name)
        for session, expected in said.items():
            bob.restore(session=session)
            assert history(bob, session) == expected
        assert bob.check().findings == ()
