"""Servers over stdio, as clients start them: pure stdout, bad lines, ends, many at once."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import anyio
import mcp_types as types
import psutil
import pytest

import elytron
from elytron.faces.mcp.reference_profile import GRAPH_URI
from mcp_servers import WAIT_S, as_server, over_stdio, piped, run, words

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="of POSIX alone")
OPENING = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_of_each_era_remembers_and_recalls(folder, mode):
    async def main():
        async with over_stdio(folder, "--agent", "bob", mode=mode) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == [
                "remember", "recall", "forget",
            ]  # fmt: skip
            await client.call_tool("remember", {"content": "Alice lives in Lyon."})
            return await client.call_tool("recall", {"question": "where does Alice live?"})

    found = run(main)
    assert found.structured_content["hits"][0]["content"] == "Alice lives in Lyon."
    with elytron.open(folder) as store:
        assert store.agents() == ["bob"]


def test_a_client_of_the_reference_server_works_unchanged(folder):
    async def main():
        entity = {"name": "Alice", "entityType": "person", "observations": ["likes tea"]}
        async with over_stdio(folder, "--profile", "reference") as client:
            await client.call_tool("create_entities", {"entities": [entity]})
        async with over_stdio(folder, "--profile", "reference") as client:
            return (await client.call_tool("read_graph", {})).structured_content, entity

    held, entity = run(main)
    assert held == {"entities": [entity], "relations": []}


def test_several_servers_on_one_agent_lose_nothing(folder):
    """Four clients with a server each, saving at the same time."""
    servers, each = 4, 25

    async def save(number, met):
        async with over_stdio(folder) as client:
            met[number].set()
            for other in met:
                await other.wait()  # all are connected before the first saves
            for n in range(each):
                kept = await client.call_tool("remember", {"content": f"fact {number}-{n}"})
                assert not kept.is_error, kept

    async def main():
        met = [anyio.Event() for _ in range(servers)]
        async with anyio.create_task_group() as tasks:
            for number in range(servers):
                tasks.start_soon(save, number, met)

    run(main)
    with elytron.open(folder) as store:
        memory = store.agent("default")
        held = sorted(one.content for one in memory.memories(limit=1000))
        assert held == sorted(f"fact {s}-{n}" for s in range(servers) for n in range(each))
        assert memory.check().ok


def test_several_servers_on_one_graph_make_each_thing_once(folder):
    """Each makes the same entity and relations with observations of its own."""
    servers = 3

    async def draw(number):
        entities = [
            {"name": name, "entityType": "x", "observations": ["shared"]} for name in ("A", "B")
        ]
        relation = {"from": "A", "to": "B", "relationType": "r"}
        async with over_stdio(folder, "--profile", "reference") as client:
            for tool, arguments in (
                ("create_entities", {"entities": entities}),
                ("create_relations", {"relations": [relation]}),
                ("add_observations", {"observations": [
                    {"entityName": "A", "contents": ["shared", f"own {number}"]},
                ]}),
            ):  # fmt: skip
                result = await client.call_tool(tool, arguments)
                assert not result.is_error, result

    async def main():
        async with anyio.create_task_group() as tasks:
            for number in range(servers):
                tasks.start_soon(draw, number)
        async with over_stdio(folder, "--profile", "reference") as client:
            return (await client.call_tool("read_graph", {})).structured_content

    held = run(main)
    assert [entity["name"] for entity in held["entities"]] == ["A", "B"]
    assert sorted(held["entities"][0]["observations"]) == ["own 0", "own 1", "own 2", "shared"]
    assert held["entities"][1]["observations"] == ["shared"]
    assert len(held["relations"]) == 1


# The library's own client of older days, which present clients still are.
@pytest.mark.filterwarnings("ignore:resources/subscribe is removed")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_that_asked_is_told_when_the_graph_changes(folder, mode):
    async def main():
        changed = anyio.Event()

        async def heard(message):
            if isinstance(message, types.ResourceUpdatedNotification):
                assert str(message.params.uri) == GRAPH_URI
                changed.set()

        entity = {"name": "Alice", "entityType": "person", "observations": []}
        async with over_stdio(
            folder, "--profile", "reference", mode=mode, message_handler=heard
        ) as client:
            if mode == "legacy":
                await client.session.subscribe_resource(GRAPH_URI)
                await client.call_tool("create_entities", {"entities": [entity]})
                await changed.wait()
                return
            async with client.listen(resource_subscriptions=[GRAPH_URI]) as events:
                await client.call_tool("create_entities", {"entities": [entity]})
                async for event in events:
                    assert str(event.uri) == GRAPH_URI
                    return

    run(main)


# -- the lines themselves


def test_nothing_but_the_protocol_reaches_stdout(folder):
    """
    Whatever prints: Python, native code, a process that is started; before and during a call.

    Method: a wrapper prints in each of these ways, then runs the real command.
    """
    source = """
        import os, subprocess, sys
        from elytron.faces import cli, mcp_command
        from elytron.verbs.learning import Learning

        def noise():
            print("NOISE from print", flush=True)
            os.write(1, b"NOISE from native code\\n")
            subprocess.run([sys.executable, "-c", "print('NOISE from a process')"], check=True)

        really = Learning.remember
        def remember(*arguments, **more):
            noise()
            assert os.read(0, 1) == b""  # and nothing is taken from the client
            return really(*arguments, **more)
        Learning.remember = remember

        served = mcp_command._profile
        def profile(*arguments):
            noise()
            return served(*arguments)
        mcp_command._profile = profile
        cli.main(sys.argv[1:])
    """
    with as_server([sys.executable, "-c", textwrap.dedent(source), *words(folder)[5:]]) as server:
        server.greet()
        server.call("remember", 1, content="Alice likes tea.")
        assert server.next()["result"]["structuredContent"]["new"]
        rest, complaints = server.end()
    assert rest == []
    for way in ("print", "native code", "a process"):
        assert complaints.count(f"NOISE from {way}") == 2


NO_MESSAGES = (
    (b"{nonsense", types.PARSE_ERROR, None),
    (b"\xff\xfe", types.PARSE_ERROR, None),
    (b'"\\ud800"', types.INVALID_REQUEST, None),
    (b"[" * 100_000, types.PARSE_ERROR, None),
    (b"[]", types.INVALID_REQUEST, None),
    (b"7", types.INVALID_REQUEST, None),
    (b'{"jsonrpc": "2.0", "id": 5, "method": 6}', types.INVALID_REQUEST, 5),
    (b'{"id": "five"}', types.INVALID_REQUEST, "five"),
    (b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}', types.INVALID_REQUEST, None),
    (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}', types.INVALID_REQUEST, None),
)


def test_a_line_that_is_no_message_is_answered_and_the_next_one_is_read(folder):
    with piped(folder) as server:
        server.greet()
        for line, code, known in NO_MESSAGES:
            server.write(line + b"\n\n  \n")
            answer = server.next()
            assert (answer["error"]["code"], answer.get("id")) == (code, known), line[:50]
            server.send("ping", id=1)
            assert server.next()["result"] == {}, line[:50]
        assert server.end() == ([], "")
    assert not folder.exists()


def test_a_line_that_is_too_long_is_skipped_as_it_comes(folder):
    from elytron.faces.mcp.wire import LINE_MAX_BYTES

    with piped(folder) as server:
        server.greet()
        before = psutil.Process(server.process.pid).memory_info().rss
        for _ in range(6):
            server.write(b"x" * LINE_MAX_BYTES)
        server.write(b"\n")
        assert "too large" in server.next()["error"]["message"]
        grown = psutil.Process(server.process.pid).memory_info().rss - before
        assert grown < 4 * LINE_MAX_BYTES
        server.send("ping", id=1)
        assert server.next()["id"] == 1
        server.end()


def test_a_large_message_within_the_bound_is_taken_whole(folder):
    content = "é" * (100 << 10)
    with piped(folder) as server:
        server.greet()
        server.call("remember", 1, content=content)
        assert server.next()["result"]["structuredContent"]["new"]
        server.end()
    with elytron.open(folder) as store:
        assert store.agent("default").memories()[0].content == content


def test_calls_in_a_row_without_waiting_are_all_answered_before_the_end(folder):
    """More than are read at once; stdin ends right behind them, as for a pipe in a shell."""
    count = 400
    with piped(folder) as server:
        server.greet()
        for number in range(count):
            server.call("remember", number, content=f"fact {number}")
        rest, complaints = server.end()
    assert complaints == ""
    assert sorted(answer["id"] for answer in rest) == list(range(count))
    assert all(answer["result"]["structuredContent"]["new"] for answer in rest)
    with elytron.open(folder) as store:
        assert len(store.agent("default").memories(limit=1000)) == count


def test_a_cancelled_call_and_a_wrong_notification_do_no_harm(folder):
    with piped(folder) as server:
        server.greet()
        server.call("remember", 1, content="one")
        server.send("notifications/cancelled", {"requestId": 1})
        server.send("notifications/cancelled", {"requestId": {}})
        server.send("notifications/unheard")
        server.call("remember", 2, content="two")
        rest, _ = server.end()
    assert {answer["id"] for answer in rest} in ({2}, {1, 2})


def test_what_was_said_is_not_in_the_log(folder):
    """Method: a tool meets an error that nobody foresaw, and which quotes what was asked."""
    source = """
        import sys
        from elytron.faces import cli
        from elytron.verbs.reading import Reading

        def recall(self, question, **more):
            raise RuntimeError(question)
        Reading.recall = recall
        cli.main(sys.argv[1:])
    """
    command = [sys.executable, "-c", textwrap.dedent(source), *words(folder)[5:]]
    with as_server(command) as server:
        server.greet()
        server.call("remember", 1, content="SECRET", about=["SECRET\x00"])
        server.call("recall", 2, question="SECRET", cursor="SECRET")
        server.call("nonsense", 3, word="SECRET")
        server.call("recall", 4, question="SECRET")
        server.write(b'{"SECRET\n')
        rest, complaints = server.end()
    assert len(rest) == 5
    assert "RuntimeError" in complaints, "it is told of"
    assert "SECRET" not in complaints


# -- the end


@posix_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_and_the_call_under_way_is_answered(folder, number):
    """Method: a wrapper holds a call until this test, which has sent the signal, lets it go on."""
    source = """
        import os, sys
        from elytron.faces import cli
        from elytron.verbs.learning import Learning

        entered, let_on = int(sys.argv.pop(1)), int(sys.argv.pop(1))
        really = Learning.remember
        def remember(*arguments, **more):
            os.write(entered, b"x")
            os.read(let_on, 1)
            return really(*arguments, **more)
        Learning.remember = remember
        cli.main(sys.argv[1:])
    """
    pipes = [os.pipe(), os.pipe()]
    (seen, entered), (let_on, lets) = pipes
    started = [sys.executable, "-c", textwrap.dedent(source), str(entered), str(let_on)]
    with as_server([*started, *words(folder)[5:]], pass_fds=(entered, let_on)) as server:
        server.greet()
        server.call("remember", 1, content="one")
        assert os.read(seen, 1) == b"x"
        server.process.send_signal(number)
        os.write(lets, b"x")
        assert server.next()["result"]["structuredContent"]["new"]
        assert server.process.wait(WAIT_S) == 0
        assert server.rest() == []
        assert server.stderr() == ""
    for descriptor in (*pipes[0], *pipes[1]):
        os.close(descriptor)
    with elytron.open(folder) as store:
        assert len(store.agent("default").memories()) == 1


@posix_only
def test_it_ends_with_its_parent_though_its_stdin_stays_open(folder):
    """
    Method: a parent starts the server on pipes that this test holds open too, and is killed.
    """
    for_server, to_server = os.pipe()
    from_server, by_server = os.pipe()
    source = """
        import json, subprocess, sys, time
        command, requests, answers = json.loads(sys.argv[1])
        server = subprocess.Popen(command, stdin=requests, stdout=answers)
        print(server.pid, flush=True)
        server.wait()
    """
    asked = json.dumps([words(folder), for_server, by_server])
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), asked],
        stdout=subprocess.PIPE,
        pass_fds=(for_server, by_server),
    )
    try:
        server = psutil.Process(int(parent.stdout.readline()))
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": OPENING}
        os.write(to_server, json.dumps(message).encode() + b"\n")
        assert b"elytron" in os.read(from_server, 65_536)  # it serves
        parent.send_signal(signal.SIGKILL)
        parent.wait(WAIT_S)
        gone, alive = psutil.wait_procs([server], timeout=WAIT_S)
        assert gone
        assert not alive
    finally:
        parent.kill()
        parent.wait(WAIT_S)
        parent.stdout.close()
        for descriptor in (for_server, to_server, from_server, by_server):
            os.close(descriptor)


def requests(*calls, first=0):
    """The lines of some requests, numbered from the *first* on."""
    lines = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(calls, first)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@posix_only
def test_a_client_that_reads_no_more_does_not_hold_up_the_end(folder):
    """
    Once with a pipe that breaks, once with one that is full; with a shorter last wait, which begins
    once what is to be kept is.
    """
    source = """
        import os, sys
        from elytron.faces import cli
        from elytron.faces.mcp import wire
        from elytron.verbs.learning import Learning

        kept = int(sys.argv.pop(1))
        really = Learning.remember
        def remember(*arguments, **more):
            receipt = really(*arguments, **more)
            os.write(kept, b"x")
            return receipt
        Learning.remember = remember
        wire.DRAIN_MAX_S = 0.5
        cli.main(sys.argv[1:])
    """
    for closes in (True, False):
        is_kept, keeps = os.pipe()
        server = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source), str(keeps), *words(folder)[5:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(keeps,),
        )
        os.close(keeps)
        try:
            kept = {"name": "remember", "arguments": {"content": f"kept, {closes}"}}
            server.stdin.write(requests(("initialize", OPENING), ("tools/call", kept)))
            server.stdin.flush()
            assert os.read(is_kept, 1) == b"x"
            if closes:
                server.stdout.close()
            with contextlib.suppress(BrokenPipeError):  # who meets the broken pipe may have ended
                listing = [("tools/list", {})] * (1 if closes else 100)  # over 64 KB of answers
                server.stdin.write(requests(*listing, first=2))
                server.stdin.close()
            assert server.wait(WAIT_S) == 0
        finally:
            server.kill()
            server.wait(WAIT_S)
            server.stdin.close()
            server.stdout.close()
            os.close(is_kept)
    with elytron.open(folder) as store:
        assert len(store.agent("default").memories()) == 2
