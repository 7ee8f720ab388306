"""
Looking back: which older texts may name a concept that was made later than they were.

A few concepts are looked up in the word index. For many at once it takes less to read all texts
with the matcher, which looks for thousands of names as fast as for one.
"""

from collections.abc import Sequence

from elytron.concepts.known import KnownNames
from elytron.concepts.names import Names
from elytron.ledger import texts, word_reads
from elytron.ledger.database import Database
from elytron.ledger.schema import MEMORY, MESSAGE
from elytron.text import Analyzer, fold, split_words

_BY_INDEX_MAX = 200  # concepts; each is a question to the index, of some 0.1 ms
_TEXTS_PER_QUESTION = 4  # that are read in the same time
_SCAN_BYTES = 4 << 20  # read at once


def waiting(db: Database, *, most: int) -> list[tuple[int, int]]:
    """
    (concept, key up to which texts are to be looked through) of as many concepts as are best
    looked for together.
    """
    found = texts.unlinked(db, limit=most)
    if len(found) > _BY_INDEX_MAX and not _are_read(db, found):
        return found[:_BY_INDEX_MAX]
    return found


def _are_read(db: Database, waiting: Sequence[tuple[int, int]]) -> bool:
    """Whether texts are read, and not looked up."""
    return len(waiting) * _TEXTS_PER_QUESTION > texts.count(db)


def search(
    db: Database,
    known: KnownNames,
    analyzer: Analyzer,
    waiting: Sequence[tuple[int, int]],
    most: int,
) -> tuple[list[tuple[int, int]], int]:
    """
    Texts that may name one of the concepts.

    Args:
        waiting: as from `waiting`.
        most: texts at once.

    Returns:
        Their (kind, key), the newest first, and the key down to which none is missing.
    """
    top = waiting[0][1]
    read = _are_read(db, waiting)
    found = _Found(most)
    names = list[tuple[int, str, float]]()
    unknown_to_index = list[tuple[int, str, float]]()
    indexed = 0 if read else texts.indexed(db)
    for concept, up_to in waiting:
        called = known.called(concept)
        if called is None:  # deleted, or damaged
            continue
        names.append((concept, called[0], 1.0))
        if read:
            continue
        hashes = _hashes(called[0], analyzer)
        if hashes:
            up_to = min(up_to, indexed)
            found.add(MESSAGE, word_reads.with_words(db, hashes, up_to=up_to, limit=most + 1))
        else:
            unknown_to_index.append(names[-1])
    sought = Names(names)
    found.scan(db, MESSAGE, sought, up_to=top, above=indexed)
    found.scan(db, MESSAGE, Names(unknown_to_index), up_to=min(top, indexed), above=0)
    found.scan(db, MEMORY, sought, up_to=top, above=0)
    return found.newest()


class _Found:
    """Texts found by several ways, and how far down each of them came."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys = set[tuple[int, int]]()  # (key, kind)
        self._floor = 0

    def add(self, kind: int, keys: Sequence[int]) -> None:
        """Take in keys in falling order; more than `most` of them say that there may be others."""
        if len(keys) > self._most:
            self._floor = max(self._floor, keys[self._most])
        self._keys.update([(key, kind) for key in keys[: self._most]])

    def scan(self, db: Database, kind: int, names: Names, *, up_to: int, above: int) -> None:
        """Read texts one by one, where the index cannot help; 4 MB of them at once."""
        if not len(names) or up_to <= above:
            return
        keys, size = list[int](), 0
        cursor = texts.contents(db, kind, up_to=up_to, above=above)
        for key, content in cursor:
            size += len(content)
            if names.find(content.decode(errors="replace")):
                keys.append(key)
            if size > _SCAN_BYTES or len(keys) > self._most:
                self._floor = max(self._floor, key - 1)
                break
        cursor.close(True)
        self.add(kind, keys)

    def newest(self) -> tuple[list[tuple[int, int]], int]:
        """The newest (kind, key), in falling order, and the key down to which none is missing."""
        ordered = sorted([pair for pair in self._keys if pair[0] > self._floor], reverse=True)
        floor = ordered[self._most][0] if len(ordered) > self._most else self._floor
        return [(kind, key) for key, kind in ordered if key > floor], floor


def _hashes(name: str, analyzer: Analyzer) -> list[tuple[bytes, ...]]:
    """
    For each word of a name the hashes of which messages that have the name have one; empty if the
    index cannot tell.

    A stop word has none: whether it is in the index depends on a text's other words.
    """
    spelt, folded = split_words(name), split_words(fold(name))
    if len(spelt) != len(folded):
        spelt = folded
    words = []
    for pair in zip(spelt, folded, strict=True):
        terms = [term for word in pair for term in analyzer.query(word, terms_max=1)]
        hashes = tuple(dict.fromkeys(hashed for term in terms for hashed in term.hashes))
        if hashes:
            words.append(hashes)
    return words
