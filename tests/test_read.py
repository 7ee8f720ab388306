"""Reading: history, sessions, get, export and usage; and that reading leaves no trace."""

import contextlib
import io
import json
from datetime import UTC, datetime, timedelta

import pytest

import elytron
from elytron import InvalidArgument, InvalidSetting, LedgerBytes, NotFound, Unavailable, Usage
from every_verb import AGENT
from ledgers import contents, ledger_path, names

# On each kind of store; those marked `here` look at what one of this process has inside.
pytestmark = pytest.mark.contract

NOON = datetime(2024, 5, 8, 12, tzinfo=UTC)


def fill(bob, count, *, session="web", start=0):
    bob.save_many(
        {"role": "user", "content": f"Number {n}", "id": f"{session}-{n}", "session": session}
        for n in range(start, start + count)
    )


def ids(messages):
    return [message.id for message in messages]


def test_history_is_the_newest_messages_oldest_first(bob):
    fill(bob, 60)
    assert ids(bob.history("web")) == [f"web-{n}" for n in range(10, 60)]
    assert ids(bob.history("web", limit=3)) == ["web-57", "web-58", "web-59"]
    assert ids(bob.history("web", limit=1)) == ["web-59"]
    assert len(bob.history("web", limit=10_000)) == 60


def test_history_without_a_session_is_of_all_in_the_order_of_saving(bob):
    for n in range(6):
        fill(bob, 1, session=("web", "phone")[n % 2], start=n)
    assert ids(bob.history()) == ["web-0", "phone-1", "web-2", "phone-3", "web-4", "phone-5"]
    assert ids(bob.history("phone")) == ["phone-1", "phone-3", "phone-5"]


def test_history_is_in_the_order_of_saving_whatever_the_times_say(bob):
    for n in range(5):
        bob.save("user", f"Number {n}", id=str(n), at=NOON - timedelta(days=n))
    assert ids(bob.history()) == ids(bob.history("default")) == list("01234")


@pytest.mark.parametrize("session", ["web", None])
@pytest.mark.parametrize("size", [1, 3, 7, 20, 21])
def test_paging_back_shows_every_message_once(bob, session, size):
    fill(bob, 20)
    pages, before = [], None
    while page := bob.history(session, limit=size, before=before):
        pages = ids(page) + pages
        before = page[0].id
    assert pages == [f"web-{n}" for n in range(20)]


def test_paging_back_goes_on_after_a_deletion_in_between(bob):
    fill(bob, 10)
    bob.delete("web-4")
    assert ids(bob.history("web", limit=3, before="web-6")) == ["web-2", "web-3", "web-5"]


def test_before_a_message_of_another_session_means_what_was_saved_before_it(bob):
    fill(bob, 3, session="web")
    fill(bob, 1, session="phone")
    fill(bob, 2, session="web", start=3)
    assert ids(bob.history("web", before="phone-0")) == ["web-0", "web-1", "web-2"]
    assert ids(bob.history(before="phone-0")) == ["web-0", "web-1", "web-2"]


def test_what_is_unknown_gives_nothing(store, bob):
    assert bob.history() == bob.history("web") == bob.sessions() == list(bob.messages()) == []
    assert bob.get("one") is None
    assert bob.recall("anything") == []
    assert not bob.exists()
    fill(bob, 2)
    assert bob.exists()
    assert bob.history("phone") == bob.history("web", before="gone") == []
    assert bob.history(before="gone") == []
    assert bob.get("gone") is None
    assert not store.agent("eve").exists()


def test_sessions_are_listed_by_who_was_last_spoken_in(bob):
    for session in ("one", "two", "three", "one"):
        bob.save("user", "Hello", session=session)
    assert ids(bob.sessions()) == ["one", "three", "two"]
    assert ids(bob.sessions(limit=2)) == ["one", "three"]


def test_a_session_knows_its_size_and_its_first_and_last_time(bob):
    for hours in (2, 0, 5):
        bob.save("user", "Hello", session="web", at=NOON + timedelta(hours=hours), id=str(hours))
    (session,) = bob.sessions()
    assert (session.id, session.messages) == ("web", 3)
    assert (session.first_at, session.last_at) == (NOON, NOON + timedelta(hours=5))
    bob.delete("5")
    (session,) = bob.sessions()
    assert (session.messages, session.last_at) == (2, NOON + timedelta(hours=2))


