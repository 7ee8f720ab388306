"""`elytron serve` from its start to its end, in processes of its own."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import urllib3

import elytron
from elytron.errors import OutcomeUnknown, Unavailable
from elytron.faces.http import descriptions, problems, serving, tokens
from elytron.faces.http.examples import EXAMPLES
from elytron.faces.http.guard import Guard
from elytron.faces.http.limits import Limits
from elytron.ledger.files import LOCK, agent_folder
from elytron.ledger.lock import FileLock
from serving import WAIT_MAX_S, Served, head, raw, read_all, served, serving_process, status

CODES = [
    value.code
    for value in vars(elytron.errors).values()
    if isinstance(value, type) and issubclass(value, elytron.errors.ElytronError)
]


def serve(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`elytron serve` where it is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "elytron", "serve", "--port", "0", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=WAIT_MAX_S, check=False,
    )  # fmt: skip


def ended(where: Served) -> tuple[int, str]:
    """The exit code of a server's process, and what it said on stderr."""
    assert where.process is not None
    assert where.process.stderr is not None
    code = where.process.wait(WAIT_MAX_S)
    return code, where.process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_nothing_to_complain_of(folder: Path, number: signal.Signals) -> None:
    with serving_process(folder) as where:
        where.call("save", role="user", content="kept")
        assert where.process is not None
        where.process.send_signal(number)
        assert ended(where) == (0, "")
    with elytron.open(folder) as store:
        assert [held.content for held in store.agent("bob").history()] == ["kept"]


def test_what_was_confirmed_before_sigterm_is_durable_and_the_rest_is_told(folder: Path) -> None:
    """
    Method: 16 clients save without pause; after 200 confirmed saves the process gets SIGTERM. Each
    client goes on until it is refused.
    """
    confirmed: set[str] = set()
    enough = threading.Event()
    mutex = threading.Lock()

    def client(number: int, where: Served) -> str:
        pool = urllib3.HTTPConnectionPool(
            "127.0.0.1", where.port, retries=False, timeout=WAIT_MAX_S
        )
        with pool:
            for count in range(100_000):
                name = f"{number}-{count}"
                body = json.dumps({"role": "user", "content": f"text {name}", "id": name})
                try:
                    answer = pool.request(
                        "POST",
                        "/v1/save?agent=bob",
                        body=body,
                        headers={"Content-Type": "application/json"},
                    )
                except urllib3.exceptions.HTTPError as error:
                    return type(error).__name__
                if answer.status != 200:
                    return str(answer.status)
                with mutex:
                    confirmed.add(name)
                    if len(confirmed) >= 200:
                        enough.set()
        return "never refused"

    with serving_process(folder) as where, ThreadPoolExecutor(16) as clients:
        ends = [clients.submit(client, number, where) for number in range(16)]
        assert enough.wait(WAIT_MAX_S)
        assert where.process is not None
        where.process.send_signal(signal.SIGTERM)
        assert ended(where) == (0, "")
        told = {end.result(WAIT_MAX_S) for end in ends}
    assert "never refused" not in told
    with elytron.open(folder) as store:
        held = {message.id for message in store.agent("bob").messages()}
    assert confirmed <= held
    assert len(confirmed) >= 200


def test_a_request_under_way_is_answered_before_the_end(folder: Path) -> None:
    with serving_process(folder) as where:
        where.call("save", role="user", content="first")
        body = b'{"role": "user", "content": "last"}'
        with socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S) as client:
            kind = ("Content-Type: application/json", f"Content-Length: {len(body)}")
            client.sendall(head("POST", "/v1/save?agent=bob", *kind) + body[:10])
            where.request("GET", "/healthz")  # answered after those bytes were read
            assert where.process is not None
            where.process.send_signal(signal.SIGTERM)
            _until_refused(where)
            client.sendall(body[10:])
            assert status(read_all(client)) == 200
        assert ended(where) == (0, "")
    with elytron.open(folder) as store:
        assert [held.content for held in store.agent("bob").history()] == ["first", "last"]


