"""What becomes of the conversations of a ChatGPT export."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron.importers import chatgpt, import_file, pieces
from test_importers_common import DATA, contents, pouring


@pytest.fixture
def pour(store: elytron.Store, tmp_path: Path) -> Callable[..., elytron.ImportReport]:
    return pouring(store, tmp_path)


def node(parent: str | None, *children: str, **message: Any) -> dict[str, Any]:
    return {"parent": parent, "children": list(children), "message": message or None}


def said(text: str, at: Any = None, role: str = "user") -> dict[str, Any]:
    content = {"content_type": "text", "parts": [text]}
    return {"author": {"role": role}, "create_time": at, "content": content}


def conversation(current: Any = None, **mapping: Any) -> list[dict[str, Any]]:
    return [{"conversation_id": "c", "title": "T", "current_node": current, "mapping": mapping}]


def test_the_branch_that_was_shown_last_is_taken(store):
    (report,) = import_file(store, DATA / "conversations.json", agent="bob")
    question, code, result, answer, *second = store.agent("bob").messages()
    assert (question.id, question.session, question.content) == ("a3", "conv-a", "What grows here?")
    assert question.at == datetime(2023, 11, 14, 22, 13, 30, 250_000, tzinfo=UTC)
    assert question.metadata["title"] == "Ivy on the wall"
    assert question.metadata["parts"][0]["asset_pointer"] == "file-service://file-1"
    assert (code.content, code.metadata) == ("look(image)", {"content_type": "code"})
    assert (result.role, result.user, result.at) == ("tool", "python", code.at)
    assert answer.content == "It is ivy.\n It is evergreen."
    assert "title" not in answer.metadata
    assert [message.content for message in second] == ["Where is Lyon?", "In France."]
    assert report.left_out == {chatgpt.ABANDONED: 2, chatgpt.HIDDEN: 1, pieces.EMPTY: 1}


def test_without_a_current_node_the_newest_child_is_followed_down(pour, bob):
    pour(
        conversation(
            root=node(None, "a"),
            stray=node(None),
            a=node("root", "b", "c", **said("a", 1.0)),
            b=node("a", "d", **said("b", 3.0)),
            c=node("a", **said("c", 2.0)),
            d=node("b", **said("d")),
        ),
        "chatgpt",
    )
    assert contents(bob) == ["a", "b", "d"]


@pytest.mark.parametrize("current", ["gone", 5, None, ["b"]])
def test_a_current_node_that_is_none_is_passed_over(current, pour, bob):
    pour(conversation(current, a=node(None, "b", **said("a")), b=node("a", **said("b"))), "chatgpt")
    assert contents(bob) == ["a", "b"]


@pytest.mark.parametrize("current", ["a", "b", None])
def test_a_circle_of_nodes_is_walked_once(current, pour, bob):
    report = pour(
        conversation(current, a=node("b", "b", **said("a")), b=node("a", "a", **said("b"))),
        "chatgpt",
    )
    found = {"a": ["b", "a"], "b": ["a", "b"], None: []}[current]
    assert contents(bob) == found
    assert report.left_out == ({} if found else {chatgpt.ABANDONED: 2})


def test_a_parent_that_is_missing_begins_the_branch(pour, bob):
    pour(conversation("b", a=node(None, **said("a")), b=node("gone", **said("b"))), "chatgpt")
    assert contents(bob) == ["b"]


def test_children_that_are_none_are_passed_over(pour, bob):
    odd = {**node(None, **said("a")), "children": [None, 5, "gone", ["b"], "b"]}
    pour(conversation(None, a=odd, b=node("a", **said("b")), c=7, d=[]), "chatgpt")
    assert contents(bob) == ["a", "b"]


def test_a_message_without_a_time_has_that_of_the_one_before(pour, bob):
    nodes = {
        "a": node(None, "b", **said("a")),
        "b": node("a", "c", **said("b", 1_700_000_000)),
        "c": node("b", **said("c")),
    }
    dated = conversation("c", **nodes)
    dated[0]["create_time"] = 1_600_000_000.5
    pour(dated, "chatgpt")
    assert [message.at.timestamp() for message in bob.messages()] == [
        1_600_000_000.5, 1_700_000_000, 1_700_000_000,
    ]  # fmt: skip


def test_the_id_of_a_node_stands_in_for_a_message_without_one(pour, bob):
    pour(conversation("a", a=node(None, **said("x"))), "chatgpt")
    assert bob.get("a").content == "x"


def test_what_has_no_words_is_left_out_and_counted_by_reason(pour, bob):
    def shown(kind: str, **content: Any) -> dict[str, Any]:
        return {"author": {"role": "assistant"}, "content": {"content_type": kind, **content}}

    image = {"content_type": "image_asset_pointer", "asset_pointer": "x"}
    report = pour(
        conversation(
            "f",
            a=node(None, **shown("thoughts", thoughts=[{"content": "hm"}])),
            b=node("a", **shown("reasoning_recap", content="Thought for 3 seconds")),
            c=node("b", **shown("multimodal_text", parts=[image])),
            d=node("c", **shown("text", parts=[""])),
            e=node("d", **shown("model_editable_context", model_set_context="x")),
            f=node("e", **shown("tether_browsing_display", result="a page")),
        ),
        "chatgpt",
    )
    assert contents(bob) == ["a page"]
    assert report.left_out == {chatgpt.REASONING: 2, pieces.NO_TEXT: 2, pieces.EMPTY: 1}


@pytest.mark.parametrize("odd", [None, [], {}, 5])
def test_the_names_of_uploaded_files_are_left_out_and_counted(odd, pour, bob):
    files = [{"name": "lease.pdf", "id": "f1"}, {"name": "plan.pdf", "id": "f2"}]
    report = pour(
        conversation(
            "c",
            a=node(None, **said("Read these."), metadata={"attachments": files}),
            b=node("a", **said(""), metadata={"attachments": files[:1]}),
            c=node("b", **said(""), metadata={"attachments": odd}),
        ),
        "chatgpt",
    )
    (message,) = bob.messages()
    assert message.metadata == {"title": "T"}  # as of an earlier version, so that both are one
    assert report.left_out == {chatgpt.UPLOADED: 3, pieces.NO_TEXT: 1, pieces.EMPTY: 1}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"message": 5}, "expected a message; got int"),
        ({"message": {**said("x"), "author": None}}, "no `author`"),
        ({"message": {**said("x"), "author": {"role": "king"}}}, "'king' is unknown"),
        ({"message": {**said("x"), "content": 5}}, "content must be an object"),
        ({"message": {**said("x"), "id": 5}}, "id must be a string"),
        ({"message": said("x", "soon")}, "create_time must be a number"),
        ({"message": said("x", True)}, "create_time must be a number"),
        ({"message": said("x", 1e300)}, "create_time is no number of seconds"),
        ({"message": said("x", -1e9)}, "before 1970"),
        ({"message": said("x", 1.7e12)}, "create_time is no number of seconds"),
        ({"message": said("x\0")}, "NUL"),
    ],
)
def test_a_bad_message_is_told_with_its_conversation(message, reason, pour, bob):
    good = node(None, "b", **said("fine", 1.0))
    bad = {"parent": "a", "children": ["c"], **message}
    value = conversation("c", a=good, b=bad, c=node("b", **said("fine too")))
    with pytest.raises(elytron.InvalidArgument, match="item 1: message 'b': ") as caught:
        pour(value, "chatgpt")
    assert reason in str(caught.value)
    report = pour(value, "chatgpt", skip_bad=True)
    assert contents(bob) == ["fine", "fine too"]
    assert len(report.bad) == 1


@pytest.mark.parametrize(
    "value",
    [5, [], {}, {"mapping": {}}, {"mapping": [], "id": "a"}, {"mapping": {}, "id": 5},
     {"mapping": {}, "id": "a", "create_time": "x"}],
)  # fmt: skip
def test_a_conversation_that_is_none_costs_no_other(value, pour, bob):
    good = conversation("a", a=node(None, **said("fine")))
    report = pour([value, *good], "chatgpt", skip_bad=True)
    assert report.imported == 1
    assert [bad.line for bad in report.bad] == [1]
