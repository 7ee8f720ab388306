"""
Chores: what can be done for one agent's memory, each by hand or by the janitor.

What leaves is decided in `retention.py`; the doing is in `archiving.py`, `reclaiming.py`,
`erasing.py` and `checking.py`.
"""

import dataclasses
from collections.abc import Callable, Sequence

from elytron.archive import Archived
from elytron.config import RetentionRule
from elytron.errors import DiskFull
from elytron.ledger import surveys
from elytron.ledger.room import NoRoom, Room
from elytron.reports import Checked, Cleanup, Erased, Reclaimed, Restored
from elytron.upkeep import archiving, checking, erasing, reclaiming, restoring
from elytron.upkeep.desk import Desk
from elytron.upkeep.reserve import Reserve
from elytron.upkeep.retention import Bounds, Plan

_DAY_US = 86_400_000_000
# Where the file is so full, a clean-up takes it down to that.
NEAR, DOWN_TO = 0.95, 0.9
_ROUNDS_MAX = 4  # what is freed is estimated, so it is measured and done again
_LEAST_BYTES = 40 * 4096  # a ledger of a few messages: to ask that to give would gain nothing
_DEAD_MIN_BYTES = 1 << 18  # unused, before a clean-up gives them back by itself

Progress = Callable[[int, int], None]


class Chores:
    """One agent's chores. Got from `Housekeeping.chores`, for the length of a block."""

    def __init__(self, desk: Desk, reserve: Reserve) -> None:
        self.desk = desk
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

    def enforce(self, *, dry_run: bool = False) -> Cleanup:
        """Bring the agent within all its limits."""
        if dry_run:
            return self._clean(self._bounds(), dry_run=True)
        archiving.heal(self.desk)
        return self._clean(self._bounds(), dry_run=False)

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
        return checking.check(self.desk, repair=repair, on_progress=on_progress)

    def delete_archived(self, *, ids: Sequence[str] | None, session: str | None) -> int:
        """Take these ids, or this session, out of the archive; returns how many there were."""
        archive, names = self.desk.archive, None
        wanted = frozenset(ids or ())
        if ids is not None:
            names = {entry.name for found in archive.holding(ids).values() for entry in found}
            if not names:
                return 0
        return archive.rewrite(
            lambda archived: archived.message.id in wanted or archived.message.session == session,
            names=names,
        ).removed

    def drop_copies(self, ids: Sequence[str]) -> set[str]:
        """
        Take out of the archive what the ledger holds again, saved anew under the same id; returns
        which there were. Not out of segments that are moving: those are of what is held now.
        """
        archive, wanted = self.desk.archive, frozenset(ids)
        moving = archiving.moving(self.desk)
        found = {entry.name for some in archive.holding(ids).values() for entry in some} - moving
        dropped = set[str]()
        if not found:
            return dropped
        with self.desk.ledger.reading() as db:

            def stale(archived: Archived) -> bool:
                key = archived.message.id
                is_copy = key in wanted and surveys.holds(db, id=key, key=0)
                if is_copy:
                    dropped.add(key)
                return is_copy

            archive.rewrite(stale, names=found)
        return dropped

    def forget(self, *, user: str | None, session: str | None, replies: bool) -> Erased:
        """Erase a user or a session."""
        return erasing.forget(self.desk, user=user, session=session, replies=replies)

    def clear(self) -> Erased:
        """Erase all."""
        return erasing.clear(self.desk)

    def make_room(self, short: NoRoom) -> bool:
        """
        Archive so that a write that met *short* fits; whether it does now.

        Nothing leaves where all that may leave would not be enough.
        """
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
            self._carry_out(found)
            if short.messages:
                return True
        return self.room_bytes - self.desk.pages().live_bytes > short.bytes

    def give(self, wanted_bytes: int) -> None:
        """
        Make the agent's files smaller by *wanted_bytes*, as far as that goes: unused pages first,
        then the least valuable messages into the archive, then the archive's oldest.
        """
        goal = max(_LEAST_BYTES, self.used_bytes - wanted_bytes)
        reclaiming.vacuum(self.desk)
        reclaiming.empty_wal(self.desk)
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
    def used_bytes(self) -> int:
        """What the ledger's file and the archive take."""
        return self.desk.ledger.file_sizes()[0] + self.archive_bytes

    @property
    def room_bytes(self) -> int:
        """How large the file may get by saving, by the agent's own limit."""
        return Room(self.desk.name, self._config, upkeep=False).own_bytes

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
