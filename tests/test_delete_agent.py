"""Deleting an agent: all of it goes, at any moment it is whole or gone, and its name is free."""

import asyncio
import contextlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import elytron
from backups import fill, make
from elytron import Corrupt, NotFound
from elytron.ledger import deleted, files, ops
from elytron.ledger.lock import FileLock
from elytron.upkeep.runs import Run
from graphs import eventually
from ledgers import ledger_path, marker_path
from quiet import alone
from second_process import Second
from test_cli import Outcome, run

QUIET = {"reserve_mb": 0, "auto_cleanup": False}
_WAIT_MAX_S = 60


def left(folder: Path) -> list[str]:
    """Folders that are still to be removed."""
    home = folder / deleted.FOLDER
    if not home.is_dir():
        return []
    return [path.name for path in home.iterdir() if path.is_dir() or path.is_symlink()]


def bytes_below(folder: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.contract
def test_all_of_an_agent_goes_and_its_name_begins_afresh(where, store):
    bob = store.agent("bob")
    fill(bob, 0, 12)
    bob.remember("Alice prefers Python", about=["Alice"])
    bob.archive(older_than_days=0, keep=8)
    store.agent("al").save("user", "hello")
    report = store.delete("bob")
    assert (report.agent, report.messages, report.archived) == ("bob", 8, 4)
    assert report.bytes > 1000
    assert store.agents() == ["al"]
    assert not bob.exists()
    assert list(bob.messages(archived=True)) == []
    with pytest.raises(NotFound, match="nothing was deleted"):
        store.delete("bob")
    assert bob.save("user", "new", id="m1").new
    assert [one.content for one in bob.messages(archived=True)] == ["new"]
    assert bob.memories() == []
    assert bob.check().ok
    assert store.delete("bob").messages == 1
    assert store.agents() == ["al"]


@pytest.mark.contract
def test_what_is_no_name_or_no_agent_deletes_nothing(where, store):
    store.agent("bob").save("user", "hello")
    for name in ("", " ", "x" * 1001, "a\nb", None, 7):
        with pytest.raises(elytron.InvalidArgument):
            store.delete(name)
    for name in ("Bob", "bob ", "../bob", "."):
        with pytest.raises(NotFound):
            store.delete(name)
    assert store.agents() == ["bob"]


def test_nothing_is_left_of_it_in_the_stores_folder(folder):
    make(folder)
    with elytron.open(folder, **QUIET) as store:
        store.agent("bob").save("user", "the word is xylophone")
        (files.agent_folder(folder, "bob") / "damaged-20260101T000000Z").mkdir()
        store.delete("bob")
    assert not bytes_below(folder, b"xylophone")
    assert not any("bob" in path.name for path in folder.rglob("*"))
    assert left(folder) == []


@pytest.mark.parametrize("killed", [False, True])
def test_an_agents_folder_that_is_a_link_goes_with_what_it_leads_to(folder, tmp_path, killed):
    """Also where a process died when that was gone, and the link was not yet."""
    make(folder, names=["bob"])
    home, elsewhere = files.agent_folder(folder, "bob"), tmp_path / "elsewhere"
    shutil.move(home, elsewhere)
    home.symlink_to(elsewhere)
    if killed:
        assert deleted.take_away(folder, "bob")
        shutil.rmtree(elsewhere)
        deleted.finish(folder)
    else:
        with elytron.open(folder, **QUIET) as store:
            store.delete("bob")
    assert not elsewhere.exists()
    assert left(folder) == []


@pytest.mark.parametrize("damage", ["ledger", "emptied", "marker", "archive"])
def test_a_damaged_agent_goes_too(folder, damage):
    make(folder, names=["bob"])
    home = files.agent_folder(folder, "bob")
    match damage:
        case "ledger":
            ledger_path(folder).write_bytes(b"no ledger" * 4096)
        case "emptied":
            ledger_path(folder).unlink()
        case "marker":
            marker_path(folder).write_text("{")
        case "archive":
            (home / "archive" / "manifest.json").write_text("{")
            for path in (home / "archive").glob("*.zst"):
                path.write_bytes(b"")
    with elytron.open(folder, **QUIET) as store:
        report = store.delete("bob")
        assert report.messages in (None, 20)
        assert (report.messages is None) == (damage in ("ledger", "emptied", "marker"))
        assert store.agents() == []
        store.agent("bob").save("user", "new")
        assert store.agent("bob").check().ok


def test_another_agents_memory_in_its_folder_is_left_alone(folder):
    make(folder, names=["bob"])
    shutil.copytree(files.agent_folder(folder, "bob"), files.agent_folder(folder, "eve"))
    with elytron.open(folder, **QUIET) as store:
        with pytest.raises(Corrupt, match="memory of 'bob'"):
            store.delete("eve")
        assert store.agents() == ["bob"]
    assert ledger_path(folder, "eve").exists()


def test_who_is_using_it_here_is_waited_for_and_then_refused(folder):
    with elytron.open(folder, save_timeout_s=0.2, **QUIET) as store:
        alone(store)  # nobody uses it but who is told to
        bob = store.agent("bob")
        bob.save("user", "hello")
        with store._agents.use("bob", create=False), pytest.raises(elytron.Busy, match="in use"):
            store.delete("bob")
        with store._upkeep.alone("bob"), pytest.raises(elytron.Busy):
            store.delete("bob")
        with _run(folder), pytest.raises(elytron.Busy, match="moves messages"):
            store.delete("bob")
        with contextlib.closing(FileLock(files.agent_folder(folder, "bob") / files.LOCK)) as lock:
            assert lock.try_acquire()
            with pytest.raises(elytron.Busy):
                store.delete("bob")
        assert [one.content for one in bob.history()] == ["hello"]
        store.delete("bob")


@contextlib.contextmanager
def _run(folder: Path) -> Iterator[None]:
    run = Run(files.agent_folder(folder, "bob"))
    run.begin()
    yield
    run.end()


def test_a_closed_store_deletes_nothing(folder):
    store = elytron.open(folder, **QUIET)
    store.agent("bob").save("user", "hello")
    store.close()
    with pytest.raises(elytron.Closed):
        store.delete("bob")


def test_each_receipt_is_true_while_others_delete(folder):
    """
    Each thread saves on, and another deletes: who got a receipt after the last deletion began finds
    the message, and nobody is refused.
    """
    with elytron.open(folder, max_messages_per_agent=1_000_000, **QUIET) as store:
        bob = store.agent("bob")
        saved: list[tuple[int, str]] = []  # after how many deletions it was begun, and which
        done, stop = 0, threading.Event()

        def save() -> None:
            while not stop.is_set():
                after = done
                saved.append((after, bob.save("user", "hello").id))

        def begun_since() -> bool:
            return done in [after for after, _ in saved]

        threads = [threading.Thread(target=save) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: saved, "a first receipt")
        for _ in range(5):
            before = len(saved)
            with contextlib.suppress(NotFound):
                store.delete("bob")
            done += 1
            eventually(begun_since, "a receipt of what was begun since")
        stop.set()
        for thread in threads:
            thread.join(_WAIT_MAX_S)
        held = {one.id for one in bob.messages()}
        assert held <= {key for _, key in saved[before:]}
        assert {key for after, key in saved if after == done} <= held
        assert bob.check().ok


def test_another_process_that_has_it_open_goes_on_with_what_there_is(folder):
    """It saves nothing into the file that nobody finds any more, and begins the agent anew."""
    with Second() as second:
        second.open(folder, QUIET)
        save = partial(second.ask, "bob", "save")
        assert save({"role": "user", "content": "x", "id": "a"}).new
        query = {"query": "MATCH (m:Message) RETURN m.id AS id ORDER BY id"}
        assert second.ask("bob", "cypher", query) == [{"id": "a"}]
        with elytron.open(folder, **QUIET) as store:
            bob = store.agent("bob")
            assert store.delete("bob").messages == 1
            assert second.ask("bob", "history", {}) == []
            assert not second.ask("bob", "exists", {})
            assert not bob.exists()
            assert save({"role": "user", "content": "x", "id": "b"}).new
            assert [one.id for one in bob.messages()] == ["b"]
            store.delete("bob")
            bob.save("user", "new", id="c")
            assert save({"role": "user", "content": "x", "id": "d"}).new
            assert [one.id for one in bob.messages()] == ["c", "d"]
            assert second.ask("bob", "cypher", query) == [{"id": "c"}, {"id": "d"}]
            assert bob.check().ok


def test_who_has_it_in_use_ends_that_before_what_there_is_is_opened(folder):
    with Second() as second, elytron.open(folder, save_timeout_s=0.3, **QUIET) as store:
        alone(store)  # nobody uses it but who is told to
        bob = store.agent("bob")
        bob.save("user", "hello")
        second.open(folder, QUIET)
        with store._agents.use("bob", create=False) as entry:
            assert entry is not None
            second.ask("bob", "delete_agent", {})
            with pytest.raises(elytron.Busy, match="deleted or replaced just now"):
                entry.writer.call(ops.Tidy(1))
            with pytest.raises(elytron.Busy, match="still in use here"):
                bob.save("user", "too early")
        assert bob.save("user", "new", id="new").new
        assert [one.id for one in bob.messages()] == ["new"]


def test_what_vanished_without_a_deletion_is_damage_and_is_not_begun_anew(folder):
    """As where a disk is not mounted any more. Deletions of before are none of this one."""
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        bob.save("user", "hello")
        store.delete("bob")
        bob.save("user", "hello")
        home = files.agent_folder(folder, "bob")
        home.rename(folder / "elsewhere")
        for _ in range(2):
            with pytest.raises(Corrupt, match="nothing says that 'bob' was deleted"):
                bob.save("user", "into nothing")
            with pytest.raises(Corrupt):
                bob.history()
        assert not home.exists()
        (folder / "elsewhere").rename(home)
        assert bob.save("user", "again").new
        assert len(bob.history()) == 2


SAVING = """
import sys, elytron
# As many as it may save while nobody reads what it prints.
place = {"reserve_mb": 0, "auto_cleanup": False, "max_messages_per_agent": 100_000}
with elytron.open(sys.argv[1], **place) as store:
    for number in range(100_000):
        try:
            print(store.agent("bob").save("user", "hello", id=str(number)).id, flush=True)
        except elytron.Busy as error:  # it had the file in hand at that moment
            assert error.retryable and "deleted" in str(error), error
            print("busy", flush=True)
"""


def test_the_receipts_of_a_process_that_saves_in_a_loop_are_true(
    folder: Path, start_script: Callable[..., "subprocess.Popen[str]"]
) -> None:
    """From the first message on that is there after a deletion; it goes on by itself."""
    process = start_script(SAVING, folder)
    assert process.stdout is not None
    stdout = process.stdout
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")

        def wait_for_one_that_is_there() -> None:
            told = "busy"
            while told == "busy" or bob.get(told) is None:
                told = stdout.readline().strip()
                assert told, "the process has ended"

        for _ in range(4):
            wait_for_one_that_is_there()
            assert (store.delete("bob").messages or 0) >= 1
        wait_for_one_that_is_there()
        lines = [stdout.readline().strip() for _ in range(100)]
        process.kill()
        lines += process.communicate(timeout=_WAIT_MAX_S)[0].split()
        receipts = [int(line) for line in lines if line != "busy"]
        held = [int(one.id) for one in bob.messages()]
        assert {one for one in receipts if one >= held[0]} <= {*held}
        assert receipts[-1] in held
        assert bob.check().ok


def test_a_writer_that_waited_for_the_lock_of_a_deleted_agent_begins_the_new_one(folder):
    """It has opened the lock's file; when it gets the lock, that is nobody's any more."""
    make(folder, names=["bob"])
    path = files.agent_folder(folder, "bob") / files.LOCK
    marker_path(folder).unlink()  # so that opening it takes the lock
    with contextlib.closing(FileLock(path)) as lock, elytron.open(folder, **QUIET) as store:
        assert lock.try_acquire()
        receipts: list[Any] = []
        thread = threading.Thread(
            target=lambda: receipts.append(store.agent("bob").save("user", "new", id="new"))
        )
        thread.start()
        wait_for_waiter(path)
        assert deleted.take_away(folder, "bob")
        lock.release()
        thread.join(_WAIT_MAX_S)
        assert receipts
        assert [one.id for one in store.agent("bob").messages()] == ["new"]


def wait_for_waiter(path: Path) -> None:
    """Until a second descriptor of this process has the file open."""
    wanted = str(path)
    for _ in range(60_000):
        links = list(Path("/proc/self/fd").iterdir())
        found = 0
        for one in links:
            with contextlib.suppress(OSError):
                found += str(one.readlink()) == wanted
        if found > 1:
            return
        threading.Event().wait(0.001)
    raise AssertionError("nobody waits")


# -- what else knows of it


def test_the_next_backup_has_it_no_more_and_knows_it_from_one_that_was_lost(folder, tmp_path):
    make(folder)
    to = tmp_path / "backup"
    with elytron.open(folder, **QUIET) as store:
        assert store.backup(to).ok
        store.delete("bob")
        shutil.rmtree(files.agent_folder(folder, "al"))
        report = store.backup(to)
        assert report.removed == ("bob",)
        assert [one.agent for one in report.failed] == ["al"]
        assert not bytes_below(to, b"bob")
    assert elytron.restore_backup(to, folder).ok
    with elytron.open(folder, **QUIET) as store:
        assert store.agents() == ["al"]
        assert store.backup(to).ok


def test_an_agent_made_anew_is_backed_up_as_a_new_one(folder, tmp_path):
    make(folder, names=["bob"])
    to = tmp_path / "backup"
    with elytron.open(folder, **QUIET) as store:
        assert store.backup(to).ok
        store.delete("bob")
        store.agent("bob").save("user", "new", id="new")
        report = store.backup(to)
        assert report.ok, report.failed
        assert not bytes_below(to, b"zebra")
        assert store.backup(to).ok
        shutil.rmtree(files.agent_folder(folder, "bob"))
    with elytron.open(folder, **QUIET) as store:  # the new one was not deleted
        assert [one.agent for one in store.backup(to).failed] == ["bob"]
    assert elytron.restore_backup(to, folder).ok
    with elytron.open(folder, **QUIET) as store:
        assert [one.id for one in store.agent("bob").messages()] == ["new"]


def test_a_backup_brings_a_deleted_agent_back_and_keeps_it(folder, tmp_path):
    make(folder, names=["bob"])
    to = tmp_path / "backup"
    with elytron.open(folder, **QUIET) as store:
        store.backup(to)
        store.delete("bob")
    assert elytron.restore_backup(to, folder).ok
    assert deleted.Fates(folder).of(deleted.key_of("bob")) is None
    shutil.rmtree(files.agent_folder(folder, "bob"))
    with elytron.open(folder, **QUIET) as store:
        assert [one.agent for one in store.backup(to).failed] == ["bob"]


def test_notes_of_deletions_are_few_and_name_nobody(folder, monkeypatch):
    monkeypatch.setattr(deleted, "KEPT_MAX", 3)
    with elytron.open(folder, **QUIET) as store:
        for name in ("Ann", "Ben", "Cleo", "Dan", "Ann"):
            store.agent(name).save("user", "hello")
            store.delete(name)
    notes = list((folder / deleted.FOLDER).iterdir())
    assert len(notes) == 3
    fates = deleted.Fates(folder)
    known = [name for name in ("Ann", "Ben", "Cleo", "Dan") if fates.of(deleted.key_of(name))]
    assert known == ["Ann", "Cleo", "Dan"]
    assert all(path.stat().st_size == 0 for path in notes)


def test_its_bytes_of_the_stores_budget_are_free(folder):
    with elytron.open(folder, max_total_mb=20, max_db_size_mb=10, **QUIET) as store:
        store.agent("bob").save("user", "hello")
        store.agent("al").save("user", "hello")
        budget = store._upkeep.sharing._budget
        assert set(budget.uses()) == {files.folder_name(name) for name in ("bob", "al")}
        store.delete("bob")
        assert set(budget.uses()) == {files.folder_name("al")}
        assert len(store._upkeep.sharing._budget._reserves) == 1


def test_its_graph_is_not_the_next_ones(folder):
    with elytron.open(folder, **QUIET) as store:
        bob = store.agent("bob")
        fill(bob, 0, 3)
        query = "MATCH (m:Message) RETURN m.id AS id ORDER BY id"
        assert len(bob.cypher(query)) == 3
        store.delete("bob")
        assert "bob" not in store._upkeep.graphs.asked_lately()
        bob.save("user", "new", id="new")
        assert bob.cypher(query) == [{"id": "new"}]


def test_asyncio_has_it_too(folder):
    async def use() -> None:
        async with elytron.aio.open(folder, **QUIET) as store:
            await store.agent("bob").save("user", "hello")
            assert (await store.delete("bob")).messages == 1
            assert await store.agents() == []

    asyncio.run(use())


@pytest.fixture
def elytron_command(folder: Path) -> Callable[..., Outcome]:
    return lambda *words: run(*words, store=folder)


def test_the_command_line_asks_first_and_says_what_went(folder, elytron_command):
    make(folder, names=["bob"])
    refused = elytron_command("delete", "bob", "--all")
    assert refused.code == 2
    assert "add --yes" in refused.err
    for more in (["m1"], ["--session", "s1"]):
        assert elytron_command("delete", "bob", "--all", "--yes", *more).code == 2
    assert elytron_command("delete", "bib", "--all", "--yes").code == 3
    done = elytron_command("delete", "bob", "--all", "--yes")
    assert (done.code, done.err) == (0, "")
    assert "20 messages and 10 archived" in done.out
    assert elytron_command("delete", "bob", "--all", "--yes").code == 3


def test_the_command_line_deletes_a_damaged_agent(folder, elytron_command):
    make(folder, names=["bob"])
    ledger_path(folder).unlink()
    done = elytron_command("delete", "bob", "--all", "--yes", "--json")
    assert done.code == 0, done.err
    assert done.document["messages"] is None
