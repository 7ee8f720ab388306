"""Restoring a backup: what is damaged is filled up, what was there is set aside, none lost."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

import elytron
from backups import (
    ALL,
    copy_of,
    emptied,
    home,
    ids,
    is_refused,
    ledger_gone,
    look,
    looks,
    make,
    no_database,
    restore,
    restored,
    text_flipped,
)
from elytron import Conflict, Corrupt, NotFound, Unavailable
from elytron.archive import merging
from elytron.ledger import files
from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.pages import Image
from ledgers import contents, flip, ledger_path, marker_path, query

WAIT_MAX_S = 60


# -- where there is nothing


def test_into_a_new_place_everything_comes_back_and_works(place):
    done = elytron.restore_backup(place / "backup", place / "new")
    assert [(one.agent, one.how, one.messages, one.archived) for one in done.agents] == [
        ("bob", "new", 20, 10)
    ]
    with elytron.open(place / "new") as store:
        bob = store.agent("bob")
        assert bob.recall("zebra 25")[0].message.id == "m25"
        assert [fact.target for fact in bob.relations("Alice")] == ["Lyon"]
        assert bob.get("m29").pinned
        assert bob.restore(["m1"]).restored == 1
        bob.save("user", "and it goes on")
        assert store.backup(place / "backup").ok  # and so do its backups
    assert len(restored(place / "backup", place / "again")["bob"]["held"]) == 22


def test_what_is_there_already_as_the_backup_has_it_is_no_error(place):
    elytron.restore_backup(place / "backup", place / "new")
    (done,) = elytron.restore_backup(place / "backup", place / "new").agents
    assert done.how == "same"


@pytest.mark.parametrize("left", ["restoring", "salvage.part"])
def test_what_one_that_was_stopped_left_goes_also_where_nothing_is_to_do(place, left):
    elytron.restore_backup(place / "backup", place / "new")
    shutil.copytree(place / "store", home(place / "new") / left)
    (done,) = elytron.restore_backup(place / "backup", place / "new").agents
    assert done.how == "same"
    assert not (home(place / "new") / left).exists()


def test_a_page_of_a_copy_that_is_not_read_is_not_taken_for_an_empty_one(place):
    path = copy_of(place / "backup")
    with contextlib.closing(Image(path, is_whole=True)) as image:
        os.truncate(path, 2 * PAGE_BYTES)
        assert len(image.page(2)) == PAGE_BYTES
        with pytest.raises(Unavailable, match=r"page 3 of .* cannot be read; nothing was"):
            image.page(3)


def test_only_who_is_named_comes_back(place):
    make(place / "other", names=["bob", "al", "Ägent 007 / \N{SNOWMAN}"])
    with elytron.open(place / "other") as store:
        store.backup(place / "three")
    name = "Ägent 007 / \N{SNOWMAN}"
    elytron.restore_backup(place / "three", place / "new", agents=[name])
    assert looks(place / "new").keys() == {name}
    with pytest.raises(NotFound, match="no backup of 'eve'"):
        elytron.restore_backup(place / "three", place / "new", agents=["al", "eve"])
    assert looks(place / "new").keys() == {name}


def test_a_dry_run_verifies_and_changes_nothing(place):
    before = contents(place)
    report = elytron.restore_backup(place / "backup", place / "new", dry_run=True)
    assert [(one.how, one.messages) for one in report.agents] == [("new", 20)]
    assert not (place / "new").exists()
    assert restore(place, replace=True, dry_run=True).how == "replaced"
    assert contents(place) == before
    flip(copy_of(place / "backup"), 5000)
    report = elytron.restore_backup(place / "backup", place / "new", dry_run=True)
    assert isinstance(report.failed[0].cause, Corrupt)


def test_a_store_with_a_budget_for_all_takes_a_restored_agent_in(place):
    settings = {"max_total_mb": 60, "max_db_size_mb": 20}
    report = elytron.restore_backup(place / "backup", place / "new", **settings)
    assert report.ok
    with elytron.open(place / "new", **settings) as store:
        store.agent("bob").save("user", "new")
        assert store.agent("bob").check().ok


# -- where there is a whole one


def test_a_whole_memory_is_refused_and_left_as_it_is(place):
    with elytron.open(place / "store") as store:
        before = look(store.agent("bob"))
    with pytest.raises(Conflict, match="--replace"):
        restore(place)
    assert looks(place / "store")["bob"] == before


def test_replaced_what_was_there_is_set_aside_whole(place):
    before = looks(place / "store")["bob"]
    done = restore(place, replace=True)
    assert (done.how, done.messages, done.archived) == ("replaced", 20, 10)
    assert ids(place) == ALL
    aside = Path(str(done.aside))
    assert aside.parent == home(place / "store")
    shutil.rmtree(place / "new", ignore_errors=True)
    elytron.restore_backup(place / "backup", place / "new")
    for name in (files.LEDGER, "archive"):  # what is set aside is a memory still
        target = home(place / "new") / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        (aside / name).rename(target)
    assert looks(place / "new")["bob"] == before


def test_what_is_set_aside_is_told_in_bytes_and_counts_in_the_whole_store(place):
    with elytron.open(place / "store") as store:
        assert store.agent("bob").usage().bytes.aside == 0
    aside = Path(str(restore(place, replace=True).aside))
    on_disk = sum(path.stat().st_size for path in aside.rglob("*") if path.is_file())
    with elytron.open(place / "store") as store:
        found = store.usage()
        assert found.agents[0].bytes.aside == on_disk > 0
        assert found.total_bytes >= found.agents[0].bytes.total + on_disk
        shutil.rmtree(aside)
        assert store.agent("bob").usage().bytes.aside == 0


def test_an_empty_backup_never_takes_the_place_of_messages(place):
    with elytron.open(place / "empty") as store:
        store.agent("bob").save("user", "gone at once")
        store.agent("bob").clear()
        store.backup(place / "of-empty")
    report = elytron.restore_backup(place / "of-empty", place / "store", replace=True)
    assert isinstance(report.failed[0].cause, Conflict)
    assert "is empty" in str(report.failed[0].cause)
    assert ids(place) == {*ALL, "after"}


def test_who_has_a_replaced_agent_open_goes_on_with_the_backup(place, start_script):
    """In another process; all that it was told was saved is in what was set aside."""
    process = start_script(
        """
        import sys
        import elytron

        with elytron.open(sys.argv[1]) as store:
            bob = store.agent("bob")
            print(bob.save("user", "saved elsewhere", id="elsewhere").id, flush=True)
            sys.stdin.readline()
            print(len(bob.history()), bob.check().ok, flush=True)
            print(bob.save("user", "in time", id="in-time").id, flush=True)
        """,
        place / "store",
    )
    assert process.stdout.readline() == "elsewhere\n"
    done = restore(place, replace=True)
    printed, complaints = process.communicate("\n", timeout=WAIT_MAX_S)
    assert printed.splitlines() == ["20 True", "in-time"], complaints
    assert ids(place) == {*ALL, "in-time"}
    assert {path.name for path in Path(str(done.aside)).iterdir()} >= {files.LEDGER, "archive"}
    aside = Path(str(done.aside)) / files.LEDGER
    shutil.rmtree(place / "new", ignore_errors=True)
    elytron.restore_backup(place / "backup", place / "new")
    for path in aside.parent.glob(f"{files.LEDGER}*"):
        shutil.copy(path, home(place / "new") / path.name)
    assert ("elsewhere",) in query(place / "new", "SELECT id FROM messages")


def test_a_store_of_this_process_goes_on_with_it_too(place):
    with elytron.open(place / "store") as store:
        bob = store.agent("bob")
        bob.save("user", "new")
        restore(place, replace=True)
        assert bob.get("after") is None
        bob.save("user", "in time", id="in-time")
    assert ids(place) == {*ALL, "in-time"}


# -- where there is a damaged one


@pytest.fixture(autouse=True)
def segments_are_joined_by_twos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "AT_ONCE", 2)


def header_gone(store: Path) -> None:
    with ledger_path(store).open("r+b") as file:
        file.write(bytes(100))


def segment_flipped(store: Path) -> None:
    (path,) = (home(store) / "archive").glob("segment-*")
    flip(path, 100)


def segment_gone(store: Path) -> None:
    (path,) = (home(store) / "archive").glob("segment-*")
    path.unlink()


def archive_gone(store: Path) -> None:
    shutil.rmtree(home(store) / "archive")


def marker_damaged(store: Path) -> None:
    marker_path(store).write_bytes(b"{")
    text_flipped(store)


DAMAGES = (
    ledger_gone, emptied, no_database, text_flipped, header_gone, segment_flipped, segment_gone,
    archive_gone, marker_damaged,
)  # fmt: skip
NOTHING_LEFT = (ledger_gone, emptied, no_database)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_memory_keeps_what_is_whole_and_gets_the_rest(place, damage):
    """What was saved after the backup is there still, unless nothing of the file is."""
    damage(place / "store")
    done = restore(place)
    assert done.how == "salvaged"
    later = set() if damage in NOTHING_LEFT else {"after"}
    assert ids(place) == ALL | later
    assert is_refused(place)
    with elytron.open(place / "store") as store:
        assert store.agent("bob").recall("zebra 25")[0].message.id == "m25"
        assert store.backup(place / "backup").ok


def test_what_a_repair_without_the_backup_lost_comes_back_from_it_afterwards(place):
    text_flipped(place / "store")
    with elytron.open(place / "store") as store:
        repaired = store.agent("bob").check(repair=True)
        if not repaired.ok:  # a damaged row alone asks for no new ledger
            assert restore(place).how == "salvaged"
    assert ids(place) == {*ALL, "after"}
    header_gone(place / "store")
    text_flipped(place / "store")
    with elytron.open(place / "store") as store:
        store.agent("bob").check(repair=True)
    assert ids(place) == {*ALL, "after"} - {"m25"}
    assert restore(place).how == "salvaged"
    assert ids(place) == {*ALL, "after"}
    assert is_refused(place)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_memory_is_replaced_if_that_is_asked_for(place, damage):
    damage(place / "store")
    assert restore(place, replace=True).how == "replaced"
    assert ids(place) == ALL


def test_a_memory_of_which_only_the_marker_is_left_comes_back(place):
    for path in home(place / "store").iterdir():
        if path.name != files.MARKER:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert restore(place).how == "new"
    assert ids(place) == ALL


def test_a_log_that_was_left_without_its_ledger_is_not_read_into_the_restored_one(place):
    """SQLite would take the log of another file for that of the new one."""
    folder = home(place / "store")
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / f"{files.LEDGER}-wal").write_bytes(os.urandom(50_000))
    done = restore(place)
    assert (done.how, Path(str(done.aside)).parent) == ("new", folder)
    assert ids(place) == ALL


# -- where something of the archive is lost


def archived_since(place: Path) -> None:
    """What the backup holds leaves for the archive, where it is merged with what was there."""
    with elytron.open(place / "store") as store:
        assert store.agent("bob").archive(older_than_days=0, keep=5).archived == 16


@pytest.mark.parametrize("emptied", [False, True])
def test_a_lost_archive_gets_back_what_went_into_it_after_the_backup(place, emptied):
    archived_since(place)
    archive_gone(place / "store")
    if emptied:
        (home(place / "store") / "archive").mkdir()
    assert restore(place).how == "salvaged"
    assert ids(place) == {*ALL, "after"}
    with elytron.open(place / "store") as store:
        bob = store.agent("bob")
        assert (bob.usage().messages, bob.usage().archived) == (5, 26)
        assert bob.restore(["m1", "m15"]).restored == 2
    assert is_refused(place)


def test_of_a_damaged_segment_that_the_backup_lists_not_its_messages_come_back(place):
    """And it is told that the segment is damaged still: there may have been more in it."""
    archived_since(place)
    segment_flipped(place / "store")
    for _ in range(2):
        with pytest.raises(Corrupt, match="still damaged"):
            restore(place)
    with elytron.open(place / "store") as store:
        bob = store.agent("bob")
        assert bob.restore([f"m{number}" for number in range(26)]).restored == 26
        assert {message.id for message in bob.messages()} == {*ALL, "after"}


def test_a_log_that_was_set_aside_is_not_read_into_what_takes_the_memory_s_place(place):
    log = home(place / "store") / f"{files.LEDGER}-wal.damaged-0123-4"
    log.write_bytes(os.urandom(9000))
    done = restore(place, replace=True)
    assert ids(place) == ALL
    assert (Path(str(done.aside)) / log.name).exists()
