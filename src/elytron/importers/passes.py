"""
Passes: one file into a store. First all of it is checked, then all of it is written.

What a bad piece means is decided here: without `skip_bad` the first one ends the import
before anything was written; with it, they are passed over and reported.
"""

import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from elytron.agent import Agent
from elytron.errors import Conflict, ElytronError, InvalidArgument
from elytron.importers.learning import LearnedCheck, Target, write_learned
from elytron.importers.pieces import (
    AgentBegins,
    Described,
    Found,
    Learned,
    LeftOut,
    Piece,
    Reading,
    Taught,
    Told,
    bad,
)
from elytron.importers.repeats import Repeats
from elytron.importers.source import Origin
from elytron.records import BadLine, Draft, ImportReport, Message
from elytron.text import Analyzer
from elytron.write.admission import IdClock, admit_many

BAD_MAX = 1000  # bad pieces reported one by one
BEYOND = f"bad, beyond the first {BAD_MAX}"
_COMMIT_MAX = 500  # messages handed over at once
_COMMIT_MAX_BYTES = 4 << 20  # of the file
_UNSAID = b"\xff" * 8  # stands for a time that is not given


class _Tally:
    """What came of one agent's part of the file."""

    def __init__(self) -> None:
        self.imported = 0
        self.held = 0
        self.learned: Counter[type[Learned]] = Counter()  # what of the imported is no message
        self.bad: list[BadLine] = []
        self.left_out: Counter[str] = Counter()

    def report(self, agent: str, what: str) -> ImportReport:
        listed = tuple(sorted(self.bad, key=lambda piece: piece.line))
        return ImportReport(
            agent,
            self.imported,
            self.held,
            listed,
            dict(self.left_out),
            memories=self.learned[Taught],
            concepts=self.learned[Described],
            relations=self.learned[Told],
            what=what,
        )


