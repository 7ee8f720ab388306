"""
Http: many clients over streamable HTTP, behind the same guard as the HTTP server.

The guard looks at host, origin, token, size and rate. What is added here is for whom a token is,
and how what would go on for ever ends.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings

from elytron.errors import AccessDenied
from elytron.faces.http import problems
from elytron.faces.http.guard import App, Guard, Receive, Scope, Send
from elytron.faces.http.limits import Limits
from elytron.faces.http.serving import Listener, Server, run
from elytron.faces.http.tokens import Access, Tokens
from elytron.faces.mcp.server import Context, Face
from elytron.faces.mcp.tools import Profile

PATH = "/mcp"
SESSIONS_MAX = 1000
SESSION_IDLE_MAX_S = 1800.0
_LISTENS = (b"mcp-method", b"subscriptions/listen")  # the header of a stream that is asked for
_LOOK_S = 1.0  # between two looks at whether a stream's token is still in the file
LIMITS = Limits(max_request_mb=4, drain_timeout_s=10)


def serve_http(
    profile: Profile,
    listener: Listener,
    *,
    agent: str,
    tokens: Tokens | None,
    origins: Iterable[str] = (),
    ready: Callable[[], None] | None = None,
) -> None:
    """
    Serve until SIGTERM or Ctrl-C.

    Args:
        agent: whose memory it is, which a token has to be for.
        tokens: who may ask; None for anyone who can connect.
        origins: sites whose pages may ask.
        ready: called once connections are answered.
    """
    face = Face(profile, may_change=_may_change)
    app = face.server().streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=LIMITS.max_request_bytes,
        session_idle_timeout=SESSION_IDLE_MAX_S,
        max_sessions=SESSIONS_MAX,
        # The guard does this, for other names than those of loopback too.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    sessions = _Sessions(app, agent)

    def end() -> None:
        face.end()
        sessions.end()

    guard = Guard(sessions, hosts=listener.hosts, origins=origins, tokens=tokens, limits=LIMITS)
    run(Server(guard, LIMITS, ready=ready, ending=end), listener, close=_nothing)


async def _nothing() -> None:
    """The store is closed by whoever opened it."""


def _may_change(ctx: Context) -> bool:
    access: Access = ctx.request.scope["elytron.access"]
    return access.writes


class _Sessions:
    """ASGI middleware: a token opens its own agents only, and a session is its opener's only."""

    def __init__(self, app: App, agent: str) -> None:
        self._app = app
        self._agent = agent
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Tell every stream that stays open that its client has gone."""
        self._ended.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self._app(scope, receive, send)
            return
        access: Access = scope["elytron.access"]
        if not access.allows(self._agent, writes=False):
            refusal = AccessDenied("this token is not for this server's agent")
            await problems.response(refusal)(scope, receive, send)
            return
        token = AccessToken(token="", client_id=access.name, scopes=[])
        scope["user"] = AuthenticatedUser(token)
        if scope["method"] == "GET":  # a stream that lasts as long as its session
            receive = self._until_end(scope, receive)
        elif _LISTENS in scope["headers"]:  # the library refuses it over another method's body
            receive = _until_refused(scope, receive)
        await self._app(scope, receive, send)

    def _until_end(self, scope: Scope, receive: Receive) -> Receive:
        """What comes in, with the client gone at the end, and once its token is no more."""

        async def receiving() -> Any:
            return await _first(receive(), self._ended.wait(), _refused(scope))

        return receiving


def _until_refused(scope: Scope, receive: Receive) -> Receive:
    """
    What comes in, with the client gone once its token is no more; but first the whole body. How it
    ends with the server is the face's to say, which tells the client so.
    """
    whole = False

    async def receiving() -> Any:
        nonlocal whole
        if whole:
            return await _first(receive(), _refused(scope))
        message = await receive()
        whole = not message.get("more_body", False)
        return message

    return receiving


async def _first(received: Awaitable[Any], *ends: Awaitable[Any]) -> Any:
    """What is received, or that the client has gone, if something else ends sooner."""
    tasks = [asyncio.ensure_future(call) for call in (received, *ends)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    if tasks[0].done() and not tasks[0].cancelled():
        return tasks[0].result()
    return {"type": "http.disconnect"}


async def _refused(scope: Scope) -> None:
    """Wait until the token that came with a request is not in the file any more."""
    while scope["elytron.again"]() == scope["elytron.access"]:
        await asyncio.sleep(_LOOK_S)
