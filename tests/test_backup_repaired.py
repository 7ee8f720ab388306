"""
After a repair that lost something backups go on, and the copy that has what was lost stays.
"""

import errno
import itertools
import os
import shutil
from pathlib import Path

import pytest

import elytron
from archives import Calls, Killed
from backups import ALL, copy_of, emptied, home, make, restored, text_flipped
from elytron import Corrupt, DiskFull, OverBudget
from elytron.upkeep import kept
from ledgers import ledger_path, query
from test_cli import run

QUIET = {"reserve_mb": 0, "auto_cleanup": False}
PAGE_BYTES = 4096


def header_gone(store: Path) -> None:
    with ledger_path(store).open("r+b") as file:
        file.write(b"\xff" * 100)


def page_gone(store: Path) -> None:
    path = ledger_path(store)
    page = path.read_bytes().index(b"zebra 25 ") // PAGE_BYTES
    with path.open("r+b") as file:
        file.seek(page * PAGE_BYTES)
        file.write(b"\xff" * PAGE_BYTES)


def deleted_and_header_gone(store: Path) -> None:
    """All that is held is found again. The copy is kept all the same, for what is no message."""
    with elytron.open(store, **QUIET) as opened:
        opened.agent("bob").delete("m25")
    header_gone(store)


def memory_damaged(store: Path) -> None:
    query(store, "UPDATE memories SET importance = 0.1")


def repair(place: Path) -> elytron.Checked:
    with elytron.open(place / "store", **QUIET) as store:
        return store.agent("bob").check(repair=True)


def back_up(place: Path) -> elytron.BackedUp:
    with elytron.open(place / "store", **QUIET) as store:
        return store.backup(place / "backup")


def held(place: Path) -> set[str]:
    with elytron.open(place / "store", **QUIET) as store:
        bob = store.agent("bob")
        assert bob.check().ok
        return {message.id for message in bob.messages(archived=True)}


DAMAGES = (text_flipped, page_gone, emptied, deleted_and_header_gone, memory_damaged)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_after_a_repair_backups_go_on_and_what_it_lost_comes_back(place, tmp_path, damage):
    damage(place / "store")
    assert not back_up(place).ok
    repair(place)
    left = held(place)
    report = back_up(place)
    assert report.ok, report.failed
    (before,) = map(Path, report.kept)
    again = back_up(place)
    assert (again.agents[0].copied, again.kept) == (False, report.kept)
    with_loss = restored(place / "backup", tmp_path / "new")["bob"]
    assert set(with_loss["everything"]) == left
    whole = restored(before, tmp_path / "before")["bob"]
    assert set(whole["everything"]) == ALL
    assert len(whole["memories"]) == 1
    if damage in (memory_damaged, deleted_and_header_gone):  # of which no message is lost
        with pytest.raises(elytron.Conflict):
            raise elytron.restore_backup(before, place / "store").failed[0].cause
        return
    done = elytron.restore_backup(before, place / "store")
    assert [one.how for one in done.agents] == ["salvaged"]
    assert held(place) == ALL | left
    assert back_up(place).kept == report.kept


def test_a_repair_that_loses_nothing_keeps_no_copy(place):
    header_gone(place / "store")
    assert repair(place).ok
    report = back_up(place)
    assert (report.ok, report.kept) == (True, ())
    assert held(place) == {*ALL, "after"}


@pytest.mark.parametrize("page", ["first", "of a message"])
def test_a_damaged_copy_from_before_a_repair_is_kept_for_what_is_whole_in_it(place, page):
    copy = copy_of(place / "backup")
    at = 0 if page == "first" else copy.read_bytes().index(b"zebra 10 ")
    with copy.open("r+b") as file:
        file.seek(at // PAGE_BYTES * PAGE_BYTES)
        file.write(b"\xff" * PAGE_BYTES)
    text_flipped(place / "store")
    repair(place)
    for _ in range(2):
        report = back_up(place)
        assert report.ok, report.failed
        assert b"zebra 25 " in copy_of(Path(*report.kept)).read_bytes()


def test_an_older_ledger_that_a_repair_goes_on_from_does_not_take_the_copys_place(place):
    """The archive knows of more than it: so the repair says what is lost."""
    shutil.copy(ledger_path(place / "store"), place / "older.db")
    with elytron.open(place / "store", **QUIET) as store:
        bob = store.agent("bob")
        bob.save_many([{"role": "user", "content": "late", "id": f"late{n}"} for n in range(5)])
        bob.archive(older_than_days=0, keep=1)
        assert store.backup(place / "backup").ok
    shutil.copy(place / "older.db", ledger_path(place / "store"))
    assert not repair(place).ok
    report = back_up(place)
    assert report.ok, report.failed
    assert len(report.kept) == 1


def test_no_more_copies_are_kept_than_may_be_and_none_is_lost(place, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "KEPT_MAX", 1)
    lost = (b"zebra 25 ", b"zebra 26 ")
    for text in lost:
        path = ledger_path(place / "store")
        at = path.read_bytes().index(text)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"Z")
        repair(place)
        report = back_up(place)
    (failed,) = report.failed
    assert isinstance(failed.cause, OverBudget)
    assert "no more than 1" in str(failed.cause)
    assert "m26" in restored(place / "backup", tmp_path / "new")["bob"]["everything"]
    shutil.rmtree(report.kept[0])
    report = back_up(place)
    assert report.ok
    assert "m26" in restored(Path(report.kept[0]), tmp_path / "kept")["bob"]["everything"]


