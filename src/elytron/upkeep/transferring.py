"""
Transferring: one agent from one store into another, while others go on saving to the first.

Round by round the two ledgers are compared, row by row, in pages; what is missing or different is
written, what is too much is removed. A round counts once all of the first ledger was read in one
snapshot, or nothing had changed while it was read, and what the second one has, read back, comes to
the same number of rows and the same checksum. What is there of a run that was stopped is not
written again.
"""

import contextlib
import logging
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from elytron.archive import Archive, Manifest
from elytron.config import Config
from elytron.errors import Busy, Conflict, Corrupt, ElytronError
from elytron.ledger import carrying, feeds, frames, ops, words
from elytron.ledger.carried import (
    PUT_MAX,
    TABLES,
    BeginCarrying,
    DropRows,
    EndCarrying,
    PutRows,
    Row,
    put_bytes,
)
from elytron.ledger.database import Database
from elytron.ledger.ledgers import Ledger
from elytron.reports import AgentMigrated
from elytron.upkeep import transferring_files

_T = TypeVar("_T")
_log = logging.getLogger("elytron.migration")
_ROUNDS_MAX = 10
_WHOLE_MAX = 3  # rounds that count, while the first store goes on changing
# How long one snapshot is held: in the first round, and twice as long in each further one.
_SNAPSHOT_S = 0.5
_BEFORE_ALL = -(1 << 62)  # no key is as small
_WORDS_BYTES = 6 * 4096  # what one message in the index of words may write
_MERGE_EACH = 16  # commits that index words
_MERGE_STEPS_MAX = 2_000
_SUM_LIMIT = 1 << 128

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two stores' ledgers of the agent, open, with its archive."""

    ledger: Ledger
    archive: Archive
    config: Config

    def read(self, query: Callable[[Database], _T]) -> _T:
        with self.ledger.reading() as db:
            return query(db)

    def commit(self, op: ops.Op) -> Any:
        deadline = time.monotonic() + self.config.save_timeout_s
        outcome = self.ledger.commit([op], deadline)[0]
        if isinstance(outcome, ElytronError):
            raise outcome
        if self.ledger.checkpoint_due():
            self.ledger.checkpoint()
        return outcome


@dataclass(slots=True)
class Tally:
    """What rows come to, in whatever order: their number, and a sum of 128 bits."""

    count: int = 0
    sum: int = 0

    def add(self, found: Sequence[Row]) -> None:
        self.count += len(found)
        self.sum = (self.sum + sum(map(carrying.total_of, found))) % _SUM_LIMIT


@dataclass(slots=True)
class _Round:
    """
    What one round saw of the first ledger.

    Attributes:
        now: what was last written when the round began, see `carrying.now`.
        tallies: of its rows, by table.
        changed: how many rows were written or removed in the second one.
        whole: whether all was one moment.
    """

    now: tuple[int, int]
    tallies: dict[str, Tally] = field(default_factory=dict)
    changed: int = 0
    whole: bool = False


class _Moment:
    """
    Reads a ledger in one snapshot, as long as one may be held; then in another.

    While one is held a log cannot be cut, and those who save wait once it is at its limit.
    """

    def __init__(self, ledger: Ledger, limit_s: float) -> None:
        self._ledger = ledger
        self._limit_s = limit_s
        self._until = 0.0
        self._db: Database | None = None
        self._open = contextlib.ExitStack()
        self.snapshots = 0

    def read(self, query: Callable[[Database], _T]) -> _T:
        if self._db is None or time.monotonic() > self._until:
            self.close()
            self._db = self._open.enter_context(self._ledger.reading(snapshot=True))
            self._until = time.monotonic() + self._limit_s
            self.snapshots += 1
        try:
            return query(self._db)
        except BaseException:
            self._db = None
            self._open.__exit__(*sys.exc_info())  # which makes the error ours
            raise

    def close(self) -> None:
        self._db = None
        self._open.close()


def check_source(ledger: Ledger) -> None:
    """
    Raises:
        Corrupt: there are commits that it does not show.
    """
    if frames.aside(ledger.path):
        raise Corrupt(
            f"a damaged log lies beside {ledger.source}; nothing was carried: run `elytron check"
            " --repair` first"
        )


