"""
Behind: what is done for agents behind those who save: linking to concepts, and embedding.

One bounded step at a time in the background, or to the end for whoever asks.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from elytron.config import Config
from elytron.errors import Busy, ElytronError
from elytron.ledger import files
from elytron.open_agent import Embeddings, OpenAgent, vectors_gate
from elytron.upkeep.background import Background
from elytron.upkeep.embedding import Embedding
from elytron.upkeep.housekeeping import Housekeeping


class WorkBehind:
    """The part of `OpenAgents` that works on what it lends."""

    path: Path
    config: Config
    upkeep: Housekeeping
    background: Background
    embeddings: Embeddings | None

    def use(self, name: str, *, create: bool) -> AbstractContextManager[OpenAgent | None]:
        raise NotImplementedError

    def work_behind(self, name: str) -> bool | None:
        """One step of what is done in the background, see `Background`."""
        with self.use(name, create=False) as agent:
            if agent is None:
                return False
            more = agent.learn(stopping=self.background.stopping)
            if not more and name in self.upkeep.graphs.asked_lately():
                self.upkeep.graphs.catch_up(name, agent.ledger)
            return more

    def embed_behind(self, name: str) -> bool | None:
        """One step of embedding, see `Background`."""
        with vectors_gate(files.agent_folder(self.path, name)).passing() as ours:
            return self._embed_behind(name) if ours else None

    def _embed_behind(self, name: str) -> bool:
        """While the embedder is asked the agent is not in use: others may need its place."""
        with self._embedding_of(name) as embedding:
            begun = False if embedding is None else embedding.begin()
        if embedding is None or isinstance(begun, bool):
            return bool(begun)
        rows = embedding.ask(begun)
        with self._embedding_of(name) as embedding:  # another, if the agent was put to rest
            if embedding is not None:
                embedding.finish(begun, rows)
        return True

    @contextlib.contextmanager
    def _embedding_of(self, name: str) -> Iterator[Embedding | None]:
        """What embeds for an agent, when it is our turn; None if there is nothing to do."""
        with self.use(name, create=False) as agent:
            if agent is None or agent.embedded is None or agent.embedded_otherwise is not None:
                yield None
                return
            with agent.embedded.turn:
                yield agent.embedding

    def link(self, name: str, agent: OpenAgent, *, timeout_s: float | None = None) -> None:
        """
        Link what was saved so far, now.

        Raises:
            Busy: that took longer than *timeout_s*, by default `save_timeout_s`; it goes on in the
                background.
        """
        limit_s = self.config.save_timeout_s if timeout_s is None else timeout_s
        what = f"linking the messages of {name!r} to concepts"
        try:
            agent.linking.to_end(timeout_s=limit_s, what=what)
        except Busy:
            self.background.note(name)
            raise

    def embed(self, name: str, agent: OpenAgent, *, timeout_s: float) -> None:
        """
        Make the vectors of what was saved so far, now. Nothing to do without `enable_embeddings`.

        Raises:
            Busy: that took longer than *timeout_s*; it goes on in the background.
            EmbedderUnavailable: it failed; it is tried again in the background.
        """
        if agent.embedded is None or self.embeddings is None:
            return
        what = f"embedding the messages of {name!r}"
        assert agent.embedding is not None, "what embeds is made with it"
        try:
            agent.embedding.ask_if_resting()
            agent.embedded.to_end(timeout_s=timeout_s, what=what)
        except ElytronError:
            self.embeddings.background.note(name)
            raise
