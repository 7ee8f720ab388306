"""
Tables: an SQLite file of another program, read without writing a byte to it or beside it.

The file may be hostile: nothing but columns of ordinary tables is read, a value of bounded size and
for a bounded time at once. It is opened as one that nobody changes, which takes no lock; where
its WAL still holds something, both are copied first, since SQLite would write beside them.
"""

import contextlib
import json
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from elytron.config import Config
from elytron.errors import InvalidArgument, Unavailable
from elytron.importers.source import OF_A_STORE, PIECE_MAX_BYTES
from elytron.ledger import budget_file, schema
from elytron.ledger.connection import Deadline
from elytron.records import BadLine

COPY_MAX_BYTES = 4 << 30  # of a database and its WAL
_ESCAPE_BYTES = 6  # of one byte, as \u0001
ROW_TIMEOUT_S = 10.0
TABLES_MAX = 200  # looked at
# Ours, and those that may stand in the default of a column, which SQLite looks at too.
_FUNCTIONS = frozenset(
    "octet_length typeof current_timestamp current_date current_time date time datetime julianday"
    " unixepoch strftime".split()
)
_OURS = (schema.APPLICATION_ID, budget_file.APPLICATION_ID)
_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 LIMIT ?"
# Generated columns are hidden: to read one would run what the file says.
_COLUMNS = "SELECT name FROM pragma_table_xinfo(?) WHERE NOT hidden"
_OUTSIDE = (apsw.IOError, apsw.FullError, apsw.CantOpenError, apsw.PermissionsError)

Value = str | int | float | bytes | None


class Row(NamedTuple):
    """One row, numbered from 1 in the order of reading, with the values of the named columns."""

    number: int
    values: tuple[Value, ...]


class Tables:
    """An open database. Use `open_tables`."""

    def __init__(self, path: Path, files: tuple[Path, ...], opened: Path) -> None:
        self.path = path
        self.bytes_read = 0  # of values, in all readings together
        self._files = files
        self._state = _state(files)
        with self._translated():
            self._db = _connect(opened, immutable=opened == files[0])
        try:
            with self._translated():
                self._deadline = Deadline(self._db)
                self._allow_a_row()
                if self._db.pragma("application_id") in _OURS:
                    raise InvalidArgument(f"{path} {OF_A_STORE}")
                self._codec = str(self._db.pragma("encoding"))
                self.columns = self._read_columns()
                self._db.authorizer = _may
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def rows(
        self, table: str, columns: tuple[str, ...], *, order: str, config: Config
    ) -> Iterator[Row | BadLine]:
        """
        The rows of a table, in the order of some of its *columns*, given as SQL.

        A row with a value that would be too long for a message even if its JSON is full of
        escapes, or with text that is none, is a `BadLine`.

        Raises:
            InvalidArgument: the file is damaged, or a row takes longer than `ROW_TIMEOUT_S`.
        """
        max_bytes = min(PIECE_MAX_BYTES, _ESCAPE_BYTES * config.max_message_bytes)
        values = ", ".join(
            f"typeof({name}), octet_length({name}), CASE WHEN octet_length({name}) >"
            f" {max_bytes} THEN NULL WHEN typeof({name}) = 'text' THEN CAST({name} AS BLOB)"
            f" ELSE {name} END"
            for name in map(_quoted, columns)
        )
        sql = f"SELECT {values} FROM {_quoted(table)} ORDER BY {order}"
        number = 0
        with self._translated(), contextlib.closing(self._db.cursor()) as cursor:
            self._allow_a_row()
            cursor.execute(sql)
            while (found := next(cursor, None)) is not None:
                number += 1
                yield self._row(number, columns, found, max_bytes)
                self._allow_a_row()

    def check_unchanged(self) -> None:
        """
        Raises:
            InvalidArgument: somebody wrote to the database since it was opened.
        """
        if _state(self._files) != self._state:
            raise InvalidArgument(
                f"{self.path} was changed while it was read; nothing was imported: end the program"
                " that uses it, and import it again"
            )

    def _row(
        self, number: int, columns: tuple[str, ...], found: tuple[Value, ...], max_bytes: int
    ) -> Row | BadLine:
        values: list[Value] = []
        for column, kind, size_bytes, value in zip(
            columns, found[::3], found[1::3], found[2::3], strict=True
        ):
            if isinstance(size_bytes, int):
                self.bytes_read += size_bytes
                if size_bytes > max_bytes:
                    reason = f"`{column}` has {size_bytes} bytes, at most {max_bytes}"
                    return BadLine(number, f"{reason}; split it, or raise `max_message_kb`")
            if kind == "text" and isinstance(value, bytes):
                try:
                    value = value.decode(self._codec)
                except UnicodeDecodeError:
                    return BadLine(number, f"`{column}` is text that is not {self._codec}")
            values.append(value)
        return Row(number, tuple(values))

    def _read_columns(self) -> dict[str, frozenset[str]]:
        """Of the first `TABLES_MAX` tables, which columns each has."""
        names = [str(name) for (name,) in self._db.execute(_TABLES, (TABLES_MAX,))]
        return {
            name: frozenset(str(column) for (column,) in self._db.execute(_COLUMNS, (name,)))
            for name in names
        }

    def _allow_a_row(self) -> None:
        self._deadline.at = time.monotonic() + ROW_TIMEOUT_S

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _OUTSIDE as error:
            raise Unavailable(f"{self.path} cannot be read: {error}") from error
        except apsw.InterruptError as error:
            raise InvalidArgument(
                f"{self.path} takes over {ROW_TIMEOUT_S:g} s for a row"
            ) from error
        except (apsw.Error, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{self.path} is no sound SQLite database: {error}") from error


@contextlib.contextmanager
def open_tables(path: Path) -> Iterator[Tables]:
    """
    Open a database for importing.

    Args:
        path: of a regular file.

    Raises:
        InvalidArgument: it is damaged, a file of a store, or has the journal of a write that did
            not end.
        Unavailable: it cannot be read, or not be copied.
    """
    files = _files(path.resolve())  # SQLite's own stand beside what a link points to
    database, wal, journal = files
    if _first_byte(journal) not in (b"", b"\0"):
        raise InvalidArgument(
            f"{path} has the journal of a write that did not end, {journal.name}; open it once with"
            " the program that it belongs to; nothing was imported"
        )
    with contextlib.ExitStack() as stack:
        opened = database
        if _first_byte(wal):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="elytron-import-"))
            opened = _copied(database, wal, Path(folder))
        with contextlib.closing(Tables(path, files, opened)) as tables:
            yield tables


