"""
The ledger's statements mean the same on PostgreSQL, and are about one agent there, every one.

Two lists of them: all that stand in the modules, and all that were said to SQLite while each verb
was used, which are said again to both databases in the same order.
"""

import ast
import importlib
import re
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import apsw
import pytest
import sqlglot
from sqlglot import exp

import elytron
from elytron.ledger import integers
from elytron.ledger.integers import Integers
from elytron.ledger.postgres import dialect, dsn, migrating, scope
from elytron.ledger.postgres.dialect import translate
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.scope import AGENT_VALUE, Untranslatable, check_scoped
from elytron.ledger.postgres.tables import TABLES
from elytron.ledger.schema import MIGRATIONS
from recorded import OF_SQLITE, Said, end, live, recording

SRC = Path(elytron.__file__).parent
PARTS = ("ledger", "concepts", "upkeep", "recall")
# What only a SQLite file has: its schema, its words, the budget's own file, a salvaged one.
APART = (
    "schema", "word_reads", "words", "space", "budget", "budget_file", "gathering", "successors"
)  # fmt: skip
_VERB = re.compile(r"\s*(SELECT|(INSERT|REPLACE)[A-Z ]* INTO|UPDATE|DELETE FROM)\s+\S")
_PLACE = re.compile(r"(carray\(|json_each\()?\?(\d+)?")
_OPEN = re.compile(r"\\\{.*?\\\}", re.DOTALL)
_REFERENCE = re.compile(r'\b(?:FROM|JOIN|UPDATE)\s+"(\w+)"(?:\s+AS\s+"(\w+)")?')
# By what is no row's but one's, so that there is one order.
_ORDERED = re.compile(r"ORDER BY (\w\.)?(key|seq|number|position|segment|source)\b[^()]*$")
WAIT_S = 120.0


# -- the statements


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recorded") / "store"


@pytest.fixture(scope="module")
def lived(folder) -> list[Said]:
    """What was said until the agent's ledger was at its fullest."""
    with recording(lambda name: "bob" in name) as said:
        live(folder)
    return said


@pytest.fixture(scope="module")
def ended(lived, folder) -> list[Said]:
    """And what was said afterwards."""
    with recording(lambda name: "bob" in name) as said:
        end(folder)
    return said


@pytest.fixture(scope="module")
def spoken(lived, ended) -> dict[tuple[str, str], Said]:
    """Each statement with each kinds of values that it was given."""
    return {(one.sql, one.kinds): one for one in (*lived, *ended) if not one.of_transaction}


@cache
def written() -> dict[str, bool]:
    """
    The statements that stand in the modules, and whether whole: of one that is put together from
    parts a pattern for what it becomes.
    """
    return {
        text: whole
        for part in PARTS
        for path in sorted((SRC / part).glob("*.py"))
        if path.stem not in APART
        for text, whole in _written_in(path)
        if not any(word in text.lower() for word in OF_SQLITE)
    }


def _written_in(path: Path) -> Iterator[tuple[str, bool]]:
    module = importlib.import_module(f"elytron.{path.parent.name}.{path.stem}")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    within = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for inner in ast.walk(node)
        if inner is not node
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant | ast.JoinedStr) or id(node) in within:
            continue
        try:  # what a module's own constants fill in
            text = eval(compile(ast.Expression(node), path.name, "eval"), dict(vars(module)))
        except (NameError, AttributeError, TypeError, KeyError):
            text = ast.unparse(node)[2:-1]
        if not isinstance(text, str) or not _VERB.match(text):
            continue
        yield text.strip(), "{" not in text and not text.endswith(" UNION ALL")


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(_OPEN.sub(r"[\\s\\S]*", re.escape(text)))


def sqlite() -> apsw.Connection:
    """A ledger's tables, empty."""
    db = apsw.Connection(":memory:")
    db.convert_binding = integers.bind
    for migration in MIGRATIONS:
        db.execute(migration).fetchall()
    return db


