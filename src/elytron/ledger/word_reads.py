"""
Word reads: what is asked of the full-text index.

Each function is registered for the kind of connection that it is about: here for SQLite's, with
FTS5.
"""

import functools
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw

from elytron.ledger import bundles, rows
from elytron.ledger.database import Database
from elytron.ledger.reads import Filter


class Looked(NamedTuple):
    """
    What the index says of some terms.

    Attributes:
        frequencies: in how many indexed messages each of them stands; none where in none.
        messages, terms: how many the index holds.
        best: what `match` finds with all of them, if that was asked on the way.
    """

    frequencies: dict[bytes, int]
    messages: int
    terms: int
    best: list[int] | None


@functools.singledispatch
def look(db: Database, hashes: Iterable[bytes], accept: Filter | None, *, limit: int) -> Looked:
    """
    What ranking has to know of these terms.

    Args:
        accept, limit: as of `match`, for whoever can answer that too; None if it will not be asked.
    """
    raise TypeError(type(db).__name__)


@look.register
def _(
    db: apsw.Connection,
    hashes: Iterable[bytes],
    accept: Filter | None,
    *,
    limit: int,
) -> Looked:
    return Looked(document_frequencies(db, hashes), *totals(db), None)


@functools.singledispatch
def totals(db: Database) -> tuple[int, int]:
    """(messages, terms) that the index holds."""
    raise TypeError(type(db).__name__)


@totals.register
def _(db: apsw.Connection) -> tuple[int, int]:
    # Read from FTS5's own averages record (row 1 of its data: varints of rows and tokens), since
    # counting the table would read all of it.
    numbers = rows.varints(db.execute("SELECT block FROM words_data WHERE id = 1").get or b"")
    return (numbers[0], numbers[1]) if len(numbers) > 1 else (0, 0)


@functools.singledispatch
def document_frequencies(db: Database, hashes: Iterable[bytes]) -> dict[bytes, int]:
    """In how many indexed messages each term stands; those that stand in none are left out."""
    raise TypeError(type(db).__name__)


@document_frequencies.register
def _(db: apsw.Connection, hashes: Iterable[bytes]) -> dict[bytes, int]:
    tokens = json.dumps([hashed.hex() for hashed in hashes])
    found = rows.fetch(
        db,
        "SELECT v.term, v.doc FROM json_each(?) j"
        " CROSS JOIN words_vocabulary v ON v.term = j.value",
        (tokens,),
    )
    return {bytes.fromhex(term): count for term, count in found}


@functools.singledispatch
def vocabulary(db: Database) -> dict[str, int]:
    """Every term of the index as `rows.to_tokens` writes it, and in how many messages it stands."""
    raise TypeError(type(db).__name__)


@vocabulary.register
def _(db: apsw.Connection) -> dict[str, int]:
    return dict(rows.fetch(db, "SELECT term, doc FROM words_vocabulary"))


@functools.singledispatch
def match(db: Database, hashes: Iterable[bytes], accept: Filter, *, limit: int) -> list[int]:
    """The keys of the *limit* indexed messages that BM25 ranks first among those accepted."""
    raise TypeError(type(db).__name__)


@match.register
def _(db: apsw.Connection, hashes: Iterable[bytes], accept: Filter, *, limit: int) -> list[int]:
    where, values = accept.where()
    if not where:
        sql = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
    else:
        sql = (
            "SELECT m.key FROM words CROSS JOIN messages m ON m.key = words.rowid"
            f" WHERE words MATCH ?{where} ORDER BY words.rank LIMIT ?"
        )
    return bundles.fetch_keys(db, sql, (_any_of(hashes), *values, limit))


@functools.singledispatch
def match_days(
    db: Database,
    days: Iterable[Iterable[bytes]],
    hashes: Iterable[bytes],
    accept: Filter,
    *,
    limit: int,
) -> list[int]:
    """
    The keys of *limit* indexed messages that have all terms of one of these groups, and one of
    *hashes*, the best first; without these the newest.
    """
    raise TypeError(type(db).__name__)


@match_days.register
def _(
    db: apsw.Connection,
    days: Iterable[Iterable[bytes]],
    hashes: Iterable[bytes],
    accept: Filter,
    *,
    limit: int,
) -> list[int]:
    query = " OR ".join(
        ["(" + " AND ".join([f'"{hashed.hex()}"' for hashed in day]) + ")" for day in days]
    )
    words = _any_of(hashes)
    order = "words.rank" if words else "words.rowid DESC"
    if words:
        query = f"({query}) AND ({words})"
    where, values = accept.where()
    sql = (
        "SELECT m.key FROM words CROSS JOIN messages m ON m.key = words.rowid"
        f" WHERE words MATCH ?{where} ORDER BY {order} LIMIT ?"
    )
    return bundles.fetch_keys(db, sql, (query, *values, limit))


@functools.singledispatch
def with_words(
    db: Database, words: Sequence[Iterable[bytes]], *, up_to: int, limit: int
) -> list[int]:
    """
    The keys of the newest *limit* indexed messages, up to a key, that have a hash of each word.
    """
    raise TypeError(type(db).__name__)


@with_words.register
def _(
    db: apsw.Connection, words: Sequence[Iterable[bytes]], *, up_to: int, limit: int
) -> list[int]:
    query = " AND ".join([f"({_any_of(hashes)})" for hashes in words])
    sql = "SELECT rowid FROM words WHERE words MATCH ? AND rowid <= ? ORDER BY rowid DESC LIMIT ?"
    return [key for (key,) in db.execute(sql, (query, up_to, limit))]


def _any_of(hashes: Iterable[bytes]) -> str:
    return " OR ".join([f'"{hashed.hex()}"' for hashed in hashes])
