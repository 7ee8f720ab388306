"""
Dates: which days, weeks, months and years a text speaks of, in English and in French. Pure.

What is said ("two weeks ago", "en mars", "the Friday before 15 July") is resolved against a time
that is given: the message's, or the question's. Which words count is told in `date_words.py`; here
they become days. Most texts hold no such word, and are done with after one look.
"""

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import NamedTuple

from elytron.errors import InvalidArgument
from elytron.recall import date_words as words
from elytron.text import fold

SPANS_MAX = 8
TEXT_MAX = 20_000  # characters that are read; the rest of a longer text is not
_READ_MAX = 64  # found in one text before the rest is left: room for repeats
_OPEN_YEARS = 10  # how far "since" and "before" reach
_BEHIND_MAX = 48  # characters before a day that may say what it is to it: "the week before"

_DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1).toordinal()
_MIN = date.min.toordinal() - _EPOCH
_END = date.max.toordinal() - _EPOCH + 1
_HALF_DAYS = {"week": 3, "month": 15, "year": 183}  # what "N units ago" leaves open, each way


class Span(NamedTuple):
    """A stretch of time in microseconds since 1970 UTC; the end is not in it."""

    start_us: int
    end_us: int


class _Days(NamedTuple):
    """Days since 1970, as the text's clock has them; the end is not among them."""

    first: int
    end: int


class _Now(NamedTuple):
    """The day and hour of the text, and whether what has no year lies in the past."""

    day: int
    hour: int
    year: int
    month: int
    past: bool


class _Said(NamedTuple):
    """The parts of what a rule found, by the names of its groups, and when it was said."""

    parts: dict[str, str]
    now: _Now

    def year(self) -> int | None:
        """The year that is given to a day, month or season, if one is."""
        if "y" in self.parts:
            return int(self.parts["y"])
        return self.now.year + _step(self.parts["r"]) if "r" in self.parts else None


def spans(text: str, *, at: datetime, past: bool = True) -> list[Span]:
    """
    The days, weeks, months and years that a text speaks of.

    Args:
        text: Any text; the first TEXT_MAX characters are read.
        at: When it was said. Days are those of its UTC offset.
        past: What leaves the year open ("in May", "on Monday") is the latest that has begun by
            then; if false, the nearest.

    Returns:
        At most SPANS_MAX spans in the order of the text, none twice, within the years 1970 to
        9999. A date that can be read in two ways (07/05/2023) gives both, day first.

    Raises:
        InvalidArgument: *at* has no UTC offset.

    What is counted back is as wide as its unit: a day for days, a week for weeks, 31 days for
    months, a year for years, centred; "a few" is 2 to 5, "a couple" 2 to 3. "Last week" is the
    ISO week before, "last Tuesday" the latest one before the day of *at*. Early, mid and late in a
    month are its days 1-10, 11-20 and 21 on; in a year, four months each. Winter 2022 ends in
    2023. "Since", "after", "before" and "until" give 10 years at most, and what lies past does
    not reach beyond the day of *at*.

    A few microseconds for a sentence in which no word tells of a time, under 0.1 ms for one in
    which some word may; in proportion to the text.
    """
    offset = at.utcoffset()
    if offset is None:
        raise InvalidArgument("`at` has no UTC offset, so its day is unknown; pass an aware time")
    plain = _plain(text)
    if not plain:
        return []
    offset_us = offset // timedelta(microseconds=1)
    day = at.toordinal() - _EPOCH
    now = _Now(day, at.hour, at.year, at.month, past)
    found = dict.fromkeys(_clip(days, offset_us) for days in _read(plain, now))
    return [span for span in found if span is not None][:SPANS_MAX]


def has_time(text: str) -> bool:
    """Whether a text speaks of any day, week, month or year. Costs as `spans` does, or less."""
    plain = _plain(text)
    found = words.grammar().pattern.finditer(plain) if plain else ()
    return any(not _rule(match).startswith("habit") for match in found)


