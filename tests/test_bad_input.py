"""Bad input gets a named error that tells the number and the way out, and changes nothing."""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial

import pytest

from elytron import ElytronError, InvalidArgument
from ledgers import state

NOW = datetime.now(UTC)


class ZoneWithoutOffset(tzinfo):
    """A zone that does not know how far it is from UTC."""

    def utcoffset(self, _when):
        return None


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"in": value}
    return value


LONG = "x" * 201
BAD_MEMBERS = {
    "a role nobody knows": ({"role": "robot"}, r"role 'robot' is unknown; use one of system, dev"),
    "a role in capitals": ({"role": "User"}, "unknown"),
    "an empty role": ({"role": ""}, "unknown"),
    "a role that is a number": ({"role": 7}, "unknown"),
    "a role that is a list": ({"role": ["user"]}, "unknown"),
    "a role that goes on for ever": ({"role": "r" * 100_000}, "unknown"),
    "no content": ({"content": ""}, "content is empty"),
    "content of blanks": ({"content": " \t\n\u2003"}, "content is empty"),
    "content that is bytes": ({"content": b"Hello"}, "must be a string; got bytes"),
    "content that is nothing": ({"content": None}, "must be a string; got NoneType"),
    "content that is too long": ({"content": "x" * 262_145}, r"262145.*262144.*`max_message_kb`"),
    "content too long in bytes": ({"content": "é" * 131_073}, r"262146.*262144.*`max_message_kb`"),
    "content with a NUL": ({"content": "ab\0c"}, "NUL character at 2; remove it"),
    "content with half a pair": ({"content": "abc\ud83d"}, "lone surrogate.* at 3"),
    "content with the other half": ({"content": "\udc00abc"}, "lone surrogate.* at 0"),
    "an empty id": ({"id": ""}, "id is empty"),
    "a blank id": ({"id": "  "}, "id is empty"),
    "an id that is a number": ({"id": 7}, "id must be a string; got int"),
    "an id that is too long": ({"id": LONG}, "id has 201 characters, at most 200"),
    "an id with a NUL": ({"id": "a\0"}, "at 1"),
    "an id with a line end": ({"id": "a\nb"}, "at 1"),
    "an id with half a pair": ({"id": "ab\udfff"}, "lone surrogate.* at 2"),
    "an empty session": ({"session": ""}, "session is empty"),
    "a session that is too long": ({"session": LONG}, "session has 201 characters, at most 200"),
    "a session that is a number": ({"session": 0}, "session must be a string; got int"),
    "a session with a NUL": ({"session": "\0"}, "at 0"),
    "an empty user": ({"user": ""}, "user is empty"),
    "a user that is too long": ({"user": LONG}, "user has 201 characters, at most 200"),
    "a user with a bell": ({"user": "a\a"}, "at 1"),
    "a time without a zone": ({"at": datetime(2024, 1, 1)}, "no time zone; add one"),  # noqa: DTZ001
    "a zone without an offset": (
        {"at": datetime(2024, 1, 1, tzinfo=ZoneWithoutOffset())},
        "no time zone",
    ),
    "a time that is a number": ({"at": 1_700_000_000}, "must be a datetime; got int"),
    "a time that is a text": ({"at": "2024-01-01T00:00:00Z"}, "must be a datetime; got str"),
    "a time before 1970": ({"at": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)}, "before 1970"),
    "the first time of all": ({"at": datetime.min.replace(tzinfo=UTC)}, "before 1970"),
    "the last time of all": ({"at": datetime.max.replace(tzinfo=UTC)}, "`max_future_s`"),
    "a time in two days": ({"at": NOW + timedelta(days=2)}, "86400 s ahead.*`max_future_s`"),
    "metadata that is a list": ({"metadata": [1]}, "must be a mapping; got list"),
    "metadata that is an empty list": ({"metadata": []}, "must be a mapping; got list"),
    "metadata that is a text": ({"metadata": "a"}, "must be a mapping; got str"),
    "metadata that is an empty text": ({"metadata": ""}, "must be a mapping; got str"),
    "metadata with an object": ({"metadata": {"a": object()}}, "not JSON"),
    "metadata with bytes": ({"metadata": {"a": b"x"}}, "not JSON"),
    "metadata with not a number": ({"metadata": {"a": float("nan")}}, "not JSON"),
    "metadata with infinity": ({"metadata": {"a": float("inf")}}, "not JSON"),
    "metadata with a tuple": ({"metadata": {"a": (1, 2)}}, "come back changed"),
    "metadata named by numbers": ({"metadata": {1: "a"}}, "come back changed"),
    "metadata named by both": ({"metadata": {1: "a", "b": 2}}, "not JSON"),
    "metadata with half a pair": ({"metadata": {"a": "\ud83d"}}, "lone surrogate"),
    "metadata that holds itself": ({"metadata": (lambda d: d.update(d=d) or d)({})}, "not JSON"),
    "metadata nested too deep": ({"metadata": nested(100_000)}, "not JSON"),
    "metadata that is too long": (
        {"metadata": {"a": "x" * 262_144}},
        r"2621\d\d bytes, at most 262144.*`max_message_kb`",
    ),
    "metadata with an endless number": ({"metadata": {"a": 10**5000}}, "not JSON"),
}
GOOD = {"role": "user", "content": "Hello"}


