"""The origin's databases under its classes: never an empty start; and many agents."""

import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from elytron.adapters import locrits_stores
from elytron.adapters.locrits import KuzuMemoryService, MemoryManagerService
from elytron.errors import Busy, Closed, GraphUnavailable, InvalidArgument
from elytron.importers import migrated
from kuzu_databases import SPOKEN, hold, make
from locrits import base_path, open_service, run

base = base_path()


# -- coming from the origin's database


def test_an_origins_database_is_migrated_when_its_agent_starts(base: Path) -> None:
    make(base / "bob_technique" / "kuzu.db")

    async def use() -> None:
        async with open_service(base) as bob:
            assert await bob.get_message_count() == len(SPOKEN["messages"])
            row = await bob.get_session_by_id("web-42")
            assert row is not None
            assert (row["name"], row["topic"]) == ("Moving", "a flat in Lyon")
            (memory,) = await bob.get_all_memories()
            assert memory["created_at"] == "2025-10-05 14:31:00"
            assert memory["last_accessed"] == "2025-10-05 14:31:00"
            lyon = await bob.get_concept_details("Lyon")
            assert lyon is not None
            assert lyon["type"] == "place"

    run(use())


def test_a_migration_is_not_done_twice_so_what_was_deleted_stays_deleted(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make(base / "bob_technique" / "kuzu.db")

    async def use() -> None:
        async with open_service(base) as bob:
            await bob.clear_all_memory()
        async with open_service(base) as bob:
            assert await bob.get_message_count() == 0
            assert not caplog.records
        path.touch()
        os.utime(path, ns=(1, 1))
        async with open_service(base) as bob:
            assert await bob.get_message_count() == 0
            assert "elytron migrate kuzu" in caplog.text

    run(use())


def test_without_kuzu_it_refuses_rather_than_start_empty(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter without packages stands for one without kuzu."""
    make(base / "bob_technique" / "kuzu.db")
    bare = base / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)

    async def use() -> None:
        bob = KuzuMemoryService("Bob Technique", base)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", str(bare))
            for _ in range(2):
                with pytest.raises(GraphUnavailable, match="elytron migrate kuzu"):
                    await bob.initialize()
        assert not bob.is_initialized
        assert not (base / "agents").exists()
        assert await bob.initialize()
        assert await bob.get_message_count() == 3
        await bob.close()

    run(use())


def test_a_database_that_is_open_elsewhere_is_waited_for_by_whoever_asks_again(base: Path) -> None:
    path = make(base / "bob_technique" / "kuzu.db")
    holder = hold(path)

    async def use() -> None:
        bob = KuzuMemoryService("Bob Technique", base)
        with pytest.raises(Busy, match=f"process {holder.pid}"):
            await bob.initialize()
        assert migrated.read(base, "Bob Technique") is None
        holder.communicate(timeout=30)
        assert await bob.initialize()
        assert await bob.get_message_count() == 3
        await bob.close()

    try:
        run(use())
    finally:
        holder.kill()
        holder.communicate(timeout=30)


def test_a_database_of_an_older_version_is_refused_and_named(base: Path) -> None:
    (base / "bob" / "kuzu.db").mkdir(parents=True)
    (base / "bob" / "kuzu.db" / "catalog.kz").touch()

    async def use() -> None:
        with pytest.raises(InvalidArgument, match=r"0\.10 or older"):
            await KuzuMemoryService("Bob", base).initialize()

    run(use())


def test_many_who_start_at_once_migrate_once(base: Path) -> None:
    make(base / "bob_technique" / "kuzu.db")
    many = MemoryManagerService(base)
    barrier = threading.Barrier(5)
    found: list[KuzuMemoryService] = []

    def work() -> None:
        barrier.wait(30)
        found.append(asyncio.run(many.get_memory_service("Bob Technique")))

    crew = [threading.Thread(target=work) for _ in range(5)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(60)

    async def look() -> None:
        assert len({id(service) for service in found}) == 1
        assert await found[0].get_message_count() == 3
        await many.close_all()

    run(look())


def test_the_origins_folder_names_are_found_as_it_made_them() -> None:
    assert locrits_stores.slugs("Bob Technique")[0] == "bob_technique"
    assert "josé" in locrits_stores.slugs("José")
    assert "jos_" in locrits_stores.slugs("José")
    assert "a-b" in locrits_stores.slugs("A-B")


# -- many


def test_many_agents_are_served_by_their_names(base: Path) -> None:
    make(base / "dora" / "kuzu.db")

    async def use() -> None:
        many = MemoryManagerService(base)
        await many.initialize()
        name = await many.save_message("Bob", "user", "hello", "s", "alice", {"a": 1})
        rows = await many.get_conversation_history("Bob", "s")
        assert [row["id"] for row in rows] == [name]
        assert (await many.search_memories("Bob", "hello"))[0]["id"] == name
        assert await many.list_available_locrits() == ["Bob", "dora"]
        summary = await many.get_full_memory_summary("dora")
        assert summary["statistics"]["total_messages"] == 3
        assert await many.list_available_locrits() == ["Bob", "dora"]
        stats = await many.get_memory_stats()
        assert stats["total_locrits"] == 2
        assert stats["locrits"]["Bob"]["messages"] == 1
        assert stats["active_locrits"] == ["Bob", "dora"]
        assert await many.get_concept_details("dora", "Lyon") is not None
        assert await many.edit_message("Bob", name, "changed") is True
        assert await many.delete_message("Bob", name) is True
        assert await many.close_locrit_memory("Bob") is True
        assert await many.close_locrit_memory("Bob") is False
        await many.close_all()
        await many.close_all()
        with pytest.raises(Closed):
            await many.list_available_locrits()
        with pytest.raises(Closed):
            await many.save_message("Bob", "user", "late")

    run(use())


def test_every_forwarding_method_has_the_name_first_and_its_twins_arguments() -> None:
    for name, method in inspect.getmembers(MemoryManagerService, inspect.isfunction):
        arguments = list(inspect.signature(method).parameters)[1:]
        if name.startswith("_") or arguments[:1] != ["locrit_name"]:
            continue
        twin = getattr(KuzuMemoryService, name, None)
        if twin is not None:
            theirs = list(inspect.signature(twin).parameters)[1:]
            assert arguments[1:] == [a for a in theirs if a in arguments], name


def test_a_locrits_program_changes_one_import(tmp_path: Path) -> None:
    """A program as the origin's are, run by itself, with warnings as errors."""
    program = """
import asyncio, json
from elytron.adapters.locrits import KuzuMemoryService

async def main():
    memory = KuzuMemoryService("Bob Technique")
    await memory.initialize()
    await memory.save_message("user", "I live in Lyon", session_id="web-42", user_id="alice")
    rows = await memory.search_memories("where do I live?")
    print(json.dumps(rows[0]["content"]))
    await memory.close()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert json.loads(done.stdout) == "I live in Lyon"
    assert (tmp_path / "data" / "memory" / "elytron.json").exists()


def test_the_programs_of_the_page_work_as_printed(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "locrits.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(programs) == 2
    printed = []
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0] == "user I live in Lyon.\nassistant Noted.\nI live in Lyon. 1.0\n"
    assert printed[1] == "I live in Lyon.\n"


def test_a_database_of_which_nothing_can_be_taken_is_not_started_beside(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"messages": [{**SPOKEN["messages"][1], "content": "x" * 9000}]}
    make(base / "bob" / "kuzu.db", content)
    monkeypatch.setenv("ELYTRON_MAX_MESSAGE_KB", "8")

    async def use() -> None:
        with pytest.raises(InvalidArgument, match=r"nothing of .* could be taken"):
            await KuzuMemoryService("Bob", base).initialize()

    run(use())


def test_deleting_a_session_takes_what_it_was_called(base: Path) -> None:
    make(base / "bob" / "kuzu.db")

    async def use() -> None:
        async with open_service(base, "bob") as bob:
            assert await bob.delete_session("web-42") is True
            assert await bob.get_session_by_id("web-42") is None
            memory = await bob._memory()
            assert await memory.memories(kind="session") == []

    run(use())
