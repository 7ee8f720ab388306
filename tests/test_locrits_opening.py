"""The origin's classes on Elytron: connections, opening, closing, settings."""

import asyncio
import threading
from pathlib import Path

import pytest

from elytron.adapters import locrits_stores
from elytron.adapters.locrits import KuzuMemoryService
from elytron.adapters.locrits_connections import hint_for
from elytron.errors import Busy, Closed, InvalidArgument, InvalidSetting
from locrits import base_path, open_service, run

base = base_path()


# -- connections


def test_a_connection_answers_row_by_row_as_kuzus_does(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            for number in range(3):
                await bob.save_message("user", f"number {number}", "s", "alice")
            connection = await bob.get_connection()
            answer = connection.execute(
                "MATCH (u:User {id: $who})-[:SENT]->(m:Message) RETURN m.content, m.role"
                " ORDER BY m.content",
                {"who": "alice"},
            )
            assert answer.get_column_names() == ["m.content", "m.role"]
            assert answer.get_num_tuples() == 3
            rows = []
            while answer.has_next():
                rows.append(answer.get_next())
            assert rows == [[f"number {number}", "user"] for number in range(3)]
            with pytest.raises(InvalidArgument, match="has_next"):
                answer.get_next()
            answer.close()
            answer.close()
            assert not answer.has_next()
            await bob.release_connection(connection)

    run(use())


@pytest.mark.parametrize(
    ("query", "verb"),
    [
        ("CREATE (:Message {id: 'x'})", "save_message"),
        ("MATCH (m:Memory) DELETE m", "delete_memory"),
        ("MERGE (c:Concept {name: 'x'})", "edit_concept"),
        ("DROP TABLE Message", "save_message"),
    ],
)
def test_a_write_over_a_connection_is_refused_with_the_verb_to_use(
    base: Path, query: str, verb: str
) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await bob.save_message("user", "hello", "s")
            connection = await bob.get_connection()
            with pytest.raises(InvalidArgument, match=verb):
                connection.execute(query)
            await bob.release_connection(connection)
            assert await bob.get_message_count() == 1

    run(use())


def test_a_query_for_the_origins_schema_is_told_what_it_is_called_now(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob:
            await bob.save_message("user", "hello", "s")
            connection = await bob.get_connection()
            with pytest.raises(InvalidArgument, match="`at` is a message's time"):
                connection.execute("MATCH (m:Message) RETURN m.timestamp")
            await bob.release_connection(connection)

    run(use())


def test_only_what_writes_is_taken_for_writing() -> None:
    assert hint_for("MATCH (m:Message) WHERE m.content = 'SET x' RETURN m", "wrong") is None
    assert hint_for("MATCH (m:Message) /* DELETE */ RETURN m.created_at", "wrong") is None
    assert "add_memory" in (hint_for("create (:Memory)", "wrong") or "")
    assert hint_for(3, "wrong") is None


def test_at_most_five_connections_are_out_and_a_sixth_waits_for_one(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELYTRON_READ_TIMEOUT_S", "0.05")

    async def use() -> None:
        async with open_service(base) as bob:
            out = [await bob.get_connection() for _ in range(5)]
            assert len(set(map(id, out))) == 5
            with pytest.raises(Busy, match="all 5 connections"):
                await bob.get_connection()
            await bob.release_connection(out[0])
            again = await bob.get_connection()
            assert again is out[0]
            await bob.release_connection(again)
            await bob.release_connection(again)  # a second time is harmless
            assert not again.closed

    run(use())


def test_a_connection_of_another_pool_is_closed(base: Path) -> None:
    async def use() -> None:
        async with open_service(base) as bob, open_service(base, "Dora") as dora:
            mine = await bob.get_connection()
            await dora.release_connection(mine)
            with pytest.raises(Closed, match="this connection was closed"):
                mine.execute("RETURN 1")

    run(use())


# -- opening and closing


def test_close_may_be_called_twice_and_initialize_opens_again(base: Path) -> None:
    async def use() -> None:
        bob = KuzuMemoryService("Bob", base)
        assert bob.is_initialized is False
        await bob.close()
        assert await bob.initialize() is True
        await bob.initialize()
        assert bob.is_initialized is True
        connection = await bob.get_connection()
        await bob.save_message("user", "hello", "s")
        await bob.close()
        await bob.close()
        assert bob.is_initialized is False
        with pytest.raises(Closed):
            await bob.save_message("user", "late", "s")
        with pytest.raises(Closed):
            connection.execute("RETURN 1")
        await bob.release_connection(connection)
        await bob.initialize()
        assert await bob.get_message_count() == 1
        await bob.close()

    run(use())


def test_any_method_opens_what_nobody_has_opened_yet(base: Path) -> None:
    async def use() -> None:
        bob = KuzuMemoryService("Bob", base)
        await bob.save_message("user", "hello", "s")
        assert bob.is_initialized
        await bob.close()

    run(use())


def test_agents_of_one_base_path_share_one_store(base: Path) -> None:
    async def use() -> None:
        async with open_service(base, "Bob") as bob, open_service(base, "Dora") as dora:
            assert len(locrits_stores._shared) == 1
            assert bob._shared is dora._shared
            await bob.close()
            await dora.save_message("user", "still open", "s")

    run(use())


def test_the_attributes_that_programs_read_are_there(base: Path) -> None:
    bob = KuzuMemoryService("Bob", str(base))
    assert (bob.locrit_name, bob.base_path) == ("Bob", base)
    assert (bob.is_initialized, bob.embeddings_enabled) == (False, False)
    assert bob.db_path.parent == bob.db_dir
    with pytest.raises(InvalidArgument):
        KuzuMemoryService("", base)


def test_one_service_serves_many_event_loops_at_once(base: Path) -> None:
    """Each thread has a loop of its own, and all begin at once."""
    bob = KuzuMemoryService("Bob", base)
    barrier = threading.Barrier(6)

    def work(mine: int) -> None:
        async def save() -> None:
            for number in range(20):
                await bob.save_message("user", f"{mine} {number}", f"s{mine}")

        barrier.wait(30)
        asyncio.run(save())

    crew = [threading.Thread(target=work, args=(mine,)) for mine in range(6)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(60)

    async def look() -> None:
        assert await bob.get_message_count() == 120
        await bob.close()

    run(look())


def test_the_loop_is_not_blocked_while_a_memory_is_cleared(base: Path) -> None:
    """What may last runs on a thread: another task goes on before it is over."""

    async def use() -> None:
        async with open_service(base) as bob:
            await bob.save_message("user", "hello", "s")
            turns = 0
            clearing = asyncio.create_task(bob.clear_all_memory())
            while not clearing.done():
                turns += 1
                await asyncio.sleep(0)
            assert await clearing
            assert turns > 1

    run(use())


# -- settings


def test_the_origins_settings_are_read_as_they_are(base: Path) -> None:
    Path("config.yaml").write_text(
        "ollama:\n  base_url: http://localhost:11434\n"
        "memory:\n  max_db_size_mb: 50\n  max_messages_per_locrit: 700\n"
        "  archive_after_days: 30\n  enable_embeddings: false\n  auto_cleanup: true\n"
        "  cleanup_interval_hours: 24\n"
    )
    found = locrits_stores.settings()
    assert (found.max_db_size_mb, found.max_messages_per_agent) == (50, 700)


def test_settings_without_a_memory_block_are_the_defaults(base: Path) -> None:
    Path("config.yaml").write_text("ollama: {}\n")
    assert locrits_stores.settings().max_messages_per_agent == 5000
    Path("config.yaml").unlink()
    assert locrits_stores.settings().max_messages_per_agent == 5000


def test_a_named_settings_file_and_the_environment_are_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("other.yaml").write_text("memory:\n  max_db_size_mb: 60\n  queue_max: 5\n")
    monkeypatch.setenv("ELYTRON_CONFIG", "other.yaml")
    monkeypatch.setenv("ELYTRON_QUEUE_MAX", "77")
    found = locrits_stores.settings()
    assert (found.max_db_size_mb, found.queue_max) == (60, 77)


@pytest.mark.parametrize("text", ["memory:\n  max_db_sise_mb: 1\n", "memory: [1]\n", "a: [\n"])
def test_a_setting_that_is_wrong_is_refused_before_anything_is_opened(
    base: Path, text: str
) -> None:
    Path("config.yaml").write_text(text)

    async def use() -> None:
        with pytest.raises(InvalidSetting):
            await KuzuMemoryService("Bob", base).initialize()

    run(use())
    assert not base.exists()
