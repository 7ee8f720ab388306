"""Names, queries, bodies and values that no honest client sends; and what the log says of them."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import Served, head, raw, served, status

SECRET = "the safe's number is 4711"
CLOSING = "Connection: close"


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("input") / "store") as one:
        one.call("save", role="user", content="Alice lives in Lyon")
        yield one


@pytest.mark.parametrize(
    "name",
    ["..", "../../etc/passwd", "a/b", "\\\\server\\share", "C:\\x", ".", "nul", "a\u202eb", " a ",
     "%2e%2e%2f", "-rf", "~", "bob' OR 1=1 --", "<script>alert(1)</script>", "𝕓𝕠𝕓", "x" * 1000],
)  # fmt: skip
def test_a_name_of_an_agent_is_never_a_path(where: Served, folder: Path, name: str) -> None:
    """It is kept exactly, or refused."""
    body = {"role": "user", "content": "kept"}
    answer = where.request("POST", "/v1/save", body, fields={"agent": name})
    if answer.status == 200:
        assert name in where.call("agents", None)
        assert [held["content"] for held in where.call("history", name)] == ["kept"]
        where.call("clear", name)
    else:
        assert answer.status == 400
    assert where.store is not None
    inside = where.store.path.resolve()
    stray = [path for path in inside.parent.rglob("*") if not path.resolve().is_relative_to(inside)]
    assert not stray


@pytest.mark.parametrize(
    "query",
    ["", "?agent=", "?agent=a&agent=b", "?agent=a%00b", "?agent=a%0ab", "?agent=%ff",
     "?agent=%ed%a0%80", "?agnet=bob", "?agent=bob&limit=5", "?agent=" + "x" * 1001,
     "?agent=%20", "?" + "&".join(f"a{n}=1" for n in range(50))],
)  # fmt: skip
def test_a_query_that_names_no_agent_or_more_is_refused(where: Served, query: str) -> None:
    answer = where.request("POST", f"/v1/exists{query}", {})
    assert answer.status == 400, answer.data
    assert answer.json()["error"] == "invalid-argument"


@pytest.mark.parametrize(
    "path",
    ["/v1/../healthz", "/v1//save", "//v1/save", "/V1/save", "/v1/save/", "/v1/__class__",
     "/v1/close", "/v1/_page", "/v1/agent", "/v1/store/close", "/v1/store/agent", "/static/x",
     "/v1/%2e%2e/store/agents", "/docs", "/redoc", "/.git/config", "/v1", "/v1/save;x=1"],
)  # fmt: skip
def test_only_the_verbs_are_there(where: Served, path: str) -> None:
    for method in ("GET", "POST"):
        answer = raw(where, head(method, path, "Content-Length: 0", CLOSING))
        assert status(answer) == 404, answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == "not-found"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"])
def test_a_verb_is_asked_with_post_only(where: Served, method: str) -> None:
    answer = raw(where, head(method, "/v1/save?agent=bob", CLOSING))
    assert status(answer) == 405
    assert b"allow: POST" in answer


def test_what_is_read_can_be_asked_for_its_head(where: Served) -> None:
    answer = raw(where, head("HEAD", "/healthz", CLOSING))
    assert status(answer) == 200
    assert answer.endswith(b"\r\n\r\n")
    for endless in ("/v1/export?agent=bob", "/v1/events"):
        assert status(raw(where, head("HEAD", endless, CLOSING))) == 405


# What is no JSON, and what Python makes too much of.


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"question": ' + b"9" * 5000 + b"}",
        b'{"limit": ' + b"9" * 5000 + b', "question": "x"}',
        b'{"limit": 1e400, "question": "x"}',
        b'{"limit": NaN, "question": "x"}',
        b'{"question": "\\ud800"}',
        b'{"question": "a\\u0000b", "session": "\\u0000"}',
        b'{"question": "x", "since": "9999-12-31T23:59:59-23:59"}',
        b'{"question": "x", "since": "2020-01-01"}',
        b'{"question": "x", "__class__": {}}',
        b'{"question": "x", "limit": true}',
        b'{"question": "x", "kinds": "memory"}',
        b'{"question": {"a": 1}}',
        b'{"question": "x", "self": 1}',
        b'{"question": "x", "count_tokens": 1}',
    ],
)
def test_what_is_no_question_is_refused_with_words(where: Served, body: bytes) -> None:
    answer = where.request(
        "POST", "/v1/recall?agent=bob", body, headers={"Content-Type": "application/json"}
    )
    assert answer.status in (200, 400), answer.data
    if answer.status == 400:
        assert answer.json()["error"] == "invalid-argument"


@pytest.mark.parametrize(
    "member",
    [b'"metadata": {"a": NaN}', b'"metadata": {"a": Infinity}', b'"metadata": {"a": 1e999}',
     b'"metadata": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}",
     b'"metadata": {"a": ' + b"9" * 5000 + b"}", b'"metadata": {"\\ud800": 1}',
     b'"importance": NaN', b'"importance": 1e999', b'"id": "\\ud800"', b'"at": "yesterday"',
     b'"at": 5', b'"role": "root"', b'"pinned": "yes"', b'"content": 5'],
)  # fmt: skip
def test_what_is_no_message_is_refused_with_words(where: Served, member: bytes) -> None:
    body = b'{"role": "user", "content": "x", ' + member + b"}"
    answer = where.request(
        "POST", "/v1/save?agent=odd", body, headers={"Content-Type": "application/json"}
    )
    assert answer.status == 400, answer.data
    many = where.request(
        "POST",
        "/v1/save_many?agent=odd",
        b'{"messages": [' + body + b"]}",
        headers={"Content-Type": "application/json"},
    )
    assert many.status == 400, many.data


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", b"\x81", b"\x81\x90\x01", b"\x91\x01", b"\xdd\xff\xff\xff\xff", b"\x81\xc0\xc0",
     b"\x91" * 5000, b"\xc7\x05\x01abcde", b"\x81\xa5query\xc7\x05\x7fabcde"],
)  # fmt: skip
def test_what_is_no_messagepack_is_refused_with_words(where: Served, body: bytes) -> None:
    answer = where.request(
        "POST",
        "/v1/cypher?agent=bob",
        body,
        headers={"Content-Type": "application/x-msgpack"},
    )
    assert answer.status == 400, answer.data


def test_numbers_that_json_lacks_come_back_as_text_or_not_at_all(where: Served) -> None:
    query = "RETURN CAST('nan' AS DOUBLE) AS a, CAST('inf' AS DOUBLE) AS b"
    answer = where.request("POST", "/v1/cypher?agent=bob", {"query": query})
    assert answer.status == 200, answer.data
    json.loads(answer.data, parse_constant=lambda name: pytest.fail(name))


# The log.


def test_no_log_holds_what_was_said_or_asked_or_which_token_was_sent(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("elytron", "uvicorn.error", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    with served(folder) as where:
        where.call("save", role="user", content=SECRET, session=SECRET, metadata={"a": SECRET})
        where.call("recall", question=SECRET)
        where.call("remember", content=SECRET)
        secret = {"Authorization": f"Bearer {SECRET}", "Cookie": SECRET, "X": SECRET}
        for path in ("/v1/save?agent=bob", f"/v1/save?agent=bob&token={SECRET}", f"/{SECRET}"):
            where.request("POST", path.replace(" ", "%20"), {"role": SECRET}, headers=secret)
        where.request("POST", "/v1/cypher?agent=bob", {"query": f"RETURN '{SECRET}' + x"})
        where.request("POST", "/v1/save?agent=a%0aFAKE%20LINE", {"role": "user", "content": "x"})
        raw(where, SECRET.encode() + b"\r\n\r\n")
        raw(where, head("GET", "/v1/hello", f"Origin: {SECRET}", CLOSING))
    ours = [record for record in caplog.records if not record.name.startswith("urllib3")]
    assert [record for record in ours if record.name.startswith("elytron")], "it is told of"
    for record in ours:
        told = record.getMessage() + str(record.exc_info) + str(record.args)
        assert "4711" not in told, record.name
        assert "\n" not in record.getMessage()


def test_a_fault_of_ours_is_told_without_what_was_sent(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    with served(folder) as where:
        monkeypatch.setattr("elytron.aio.AsyncAgent.history", fail)
        answer = where.request("POST", "/v1/history?agent=bob", {})
    assert answer.status == 500
    assert answer.json()["error"] == "error"
    assert b"4711" not in answer.data
    told = [record for record in caplog.records if record.name == "elytron.http"]
    assert [("RuntimeError" in r.getMessage(), "4711" in r.getMessage()) for r in told] == [
        (True, False)
    ]
    assert not told[0].exc_info
