"""
Streams: answers in lines, while the work goes on.

A verb that may take long answers with JSON Lines where that is asked for: `{"progress": [...]}`
while it runs, an empty line where there is nothing to tell so that nobody gives up waiting, and at
the end `{"result": ...}` or `{"error": ...}`. Without an end the outcome is unknown.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import StreamingResponse

from elytron.errors import ElytronError
from elytron.faces.http import problems
from elytron.faces.http.asked import encoded

BEAT_S = 5.0  # between two lines, at most


def line(value: Any) -> bytes:
    """One line of an answer."""
    return encoded(value) + b"\n"


class _Gone(Exception):
    """Nobody listens any more, so the work ends between two of its steps."""


class _Progress:
    """The latest that a running verb told, from its thread to the loop; older news is dropped."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._mutex = threading.Lock()
        self._latest: tuple[int, ...] | None = None
        self.gone = False
        self.news = asyncio.Event()

    def tell(self, *counts: int) -> None:
        if self.gone:
            raise _Gone
        with self._mutex:
            first, self._latest = self._latest is None, counts
        if first:
            self._loop.call_soon_threadsafe(self.news.set)

    def take(self) -> tuple[int, ...] | None:
        self.news.clear()
        with self._mutex:
            latest, self._latest = self._latest, None
        return latest


async def progressing(verb: Callable[..., Any], arguments: dict[str, Any]) -> AsyncIterator[bytes]:
    """Run a verb; the lines of its answer."""
    progress = _Progress()
    if "on_progress" in inspect.signature(verb).parameters:
        arguments = {**arguments, "on_progress": progress.tell}
    task = asyncio.ensure_future(verb(**arguments))
    task.add_done_callback(lambda _task: progress.news.set())
    try:
        while not task.done():
            try:
                await asyncio.wait_for(progress.news.wait(), BEAT_S)
            except TimeoutError:
                yield b"\n"
                continue
            counts = progress.take()
            if counts is not None:
                yield line({"progress": counts})
        yield _end(task)
    finally:
        progress.gone = True
        if not task.done():
            task.add_done_callback(_look)


def _end(task: "asyncio.Future[Any]") -> bytes:
    try:
        return line({"result": task.result()})
    except ElytronError as error:
        return line(problems.body(error))


def _look(task: "asyncio.Future[Any]") -> None:
    """Take note of how it ended, or asyncio would complain that nobody did."""
    if not task.cancelled():
        task.exception()


class Stream(StreamingResponse):
    """A stream that tells when it is over, also if it never began."""

    def __init__(
        self, content: AsyncIterator[bytes], over: Callable[[], None], *, media_type: str
    ) -> None:
        super().__init__(content, headers={"Cache-Control": "no-store"}, media_type=media_type)
        self._over = over

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()
