"""
Backups and what comes back from them: what was deleted stays deleted, what was lost comes back, and
what cannot be read is not taken for empty.
"""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import elytron
from backups import (
    ALL,
    copy_of,
    emptied,
    fill,
    held,
    home,
    ids,
    make,
    restore,
    restored,
    saved,
    text_flipped,
)
from elytron import Conflict, Corrupt, DiskFull, Unavailable
from elytron.ledger import files, frames, swapping
from elytron.upkeep import kept, replacing
from elytron.upkeep.backup_files import BackupFiles
from elytron.upkeep.runs import Run
from ledgers import flip, ledger_path, marker_path, query
from test_backup_repaired import QUIET, back_up, deleted_and_header_gone, header_gone, repair
from test_cli import run

PAGE_BYTES = 4096


def page_gone(store: Path, text: bytes) -> None:
    """Overwrite the page with a text."""
    path = ledger_path(store)
    at = path.read_bytes().index(text) // PAGE_BYTES * PAGE_BYTES
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * PAGE_BYTES)


def bring(source: Path, store: Path, **options: Any) -> elytron.AgentRestored:
    report = elytron.restore_backup(source, store, **options)
    for failed in report.failed:
        raise failed.cause
    (done,) = report.agents
    return done


# -- what was deleted, and what was lost


def test_a_message_that_came_back_from_the_archive_is_not_taken_for_a_deleted_one(place):
    with elytron.open(place / "store", **QUIET) as store:
        assert store.agent("bob").restore(["m1"]).restored == 1
        assert store.backup(place / "backup").ok
    page_gone(place / "store", b"zebra 1 words")
    assert restore(place).how == "salvaged"
    assert ids(place) == ALL | {"after"}


def test_a_message_that_came_back_from_the_archive_and_is_lost_is_told(place):
    with elytron.open(place / "store", **QUIET) as store:
        assert store.agent("bob").restore(["m1"]).restored == 1
    page_gone(place / "store", b"zebra 1 words")
    (told,) = [one.what for one in repair(place).findings if "messages are lost" in one.what]
    assert "'m1'" in told


def test_what_was_deleted_stays_so_however_often_a_damaged_memory_is_restored(place):
    deleted_and_header_gone(place / "store")
    assert restore(place).how == "salvaged"
    left = (ALL - {"m25"}) | {"after"}
    for _ in range(2):
        assert ids(place) == left
        with pytest.raises(Conflict):
            restore(place)
    assert ids(place) == left


def test_what_a_repair_took_out_comes_back_also_where_a_new_ledger_is_made(place):
    text_flipped(place / "store")
    repair(place)
    header_gone(place / "store")
    assert restore(place).how == "salvaged"
    assert ids(place) == ALL | {"after"}


def test_what_a_repair_took_out_comes_back_after_another_has_made_a_new_ledger(place):
    text_flipped(place / "store")
    repair(place)
    header_gone(place / "store")
    repair(place)
    assert restore(place).how == "salvaged"
    assert ids(place) == ALL | {"after"}


@pytest.mark.parametrize("anew", [False, True], ids=["taken out", "and made anew"])
def test_what_came_back_after_a_repair_and_was_deleted_then_stays_deleted(place, anew):
    text_flipped(place / "store")
    repair(place)
    if anew:
        header_gone(place / "store")
    assert restore(place).how == "salvaged"
    with elytron.open(place / "store", **QUIET) as store:
        assert store.agent("bob").delete("m25")
    for _ in range(2):
        with pytest.raises(Conflict):
            restore(place)
    assert ids(place) == (ALL - {"m25"}) | {"after"}


def test_what_came_back_by_replacing_all_and_was_deleted_then_stays_deleted(place):
    text_flipped(place / "store")
    repair(place)
    assert restore(place, replace=True).how == "replaced"
    with elytron.open(place / "store", **QUIET) as store:
        assert store.agent("bob").delete("m25")
    with pytest.raises(Conflict):
        restore(place)
    assert ids(place) == ALL - {"m25"}


