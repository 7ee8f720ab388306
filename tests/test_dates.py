"""
The dates that a text speaks of: in English, and what holds in any language.

`tests/test_dates_french.py` has the French ones. Expected days are written as "first..last".
"""

import re
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron.errors import InvalidArgument
from elytron.recall import date_words, dates
from elytron.text import fold

WEDNESDAY = datetime(2023, 7, 12, 15, 30, tzinfo=UTC)
END_US = 253_402_300_800_000_000  # the end of the year 9999


def days_of(text: str, at: datetime = WEDNESDAY, *, past: bool = True) -> list[str]:
    """The spans as the first and last days of the text's own clock."""
    shown = []
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    for start_us, end_us in dates.spans(text, at=at, past=past):
        first = zero + timedelta(microseconds=start_us) + (at.utcoffset() or timedelta())
        last = zero + timedelta(microseconds=end_us - 1) + (at.utcoffset() or timedelta())
        days = [f"{day:%Y-%m-%d}" for day in (first, last)]
        shown.append(days[0] if days[0] == days[1] else "..".join(days))
    return shown


ENGLISH = {
    # Days around the day
    "today": "2023-07-12",
    "Tonight we eat out": "2023-07-12",
    "I ran this morning": "2023-07-12",
    "yesterday": "2023-07-11",
    "last night was fun": "2023-07-11",
    "the day before yesterday": "2023-07-10",
    "day before yesterday": "2023-07-10",
    "see you tomorrow": "2023-07-13",
    "the day after tomorrow": "2023-07-14",
    "the other day": "2023-07-05..2023-07-11",
    # Counted back and forth
    "five hours ago": "2023-07-12",
    "16 hours ago": "2023-07-11",
    "one day ago": "2023-07-11",
    "twenty days ago": "2023-06-22",
    "a week ago": "2023-07-02..2023-07-08",
    "a couple of days ago": "2023-07-09..2023-07-10",
    "couple weeks ago": "2023-06-18..2023-07-01",
    "a few months ago": "2023-01-28..2023-05-27",
    "2 years ago": "2021-01-10..2022-01-11",
    "two weekends ago": "2023-07-01..2023-07-02",
    "two Fridays ago": "2023-06-30",
    "in 3 days": "2023-07-15",
    "in two weeks": "2023-07-23..2023-07-29",
    "a week from now": "2023-07-16..2023-07-22",
    "over the past two weeks": "2023-06-28..2023-07-12",
    "in the last year": "2022-07-12..2023-07-12",
    "the last three days": "2023-07-09..2023-07-12",
    "playing for a month now": "2023-06-12..2023-07-12",
    "the next 2 days": "2023-07-12..2023-07-14",
    "in the last 24 hours": "2023-07-11..2023-07-12",
    "the past 48 hours": "2023-07-10..2023-07-12",
    "in the last hour": "2023-07-12",
    "over the last hours": "2023-07-12",
    "the next 2 hours": "2023-07-12",
    "the next ten hours": "2023-07-12..2023-07-13",
    # Last, this, next
    "last week": "2023-07-03..2023-07-09",
    "this week": "2023-07-10..2023-07-16",
    "next week": "2023-07-17..2023-07-23",
    "the week before last": "2023-06-26..2023-07-02",
    "last weekend": "2023-07-08..2023-07-09",
    "this weekend": "2023-07-15..2023-07-16",
    "this past weekend": "2023-07-08..2023-07-09",
    "over the weekend": "2023-07-08..2023-07-09",
    "last month": "2023-06-01..2023-06-30",
    "next month": "2023-08-01..2023-08-31",
    "last year": "2022-01-01..2022-12-31",
    "this year": "2023-01-01..2023-12-31",
    "last summer": "2022-06-01..2022-08-31",
    "this summer": "2023-06-01..2023-08-31",
    "next spring": "2024-03-01..2024-05-31",
    "last fall": "2022-09-01..2022-11-30",
    "last autumn": "2022-09-01..2022-11-30",
    "last winter": "2022-12-01..2023-02-28",
    "summer of 2022": "2022-06-01..2022-08-31",
    "winter 2019": "2019-12-01..2020-02-29",
    # Days of the week
    "last Tuesday": "2023-07-11",
    "last Wednesday": "2023-07-05",
    "last Wed. we met": "2023-07-05",
    "last tues": "2023-07-11",
    "on Wednesday": "2023-07-12",
    "on Thursday": "2023-07-06",
    "on Sat": "2023-07-08",
    "next Wednesday": "2023-07-19",
    "this Friday": "2023-07-14",
    "this past Monday": "2023-07-10",
    # Months
    "in May": "2023-05-01..2023-05-31",
    "in July": "2023-07-01..2023-07-31",
    "in December": "2022-12-01..2022-12-31",
    "May 2023": "2023-05-01..2023-05-31",
    "October, 2021": "2021-10-01..2021-10-31",
    "in March last year": "2022-03-01..2022-03-31",
    "last May": "2023-05-01..2023-05-31",
    "last July": "2022-07-01..2022-07-31",
    "next May": "2024-05-01..2024-05-31",
    "early May": "2023-05-01..2023-05-10",
    "mid-May 2022": "2022-05-11..2022-05-20",
    "late February 2024": "2024-02-21..2024-02-29",
    "the end of March": "2023-03-21..2023-03-31",
    "the second week of August 2022": "2022-08-08..2022-08-14",
    "the last week of June": "2023-06-24..2023-06-30",
    "the first weekend of August 2022": "2022-08-06..2022-08-07",
    "the last Friday in June": "2023-06-30",
    # Days of a month
    "on 4 July": "2023-07-04",
    "July 4th, 2023": "2023-07-04",
    "the 4th of July": "2023-07-04",
    "the second of May": "2023-05-02",
    "August 4": "2022-08-04",
    "May 7": "2023-05-07",
    "7 May": "2023-05-07",
    "8 May, 2023": "2023-05-08",
    "dec 25": "2022-12-25",
    "Sept. 3, 2021": "2021-09-03",
    "Monday, June 5th": "2023-06-05",
    "on 5 June last year": "2022-06-05",
    "on the 5th we met": "2023-07-05",
    "on the 15th": "2023-06-15",
    "2023-05-07": "2023-05-07",
    "2023-05-07T10:00:00Z": "2023-05-07",
    "25/05/2023": "2023-05-25",
    "05/25/2023": "2023-05-25",
    "31/12/22": "2022-12-31",
    "05/05/99": "1999-05-05",
    "from 5 to 9 May 2023": "2023-05-05..2023-05-09",
    "May 5-9": "2023-05-05..2023-05-09",
    # Years
    "in 2022": "2022-01-01..2022-12-31",
    "early 2022": "2022-01-01..2022-04-30",
    "Q2 2022": "2022-04-01..2022-06-30",
    # Beside a day
    "the week before 9 June 2023": "2023-05-29..2023-06-04",
    "the weekend before 9 June 2023": "2023-06-03..2023-06-04",
    "the Monday before 9 June 2023": "2023-06-05",
    "the Friday before 9 June 2023": "2023-06-02",
    "two weeks before 9 June 2023": "2023-05-23..2023-05-29",
    "two days before May 7": "2023-05-05",
    "Fridays before 9 June 2023": "2023-06-02",
    "two Fridays before 9 June 2023": "2023-05-26",
    "the year before May 2022": "2021-01-01..2021-12-31",
    "the day after 31 December 2022": "2023-01-01",
    "the month after 31 December 2022": "2023-01-01..2023-01-31",
    "the week of 9 June": "2023-06-05..2023-06-11",
    # Open ends: ten years, or up to the day
    "since 2022": "2022-01-01..2023-07-12",
    "since last May": "2023-05-01..2023-07-12",
    "after 4 July 2022": "2022-07-05..2023-07-12",
    "after 4 July 2024": "2024-07-05..2034-07-04",
    "before March 2022": "2012-03-01..2022-02-28",
    "until 2020": "2011-01-01..2020-12-31",
    # Feasts
    "at Christmas": "2022-12-25",
    "next Christmas": "2023-12-25",
    "New Year’s Eve": "2022-12-31",
    "New Year's Day 2022": "2022-01-01",
    "Halloween last year": "2022-10-31",
    "Valentine's Day": "2023-02-14",
}


