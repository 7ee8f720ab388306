"""
Pouring: a file of messages into a memory, with progress; then what came of it.

What `elytron import` and `elytron demo` have in common.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from elytron import importers
from elytron.faces.asking import Question
from elytron.faces.visible import clip_name
from elytron.records import ImportReport
from elytron.store import Store

_NAME_SHOWN = 30  # characters of a file's name beside the bar

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Poured:
    """What an import did and how long it took, from the first byte read to the last commit."""

    file: str
    agents: tuple[ImportReport, ...]
    imported: int
    seconds: float
    messages_per_second: float | None  # None if nothing was new

    @property
    def what(self) -> str:
        """What was imported, in words."""
        return next((report.what for report in self.agents), "messages")


def pour(
    store: Store,
    path: Path,
    *,
    agent: str | None = None,
    format: str = "auto",
    skip_bad: bool = False,
    silent: bool = False,
) -> Poured:
    """Import a file, with a progress bar on stderr unless *silent*."""

    def run(on_progress: OnProgress | None) -> Poured:
        started = time.perf_counter()
        reports = importers.import_file(
            store, path, agent=agent, format=format, skip_bad=skip_bad, on_progress=on_progress
        )
        seconds = time.perf_counter() - started
        imported = sum(report.imported for report in reports)
        rate = imported / seconds if imported and seconds else None
        return Poured(str(path), tuple(reports), imported, seconds, rate)

    if silent:
        return run(None)
    from elytron.faces.terminal import progress

    with progress(f"importing {clip_name(path.name, _NAME_SHOWN)}") as on_progress:
        return run(on_progress)


def carried_questions(path: Path, limit: int, *, agent: str | None = None) -> list[Question]:
    """The first questions that a file brings with it, for the *agent* it was poured into."""
    if not limit:
        return []
    return [Question(*found) for found in importers.questions(path, limit, agent=agent)]
