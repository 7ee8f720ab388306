"""
Projection: brings agents' graphs up to their ledgers, and asks them.

The ledger's changes are applied in pages, one transaction each, which also stores the number of
the last change applied. Where that cannot be, or would not pay, the graph is built anew
(`why_rebuild`, pure). What goes into a transaction is decided in `batches.py`; the files and the
process are the client's. Whoever asks waits here until the graph has all that the ledger had when
he asked.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from elytron.config import Config
from elytron.errors import (
    Busy,
    DeadlineExceeded,
    GraphUnavailable,
    InvalidArgument,
    OverBudget,
)
from elytron.graph import batches
from elytron.graph.client import Behind, GraphClient, GraphState, Rows, Statement
from elytron.graph.statements import EMPTY_BYTES, Batch, first_bytes, schema, statements
from elytron.ledger import feeds, reads
from elytron.ledger.database import Database
from elytron.ledger.ledgers import Ledger

_log = logging.getLogger("elytron.graph")

VERSION = 1  # of the schema and of what is projected: another one is built anew
_DEAD_MIN, _DEAD_RATIO = 500, 0.25
_CHECKPOINTS_MAX = 400  # LadybugDB 0.19 damaged files after some 700 (its issue 843)
_BUILDS_MAX = 3  # in one call
_ROUNDS_MAX = 5  # of catching up and asking, where another process takes the graph away
_TURNS_MAX = 3  # how often a question's whole time is spent waiting for others
_STEP_BYTES = 1 << 20  # room is asked for in such steps: each is a commit of the ledger
# What the engine's log and its checkpoint take for a while, of a build and of a page of changes;
# less where the graph is smaller.
_BUILD_LOG_BYTES, _LOG_BYTES = 20 << 20, 4 << 20
_WITNESSES = 32
_WITNESS_TABLES = {
    "users": Statement("MATCH (n:User) RETURN n.key, n.id ORDER BY n.key DESC LIMIT 32"),
    "sessions": Statement("MATCH (n:Session) RETURN n.key, n.id ORDER BY n.key DESC LIMIT 32"),
    "concepts": Statement("MATCH (n:Concept) RETURN n.key, n.name ORDER BY n.key DESC LIMIT 32"),
    "messages": Statement("MATCH (n:Message) RETURN n.key, n.id ORDER BY n.key DESC LIMIT 32"),
    "memories": Statement("MATCH (n:Memory) RETURN n.key, n.id ORDER BY n.key DESC LIMIT 32"),
}


def _allow_all(_name: str, _size_bytes: int) -> None:
    return None


def why_rebuild(state: GraphState, *, identity: str, latest: int, complete: bool) -> str | None:
    """
    Why a graph has to be built anew; None if it can be brought up to its ledger by changes.

    Args:
        identity: of the ledger and this version of the projection.
        latest: the ledger's last change.
        complete: no change after the graph's position was forgotten.
    """
    if state.set_aside is not None:
        return f"the file was damaged: {state.set_aside}"
    if state.position is None:
        return "there was none"
    if state.identity != identity:
        return "it was of another ledger, engine or version"
    if state.position > latest:
        return "the ledger is older than the graph"
    if not complete:
        return "more changed than `change_max`"
    if state.dead >= _DEAD_MIN and state.dead > _DEAD_RATIO * (state.live + state.dead):
        return f"{state.dead} of {state.live + state.dead} rows were dead"
    if state.checkpoints >= _CHECKPOINTS_MAX:
        return f"it had {state.checkpoints} checkpoints"
    return None


def agree(
    graph: Sequence[tuple[int, str]], ledger: Sequence[tuple[int, str]], changed: set[int]
) -> bool:
    """
    Whether the newest rows of a graph are those of its ledger, but for keys *changed* since.

    Both newest first, and at most as many as are compared.
    """
    full = [side for side in (graph, ledger) if len(side) == _WITNESSES]
    oldest = max([side[-1][0] for side in full], default=0)

    def compared(side: Sequence[tuple[int, str]]) -> dict[int, str]:
        return {key: name for key, name in side if key >= oldest and key not in changed}

    return compared(graph) == compared(ledger)


class Projection:
    """The graphs of one store's agents. Safe for many threads, one at a time for each agent."""

    def __init__(
        self,
        client: GraphClient,
        config: Config,
        *,
        allow: Callable[[str, int], None] = _allow_all,
    ) -> None:
        """
        Args:
            allow: called with an agent's name and bytes before its graph grows to so many;
                raises `OverBudget` if it may not.
        """
        self._client = client
        self._config = config
        self._allow = allow
        self._mutex = threading.Lock()
        self._turns: weakref.WeakValueDictionary[str, _Turn] = weakref.WeakValueDictionary()
        # Ledgers that were compared with their graph since they were opened.
        self._known: weakref.WeakSet[Ledger] = weakref.WeakSet()

    def ask(
        self,
        name: str,
        ledger: Ledger,
        folder: Path,
        statement: Statement,
        *,
        rows_max: int,
        bytes_max: int,
        build_deadline: float,
        timeout_s: float,
    ) -> Rows:
        """
        Ask a graph that has at least what the ledger has at this moment.

        Args:
            folder: the graph's own.
            build_deadline: on the monotonic clock, for bringing it up to date.
            timeout_s: for the question itself. Others are waited for up to three times as long.

        Raises:
            Busy: bringing it up to date took too long, or other processes kept the graph.
            InvalidArgument, DeadlineExceeded, GraphUnavailable, OverBudget: as the client's.

        One call of the worker where the graph is up to date.
        """
        with ledger.reading() as db:
            needs = feeds.latest(db)
            identity = self._identity(db, ledger)
        if not self._is_known(ledger):
            self.catch_up(name, ledger, folder, deadline=build_deadline)
        rounds = turns = 0
        while rounds < _ROUNDS_MAX:
            try:
                return self._client.query(
                    folder,
                    statement,
                    needs=needs,
                    identity=identity,
                    rows_max=rows_max,
                    bytes_max=bytes_max,
                    deadline=time.monotonic() + timeout_s,
                )
            except Behind:
                rounds += 1
                self.catch_up(name, ledger, folder, deadline=build_deadline)
            except Busy:  # its time began before it was our turn
                turns += 1
                if turns == _TURNS_MAX:
                    raise
        raise Busy(
            f"the graph of {name!r} was replaced {_ROUNDS_MAX} times while it was asked, by another"
            " process; retry later"
        )

    def catch_up(
        self, name: str, ledger: Ledger, folder: Path, *, deadline: float
    ) -> tuple[int, str]:
        """
        Bring a graph up to what the ledger has at this moment; builds it if there is none.

        Returns:
            (position, identity) that it has now.

        Raises:
            Busy: it took until *deadline*. Changes applied stay applied.
            OverBudget: the graph may not become so large; where a build was under way it is gone.
            Corrupt: a row of the ledger is damaged.
            GraphUnavailable, DiskFull: as the client's.
        """
        with self._turn(name, deadline):
            work = self._begin(name, ledger, folder, deadline)
            state = self._up_to(self._state(work), work)
        assert state.position is not None, "it was built"
        return state.position, work.identity

    def rebuild(
        self, name: str, ledger: Ledger, folder: Path, *, because: str, deadline: float
    ) -> GraphState:
        """Build a graph anew and bring it up to its ledger. Raises as `catch_up`."""
        with self._turn(name, deadline):
            work = self._begin(name, ledger, folder, deadline)
            return self._up_to(self._state(work), work, because=because)

    def _begin(self, name: str, ledger: Ledger, folder: Path, deadline: float) -> "_Work":
        with ledger.reading() as db:
            target = feeds.latest(db)
            identity = self._identity(db, ledger)
        return _Work(name, ledger, folder, identity, target, deadline)

    def _state(self, work: "_Work") -> GraphState:
        try:
            return self._client.state(work.folder, deadline=work.deadline)
        except DeadlineExceeded:
            work.check_time(0, work.target, "changes")
            raise

    # -- catching up

    def _up_to(self, state: GraphState, work: "_Work", *, because: str | None = None) -> GraphState:
        """Apply pages of changes until the target is reached, building anew where that is due."""
        builds, is_compact = 0, False
        while True:
            try:
                why = because or self._why_rebuild(state, work)
            except Behind as behind:  # another process has deleted it just now
                work.check_time(0, work.target, "changes")
                state = behind.state
                continue
            if why is None and state.position is not None and state.position >= work.target:
                self._note_known(work.ledger)
                return state
            work.check_time(state.position or 0, work.target, "changes")
            if why is not None and builds >= _BUILDS_MAX:
                raise GraphUnavailable(
                    f"the graph of {work.name!r} was built {_BUILDS_MAX} times and is no good"
                    f" still: {why}; the ledger is untouched"
                )
            try:
                if why is not None:
                    is_compact = True
                    state = self._build(state, work, why)
                    because = None
                    builds += 1
                else:
                    state = self._apply(state, work)
            except batches.TooMany:
                because = f"more than {batches.LINKS_MAX} links changed at once"
            except Behind as behind:
                # Another process was first, or the worker was replaced: as often as others' calls
                # end it, so a build that is lost with it is not counted.
                state = behind.state
            except OverBudget:
                if is_compact or not state.dead:  # anew it would be as large
                    raise
                because = "there was no room to bring it up to date"
            except InvalidArgument:
                builds += why is not None
                # What the engine said may hold a name, so it is not logged.
                _log.warning("the graph in %s refused rows; it is built anew", work.folder)
                because = "it refused rows of the ledger"
            except DeadlineExceeded:
                work.check_time(state.position or 0, work.target, "changes")
                raise

    def _why_rebuild(self, state: GraphState, work: "_Work") -> str | None:
        with work.ledger.reading(snapshot=True) as db:
            latest = feeds.latest(db)
            complete = feeds.is_complete(db, after=state.position or 0)
        why = why_rebuild(state, identity=work.identity, latest=latest, complete=complete)
        if why is None and not self._is_known(work.ledger) and not self._agrees(state, work):
            why = "it was of another past of the ledger"
        return why

    def _agrees(self, state: GraphState, work: "_Work") -> bool:
        """
        Whether the graph is of this ledger's own past. Not where an older copy of the ledger was
        put back and went on: its numbers were used for something else before.
        """
        assert state.position is not None, "there is one"
        for table, statement in _WITNESS_TABLES.items():
            found = self._client.query(
                work.folder,
                statement,
                needs=0,
                identity=work.identity,
                rows_max=_WITNESSES,
                bytes_max=self._config.max_result_bytes,
                deadline=work.deadline,
            )
            graph = [(int(key), str(name)) for key, name in found.rows]
            with work.ledger.reading(snapshot=True) as db:
                held = feeds.newest(db, table, upto=state.position, limit=_WITNESSES)
                keys = {key for key, _ in (*graph, *held)}
                changed = feeds.changed(db, keys, after=state.position)
            # What another process applied meanwhile is newer than the position. It is passed on all
            # the same: how far down these rows reach depends on it.
            newer = {key for key, _ in graph if key > state.position}
            if not agree(graph, held, changed | newer):
                return False
        return True

    def _apply(self, state: GraphState, work: "_Work") -> GraphState:
        """Apply one page of changes."""
        assert state.position is not None, "there is one"
        ledger = work.ledger
        with ledger.reading(snapshot=True) as db:
            changes, complete = reads.changes(db, after=state.position, limit=batches.PAGE_MAX)
            if not (changes and complete):  # forgotten since it was looked: the next look tells
                return state
            page = batches.cut(db, changes, state.position)
            batch = batches.changed(db, page, ledger.source)
        size_bytes = state.bytes + batch.growth_bytes(self._config.engine)
        size_bytes += first_bytes(batch.nodes)
        self._ask_for_room(work.name, size_bytes + min(_LOG_BYTES, size_bytes))
        return self._client.apply(
            work.folder,
            statements(batch, self._config.engine),
            expected=state.position,
            position=page.end,
            added=batch.added,
            removed=batch.removed,
            deadline=work.deadline,
        )

    # -- building

    def _build(self, state: GraphState, work: "_Work", because: str) -> GraphState:
        """
        Write a new graph beside the old one, and put it in its place. Where there is no room for
        both, the old one goes first; where there is none for the new one, both.
        """
        begun_s = time.monotonic()
        try:
            state = self._write(work, because, beside_bytes=state.bytes)
        except OverBudget:
            freed_bytes = self._client.drop(work.folder, deadline=work.deadline)
            if not state.bytes:
                raise
            _log.info("dropped the graph in %s of %d bytes", work.folder, freed_bytes)
            try:
                state = self._write(work, because, beside_bytes=0)
            except OverBudget:
                self._client.drop(work.folder, deadline=work.deadline)
                raise
        self._note_known(work.ledger)
        _log.info(
            "built the graph in %s, %d rows in %.1f s: %s",
            work.folder, state.live, time.monotonic() - begun_s, because,
        )  # fmt: skip
        return state

    def _write(self, work: "_Work", because: str, *, beside_bytes: int) -> GraphState:
        """
        A new graph with all that the ledger has now. Saving goes on meanwhile: nothing newer is
        taken, which is brought by its own change afterwards.
        """
        client, deadline = self._client, work.deadline
        with work.ledger.reading() as db:
            upto = feeds.latest(db)
            total = sum(feeds.counts(db).values())
        engine, nodes, done = self._config.engine, 0, 0
        size_bytes = EMPTY_BYTES[engine]
        self._ask_for_room(work.name, beside_bytes + size_bytes)
        client.begin(
            work.folder, schema(), identity=work.identity, because=because, deadline=deadline
        )
        for batch in _rows_up_to(work.ledger, upto):
            nodes += batch.nodes
            size_bytes += batch.growth_bytes(engine)
            whole_bytes = size_bytes + first_bytes(nodes)
            log_bytes = min(_BUILD_LOG_BYTES, whole_bytes)
            self._ask_for_room(work.name, beside_bytes + whole_bytes + log_bytes)
            load = statements(batch, engine)
            client.load(work.folder, load, added=batch.added, deadline=deadline)
            done += batch.added
            work.check_time(min(done, total), total, "rows")
        return client.finish(work.folder, position=upto, deadline=deadline)

    # -- small parts

    def _ask_for_room(self, name: str, size_bytes: int) -> None:
        """In large steps, since each may be a commit of the ledger; near the limit exactly."""
        steps = -(-size_bytes // _STEP_BYTES)
        try:
            self._allow(name, steps * _STEP_BYTES)
        except OverBudget:
            self._allow(name, size_bytes)

    def _identity(self, db: Database, ledger: Ledger) -> str:
        return f"{self._config.engine}-{VERSION}-{feeds.identity(db, ledger.source)}"

    def _is_known(self, ledger: Ledger) -> bool:
        with self._mutex:
            return ledger in self._known

    def _note_known(self, ledger: Ledger) -> None:
        with self._mutex:
            self._known.add(ledger)

    @contextmanager
    def _turn(self, name: str, deadline: float) -> Iterator[None]:
        """One thread at a time for an agent."""
        with self._mutex:
            turn = self._turns.get(name)
            if turn is None:
                turn = self._turns[name] = _Turn()
        if not turn.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Busy(
                f"another thread was bringing the graph of {name!r} up to date all the time; retry"
                " later, or raise `graph_build_timeout_s`"
            )
        try:
            yield
        finally:
            turn.lock.release()


class _Turn:
    """A lock that can be forgotten once nobody has it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Work:
    """One call: whose graph, and up to which change of which ledger, by when."""

    name: str
    ledger: Ledger
    folder: Path
    identity: str
    target: int
    deadline: float

    def check_time(self, done: int, total: int, unit: str) -> None:
        """
        Raises:
            Busy: the time is over.
        """
        if time.monotonic() >= self.deadline:
            raise Busy(
                f"the graph of {self.name!r} is not up to date yet: {done:,} of {total:,} {unit}"
                " were done in time; retry, or raise `graph_build_timeout_s`"
            )


def _rows_up_to(ledger: Ledger, upto: int) -> Iterator[Batch]:
    """All rows of a ledger up to a key, in batches, each read by itself."""
    for table in feeds.TABLES:
        after = 0
        while True:
            with ledger.reading(snapshot=True) as db:
                batch, after = batches.built(
                    db, table, after=after, upto=upto, source=ledger.source
                )
            if not after:
                break
            yield batch
