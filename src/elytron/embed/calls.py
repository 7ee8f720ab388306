"""
Calls: an embedder asked on threads of its own, each call under a deadline.

An embedder may be slow, hang, or be down. A caller never waits for it past its deadline; a call
that hangs keeps its thread until it ends, and when all threads are taken nothing more is asked. An
embedder that failed is left alone for a while, longer each time, so that questions are answered by
words at once. Threads are daemons: one that hangs does not keep the program from ending.
"""

import logging
import math
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elytron.embed.embedder import KINDS, Embedder
from elytron.errors import Busy, Closed, EmbedderUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger("elytron.embed")
_REST_S, _REST_MAX_S = 1.0, 60.0
_ASKED_WAIT_MAX_S = 3600.0
_QUESTIONS_MAX = 256  # whose vectors are remembered
_WAITING_MAX = 1000  # calls that wait for a thread


@dataclass(frozen=True, slots=True)
class CallCounts:
    """
    What the embedder did in this process. `last_error` is None once it answers again, `resting_s`
    for how long it is left alone now.
    """

    calls: int = 0
    texts: int = 0
    failures: int = 0
    last_error: str | None = None
    resting_s: float = 0.0


class _Call:
    """Texts to be embedded, and the future of their vectors."""

    __slots__ = ("begun", "ended", "future", "kind", "texts")

    def __init__(self, texts: list[str], kind: str) -> None:
        self.texts = texts
        self.kind = kind
        self.begun = self.ended = False  # a thread has taken it; the embedder has come back
        self.future: Future[NDArray[np.float32]] = Future()

    def settle(self, act: Callable[[], None]) -> None:
        with suppress(InvalidStateError):  # given up at the same moment
            act()


