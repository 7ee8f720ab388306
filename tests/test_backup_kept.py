"""A good backup is never replaced by a worse one, whatever is damaged and wherever it stops."""

import itertools
import os
import resource
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import elytron
from archives import Calls, Killed
from backups import (
    copied,
    copy_of,
    emptied,
    fill,
    home,
    ledger_gone,
    look,
    make,
    no_database,
    restored,
    text_flipped,
)
from elytron import Busy, Corrupt, DiskFull, Unavailable
from elytron.ledger import files
from elytron.upkeep import copying
from ledgers import contents, flip, ledger_path, marker_path, names, query


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and a backup of it."""
    place = tmp_path_factory.mktemp("backup")
    make(place / "store")
    with elytron.open(place / "store") as store:
        assert store.backup(place / "backup").ok
    return place


def gone(store: Path) -> None:
    shutil.rmtree(home(store))


def mark_changed(store: Path) -> None:
    query(store, "UPDATE marks SET pinned = 0")


def cut(store: Path) -> None:
    path = ledger_path(store)
    os.truncate(path, path.stat().st_size // 2)


def segment_flipped(store: Path) -> None:
    (path,) = (home(store) / "archive").glob("segment-*")
    flip(path, 100)


def segment_gone(store: Path) -> None:
    (path,) = (home(store) / "archive").glob("segment-*")
    path.unlink()


def marker_damaged(store: Path) -> None:
    marker_path(store).write_bytes(b"{")
    ledger_path(store).write_bytes(b"")


def begun_anew(store: Path) -> None:
    """As by a program that sets aside what it cannot open, and begins with nothing."""
    shutil.rmtree(home(store))
    with elytron.open(store) as opened:
        fill(opened.agent("bob"), 0, 100, word="camel")


DAMAGES = (
    gone, ledger_gone, emptied, no_database, text_flipped, mark_changed, cut, segment_flipped,
    segment_gone, marker_damaged, begun_anew,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_of_what_is_damaged_missing_or_emptied_the_last_backup_stays(place, damage):
    """The others are backed up all the same, and what is wrong is said each time."""
    before = contents(home(place / "backup"))
    with elytron.open(place / "store") as store:
        fill(store.agent("al"), 30, 40)
    if "segment" in damage.__name__:  # else it is in the backup already, and not read again
        shutil.rmtree(place / "backup" / "agents")
        before = {}
    damage(place / "store")
    for _ in range(2):
        with elytron.open(place / "store") as store:
            report = store.backup(place / "backup")
        assert not report.ok
        ((failed, cause),) = [(one.agent, one.cause) for one in report.failed]
        assert failed == "bob"
        assert isinstance(cause, Corrupt)
        assert [(one.agent, one.messages) for one in report.agents] == [("al", 30)]
        after = contents(home(place / "backup"))
        assert {name: data for name, data in after.items() if "segments" not in name} == {
            name: data for name, data in before.items() if "segments" not in name
        }
    if before:
        assert len(restored(place / "backup", place / "new")["bob"]["everything"]) == 30


def test_a_memory_that_was_cleared_is_backed_up_as_empty(place):
    with elytron.open(place / "store") as store:
        store.agent("bob").clear()
        assert store.backup(place / "backup").ok
    assert restored(place / "backup", place / "new")["bob"]["everything"] == []


def test_an_older_state_does_not_replace_a_newer_one(place):
    shutil.copytree(place / "store", place / "older")
    with elytron.open(place / "store") as store:
        fill(store.agent("bob"), 30, 40)
        store.backup(place / "backup")
    with elytron.open(place / "older") as store:
        (failed,) = store.backup(place / "backup", agents=["bob"]).failed
    assert "older" in str(failed.cause)
    assert len(restored(place / "backup", place / "new")["bob"]["everything"]) == 40


def test_a_damaged_backup_is_made_anew(place):
    """A file of it that is gone, cut or wrong is not what the next backup relies on."""
    with elytron.open(place / "store") as store:
        for damage in (
            lambda: copy_of(place / "backup").unlink(),
            lambda: os.truncate(copy_of(place / "backup"), 4096),
            lambda: shutil.rmtree(home(place / "backup")),
            lambda: (home(place / "backup") / "agent.json").write_bytes(b"{}"),
            lambda: (home(place / "backup") / "agent.json").write_bytes(b"[" * 100),
            lambda: shutil.rmtree(home(place / "backup") / "segments"),
            lambda: next(home(place / "backup").glob("archive-*")).write_bytes(b""),
        ):
            damage()
            report = store.backup(place / "backup")
            assert report.ok, report.failed
            assert "bob" in copied(report)
            shutil.rmtree(place / "new", ignore_errors=True)
            assert len(restored(place / "backup", place / "new")["bob"]["everything"]) == 30


def test_a_copy_whose_first_page_is_damaged_is_made_anew(place):
    """Its size is right, so that it counts until something else is to take its place."""
    with copy_of(place / "backup").open("r+b") as file:
        file.write(b"\xff" * 4096)
    with elytron.open(place / "store") as store:
        store.agent("bob").save("user", "more", id="more")
        report = store.backup(place / "backup")
        assert report.ok, report.failed
        assert ("bob" in copied(report), report.kept) == (True, ())
    assert len(restored(place / "backup", place / "new")["bob"]["everything"]) == 31


def killed_or_full(place: Path, nth: int, *, dies: bool) -> tuple[Calls, bool]:
    """One backup, stopped at one call of `os`; whether it came to its end."""
    calls = Calls(nth, dies=dies)
    with elytron.open(place / "store") as store:
        store.agent("bob").history()
        try:
            with calls.armed():
                return calls, store.backup(place / "backup").ok
        except (Killed, DiskFull):
            return calls, False


@pytest.mark.parametrize("dies", [False, True], ids=["full", "dead"])
def test_whichever_call_fails_the_backup_before_or_the_new_one_is_there(place, dies):
    """The disk is full for one call of `os`; or the process is dead from one call of it on."""
    with elytron.open(place / "store") as store:
        bob = store.agent("bob")
        old = look(bob)
        bob.archive(older_than_days=0, keep=12)
        fill(bob, 30, 33)
        bob.flush()
        new = look(bob)
    for nth in itertools.count(1, 2 if dies else 5):
        shutil.copytree(place, place / "one", ignore=shutil.ignore_patterns("one"))
        calls, done = killed_or_full(place / "one", nth, dies=dies)
        found = restored(place / "one" / "backup", place / "one" / "new")
        assert found.keys() == {"al", "bob"}
        assert found["bob"] in ((new,) if done else (old, new)), nth
        assert done or calls.fired
        with elytron.open(place / "one" / "store") as store:
            assert store.backup(place / "one" / "backup").ok
        left = names(home(place / "one" / "backup"))
        assert not [name for name in left if name.endswith(".part")], left
        assert len([name for name in left if name.startswith("ledger-")]) == 1
        shutil.rmtree(place / "one")
        if not calls.fired:
            assert nth > 15, "the calls of a backup were never reached"
            return


def test_a_first_backup_that_was_stopped_anywhere_is_gone_on_with(place):
    """Also where it was stopped before there was anything that says what the folder is."""
    shutil.rmtree(place / "backup")
    for nth in itertools.count(1, 5):
        calls, _ = killed_or_full(place, nth, dies=True)
        with elytron.open(place / "store") as store:
            assert store.backup(place / "backup").ok
        assert restored(place / "backup", place / "new").keys() == {"al", "bob"}
        shutil.rmtree(place / "backup")
        shutil.rmtree(place / "new")
        if not calls.fired:
            return


def test_a_copy_that_takes_too_long_is_given_up_and_the_last_stays(place, monkeypatch):
    """Method: each look at the clock takes an hour."""
    before = contents(place / "backup")
    hours = itertools.count(0, 3600)
    monkeypatch.setattr(copying, "time", SimpleNamespace(monotonic=lambda: next(hours)))
    with elytron.open(place / "store") as store:
        report = store.backup(place / "backup", agents=["bob"])
        assert store.agent("bob").check().ok
    (failed,) = report.failed
    assert isinstance(failed.cause, Busy)
    after = contents(place / "backup")
    assert {k: v for k, v in after.items() if k != files.BACKUP} == {
        k: v for k, v in before.items() if k != files.BACKUP
    }


def test_a_limit_to_the_size_of_files_is_told_as_one_of_the_backup_s_disk(place):
    """Method: no file may grow over 40 KB, as on a file system that allows no larger ones."""
    with elytron.open(place / "store", reserve_mb=0) as store:
        store.agent("al").history()
        size, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
        try:
            with pytest.raises(DiskFull, match="the last backup stays") as failed:
                store.backup(place / "other")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        assert str(place / "other") in str(failed.value)
        assert not [name for name in names(home(place / "other", "al")) if "ledger" in name]
        assert store.backup(place / "other").ok


def test_a_folder_of_a_backup_that_cannot_be_written_to_is_named_and_not_the_ledger(
    place, monkeypatch
):
    """Method: the name that a copy of al's would get is in a folder that is not there."""
    given = copying.new_name
    monkeypatch.setattr(copying, "new_name", lambda kind, end: f"none/{given(kind, end)}")
    with elytron.open(place / "store") as store:
        (failed,) = store.backup(place / "other", agents=["al"]).failed
    assert isinstance(failed.cause, Unavailable)
    assert str(failed.cause).startswith(str(place / "other"))
    assert "cannot be written to" in str(failed.cause)


def test_a_disk_that_fills_up_under_sqlite_leaves_the_last_backup(place):
    """A file system of two megabytes, which the second backup would fill."""
    to = place / "disk"
    to.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "elytron-test", str(to)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no file system can be mounted here")
    try:
        with elytron.open(place / "store") as store:
            store.backup(to)
            for start in range(100, 4100, 1000):
                fill(store.agent("bob"), start, start + 1000)
            with pytest.raises(DiskFull):
                store.backup(to)
            assert len(list(home(to).glob("ledger-*"))) == 1
            assert store.agent("bob").check().ok
        assert len(restored(to, place / "new")["bob"]["everything"]) == 30
    finally:
        subprocess.run(["umount", "-l", str(to)], check=True)
