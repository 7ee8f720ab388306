"""What becomes of JSON Lines and of OpenAI chat messages."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import elytron
from elytron.importers import import_file, openai, pieces
from elytron.records import ROLES
from test_importers_common import DATA, contents, pouring


@pytest.fixture
def pour(store: elytron.Store, tmp_path: Path) -> Callable[..., elytron.ImportReport]:
    return pouring(store, tmp_path)


# -- jsonl


def test_every_member_of_a_line_arrives(store):
    import_file(store, DATA / "messages.jsonl", agent="bob")
    bob = store.agent("bob")
    assert bob.get("m1") == elytron.Message(
        "m1", "user", "The kitchen sink drips again.",
        datetime.fromisoformat("2026-03-02T18:04:10+01:00"), "web-42", "alice", {"page": 3}, 0,
    )  # fmt: skip
    assert bob.get("m1").at.isoformat() == "2026-03-02T18:04:10+01:00"
    assert contents(bob)[2:] == ["Merci, c'est réparé !", "ok", "ok"]


def test_what_an_agent_exports_another_imports_unchanged(store, tmp_path):
    for name, file in (("a", "conversations.json"), ("a", "messages.jsonl")):
        import_file(store, DATA / file, agent=name)
    store.agent("a").export(tmp_path / "a.jsonl")
    import_file(store, tmp_path / "a.jsonl", agent="b")
    assert list(store.agent("b").messages()) == list(store.agent("a").messages())


def test_a_null_is_the_same_as_a_member_that_is_left_out(pour, bob):
    rest = dict.fromkeys(("session", "user", "at", "metadata", "id"))
    pour([{"role": "user", "content": "x", **rest}], "jsonl", by_line=True)
    report = pour([{"role": "user", "content": "x"}], "jsonl", by_line=True)
    assert report.already_held == 1


def test_lines_without_an_id_find_themselves_again_wherever_they_have_moved(pour, bob):
    said = [{"role": "user", "content": text} for text in ("ok", "yes", "ok")]
    pour(said, "jsonl", by_line=True)
    more = [
        {"role": "user", "content": "first"},
        *reversed(said),
        {"role": "user", "content": "ok"},
    ]
    report = pour(more, "jsonl", by_line=True)
    assert (report.imported, report.already_held) == (2, 3)
    assert sorted(contents(bob)) == ["first", "ok", "ok", "ok", "yes"]


def test_two_lines_that_differ_in_one_member_are_two_messages(pour, bob):
    line = {"role": "user", "content": "x"}
    others = (
        {"role": "assistant"}, {"content": "y"}, {"session": "s"}, {"user": "alice"},
        {"at": "2026-03-02T18:04:10+01:00"}, {"metadata": {"a": 1}},
    )  # fmt: skip
    report = pour([line, *[{**line, **other} for other in others]], "jsonl", by_line=True)
    assert report.imported == 7


def test_the_order_of_the_members_makes_no_other_message(pour, bob):
    pour([{"role": "user", "content": "x", "metadata": {"a": 1, "b": 2}}], "jsonl", by_line=True)
    turned = [{"metadata": {"b": 2, "a": 1}, "content": "x", "role": "user"}]
    assert pour(turned, "jsonl", by_line=True).already_held == 1


text = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
).filter(lambda t: not t.isspace())
name = st.none() | st.text("aé😀 -'\"\\/", min_size=1, max_size=3).filter(lambda t: not t.isspace())
zones = st.timezones() | st.just(UTC)
times = st.none() | (
    st.timedeltas(timedelta(days=400), timedelta(days=20_000))
    .map(lambda passed: datetime(1970, 1, 1, tzinfo=UTC) + passed)
    .flatmap(lambda at: zones.map(at.astimezone))
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False,
        allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner,
        max_size=2),
    max_leaves=4,
)  # fmt: skip
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(ROLES),
        "content": text,
        "session": name,
        "user": name,
        "at": times,
        "metadata": st.none() | st.dictionaries(st.text("ab", max_size=2), values, max_size=2),
        "embed": st.sampled_from([None, False]),
    }
)


@given(said=st.lists(messages, min_size=1, max_size=9))
def test_any_messages_survive_export_and_import_unchanged(said, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("survive")
    with elytron.open(tmp / "store", reserve_mb=0) as store:
        store.agent("a").save_many(said)
        store.agent("a").export(tmp / "a.jsonl")
        (report,) = import_file(store, tmp / "a.jsonl", agent="b")
        assert report.imported == len(said)
        first, second = list(store.agent("a").messages()), list(store.agent("b").messages())
        assert second == first
        assert [m.at.utcoffset() for m in second] == [m.at.utcoffset() for m in first]
        assert repr([m.metadata for m in second]) == repr([m.metadata for m in first])


# -- openai


def test_parts_names_and_calls_of_chat_messages_arrive(store):
    (report,) = import_file(store, DATA / "openai_messages.json", agent="bob")
    system, question, calls, answer, last = store.agent("bob").messages()
    assert (system.role, system.content) == ("system", "You answer in one sentence.")
    assert (question.user, question.content) == ("alice", "What grows on this wall?\nIt is green.")
    assert [part["type"] for part in question.metadata["parts"]] == ["image_url"]
    assert calls.content == '[calls] look_up({"plant": "ivy"})'
    assert calls.metadata["tool_calls"][0]["id"] == "c1"
    assert (answer.role, answer.metadata) == ("tool", {"tool_call_id": "c1"})
    assert last.content == "It is ivy."
    assert {message.session for message in (system, question, calls)} == {"openai_messages-1"}
    assert report.left_out == {pieces.NO_TEXT: 1, pieces.EMPTY: 1}


def test_each_example_is_a_session_of_its_own(store):
    (report,) = import_file(store, DATA / "openai_examples.jsonl", agent="bob")
    assert sorted((s.id, s.messages) for s in store.agent("bob").sessions()) == [
        ("openai_examples-1", 2), ("openai_examples-2", 2),
    ]  # fmt: skip
    assert report.left_out == {openai.OTHER_MEMBERS: 1}


def test_one_example_written_over_several_lines_is_one_conversation(store):
    import_file(store, DATA / "openai_object.json", agent="bob")
    assert contents(store.agent("bob")) == ["When is the market?", "On Saturday."]


def test_the_same_words_in_two_files_are_two_messages(store, tmp_path):
    for file in ("one.json", "two.json"):
        (tmp_path / file).write_text('[{"role": "user", "content": "hello"}]')
        import_file(store, tmp_path / file, agent="bob")
    assert [s.id for s in store.agent("bob").sessions()] == ["two-1", "one-1"]


def test_a_conversation_that_grew_adds_only_what_is_new(pour, bob):
    said = [{"role": "user", "content": f"{n % 2}"} for n in range(6)]
    assert pour({"messages": said[:4]}, "openai").imported == 4
    report = pour({"messages": said}, "openai")
    assert (report.imported, report.already_held) == (2, 4)


@pytest.mark.parametrize(
    ("message", "content", "metadata"),
    [
        ({"content": ["a", {"type": "input_text", "text": "b"}]}, "a\nb", {}),
        ({"content": None, "refusal": "I will not."}, "I will not.", {}),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "No.", {}),
        (
            {"content": "so", "refusal": "No.", "annotations": []},
            "so",
            {"refusal": "No.", "annotations": []},
        ),
        (
            {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
            "[calls] f({})",
            {"function_call": {"name": "f", "arguments": "{}"}},
        ),
        (
            {
                "tool_calls": [
                    {"function": {"name": "f", "arguments": "1"}},
                    {"custom": {"name": "g", "input": "2"}},
                ]
            },
            "[calls] f(1)\n[calls] g(2)",
            {
                "tool_calls": [
                    {"function": {"name": "f", "arguments": "1"}},
                    {"custom": {"name": "g", "input": "2"}},
                ]
            },
        ),
    ],
)
def test_chat_messages_come_in_many_shapes(message, content, metadata, pour, bob):
    pour([{"role": "assistant", **message}], "openai")
    (held,) = bob.messages()
    assert (held.content, held.metadata) == (content, metadata)


def test_encoded_images_are_cut_down_to_their_size_and_counted(pour, bob):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 900_000}}
    report = pour([{"role": "user", "content": [{"type": "text", "text": "see"}, image]}], "openai")
    (held,) = bob.messages()
    (part,) = held.metadata["parts"]
    assert part["type"] == "image_url"
    assert part["left_out_bytes"] > 900_000
    assert report.left_out == {pieces.PART_DATA: 1}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (5, "expected a message; got int"),
        ({"content": "x"}, "`role` is missing"),
        ({"role": "king", "content": "x"}, "'king' is unknown"),
        ({"role": "user", "content": 5}, "content must be a string or a list of parts"),
        ({"role": "user", "name": 5, "content": "x"}, "user must be a string"),
        ({"role": "user", "tool_calls": 5}, "tool_calls must be a list"),
        ({"role": "user", "content": "x\0"}, "NUL"),
    ],
)
def test_a_bad_chat_message_is_told_with_its_place(message, reason, pour, bob):
    good = {"role": "user", "content": "fine"}
    with pytest.raises(elytron.InvalidArgument, match="item 2: ") as caught:
        pour([good, message], "openai")
    assert reason in str(caught.value)
    report = pour([{"messages": [good]}, {"messages": [good, message]}], "openai", by_line=True,
        skip_bad=True)  # fmt: skip
    assert report.imported == 2
    assert [(bad.line, bad.reason[:11]) for bad in report.bad] == [(2, "message 2: ")]
    assert reason in report.bad[0].reason


def test_an_example_without_messages_is_bad(pour, bob):
    report = pour([{"messages": 5}, {"prompt": "x"}, [], {"messages": []}], "openai",
        by_line=True, skip_bad=True)  # fmt: skip
    assert [bad.line for bad in report.bad] == [1, 2, 3]
