"""Renaming an agent: it keeps all that it has, and nothing is lost between its names."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import elytron
from backups import fill, look, looks, make
from elytron import Conflict, Corrupt, ElytronError, NotFound
from elytron.faces.http import tokens
from elytron.ledger import deleted, files
from elytron.ledger.lock import FileLock
from elytron.upkeep.runs import Run
from ledgers import ledger_path, marker_path
from quiet import alone
from second_process import Second
from serving import bearer, served
from test_cli import Outcome, run

QUIET = {"reserve_mb": 0, "auto_cleanup": False}
_WAIT_MAX_S = 60


@pytest.mark.contract
def test_all_of_an_agent_is_under_its_new_name(where, store):
    bob = store.agent("bob")
    fill(bob, 0, 12)
    bob.pin("m11")
    bob.remember("Alice prefers Python", about=["Alice"])
    bob.relate("Alice", "lives in", "Lyon")
    bob.archive(older_than_days=0, keep=8)
    bob.flush()
    store.agent("al").save("user", "hello")
    before = look(bob)
    store.rename("bob", "Robert Ω")
    robert = store.agent("Robert Ω")
    assert store.agents() == ["Robert Ω", "al"]
    assert look(robert) == before
    assert robert.usage().archived == 4
    assert robert.recall("zebra 9")[0].message.id == "m9"
    assert robert.check().ok
    assert not bob.exists()
    assert list(bob.messages(archived=True)) == []
    with pytest.raises(NotFound, match="nothing was renamed"):
        store.rename("bob", "Bobby")
    assert robert.save("user", "more", id="more", session="s0").new
    assert bob.save("user", "new", id="m1").new
    assert [one.content for one in bob.messages(archived=True)] == ["new"]
    with pytest.raises(Conflict, match="nothing was changed"):
        store.rename("Robert Ω", "bob")
    store.delete("bob")
    store.rename("Robert Ω", "bob")
    assert store.agents() == ["al", "bob"]
    assert bob.usage().messages == 9


@pytest.mark.contract
def test_what_is_no_name_or_no_agent_renames_nothing(where, store):
    store.agent("bob").save("user", "hello")
    store.agent("al").save("user", "hello")
    for name in ("", " ", "x" * 1001, "a\nb", None, 7):
        with pytest.raises(elytron.InvalidArgument):
            store.rename("bob", name)
        with pytest.raises(elytron.InvalidArgument):
            store.rename(name, "bob")
    with pytest.raises(elytron.InvalidArgument, match="already"):
        store.rename("bob", "bob")
    for name in ("Bob", "bob ", "../bob", "."):
        with pytest.raises(NotFound):
            store.rename(name, "rob")
    with pytest.raises(Conflict):
        store.rename("bob", "al")
    assert store.agents() == ["al", "bob"]
    store.rename("bob", "../bob")
    store.rename("../bob", "Bob")
    assert store.agents() == ["Bob", "al"]


@pytest.mark.parametrize("there", ["damaged", "marker alone", "empty folder", "link"])
def test_a_name_with_anything_left_under_it_is_taken(folder, there, tmp_path):
    make(folder)
    home = files.agent_folder(folder, "al")
    match there:
        case "damaged":
            ledger_path(folder, "al").write_bytes(b"no ledger" * 4096)
        case "marker alone":
            ledger_path(folder, "al").unlink()
        case _:
            shutil.rmtree(home)
            home.mkdir() if there == "empty folder" else home.symlink_to(tmp_path / "nowhere")
    with elytron.open(folder, **QUIET) as store:
        with pytest.raises(Conflict, match="nothing was changed"):
            store.rename("bob", "al")
        assert os.path.lexists(home)
        assert store.agent("bob").usage().messages == 20
        assert not (files.agent_folder(folder, "bob") / files.RENAMING).exists()


@pytest.mark.parametrize("damage", ["ledger", "emptied", "marker", "another's"])
def test_a_damaged_agent_keeps_its_name_unless_only_its_marker_is_damaged(folder, damage):
    make(folder, names=["bob"])
    match damage:
        case "ledger":
            ledger_path(folder).write_bytes(b"no ledger" * 4096)
        case "emptied":
            ledger_path(folder).unlink()
        case "marker":
            marker_path(folder).unlink()
        case "another's":
            files.agent_folder(folder, "bob").rename(files.agent_folder(folder, "eve"))
    old = "eve" if damage == "another's" else "bob"
    with elytron.open(folder, **QUIET) as store:
        if damage == "marker":
            store.rename("bob", "Robert")
            assert store.agents() == ["Robert"]
            assert store.agent("Robert").check().ok
            return
        with pytest.raises(Corrupt):
            store.rename(old, "Robert")
        assert files.agent_folder(folder, old).exists()
        assert not files.agent_folder(folder, "Robert").exists()


def test_an_agents_folder_that_is_a_link_is_renamed_as_one(folder, tmp_path):
    make(folder, names=["bob"])
    home, elsewhere = files.agent_folder(folder, "bob"), tmp_path / "elsewhere"
    shutil.move(home, elsewhere)
    home.symlink_to(elsewhere)
    with elytron.open(folder, **QUIET) as store:
        store.rename("bob", "Robert")
        assert store.agent("Robert").check().ok
    assert files.agent_folder(folder, "Robert").readlink() == elsewhere


def test_who_is_using_it_is_waited_for_and_then_refused(folder):
    with elytron.open(folder, save_timeout_s=0.2, **QUIET) as store:
        alone(store)  # nobody uses it but who is told to
        bob = store.agent("bob")
        bob.save("user", "hello")
        home = files.agent_folder(folder, "bob")
        with store._agents.use("bob", create=False), pytest.raises(elytron.Busy, match="in use"):
            store.rename("bob", "Robert")
        for name in ("bob", "Robert"):
            with store._upkeep.alone(name), pytest.raises(elytron.Busy):
                store.rename("bob", "Robert")
        moving = Run(home)
        moving.begin()
        with pytest.raises(elytron.Busy, match="moves messages"):
            store.rename("bob", "Robert")
        moving.end()
        for lock_name in (files.LOCK, "restore.lock"):
            with contextlib.closing(FileLock(home / lock_name)) as lock:
                assert lock.try_acquire()
                with pytest.raises(elytron.Busy):
                    store.rename("bob", "Robert")
        assert [one.content for one in bob.history()] == ["hello"]
        assert not files.agent_folder(folder, "Robert").exists()
        store.rename("bob", "Robert")
    with pytest.raises(elytron.Closed):
        store.rename("Robert", "bob")


def test_two_that_rename_to_each_others_names_end_both(folder):
    """Each keeps both names from others, in the same order whichever is the old one."""
    with elytron.open(folder, **QUIET) as store:
        store.agent("bob").save("user", "hello")
        met: list[ElytronError] = []

        def rename(old: str, new: str) -> None:
            for _ in range(10):
                try:
                    store.rename(old, new)
                except (NotFound, Conflict) as error:
                    met.append(error)

        threads = [
            threading.Thread(target=rename, args=names) for names in (("bob", "al"), ("al", "bob"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_WAIT_MAX_S)
        (name,) = store.agents()
        assert store.agent(name).usage().messages == 1
        assert store.agent(name).check().ok


def test_each_receipt_is_true_while_others_rename(folder):
    """What was saved to the old name is in what was renamed, or in what began afresh under it."""
    with elytron.open(folder, **QUIET) as store:
        saved: list[str] = []
        stop, begun = threading.Event(), threading.Event()

        def save() -> None:
            while not stop.is_set():
                saved.append(store.agent("bob").save("user", "hello").id)
                begun.set()

        threads = [threading.Thread(target=save) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(4):
            begun.clear()
            assert begun.wait(_WAIT_MAX_S)
            with contextlib.suppress(NotFound):
                store.rename("bob", f"bob {number}")
        stop.set()
        for thread in threads:
            thread.join(_WAIT_MAX_S)
        held = [one.id for name in store.agents() for one in store.agent(name).messages()]
        assert sorted(held) == sorted(saved)


SAVING = """
import sys, elytron
with elytron.open(sys.argv[1], reserve_mb=0, auto_cleanup=False) as store:
    for number in range(100_000):
        try:
            receipt = store.agent("bob").save("user", "hello", id=f"{sys.argv[2]}-{number}")
        except elytron.NotFound as error:
            assert "renamed" in str(error), error
            print("refused", flush=True)
            break
        print(receipt.id, flush=True)
