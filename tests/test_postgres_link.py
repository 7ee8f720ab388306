"""A link answers as SQLite's connection does, about one agent, in few round trips."""

import _thread
import math
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutter import Cutter
from elytron.ledger.integers import Integers
from elytron.ledger.postgres import migrating, values, wire
from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.faults import NotSent
from elytron.ledger.postgres.link import BATCH_MAX, Link
from postgres_server import Server, wait_until

A, B = uuid.UUID(int=1), uuid.UUID(int=2)
SOON_S = 30.0
OPEN = [
    "CREATE SCHEMA {0}",
    "CREATE TABLE {0}.things(agent_id uuid, key bigint, text text, PRIMARY KEY(agent_id, key))",
]
ADD = "INSERT INTO things VALUES(%(agent)s, %(key)s, %(text)s)"
COUNT = "SELECT count(*) FROM things WHERE agent_id = %(agent)s"
AGENT_SET = "SELECT current_setting('app.agent_id', true)"


def add(link: Link, key: int, text: str = "") -> None:
    link.native(ADD, {"key": key, "text": text})


def agent_set(link: Link) -> uuid.UUID:
    """Which agent the session is about; asked with a place, since without one it would be told."""
    return uuid.UUID(link.native(f"{AGENT_SET} WHERE %s::text = ''", ("",))[0][0])


def parameters(server: Server, schema: str, port: int | None = None) -> dict[str, str]:
    return parse(server.dsn(port=port)).parameters(schema)


@pytest.fixture
def links(postgres: Server, schema: str) -> Iterator[Callable[..., Link]]:
    """Makes links to a schema with one table, `things`; closed after the test."""
    postgres.execute("; ".join(OPEN).format(schema))
    made: list[Link] = []

    def make(*, agent: uuid.UUID | None = A, port: int | None = None) -> Link:
        made.append(Link.connect(parameters(postgres, schema, port), time.monotonic() + SOON_S))
        if agent is not None:
            made[-1].bind(agent)
        return made[-1]

    yield make
    for link in made:
        link.close()


@pytest.fixture
def link(links: Callable[..., Link]) -> Link:
    return links()


@pytest.fixture
def ledger(postgres: Server, schema: str) -> Iterator[Link]:
    """A link to the ledger's own tables."""
    link = Link.connect(parameters(postgres, schema), time.monotonic() + SOON_S)
    migrating.bring_up(link, schema)
    link.bind(A)
    yield link
    link.close()


# -- values


@given(st.text(alphabet=st.sampled_from("a0d\0\x10é'\\%"), max_size=9))
def test_a_text_with_a_nul_comes_back_as_it_was(text: str):
    stored = values.escaped(text)
    assert "\0" not in stored
    assert values.plain(stored) == text
    assert (stored == text) == ("\0" not in text and "\x10" not in text)


def test_values_come_back_from_the_server_as_they_went(link: Link):
    went = (0, -(2**63), 2**63 - 1, 0.1, math.inf, "", "\0\x10d'%s\\ é😀", b"", b"\0\xff", None)
    places = ", ".join(["%s::bigint"] * 3 + ["%s::float8"] * 2 + ["%s", "%s"] + ["%s"] * 3)
    (came,) = link.native(f"SELECT {places}", went)
    assert came == went
    assert [type(value) for value in came] == [type(value) for value in went]


def test_lists_come_back_as_they_went(link: Link):
    many = list(range(-2000, 2000))
    row = link.native(
        "SELECT %s, %s, %s::text[], %s::text[], %s = ANY(%s)",
        (Integers(many), Integers([]), ["", 'a"b{,}', "NULL"], [], "\0", ["a", "\0"]),
    )
    assert row == [(many, [], ["", 'a"b{,}', "NULL"], [], 1)]


def test_what_is_true_is_1_and_a_sum_of_whole_numbers_is_whole(link: Link):
    (row,) = link.native(
        "SELECT 1 = 1, %s = 1, sum(v), avg(v) FROM (VALUES (1::bigint), (2)) t(v)", (0,)
    )
    assert row == (1, 0, 3, 1.5)
    assert [type(value) for value in row] == [int, int, int, float]


@pytest.mark.parametrize("value", [2**63, object(), "\ud800", {}, complex(1)])
def test_a_value_that_cannot_be_bound_is_refused_and_the_link_goes_on(ledger: Link, value: Any):
    with pytest.raises((TypeError, OverflowError, UnicodeEncodeError, psycopg.DataError)):
        ledger.execute("SELECT value FROM meta WHERE name = ?", (value,))
    assert ledger.execute("SELECT 1 + ?", (1,)).get == 2


