"""Recall by dates: what was said on a day, or tells of it, in English and in French."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

# In a file and on a server.
pytestmark = pytest.mark.ledgers

MAY = datetime(2023, 5, 9, 12, 0, tzinfo=UTC)  # a Tuesday


def ids(hits):
    return [hit.message.id for hit in hits]


@pytest.fixture
def bob(bob):
    """One message a session, so that nothing is found for standing beside a hit."""
    talk = {
        "march": (datetime(2023, 3, 15, 9, 0, tzinfo=UTC), "The snow is melting at the cabin"),
        "week": (datetime(2023, 5, 3, 18, 0, tzinfo=UTC), "Cabin roof repaired with Bruno"),
        "eve": (datetime(2023, 5, 8, 8, 0, tzinfo=UTC), "Pancakes with Nora"),
        "day": (datetime(2023, 5, 9, 9, 0, tzinfo=UTC), "Bought a kite"),
        "told": (datetime(2023, 6, 20, 9, 0, tzinfo=UTC), "On 8 May 2023 Ines passed her exam"),
        "raconte": (datetime(2023, 6, 21, 9, 0, tzinfo=UTC), "Le 3 mai 2023 il a plu sur Lyon"),
        "winter": (datetime(2022, 12, 24, 20, 0, tzinfo=UTC), "Candles and a goose"),
    }
    for key, (at, content) in talk.items():
        bob.save("user", content, id=key, session=key, at=at)
    return bob


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What did we do yesterday?", {"eve", "told"}),
        ("Qu'est-ce qu'on a fait hier ?", {"eve", "told"}),
        ("What about today?", {"day"}),
        ("Et aujourd'hui ?", {"day"}),
        ("What happened on 8 May 2023?", {"eve", "told"}),
        ("Que s'est-il passé le 8 mai 2023 ?", {"eve", "told"}),
        ("What was on 2023-05-08?", {"eve", "told"}),
        ("What happened last week?", {"week"}),
        ("Et la semaine dernière ?", {"week"}),
        ("What was it in March?", {"march"}),
        ("C'était comment en mars ?", {"march"}),
        ("Anything on 24 December 2022?", {"winter"}),
        ("Quelque chose le 24 décembre 2022 ?", {"winter"}),
        ("six days ago", {"week", "raconte"}),
        ("il y a six jours", {"week", "raconte"}),
    ],
)
def test_a_date_alone_finds_what_was_said_then_and_what_tells_of_it(bob, question, expected):
    hits = bob.recall(question, at=MAY)
    assert set(ids(hits)[: len(expected)]) == expected
    for hit in hits[: len(expected)]:
        assert hit.why["date"] > 0
        assert hit.score == pytest.approx(sum(hit.why.values()))


def test_a_date_and_a_word_put_the_right_day_first(bob):
    assert ids(bob.recall("the cabin last week", at=MAY))[0] == "week"
    assert ids(bob.recall("the cabin in March", at=MAY))[0] == "march"
    assert ids(bob.recall("le chalet de Bruno la semaine dernière", at=MAY))[0] == "week"


def test_last_week_is_the_one_before_the_time_of_asking(bob):
    question = "What happened last week?"
    assert ids(bob.recall(question, at=MAY))[0] == "week"
    assert set(ids(bob.recall(question, at=MAY + timedelta(days=7)))[:2]) == {"eve", "day"}
    assert ids(bob.recall(question, at=datetime(2023, 3, 22, tzinfo=UTC)))[0] == "march"
    packed = bob.context(question, at=MAY, limit=1)
    assert ids(packed.hits) == ["week"]


def test_a_day_is_that_of_the_one_who_asks(bob):
    """At half past midnight in Auckland it is still the day before in London."""
    bob.save("user", "A hedgehog!", id="late", session="late",
             at=datetime(2023, 7, 1, 0, 30, tzinfo=timezone(timedelta(hours=12))))  # fmt: skip
    asked_at = datetime(2023, 7, 2, 9, 0, tzinfo=ZoneInfo("Pacific/Auckland"))
    assert ids(bob.recall("yesterday?", at=asked_at))[0] == "late"


def test_the_dates_of_a_question_are_not_among_the_words_that_matched(bob):
    (hit, *_) = bob.recall("the cabin last week", at=MAY)
    assert hit.matched == ("cabin",)


def test_who_asks_when_is_told_by_what_has_a_time(bob):
    bob.save("user", "Nora moved to Ghent last month", id="timed", session="a", at=MAY)
    bob.save("user", "Nora moved to Ghent with joy", id="plain", session="b", at=MAY)
    for question in ("When did Nora move to Ghent?", "Quand Nora est allée à Ghent ? Nora moved"):
        first, second = bob.recall(question, at=MAY)[:2]
        assert [first.message.id, second.message.id] == ["timed", "plain"]
        assert first.why["when"] > 0 == second.why["when"]


def test_what_was_saved_a_moment_ago_is_found_by_its_day(store):
    bob = store.agent("new")
    at = datetime(2023, 5, 9, 9, 0, tzinfo=UTC)
    bob.save_many(
        {"role": "user", "content": f"Errand {n}", "id": str(n), "session": str(n), "at": at}
        for n in range(3)
    )
    assert set(ids(bob.recall("What did I do today?", at=MAY))) == {"0", "1", "2"}


def test_the_filters_hold_for_what_is_found_by_its_day(bob):
    assert ids(bob.recall("yesterday", at=MAY, session="eve")) == ["eve"]
    assert bob.recall("yesterday", at=MAY, session="nowhere") == []
    assert bob.recall("yesterday", at=MAY, role="assistant") == []
    assert bob.recall("yesterday", at=MAY, until=datetime(2022, 1, 1, tzinfo=UTC)) == []


def test_what_left_for_the_archive_is_found_by_its_day_too(open_store):
    bob = open_store(emergency_messages=2).agent("old")
    for n in range(8):
        bob.save(
            "user", f"Walk number {n}", id=str(n), session=str(n), at=MAY - timedelta(days=9 - n)
        )
    bob.emergency_cleanup()
    assert "1" not in {message.id for message in bob.messages()}
    hits = bob.recall("What did I do yesterday?", at=MAY - timedelta(days=7), archived=True)
    assert (hits[0].message.id, hits[0].archived) == ("1", True)
    assert hits[0].why["date"] > 0


def test_a_memory_is_found_by_the_day_on_which_it_began(bob):
    bob.remember("Ines lives in Porto", id="porto", valid_from=datetime(2023, 5, 8, tzinfo=UTC))
    hit = next(hit for hit in bob.recall("yesterday in Porto", at=MAY) if hit.memory)
    assert hit.why["date"] > 0


@pytest.mark.parametrize(
    "at",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1970, 1, 2, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, 59, tzinfo=UTC),
        datetime(9999, 12, 31, 12, 0, tzinfo=timezone(timedelta(hours=-12))),
    ],
)
def test_it_may_be_asked_at_any_time(bob, at):
    for question in (
        "the kite yesterday", "the kite tomorrow", "the kite this month", "the kite next week",
        "the kite in December 9999", "the kite on 1 January 1970",
    ):  # fmt: skip
        assert "day" in ids(bob.recall(question, at=at))
