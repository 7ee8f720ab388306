"""
The ledger of one agent on PostgreSQL: written in whole transactions, read in snapshots.

Writers of one agent, in whatever process, come one after the other by the lock of its row; those
of other agents are not in each other's way. Numbers are given under that lock, so their order is
that of the commits.
"""

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors as server_errors

from elytron.config import Config
from elytron.errors import Busy, Corrupt, ElytronError
from elytron.ledger import carrying, deleted, files, renamed
from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.embedded import EMBEDDED
from elytron.ledger.learned import LEARNED
from elytron.ledger.ops import AllowGraph, IndexWords, MergeWords, NoteUses, Op, Reindex
from elytron.ledger.postgres import faults, removing, renaming, saving, writing
from elytron.ledger.postgres.known import Known
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.links import Links
from elytron.ledger.postgres.saving import Claim
from elytron.ledger.postgres.together import AGENTS_MAX, Grouping, Saved, Together
from elytron.ledger.postgres.writing import LinkWrites
from elytron.ledger.room import NoRoom, Room
from elytron.ledger.schema import UNINDEXED_MAX
from elytron.ledger.uses import Counts, Uses
from elytron.records import Draft

_log = logging.getLogger("elytron.ledger")
_AWAY_S = 10.0  # after a failure at closing the next are closed without a word to the server
_LATE_S = 0.3  # that the server has for what comes late
_TOGETHER_MAX = 10_000  # messages that are saved together, in statements of 32
_NEAR = 0.95  # of its bytes, where whoever looks after it is told
# After these nothing is different of sessions, users and their last messages.
_HARMLESS = (IndexWords, MergeWords, NoteUses, AllowGraph, Reindex, *LEARNED, *EMBEDDED)


