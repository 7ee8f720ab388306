"""
mem0 with `infer=False`, so that it needs no language model: its default store of vectors (Qdrant's
local mode) and its table of history, both on the disk; telemetry off.

Its `embedding_model` is replaced by our function, which spares it the call over HTTP that its
embedders make. Its keyword search needs a model that it downloads: vectors alone are searched.
"""
# ruff: noqa: ARG002  what one peer needs, another does not

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workload

SENTENCE = "from mem0 import Memory"
_ALL = 1_000_000


class _Hashed:
    """What mem0 asks of an embedder."""

    def embed(self, text: str, _memory_action: str | None = None) -> list[float]:
        return workload.embed(text)

    def embed_batch(self, texts: Sequence[str], _memory_action: str | None = None) -> list[Any]:
        return [workload.embed(text) for text in texts]


class Peer(workload.Peer):
    """One `Memory` for all agents, told apart by `agent_id`; a session is its `run_id`."""

    def __init__(self, folder: Path, *, vectors: bool, keep: int) -> None:
        os.environ["MEM0_DIR"] = str(folder / "home")
        os.environ["MEM0_TELEMETRY"] = "False"
        logging.disable(logging.WARNING)  # what else could be installed
        from mem0 import Memory

        nothing = {"api_key": "none"}
        self._memory = Memory.from_config(
            {
                "vector_store": {
                    "provider": "qdrant",
                    "config": {
                        "path": str(folder / "qdrant"),
                        "on_disk": True,
                        "embedding_model_dims": workload.DIMS,
                    },
                },
                "embedder": {"provider": "openai", "config": nothing},
                "llm": {"provider": "openai", "config": nothing},
                "history_db_path": str(folder / "history.db"),
            }
        )
        self._memory.embedding_model = _Hashed()

    def save(self, agent: str, message: workload.Message) -> str:
        said = [{"role": message.role, "content": message.text}]
        done = self._memory.add(said, agent_id=agent, run_id=message.session, infer=False)
        key: str = done["results"][0]["id"]
        return key

    def fill(self, agent: str, messages: Sequence[workload.Message]) -> list[str]:
        return [self.save(agent, message) for message in messages]

    def recall(self, agent: str, question: str, limit: int) -> list[str]:
        found = self._memory.search(question, filters={"agent_id": agent}, top_k=limit)
        return [one["memory"] for one in found["results"]]

    def history(self, agent: str, session: str, limit: int) -> list[str]:
        """It has no order of its own: all of the session, sorted by their time."""
        found = self._memory.get_all(filters={"agent_id": agent, "run_id": session}, top_k=_ALL)
        ordered = sorted(found["results"], key=lambda one: one["created_at"])
        return [one["memory"] for one in ordered[-limit:]]

    def drop(self, agent: str, keys: Sequence[str]) -> None:
        for key in keys:
            self._memory.delete(key)

    def texts(self, agent: str) -> list[str]:
        found = self._memory.get_all(filters={"agent_id": agent}, top_k=_ALL)
        return [one["memory"] for one in found["results"]]

    def close(self) -> None:
        self._memory.vector_store.client.close()
        self._memory.close()