def test_what_came_back_stays_deleted_whichever_of_several_repairs_files_are_removed(place):
    for text in (b"zebra 25 ", b"zebra 26 "):
        path = ledger_path(place / "store")
        flip(path, path.read_bytes().index(text))
        repair(place)
    assert restore(place).how == "salvaged"
    last = sorted(home(place / "store").glob("damaged-*"))[-1]
    shutil.rmtree(last)
    with elytron.open(place / "store", **QUIET) as store:
        assert store.agent("bob").delete("m25")
    with pytest.raises(Conflict):
        restore(place)
    assert ids(place) == (ALL - {"m25"}) | {"after"}


def test_what_was_taken_out_again_after_it_came_back_comes_back_again(place):
    for _ in range(2):
        text_flipped(place / "store")
        assert not repair(place).ok
        assert restore(place).how == "salvaged"
        assert ids(place) == ALL | {"after"}


def test_numbers_that_were_given_away_again_are_not_those_of_what_was_lost(place):
    """A ledger that begins empty knows not how far the lost one had come."""
    emptied(place / "store")
    repair(place)
    with elytron.open(place / "store", **QUIET) as store:
        bob = store.agent("bob")
        bob.save_many({"role": "user", "content": "new", "id": f"new{n}"} for n in range(20))
        for number in range(20):
            assert bob.delete(f"new{number}")
    assert restore(place).how == "salvaged"
    assert ids(place) == ALL
    with pytest.raises(Conflict):
        restore(place)


def test_what_a_repair_has_kept_may_be_damaged_too(place):
    text_flipped(place / "store")
    repair(place)
    (rows,) = home(place / "store").glob("damaged-*/rows.jsonl")
    with rows.open("ab") as file:
        file.write(b"\xff\n")
    assert restore(place).how == "salvaged"
    assert ids(place) == ALL | {"after"}


def test_files_set_aside_by_a_replacement_are_no_sign_of_a_repair(tmp_path):
    """Of another agent, who had the same name before, nothing comes among what this one has."""
    store = tmp_path / "store"
    make(store, names=["bob"])
    with elytron.open(store, **QUIET) as opened:
        assert opened.backup(tmp_path / "first").ok
        opened.delete("bob")
        fill(opened.agent("bob"), 100, 110)
        assert opened.backup(tmp_path / "second").ok
        opened.agent("bob").save("user", "one more")
    assert bring(tmp_path / "second", store, replace=True).how == "replaced"
    with pytest.raises(Conflict):
        bring(tmp_path / "first", store)
    assert ids(tmp_path) == {f"m{number}" for number in range(100, 110)}


def test_how_many_messages_are_in_the_archive_again_is_told(place):
    archive = home(place / "store") / "archive"
    for path in archive.glob("segment-*"):
        path.unlink()
    (archive / "manifest.json").write_bytes(b"")
    done = run("restore", "--from", place / "backup", "--json", store=place / "store")
    assert done.code == 0, done.err
    assert [one["again"] for one in done.document["agents"]] == [10]
    assert ids(place) == ALL | {"after"}


def test_how_many_messages_are_in_the_archive_again_is_shown(place):
    archive = home(place / "store") / "archive"
    for path in archive.glob("segment-*"):
        path.unlink()
    (archive / "manifest.json").write_bytes(b"")
    done = run("restore", "--from", place / "backup", store=place / "store")
    assert "archived again" in done.out
    again = run("restore", "--from", place / "backup", store=place / "store")
    assert "archived again" not in again.out


# -- what is said of a message's worth


def test_a_memory_with_other_pins_is_not_the_same(place):
    """Both have come to the same number, from the same backup."""
    assert bring(place / "backup", place / "store", replace=True).how == "replaced"
    with elytron.open(place / "store", **QUIET) as store:
        store.agent("bob").pin("m28")
        assert store.backup(place / "second").ok
    assert bring(place / "backup", place / "store", replace=True).how == "replaced"
    with elytron.open(place / "store", **QUIET) as store:
        store.agent("bob").pin("m27")
    with pytest.raises(Conflict):
        bring(place / "second", place / "store")


def test_a_copy_with_a_pin_that_a_repair_took_out_is_kept(place, tmp_path):
    query(place / "store", "UPDATE marks SET pinned = 0")
    repair(place)
    report = back_up(place)
    assert report.ok, report.failed
    (before,) = map(Path, report.kept)
    whole = restored(before, tmp_path / "before")["bob"]
    assert [message.id for message in whole["held"] if message.pinned] == ["m29"]


