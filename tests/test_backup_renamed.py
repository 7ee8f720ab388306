"""
Backups of agents that were renamed: whatever was called what, and when, no last copy is removed.
"""

import errno
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import elytron
from backups import fill, restored
from elytron import DiskFull
from elytron.ledger import deleted, renamed
from elytron.upkeep import kept
from ledgers import ledger_path, query
from test_cli import run

QUIET = {"reserve_mb": 0, "auto_cleanup": False}
OF_A, OF_B = {f"m{number}" for number in range(6)}, {f"m{number}" for number in range(10, 13)}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store with two agents, and a backup of it."""
    with elytron.open(tmp_path / "store", **QUIET) as store:
        fill(store.agent("a"), 0, 6)
        fill(store.agent("b"), 10, 13)
        assert store.backup(tmp_path / "backup").ok
    return tmp_path


def rename(place: Path, *pairs: str) -> None:
    """Each pair is an old name and a new one, as in `a>b`."""
    with elytron.open(place / "store", **QUIET) as store:
        for pair in pairs:
            store.rename(*pair.split(">"))


def damage(place: Path, name: str) -> None:
    ledger_path(place / "store", name).write_bytes(b"no ledger" * 4096)


def lose_one(place: Path) -> None:
    """A message of a's is damaged, and a repair takes it out."""
    query(place / "store", "UPDATE messages SET content = 'rotten' WHERE id = 'm3'", agent="a")
    with elytron.open(place / "store", **QUIET) as store:
        assert not store.agent("a").check(repair=True).ok
        assert store.agent("a").usage().messages == 5


def back_up(place: Path) -> elytron.BackedUp:
    with elytron.open(place / "store", **QUIET) as store:
        return store.backup(place / "backup")


def saved(place: Path) -> list[set[str]]:
    """The messages of each copy that there is, in the backup and beside it, as they come back."""
    found = []
    for number, backup in enumerate(
        [place / "backup", *(place / "backup" / kept.FOLDER).glob("*")]
    ):
        back = restored(backup, place / "new" / str(number))
        found += [set(one["everything"]) for one in back.values()]
    shutil.rmtree(place / "new")
    return found


def test_of_an_agent_that_took_a_name_and_cannot_be_read_the_copy_under_its_old_name_stays(place):
    rename(place, "b>c", "a>b")
    damage(place, "b")
    for _ in range(2):
        report = back_up(place)
        assert {one.agent for one in report.failed} == {"a", "b"}
        assert [one.agent for one in report.agents] == ["c"]
        assert OF_A in saved(place)
        assert OF_B in saved(place)


def test_of_two_that_swapped_their_names_nothing_is_left_beside_once_both_are_in_it(place):
    rename(place, "a>x", "b>a", "x>b")
    report = back_up(place)
    assert (report.ok, report.kept) == (True, ())
    assert sorted(map(len, saved(place))) == sorted(map(len, (OF_A, OF_B)))


def test_swapping_names_time_and_again_after_a_repair_keeps_no_more_copies(place):
    lose_one(place)
    before = back_up(place).kept
    assert len(before) == 1
    for _ in range(kept.KEPT_MAX + 1):
        rename(place, "a>x", "b>a", "x>b")
        report = back_up(place)
        assert (report.failed, report.kept) == ((), before)
    assert OF_A in saved(place)


def test_of_two_that_were_swapped_and_repaired_at_once_what_was_kept_stays(place):
    lose_one(place)
    rename(place, "a>x", "b>a", "x>b")
    for _ in range(2):
        report = back_up(place)
        assert report.ok, report.failed
        assert len(report.kept) == 1
        assert OF_A in saved(place)


@pytest.mark.parametrize("unread", ["a", "b"])
def test_of_two_that_swapped_their_names_each_is_in_the_backup_or_beside_it(place, unread):
    rename(place, "a>x", "b>a", "x>b")
    damage(place, unread)
    for _ in range(2):
        report = back_up(place)
        assert unread in {one.agent for one in report.failed}
        assert OF_A in saved(place)
        assert OF_B in saved(place)


