"""Sending: the arguments of a call as the bytes of its request. Pure but for the clock and ids."""

import json
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from elytron.errors import InvalidArgument
from elytron.remote import calls
from elytron.remote.calls import Call
from elytron.write.admission import IdClock, check_aware, check_metadata


def encoded(call: Call, arguments: Mapping[str, Any]) -> bytes:
    """
    A request's JSON.

    Raises:
        InvalidArgument: a value that no JSON holds, or that would be another one there.
    """
    for name in calls.times(call):
        if arguments.get(name) is not None:
            check_aware(arguments[name], name)
    if arguments.get("metadata") is not None:
        check_metadata(arguments["metadata"])  # in JSON a tuple would pass for a list
    try:
        # Escaped: what no UTF-8 holds is refused over there, in the verb's own words.
        return json.dumps(arguments, default=_plain).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"`{call.verb}` got what cannot be sent: {error!s:.200}") from error


def line(message: Mapping[str, Any]) -> bytes:
    """A message that was admitted as a line of an import."""
    return json.dumps(message, default=_plain).encode("ascii") + b"\n"


def with_id(arguments: Mapping[str, Any], ids: IdClock) -> dict[str, Any]:
    """The same with an id, so that sending it twice writes it once."""
    if arguments.get("id") is not None:
        return dict(arguments)
    return {**arguments, "id": ids.next(time.time_ns() // 1000)}


def _plain(value: object) -> Any:
    """What JSON has no word for: times, and what is a mapping or a list in other clothes."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"a {type(value).__name__}")
