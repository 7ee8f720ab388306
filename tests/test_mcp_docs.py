"""What docs/mcp.md says to put into a client's settings, and its commands, are tried as printed."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from mcp_servers import run
from test_cli import run as command

PAGE = (Path(__file__).parent.parent / "docs" / "mcp.md").read_text(encoding="utf-8")
CLIENTS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.S)]
LINE = {"type": "entity", "name": "Alice", "entityType": "person", "observations": ["likes tea"]}


def ours():
    servers = [settings["mcpServers"]["memory"] for settings in CLIENTS]
    return [server for server in servers if Path(server["command"]).name == "elytron"]


@pytest.fixture
def place(tmp_path):
    """A function that puts this test's folder in the place of the page's path."""
    (tmp_path / "memory.jsonl").write_text(json.dumps(LINE) + "\n{nonsense\n")
    return lambda text: text.replace("/path/to", str(tmp_path))


def tools_of(server, place):
    arguments = ["-m", "elytron", *map(place, server["args"])]
    environment = {name: place(value) for name, value in server.get("env", {}).items()}
    started = StdioServerParameters(command=sys.executable, args=arguments, env=environment)

    async def main():
        async with Client(started) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    return run(main)


def test_the_settings_of_a_client_work_as_printed(place, tmp_path):
    (tmp_path / "memory.jsonl").write_text(json.dumps(LINE) + "\n")
    plain, reference = ours()
    assert all(Path(server["command"]).is_absolute() for server in (plain, reference))
    assert tools_of(plain, place) == ["remember", "recall", "forget"]
    assert len(tools_of(reference, place)) == 9
    held = command("memories", "default", "--json", store=tmp_path / "memory")
    assert [one["content"] for one in held.document] == ["likes tea"]


def test_one_line_changes_from_the_reference_server():
    before, after = re.findall(r"```json\n(.*?)```", PAGE, re.S)[1:3]
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    assert sum(old != new for old, new in pairs) == 1


def test_the_rest_of_a_bad_file_is_taken_as_printed(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in PAGE.splitlines() if line.startswith("elytron import ")]
    done = command(*map(place, shlex.split(line)[1:]))
    assert done.code == 0, done.err
    held = command("memories", "default", "--json", store=tmp_path / "memory")
    assert [one["content"] for one in held.document] == ["likes tea"]
