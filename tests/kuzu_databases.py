"""
Databases as the origin's programs left them, made by the real Kuzu in a process of its own.

`make` says what is in one; this file is also the program that writes it.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIMENSION = 8  # of embeddings; the origin's had 768
_MADE_MAX_S = 60
SCHEMA = (
    "CREATE NODE TABLE User(id STRING, name STRING, email STRING, created_at TIMESTAMP,"
    " PRIMARY KEY(id))",
    "CREATE NODE TABLE Message(id STRING, role STRING, content STRING, timestamp TIMESTAMP,"
    f" session_id STRING, metadata STRING, content_embedding FLOAT[{DIMENSION}], PRIMARY KEY(id))",
    "CREATE NODE TABLE Session(id STRING, name STRING, topic STRING, created_at TIMESTAMP,"
    " user_id STRING, PRIMARY KEY(id))",
    "CREATE NODE TABLE Concept(id STRING, name STRING, type STRING, description STRING,"
    f" confidence DOUBLE, name_embedding FLOAT[{DIMENSION}], PRIMARY KEY(id))",
    "CREATE NODE TABLE Topic(id STRING, name STRING, description STRING, category STRING,"
    " PRIMARY KEY(id))",
    "CREATE NODE TABLE Memory(id STRING, content STRING, importance DOUBLE, created_at TIMESTAMP,"
    f" last_accessed TIMESTAMP, content_embedding FLOAT[{DIMENSION}], PRIMARY KEY(id))",
    "CREATE REL TABLE SENT(FROM User TO Message, weight DOUBLE)",
    "CREATE REL TABLE RESPONDS_TO(FROM Message TO Message, delay_seconds DOUBLE)",
    "CREATE REL TABLE PART_OF(FROM Message TO Session, position INT64)",
    "CREATE REL TABLE MENTIONS(FROM Message TO Concept, confidence DOUBLE)",
    "CREATE REL TABLE DISCUSSES(FROM Session TO Topic, relevance DOUBLE)",
    "CREATE REL TABLE LEARNS(FROM Session TO Memory, strength DOUBLE)",
    "CREATE REL TABLE RELATES_TO(FROM Concept TO Concept, relationship_type STRING,"
    " strength DOUBLE)",
)

# A conversation with everything in it that the origin knew.
SPOKEN: dict[str, Any] = {
    "users": [{"id": "alice", "name": "Alice Martin", "email": "alice@example.org"}],
    "sessions": [
        {"id": "web-42", "name": "Moving", "topic": "a flat in Lyon", "at": "2025-10-05 14:29:59"},
        {"id": "web-43", "name": "web-43", "topic": "", "at": "2025-10-06 09:00:00"},
    ],
    "messages": [
        {
            "id": "user_20251005_143000_123456", "role": "user", "session": "web-42",
            "content": "My name is Alice and I live in Lyon.", "at": "2025-10-05 14:30:00.123456",
            "user": "alice", "metadata": '{"channel": "web"}', "mentions": {"c1": 0.9, "c2": 1.0},
        },
        {
            "id": "assistant_20251005_143005_000001", "role": "assistant", "session": "web-42",
            "content": "Nice to meet you, Alice.", "at": "2025-10-05 14:30:05", "user": "alice",
        },
        {
            "id": "user_20251006_090000_000002", "role": "user", "session": "web-43",
            "content": "Does Python suit data work?", "at": "2025-10-06 09:00:00", "user": "alice",
            "metadata": "not json", "mentions": {"c3": 0.8, "c2": 0.5},
        },
    ],
    "concepts": [
        {"id": "c1", "name": "Alice", "type": "person", "description": "She moved", "conf": 0.9},
        {"id": "c2", "name": "Lyon", "type": "place", "description": "", "conf": 1.0},
        {"id": "c3", "name": "Python", "type": "language", "description": "", "conf": 0.8},
        {"id": "c4", "name": "PYTHON", "type": "animal", "description": "", "conf": 0.1},
        {"id": "c5", "name": "Rhône", "type": "river", "description": "Flows by", "conf": 0.7},
        {"id": "c6", "name": "Saône", "type": "river", "description": "", "conf": 0.6},
    ],
    "topics": [{"id": "t1", "name": "housing", "description": "where to live"}],
    "memories": [
        {
            "id": "m1", "content": "Alice prefers quiet flats", "importance": 0.8,
            "at": "2025-10-05 14:31:00", "session": "web-42",
        },
    ],
    "discusses": [["web-42", "t1"]],
    "relates": [["c1", "lives in", "c2", 0.9], ["c2", "lies on", "c6", 1.0]],
}  # fmt: skip


def make(path: Path, content: Mapping[str, Any] = SPOKEN, **how: Any) -> Path:
    """
    Write a database.

    Args:
        how: `embeddings` (default true), `killed`: the writer dies without closing, so that all is
            in the log; `index`: with a vector index; `tables`: other statements, after the schema;
            `schema`: rather than the origin's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, __file__, str(path), "write"],
        input=json.dumps({"content": content, **how}),
        capture_output=True,
        text=True,
        timeout=_MADE_MAX_S,
        check=False,
    )
    assert done.returncode == (9 if how.get("killed") else 0), done.stderr
    return path