@pytest.fixture
def held_bob(bob):
    bob.save("user", "Held", id="held", session="web", user="alice")
    return bob


@pytest.mark.parametrize("verb", ["save", "submit", "save_many"])
@pytest.mark.parametrize("what", BAD_MEMBERS)
def test_a_bad_member_is_refused_and_nothing_is_written(held_bob, verb, what):
    members, complaint = BAD_MEMBERS[what]
    before = state(held_bob)
    if verb == "save_many":
        call = partial(held_bob.save_many, [GOOD, GOOD | members, GOOD])
    else:
        call = partial(getattr(held_bob, verb), **GOOD | members)
    with pytest.raises(InvalidArgument, match=complaint) as refused:
        call()
    assert len(str(refused.value)) < 600
    assert state(held_bob) == before


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("Hello", "expected a mapping or a Message; got str"),
        (("user", "Hello"), "expected a mapping or a Message; got tuple"),
        (None, "expected a mapping or a Message; got NoneType"),
        ({}, "`role` is missing"),
        ({"role": "user"}, "`content` is missing"),
        (GOOD | {"sesion": "web"}, "unknown member 'sesion'; a message has role, content, sess"),
        (GOOD | {7: 7}, "unknown member 7"),
    ],
)
def test_what_is_no_message_is_refused_by_its_number(held_bob, message, complaint):
    before = state(held_bob)
    with pytest.raises(InvalidArgument, match=f"message 1: {complaint}"):
        held_bob.save_many([GOOD, message])
    assert state(held_bob) == before


@pytest.mark.parametrize("depth", [*range(10, 900, 100), *range(900, 1000, 3)])
def test_metadata_of_any_depth_is_refused_or_can_be_read_again(bob, depth):
    try:
        bob.save("user", "Hello", metadata=nested(depth), id="one")
    except InvalidArgument:
        assert bob.get("one") is None
        return
    (message,) = bob.messages()
    assert repr(message.metadata).count("in") == depth


def test_metadata_and_content_share_one_limit(bob):
    """`max_message_kb` is of "content and metadata of one message"."""
    with pytest.raises(InvalidArgument, match="`max_message_kb`"):
        bob.save("user", "x" * 200_000, metadata={"a": "y" * 200_000})
    assert not bob.exists()


@pytest.mark.parametrize("at", [NOW, NOW + timedelta(hours=23), datetime(1970, 1, 1, tzinfo=UTC)])
def test_times_at_the_edge_are_accepted(bob, at):
    bob.save("user", "Hello", at=at, id="one")
    assert bob.get("one").at == at


def test_sizes_at_the_edge_are_accepted(bob):
    bob.save("user", "x" * 262_144, id="i" * 200, session="s" * 200, user="u" * 200)
    assert len(bob.get("i" * 200).content) == 262_144


@pytest.mark.parametrize(
    "id", ["家", "José", "a b", "a/b", "../..", "%00", "' OR 1=1", "🐞", "👩‍👩‍👧", "علی‌رضا"]
)
def test_an_id_may_be_what_a_person_types(bob, id):
    bob.save("user", "Hello", id=id, session=id, user=id)
    (message,) = bob.history(id)
    assert (message.id, message.session, message.user) == (id, id, id)


BAD_IDS = {
    "": "empty",
    " ": "empty",
    LONG: "201 characters, at most 200",
    "a\0": "at 1",
    "\ud800": "lone surrogate.* at 0",
    7: "must be a string; got int",
    b"one": "must be a string; got bytes",
}
BAD_LIMITS = (0, -1, 10_001, 1.0, "8", True, None, float("nan"))
BAD_QUESTIONS = {
    "": "empty",
    " \n": "empty",
    "x" * 20_001: "20001 characters, at most 20000",
    None: "empty",
    7: "empty",
}


@pytest.mark.parametrize("id", BAD_IDS, ids=repr)
@pytest.mark.parametrize(
    "ask",
    [
        lambda bob, given: bob.get(given),
        lambda bob, given: bob.edit(given, "New"),
        lambda bob, given: bob.delete(given),
        lambda bob, given: bob.delete_session(given),
        lambda bob, given: bob.history(given),
        lambda bob, given: bob.history(before=given),
        lambda bob, given: bob.recall("held", session=given),
        lambda bob, given: bob.recall("held", user=given),
        lambda bob, given: bob.context("held", session=given),
    ],
    ids="get edit delete delete_session history before session user context".split(),
)
def test_every_verb_refuses_a_bad_id(held_bob, ask, id):
    before = state(held_bob)
    with pytest.raises(InvalidArgument, match=BAD_IDS[id]):
        ask(held_bob, id)
    assert state(held_bob) == before


