"""
Errors: one base, one leaf for each action that a caller can take.

Every message has the number, the limit and the way out, and never the text of a message.
The faces map `code` to an exit code or a status in tables of their own.
"""

import copy
from typing import Self


class ElytronError(Exception):
    """Base of everything that Elytron raises on purpose."""

    code = "error"
    retryable = False

    def saying(self, message: str) -> Self:
        """The same error in other words: with what else it knows, as whether to try again."""
        other = copy.copy(self)
        other.args = (message,)
        return other


class InvalidArgument(ElytronError):
    """A value that was passed in is not acceptable. Nothing was changed."""

    code = "invalid-argument"


class InvalidSetting(ElytronError):
    """A setting is unknown, out of range, or contradicts the stored data. Nothing was opened."""

    code = "invalid-setting"


class NotFound(ElytronError):
    """What was asked for by its id or name is not there. Nothing was changed."""

    code = "not-found"


class AccessDenied(ElytronError):
    """The token is missing, unknown, or not for this. Nothing was changed."""

    code = "access-denied"


class Conflict(ElytronError):
    """The id is taken by a message with other content. Nothing was written."""

    code = "conflict"


class Busy(ElytronError):
    """A queue, a lock or every reader stayed taken until the deadline. Nothing was written."""

    code = "busy"
    retryable = True


class OverBudget(ElytronError):
    """The write would take the agent over its size limit. Nothing was written."""

    code = "over-budget"


class DiskFull(ElytronError):
    """The file system has no room left. Nothing was written."""

    code = "disk-full"
    retryable = True


class Unavailable(ElytronError):
    """
    The store's place cannot be used: wrong kind of path, no permission, a network disk; or no
    server answers there, which may have passed by the next time: then it is `retryable`.
    """

    code = "unavailable"

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class OutcomeUnknown(ElytronError):
    """
    The disk failed during the commit, or a server's answer was lost: the write may or may not be
    durable.

    Saving again with the same id is harmless and settles it.
    """

    code = "outcome-unknown"
    retryable = True


class Corrupt(ElytronError):
    """Stored data is damaged, missing or not what its marker says. It was left as it is."""

    code = "corrupt"


class Closed(ElytronError):
    """The store was closed. Nothing was written; open it again."""

    code = "closed"


class Forked(ElytronError):
    """This process is a fork of the one that opened the store. Open the store anew here."""

    code = "forked"


class GraphUnavailable(ElytronError):
    """
    The graph cannot answer: its engine is not installed, or its worker died twice over one call.

    The ledger and every other verb are untouched.
    """

    code = "graph-unavailable"


class DeadlineExceeded(ElytronError):
    """A question took longer, or more memory, than it may. Nothing was changed; narrow it."""

    code = "deadline-exceeded"


class EmbedderUnavailable(ElytronError):
    """
    The embedder did not answer, or answered with something else than vectors.

    Nothing is lost: messages are held, and found by their words, until it does. `permanent` says
    that the same call would fail again, so something has to be put right first; `wait_s` for how
    long the embedder asked to be left alone.
    """

    code = "embedder-unavailable"
    retryable = True

    def __init__(
        self, message: str, *, permanent: bool = False, wait_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.wait_s = wait_s