def as_text(value: Value, column: str) -> str:
    """
    Raises:
        InvalidArgument: it is no text.
    """
    if not isinstance(value, str):
        raise InvalidArgument(f"`{column}` must be text; it is {type(value).__name__}")
    return value


def as_json(value: str | bytes, column: str) -> Any:
    """
    A value as leniently as Python reads JSON: NaN is one, and of two members of a name the last.

    Raises:
        InvalidArgument: it is none, or nested too deep.
    """
    try:
        return json.loads(value)
    except RecursionError as error:
        raise InvalidArgument(f"`{column}` is nested too deep") from error
    except ValueError as error:
        raise InvalidArgument(f"`{column}` is not JSON") from error


def _files(path: Path) -> tuple[Path, Path, Path]:
    """A database, its WAL and its journal."""
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-journal")


def _state(files: tuple[Path, ...]) -> tuple[tuple[int, int] | None, ...]:
    return tuple([_size_and_time(file) for file in files])


def _size_and_time(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def _first_byte(file: Path) -> bytes:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would wait for its other end
            raise InvalidArgument(f"{file} is not a regular file; nothing was imported")
        with file.open("rb") as opened:
            return opened.read(1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Unavailable(f"{file} cannot be read: {error.strerror}") from error


def _copied(path: Path, wal: Path, folder: Path) -> Path:
    """A copy of a database with its WAL."""
    before = _state((path, wal))
    size_bytes = sum(size for size, _ in filter(None, before))
    if size_bytes > COPY_MAX_BYTES:
        raise InvalidArgument(
            f"{path} and its WAL have {size_bytes} bytes, at most {COPY_MAX_BYTES} can be copied;"
            " end the program that uses it, so that the WAL is taken in; nothing was imported"
        )
    copy = folder / "copy.db"
    try:
        shutil.copyfile(path, copy)
        shutil.copyfile(wal, folder / "copy.db-wal")
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be copied to {folder}: {error.strerror}; nothing was imported"
        ) from error
    if _state((path, wal)) != before:
        raise InvalidArgument(
            f"{path} was changed while it was copied; nothing was imported: end the program that"
            " uses it, and import it again"
        )
    return copy


def _connect(opened: Path, *, immutable: bool) -> apsw.Connection:
    if immutable:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        db = apsw.Connection(f"{opened.as_uri()}?immutable=1", flags=flags)
    else:
        db = apsw.Connection(str(opened), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        db.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
        db.limit(apsw.SQLITE_LIMIT_LENGTH, PIECE_MAX_BYTES + 1)
        db.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
        db.pragma("mmap_size", 0)
        db.pragma("cell_size_check", 1)
        db.pragma("query_only", 1)
    except BaseException:
        db.close()
        raise
    return db


def _may(action: int, _first: str | None, second: str | None, *_others: str | None) -> int:
    """Let statements read tables by a few harmless functions, and do nothing else."""
    reads = action in (apsw.SQLITE_SELECT, apsw.SQLITE_READ)
    calls = action == apsw.SQLITE_FUNCTION and str(second).lower() in _FUNCTIONS
    return apsw.SQLITE_OK if reads or calls else apsw.SQLITE_DENY


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
