"""App: the store behind HTTP, put together: routes, health, the dashboard, and the guard."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import elytron
from elytron.aio import AsyncStore
from elytron.errors import ElytronError, InvalidArgument, NotFound
from elytron.faces.http import descriptions, health, problems, verbs
from elytron.faces.http.asked import JSON, NDJSON, Asked, encoded
from elytron.faces.http.descriptions import AGENT, operation
from elytron.faces.http.events import EVENT_STREAM, INTERVAL_RANGE_S, INTERVAL_S, Events
from elytron.faces.http.guard import Guard, Refused, told
from elytron.faces.http.limits import Limits
from elytron.faces.http.routes import Answer, Route, Routes
from elytron.faces.http.tokens import Tokens
from elytron.faces.http.transfers import Exports, Imports
from elytron.remote.admitting import LIMITS
from elytron.remote.calls import PREFIX, PROTOCOL

_FLAG = {"type": "boolean", "default": False}
_LINES = {NDJSON: {"schema": {"type": "string"}}}


def create_app(
    store: AsyncStore,
    *,
    hosts: Iterable[str],
    origins: Iterable[str] = (),
    tokens: Tokens | None = None,
    limits: Limits | None = None,
    dashboard: bool = False,
) -> Guard:
    """
    An ASGI application that serves *store*. Whoever opened it closes it, once nothing is served.

    Args:
        hosts: under which names it is asked; others are refused.
        origins: pages elsewhere that may ask.
        tokens: who may ask; None for anyone who can connect.
        dashboard: show the store at `/` too.
    """
    limits = limits or Limits()
    events = Events(store, listeners_max=limits.max_streams)
    routes = [
        *verbs.routes(store),
        *_transfers(store, limits),
        _events(events),
        _hello(store),
        *health.routes(store),
    ]
    document = encoded(descriptions.document(routes, tokens=tokens is not None))

    async def openapi(_asked: Asked) -> Response:
        return Response(document, media_type=JSON)

    routes.append(Route("/openapi.json", openapi, "GET", head=True))
    rest = _rest(store, tokens, dashboard=dashboard)
    return Guard(
        Routes(routes, rest),
        hosts=hosts,
        origins=origins,
        tokens=tokens,
        limits=limits,
        ending=events.end,
    )


def _transfers(store: AsyncStore, limits: Limits) -> Iterable[Route]:
    exports = Exports(store, at_once_max=limits.max_streams)
    imports = Imports(store)
    out = [AGENT, _parameter("archived", _FLAG, "Those in the archive too, first.")]
    yield _route("export", exports.export, "GET", parameters=out, answers=_LINES)
    yield _route("messages", exports.messages, parameters=out, answers=_LINES)
    yield _route(
        "import_",
        imports.import_,
        parameters=[AGENT, _parameter("skip_bad", _FLAG, "Pass over bad lines, and report them.")],
        body={"required": True, "content": _LINES},
        answers={JSON: {"schema": {"type": "object"}}},
    )


def _events(events: Events) -> Route:
    low, high = INTERVAL_RANGE_S
    interval = {"type": "number", "minimum": low, "maximum": high, "default": INTERVAL_S}
    return _route(
        "events",
        events.answer,
        "GET",
        parameters=[
            {**AGENT, "required": False},
            _parameter("interval_s", interval, "Seconds between two looks."),
        ],
        answers={EVENT_STREAM: {"schema": {"type": "string"}}},
    )


def _hello(store: AsyncStore) -> Route:
    async def hello(asked: Asked) -> Response:
        """The server's version, and what the token that was sent may do."""
        access = asked.access
        agents = None if access.agents is None else sorted(access.agents)
        answer = {
            "version": elytron.__version__,
            "protocol": PROTOCOL,
            "writes": access.writes,
            "agents": agents,
            "limits": {name: getattr(store.config, name) for name in LIMITS},
        }
        return Response(encoded(answer), media_type=JSON)

    return _route("hello", hello, "GET", answers={JSON: {"schema": {"type": "object"}}})


def _route(name: str, answer: Answer, method: str = "POST", **described: Any) -> Route:
    doc = inspect.getdoc(answer) or name
    told_of = operation(doc, id=name, tag="streams", **described)
    return Route(f"{PREFIX}/{name}", answer, method, told_of)


def _parameter(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _rest(store: AsyncStore, tokens: Tokens | None, *, dashboard: bool) -> Starlette:
    """What is no route: the dashboard, and the answer that there is nothing."""
    handlers: dict[Any, Callable[..., Any]] = {
        HTTPException: _http_told,
        Refused: _refused,
        Exception: _unexpected,
    }
    if not dashboard:
        return Starlette(exception_handlers=handlers)
    from fastapi import FastAPI

    from elytron.faces.dashboard import attach

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, exception_handlers=handlers)
    attach(app, store, tokens=tokens)
    return app


async def _http_told(_request: Request, error: HTTPException) -> Response:
    """What the framework refuses by itself: an unknown path, another method."""
    if error.status_code == 404:
        return problems.response(NotFound("there is nothing at this address; see /openapi.json"))
    answer = problems.response(InvalidArgument(str(error.detail)), status=error.status_code)
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


async def _refused(_request: Request, refusal: Refused) -> Response:
    return told(refusal)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return problems.response(ElytronError("an unexpected error; see the server's log"))
