"""
Source: one file to import, read in pieces of bounded size, as often as is needed.

Everything that a file can do wrong as a file or as JSON ends here, as an error or a `BadLine`.
"""

import contextlib
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from elytron.errors import InvalidArgument, NotFound, Unavailable
from elytron.importers import zips
from elytron.importers.arrays import ArrayItems
from elytron.ledger import files
from elytron.records import BadLine

PIECE_MAX_BYTES = 32 << 20  # of JSON in memory at once; as Python objects some 6 times as much
HEAD_MAX = 20  # lines or items looked at to tell what a file is
_CHUNK_BYTES = 1 << 16
_ZIP = b"PK\x03\x04"
_BOM = b"\xef\xbb\xbf"
DATABASE = b"SQLite format 3\0"  # how the files of SQLite begin
_NOT_TEXT = {
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\xff\xfe": "UTF-16 or UTF-32; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    DATABASE: "an SQLite database, not JSON",
}


OF_A_STORE = (
    "is a file of an Elytron store; `elytron export` writes what can be imported; nothing was"
    " imported"
)


class Item(NamedTuple):
    """One JSON value and its number in the file, counted from 1: of its line, or of the item."""

    number: int
    value: Any


class Origin(Protocol):
    """What an import has to know of a file, whatever its format."""

    @property
    def path(self) -> Path: ...

    @property
    def bytes_read(self) -> int: ...

    def check_unchanged(self) -> None: ...


