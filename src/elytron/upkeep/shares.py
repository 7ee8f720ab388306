"""
Shares: who has to give when the agents of a store want more than its total.

Decides only. The total is filled like a vessel with water: an agent that uses less than an equal
share leaves the rest to the others, and what the others may have is level. Bytes are whole, so
up to one byte an agent may stay unshared.
"""

from collections.abc import Mapping
from types import MappingProxyType

_NOTHING: Mapping[str, int] = MappingProxyType({})


def fair_level(uses: Mapping[str, int], total_bytes: int) -> int:
    """
    How much any one agent may use, so that all fit.

    Args:
        uses: bytes by agent, 0 or more.
        total_bytes: what they share: the store's total without the reserves.

    Returns:
        The largest whole level L for which sum(min(use, L)) is at most *total_bytes*, if the
        uses exceed it. If they fit: how far the largest could grow before somebody has to give,
        which is the largest use and all that is free. Never below 0.
    """
    rest = max(0, total_bytes)
    largest = 0
    for place, use in enumerate(sorted(uses.values())):
        sharing = len(uses) - place
        if use * sharing > rest:
            return rest // sharing
        rest -= use
        largest = use
    return largest + rest


def furthest_over(
    uses: Mapping[str, int], *, total_bytes: int, wanted: Mapping[str, int] = _NOTHING
) -> list[tuple[str, int]]:
    """
    The agents above their fair share, furthest first, each with the bytes that it is over.

    Args:
        wanted: what agents ask for beyond their use; it counts as if they had it. So one that
            asks for more than its share is among them. Agents without a use may ask too.

    Those that are over by as much come by name. Nobody is over while all fit.
    """
    claims = dict(uses)
    for agent, bytes_wanted in wanted.items():
        claims[agent] = claims.get(agent, 0) + bytes_wanted
    level = fair_level(claims, total_bytes)
    over = [(agent, claim - level) for agent, claim in claims.items() if claim > level]
    return sorted(over, key=lambda entry: (-entry[1], entry[0]))


def victim(
    uses: Mapping[str, int], *, asking: str, need_bytes: int, total_bytes: int
) -> tuple[str, int] | None:
    """
    Whom to trim next so that *asking* gets its *need_bytes*, and by how much.

    Returns:
        (agent, bytes): what it is over its share, at least 1. It is never more than what is
        missing, since each other that is over is so by a byte or more. None if the need fits
        already. It may be the asking agent itself; if that has not so much to give, its need
        has to be refused.

    The agent is one above its fair share, the asking one counted with its need; one at or below
    its share never gives. Ask again after each trim: at most each agent is named once, but for
    those that gave less than they were asked.
    """
    if sum(uses.values()) + need_bytes <= max(0, total_bytes):
        return None
    over = furthest_over(uses, total_bytes=total_bytes, wanted={asking: need_bytes})
    # Had it given all that it has, would its need alone be over its share? Then it never fits,
    # and nobody else is to give in vain.
    if need_bytes > fair_level({**uses, asking: need_bytes}, total_bytes):
        over = [entry for entry in over if entry[0] == asking]
    return over[0]
