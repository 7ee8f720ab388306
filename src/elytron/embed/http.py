"""
HTTP: an endpoint that embeds, and what its answers mean.

Whatever is wrong becomes one error that says the number and the way out, and that never shows what
the provider said: error bodies echo the texts. The socket's side of it is in `connections`.
"""

import email.utils
import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from elytron.embed.embedder import missing
from elytron.errors import Closed, EmbedderUnavailable

if TYPE_CHECKING:
    from elytron.embed.connections import Answer, Connections

ANSWER_MAX_BYTES = 64 << 20
_NUMBERS_MAX_BYTES = 8192 * 32  # the longest vector that is taken, generously written out
_FRAME_MAX_BYTES = 1 << 20
WAIT_MAX_S = 3_600.0
_WAIT_S = 5.0  # where it is too busy and does not say for how long
_KEY_MAX = 4_000  # characters
_TRY_LATER = (408, 425, 429)


def answer_limit_bytes(n: int) -> int:
    """How long an answer for *n* texts may be: never over 64 MB, and less for few texts."""
    return min(ANSWER_MAX_BYTES, _FRAME_MAX_BYTES + n * _NUMBERS_MAX_BYTES)


def wait_s(retry_after: str | None, *, now_s: float) -> float | None:
    """
    The seconds that a Retry-After header asks for, 0 to 3,600; None where it cannot be read.

    Args:
        retry_after: seconds, or a date of HTTP.
        now_s: seconds since 1970.

    Source: RFC 9110, section 10.2.3.
    """
    given = (retry_after or "").strip()
    if given.isascii() and given.isdecimal():
        return min(float(given[:10]), WAIT_MAX_S)
    try:
        at_s = email.utils.parsedate_to_datetime(given).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
    return min(max(at_s - now_s, 0.0), WAIT_MAX_S)


