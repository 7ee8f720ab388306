"""
Comparing: whether a graph has what its ledger has.

The graph can be made anew at any time, so a difference is repaired by deleting it. Only a graph
that is there is looked at: a check starts no worker for one that nobody asked for.
"""

import logging
from collections.abc import Iterator

from elytron.errors import ElytronError, OverBudget
from elytron.ledger import rows
from elytron.ledger.database import Database
from elytron.ledger.ledgers import Ledger
from elytron.reports import Finding
from elytron.upkeep.graphs import Graphs

_log = logging.getLogger("elytron.upkeep")
_TRIES = 5  # while others go on saving
_NODES = {
    "Message": "messages",
    "Session": "sessions",
    "User": "users",
    "Memory": "memories",
    "Concept": "concepts",
}
_COUNTS = "MATCH (n:%s) RETURN count(n) AS number, sum(n.key) AS keys"
_RELATIONS = (
    "MATCH ()-[r:MENTIONS]->() RETURN count(r) AS number",
    "MATCH ()-[r:RELATES_TO]->() RETURN count(r) AS number",
)
_LEDGER_RELATIONS = "SELECT (SELECT count(*) FROM mentions), (SELECT count(*) FROM relations)"


def findings(graphs: Graphs, name: str, ledger: Ledger, *, repair: bool) -> Iterator[Finding]:
    """What is wrong with an agent's graph, if it has one."""
    usage = graphs.usage(name)
    if usage.damaged is not None:
        yield _mended(
            graphs, name, f"{usage.damaged} was set aside as damaged: {usage.built_because}", repair
        )
        return
    if usage.position is None:
        return
    try:
        wrong = _difference(graphs, name, ledger)
    except OverBudget as error:  # no room to bring it up to date, and nothing is damaged
        _log.info("the graph of %r was not compared: %s", name, error)
        return
    except ElytronError as error:
        wrong = f"the graph cannot be asked: {error}"
    if wrong is not None:
        yield _mended(graphs, name, wrong, repair)


def _mended(graphs: Graphs, name: str, what: str, repair: bool) -> Finding:
    if not repair:
        return Finding("graph", what, repairable=True)
    try:
        graphs.drop(name)
    except ElytronError as error:
        return Finding("graph", f"{what}; deleting it failed: {error}", repairable=True)
    return Finding("graph", what, repairable=True, repaired=True)


def _difference(graphs: Graphs, name: str, ledger: Ledger) -> str | None:
    """Where the two differ, in words; None if they agree, or are written to all the time."""
    for _ in range(_TRIES):
        with ledger.reading(snapshot=True) as db:
            before = _of_ledger(db)
        shown = _of_graph(graphs, name, ledger)
        with ledger.reading(snapshot=True) as db:
            after = _of_ledger(db)
        if before == after:
            for what, expected in before.items():
                if shown[what] != expected:
                    return f"{what}: {shown[what][0]} in the graph, {expected[0]} in the ledger"
            return None
    return None


def _of_ledger(db: Database) -> dict[str, tuple[int, int]]:
    """How many rows of each kind, and the sum of their keys."""
    counted = {
        label: db.execute(f"SELECT count(*), ifnull(sum(key), 0) FROM {table}").get
        for label, table in _NODES.items()
    }
    ((mentions, relations),) = rows.fetch(db, _LEDGER_RELATIONS)
    return counted | {"MENTIONS": (mentions, 0), "RELATES_TO": (relations, 0)}


def _of_graph(graphs: Graphs, name: str, ledger: Ledger) -> dict[str, tuple[int, int]]:
    from elytron.graph.client import Statement

    counted = {}
    for label in _NODES:
        ((number, keys),) = graphs.ask(name, ledger, Statement(_COUNTS % label, {})).rows
        counted[label] = (int(number), int(keys or 0))
    for label, text in zip(("MENTIONS", "RELATES_TO"), _RELATIONS, strict=True):
        ((number,),) = graphs.ask(name, ledger, Statement(text, {})).rows
        counted[label] = (int(number), 0)
    return counted
