"""Ledgers on PostgreSQL: those of one store, which is a schema on a server."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from elytron.config import Config
from elytron.errors import Busy, Unavailable
from elytron.ledger import files
from elytron.ledger.lock import FileLock
from elytron.ledger.postgres import dispatched as dispatched  # which registers itself
from elytron.ledger.postgres import faults, migrating, removing, renaming
from elytron.ledger.postgres.dsn import Dsn
from elytron.ledger.postgres.ledger import Lending, PostgresLedger
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.links import Links
from elytron.ledger.postgres.together import Grouping
from elytron.ledger.uses import Uses

_FILES = "postgresql.json"  # in the store's folder: which one it is
_FILES_LOCK = "postgresql.lock"  # while that is written
_OPEN_TIMES = 25  # as many agents open: each holds no descriptor
_CLAIM = "UPDATE store SET files_id = %(id)s::text WHERE files_id = ''"
# Citus: a transaction about agents of several nodes would be committed in two phases.
_SPREAD = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')"
_OWNER = "SELECT files_id FROM store"


class PostgresLedgers:
    """The ledgers in one schema, and the folder of their archives, graphs and locks."""

    def __init__(self, dsn: Dsn, config: Config, *, group: Grouping) -> None:
        """
        Args:
            group: makes one call of what many callers ask at once.
        """
        self.folder = files.from_here(Path(config.files_path))
        self.shown = dsn.shown
        self.open_max = _OPEN_TIMES * config.max_open_agents
        self._config = config
        size = config.postgres_connections // 2
        readers, writers = (
            Links(dsn, config.postgres_schema, size=size, timeout_s=timeout_s)
            for timeout_s in (config.read_timeout_s, config.save_timeout_s)
        )
        self._lending = Lending(readers, writers, shown=dsn.shown, look=self._look, group=group)
        self._mutex = threading.Lock()
        self._there = self._ours = False

    def new(
        self,
        name: str,
        *,
        uses: Uses,
        upkeep: bool = False,
        carrying: bool = False,
        on_near: Callable[[], None] = lambda: None,
    ) -> PostgresLedger:
        return PostgresLedger(
            self._lending,
            name,
            self._config,
            folder=files.agent_folder(self.folder, name),
            uses=uses,
            upkeep=upkeep,
            carrying=carrying,
            on_near=on_near,
        )

    def may_hold(self, name: str) -> bool:  # noqa: ARG002 - opening it asks as much
        return True

    def names(self) -> list[str]:
        deadline = time.monotonic() + self._config.save_timeout_s
        if not self._look(create=False, deadline=deadline):
            return []
        with self._lent(deadline) as link:
            return sorted([name for (name,) in link.native("SELECT name FROM names")])

    def remove(self, name: str, *, alone: Callable[[], None], deadline: float) -> bool:
        if not self._look(create=False, deadline=deadline):
            return False
        ledger = self.new(name, uses=Uses.of(self._config.wal_limit_bytes))
        with self._lent(deadline, self._lending.agent_id(name)) as link:
            if not removing.begin(link, ledger.source, alone=alone, deadline=deadline):
                return False
        ledger.finish_removing(deadline)
        return True

    def rename(self, old: str, new: str, *, alone: Callable[[], None], deadline: float) -> bool:
        if not self._look(create=False, deadline=deadline):
            return False
        names = renaming.Renaming(old, new, self._lending.agent_id)
        ledger = self.new(new, uses=Uses.of(self._config.wal_limit_bytes))
        with self._lent(deadline, self._lending.agent_id(old)) as link:
            if not renaming.begin(
                link, names, self.shown, store=self.folder, alone=alone, deadline=deadline
            ):
                return False
        ledger.finish_renaming(names, deadline)
        return True

    def make(self) -> None:
        self._look(create=True, deadline=time.monotonic() + self._config.save_timeout_s)

    def close(self) -> None:
        self._lending.close()

    def _look(self, *, create: bool, deadline: float) -> bool:
        """
        See that there is a schema of this version, made if *create*, and that the folder is the
        store's: in another one archived messages would be missing without a word.

        Raises:
            Unavailable: the server cannot be reached, its schema is another version's, or the
                store's archives are in another folder.
            Busy: another thread was at it until *deadline*.
        """
        if self._ours or (self._there and not create):
            return True
        with self._in_turn(deadline), self._lent(deadline) as link:
            if not create and not migrating.version(link, self._config.postgres_schema):
                return False
            migrating.bring_up(link, self._config.postgres_schema)
            ours = ""
            if create:
                files.make_store(self.folder)
                ours = self._make_id(deadline)
                link.native(_CLAIM, {"id": ours})
            self._check_folder(link, ours or self._read_id())
            self._lending.spread = bool(link.native(_SPREAD)[0][0])
            self._there, self._ours = True, self._ours or create
        return True

    @contextlib.contextmanager
    def _in_turn(self, deadline: float) -> Iterator[None]:
        if not self._mutex.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Busy(f"{self.shown} is being opened by another thread; retry later")
        try:
            yield
        finally:
            self._mutex.release()

    def _make_id(self, deadline: float) -> str:
        """What the folder is known by, the same for all that ask for it at once."""
        with (
            files.translate_os_errors(self.folder),
            contextlib.closing(FileLock(self.folder / _FILES_LOCK)) as lock,
        ):
            lock.acquire(deadline, self._config.save_timeout_s)
            if not self._read_id():
                files.write_json(self.folder / _FILES, {"id": uuid.uuid4().hex})
            return self._read_id()

    def _read_id(self) -> str:
        """The same, if the folder has one; else nothing."""
        held = files.read_json(self.folder / _FILES)
        return "" if held is None else str(held.get("id", ""))

    def _check_folder(self, link: Link, ours: str) -> None:
        """
        Raises:
            Unavailable: the store's archives are in another folder.
        """
        ((theirs,),) = link.native(_OWNER)
        if theirs not in ("", ours):
            raise Unavailable(
                f"{self.shown} keeps its archives in another folder than {self.folder}: name that"
                " one with `files_path`, on every machine that opens this store; nothing was"
                " written"
            )

    @contextlib.contextmanager
    def _lent(self, deadline: float, agent: uuid.UUID | None = None) -> Iterator[Link]:
        """A link that is about an agent, or none; what it meets is raised as ours."""
        link = self._lending.writers.borrow(agent, deadline)
        try:
            yield link
        except faults.STORAGE_ERRORS as error:
            raise faults.translate(error, self.shown, committing=link.committing) from error
        finally:
            self._lending.writers.give_back(link)
