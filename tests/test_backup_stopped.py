"""Backups that were stopped at an agent, which is deleted then: nothing of it stays in silence."""

import errno
import os
import shutil
from pathlib import Path

import pytest

import elytron
from archives import Killed
from backups import copied, home, make
from elytron import Corrupt, NotFound, Unavailable
from elytron.ledger import deleted
from elytron.upkeep import backup_files
from elytron.upkeep.backup_files import BackupFiles, Copy
from ledgers import contents

QUIET = {"reserve_mb": 0, "auto_cleanup": False}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of bob and al, and a backup of both."""
    place = tmp_path_factory.mktemp("stopped")
    make(place / "store")
    assert back_up(place).ok
    return place


def back_up(place: Path) -> elytron.BackedUp:
    with elytron.open(place / "store", **QUIET) as store:
        return store.backup(place / "backup")


def delete_bob(place: Path) -> None:
    with elytron.open(place / "store", **QUIET) as store:
        store.delete("bob")


def failing() -> BaseException:
    """As a network file system refuses it, or a folder that belongs to another user."""
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def removing_meets(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def remove_folder(_folder: Path) -> None:
        raise error

    monkeypatch.setattr(backup_files, "remove_folder", remove_folder)


def stopped_at_its_first_copy(place: Path) -> Path:
    """A backup without bob, killed when all of his was written but the file by which it counts."""
    shutil.rmtree(home(place / "backup"), ignore_errors=True)
    plain = BackupFiles.commit

    def commit(self: BackupFiles, copy: Copy) -> None:
        if copy.agent == "bob":
            raise Killed
        plain(self, copy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BackupFiles, "commit", commit)
        with pytest.raises(Killed):
            back_up(place)
    return half(place)


def half(place: Path) -> Path:
    """The folder of bob in the backup, in which no copy counts."""
    left = home(place / "backup")
    assert list(left.glob("ledger-*.db"))
    assert not (left / "agent.json").exists()
    return left


# -- of an agent that was deleted


@pytest.mark.parametrize("killed", [False, True])
def test_a_copy_that_a_run_had_begun_to_remove_goes_with_the_next(place, monkeypatch, killed):
    delete_bob(place)
    with monkeypatch.context() as patch:
        removing_meets(patch, Killed() if killed else failing())
        if killed:
            with pytest.raises(Killed):
                back_up(place)
        else:
            assert [one.agent for one in back_up(place).failed] == ["bob"]
    left = half(place)
    report = back_up(place)
    assert report.ok, report.failed
    assert report.removed == (left.name,)
    assert [one.agent for one in report.agents] == ["al"]
    assert not left.exists()
    assert back_up(place).removed == ()


def test_a_first_copy_that_a_run_had_begun_goes_once_its_agent_is_deleted(place):
    left = stopped_at_its_first_copy(place)
    delete_bob(place)
    report = back_up(place)
    assert report.ok, report.failed
    assert report.removed == (left.name,)
    assert not left.exists()


def test_it_goes_too_where_it_is_of_the_only_agent_there_was(tmp_path):
    make(tmp_path / "store", names=["bob"])
    left = stopped_at_its_first_copy(tmp_path)
    delete_bob(tmp_path)
    report = back_up(tmp_path)
    assert report.ok, report.failed
    assert (report.agents, report.removed) == ((), (left.name,))
    assert not left.exists()
    with pytest.raises(NotFound, match="holds no agents"):
        back_up(tmp_path)


def test_what_cannot_be_removed_is_told_and_keeps_no_other_from_being_backed_up(place):
    left = stopped_at_its_first_copy(place)
    delete_bob(place)
    with elytron.open(place / "store", **QUIET) as store:
        store.agent("al").save("user", "more", id="more")
    with pytest.MonkeyPatch.context() as patch:
        removing_meets(patch, failing())
        report = back_up(place)
    ((failed, cause),) = [(one.agent, one.cause) for one in report.failed]
    assert failed == left.name
    assert isinstance(cause, Unavailable)
    assert copied(report) == {"al"}
    assert back_up(place).removed == (left.name,)


def test_what_cannot_be_removed_is_told_though_there_is_no_agent(tmp_path):
    make(tmp_path / "store", names=["bob"])
    left = stopped_at_its_first_copy(tmp_path)
    delete_bob(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        removing_meets(patch, failing())
        assert [one.agent for one in back_up(tmp_path).failed] == [left.name]
    assert back_up(tmp_path).removed == (left.name,)


def test_of_a_renamed_agent_what_has_its_old_name_goes(place):
    left = stopped_at_its_first_copy(place)
    with elytron.open(place / "store", **QUIET) as store:
        store.rename("bob", "rob")
    report = back_up(place)
    assert report.ok, report.failed
    assert report.removed == (left.name,)
    assert not left.exists()
    assert "rob" in copied(report)


# -- of others


def test_of_an_agent_that_is_missing_what_was_begun_stays_and_is_told(place):
    """It may be all that there is of it: nothing says that it was deleted."""
    left = stopped_at_its_first_copy(place)
    shutil.rmtree(home(place / "store"))
    before = contents(left)
    for _ in range(2):
        report = back_up(place)
        ((failed, cause),) = [(one.agent, one.cause) for one in report.failed]
        assert failed == left.name
        assert isinstance(cause, Corrupt)
        assert "nothing says that it was deleted" in str(cause)
        assert report.removed == ()
        assert contents(left) == before


@pytest.mark.parametrize("anew", [False, True])
def test_of_an_agent_that_is_there_the_next_run_makes_the_copy(place, anew):
    """Also of one that was begun under the name of one that was deleted."""
    if anew:
        delete_bob(place)
        with elytron.open(place / "store", **QUIET) as store:
            store.agent("bob").save("user", "new")
    stopped_at_its_first_copy(place)
    report = back_up(place)
    assert report.ok, report.failed
    assert report.removed == ()
    assert "bob" in copied(report)


def test_a_run_of_single_agents_leaves_what_is_of_others(place):
    left = stopped_at_its_first_copy(place)
    delete_bob(place)
    before = contents(left)
    with elytron.open(place / "store", **QUIET) as store:
        assert store.backup(place / "backup", agents=["al"]).ok
    assert contents(left) == before


def test_folders_of_others_and_copies_that_are_damaged_stay(place):
    """Though what they are called has the hash of the name of one that was deleted."""
    left = home(place / "backup")
    key = deleted.key_of("bob")
    strange = [left.with_name(name) for name in ("@eaDir", f"Copy of bob-{key}", key)]
    for folder in strange:
        folder.mkdir()
        (folder / "notes").write_text("mine")
    (left / "agent.json").write_text("{")
    delete_bob(place)
    before = contents(left)
    report = back_up(place)
    assert report.removed == ()
    assert contents(left) == before
    assert all((folder / "notes").is_file() for folder in strange)
