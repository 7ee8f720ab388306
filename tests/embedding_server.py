"""
An embedding server on a real socket, which misbehaves as it is told.

Each request takes the next answer off the list, or the well-behaved one when there is none. An
answer is a function that writes to the connection itself, so it can be wrong in any way. What
waits, waits on `release`, which the end of the `with` block sets.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from elytron.embed.embedder import Embedder, EmbedderSettings
from elytron.embed.providers import make_embedder
from elytron.errors import EmbedderUnavailable

DIM = 8
SECRET_TEXT = "the safe's number is 4711"
KEY = "sk-very-secret-0815"
_WAIT_MAX_S = 20
_DRIPS = 3000  # a minute of them: longer than any client of a test is kept from leaving
Answer = Callable[["Exchange"], None]


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: Any


class Exchange:
    """One request at the server, and the ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, request: Request, server: "Server") -> None:
        self.request = request
        self.release = server.release
        self._left = server.left
        self._handler = handler

    def write(self, data: bytes) -> bool:
        """Send raw bytes; returns whether the other side still took them."""
        try:
            self._handler.wfile.write(data)
            self._handler.wfile.flush()
        except OSError:
            self._left.set()
            self.hang_up()
            return False
        return True

    def head(self, status: int, headers: dict[str, str]) -> bool:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return self.write(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode())

    def send(self, status: int, body: bytes, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.head(status, {"Content-Length": str(len(body)), **named})
        self.write(body)

    def hang_up(self) -> None:
        self._handler.close_connection = True


@dataclass
class Server:
    """What was asked, what is to be answered, and whether a client left during an answer."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    connections: list[tuple[str, int]] = field(default_factory=list)


@contextmanager
def running() -> Iterator[Server]:
    """A server on a free port of this machine, gone at the end with all its threads."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _WAIT_MAX_S
        disable_nagle_algorithm = True  # else each answer in two parts takes 40 ms

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = Request(self.path, dict(self.headers), json.loads(body))
            server.requests.append(request)
            if self.client_address not in server.connections:
                server.connections.append(self.client_address)
            answer = server.answers.pop(0) if server.answers else well_behaved
            answer(Exchange(self, request, server))

        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = False  # so that the end waits for them
        listening.handle_error = lambda *args: None  # clients hang up here on purpose
        server = Server(f"http://127.0.0.1:{listening.server_address[1]}")
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            listening.shutdown()
            thread.join(_WAIT_MAX_S)


def at(server: Server, spec: str, **settings: Any) -> Embedder:
    """An embedder that asks this server."""
    return make_embedder(spec, settings=EmbedderSettings(**{"url": server.url, **settings}))


def refusal(
    embedder: Embedder, texts: Sequence[str] = (SECRET_TEXT,), kind: str = "document"
) -> EmbedderUnavailable:
    """The error of one call, which names the embedder and shows neither texts nor keys."""
    with pytest.raises(EmbedderUnavailable) as caught:
        embedder.embed(list(texts), kind)
    message = str(caught.value)
    assert embedder.name in message or embedder.name.partition(":")[0] in message
    assert "4711" not in message
    assert KEY not in message
    return caught.value


def vector(text: str, *, dim: int = DIM) -> list[float]:
    """Some numbers that depend on the text alone."""
    digest = hashlib.shake_128(text.encode()).digest(dim)
    return [byte / 128 - 1.001 for byte in digest]


def well_behaved(exchange: Exchange) -> None:
    """As Ollama or as OpenAI would, by the path."""
    json_of(answer_to(exchange.request))(exchange)


def answer_to(request: Request, *, dim: int = DIM) -> dict[str, Any]:
    rows = [vector(text, dim=dim) for text in request.body["input"]]
    if request.path.endswith("/api/embed"):
        return {"model": request.body["model"], "embeddings": rows}
    data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
    return {"object": "list", "model": request.body["model"], "data": data}


def altered(change: Callable[[dict[str, Any]], Any], *, dim: int = DIM) -> Answer:
    """The right answer after *change*, which alters it or returns another."""

    def answer(exchange: Exchange) -> None:
        right = answer_to(exchange.request, dim=dim)
        json_of(change(right) or right)(exchange)

    return answer


def json_of(value: Any) -> Answer:
    return raw(json.dumps(value).encode())


def raw(body: bytes, **headers: str) -> Answer:
    return lambda exchange: exchange.send(200, body, **headers)


def status(code: int, body: bytes = b"{}", **headers: str) -> Answer:
    return lambda exchange: exchange.send(code, body, **headers)


def hang(exchange: Exchange) -> None:
    """Takes the request and says nothing."""
    exchange.release.wait(_WAIT_MAX_S)
    exchange.hang_up()


def drip_head(exchange: Exchange) -> None:
    """The right answer, with headers that come a byte at a time, for a minute."""
    drip(exchange, f"HTTP/1.1 200 OK\r\nX-Slow: {'x' * _DRIPS}\r\n".encode())
    well_behaved_rest(exchange)


def drip_body(exchange: Exchange) -> None:
    """The right answer, after white space that comes a byte at a time, for a minute."""
    body = json.dumps(answer_to(exchange.request)).encode()
    exchange.head(200, {"Content-Length": str(len(body) + _DRIPS)})
    drip(exchange, b" " * _DRIPS)
    exchange.write(body)


def drip_chunk_length(exchange: Exchange) -> None:
    """The right answer in one chunk, whose length comes a digit at a time, for a minute."""
    body = json.dumps(answer_to(exchange.request)).encode()
    exchange.head(200, {"Transfer-Encoding": "chunked"})
    drip(exchange, b"0" * _DRIPS)
    exchange.write(f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")


def drip_until_closed(exchange: Exchange) -> None:
    """The right answer without a length, dripped: an end of the connection is its only end."""
    body = json.dumps(answer_to(exchange.request)).encode()
    exchange.head(200, {"Connection": "close"})
    exchange.write(body)
    drip(exchange, b" " * _DRIPS)
    exchange.hang_up()


def drip(exchange: Exchange, data: bytes) -> None:
    for byte in data:
        if exchange.release.wait(0.02) or not exchange.write(bytes([byte])):
            return


def well_behaved_rest(exchange: Exchange) -> None:
    body = json.dumps(answer_to(exchange.request)).encode()
    exchange.write(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


def endless(exchange: Exchange) -> None:
    """A body in chunks that does not end before the other side has had enough."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    exchange.head(200, {"Transfer-Encoding": "chunked"})
    while not exchange.release.is_set() and exchange.write(chunk):
        continue


def broken_off(exchange: Exchange) -> None:
    """Half of the body that was promised, and then the end of the connection."""
    body = json.dumps(answer_to(exchange.request)).encode()
    exchange.head(200, {"Content-Length": str(len(body))})
    exchange.write(body[: len(body) // 2])
    exchange.hang_up()


def not_http(exchange: Exchange) -> None:
    """Something that is no HTTP at all."""
    exchange.write(b"220 mail.example ESMTP\r\n")
    exchange.hang_up()
