"""Ops: the writes that a ledger understands. Each is applied whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from elytron.ledger.carried import BeginCarrying, CarriedOp, DropRows, EndCarrying
from elytron.ledger.database import Database
from elytron.ledger.embedded import DropVectors, EmbeddedOp, EvictVectors
from elytron.ledger.learned import (
    ClearLearned,
    DeleteConcept,
    DeleteMemory,
    ForgetHeard,
    ForgetLearned,
    LearnedOp,
    SweepLearned,
)
from elytron.records import Draft, Receipt

# What deleting a message may write besides its text, which is overwritten: pages that it shares
# with strangers, and tombstones.
DELETED_BYTES = 8 * 4096
# What removing a session or a user may write: a page of its table and of each index.
TIDIED_BYTES = 3 * 4096


class Beside(Protocol):
    """
    Where else than in the ledger messages may be held that are to be saved: the archive.

    It is asked within the transaction: nothing leaves the ledger then, and what left before is
    listed there.
    """

    def is_clear(self) -> bool:
        """Whether it has none of them now. Asked before `receipt`, once a transaction."""

    def receipt(self, db: Database, draft: Draft) -> Receipt | None:
        """
        What is said to who saves a message that it has; None if it has it not.

        Raises:
            Conflict: it has another under the same id.
            ElytronError: it cannot be asked.
        """


@dataclass(frozen=True, slots=True)
class Save:
    """Add these messages, in this order. Result: a list of `Receipt`s."""

    drafts: tuple[Draft, ...]
    beside: Beside | None = None

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
    beside: Beside | None = None
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return self.draft.size_bytes


@dataclass(frozen=True, slots=True)
class Edit:
    """
    Replace a message's content and its index; its vector goes. Result: None.

    `embedding` says whether it gets another, and if not, why.
    """

    id: str
    content: str
    terms: bytes
    embedding: str
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


@dataclass(frozen=True, slots=True)
class Mark:
    """Set a message's importance or pin, each where it is not None. Result: None."""

    id: str
    importance: float | None
    pinned: bool | None
    size_bytes: int = 4 * 4096
    items: int = 1


@dataclass(frozen=True, slots=True)
class Move:
    """
    Note that a run is about to take these segments' messages out of the ledger, or back.

    Another run that was at it can take and bring nothing more. Result: whether there was one; then
    what it left in both places is to be settled.
    """

    segments: tuple[str, ...]
    run: str
    size_bytes: int = 4096
    items: int = 1


@dataclass(frozen=True, slots=True)
class Moved:
    """Note that a run has nothing of these segments on its way any more."""

    segments: tuple[str, ...]
    run: str
    size_bytes: int = 4096
    items: int = 1


@dataclass(frozen=True, slots=True)
class TakeOver:
    """
    Give *run* the notes of *dead* runs, under other names, so that one of them that lives after
    all cannot go on. Result: how many.
    """

    dead: tuple[str, ...]
    run: str
    size_bytes: int = 4096
    items: int = 1


@dataclass(frozen=True, slots=True)
class NoteGone:
    """Keep the messages of these keys from coming back with what is moving now, if anything is."""

    keys: tuple[int, ...]
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return 4096 + 64 * len(self.keys)


@dataclass(frozen=True, slots=True)
class Remove:
    """
    Remove messages, (key, checksum), that are the same as when they were read.

    One that was edited in the meantime stays; a checksum of None takes any. All *segments*
    must be moved by *run* still, else `Conflict`. Result: `Taken`.
    """

    rows: tuple[tuple[int, int | None], ...]
    segments: tuple[str, ...]
    run: str
    size_bytes: int
    items: int = 1


class Returning(NamedTuple):
    """A message on its way back from the archive, to its old place."""

    key: int
    session_key: int
    position: int
    responds_to: int | None
    draft: Draft


@dataclass(frozen=True, slots=True)
class Restore:
    """
    Bring messages back. Those whose id is held stay as they are. If a *segment* is named, *run*
    must move it still, else `Conflict`. Result: how many came.
    """

    rows: tuple[Returning, ...]
    segment: str | None = None
    run: str = ""

    @property
    def items(self) -> int:
        return len(self.rows)

    @property
    def size_bytes(self) -> int:
        return sum([row.draft.size_bytes for row in self.rows]) + 4096 * len(self.rows)


