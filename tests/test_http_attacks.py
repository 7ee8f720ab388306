"""What strangers send on purpose: each is refused, bounded, and said in no log."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from elytron.faces.http import tokens
from graphs import eventually
from serving import WAIT_MAX_S, Served, head, raw, read_all, served, status

SECRET = "the safe's number is 4711"
JSON = "Content-Type: application/json"
CLOSING = "Connection: close"
NARROW = {"max_request_mb": 1 / 16}


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("attacks") / "store") as one:
        one.call("save", role="user", content="Alice lives in Lyon")
        yield one


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that waits a quarter of a second for anything."""
    limits = {"request_timeout_s": 0.25, "max_requests": 20}
    with served(tmp_path_factory.mktemp("hasty") / "store", limits=limits) as one:
        assert one.store is not None
        one.store.agent("bob").save("user", "Alice lives in Lyon")
        yield one


def is_well(where: Served) -> bool:
    """Whether it answers; who stands still and is so cut off by a hasty one asks again."""
    for _ in range(20):
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if where.request("GET", "/healthz").status == 200:
                return True
    return False


def post(path: str, body: bytes, *lines: str, host: str = "127.0.0.1") -> bytes:
    lines = (JSON, f"Content-Length: {len(body)}", CLOSING, *lines)
    return head("POST", path, *lines, host=host) + body


# Whom the request was meant for, and which page sent it.


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7700", "127.0.0.1.evil.example", "localhost.evil.example",
     "127.0.0.1@evil.example", "[::1", "127.0.0.1:port", "10.0.0.1", "", "localhost:80:80"],
)  # fmt: skip
def test_a_name_that_was_rebound_to_this_machine_is_refused(where: Served, host: str) -> None:
    for path in ("/v1/hello", "/healthz", "/openapi.json", "/"):
        assert status(raw(where, head("GET", path, CLOSING, host=host))) == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:7700", "LOCALHOST", "[::1]:7700"])
def test_the_names_of_loopback_are_known(where: Served, host: str) -> None:
    assert status(raw(where, head("GET", "/v1/hello", CLOSING, host=host))) == 200


def test_a_request_without_a_host_or_with_two_is_refused(where: Served) -> None:
    assert status(raw(where, b"GET /v1/hello HTTP/1.1\r\nConnection: close\r\n\r\n")) in (400, 403)
    assert status(raw(where, b"GET /v1/hello HTTP/1.0\r\n\r\n")) == 403
    assert status(raw(where, head("GET", "/v1/hello", "Host: evil.example", CLOSING))) in (400, 403)


def test_an_address_in_the_request_line_does_not_stand_for_the_host(where: Served) -> None:
    there = f"http://127.0.0.1:{where.port}/v1/hello"
    assert status(raw(where, head("GET", there, CLOSING, host="evil.example"))) in (400, 403)


@pytest.mark.parametrize(
    "lines",
    [
        ["Origin: https://evil.example"],
        ["Origin: null"],
        ["Origin: http://localhost:1"],
        ["Origin: http://127.0.0.1.evil.example"],
        ["Origin: "],
        ["Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate"],
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"],
    ],
)
def test_a_page_of_another_site_may_not_ask(where: Served, lines: list[str]) -> None:
    body = b'{"role": "user", "content": "planted"}'
    assert status(raw(where, post("/v1/save?agent=bob", body, *lines))) == 403
    assert status(raw(where, head("GET", "/v1/export?agent=bob", CLOSING, *lines))) == 403
    assert "planted" not in json.dumps(where.call("history"))


