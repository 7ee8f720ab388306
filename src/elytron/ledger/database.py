"""Database: what the ledger's statements need of whoever runs them: SQLite, or PostgreSQL."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol


class Cursor(Protocol):
    """The rows of a statement, as tuples."""

    @property
    def get(self) -> Any:
        """The first row, or its value if it has one column; None if there is none."""

    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def close(self, force: bool = False, /) -> None: ...


class Database(Protocol):
    """A connection that speaks SQLite's SQL, about one agent."""

    def execute(self, statements: str, bindings: Any = None, /) -> Cursor: ...
    def executemany(self, statements: str, sequenceofbindings: Iterable[Any], /) -> Cursor: ...
    def changes(self) -> int:
        """How many rows the last INSERT, UPDATE or DELETE touched."""

    def get_autocommit(self) -> bool:
        """Whether no transaction is open."""
