"""
Costs: what the agents of a store hold, read one by one.

One damaged memory does not hide the others: it is listed as unreadable, and its error is
raised once the rest has been shown.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from elytron.errors import ElytronError
from elytron.records import Usage
from elytron.store import Store


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An agent whose usage could not be read, and why."""

    agent: str
    cause: ElytronError


@dataclass(frozen=True, slots=True)
class AgentRow:
    """What `agents --json` says of an agent."""

    name: str
    messages: int
    sessions: int
    first_at: datetime | None
    last_at: datetime | None
    bytes: int


Costs = list[Usage | Unreadable]


def read(store: Store, names: Iterable[str]) -> Costs:
    """The usage of each agent."""
    costs: Costs = []
    for name in names:
        try:
            costs.append(store.agent(name).usage())
        except ElytronError as error:
            costs.append(Unreadable(name, error))
    return costs


def total_bytes(costs: Costs) -> int:
    return sum(cost.bytes.total for cost in costs if isinstance(cost, Usage))


def rows(costs: Costs) -> list[AgentRow | Unreadable]:
    """The same in short, for the list of agents."""
    return [
        AgentRow(
            cost.agent,
            cost.messages,
            cost.sessions,
            cost.first_at,
            cost.last_at,
            cost.bytes.total,
        )
        if isinstance(cost, Usage)
        else cost
        for cost in costs
    ]


def raise_first_error(costs: Costs) -> None:
    """Raise why the first unreadable agent could not be read, if there is one."""
    for cost in costs:
        if isinstance(cost, Unreadable):
            raise cost.cause
