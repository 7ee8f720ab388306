"""
The origin's pattern: a Kuzu database an agent with its default settings, five connections, six
statements a message, each a commit of its own, and no embeddings. See `bench/origin_pattern.py`.
"""
# ruff: noqa: ARG002  what one peer needs, another does not

import queue
import re
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import workload

sys.path.append(str(workload.ROOT / "bench"))
import origin_pattern

SENTENCE = "import kuzu"
_WAIT_S = 60
_FILL = (
    "UNWIND $rows AS r CREATE (:Message {id: r.id, role: r.role, content: r.content,"
    " session_id: r.session, metadata: '{}', timestamp: r.at})",
    "UNWIND $rows AS r MERGE (s:Session {id: r.session}) ON CREATE SET s.name = r.session",
    "UNWIND $rows AS r MERGE (u:User {id: r.user}) ON CREATE SET u.name = r.user",
    "UNWIND $rows AS r MATCH (u:User {id: r.user}), (m:Message {id: r.id})"
    " CREATE (u)-[:SENT {weight: 1.0}]->(m)",
    "UNWIND $rows AS r MATCH (m:Message {id: r.id}), (s:Session {id: r.session})"
    " CREATE (m)-[:PART_OF {position: 0}]->(s)",
    "UNWIND $rows AS r MATCH (m:Message {id: r.id}), (p:Message {id: r.before})"
    " CREATE (m)-[:RESPONDS_TO {delay_seconds: 0.0}]->(p)",
)


class _Database:
    """One agent's database and its pool."""

    def __init__(self, path: Path) -> None:
        import kuzu

        fresh = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = kuzu.Database(str(path))
        self._pool: queue.Queue[Any] = queue.Queue()
        for _ in range(origin_pattern.CONNECTIONS):
            self._pool.put(kuzu.Connection(self._database))
        if fresh:
            with self.connection() as connection:
                for statement in origin_pattern._SCHEMA:
                    connection.execute(statement)

    @contextmanager
    def connection(self) -> Iterator[Any]:
        connection = self._pool.get(timeout=_WAIT_S)
        try:
            yield connection
        finally:
            self._pool.put(connection)

    def column(self, query: str, known: dict[str, Any] | None = None) -> list[Any]:
        with self.connection() as connection:
            answer = connection.execute(query, known or {})
            found = []
            while answer.has_next():
                found.append(answer.get_next()[0])
            answer.close()
        return found

    def close(self) -> None:
        while not self._pool.empty():
            self._pool.get().close()
        self._database.close()


class Peer(workload.Peer):
    """One database an agent, opened when it is first asked for."""

    def __init__(self, folder: Path, *, vectors: bool, keep: int) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._databases: dict[str, _Database] = {}
        self._last: dict[str, str] = {}

    def _of(self, agent: str) -> _Database:
        with self._lock:
            if agent not in self._databases:
                self._databases[agent] = _Database(self._folder / agent / "kuzu.db")
            return self._databases[agent]

    def _row(self, agent: str, message: workload.Message) -> dict[str, str]:
        key = f"{message.role}_{uuid.uuid4()}"
        before, self._last[agent] = self._last.get(agent, ""), key
        return {
            "id": key, "role": message.role, "content": message.text, "user": "alice",
            "session": message.session, "before": before,
        }  # fmt: skip

    def save(self, agent: str, message: workload.Message) -> str:
        row = self._row(agent, message)
        with self._of(agent).connection() as connection:
            for statement in origin_pattern._SAVE:
                known = {name: value for name, value in row.items() if f"${name}" in statement}
                connection.execute(statement, known)
        return row["id"]

    def fill(self, agent: str, messages: Sequence[workload.Message]) -> list[str]:
        rows: list[dict[str, Any]] = [
            {**self._row(agent, message), "at": datetime.now()}  # noqa: DTZ005 as the origin's are
            for message in messages
        ]
        with self._of(agent).connection() as connection:
            connection.execute("BEGIN TRANSACTION")
            for statement in _FILL:
                connection.execute(statement, {"rows": rows})
            connection.execute("COMMIT")
        return [row["id"] for row in rows]

    def recall(self, agent: str, question: str, limit: int) -> list[str]:
        """There is no index of words: each message is read."""
        words = re.findall(r"\w+", question.lower())
        which = " OR ".join(f"lower(m.content) CONTAINS $w{at}" for at in range(len(words)))
        return self._of(agent).column(
            f"MATCH (m:Message) WHERE {which} RETURN m.content"
            f" ORDER BY m.timestamp DESC LIMIT {limit}",
            {f"w{at}": word for at, word in enumerate(words)},
        )

    def history(self, agent: str, session: str, limit: int) -> list[str]:
        found = self._of(agent).column(
            "MATCH (m:Message)-[:PART_OF]->(:Session {id: $session}) RETURN m.content"
            f" ORDER BY m.timestamp DESC LIMIT {limit}",
            {"session": session},
        )
        return found[::-1]

    def drop(self, agent: str, keys: Sequence[str]) -> None:
        with self._of(agent).connection() as connection:
            connection.execute(
                "MATCH (m:Message) WHERE m.id IN $keys DETACH DELETE m", {"keys": list(keys)}
            )

    def texts(self, agent: str) -> list[str]:
        return self._of(agent).column("MATCH (m:Message) RETURN m.content")

    def close(self) -> None:
        for database in self._databases.values():
            database.close()
