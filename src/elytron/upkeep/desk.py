"""
Desk: one agent's files in the hands of upkeep, and what all chores do with them.

The ledger here is a second one on the agent's file, as another process would have it: its
commits take turns with whoever is saving, by the lock file, and nobody's lead is waited for.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from elytron.archive import Archive
from elytron.config import Config
from elytron.errors import ElytronError
from elytron.ledger import ops, space, surveys, vectors
from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.database import Database
from elytron.ledger.embedded import removed_bytes
from elytron.ledger.learned import Forgotten, SweepLearned
from elytron.ledger.ledgers import Ledger
from elytron.ledger.moves import Taken
from elytron.ledger.room import NoRoom
from elytron.ledger.schema import PROPOSED
from elytron.ledger.uses import Uses
from elytron.text import Analyzer
from elytron.upkeep.clock import Clock
from elytron.upkeep.runs import Run

_T = TypeVar("_T")
# Of a removed message: a page of each of its two indexes, at the worst, and its row twice.
_REMOVED_BYTES = 2 * 4096
REMOVED_MAX = 100  # messages in one commit: saves wait for it, some 4 ms
# Between two commits of ours. A lock that is taken again at once leaves others no moment.
_GIVE_WAY_S = 0.002


@dataclass(frozen=True, slots=True)
class Desk:
    """
    What a chore works with. `run` is its own; another that is not alive has left things half done.
    `uses` are those of the agent's messages that are not written yet.
    """

    name: str
    ledger: Ledger
    archive: Archive
    config: Config
    analyzer: Analyzer
    clock: Clock
    run: Run
    uses: Uses
    more: Callable[[int], bool] = lambda _bytes: False  # of the store's total; whether it is there

    def commit(self, op: ops.Op) -> Any:
        """Apply one op durably, and bring the WAL to the file where that is due."""
        deadline = time.monotonic() + self.config.save_timeout_s
        outcome = self.ledger.commit([op], deadline)[0]
        # All that a chore does may meet what the agent was granted, what removes too. To note a
        # grant is itself how more is had.
        short = isinstance(outcome, NoRoom) and outcome.limit == "max_total_mb"
        if short and not isinstance(op, ops.Grant) and self.more(outcome.bytes):
            outcome = self.ledger.commit([op], deadline)[0]
        if isinstance(outcome, ElytronError):
            raise outcome
        if self.ledger.checkpoint_due():
            self.ledger.checkpoint()
        time.sleep(_GIVE_WAY_S)
        return outcome

    def read(self, query: Callable[[Database], _T]) -> _T:
        """Ask the ledger, in one snapshot."""
        with self.ledger.reading(snapshot=True) as db:
            return query(db)

    def pages(self, *, unused: bool = False) -> space.Pages:
        return self.read(lambda db: space.pages(db, unused=unused))

    def remove(
        self,
        found: Sequence[tuple[int, int | None]],
        *,
        sizes: dict[int, int],
    ) -> int:
        """Remove messages from the ledger; returns how many went. Arguments as in `removing`."""
        return sum([step.messages for _, step in self.removing(found, sizes=sizes)])

    def removing(
        self,
        found: Sequence[tuple[int, int | None]],
        *,
        segments: tuple[str, ...] = (),
        sizes: dict[int, int],
    ) -> Iterator[tuple[int, Taken]]:
        """
        Remove messages in commits that fit into the WAL.

        Args:
            found: (key, version) of each, see `ops.Remove`.
            sizes: about what each takes, by key.

        Yields:
            After each commit how many messages it was about, and what it took.
        """
        held = self.read(vectors.state)
        vector_bytes = 0 if held is None else removed_bytes(held.dim)
        for group, size_bytes in self._groups(found, sizes, vector_bytes):
            step = self.commit(ops.Remove(tuple(group), segments, self.run.token, size_bytes))
            yield len(group), step

    def _groups(
        self,
        found: Iterable[tuple[int, int | None]],
        sizes: dict[int, int],
        vector_bytes: int,
    ) -> Iterator[tuple[list[tuple[int, int | None]], int]]:
        """What to remove in one commit each, and how much that may write."""
        limit_bytes = self.config.wal_limit_bytes // 2
        group: list[tuple[int, int | None]] = []
        group_bytes = 0
        for pair in found:
            size_bytes = _removal_bytes(sizes.get(pair[0], 0)) + vector_bytes
            if group and (group_bytes + size_bytes > limit_bytes or len(group) == REMOVED_MAX):
                yield group, group_bytes
                group, group_bytes = [], 0
            group.append(pair)
            group_bytes += size_bytes
        if group:
            yield group, group_bytes

    def tidy(self) -> None:
        """
        Remove sessions and users that no message is left of, and concepts that were only proposed
        and nothing names any more.
        """
        self.sweep((PROPOSED,))
        at_once = max(1, min(64, self.config.wal_limit_bytes // 4 // ops.TIDIED_BYTES // 2))
        names = self.read(lambda db: surveys.counts(db, ("sessions", "users")))
        for _ in range(1 + sum(names.values())):  # in a damaged file a row may refuse to go
            if self.commit(ops.Tidy(at_once)) < at_once:
                return

    def sweep(self, origins: tuple[int, ...], *, unlooked: bool = False) -> Forgotten:
        """Remove what `SweepLearned` finds, in commits that fit into the WAL."""
        at_once = max(1, min(500, self.config.commit_bytes // (8 * PAGE_BYTES)))
        return self.repeat(SweepLearned(origins, at_once, unlooked))

    def repeat(self, op: ops.Op) -> Forgotten:
        """Do a step that forgets until there is no more to do; what went in all."""
        total = Forgotten()
        tables = ("memories", "concepts", "relations", "mentions")
        held = self.read(lambda db: surveys.counts(db, tables))
        for _ in range(1 + sum(held.values())):  # in a damaged file a row may refuse to go
            step: Forgotten = self.commit(op)
            total = Forgotten(
                total.memories + step.memories,
                total.concepts + step.concepts,
                total.relations + step.relations,
            )
            if not step.more:
                break
        return total


def _removal_bytes(size_bytes: int) -> int:
    return _REMOVED_BYTES + 2 * size_bytes
