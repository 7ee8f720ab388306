"""
A damaged frame of the log: what stands behind it was acknowledged, and is neither forgotten nor
silently written over.
"""

import logging
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import elytron
from elytron.ledger import frames
from elytron.ledger.connection import FRAME_BYTES
from ledgers import flip, held, ledger_path, wal_path
from limits import everything

# Which commits stand in the log is counted on, so the background adds none of its own.
SMALL = {"reserve_mb": 0, "auto_cleanup": False, "link_concepts": False}
OPENED = """
import os, signal, sys, elytron
settings = dict(reserve_mb=0, auto_cleanup=False, link_concepts=False, keep_messages=0)
bob = elytron.open(sys.argv[1], **settings).agent("bob")
"""
LEAVE = """
for number in range(6):
    bob.save("user", f"Number {number}", id=f"new-{number}", session="s")
bob.edit("old-1", "Number 1, edited")
bob.delete("old-2")
bob.remember("Alice lives in Lyon", about=["Alice"])
bob.save("user", "The last", id="last", session="t")
os.kill(os.getpid(), signal.SIGKILL)
"""

MARKED = """
bob.save("user", "Number 0", id="new-0", session="s")
bob.pin("old")
for number in range(1, 4):
    bob.save("user", f"Number {number}", id=f"new-{number}", session="s")
os.kill(os.getpid(), signal.SIGKILL)
"""
IN_A_SESSION = """
for number in range(6):
    bob.save("user", f"Number {number}", id=f"new-{number}", session="t", user="alice")
bob.delete("new-0")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose process died with ten commits in the log that are nowhere else."""
    folder = tmp_path_factory.mktemp("template") / "store"
    with elytron.open(folder, **SMALL) as store:
        store.agent("bob").save_many(
            {"role": "user", "content": f"Number {n}", "id": f"old-{n}", "session": "s"}
            for n in range(4)
        )
    leave(folder, LEAVE)
    return folder


def leave(folder: Path, script: str) -> None:
    """Have a process write to a store and die."""
    subprocess.run([sys.executable, "-c", OPENED + script, str(folder)], timeout=60, check=False)


@pytest.fixture
def left(template: Path, folder: Path) -> Path:
    shutil.copytree(template, folder)
    return folder


AFTER = {"old-0": "Number 0", "old-1": "Number 1, edited", "old-3": "Number 3"}
AFTER |= {f"new-{n}": f"Number {n}" for n in range(6)} | {"last": "The last"}


def ends(folder: Path) -> list[int]:
    """The frames that end a commit."""
    log = frames.read(wal_path(folder))
    return [number for number in range(1, log.count + 1) if log.commits(number)]


def spoil(folder: Path, frame: int, *, at: int = 200) -> None:
    """Flip a bit in the page of a frame."""
    flip(wal_path(folder), frames.HEADER_BYTES + (frame - 1) * FRAME_BYTES + 24 + at)


def wipe(folder: Path, frame: int) -> None:
    """Overwrite half of the page of a frame."""
    data = bytearray(wal_path(folder).read_bytes())
    at = frames.HEADER_BYTES + (frame - 1) * FRAME_BYTES + 24
    data[at : at + 2048] = bytes(2048)
    wal_path(folder).write_bytes(data)


def put_frame(folder: Path, frame: int, page: bytes, *, whole: bool) -> None:
    """
    Write a commit of one frame over another, as SQLite would after it undid that one: with a page
    in the same place. Only its header is written if it is not to be *whole*.
    """
    log = frames.read(wal_path(folder))
    data = bytearray(wal_path(folder).read_bytes())
    at = frames.HEADER_BYTES + (frame - 1) * FRAME_BYTES
    place, size = log.place(frame), log.commits(ends(folder)[-1])
    order = ">" if data[3] & 1 else "<"
    head = struct.pack(">II", place, size)
    first, second = struct.unpack(">II", data[at - FRAME_BYTES + 16 : at - FRAME_BYTES + 24])
    words = struct.unpack(f"{order}{(8 + len(page)) // 4}I", head + page)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    data[at : at + 24] = head + data[at + 8 : at + 16] + struct.pack(">II", first, second)
    if whole:
        data[at + 24 : at + FRAME_BYTES] = page
    wal_path(folder).write_bytes(data)


