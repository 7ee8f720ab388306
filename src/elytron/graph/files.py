"""
Files: what lies in the folder of one agent's graph, and who may open it.

The graph is a projection, so nothing here is synced to the disk and anything may be deleted;
what matters is that a file that is not as it was left is never taken for the graph, and that no
two processes open one at a time. What to do about either is decided by whoever asks.
"""

import contextlib
import json
import os
import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from elytron.errors import Busy
from elytron.ledger.lock import FileLock

STATE_MAX_BYTES = 64 * 1024
_POLL_S, _POLL_MIN_S = 0.01, 0.0002
_OLD_S = 0.2  # after that time of waiting one asks twice as often as at first, then ever more
_LOCK, _WANTED, _STATE = "lock", "wanted", "state.json"


class GraphFolder:
    """
    The files of one agent's graph, for one engine.

    The side files of an engine (`.wal`, `.shadow` and the like) go wherever their file goes, or
    with it. Not locked by itself: whoever changes anything holds the `GraphLock`.
    """

    def __init__(self, path: Path, engine: str) -> None:
        self.path = path
        self.engine = engine
        self.main = path / f"graph.{engine}"
        self.building = path / f"building.{engine}"
        self.damaged = path / f"damaged.{engine}"
        self.state = path / _STATE
        self.lock = path / _LOCK
        self.wanted = path / _WANTED

    def exists(self) -> bool:
        """Whether there is anything in the graph's place, be it a graph or not."""
        return os.path.lexists(self.main)

    def bytes(self) -> int:
        """Of all files in the folder; 0 if there is none."""
        return _size_bytes(self.path)

    def main_bytes(self, main: Path | None = None) -> int:
        """Of the graph's file, or of *main*, without its side files."""
        return _file_bytes(main or self.main)

    def wal_bytes(self, main: Path | None = None) -> int:
        """Of the engine's log beside the graph, or beside *main*."""
        return _file_bytes(Path(f"{main or self.main}.wal"))

    def read_state(self) -> dict[str, Any] | None:
        """What was written of the graph last; None if that is missing or damaged."""
        try:
            with self.state.open("rb") as file:
                data = file.read(STATE_MAX_BYTES + 1)
            parsed = json.loads(data) if len(data) <= STATE_MAX_BYTES else None
        except (OSError, ValueError, RecursionError):
            return None  # a graph without it is built anew
        return parsed if isinstance(parsed, dict) else None

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace it, so that it is old or new. Raises OSError."""
        part = self.state.with_suffix(".part")
        part.write_text(json.dumps(state), encoding="utf-8")
        part.replace(self.state)

    def set_aside(self) -> None:
        """Keep the graph's file as the one damaged file, without its side files and state."""
        _remove(self.state)
        for path in self._with_sides(self.damaged):
            _remove(path)
        main, *sides = self._with_sides(self.main)
        for side in sides:
            _remove(side)
        if self.exists():
            main.replace(self.damaged)

    def clear_building(self) -> None:
        """Make room for a file to be built."""
        for path in self._with_sides(self.building):
            _remove(path)

    def install(self) -> None:
        """Put what was built in the graph's place; remove what was there, of any engine."""
        _remove(self.state)  # a file without a state is never taken for the graph
        for path in self._entries():
            if path.name.startswith("graph."):
                _remove(path)
        for path in self._with_sides(self.building):
            if os.path.lexists(path):
                path.replace(self.path / path.name.replace("building.", "graph.", 1))

    def remove(self) -> int:
        """Delete everything but the locks; how many bytes that was. Raises OSError."""
        before = self.bytes()
        for path in self._entries():
            if path.name not in (_LOCK, _WANTED):
                _remove(path)
        return before - self.bytes()

    def _with_sides(self, main: Path) -> list[Path]:
        return [
            main,
            *(path for path in self._entries() if path.name.startswith(f"{main.name}.")),
        ]

    def _entries(self) -> list[Path]:
        try:
            with os.scandir(self.path) as entries:
                return [Path(entry.path) for entry in entries]
        except FileNotFoundError:
            return []