# -- as SQLite's connection


def test_rows_are_read_as_from_sqlites_cursor(ledger: Link):
    ledger.executemany("INSERT INTO tails VALUES(?, ?)", [(n, n * n) for n in range(5)])
    select = "SELECT session, position FROM tails ORDER BY session"
    assert ledger.execute(select).get == (0, 0)
    assert ledger.execute("SELECT position FROM tails WHERE session = ?", (3,)).get == 9
    assert ledger.execute("SELECT position FROM tails WHERE session = 9").get is None
    assert list(ledger.execute(select)) == [(n, n * n) for n in range(5)]
    cursor = ledger.execute(select)
    assert next(cursor) == (0, 0)
    assert cursor.fetchall() == [(n, n * n) for n in range(1, 5)]
    assert cursor.fetchall() == []
    cursor.close(True)
    keys = ledger.execute("SELECT value FROM carray(?) ORDER BY 1", (Integers([3, 1]),)).fetchall()
    assert keys == [(1,), (3,)]


def test_changes_are_those_of_the_last_statement_that_writes(ledger: Link):
    before = ledger.total_changes()
    ledger.executemany("INSERT INTO tails VALUES(?, ?)", [(n, 0) for n in range(BATCH_MAX + 7)])
    assert ledger.changes() == BATCH_MAX + 7
    ledger.execute("UPDATE tails SET position = 1 WHERE session < ?", (3,))
    assert ledger.changes() == 3
    ledger.execute("SELECT count(*) FROM tails")
    assert ledger.changes() == 3
    ledger.execute("DELETE FROM tails WHERE session = -1")
    assert ledger.changes() == 0
    assert ledger.total_changes() - before == BATCH_MAX + 10


def test_one_bad_row_of_many_takes_the_others_of_its_transaction_with_it(ledger: Link):
    ledger.execute("BEGIN")
    with pytest.raises(psycopg.errors.UniqueViolation):
        ledger.executemany("INSERT INTO tails VALUES(?, ?)", [(1, 0), (2, 1), (1, 2), (3, 1)])
    ledger.execute("ROLLBACK")
    assert ledger.execute("SELECT count(*) FROM tails").get == 0


def test_what_rows_weigh_is_counted(ledger: Link):
    add_user = "INSERT INTO users VALUES(?, ?, ?, ?, ?)"
    row = [1, "alice", "alice", 0, 0]
    ledger.execute(add_user, row)
    one = ledger.weighed_bytes
    assert one > len("alice")
    ledger.executemany(add_user, [[2, "bob", "bob", 0, 0], [3, "b" * 1000, "b", 0, 0]])
    assert ledger.weighed_bytes > one + 1000
    before = ledger.weighed_bytes
    ledger.execute("UPDATE users SET id = ? WHERE key = ?", ("b" * 2000, 3))
    assert ledger.weighed_bytes >= before + 1000
    assert ledger.changes() == 1
    ledger.execute("DELETE FROM users")
    assert ledger.changes() == 3
    assert ledger.weighed_bytes == 0


def test_what_rows_weighed_that_were_undone_is_not_counted(ledger: Link):
    add_user = "INSERT INTO users VALUES(?, ?, ?, ?, ?)"
    ledger.execute("BEGIN")
    ledger.execute(add_user, (1, "alice", "alice", 0, 0))
    one = ledger.weighed_bytes
    ledger.execute("SAVEPOINT many")
    ledger.execute(add_user, (2, "bob", "bob", 0, 0))
    ledger.execute("ROLLBACK TO many")
    ledger.execute("RELEASE many")
    assert ledger.weighed_bytes == one > 0
    ledger.execute("ROLLBACK")
    assert ledger.weighed_bytes == 0


