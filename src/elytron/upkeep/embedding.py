"""
Embedding: which texts still need a vector, made in bounded steps, in the background or by hand.

A step reads the next texts that were saved or edited, has those that are to have a vector
embedded, reduces the vectors and writes them as one op with how far it has come. Equal texts share
one vector. Another process may do the same at the same time: an op is applied only where the reader
still stands where it was read. An embedder that fails costs nothing but time: the next step begins
where this one did.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from elytron.config import Config
from elytron.embed import policy
from elytron.embed.calls import Calls
from elytron.errors import Corrupt, EmbedderUnavailable, InvalidSetting
from elytron.ledger import vector_reads, vectors
from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.database import Database
from elytron.ledger.embedded import (
    REMOVED_PAGES,
    ROW_BYTES,
    Added,
    AddVectors,
    EvictVectors,
    LeftOut,
    Made,
    MendVectors,
    Reduced,
    ReduceVectors,
    SetProjection,
)
from elytron.ledger.ledgers import Ledger
from elytron.ledger.schema import NO_VECTOR_GIVEN, NO_VECTOR_ROOM
from elytron.ledger.texts import newest as newest_of
from elytron.ledger.vector_reads import StoredVector, Wanted
from elytron.recall.nearest import load_projection
from elytron.records import DEFAULT_IMPORTANCE
from elytron.upkeep.following import Following, Page
from elytron.upkeep.retention import judge

if TYPE_CHECKING:
    from elytron.embed.reduced import Floats, Projection

    Rows = dict[int, Floats | None]  # by digest

READER = "vectors"
FIT_MIN = 1000  # vectors of its own that an agent has before they are reduced
_log = logging.getLogger("elytron.upkeep")
_DIM_MAX = 8192  # that an embedder may have which has not answered yet
_REFUSED_TIMES = 3  # before a text is left out, as even a well embedder may fail now and then
_PROBE = "Is anybody there? Bonjour."


class Begun(NamedTuple):
    """
    A step between reading and writing: texts, where the reader of changes comes with them, whose
    vectors are held, which of the digests are, and each text once that has none, by digest.
    """

    wanted: Sequence[Wanted]
    page: Page | None
    state: vectors.State | None
    held: frozenset[int]
    texts: dict[int, str]


class Embedding:
    """One agent's vectors. One step at a time; another process may be at it too."""

    def __init__(
        self, ledger: Ledger, write: Callable[..., Any], calls: Calls, *, config: Config
    ) -> None:
        """
        Args:
            write: applies an op durably; waits no longer than to a time, if it is given one.
            calls: asks the embedder, which all agents share.
        """
        self._ledger = ledger
        self._write = write
        self._calls = calls
        self._config = config
        self._limit_bytes = config.wal_limit_bytes // 2
        self._following = Following(READER)
        self._projection: Projection | None = None
        self._reduced = 0  # the projection by which all vectors are known to be reduced
        self._unfit = False

    def mismatch(self) -> str | None:
        """Why the vectors held and the embedder do not belong together; None if they do."""
        try:
            with self._ledger.reading() as db:
                return mismatch(vectors.state(db), self._calls)
        except Corrupt as error:  # all that needs no vector goes on
            return str(error)

    # -- in the background

    def step(self, until_s: float = math.inf) -> bool:
        """
        Embed the next texts, at most `embed_batch_max` and `embed_batch_kb` of them; returns
        whether there may be more.

        Args:
            until_s: when the caller will wait no longer, on the monotonic clock.

        Raises:
            Busy: the caller's time was over.
            EmbedderUnavailable: the embedder failed. To be called again, after a while.
            OverBudget, and what else a write may raise: nothing was changed.
        """
        begun = self.begin(until_s)
        if isinstance(begun, Begun):
            self.finish(begun, self.ask(begun, until_s=until_s), until_s)
            return True
        return begun

    def goal(self, until_s: float = math.inf) -> Callable[[], bool]:
        """What there is to do by now: a function that says whether that is done."""
        with self._ledger.reading() as db:
            newest = newest_of(db)

        def is_done() -> bool:
            with self._ledger.reading() as db:
                embedded = self._following.has_passed(db, newest)
            # What has a vector is to have a short one; that ends, whoever saves meanwhile.
            return embedded and not self.reduce_step(until_s)

        return is_done

    def begin(self, until_s: float = math.inf) -> Begun | bool:
        """
        The first part of a step: what to ask the embedder for; or, where there is nothing,
        whether there may be more to do. While it is asked the ledger may be closed.
        """
        with self._ledger.reading(snapshot=True) as db:
            page = self._following.page(db, most=self._batch_max(vectors.state(db)))
            if page is None:
                found: list[Wanted] = []
            else:
                found = vector_reads.wanted(db, page.found, self._ledger.source)
        if page is None:
            return self.reduce_step(until_s)
        wanted = [one for one in found if not one.held and self._is_queued(one)]
        if not wanted and not self._following.passed(page):
            return True
        return self._begun(wanted, page)

    def _is_queued(self, one: Wanted) -> bool:
        """Whether a text was to have a vector when it was saved; memories always are."""
        return policy.can_embed(one.content) and one.embedding in (policy.QUEUED, None)

    def ask_once(self) -> None:
        """
        Ask the embedder for one vector that nobody needs, to see that it answers.

        Raises:
            EmbedderUnavailable: it does not.
        """
        self._calls.embed(
            [_PROBE], "document", timeout_s=self._config.embed_timeout_s, rested=False
        )

    def ask_if_resting(self) -> None:
        """
        See whether an embedder that is left alone answers again, for who does not want to wait.

        Raises:
            EmbedderUnavailable: it does not.
        """
        if self._calls.counts.resting_s:
            self.ask_once()

    def row_bytes(self, state: vectors.State) -> int:
        """What a new vector takes of `max_vector_mb`."""
        whole = not state.projection
        return ROW_BYTES + (state.dim if whole else min(state.dim, self._config.vector_dims))

    def batch_max(self) -> int:
        """Texts whose vectors fit into one commit, and into one call of the embedder."""
        with self._ledger.reading() as db:
            return self._batch_max(vectors.state(db))

    def _batch_max(self, state: vectors.State | None) -> int:
        dim = (self._calls.dim or _DIM_MAX) if state is None else state.dim
        fitting = (self._limit_bytes // 2) // (2 * PAGE_BYTES + 2 * dim)
        return max(1, min(self._config.embed_batch_max, fitting))

    # -- texts to vectors

    def embed(self, wanted: Sequence[Wanted]) -> Added:
        """Have texts embedded, and write their vectors. Raises as `step`."""
        begun = self._begun(wanted, None)
        return self.finish(begun, self.ask(begun))

    def _begun(self, wanted: Sequence[Wanted], page: Page | None) -> Begun:
        with self._ledger.reading(snapshot=True) as db:
            state = vectors.state(db)
            held = frozenset(vectors.digests(db, {_digest(one) for one in wanted}))
        self.check_same(state)
        return Begun(wanted, page, state, held, self._new_texts(wanted, held))

    def ask(self, begun: Begun, *, until_s: float = math.inf) -> "Rows":
        """
        The second part: a vector for each new text, by digest; None for one that the embedder
        takes from nobody. In as many calls as `embed_batch_kb` asks for.
        """
        texts = list(begun.texts.values())
        rows: list[Floats | None] = []
        while len(rows) < len(texts):
            rest = texts[len(rows) :]
            count = _fitting(rest, bytes_max=self._config.embed_batch_bytes)
            rows += self._ask(rest[: min(count, self._config.embed_batch_max)], until_s)
        return dict(zip(begun.texts, rows, strict=True))

    def finish(self, begun: Begun, rows: "Rows", until_s: float = math.inf) -> Added:
        """The third: write vectors; where texts were found by a page also how far that comes."""
        page, state = begun.page, begun.state
        self.check_same(state)  # the first answer tells the dimension
        try:
            made, left_out = self._made(begun, rows)
        except Corrupt:
            with self._ledger.reading() as db:
                now = vectors.state(db)
            if now is not None and state is not None and now.projection == state.projection:
                raise
            return Added(applied=False)  # all vectors were removed meanwhile, and it with them
        made, no_room = self._fitting_limit(made, state, until_s)
        op = AddVectors(
            READER,
            self._calls.name,
            self._calls.dim or (state.dim if state else 0),
            state.projection if state else 0,
            before=page.before if page else None,
            after=page.after if page else None,
            made=tuple(made),
            left_out=(*left_out, *no_room),
            limit_bytes=self._config.max_vector_bytes,
        )
        added: Added = self._write(op, until_s)
        if added.applied and page is not None:
            self._following.moved()
        return added._replace(no_room=len(no_room))

    def leave_out(self, wanted: Iterable[Wanted]) -> None:
        """Note of texts that there is no room for their vectors."""
        found = [LeftOut(one.key, one.kind, one.checksum, NO_VECTOR_ROOM) for one in wanted]
        most = self.batch_max()
        for start in range(0, len(found), most):
            part = tuple(found[start : start + most])
            with self._ledger.reading() as db:
                state = vectors.state(db)
            if state is None:
                return  # all were removed meanwhile
            self._write(AddVectors(READER, state.name, state.dim, state.projection, left_out=part))

    def check_same(self, state: vectors.State | None) -> None:
        """
        Raises:
            InvalidSetting: the vectors held are another embedder's.
        """
        why = mismatch(state, self._calls)
        if why is not None:
            raise InvalidSetting(why)

    @staticmethod
    def _new_texts(wanted: Iterable[Wanted], held: frozenset[int]) -> dict[int, str]:
        """Each text once that has no vector yet, by digest."""
        texts: dict[int, str] = {}
        for one in wanted:
            digest = _digest(one)
            if digest not in held:
                texts.setdefault(digest, one.content)
        return texts

    def _ask(self, texts: list[str], until_s: float) -> "list[Floats | None]":
        """
        One call. If it fails though the embedder is well otherwise, one of the texts is the
        reason: then each half is asked for by itself, and a single one some times.
        """
        for _ in range(_REFUSED_TIMES if len(texts) == 1 else 1):
            try:
                return list(self._call(texts, until_s))
            except EmbedderUnavailable as error:
                if error.wait_s is not None:  # it says itself that it is not well
                    raise
                try:
                    self._call([_PROBE], until_s, rested=False)
                except EmbedderUnavailable:
                    raise error from error.__cause__
        if len(texts) == 1:
            _log.warning("%s refuses a text of %s characters", self._calls.name, len(texts[0]))
            return [None]
        half = len(texts) // 2
        return self._ask(texts[:half], until_s) + self._ask(texts[half:], until_s)

    def _call(self, texts: list[str], until_s: float, *, rested: bool = True) -> "Floats":
        return self._calls.embed(
            texts,
            "document",
            timeout_s=self._config.embed_timeout_s,
            patience_s=until_s - time.monotonic(),
            rested=rested,
        )

    def _made(self, begun: Begun, rows: "Rows") -> tuple[list[Made], list[LeftOut]]:
        """What is to be written of each text."""
        packed = self._packed({d: row for d, row in rows.items() if row is not None}, begun.state)
        made, left_out = [], []
        for one in begun.wanted:
            digest = _digest(one)
            if digest in packed:
                scale, data = packed.pop(digest)
                made.append(Made(one.key, one.kind, one.checksum, digest, scale, data))
            elif rows.get(digest) is not None or digest in begun.held:
                made.append(Made(one.key, one.kind, one.checksum, digest))
            else:
                left_out.append(LeftOut(one.key, one.kind, one.checksum, NO_VECTOR_GIVEN))
        return made, left_out

    def _packed(
        self, rows: "dict[int, Floats]", state: vectors.State | None
    ) -> dict[int, tuple[float, bytes]]:
        """(scale, bytes) of vectors, as they are kept."""
        if not rows:
            return {}
        import numpy as np

        from elytron.embed.reduced import to_bytes

        table = np.stack(list(rows.values()))
        if state is not None and state.projection:
            table = self._projecting(state.projection).apply(table)
        data, scales = to_bytes(table)
        return {
            digest: (float(scale), row.tobytes())
            for digest, row, scale in zip(rows, data, scales, strict=True)
        }

    # -- limits

    def _fitting_limit(
        self, made: list[Made], state: vectors.State | None, until_s: float
    ) -> tuple[list[Made], list[LeftOut]]:
        """What there is room for within `max_vector_mb`, once others have gone; and what is not."""
        sizes = {one.key: ROW_BYTES + len(one.data) for one in made if one.data is not None}
        held_bytes = 0 if state is None else state.bytes
        excess_bytes = held_bytes + sum(sizes.values()) - self._config.max_vector_bytes
        gone = self._evict(excess_bytes, sizes, until_s)
        without = {one.digest for one in made if one.key in gone}
        kept = [one for one in made if one.digest not in without]
        left_out = [
            LeftOut(one.key, one.kind, one.checksum, NO_VECTOR_ROOM)
            for one in made
            if one.digest in without
        ]
        return kept, left_out

    def _evict(
        self, excess_bytes: int, sizes: Mapping[int, int], until_s: float = math.inf
    ) -> frozenset[int]:
        """
        Remove the least valuable vectors, in commits that fit into the WAL; which new ones are
        worth less than those that stay.

        Args:
            sizes: of the new ones, by the keys of their messages and memories.
        """
        if excess_bytes <= 0:
            return frozenset()
        with self._ledger.reading(snapshot=True) as db:
            state = vectors.state(db)
            held = vector_reads.worths(
                db, row_bytes=ROW_BYTES, default_importance=DEFAULT_IMPORTANCE
            )
            new = vector_reads.worths_of(db, list(sizes), default_importance=DEFAULT_IMPORTANCE)
        if state is not None and state.bytes != sum([one.bytes for one in held]):
            self._write(MendVectors(), until_s)  # or they would go, and it would never be enough
            return frozenset()  # what does not fit then is not written, and tried again
        new = [one._replace(bytes=sizes[one.key]) for one in new]
        gone = policy.evicted(self._ruled(held), self._ruled(new), excess_bytes=excess_bytes)
        leaving = [key for key in gone if key not in sizes]
        at_once = max(1, self._limit_bytes // (REMOVED_PAGES * 2 * PAGE_BYTES))
        for start in range(0, len(leaving), at_once):
            while self._write(EvictVectors(tuple(leaving[start : start + at_once])), until_s):
                pass  # more of those who share them
        return frozenset(gone).intersection(sizes)

    def _ruled(self, worths: Iterable[vector_reads.Worth]) -> list[vector_reads.Worth]:
        """What `retention_rules` say of them taken into account, as where messages are archived."""
        effects_of = judge(self._config.retention_rules)
        found = []
        for one in worths:
            effects = effects_of(one.role, one.session)
            importance = one.importance
            if importance == DEFAULT_IMPORTANCE and effects.importance is not None:
                importance = effects.importance
            pinned = one.pinned or bool(effects.pinned)
            found.append(one._replace(importance=importance, pinned=pinned))
        return found

    # -- fewer dimensions

    def reduce_step(self, until_s: float = math.inf) -> bool:
        """Fit a projection once there are enough vectors, or reduce some by it; more to do?"""
        with self._ledger.reading(snapshot=True) as db:
            state = vectors.state(db)
            if state is None or (state.projection and state.projection == self._reduced):
                return False
            if not state.projection:
                rows = self._to_fit(db, state)
            else:
                stored = vector_reads.projection(db, state.projection, self._ledger.source)
                rows_max = max(1, self._limit_bytes // 2 // (5 * PAGE_BYTES))
                rows = vector_reads.unreduced(db, stored, limit=rows_max)
        if not rows:
            self._reduced = state.projection
            return False
        if not state.projection:
            return self._fit(rows, state.dim, until_s)
        packed = self._packed({row.number: _floats(row) for row in rows}, state)
        reduced = [Reduced(number, scale, data) for number, (scale, data) in packed.items()]
        self._write(ReduceVectors(state.projection, tuple(reduced)), until_s)
        return True

    def _to_fit(self, db: Database, state: vectors.State) -> list[StoredVector]:
        """The vectors to fit a projection on; none if it is not wanted, or they are too few."""
        dims = self._config.vector_dims
        if self._unfit or not dims or state.dim <= dims or state.last - state.removed < FIT_MIN:
            return []
        from elytron.embed.reduced import data_bytes, fit_count

        if data_bytes(state.dim, dims) > self._limit_bytes // 2:
            self._unfit = True
            _log.info("%s: `wal_limit_mb` is too small to reduce vectors", self._ledger.source)
            return []
        return vector_reads.whole(db, dim=state.dim, limit=fit_count(state.dim))

    def _fit(self, rows: list[StoredVector], dim: int, until_s: float) -> bool:
        import numpy as np

        from elytron.embed.reduced import fit

        dims = self._config.vector_dims
        version = rows[-1].number  # never used before, even if all vectors were made anew
        try:
            fitted = fit(np.stack([_floats(row) for row in rows]), dims=dims, version=version)
        except (np.linalg.LinAlgError, ValueError) as error:
            self._unfit = True
            _log.warning("%s: vectors are not reduced: %s", self._ledger.source, error)
            return False
        data = fitted.to_data()
        op = SetProjection(self._calls.name, version, dim, fitted.dims, len(rows), data)
        return bool(self._write(op, until_s))

    def _projecting(self, version: int) -> "Projection":
        if self._projection is None or self._projection.version != version:
            with self._ledger.reading() as db:
                self._projection = load_projection(db, version, self._ledger.source)
        return self._projection


def mismatch(state: vectors.State | None, calls: Calls) -> str | None:
    """Why vectors held and an embedder do not belong together; None if they do."""
    if state is None:
        return None
    dim = calls.dim
    if state.name == calls.name and dim in (None, state.dim):
        return None
    given = calls.name if dim is None else f"{calls.name} with {dim} dimensions"
    return (
        f"the vectors held were made by {state.name} with {state.dim} dimensions, the embedder is"
        f" {given}: restore the setting, or run `elytron reembed` or `Agent.reembed()`"
    )


def _digest(one: Wanted) -> int:
    return vector_reads.digest(one.content)


def _fitting(texts: Sequence[str], *, bytes_max: int) -> int:
    """How many of the first texts are at most so large; at least one."""
    total = 0
    for count, text in enumerate(texts):
        total += len(text.encode("utf-8", "replace"))
        if total > bytes_max and count:
            return count
    return len(texts)


def _floats(row: StoredVector) -> "Floats":
    import numpy as np

    numbers: Floats = np.frombuffer(row.data, np.int8).astype(np.float32) * np.float32(row.scale)
    return numbers
