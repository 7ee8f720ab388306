"""
Costs: what the agents of a store hold, read one by one.

One damaged memory does not hide the others: it is listed as unreadable, and its error is
raised once the rest has been shown.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from elytron.errors import ElytronError
from elytron.records import StoreUsage, Usage
from elytron.reports import Forecast
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


@dataclass(frozen=True, slots=True)
class StoreCosts:
    """
    What a store costs, agent by agent.

    `usage` is None where an agent that cannot be read hides it. `only` names the one agent that is
    wanted, if just one is: the rest counts for the store's own number and bytes.
    """

    agents: Costs
    usage: StoreUsage | None
    only: str | None = None

    @property
    def wanted(self) -> Costs:
        """Those to be shown."""
        if self.only is None:
            return self.agents
        return [cost for cost in self.agents if cost.agent == self.only]

    @property
    def total_bytes(self) -> int:
        """All that is known of."""
        if self.usage is not None:
            return self.usage.total_bytes
        return sum(cost.bytes.on_disk for cost in self.agents if isinstance(cost, Usage))


def read_store(store: Store) -> StoreCosts:
    """The usage of a whole store; of the agents that can be read, if some cannot."""
    try:
        usage = store.usage()
    except ElytronError:  # of one agent: it is met again, and kept, where they are read singly
        return StoreCosts(read(store, store.agents()), None)
    return StoreCosts(list(usage.agents), usage)


def share_of(used: float, limit: float) -> float:
    """How much of a limit is used, from 0; 0 where there is no limit."""
    return used / limit if limit else 0.0


def nearest_limit(forecast: Forecast) -> tuple[str, float] | None:
    """(setting, days) of the limit that is reached first, if one comes nearer."""
    coming = ((days, name) for name, days in forecast.until.items() if days is not None)
    days, name = min(coming, default=(0.0, ""))
    return (name, days) if name else None


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


def raise_first_error(found: Iterable[object]) -> None:
    """Raise why the first unreadable agent could not be read, if there is one."""
    for one in found:
        if isinstance(one, Unreadable):
            raise one.cause
