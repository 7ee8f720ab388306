"""A store on a server under attack: what was found by trying to lose, double, leak or hang."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import elytron
from elytron import Busy, InvalidArgument, Unavailable
from elytron.faces.cli import main
from elytron.ledger.ops import NoteUses
from elytron.ledger.postgres import ledger as ledger_module
from elytron.ledger.postgres import ledgers as ledgers_module
from elytron.ledger.postgres import writing
from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.ledger import Lending, PostgresLedger
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.links import Links
from postgres_server import Given, Server, wait_until

WAIT_S = 60.0
AGENT = Lending.agent_id("bob")
# Two transactions of one agent: what the second sees once it is let through.
_WAITS = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s"

Open = Callable[..., elytron.Store]


@pytest.fixture
def opened(postgres: Server, kept_schema: str, folder: Path) -> Iterator[Open]:
    """Stores on the server, as of several programs; closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_one(*, files: Path = folder, **settings: Any) -> elytron.Store:
            store = elytron.open(
                postgres.dsn(), files_path=str(files), postgres_schema=kept_schema, **settings
            )
            return stack.enter_context(store)

        yield open_one


def linked(server: Server, schema: str) -> Link:
    link = Link.connect(parse(server.dsn()).parameters(schema), time.monotonic() + WAIT_S)
    link.bind(AGENT)
    return link


def contents(store: elytron.Store) -> list[str]:
    return [message.content for message in store.agent("bob").messages()]


# -- who is first


def test_programs_that_begin_a_store_at_once_agree_on_its_folder(opened, monkeypatch):
    """Each looks for the folder's id before one has written it: all the same they get one."""
    looked = threading.Barrier(4)
    read = ledgers_module.files.read_json

    def read_and_wait(path: Path) -> dict[str, object] | None:
        found = read(path)
        if path.name == "postgresql.json" and found is None:
            with contextlib.suppress(threading.BrokenBarrierError):
                looked.wait(timeout=0.3)
        return found

    monkeypatch.setattr(ledgers_module.files, "read_json", read_and_wait)
    stores = [opened() for _ in range(4)]

    def begin(store: elytron.Store) -> bool:
        return store.agent(f"agent {stores.index(store)}").save("user", "Hello").new

    with ThreadPoolExecutor(4) as crew:
        assert all(crew.map(begin, stores))
    monkeypatch.undo()
    assert opened().agent("later").save("user", "Hello").new


def test_a_store_is_not_read_with_another_folder_than_its_archives_are_in(opened, tmp_path):
    opened().agent("bob").save("user", "Hello")
    other = tmp_path / "other"
    for ask in (contents, elytron.Store.agents):
        with pytest.raises(Unavailable, match="files_path"):
            ask(opened(files=other))
    assert not other.exists()


# -- what a waiting writer sees


def test_a_writer_that_waited_sees_all_that_was_written_meanwhile(opened, postgres, kept_schema):
    """Of one statement that waits for a row, only that row would be new to it."""
    opened().agent("bob").save("user", "Hello")
    first, second = linked(postgres, kept_schema), linked(postgres, kept_schema)
    with contextlib.closing(first), contextlib.closing(second), ThreadPoolExecutor(1) as crew:
        ((pid,),) = second.native("SELECT pg_backend_pid()")
        first.execute("BEGIN")
        first.native("SELECT FROM agents WHERE agent_id = %(agent)s::uuid FOR UPDATE")
        writes = writing.LinkWrites(
            second, source="it", change_max=100, wal_limit_bytes=1 << 20, max_concepts=10
        )
        waiting = crew.submit(writes.lock, time.monotonic() + WAIT_S)
        wait_until(lambda: postgres.execute(_WAITS, (pid,)))
        given = '{"origin": "a", "run": "b", "state": "half"}'
        first.execute("INSERT INTO meta VALUES('carried', ?)", (given,))
        first.execute("INSERT INTO meta VALUES('graph_bytes', ?)", ("4096",))
        first.execute("UPDATE indexed SET key = ?", (7,))
        first.execute("COMMIT")
        held = waiting.result(WAIT_S)
        second.execute("ROLLBACK")
    assert (held.indexed, held.graph_bytes, writes.half_done) == (7, 4096, True)


def test_a_server_that_lost_its_last_commits_is_not_taken_for_what_it_was(
    opened, postgres, kept_schema
):
    """
    A standby that was behind, and is the primary now, may get to as many commits as before by other
    ways: what a program remembers of those that were lost must not hold for them.
    """
    first, second = opened(), opened()
    first.agent("bob").save("user", "One", session="a")
    with contextlib.closing(linked(postgres, kept_schema)) as link:
        was = link.native("SELECT * FROM agents WHERE agent_id = %(agent)s::uuid")[0]
        first.agent("bob").save("user", "Two", session="b")
        for table in ("messages", "sessions", "changes"):
            column = "seq" if table == "changes" else "key"
            link.execute(f"DELETE FROM {table} WHERE {column} > ?", (was[-1],))
        link.native("DELETE FROM agents WHERE agent_id = %(agent)s::uuid")
        link.native("INSERT INTO agents VALUES(%s, %s, %s, %s, %s, %s)", was)
    second.agent("bob").save("user", "Two", session="c")
    first.agent("bob").save("user", "Three", session="b")
    held = {message.content: message.session for message in first.agent("bob").messages()}
    assert held == {"One": "a", "Two": "c", "Three": "b"}


