"""What is wrong with a server, or with what a role may do there, is named by the first verb."""

import itertools
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import elytron
import postgres_server
from elytron import Agent, DiskFull, Store, Unavailable
from elytron.ledger.postgres.schema import VERSION
from every_call import check_error
from postgres_roles import Store as Layout
from postgres_roles import layout
from postgres_server import Given, Server

SECRET = "what-nobody-is-told"
SETTINGS: dict[str, Any] = {"reserve_mb": 0, "auto_cleanup": False, "link_concepts": False}
VERBS: dict[str, Callable[[Store], object]] = {
    "agents": lambda store: store.agents(),
    "usage": lambda store: store.agent("bob").usage(),
    "recall": lambda store: store.agent("bob").recall("tea"),
    "save": lambda store: store.agent("bob").save("user", "I like tea", id="m1"),
}
DISK_MB = 24
# What an SQL text would say to have the server's time, or a database's own.
TIME = re.compile(
    r"\bnow\(\)|\b(\w+_timestamp|timeofday|unixepoch|julianday|strftime)\s*\("
    r"|\b(current_(timestamp|date|time)|localtime(stamp)?)\b|'now'",
    re.IGNORECASE,
)


@pytest.fixture
def open_as(postgres: Server, schema: str, folder: Path) -> Iterator[Callable[..., Store]]:
    """A store in the schema, opened by some role; closed after the test."""
    opened: list[Store] = []

    def open_one(dsn: str = "", **more: Any) -> Store:
        place = {"files_path": str(folder), "postgres_schema": schema}
        opened.append(elytron.open(dsn or postgres.dsn(**more), **place, **SETTINGS))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def roles(postgres: Server, schema: str) -> Iterator[Layout]:
    with layout(postgres, schema) as one:
        yield one


def refused(store: Store, match: str, *, verbs: tuple[str, ...] = tuple(VERBS)) -> None:
    """Each verb says why it cannot be done, and that to ask again is of no use."""
    for verb in verbs:
        with pytest.raises(Unavailable, match=match) as caught:
            VERBS[verb](store)
        assert not caught.value.retryable
        assert SECRET not in str(caught.value)
        check_error(caught.value)


def everything(server: Server) -> list[Any]:
    """What tables there are on a server, and how often one was written to."""
    return server.execute("SELECT oid, relname FROM pg_class WHERE relkind = 'r' ORDER BY oid")


def test_who_is_not_let_in_is_told_by_each_verb_and_nothing_is_made(
    postgres: Server, open_as: Callable[..., Store], folder: Path
) -> None:
    postgres.execute(f"CREATE ROLE with_password LOGIN PASSWORD '{SECRET}x'")
    before = everything(postgres)
    try:
        refused(open_as(user="with_password", password=SECRET), "lets nobody in")
    finally:
        postgres.execute("DROP ROLE with_password")
    refused(open_as(user="nobody_here"), "lets nobody in")
    refused(open_as(postgres.dsn().replace("/postgres?", "/not_there?")), '"not_there" does not')
    assert everything(postgres) == before
    assert not folder.exists()


def test_a_role_that_may_make_nothing_is_told_what_the_owner_has_to_do(
    roles: Layout, open_as: Callable[..., Store], folder: Path
) -> None:
    """The same store object goes on once it may."""
    store = open_as(user=roles.user)
    refused(store, "may not make the schema", verbs=("agents", "save"))
    assert not folder.exists()
    roles.link(roles.owner).native(f"CREATE SCHEMA {roles.schema}")
    refused(store, "may not make tables", verbs=("agents", "save"))
    roles.bring_up()
    assert VERBS["save"](store)
    assert store.agents() == ["bob"]


def test_a_role_to_whom_nothing_was_granted_is_told_so(
    roles: Layout, open_as: Callable[..., Store]
) -> None:
    roles.bring_up()
    roles.link(roles.owner).native(
        f"REVOKE ALL ON SCHEMA {roles.schema} FROM {roles.user};"
        f" REVOKE ALL ON ALL TABLES IN SCHEMA {roles.schema} FROM {roles.user}"
    )
    store = open_as(user=roles.user)
    refused(store, "GRANT")
    roles.link(roles.owner).native(f"GRANT USAGE ON SCHEMA {roles.schema} TO {roles.user}")
    refused(store, "GRANT")


def test_a_role_that_may_only_read_reads_and_is_told_so_when_it_saves(
    roles: Layout, open_as: Callable[..., Store]
) -> None:
    roles.bring_up()
    VERBS["save"](open_as(user=roles.owner))
    roles.link(roles.owner).native(
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {roles.schema} FROM {roles.user};"
        f" GRANT SELECT ON ALL TABLES IN SCHEMA {roles.schema} TO {roles.user}"
    )
    store = open_as(user=roles.user)
    assert store.agents() == ["bob"]
    assert [message.id for message in store.agent("bob").messages()] == ["m1"]
    refused(store, "permission denied", verbs=("save",))
    other = store.agent("bob")
    with pytest.raises(Unavailable, match="permission denied"):
        other.save("user", "More", id="m2")


