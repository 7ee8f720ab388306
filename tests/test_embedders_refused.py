"""Embedders over HTTP: refusals, keys, redirects, and servers that are slow or break off."""

import logging
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

import embedding_server as serving
from elytron.embed import http
from elytron.embed.embedder import EmbedderSettings
from elytron.embed.providers import make_embedder
from elytron.errors import Closed
from embedding_server import KEY, SECRET_TEXT, at, refusal

pytest.importorskip("numpy")
pytest.importorskip("urllib3")

SHORT_S = 0.3
BOTH = ("ollama", "openai")


@pytest.fixture
def server():
    with serving.running() as running:
        yield running


@pytest.fixture
def embedder(request, server):
    """An embedder of the kind that the test's parameter names, at the server."""
    made = at(server, request.param)
    yield made
    made.close()


both = pytest.mark.parametrize("embedder", BOTH, indirect=True)


# -- refusals


@both
@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (400, True), (401, True), (403, True), (404, True), (413, True), (418, True),
        (422, True), (301, True), (307, True), (408, False), (425, False), (429, False),
        (500, False), (502, False), (503, False), (204, False), (201, False),
    ],
)  # fmt: skip
def test_a_status_says_whether_trying_again_may_help(server, embedder, status, permanent):
    body = b"" if status == 204 else b'{"error": "the safe\'s number is 4711"}'
    server.answers = [serving.status(status, body)]
    error = refusal(embedder)
    wait_s = 5 if status in (429, 503) else None
    assert (error.permanent, error.wait_s, error.retryable) == (permanent, wait_s, True)
    assert f"HTTP {status} with {len(body)} bytes" in str(error)
    assert embedder.embed(["one"], "document").shape == (1, serving.DIM)


@both
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "wait_s"), [("7", 7), ("0", 0), ("86400", 3_600), ("soon", 5)]
)
def test_the_wait_that_is_asked_for_is_handed_on(server, embedder, status, retry_after, wait_s):
    server.answers = [serving.status(status, Retry_After=retry_after)]
    error = refusal(embedder)
    assert error.wait_s == wait_s
    assert not error.permanent


def test_a_wait_may_be_a_date():
    now = datetime(2026, 5, 7, 12, 0, tzinfo=UTC)

    def waited(after):
        date = format_datetime(now + after, usegmt=True)
        return http.wait_s(date, now_s=now.timestamp())

    assert waited(timedelta(seconds=90)) == 90
    assert waited(timedelta(days=-1)) == 0
    assert waited(timedelta(days=30)) == http.WAIT_MAX_S
    for odd in (None, "", "-5", "1.5", "٣", "Thu, 99 Foo 2026", "9" * 5_000, "nan", "\x00"):
        wait = http.wait_s(odd, now_s=now.timestamp())
        assert wait is None or 0 <= wait <= http.WAIT_MAX_S


def test_a_model_that_is_not_there_says_how_to_get_it(server):
    server.answers = [serving.status(404)]
    embedder = at(server, "ollama:mxbai-embed-large")
    assert "`ollama pull mxbai-embed-large`" in str(refusal(embedder))
    embedder.close()


