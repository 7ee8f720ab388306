"""What the dashboard decides without a browser: sessions, spans of days, the picture's points."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron.config import Config
from elytron.faces.dashboard.bounds import Bounds
from elytron.faces.dashboard.days import SPANS_MAX, spans
from elytron.faces.dashboard.limits import LABELS, against
from elytron.faces.dashboard.neighbourhood import neighbourhood, places
from elytron.faces.dashboard.sessions import NotAllowed, Sessions, SignedOut, Viewer
from elytron.faces.http import tokens
from elytron.faces.http.tokens import Tokens
from elytron.records import Concept, LedgerBytes, Message, Related, Relation, Usage

NOW = datetime(2026, 3, 2, tzinfo=UTC)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions_of(tmp_path: Path, clock: Clock) -> Callable[..., tuple[Sessions, str]]:
    """Sessions over a file with one token, and that."""

    def make(bounds: Bounds | None = None, **options: object) -> tuple[Sessions, str]:
        path = tmp_path / "tokens.json"
        token = tokens.add(path, "one", **options)  # type: ignore[arg-type]
        return Sessions(Tokens(path), bounds or Bounds(), clock=clock), token

    return make


Make = Callable[..., tuple[Sessions, str]]


def test_a_session_ends_when_it_is_unused_or_old(sessions_of: Make, clock: Clock) -> None:
    sessions, token = sessions_of(Bounds(session_max_s=100, session_idle_s=30))
    unused, used = sessions.begin(token), sessions.begin(token)
    for _ in range(4):
        clock.now_s += 25
        sessions.use(used)
        assert sessions.access(used).name == "one"
        if clock.now_s < 1030:
            sessions.access(unused)  # as a page does that is only left open
    with pytest.raises(SignedOut):
        sessions.access(unused)
    clock.now_s += 1
    with pytest.raises(SignedOut):
        sessions.access(used)


def test_more_sessions_than_may_be_end_the_one_unused_for_longest(sessions_of: Make) -> None:
    sessions, token = sessions_of(Bounds(sessions_max=2))
    first, second = sessions.begin(token), sessions.begin(token)
    sessions.use(first)
    third = sessions.begin(token)
    sessions.access(first)
    sessions.access(third)
    with pytest.raises(SignedOut):
        sessions.access(second)


def test_a_token_file_that_cannot_be_read_lets_nobody_in(sessions_of: Make) -> None:
    sessions, token = sessions_of()
    session = sessions.begin(token)
    assert sessions.tokens is not None
    sessions.tokens.path.write_text("{")
    with pytest.raises(SignedOut):
        sessions.access(session)


def test_the_token_itself_is_not_kept(sessions_of: Make) -> None:
    sessions, token = sessions_of()
    sessions.begin(token)
    assert token not in repr(sessions._held)


def test_a_viewer_is_refused_what_his_token_is_not_for(sessions_of: Make) -> None:
    sessions, token = sessions_of(agents=["Bob"], writes=False)
    viewer = Viewer(sessions, sessions.begin(token))
    viewer.require("Bob")
    with pytest.raises(NotAllowed, match="may only read"):
        viewer.require("Bob", writes=True)
    with pytest.raises(NotAllowed, match="not for this agent"):
        viewer.require("Eve", writes=True)
    with pytest.raises(NotAllowed, match="the whole store"):
        viewer.require(None)
    with pytest.raises(SignedOut):
        Viewer(sessions, None).require("Bob")


def test_without_tokens_everybody_may(clock: Clock) -> None:
    viewer = Viewer(Sessions(None, Bounds(), clock=clock), None)
    viewer.require(None, writes=True)
    assert not viewer.logs_in


def test_wrong_tokens_are_counted_by_address_and_forgotten(sessions_of: Make, clock: Clock) -> None:
    sessions, _ = sessions_of(Bounds(failures_max=2, failures_window_s=60, addresses_max=3))
    sessions.note_failure("a")
    assert sessions.wait_s("a") == 0
    clock.now_s += 10
    sessions.note_failure("a")
    assert sessions.wait_s("a") == 50
    assert sessions.wait_s("b") == 0
    clock.now_s += 50
    assert sessions.wait_s("a") == 0
    for n in range(10):
        sessions.note_failure(str(n))
    assert len(sessions._failures) == 3


def message(at: datetime, content: str = "x") -> Message:
    return Message("id", "user", content, at, "s", None, {}, 0)


@given(st.lists(st.integers(-400_000, 400_000), min_size=1, max_size=30))
def test_every_message_is_in_one_span_and_there_are_never_too_many(hours: list[int]) -> None:
    said = [message(NOW + timedelta(hours=n), "é" * 3) for n in hours]
    found = spans(said)
    assert found.messages == len(said)
    assert sum(found.bytes) == 6 * len(said)
    assert len(found.starts) == len(found.counts) <= SPANS_MAX
    assert found.counts[0]
    assert found.counts[-1]
    assert found.totals[-1] == len(said)
    assert list(found.starts) == sorted(found.starts)


def test_days_without_messages_are_shown_too() -> None:
    found = spans([message(NOW), message(NOW + timedelta(days=3))])
    assert found.starts == ("2026-03-02", "2026-03-03", "2026-03-04", "2026-03-05")
    assert found.counts == (1, 0, 0, 1)
    assert spans([]).starts == ()


def concept(name: str) -> Concept:
    return Concept(name, None, None, 1.0, "told", 1, NOW)


def fact(source: str, target: str) -> Relation:
    return Relation(source, "knows", target, 1.0, None, None)


def test_a_picture_has_the_chosen_one_first_and_a_line_for_each_tie() -> None:
    related = {
        "a": [Related("b", None, 1, "knows"), Related("c", None, 1, "mentioned with", 2)],
        "c": [Related("d", None, 1, "mentioned with", 1), Related("a", None, 1, "mentioned with")],
    }
    near = neighbourhood(concept("a"), related, [fact("a", "b"), fact("x", "y")], limit=9)
    assert [(p.name, p.depth) for p in near.points] == [("a", 0), ("b", 1), ("c", 1), ("d", 2)]
    assert near.points[2].told == "mentioned with, 2 times"
    assert near.points[3].told == "mentioned with c"
    assert {(one.source, one.target, one.told) for one in near.lines} == {
        (0, 1, True),
        (0, 2, False),
        (2, 3, False),
    }


def test_without_the_graph_the_facts_say_what_is_near() -> None:
    near = neighbourhood(concept("a"), {}, [fact("b", "a"), fact("a", "a")], limit=9)
    assert [point.name for point in near.points] == ["a", "b"]
    assert len(near.lines) == 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 24))
def test_no_two_points_of_a_picture_lie_on_each_other(inner: int, outer: int, limit: int) -> None:
    related = {
        "c": [Related(f"i{n}", None, 1, "r") for n in range(inner)],
        "i0": [Related(f"o{n}", None, 1, "r") for n in range(outer if inner else 0)],
    }
    near = neighbourhood(concept("c"), related, [], limit=limit)
    assert len(near.points) <= limit + 1
    drawn = places(near)
    assert drawn[0] == (0.0, 0.0)
    for n, one in enumerate(drawn):
        assert all(math.dist(one, other) > 0.1 for other in drawn[:n])


def test_limits_come_in_the_order_of_their_labels_and_say_what_is_full() -> None:
    usage = Usage("Bob", 1000, messages=10, max_messages=10)
    found = against(usage, Config())
    assert tuple(limit.label for limit in found) == LABELS
    assert found[1].said == "messages at 100% of max_messages_per_agent: 10 of 10"
    assert found[2].told == "none"


def test_an_archive_is_full_where_it_begins_to_drop_its_oldest() -> None:
    """An eighth of `max_archive_mb` is kept free; alarms and the forecast say the same."""
    config = Config(max_archive_mb=8)
    usage = Usage("Bob", 1000, bytes=LedgerBytes(archive=7 << 20))
    archive = against(usage, config)[LABELS.index("Archive")]
    assert archive.share == 1.0
    assert archive.told == "7.0 MB of 7.0 MB"
