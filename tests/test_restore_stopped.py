"""Restores of a backup that were stopped: what they wrote beside goes, or is seen and counted."""

import shutil
from pathlib import Path

import pytest

import elytron
from backups import ALL, home, ids, restore
from elytron import Conflict, NotFound
from elytron.ledger import deleted, files
from elytron.upkeep import filling, replacing
from test_cli import run

QUIET = {"reserve_mb": 0, "auto_cleanup": False}


def beside(place: Path) -> Path:
    """Where a restore writes what it is to put in its place."""
    return home(place / "store") / "restoring"


def stop(*_: object, **__: object) -> None:
    """As Ctrl-C does."""
    raise KeyboardInterrupt


# -- what is removed

STEPS = {"the note of a deletion": (deleted, "lift"), "the marker": (files, "write_marker")}


@pytest.mark.parametrize("held", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("step", STEPS)
def test_one_that_is_stopped_before_anything_is_moved_leaves_no_copy(
    place, monkeypatch, step, held
):
    if not held:
        shutil.rmtree(home(place / "store"))
    with monkeypatch.context() as patch:
        patch.setattr(*STEPS[step], stop)
        with pytest.raises(KeyboardInterrupt):
            restore(place, replace=True)
    assert not beside(place).exists()
    if held:
        assert ids(place) == {*ALL, "after"}
    assert restore(place, replace=True).how == ("replaced" if held else "new")
    assert ids(place) == ALL


def test_one_that_is_stopped_while_it_makes_an_archive_anew_leaves_no_copy(place, monkeypatch):
    shutil.rmtree(home(place / "store") / "archive")
    with monkeypatch.context() as patch:
        patch.setattr(filling, "fill", stop)
        with pytest.raises(KeyboardInterrupt):
            restore(place)
    assert not beside(place).exists()
    assert restore(place).how == "salvaged"
    assert ids(place) == {*ALL, "after"}


def test_once_something_was_moved_the_copy_stays_until_the_next_restore(place, monkeypatch):
    plain = replacing._set_aside

    def set_aside(folder: Path) -> None:
        plain(folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(replacing, "_set_aside", set_aside)
        with pytest.raises(KeyboardInterrupt):
            restore(place, replace=True)
    assert (beside(place) / files.LEDGER).is_file()
    restore(place, replace=True)
    assert not beside(place).exists()
    assert ids(place) == ALL


# -- what a killed one leaves


def left_by_a_dead_one(place: Path) -> Path:
    """A restore of bob, who is not there, killed just before the first move; the store has al."""
    shutil.rmtree(home(place / "store"))
    with elytron.open(place / "store", **QUIET) as store:
        store.agent("al").save("user", "hello")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replacing, "swap", stop)
        with pytest.raises(KeyboardInterrupt):
            restore(place)
    assert (beside(place) / files.LEDGER).is_file()
    return home(place / "store")


@pytest.mark.parametrize("left", ["restoring", "salvage.part"])
def test_what_was_left_counts_in_what_is_on_the_disk(place, left):
    folder = home(place / "store") / left
    folder.mkdir()
    (folder / files.LEDGER).write_bytes(b"x" * 100_000)
    (home(place / "store") / "ledger.db-wal.part").write_bytes(b"x" * 1000)
    with elytron.open(place / "store", **QUIET) as store:
        found = store.usage()
        size = found.agents[0].bytes
        assert size.aside == 101_000
        assert found.total_bytes >= size.on_disk == size.total + size.archive + 101_000


def test_a_copy_of_one_that_is_not_there_is_told_by_a_check(place):
    folder = left_by_a_dead_one(place)
    told = run("check", "--json", store=place / "store")
    assert told.code == 8
    (stray,) = [one for one in told.document if not one["ok"]]
    assert stray["agent"] == folder.name
    assert "restore the agent again, or delete it" in stray["findings"][0]["what"]
    assert restore(place).how == "new"
    assert run("check", store=place / "store").code == 0


def test_a_copy_of_one_that_is_not_there_is_deleted_and_the_name_is_free(place):
    folder = left_by_a_dead_one(place)
    with elytron.open(place / "store", **QUIET) as store:
        assert store.agents() == ["al"]
        with pytest.raises(Conflict, match="what is left of one"):
            store.rename("al", "bob")
        report = store.delete("bob")
        assert (report.agent, report.messages, report.archived) == ("bob", None, 0)
        assert report.bytes > 1000
        assert not folder.exists()
        with pytest.raises(NotFound):
            store.delete("bob")
        store.rename("al", "bob")
        assert [one.content for one in store.agent("bob").messages()] == ["hello"]


def test_the_command_deletes_it_too(place):
    folder = left_by_a_dead_one(place)
    done = run("delete", "bob", "--all", "--yes", "--json", store=place / "store")
    assert (done.code, done.err) == (0, "")
    assert done.document["messages"] is None
    assert not folder.exists()
    assert run("delete", "bob", "--all", "--yes", store=place / "store").code == 3


def test_while_a_restore_is_at_work_its_copy_is_not_deleted(place):
    folder = left_by_a_dead_one(place)
    with (
        replacing.only(folder),
        elytron.open(place / "store", **QUIET) as store,
        pytest.raises(elytron.Busy, match="another restore"),
    ):
        store.delete("bob")
    assert (folder / "restoring" / files.LEDGER).is_file()


@pytest.mark.parametrize("more", ["archive", "replaced-20260101T000000Z", "swap.json"])
def test_where_there_may_be_a_memory_it_is_not_taken_for_what_was_left(place, more):
    folder = left_by_a_dead_one(place)
    if more == "swap.json":
        (folder / more).touch()
    else:
        (folder / more).mkdir()
    with (
        elytron.open(place / "store", **QUIET) as store,
        pytest.raises(NotFound, match="nothing was deleted"),
    ):
        store.delete("bob")
    assert (folder / "restoring" / files.LEDGER).is_file()
