"""
Retention: which messages leave the ledger for the archive, and why.

Decides only, from what it is given: no clock, no engine. Whoever asks lists what is held, moves
what the plan says in bounded transactions, and refuses the write where the plan stays short.
"""

import fnmatch
import heapq
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from elytron.config import RetentionRule
from elytron.records import DEFAULT_IMPORTANCE
from elytron.reports import AGE, BYTES, COUNT, EMERGENCY

_DAY_US = 86_400_000_000


class Fact(NamedTuple):
    """
    What the ledger knows of one message that it holds.

    `at_us` is the later of its time and its arrival, so that an old conversation that was
    imported today is new. `bytes` is about what it takes in the ledger. `used_us` is when it was
    last of use to a question; 0 for never.
    """

    key: int
    session: str
    role: str
    at_us: int
    bytes: int
    importance: float
    pinned: bool
    used_us: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    What has to hold once the plan is carried out.

    Attributes:
        archive_after_us: older messages leave; None for only those of which a rule says so.
        keep: the newest so many never leave for their age.
        max_messages: at most so many are held; None for no such limit.
        excess_bytes: so many have to go.
        new_messages: for so many more there has to be room.
        rules: the first that matches a message and sets an effect decides that effect.
        oldest_half_above: from so many held messages on the oldest half leaves; None for never.
        at_once: where messages leave for their number or size, at least this share of those held
            does, so that the next write does not ask again.
    """

    archive_after_us: int | None
    keep: int
    max_messages: int | None
    excess_bytes: int = 0
    new_messages: int = 0
    rules: tuple[RetentionRule, ...] = ()
    oldest_half_above: int | None = None
    at_once: float = 0.1


class Leave(NamedTuple):
    """A message that leaves, the first rule by which it does, and about what that frees."""

    key: int
    reason: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Which messages leave: rule after rule, and by each rule the least valuable first.

    Attributes:
        held: messages before it.
        freed_bytes: about what all the leaving free.
        short_bytes, short_messages: what is still over once they have left. Not zero only where
            all that is not pinned leaves.
    """

    leaving: tuple[Leave, ...]
    held: int
    freed_bytes: int
    short_bytes: int
    short_messages: int


class _Free(NamedTuple):
    """An unpinned message. Tuples of these sort by value, the least valuable first."""

    importance: float
    used_us: int
    at_us: int
    key: int
    bytes: int
    archive_after_us: int | None


class _Effects(NamedTuple):
    """What the rules say of one kind of message; None where they say nothing."""

    pinned: bool | None
    archive_after_us: int | None
    importance: float | None


