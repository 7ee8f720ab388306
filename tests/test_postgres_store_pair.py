"""Through the verbs of a store: two servers, of which one dies, hangs, or is not to be asked."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

import elytron
from elytron import Agent, Busy, Closed, ElytronError, OutcomeUnknown, Store, Unavailable
from every_call import check_error
from postgres_server import Pair, pair, place, wait_until

SCHEMA = "pair"
NAMES = ("bob", "eve")
SHORT_S = 1.0
SENT_S = 5.0
HEARD_MAX_S = 40.0  # on a busy machine; a server that hangs is never heard without our own wait
PATIENT_S = 30
FIRST, THEN = 20, 5  # saves of each saver, before the primary dies and after
REPLICATES = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"
NAMED = "ALTER SYSTEM SET synchronous_standby_names = '{}'"
T = TypeVar("T")
SETTINGS: dict[str, Any] = {
    "postgres_schema": SCHEMA,
    "reserve_mb": 0,
    "auto_cleanup": False,
    "link_concepts": False,
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair for all tests that leave both servers alive; there is an agent in a store already."""
    with place(tmp_path_factory.mktemp("pair")) as made, pair(made) as both:
        yield both


@pytest.fixture
def open_pair(folder: Path) -> Iterator[Callable[..., Store]]:
    """A store on a server, or on both; closed after the test."""
    opened: list[Store] = []

    def open_one(dsn: str, **settings: Any) -> Store:
        store = elytron.open(dsn, files_path=str(folder), **{**SETTINGS, **settings})
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(both: Pair, open_pair: Callable[..., Store]) -> Iterator[Store]:
    """On the pair, and not patient; what there was of it before is gone."""
    both.primary.execute(f"SET client_min_messages = error; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    store = open_pair(both.dsn(), save_timeout_s=SHORT_S, read_timeout_s=SHORT_S)
    for name in NAMES:
        saved(store.agent(name), "first")
    yield store
    both.primary.wake()
    both.standby.wake()
    wait_until(lambda: both.primary.execute(REPLICATES))


def save(agent: Agent, id: str) -> bool:
    return agent.save("user", f"This is {id}.", id=id, session="web").new


def patiently(work: Callable[[], T]) -> T:
    """What comes of it in the end, for a caller who takes errors for what they are."""
    problems = list[ElytronError]()
    while len(problems) < 100:
        try:
            return work()
        except (Busy, Unavailable, OutcomeUnknown) as error:
            problems.append(error)
    raise AssertionError("it was never done") from problems[-1]


def saved(agent: Agent, id: str) -> bool:
    """Save until it is done; whether it was new the last time."""
    return patiently(lambda: save(agent, id))


def ids(agent: Agent) -> list[str]:
    return patiently(lambda: [message.id for message in agent.messages()])


def check_whole(store: Store) -> None:
    for name in patiently(store.agents):
        report = patiently(store.agent(name).check)
        assert report.ok, report.findings
        assert not report.findings


class Saver(threading.Thread):
    """Saves one message after the other, each until it is done; notes what it was told."""

    def __init__(self, agent: Agent, name: str) -> None:
        super().__init__(name=name)
        self.agent = agent
        self.done: list[str] = []
        self.after = 0  # how many were done since the errors began
        self.errors: list[ElytronError] = []
        self.problem: BaseException | None = None
        self.enough = threading.Event()

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                self._save(f"{self.name}-{len(self.done)}")
                self.after += bool(self.errors)
        except BaseException as problem:
            self.problem = problem
            raise

    def _save(self, id: str) -> None:
        while not self.enough.is_set():
            try:
                self.agent.save("user", f"This is {id}.", id=id, session=self.name)
            except ElytronError as error:
                self.errors.append(error)
                self.enough.wait(0.05)  # a server that is gone refuses at once
            else:
                self.done.append(id)
                return


def test_no_acknowledged_save_is_lost_with_the_primary(
    replicated: Pair, open_pair: Callable[..., Store]
) -> None:
    """
    Method: four savers, two of them on one agent; the primary is killed, the standby promoted. The
    same store objects go on, the one too that named the standby alone and was refused.
    """
    store = open_pair(replicated.dsn(), save_timeout_s=PATIENT_S)
    other = open_pair(replicated.dsn(), save_timeout_s=PATIENT_S)
    alone = open_pair(replicated.standby.dsn())
    agents = [store.agent("bob"), store.agent("bob"), store.agent("eve"), other.agent("eve")]
    savers = [Saver(agent, f"s{number}") for number, agent in enumerate(agents)]
    for saver in savers:
        saver.start()
    try:
        wait_until(lambda: all(len(saver.done) >= FIRST for saver in savers))
        with pytest.raises(Unavailable, match="is a standby"):
            alone.agents()
        replicated.primary.kill()
        wait_until(lambda: all(saver.errors for saver in savers))
        replicated.promote()
        wait_until(lambda: all(saver.after >= THEN for saver in savers))
    finally:
        for saver in savers:
            saver.enough.set()
        for saver in savers:
            saver.join(HEARD_MAX_S)
    for saver in savers:
        assert saver.problem is None
        assert all(error.retryable for error in saver.errors)
        assert {type(error) for error in saver.errors} <= {Unavailable, OutcomeUnknown, Busy}
        for error in saver.errors:
            check_error(error)
        held = [one.id for one in saver.agent.history(saver.name, limit=1000)]
        assert held[: len(saver.done)] == saver.done
        assert len(held) <= len(saver.done) + 1  # one in doubt when it was told to stop
    check_whole(alone)


def test_every_caller_hears_of_a_primary_that_hangs(both: Pair, store: Store) -> None:
    """Method: all at once, readers and writers and those in the queue behind them."""
    asked: dict[str, Callable[[], object]] = {
        f"save {name} {number}": lambda name=name, number=number: save(
            store.agent(name), f"m{number}"
        )
        for name in NAMES
        for number in range(4)
    }  # fmt: skip
    asked |= {
        "new agent": lambda: store.agent("new").save("user", "Hello", id="new"),
        "history": lambda: store.agent("bob").history("web"),
        "recall": lambda: store.agent("eve").recall("first"),
        "usage": lambda: store.agent("bob").usage(),
        "agents": store.agents,
        "archive": lambda: store.agent("eve").archive(older_than_days=0, keep=0),
        "remember": lambda: store.agent("bob").remember("Alice likes tea", id="tea"),
    }
    both.primary.hang()
    with ThreadPoolExecutor(len(asked)) as pool:
        futures = {what: pool.submit(work) for what, work in asked.items()}
        errors = {what: future.exception(HEARD_MAX_S) for what, future in futures.items()}
    for what, error in errors.items():
        assert isinstance(error, Busy | Unavailable | OutcomeUnknown), what
        assert error.retryable, what
        check_error(error)
    both.primary.wake()
    for name in NAMES:
        for number in range(4):
            saved(store.agent(name), f"m{number}")
        assert sorted(ids(store.agent(name))) == ["first", *[f"m{number}" for number in range(4)]]
    check_whole(store)


def test_a_store_closes_while_its_server_hangs(both: Pair, store: Store) -> None:
    both.primary.hang()
    store.close()
    with pytest.raises(Closed):
        store.agents()


def test_without_its_standby_a_save_waits_or_goes_on_as_the_server_is_set(
    both: Pair, store: Store, open_pair: Callable[..., Store]
) -> None:
    bob = store.agent("bob")
    # In doubt is what was sent: for that there is time on a machine that stands still for a while.
    other = open_pair(both.dsn(), save_timeout_s=SENT_S).agent("bob")
    saved(other, "known")
    both.standby.kill()
    with pytest.raises(OutcomeUnknown):
        save(other, "doubtful")
    both.primary.execute(NAMED.format(""))
    both.primary.execute("SELECT pg_reload_conf()")
    saved(bob, "later")
    assert not saved(bob, "doubtful")  # the primary alone had it
    assert ids(bob) == ["first", "known", "doubtful", "later"]
    check_whole(store)
    both.standby.start()
    both.primary.execute(NAMED.format("b"))
    both.primary.execute("SELECT pg_reload_conf()")
    wait_until(lambda: both.primary.execute(REPLICATES))
    saved(bob, "last")


def test_a_standby_is_not_asked_since_it_may_be_behind(
    both: Pair, store: Store, open_pair: Callable[..., Store]
) -> None:
    """Nothing in a list of hits, least of all in an empty one, would say that it is old."""
    alone = open_pair(both.standby.dsn())
    asked: list[Callable[[], object]] = [
        alone.agents,
        lambda: alone.agent("bob").history("web"),
        lambda: alone.agent("bob").recall("first"),
        lambda: alone.agent("bob").save("user", "Hello"),
    ]
    for work in asked:
        with pytest.raises(Unavailable, match="is a standby") as caught:
            work()
        assert caught.value.retryable
        check_error(caught.value)
    reversed_too = open_pair(Pair(both.standby, both.primary).dsn())
    assert reversed_too.agents() == sorted(NAMES)
    assert ids(store.agent("bob")) == ["first"]
