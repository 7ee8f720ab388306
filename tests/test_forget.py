"""Forgetting: that no file below an agent's folder holds what was erased, and the rest is whole."""

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard

import elytron
from elytron import Erased, InvalidArgument
from elytron.ledger import files
from elytron.upkeep.erasing import Said, reach
from elytron.upkeep.runs import Run
from ledgers import check_index, held, ledger_path, terms_of
from limits import everything

# On each kind of store; those marked `here` look at what one of this process has inside.
pytestmark = pytest.mark.contract

SMALL = {"reserve_mb": 0, "keep_messages": 0}
Mark = str | bytes


def traces(store: Path, marks: Iterable[Mark], *, agent: str = "bob") -> dict[str, list[Mark]]:
    """Which of the marks each file below the agent's folder holds, as it is or unpacked."""
    sought = [(mark, mark if isinstance(mark, bytes) else mark.encode()) for mark in marks]
    found = {}
    for path in files.agent_folder(store, agent).rglob("*"):
        if path.is_file():
            # By another process: to close a file here takes SQLite's locks from it, and whoever
            # else has it open takes our log away when he ends, as nobody's.
            data = subprocess.run(["cat", path], capture_output=True, check=True).stdout
            if path.suffix == ".zst" or ".zst" in path.name:
                data += unpacked(data)
            if here := [mark for mark, piece in sought if piece in data]:
                found[path.name] = here
    return found


