"""Forgetting beside another process that moves messages: no clean receipt for what stays."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import elytron
from elytron import Agent
from elytron.ledger import ops
from elytron.ledger.learned import ForgetHeard
from elytron.upkeep import erasing
from elytron.upkeep.desk import Desk
from moved import ALL

COUNT = 20
ERASE: dict[str, dict[str, Any]] = {
    "clear": {},
    "forget a user": {"user": "alice"},
    "forget a session": {"session": "s"},
}


@pytest.fixture
def bob(open_store: Any) -> Agent:
    bob: Agent = open_store(keep_messages=0).agent("bob")
    bob.save_many(
        {"role": "user", "content": f"I said {n}", "id": f"m{n}", "user": "alice", "session": "s"}
        for n in range(COUNT)
    )
    return bob


def erase(bob: Agent, how: str) -> elytron.Erased:
    return bob.clear() if how == "clear" else bob.forget(**ERASE[how])


def everywhere(bob: Agent) -> list[str]:
    return [message.id for message in bob.messages(archived=True)]


def check_erased(bob: Agent, erased: elytron.Erased) -> None:
    """All of it is gone, and the receipt says so."""
    assert everywhere(bob) == []
    assert erased.messages + erased.archived == COUNT
    assert len(erased.remaining) == 1, "the backups"


@pytest.mark.parametrize("how", ERASE)
def test_what_another_archives_once_the_archive_was_looked_through_is_erased_and_counted(
    bob: Agent, folder: Path, how: str
) -> None:
    plain, todo = Desk.commit, [1]

    def commit(self: Desk, op: ops.Op) -> Any:
        if isinstance(op, ops.NoteGone) and todo:
            todo.pop()
            with elytron.open(folder, reserve_mb=0) as other:
                assert other.agent("bob").archive(**ALL).archived == COUNT
        return plain(self, op)

    with mock.patch.object(Desk, "commit", commit):
        erased = erase(bob, how)
    assert not todo
    check_erased(bob, erased)


@pytest.mark.parametrize("how", ERASE)
def test_what_another_brings_back_between_the_two_looks_is_erased_and_counted(
    bob: Agent, folder: Path, how: str
) -> None:
    bob.archive(**ALL)
    plain, todo = erasing.sweep, [1]

    def sweep(desk: Desk) -> None:  # the ledger was looked through, the archive not yet
        if todo:
            todo.pop()
            with elytron.open(folder, reserve_mb=0) as other:
                assert other.agent("bob").restore(session="s").restored == COUNT
        plain(desk)

    with mock.patch.object(erasing, "sweep", sweep):
        erased = erase(bob, how)
    assert not todo
    check_erased(bob, erased)


@pytest.mark.parametrize("how", ERASE)
def test_where_others_never_stand_still_the_receipt_says_so(
    bob: Agent, folder: Path, how: str
) -> None:
    plain = Desk.commit

    def commit(self: Desk, op: ops.Op) -> Any:
        if isinstance(op, ForgetHeard):  # of each round
            bob.save("user", "One more", user="alice", session="s")
        return plain(self, op)

    with mock.patch.object(Desk, "commit", commit):
        erased = erase(bob, how)
    assert everywhere(bob), "so it is"
    assert "meanwhile" in " ".join(erased.remaining)
    erase(bob, how)
    assert everywhere(bob) == []
