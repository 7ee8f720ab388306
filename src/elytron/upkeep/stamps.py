"""
Stamps: whether an agent's files may have changed, by what the file system says of them.

Every write changes the time of a file, but two within one tick of the file system's clock give it
the same. So a stamp can be trusted only once the newest of its times is older than a tick.
"""

import contextlib
import time
from pathlib import Path
from typing import NamedTuple

from elytron.archive import manifest
from elytron.ledger import files

# Times in whole seconds are those of a file system that knows no parts of them: FAT has a tick of
# two seconds. Others have that of the kernel, at most 10 ms.
_TICK_COARSE_S, _TICK_FINE_S = 2.0, 0.05
_SECOND_NS = 1_000_000_000
_WAL = f"{files.LEDGER}-wal"


class Stamp(NamedTuple):
    """(name, bytes, time, inode) of each file that holds something of an agent."""

    files: list[list[str | int]]
    newest_ns: int

    def settles_in_s(self) -> float:
        """For how long a write might still leave it as it is; 0 or less if none can any more."""
        tick_s = _TICK_FINE_S if self.newest_ns % _SECOND_NS else _TICK_COARSE_S
        return tick_s - (time.time_ns() - self.newest_ns) / _SECOND_NS


def take(folder: Path, archive: Path) -> Stamp:
    """The stamp of an agent's ledger and archive, as of now."""
    found: list[list[str | int]] = []
    newest_ns = 0
    with files.translate_os_errors(folder):
        for path in (folder / files.LEDGER, folder / _WAL, archive / manifest.FILE):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if path.name == _WAL and not status.st_size:  # made by who opens it; holds nothing
                    continue
                found.append([path.name, status.st_size, status.st_mtime_ns, status.st_ino])
                newest_ns = max(newest_ns, status.st_mtime_ns)
    return Stamp(found, newest_ns)


def take_settled(folder: Path, archive: Path) -> tuple[Stamp, bool]:
    """A stamp and whether it can be trusted, after waiting for that no longer than a fine tick."""
    stamp = take(folder, archive)
    wait_s = stamp.settles_in_s()
    if 0 < wait_s <= _TICK_FINE_S:
        time.sleep(wait_s)
        stamp = take(folder, archive)
    return stamp, stamp.settles_in_s() <= 0
