"""
Links: a bounded number of connections for one store, lent to one thread at a time.

One that was about the same agent before is lent first: its session need not be told whose rows
are meant. A connection that broke is closed; the next who asks makes a new one.
"""

import os
import threading
import time
import uuid

import psycopg

from elytron.errors import Busy, Closed, ElytronError, Forked
from elytron.ledger.postgres import faults
from elytron.ledger.postgres.dsn import Dsn
from elytron.ledger.postgres.link import Link


class Links:
    """Lends connections, opening them on demand: at most *size* at a time."""

    def __init__(self, dsn: Dsn, schema: str, *, size: int, timeout_s: float) -> None:
        self._dsn = dsn
        self._parameters = dsn.parameters(schema)
        # Half of what a caller waits at most: so it hears that another has the agent, and not that
        # nobody knows what became of the save.
        lock_ms = max(1, int(timeout_s * 500))
        self._parameters["options"] += f" -c lock_timeout={lock_ms}ms"
        self._size = size
        self._timeout_s = timeout_s
        self._pid = os.getpid()
        self._places = threading.BoundedSemaphore(size)
        self._mutex = threading.Lock()
        self._idle: list[Link] = []  # the one that came back last is last
        self._closed = False

    def borrow(self, agent_id: uuid.UUID | None = None, deadline: float | None = None) -> Link:
        """
        A link, bound to *agent_id*, whose statements end by *deadline* (monotonic).

        Without a deadline it is `timeout_s` from now.

        Raises:
            Busy: all were taken until then.
            Unavailable: the server cannot be reached, or is a standby: what it says may be old, and
                nothing in an answer would tell.
            Closed, Forked: the store is of no use any more.
        """
        self._check()
        begun = time.monotonic()
        until = begun + self._timeout_s if deadline is None else deadline
        if not self._places.acquire(timeout=min(max(0.0, until - begun), threading.TIMEOUT_MAX)):
            raise Busy(
                f"all {self._size} connections to {self._dsn} were taken for"
                f" {time.monotonic() - begun:.1f} s; retry later, or raise `postgres_connections`"
            )
        try:
            link = self._take_idle(agent_id) or self._connect(until)
            link.deadline, link.committing = until, False
            if agent_id is not None:
                link.bind(agent_id)
        except BaseException:
            self._places.release()
            raise
        return link

    def give_back(self, link: Link, *, broken: bool = False) -> None:
        """Return a link. It is closed if it is *broken*, or in the midst of a transaction."""
        if os.getpid() != self._pid:
            return  # the parent's; the fork closed the child's copy
        link.deadline = float("inf")
        fine = not broken and link.is_idle()
        with self._mutex:
            keep = fine and not self._closed
            if keep:
                self._idle.append(link)
        if not keep:
            link.close()
        self._places.release()

    def close(self) -> None:
        """Close the idle links. Those lent out are closed when they come back."""
        if os.getpid() != self._pid:
            return
        with self._mutex:
            self._closed = True
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise Forked(
                "this process is a fork of the one that opened the store; open the store anew here"
            )
        if self._closed:
            raise Closed(f"the store on {self._dsn} was closed; open it again")

    def _take_idle(self, agent_id: uuid.UUID | None) -> Link | None:
        """An idle link, the one about this agent first; those that died meanwhile are closed."""
        while True:
            with self._mutex:
                if not self._idle:
                    return None
                of_agent = [link for link in self._idle if link.agent == agent_id]
                link = of_agent[-1] if of_agent else self._idle[-1]
                self._idle.remove(link)
            if link.is_alive():
                return link
            link.close()

    def _connect(self, until: float) -> Link:
        try:
            link = Link.connect(self._parameters, until)
        except faults.STORAGE_ERRORS as error:
            raise faults.translate(error, self._dsn, connecting=True) from error
        if link.standby:
            link.close()
            raise faults.standby(self._dsn)
        return link

    def translate(
        self, error: psycopg.Error | UnicodeError, *, committing: bool = False, writing: bool = True
    ) -> ElytronError:
        """What an error of a link means for the caller."""
        return faults.translate(error, self._dsn, committing=committing, writing=writing)
