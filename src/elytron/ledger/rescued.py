"""
Rescued: the rows of a damaged ledger, known again by their shape and their checksums.

A row that has a checksum is believed if it is right; of what has none, only mentions, uses, changes
and where concepts were described are taken, whose numbers are compared with the rows that they are
about; and names that were heard, which tell their folded ones. Entries of indexes tell which rows
there were.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from elytron.ledger import rows
from elytron.ledger.moves import TAKEN_OVER
from elytron.ledger.pages import Image, Record
from elytron.ledger.schema import DELETE, EDIT, SAVE
from elytron.text import fold, folded_words

Row = tuple[Any, ...]
# Columns in number; where the checksum is; columns that are real numbers. SQLite stores a whole
# one as an integer, and it has to be a real one again for the checksum.
_SHAPES: dict[int, tuple[tuple[str, int, tuple[int, ...]], ...]] = {
    15: (("messages", 13, ()), ("memories", 11, (4,))),
    9: (("concepts", 8, (5,)), ("relations", 8, (4,))),
    5: (("users", 4, ()),),
    4: (("sessions", 3, ()), ("marks", 3, (1,))),
}
# Of sessions and users an index has the names once more.
_HELD = ("messages", "memories", "concepts", "relations", "marks", "mentions", "described")
_MOVING = ("segment-", "run-", TAKEN_OVER)
# Beside ids in an index, these look like ids: places of readers, and settings of the word index.
_NO_IDS = ("links", "extracts", "vectors", "version", "secure-delete", "automerge", "crisismerge")
# In the order in which they can be written: first those that others name.
NAMED = ("sessions", "users", "concepts")
TEXTS = ("messages", "memories")
ABOUT = ("relations", "marks", "mentions", "uses", "described")


@dataclass(slots=True)
class Outline:
    """
    What one look over a ledger's pages tells of it, besides its rows.

    Attributes:
        agent: whose it says that it is.
        messages: the keys of the messages that there were, by their rows or by an index.
        ids: id by key, of whatever has one, by an index: not verified.
        gone_at: of what was deleted, by the list of changes: its key, and the number of that change
            with what kind of thing it was.
        back_at: of what came back, as from the archive: its key, and the number of that change.
        edited: keys, by the same list.
        made_at: the number at which it was made anew, if it was; those above may be of other things
            in what it was made of.
        first, ordinal: where this list begins; `first` is 0 if it knows of all that ever changed.
        moving: whether messages were on their way into the archive, or out of it.
        gone: kind and id, or kind 0 and key, of what was deleted meanwhile.
        trees: name by first page.
        last: the greatest number of the ledger's sequence.
        damaged_pages: of what cannot be made anew, as far as that is known, that are cut off, or on
            which a record or more is not what was written.
    """

    agent: str | None = None
    languages: str | None = None
    messages: set[int] = field(default_factory=set)
    ids: dict[int, str] = field(default_factory=dict)
    gone_at: dict[int, tuple[int, int]] = field(default_factory=dict)
    back_at: dict[int, int] = field(default_factory=dict)
    edited: set[int] = field(default_factory=set)
    made_at: int = 0
    first: int = 0
    ordinal: int = sys.maxsize
    last: int = 0
    moving: bool = False
    gone: set[tuple[int, str]] = field(default_factory=set)
    trees: dict[int, str] = field(default_factory=dict)
    damaged_pages: int = 0

    @property
    def deleted(self) -> dict[int, int]:
        """The keys of what was deleted and did not come back, each with its kind."""
        return deleted_in([self])


def deleted_in(outlines: Iterable[Outline]) -> dict[int, int]:
    """The same of several states of a ledger together: what became of each thing last."""
    gone, back = dict[int, tuple[int, int]](), dict[int, int]()
    for one in outlines:
        for key, change in one.gone_at.items():
            gone[key] = max(change, gone.get(key, change))
        for key, seq in one.back_at.items():
            back[key] = max(seq, back.get(key, seq))
    return {key: kind for key, (seq, kind) in gone.items() if seq > back.get(key, 0)}


def known(record: Record) -> tuple[str, Row] | None:
    """Which table a record is a row of, and its values; None if it is no row that can be taken."""
    if record.rowid is None:
        match record.values:
            case (int(), int(), int() | float() as confidence, 0 | 1 | 2):
                source, concept, _, told = record.values
                return "mentions", (source, concept, float(confidence), told)
            case (str(folded), str(name), int(times), int(key)) if times > 0 < key:
                if folded == " ".join(folded_words(name)):
                    return "heard", record.values
        return None
    values = (record.rowid, *record.values[1:])
    for table, at, reals in _SHAPES.get(len(values), ()):
        row = tuple(
            [float(v) if i in reals and type(v) is int else v for i, v in enumerate(values)]
        )
        if rows.checksum(row[:at]) == row[at] and _fits(table, row):
            return table, row
    match values:
        case (int(), int(), 1 | 2 | 3):  # a use has a time there
            return "described", values
        case (int(), int(), int()):
            return "uses", values
    return None


def _fits(table: str, row: Row) -> bool:
    """Tables with equally many columns are told apart by the second one."""
    return (type(row[1]) is str) == (table not in ("relations", "marks"))


def outline(image: Image, *, only: Callable[[int], bool] = lambda _: True) -> Outline:
    """What the pages tell besides the rows; *only* some of them."""
    found = Outline(trees={1: "sqlite_schema"})
    damaged: list[int] = []
    for number in filter(only, image.numbers()):
        broken: list[int | None] = []
        wrong = False
        for record in image.records(number, on_broken=broken.append):
            wrong = not _note(found, record) or wrong
        if wrong or broken or image.is_unreadable(number):
            damaged.append(number)
    found.last = max([found.last, *found.messages, *found.ids, *found.gone_at, *found.back_at])
    trees = [found.trees.get(image.root(number)) for number in damaged]
    held = _HELD if "messages_place" in trees else _HELD[1:]  # which tells what messages there were
    found.damaged_pages = sum(tree is None or tree in held for tree in trees) + image.missing()
    return found


def is_kept(tree: str | None) -> bool:
    """Whether a tree of this name, or one that is not known, has what cannot be made anew."""
    return tree is None or tree in _HELD


def _note(found: Outline, record: Record) -> bool:
    """Note what a record tells; whether it is what was written, as far as that can be seen."""
    if _note_change(found, record):
        return True
    match record:
        case Record(int(), (str(), str(tree), str(), int(root), _)):
            if root:  # else it has no pages of its own
                found.trees[root] = tree
        case Record(None, (int(), int(), int(key))):  # the index on a session's positions
            found.messages.add(key)
        case Record(None, ("agent", str(name))):
            found.agent = name
        case Record(None, ("languages", str(names))):
            found.languages = names
        case Record(None, (str(id), int(key))) if id not in _NO_IDS:
            # Of a user or concept there are two: the one that is not folded tells more.
            before = found.ids.get(key)
            if before is None or before == fold(before):
                found.ids[key] = id
        case Record(int(key), values) if len(values) in _SHAPES:
            row = known(record)
            if row is not None and row[0] == "messages":
                found.messages.add(key)
            return row is not None
    return True


def _note_change(found: Outline, record: Record) -> bool:
    """Note what the list of changes tells, or a note of moving; whether it was one."""
    match record:
        case Record(int(seq), (None, int(ordinal), int(op), int(kind), int(key))):
            found.last = max(found.last, seq)
            if ordinal < found.ordinal:
                found.ordinal, found.first = ordinal, 0 if ordinal == 1 else seq
            if op == DELETE and key == seq:  # by which a repair notes that its list begins there
                found.made_at = max(seq, found.made_at)
            elif op == DELETE:
                found.gone_at[key] = max((seq, kind), found.gone_at.get(key, (0, 0)))
            elif op == SAVE and key != seq:  # else it is new
                found.back_at[key] = max(seq, found.back_at.get(key, 0))
            elif op == EDIT:
                found.edited.add(key)
        case Record(None, (str(name), str())) if name.startswith(_MOVING):
            found.moving = True
        case Record(None, (int(kind), str(id), int())):
            found.gone.add((kind, id))
        case _:
            return False
    return True


def rows_of(
    image: Image, tables: Iterable[str], *, only: Callable[[int], bool] = lambda _: True
) -> Iterator[tuple[str, Row]]:
    """The whole rows of some tables, in no order; *only* on some pages."""
    wanted = frozenset(tables)
    for number in filter(only, image.numbers()):
        for record in image.records(number, on_broken=lambda _: None):
            found = known(record)
            if found is not None and found[0] in wanted:
                yield found