"""


def test_nothing_is_lost_that_a_process_saves_in_a_loop_while_it_is_renamed(
    folder: Path, start_script: Callable[..., "subprocess.Popen[str]"]
) -> None:
    """It hears of it, and each of its receipts is true."""
    for number in range(2):
        process = start_script(SAVING, folder, number)
        assert process.stdout is not None
        early = [process.stdout.readline().strip() for _ in range(20)]
        with elytron.open(folder, **QUIET) as store:
            store.rename("bob", f"Robert {number}")
            *late, last = process.stdout.read().split()
            assert last == "refused"
            assert process.wait(_WAIT_MAX_S) == 0
            robert = store.agent(f"Robert {number}")
            assert [one.id for one in robert.messages()] == [*early, *late]
            assert robert.check().ok
            assert not store.agent("bob").exists()


def test_a_process_that_has_it_open_is_refused_until_it_opens_the_store_anew(folder):
    with Second() as second:
        second.open(folder, QUIET)
        assert second.ask("bob", "save", {"role": "user", "content": "x", "id": "a"}).new
        with elytron.open(folder, **QUIET) as store:
            store.rename("bob", "Robert")
            for verb, said in (("save", {"role": "user", "content": "x"}), ("history", {})):
                with pytest.raises(NotFound, match="renamed"):
                    second.ask("bob", verb, said)
            assert second.ask("Robert", "save", {"role": "user", "content": "x", "id": "c"}).new
            assert [one.id for one in store.agent("Robert").messages()] == ["a", "c"]
            assert store.agents() == ["Robert"]
            store.rename("Robert", "bob")
            assert second.ask("bob", "save", {"role": "user", "content": "x", "id": "d"}).new
            assert [one.id for one in store.agent("bob").messages()] == ["a", "c", "d"]
            store.rename("bob", "Robert")
            second.close_store()
            second.open(folder, QUIET)
            assert second.ask("bob", "save", {"role": "user", "content": "x", "id": "e"}).new
            assert [one.id for one in store.agent("bob").messages()] == ["e"]
            assert [one.id for one in store.agent("Robert").messages()] == ["a", "c", "d"]


@pytest.mark.parametrize("then", ["deleted", "renamed"])
def test_who_had_it_open_is_refused_though_its_old_name_was_used_and_given_up(folder, then):
    """Else a retry would begin a memory of its own."""
    with elytron.open(folder, **QUIET) as one, elytron.open(folder, **QUIET) as two:
        assert two.agent("bob").save("user", "hello", id="a").new
        one.rename("bob", "Robert")
        assert one.agent("bob").save("user", "another", id="b").new
        if then == "deleted":
            one.delete("bob")
        else:
            one.rename("bob", "Bobby")
        for _ in range(2):
            with pytest.raises(NotFound, match="renamed while it was open"):
                two.agent("bob").save("user", "lost?", id="c")
        assert "bob" not in one.agents()
        assert [message.id for message in one.agent("Robert").messages()] == ["a"]


# -- what else knows of it


def test_the_next_backup_has_it_under_its_new_name_alone(folder, tmp_path):
    make(folder)
    to = tmp_path / "backup"
    with elytron.open(folder, **QUIET) as store:
        assert store.backup(to).ok
        store.rename("bob", "Robert")
        report = store.backup(to)
        assert report.ok, report.failed
        assert ([one.agent for one in report.agents], report.removed) == (
            ["Robert", "al"],
            ("bob",),
        )
        assert store.backup(to).ok
    whole = looks(folder)
    assert elytron.restore_backup(to, tmp_path / "other").ok
    assert looks(tmp_path / "other") == whole
    assert set(whole) == {"Robert", "al"}


def test_a_backup_keeps_the_old_name_until_it_has_the_new_one(folder, tmp_path):
    make(folder)
    to = tmp_path / "backup"
    with elytron.open(folder, **QUIET) as store:
        assert store.backup(to).ok
        store.rename("bob", "Robert")
        store.agent("bob").save("user", "fresh")
        shutil.move(files.agent_folder(folder, "Robert"), tmp_path / "lost")
        for agents in (None, ["bob"]):
            (failed,) = store.backup(to, agents=agents).failed
            assert failed.agent == "bob"
            assert "its last backup stays" in str(failed.cause)
        shutil.move(tmp_path / "lost", files.agent_folder(folder, "Robert"))
        report = store.backup(to)
        assert report.ok, report.failed
        assert {one.agent: one.messages for one in report.agents} == {
            "Robert": 20, "al": 20, "bob": 1
        }  # fmt: skip
        assert store.backup(to, agents=["bob"]).ok


def test_agents_that_swap_their_names_or_get_them_back_are_backed_up(folder, tmp_path):
    make(folder)
    to = tmp_path / "backup"
    with elytron.open(folder, **QUIET) as store:
        store.agent("al").save("user", "hello", id="of al")
        assert store.backup(to).ok
        for old, new in (("bob", "x"), ("al", "bob"), ("x", "al")):
            store.rename(old, new)
        report = store.backup(to)
        assert report.ok, report.failed
        assert {one.agent: one.messages for one in report.agents} == {"bob": 21, "al": 20}
        store.rename("bob", "y")
        store.rename("y", "bob")
        fates, key = deleted.Fates(folder), deleted.key_of("bob")
        assert fates.of(key, fates.last_us(key)) is None
        shutil.rmtree(files.agent_folder(folder, "bob"))
        report = store.backup(to)
        assert [one.agent for one in report.failed] == ["bob"], "it was lost, and not renamed"
        store.delete("al")
        assert store.backup(to).removed == ("al",)


def test_its_bytes_of_the_stores_budget_follow(folder):
    with elytron.open(folder, max_total_mb=20, max_db_size_mb=10, **QUIET) as store:
        fill(store.agent("bob"), 0, 3)
        store.rename("bob", "Robert")
        budget = store._upkeep.sharing._budget
        assert set(budget.uses()) == {files.folder_name("Robert")}
        assert not budget._reserves
        fill(store.agent("Robert"), 3, 6)
        assert store.agent("Robert").check().ok
        assert len(budget._reserves) == 1


def test_its_graph_is_built_anew_and_uses_are_kept(folder):
    with elytron.open(folder, graph_timeout_s=_WAIT_MAX_S, **QUIET) as store:
        bob = store.agent("bob")
        fill(bob, 0, 3)
        bob.remember("Alice prefers Python", about=["Alice"])
        assert bob.recall("Python")
        query = "MATCH (m:Message) RETURN m.id AS id ORDER BY id"
        assert len(bob.cypher(query)) == 3
        store.rename("bob", "Robert")
        robert = store.agent("Robert")
        assert store._upkeep.graphs.asked_lately() == []
        assert [one["id"] for one in robert.cypher(query)] == ["m0", "m1", "m2"]
        assert robert.memories()[0].uses == 1
    with elytron.open(folder, **QUIET) as store:  # which only reads
        assert store.agent("Robert").recall("Python")
        store.rename("Robert", "bob")
        assert store.agent("bob").memories()[0].uses == 2


def test_asyncio_has_it_too(folder):
    async def use() -> None:
        async with elytron.aio.open(folder, **QUIET) as store:
            await store.agent("bob").save("user", "hello")
            await store.rename("bob", "Robert")
            assert await store.agents() == ["Robert"]

    asyncio.run(use())


@pytest.fixture
def elytron_command(folder: Path) -> Callable[..., Outcome]:
    return lambda *words: run(*words, store=folder)


def test_the_command_line_renames(folder, elytron_command):
    make(folder)
    done = elytron_command("rename", "bob", "Robert")
    assert (done.code, done.err) == (0, "")
    assert "Robert" in done.out
    assert elytron_command("rename", "bob", "Robert").code == 3
    assert elytron_command("rename", "Robert", "al").code == 4
    assert elytron_command("rename", "Robert", "Robert").code == 2
    done = elytron_command("rename", "Robert", "bob", "--json")
    assert done.document == {"agent": "bob", "renamed": "Robert"}


def test_over_http_a_token_has_to_be_for_both_names(tmp_path):
    file = tmp_path / "tokens.json"
    secrets = {
        who: tokens.add(file, who, agents=agents)
        for who, agents in (("all", None), ("old", ["bob"]), ("both", ["bob", "Robert"]))
    }
    with served(tmp_path / "store", tokens=file, token=secrets["all"]) as server:

        def status(who: str, old: str, body: object) -> int:
            return server.request(
                "POST",
                "/v1/store/rename",
                body,
                fields={"agent": old},
                headers=bearer(secrets[who]),
            ).status

        server.call("save", "bob", role="user", content="hello")
        assert status("old", "bob", {"new": "Robert"}) == 403
        for body in ({}, {"new": 7}, {"new": ""}, {"new": "Robert", "old": "bob"}, {"new": "bob"}):
            assert status("both", "bob", body) == 400
        assert status("both", "bob", {"new": "Robert"}) == 200
        assert status("both", "bob", {"new": "Robert"}) == 404
