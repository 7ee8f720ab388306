"""
A file layer for the real SQLite that fails once, where it is told to.

    disk = FaultyDisk()                       # a VFS named `faulty_disk.NAME`
    disk.arm("xWrite", 3, apsw.IOError)       # the third write from now on fails
"""

from typing import Any

import apsw

NAME = "faulty"


class FaultyDisk(apsw.VFS):
    """Counts the calls of one kind, on files whose names end as told, and fails the nth."""

    def __init__(self) -> None:
        self.disarm()
        super().__init__(NAME, "")

    def arm(self, call: str, nth: int, error: type[apsw.Error], *, ending: str = "") -> None:
        self._call, self._nth, self._ending = call, nth, ending
        self._count = 0
        self.error, self.fired = error, False

    def disarm(self) -> None:
        self.arm("", 0, apsw.IOError)

    def fails(self, call: str, name: str) -> bool:
        if call != self._call or not name.endswith(self._ending):
            return False
        self._count += 1
        self.fired = self.fired or self._count == self._nth
        return self._count == self._nth

    def xOpen(self, name: Any, flags: list[int]) -> "FaultyFile":  # noqa: N802
        return FaultyFile(self, name, flags)


class FaultyFile(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        if self._disk.fails("xWrite", self._name):
            # As on a disk that fills up in the middle: what fitted is there.
            super().xWrite(bytes(data)[: len(data) // 2], offset)
            raise self._disk.error
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._disk.fails("xSync", self._name):
            raise self._disk.error
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        if self._disk.fails("xTruncate", self._name):
            raise self._disk.error
        super().xTruncate(newsize)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        if self._disk.fails("xRead", self._name):
            raise self._disk.error
        return super().xRead(amount, offset)
