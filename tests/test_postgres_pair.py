"""Two servers, each commit on both: what hangs is heard of, what was told to be done is kept."""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from elytron.errors import OutcomeUnknown
from elytron.ledger.postgres import faults
from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.links import Links
from postgres_server import Pair, pair, place, wait_until

AGENT = uuid.UUID(int=7)
SOON_S = 30.0
SHORT_S = 0.5
SENT_S = 3.0  # a COMMIT is by then, also where the machine stands still for a while
ADD = "INSERT INTO things VALUES(%(agent)s, %(key)s)"
WAITS = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
REPLICATES = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair for all tests that leave both servers alive."""
    folder: Path = tmp_path_factory.mktemp("pair")
    with place(folder) as made, pair(made) as both:
        yield both


@pytest.fixture
def link(both: Pair) -> Iterator[Link]:
    """A link to the primary, with an empty table there."""
    link = connect(both.primary.dsn())
    link.native("DROP TABLE IF EXISTS things; CREATE TABLE things(agent_id uuid, key bigint)")
    yield link
    link.close()
    both.primary.wake()
    both.standby.wake()
    wait_until(lambda: both.primary.execute(REPLICATES))


def connect(dsn: str, timeout_s: float = SOON_S) -> Link:
    link = Link.connect(parse(dsn).parameters("public"), time.monotonic() + timeout_s)
    link.bind(AGENT)
    return link


def begun(link: Link, key: int) -> None:
    link.execute("BEGIN")
    link.native(ADD, {"key": key})


@pytest.mark.parametrize("statement_bytes", [1, 20_000_000], ids=["small", "large"])
def test_a_server_that_hangs_is_heard_of_in_time(both: Pair, link: Link, statement_bytes: int):
    """A large statement does not even fit into what the kernels hold between the two."""
    both.primary.hang()
    link.deadline = time.monotonic() + SHORT_S
    with pytest.raises(faults.NoAnswer):
        link.native("SELECT length(%s)", ("x" * statement_bytes,))
    assert link.closed
    with pytest.raises(faults.NoAnswer):
        connect(both.primary.dsn(), SHORT_S)


def test_a_commit_that_waits_for_a_standby_that_hangs_is_in_doubt(both: Pair, link: Link):
    begun(link, 1)
    both.standby.hang()
    link.deadline = time.monotonic() + SENT_S
    with pytest.raises(faults.NoAnswer) as caught:
        link.execute("COMMIT")
    told = faults.translate(caught.value, "the store", committing=link.committing)
    assert type(told) is OutcomeUnknown
    both.standby.wake()
    wait_until(lambda: both.primary.execute("SELECT key FROM things") == [(1,)])
    other = connect(both.primary.dsn())
    begun(other, 2)
    other.execute("COMMIT")
    assert both.primary.execute("SELECT key FROM things ORDER BY 1") == [(1,), (2,)]
    other.close()


def ended(both: Pair, link: Link) -> None:
    """A commit is told to be in doubt whose waiting for the standby an administrator ends."""
    begun(link, 1)
    ((backend,),) = link.native("SELECT pg_backend_pid()")
    both.standby.hang()

    def end_it() -> None:
        wait_until(lambda: both.primary.execute(WAITS, (backend,)))
        both.primary.execute("SELECT pg_cancel_backend(%s)", (backend,))

    thread = threading.Thread(target=end_it)
    thread.start()
    with pytest.raises(faults.NotReplicated) as caught:
        link.execute("COMMIT")
    thread.join()
    told = faults.translate(caught.value, "the store", committing=link.committing)
    assert type(told) is OutcomeUnknown


def test_a_commit_whose_waiting_somebody_ends_is_no_success(both: Pair, link: Link):
    """The server says that all is well, and warns that the standby may not have it."""
    ended(both, link)


@pytest.mark.parametrize(
    "more", ["", "&options=-c%20client_min_messages%3Derror"], ids=["role", "dsn"]
)
def test_who_hides_warnings_hears_of_such_a_commit_all_the_same(both: Pair, link: Link, more: str):
    link.native("ALTER ROLE postgres SET client_min_messages = error")
    try:
        with contextlib.closing(connect(both.primary.dsn() + more)) as hiding:
            ended(both, hiding)
    finally:
        both.standby.wake()
        link.native("ALTER ROLE postgres RESET client_min_messages")


def test_a_standby_says_that_it_is_one_and_takes_no_writes(both: Pair, link: Link):
    assert not link.standby
    standby = connect(both.standby.dsn())
    assert standby.standby
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        standby.native("CREATE TABLE other(x bigint)")
    standby.close()
    found = connect(Pair(both.standby, both.primary).dsn())  # the standby is named first
    assert not found.standby
    found.close()


def test_no_acknowledged_write_is_lost_with_the_primary(replicated: Pair):
    """
    Method: two writers commit one row after another until the primary is killed; then the
    standby is promoted, and the same links find it. What they were told to be done is there.
    """
    replicated.primary.execute("CREATE TABLE things(agent_id uuid, key bigint)")
    links = Links(parse(replicated.dsn()), "public", size=4, timeout_s=SOON_S)
    done: list[int] = []
    failed: list[str] = []

    def write(first: int) -> None:
        link = links.borrow(AGENT)
        try:
            for key in range(first, 1_000_000, 2):
                begun(link, key)
                link.execute("COMMIT")
                done.append(key)
        except psycopg.Error as error:
            failed.append(links.translate(error, committing=link.committing).code)
        finally:
            links.give_back(link)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(done) > 100)
    replicated.primary.kill()
    for thread in threads:
        thread.join(SOON_S)
    assert len(failed) == 2
    assert set(failed) <= {"unavailable", "outcome-unknown"}
    replicated.promote()
    link = links.borrow(AGENT)
    held = {key for (key,) in link.native("SELECT key FROM things WHERE agent_id = %(agent)s")}
    assert set(done) <= held
    assert len(held) <= len(done) + 2  # those in doubt
    assert not link.standby
    begun(link, -1)
    link.execute("COMMIT")
    links.give_back(link)
    links.close()
