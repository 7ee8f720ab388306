"""
The second wall: whatever a statement says, a session has the rows of the agent that it is about.

The program connects with a role that owns nothing. That role may say of any agent that its session
is about him: the wall is between an agent and a statement that went wrong, not between agents and
the program, which serves them all.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from elytron.ledger.postgres import values, words
from elytron.ledger.postgres.dialect import translate
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.schema import AGENT_TABLES
from elytron.ledger.postgres.tables import TABLES
from elytron.ledger.reads import Filter
from postgres_roles import Store, layout
from recorded import Said, end, live, recording

VICTIM, MALLORY, NOBODY = (uuid.UUID(int=n) for n in (1, 2, 3))
TERM = b"abc"
MERGE_SINCE = 150_000  # the server's version
# What the dialect does not know: the rest of an agent's rows.
OTHERS = {
    "agents": "INSERT INTO agents VALUES(%(agent)s, 'someone', 1, 2, 3, 4)",
    "names": "INSERT INTO names VALUES(%(agent)s, 'someone')",
}
REFUSED = (errors.InsufficientPrivilege, errors.FeatureNotSupported)


@pytest.fixture(scope="module")
def lives(tmp_path_factory) -> tuple[list[Said], list[Said]]:
    """What is said of an agent until he has most, and from then on until he has nothing."""
    folder = tmp_path_factory.mktemp("recorded") / "store"
    with recording(lambda name: "bob" in name) as lived:
        live(folder)
    with recording(lambda name: "bob" in name) as ended:
        end(folder)
    return lived, ended


@pytest.fixture(scope="module")
def store(postgres, lives) -> Iterator[Store]:
    """Where the victim has rows in each table, and Mallory one in each that was made by hand."""
    with layout(postgres, f"t_{uuid.uuid4().hex[:12]}") as one:
        one.bring_up()
        link = one.link(one.user, VICTIM)
        for said in lives[0]:
            link.execute(said.sql, said.values)
        for name in TABLES:  # those that happen to be empty at that moment
            fill(link, name)
        words.add(link, [(7, TERM)])
        mallory = one.link(one.user, MALLORY)
        for sql in OTHERS.values():
            link.native(sql)
            mallory.native(sql)
        mallory.execute("INSERT INTO marks VALUES(?, ?, ?, ?)", (1, 0.5, 0, 7))
        words.add(mallory, [(1, b"own")])
        postgres.execute(f"ANALYZE {', '.join(f'{one.schema}.{name}' for name in AGENT_TABLES)}")
        yield one


def fill(link: Link, table: str) -> None:
    """A row in a table that has none."""
    if link.execute(f"SELECT count(*) FROM {table}").get:
        return
    kinds = link.native(
        "SELECT data_type FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND table_name = %(table)s AND column_name <> 'agent_id' ORDER BY ordinal_position",
        {"table": table},
    )
    samples = {"bigint": 1, "double precision": 0.5, "text": "a", "bytea": b"a"}
    row = [samples[kind] for (kind,) in kinds]
    link.execute(f"INSERT INTO {table} VALUES({', '.join('?' * len(row))})", row)


@pytest.fixture
def mallory(store) -> Iterator[Link]:
    """A session that is about Mallory; what it does is undone."""
    link = store.link(store.user, MALLORY)
    link.execute("BEGIN")
    yield link
    link.execute("ROLLBACK")


def held(store: Store, agent: uuid.UUID = VICTIM) -> dict[str, list[str]]:
    """All that an agent has, as a superuser sees it."""
    link = store.link("postgres")
    return {
        name: sorted(map(repr, link.native(
            f"SELECT t::text FROM {name} t WHERE agent_id = %(whose)s", {"whose": agent}
        )))
        for name in AGENT_TABLES
    }  # fmt: skip


@pytest.fixture(autouse=True)
def unharmed(store) -> Iterator[None]:
    """Nothing of the victim's is ever changed."""
    before = held(store)
    assert all(before.values()), "the victim has a row in each table"
    yield
    assert held(store) == before


