"""
Space: what a ledger takes, and what of it is unused.

Each function is registered for the kind of connection that it is about: here for SQLite's.
"""

import functools
from dataclasses import dataclass

import apsw

from elytron.ledger.connection import PAGE_BYTES
from elytron.ledger.database import Database

_OF_WORDS = ("words_data", "words_idx", "words_docsize")
_OF_VECTORS = (
    "vectors", "sqlite_autoindex_vectors_1", "vectors_digest", "shared", "shared_digest",
    "projections",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pages:
    """How a ledger is filled, in pages and bytes. `unused_bytes` are within live pages."""

    count: int
    free: int
    unused_bytes: int = 0

    @property
    def live_bytes(self) -> int:
        return (self.count - self.free) * PAGE_BYTES

    @property
    def dead_bytes(self) -> int:
        return self.free * PAGE_BYTES


@functools.singledispatch
def pages(db: Database, *, unused: bool = False) -> Pages:
    """
    How the ledger is filled.

    Args:
        unused: also count the unused bytes within pages; reads the whole file.
    """
    raise TypeError(type(db).__name__)


@pages.register
def _(db: apsw.Connection, *, unused: bool = False) -> Pages:
    unused_bytes = 0
    if unused:
        unused_bytes = db.execute("SELECT ifnull(sum(unused), 0) FROM dbstat").get
    return Pages(db.pragma("page_count"), db.pragma("freelist_count"), unused_bytes)


@functools.singledispatch
def parts(db: Database) -> tuple[int, int]:
    """Bytes of (the word index, the vectors). On SQLite about a millisecond per 4 MB."""
    raise TypeError(type(db).__name__)


@parts.register
def _(db: apsw.Connection) -> tuple[int, int]:
    of_vectors = _OF_VECTORS if db.execute("SELECT EXISTS (SELECT 1 FROM embedder)").get else ()
    words_bytes, vector_bytes = (
        sum([_table_bytes(db, name) for name in names]) for names in (_OF_WORDS, of_vectors)
    )
    return words_bytes, vector_bytes


def _table_bytes(db: apsw.Connection, name: str) -> int:
    sql = "SELECT sum(pgsize) FROM dbstat WHERE name = ? AND aggregate = TRUE"
    return int(db.execute(sql, (name,)).get or 0)


@functools.singledispatch
def faults(db: Database) -> list[str]:
    """What the database itself finds wrong with the ledger, a line for each. Reads all of it."""
    raise TypeError(type(db).__name__)


@faults.register
def _(db: apsw.Connection) -> list[str]:
    lines = db.execute("PRAGMA integrity_check(20)").fetchall()
    return [str(line) for (line,) in lines if line != "ok"]


@functools.singledispatch
def version(db: Database) -> int:
    """What changes when another connection has written. SQLite tells it for 30 ns."""
    raise TypeError(type(db).__name__)


@version.register
def _(db: apsw.Connection) -> int:
    return db.data_version()


@functools.singledispatch
def vacuum(db: Database, count: int) -> int:
    """Give at most *count* unused pages back to the file system; how many. In a transaction."""
    raise TypeError(type(db).__name__)


@vacuum.register
def _(db: apsw.Connection, count: int) -> int:
    before = db.pragma("page_count")
    # To its end: it yields a row a page, and one row would free one page.
    db.execute(f"PRAGMA incremental_vacuum({count:d})").fetchall()
    return int(before - db.pragma("page_count"))
