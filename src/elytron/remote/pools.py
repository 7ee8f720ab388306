"""
Pools: urllib3's connections, but a request leaves in one piece.

urllib3 sends the head and then the body: two packets, of which the first wakes the server for
nothing. For a call of a millisecond that is a tenth of it.
"""

from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

_WHOLE_MAX_BYTES = 65_536  # what is larger goes as it comes


class _Whole(HTTPConnection):
    """Holds what is sent back until the request is complete."""

    _held: list[bytes] | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._held = []
        try:
            super().request(*args, **kwargs)
        finally:
            held, self._held = self._held, None
        if held:
            super().send(b"".join(held))

    def send(self, data: Any) -> None:
        if self._held is not None and isinstance(data, bytes) and len(data) <= _WHOLE_MAX_BYTES:
            if self.sock is None:
                self.connect()
            self._held.append(data)
            return
        held, self._held = self._held, None
        if held:
            super().send(b"".join(held))
        super().send(data)


class _WholeSecure(_Whole, HTTPSConnection):
    pass


class HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Whole


class HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WholeSecure
