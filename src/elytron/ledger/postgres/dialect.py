"""
Dialect: the ledger's statements, which are SQLite's, as PostgreSQL's about one agent.

`translate` is the one way a statement goes to a server. What it makes names the agent beside each
table, wherever in the statement that stands; `scope.py` looks at the result once more. Here are the
statements that write; what expressions are spelt like is in `spelling.py`.
"""

import functools
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import sqlglot
from sqlglot import exp

from elytron.ledger.postgres import spelling
from elytron.ledger.postgres.scope import (
    AGENT_VALUE,
    Untranslatable,
    check_scoped,
    known,
    restrict,
)
from elytron.ledger.postgres.tables import AGENT

_STATEMENTS_MAX = 4096  # a few hundred are in use, each with and without its NULLs
_PLACE = re.compile(r"'(?:[^']|'')*'|\?(\d+)?")
_REPLACE = re.compile(r"\s*REPLACE\s+INTO\b")


class Statement(NamedTuple):
    """
    PostgreSQL's form of a statement, with psycopg's named places: agent, p1, p2 and so on.

    `weigh` is insert, update or delete where the statement returns what each row that it touched
    counts in bytes; `before` then is, for an update, the query of what those rows count now.
    """

    sql: str
    weigh: str | None = None
    before: str | None = None


@functools.lru_cache(maxsize=_STATEMENTS_MAX)
def translate(sql: str, kinds: str) -> Statement:
    """
    Make PostgreSQL's form of a statement of the ledger.

    Args:
        kinds: a letter for each bound value: i(nteger), f(loat), s(tring), b(ytes), n(one), a(rray
            of integers), t(exts).

    Raises:
        Untranslatable: it is none that this knows to put, or names a table that is no agent's.
    """
    tree = spelling.respelt(sqlglot.parse_one(_named(sql), read="sqlite"), kinds)
    restrict(tree)
    weigh = before = None
    if isinstance(tree, exp.Insert):
        weigh = _insert(tree)
    elif isinstance(tree, exp.Update | exp.Delete):
        weigh, before = _change(tree)
    elif not isinstance(tree, exp.Query):
        raise Untranslatable(f"no statement of the ledger: {type(tree).__name__}")
    if before is not None:
        check_scoped(before)
    check_scoped(tree)
    return Statement(_text(tree), weigh, None if before is None else _text(before))


def _named(sql: str) -> str:
    """A statement with its places as :p1, numbered as SQLite does, and REPLACE in its long form."""
    last = 0

    def name(found: re.Match[str]) -> str:
        nonlocal last
        if found[0].startswith("'"):
            return found[0]
        number = int(found[1]) if found[1] else last + 1
        last = max(last, number)
        return f":p{number}"

    return _REPLACE.sub("INSERT OR REPLACE INTO", _PLACE.sub(name, sql), count=1)


# -- statements that write


def _insert(tree: exp.Insert) -> str | None:
    """Name the columns and add the agent, last, so that no place of the others changes."""
    into = tree.this if isinstance(tree.this, exp.Schema) else exp.Schema(this=tree.this)
    name = into.this.name
    table = known(name)
    columns = [one.name for one in into.expressions] or list(table.columns)
    into.set("expressions", [exp.to_identifier(one) for one in (*columns, AGENT)])
    tree.set("this", into)
    for row in _rows_given(tree.expression):
        row.append("expressions", exp.Var(this=AGENT_VALUE))
    conflict = tree.args.get("conflict")
    how = tree.args.get("alternative")
    tree.set("alternative", None)
    if how is not None or conflict is not None:
        conflict = _conflict(conflict, how, name, columns)
        tree.set("conflict", conflict)
    if table.size is None:
        return None
    if conflict is not None and conflict.args["action"].name != "DO NOTHING":
        raise Untranslatable(f"a row of {name} cannot be written over: its bytes are counted")
    _return_size(tree, table.size)
    return "insert"


def _rows_given(given: exp.Expr) -> list[exp.Expr]:
    if isinstance(given, exp.Values):
        return given.expressions
    if isinstance(given, exp.Select):
        return [given]
    raise Untranslatable(f"rows of {type(given).__name__} are not known here")


def _conflict(
    told: exp.OnConflict | None, how: str | None, name: str, columns: list[str]
) -> exp.OnConflict:
    """What is done if the row is there: told in the statement, REPLACE or IGNORE."""
    if told is not None:
        told.set("conflict_keys", [exp.column(one) for one in (AGENT, *_told_keys(told))])
        for change in told.expressions:
            own: Callable[[exp.Expr], exp.Expr] = functools.partial(_own, name)
            change.set("expression", change.expression.transform(own))
        return told
    if how == "IGNORE":
        return exp.OnConflict(action=exp.Var(this="DO NOTHING"))
    if how != "REPLACE":
        raise Untranslatable(f"OR {how} is not known here")
    key = known(name).key
    changes = [
        exp.EQ(this=exp.column(one), expression=exp.column(one, table="excluded"))
        for one in columns
        if one not in key
    ]
    return exp.OnConflict(
        conflict_keys=[exp.column(one) for one in (AGENT, *key)],
        action=exp.Var(this="DO UPDATE" if changes else "DO NOTHING"),
        expressions=changes,
    )


def _told_keys(told: exp.OnConflict) -> Iterable[str]:
    return [one.find(exp.Column).name for one in told.args.get("conflict_keys") or ()]


def _own(name: str, node: exp.Expr) -> exp.Expr:
    """A column of the row that is there, which PostgreSQL wants to be told from the new one's."""
    if isinstance(node, exp.Column) and not node.table:
        return exp.column(node.name, table=name)
    return node


def _change(tree: exp.Update | exp.Delete) -> tuple[str | None, exp.Select | None]:
    """(how to weigh, the query before) of an UPDATE or DELETE."""
    name = tree.this.name
    size = known(name).size
    if size is None:
        return None, None
    if isinstance(tree, exp.Delete):
        _return_size(tree, size)
        return "delete", None
    weight = _weight(size)
    weighed = {column.name for column in weight.find_all(exp.Column)}
    if weighed.isdisjoint(change.this.name for change in tree.expressions):
        return None, None
    total = exp.cast(exp.func("coalesce", exp.Sum(this=weight), exp.Literal.number(0)), "bigint")
    before = exp.select(total).from_(tree.this.copy())
    before.set("where", tree.args["where"].copy())
    _return_size(tree, size)
    return "update", before


def _weight(size: str) -> exp.Expr:
    return sqlglot.parse_one(size, read="postgres")


def _return_size(tree: exp.Expr, size: str) -> None:
    tree.set("returning", exp.Returning(expressions=[_weight(size)]))


def _text(tree: exp.Expr) -> str:
    """As text, with each % doubled but those of the places."""
    for literal in tree.find_all(exp.Literal):
        literal.set("this", literal.this.replace("%", "%%"))
    if tree.find(exp.Mod):
        raise Untranslatable("% is the sign of a place")
    return tree.sql("postgres", identify=True, normalize_functions=False)
