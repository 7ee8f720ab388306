"""
Learned: the ops on memories, concepts and relations. `ops.py` lists them with all others.

Names come folded (`write/remembering.py`), times in microseconds. What each op does is in
`learning.py`. All of them fit into one commit if `size_bytes` is at most the WAL's limit; a step
that says "more" is to be asked for again.
"""

from dataclasses import dataclass
from typing import NamedTuple

# Why a source names a concept; the column `told` of mentions.
BY_TEXT = 0  # a known name stands in its text
BY_PERSON = 1  # `remember(about=)` said so
BY_EXTRACTOR = 2  # `extract=` read it out of the text

HEARD_MAX = 2000  # rows of `heard`; beyond, the rarest and then the oldest go
_PAGE_BYTES = 4096 + 24
_PAGES_MIN = 12  # of an op on one row: its table, its indexes, changes, all with a split
CLOSED_MAX = 64  # facts that one fact may replace
_NAME_TIMES = 8  # up to four bytes a character; as shown, folded, and in an index


class Name(NamedTuple):
    """A concept's name as it is shown, and as it is compared."""

    shown: str
    folded: str


@dataclass(frozen=True, slots=True)
class MemoryDraft:
    """A memory, checked and ready to be written. `size_bytes` of its row and its indexes."""

    id: str
    content: str
    kind: str
    importance: float
    pinned: bool
    session: str | None
    valid_from_us: int | None
    valid_to_us: int | None
    from_given: bool  # else `valid_from_us` is ours, and not compared in a retry
    created_us: int
    metadata: str | None
    terms: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Remember:
    """
    Add a memory; make or confirm the concepts that it is about; close the memory that it
    replaces. Result: its `Receipt`, not new if the same was held under its id.
    """

    draft: MemoryDraft
    about: tuple[Name, ...] = ()
    replaces: str | None = None
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return (
            (_PAGES_MIN + 4) * _PAGE_BYTES
            + self.draft.size_bytes
            + sum(map(naming_bytes, self.about))
        )


@dataclass(frozen=True, slots=True)
class EditMemory:
    """Replace a memory's content and its words. Result: None."""

    id: str
    content: str
    terms: bytes
    size_bytes: int
    items: int = 1


@dataclass(frozen=True, slots=True)
class CloseMemory:
    """
    Say until when a memory held. Result: None.

    Where the time was not given, it is now, and a memory that has ended by then keeps its end.
    """

    id: str
    at_us: int
    at_given: bool
    size_bytes: int = _PAGES_MIN * _PAGE_BYTES
    items: int = 1


@dataclass(frozen=True, slots=True)
class DeleteMemory:
    """Remove one memory. Result: whether it was there."""

    id: str
    size_bytes: int
    items: int = 1


@dataclass(frozen=True, slots=True)
class Relate:
    """
    Note a fact about two concepts, which are made or confirmed. Result: whether anything changed.

    The same open fact told again takes the strength, and the beginning and the end where these
    are given. One that begins later is not told again by one without a beginning, which ends there.
    With *replaces*, other facts of (source, relation) that would hold beside it are closed at its
    beginning, which is *now_us* if none is given.
    """

    source: Name
    relation: str
    target: Name
    strength: float
    valid_from_us: int | None
    valid_to_us: int | None
    replaces: bool
    now_us: int
    items: int = 1

    @property
    def size_bytes(self) -> int:
        # Besides its own row that of the same fact as it was told for later.
        pages = _PAGES_MIN + 2 + (2 * CLOSED_MAX if self.replaces else 0)
        return pages * _PAGE_BYTES + naming_bytes(self.source) + naming_bytes(self.target)


