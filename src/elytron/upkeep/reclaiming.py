"""
Reclaiming: unused bytes, back to the file system, while saves go on.

In steps: each is one short commit. What steps cannot reach, bytes unused within pages, takes a
rebuild of the whole file; that is done only where it pays, and where the disk has room for it.
"""

import logging
import time

from elytron.errors import Busy, DiskFull
from elytron.ledger import ops, words
from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.room import NoRoom
from elytron.reports import Reclaimed
from elytron.upkeep.desk import Desk

READER = "a reader keeps the WAL; it is emptied when that has ended"
_log = logging.getLogger("elytron.upkeep")
_STEP_PAGES = 64  # a quarter of a megabyte: saves wait for one step at most
_MERGE_STEPS_MAX = 2_000
# A rebuild pays where a third of the live bytes are unused, and there are enough of them.
_UNUSED_SHARE = 1 / 3
_REBUILD_MIN_BYTES = 1 << 20


def reclaim(desk: Desk, *, full: bool = False, merge: bool = False) -> Reclaimed:
    """
    Give back what is unused.

    Args:
        full: rebuild the file, whatever its state.
        merge: merge the whole word index, so that no deleted entry is left in it.
    """
    before = sum(desk.ledger.file_sizes())
    put_off, rebuilt = None, False
    if merge or full:
        try:
            merge_words(desk)
        except (
            NoRoom
        ) as error:  # it writes before it frees; the rest can be given back all the same
            put_off = f"merging the word index: {error}"
            _log.info("merging the words of %s is put off: %s", desk.ledger.source, error)
    vacuum(desk)
    pages = desk.pages(unused=True)
    worth_it = (
        pages.live_bytes >= _REBUILD_MIN_BYTES
        and pages.unused_bytes > _UNUSED_SHARE * pages.live_bytes
    )
    if full or worth_it:
        try:
            desk.ledger.rebuild(_deadline(desk))
            rebuilt = True
        except (Busy, DiskFull) as error:
            if full:
                raise
            put_off = put_off or str(error)
            _log.info("rebuilding %s is put off: %s", desk.ledger.source, error)
    if not empty_wal(desk):
        put_off = put_off or READER
    after = sum(desk.ledger.file_sizes())
    return Reclaimed(desk.name, before, after, rebuilt, put_off)


def vacuum(desk: Desk) -> None:
    """Give unused pages back, in steps, until there are none."""
    step = max(1, min(_STEP_PAGES, desk.config.wal_limit_bytes // PAGE_BYTES // 8))
    while desk.pages().free and desk.commit(ops.Vacuum(step)):
        pass


def merge_words(desk: Desk) -> None:
    """
    Merge the word index in steps, until each deleted entry is out of it.

    Where a step would not fit into a small WAL, segments are merged as they come due instead.
    """
    for number in range(_MERGE_STEPS_MAX):
        largest, total = desk.read(words.segments)
        limit_bytes = desk.config.wal_limit_bytes
        begin = number == 0 and words.step_pages(total, wal_limit_bytes=limit_bytes) > 0
        segments = total if begin else largest
        pages = words.step_pages(segments, wal_limit_bytes=limit_bytes)
        size_bytes = words.merge_bytes(pages, segments)
        if not pages or not desk.commit(ops.MergeWords(pages, size_bytes, begin)):
            return


def merge_due(desk: Desk) -> None:
    """Merge what deletions have left in the word index, where that is a tenth or more."""
    for _ in range(_MERGE_STEPS_MAX):
        segments, _ = desk.read(words.segments)
        pages = words.step_pages(segments, wal_limit_bytes=desk.config.wal_limit_bytes)
        size_bytes = words.merge_bytes(pages, segments)
        if not pages or not desk.commit(ops.MergeWords(pages, size_bytes)):
            return


def empty_wal(desk: Desk) -> bool:
    """Cut the WAL to nothing; False if a reader keeps it."""
    try:
        desk.ledger.empty_wal(_deadline(desk))
    except Busy as error:
        _log.info("%s", error)
        return False
    return True


def _deadline(desk: Desk) -> float:
    # Our own readers end within their timeout.
    return time.monotonic() + min(desk.config.save_timeout_s, desk.config.read_timeout_s + 1)
