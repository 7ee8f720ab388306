"""
Embedding: the verbs that make vectors by hand: those that are missing, or all anew.
"""

from collections.abc import Callable

from elytron.errors import InvalidSetting
from elytron.ledger.embedded import DropVectors
from elytron.open_agent import OpenAgent
from elytron.reports import Embedded
from elytron.upkeep.backfill import backfill
from elytron.upkeep.embedding import Embedding
from elytron.verbs.base import Verbs, in_steps

_DROPPED_PAGES = 16  # of 4 KB, what removing a vector may write, and more


class Embeds(Verbs):
    """Vectors for what was saved before there was an embedder, or with another."""

    def embed(self, *, on_progress: Callable[[int, int], None] | None = None) -> Embedded:
        """
        Make the vectors that are missing: of messages that were saved while embeddings were off, or
        were too short then, and of memories. The newest first, until `max_vector_mb` is reached.

        Args:
            on_progress: called with (done, total) of the messages and memories looked at.

        Raises:
            InvalidSetting: embeddings are off, or the vectors held are of another embedder.
            EmbedderUnavailable: it failed several times in a row. What was made is kept; run it
                again, and it goes on where it was.

        What was saved with `embed=False` gets none.
        """
        with in_steps(), self._agents.use(self.name, create=False) as agent:
            embedding = self._embedding(agent)
            if agent is None or embedding is None:
                return Embedded(self.name)
            self._check_same(agent)
            return self._embed(agent, embedding, on_progress)

    def reembed(self, *, on_progress: Callable[[int, int], None] | None = None) -> Embedded:
        """
        Remove all vectors, and make them anew with the present embedder and its model.

        Arguments and errors as `embed`; while the embedder does not answer nothing is removed.
        Until it is done, words answer for what has no vector yet; stopped in between, `embed` goes
        on.
        Other programs that use the agent with another embedder have to be closed first.
        """
        with in_steps(), self._agents.use(self.name, create=False) as agent:
            embedding = self._embedding(agent)
            if agent is None or embedding is None:
                return Embedded(self.name)
            embedding.ask_once()
            at_once = max(1, self._config.commit_bytes // (_DROPPED_PAGES * 4096))
            more = True
            while more:
                _, more = agent.writer.call(DropVectors(at_once))
            agent.nearest.forget()
            agent.look_whose()
            self._check_same(agent)
            return self._embed(agent, embedding, on_progress)

    def _embedding(self, agent: OpenAgent | None) -> Embedding | None:
        """
        Raises:
            InvalidSetting: embeddings are off.
        """
        if self._agents.embeddings is None:
            raise InvalidSetting(
                "embeddings are off; set `enable_embeddings` and `embedder`, as"
                ' elytron.open(path, embedder="wordllama")'
            )
        return None if agent is None else agent.embedding

    def _embed(
        self,
        agent: OpenAgent,
        embedding: Embedding,
        on_progress: Callable[[int, int], None] | None,
    ) -> Embedded:
        assert agent.embedded is not None, "made with what embeds"
        embedding.ask_if_resting()
        return backfill(
            self.name,
            agent.ledger,
            embedding,
            turn=agent.embedded.turn,
            config=self._config,
            on_progress=on_progress,
        )
