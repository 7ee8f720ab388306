"""
Durable: files that are absent or whole, whatever happens, through the plain calls of `os`.

Whoever renames a file into place syncs its folder afterwards; before that it may still be gone
after a power cut.
"""

import contextlib
import os
from pathlib import Path

from elytron.ledger.files import sync_file

PART = ".part"
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)


class PartFile:
    """A file that is being written beside its place, and takes it when it is whole."""

    def __init__(self, path: Path, *, part: Path) -> None:
        self.path = path
        self._part = part
        self._descriptor = os.open(part, _WRITE, 0o644)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def take_place(self) -> None:
        """Force it to the disk and rename it. The folder is still to be synced."""
        sync_file(self._descriptor)
        self._close()
        os.replace(self._part, self.path)

    def abandon(self) -> None:
        """Remove what was written. Harmless once it has taken its place."""
        with contextlib.suppress(OSError):  # the error that brought us here is the one to tell
            self._close()
        with contextlib.suppress(OSError):  # `Archive.adopt` removes what stays
            os.unlink(self._part)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