def _until_refused(where: Served) -> None:
    """Wait until the server accepts nothing more."""
    for _ in range(2000):
        try:
            socket.create_connection(("127.0.0.1", where.port), timeout=1).close()
        except OSError:
            return
        threading.Event().wait(0.02)
    raise AssertionError("it still accepts connections")


def test_a_request_that_does_not_end_is_not_waited_for_longer_than_it_may(folder: Path) -> None:
    with serving_process(folder, "--drain-timeout-s", "0.3") as where:
        with socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S) as client:
            kind = ("Content-Type: application/json", "Content-Length: 100")
            client.sendall(head("POST", "/v1/save?agent=bob", *kind) + b'{"role"')
            where.request("GET", "/healthz")
            assert where.process is not None
            where.process.send_signal(signal.SIGTERM)
            assert status(read_all(client)) in (0, 503)
        assert ended(where) == (0, "")


def test_a_write_that_the_end_cuts_off_is_told_as_unknown_and_is_done(folder: Path) -> None:
    """Method: another connection holds the agent's lock file until the time to drain is over."""
    with served(folder, limits={"drain_timeout_s": 0.2}) as where:
        assert where.store is not None
        assert where.server is not None
        where.call("save", role="user", content="first", id="first")
        lock = FileLock(agent_folder(folder, "bob") / LOCK)
        lock.acquire(time.monotonic() + WAIT_MAX_S, WAIT_MAX_S)
        with elytron.connect(where.url) as store, ThreadPoolExecutor(2) as clients:
            bob = store.agent("bob")
            try:
                saving = clients.submit(bob.save, "user", "second", id="second")
                deleting = clients.submit(bob.delete, "first")
                while where.store.usage().queued < 2:
                    assert not saving.done()
                    assert not deleting.done()
                where.server.should_exit = True
                for cut_off in (saving, deleting):
                    with pytest.raises(OutcomeUnknown, match="may or may not be done"):
                        cut_off.result(WAIT_MAX_S)
            finally:
                lock.release()
                lock.close()
    with elytron.open(folder) as again:
        assert [held.id for held in again.agent("bob").history()] == ["second"]


@pytest.mark.parametrize(
    ("method", "more", "code"),
    [
        ("POST", {}, "outcome-unknown"),
        ("POST", {"elytron.writes": True}, "outcome-unknown"),
        ("POST", {"elytron.writes": False}, "closed"),
        ("GET", {}, "closed"),
    ],
)
def test_what_the_end_cuts_off_is_told_by_whether_it_may_have_written(
    method: str, more: dict[str, bool], code: str
) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        began = asyncio.Event()

        async def app(scope: Any, _receive: Any, _send: Any) -> None:
            scope.update(more)
            began.set()
            await asyncio.Event().wait()

        guard = Guard(app, hosts=["localhost"], limits=Limits())
        headers = [(b"host", b"localhost"), (b"content-length", b"0")]
        scope = {"type": "http", "path": "/mcp", "method": method, "headers": headers}
        task = asyncio.ensure_future(guard(scope, began.wait, send))  # type: ignore[arg-type]
        await began.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    start, body = sent
    assert start["status"] == 503
    assert json.loads(body["body"])["error"] == code


def test_a_second_signal_ends_it_at_once_and_says_so(folder: Path) -> None:
    with serving_process(folder) as where:
        with socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S) as client:
            kind = ("Content-Type: application/json", "Content-Length: 100")
            client.sendall(head("POST", "/v1/save?agent=bob", *kind) + b'{"role"')
            where.request("GET", "/healthz")
            assert where.process is not None
            where.process.send_signal(signal.SIGTERM)
            _until_refused(where)
            where.process.send_signal(signal.SIGTERM)
            code, said = ended(where)
        assert code == 130
        assert said.startswith("elytron: ended at once")


