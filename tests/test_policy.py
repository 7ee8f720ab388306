"""Policy: which texts get a vector, which vectors go first, and how it is counted."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron.config import Config
from elytron.embed import policy
from elytron.ledger.schema import NO_VECTOR_GIVEN, NO_VECTOR_ROOM
from elytron.records import ROLES

ON = Config(enable_embeddings=True, min_embed_chars=5)


class One(NamedTuple):
    key: int
    importance: float
    pinned: bool
    used_us: int
    at_us: int
    bytes: int


@given(st.sampled_from(sorted(ROLES)), st.text(max_size=9), st.sampled_from([None, True, False]))
def test_who_gets_a_vector_is_said_by_the_caller_else_by_role_and_length(role, content, wanted):
    decided = policy.decide(role, content, wanted=wanted, config=ON)
    if wanted is False:
        assert decided == policy.DECLINED
    elif not content.strip():
        assert decided == policy.TOO_SHORT
    elif wanted:
        assert decided == policy.QUEUED
    elif role not in ("user", "assistant"):
        assert decided == policy.BY_ROLE
    else:
        assert decided == (policy.QUEUED if len(content) >= 5 else policy.TOO_SHORT)
    off = Config(enable_embeddings=False)
    switched_off = policy.DECLINED if wanted is False else policy.DISABLED
    assert policy.decide(role, content, wanted=wanted, config=off) == switched_off


ONES = st.lists(
    st.builds(
        One,
        st.integers(1, 20),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.booleans(),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(1, 9),
    ),
    max_size=9,
    unique_by=lambda one: one.key,
)


@given(ONES, st.integers(-3, 60))
def test_the_least_valuable_go_until_it_is_enough_and_no_further(held, excess_bytes):
    gone = policy.evicted(held, excess_bytes=excess_bytes)
    if excess_bytes <= 0:
        assert gone == ()
        return
    sizes = {one.key: one.bytes for one in held}
    aim = max(excess_bytes, sum(sizes.values()) // 20)
    freed = [sizes[key] for key in gone]
    assert sum(freed) >= min(aim, sum(sizes.values())) or len(gone) == len(held)
    assert not gone or sum(freed[:-1]) < aim, "one more than was needed"

    def worth(one):
        return one.pinned, one.importance, one.used_us, one.at_us, one.key

    stays = [worth(one) for one in held if one.key not in gone]
    assert all(worth(one) < least for one in held if one.key in gone for least in stays)


@pytest.mark.parametrize(
    ("more", "less"),
    [
        (One(1, 0.0, True, 0, 0, 1), One(2, 1.0, False, 9, 9, 1)),
        (One(1, 0.6, False, 0, 0, 1), One(2, 0.5, False, 9, 9, 1)),
        (One(1, 0.5, False, 1, 0, 1), One(2, 0.5, False, 0, 9, 1)),
        (One(1, 0.5, False, 0, 1, 1), One(2, 0.5, False, 0, 0, 1)),
    ],
    ids=["pinned", "important", "used", "newer"],
)
def test_what_counts_most_is_the_pin_then_importance_then_use_then_age(more, less):
    assert policy.evicted([more, less], excess_bytes=1) == (less.key,)


@given(
    st.dictionaries(
        st.tuples(
            st.sampled_from([policy.QUEUED, policy.DISABLED, policy.TOO_SHORT]),
            st.booleans(),
            st.booleans(),
            st.sampled_from([None, NO_VECTOR_ROOM, NO_VECTOR_GIVEN]),
        ),
        st.integers(1, 9),
    )
)
def test_each_message_is_counted_once_under_the_latest_that_is_known(found):
    counts = policy.counted(found)
    assert sum(counts.values()) == sum(found.values())
    for name, own, share in ((policy.EMBEDDED, True, None), (policy.SHARED, False, True)):
        expected = [n for (_, o, s, _), n in found.items() if o == own and share in (None, s)]
        assert counts.get(name, 0) == sum(expected)
    for name, reason in ((policy.NO_ROOM, NO_VECTOR_ROOM), (policy.REFUSED, NO_VECTOR_GIVEN)):
        expected = [n for (_, o, s, r), n in found.items() if not o and not s and r == reason]
        assert counts.get(name, 0) == sum(expected)