def asks_when(question: str) -> bool:
    """
    Whether a question asks for a time: "when did", "what year", "quand", "à quelle date".

    "When I was young, where did I live?" does not. The first TEXT_MAX characters are read.
    """
    plain = " ".join(fold(question[:TEXT_MAX])[:TEXT_MAX].replace("’", "'").split())
    return words.questions().search(plain) is not None


def _plain(text: str) -> str:
    """The text as the rules want it, or nothing if no word in it tells of a time."""
    folded = fold(text[:TEXT_MAX])[:TEXT_MAX]
    if (
        words.TELLING.isdisjoint(words.WORD.findall(folded))
        and words.DIGITS.search(folded) is None
        and not any(pair in folded for pair in words.PAIRS)
    ):
        return ""
    return " ".join(folded.translate(words.SIGNS).split())


def _rule(match: re.Match[str]) -> str:
    """The rule that fitted: its empty group is the last."""
    assert match.lastgroup is not None
    return match.lastgroup


def _read(plain: str, now: _Now) -> list[_Days]:
    """What each place of a text speaks of, in order."""
    pattern, groups = words.grammar()
    found: list[tuple[int, list[_Days]]] = []  # where in the text it ends, and what it says
    count = 0
    for match in pattern.finditer(plain):
        rule = _rule(match)
        parts = {own: match[name] for own, name in groups[rule] if match[name] is not None}
        said = _MAKE[rule.rstrip("0123456789")](_Said(parts, now))
        made = [days for days in said if days is not None and days.first < days.end]
        if not made:
            continue
        begin, linked = _link(plain, match.start(), made, now)
        while found and found[-1][0] > begin:
            count -= len(found.pop()[1])  # "the Friday before 15 July" speaks of one day
        found.append((match.end(), linked))
        count += len(linked)
        if count >= _READ_MAX:
            break
    return [days for _, made in found for days in made]


def _clip(days: _Days, offset_us: int) -> Span | None:
    """Days of the text's clock as a span, without what lies outside of 1970 to 9999."""
    start_us = max(days.first * _DAY_US - offset_us, 0)
    end_us = min(days.end * _DAY_US - offset_us, _END * _DAY_US)
    return Span(start_us, end_us) if start_us < end_us else None


def _link(plain: str, at: int, made: list[_Days], now: _Now) -> tuple[int, list[_Days]]:
    """What stands before a day and makes another of it: where that begins, and what it makes."""
    behind = plain[max(0, at - _BEHIND_MAX) : at]
    if words.LINKING.isdisjoint(behind.split()[-4:]):
        return at, made
    if match := words.beside().search(behind):
        unit, count, way = match["u"], match["n"], match["way"] or ""
        if match["eve"]:
            unit, count, way = "day", None, "before" if match["eve"] == "veille" else "after"
        made = [_beside(days, unit, count, way) for days in made]
    elif match := words.since().search(behind):
        made = [_open(days, match["way"], now) for days in made]
    else:
        return at, made
    return at - len(behind) + match.start(), made


def _beside(days: _Days, unit: str, count: str | None, way: str) -> _Days:
    """The week before, the Monday after, two days before some days."""
    if way in ("of", "du"):
        return _whole(days.first, words.UNITS[unit], 0)
    sign = 1 if way in ("after", "following", "apres") else -1
    if count is not None:
        return _counted(days.first if sign < 0 else days.end - 1, count, unit, sign=sign)
    edge = days.first if sign < 0 else days.end - 1
    if unit.rstrip("s") in words.WEEKDAYS:
        return _choose(_weekdays(edge, words.WEEKDAYS[unit.rstrip("s")]), edge, sign)
    if words.UNITS[unit] == "weekend":
        return _choose([_whole(edge, "weekend", k) for k in (-2, -1, 0, 1, 2)], edge, sign)
    return _whole(edge, words.UNITS[unit], sign)


def _open(days: _Days, way: str, now: _Now) -> _Days:
    """Since, after, before, until some days: ten years at most."""
    if way in ("before", "avant"):
        return _Days(_shift(days.first, -_OPEN_YEARS, "year"), days.first)
    if way in ("until", "till", "jusqu'a", "jusqu'au", "jusqu'en"):
        return _Days(_shift(days.end, -_OPEN_YEARS, "year"), days.end)
    first = days.end if way in ("after", "apres") else days.first
    end = _shift(first, _OPEN_YEARS, "year")
    return _Days(first, min(end, now.day + 1) if now.past and first <= now.day else end)


