"""
Monitor: what an agent holds, beside its limits, and when it will reach them. Pure.
"""

import dataclasses

from elytron.config import Config
from elytron.records import Usage
from elytron.upkeep.forecast import Gauge, forecast

_MB = 1 << 20


def with_forecast(
    usage: Usage,
    arrivals: tuple[int, bool, int | None],
    left: int,
    config: Config,
    *,
    now_us: int,
) -> Usage:
    """
    A usage with its forecast.

    Args:
        arrivals: how many of the messages held arrived in the forecast's window, whether all of
            them did, and when the ledger began.
        left: how many left for the archive in that window.
    """
    arrived, all_did, begun_us = arrivals
    if all_did:  # then those that left, being older, did mostly come within it too
        arrived += left
    mean_bytes = usage.bytes.live / usage.messages if usage.messages else 0.0
    mean_archived = usage.archive.bytes / usage.archive.messages if usage.archive.messages else 0.0
    # Of those that come: by as many as leave the ledger does not grow, but the archive does.
    leaving = min(1.0, left / arrived) if arrived else 0.0
    if usage.messages >= config.max_messages_per_agent:
        leaving = 1.0
    gauges = {
        "max_messages_per_agent": Gauge(usage.messages, config.max_messages_per_agent, 1 - leaving),
        "max_db_size_mb": Gauge(
            (usage.bytes.live + config.wal_limit_bytes) / _MB,
            config.max_db_size_mb,
            (1 - leaving) * mean_bytes / _MB,
        ),
        "max_archive_mb": Gauge(
            usage.archive.bytes / _MB,
            config.archive_full_bytes / _MB,  # then it begins to drop
            leaving * mean_archived / _MB,
        ),
    }
    found = forecast(
        now_us=now_us,
        first_us=begun_us,
        arrived=arrived,
        mean_bytes=mean_bytes,
        gauges=gauges,
    )
    return dataclasses.replace(usage, forecast=found)
