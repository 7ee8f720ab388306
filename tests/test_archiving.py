"""Archiving by hand and at a limit: what leaves, what is told, and what can be had back by id."""

import contextlib
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from elytron import Agent, Conflict, InvalidArgument, Store, importers
from elytron.ledger import ops, schema, surveys
from elytron.upkeep import archiving
from elytron.upkeep.desk import Desk
from moved import (
    ALL,
    archive_of,
    archived,
    archived_ids,
    check_once,
    held_ids,
    segments,
    talk,
    visible,
)
from quiet import without_janitor

# In a file and on a server.
pytestmark = pytest.mark.ledgers

OpenStore = Callable[..., Store]


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store(reserve_mb=0)


@pytest.fixture
def bob(store: Store) -> Agent:
    """An agent with 30 messages in two sessions."""
    bob = store.agent("bob")
    bob.save_many(talk(30))
    return bob


def contents(count: int) -> dict[str, str]:
    return {draft["id"]: draft["content"] for draft in talk(count)}


def test_what_leaves_is_what_the_dry_run_said(bob: Agent) -> None:
    before = visible(bob)
    planned = bob.archive(older_than_days=0, keep=10, dry_run=True)
    assert planned.dry_run
    assert (planned.held, planned.archived) == (30, 0)
    assert len(planned.leaving) == 20
    assert visible(bob) == before
    assert not archive_of(bob).exists(), "a dry run makes nothing"
    done = bob.archive(older_than_days=0, keep=10)
    assert (done.leaving, done.reasons) == (planned.leaving, {"age": 20})
    assert (done.held, done.archived, done.dry_run) == (30, 20, False)
    assert sorted(archived_ids(bob)) == sorted(leaving.id for leaving in planned.leaving)
    check_once(bob, contents(30))


def test_a_receipt_names_each_message_and_about_what_it_frees(bob: Agent) -> None:
    by_id = {message.id: message for message in bob.messages()}
    done = bob.archive(older_than_days=0, keep=10)
    for leaving in done.leaving:
        message = by_id[leaving.id]
        assert (leaving.session, leaving.role) == (message.session, message.role)
        assert leaving.at == message.at
        assert leaving.bytes > len(message.content)
    assert done.freed_bytes == sum(leaving.bytes for leaving in done.leaving)


def test_a_message_is_in_the_archive_with_all_that_it_had(bob: Agent, folder: Path) -> None:
    before = {message.id: message for message in bob.messages()}
    bob.archive(**ALL)
    assert {one.message.id: one.message for one in archived(bob)} == before
    offsets = {one.message.id: one.message.at.utcoffset() for one in archived(bob)}
    assert offsets == {key: message.at.utcoffset() for key, message in before.items()}
    answers = {one.key: one.responds_to for one in archived(bob)}
    assert set(answers.values()) <= {None, *answers}
    assert sum(link is not None for link in answers.values()) >= 20


def test_what_left_is_seen_by_no_reader_but_those_who_ask_for_the_archive(bob: Agent) -> None:
    bob.archive(older_than_days=0, keep=10)
    stay, gone = [f"m{n}" for n in range(20, 30)], [f"m{n}" for n in range(20)]
    assert held_ids(bob) == stay
    assert [message.id for message in bob.history(limit=100)] == stay
    assert {message.id for name in ("s0", "s1") for message in bob.history(name)} == set(stay)
    assert [bob.get(key) for key in gone] == [None] * 20
    assert {hit.message.id for hit in bob.recall("tea", limit=100)} == set(stay)
    assert bob.recall("unique3x") == []
    (hit,) = bob.recall("unique3x", archived=True)
    assert (hit.message.id, hit.archived) == ("m3", True)
    found = bob.recall("tea", limit=100, archived=True)
    assert {hit.message.id for hit in found} == {*stay, *gone}
    assert {message.id for message in bob.messages(archived=True)} == {*stay, *gone}
    usage = bob.usage()
    assert (usage.messages, usage.archived, usage.archive.segments) == (10, 20, 1)


