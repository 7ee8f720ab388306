"""
Locrits service: what all methods of a Locrits program's memory stand on: opening, closing, and the
pool of connections.
"""

import asyncio
import threading
import time
from pathlib import Path

from elytron.adapters import locrits_stores as stores
from elytron.adapters.locrits_connections import CONNECTIONS_MAX, Connection, Connections
from elytron.aio import AsyncAgent
from elytron.errors import Busy, Closed
from elytron.ledger import files

_LOOK_AGAIN_S = 0.01


class Service:
    """One agent's memory under a base path. Safe for many threads and event loops."""

    def __init__(
        self,
        locrit_name: str,
        base_path: str | Path = "data/memory",
        embedding_model: str = "nomic-embed-text",
        embedding_dimension: int = 768,
        inference_mode: str = "ollama",
    ) -> None:
        """
        Args:
            locrit_name: the agent's name. Here two names are never one memory.
            base_path: the store's folder; agents of one base path share it.
            embedding_model: where the settings enable embeddings and name no `embedder`: Ollama's
                model, unless they name an `embedding_model`. Kept as an attribute.
            embedding_dimension: kept as an attribute; the model says how many there are.
            inference_mode: "ollama"; for any other the settings have to name an `embedder`, if
                they enable embeddings. Kept as an attribute.

        Raises:
            InvalidArgument: that is no name.
        """
        self.locrit_name = files.check_name(locrit_name)
        self.base_path = Path(base_path)
        self.embedding_model = embedding_model
        self.embedding_dimension = embedding_dimension
        self.inference_mode = inference_mode
        self.embeddings_enabled = False  # what the settings say is known once it is open
        # Ours, not the origin's, which is read once and left as it was.
        self.db_dir = files.agent_folder(self.base_path, locrit_name)
        self.db_path = self.db_dir / files.LEDGER
        self._mutex = threading.Lock()
        self._shared: stores.SharedStore | None = None
        self._agent: AsyncAgent | None = None
        self._connections: Connections | None = None
        self._closed = False

    @property
    def is_initialized(self) -> bool:
        """Whether it is open."""
        return self._agent is not None

    async def initialize(self) -> bool:
        """
        Open the memory. Harmless if it is open; any other method does it where nobody has.

        A database that the origin left for this agent (`<base_path>/<name>/kuzu.db`) is migrated
        first, once; it is left as it was. True once the memory is open.

        Raises:
            GraphUnavailable: there is such a database, and kuzu is not installed to read it:
                install it, or run `elytron migrate kuzu`. It never starts empty beside it.
            Busy: another process has that database open.
            InvalidArgument, Corrupt: it cannot be read; the error says why, and the way out.
            InvalidSetting: the `memory:` block of the configuration has an unknown name or value;
                or embeddings are on, and this asks for another embedder than the services that
                have the base path open.
            EmbedderUnavailable: embeddings are on, and a library that they need is not installed.
        """
        if self._agent is None:
            await stores.on_thread(self._open)
        return True

    def _open(self) -> None:
        with self._mutex:
            if self._agent is not None:
                return
            wished = stores.Wished(self.embedding_model, self.inference_mode)
            shared = stores.take(self.base_path, wished)
            try:
                shared.prepare(self.locrit_name)
            except BaseException:
                stores.give_back(shared)
                raise
            self._shared = shared
            agent = shared.store.agent(self.locrit_name)
            self._connections = Connections(agent._agent)
            self._closed = False
            self.embeddings_enabled = shared.store.config.enable_embeddings
            self._agent = agent

    async def close(self) -> None:
        """
        Give everything back; the last service of a base path closes its store. May be called twice.

        Raises:
            Busy: writes were still under way after `save_timeout_s`.
        """
        with self._mutex:
            shared, self._shared = self._shared, None
            connections, self._connections = self._connections, None
            self._agent = None
            self._closed = True
        if connections is not None:
            connections.close()
        if shared is not None:
            await stores.on_thread(lambda: stores.give_back(shared))

    async def _memory(self) -> AsyncAgent:
        """The agent's verbs; opened if nobody has yet."""
        if self._closed:
            raise Closed(f"the memory of {self.locrit_name!r} was closed; initialize it again")
        await self.initialize()
        agent = self._agent
        if agent is None:  # closed meanwhile
            raise Closed(f"the memory of {self.locrit_name!r} was closed; initialize it again")
        return agent

    def _rows_max(self, limit: int) -> int:
        """As many rows as may be asked for at once; the origin took any number."""
        shared = self._shared
        most = 10_000 if shared is None else shared.store.config.max_query_rows
        return max(1, min(limit, most))

    async def get_connection(self) -> Connection:
        """
        One of the pool's connections to the graph. Give it back with `release_connection`.

        Raises:
            Busy: all five were out for `read_timeout_s`.
        """
        await self._memory()
        shared, connections = self._shared, self._connections
        if shared is None or connections is None:
            raise Closed(f"the memory of {self.locrit_name!r} was closed; initialize it again")
        timeout_s = shared.store.config.read_timeout_s
        deadline = time.monotonic() + timeout_s
        while (connection := connections.try_get()) is None:
            if time.monotonic() >= deadline:
                raise Busy(
                    f"all {CONNECTIONS_MAX} connections were out for {timeout_s:g} s; give them"
                    " back with `release_connection`, or raise `read_timeout_s`"
                )
            await asyncio.sleep(_LOOK_AGAIN_S)
        return connection

    async def release_connection(self, connection: Connection) -> None:
        """Give a connection back. One that is not out of this pool is closed."""
        connections = self._connections
        if connections is None:
            connection.close()
        else:
            connections.release(connection)
