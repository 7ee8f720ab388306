"""Limits: what one server lets its clients have. Sizes in MB are of 1,048,576 bytes."""

import dataclasses
from dataclasses import dataclass

from elytron.config_values import MB, number

_LARGEST_AT_ONCE = 8  # requests of the largest size, or more of smaller ones


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Attributes:
        max_request_mb: body of one request; an import may be larger, line by line. All that are
            held at once have eight times as much.
        request_timeout_s: how long a client may take to send one, and between two parts of an
            import.
        max_requests: being answered, or connected, at once.
        max_requests_per_s: of one token, or without tokens of one address.
        max_streams: live views (`/v1/events`) at once, and as many exports.
        drain_timeout_s: how long a shutdown waits for requests under way.
    """

    max_request_mb: float = 16
    request_timeout_s: float = 30
    max_requests: int = 256
    max_requests_per_s: float = 5000
    max_streams: int = 32
    drain_timeout_s: float = 30

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            low, high = _RANGES[field.name]
            value = number(
                f"`{field.name}`",
                getattr(self, field.name),
                low=low,
                high=high,
                whole=field.type is int,
                instead="",
            )
            object.__setattr__(self, field.name, value)

    @property
    def max_request_bytes(self) -> int:
        return int(self.max_request_mb * MB)

    @property
    def max_received_bytes(self) -> int:
        """Of all bodies together that are held at once."""
        return _LARGEST_AT_ONCE * self.max_request_bytes


_RANGES = {
    "max_request_mb": (0.001, 1024),
    "request_timeout_s": (0.05, 3600),
    "max_requests": (1, 100_000),
    "max_requests_per_s": (0.1, 1_000_000),
    "max_streams": (1, 10_000),
    "drain_timeout_s": (0, 3600),
}
