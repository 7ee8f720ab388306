"""What the tests of the importers share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import elytron
from elytron.importers import import_file

DATA = Path(__file__).parent / "data"
GOOD = '{"role": "user", "content": "fine"}'


class Sample(NamedTuple):
    file: str
    format: str
    messages: dict[str, int]  # by the agent's name, if none is given


SAMPLES = (
    Sample("messages.jsonl", "jsonl", {"messages": 5}),
    Sample("openai_messages.json", "openai", {"openai_messages": 5}),
    Sample("openai_object.json", "openai", {"openai_object": 2}),
    Sample("openai_examples.jsonl", "openai", {"openai_examples": 4}),
    Sample("conversations.json", "chatgpt", {"conversations": 6}),
    Sample("locomo.json", "locomo", {"talk-1": 5, "talk-2": 2}),
    Sample("claude.json", "claude", {"claude": 6}),
)
# What these bring is more than messages, or no text: each has tests of its own.
NO_SAMPLES = ("mem0", "mcp", "openai-sessions", "langgraph")


def pouring(store: elytron.Store, folder: Path) -> Callable[..., elytron.ImportReport]:
    """A function that imports values as a JSON file, or a line each, into the agent `bob`."""

    def pour(
        value: Any, format: str, *, by_line: bool = False, skip_bad: bool = False
    ) -> elytron.ImportReport:
        lines = [json.dumps(line) for line in value] if by_line else [json.dumps(value)]
        path = folder / "file.json"
        path.write_text("\n".join(lines), encoding="utf-8")
        (report,) = import_file(store, path, agent="bob", format=format, skip_bad=skip_bad)
        return report

    return pour


def contents(agent: elytron.Agent) -> list[str]:
    return [message.content for message in agent.messages()]


def everything(store: elytron.Store) -> dict[str, list[elytron.Message]]:
    return {name: list(store.agent(name).messages()) for name in store.agents()}


def writing(folder: Path) -> Callable[..., Path]:
    """A function that makes a file of lines, or of bytes."""

    def write(*lines: str | bytes, name: str = "file.jsonl") -> Path:
        path = folder / name
        data = [line if isinstance(line, bytes) else line.encode() for line in lines]
        path.write_bytes(b"\n".join(data))
        return path

    return write
