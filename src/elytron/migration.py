"""
Migration: agents from one store into another, be they folders or on PostgreSQL.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from elytron import config_sources
from elytron.archive import Archive
from elytron.config import Config
from elytron.errors import Busy, Closed, DiskFull, ElytronError, Forked, InvalidArgument, NotFound
from elytron.ledger import files, strays
from elytron.ledger.ledgers import Ledgers
from elytron.ledger.uses import Uses
from elytron.reports import AgentMigrated, NotMigrated, StoreMigrated
from elytron.store import ledgers_at, names_of
from elytron.upkeep.transferring import Progress, Side, Transfer, check_source

_log = logging.getLogger("elytron.migration")
# After these the others would fail too.
_ENDING = (DiskFull, Closed, Forked)

Watching = Callable[[str, int, int], contextlib.AbstractContextManager[Progress | None]]


def migrate_store(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    config: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    agents: Iterable[str] | None = None,
    anew: bool = False,
    source_settings: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
    **settings: Any,
) -> StoreMigrated:
    """
    Carry agents from one store into another, while others go on saving to the first.

    All that an agent has is carried as it is: messages with their ids, order and times, memories,
    concepts, relations, vectors, the archive. What the target has is read back and compared. The
    source is left as it is. Stopped at any moment, the same call goes on where that was.

    To change over: migrate, end the programs that save to the source, migrate again, which carries
    what came meanwhile, and start them on the target. An agent that is half there cannot be used:
    its verbs raise `Unavailable`.

    Args:
        source, target: folders, or PostgreSQL as `elytron.open` takes it. The target is made if it
            is not there.
        config, settings: as of `elytron.open`, for both. `max_total_mb` is not looked at.
        agents: their names; all if None.
        anew: in place of what another migration, from elsewhere, left half done in the target.
        source_settings: settings that the source has instead, as `files_path`.
        on_progress: called with (agents done, all).

    Returns:
        What came, agent by agent. `failed` names those that are not whole in the target, each with
        why: `Conflict` (there is other content, or it was written to since), `Corrupt` (damaged
        here), `OverBudget` (a limit of the target), `Busy`, `Unavailable`.

    Raises:
        NotFound: there is no source, or not one of *agents*.
        InvalidArgument: the two are one, or one lies in the other.
        DiskFull: as it says; what came before stays.
    """
    here = config_sources.load(config, {**settings, **(source_settings or {})}, os.environ)
    there = config_sources.load(config, settings, os.environ)

    @contextlib.contextmanager
    def watching(_name: str, number: int, count: int) -> Iterator[None]:
        if on_progress is not None:
            on_progress(number, count)
        yield
        if on_progress is not None and number + 1 == count:
            on_progress(count, count)

    with Migration(source, target, here, there) as migration:
        return migration.run(names_of(agents), anew=anew, watching=watching)


class Migration:
    """Two stores between which agents are carried. Use it in a `with` block."""

    def __init__(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        source_config: Config,
        target_config: Config,
    ) -> None:
        # The store's own bound is kept by those who work in it; a part of it is granted to them.
        self._source_config = replace(source_config, max_total_mb=None)
        self._target_config = replace(target_config, max_total_mb=None)
        self._open = contextlib.ExitStack()
        self._source = self._ledgers(source, self._source_config)
        self._target = self._ledgers(target, self._target_config)
        _check_apart(self._source, self._target)

    def run(self, wanted: list[str] | None, *, anew: bool, watching: Watching) -> StoreMigrated:
        """
        Carry agents, all if None is *wanted*. Arguments and errors as of `migrate_store`.

        Args:
            watching: entered for each agent, with its name, its number from 0 on, and how many
                there are; what it gives is called with (rows compared, all).
        """
        names = self._names(wanted)
        self._source.make()  # it is there; but its archives may be in another folder
        done: list[AgentMigrated] = []
        failed: list[NotMigrated] = []
        for number, name in enumerate(names):
            with watching(name, number, len(names)) as on_progress:
                try:
                    done.append(self._one(name, anew, on_progress))
                except _ENDING:
                    raise
                except ElytronError as error:
                    _log.info("%r was not carried: %s", name, error)
                    failed.append(NotMigrated(name, error))
        left_out: list[str] = []
        if wanted is None:
            there = self._source.names()
            new = sorted(set(there) - set(names))
            failed += [NotMigrated(name, _too_late(name)) for name in new]
            left_out += map(str, strays.strays(self._source.folder, there))
        return StoreMigrated(
            self._source.shown, self._target.shown, tuple(done), tuple(failed), tuple(left_out)
        )

    def _names(self, wanted: list[str] | None) -> list[str]:
        held = self._source.names()
        if not held:
            raise NotFound(f"{self._source.shown} holds no agents; nothing was migrated")
        if wanted is None:
            return held
        known = set(held)
        for name in wanted:
            if name not in known:
                raise NotFound(
                    f"{self._source.shown} holds no agent called {name!r}; nothing was migrated"
                )
        return list(dict.fromkeys(wanted))

    def _one(self, name: str, anew: bool, on_progress: Progress | None) -> AgentMigrated:
        with self._side(self._source, name, self._source_config, create=False) as source:
            check_source(source.ledger)  # before anything is made
            self._target.make()
            with self._side(self._target, name, self._target_config, create=True) as target:
                return Transfer(name, source, target, on_progress=on_progress).run(anew=anew)

    @contextlib.contextmanager
    def _side(self, ledgers: Ledgers, name: str, config: Config, *, create: bool) -> Iterator[Side]:
        uses = Uses.of(config.wal_limit_bytes)
        ledger = ledgers.new(name, uses=uses, carrying=create)
        with contextlib.closing(ledger):
            if not ledger.open(create=create):
                raise NotFound(f"{ledgers.shown} holds no agent called {name!r}")
            archive = Archive(ledger.folder / files.ARCHIVE, timeout_s=config.save_timeout_s)
            yield Side(ledger, archive, config)

    def _ledgers(self, place: str | os.PathLike[str], config: Config) -> Ledgers:
        return self._open.enter_context(contextlib.closing(ledgers_at(place, config)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._open.close()


def _too_late(name: str) -> Busy:
    return Busy(
        f"{name!r} was begun while others were carried, and nothing of it was: migrate once more"
    )


def _check_apart(source: Ledgers, target: Ledgers) -> None:
    """
    Raises:
        InvalidArgument: they are one store, or one lies in the other's folder.
    """
    for inner, outer in ((target, source), (source, target)):
        if Path(os.path.realpath(inner.folder)).is_relative_to(os.path.realpath(outer.folder)):
            raise InvalidArgument(
                f"{source.shown} and {target.shown} are one store, or one lies in the other's"
                " folder of files; nothing was migrated: name another place, or set another"
                " `files_path`"
            )
