"""
Arrays: the items of a JSON array one by one, however long the array is.

Finds only where each item ends; `json.loads` then says whether it is sound, so a bad item
costs no other. Why not `ijson`: its C parser ends the process at an integer of over 4300
digits (3.6.0), reads a lone surrogate as a question mark, and gives up the rest of the file
at the first fault; its Python parser is slower by a factor of 4. `docs/formats.md` has the
limits that follow from this.
"""

import re
from collections.abc import Callable, Iterator

_CHUNK_BYTES = 1 << 18
_SPACE = re.compile(rb"[ \t\r\n]*+")
# Up to the next bracket, or a quote whose string has no end yet. Possessive: never goes back.
_NO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_WORD = re.compile(rb'[^ \t\r\n,"{}\[\]]*+')


class ArrayItems:
    """
    Iterates over the items of an array: their bytes, or why there are none as a string.

    An item over the limit is passed over. After a fault between two items, or when the source
    ends too early, no more come. Holds at most one item and one chunk.
    """

    def __init__(self, read: Callable[[int], bytes], *, item_max_bytes: int) -> None:
        """
        Args:
            read: gives the next bytes of the source, at most as many as asked for.
            item_max_bytes: of one item, without what stands between two.
        """
        self._read = read
        self._item_max_bytes = item_max_bytes
        self._buffer = b""
        self._position = 0
        self._start: int | None = None  # where in the buffer the item under way goes on
        self._item = bytearray()
        self._item_bytes = 0

    def __iter__(self) -> Iterator[bytes | str]:
        if self._next() != b"[":
            yield "expected an array, which begins with ["
            return
        self._position += 1
        byte = self._next()
        while byte != b"]":
            if not byte:
                yield "the file ends before its array does"
                return
            whole = self._take(byte)
            item = self._taken()
            if not whole:
                yield "the file ends in the middle of it"
                return
            yield item
            byte = self._next()
            if byte == b",":
                self._position += 1
                byte = self._next()
                if byte == b"]":
                    yield "there is a comma, and no item after it"
            elif byte and byte != b"]":
                yield "expected a comma or the end of the array; what follows was not read"
                return
        self._position += 1
        if self._next():
            yield "there is more after the end of the array; it was not read"

    def _next(self) -> bytes:
        """The next byte that is no space, not yet taken; nothing at the end."""
        while True:
            self._position = self._end_of(_SPACE)
            byte = self._buffer[self._position : self._position + 1]
            if byte or not self._more():
                return byte

    def _more(self) -> bool:
        """Read on. What is behind us goes, or is kept if it is of the item under way."""
        chunk = self._read(_CHUNK_BYTES)
        if self._start is not None:
            self._keep()
            self._start = 0
        self._buffer = self._buffer[self._position :] + chunk
        self._position = 0
        return bool(chunk)

    def _keep(self) -> None:
        self._item_bytes += self._position - (self._start or 0)
        if self._item_bytes <= self._item_max_bytes:
            self._item += self._buffer[self._start : self._position]
        else:
            self._item.clear()

    def _take(self, byte: bytes) -> bool:
        """Go to the end of the value that begins with *byte*; False if the source ends first."""
        self._start = self._position
        if byte in b"{[":
            return self._take_brackets()
        if byte == b'"':
            self._position += 1
            return self._take_string()
        while True:
            self._position = self._end_of(_WORD)
            if self._position < len(self._buffer):
                return True
            if not self._more():
                return False

    def _taken(self) -> bytes | str:
        self._keep()
        self._start = None
        size_bytes, self._item_bytes = self._item_bytes, 0
        item, self._item = bytes(self._item), bytearray()
        if size_bytes > self._item_max_bytes:
            return f"it has {size_bytes} bytes, at most {self._item_max_bytes}; split it"
        return item

    def _take_brackets(self) -> bool:
        depth = 0
        while True:
            self._position = self._end_of(_NO_BRACKET)
            byte = self._buffer[self._position : self._position + 1]
            if not byte:
                if not self._more():
                    return False
                continue
            self._position += 1
            if byte == b'"':
                if not self._take_string():
                    return False
            elif byte in b"{[":
                depth += 1
            else:
                depth -= 1
                if not depth:
                    return True

    def _take_string(self) -> bool:
        while True:
            self._position = self._end_of(_IN_STRING)
            if self._buffer[self._position : self._position + 1] == b'"':
                self._position += 1
                return True
            if not self._more():
                return False

    def _end_of(self, pattern: re.Pattern[bytes]) -> int:
        match = pattern.match(self._buffer, self._position)
        assert match is not None, "the patterns match nothing at least"
        return match.end()
