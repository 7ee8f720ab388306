"""What each row of an origin's database becomes. Pure."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from elytron.errors import (
    InvalidArgument,
)
from elytron.importers import kuzu, kuzu_rows

PARIS = ZoneInfo("Europe/Paris")


def reading(zone: Any = PARIS) -> kuzu_rows.Reading:
    return kuzu_rows.reading(zone, now=datetime(2026, 1, 1, tzinfo=UTC), max_future_s=60)


def test_a_time_gets_its_zone_and_its_summer_time() -> None:
    how = reading()
    assert how.time("2025-07-01 12:00:00") == datetime(2025, 7, 1, 10, tzinfo=UTC)
    assert how.time("2025-12-01 12:00:00") == datetime(2025, 12, 1, 11, tzinfo=UTC)
    assert reading(UTC).time("2025-12-01 12:00:00.5") == datetime(
        2025, 12, 1, 12, 0, 0, 500_000, UTC
    )


@pytest.mark.parametrize("text", [None, "", "yesterday", "1969-12-31 00:00:00", "2027-01-01", "-1"])
def test_a_time_that_may_not_be_is_left_out_and_counted(text: str | None) -> None:
    from collections import Counter

    left_out = Counter[str]()
    assert reading().time(text, left_out) is None
    assert left_out == {kuzu_rows.TIME: 1}


@pytest.mark.parametrize(
    ("given", "user", "becomes"),
    [
        ("User", "alice", "user"),
        ("locrit", None, "assistant"),
        ("narrator", None, "assistant"),
        ("narrator", "alice", "user"),
        ("", None, "assistant"),
    ],
)
def test_a_role_by_another_name_is_kept_in_the_metadata(
    given: str, user: str | None, becomes: str
) -> None:
    from collections import Counter

    row = {
        "id": "a", "role": given, "content": "c", "timestamp": "2025-01-01 00:00:00",
        "session_id": "s", "metadata": None, "user": user,
    }  # fmt: skip
    left_out = Counter[str]()
    message = kuzu_rows.message(row, reading(), left_out)
    assert message["role"] == becomes
    assert message["metadata"] == {"origin_role": given}
    assert left_out[kuzu_rows.ROLE] == 1


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        (None, {}),
        ("  ", {}),
        ("null", {}),
        ('{"a": [1]}', {"a": [1]}),
        ("[1, 2]", {"origin_metadata": [1, 2]}),
        ("{'a': 1}", {"origin_metadata": "{'a': 1}"}),
        ('{"a": NaN}', {"origin_metadata": '{"a": NaN}'}),
        ("[" * 100_000, {"origin_metadata": "[" * 100_000}),
    ],
)
def test_metadata_is_what_its_text_says_or_that_text(
    text: str | None, becomes: dict[str, Any]
) -> None:
    assert kuzu_rows.metadata_of(text) == becomes


@pytest.mark.parametrize(
    ("value", "becomes"),
    [(0.3, 0.3), (7, 1.0), (-1, 0.0), (None, 0.5), (float("nan"), 0.5), ("x", 0.5)],
)
def test_a_share_is_between_nought_and_one(value: Any, becomes: float) -> None:
    assert kuzu_rows.share(value, 0.5) == becomes


def test_a_zone_that_is_none_is_told() -> None:
    assert kuzu.zone_named(None) is None
    assert kuzu.zone_named("Europe/Paris") == PARIS
    for name in ("Europe/Atlantis", "../etc/passwd", ""):
        with pytest.raises(InvalidArgument, match="is no time zone"):
            kuzu.zone_named(name)
