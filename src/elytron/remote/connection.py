"""
Connection: one call over HTTP, asked again where that is harmless.

What may be asked again is decided by `attempts.py`; here it is sent, and what comes back read.
"""

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import ClosedPoolError, EmptyPoolError, HTTPError
from urllib3.response import BaseHTTPResponse

import elytron.errors as errors_of
from elytron.errors import (
    AccessDenied,
    Busy,
    Closed,
    Conflict,
    DeadlineExceeded,
    ElytronError,
    EmbedderUnavailable,
    Forked,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from elytron.remote import answers, attempts, pools
from elytron.remote.calls import PREFIX, PROTOCOL

JSON, NDJSON, MSGPACK = "application/json", "application/x-ndjson", "application/x-msgpack"
SILENCE_S = 30  # without a sign of life, at least, until what takes long is given up
_LOOK_S = 0.2  # between two looks at whether it was closed, while all connections are taken
_OBJECT = re.compile(r"^\w+\(host=[^()]*\): ")  # of urllib3's, or of ours in `pools`
_ERRORS: Mapping[str, type[ElytronError]] = {
    kind.code: kind
    for kind in vars(errors_of).values()
    if isinstance(kind, type) and issubclass(kind, ElytronError)
}


class Connection:
    """A server, and the connections to it. Safe for many threads; not for use after a fork."""

    def __init__(
        self, url: str, *, token: str | None, timeout_s: float, connections_max: int
    ) -> None:
        _check_range("timeout_s", timeout_s, 0.05, 3600)
        _check_range("connections_max", connections_max, 1, 1000)
        self.url = checked_url(url)
        parts = urlsplit(self.url)
        self._base = parts.path
        self._timeout_s = float(timeout_s)
        headers = {} if token is None else {"Authorization": f"Bearer {_checked_token(token)}"}
        kind = pools.HTTPSPool if parts.scheme == "https" else pools.HTTPPool
        self._pool, self._standing = (
            kind(
                parts.hostname or "",
                parts.port,
                headers=headers,
                maxsize=maximum,
                block=True,
                retries=False,
            )
            for maximum in (int(connections_max), 1)  # the other for what is endless
        )
        self._headers = headers
        self._closed = threading.Event()
        self._endless: set[BaseHTTPResponse] = set()
        self._process = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that connected."""
        return self._process != os.getpid()

    def check_usable(self) -> None:
        """Raise where no call can be made any more."""
        if self.forked:
            raise Forked("connected in another process; connect anew after a fork")
        if self._closed.is_set():
            raise self._ended(lost=False)

    def hello(self) -> Mapping[str, Any]:
        """What the server says of itself; raises where it is none of ours."""
        data = self.ask("hello", method="GET", writes=False, repeats=True)
        try:
            told = json.loads(data)
            protocol = told["protocol"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unavailable(f"what answers at {self.url} is no `elytron serve`") from error
        if protocol != PROTOCOL:
            raise Unavailable(
                f"the server at {self.url} speaks version {protocol!r:.20} of the protocol, and"
                f" this is {PROTOCOL}; bring both to one version of elytron"
            )
        return dict(told)

    def ask(
        self,
        verb: str,
        *,
        writes: bool,
        repeats: bool,
        method: str = "POST",
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        kind: str = JSON,
        accept: str = JSON,
    ) -> bytes:
        """One call; the bytes of its answer."""
        lost = False  # whether an attempt may have been carried out, its answer lost
        for attempt in attempts.counted():
            try:
                answer = self._request(method, verb, params, body, kind, accept)
                data = answers.whole(answer, timeout_s=self._timeout_s)
                if answer.status == 200:
                    return data
                pause_s = attempts.pause_refused(
                    answer.status, answer.headers, data, attempt, repeats=repeats
                )
                if pause_s is None:
                    raise self._refusal(answer, data, writes=writes, lost=lost)
                lost = lost or not attempts.unread(answer.status, data)
            except answers.TooLong:
                raise self._too_long(writes=writes) from None
            except Closed:
                if lost and writes:
                    raise self._ended(lost=True) from None
                raise
            except HTTPError as error:
                pause_s = attempts.pause_failed(error, attempt, repeats=repeats)
                if pause_s is None:
                    raise self._failure(error, writes=writes, lost=lost) from error
                lost = lost or not isinstance(error, attempts.UNSENT)
            if self._closed.wait(pause_s):
                raise self._ended(lost=lost and writes)
        raise AssertionError("the last attempt returns or raises")

    @contextlib.contextmanager
    def lines(
        self,
        verb: str,
        *,
        writes: bool,
        method: str = "POST",
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        kind: str = NDJSON,
        beats: bool = False,
        endless: bool = False,
    ) -> Iterator[Iterator[bytes]]:
        """
        One call whose answer comes in lines; those, without their ends. Asked once.

        Args:
            beats: it sends signs of life, so that it is waited for at least `SILENCE_S`.
            endless: it lasts until `close`, which ends it. On a connection of its own, of which
                there is one.
        """
        read_s = max(self._timeout_s, SILENCE_S) if beats else self._timeout_s
        pool = self._standing if endless else self._pool
        answer: BaseHTTPResponse | None = None
        try:
            for attempt in attempts.counted():
                try:
                    answer = self._request(method, verb, params, body, JSON, kind, read_s, pool)
                    break
                except HTTPError as error:
                    pause_s = attempts.pause_failed(error, attempt, repeats=False)
                    if pause_s is None:
                        raise
                    if self._closed.wait(pause_s):
                        self.check_usable()
            assert answer is not None
            if answer.status != 200:
                data = answers.whole(answer, timeout_s=self._timeout_s)
                raise self._refusal(answer, data, writes=writes)
            if endless:
                self._endless.add(answer)
                self.check_usable()  # or `close` has not seen it
            yield answers.split(answer)
        except answers.TooLong:
            raise self._too_long(writes=writes) from None
        except HTTPError as error:
            raise self._failure(error, writes=writes) from error
        finally:
            if answer is not None:
                self._endless.discard(answer)
                answer.close()  # read to its end it goes back to the pool, else it is of no use
                answer.release_conn()

    def close(self) -> None:
        self._closed.set()
        if self.forked:
            return
        for answer in tuple(self._endless):
            # Released by its own thread in between, it has ended anyway.
            with contextlib.suppress(RuntimeError, ValueError, OSError):
                answer.shutdown()
        self._pool.close()
        self._standing.close()

    def _request(
        self,
        method: str,
        verb: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        kind: str,
        accept: str,
        read_s: float | None = None,
        pool: urllib3.HTTPConnectionPool | None = None,
    ) -> BaseHTTPResponse:
        query = "?" + attempts.query(params) if params else ""
        headers = {**self._headers, "Accept": accept}
        if body is not None:
            headers["Content-Type"] = kind
        timeout_s = self._timeout_s if read_s is None else read_s
        give_up_s = time.monotonic() + self._timeout_s
        while True:
            self.check_usable()
            try:
                return (pool or self._pool).urlopen(
                    method,
                    f"{self._base}{PREFIX}/{verb}{query}",
                    body=body,
                    headers=headers,
                    redirect=False,
                    preload_content=False,
                    timeout=urllib3.Timeout(connect=min(10.0, self._timeout_s), read=timeout_s),
                    pool_timeout=_LOOK_S,  # type: ignore[arg-type]  # a float does
                )
            except EmptyPoolError:  # once it is closed no connection comes back to it
                if time.monotonic() > give_up_s:
                    raise

    def _refusal(
        self, answer: BaseHTTPResponse, data: bytes, *, writes: bool, lost: bool = False
    ) -> ElytronError:
        status = answer.status
        try:
            told = json.loads(data)
            if not isinstance(told["message"], str):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            said = f"answers with HTTP status {status}"
            if 300 <= status < 400:
                where = f"{answer.headers.get('Location', 'elsewhere')!r:.200}"
                said = f"sends on to {where}; connect there"
            error: ElytronError = Unavailable(f"{self.url} {said}")
            ours = attempts.unread(status, data)
        else:
            error = error_of(told)
            ours = type(error) is not ElytronError  # else a fault of it, or words of a proxy's
        # These hold whether or not an earlier attempt was carried out.
        if writes and lost and not isinstance(error, InvalidArgument | Conflict | NotFound):
            return self._unknown(f"lost an answer, and then said: {error!s:.200}")
        if writes and not ours and not 300 <= status < 500:
            return self._unknown(f"answered with HTTP status {status}")
        return error

    def _too_long(self, *, writes: bool) -> ElytronError:
        said = f"an answer of over {answers.ANSWER_MAX_BYTES:,} bytes"
        if writes:
            return self._unknown(f"sent {said}")
        return DeadlineExceeded(f"{self.url} sent {said}; ask for less at once")

    def _unknown(self, what: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self.url} {what}, so this may or may not be done; look, or do it again"
        )

    def _ended(self, *, lost: bool) -> ElytronError:
        if lost:
            return self._unknown("lost an answer, and the connection was closed")
        return Closed(f"the connection to {self.url} was closed; connect again")

    def _failure(self, error: HTTPError, *, writes: bool, lost: bool = False) -> ElytronError:
        if isinstance(error, ClosedPoolError):
            return self._ended(lost=lost and writes)
        unsent = isinstance(error, attempts.UNSENT)
        if writes and (lost or not unsent):
            return self._unknown(f"did not answer ({_reason(error)})")
        if isinstance(error, EmptyPoolError):
            return Busy(
                f"all connections to {self.url} stayed taken for {self._timeout_s:g} s; retry"
                " later, or raise `connections_max`"
            )
        if unsent:
            return Unavailable(f"no server answers at {self.url}: {_reason(error)}; is it running?")
        if isinstance(error, attempts.SLOW):
            return DeadlineExceeded(
                f"{self.url} did not answer within {self._timeout_s:g} s; ask for less, or raise"
                " `timeout_s`"
            )
        return Unavailable(f"{self.url} broke off: {_reason(error)}; ask again")


def error_of(told: Mapping[str, Any]) -> ElytronError:
    """The error that a server told of, as the one that the verb would have raised here."""
    kind = _ERRORS.get(str(told.get("error")), ElytronError)
    message = str(told.get("message"))
    if kind is EmbedderUnavailable:
        wait_s = told.get("wait_s")
        return EmbedderUnavailable(
            message,
            permanent=bool(told.get("permanent")),
            wait_s=float(wait_s) if isinstance(wait_s, int | float) else None,
        )
    if kind is Unavailable:
        return Unavailable(message, retryable=told.get("retryable") is True)
    return kind(message)


def checked_url(url: object) -> str:
    """
    A server's URL without a slash at its end.

    Raises:
        InvalidArgument: it is no URL of HTTP, or holds what does not belong there.
    """
    example = "give one such as http://127.0.0.1:7700"
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        raise InvalidArgument(f"a URL is a printable text; got {type(url).__name__}; {example}")
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise InvalidArgument(f"the URL cannot be read: {error}; {example}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InvalidArgument(f"{url!r:.100} is no http or https URL; {example}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidArgument("a URL holds no secret and no query; give the token as `token=`")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _checked_token(token: object) -> str:
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
        raise AccessDenied("the token is not one of `elytron token add`: printable ASCII")
    return token


def _check_range(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        raise InvalidArgument(f"{name} must be {low:g} to {high:g}; got {value!r:.50}")


def _reason(error: HTTPError) -> str:
    """What went wrong, without the objects that urllib3's words begin with."""
    said = _OBJECT.sub("", str(error).rpartition(">: ")[2])
    return f"{said:.200}" or type(error).__name__
