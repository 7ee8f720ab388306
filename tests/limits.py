"""Watching limits from beside: what is held after each commit, and how large the files are."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest

import elytron
from elytron.ledger.postgres.ledger import PostgresLedger, counted_bytes
from elytron.ledger.sqlite import Ledger
from ledgers import ledger_path, wal_path
from quiet import at_rest

WAIT_S = 60


class Samples:
    """Messages held, and bytes, after each commit of this process."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.sizes: list[tuple[int, int]] = []  # file, WAL; on a server what is counted, and 0


@contextlib.contextmanager
def watched(store: Path, *, agent: str = "bob") -> Iterator[Samples]:
    """Look after every commit, whoever commits; still under the lock of a ledger in a file."""
    samples = Samples()
    plain = Ledger._transact

    def transact(self: Ledger, db: apsw.Connection, ops: Any) -> list[Any]:
        results = plain(self, db, ops)
        samples.held.append(db.execute("SELECT count(*) FROM messages").get)
        samples.sizes.append(sizes(store, agent=agent))
        return results

    plain_far = PostgresLedger._commit

    def commit(self: PostgresLedger, ops: Any, deadline: float) -> list[Any]:
        results = plain_far(self, ops, deadline)
        with self.reading() as link:
            samples.held.append(link.execute("SELECT count(*) FROM messages").get)
            samples.sizes.append((counted_bytes(link), 0))
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "_transact", transact)
        patch.setattr(PostgresLedger, "_commit", commit)
        yield samples


def sizes(store: Path, *, agent: str = "bob") -> tuple[int, int]:
    """Bytes of the file and of the WAL. By their names alone: nothing is opened."""
    found = []
    for path in (ledger_path(store, agent), wal_path(store, agent)):
        try:
            found.append(os.stat(path).st_size)
        except FileNotFoundError:
            found.append(0)
    return found[0], found[1]


@contextlib.contextmanager
def sampled(store: Path, *, agent: str = "bob") -> Iterator[list[tuple[int, int]]]:
    """Look at the sizes all the time, from another thread."""
    found: list[tuple[int, int]] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.0005):
            found.append(sizes(store, agent=agent))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Call *work* with 0, 1, ... on so many threads that begin together; their results."""
    together = threading.Barrier(count)

    def begin(number: int) -> Any:
        together.wait(WAIT_S)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        futures: list[Future[Any]] = [pool.submit(begin, number) for number in range(count)]
        return [future.result(timeout=WAIT_S) for future in futures]


def everything(agent: elytron.Agent) -> dict[str, elytron.Message]:
    """All that is held or archived, by id; each in one place only."""
    found = list(agent.messages(archived=True))
    by_id = {message.id: message for message in found}
    assert len(by_id) == len(found), "something is in both places"
    return by_id


def check_order(agent: elytron.Agent, saved: dict[str, list[str]]) -> None:
    """
    That each session, held or archived, is in the order in which it was saved.

    For memories of which the oldest leave first: those in the archive come before the others.
    What leaves while one looks is seen last, so first whoever makes room ahead of saves ends.
    """
    at_rest(agent)
    found = everything(agent)
    assert set(found) == {key for keys in saved.values() for key in keys}
    for session, keys in saved.items():
        assert [key for key, message in found.items() if message.session == session] == keys
        places = [message.position for message in agent.history(session, limit=10_000)]
        assert places == sorted(set(places))
