"""
Zips: the one file of a ZIP archive that is imported, unpacked while it is read.

Nothing is written to disk, so paths in the archive mean nothing. What would unpack to more than
it can hold in earnest is refused before it is read.
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from elytron.errors import InvalidArgument

MEMBER = "conversations.json"  # as the exports of ChatGPT and Claude have it
UNPACKED_MAX_BYTES = 8 << 30
DIRECTORY_MAX_BYTES = 4 << 20  # of the list of files, which is read into memory: some 40,000
RATIO_MAX = 200  # unpacked to packed; text has 3 to 20, a bomb up to 1032
_RATIO_FROM_BYTES = 64 << 20  # smaller ones cost nothing, whatever they are
_ENCRYPTED = 1  # among the flags of a file
_BAD = (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, struct.error)

# What reading a file of an archive may raise, beside an OSError.
READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError)


class _Limited(io.RawIOBase):
    """An open file; no more than so many bytes at once are read while there is a limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.limit_bytes: int | None = DIRECTORY_MAX_BYTES

    def read(self, size: int = -1) -> bytes:
        if self.limit_bytes is None:
            return self._file.read(size)
        data = self._file.read(self.limit_bytes + 1 if size < 0 else size)
        if max(size, len(data)) > self.limit_bytes:
            raise zipfile.BadZipFile(f"its list of files has over {self.limit_bytes} bytes")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == io.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("a file in it begins before it does")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def open_member(path: Path, file: BinaryIO) -> tuple[BinaryIO, int]:
    """
    The file to import of an archive, ready to be read, and its size unpacked.

    Raises:
        InvalidArgument: it is no sound archive, has no such file, or unpacks to too much.
    """
    limited = _Limited(file)
    try:
        archive = zipfile.ZipFile(cast(IO[bytes], limited))
        limited.limit_bytes = None
        member = _chosen(path, archive.infolist())
        return cast(BinaryIO, archive.open(member)), member.file_size
    except _BAD as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(
            f"{path} is no ZIP archive that can be read: {error}; nothing was imported"
        ) from error


def _chosen(path: Path, members: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    found = [m for m in members if PurePosixPath(m.filename).name == MEMBER and not m.is_dir()]
    if len(found) != 1:
        raise InvalidArgument(
            f"{path} has {len(found) or 'no'} files {MEMBER} among its {len(members)}, where one is"
            " expected; unpack it and give the file itself; nothing was imported"
        )
    (member,) = found
    if member.flag_bits & _ENCRYPTED:
        raise InvalidArgument(f"{path} is encrypted; unpack it first; nothing was imported")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidArgument(
            f"{path} is packed by method {member.compress_type}, not deflate; unpack it first;"
            " nothing was imported"
        )
    too_big = member.file_size > UNPACKED_MAX_BYTES
    too_dense = member.file_size > max(_RATIO_FROM_BYTES, RATIO_MAX * member.compress_size)
    if too_big or too_dense:
        raise InvalidArgument(
            f"{path} unpacks from {member.compress_size} to {member.file_size} bytes, at most"
            f" {UNPACKED_MAX_BYTES} and {RATIO_MAX} times as much; if it is what it says, unpack it"
            " and give the file itself; nothing was imported"
        )
    return member