@pytest.mark.parametrize(("text", "expected"), ENGLISH.items())
def test_an_english_text_says_which_days(text, expected):
    assert days_of(text) == [expected]


@pytest.mark.parametrize("text", ENGLISH)
def test_capitals_make_no_difference(text):
    assert days_of(text.upper()) == days_of(text.lower()) == days_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I may go",
        "may have been",
        "this may be the one",
        "option 7 may help",
        "march on",
        "they march 4 miles",
        "sat down",
        "the cat sat",
        "the sun",
        "a second chance",
        "we fall apart",
        "spring water",
        "they love each other",
        "every Monday",
        "each summer",
        "on Mondays",
        "twice a week",
        "for two years",
        "April said so",
        "a phone for 2000 people",
        "in 1.2023 parts",
        "3.5 weeks ago",
        "room 1984b",
        "192.168.10.24",
        "31 June 2023",
        "29 February 2023",
        "2023-13-01",
        "45/45/2023",
        "on the 3rd floor",
        "in 1944",
    ],
)
def test_words_that_only_look_like_a_date_give_nothing(text):
    assert days_of(text) == []


def test_a_date_that_can_be_read_in_two_ways_gives_both_with_the_day_first():
    assert days_of("07/05/2023") == ["2023-05-07", "2023-07-05"]
    assert days_of("07/07/2023") == ["2023-07-07"]