def tried(link: Link, sql: str, parameters: Any = ()) -> list[Any] | None:
    """What a statement of PostgreSQL's own answers; None if it is refused."""
    link.execute("SAVEPOINT trial")
    try:
        rows = link.native(sql, parameters)
    except REFUSED:
        link.execute("ROLLBACK TO trial")
        return None
    link.execute("RELEASE trial")
    return rows


def test_a_role_that_owns_nothing_can_say_all_that_the_ledger_says(store, lives):
    """Method: the victim came to be by this role; here he goes, which is undone."""
    link = store.link(store.user, VICTIM)
    link.execute("BEGIN")
    for said in lives[1]:
        if not said.of_transaction:
            link.execute(said.sql, said.values)
    link.execute("ROLLBACK")


def test_no_statement_of_the_ledger_reaches_another_agents_rows(lives, mallory):
    """
    Method: each statement of an agent's life says that it is about the victim, with the values
    that were about him, in a session that is about Mallory. It answers as it does of nobody, and
    what would write is refused or touches nothing.
    """
    reads = writes = refused = 0
    spoken = {(one.sql, one.kinds): one for part in lives for one in part}
    for said in spoken.values():
        if said.of_transaction:
            continue
        statement = translate(said.sql, values.kinds(said.values))
        named = {f"p{number}": value for number, value in enumerate(said.values, 1)}
        for sql in filter(None, (statement.sql, statement.before)):
            rows = tried(mallory, sql, {**named, "agent": VICTIM})
            if sql.lstrip("(").startswith(("SELECT", "WITH")):
                reads += 1
                assert rows == mallory.native(sql, {**named, "agent": NOBODY}), sql
            else:
                writes += 1
                refused += rows is None
                assert not rows, sql
                assert rows is None or mallory.rowcount == 0, sql
    assert reads > 100
    assert writes > 80
    assert refused > 20


def test_the_index_of_words_tells_nothing_of_another_agent(store, mallory):
    victim = store.link(store.user, VICTIM)
    assert words.match(victim, [TERM], Filter(), limit=9) == [7]
    native = mallory.native

    class AimedAtVictim:
        """Says that each statement is about the victim."""

        def native(self, sql: str, parameters: Any = ()) -> list[Any]:
            return native(sql, {**dict(parameters), "agent": VICTIM})

    aimed: Any = AimedAtVictim()
    assert words.totals(aimed) == (0, 0)
    assert words.vocabulary(aimed) == {}
    assert words.document_frequencies(aimed, [TERM]) == {}
    assert words.match(aimed, [TERM], Filter(), limit=9) == []
    assert words.match_days(aimed, [[TERM]], [], Filter(), limit=9) == []
    assert words.with_words(aimed, [[TERM]], up_to=99, limit=9) == []
    words.remove(aimed, [7])
    words.reset(aimed)
    with pytest.raises(errors.InsufficientPrivilege):
        words.add(aimed, [(8, TERM)])


def test_in_a_transaction_about_several_agents_each_statement_sees_one_agents_rows(store):
    link = store.link(store.user, MALLORY)
    sql = "SELECT FROM agents WHERE agent_id = %(whose)s"
    asked = [(MALLORY, MALLORY), (MALLORY, VICTIM), (VICTIM, VICTIM), (VICTIM, MALLORY)]
    counts = link.about_each([(about, sql, {"whose": whose}) for about, whose in asked])
    assert counts == [1, 0, 1, 0]
    assert len(link.native(sql, {"whose": MALLORY})) == 1
    assert link.native(sql, {"whose": VICTIM}) == []