@pytest.mark.parametrize("count", [499, 500, 501, 1001])
def test_messages_are_read_in_pages_without_a_gap_or_a_double(bob, count):
    fill(bob, count)
    assert ids(bob.messages()) == [f"web-{n}" for n in range(count)]


@pytest.mark.here
def test_messages_can_be_read_while_others_are_saved_and_deleted(bob):
    fill(bob, 600)
    reading = bob.messages()
    first = next(reading)
    bob.delete("web-599")
    bob.save("user", "Late", id="late")
    rest = ids(reading)
    assert [first.id, *rest] == [*(f"web-{n}" for n in range(599)), "late"]


def test_an_export_to_a_path_can_be_saved_again_elsewhere(store, tmp_path):
    bob, eve = store.agent("bob"), store.agent("eve")
    bob.save("user", "C'est « moi » 🐞\nDeux lignes", user="alice", at=NOON, metadata={"a": [1]})
    fill(bob, 3)
    path = tmp_path / "bob.jsonl"
    assert bob.export(path) == bob.export(str(path)) == 4
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["at"] = datetime.fromisoformat(line["at"])
    eve.save_many(lines)
    assert list(eve.messages()) == list(bob.messages())
    assert [file.name for file in tmp_path.glob("bob*")] == ["bob.jsonl"]


@pytest.mark.parametrize("target", [123, None, b"x", object()])
def test_an_export_to_what_is_neither_path_nor_stream_is_refused(bob, target):
    with pytest.raises(InvalidArgument, match="path or a text stream"):
        bob.export(target)


def test_an_export_to_a_stream_leaves_it_open(bob):
    fill(bob, 3)
    stream = io.StringIO()
    assert bob.export(stream) == 3
    assert [json.loads(line)["id"] for line in stream.getvalue().splitlines()] == [
        "web-0", "web-1", "web-2",
    ]  # fmt: skip


def test_an_export_reports_its_progress(bob):
    fill(bob, 1200)
    reported = []
    assert bob.export(io.StringIO(), on_progress=reported.append) == 1200
    assert reported == [500, 1000, 1200]


def test_an_export_of_nothing_is_an_empty_file(bob, folder, tmp_path):
    assert bob.export(tmp_path / "none.jsonl") == 0
    assert (tmp_path / "none.jsonl").read_bytes() == b""
    assert not folder.exists()


def test_a_failed_export_leaves_the_old_one_and_no_other_file(bob, tmp_path):
    fill(bob, 600)
    path = tmp_path / "bob.jsonl"
    path.write_text("the old one")

    def stop(_count):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        bob.export(path, on_progress=stop)
    assert path.read_text() == "the old one"
    assert [file.name for file in tmp_path.glob("bob*")] == ["bob.jsonl"]


