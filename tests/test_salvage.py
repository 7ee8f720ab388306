"""
A damaged ledger is made anew of what is whole, what is lost is named, and nothing is thrown away.
"""

import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import elytron
from elytron import Corrupt
from elytron.config import Config
from elytron.faces.cli import main
from elytron.ledger import files, swapping
from elytron.reports import Salvaged
from elytron.text import Analyzer
from elytron.upkeep.salvaging import salvage
from ledgers import check_index, ledger_path, marker_path, query, wal_path
from limits import everything

SMALL: dict[str, Any] = {"reserve_mb": 0, "keep_messages": 0, "auto_cleanup": False}
PAGE = 4096


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Messages on many pages, one of them on overflow pages; memories, relations, an archive."""
    folder = tmp_path_factory.mktemp("template") / "store"
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        bob.save_many(
            {"role": "user", "content": f"Message {n} says word{n}" + " and more" * (n % 40),
             "id": f"m{n}", "session": f"s{n % 3}", "user": ("alice", None, "Carl")[n % 3],
             "pinned": n == 199, "importance": 1.0 if n == 198 else None, "metadata": {"n": n}}
            for n in range(200)
        )  # fmt: skip
        bob.save("user", "A long one: " + "é" * 9000, id="long", session="s0")
        bob.edit("m120", "Edited")
        bob.delete("m150")
        bob.remember("Alice prefers Python", about=["Alice", "Python"], importance=1.0)
        bob.relate("Alice", "lives in", "Lyon")
        assert bob.archive(older_than_days=0, keep=160).archived == 40
    return folder


@pytest.fixture
def store(template: Path, folder: Path) -> Path:
    shutil.copytree(template, folder)
    return folder


def checked(folder: Path, *, repair: bool = False) -> elytron.Checked:
    with elytron.open(folder, **SMALL) as opened:
        return opened.agent("bob").check(repair=repair)


def all_of(folder: Path) -> dict[str, Any]:
    """All that is shown, by what it is."""
    with elytron.open(folder, **SMALL) as opened:
        bob = opened.agent("bob")
        found: dict[str, Any] = dict(everything(bob))
        found["memories"] = [(m.content, m.about, m.importance) for m in bob.memories()]
    found["facts"] = query(
        folder,
        "SELECT s.name, relation, t.name FROM relations r JOIN concepts s ON s.key = r.source"
        " JOIN concepts t ON t.key = r.target",
    )
    return found


def salvaged(folder: Path, **more: Any) -> Salvaged:
    config = Config(**SMALL)
    return salvage(folder, "bob", config, analyzer=Analyzer(config.languages), **more)


def blank(folder: Path, pages: list[int]) -> None:
    """Overwrite pages, numbered from 1, with nothing."""
    with ledger_path(folder).open("r+b") as file:
        for number in pages:
            file.seek((number - 1) * PAGE)
            file.write(bytes(PAGE))


def page_count(folder: Path) -> int:
    return ledger_path(folder).stat().st_size // PAGE


def pages_of(folder: Path, table: str) -> list[int]:
    sql = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf'"
    return [number for (number,) in query(folder, sql, (table,))]


def test_a_whole_ledger_is_made_anew_as_it_was(store: Path) -> None:
    before = all_of(store)
    report = salvaged(store)
    assert (report.lost, report.damaged_pages, report.nameless) == (0, 0, 0)
    assert report.kept["messages"] == 160
    assert all_of(store) == before
    assert checked(store, repair=True).ok
    check_index(store)
    assert (Path(report.aside) / "ledger.db").exists()


@pytest.mark.parametrize("seed", range(5))
def test_whatever_pages_are_gone_the_rest_is_back_and_what_is_lost_is_named(
    store: Path, seed: int
) -> None:
    before = all_of(store)
    dice = random.Random(seed)
    blank(store, [1] if seed == 0 else dice.sample(range(2, page_count(store) + 1), 2))
    assert not checked(store).ok
    report = checked(store, repair=True)
    after = all_of(store)
    assert after.items() <= before.items() or not report.ok, "what is not as it was is told"
    lost = before.keys() - after.keys()
    told = " ".join(found.what for found in report.findings if not found.repaired)
    assert bool(lost) <= bool(told)
    assert f"{len(lost)} messages are lost" in told or not lost
    for name, message in after.items():
        if name in before and isinstance(message, elytron.Message):
            assert message.content == before[name].content
            assert (message.session, message.user) == (before[name].session, before[name].user)
    assert len(after) > 100
    assert checked(store).findings == ()
    check_index(store)
    with elytron.open(store, **SMALL) as opened:  # and it goes on
        bob = opened.agent("bob")
        bob.save("user", "New and kangaroo", session="s0")
        assert bob.recall("kangaroo")[0].message.content == "New and kangaroo"
        assert bob.history("s0", limit=1)[0].content == "New and kangaroo"


def test_a_ledger_whose_header_is_destroyed_loses_nothing(store: Path) -> None:
    before = all_of(store)
    blank(store, [1])
    assert checked(store, repair=True).ok
    assert all_of(store) == before


def test_a_file_that_was_cut_off_says_so_even_where_no_index_tells_what_is_lost(
    store: Path,
) -> None:
    before = all_of(store)
    data = ledger_path(store).read_bytes()
    ledger_path(store).write_bytes(data[: len(data) // 8])
    report = checked(store, repair=True)
    assert not report.ok
    assert any("pages were damaged" in found.what for found in report.findings)
    assert all_of(store).keys() < before.keys()


def test_sessions_and_users_are_known_by_their_index(store: Path) -> None:
    before = all_of(store)
    blank(store, [*pages_of(store, "sessions"), *pages_of(store, "users")])
    assert checked(store, repair=True).ok
    assert all_of(store) == before


def test_names_that_are_nowhere_any_more_are_told(store: Path) -> None:
    pages = [*pages_of(store, "users"), *pages_of(store, "sqlite_autoindex_users_1")]
    blank(store, [*pages, *pages_of(store, "users_folded")])
    told = [found.what for found in checked(store, repair=True).findings if not found.repaired]
    assert len(told) == 1
    assert "the names of 2 sessions and users are lost" in told[0]
    users = {m.user for m in all_of(store).values() if isinstance(m, elytron.Message)}
    assert {user for user in users if user and user.startswith("lost-user-")}


@pytest.mark.parametrize("how", ["deleted", "emptied", "garbage", "cut"])
def test_a_lost_ledger_begins_empty_only_when_asked_and_says_so(store: Path, how: str) -> None:
    path = ledger_path(store)
    if how == "deleted":
        path.unlink()
    else:
        data = {"emptied": b"", "garbage": b"What?" * 5000, "cut": path.read_bytes()[:PAGE]}[how]
        path.write_bytes(data)
    with elytron.open(store, **SMALL) as opened, pytest.raises(Corrupt):
        opened.agent("bob").save("user", "New")
    report = checked(store)
    assert not report.ok
    assert report.findings[0].repairable
    report = checked(store, repair=True)
    assert not report.ok
    assert "it begins empty, with its archive as it was" in report.findings[1].what
    found = all_of(store)
    assert len(found) == 40 + 2, "the archive is as it was"
    assert checked(store).findings == ()


def test_the_ledger_of_another_agent_is_not_taken_over(store: Path) -> None:
    with elytron.open(store, **SMALL) as opened:
        opened.agent("eve").save("user", "I am Eve's")
    shutil.copy(ledger_path(store, "eve"), ledger_path(store))
    before = ledger_path(store).read_bytes()
    report = checked(store, repair=True)
    assert not report.ok
    assert "'eve', not of 'bob'" in report.findings[0].what
    assert "repairing it failed" in report.findings[0].what
    assert ledger_path(store).read_bytes() == before
    assert not list(ledger_path(store).parent.glob("damaged-*"))


def test_a_backup_completes_what_is_damaged_and_brings_nothing_deleted_back(store: Path) -> None:
    backup = store.with_name("backup.db")
    shutil.copy(ledger_path(store), backup)
    with elytron.open(store, **SMALL) as opened:
        bob = opened.agent("bob")
        bob.save_many(
            {"role": "user", "content": f"Later {n}", "id": f"n{n}", "session": "s1"}
            for n in range(30)
        )
        bob.delete("m190")
        bob.edit("m195", "Edited later")
        bob.archive(older_than_days=0, keep=170)
    before = all_of(store)
    blank(store, pages_of(store, "messages")[:6] + pages_of(store, "memories"))
    report = salvaged(store, backup=backup)
    assert report.from_backup > 0
    after = all_of(store)
    assert "m190" not in after
    assert after["memories"] == before["memories"]
    assert {key: before[key] for key in before if key.startswith("m")}.keys() <= after.keys()
    assert after.items() <= before.items()
    assert report.lost == len(before.keys() - after.keys())


def test_the_backup_of_another_agent_is_refused(store: Path) -> None:
    with elytron.open(store, **SMALL) as opened:
        opened.agent("eve").save("user", "I am Eve's")
    before = ledger_path(store).read_bytes()
    with pytest.raises(Corrupt, match="no backup of 'bob'"):
        salvaged(store, backup=ledger_path(store, "eve"))
    assert ledger_path(store).read_bytes() == before


@pytest.mark.parametrize("how", ["row", "pages"])
def test_what_the_archive_has_too_comes_back_from_it(store: Path, how: str) -> None:
    """The archive of a copy, into which all of them went."""
    copy = store.with_name("copy")
    shutil.copytree(store, copy)
    before = all_of(store)
    with elytron.open(copy, **SMALL) as opened:
        opened.agent("bob").archive(older_than_days=0, keep=100)
    for folder in (store, copy):
        archive = files.agent_folder(folder, "bob") / "archive"
        if folder == store:
            shutil.rmtree(archive)
        else:
            shutil.copytree(archive, files.agent_folder(store, "bob") / "archive")
    if how == "row":
        query(store, "UPDATE messages SET content = 'Massage' WHERE id = 'm60'")
    else:
        blank(store, pages_of(store, "messages")[:2])
    report = checked(store, repair=True)
    assert report.ok, report.findings
    after = all_of(store)
    assert after.keys() == before.keys()
    assert after["m60"].content == before["m60"].content


GO_ON = """
import sys, elytron
with elytron.open(sys.argv[1], reserve_mb=0, auto_cleanup=False) as store:
    bob = store.agent("bob")
    for number in range(1000):
        sys.stdin.readline()
        try:
            bob.save("user", f"Number {number}", id=f"id-{number}")
            print("saved", flush=True)
        except elytron.ElytronError as error:
            print(error, flush=True)
            break