def checked(folder: Path, *, repair: bool = False) -> elytron.Checked:
    with elytron.open(folder, **SMALL) as store:
        return store.agent("bob").check(repair=repair)


def now_held(folder: Path) -> dict[str, str]:
    with elytron.open(folder, **SMALL) as store:
        return held(store.agent("bob"))


def test_what_a_killed_process_leaves_is_whole(left: Path) -> None:
    assert len(ends(left)) >= 10
    assert checked(left).findings == ()
    assert now_held(left) == AFTER
    assert frames.aside(ledger_path(left)) == []


def test_commits_behind_a_bad_frame_are_told_kept_and_brought_back(
    left: Path, caplog: pytest.LogCaptureFixture
) -> None:
    commits = ends(left)
    spoil(left, commits[1] + 1)
    with caplog.at_level(logging.ERROR, "elytron.ledger"):
        lost = now_held(left)
    assert lost.keys() < AFTER.keys() | {"old-2"}
    assert "old-2" in lost, "its deletion is lost with the rest"
    assert f"{len(commits) - 2} commits are not read any more" in caplog.text
    assert f"at least {len(commits) - 3} of them were acknowledged" in caplog.text
    assert "Number" not in caplog.text
    (kept,) = frames.aside(ledger_path(left))

    for _ in range(2):  # until it is repaired
        (finding,) = checked(left).findings
        assert (finding.part, finding.repairable, finding.repaired) == ("log", True, False)
        assert kept.name in finding.what
    report = checked(left, repair=True)
    assert report.ok, report.findings
    assert now_held(left) == AFTER
    assert checked(left).findings == ()
    (aside,) = ledger_path(left).parent.glob("damaged-*")
    assert (aside / kept.name).exists(), "the evidence is kept"
    with elytron.open(left, **SMALL) as store:
        assert [one.content for one in store.agent("bob").memories()] == ["Alice lives in Lyon"]


def test_what_was_saved_meanwhile_stays_beside_what_comes_back(left: Path) -> None:
    """The lost messages' keys and places are taken by then, and an old one is edited again."""
    spoil(left, ends(left)[1] + 1)
    with elytron.open(left, **SMALL) as store:
        bob = store.agent("bob")
        for number in range(5):
            bob.save("user", f"Meanwhile {number}", id=f"meanwhile-{number}", session="s")
        bob.edit("old-1", "Number 1, edited later")
        bob.delete("old-0")
    report = checked(left, repair=True)
    assert report.ok, report.findings
    expected = {f"meanwhile-{n}": f"Meanwhile {n}" for n in range(5)} | AFTER
    expected["old-1"] = "Number 1, edited later"
    del expected["old-0"]
    assert now_held(left) == expected
    with elytron.open(left, **SMALL) as store:
        shown = store.agent("bob").history("s", limit=100)
    assert {message.id for message in shown} == expected.keys() - {"last"}
    places = [message.position for message in shown]
    assert places == sorted(set(places))


def test_a_torn_last_commit_is_named_as_what_it_may_be(left: Path) -> None:
    commits = ends(left)
    spoil(left, commits[-2] + 1)
    (finding,) = checked(left).findings
    assert "1 commit is not read any more: it may never have been acknowledged" in finding.what
    assert checked(left, repair=True).ok
    assert now_held(left).keys() - {"last"} == AFTER.keys() - {"last"}


