"""
Calls: which verbs travel over HTTP, and how.

One table for both ends. The arguments of a call and what it returns are those of the verb itself,
read from its signature, so that there is no second list to keep. Values are checked where they
always are, by the verb: an error says the same from afar.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Required, get_type_hints

from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from elytron.agent import Agent
from elytron.errors import InvalidArgument
from elytron.records import Message
from elytron.store import Store

PROTOCOL = 1  # raised when an older client could misread an answer
PREFIX = "/v1"
TOO_MANY = "too many connections"  # how a server begins that looked at no request, as text
# What a caller's program is asked, or told, on its own side.
_LOCAL = frozenset({"on_progress", "count_tokens"})


@dataclass(frozen=True, slots=True)
class Call:
    """
    One verb. `writes`: it needs a token that may write. `repeats`: doing it twice leaves the same
    as doing it once, and the answer is the same or says so, so that it may be asked again when its
    answer was lost. `long`: it may take more than some seconds, and then tells how far it is.
    `named`: which argument of a verb of the store is an agent's name, which the address has;
    `beside`: which other one is one too, so that a token has to be for both.
    """

    verb: str
    writes: bool = False
    repeats: bool = True
    long: bool = False
    of_store: bool = False
    named: str | None = None
    beside: str | None = None

    @property
    def path(self) -> str:
        return f"{PREFIX}/{'store/' if self.of_store else ''}{self.verb}"

    @property
    def function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(Store if self.of_store else Agent, self.verb)
        return function

    @property
    def signature(self) -> inspect.Signature:
        return _signature(self.function)


_READING = (
    "exists", "history", "get", "sessions", "recall", "context", "usage", "memories",
    "get_memory", "relations", "concepts", "concept", "related", "path",
)  # fmt: skip
_SETTING = ("edit", "edit_memory", "set_concept", "pin", "unpin", "set_importance")
_REMOVING = ("delete", "delete_session", "delete_memory", "delete_concept", "unrelate")
_UPKEEP = (
    "archive",
    "enforce_limits",
    "emergency_cleanup",
    "restore",
    "reclaim",
    "forget",
    "clear",
)
_REBUILDING = ("flush", "check", "reindex", "rebuild_graph", "embed", "reembed")

AGENT_CALLS = {
    call.verb: call
    for call in (
        *(Call(verb) for verb in _READING),
        Call("cypher"),
        # Each has its id from the client, so a second time finds what the first has written.
        *(Call(verb, writes=True) for verb in ("save", "save_many", "remember")),
        *(Call(verb, writes=True) for verb in _SETTING),
        Call("relate", writes=True, repeats=False),  # with `replaces` a second time replaces more
        Call("close_memory", writes=True, repeats=False),  # "now" is later the second time
        *(Call(verb, writes=True, repeats=False) for verb in _REMOVING),
        *(Call(verb, writes=True, repeats=False, long=True) for verb in _UPKEEP),
        *(Call(verb, writes=True, long=True) for verb in _REBUILDING),
    )
}
STORE_CALLS = {
    call.verb: call
    for call in (
        Call("agents", of_store=True),
        Call("usage", of_store=True),
        Call("delete", writes=True, repeats=False, long=True, of_store=True, named="name"),
        Call(
            "rename",
            writes=True,
            repeats=False,
            long=True,
            of_store=True,
            named="old",
            beside="new",
        ),
        Call("cleanup", writes=True, long=True, of_store=True),
    )
}
# Verbs with a way of their own: in pieces, or made of other verbs on the caller's side.
STREAMED = frozenset({"messages", "export", "import_"})
MADE_OF_OTHERS = frozenset({"submit"})


class SavedMessage(TypedDict, total=False):
    """One message of `save_many`, as its mappings are."""

    role: Required[str]
    content: Required[str]
    session: str | None
    user: str | None
    at: datetime | None
    metadata: dict[str, Any] | None
    id: str | None
    importance: float | None
    pinned: bool
    embed: bool | None


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


@cache
def described(call: Call) -> "TypeAdapter[Any]":
    """A verb's arguments as a type, from which their JSON schema is made."""
    hints = get_type_hints(call.function)
    fields: dict[str, Any] = {}
    for name, parameter in _sent(call).items():
        hint = _on_the_wire(hints[name])
        fields[name] = Required[hint] if parameter.default is parameter.empty else hint
    title = "".join(word.capitalize() for word in call.verb.split("_"))
    # Made at run time, which a type checker does not follow.
    make: Any = TypedDict
    made = make(f"{title}Arguments", fields, total=False)
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(made))


def read(call: Call, data: bytes) -> dict[str, Any]:
    """
    The keyword arguments in a request's JSON. What their values may be, the verb says itself.

    Raises:
        InvalidArgument: it is no JSON object, or names what the verb does not take.
    """
    try:
        members = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the request is not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the request is not JSON: {error!s:.200}") from None
    return checked(call, members)


def checked(call: Call, members: object) -> dict[str, Any]:
    """
    The same of what was read already.

    Raises:
        InvalidArgument: as `read`.
    """
    if not isinstance(members, dict):
        raise InvalidArgument(f"the request has to be an object; got {type(members).__name__}")
    parameters = _sent(call)
    for name in members:
        if name not in parameters:
            known = ", ".join(parameters) or "no arguments"
            raise InvalidArgument(f"{name!r:.50} is unknown; `{call.verb}` takes {known}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in members:
            raise InvalidArgument(f"`{name}` is missing")
    for name in times(call):
        if isinstance(members.get(name), str):
            members[name] = as_time(name, members[name])
    if call.verb == "save_many" and isinstance(members["messages"], list):
        for message in members["messages"]:
            if isinstance(message, dict) and isinstance(message.get("at"), str):
                message["at"] = as_time("at", message["at"])
    return members


def as_time(name: str, text: str) -> datetime:
    """
    A time as JSON has it.

    Raises:
        InvalidArgument: it is not ISO 8601.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(
            f"{name} has to be a time in ISO 8601, as 2026-03-02T18:04:00+01:00"
        ) from error


@cache
def times(call: Call) -> tuple[str, ...]:
    """Which of a verb's arguments are times."""
    hints = get_type_hints(call.function)
    return tuple(name for name in _sent(call) if hints[name] in (datetime, datetime | None))


@cache
def _sent(call: Call) -> Mapping[str, inspect.Parameter]:
    """The arguments that travel."""
    here = {"self", call.named, *_LOCAL}
    parameters = call.signature.parameters
    return {name: parameter for name, parameter in parameters.items() if name not in here}


@cache
def result(call: Call) -> "TypeAdapter[Any]":
    """What reads an answer's JSON as the verb's own records."""
    return TypeAdapter(get_type_hints(call.function)["return"])


def _on_the_wire(hint: Any) -> Any:
    """A parameter's type where what is abstract has to be something in JSON."""
    if hint == Iterable[Mapping[str, Any] | Message]:
        return list[SavedMessage]
    if hint == Iterable[str]:
        return list[str]
    if hint == (Iterable[str] | None):
        return list[str] | None
    if hint == (Iterable[str] | str | None):
        return list[str] | str | None
    if hint in (Mapping[str, Any] | None, Mapping[str, Any]):
        return dict[str, Any] | None
    return hint
