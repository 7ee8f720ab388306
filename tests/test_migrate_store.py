"""`elytron.migrate_store`: what is carried between two stores, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron.ledger import carrying
from elytron.ledger.carried import TABLES
from elytron.ledger.connection import connect
from elytron.upkeep import transferring, transferring_files
from ledgers import contents, ledger_path
from migrating import WAYS, Place, embed, make, moved, place, rows, same
from quiet import alone

_NOT_CARRIED = {"indexed"}  # and what FTS5 makes for itself
_KINDS = {"INTEGER": "i", "REAL": "f", "TEXT": "s", "BLOB": "b"}


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


def test_every_column_of_every_table_is_carried(source: Place) -> None:
    """Method: compare with what SQLite says of a ledger of this version."""
    db = connect(
        ledger_path(source.folder), create=False, cache_mb=1, wal_limit_bytes=1 << 20, vfs=None
    )
    with_indexes = {}
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    for table in [name for name in tables if not name.startswith("words")]:
        found = db.execute(f"PRAGMA table_info({table})").fetchall()
        key = sum(column[5] > 0 for column in found)
        kinds = "".join(
            _KINDS[kind] if required or place else _KINDS[kind].upper()
            for _, _, kind, required, _, place in found
        )
        unique = [row[3] for row in db.execute(f"PRAGMA index_list({table})")]
        indexes = len([origin for origin in unique if origin != "pk"])
        with_indexes[table] = (tuple(column[1] for column in found), kinds, key, indexes)
    db.close()
    assert {
        table: (spec.columns, spec.kinds, spec.key, spec.indexes) for table, spec in TABLES.items()
    } == {table: spec for table, spec in with_indexes.items() if table not in _NOT_CARRIED}


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_arrives_with_all_that_it_has(source: Place, target: Place) -> None:
    before = contents(source.folder)
    done = moved(source, target)
    assert contents(source.folder).keys() == before.keys()
    assert (done.messages, done.archived, done.memories, done.relations) == (90, 30, 2, 2)
    assert not done.again
    assert not done.behind
    same(source, target)
    held = rows(source)
    assert done.rows == sum(map(len, held.values()))
    empty = {table for table, found in held.items() if not found}
    assert empty == {"moving", "gone", "unlinked", "projections", "shared", "unembedded"}


@pytest.mark.parametrize("way", WAYS[:2])
def test_what_arrived_is_found_by_its_words_and_goes_on(source: Place, target: Place) -> None:
    moved(source, target)
    with target.open() as store:
        agent = store.agent("bob")
        assert agent.recall("Oslo")[0].message.id == "m100"
        assert [hit.message.id for hit in agent.recall("zebra 42 lives", limit=1)] == ["m42"]
        assert not agent.save("user", "worth much", id="m7b", session="s1", importance=0.9).new
        agent.save("user", "the next one", session="s1", id="next")
        assert agent.history("s1")[-1].id == "next"
        assert agent.restore(["m5"]).restored == 1
        assert agent.check().ok


@pytest.mark.parametrize("way", WAYS)
def test_a_second_run_carries_what_changed_and_no_more(source: Place, target: Place) -> None:
    moved(source, target)
    assert moved(source, target).written == 0
    with source.open() as store:
        agent = store.agent("bob")
        agent.save("user", "new", id="new", session="another", user="carol")
        agent.edit("m110", "edited later: Alice went to Rome")
        agent.delete("m111")
        agent.unpin("m3")
        agent.restore(["m5"])
        agent.delete_memory("r2")
        agent.set_concept("Alice", type="person")
        agent.archive(older_than_days=0, keep=60)
        agent.flush()
    done = moved(source, target)
    assert done.again
    assert 0 < done.written < done.rows
    same(source, target)


@pytest.mark.parametrize(
    ("snapshot_s", "way"),
    [(0, WAYS[0]), (10, WAYS[0]), (10, WAYS[2])],
    ids=["each page is a moment of its own", "all is one", "all is one, on a server"],
)
def test_saves_between_two_pages_lose_nothing(
    snapshot_s: float, source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Method: something is written to the source before each page that is read of it, for a while;
    then nothing is any more.
    """
    monkeypatch.setattr(transferring, "_SNAPSHOT_S", snapshot_s)
    monkeypatch.setattr(carrying, "PUT_MAX", 25)
    verbs: tuple[Callable[[elytron.Agent, int], object], ...] = (
        lambda agent, n: agent.save("user", f"late {n}", id=f"late{n}", session=f"l{n % 3}"),
        lambda agent, n: agent.edit("m99", f"edited {n} times"),
        lambda agent, n: agent.delete(f"late{n - 2}"),
        lambda agent, n: agent.remember(f"fact {n}", about=[f"Thing {n}"]),
        lambda agent, n: agent.delete_concept(f"Thing {n - 1}"),
        lambda agent, n: agent.delete_session(f"l{(n + 1) % 3}"),
        lambda agent, n: agent.archive(older_than_days=0, keep=80 - n // 6),
        lambda agent, n: agent.set_importance("m98", n / 100),
    )
    page_end, calls = carrying.page_end, 0
    with source.open() as store:
        alone(store)  # whose links would be what changed last
        agent = store.agent("bob")

        def disturbed(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls < 100:
                verbs[calls % len(verbs)](agent, calls)
            return page_end(*args, **options)

        monkeypatch.setattr(carrying, "page_end", disturbed)
        done = moved(source, target)
        assert calls > 100
        if done.behind:
            done = moved(source, target)
    assert not done.behind
    same(source, target)


def test_a_source_that_never_rests_is_told_how_far_it_is_ahead(
    source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, number = carrying.counted, 0
    with source.open() as store:
        alone(store)  # it would go on once we do not
        agent = store.agent("bob")

        def disturbed(*args: Any) -> int:
            nonlocal number
            number += 1
            agent.save("user", "one more", id=f"late{number}")
            return counted(*args)

        monkeypatch.setattr(carrying, "counted", disturbed)
        done = moved(source, target)
        assert 0 < done.behind <= 2 * len(TABLES)
        monkeypatch.setattr(carrying, "counted", counted)
        done = moved(source, target)
        assert not done.behind
    same(source, target)


def test_what_was_read_at_several_moments_does_not_count(
    source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: in each round a message comes in a new session, once the sessions have been read."""
    monkeypatch.setattr(transferring, "_SNAPSHOT_S", 0)
    page_end, number = carrying.page_end, 0
    with source.open() as store:
        alone(store)  # it would go on once we do not
        agent = store.agent("bob")

        def disturbed(db: Any, table: str, *, after: int) -> Any:
            nonlocal number
            if table == "messages" and after < 0:
                number += 1
                agent.save("user", f"late {number}", session=f"new {number}")
            return page_end(db, table, after=after)

        with monkeypatch.context() as patched:
            patched.setattr(carrying, "page_end", disturbed)
            with pytest.raises(elytron.Busy, match="changed all the time"):
                moved(source, target)
        moved(source, target)
    same(source, target)


def test_messages_that_leave_for_the_archive_meanwhile_are_in_one_of_the_two(
    source: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: they leave when the listing of the archive was read, and the ledger was not."""
    copy, calls = transferring_files.copy, 0
    with source.open() as store:

        def disturbed(*arguments: Any) -> bool:
            nonlocal calls
            calls += 1
            if calls == 1:
                store.agent("bob").archive(older_than_days=0, keep=50)
            return copy(*arguments)

        monkeypatch.setattr(transferring_files, "copy", disturbed)
        done = moved(source, target)
    assert calls > 1
    assert (done.messages, done.archived) == (51, 69)  # a pinned one stays
    same(source, target)


def test_pages_are_bounded_in_bytes(source: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "_PART_BYTES", 400)
    db = connect(
        ledger_path(source.folder), create=False, cache_mb=1, wal_limit_bytes=1 << 20, vfs=None
    )
    after, pages = 0, 0
    while (upto := carrying.page_end(db, "messages", after=after)) is not None:
        assert 1 <= len(carrying.between(db, "messages", after=after, upto=upto)) < 20
        after, pages = upto, pages + 1
    db.close()
    assert pages > 5
