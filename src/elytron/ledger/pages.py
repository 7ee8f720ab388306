"""
Pages: the records of a ledger's file, read page by page, without its trees.

SQLite finds a row by way of other pages, so that one damaged page hides all that lies behind it.
Here each page is read for itself: its cells, and what they continue with on overflow pages. What
a record means, and whether it is what was written, is decided in `rescued.py`. Nothing is shown of
what cannot be taken apart; a page that is no leaf, or is damaged, has no records.

The file is read by way of SQLite's own file layer, so that its locks in this process stand.

Source: https://sqlite.org/fileformat2.html
"""

import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from elytron.errors import Unavailable
from elytron.ledger.connection import PAGE_BYTES, STORAGE_ERRORS

_log = logging.getLogger("elytron.ledger")
_HEADER = b"SQLite format 3\0"
_FILE_HEADER_BYTES = 100
_INTERIOR_INDEX, _LEAF_INDEX, _LEAF_TABLE = 0x02, 0x0A, 0x0D
_KINDS = (
    b"\x02",
    b"\x05",
    b"\x0a",
    b"\x0d",
    b"S",
)  # the last begins the file; of pages that hold records, or lead to them
# The map of pages: one in so many, with five bytes for each that follows.
_MAPPED = PAGE_BYTES // 5
_ROOT, _IN_TREE = 1, 5
_DEPTH_MAX = 20  # of a tree
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes by serial type
_RECORD_MAX_BYTES = 256 << 20
_NAME_PAGES = 64  # a ledger says whose it is on one of its first pages
_BROKEN = (IndexError, ValueError, struct.error, UnicodeDecodeError, OverflowError)


class Record(NamedTuple):
    """One record: of a table, with its row's number, or of an index."""

    rowid: int | None
    values: tuple[Any, ...]


