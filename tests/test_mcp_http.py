"""Servers over streamable HTTP: tokens, hosts, origins, sizes, sessions, and how they end."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

import elytron
from elytron.faces.http import tokens
from elytron.faces.mcp.reference_profile import GRAPH_URI
from mcp_servers import WAIT_S, error_of, run
from test_cli import run as command

ALICE = {"name": "Alice", "entityType": "person", "observations": ["likes tea"]}
OPENING = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}  # fmt: skip
NEWEST = types.LATEST_PROTOCOL_VERSION
LISTENING = {
    "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
    "params": {
        "notifications": {"resourceSubscriptions": [GRAPH_URI]},
        "_meta": {
            types.PROTOCOL_VERSION_META_KEY: NEWEST,
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    },
}  # fmt: skip
_ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


class Served:
    """A running server: its address, the tokens of its file, and what it complained of."""

    def __init__(self, process, document, kept):
        self.process = process
        self.url = document["url"]
        self.document = document
        self.tokens = kept

    def post(self, body=b"{}", end="", **headers):
        """One bare request, to the address with an *end*; the names of headers with _ for -."""
        named = _ACCEPT | {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.post(self.url + end, content=body, headers=named, timeout=WAIT_S)

    @asynccontextmanager
    async def client(self, token=None, mode="auto", **more):
        headers = {} if token is None else {"Authorization": f"Bearer {self.tokens[token]}"}
        with anyio.fail_after(2 * WAIT_S):
            async with httpx2.AsyncClient(headers=headers, timeout=WAIT_S) as sending:
                transport = streamable_http_client(self.url, http_client=sending)
                async with Client(transport, mode=mode, **more) as speaking:
                    yield speaking

    def end(self):
        """End it by a signal; what it had complained of."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT_S) == 0
        return self.process.stderr.read()


