"""
Claude's memory tool on Elytron.

Needs `pip install . anthropic`, in the project's folder. A list of made-up calls takes the place of
Claude, and is carried out as `client.beta.messages.tool_runner(..., tools=[tool])` carries out
Claude's own, so that this runs without a key and without a network.
"""

import tempfile
from pathlib import Path
from typing import Any

from anthropic.lib.tools import ToolError

import elytron
from elytron.adapters.anthropic_memory import ElytronMemoryTool

FIRST = [
    {"command": "view", "path": "/memories"},
    {"command": "create", "path": "/memories/alice.md", "file_text": "# Alice\nLives in Lyon.\n"},
    {"command": "view", "path": "/memories/../../etc/passwd"},
]
AFTER_A_RESTART = [
    {
        "command": "str_replace",
        "path": "/memories/alice.md",
        "old_str": "Lyon",
        "new_str": "Paris",
    },
    {"command": "view", "path": "/memories/alice.md"},
]


def carry_out(folder: Path, calls: list[dict[str, Any]]) -> None:
    with elytron.open(folder) as store:
        bob = store.agent("Bob")
        tool = ElytronMemoryTool(bob)
        for call in calls:
            try:
                print(f"{call['command']}: {tool.call(call)}")
            except ToolError as error:
                print(f"{call['command']}: refused: {error}")
        hits = bob.recall("where does Alice live?")
        print(f"recall: {hits[0].message.content!r}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        carry_out(Path(folder), FIRST)
        # As after a restart: the store was closed, and is opened anew.
        carry_out(Path(folder), AFTER_A_RESTART)