@cache
def types() -> dict[str, str]:
    """The kind of value of each column, by its name, where that is the same in all tables."""
    db, found = sqlite(), dict[str, str]()
    for table in TABLES:
        for _, column, sort, *_ in db.execute(f"PRAGMA table_info({table})"):
            letter = {"INTEGER": "i", "TEXT": "s", "BLOB": "b", "REAL": "f"}[sort]
            found[column] = letter if found.get(column, letter) == letter else "n"
    return found


def guessed(sql: str) -> str:
    """The kinds of a statement's values, as far as they can be told from what stands around."""
    kinds, last = dict[int, str](), 0
    for place in _PLACE.finditer(re.sub(r"'[^']*'", "''", sql)):
        number = int(place[2]) if place[2] else last + 1
        last = max(last, number)
        before = re.search(r"(\w+)\)* *(?:=|<>|<=|>=|<|>|LIMIT) *$", sql[: place.start()])
        if place[1]:
            kinds[number] = "a" if place[1] == "carray(" else "t"
        elif sql[: place.start()].rstrip().endswith("LIMIT"):
            kinds[number] = "i"
        else:
            kinds.setdefault(number, types().get(before[1], "n") if before else "n")
    return "".join(kinds.get(number, "n") for number in range(1, last + 1))


def all_said(spoken: dict[tuple[str, str], Said]) -> dict[tuple[str, str], None]:
    """Each statement once, with kinds: as it was said, else as it stands there."""
    said = {sql for sql, _ in spoken}
    rest = [sql for sql, whole in written().items() if whole and sql not in said]
    for name, table in TABLES.items():
        rest.append(f"INSERT OR IGNORE INTO {name} VALUES({', '.join('?' * len(table.columns))})")
    return dict.fromkeys([*spoken, *((sql, guessed(sql)) for sql in rest)])


# -- a server


@pytest.fixture(scope="module")
def link(postgres) -> Iterator[Link]:
    """A link to a schema of this module's, with all tables; no agent is bound."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    parameters = dsn.parse(postgres.dsn()).parameters(name)
    one = Link.connect(parameters, time.monotonic() + WAIT_S)
    try:
        migrating.bring_up(one, name)
        yield one
    finally:
        if not one.get_autocommit():
            one.execute("ROLLBACK")
        one.native(f"SET client_min_messages = error; DROP SCHEMA {name} CASCADE")
        one.close()


def contents(db: Any) -> dict[str, list[str]]:
    """All rows of an agent's tables, in whatever order."""
    return {
        name: sorted(map(repr, db.execute(f"SELECT * FROM {name}").fetchall())) for name in TABLES
    }


def weight(link: Link) -> int:
    """What an agent's rows come to, counted anew."""
    return sum(
        link.native(f"SELECT coalesce(sum({table.size}), 0)::bigint FROM {name}"
                    " WHERE agent_id = %(agent)s")[0][0]
        for name, table in TABLES.items() if table.size
    )  # fmt: skip


def say(said: list[Said], here: apsw.Connection, there: Link) -> None:
    """Say the same to both, and compare what they answer and how much they change."""
    for one in said:
        mine = here.execute(one.sql, one.values).fetchall()
        theirs = there.execute(one.sql, one.values).fetchall()
        if "LIMIT" in one.sql and "ORDER BY" not in one.sql:  # any will do
            assert len(theirs) == len(mine), one
        else:
            assert sorted(map(repr, theirs)) == sorted(map(repr, mine)), one
        if _ORDERED.search(one.sql) and "unlinked" not in one.sql:
            assert theirs == mine, one
        if not one.of_transaction and not one.sql.startswith("SELECT"):
            assert there.changes() == here.changes(), one


# -- tests


def test_the_tables_are_those_of_sqlite():
    db = sqlite()
    found = {}
    for name in TABLES:
        columns = db.execute(f"PRAGMA table_info({name})").fetchall()
        keys = sorted([(place, column) for _, column, *_, place in columns if place])
        found[name] = (tuple(c[1] for c in columns), tuple(column for _, column in keys))
    assert found == {name: (table.columns, table.key) for name, table in TABLES.items()}
    every = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'words*'"
    assert {name for (name,) in db.execute(every)} == TABLES.keys()


