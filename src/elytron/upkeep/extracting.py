"""
Extracting: the caller's own `extract` function, run over messages in the background.

One message a step, in the order of arrival, those of `user` and `assistant`. Nobody waits for it:
it may be slow, fail, or hang. A message that fails is tried three times and then passed over; if
three in a row are, it is probably the function and not the messages, and each of the next is tried
ten times. Where the function was not given for a while, it goes on where it was.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

from elytron.concepts import extraction
from elytron.concepts.extraction import Extract, Extracted
from elytron.config import Config
from elytron.errors import Corrupt, Unavailable
from elytron.ledger import rows, texts
from elytron.ledger.database import Database
from elytron.ledger.learned import (
    BY_EXTRACTOR,
    LearnedRelation,
    Link,
    Linked,
    LinkResult,
    Mention,
    NewConcept,
)
from elytron.ledger.ledgers import Ledger
from elytron.ledger.schema import EXTRACTED, MESSAGE
from elytron.ledger.texts import Text
from elytron.records import ExtractionUsage

READER = "extracts"
TIMEOUT_S = 60.0
_log = logging.getLogger("elytron.upkeep")
_PAGE = 100
_TRIES, _PATIENT_TRIES = 3, 10
_PASSED_MAX = 3
_HANGING_MAX = 2  # calls of a store that were given up: each keeps a thread
_LOOK_AGAIN_S = 0.1  # whether the store is being closed
_SPEAKERS = ("user", "assistant")


class Hanging:
    """
    The calls of one store's function that have not ended. Kept apart from the agents, which are
    put to rest and opened again while a call of theirs still hangs.
    """

    def __init__(self) -> None:
        self.calls: dict[str, Future[Any]] = {}

    def check(self, agent: str) -> None:
        """
        To be called before a call for an agent, one at a time.

        Raises:
            Unavailable: the last one for it has not ended, or too many for others.
        """
        self.calls = {name: call for name, call in self.calls.items() if not call.done()}
        if agent in self.calls:
            raise Unavailable("`extract` is still at work on a message that it was given up for")
        if len(self.calls) >= _HANGING_MAX:
            raise Unavailable(
                f"`extract` is still at work on {len(self.calls)} messages of others that it was"
                " given up for"
            )

    def note(self, agent: str, call: "Future[Any]") -> None:
        """A call has begun."""
        self.calls[agent] = call


class Extracting:
    """One agent's extraction. One step at a time; another process may be at it too."""

    def __init__(
        self,
        ledger: Ledger,
        write: Callable[[Link], LinkResult],
        extract: Extract,
        *,
        config: Config,
        timeout_s: float = TIMEOUT_S,
        hanging: Hanging | None = None,
    ) -> None:
        """
        Args:
            write: applies an op durably.
            extract: text -> concepts and relations, see `concepts.extraction.checked`.
            timeout_s: how long one call may take; then it counts as failed, and nothing else is
                asked of the function for this agent before it has ended.
            hanging: the calls that have not ended, of all agents of the store.
        """
        self._ledger = ledger
        self._write = write
        self._extract = extract
        self._timeout_s = timeout_s
        self._limit_bytes = config.wal_limit_bytes // 2
        self.counts = ExtractionUsage()
        self._hanging = hanging or Hanging()
        self._tried: tuple[int, int] = (0, 0)  # (message, how often)
        self._passed_in_row = 0

    def step(self, *, stopping: Callable[[], bool] = lambda: False) -> bool:
        """
        Extract from the next message; returns whether there may be more.

        Args:
            stopping: asked meanwhile; once it says so, the call is not waited for.

        Raises:
            Unavailable: the function failed, hangs, or no thread could be begun for it. To be
                called again, after a while.
            OverBudget, Busy, and what else a write may raise: nothing was changed.
        """
        self._hanging.check(self._ledger.name)
        with self._ledger.reading(snapshot=True) as db:
            before = texts.place(db, READER)
            after, text = self._next(db, before)
        if text is None:
            if after > before:
                self._write(Link(READER, before, after))
            return False
        future = self._call(text)
        if not self._ended(future, stopping):
            if stopping():
                return False
            return self._failed(before, after, text, "TimeoutError")
        error = future.exception()
        if error is not None:
            return self._failed(before, after, text, type(error).__name__)
        try:
            answer = extraction.checked(future.result())
        except BaseException as error:  # noqa: BLE001 - of the answer's own methods; counted, told
            return self._failed(before, after, text, type(error).__name__)
        self._passed_in_row, self._tried = 0, (0, 0)
        if answer.wrong:
            _log.info("of what `extract` read in message %s, left out: %s", text.key, answer.wrong)
        self.counts = replace(
            self.counts,
            messages=self.counts.messages + 1,
            left_out=self.counts.left_out + len(answer.wrong),
        )
        try:
            self._write(_op(before, after, text, answer, limit_bytes=self._limit_bytes))
        except Corrupt as error:  # of a concept that it names; the others' turn comes
            _log.warning("what `extract` read in message %s is not kept: %s", text.key, error)
            self._pass_over(before, after)
        return True

    def _next(self, db: Database, place: int) -> tuple[int, Text | None]:
        """The next message and its number; or none, and the number that was looked up to."""
        while True:
            changed = texts.changed(db, after=place, limit=_PAGE)
            for seq, kind, key in changed.found:
                # One that was edited since is told of again: a call saved.
                if kind != MESSAGE or texts.edited(db, key, after=seq):
                    continue
                found = texts.texts(db, [(kind, key)], self._ledger.source)
                if found and found[0].role in _SPEAKERS and found[0].content.strip():
                    return seq, found[0]
            if len(changed.found) < _PAGE:
                # What others write is passed in silence: an idle memory is not written to.
                return (changed.found[-1][0] if changed.found else place), None
            place = changed.reached

    def _call(self, text: Text) -> "Future[Any]":
        """
        Have the function called, in a thread of its own: a call that hangs must not keep the
        store from being closed.
        """
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(self._extract(text.content))
            except BaseException as error:  # noqa: BLE001 - handed to whoever looks at the future
                future.set_exception(error)

        try:
            threading.Thread(target=run, name="elytron-extract", daemon=True).start()
        except RuntimeError as error:
            raise Unavailable(f"`extract` could not be called: {error}") from error
        self._hanging.note(self._ledger.name, future)  # it began: else nothing would ever end it
        return future

    def _ended(self, future: "Future[Any]", stopping: Callable[[], bool]) -> bool:
        """Wait for a call; False if it takes too long, or the store is being closed."""
        deadline = time.monotonic() + self._timeout_s
        while not future.done() and not stopping():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            wait([future], timeout=min(_LOOK_AGAIN_S, left_s))
        return future.done()

    def _failed(self, before: int, after: int, text: Text, why: str) -> bool:
        """Count a failure; pass the message over, or say that it is to be tried again."""
        times = self._tried[1] + 1 if self._tried[0] == text.key else 1
        self._tried = (text.key, times)
        tries = _TRIES if self._passed_in_row < _PASSED_MAX else _PATIENT_TRIES
        self.counts = replace(self.counts, failures=self.counts.failures + 1, last_error=why)
        if times < tries:
            raise Unavailable(
                f"`extract` failed with {why} on message {text.key}, {times} of {tries} times; it"
                " is tried again"
            )
        _log.warning(
            "`extract` failed with %s on message %s, %s times; it is passed over",
            why, text.key, times,
        )  # fmt: skip
        self._passed_in_row, self._tried = self._passed_in_row + 1, (0, 0)
        self._pass_over(before, after)
        return True

    def _pass_over(self, before: int, after: int) -> None:
        self.counts = replace(self.counts, passed_over=self.counts.passed_over + 1)
        self._write(Link(READER, before, after))


