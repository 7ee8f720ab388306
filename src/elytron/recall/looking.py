"""
Looking: what the second pass of ranking sees in a text, for one question. Pure.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta, timezone

from elytron.ledger import rows
from elytron.recall.dates import Span, asks_when, has_time, spans
from elytron.recall.question import Question
from elytron.recall.rank import Looked
from elytron.records import Memory, Message
from elytron.text import HASH_BYTES, Analyzer, QueryTerm

Text = Message | rows.Held | Memory
_SENTENCES = re.compile(r"(?<=[.?!\u2026\u3002\uff1f\uff01])\s+")
_ASKS = ("?", "\uff1f", "\u061f", "\u037e")
_READ_MAX = 4000  # characters of a text that are looked at
_DAYS_MAX = 31  # of a question, looked for in the index one by one
_DAY_US = 86_400_000_000
_SOON_US = 10 * _DAY_US  # one tells of what was lately
_SOON = 0.5


class Looking:
    """What one question wants of a text besides its words."""

    def __init__(self, question: Question) -> None:
        self._spans = spans(question.text[:_READ_MAX], at=question.at)
        # Of the offset by which they were found: a zone may have another on that day.
        self._zone = timezone(question.at.utcoffset() or timedelta())
        self.when = asks_when(question.text)

    def at(self, text: Text, *, asking: bool) -> Looked:
        """
        What there is to see of a message or memory.

        Args:
            asking: look for questions in it, too.
        """
        content = text.content[:_READ_MAX]
        is_memory = isinstance(text, Memory)
        return Looked(
            identity(text),
            text.importance,
            text.pinned,
            _asking_share(content) if asking and not is_memory else 0.0,
            self.when and has_time(content),
            self._dated(content, _said_at(text)) if self._spans else 0.0,
        )

    def _dated(self, content: str, at: datetime) -> float:
        """1 if a text is of a day that the question names, or tells of one; less if soon after."""
        at_us = rows.to_us(at)
        said = Span(at_us, at_us + 1)
        if any(_meet(wanted, said) for wanted in self._spans):
            return 1.0
        for told in spans(content, at=at):
            if any(_meet(wanted, told) for wanted in self._spans):
                return 1.0
        soon = any(wanted.end_us <= at_us < wanted.end_us + _SOON_US for wanted in self._spans)
        return _SOON if soon else 0.0

    def days(self, analyzer: Analyzer) -> tuple[tuple[bytes, ...], ...]:
        """
        By which terms of the index the days that the question names are found: each group is a
        day, or a whole month. None for what is longer than a month.
        """
        groups: dict[tuple[bytes, ...], None] = {}
        for first, whole in self._named():
            day, year, month = analyzer.date_terms(first)
            groups[(month, year) if whole else (day, month, year)] = None
        return tuple(groups)

    def terms(self, analyzer: Analyzer, asked: Sequence[QueryTerm]) -> tuple[QueryTerm, ...]:
        """
        The days that the question names, as if it said their dates: "yesterday" then weighs what
        "8 May 2023" does, by which messages of that day are indexed. At most three terms, for the
        days, the years and the months; none of what is *asked* already. Their word is empty.
        """
        known = {hashed for term in asked for hashed in term.hashes}
        parts: tuple[dict[bytes, None], ...] = ({}, {}, {})
        for first, whole in self._named():
            date = analyzer.document("", speaker="", at=first)
            day, year, *months = [date[n : n + HASH_BYTES] for n in range(0, len(date), HASH_BYTES)]
            if not whole and day not in known:
                parts[0][day] = None
            if year not in known:
                parts[1][year] = None
            if months and known.isdisjoint(months):  # else it is said in one of the languages
                parts[2][months[0]] = None
        return tuple([QueryTerm("", tuple(part)) for part in parts if part])

    def _named(self) -> Iterator[tuple[datetime, bool]]:
        """The days that the question names, and the first days of whole months; at most 31."""
        left = _DAYS_MAX
        for span in self._spans:
            days, whole = self._days_of(span)
            for day in days[:left]:
                yield day, whole
                left -= 1

    def _days_of(self, span: Span) -> tuple[list[datetime], bool]:
        """
        The days of a span, or the first of a whole month; none if it is longer. Of single days also
        those that they reach into by UTC, of which what is saved without a time is.
        """
        count = -(-(span.end_us - span.start_us) // _DAY_US)
        if not 0 < count <= _DAYS_MAX:
            return [], False
        begun = rows.to_datetime(span.start_us)
        try:
            first = begun.astimezone(self._zone)
            last = first + timedelta(days=count - 1)
        except OverflowError:  # beyond the last day that there is
            return [], False
        # The last day that there is has none after it.
        ends = (last.month, last.day) == (12, 31) or (last + timedelta(days=1)).day == 1
        if first.day == 1 and ends:
            return [first], True
        days = [first + timedelta(days=n) for n in range(count)]
        different: dict[date, datetime] = {}
        for day in (*days, begun, rows.to_datetime(span.end_us - 1)):
            different.setdefault(day.date(), day)
        return list(different.values()), False


def identity(text: Text) -> tuple[str, str | None]:
    """By what equal ones are told: what is said, and who says it; a memory is said by nobody."""
    return text.content, None if isinstance(text, Memory) else text.speaker


def _said_at(text: Text) -> datetime:
    return text.valid_from or text.created if isinstance(text, Memory) else text.at


def _meet(one: Span, other: Span) -> bool:
    return one.start_us < other.end_us and other.start_us < one.end_us


def _asking_share(content: str) -> float:
    """The share of a text's sentences that are questions."""
    if not any(mark in content for mark in _ASKS):
        return 0.0
    sentences = [one for one in _SENTENCES.split(content) if any(c.isalnum() for c in one)]
    asking = sum([1 for one in sentences if one.rstrip().endswith(_ASKS)])
    return asking / max(1, len(sentences))
