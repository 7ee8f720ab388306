"""Bundles: all rows in one step are the rows that one by one gives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import elytron
from elytron.ledger import bundles, rows
from quiet import alone


@pytest.fixture
def company() -> Iterator[None]:
    """Two others are at work."""
    bundles.begin()
    bundles.begin()
    yield
    bundles.end()
    bundles.end()


in_company = pytest.mark.usefixtures("company")

values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
tables = st.lists(st.tuples(values, st.one_of(st.none(), st.binary(max_size=40)), values))


def filled(table: list[tuple[object, ...]]) -> apsw.Connection:
    db = apsw.Connection(":memory:")
    db.execute("CREATE TABLE t(place INTEGER PRIMARY KEY, a, b, c)")
    db.executemany("INSERT INTO t(a, b, c) VALUES(?, ?, ?)", table)
    return db


@in_company
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables, st.integers(0, 5))
def test_the_rows_are_those_that_come_one_by_one(
    table: list[tuple[object, ...]], limit: int
) -> None:
    db = filled(table)
    sql = "SELECT a, b, c FROM t ORDER BY place DESC LIMIT ?"
    one_by_one = rows.fetch(db, sql, (limit,))
    found = bundles.fetch(db, sql, "ibi", (limit,))
    assert found == one_by_one
    assert [list(map(type, row)) for row in found] == [list(map(type, row)) for row in one_by_one]
    keys = [row[0] for row in rows.fetch(db, "SELECT place FROM t WHERE place > ?", (limit,))]
    assert bundles.fetch_keys(db, "SELECT place FROM t WHERE place > ?", (limit,)) == keys


@in_company
def test_a_damaged_row_is_given_as_it_is_or_without_the_damaged_value() -> None:
    """Bytes where none are expected, and something else where bytes are."""
    db = filled([(1, b"\0\xff", 2), (b"\0\xff", b"a", 3)])
    assert bundles.fetch(db, "SELECT a, b, c FROM t", "ibi") == [
        (1, b"\0\xff", 2), (b"\0\xff", b"a", 3)
    ]  # fmt: skip
    assert bundles.fetch(db, "SELECT b, c FROM t WHERE c = 2", "bb") == [(b"\0\xff", None)]


@in_company
def test_an_error_of_the_query_is_told_as_always() -> None:
    db = filled([])
    with pytest.raises(apsw.SQLError, match="no such column"):
        bundles.fetch(db, "SELECT nowhere FROM t", "i")


@in_company
def test_what_was_bundled_is_found_within() -> None:
    sql = "SELECT a, (SELECT max(c) FROM t) FROM t WHERE a IN (SELECT value FROM carray(?))"
    said: list[str] = []
    db = filled([])

    def note(_cursor: object, statement: str, _values: object) -> bool:
        said.append(bundles.within(statement))
        return True

    db.exec_trace = note
    bundles.fetch_keys(db, "SELECT a FROM t")
    bundles.fetch(db, sql.replace("carray(?)", "json_each(?)"), "ii", ("[]",))
    rows.fetch(db, "SELECT 1")
    assert said == ["SELECT a FROM t", sql.replace("carray(?)", "json_each(?)"), "SELECT 1"]


def rows_of_a_recall(store: elytron.Store) -> int:
    """How many rows SQLite gives to a recall, one after the other, by what apsw tells of each."""
    given_rows = 0

    def look(db: apsw.Connection) -> None:
        def row(_cursor: object, found: tuple[object, ...]) -> tuple[object, ...]:
            nonlocal given_rows
            given_rows += 1
            return found

        db.row_trace = row

    apsw.connection_hooks.append(look)
    try:
        hits = store.agent("bob").recall("which towns are there near Lyon?", limit=20)
    finally:
        apsw.connection_hooks.remove(look)
    assert len(hits) == 20
    return given_rows


def test_a_recall_takes_few_steps_while_others_are_at_work(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    """Each step lets go of Python's lock, and wakes somebody who waits for it."""
    with elytron.open(folder) as store:
        store.agent("bob").save_many(
            {"role": "user", "content": f"Lyon {n} is a town", "session": f"s{n // 5}"}
            for n in range(600)
        )
        store.agent("bob").flush()
    with elytron.open(folder) as store:
        alone = rows_of_a_recall(store)
    request.getfixturevalue("company")
    with elytron.open(folder) as store:
        assert 0 < rows_of_a_recall(store) < alone / 2


def test_who_reads_and_who_commits_is_at_work_until_he_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    with elytron.open(folder) as store:
        alone(store)  # it reads and commits too
        bob = store.agent("bob")
        bob.save("user", "Hello")
        with bob._agents.use("bob", create=False) as opened:
            assert opened is not None
            before = len(bundles._at_work)
            plain = opened.ledger.commit

            def commit(*arguments: Any) -> Any:
                seen.append(len(bundles._at_work) - before)
                return plain(*arguments)

            monkeypatch.setattr(opened.ledger, "commit", commit)
            with opened.ledger.reading(), opened.ledger.reading():
                assert len(bundles._at_work) == before + 2
                bob.save("user", "Hello again")
            assert seen == [3]
            assert len(bundles._at_work) == before
