"""
Unread: commits in a ledger's log that SQLite did not read, as sources of rows.

What they say is believed as far as it is sure that they were made (`ledger/frames.py`). Of commits
that go on from what SQLite reads, all but the last are a later state of the ledger: what was edited
or deleted in them is edited or deleted. Of all others rows are only added; and not even that where
they go on from nothing and none was surely made: such a one may have failed and been undone, and
whoever wrote it was told so. What the ledger has is never taken from it for their sake.

Who moves messages into the archive removes them from the ledger in the same way as who deletes
them. If the ledger, as it is read, has them again, the archive may have given them up since. So
while a note of such moving stands anywhere, only that is taken for deleted of which another note
says so.

What was forgotten since does not come back, though whoever forgot it could not see all of it: no
row of a session or user is taken that is not there any more, unless the archive has that session.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from elytron.ledger import rescued
from elytron.ledger.frames import Log
from elytron.ledger.pages import Image
from elytron.upkeep.gathering import Later, Source

_MOVING = "moving"  # the table of those notes
# Where a row says since when it is there.
_CREATED_US = {"sessions": 2, "users": 3, "concepts": 7, "messages": 9, "memories": 9}


class Archived(NamedTuple):
    """Ids of messages, and keys of sessions."""

    ids: frozenset[str]
    sessions: frozenset[int]


def sources(
    log: Log,
    main: Source,
    images: contextlib.ExitStack,
    *,
    ledger: Path,
    at_us: int,
    archived: Callable[[], "Archived"],
) -> Iterator[Source]:
    """
    What stands in commits behind the frames of a log that SQLite reads.

    Args:
        main: the ledger as SQLite reads it now.
        images: closes what is opened here.
        at_us: when the log was set aside, or written last: what arrived later is newer.
        archived: what the archive has.
    """
    valid, base = log.valid(), main
    unread = _Unread(log, main, images, ledger=ledger, at_us=at_us, archived=archived)
    for run in log.runs(valid):
        if run.goes_on and run.made:
            made = range(run.frames[0], run.made + 1)
            base = unread.source(made, base=main, later=unread.later(made))
            yield base
        # Of others nothing is known: they may be the rest of what was undone.
        if run.frames[-1] != run.made if run.goes_on else run.made:
            yield unread.source(run.frames, base=base)


def damaged_pages(log: Log, main: Source) -> int:
    """
    How many pages stand damaged behind the frames of a log that SQLite reads, and in no later frame
    again, that may have something on them which cannot be made anew.
    """
    frames = range(log.valid() + 1, log.count + 1)
    newest = {log.place(number): number for number in frames if log.is_ours(number)}
    damaged = set(log.damaged(frames))
    trees = main.outline.trees
    return sum(
        number in damaged and rescued.is_kept(trees.get(main.image.root(place)))
        for place, number in newest.items()
    )


class _Unread:
    """The frames of one log."""

    def __init__(
        self,
        log: Log,
        main: Source,
        images: contextlib.ExitStack,
        *,
        ledger: Path,
        at_us: int,
        archived: Callable[[], "Archived"],
    ) -> None:
        self._log = log
        self._at_us = at_us
        self._main = main
        self._images = images
        self._ledger = ledger
        self._archived = archived
        self._before = dict(main.image.over) | log.pages(range(1, log.valid() + 1))

    def source(self, frames: range, *, base: Source, later: Later | None = None) -> Source:
        """The rows on the pages in some frames."""
        pages = self._log.pages(frames)
        image = self._image(self._ledger, self._before | pages)
        places = frozenset(pages)
        outline = rescued.outline(image, only=places.__contains__)
        main = self._main.outline
        deleted = frozenset(rescued.deleted_in([main, outline]))
        return Source(
            image,
            outline,
            skip=deleted,
            skip_ids=self._archived().ids,
            only=places.__contains__,
            since=main.first,
            forgotten=deleted.intersection(main.deleted) - self._archived().sessions,
            later=later,
            base=base,
            diverged=self._diverged,
        )

    @cached_property
    def _diverged(self) -> frozenset[int]:
        """The numbers that the ledger has given away since SQLite stopped in the log."""
        found = rescued.rows_of(self._main.image, tuple(_CREATED_US))
        return frozenset(row[0] for table, row in found if row[_CREATED_US[table]] > self._at_us)

    def later(self, frames: range) -> Later:
        """What else is known of commits that were made behind what SQLite reads."""
        main = self._main.outline
        # All that stood on any page at some moment, since a note may stand there for one commit.
        pages = {number: self._log.page(number) for number in range(1, frames[-1] + 1)}
        seen = rescued.outline(self._image(None, pages))
        moves = main.moving or seen.moving or self._may_be_note(self._log.damaged(frames))
        return Later(self._at_us, main.edited, seen, moves=moves)

    def _may_be_note(self, damaged: Iterable[int]) -> bool:
        """Whether one of these frames may have held a note of moving."""
        roots = [self._main.image.root(self._log.place(number)) for number in damaged]
        return any(self._main.outline.trees.get(root, _MOVING) == _MOVING for root in roots)

    def _image(self, path: Path | None, pages: dict[int, bytes]) -> Image:
        return self._images.enter_context(contextlib.closing(Image(path, over=pages)))
