"""
Housekeeping: upkeep of a whole store: whose turn it is, what is told to whom, and the janitor.
"""

import contextlib
import dataclasses
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial

from elytron.archive import Archive
from elytron.config import Config
from elytron.errors import Busy, ElytronError
from elytron.ledger import deleted, files
from elytron.ledger.ledgers import Ledgers
from elytron.ledger.room import NoRoom
from elytron.ledger.uses import Uses
from elytron.reports import Alarm
from elytron.text import Analyzer
from elytron.upkeep.alarms import Alarms
from elytron.upkeep.chores import NEAR, Chores
from elytron.upkeep.clock import Clock
from elytron.upkeep.desk import Desk
from elytron.upkeep.graphs import Graphs
from elytron.upkeep.janitor import Janitor
from elytron.upkeep.reserve import Reserve
from elytron.upkeep.runs import Run
from elytron.upkeep.sharing import Sharing

_log = logging.getLogger("elytron.upkeep")
_NEAR_AGAIN_S = 1.0  # how often the janitor is told of one agent at most
_NEAR_MAX = 10_000  # agents of which it is remembered when that was


class Housekeeping:
    """Upkeep of one store. Safe for many threads."""

    def __init__(
        self,
        ledgers: Ledgers,
        config: Config,
        analyzer: Analyzer,
        *,
        clock: Clock | None = None,
    ) -> None:
        store = ledgers.folder
        self.clock = clock or Clock()
        self.reserve = Reserve(store, size_bytes=config.reserve_bytes)
        self.alarms = Alarms(config)
        self.graphs = Graphs(store, config, allow=self._allow_graph)
        self._ledgers = ledgers
        self._config = config
        self._analyzer = analyzer
        self._mutex = threading.Lock()
        self._turns: weakref.WeakValueDictionary[str, _Turn] = weakref.WeakValueDictionary()
        self._archives: weakref.WeakValueDictionary[str, Archive] = weakref.WeakValueDictionary()
        self._uses: weakref.WeakValueDictionary[str, Uses] = weakref.WeakValueDictionary()
        self._told_s: dict[str, float] = {}
        self.sharing: Sharing | None = None
        if config.max_total_bytes is not None:
            self.sharing = Sharing(
                store,
                config,
                # The reserve is on the disk too.
                total_bytes=config.max_total_bytes - config.reserve_bytes,
                lend=lambda name, deadline: self.chores(name, deadline=deadline, lent=True),
            )
        self.janitor = Janitor(
            store,
            config,
            clock=self.clock,
            names=ledgers.names,
            look_after=self.look_after,
            sweep=self.sweep,
        )

    def admit(self, name: str) -> None:
        """
        To be called before an agent is opened to be written.

        Raises:
            OverBudget: the store has no room for its WAL.
        """
        if self.sharing is not None:
            self.sharing.admit(name)

    def rested(self, name: str) -> None:
        """To be called after an agent was closed."""
        if self.sharing is not None:
            self.sharing.release(name)

    def begin(self) -> None:
        """The store is written to: take the reserve, and begin to look after it."""
        if self._config.reserve_bytes:
            self.reserve.take()
        self.janitor.start()

    @contextlib.contextmanager
    def chores(
        self, name: str, *, deadline: float | None = None, lent: bool = False
    ) -> Iterator[Chores | None]:
        """
        An agent's chores for the length of the block; None if there is no such agent.

        One thread at a time has them; others wait until *deadline* on the monotonic clock.

        Args:
            lent: for a write that waits for room, so that what is free now stays the agent's.

        Raises:
            Busy: they were taken all that time.
        """
        with self.alone(name, deadline=deadline), self._desk(name) as desk:
            if desk is None:
                yield None
                return
            chores = Chores(desk, self.reserve, self.graphs)
            if self.sharing is not None:
                more = partial(self.sharing.take_free, chores)
                chores = Chores(dataclasses.replace(desk, more=more), self.reserve, self.graphs)
                self.sharing.renew(chores)
            if self.sharing is None or lent:
                yield chores
                return
            with self._settling(chores, self.sharing):
                yield chores

    @contextlib.contextmanager
    def _settling(self, chores: Chores, sharing: Sharing) -> Iterator[None]:
        """Note in the store's budget what the block makes of an agent's files, even if it fails."""
        before = chores.used_bytes
        try:
            yield
        except Exception:
            try:
                sharing.settle_from(chores, before)
            except ElytronError as error:  # the first error is the one to tell
                _log.warning("what %r uses is noted later: %s", chores.desk.name, error)
            raise
        sharing.settle_from(chores, before)

    @contextlib.contextmanager
    def alone(self, name: str, *, deadline: float | None = None) -> Iterator[None]:
        """
        Nobody else in this process does an agent's chores for the length of the block.

        Raises:
            Busy: somebody did all the time until *deadline*, by default for `save_timeout_s`.
        """
        turn = self._turn(name)
        limit_s = self._config.save_timeout_s
        wait_s = limit_s if deadline is None else max(0.0, deadline - time.monotonic())
        if not turn.mutex.acquire(timeout=wait_s):
            raise Busy(
                f"another clean-up of {name!r} went on for {wait_s:.1f} s; nothing was changed:"
                " retry later, or raise `save_timeout_s`"
            )
        try:
            yield
        finally:
            turn.mutex.release()

    @contextlib.contextmanager
    def _desk(self, name: str) -> Iterator[Desk | None]:
        if not self._ledgers.may_hold(name):
            yield None
            return
        ledger = self._ledgers.new(name, uses=self.uses_of(name), upkeep=True)
        if not ledger.open(create=False):
            yield None
            return
        try:
            archive = self.archive_of(name)
            run = Run(ledger.folder)
            try:
                yield Desk(
                    name, ledger, archive, self._config, self._analyzer, self.clock, run,
                    self.uses_of(name),
                )  # fmt: skip
            finally:
                run.end()
        finally:
            ledger.close()

    def archive_of(self, name: str) -> Archive:
        """An agent's archive. Whoever keeps it keeps its cache."""
        with self._mutex:
            archive = self._archives.get(name)
            if archive is None:
                folder = files.agent_folder(self._ledgers.folder, name) / files.ARCHIVE
                archive = Archive(folder, timeout_s=self._config.save_timeout_s)
                self._archives[name] = archive
            return archive

    def uses_of(self, name: str) -> Uses:
        """What is counted of an agent's uses. Whoever keeps it keeps the counts."""
        with self._mutex:
            uses = self._uses.get(name)
            if uses is None:
                uses = self._uses[name] = Uses.of(self._config.wal_limit_bytes)
            return uses

    def _turn(self, name: str) -> "_Turn":
        with self._mutex:
            turn = self._turns.get(name)
            if turn is None:
                turn = self._turns[name] = _Turn()
            return turn

    def make_room(self, name: str, short: NoRoom, deadline: float) -> bool:
        """Have room made for a write that met *short*; whether there is some now."""
        made = False
        if self._config.auto_cleanup or self.sharing is not None:
            with self.chores(name, deadline=deadline, lent=True) as chores:
                made = chores is not None and self._make_room(chores, short, deadline)
        if not made:
            self.alarms.refused(name, short)
        self.near(name)
        return made

    def _make_room(self, chores: Chores, short: NoRoom, deadline: float) -> bool:
        if self.sharing is not None and not short.messages and self._fits(chores, short):
            return self.sharing.grow(chores, short.bytes, deadline)
        if not self._config.auto_cleanup:
            return False
        if self.sharing is None:
            return chores.make_room(short)
        with self._settling(chores, self.sharing):  # the archive has grown by what left
            return chores.make_room(short)

    def _fits(self, chores: Chores, short: NoRoom) -> bool:
        """Whether it is the store's budget that is short, and not the agent's own."""
        return chores.desk.pages().live_bytes + short.bytes < NEAR * chores.room_bytes

    def _allow_graph(self, name: str, size_bytes: int) -> None:
        """
        Let an agent's graph grow to *size_bytes*.

        Raises:
            OverBudget: there is no room for that under `max_db_size_mb` or `max_total_mb`.
        """
        deadline = time.monotonic() + self._config.save_timeout_s
        with self.chores(name, deadline=deadline, lent=True) as chores:
            assert chores is not None, "an agent whose graph is built is there"
            more_bytes = chores.more_for_graph(size_bytes)
            if self.sharing is not None and not self.sharing.grow_beside(
                chores, more_bytes, deadline
            ):
                raise chores.no_graph(size_bytes, "max_total_mb")
            chores.allow_graph(size_bytes)

    def near(self, name: str) -> None:
        """Have the janitor look after an agent that is near a limit; not too often."""
        now_s = self.clock.monotonic()
        with self._mutex:
            if now_s - self._told_s.get(name, -_NEAR_AGAIN_S) < _NEAR_AGAIN_S:
                return
            if len(self._told_s) >= _NEAR_MAX:
                self._told_s.clear()
            self._told_s[name] = now_s
        self.janitor.near(name)

    def look_after(self, name: str, ahead: bool) -> None:
        """
        Do an agent's chores, and tell the hooks of limits that are near. Room is made *ahead* of
        the saves that go on: else the one that meets the limit waits for all that has to leave.
        """
        with self.chores(name) as chores:
            if chores is None:
                return
            if self._config.auto_cleanup:
                self._enforce(chores, ahead)
                if self.sharing is not None:
                    self.sharing.shrink(chores)
            limits = self.alarms.look(chores)
        for limit, used, maximum in limits:
            self.alarms.tell(name, limit, used, maximum)
        self.reserve_again()

    def _enforce(self, chores: Chores, ahead: bool) -> None:
        """
        Archive by the limits. What that writes takes room too: where none of the store's total is
        free for it, as after a process was killed, others have to give.
        """
        try:
            chores.enforce(ahead=ahead)
        except NoRoom as short:
            deadline = time.monotonic() + self._config.save_timeout_s
            if self.sharing is None or short.limit != "max_total_mb":
                raise
            if not self.sharing.grow(chores, short.bytes, deadline):
                raise
            chores.enforce(ahead=ahead)

    def sweep(self) -> None:
        """Remove what is left of agents that were deleted, and free what was granted to them."""
        deleted.finish(self._ledgers.folder)
        if self.sharing is not None and self._ledgers.folder.is_dir():
            self.sharing.recount()

    def forget(self, name: str) -> None:
        """Forget all that is remembered of an agent that was deleted; no chore of it goes on."""
        with self._mutex:
            self._archives.pop(name, None)
            self._uses.pop(name, None)
            self._told_s.pop(name, None)
        self.janitor.forget(name)
        self.alarms.forget(name)
        self.graphs.forget(name)

    def reserve_again(self) -> None:
        """Take the reserve again, if a full disk kept that from being done."""
        if self._config.reserve_bytes and self.reserve.bytes < self._config.reserve_bytes:
            self.reserve.take()

    def add_hook(self, hook: Callable[[Alarm], None]) -> None:
        """Have *hook* told of limits from now on."""
        self.alarms.add(hook)
        self.janitor.start()

    def close(self) -> None:
        """End the janitor. Idempotent."""
        self.janitor.stop(self._config.save_timeout_s)

    def still_at_work(self, deadline: float) -> set[str]:
        """Wait for the chores under way until *deadline*; the agents of those that go on then."""
        with self._mutex:
            turns = dict(self._turns)
        names = set[str]()
        for name, turn in turns.items():
            if turn.mutex.acquire(timeout=max(0.0, deadline - time.monotonic())):
                turn.mutex.release()
            else:
                names.add(name)
        return names

    def finish(self) -> None:
        """
        Once all agents are closed: end the graphs' worker, and give the process's part of the
        store's budget back.
        """
        self.graphs.close()
        if self.sharing is not None:
            self.sharing.close()


class _Turn:
    """Whose turn it is with one agent's chores, in this process."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
