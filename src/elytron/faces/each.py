"""
Each: one verb for the agent that is named, or for all of a store.
"""

from collections.abc import Callable
from typing import TypeVar

from elytron.agent import Agent
from elytron.errors import ElytronError
from elytron.faces.costs import Unreadable
from elytron.faces.options import held_agent
from elytron.store import Store

_T = TypeVar("_T")


def of_each(
    store: Store,
    agent: str | None,
    verb: Callable[[Agent], _T],
    *,
    ending: type[ElytronError] | tuple[type[ElytronError], ...] = (),
) -> list[_T | Unreadable]:
    """
    What a verb says of one agent or of all; an error of one does not keep the others from it.

    Args:
        ending: errors that the others would meet too: those that are left are not tried.
    """
    names = store.agents() if agent is None else [held_agent(store, agent).name]
    reports: list[_T | Unreadable] = []
    for name in names:
        try:
            reports.append(verb(store.agent(name)))
        except ElytronError as error:
            reports.append(Unreadable(name, error))
            if isinstance(error, ending):
                break
    return reports