def parsed(body: bytes, *, source: str) -> dict[str, Any]:
    """
    The JSON object in *body*.

    Raises:
        EmbedderUnavailable: no JSON, one that nests too deep, or no object. Whether its numbers
            are any is for `checked` to say.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        what = type(error).__name__
    else:
        if isinstance(answer, dict):
            return answer
        what = f"a {type(answer).__name__} at the top"
    # Not chained: the JSON error carries the whole body.
    raise EmbedderUnavailable(
        f"{source} answered with {len(body):,} bytes that are no JSON object ({what});"
        " is this the address of an embedder?"
    )


def refused(
    answer: "Answer", *, source: str, hints: Mapping[int, str], now_s: float
) -> EmbedderUnavailable:
    """
    The error for a status other than 200.

    Args:
        hints: what to do about a status; others get a general word.
    """
    status, length = answer.status, answer.headers.get("Content-Length", "")
    said = f" with {int(length[:20]):,} bytes" if length.isascii() and length.isdecimal() else ""
    wait = None
    if status in (429, 503):
        wait = wait_s(answer.headers.get("Retry-After"), now_s=now_s)
        wait = _WAIT_S if wait is None else wait
    permanent = 300 <= status < 500 and status not in _TRY_LATER
    if status in hints:
        then = hints[status]
    elif 300 <= status < 400:
        then = (
            "it points elsewhere, which is not followed; set `embedding_url` to the final address"
        )
    elif status == 413:
        then = "send fewer texts at a time"
    elif permanent:
        then = "check `embedding_url` and `embedding_model`"
    elif wait is not None:
        then = f"retry in {math.ceil(wait):,} s"
    else:
        then = "retry later"
    return EmbedderUnavailable(
        f"{source} answered HTTP {status}{said}; {then}", permanent=permanent, wait_s=wait
    )


def key_from(name: str, *, environment: Mapping[str, str], source: str) -> str:
    """
    The key in the environment variable *name*.

    Raises:
        EmbedderUnavailable: it is not set, or cannot go into a header. The key is not shown.
    """
    key = environment.get(name, "").strip()
    if not key:
        raise EmbedderUnavailable(
            f"{source} wants a key, and the environment variable {name} is not set; put it there",
            permanent=True,
        )
    if len(key) > _KEY_MAX or not key.isascii() or not key.isprintable():
        raise EmbedderUnavailable(
            f"{source} wants a key, and the environment variable {name} holds {len(key):,}"
            f" characters that are none; it must be 1 to {_KEY_MAX:,} printable ASCII characters",
            permanent=True,
        )
    return key


class Endpoint:
    """One address that takes JSON and gives JSON. Two threads may ask at once."""

    def __init__(
        self,
        url: str,
        *,
        source: str,
        timeout_s: float,
        api_key_env: str | None,
        proxy_url: str | None,
        hints: Mapping[int, str],
        unreachable: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            source: the embedder's name, for messages.
            hints: what to do about a status.
            unreachable: what to do where nobody listens.
        """
        self._url = url
        self._source = source
        self._timeout_s = timeout_s
        self._api_key_env = api_key_env
        self._proxy_url = proxy_url
        self._hints = hints
        self._unreachable = unreachable
        self._clock = clock
        self._lock = threading.Lock()
        self._connections: Connections | None = None
        self._closed = False

    def post(self, payload: Mapping[str, Any], *, n: int) -> dict[str, Any]:
        """
        The JSON object that *payload* is answered with, for *n* texts.

        Raises:
            EmbedderUnavailable: see `refused`, `parsed`, `key_from`; and no answer in time, too
                long a one, a broken or no connection.
            Closed: after `close`.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._api_key_env is not None:
            key = key_from(self._api_key_env, environment=os.environ, source=self._source)
            headers["Authorization"] = f"Bearer {key}"
        answer = self._sent(json.dumps(payload).encode(), headers, answer_limit_bytes(n))
        if answer.body is None:
            raise refused(answer, source=self._source, hints=self._hints, now_s=self._clock())
        return parsed(answer.body, source=self._source)

    def _sent(self, body: bytes, headers: Mapping[str, str], limit_bytes: int) -> "Answer":
        connections = self._opened()
        from urllib3.exceptions import HTTPError, SSLError

        from elytron.embed.connections import Encoded, TooLong, TooSlow

        try:
            return connections.post(
                self._url, body, headers=headers, timeout_s=self._timeout_s, limit_bytes=limit_bytes
            )
        except TooSlow as error:
            raise EmbedderUnavailable(
                f"{self._source} did not answer in {self._timeout_s:g} s;"
                " retry later, send fewer texts at a time, or raise the embedder's timeout"
            ) from error
        except TooLong as error:
            raise EmbedderUnavailable(
                f"{self._source} answered with {error.length_bytes:,} bytes or more, at most"
                f" {limit_bytes:,} are read; is this the address of an embedder?"
            ) from error
        except Encoded as error:
            raise EmbedderUnavailable(
                f"{self._source} answered compressed, which was not asked for;"
                " have what is in between leave answers as they are"
            ) from error
        except SSLError as error:
            raise EmbedderUnavailable(
                f"{self._source} has no TLS that can be trusted at {self._url}; check its"
                " certificate, and the authorities that this machine knows"
            ) from error
        except (HTTPError, OSError) as error:
            raise EmbedderUnavailable(
                f"{self._source} cannot be reached at {self._url}, or the connection broke"
                f" ({type(error).__name__}); {self._unreachable}"
            ) from error

    def _opened(self) -> "Connections":
        with self._lock:
            if self._closed:
                raise Closed(f"the embedder {self._source} was closed; open the store again")
            if self._connections is None:
                try:
                    from elytron.embed.connections import Connections
                except ImportError as error:
                    raise missing("urllib3", '"elytron[vectors]"') from error
                self._connections = Connections(proxy_url=self._proxy_url)
            return self._connections

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._lock:
            self._closed = True
            connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()
