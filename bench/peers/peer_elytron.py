"""Elytron, by words, or with vectors too."""

from collections.abc import Sequence
from pathlib import Path

import workload

SENTENCE = "import elytron"
ROOMY = {"max_db_size_mb": 1000, "max_messages_per_agent": 10**6}  # no limit is met
_AT_ONCE = 2000


def _hashed(texts: Sequence[str], _kind: str) -> list[list[float]]:
    return [workload.embed(text) for text in texts]


class Peer(workload.Peer):
    """A store with its default settings; where space is not what is measured, without limits."""

    def __init__(self, folder: Path, *, vectors: bool, keep: int) -> None:
        import elytron

        settings = {"max_messages_per_agent": keep} if keep else dict(ROOMY)
        if vectors:
            settings |= {"embedder": _hashed}
        self._store = elytron.open(folder / "store", **settings)

    def save(self, agent: str, message: workload.Message) -> str:
        return (
            self._store.agent(agent)
            .save(message.role, message.text, session=message.session, user="alice")
            .id
        )

    def fill(self, agent: str, messages: Sequence[workload.Message]) -> list[str]:
        rows = [
            {"role": one.role, "content": one.text, "session": one.session, "user": "alice"}
            for one in messages
        ]
        keys = []
        for start in range(0, len(rows), _AT_ONCE):
            receipts = self._store.agent(agent).save_many(rows[start : start + _AT_ONCE])
            keys += [receipt.id for receipt in receipts]
        return keys

    def recall(self, agent: str, question: str, limit: int) -> list[str]:
        hits = self._store.agent(agent).recall(question, limit=limit)
        return [hit.message.content for hit in hits if hit.message]

    def history(self, agent: str, session: str, limit: int) -> list[str]:
        return [one.content for one in self._store.agent(agent).history(session, limit=limit)]

    def drop(self, agent: str, keys: Sequence[str]) -> None:
        """Nothing to do: the limit of messages does it, into the archive."""

    def compact(self, agent: str) -> bool:
        self._store.agent(agent).reclaim()
        return True

    def settle(self, agent: str) -> None:
        self._store.agent(agent).flush(timeout_s=120)

    def texts(self, agent: str) -> list[str]:
        return [one.content for one in self._store.agent(agent).messages()]

    def close(self) -> None:
        self._store.close()