@contextmanager
def served(folder, *more, kept=None, program=("-m", "elytron")):
    started = [sys.executable, "-W", "error", *program, "mcp", "--store", str(folder)]
    process = subprocess.Popen(
        [*started, "--http", "--port", "0", "--json", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Served(process, json.loads(process.stdout.readline()), kept or {})
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that asks for tokens, on the graph of bob."""
    folder: Path = tmp_path_factory.mktemp("guarded")
    file = folder / "tokens.json"
    kept = {
        "all": tokens.add(file, "all"),
        "bob": tokens.add(file, "bob", agents=["bob"]),
        "carol": tokens.add(file, "carol", agents=["carol"]),
        "reads": tokens.add(file, "reads", writes=False),
        "removed": tokens.add(file, "removed"),
        "wrong": "elytron_" + "x" * 43,
    }
    options = ("--agent", "bob", "--profile", "reference", "--token-file", str(file))
    with served(folder / "store", *options, kept=kept) as server:
        server.file = file
        yield server
        complaints = server.end()
        assert "likes tea" not in complaints
        assert not any(token in complaints for token in kept.values())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_of_each_era_remembers_and_recalls(folder, mode):
    async def main(server):
        async with server.client(mode=mode) as client:
            kept = await client.call_tool("remember", {"content": "Alice lives in Lyon."})
            assert not kept.is_error
            return await client.call_tool("recall", {"question": "where does Alice live?"})

    with served(folder) as server:
        assert server.document["agent"] == "default"
        assert server.document["tokens"] is None
        found = run(lambda: main(server))
        assert found.structured_content["hits"][0]["content"] == "Alice lives in Lyon."
        assert server.end() == ""
    with elytron.open(folder) as store:
        assert len(store.agent("default").memories()) == 1


def test_an_address_for_other_machines_is_refused_without_tokens(folder):
    refused = command("mcp", "--http", "--host", "0.0.0.0", "--port", 0, store=folder)
    assert refused.code == 2
    assert "--token-file" in refused.err
    assert not folder.exists()


def test_a_token_file_that_is_missing_is_refused(folder, tmp_path):
    refused = command("mcp", "--http", "--token-file", tmp_path / "none", store=folder)
    assert refused.code == 7


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("token", ["all", "bob"])
def test_a_token_for_the_agent_opens_all_tools(guarded, token, mode):
    async def main():
        async with guarded.client(token, mode) as client:
            assert len((await client.list_tools()).tools) == 9
            made = await client.call_tool("create_entities", {"entities": [ALICE]})
            assert not made.is_error
            return (await client.call_tool("read_graph", {})).structured_content

    assert run(main)["entities"] == [ALICE]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_token_for_reading_opens_reading_only(guarded, mode):
    async def main():
        async with guarded.client("reads", mode) as client:
            offered = [tool.name for tool in (await client.list_tools()).tools]
            assert offered == ["read_graph", "search_nodes", "open_nodes"]
            assert not (await client.call_tool("read_graph", {})).is_error
            bob = {"name": "Bob", "entityType": "person", "observations": []}
            return [
                await client.call_tool("create_entities", {"entities": [bob]}),
                await client.call_tool("delete_entities", {"entityNames": ["Alice"]}),
            ]

    assert [error_of(result) for result in run(main)] == ["access-denied"] * 2


def test_no_token_a_wrong_one_and_another_agents_open_nothing(guarded):
    assert guarded.post().status_code == 401
    assert guarded.post(Authorization="Bearer").status_code == 401
    assert guarded.post(Authorization=f"Basic {guarded.tokens['all']}").status_code == 401
    assert guarded.post(Authorization=f"Bearer {guarded.tokens['wrong']}").status_code == 401
    other = guarded.post(Authorization=f"Bearer {guarded.tokens['carol']}")
    assert other.status_code == 403
    assert other.json()["error"] == "access-denied"


@pytest.mark.parametrize("end", ["%0A", "%0a", "/", "%0A%0A"])
def test_another_agents_token_opens_nothing_whatever_the_path_ends_with(guarded, end):
    """The library's routes match a path with a line's end too."""
    other = f"Bearer {guarded.tokens['carol']}"
    answer = guarded.post(json.dumps(OPENING).encode(), end, Authorization=other)
    assert answer.status_code == 403
    assert answer.json()["error"] == "access-denied"
    assert "mcp-session-id" not in answer.headers


def test_a_token_that_was_removed_stops_to_work_at_once(guarded):
    token = f"Bearer {guarded.tokens['removed']}"
    assert guarded.post(Authorization=token).status_code == 400  # let in, but nothing is asked
    tokens.remove(guarded.file, "removed")
    assert guarded.post(Authorization=token).status_code == 401


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_news_of_a_token_that_was_removed_end(guarded, mode):
    """Method: the bare stream of each era, which the library's client would open again."""
    name = f"hears-{mode}"
    mine = {"Authorization": f"Bearer {tokens.add(guarded.file, name)}"}
    if mode == "legacy":
        opened = guarded.post(json.dumps(OPENING).encode(), **mine)
        method, body, more = "GET", None, {"mcp-session-id": opened.headers["mcp-session-id"]}
    else:
        method, body = "POST", json.dumps(LISTENING).encode()
        more = {"mcp-protocol-version": NEWEST, "mcp-method": LISTENING["method"]}
    headers = {**_ACCEPT, **mine, **more}
    wait_s = 14  # less than between two signs of life, with which a stream goes on for ever
    with httpx2.stream(method, guarded.url, content=body, headers=headers, timeout=wait_s) as news:
        assert news.status_code == 200
        parts = news.iter_raw()
        assert mode == "legacy" or b"acknowledged" in next(parts)
        tokens.remove(guarded.file, name)
        with contextlib.suppress(httpx2.RemoteProtocolError):  # it may be broken off
            assert list(parts) == []


def test_other_hosts_and_the_pages_of_other_sites_are_refused(guarded):
    token = f"Bearer {guarded.tokens['all']}"
    for headers in (
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        assert guarded.post(Authorization=token, **headers).status_code == 403, headers


def test_a_body_that_is_too_large_is_refused_by_its_length_alone(guarded):
    where = urlsplit(guarded.url)
    with socket.create_connection((where.hostname, where.port), timeout=WAIT_S) as connection:
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: 5000000\r\n"
            f"Authorization: Bearer {guarded.tokens['all']}\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(65_536).split(b"\r\n")[0]


@pytest.mark.parametrize("body", [b"{nope", b"[]", b"\xff", b'{"jsonrpc": "2.0"}', b"[" * 50_000])
def test_a_body_that_is_no_message_is_refused_and_the_server_goes_on(guarded, body):
    answer = guarded.post(body, Authorization=f"Bearer {guarded.tokens['all']}")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in (types.PARSE_ERROR, types.INVALID_REQUEST,
                                              types.INVALID_PARAMS)  # fmt: skip


def test_a_session_is_its_openers_alone(guarded):
    mine = f"Bearer {guarded.tokens['bob']}"
    opened = guarded.post(json.dumps(OPENING).encode(), Authorization=mine)
    session = opened.headers["mcp-session-id"]
    ping = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "ping"}).encode()
    assert guarded.post(ping, Authorization=mine, Mcp_Session_Id=session).status_code == 200
    other = f"Bearer {guarded.tokens['all']}"
    assert guarded.post(ping, Authorization=other, Mcp_Session_Id=session).status_code == 404


# The library's own client of older days, which present clients still are.
@pytest.mark.filterwarnings("ignore:resources/subscribe is removed")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_session_that_asked_is_told_what_another_changed(guarded, mode):
    async def main():
        changed = anyio.Event()

        async def heard(message):
            if isinstance(message, types.ResourceUpdatedNotification):
                changed.set()

        async def change(client):
            name = f"Told {mode}"
            made = await client.call_tool(
                "create_entities", {"entities": [{**ALICE, "name": name}]}
            )
            assert not made.is_error

        async with (
            guarded.client("bob", mode, message_handler=heard) as asking,
            guarded.client("all", "auto") as changing,
        ):
            if mode == "legacy":
                await asking.session.subscribe_resource(GRAPH_URI)
                while not changed.is_set():  # the stream for such news opens beside the rest
                    await change(changing)
                    with anyio.move_on_after(0.5):
                        await changed.wait()
                return
            async with asking.listen(resource_subscriptions=[GRAPH_URI]) as events:
                await change(changing)
                async for event in events:
                    assert str(event.uri) == GRAPH_URI
                    return

    run(main)


# It waits for what is under way nearly for ever.
PATIENT = """
import dataclasses, sys
from elytron.faces import cli
from elytron.faces.mcp import http
http.LIMITS = dataclasses.replace(http.LIMITS, drain_timeout_s=3600)
cli.main(sys.argv[1:])
"""


def test_a_signal_ends_it_though_clients_listen(folder):
    """A client of each era with its standing stream open, for which nobody waits."""

    async def main(server):
        async with server.client(mode="legacy") as old, server.client() as new:
            await old.list_tools()
            await new.list_tools()
            async with new.listen(resource_subscriptions=[GRAPH_URI]):
                return await anyio.to_thread.run_sync(server.end)

    with served(folder, "--profile", "reference", program=("-c", PATIENT)) as server:
        assert run(lambda: main(server)) == ""
