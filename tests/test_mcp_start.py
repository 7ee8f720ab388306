"""How a server starts: a file of the reference server taken over once, and wrong options told."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import elytron
from elytron.faces.mcp.first_start import take_over
from mcp_servers import WAIT_S, over_stdio, piped, run
from test_cli import run as command

LINES = (
    {"type": "entity", "name": "Alice", "entityType": "person", "observations": ["likes tea"]},
    {"type": "entity", "name": "Lyon", "entityType": "city", "observations": []},
    {"type": "relation", "from": "Alice", "to": "Lyon", "relationType": "lives in"},
)


@pytest.fixture
def memory_file(tmp_path: Path) -> Path:
    path = tmp_path / "memory.jsonl"
    path.write_text("\n".join(map(json.dumps, LINES)) + "\n")
    return path


def read_graph(folder, *more):
    async def main():
        async with over_stdio(folder, "--profile", "reference", *more) as client:
            return (await client.call_tool("read_graph", {})).structured_content

    return run(main)


def test_a_file_of_the_reference_server_is_taken_over_once(folder, memory_file):
    more = ("--memory-file", str(memory_file))
    held = read_graph(folder, *more)
    alice, lyon, lives = [
        {name: value for name, value in line.items() if name != "type"} for line in LINES
    ]
    assert held["relations"] == [lives]
    by_name = {entity["name"]: entity for entity in held["entities"]}
    assert by_name == {"Alice": alice, "Lyon": lyon}
    with elytron.open(folder) as store:
        memory = store.agent("default")
        memory.delete_concept("Lyon")
        assert [one.content for one in memory.memories()] == ["likes tea"]
    held = read_graph(folder, *more)
    assert [entity["name"] for entity in held["entities"]] == ["Alice"]  # the rest stays away


@pytest.mark.parametrize("erase", ["clear", "delete", "rename"])
def test_a_file_is_not_taken_over_again_after_all_of_it_was_erased(store, memory_file, erase):
    assert take_over(store.agent("default"), memory_file, store=store.path) is not None
    name = "default"
    match erase:
        case "clear":
            store.agent(name).clear()
        case "delete":
            store.delete(name)
        case "rename":  # the note goes with the agent
            store.rename(name, "other")
            name = "other"
            store.agent(name).delete_memory(store.agent(name).memories()[0].id)
    assert take_over(store.agent(name), memory_file, store=store.path) is None
    assert store.agent(name).memories() == []


def test_a_file_that_an_earlier_version_took_over_is_not_taken_over_again(store, memory_file):
    """That version kept the note among the agent's memories alone."""
    agent = store.agent("default")
    take_over(agent, memory_file, store=store.path)
    for note in (store.path / "migrated").iterdir():
        note.unlink()
    assert take_over(agent, memory_file, store=store.path) is None
    agent.clear()
    assert take_over(agent, memory_file, store=store.path) is None


def test_each_file_and_each_agent_has_a_note_of_its_own(store, memory_file):
    second = memory_file.with_name("second.jsonl")
    second.write_bytes(memory_file.read_bytes())
    for name, path in itertools.product(("default", "other"), (memory_file, second)):
        assert take_over(store.agent(name), path, store=store.path) is not None
        assert take_over(store.agent(name), path, store=store.path) is None


def test_an_observation_that_was_taken_over_is_not_added_again(folder, memory_file):
    async def main():
        more = ("--profile", "reference", "--memory-file", str(memory_file))
        async with over_stdio(folder, *more) as client:
            wanted = [{"entityName": "Alice", "contents": ["likes tea"]}]
            return await client.call_tool("add_observations", {"observations": wanted})

    assert run(main).structured_content["results"][0]["addedObservations"] == []


def test_the_reference_servers_variable_names_the_file_too(folder, memory_file):
    environment = {**os.environ, "MEMORY_FILE_PATH": str(memory_file)}
    with piped(folder, "--profile", "reference", env=environment) as server:
        server.greet()
        server.end()
    with elytron.open(folder) as store:
        assert store.agent("default").memories()[0].content == "likes tea"
    # It means nothing to the other profile.
    with piped(folder, "--agent", "other", env=environment) as server:
        server.greet()
        server.end()
    with elytron.open(folder) as store:
        assert store.agents() == ["default"]


def test_a_file_that_is_not_there_yet_is_told_and_nothing_else(folder, tmp_path):
    missing = str(tmp_path / "missing.jsonl")
    with piped(folder, "--profile", "reference", "--memory-file", missing) as server:
        server.greet()
        rest, complaints = server.end()
    assert rest == []
    assert "missing.jsonl" in complaints
    assert not folder.exists()


def test_a_damaged_file_is_refused_before_anything_is_served(folder, memory_file):
    with memory_file.open("a") as file:
        file.write("{nonsense\n")
    with piped(folder, "--memory-file", str(memory_file)) as server:
        assert server.process.wait(WAIT_S) == 2
        assert server.rest() == []
        complaints = server.stderr()
    assert "line 4" in complaints
    assert "--skip-bad" in complaints


# -- the command


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", "80"), ("--host", "x"), ("--token-file", "x"), ("--allow-host", "x"),
     ("--allow-origin", "x")],
)  # fmt: skip
def test_options_of_http_are_refused_without_it(folder, option, value):
    refused = command("mcp", option, value, store=folder)
    assert refused.code == 2
    assert f"{option} is for --http" in refused.err


def test_without_the_extra_the_command_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    refused = command("mcp", store=folder)
    assert refused.code == 2
    assert "pip install 'elytron[mcp]'" in refused.err


def test_a_wrong_agents_name_ends_it_with_words(folder):
    with piped(folder, "--agent", "") as server:
        assert server.process.wait(WAIT_S) == 2
        assert server.rest() == []
        assert "name" in server.stderr()


def test_the_other_commands_do_not_import_the_protocols_library():
    source = "import sys, elytron.faces.cli; print('mcp' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=WAIT_S, check=True
    )
    assert done.stdout == "False\n"
