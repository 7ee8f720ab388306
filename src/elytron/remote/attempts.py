"""
Attempts: which call may be made again after what, and how long to wait before. Pure.

Asked again is: what never reached the server; what the server turned away unread; and where a
second time cannot do more than one, what may have reached it. A proxy that answers in a server's
place does not say which of these it was.
"""

from collections.abc import Iterator, Mapping
from urllib.parse import urlencode

from urllib3.exceptions import (
    ClosedPoolError,
    EmptyPoolError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.exceptions import ConnectTimeoutError as ConnectTimeout

from elytron.remote.calls import TOO_MANY

ATTEMPTS_MAX = 4
_FIRST_PAUSE_S = 0.1
_PAUSE_MAX_S = 5.0


class TooSlow(HTTPError):
    """An answer came in pieces, each in time, and had not come whole."""


UNSENT = (NewConnectionError, ConnectTimeout, EmptyPoolError)
SLOW = (ReadTimeoutError, TooSlow)
GIVEN_UP = (EmptyPoolError, ClosedPoolError)  # on this side, after as long as may be


def counted() -> Iterator[int]:
    """The numbers of the attempts that there may be, from 0."""
    return iter(range(ATTEMPTS_MAX))


def pause_failed(error: HTTPError, attempt: int, *, repeats: bool) -> float | None:
    """
    Seconds until the next attempt after there was no answer; None for no more of them.

    One that took its whole time is not asked again: it would take it once more.
    """
    if attempt + 1 >= ATTEMPTS_MAX or isinstance(error, SLOW + GIVEN_UP):
        return None
    return _pause_s(attempt) if repeats or isinstance(error, UNSENT) else None


def unread(status: int, data: bytes) -> bool:
    """Whether an answer says that nobody looked at the request: too many, or a server too full."""
    return status == 429 or (status == 503 and data.startswith(TOO_MANY.encode()))


def pause_refused(
    status: int, headers: Mapping[str, str], data: bytes, attempt: int, *, repeats: bool
) -> float | None:
    """
    Seconds until the next attempt after a status; None where its error is to be told.

    A 503 without JSON is a proxy's, which may have passed the request on. The store's own `Busy`
    has waited long enough.
    """
    told = headers.get("Content-Type", "").startswith("application/json")
    again = unread(status, data) or (status == 503 and not told and repeats)
    if attempt + 1 >= ATTEMPTS_MAX or not again:
        return None
    after = headers.get("Retry-After", "")
    asked_s = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else 0.0
    return min(_PAUSE_MAX_S, max(_pause_s(attempt), asked_s))


def query(params: Mapping[str, str]) -> str:
    """The query part of a URL; every name of an agent passes."""
    return urlencode(params)


def _pause_s(attempt: int) -> float:
    return min(_PAUSE_MAX_S, _FIRST_PAUSE_S * float(2**attempt))
