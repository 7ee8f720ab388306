"""Ops: the writes that a ledger understands. Each is applied whole or not at all."""

from dataclasses import dataclass

from elytron.records import Draft

# What deleting a message may write besides its text, which is overwritten: pages that it shares
# with strangers, and tombstones.
DELETED_BYTES = 8 * 4096


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
    size_bytes: int
    items: int = 1


@dataclass(frozen=True, slots=True)
class DeleteSession:
    """
    Remove messages of a session, oldest first, and the session once it is empty.

    At least one goes, and no more than *size_bytes* allow. Result: (how many, whether any are
    left).
    """

    session: str
    size_bytes: int
    items: int = 1


@dataclass(frozen=True, slots=True)
class Reindex:
    """
    Write new index entries, (key, content, terms), where the content is still the same; or, at
    the end, what languages they are in.
    """

    entries: tuple[tuple[int, str, bytes], ...]
    languages: str | None
    size_bytes: int
    items: int = 1


Op = SaveOne | Save | Edit | Delete | DeleteSession | Reindex
