"""
Open agents: which ledgers of a store are open now, and who is using them.

An agent costs descriptors only while it is open. At most `max_open_agents` are; the least
recently used one that nobody is using is put to rest for the next. Every verb borrows the
agent it works on, so that it is not closed under it.
"""

import contextlib
import logging
import os
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import apsw

from elytron.behind import WorkBehind
from elytron.concepts.extraction import Extract
from elytron.concepts.known import KnownNames
from elytron.config import Config
from elytron.embed.calls import Calls
from elytron.errors import Busy, Closed, ElytronError, Forked
from elytron.ledger.ledgers import Ledgers
from elytron.open_agent import Embeddings, OpenAgent, Use
from elytron.recall.nearest import Nearest
from elytron.text import Analyzer
from elytron.upkeep.background import Background, work_of
from elytron.upkeep.embedding import Embedding
from elytron.upkeep.extracting import Extracting, Hanging
from elytron.upkeep.housekeeping import Housekeeping
from elytron.upkeep.linking import Linking
from elytron.write.queue import Quota
from elytron.write.under_way import UnderWay
from elytron.write.writer import Writer, is_telling

_log = logging.getLogger("elytron.store")
_LOOK_AGAIN_S = 0.1  # a use that was forgotten ends without a word
_LINKING_RESTS = 3.0  # times as long as it works, while there are saves