# -- what cannot be read


def unreadable(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """A bad sector under the file that has this name now."""
    plain, bad = Path.open, files.file_id(path)

    def opened(self: Path, *arguments: Any, **more: Any) -> Any:
        if self == path and files.file_id(path) == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return plain(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", opened)


def unlistable(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As to a user who may go into a folder and not list it."""

    def refusing(plain: Callable[..., Any]) -> Callable[..., Any]:
        def listed(path: Any = ".") -> Any:
            if not isinstance(path, int) and Path(path) == folder:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return plain(path)

        return listed

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def test_a_copy_that_cannot_be_read_keeps_no_other_from_coming_back(tmp_path, monkeypatch):
    make(tmp_path / "store")
    assert back_up(tmp_path).ok
    unreadable(monkeypatch, home(tmp_path / "backup") / "agent.json")
    report = elytron.restore_backup(tmp_path / "backup", tmp_path / "new")
    assert [one.agent for one in report.agents] == ["al"]
    ((failed, cause),) = [(one.agent, one.cause) for one in report.failed]
    assert failed == home(tmp_path / "backup").name
    assert isinstance(cause, Unavailable)


@pytest.mark.parametrize("there", [True, False])
def test_a_copy_that_cannot_be_read_keeps_no_other_agent_from_being_backed_up(
    tmp_path, monkeypatch, there
):
    make(tmp_path / "store")
    assert back_up(tmp_path).ok
    with elytron.open(tmp_path / "store", **QUIET) as store:
        store.agent("al").save("user", "more", id="more")
    if not there:
        shutil.rmtree(home(tmp_path / "store"))
    unreadable(monkeypatch, home(tmp_path / "backup") / "agent.json")
    report = back_up(tmp_path)
    assert [(one.agent, one.copied) for one in report.agents] == [("al", True)]
    (failed,) = report.failed
    assert failed.agent in ("bob", home(tmp_path / "backup").name)
    assert isinstance(failed.cause, Unavailable)


LISTED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "copies": ("backup/agents", lambda place: BackupFiles(place / "backup").copies()),
    "kept": ("backup/kept", lambda place: kept.paths(BackupFiles(place / "backup"))),
    "runs": ("", lambda place: Run(home(place / "store")).others()),
    "logs": ("", lambda place: frames.aside(ledger_path(place / "store"))),
    "aside": ("", lambda place: swapping.aside_folders(home(place / "store"))),
}


@pytest.mark.parametrize("what", LISTED)
def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(place, monkeypatch, what):
    name, look = LISTED[what]
    folder = place / name if name else home(place / "store")
    folder.mkdir(exist_ok=True)
    look(place)
    with monkeypatch.context() as patch:
        unlistable(patch, folder)
        with pytest.raises(Unavailable):
            look(place)


def test_a_memory_whose_marker_is_on_a_bad_sector_can_be_replaced(place, monkeypatch):
    unreadable(monkeypatch, marker_path(place / "store"))
    with pytest.raises(Unavailable):
        restore(place)
    assert restore(place, replace=True).how == "replaced"
    assert ids(place) == ALL


# -- what lies in a backup


def test_folders_that_others_made_in_a_backup_stay_and_keep_nothing_from_being_backed_up(place):
    """As a NAS does, for its thumbnails."""
    backup = place / "backup"
    strange = [
        folder / "@eaDir"
        for folder in (backup, home(backup).parent, home(backup), home(backup) / "segments")
    ]
    for folder in strange:
        folder.mkdir()
    report = back_up(place)
    assert report.ok, report.failed
    assert all(folder.is_dir() for folder in strange)
    assert saved(backup) == ALL | {"after"}


def test_a_backup_of_which_agents_with_long_names_failed_is_still_one(tmp_path):
    backup = BackupFiles(tmp_path)
    backup.finish("today", failed=[f"{number:02} " + "\N{ELEPHANT}" * 997 for number in range(30)])
    assert backup.exists()
    said = files.read_json(tmp_path / files.BACKUP)
    assert said is not None
    assert said["failed"] == 30


def begun_anew(store: Path) -> None:
    """Another memory under the same name, which is further on."""
    shutil.rmtree(home(store))
    with elytron.open(store, **QUIET) as opened:
        fill(opened.agent("bob"), 200, 300, word="camel")
        opened.agent("bob").archive(older_than_days=0, keep=50)


@pytest.mark.parametrize("said", [b"", b"{}", b"What?"])
def test_what_a_copy_is_made_of_is_compared_also_where_what_is_said_of_it_is_damaged(place, said):
    begun_anew(place / "store")
    (home(place / "backup") / "agent.json").write_bytes(said)
    for _ in range(2):
        (failed,) = back_up(place).failed
        assert isinstance(failed.cause, Corrupt)
        assert "is not the one of its last backup" in str(failed.cause)
    assert saved(place / "backup") == ALL


def test_a_copy_of_which_what_is_said_is_damaged_is_kept_after_a_repair(place):
    text_flipped(place / "store")
    repair(place)
    (home(place / "backup") / "agent.json").write_bytes(b"{}")
    report = back_up(place)
    assert report.ok, report.failed
    assert saved(Path(*report.kept)) == ALL


def test_a_copy_that_lacks_a_file_is_not_replaced_by_one_of_another_ledger(place):
    """Its segments may be all that there is."""
    copy_of(place / "backup").unlink()
    begun_anew(place / "store")
    (failed,) = back_up(place).failed
    assert isinstance(failed.cause, Corrupt)
    assert list((home(place / "backup") / "segments").iterdir())


# -- small


def test_a_kept_copy_is_known_also_by_a_path_from_within_it(place, monkeypatch):
    """Of an archive that has lost a part, only a copy that was kept for that fills it up."""
    with elytron.open(place / "store", **QUIET) as store:
        bob = store.agent("bob")
        bob.archive(older_than_days=0, keep=5)
        assert store.backup(place / "backup").ok
    archive = home(place / "store") / "archive"
    first, _ = sorted(archive.glob("segment-*"))
    first.unlink()
    (archive / "manifest.json").write_bytes(b"")
    (before,) = back_up(place).kept
    monkeypatch.chdir(before)
    assert bring(Path(), place / "store").how == "salvaged"
    assert held(place) == ALL | {"after"}


def test_what_is_set_aside_has_its_new_name_on_the_disk_before_the_old_one_is_gone(
    place, monkeypatch
):
    """Method: of each file that is moved, the first folder that is synced then."""
    done: list[tuple[str, Path]] = []
    plain_replace, plain_sync = Path.replace, replacing.sync_folder

    def replace(self: Path, target: Path) -> Path:
        done.append(("moved", Path(target)))
        return plain_replace(self, target)

    def sync(folder: Path) -> None:
        done.append(("synced", folder))
        plain_sync(folder)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(replacing, "sync_folder", sync)
    aside = Path(str(restore(place, replace=True).aside))
    moved = [
        (path.name, done[number + 1])
        for number, (what, path) in enumerate(done)
        if what == "moved" and path.parent == aside
    ]
    assert {name for name, _ in moved} >= {files.LEDGER, "archive"}
    assert {after for _, after in moved} == {("synced", aside)}


def test_a_log_that_a_full_disk_kept_from_being_set_aside_leaves_nothing(place, monkeypatch):
    ledger = ledger_path(place / "store")
    log = ledger.with_name("log")
    log.write_bytes(b"frames" * 1000)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {path.name for path in ledger.parent.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_file", full)
        with pytest.raises(DiskFull):
            frames.set_aside(ledger, log, frames.Lost(1, 1, 1, "salt"))
    assert {path.name for path in ledger.parent.iterdir()} == before


def test_half_of_a_log_that_a_dead_process_set_aside_is_removed_by_the_next_restore(place):
    elytron.restore_backup(place / "backup", place / "new")
    half = ledger_path(place / "new").with_name("ledger.db-wal.part")
    half.write_bytes(b"zebra")
    assert bring(place / "backup", place / "new").how == "same"
    assert not half.exists()


def test_a_damaged_listing_without_any_segments_is_named_as_a_loss(place):
    archive = home(place / "store") / "archive"
    for path in archive.glob("segment-*"):
        path.unlink()
    flip(archive / "manifest.json", 60)
    with elytron.open(place / "store", **QUIET) as store:
        report = store.agent("bob").check()
    assert not report.ok
    assert [one.part for one in report.findings] == ["archive"]
    assert "is lost" in report.findings[0].what