def test_it_says_where_it_serves_and_who_is_let_in(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    token = tokens.add(file, "all")
    command = [sys.executable, "-W", "error", "-m", "elytron", "serve", "--store", str(folder)]
    with subprocess.Popen(
        [*command, "--port", "0", "--token-file", str(file), "--no-dashboard"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"serving {folder} at http://127.0.0.1:")
            assert "(1 token)" in line
            where = Served(line.split()[3].rstrip(","), token)
            assert where.request("GET", "/v1/hello").status == 200
            assert where.request("GET", "/v1/hello", token="wrong").status == 401
            process.send_signal(signal.SIGTERM)
            assert process.communicate(timeout=WAIT_MAX_S)[1] == ""
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--host", "0.0.0.0"], 2, "--token-file"),
        (["--host", "nowhere.invalid"], 2, "address of this machine"),
        (["--port", "70000"], 2, "65535"),
        (["--token-file", "none.json"], 7, "cannot be read"),
        (["--max-requests", "0"], 2, "max_requests"),
        (["--request-timeout-s", "nan"], 2, "request_timeout_s"),
        (["--allow-origin", "evil.example"], 2, "allow-origin"),
        (["--allow-origin", "https://*"], 2, "allow-origin"),
        (["--allow-host", "example.org:80"], 2, "allow-host"),
        (["--allow-host", ""], 2, "allow-host"),
        (["--set", "queue_max=none"], 2, "queue_max"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_opened(
    tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    done = serve(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_said_so_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        done = serve(tmp_path, "--port", str(held.getsockname()[1]))
    assert done.returncode == 7
    assert "cannot be bound" in done.stderr
    assert "choose another with `--port`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_part_that_fails_as_the_server_starts_is_told_and_what_is_open_is_closed() -> None:
    closed = []

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError("no room for it")

    async def close() -> None:
        closed.append("the store")

    listener = serving.listen("127.0.0.1", 0, guarded=False)
    with listener.socket, pytest.raises(Unavailable, match="failed as it began"):
        serving.run(serving.Server(app, Limits()), listener, close=close)
    assert closed == ["the store"]


def test_two_processes_may_serve_one_store(folder: Path) -> None:
    with serving_process(folder) as one, serving_process(folder) as other:
        one.call("save", role="user", content="by one")
        other.call("save", role="user", content="by the other")
        assert [held["content"] for held in one.call("history")] == ["by one", "by the other"]


# What is served.


def test_every_example_of_the_description_works(folder: Path) -> None:
    with served(folder) as where:
        document = where.request("GET", "/openapi.json").json()
        for verb, example in EXAMPLES.items():
            operation = document["paths"][f"/v1/{verb}"]["post"]
            assert operation["requestBody"]["content"]["application/json"]["example"] == example
            found = where.call(verb, **example)
            assert found or found is None, verb


def test_the_description_stands_by_itself_and_names_no_other_host(folder: Path) -> None:
    with served(folder) as where:
        answer = where.request("GET", "/openapi.json")
    assert b"https://" not in answer.data.replace(b"https://example.org", b"")
    document = answer.json()
    operations = [one for path in document["paths"].values() for one in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for operation in operations:
        assert operation["summary"]
        for answered in operation["responses"].values():
            reference = answered.get("$ref", "#/components/responses/400").rpartition("/")[2]
            assert reference in document["components"]["responses"]


def test_every_error_has_a_status_that_the_description_has() -> None:
    assert set(problems.STATUSES) | {"error"} == set(CODES)
    assert set(problems.STATUSES.values()) <= set(descriptions._MEANINGS)


def test_an_error_is_told_as_the_command_line_does(folder: Path) -> None:
    with served(folder, max_message_kb=1) as where:
        where.call("save", role="user", content="x", id="m1")
        for arguments, expected in (
            ({"role": "user", "content": "y", "id": "m1"}, (409, "conflict")),
            ({"role": "user", "content": "y" * 5000}, (400, "invalid-argument")),
        ):
            answer = where.request("POST", "/v1/save?agent=bob", arguments)
            assert (answer.status, answer.json()["error"]) == expected
            assert answer.json()["retryable"] is False
        answer = where.request("POST", "/v1/pin?agent=bob", {"id": "none"})
        assert (answer.status, answer.json()["error"]) == (404, "not-found")


def test_many_requests_go_over_one_connection(folder: Path) -> None:
    with served(folder) as where, urllib3.HTTPConnectionPool("127.0.0.1", where.port) as pool:
        for _ in range(50):
            assert pool.request("GET", "/healthz").status == 200
        assert pool.num_connections == 1


def test_requests_that_are_sent_ahead_are_answered_in_order(folder: Path) -> None:
    def save(number: int, *more: str) -> bytes:
        body = json.dumps({"role": "user", "content": f"number {number}"}).encode()
        kind = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        return head("POST", "/v1/save?agent=bob", *kind, *more) + body

    with served(folder) as where:
        sent = b"".join([save(number) for number in range(20)]) + save(20, "Connection: close")
        answer = raw(where, sent, end=False)
        assert answer.count(b"HTTP/1.1 200 OK") == 21
        said = [held["content"] for held in where.call("history")]
        assert said == [f"number {number}" for number in range(21)]


def test_what_is_wrong_with_a_second_request_is_no_answer_to_the_first(folder: Path) -> None:
    """Else a client would take a save for refused that was written."""
    with served(folder, limits={"request_timeout_s": 1}) as where:
        assert where.store is not None
        where.store.agent("bob").save_many([{"role": "user", "content": "x" * 1000}] * 1000)
        body = b'{"role": "user", "content": "hello"}'
        kind = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        for first in (
            head("POST", "/v1/save?agent=bob", *kind) + body,
            head("GET", "/v1/export?agent=bob"),
        ):
            for second in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000):
                answer = raw(where, first + second, end=False)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 200 ")
                assert b"HTTP/1.1 4" not in answer.partition(b"\r\n0\r\n\r\n")[0]


def test_metrics_are_those_of_the_store(folder: Path) -> None:
    with served(folder) as where:
        where.call("save", role="user", content="x")
        answer = where.request("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b'elytron_agent_readable{agent="bob"} 1.0' in answer.data


def test_scrapes_of_the_metrics_hold_up_no_other_answer_and_are_bounded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: six scrapes, of which none ends before a large answer has come."""
    asked, let_go = threading.Semaphore(0), threading.Event()

    def render(_store: Any) -> str:
        assert let_go.wait(2 * WAIT_MAX_S)
        return "all"

    def check(_asked: Any, _agent: Any, *, writes: bool) -> None:
        assert not writes
        asked.release()

    monkeypatch.setattr("elytron.faces.metrics.render", render)
    with served(folder) as where, ThreadPoolExecutor(6) as scrapers:
        where.call("save_many", messages=[{"role": "user", "content": "x"}] * 100)
        with monkeypatch.context() as counted:
            counted.setattr("elytron.faces.http.asked.Asked.check", check)
            scrapes = [scrapers.submit(where.request, "GET", "/metrics") for _ in range(6)]
            try:
                for _ in scrapes:
                    assert asked.acquire(timeout=WAIT_MAX_S)
                assert len(where.call("history", limit=100)) == 100
                done, _ = wait(scrapes, timeout=WAIT_MAX_S, return_when=FIRST_COMPLETED)
                assert done, "the sixth is refused while the others wait"
            finally:
                let_go.set()
        answers = [scrape.result(WAIT_MAX_S) for scrape in scrapes]
    assert sorted(answer.status for answer in answers) == [200] * 5 + [503]
    (refused,) = (answer for answer in answers if answer.status == 503)
    assert refused.json()["error"] == "busy"


def test_a_store_that_cannot_be_read_is_not_ready_but_alive(folder: Path) -> None:
    if os.name == "posix" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    with served(folder) as where:
        where.call("save", role="user", content="x")
        folder.chmod(0)
        try:
            assert where.request("GET", "/healthz").status == 200
            assert where.request("GET", "/readyz").status == 503
        finally:
            folder.chmod(0o700)


def test_the_headers_for_browsers_are_on_every_answer(folder: Path) -> None:
    with served(folder) as where:
        for path in ("/healthz", "/nope", "/v1/save", "/openapi.json"):
            answer = where.request("GET", path)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert "Server" not in answer.headers


def test_the_extra_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elytron.faces import serving as commands

    def missing(name: str, *rest: Any) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", missing)
    with pytest.raises(elytron.InvalidArgument, match=r"pip install 'elytron\[server\]'"):
        commands._check_installed(dashboard=True)