@pytest.mark.here
def test_an_export_to_an_impossible_path_says_which(bob, tmp_path):
    fill(bob, 1)
    with pytest.raises(Unavailable, match="missing"):
        bob.export(tmp_path / "missing" / "bob.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unavailable, match="folder"):
        bob.export(tmp_path / "folder")
    for inside in ("store", "store/bob.jsonl", "store/elytron.json"):
        with pytest.raises(InvalidArgument, match=r"store's own.*choose another path"):
            bob.export(tmp_path / inside)


def test_usage_counts_what_is_held(open_store):
    bob = open_store(link_concepts=False).agent("bob")  # which would be a write that is queued
    for n, user in enumerate(("alice", "carol", None)):
        bob.save("user", "Hello", user=user, session=f"s{n % 2}", at=NOON + timedelta(hours=n))
    usage = bob.usage()
    assert usage.agent == "bob"
    assert (usage.messages, usage.sessions, usage.users) == (3, 2, 2)
    assert (usage.memories, usage.concepts, usage.edges) == (0, 0, 0)
    assert (usage.first_at, usage.last_at) == (NOON, NOON + timedelta(hours=2))
    assert (usage.queued, usage.failed_writes) == (0, 0)


def test_usage_of_nothing_is_nothing(bob):
    assert bob.usage() == Usage("bob", 100 * (1 << 20), bytes=LedgerBytes(), max_messages=5000)


@pytest.mark.files
def test_usage_tells_the_bytes_that_are_on_the_disk(open_store, folder):
    store = open_store()
    fill(store.agent("bob"), 500)
    store.close()
    on_disk = ledger_path(folder).stat().st_size
    used = open_store().agent("bob").usage().bytes
    assert used.file == used.live + used.dead == on_disk
    assert used.total == used.file + used.wal
    assert 0 < used.words < used.live
    assert used.vectors <= 4096


@pytest.mark.files
def test_deleting_makes_live_bytes_dead(bob):
    fill(bob, 2000)
    before = bob.usage().bytes
    bob.delete_session("web")
    after = bob.usage().bytes
    assert after.live < 0.75 * before.live  # the index gives its pages back little by little
    assert after.dead > before.dead


def test_store_usage_adds_its_agents_up(open_store, where):
    store = open_store(max_open_agents=2, link_concepts=False)  # a write that is queued, too
    for name in ("bob", "eve", "amy"):
        fill(store.agent(name), 3)
    usage = store.usage()
    assert [agent.agent for agent in usage.agents] == ["amy", "bob", "eve"]
    held = sum(agent.bytes.total for agent in usage.agents)
    assert usage.total_bytes == held + usage.reserve_bytes > held > 0
    assert 1 <= usage.open_agents <= (3 if where == "postgres" else 2), "none has a file there"
    assert (usage.queued, usage.queued_bytes) == (0, 0)
    assert min(usage.rss_bytes, usage.threads, usage.descriptors) > 0


# What may begin a memory, and what may write to one that is there.
BEGINNING = {"save", "save_many", "submit", "import_", "remember", "relate"}
WRITING = BEGINNING | {
    "flush",  # it also links what was saved, and so writes it down
    "edit", "delete", "delete_session", "reindex", "edit_memory", "close_memory", "delete_memory",
    "unrelate", "set_concept", "delete_concept", "rebuild_graph", "pin", "unpin", "set_importance",
    "archive", "restore", "reclaim", "enforce_limits", "emergency_cleanup", "forget", "clear",
    "embed", "reembed",
}  # fmt: skip
MORE = {
    "history of a session": lambda agent: agent.history("web", before="web-1"),
    "get one": lambda agent: agent.get("web-0"),
    "recall one": lambda agent: agent.recall("number"),
    "context of one": lambda agent: agent.context("number"),
    "messages and the archive": lambda agent: list(agent.messages(archived=True)),
    "recall from the archive": lambda agent: agent.recall("number", archived=True),
    "delete what is not there": lambda agent: agent.delete("gone"),
    "delete a session that is not there": lambda agent: agent.delete_session("gone"),
    "save nothing": lambda agent: agent.save_many([]),
}
# These bring the links first, or the graph, to what was saved.
FOLLOWING = {"concepts", "concept", "related", "path", "cypher"}
READING = MORE | {name: verb for name, verb in AGENT.items() if name not in WRITING | FOLLOWING}
HARMLESS = MORE | {name: verb for name, verb in AGENT.items() if name not in BEGINNING}


def harmless(verb, agent):
    """Call it, where nothing is: it may say so."""
    with contextlib.suppress(NotFound, InvalidSetting):
        HARMLESS[verb](agent)


@pytest.mark.parametrize("verb", HARMLESS)
def test_reading_creates_no_store_and_no_agent(tmp_path, verb):
    with elytron.open(tmp_path / "store") as store:
        harmless(verb, store.agent("bob"))
        assert store.agents() == []
        store.usage()
    assert names(tmp_path) == set()
    with elytron.open(tmp_path / "store") as store:
        fill(store.agent("eve"), 2)
    before = names(tmp_path)
    with elytron.open(tmp_path / "store") as store:
        harmless(verb, store.agent("bob"))
        assert names(tmp_path) == before


@pytest.mark.parametrize("verb", READING)
def test_reading_an_agent_changes_none_of_its_files(tmp_path, verb):
    with elytron.open(tmp_path / "store") as store:
        fill(store.agent("bob"), 2)
    listed, before = names(tmp_path), contents(tmp_path)
    with elytron.open(tmp_path / "store") as store:
        READING[verb](store.agent("bob"))
    assert names(tmp_path) == listed
    assert contents(tmp_path) == before