class Source:
    """An open file. Every way of reading begins at its start."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = self._on_disk = file
        self._begin = 0
        self.bytes_read = 0  # in all readings together
        self._state = self._now()
        self.size_bytes = self._state[0]
        head = self._read(16)
        if head.startswith(_ZIP):
            self._file, self.size_bytes = zips.open_member(path, file)
            head = self._read(16)
        for magic, what in _NOT_TEXT.items():
            if head.startswith(magic):
                raise InvalidArgument(f"{path} is {what}; nothing was imported")
        if head.startswith(_BOM):
            self._begin = len(_BOM)
        self.first_byte = self._first_byte()
        if not self.first_byte:
            raise InvalidArgument(f"{path} is empty; nothing was imported")

    def lines(self, max_bytes: int) -> Iterator[Item | BadLine]:
        """The values of a file with one to a line. Blank lines are passed over."""
        self._rewind()
        number = 0
        while line := self._read_line(max_bytes + 1):
            number += 1
            if len(line) > max_bytes and not line.endswith(b"\n"):
                self._finish_line()
                yield BadLine(
                    number,
                    f"it is over {max_bytes} bytes; split it, or raise `max_message_kb`",
                )
            elif line.strip():
                yield _item(number, line)

    def items(self) -> Iterator[Item | BadLine]:
        """The items of a file that is one array, each of at most `PIECE_MAX_BYTES`."""
        self._rewind()
        found = ArrayItems(self._read, item_max_bytes=PIECE_MAX_BYTES)
        for number, item in enumerate(found, 1):
            yield BadLine(number, item) if isinstance(item, str) else _item(number, item)

    def whole(self) -> Any:
        """
        The value of a file that is just one.

        Raises:
            InvalidArgument: it is over `PIECE_MAX_BYTES`, or no JSON.
        """
        if self.size_bytes > PIECE_MAX_BYTES:
            raise InvalidArgument(
                f"it has {self.size_bytes} bytes, at most {PIECE_MAX_BYTES};"
                " give an array, or one conversation a line"
            )
        self._rewind()
        return parse(self._read(PIECE_MAX_BYTES))

    def is_by_lines(self) -> bool:
        """Whether the file has a value to a line, rather than one value over several."""
        if isinstance(next(self.lines(PIECE_MAX_BYTES), None), Item):
            return True
        try:
            self.whole()
        except InvalidArgument:
            # Bad either way. A line that is sound says which errors will help.
            head = itertools.islice(self.lines(PIECE_MAX_BYTES), HEAD_MAX)
            return any(isinstance(item, Item) for item in head)
        return False

    def check_unchanged(self) -> None:
        """
        Raises:
            InvalidArgument: somebody wrote to the file since it was opened.
        """
        if self._now() != self._state:
            raise InvalidArgument(
                f"{self.path} was changed while it was read; nothing was imported: import it"
                " again when it is at rest"
            )

    def _now(self) -> tuple[int, int]:
        state = os.fstat(self._on_disk.fileno())
        return state.st_size, state.st_mtime_ns

    def _rewind(self) -> None:
        self._file.seek(self._begin)

    def _read(self, max_bytes: int) -> bytes:
        return self._read_by(self._file.read, max_bytes)

    def _read_line(self, max_bytes: int) -> bytes:
        return self._read_by(self._file.readline, max_bytes)

    def _read_by(self, read: Callable[[int], bytes], max_bytes: int) -> bytes:
        try:
            data = read(max_bytes)
        except zips.READ_ERRORS as error:
            raise InvalidArgument(
                f"{self.path} is damaged and cannot be unpacked: {error}"
            ) from error
        except OSError as error:
            raise Unavailable(f"{self.path} cannot be read: {error.strerror}") from error
        self.bytes_read += len(data)
        return data

    def _first_byte(self) -> bytes:
        """The first byte that is no space; nothing if there is none."""
        self._rewind()
        while chunk := self._read(_CHUNK_BYTES):
            if text := chunk.lstrip():
                return text[:1]
        return b""

    def _finish_line(self) -> None:
        while (rest := self._read_line(_CHUNK_BYTES)) and not rest.endswith(b"\n"):
            pass


def _item(number: int, data: bytes) -> Item | BadLine:
    try:
        return Item(number, parse(data))
    except InvalidArgument as error:
        return BadLine(number, str(error))


def parse(data: bytes) -> Any:
    """
    The value of one JSON text in UTF-8.

    Raises:
        InvalidArgument: what is wrong with it, in a sentence that holds none of its text. NaN,
            infinities and an object with two members of one name are refused.
    """
    try:
        return json.loads(
            data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_without_repeats
        )
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"it is not UTF-8: byte 0x{data[error.start]:02x} at {error.start}; save it as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"it is not JSON: {error.msg} (at {error.pos})") from error
    except RecursionError as error:
        raise InvalidArgument("it is nested too deep") from error
    except ValueError as error:  # Python converts no more digits than this
        raise InvalidArgument("it has a number of over 4300 digits") from error


def _refuse_constant(name: str) -> Any:
    raise InvalidArgument(f"it is not JSON: {name} is no number there")


def _without_repeats(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise InvalidArgument("an object in it has two members of one name; which one is meant?")
    return found


@contextlib.contextmanager
def open_source(path: str | os.PathLike[str], *, store: Path | None = None) -> Iterator[Source]:
    """
    Open a file for importing.

    Args:
        store: files of this store's agents are refused: to open and close one would drop the
            locks that SQLite holds on it.

    Raises:
        NotFound: there is none.
        InvalidArgument: a folder or a device, a file of a store, an empty file, or no text.
        Unavailable: it cannot be read.
    """
    path = Path(path)
    with open_regular(path, store) as file:
        yield Source(path, file)


def _is_ledger(found: os.stat_result, store: Path) -> bool:
    """Whether a file is a ledger of *store* under another name."""
    if found.st_nlink < 2:
        return False
    ledgers = (store / "agents").glob(f"*/{files.LEDGER}")
    return any(os.path.samestat(found, ledger.stat()) for ledger in ledgers)


def open_regular(path: Path, store: Path | None) -> BinaryIO:
    """The file at *path*, as `open_source` opens it; raises as that does."""
    try:
        # Asked first: opening a pipe would wait for its other end.
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise InvalidArgument(f"{path} is {kind}; give a file")
        resolved = path.resolve()
        if store is not None and (
            resolved.is_relative_to((store / "agents").resolve()) or _is_ledger(found, store)
        ):
            raise InvalidArgument(f"{path} is a file of the store itself; give another")
        if resolved.name.startswith(files.LEDGER) and resolved.parent.parent.name == "agents":
            # Of another store, which this process may have open.
            raise InvalidArgument(f"{path} {OF_A_STORE}")
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no file {path}; nothing was imported") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # Python's word for a NUL in a path
        raise InvalidArgument("a path cannot hold a NUL character; nothing was imported") from error