# Days, and what is counted in them. A day is a number since 1970, so that none is out of range.


def _date(day: int) -> date:
    return date.fromordinal(min(max(day, _MIN), _END - 1) + _EPOCH)


def _month(index: int) -> _Days:
    """A month, counted from January of the year 0."""
    edges = []
    for year, month in (divmod(index, 12), divmod(index + 1, 12)):
        if 1 <= year <= 9999:
            edges.append(date(year, month + 1, 1).toordinal() - _EPOCH)
        else:
            edges.append(_MIN if year < 1 else _END)
    return _Days(*edges)


def _months(index: int, count: int) -> _Days:
    return _Days(_month(index).first, _month(index + count - 1).end)


def _day(year: int, month: int, day: int) -> _Days | None:
    """One day, if there is such a one."""
    if not (1 <= year <= 9999 and 1 <= month <= 12):
        return None
    days = _month(12 * year + month - 1)
    first = days.first + day - 1
    return _Days(first, first + 1) if days.first <= first < days.end else None


def _whole(day: int, unit: str, step: int) -> _Days:
    """The week (from Monday), weekend, month or year of a day, or one *step* units from it."""
    if unit in ("week", "weekend"):
        monday = day - (day + 3) % 7 + 7 * step  # 1970 began on a Thursday
        return _Days(monday + (5 if unit == "weekend" else 0), monday + 7)
    of = _date(day)
    if unit == "month":
        return _month(12 * of.year + of.month - 1 + step)
    if unit == "year":
        return _months(12 * (of.year + step), 12)
    return _Days(day + step, day + step + 1)


def _shift(day: int, count: int, unit: str) -> int:
    """The day that many units later; the last of a month where it has no such day."""
    if unit in ("month", "year"):
        of = _date(day)
        days = _month(12 * of.year + of.month - 1 + count * (12 if unit == "year" else 1))
        return max(days.first, min(days.first + of.day - 1, days.end - 1))
    return day + count * (7 if unit in ("week", "weekend") else 1)


def _amount(text: str) -> tuple[int, int]:
    """How many a number or its word means, from and to."""
    if text[0].isdecimal():
        return int(text), int(text)
    return next(words.COUNTS[word] for word in reversed(text.split()) if word in words.COUNTS)


