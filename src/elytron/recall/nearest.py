"""
Nearest: which messages and memories mean about the same as a question, by their vectors.

The matrix in memory finds candidates; what each is worth is computed from the ledger's own rows,
in the same snapshot as everything else, so nothing that is gone or changed counts.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from elytron.config import Config
from elytron.ledger import reads, vector_reads, vectors
from elytron.ledger.database import Database

if TYPE_CHECKING:  # numpy is an extra
    from elytron.embed.matrix import Matrix
    from elytron.embed.reduced import Floats, Projection

_PAGE = 1024  # vectors read at once
# The matrix is loaded anew when more than this share of it, and so many, are gone.
_GONE_SHARE, _GONE_MIN = 0.05, 256


class Nearest:
    """The vectors of one agent, as this process has them in memory. Safe for many threads."""

    def __init__(self, *, config: Config, source: object) -> None:
        self._config = config
        self._source = source
        self._mutex = threading.Lock()
        self._matrix: Matrix | None = None
        self._projections: dict[int, Projection] = {}

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        matrix = self._matrix
        return 0 if matrix is None else matrix.bytes

    def forget(self) -> None:
        """Give the memory back, as after an erasure; the next question loads it anew."""
        with self._mutex:
            self._matrix = None
            self._projections.clear()

    def keys(
        self,
        db: Database,
        state: vectors.State,
        question: "Floats",
        *,
        count: int,
        accept: reads.Filter | None = None,
        scores: Callable[[Sequence[int]], dict[int, float]] | None = None,
    ) -> list[int]:
        """
        The keys of the *count* nearest messages and memories, if there are so many, best first; of
        those that share a vector also the newest, a thousand at most.

        Args:
            accept: of those that share one the newest message that passes this, and the memories.
            scores: what compares instead of `scores`.

        The first question loads the matrix: about a second for a million.
        """
        compare = scores or partial(self.scores, db, question)
        found, gone = self._best(db, state, question, count=count, compare=compare)
        if len(found) < count and gone > _GONE_MIN:
            # Those fetched may all be gone, with others behind them: this is not yet the end.
            with self._mutex:
                self._matrix = None
            found, _ = self._best(db, state, question, count=count, compare=compare)
        return list(dict.fromkeys(found + vector_reads.sharing(db, found, accept)))

    def _best(
        self,
        db: Database,
        state: vectors.State,
        question: "Floats",
        *,
        count: int,
        compare: Callable[[Sequence[int]], dict[int, float]],
    ) -> tuple[list[int], int]:
        """As `keys`, without those that share; and how many in memory are gone or changed."""
        with self._mutex:
            matrix = self._loaded(db, state)
            # What was reduced by another projection is gone, though not from memory yet.
            versions = matrix.projections & {0, state.projection}
            queries = {version: self._query(db, question, version) for version in versions}
            gone = max(0, state.removed - matrix.removed)
            found = matrix.nearest(queries, count=count + min(gone, _GONE_MIN))
        # By their signs alone, or some of them gone; or one key for many that are.
        if len(found) > count or gone > _GONE_MIN:
            cosines = compare(found)
            found = sorted(cosines, key=lambda key: -cosines[key])[:count]
        return found, gone

    def scores(self, db: Database, question: "Floats", keys: Sequence[int]) -> dict[int, float]:
        """The cosine of each of these with the question, of those that have a vector."""
        import numpy as np

        parts: dict[int, tuple[list[int], list[float], list[bytes]]] = {}
        for key, projection, scale, data in vector_reads.of_keys(db, keys):
            if not _is_sound(scale, data):
                continue
            part = parts.setdefault(projection, ([], [], []))
            part[0].append(key)
            part[1].append(scale)
            part[2].append(data)
        scores: dict[int, float] = {}
        for projection, (held, scales, rows) in parts.items():
            with self._mutex:
                query = self._query(db, question, projection)
            table = np.frombuffer(b"".join(rows), np.int8)
            if table.size != len(held) * len(query):
                continue  # damaged: `check` tells, and words answer
            table = table.reshape(len(held), -1).astype(np.float32)
            cosines = (table @ query) * np.array(scales, np.float32)
            scores.update(zip(held, cosines.tolist(), strict=True))
        return scores

    def _loaded(self, db: Database, state: vectors.State) -> "Matrix":
        from elytron.embed.matrix import Matrix

        matrix = self._matrix
        if matrix is not None:
            # A question that began before another one's may have an older snapshot, with fewer
            # vectors: what the matrix has beyond it does no harm.
            gone = state.removed - matrix.removed
            if gone > max(_GONE_MIN, _GONE_SHARE * matrix.count):
                matrix = None
        if matrix is None:
            matrix = self._matrix = Matrix(
                exact_max=self._exact_max(state), expected=state.last - state.removed
            )
            matrix.removed = state.removed
            self._projections.clear()
        while matrix.last < state.last:
            rows = vector_reads.added(db, after=matrix.last, limit=_PAGE)
            whole = [row for row in rows if _is_sound(row.scale, row.data)]
            matrix.append(whole, last=rows[-1].number if rows else state.last)
        return matrix

    def _exact_max(self, state: vectors.State) -> int:
        """Up to how many vectors are held whole: a quarter of `max_ram_mb` at most."""
        dims = self._config.vector_dims if state.projection else state.dim
        fitting = self._config.max_ram_bytes // 4 // max(1, dims)
        return min(self._config.exact_vectors_max, fitting)

    def _query(self, db: Database, question: "Floats", version: int) -> "Floats":
        """The question as a projection has it."""
        if not version:
            return question
        projection = self._projections.get(version)
        if projection is None:
            projection = self._projections[version] = load_projection(db, version, self._source)
        reduced: Floats = projection.apply(question[None, :])[0]
        return reduced


class Asked:
    """The vectors of one agent as one question sees them, in one snapshot: each is read once."""

    def __init__(
        self, nearest: Nearest, db: Database, state: vectors.State, question: "Floats"
    ) -> None:
        self._nearest, self._db, self._state, self._question = nearest, db, state, question
        self._read = set[int]()
        self._cosines: dict[int, float] = {}

    def keys(self, *, count: int, accept: reads.Filter | None = None) -> list[int]:
        """As `Nearest.keys`."""
        return self._nearest.keys(
            self._db, self._state, self._question, count=count, accept=accept, scores=self.scores
        )

    def scores(self, keys: Sequence[int]) -> dict[int, float]:
        """As `Nearest.scores`."""
        known = {key: self._cosines[key] for key in keys if key in self._cosines}
        new = [key for key in keys if key not in self._read]
        if new:
            found = self._nearest.scores(self._db, self._question, new)
            self._read.update(new)
            self._cosines.update(found)
            known.update(found)
        return known


def _is_sound(scale: object, data: object) -> bool:
    """Whether a vector can be used; a damaged one is left out, so that words answer."""
    return type(scale) is float and 0 < scale <= 1 and type(data) is bytes and bool(data)


def load_projection(db: Database, version: int, source: object) -> "Projection":
    """
    A projection of the ledger's.

    Raises:
        Corrupt: it is not what was written.
    """
    from elytron.embed.reduced import Projection

    stored = vector_reads.projection(db, version, source)
    return Projection.from_data(
        version,
        stored.data,
        input_dim=stored.input,
        dims=stored.dims,
        fitted_on=stored.fitted_on,
    )
