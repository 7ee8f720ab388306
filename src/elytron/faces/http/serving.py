"""
Serving: a socket, the server on it, and how that ends.

On SIGTERM or Ctrl-C it stops to accept, lets the requests under way end within
`drain_timeout_s`, and returns; whoever opened the store then closes it, which writes what is
queued. A second signal ends the process at once: what was confirmed is durable, the rest is not.
"""

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn

from elytron.errors import InvalidSetting, Unavailable
from elytron.faces.http.connections import bounded
from elytron.faces.http.limits import Limits
from elytron.faces.http.origins import ADDRESSES, checked_host

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
KEEP_ALIVE_S = 75  # an idle connection is kept; proxies keep theirs for 60 s
_BACKLOG = 1024
_SOCKET_MAX_BYTES = 1 << 20  # of one message on a web socket
_SOCKET_QUEUE_MAX = 16
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
ENDED_HARD = 130


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket: where it is, and by which names it may be asked."""

    socket: socket.socket
    url: str
    hosts: frozenset[str]


def listen(host: str, port: int, *, guarded: bool, hosts: Iterable[str] = ()) -> Listener:
    """
    Bind *host* and *port*, 0 for any free one.

    Args:
        guarded: tokens are asked for, without which only this machine may ask.
        hosts: further names under which it will be asked.

    Raises:
        InvalidSetting: it is no address, or one for other machines without tokens.
        Unavailable: the port is taken, or the address is not of this machine.
    """
    names = set(map(checked_host, hosts))
    family, where = _resolved(host, port)
    address = ipaddress.ip_address(where[0].partition("%")[0])
    if not (address.is_loopback or guarded):
        raise InvalidSetting(
            f"{host} can be reached from other machines, and no token is asked for; give"
            " --token-file (see `elytron token add`), or bind 127.0.0.1"
        )
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = "; choose another with `--port`, or end what listens there"
        raise Unavailable(f"{host} port {port} cannot be bound: {error.strerror}{hint}") from error
    bound.setblocking(False)
    shown = f"[{address}]" if address.version == 6 else str(address)
    names |= {host.lower(), shown}
    if address.is_loopback:
        names |= LOOPBACK_NAMES
    elif address.is_unspecified:
        # A page that was rebound comes under a name of its own; an address cannot be.
        names |= {*LOOPBACK_NAMES, ADDRESSES}
    url = f"http://{shown}:{bound.getsockname()[1]}"
    return Listener(bound, url, frozenset(names))


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    wrong = InvalidSetting(f"--host has to be an address of this machine; got {host!r:.100}")
    if not host:
        raise wrong
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise wrong from error
    # One of them; whoever asks `localhost` by IPv6 first goes on to IPv4.
    family, *_, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, where


class Server(uvicorn.Server):
    """Uvicorn's server with limits on each connection, and another way of ending."""

    def __init__(
        self,
        app: Any,
        limits: Limits,
        *,
        sockets: bool = False,
        ready: Callable[[], None] | None = None,
        ending: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            sockets: web sockets are served too.
            ready: called once connections are answered.
            ending: called when the end begins; ends what would go on for ever.
        """
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded(
                    connections_max=limits.max_requests, timeout_s=limits.request_timeout_s
                ),
                ws="websockets-sansio" if sockets else "none",
                ws_max_size=_SOCKET_MAX_BYTES,
                ws_max_queue=_SOCKET_QUEUE_MAX,
                lifespan="on",
                log_config=None,
                # It logs exceptions with what they say, which may be what was sent; ours do not.
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,  # anybody could say to be somebody else
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=limits.drain_timeout_s,  # type: ignore[arg-type]
            )
        )
        self._ready = ready
        self._ending = ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as error:  # uvicorn would end the process so, without a word
            raise Unavailable(
                "the server could not start: a part of it failed as it began"
            ) from error
        if self.started and self._ready is not None:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._ending is not None:
            self._ending()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.should_exit:
            told = "elytron: ended at once; what was confirmed is kept, the rest may be lost\n"
            os.write(sys.stderr.fileno(), told.encode())
            os._exit(ENDED_HARD)
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: uvicorn would give signals back, and raise them again, before the store ends."""
        yield


def run(server: Server, listener: Listener, *, close: Callable[[], Awaitable[None]]) -> None:
    """
    Serve until the first SIGTERM or Ctrl-C, or until `server.should_exit` is set; then *close*.

    Signals are looked after only on the main thread.
    """
    with _signals(server), asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_serve(server, listener, close))


async def _serve(server: Server, listener: Listener, close: Callable[[], Awaitable[None]]) -> None:
    try:
        await server.serve(sockets=[listener.socket])
    finally:
        await close()


@contextlib.contextmanager
def _signals(server: Server) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {sig: signal.signal(sig, server.handle_exit) for sig in _SIGNALS}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
