"""
Following: the texts that were saved or edited, in the order of changes, page by page.

Where a reader has come to stands in the ledger and moves with what is written for a page. Changes
that are none of its own are passed in memory, so that an idle memory is not written to.
"""

from typing import NamedTuple

from elytron.ledger import texts
from elytron.ledger.database import Database

_TEXT_BYTES = 1 << 20  # of a page
_BEHIND_MAX = 1000  # changes that are none of ours and are passed without noting it


class Page(NamedTuple):
    """(kind, key) of the next texts, where the reader stands, and how far it comes with them."""

    before: int
    after: int
    found: list[tuple[int, int]]


class Following:
    """One reader's way through the changes of one agent. For one thread at a time."""

    def __init__(self, reader: str) -> None:
        self._reader = reader
        self._passed = (0, 0)  # (where the reader stands, how far we have looked)
        self._anew_until: int | None = None

    def page(self, db: Database, *, most: int) -> Page | None:
        """
        The next texts, at most *most* and 1 MB; None if there are none. An empty page is to be
        noted: the reader has fallen behind.
        """
        before = texts.place(db, self._reader)
        place = self._passed[1] if self._passed[0] == before else before
        changed = texts.changed(db, after=place, limit=most)
        if not changed.complete and (self._anew_until is None or place >= self._anew_until):
            # What was edited meanwhile is not known any more: all texts are looked at again, and
            # until that is done, older changes may be missing.
            self._anew_until = texts.newest(db)
            self._passed = (before, 0)
            changed = texts.changed(db, after=0, limit=most)
        if not changed.found:
            self._passed = (before, changed.reached)
            if changed.reached - before <= _BEHIND_MAX:
                return None
            return Page(before, changed.reached, [])
        wanted = [(kind, key) for _, kind, key in changed.found]
        count = texts.fitting(db, wanted, bytes_max=_TEXT_BYTES)
        after = changed.reached if count == len(wanted) else changed.found[count - 1][0]
        return Page(before, after, wanted[:count])

    def has_passed(self, db: Database, newest: int) -> bool:
        """Whether there is nothing to do any more up to a number. For any thread."""
        before, (stood, passed) = texts.place(db, self._reader), self._passed
        return max(before, passed if stood == before else 0) >= newest

    def passed(self, page: Page) -> bool:
        """Nothing of a page is of interest: go on behind it. Whether that is to be noted."""
        self._passed = (page.before, page.after)
        return page.after - page.before > _BEHIND_MAX

    def moved(self) -> None:
        """
        What was made of a page is written.

        Not to be taken for a new beginning when the reader stands again where it stood then.
        """
        self._passed = (0, 0)