def test_a_key_that_is_refused_is_named_and_not_shown(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    server.answers = [serving.status(401, KEY.encode())]
    embedder = at(server, "openai", api_key_env="MY_KEY")
    error = refusal(embedder)
    assert "MY_KEY" in str(error)
    assert KEY not in repr(error.__cause__)
    embedder.close()


def test_the_key_is_read_at_each_call(server, monkeypatch):
    embedder = at(server, "openai", api_key_env="MY_KEY")
    monkeypatch.delenv("MY_KEY", raising=False)
    assert "MY_KEY is not set" in str(refusal(embedder))
    assert server.requests == []
    for key in ("first", "second"):
        monkeypatch.setenv("MY_KEY", key)
        embedder.embed(["one"], "query")
        assert server.requests[-1].headers["Authorization"] == f"Bearer {key}"
    embedder.close()


@pytest.mark.parametrize("key", [f"{KEY}\r\nX-Evil: 1", f"{KEY}é", KEY * 1_000])
def test_a_key_that_fits_no_header_is_refused_and_not_shown(server, monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    embedder = at(server, "openai", api_key_env="MY_KEY")
    assert refusal(embedder).permanent
    assert server.requests == []
    embedder.close()


def test_the_key_of_openai_goes_to_no_other_address(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    embedder = at(server, "openai")
    embedder.embed(["one"], "query")
    assert "Authorization" not in server.requests[0].headers
    server.answers = [serving.status(401)]
    assert "`embedding_key_env`" in str(refusal(embedder))
    embedder.close()


@both
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server, embedder, code):
    with serving.running() as elsewhere:
        server.answers = [serving.status(code, Location=f"{elsewhere.url}/api/embed")]
        error = refusal(embedder)
        assert elsewhere.requests == []
    assert len(server.requests) == 1
    assert error.permanent


# -- slow, long and broken answers


@pytest.mark.parametrize("provider", BOTH)
@pytest.mark.parametrize(
    "answer",
    [
        serving.hang,
        serving.drip_head,
        serving.drip_body,
        serving.drip_chunk_length,
        serving.drip_until_closed,
    ],
)
def test_a_server_that_takes_too_long_is_given_up(server, provider, answer):
    """
    Method: the server would have given the right answer in the end, and each of its pauses is far
    shorter than the timeout. So it is refused only if the deadline is one for the whole; and the
    server is still at it when the other side leaves, if that had the time to ask it.
    """
    embedder = at(server, provider, timeout_s=SHORT_S)
    server.answers = [answer]
    error = refusal(embedder)
    assert f"{SHORT_S:g} s" in str(error)
    assert not error.permanent
    assert answer is serving.hang or not server.requests or server.left.wait(60)
    embedder.close()


def test_a_call_after_one_that_was_given_up_is_answered(server):
    embedder = at(server, "ollama", timeout_s=1)
    server.answers = [serving.drip_body]
    for _ in range(100):  # on a busy machine its second may be over before it has asked
        refusal(embedder)
        if server.requests:
            break
    assert server.left.wait(60)
    embedder._provider._endpoint._timeout_s = 60  # and what is answered at once be read late
    assert embedder.embed(["one"], "query").shape == (1, serving.DIM)
    assert len(server.connections) == 2
    embedder.close()


@both
def test_an_answer_that_announces_too_much_is_not_read(server, embedder):
    def huge(exchange):
        exchange.head(200, {"Content-Length": str(10**12)})
        exchange.hang_up()

    server.answers = [huge]
    error = refusal(embedder)
    assert f"{10**12:,}" in str(error)
    assert f"{http.answer_limit_bytes(1):,}" in str(error)


@both
def test_an_endless_answer_is_read_up_to_the_limit_only(server, embedder):
    server.answers = [serving.endless]
    assert f"at most {http.answer_limit_bytes(1):,}" in str(refusal(embedder))


def test_no_answer_may_be_longer_than_64_megabytes():
    assert http.answer_limit_bytes(1) < http.answer_limit_bytes(64) < 64 << 20
    assert http.answer_limit_bytes(1_000) == 64 << 20


@both
def test_a_compressed_answer_is_refused(server, embedder):
    server.answers = [serving.raw(b"\x1f\x8b", Content_Encoding="gzip")]
    assert "compressed" in str(refusal(embedder))
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


@both
@pytest.mark.parametrize("answer", [serving.broken_off, serving.not_http])
def test_a_connection_that_breaks_is_an_error(server, embedder, answer):
    server.answers = [answer]
    error = refusal(embedder)
    assert server.url in str(error)
    assert not error.permanent
    assert embedder.embed(["one"], "document").shape == (1, serving.DIM)


def test_a_server_that_is_not_there_says_how_to_start_it():
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        embedder = make_embedder("ollama", settings=EmbedderSettings(url=url, timeout_s=60))
        error = refusal(embedder)
    assert "`ollama serve`" in str(error)
    assert url in str(error)
    embedder.close()


# -- the rest


def test_proxies_are_used_only_where_one_is_given(server, monkeypatch):
    with serving.running() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        direct = at(server, "ollama")
        direct.embed(["one"], "query")
        direct.close()
        assert proxy.requests == []
        secret = proxy.url.replace("http://", "http://me:0815@")
        through = make_embedder(
            "ollama", settings=EmbedderSettings(url="http://far.invalid", proxy_url=secret)
        )
        through.embed(["one"], "query")
        assert proxy.requests[0].path == "http://far.invalid/api/embed"
        assert proxy.requests[0].headers["proxy-authorization"].startswith("Basic ")
        proxy.answers = [serving.status(500)]
        assert "0815" not in str(refusal(through))
        through.close()
    assert "0815" not in repr(EmbedderSettings(proxy_url=secret))


def test_nothing_of_texts_or_keys_is_logged(server, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    embedder = at(server, "openai", api_key_env="MY_KEY")
    with caplog.at_level(logging.DEBUG):
        embedder.embed([SECRET_TEXT], "document")
        for answer in (serving.status(500), serving.raw(b"4711"), serving.broken_off):
            server.answers = [answer]
            refusal(embedder)
    assert caplog.text
    assert "4711" not in caplog.text
    assert KEY not in caplog.text
    embedder.close()


@both
def test_a_closed_embedder_asks_nobody(server, embedder):
    embedder.embed(["one"], "query")
    embedder.close()
    embedder.close()
    with pytest.raises(Closed):
        embedder.embed(["one"], "query")
    assert len(server.requests) == 1


def test_an_embedder_that_was_never_asked_closes_too(server):
    at(server, "openai").close()
    assert server.requests == []