@dataclass(frozen=True, slots=True)
class Unrelate:
    """
    Close facts that hold at a time: of *source*, and where given of *relation* and *target*, both
    names folded. At most *at_once*. Result: (how many, whether there are more).
    """

    source: str
    relation: str | None
    target: str | None
    at_us: int
    at_once: int = 200
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return (_PAGES_MIN + 2 * self.at_once) * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class SetConcept:
    """
    Change what is known of a concept, each where it is not None, and confirm it. An empty type or
    description takes it away. Result: its row, and how often it is mentioned.
    """

    folded: str
    rename: Name | None = None
    type: str | None = None
    description: str | None = None
    confidence: float | None = None
    items: int = 1

    @property
    def size_bytes(self) -> int:
        texts = len(self.type or "") + len(self.description or "")
        name = naming_bytes(self.rename) if self.rename else 0
        return _PAGES_MIN * _PAGE_BYTES + name + 4 * texts


@dataclass(frozen=True, slots=True)
class DeleteConcept:
    """
    Remove a concept, and what ties others to it, of each kind at most *at_once*. Result: (whether
    it was there, whether ties may be left: they name nothing, and are for `SweepLearned`).
    """

    folded: str
    at_once: int
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return (_PAGES_MIN + 2 * self.at_once) * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class ReindexMemories:
    """Write new words of memories, (key, content, terms), where the content is still the same."""

    entries: tuple[tuple[int, str, bytes], ...]
    size_bytes: int
    items: int = 1


class Forgotten(NamedTuple):
    """What one step of forgetting took, and whether there is more to take."""

    memories: int = 0
    concepts: int = 0
    relations: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class ForgetLearned:
    """
    Erase what was learned: relations from *messages*, then memories of *sessions*, both by key,
    with the concepts that only they named, as many as *size_bytes* allow. Result: `Forgotten`.

    For `forget`, before these messages go: what only they name counts as named by nothing.
    """

    messages: tuple[int, ...]
    sessions: tuple[int, ...]
    size_bytes: int
    items: int = 1


@dataclass(frozen=True, slots=True)
class SweepLearned:
    """
    Remove mentions, relations and notes of what is not there, and concepts of these *origins* that
    nothing names any more; at most *at_once* of each. Result: `Forgotten`.

    Args:
        unlooked: concepts too that older messages have not been looked through for.
    """

    origins: tuple[int, ...]
    at_once: int
    unlooked: bool = False
    items: int = 1

    @property
    def size_bytes(self) -> int:
        return (_PAGES_MIN + 6 * self.at_once) * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class ForgetHeard:
    """Erase the names that were heard and are no concepts yet. Result: None."""

    size_bytes: int = 1 << 18
    items: int = 1


@dataclass(frozen=True, slots=True)
class ClearLearned:
    """
    Remove memories, concepts and relations, as many as *size_bytes* allow. Result: `Forgotten`.
    """

    size_bytes: int
    items: int = 1


class NewConcept(NamedTuple):
    """A concept that is made if no other has its folded name."""

    name: str
    folded: str
    origin: int  # TOLD, EXTRACTED or PROPOSED
    confidence: float = 1.0
    type: str | None = None
    description: str | None = None

    @property
    def size_bytes(self) -> int:
        """What making it may write: four pages, and its texts with the note where they are from."""
        texts = len(self.type or "") + len(self.description or "")
        noted = 2 * _PAGE_BYTES if texts else 0
        return naming_bytes(Name(self.name, self.folded)) + 4 * texts + noted


class Mention(NamedTuple):
    """That a source names a concept. A concept that is not there is passed over."""

    folded: str
    confidence: float = 1.0
    why: int = BY_TEXT


class Linked(NamedTuple):
    """
    A message or memory that was looked through.

    Its mentions for the reasons in `replaces` become those of `mentions`; others stay, and so do
    those of concepts in `kept`, though `mentions` has them not. It is passed over if its row is
    gone, or is not the one of `checksum` any more: that is told as a later change.
    """

    key: int
    kind: int  # MESSAGE or MEMORY
    checksum: int  # of the row as it was read: the column `checksum`
    mentions: tuple[Mention, ...]
    replaces: tuple[int, ...] = (BY_TEXT,)
    kept: tuple[int, ...] = ()  # keys of concepts


