"""
Records: what crosses between the parts, and what callers get back.

Times are timezone-aware `datetime`s on this side of the ledger and whole microseconds since
1970 (UTC) inside it. Everything is immutable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from elytron.reports import (
    ArchiveUsage,
    EmbeddingUsage,
    Forecast,
    JanitorUsage,
    WorkerUsage,
)

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
DEFAULT_SESSION = "default"
DEFAULT_IMPORTANCE = 0.5
DECLINED = "declined"  # of `Receipt.embedding`: `save(embed=False)`


@dataclass(frozen=True, slots=True)
class Message:
    """
    One message as it is held.

    `position` counts from 0 within the session, in the order of saving. `at` carries the UTC
    offset with which it was saved. `speaker` is the user where there is one, else the role.
    `importance`, 0 to 1, and `pinned` say how long it stays: what is pinned never leaves.
    `embed` is False where it was saved so, None otherwise: saved again from here, it is declined
    again.
    """

    id: str
    role: str
    content: str
    at: datetime
    session: str
    user: str | None
    metadata: Mapping[str, Any]
    position: int
    importance: float = DEFAULT_IMPORTANCE
    pinned: bool = False
    embed: bool | None = None

    @property
    def speaker(self) -> str:
        return self.user if self.user is not None else self.role


@dataclass(frozen=True, slots=True)
class Receipt:
    """
    The message with this id is durable.

    `new` is False when it was held already, as after a retry. `embedding` says whether a
    vector follows: `queued`; or why not: `disabled` while embeddings are off, `declined` by
    `embed=False`, `role` for one that is not in `embed_roles`, `short` below `min_embed_chars`.
    """

    id: str
    new: bool = True
    embedding: str = "disabled"


@dataclass(frozen=True, slots=True)
class Session:
    """One conversation: its size and the times of its first and last saved message."""

    id: str
    messages: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Hit:
    """
    One message or memory that answers a question.

    `score` compares the hits of one question. `why` holds each part's share of it: words,
    neighbours (words of the messages around it), vectors, session, concepts, speaker, role, memory,
    asking (below zero), when, date, importance. `matched` are those of the question's words that
    it holds, in any form. `archived` says that the message is in the archive. Where the hit is a
    `memory`, `message` shows it with the role `memory`. `similarity` is the cosine of its vector
    with the question's, None without one: unlike the score it can be held against a threshold.
    """

    message: Message
    score: float
    why: Mapping[str, float]
    matched: tuple[str, ...]
    archived: bool = False
    memory: "Memory | None" = None
    similarity: float | None = None

    @property
    def kind(self) -> str:
        """`message`, or the kind of the memory."""
        return "message" if self.memory is None else self.memory.kind


@dataclass(frozen=True, slots=True)
class Context:
    """Hits packed for a prompt. `tokens` is what the counter said of `text`."""

    text: str
    hits: tuple[Hit, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Memory:
    """
    Something learned, in words: a fact, a preference, a summary.

    It holds from `valid_from` on and before `valid_to`, each None where no end is known. `about`
    are the names of the concepts that it was told to be about, sorted. `session` is the
    conversation that it was learned in. `uses` and `last_used` count recalls.
    """

    id: str
    content: str
    kind: str
    about: tuple[str, ...]
    importance: float
    pinned: bool
    session: str | None
    valid_from: datetime | None
    valid_to: datetime | None
    created: datetime
    metadata: Mapping[str, Any]
    uses: int = 0
    last_used: datetime | None = None

    def as_message(self) -> Message:
        """The memory as a hit shows it beside messages: role `memory`, said when it began."""
        return Message(
            id=self.id,
            role="memory",
            content=self.content,
            at=self.valid_from or self.created,
            session=self.session or DEFAULT_SESSION,
            user=None,
            metadata=self.metadata,
            position=0,
            importance=self.importance,
            pinned=self.pinned,
        )


@dataclass(frozen=True, slots=True)
class Concept:
    """
    Something that is talked about: a person, a place, a thing, a topic.

    `origin` says how it came to be known: `told` by a person or program, `extracted` by the
    `extract` function, or `proposed` because its name recurs. `mentions` counts the messages and
    memories held that name it.
    """

    name: str
    type: str | None
    description: str | None
    confidence: float
    origin: str
    mentions: int
    created: datetime


@dataclass(frozen=True, slots=True)
class Relation:
    """
    A fact about two concepts: `source` `relation` `target`, as "Alice" "lives in" "Lyon".

    It holds from `valid_from` on and before `valid_to`. `learned_from` is the id of the message
    that an extractor read it in, while that is held.
    """

    source: str
    relation: str
    target: str
    strength: float
    valid_from: datetime | None
    valid_to: datetime | None
    learned_from: str | None = None


@dataclass(frozen=True, slots=True)
class ConceptDetails:
    """
    A concept with where it occurs: when it was first and last mentioned, the newest messages and
    memories that do, and the relations that hold, at most a hundred.
    """

    concept: Concept
    first_at: datetime | None
    last_at: datetime | None
    examples: tuple[Message, ...]
    memories: tuple[Memory, ...]
    relations: tuple[Relation, ...]


@dataclass(frozen=True, slots=True)
class Related:
    """
    A concept near another. `depth` is the number of relations between; `relation` the last of
    them, or `mentioned with` where `times` messages and memories name both.
    """

    name: str
    type: str | None
    depth: int
    relation: str
    times: int = 0


@dataclass(frozen=True, slots=True)
class GraphUsage:
    """
    What is known of an agent's graph file. All None or 0 before a first question.

    `bytes` are on the disk, all its files; `position` the last change of the ledger that it
    has; `built_because` why it was last built from nothing. `damaged` names the file that was set
    aside as damaged, if one lies there.
    """

    bytes: int = 0
    engine: str | None = None
    position: int | None = None
    built_at: datetime | None = None
    built_because: str | None = None
    damaged: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerBytes:
    """
    Bytes of one ledger on disk.

    `file` and `wal` are what the file system holds. `live` and `dead` are the pages in use and
    out of use, whether they are in the file yet or still in the WAL; `words` and `vectors` are
    parts of `live`. `total` is what `max_db_size_mb` bounds; the archive has a bound of its own.
    `aside` is what repairs and restores have kept of what was there before, in `damaged-TIME` and
    `replaced-TIME` in the agent's folder, and what one that was stopped has left there: under no
    bound, and yours to delete while none is at work.
    """

    file: int = 0
    live: int = 0
    dead: int = 0
    wal: int = 0
    words: int = 0
    vectors: int = 0
    graph: int = 0
    archive: int = 0
    aside: int = 0

    @property
    def total(self) -> int:
        return self.file + self.wal + self.graph

    @property
    def on_disk(self) -> int:
        """All of the agent's files."""
        return self.total + self.archive + self.aside


