"""Alarms: what the server tells of limits, listened to while there are hooks."""

import logging
import threading
from collections.abc import Callable, Iterator

from pydantic import TypeAdapter

from elytron.errors import ElytronError, InvalidArgument
from elytron.remote import answers
from elytron.remote.connection import Connection
from elytron.reports import Alarm

HOOKS_MAX = 100
_INTERVAL_S = 60  # between two looks at the usage, which nobody here reads
_END_S = 5  # for the hook under way, when it is closed
_PAUSE_S = 5  # before listening again after the connection broke
_ALARM: "TypeAdapter[Alarm]" = TypeAdapter(Alarm)

log = logging.getLogger("elytron.remote")


class Alarms:
    """The hooks of one connection, and the thread that listens for them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._mutex = threading.Lock()
        self._hooks: list[Callable[[Alarm], None]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, hook: Callable[[Alarm], None]) -> None:
        """
        Have *hook* called from now on.

        Raises:
            InvalidArgument: there are as many as there may be.
        """
        with self._mutex:
            if len(self._hooks) >= HOOKS_MAX:
                raise InvalidArgument(f"there are {HOOKS_MAX} hooks, the most there may be")
            self._hooks.append(hook)
            if self._thread is None:
                thread = threading.Thread(target=self._listen, name="elytron-alarms", daemon=True)
                thread.start()
                self._thread = thread

    def close(self) -> None:
        """End the thread, if there is one; the connection has to be closed before."""
        self._stop.set()
        with self._mutex:  # one that is being started is waited for, too
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END_S)

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                params = {"interval_s": str(_INTERVAL_S)}
                with self._connection.lines(
                    "events",
                    writes=False,
                    method="GET",
                    params=params,
                    kind="text/event-stream",
                    beats=True,
                    endless=True,
                ) as lines:
                    self._read(lines)
            except ElytronError as error:
                log.info("not listening for alarms: %s", error.code)
            self._stop.wait(_PAUSE_S)

    def _read(self, lines: Iterator[bytes]) -> None:
        event = b""
        for line in lines:
            if self._stop.is_set():
                return
            name, _, value = line.partition(b":")
            if name == b"event":
                event = value.strip()
            elif name == b"data" and event == b"alarm":
                url = self._connection.url
                self._tell(answers.as_asked(url, "events", _alarm, value, writes=False))

    def _tell(self, alarm: Alarm) -> None:
        for hook in tuple(self._hooks):
            try:
                hook(alarm)
            except Exception:
                log.exception("a hook for alarms failed")


def _alarm(data: bytes) -> Alarm:
    return _ALARM.validate_python(answers.told(data))