class LearnedRelation(NamedTuple):
    """
    A relation read in a message. Made if both concepts are there, and none of the same three that
    is open or was read in the same message.
    """

    source: str  # folded
    relation: str
    target: str  # folded
    learned_from: int  # key of the message; it has to be among `Link.sources`
    strength: float = 1.0
    valid_from_us: int | None = None
    valid_to_us: int | None = None


class Heard(NamedTuple):
    """
    How often a name was heard, and in which message last. It is noted only if that message is
    among `Link.sources` and still the same; `times` of 0 removes it.
    """

    folded: str
    name: str
    times: int
    key: int


class Looked(NamedTuple):
    """
    How far older messages were looked through for a concept made later: a row of `unlinked`.

    Its key goes from `before` to `after`, 0 when done. If it is not at `before`, another has
    gone on with it.
    """

    concept: int  # its key
    before: int
    after: int


class LinkResult(NamedTuple):
    """
    What a `Link` did.

    `applied` is False if another had moved the reader or the row of `unlinked` meanwhile: then
    nothing was done, and the caller reads them anew.
    """

    applied: bool
    linked: int = 0  # sources whose mentions differed
    concepts: int = 0  # made
    relations: int = 0  # made
    unmade: int = 0  # concepts that `max_concepts` left no room for


@dataclass(frozen=True, slots=True)
class Link:
    """
    Note what was found in the texts of messages and memories. Result: `LinkResult`.

    Args:
        reader: name of the row of `readers`, for example `links` or `extracts`.
        before, after: its number goes from the one to the other; no row is 0. Both None: it is
            not moved. Backwards too, where a reader has to begin anew.
        sources: what was looked through. A concept is made only if one of these names it that
            is still the same, or a relation of one does.
        concepts: those that may be new; if another has the name, that one stays as it is.
        relations: extracted ones.
        extracted: keys of `sources` that went through the extractor again: relations learned
            from them and not among *relations* are deleted.
        heard: as in `Heard`.
        looked: as in `Looked`; together with *before* and *after*, or alone.

    Notes LINK for each source whose mentions differ, SAVE for each concept and relation made.
    All names of concepts are folded.
    """

    reader: str
    before: int | None
    after: int | None
    sources: tuple[Linked, ...] = ()
    concepts: tuple[NewConcept, ...] = ()
    relations: tuple[LearnedRelation, ...] = ()
    extracted: tuple[int, ...] = ()
    heard: tuple[Heard, ...] = ()
    looked: tuple[Looked, ...] = ()
    items: int = 1

    @property
    def size_bytes(self) -> int:
        """
        What it may write at the most. To be kept well under the WAL's limit by taking fewer
        sources.

        Mentions of one source lie together; in the index by concept each may be on a page of
        its own.
        """
        mentions = sum([len(source.mentions) for source in self.sources])
        return (
            16 * _PAGE_BYTES
            + len(self.sources) * _PAGE_BYTES
            + mentions * _PAGE_BYTES
            + sum([concept.size_bytes for concept in self.concepts])
            + (4 * _PAGE_BYTES + 64) * len(self.relations)
            + 2 * _PAGE_BYTES * len(self.extracted)
            + sum([_NAME_TIMES * len(heard.name) + 64 for heard in self.heard])
            + min(len(self.heard), 64) * _PAGE_BYTES
        )


LearnedOp = (
    Remember
    | EditMemory
    | CloseMemory
    | DeleteMemory
    | Relate
    | Unrelate
    | SetConcept
    | DeleteConcept
    | ReindexMemories
    | ForgetLearned
    | SweepLearned
    | ForgetHeard
    | ClearLearned
    | Link
)
LEARNED = (
    Remember,
    EditMemory,
    CloseMemory,
    DeleteMemory,
    Relate,
    Unrelate,
    SetConcept,
    DeleteConcept,
    ReindexMemories,
    ForgetLearned,
    SweepLearned,
    ForgetHeard,
    ClearLearned,
    Link,
)


def naming_bytes(name: Name) -> int:
    """What naming a concept may write: its row, if it is new, and pages of four trees."""
    return 4 * _PAGE_BYTES + _NAME_TIMES * len(name.shown)
