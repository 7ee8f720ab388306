"""Restoring a backup that cannot be used, to a wrong place, or stopped anywhere."""

import contextlib
import errno
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import elytron
from archives import Calls, Killed
from backups import ALL, copy_of, fill, home, ids, looks, make, restore
from elytron import Busy, Corrupt, DiskFull, InvalidArgument, NotFound, Unavailable
from elytron.ledger import files, schema
from elytron.ledger.lock import FileLock
from elytron.upkeep import backup_files, bringing_back
from ledgers import contents, flip, lock_held

# -- a backup that cannot be used


def test_a_damaged_backup_is_refused_before_anything_is_touched(place):
    """Each file of it, with one bit of it changed, cut, or gone."""
    before = contents(place / "store")
    folder = home(place / "backup")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for wrong in (None, data[:-1], data[: len(data) // 2] + b"~" + data[len(data) // 2 + 1 :]):
            path.unlink()
            if wrong is not None:
                path.write_bytes(wrong)
            elif path.name == backup_files.AGENT:
                path.write_bytes(data)
                continue
            for target in (place / "store", place / "new"):
                report = elytron.restore_backup(place / "backup", target, replace=True)
                (failed,) = report.failed
                assert isinstance(failed.cause, Corrupt), path.name
            assert not (place / "new").exists()
            path.write_bytes(data)
    assert contents(place / "store") == before
    assert restore(place, replace=True).how == "replaced"


def test_one_agent_whose_backup_is_damaged_does_not_keep_the_others_from_theirs(place):
    make(place / "two", names=["al", "bob"])
    with elytron.open(place / "two") as store:
        store.backup(place / "of-two")
    flip(copy_of(place / "of-two", "al"), 9000)
    report = elytron.restore_backup(place / "of-two", place / "new")
    assert [one.agent for one in report.agents] == ["bob"]
    assert [one.agent for one in report.failed] == ["al"]
    assert looks(place / "new").keys() == {"bob"}


def of_newer_schema(backup: Path) -> None:
    path = home(backup) / backup_files.AGENT
    said = json.loads(path.read_text())
    said["copy"]["schema"] = schema.VERSION + 1
    said["checksum"] = backup_files._checksum(said["copy"])
    path.write_text(json.dumps(said))


def test_a_backup_of_a_newer_version_is_refused_with_the_numbers(place):
    of_newer_schema(place / "backup")
    (failed,) = elytron.restore_backup(place / "backup", place / "new").failed
    assert isinstance(failed.cause, Unavailable)
    assert f"schema {schema.VERSION + 1}; this version reads up to" in str(failed.cause)
    (place / "backup" / files.BACKUP).write_text('{"format": 9}')
    with pytest.raises(Unavailable, match="format 9; this version reads 1"):
        elytron.restore_backup(place / "backup", place / "new")
    assert not (place / "new").exists()


@pytest.mark.parametrize(
    ("backup", "to", "error", "says"),
    [
        ("none", "new", NotFound, "is no backup"),
        ("store", "new", NotFound, "is no backup"),
        ("backup", "backup", Unavailable, "is a backup, not a store"),
        ("backup", "backup/agents/x", InvalidArgument, "own folder"),
        ("backup", "backup/elytron-backup.json", Unavailable, "is a file"),
    ],
)
def test_a_place_that_is_wrong_is_refused(place, backup, to, error, says):
    before = contents(place)
    with pytest.raises(error, match=says):
        elytron.restore_backup(place / backup, place / to)
    assert contents(place) == before


WRONG = (None, "x", "../../x", -1, 1.5, True, 10**30, [], {})
PARTS = ("ledger", "archive")


def test_what_is_said_of_a_copy_is_believed_only_if_we_may_have_written_it(place):
    """Whoever changed it has made its checksum right again, which anybody can."""
    path = home(place / "backup") / backup_files.AGENT
    good = json.loads(path.read_text())
    places = [(name, None) for name in good["copy"] if name not in ("stamp", "settled")]
    places += [(name, inner) for name in PARTS for inner in good["copy"][name]]
    for (name, inner), wrong in itertools.product(places, WRONG):
        said = json.loads(json.dumps(good))
        within, key = (said["copy"], name) if inner is None else (said["copy"][name], inner)
        within[key] = wrong
        said["checksum"] = backup_files._checksum(said["copy"])
        path.write_text(json.dumps(said))
        found = elytron.restore_backup(place / "backup", place / "new", dry_run=True)
        assert all(isinstance(one.cause, Corrupt) for one in found.failed), (name, inner, wrong)
    path.write_text(json.dumps(good))
    assert restore(place, replace=True).how == "replaced"


@pytest.mark.parametrize("text", ["[" * 60_000, "[]", '{"format": []}', "{", "", "7" * 5000])
def test_a_file_of_a_backup_that_is_no_such_json_is_damage(place, text):
    for path in (home(place / "backup") / backup_files.AGENT, place / "backup" / files.BACKUP):
        before = path.read_text()
        path.write_text(text)
        with pytest.raises(Corrupt):
            restore(place, replace=True)
        path.write_text(before)
    assert restore(place, replace=True).how == "replaced"


def test_a_backup_of_which_very_many_agents_failed_can_be_read_still(place):
    names = [f"agent number {number} of the shop" for number in range(3000)]
    backup_files.BackupFiles(place / "backup").finish("now", failed=names)
    assert restore(place, replace=True).how == "replaced"
    with elytron.open(place / "store") as store:
        assert store.backup(place / "backup").ok


@pytest.mark.parametrize("deep", [False, True])
def test_a_backup_that_leads_into_the_store_by_a_link_is_refused(place, deep):
    """What is in its folders and not a backup's would be removed."""
    linked = home(place / "backup") if deep else place / "backup" / "agents"
    shutil.rmtree(linked)
    linked.symlink_to(home(place / "store") if deep else place / "store" / "agents")
    before = contents(place / "store")
    with elytron.open(place / "store") as store:
        if deep:
            (failed,) = store.backup(place / "backup").failed
            assert isinstance(failed.cause, InvalidArgument)
        else:
            with pytest.raises(InvalidArgument, match="own folder"):
                store.backup(place / "backup")
    after = contents(place / "store")
    assert [name for name in before if name not in after] == []


def test_wrong_arguments_are_refused(place):
    with pytest.raises(InvalidArgument, match="must be a path"):
        elytron.restore_backup(7, place / "new")
    with pytest.raises(InvalidArgument, match="several names"):
        elytron.restore_backup(place / "backup", place / "new", agents="bob")
    with pytest.raises(elytron.InvalidSetting):
        elytron.restore_backup(place / "backup", place / "new", queue_max=-1)


def test_a_backup_that_cannot_be_written_to_is_read_without_its_lock(place, monkeypatch):
    def refused(_path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(backup_files, "FileLock", refused)
        assert elytron.restore_backup(place / "backup", place / "new").ok
        with elytron.open(place / "store") as store, pytest.raises(Unavailable):
            store.backup(place / "backup")
    assert looks(place / "new").keys() == {"bob"}


def test_a_ledger_that_another_process_is_writing_to_is_waited_for(place):
    with lock_held(place / "store"):
        (failed,) = elytron.restore_backup(
            place / "backup", place / "store", replace=True, save_timeout_s=0.05
        ).failed
    assert isinstance(failed.cause, Busy)
    assert ids(place) == {*ALL, "after"}


@pytest.mark.parametrize("damaged", [False, True])
def test_of_two_restores_of_one_agent_the_second_is_refused(place, damaged):
    """Each from a backup of its own, whose lock keeps nobody from the other."""
    if damaged:
        shutil.rmtree(home(place / "store") / "archive")
    with contextlib.closing(FileLock(home(place / "store") / "restore.lock")) as lock:
        assert lock.try_acquire()
        with pytest.raises(Busy, match="another restore"):
            restore(place, replace=not damaged)
    assert restore(place, replace=not damaged).how == ("salvaged" if damaged else "replaced")


# -- stopped anywhere


def stopped(place: Path, nth: int, *, dies: bool, **options: Any) -> tuple[Calls, bool]:
    """A restore, stopped at one call of `os`; whether it came to its end."""
    calls = Calls(nth, dies=dies)
    try:
        with calls.armed():
            restore(place, **options)
    except (Killed, DiskFull):
        return calls, False
    return calls, True


@pytest.mark.parametrize("dies", [False, True], ids=["full", "dead"])
@pytest.mark.parametrize("held", [False, True], ids=["new", "replaced"])
def test_whichever_call_fails_it_is_the_old_or_the_new_or_known_to_be_damaged(place, held, dies):
    """And doing it again brings it to its end."""
    if not held:
        shutil.rmtree(home(place / "store"))
    for nth in itertools.count(1, 1 if dies and held else 3):
        shutil.copytree(place, place / "one", ignore=shutil.ignore_patterns("one"))
        calls, done = stopped(place / "one", nth, dies=dies, replace=True)
        assert done or calls.fired
        assert_old_new_or_damaged(place / "one" / "store", held=held, done=done)
        if not done:
            assert restore(place / "one", replace=True).how in ("new", "replaced", "same")
        assert ids(place / "one") == ALL
        beside = home(place / "one" / "store") / "restoring"
        assert not beside.exists() or not list(beside.iterdir())
        shutil.rmtree(place / "one")
        if not calls.fired:
            assert nth > 15, "the calls of a restore were never reached"
            return


def assert_old_new_or_damaged(store: Path, *, held: bool, done: bool) -> None:
    with elytron.open(store) as opened:
        bob = opened.agent("bob")
        try:
            found = {message.id for message in bob.messages(archived=True)}
        except Corrupt:
            assert not done
            return
        if done:
            assert found == ALL
        else:
            assert found in (({*ALL, "after"}, ALL) if held else (set(), ALL))


def test_a_save_while_a_new_agent_is_restored_begins_no_second_memory(place, monkeypatch):
    """It waits for the restore, which has the lock, and goes into what was restored."""
    shutil.rmtree(home(place / "store"))
    plain, met = backup_files.copy_file, []

    def copy_file(*arguments: Any) -> None:
        if not met:
            met.append(True)
            with (
                elytron.open(place / "store", save_timeout_s=0.05) as store,
                pytest.raises(Busy),
            ):
                store.agent("bob").save("user", "early")
        plain(*arguments)

    monkeypatch.setattr(bringing_back, "copy_file", copy_file)
    assert restore(place).how == "new"
    assert met
    with elytron.open(place / "store") as store:
        store.agent("bob").save("user", "late", id="late")
    assert ids(place) == {*ALL, "late"}


def test_a_second_restore_sets_aside_what_the_first_brought(place):
    folders = set()
    for number in range(3):
        with elytron.open(place / "store") as store:
            fill(store.agent("bob"), 100 + number, 101 + number)
        folders.add(restore(place, replace=True).aside)
    assert len(folders) == 3
    assert ids(place) == ALL
