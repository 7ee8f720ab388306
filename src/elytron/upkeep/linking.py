"""
Linking: which messages and memories name which concepts, made in bounded steps.

A step reads the next texts that were saved or edited, finds the known names in them, proposes new
concepts from what recurs, and writes it all as one op. Then it is the turn of concepts that were
made later than the texts that name them. Another process may do the same at the same time: an op
is applied only where the reader still stands where it was read.

When a step is due is decided elsewhere (`background.py`); what a caller's own function extracts is
in `extracting.py`.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from elytron.concepts import proposals
from elytron.concepts.known import KnownNames
from elytron.concepts.names import Names
from elytron.config import Config
from elytron.ledger import texts
from elytron.ledger.database import Database
from elytron.ledger.learned import (
    BY_TEXT,
    Heard,
    Link,
    Linked,
    LinkResult,
    Looked,
    Mention,
    NewConcept,
)
from elytron.ledger.ledgers import Ledger
from elytron.ledger.schema import PROPOSED
from elytron.ledger.texts import Text
from elytron.text import Analyzer
from elytron.upkeep import looking_back
from elytron.upkeep.following import Following

READER = "links"
_log = logging.getLogger("elytron.upkeep")
_TEXTS_MAX = 200  # in a step
_TEXT_BYTES = 1 << 20  # of those that name concepts made later, read at once
_CONCEPTS_MAX = 2000  # made later, that one step looks for
_NAMES_MAX = 100  # of one text
_LITTLE = 3  # a third of what may be written: twice as many texts fit
_GIVE_WAY = 8  # texts, about a millisecond
_SPEAKERS = ("user", "assistant")  # what a tool or program says has other capitals


class _Page(NamedTuple):
    """Texts to be linked, and how far the reader comes with them."""

    before: int
    after: int
    texts: list[Text]


class Linking:
    """One agent's links. One step at a time; another process may be at it too."""

    def __init__(
        self,
        ledger: Ledger,
        write: Callable[[Link, float], LinkResult],
        *,
        config: Config,
        analyzer: Analyzer,
        known: KnownNames,
    ) -> None:
        """
        Args:
            write: applies an op durably; waits no longer than to a time on the monotonic clock.
            known: the names of the agent's concepts, shared with whoever else asks for them.
        """
        self._ledger = ledger
        self._write = write
        self._config = config
        self._analyzer = analyzer
        self._known = known
        self._limit_bytes = config.wal_limit_bytes // 2
        self._capitals = "german" not in analyzer.names
        self._following = Following(READER)
        self._went_forward = False
        self._forward_max = self._backward_max = _TEXTS_MAX  # texts that may well fit

    def step(self, until_s: float = math.inf) -> bool:
        """
        Look at up to 200 texts, or 1 MB of them, fewer if `wal_limit_mb` is small; returns whether
        there may be more to do.

        Args:
            until_s: when the caller will wait no longer, on the monotonic clock.

        Raises:
            OverBudget, Busy, and what else a write may raise: nothing was changed, and the next
                step begins where this one did.
        """
        if not self._config.link_concepts:
            return False
        with self._ledger.reading(snapshot=True) as db:
            # Where others save without end there are always new texts: older ones get a turn too.
            op = self._backward(db) if self._went_forward else None
            op = op or self._forward(db) or self._backward(db)
        self._went_forward = op is not None and op.before is not None
        if op is None:
            return False
        result = self._write(op, until_s)
        if result.applied and op.before is not None:
            self._following.moved()
        if result.unmade:
            _log.info(
                "%s: %s concepts were not made: `max_concepts` is %s",
                self._ledger.source, result.unmade, self._config.max_concepts,
            )  # fmt: skip
        return True

    def goal(self) -> Callable[[], bool]:
        """
        What there is to do by now: a function that says whether that is done. For one thread.

        First the texts; then, for the concepts that there are by then, older texts.
        """
        with self._ledger.reading() as db:
            newest = texts.newest(db)
        last: int | None = None  # of the concepts

        def is_done() -> bool:
            nonlocal last
            if not self._config.link_concepts:
                return True
            with self._ledger.reading(snapshot=True) as db:
                if last is None:
                    if not self._following.has_passed(db, newest):
                        return False
                    last = texts.last_unlinked(db)
                return not texts.is_unlinked(db, last)

        return is_done

    # -- new and changed texts

    def _forward(self, db: Database) -> Link | None:
        """What to write for the next texts; None if there are none."""
        most, names_max = self._forward_max, _NAMES_MAX
        while True:
            page = self._page(db, most)
            if page is None:
                return None
            op = self._linked(db, page, names_max)
            if op.size_bytes <= self._limit_bytes or names_max == 0:
                self._forward_max = self._likely(op, most)
                return op
            most, names_max = _smaller(len(page.texts), names_max)

    def _page(self, db: Database, most: int) -> _Page | None:
        page = self._following.page(db, most=most)
        if page is None:
            return None
        return _Page(page.before, page.after, texts.texts(db, page.found, self._ledger.source))

    def _linked(self, db: Database, page: _Page, names_max: int) -> Link:
        known = self._known.at(db, self._ledger.source)
        heard, concepts, named = self._proposed(db, page.texts, names_max)
        return Link(
            READER,
            page.before,
            page.after,
            sources=self._sources(known, page.texts, named, {}, names_max),
            concepts=concepts,
            heard=heard,
        )

    def _sources(
        self,
        known: KnownNames,
        found: Sequence[Text],
        named: dict[int, list[Mention]],
        held: dict[int, list[int]],
        names_max: int,
    ) -> tuple[Linked, ...]:
        """
        What each text names, up to *names_max* concepts.

        Args:
            named: concepts that are just being made, by the key of the text.
            held: by the key of the text concepts that it was found to name, as it still is: what
                it called them before they were renamed stays.
        """
        sources = []
        for number, text in enumerate(found):
            _give_way(number)
            mentions = list(named.get(text.key, ()))
            found_in = known.find(text.content)
            for key, confidence in found_in.items():
                called = known.called(key)
                if called is not None:  # not deleted by another thread meanwhile
                    mentions.append(Mention(called[1], confidence, BY_TEXT))
            kept = [
                key
                for key in held.get(text.key, ())
                if key in found_in or not _stands(key, known, text.content)
            ]
            some = tuple(mentions[:names_max])
            sources.append(Linked(text.key, text.kind, text.checksum, some, kept=tuple(kept)))
        return tuple(sources)

    def _proposed(
        self, db: Database, found: Sequence[Text], names_max: int
    ) -> tuple[tuple[Heard, ...], tuple[NewConcept, ...], dict[int, list[Mention]]]:
        """What was heard in these texts, what of it becomes a concept, and which name that."""
        if not self._config.propose_concepts:
            return (), (), {}
        candidates = {}
        for number, text in enumerate(found):
            _give_way(number)
            if text.role in _SPEAKERS:
                some = proposals.candidates(text.content, capitals=self._capitals)
                candidates[text.key] = some[:names_max]
        new = {one.folded for some in candidates.values() for one in some}
        new = {folded for folded in new if folded not in self._known}
        if not new:
            return (), (), {}
        heard = dict(texts.heard(db, new))
        for key, some in candidates.items():
            for one in some:
                name, times, last = heard.get(one.folded, (one.name, 0, 0))
                # A message that is read again, as after an edit, does not count again.
                if one.folded in new and key > last:
                    heard[one.folded] = (name, times + 1, key)
        made = {
            folded: NewConcept(name, folded, PROPOSED, proposals.confidence(times))
            for folded, (name, times, _) in heard.items()
            if times >= proposals.TIMES_MIN
        }
        named = {
            key: [
                Mention(one.folded, made[one.folded].confidence, BY_TEXT)
                for one in some
                if one.folded in made
            ]
            for key, some in candidates.items()
        }
        return (
            tuple(
                [
                    Heard(folded, name, 0 if folded in made else times, last)
                    for folded, (name, times, last) in heard.items()
                ]
            ),
            tuple(made.values()),
            named,
        )

    # -- concepts that were made later than the texts that name them

    def _backward(self, db: Database) -> Link | None:
        """What to write for the concepts with the newest texts left; None if there are none."""
        waiting = looking_back.waiting(db, most=min(_CONCEPTS_MAX, self._limit_bytes >> 8))
        if not waiting:
            return None
        known = self._known.at(db, self._ledger.source)
        most, names_max = self._backward_max, _NAMES_MAX
        while True:
            wanted, floor = looking_back.search(db, known, self._analyzer, waiting, most)
            wanted, floor = self._fitting(db, wanted, floor)
            found = texts.texts(db, wanted, self._ledger.source)
            held = texts.mentioned(db, [text.key for text in found])
            op = Link(
                READER,
                None,
                None,
                sources=self._sources(known, found, {}, held, names_max),
                looked=tuple([Looked(key, top, floor) for key, top in waiting if top > floor]),
            )
            if op.size_bytes <= self._limit_bytes or names_max == 0:
                self._backward_max = self._likely(op, most)
                return op
            most, names_max = _smaller(len(found), names_max)

    def _likely(self, op: Link, most: int) -> int:
        """
        How many texts the next op is begun with, by one that fitted: as many, so that they are
        seldom looked through only to find that they are too many; more where these took little.
        """
        small = len(op.sources) >= most and op.size_bytes <= self._limit_bytes // _LITTLE
        return min(_TEXTS_MAX, 2 * most) if small else most

    def _fitting(
        self, db: Database, wanted: list[tuple[int, int]], floor: int
    ) -> tuple[list[tuple[int, int]], int]:
        """As many as are 1 MB of text, and how far down one comes with these."""
        count = texts.fitting(db, wanted, bytes_max=_TEXT_BYTES) if wanted else 0
        return (wanted[:count], wanted[count][1]) if count < len(wanted) else (wanted, floor)


def _stands(key: int, known: KnownNames, content: str) -> bool:
    """Whether a text has a concept's name, be it within the longer name of another."""
    called = known.called(key)
    return called is not None and bool(Names([(key, called[0], 1.0)]).find(content))


def _give_way(number: int) -> None:
    """
    Let other threads run after every few texts: who asks or saves meanwhile would else wait 5 ms
    for Python, each time that it has been in SQLite.
    """
    if number % _GIVE_WAY == 0:
        time.sleep(0)


def _smaller(count: int, names_max: int) -> tuple[int, int]:
    """What to try where an op was too large: half the texts, or half the names of the only one."""
    return (count // 2, names_max) if count > 1 else (1, names_max // 2)
