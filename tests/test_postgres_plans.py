"""
What a save and a recall ask of a server is answered from one agent's rows, among a thousand.

Method: the statements are noted as the verbs send them, and planned again by the role that the
program has, with their values and without. Each table of agents has to be read by an index, at its
agent.
"""

import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

import elytron
from elytron import Agent
from elytron.ledger.postgres import wire, words
from elytron.ledger.postgres.ledger import Lending
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.schema import AGENT_TABLES
from elytron.ledger.reads import Filter
from embedders import Hashing
from moved import talk
from postgres_roles import Store, layout

BOB = Lending.agent_id("bob")
AGENTS = 1000
ROWS = 12  # of each agent in each table that holds more than one
MESSAGES = 150  # of the agent who is looked at
SINGLE = {"agents", "names", "indexed", "embedder"}
BIG_BLOCKS, BIG_POSTINGS = 100, 160  # by 64 buckets: a million postings
_SAMPLES = {
    "uuid": "('00000000-0000-0000-0000-' || lpad(a::text, 12, '0'))::uuid",
    "bigint": "n", "double precision": "0.5", "text": "'x' || n", "bytea": "decode('00ff', 'hex')",
}  # fmt: skip
_PLACE = re.compile(r"%(?:\((\w+)\)s|%)")
_ARRAYS = {"words": "ARRAY[1, 2]::bigint[]", "word_blocks": "ARRAY[1, 2]"}


class Asked(NamedTuple):
    """A statement that was sent, with the values of one time."""

    sql: str
    values: dict[str, Any]


@pytest.fixture(scope="module")
def store(postgres, tmp_path_factory) -> Iterator[Store]:
    """A schema with a thousand agents who have rows everywhere."""
    with layout(postgres, f"t_{uuid.uuid4().hex[:12]}") as one:
        one.bring_up()
        link = one.link("postgres")
        for table in sorted(AGENT_TABLES):
            columns = link.native(
                "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema"
                " = current_schema() AND table_name = %(table)s ORDER BY ordinal_position",
                {"table": table},
            )
            values = [_SAMPLES.get(kind) or _ARRAYS[table] for _, kind in columns]
            rows = 1 if table in SINGLE else ROWS
            link.native(
                f"INSERT INTO {table} SELECT {', '.join(values)}"
                f" FROM generate_series(1, {AGENTS}) a CROSS JOIN generate_series(1, {rows}) n"
            )
        yield one


@pytest.fixture(scope="module")
def asked(store, tmp_path_factory) -> dict[str, list[Asked]]:
    """What each verb sends, by its name; statistics are as of then."""
    found: dict[str, list[Asked]] = {}
    settings: dict[str, Any] = {
        "files_path": str(tmp_path_factory.mktemp("files") / "store"),
        "postgres_schema": store.schema, "auto_cleanup": False, "embedder": Hashing(),
    }  # fmt: skip
    dsn = store.server.dsn(user=store.user)
    with pytest.MonkeyPatch.context() as patch:
        sent: list[wire.Request] = []
        commands = wire.Wire.commands

        def note(self: wire.Wire, requests: list[wire.Request]) -> Any:
            sent.extend(requests)
            return commands(self, requests)

        with elytron.open(dsn, **settings) as opened:
            bob = opened.agent("bob")
            begin(bob)
            tables = ", ".join(f"{store.schema}.{name}" for name in AGENT_TABLES)
            store.server.execute(f"ANALYZE {tables}")
            patch.setattr(wire.Wire, "commands", note)
            for name, verb in VERBS.items():
                sent.clear()
                verb(bob)
                distinct = {one.sql: dict(one.values) for one in sent if tables_in(one.sql)}
                found[name] = [Asked(sql, values) for sql, values in distinct.items()]
    return found


def begin(bob: Agent) -> None:
    bob.save_many(talk(MESSAGES))
    bob.remember("Alice prefers tea", about=["Alice", "tea"])
    bob.relate("Alice", "lives in", "Lyon")
    bob.flush()


def save(bob: Agent) -> None:
    bob.save("user", "A new word in a session that is known", session="s0", user="alice")
    bob.save("user", "And in a new one", session="new", user="new")


def recall(bob: Agent) -> None:
    assert bob.recall("where does Alice live, and what does she drink?")
    bob.recall("what of topic on 8 May 2024?", user="alice", session="s0", role="user",
               since=datetime(2024, 1, 1, tzinfo=UTC))  # fmt: skip
    bob.context("what was said of tea in May 2024?")


def read(bob: Agent) -> None:
    bob.history("s0", limit=5)
    bob.history(limit=5)
    bob.sessions(limit=5)
    bob.get("m3")
    bob.memories("tea")
    bob.memories(session="s0", before="one", limit=5)
    bob.related("Alice")


def change(bob: Agent) -> None:
    bob.save_many([{"role": "user", "content": f"word {n} of many", "session": "s1"}
                   for n in range(70)])  # fmt: skip
    bob.edit("m3", "Another text")
    bob.delete("m4")
    bob.pin("m5")
    bob.flush()


VERBS: dict[str, Callable[[Agent], None]] = {
    "save": save, "recall": recall, "read": read, "change": change,
}  # fmt: skip


def tables_in(sql: str) -> set[str]:
    """The tables of agents that a statement names; none for what is no statement on rows."""
    if not re.match(r"\s*\(*(SELECT|WITH|INSERT|UPDATE|DELETE)\b", sql):
        return set()
    return AGENT_TABLES & set(re.findall(r"\w+", sql))


