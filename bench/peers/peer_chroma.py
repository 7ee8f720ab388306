"""Chroma's `PersistentClient`, a collection an agent, vectors given with each message."""
# ruff: noqa: ARG002  what one peer needs, another does not

import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workload

SENTENCE = "import chromadb"
_VACUUM_MAX_S = 120
_AT_ONCE = 2000


class Peer(workload.Peer):
    """Chroma with telemetry off."""

    def __init__(self, folder: Path, *, vectors: bool, keep: int) -> None:
        import chromadb
        from chromadb.config import Settings

        self._path = folder / "chroma"
        self._client = chromadb.PersistentClient(
            path=str(self._path), settings=Settings(anonymized_telemetry=False)
        )
        self._collections: dict[str, Any] = {}

    def _of(self, agent: str) -> Any:
        if agent not in self._collections:
            self._collections[agent] = self._client.get_or_create_collection(
                agent, embedding_function=None, metadata={"hnsw:space": "cosine"}
            )
        return self._collections[agent]

    def save(self, agent: str, message: workload.Message) -> str:
        return self.fill(agent, [message])[0]

    def fill(self, agent: str, messages: Sequence[workload.Message]) -> list[str]:
        keys = [str(uuid.uuid4()) for _ in messages]
        for start in range(0, len(messages), _AT_ONCE):
            part = messages[start : start + _AT_ONCE]
            self._of(agent).add(
                ids=keys[start : start + _AT_ONCE],
                documents=[one.text for one in part],
                embeddings=[workload.embed(one.text) for one in part],
                metadatas=[
                    {"session": one.session, "role": one.role, "at": time.time()} for one in part
                ],
            )
        return keys

    def recall(self, agent: str, question: str, limit: int) -> list[str]:
        found = self._of(agent).query(
            query_embeddings=[workload.embed(question)], n_results=limit, include=["documents"]
        )
        texts: list[str] = found["documents"][0]
        return texts

    def history(self, agent: str, session: str, limit: int) -> list[str]:
        """It has no order of its own: all of the session, sorted by their time."""
        found = self._of(agent).get(where={"session": session}, include=["documents", "metadatas"])
        pairs = zip(found["metadatas"], found["documents"], strict=True)
        ordered = sorted(pairs, key=lambda pair: pair[0]["at"])
        return [text for _, text in ordered[-limit:]]

    def drop(self, agent: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _AT_ONCE):
            self._of(agent).delete(ids=list(keys[start : start + _AT_ONCE]))

    def compact(self, agent: str) -> bool:
        """Its command; its pages advise it after an upgrade only."""
        subprocess.run(
            [Path(sys.executable).with_name("chroma"), "vacuum", "--path", self._path, "--force"],
            check=True,
            capture_output=True,
            timeout=_VACUUM_MAX_S,
        )
        return True

    def texts(self, agent: str) -> list[str]:
        texts: list[str] = self._of(agent).get(include=["documents"])["documents"]
        return texts

    def close(self) -> None:
        """The client has no end of its own but that of the process."""