@dataclass(frozen=True, slots=True)
class Tidy:
    """
    Remove sessions and users that no message is left of, at most *at_once* of each. Result: how
    many.
    """

    at_once: int
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return 2 * TIDIED_BYTES * self.at_once


@dataclass(frozen=True, slots=True)
class Expel:
    """
    Remove the row *key* of a *table*, if it is damaged, with what hangs on it; of a concept at most
    *at_once* facts. Result: whether there is more to do.

    Args:
        columns: of its checksum, which is the last of them.
    """

    table: str
    columns: str
    key: int
    at_once: int = 100
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return 2 * 4096 * self.at_once


@dataclass(frozen=True, slots=True)
class PutName:
    """
    Write the row *key* of sessions or users anew, if it is damaged or missing. It keeps its name if
    it has one. Result: the name.

    Args:
        columns: as of `Expel`.
    """

    table: str
    columns: str
    key: int
    name: str
    created_us: int
    size_bytes: int = 16 * 4096
    items: int = 1


@dataclass(frozen=True, slots=True)
class GoOn:
    """Have all further numbers of the sequence lie above *number*."""

    number: int
    size_bytes: int = 8 * 4096
    items: int = 1


@dataclass(frozen=True, slots=True)
class ResetWords:
    """Empty the word index, to be filled by a `Reindex` of every message."""

    size_bytes: int = 1 << 20
    items: int = 1


@dataclass(frozen=True, slots=True)
class Vacuum:
    """Give unused pages back to the file system, at most *pages*. Result: how many."""

    pages: int
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return 2 * 4096 * self.pages


@dataclass(frozen=True, slots=True)
class MergeWords:
    """
    Merge the word index a little. Result: whether there is more to do.

    With *begin*, all of it is to become one; the steps after that go on with it.
    """

    pages: int
    size_bytes: int
    begin: bool = False
    items: int = 1


@dataclass(frozen=True, slots=True)
class IndexWords:
    """Index messages that have no words yet. Result: whether there are more."""

    size_bytes: int
    items: int = 1


@dataclass(frozen=True, slots=True)
class Grant:
    """Note how many bytes the store's budget lets this file have; None for no such bound."""

    bytes: int | None
    size_bytes: int = 4096
    items: int = 1


@dataclass(frozen=True, slots=True)
class AllowGraph:
    """Note how many bytes the graph may take beside this file, within the agent's limit."""

    bytes: int
    size_bytes: int = 4096
    items: int = 1


@dataclass(frozen=True, slots=True)
class NoteUses:
    """Add what was counted of messages' uses: key -> (times, last in us). Result: None."""

    uses: Mapping[int, tuple[int, int]]
    size_bytes: int = 64 * 4096
    items: int = 1


# Ops that make room. They may use a last bit of the file that others may not.
REMOVING = (
    Mark,
    Delete,
    DeleteSession,
    Move,
    Moved,
    TakeOver,
    NoteGone,
    Remove,
    Tidy,
    Expel,
    GoOn,
    ResetWords,
    DeleteMemory,
    DeleteConcept,
    ForgetLearned,
    SweepLearned,
    ForgetHeard,
    ClearLearned,
    EvictVectors,
    DropVectors,
    BeginCarrying,
    DropRows,
    EndCarrying,
    Vacuum,
    MergeWords,
    Grant,
    AllowGraph,
)

Op = (
    SaveOne
    | Save
    | Edit
    | Delete
    | DeleteSession
    | Reindex
    | Mark
    | Move
    | Moved
    | TakeOver
    | NoteGone
    | Remove
    | Restore
    | Tidy
    | Expel
    | PutName
    | GoOn
    | ResetWords
    | Vacuum
    | MergeWords
    | IndexWords
    | Grant
    | AllowGraph
    | NoteUses
    | LearnedOp
    | EmbeddedOp
    | CarriedOp
)
