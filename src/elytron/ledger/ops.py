"""Ops: the writes that a ledger understands. Each is applied whole or not at all."""

from dataclasses import dataclass

from elytron.records import Draft

# What deleting one message may write: pages that it shares with strangers, and tombstones.
_DELETED_BYTES = 8 * 4096


@dataclass(frozen=True, slots=True)
class Save:
    """Add these messages, in this order. Result: a list of `Receipt`s."""

    drafts: tuple[Draft, ...]

    @property
    def items(self) -> int:
        return len(self.drafts)

    @property
    def size_bytes(self) -> int:
        return sum([draft.size_bytes for draft in self.drafts])


@dataclass(frozen=True, slots=True)
class SaveOne:
    """Add one message. Result: its `Receipt`."""

    draft: Draft
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return self.draft.size_bytes


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace a message's content and its index. Result: None."""

    id: str
    content: str
    terms: bytes
    size_bytes: int
    items: int = 1


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove one message. Result: whether it was there."""

    id: str
    size_bytes: int = _DELETED_BYTES
    items: int = 1


@dataclass(frozen=True, slots=True)
class DeleteSession:
    """
    Remove at most *limit* messages of a session, and the session once it is empty.

    Result: how many messages went; fewer than *limit* means all are gone.
    """

    session: str
    limit: int
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return self.limit * _DELETED_BYTES


@dataclass(frozen=True, slots=True)
class Reindex:
    """Write new index entries: (key, terms); or, at the end, what languages they are in."""

    entries: tuple[tuple[int, bytes], ...]
    languages: str | None
    size_bytes: int
    items: int = 1


Op = SaveOne | Save | Edit | Delete | DeleteSession | Reindex
