"""
Store: many agents under one folder, with one queue, one set of readers, and one close.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import apsw

from elytron import config_sources
from elytron.agent import Agent
from elytron.concepts.extraction import Extract
from elytron.config import Config
from elytron.embed.chosen import FUNCTION, calls_of, check_function
from elytron.embed.embedder import EmbedFunction
from elytron.errors import InvalidArgument
from elytron.ledger import files, strays
from elytron.ledger.folder import FolderLedgers
from elytron.ledger.ledgers import DSN_SCHEMES, Ledgers
from elytron.open_agents import OpenAgents
from elytron.records import StoreUsage
from elytron.reports import Alarm, BackedUp, BackupRestored, Deleted
from elytron.text import Analyzer
from elytron.upkeep import backing_up, bringing_back, deleting, renaming
from elytron.upkeep.clock import Clock
from elytron.upkeep.housekeeping import Housekeeping
from elytron.write.admission import IdClock
from elytron.write.writer import grouped

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def open(  # noqa: A001 - `elytron.open` is the public name
    path: str | os.PathLike[str],
    config: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    embedder: str | EmbedFunction | None = None,
    extract: Extract | None = None,
    **settings: Any,
) -> "Store":
    """
    Open the store at *path*. Nothing is made before the first write.

    Args:
        path: a folder on a local disk, made on the first write, and, where it is relative, sought
            from where the program is now; or a database on a server of
            PostgreSQL, as "postgresql://USER@HOST/DATABASE", see docs/scale.md.
        config: a YAML file, a mapping, or a `Config`.
        embedder: what makes vectors, in the background, with which recall also finds what shares
            no word with a question: the setting of that name, as "ollama" or "wordllama"; or a
            function of (texts, kind) that returns a row of numbers for each text, kind `document`
            or `query`. See docs/recall.md.
        extract: called with the text of each message, in the background, for those who have a
            model for it: returns the concepts and relations that it read there, see docs/graph.md.
        settings: any setting by its name, as `queue_max=100`; see docs/settings.md. They win
            over `ELYTRON_*` in the environment, which wins over *config*.

    Raises:
        InvalidArgument: *path* is neither.
        InvalidSetting: an unknown name or a bad value.
        EmbedderUnavailable: what the embedder needs is not installed.
        Unavailable: the path is a file, on a network file system, or of a newer version.

    Use it in a `with` block, or `close` it. Any number of processes may open one store.
    """
    loaded = config_sources.load(config, with_embedder(settings, embedder), os.environ)
    function = None if isinstance(embedder, str) else embedder
    return Store(path, loaded, embedder=function, extract=extract)


def restore_backup(
    backup: str | os.PathLike[str],
    path: str | os.PathLike[str],
    config: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    agents: Iterable[str] | None = None,
    replace: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> BackupRestored:
    """
    Bring agents back from a backup into the store at *path*, which is made if it is not there.

    The backup is read and compared with its checksums first. What is done with an agent depends on
    what the store has: nothing, and it is put there; a damaged memory, and what is whole of it is
    kept and completed from the backup; a whole one, and it is refused, unless *replace*.

    Args:
        backup: a folder made by `Store.backup`.
        agents: their names; all in the backup if None.
        replace: put the backup in the place of whole memories too. Their files are kept in
            `replaced-TIME` in the agent's folder; delete them when they are of no use any more.
        dry_run: only verify the backup and say what would be done. A whole memory that is not as
            the backup has it is no failure then: `how` is `differs`.
        on_progress: called with (agents done, all).

    Returns:
        What was done, agent by agent; `failed` names those that were not restored, each with why:
        `Conflict` (whole, and no *replace*), `Corrupt` (the backup of it is damaged), `Busy`.

    Raises:
        NotFound: there is no backup, or not of one of *agents*.
        Busy: a backup into the folder, or another restore, is at work.
        Unavailable: a place cannot be used, or a newer version made the backup.
        DiskFull: as it says; agents that were done before it are there.

    Other processes, and stores of this one, that have a replaced agent open go on with what is
    there then; what they have under way is refused with `Busy`.
    """
    loaded = config_sources.load(config, settings, os.environ)
    return bringing_back.bring_back(
        as_path(backup, what="a backup"),
        folder_to_restore(path),
        loaded,
        wanted=names_of(agents),
        replace=replace,
        dry_run=dry_run,
        on_progress=on_progress,
    )


def ledgers_at(path: str | os.PathLike[str], config: Config, *, vfs: str | None = None) -> Ledgers:
    """
    The ledgers of the store at *path*: a folder, or a DSN of PostgreSQL.

    Raises:
        InvalidArgument: it is neither.
        InvalidSetting: a setting does not go with it.
        Unavailable: the folder cannot be one of a store; or the extra `postgres` is missing.
    """
    if isinstance(path, str) and path.startswith(DSN_SCHEMES):
        from elytron.ledger.postgres.opening import open_ledgers

        ledgers: Ledgers = open_ledgers(path, config, group=partial(grouped, config))
    elif isinstance(path, str) and is_address(path):
        raise InvalidArgument(
            "a store is in a folder, or on PostgreSQL, as postgresql://USER@HOST/DATABASE; one that"
            " is served elsewhere is asked with `elytron.connect`"
        )
    else:
        ledgers = FolderLedgers(as_path(path), config, vfs=vfs)
    files.check_store_path(ledgers.folder, allow_network=config.allow_network_path)
    return ledgers


def as_path(path: str | os.PathLike[str], *, what: str = "the store's path") -> Path:
    """
    Raises:
        InvalidArgument: it is no path.
    """
    if isinstance(path, str) and is_address(path):  # which may hold a password
        raise InvalidArgument(f"{what} must be a folder; got the address of a server")
    try:
        found = Path(path)
    except TypeError as error:
        raise InvalidArgument(f"{what} must be a path; got {path!r:.50}") from error
    if f"{found.parts[0] if found.parts else ''}//" in DSN_SCHEMES:
        raise InvalidArgument(f"{what} must be a folder; an address is given as str, not as a Path")
    return found


def is_address(text: str) -> bool:
    """Whether *text* is meant to name a server, and no folder, not even on a drive C://."""
    return _SCHEME.match(text) is not None