def test_a_last_frame_that_was_just_being_written_is_not_told(left: Path) -> None:
    """As a process leaves it that is killed between a frame's header and its page."""
    wipe(left, ends(left)[-1])
    assert checked(left).findings == ()
    assert now_held(left).keys() == AFTER.keys() - {"last"}


def test_a_last_frame_with_a_flipped_bit_is_no_torn_one(left: Path) -> None:
    spoil(left, ends(left)[-1])
    assert not checked(left).ok
    assert checked(left, repair=True).ok
    assert now_held(left) == AFTER


def test_behind_a_frame_of_which_much_is_gone_rows_are_added_and_none_is_changed(
    left: Path,
) -> None:
    """Whether they are later than what is held is not known."""
    wipe(left, ends(left)[1] + 1)
    assert now_held(left)
    assert checked(left, repair=True).ok
    after = now_held(left)
    assert after == AFTER | {"old-1": "Number 1", "old-2": "Number 2"}


@pytest.mark.parametrize("damage", [spoil, wipe])
def test_what_was_forgotten_since_does_not_come_back(
    left: Path, damage: Callable[[Path, int], None]
) -> None:
    damage(left, ends(left)[3] + 1)
    with elytron.open(left, **SMALL) as store:
        bob = store.agent("bob")
        bob.delete("new-0")
        assert "old-3" in held(bob)
        bob.forget(session="s")
    report = checked(left, repair=True)
    assert report.ok, [
        (found.part, found.repaired, found.what[-330:-200]) for found in report.findings
    ]
    assert now_held(left).keys().isdisjoint(["old-0", "old-1", "old-2", "old-3", "new-0"])


def test_what_a_damaged_frame_alone_had_is_told_as_what_may_be_lost(folder: Path) -> None:
    """A mark is not missed by anything else: nothing else tells that it was there."""
    with elytron.open(folder, **SMALL) as store:
        store.agent("bob").save("user", "Number 0", id="old", session="s")
    leave(folder, MARKED)
    commits = ends(folder)
    for frame in range(commits[0] + 1, commits[1] + 1):
        wipe(folder, frame)
    told = [finding.what for finding in checked(folder, repair=True).findings]
    with elytron.open(folder, **SMALL) as store:
        shown = {message.id: message.pinned for message in store.agent("bob").messages()}
    assert shown.pop("old") is False
    assert shown.keys() >= {"new-1", "new-2"}
    assert any("marks on them may be lost" in what for what in told), told


def test_what_comes_back_is_not_put_into_a_session_that_took_its_number_since(
    folder: Path,
) -> None:
    """The session's own row is in the frames that are gone; its number was given away again."""
    with elytron.open(folder, **SMALL) as store:
        store.agent("bob").save("user", "Number 0", id="old", session="s")
    leave(folder, IN_A_SESSION)
    commits = ends(folder)
    for frame in range(1, commits[0] + 1):
        wipe(folder, frame)
    with elytron.open(folder, **SMALL) as store:
        for name in ("since", *"abcdefgh"):  # which take the numbers of the messages, too
            store.agent("bob").save("user", "Since", id=name, session="since", user="bruno")
    told = [finding.what for finding in checked(folder, repair=True).findings]
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        there = {message.id: message for message in bob.messages()}
    sessions = {name: (one.session, one.user) for name, one in there.items()}
    assert {sessions.pop(name) for name in ("since", *"abcdefgh")} == {("since", "bruno")}
    assert sessions.pop("old") == ("s", None)
    assert sessions
    assert all(there[name].position == int(name.removeprefix("new-")) for name in sessions)
    assert any("names of" in what for what in told), told
    for session, user in sessions.values():
        assert session.startswith("lost-session-")
        assert str(user).startswith("lost-user-")


