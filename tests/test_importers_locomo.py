"""What becomes of LoCoMo's samples, and the questions that come with them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron.importers import import_file, locomo, questions
from test_importers_common import DATA, contents, pouring

LOCOMO = Path(__file__).parent.parent / ".." / "shared" / "data" / "locomo-dev.json"


@pytest.fixture
def pour(store: elytron.Store, tmp_path: Path) -> Callable[..., elytron.ImportReport]:
    return pouring(store, tmp_path)


def test_each_sample_becomes_an_agent_with_dates_and_speakers(store):
    reports = import_file(store, DATA / "locomo.json")
    assert [(r.agent, r.left_out) for r in reports] == [
        ("talk-1", {locomo.QUESTIONS: 3}), ("talk-2", {locomo.QUESTIONS: 1}),
    ]  # fmt: skip
    ann = store.agent("talk-1")
    assert [s.id for s in ann.sessions()] == ["session_2", "session_1"]
    first, second = ann.get("D1:1"), ann.get("D1:2")
    assert (first.role, first.user, first.session) == ("user", "Ann", "session_1")
    assert first.at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert (second.at - first.at).total_seconds() == 1
    assert ann.get("D2:1").at == datetime(2023, 9, 13, 0, 9, tzinfo=UTC)
    assert store.agent("talk-2").get("D1:1").at == datetime(2024, 2, 29, 12, 30, tzinfo=UTC)


def test_the_caption_of_a_photo_can_be_searched_for(store):
    import_file(store, DATA / "locomo.json")
    (hit,) = store.agent("talk-1").recall("shed", limit=1)
    assert hit.message.content == "Here. [shares a photo: a young tree beside a shed]"
    assert set(hit.message.metadata) == {"img_url", "query", "blip_caption"}


def test_questions_come_one_of_each_sample_in_turn_without_those_that_have_no_answer():
    found = questions(DATA / "locomo.json", 10)
    assert found == [
        ("talk-1", "What did Ann plant?", "a pear tree", ("D1:1", "D1:3")),
        ("talk-2", "What colour is Dot's bike?", "blue", ("D1:2",)),
        ("talk-1", "When did Ann plant it?", "2023", ("D1:1",)),
    ]
    assert questions(DATA / "locomo.json", 1) == found[:1]
    assert {q.agent for q in questions(DATA / "locomo.json", 9, agent="bob")} == {"bob"}


def sample(name: Any = "s", **conversation: Any) -> dict[str, Any]:
    return {"sample_id": name, "conversation": conversation}


def turn(id: str, **more: Any) -> dict[str, Any]:
    return {"speaker": "Ann", "dia_id": id, "text": f"text of {id}", **more}


TIME = "1:56 pm on 8 May, 2023"


def test_one_sample_may_be_given_a_name_and_several_may_not(store, tmp_path, pour):
    one = sample(session_1_date_time=TIME, session_1=[turn("D1:1")])
    assert pour([one], "locomo").agent == "bob"
    with pytest.raises(elytron.InvalidArgument, match="several agents, as 'talk-1' and 'talk-2'"):
        import_file(store, DATA / "locomo.json", agent="carol")
    assert store.agents() == ["bob"]


def test_sessions_come_in_the_order_of_their_numbers(pour, bob):
    numbers = (10, 2, 1)
    value = sample(
        **{f"session_{n}_date_time": TIME for n in numbers},
        **{f"session_{n}": [turn(f"D{n}:1")] for n in numbers},
    )
    pour([value], "locomo")
    assert [message.id for message in bob.messages()] == ["D1:1", "D2:1", "D10:1"]


@pytest.mark.parametrize(
    "time",
    [None, 5, "", "soon", "13:00 pm on 8 May, 2023", "0:10 am on 8 May, 2023",
     "1:60 pm on 8 May, 2023", "1:56 pm on 31 June, 2023", "1:56 pm on 8 Floreal, 2023"],
)  # fmt: skip
def test_a_session_without_a_proper_time_is_bad(time, pour, bob):
    value = sample(
        session_1=[turn("D1:1"), turn("D1:2")], session_1_date_time=time,
        session_2=[turn("D2:1")], session_2_date_time=TIME,
    )  # fmt: skip
    report = pour([value], "locomo", skip_bad=True)
    assert report.imported == 1
    ((line, reason),) = [(bad.line, bad.reason) for bad in report.bad]
    assert line == 1
    assert reason.startswith("session_1: its time")


def test_turns_beyond_the_end_of_the_calendar_are_bad(pour, bob):
    value = sample(
        session_1=[turn(f"D1:{n}") for n in range(1, 63)],
        session_1_date_time="11:59 pm on 31 December, 9999",
        session_2=[turn("D2:1")], session_2_date_time=TIME,
    )  # fmt: skip
    report = pour([value], "locomo", skip_bad=True)
    assert [message.id for message in bob.messages()] == ["D2:1"]
    reasons = [bad.reason for bad in report.bad]
    assert len(reasons) == 62
    assert "session_1, turn 60: its time is beyond the calendar" not in reasons
    assert "session_1, turn 61: its time is beyond the calendar" in reasons


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (5, "session_1: expected a list of turns"),
        ([5], "session_1, turn 1: expected a turn"),
        ([{}], "session_1, turn 1: the turn has no `speaker`"),
        ([turn("D1:1"), {**turn("D1:2"), "text": None}], "session_1, turn 2: the turn has no"),
        ([turn("D1:1"), turn("D1:2", text="")], "session_1, turn 2: content is empty"),
        ([turn("D1:1"), turn("D1:1", text="other")], "session_1, turn 2: id 'D1:1' "),
    ],
)
def test_a_bad_turn_is_told_with_its_session(turns, reason, pour, bob):
    value = [sample(session_1_date_time=TIME, session_1=turns)]
    with pytest.raises(elytron.InvalidArgument) as caught:
        pour(value, "locomo")
    assert f"item 1: {reason}" in str(caught.value)
    report = pour(value, "locomo", skip_bad=True)
    assert [bad.reason[: len(reason)] for bad in report.bad] == [reason]


@pytest.mark.parametrize("value", [5, {}, sample(None), sample(""), sample("a\nb")])
def test_a_sample_that_is_none_costs_no_other(value, store, tmp_path):
    good = sample("fine", session_1_date_time=TIME, session_1=[turn("D1:1")])
    path = tmp_path / "odd.json"
    path.write_text(json.dumps([value, good]))
    reports = import_file(store, path, format="locomo", skip_bad=True)
    assert {r.agent: (r.imported, len(r.bad)) for r in reports} == {"odd": (0, 1), "fine": (1, 0)}


def test_a_photo_without_words_is_a_message(pour, bob):
    value = sample(
        session_1_date_time=TIME, session_1=[turn("D1:1", text="", blip_caption="a cat")]
    )
    pour([value], "locomo")
    assert contents(bob) == ["[shares a photo: a cat]"]


def test_the_locomo_conversations_for_development_arrive_whole(store):
    if not LOCOMO.is_file():
        pytest.skip("the LoCoMo conversations are not beside this project")
    reports = import_file(store, LOCOMO)
    assert len(reports) == 5
    assert sum(report.imported for report in reports) == 2960
    assert sum(store.agent(name).usage().messages for name in store.agents()) == 2960
    assert not any(report.bad for report in reports)
    assert sum(report.already_held for report in import_file(store, LOCOMO)) == 2960
    evidence = [(q.agent, name) for q in questions(LOCOMO, 10_000) for name in q.evidence]
    lost = [name for agent, name in evidence if store.agent(agent).get(name) is None]
    assert len(lost) < len(evidence) / 100  # a few are wrong in the file itself
