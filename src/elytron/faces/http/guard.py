"""
Guard: what is looked at before any route is, for HTTP and for web sockets.

Which host the request was meant for (against DNS rebinding), which page sent it (against
cross-site requests), who asks, how often, how large it is, and how long it takes to arrive.
"""

import asyncio
import contextlib
import logging
import time
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from elytron.errors import (
    AccessDenied,
    Busy,
    Closed,
    ElytronError,
    InvalidArgument,
    OutcomeUnknown,
)
from elytron.faces.http import problems
from elytron.faces.http.limits import Limits
from elytron.faces.http.origins import ADDRESSES, checked_origin, host_name, is_address
from elytron.faces.http.tokens import ANYONE, Access, Tokens

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("elytron.http")

GUARDED = (
    "/v1",
    "/mcp",
    "/metrics",
)  # a token is asked for here; the dashboard has a log-in of its own
STREAMED = ("/v1/import_",)  # bodies that are read line by line, so their size has no bound
# Of a body to where no token is asked for, as the log-in: or strangers could take up the bytes that
# all bodies together may have.
_STRANGERS_MAX_BYTES = 256 * 1024
_BUCKETS_MAX = 10_000
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Refused(Exception):
    """A request that is answered here. Not an `ElytronError`: it carries its status."""

    def __init__(self, status: int, error: ElytronError) -> None:
        super().__init__(status, error)
        self.status = status
        self.error = error


class Rates:
    """How many requests each client may still send, refilled with time; the least recent go."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Whether *client* may send one more now."""
        now_s = self._clock()
        left, at_s = self._buckets.pop(client, (self._burst, now_s))
        left = min(self._burst, left + (now_s - at_s) * self._per_s)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now_s)
        if len(self._buckets) > _BUCKETS_MAX:
            self._buckets.popitem(last=False)
        return allowed


