"""Reduced: vectors in a byte a dimension, and in fewer dimensions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron.embed import reduced
from elytron.embed.reduced import Projection, fit, to_bytes, unit


def random_rows(count, dim, *, seed=0, rank=None):
    """Rows of unit length; with *rank* all of them in so many dimensions."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dim if rank is None else rank))
    if rank is not None:
        rows = rows @ rng.normal(size=(rank, dim))
    return unit(rows.astype(np.float32))


def like_texts(count, dim, *, seed=0):
    """Rows whose directions matter less and less, as those of an embedder's do."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.sqrt(1.0 + np.arange(dim))
    turned, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    return unit(((rng.normal(size=(count, dim)) * weights) @ turned).astype(np.float32))


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), max_size=9))
def test_a_number_comes_back_to_within_half_a_step(rows):
    vectors = np.array(rows, np.float32).reshape(-1, 3)
    data, scales = to_bytes(vectors)
    assert data.dtype == np.int8
    assert data.shape == vectors.shape
    assert len(scales) == len(vectors)
    error = np.abs(data * scales[:, None] - vectors)
    assert (error <= scales[:, None] / 2 + 1e-9).all()


def test_the_smallest_numbers_and_zeros_are_no_trouble():
    vectors = np.array([[0, 0], [1e-38, -1e-38], [1, 0]], np.float32)
    data, scales = to_bytes(vectors)
    assert np.isfinite(scales).all()
    assert (data[0] == 0).all()
    assert (unit(vectors)[0] == 0).all()


@pytest.mark.parametrize("count", [300, 64, 40], ids=["tall", "square", "wide"])
def test_components_are_at_right_angles(count):
    projection = fit(random_rows(count, 64), dims=16, version=3)
    assert projection.version == 3
    assert projection.fitted_on == count
    assert projection.components.shape == (16, 64)
    assert np.allclose(projection.components @ projection.components.T, np.eye(16), atol=1e-3)


@pytest.mark.parametrize("count", [300, 60], ids=["tall", "wide"])
def test_vectors_of_few_directions_lose_nothing(count):
    """All lie in 8 dimensions of 64: what is beyond is noise, and no direction is made of it."""
    vectors = random_rows(count, 64, rank=8)
    projection = fit(vectors, dims=16, version=1)
    before, after = vectors @ vectors.T, projection.apply(vectors) @ projection.apply(vectors).T
    assert np.abs(before - after).max() < 2e-3


@pytest.mark.parametrize("count", [300, 40], ids=["tall", "wide"])
def test_equal_vectors_all_over_can_be_reduced(count):
    vectors = np.repeat(random_rows(1, 64), count, axis=0)
    projection = fit(vectors, dims=16, version=1)
    assert np.allclose(projection.apply(vectors) @ projection.apply(vectors).T, 1, atol=1e-3)


def test_a_projection_is_what_was_stored_of_it():
    fitted = fit(like_texts(300, 64), dims=16, version=7)
    data = fitted.to_data()
    assert len(data) == reduced.data_bytes(64, 16)
    again = Projection.from_data(7, data, input_dim=64, dims=16, fitted_on=300)
    assert (again.version, again.dims, again.fitted_on) == (7, 16, 300)
    rows = like_texts(50, 64, seed=1)
    assert np.abs(again.apply(rows) - fitted.apply(rows)).max() < 2e-3


@pytest.mark.parametrize("size", [0, 2, 2 * 64 * 16 - 2, 2 * 64 * 16 + 2])
def test_data_of_another_size_are_refused(size):
    with pytest.raises(ValueError, match="reshape"):
        Projection.from_data(1, bytes(size), input_dim=64, dims=16, fitted_on=1)


def test_the_nearest_stay_the_nearest():
    """Of vectors as an embedder makes them; of those that fill all dimensions alike it is less."""
    rows, questions = like_texts(2000, 256), like_texts(50, 256, seed=5)
    projection = fit(rows[:1000], dims=128, version=1)
    data, scales = to_bytes(projection.apply(rows))
    kept = data.astype(np.float32) * scales[:, None]
    best = np.argsort(-(questions @ rows.T), axis=1)[:, :10]
    found = np.argsort(-(projection.apply(questions) @ kept.T), axis=1)[:, :20]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best, found, strict=True)])
    assert recall > 0.7


def test_fitting_takes_bounded_work():
    for dim in (2, 128, 1024, 8192):
        count = reduced.fit_count(dim)
        assert 256 <= count <= reduced.FIT_MAX
        assert min(count, dim) ** 2 * max(count, dim) < 4e10