def test_a_transaction_is_undone_or_kept_as_a_whole(link: Link):
    assert link.get_autocommit()
    link.execute("BEGIN IMMEDIATE")
    assert not link.get_autocommit()
    add(link, 1)
    link.execute("ROLLBACK")
    assert link.get_autocommit()
    assert link.native(COUNT) == [(0,)]
    link.execute("BEGIN")
    add(link, 1)
    link.execute("SAVEPOINT one")
    with pytest.raises(psycopg.errors.UniqueViolation):
        add(link, 1)
    link.execute("ROLLBACK TO one")
    link.execute("RELEASE one")
    add(link, 2)
    link.execute("SAVEPOINT two")
    link.execute("ROLLBACK TO two")
    link.execute("COMMIT")
    assert link.get_autocommit()
    assert link.native(COUNT) == [(2,)]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_transaction_of_nothing_costs_nothing(links: Callable[..., Link], postgres: Server, end):
    with Cutter(postgres.port) as cutter:
        link = links(port=cutter.port)
        cutter.arm(0)
        link.execute("BEGIN")
        link.execute(end)
        assert link.get_autocommit()
        assert cutter.count == 0
        link.close()


def test_a_commit_of_what_failed_before_is_no_success(link: Link):
    """PostgreSQL answers such a COMMIT without an error, and keeps nothing."""
    link.execute("BEGIN")
    add(link, 1)
    with pytest.raises(psycopg.errors.UniqueViolation):
        add(link, 1)
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        link.execute("COMMIT")
    assert link.get_autocommit()
    assert link.native(COUNT) == [(0,)]


def test_several_statements_of_postgresql_may_come_together(link: Link):
    rows = link.native("CREATE TEMP TABLE t(x int); INSERT INTO t VALUES(1), (2); TABLE t")
    assert rows == [(1,), (2,)]
    assert (link.rowcount, link.changes()) == (2, 2)


# -- round trips


def test_what_needs_no_answer_goes_with_the_next_statement(
    links: Callable[..., Link], postgres: Server
):
    with Cutter(postgres.port) as cutter:
        link = links(port=cutter.port)
        cutter.arm(0)
        link.execute("BEGIN")
        link.later("SELECT set_config('lock_timeout', %s, true)", ("77ms",))
        link.execute("SAVEPOINT one")
        add(link, 1)
        assert cutter.kinds.count("S") == 1  # a sync ends each round trip
        link.execute("RELEASE one")
        link.execute("COMMIT")
        assert cutter.kinds.count("S") == 2
        assert link.native(COUNT) == [(1,)]
        link.close()


