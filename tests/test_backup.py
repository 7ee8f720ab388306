"""Backups: online, cheap where nothing changed, and never replaced by something worse."""

import asyncio
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import elytron
from backups import copied, copy_of, fill, home, look, looks, make, restored
from elytron import Busy, InvalidArgument, NotFound, Unavailable
from elytron.archive import merging
from elytron.ledger import files
from elytron.upkeep import copying, stamps
from ledgers import contents, query

WAIT_MAX_S = 60


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and a backup of it."""
    place = tmp_path_factory.mktemp("backup")
    make(place / "store")
    with elytron.open(place / "store") as store:
        assert store.backup(place / "backup").ok
        assert not any(one.copied for one in store.backup(place / "backup").agents)
    return place


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    """A store and a backup, in which nothing is to be copied."""
    make(tmp_path / "store")
    with elytron.open(tmp_path / "store") as store:
        store.backup(tmp_path / "backup")
        assert not any(one.copied for one in store.backup(tmp_path / "backup").agents)
    return tmp_path


# -- what is in it


def test_what_is_restored_to_a_new_place_is_all_that_was_there(place):
    assert restored(place / "backup", place / "new") == looks(place / "store")


def test_saves_go_on_while_a_backup_is_made_and_it_has_all_that_was_acknowledged_before(tmp_path):
    """Each of several backups: a prefix of what was saved, with all that was saved before it."""
    stop, saved, grown = threading.Event(), [], threading.Condition()
    with elytron.open(tmp_path / "store", wal_limit_mb=1) as store:
        bob = store.agent("bob")
        fill(bob, 0, 900)

        def save() -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                bob.save("user", f"new {number}", id=f"n{number}")
                with grown:
                    saved.append(number)
                    grown.notify_all()

        def wait_for_one(_done: int, _all: int) -> None:
            with grown:
                count = len(saved)
                assert grown.wait_for(lambda: len(saved) > count, WAIT_MAX_S)

        saving = threading.Thread(target=save)
        saving.start()
        try:
            during = 0
            for number in range(4):
                before = len(saved)
                report = store.backup(tmp_path / "backup", on_progress=wait_for_one)
                during += len(saved) - before
                assert report.ok, report.failed
                shutil.copytree(tmp_path / "backup", tmp_path / f"backup-{number}")
                elytron.restore_backup(tmp_path / f"backup-{number}", tmp_path / f"new-{number}")
                with elytron.open(tmp_path / f"new-{number}") as new:
                    held = {m.id for m in new.agent("bob").messages()}
                    assert new.agent("bob").check().ok
                numbers = sorted([int(one[1:]) for one in held if one.startswith("n")])
                assert numbers == list(range(len(numbers)))
                assert before <= len(numbers) <= len(saved) + 1
        finally:
            stop.set()
            saving.join(WAIT_MAX_S)
        assert during, "nothing was saved while a backup was made"
        assert bob.check().ok


def test_only_what_is_named_is_copied(place):
    with elytron.open(place / "store") as store:
        report = store.backup(place / "one", agents=["al"])
        assert [one.agent for one in report.agents] == ["al"]
    assert set(restored(place / "one", place / "new")) == {"al"}


def test_an_archive_that_another_process_changes_meanwhile_is_copied_as_of_one_moment(
    place, monkeypatch
):
    """Each message is in the copy once, though messages move between the steps of the copying."""
    plain, moves = copying._segments, iter(range(2))
    with elytron.open(place / "store") as store, elytron.open(place / "store") as other:
        before = look(store.agent("bob"))["everything"]

        def moved_after(*arguments: Any) -> bool:
            done = plain(*arguments)
            for number in moves:
                other.agent("bob").archive(older_than_days=0, keep=10 - 5 * number)
                break
            return done

        monkeypatch.setattr(copying, "_segments", moved_after)
        assert store.backup(place / "backup", agents=["bob"]).ok
    (found,) = [restored(place / "backup", place / "new")["bob"]]
    assert found["everything"] == before
    assert len(found["held"]) == 5
    assert not list(moves)


def test_what_is_half_moved_when_it_is_copied_is_mended_when_it_is_opened(place):
    """A note of a run that the copy knows nothing of, as of a process that died there."""
    (segment,) = (home(place / "store") / "archive").glob("segment-*")
    query(place / "store", "INSERT INTO moving VALUES(?, 'dead')", (segment.name,))
    with elytron.open(place / "store") as store:
        assert store.backup(place / "half").ok
    elytron.restore_backup(place / "half", place / "new")
    with elytron.open(place / "new") as store:
        store.agent("bob").enforce_limits()
        assert store.agent("bob").check().ok
        assert len(list(store.agent("bob").messages(archived=True))) == 30


# -- cheap


def test_an_agent_that_did_not_change_is_passed_over_unread(settled, monkeypatch):
    def read(*_: Any) -> None:
        pytest.fail("it was read")

    monkeypatch.setattr(copying, "copy", read)
    with elytron.open(settled / "store") as store:
        store.agent("bob").history()
        report = store.backup(settled / "backup")
    assert [(one.agent, one.copied, one.messages) for one in report.agents] == [
        ("al", False, 20),
        ("bob", False, 20),
    ]


def other_process(folder: Path) -> None:
    with elytron.open(folder) as other:
        other.agent("bob").save("user", "from elsewhere")


CHANGES: dict[str, Callable[[elytron.Agent, Path], object]] = {
    "save": lambda bob, _: bob.save("user", "new"),
    "other": lambda _, folder: other_process(folder),
    "edit": lambda bob, _: bob.edit("m25", "edited"),
    "delete": lambda bob, _: bob.delete("m25"),
    "delete archived": lambda bob, _: bob.delete("m1"),
    "pin": lambda bob, _: bob.pin("m26"),
    "importance": lambda bob, _: bob.set_importance("m26", 0.9),
    "remember": lambda bob, _: bob.remember("Bob likes tea"),
    "relate": lambda bob, _: bob.relate("Bob", "likes", "tea"),
    "archive": lambda bob, _: bob.archive(older_than_days=0, keep=5),
    "restore": lambda bob, _: bob.restore(["m2"]),
    "forget": lambda bob, _: bob.forget(session="s1"),
    "clear": lambda bob, _: bob.clear(),
}


def test_a_write_of_any_kind_is_never_missed(settled):
    """Each is made at once after the backup before it; what is restored has it."""
    with elytron.open(settled / "store") as store:
        for number, (name, change) in enumerate(CHANGES.items()):
            bob = store.agent("bob")
            change(bob, settled / "store")
            bob.flush()
            report = store.backup(settled / "backup")
            assert report.ok, report.failed
            assert "bob" in copied(report), name
            assert "al" not in copied(report), name
            new = settled / f"new-{number}"
            elytron.restore_backup(settled / "backup", new)
            with elytron.open(new) as other:
                assert look(other.agent("bob")) == look(bob), name


def test_a_stamp_that_a_write_in_the_same_tick_would_leave_as_it_is_is_not_trusted(
    tmp_path, monkeypatch
):
    """Times in whole seconds are those of a file system whose clock ticks every two."""
    path = tmp_path / files.LEDGER
    path.write_bytes(b"x")
    clock_ns = now_ns = 1_772_474_650_123_456_789

    def sleep(seconds: float) -> None:
        nonlocal clock_ns
        clock_ns += int(seconds * 1e9) + 1

    clock = SimpleNamespace(time_ns=lambda: clock_ns, sleep=sleep)
    monkeypatch.setattr(stamps, "time", clock)
    second_ns = now_ns // 1_000_000_000 * 1_000_000_000
    for mtime_ns, trusted in (
        (now_ns, True),  # waits for the tick to end
        (second_ns, False),
        (second_ns + 60_000_000_000, False),  # by a clock that was put back since
        (second_ns - 10_000_000_000, True),
    ):
        os.utime(path, ns=(mtime_ns, mtime_ns))
        assert stamps.take_settled(tmp_path, tmp_path / "archive")[1] is trusted, mtime_ns


def test_only_segments_that_are_new_are_copied_and_those_that_are_gone_leave(settled, monkeypatch):
    monkeypatch.setattr(merging, "AT_ONCE", 2)

    def copies() -> dict[str, int]:
        segments = home(settled / "backup") / "segments"
        return {path.name: path.stat().st_ino for path in segments.iterdir()}

    before = copies()
    with elytron.open(settled / "store") as store:
        bob = store.agent("bob")
        bob.save("user", "new")
        (report,) = store.backup(settled / "backup", agents=["bob"]).agents
        assert copies() == before
        assert report.copied_bytes == copy_of(settled / "backup").stat().st_size
        for change in (
            lambda: bob.archive(older_than_days=0, keep=8),
            lambda: bob.delete("m1"),  # which is in it
        ):
            change()
            store.backup(settled / "backup")
            listed = bob._agents.upkeep.archive_of("bob").manifest().names
            assert copies().keys() == listed
            assert not listed & before.keys()
            before = copies()


def test_what_was_forgotten_is_not_in_the_next_backup(tmp_path):
    with elytron.open(tmp_path / "store") as store:
        bob = store.agent("bob")
        fill(bob, 0, 20, word="wolverine")
        bob.save("user", "I stay.", session="other")
        bob.archive(older_than_days=0, keep=10)
        store.backup(tmp_path / "backup")
        assert any(b"wolverine" in data for data in contents(tmp_path / "backup").values())
        bob.forget(user="alice")
        for session in ("s0", "s1", "s2"):
            bob.forget(session=session)
        assert store.backup(tmp_path / "backup").ok
    assert not any(b"wolverine" in data for data in contents(tmp_path / "backup").values())
    assert not list((home(tmp_path / "backup") / "segments").iterdir())
    assert restored(tmp_path / "backup", tmp_path / "new")["bob"]["everything"]


# -- where it may go


def foreign(place: Path) -> Path:
    (place / "foreign").mkdir()
    (place / "foreign" / "notes.txt").write_text("mine")
    return place / "foreign"


def a_file(place: Path) -> Path:
    (place / "file").write_text("mine")
    return place / "file"


def newer(place: Path) -> Path:
    (place / "backup" / files.BACKUP).write_text(json.dumps({"format": 2}))
    return place / "backup"


REFUSED: tuple[tuple[Callable[[Path], Any], type[elytron.ElytronError], str], ...] = (
    (lambda place: place / "store" / "backup", InvalidArgument, "store's own folder"),
    (lambda place: place / "store", InvalidArgument, "store's own folder"),
    (foreign, InvalidArgument, "no backup and not empty"),
    (lambda place: place, InvalidArgument, "no backup and not empty"),
    (a_file, Unavailable, "cannot be used"),
    (newer, Unavailable, "format 2; this version reads 1"),
    (lambda _: 7, InvalidArgument, "must be a path"),
)


@pytest.mark.parametrize(("where", "error", "says"), REFUSED)
def test_a_place_that_can_be_no_backup_is_refused_and_left_as_it_is(place, where, error, says):
    to = where(place)
    before = contents(place)
    with elytron.open(place / "store") as store, pytest.raises(error, match=says):
        store.backup(to)
    assert contents(place) == before


def test_another_store_is_no_place_for_a_backup(place):
    make(place / "other", names=["eve"])
    with (
        elytron.open(place / "store") as store,
        pytest.raises(InvalidArgument, match="is a store"),
    ):
        store.backup(place / "other")


def test_nothing_to_back_up_is_said_and_makes_no_folder(tmp_path, place):
    with elytron.open(tmp_path / "none") as store, pytest.raises(NotFound, match="no agents"):
        store.backup(tmp_path / "to")
    with elytron.open(place / "store") as store:
        with pytest.raises(NotFound, match="no agent called 'Bob'"):
            store.backup(tmp_path / "to", agents=["Bob"])
        with pytest.raises(InvalidArgument, match="several names"):
            store.backup(tmp_path / "to", agents="bob")
        with pytest.raises(InvalidArgument, match="empty"):
            store.backup(tmp_path / "to", agents=[""])
    assert not (tmp_path / "to").exists()
    assert not (tmp_path / "none").exists()


def test_a_backup_is_not_opened_as_a_store(place):
    with pytest.raises(Unavailable, match="restore --from"):
        elytron.open(place / "backup")


def test_of_two_backups_into_one_folder_the_second_hears_that_it_is_busy(place):
    with elytron.open(place / "store") as store:
        met = []

        def again(done: int, _all: int) -> None:
            if not done:
                with pytest.raises(Busy, match="another backup"):
                    store.backup(place / "backup")
                with pytest.raises(Busy, match="another backup"):
                    elytron.restore_backup(place / "backup", place / "new")
                met.append(done)

        assert store.backup(place / "backup", on_progress=again).ok
        assert met


def test_progress_is_told_from_none_to_all(place):
    told: list[tuple[int, int]] = []
    with elytron.open(place / "store") as store:
        store.backup(place / "to", on_progress=lambda *step: told.append(step))
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_a_closed_store_backs_nothing_up(place):
    store = elytron.open(place / "store")
    store.close()
    with pytest.raises(elytron.Closed):
        store.backup(place / "to")


def test_a_backup_can_be_awaited(place):
    async def back_up() -> elytron.BackedUp:
        async with elytron.aio.open(place / "store") as store:
            return await store.backup(place / "to")

    assert copied(asyncio.run(back_up())) == {"al", "bob"}
    assert restored(place / "to", place / "new").keys() == {"al", "bob"}


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("elytron")]
