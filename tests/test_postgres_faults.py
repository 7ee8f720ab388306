"""Whatever goes wrong on the way to a server is a named error, and no receipt is a lie."""

import itertools
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest

from cutter import Cutter
from elytron.errors import (
    Busy,
    Corrupt,
    DiskFull,
    ElytronError,
    InvalidArgument,
    OutcomeUnknown,
    Unavailable,
)
from elytron.ledger.postgres import connecting, faults
from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.links import Links
from postgres_server import Server

AGENT = uuid.UUID(int=7)
SECRET = "what-alice-said"
SOON_S = 30.0
SLEEP = ("SELECT pg_sleep(%s)", (60.0,))
ADD = "INSERT INTO things VALUES(%(agent)s, %(key)s)"


@pytest.fixture
def things(postgres: Server, schema: str) -> Callable[..., Link]:
    """Makes links to a schema with one table."""
    postgres.execute(
        f"CREATE SCHEMA {schema};"
        f" CREATE TABLE {schema}.things(agent_id uuid, key bigint PRIMARY KEY)"
    )

    def make(*, port: int | None = None, user: str = "postgres") -> Link:
        found = parse(postgres.dsn(port=port, user=user)).parameters(schema)
        link = Link.connect(found, time.monotonic() + SOON_S)
        link.bind(AGENT)
        return link

    return make


@pytest.fixture
def link(things: Callable[..., Link]) -> Iterator[Link]:
    link = things()
    yield link
    link.close()


@pytest.fixture
def role(postgres: Server) -> Iterator[Callable[[str, str], None]]:
    """Makes a role with options; dropped after the test."""
    made = []

    def make(name: str, options: str) -> None:
        postgres.execute(f"CREATE ROLE {name} {options or 'LOGIN'}")
        made.append(name)

    yield make
    for name in made:
        postgres.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def refused(dsn: str, timeout_s: float = SOON_S) -> ElytronError:
    """What is raised by connecting to *dsn*; it holds no password."""
    links = Links(parse(dsn), "public", size=1, timeout_s=timeout_s)
    with pytest.raises(ElytronError) as caught:
        links.borrow(AGENT)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def translated(link: Link, error: BaseException, *, writing: bool = True) -> ElytronError:
    assert isinstance(error, faults.STORAGE_ERRORS)
    return faults.translate(error, "the store", committing=link.committing, writing=writing)


# -- connecting


@pytest.mark.parametrize(
    ("user", "options"),
    [
        ("with_password", f"LOGIN PASSWORD '{SECRET}x'"),
        ("nobody_here", ""),
        ("not_to_log_in", "NOLOGIN"),
        ("not_a_role", None),
    ],
)
def test_who_is_not_let_in_is_told_so(
    postgres: Server, role: Callable[[str, str], None], user: str, options: str | None
):
    if options is not None:
        role(user, options)
    error = refused(postgres.dsn(user=user, password=SECRET))
    assert type(error) is Unavailable
    assert not error.retryable
    assert "lets nobody in" in str(error)
    assert user in str(error)


def test_a_database_that_is_not_there_is_named(postgres: Server):
    error = refused(postgres.dsn().replace("/postgres?", "/not_there?"))
    assert type(error) is Unavailable
    assert not error.retryable
    assert 'database "not_there" does not exist' in str(error)


def test_too_many_connections_may_be_fewer_later(
    postgres: Server, role: Callable[[str, str], None]
):
    role("one_at_most", "LOGIN CONNECTION LIMIT 0")
    error = refused(postgres.dsn(user="one_at_most"))
    assert type(error) is Unavailable
    assert error.retryable


def test_a_server_that_is_not_there_may_be_later():
    error = refused("postgresql://x@127.0.0.1:1/x")
    assert type(error) is Unavailable
    assert error.retryable


