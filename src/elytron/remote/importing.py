"""Importing: any number of messages, sent in parts, and one report of all of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter

from elytron.errors import ElytronError, InvalidArgument
from elytron.records import BadLine, ImportReport, Message
from elytron.remote.admitting import Admitting
from elytron.remote.sending import line

REPORT: "TypeAdapter[ImportReport]" = TypeAdapter(ImportReport)
_PART_MAX = 500  # messages
_PART_MAX_BYTES = 1 << 20
_BAD_MAX = 1000  # bad lines that are listed; the rest are counted
_UNLISTED = "bad lines that are not listed"


class Import:
    """Use once. `send` sends one part, as lines, and returns what was done with it."""

    def __init__(
        self,
        agent: str,
        send: Callable[[bytes, bool], ImportReport],
        admitting: Admitting,
        *,
        skip_bad: bool,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self._agent = agent
        self._send = send
        self._admitting = admitting
        self._skip_bad = skip_bad
        self._on_progress = on_progress
        self._part: list[bytes] = []
        self._part_bytes = 0
        self._imported = self._held = self._refused = 0
        self._bad: list[BadLine] = []
        self._left_out: dict[str, int] = {}

    def run(self, messages: Iterable[Mapping[str, Any] | Message]) -> ImportReport:
        """Send them all; `Agent.import_` says what it raises."""
        for number, message in enumerate(messages, 1):
            place = number
            if isinstance(message, Mapping) and "line" in message:
                place = message["line"]
                message = {name: value for name, value in message.items() if name != "line"}
            try:
                (told,) = self._admitting.many([message])
            except InvalidArgument as error:
                reason = str(error).removeprefix("message 0: ")
                self._send_part()
                if not self._skip_bad:
                    raise InvalidArgument(f"line {place}: {reason}. {self._so_far()}") from error
                self._refuse(BadLine(place, reason))
                continue
            sent = line({**told, "line": place})
            full = self._part_bytes + len(sent) > _PART_MAX_BYTES
            if self._part and (full or len(self._part) == _PART_MAX):
                self._send_part()
            self._part.append(sent)
            self._part_bytes += len(sent)
        self._send_part()
        unlisted = self._refused - len(self._bad)
        if unlisted:
            self._left_out[_UNLISTED] = unlisted
        return ImportReport(
            self._agent, self._imported, self._held, tuple(self._bad), self._left_out or None
        )

    def _send_part(self) -> None:
        part, self._part, self._part_bytes = self._part, [], 0
        if not part:
            return
        try:
            report = self._send(b"".join(part), self._skip_bad)
        except ElytronError as error:
            if not (self._imported or self._held):
                raise
            raise error.saying(f"{error}. Before these: {self._so_far()}") from error
        self._imported += report.imported
        self._held += report.already_held
        for bad in report.bad:
            self._refuse(bad)
        for reason, count in (report.left_out or {}).items():
            if reason == _UNLISTED:
                self._refused += count
            else:
                self._left_out[reason] = self._left_out.get(reason, 0) + count
        if self._on_progress is not None:
            self._on_progress(self._imported + self._held + self._refused)

    def _refuse(self, bad: BadLine) -> None:
        self._refused += 1
        if len(self._bad) < _BAD_MAX:
            self._bad.append(bad)

    def _so_far(self) -> str:
        return f"{self._imported} messages were imported and {self._held} were held already"