class PostgresLedger:
    """One agent's rows. `commit` is for one thread at a time; `reading` for many."""

    path: Path
    remains = (
        "row versions on the server, until autovacuum or a VACUUM of its owner has been there, and"
        " its write-ahead log and standbys",
    )

    def __init__(
        self,
        links: "Lending",
        name: str,
        config: Config,
        *,
        folder: Path,
        uses: Uses,
        upkeep: bool,
        carrying: bool,
        on_near: Callable[[], None],
    ) -> None:
        """
        Args:
            folder: where its archive, its graph and the locks of its chores are.
            uses, upkeep, carrying, on_near: as of `Ledgers.new`.
        """
        self.name = name
        self.folder = folder
        self.path = folder / files.LEDGER  # there is none
        self.source = f"the memory of {name!r} on {links.shown}"
        self.uses = uses
        self.languages = ",".join(config.languages)
        self._agent = links.agent_id(name)
        self._links = links
        self._config = config
        self._room = Room(name, config, upkeep=upkeep)
        self._carrying = carrying
        self._on_near = on_near
        self._known: Known | None = None
        self._wrote = False
        self._gone = False
        self._opened_us = 0
        self._index_due = False

    # -- opening and closing

    def open(self, *, create: bool) -> bool:
        """
        Find the agent's rows, making the first of them if *create*.

        Returns:
            False if there are none and *create* is False.

        Raises:
            Corrupt: they are another's.
            Unavailable, Busy: as they say.
        """
        config = self._config
        timeout_s = config.save_timeout_s if create else config.read_timeout_s
        deadline, now_us = time.monotonic() + timeout_s, time.time_ns() // 1000
        if not self._links.look(create=create, deadline=deadline):
            return False
        found = self._find(create=create, deadline=deadline)
        if found is not None and carrying.is_going(found.carried, self.source):
            self.finish_removing(deadline)
            found = self._find(create=create, deadline=deadline)
        names = renaming.pending(found and found.carried, self.source, self._links.agent_id)
        if names is not None:
            self.finish_renaming(names, deadline)
            now_us = time.time_ns() // 1000  # what is noted of it is of the one before
            found = self._find(create=create, deadline=deadline)
        if found is None:
            return False
        if carrying.is_going(found.carried, self.source):
            raise Busy(f"{self.source} is being deleted; nothing was written: retry later")
        if found.name != self.name:
            raise Corrupt(f"{self.source}: its rows are of {found.name!r}; nothing was written")
        if not self._carrying and carrying.is_half_said(found.carried, self.source):
            raise carrying.half_done(self.source)
        self.languages = found.languages
        with files.translate_os_errors(self.folder):
            files.make_folders(self.folder)
        self._opened_us = now_us
        return True

    def _find(self, *, create: bool, deadline: float) -> "writing.Begun | None":
        with self._lent(self._links.writers if create else self._links.readers, deadline) as link:
            found = writing.find(link)
            if found is None and create:
                writing.begin(link, name=self.name, languages=self._config.languages)
                found = writing.find(link)
            return found

    def finish_removing(self, deadline: float) -> None:
        """Delete all rows, and take the files away, if that was begun, see `removing.py`."""
        store = self.folder.parent.parent
        try:
            with self._lent(self._links.writers, deadline) as link:
                removing.finish(
                    link,
                    self.source,
                    take_away=lambda: deleted.take_away(store, self.name),
                    deadline=deadline,
                )
        except ElytronError as error:
            raise error.saying(
                f"{self.source} is being deleted, and not all of it is gone: {error}. Whoever opens"
                " it goes on with that: delete it again"
            ) from error

    def is_outdated(self) -> bool:
        return self._gone

    def finish_renaming(self, names: renaming.Renaming, deadline: float) -> None:
        """Give an agent the key of its new name, if that was begun, see `renaming.py`."""
        store = self.folder.parent.parent
        try:
            with self._lent(self._links.writers, deadline) as link:
                link.deadline = time.monotonic() + renaming.FINISH_S
                renaming.finish(link, names, str(self.source), store=store, deadline=deadline)
        except ElytronError as error:
            raise error.saying(
                f"{names.old!r} is being renamed to {names.new!r}, and that is not done: {error}."
                " Whoever opens one of both goes on with it: retry later"
            ) from error

    def close(self) -> None:
        """
        Write what is counted of uses, if that takes no waiting; they are no promise.

        Not if the server has just failed another who closes: of a thousand agents each would wait.
        """
        while self._wrote and self.uses.any and time.monotonic() >= self._links.away_until:
            deadline = time.monotonic() + min(1.0, self._config.save_timeout_s)
            outcome = self.commit([NoteUses(self.uses.take())], deadline)[0]
            if isinstance(outcome, ElytronError):
                _log.info("uses counted in %s were not written: %s", self.source, outcome)
                self._links.away_until = time.monotonic() + _AWAY_S
                break

    # -- writing

    def commit(self, ops: Sequence[Op], deadline: float) -> list[Any]:
        """
        Apply ops in one durable transaction.

        Args:
            ops: in order. If the transaction fails as a whole, the ops are tried one by one,
                so each succeeds or fails by itself.
            deadline: on the monotonic clock, for the server and for other writers of the agent.
                What was queued in time is not refused because its turn came late.

        Returns:
            For each op its result, or the `ElytronError` that it met. A `NoRoom` is for all
            of them: whoever can makes room, and tries again.
        """
        deadline = max(deadline, time.monotonic() + _LATE_S)
        if self._index_due and saving.drafts_of(ops) is not None:
            self._index(deadline)
        try:
            results = self._commit(ops, deadline)
        except _Apart:
            return [self.commit([op], deadline)[0] for op in ops]
        except ElytronError as error:
            self._known = None
            return [error] * len(ops)
        self._look_after(ops, deadline)
        return results

    def _commit(self, ops: Sequence[Op], deadline: float) -> list[Any]:
        drafts = saving.drafts_of(ops)
        known = self._known
        if (
            drafts is not None
            and known is not None
            and known.covers(drafts)
            and self._fits(known, ops, drafts)
        ):
            claim = saving.claim(self._agent, self.source, known, drafts)
            saved = self._links.save(claim, deadline)
            if saved is Saved.DONE:
                self._wrote = True
                return saving.receipts(ops)
            if saved is Saved.REFUSED:  # so what is known may be wrong
                known = None
        with self._lent(self._links.writers, deadline) as link:
            return self._transact(link, ops, known, deadline)

    def _transact(
        self, link: Link, ops: Sequence[Op], known: Known | None, deadline: float
    ) -> list[Any]:
        writes = LinkWrites(
            link,
            source=self.source,
            change_max=self._config.change_max,
            wal_limit_bytes=self._config.wal_limit_bytes,
            max_concepts=self._config.max_concepts,
        )
        self._known = None  # until this has ended well
        uses = Counts()
        try:
            held = writes.lock(deadline)
            if known is not None and known.version == held.version:
                held.sessions, held.users = known.sessions, known.users
            saved = self._save(link, writes, held, ops)
            results = saving.receipts(ops) if saved else [self._apply(writes, op) for op in ops]
            if self.uses.due and not any([isinstance(op, NoteUses) for op in ops]):
                uses = self.uses.take()
                writes.note_uses(uses)
            if not saved:
                more = writes.messages - held.messages
                self._check_room(held, ops, messages=more, more_bytes=link.weighed_bytes)
                if not all([isinstance(op, _HARMLESS) for op in ops]):
                    held.forget_names()
                held.learn(link, saving.drafts_of(ops) or ())
                writes.note(held)
            link.execute("COMMIT")
        except BaseException as error:
            self.uses.put_back(uses)
            link.undo()
            if writes.is_gone:
                store = self.folder.parent.parent
                if writes.is_renaming or renaming.is_renamed(store, self.name, self._opened_us):
                    raise renamed.refused(self.name) from error
                self._gone = True
            if isinstance(error, psycopg.Error) and not link.committing and len(ops) > 1:
                locked = isinstance(error, server_errors.LockNotAvailable)
                if not locked and not link.closed:
                    raise _Apart from error
            raise
        if not writes.half_done:  # else the next save would have nothing to ask
            self._settled(held, ops)
        return results

    def _save(self, link: Link, writes: LinkWrites, held: Known, ops: Sequence[Op]) -> bool:
        """
        Save plain messages within the transaction, once what has to be known is asked for, and the
        sessions and users are made that are new. False if they are not plain after all.
        """
        drafts = saving.drafts_of(ops, most=_TOGETHER_MAX)
        if drafts is None or writes.half_done:
            return False
        held.learn(link, drafts)
        if held.is_short_for(drafts) or saving.any_held(link, drafts):
            return False
        more_bytes = saving.weight(drafts)
        self._check_room(held, ops, messages=len(drafts), more_bytes=more_bytes)
        writes.add_names(held, drafts)
        for start in range(0, len(drafts), saving.AT_ONCE_MAX):
            part = drafts[start : start + saving.AT_ONCE_MAX]
            done = saving.save(link, saving.claim(self._agent, self.source, held, part))
            assert done, "nobody else writes while the agent is locked"
        if link.weighed_bytes:  # of new sessions and users
            self._check_room(held, ops, messages=0, more_bytes=link.weighed_bytes)
            writes.messages = held.messages
            writes.note(held)
        return True

    @staticmethod
    def _apply(writes: LinkWrites, op: Op) -> Any:
        try:
            return writes.apply(op)
        except ElytronError as error:
            return error

    def _settled(self, held: Known, ops: Sequence[Op]) -> None:
        """Remember what is known after a commit."""
        self._wrote = True
        if any([isinstance(op, IndexWords | Reindex) for op in ops]):
            held.indexed = -1  # to be asked
        self._known = held
        for op in ops:
            if isinstance(op, Reindex) and op.languages is not None:
                self.languages = op.languages

    def _fits(self, known: Known, ops: Sequence[Op], drafts: Sequence[Draft]) -> bool:
        """Whether they fit by what is known. If not, they may be held, or another made room."""
        try:
            self._check_room(known, ops, messages=len(drafts), more_bytes=saving.weight(drafts))
        except NoRoom:
            return False
        return True

    def _check_room(
        self, held: Known, ops: Sequence[Op], *, messages: int, more_bytes: int
    ) -> None:
        """
        Raises:
            NoRoom: with these ops there are more messages, or bytes, than there may be.
        """
        most = self._config.max_messages_per_agent
        if messages > 0 and held.messages + messages > most:
            raise self._room.no_messages(held=held.messages, new=messages)
        self._room.graph_bytes = held.graph_bytes
        limit_bytes = self._room.pages(ops, granted_bytes=None) * PAGE_BYTES
        if more_bytes > 0 and held.bytes + more_bytes > limit_bytes:
            raise self._room.no_bytes(
                held_bytes=held.bytes, need_bytes=more_bytes, granted_bytes=None
            )

    def _look_after(self, ops: Sequence[Op], deadline: float) -> None:
        """Index what is due, and tell whoever looks after the agent if it is near a limit."""
        known = self._known
        if known is None:
            return
        if known.seq - known.indexed >= UNINDEXED_MAX and not isinstance(ops[0], IndexWords):
            self._index(deadline)
        most = self._config.soft_limit_ratio * self._config.max_messages_per_agent
        full_bytes = _NEAR * self._room.file_bytes(None)
        if known.messages >= most or known.bytes >= full_bytes:
            self._on_near()

    def _index(self, deadline: float) -> None:
        """
        Index what is due, in commits of their own.

        What was saved is durable before, so a failure here costs nobody a receipt: reading looks
        at the unindexed messages itself. It is tried again before the next messages are saved.
        """
        self._index_due, more = True, True
        op = IndexWords(0)
        while more:
            try:
                with self._lent(self._links.writers, deadline) as link:
                    (outcome,) = self._transact(link, [op], self._known, deadline)
                if isinstance(outcome, ElytronError):
                    raise outcome
            except ElytronError as error:
                _log.info("indexing %s is put off: %s", self.source, error)
                return
            more = outcome
        self._index_due = False
        if self._known is not None:
            self._known.indexed = self._known.seq

    def checkpoint_due(self) -> bool:
        """There is no log of ours to be emptied; nor do the next three do anything."""
        return False

    def checkpoint(self) -> None:
        """The server's own."""

    def empty_wal(self, deadline: float) -> None:
        """The server's own."""

    def rebuild(self, deadline: float) -> None:
        """The server's own: autovacuum gives the room of what left to what comes."""

    # -- reading

    @contextlib.contextmanager
    def reading(self, *, snapshot: bool = False) -> Iterator[Link]:
        """
        A connection to read with, for at most `read_timeout_s`.

        Args:
            snapshot: all statements see one moment. Without it each sees its own.

        Raises:
            Busy: no connection came free, or the reading took too long.
            Unavailable: the server cannot be reached.
        """
        deadline = time.monotonic() + self._config.read_timeout_s
        with self._lent(self._links.readers, deadline, writing=False) as link:
            if snapshot:
                link.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield link
            finally:
                link.undo()

    @contextlib.contextmanager
    def _lent(self, links: Links, deadline: float, *, writing: bool = True) -> Iterator[Link]:
        """A link for the length of the block; what it meets is raised as ours."""
        link = links.borrow(self._agent, deadline)
        try:
            yield link
        except faults.STORAGE_ERRORS as error:
            committing = link.committing
            raise faults.translate(
                error, self.source, committing=committing, writing=writing
            ) from error
        finally:
            links.give_back(link)

    def file_sizes(self) -> tuple[int, int]:
        """Bytes that its rows count, and of a log, which there is none of."""
        with self.reading() as link:
            return counted_bytes(link), 0


