"""A copy gives way only to what went on from it, or has all of it: of a ledger."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import elytron
from backups import fill, held, home, restored, saved
from elytron import Conflict, Corrupt
from ledgers import flip

QUIET = {"reserve_mb": 0, "auto_cleanup": False}


def make(place: Path, count: int = 10) -> None:
    """An agent with messages, a memory and a fact."""
    with elytron.open(place / "store", **QUIET) as store:
        bob = store.agent("bob")
        fill(bob, 0, count)
        bob.remember("Alice prefers Python", about=["Alice", "Python"])
        bob.relate("Alice", "lives in", "Lyon")
        bob.flush()


def back_up(place: Path, to: str = "backup", **settings: Any) -> elytron.BackedUp:
    with elytron.open(place / "store", **{**QUIET, **settings}) as store:
        return store.backup(place / to)


def restore(place: Path, source: str = "backup", **options: Any) -> str:
    report = elytron.restore_backup(place / source, place / "store", **options)
    for failed in report.failed:
        raise failed.cause
    return report.agents[0].how


def refused(report: elytron.BackedUp) -> str:
    ((name, cause),) = [(one.agent, one.cause) for one in report.failed]
    assert name == "bob"
    assert isinstance(cause, Corrupt)
    return str(cause)


def ids(start: int, end: int) -> set[str]:
    return {f"m{number}" for number in range(start, end)}


def save(place: Path, *names: str) -> None:
    with elytron.open(place / "store", **QUIET) as store:
        for name in names:
            store.agent("bob").save("user", f"I say {name}", id=name)


# -- another ledger


def begun_anew(place: Path, change: Callable[[elytron.Agent], object]) -> None:
    shutil.rmtree(home(place / "store"))
    with elytron.open(place / "store", **QUIET) as store:
        change(store.agent("bob"))
        store.agent("bob").flush()


def test_a_copy_of_memories_alone_does_not_give_way_to_a_ledger_that_was_begun_anew(tmp_path):
    with elytron.open(tmp_path / "store", **QUIET) as store:
        bob = store.agent("bob")
        for number in range(20):
            bob.remember(f"Alice has {number} cats")
        bob.relate("Alice", "lives in", "Lyon")
        assert store.backup(tmp_path / "backup").ok
    begun_anew(tmp_path, lambda bob: bob.save("user", "hello"))
    for _ in range(2):
        assert "not the one of its last backup" in refused(back_up(tmp_path))
    assert len(restored(tmp_path / "backup", tmp_path / "new")["bob"]["memories"]) == 20


@pytest.mark.parametrize("lost", ["fact", "archived message"])
def test_a_ledger_that_was_begun_anew_without_one_thing_is_refused(tmp_path, lost):
    make(tmp_path)
    with elytron.open(tmp_path / "store", **QUIET) as store:
        store.agent("bob").archive(older_than_days=0, keep=5)
    assert back_up(tmp_path).ok

    def again(bob: elytron.Agent) -> None:
        fill(bob, 0 if lost == "fact" else 1, 10)
        with elytron.open(tmp_path / "other", **QUIET) as other:
            elytron.restore_backup(tmp_path / "backup", tmp_path / "other")
            (memory,) = other.agent("bob").memories()
        bob.remember(memory.content, id=memory.id, about=["Alice", "Python"])
        if lost != "fact":
            bob.relate("Alice", "lives in", "Lyon")
        bob.archive(older_than_days=0, keep=3)

    begun_anew(tmp_path, again)
    refused(back_up(tmp_path))
    assert saved(tmp_path / "backup") == ids(0, 10)


def test_a_ledger_that_was_begun_anew_and_told_all_again_is_backed_up(tmp_path):
    make(tmp_path)
    with elytron.open(tmp_path / "store", **QUIET) as store:
        store.agent("bob").archive(older_than_days=0, keep=5)
        (memory,) = store.agent("bob").memories()
    assert back_up(tmp_path).ok

    def again(bob: elytron.Agent) -> None:
        fill(bob, 0, 12)
        bob.remember(memory.content, id=memory.id, about=["Alice", "Python"])
        bob.relate("Alice", "lives in", "Lyon")
        bob.archive(older_than_days=0, keep=3)

    begun_anew(tmp_path, again)
    report = back_up(tmp_path)
    assert (report.failed, report.kept) == ((), ())
    assert saved(tmp_path / "backup") == ids(0, 12)


def test_a_memory_that_was_migrated_to_another_store_goes_on_in_the_same_backup(tmp_path):
    make(tmp_path)
    with elytron.open(tmp_path / "store", **QUIET) as store:
        store.agent("bob").archive(older_than_days=0, keep=5)
    assert back_up(tmp_path).ok
    elytron.migrate_store(tmp_path / "store", tmp_path / "other")
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "other").rename(tmp_path / "store")
    report = back_up(tmp_path)
    assert (report.failed, report.kept) == ((), ())


def test_a_memory_that_is_migrated_in_several_runs_is_backed_up_after_each(tmp_path):
    """What was changed in the first store meanwhile, and what left it, is no other way."""
    make(tmp_path, 30)
    (tmp_path / "store").rename(tmp_path / "from")
    for change in (
        lambda bob: bob.archive(older_than_days=0, keep=20),
        lambda bob: (bob.edit("m15", "edited"), bob.delete("m16"), bob.delete("m2")),
        lambda bob: (bob.restore(["m3"]), bob.archive(older_than_days=0, keep=9)),
        lambda bob: bob.forget(session="s1"),
        lambda bob: bob.save("user", "more"),
    ):
        with elytron.open(tmp_path / "from", **QUIET) as store:
            change(store.agent("bob"))
        done = elytron.migrate_store(tmp_path / "from", tmp_path / "store", **QUIET)
        assert done.ok, done.failed
        report = back_up(tmp_path)
        assert (report.failed, report.kept) == ((), ())


# -- the same ledger, which went on in two ways


def two_ways(place: Path) -> None:
    """One state in the first backup, a later in the second; then the first is put back."""
    save(place, *(f"old{number}" for number in range(5)))
    assert back_up(place, "first").ok
    save(place, *(f"new{number}" for number in range(5)))
    assert back_up(place, "second").ok
    assert restore(place, "first", replace=True) == "replaced"


def test_a_backup_that_was_put_back_does_not_take_the_place_of_a_later_one(tmp_path):
    two_ways(tmp_path)
    assert "or older" in refused(back_up(tmp_path, "second"))
    save(tmp_path, *(f"other{number}" for number in range(5)))
    for _ in range(2):
        assert "not the one of its last backup" in refused(back_up(tmp_path, "second"))
        save(tmp_path, *(f"more{number}" for number in range(9)))
    assert {f"new{number}" for number in range(5)} <= saved(tmp_path / "second")
    assert back_up(tmp_path, "first").ok  # from which it went on


def test_a_memory_that_went_another_way_is_not_the_same_as_the_backup(tmp_path):
    two_ways(tmp_path)
    save(tmp_path, *(f"other{number}" for number in range(5)))
    with pytest.raises(Conflict):
        restore(tmp_path, "second")
    assert restore(tmp_path, "second", replace=True) == "replaced"
    assert restore(tmp_path, "second") == "same"
    assert "new4" in held(tmp_path)
    assert back_up(tmp_path, "second").ok


WAYS: dict[str, Callable[[elytron.Agent, str], object]] = {
    "save": lambda bob, way: bob.save("user", way),
    "the same id": lambda bob, way: bob.save("user", way, id="one"),
    "remember": lambda bob, way: bob.remember(way),
    "edit": lambda bob, way: bob.edit(f"m{8 + (way == 'that')}", "edited"),
    "delete": lambda bob, way: bob.delete(f"m{8 + (way == 'that')}"),
    "kinds": lambda bob, way: bob.save("user", way) if way == "this" else bob.remember(way),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_store_that_a_snapshot_put_back_is_told_from_the_one_that_was_backed_up(tmp_path, way):
    """Whatever was done in the one way and in the other, and further on than that."""
    make(tmp_path)
    shutil.copytree(tmp_path / "store", tmp_path / "snapshot")
    with elytron.open(tmp_path / "store", **QUIET) as store:
        WAYS[way](store.agent("bob"), "this")
    assert back_up(tmp_path).ok
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "snapshot").rename(tmp_path / "store")
    with elytron.open(tmp_path / "store", **QUIET) as store:
        WAYS[way](store.agent("bob"), "that")
        for _ in range(2):
            refused(store.backup(tmp_path / "backup"))
            fill(store.agent("bob"), 20, 40)


def test_an_archive_of_another_way_is_not_brought_back_without_being_asked(tmp_path):
    make(tmp_path)
    shutil.copytree(tmp_path / "store", tmp_path / "snapshot")
    for name in ("this", "that"):
        with elytron.open(tmp_path / "store", **QUIET) as store:
            bob = store.agent("bob")
            bob.save_many({"role": "user", "content": name, "id": f"{name}{n}"} for n in range(9))
            bob.archive(older_than_days=0, keep=3)
        if name == "this":
            assert back_up(tmp_path).ok
            shutil.rmtree(tmp_path / "store")
            (tmp_path / "snapshot").rename(tmp_path / "store")
    before = held(tmp_path)
    with pytest.raises(Conflict):
        restore(tmp_path)
    assert held(tmp_path) == before


def test_of_one_that_was_put_back_and_renamed_the_later_copy_stays(tmp_path):
    two_ways(tmp_path)
    save(tmp_path, *(f"other{number}" for number in range(9)))
    with elytron.open(tmp_path / "store", **QUIET) as store:
        store.rename("bob", "Robert")
        report = store.backup(tmp_path / "second")
    assert (report.ok, report.removed) == (True, ("bob",))
    assert "new4" in saved(Path(*report.kept))


def test_a_copy_in_which_a_bit_has_flipped_is_made_anew(tmp_path):
    """It is no proof that the ledger is another."""
    make(tmp_path)
    assert back_up(tmp_path).ok
    (path,) = home(tmp_path / "backup").glob("ledger-*.db")
    flip(path, path.read_bytes().index(b"zebra 5 "))
    save(tmp_path, "more")
    report = back_up(tmp_path)
    assert (report.failed, report.kept) == ((), ())
    assert saved(tmp_path / "backup") == {*ids(0, 10), "more"}
