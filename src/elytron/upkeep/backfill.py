"""
Backfill: vectors for what was saved without, the newest first.

What has a vector is passed over, so that a run that was stopped goes on where it was.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from elytron.config import Config
from elytron.embed import policy
from elytron.errors import EmbedderUnavailable
from elytron.ledger import surveys, vector_reads, vectors
from elytron.ledger.embedded import Added
from elytron.ledger.ledgers import Ledger
from elytron.ledger.schema import MEMORY, MESSAGE
from elytron.ledger.vector_reads import Wanted
from elytron.reports import Embedded
from elytron.upkeep.embedding import Embedding

_log = logging.getLogger("elytron.upkeep")
_PAGE = 200
_TRIES, _WAIT_S, _WAIT_MAX_S = 4, 1.0, 30.0
_MOVED_TRIES = 10  # how often another process may be faster


def backfill(
    name: str,
    ledger: Ledger,
    embedding: Embedding,
    *,
    turn: AbstractContextManager[object],
    config: Config,
    on_progress: Callable[[int, int], None] | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> Embedded:
    """
    Make the vectors that are missing; see `Agent.embed`.

    Args:
        turn: taken for each part, so that the background does not do the same.
        wait: waits so many seconds before the embedder is asked again.
    """
    with ledger.reading(snapshot=True) as db:
        total = sum(surveys.counts(db, ("messages", "memories")).values())
        embedding.check_same(vectors.state(db))
    done = made = shared = held = 0
    left_out: dict[str, int] = {}
    for page in _pages(ledger):
        wanted = []
        for one in page:
            why = _why_not(one, config)
            if one.held:
                held += 1
            elif why is not None:
                left_out[why] = left_out.get(why, 0) + 1
            else:
                wanted.append(one)
        room = 0 if not wanted else _room(ledger, embedding, config)
        over = wanted[room:]
        if over:
            left_out[policy.NO_ROOM] = left_out.get(policy.NO_ROOM, 0) + len(over)
            with turn:
                embedding.leave_out(over)
        rest = wanted[:room]
        while rest:
            most = embedding.batch_max()
            part, rest = rest[:most], rest[most:]
            added = _embed(embedding, part, turn, wait)
            made, shared, held = made + added.added, shared + added.shared, held + added.held
            refused = len(part) - added.added - added.shared - added.held - added.no_room
            for why, count in ((policy.REFUSED, refused), (policy.NO_ROOM, added.no_room)):
                if count:
                    left_out[why] = left_out.get(why, 0) + count
        done += len(page)
        if on_progress is not None:
            on_progress(min(done, total), total)
    more = True
    while more:
        with turn:
            more = embedding.reduce_step()
    return Embedded(name, made, shared, held, left_out)


def _pages(ledger: Ledger) -> Iterator[list[Wanted]]:
    """Memories, then messages, the newest first, in pages."""
    for kind in (MEMORY, MESSAGE):
        key = None
        while True:
            with ledger.reading(snapshot=True) as db:
                keys = vector_reads.before(db, kind=kind, key=key, limit=_PAGE)
                found = vector_reads.wanted(db, [(kind, one) for one in keys], ledger.source)
            if not keys:
                break
            yield found[::-1]
            key = keys[-1]


def _why_not(one: Wanted, config: Config) -> str | None:
    """Why a text is to have no vector, if so."""
    if not policy.can_embed(one.content):
        return policy.TOO_SHORT
    if one.role is None or one.embedding == policy.QUEUED:
        return None
    if one.embedding == policy.DECLINED:
        return policy.DECLINED
    why = policy.decide(one.role, one.content, wanted=None, config=config)
    return None if why == policy.QUEUED else why


def _room(ledger: Ledger, embedding: Embedding, config: Config) -> int:
    """How many more vectors fit into `max_vector_mb`: older ones do not push newer ones out."""
    with ledger.reading() as db:
        state = vectors.state(db)
    if state is None:
        return _PAGE
    left_bytes = config.max_vector_bytes - state.bytes
    return max(0, left_bytes // embedding.row_bytes(state))


def _embed(
    embedding: Embedding,
    part: list[Wanted],
    turn: AbstractContextManager[object],
    wait: Callable[[float], object],
) -> Added:
    """Have a part embedded, with patience."""
    moved = tries = 0
    while True:
        try:
            with turn:
                added = embedding.embed(part)
        except EmbedderUnavailable as error:
            tries += 1
            if error.permanent or tries == _TRIES or (error.wait_s or 0) > _WAIT_MAX_S:
                raise
            _log.info("the embedder is asked again: %s", error)
            wait(max(error.wait_s or 0.0, min(_WAIT_MAX_S, _WAIT_S * 2**tries)))
            continue
        moved += 1
        if added.applied or moved == _MOVED_TRIES:
            return added
