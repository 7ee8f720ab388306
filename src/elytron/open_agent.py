"""
Open agent: one agent's ledger with all that works on it, and who is using it.
"""

import math
import threading
import time
import weakref
from collections.abc import Callable

from elytron.archive import Archive
from elytron.concepts.known import KnownNames
from elytron.errors import Busy
from elytron.ledger.sqlite import Ledger
from elytron.recall.nearest import Nearest
from elytron.upkeep.embedding import Embedding
from elytron.upkeep.extracting import Extracting
from elytron.upkeep.linking import Linking
from elytron.write.writer import Writer


class Use:
    """
    One use of an agent, kept by whoever has it.

    Forgotten, because Ctrl-C struck just before it was given back, it ends with its owner.
    """

    __slots__ = ("__weakref__",)


class Chase:
    """Work that follows what is saved, step by step: one thread at a time."""

    def __init__(self, step: Callable[[float], bool]) -> None:
        """
        Args:
            step: does a bounded part, and waits for others no longer than to a time on the
                monotonic clock; whether there may be more.
        """
        self._step = step
        self.turn = threading.Lock()

    def step(self) -> bool:
        """Do one part, when it is our turn; whether there may be more."""
        with self.turn:
            return self._step(math.inf)

    def to_end(self, *, timeout_s: float, what: str) -> None:
        """
        Do all that is to be done now.

        Raises:
            Busy: that took longer than *timeout_s*; what is done stays done.
        """
        deadline = time.monotonic() + timeout_s
        more = True
        while more:
            if not self.turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise self._late(what, timeout_s)
            try:
                more = self._step(deadline)
            finally:
                self.turn.release()
            if more and time.monotonic() > deadline:
                raise self._late(what, timeout_s)

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
        self.ledger = ledger
        self.writer = writer
        self.archive = archive
        self.known = known
        self.nearest = nearest
        self.linking = Chase(lambda _until_s: linking.step())
        self.extracting = extracting
        self.embedding = embedding
        self.embedded = None if embedding is None else Chase(embedding.step)
        self.embedded_otherwise: str | None = None
        self.uses: weakref.WeakSet[Use] = weakref.WeakSet()
        self.ready = False
        self.admitted = False  # to write: it has its part of the store's budget

    def open(self, *, create: bool) -> bool:
        """Open the ledger; False if there is none, and it is not to be made. Raises as `Ledger`."""
        opened = self.ledger.open(create=create)
        if opened:
            self.look_whose()
        return opened

    def look_whose(self) -> None:
        """Note whether the vectors held are of this store's embedder."""
        if self.embedding is not None:
            self.embedded_otherwise = self.embedding.mismatch()