@pytest.mark.parametrize("count", [10, 64, 200])
def test_the_word_index_stays_exact(
    check_words: Callable[[], None], open_store: OpenStore, count: int
) -> None:
    """Some messages are indexed and some are still waiting for it when they leave and return."""
    with open_store(reserve_mb=0) as store:
        bob = store.agent("bob")
        bob.save_many(talk(count))
        bob.archive(older_than_days=0, keep=count // 3)
    check_words()
    with open_store(reserve_mb=0) as store:
        bob = store.agent("bob")
        bob.save_many(talk(count, start=count))
        bob.restore(session="s0")
    check_words()
    with open_store(reserve_mb=0) as store:
        store.agent("bob").archive(**ALL)
    check_words()


def test_a_clean_up_that_finds_nothing_looks_at_no_message(
    bob: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many there are and how old the eldest is tells that nothing has to leave."""
    looks: list[object] = []
    plain = surveys.worths
    monkeypatch.setattr(surveys, "worths", lambda db: looks.append(db) or plain(db))
    bob.enforce_limits()
    assert not looks
    bob.archive(**ALL)
    assert looks


def test_nothing_that_is_pinned_leaves(bob: Agent) -> None:
    bob.pin("m3")
    bob.save("user", "Pinned from the start", id="born", pinned=True)
    assert bob.archive(**ALL).archived == 29
    assert held_ids(bob) == ["m3", "born"]
    bob.unpin("m3")
    assert bob.archive(**ALL).archived == 1
    assert held_ids(bob) == ["born"]


def test_the_list_of_changes_tells_what_left_and_what_came_back(
    open_store: OpenStore, look: Callable[..., list[Any]], bob: Agent
) -> None:
    bob.archive(older_than_days=0, keep=10)
    bob._agents.close()
    keys = {key for (key,) in look("SELECT key FROM messages")}
    deleted = "SELECT key FROM changes WHERE op = ? AND kind = ?"
    gone = {key for (key,) in look(deleted, (schema.DELETE, schema.MESSAGE))}
    assert len(gone) == 20
    assert not gone & keys
    with open_store(reserve_mb=0) as store:
        store.agent("bob").restore("m3")
    (last,) = look("SELECT op, kind, key FROM changes ORDER BY seq DESC LIMIT 1")
    (key,) = look("SELECT key FROM messages WHERE id = 'm3'")
    assert last == (schema.SAVE, schema.MESSAGE, *key)


def test_progress_is_told_up_to_the_total(bob: Agent) -> None:
    told: list[tuple[int, int]] = []
    bob.archive(**ALL, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (30, 30)
    assert told == sorted(told)


@pytest.mark.files  # the archive's, which are the same
def test_twenty_trims_make_a_few_small_segments(open_store: OpenStore) -> None:
    bob = open_store(reserve_mb=0).agent("bob")
    saved: dict[str, str] = {}
    for start in range(0, 1000, 50):
        drafts = list(talk(50, start=start))
        saved |= {draft["id"]: draft["content"] for draft in drafts}
        bob.save_many(drafts)
        assert bob.archive(**ALL).archived == 50
        assert len(segments(bob)) <= 9, "of 50 each seven, or one of 400 and seven"
    check_once(bob, saved)


@pytest.mark.files  # the archive's, which are the same
def test_the_oldest_segment_is_dropped_at_the_archives_limit_and_that_is_told(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    bob = open_store(reserve_mb=0, max_archive_mb=1).agent("bob")
    noise = random.Random(1)
    for part in range(4):
        bob.save_many(
            draft | {"content": noise.randbytes(100_000).hex()} for draft in talk(5, start=5 * part)
        )
        with caplog.at_level(logging.WARNING, "elytron.upkeep"):
            bob.archive(**ALL)
    usage = bob.usage().archive
    assert usage.bytes <= 1 << 20
    assert usage.messages + usage.dropped == 20
    assert usage.dropped > 0
    assert usage.dropped_segments > 0
    assert archived_ids(bob) == [f"m{n}" for n in range(usage.dropped, 20)]
    assert "over its limit: its 1 oldest segments with 1 messages were dropped" in caplog.text
    assert bob.check().ok


@pytest.mark.files  # the archive's, which are the same
def test_the_archive_never_takes_more_than_its_limit_not_even_for_a_moment(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at after each write and each rename, while segments come, are joined and are left."""
    bob = open_store(reserve_mb=0, max_archive_mb=1, keep_messages=0).agent("bob")
    dice = random.Random(2)
    rounds = [(40, 1), (3, 30), (120, 2), (10, 1), (10, 1), (300, 1), (40, 20), (5, 1), (60, 20)]
    seen: list[int] = []

    def watched(plain: Any) -> Any:
        def call(*arguments: Any) -> Any:
            result = plain(*arguments)
            seen.append(archive_bytes(bob))
            return result

        return call

    with monkeypatch.context() as patch:
        for name in ("write", "replace"):
            patch.setattr(os, name, watched(getattr(os, name)))
        start = 0
        for count, kb in rounds:
            bob.save_many(
                draft | {"content": dice.randbytes(kb * 500).hex()}
                for draft in talk(count, start=start)
            )
            start += count
            bob.archive(**ALL)
            ids = archived_ids(bob)
            bob.delete(ids[len(ids) // 2])
            assert bob.restore(ids[-2]).restored
    limit_bytes = 1 << 20
    assert max(seen) <= limit_bytes
    assert max(seen) > 0.7 * limit_bytes, "the limit was near"
    usage = bob.usage()
    assert usage.archive.dropped
    assert usage.archived + usage.messages + usage.archive.dropped == start - len(rounds)
    assert bob.check().ok


def archive_bytes(bob: Agent) -> int:
    with contextlib.suppress(FileNotFoundError), os.scandir(archive_of(bob).folder) as found:
        return sum([file.stat().st_size for file in found])
    return 0


def test_a_write_at_the_limit_of_messages_archives_the_least_valuable(
    open_store: OpenStore,
) -> None:
    store = open_store(reserve_mb=0, max_messages_per_agent=20, keep_messages=0)
    bob = without_janitor(store.agent("bob"))
    for draft in talk(50):
        assert bob.save(**draft).new
        assert bob.usage().messages <= 20
    check_once(bob, contents(50))


def test_a_tenth_leaves_at_once_so_that_nine_in_ten_writes_make_no_room(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    plain = archiving.archive

    def archive(*arguments: Any, **named: Any) -> int:
        runs.append(plain(*arguments, **named))
        return runs[-1]

    monkeypatch.setattr(archiving, "archive", archive)
    store = open_store(reserve_mb=0, max_messages_per_agent=100, keep_messages=0)
    bob = without_janitor(store.agent("bob"))
    for draft in talk(150):
        bob.save(**draft)
    assert [count for count in runs if count] == [10] * 5


# -- while it is under way


def meanwhile(kind: type, work: Callable[[], object]) -> Any:
    """Have *work* done once, just before a chore commits its first op of a kind."""
    plain, todo = Desk.commit, [work]

    def commit(self: Desk, op: ops.Op) -> Any:
        # Not at the note that an archiving begins with: before that, nothing is on its way.
        begins = isinstance(op, ops.Move) and op.segments[0].startswith("run-")
        if isinstance(op, kind) and todo and not begins:
            todo.pop()()
        return plain(self, op)

    return mock.patch.object(Desk, "commit", commit)


STEPS = [ops.Move, ops.Remove]


def erase(open_store: OpenStore, id: str) -> None:
    """Delete a message as another process would, which waits for none of our chores."""
    with open_store(reserve_mb=0) as other:
        assert other.agent("bob").delete(id)


@pytest.mark.parametrize("step", STEPS)
def test_an_edit_while_archiving_is_under_way_stays_and_costs_no_other_message(
    bob: Agent, step: type
) -> None:
    with meanwhile(step, lambda: bob.edit("m3", "Edited")):
        assert bob.archive(**ALL).archived == 29
    assert held_ids(bob) == ["m3"]
    check_once(bob, contents(30) | {"m3": "Edited"})
    assert bob.check().findings == ()


@pytest.mark.parametrize("step", STEPS)
def test_a_deletion_while_archiving_is_under_way_is_for_good_and_costs_no_other_message(
    bob: Agent, open_store: OpenStore, step: type
) -> None:
    with meanwhile(step, lambda: erase(open_store, "m3")):
        assert bob.archive(**ALL).archived == 29
    expected = contents(30)
    del expected["m3"]
    check_once(bob, expected)
    assert bob.restore("m3").missing == ("m3",)


@pytest.mark.parametrize("step", STEPS)
def test_what_is_pinned_while_archiving_is_under_way_stays(bob: Agent, step: type) -> None:
    with meanwhile(step, lambda: bob.pin("m3")):
        assert bob.archive(**ALL).archived == 29
    assert held_ids(bob) == ["m3"]
    check_once(bob, contents(30))


def test_what_is_pinned_after_the_plan_was_made_stays(bob: Agent) -> None:
    plain = archive_of(bob).write

    def write(messages: Any) -> Any:
        bob.pin("m3")
        return plain(messages)

    with mock.patch.object(archive_of(bob), "write", write):
        assert bob.archive(**ALL).archived == 29
    assert held_ids(bob) == ["m3"]
    check_once(bob, contents(30))


def test_an_importance_that_is_set_while_archiving_is_under_way_is_not_lost(bob: Agent) -> None:
    with meanwhile(ops.Remove, lambda: bob.set_importance("m3", 0.9)):
        bob.archive(**ALL)
    bob.restore("m3")
    message = bob.get("m3")
    assert message is not None
    assert message.importance == 0.9


# -- ids that are in the archive


def test_saving_again_what_is_archived_adds_nothing(bob: Agent) -> None:
    bob.archive(older_than_days=0, keep=10)
    drafts = list(talk(30))
    assert not bob.save(**drafts[3]).new
    assert not bob.submit(**drafts[4]).result(timeout=30).new
    assert [receipt.new for receipt in bob.save_many(drafts)] == [False] * 30
    report = bob.import_(drafts)
    assert (report.imported, report.already_held) == (0, 30)
    mixed = [drafts[5], *talk(1, start=99), drafts[25]]
    receipts = bob.save_many(mixed)
    assert [(receipt.id, receipt.new) for receipt in receipts] == [
        ("m5", False), ("m99", True), ("m25", False)
    ]  # fmt: skip
    check_once(bob, contents(30) | {"m99": mixed[1]["content"]})


@pytest.mark.parametrize(
    "change",
    [{"content": "Other"}, {"session": "elsewhere"}, {"user": "mallory"}, {"metadata": {"n": -1}}],
)
def test_other_content_under_an_id_that_is_archived_is_refused(
    bob: Agent, change: dict[str, Any]
) -> None:
    bob.archive(**ALL)
    (draft,) = [draft for draft in talk(30) if draft["id"] == "m3"]
    other, new = draft | change, next(talk(1, start=99))
    with pytest.raises(Conflict, match="'m3'"):
        bob.save(**other)
    with pytest.raises(Conflict, match="'m3'"):
        bob.submit(**other).result(60)
    with pytest.raises(Conflict, match="'m3'"):
        bob.save_many([new, other])
    with pytest.raises((Conflict, InvalidArgument), match="'m3'"):
        bob.import_([other])
    check_once(bob, contents(30))


def test_an_export_with_the_archive_is_imported_whole_elsewhere(
    bob: Agent, store: Store, tmp_path: Path
) -> None:
    bob.archive(older_than_days=0, keep=10)
    before = {message.id: message for message in bob.messages(archived=True)}
    assert bob.export(tmp_path / "all.jsonl", archived=True) == 30
    for name, new in (("bob", 0), ("eve", 30)):
        (report,) = importers.import_file(store, tmp_path / "all.jsonl", agent=name)
        assert (report.imported, report.already_held) == (new, 30 - new)
    eve = store.agent("eve")
    assert {m.id: m.content for m in eve.messages()} == {k: m.content for k, m in before.items()}


def test_deleting_a_message_reaches_the_archive(bob: Agent) -> None:
    bob.archive(older_than_days=0, keep=10)
    assert bob.delete("m3")
    assert not bob.delete("m3")
    assert bob.delete("m25")
    expected = contents(30)
    del expected["m3"], expected["m25"]
    check_once(bob, expected)
    assert bob.restore(["m3", "m25"]).missing == ("m3", "m25")
    assert bob.save(**next(talk(1, start=3))).new


def test_deleting_a_session_reaches_the_archive(bob: Agent) -> None:
    bob.archive(older_than_days=0, keep=10)
    assert bob.delete_session("s0") == 15
    assert bob.delete_session("s0") == 0
    odd = {draft["id"]: draft["content"] for draft in talk(30) if draft["session"] == "s1"}
    check_once(bob, odd)
    assert bob.restore(session="s0").restored == 0


def test_a_retry_in_a_batch_at_the_limit_is_not_saved_twice(open_store: OpenStore) -> None:
    """To make room for the new one, the one that is held already, the least valuable, leaves."""
    store = open_store(reserve_mb=0, max_messages_per_agent=100, keep_messages=0)
    bob = without_janitor(store.agent("bob"))
    drafts = list(talk(100))
    bob.save_many(drafts)
    receipts = bob.save_many([drafts[10], *talk(1, start=100)])
    check_once(bob, contents(101))
    assert [receipt.new for receipt in receipts] == [False, True]


def test_a_conflict_in_a_batch_at_the_limit_is_told_as_such(open_store: OpenStore) -> None:
    bob = open_store(reserve_mb=0, max_messages_per_agent=8, auto_cleanup=False).agent("bob")
    drafts = list(talk(8))
    bob.save_many(drafts)
    with pytest.raises(Conflict):
        bob.save_many([*talk(1, start=8), drafts[0] | {"content": "Other"}])
