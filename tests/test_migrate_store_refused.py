"""`elytron.migrate_store`: what is refused, and what is left as it is."""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import elytron
from elytron.ledger import carrying, files
from elytron.ledger.carried import HALF, META, BeginCarrying, DropRows, PutRows
from elytron.ledger.folder import FolderLedgers
from elytron.ledger.uses import Uses
from elytron.upkeep import transferring
from elytron.upkeep.transferring import Transfer
from ledgers import flip, ledger_path, query
from migrating import WAYS, Place, embed, make, moved, place, rows, same


@pytest.fixture
def way() -> str:
    """What most tests are about; some are run on each of `WAYS`."""
    return WAYS[0]


@pytest.fixture
def source(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    found = place(way, 0, tmp_path / "from", request)
    with found.open(embedder=embed, enable_embeddings=True) as store:
        make(store)
    return found


@pytest.fixture
def target(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    return place(way, -1, tmp_path / "to", request)


def test_a_damaged_row_is_named_and_keeps_its_agent_alone(source: Place, target: Place) -> None:
    with source.open() as store:
        store.agent("al").save("user", "hello")
    path = ledger_path(source.folder)
    flip(path, path.read_bytes().index(b"zebra 77 "))
    report = elytron.migrate_store(source.address, target.address)
    assert [one.agent for one in report.agents] == ["al"]
    (failed,) = report.failed
    assert not report.ok
    assert failed.agent == "bob"
    assert isinstance(failed.cause, elytron.Corrupt)
    assert re.search(r"row \d+ of messages is damaged", str(failed.cause))
    assert "zebra" not in str(failed.cause)
    with target.open() as store, pytest.raises(elytron.Unavailable, match="again"):
        store.agent("bob").history()
    with source.open() as store:
        assert len(store.agent("bob").check(repair=True).findings) == 1
    moved(source, target, agents=["bob"])
    same(source, target)


def test_a_row_that_only_an_index_has_is_noticed(source: Place, target: Place) -> None:
    """Method: the row is deleted while SQLite does not know of the table's indexes."""
    indexes = "type = 'index' AND tbl_name = 'messages'"
    kept = query(source.folder, f"SELECT * FROM sqlite_schema WHERE {indexes}")
    (sql,) = query(source.folder, "SELECT sql FROM sqlite_schema WHERE name = 'messages'")[0]
    plain = sql.replace(" UNIQUE", "")
    in_schema(source.folder, f"DELETE FROM sqlite_schema WHERE {indexes}")
    in_schema(source.folder, "UPDATE sqlite_schema SET sql = ? WHERE name = 'messages'", (plain,))
    query(source.folder, "DELETE FROM messages WHERE id = 'm60'")
    for row in kept:
        in_schema(source.folder, "INSERT INTO sqlite_schema VALUES(?, ?, ?, ?, ?)", row)
    in_schema(source.folder, "UPDATE sqlite_schema SET sql = ? WHERE name = 'messages'", (sql,))
    with pytest.raises(elytron.Corrupt, match="messages has 89 rows, and its index 90"):
        moved(source, target)


def in_schema(store: Path, sql: str, values: tuple[Any, ...] = ()) -> None:
    """Change what SQLite knows of the tables of bob's ledger."""
    db = apsw.Connection(str(ledger_path(store)))
    db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    db.execute("PRAGMA writable_schema = 1")
    db.execute(sql, values)
    db.close()


def test_a_damaged_segment_is_named(source: Place, target: Place) -> None:
    (path,) = (files.agent_folder(source.folder, "bob") / "archive").glob("segment-*")
    flip(path, 200)
    with pytest.raises(elytron.Corrupt, match=path.name):
        moved(source, target)
    with target.open() as store, pytest.raises(elytron.Unavailable):
        store.agent("bob").usage()


def test_other_content_in_the_target_is_left_as_it_is(source: Place, target: Place) -> None:
    with target.open() as store:
        store.agent("bob").save("user", "mine", id="mine")
    before = rows(target)
    with pytest.raises(elytron.Conflict, match="other content"):
        moved(source, target)
    assert rows(target) == before
    with target.open() as store:
        store.agent("bob").clear()
    moved(source, target)
    same(source, target)


def test_other_archived_messages_in_the_target_are_left_as_they_are(
    source: Place, target: Place
) -> None:
    with target.open() as store:
        agent = store.agent("bob")
        agent.save("user", "mine", id="mine")
        agent.archive(older_than_days=0, keep=0)
        agent.save("user", "gone", id="gone")
        agent.delete("gone")
    with pytest.raises(elytron.Conflict, match="archived"):
        moved(source, target)
    with target.open() as store:
        assert [one.id for one in store.agent("bob").messages(archived=True)] == ["mine"]


@pytest.mark.parametrize(
    "write",
    [
        lambda agent: agent.save("user", "in the new place"),
        lambda agent: agent.pin("m50"),
        lambda agent: agent.delete("m50"),
        lambda agent: agent.remember("something"),
    ],
    ids=["saved", "pinned", "deleted", "remembered"],
)
def test_what_was_written_to_the_target_since_is_not_lost(
    write: Callable[[elytron.Agent], object], source: Place, target: Place
) -> None:
    moved(source, target)
    with target.open() as store:
        write(store.agent("bob"))
    before = rows(target)
    with pytest.raises(elytron.Conflict, match="written to since"):
        moved(source, target)
    assert rows(target) == before


def test_an_older_source_does_not_take_back_what_was_carried(
    source: Place, target: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = Place(tmp_path / "older")
    moved(source, older)
    with source.open() as store:
        store.agent("bob").save("user", "later")
    moved(source, target)
    with pytest.raises(elytron.Conflict, match="older"):
        moved(older, target)
    with monkeypatch.context() as patched:
        stop_after(patched, "messages")
        with pytest.raises(elytron.Busy):
            moved(source, target)
    with pytest.raises(elytron.Conflict, match="older"):
        moved(older, target)
    moved(source, target)
    same(source, target)


def stop_after(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    """Have the next migration end once it has come to a table."""
    pages = Transfer._pages

    def stopped(self: Transfer, moment: Any, name: str, done: Any) -> Any:
        if name == table:
            raise elytron.Busy("stopped by the test")
        return pages(self, moment, name, done)

    monkeypatch.setattr(Transfer, "_pages", stopped)


@pytest.mark.parametrize("way", WAYS[:2])
def test_an_agent_that_is_half_there_cannot_be_used(
    source: Place,
    target: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    with monkeypatch.context() as patched:
        stop_after(patched, "memories")
        with pytest.raises(elytron.Busy, match="by the test"):
            moved(source, target)
    assert len(rows(target)["messages"]) == 90
    with target.open() as store:
        agent = store.agent("bob")
        for verb in (
            lambda: agent.save("user", "x"),
            lambda: agent.recall("zebra"),
            lambda: agent.history(),
            lambda: agent.check(),
            lambda: agent.archive(),
            lambda: agent.clear(),
        ):
            with pytest.raises(elytron.Unavailable, match="elytron migrate store"):
                verb()
        if store.path == target.address:
            (failed,) = store.backup(tmp_path / "backup").failed
            assert isinstance(failed.cause, elytron.Unavailable)
    done = moved(source, target)
    assert done.again
    assert 0 < done.written < done.rows - 90
    same(source, target)


@pytest.mark.parametrize("way", WAYS[:2])
def test_who_has_the_target_open_cannot_write_into_what_is_half_there(
    source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written before is found, what is written later is refused: none is lost."""
    moved(source, target)
    with target.open() as store:
        agent = store.agent("bob")
        assert len(agent.history(limit=1000)) == 90
        with monkeypatch.context() as patched:
            stop_after(patched, "sessions")
            with pytest.raises(elytron.Busy):
                moved(source, target)
        with pytest.raises(elytron.Unavailable, match="elytron migrate store"):
            agent.save("user", "x")
        moved(source, target)
        agent.save("user", "x", id="x")
    with target.open() as store:
        assert store.agent("bob").history()[-1].id == "x"


def test_of_two_migrations_at_once_the_later_goes_on(
    source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = carrying.counted
    later: list[elytron.AgentMigrated] = []

    def meanwhile(*args: Any) -> int:
        monkeypatch.setattr(carrying, "counted", counted)
        later.append(moved(source, target))
        with source.open() as store:
            store.agent("bob").save("user", "so that there is something to write")
        return counted(*args)

    monkeypatch.setattr(carrying, "counted", meanwhile)
    monkeypatch.setattr(transferring, "_SNAPSHOT_S", 0)
    with pytest.raises(elytron.Conflict, match="taken over"):
        moved(source, target)
    assert len(later) == 1
    moved(source, target)
    same(source, target)


def test_what_another_migration_left_is_replaced_only_if_that_is_said(
    source: Place, target: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Place(tmp_path / "other")
    with other.open() as store:
        make(store, count=125)
    with monkeypatch.context() as patched:
        stop_after(patched, "mentions")
        with pytest.raises(elytron.Busy):
            moved(other, target)
    with pytest.raises(elytron.Conflict, match="--anew"):
        moved(source, target)
    moved(source, target, anew=True)
    same(source, target)


def test_a_limit_of_the_target_is_named_and_the_rest_comes_once_it_is_raised(
    source: Place, target: Place
) -> None:
    with source.open() as store:
        store.agent("bob").save_many(
            {"role": "user", "content": f"{number} " + "x" * 30_000} for number in range(40)
        )
    small = {"max_messages_per_agent": 50, "keep_messages": 40}
    with pytest.raises(elytron.OverBudget, match="max_messages_per_agent"):
        moved(source, target, **small)
    with pytest.raises(elytron.OverBudget, match="max_db_size_mb"):
        moved(source, target, max_db_size_mb=1, wal_limit_mb=0.4, max_message_kb=64)
    moved(source, target)
    same(source, target)


def test_a_row_in_the_wrong_place_is_put_right(source: Place, target: Place) -> None:
    """Method: rows of the target are changed by hand, as a half-done one might have them."""
    moved(source, target)
    query(target.folder, "UPDATE meta SET value = replace(value, 'whole', 'half')"
          " WHERE name = 'carried'")  # fmt: skip
    query(target.folder, "UPDATE users SET id = 'carol' WHERE id = 'user 0'")
    query(target.folder, "UPDATE users SET id = 'user 0' WHERE id = 'user 2'")
    query(target.folder, "UPDATE sessions SET key = key + 1000 WHERE id = 's3'")
    query(target.folder, "DELETE FROM messages WHERE id = 'm55'")
    query(target.folder, "INSERT INTO meta VALUES('vectors_past', '7')")
    moved(source, target)
    same(source, target)


def test_a_ledger_takes_rows_of_one_run_only(target: Place) -> None:
    """And none of them where it was not said that it is carried."""
    ledgers = FolderLedgers(target.folder, elytron.Config())
    ledgers.make()
    ledger = ledgers.new("bob", uses=Uses.of(1 << 22), carrying=True)
    ledger.open(create=True)
    row = (1, "s", 2, 3)

    def done(op: Any) -> Any:
        return ledger.commit([op], time.monotonic() + 30)[0]

    put = PutRows("me", "sessions", (row,), 4096)
    assert isinstance(done(put), elytron.Conflict)
    assert done(BeginCarrying("there", "me")) is False
    assert done(put) == 1
    assert isinstance(done(PutRows("you", "sessions", (row,), 4096)), elytron.Conflict)
    assert isinstance(done(DropRows("you", "sessions", ((1,),), 4096)), elytron.Conflict)
    with ledger.reading() as db:
        held = carrying.mark(db, "it")
        assert carrying.small(db, "meta")
        assert {name for name, _ in carrying.small(db, "meta")} <= set(META)
    assert held is not None
    assert held.state == HALF
    ledger.close()


def test_a_mark_that_is_damaged_is_not_passed_over(source: Place, target: Place) -> None:
    moved(source, target)
    query(target.folder, "UPDATE meta SET value = 'no' WHERE name = 'carried'")
    with target.open() as store, pytest.raises(elytron.Corrupt):
        store.agent("bob").history()


def test_what_belongs_to_no_agent_is_told(source: Place, target: Place) -> None:
    stray = source.folder / "agents" / "stray-1"
    stray.mkdir()
    (stray / files.LEDGER).write_bytes(b"What is this?")
    report = elytron.migrate_store(source.address, target.address)
    assert report.left_out == (str(stray),)
    assert not report.ok
    assert moved(source, target, agents=["bob"]).written == 0


def test_an_agent_that_is_begun_meanwhile_is_told(
    source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Transfer.run

    def meanwhile(self: Transfer, **options: Any) -> elytron.AgentMigrated:
        with source.open() as store:
            store.agent("al").save("user", "hello")
        return run(self, **options)

    monkeypatch.setattr(Transfer, "run", meanwhile)
    report = elytron.migrate_store(source.address, target.address)
    assert [one.agent for one in report.agents] == ["bob"]
    (failed,) = report.failed
    assert failed.agent == "al"
    assert isinstance(failed.cause, elytron.Busy)
    assert elytron.migrate_store(source.address, target.address).ok


def test_mistakes_are_named_and_make_nothing(source: Place, target: Place, tmp_path: Path) -> None:
    here, there = source.folder, target.folder
    for bad, error in (
        ((here, here), elytron.InvalidArgument),
        ((here, here / "agents" / "to"), elytron.InvalidArgument),
        ((tmp_path / "none", there), elytron.NotFound),
        ((ledger_path(here), there), elytron.Unavailable),
        ((5, there), elytron.InvalidArgument),
    ):
        with pytest.raises(error):
            elytron.migrate_store(*bad)  # type: ignore[arg-type]
    with pytest.raises(elytron.NotFound, match="nobody"):
        elytron.migrate_store(source.address, target.address, agents=["nobody"])
    with pytest.raises(elytron.InvalidArgument):
        elytron.migrate_store(source.address, target.address, agents="bob")
    with pytest.raises(elytron.InvalidSetting):
        elytron.migrate_store(source.address, target.address, nonsense=1)
    assert not there.exists()
    assert not (tmp_path / "none").exists()


def test_progress_is_told_agent_by_agent(source: Place, target: Place) -> None:
    with source.open() as store:
        store.agent("al").save("user", "hello")
    told: list[tuple[int, int]] = []
    elytron.migrate_store(
        source.address, target.address, on_progress=lambda done, total: told.append((done, total))
    )
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_that_it_was_repaired_goes_along_so_that_the_copy_with_what_was_lost_stays(
    source: Place, target: Place, tmp_path: Path
) -> None:
    with source.open() as store:
        assert store.backup(tmp_path / "backup").ok
    path = ledger_path(source.folder)
    flip(path, path.read_bytes().index(b"zebra 77 "))
    with source.open() as store:
        assert not store.agent("bob").check(repair=True).ok
    moved(source, target)
    with target.open() as store:
        report = store.backup(tmp_path / "backup")
    assert report.ok, report.failed
    assert len(report.kept) == 1