class _Apart(Exception):
    """One of several ops made the transaction fail."""


def counted_bytes(db: Link) -> int:
    """What the rows of the agent count, as its own row has it."""
    found = db.native("SELECT bytes FROM agents WHERE agent_id = %(agent)s::uuid")
    return found[0][0] if found else 0


class Lending:
    """What the ledgers of a store share: who they are, what saves for several of them at once, and
    two pools, so that a reader that waits for a writer cannot be what the writer waits for."""

    def __init__(
        self,
        readers: Links,
        writers: Links,
        *,
        shown: str,
        look: Callable[..., bool],
        group: Grouping,
    ) -> None:
        """
        Args:
            look: sees that the store's schema is there, made if `create`; whether it is.
            group: makes one call of many callers'.
        """
        self.readers = readers
        self.writers = writers
        self.shown = shown
        self.look = look
        self.spread = False  # over several databases: no transaction is about several agents then
        self._together = Together(writers, shown)
        self._save_grouped = group(self._together, AGENTS_MAX)
        self.away_until = 0.0  # on the monotonic clock

    def save(self, claim: Claim, deadline: float) -> Saved:
        """
        Save a claim, together with those of other agents that come at the same moment.

        Raises:
            OutcomeUnknown, Unavailable, Busy: as they say.
        """
        if self.spread:
            return self._together.alone(claim, deadline)
        saved: Saved = self._save_grouped(claim, deadline)
        return saved

    @staticmethod
    def agent_id(name: str) -> uuid.UUID:
        """The key of an agent's rows: the same wherever it is computed."""
        import hashlib

        return uuid.UUID(bytes=hashlib.sha256(name.encode()).digest()[:16])

    def close(self) -> None:
        self.readers.close()
        self.writers.close()
