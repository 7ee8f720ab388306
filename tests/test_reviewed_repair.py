"""Repairs beside other processes, and on a disk that cannot be read: nothing is given up."""

import os
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

import elytron
from backups import home, make
from elytron import Busy, Corrupt, Unavailable
from elytron.ledger import frames, pages
from elytron.upkeep.runs import Run
from elytron.verbs import keeping
from ledgers import ledger_path, query


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose ledger lost its first hundred bytes."""
    store = tmp_path_factory.mktemp("repair") / "store"
    make(store, names=["bob"])
    with ledger_path(store).open("r+b") as file:
        file.write(bytes(100))
    return store


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "store")
    return tmp_path / "store"


def repair(store: Path) -> elytron.Checked:
    with elytron.open(store) as opened:
        return opened.agent("bob").check(repair=True)


def aside(store: Path) -> list[Path]:
    return list(home(store).glob("damaged-*"))


def test_what_another_process_has_repaired_meanwhile_is_not_taken_apart_again(store, monkeypatch):
    plain = keeping.salvage

    def slow(*arguments: Any, still: Any, **more: Any) -> Any:
        plain(*arguments, **more)  # the other one is faster
        return plain(*arguments, still=still, **more)

    with monkeypatch.context() as patch:
        patch.setattr(keeping, "salvage", slow)
        with pytest.raises(Busy, match="replaced by another process"):
            repair(store)
    assert len(aside(store)) == 1
    assert repair(store).ok


def test_while_messages_move_to_the_archive_no_new_ledger_is_made(store):
    """They would be in both from then on: what was noted of it is gone with the old ledger."""
    run = Run(home(store))
    run.begin()
    try:
        with pytest.raises(Busy, match="moves messages"):
            repair(store)
    finally:
        run.end()
    assert not aside(store)
    assert repair(store).ok


def test_a_ledger_that_cannot_be_opened_is_not_taken_for_an_empty_one(store, monkeypatch):
    def refused(*_arguments: Any) -> None:
        raise apsw.CantOpenError("too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(pages.apsw, "VFSFile", refused)
        with pytest.raises(Unavailable, match="cannot be opened"):
            repair(store)
    assert not aside(store)
    assert repair(store).messages == 20


def test_logs_that_cannot_be_looked_for_are_an_error_of_ours(store, monkeypatch):
    def refused(*_arguments: Any) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refused)
        with pytest.raises(Unavailable):
            frames.aside(ledger_path(store))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        with pytest.raises(Unavailable):
            frames.read(ledger_path(store))


@pytest.mark.parametrize("left", ["restoring", "salvage.part"])
def test_who_is_forgotten_may_stand_in_what_a_stopped_repair_left_and_that_is_told(store, left):
    assert repair(store).ok
    (home(store) / left).mkdir()
    with elytron.open(store) as opened:
        remaining = opened.agent("bob").forget(user="alice").remaining
    assert [what for what in remaining if left in what]
    assert [what for what in remaining if "damaged-" in what]


LAST = 2**63 - 1
NUMBERS = {
    "the key of a message": f"UPDATE messages SET key = {LAST} WHERE id = 'b'",
    "a position": f"UPDATE messages SET position = {LAST} WHERE id = 'b'",
    "the last position": f"INSERT INTO tails SELECT key, {LAST} FROM sessions",
    "the number of a change": f"UPDATE changes SET seq = {LAST} WHERE seq = 1",
    "how many changes there were": f"UPDATE changes SET ordinal = {LAST} - 1 WHERE seq = 1",
}


@pytest.mark.parametrize("what", NUMBERS)
def test_a_number_that_none_can_follow_is_told_as_damage(folder: Path, what: str) -> None:
    with elytron.open(folder, reserve_mb=0, link_concepts=False) as store:
        store.agent("bob").save("user", "Hello", id="a")
        store.agent("bob").save("user", "Hello again", id="b")
    query(folder, NUMBERS[what])
    with elytron.open(folder, reserve_mb=0, link_concepts=False) as store:
        bob = store.agent("bob")
        with pytest.raises(Corrupt, match="bookkeeping is damaged; nothing was written"):
            bob.save_many(
                [{"role": "user", "content": "New"}, {"role": "user", "content": "x", "user": "u"}]
            )
        for refused in (lambda: bob.edit("a", "Changed"), lambda: bob.delete("a")):
            if what in ("the key of a message", "the number of a change"):
                with pytest.raises(Corrupt, match="nothing was written"):
                    refused()
        held = bob.get("a")
        assert held is not None
        assert held.content == "Hello"
        bob.check(repair=True)
        kept = ["a"] if what in ("the key of a message", "a position") else ["a", "b"]
        assert [message.id for message in bob.messages()] == kept
        if kept == ["a"]:
            assert bob.save("user", "New").new
