"""Properties of fair shares: numbers small enough that ties and exact fits happen."""

from hypothesis import example, given
from hypothesis import strategies as some

from elytron.upkeep.shares import fair_level, furthest_over, victim

NAMES = "abcdefghi"
BYTES = some.integers(0, 9)
USES = some.dictionaries(some.sampled_from(NAMES), BYTES, max_size=9)
TOTALS = some.integers(0, 60)


def levelled(uses, level):
    return sum(min(use, level) for use in uses.values())


def slow_level(uses, total):
    """The same by trying: from the highest level down, the first at which all fit."""
    level = max(uses.values(), default=0)
    while level > 0 and levelled(uses, level) > total:
        level -= 1
    if sum(uses.values()) <= total:
        level += total - sum(uses.values())
    return level


@given(USES, TOTALS)
@example({}, 0)
@example({"a": 3, "b": 3}, 6)
@example({"a": 3, "b": 3}, 5)
def test_the_level_is_the_one_that_a_slow_search_finds(uses, total):
    assert fair_level(uses, total) == slow_level(uses, total)


@given(USES, TOTALS)
def test_up_to_the_level_all_fit_and_one_higher_they_would_not(uses, total):
    level = fair_level(uses, total)
    assert levelled(uses, level) <= total
    if sum(uses.values()) > total:
        assert levelled(uses, level + 1) > total
    else:
        assert all(use <= level for use in uses.values())


@given(USES, TOTALS)
def test_an_agent_at_an_equal_share_or_less_is_never_over_it(uses, total):
    over = dict(furthest_over(uses, total_bytes=total))
    assert all(uses[agent] * len(uses) > total for agent in over)


@given(USES, TOTALS, some.sampled_from(NAMES), some.integers(1, 9))
def test_who_uses_less_leaves_more_to_the_others(uses, total, name, saved):
    less = {**uses, name: max(0, uses.get(name, 0) - saved)}
    assert fair_level(less, total) >= fair_level({name: 0, **uses}, total)


@given(USES, TOTALS)
def test_one_agent_alone_has_the_whole_total(uses, total):
    for use in uses.values():
        assert fair_level({"a": use}, total) == total


def test_a_total_below_nothing_is_shared_like_nothing():
    assert fair_level({"a": 3}, -5) == 0
    assert furthest_over({"a": 3, "b": 0}, total_bytes=-5) == [("a", 3)]
    assert victim({}, asking="a", need_bytes=0, total_bytes=-5) is None
    assert victim({}, asking="a", need_bytes=2, total_bytes=-5) == ("a", 2)


@given(USES, TOTALS, USES)
def test_the_furthest_over_come_first_and_ties_by_name(uses, total, wanted):
    claims = {name: uses.get(name, 0) + wanted.get(name, 0) for name in {*uses, *wanted}}
    level = slow_level(claims, total)
    over = furthest_over(uses, total_bytes=total, wanted=wanted)
    assert dict(over) == {name: use - level for name, use in claims.items() if use > level}
    assert over == sorted(over, key=lambda entry: (-entry[1], entry[0]))
    assert bool(over) == (sum(claims.values()) > total)


def test_ties_go_by_name():
    uses = {"b": 5, "c": 5, "a": 5, "d": 1}
    assert furthest_over(uses, total_bytes=10) == [("a", 2), ("b", 2), ("c", 2)]
    assert victim(uses, asking="d", need_bytes=0, total_bytes=15) == ("a", 1)


def test_who_asks_for_more_than_its_share_is_itself_over():
    assert victim({"a": 6, "b": 4}, asking="a", need_bytes=3, total_bytes=10) == ("a", 3)
    assert victim({"a": 6, "b": 4}, asking="b", need_bytes=1, total_bytes=10) == ("a", 1)
    assert victim({"a": 6, "b": 4}, asking="b", need_bytes=0, total_bytes=10) is None


def test_nobody_gives_in_vain_for_what_could_never_fit():
    """b asks for 8 of 10, and a has 9: even if a gave what it is over, 8 would not be free."""
    assert victim({"a": 9}, asking="b", need_bytes=8, total_bytes=10) == ("b", 3)
    assert victim({"a": 9}, asking="b", need_bytes=5, total_bytes=10) == ("a", 4)


ASKS = some.lists(some.tuples(some.sampled_from(NAMES), some.integers(0, 12)), max_size=12)


@given(USES, TOTALS, ASKS)
def test_whoever_asks_nobody_below_its_share_ever_gives(uses, total, asks):
    """
    Method: agents ask in turn; whoever is named gives just as much, until the need fits or the
    asking one is named and has too little. The shares come from the slow search.
    """
    for asking, need in asks:
        named = []
        while (
            found := victim(uses, asking=asking, need_bytes=need, total_bytes=total)
        ) is not None:
            agent, give = found
            claims = {**uses, asking: uses.get(asking, 0) + need}
            over = claims[agent] - slow_level(claims, total)
            short = sum(claims.values()) - total
            assert 1 <= give <= over
            assert give <= short
            assert agent not in named, "once it gave, it is at its share"
            named.append(agent)
            if give > uses.get(agent, 0):
                assert agent == asking, "nobody is asked for more than it has"
                assert need > slow_level({**uses, asking: need}, total)
                assert named == [asking], "and before it is refused, nobody else gave"
                break
            uses = {**uses, agent: uses[agent] - give}
        else:
            assert sum(uses.values()) + need <= total
            uses = {**uses, asking: uses.get(asking, 0) + need}


@given(some.dictionaries(some.sampled_from(NAMES), BYTES, min_size=2, max_size=9), TOTALS)
def test_agents_that_never_stop_asking_end_with_equal_shares(uses, total):
    """One byte each in turn: afterwards nobody has two bytes more than another."""
    names = sorted(uses)
    for _ in range(sum(uses.values()) + total + 9):
        for asking in names:
            while (
                found := victim(uses, asking=asking, need_bytes=1, total_bytes=total)
            ) is not None:
                agent, give = found
                if agent == asking:
                    break
                uses = {**uses, agent: uses[agent] - give}
            else:
                uses = {**uses, asking: uses[asking] + 1}
    if sum(uses.values()) <= total:
        assert max(uses.values()) - min(uses.values()) <= 1