def nodes(plan: Any) -> Iterator[dict[str, Any]]:
    """All steps of a plan."""
    if isinstance(plan, list):
        for one in plan:
            yield from nodes(one)
    elif isinstance(plan, dict):
        if "Node Type" in plan:
            yield plan
        for one in plan.values():
            yield from nodes(one)


def faults(plan: Any) -> list[str]:
    """The steps that read a table of agents otherwise than by an index at the agent."""
    wrong = []
    for node in nodes(plan):
        kind, table = node["Node Type"], node.get("Relation Name")
        if kind == "ModifyTable" or (table not in AGENT_TABLES and kind != "Bitmap Index Scan"):
            continue
        if kind == "Bitmap Heap Scan":  # its index is a step of its own
            continue
        by_index = kind in ("Index Scan", "Index Only Scan", "Bitmap Index Scan")
        if not by_index or "agent_id" not in node.get("Index Cond", ""):
            wrong.append(f"{kind} on {table}: {node.get('Index Cond')}")
    return wrong


def planned(link: Link, one: Asked) -> Any:
    return link.native(f"EXPLAIN (FORMAT JSON) {one.sql}", one.values)[0][0]


def planned_for_any(link: Link, one: Asked) -> Any:
    """The plan that the server keeps for a prepared statement, whatever its values."""
    names: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}" if found[1] else "%"

    sql = _PLACE.sub(place, one.sql)
    return link.native(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {sql}")[0][0]


@pytest.mark.parametrize("plan", [planned, planned_for_any])
@pytest.mark.parametrize("verb", VERBS)
def test_each_statement_reads_one_agents_rows_by_an_index(store, asked, verb, plan):
    link = store.link(store.user, BOB)
    statements = asked[verb]
    assert len(statements) >= 4
    wrong = {one.sql: found for one in statements if (found := faults(plan(link, one)))}
    assert not wrong


def test_a_message_beside_another_is_looked_up_behind_the_wall_too(store, asked):
    """
    What a function computes from given values is nothing to look up by there, if it might leak.

    Method: with no other join allowed, whether the index is asked for a place in a session. So
    few rows as here would be read whole otherwise.
    """
    link = store.link(store.user, BOB)
    (beside,) = [one for one in asked["recall"] if "beside" in one.sql]
    link.execute("BEGIN")
    link.native("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
    link.native("SET LOCAL enable_material = off; SET LOCAL enable_bitmapscan = off")
    by = [node.get("Index Cond", "") for node in nodes(planned(link, beside))]
    assert any("session" in condition and "position" in condition for condition in by), by
    link.execute("ROLLBACK")


def test_a_statement_that_reads_more_is_noticed(store):
    link = store.link(store.user, BOB)
    for sql in ("SELECT count(*) FROM messages WHERE role = 'user'",
                "SELECT * FROM messages WHERE key = 5"):  # fmt: skip
        plan = link.native(f"EXPLAIN (FORMAT JSON) {sql}")[0][0]
        assert not faults(plan), "for the wall names the agent"
        plan = store.link("postgres").native(f"EXPLAIN (FORMAT JSON) {sql}")[0][0]
        assert faults(plan)


def test_a_word_among_a_million_is_looked_up_in_its_share_of_one_agents(store):
    """Method: of a large agent's index the plan is run; it may read a 64th for each word."""
    big = uuid.uuid4()
    link = store.link(store.user, big)
    link.execute("BEGIN")
    link.native(
        "INSERT INTO words SELECT %(agent)s::uuid, block, bucket, ARRAY(SELECT"
        f" ((bucket + {words.BUCKETS} * (1000 * random() ^ 3)::bigint) << 31)"
        " + ((n * 3 %% 512)::bigint << 22) + (1 << 18) + 20"
        f" FROM generate_series(1, {BIG_POSTINGS}) n WHERE block + bucket >= 0)"
        f" FROM generate_series(0, {BIG_BLOCKS - 1}) block,"
        f" generate_series(0, {words.BUCKETS - 1}) bucket", {}
    )  # fmt: skip
    link.native(
        "INSERT INTO word_blocks SELECT %(agent)s::uuid, block,"
        " ARRAY(SELECT (n << 18) + 20 FROM generate_series(0, 511) n), 10240"
        f" FROM generate_series(0, {BIG_BLOCKS - 1}) block",
        {},
    )
    assert link.native("SELECT sum(cardinality(postings)) FROM words") == [(1_024_000,)]
    ran: list[Any] = []
    native = link.native

    class Explained:
        def native(self, sql: str, parameters: Any = ()) -> list[Any]:
            ran.append(native(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", parameters)[0][0])
            return native(sql, parameters)

    explained: Any = Explained()
    terms = [(bucket + words.BUCKETS * 5).to_bytes(3, "big") for bucket in (1, 7, 20)]
    held = words.document_frequencies(explained, terms)
    assert sorted(held) == sorted(terms)
    found = words.match(explained, terms, Filter(), limit=100_000)
    assert max(held.values()) <= len(found) <= sum(held.values())
    looked = words.look(explained, terms, Filter(), limit=100)
    assert (looked.frequencies, looked.best) == (held, found[:100])
    newest = words.with_words(explained, [terms], up_to=10**9, limit=5)
    assert newest == sorted(found)[:-6:-1]
    assert len(ran) == 4
    for plan in ran:
        assert not faults(plan)
        read = [node for node in nodes(plan) if node.get("Relation Name") == "words"]
        rows = {node["Actual Rows"] * node["Actual Loops"] for node in read}
        assert rows == {3 * BIG_BLOCKS}, "of 6,400"
    link.execute("ROLLBACK")