def _counted(day: int, count: str, unit: str, *, sign: int, hour: int = 0) -> _Days:
    """What lies so many units before (*sign* -1) or after (1) a day, as wide as the unit."""
    low, high = _amount(count)
    near, far = sign * low, sign * high
    back, ahead = min(near, far), max(near, far)
    if unit.rstrip("s") in words.WEEKDAYS:
        ends = [_choose(_weekdays(day, words.WEEKDAYS[unit.rstrip("s")]), day, sign)]
        return _Days(ends[0].first + 7 * (back - sign), ends[0].end + 7 * (ahead - sign))
    unit = words.UNITS[unit]
    if unit == "hour":
        return _Days(day + (hour + back) // 24, day + (hour + ahead) // 24 + 1)
    if unit == "weekend":
        return _Days(_whole(day, unit, back).first, _whole(day, unit, ahead).end)
    half = _HALF_DAYS.get(unit, 0)
    return _Days(_shift(day, back, unit) - half, _shift(day, ahead, unit) + half + 1)


def _weekdays(day: int, weekday: int) -> list[_Days]:
    """The days of that name in the weeks around a day."""
    monday = _whole(day, "week", 0).first
    return [_Days(monday + weekday + k, monday + weekday + k + 1) for k in range(-14, 15, 7)]


def _choose(among: list[_Days], day: int, step: int | None, *, past: bool = True) -> _Days:
    """
    The one that is meant, of some in order: with step -1 the latest that is over before *day*,
    with 1 the earliest that has not begun, with 0 the nearest. Without a step, the latest that
    has begun if *past*, else the nearest; of two that are as near, the later.
    """
    if step == -1:
        fit = [days for days in among if days.end <= day][-1:]
    elif step == 1:
        fit = [days for days in among if days.first > day][:1]
    elif step is None and past:
        fit = [days for days in among if days.first <= day][-1:]
    else:
        fit = sorted(
            among, key=lambda days: (max(days.first - day, day - days.end + 1), -days.first)
        )[:1]
    return fit[0] if fit else _Days(0, 0)


def _yearly(now: _Now, make: Callable[[int], _Days | None], step: int | None) -> _Days:
    """What comes each year, or in leap years only (the longest gap is eight years)."""
    made = [make(year) for year in range(now.year - 8, now.year + 9)]
    return _choose([days for days in made if days], now.day, step, past=now.past)


def _step(text: str) -> int:
    """Whether a text says last (-1), this (0) or next (1)."""
    if any(word in text for word in ("last", "past", "derni", "passe", "d'avant")):
        return -1
    return int(any(word in text for word in ("next", "coming", "proch", "suivant")))


# What each rule of `date_words.py` makes of its parts.


def _slashed(said: _Said) -> list[_Days | None]:
    a, b, year = int(said.parts["a"]), int(said.parts["b"]), int(said.parts["y"])
    if len(said.parts["y"]) == 2:
        year += 2000 if year < 70 else 1900
    return [_day(year, b, a), _day(year, a, b)]


def _stretch(said: _Said, sign: int) -> _Days:
    """The last three days and what is begun of today, or today and the next three."""
    day, unit = said.now.day, said.parts["u"]
    count = sign * _amount(said.parts.get("n", "few" if unit.endswith("s") else "a"))[1]
    if words.UNITS[unit] == "hour":
        edge = day + (said.now.hour + count) // 24
    else:
        edge = _shift(day, count, words.UNITS[unit])
    return _Days(min(day, edge), max(day, edge) + 1)


def _in_month(said: _Said, name: str, step: int | None = None) -> _Days:
    """The month of that name, in the year that is given or meant."""
    month, year = words.MONTHS[name], said.year()
    if year is not None:
        return _month(12 * year + month - 1)
    return _yearly(said.now, lambda year: _month(12 * year + month - 1), step)


def _nth(said: _Said) -> _Days | None:
    """The first weekend of May; its second week is the days 8 to 14."""
    month = _in_month(said, said.parts["m"])
    n = _ordinal(said.parts["n"])
    kind = words.UNITS.get(said.parts["u"], said.parts["u"])
    width = {"week": 7, "weekend": 2}.get(kind, 1)
    if kind in words.WEEKDAYS or kind == "weekend":
        weekday = words.WEEKDAYS.get(kind, 5)
        begins = [day for day in range(*month) if (day + 3) % 7 == weekday]
    elif kind in ("week", "day"):
        begins = [*range(month.first, month.end - width, width), month.end - width]
    else:
        return None
    if n > len(begins) or not begins:
        return None
    first = begins[n - 1]
    return _Days(first, first + width)


def _part(said: _Said) -> _Days:
    """Early, mid, late in a month or a year; or in the course of it."""
    which = said.parts["p"]
    third = 1 if which.startswith("mi") or "milieu" in which else 0
    third = 2 if which.startswith(("late", "end", "fin", "a la fin")) else third
    if "m" not in said.parts:
        january = 12 * int(said.parts["y"])
        return _months(january, 12) if which == "courant" else _months(january + 4 * third, 4)
    month = _in_month(said, said.parts["m"])
    if which == "courant":
        return month
    first = month.first + 10 * third
    return _Days(first, first + 10 if third < 2 else month.end)


def _ordinal(text: str) -> int:
    """The number in "4", "3rd", "second of" or "premier"; 0 for "last"."""
    digits = "".join(filter(str.isdecimal, text))
    return int(digits) if digits else words.ORDINALS.get(text.split()[0], 0)


def _dated(said: _Said) -> _Days | None:
    """A day of a month, or those from one to another."""
    month = words.MONTHS[said.parts["m"]]
    days = _yearly_day(said, month, _ordinal(said.parts["d"]))
    if days is None or "d0" not in said.parts:
        return days
    return _Days(days.end - 1 - _ordinal(said.parts["d"]) + _ordinal(said.parts["d0"]), days.end)


def _yearly_day(said: _Said, month: int, day: int) -> _Days | None:
    """A day of each year, in the year that is given or meant."""
    year = said.year()
    if year is not None:
        return _day(year, month, day)
    step = _step(said.parts["b"]) if "b" in said.parts else None
    return _yearly(said.now, lambda year: _day(year, month, day), step)


def _monthly(said: _Said) -> _Days:
    """On the 15th, of this month or of one before or after."""
    now, day = said.now, _ordinal(said.parts["d"])
    months = (divmod(12 * now.year + now.month - 1 + k, 12) for k in range(-3, 4))
    made = [_day(year, month + 1, day) for year, month in months]
    return _current(said, [days for days in made if days])


def _relative(said: _Said) -> _Days:
    """Last week, this summer, next Monday, mars dernier."""
    word, step, day = said.parts["w"].rstrip("."), _step(said.parts["b"]), said.now.day
    if word in words.MONTHS:
        return _in_month(said, word, step)
    if word in words.WEEKDAYS:
        return _choose(_weekdays(day, words.WEEKDAYS[word]), day, step)
    if word in words.SEASONS:
        return _yearly(said.now, lambda year: _season_in(word, year), step)
    return _whole(day, words.UNITS[word], step)


def _season_in(word: str, year: int) -> _Days:
    return _months(12 * year + words.SEASONS[word] - 1, 3)


def _season(said: _Said) -> _Days:
    word, year = said.parts.get("w") or said.parts["w2"], said.year()
    if year is not None:
        return _season_in(word, year)
    return _yearly(said.now, lambda year: _season_in(word, year), None)


def _current(said: _Said, among: list[_Days]) -> _Days:
    return _choose(among, said.now.day, None, past=said.now.past)


def _fixed(said: _Said) -> _Days:
    first, last = words.FIXED_DAYS[said.parts["w"]]
    return _Days(said.now.day + first, said.now.day + last + 1)


def _from_now(said: _Said, sign: int) -> _Days:
    now, parts = said.now, said.parts
    return _counted(now.day, parts["n"], parts["u"], sign=sign, hour=now.hour)


_MAKE: dict[str, Callable[[_Said], list[_Days | None]]] = {
    "habit": lambda said: [],  # noqa: ARG005 - every Monday is no day
    "iso": lambda said: [_day(*(int(said.parts[part]) for part in "ymd"))],
    "slashed": _slashed,
    "fixed": lambda said: [_fixed(said)],
    "ago": lambda said: [_from_now(said, -1)],
    "ahead": lambda said: [_from_now(said, 1)],
    "trailing": lambda said: [_stretch(said, -1)],
    "leading": lambda said: [_stretch(said, 1)],
    "before_last": lambda said: [_whole(said.now.day, words.UNITS[said.parts["u"]], -2)],
    "nth": lambda said: [_nth(said)],
    "part": lambda said: [_part(said)],
    "date": lambda said: [_dated(said)],
    "monthly": lambda said: [_monthly(said)],
    "month": lambda said: [_in_month(said, said.parts["m"])],
    "holiday": lambda said: [
        _yearly_day(said, *words.HOLIDAYS[re.sub(r"[^a-z]", "", said.parts["w"])])
    ],
    "relative": lambda said: [_relative(said)],
    "season": lambda said: [_season(said)],
    "quarter": lambda said: [_months(12 * int(said.parts["y"]) + 3 * int(said.parts["q"]) - 3, 3)],
    "weekday": lambda said: [
        _current(said, _weekdays(said.now.day, words.WEEKDAYS[said.parts["w"]]))
    ],
    "weekend": lambda said: [
        _current(said, [_whole(said.now.day, "weekend", step) for step in (-1, 0, 1)])
    ],
    "year": lambda said: [_months(12 * int(said.parts["y"]), 12)],
}