class GraphLock:
    """
    Who has the graph open: one process at a time, this one or another.

    Whoever waits for it holds `wanted` meanwhile, so that waiters come one after another, and
    the holder can see that it is waited for. For one thread at a time, but for `is_wanted`.
    """

    def __init__(self, folder: GraphFolder) -> None:
        self._folder = folder
        self._lock: FileLock | None = None
        self._wanted: FileLock | None = None
        self._mutex = threading.Lock()  # of `_wanted`

    @property
    def held(self) -> bool:
        return self._lock is not None

    def acquire(self, deadline: float) -> None:
        """
        Take the lock before *deadline* on the monotonic clock.

        Raises:
            Busy: another process held it all that time; its pid is named.
            OSError: the folder cannot be written to.
        """
        wanted = _taken(self._folder.wanted, deadline)
        if wanted is None:
            raise self._busy()
        try:
            self._lock = _taken(self._folder.lock, deadline)
        finally:
            wanted.close()
        if self._lock is None:
            raise self._busy()
        # Only for whoever reads it in an error; a lock that cannot be written to is still one.
        with contextlib.suppress(OSError):
            self._folder.lock.write_text(str(os.getpid()), encoding="ascii")

    def is_wanted(self) -> bool:
        """Whether a process waits for it, or its folder was deleted. Cheap. Raises OSError."""
        with self._mutex:
            if self._lock is None:
                return False
            if not _is_still(self._lock, self._folder.lock):
                return True
            if self._wanted is None:
                self._wanted = FileLock(self._folder.wanted)
            if not self._wanted.try_acquire():
                return True
            self._wanted.release()
            return False

    def release(self) -> None:
        """Harmless if it is not held."""
        with self._mutex:
            for lock in (self._wanted, self._lock):
                if lock is not None:
                    lock.close()
            self._wanted = self._lock = None

    def _busy(self) -> Busy:
        return Busy(
            f"the graph in {self._folder.path} is in use by {self._holder()}, which did not give"
            " it back in time; try again, or wait longer (`graph_timeout_s`, and"
            " `graph_build_timeout_s` where it has to be brought up to date first)"
        )

    def _holder(self) -> str:
        try:
            with self._folder.lock.open("rb") as file:
                return f"process {int(file.read(20))}"
        except (OSError, ValueError):
            return "another process"


def _taken(path: Path, deadline: float) -> FileLock | None:
    """The lock on *path*, as soon as it is free; None if it is not before *deadline*."""
    begun = time.monotonic()
    while True:
        lock = FileLock(path)
        try:
            while not lock.try_acquire():
                now = time.monotonic()
                if now >= deadline:
                    lock.close()
                    return None
                # Whoever asks next gets it: so who has waited for long asks often.
                poll_s = max(_POLL_MIN_S, _POLL_S / (1 + ((now - begun) / _OLD_S) ** 2))
                time.sleep(min(deadline - now, poll_s * (0.5 + random.random())))
            if _is_still(lock, path):
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()  # the folder was removed meanwhile, and made anew


def _is_still(lock: FileLock, path: Path) -> bool:
    try:
        return os.path.samestat(lock.stat(), path.stat())
    except FileNotFoundError:
        return False


def _file_bytes(path: Path) -> int:
    with contextlib.suppress(OSError):  # there is none
        return path.stat().st_size
    return 0


def _size_bytes(path: Path) -> int:
    try:
        with os.scandir(path) as entries:
            return sum(_entry_bytes(entry) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):  # or it was removed while we looked
        return 0


def _entry_bytes(entry: "os.DirEntry[str]") -> int:
    if entry.is_dir(follow_symlinks=False):
        return _size_bytes(Path(entry.path))
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
