"""Saving: what a receipt means, what a retry does, and what all or nothing means."""

import contextlib
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest

import elytron
from elytron import Busy, Conflict, InvalidArgument, Message, Receipt
from ledgers import held, state
from patience import in_the_end

# On each kind of store; those marked `here` look at what one of this process has inside.
pytestmark = pytest.mark.contract

NOON = datetime(2024, 5, 8, 12, 0, 0, 123456, tzinfo=UTC)
SAVED = {
    "role": "user",
    "content": "I live in Lyon.",
    "session": "web-42",
    "user": "alice",
    "at": NOON,
    "metadata": {"channel": "web", "tags": ["a", 1, None]},
    "id": "one",
}


def test_a_receipt_names_the_message_and_says_that_it_is_new(bob):
    assert bob.save("user", "Hello", id="one") == Receipt("one", new=True, embedding="disabled")
    message = bob.get("one")
    assert (message.role, message.content, message.session, message.user) == (
        "user", "Hello", "default", None,
    )  # fmt: skip
    assert (message.position, message.speaker, message.metadata) == (0, "user", {})


def test_every_member_comes_back_as_it_was_given(bob):
    bob.save(**SAVED)
    message = bob.get("one")
    assert {name: getattr(message, name) for name in SAVED} == SAVED
    assert message.speaker == "alice"


def test_without_an_id_one_is_made_and_ids_rise_in_the_order_of_saving(bob):
    ids = [bob.save("user", f"Number {n}").id for n in range(20)]
    assert ids == sorted(set(ids))
    assert {uuid.UUID(made).version for made in ids} == {7}
    assert list(held(bob)) == ids


def test_without_a_time_it_is_now(bob):
    before = datetime.now(UTC)
    bob.save("user", "Hello", id="one")
    assert before - timedelta(milliseconds=1) <= bob.get("one").at <= datetime.now(UTC)


@pytest.mark.parametrize("minutes", [0, 330, -210, 14 * 60, -12 * 60])
def test_a_time_keeps_its_offset_and_its_microseconds(open_store, minutes):
    at = datetime(2023, 1, 1, 0, 0, 0, 1, tzinfo=timezone(timedelta(minutes=minutes)))
    store = open_store()
    store.agent("bob").save("user", "Happy new year", at=at, id="one")
    store.close()
    read = open_store().agent("bob").get("one").at
    assert read == at
    assert read.utcoffset() == at.utcoffset()
    assert read.isoformat() == at.isoformat()


@pytest.mark.parametrize(
    "metadata",
    [
        {"n": None, "t": True, "f": False, "i": -(2**53), "r": 0.1, "s": "é 🐞 \u2028 \x00"},
        {"deep": {"list": [[], {}, [{"x": [1]}]]}},
        {"": "an empty name", "é": 1, "with space": 2},
        {"n": 10**300},
    ],
)
def test_metadata_comes_back_as_it_was(bob, metadata):
    bob.save("user", "Hello", metadata=metadata, id="one")
    assert bob.get("one").metadata == metadata


@pytest.mark.parametrize(
    "content",
    [
        "x",
        " padded \n",
        "日本語のテキスト",
        "नमस्ते दुनिया",
        "🐞" * 1000,
        "a\r\nb\tc\x01\x7f",
        "\ufeffbom\u2028",
    ],
)
def test_a_content_comes_back_to_the_last_character(bob, content):
    bob.save("user", content, id="one")
    assert bob.get("one").content == content


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function"])
def test_each_role_is_accepted(bob, role):
    bob.save(role, "Hello", id="one")
    assert bob.get("one").role == role


def test_saving_again_with_the_same_id_is_harmless(bob):
    bob.save(**SAVED)
    before = state(bob)
    assert bob.save(**SAVED) == Receipt("one", new=False, embedding="disabled")
    shuffled = SAVED | {"metadata": dict(reversed(SAVED["metadata"].items()))}
    assert bob.save(**shuffled).new is False
    assert state(bob) == before