@pytest.mark.parametrize("hosts", [1, 3])
def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up(hosts: int):
    """Its kernel takes connections as long as its queue has room; the server itself hangs."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one = f"127.0.0.1:{silent.getsockname()[1]}"
        error = refused(f"postgresql://x@{','.join([one] * hosts)}/x", timeout_s=0.3)
    assert type(error) is Unavailable
    assert error.retryable


def test_of_several_servers_the_one_that_answers_is_found(postgres: Server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:1,127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{postgres.port}"
        dsn = f"postgresql://postgres@{hosts}/postgres?sslmode=disable&connect_timeout=3"
        links = Links(parse(dsn), "public", size=1, timeout_s=SOON_S)
        link = links.borrow()
        assert link.native("SELECT 1") == [(1,)]
        links.give_back(link)
        links.close()


def test_a_name_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch):
    ended = threading.Event()

    def never(_: object) -> list[object]:
        assert ended.wait(SOON_S)
        return []

    monkeypatch.setattr(connecting, "conninfo_attempts", never)
    for _ in range(connecting._LOOKUPS_MAX + 1):
        error = refused("postgresql://x@some-name/x", timeout_s=0.01)
        assert type(error) is Unavailable
        assert error.retryable
    ended.set()


def test_a_name_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = refused("postgresql://x@some-name/x")
    assert type(error) is Unavailable
    assert "some-name" in str(error)


def test_a_server_that_is_too_old_is_told(postgres: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connecting, "OLDEST_SERVER", 99)
    error = refused(postgres.dsn())
    assert type(error) is Unavailable
    assert "99 or newer" in str(error)


@pytest.mark.parametrize(
    "said",
    [
        "consuming input failed: SSL error: unexpected eof while reading",
        "consuming input failed: SSL connection has been closed unexpectedly",
        "sending query failed: SSL SYSCALL error: Connection reset by peer",
        "connection failed: SSL SYSCALL error: EOF detected",
        'connection to server at "certificates.example", port 5432 failed: Connection refused',
    ],
)
@pytest.mark.parametrize("at", ["connecting", "later"])
def test_a_way_that_is_cut_may_be_there_again_over_tls_too(said: str, at: str):
    error = psycopg.OperationalError(said)
    told = faults.translate(error, "the store", connecting=at == "connecting")
    assert type(told) is Unavailable
    assert told.retryable
    assert "cannot be reached" in str(told)


@pytest.mark.parametrize(
    "said",
    [
        "connection failed: SSL error: certificate verify failed",
        "connection failed: server does not support SSL, but SSL was required",
        'connection failed: FATAL:  password authentication failed for user "x"',
        'connection failed: root certificate file "/none" does not exist',
    ],
)
def test_what_is_to_be_put_right_is_known_while_connecting_alone(said: str):
    error = psycopg.OperationalError(said)
    told = faults.translate(error, "the store", connecting=True)
    assert not told.retryable
    assert "lets nobody in" in str(told)
    assert faults.translate(error, "the store").retryable


# -- what a server answers


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        ("08006", Unavailable, True), ("57P01", Unavailable, True), ("57P03", Unavailable, True),
        ("53300", Unavailable, True), ("53200", Unavailable, True), ("58030", Unavailable, True),
        ("53100", DiskFull, True), ("55P03", Busy, True), ("40P01", Busy, True),
        ("40001", Busy, True), ("57014", Busy, True), ("25006", Unavailable, True),
        ("28000", Unavailable, False), ("3D000", Unavailable, False), ("42P01", Unavailable, False),
        ("42703", Unavailable, False), ("3F000", Unavailable, False), ("42501", Unavailable, False),
        ("XX001", Corrupt, False), ("XX002", Corrupt, False), ("54000", InvalidArgument, False),
        ("22003", InvalidArgument, False), ("23505", Unavailable, False),
        ("22P02", Unavailable, False), ("P0001", Unavailable, False),
    ],
)  # fmt: skip
def test_each_answer_has_its_error_and_quotes_nothing(
    link: Link, code: str, kind: type[ElytronError], retryable: bool
):
    with pytest.raises(psycopg.Error) as caught:
        link.native(
            f"DO $$ BEGIN RAISE EXCEPTION 'oh no' USING ERRCODE = '{code}',"
            f" DETAIL = '{SECRET}', HINT = '{SECRET}'; END $$"
        )
    assert caught.value.sqlstate == code
    error = translated(link, caught.value)
    assert type(error) is kind
    assert error.retryable is retryable
    assert SECRET not in str(error) + str(caught.value)
    assert "the store" in str(error)
    assert link.native("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "sql", ["SELECT %s::text::bigint", "INSERT INTO things VALUES(%s::text::uuid, 1)",
            "SELECT set_config('x', %s::text, true)", "SELECT %s::text::jsonb"],
)  # fmt: skip
def test_a_value_that_a_server_quotes_goes_no_further(link: Link, sql: str):
    with pytest.raises(psycopg.Error) as caught:
        link.native(sql, (SECRET,))
    assert SECRET not in str(translated(link, caught.value)) + str(caught.value)


def test_a_row_that_a_server_quotes_goes_no_further(link: Link):
    link.native("CREATE TEMP TABLE t(x text PRIMARY KEY, y text NOT NULL)")
    link.native("INSERT INTO t VALUES(%s, '')", (SECRET,))
    for values in ((SECRET, ""), (f"{SECRET}2", None)):
        with pytest.raises(psycopg.IntegrityError) as caught:
            link.native("INSERT INTO t VALUES(%s, %s)", values)
        assert SECRET not in str(translated(link, caught.value)) + str(caught.value)


def test_a_lock_that_is_not_given_in_time_is_busy(things: Callable[..., Link], link: Link):
    link.execute("BEGIN")
    link.native("LOCK TABLE things")
    other = things()
    other.execute("BEGIN")
    other.later("SELECT set_config('lock_timeout', '10ms', true)")
    with pytest.raises(psycopg.Error) as caught:
        other.native(ADD, {"key": 1})
    assert type(translated(other, caught.value)) is Busy
    other.close()


def test_what_a_role_may_not_do_is_told(
    things: Callable[..., Link], postgres: Server, schema: str, role: Callable[[str, str], None]
):
    role("may_read", "")
    postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO may_read")
    link = things(user="may_read")
    with pytest.raises(psycopg.Error) as caught:
        link.native(ADD, {"key": 1})
    error = translated(link, caught.value)
    assert type(error) is Unavailable
    assert "permission denied for table things" in str(error)
    link.close()


def test_a_server_that_only_reads_is_told(link: Link):
    link.native("SET default_transaction_read_only = on")
    with pytest.raises(psycopg.Error) as caught:
        link.native(ADD, {"key": 1})
    error = translated(link, caught.value)
    assert type(error) is Unavailable
    assert error.retryable
    assert "is read-only" in str(error)


def test_text_that_is_no_unicode_is_the_callers_to_mend(link: Link):
    with pytest.raises(UnicodeError) as caught:
        link.native("SELECT %s", ("\ud800",))
    assert type(translated(link, caught.value)) is InvalidArgument


# -- late


@pytest.mark.parametrize("way", ["alone", "with others", "script"])
def test_a_deadline_ends_a_statement_and_the_link(link: Link, way: str):
    assert link.native("SELECT 1 + %s::bigint", (1,)) == [(2,)]
    if way == "with others":
        link.later("SELECT 1")
    link.deadline = time.monotonic() + 0.2
    with pytest.raises(faults.NoAnswer) as caught:
        link.native(*(("SELECT pg_sleep(60)",) if way == "script" else SLEEP))
    assert link.closed
    assert type(translated(link, caught.value, writing=False)) is Busy
    error = translated(link, caught.value)
    assert type(error) is Unavailable
    assert error.retryable


def test_a_deadline_that_is_over_sends_nothing(things: Callable[..., Link]):
    """So a commit that was not even sent is not in doubt."""
    link = things()
    link.execute("BEGIN")
    link.native(ADD, {"key": 1})
    link.deadline = time.monotonic()
    with pytest.raises(faults.TooLate) as caught:
        link.execute("COMMIT")
    assert link.committing
    assert type(translated(link, caught.value)) is Unavailable
    with pytest.raises(faults.NotSent) as again:
        link.execute("COMMIT")
    assert type(translated(link, again.value)) is Unavailable


# -- cut


def _write(link: Link, key: int) -> None:
    """One transaction with all that one may have in it."""
    link.execute("BEGIN")
    link.native("SELECT count(*) FROM things WHERE agent_id = %(agent)s")
    link.execute("SAVEPOINT one")
    link.native(ADD, {"key": key})
    link.execute("RELEASE one")
    link.native("UPDATE things SET key = key WHERE key = %(key)s", {"key": key})
    link.execute("COMMIT")


def _write_alone(link: Link, key: int) -> None:
    """A write that is its own transaction; the link is told so by who makes it."""
    link.committing = True
    link.native(ADD, {"key": key})
    link.committing = False


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", [_write, _write_alone])
def test_every_receipt_is_true_wherever_the_connection_is_cut(
    things: Callable[..., Link],
    postgres: Server,
    schema: str,
    after: bool,
    write: Callable[[Link, int], None],
):
    """
    What was told to be done is there, what was told to have failed is not.

    Method: the connection is cut before, or after, the nth message to the server, the first
    ones of connecting among them, until a run ends without a cut.
    """
    unknown = 0
    with Cutter(postgres.port) as cutter, psycopg.connect(postgres.dsn()) as looking:
        dsn = parse(postgres.dsn(port=cutter.port))
        for nth in itertools.count(1):
            links = Links(dsn, schema, size=1, timeout_s=SOON_S)
            cutter.arm(nth, after=after)
            told = _outcome(links, lambda link, nth=nth: write(link, nth))
            cut, kinds = cutter.fired, cutter.kinds
            cutter.arm(0)
            links.close()
            cutter.settle(postgres)
            count = f"SELECT count(*) FROM {schema}.things WHERE key = %s"
            ((held,),) = looking.execute(count, (nth,)).fetchall()
            looking.commit()
            if told is None:
                assert held == 1
            elif told.code == Unavailable.code:
                assert held == 0, (nth, kinds, str(told))
                assert told.retryable
            else:
                assert told.code == OutcomeUnknown.code
                unknown += 1
            if not cut:
                break
    assert nth > 5
    assert 1 <= unknown < nth - 1


def _outcome(links: Links, write: Callable[[Link], None]) -> ElytronError | None:
    """What the writer is told."""
    try:
        link = links.borrow(AGENT)
    except ElytronError as error:
        return error
    try:
        write(link)
    except faults.STORAGE_ERRORS as error:
        return links.translate(error, committing=link.committing)
    finally:
        links.give_back(link)
    return None


def test_a_connection_that_the_server_ends_leaves_a_commit_in_doubt(link: Link, postgres: Server):
    ((backend,),) = link.native("SELECT pg_backend_pid()")
    link.execute("BEGIN")
    link.native(ADD, {"key": 1})
    postgres.execute("SELECT pg_terminate_backend(%s, 30000)", (backend,))
    with pytest.raises(psycopg.Error) as caught:
        link.execute("COMMIT")
    assert type(translated(link, caught.value)) is OutcomeUnknown
    assert link.closed