def test_a_form_of_another_site_has_no_kind_of_body_that_is_taken(where: Served) -> None:
    """Older browsers say nothing of where a form is from; what they can send is text."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = where.request(
            "POST",
            "/v1/save?agent=bob",
            b'{"role": "user", "content": "planted"}',
            headers={"Content-Type": kind},
        )
        assert answer.status == 415
    answer = where.request(
        "POST",
        "/v1/import_?agent=bob",
        b'{"role": "user", "content": "planted"}',
        headers={"Content-Type": "text/plain"},
    )
    assert answer.status == 415
    assert "planted" not in json.dumps(where.call("history"))


def test_pages_of_this_server_may_ask(where: Served) -> None:
    origin = f"Origin: http://127.0.0.1:{where.port}"
    host = f"127.0.0.1:{where.port}"
    assert status(raw(where, head("GET", "/v1/hello", CLOSING, origin, host=host))) == 200


def test_a_page_that_is_let_in_is_told_so_and_no_other_is(folder: Path) -> None:
    with served(folder, origins=["https://app.example"]) as where:
        asked = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        before = where.request("OPTIONS", "/v1/save?agent=bob", headers=asked)
        assert before.status == 204
        assert before.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert "Authorization" in before.headers["Access-Control-Allow-Headers"]
        answer = where.request("GET", "/v1/hello", headers={"Origin": "https://app.example"})
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert answer.headers["Vary"] == "Origin"
        other = asked | {"Origin": "https://evil.example"}
        refused = where.request("OPTIONS", "/v1/save?agent=bob", headers=other)
        assert refused.status == 403
        assert "Access-Control-Allow-Origin" not in refused.headers
        plain = where.request("GET", "/v1/hello")
        assert "Access-Control-Allow-Origin" not in plain.headers


def test_a_page_that_is_let_in_may_read_why_it_is_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    token = tokens.add(file, "page")
    page = {"Origin": "https://app.example"}
    limits = {"max_requests_per_s": 0.1}
    with served(folder, tokens=file, origins=[page["Origin"]], limits=limits) as where:
        unknown = where.request("GET", "/v1/hello", headers=page)
        first = where.request("GET", "/v1/hello", headers=page, token=token)
        too_many = where.request("GET", "/v1/hello", headers=page, token=token)
        other = where.request("GET", "/v1/hello", headers={"Origin": "https://evil.example"})
    assert [one.status for one in (unknown, first, too_many, other)] == [401, 200, 429, 403]
    for answer in (unknown, first, too_many):
        assert answer.headers["Access-Control-Allow-Origin"] == page["Origin"]
        assert answer.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Origin" not in other.headers


def test_a_web_socket_of_another_origin_is_refused(where: Served) -> None:
    lines = (
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Origin: https://evil.example",
    )  # fmt: skip
    for path in ("/_nicegui_ws/socket.io/", "/v1/save", "/"):
        assert status(raw(where, head("GET", path, *lines))) == 403


def test_a_web_socket_is_guarded_and_then_not_hurried(folder: Path) -> None:
    """
    It may be quiet for longer than a request may take.

    Method: the dashboard's socket, by hand; a page is asked for first, to have a name to give.
    """
    with served(folder, dashboard=True, limits={"request_timeout_s": 2}) as where:
        page = where.request("GET", "/").data.decode()
        found = re.search(r"client_id\W{1,20}([0-9a-f-]{36})", page)
        assert found
        path = f"/_nicegui_ws/socket.io/?EIO=4&transport=websocket&client_id={found[1]}"
        upgrade = (
            "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )  # fmt: skip
        evil = head("GET", path, *upgrade, "Origin: https://evil.example")
        assert status(raw(where, evil, end=False)) == 403
        rebound = head("GET", path, *upgrade, host="evil.example")
        assert status(raw(where, rebound, end=False)) == 403
        with socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S) as client:
            client.sendall(head("GET", path, *upgrade))
            greeting = b""
            while b'"sid"' not in greeting:
                greeting += client.recv(65_536)
            assert greeting.startswith(b"HTTP/1.1 101 ")
            client.settimeout(2.5)
            with pytest.raises(TimeoutError):
                client.recv(65_536)  # neither closed nor reset


# Sizes and times.


def test_a_body_over_the_limit_is_refused_by_what_it_says_of_itself(folder: Path) -> None:
    sent = head("POST", "/v1/save?agent=bob", JSON, "Content-Length: 10000000000")
    with served(folder, limits=NARROW) as where:
        answer = raw(where, sent, end=False)
    assert status(answer) == 413
    assert b"max-request-mb" in answer


def test_a_body_over_the_limit_is_refused_while_it_arrives(folder: Path) -> None:
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    sent = head("POST", "/v1/save?agent=bob", JSON, "Transfer-Encoding: chunked") + chunk * 4
    with served(folder, limits=NARROW) as where:
        assert status(raw(where, sent, end=False)) == 413


def test_large_requests_at_once_have_a_bound_together(folder: Path) -> None:
    with served(folder, limits={"max_request_mb": 0.05}) as where:
        sent = head("POST", "/v1/save?agent=bob", JSON, "Content-Length: 50000") + b"{"
        held = [
            socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S)
            for _ in range(8)
        ]
        for one in held:
            one.sendall(sent)
        where.request("GET", "/healthz")
        answer = raw(where, sent, end=False)
        assert status(answer) == 503
        assert b"too many large requests" in answer
        where.call("save", role="user", content="a small one is taken")
        for one in held:
            one.close()
        for _ in range(200):
            body = b" " * 49_000
            if status(raw(where, post("/v1/exists?agent=bob", b"{}" + body), end=False)) == 200:
                break
            threading.Event().wait(0.02)
        else:
            pytest.fail("what was given up is still counted")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/sa",
        head("POST", "/v1/save?agent=bob", JSON)[:-2],
        head("POST", "/v1/save?agent=bob", JSON, "Content-Length: 100") + b'{"role"',
        head("POST", "/v1/save?agent=bob", JSON, "Transfer-Encoding: chunked") + b"5\r\nabc",
        head("POST", "/v1/nope", JSON, "Content-Length: 100") + b"abc",
        head("GET", "/v1/save", JSON, "Content-Length: 100") + b"abc",
        head("POST", "/v1/import_?agent=bob", "Content-Type: application/x-ndjson",
             "Content-Length: 100") + b'{"role"',
    ],
    ids=["nothing", "line", "headers", "body", "chunk", "unknown path", "wrong method", "import"],
)  # fmt: skip
def test_a_client_that_stops_in_the_middle_is_not_waited_for(hasty: Served, sent: bytes) -> None:
    answer = raw(hasty, sent, end=False)  # ends, or the test does
    assert status(answer) in (0, 404, 405, 408)
    assert is_well(hasty)


@pytest.mark.parametrize("at", ["head", "body", "after"])
def test_a_client_that_sends_a_byte_at_a_time_is_not_waited_for(hasty: Served, at: str) -> None:
    first = {
        "head": b"GET /v1/hello HTTP/1.1\r\nX-Slow: ",
        "body": head("POST", "/v1/save?agent=bob", JSON, "Content-Length: 60000"),
        "after": head("POST", "/v1/nope", JSON, "Content-Length: 60000"),
    }[at]
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=WAIT_MAX_S) as connection:
        connection.sendall(first)
        gone = threading.Event()

        def drip() -> None:
            try:
                while not gone.wait(0.02):
                    connection.sendall(b"x")
            except OSError:
                gone.set()

        thread = threading.Thread(target=drip)
        thread.start()
        answer = read_all(connection)
        gone.set()
        thread.join(WAIT_MAX_S)
    assert status(answer) in (0, 404, 405, 408)


def test_a_client_that_does_not_read_its_answer_is_not_waited_for(folder: Path) -> None:
    with served(folder, limits={"request_timeout_s": 0.25}) as where:
        assert where.store is not None
        assert where.server is not None
        for _ in range(10):
            messages = [{"role": "user", "content": "x" * 20_000} for _ in range(50)]
            where.store.agent("bob").save_many(messages)
        connections = where.server.server_state.connections
        with socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(head("GET", "/v1/export?agent=bob"))
            assert one.recv(1)  # it is being answered
            eventually(lambda: not connections, "its client holds it no longer")


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"GET /v1/hello HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000, (431,)),
        (head("GET", "/v1/hello?agent=" + "a" * 200_000), (400, 431)),
        (head("GET", "/v1/hello", *(f"X-{n}: {n}" for n in range(150))), (400, 431)),
        (b"GET /" + b"a" * 300_000, (431,)),
    ],
    ids=["header", "address", "many headers", "endless line"],
)
def test_the_head_of_a_request_is_bounded(
    where: Served, sent: bytes, answered: tuple[int, ...]
) -> None:
    assert status(raw(where, sent, end=False)) in answered


def test_connections_are_bounded_and_come_free_again(hasty: Served) -> None:
    """Method: once more where the first ones were cut off before the last was there."""
    for _ in range(20):
        held = [
            socket.create_connection(("127.0.0.1", hasty.port), timeout=WAIT_MAX_S)
            for _ in range(20)
        ]
        try:
            answer = raw(hasty, head("GET", "/healthz", CLOSING), end=False)
            for one in held:
                assert read_all(one) == b""  # they sent nothing, and are not waited for
        finally:
            for one in held:
                one.close()
        if status(answer) == 503:
            break
    assert status(answer) == 503
    assert is_well(hasty)


def test_requests_a_second_are_bounded_for_each_address(folder: Path) -> None:
    with served(folder, limits={"max_requests_per_s": 0.5}) as where:
        answers = [where.request("GET", "/v1/hello") for _ in range(12)]
        refused = [answer for answer in answers if answer.status == 429]
        assert refused
        assert refused[0].headers["Retry-After"]
        assert refused[0].json()["error"] == "busy"
        assert where.request("GET", "/healthz").status == 200  # whoever looks after it is let in


# What HTTP itself leaves to argue about.


@pytest.mark.parametrize(
    "sent",
    [
        head("POST", "/v1/save", JSON, "Content-Length: 2", "Content-Length: 30") + b"{}",
        head("POST", "/v1/save", JSON, "Content-Length: 2", "Transfer-Encoding: chunked")
        + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        head("POST", "/v1/save", JSON, "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
        head("POST", "/v1/save", JSON, "Transfer-Encoding: chunked, identity") + b"{}",
        head("POST", "/v1/save", JSON, "Transfer-Encoding : chunked") + b"0\r\n\r\n",
        head("POST", "/v1/save", JSON, "Content-Length: -1") + b"{}",
        head("POST", "/v1/save", JSON, "Content-Length: +2") + b"{}",
        head("POST", "/v1/save", JSON, "Content-Length: 0x2") + b"{}",
        b"GET /v1/hello HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
        head("GET", "/v1/hello", "X: a\x00b"),
    ],
)  # fmt: skip
def test_a_request_that_two_servers_could_read_differently_is_refused(
    where: Served, sent: bytes
) -> None:
    answer = raw(where, sent)
    assert status(answer) in (0, 400)
    assert answer.count(b"HTTP/1.1 ") <= 1, "what followed was taken for a request"


def test_no_header_can_be_put_into_an_answer(where: Served) -> None:
    for path in (
        "/v1/save?agent=bob%0d%0aSet-Cookie:%20a=b",
        "/v1/%0d%0aSet-Cookie:%20a=b",
        "/%0d%0a%0d%0aHTTP/1.1%20200%20OK",
    ):
        answer = raw(where, head("GET", path, CLOSING))
        assert b"set-cookie" not in answer.lower().partition(b"\r\n\r\n")[0]
        assert answer.count(b"HTTP/1.1 ") == 1
        assert 400 <= status(answer) < 500