def test_a_time_is_not_compared_when_the_retry_gives_none(bob):
    bob.save(**SAVED)
    assert bob.save(**SAVED | {"at": None}).new is False
    assert bob.get("one").at == NOON


def test_the_same_moment_in_another_zone_is_the_same_time(bob):
    bob.save(**SAVED)
    paris = NOON.astimezone(timezone(timedelta(hours=2)))
    assert bob.save(**SAVED | {"at": paris}).new is False


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("role", "assistant"),
        ("content", "I live in Lyon!"),
        ("session", "web-43"),
        ("session", None),
        ("user", "Alice"),
        ("user", None),
        ("at", NOON + timedelta(microseconds=1)),
        ("metadata", {"channel": "web"}),
        ("metadata", None),
    ],
)
def test_the_same_id_with_another_content_is_a_conflict(bob, member, value):
    bob.save(**SAVED)
    before = state(bob)
    with pytest.raises(Conflict, match=r"'one'.*new id.*`Agent.edit\(\)`"):
        bob.save(**SAVED | {member: value})
    assert state(bob) == before


def test_one_id_in_two_agents_is_two_messages(store):
    store.agent("bob").save("user", "I am Bob's", id="one")
    store.agent("eve").save("user", "I am Eve's", id="one")
    assert store.agent("bob").get("one").content == "I am Bob's"


def test_what_was_saved_is_there_after_reopening(open_store):
    store = open_store()
    store.agent("bob").save(**SAVED)
    store.close()
    message = open_store().agent("bob").get("one")
    assert {name: getattr(message, name) for name in SAVED} == SAVED


def test_save_many_returns_receipts_in_order_and_keeps_the_order(bob):
    drafts = [{"role": "user", "content": f"Number {n}", "id": f"id-{9 - n}"} for n in range(10)]
    assert [receipt.id for receipt in bob.save_many(drafts)] == [d["id"] for d in drafts]
    assert list(held(bob)) == [d["id"] for d in drafts]
    assert [message.position for message in bob.messages()] == list(range(10))


def test_save_many_takes_messages_of_another_agent(store):
    bob, eve = store.agent("bob"), store.agent("eve")
    bob.save(**SAVED)
    bob.save("assistant", "Noted.", session="web-42", id="two")
    eve.save_many(bob.messages())
    assert list(eve.messages()) == list(bob.messages())
    assert [receipt.new for receipt in eve.save_many(bob.messages())] == [False, False]


def test_save_many_of_nothing_is_nothing(bob, folder):
    assert bob.save_many([]) == []
    assert not folder.exists()


def test_save_many_says_which_messages_it_held_already(bob):
    bob.save("user", "First", id="one")
    receipts = bob.save_many(
        [
            {"role": "user", "content": "First", "id": "one"},
            {"role": "user", "content": "Second", "id": "two"},
            {"role": "user", "content": "Second", "id": "two"},
        ]
    )
    assert [receipt.new for receipt in receipts] == [False, True, False]
    assert list(held(bob)) == ["one", "two"]


def test_save_many_saves_nothing_when_the_second_of_three_conflicts(bob):
    bob.save("user", "Held", id="held")
    before = state(bob)
    with pytest.raises(Conflict, match="'held'"):
        bob.save_many(
            [
                {"role": "user", "content": "New", "session": "new session", "user": "new user"},
                {"role": "user", "content": "Other", "id": "held"},
                {"role": "user", "content": "Newer"},
            ]
        )
    assert state(bob) == before
    assert bob.recall("new newer") == []


def test_save_many_saves_nothing_when_one_id_stands_for_two_contents(bob):
    with pytest.raises(Conflict, match="'same'"):
        bob.save_many([{"role": "user", "content": c, "id": "same"} for c in ("This", "That")])
    assert state(bob)[0] == []


