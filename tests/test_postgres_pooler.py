"""A pooler in between: it may keep a session for one client, or is found out."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import elytron
from elytron import Unavailable
from elytron.errors import ElytronError
from elytron.ledger.postgres import connecting, faults
from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.link import Link
from postgres_server import Server, _user, free_port, place, server, wait_until

WAIT_S = 30.0
CLIENTS, SAVES = 4, 5
ANOTHER = "SELECT set_config('app.session', 'of somebody else', false)"
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
bounced = pytest.mark.skipif(
    PGBOUNCER is None, reason="needs a pgbouncer: apt-get install pgbouncer"
)


@pytest.fixture
def link(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """A session whose server seems to be another than the one that answered."""
    monkeypatch.setattr(connecting, "_ASK", "SELECT 0, false")
    link = Link.connect(parse(postgres.dsn()).parameters('a "b\\ c'), time.monotonic() + WAIT_S)
    link.bind(uuid.UUID(int=1))
    yield link
    link.close()


def test_a_session_that_is_ours_alone_does_all(link: Link):
    """Prepared statements, too, which are closed again in front of others."""
    for number in range(2 * 250):
        assert link.native(f"SELECT {number % 250}, %(a)s::int", {"a": 1}) == [(number % 250, 1)]
    link.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    assert link.native("SHOW transaction_isolation") == [("repeatable read",)]
    link.execute("COMMIT")
    own = "SELECT current_setting('app.agent_id') = %(agent)s::text"
    assert link.about_each([(uuid.UUID(int=n), own, {}) for n in (2, 3)]) == [1, 1]
    assert link.native(own) == [(True,)]


def in_a_transaction(link: Link) -> None:
    link.execute("BEGIN IMMEDIATE")
    link.native("DELETE FROM t WHERE one = %(one)s::int", {"one": 1})


@pytest.mark.parametrize(
    "use",
    [
        lambda link: link.native("DELETE FROM t WHERE one = %(one)s::int", {"one": 1}),
        lambda link: link.native("DELETE FROM t"),
        lambda link: link.about_each([(uuid.UUID(int=2), "DELETE FROM t", {})]),
        in_a_transaction,
    ],
    ids=["a statement", "a script", "about each", "a transaction"],
)
def test_a_session_that_another_client_had_is_not_used(link: Link, use: Callable[[Link], object]):
    link.native("CREATE TEMPORARY TABLE t AS SELECT 1 AS one")
    link.native(ANOTHER)
    with pytest.raises(faults.SharedSession, match="pool_mode = session") as caught:
        use(link)
    assert link.closed
    told = faults.translate(caught.value, "here", committing=link.committing)
    assert type(told) is Unavailable
    assert not told.retryable


def test_what_a_pooler_does_not_pass_on_is_said_again(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connecting, "_ASK", "SELECT 0, false")
    given = parse(postgres.dsn()).parameters('a "b\\ c')
    passed = {**given, "options": ""}
    real, options = connecting._set_up, given["options"]
    monkeypatch.setattr(connecting, "_set_up", lambda wire, until, _: real(wire, until, options))
    link = Link.connect(passed, time.monotonic() + WAIT_S)
    assert link.native("SHOW search_path") == [('"a ""b\\ c"',)]
    assert link.native("SHOW default_transaction_isolation") == [("read committed",)]
    assert link.native("SHOW idle_in_transaction_session_timeout") == [("2min",)]
    assert link.native("SHOW client_min_messages") == [("warning",)]
    link.close()


@pytest.mark.parametrize(
    ("name", "given", "stays"),
    [("synchronous_commit", "off", "on"), ("transaction_timeout", "60000", "0")],
)
def test_behind_a_pooler_too_a_dsn_undoes_nothing_that_always_holds(
    postgres: Server, monkeypatch: pytest.MonkeyPatch, name: str, given: str, stays: str
):
    asked = f"SELECT current_setting('{name}', true)"
    if postgres.execute(asked) == [(None,)]:
        pytest.skip(f"the server is older than {name}")
    monkeypatch.setattr(connecting, "_ASK", "SELECT 0, false")
    dsn = f"{postgres.dsn()}&options=-c%20{name}%3D{given}"
    link = Link.connect(parse(dsn).parameters("public"), time.monotonic() + WAIT_S)
    assert link.native(asked) == [(stays,)]
    link.close()


# -- pgbouncer itself


@contextlib.contextmanager
def bouncer(folder: Path, mode: str, *, more: str = "") -> Iterator[str]:
    """The DSN of a pgbouncer before a server of its own."""
    assert PGBOUNCER is not None
    with place(folder) as made, server(made / "one") as one:
        one.execute("CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE postgres TO app")
        port, ini = free_port(), made / "pgbouncer.ini"
        ini.write_text(
            f"[databases]\npostgres = user=app host=127.0.0.1 port={one.port}\n[pgbouncer]\n"
            f"listen_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\nauth_type=any\n"
            f"pool_mode={mode}\n{more}"
        )
        uid, gid = _user()
        who: dict[str, Any] = (
            {} if os.geteuid() else {"user": uid, "group": gid, "extra_groups": []}
        )
        process = subprocess.Popen([PGBOUNCER, "-q", ini], stderr=subprocess.DEVNULL, **who)
        dsn = f"postgresql://app@127.0.0.1:{port}/postgres?sslmode=disable"
        try:
            wait_until(lambda: _answers(port))
            yield dsn
        finally:
            process.terminate()
            process.wait(WAIT_S)


def _answers(port: int) -> bool:
    dsn = f"postgresql://nobody@127.0.0.1:{port}/pgbouncer?sslmode=disable"
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        return "refused" not in str(error)
    return True


def said(dsn: str, folder: Path) -> tuple[int, set[str]]:
    """What several clients hear that save and read at once: how much was right, and the errors."""
    right: list[int] = []
    errors: set[str] = set()

    def live(name: str) -> None:
        kept: list[str] = []
        settings: dict[str, Any] = {
            "files_path": str(folder),
            "auto_cleanup": False,
            "reserve_mb": 0,
        }
        with elytron.open(dsn, **settings) as store:
            for number in range(SAVES):
                with contextlib.suppress(ElytronError):
                    store.agents()  # so that more than one session is used
                try:
                    store.agent(name).save("user", f"I am {name}", id=f"m{number}")
                    kept.append(f"m{number}")
                    found = list(store.agent(name).messages())
                except ElytronError as error:
                    errors.add(f"{type(error).__name__}: {error}")
                else:
                    assert {one.content for one in found} == {f"I am {name}"}
                    assert {one.id for one in found} >= set(kept)
                    right.append(number)

    threads = [threading.Thread(target=live, args=(f"a{n}",)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * WAIT_S)
        assert not thread.is_alive()
    return len(right), errors


@bounced
def test_a_pgbouncer_that_keeps_sessions_is_as_the_server_itself(tmp_path: Path):
    more = "ignore_startup_parameters=options\ndefault_pool_size=50\n"
    with bouncer(tmp_path, "session", more=more) as dsn:
        assert said(dsn, tmp_path / "files") == (CLIENTS * SAVES, set())


@bounced
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pgbouncer_that_mixes_sessions_is_refused_and_mixes_nothing(tmp_path: Path, mode: str):
    more = "ignore_startup_parameters=options\ndefault_pool_size=2\n"
    with bouncer(tmp_path, mode, more=more) as dsn:
        right, errors = said(dsn, tmp_path / "files")
    assert right < CLIENTS * SAVES
    named = {error for error in errors if "pool_mode = session" in error}
    assert named
    # Statement mode closes the connection in the midst of an answer, too.
    assert mode == "statement" or named == errors, errors


@bounced
def test_a_pgbouncer_that_takes_no_options_is_named(tmp_path: Path):
    with bouncer(tmp_path, "session") as dsn:
        right, errors = said(dsn, tmp_path / "files")
    assert right == 0
    assert all("ignore_startup_parameters = options" in error for error in errors), errors