def test_statements_that_come_again_are_prepared_and_the_oldest_given_up(
    link: Link, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(wire, "PREPARED_MAX", 5)
    for number in range(20):
        for _ in range(wire.PREPARE_AFTER + 1):
            assert link.native(f"SELECT {number} + %s::bigint", (1,)) == [(number + 1,)]
    kept = link.native("SELECT statement FROM pg_prepared_statements")
    assert len(kept) == 5
    assert ("SELECT 19 + $1::bigint",) in kept


def test_a_statement_that_fails_while_it_is_prepared_may_be_right_later(link: Link):
    for _ in range(wire.PREPARE_AFTER + 1):
        with pytest.raises(psycopg.errors.UndefinedTable):
            link.native("SELECT x FROM not_there WHERE x = %s", (1,))
    link.native("CREATE TEMP TABLE not_there(x bigint)")
    assert link.native("SELECT x FROM not_there WHERE x = %s", (1,)) == []


def test_a_value_that_cannot_be_sent_leaves_what_waits_as_it_was(link: Link):
    link.execute("BEGIN")
    for _ in range(wire.PREPARE_AFTER + 2):
        with pytest.raises(UnicodeEncodeError):
            add(link, 1, "\ud800")
        assert not link.get_autocommit()
    link.execute("SAVEPOINT one")
    with pytest.raises(OverflowError):
        add(link, 2**63)
    link.execute("ROLLBACK TO one")
    with pytest.raises(psycopg.ProgrammingError, match="2 places"):
        link.native("SELECT %s, %s", (1,))
    add(link, 1)
    link.execute("COMMIT")
    assert link.native(COUNT) == [(1,)]


def test_a_batch_with_a_value_that_cannot_be_sent_prepares_nothing(ledger: Link):
    insert = "INSERT INTO tails VALUES(?, ?)"
    rows = [(n, n) for n in range(wire.PREPARE_AFTER + 1)]
    with pytest.raises(OverflowError):
        ledger.executemany(insert, [*rows, (2**63, 0)])
    ledger.executemany(insert, rows)
    assert ledger.execute("SELECT count(*) FROM tails").get == len(rows)


# -- whose rows


def test_the_session_is_told_of_an_agent_once(links: Callable[..., Link], postgres: Server):
    with Cutter(postgres.port) as cutter:
        link = links(port=cutter.port)
        assert agent_set(link) == A
        cutter.arm(0)
        link.bind(A)
        assert agent_set(link) == A
        assert cutter.kinds.count("B") == 1  # one statement was bound to its values
        link.bind(B)
        assert agent_set(link) == B
        assert cutter.kinds.count("B") == 3
        link.close()


@pytest.mark.parametrize("undone", ["rollback", "savepoint", "failure", "failing script"])
def test_the_session_is_about_the_agent_whatever_was_undone(link: Link, undone: str):
    """What a session is set to is undone with the transaction it was set in."""
    assert agent_set(link) == A
    if undone == "savepoint":
        link.execute("BEGIN")
        add(link, 1)
        link.execute("SAVEPOINT one")
    elif undone == "rollback":
        link.execute("BEGIN")
    link.bind(B)
    if undone.startswith("fail"):
        with pytest.raises(psycopg.errors.DivisionByZero):
            link.native("SELECT 1 / %s::bigint" if undone == "failure" else "SELECT 1 / 0",
                        (0,) if undone == "failure" else ())  # fmt: skip
    else:
        assert agent_set(link) == B
        link.execute("ROLLBACK TO one" if undone == "savepoint" else "ROLLBACK")
    assert agent_set(link) == B
    if undone == "savepoint":
        link.execute("COMMIT")
        assert agent_set(link) == B


def test_an_agent_that_was_set_before_a_savepoint_is_known_to_be_unknown(link: Link):
    """The savepoint came with the statement that failed, so that only a part was undone."""
    assert agent_set(link) == A
    link.execute("BEGIN")
    add(link, 1)
    link.bind(B)
    link.execute("SAVEPOINT one")
    with pytest.raises(psycopg.errors.DivisionByZero):
        link.native("SELECT 1 / %s::bigint", (0,))
    link.execute("ROLLBACK TO one")
    link.bind(A)
    assert agent_set(link) == A
    link.execute("COMMIT")


def test_without_an_agent_no_statement_of_the_ledger_is_run(links: Callable[..., Link]):
    link = links(agent=None)
    with pytest.raises(psycopg.ProgrammingError, match="no agent"):
        link.execute("SELECT value FROM meta WHERE name = ?", ("a",))


# -- ends


def test_closing_undoes_what_is_open_and_then_nothing_is_sent(
    links: Callable[..., Link], link: Link
):
    other = links()
    other.execute("BEGIN")
    add(other, 1)
    other.close()
    other.close()
    assert other.closed
    assert other.get_autocommit()
    other.execute("ROLLBACK")  # as whoever was in the midst of it will
    with pytest.raises(NotSent):
        add(other, 2)
    wait_until(lambda: link.native(COUNT) == [(0,)])


def test_ctrl_c_ends_the_waiting_and_the_link(link: Link, postgres: Server):
    """What the server answers later must not be taken for the next statement's answer."""
    asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%7777%'"

    def interrupt() -> None:
        wait_until(lambda: postgres.execute(asleep))
        _thread.interrupt_main()

    link.deadline = time.monotonic() + 2 * SOON_S
    thread = threading.Thread(target=interrupt)
    # In the background of a shell, programs begin with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            link.native("SELECT pg_sleep(%s), 7777", (120.0,))
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert link.closed
    wait_until(lambda: not postgres.execute(asleep))  # the server notices


def test_a_forked_child_cannot_use_a_link_and_does_not_end_it(
    postgres: Server, run_script: Callable[..., str]
):
    printed = run_script(
        """
        import gc, os, sys, time
        from elytron.errors import Forked
        from elytron.ledger.postgres.dsn import parse
        from elytron.ledger.postgres.faults import NotSent
        from elytron.ledger.postgres.links import Links

        links = Links(parse(sys.argv[1]), "public", size=2, timeout_s=30)
        lent = links.borrow()
        links.give_back(links.borrow())
        child = os.fork()
        if not child:
            code = 1
            try:
                links.borrow()
            except Forked:
                code += 1
            try:
                lent.native("SELECT 1")
            except NotSent:
                code += 1
            links.give_back(lent)
            links.close()
            lent.close()
            del links, lent
            gc.collect()
            sys.exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        idle = links.borrow()
        print(lent.native("SELECT 1"), idle.native("SELECT 2"))
        links.give_back(lent)
        links.give_back(idle)
        links.close()
        """,
        postgres.dsn(),
    )
    assert printed.split() == ["[(1,)]", "[(2,)]"]
