"""
Routes: which path is answered by what.

Every path is a constant, so one look into a table finds it. What is not in the table is the
*rest*'s: the dashboard, or nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from elytron.errors import ElytronError, InvalidArgument
from elytron.faces.http import problems
from elytron.faces.http.asked import Asked
from elytron.faces.http.guard import App, Receive, Scope, Send

Answer = Callable[[Asked], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """
    One path. `described` is its operation in the OpenAPI document; none for what is not told there.
    `head`: what it would answer can be asked for, too. `writes`: cut off, it may have been done.
    """

    path: str
    answer: Answer
    method: str = "POST"
    described: Mapping[str, Any] = field(default_factory=dict)
    head: bool = False
    writes: bool = True

    @property
    def methods(self) -> tuple[str, ...]:
        return (self.method, "HEAD") if self.head else (self.method,)


class Routes:
    """An ASGI application of routes."""

    def __init__(self, routes: list[Route], rest: App) -> None:
        self._routes = {route.path: route for route in routes}
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._rest(scope, receive, send)
            return
        scope["elytron.writes"] = route.writes
        asked = Asked(scope, receive)
        try:
            if scope["method"] not in route.methods:
                response = _other_method(route)
            else:
                response = await route.answer(asked)
        except ElytronError as error:
            response = problems.response(error)
        await response(scope, receive, send)


def _other_method(route: Route) -> Response:
    response = problems.response(
        InvalidArgument(f"{route.path} is asked with {route.method}"), status=405
    )
    response.headers["Allow"] = ", ".join(route.methods)
    # Its body is not read, so where the next request begins is not known.
    response.headers["Connection"] = "close"
    return response
