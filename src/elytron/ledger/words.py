"""
Words: the full-text index, kept up with the messages and merged, in commits that fit into the WAL.

FTS5's own merging is off: it writes hundreds of pages in one commit now and then. Here it is done
in steps whose cost is known beforehand. Measured on SQLite 3.54: to merge a page writes up to 8
frames, and each segment of the level that is being merged up to 5 more, in every step.
"""

import functools
from collections.abc import Sequence

import apsw

from elytron.ledger import rows
from elytron.ledger.connection import FRAME_BYTES
from elytron.ledger.database import Database

_FRAMES_PER_PAGE = 8
_FRAMES_PER_SEGMENT = 5
_FRAMES_ALWAYS = 16
# A commit that indexes: 20 frames, whatever it is, and five times the bytes of the hashed terms.
_INDEX_FRAMES = 20
_INDEX_TIMES = 5
_STEP_PAGES = 8
_STRUCTURE = 10  # the row of FTS5's data that lists the segments
_V2 = b"\xff\x00\x00\x01"


def index_bytes(terms_bytes: int) -> int:
    """What indexing messages with so many bytes of hashed terms may write to the WAL."""
    return _INDEX_FRAMES * FRAME_BYTES + _INDEX_TIMES * terms_bytes


def merge_bytes(pages: int, segments: int) -> int:
    """What merging so many pages of a level of so many segments may write to the WAL."""
    frames = _FRAMES_PER_PAGE * pages + _FRAMES_PER_SEGMENT * segments + _FRAMES_ALWAYS
    return frames * FRAME_BYTES


def step_pages(segments: int, *, wal_limit_bytes: int) -> int:
    """How many pages one step may merge, so that it fits into the WAL; 0 if not one."""
    for pages in range(_STEP_PAGES, 0, -1):
        if merge_bytes(pages, segments) <= wal_limit_bytes // 2:
            return pages
    return int(merge_bytes(1, segments) <= wal_limit_bytes * 7 // 8)


@functools.singledispatch
def segments(db: Database) -> tuple[int, int]:
    """(of the largest level, in all): how many segments the index has."""
    raise TypeError(type(db).__name__)


@segments.register
def _(db: apsw.Connection) -> tuple[int, int]:
    # From FTS5's own record: a cookie, a mark of version 2, then varints: levels, segments, a
    # counter; for each level how many are being merged and how many there are, and eight numbers
    # for each of these.
    block = db.execute("SELECT block FROM words_data WHERE id = ?", (_STRUCTURE,)).get or b""
    if block[4:8] != _V2:
        return 0, 0
    numbers = rows.varints(block[8:])
    if len(numbers) < 3:
        return 0, 0
    levels, total = numbers[0], numbers[1]
    largest, place = 0, 3
    for _ in range(levels):
        if place + 1 >= len(numbers):
            break
        count = numbers[place + 1]
        largest = max(largest, count)
        place += 2 + 8 * count
    return largest, total


@functools.singledispatch
def merge(db: Database, pages: int) -> bool:
    """
    Merge so many pages, in the caller's transaction; whether there may be more to do.

    Negative: all segments are to become one, as by FTS5's `optimize`; steps with a positive
    number go on with it.
    """
    raise TypeError(type(db).__name__)


@merge.register
def _(db: apsw.Connection, pages: int) -> bool:
    before = db.total_changes()
    db.execute("INSERT INTO words(words, rank) VALUES('merge', ?)", (pages,))
    return db.total_changes() - before >= 2  # as FTS5's documentation has it


@functools.singledispatch
def add(db: Database, entries: Sequence[tuple[int, bytes]]) -> None:
    """Put messages into the index: their keys and hashed terms. In the caller's transaction."""
    raise TypeError(type(db).__name__)


@add.register
def _(db: apsw.Connection, entries: Sequence[tuple[int, bytes]]) -> None:
    sql = "INSERT INTO words(rowid, terms) VALUES(?, ?)"
    db.executemany(sql, [(key, rows.to_tokens(terms)) for key, terms in entries])


@functools.singledispatch
def remove(db: Database, keys: Sequence[int]) -> None:
    """Take messages out of the index, those that are in it."""
    raise TypeError(type(db).__name__)


@remove.register
def _(db: apsw.Connection, keys: Sequence[int]) -> None:
    db.executemany("DELETE FROM words WHERE rowid = ?", [(key,) for key in keys])


@functools.singledispatch
def reset(db: Database) -> None:
    """Empty the index."""
    raise TypeError(type(db).__name__)


@reset.register
def _(db: apsw.Connection) -> None:
    # Whole pages are let go, and overwriting each would take the WAL to the index's size. They
    # hold hashes, nobody's words, and are used again by the index that is made now.
    db.pragma("secure_delete", "fast")
    try:
        db.execute("INSERT INTO words(words) VALUES('delete-all')")
    finally:
        db.pragma("secure_delete", 1)