class Guard:
    """ASGI middleware around everything that is served."""

    def __init__(
        self,
        app: App,
        *,
        hosts: Iterable[str],
        origins: Iterable[str] = (),
        tokens: Tokens | None = None,
        limits: Limits,
        ending: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            hosts: the names, without a port, under which this server is asked; "*" for any,
                `ADDRESSES` for any address.
            origins: pages of other servers that may ask, as `https://example.org`.
            tokens: who may ask; None for anyone who can connect.
            ending: ends what would go on for ever, when the server wants to end.

        Raises:
            InvalidSetting: an origin is none.
        """
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(map(checked_origin, origins))
        self._tokens = tokens
        self._limits = limits
        self._rates = Rates(limits.max_requests_per_s)
        self._held_bytes = 0  # of the bodies that are here or announced
        self._ending = ending

    def end(self) -> None:
        """The server begins to end: what would go on for ever ends now."""
        if self._ending is not None:
            self._ending()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        sending = _Sending(scope, send, self._allowed_origin(headers))
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            if self._allowed_origin(headers) and _is_preflight(scope, headers):
                await _preflight(scope, receive, send, headers[b"origin"][0])
                return
            if scope["path"].startswith(GUARDED):
                scope["elytron.access"] = self._access(headers)
                scope["elytron.again"] = lambda: self._known(headers)
            self._check_rate(scope)
        except Refused as refusal:
            await _refuse(scope, receive, sending, refusal)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        await self._answer(scope, receive, sending, headers)

    async def _answer(
        self, scope: Scope, receive: Receive, sending: "_Sending", headers: dict[bytes, list[bytes]]
    ) -> None:
        held = _Held(self._limits.max_request_bytes)
        if not scope["path"].startswith(GUARDED):
            held.max_bytes = min(held.max_bytes, _STRANGERS_MAX_BYTES)
        try:
            if scope["path"] in STREAMED:
                receive = self._patient(receive)
            elif b"content-length" in headers:  # the parser keeps it to what it says
                self._hold(held, _length(headers))
            else:
                receive = self._bounded(receive, held)
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:  # the time to drain is over
            if not sending.started:
                await _refuse(scope, receive, sending, _cut_off(scope))
            raise
        except ClientDisconnect:
            log.debug("a client left before it was answered")
        except Exception as error:  # noqa: BLE001 - told to the log, and to the client
            refusal = error if isinstance(error, Refused) else _unexpected(scope, error)
            if not sending.started:
                await _refuse(scope, receive, sending, refusal)
            elif not sending.done:
                # The server breaks the connection off, so that no half passes for a whole.
                raise RuntimeError("an answer could not be sent whole") from None
        finally:
            self._held_bytes -= held.bytes

    def _hold(self, held: "_Held", more_bytes: int) -> None:
        """Take note of a body's bytes until it is answered; all bodies together have a bound."""
        if held.bytes + more_bytes > held.max_bytes:
            raise _too_large(held.max_bytes)
        if self._held_bytes + more_bytes > self._limits.max_received_bytes:
            raise Refused(503, Busy("too many large requests at once; nothing was done"))
        held.bytes += more_bytes
        self._held_bytes += more_bytes

    def _bounded(self, receive: Receive, held: "_Held") -> Receive:
        """*receive* with a bound on bytes. How long it may take is the connection's to say."""

        async def receiving() -> MutableMapping[str, Any]:
            message = await receive()
            self._hold(held, len(message.get("body", b"")))
            return message

        return receiving

    def _patient(self, receive: Receive) -> Receive:
        """
        *receive* with a bound on the time between two parts, while they are waited for: a client
        is not to blame for the time that its parts take to be written.
        """
        timeout_s = self._limits.request_timeout_s
        whole = False

        async def receiving() -> MutableMapping[str, Any]:
            nonlocal whole
            if whole:  # what comes now is that the client has gone, whenever that may be
                return await receive()
            try:
                async with asyncio.timeout(timeout_s):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, Busy(f"nothing came for {timeout_s:g} s")) from None
            whole = not message.get("more_body", False)
            return message

        return receiving

    def _allowed_origin(self, headers: dict[bytes, list[bytes]]) -> bytes | None:
        """The page elsewhere that sent this and may read the answer, if it was one."""
        if not self._origins or b"origin" not in headers:
            return None
        origin = headers[b"origin"][0]
        return origin if origin.decode("latin-1").lower() in self._origins else None

    def _check_host(self, headers: dict[bytes, list[bytes]]) -> None:
        hosts = headers.get(b"host", [])
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        known = name is not None and (
            name in self._hosts
            or "*" in self._hosts
            or (ADDRESSES in self._hosts and is_address(name))
        )
        if not known:
            raise Refused(
                403,
                AccessDenied("this server does not go by that name; `--allow-host NAME` adds one"),
            )

    def _check_origin(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> None:
        """A browser says where a page came from; who says nothing is no browser."""
        refusal = Refused(
            403,
            AccessDenied("a page of another site may not ask; `--allow-origin URL` lets one"),
        )
        origins = headers.get(b"origin", [])
        if len(origins) > 1:
            raise refusal
        if origins:
            origin = origins[0].decode("latin-1").lower()
            own = origin.partition("://")[2] == headers[b"host"][0].decode("latin-1").lower()
            if not own and origin not in self._origins:
                raise refusal
            return
        site = headers.get(b"sec-fetch-site", [b"none"])[0]
        followed = (
            scope["type"] == "http"
            and scope["method"] in ("GET", "HEAD")
            and headers.get(b"sec-fetch-mode") == [b"navigate"]
            and not scope["path"].startswith(GUARDED)
        )
        if site in (b"cross-site", b"same-site") and not followed:
            raise refusal

    def _access(self, headers: dict[bytes, list[bytes]]) -> Access:
        access = self._known(headers)
        if access is None:
            raise Refused(
                401, AccessDenied("send a token of this server's, as `Authorization: Bearer ...`")
            )
        return access

    def _known(self, headers: dict[bytes, list[bytes]]) -> Access | None:
        """What the token in these headers allows; None for none, and for one that is unknown."""
        if self._tokens is None:
            return ANYONE
        given = headers.get(b"authorization", [])
        scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        try:
            return self._tokens.access(token.strip().decode("latin-1"))
        except ElytronError as error:
            log.error(  # noqa: TRY400 - with each request, and the code says it all
                "the token file cannot be used, so nobody is let in: %s", error.code
            )
            return None

    def _check_rate(self, scope: Scope) -> None:
        access: Access = scope.get("elytron.access", ANYONE)
        address = (scope.get("client") or ("", 0))[0]
        who = f"address {address}" if access is ANYONE else f"token {access.name}"
        if scope["path"].startswith(GUARDED) and not self._rates.take(who):
            limit = self._limits.max_requests_per_s
            raise Refused(
                429,
                Busy(f"more than {limit:g} requests a second; wait, or raise --max-requests-per-s"),
            )


class _Sending:
    """*send* with the headers for browsers; knows how far the answer is."""

    __slots__ = ("_allowed", "_scope", "_send", "done", "started")

    def __init__(self, scope: Scope, send: Send, allowed: bytes | None) -> None:
        self._scope = scope
        self._send = send
        self._allowed = allowed
        self.started = self.done = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = _with_ours(message.get("headers", ()), self._allowed)
        else:
            self.done = not message.get("more_body", False)
        try:
            await self._send(message)
        except RuntimeError:
            if not _has_gone(self._scope):
                raise
            raise ClientDisconnect from None  # while this was under way


@dataclass(slots=True)
class _Held:
    """The bytes of one request's body that are counted, and how many there may be."""

    max_bytes: int
    bytes: int = 0


def _length(headers: dict[bytes, list[bytes]]) -> int:
    """What a request says of its body's size, which the parser has found to be a number."""
    digits = headers[b"content-length"][0].strip()
    return int(digits[:20]) if digits.isdigit() else 0


def _unexpected(scope: Scope, error: Exception) -> Refused:
    """A fault of ours. What the exception says is left out: it may hold what was sent."""
    places = [
        f"{step.filename}:{step.lineno}" for step in traceback.extract_tb(error.__traceback__)
    ]
    log.error(
        "%r failed with %s at %s",
        scope["path"],
        type(error).__name__,
        " < ".join(places[-5:][::-1]),
    )
    return Refused(500, ElytronError("an unexpected error; see the server's log"))


def _cut_off(scope: Scope) -> Refused:
    """A request that is waited for no longer; what it began to write goes on without it."""
    if scope["method"] in ("GET", "HEAD") or not scope.get("elytron.writes", True):
        return Refused(503, Closed("the server has ended"))
    return Refused(
        503,
        OutcomeUnknown(
            "the server ended before this was answered; it may or may not be done: look, or do it"
            " again"
        ),
    )


def _too_large(limit_bytes: int) -> Refused:
    return Refused(
        413,
        InvalidArgument(
            f"the request has more than {limit_bytes:,} bytes; send less at once, import it as"
            " lines, or raise --max-request-mb"
        ),
    )


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def _has_gone(scope: Scope) -> bool:
    """Whether the connection is closed, as far as the server tells."""
    is_closing: Callable[[], bool] | None = scope.get("elytron.is_closing")
    return is_closing is not None and is_closing()


def _with_ours(
    headers: Iterable[tuple[bytes, bytes]], allowed: bytes | None
) -> list[tuple[bytes, bytes]]:
    """An answer's headers with those for browsers, where it does not say otherwise itself."""
    found = list(headers)
    names = {name.lower() for name, _ in found}
    found += [header for header in _HEADERS if header[0] not in names]
    if allowed is not None:
        found += [(b"access-control-allow-origin", allowed), (b"vary", b"Origin")]
    return found


def _is_preflight(scope: Scope, headers: dict[bytes, list[bytes]]) -> bool:
    asks = b"access-control-request-method" in headers
    return asks and scope["type"] == "http" and scope["method"] == "OPTIONS"


async def _preflight(scope: Scope, receive: Receive, send: Send, origin: bytes) -> None:
    """Tell the browser of a page that may ask what it may send."""
    allowed = {
        "Access-Control-Allow-Origin": origin.decode("latin-1"),
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
        "Access-Control-Max-Age": "600",
        "Vary": "Origin",
        "Connection": "close",  # a body, which none has, would not be read
    }
    await Response(None, 204, allowed)(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: Refused) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    with contextlib.suppress(ClientDisconnect):  # there is nobody to be told
        await told(refusal)(scope, receive, send)


def told(refusal: Refused) -> Response:
    """A refusal as an answer, after which the connection is closed."""
    response = problems.response(refusal.error, status=refusal.status)
    # What has not been read yet of the body cannot be told from a next request.
    response.headers["Connection"] = "close"
    for name, value in _HEADERS:
        response.headers[name.decode()] = value.decode()
    return response
