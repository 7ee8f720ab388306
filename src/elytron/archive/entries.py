"""Entries: what crosses between the parts of the archive, and what its callers get back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from elytron.records import Message

# A segment is closed before it grows over either. A message that is larger has one to itself.
SEGMENT_MESSAGES_MAX = 5000
SEGMENT_TEXT_MAX_BYTES = 8 << 20
# Nothing longer is written or read, so a hostile file takes no more memory than this.
LINE_MAX_BYTES = 64 << 20


class Archived(NamedTuple):
    """
    A message that left the ledger, with what the ledger knew of it.

    `key`, `session_key` and `responds_to` (the key of the message before it) are the ledger's;
    so are `arrived_us`, when it came, and `embedding`, why it has a vector or none.
    """

    key: int
    message: Message
    session_key: int
    responds_to: int | None
    arrived_us: int
    embedding: str


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One segment, as the manifest lists it.

    Attributes:
        name: of its file.
        messages: how many lines it has, 1 to 5000.
        bytes: of the file.
        text_bytes: of the lines, before compression.
        first_us, last_us: the smallest and the greatest `at` of its messages.
        checksum: BLAKE2b of the whole file, 16 bytes in hexadecimal.
    """

    name: str
    messages: int
    bytes: int
    text_bytes: int
    first_us: int
    last_us: int
    checksum: str

    @property
    def written_us(self) -> int:
        """When its messages left the ledger; of those in a merged one, on average."""
        return int(self.name.split("-")[1])


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    Which segments count, in the order in which their messages left the ledger.

    `dropped_messages` and `dropped_segments` left at the archive's limit and are gone. `removed`
    names files that no longer count and may still be there, should their unlinking have failed.
    `mark` tells this manifest, through all its changes, from one that was begun or made again
    since; versions before wrote none.
    """

    entries: tuple[Entry, ...] = ()
    dropped_messages: int = 0
    dropped_segments: int = 0
    removed: tuple[str, ...] = ()
    mark: str = field(default="", compare=False)  # by chance

    @property
    def names(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self.entries)

    @property
    def messages(self) -> int:
        return sum(entry.messages for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """
    How many messages a rewrite took out; segments that could not be read, each with why; and the
    names of those that it wrote.
    """

    removed: int
    damaged: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = field(default=(), compare=False)  # by chance


@dataclass(frozen=True, slots=True)
class Dropped:
    """What left the archive at its limit and is gone."""

    segments: int = 0
    messages: int = 0
    bytes: int = 0