def test_two_months_or_days_share_the_year_of_the_second():
    assert days_of("between March and May 2022") == [
        "2022-03-01..2022-03-31",
        "2022-05-01..2022-05-31",
    ]
    assert days_of("August 11 to August 15, 2021") == ["2021-08-11", "2021-08-15"]


def test_several_dates_come_in_the_order_of_the_text_and_each_once():
    text = "In May 2021, last Friday and yesterday, as in May 2021."
    assert days_of(text) == ["2021-05-01..2021-05-31", "2023-07-07", "2023-07-11"]


def test_no_more_spans_than_the_limit():
    years = [str(year) for year in range(2000, 2020)]
    found = days_of(" and ".join(f"in {year}" for year in years))
    assert found == [f"{year}-01-01..{year}-12-31" for year in years[: dates.SPANS_MAX]]


def test_what_leaves_the_year_open_is_the_nearest_if_it_need_not_be_past():
    assert days_of("in August", past=False) == ["2023-08-01..2023-08-31"]
    assert days_of("in May", past=False) == ["2023-05-01..2023-05-31"]
    assert days_of("on Friday", past=False) == ["2023-07-14"]
    assert days_of("on 25 December", past=False) == ["2023-12-25"]
    assert days_of("over the weekend", past=False) == ["2023-07-15..2023-07-16"]


def test_a_leap_day_without_a_year_is_the_latest_there_was():
    assert days_of("29 February") == ["2020-02-29"]
    assert days_of("29 February", datetime(1904, 1, 1, tzinfo=UTC)) == []  # 1896, before 1970
    before = datetime(2104, 2, 1, tzinfo=UTC)  # 2100 is no leap year
    assert days_of("29 February", before) == ["2096-02-29"]


def test_a_month_ago_from_a_long_month_is_counted_from_the_last_day_of_a_short_one():
    assert days_of("a month ago", datetime(2023, 3, 31, tzinfo=UTC)) == ["2023-02-13..2023-03-15"]


def test_days_turn_at_midnight_of_the_texts_own_clock():
    late = datetime(2023, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=13)))
    [span] = dates.spans("yesterday", at=late)
    assert days_of("yesterday", late) == ["2022-12-31"]
    assert span.end_us == 1_672_484_400_000_000  # 2022-12-31 11:00 UTC
    assert span.end_us - span.start_us == 86_400_000_000


def test_a_week_begins_on_monday_also_where_a_year_begins():
    new_year = datetime(2023, 1, 1, tzinfo=UTC)  # a Sunday
    assert days_of("this week", new_year) == ["2022-12-26..2023-01-01"]
    assert days_of("last week", new_year) == ["2022-12-19..2022-12-25"]
    assert days_of("last weekend", new_year) == ["2022-12-24..2022-12-25"]
    assert days_of("last month", new_year) == ["2022-12-01..2022-12-31"]


@pytest.mark.parametrize("year", [1, 2, 1969, 1970, 9998, 9999])
def test_spans_stay_within_1970_to_9999_at_either_end_of_time(year):
    for month, day in ((1, 1), (12, 31)):
        at = datetime(year, month, day, 12, tzinfo=timezone(timedelta(hours=-9)))
        for text in [*ENGLISH, "999 years ago", "in 999 years", "since last year"]:
            for past in (True, False):
                for start_us, end_us in dates.spans(text, at=at, past=past):
                    assert 0 <= start_us < end_us <= END_US


def test_a_time_without_an_offset_is_refused():
    with pytest.raises(InvalidArgument, match="UTC offset"):
        dates.spans("yesterday", at=datetime(2023, 7, 12))  # noqa: DTZ001


moments = st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=-7, minutes=30))))
pieces = st.sampled_from(
    [
        *" ".join(ENGLISH).split(), "before", "since", "of", "il y a", "mars", "dernier", "0", "31",
        "99", "999", "9999", "0000", "-", "/", ",", ".", "'", "\n", "l'", "²", "é",
    ]
)  # fmt: skip
phrases = st.lists(pieces, max_size=12).map(" ".join) | st.lists(pieces, max_size=9).map("".join)


@given(text=phrases | st.text(st.characters(), max_size=60), at=moments, past=st.booleans())
def test_any_text_gives_spans_that_begin_before_they_end(text, at, past):
    found = dates.spans(text, at=at, past=past)
    assert len(found) <= dates.SPANS_MAX
    assert len(set(found)) == len(found)
    assert all(0 <= start_us < end_us <= END_US for start_us, end_us in found)
    if found:
        assert dates.has_time(text)
    dates.asks_when(text)