def test_the_copy_of_one_that_cannot_be_read_stays_though_its_old_name_was_used_and_deleted(place):
    rename(place, "a>c")
    damage(place, "c")
    with elytron.open(place / "store", **QUIET) as store:
        store.agent("a").save("user", "another memory")
        store.delete("a")
        report = store.backup(place / "backup")
    assert {one.agent for one in report.failed} == {"a", "c"}
    assert report.removed == ()
    assert OF_A in saved(place)


def test_what_was_deleted_is_not_taken_for_the_next_of_its_name_which_was_renamed(place):
    with elytron.open(place / "store", **QUIET) as store:
        store.delete("a")
        store.agent("a").save("user", "another memory")
        store.rename("a", "c")
    damage(place, "c")
    report = back_up(place)
    assert [one.agent for one in report.failed] == ["c"]
    assert report.removed == ("a",)


def test_what_was_kept_stays_though_the_old_name_was_used_and_deleted(place):
    lose_one(place)
    (before,) = back_up(place).kept
    rename(place, "a>c")
    with elytron.open(place / "store", **QUIET) as store:
        store.agent("a").save("user", "another memory")
        store.delete("a")
        report = store.backup(place / "backup")
        assert (report.ok, report.removed, report.kept) == (True, ("a",), (before,))
        assert OF_A in saved(place)
        store.delete("c")
        assert store.backup(place / "backup").kept == ()


def test_the_copy_from_before_a_repair_is_kept_though_the_old_name_is_in_use_again(place):
    lose_one(place)
    rename(place, "a>c")
    with elytron.open(place / "store", **QUIET) as store:
        store.agent("a").save("user", "another memory", id="other")
        report = store.backup(place / "backup")
        assert report.ok, report.failed
        assert len(report.kept) == 1
        assert store.backup(place / "backup").kept == report.kept
    assert OF_A in saved(place)
    assert {"other"} in saved(place)


def test_a_renaming_that_another_ends_counts_from_when_it_was_made(place):
    renamed.move(place / "store", "a", "c")  # and dies
    with elytron.open(place / "store", **QUIET) as store:
        store.agent("a").save("user", "another memory", id="other")
        assert store.backup(place / "backup 2", agents=["a"]).ok
        assert store.agent("c").usage().messages == len(OF_A)
    shutil.rmtree(ledger_path(place / "store", "a").parent)
    with elytron.open(place / "store", **QUIET) as store:
        report = store.backup(place / "backup 2")
    assert [one.agent for one in report.failed] == ["a"]
    assert report.removed == ()


def test_a_clock_that_is_put_back_between_two_renames_loses_no_copy(place, monkeypatch):
    """What was called b was a before, though the times would have it the other way round."""
    ahead = SimpleNamespace(time_ns=lambda: time.time_ns() + 3600 * 10**9)
    with elytron.open(place / "store", **QUIET) as store:
        store.rename("b", "d")
        with monkeypatch.context() as patch:
            patch.setattr(deleted, "time", ahead)
            store.rename("a", "b")
        store.rename("b", "c")
        store.agent("b").save("user", "another memory")
    damage(place, "c")
    report = back_up(place)
    assert {one.agent for one in report.failed} == {"a", "c"}
    assert OF_A in saved(place)


@pytest.mark.parametrize("again", [False, True], ids=["renamed", "in use again"])
def test_a_disk_that_is_full_when_a_copy_is_put_beside_is_told_as_such(place, monkeypatch, again):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lose_one(place)
    rename(place, "a>c")
    with elytron.open(place / "store", **QUIET) as store:
        if again:
            store.agent("a").save("user", "another memory")
        with monkeypatch.context() as patch:
            patch.setattr(kept, "write_file", full)
            with pytest.raises(DiskFull):
                store.backup(place / "backup")
        report = store.backup(place / "backup")
        assert report.ok, report.failed
        assert len(report.kept) == 1
    assert OF_A in saved(place)


def test_the_command_says_removed_of_a_name_that_is_no_more(place):
    rename(place, "a>c")
    done = run("backup", place / "backup", store=place / "store")
    assert done.code == 0, done.err
    assert "removed" in done.out
    assert "deleted" not in done.out
