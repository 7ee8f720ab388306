"""What a salvage keeps and what it says is lost, where a page with messages is surely gone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron.ledger import files
from elytron.ledger.lock import FileLock
from elytron.ledger.sqlite import Ledger
from elytron.verbs import keeping
from ledgers import ledger_path, query
from test_forget_learned import SMALL, converse, learn
from test_salvage import salvaged

PAGE = 4096


def talk(folder: Path) -> None:
    with elytron.open(folder, reserve_mb=0, auto_cleanup=False) as store:
        bob = store.agent("bob")
        bob.save_many(
            {"role": "user", "content": f"Number {n} " + "and more " * 30, "id": f"m{n}",
             "session": f"s{n % 3}"}
            for n in range(100)
        )  # fmt: skip
        bob.remember("Alice prefers Python", id="of-s1", about=["Alice"], session="s1")
        bob.remember("Lyon has two rivers", id="of-none", about=["Lyon"])


def blank(folder: Path, number: int) -> None:
    """Overwrite a page, numbered from 1, with nothing."""
    with ledger_path(folder).open("r+b") as file:
        file.seek((number - 1) * PAGE)
        file.write(bytes(PAGE))


def leaves(folder: Path, table: str) -> list[int]:
    sql = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno"
    return [number for (number,) in query(folder, sql, (table,))]


def repaired(folder: Path) -> tuple[elytron.Checked, set[str], dict[str, str | None]]:
    """The report; the ids of what is held; memories, with their sessions."""
    with elytron.open(folder, reserve_mb=0, auto_cleanup=False) as store:
        bob = store.agent("bob")
        report = bob.check(repair=True)
        held = {message.id for message in bob.messages()}
        return report, held, {memory.id: memory.session for memory in bob.memories()}


def test_messages_whose_page_is_gone_are_counted_and_their_ids_told(folder: Path) -> None:
    talk(folder)
    blank(folder, leaves(folder, "messages")[3])
    report, held, memories = repaired(folder)
    lost = {f"m{n}" for n in range(100)} - held
    assert 5 < len(lost) < 30
    assert not report.ok
    (told,) = [one.what for one in report.findings if "messages are lost" in one.what]
    assert f"{len(lost)} messages are lost (ids " in told
    assert any(repr(name) in told for name in lost)
    assert memories == {"of-s1": "s1", "of-none": None}


def test_a_salvage_keeps_memories_with_their_sessions(folder: Path) -> None:
    talk(folder)
    blank(folder, 1)
    report, held, memories = repaired(folder)
    assert report.ok, report.findings
    assert len(held) == 100
    assert memories == {"of-s1": "s1", "of-none": None}


def test_who_saves_while_the_ledger_is_made_anew_waits_and_is_in_the_new_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(folder)
    blank(folder, leaves(folder, "messages")[3])
    salvage, begun = keeping.salvage, threading.Event()
    with (
        elytron.open(folder, reserve_mb=0, auto_cleanup=False) as store,
        ThreadPoolExecutor(1) as pool,
    ):
        bob = store.agent("bob")

        def save() -> elytron.Receipt:
            begun.set()
            return bob.save("user", "Said meanwhile", id="meanwhile")

        def salvaged(*arguments: Any, **more: Any) -> Any:
            futures.append(pool.submit(save))
            assert begun.wait(30)
            made = salvage(*arguments, **more)
            assert not futures[0].done()
            return made

        futures: list[Any] = []
        monkeypatch.setattr(keeping, "salvage", salvaged)
        assert bob.check(repair=True).findings
        assert futures[0].result(timeout=60).new
        assert bob.get("meanwhile")
        assert bob.check().ok


def test_the_lock_under_which_a_ledger_is_replaced_is_held_until_a_commit_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(folder)
    lock = FileLock(files.agent_folder(folder, "bob") / files.LOCK)
    plain, free = Ledger._transact, list[bool]()

    def transact(*arguments: Any) -> Any:
        outcome = plain(*arguments)
        free.append(lock.try_acquire())
        return outcome

    monkeypatch.setattr(Ledger, "_transact", transact)
    try:
        with elytron.open(folder, reserve_mb=0, auto_cleanup=False) as store:
            store.agent("bob").save("user", "Hello")
    finally:
        lock.close()
    assert free
    assert not any(free)


def test_what_an_extractor_said_that_a_message_names_is_kept(folder: Path) -> None:
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        converse(bob)
        learn(bob)
    sql = "SELECT * FROM mentions WHERE told = 2 ORDER BY source, concept"
    before = query(folder, sql)
    assert before
    salvaged(folder)
    assert query(folder, sql) == before


def test_names_that_were_heard_are_counted_on_also_where_their_messages_are_archived(
    folder: Path,
) -> None:
    with elytron.open(folder, reserve_mb=0, auto_cleanup=False) as store:
        bob = store.agent("bob")
        for text in ("My name is Zoé and I live in Lyon.", "Hey Mel!"):
            bob.save("user", text)
            bob.flush()
        bob.archive(older_than_days=0, keep=0)
    before = query(folder, "SELECT * FROM heard ORDER BY folded")
    assert {name for name, *_ in before} == {"zoe", "lyon", "mel"}
    salvaged(folder)
    assert query(folder, "SELECT * FROM heard ORDER BY folded") == before
