"""What a review of the limits found: each as it was shown, so that it does not come back."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import elytron
from elytron import Agent
from elytron.ledger import ops
from elytron.ledger.files import agent_folder
from elytron.upkeep.desk import Desk
from ledgers import held, names
from quiet import without_janitor

OpenStore = Callable[..., elytron.Store]
ALL: dict[str, Any] = {"older_than_days": 0, "keep": 0}
WAIT_S = 100


def talk(count: int, *, user: str = "alice") -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"I said {n} of that", "id": f"m{n}", "user": user}
        for n in range(count)
    ]


def everywhere(agent: Agent) -> list[str]:
    return sorted(message.id for message in agent.messages(archived=True))


def meanwhile(kind: type, work: Callable[[], object]) -> Any:
    """Do *work* just before the first op of a kind that upkeep commits."""
    plain, todo = Desk.commit, [work]

    def commit(self: Desk, op: ops.Op) -> Any:
        if isinstance(op, kind) and todo:
            todo.pop()()
        return plain(self, op)

    return mock.patch.object(Desk, "commit", commit)


def test_an_agent_that_was_read_first_has_its_janitor_and_the_reserve(
    open_store: OpenStore, folder: Path
) -> None:
    with elytron.open(folder, reserve_mb=0) as store:
        store.agent("bob").save("user", "Hello")
    (folder / "janitor.json").unlink(missing_ok=True)
    store = open_store(reserve_mb=1)
    bob = store.agent("bob")
    assert bob.history()
    assert not store.usage().janitor.running
    bob.save("user", "Again")
    assert store.usage().janitor.running
    assert (folder / "reserve").stat().st_size == 1 << 20


def test_an_agent_that_was_read_first_is_counted_in_the_store_s_total(
    open_store: OpenStore, folder: Path
) -> None:
    settings = {"max_total_mb": 8, "max_open_agents": 8, "keep_messages": 0}
    with elytron.open(folder, **settings) as store:
        for n in range(4):
            store.agent(f"agent {n}").save("user", "Hello")
    store = open_store(**settings)
    for n in range(4):
        assert store.agent(f"agent {n}").history()
    assert store._upkeep.sharing is not None
    assert store._upkeep.sharing._budget.reserved_bytes() == 0
    for n in range(4):
        store.agent(f"agent {n}").save("user", "Hello again")
    reserved = store._upkeep.sharing._budget.reserved_bytes()
    assert reserved == 4 * store.config.wal_limit_bytes


def test_a_total_without_cleanup_lets_an_empty_store_be_written(open_store: OpenStore) -> None:
    bob = open_store(max_total_mb=8, auto_cleanup=False).agent("bob")
    bob.save_many(talk(50))
    assert len(held(bob)) == 50


def test_what_is_forgotten_does_not_come_back_with_a_restore_under_way(
    open_store: OpenStore, folder: Path
) -> None:
    bob = open_store(keep_messages=0).agent("bob")
    bob.save_many(talk(10))
    bob.archive(**ALL)

    def forget_elsewhere() -> None:
        with elytron.open(folder, reserve_mb=0) as other:
            assert other.agent("bob").forget(user="alice").archived == 10

    with meanwhile(ops.Restore, forget_elsewhere):
        bob.restore([f"m{n}" for n in range(10)])
    assert everywhere(bob) == []
    assert bob.check().ok


def test_what_is_forgotten_does_not_come_back_with_an_archiving_that_died(
    open_store: OpenStore, folder: Path
) -> None:
    class Killed(BaseException):
        pass

    bob = open_store(keep_messages=0).agent("bob")
    bob.save_many(talk(10))

    def forget_elsewhere() -> None:
        with elytron.open(folder, reserve_mb=0) as other:
            other.agent("bob").forget(user="alice")

    plain = Desk.commit

    def commit(self: Desk, op: ops.Op) -> Any:
        if isinstance(op, ops.Move) and not op.segments[0].startswith("run-"):
            forget_elsewhere()  # the segments are written, and not listed yet
        if isinstance(op, ops.Remove) and op.segments:
            raise Killed
        return plain(self, op)

    with mock.patch.object(Desk, "commit", commit), contextlib.suppress(Killed):
        bob.archive(**ALL)
    bob.enforce_limits()
    assert everywhere(bob) == []
    assert bob.check().ok


def test_an_export_misses_nothing_that_leaves_meanwhile(open_store: OpenStore) -> None:
    bob = open_store(keep_messages=0).agent("bob")
    bob.save_many(talk(1500))
    bob.archive(older_than_days=0, keep=1200)
    found = []
    for number, message in enumerate(bob.messages(archived=True)):
        if number == 700:  # in the midst of the ledger's pages
            bob.archive(**ALL)
        found.append(message.id)
    assert sorted(found) == sorted(f"m{n}" for n in range(1500))


def test_what_the_archive_drops_at_its_limit_is_said(open_store: OpenStore) -> None:
    bob = open_store(max_archive_mb=1, keep_messages=0, max_message_kb=64).agent("bob")
    dice = __import__("random").Random(3)
    for n in range(60):
        text = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz ", k=60_000))
        bob.save("user", text, id=f"m{n}")
    report = bob.archive(**ALL)
    assert report.archived == 60
    assert report.dropped == bob.usage().archive.dropped > 0
    assert bob.usage().archived == 60 - report.dropped
    assert bob.usage().archive.bytes <= 1 << 20


def test_marking_a_message_of_nobody_makes_no_agent(open_store: OpenStore, folder: Path) -> None:
    store = open_store()
    for mark in (
        lambda agent: agent.pin("x"),
        lambda agent: agent.unpin("x"),
        lambda agent: agent.set_importance("x", 0.5),
    ):
        with pytest.raises(elytron.NotFound):
            mark(store.agent("nobody"))
    assert not folder.exists()


def test_an_edit_at_the_limit_does_not_archive_what_it_edits(open_store: OpenStore) -> None:
    store = open_store(max_db_size_mb=1, keep_messages=0)
    # What it archives ahead of saves may be what is edited just then.
    without_janitor(store)
    bob = store.agent("bob")
    number = 0
    while not bob.usage().archived:
        bob.save("user", f"{number} " + "some words here " * 60, id=f"m{number}")
        number += 1
    oldest = next(iter(held(bob)))
    for _ in range(20):
        oldest = next(iter(held(bob)))
        bob.edit(oldest, "longer now " + "some more words here " * 300)
        assert bob.get(oldest) is not None
    assert set(everywhere(bob)) == {f"m{n}" for n in range(number)}


def test_two_agents_that_want_each_other_s_bytes_do_not_stand_still(open_store: OpenStore) -> None:
    """Each would wait for a whole timeout, which is longer than all of this may take."""
    store = open_store(
        max_total_mb=6, max_open_agents=4, keep_messages=0, save_timeout_s=2 * WAIT_S,
        max_messages_per_agent=100_000,
    )  # fmt: skip

    def write(name: str) -> None:
        agent = store.agent(name)
        for step in range(25):
            agent.save_many(
                {"role": "user", "content": f"{name} {step} {n} " + "lorem ipsum " * 20}
                for n in range(60)
            )

    with ThreadPoolExecutor(3) as pool:
        for one in [pool.submit(write, f"agent {n}") for n in range(3)]:
            one.result(WAIT_S)  # none was refused, either


def test_a_word_index_that_is_made_anew_stays_within_the_log_s_limit(
    open_store: OpenStore, folder: Path
) -> None:
    store = open_store(  # where nobody links, whose commits would index the words meanwhile
        max_messages_per_agent=10**5, wal_limit_mb=0.5, auto_cleanup=False, link_concepts=False
    )
    bob = store.agent("bob")
    bob.import_(
        {"role": "user", "content": f"word{n} other{n * 7} and third{n * 13} of them {n}"}
        for n in range(8000)
    )
    with store._upkeep.chores("bob") as chores:
        assert chores is not None
        chores.desk.commit(ops.ResetWords())
    assert chores.desk.ledger.file_sizes()[1] <= store.config.wal_limit_bytes
    assert not bob.check().ok
    assert bob.check(repair=True).ok
    assert bob.recall("third1300")[0].matched
    assert "archive" not in names(agent_folder(folder, "bob"))
