"""
Reserve: bytes of the disk that are taken in advance, to be given up when it is full.

Cleaning up a full disk takes room itself: segments are written before messages leave.
"""

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from elytron.errors import Unavailable
from elytron.ledger.files import file_size, sync_file

_log = logging.getLogger("elytron.upkeep")
_NAME = "reserve"
_CHUNK = bytes(1 << 16)
_NOT_THERE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Reserve:
    """One store's reserve: a file of *size_bytes* that holds nothing."""

    def __init__(self, store: Path, *, size_bytes: int) -> None:
        self.path = store / _NAME
        self._size_bytes = size_bytes
        self._complained = False

    @property
    def bytes(self) -> int:
        """How many bytes it holds now."""
        return file_size(self.path)

    def take(self) -> bool:
        """
        Take it, as far as it is not taken yet; whether it is whole now.

        Only while as much again stays free, or it would itself be what fills the disk. That the
        disk has no room for it is no error: it is tried again after each clean-up.
        """
        try:
            held_bytes = self.bytes
            if held_bytes == self._size_bytes:
                return True
            if held_bytes > self._size_bytes:  # the setting was lowered
                os.truncate(self.path, self._size_bytes)
                return True
            free_bytes = shutil.disk_usage(self.path.parent).free
            if free_bytes < 2 * self._size_bytes:
                self._complain(f"{free_bytes} bytes are free")
                return False
            with self.path.open("ab") as file:
                _allocate(file.fileno(), self._size_bytes)
                sync_file(file.fileno())
        except (OSError, Unavailable) as error:
            self._complain(str(error))
            self._remove()  # a part of one would only pass for a whole
            return False
        self._complained = False
        return True

    def _complain(self, why: str) -> None:
        """Once, and not at each try."""
        if not self._complained:
            _log.info("the reserve of %d bytes is not taken: %s", self._size_bytes, why)
        self._complained = True

    @contextlib.contextmanager
    def given_up(self) -> Iterator[None]:
        """Give it up for the length of the block, then take it again."""
        self._remove()
        try:
            yield
        finally:
            self.take()

    def _remove(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:  # it only takes room
            _log.warning("the reserve %s cannot be removed: %s", self.path, error)


def _allocate(descriptor: int, size_bytes: int) -> None:
    """Let a file have *size_bytes* that are really there."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
        else:
            return
    written = os.fstat(descriptor).st_size
    while written < size_bytes:
        written += os.write(descriptor, _CHUNK[: size_bytes - written])
