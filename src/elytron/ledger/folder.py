"""Folder: a store's ledgers as SQLite files, each in a folder of its agent."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from elytron.config import Config
from elytron.ledger import deleted, files
from elytron.ledger.lock import FileLock
from elytron.ledger.opening import name_within
from elytron.ledger.pool import Slots
from elytron.ledger.sqlite import Ledger
from elytron.ledger.uses import Uses

_SPARE_READERS = 24  # idle readers of a store beyond one an agent
_UPKEEP_READERS_MAX = 4  # chores read with connections of their own


class FolderLedgers:
    """The ledgers in one folder."""

    def __init__(self, folder: Path, config: Config, *, vfs: str | None = None) -> None:
        self.folder = folder
        self.shown = str(folder)
        self.open_max = config.max_open_agents
        self._config = config
        self._vfs = vfs
        self._slots = Slots(in_use_max=config.max_readers, spare_max=_SPARE_READERS)
        self._upkeep_slots = Slots(in_use_max=_UPKEEP_READERS_MAX, spare_max=0)

    def new(
        self,
        name: str,
        *,
        uses: Uses,
        upkeep: bool = False,
        carrying: bool = False,
        on_near: Callable[[], None] = lambda: None,
    ) -> Ledger:
        return Ledger(
            self.folder,
            name,
            self._config,
            slots=self._upkeep_slots if upkeep else self._slots,
            vfs=self._vfs,
            upkeep=upkeep,
            carrying=carrying,
            uses=uses,
            on_near=on_near,
        )

    def may_hold(self, name: str) -> bool:
        return files.may_hold_ledger(files.agent_folder(self.folder, name))

    def names(self) -> list[str]:
        return files.agent_names(self.folder, name_within)

    def remove(self, name: str, *, alone: Callable[[], None], deadline: float) -> bool:
        folder = files.agent_folder(self.folder, name)
        try:
            lock = FileLock(folder / files.LOCK)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise files.translated(error, folder) from error
        with contextlib.closing(lock):
            lock.acquire(deadline, self._config.save_timeout_s)
            if not lock.has_its_name():  # another was faster
                return False
            alone()
            return deleted.take_away(self.folder, name)

    def make(self) -> None:
        files.make_store(self.folder)

    def close(self) -> None:
        """There is nothing that they share."""
