"""
Segments: files of archived messages, written once and read whole or not at all.

A segment is `segment-TIME-CHANCE.jsonl.zst`: one zstd frame with JSON Lines (`coding.py`), then a
skippable frame, which every reader of zstd passes over. So `zstd -dc`, pandas and DuckDB read it
as they read any compressed JSON Lines. The skippable frame is the trailer:

    hashes   count x 4 bytes   of the messages' ids (BLAKE2b), rising, little-endian
    count    4 bytes           how many messages
    text     8 bytes           how many bytes of JSON Lines
    own      8 bytes           BLAKE2b of the trailer so far
    before   16 bytes          BLAKE2b of the file up to here
    magic    8 bytes           ELYSEG01

It tells whether an id may be in the segment without reading the rest, and, should the manifest
be lost, whether the file is whole.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import struct
import sys
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from elytron.archive.coding import decode, to_us
from elytron.archive.durable import PART, PartFile
from elytron.archive.entries import (
    LINE_MAX_BYTES,
    SEGMENT_MESSAGES_MAX,
    SEGMENT_TEXT_MAX_BYTES,
    Archived,
    Entry,
)
from elytron.errors import Corrupt, Unavailable
from elytron.ledger.files import translate_os_errors

SEGMENT_NAME = re.compile(r"segment-[0-9]{16,20}-[0-9a-f]{8}\.jsonl\.zst", re.ASCII)
CHECKSUM_BYTES = 16
# Between zstd's levels 15 and 17, with small tables. With made ids, 1000 messages of LoCoMo take
# 0.434 of their text (level 9: 0.454, 15: 0.447, 19: 0.428; target 0.45), 5000 take 0.22 s to
# write (0.07, 0.18, 0.75; target 0.4), and the tables 4 MB (11, 68, 85): small machines are meant.
# Measured by `bench/archive_ratio.py`.
COMPRESSION = {
    "window_log": 21,  # holds the whole text of most segments
    "hash_log": 18,
    "chain_log": 19,
    "search_log": 4,
    "min_match": 4,
    "target_length": 64,
    "strategy": 7,  # btopt
    "write_checksum": True,
}
_WINDOW_MAX_BYTES = 8 << 20  # what a frame may ask of its reader
_CHUNK_BYTES = 1 << 16
_SKIPPABLE = struct.Struct("<II")  # magic and size of what follows
_SKIPPABLE_MAGIC = 0x184D2A50
_STATISTICS = struct.Struct("<IQ")
_OWN_BYTES = 8
_MAGIC = b"ELYSEG01"
_HASH_BYTES = 4
_FOOTER_BYTES = _STATISTICS.size + _OWN_BYTES + CHECKSUM_BYTES + len(_MAGIC)
_TRAILER_MAX_BYTES = _SKIPPABLE.size + SEGMENT_MESSAGES_MAX * _HASH_BYTES + _FOOTER_BYTES
_DAMAGE = (errno.EIO, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
_LEFT = "it was left as it is"


def hash_id(id: str) -> int:
    """32 bits of an id. Two ids share one once in four thousand million times."""
    digest = hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "little")


class Trailer(NamedTuple):
    """The end of a segment. `begins` is where in the file, after the zstd frame."""

    hashes: "array[int]"
    text_bytes: int
    before: bytes
    begins: int

    def may_hold(self, hashed_id: int) -> bool:
        place = bisect_left(self.hashes, hashed_id)
        return place < len(self.hashes) and self.hashes[place] == hashed_id


class SegmentWriter:
    """One segment in the making. Either `finish` or `abandon` ends it."""

    def __init__(self, folder: Path, *, written_us: int | None = None) -> None:
        import zstandard  # only where a segment is written or read

        if written_us is None:
            written_us = time.time_ns() // 1000
        name = f"segment-{written_us:016d}-{secrets.token_hex(4)}.jsonl.zst"
        self._path = folder / name
        parameters = zstandard.ZstdCompressionParameters(**COMPRESSION)
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        self._compressed = compressor.compressobj()
        self._hash = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
        self._hashes = array("I")
        self._bytes = self._text_bytes = 0
        self._first_us = self._last_us = 0
        with translate_os_errors(self._path):
            self._file = PartFile(self._path, part=folder / f"{name}{PART}")

    def has_room(self, line_bytes: int) -> bool:
        """Whether a line of that size may follow. The first may always."""
        return not self._hashes or (
            len(self._hashes) < SEGMENT_MESSAGES_MAX
            and self._text_bytes + line_bytes <= SEGMENT_TEXT_MAX_BYTES
        )

    def add(self, archived: Archived, line: bytes) -> None:
        at_us = to_us(archived.message.at)
        self._first_us = min(self._first_us, at_us) if self._hashes else at_us
        self._last_us = max(self._last_us, at_us) if self._hashes else at_us
        self._hashes.append(hash_id(archived.message.id))
        self._text_bytes += len(line)
        compressed = self._compressed.compress(line)
        if compressed:  # of most lines nothing comes out yet
            self._write(compressed)

    def finish(self) -> Entry:
        """Write the trailer and rename the file into place. Its folder is still to be synced."""
        self._write(self._compressed.flush())
        ordered = array("I", sorted(self._hashes))
        payload = _little_endian(ordered).tobytes()
        payload += _STATISTICS.pack(len(self._hashes), self._text_bytes)
        payload += _own_checksum(payload)
        size = len(payload) + CHECKSUM_BYTES + len(_MAGIC)
        self._write(_SKIPPABLE.pack(_SKIPPABLE_MAGIC, size) + payload)
        self._write(self._hash.digest() + _MAGIC)
        with translate_os_errors(self._path):
            self._file.take_place()
        return Entry(
            self._path.name,
            len(self._hashes),
            self._bytes,
            self._text_bytes,
            self._first_us,
            self._last_us,
            self._hash.hexdigest(),
        )

    def abandon(self) -> None:
        self._file.abandon()

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._bytes += len(data)
        with translate_os_errors(self._path):
            self._file.write(data)


def read_segment(folder: Path, entry: Entry) -> Iterator[Archived]:
    """
    The messages of *entry*, in order. Its checksum is compared before the first.

    Memory: the longest of its lines, which are together as long as the manifest says.

    Raises:
        Corrupt: the file is missing or not what was written, in any way; it names the segment.
        Unavailable: the file cannot be opened, though it may be well.
    """
    path = folder / entry.name
    with _opened(path) as (file, size_bytes):
        if size_bytes != entry.bytes:
            raise damaged(path, f"it has {size_bytes} bytes, where {entry.bytes} were written")
        if _hash_of(file).hexdigest() != entry.checksum:
            raise damaged(path, "its checksum does not match")
        trailer = _read_trailer(file, path, size_bytes)
        if (len(trailer.hashes), trailer.text_bytes) != (entry.messages, entry.text_bytes):
            raise damaged(path, "its trailer and the manifest do not agree")
        yield from _messages(file, path, trailer)


def read_trailer(folder: Path, name: str) -> Trailer:
    """
    The end of a segment. Whether the rest is whole is not looked at.

    Raises:
        Corrupt: the file is missing, or its trailer is damaged.
    """
    with _opened(folder / name) as (file, size_bytes):
        return _read_trailer(file, folder / name, size_bytes)


def examine(folder: Path, name: str) -> Entry:
    """
    Read a segment that no manifest lists, from its first byte to its last.

    Raises:
        Corrupt: it is not whole.
    """
    path = folder / name
    with _opened(path) as (file, size_bytes):
        trailer = _read_trailer(file, path, size_bytes)
        whole = _hash_of(file, size_bytes - CHECKSUM_BYTES - len(_MAGIC))
        if whole.digest() != trailer.before:
            raise damaged(path, "the checksum in its trailer does not match")
        whole.update(trailer.before + _MAGIC)
        hashes, times = array("I"), []
        for archived in _messages(file, path, trailer):
            hashes.append(hash_id(archived.message.id))
            times.append(to_us(archived.message.at))
        if array("I", sorted(hashes)) != trailer.hashes:
            raise damaged(path, "its trailer is of other messages")
        checksum = whole.hexdigest()
        return Entry(
            name, len(hashes), size_bytes, trailer.text_bytes, min(times), max(times), checksum
        )


def damaged(path: Path, why: str) -> Corrupt:
    return Corrupt(f"archive segment {path.name} is damaged: {why}; {_LEFT}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """A segment's file and its size. What fails while it is read is told as damage."""
    try:
        # Not even opened if it is no file: a pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise damaged(path, "it is no file")
        with path.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise Corrupt(f"archive segment {path.name} is missing from {path.parent}") from error
    except OSError as error:
        if error.errno in _DAMAGE:
            raise damaged(path, error.strerror or "it cannot be read") from error
        raise Unavailable(f"{path} cannot be read: {error.strerror}; try again") from error


