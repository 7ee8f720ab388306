"""
Scope: the agent beside each table of a statement, and a second look whether it is there.

Row-level security on the server is the other wall; this one also lets a server that shards by the
agent send a statement to the one node that it is about.
"""

from collections.abc import Iterator

from sqlglot import exp

from elytron.ledger.postgres.tables import AGENT, TABLES, Table

AGENT_VALUE = "%(agent)s::uuid"
_ROW_FUNCTION = "unnest"  # what may stand in FROM beside tables


class Untranslatable(AssertionError):
    """A statement of ours that cannot be put to a server: a fault in this program alone."""


def known(name: str) -> Table:
    """What there is to know of a table."""
    found = TABLES.get(name)
    if found is None:
        raise Untranslatable(f"{name} is no table of an agent's")
    return found


def restrict(tree: exp.Expr) -> None:
    """Add to each part of a statement that reads or changes rows that they are the agent's."""
    for select in list(tree.find_all(exp.Select)):
        source = select.args.get("from_")
        if source is not None and _is_table(source.this):
            select.where(_its_own(source.this), copy=False)
        for join in select.args.get("joins") or ():
            _restrict_join(select, join)
    if isinstance(tree, exp.Update | exp.Delete):
        tree.where(_its_own(tree.this), copy=False)


def _restrict_join(select: exp.Select, join: exp.Join) -> None:
    if join.side not in ("", "LEFT") or join.args.get("using") or join.method:
        raise Untranslatable(f"a join {join.side} {join.method} is not known here")
    if not _is_table(join.this):
        return
    if join.args.get("on") is not None:
        join.on(_its_own(join.this), copy=False)
    elif join.side:
        raise Untranslatable("an outer join without its condition")
    else:
        select.where(_its_own(join.this), copy=False)


def _is_table(node: exp.Expr) -> bool:
    return isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier)


def _its_own(table: exp.Expr) -> exp.EQ:
    return exp.EQ(
        this=exp.column(AGENT, table=table.alias_or_name), expression=exp.Var(this=AGENT_VALUE)
    )


# -- the second look, which shares nothing with the first but the names


def check_scoped(tree: exp.Expr) -> None:
    """
    Raises:
        Untranslatable: a table is named whose rows are not restricted to the agent's, or one that
            is no agent's; or rows would be given to another.
    """
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            if table.this.name != _ROW_FUNCTION:
                raise Untranslatable(f"rows of {table.this.name} are not known here")
            continue
        if table.name not in TABLES or table.db or table.catalog:
            raise Untranslatable(f"{table.name} is no table of an agent's")
        if not _is_scoped(table):
            raise Untranslatable(f"{table.name} is read or written without its agent")
    for change in tree.find_all(exp.EQ):
        sets = isinstance(change.parent, exp.Update | exp.OnConflict)
        if sets and change.this.name == AGENT and change.arg_key == "expressions":
            raise Untranslatable("a row would be given to another agent")


def _is_scoped(table: exp.Table) -> bool:
    parent = table.parent
    name = table.alias_or_name
    match parent:
        case exp.From(parent=exp.Select() as select):
            return _names_agent(select.args.get("where"), name)
        case exp.Join(parent=exp.Select() as select):
            return _names_agent(parent.args.get("on"), name) or (
                not parent.side and _names_agent(select.args.get("where"), name)
            )
        case exp.Schema(parent=exp.Insert() as insert):
            return _gives_agent(insert, [column.name for column in parent.expressions])
        case exp.Update() | exp.Delete():
            return _names_agent(parent.args.get("where"), name)
    return False


def _names_agent(condition: exp.Expr | None, name: str) -> bool:
    """Whether one of the parts that all have to be true is that the row is the agent's."""
    if isinstance(condition, exp.Where):
        condition = condition.this
    return condition is not None and any(
        isinstance(part, exp.EQ)
        and isinstance(part.this, exp.Column)
        and (part.this.table, part.this.name) == (name, AGENT)
        and _is_agent(part.expression)
        for part in _parts(condition)
    )


def _parts(condition: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(condition, exp.Paren):
        yield from _parts(condition.this)
    elif isinstance(condition, exp.And):
        yield from _parts(condition.this)
        yield from _parts(condition.expression)
    else:
        yield condition


def _gives_agent(insert: exp.Insert, columns: list[str]) -> bool:
    """Whether each row that is inserted is the agent's, and what is in its place too."""
    if columns.count(AGENT) != 1:
        return False
    place = columns.index(AGENT)
    given = insert.expression
    rows = given.expressions if isinstance(given, exp.Values) else [given]
    conflict = insert.args.get("conflict")
    keys = conflict.args.get("conflict_keys") if conflict is not None else None
    return all(
        isinstance(row, exp.Tuple | exp.Select)
        and len(row.expressions) == len(columns)
        and _is_agent(row.expressions[place])
        for row in rows
    ) and (not keys or keys[0].name == AGENT)


def _is_agent(node: exp.Expr) -> bool:
    return isinstance(node, exp.Var) and node.name == AGENT_VALUE
