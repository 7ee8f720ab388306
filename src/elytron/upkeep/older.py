"""
Older: a ledger that ends before what was made from it.

Its log was cut off or emptied, or an older file was copied back: SQLite reads it and finds nothing
wrong. The archive and the graph have numbers of the ledger's one sequence, and so tell. Only until
as much has been written anew: a few changes that were lost may pass unseen.
"""

from collections.abc import Callable
from typing import NamedTuple

from elytron.errors import ElytronError
from elytron.ledger import feeds, ops
from elytron.reports import Finding
from elytron.upkeep.desk import Desk


class OfGraph(NamedTuple):
    """The number up to which a graph has the changes of its ledger, and what deletes it."""

    position: int = 0
    drop: Callable[[], object] = int


def older(desk: Desk, part: str, *, archived: int, graph: OfGraph, repair: bool) -> list[Finding]:
    """
    What is lost, if that is sure. It is no more to be had here; *repair* has new numbers go on
    above all that were used, and the graph made anew, so that it is told once.

    Args:
        archived: the highest key in the archive.
    """
    ended = desk.read(feeds.latest)
    known = max(archived, graph.position)
    if known <= ended:
        return []
    who = "archive" if archived == known else "graph"
    what = (
        f"the ledger ends at number {ended}, and its {who} knows of {known}: what was written in"
        " between is lost, as by a log that was cut off or an older file that was copied back;"
        " `elytron restore --from` a backup has it"
    )
    if repair:
        try:
            graph.drop()
            desk.commit(ops.GoOn(known))
        except ElytronError as error:
            what = f"{what}; going on above that failed: {error}"
    return [Finding(part, what)]
