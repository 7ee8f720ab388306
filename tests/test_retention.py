"""Retention: what leaves, why, and in which order, against an oracle that takes one at a time."""

import math
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elytron.config import RetentionRule
from elytron.reports import AGE, BYTES, COUNT, EMERGENCY
from elytron.upkeep.retention import Bounds, Fact, Leave, Plan, is_quiet, plan

DAY_US = 86_400_000_000
YEAR_US = 365 * DAY_US
NOW_US = 9 * DAY_US


def fact(key, **rest):
    """A plain message, as old as its key is small."""
    plain = {
        "session": "a",
        "role": "user",
        "at_us": key * DAY_US,
        "bytes": 10,
        "importance": 0.5,
        "pinned": False,
        "used_us": 0,
    }
    return Fact(key=key, **(plain | rest))


def bounds(**rest):
    """Nothing leaves, unless *rest* says so."""
    nothing = {"archive_after_us": None, "keep": 0, "max_messages": None, "at_once": 0.0}
    return Bounds(**(nothing | rest))


def leaving(facts, *, now_us=NOW_US, **rest):
    """(key, reason) of what leaves, in its order."""
    planned = plan(facts, now_us=now_us, bounds=bounds(**rest))
    return [(message.key, message.reason) for message in planned.leaving]


def keys(facts, **rest):
    return [key for key, _ in leaving(facts, **rest)]


# -- an oracle that is slow and plain


def rule_for(fact, rules, effect):
    """What the first matching rule that sets *effect* says of it; else None."""
    for rule in rules:
        if rule.role is not None and rule.role != fact.role:
            continue
        if rule.session is not None and not fnmatchcase(fact.session, rule.session):
            continue
        if getattr(rule, effect) is not None:
            return getattr(rule, effect)
    return None


def is_pinned(fact, rules):
    return fact.pinned or bool(rule_for(fact, rules, "pinned"))


def value(fact, rules):
    ruled = rule_for(fact, rules, "importance")
    importance = ruled if ruled is not None and fact.importance == 0.5 else fact.importance
    return (importance, fact.used_us, fact.at_us, fact.key)


def is_old(fact, now_us, b):
    days = rule_for(fact, b.rules, "archive_after_days")
    after_us = b.archive_after_us if days is None else days * DAY_US
    return after_us is not None and max(0, now_us - fact.at_us) > after_us