class Image:
    """
    The pages of one ledger at one moment: those of the file, and over them those of its log.

    A file that is not there, or is no file, has no pages.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        over: Mapping[int, bytes] | None = None,
        count: int | None = None,
        is_whole: bool = False,
    ) -> None:
        """
        Args:
            path: None for pages without a file.
            over: pages by their numbers, in place of the file's.
            count: how many there are; what the file has beyond is of no meaning.
            is_whole: each page could be read just now, so that none may be passed over.

        Raises:
            Unavailable: there is a file, and it cannot be opened.
        """
        self.over = over or {}
        self._path = path
        self._is_whole = is_whole
        self._file: apsw.VFSFile | None = None
        held = 0
        try:
            flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
            if path is not None:
                self._file = apsw.VFSFile("", str(path), [flags, 0])
                held = self._file.xFileSize() // PAGE_BYTES
        except (*STORAGE_ERRORS, OSError) as error:
            self.close()
            if path is not None and path.is_file():
                # It may be well. Taken for empty, it would be given up.
                raise Unavailable(
                    f"{path} cannot be opened: {error}; nothing was changed: look at the disk, and"
                    " retry"
                ) from error
        # One more for each page of the log: a number that is damaged may be any.
        self.count = held + len(self.over) if count is None else min(count, held + len(self.over))
        self._held = held

    def numbers(self) -> Iterator[int]:
        """Of the pages that there are."""
        yield from range(1, min(self._held, self.count) + 1)
        yield from sorted(number for number in self.over if self._held < number <= self.count)

    def missing(self) -> int:
        """How many pages the file's header tells of, and are cut off."""
        page = self.page(1)
        told = int.from_bytes(page[28:32]) if page.startswith(_HEADER) else 0
        return max(0, told - self.count)

    def schema_version(self) -> int:
        """What the file's header says; 0 if it is damaged."""
        page = self.page(1)
        return int.from_bytes(page[60:64]) if page.startswith(_HEADER) else 0

    def page(self, number: int) -> bytes:
        """
        A page; empty if it cannot be read.

        Raises:
            Unavailable: it cannot, and the file is whole.
        """
        if not 1 <= number <= self.count:
            return b""
        if number in self.over:
            return self.over[number]
        if self._file is None:
            return b""
        try:
            data = bytes(self._file.xRead(PAGE_BYTES, (number - 1) * PAGE_BYTES))
        except (*STORAGE_ERRORS, OSError):  # a bad sector: the other pages are read
            data = b""
        if self._is_whole and len(data) < PAGE_BYTES and number <= self._held:
            raise Unavailable(
                f"page {number} of {self._path} cannot be read; nothing was changed: look at the"
                " disk, and retry"
            )
        return data

    def is_unreadable(self, number: int) -> bool:
        """Whether a page should hold records, or lead to them, and does neither."""
        return self._use(number)[0] in (_ROOT, _IN_TREE) and self.page(number)[:1] not in _KINDS

    def root(self, number: int) -> int:
        """The first page of the tree that a page is in, by the file's own map; 0 if unknown."""
        for _ in range(_DEPTH_MAX):
            use, parent = self._use(number)
            if use == _ROOT or number == 1:
                return number
            if use != _IN_TREE:
                break
            number = parent
        return 0

    def _use(self, number: int) -> tuple[int, int]:
        """What a page is for, by the file's map, and which page leads to it."""
        mapped = 2 + (number - 2) // (_MAPPED + 1) * (_MAPPED + 1)
        if number in (1, mapped):
            return 0, 0
        at = (number - mapped - 1) * 5
        entry = self.page(mapped)[at : at + 5]
        return (entry[0], int.from_bytes(entry[1:])) if entry else (0, 0)

    def records(
        self, number: int, *, on_broken: Callable[[int | None], object]
    ) -> Iterator[Record]:
        """
        The records of a page.

        Args:
            on_broken: called for each record that cannot be taken apart, with its row's number if
                that is known.
        """
        page = self.page(number)
        start = _FILE_HEADER_BYTES if page.startswith(_HEADER) else 0
        if len(page) != PAGE_BYTES or page[start] not in (
            _LEAF_TABLE,
            _LEAF_INDEX,
            _INTERIOR_INDEX,
        ):
            return
        kind = page[start]
        pointers = start + (12 if kind == _INTERIOR_INDEX else 8)
        cells = min(int.from_bytes(page[start + 3 : start + 5]), (PAGE_BYTES - pointers) // 2)
        for at in struct.unpack_from(f">{cells}H", page, pointers):
            rowid: int | None = None
            try:
                size, at = _varint(page, at + (4 if kind == _INTERIOR_INDEX else 0))
                if kind == _LEAF_TABLE:
                    rowid, at = _varint(page, at)
                yield Record(rowid, _values(self._payload(page, at, size, kind)))
            except _BROKEN:
                on_broken(rowid)

    def _payload(self, page: bytes, at: int, size: int, kind: int) -> bytes:
        """A record's bytes, with those on overflow pages."""
        if size > min(_RECORD_MAX_BYTES, self.count * PAGE_BYTES):
            raise ValueError("longer than the file")
        local = _local_bytes(size, kind)
        if at + local > PAGE_BYTES:
            raise ValueError("beyond its page")
        if local == size:
            return page[at : at + size]
        parts = [page[at : at + local]]
        left = size - local
        following = int.from_bytes(page[at + local : at + local + 4])
        while left > 0:
            more = self.page(following)
            if len(more) != PAGE_BYTES:
                raise ValueError("its rest is gone")
            parts.append(more[4 : 4 + min(left, PAGE_BYTES - 4)])
            left -= PAGE_BYTES - 4
            following = int.from_bytes(more[:4])
        return b"".join(parts)

    def close(self) -> None:
        if self._file is not None:
            self._file.xClose()
            self._file = None


def _local_bytes(size: int, kind: int) -> int:
    """How many bytes of a record lie on its own page."""
    most = PAGE_BYTES - 35 if kind == _LEAF_TABLE else (PAGE_BYTES - 12) * 64 // 255 - 23
    if size <= most:
        return size
    least = (PAGE_BYTES - 12) * 32 // 255 - 23
    local = least + (size - least) % (PAGE_BYTES - 4)
    return local if local <= most else least


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, signed, and where it ends."""
    value = 0
    for place in range(8):
        byte = data[at + place]
        value = value << 7 | (byte & 0x7F)
        if byte < 0x80:
            return value, at + place + 1
    value = value << 8 | data[at + 8]
    return (value - (1 << 64) if value >> 63 else value), at + 9


def _values(payload: bytes) -> tuple[Any, ...]:
    """The columns of a record."""
    head_bytes, at = _varint(payload, 0)
    body = head_bytes
    values: list[Any] = []
    while at < head_bytes:
        kind, at = _varint(payload, at)
        value, body = _value(payload, kind, body)
        values.append(value)
    if body != len(payload):
        raise ValueError("a record of another length")
    return tuple(values)


def _value(payload: bytes, kind: int, at: int) -> tuple[Any, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind >= 12:
        end = at + (kind - 12) // 2
        if end > len(payload):
            raise ValueError("a value beyond its record")
        data = payload[at:end]
        return (data.decode() if kind % 2 else data), end
    end = at + (8 if kind == 7 else _INTEGERS.get(kind, 0))
    if end == at or end > len(payload):
        raise ValueError("a value of no kind")
    if kind == 7:
        return struct.unpack_from(">d", payload, at)[0], end
    return int.from_bytes(payload[at:end], signed=True), end


def name_in(path: Path) -> str | None:
    """
    Whose a ledger is that SQLite cannot open any more, by its first pages; None if they do not say.

    The name is not verified: the caller compares it with the folder's, which has its hash.
    """
    try:
        image = Image(path)
    except Unavailable as error:
        _log.warning("%s", error)
        return None
    try:
        for number in range(1, min(image.count, _NAME_PAGES) + 1):
            for record in image.records(number, on_broken=lambda _: None):
                match record:
                    case Record(None, ("agent", str(name))):
                        return name
    finally:
        image.close()
    return None