class OpenAgents(WorkBehind):
    """Lends open agents. Safe for many threads; useless after `close` or a fork."""

    def __init__(
        self,
        ledgers: Ledgers,
        config: Config,
        upkeep: Housekeeping,
        *,
        analyzer: Analyzer,
        extract: Extract | None = None,
        calls: Calls | None = None,
    ) -> None:
        self.ledgers = ledgers
        self.path = ledgers.folder
        self.config = config
        self.upkeep = upkeep
        self.quota = Quota(items_max=config.queue_max, bytes_max=config.queue_max_bytes)
        self._analyzer = analyzer
        self._extract = extract
        self._hanging = Hanging()
        found = weakref.ref(self)
        work = work_of(found, OpenAgents.work_behind)
        self.background = Background(work, rest_while_busy=_LINKING_RESTS)
        self.embeddings = None
        if calls is not None:
            behind = Background(work_of(found, OpenAgents.embed_behind), name="elytron-embedding")
            self.embeddings = Embeddings(calls, behind)
        self._pid = os.getpid()
        self._closed = False
        self._changed = threading.Condition(threading.Lock())
        self._entries: OrderedDict[str, OpenAgent] = OrderedDict()
        self._submitted = UnderWay()  # writes: at most `queue_max`
        self.calls = UnderWay()  # what the async face has queued
        self._pool: ThreadPoolExecutor | None = None

    @contextlib.contextmanager
    def use(self, name: str, *, create: bool) -> Iterator[OpenAgent | None]:
        """An open agent for the length of the block; None if there is none and not *create*."""
        use = Use()
        try:
            yield self.borrow(name, use, create=create)
        finally:
            self.give_back(use)

    def borrow(self, name: str, use: Use, *, create: bool) -> OpenAgent | None:
        """
        Open an agent, or find it open. `give_back` must follow.

        Args:
            create: to write to it; it is made if there is none.

        Raises:
            Closed, Forked: the store is of no use any more.
            Busy: `max_open_agents` were all in use for `save_timeout_s`.
            ElytronError: what opening its ledger met.
        """
        entry = self.borrow_open(name, use)
        if entry is not None:
            if create and not entry.admitted:
                self._admit(entry)
            return entry
        if not create and not self.ledgers.may_hold(name):
            return None
        return self._open(name, use, create=create)

    def borrow_open(self, name: str, use: Use) -> OpenAgent | None:
        """The agent if it is open already. Never waits. `give_back` must follow."""
        self.check_usable()
        with self._changed:
            entry = self._entries.get(name)
            if entry is None or not entry.ready or entry.outdated:
                return None
            entry.begin_use(use)
            self._entries.move_to_end(name)
        try:
            outdated = entry.ledger.is_outdated()
        except BaseException:
            self.give_back(use)
            raise
        if not outdated:
            return entry
        self.give_back(use)
        with self._changed:
            if not entry.outdated:
                entry.outdated = True
                self.upkeep.forget(name)
                _log.warning("%s is not what was opened: it is opened anew", entry.ledger.source)
        self.note_work(name)  # a repair has dropped its vectors
        return None

    def give_back(self, use: Use) -> None:
        """End a use, whichever agent it is of; harmless if it never began."""
        with self._changed:
            agent, use.agent = use.agent, None
            if agent is not None:
                agent.uses.discard(use)
                if not agent.uses:
                    self._changed.notify_all()

    def give_back_after(self, name: str, use: Use, future: "Future[Any]") -> None:
        """End *use* once *future*, a write submitted to the agent, is settled."""
        self._submitted.track(name, future)
        future.add_done_callback(lambda _: self.give_back(use))

    def wait_submitted(
        self, name: str, timeout_s: float, *, calls: "Iterable[Future[Any]]" = ()
    ) -> bool:
        """
        Wait until what was submitted to an agent so far is settled; False if it is not. In the
        callback of a future, until it is durable: this thread may be the one to settle it.

        Args:
            calls: of the async face, which may have to submit something yet.
        """
        self.check_usable()
        deadline = time.monotonic() + timeout_s
        if wait(calls, timeout=timeout_s).not_done:
            return False
        waiting, entry = self._submitted.of(name), self._entries.get(name)
        if entry is None or not is_telling():
            return not wait(waiting, timeout=max(0.0, deadline - time.monotonic())).not_done
        while waiting := waiting - entry.writer.commit_queued():
            wait_s = max(0.0, min(_LOOK_AGAIN_S, deadline - time.monotonic()))
            waiting = wait(waiting, timeout=wait_s).not_done
            if not wait_s:
                break
        return not waiting

    def _open(self, name: str, use: Use, *, create: bool) -> OpenAgent | None:
        entry, victim = self._take_place(name, use)
        if entry.ready:
            if create and not entry.admitted:
                self._admit(entry)
            return entry
        opened = False
        try:
            if victim is not None:
                self._rest(victim)
            if create:
                self._admit(entry)
            opened = entry.open(create=create)
        except ElytronError as error:
            entry.failure = error if error.retryable else None
            raise
        finally:
            if create and not opened:
                self._release(name)
            with self._changed:
                if opened:
                    entry.ready = True
                else:
                    del self._entries[name]
                self._changed.notify_all()
        return entry if opened else None

    def _admit(self, entry: OpenAgent) -> None:
        """Get ready for the first write to an agent: it may have been only read before."""
        self.ledgers.make()
        self.upkeep.begin()
        entry.reserving = True  # first: see `_rest`
        self.upkeep.admit(entry.ledger.name)
        entry.admitted = True

    def _rest(self, entry: OpenAgent) -> None:
        name = entry.ledger.name
        entry.ledger.close()
        self.upkeep.rested(name)
        successor = self._entries.get(name)
        if successor is not None and successor.reserving:  # what was given back was its own
            try:
                self.upkeep.admit(name)
            except ElytronError as error:
                _log.info("%s", error)
                successor.admitted = False  # its next write asks again

    def _release(self, name: str) -> None:
        """Give back what was reserved for an agent that could not be opened."""
        try:
            self.upkeep.rested(name)
        except ElytronError as error:  # the first error is the one to tell
            _log.warning("what was reserved for %r is given back later: %s", name, error)

    def _take_place(self, name: str, use: Use) -> tuple[OpenAgent, OpenAgent | None]:
        """The agent if another thread opened it; else a place for it, and who must leave it."""
        deadline = time.monotonic() + self.config.save_timeout_s
        awaited: OpenAgent | None = None
        with self._changed:
            while True:
                self.check_usable()
                entry = self._entries.get(name)
                if awaited is not None and awaited is not entry and awaited.failure is not None:
                    # It took as long as we may; of a server that hangs we would hear the same.
                    raise awaited.failure.saying(str(awaited.failure))
                awaited = entry
                if entry is not None and entry.ready and not entry.outdated:
                    entry.begin_use(use)
                    return entry, None
                if entry is not None and not entry.uses:  # outdated, or Ctrl-C left it behind
                    self._entries[name] = self._new(name)
                    self._entries[name].begin_use(use)
                    return self._entries[name], entry
                if entry is None:
                    victim = self._resting_place()
                    if self.open_count < self.ledgers.open_max:
                        entry = self._entries[name] = self._new(name)
                        entry.begin_use(use)
                        return entry, victim
                wait_s = deadline - time.monotonic()
                if wait_s > 0:
                    self._changed.wait(min(wait_s, _LOOK_AGAIN_S))
                else:
                    raise self._no_place(name, entry)

    def _no_place(self, name: str, entry: OpenAgent | None) -> Busy:
        limit_s = self.config.save_timeout_s
        if entry is None:
            return Busy(
                f"all {self.ledgers.open_max} open agents were in use for {limit_s:g} s; nothing"
                " was written: retry later, or raise `max_open_agents`"
            )
        if entry.outdated:
            return Busy(
                f"{name!r} was deleted, renamed or replaced by others, and what was there"
                " is still in use here; nothing was written: retry later"
            )
        return Busy(
            f"{name!r} was being opened, deleted or renamed by another thread for {limit_s:g} s;"
            " nothing was written: retry later"
        )

    @contextlib.contextmanager
    def put_aside(self, name: str) -> Iterator[None]:
        """
        Keep all others from an agent for the length of the block, once their uses of it have ended.
        `Busy` if some had not after `save_timeout_s`.
        """
        place, ours = self._new(name), Use()  # never ready, so whoever wants it waits
        place.aside = True
        place.begin_use(ours)
        deadline = time.monotonic() + self.config.save_timeout_s
        held: OpenAgent | None = None  # who comes from now on waits for this one
        try:
            with self._changed:
                while (entry := self._entries.get(name)) is not None:
                    if entry.ready:
                        held = entry
                        held.uses.add(ours)
                        held.ready = False
                    if not entry.uses or (entry is held and len(entry.uses) == 1):
                        break
                    self.check_usable()
                    if time.monotonic() > deadline:
                        raise Busy(f"{name!r} is still in use; nothing was changed: retry later")
                    self._changed.wait(_LOOK_AGAIN_S)
                self.check_usable()
                self._entries[name] = place
            if held is not None:
                resting, held = held, None
                self._rest(resting)
            yield
        finally:
            with self._changed:
                if self._entries.get(name) is place:
                    del self._entries[name]
                if held is not None:  # it did not come to that
                    self._entries[name] = held
                    held.uses.discard(ours)
                    held.ready = True
                self._changed.notify_all()

    def _resting_place(self) -> OpenAgent | None:
        """Remove the least recently used idle agent, if all places or all memory is taken."""
        used_bytes = apsw.memory_used() + self.vector_bytes
        if self.open_count < self.ledgers.open_max and used_bytes < self.config.max_ram_bytes:
            return None
        for name, entry in self._entries.items():
            if entry.ready and not entry.uses:
                return self._entries.pop(name)
        return None

    def _new(self, name: str) -> OpenAgent:
        config, upkeep = self.config, self.upkeep
        ledger = self.ledgers.new(
            name, uses=upkeep.uses_of(name), on_near=lambda: upkeep.near(name)
        )
        writer = Writer(
            ledger,
            quota=self.quota,
            batch_max=config.batch_max,
            batch_max_bytes=config.commit_bytes,
            timeout_s=config.save_timeout_s,
            run_soon=lambda work: self._run_soon(agent, work),
            make_room=partial(upkeep.make_room, name),
            on_written=partial(self.note_work, name),
        )
        known = KnownNames()
        write = writer.call_by
        linking = Linking(ledger, write, config=config, analyzer=self._analyzer, known=known)
        extracting = embedding = None
        if self._extract is not None:
            extracting = Extracting(
                ledger, writer.call, self._extract, config=config, hanging=self._hanging
            )
        if self.embeddings is not None:
            embedding = Embedding(ledger, write, self.embeddings.calls, config=config)
        archive, nearest = upkeep.archive_of(name), Nearest(config=config, source=ledger.source)
        agent = OpenAgent(
            ledger, writer, archive, known, linking, nearest,
            extracting=extracting, embedding=embedding,
        )  # fmt: skip
        return agent

    def note_work(self, name: str) -> None:
        """There may be texts of an agent to be linked or embedded."""
        self.background.note(name)
        if self.embeddings is not None:
            self.embeddings.background.note(name)

    def _run_soon(self, agent: OpenAgent, work: Callable[[], None]) -> bool:
        """Have a thread of the pool work; it uses *agent* to the end of it."""

        use = Use()

        def lead() -> None:
            try:
                work()
            finally:
                self.give_back(use)

        with self._changed:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(
                    self.config.writer_threads, thread_name_prefix="elytron-writer"
                )
            try:
                self._pool.submit(lead)
            except RuntimeError:  # the interpreter is ending
                return False
            agent.begin_use(use)
        return True

    @property
    def open_count(self) -> int:
        """How many are open. The place of one that is put aside keeps no other from its own."""
        return sum([not entry.aside for entry in list(self._entries.values())])

    def bound_memory(self, name: str) -> None:
        """
        While caches and vectors take more than `max_ram_mb`, give back the vectors of the agents
        that were used longest ago; not those of *name*, which is being asked.
        """
        most_bytes = self.config.max_ram_bytes
        if apsw.memory_used() + self.vector_bytes <= most_bytes:
            return
        with self._changed:
            others = [entry for key, entry in self._entries.items() if key != name]
        for entry in others:
            if apsw.memory_used() + self.vector_bytes <= most_bytes:
                return
            entry.nearest.forget()

    @property
    def vector_bytes(self) -> int:
        """What the vectors of open agents take in memory."""
        return sum([entry.nearest.bytes for entry in list(self._entries.values())])

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that opened the store."""
        return os.getpid() != self._pid

    def check_usable(self) -> None:
        """
        Raises:
            Forked: this process is not the one that opened the store.
            Closed: `close` was called.
        """
        if self.forked:
            raise Forked(
                f"{self.ledgers.shown} was opened by process {self._pid}; this is its fork"
                f" {os.getpid()}: open the store anew here"
            )
        if self._closed:
            raise Closed(f"{self.ledgers.shown} was closed; nothing was written: open it again")

    def close(self) -> None:
        """
        Refuse new work, let what is under way end, and give everything back. Idempotent.

        In a fork it does nothing: files and threads belong to the parent.

        Raises:
            Busy: work was still under way after `save_timeout_s`; agents that it uses stay open.
        """
        if self.forked:
            return
        if self.embeddings is not None:
            self.embeddings.close(self.config.save_timeout_s)
        self.background.stop(self.config.save_timeout_s)
        self.upkeep.close()
        deadline = time.monotonic() + self.config.save_timeout_s
        for under_way in (self.calls, self._submitted):  # in this order: calls may submit
            wait(under_way.all(), timeout=max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._closed = True
            while any(entry.uses for entry in self._entries.values()):
                wait_s = deadline - time.monotonic()
                if wait_s <= 0:
                    break
                self._changed.wait(min(wait_s, _LOOK_AGAIN_S))
            idle = [name for name, entry in self._entries.items() if not entry.uses]
            resting = [self._entries.pop(name) for name in idle]
            in_use = set(self._entries)
        for entry in resting:
            try:
                self._rest(entry)
            except ElytronError as error:  # the others still have to be closed
                _log.warning("closing %s: %s", entry.ledger.source, error)
        in_use |= self.upkeep.still_at_work(deadline)
        if in_use:
            raise Busy(
                f"{len(in_use)} agents were still in use after {self.config.save_timeout_s:g} s;"
                " close again, or raise `save_timeout_s`"
            )
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
        self.upkeep.finish()
        self.ledgers.close()

    def __del__(self) -> None:
        # An agent may outlive its `Store` object, so it is told here.
        if not self._closed and self._entries and not self.forked:
            self.upkeep.janitor.abandon()
            self.background.abandon()
            if self.embeddings is not None:
                self.embeddings.background.abandon()
                self.embeddings.calls.abandon()
            self.upkeep.graphs.abandon()
            warnings.warn(
                f"store {self.ledgers.shown} was never closed", ResourceWarning, stacklevel=2
            )