print("closed", flush=True)
"""


def test_another_process_that_has_it_open_goes_on_with_the_new_one_and_loses_nothing(
    store: Path, start_script: Any
) -> None:

    process = start_script(GO_ON, store)

    def ask() -> str:
        process.stdin.write("\n")
        process.stdin.flush()
        return str(process.stdout.readline().strip())

    assert [ask() for _ in range(5)] == ["saved"] * 5
    report = salvaged(store)
    assert report.lost == 0
    assert [ask() for _ in range(5)] == ["saved"] * 5
    process.kill()
    process.communicate(timeout=60)
    assert {f"id-{n}" for n in range(10)} <= all_of(store).keys()
    assert checked(store, repair=True).ok
    assert checked(store).findings == ()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(1, 7))
def test_killed_at_any_step_there_is_the_old_ledger_or_the_new_one(
    store: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls by which files change their places, one by one."""
    before = all_of(store)
    wal_path(store).write_bytes(b"not a log")
    calls = 0

    def counted(plain: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                raise Killed
            return plain(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        patch.setattr(swapping.os, "link", counted(swapping.os.link))
        with pytest.raises(Killed):
            salvaged(store)
    assert ledger_path(store).exists(), "at no moment there is none"
    assert all_of(store) == before
    assert not swapping.pending(ledger_path(store).parent)
    assert checked(store, repair=True).ok
    assert marker_path(store).exists()


def test_the_command_names_what_cannot_be_opened_and_repairs_it(store: Path) -> None:
    with elytron.open(store, **SMALL) as opened:
        opened.agent("eve").save("user", "I am Eve's")
    blank(store, [1])
    marker_path(store).write_text("{")
    (store / "agents" / "stray.txt").write_text("?")
    (store / "agents" / "nobody-0123456789" / "archive").mkdir(parents=True)
    run = CliRunner().invoke
    result = run(main, ["check", "--store", str(store)])
    assert result.exit_code == 8
    for name in ("bob", "eve", "stray.txt", "nobody-0123456789"):
        assert name in result.output
    shutil.rmtree(store / "agents" / "nobody-0123456789")
    (store / "agents" / "stray.txt").unlink()
    assert run(main, ["check", "--repair", "--store", str(store)]).exit_code == 0
    assert run(main, ["check", "--store", str(store)]).exit_code == 0
    assert len(all_of(store)) == 202


def test_an_agent_that_is_in_use_is_repaired_and_goes_on(store: Path) -> None:
    """The verbs of this process wait for the repair, and then meet the new ledger."""
    with elytron.open(store, **SMALL) as opened:
        bob = opened.agent("bob")
        bob.save("user", "Before", id="before")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("elytron.upkeep.mending.is_needed", lambda _: True)
            assert bob.check(repair=True).ok
        bob.save("user", "After", id="after")
        assert bob.get("before") is not None
        assert bob.check(repair=True).ok


def test_a_ledger_made_anew_keeps_its_part_of_the_store(store: Path) -> None:
    shared = SMALL | {"max_total_mb": 200}
    with elytron.open(store, **shared) as opened:
        opened.agent("bob").save("user", "New", id="new", session="s0")
    before = all_of(store)
    salvaged(store)
    with elytron.open(store, **shared) as opened:
        bob = opened.agent("bob")
        assert bob.restore([f"m{n}" for n in range(40)]).restored == 40
        bob.save("user", "And on", id="on", session="s0")
    assert all_of(store).keys() == before.keys() | {"on"}


def test_what_was_set_aside_is_named_by_what_is_forgotten(store: Path) -> None:
    salvaged(store)
    with elytron.open(store, **SMALL) as opened:
        receipt = opened.agent("bob").forget(user="alice")
    assert any("damaged-" in where for where in receipt.remaining)


@pytest.mark.parametrize("here", [True, False])
def test_vectors_are_made_anew_by_themselves_after_a_repair(store: Path, here: bool) -> None:
    """Without a save: in the store that repaired it, and in one that had it open."""
    asked = threading.Event()

    def embed(texts: list[str], _kind: str) -> list[list[float]]:
        asked.set()
        return [[1.0, float(len(text))] for text in texts]

    with elytron.open(store, enable_embeddings=True, embedder=embed, **SMALL) as opened:
        bob = opened.agent("bob")
        bob.save("user", "A text that is long enough for a vector.")
        bob.flush()
        with ledger_path(store).open("r+b") as file:
            file.write(b"\xff" * 100)
        asked.clear()
        if here:
            assert bob.check(repair=True).ok
        else:
            with elytron.open(store, **SMALL) as other:
                assert other.agent("bob").check(repair=True).ok
            assert bob.history()
        assert asked.wait(60)
