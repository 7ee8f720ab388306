"""Dispatched: what the ledger asks of a connection beyond SQL, for one to PostgreSQL."""

import uuid
from collections.abc import Iterable, Sequence

from psycopg.pq.abc import PGresult

from elytron.ledger import ahead, reads, space, word_reads, words
from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.integers import Integers
from elytron.ledger.postgres import words as own_words
from elytron.ledger.postgres.ledger import counted_bytes
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.tables import TABLES
from elytron.ledger.postgres.wire import Request
from elytron.ledger.reads import Filter

_PARTS = """
SELECT (SELECT coalesce(sum(pg_column_size(postings) + 60), 0) FROM words
        WHERE agent_id = %(agent)s::uuid),
    (SELECT coalesce(sum(octet_length(data) + 150), 0) FROM vectors
        WHERE agent_id = %(agent)s::uuid)
    + (SELECT coalesce(sum(octet_length(data) + 100), 0) FROM projections
        WHERE agent_id = %(agent)s::uuid)
"""

_COUNTED = "SELECT messages, bytes FROM agents WHERE agent_id = %(agent)s::uuid"
_WEIGHED = " + ".join(
    [
        f"(SELECT coalesce(sum({table.size}), 0) FROM {name} WHERE agent_id = %(agent)s::uuid)"
        for name, table in TABLES.items()
        if table.size is not None
    ]
)
_HELD = f"""
SELECT (SELECT count(*) FROM messages WHERE agent_id = %(agent)s::uuid), ({_WEIGHED})::bigint
"""


# A message's place in its session is unique; one is looked up by that, however many rows a plan
# expects.
_PLACE = (
    'm.key, m.session, m.position, m."user", m.role, octet_length(m.content), m.terms,'
    " strpos(m.content, '?') > 0"
)
_PLACES = f"""
WITH found AS MATERIALIZED (
    SELECT {_PLACE} FROM messages m
    WHERE agent_id = %(agent)s::uuid AND key = ANY(%(keys)s::bigint[])
), beside AS (
    SELECT session, position + step AS position
    FROM found CROSS JOIN (VALUES (-1::bigint), (1)) steps(step)
    EXCEPT SELECT session, position FROM found ORDER BY 1, 2
)
SELECT * FROM found UNION ALL SELECT near.* FROM beside CROSS JOIN LATERAL (
    SELECT {_PLACE} FROM messages m WHERE agent_id = %(agent)s::uuid
    AND m.session = beside.session AND m.position = beside.position LIMIT 1
) near
"""


class _Noted(Exception):
    """A function has come to its first statement."""

    def __init__(self, requests: list[Request]) -> None:
        self.requests = requests


class _Noting(Link):
    """Stands for a link, and asks nobody."""

    def __init__(self, agent: uuid.UUID | None) -> None:
        self._agent = agent
        self._at_hand = []

    def _run(self, requests: list[Request], *, control: bool = False) -> list[PGresult]:  # noqa: ARG002
        raise _Noted(requests)


@ahead.ask.register
def _(db: Link, *readings: ahead.Reading) -> None:
    requests: list[Request] = []
    for read in readings:
        try:
            read(_Noting(db.agent))
        except _Noted as noted:
            requests += noted.requests
    db.ahead(requests)


@reads.places.register
def _(db: Link, keys: Sequence[int], source: object) -> list[reads.Place]:  # noqa: ARG001
    # What the server gives has its types; whether it is what was written is seen when it is read.
    return list(map(reads.Place._make, db.native(_PLACES, {"keys": Integers(keys)})))


@space.pages.register
def _(db: Link, *, unused: bool = False) -> space.Pages:  # noqa: ARG001 - none are known of
    return space.Pages(-(-counted_bytes(db) // PAGE_BYTES), 0)


@space.parts.register
def _(db: Link) -> tuple[int, int]:
    words_bytes, vector_bytes = db.native(_PARTS)[0]
    return int(words_bytes), int(vector_bytes)


@space.vacuum.register
def _(db: Link, count: int) -> int:  # noqa: ARG001 - the server's own task
    return 0


@space.faults.register
def _(db: Link) -> list[str]:
    # Its pages are the server's to check; what we count in the agent's own row is ours.
    (counted,) = db.native(_COUNTED)
    held = db.native(_HELD)[0]
    return [
        f"the agent's row counts {counted[place]} {what}, and there are {held[place]}"
        for place, what in enumerate(("messages", "bytes"))
        if counted[place] != held[place]
    ]


@words.segments.register
def _(db: Link) -> tuple[int, int]:  # noqa: ARG001 - none that have to be merged
    return 0, 0


@words.merge.register
def _(db: Link, pages: int) -> bool:  # noqa: ARG001
    return False


@words.add.register
def _(db: Link, entries: Sequence[tuple[int, bytes]]) -> None:
    own_words.add(db, entries)


@words.remove.register
def _(db: Link, keys: Sequence[int]) -> None:
    own_words.remove(db, keys)


@words.reset.register
def _(db: Link) -> None:
    own_words.reset(db)


@word_reads.totals.register
def _(db: Link) -> tuple[int, int]:
    return own_words.totals(db)


@word_reads.document_frequencies.register
def _(db: Link, hashes: Iterable[bytes]) -> dict[bytes, int]:
    return own_words.document_frequencies(db, hashes)


@word_reads.vocabulary.register
def _(db: Link) -> dict[str, int]:
    return own_words.vocabulary(db)


@word_reads.look.register
def _(db: Link, hashes: Iterable[bytes], accept: Filter | None, *, limit: int) -> word_reads.Looked:
    return own_words.look(db, hashes, accept, limit=limit)


@word_reads.match.register
def _(db: Link, hashes: Iterable[bytes], accept: Filter, *, limit: int) -> list[int]:
    return own_words.match(db, hashes, accept, limit=limit)


@word_reads.match_days.register
def _(
    db: Link,
    days: Iterable[Iterable[bytes]],
    hashes: Iterable[bytes],
    accept: Filter,
    *,
    limit: int,
) -> list[int]:
    return own_words.match_days(db, days, hashes, accept, limit=limit)


@word_reads.with_words.register
def _(db: Link, words: Sequence[Iterable[bytes]], *, up_to: int, limit: int) -> list[int]:
    return own_words.with_words(db, words, up_to=up_to, limit=limit)
