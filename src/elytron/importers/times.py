"""
Times: as other programs write them.
"""

from datetime import UTC, datetime

from elytron.errors import InvalidArgument


def iso_time(text: str, member: str) -> datetime:
    """
    A time in ISO 8601. One without a zone is in UTC, as databases and servers write it.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(
            f"`{member}` is no time in ISO 8601, such as 2026-03-02T18:04:10+01:00"
        ) from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