@pytest.mark.parametrize("table", sorted(AGENT_TABLES - {"names"}))
def test_nothing_by_hand_reads_or_writes_another_agents_rows(mallory, table):
    own = len(mallory.native(f"SELECT * FROM {table} WHERE agent_id = %(agent)s"))
    victims = {"victim": VICTIM}
    for sql in (
        f"SELECT * FROM {table} WHERE agent_id = %(victim)s",
        f"SELECT * FROM {table} WHERE agent_id <> %(agent)s",
        f"WITH all_rows AS MATERIALIZED (TABLE {table}) SELECT * FROM all_rows WHERE agent_id"
        " <> %(agent)s",
        f"SELECT * FROM {table} a JOIN {table} b ON a.agent_id < b.agent_id",
        f"SELECT * FROM {table} WHERE agent_id = %(victim)s FOR UPDATE",
        f"SELECT * FROM {table} TABLESAMPLE SYSTEM (100) WHERE agent_id <> %(agent)s",
        f"DELETE FROM {table} WHERE agent_id = %(victim)s RETURNING *",
        f"UPDATE {table} SET agent_id = agent_id WHERE agent_id <> %(agent)s RETURNING *",
        f"WITH gone AS (DELETE FROM {table} WHERE agent_id <> %(agent)s RETURNING *)"
        " SELECT * FROM gone",
        f"MERGE INTO {table} t USING (SELECT 1) one ON t.agent_id = %(victim)s"
        " WHEN MATCHED THEN DELETE",
    ):
        if sql.startswith("MERGE") and mallory._wire.pgconn.server_version < MERGE_SINCE:
            continue
        assert mallory.native(sql, victims) == [], sql
        assert mallory.rowcount == 0, sql
    assert len(mallory.native(f"SELECT * FROM {table}")) == own
    mallory.native(f"CREATE TEMPORARY TABLE taken ON COMMIT DROP AS SELECT * FROM {table}")
    assert len(mallory.native("TABLE taken")) == own
    mallory.native("UPDATE taken SET agent_id = %(victim)s", victims)
    taken = tried(mallory, f"INSERT INTO {table} SELECT * FROM taken")
    assert taken is None if own else taken == []
    if own:
        assert tried(mallory, f"UPDATE {table} SET agent_id = %(victim)s", victims) is None
    assert mallory.native(f"DELETE FROM {table} RETURNING agent_id") == [(MALLORY,)] * own


def test_a_key_that_another_agent_has_is_refused_as_one_that_nobody_has(mallory):
    """A difference would tell who has what."""
    for key in (1, 10**6):
        for rest in ("", " ON CONFLICT DO NOTHING", " ON CONFLICT (agent_id, key) DO UPDATE SET"
                     " pinned = 9"):  # fmt: skip
            sql = f"INSERT INTO marks VALUES(%(victim)s, %(key)s, 0.5, 1, 1){rest}"
            assert tried(mallory, sql, {"victim": VICTIM, "key": key}) is None


def test_copies_and_functions_and_what_the_server_knows_tell_nothing(store, mallory):
    mallory.native(
        "CREATE TEMPORARY TABLE seen(content text);"
        " CREATE FUNCTION pg_temp.look(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS"
        " $$ BEGIN INSERT INTO pg_temp.seen VALUES($1); RETURN true; END $$"
    )
    # A function that is cheap is asked first, but not before the wall.
    for condition in ("pg_temp.look(content)", "pg_temp.look(content) AND key = 1"):
        assert mallory.native(f"SELECT content FROM messages WHERE {condition}") == []
    assert mallory.native("TABLE pg_temp.seen") == []
    assert not mallory.native("SELECT 1 FROM pg_stats WHERE tablename = 'messages'")
    assert tried(mallory, "SELECT 1 FROM pg_statistic") is None
    with psycopg.connect(store.server.dsn(user=store.user)) as plain:
        plain.execute(f"SET search_path TO {store.schema}")
        plain.execute(f"SET app.agent_id = '{MALLORY}'")
        with plain.cursor().copy("COPY (SELECT * FROM marks) TO STDOUT") as out:
            copied = b"".join(map(bytes, out))
        assert copied.startswith(str(MALLORY).encode())
        assert copied.count(b"\n") == 1
        with plain.cursor().copy("COPY messages TO STDOUT") as out:
            assert b"".join(map(bytes, out)) == b""
        row = f"{VICTIM}\t99\t\\N\t0\t0\n"
        with (
            pytest.raises(REFUSED),
            plain.cursor().copy("COPY marks FROM STDIN") as into,
        ):
            into.write(row)