def test_both_databases_answer_the_same_and_hold_the_same(lived, ended, link):
    """
    Method: all that the verbs said to SQLite is said again to a new ledger there and to an agent
    on a server; answers, changed rows, tables and counted bytes are compared. Halfway the
    statements are said about another agent too, who has nothing, and who changes nothing.
    """
    here, bob, nobody = sqlite(), uuid.uuid4(), uuid.uuid4()
    here.execute("DELETE FROM indexed")  # the ledger says that itself
    link.bind(bob)
    link.weighed_bytes = 0
    say(lived, here, link)
    full = contents(here)
    assert sum(map(bool, full.values())) >= 17, "most tables are in use"
    assert contents(link) == full
    assert link.weighed_bytes == weight(link) > 0

    link.bind(nobody)
    other = sqlite()
    other.execute("DELETE FROM indexed")
    empty = {(one.sql, one.kinds): one for one in (*lived, *ended) if not one.of_transaction}
    for one in empty.values():
        link.execute("BEGIN")
        other.execute("BEGIN")
        say([one], other, link)
        link.execute("ROLLBACK")
        other.execute("ROLLBACK")
    link.bind(bob)
    assert contents(link) == full, "what was said about nobody has changed bob's rows"

    link.weighed_bytes = weight(link)
    say(ended, here, link)
    assert contents(link) == contents(here)
    assert link.weighed_bytes == weight(link)


def test_each_statement_in_the_modules_is_planned_by_a_server(spoken, link):
    """What was never said is planned with what can be guessed of its values."""
    link.bind(uuid.uuid4())
    samples = {"i": 1, "f": 0.5, "s": "a", "b": b"a", "a": Integers([1]), "t": ["a"], "n": None}
    for sql, kinds in all_said(spoken):
        samples_of = {f"p{n}": samples[letter] for n, letter in enumerate(kinds, 1)}
        statement = translate(sql, kinds)
        for text in filter(None, (statement.sql, statement.before)):
            assert link.native(f"EXPLAIN {text}", samples_of), sql


def test_each_statement_in_the_modules_was_said_or_stands_there_whole(spoken):
    said = [sql for sql, _ in spoken]
    parts = [text for text, whole in written().items() if not whole]
    assert len(parts) > 20
    assert len(written()) > 200
    missing = [text for text in parts if not any(_pattern(text).search(sql) for sql in said)]
    # Said of damaged rows alone.
    assert {text[:22] for text in missing if "DISTINCT {column}" not in text} == {
        "SELECT arrived_us FROM",
        "SELECT 1 FROM {table} ",
    }


def test_each_table_in_each_statement_is_restricted_to_the_agent(spoken):
    """
    Method: by the text that goes to the server, read anew: in as many places as a table is named
    its agent is.
    """
    for sql, kinds in all_said(spoken):
        statement = translate(sql, kinds)
        for text in filter(None, (statement.sql, statement.before)):
            named = [alias or table for table, alias in _REFERENCE.findall(text)]
            for name in set(named):
                condition = f'"{name}"."agent_id" = {AGENT_VALUE}'
                assert text.count(condition) >= named.count(name), text
            tables = [t for t in sqlglot.parse_one(text, read="postgres").find_all(exp.Table)
                      if isinstance(t.this, exp.Identifier)]  # fmt: skip
            inserted = text.startswith("INSERT")
            assert len(tables) - inserted == text.count('"agent_id" = '), text
            assert not inserted or '"agent_id") VALUES (' in text or '"agent_id") SELECT ' in text
            assert not re.search("nextval|NULLS (FIRST|LAST)", text)
            assert "ON CONFLICT" not in text or re.search(
                r'ON CONFLICT(\("agent_id"[,)]| DO NOTHING)', text
            )


