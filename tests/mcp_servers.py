"""MCP servers to be asked: in this process, over real pipes, and over real HTTP."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp import Client, StdioServerParameters

from elytron import Agent
from elytron.faces.mcp.memory_profile import memory_profile
from elytron.faces.mcp.reference_profile import reference_profile
from elytron.faces.mcp.server import Face
from elytron.faces.mcp.tools import Profile

WAIT_S = 30
Result = types.CallToolResult


def ask(profile: Profile, *calls: tuple[str, dict[str, Any]]) -> list[Result]:
    """Call tools one after the other, by the protocol's own client in this process."""

    async def main() -> list[Result]:
        async with Client(Face(profile).server()) as client:
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    return anyio.run(main)


def remembering(bob: Agent) -> Callable[..., Result]:
    """`call(tool, **arguments)` on the three tools."""
    profile = memory_profile(bob)
    return lambda tool, **arguments: ask(profile, (tool, arguments))[0]


def graphing(bob: Agent, **limits: int) -> Callable[..., Result]:
    """`call(tool, **arguments)` on the nine tools."""
    profile = reference_profile(bob, **limits)
    return lambda tool, **arguments: ask(profile, (tool, arguments))[0]


def told(result: Result) -> str:
    """The words of an answer."""
    (content,) = result.content
    assert isinstance(content, types.TextContent)
    return content.text


def error_of(result: Result) -> str:
    """The code of a tool's error."""
    assert result.is_error, told(result)
    code: str = (result.meta or {})["elytron/error"]["code"]
    assert told(result).startswith(f"{code}: ")
    return code


def words(folder: Path, *more: str) -> list[str]:
    """The command that serves a store over stdio."""
    return [sys.executable, "-W", "error", "-m", "elytron", "mcp", "--store", str(folder), *more]


@asynccontextmanager
async def over_stdio(folder: Path, *more: str, mode: str = "auto", **client: Any) -> Any:
    """A client of the protocol's own, with a server process of its own."""
    command, *arguments = words(folder, *more)
    started = StdioServerParameters(command=command, args=arguments)
    with anyio.fail_after(2 * WAIT_S):
        async with Client(started, mode=mode, **client) as speaking:  # type: ignore[arg-type]
            yield speaking


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    return anyio.run(main)


class Piped:
    """A server process, and the bare lines that go in and out."""

    def __init__(self, command: list[str], **more: Any) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )
        self.lines: queue.Queue[bytes] = queue.Queue()
        self.complaints: list[bytes] = []
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_complaints, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(b"")

    def _read_complaints(self) -> None:
        assert self.process.stderr is not None
        self.complaints.extend(self.process.stderr)

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, method: str, params: dict[str, Any] | None = None, id: Any = None) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if id is not None:
            message["id"] = id
        self.write(json.dumps(message).encode() + b"\n")

    def call(self, tool: str, id: Any, **arguments: Any) -> None:
        self.send("tools/call", {"name": tool, "arguments": arguments}, id)

    def next(self) -> Any:
        """The next message; None at the end."""
        line = self.lines.get(timeout=WAIT_S)
        return json.loads(line) if line else None

    def greet(self) -> None:
        """The handshake of a client from before 2026."""
        client = {"name": "test", "version": "1"}
        opening = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
        self.send("initialize", opening, 0)
        assert self.next()["result"]["serverInfo"]["name"] == "elytron"
        self.send("notifications/initialized")

    def end(self) -> tuple[list[Any], str]:
        """Close its stdin; what it still said, and what it complained of. It has to end well."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(WAIT_S) == 0, b"".join(self.complaints)
        return self.rest(), self.stderr()

    def rest(self) -> list[Any]:
        return list(iter(self.next, None))

    def stderr(self) -> str:
        self._readers[1].join(WAIT_S)
        return b"".join(self.complaints).decode()


def piped(folder: Path, *more: str, **options: Any) -> AbstractContextManager[Piped]:
    """A server over bare pipes; killed at the end if it is still there."""
    return as_server(words(folder, *more), **options)


@contextmanager
def as_server(command: list[str], **options: Any) -> Iterator[Piped]:
    """The same, started by another command."""
    server = Piped(command, **options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(WAIT_S)
        for stream in (server.process.stdin, server.process.stdout, server.process.stderr):
            if stream is not None:
                stream.close()
