"""LangGraph's `SqliteStore`, with its index of vectors or without."""
# ruff: noqa: ARG002  what one peer needs, another does not

import importlib
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import workload

SENTENCE = "from langgraph.store.sqlite import SqliteStore"
_ALL = 1_000_000


def _hashed(texts: Sequence[str]) -> list[list[float]]:
    return [workload.embed(text) for text in texts]


def _value(message: workload.Message) -> dict[str, Any]:
    return {"role": message.role, "text": message.text, "at": time.time()}


class Peer(workload.Peer):
    """A namespace an agent, and in it one a session."""

    def __init__(self, folder: Path, *, vectors: bool, keep: int) -> None:
        from langgraph.store.sqlite import SqliteStore

        # The index loads an extension, which not every Python's own sqlite3 can. What
        # `from_conn_string` would open is opened here by one that can.
        index: Any = None
        if vectors:  # the class reads `text_fields`, its pages speak of `fields`
            fields = {"fields": ["text"], "text_fields": ["text"]}
            index = {"dims": workload.DIMS, "embed": _hashed, **fields}
        sqlite = importlib.import_module("pysqlite3" if vectors else "sqlite3")
        self._db = sqlite.connect(
            str(folder / "store.db"), check_same_thread=False, isolation_level=None
        )
        self._store = SqliteStore(self._db, index=index)
        self._store.setup()

    def save(self, agent: str, message: workload.Message) -> str:
        key = str(uuid.uuid4())
        self._store.put((agent, message.session), key, _value(message))
        return f"{message.session} {key}"

    def fill(self, agent: str, messages: Sequence[workload.Message]) -> list[str]:
        from langgraph.store.base import PutOp

        keys = [str(uuid.uuid4()) for _ in messages]
        for start in range(0, len(messages), 500):
            self._store.batch(
                [
                    PutOp((agent, one.session), key, _value(one))
                    for key, one in zip(
                        keys[start : start + 500], messages[start : start + 500], strict=True
                    )
                ]
            )
        return [f"{one.session} {key}" for key, one in zip(keys, messages, strict=True)]

    def recall(self, agent: str, question: str, limit: int) -> list[str]:
        found = self._store.search((agent,), query=question, limit=limit)
        return [item.value["text"] for item in found]

    def history(self, agent: str, session: str, limit: int) -> list[str]:
        """Its order is that of whole seconds: all of the session, sorted by their time."""
        found = self._store.search((agent, session), limit=_ALL)
        ordered = sorted(found, key=lambda item: item.value["at"])
        return [item.value["text"] for item in ordered[-limit:]]

    def drop(self, agent: str, keys: Sequence[str]) -> None:
        from langgraph.store.base import PutOp

        apart = [key.split() for key in keys]
        self._store.batch([PutOp((agent, session), key, None) for session, key in apart])

    def texts(self, agent: str) -> list[str]:
        return [item.value["text"] for item in self._store.search((agent,), limit=_ALL)]

    def close(self) -> None:
        self._db.close()