def test_save_many_names_the_first_bad_message_and_saves_nothing(bob):
    good = {"role": "user", "content": "Fine"}
    with pytest.raises(InvalidArgument, match="message 2: role 'robot' is unknown"):
        bob.save_many([good, good, {"role": "robot", "content": "Beep"}, {}])
    assert held(bob) == {}


def test_save_many_saves_nothing_when_its_source_fails_in_the_middle(bob):
    def source():
        yield {"role": "user", "content": "Fine"}
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="the source is gone"):
        bob.save_many(source())
    assert held(bob) == {}


def test_save_many_of_too_many_names_the_number_and_the_setting(open_store):
    bob = open_store(queue_max=3).agent("bob")
    drafts = [{"role": "user", "content": f"Number {n}"} for n in range(4)]
    with pytest.raises(InvalidArgument, match=r"more than 3 messages.*`queue_max`"):
        bob.save_many(drafts)
    assert held(bob) == {}
    assert len(bob.save_many(drafts[:3])) == 3


def test_save_many_of_too_many_bytes_names_the_bytes_and_the_setting(open_store):
    bob = open_store(wal_limit_mb=1).agent("bob")
    drafts = [{"role": "user", "content": "word " * 40_000} for _ in range(6)]
    with pytest.raises(InvalidArgument, match=r"\d{7} bytes.* 1048576;.*parts.*`wal_limit_mb`"):
        bob.save_many(drafts)
    assert held(bob) == {}


def test_submitted_messages_are_held_in_order_once_flushed(bob):
    futures = [bob.submit("user", f"Number {n}", id=f"id-{n}") for n in range(50)]
    bob.flush()
    assert all(future.done() for future in futures)
    assert [future.result().id for future in futures] == list(held(bob))
    assert list(held(bob)) == [f"id-{n}" for n in range(50)]


def test_a_submitted_message_that_is_refused_is_refused_at_once(bob):
    with pytest.raises(InvalidArgument, match="role"):
        bob.submit("robot", "Beep")


@pytest.mark.here
def test_a_submitted_conflict_is_told_by_its_future_and_counted(bob):
    bob.save("user", "Held", id="one")
    futures = [bob.submit("user", content, id="one") for content in ("Held", "Other")]
    bob.flush()
    assert futures[0].result().new is False
    with pytest.raises(Conflict):
        futures[1].result()
    assert bob.usage().failed_writes == 1


@pytest.mark.here
def test_a_submitted_message_cannot_be_cancelled(bob, writer_elsewhere):
    bob.save("user", "First")
    with writer_elsewhere():
        future = bob.submit("user", "Hello", id="one")
        assert not future.cancel()
    assert future.result(timeout=60).id == "one"
    assert bob.get("one").content == "Hello"


@pytest.mark.here
def test_flush_that_takes_too_long_says_so_and_loses_nothing(bob, writer_elsewhere):
    bob.save("user", "First")
    with writer_elsewhere():
        future = bob.submit("user", "Hello", id="one")
        with pytest.raises(Busy, match=r"'bob' is not settled after 0\.05 s"):
            bob.flush(timeout_s=0.05)
    bob.flush()
    assert future.result().new
    assert bob.get("one").content == "Hello"


def test_flush_with_nothing_to_wait_for_makes_nothing(bob, folder):
    bob.flush()
    assert not folder.exists()


def test_a_save_that_waits_too_long_is_busy_and_not_written(open_store, where, writer_elsewhere):
    # A server has to be connected to in this time, too.
    bob = open_store(save_timeout_s=1.5 if where == "postgres" else 0.1).agent("bob")
    in_the_end(lambda: bob.save("user", "First", id="one"))
    with writer_elsewhere(), pytest.raises(Busy, match=r"\d\.\d+ s.*`save_timeout_s`"):
        bob.save("user", "Second", id="two")
    assert list(held(bob)) == ["one"]
    in_the_end(lambda: bob.save("user", "Second", id="two"))
    assert list(held(bob)) == ["one", "two"]