def test_nobody_becomes_another_role_or_does_without_the_wall(store, mallory):
    for statement in (
        f"SET ROLE {store.owner}",
        "SET SESSION AUTHORIZATION postgres",
        f"ALTER ROLE {store.user} BYPASSRLS",
        "ALTER TABLE messages NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY own ON messages",
        "CREATE POLICY mine ON messages USING (true)",
        "TRUNCATE messages",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY messages TO '/tmp/messages'",
        "COPY messages TO PROGRAM 'cat'",
        "CREATE FUNCTION look() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    ):
        assert tried(mallory, statement) is None, statement
    mallory.native("SET LOCAL row_security = off")  # asks for an error instead of the wall
    assert tried(mallory, "SELECT * FROM messages") is None


def test_who_is_there_may_be_read_by_all_and_each_writes_his_own(store, mallory):
    assert {agent for agent, _ in mallory.native("SELECT * FROM names")} == {VICTIM, MALLORY}
    for sql in ("UPDATE names SET name = 'x'", "DELETE FROM names"):
        assert mallory.native(f"{sql} RETURNING agent_id") == [(MALLORY,)]
    sql = "INSERT INTO names VALUES(%(whose)s, 'x') ON CONFLICT (agent_id) DO UPDATE SET name = 'x'"
    assert tried(mallory, sql, {"whose": VICTIM}) is None
    assert tried(mallory, sql, {"whose": MALLORY}) == []
    assert store.link(store.user).native("SELECT count(*) FROM names") == [(2,)]


@pytest.mark.parametrize("setting", [None, ""])
def test_a_session_that_is_about_nobody_sees_and_writes_nothing(store, setting):
    link = store.link(store.user)
    if setting is not None:
        link.native(f"SELECT set_config('app.agent_id', '{VICTIM}', false)")
        link.native(f"SELECT set_config('app.agent_id', '{setting}', false)")
    link.execute("BEGIN")
    for table in sorted(AGENT_TABLES - {"names"}):
        assert link.native(f"SELECT * FROM {table}") == []
        link.native(f"DELETE FROM {table}")
        assert link.rowcount == 0
    for sql in OTHERS.values():
        assert tried(link, sql, {"agent": NOBODY}) is None
    link.execute("ROLLBACK")


def test_a_session_that_names_no_agent_at_all_is_refused(store):
    link = store.link(store.user)
    link.native("SELECT set_config('app.agent_id', 'bob', false)")
    with pytest.raises(errors.InvalidTextRepresentation):
        link.native("SELECT * FROM messages")


def test_the_wall_is_there_for_the_owner_too(store):
    link = store.link(store.owner, MALLORY)
    link.execute("BEGIN")
    for table in sorted(AGENT_TABLES - {"names"}):
        assert link.native(f"SELECT * FROM {table} WHERE agent_id <> %(agent)s") == []
        link.native(f"DELETE FROM {table} WHERE agent_id <> %(agent)s")
        assert link.rowcount == 0
    link.execute("ROLLBACK")


def test_a_role_to_whom_nothing_was_granted_reads_nothing(store):
    store.server.execute(f"CREATE ROLE {store.schema}_stranger LOGIN")
    try:
        stranger = store.link(f"{store.schema}_stranger", VICTIM)
        with pytest.raises(errors.InsufficientPrivilege):
            stranger.native(f"SELECT * FROM {store.schema}.messages")
        stranger.close()
    finally:
        store.server.execute(f"DROP ROLE {store.schema}_stranger")


def test_the_program_chooses_whom_a_session_is_about(store):
    """By design: it serves them all. So SQL of others must never be run with this role."""
    link = store.link(store.user, MALLORY)
    assert not link.native("SELECT * FROM messages")
    link.native(f"SELECT set_config('app.agent_id', '{VICTIM}', false)")
    assert link.native("SELECT * FROM messages")
