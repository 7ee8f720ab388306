"""
Chores: what can be done for one agent's memory, each by hand or by the janitor.

What leaves is decided in `retention.py`; the doing is in `archiving.py`, `reclaiming.py`,
`erasing.py` and `checking.py`.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence

from elytron.archive import Archived, read_all
from elytron.config import Config, RetentionRule
from elytron.errors import (
    Busy,
    Conflict,
    Corrupt,
    DiskFull,
    GraphUnavailable,
    OverBudget,
    Unavailable,
)
from elytron.ledger import ops, surveys
from elytron.ledger.learned import ForgetLearned
from elytron.ledger.room import NoRoom, Room
from elytron.ledger.schema import PROPOSED, UNINDEXED_MAX
from elytron.reports import Checked, Cleanup, Erased, Reclaimed, Restored
from elytron.upkeep import archiving, checking, erasing, reclaiming, restoring
from elytron.upkeep.desk import Desk
from elytron.upkeep.graphs import Graphs
from elytron.upkeep.older import OfGraph
from elytron.upkeep.reserve import Reserve
from elytron.upkeep.retention import Bounds, Plan

_log = logging.getLogger("elytron.upkeep")
_DAY_US = 86_400_000_000
# Where the file is so full, a clean-up takes it down to that.
NEAR, DOWN_TO = 0.95, 0.9
_ROUNDS_MAX = 4  # what is freed is estimated, so it is measured and done again
_LEAST_BYTES = 51 * 4096  # a ledger of a few messages: to ask that to give would gain nothing
_GRAPH_STEP_BYTES = 1 << 20  # by which the graph is allowed to grow
_DROP_WAIT_S = 2.0  # for another process that has the graph
_DEAD_MIN_BYTES = 1 << 18  # unused, before a clean-up gives them back by itself

Progress = Callable[[int, int], None]


class Unreadable(Corrupt):
    """A segment of the archive is damaged, so what is in it could not be looked through."""


class Chores:
    """One agent's chores. Got from `Housekeeping.chores`, for the length of a block."""

    def __init__(self, desk: Desk, reserve: Reserve, graphs: Graphs) -> None:
        self.desk = desk
        self._graphs = graphs
        self._config = desk.config
        self._reserve = reserve

    def archive(
        self,
        *,
        older_than_days: float | None,
        keep: int | None,
        dry_run: bool,
        on_progress: Progress | None,
    ) -> Cleanup:
        """Move old messages to the archive."""
        days = self._config.archive_after_days if older_than_days is None else older_than_days
        bounds = Bounds(
            int(days * _DAY_US),
            self._config.keep_messages if keep is None else keep,
            None,
            # Days that a caller names are meant for all messages.
            rules=self._config.retention_rules if older_than_days is None else self._lasting(),
        )
        return self._clean(bounds, dry_run=dry_run, on_progress=on_progress)

    def enforce(self, *, dry_run: bool = False, ahead: bool = False) -> Cleanup:
        """
        Bring the agent within all its limits.

        Args:
            ahead: messages are being saved, so there is to be room for the next ones too.
        """
        bounds = self._bounds()
        if ahead:
            bounds = dataclasses.replace(bounds, new_messages=_messages_ahead(self._config))
        if dry_run:
            return self._clean(bounds, dry_run=True)
        archiving.heal(self.desk)
        return self._clean(bounds, dry_run=False)

    def emergency(self, *, dry_run: bool = False) -> Cleanup:
        """Archive the oldest half."""
        bounds = Bounds(
            None,
            0,
            None,
            rules=self._lasting(),
            oldest_half_above=self._config.emergency_messages,
        )
        if dry_run:
            return self._clean(bounds, dry_run=True)
        with self._reserve.given_up():
            return self._clean(bounds, dry_run=False, reclaim=True)

    def restore(
        self,
        wanted: Sequence[str] | None,
        *,
        session: str | None,
        since_us: int | None,
        until_us: int | None,
        on_progress: Callable[[int], None] | None,
    ) -> Restored:
        """Bring messages back from the archive."""
        return restoring.restore(
            self.desk,
            wanted,
            session=session,
            since_us=since_us,
            until_us=until_us,
            on_progress=on_progress,
        )

    def reclaim(self, *, full: bool) -> Reclaimed:
        """Give unused bytes back."""
        return reclaiming.reclaim(self.desk, full=full, merge=True)

    def check(self, *, repair: bool, on_progress: Callable[[int], None] | None) -> Checked:
        """Look at everything."""
        graph = OfGraph(self._graphs.position(self.desk.name), self.drop_graph)
        return checking.check(self.desk, repair=repair, on_progress=on_progress, graph=graph)

    def delete_archived(self, *, ids: Sequence[str] | None, session: str | None) -> int:
        """
        Take these ids, or this session, out of the archive, with the facts that were read in them
        and the names that they alone had; returns how many there were.

        Raises:
            Unreadable: a damaged segment may have more of them; those in the others are gone. Of
                ids, if none was found.
        """
        archive, names = self.desk.archive, None
        wanted = frozenset(ids or ())
        if ids is not None:
            names = {entry.name for found in archive.holding(ids).values() for entry in found}
            if not names:
                return 0
        keys = set[int]()

        def meant(archived: Archived) -> bool:
            leaves = archived.message.id in wanted or archived.message.session == session
            if leaves:
                keys.add(archived.key)
            return leaves

        def forget(learned_from: set[int]) -> None:
            if learned_from:
                step_bytes = self._config.wal_limit_bytes // 2
                self.desk.repeat(ForgetLearned(tuple(sorted(learned_from)), (), step_bytes))

        # First, since a message that is gone could not be found again by who repeats this.
        for archived in read_all(
            archive,
            wanted=lambda entry: names is None or entry.name in names,
            on_damage=lambda error: _log.info("%s", error),  # it is told below
        ):
            meant(archived)
        forget(keys)
        forgotten = set(keys)
        rewritten = archive.rewrite(meant, names=names)
        forget(keys - forgotten)
        if keys:
            self.desk.sweep((PROPOSED,))  # what they named is not known any more, but what is named
        if rewritten.damaged and not (wanted and rewritten.removed):
            raise Unreadable(
                f"{rewritten.removed} messages are deleted from the archive of"
                f" {self.desk.name!r}; there may be more in what is damaged:"
                f" {next(iter(rewritten.damaged.values()))}: run `elytron check`"
            )
        return rewritten.removed

    def forget(self, *, user: str | None, session: str | None, replies: bool) -> Erased:
        """Erase a user or a session. The graph goes first: it is built anew without them."""
        self.drop_graph()
        report = erasing.forget(self.desk, user=user, session=session, replies=replies)
        return self._without_graph(report)

    def clear(self) -> Erased:
        """Erase all."""
        self.drop_graph()
        return self._without_graph(erasing.clear(self.desk))

    def make_room(self, short: NoRoom) -> bool:
        """
        Make a write that met *short* fit; whether it does now. The graph goes first, since it can
        be made anew; then messages are archived.

        Nothing leaves where all that may leave would not be enough.
        """
        if short.bytes and self._drop_graph():
            return True
        room_bytes = self.room_bytes
        enough_bytes = int((1 - NEAR) * room_bytes)  # free, beyond what is asked for
        for _ in range(_ROUNDS_MAX):
            pages = self.desk.pages()
            spare_bytes = room_bytes - pages.live_bytes
            if short.bytes and spare_bytes > short.bytes + enough_bytes:
                return True  # another was here, or the last round was enough
            enough_bytes = int((1 - DOWN_TO) * 0.9 * room_bytes)
            bounds = self._room_bounds(short, room_bytes, pages.live_bytes)
            found = archiving.plan_for(self.desk, bounds, stay=short.ids)
            if found.short_messages:
                return False
            if not found.leaving:  # another was here, or there is nothing that may leave
                return bool(short.messages) or spare_bytes >= short.bytes
            if short.bytes and spare_bytes + found.freed_bytes < short.bytes:
                return False
            try:
                self._carry_out(found)
            except Conflict as error:  # so another process is making room
                _log.info("archiving for %r is left to others: %s", self.desk.name, error)
                return True
            if short.messages:
                return True
        return self.room_bytes - self.desk.pages().live_bytes > short.bytes

    def give(self, wanted_bytes: int) -> None:
        """
        Make the agent's files smaller by *wanted_bytes*, as far as that goes: unused pages first,
        then the graph, then the least valuable messages into the archive, then the oldest of that.
        """
        goal = max(_LEAST_BYTES, self.used_bytes - wanted_bytes)
        reclaiming.vacuum(self.desk)
        reclaiming.empty_wal(self.desk)
        if self.used_bytes > goal:
            self._drop_graph()
        for _ in range(_ROUNDS_MAX):
            over_bytes = self.used_bytes - goal
            if over_bytes <= 0:
                return
            if self.archive_bytes > self.used_bytes // 2:
                break  # what would be archived would only drive out what is there
            bounds = Bounds(None, 0, None, excess_bytes=2 * over_bytes, rules=self._lasting())
            found = archiving.plan_for(self.desk, bounds)
            if not found.leaving:
                break
            self._carry_out(found)
            reclaiming.vacuum(self.desk)
            reclaiming.empty_wal(self.desk)
        over_bytes = self.used_bytes - goal
        if over_bytes > 0 and self.archive_bytes:
            archiving.drop_oldest(self.desk, max(0, self.archive_bytes - over_bytes))

    @property
    def archive_bytes(self) -> int:
        """What the archive takes."""
        return self.desk.archive.usage().bytes if self.desk.archive.exists() else 0

    @property
    def graph_bytes(self) -> int:
        """What the graph may take; it is noted in the ledger before it takes it."""
        return self.desk.read(surveys.graph_bytes)

    @property
    def beside_bytes(self) -> int:
        """What lies beside the ledger's file: the archive, and what the graph may take."""
        return self.archive_bytes + self.graph_bytes

    @property
    def used_bytes(self) -> int:
        """What the ledger's file, the archive and the graph take."""
        return self.desk.ledger.file_sizes()[0] + self.beside_bytes

    def more_for_graph(self, size_bytes: int) -> int:
        """
        How much more the graph would be allowed, to grow to *size_bytes*.

        Raises:
            OverBudget: the agent's own limit has no room for that.
        """
        allowed_bytes = self.graph_bytes
        size_bytes = _graph_step(size_bytes)
        own = self._config.max_db_size_bytes - self._config.wal_limit_bytes
        if self.desk.pages().live_bytes + size_bytes > NEAR * own:
            raise self.no_graph(size_bytes, "max_db_size_mb")
        return max(0, size_bytes - allowed_bytes)

    def allow_graph(self, size_bytes: int) -> None:
        """Note in the ledger that the graph may grow to *size_bytes*."""
        reclaiming.vacuum(self.desk)  # the file gives up the pages that the graph may take now
        self.desk.commit(ops.AllowGraph(_graph_step(size_bytes)))

    def no_graph(self, size_bytes: int, setting: str) -> OverBudget:
        """What to say where a limit has no room for a graph."""
        return OverBudget(
            f"a graph of {self.desk.name!r} takes {size_bytes} bytes, and beside its"
            f" {self.desk.pages().live_bytes} bytes of messages `{setting}` leaves no room for it:"
            f" archive or delete something, or raise `{setting}`"
        )

    def _drop_graph(self) -> bool:
        """Delete the graph, if there is one and nobody else has it; whether that gave room."""
        allowed_bytes = self.graph_bytes
        if not allowed_bytes:
            return False
        try:
            self._graphs.drop(self.desk.name, deadline=time.monotonic() + _DROP_WAIT_S)
        except (Busy, GraphUnavailable) as error:
            _log.info("the graph of %r stays: %s", self.desk.name, error)
            return False
        self.desk.commit(ops.AllowGraph(0))
        return True

    @property
    def room_bytes(self) -> int:
        """How large the file may get by saving, by the agent's own limit."""
        return Room(self.desk.name, self._config, upkeep=False).own_bytes

    def drop_graph(self) -> int:
        """Delete the graph and what it was allowed; returns the bytes that it had."""
        dropped_bytes = self._graphs.drop(self.desk.name)
        if self.graph_bytes:
            self.desk.commit(ops.AllowGraph(0))
        return dropped_bytes

    def _without_graph(self, report: Erased) -> Erased:
        """Delete what another process may have built while we erased."""
        try:
            self.drop_graph()
        except (Busy, GraphUnavailable, Unavailable) as error:
            left = f"the graph, which could not be deleted: {error}"
            return dataclasses.replace(report, remaining=(left, *report.remaining))
        return report

    def _room_bounds(self, short: NoRoom, room_bytes: int, live_bytes: int) -> Bounds:
        target_bytes = min(int(DOWN_TO * room_bytes), room_bytes - short.bytes)
        return Bounds(
            None,
            # Else a trim of a memory that keeps nearly all would take one message at a time.
            min(self._config.keep_messages, int(NEAR * self._config.max_messages_per_agent)),
            self._config.max_messages_per_agent if short.messages else None,
            excess_bytes=max(1, live_bytes - target_bytes) if short.bytes else 0,
            new_messages=short.messages,
            rules=self._lasting(),
        )

    def _bounds(self) -> Bounds:
        pages, room_bytes = self.desk.pages(), self.room_bytes
        near = pages.live_bytes > NEAR * room_bytes
        return Bounds(
            int(self._config.archive_after_days * _DAY_US),
            self._config.keep_messages,
            self._config.max_messages_per_agent,
            excess_bytes=pages.live_bytes - int(DOWN_TO * room_bytes) if near else 0,
            rules=self._config.retention_rules,
        )

    def _clean(
        self,
        bounds: Bounds,
        *,
        dry_run: bool,
        reclaim: bool = False,
        on_progress: Progress | None = None,
    ) -> Cleanup:
        found = archiving.plan_for(self.desk, bounds)
        planned = archiving.described(self.desk, found, dry_run=dry_run)
        if dry_run:
            return planned
        before, dropped = sum(self.desk.ledger.file_sizes()), self._dropped()
        archived = self._carry_out(found, on_progress)
        pages = self.desk.pages()
        if reclaim or pages.dead_bytes >= _DEAD_MIN_BYTES:
            reclaiming.reclaim(self.desk)
        return dataclasses.replace(
            planned,
            archived=archived,
            dropped=self._dropped() - dropped,
            given_back_bytes=max(0, before - sum(self.desk.ledger.file_sizes())),
        )

    def _dropped(self) -> int:
        archive = self.desk.archive
        return archive.manifest().dropped_messages if archive.exists() else 0

    def _carry_out(self, found: Plan, on_progress: Progress | None = None) -> int:
        """Archive what a plan says; on a full disk once more, without the reserve."""

        def work() -> int:
            return archiving.archive(self.desk, found, on_progress=on_progress)

        try:
            return archiving.retried(work)
        except DiskFull:
            if not self._reserve.bytes:
                raise
        with self._reserve.given_up():
            return archiving.retried(work)

    def _lasting(self) -> tuple[RetentionRule, ...]:
        """The rules without their days."""
        return tuple(
            [
                dataclasses.replace(rule, archive_after_days=None)
                for rule in self._config.retention_rules
            ]
        )


def _messages_ahead(config: Config) -> int:
    """For how many messages there is to be room before a save finds none."""
    most = config.max_messages_per_agent
    # That a limit is near is told once in so many saves.
    unheard = min(2 * UNINDEXED_MAX, math.ceil((1 - DOWN_TO) * most))
    return max(0, min(max(math.ceil((1 - NEAR) * most), unheard), most - config.keep_messages))


def _graph_step(size_bytes: int) -> int:
    return -(-size_bytes // _GRAPH_STEP_BYTES) * _GRAPH_STEP_BYTES