def test_a_condition_that_is_left_out_anywhere_is_noticed(spoken, monkeypatch):
    """Method: the nth condition on the agent is not made, for each n, in each statement."""
    left, count = 0, 0
    made = scope._its_own

    def but_one(table):
        nonlocal left
        left -= 1
        return exp.EQ(this=exp.Literal.number(1), expression=exp.Literal.number(1)) if not left \
            else made(table)  # fmt: skip

    monkeypatch.setattr(scope, "_its_own", but_one)
    for sql, kinds in spoken:
        for nth in range(1, 30):
            left = nth
            try:
                translate.__wrapped__(sql, kinds)
            except Untranslatable:
                count += 1
                continue
            assert left > 0, f"unnoticed: {sql}"
            break
    assert count > 200


@pytest.mark.parametrize(
    "text",
    [
        "SELECT key FROM messages",
        "SELECT m.key FROM messages m WHERE m.agent_id = {0} OR m.key = 1",
        "SELECT m.key FROM messages m WHERE NOT (m.agent_id = {0})",
        "SELECT m.key FROM messages m WHERE m.agent_id <> {0}",
        "SELECT m.key FROM messages m WHERE m.agent_id = m.agent_id",
        "SELECT m.key FROM messages m JOIN users u ON u.key = m.user WHERE m.agent_id = {0}",
        "SELECT m.key FROM messages m LEFT JOIN marks k ON k.key = m.key WHERE m.agent_id = {0}"
        " AND k.agent_id = {0}",
        "SELECT m.key FROM messages m LEFT JOIN marks k ON m.agent_id = {0} AND k.agent_id = {0}",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM messages WHERE key = 1)",
        "SELECT m.key FROM messages m WHERE m.agent_id = {0} UNION SELECT key FROM memories",
        "SELECT m.key FROM other.messages m WHERE m.agent_id = {0}",
        "SELECT a.key FROM agents a WHERE a.agent_id = {0}",
        "SELECT r FROM generate_series(1, 2) r",
        "WITH m AS (SELECT key FROM messages) SELECT m.key FROM m WHERE m.agent_id = {0}",
        "DELETE FROM messages",
        "DELETE FROM messages USING users WHERE messages.agent_id = {0}",
        "UPDATE marks SET pinned = 1 WHERE key = 1",
        "UPDATE marks SET agent_id = {0} WHERE marks.agent_id = {0}",
        "INSERT INTO readers (name, seq) VALUES ('a', 1)",
        "INSERT INTO readers (name, agent_id, seq) VALUES ('a', {0}, 1), ({0}, 'b', 2)",
        "INSERT INTO readers (name, seq, agent_id) SELECT m.key, 1, m.agent_id FROM messages m"
        " WHERE m.agent_id = {0}",
        "INSERT INTO readers (name, seq, agent_id) VALUES ('a', 1, {0}) ON CONFLICT (name)"
        " DO UPDATE SET seq = 2",
        "INSERT INTO readers (name, seq, agent_id) VALUES ('a', 1, {0}) ON CONFLICT"
        " (agent_id, name) DO UPDATE SET agent_id = excluded.agent_id",
        "INSERT INTO readers (name, seq, agent_id) SELECT name, 1, {0} FROM meta",
        "SELECT (SELECT max(key) FROM messages) FROM users u WHERE u.agent_id = {0}",
        "SELECT u.key FROM users u WHERE u.agent_id = {0} ORDER BY (SELECT max(key) FROM marks)",
    ],
)
def test_a_statement_that_is_not_about_one_agent_alone_is_refused(text):
    tree = sqlglot.parse_one(text.format(":agent"), read="postgres").transform(
        lambda node: exp.Var(this=AGENT_VALUE) if isinstance(node, exp.Placeholder) else node
    )
    with pytest.raises(Untranslatable):
        check_scoped(tree)


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        ("SELECT name FROM sqlite_schema", ""),
        ("SELECT key FROM agents", ""),
        ("SELECT * FROM names", ""),
        ("SELECT rowid FROM words WHERE words MATCH ?", "s"),
        ("INSERT INTO words(rowid, terms) VALUES(?, ?)", "is"),
        ("PRAGMA table_info(messages)", ""),
        ("DROP TABLE messages", ""),
        ("CREATE TABLE other(key INTEGER)", ""),
        ("ATTACH 'x' AS y", ""),
        ("SELECT key FROM messages WHERE id = ?", ""),
        ("SELECT key FROM messages NATURAL JOIN users", ""),
        ("SELECT m.key FROM messages m RIGHT JOIN users u ON u.key = m.user", ""),
        ("SELECT m.key FROM messages m JOIN users u USING (key)", ""),
        ("INSERT INTO messages DEFAULT VALUES", ""),
        ("REPLACE INTO mentions VALUES(?, ?, ?, ?)", "iifi"),  # its bytes would be lost count of
        ("UPDATE OR REPLACE moving SET run = ?", "s"),
        ("SELECT key % 2 FROM messages", ""),
        ("SELECT 1; SELECT 2", ""),
    ],
)
def test_what_is_no_statement_about_an_agent_is_refused(sql, kinds):
    with pytest.raises((Untranslatable, sqlglot.errors.SqlglotError)):
        translate(sql, kinds)


