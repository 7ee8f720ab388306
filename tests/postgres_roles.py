"""A store on a server as it is to be laid out: one role owns it, another one uses it."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from elytron.ledger.postgres import migrating
from elytron.ledger.postgres import schema as tables
from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.link import Link
from postgres_server import Given, Server

WAIT_S = 60.0


class Store:
    """
    A schema on a server.

    Attributes:
        owner: the role that may make it; nothing is made yet.
        user: a role that may connect, and no more.
    """

    def __init__(self, server: Server, schema: str) -> None:
        self.server, self.schema = server, schema
        self.owner, self.user = f"{schema}_owner", f"{schema}_user"
        self._links: list[Link] = []

    def link(self, role: str, agent: uuid.UUID | None = None) -> Link:
        """A connection of *role*, about *agent*."""
        parameters = parse(self.server.dsn(user=role)).parameters(self.schema)
        self._links.append(Link.connect(parameters, time.monotonic() + WAIT_S))
        if agent is not None:
            self._links[-1].bind(agent)
        return self._links[-1]

    def bring_up(self) -> None:
        """As the owner makes it, and lets the user in."""
        owner = self.link(self.owner)
        migrating.bring_up(owner, self.schema)
        owner.native(tables.grants(self.schema, self.user))

    def close(self) -> None:
        for link in self._links:
            link.close()


@contextmanager
def layout(server: Server, schema: str) -> Iterator[Store]:
    """The two roles, and an owner who may make the schema; all is dropped at the end."""
    if isinstance(server, Given):
        pytest.skip("who may do what on a server that is not ours is not ours to say")
    store = Store(server, schema)
    server.execute(f"CREATE ROLE {store.owner} LOGIN; CREATE ROLE {store.user} LOGIN")
    server.execute(f"GRANT CREATE ON DATABASE postgres TO {store.owner}")
    try:
        yield store
    finally:
        store.close()
        both = f"{store.owner}, {store.user}"
        server.execute(
            "SET client_min_messages = error; SET lock_timeout = '60s';"
            f" DROP OWNED BY {both} CASCADE; DROP ROLE {both}"
        )
