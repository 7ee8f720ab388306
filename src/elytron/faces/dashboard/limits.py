"""Limits: what an agent holds beside the most that it may, for bars. Pure."""

from typing import NamedTuple

from elytron.config import Config
from elytron.faces.costs import share_of
from elytron.faces.visible import human_bytes
from elytron.records import Usage

SIZE, MESSAGES, VECTORS, ARCHIVE = LABELS = ("Size", "Messages", "Vectors", "Archive")


class Against(NamedTuple):
    """
    One limit of one agent: `told` is both in words; `setting` the limit's name; `said` what an
    alarm says.
    """

    label: str
    used: float
    maximum: float
    told: str
    setting: str

    @property
    def share(self) -> float:
        return share_of(self.used, self.maximum)

    @property
    def said(self) -> str:
        return f"{self.label.lower()} at {self.share:.0%} of {self.setting}: {self.told}"


def against(usage: Usage, config: Config) -> tuple[Against, ...]:
    """The limits of an agent, in the order of `LABELS`."""
    size, vectors, archive = usage.bytes.total, usage.embeddings.bytes, usage.bytes.archive
    limits = usage.limit_bytes, config.max_vector_bytes, config.archive_full_bytes
    return (
        _bytes(SIZE, size, limits[0], "max_db_size_mb"),
        Against(
            MESSAGES,
            usage.messages,
            usage.max_messages,
            f"{usage.messages:,} of {usage.max_messages:,}",
            "max_messages_per_agent",
        ),
        _bytes(VECTORS, vectors, limits[1], "max_vector_mb"),
        _bytes(ARCHIVE, archive, limits[2], "max_archive_mb"),
    )


def _bytes(label: str, used: int, limit: int, setting: str) -> Against:
    told = f"{human_bytes(used)} of {human_bytes(limit)}" if used else "none"
    return Against(label, used, limit, told, setting)
