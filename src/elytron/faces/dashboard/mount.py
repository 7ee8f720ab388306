"""
Mount: the way from a server to the pages.

NiceGUI is one application in a process, whose pages are registered once. Here stands what each
dashboard puts before it: which paths are its own, who may have them, how many pages may be open,
and which socket may speak for which page.
"""

import contextlib
import logging
import time
from collections.abc import AsyncIterator, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI
from nicegui import Client, core, ui
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Message, Receive, Scope, Send

from elytron.aio import AsyncStore
from elytron.faces.dashboard import pages
from elytron.faces.dashboard.bounds import Bounds
from elytron.faces.dashboard.frame import FAVICON, KEY, Dashboard
from elytron.faces.dashboard.login import COOKIE, Login, login_path
from elytron.faces.dashboard.looks import Looks
from elytron.faces.dashboard.sessions import Sessions, SignedOut
from elytron.faces.http.tokens import Tokens

PAGES = frozenset(pages.PATHS)
PATHS = PAGES | {"/login", "/logout"}
_ASSETS = "/_nicegui/"
_SOCKET = "/_nicegui_ws/"
_RETRY_S = 10
_HISTORY_MAX = 100  # messages to a page that are kept for when its connection comes back
_LOOPBACK = ("127.0.0.1", "::1")
# NiceGUI's scripts are inline and evaluate the handlers that the server names; all else is ours.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval';"
        " style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self';"
        " connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not less: a browser that may not say where a form comes from sends "null" as its origin.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_log = logging.getLogger("elytron.dashboard")
_inner: list[FastAPI] = []  # NiceGUI's own application, set up once in a process


def mount(app: FastAPI, store: AsyncStore, *, tokens: Tokens | None, bounds: Bounds) -> None:
    """Put a dashboard into *app*; see `attach`."""
    sessions = Sessions(tokens, bounds, clock=time.monotonic)
    gate = _Gate(Dashboard(store, sessions, Looks(store, bounds), bounds))
    app.router.routes.append(_Paths(gate))
    outer = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(served: FastAPI) -> AsyncIterator[Any]:
        async with gate.running(), outer(served) as state:
            yield state

    app.router.lifespan_context = lifespan


class _Paths(BaseRoute):
    """The dashboard's paths and no others, so that what is unknown stays the server's to answer."""

    def __init__(self, gate: "_Gate") -> None:
        self._gate = gate

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope.get("path", "")
        if scope["type"] == "websocket":
            own = path.startswith(_SOCKET)
        else:
            own = path in PATHS or path.startswith((_ASSETS, _SOCKET))
        return (Match.FULL if own else Match.NONE), {}

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gate(scope, receive, send)


class _Gate:
    """Who may pass to NiceGUI."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._dashboard = dashboard
        self._login = Login(dashboard.sessions)
        self._available = False
        self._inner = _set_up()
        self._zipped = GZipMiddleware(self._inner, minimum_size=1000, compresslevel=6)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if core.app.is_started or core.app.is_starting:
            _log.warning("another dashboard runs in this process; this one is not available")
            yield
            return
        async with self._inner.router.lifespan_context(self._inner):
            self._available = True
            try:
                yield
            finally:
                self._available = False
                for client in list(Client.instances.values()):
                    client.delete()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        path = scope["path"]
        answer = _with_headers(send)
        if path in ("/login", "/logout"):
            await self._login(scope, receive, answer)
        elif not self._available:
            await _plain("this dashboard does not run; the server's log says why", 503)(
                scope, receive, answer
            )
        elif path in PAGES:
            await self._page(scope, receive, answer)
        elif path.startswith(_SOCKET) and not self._speaks_for_its_page(scope):
            await _plain("this socket is not of a page of yours", 403)(scope, receive, answer)
        else:
            await self._pass(scope, receive, answer)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _plain("pages are only read", 405)(scope, receive, send)
            return
        session = session_id(scope)
        try:
            self._dashboard.sessions.access(session)
            self._dashboard.sessions.use(session)
        except SignedOut:
            response = RedirectResponse(login_path(scope), 303)
            response.headers["Cache-Control"] = "no-store"
            await response(scope, receive, send)
            return
        most = self._dashboard.bounds.pages_max
        if len(Client.instances) >= most:
            text = f"{most} pages are open, the most there may be; close one and try again"
            await _plain(text, 503)(scope, receive, send)
            return
        await self._pass({**scope, KEY: (self._dashboard, session)}, receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._available and self._speaks_for_its_page(scope):
            await self._pass(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _speaks_for_its_page(self, scope: Scope) -> bool:
        """Whether a socket names a page that its own session has opened."""
        named = parse_qs(scope["query_string"].decode("latin-1")).get("client_id", [""])[0]
        if self._dashboard.sessions.tokens is None:
            return named in Client.instances
        session = session_id(scope)
        try:
            self._dashboard.sessions.access(session)
        except SignedOut:
            return False
        return named in Client.instances and self._dashboard.opened.get(named) == session

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        # On loopback it takes longer to compress than to send.
        near = scope.get("client") is None or scope["client"][0] in _LOOPBACK
        await (self._inner if near else self._zipped)(scope, receive, send)


def session_id(scope: Scope) -> str | None:
    """The session that a request's cookie names."""
    return HTTPConnection(scope).cookies.get(COOKIE)


def _plain(text: str, status: int) -> PlainTextResponse:
    headers = {"Cache-Control": "no-store"}
    if status == 503:
        headers["Retry-After"] = str(_RETRY_S)
    return PlainTextResponse(text + "\n", status, headers=headers)


async def _nothing_there(_request: Request, _error: Exception) -> PlainTextResponse:
    return _plain("there is nothing at this address", 404)


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return answer


def _set_up() -> FastAPI:
    """NiceGUI, with our pages; made on first use."""
    if not _inner:
        inner = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        ui.run_with(
            inner,
            title="Elytron",
            favicon=FAVICON,
            dark=None,
            language="en-US",
            tailwind=False,
            storage_secret=None,  # so that it keeps nothing, neither here nor in the browser
            show_welcome_message=False,
            binding_refresh_interval=None,
            message_history_length=_HISTORY_MAX,
            gzip_middleware_factory=None,
        )
        _watch_sockets()
        # Its own answer is a page that counts as open, and a line in the log with what was asked.
        core.app.add_exception_handler(404, _nothing_there)
        _inner.append(inner)
    return _inner[0]


def _watch_sockets() -> None:
    """Let a socket speak for the page alone that it shook hands for, and never into the log."""
    handlers = core.sio.handlers["/"]
    for event in ("event", "javascript_response", "ack"):
        core.sio.on(event, _only_for_its_page(handlers[event]))
    core.sio.on("log", _unheard)


def _only_for_its_page(handler: Any) -> Any:
    def handle(sid: str, message: object) -> None:
        if isinstance(message, MutableMapping) and message.get("client_id") in core.sio.rooms(sid):
            handler(sid, message)

    return handle


def _unheard(_sid: str, _message: object) -> None:
    """What a browser wants written into the server's log is not."""