def _hash_of(file: IO[bytes], limit_bytes: int | None = None) -> Any:
    """The BLAKE2b of a file, or of its first *limit_bytes*, still open for more."""
    whole = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    part = _Part(file, sys.maxsize if limit_bytes is None else limit_bytes)
    while data := part.read(_CHUNK_BYTES):
        whole.update(data)
    return whole


def _read_trailer(file: IO[bytes], path: Path, size_bytes: int) -> Trailer:
    file.seek(max(0, size_bytes - _TRAILER_MAX_BYTES))
    tail = file.read(_TRAILER_MAX_BYTES)
    if len(tail) < _SKIPPABLE.size + _FOOTER_BYTES or not tail.endswith(_MAGIC):
        raise damaged(path, "it does not end as a segment of this version does")
    footer = tail[-_FOOTER_BYTES:]
    count, text_bytes = _STATISTICS.unpack_from(footer)
    size = count * _HASH_BYTES + _FOOTER_BYTES
    if not 1 <= count <= SEGMENT_MESSAGES_MAX or len(tail) < _SKIPPABLE.size + size:
        raise damaged(path, "its trailer has an impossible count")
    payload = tail[-size:]
    own_at = size - _FOOTER_BYTES + _STATISTICS.size
    if (
        _SKIPPABLE.unpack_from(tail, len(tail) - size - _SKIPPABLE.size) != (_SKIPPABLE_MAGIC, size)
        or _own_checksum(payload[:own_at]) != payload[own_at : own_at + _OWN_BYTES]
    ):
        raise damaged(path, "its trailer is not what was written")
    hashes = array("I", payload[: count * _HASH_BYTES])
    before = payload[own_at + _OWN_BYTES : -len(_MAGIC)]
    begins = size_bytes - size - _SKIPPABLE.size
    return Trailer(_little_endian(hashes), text_bytes, before, begins)


