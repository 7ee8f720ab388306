"""
One import into one agent: gathers messages into commits, and keeps the report.

Nothing half-imported goes unsaid: an import that stops says how many it had saved, and since
each message has its id, running it again doubles nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from elytron.errors import Conflict, ElytronError, InvalidArgument
from elytron.records import BadLine, Draft, ImportReport, Message, Receipt

_COMMIT_MAX = 500  # messages
_BAD_MAX = 1000  # of the bad lines, how many are listed; the rest are counted


class ImportRun:
    """Use once. `admit` checks messages, `write` commits drafts, all or none."""

    def __init__(
        self,
        *,
        admit: Callable[[tuple[Mapping[str, Any] | Message, ...]], tuple[Draft, ...]],
        write: Callable[[tuple[Draft, ...]], list[Receipt]],
        commit_max_bytes: int,
        commit_max: int,
        skip_bad: bool,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self._admit = admit
        self._write = write
        self._commit_max_bytes = commit_max_bytes
        self._commit_max = min(_COMMIT_MAX, commit_max)
        self._skip_bad = skip_bad
        self._on_progress = on_progress
        self._pending: list[tuple[int, Draft]] = []
        self._pending_bytes = 0
        self._imported = self._held = self._refused = 0
        self._bad: list[BadLine] = []  # the first `_BAD_MAX`

    def run(self, agent: str, messages: Iterable[Mapping[str, Any] | Message]) -> ImportReport:
        """Save them all; `Agent.import_` says what it raises."""
        for number, message in enumerate(messages, 1):
            line = number
            if isinstance(message, Mapping) and "line" in message:
                line = message["line"]
                message = {name: value for name, value in message.items() if name != "line"}
            draft: Draft | None
            try:
                (draft,) = self._admit((message,))
            except InvalidArgument as error:
                reason = str(error).removeprefix("message 0: ")
                draft = None
            if draft is None:
                self._refuse(line, reason)
                continue
            full = self._pending_bytes + draft.size_bytes > self._commit_max_bytes
            if full or len(self._pending) == self._commit_max:
                self._commit()
            self._pending.append((line, draft))
            self._pending_bytes += draft.size_bytes
        self._commit()
        unlisted = self._refused - len(self._bad)
        left_out = {"bad lines that are not listed": unlisted} if unlisted else None
        return ImportReport(agent, self._imported, self._held, tuple(self._bad), left_out)

    def _commit(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if not pending:
            return
        try:
            refused = self._save(pending)
        except ElytronError as error:
            raise error.saying(f"{error}. {self._so_far()}") from error
        for line, reason in refused:
            self._refuse(line, reason)
        if self._on_progress is not None:
            self._on_progress(self._imported + self._held + self._refused)

    def _save(self, pending: list[tuple[int, Draft]]) -> list[tuple[int, str]]:
        """Save them, in one commit if that goes; which could not be, and why."""
        try:
            self._count(self._write(tuple([draft for _, draft in pending])))
        except Conflict:
            refused = []
            for line, draft in pending:  # one of them; one by one, it is known which
                try:
                    self._count(self._write((draft,)))
                except Conflict as error:
                    refused.append((line, str(error)))
            return refused
        return []

    def _count(self, receipts: list[Receipt]) -> None:
        new = sum([receipt.new for receipt in receipts])
        self._imported += new
        self._held += len(receipts) - new

    def _refuse(self, line: int, reason: str) -> None:
        if self._skip_bad:
            self._refused += 1
            if len(self._bad) < _BAD_MAX:
                self._bad.append(BadLine(line, reason))
            return
        self._skip_bad = True  # so that a second bad one among the pending cannot hide this one
        self._commit()
        raise InvalidArgument(f"line {line}: {reason}. {self._so_far()}, or skip what is bad")

    def _so_far(self) -> str:
        return (
            f"{self._imported} messages were imported before it and {self._held} were held"
            " already; mend it and import again (nothing is doubled)"
        )