class Transfer:
    """One agent on its way. Use once."""

    def __init__(
        self, name: str, source: Side, target: Side, *, on_progress: Progress | None = None
    ) -> None:
        self._name = name
        self._source = source
        self._target = target
        self._on_progress = on_progress
        self._run = secrets.token_hex(8)
        self._again = False
        self._written = 0
        self._verified = set[str]()  # names of segments

    def run(self, *, anew: bool = False) -> AgentMigrated:
        """
        Carry all there is.

        Raises:
            Conflict: the target holds something else, or another run has taken over.
            Corrupt: a row or a segment of the source is damaged. The target stays half done.
            Busy: the source changed all the time. What came stays, and is not carried again.
            OverBudget, DiskFull, Unavailable, OutcomeUnknown: of the target; the same.
        """
        self._again = self._begin(anew=anew)
        done, behind = self._rounds()
        self._index_words()
        self._target.commit(EndCarrying(self._run))
        return AgentMigrated(
            self._name,
            messages=done.tallies["messages"].count,
            archived=self._target.archive.manifest().messages,
            memories=done.tallies["memories"].count,
            concepts=done.tallies["concepts"].count,
            relations=done.tallies["relations"].count,
            rows=sum([tally.count for tally in done.tallies.values()]),
            checksum=_checksum(done.tallies),
            written=self._written,
            again=self._again,
            behind=behind,
        )

    def _begin(self, *, anew: bool) -> bool:
        """Have the target take our rows; whether some had come before."""
        held = self._target.read(lambda db: carrying.mark(db, self._target.ledger.source))
        if held is None and self._target.archive.manifest().entries:
            raise Conflict(
                f"{self._target.archive.folder} holds other archived messages; nothing was changed:"
                " carry it to another place"
            )
        origin = self._source.read(lambda db: feeds.identity(db, self._source.ledger.source))
        number = self._source.read(feeds.latest)
        if held is not None and held.origin == origin and held.number > number:
            raise Conflict(
                f"{self._source.ledger.source} is older than what was carried from it before: it is"
                f" at {number}, that was at {held.number}; nothing was changed"
            )
        return bool(self._target.commit(BeginCarrying(origin, self._run, anew=anew)))

    # -- rounds

    def _rounds(self) -> tuple[_Round, int]:
        """Compare and carry, until the two are the same; and how far the source is ahead again."""
        counted = 0
        for number in range(_ROUNDS_MAX):
            done = self._round(min(self._source.config.read_timeout_s, _SNAPSHOT_S * 2**number) / 2)
            if done is None or not self._is_the_same(done):
                continue
            counted += 1
            now = self._source.read(carrying.now)
            if now == done.now or counted == _WHOLE_MAX:
                return done, max(now[0] - done.now[0], int(now != done.now))
        raise Busy(
            f"{self._source.ledger.source} changed all the time in {_ROUNDS_MAX} rounds; what came"
            " over stays: carry it again when it is less busy, or raise `read_timeout_s`"
        )

    def _round(self, snapshot_s: float) -> _Round | None:
        """One round; None if the archive was changed meanwhile."""
        held = self._archive_of()
        if not transferring_files.copy(self._source.archive, self._target.ledger.folder, held):
            return None
        moment = _Moment(self._source.ledger, snapshot_s)
        with contextlib.closing(moment):
            done = _Round(moment.read(carrying.now))
            if self._archive_of() != held:
                return None
            sizes = moment.read(lambda db: {table: carrying.counted(db, table) for table in TABLES})
            steps = _Steps(self._on_progress, sum(sizes.values()))
            for table in TABLES:
                done.tallies[table] = Tally()
                for found in self._pages(moment, table, done):
                    done.tallies[table].add(found)
                    steps.go(len(found))
            done.whole = moment.snapshots == 1
        self._written += done.changed
        if done.whole:
            self._check_counts(sizes, done)
        elif done.changed or self._archive_of() != held:
            return None
        transferring_files.publish(self._target.ledger.folder, held, self._verified)
        return done

    def _archive_of(self) -> Manifest:
        return transferring_files.listed(self._source.archive)

    def _check_counts(self, sizes: Mapping[str, int], done: _Round) -> None:
        """
        Raises:
            Corrupt: a table and its index do not have the same rows.
        """
        for table, tally in done.tallies.items():
            if tally.count != sizes[table]:
                raise Corrupt(
                    f"{self._source.ledger.source}: {table} has {tally.count} rows, and its index"
                    f" {sizes[table]}; it was left as it is: run `elytron check --repair`"
                )

    def _is_the_same(self, done: _Round) -> bool:
        """Whether the target, read back, has the rows that were seen, and no others."""
        return all(tally == self._tally(table) for table, tally in done.tallies.items())

    def _tally(self, table: str) -> Tally:
        tally = Tally()
        if not TABLES[table].paged:
            tally.add(self._target.read(partial(carrying.small, table=table)))
            return tally
        after = _BEFORE_ALL
        while True:
            upto = self._target.read(partial(carrying.page_end, table=table, after=after))
            if upto is None:
                return tally
            part = partial(carrying.between, table=table, after=after, upto=upto)
            tally.add(self._target.read(part))
            after = upto

    # -- one table

    def _pages(self, moment: _Moment, table: str, done: _Round) -> Iterator[list[Row]]:
        """Bring a table of the target to what the source's has; yields the latter's rows."""
        if not TABLES[table].paged:
            found = moment.read(partial(carrying.small, table=table))
            held = self._target.read(partial(carrying.small, table=table))
            done.changed += self._bring(table, found, held)
            yield found
            return
        after, rest_empty = _BEFORE_ALL, False
        while True:
            find = partial(carrying.page_end, table=table, after=after)
            ends = [moment.read(find), None if rest_empty else self._target.read(find)]
            rest_empty = ends[1] is None
            upto = min([end for end in ends if end is not None], default=None)
            if upto is None:
                return
            part = partial(carrying.between, table=table, after=after, upto=upto)
            found = moment.read(part)
            done.changed += self._bring(table, found, [] if rest_empty else self._target.read(part))
            yield found
            after = upto

    def _bring(self, table: str, found: Sequence[Row], held: Sequence[Row]) -> int:
        """
        Write what the target lacks, once what it has otherwise is gone; how many rows that were.

        One in whose place another stands, which is still to go, is for the next round.
        """
        size = TABLES[table].key
        wanted = {row[:size]: row for row in found}
        there = {row[:size]: row for row in held}
        surplus = [row for key, row in there.items() if wanted.get(key) != row]
        if table == "meta":  # what is to be replaced there may not be missing for a moment
            surplus = [row for row in surplus if row[:size] not in wanted]
        missing = [row for key, row in wanted.items() if there.get(key) != row]
        for part, size_bytes in self._parts(table, surplus):
            keys = tuple([row[:size] for row in part])
            self._target.commit(DropRows(self._run, table, keys, size_bytes))
        for row in missing:
            carrying.verify(table, row, self._source.ledger.source)
        for part, size_bytes in self._parts(table, missing):
            self._target.commit(PutRows(self._run, table, tuple(part), size_bytes))
        return len(surplus) + len(missing)

    def _parts(self, table: str, found: Sequence[Row]) -> Iterator[tuple[list[Row], int]]:
        """Rows in parts that are a commit each, with what that may write."""
        limit_bytes = self._target.config.commit_bytes
        part, part_bytes = list[Row](), 0
        for row in found:
            row_bytes = put_bytes(TABLES[table], row)
            if table == "messages" and self._again:  # so that the index of words has it
                row_bytes += _WORDS_BYTES
            if part and (part_bytes + row_bytes > limit_bytes or len(part) == PUT_MAX):
                yield part, part_bytes
                part, part_bytes = [], 0
            part.append(row)
            part_bytes += row_bytes
        if part:
            yield part, part_bytes

    # -- words

    def _index_words(self) -> None:
        """Make the target's index of words of what has none yet, in commits that fit into a log."""
        limit_bytes = self._target.config.wal_limit_bytes
        step = ops.IndexWords(words.index_bytes(limit_bytes // 64 + 4096))
        number = 0
        while self._target.commit(step):
            number += 1
            if number % _MERGE_EACH == 0:
                self._merge_words()

    def _merge_words(self) -> None:
        limit_bytes = self._target.config.wal_limit_bytes
        for _ in range(_MERGE_STEPS_MAX):
            segments, _ = self._target.read(words.segments)
            pages = words.step_pages(segments, wal_limit_bytes=limit_bytes)
            op = ops.MergeWords(pages, words.merge_bytes(pages, segments))
            if not pages or not self._target.commit(op):
                return


class _Steps:
    """Tells how many of a round's rows were compared."""

    def __init__(self, on_progress: Progress | None, total: int) -> None:
        self._on_progress = on_progress
        self._total = total
        self._done = 0

    def go(self, count: int) -> None:
        self._done += count
        if self._on_progress is not None:
            self._on_progress(min(self._done, self._total), self._total)


def _checksum(tallies: Mapping[str, Tally]) -> str:
    """One number of what all tables come to."""
    told = tuple([(table, tally.count, tally.sum) for table, tally in sorted(tallies.items())])
    return f"{carrying.total_of(told):032x}"
