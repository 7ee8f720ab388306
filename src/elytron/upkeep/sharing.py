"""
Sharing: the bytes of a store among its agents (`max_total_mb`), so that no chatty one pushes out
another's memory.

Each agent has a grant for its file, its archive and its graph, and each that is open a reserve for
its WAL; together they are never more than the total. The grant for the file stands in the agent's
own ledger too, where it bounds every commit of every process at no cost. Who needs more asks; when
nothing is free, the agent furthest over its fair share gives (`shares.py`).

A grant is raised in the budget first and in the ledger then, and lowered the other way round: cut
short in between, the budget holds more than is used, never less.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from elytron.config import Config
from elytron.errors import Busy, OverBudget
from elytron.ledger import files, ops, surveys
from elytron.ledger.budget import Budget
from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.room import needed_file_bytes
from elytron.upkeep import shares
from elytron.upkeep.chores import Chores

_log = logging.getLogger("elytron.upkeep")
_FILE = "budget.db"
# Kept free, for what an archiving writes before what it archives is given back.
_SLACK_SHARE = 0.05
_NEW_BYTES = 40 * PAGE_BYTES  # a ledger that has just begun
_STEP_MIN_BYTES, _STEP_MAX_BYTES = 8 * PAGE_BYTES, 1 << 20
_ROUNDS_MAX = 200
_PASSED_OVER_S = 0.01

Lend = Callable[[str, float], AbstractContextManager[Chores | None]]


class Sharing:
    """The budget of one store, in use by one process. Safe for many threads."""

    def __init__(self, store: Path, config: Config, *, total_bytes: int, lend: Lend) -> None:
        """
        Args:
            lend: gives an agent's chores, by name, until a deadline.
        """
        self._store = store
        self._config = config
        self._lend = lend
        self._mutex = threading.Lock()  # one agent at a time asks for more
        self._counted = False
        self._passed_over = False  # the last who was to give, since it was busy
        self._budget = Budget(
            store / _FILE,
            total_bytes=total_bytes - int(_SLACK_SHARE * total_bytes),
            timeout_s=config.save_timeout_s,
            wal_bytes=self._wal_bytes,
        )

    def admit(self, name: str) -> None:
        """
        Reserve what an agent's WAL may take, before it is opened to be written; and what a ledger
        that begins takes.

        Raises:
            OverBudget: that is not free, and nobody is over its share. Nothing was made.
            Busy: who is over its share was at work all the time. Nothing was made.
        """
        folder = files.folder_name(name)
        deadline = time.monotonic() + self._config.save_timeout_s
        reserve_bytes = self._config.wal_limit_bytes
        self._obtain(
            name,
            lambda: reserve_bytes,
            lambda: self._budget.reserve(folder, reserve_bytes),
            deadline,
        )
        if not self._budget.grant(folder):
            self._obtain(name, lambda: _NEW_BYTES, lambda: self._took(folder, _NEW_BYTES), deadline)

    def release(self, name: str) -> None:
        """Give back what was reserved for an agent that is closed now."""
        self._budget.release(files.folder_name(name))

    def grow(self, chores: Chores, need_bytes: int, deadline: float) -> bool:
        """
        Let an agent's file grow by *need_bytes*; False if nobody is over its share but itself and
        it has nothing to give.
        """

        def wanted_bytes() -> int:  # anew each time: it may be this agent that gave
            file_bytes = needed_file_bytes(chores.desk.pages().live_bytes + need_bytes)
            return file_bytes + chores.beside_bytes

        return self._grow(chores, wanted_bytes, deadline)

    def grow_beside(self, chores: Chores, need_bytes: int, deadline: float) -> bool:
        """The same for what lies beside an agent's file, as its graph."""
        return self._grow(chores, lambda: chores.used_bytes + need_bytes, deadline)

    def _grow(self, chores: Chores, wanted_bytes: Callable[[], int], deadline: float) -> bool:
        folder = files.folder_name(chores.desk.name)

        def missing_bytes() -> int:
            return max(1, wanted_bytes() - self._budget.grant(folder))

        try:
            self._obtain(
                chores.desk.name,
                missing_bytes,
                lambda: self._took(folder, missing_bytes()),
                deadline,
                chores,
            )
        except OverBudget as error:
            _log.info("%s", error)
            return False
        self._note_grant(chores)
        return True

    def take_free(self, chores: Chores, need_bytes: int) -> bool:
        """
        Let an agent's file grow by *need_bytes* of what nobody has; whether there was so much.

        Out of turn, since an agent that gives may need it while the turn is held for it.
        """
        self._count()
        folder = files.folder_name(chores.desk.name)
        file_bytes = needed_file_bytes(chores.desk.pages().live_bytes + need_bytes)
        missing_bytes = file_bytes + chores.beside_bytes - self._budget.grant(folder)
        if not self._took(folder, max(1, missing_bytes)):
            return False
        self._note_grant(chores)
        return True

    def shrink(self, chores: Chores) -> None:
        """Have agents give while the store is over its total, as after that was lowered."""
        deadline = time.monotonic() + self._config.save_timeout_s
        for _ in range(_ROUNDS_MAX):
            with self._alone(deadline):
                self._count()
                if self._budget.free_bytes() >= 0:
                    return
                if not self._make_one_give(chores.desk.name, 0, chores):
                    return

    def renew(self, chores: Chores) -> None:
        """Note what an agent was granted in its ledger, if that was made anew and does not know."""
        folder = files.folder_name(chores.desk.name)
        if chores.desk.read(surveys.granted_bytes) is None and self._budget.grant(folder):
            missing_bytes = chores.used_bytes + self._step_bytes() - self._budget.grant(folder)
            self._took(folder, max(0, missing_bytes))
            self._note_grant(chores)

    def settle(self, chores: Chores) -> None:
        """Note what an agent uses now that a chore has changed its files."""
        folder = files.folder_name(chores.desk.name)
        granted, used = self._budget.grant(folder), chores.used_bytes
        if granted:
            # What left for the archive takes more there than it freed by now; and some pages more
            # are for what is removed next, which has to be written first.
            for wanted in (used + _STEP_MIN_BYTES, used):
                if wanted <= granted or self._took(folder, wanted - granted):
                    break
            kept = min(self._budget.grant(folder), used + self._step_bytes())
            # First in its ledger, so that nobody writes by the old grant any more.
            chores.desk.commit(ops.Grant(max(0, kept - chores.beside_bytes)))
            self._budget.settle(folder, kept)

    def settle_from(self, chores: Chores, before_bytes: int) -> None:
        """
        The same if an agent uses other than it did before the chore; or more than it was granted,
        since a chore of a process that died may not have come to note it.

        Not without need: a write may be about to use what it was just granted.
        """
        used = chores.used_bytes
        if used != before_bytes or used > self._budget.grant(files.folder_name(chores.desk.name)):
            self.settle(chores)

    def recount(self) -> None:
        """Measure again what the agents have; what was granted to those that are gone is free."""
        with self._alone(time.monotonic() + self._config.save_timeout_s):
            self._counted = False
            self._count()

    def close(self) -> None:
        self._budget.close()

    def _took(self, folder: str, need_bytes: int) -> bool:
        before = self._budget.grant(folder)
        taken = self._budget.take(folder, need_bytes=need_bytes, step_bytes=self._step_bytes())
        return bool(taken >= before + need_bytes)

    def _step_bytes(self) -> int:
        """How much is granted at once: seldom enough to ask, and little enough to go round."""
        agents = max(1, len(self._budget.uses()))
        share = self._budget.total_bytes // agents // 16
        return max(_STEP_MIN_BYTES, min(_STEP_MAX_BYTES, share))

    def _note_grant(self, chores: Chores) -> None:
        """Write into the ledger how large its file may be by the agent's grant."""
        granted = self._budget.grant(files.folder_name(chores.desk.name))
        chores.desk.commit(ops.Grant(max(0, granted - chores.beside_bytes)))

    def _obtain(
        self,
        name: str,
        need_bytes: Callable[[], int],
        attempt: Callable[[], bool],
        deadline: float,
        own: Chores | None = None,
    ) -> None:
        """
        Try *attempt*, and have those who are over their share give, until it succeeds.

        Nobody's turn is waited for while others wait for ours: an agent that is busy is passed
        over, and asked again until *deadline*.
        """
        gave, rounds = True, 0
        while rounds < _ROUNDS_MAX:
            with self._alone(deadline):
                self._count()
                if attempt():
                    return
                if not gave or not self._config.auto_cleanup:
                    break
                gave = self._make_one_give(name, need_bytes(), own)
                passed_over = self._passed_over
            if not passed_over:
                rounds += 1
            elif time.monotonic() < deadline:
                time.sleep(_PASSED_OVER_S)
            else:
                raise Busy(
                    f"who has to give for {name!r} by the store's `max_total_mb` was busy all the"
                    " time; nothing was written: retry"
                )
        used = sum(self._budget.uses().values())
        raise OverBudget(
            f"the store {self._store} is at its limit: its agents have {used} bytes and their WALs"
            f" {self._budget.reserved_bytes()} of {self._config.max_total_bytes} (`max_total_mb`),"
            f" and {name!r} is not below its share; nothing was written: delete something, or"
            " raise the limit"
        )

    @contextlib.contextmanager
    def _alone(self, deadline: float) -> Iterator[None]:
        held = False
        try:
            # Within, since Ctrl-C may strike between the two.
            held = self._mutex.acquire(timeout=max(0.0, deadline - time.monotonic()))
            if not held:
                raise Busy(
                    f"others asked for their share of {self._store} for"
                    f" {self._config.save_timeout_s:g} s; nothing was written: retry later"
                )
            yield
        finally:
            if held:
                self._mutex.release()

    def _make_one_give(self, name: str, need_bytes: int, own: Chores | None) -> bool:
        """Have the agent furthest over its share give; whether to ask again."""
        folder = files.folder_name(name)
        total = self._budget.total_bytes - self._budget.reserved_bytes()
        uses = self._budget.uses()
        self._passed_over = False
        chosen = shares.victim(uses, asking=folder, need_bytes=need_bytes, total_bytes=total)
        if chosen is None:
            return False
        giver, give_bytes = chosen
        try:
            with self._chores(giver, name, own) as chores:
                if chores is None:  # its folder is gone
                    self._budget.forget(giver)
                    return True
                return self._give(giver, give_bytes, chores)
        except Busy as error:
            _log.debug("%s", error)
            self._passed_over = True
            return True

    def _give(self, giver: str, give_bytes: int, chores: Chores) -> bool:
        before = self._budget.grant(giver)
        chores.give(max(give_bytes, self._step_bytes()) + _STEP_MIN_BYTES)
        used = chores.used_bytes
        if used > before:
            self._took(giver, used - before)
        # Some pages are left to it, for what it removes next has to be written first.
        kept = min(max(self._budget.grant(giver), used), used + _STEP_MIN_BYTES)
        # First in its ledger, so that nobody writes by the old grant any more.
        chores.desk.commit(ops.Grant(max(0, kept - chores.beside_bytes)))
        self._budget.settle(giver, kept)
        _log.info("%r gave %d bytes of the store's budget", chores.desk.name, before - kept)
        return bool(before > kept)

    @contextlib.contextmanager
    def _chores(self, folder: str, asking: str, own: Chores | None) -> Iterator[Chores | None]:
        """The chores of the agent in *folder*, without waiting; ours, if it is the one."""
        if own is not None and folder == files.folder_name(asking):
            yield own
            return
        name = files.read_marker(self._store / "agents" / folder)
        if name is None:
            yield None
            return
        with self._lend(name, time.monotonic()) as chores:
            yield chores

    def _count(self) -> None:
        """Measure what the agents have, if the budget does not know it."""
        if self._counted and not self._budget.needs_recount:
            return
        home = self._store / "agents"
        with files.translate_os_errors(home):
            found = list(home.iterdir()) if home.is_dir() else []
            sizes = {folder.name: _size(folder) for folder in found}
        self._budget.recount(sizes)
        self._counted = True

    def _wal_bytes(self, folder: str) -> int:
        return files.file_size(self._store / "agents" / folder / f"{files.LEDGER}-wal")


def _size(folder: Path) -> int:
    """What an agent's file, archive and graph take. By their names: nothing is opened."""
    inside: list[Path] = []
    for place in (folder / files.ARCHIVE, folder / "graph"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            inside += place.iterdir()
    return files.file_size(folder / files.LEDGER) + sum([files.file_size(path) for path in inside])