@pytest.mark.parametrize(
    ("sql", "kinds", "expected"),
    [
        (
            "SELECT key FROM messages WHERE id = ?2 AND role = ? AND content <> '?1 100%'",
            "nss",
            'SELECT "key" FROM "messages" WHERE ("id" = %(p2)s::text AND "role" = %(p3)s::text AND'
            ' "content" <> \'?1 100%%\') AND "messages"."agent_id" = %(agent)s::uuid',
        ),
        (
            "REPLACE INTO readers VALUES(?, ?)",
            "si",
            'INSERT INTO "readers" ("name", "seq", "agent_id") VALUES (%(p1)s::text,'
            ' %(p2)s::bigint, %(agent)s::uuid) ON CONFLICT("agent_id", "name") DO UPDATE SET'
            ' "seq" = "excluded"."seq"',
        ),
        (
            "SELECT max(key, ?), max(key) FROM marks WHERE pinned AND NOT importance IS ? ORDER BY"
            " key DESC LIMIT ?",
            "ini",
            'SELECT GREATEST("key", %(p1)s::bigint), MAX("key") FROM "marks" WHERE ("pinned" <> 0'
            ' AND NOT "importance" IS NOT DISTINCT FROM NULL) AND "marks"."agent_id" ='
            ' %(agent)s::uuid ORDER BY "key" DESC LIMIT %(p3)s::bigint',
        ),
    ],
)
def test_statements_become_what_a_reader_expects(sql, kinds, expected):
    assert translate(sql, kinds).sql == expected


def test_the_forms_of_a_statement_that_are_kept_are_bounded():
    assert translate.cache_info().maxsize == dialect._STATEMENTS_MAX


def test_texts_come_back_as_they_were_also_as_bytes(link):
    """U+0000, the mark that stands for it, backslashes, and what looks like an escape."""
    link.bind(uuid.uuid4())
    odd = ["a\0b", "\x10", "\x100\x10d", "\\", "\\000", "é🙂\0\\\\", "%s %(p1)s %%", "0\0d\x10\0"]
    for number, text in enumerate(odd):
        row = (number, text, text, "note", 0.5, 0, None, None, None, 1, None, 1, None, 0, b"")
        link.execute(f"INSERT INTO memories VALUES({','.join('?' * 15)})", row)
    found = link.execute("SELECT content, CAST(content AS BLOB) FROM memories ORDER BY key")
    assert found.fetchall() == [(text, text.encode()) for text in odd]
    by_id = "SELECT m.key FROM json_each(?) j CROSS JOIN memories m ON m.id = j.value"
    assert sorted(link.execute(by_id, (odd,)).fetchall()) == [(n,) for n in range(len(odd))]
