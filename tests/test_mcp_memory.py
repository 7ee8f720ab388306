"""The three tools of the memory profile, asked by the protocol's own client."""

from datetime import UTC, datetime

import anyio
import pytest
from mcp import Client, MCPError

from elytron.faces.mcp.memory_profile import ANSWER_CHARS, RECALLED_MAX, memory_profile
from elytron.faces.mcp.server import Face
from mcp_servers import ask, error_of, remembering, told


@pytest.fixture
def call(bob):
    return remembering(bob)


def test_the_list_of_tools_is_small_stable_and_truly_hinted(bob):
    async def main():
        async with Client(Face(memory_profile(bob)).server()) as client:
            return [(await client.list_tools()).tools for _ in range(2)]

    first, second = anyio.run(main)
    assert first == second
    hints = {
        tool.name: (
            tool.annotations.read_only_hint,
            tool.annotations.destructive_hint,
            tool.annotations.idempotent_hint,
            tool.annotations.open_world_hint,
        )
        for tool in first
    }
    assert hints == {
        "remember": (False, False, False, False),
        "recall": (True, False, True, False),
        "forget": (False, True, True, False),
    }
    assert all(tool.output_schema and tool.title and tool.description for tool in first)
    assert sum(len(tool.model_dump_json()) for tool in first) < 8000  # it is in every prompt


def test_a_cursor_for_the_list_of_tools_is_refused(bob):
    async def main():
        async with Client(Face(memory_profile(bob)).server()) as client:
            with pytest.raises(MCPError, match="everything is on the first page"):
                await client.list_tools(cursor="x")

    anyio.run(main)


def test_what_is_remembered_is_recalled_with_its_id_score_and_size(bob, call):
    kept = call("remember", content="Alice prefers tea.", about=["Alice"], kind="preference")
    assert kept.structured_content == {"id": bob.memories()[0].id, "new": True}
    found = call("recall", question="what does Alice prefer?")
    (hit,) = found.structured_content["hits"]
    assert hit["id"] == kept.structured_content["id"]
    assert (hit["kind"], hit["content"], hit["about"]) == (
        "preference", "Alice prefers tea.", ["Alice"],
    )  # fmt: skip
    assert hit["score"] > 0
    assert found.structured_content["chars"] == len("Alice prefers tea.")
    assert found.structured_content["tokens"] > 0
    assert "Alice prefers tea." in told(found)
    assert hit["id"] in told(found)


def test_remembering_takes_all_that_it_says(bob, call):
    old = call("remember", content="Alice lives in Paris.", id="home").structured_content["id"]
    call(
        "remember", content="Alice lives in Lyon.", importance=0.9, session="s1", replaces=old,
        about=["Alice", "Lyon"],
    )  # fmt: skip
    (now,) = bob.memories("Alice")
    assert (now.content, now.importance, now.session) == ("Alice lives in Lyon.", 0.9, "s1")
    assert bob.get_memory(old).valid_to is not None


def test_remembering_again_under_an_id_is_harmless_and_told(call):
    assert call("remember", content="x y", id="one").structured_content["new"]
    assert not call("remember", content="x y", id="one").structured_content["new"]
    assert error_of(call("remember", content="other", id="one")) == "conflict"


def test_messages_are_recalled_too_and_chosen_by_session_user_kind_and_time(bob, call):
    at = datetime(2026, 3, 2, tzinfo=UTC)
    bob.save("user", "The disk is full.", session="web", user="alice", at=at)
    bob.save("user", "The disk is old.", session="shop", user="carol", at=at.replace(month=4))
    bob.remember("The disk is a Seagate.")

    def contents(**only):
        found = call("recall", question="disk", **only).structured_content["hits"]
        return {hit["content"] for hit in found}

    assert len(contents()) == 3
    assert contents(session="web") == {"The disk is full."}
    assert contents(user="carol") == {"The disk is old."}
    assert contents(kinds=["fact"]) == {"The disk is a Seagate."}
    assert contents(kinds=["message"], until="2026-03-10T00:00+00:00") == {"The disk is full."}
    assert contents(kinds=["message"], since="2026-03-10T00:00Z") == {"The disk is old."}


def test_a_hit_has_the_session_that_it_is_of_and_none_if_it_is_of_none(bob, call):
    bob.save("user", "The disk is full.")
    bob.remember("The disk is a Seagate.", id="alone")
    bob.remember("The disk was bought in March.", id="shop", session="shop")
    hits = call("recall", question="disk").structured_content["hits"]
    sessions = {hit["id"]: hit.get("session") for hit in hits if hit["kind"] == "fact"}
    assert sessions == {"alone": None, "shop": "shop"}
    assert [hit["session"] for hit in hits if hit["kind"] == "message"] == ["default"]
    assert all("session" in hit for hit in hits if hit["id"] != "alone")


def test_pages_give_every_hit_once_and_then_end(bob, call):
    for number in range(23):
        bob.remember(f"apple number {number}")
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        more = {} if cursor is None else {"cursor": cursor}
        page = call("recall", question="apple", limit=5, **more).structured_content
        seen += [hit["id"] for hit in page["hits"]]
        cursor, pages = page.get("nextCursor"), pages + 1
        if pages == 2:
            bob.remember("apple that came in between")
    assert pages == 5
    assert len(seen) == len(set(seen)) >= 23


def test_an_agent_that_reads_few_rows_at_once_recalls_so_many(bob):
    for number in range(9):
        bob.remember(f"apple number {number}")
    (found,) = ask(memory_profile(bob, rows_max=3), ("recall", {"question": "apple"}))
    assert len(found.structured_content["hits"]) == 3
    assert "nextCursor" not in found.structured_content


