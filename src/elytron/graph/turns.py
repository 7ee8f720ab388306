"""Turns: many at once, or one alone; whoever wants to be alone goes before those who come later."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from elytron.errors import Busy


class Turns:
    """A lock for readers and a writer, with deadlines on the monotonic clock."""

    def __init__(self, what: str) -> None:
        self._what = what  # for the error
        self._changed = threading.Condition()
        self._together = 0
        self._alone = False
        self._wish_alone = 0

    @contextlib.contextmanager
    def together(self, deadline: float) -> Iterator[None]:
        """
        Beside others.

        Raises:
            Busy: one was alone, or waited to be, until *deadline*.
        """
        with self._changed:
            self._wait(lambda: not self._alone and not self._wish_alone, deadline)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self, deadline: float) -> Iterator[None]:
        """
        With nobody else.

        Raises:
            Busy: somebody was there until *deadline*.
        """
        with self._changed:
            self._wish_alone += 1
            try:
                self._wait(lambda: not self._alone and not self._together, deadline)
            finally:
                self._wish_alone -= 1
                self._changed.notify_all()
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone_now(self) -> Iterator[bool]:
        """With nobody else if that can be at once; whether it can."""
        with self._changed:
            free = not self._alone and not self._together and not self._wish_alone
            self._alone = self._alone or free
        try:
            yield free
        finally:
            if free:
                with self._changed:
                    self._alone = False
                    self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool], deadline: float) -> None:
        if not self._changed.wait_for(ready, max(0.0, deadline - time.monotonic())):
            raise Busy(f"{self._what} stayed in use; try again, or wait longer")