# -- who waits for how long


def test_who_waits_behind_one_that_hangs_at_opening_hears_in_time(opened, monkeypatch):
    """The others wait until their own deadline, however long the first one takes."""
    opened().agent("bob").save("user", "Hello")
    store = opened(save_timeout_s=0.2, read_timeout_s=0.2)
    hangs, heard = threading.Event(), threading.Event()
    borrow = Links.borrow

    def borrow_and_hang(self: Links, *given: Any) -> Link:
        hangs.set()  # first: with a machine that stands still there may be no link in time
        heard.wait(WAIT_S)
        return borrow(self, *given)

    with ThreadPoolExecutor(2) as crew:
        monkeypatch.setattr(Links, "borrow", borrow_and_hang)
        first = crew.submit(store.agents)
        assert hangs.wait(WAIT_S)
        try:
            with pytest.raises(Busy):
                crew.submit(store.agents).result(WAIT_S / 2)
        finally:
            heard.set()
        assert isinstance(first.exception(WAIT_S), elytron.ElytronError | None)
        monkeypatch.undo()


def test_closing_many_agents_asks_a_server_that_is_away_once(opened, monkeypatch):
    """Each that is tried may take as long as a server that hangs does not answer."""
    store = opened(link_concepts=False)  # nor does linking commit anything meanwhile
    for number in range(3):
        agent = store.agent(f"agent {number}")
        agent.save("user", "Some green tea")
        agent.recall("tea")
    tried = list[PostgresLedger]()

    def fail(self: PostgresLedger, ops: Any, deadline: float) -> list[Any]:
        tried.append(self)
        return [Unavailable("away", retryable=True)] * len(ops)

    monkeypatch.setattr(PostgresLedger, "commit", fail)
    store.close()
    assert len(tried) == 1


def test_what_was_queued_in_time_is_written_however_late_its_turn_comes(opened, monkeypatch):
    """As in a file: whoever still waits for it would else hear that the server did not answer."""
    monkeypatch.setattr(ledger_module, "_LATE_S", WAIT_S)  # this machine may be slow
    store = opened()
    store.agent("bob").save("user", "Hello")
    with store._agents.use("bob", create=True) as agent:
        assert agent is not None
        assert agent.ledger.commit([NoteUses({})], time.monotonic() - 1) == [None]


# -- what a server may be set to


def test_a_role_that_asks_for_another_isolation_gets_ours(postgres: Server, kept_schema: str):
    """With it a writer that waited for another would fail, however often it tried."""
    if isinstance(postgres, Given):
        pytest.skip("its address has settings of its own")
    text = f"{postgres.dsn()}&options=-c%20default_transaction_isolation%3Dserializable"
    parameters = parse(text).parameters(kept_schema)
    with contextlib.closing(Link.connect(parameters, time.monotonic() + WAIT_S)) as link:
        assert link.native("SHOW transaction_isolation") == [("read committed",)]


def test_a_database_that_cannot_hold_every_text_is_refused(postgres: Server, folder: Path):
    name = "in_latin"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    dsn = postgres.dsn().replace("/postgres?", f"/{name}?")
    try:
        with (
            elytron.open(dsn, files_path=str(folder)) as store,
            pytest.raises(Unavailable, match=r"LATIN1, .* UTF8"),
        ):
            store.agent("bob").save("user", "Hello")
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


# -- what is shown


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://bob:12/secret@host/db",
        "postgresql://bob:/secret@host/db",
        "postgresql://bob:1,2/secret@host:5/db",
        "postgresql:///secret@host/db",
    ],
)
def test_a_password_with_a_slash_is_not_shown_as_the_database(text: str):
    with pytest.raises(InvalidArgument) as caught:
        parse(text)
    assert "secret" not in str(caught.value)


def test_a_backup_that_is_no_folder_is_refused_without_its_password(tmp_path: Path):
    place = ["--store", str(tmp_path), "--from", "postgresql://bob:secret@host/db"]
    result = CliRunner().invoke(main, ["restore", *place])
    assert result.exit_code == 2
    assert "secret" not in result.output
    assert "must be a folder" in result.output


def test_a_database_may_have_an_at_sign_that_is_written_as_it_has_to_be():
    assert parse("postgresql://bob@host/a%40b").shown == "postgresql://bob@host/a%40b"