@pytest.mark.parametrize("dies", [False, True], ids=["full", "dead"])
def test_whichever_call_fails_some_copy_has_what_was_lost(place, dies):
    text_flipped(place / "store")
    repair(place)
    for nth in itertools.count(1, 3):
        shutil.copytree(place, place / "one", ignore=shutil.ignore_patterns("one"))
        calls = Calls(nth, dies=dies)
        try:
            with elytron.open(place / "one" / "store", **QUIET) as store, calls.armed():
                store.backup(place / "one" / "backup")
        except (Killed, DiskFull):
            assert calls.fired
        there = [place / "one" / "backup", *(place / "one" / "backup" / kept.FOLDER).glob("*/")]
        assert any(has_all(backup) for backup in there)
        report = back_up(place / "one")
        assert report.ok, report.failed
        assert has_all(Path(*report.kept))
        shutil.rmtree(place / "one")
        if not calls.fired:
            assert nth > 20, "the calls of a backup were never reached"
            return


def has_all(backup: Path) -> bool:
    """Whether a backup is one, can be read, and has the message that the repair took out."""
    to = backup.with_name("tried")
    try:
        report = elytron.restore_backup(backup, to)
        assert report.ok, report.failed
        with elytron.open(to, **QUIET) as store:
            return store.agent("bob").get("m25") is not None
    except elytron.NotFound:
        return False
    finally:
        shutil.rmtree(to, ignore_errors=True)


def test_where_a_file_has_but_one_name_it_is_copied(place, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    text_flipped(place / "store")
    repair(place)
    monkeypatch.setattr(os, "link", refused)
    report = back_up(place)
    assert report.ok, report.failed
    assert has_all(Path(*report.kept))


@pytest.mark.parametrize("anew", [False, True])
def test_what_was_kept_of_an_agent_goes_when_it_is_deleted(tmp_path, anew):
    make(tmp_path / "store")
    back_up(tmp_path)
    text_flipped(tmp_path / "store")
    repair(tmp_path)
    assert len(back_up(tmp_path).kept) == 1
    with elytron.open(tmp_path / "store", **QUIET) as store:
        store.delete("bob")
        if anew:
            store.agent("bob").save("user", "new")
        report = store.backup(tmp_path / "backup")
    assert (report.ok, report.kept) == (True, ())
    backup = tmp_path / "backup"
    assert not list((backup / kept.FOLDER).iterdir())
    assert not any(
        b"zebra 29 " in path.read_bytes()
        for path in backup.rglob("*")
        if path.is_file() and home(backup) in path.parents
    )


def test_of_an_agent_whose_archive_is_gone_the_copy_stays(place):
    """Another ledger would be refused; this one is the same, further on."""
    shutil.rmtree(home(place / "store") / "archive")
    with elytron.open(place / "store", **QUIET) as store:
        store.agent("bob").save("user", "more", id="more")
        (failed,) = store.backup(place / "backup").failed
    assert isinstance(failed.cause, Corrupt)
    assert "archive of 'bob' is gone" in str(failed.cause)
    assert elytron.restore_backup(place / "backup", place / "store").ok
    assert held(place) == {*ALL, "after", "more"}
    assert back_up(place).ok


def test_the_commands_name_what_is_kept(place):
    text_flipped(place / "store")
    repair(place)
    made = run("backup", place / "backup", "--json", store=place / "store")
    assert made.code == 0, made.err
    (before,) = made.document["kept"]
    for words in (["backup", place / "backup"], ["restore", "--from", place / "backup"]):
        done = run(*words, store=place / "store")
        assert done.code == 0, done.err
        assert "copies kept since" in done.out
        assert Path(before).name in done.out.replace("\n", "")


def test_what_was_kept_of_an_agent_stays_when_it_is_renamed_and_goes_when_that_one_is_deleted(
    place,
):
    text_flipped(place / "store")
    repair(place)
    with elytron.open(place / "store", **QUIET) as store:
        store.rename("bob", "Robert")
        report = store.backup(place / "backup")
        assert (report.ok, report.removed) == (True, ("bob",))
        assert has_all(Path(*report.kept))
        assert store.backup(place / "backup").kept == report.kept
        store.delete("Robert")
        assert store.backup(place / "backup").kept == ()
