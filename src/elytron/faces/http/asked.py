"""
Asked: one request, as a route sees it: who asks, for which agent, and what was sent.

Our own, since all routes have a fixed path, one method and one kind of body: what a framework
does for each request besides took longer than a save.
"""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect

from elytron.errors import AccessDenied, InvalidArgument
from elytron.faces import documents
from elytron.faces.http.guard import Receive, Refused, Scope
from elytron.faces.http.tokens import ANYONE, Access

JSON = "application/json"
NDJSON = "application/x-ndjson"
MSGPACK = "application/x-msgpack"
ASIDE = CapacityLimiter(2)  # threads for reading and writing JSON, so that the loop goes on
_INLINE_ITEMS = 50  # a longer answer is written there
_PARAMETERS_MAX = 20


class Asked:
    """One request. Its body can be read once."""

    __slots__ = ("_query", "_receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self._query: dict[str, str] | None = None

    @property
    def access(self) -> Access:
        """What whoever asks may do, as the guard found."""
        access: Access = self.scope.get("elytron.access", ANYONE)
        return access

    def still_allowed(self) -> bool:
        """Whether the token that came with it is still in the file; asked while a stream lasts."""
        again = self.scope.get("elytron.again")
        return again is None or again() == self.access

    def check_still(self) -> None:
        """
        Let what flows go on, or say why not; asked before each part.

        Raises:
            Refused: the token that came with it is not in the file any more.
        """
        if not self.still_allowed():
            raise Refused(401, AccessDenied("the token was removed, so this was broken off"))

    def check(self, agent: str | None, *, writes: bool) -> None:
        """
        Let it pass, or say why not.

        Raises:
            AccessDenied: the token is not for that agent, for the whole store, or for writing.
        """
        access = self.access
        if access.allows(agent, writes=writes):
            return
        if access.allows(agent, writes=False):
            raise AccessDenied("this token may only read")
        raise AccessDenied(
            "this token is not for the whole store"
            if agent is None
            else "this token is not for that agent"
        )

    def parameters(self, *known: str) -> dict[str, str]:
        """
        The query's parameters.

        Raises:
            InvalidArgument: one is not *known*, or is given twice, or is no UTF-8.
        """
        try:
            pairs = parse_qsl(
                self.scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_PARAMETERS_MAX,
            )
        except ValueError as error:  # a UnicodeError is one
            raise InvalidArgument(
                f"the query has to be at most {_PARAMETERS_MAX} parameters, in UTF-8 and escaped"
            ) from error
        found = dict(pairs)
        if len(found) < len(pairs):
            raise InvalidArgument("a parameter of the query is given twice; which one is meant?")
        for name in found:
            if name not in known:
                raise InvalidArgument(
                    f"the query has a parameter {name!r:.50}; known are: {', '.join(known) or '-'}"
                )
        return found

    def agent(self, parameters: dict[str, str], *, writes: bool) -> str:
        """
        The agent that the query names.

        Raises:
            InvalidArgument: it names none.
            AccessDenied: the token is not for it.
        """
        name = parameters.get("agent")
        if name is None:
            raise InvalidArgument("name an agent, as ?agent=bob")
        self.check(name, writes=writes)
        return name

    def header(self, name: bytes) -> str:
        """A header's value, empty where there is none; the first of several."""
        for known, value in self.scope["headers"]:
            if known == name:
                text: str = value.decode("latin-1")
                return text
        return ""

    def accepts(self, kind: str) -> bool:
        """Whether the client asks for answers of this kind by name."""
        return kind in self.header(b"accept")

    def sends(self, kind: str) -> bool:
        """Whether the client says that what it sends is of this kind."""
        return self.header(b"content-type").partition(";")[0].strip().lower() == kind

    def refuse_kind(self, *kinds: str) -> Refused:
        return Refused(
            415, InvalidArgument(f"a body has to be {' or '.join(kinds)}, and to say so")
        )

    async def parts(self) -> AsyncIterator[bytes]:
        """The body, as it arrives."""
        more = True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            if message.get("body"):
                yield message["body"]
            more = message.get("more_body", False)

    async def body(self) -> bytes:
        """The whole body, which the guard keeps within bounds."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            whole: bytes = message.get("body", b"")
            return whole
        parts = [message.get("body", b"")] if message["type"] == "http.request" else []
        if not parts:
            raise ClientDisconnect
        parts += [part async for part in self.parts()]
        return b"".join(parts)


def flag(parameters: dict[str, str], name: str) -> bool:
    """
    A parameter that is `true` or `false`, or is not there.

    Raises:
        InvalidArgument: it is something else.
    """
    value = parameters.get(name, "false")
    if value not in ("true", "false"):
        raise InvalidArgument(f"`{name}` is true or false; got {value!r:.50}")
    return value == "true"


def encoded(value: Any) -> bytes:
    """A record as its JSON document."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=documents.plain)
    return text.encode()


async def encoded_aside(value: Any) -> bytes:
    """The same, on a thread where it may take longer."""
    if isinstance(value, list | tuple) and len(value) > _INLINE_ITEMS:
        return await run_sync(encoded, value, limiter=ASIDE)
    return encoded(value)