def _op(before: int, after: int, text: Text, answer: Extracted, *, limit_bytes: int) -> Link:
    """What to write for an answer: as much of it as fits into one commit, relations last."""
    most = len(answer.concepts) + len(answer.relations)
    while True:
        concepts = answer.concepts[:most]
        held = {concept.folded for concept in concepts}
        relations = [one for one in answer.relations if {one.source, one.target} <= held]
        relations = relations[: max(0, most - len(concepts))]
        op = Link(
            READER,
            before,
            after,
            sources=(
                Linked(
                    text.key,
                    text.kind,
                    text.checksum,
                    tuple([Mention(c.folded, c.confidence, BY_EXTRACTOR) for c in concepts]),
                    replaces=(BY_EXTRACTOR,),
                ),
            ),
            concepts=tuple(
                [
                    NewConcept(c.name, c.folded, EXTRACTED, c.confidence, c.type, c.description)
                    for c in concepts
                ]
            ),
            relations=tuple(
                [
                    LearnedRelation(
                        one.source,
                        one.relation,
                        one.target,
                        text.key,
                        one.strength,
                        None if one.valid_from is None else rows.to_us(one.valid_from),
                    )
                    for one in relations
                ]
            ),
            extracted=(text.key,),
        )
        if op.size_bytes <= limit_bytes or not most:
            return op
        most //= 2
