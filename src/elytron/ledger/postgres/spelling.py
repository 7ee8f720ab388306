"""Spelling: what SQLite and PostgreSQL write differently within a statement."""

import functools
from collections.abc import Callable

from sqlglot import exp

from elytron.ledger.postgres.scope import Untranslatable, known

_TYPES = {
    "i": "bigint", "f": "double precision", "s": "text", "b": "bytea", "a": "bigint[]",
    "t": "text[]",
}  # fmt: skip


def respelt(tree: exp.Expr, kinds: str) -> exp.Expr:
    """A statement of SQLite's as PostgreSQL spells it; *kinds* as in `dialect.translate`."""
    for change in (functools.partial(_value, kinds), _spelt, _conditions, _orders, _wildcards):
        tree = _bottom_up(tree, change)
    _alias(tree)
    return tree


def _bottom_up(tree: exp.Expr, change: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    """
    The tree with each part changed after those that it consists of.

    sqlglot's own `transform` passes over what is within a part that it changed.
    """
    for node in reversed(list(tree.dfs())):
        parent, key, index = node.parent, node.arg_key or "", node.index
        changed = change(node)
        if changed is node:
            continue
        if parent is None:
            tree = changed
            tree.pop()
        else:
            parent.set(key, changed, index)
    return tree


def _value(kinds: str, node: exp.Expr) -> exp.Expr:
    """Each place with the type of what is bound there."""
    if not isinstance(node, exp.Placeholder):
        return node
    number = int(node.name[1:])
    if number > len(kinds):
        raise Untranslatable(f"there is no value for place {number} of a statement")
    kind = kinds[number - 1]
    return exp.Null() if kind == "n" else exp.Var(this=f"%(p{number})s::{_TYPES[kind]}")


def _spelt(node: exp.Expr) -> exp.Expr:
    """What SQLite calls otherwise, or gives another type."""
    match node:
        case exp.In() if (array := _array_of(node.args.get("query"))) is not None:
            return exp.EQ(this=node.this, expression=exp.Any(this=exp.Paren(this=array)))
        case exp.Table(this=exp.Anonymous()):
            return _rows_of(node)
        case exp.StrPosition():
            return exp.Anonymous(this="strpos", expressions=[node.this, node.args["substr"]])
        case exp.Sum() if not isinstance(node.parent, exp.Cast):
            return exp.cast(node, "bigint")
        case exp.Cast() if node.to.is_type("int"):
            return exp.cast(node.this, "bigint")
        case exp.Cast() if node.to.is_type("varbinary"):
            return _bytes(node.this)
    return node


def _array_of(query: exp.Expr | None) -> exp.Expr | None:
    """The array of (SELECT value FROM carray(?)), or of `json_each` if that is given texts."""
    parts = query.this.args if isinstance(query, exp.Subquery) else {}
    call = parts["from_"].this.this if parts.get("from_") else None
    if not isinstance(call, exp.Anonymous) or call.name != "unnest":
        return None
    if parts.get("where") or parts.get("joins") or parts.get("limit"):
        return None
    array: exp.Expr = call.expressions[0]
    return array


def _rows_of(table: exp.Table) -> exp.Table:
    """carray(?) and json_each(?) in FROM: rows with one column, which is called value."""
    name, (value,) = table.this.name, table.this.expressions
    if name not in ("carray", "json_each") or not value.name.endswith("[]"):
        raise Untranslatable(f"rows of {name} with such a value are not known here")
    call = exp.Anonymous(this="unnest", expressions=[value])
    alias = exp.TableAlias(
        this=exp.to_identifier(table.alias or name), columns=[exp.to_identifier("value")]
    )
    return exp.Table(this=call, alias=alias)


def _bytes(text: exp.Expr) -> exp.Expr:
    """The UTF-8 of a text, with U+0000 as itself: for it two characters stand, see `values.py`."""
    marks = ("\\", "\\\\", "\x10" + "0", "\\000", "\x10" + "d", "\\020")
    for old, new in zip(marks[::2], marks[1::2], strict=True):
        text = exp.func("replace", text, exp.Literal.string(old), exp.Literal.string(new))
    return exp.Anonymous(this="decode", expressions=[text, exp.Literal.string("escape")])


def _conditions(node: exp.Expr) -> exp.Expr:
    """Where a condition is meant, SQLite takes any number for one."""
    match node:
        case exp.Where() | exp.Having() | exp.Not():
            node.set("this", _truth(node.this))
        case exp.And() | exp.Or():
            node.set("this", _truth(node.this))
            node.set("expression", _truth(node.expression))
        case exp.Join() if node.args.get("on") is not None:
            node.set("on", _truth(node.args["on"]))
        case exp.Case() if node.this is None:
            for one in node.args["ifs"]:
                one.set("this", _truth(one.this))
        case exp.Coalesce() if not isinstance(node.this, exp.Null) and _is_condition(node.this):
            node.set("expressions", [_truth(one) for one in node.expressions])
    return node


def _is_condition(node: exp.Expr) -> bool:
    if isinstance(node, exp.Paren | exp.Coalesce):
        return _is_condition(node.this)
    return isinstance(node, exp.Predicate | exp.Connector | exp.Not | exp.Boolean | exp.Null)


def _truth(node: exp.Expr) -> exp.Expr:
    if _is_condition(node):
        return node
    if isinstance(node, exp.Paren):
        return exp.Paren(this=_truth(node.this))
    if isinstance(node, exp.Literal) and not node.is_string:
        return exp.Boolean(this=node.to_py() != 0)
    return exp.NEQ(this=node, expression=exp.Literal.number(0))


def _orders(node: exp.Expr) -> exp.Expr:
    """
    Orders by what an index has: to say where NULLs go would keep it from being used, and nothing
    is ordered by what may be NULL. And no hint to an index that is SQLite's own.
    """
    match node:
        case exp.Ordered():
            node.set("nulls_first", bool(node.args.get("desc")))
        case exp.Table() if node.args.get("indexed"):
            node.set("indexed", None)
        case exp.Join(kind="CROSS") if node.args.get("on") is not None:
            node.set("kind", None)
    return node


def _wildcards(node: exp.Expr) -> exp.Expr:
    """All columns of one table are those of `TABLES`, so that the agent is none of them."""
    source = node.args.get("from_") if isinstance(node, exp.Select) else None
    if source is not None and any(isinstance(one, exp.Star) for one in node.expressions):
        table = source.this
        if isinstance(table, exp.Table):
            if node.args.get("joins") or len(node.expressions) > 1:
                raise Untranslatable("* is of one table alone")
            node.set("expressions", [exp.column(name) for name in known(table.name).columns])
    return node


def _alias(tree: exp.Expr) -> None:
    """Name the queries in FROM that have no name, as older servers want it."""
    number = 0
    for query in tree.find_all(exp.Subquery):
        if isinstance(query.parent, exp.From | exp.Join) and not query.alias:
            number += 1
            query.set("alias", exp.TableAlias(this=exp.to_identifier(f"part{number}")))
