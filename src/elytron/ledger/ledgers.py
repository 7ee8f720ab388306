"""Ledgers: what a store asks of where its agents' ledgers are, whichever database that is."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from elytron.ledger.database import Database
from elytron.ledger.ops import Op
from elytron.ledger.uses import Uses

DSN_SCHEMES = ("postgresql://", "postgres://")


class Ledger(Protocol):
    """One agent's ledger. `commit` is for one thread at a time; `reading` for many."""

    name: str
    folder: Path  # where its archive, its graph and the locks of its chores are
    uses: Uses

    @property
    def source(self) -> object:
        """How messages name it."""

    @property
    def path(self) -> Path:
        """Its own file; beside it are logs that were set aside. There may be none."""

    @property
    def languages(self) -> str:
        """What its words are indexed for, as names separated by commas."""

    @property
    def remains(self) -> tuple[str, ...]:
        """Where copies of what was erased may be, beyond our reach, in words."""

    def open(self, *, create: bool) -> bool:
        """Open it, making it if *create*; False if there is none, and nothing was made."""

    def close(self) -> None:
        """Give everything back."""

    def is_outdated(self) -> bool:
        """
        Whether the agent was deleted, renamed or replaced by others, as far as is known here: then
        it is to be closed, and what there is now to be opened.
        """

    def commit(self, ops: Sequence[Op], deadline: float) -> list[Any]:
        """
        Apply ops in one durable transaction; for each its result, or the `ElytronError` that it
        met. If the transaction fails as a whole, the ops are tried one by one.
        """

    def reading(self, *, snapshot: bool = False) -> AbstractContextManager[Database]:
        """A connection to read with; with *snapshot* all statements see one moment."""

    def file_sizes(self) -> tuple[int, int]:
        """Bytes that count against its limit: of what it holds, and of its log."""

    def checkpoint_due(self) -> bool:
        """Whether the log is to be emptied."""

    def checkpoint(self) -> None:
        """Bring the log to the file, as far as readers let it."""

    def empty_wal(self, deadline: float) -> None:
        """Cut the log to nothing. `Busy` if that did not go until *deadline*."""

    def rebuild(self, deadline: float) -> None:
        """Write it anew, so that nothing unused is left in it."""


class Ledgers(Protocol):
    """A store's ledgers."""

    folder: Path  # of the store: archives, graphs and locks lie here
    shown: str  # how messages and reports name the store
    open_max: int  # agents that may be open at once

    def new(
        self,
        name: str,
        *,
        uses: Uses,
        upkeep: bool = False,
        carrying: bool = False,
        on_near: Callable[[], None] = lambda: None,
    ) -> Ledger:
        """
        An agent's ledger, not open yet.

        Args:
            uses: what all who have this agent open in this process count of its messages' uses.
            upkeep: this one makes room for others; it may use the last of what there is.
            on_near: called now and then, in `commit`, while the ledger is near its limit. Must
                return at once.
            carrying: it may be opened while only some of its rows have come, see `carrying.py`.
        """

    def may_hold(self, name: str) -> bool:
        """Whether there may be a ledger of this agent. Cheap; opening it says for sure."""

    def names(self) -> list[str]:
        """The names of all agents, sorted."""

    def remove(self, name: str, *, alone: Callable[[], None], deadline: float) -> bool:
        """
        Let there be no such agent any more, neither rows nor files, all of it or nothing; False if
        there was none. What is left of its files is for `deleted.finish`.

        Args:
            alone: called once nobody else writes to it; what it raises stops this.
        """

    def rename(self, old: str, new: str, *, alone: Callable[[], None], deadline: float) -> bool:
        """
        Let an agent be called *new*, with all that it has; False if there was none called *old*.

        Args:
            alone: called once nobody else writes to it; what it raises stops this.

        Raises:
            Conflict: there is something called *new*; nothing was changed.
        """

    def make(self) -> None:
        """Make the store, before the first write to it."""

    def close(self) -> None:
        """Give back what all of them share, once each is closed. Idempotent."""
