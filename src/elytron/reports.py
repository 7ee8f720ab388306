"""
Reports: what the verbs of upkeep say they did, or would do.

All are immutable. Bytes are of the ledger's or the archive's files unless a name says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from elytron.errors import ElytronError

# Why a message leaves, in the order in which the rules are applied.
AGE, COUNT, BYTES, EMERGENCY = "age", "count", "bytes", "emergency"


class Leaving(NamedTuple):
    """A message that leaves the ledger for the archive. `bytes` is about what that frees."""

    id: str
    session: str
    role: str
    at: datetime
    reason: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Cleanup:
    """
    What a clean-up of one agent took, or with `dry_run` would take.

    Attributes:
        leaving: the messages, in the order in which they leave: the least valuable first.
        held: messages before it.
        freed_bytes: about what the leaving free within the ledger.
        short_bytes, short_messages: still over a limit when they have left, since the rest is
            pinned.
        archived: how many left the ledger for the archive; 0 for a dry run.
        dropped: how many messages the archive lost at its own limit, the oldest first.
        given_back_bytes: what the file system got back.
    """

    agent: str
    dry_run: bool
    leaving: tuple[Leaving, ...] = ()
    held: int = 0
    freed_bytes: int = 0
    short_bytes: int = 0
    short_messages: int = 0
    archived: int = 0
    dropped: int = 0
    given_back_bytes: int = 0

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many leave for each reason."""
        counts: dict[str, int] = {}
        for message in self.leaving:
            counts[message.reason] = counts.get(message.reason, 0) + 1
        return counts


@dataclass(frozen=True, slots=True)
class Restored:
    """
    What a restore brought back from the archive.

    `missing` are ids that were asked for by name and are not in the archive; `damaged` names
    the segments that could not be read, each with why.
    """

    agent: str
    restored: int
    already_held: int
    missing: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """
    What a reclaim gave back to the file system.

    `rebuilt` says whether the file was rebuilt by an in-place VACUUM; `put_off` why not all that
    could be given back was.
    """

    agent: str
    before_bytes: int
    after_bytes: int
    rebuilt: bool = False
    put_off: str | None = None

    @property
    def given_back_bytes(self) -> int:
        return max(0, self.before_bytes - self.after_bytes)


