"""
Locrits connections: the graph behind the names that Kuzu's connection and result have.

Reading only: what a program wrote in Cypher has a verb here, and the error names it.
"""

import re
import threading
from collections.abc import Mapping
from typing import Any

from elytron.agent import Agent
from elytron.errors import Closed, InvalidArgument

CONNECTIONS_MAX = 5
_WRITING = re.compile(r"\b(CREATE|MERGE|SET|DELETE|DETACH|DROP|ALTER|COPY|INSTALL|LOAD)\b", re.I)
_TEXTS = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`|//[^\n]*|/\*.*?\*/", re.S)
_VERBS = (
    ("Message", "`save_message`, `edit_message` or `delete_message`"),
    ("Memory", "`add_memory` or `delete_memory`"),
    ("Concept", "`edit_concept` or `delete_concept`"),
    ("Session", "`save_message` with a `session_id`, or `delete_session`"),
)
_RENAMED = {
    "timestamp": "`at` is a message's time",
    "session_id": "`session` is a message's session",
    "user_id": "a session has no user: its messages do, as `user`",
    "last_accessed": "uses are not in the graph: `get_all_memories` has them",
    "relationship_type": "`relation` names a relation",
    "content_embedding": "vectors are not in the graph",
    "name_embedding": "vectors are not in the graph",
    "LEARNS": "(:Memory)-[:LEARNED_IN]->(:Session) says where something was learned",
    "DISCUSSES": "topics are concepts of the type `topic`",
    "Topic": "topics are concepts of the type `topic`",
}


class QueryResult:
    """The rows of an answer, one after the other, as Kuzu's result gives them."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        self._next = 0
        self._closed = False

    def has_next(self) -> bool:
        """Whether there is another row."""
        return not self._closed and self._next < len(self._rows)

    def get_next(self) -> list[Any]:
        """
        The next row's values.

        Raises:
            InvalidArgument: there is none; ask `has_next` first.
        """
        if not self.has_next():
            raise InvalidArgument("there is no further row; ask `has_next` first")
        row = self._rows[self._next]
        self._next += 1
        return list(row.values())

    def get_all(self) -> list[list[Any]]:
        """The rows that are left."""
        found = []
        while self.has_next():
            found.append(self.get_next())
        return found

    def get_column_names(self) -> list[str]:
        """The columns' names; empty if there is no row."""
        return list(self._rows[0]) if self._rows else []

    def get_num_tuples(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def close(self) -> None:
        """Let the rows go. May be called twice."""
        self._closed = True
        self._rows = []


class Connection:
    """One of the pool's connections: asks the agent's graph, in Cypher."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.closed = False

    def execute(self, query: str, parameters: Mapping[str, Any] | None = None) -> QueryResult:
        """
        Ask the graph; see `Agent.cypher`. Blocks, as Kuzu's does.

        Raises:
            InvalidArgument: the query writes: the error names the verb to use; or it is wrong.
            Closed: the connection was closed.
        """
        if self.closed:
            raise Closed("this connection was closed; get another with `get_connection`")
        try:
            return QueryResult(self._agent.cypher(query, parameters))
        except InvalidArgument as error:
            hint = hint_for(query, str(error))
            if hint is None:
                raise
            raise InvalidArgument(f"{error} {hint}") from error

    def close(self) -> None:
        """Let it be used no more. May be called twice."""
        self.closed = True


def hint_for(query: object, error: str) -> str | None:
    """What a program written for the origin's schema has to do instead. Pure."""
    if not isinstance(query, str):
        return None
    bare = _TEXTS.sub(" ", query)
    if _WRITING.search(bare):
        verbs = [verb for label, verb in _VERBS if re.search(rf"\b{label}\b", bare)]
        listed = "; ".join(verbs) or "the verbs of this class"
        return f"(a connection only reads; to write, use {listed})"
    for name, instead in _RENAMED.items():
        if re.search(rf"(property|Table|table) {name}\b", error):
            return f"(here {instead})"
    return None


class Connections:
    """A pool of at most `CONNECTIONS_MAX`. Safe for many threads; waits for nothing."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._mutex = threading.Lock()
        self._idle: list[Connection] = []
        self._out: set[Connection] = set()
        self._closed = False

    def try_get(self) -> Connection | None:
        """
        A connection of the pool, or None if all are out.

        Raises:
            Closed: the service was closed.
        """
        with self._mutex:
            if self._closed:
                raise Closed("the service was closed; initialize it again")
            if len(self._out) >= CONNECTIONS_MAX:
                return None
            connection = self._idle.pop() if self._idle else Connection(self._agent)
            self._out.add(connection)
            return connection

    def release(self, connection: Connection) -> None:
        """Give one back. One that is not out of this pool is closed."""
        with self._mutex:
            if connection in self._out:
                self._out.discard(connection)
                if not connection.closed:
                    self._idle.append(connection)
            elif connection not in self._idle:
                connection.close()

    def close(self) -> None:
        """Close all of them."""
        with self._mutex:
            self._closed = True
            for connection in (*self._idle, *self._out):
                connection.close()
            self._idle.clear()
            self._out.clear()