def folder_to_restore(path: str | os.PathLike[str]) -> Path:
    """
    The folder of the store that a backup is to be brought back into.

    Raises:
        InvalidArgument: it is no folder.
    """
    if isinstance(path, str) and path.startswith(DSN_SCHEMES):
        raise InvalidArgument(
            "a backup is brought back into a folder, not to PostgreSQL: name an empty folder, and"
            " carry it to the server with `elytron migrate store`; nothing was changed"
        )
    return as_path(path)


def names_of(agents: Iterable[str] | None) -> list[str] | None:
    """
    The names of agents, checked; None for all.

    Raises:
        InvalidArgument: one can be no name, or they are none.
    """
    if agents is None:
        return None
    if isinstance(agents, str):
        raise InvalidArgument("agents must be several names, as ['Bob']; got one string")
    return [files.check_name(name) for name in agents]


def with_embedder(
    settings: Mapping[str, Any], embedder: str | EmbedFunction | None
) -> Mapping[str, Any]:
    """Settings with what was given as `embedder=`, which may be a function."""
    if embedder is None:
        return settings
    return {**settings, "embedder": embedder if isinstance(embedder, str) else FUNCTION}


def _descriptors(process: Any) -> int:
    count: int = process.num_handles() if sys.platform == "win32" else process.num_fds()
    return count


