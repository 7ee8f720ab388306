"""Matrix: candidates among the vectors in memory, whole or by their signs."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron.embed import matrix
from elytron.embed.matrix import Matrix
from elytron.embed.reduced import to_bytes, unit


class Row(NamedTuple):
    key: int
    projection: int
    scale: float
    data: bytes


def stored(vectors, *, first=1, projection=0):
    data, scales = to_bytes(vectors)
    return [
        Row(first + nth, projection, float(scale), row.tobytes())
        for nth, (row, scale) in enumerate(zip(data, scales, strict=True))
    ]


def random_rows(count, dim, *, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32))


def clustered(count, dim, *, seed=0):
    """Rows around a few dozen centres, as texts lie around their topics."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, dim))
    noise = rng.normal(size=(count, dim)) * 0.7
    return unit((centres[rng.integers(40, size=count)] + noise).astype(np.float32))


def recall_of(made, vectors, questions, *, count, wanted=10):
    """The share of the *wanted* truly nearest among what was found."""
    shares = []
    for question in questions:
        best = set((np.argsort(-(vectors @ question))[:wanted] + 1).tolist())
        found = made.nearest({0: question}, count=count)
        shares.append(len(best & set(found)) / wanted)
    return float(np.mean(shares))


@pytest.mark.parametrize("rows", [random_rows, clustered])
def test_whole_vectors_give_the_nearest(rows):
    vectors = rows(3000, 64)
    made = Matrix(exact_max=3000)
    made.append(stored(vectors), last=3000)
    assert recall_of(made, vectors, rows(20, 64, seed=7), count=12) > 0.95


@pytest.mark.parametrize(("rows", "least"), [(random_rows, 0.65), (clustered, 0.85)])
def test_signs_find_most_of_the_nearest(rows, least):
    """Among four times as many as were asked for, at 100 as the settings have it."""
    vectors = rows(6000, 128)
    made = Matrix(exact_max=0)
    made.append(stored(vectors), last=6000)
    assert recall_of(made, vectors, rows(20, 128, seed=7), count=100) > least


@given(
    st.lists(st.integers(1, 9), max_size=6),
    st.integers(0, 20),
    st.integers(1, 12),
    st.sampled_from([2, 3, 64, 65]),
)
def test_however_it_is_filled_each_vector_is_found_once(parts, exact_max, count, dim):
    made = Matrix(exact_max=exact_max)
    total = sum(parts)
    vectors = random_rows(max(1, total), dim)
    done = 0
    for size in parts:
        made.append(stored(vectors[done : done + size], first=done + 1), last=done + size)
        done += size
        assert (made.count, made.last) == (done, done)
    question = random_rows(1, dim, seed=3)[0]
    found = made.nearest({0: question}, count=count)
    assert len(found) == len(set(found))
    assert set(found) <= set(range(1, total + 1))
    assert len(found) >= min(count, total)
    everything = made.nearest({0: question}, count=max(1, total))
    assert set(everything) == set(range(1, total + 1))


@given(st.integers(1, 200), st.integers(1, 250), st.integers(0, 2**32 - 1))
def test_the_smallest_are_the_smallest_and_of_equals_the_newest(size, count, seed):
    numbers = np.random.default_rng(seed).integers(0, 6, size=size).astype(np.uint16)
    found = matrix._smallest(numbers, count, most=64).tolist()
    order = sorted(range(size), key=lambda nth: (numbers[nth], -nth))
    assert sorted(found) == sorted(order[:count])


def test_blocks_make_no_difference(monkeypatch):
    vectors, question = random_rows(100, 8), random_rows(1, 8, seed=4)[0]
    for exact_max in (100, 0):
        found = []
        for block in (7, 1 << 15):
            monkeypatch.setattr(matrix, "_BLOCK", block)
            made = Matrix(exact_max=exact_max)
            made.append(stored(vectors), last=100)
            found.append(made.nearest({0: question}, count=5))
        assert found[0] == found[1]


def test_crossing_the_limit_drops_to_signs_and_takes_a_fraction():
    vectors = random_rows(1001, 128)
    made = Matrix(exact_max=1000)
    made.append(stored(vectors[:1000]), last=1000)
    whole_bytes = made.bytes
    made.append(stored(vectors[1000:], first=1001), last=1001)
    assert made.bytes < whole_bytes / 3
    assert made.nearest({0: vectors[1000]}, count=1)[0] == 1001
    assert made.nearest({0: vectors[0]}, count=1)[0] == 1


def test_vectors_of_two_projections_are_compared_each_with_its_question():
    whole, reduced = random_rows(50, 64), random_rows(50, 16, seed=1)
    made = Matrix(exact_max=1000)
    made.append(stored(whole) + stored(reduced, first=101, projection=9), last=200)
    assert made.projections == {0, 9}
    found = made.nearest({0: whole[3], 9: reduced[5]}, count=1)
    assert set(found) == {4, 106}
    assert made.nearest({9: reduced[5]}, count=1) == [106]
    assert made.nearest({0: reduced[5]}, count=1) == [], "a question of another size"


def test_an_empty_one_finds_nothing():
    made = Matrix(exact_max=10)
    made.append([], last=7)
    assert (made.nearest({0: random_rows(1, 4)[0]}, count=3), made.last, made.bytes) == ([], 7, 0)