@dataclass(frozen=True, slots=True)
class ExtractionUsage:
    """
    What the function given as `extract` did for one agent, since this process opened it.

    Attributes:
        messages: those that it answered about.
        failures, last_error: of its calls.
        passed_over: messages at which it failed each time; they are not asked about again.
        left_out: concepts and relations of its answers that were not acceptable.
    """

    messages: int = 0
    failures: int = 0
    passed_over: int = 0
    left_out: int = 0
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """
    What one agent holds and costs, beside its limits.

    `messages` are those held; `archived` those that left for the archive and are still there.
    `embedded` are messages with a vector, their own or one that they share. `queued` and
    `failed_writes` are of this process.
    """

    agent: str
    limit_bytes: int
    messages: int = 0
    sessions: int = 0
    users: int = 0
    memories: int = 0
    concepts: int = 0
    edges: int = 0
    changes: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    bytes: LedgerBytes = LedgerBytes()
    queued: int = 0
    failed_writes: int = 0
    pinned: int = 0
    embedded: int = 0
    max_messages: int = 0
    archive: ArchiveUsage = field(default_factory=ArchiveUsage)
    forecast: Forecast = field(default_factory=Forecast)
    graph: GraphUsage = GraphUsage()
    embeddings: EmbeddingUsage = field(default_factory=EmbeddingUsage)
    extraction: ExtractionUsage = ExtractionUsage()

    @property
    def archived(self) -> int:
        return self.archive.messages


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """
    What a whole store holds and costs. `open_agents`, `queued` and below are of this process.

    `total_bytes` are all its files: ledgers, WALs, archives, what was set aside, and the reserve.
    `sqlite_bytes` is the memory that SQLite uses, most of it page caches.
    """

    path: str
    agents: tuple[Usage, ...]
    total_bytes: int
    open_agents: int
    queued: int
    queued_bytes: int
    rss_bytes: int
    threads: int
    descriptors: int
    sqlite_bytes: int = 0
    archive_bytes: int = 0
    reserve_bytes: int = 0
    limit_bytes: int | None = None
    janitor: JanitorUsage = field(default_factory=JanitorUsage)
    worker: WorkerUsage = field(default_factory=WorkerUsage)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A piece of an import that could not be taken: where it stands, and why not."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """
    What an import did to one agent.

    `imported` counts what is new: messages and, where the source has them, memories, concepts and
    relations; how many of it were these, the last three say. `already_held` counts all that was
    there, and `what` says in words what both count. `left_out` counts, by reason, what the source
    holds but a memory does not take.
    """

    agent: str
    imported: int
    already_held: int
    bad: tuple[BadLine, ...] = ()
    left_out: Mapping[str, int] | None = None
    memories: int = 0
    concepts: int = 0
    relations: int = 0
    what: str = "messages"


class Draft(NamedTuple):
    """
    A message that admission has let through: checked, dated and indexed, ready to be written.

    A tuple, not a dataclass: one is made for each save, and it is the cheapest immutable
    record. `at_given` tells a retry from a conflict: a time that we chose is not compared.
    """

    id: str
    role: str
    content: str
    session: str
    user: str | None
    at_us: int
    offset_min: int
    at_given: bool
    arrived_us: int
    metadata: str | None
    terms: bytes
    size_bytes: int
    embedding: str
    importance: float | None
    pinned: bool
