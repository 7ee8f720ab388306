"""A store's schema on a server is made and brought up by whoever may, and used by who may not."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from elytron.errors import Unavailable
from elytron.ledger.postgres import migrating
from elytron.ledger.postgres import schema as tables
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.tables import TABLES
from postgres_roles import WAIT_S, Store, layout
from postgres_server import wait_until

ROOT = Path(__file__).parent.parent
A = uuid.uuid4()
INDEX = {"words", "word_blocks"}
OF_THE_STORE = {"agents", "names", "schema_version", "store"}
NEXT = ("ALTER TABLE marks ADD COLUMN reason bigint", "CREATE TABLE t(agent_id uuid PRIMARY KEY)")


@pytest.fixture
def store(postgres, schema) -> Iterator[Store]:
    with layout(postgres, schema) as one:
        yield one


@contextmanager
def newer(monkeypatch: pytest.MonkeyPatch, *more: tuple[str, ...]) -> Iterator[None]:
    """As a later version would be, with migrations after ours."""
    with monkeypatch.context() as patch:
        patch.setattr(migrating, "MIGRATIONS", (*tables.MIGRATIONS, *more))
        patch.setattr(migrating, "VERSION", tables.VERSION + len(more))
        yield


def version(store: Store) -> int:
    sql = f"SELECT version FROM {store.schema}.schema_version"
    ((found,),) = store.server.execute(sql)
    return int(found)


def described(link: Link) -> dict[str, dict[str, tuple[str, str | None]]]:
    """Of each table its columns, in order: the type, and how texts are compared."""
    found: dict[str, dict[str, tuple[str, str | None]]] = {}
    for table, column, type_, collation in link.native(
        "SELECT table_name, column_name, data_type, collation_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position"
    ):
        found.setdefault(table, {})[column] = (type_, collation)
    return found


def test_it_comes_up_on_a_server_without_any_extension(store):
    store.bring_up()
    link = store.link(store.user, A)
    migrating.bring_up(link, store.schema)
    # Tables of others, no vectors of a type that is not everywhere, nothing that counts by itself.
    assert link.native("SELECT extname FROM pg_extension") == [("plpgsql",)]
    there = described(link)
    assert there.keys() == TABLES.keys() | INDEX | OF_THE_STORE
    kinds = {kind for columns in there.values() for kind, _ in columns.values()}
    assert kinds == {"uuid", "bigint", "double precision", "text", "bytea", "ARRAY"}
    for table in TABLES:
        assert tuple(there[table]) == ("agent_id", *TABLES[table].columns)
    texts = [how for columns in there.values() for kind, how in columns.values() if kind == "text"]
    assert set(texts) == {"C"}


def test_each_key_and_index_begins_with_the_agent(store):
    store.bring_up()
    link = store.link(store.owner)
    found = link.native(
        "SELECT t.relname, a.attname, i.indisunique FROM pg_index i"
        " JOIN pg_class t ON t.oid = i.indrelid"
        " JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]"
        " WHERE t.relnamespace = current_schema()::regnamespace"
    )
    assert {table for table, _, _ in found} == tables.AGENT_TABLES | {"store"}
    assert {column for table, column, _ in found if table != "store"} == {"agent_id"}
    # Nothing that a database which is spread by the agent cannot keep beside him.
    for catalog in ("pg_sequences WHERE schemaname", "pg_views WHERE schemaname"):
        assert not link.native(f"SELECT 1 FROM {catalog} = current_schema()")
    constraints = (
        "SELECT contype FROM pg_constraint WHERE connamespace = current_schema()::regnamespace"
    )
    assert {kind for (kind,) in link.native(constraints)} <= {"p", "u", "c", "n"}
    assert not link.native("SELECT 1 FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid"
                           " WHERE c.relnamespace = current_schema()::regnamespace")  # fmt: skip


def test_each_table_of_agents_is_behind_the_wall_for_its_owner_too(store):
    store.bring_up()
    found = store.link(store.owner).native(
        "SELECT relname, relrowsecurity AND relforcerowsecurity FROM pg_class"
        " WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    )
    assert {table for table, walled in found if walled} == tables.AGENT_TABLES
    assert {table for table, walled in found if not walled} == {"store", "schema_version"}


def test_who_has_nothing_to_do_waits_for_nobody(store):
    store.bring_up()
    link = store.link(store.owner)
    before = link.native("SELECT files_id, created_us FROM store")
    holder = store.link(store.owner)
    holder.execute("BEGIN")
    holder.native("SELECT pg_advisory_xact_lock(%s)", (migrating._lock(store.schema),))
    migrating.bring_up(link, store.schema)
    holder.execute("ROLLBACK")
    assert link.native("SELECT files_id, created_us FROM store") == before


@pytest.mark.parametrize("older", [False, True])
def test_many_at_once_bring_it_up_once(store, monkeypatch, older):
    """Method: one has the lock; the others are seen to wait for it before it is let go."""
    if older:
        store.bring_up()
    holder = store.link(store.owner)
    holder.execute("BEGIN")
    holder.native("SELECT pg_advisory_xact_lock(%s)", (migrating._lock(store.schema),))
    links = [store.link(store.owner) for _ in range(4)]
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with newer(monkeypatch, NEXT), ThreadPoolExecutor(len(links)) as pool:
        done = [pool.submit(migrating.bring_up, link, store.schema) for link in links]
        wait_until(lambda: len(store.server.execute(waiting)) == len(links), WAIT_S)
        holder.execute("ROLLBACK")
        for one in done:
            one.result(WAIT_S)
    assert version(store) == tables.VERSION + 1


def test_an_older_one_is_brought_up_and_keeps_what_it_has(store, monkeypatch):
    store.bring_up()
    user = store.link(store.user, A)
    user.execute("INSERT INTO marks VALUES(?, ?, ?, ?)", (1, 0.5, 0, 7))
    with newer(monkeypatch, NEXT, ("ALTER TABLE t ADD COLUMN more bigint",)):
        needs = f"version {tables.VERSION} and needs {tables.VERSION + 2}, and this role may not"
        with pytest.raises(Unavailable, match=needs):
            migrating.bring_up(store.link(store.user), store.schema)
        assert version(store) == tables.VERSION
        migrating.bring_up(store.link(store.owner), store.schema)
        migrating.bring_up(user, store.schema)
    assert version(store) == tables.VERSION + 2
    assert user.native("SELECT key, reason FROM marks WHERE agent_id = %(agent)s") == [(1, None)]


def test_a_store_of_each_earlier_version_is_brought_up_to_this_one(store, monkeypatch):
    for number in range(1, tables.VERSION):
        with monkeypatch.context() as patch:
            patch.setattr(migrating, "VERSION", number)
            migrating.bring_up(store.link(store.owner), store.schema)
        assert version(store) == number
    migrating.bring_up(store.link(store.owner), store.schema)
    assert version(store) == tables.VERSION
    assert described(store.link(store.owner)).keys() == TABLES.keys() | INDEX | OF_THE_STORE


def test_a_migration_that_fails_leaves_the_last_whole_version(store, monkeypatch):
    store.bring_up()
    link = store.link(store.owner)
    broken = ("CREATE TABLE half(agent_id uuid)", "ALTER TABLE nothing ADD COLUMN a bigint")
    with newer(monkeypatch, NEXT, broken), pytest.raises(Exception, match='"nothing" does not'):
        migrating.bring_up(link, store.schema)
    assert version(store) == tables.VERSION + 1
    assert link.get_autocommit()
    assert "half" not in described(link)
    assert not store.server.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'")


def test_a_newer_one_is_refused_with_both_versions(store, monkeypatch):
    with newer(monkeypatch, NEXT):
        migrating.bring_up(store.link(store.owner), store.schema)
    said = rf"has version {tables.VERSION + 1}, .* up to {tables.VERSION}: upgrade Elytron"
    for role in (store.owner, "postgres"):
        with pytest.raises(Unavailable, match=said):
            migrating.bring_up(store.link(role), store.schema)
    assert version(store) == tables.VERSION + 1


def test_a_role_that_may_not_make_it_is_told_who_may(store):
    with pytest.raises(Unavailable, match=r"may not make the schema .* docs/scale.md"):
        migrating.bring_up(store.link(store.user), store.schema)
    store.server.execute(f"CREATE SCHEMA {store.schema}")
    with pytest.raises(Unavailable, match="may not make tables in the schema"):
        migrating.bring_up(store.link(store.user), store.schema)
    store.server.execute(f"GRANT ALL ON SCHEMA {store.schema} TO {store.owner}")
    migrating.bring_up(store.link(store.owner), store.schema)  # in one that is there, and empty
    assert version(store) == tables.VERSION


def test_a_role_without_rights_is_told_what_to_run(store):
    migrating.bring_up(store.link(store.owner), store.schema)
    stranger = store.link(store.user)
    with pytest.raises(Unavailable, match="let its owner run the GRANT statements"):
        migrating.bring_up(stranger, store.schema)
    store.server.execute(f"GRANT USAGE ON SCHEMA {store.schema} TO {store.user}")
    with pytest.raises(Unavailable, match="let its owner run the GRANT statements"):
        migrating.bring_up(stranger, store.schema)
    store.server.execute(tables.grants(store.schema, store.user))
    migrating.bring_up(stranger, store.schema)


def test_the_page_tells_the_owner_what_to_run():
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert tables.grants("elytron", "elytron_app") in page


def test_a_schema_of_somebody_else_is_left_alone(store):
    store.server.execute(
        f"CREATE SCHEMA {store.schema} AUTHORIZATION {store.owner};"
        f" CREATE TABLE {store.schema}.messages(content text)"
    )
    with pytest.raises(Unavailable, match=r"something else than a store: .*`postgres_schema`"):
        migrating.bring_up(store.link(store.owner), store.schema)
    assert described(store.link("postgres")).keys() == {"messages"}


def test_a_server_that_is_read_only_is_used_as_it_is_and_named_where_it_is_too_old(
    store, monkeypatch
):
    store.bring_up()
    link = store.link(store.owner)
    link.native("SET default_transaction_read_only = on")
    migrating.bring_up(link, store.schema)
    said = rf"version {tables.VERSION} .* is read-only"
    with newer(monkeypatch, NEXT), pytest.raises(Unavailable, match=said):
        migrating.bring_up(link, store.schema)


def test_two_stores_are_side_by_side_whatever_they_are_called(store):
    odd = f'{store.schema}_"é% \\'
    store.bring_up()
    other = Store(store.server, odd)
    try:
        link = other.link(store.owner, A)
        migrating.bring_up(link, odd)
        migrating.bring_up(link, odd)
        link.execute("INSERT INTO marks VALUES(?, ?, ?, ?)", (1, 0.5, 0, 7))
        assert link.execute("SELECT count(*) FROM marks").get == 1
        assert store.link(store.user, A).execute("SELECT count(*) FROM marks").get == 0
    finally:
        other.close()


def test_a_role_that_owns_nothing_may_not_change_the_walls(store):
    store.bring_up()
    link = store.link(store.user, A)
    for statement in (
        "DROP POLICY own ON messages",
        "ALTER TABLE messages DISABLE ROW LEVEL SECURITY",
        "TRUNCATE messages",
        "DROP TABLE words",
        "UPDATE schema_version SET version = 9",
        "UPDATE store SET created_us = 0",
        "DELETE FROM store",
        "CREATE TABLE more(a bigint)",
        "GRANT SELECT ON messages TO PUBLIC",
    ):
        if statement.startswith("GRANT"):  # a warning, and nothing is granted
            link.native(statement)
            granted = "has_table_privilege('public', 'messages', 'SELECT')"
            assert not link.native(f"SELECT {granted}")[0][0]
            continue
        with pytest.raises(Exception, match=r"must be owner|permission denied"):
            link.native(statement)
