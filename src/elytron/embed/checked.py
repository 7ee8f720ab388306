"""
Checked: from whatever a provider answered to rows that can be stored. Pure.

Imports numpy, so it is itself imported on first use only.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from elytron.errors import EmbedderUnavailable

DIM_MIN, DIM_MAX = 2, 8192
_NUMBERS = "fiu"  # numpy's kinds: floating, signed, unsigned


def checked(answer: Any, *, n: int, dim: int | None, source: str) -> NDArray[np.float32]:
    """
    An answer as float32 rows of unit length, or an error that says what is wrong with it.

    Args:
        answer: an array, or rows of numbers.
        n: texts that were asked for.
        dim: numbers that a vector must have; None takes any from 2 to 8192.
        source: the embedder's name, for the message.

    Returns:
        Shape (n, dim), C-contiguous. Never the caller's own array.

    Raises:
        EmbedderUnavailable: ragged rows, no numbers, another shape, another dimension than before
            (`permanent`: the model is another), NaN, infinite, or a row without a direction.
    """
    given = _array(answer, source)
    if given.ndim != 2 or given.shape[0] != n:
        raise EmbedderUnavailable(
            f"{source} answered with the shape {_shape(given)} for {n:,} texts;"
            f" it must be one row for each, ({n}, dim)"
        )
    if dim is not None and given.shape[1] != dim:
        raise EmbedderUnavailable(
            f"{source} answered with vectors of {given.shape[1]:,} numbers, not of {dim:,} as"
            " before; give the model that the data was embedded with, or embed anew",
            permanent=True,
        )
    if not DIM_MIN <= given.shape[1] <= DIM_MAX:
        raise EmbedderUnavailable(
            f"{source} answered with vectors of {given.shape[1]:,} numbers; they must have"
            f" {DIM_MIN} to {DIM_MAX:,}",
            permanent=True,
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused just below
        rows = given.astype(np.float32)
    _refuse(np.asarray(~np.isfinite(rows).all(axis=1)), source, "with NaN or infinite numbers")
    wide = rows.astype(np.float64)  # squares of the largest float32 would overflow
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    _refuse(norms == 0, source, "with nothing but zeros")
    return np.ascontiguousarray(wide / norms[:, np.newaxis], dtype=np.float32)


def _array(answer: Any, source: str) -> NDArray[Any]:
    try:
        given = np.asarray(answer)
    except ValueError as error:
        raise EmbedderUnavailable(
            f"{source} answered with rows of different lengths; each must have the same"
        ) from error
    except Exception as error:  # of the answer's own methods; handed to the caller
        raise EmbedderUnavailable(
            f"{source} answered with a {type(answer).__name__} that does not turn into an array"
            f" ({type(error).__name__}); it must be rows of numbers"
        ) from error
    if given.dtype.kind not in _NUMBERS:
        raise EmbedderUnavailable(
            f"{source} answered with a {type(answer).__name__} of {given.dtype.name} values;"
            " they must be plain numbers, one row for each text"
        )
    return given


def _shape(given: NDArray[Any]) -> str:
    return str(given.shape)[:60]


def _refuse(bad: NDArray[np.bool_], source: str, what: str) -> None:
    """Where any row is bad: how many are, and which is the first."""
    if bad.any():
        raise EmbedderUnavailable(
            f"{source} answered for text {int(bad.argmax())} {what}"
            f" ({int(bad.sum()):,} of {bad.size:,} rows)"
        )
