"""
The budget: how many bytes of a store each agent may take before it has to ask again.

Each agent has a grant, for its ledger and its archive. Each open budget has reserves, one for
the WAL of every agent that it writes. The grants and the reserves of those that live are never
more than the store's total together, unless the store was larger when it was first counted.
Who has to give when nothing is free is decided above (`upkeep/shares.py`).

A raised grant is durable before anybody uses it. A lower one and reserves are not brought to the
disk: after a power loss the numbers are too high, or the file is seen to be damaged, and whoever
held a reserve is gone.

Whether the holder of a reserve lives is told by a lock on a file of its own. Ids of processes
say nothing across containers, and times of birth move with the clock.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import apsw

from elytron.errors import Busy, ElytronError
from elytron.ledger import budget_file as rows
from elytron.ledger import files
from elytron.ledger.budget_file import NOBODY, BudgetFile
from elytron.ledger.lock import FileLock
from elytron.ledger.rows import fetch

_log = logging.getLogger("elytron.store")


def _no_bytes(_agent_folder: str) -> int:
    return 0


class Budget:
    """
    The budget of one store, for many threads and processes. Agents are known by their folder.

    Nothing is opened before the first verb. What `grant` says holds until the grant is settled
    or the file is lost, by whichever process: so ask for it with the agent's own lock in hand,
    before each commit, and call `settle` with that lock in hand too.

    Every verb but `close` raises:
        Busy: another thread or process kept the budget for *timeout_s*. Nothing was changed.
        DiskFull, Unavailable: the disk is full, failing or read-only. A number may have changed
            if the commit failed: ask `grant` again.
    """

    def __init__(
        self,
        path: Path,
        *,
        total_bytes: int,
        timeout_s: float,
        vfs: str | None = None,
        wal_bytes: Callable[[str], int] = _no_bytes,
    ) -> None:
        """
        Args:
            path: `budget.db` in the store's folder, which has to be there. Its lock is beside it.
            timeout_s: the longest that a verb waits for other threads and processes.
            wal_bytes: the size of an agent's WAL on the disk. So much of a reserve is kept after
                its holder died, until somebody reserves for that agent again.
        """
        self.path = path
        self.total_bytes = total_bytes
        self._wal_bytes = wal_bytes
        self._holder = secrets.token_hex(8)
        self._pid = os.getpid()
        self._life: FileLock | None = None  # held for as long as there may be reserves of ours
        self._lives_visibly = False
        self._reserves: dict[str, int] = {}  # touched only where we are alone
        self._file = BudgetFile(path, timeout_s=timeout_s, vfs=vfs, opened=self._put_reserves)
        self._run = self._file.run

    # -- grants

    def grant(self, agent_folder: str) -> int:
        """The bytes that an agent may take now; 0 if it never asked."""
        return self._run(lambda db: rows.granted(db, agent_folder))

    def take(self, agent_folder: str, *, need_bytes: int, step_bytes: int) -> int:
        """
        Raise an agent's grant by *step_bytes*, or by what is free if that is enough for the need.

        Returns:
            The grant as it is now. If it did not grow, *need_bytes* are not free, or the budget
            has to be counted first: see `needs_recount`.
        """
        assert need_bytes >= 0, need_bytes
        assert step_bytes >= 0, step_bytes
        wanted = max(need_bytes, step_bytes)

        def work(db: apsw.Connection) -> int:
            held = rows.granted(db, agent_folder)
            growth = min(wanted, self._free(db, wanted))
            if growth < need_bytes or growth <= 0:
                return held
            rows.put_grant(db, agent_folder, held + growth)
            return held + growth

        return self._run(work, durable=True)

    def settle(self, agent_folder: str, used_bytes: int) -> int:
        """Lower an agent's grant to what it uses; never raises it. Returns the grant."""
        assert used_bytes >= 0, used_bytes

        def work(db: apsw.Connection) -> int:
            held = rows.granted(db, agent_folder)
            if used_bytes < held:
                rows.put_grant(db, agent_folder, used_bytes)
            return min(held, used_bytes)

        return self._run(work)

    def forget(self, agent_folder: str) -> None:
        """Give back the grant of an agent whose files are gone. Harmless if it has none."""
        self._run(lambda db: rows.remove(db, "grants", agent=agent_folder))

    # -- reserves

    def reserve(self, agent_folder: str, reserve_bytes: int) -> bool:
        """
        Keep bytes for the WAL of an agent that is to be written here, before it is opened.

        Repeated, it changes the reserve to the new size. Each `Budget` has its own.

        Returns:
            False if they are not free, or the budget has to be counted first; a reserve from
            before stays as it is.
        """
        assert reserve_bytes >= 0, reserve_bytes

        def work(db: apsw.Connection) -> bool:
            held = rows.reserves_of(db, agent_folder)
            # The WAL that a dead writer left is the one that is written on.
            growth = reserve_bytes - held.get(self._holder, 0) - held.get(NOBODY, 0)
            if growth > 0 and self._free(db, growth) < growth:
                return False
            self._show_life()
            rows.remove(db, "reserves", agent=agent_folder, holder=NOBODY)
            rows.put_reserve(db, agent_folder, self._holder, reserve_bytes)
            return True

        def committed(kept: bool) -> None:
            if kept:
                self._reserves[agent_folder] = reserve_bytes

        return self._run(work, committed=committed)

    def release(self, agent_folder: str) -> None:
        """Give back this budget's reserve for an agent, once its WAL is empty or others keep it."""

        def work(db: apsw.Connection) -> None:
            self._reserves.pop(agent_folder, None)
            rows.remove(db, "reserves", agent=agent_folder, holder=self._holder)

        self._run(work)

    # -- the whole

    def uses(self) -> dict[str, int]:
        """The grants by agent."""
        return self._run(lambda db: dict(fetch(db, "SELECT agent, bytes FROM grants")))

    def reserved_bytes(self) -> int:
        """All reserves together, also of those that died and whose room was not needed yet."""
        return self._run(lambda db: rows.total(db, "reserves"))

    def free_bytes(self) -> int:
        """
        What nobody has; below 0 if the store is larger than its total.

        At most 0 while the budget has to be counted. Reserves of the dead count until their room
        is needed.
        """

        def work(db: apsw.Connection) -> int:
            free = self._unheld(db)
            return free if rows.counted(db) else min(free, 0)

        return self._run(work)

    @property
    def needs_recount(self) -> bool:
        """
        Whether the file is new, so that nobody is granted anything before `recount`.

        Look at it when a store is opened, and whenever `take` or `reserve` gave nothing.
        """
        return not self._run(rows.counted)

    def recount(self, measured: Mapping[str, int]) -> None:
        """
        Grant each agent at least what its files take.

        Args:
            measured: bytes by agent, of all that are in the store. Others are forgotten, except
                those that somebody is writing: they may be younger than the measuring.

        May leave more granted than there is: `free_bytes` is below 0 then, and nobody is granted
        more until somebody was trimmed.
        """

        def work(db: apsw.Connection) -> None:
            granted = dict(fetch(db, "SELECT agent, bytes FROM grants"))
            written = {agent for (agent,) in fetch(db, "SELECT agent FROM reserves")}
            for agent in granted.keys() - measured.keys() - written:
                rows.remove(db, "grants", agent=agent)
            for agent, used_bytes in measured.items():
                if used_bytes > granted.get(agent, -1):
                    rows.put_grant(db, agent, used_bytes)
            rows.put_counted(db, counted=True)

        self._run(work, durable=True)

    def close(self) -> None:
        """
        Give everything back, also the reserves. Idempotent; does nothing in a forked child.

        Never fails: reserves that could not be given back end with the lock.
        """
        if os.getpid() != self._pid:
            return
        life, self._life, self._lives_visibly = self._life, None, False
        try:
            if life is not None:
                self._run(self._remove_reserves)
                life.close()
                _remove_file(life.path)
        except ElytronError as error:
            _log.warning(
                "the reserves in %s are left to the next that needs them: %s", self.path, error
            )
        finally:
            if life is not None:
                life.close()
            self._file.close()

    # -- who lives, and what is free

    def _put_reserves(self, db: apsw.Connection) -> None:
        """The file may be another than the one that knew of them."""
        for agent, reserve_bytes in self._reserves.items():
            rows.put_reserve(db, agent, self._holder, reserve_bytes)

    def _remove_reserves(self, db: apsw.Connection) -> None:
        self._reserves.clear()
        rows.remove(db, "reserves", holder=self._holder)

    def _free(self, db: apsw.Connection, wanted_bytes: int) -> int:
        """What may be given now. Looks for the dead if that is less than what is wanted."""
        if not rows.counted(db):
            return 0
        if self._unheld(db) < wanted_bytes:
            self._bury_the_dead(db)
        return self._unheld(db)

    def _unheld(self, db: apsw.Connection) -> int:
        return self.total_bytes - rows.total(db, "grants") - rows.total(db, "reserves")

    def _bury_the_dead(self, db: apsw.Connection) -> None:
        """Take back the reserves of those that are gone, but for the WALs that they left."""
        held = fetch(db, "SELECT agent, holder, bytes FROM reserves")
        holders = self._with_a_sign_of_life() | {holder for _, holder, _ in held}
        dead = {holder for holder in holders if not self._lives(holder)}
        left: dict[str, int] = {}
        for agent, holder, bytes_held in held:
            if holder in dead:
                left[agent] = max(bytes_held, left.get(agent, 0))
                rows.remove(db, "reserves", agent=agent, holder=holder)
        for agent, bytes_held in left.items():
            # One who writes the agent now has a reserve for that same WAL.
            kept = 0 if rows.reserves_of(db, agent) else min(bytes_held, self._wal_bytes(agent))
            if kept:
                rows.put_reserve(db, agent, NOBODY, kept)
        for holder in dead - {NOBODY}:
            _remove_file(self._life_path(holder))

    def _life_path(self, holder: str) -> Path:
        return self.path.with_name(f"{self.path.stem}.{holder}.live")

    def _with_a_sign_of_life(self) -> set[str]:
        """Who has a file, whether or not it is still locked."""
        paths = self.path.parent.glob(self._life_path("*").name)
        found = {path.stem.rpartition(".")[2] for path in paths}
        return {holder for holder in found if rows.HOLDER.fullmatch(holder)}

    def _lives(self, holder: str) -> bool:
        if holder == self._holder:
            return True
        path = self._life_path(holder)
        if holder == NOBODY or not path.exists():
            return False
        with files.translate_os_errors(path):
            lock = FileLock(path)
        try:
            lock.acquire(time.monotonic(), 0.0)  # tries once
        except Busy:
            return True
        finally:
            lock.close()
        return False

    def _show_life(self) -> None:
        if self._lives_visibly:
            return
        with files.translate_os_errors(self.path):
            if self._life is not None:  # interrupted below; somebody may have removed it since
                self._life.close()
            self._life = FileLock(self._life_path(self._holder))
        self._life.acquire(time.monotonic(), 0.0)
        self._lives_visibly = True


def _remove_file(path: Path) -> None:
    with files.translate_os_errors(path):
        path.unlink(missing_ok=True)
