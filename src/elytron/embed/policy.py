"""
Policy: which texts get a vector, and why the others do not. Pure.

What is decided when a message is saved stands in its row (`Receipt.embedding`); what is found out
later, that an equal text has a vector already or that there is no room, is noted by the background.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from elytron.config import Config
from elytron.embed.embedder import TEXT_MAX_CHARS
from elytron.ledger.schema import NO_VECTOR_ROOM
from elytron.records import DECLINED as DECLINED

# What is said of a message: it is to have a vector, or why not.
QUEUED = "queued"
DISABLED = "disabled"  # `enable_embeddings` is off
BY_ROLE = "role"  # not one of `embed_roles`
TOO_SHORT = "short"  # fewer characters than `min_embed_chars`
# What is found out later, in `usage()`.
EMBEDDED = "embedded"
SHARED = "shared"
NO_ROOM = "max_vector_mb"
REFUSED = "refused"
_AT_ONCE = 0.05  # where vectors have to go, at least this share does


class Valued(Protocol):
    """What tells the worth of a vector: that of the message or memory that has it."""

    @property
    def key(self) -> int: ...
    @property
    def importance(self) -> float: ...
    @property
    def pinned(self) -> bool: ...
    @property
    def used_us(self) -> int: ...
    @property
    def at_us(self) -> int: ...
    @property
    def bytes(self) -> int: ...


def can_embed(content: str) -> bool:
    """Whether there is something to embed in what an embedder reads of a text."""
    return bool(content[:TEXT_MAX_CHARS].strip())


def decide(role: str, content: str, *, wanted: bool | None, config: Config) -> str:
    """
    Whether a message gets a vector: `queued`, or why not.

    Args:
        wanted: what the caller said; None leaves it to the role and the length.
    """
    if wanted is False:  # noted though embeddings are off: they may be on later
        return DECLINED
    if not config.enable_embeddings:
        return DISABLED
    if not can_embed(content):
        return TOO_SHORT
    if wanted:
        return QUEUED
    if role not in config.embed_roles:
        return BY_ROLE
    if len(content) < config.min_embed_chars:
        return TOO_SHORT
    return QUEUED


def evicted(
    held: Sequence[Valued], new: Sequence[Valued] = (), *, excess_bytes: int
) -> tuple[int, ...]:
    """
    The keys of the least valuable vectors, of those held and of new ones, that together have
    *excess_bytes*; and where any held goes at least a twentieth of all held bytes, so that the next
    does not ask again.

    The value is that of the message: whether it is pinned, its importance, its last use, its age.
    """
    gone: dict[int, None] = {}
    held_keys = {one.key for one in held}
    left_bytes = excess_bytes
    for one in sorted([*held, *new], key=_worth):
        if left_bytes <= 0:
            break
        gone[one.key] = None
        left_bytes -= one.bytes
    if held_keys.isdisjoint(gone):
        return tuple(gone)
    aim = int(_AT_ONCE * sum([one.bytes for one in held]))
    for one in sorted(held, key=_worth):
        if aim <= 0:
            break
        gone[one.key] = None
        aim -= one.bytes
    return tuple(gone)


def _worth(one: Valued) -> tuple[bool, float, int, int, int]:
    return one.pinned, one.importance, one.used_us, one.at_us, one.key


def counted(found: Mapping[tuple[str, bool, bool, int | None], int]) -> dict[str, int]:
    """
    How many messages have a vector, or why they have none.

    Args:
        found: how many there are by (what was said when they were saved, whether they have one,
            whether they share one, the number of a reason found out later).
    """
    counts: dict[str, int] = {}
    for (said, own, share, reason), count in found.items():
        if own or share:
            why = EMBEDDED if own else SHARED
        elif reason is not None:
            why = NO_ROOM if reason == NO_VECTOR_ROOM else REFUSED
        else:
            why = said
        counts[why] = counts.get(why, 0) + count
    return counts
