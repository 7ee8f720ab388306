"""
Together: what several agents' savers have to save at one moment goes as one transaction.

Each agent's messages are a statement that does something or nothing and waits for nobody, so they
can be asked in one round trip, and one commit makes all of them durable. `bench/postgres.py` shows
what a save takes alone and among 32.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

import psycopg
from psycopg import errors as server_errors

from elytron.errors import ElytronError
from elytron.ledger.postgres import faults, saving
from elytron.ledger.postgres.links import Links
from elytron.ledger.postgres.saving import Claim

AGENTS_MAX = 32  # in one transaction


class Saved(Enum):
    """What became of a claim, where it is known."""

    DONE = "durable"
    BEHIND = "nothing was written: somebody else had written meanwhile, or has the agent"
    REFUSED = "nothing was written: the server refused it, or another's in the same transaction"


class Target(Protocol):
    """What is called with the claims of many callers at once."""

    def commit(self, ops: Sequence[Claim], deadline: float) -> list[Any]: ...
    def checkpoint_due(self) -> bool: ...
    def checkpoint(self) -> None: ...


# Of a target, and how many claims it takes at once, it makes what one caller calls, with a claim
# and a deadline, and waits for.
Grouping = Callable[[Target, int], Callable[[Claim, float], Any]]


class Together:
    """Saves claims of several agents, each of another one. For one thread at a time."""

    def __init__(self, links: Links, shown: str) -> None:
        self._links = links
        self._source = f"the memory on {shown}"

    def commit(self, ops: Sequence[Claim], deadline: float) -> list[Any]:
        """For each claim what became of it: a `Saved`, or the `ElytronError` that it met."""
        try:
            if len(ops) == 1:
                return [self.alone(ops[0], deadline)]
            return self._together(ops, deadline)
        except ElytronError as error:
            return [error] * len(ops)

    def alone(self, claim: Claim, deadline: float) -> Saved:
        """
        Save one claim, as a transaction of its own.

        Raises:
            OutcomeUnknown, Unavailable, Busy: as they say.
        """
        link = self._links.borrow(claim.agent, deadline)
        link.committing = True
        try:
            return Saved.DONE if saving.save(link, claim) else Saved.BEHIND
        except server_errors.UniqueViolation:  # saved before, or so they say
            return Saved.REFUSED
        except faults.STORAGE_ERRORS as error:
            raise faults.translate(error, claim.source, committing=True) from error
        finally:
            self._links.give_back(link)

    def _together(self, claims: Sequence[Claim], deadline: float) -> list[Any]:
        link = self._links.borrow(None, deadline)
        try:
            counts = link.about_each([(each.agent, each.sql, each.values) for each in claims])
        except faults.STORAGE_ERRORS as error:
            if _was_refused(error) and not link.closed:
                link.undo()
                return [Saved.REFUSED] * len(claims)  # each hears for itself what is wrong
            raise faults.translate(error, self._source, committing=True) from error
        finally:
            self._links.give_back(link)
        outcomes = list[Any]()
        for claim, count in zip(claims, counts, strict=True):
            if count == claim.items:
                claim.note()
            outcomes.append(Saved.DONE if count == claim.items else Saved.BEHIND)
        return outcomes

    def checkpoint_due(self) -> bool:
        """There is no log of ours."""
        return False

    def checkpoint(self) -> None:
        """The server's own."""


def _was_refused(error: psycopg.Error | UnicodeError) -> bool:
    """Whether the server, or our own side, would not have a statement: nothing is kept of it."""
    if isinstance(error, UnicodeError):
        return True
    return error.sqlstate is not None and not faults.leaves_it_open(error)
