"""What a session is set to, whatever its role and the server's configuration say."""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.link import Link
from postgres_server import Server, place, server, wait_until

WAIT_S = 30.0
# Not there before PostgreSQL 17.
LIMIT = "SELECT current_setting('transaction_timeout', true)"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of these tests alone, so that its configuration may be changed."""
    with place(tmp_path_factory.mktemp("session")) as made, server(made / "one") as one:
        yield one


@pytest.fixture
def changed(own: Server) -> Iterator[Server]:
    """The same; what a test changes is taken back."""
    yield own
    own.execute("ALTER SYSTEM RESET ALL")
    own.execute("SELECT pg_reload_conf()")
    own.execute("ALTER ROLE postgres RESET ALL")


def connect(to: Server) -> Link:
    return Link.connect(parse(to.dsn()).parameters("public"), time.monotonic() + WAIT_S)


def reload(to: Server, link: Link, **settings: str) -> None:
    """Put *settings* into the server's configuration, until the session has heard of it."""
    for name, value in {**settings, "work_mem": "5MB"}.items():
        to.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    to.execute("SELECT pg_reload_conf()")
    wait_until(lambda: link.native("SHOW work_mem") == [("5MB",)])


def test_a_session_stays_durable_when_the_configuration_is_loaded_anew(changed: Server):
    with closing(connect(changed)) as link:
        reload(changed, link, synchronous_commit="off")
        assert link.native("SHOW synchronous_commit") == [("on",)]
    with closing(connect(changed)) as later:
        assert later.native("SHOW synchronous_commit") == [("on",)]


@pytest.mark.parametrize(("given", "stays"), [("off", "on"), ("local", "local")])
def test_how_durable_a_role_is_set_to_be_is_kept_unless_it_is_not_at_all(
    changed: Server, given: str, stays: str
):
    changed.execute(f"ALTER ROLE postgres SET synchronous_commit = '{given}'")
    with closing(connect(changed)) as link:
        assert link.native("SHOW synchronous_commit") == [(stays,)]


def test_no_time_limit_of_the_server_ends_a_transaction(changed: Server):
    """The role's, or one that is loaded later: a renaming that is longer would never be done."""
    if changed.execute(LIMIT) == [(None,)]:
        pytest.skip("the server is older than PostgreSQL 17")
    with closing(connect(changed)) as link:
        reload(changed, link, transaction_timeout="2min")
        assert link.native(LIMIT) == [("0",)]
    changed.execute("ALTER ROLE postgres SET transaction_timeout = '1min'")
    with closing(connect(changed)) as later:
        assert later.native(LIMIT) == [("0",)]


def test_a_role_that_hides_warnings_gets_them(changed: Server):
    changed.execute("ALTER ROLE postgres SET client_min_messages = error")
    with closing(connect(changed)) as link:
        assert link.native("SHOW client_min_messages") == [("warning",)]