@dataclass(frozen=True, slots=True)
class Erased:
    """
    What was forgotten, and what still holds it.

    `remaining` lists, in words, where erased text may still be: another program's snapshot, a
    damaged segment, backups made before. Empty but for backups when all is done.
    """

    agent: str
    messages: int
    archived: int
    memories: int
    concepts: int
    sessions: int
    users: int
    remaining: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deleted:
    """
    An agent that is there no more.

    Attributes:
        messages, archived: how many it held; None where it was damaged, and cannot be counted.
        bytes: what its files took, and its rows on a server.
    """

    agent: str
    messages: int | None
    archived: int | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found wrong: where, what, and whether it was or can be repaired."""

    part: str
    what: str
    repairable: bool = False
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """A check of one agent: how much was looked at, and what is wrong."""

    agent: str
    messages: int
    archived: int
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong now: nothing was found, or all of it was repaired."""
        return all(finding.repaired for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Salvaged:
    """
    What a new ledger was made of, when an agent's was damaged.

    Attributes:
        kept: rows by kind (messages, memories, concepts, relations ...) that were whole.
        later: messages from commits that stood behind a damaged place of the log.
        from_archive, from_backup: messages that were damaged or gone and were there.
        lost: messages that there were, by what is left of the file, and that are whole nowhere. Of
            a file that is gone, or of pages of which nothing is left, nobody knows how many.
        lost_ids: of these, as far as they are known, at most 100.
        nameless: sessions and users whose names are lost: they are `lost-session-N`.
        damaged_pages: of the old file, with something on them that was not what was written:
            messages, memories, concepts, relations or marks.
        log_pages: the same, of logs behind what was read of them.
        aside: the folder where the damaged files lie.
        held_nothing: whether the old file was whole and nothing was in it.
    """

    agent: str
    kept: Mapping[str, int] = field(default_factory=dict)
    later: int = 0
    from_archive: int = 0
    from_backup: int = 0
    lost: int = 0
    lost_ids: tuple[str, ...] = ()
    nameless: int = 0
    damaged_pages: int = 0
    log_pages: int = 0
    aside: str = ""
    held_nothing: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing was left, so that the ledger begins anew."""
        found = sum(self.kept.values()) + self.later + self.from_archive + self.from_backup
        return not (found or self.held_nothing)


@dataclass(frozen=True, slots=True)
class Embedded:
    """
    What `embed` or `reembed` did: how many messages and memories got a vector of their own, share
    one of an equal text, or had one already; and how many have none, by reason.
    """

    agent: str
    embedded: int = 0
    shared: int = 0
    held: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EmbeddingUsage:
    """
    The vectors of one agent.

    Attributes:
        model: what made them, None before the first; `dim` numbers each.
        reduced_to: how many of these are kept, by a projection; None while all are.
        reasons: messages by whether they have a vector or why not: `embedded`, `shared` (with an
            equal text), `queued`, `disabled`, `declined` (`embed=False`), `role`, `short`,
            `max_vector_mb`, `refused` (by the embedder).
        bytes: of `max_vector_mb`, which is `limit_bytes`.
        memory_bytes: what they take in this process's memory.
        failures, last_error, resting_s: of the embedder in this process; for how long it is left
            alone after the last failure.
    """

    model: str | None = None
    dim: int | None = None
    reduced_to: int | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    limit_bytes: int = 0
    memory_bytes: int = 0
    failures: int = 0
    last_error: str | None = None
    resting_s: float = 0.0

    @property
    def queued(self) -> int:
        """Messages that wait for their vector."""
        return self.reasons.get("queued", 0)


@dataclass(frozen=True, slots=True)
class ArchiveUsage:
    """
    What an agent's archive holds. `dropped` counts messages that left it at `max_archive_mb`;
    they are gone.
    """

    messages: int = 0
    segments: int = 0
    bytes: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    dropped: int = 0
    dropped_segments: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """
    Days until each limit at the present rate; None where it is not coming nearer.

    The rate is that of the last `days` days: messages a day, and bytes a day by the mean size
    of a message.
    """

    days: float = 0.0
    messages_per_day: float = 0.0
    bytes_per_day: float = 0.0
    until: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JanitorUsage:
    """When the periodic clean-up last ran and will run next, and its last error, if any."""

    running: bool = False
    last_run: datetime | None = None
    next_run: datetime | None = None
    last_error: str | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Alarm:
    """
    A limit that came near or was reached, told to the hooks.

    Attributes:
        agent: whose; None for a limit of the store.
        limit: the setting's name, such as `max_db_size_mb`.
        level: `soft` from `soft_limit_ratio` of it on, `hard` at 100 %.
        used, maximum: in the unit of `limit`.
    """

    agent: str | None
    limit: str
    level: str
    used: float
    maximum: float


@dataclass(frozen=True, slots=True)
class WorkerUsage:
    """
    The worker process that holds graphs open, as this process has it.

    `starts` counts how often it was started, `last_error` says why it was last replaced.
    """

    running: bool = False
    pid: int | None = None
    rss_bytes: int = 0
    open_graphs: int = 0
    starts: int = 0
    last_error: str | None = None
    engine_version: str | None = None


@dataclass(frozen=True, slots=True)
class AgentBackup:
    """
    The backup of one agent as it is now.

    `copied` says whether it was made anew, or stayed because nothing had changed since `at`;
    `copied_bytes` are those that were written for that.
    """

    agent: str
    copied: bool
    messages: int
    archived: int
    copied_bytes: int
    at: datetime


@dataclass(frozen=True, slots=True)
class NotBackedUp:
    """An agent of which no new copy was made, and why. The copy that it had is untouched."""

    agent: str
    cause: ElytronError


@dataclass(frozen=True, slots=True)
class BackedUp:
    """
    What a backup did, agent by agent. `removed` were deleted from the store on purpose, and are not
    in the backup any more. `kept` are folders in it with copies that may have what is nowhere else
    any more (after a repair, a listing made again, a renaming), each a backup until it is removed.

    What a run left of an agent that was stopped when it made the first copy, or removed the last,
    is named by its folder, among `removed` or `failed`: nothing else tells whose it was.
    """

    path: str
    at: datetime
    agents: tuple[AgentBackup, ...] = ()
    failed: tuple[NotBackedUp, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every agent has a backup of its present state."""
        return not self.failed


@dataclass(frozen=True, slots=True)
class AgentRestored:
    """
    What was done to bring one agent back from a backup.

    Attributes:
        how: `new` (it was not there), `same` (it is as the backup has it), `replaced` (it was
            whole, and `replace` said so) or `salvaged` (it was damaged: what was whole is kept,
            the rest is the backup's); for a dry run, what would be done, or `differs` (it is whole
            and not as the backup has it, which comes back with `replace` only).
        messages, archived: how many it holds now, or would hold; for `differs`, the backup's.
        at: when the backup was made.
        aside: where the files lie that it had before, None if there were none.
        salvaged: what the salvage kept and took from where, if there was one.
        again: how many messages, lost or deleted since the backup, are in the archive again.
    """

    agent: str
    how: str
    messages: int
    archived: int
    at: datetime
    aside: str | None = None
    salvaged: Salvaged | None = None
    again: int = 0


@dataclass(frozen=True, slots=True)
class NotRestored:
    """An agent that was not restored, and why. What was there is untouched."""

    agent: str
    cause: ElytronError


@dataclass(frozen=True, slots=True)
class BackupRestored:
    """What came back from a backup, agent by agent. `kept` as in `BackedUp`."""

    path: str
    backup: str
    dry_run: bool
    agents: tuple[AgentRestored, ...] = ()
    failed: tuple[NotRestored, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every agent that was asked for is there now."""
        return not self.failed


@dataclass(frozen=True, slots=True)
class AgentMigrated:
    """
    One agent that is whole in another store.

    Attributes:
        messages, archived, memories, concepts, relations: how many it has there.
        rows, checksum: of all that was carried, read back there and compared with the source: their
            number, and 32 hex digits that they come to.
        written: how many rows had to be written or removed for that.
        again: whether some had come before, by a run that was stopped, or by one that ended.
        behind: how many changes the source has had since, if it went on changing.
    """

    agent: str
    messages: int
    archived: int
    memories: int
    concepts: int
    relations: int
    rows: int
    checksum: str
    written: int
    again: bool
    behind: int


@dataclass(frozen=True, slots=True)
class NotMigrated:
    """An agent that is not whole in the other store, and why. The source is untouched."""

    agent: str
    cause: ElytronError


@dataclass(frozen=True, slots=True)
class StoreMigrated:
    """
    What came from one store into another, agent by agent.

    `left_out` are files and folders among the source's agents that no agent is known for.
    """

    source: str
    target: str
    agents: tuple[AgentMigrated, ...] = ()
    failed: tuple[NotMigrated, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all that the source has is in the target."""
        return not self.failed and not self.left_out

    @property
    def behind(self) -> int:
        """How many changes the source has had since, in all."""
        return sum([one.behind for one in self.agents])
