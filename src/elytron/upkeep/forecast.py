"""
Forecast: how many days until each limit, if it goes on as in the last week.

Pure: the caller counts what arrived and says how full each limit is. A straight line is enough
for what it is asked for, which is whether there is time to act.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from elytron.reports import Forecast

WINDOW_DAYS = 7
_LEAST_DAYS = 1  # ten messages in the first minute are not 14,400 a day
_DAY_US = 86_400_000_000


class Gauge(NamedTuple):
    """
    One limit: how much of it is used, and how much of it one more message takes.

    All three in the unit of the limit: messages, bytes or MB. A *maximum* of None is no limit.
    """

    used: float
    maximum: float | None
    per_message: float


def since_us(now_us: int) -> int:
    """From when on arrivals count: pass `forecast` how many messages arrived then or later."""
    return now_us - WINDOW_DAYS * _DAY_US


def forecast(
    *,
    now_us: int,
    first_us: int | None,
    arrived: int,
    mean_bytes: float,
    gauges: Mapping[str, Gauge],
) -> Forecast:
    """
    Tell when each limit is reached at the present rate.

    Args:
        now_us: the time; it may stand before the arrivals, after a clock was set back.
        first_us: when the first message of all arrived; None if none has.
        arrived: how many arrived from `since_us(now_us)` on, those that have left again too.
        mean_bytes: what a message takes in the ledger, on average.
        gauges: the limits by their settings' names.

    Returns:
        The rate, and for each limit the days until it is reached: 0.0 where it is, None where it
        is none or does not come nearer. The window is of 7 days, or since the first arrival where
        that is later, but of one day at least.
    """
    days = float(WINDOW_DAYS)
    if first_us is not None:
        days = min(days, max(_LEAST_DAYS, (now_us - first_us) / _DAY_US))
    per_day = arrived / days
    return Forecast(
        days=days,
        messages_per_day=per_day,
        bytes_per_day=per_day * mean_bytes,
        until={name: _days_until(gauge, per_day) for name, gauge in gauges.items()},
    )


def _days_until(gauge: Gauge, messages_per_day: float) -> float | None:
    if gauge.maximum is None:
        return None
    room = gauge.maximum - gauge.used
    if room <= 0:
        return 0.0
    rate = messages_per_day * gauge.per_message
    if rate <= 0:
        return None
    days = room / rate
    return days if math.isfinite(days) else None
