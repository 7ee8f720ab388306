"""
Kuzu: the memories of a Locrits program, into agents.

    for found in find("data/memory"):
        migrate(store, found)

What is carried is decided here; `kuzu_source.py` reads, `kuzu_rows.py` says what each row becomes.
The source is opened read-only and left as it was. Ids are kept, so migrating again doubles nothing,
and goes on where it was stopped.
"""

import zoneinfo
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from elytron.agent import Agent
from elytron.errors import Conflict, ElytronError, InvalidArgument
from elytron.importers import kuzu_rows as rows
from elytron.importers import migrated
from elytron.importers.kuzu_concepts import Concepts
from elytron.importers.kuzu_source import ForeignDatabase, Found, find
from elytron.importers.passes import BAD_MAX, BEYOND
from elytron.records import BadLine
from elytron.store import Store

__all__ = ["Found", "Migration", "find", "migrate", "zone_named"]

_COUNTED = ("Message", "Memory", "Session", "Concept", "Topic")  # what progress counts
_TOO_LONG = "texts of over 8,388,608 characters"

OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Migration:
    """
    What came of one database.

    `imported` and `already_held` are messages; `memories`, `concepts` and `relations` those that
    are new; `mentions` all that messages make. `line` in `bad` is the place in the order of their
    times (messages, memories and sessions) or ids. `left_out` counts, by reason, what the database
    holds but a memory does not take.
    """

    agent: str
    source: str
    imported: int = 0
    already_held: int = 0
    memories: int = 0
    concepts: int = 0
    mentions: int = 0
    relations: int = 0
    bad: tuple[BadLine, ...] = ()
    left_out: Mapping[str, int] | None = None


def zone_named(name: str | None) -> tzinfo | None:
    """
    The zone of this name, such as Europe/Paris; None for the local one.

    Raises:
        InvalidArgument: there is none of this name.
    """
    if name is None:
        return None
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidArgument(
            f"{name!r:.80} is no time zone; give one as Europe/Paris, or UTC"
        ) from error


def migrate(
    store: Store,
    found: Found,
    *,
    agent: str | None = None,
    zone: tzinfo | None = None,
    python: str | None = None,
    on_progress: OnProgress | None = None,
) -> Migration:
    """
    Carry one database over. Running it again doubles nothing.

    Args:
        found: as `find` gives them.
        agent: into this agent, rather than the one named as the database's folder.
        zone: of the times in the database, which have none; the local one if None.
        python: an interpreter that has `kuzu`, rather than this one.
        on_progress: called with (rows dealt with, rows of the database).

    Carried are messages with role, text, session, user, time and metadata; memories; what
    sessions were called, as memories of the kind `session`; concepts and topics, what mentions
    them, and their relations. Answers are linked to what they answer anew. Embeddings are left out.

    Raises:
        Busy: the database is open in another process.
        InvalidArgument: it is no database of Kuzu 0.11 or of no Locrits program; it says which.
        Corrupt, Unavailable, DiskFull: as they say. What was carried until then is kept.
        GraphUnavailable: kuzu is not installed.
        As `Agent.save`: with how much was carried before.

    Some 2,000 messages a second; holds a page of 1,000 of them.
    """
    name = found.agent if agent is None else agent
    run = _Run(store.agent(name), found, zone, on_progress)
    mark = migrated.mark_of(found.path)
    with ForeignDatabase(found.path, python=python) as database:
        for line in database.lines():
            try:
                run.take(line)
            except ElytronError as error:
                raise error.saying(f"{error}. {run.so_far()}") from error
    run.finish()
    if run.wrote:
        migrated.write(store.path, name, mark)
    return run.report()


class _Run:
    """One database on its way into one agent."""

    def __init__(
        self, agent: Agent, found: Found, zone: tzinfo | None, on_progress: OnProgress | None
    ) -> None:
        self.agent = agent
        self._found = found
        self._how = rows.reading(
            zone, now=datetime.now(UTC), max_future_s=agent._config.max_future_s
        )
        self._on_progress = on_progress
        self._done, self._total = 0, 0
        self._imported = self._held = self._memories = 0
        self._seen: Counter[str] = Counter()  # rows of each kind, for their places
        self._bad: list[BadLine] = []
        self._left_out: Counter[str] = Counter()
        self._concepts = Concepts(agent, self._refuse, self._left_out)

    @property
    def wrote(self) -> bool:
        """Whether the agent holds anything of it: else there is no store to note it in."""
        return self.agent.exists()

    def take(self, line: dict[str, Any]) -> None:
        """Deal with what the reader said."""
        page: list[dict[str, Any]] = line.get("rows", [])
        match line["kind"]:
            case "database":
                self._total = sum([line["rows"].get(table, 0) for table in _COUNTED])
                self._left_out.update(line["left_out"])
                self._advance(0)
                return
            case "left_out":
                self._left_out[_TOO_LONG] += line["too_long"]
                return
            case "topics":
                self._concepts.topics(page)
            case "concepts":
                self._concepts.concepts(page)
            case "messages":
                self._messages(page)
            case "sessions":
                self._sessions(page)
            case "memories":
                self._remember_all([rows.memory(row, self._how, self._left_out) for row in page])
            case "relations":
                self._concepts.relations(page)
                return  # nobody counted them beforehand
            case kind:
                raise AssertionError(f"the reader said {kind!r:.50}")
        self._advance(len(page))

    def _messages(self, page: list[dict[str, Any]]) -> None:
        first = self._seen["messages"] + 1
        self._seen["messages"] += len(page)
        messages = [
            {**rows.message(row, self._how, self._left_out), "line": number}
            for number, row in enumerate(page, first)
        ]
        report = self.agent.import_(messages, skip_bad=True)
        self._imported += report.imported
        self._held += report.already_held
        for bad in report.bad:
            self._refuse(bad.line, bad.reason)
        self._concepts.mentions(page)

    def _sessions(self, page: list[dict[str, Any]]) -> None:
        memories = []
        for row in page:
            topics = self._concepts.names_of_topics(row["topics"])
            memories.append(rows.session_memory(row, self._how, topics))
        self._remember_all(memories)

    def _remember_all(self, memories: list[dict[str, Any] | None]) -> None:
        for memory in memories:
            self._seen["memories"] += 1
            if memory is None:
                continue
            content = memory.pop("content")
            try:
                self._memories += self.agent.remember(content, **memory).new
            except (InvalidArgument, Conflict) as error:
                self._refuse(self._seen["memories"], f"a memory: {error}")

    def _refuse(self, line: int, reason: str) -> None:
        if len(self._bad) < BAD_MAX:
            self._bad.append(BadLine(line, reason))
        else:
            self._left_out[BEYOND] += 1

    def _advance(self, count: int) -> None:
        self._done += count
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)

    def finish(self) -> None:
        """Once all was read."""
        self._concepts.finish()
        self.agent.flush()

    def so_far(self) -> str:
        return (
            f"{self._imported} messages of {self._found.path} were imported before it and"
            f" {self._held} were held already; migrate again to go on: nothing is doubled"
        )

    def report(self) -> Migration:
        concepts = self._concepts
        return Migration(
            agent=self.agent.name,
            source=str(self._found.path),
            imported=self._imported,
            already_held=self._held,
            memories=self._memories,
            concepts=concepts.made,
            mentions=concepts.mentioned,
            relations=concepts.related,
            bad=tuple(self._bad),
            left_out={reason: count for reason, count in self._left_out.items() if count},
        )