def _own_checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_OWN_BYTES).digest()


def _little_endian(numbers: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _messages(file: IO[bytes], path: Path, trailer: Trailer) -> Iterator[Archived]:
    """The messages of a file, which have to be as many and as long as *trailer* says."""
    count = len(trailer.hashes)
    # One message may be long, but many together may not.
    limit_bytes = LINE_MAX_BYTES if count == 1 else SEGMENT_TEXT_MAX_BYTES
    if trailer.text_bytes > limit_bytes:
        raise damaged(path, f"it claims {trailer.text_bytes} bytes of text, over {limit_bytes}")
    number = 0
    before = None
    for number, line in enumerate(_lines(file, path, trailer), 1):
        try:
            before = decode(line, before)
        except ValueError as error:
            raise damaged(path, f"in line {number}, {error}") from error
        yield before
    if number != count:
        raise damaged(path, f"it has {number} messages, where {count} were written")


def _lines(file: IO[bytes], path: Path, trailer: Trailer) -> Iterator[bytes]:
    """The lines, without their newlines; together they have to be as long as the trailer says."""
    pending = bytearray()
    total = 0
    for chunk in _chunks(file, path, trailer.begins):
        total += len(chunk)
        if total > trailer.text_bytes:
            raise damaged(path, f"it has more than its {trailer.text_bytes} bytes of text")
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            pending += chunk[start:end]
            yield bytes(pending)
            pending.clear()
            start = end + 1
        pending += chunk[start:]
    if total != trailer.text_bytes or pending:
        raise damaged(path, f"it has {total} of its {trailer.text_bytes} bytes of text")


def _chunks(file: IO[bytes], path: Path, data_bytes: int) -> Iterator[bytes]:
    """The text of a file's first *data_bytes*, never more than 64 KB of it at once."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX_BYTES)
    source: Any = _Part(file, data_bytes)
    try:
        with decompressor.stream_reader(source, read_across_frames=True) as reader:
            while chunk := reader.read(_CHUNK_BYTES):
                yield chunk
    except zstandard.ZstdError as error:
        raise damaged(path, f"zstd cannot read it ({error})") from error


class _Part:
    """The first bytes of a file, as something to read from."""

    def __init__(self, file: IO[bytes], size_bytes: int) -> None:
        file.seek(0)
        self._file = file
        self._left_bytes = size_bytes

    def read(self, size_bytes: int) -> bytes:
        data = self._file.read(min(size_bytes, self._left_bytes))
        self._left_bytes -= len(data)
        return data
