"""
Faults: what an error of PostgreSQL, or of the way to it, means to a caller.

A server may quote values in its messages, and in what it adds to them, so only those messages are
passed on that can hold none: they speak of roles, databases, tables and disks.
"""

import psycopg
from psycopg import errors

from elytron.errors import (
    Busy,
    Corrupt,
    DiskFull,
    ElytronError,
    InvalidArgument,
    OutcomeUnknown,
    Unavailable,
)


class NoAnswer(psycopg.OperationalError):
    """The server did not answer in time. The connection was closed, whatever it was doing."""


class TooLate(NoAnswer):
    """The time was over before a statement was sent. The connection was closed."""


class NotSent(psycopg.OperationalError):
    """The connection had been closed before, so a statement was not sent."""


class SharedSession(psycopg.NotSupportedError):
    """A pooler gave our session to other clients too, so a statement was not run."""


class NotReplicated(psycopg.OperationalError):
    """The commit is on this server, but somebody ended its waiting for the standby."""


def plain(error: psycopg.Error) -> psycopg.Error:
    """*error* without what its text may quote of values, since it is seen as a cause of ours."""
    code = error.sqlstate or ""
    quotes = code.startswith("22")  # data exceptions
    said = type(error).__name__ if quotes else error.diag.message_primary or ""
    error.args = (f"{said} ({code})",)
    return error


# What a statement may raise: the server's errors, and text that is no Unicode.
STORAGE_ERRORS = (psycopg.Error, UnicodeError)

_RETRY = "nothing was written: retry"
_NAME_PRIMARY = "name the primary, or all servers"
_LOST_CLASSES = ("08", "57P")  # connection exceptions; shutting down, crashed, starting
# No resources, disk errors, a transaction that was ended, a statement prepared before a migration.
_RETRY_CLASSES = ("53", "58", "25", "0A", "26")
# What is said of a way that was cut while we connected, over TLS too; it need not stay so.
_CUT = (
    "SYSCALL",
    "unexpected eof",
    "closed unexpectedly",
    "closed the connection unexpectedly",
    "Connection refused",
    "Connection reset",
    "timed out",
)
# What is said of a login that fails each time, and of TLS.
_REFUSED = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "pg_hba.conf",
    "permission denied",
    "not permitted to log in",
    "certificate",
    "SSL",
)


def translate(
    error: psycopg.Error | UnicodeError,
    where: object,
    *,
    committing: bool = False,
    writing: bool = True,
    connecting: bool = False,
) -> ElytronError:
    """
    What *error* means for the caller.

    Args:
        where: the store, for the message; must hold no password.
        committing: it came out of a COMMIT, or of a write that is its own transaction.
        writing: False where nothing but reading was going on.
        connecting: there is no connection yet, so the server may have refused us.
    """
    if isinstance(error, UnicodeError):
        return InvalidArgument(f"a text cannot be kept in {where}: it is no Unicode")
    if committing and leaves_it_open(error):
        return OutcomeUnknown(
            f"a commit on {where} was left in doubt ({_said(error)}); the write may or may not be"
            " durable: save again with the same id"
        )
    if isinstance(error, NoAnswer):
        return _late(where, writing=writing)
    code = error.sqlstate
    if code is None:
        return _away(error, where, connecting=connecting)
    return _answered(error, code, where)


def leaves_it_open(error: psycopg.Error) -> bool:
    """Whether a commit may have been done in spite of *error*."""
    if isinstance(error, TooLate | NotSent | SharedSession):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(_LOST_CLASSES)


def _late(where: object, *, writing: bool) -> ElytronError:
    if writing:
        return retryable(f"{where} did not answer in time; {_RETRY}")
    return Busy(f"{where} did not answer in `read_timeout_s`; ask for less, or retry later")


def _away(error: psycopg.Error, where: object, *, connecting: bool) -> ElytronError:
    """What is wrong with the way to the server: it has no code then."""
    if isinstance(error, psycopg.NotSupportedError):
        return Unavailable(f"{where}: {_one_line(str(error))}; nothing was written")
    refused = _refused(str(error), where) if connecting else None
    if refused is not None:
        return refused
    if isinstance(error, psycopg.OperationalError):
        return retryable(f"{where} cannot be reached ({_said(error)}); {_RETRY}")
    return retryable(f"{where}: {type(error).__name__}; {_RETRY}, or open the store again")


