"""
Keeping: the verbs of limits: what leaves, what comes back, what is given back and forgotten.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from elytron.errors import Corrupt, InvalidArgument
from elytron.ledger import files, ops, rows
from elytron.reports import Checked, Cleanup, Erased, Reclaimed, Restored
from elytron.upkeep import comparing, mending
from elytron.upkeep.chores import Chores
from elytron.upkeep.salvaging import salvage
from elytron.verbs.base import Verbs, in_steps
from elytron.write.admission import check_aware, check_id, check_importance

_T = TypeVar("_T")
_DAYS_MAX = 36_500
_KEEP_MAX = 100_000_000


class Keeping(Verbs):
    """Pinning, archiving, restoring, reclaiming, checking, forgetting."""

    def pin(self, id: str) -> None:
        """
        Keep a message in the ledger: whatever limit is reached, it never leaves for the archive.

        Raises:
            NotFound: no message has this id.
        """
        self._write(ops.Mark(check_id(id, "id"), None, pinned=True))

    def unpin(self, id: str) -> None:
        """Let a pinned message leave again when a limit asks for it. Raises as `pin`."""
        self._write(ops.Mark(check_id(id, "id"), None, pinned=False))

    def set_importance(self, id: str, importance: float) -> None:
        """
        Say how much a message is worth, 0 to 1; without it 0.5. Of two, the less important one
        leaves first.

        Raises:
            NotFound: no message has this id.
        """
        self._write(ops.Mark(check_id(id, "id"), check_importance(importance), pinned=None))

    def archive(
        self,
        *,
        older_than_days: float | None = None,
        keep: int | None = None,
        dry_run: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Cleanup:
        """
        Move old messages to the archive.

        Args:
            older_than_days: those at least so old, by the later of `at` and arrival;
                `archive_after_days` if None.
            keep: the newest so many stay; `keep_messages` if None.
            dry_run: only say which would go, why, and what that frees.
            on_progress: called with (done, total) messages.

        Each message is durably in the archive before it leaves the ledger: stopped at any
        moment it is in the one, in the other, or in both, and both is put right by the next
        clean-up. Some 10,000 messages a second, in commits beside which saves go on.
        """
        days = _check_number(older_than_days, "older_than_days", _DAYS_MAX)
        kept = _check_number(keep, "keep", _KEEP_MAX)
        if kept is not None and kept != int(kept):
            raise InvalidArgument(f"keep must be a whole number; got {keep!r:.50}")
        _check_switch(dry_run, "dry_run")
        return self._chore(
            lambda chores: chores.archive(
                older_than_days=days,
                keep=None if kept is None else int(kept),
                dry_run=dry_run,
                on_progress=on_progress,
            ),
            none=Cleanup(self.name, dry_run),
        )

    def enforce_limits(self, *, dry_run: bool = False) -> Cleanup:
        """
        Do now what the periodic clean-up does: archive what the settings say, mend what a crash
        left half done, drop what the archive has too much, and give space back.
        """
        _check_switch(dry_run, "dry_run")
        return self._chore(
            lambda chores: chores.enforce(dry_run=dry_run), none=Cleanup(self.name, dry_run)
        )

    def emergency_cleanup(self, *, dry_run: bool = False) -> Cleanup:
        """
        Archive the oldest half, pinned ones apart, if `emergency_messages` or more are held; then
        give space back.

        For when the disk is full or memory is short: the store's `reserve_mb` are given up first
        and taken again afterwards, and messages pass through memory 500 at a time.
        """
        _check_switch(dry_run, "dry_run")
        return self._chore(
            lambda chores: chores.emergency(dry_run=dry_run), none=Cleanup(self.name, dry_run)
        )

    def restore(
        self,
        ids: Iterable[str] | str | None = None,
        *,
        session: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Restored:
        """
        Bring messages back from the archive, to their old places; all conditions hold together.

        Args:
            ids: of these ids, one or several.
            session: of this session.
            since, until: said from *since* on and before *until*; with a zone.
            on_progress: called with the number brought back so far.

        What comes back counts as arrived now, so it is not archived again for its age. A
        damaged segment is named in the report, and the rest still comes.

        Raises:
            InvalidArgument: no condition at all.
            OverBudget: they do not fit; the error says how many came back before.
        """
        if ids is not None and not isinstance(ids, Iterable):
            raise InvalidArgument(f"ids must be strings; got {ids!r:.50}")
        wanted = None if ids is None else [ids] if isinstance(ids, str) else list(ids)
        accept = _Span(session, since, until)
        for name in wanted or ():
            check_id(name, "id")
        if wanted is None and session is None and since is None and until is None:
            raise InvalidArgument("say what to restore: ids, a session, or a time")
        return self._chore(
            lambda chores: chores.restore(
                wanted,
                session=accept.session,
                since_us=accept.since_us,
                until_us=accept.until_us,
                on_progress=on_progress,
            ),
            none=Restored(self.name, 0, 0, tuple(wanted or ())),
        )

    def reclaim(self, *, full: bool = False) -> Reclaimed:
        """
        Give the file system back what deletions and archiving have left unused.

        Args:
            full: rebuild the whole file in place, whatever its state. Saves wait for it, some
                10 ms a MB, and the disk needs room for a copy meanwhile. Without it that is
                done only where a third of the pages' bytes are unused.

        In steps of a quarter of a megabyte, between which saves go on.
        """
        return self._chore(
            lambda chores: chores.reclaim(full=full), none=Reclaimed(self.name, 0, 0)
        )

    def check(
        self, *, repair: bool = False, on_progress: Callable[[int], None] | None = None
    ) -> Checked:
        """
        Look at everything: each row's checksum, orphans, words against rows, the change list,
        each archive segment, what was left half done, and the graph if there is one.

        Args:
            repair: put right what can be made anew from what is whole. Where the file itself is
                damaged, missing, or lost commits of its log, a new one is made of all that is
                whole in it, in its log and in the archive; the damaged files are kept in a folder
                `damaged-TIME` beside it, and a finding says what is lost. Others wait meanwhile;
                who has it open in another process goes on with the new one.
                A damaged row in a file that is whole is taken out, into such a folder.

        Reads the whole file and the whole archive: some 20,000 messages a second.
        """
        _check_switch(repair, "repair")
        report = self._look(repair=repair, on_progress=on_progress)
        if repair and mending.is_needed(report):
            report = self._mend(report, on_progress)
        return report

    def _mend(self, report: Checked, on_progress: Callable[[int], None] | None) -> Checked:
        """Have a new ledger made in the place of a damaged one."""
        ledger = files.agent_folder(self._agents.path, self.name) / files.LEDGER
        seen = files.file_id(ledger)
        again = self._look(repair=True, on_progress=on_progress)
        if not mending.is_needed(again):  # another process has done it just now
            return again
        agents = self._agents
        try:
            with agents.put_aside(self.name), agents.upkeep.alone(self.name):
                made = salvage(
                    agents.path,
                    self.name,
                    self._config,
                    analyzer=self._analyzer,
                    still=lambda: files.file_id(ledger) == seen,
                )
        except Corrupt as error:
            return mending.failed(report, error)
        agents.note_work(self.name)  # it has no vectors, and knows no names but concepts
        return mending.mended(report, made, self._look(repair=True, on_progress=on_progress))

    def _look(self, *, repair: bool, on_progress: Callable[[int], None] | None) -> Checked:
        try:
            report = self._chore(
                lambda chores: chores.check(repair=repair, on_progress=on_progress),
                none=Checked(self.name, 0, 0),
            )
        except Corrupt as error:
            return mending.unreadable(self.name, error)
        graphs = self._agents.upkeep.graphs
        # Asking it would bring it back to the ledger, and what it knows of a later one be gone.
        if mending.is_about_ledger(report) or not graphs.has_folder(self.name):
            return report
        with self._agents.use(self.name, create=False) as agent:
            if agent is None:
                return report
            found = comparing.findings(graphs, self.name, agent.ledger, repair=repair)
            return replace(report, findings=(*report.findings, *found))

    def forget(
        self, *, user: str | None = None, session: str | None = None, replies: bool = True
    ) -> Erased:
        """
        Erase a user's or a session's messages for good, in the ledger and in the archive.

        Args:
            user: all messages of this user, and with *replies* what the assistant answered
                directly.
            session: all messages of this session. Either this or *user*.
            replies: see *user*.

        With them go what was learned only from them, their words, the names of users and
        sessions that nothing is left of, and the pages they stood on: deleted bytes are
        overwritten, the WAL is emptied, and the archive's segments are written anew.

        Returns:
            A receipt. `remaining` says where erased text may still be: in backups and exports,
            which are not ours, or behind a reader that was still at work.
        """
        if (user is None) == (session is None):
            raise InvalidArgument("name either a user or a session to forget")
        for value, what in ((user, "user"), (session, "session")):
            if value is not None:
                check_id(value, what)
        _check_switch(replies, "replies")
        return self._chore(
            lambda chores: chores.forget(user=user, session=session, replies=replies),
            none=Erased(self.name, 0, 0, 0, 0, 0, 0),
        )

    def clear(self) -> Erased:
        """Erase all that this agent holds, in the ledger and in the archive; see `forget`."""
        return self._chore(lambda chores: chores.clear(), none=Erased(self.name, 0, 0, 0, 0, 0, 0))

    def _chore(self, chore: Callable[[Chores], _T], *, none: _T) -> _T:
        """Do a chore on this agent's files; *none* if there is no such agent."""
        self._agents.check_usable()
        with in_steps(), self._agents.upkeep.chores(self.name) as chores:
            return none if chores is None else chore(chores)


class _Span:
    """Which archived messages are meant, checked."""

    def __init__(self, session: str | None, since: datetime | None, until: datetime | None) -> None:
        self.session = None if session is None else check_id(session, "session")
        self.since_us = None if since is None else rows.to_us(check_aware(since, "since"))
        self.until_us = None if until is None else rows.to_us(check_aware(until, "until"))


def _check_switch(value: object, name: str) -> None:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name} must be true or false; got {value!r:.50}")


def _check_number(value: float | None, name: str, maximum: float) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= maximum:
        raise InvalidArgument(f"{name} must be a number from 0 to {maximum:,}; got {value!r:.50}")
    return value
