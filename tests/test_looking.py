"""What the second pass of ranking sees in a text, for one question."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as some

from elytron import Message
from elytron.ledger.knowledge import Sought
from elytron.ledger.reads import Filter
from elytron.recall.looking import Looking, identity
from elytron.recall.question import Question
from elytron.records import Memory
from elytron.text import Analyzer

ANALYZER = Analyzer(("english", "french"))
MAY = datetime(2023, 5, 9, 12, 0, tzinfo=UTC)
ZONES = some.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(
    lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1)))
)


def question(text, *, at=MAY):
    terms = ANALYZER.query(text, terms_max=64)
    return Question(text, terms, at, Filter(), Sought(0), 8)


def looking(text, *, at=MAY):
    return Looking(question(text, at=at))


def message(content, *, at=MAY, **members):
    return Message("m", "user", content, at, "s", None, {}, 0, **members)


def memory(content, *, begins=None, created=MAY):
    return Memory("k", content, "fact", (), 0.5, False, None, begins, None, created, {})


def looked(text, content, *, asked_at=MAY, asking=True, **members):
    return looking(text, at=asked_at).at(message(content, **members), asking=asking)


# -- asking


@pytest.mark.parametrize(
    ("content", "share"),
    [
        ("", 0),
        ("I live in Lyon.", 0),
        ("Where do you live?", 1),
        ("Where do you live? 😊", 1),
        ("I live in Lyon. And you?", 1 / 2),
        ("Why? Because. So what?! Fine", 1 / 4),
        ("Tu viens ? Oui.", 1 / 2),
        ("あなたは？", 1),
        ("؟", 0),
        ("هل أنت هنا؟", 1),
        ("What is a?b", 0),
        ("???", 0),
    ],
)
def test_the_share_of_sentences_that_ask(content, share):
    assert looked("Lyon", content).asking == pytest.approx(share)


def test_asking_is_seen_only_where_it_is_looked_for_and_never_in_a_memory():
    assert looked("Lyon", "Where?", asking=False).asking == 0
    assert looking("Lyon").at(memory("Where?"), asking=True).asking == 0


# -- times


def test_a_time_counts_only_where_the_question_asks_for_one():
    assert looked("When did Alice move?", "I moved last week").timed
    assert looked("Quand Alice a-t-elle déménagé ?", "J'ai déménagé hier").timed
    assert not looked("When did Alice move?", "I moved").timed
    assert not looked("Did Alice move?", "I moved last week").timed


@pytest.mark.parametrize(
    ("content", "at", "dated"),
    [
        ("Nothing of note", MAY - timedelta(days=1), 1),
        ("Nothing of note", datetime(2023, 5, 8, 0, 0, tzinfo=UTC), 1),
        ("Nothing of note", MAY - timedelta(days=2), 0),
        ("Nothing of note", MAY, 0.5),
        ("Nothing of note", MAY + timedelta(days=9), 0.5),
        ("Nothing of note", MAY + timedelta(days=12), 0),
        ("The day before yesterday I fell", MAY + timedelta(days=1), 1),
        ("On 8 May 2023 I fell", MAY + timedelta(days=300), 1),
        ("Le 8 mai 2023 je suis tombé", MAY + timedelta(days=300), 1),
        ("On 7 May 2023 I fell", MAY + timedelta(days=300), 0),
    ],
)
def test_what_is_of_the_day_that_is_asked_for_or_tells_of_it(content, at, dated):
    for text in ("What happened yesterday?", "Qu'est-il arrivé le 8 mai 2023 ?"):
        assert looked(text, content, at=at).dated == dated


def test_a_question_without_a_date_dates_nothing():
    assert looked("What happened?", "Yesterday I fell").dated == 0


def test_a_memory_is_of_the_day_when_it_began_or_was_learned():
    yesterday = looking("What happened yesterday?")
    began = memory("Alice moved", begins=MAY - timedelta(days=1), created=MAY + timedelta(days=99))
    assert yesterday.at(began, asking=True).dated == 1
    learned = memory("Alice moved", created=MAY - timedelta(days=1))
    assert yesterday.at(learned, asking=True).dated == 1


def test_importance_and_pin_are_passed_on():
    seen = looked("Lyon", "I live in Lyon", importance=0.9, pinned=True)
    assert (seen.importance, seen.pinned) == (0.9, True)


def test_equal_texts_are_the_same_only_where_the_same_one_says_them():
    mine = message("I love sushi")
    assert identity(mine) == identity(replace(mine, id="again", session="other"))
    assert identity(mine) != identity(replace(mine, user="bob"))
    assert identity(mine) != identity(memory("I love sushi"))


# -- days, by the terms of the index


def indexed(content, at):
    return ANALYZER.document(content, speaker="user", at=at)


def has(group, at, content=""):
    return all(hashed in indexed(content, at) for hashed in group)


def test_a_day_is_looked_for_by_what_is_indexed_of_its_messages():
    (group,) = looking("yesterday").days(ANALYZER)
    assert has(group, MAY - timedelta(days=1))
    assert not has(group, MAY)


def test_a_week_is_seven_days_and_a_month_is_one_group():
    assert len(looking("last week").days(ANALYZER)) == 7
    (group,) = looking("in April").days(ANALYZER)
    for day in (1, 30):
        assert has(group, datetime(2023, 4, day, tzinfo=UTC))
    assert not has(group, datetime(2023, 5, 1, tzinfo=UTC))


@pytest.mark.parametrize("text", ["Lyon", "last year", "since 2019", "!!!"])
def test_what_is_longer_than_a_month_has_no_days(text):
    assert looking(text).days(ANALYZER) == looking(text).terms(ANALYZER, ()) == ()


def test_days_are_those_of_the_one_who_asks_though_the_clocks_changed_since():
    """In January Paris was an hour off the offset of May, by which the question is understood."""
    at = datetime(2023, 5, 9, 12, 0, tzinfo=ZoneInfo("Europe/Paris"))
    (group,) = looking("in January", at=at).days(ANALYZER)
    assert has(group, datetime(2023, 1, 31, 12, tzinfo=UTC))
    assert not has(group, datetime(2022, 12, 31, 12, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "zone", "days"),
    [
        ("yesterday", "Europe/Paris", [7, 8]),
        ("yesterday", "America/New_York", [8, 9]),
        ("yesterday", "UTC", [8]),
        ("the last two days", "America/New_York", [7, 8, 9, 10]),
        ("in April", "America/New_York", [1]),
    ],
)
def test_a_day_is_looked_for_under_the_days_of_utc_that_it_has_a_part_in(text, zone, days):
    """What is saved without a time has one of UTC: an evening in New York is of the next day."""
    asked = question(text, at=datetime(2023, 5, 9, 12, tzinfo=ZoneInfo(zone)))
    assert sorted(day.day for day, _ in Looking(asked)._named()) == days
    for day, whole in Looking(asked)._named():
        groups = Looking(asked).days(ANALYZER)
        assert whole or any(has(group, datetime(2023, 5, day.day, tzinfo=UTC)) for group in groups)


@pytest.mark.parametrize("hours", [-11, -1, 0, 1, 11])
def test_the_day_after_the_last_that_there_is_is_none(hours):
    at = MAY.replace(tzinfo=timezone(timedelta(hours=hours)))
    asked = question("What is planned for the day after 9999-12-31, and on 9999-12-31?", at=at)
    assert len(Looking(asked).days(ANALYZER)) <= 2
    assert len(Looking(asked).terms(ANALYZER, asked.terms)) <= 3


def test_a_relative_day_becomes_the_words_of_its_date():
    asked = question("What happened yesterday?")
    day, year, month = Looking(asked).terms(ANALYZER, asked.terms)
    assert {term.word for term in (day, year, month)} == {""}
    whole = indexed("", MAY - timedelta(days=1))
    assert all(any(hashed in whole for hashed in term.hashes) for term in (day, year, month))


@pytest.mark.parametrize("text", ["on 8 May 2023", "le 8 mai 2023", "in May 2023", "en mai 2023"])
def test_a_date_that_the_question_says_in_full_is_not_said_twice(text):
    asked = question(text)
    assert Looking(asked).terms(ANALYZER, asked.terms) == ()


def test_what_is_left_open_of_a_date_is_filled_in():
    asked = question("on 8 May")
    (year,) = Looking(asked).terms(ANALYZER, asked.terms)
    assert has(year.hashes, MAY)


TIMES = some.integers(1, 253_401_955_200).map(
    lambda at_s: datetime(1970, 1, 2, tzinfo=UTC) + timedelta(seconds=at_s - 1)
)
DATED = some.sampled_from(
    "yesterday|today|tomorrow|last week|next week|this month|next month|in December|last weekend|"
    "on 31 December 9999|in December 9999|on 1 January 1970|in January 1970|hier|la semaine "
    "dernière|le mois prochain|en décembre 9999|next year|in 3 weeks|until 1971|07/05/2023".split(
        "|"
    )
)


@given(some.lists(DATED, min_size=1, max_size=12).map(", ".join), TIMES, ZONES, TIMES, ZONES, DATED)
def test_no_time_at_all_is_too_early_or_too_late(text, at, zone, said_at, said_zone, content):
    asked = looking(text, at=at.replace(tzinfo=zone))
    days = asked.days(ANALYZER)
    assert len(days) <= 31
    assert all(2 <= len(group) <= 3 for group in days)
    terms = asked.terms(ANALYZER, ())
    assert bool(terms) == bool(days)
    assert len(terms) <= 3
    seen = asked.at(message(content, at=said_at.replace(tzinfo=said_zone)), asking=True)
    assert seen.dated in (0, 0.5, 1)


@given(some.text(max_size=300), some.text(max_size=300))
def test_any_text_may_be_asked_and_looked_at(text, content):
    seen = looking(text).at(message(content), asking=True)
    assert 0 <= seen.asking <= 1
    assert seen.dated in (0, 0.5, 1)


def test_long_texts_are_looked_at_up_to_a_bound():
    assert looked("When?", "a " * 50_000 + "yesterday").timed is False