def plan(facts: Iterable[Fact], *, now_us: int, bounds: Bounds) -> Plan:
    """
    Pick what leaves, least valuable first, until the bounds hold.

    Pinned messages never leave. The value of a message is its importance, then its last use, then
    its age. The rules apply in this order, and a message leaves by the first that takes it:

    - age: what is older than its limit, but for the newest `keep` of all that are held.
    - count: as many as are over `max_messages`. What leaves beyond that, for `at_once`, leaves
      at least `keep`.
    - bytes: until `excess_bytes` are freed. Bytes outrank `keep`.
    - emergency: the oldest half, whatever its value.

    Args:
        facts: all messages that are held, in any order, each key once.
        now_us: the time. What is of a later time has no age.

    Returns:
        The plan; the same one for the same facts in another order.

    Cost: O(n log n) for n facts, and one look at every rule for each role in each session.
    """
    held = list(facts)
    free = _unpinned(held, bounds)
    leaving: dict[int, Leave] = {}

    def take(chosen: Iterable[_Free], reason: str) -> None:
        for message in chosen:
            leaving[message.key] = Leave(message.key, reason, message.bytes)

    take(sorted(_too_old(free, held, now_us=now_us, keep=bounds.keep)), AGE)
    count = _too_many(len(held), len(leaving), bounds)
    excess_bytes = bounds.excess_bytes - _bytes(leaving.values())
    if count or excess_bytes > 0:  # seldom: a clean-up that finds little to do is cheap
        rest = sorted(message for message in free if message.key not in leaving)
        take(rest[:count], COUNT)
        excess_bytes -= sum(message.bytes for message in rest[:count])
        rest = rest[count:]
        take(rest[: _too_large(rest, excess_bytes, at_once=_at_once(len(held), bounds))], BYTES)
    if bounds.oldest_half_above is not None and len(held) >= bounds.oldest_half_above:
        oldest = sorted(free, key=_oldest_first)[: len(held) // 2]
        take([message for message in oldest if message.key not in leaving], EMERGENCY)
    freed_bytes = _bytes(leaving.values())
    wanted = len(held) - len(leaving) + bounds.new_messages
    return Plan(
        leaving=tuple(leaving.values()),
        held=len(held),
        freed_bytes=freed_bytes,
        short_bytes=max(0, bounds.excess_bytes - freed_bytes),
        short_messages=0 if bounds.max_messages is None else max(0, wanted - bounds.max_messages),
    )


def is_quiet(held: int, eldest_us: int, *, now_us: int, bounds: Bounds) -> bool:
    """
    Whether nothing has to leave, by the number of messages and the age of the eldest alone.

    So a clean-up that finds nothing to do, as most, does not look at each of them.
    """
    ages = [bounds.archive_after_us]
    ages += [
        None if rule.archive_after_days is None else round(rule.archive_after_days * _DAY_US)
        for rule in bounds.rules
    ]
    is_old = any(age_us is not None and now_us - eldest_us > age_us for age_us in ages)
    most = bounds.max_messages
    too_many = most is not None and held + bounds.new_messages > most
    half = bounds.oldest_half_above
    return not (
        is_old or too_many or bounds.excess_bytes > 0 or (half is not None and held >= half)
    )


def _too_old(free: Sequence[_Free], held: Sequence[Fact], *, now_us: int, keep: int) -> list[_Free]:
    old = [
        message
        for message in free
        if message.archive_after_us is not None
        and now_us - message.at_us > message.archive_after_us
    ]
    if not old or not keep:
        return old
    # All that are held count among the newest, the pinned too. Since those stay, at least
    # `keep` do.
    kept_from = heapq.nlargest(keep, [(fact.at_us, fact.key) for fact in held])[-1]
    return [message for message in old if _oldest_first(message) < kept_from]


def _oldest_first(message: _Free) -> tuple[int, int]:
    return message.at_us, message.key


def _too_many(held: int, leaving: int, bounds: Bounds) -> int:
    """How many more have to leave."""
    if bounds.max_messages is None:
        return 0
    stay = held - leaving
    over = stay + bounds.new_messages - bounds.max_messages
    if over <= 0:
        return 0
    return max(over, min(_at_once(held, bounds), stay - bounds.keep))


def _too_large(rest: Sequence[_Free], excess_bytes: int, *, at_once: int) -> int:
    """How many of *rest*, from its start, have to leave."""
    if excess_bytes <= 0:
        return 0
    for count, message in enumerate(rest, 1):
        excess_bytes -= message.bytes
        if excess_bytes <= 0:
            return max(count, at_once)
    return len(rest)


def _at_once(held: int, bounds: Bounds) -> int:
    return math.ceil(bounds.at_once * held)


def _bytes(leaving: Iterable[Leave]) -> int:
    return sum(message.bytes for message in leaving)


def _unpinned(held: Iterable[Fact], bounds: Bounds) -> list[_Free]:
    """What may leave, with the importance and the age that the rules give it."""
    effects_of = judge(bounds.rules)
    free = []
    for fact in held:
        effects = effects_of(fact.role, fact.session)
        if fact.pinned or effects.pinned:
            continue
        importance, archive_after_us = fact.importance, effects.archive_after_us
        if importance == DEFAULT_IMPORTANCE and effects.importance is not None:
            importance = effects.importance
        if archive_after_us is None:
            archive_after_us = bounds.archive_after_us
        free.append(
            _Free(importance, fact.used_us, fact.at_us, fact.key, fact.bytes, archive_after_us)
        )
    return free


def judge(rules: Sequence[RetentionRule]) -> Callable[[str, str], _Effects]:
    """What the rules say of a role in a session. Each pair is looked up once."""
    globs = [
        (rule, None if rule.session is None else re.compile(fnmatch.translate(rule.session)))
        for rule in rules
    ]
    known: dict[tuple[str, str], _Effects] = {}

    def effects_of(role: str, session: str) -> _Effects:
        effects = known.get((role, session))
        if effects is None:
            effects = known[role, session] = _effects(
                rule
                for rule, glob in globs
                if rule.role in (None, role) and (glob is None or glob.match(session))
            )
        return effects

    return effects_of


def _effects(matching: Iterable[RetentionRule]) -> _Effects:
    pinned: bool | None = None
    days: float | None = None
    importance: float | None = None
    for rule in matching:
        pinned = rule.pinned if pinned is None else pinned
        days = rule.archive_after_days if days is None else days
        importance = rule.importance if importance is None else importance
    return _Effects(pinned, None if days is None else round(days * _DAY_US), importance)
