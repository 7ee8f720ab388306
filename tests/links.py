"""What the ledger says of links: who names which concept, and what was heard."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from elytron import Agent
from elytron.concepts.known import KnownNames
from elytron.ledger.learned import Link, LinkResult
from elytron.ledger.sqlite import Ledger
from elytron.upkeep.linking import Linking


def query(agent: Agent, sql: str) -> list[Any]:
    with agent._agents.use(agent.name, create=False) as opened:
        assert opened is not None
        with opened.ledger.reading() as db:
            return db.execute(sql).fetchall()


def mentions(agent: Agent) -> dict[str, set[str]]:
    """The names of the concepts that each message or memory names, by its id."""
    found: dict[str, set[str]] = {}
    for key, name in query(
        agent,
        "SELECT s.id, c.name FROM mentions n JOIN concepts c ON c.key = n.concept"
        " JOIN (SELECT key, id FROM messages UNION SELECT key, id FROM memories) s"
        " ON s.key = n.source",
    ):
        found.setdefault(key, set()).add(name)
    return found


def heard(agent: Agent) -> dict[str, int]:
    """How often what is no concept yet was heard."""
    return dict(query(agent, "SELECT folded, times FROM heard"))


def origins(agent: Agent) -> dict[str, int]:
    return dict(query(agent, "SELECT name, origin FROM concepts"))


class Steps:
    """One agent's links, step by step, as a second process would make them."""

    def __init__(self, agent: Agent, ledger: Ledger, writer: Any) -> None:
        self.written: list[Link] = []
        self.results: list[LinkResult] = []
        self.known = KnownNames()
        self._writer = writer
        self.linking = Linking(
            ledger,
            self._write,
            config=agent._agents.config,
            analyzer=agent._analyzer,
            known=self.known,
        )

    def _write(self, op: Link, until_s: float = math.inf) -> LinkResult:
        self.written.append(op)
        result: LinkResult = self._writer.call_by(op, until_s)
        self.results.append(result)
        return result

    def all(self, most: int = 1000) -> int:
        """Step until there is nothing to do; how many steps that were."""
        for count in range(most):
            if not self.linking.step():
                return count
        raise AssertionError(f"{most} steps were not enough")


@contextlib.contextmanager
def steps(agent: Agent) -> Iterator[Steps]:
    with agent._agents.use(agent.name, create=False) as opened:
        assert opened is not None
        yield Steps(agent, opened.ledger, opened.writer)
