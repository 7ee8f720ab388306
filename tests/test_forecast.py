"""The forecast: a rate from the last week, and the days until each limit."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron import ArchiveUsage, Config, Usage
from elytron.upkeep.forecast import Gauge, forecast, since_us
from elytron.upkeep.monitor import with_forecast

DAY_US = 86_400_000_000
NOW_US = 20_000 * DAY_US

times = st.one_of(st.none(), st.integers(-3, 12).map(lambda n: NOW_US - n * DAY_US // 2))
amounts = st.one_of(st.integers(0, 9), st.floats(0, 9), st.sampled_from([1e-320, 1e300]))
gauges = st.builds(Gauge, amounts, st.one_of(st.none(), amounts), amounts)


def test_a_steady_week_is_carried_on():
    told = forecast(
        now_us=NOW_US,
        first_us=NOW_US - 100 * DAY_US,
        arrived=700,
        mean_bytes=500,
        gauges={
            "max_messages_per_agent": Gauge(4000, 5000, 1),
            "max_db_size_mb": Gauge(20.0, 100, 0.01),
            "max_total_mb": Gauge(20.0, None, 0.01),
        },
    )
    assert (told.days, told.messages_per_day, told.bytes_per_day) == (7, 100, 50_000)
    assert told.until == {
        "max_messages_per_agent": 10,
        "max_db_size_mb": 80,
        "max_total_mb": None,
    }


def days_from(first_us, now_us=NOW_US):
    return forecast(now_us=now_us, first_us=first_us, arrived=1, mean_bytes=1, gauges={}).days


def test_the_window_is_cut_at_the_first_arrival_but_never_under_a_day():
    assert days_from(None) == days_from(0) == days_from(NOW_US - 7 * DAY_US) == 7
    assert days_from(NOW_US - 5 * DAY_US // 2) == 2.5
    for first_us in (NOW_US - DAY_US, NOW_US - DAY_US + 1, NOW_US, NOW_US + 400 * DAY_US):
        assert days_from(first_us) == 1


def test_what_counts_as_arrived_begins_where_the_window_does():
    assert since_us(NOW_US) == NOW_US - 7 * DAY_US


def until(gauge, *, arrived=7):
    told = forecast(now_us=NOW_US, first_us=0, arrived=arrived, mean_bytes=1, gauges={"x": gauge})
    return told.until["x"]


def test_a_limit_that_is_reached_is_reached_whatever_the_rate():
    for arrived in (0, 7):
        assert until(Gauge(5, 5, 1), arrived=arrived) == 0.0
        assert until(Gauge(6, 5, 0), arrived=arrived) == 0.0
        assert until(Gauge(0, 0, 1), arrived=arrived) == 0.0


def test_a_limit_that_does_not_come_nearer_has_no_day():
    assert until(Gauge(4, 5, 1), arrived=0) is None
    assert until(Gauge(4, 5, 0)) is None
    assert until(Gauge(4, None, 1)) is None
    assert until(Gauge(0, 1e308, 1e-300)) is None


def test_where_messages_leave_the_archive_is_forecast_to_where_it_begins_to_drop():
    """The janitor makes room ahead, so the messages held hardly ever are at their limit."""
    config = Config(max_archive_mb=8)
    usage = Usage(
        "bob", 1, messages=100, archive=ArchiveUsage(messages=6144, segments=2, bytes=6 << 20)
    )

    def days(*, left):
        told = with_forecast(usage, (70, False, 0), left, config, now_us=NOW_US)
        return told.forecast.until

    assert days(left=0)["max_archive_mb"] is None
    half, all_of_them = days(left=35), days(left=70)
    assert half["max_archive_mb"] == pytest.approx(1024 / 5), "a kilobyte each, five a day, one MB"
    assert all_of_them["max_archive_mb"] == pytest.approx(1024 / 10)
    assert half["max_messages_per_agent"] == pytest.approx(4900 / 5)
    assert all_of_them["max_messages_per_agent"] is None, "as many leave as come"


@given(now=st.integers(-9, 9), first_us=times, arrived=st.integers(0, 9), gauge=gauges)
def test_no_clock_and_no_count_gives_a_negative_or_endless_number(now, first_us, arrived, gauge):
    told = forecast(
        now_us=NOW_US + now * DAY_US,
        first_us=first_us,
        arrived=arrived,
        mean_bytes=3,
        gauges={"x": gauge},
    )
    days = told.until["x"]
    assert 1 <= told.days <= 7
    assert told.messages_per_day * told.days <= arrived * (1 + 1e-9)
    assert told.bytes_per_day >= 0
    assert days is None or (days >= 0 and math.isfinite(days))


@given(
    first_us=times,
    arrived=st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted),
    each=st.tuples(amounts, amounts).map(sorted),
    used=amounts,
    maximum=amounts,
)
def test_a_higher_rate_never_means_more_days(first_us, arrived, each, used, maximum):
    """Whether more arrive or each takes more; no day counts as never."""
    days = []
    for count, per_message in ((0, 0), (1, 0), (1, 1)):
        told = forecast(
            now_us=NOW_US,
            first_us=first_us,
            arrived=arrived[count],
            mean_bytes=1,
            gauges={"x": Gauge(used, maximum, each[per_message])},
        )
        days.append(math.inf if told.until["x"] is None else told.until["x"])
    assert days == sorted(days, reverse=True)


@given(gauge=gauges, more=amounts, arrived=st.integers(0, 9))
def test_a_fuller_agent_never_has_more_days_left(gauge, more, arrived):
    less = until(gauge, arrived=arrived)
    fuller = until(gauge._replace(used=gauge.used + more), arrived=arrived)
    if less is not None:
        assert fuller is not None
        assert fuller <= less