def test_no_question_gives_more_than_its_bound_over_all_pages(bob, call):
    for number in range(RECALLED_MAX + 20):
        bob.remember(f"apple number {number}")
    seen, cursor = 0, None
    while seen == 0 or cursor:
        more = {} if cursor is None else {"cursor": cursor}
        page = call("recall", question="apple", limit=50, **more).structured_content
        seen, cursor = seen + len(page["hits"]), page.get("nextCursor")
    assert seen == RECALLED_MAX


def test_an_answer_ends_early_where_texts_are_long_and_the_next_page_goes_on(bob, call):
    for number in range(3):
        bob.remember(f"apple {number} " + "x" * (ANSWER_CHARS // 2))
    first = call("recall", question="apple").structured_content
    assert len(first["hits"]) == 1
    second = call("recall", question="apple", cursor=first["nextCursor"]).structured_content
    assert second["hits"][0]["id"] != first["hits"][0]["id"]


@pytest.mark.parametrize("cursor", ["", "!!!", "abc", "AAAAAAAA", "A" * 4000])
def test_a_cursor_that_is_not_ours_is_refused(call, cursor):
    assert error_of(call("recall", question="apple", cursor=cursor)) == "invalid-argument"


def test_a_cursor_of_another_question_is_refused(bob, call):
    for number in range(3):
        bob.remember(f"apple number {number}")
    first = call("recall", question="apple", limit=1).structured_content
    other = call("recall", question="pear", cursor=first["nextCursor"])
    assert "another question" in told(other)
    assert error_of(other) == "invalid-argument"


def test_nothing_found_is_an_answer_and_no_error(call):
    found = call("recall", question="unheard of")
    assert not found.is_error
    assert found.structured_content == {"hits": [], "chars": 0, "tokens": 0}
    assert told(found) == "Nothing is remembered about that."


def test_forgetting_takes_one_memory_or_message_by_its_id(bob, call):
    memory = bob.remember("apple").id
    message = bob.save("user", "pear").id
    assert call("forget", id=memory).structured_content["memories"] == 1
    assert call("forget", id=message).structured_content["messages"] == 1
    assert not bob.memories()
    assert not bob.history()
    again = call("forget", id=memory)
    assert not again.is_error
    assert told(again) == "Nothing of that is held; nothing was erased."


def test_forgetting_takes_a_user_or_a_session_whole(bob, call):
    bob.save("user", "I live in Lyon.", session="web", user="alice")
    bob.save("user", "I live in Rome.", session="shop", user="carol")
    bob.remember("carol is in a hurry", session="shop")
    assert call("forget", user="alice").structured_content["messages"] == 1
    gone = call("forget", session="shop").structured_content
    assert (gone["messages"], gone["memories"]) == (1, 1)
    assert not bob.history()
    assert not bob.memories()


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("remember", {}, "'content' is a required property"),
        ("remember", {"content": ""}, "content: must have 1 or more"),
        ("remember", {"content": 5}, "content: must be of type string"),
        ("remember", {"content": "x", "abuot": ["a"]}, "'abuot' was unexpected"),
        ("remember", {"content": "x", "about": "Alice"}, "about: must be of type array"),
        ("remember", {"content": "x", "about": ["a"] * 101}, "about: has 101, at most 100"),
        ("remember", {"content": "x", "about": [""]}, "about"),
        ("remember", {"content": "x", "importance": 2}, "importance"),
        ("remember", {"content": "x", "kind": "memory"}, "kind"),
        ("recall", {"question": "x" * 20_001}, "question: has 20001, at most 20000"),
        ("recall", {"question": "x", "limit": 0}, "limit"),
        ("recall", {"question": "x", "limit": True}, "limit: must be of type integer"),
        ("recall", {"question": "x", "since": "yesterday"}, "since must be a time"),
        ("recall", {"question": "x", "since": "2026-01-01"}, "zone"),
        ("forget", {}, "pass one of id, session, user"),
        ("forget", {"id": "a", "user": "b"}, "pass one of id, session, user"),
        ("forget", {"id": "a\x00b"}, "id"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_tools_error_that_says_so_and_changes_nothing(
    bob, call, tool, arguments, why
):
    result = call(tool, **arguments)
    assert error_of(result) == "invalid-argument"
    assert why in told(result)
    assert not bob.exists()


def test_a_memory_that_is_too_large_is_refused_with_the_setting(bob, call):
    result = call("remember", content="x" * (300 << 10))
    assert error_of(result) == "invalid-argument"
    assert "max_message_kb" in told(result)


def test_an_unknown_tool_is_an_error_of_the_protocol(bob):
    async def main():
        async with Client(Face(memory_profile(bob)).server()) as client:
            with pytest.raises(MCPError, match="Unknown tool: nonsense"):
                await client.call_tool("nonsense", {})

    anyio.run(main)


def test_what_nobody_foresaw_comes_back_as_an_error_without_a_text_in_the_log(
    bob, call, caplog, monkeypatch
):
    def fails(*_arguments, **_more):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(type(bob), "remember", fails)
    result = call("remember", content="another secret")
    assert error_of(result) == "error"
    assert "ZeroDivisionError" in told(result)
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text + told(result)


def test_reading_makes_nothing_on_the_disk(folder, call):
    call("recall", question="anything")
    call("forget", user="nobody")
    assert not folder.exists()
