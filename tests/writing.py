"""
A writer on a pretended disk, for the tests of the writer.

The target is a list that can be made to block: it stands for the disk, not for the store. Every
wait is bounded; whether somebody waits is asked of the writer, not guessed from the time.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from elytron import Conflict
from elytron.write.queue import Quota
from elytron.write.writer import Writer

WAIT_S = 60


@dataclass(frozen=True)
class Item:
    """An op that adds its name; `bad` ones are refused by the target."""

    name: str
    size_bytes: int = 1
    items: int = 1
    bad: bool = False


@dataclass
class Disk:
    """Keeps the batches; blocks in each commit while `gate` is shut, having said `entered`."""

    batches: list[list[str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    error: BaseException | None = None

    def commit(self, ops: list[Item], deadline: float) -> list[Any]:
        self.entered.release()
        assert self.gate.wait(WAIT_S)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.batches.append([op.name for op in ops if not op.bad])
        return [Conflict(op.name) if op.bad else op.name for op in ops]

    def checkpoint_due(self) -> bool:
        return False

    def checkpoint(self) -> None:
        raise AssertionError("none was due")

    @property
    def written(self) -> list[str]:
        return [name for batch in self.batches for name in batch]


def until(true: Callable[[], bool]) -> None:
    """Give way to other threads until something is true."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0)


def spawn(work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
    """Work on a thread that cannot keep the interpreter from ending, should it be stuck."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments))
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks the future
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class Bench:
    """A writer on a disk, with its quota."""

    def __init__(
        self,
        *,
        items_max: int = 100,
        bytes_max: int = 1000,
        batch_max: int = 100,
        batch_max_bytes: int = 1000,
        timeout_s: float = WAIT_S,
    ) -> None:
        self.disk = Disk()
        self.quota = Quota(items_max=items_max, bytes_max=bytes_max)
        self.writer = Writer(
            self.disk,  # type: ignore[arg-type]
            quota=self.quota,
            batch_max=batch_max,
            batch_max_bytes=batch_max_bytes,
            timeout_s=timeout_s,
            run_soon=lambda work: bool(spawn(work)) or True,
        )

    def call(self, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call in a thread of its own; a future of what comes of it."""
        return spawn(self.writer.call, Item(*args, **kwargs))

    def until(self, true: Callable[[], bool]) -> None:
        until(true)

    def lead(self) -> "Future[Any]":
        """A first caller, who is in the middle of a commit when this returns."""
        first = self.call("first")
        assert self.disk.entered.acquire(timeout=WAIT_S)
        return first
