"""
Store: many agents under one folder, with one queue, one set of readers, and one close.
"""

import os
import sys
from collections.abc import Callable, Mapping
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
from elytron.ledger import files
from elytron.ledger.opening import name_within
from elytron.open_agents import OpenAgents
from elytron.records import StoreUsage
from elytron.reports import Alarm
from elytron.text import Analyzer
from elytron.upkeep.clock import Clock
from elytron.upkeep.housekeeping import Housekeeping
from elytron.write.admission import IdClock


def open(  # noqa: A001 - `elytron.open` is the public name
    path: str | os.PathLike[str],
    config: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    embedder: str | EmbedFunction | None = None,
    extract: Extract | None = None,
    **settings: Any,
) -> "Store":
    """
    Open the store at *path*. Nothing is made on disk before the first write.

    Args:
        path: a folder on a local disk, made on the first write.
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
        InvalidSetting: an unknown name or a bad value.
        EmbedderUnavailable: what the embedder needs is not installed.
        Unavailable: the path is a file, on a network file system, or of a newer version.

    Use it in a `with` block, or `close` it. Any number of processes may open one store.
    """
    loaded = config_sources.load(config, with_embedder(settings, embedder), os.environ)
    function = None if isinstance(embedder, str) else embedder
    return Store(path, loaded, embedder=function, extract=extract)


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
        try:
            self.path = Path(path)
        except TypeError as error:
            raise InvalidArgument(f"the store's path must be a path; got {path!r:.50}") from error
        self.config = config
        files.check_store_path(self.path, allow_network=config.allow_network_path)
        if extract is not None and not callable(extract):
            raise InvalidArgument(f"extract must be callable; got {extract!r:.50}")
        if embedder is not None:
            check_function(embedder)
        calls = calls_of(config, embedder) if config.enable_embeddings else None
        self._analyzer = Analyzer(config.languages)
        self._ids = IdClock()
        self._upkeep = Housekeeping(self.path, config, self._analyzer, vfs=vfs, clock=clock)
        self._agents = OpenAgents(
            self.path,
            config,
            self._upkeep,
            analyzer=self._analyzer,
            extract=extract,
            calls=calls,
            vfs=vfs,
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
        return files.agent_names(self.path, name_within)

    def cleanup(self) -> bool:
        """
        Look after every agent now, as the janitor does each `cleanup_interval_hours`: archive
        what the settings say, mend what a crash left, give space back.

        Returns whether it was done: False while another process is at it. An agent that cannot be
        looked after keeps nobody else from it; `usage().janitor` has the last error.
        """
        self._agents.check_usable()
        return self._upkeep.janitor.run()

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
                path=str(self.path),
                agents=usages,
                total_bytes=sum(u.bytes.total + u.bytes.archive for u in usages) + reserve_bytes,
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
            Busy: some agents were still in use after `save_timeout_s`; they stay open.
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
