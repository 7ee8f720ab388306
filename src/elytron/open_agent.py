"""
Open agent: one agent's ledger with all that works on it, and who is using it.
"""

import contextlib
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from elytron.archive import Archive
from elytron.concepts.known import KnownNames
from elytron.embed.calls import Calls
from elytron.errors import Busy, ElytronError
from elytron.ledger.beginning import identity
from elytron.ledger.ledgers import Ledger
from elytron.recall.nearest import Nearest
from elytron.upkeep.background import Background
from elytron.upkeep.embedding import Embedding
from elytron.upkeep.extracting import Extracting
from elytron.upkeep.gate import Gate
from elytron.upkeep.linking import Linking
from elytron.write.writer import Writer

_LINKS_LOCK, _FACTS_LOCK, _VECTORS_LOCK = "links.lock", "facts.lock", "vectors.lock"
# A step takes some 20 ms, or one call of an embedder. Whoever takes longer may have been stopped.
_LINKS_PATIENCE_S, _VECTORS_PATIENCE_S = 1.0, 2.0
_LOOK_AGAIN_S = 0.02  # whether the other process has done it


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What makes vectors for the agents of a store: who is asked, and the thread that does."""

    calls: Calls
    background: Background

    def close(self, timeout_s: float) -> None:
        """End both; a call that hangs is not waited for."""
        self.background.abandon()
        self.calls.close()
        self.background.stop(timeout_s)


class Use:
    """
    One use of an agent, kept by whoever has it.

    Forgotten, because Ctrl-C struck just before it was given back, it ends with its owner.
    """

    __slots__ = ("__weakref__", "agent")

    def __init__(self) -> None:
        self.agent: OpenAgent | None = None


class Chase:
    """Work that follows what is saved, step by step: one thread at a time, and one process."""

    def __init__(
        self,
        step: Callable[[float], bool],
        *,
        goal: Callable[[float], Callable[[], bool]],
        gate: Gate,
        patience_s: float,
    ) -> None:
        """
        Args:
            step: does a bounded part, and waits for others no longer than to a time on the
                monotonic clock; whether there may be more.
            goal: what there is to do by now: a function that says, in our turn, whether that is
                done, with waits as in *step*. Others may save without end meanwhile.
            patience_s: how long a step of another process is waited for.
        """
        self._step = step
        self._goal = goal
        self._patience_s = patience_s
        self.gate = gate
        self.turn = threading.Lock()

    def step(self) -> bool | None:
        """
        Do one part, when it is our turn; whether there may be more. None, and nothing is done,
        while another process is at it.
        """
        with self.gate.passing() as ours, self.turn:
            return self._step(math.inf) if ours else None

    def to_end(self, *, timeout_s: float, what: str) -> None:
        """
        Do all that is to be done now, or see it done by another process.

        Raises:
            Busy: that took longer than *timeout_s*; what is done stays done.
        """
        deadline = time.monotonic() + timeout_s
        is_done = self._goal(deadline)
        patience_s = self._patience_s
        patient_until = time.monotonic() + patience_s
        with self._in_turn(deadline, timeout_s, what):
            more = not is_done()
        while more:
            if time.monotonic() > deadline:
                raise self._late(what, timeout_s)
            with (
                self.gate.passing(wait_s=_LOOK_AGAIN_S) as ours,
                self._in_turn(deadline, timeout_s, what),
            ):
                if is_done():
                    return
                if ours or time.monotonic() > patient_until:
                    more = self._step(deadline)
                    # Halved, so that a process that was stopped delays us by twice of it in all.
                    patience_s /= 2
                    patient_until = time.monotonic() + patience_s

    @contextlib.contextmanager
    def _in_turn(self, deadline: float, timeout_s: float, what: str) -> Iterator[None]:
        if not self.turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._late(what, timeout_s)
        try:
            yield
        finally:
            self.turn.release()

    @staticmethod
    def _late(what: str, timeout_s: float) -> Busy:
        return Busy(
            f"{what} took longer than {timeout_s:g} s; it goes on in the background: retry later"
        )


class OpenAgent:
    """
    A ledger, its writer, and who is using them.

    `embedded_otherwise` says why its vectors and the store's embedder do not belong together.
    """

    def __init__(
        self,
        ledger: Ledger,
        writer: Writer,
        archive: Archive,
        known: KnownNames,
        linking: Linking,
        nearest: Nearest,
        *,
        extracting: Extracting | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        self.failure: ElytronError | None = None  # that opening it met, if it may go better later
        self.ledger = ledger
        self.writer = writer
        self.archive = archive
        self.known = known
        self.nearest = nearest
        self.linking = Chase(
            linking.step,
            goal=lambda _until_s: linking.goal(),
            gate=Gate(ledger.folder / _LINKS_LOCK),
            patience_s=_LINKS_PATIENCE_S,
        )
        self.extracting = extracting
        self._facts_gate = Gate(ledger.folder / _FACTS_LOCK)
        self.embedding = embedding
        self.embedded = None
        if embedding is not None:
            self.embedded = Chase(
                embedding.step,
                goal=embedding.goal,
                gate=vectors_gate(ledger.folder),
                patience_s=_VECTORS_PATIENCE_S,
            )
        self.embedded_otherwise: str | None = None
        self.uses: weakref.WeakSet[Use] = weakref.WeakSet()
        self.ready = False
        self.aside = False  # it stands for one that is being deleted or renamed
        self.outdated = False  # nobody uses it any more: see `Ledger.is_outdated`
        self.reserving = False  # it may have a part of the store's budget
        self.admitted = False  # to write: it has that part

    def begin_use(self, use: Use) -> None:
        """From now on *use* keeps it from being put to rest."""
        self.uses.add(use)
        use.agent = self

    def open(self, *, create: bool) -> bool:
        """Open the ledger; False if there is none, and it is not to be made. Raises as `Ledger`."""
        opened = self.ledger.open(create=create)
        if opened:
            try:
                self.look_whose()
            except BaseException:
                self.ledger.close()
                raise
        return opened

    def learn(self, *, stopping: Callable[[], bool]) -> bool | None:
        """
        Link the next texts; if there are none, have some extracted. Whether there is more; None
        while another process is at it.
        """
        more = self.linking.step()
        if more or self.extracting is None:
            return more
        with self._facts_gate.passing() as ours:
            return self.extracting.step(stopping=stopping) or more if ours else None

    def look_whose(self) -> None:
        """
        Note whether the vectors held are of this store's embedder; again where they were not, since
        another program may have made them anew meanwhile.
        """
        if self.embedding is not None:
            self.embedded_otherwise = self.embedding.mismatch()

    def indexed_for(self, languages: str) -> str:
        """
        What its words are indexed for. If that is something else than *languages* as far as is
        known here, it is read anew, since another program may have indexed them anew meanwhile.
        """
        if self.ledger.languages == languages:
            return languages
        with self.ledger.reading() as db:
            return identity(db, self.ledger.source)[1]


def vectors_gate(folder: Path) -> Gate:
    """The gate of embedding for the agent in *folder*."""
    return Gate(folder / _VECTORS_LOCK)