def test_tables_of_another_version_are_left_as_they_are(
    roles: Layout, open_as: Callable[..., Store]
) -> None:
    """Older ones, where the role may not change them; and newer ones, for anybody."""
    roles.bring_up()
    VERBS["save"](open_as(user=roles.owner))
    version = f"{roles.schema}.schema_version"
    for other, role, said in (
        (VERSION + 1, roles.owner, f"version {VERSION + 1}.*up to {VERSION}"),
        (VERSION - 1, roles.user, f"version {VERSION - 1} and needs {VERSION}"),
    ):
        roles.server.execute(f"UPDATE {version} SET version = {other}")
        before = everything(roles.server)
        refused(open_as(user=role), said)
        assert everything(roles.server) == before
        assert roles.server.execute(f"SELECT version FROM {version}") == [(other,)]
    roles.server.execute(f"UPDATE {version} SET version = {VERSION}")
    assert [one.id for one in open_as(user=roles.user).agent("bob").messages()] == ["m1"]


def test_a_database_that_is_set_to_be_read_only_is_read(
    postgres: Server, open_as: Callable[..., Store]
) -> None:
    VERBS["save"](open_as())
    dsn = f"{postgres.dsn()}&options=-c%20default_transaction_read_only%3Don"
    store = open_as(dsn)
    assert store.agents() == ["bob"]
    assert store.agent("bob").recall("tea")
    with pytest.raises(Unavailable, match="is read-only; nothing was written") as caught:
        store.agent("bob").save("user", "More", id="m2")
    assert caught.value.retryable
    assert [one.id for one in open_as().agent("bob").messages()] == ["m1"]


# -- a full disk


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of a few megabytes, where this machine lets us have one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


@pytest.fixture
def tablespace(postgres: Server, schema: str, tmp_path: Path) -> Iterator[Path]:
    """Where the server has a disk of its own for tables, its name being that of the schema."""
    if isinstance(postgres, Given):
        pytest.skip("its disks are not ours")
    with postgres_server.place(tmp_path) as made, small_disk(made / "disk") as disk:
        os.chown(disk, *postgres_server._user())
        postgres.execute(f"CREATE TABLESPACE {schema} LOCATION '{disk}'")
        try:
            yield disk
        finally:
            postgres.execute(f"SET client_min_messages = error; DROP SCHEMA {schema} CASCADE")
            postgres.execute(f"DROP TABLESPACE {schema}")


def test_a_full_disk_of_the_server_is_named_and_nothing_is_half_written(
    postgres: Server, schema: str, tablespace: Path, open_as: Callable[..., Store]
) -> None:
    store = open_as(f"{postgres.dsn()}&options=-c%20default_tablespace%3D{schema}")
    bob = store.agent("bob")
    bob.save("user", "I like tea", id="first")
    filler = tablespace / "filler"
    filler.write_bytes(bytes(DISK_MB << 18))  # three quarters are left, until now
    done = list[str]()

    def save_for_ever() -> None:
        for number in itertools.count():
            save_large(bob, f"m{number}")
            done.append(f"m{number}")

    with pytest.raises(DiskFull) as caught:
        save_for_ever()
    assert caught.value.retryable
    check_error(caught.value)
    failed = f"m{len(done)}"
    for work in (
        lambda: save_large(bob, failed),
        lambda: bob.save_many([{"role": "user", "content": os.urandom(90_000).hex()}] * 20),
        lambda: bob.edit("first", os.urandom(120_000).hex()),
    ):
        with pytest.raises(DiskFull):
            work()
    assert [message.id for message in bob.messages()] == ["first", *done]
    assert bob.recall("tea")[0].message.id == "first"
    filler.unlink()
    save_large(bob, failed)
    assert [message.id for message in bob.messages()] == ["first", *done, failed]
    report = bob.check()
    assert report.ok, report.findings
    assert not report.findings


def save_large(bob: Agent, id: str) -> None:
    """What the server cannot make smaller."""
    bob.save("user", os.urandom(120_000).hex(), id=id)


# -- time


def test_no_statement_asks_the_server_for_the_time() -> None:
    """
    So it does not matter what its clock says: times are those of the programs that save. But when
    a schema was made is noted by it, which nobody reads.
    """
    folder = Path(elytron.__file__).parent / "ledger"
    texts = {path: path.read_text() for path in folder.rglob("*.py")}
    assert len(texts) > 40
    found = {path.name: hit[0] for path, text in texts.items() if (hit := TIME.search(text))}
    assert found == {"schema.py": "clock_timestamp("}
    assert texts[folder / "postgres" / "schema.py"].count("clock_timestamp") == 1
