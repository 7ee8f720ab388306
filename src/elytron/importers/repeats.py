"""
Repeats: what came before in a file, however long the file is.

A temporary SQLite database that is removed with its connection: 4 MB of it are kept in memory,
the rest on disk, some 50 bytes a message. A look-up takes some 5 microseconds.
"""

from types import TracebackType
from typing import Any, Self

import apsw

from elytron.ledger.connection import translate

_CACHE_KB = 4096
_WHERE = "the temporary folder"
_COUNT = "INSERT INTO seen VALUES(?, 0) ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value"
_FIRST = "INSERT INTO seen VALUES(?, ?) ON CONFLICT DO UPDATE SET value = value RETURNING value"


class Repeats:
    """
    Keys and what is known of them. Used in a `with` block, by one thread.

    Raises:
        DiskFull, Unavailable: the temporary folder is full or cannot be used.
    """

    def __enter__(self) -> Self:
        try:
            self._db = apsw.Connection("")  # no name: a temporary file
            self._db.pragma("journal_mode", "off")
            self._db.pragma("synchronous", "off")
            self._db.pragma("cache_size", -_CACHE_KB)
            self._db.execute("CREATE TABLE seen(key BLOB PRIMARY KEY, value) WITHOUT ROWID")
            self._db.execute("BEGIN")
        except apsw.Error as error:
            raise translate(error, _WHERE) from error
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._db.close()

    def count(self, key: bytes) -> int:
        """How often this key was counted before."""
        times: int = self._ask(_COUNT, (key,))
        return times

    def first(self, key: bytes, value: bytes) -> bytes:
        """The value that came with this key when it came first."""
        found: bytes = self._ask(_FIRST, (key, value))
        return found

    def _ask(self, sql: str, values: tuple[Any, ...]) -> Any:
        try:
            return self._db.execute(sql, values).get
        except apsw.Error as error:
            raise translate(error, _WHERE) from error
