"""
Runs: who is moving messages between ledger and archive now, over all processes.

Each run has a token and a locked file; the lock ends with its process, whatever ends that. So what
a dead run left half done can be told from what a living one, or a stopped one, is still at. Ids of
processes say nothing across containers.
"""

import contextlib
import logging
import os
import secrets
from pathlib import Path

from elytron.errors import Busy
from elytron.ledger.files import names_in, translate_os_errors
from elytron.ledger.lock import FileLock

_log = logging.getLogger("elytron.upkeep")
_PREFIX, _ENDING = "run-", ".live"


class Run:
    """One run in the folder of one agent. Nothing is made before `begin`."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(8)
        self._folder = folder
        self._lock: FileLock | None = None

    def begin(self) -> str:
        """Show that this run is alive; returns its token. Harmless if it was begun."""
        path = self._folder / f"{_PREFIX}{self.token}{_ENDING}"
        with translate_os_errors(path):
            while self._lock is None:
                lock = FileLock(path)
                try:
                    lock.acquire(0.0, 0.0)
                    # Between the two, another may have taken the file for that of a dead run.
                    if path.exists() and os.path.samestat(path.stat(), lock.stat()):
                        self._lock = lock
                except (Busy, FileNotFoundError) as error:
                    _log.debug("%s is begun again: %s", path, error)
                finally:
                    if self._lock is not lock:
                        lock.close()
        return self.token

    def end(self) -> None:
        """Take the file away. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            lock.path.unlink(missing_ok=True)
        except OSError as error:  # whoever looks next finds it unlocked, and removes it
            _log.info("%s is left: %s", lock.path, error)
        finally:
            lock.close()

    def others(self) -> set[str]:
        """The tokens of the other runs that are alive. Files of the dead are removed."""
        alive = set[str]()
        with translate_os_errors(self._folder):
            for name in names_in(self._folder):
                token = name.removeprefix(_PREFIX).removesuffix(_ENDING)
                is_run = name == f"{_PREFIX}{token}{_ENDING}"
                if is_run and token != self.token and _is_locked(self._folder / name):
                    alive.add(token)
        return alive


def _is_locked(path: Path) -> bool:
    """Whether somebody holds the file; if not, it is removed."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(0.0, 0.0)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    except Busy:
        return True
    finally:
        lock.close()
    return False