def hold(path: Path) -> "subprocess.Popen[str]":
    """A process that has a database open until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(path), "hold"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def many(count: int, *, text: str = "message {n} about the weather in Lyon") -> dict[str, Any]:
    """So many messages, a second apart."""
    return {
        "users": [{"id": "alice"}],
        "messages": [
            {
                "id": f"user_{n:06d}", "role": "user", "content": text.format(n=n), "user": "alice",
                "session": f"s{n // 100}",
                "at": f"2025-10-{1 + n // 86_400:02d} {n // 3600 % 24:02d}:{n // 60 % 60:02d}"
                      f":{n % 60:02d}",
            }
            for n in range(count)
        ],
    }  # fmt: skip


def _write(path: str, how: Mapping[str, Any]) -> None:
    import os

    import kuzu

    database = kuzu.Database(path)
    connection = kuzu.Connection(database)
    for statement in how.get("schema") or SCHEMA:
        connection.execute(statement)
    for statement in how.get("tables", ()):
        connection.execute(statement)
    if not how.get("schema"):
        _fill(connection, how["content"], embeddings=how.get("embeddings", True))
    if how.get("index"):
        connection.execute(
            "CALL CREATE_VECTOR_INDEX('Message', 'bob_message_embeddings', 'content_embedding')"
        )
    if how.get("killed"):
        os._exit(9)
    connection.close()
    database.close()


def _nodes(connection: Any, table: str, columns: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        names = {name for row in rows for name in row}
        full = [{name: row.get(name) for name in names} for row in rows]
        connection.execute(f"UNWIND $rows AS r CREATE (:{table} {{{columns}}})", {"rows": full})


def _fill(connection: Any, content: Mapping[str, Any], *, embeddings: bool) -> None:
    now = "2025-10-01 00:00:00"
    vector = [0.1] * DIMENSION if embeddings else None
    users = [{"name": "", "email": "", "at": now, **row} for row in content.get("users", [])]
    _nodes(
        connection, "User", "id: r.id, name: r.name, email: r.email,"
        " created_at: cast(r.at AS TIMESTAMP)", users,
    )  # fmt: skip
    sessions = [{"user": "alice", **row} for row in content.get("sessions", [])]
    _nodes(
        connection, "Session", "id: r.id, name: r.name, topic: r.topic, user_id: r.user,"
        " created_at: cast(r.at AS TIMESTAMP)", sessions,
    )  # fmt: skip
    vectors = f", content_embedding: cast(r.vector AS FLOAT[{DIMENSION}])" if embeddings else ""
    messages = [
        {"metadata": "{}", "vector": vector, **row, "mentions": 0}
        for row in content.get("messages", [])
    ]
    _nodes(
        connection, "Message", "id: r.id, role: r.role, content: r.content, metadata: r.metadata,"
        f" session_id: r.session, timestamp: cast(r.at AS TIMESTAMP){vectors}", messages,
    )  # fmt: skip
    _nodes(
        connection, "Concept", "id: r.id, name: r.name, type: r.type, description: r.description,"
        " confidence: r.conf", content.get("concepts", []),
    )  # fmt: skip
    _nodes(
        connection, "Topic", "id: r.id, name: r.name, description: r.description, category: ''",
        content.get("topics", []),
    )  # fmt: skip
    memories = [{**row, "vector": vector} for row in content.get("memories", [])]
    _nodes(
        connection, "Memory", "id: r.id, content: r.content, importance: r.importance,"
        " created_at: cast(r.at AS TIMESTAMP), last_accessed: cast(r.at AS TIMESTAMP)" + vectors,
        memories,
    )  # fmt: skip
    _relate(connection, content)


def _relate(connection: Any, content: Mapping[str, Any]) -> None:
    def relations(pattern: str, rows: list[list[Any]]) -> None:
        if rows:
            names = "abcd"[: len(rows[0])]
            shaped = [dict(zip(names, row, strict=True)) for row in rows]
            connection.execute(f"UNWIND $rows AS r {pattern}", {"rows": shaped})

    messages = content.get("messages", [])
    relations(
        "MATCH (u:User) WHERE u.id = r.a MATCH (m:Message) WHERE m.id = r.b"
        " CREATE (u)-[:SENT {weight: 1.0}]->(m)",
        [[row["user"], row["id"]] for row in messages if row.get("user")],
    )
    known = {row["id"] for row in content.get("sessions", [])}
    relations(
        "MATCH (m:Message) WHERE m.id = r.a MATCH (s:Session) WHERE s.id = r.b"
        " CREATE (m)-[:PART_OF {position: 0}]->(s)",
        [[row["id"], row["session"]] for row in messages if row["session"] in known],
    )
    relations(
        "MATCH (m:Message) WHERE m.id = r.a MATCH (c:Concept) WHERE c.id = r.b"
        " CREATE (m)-[:MENTIONS {confidence: r.c}]->(c)",
        [[row["id"], *pair] for row in messages for pair in row.get("mentions", {}).items()],
    )
    relations(
        "MATCH (s:Session) WHERE s.id = r.a MATCH (t:Topic) WHERE t.id = r.b"
        " CREATE (s)-[:DISCUSSES {relevance: 1.0}]->(t)",
        content.get("discusses", []),
    )
    relations(
        "MATCH (s:Session) WHERE s.id = r.a MATCH (m:Memory) WHERE m.id = r.b"
        " CREATE (s)-[:LEARNS {strength: 1.0}]->(m)",
        [[row["session"], row["id"]] for row in content.get("memories", [])],
    )
    relations(
        "MATCH (a:Concept) WHERE a.id = r.a MATCH (b:Concept) WHERE b.id = r.c"
        " CREATE (a)-[:RELATES_TO {relationship_type: r.b, strength: r.d}]->(b)",
        content.get("relates", []),
    )


def _hold(path: str) -> None:
    import kuzu

    database = kuzu.Database(path)
    print("open", flush=True)
    sys.stdin.read()
    database.close()


if __name__ == "__main__":
    if sys.argv[2] == "hold":
        _hold(sys.argv[1])
    else:
        _write(sys.argv[1], json.load(sys.stdin))