@pytest.mark.parametrize("damage", [spoil, wipe])
def test_nothing_comes_back_of_which_it_is_not_known_whether_it_was_deleted(
    left: Path, damage: Callable[[Path, int], None]
) -> None:
    """The list of changes that would tell begins later."""
    damage(left, ends(left)[3] + 1)
    with elytron.open(left, **SMALL, change_max=1000) as store:
        bob = store.agent("bob")
        bob.delete("old-0")
        bob.save_many(
            {"role": "user", "content": f"{n}", "id": f"much-{n}", "session": "t"}
            for n in range(600)
        )
        for start in range(0, 600, 200):
            for n in range(start, start + 200):
                bob.set_importance(f"much-{n}", 0.9)
                bob.delete(f"much-{n}")
    assert checked(left, repair=True).ok
    assert "old-0" not in now_held(left)


@pytest.mark.parametrize("whole", [False, True])
def test_what_was_undone_and_partly_written_over_is_not_brought_back(
    left: Path, *, whole: bool
) -> None:
    """Whoever wrote it was told that it failed."""
    commits = ends(left)
    first = commits[-2] + 1
    log = frames.read(wal_path(left))
    before = {log.place(n): log.page(n) for n in range(1, first)}
    put_frame(left, first, before[log.place(first)], whole=whole)
    assert log.count - first > 1
    assert now_held(left).keys() == AFTER.keys() - {"last"}
    report = checked(left, repair=True)
    assert report.ok
    assert now_held(left).keys() == AFTER.keys() - {"last"}
    assert checked(left).findings == ()


