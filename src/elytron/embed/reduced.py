"""
Reduced: vectors as they are kept: one byte a dimension with a scale, fewer dimensions after a
projection that is fitted on an agent's own vectors. Pure.

What that costs in answers is in docs/recall.md (`vector_dims`); a message's vector is
then 128 bytes, where the embedder gave 1 to 3 KB.

Source: principal components, Jolliffe, "Principal Component Analysis", 2002.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.int8]

_STEPS = 127
FIT_MAX = 4000  # vectors that a projection is fitted on
_FIT_NUMBERS_MAX = 6_000_000  # of all of them: seconds of one core
_TINY = 1e-12
_NOISE = 1e-4  # of the largest share that a direction holds, in single precision


def to_bytes(vectors: Floats) -> tuple[Bytes, Floats]:
    """
    (bytes, scales) of rows, shapes (n, dim) and (n,): `bytes * scale` is within scale / 2 of them.
    """
    scales = np.abs(vectors).max(axis=1, initial=0.0).astype(np.float32) / _STEPS
    steps = np.rint(vectors / np.maximum(scales, _TINY)[:, None])
    return steps.astype(np.int8), scales


def unit(vectors: Floats) -> Floats:
    """The rows at length one; a zero row stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    shortened: Floats = (vectors / np.maximum(lengths, _TINY)).astype(np.float32)
    return shortened


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """
    From an embedder's dimensions to fewer: `unit(components @ vector)`.

    Attributes:
        version: 1 or more; 0 stands for no projection.
        components: shape (dims, input), orthonormal rows.
        fitted_on: how many vectors it was fitted on.
    """

    version: int
    components: Floats
    fitted_on: int

    @property
    def dims(self) -> int:
        return len(self.components)

    def apply(self, vectors: Floats) -> Floats:
        """Rows of (n, input) as rows of unit length of (n, dims)."""
        return unit((vectors @ self.components.T).astype(np.float32))

    def to_data(self) -> bytes:
        """The components in half precision, row by row."""
        return self.components.astype("<f2").tobytes()

    @staticmethod
    def from_data(
        version: int, data: bytes, *, input_dim: int, dims: int, fitted_on: int
    ) -> "Projection":
        """
        What `to_data` gave.

        Raises:
            ValueError: the data have another size.
        """
        numbers = np.frombuffer(data, dtype="<f2").astype(np.float32)
        return Projection(version, numbers.reshape(dims, input_dim), fitted_on)


def data_bytes(input_dim: int, dims: int) -> int:
    """How many bytes `Projection.to_data` gives."""
    return 2 * input_dim * dims


def fit_count(input_dim: int) -> int:
    """How many vectors of so many dimensions a projection is fitted on, at most."""
    return max(256, min(FIT_MAX, _FIT_NUMBERS_MAX // input_dim))


def fit(vectors: Floats, *, dims: int, version: int) -> Projection:
    """
    The projection onto the *dims* directions that hold most of the vectors. They are not centred
    before, so that the cosine of two is kept as well as it can be.

    Args:
        vectors: shape (n, input), n above dims; at most `fit_count` of them are worth while.

    Costs one decomposition of a matrix of min(n, input) squared.
    """
    if len(vectors) > vectors.shape[1]:
        _, directions = np.linalg.eigh(vectors.T @ vectors)
        components = directions[:, ::-1][:, :dims].T
    else:
        values, combinations = np.linalg.eigh(vectors @ vectors.T)
        # Beyond what is noise of the arithmetic a direction is not at right angles to the others.
        held = max(1, int((values > _NOISE * values[-1]).sum()))
        best = combinations[:, ::-1][:, : min(dims, held)]
        components = unit((vectors.T @ best).T)
    return Projection(version, np.ascontiguousarray(components, np.float32), len(vectors))
