"""
What several agents' savers save at one moment, which goes to the server as one transaction.

Method: the first to come is held until all others wait behind it; the next transaction is theirs.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

import elytron
from cutter import Cutter
from elytron import ElytronError, OutcomeUnknown, Receipt
from elytron.ledger.postgres import ledgers
from elytron.ledger.postgres.ledger import Lending
from elytron.ledger.postgres.together import AGENTS_MAX, Together
from postgres_server import Kept, Server, wait_until
from quiet import alone

WAIT_S = 60.0
AGENTS = ("alice", "bob", "carol")
FIRST = Lending.agent_id("first")
_TRANSACTIONS = "SELECT count(DISTINCT xmin::text) FROM {}.messages WHERE id = 'new'"

Outcome = Receipt | ElytronError


class Crowd:
    """Savers of several agents of one store, whose messages meet."""

    def __init__(self, store: elytron.Store, names: tuple[str, ...] = AGENTS) -> None:
        self.store, self.names = store, names
        self.sizes = list[int]()  # of the transactions behind the first
        self.before: Callable[[], object] = lambda: None
        self._held = threading.Event()
        alone(store.agent("first"))  # what is linked meanwhile is another's write, too
        for name in ("first", *names):
            for number in range(2):  # from then on session and user are known
                store.agent(name).save("user", "Hello", id=f"old-{number}", user="alice")

    def save(self, **draft: Any) -> dict[str, Outcome]:
        """One message of each, at once; what each was told."""
        waiting = self.store._ledgers._lending._save_grouped.__self__  # type: ignore[attr-defined]
        with self._holding(), ThreadPoolExecutor(1 + len(self.names)) as crew:
            first = crew.submit(self._save, "first", id=None)
            assert self._held.wait(WAIT_S)
            others = {name: crew.submit(self._save, name, **draft) for name in self.names}
            wait_until(lambda: waiting.queued == len(self.names))
            self._held.clear()
            assert isinstance(first.result(WAIT_S), Receipt)
            return {name: future.result(WAIT_S) for name, future in others.items()}

    def _save(self, name: str, *, id: str | None = "new", content: str = "Tea") -> Outcome:
        try:
            return self.store.agent(name).save("user", content, id=id, user="alice")
        except ElytronError as error:
            return error

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        commit = Together.commit

        def held(together: Together, ops: Any, deadline: float) -> list[Any]:
            if ops[0].agent == FIRST:
                self._held.set()
                wait_until(lambda: not self._held.is_set())
            else:
                self.sizes.append(len(ops))
                self.before()
            return commit(together, ops, deadline)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Together, "commit", held)
            yield


@pytest.fixture
def store(postgres: Server, kept_schema: str, folder: Path) -> Iterator[elytron.Store]:
    place = {"files_path": str(folder), "postgres_schema": kept_schema}
    with elytron.open(postgres.dsn(), **place) as store:
        yield store


def held(store: elytron.Store, name: str) -> list[str]:
    return [message.id for message in store.agent(name).messages()]


def test_one_transaction_saves_for_all_who_wait(store, postgres, kept_schema):
    crowd = Crowd(store)
    told = crowd.save()
    assert all(isinstance(each, Receipt) and each.new for each in told.values())
    assert crowd.sizes == [len(AGENTS)]
    assert postgres.execute(_TRANSACTIONS.format(kept_schema)) == [(1,)]
    for name in AGENTS:
        assert held(store, name) == ["old-0", "old-1", "new"]
        assert store.agent(name).check().ok
        assert store.agent(name).save("user", "More", user="alice").new  # what is known is so


def test_no_more_agents_than_the_limit_are_in_one_transaction(store):
    crowd = Crowd(store, tuple([f"agent {number}" for number in range(AGENTS_MAX + 3)]))
    assert all(isinstance(each, Receipt) for each in crowd.save().values())
    assert sorted(crowd.sizes) == [3, AGENTS_MAX]


def test_a_message_that_is_held_already_fails_nobody_else_s(store):
    crowd = Crowd(store)
    store.agent("bob").save("user", "Tea", id="new", user="alice")
    told = crowd.save()
    assert {name: each.new for name, each in told.items()} == {
        "alice": True,
        "bob": False,
        "carol": True,
    }
    assert [held(store, name).count("new") for name in AGENTS] == [1, 1, 1]


def test_whom_another_program_wrote_to_is_saved_all_the_same(store, postgres, kept_schema, folder):
    crowd = Crowd(store)
    place = {"files_path": str(folder), "postgres_schema": kept_schema}
    with elytron.open(postgres.dsn(), **place) as other:
        other.agent("bob").save("user", "Of another", id="other", user="alice")
        assert all(each.new for each in crowd.save().values())
    assert held(store, "bob") == ["old-0", "old-1", "other", "new"]
    assert postgres.execute(_TRANSACTIONS.format(kept_schema)) == [(2,)]
    assert store.agent("bob").check().ok


def test_whom_another_program_has_to_itself_is_waited_for_by_nobody_else(
    store, postgres, kept_schema
):
    crowd = Crowd(store)
    lock = f"SELECT FROM {kept_schema}.agents WHERE agent_id = %s FOR UPDATE"
    with psycopg.connect(postgres.dsn()) as connection, ThreadPoolExecutor(1) as crew:
        connection.execute(lock, (Lending.agent_id("bob"),))
        told = crew.submit(crowd.save)
        wait_until(lambda: held(store, "alice")[-1] == held(store, "carol")[-1] == "new")
        assert not told.done()
        connection.rollback()
        assert all(each.new for each in told.result(WAIT_S).values())
    assert held(store, "bob")[-1] == "new"


def test_spread_over_several_databases_each_agent_has_its_own_transaction(
    postgres, kept_schema, folder, monkeypatch
):
    """Citus is in no registry: the server is asked whether it has another extension."""
    monkeypatch.setattr(ledgers, "_SPREAD", ledgers._SPREAD.replace("citus", "plpgsql"))
    monkeypatch.setattr(Together, "commit", None)
    place = {"files_path": str(folder), "postgres_schema": kept_schema}
    with elytron.open(postgres.dsn(), **place) as store:
        crowd = Crowd(store)
        assert all(isinstance(crowd._save(name), Receipt) for name in AGENTS)
    assert postgres.execute(_TRANSACTIONS.format(kept_schema)) == [(len(AGENTS),)]


def test_whichever_message_is_the_last_each_saver_hears_what_is_so(
    own_postgres: Server, own_kept: Kept, folder: Path, request: pytest.FixtureRequest
):
    """
    Method: the nth message to the server does not arrive, or its answer does not. A few of them;
    all with `--proof`.
    """
    place = {"files_path": str(folder), "postgres_schema": own_kept.ready()}
    with Cutter(own_postgres.port) as cutter, elytron.open(own_postgres.dsn(), **place) as other:
        alone(other.agent("first"))
        with elytron.open(own_postgres.dsn(port=cutter.port), **place) as store:
            crowd = Crowd(store)
            crowd.before = lambda: cutter.arm(0)
            crowd.save(content="Counted")
            count = cutter.count
            for name in AGENTS:
                store.agent(name).delete("new")
        assert count > 2 * len(AGENTS)
        met = set[type]()
        proof = request.config.getoption("--proof", default=False)
        for nth in range(1, count + 1) if proof else (count // 2, count - 1, count):
            for after in (False, True):
                met |= _cut(other, own_postgres, place, cutter, nth, after)
        assert OutcomeUnknown in met
    own_kept.empty()


def _cut(
    other: elytron.Store,
    server: Server,
    place: dict[str, str],
    cutter: Cutter,
    nth: int,
    after: bool,
) -> set[type]:
    """What the savers were told, and was so."""
    with elytron.open(server.dsn(port=cutter.port), **place) as store:
        crowd = Crowd(store)
        crowd.before = lambda: cutter.arm(nth, after=after)
        told = crowd.save()
        cutter.arm(0)
        cutter.settle(server)
        there = {name: "new" in held(other, name) for name in AGENTS}
        assert len(set(there.values())) == 1, "a part of a transaction"
        for name, each in told.items():
            if isinstance(each, ElytronError):
                assert each.retryable
                assert isinstance(each, OutcomeUnknown) or not there[name], f"{each!r}"
            else:
                assert there[name], "a receipt for nothing"
            assert (
                store.agent(name).save("user", "Tea", id="new", user="alice").new is not there[name]
            )
            assert other.agent(name).check().ok
            assert other.agent(name).delete("new")
    return {type(each) for each in told.values()}


def test_while_the_server_hangs_each_saver_hears_in_time(own_postgres, own_kept, folder):
    # Long enough for all to come together on a machine that stands still for a while.
    place = {"files_path": str(folder), "postgres_schema": own_kept.ready(), "save_timeout_s": 5.0}
    with elytron.open(own_postgres.dsn(), **place) as store:
        crowd = Crowd(store)
        crowd.before = own_postgres.hang
        try:
            told = crowd.save()
        finally:
            own_postgres.wake()
        assert all(isinstance(each, OutcomeUnknown) for each in told.values())
        assert all(isinstance(crowd._save(name), Receipt) for name in AGENTS)
        assert all(held(store, name).count("new") == 1 for name in AGENTS)
    own_kept.empty()
