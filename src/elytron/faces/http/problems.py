"""
Problems: which status each kind of error gives, in one table, and how it is told.

The core knows nothing of HTTP; an error's `code` is all that is read here. The body is the same as
the command line's with `--json`: `error`, `message`, and whether to try again.
"""

import json
from typing import Any

from starlette.responses import Response

from elytron.errors import (
    AccessDenied,
    Busy,
    Closed,
    Conflict,
    Corrupt,
    DeadlineExceeded,
    DiskFull,
    ElytronError,
    EmbedderUnavailable,
    Forked,
    GraphUnavailable,
    InvalidArgument,
    InvalidSetting,
    NotFound,
    OutcomeUnknown,
    OverBudget,
    Unavailable,
)

JSON = "application/json"
RETRY_AFTER_S = 1

STATUSES = {
    InvalidArgument.code: 400,
    InvalidSetting.code: 503,  # of the server's own, so nothing that a caller could put right
    AccessDenied.code: 403,
    NotFound.code: 404,
    Conflict.code: 409,
    Busy.code: 503,
    OverBudget.code: 507,
    DiskFull.code: 507,
    Unavailable.code: 503,
    OutcomeUnknown.code: 503,
    Corrupt.code: 503,
    Closed.code: 503,
    Forked.code: 503,
    GraphUnavailable.code: 503,
    DeadlineExceeded.code: 504,
    EmbedderUnavailable.code: 503,
}


def body(error: ElytronError) -> dict[str, Any]:
    """An error as the members of its document."""
    told: dict[str, Any] = {
        "error": error.code,
        "message": str(error),
        "retryable": error.retryable,
    }
    if isinstance(error, EmbedderUnavailable):
        told |= {"permanent": error.permanent, "wait_s": error.wait_s}
    return told


def response(error: ElytronError, *, status: int | None = None) -> Response:
    """An error as an answer; *status* instead of the table's, where HTTP has a better word."""
    status = status or STATUSES.get(error.code, 500)
    headers = {}
    if status in (429, 503) and error.retryable:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(json.dumps(body(error)), status, headers, JSON)