def _refused(said: str, where: object) -> Unavailable | None:
    """What is to be put right, if connecting fails each time until then."""
    if any(word in said for word in _CUT):
        return None
    if "unsupported startup parameter" in said:
        return Unavailable(
            f"{where}: {_one_line(said)}; nothing was written: this is said by a pooler that does"
            " not pass `options` on; set its `ignore_startup_parameters = options`"
        )
    if "invalid" in said:
        return Unavailable(f"{where}: {_one_line(said)}; nothing was written: look at the DSN")
    if any(word in said for word in _REFUSED):
        return Unavailable(
            f"{where} lets nobody in: {_one_line(said)}; nothing was written: look at the user,"
            " the password, the database, the certificates and the server's pg_hba.conf"
        )
    return None


def _answered(error: psycopg.Error, code: str, where: object) -> ElytronError:
    match error:
        case errors.LockNotAvailable() | errors.DeadlockDetected() | errors.SerializationFailure():
            return Busy(f"{where} is locked by another program ({code}); {_RETRY} later")
        case errors.QueryCanceled():
            return Busy(f"{where} stopped a statement ({code}); {_RETRY} later, or ask for less")
        case errors.DiskFull():
            return DiskFull(f"no room left on the disk of {where}; nothing was written: free some")
        case errors.TooManyConnections():
            return retryable(
                f"{where} has no connection left; {_RETRY} later, lower `postgres_connections`, or"
                " raise the server's max_connections"
            )
        case errors.ReadOnlySqlTransaction():
            return retryable(f"{where} is read-only; nothing was written: {_NAME_PRIMARY}")
        case errors.UndefinedTable() | errors.UndefinedColumn() | errors.InvalidSchemaName():
            return Unavailable(
                f"{where} has another schema than this version of Elytron ({_primary(error)});"
                " nothing was written: open the store with a role that may change its tables"
            )
        case errors.InsufficientPrivilege():
            return Unavailable(
                f"{where}: {_primary(error)}; nothing was written: grant the role what it needs"
            )
        case errors.DataCorrupted() | errors.IndexCorrupted():
            return Corrupt(
                f"{where} is damaged ({code}); it was left as it is: look at the server's log, and"
                " restore the database from a backup"
            )
        case errors.ProgramLimitExceeded() | errors.NumericValueOutOfRange():
            return InvalidArgument(f"a value is too large for {where} ({code})")
    return _by_class(error, code, where)


def _by_class(error: psycopg.Error, code: str, where: object) -> ElytronError:
    if code.startswith(("28", "3D")):
        return Unavailable(
            f"{where} lets nobody in: {_primary(error)}; nothing was written: look at the user,"
            " the password and the database"
        )
    if code.startswith((*_LOST_CLASSES, *_RETRY_CLASSES)):
        return retryable(f"{where} cannot be used ({_said(error)}); {_RETRY}")
    return Unavailable(
        f"{where}: {type(error).__name__} ({code}); nothing was written: retry, or close the store"
        " and open it again"
    )


def standby(where: object) -> Unavailable:
    """What it means that *where* is a standby, which it may be no longer by the next time."""
    return retryable(
        f"{where} is a standby, whose answers may be old; nothing was read or written:"
        f" {_NAME_PRIMARY}"
    )


def retryable(text: str) -> Unavailable:
    """An `Unavailable` that may have gone by the next time."""
    return Unavailable(text, retryable=True)


def _primary(error: psycopg.Error) -> str:
    """The server's own words, without what it adds to them."""
    return _one_line(error.diag.message_primary or type(error).__name__)


def _said(error: psycopg.Error) -> str:
    if error.sqlstate:
        return f"{error.sqlstate}: {_primary(error)}"
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    """The first line: what a server adds to it, as a DETAIL, may quote values."""
    return text.strip().partition("\n")[0][:300]