def unpacked(data: bytes) -> bytes:
    try:
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            return reader.read(1 << 28)
    except zstandard.ZstdError:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def secret(number: int, length: int) -> str:
    """A text with a mark at its start, its middle and its end, so that no part can stay unseen."""
    fill = "".join(random.Random(number).choices("abcdefghij ", k=max(0, length // 2)))
    return f"Secret{number:05}a {fill} Secret{number:05}m {fill} Secret{number:05}z"


def marks_of(numbers) -> set[str]:
    return {f"Secret{number:05}{part}" for number in numbers for part in "amz"}


def words_of(numbers: Iterable[int], length: int) -> set[bytes]:
    """The first words of such texts, as they are indexed: hashes, which no text looks like."""
    return {terms_of(secret(number, length))[:24] for number in numbers}


def conversation(bob: elytron.Agent, count: int, length: int) -> None:
    """Mallory and Alice, in turns in three sessions; the assistant answers each."""
    messages = []
    for n in range(count):
        session = f"session-{n % 3}"
        messages += [
            {"role": "user", "content": secret(n, length), "user": "Mallory the Forgettable",
             "session": session, "id": f"mallory-{n}", "metadata": {"note": f"SecretNote{n:05}"}},
            {"role": "assistant", "content": f"Reply{n:05} to her " + "x" * (length // 4),
             "session": session, "id": f"reply-{n}"},
            {"role": "user", "content": f"Alice says orchid{n} {'y' * (length // 4)}",
             "user": "alice", "session": session, "id": f"alice-{n}"},
            {"role": "assistant", "content": f"Answer{n:05} to Alice", "session": session,
             "id": f"answer-{n}"},
        ]  # fmt: skip
    messages.append(
        {"role": "user", "content": "Alone", "user": "Mallory the Forgettable",
         "session": "mallorys-own-session", "id": "alone"}
    )  # fmt: skip
    bob.import_(messages)


def erased_marks(count: int) -> set[str]:
    names = {
        "Mallory the Forgettable",
        "mallory the forgettable",
        "mallorys-own-session",
        "mallory-",
    }
    notes = {f"SecretNote{n:05}" for n in range(count)}
    return marks_of(range(count)) | notes | names


SIZES = [(1, 20), (40, 20), (40, 9000), (250, 300), (1, 60_000)]


@pytest.mark.parametrize("archived", ["none", "some", "all"])
@pytest.mark.parametrize("replies", [True, False])
@pytest.mark.parametrize(("count", "length"), SIZES)
def test_a_forgotten_user_is_in_no_file_and_the_others_are_whole(
    folder, count, length, replies, archived
):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        conversation(bob, count, length)
        words = words_of(range(min(count, 20)), length)
        assert traces(folder, words), "before the archive, which has none"
        if archived != "none":
            keep = 0 if archived == "all" else 2 * count
            assert bob.archive(older_than_days=0, keep=keep).archived
        before = traces(folder, erased_marks(count))
        assert any(".zst" in name for name in before) == (archived != "none"), "it can be seen"
        total = 4 * count + 1
        erased = bob.forget(user="Mallory the Forgettable", replies=replies)
        gone = count * (2 if replies else 1) + 1
        assert erased.messages + erased.archived == gone
        assert (erased.archived > 0) == (archived != "none")
        assert erased.users <= 1
        assert len(erased.remaining) == 1
        assert "backups" in erased.remaining[0]
        marks = erased_marks(count)
        if replies:
            marks |= {f"Reply{n:05}" for n in range(count)} | {"reply-"}
        assert traces(folder, marks | words) == {}, "already while the store is open"
        left = everything(bob)
        assert len(left) == total - gone
        assert {m.user for m in left.values()} == {None, "alice"}
        kinds = {key.partition("-")[0] for key in left}
        assert kinds == {"alice", "answer"} | (set() if replies else {"reply"})
        hits = bob.recall(f"orchid{count - 1}", archived=True)
        assert hits[0].message.id == f"alice-{count - 1}"
        assert bob.recall("Secret00000a", archived=True) == []
        assert bob.check().ok
        again = bob.forget(user="Mallory the Forgettable")
        assert (again.messages, again.archived, again.users, again.sessions) == (0, 0, 0, 0)
    assert traces(folder, marks | words) == {}
    check_index(folder)


@pytest.mark.parametrize(("count", "length"), [(1, 30), (300, 300), (20, 20_000)])
@pytest.mark.parametrize("archived", [False, True])
def test_a_forgotten_session_is_in_no_file_and_the_others_are_whole(
    folder, count, length, archived
):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        for n in range(count):
            bob.save(
                "user", secret(n, length), session="the secret session", user="Zelda only here"
            )
            bob.save("user", f"Orchid{n} is not secret", session="other", user="alice")
        marks = {*marks_of(range(count)), "the secret session", "Zelda only here", "zelda only"}
        words = words_of(range(min(count, 20)), length)
        assert traces(folder, words), "before the archive, which has none"
        if archived:
            bob.archive(older_than_days=0, keep=count)
        assert traces(folder, marks), "it can be seen"
        erased = bob.forget(session="the secret session")
        assert erased.messages + erased.archived == count
        assert (erased.sessions, erased.users) in {(1, 1), (0, 0)}
        assert traces(folder, marks | words) == {}
        assert len(everything(bob)) == count
        assert bob.check().ok
    assert traces(folder, marks | words) == {}


@pytest.mark.parametrize("count", [1, 700])
def test_clearing_leaves_nothing_but_the_name(folder, count):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        conversation(bob, count, 300)
        marks = {*erased_marks(count), "alice", "session-", "orchid", "Reply", "Answer"}
        words = words_of(range(min(count, 20)), 300)
        assert traces(folder, words), "before the archive, which has none"
        bob.archive(older_than_days=0, keep=count)
        assert traces(folder, marks), "it can be seen"
        erased = bob.clear()
        assert erased.messages + erased.archived == 4 * count + 1
        assert 1 <= erased.sessions <= 4, "those of which messages were held"
        assert 1 <= erased.users <= 2
        assert traces(folder, marks | words) == {}
        assert everything(bob) == {}
        assert bob.usage().sessions == bob.usage().users == 0
        assert bob.check().ok
        assert bob.save("user", "A new life", id="alice-0").new
        assert list(held(bob)) == ["alice-0"]
    check_index(folder)


@pytest.mark.parametrize("way", ["edited", "deleted", "marked", "churned", "overflowing"])
def test_what_was_changed_before_leaves_no_trace_either(folder, way):
    """Pages move, split and empty long before anybody asks to forget."""
    dice = random.Random(way)
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        for n in range(150):
            bob.save("user", secret(n, dice.choice([20, 400, 3000])), user="mallory-x", id=f"m{n}")
            bob.save("user", f"Other {n} " + "z" * dice.randrange(2000), id=f"o{n}")
            key = f"m{dice.randrange(n + 1)}"
            if way == "edited":
                if key in held(bob):
                    bob.edit(key, secret(n, dice.choice([5, 4000])))
            elif way == "deleted":
                bob.delete(key)
            elif way == "marked":
                if bob.get(key):
                    bob.set_importance(key, dice.random())
            elif way == "churned" and n % 20 == 19:
                bob.archive(older_than_days=0, keep=dice.randrange(100))
                bob.restore([f"m{dice.randrange(n)}" for _ in range(5)])
            elif way == "overflowing" and n % 50 == 0:
                bob.save("user", secret(n, 100_000), user="mallory-x", id=f"big{n}")
        marks = marks_of(range(150)) | {"mallory-x"}
        assert traces(folder, marks), "it can be seen"
        bob.forget(user="mallory-x")
        assert traces(folder, marks) == {}
        assert bob.check().ok


def test_forgetting_nobody_is_a_receipt_of_zeros(folder, store, bob):
    zeros = Erased("bob", 0, 0, 0, 0, 0, 0)
    assert bob.forget(user="nobody") == zeros
    assert bob.forget(session="nothing") == bob.clear() == zeros
    assert not folder.exists()
    bob.save("user", "Hello", user="alice", id="one")
    erased = bob.forget(user="nobody")
    assert (erased.messages, erased.archived, erased.users, erased.sessions) == (0, 0, 0, 0)
    assert list(held(bob)) == ["one"]
    for bad in ({}, {"user": "a", "session": "b"}, {"user": ""}, {"session": ""}, {"user": 3}):
        with pytest.raises(InvalidArgument):
            bob.forget(**bad)
    assert list(held(bob)) == ["one"]


# -- replies


def said(key: int, who: str, answers: int | None = None, session: str = "s") -> Said:
    return Said(key, session, key, who in "aA", who == "m", answers)


@pytest.mark.parametrize(
    ("spoken", "gone"),
    [
        ("m", "0"), ("ma", "01"), ("maa", "012"), ("mA", "01"), ("ua", ""), ("uam", "2"),
        ("mua", "0"), ("mam", "012"), ("uma", "12"), ("maua", "01"), ("am", "1"), ("", ""),
    ],
)  # fmt: skip
def test_a_reply_is_what_the_assistant_says_until_somebody_else_speaks(spoken, gone):
    """As a ledger notes it: each message answers the one before, if another said that."""
    all_said = [
        said(n, who, n - 1 if n and spoken[n - 1] != who else None) for n, who in enumerate(spoken)
    ]
    assert reach(all_said, replies=True) == {int(n) for n in gone}
    random.Random(1).shuffle(all_said)
    assert reach(all_said, replies=True) == {int(n) for n in gone}
    theirs = {n for n, who in enumerate(spoken) if who == "m"}
    assert reach(all_said, replies=False) == theirs


def test_replies_in_another_session_or_to_somebody_else_stay():
    spoken = [said(0, "m"), said(1, "a", 0, "t"), said(2, "u"), said(3, "a", 2), said(4, "a")]
    assert reach(spoken, replies=True) == {0, 1}


@pytest.mark.parametrize("away", ["what she said", "the replies"])
def test_replies_are_found_across_the_ledger_and_the_archive(folder, bob, away):
    conversation(bob, 10, 50)
    ours = "mallory" if away == "what she said" else "reply"
    for key in list(held(bob)):
        if not key.startswith(ours):
            bob.pin(key)
    assert bob.archive(older_than_days=0, keep=0).archived == 10
    erased = bob.forget(user="Mallory the Forgettable")
    assert (erased.messages, erased.archived) == (11, 10)
    assert {key.partition("-")[0] for key in everything(bob)} == {"alice", "answer"}
    assert bob.check().ok


# -- others at work


READER = """
import sys, apsw
db = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READWRITE)
db.execute("BEGIN")
db.execute("SELECT count(*) FROM messages").get
print("reading", flush=True)
sys.stdin.readline()
"""


@pytest.mark.files  # it is the log of a file that a reader keeps
def test_a_reader_elsewhere_is_told_of_and_reclaiming_finishes_what_it_held_up(
    folder, open_store, start_script
):
    # Nobody else at work: who waits for another here soon gives up.
    small = SMALL | {"link_concepts": False}
    store = open_store(**small, save_timeout_s=0.3, read_timeout_s=0.3)
    bob = store.agent("bob")
    conversation(bob, 30, 2000)
    reader = start_script(READER, ledger_path(folder))
    assert reader.stdout.readline() == "reading\n"
    erased = bob.forget(user="Mallory the Forgettable")
    assert erased.messages == 61
    assert len(erased.remaining) > 1
    assert "reader" in " ".join(erased.remaining)
    assert all(not key.startswith(("mallory", "reply")) for key in held(bob))
    assert traces(folder, erased_marks(30)), "so it is as the receipt says"
    reader.communicate("go\n", timeout=60)
    full = "full" in " ".join(erased.remaining)
    bob.reclaim(full=full)
    assert traces(folder, erased_marks(30)) == {}
    assert bob.check().ok


def test_what_is_saved_meanwhile_is_forgotten_whole_or_held_whole(folder, open_store):
    """Another thread saves pairs of hers and of Alice's all the time."""
    bob = open_store(**SMALL, max_messages_per_agent=1_000_000).agent("bob")
    conversation(bob, 50, 100)
    stop, begun, saved = threading.Event(), threading.Event(), []

    def save() -> None:
        n = 0
        while not stop.is_set():
            pair = [
                {"role": "user", "content": secret(n + 1000, 50), "user": "mallory-later",
                 "session": "later", "id": f"later-{n}"},
                {"role": "user", "content": f"Lily{n}", "user": "alice", "id": f"lily-{n}"},
            ]  # fmt: skip
            bob.save_many(pair)
            saved.append(n)
            begun.set()
            n += 1

    thread = threading.Thread(target=save)
    thread.start()
    try:
        before = total = 0
        for _ in range(20):  # until they overlap: the thread that saves may stand still
            begun.clear()
            assert begun.wait(60)
            before = len(saved)
            total += bob.forget(user="mallory-later").messages
            assert total >= before
            if len(saved) > before:
                break
        assert len(saved) > before, "they did overlap"
    finally:
        stop.set()
        thread.join()
    left = held(bob)
    assert {f"lily-{n}" for n in saved} <= left.keys(), "Alice's are all there"
    assert bob.check().ok
    bob.forget(user="mallory-later")
    assert not [key for key in held(bob) if key.startswith("later")]
    assert traces(folder, {"mallory-later", *marks_of(range(1000, 1000 + len(saved)))}) == {}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", ["before the note", "after the note"])
def test_what_a_dead_process_left_half_archived_is_forgotten_too(folder, monkeypatch, when):
    from elytron.archive import Archive
    from elytron.ledger import ops
    from elytron.upkeep.desk import Desk

    plain = Desk.commit

    def commit(self, op):
        is_note = isinstance(op, ops.Move) and not op.segments[0].startswith("run-")
        if is_note and when == "before the note":
            raise Killed
        if isinstance(op, ops.Remove):
            raise Killed
        return plain(self, op)

    store = elytron.open(folder, **SMALL)
    bob = store.agent("bob")
    conversation(bob, 20, 100)
    with monkeypatch.context() as patch:
        patch.setattr(Desk, "commit", commit)
        patch.setattr(Archive, "discard", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            bob.archive(older_than_days=0, keep=0)
    store.close()
    assert any(".zst" in name for name in traces(folder, erased_marks(20)))
    with elytron.open(folder, **SMALL) as again:
        bob = again.agent("bob")
        bob.forget(user="Mallory the Forgettable")
        assert traces(folder, erased_marks(20)) == {}
        assert len(everything(bob)) == 40
        assert bob.check().ok


@pytest.mark.parametrize(
    ("age_s", "others"), [(0, set()), (120, set()), (120, {"run"})],
    ids=["new", "two minutes old", "another is at work"],
)  # fmt: skip
def test_an_unfinished_segment_is_removed_or_named(folder, bob, store, age_s, others, monkeypatch):
    """One that stood still for minutes is a dead process's, unless another is at work."""
    monkeypatch.setattr(Run, "others", lambda _run: frozenset(others))
    conversation(bob, 5, 50)
    bob.archive(older_than_days=0, keep=10)
    segment = next((files.agent_folder(folder, "bob") / "archive").glob("segment-*"))
    part = segment.with_name(f"{segment.name}.part")
    part.write_bytes(segment.read_bytes()[:-20])
    written_s = time.time() - age_s
    os.utime(part, (written_s, written_s))
    assert part.name in traces(folder, erased_marks(5))
    remaining = " ".join(bob.forget(user="Mallory the Forgettable").remaining)
    assert traces(folder, erased_marks(5)).keys() == (
        {part.name} if part.name in remaining else set()
    )
    assert (part.name in remaining) == part.exists() == (age_s == 0 or bool(others))


def test_a_damaged_segment_is_named_as_what_may_hold_it_still(folder, bob, store):
    conversation(bob, 5, 50)
    bob.archive(older_than_days=0, keep=10)
    segment = next((files.agent_folder(folder, "bob") / "archive").glob("segment-*"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 3] ^= 1
    segment.write_bytes(data)
    erased = bob.forget(user="Mallory the Forgettable")
    assert any(segment.name in what for what in erased.remaining)
    assert not [key for key in held(bob) if key.startswith("mallory")]
    assert not bob.check().ok
