"""A store served for a test: in a thread of this process, or by `elytron serve` in another."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3

import elytron
from elytron.aio import AsyncStore
from elytron.faces.http import serving
from elytron.faces.http.app import create_app
from elytron.faces.http.limits import Limits
from elytron.faces.http.tokens import Tokens

WAIT_MAX_S = 60


@dataclass
class Served:
    """A store that is being served, and how to ask it."""

    url: str
    token: str | None = None
    store: elytron.Store | None = None  # where it is served by this process
    server: serving.Server | None = None
    process: "subprocess.Popen[str] | None" = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        fields: dict[str, str] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """
        One request, on a connection of its own.

        Args:
            body: bytes as they are, an iterator of them in chunks, anything else as JSON.
            fields: the query, as {"agent": "bob"}.
        """
        sent = {} if token is None and self.token is None else bearer(token or self.token or "")
        if body is not None and not isinstance(body, bytes | Iterator):
            body, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        query = "?" + urlencode(fields) if fields else ""
        with urllib3.PoolManager(retries=False, timeout=WAIT_MAX_S) as pool:
            return pool.request(
                method, f"{self.url}{path}{query}", body=body, headers=sent | (headers or {})
            )

    def call(self, verb: str, agent: str | None = "bob", /, **arguments: Any) -> Any:
        """A verb's answer; it has to be a good one."""
        path = f"/v1/store/{verb}" if agent is None else f"/v1/{verb}"
        fields = {} if agent is None else {"agent": agent}
        answer = self.request("POST", path, arguments, fields=fields)
        assert answer.status == 200, (answer.status, answer.data)
        return answer.json()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextlib.contextmanager
def served(
    folder: Path,
    *,
    tokens: Path | None = None,
    token: str | None = None,
    host: str = "127.0.0.1",
    hosts: Iterable[str] = (),
    origins: Iterable[str] = (),
    dashboard: bool = False,
    limits: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Served]:
    """
    Serve the store at *folder* from a thread of this process; it is closed at the end.

    Args:
        tokens: the file; *token* is what `Served.request` sends unless told otherwise.
        limits: of `Limits`.
        settings: of the store.
    """
    store = elytron.aio.open(folder, **settings)
    bounds = Limits(**(limits or {}))
    listener = serving.listen(host, 0, guarded=tokens is not None, hosts=hosts)
    app = create_app(
        store,
        hosts=listener.hosts,
        origins=origins,
        tokens=None if tokens is None else Tokens(tokens),
        limits=bounds,
        dashboard=dashboard,
    )
    started = threading.Event()
    server = serving.Server(app, bounds, sockets=dashboard, ready=started.set, ending=app.end)
    one = Served(listener.url, token, store._store, server)
    ended: list[BaseException] = []
    thread = threading.Thread(target=_run, args=(server, listener, store, ended, started))
    thread.start()
    try:
        assert started.wait(WAIT_MAX_S)
        if ended:
            raise ended[0]
        yield one
    finally:
        server.should_exit = True
        thread.join(WAIT_MAX_S)
        assert not thread.is_alive(), "the server does not end"
    if ended:
        raise ended[0]


def _run(
    server: serving.Server,
    listener: serving.Listener,
    store: AsyncStore,
    ended: list[BaseException],
    started: threading.Event,
) -> None:
    try:
        serving.run(server, listener, close=store.close)
    except BaseException as error:  # noqa: BLE001 - raised by the test's own thread
        ended.append(error)
    finally:
        started.set()


@contextlib.contextmanager
def serving_process(
    folder: Path, *arguments: str, token: str | None = None, dashboard: bool = False
) -> Iterator[Served]:
    """`elytron serve` on any free port; killed at the end if it is still there."""
    command = [sys.executable, "-W", "error", "-m", "elytron", "serve", "--store", str(folder)]
    extra = () if dashboard else ("--no-dashboard",)
    process = subprocess.Popen(
        [*command, "--port", "0", "--json", *extra, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("ELYTRON_")},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate(timeout=WAIT_MAX_S)[1])
        yield Served(json.loads(line)["url"], token, process=process)
    finally:
        process.kill()
        process.communicate(timeout=WAIT_MAX_S)


def raw(where: Served, data: bytes, *, end: bool = True) -> bytes:
    """
    Send bytes as they are; what came back until the server closed the connection.

    Args:
        end: say that nothing more will be sent.
    """
    with socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset counts as that."""
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        parts.append(b"")
    return b"".join(parts)


def head(method: str, path: str, *lines: str, host: str = "127.0.0.1") -> bytes:
    """The head of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", "")).encode()


def status(answer: bytes) -> int:
    """The status of the first answer in these bytes; 0 where there is none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