class Calls:
    """One embedder, as a whole store asks it. Safe for many threads."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        threads_max: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.embedder = embedder
        self._threads_max = threads_max
        self._clock_s = clock_s
        self._mutex = threading.Lock()
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._open: set[_Call] = set()  # asked and not ended, given up or not
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._calls = self._texts = self._failures = 0
        self._last_error: str | None = None
        # By kind: a question has less time, and may fail where documents do not.
        self._failed_in_row = dict.fromkeys(KINDS, 0)
        self._rest_until_s = dict.fromkeys(KINDS, 0.0)
        self._questions: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    @property
    def name(self) -> str:
        return self.embedder.name

    @property
    def dim(self) -> int | None:
        return self.embedder.dim

    @property
    def counts(self) -> CallCounts:
        rest_s = max(0.0, max(self._rest_until_s.values()) - self._clock_s())
        return CallCounts(self._calls, self._texts, self._failures, self._last_error, rest_s)

    def question(self, text: str, *, timeout_s: float) -> "NDArray[np.float32]":
        """The vector of a question, shape (dim,), remembered for the next time. As `embed`."""
        with self._mutex:
            known = self._questions.get(text)
            if known is not None:
                self._questions.move_to_end(text)
                return known
        vector: NDArray[np.float32] = self.embed([text], "query", timeout_s=timeout_s)[0]
        with self._mutex:
            self._questions[text] = vector
            while len(self._questions) > _QUESTIONS_MAX:
                self._questions.popitem(last=False)
        return vector

    def embed(
        self,
        texts: Sequence[str],
        kind: str,
        *,
        timeout_s: float,
        patience_s: float = math.inf,
        rested: bool = True,
    ) -> "NDArray[np.float32]":
        """
        The vectors of texts, shape (n, dim), rows of unit length.

        Args:
            patience_s: how long the caller waits, which is no failure of the embedder's.
            rested: not while it is left alone after a failure.

        Raises:
            Busy: the caller's patience was over before *timeout_s*.
            EmbedderUnavailable: it failed, is left alone, took longer than *timeout_s*, or all
                threads were taken for so long.
            Closed: the store is being closed.
        """
        if rested:
            self._check_rested(kind)
        call = _Call(list(texts), kind)
        self._begin(call)
        try:
            call.future.exception(max(0.0, min(timeout_s, patience_s)))
        except TimeoutError:
            late = self._late(call, timeout_s) if timeout_s <= patience_s else self._not_now()
            call.settle(lambda: call.future.set_exception(late))
        try:
            vectors = call.future.result()
        except EmbedderUnavailable as error:
            if call.begun:  # else it was not asked at all
                self._failed(error, kind)
            raise
        with self._mutex:
            self._calls += 1
            self._texts += len(texts)
            self._failed_in_row[kind], self._rest_until_s[kind] = 0, 0.0
            if not any(self._failed_in_row.values()):
                self._last_error = None
        return vectors

    def _check_rested(self, kind: str) -> None:
        rest_s = self._rest_until_s[kind] - self._clock_s()
        if rest_s > 0:
            raise EmbedderUnavailable(
                f"{self.name} failed ({self._last_error}); it is left alone for {rest_s:.0f} s"
                " more: retry later",
                wait_s=rest_s,
            )

    def _begin(self, call: _Call) -> None:
        with self._mutex:
            if self._closed:
                raise Closed("the store is being closed; nothing was embedded")
            given_up = sum([c.begun and c.future.done() and not c.ended for c in self._open])
            if given_up >= self._threads_max or self._queue.qsize() >= _WAITING_MAX:
                raise EmbedderUnavailable(
                    f"all {self._threads_max} threads are at work on calls of {self.name} that were"
                    f" given up, or {_WAITING_MAX} are waiting for them; retry later, or raise"
                    " `embed_threads`"
                )
            if len(self._threads) <= len(self._open) and len(self._threads) < self._threads_max:
                thread = threading.Thread(target=self._work, name="elytron-embed", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    if not self._threads:
                        raise EmbedderUnavailable(
                            f"{self.name} could not be called: {error}; retry later"
                        ) from error
                else:
                    self._threads.append(thread)
            self._open.add(call)
        self._queue.put(call)

    def _work(self) -> None:
        """A thread: one call after the other, until the store is closed."""
        while (call := self._queue.get()) is not None:
            try:
                self._answer(call)
            finally:
                with self._mutex:
                    self._open.discard(call)
            del call

    def _answer(self, call: _Call) -> None:
        call.begun = True
        if call.future.done():  # given up while it waited for a thread
            return
        try:
            try:
                vectors = self.embedder.embed(call.texts, call.kind)
            finally:
                call.ended = True
        except EmbedderUnavailable as error:
            failure: BaseException = error
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the call
            # What it says may hold the texts; and one of our own errors is of another store.
            failure = EmbedderUnavailable(f"{self.name} failed with {type(error).__name__}")
        else:
            call.settle(lambda: call.future.set_result(vectors))
            return
        call.settle(lambda: call.future.set_exception(failure))

    def _late(self, call: _Call, timeout_s: float) -> EmbedderUnavailable:
        if not call.begun:
            with self._mutex:
                self._open.discard(call)
            return EmbedderUnavailable(
                f"all {self._threads_max} threads were at work on other calls of {self.name} for"
                f" {timeout_s:g} s; retry later, or raise `embed_threads`"
            )
        return EmbedderUnavailable(
            f"{self.name} did not answer within {timeout_s:g} s; it is tried again, or raise"
            " `embed_timeout_s`, for questions `embed_query_timeout_s`"
        )

    def _not_now(self) -> Busy:
        return Busy(f"{self.name} has not answered yet; it goes on in the background: retry later")

    def _failed(self, error: EmbedderUnavailable, kind: str) -> None:
        """Count a failure, and leave the embedder alone; not for one question, that may be odd."""
        _log.info("an embedder failed: %s", error)
        with self._mutex:
            self._failures += 1
            self._last_error = str(error)
            in_row = self._failed_in_row[kind]
            rest_s = min(_REST_MAX_S, _REST_S * 2 ** min(in_row, 20))
            if kind == "query" and not in_row:
                rest_s = 0.0
            rest_s = min(_ASKED_WAIT_MAX_S, max(rest_s, error.wait_s or 0.0))
            self._failed_in_row[kind] += 1
            self._rest_until_s[kind] = self._clock_s() + rest_s

    def abandon(self) -> None:
        """Let the threads end without waiting for them."""
        for _ in self._threads:
            self._queue.put(None)

    def close(self) -> None:
        """Wake who waits, and let the threads end; one that hangs is not waited for. Idempotent."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            waiting = list(self._open)
            threads = list(self._threads)
        for call in waiting:
            call.settle(
                lambda call=call: call.future.set_exception(  # type: ignore[misc]
                    Closed("the store was closed while texts were being embedded")
                )
            )
        for _ in threads:
            self._queue.put(None)
        if not waiting:
            for thread in threads:
                thread.join(1.0)
        self.embedder.close()