def test_many_agents_can_be_begun_at_once_in_a_new_store(tmp_path):
    """Eight threads make the store's folder and marker at the same moment, in ten fresh stores."""

    def begin(agent, barrier):
        barrier.wait(timeout=30)
        return agent.save("user", "Hello", id="one")

    for number in range(10):
        with elytron.open(tmp_path / str(number)) as store, ThreadPoolExecutor(8) as crew:
            agents = [store.agent(f"agent {n}") for n in range(8)]
            receipts = list(crew.map(begin, agents, [threading.Barrier(8)] * 8))
            assert all(receipt.new for receipt in receipts)
            assert len(store.agents()) == 8


def test_many_agents_can_be_begun_at_once_in_a_new_schema(postgres, schema, folder):
    """Four stores, as in four programs, two agents each; the tables are made by one of them."""
    place = {"files_path": folder, "postgres_schema": schema}
    barrier = threading.Barrier(8)

    def begin(store, number):
        barrier.wait(timeout=30)
        return store.agent(f"agent {number}").save("user", "Hello", id="one").new

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(8) as crew:
        opened = [elytron.open(postgres.dsn(), **place) for _ in range(4)]
        stores = [stack.enter_context(store) for store in opened]
        assert all(crew.map(begin, stores * 2, range(8)))
        assert stores[0].agents() == [f"agent {number}" for number in range(8)]


@pytest.mark.parametrize("contents", [1, 4])
def test_one_id_saved_by_many_threads_at_once_is_one_message(bob, contents):
    barrier = threading.Barrier(8)

    def save(mine):
        barrier.wait(timeout=30)
        try:
            return bob.save("user", f"Content {mine % contents}", id="one").new
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as crew:
        results = list(crew.map(save, range(8)))
    assert results.count(True) == 1
    assert results.count(False) == 8 // contents - 1
    assert results.count(None) == 8 - 8 // contents
    assert held(bob) == {"one": f"Content {results.index(True) % contents}"}


def test_a_reply_points_to_the_message_that_another_speaker_said_just_before(store, look):
    bob = store.agent("bob")
    for key, role, user, session in (
        ("a", "user", "alice", "one"),
        ("b", "assistant", None, "one"),
        ("c", "assistant", None, "one"),
        ("d", "user", "alice", "one"),
        ("e", "user", "carol", "one"),
        ("f", "user", "alice", "two"),
    ):
        bob.save(role, f"I am {key}", user=user, session=session, id=key)
    store.close()
    found = look(
        "SELECT m.id, r.id FROM messages m LEFT JOIN messages r ON r.key = m.responds_to"
        " ORDER BY m.key",
    )
    assert dict(found) == {"a": None, "b": "a", "c": None, "d": "c", "e": "d", "f": None}


def test_the_change_list_is_bounded_and_holds_numbers_only(open_store, look):
    store = open_store(change_max=100)
    bob = store.agent("bob")
    for n in range(60):
        bob.save("user", f"Number {n}", id=f"id-{n}")
        bob.edit(f"id-{n}", f"Edited {n}")
        bob.delete(f"id-{n - 5}")
        assert bob.usage().changes <= 100
    bob.save_many([{"role": "user", "content": f"Many {n}"} for n in range(250)])
    assert bob.usage().changes <= 100
    store.close()
    changes = look("SELECT * FROM changes")
    assert changes
    assert all(isinstance(value, int | None) for change in changes for value in change)


def test_messages_can_be_handed_on_as_they_are(bob):
    message = Message("x", "user", "Hi", NOON, "s", "alice", {"a": 1}, 7)
    bob.save_many([message])
    assert bob.get("x") == Message("x", "user", "Hi", NOON, "s", "alice", {"a": 1}, 0)
