"""The origin's class on Elytron: its names, shapes and promises."""

import inspect
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron.adapters import locrits_memory
from elytron.adapters.locrits import KuzuMemoryService
from elytron.errors import InvalidArgument
from locrits import base_path, open_service, run, with_concepts

base = base_path()


SIGNATURES = {
    "__init__": "locrit_name base_path embedding_model embedding_dimension inference_mode",
    "initialize": "",
    "save_message": "role content session_id user_id metadata generate_embedding kwargs",
    "get_conversation_history": "session_id limit",
    "search_memories": "query limit use_vector_search",
    "vector_search_messages": "query limit session_id",
    "vector_search_memories": "query limit min_importance",
    "vector_search_concepts": "query limit",
    "vector_search_all": "query limit_per_type",
    "get_contextual_memories": "current_message limit include_session_context session_id",
    "recommend_related_concepts": "content limit",
    "get_memory_insights": "timeframe_days",
    "find_knowledge_gaps": "query_topics confidence_threshold",
    "get_concept_details": "concept_name concept_type",
    "get_related_concepts": "concept_name depth",
    "get_full_memory_summary": "",
    "get_message_by_id": "message_id",
    "get_session_by_id": "session_id",
    "get_all_memories": "",
    "add_memory": "content importance metadata",
    "edit_message": "message_id new_content",
    "delete_message": "message_id",
    "delete_memory": "memory_id",
    "edit_concept": "concept_id name description confidence",
    "delete_concept": "concept_id",
    "delete_session": "session_id",
    "clear_all_memory": "",
    "get_message_count": "",
    "cleanup_old_messages": "max_messages",
    "archive_old_messages": "days_old keep_count",
    "get_memory_usage": "",
    "check_memory_limit": "max_size_mb",
    "emergency_cleanup": "",
    "get_connection": "",
    "release_connection": "connection",
    "close": "",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_method_of_the_origin_is_there_with_its_arguments(name: str) -> None:
    method = getattr(KuzuMemoryService, name)
    assert list(inspect.signature(method).parameters)[1:] == SIGNATURES[name].split()
    assert name == "__init__" or inspect.iscoroutinefunction(method)


# -- saving and reading back


def test_a_message_comes_back_in_the_origins_shape(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            before = datetime.now()  # noqa: DTZ005 - the origin's times are local and naive
            name = await bob.save_message(
                "user", "I live in Lyon", "web-42", "alice", {"channel": "web"}
            )
            (row,) = await bob.get_conversation_history("web-42")
            assert row["id"] == name
            assert {key: row[key] for key in ("role", "content", "metadata")} == {
                "role": "user", "content": "I live in Lyon", "metadata": {"channel": "web"},
            }  # fmt: skip
            at = datetime.fromisoformat(row["timestamp"])
            assert at.tzinfo is None
            assert before <= at <= datetime.now()  # noqa: DTZ005
            found = await bob.get_message_by_id(name)
            assert found == {**row, "session_id": "web-42"}
            assert await bob.get_message_by_id("nobody") is None

    run(use())


def test_a_history_has_the_newest_messages_oldest_first(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            for number in range(7):
                await bob.save_message("user", f"number {number}", "s")
            rows = await bob.get_conversation_history("s", limit=3)
            assert [row["content"] for row in rows] == ["number 4", "number 5", "number 6"]
            assert await bob.get_conversation_history("s", limit=0) == []
            assert await bob.get_conversation_history("another") == []

    run(use())


def test_without_a_session_one_is_made(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            names = [await bob.save_message("user", text) for text in ("one", "two")]
            rows = [await bob.get_message_by_id(name) for name in names]
            sessions = {row["session_id"] for row in rows if row}
            assert len(sessions) == 2

    run(use())


def test_only_a_users_messages_are_a_users(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await bob.save_message("user", "hello", "s", "alice")
            await bob.save_message("assistant", "hello Alice", "s", "alice")
        with elytron.open(base) as store:
            speakers = [m.speaker for m in store.agent("Bob Technique").history()]
            assert speakers == ["alice", "assistant"]

    run(use())


def test_saving_the_same_message_id_again_is_harmless(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            at = datetime(2025, 10, 5, 14, 30)  # noqa: DTZ001
            more: dict[str, Any] = {"message_id": "m", "timestamp": at, "importance": 0.9}
            for _ in range(2):
                assert await bob.save_message("user", "once", "s", **more, unknown=1) == "m"
            assert await bob.get_message_count() == 1
            row = await bob.get_message_by_id("m")
            assert row is not None
            assert row["timestamp"] == "2025-10-05 14:30:00"

    run(use())


def test_changing_and_deleting_say_whether_it_was_there(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            name = await bob.save_message("user", "I live in Lyon", "s")
            memory = await bob.add_memory("Alice is kind", 0.9, {"by": "test"})
            assert await bob.edit_message(name, "I live in Paris") is True
            assert await bob.edit_message("nobody", "text") is False
            assert (await bob.get_conversation_history("s"))[0]["content"] == "I live in Paris"
            assert await bob.delete_message(name) is True
            assert await bob.delete_message(name) is False
            assert await bob.delete_memory(memory) is True
            assert await bob.delete_memory(memory) is False
            await bob.save_message("user", "one more", "s")
            assert await bob.delete_session("s") is True
            assert await bob.delete_session("s") is False
            await bob.save_message("user", "and another", "s")
            assert await bob.clear_all_memory() is True
            assert await bob.get_message_count() == 0

    run(use())


def test_memories_come_back_in_the_origins_shape(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            first = await bob.add_memory("Alice prefers quiet flats", 0.8)
            await bob.add_memory("The weather was fine", 0.1)
            rows = await bob.get_all_memories()
            assert {row["content"] for row in rows} == {
                "Alice prefers quiet flats", "The weather was fine",
            }  # fmt: skip
            assert set(rows[0]) == {"id", "content", "importance", "created_at", "last_accessed"}
            (row,) = await bob.vector_search_memories("which flats?", min_importance=0.5)
            assert (row["id"], row["importance"], row["similarity_score"]) == (first, 0.8, 1.0)
            assert await bob.vector_search_memories("weather", min_importance=0.5) == []

    run(use())


def test_sessions_are_told_of(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await bob.save_message("user", "hello", "web-42", "alice")
            await bob.save_message("assistant", "hello", "web-42")
            row = await bob.get_session_by_id("web-42")
            assert row is not None
            assert {key: row[key] for key in ("id", "name", "topic", "user_id")} == {
                "id": "web-42", "name": "web-42", "topic": "", "user_id": "alice",
            }  # fmt: skip
            assert row["created_at"]
            assert await bob.get_session_by_id("another") is None

    run(use())


def test_a_session_is_told_of_that_is_not_among_those_that_can_be_listed(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            first = datetime(2026, 3, 2, 17, 4, tzinfo=UTC)
            await bob.save_message("user", "hello", "first", "alice", timestamp=first)
            before = await bob.get_session_by_id("first")
            for number in range(3):
                await bob.save_message("user", "hello", f"later {number}", "carol")
            assert before is not None
            assert await bob.get_session_by_id("first") == before
            assert before["user_id"] == "alice"

    monkeypatch.setenv("ELYTRON_MAX_QUERY_ROWS", "3")
    monkeypatch.setattr(locrits_memory, "_USER_LOOKS", 3)
    run(use())


# -- searching


def test_a_search_finds_messages_and_scores_them_by_the_best(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await bob.save_message("user", "My cat is called Pixel", "s", "alice")
            await bob.save_message("user", "Cats sleep all day", "t", "alice")
            await bob.save_message("user", "The weather is fine", "t", "alice")
            rows = await bob.search_memories("What is the cat called?")
            assert rows[0]["content"] == "My cat is called Pixel"
            assert set(rows[0]) == {
                "id", "role", "content", "timestamp", "session_id", "similarity_score"
            }  # fmt: skip
            scores = [row["similarity_score"] for row in rows]
            assert scores[0] == 1.0
            assert scores == sorted(scores, reverse=True)
            assert all(0 < score <= 1 for score in scores)
            only = await bob.vector_search_messages("cat", session_id="t")
            assert {row["session_id"] for row in only} == {"t"}
            for empty in ("", "   "):
                assert await bob.search_memories(empty) == []
            assert await bob.search_memories("cat", limit=0) == []
            assert len(await bob.search_memories("cat " * 20_000, limit=1)) == 1

    run(use())


def test_what_is_worth_knowing_has_messages_and_memories(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await bob.save_message("user", "My cat is called Pixel", "s", "alice")
            await bob.save_message("user", "My cat sleeps", "now", "alice")
            await bob.add_memory("Alice loves her cat")
            rows = await bob.get_contextual_memories("How is the cat?", session_id="now")
            assert {row["type"] for row in rows} == {"message", "memory"}
            assert all(0 <= row["relevance"] <= 1 for row in rows)
            without = await bob.get_contextual_memories(
                "How is the cat?", include_session_context=False, session_id="now"
            )
            assert {row.get("session_id") for row in without} == {"s", None}
            assert len(await bob.get_contextual_memories("cat", limit=1)) == 1
            everything = await bob.vector_search_all("cat", limit_per_type=1)
            assert {kind: len(rows) for kind, rows in everything.items()} == {
                "messages": 1, "memories": 1, "concepts": 0,
            }  # fmt: skip

    run(use())


def test_concepts_are_told_of_in_the_origins_shapes(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await with_concepts(bob)
            lyon = await bob.get_concept_details("lyon")
            assert lyon is not None
            assert {key: lyon[key] for key in ("name", "type", "description", "confidence")} == {
                "name": "Lyon", "type": "place", "description": "A city", "confidence": 0.9,
            }  # fmt: skip
            assert lyon["mentions"] == 1
            assert lyon["first_mentioned"] == lyon["last_mentioned"] is not None
            assert [row["content"] for row in lyon["context_examples"]] == ["Alice likes Lyon"]
            assert {row["name"] for row in lyon["related_concepts"]} == {"Alice", "Saône"}
            assert await bob.get_concept_details("Lyon", "person") is None
            assert await bob.get_concept_details("Atlantis") is None
            rows = await bob.vector_search_concepts("Is it nice in Lyon?")
            assert rows[0]["name"] == "Lyon"
            near = await bob.recommend_related_concepts("Alice asks")
            assert [row["name"] for row in near][:2] == ["Alice", "Lyon"]
            assert near[1]["mentions"] == 1

    run(use())


def test_gaps_in_knowledge_are_found(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await with_concepts(bob)
            known, unknown, unsure = await bob.find_knowledge_gaps(["Lyon", "Atlantis", "Saône"])
            assert (known["gap_level"], known["coverage_score"]) == ("low", 1.0)
            assert known["top_related_concepts"] == ["Lyon"]
            assert (unknown["gap_level"], unknown["related_concepts_found"]) == ("high", 0)
            assert (unsure["gap_level"], unsure["high_confidence_concepts"]) == ("high", 0)

    run(use())


def test_concepts_can_be_changed_by_their_names(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await with_concepts(bob)
            assert await bob.edit_concept("Lyon", name="Lugdunum", confidence=0.7) is True
            assert await bob.edit_concept("Lyon", confidence=0.7) is False
            renamed = await bob.get_concept_details("Lugdunum")
            assert renamed is not None
            assert renamed["mentions"] == 1
            assert await bob.delete_concept("Lugdunum") is True
            assert await bob.delete_concept("Lugdunum") is False

    run(use())


def test_the_graph_is_asked_for_what_is_near_and_what_was_frequent(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await with_concepts(bob)
            near = await bob.get_related_concepts("Alice")
            assert [row["name"] for row in near] == ["Lyon", "Saône"]
            assert near[0] == {"name": "Lyon", "type": "place", "description": "A city"}
            insights = await bob.get_memory_insights(timeframe_days=7)
            assert insights["timeframe_days"] == 7
            assert insights["total_messages_analyzed"] == 1
            assert {row["name"]: row["mentions"] for row in insights["frequent_concepts"]} == {
                "Alice": 1, "Lyon": 1,
            }  # fmt: skip
            assert {row["theme"] for row in insights["content_themes"]} >= {"alice", "lyon"}
            with pytest.raises(InvalidArgument, match="timeframe_days"):
                await bob.get_memory_insights(-1)

    run(use())


def test_a_summary_counts_what_is_held(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await with_concepts(bob)
            summary = await bob.get_full_memory_summary()
            assert summary["locrit_name"] == "Bob Technique"
            assert summary["statistics"] == {
                "total_messages": 1, "total_sessions": 1, "total_concepts": 3, "total_users": 1,
            }  # fmt: skip
            assert [row["content"] for row in summary["recent_messages"]] == ["Alice likes Lyon"]
            assert [row["message_count"] for row in summary["sessions"]] == [1]
            assert {row["name"] for row in summary["top_concepts"]} == {"Alice", "Lyon", "Saône"}

    run(use())


# -- limits


def test_old_messages_leave_and_the_newest_stay(base: Path) -> None:
    """Messages that are saved now are not old, whatever their time says: arrival counts too."""

    async def use() -> None:
        async with open_service(base) as bob:
            old = datetime.now(UTC) - timedelta(days=60)
            for number in range(20):
                await bob.save_message("user", f"number {number}", "s", timestamp=old)
            assert await bob.archive_old_messages(days_old=30, keep_count=5) == 0
            assert await bob.archive_old_messages(days_old=0, keep_count=15) == 5
            assert await bob.cleanup_old_messages(max_messages=10) == 5
            assert await bob.cleanup_old_messages(max_messages=10) == 0
            assert await bob.get_message_count() == 10
            rows = await bob.get_conversation_history("s")
            assert rows[-1]["content"] == "number 19"

    run(use())


def test_an_emergency_halves_what_is_over_its_limit(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELYTRON_EMERGENCY_MESSAGES", "10")

    async def use() -> None:
        async with open_service(base) as bob:
            for number in range(9):
                await bob.save_message("user", f"number {number}", "s")
            assert await bob.emergency_cleanup() == 0
            await bob.save_message("user", "one more", "s")
            assert await bob.emergency_cleanup() == 5

    run(use())


def test_a_size_that_is_not_met_is_not_met_by_losing_messages_again_and_again(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            for number in range(50):
                await bob.save_message("user", f"number {number} " + "x" * 1000, "s")
            assert await bob.check_memory_limit(100) is True
            for _ in range(3):
                assert await bob.check_memory_limit(0.01) is False
            assert await bob.get_message_count() == 50
            usage = await bob.get_memory_usage()
            assert usage["message_count"] == 50
            assert 0.05 < usage["db_file_size_mb"] < 5
            assert usage["process_memory_mb"] > 10
            assert usage["estimated_embedding_size_mb"] == 0
            with pytest.raises(InvalidArgument, match="max_size_mb"):
                await bob.check_memory_limit(0)

    run(use())


def test_space_that_is_not_used_is_given_back_before_anything_leaves(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            for number in range(300):
                await bob.save_message("user", f"number {number} " + "x" * 8000, "s")
            for number in range(20):
                await bob.save_message("user", f"kept {number}", "kept")
            await bob.delete_session("s")
            before = (await bob.get_memory_usage())["db_file_size_mb"]
            assert await bob.check_memory_limit(before / 2) is True
            assert await bob.get_message_count() == 20

    run(use())
