"""Archived messages to test with, and an `os` that fails or dies at its nth call."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from elytron.archive import Archive, Archived, Entry
from elytron.records import Message

FIRST = datetime(2026, 3, 2, 18, 4, 10, tzinfo=UTC)
WRITING = ("open", "write", "fsync", "replace", "mkdir", "unlink")


def made(number: int, **changes: Any) -> Archived:
    """The message with this number; ten make a session."""
    at = FIRST + timedelta(seconds=number)
    message = Message(
        id=changes.pop("id", f"m{number}"),
        role="user",
        content=changes.pop("content", f"What grows in field {number}?"),
        at=changes.pop("at", at),
        session=f"s{number // 10}",
        user="alice" if number % 2 else None,
        metadata=changes.pop("metadata", {}),
        position=number % 10,
    )
    session_key = number // 10 + 1
    answers = number if number % 10 else None
    archived = Archived(
        number + 1, message, session_key, answers, 1_772_000_000_000_000, "disabled"
    )
    return archived._replace(**changes)


def some(start: int, end: int) -> list[Archived]:
    return [made(number) for number in range(start, end)]


def stored(archive: Archive, messages: list[Archived]) -> list[Entry]:
    """Write and publish."""
    entries = archive.write(messages)
    archive.publish(add=entries)
    return entries


def held(folder: Path) -> dict[str, Archived]:
    """All that somebody who opens the archive now can read, by id."""
    archive = Archive(folder, timeout_s=5)
    return {
        archived.message.id: archived
        for entry in archive.manifest().entries
        for archived in archive.read(entry)
    }


class Killed(BaseException):
    """The process is dead: nothing that it would do afterwards happens."""


class Calls:
    """Counts calls of `os` that write, and fails the nth, or dies there."""

    def __init__(self, nth: int, *, dies: bool = False) -> None:
        self.nth, self.dies = nth, dies
        self.count = 0
        self.trace: list[tuple[str, str]] = []  # what was called, and on which file
        self._names: dict[int, str] = {}

    @property
    def fired(self) -> bool:
        return self.count >= self.nth

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in WRITING:
                patch.setattr(os, name, self._counted(name, getattr(os, name)))
            yield

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            here = self.count == self.nth
            if here and name == "write":  # as on a disk that fills up: what fitted is there
                call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            if self.dies and self.fired:
                raise Killed
            if here:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            result = call(*arguments, **named)
            self._note(name, arguments, result)
            return result

        return counted

    def _note(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        if name == "open":
            self._names[result] = Path(arguments[0]).name
        first = arguments[-1] if name == "replace" else arguments[0]
        known = self._names.get(first, "") if isinstance(first, int) else Path(first).name
        self.trace.append((name, known))
