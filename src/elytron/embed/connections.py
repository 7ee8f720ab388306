"""
Connections: one request at a time over urllib3, under one deadline and one limit of bytes.

Imports urllib3, so it is itself imported on first use only. What a status or an answer means is
for `http`.
"""

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

_CHUNK_BYTES = 1 << 16
_KEPT_MAX = 2  # connections: the background's and a question's


class TooSlow(Exception):
    """The deadline passed before the last byte."""


class TooLong(Exception):
    """The answer says it is, or is, longer than allowed. `length_bytes` is what was seen of it."""

    def __init__(self, length_bytes: int) -> None:
        super().__init__(length_bytes)
        self.length_bytes = length_bytes


class Encoded(Exception):
    """The answer is compressed, which nobody asked for: a small one may unpack to any size."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` is None unless the status is 200: nobody reads what errors say."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class _Deadline:
    """
    Cuts the connection of the call it belongs to when the time is over.

    The timeouts of sockets begin anew with each byte, so a server that drips its headers, or the
    length of a chunk, would hold us for hours: only from outside can such a read be ended.
    """

    def __init__(self, timeout_s: float) -> None:
        self._ends_s = time.monotonic() + timeout_s
        self._lock = threading.Lock()
        self._connection: HTTPConnection | None = None
        self._socket: Any = None
        self._was_cut = False
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True

    @property
    def is_over(self) -> bool:
        """Whether the time is over. What was read by then may end anywhere, without an error."""
        return self._was_cut or time.monotonic() >= self._ends_s

    def watch(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._connection = connection
            # Kept beside it: a connection that will close forgets its socket, and reads on.
            self._socket = connection.sock

    def _cut(self) -> None:
        with self._lock:
            self._was_cut = True
            sock = self._socket or getattr(self._connection, "sock", None)
            if isinstance(sock, socket.socket):
                with suppress(OSError):  # closed, or not connected: nobody waits on it
                    # Not the SSL socket's own shutdown, which is not made for two threads.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def __enter__(self) -> "_Deadline":
        _call.deadline = self
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _call.deadline = None
        self._timer.cancel()
        with self._lock:
            self._connection = self._socket = None


class _Call(threading.local):
    """The deadline of the call that this thread is in: urllib3 hands nothing down to its sockets"""

    deadline: _Deadline | None = None


_call = _Call()


def _watch(connection: HTTPConnection) -> None:
    if _call.deadline is not None:
        _call.deadline.watch(connection)


class _WatchedHTTP(HTTPConnection):
    def connect(self) -> None:
        _watch(self)
        super().connect()

    def request(self, *args: Any, **named: Any) -> None:
        _watch(self)  # it may be one that was kept, and does not connect
        super().request(*args, **named)

    def getresponse(self) -> Any:
        _watch(self)
        return super().getresponse()


class _WatchedHTTPS(_WatchedHTTP, HTTPSConnection):
    """The same over TLS."""


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedHTTP


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPS


class Connections:
    """A few connections to one host, kept between calls. Two threads may post at once."""

    def __init__(self, *, proxy_url: str | None) -> None:
        """
        Args:
            proxy_url: "http://user:password@proxy:3128", or None for no proxy at all: urllib3
                reads none from the environment.
        """
        if proxy_url is None:
            self._pools = urllib3.PoolManager(1, maxsize=_KEPT_MAX)
        else:
            auth = urllib3.util.parse_url(proxy_url).auth
            self._pools = urllib3.ProxyManager(
                proxy_url,
                1,
                maxsize=_KEPT_MAX,
                proxy_headers=urllib3.make_headers(proxy_basic_auth=auth) if auth else None,
            )
        self._pools.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def post(
        self,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        limit_bytes: int,
    ) -> Answer:
        """
        Send *body* and read the answer. Follows no redirect and tries nothing twice.

        Args:
            timeout_s: from now to the last byte of the answer. Before the request is out it may
                be more: looking up the host's name is bounded by the system alone, and each of the
                host's addresses, and the TLS handshake, may take as long.
            limit_bytes: of the answer; a longer one is not read to its end.

        Raises:
            TooSlow, TooLong, Encoded.
            urllib3.exceptions.HTTPError, OSError: no connection, or it broke.
        """
        with _Deadline(timeout_s) as deadline:
            try:
                response = self._pools.urlopen(
                    "POST",
                    url,
                    body=body,
                    headers={"Accept-Encoding": "identity", **headers},
                    timeout=urllib3.Timeout(total=timeout_s),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
                try:
                    read = _read(response, deadline, limit_bytes)
                finally:
                    # Without effect once all was read: then it may already serve the next call.
                    response.close()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if deadline.is_over or _is_timeout(error):
                    raise TooSlow from error
                raise
            if deadline.is_over:
                raise TooSlow
        return Answer(response.status, response.headers, read)

    def close(self) -> None:
        """Close what is kept. A call under way closes its own connection at its end."""
        pools = self._pools.pools
        # Clearing only lets go of them, and an error that somebody keeps holds on to its pool.
        for pool in [pools.get(key) for key in pools.keys()]:  # noqa: SIM118 - not iterable
            if pool is not None:
                pool.close()
        pools.clear()


def _is_timeout(error: Exception) -> bool:
    """Whether a socket's own timeout came, which may be a moment before the deadline."""
    # A refused connection is a timeout to urllib3 too, by its place among the errors.
    return isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError) and not isinstance(
        error, urllib3.exceptions.NewConnectionError
    )


def _read(
    response: urllib3.BaseHTTPResponse, deadline: _Deadline, limit_bytes: int
) -> bytes | None:
    if response.status != 200:
        return None
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Encoded
    said = response.headers.get("Content-Length", "")
    if said.isdecimal() and len(said) < 20 and int(said) > limit_bytes:
        raise TooLong(int(said))
    parts, length_bytes = [], 0
    for part in response.stream(_CHUNK_BYTES, decode_content=False):
        length_bytes += len(part)
        if length_bytes > limit_bytes:
            raise TooLong(length_bytes)
        if deadline.is_over:
            raise TooSlow
        parts.append(part)
    return b"".join(parts)