class Passes:
    """Use once: `run`."""

    def __init__(
        self,
        store: Target,
        source: Origin,
        reading: Reading,
        *,
        agent: str | None,
        skip_bad: bool,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._store = store
        self._source = source
        self._reading = reading
        self._agent = agent
        self._skip_bad = skip_bad
        self._on_progress = on_progress
        self._total = self._done = self._bad = 0
        self._pending: list[Found] = []
        self._committed_bytes = 0  # read of the file when something was last handed over
        self._tallies: dict[str, _Tally] = {}
        self._started = datetime.now(UTC)

    def run(self) -> list[ImportReport]:
        """`import_file` says what it raises."""
        first = self._agent if self._agent is not None else self._source.path.stem
        self._store.agent(first)  # a bad name, or a closed store, before any work
        self._check(first)
        self._source.check_unchanged()
        self._write(first)
        if not self._tallies:
            self._tallies[first] = _Tally()
        what = self._reading.what
        return [tally.report(name, what) for name, tally in self._tallies.items()]

    @contextlib.contextmanager
    def _pieces(self) -> Iterator[Iterator[Piece]]:
        # Closed here, and not by chance, since it has a temporary file open.
        pieces = cast(Generator[Piece, None, None], self._reading.pieces())
        with contextlib.closing(pieces):
            yield pieces

    # -- the first pass

    def _check(self, name: str) -> None:
        begun: str | None = None
        with Repeats() as ids, self._pieces() as pieces:
            check = _Check(self._store, ids)
            for piece in pieces:
                match piece:
                    case AgentBegins(name=following):
                        if begun is not None and self._agent is not None:
                            raise InvalidArgument(
                                f"{self._source.path} holds several agents, as {begun!r:.50} and"
                                f" {following!r:.50}; leave out the agent's name, and each gets"
                                " its own; nothing was imported"
                            )
                        begun = following
                        name = self._agent or following
                    case Found() | Taught() | Described() | Told():
                        self._total += not _is_aside(piece)
                        if not self._skip_bad:
                            try:
                                check.piece(name, piece)
                            except InvalidArgument as error:
                                self._refuse(bad(piece.line, piece.place, str(error)))
                            if len(check.unlooked) == _COMMIT_MAX or self._is_much_pending():
                                self._look_up(check)
                    case BadLine():
                        self._total += 1
                        if not self._skip_bad:
                            self._refuse(piece)
                    case LeftOut():
                        pass
            self._look_up(check)

    def _look_up(self, check: "_Check") -> None:
        self._committed_bytes = self._source.bytes_read
        if (conflict := check.archived()) is not None:
            found, reason = conflict
            self._refuse(bad(found.line, found.place, reason))

    def _refuse(self, piece: BadLine) -> None:
        raise InvalidArgument(
            f"{self._place(piece)}; nothing was imported: mend it, or skip what is bad"
        )

    def _place(self, piece: BadLine) -> str:
        return f"{self._source.path}, {self._reading.noun} {piece.line}: {piece.reason}"

    # -- the second pass

    def _write(self, name: str) -> None:
        self._committed_bytes = self._source.bytes_read
        with self._pieces() as pieces:
            for piece in pieces:
                match piece:
                    case AgentBegins(name=following):
                        self._commit(name)
                        name = self._agent or following
                        self._tally(name)
                    case Found():
                        self._pending.append(piece)
                        if len(self._pending) == _COMMIT_MAX or self._is_much_pending():
                            self._commit(name)
                    case Taught() | Described() | Told():
                        self._commit(name)
                        self._learn(name, piece)
                    case BadLine():
                        self._count_bad(self._tally(name), piece)
                        self._advance(1)
                    case LeftOut(reason=reason, times=times):
                        self._tally(name).left_out[reason] += times
        self._commit(name)

    def _is_much_pending(self) -> bool:
        return self._source.bytes_read - self._committed_bytes > _COMMIT_MAX_BYTES

    def _tally(self, name: str) -> _Tally:
        return self._tallies.setdefault(name, _Tally())

    def _commit(self, name: str) -> None:
        pending, self._pending = self._pending, []
        self._committed_bytes = self._source.bytes_read
        if not pending:
            return
        # Numbered anew for the report, which then tells which of them is meant.
        messages = [{**found.message, "line": n} for n, found in enumerate(pending)]
        try:
            report = self._store.agent(name).import_(messages, skip_bad=True)
        except ElytronError as error:
            raise error.saying(f"{self._source.path}: {error}. {self._so_far()}") from error
        tally = self._tally(name)
        tally.imported += report.imported
        tally.held += report.already_held
        for refused in report.bad:
            found = pending[refused.line]
            self._count_bad(tally, bad(found.line, found.place, refused.reason))
        self._advance(len(pending))

    def _learn(self, name: str, piece: Learned) -> None:
        tally = self._tally(name)
        counts = not _is_aside(piece)
        try:
            new = write_learned(self._store.agent(name), piece, started=self._started)
        except (InvalidArgument, Conflict) as error:
            self._count_bad(tally, bad(piece.line, piece.place, str(error)))
        except ElytronError as error:
            raise error.saying(f"{self._source.path}: {error}. {self._so_far()}") from error
        else:
            tally.imported += counts and new
            tally.held += counts and not new
            tally.learned[type(piece)] += counts and new
        if counts:
            self._advance(1)

    def _count_bad(self, tally: _Tally, piece: BadLine) -> None:
        if not self._skip_bad:
            # Not so when it was checked: something changed in between.
            raise InvalidArgument(f"{self._place(piece)}. {self._so_far()}")
        self._bad += 1
        if self._bad <= BAD_MAX:
            tally.bad.append(piece)
        else:
            tally.left_out[BEYOND] += 1

    def _so_far(self) -> str:
        imported = sum([tally.imported for tally in self._tallies.values()])
        held = sum([tally.held for tally in self._tallies.values()])
        return (
            f"Of the {self._total} {self._reading.what} of the file at least {imported} were"
            f" imported and {held} were held already; import it again to go on: nothing is doubled"
        )

    def _advance(self, count: int) -> None:
        self._done += count
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def _is_aside(piece: Found | Learned) -> bool:
    return isinstance(piece, Taught) and piece.aside


class _Check:
    """Finds what the second pass would refuse: the same admission, and ids used twice."""

    def __init__(self, store: Target, ids: Repeats) -> None:
        self._store = store
        self._ids = ids
        self._learned = LearnedCheck(store.config, ids)
        self._admit_many = partial(
            admit_many,
            config=store.config,
            analyzer=Analyzer(store.config.languages),
            ids=IdClock(),
        )
        self._agent: Agent | None = None
        self._holds_some = False
        self.unlooked: list[tuple[Agent, Found, Draft]] = []  # not looked up in the archive yet

    def piece(self, agent: str, piece: Found | Learned) -> None:
        """
        Raises:
            InvalidArgument: it is not acceptable, or its id has other content already, unless
                that is archived: see `archived`.
        """
        self._look_at(agent)
        if isinstance(piece, Found):
            self._message(agent, piece)
        else:
            assert self._agent is not None, "it was looked at"
            self._learned.check(self._agent, piece, holds_some=self._holds_some)

    def _message(self, agent: str, found: Found) -> None:
        draft = self._admit(found.message)
        name = f"{agent}\0{draft.id}".encode()
        key = hashlib.blake2b(name, digest_size=16).digest()
        said = _said(draft)
        if not _agree(self._ids.first(key, said), said):
            raise InvalidArgument(f"id {draft.id!r} came before in the file with other content")
        held = self._held(draft.id)
        if held is not None and not self._is_same(held, said):
            raise InvalidArgument(
                f"id {draft.id!r} is held with other content; use a new id, or `Agent.edit()` it"
            )
        if self._holds_some:
            assert self._agent is not None, "it was looked at"
            self.unlooked.append((self._agent, found, draft))

    def archived(self) -> tuple[Found, str] | None:
        """The first of the `unlooked` whose id is archived with other content, and the reason."""
        unlooked, self.unlooked = self.unlooked, []
        for _, group in itertools.groupby(unlooked, key=lambda one: one[0].name):
            some = list(group)
            reason = _conflict(some)
            while reason is not None and len(some) > 1:  # halved, since a look-up reads segments
                half = some[: len(some) // 2]
                found = _conflict(half)
                some = half if found is not None else some[len(half) :]
                reason = found or reason
            if reason is not None:
                return some[0][1], reason
        return None

    def _admit(self, message: dict[str, Any] | Message) -> Draft:
        try:
            return self._admit_many((message,))[0]
        except InvalidArgument as error:
            raise InvalidArgument(str(error).removeprefix("message 0: ")) from error

    def _look_at(self, agent: str) -> None:
        if self._agent is None or self._agent.name != agent:
            self._agent = self._store.agent(agent)
            self._holds_some = self._agent.exists()

    def _held(self, id: str) -> Message | None:
        assert self._agent is not None, "it was looked at"
        return self._agent.get(id) if self._holds_some else None

    def _is_same(self, held: Message, said: bytes) -> bool:
        try:
            return _agree(_said(self._admit(held)), said)
        except InvalidArgument:  # saved under wider limits than ours, so it is not ours
            return False


def _conflict(some: list[tuple[Agent, Found, Draft]]) -> str | None:
    """Why saving would refuse one of them, all of one agent, for what is archived."""
    try:
        drafts = [draft for _, _, draft in some]
        some[0][0]._in_archive(drafts).check(drafts)
    except Conflict as error:
        return str(error)
    return None


def _said(draft: Draft) -> bytes:
    """What may not differ under one id: a hash, and the time in 8 bytes."""
    values = (draft.session, draft.user, draft.role, draft.metadata, draft.content)
    at = draft.at_us.to_bytes(8, "big") if draft.at_given else _UNSAID
    return hashlib.blake2b(repr(values).encode(), digest_size=16).digest() + at


def _agree(first: bytes, second: bytes) -> bool:
    """Whether the ledger takes the second for a retry of the first, which it then holds."""
    return first[:16] == second[:16] and second[16:] in (first[16:], _UNSAID)