MOVE = """
from elytron.upkeep.desk import Desk
plain = Desk.removing
def removing(*arguments, **more):
    yield next(plain(*arguments, **more))
    bob.save("user", "The last", id="last", session="s")
    os.kill(os.getpid(), signal.SIGKILL)
Desk.removing = removing
bob.archive(older_than_days=0, keep=1)
"""


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose process died when twenty messages were in the archive and left the ledger."""
    folder = tmp_path_factory.mktemp("moved") / "store"
    with elytron.open(folder, **SMALL) as store:
        store.agent("bob").save_many(
            {"role": "user", "content": f"Number {n}", "id": f"m{n}", "session": "s"}
            for n in range(21)
        )
    leave(folder, MOVE)
    return folder


MOVED = {f"m{n}": f"Number {n}" for n in range(21)}


def both(folder: Path) -> dict[str, str]:
    """What is held, and what is archived."""
    with elytron.open(folder, **SMALL) as store:
        return {one.id: one.content for one in everything(store.agent("bob")).values()}


def removing_frames(folder: Path) -> range:
    """The frames of the commit in which messages left the ledger."""
    commits = ends(folder)
    return range(commits[-3] + 1, commits[-2] + 1)


@pytest.mark.parametrize("before", ["nothing", "limits", "restored"])
@pytest.mark.parametrize("how", ["undone", "undone whole", "flipped", "wiped"])
def test_a_message_that_was_leaving_for_the_archive_is_in_one_place_after_a_repair(
    moved: Path, folder: Path, how: str, before: str
) -> None:
    shutil.copytree(moved, folder)
    first, *_, last = removing_frames(folder)
    if how == "flipped":
        spoil(folder, first)
    elif how == "wiped":
        wipe(folder, first)
    else:
        # A removal that failed; then the beginning of another commit was written over it.
        data = wal_path(folder).read_bytes()
        end = last if how == "undone whole" else last - 1
        wal_path(folder).write_bytes(data[: frames.HEADER_BYTES + end * FRAME_BYTES])
        put_frame(folder, first, b"another page...." * 256, whole=False)
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        assert held(bob).items() >= MOVED.items()
        if before == "limits":
            bob.enforce_limits()
        elif before == "restored":
            bob.restore(list(MOVED))
    checked(folder, repair=True)
    assert checked(folder).findings == ()
    after = both(folder)
    assert after.items() >= MOVED.items()
    with elytron.open(folder, **SMALL) as store:
        store.agent("bob").enforce_limits()
    assert both(folder) == after


def test_commits_behind_a_damaged_header_of_the_log_are_brought_back(left: Path) -> None:
    flip(wal_path(left), 9)
    (finding,) = checked(left).findings
    assert "the header of the log is damaged" in finding.what
    assert checked(left, repair=True).ok
    assert now_held(left) == AFTER


def test_no_more_logs_are_kept_than_a_few(template: Path, folder: Path) -> None:
    for number in range(frames.ASIDE_MAX + 2):
        if folder.exists():
            aside = frames.aside(ledger_path(folder))
            kept = [(path.name, path.read_bytes()) for path in aside]
            shutil.rmtree(folder)
        else:
            kept = []
        shutil.copytree(template, folder)
        for name, data in kept:
            ledger_path(folder).with_name(name).write_bytes(data)
        spoil(folder, ends(folder)[number] + 1)
        assert now_held(folder)
    assert len(frames.aside(ledger_path(folder))) == frames.ASIDE_MAX
    assert checked(folder, repair=True).ok
    assert now_held(folder) == AFTER


def taken_by_sqlite(folder: Path) -> int:
    db = apsw.Connection(str(ledger_path(folder)), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.pragma("user_version")
        return db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
    finally:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        db.close()


DAMAGES: dict[str, Callable[[bytearray, random.Random], Any]] = {
    "bit": lambda data, dice: data.__setitem__(
        (at := dice.randrange(len(data))), data[at] ^ 1 << dice.randrange(8)
    ),
    "cut": lambda data, dice: data.__delitem__(slice(dice.randrange(len(data)), None)),
    "zeros": lambda data, dice: data.__setitem__(
        slice(at := dice.randrange(len(data) // 512) * 512, at + 512), bytes(512)
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_as_many_frames_are_taken_for_valid_as_sqlite_takes(left: Path, damage: str) -> None:
    """And a frame more is suspected only where there is one."""
    dice = random.Random(damage)
    data = wal_path(left).read_bytes()
    for _ in range(25):
        damaged = bytearray(data)
        DAMAGES[damage](damaged, dice)
        wal_path(left).with_name("ledger.db-shm").unlink(missing_ok=True)
        wal_path(left).write_bytes(damaged)
        log = frames.read(wal_path(left))
        taken = taken_by_sqlite(left)
        assert log.valid() == taken
        if log.lost(taken) is not None:
            path, size_bytes = str(wal_path(left)), len(damaged)
            assert frames.is_suspicious(path, taken=taken, size_bytes=size_bytes)


def copy(source: Path, target: Path) -> None:
    """What a crash would leave of an open store. To close a ledger's file here drops its locks."""
    subprocess.run(["cp", "-r", source, target], timeout=60, check=True)
    for shared in target.rglob("ledger.db-shm"):
        shared.unlink()


def test_a_commit_that_was_cut_short_leaves_nothing_behind_a_shorter_one(
    folder: Path, tmp_path: Path
) -> None:
    """
    A process is killed when its commit is in the log and does not count yet; another, which was
    open before, goes on there. What is left of the longer one is no loss to be told of.
    """
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        bob.save("user", "The first")
        copy(folder, tmp_path / "killed")
        before = wal_path(folder).stat().st_size
        with elytron.open(tmp_path / "killed", **SMALL) as killed:
            killed.agent("bob").save("user", "Long " * 5000)
            after = wal_path(tmp_path / "killed").read_bytes()
        with wal_path(folder).open("ab") as log:  # which has no locks
            log.write(after[before:])
        assert len(after) >= before + 5 * FRAME_BYTES
        bob.save("user", "The second")
        copy(folder, tmp_path / "crashed")
    for left in (folder, tmp_path / "crashed"):
        with elytron.open(left, **SMALL) as store:
            bob = store.agent("bob")
            assert bob.check().ok
            assert [m.content for m in bob.messages()] == ["The first", "The second"]
        assert not list(left.rglob("*damaged*"))
