"""Folder: a store's ledgers as SQLite files, each in a folder of its agent."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from elytron.config import Config
from elytron.errors import ElytronError
from elytron.ledger import deleted, files, renamed, swapping
from elytron.ledger.lock import FileLock
from elytron.ledger.opening import LedgerFile, name_within
from elytron.ledger.pool import Slots
from elytron.ledger.sqlite import Ledger
from elytron.ledger.uses import Uses

_SPARE_READERS = 24  # idle readers of a store beyond one an agent
_UPKEEP_READERS_MAX = 4  # chores read with connections of their own


class FolderLedgers:
    """The ledgers in one folder."""

    def __init__(self, folder: Path, config: Config, *, vfs: str | None = None) -> None:
        self.folder = files.from_here(folder)
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
        with self._locked(name, deadline) as is_there:
            if not is_there:
                return False
            alone()
            return deleted.take_away(self.folder, name)

    def rename(self, old: str, new: str, *, alone: Callable[[], None], deadline: float) -> bool:
        with self._locked(old, deadline) as is_there:
            if not is_there:
                return False
            alone()
            swapping.finish(files.agent_folder(self.folder, old))  # which has the name in it
            renamed.move(self.folder, old, new)
            try:
                file = LedgerFile(self.folder, new, self._config, vfs=self._vfs)
                file.finish_renaming(just_moved=True)
            except ElytronError as error:
                raise renamed.is_done(error, old, new) from error
            return True

    @contextlib.contextmanager
    def _locked(self, name: str, deadline: float) -> Iterator[bool]:
        """Nobody else writes to an agent for the length of the block; whether it is there."""
        folder = files.agent_folder(self.folder, name)
        try:
            lock = FileLock(folder / files.LOCK)
        except FileNotFoundError:
            yield False
            return
        except OSError as error:
            raise files.translated(error, folder) from error
        with contextlib.closing(lock):
            lock.acquire(deadline, self._config.save_timeout_s)
            yield lock.has_its_name()  # if not, another was faster

    def make(self) -> None:
        files.make_store(self.folder)

    def close(self) -> None:
        """There is nothing that they share."""
