"""Dispatched: what the ledger asks of a connection beyond SQL, for one to PostgreSQL."""

from collections.abc import Iterable, Sequence

from elytron.ledger import space, word_reads, words
from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.postgres import words as own_words
from elytron.ledger.postgres.ledger import counted_bytes
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.tables import TABLES
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