def oracle(facts, now_us, b):
    """Take away the least valuable, one at a time, for as long as a rule asks for it."""
    staying, gone = list(facts), []
    newest = sorted(facts, key=lambda f: (f.at_us, f.key), reverse=True)[: b.keep]
    batch = math.ceil(b.at_once * len(facts))

    def free():
        return sorted(
            (f for f in staying if not is_pinned(f, b.rules)), key=lambda f: value(f, b.rules)
        )

    def take(f, reason):
        staying.remove(f)
        gone.append(Leave(f.key, reason, f.bytes))

    def freed():
        return sum(leave.bytes for leave in gone)

    while len(staying) > b.keep and (
        old := [f for f in free() if is_old(f, now_us, b) and f not in newest]
    ):
        take(old[0], AGE)

    def over():
        return b.max_messages is not None and len(staying) + b.new_messages > b.max_messages

    taken, begun = 0, over()
    while begun and free() and (over() or (taken < batch and len(staying) > b.keep)):
        take(free()[0], COUNT)
        taken += 1
    taken, begun = 0, freed() < b.excess_bytes
    while begun and free() and (freed() < b.excess_bytes or taken < batch):
        take(free()[0], BYTES)
        taken += 1
    if b.oldest_half_above is not None and len(facts) >= b.oldest_half_above:
        loose = [f for f in facts if not is_pinned(f, b.rules)]
        for f in sorted(loose, key=lambda f: (f.at_us, f.key))[: len(facts) // 2]:
            if f in staying:
                take(f, EMERGENCY)
    missing = 0
    if b.max_messages is not None:
        missing = max(0, len(staying) + b.new_messages - b.max_messages)
    return Plan(tuple(gone), len(facts), freed(), max(0, b.excess_bytes - freed()), missing)


# -- small ranges, so that ties and exact fits happen

times = st.integers(0, 12).map(lambda n: n * DAY_US)
facts_lists = st.lists(
    st.tuples(
        st.sampled_from(["a", "ab", "b"]),
        st.sampled_from(["user", "system"]),
        times,
        st.integers(0, 3),
        st.sampled_from([0.0, 0.5, 0.5, 1.0]),
        st.sampled_from([False, False, False, True]),
        st.integers(0, 2),
    ),
    max_size=9,
).map(lambda rows: [Fact(key, *row) for key, row in enumerate(rows)])
rules_lists = st.lists(
    st.builds(
        RetentionRule,
        role=st.sampled_from([None, "user", "system"]),
        session=st.sampled_from([None, "a*", "?", "[!a]", "a"]),
        pinned=st.sampled_from([None, None, True, False]),
        archive_after_days=st.sampled_from([None, 1.0, 3.0]),
        importance=st.sampled_from([None, 0.0, 0.7]),
    ),
    max_size=3,
).map(tuple)
bounds_given = st.builds(
    Bounds,
    archive_after_us=st.one_of(st.none(), times),
    keep=st.integers(0, 10),
    max_messages=st.one_of(st.none(), st.integers(0, 10)),
    excess_bytes=st.integers(0, 20),
    new_messages=st.integers(0, 3),
    rules=rules_lists,
    oldest_half_above=st.one_of(st.none(), st.integers(0, 10)),
    at_once=st.sampled_from([0.0, 0.05, 0.4, 1.0]),
)


@settings(max_examples=600)
@given(facts_lists, times, bounds_given)
def test_the_plan_is_the_one_that_taking_one_at_a_time_makes(facts, now_us, b):
    assert plan(facts, now_us=now_us, bounds=b) == oracle(facts, now_us, b)


@given(facts_lists, times, bounds_given)
def test_where_number_and_age_say_so_nothing_has_to_leave(facts, now_us, b):
    eldest_us = min([f.at_us for f in facts], default=0)
    if is_quiet(len(facts), eldest_us, now_us=now_us, bounds=b):
        assert plan(facts, now_us=now_us, bounds=b) == Plan((), len(facts), 0, 0, 0)


@pytest.mark.parametrize(
    "loud",
    [
        {"archive_after_us": 3 * DAY_US},
        {"rules": (RetentionRule(role="nobody", archive_after_days=3),)},
        {"max_messages": 7},
        {"max_messages": 9, "new_messages": 2},
        {"excess_bytes": 1},
        {"oldest_half_above": 8},
    ],
)
def test_each_bound_that_may_be_passed_is_looked_at(loud):
    calm = {"archive_after_us": 5 * DAY_US, "max_messages": 9, "oldest_half_above": 9}
    eldest_us = NOW_US - 4 * DAY_US
    assert is_quiet(8, eldest_us, now_us=NOW_US, bounds=bounds(**calm))
    assert not is_quiet(8, eldest_us, now_us=NOW_US, bounds=bounds(**(calm | loud)))


@given(facts_lists, times, bounds_given)
def test_nothing_pinned_leaves_and_nothing_leaves_twice(facts, now_us, b):
    planned = plan(facts, now_us=now_us, bounds=b)
    gone = [message.key for message in planned.leaving]
    assert len(gone) == len(set(gone))
    assert not [f for f in facts if f.key in gone and is_pinned(f, b.rules)]
    assert planned.freed_bytes == sum(message.bytes for message in planned.leaving)


@given(facts_lists, times, bounds_given)
def test_nobody_leaves_for_number_or_size_while_a_less_valuable_one_stays(facts, now_us, b):
    planned = plan(facts, now_us=now_us, bounds=b)
    gone = {message.key for message in planned.leaving}
    stay = [value(f, b.rules) for f in facts if f.key not in gone and not is_pinned(f, b.rules)]
    by_key = {f.key: value(f, b.rules) for f in facts}
    for message in planned.leaving:
        if message.reason in (COUNT, BYTES) and stay:
            assert by_key[message.key] < min(stay)


@given(facts_lists, times, bounds_given)
def test_the_bounds_hold_after_the_plan_or_what_is_missing_is_told(facts, now_us, b):
    planned = plan(facts, now_us=now_us, bounds=b)
    after = len(facts) - len(planned.leaving) + b.new_messages
    loose = [f for f in facts if not is_pinned(f, b.rules)]
    if b.max_messages is not None:
        assert planned.short_messages == max(0, after - b.max_messages)
    assert planned.short_bytes == max(0, b.excess_bytes - planned.freed_bytes)
    if planned.short_messages or planned.short_bytes:
        assert len(planned.leaving) == len(loose), "all that may leave has to, before it is short"


@given(facts_lists, times, st.integers(0, 10), st.one_of(st.none(), times), rules_lists)
def test_age_leaves_the_newest_whatever_the_clock_says(facts, now_us, keep, after_us, rules):
    for clock_us in (now_us, now_us + YEAR_US, now_us + 1000 * YEAR_US):
        gone = keys(facts, now_us=clock_us, keep=keep, archive_after_us=after_us, rules=rules)
        assert len(facts) - len(gone) >= min(keep, len(facts))
        newest = sorted(facts, key=lambda f: (f.at_us, f.key))[-keep:] if keep else []
        assert not {f.key for f in newest} & set(gone)


@given(facts_lists, times, times, bounds_given)
def test_what_leaves_for_its_age_leaves_at_every_later_time_too(facts, now_us, later_us, b):
    def aged(at_us):
        planned = plan(facts, now_us=at_us, bounds=b)
        return {message.key for message in planned.leaving if message.reason == AGE}

    assert aged(now_us) <= aged(now_us + later_us)


@given(facts_lists, bounds_given)
def test_a_clock_that_went_back_takes_nothing_for_its_age(facts, b):
    for now_us in (0, -YEAR_US):
        planned = plan(facts, now_us=now_us, bounds=b)
        assert AGE not in {message.reason for message in planned.leaving}


@given(st.data(), facts_lists, times, bounds_given)
def test_the_order_of_the_facts_does_not_matter(data, facts, now_us, b):
    mixed = data.draw(st.permutations(facts))
    assert plan(iter(mixed), now_us=now_us, bounds=b) == plan(facts, now_us=now_us, bounds=b)


@given(facts_lists, times, bounds_given)
def test_once_a_plan_is_carried_out_age_and_number_ask_for_nothing_more(facts, now_us, b):
    """Or a clean-up would take a little more each time, until nothing is left."""
    b = Bounds(b.archive_after_us, b.keep, b.max_messages, rules=b.rules, at_once=b.at_once)
    gone = {message.key for message in plan(facts, now_us=now_us, bounds=b).leaving}
    rest = [f for f in facts if f.key not in gone]
    assert plan(rest, now_us=now_us, bounds=b).leaving == ()


# -- each rule by an example


def test_an_empty_agent_has_nothing_to_lose():
    everything = bounds(max_messages=0, new_messages=2, excess_bytes=3, oldest_half_above=0)
    assert plan([], now_us=NOW_US, bounds=everything) == Plan((), 0, 0, 3, 2)


def test_what_is_exactly_at_its_limits_stays():
    facts = [fact(n) for n in range(5)]
    assert not leaving(facts, archive_after_us=NOW_US)  # the oldest is just so old
    assert keys(facts, archive_after_us=NOW_US - 1) == [0]
    assert not leaving(facts, max_messages=5)
    assert not leaving(facts, max_messages=5, at_once=1.0)
    assert not leaving(facts, max_messages=6, new_messages=1)
    assert keys(facts, max_messages=5, new_messages=1) == [0]
    assert keys(facts, excess_bytes=20) == [0, 1]
    assert keys(facts, excess_bytes=21) == [0, 1, 2]


def test_importance_goes_before_use_and_use_before_age():
    facts = [
        fact(1, importance=0.6),
        fact(2, used_us=5),
        fact(3, used_us=4),
        fact(4),
        fact(5, importance=0.1, used_us=9),
        fact(6, at_us=4 * DAY_US),
    ]
    assert keys(facts, excess_bytes=60) == [5, 4, 6, 3, 2, 1]
    assert keys(facts, max_messages=3) == [5, 4, 6]


def test_a_message_leaves_by_the_first_rule_that_takes_it():
    facts = [fact(n) for n in range(8)]
    taken = leaving(
        facts,
        archive_after_us=NOW_US - DAY_US,
        max_messages=6,
        excess_bytes=30,
        oldest_half_above=8,
    )
    assert taken == [(0, AGE), (1, COUNT), (2, BYTES), (3, EMERGENCY)]


def test_bytes_outrank_what_is_kept_but_age_does_not():
    facts = [fact(n) for n in range(4)]
    assert not leaving(facts, archive_after_us=0, keep=4)
    assert keys(facts, archive_after_us=0, keep=3) == [0]
    assert keys(facts, excess_bytes=40, keep=4) == [0, 1, 2, 3]


def test_the_newest_that_are_kept_are_among_all_that_are_held():
    """A pinned message counts as one of them, so no unpinned one is kept in its place."""
    facts = [fact(1), fact(2), fact(3, pinned=True)]
    assert keys(facts, archive_after_us=0, keep=1) == [1, 2]
    assert keys(facts, archive_after_us=0, keep=2) == [1]


def test_enough_leave_at_once_that_the_next_write_need_not_ask_again():
    facts = [fact(n) for n in range(100)]
    assert len(keys(facts, max_messages=99, at_once=0.05)) == 5
    assert len(keys(facts, max_messages=90, at_once=0.05)) == 10
    assert len(keys(facts, max_messages=99, keep=97, at_once=0.05)) == 3
    assert len(keys(facts, max_messages=99, keep=99, at_once=0.05)) == 1
    assert len(keys(facts, max_messages=99, keep=100, at_once=0.05)) == 1
    assert len(keys(facts, excess_bytes=1, at_once=0.05)) == 5
    assert len(keys(facts[:99], excess_bytes=1, keep=99, at_once=0.05)) == 5
    assert Bounds(None, 0, None).at_once == 0.1


def test_what_is_pinned_leaves_the_plan_short_by_what_it_holds():
    facts = [fact(1, pinned=True), fact(2, pinned=True), fact(3)]
    planned = plan(facts, now_us=NOW_US, bounds=bounds(max_messages=1, excess_bytes=25))
    assert planned == Plan((Leave(3, COUNT, 10),), 3, 10, 15, 1)


def test_in_an_emergency_the_oldest_half_leaves_whatever_its_value():
    facts = [fact(n, importance=1 - n / 10, used_us=9 - n) for n in range(5)]
    assert leaving(facts, oldest_half_above=5) == [(0, EMERGENCY), (1, EMERGENCY)]
    assert not leaving(facts, oldest_half_above=6)
    pinned = [fact(n, pinned=n < 4) for n in range(5)]
    assert keys(pinned, oldest_half_above=5) == [4]


def test_a_message_of_the_future_has_no_age():
    facts = [fact(1, at_us=NOW_US + YEAR_US), fact(2)]
    assert keys(facts, archive_after_us=0) == [2]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], [0, 1, 2, 3]),
        ([RetentionRule(role="system", pinned=True)], [1, 2, 3]),
        ([RetentionRule(session="web-*", pinned=True)], [0, 3]),
        ([RetentionRule(session="WEB-*", pinned=True)], [0, 1, 2, 3]),
        ([RetentionRule(session="Desk", pinned=True)], [1, 2, 3]),
        ([RetentionRule(session="desk", pinned=True)], [0, 1, 2, 3]),
        ([RetentionRule(role="tool", session="web-*", pinned=True)], [0, 1, 3]),
        (
            [
                RetentionRule(session="web-1", pinned=False),
                RetentionRule(session="web-*", pinned=True),
            ],
            [0, 1, 3],
        ),
        ([RetentionRule(session="web-?", importance=0.9)], [0, 3, 1, 2]),
        ([RetentionRule(session="home", importance=0.1)], [3, 0, 1, 2]),
        (
            [
                RetentionRule(session="web-*", importance=0.1),
                RetentionRule(session="web-2", importance=0.9, pinned=True),
            ],
            [1, 0, 3],
        ),
    ],
)
def test_a_rule_says_what_stays_and_what_goes_first(rules, expected):
    facts = [
        fact(0, session="Desk", role="system"),
        fact(1, session="web-1"),
        fact(2, session="web-2", role="tool"),
        fact(3, session="home"),
    ]
    assert keys(facts, excess_bytes=40, rules=tuple(rules)) == expected


def test_an_importance_given_with_the_message_wins_over_a_rules():
    facts = [fact(1, importance=0.4), fact(2), fact(3, importance=0.6)]
    rules = (RetentionRule(role="user", importance=0.1),)
    assert keys(facts, excess_bytes=30, rules=rules) == [2, 1, 3]


def test_a_rules_age_wins_over_the_general_one_and_holds_without_it():
    facts = [fact(1), fact(2, session="web-1"), fact(3, session="web-1")]
    sooner = (RetentionRule(session="web-*", archive_after_days=6),)
    later = (RetentionRule(session="web-*", archive_after_days=7),)
    assert keys(facts, archive_after_us=None, rules=sooner) == [2]
    assert keys(facts, archive_after_us=30 * DAY_US, rules=sooner) == [2]
    assert keys(facts, archive_after_us=5 * DAY_US, rules=later) == [1]
    assert keys(facts, archive_after_us=5 * DAY_US, rules=(*sooner, *later)) == [1, 2]