@given(text=phrases, at=moments)
def test_case_and_spaces_make_no_difference(text, at):
    found = dates.spans(text, at=at)
    assert dates.spans(text.swapcase(), at=at) == found
    assert dates.spans(text.replace(" ", "  \n "), at=at) == found
    assert dates.has_time(text.swapcase()) == dates.has_time(text)


@given(text=phrases)
def test_the_first_look_at_a_text_misses_no_time(text):
    plain = " ".join(fold(text).translate(date_words.SIGNS).split())
    found = [match.lastgroup or "" for match in date_words.grammar().pattern.finditer(plain)]
    assert dates.has_time(text) == any(not rule.startswith("habit") for rule in found)


@given(day=st.dates(min_value=date(1970, 1, 1)), at=moments)
def test_a_whole_date_is_that_day_whenever_it_is_said(day, at):
    start_us = (day.toordinal() - 719_163) * 86_400_000_000
    offset_us = (at.utcoffset() or timedelta()) // timedelta(microseconds=1)
    clipped = (max(start_us - offset_us, 0), min(start_us - offset_us + 86_400_000_000, END_US))
    assert dates.spans(f"on {day:%d %B %Y}", at=at) == [clipped]
    assert dates.spans(f"{day:%B} {day.day}, {day:%Y}", at=at) == [clipped]
    assert dates.spans(day.isoformat(), at=at) == [clipped]


@given(day=st.dates(min_value=date(1971, 1, 1), max_value=date(9000, 1, 1)))
def test_what_is_said_of_other_days_holds_for_each_day(day):
    at = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
    name = f"{day:%A}"
    assert days_of(f"last {name}", at) == [f"{day - timedelta(days=7)}"]
    assert days_of(f"on {name}", at) == [f"{day}"]
    assert days_of(f"next {name}", at) == [f"{day + timedelta(days=7)}"]
    monday = day - timedelta(days=day.weekday())
    assert days_of("this week", at) == [f"{monday}..{monday + timedelta(days=6)}"]
    first = day.replace(day=1)
    assert days_of(f"in {day:%B}", at) == days_of("this month", at)
    assert days_of("last month", at)[0].endswith(f"..{first - timedelta(days=1)}")


def test_no_rule_repeats_anything_without_a_bound():
    """So that reading a text takes time in proportion to its length, whatever is in it."""
    patterns = [
        date_words.grammar().pattern, date_words.beside(), date_words.since(),
        date_words.questions(), date_words.DIGITS,
    ]  # fmt: skip
    for pattern in patterns:
        assert re.search(r"[*+]|\{\d*,\}", pattern.pattern) is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    ["may ", "the last ", "1 ", "1/", "9", "week before ", "a few ", "il y a une ", "monday, the ",
     "quand ", "when ", "last\u00a0", "every other ", "ﷺ", "the week before the ", "é", "\u0301"],
)  # fmt: skip
def test_a_long_text_of_one_piece_is_read_to_its_end(piece):
    text = (piece * dates.TEXT_MAX)[: dates.TEXT_MAX]
    dates.spans(text, at=WEDNESDAY)
    dates.has_time(text)
    dates.asks_when(text)


def test_what_stands_behind_the_limit_of_a_text_is_not_read():
    filler = "x " * (dates.TEXT_MAX // 2)
    assert days_of(filler[:-20] + "yesterday") == ["2023-07-11"]
    assert days_of(filler + "yesterday") == []


@pytest.mark.parametrize(
    "text", ["in 1944", "last week", "29 February 2023", "3 days ago", "Q1 2020"]
)
def test_a_time_is_noticed_even_where_it_gives_no_span(text):
    assert dates.has_time(text)


@pytest.mark.parametrize(
    "text", ["", "I may go", "every Monday", "at five", "in the house", "a week"]
)
def test_a_text_without_a_time_has_none(text):
    assert not dates.has_time(text)


@pytest.mark.parametrize(
    "question",
    [
        "When did Alice move?",
        "and when's the party",
        "When exactly was it?",
        "Do you know when she left?",
        "Since when does he smoke?",
        "Alice moved when?",
        "What year did they meet?",
        "On which day was the race?",
        "In which month's issue was it?",
        "What was the date of the exam?",
        "What's the time of the train?",
        "How long ago did he quit?",
        "How long has she painted?",
        "How many weeks ago was it?",
    ],
)
def test_an_english_question_asks_for_a_time(question):
    assert dates.asks_when(question)
    assert dates.asks_when(question.upper())


@pytest.mark.parametrize(
    "question",
    [
        "",
        "When I was young, where did I live?",
        "What does he do when he is bored?",
        "What did she say?",
        "Which time zone is Lyon in?",
        "Where was Bob on 3 May?",
        "How many children does she have?",
        "Whenever you like",
    ],
)
def test_an_english_question_asks_for_something_else(question):
    assert not dates.asks_when(question)