@pytest.mark.parametrize("limit", BAD_LIMITS, ids=repr)
@pytest.mark.parametrize(
    "ask",
    [
        lambda bob, limit: bob.history(limit=limit),
        lambda bob, limit: bob.sessions(limit=limit),
        lambda bob, limit: bob.recall("held", limit=limit),
        lambda bob, limit: bob.context("held", limit=limit),
    ],
    ids="history sessions recall context".split(),
)
def test_a_limit_out_of_range_names_the_range_and_the_setting(held_bob, ask, limit):
    with pytest.raises(InvalidArgument, match=r"from 1 to 10000 .`max_query_rows`"):
        ask(held_bob, limit)


@pytest.mark.parametrize("max_tokens", [0, -1, 10_000_001, 1.5, "many", None])
def test_a_budget_of_tokens_out_of_range_is_refused(held_bob, max_tokens):
    with pytest.raises(InvalidArgument, match="max_tokens"):
        held_bob.context("held", max_tokens=max_tokens)


@pytest.mark.parametrize("question", BAD_QUESTIONS, ids=lambda question: repr(question)[:9])
def test_a_question_that_asks_nothing_is_refused(held_bob, question):
    with pytest.raises(InvalidArgument, match=BAD_QUESTIONS[question]):
        held_bob.recall(question)
    with pytest.raises(InvalidArgument, match=BAD_QUESTIONS[question]):
        held_bob.context(question)


@pytest.mark.parametrize("bound", ["since", "until"])
@pytest.mark.parametrize("at", [datetime(2024, 1, 1), "2024-01-01", 5])  # noqa: DTZ001
def test_a_filter_by_time_needs_a_zone(held_bob, bound, at):
    with pytest.raises(InvalidArgument, match=bound):
        held_bob.recall("held", **{bound: at})


@pytest.mark.parametrize("bound", ["since", "until"])
@pytest.mark.parametrize("year", [1, 9999])
def test_a_filter_by_a_far_away_time_is_answered(held_bob, bound, year):
    hits = held_bob.recall("held", **{bound: datetime(year, 1, 1, tzinfo=UTC)})
    assert len(hits) == ((bound == "until") == (year == 9999))


def test_a_filter_by_an_unknown_role_is_refused(held_bob):
    with pytest.raises(InvalidArgument, match="role 'robot' is unknown"):
        held_bob.recall("held", role="robot")


@pytest.mark.parametrize("content", ["", " ", "a\0", "\ud800", "x" * 262_145, None, b"x"])
def test_an_edit_to_a_bad_content_changes_nothing(held_bob, content):
    before = state(held_bob)
    with pytest.raises(InvalidArgument, match="content"):
        held_bob.edit("held", content)
    assert state(held_bob) == before


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), float("inf"), "1", True])
def test_a_bad_timeout_is_refused(held_bob, timeout_s):
    with pytest.raises(InvalidArgument, match="timeout_s"):
        held_bob.flush(timeout_s=timeout_s)


def test_no_message_of_an_error_holds_the_text_of_a_message(held_bob):
    """Errors end in logs; other people's words do not belong there."""
    secret = "xylophone " * 30_000
    held_bob.remember("Held", id="known", about=["Alice"])
    message = {"role": "user", "content": "xylophone", "id": "held"}
    for call in (
        lambda: held_bob.save("user", secret),
        lambda: held_bob.save("user", "xylophone\0"),
        lambda: held_bob.save("user", "xylophone", id="held"),
        lambda: held_bob.save("user", "xylophone", metadata={"a": {"xylophone"}}),
        lambda: held_bob.edit("held", secret),
        lambda: held_bob.edit("gone", "xylophone"),
        lambda: held_bob.submit("user", secret),
        lambda: held_bob.submit(**message).result(timeout=30),
        lambda: held_bob.save_many([message]),
        lambda: held_bob.import_([{"role": "user", "content": secret}]),
        lambda: held_bob.remember(secret),
        lambda: held_bob.remember("xylophone\0"),
        lambda: held_bob.remember("xylophone", id="known"),
        lambda: held_bob.remember("xylophone", metadata={"a": {"xylophone"}}),
        lambda: held_bob.remember("xylophone", replaces="gone"),
        lambda: held_bob.edit_memory("known", secret),
        lambda: held_bob.edit_memory("gone", "xylophone"),
        lambda: held_bob.set_concept("Alice", description=secret),
        lambda: held_bob.recall(secret),
        lambda: held_bob.remember("x", about=["xylophone\0"]),
        lambda: held_bob.remember("x", kind="xylophone\0"),
        lambda: held_bob.relate("xylophone\0", "knows", "y"),
        lambda: held_bob.relate("x", "xylophone\0", "y"),
    ):
        with pytest.raises(ElytronError) as raised:
            call()
        assert "xylophone" not in str(raised.value)