class Store:
    """Many agents' memories. Safe for many threads; not for use after a fork."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Config,
        *,
        embedder: EmbedFunction | None = None,
        extract: Extract | None = None,
        vfs: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        """
        Use `elytron.open`.

        Args:
            embedder: a function, where it is one; see `elytron.open`.
            extract: see `elytron.open`.
            vfs: names an SQLite file layer, for tests that make it fail.
            clock: by which messages grow old, for tests that make time pass.
        """
        self._ledgers = ledgers_at(path, config, vfs=vfs)
        self.path = self._ledgers.folder
        self.shown = self._ledgers.shown  # its path, or its address without the password
        self.config = config
        if extract is not None and not callable(extract):
            raise InvalidArgument(f"extract must be callable; got {extract!r:.50}")
        if embedder is not None:
            check_function(embedder)
        calls = calls_of(config, embedder) if config.enable_embeddings else None
        self._analyzer = Analyzer(config.languages)
        self._ids = IdClock()
        self._upkeep = Housekeeping(self._ledgers, config, self._analyzer, clock=clock)
        self._agents = OpenAgents(
            self._ledgers,
            config,
            self._upkeep,
            analyzer=self._analyzer,
            extract=extract,
            calls=calls,
        )

    def agent(self, name: str) -> Agent:
        """
        The memory of one agent, made on its first write.

        Args:
            name: 1 to 1000 characters, anything that can be typed. Two names are never one
                memory: not `Bob` and `bob`, nor `José` and `Jose`.

        Raises:
            InvalidArgument: empty, too long, or with control characters.
        """
        self._agents.check_usable()
        return Agent(files.check_name(name), self._agents, self._analyzer, self._ids)

    def agents(self) -> list[str]:
        """
        The names of all agents that were ever written to, sorted. Reads a small file for each.

        One that neither its marker nor its ledger names any more is left out; the log has a
        warning with its folder.
        """
        self._agents.check_usable()
        return self._ledgers.names()

    def delete(self, name: str) -> Deleted:
        """
        Delete an agent: all that it holds, its archive, its graph, and what repairs and restores
        have set aside of it. Its name may be used afresh at once. A damaged one goes too.

        Saves that are under way in this process end before, and later ones begin a new memory. So
        it is in other processes, and other stores of this one, that have the agent open; but what
        they have under way is refused with `Busy`: no receipt is for what is gone with it.

        Stopped at any moment, it leaves the agent whole or gone; what files are left of it then the
        next deletion removes, or the next clean-up. The next backup removes it from the backup.
        Where there is none, but a restore of one that was stopped left files, these go.
        Its bytes are given back to the file system, and not overwritten: see `Agent.clear`.

        Raises:
            NotFound: there is no such agent.
            Busy: it stayed in use for `save_timeout_s`, or another process moves its messages,
                restores or deletes it. Nothing was deleted.
            Corrupt: its folder holds another agent's memory.
            Unavailable, OutcomeUnknown: as they say; delete it again.
        """
        self._agents.check_usable()
        name = files.check_name(name)
        folder = files.agent_folder(self._ledgers.folder, name)
        if not self._ledgers.may_hold(name) and not strays.is_unfinished(folder):
            self._upkeep.sweep()
            raise deleting.none_called(name, self._ledgers)
        with self._agents.put_aside(name), self._upkeep.alone(name):
            for behind in (self._agents, self._agents.embeddings):
                if behind is not None:  # what waits to be done for it is of no use any more
                    behind.background.forget(name)
            return deleting.delete(
                name, self._ledgers, self._upkeep, timeout_s=self.config.save_timeout_s
            )

    def rename(self, old: str, new: str) -> None:
        """
        Give an agent another name, under which it has all that it had: messages and memories, what
        it learned, its vectors, its archive. Its graph is built anew when it is next asked. The old
        name is free at once, as after `delete`.

        Saves that are under way in this process end before; later ones to *old* begin a new memory.
        Other processes, and other stores of this one, that have the agent open are refused with
        `NotFound`, until they open the store anew or the old name has an agent again: no message
        gets lost between the names.

        Stopped at any moment, it leaves the agent whole under one of both names. The next backup
        has it under the new one, and then no more under the old one.

        Raises:
            InvalidArgument: one can be no name, or both are the same.
            NotFound: there is no agent called *old*.
            Conflict: there is one called *new*, or what is left of one.
            Busy: it stayed in use for `save_timeout_s`, or another process moves its messages, or
                restores it. Nothing was renamed.
            Corrupt: it is damaged: repair or restore it first.
            Unavailable, DiskFull, OutcomeUnknown: as they say.
        """
        self._agents.check_usable()
        old, new = files.check_name(old), files.check_name(new)
        if old == new:
            raise InvalidArgument(f"the agent is called {old!r} already; nothing was renamed")
        if not self._ledgers.may_hold(old):
            raise renaming.none_called(old, self._ledgers)
        with contextlib.ExitStack() as stack:
            for lend in (self._agents.put_aside, self._upkeep.alone):
                for name in sorted((old, new)):  # in this order by all: nobody waits in a circle
                    stack.enter_context(lend(name))
            renaming.rename(
                old, new, self._ledgers, self._upkeep, timeout_s=self.config.save_timeout_s
            )
        for behind in (self._agents, self._agents.embeddings):
            if behind is not None:  # what waited to be done for it
                behind.background.forget(old)
                behind.background.note(new)

    def cleanup(self) -> bool:
        """
        Look after every agent now, as the janitor does each `cleanup_interval_hours`: archive
        what the settings say, mend what a crash left, give space back.

        Returns whether it was done: False while another process is at it. An agent that cannot be
        looked after keeps nobody else from it; `usage().janitor` has the last error.
        """
        self._agents.check_usable()
        return self._upkeep.janitor.run()

    def backup(
        self,
        to: str | os.PathLike[str],
        *,
        agents: Iterable[str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> BackedUp:
        """
        Bring a backup up to date, while everybody goes on saving.

        Each agent is copied as it is at one moment: its ledger, and what its archive has new. One
        that was not written to since is passed over. The graph is not copied, since it can be made
        anew. What was forgotten here is not in the backup any more.

        Args:
            to: a folder, made if it is not there: empty, or a backup of this store.
            agents: their names; all if None.
            on_progress: called with (agents done, all).

        Returns:
            What was done, agent by agent. `failed` names those of which no copy was made, each with
            why: `Corrupt` (damaged, missing, or older than its last backup), `Busy`. Their last
            backup stays as it was.

        Raises:
            InvalidArgument: *to* lies in the store, is a store, or holds something else; or the
                store is on PostgreSQL.
            NotFound: one of *agents* is neither in the store nor in the backup.
            Busy: another backup into the folder is at work.
            DiskFull, Unavailable: what was there before is still good.

        Stopped at any moment, a backup leaves for each agent the copy before or the new one.
        """
        self._agents.check_usable()
        if is_address(self.shown):
            raise InvalidArgument(
                "a backup is of a store in a folder, and this one is on PostgreSQL: use the"
                " server's own backups, or carry it to a folder with `elytron migrate store`;"
                " nothing was copied"
            )
        return backing_up.back_up(
            self.path,
            as_path(to, what="a backup"),
            self._upkeep,
            held=self.agents(),
            wanted=names_of(agents),
            on_progress=on_progress,
        )

    def on_alarm(self, hook: Callable[[Alarm], None]) -> None:
        """
        Have *hook* called when an agent comes near a limit, and when it reaches one.

        It is called on the janitor's thread, once for each passing of `soft_limit_ratio` and of
        the limit itself; what it raises is logged. Limits are looked at in each clean-up, and
        while an agent that is near one is written to. At most 100 hooks.
        """
        self._agents.check_usable()
        if not callable(hook):
            raise InvalidArgument(f"a hook must be callable; got {hook!r:.50}")
        self._upkeep.add_hook(hook)

    def usage(self) -> StoreUsage:
        """What the store holds and this process costs. Opens every agent in turn."""
        import psutil

        usages = tuple(self.agent(name).usage() for name in self.agents())
        process = psutil.Process()
        reserve_bytes = self._upkeep.reserve.bytes
        with process.oneshot():
            return StoreUsage(
                path=self._ledgers.shown,
                agents=usages,
                total_bytes=sum(u.bytes.on_disk for u in usages) + reserve_bytes,
                open_agents=self._agents.open_count,
                queued=self._agents.quota.items,
                queued_bytes=self._agents.quota.bytes,
                rss_bytes=process.memory_info().rss,
                threads=process.num_threads(),
                descriptors=_descriptors(process),
                sqlite_bytes=apsw.memory_used(),
                archive_bytes=sum(u.bytes.archive for u in usages),
                reserve_bytes=reserve_bytes,
                limit_bytes=self.config.max_total_bytes,
                janitor=self._upkeep.janitor.usage(),
                worker=self._upkeep.graphs.worker(),
            )

    def close(self) -> None:
        """
        Let writes under way end, then give files, threads and memory back. Idempotent.

        Raises:
            Busy: some agents were still in use, or looked after, after `save_timeout_s`.
        """
        self._agents.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()
