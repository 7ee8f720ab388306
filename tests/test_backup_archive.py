"""What is in an archive is not lost from a backup, whatever has become of the archive's listing."""

import json
import random
import shutil
import string
from collections.abc import Callable
from pathlib import Path

import pytest

import elytron
import write_store
from backups import fill, held, home, saved
from elytron import Conflict, Corrupt
from elytron.archive import manifest, merging
from ledgers import flip
from write_store import AGENTS, STORES

QUIET = {"reserve_mb": 0, "auto_cleanup": False}
ALL = {f"m{number}" for number in range(100)}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one agent with two archived segments, and a backup of it."""
    place = tmp_path_factory.mktemp("archived")
    with elytron.open(place / "store", **QUIET) as store:
        bob = store.agent("bob")
        fill(bob, 0, 100)
        for keep in (50, 5):
            bob.archive(older_than_days=0, keep=keep)
        assert bob.usage().archived == 95
        assert store.backup(place / "backup").ok
    assert len(segments(place)) == 2
    return place


def archive(place: Path) -> Path:
    return home(place / "store") / "archive"


def segments(place: Path) -> list[Path]:
    return sorted(archive(place).glob("segment-*"))


def back_up(place: Path) -> elytron.BackedUp:
    with elytron.open(place / "store", **QUIET) as store:
        return store.backup(place / "backup")


def restore(place: Path, source: Path) -> str:
    report = elytron.restore_backup(source, place / "store")
    for failed in report.failed:
        raise failed.cause
    return report.agents[0].how


def archive_more(place: Path) -> None:
    with elytron.open(place / "store", **QUIET) as store:
        fill(store.agent("bob"), 100, 115)
        assert store.agent("bob").archive(older_than_days=0, keep=5).archived


def listing_lost(place: Path) -> None:
    (archive(place) / manifest.FILE).write_bytes(b"")


# -- lost


@pytest.mark.parametrize("gone", [False, True], ids=["flipped", "gone"])
def test_a_segment_that_a_listing_made_anew_has_not_stays_in_a_copy_beside(place, gone):
    (first, _) = segments(place)
    if gone:
        first.unlink()
    else:
        flip(first, 100)
    listing_lost(place)
    for _ in range(2):
        report = back_up(place)
        assert report.ok, report.failed
        (before,) = map(Path, report.kept)
        assert saved(before) == ALL
        if gone:
            assert saved(place / "backup") < ALL
    assert restore(place, before) == "salvaged"
    assert held(place) == ALL
    assert back_up(place).kept == report.kept
    assert saved(place / "backup") == ALL
    assert restore(place, before) == "same"


def test_an_archive_that_was_removed_and_begun_anew_is_refused_until_it_was_brought_back(place):
    shutil.rmtree(archive(place))
    archive_more(place)
    for _ in range(2):
        (failed,) = back_up(place).failed
        assert isinstance(failed.cause, Corrupt)
        assert "archive of 'bob' is gone" in str(failed.cause)
    assert saved(place / "backup") == ALL
    assert restore(place, place / "backup") == "salvaged"
    assert held(place) == ALL | {f"m{number}" for number in range(100, 115)}
    report = back_up(place)
    assert (report.failed, report.kept) == ((), ())


def test_what_was_archived_since_the_backup_and_lost_with_its_listing_stays_in_a_copy(place):
    """It is in the ledger of the last copy, and in none of its segments."""
    before = {path.name for path in segments(place)}
    with elytron.open(place / "store", **QUIET) as store:
        store.agent("bob").archive(older_than_days=0, keep=2)
    (new,) = [path for path in segments(place) if path.name not in before]
    new.unlink()
    listing_lost(place)
    report = back_up(place)
    assert report.ok, report.failed
    assert saved(Path(*report.kept)) == ALL


def test_a_damaged_copy_is_made_anew_also_once_the_listing_was_made_again(place):
    (copy,) = home(place / "backup").glob("ledger-*.db")
    with copy.open("r+b") as file:
        file.write(b"\xff" * 4096)
    listing_lost(place)
    report = back_up(place)
    assert (report.failed, report.kept) == ((), ())
    assert saved(place / "backup") == ALL


def test_an_archive_that_held_nothing_and_was_begun_anew_is_no_loss(place):
    """What was deleted since looks the same, so the copy is kept; nothing is refused."""
    with elytron.open(place / "store", **QUIET) as store:
        bob = store.agent("bob")
        bob.restore([f"m{number}" for number in range(95)])
        assert store.backup(place / "backup").ok
        shutil.rmtree(archive(place))
        bob.archive(older_than_days=0, keep=20)
        bob.delete("m99")
        report = store.backup(place / "backup")
    assert report.failed == ()
    assert len(report.kept) == 1


def test_what_was_deleted_from_a_restored_memory_stays_deleted(place, tmp_path):
    """Of which the archive held nothing; what it holds later was not begun anew for that."""
    store, backup = tmp_path / "new", tmp_path / "backup of it"
    with elytron.open(place / "store", **QUIET) as opened:
        opened.agent("bob").restore([f"m{number}" for number in range(95)])
        assert opened.backup(backup).ok
    elytron.restore_backup(backup, store)
    with elytron.open(store, **QUIET) as opened:
        opened.agent("bob").archive(older_than_days=0, keep=20)
        opened.agent("bob").delete("m99")
        assert isinstance(elytron.restore_backup(backup, store).failed[0].cause, Conflict)
        report = opened.backup(backup)
    assert (report.failed, report.kept) == ((), ())


def test_what_was_deleted_since_a_listing_was_made_again_stays_deleted(place):
    listing_lost(place)
    with elytron.open(place / "store", **QUIET) as store:
        bob = store.agent("bob")
        assert bob.check(repair=True).ok
        bob.archive(older_than_days=0, keep=3)
        assert bob.delete("m98")
        assert bob.delete("m5")
    with pytest.raises(Conflict):
        restore(place, place / "backup")
    assert held(place) == ALL - {"m98", "m5"}


def test_the_archive_of_a_renamed_one_stays_in_a_copy_beside(place):
    segments(place)[0].unlink()
    listing_lost(place)
    with elytron.open(place / "store", **QUIET) as store:
        store.rename("bob", "Robert")
        report = store.backup(place / "backup")
    assert (report.ok, report.removed) == (True, ("bob",))
    assert saved(Path(*report.kept)) == ALL


# -- not lost


def forget_all(bob: elytron.Agent) -> None:
    for session in ("s0", "s1", "s2"):
        bob.forget(session=session)


def merge(bob: elytron.Agent) -> None:
    fill(bob, 200, 205)
    for keep in (4, 3, 2, 1):
        bob.archive(older_than_days=0, keep=keep)


MEANT: dict[str, Callable[[elytron.Agent], object]] = {
    "archive": lambda bob: bob.archive(older_than_days=0, keep=1),
    "restore some": lambda bob: bob.restore(["m1", "m60"]),
    "restore all": lambda bob: bob.restore([f"m{number}" for number in range(95)]),
    "delete": lambda bob: bob.delete("m1"),
    "delete held": lambda bob: bob.delete("m99"),
    "forget": lambda bob: bob.forget(session="s1"),
    "forget all": forget_all,
    "clear": lambda bob: bob.clear(),
    "merge": merge,
    "rename a concept": lambda bob: (bob.relate("A", "knows", "B"), bob.delete_concept("A")),
    "edit": lambda bob: bob.edit("m98", "edited"),
    "pin": lambda bob: bob.pin("m98"),
    "reclaim": lambda bob: bob.reclaim(full=True),
    "check": lambda bob: bob.check(repair=True),
}


@pytest.mark.parametrize("what", MEANT)
def test_after_all_that_is_meant_backups_go_on_and_keep_nothing(place, monkeypatch, what):
    monkeypatch.setattr(merging, "AT_ONCE", 2)
    with elytron.open(place / "store", **QUIET) as store:
        bob = store.agent("bob")
        for _ in range(2):
            MEANT[what](bob)
            report = store.backup(place / "backup")
            assert (report.failed, report.kept) == ((), ())
            bob.save("user", "more")


@pytest.mark.parametrize("what", ["archive", "restore some", "merge", "edit"])
@pytest.mark.parametrize("how", ["emptied", "gone"])
def test_a_listing_that_was_made_anew_of_whole_segments_loses_nothing(place, how, what):
    listing_lost(place)
    if how == "gone":
        (archive(place) / manifest.FILE).unlink()
    with elytron.open(place / "store", **QUIET) as store:
        MEANT[what](store.agent("bob"))
        report = store.backup(place / "backup")
    assert (report.failed, report.kept) == ((), ())


@pytest.mark.parametrize("damaged", [False, True])
def test_what_was_dropped_at_the_archive_s_limit_keeps_no_backup_from_going_on(tmp_path, damaged):
    """If the listing was made anew meanwhile, once with a copy beside."""
    chance = random.Random(7)
    settings = {**QUIET, "max_archive_mb": 1}

    def text() -> str:
        return "".join(chance.choices(string.ascii_letters + string.digits, k=3000))

    with elytron.open(tmp_path / "store", **settings) as store:
        bob = store.agent("bob")
        beside = set[str]()
        for number in range(6):
            bob.save_many({"role": "user", "content": text()} for _ in range(120))
            bob.archive(older_than_days=0, keep=0)
            bob.enforce_limits()
            if damaged and number == 4:
                listing_lost(tmp_path)
                bob.archive(older_than_days=0, keep=0)
                bob.save_many({"role": "user", "content": text()} for _ in range(300))
                bob.archive(older_than_days=0, keep=0)
                bob.enforce_limits()
            report = store.backup(tmp_path / "backup")
            assert report.failed == ()
            beside.update(report.kept)
        assert bob.usage().archive.dropped > 0
    assert len(beside) == (1 if damaged else 0)


def test_with_change_max_passed_over_between_two_backups_they_go_on(tmp_path):
    """The list of changes does not reach back to the last one."""
    with elytron.open(tmp_path / "store", **QUIET, change_max=100) as store:
        bob = store.agent("bob")
        fill(bob, 0, 400)
        assert store.backup(tmp_path / "backup").ok
        for number in range(150):
            bob.delete(f"m{number}")
        bob.archive(older_than_days=0, keep=50)
        for number in range(390, 400):
            bob.edit(f"m{number}", "edited")
        report = store.backup(tmp_path / "backup")
    assert (report.failed, report.kept) == ((), ())


# -- stores of earlier versions


def without_a_mark(place: Path) -> None:
    """The listing as version 0.1.0 wrote it."""
    path = archive(place) / manifest.FILE
    value = json.loads(path.read_bytes())
    del value["checksum"], value["mark"]
    body = json.dumps(value)[1:].encode()
    path.write_bytes(manifest._head(body) + body)


@pytest.mark.parametrize("version", sorted(path.name for path in STORES.iterdir()))
@pytest.mark.parametrize("name", AGENTS)
def test_backups_of_a_store_of_an_earlier_version_go_on(tmp_path, version, name):
    packed = (STORES / version / "store.tar.zst").read_bytes()
    write_store.unpack(packed, tmp_path / "store")
    with write_store.opened(tmp_path / "store", name) as store:
        agent = store.agent(name)
        assert store.backup(tmp_path / "backup", agents=[name]).ok
        for change in (
            lambda: agent.archive(older_than_days=0, keep=3),
            lambda: agent.restore([one.id for one in agent.messages(archived=True)][:5]),
            lambda: agent.edit("m102", "edited"),
            lambda: agent.delete("m103"),
            lambda: agent.archive(older_than_days=0, keep=1),
        ):
            change()
            report = store.backup(tmp_path / "backup", agents=[name])
            assert (report.failed, report.kept) == ((), ())


def test_a_listing_without_a_mark_gets_one_that_says_nothing_of_what_was_before(place):
    without_a_mark(place)
    shutil.rmtree(place / "backup")
    assert back_up(place).ok
    archive_more(place)
    report = back_up(place)
    assert (report.failed, report.kept) == ((), ())
    assert json.loads((archive(place) / manifest.FILE).read_bytes())["mark"].startswith("found-")


def test_an_archive_that_had_no_mark_and_was_begun_anew_is_told_from_it(place):
    without_a_mark(place)
    shutil.rmtree(place / "backup")
    assert back_up(place).ok
    shutil.rmtree(archive(place))
    archive_more(place)
    (failed,) = back_up(place).failed
    assert isinstance(failed.cause, Corrupt)
    assert saved(place / "backup") == ALL
