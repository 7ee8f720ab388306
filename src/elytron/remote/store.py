"""
Store, from afar: many agents behind one URL, with one set of connections and one close.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from elytron.errors import InvalidArgument, Unavailable
from elytron.ledger import files
from elytron.records import Receipt, StoreUsage
from elytron.remote.admitting import Admitting
from elytron.remote.agent import RemoteAgent, perform
from elytron.remote.alarms import Alarms
from elytron.remote.calls import STORE_CALLS
from elytron.remote.connection import Connection
from elytron.remote.submitted import Submitted
from elytron.reports import Alarm, BackedUp, Deleted
from elytron.store import Store


class RemoteStore(Store):
    """A store that is served elsewhere. Got from `elytron.connect`; safe for many threads."""

    def __init__(
        self, url: str, *, token: str | None, timeout_s: float, connections_max: int
    ) -> None:
        """Use `elytron.connect`."""
        self._connection = Connection(
            url, token=token, timeout_s=timeout_s, connections_max=connections_max
        )
        self.check_usable = self._connection.check_usable
        self._submitted = Submitted(self._save_many, int(connections_max))
        self._alarms = Alarms(self._connection)
        try:
            told = self._connection.hello()
        except BaseException:
            self._connection.close()
            raise
        self._admitting = Admitting(told.get("limits"))

    @property
    def url(self) -> str:
        """Where it is served."""
        return self._connection.url

    def agent(self, name: str) -> RemoteAgent:
        """See `Store.agent`."""
        self.check_usable()
        return RemoteAgent(
            files.check_name(name), self._connection, self._admitting, self._submitted
        )

    def agents(self) -> list[str]:
        """See `Store.agents`. Those that the token is for."""
        names: list[str] = perform(self._connection, STORE_CALLS["agents"], {})
        return names

    def usage(self) -> StoreUsage:
        """See `Store.usage`. What is of a process is of the server's."""
        usage: StoreUsage = perform(self._connection, STORE_CALLS["usage"], {})
        return usage

    def delete(self, name: str) -> Deleted:
        """See `Store.delete`. What was submitted to it on this side is sent before."""
        name = files.check_name(name)
        self.check_usable()
        self._submitted.wait(name, None)
        report: Deleted = perform(self._connection, STORE_CALLS["delete"], {}, agent=name)
        return report

    def rename(self, old: str, new: str) -> None:
        """See `Store.rename`. What was submitted to it on this side is sent before."""
        old = files.check_name(old)
        self.check_usable()
        self._submitted.wait(old, None)
        perform(self._connection, STORE_CALLS["rename"], {"new": files.check_name(new)}, agent=old)

    def cleanup(self) -> bool:
        """See `Store.cleanup`."""
        done: bool = perform(self._connection, STORE_CALLS["cleanup"], {})
        return done

    def backup(
        self,
        to: str | os.PathLike[str],  # noqa: ARG002
        *,
        agents: Iterable[str] | None = None,  # noqa: ARG002
        on_progress: Callable[[int, int], None] | None = None,  # noqa: ARG002
    ) -> BackedUp:
        """
        Not from afar: a server writes to no path that a client names.

        Raises:
            Unavailable: always.
        """
        raise Unavailable(
            "a backup is made where the store is: run `elytron backup` on the machine of"
            f" {self.url}"
        )

    def on_alarm(self, hook: Callable[[Alarm], None]) -> None:
        """See `Store.on_alarm`. Called on a thread of ours; what happens while the connection
        is broken is not told."""
        self.check_usable()
        if not callable(hook):
            raise InvalidArgument(f"a hook must be callable; got {hook!r:.50}")
        self._alarms.add(hook)

    def _save_many(self, agent: str, messages: list[Mapping[str, Any]]) -> list[Receipt]:
        return self.agent(agent).save_many(messages)

    def close(self) -> None:
        """Wait for what was submitted, and give the connections back. Idempotent."""
        if self._connection.forked:  # the threads and what they hold are the parent's
            return
        self._submitted.close()
        self._connection.close()
        self._alarms.close()
