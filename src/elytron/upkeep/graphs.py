"""
Graphs: the graphs of a store's agents: who was asked lately, what they may take, what is told of
them.

Asking is in `graph/projection.py`, the process in `graph/client.py`; here they meet the limits of
the store and its folders. Before a first question there is no file and no process.
"""

import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from elytron.config import Config
from elytron.errors import Closed, ElytronError
from elytron.ledger import files, surveys
from elytron.ledger.ledgers import Ledger
from elytron.ledger.rows import to_datetime
from elytron.records import GraphUsage
from elytron.reports import WorkerUsage

if TYPE_CHECKING:  # imported by the first question: most stores are never asked
    from elytron.graph.client import GraphClient, Rows, Statement
    from elytron.graph.files import GraphFolder
    from elytron.graph.projection import Projection

_log = logging.getLogger("elytron.upkeep")

FOLDER = "graph"
_LATELY_S = 3600.0
_ASKED_MAX = 10_000  # agents of which it is remembered when they were asked

Allow = Callable[[str, int], None]


class Graphs:
    """The graphs of one store, asked from one process. Safe for many threads."""

    def __init__(self, store: Path, config: Config, *, allow: Allow) -> None:
        """
        Args:
            allow: raises `OverBudget` if an agent's graph may not grow to so many bytes; else it
                notes in the ledger that it may.
        """
        self._store = store
        self._config = config
        self._allow = allow
        self._client: GraphClient | None = None
        self._projection: Projection | None = None
        self._closed = False
        self._mutex = threading.Lock()
        self._asked_s: OrderedDict[str, float] = OrderedDict()
        # Whoever asks has the ledger open; one that was put to rest is not kept.
        self._ledgers: weakref.WeakValueDictionary[str, Ledger] = weakref.WeakValueDictionary()

    def folder(self, name: str) -> Path:
        return files.agent_folder(self._store, name) / FOLDER

    def ask(
        self,
        name: str,
        ledger: Ledger,
        statement: "Statement",
        *,
        timeout_s: float | None = None,
        rows_max: int | None = None,
    ) -> "Rows":
        """
        Ask an agent's graph, once it has all that the ledger has at this moment.

        Raises:
            InvalidArgument: the query is wrong, writes, or gives too much.
            DeadlineExceeded: it took longer than *timeout_s*, or more memory than the worker has.
            GraphUnavailable: the engine is missing, or died twice.
            Busy: another process had the graph, or bringing it up to date took too long.
            OverBudget: the agent's limit has no room for a graph.
        """
        self._note_asked(name)
        return self._projecting(name, ledger).ask(
            name,
            ledger,
            self.folder(name),
            statement,
            rows_max=self._config.max_query_rows if rows_max is None else rows_max,
            bytes_max=self._config.max_result_bytes,
            build_deadline=time.monotonic() + self._config.graph_build_timeout_s,
            timeout_s=self._config.graph_timeout_s if timeout_s is None else timeout_s,
        )

    def has_folder(self, name: str) -> bool:
        """Whether an agent has a graph, or had one."""
        folder = self.folder(name)
        with files.translate_os_errors(folder):
            return folder.exists()

    def catch_up(self, name: str, ledger: Ledger) -> None:
        """Bring an agent's graph up to its ledger, if it has one. Raises as `ask`."""
        if not self.has_folder(name):
            return
        deadline = time.monotonic() + self._config.graph_build_timeout_s
        projection = self._projecting(name, ledger)
        projection.catch_up(name, ledger, self.folder(name), deadline=deadline)

    def rebuild(self, name: str, ledger: Ledger, *, because: str) -> None:
        """Build an agent's graph anew from its ledger. Raises as `ask`."""
        self._note_asked(name)
        deadline = time.monotonic() + self._config.graph_build_timeout_s
        projection = self._projecting(name, ledger)
        projection.rebuild(name, ledger, self.folder(name), because=because, deadline=deadline)

    def drop(self, name: str, *, deadline: float | None = None) -> int:
        """
        Delete an agent's graph; returns the bytes that it had. It is built again when it is asked.

        Raises:
            Busy: another process had it until *deadline*, by default `save_timeout_s` from now.
        """
        if not self.has_folder(name):
            return 0
        if deadline is None:
            deadline = time.monotonic() + self._config.save_timeout_s
        return self._asker().drop(self.folder(name), deadline=deadline)

    def forget(self, name: str) -> None:
        """Keep no graph up to date for an agent any more."""
        with self._mutex:
            self._asked_s.pop(name, None)
            self._ledgers.pop(name, None)

    def bytes(self, name: str) -> int:
        """What an agent's graph takes on the disk, all its files."""
        return self._files(name).bytes() if self.has_folder(name) else 0

    def usage(self, name: str) -> GraphUsage:
        """What is known of an agent's graph without opening it."""
        if not self.has_folder(name):
            return GraphUsage()
        folder = self._files(name)
        size = folder.bytes()
        state = folder.read_state() or {}
        built_us, damaged = state.get("built_at_us"), folder.damaged
        return GraphUsage(
            bytes=size,
            engine=state.get("engine"),
            position=state.get("position"),
            built_at=to_datetime(built_us) if type(built_us) is int else None,
            built_because=state.get("built_because"),
            damaged=damaged.name if damaged.exists() else None,
        )

    def position(self, name: str) -> int:
        """The last change that an agent's graph has, by itself if it can be asked; 0 if none."""
        noted = self.usage(name).position
        if noted is None:
            return 0
        deadline = time.monotonic() + self._config.graph_timeout_s
        try:
            state = self._asker().state(self.folder(name), deadline=deadline)
        except ElytronError as error:
            _log.info("the graph of %r does not say where it is: %s", name, error)
            return noted
        return state.position or 0

    def worker(self) -> WorkerUsage:
        """The worker process of this store, as this process has it."""
        client = self._client
        return WorkerUsage() if client is None else WorkerUsage(*client.status())

    def asked_lately(self) -> list[str]:
        """Agents asked within the hour, whose graphs are kept up to date in the background."""
        oldest_s = time.monotonic() - _LATELY_S
        with self._mutex:
            return [name for name, asked_s in self._asked_s.items() if asked_s >= oldest_s]

    def close(self) -> None:
        """End the worker. Idempotent."""
        with self._mutex:
            self._closed = True
            client = self._client
        if client is not None:
            client.close()

    def abandon(self) -> None:
        """Let the worker end without waiting for it."""
        client = self._client
        if client is not None:
            client.abandon()

    def _projecting(self, name: str, ledger: Ledger) -> "Projection":
        self._asker()
        with self._mutex:
            self._ledgers[name] = ledger
            assert self._projection is not None, "made with the client"
            return self._projection

    def _asker(self) -> "GraphClient":
        """
        Raises:
            Closed: the store was closed.
        """
        from elytron.graph.client import GraphClient
        from elytron.graph.projection import Projection

        with self._mutex:
            if self._closed:
                raise Closed(f"{self._store} was closed; nothing was asked: open it again")
            if self._client is None:
                self._client = GraphClient(self._config)
                self._projection = Projection(self._client, self._config, allow=self._allowed)
            return self._client

    def _files(self, name: str) -> "GraphFolder":
        from elytron.graph.files import GraphFolder

        return GraphFolder(self.folder(name), self._config.engine)

    def _note_asked(self, name: str) -> None:
        with self._mutex:
            self._asked_s[name] = time.monotonic()
            self._asked_s.move_to_end(name)
            while len(self._asked_s) > _ASKED_MAX:
                self._asked_s.popitem(last=False)

    def _allowed(self, name: str, size_bytes: int) -> None:
        """Let a graph grow to *size_bytes*, if it may; the ledger says what it was allowed."""
        with self._mutex:
            ledger = self._ledgers[name]
        with ledger.reading() as db:
            allowed_bytes = surveys.graph_bytes(db)
        if size_bytes > allowed_bytes:
            self._allow(name, size_bytes)
