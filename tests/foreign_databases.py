"""SQLite files as other programs write them, made by the same statements as theirs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import apsw

OPENAI = """
CREATE TABLE agent_sessions (
    session_id TEXT PRIMARY KEY,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE agent_messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    message_data TEXT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (session_id) REFERENCES agent_sessions (session_id) ON DELETE CASCADE
);
CREATE INDEX idx_agent_messages_session_id ON agent_messages (session_id, id);
"""
LANGGRAPH = """
CREATE TABLE store_migrations (v INTEGER PRIMARY KEY);
CREATE TABLE store (
    -- 'prefix' represents the doc's 'namespace'
    prefix text NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (prefix, key)
);
CREATE INDEX store_prefix_idx ON store (prefix);
"""
LANGGRAPH_TTL = """
ALTER TABLE store ADD COLUMN expires_at TIMESTAMP;
ALTER TABLE store ADD COLUMN ttl_minutes REAL;
CREATE INDEX idx_store_expires_at ON store (expires_at) WHERE expires_at IS NOT NULL;
"""
ITEMS: tuple[dict[str, Any], ...] = (
    {"role": "user", "content": "My name is Alice."},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "A name"}]},
    {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": '{"q": "Lyon"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "a city"},
    {"type": "message", "role": "assistant", "id": "m1", "content": [
        {"type": "output_text", "text": "Hello Alice, of the Rhône.", "annotations": []}]},
    {"role": "user", "content": "ok"},
    {"role": "user", "content": "ok"},
)  # fmt: skip


def openai_database(path: Path, rows: Iterable[Sequence[Any]] = ()) -> apsw.Connection:
    """A file of `SQLiteSession`, open, with rows of (session_id, message_data)."""
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    db.execute(OPENAI)
    add_items(db, rows)
    return db


def add_items(db: apsw.Connection, rows: Iterable[Sequence[Any]]) -> None:
    for session, data in rows:
        text = data if isinstance(data, str | bytes) else json.dumps(data)
        db.execute(
            "INSERT INTO agent_messages(session_id, message_data, created_at)"
            " VALUES(?, ?, '2026-03-02 17:04:10')",
            (session, text),
        )


def langgraph_database(path: Path, rows: Iterable[Sequence[Any]], *, ttl: bool = True) -> None:
    """
    A file of `SqliteStore`, with rows of (prefix, key, value) or, with *ttl*, of these and
    (expires_at, ttl_minutes).
    """
    db = apsw.Connection(str(path))
    db.execute(LANGGRAPH + (LANGGRAPH_TTL if ttl else ""))
    for prefix, key, value, *rest in rows:
        # The library writes bytes into this column.
        data = value if isinstance(value, str | bytes) else json.dumps(value).encode()
        times = ("2026-03-02 17:04:10", "2026-03-03 08:00:00")
        values = (prefix, key, data, *times, *((rest or [None, None]) if ttl else ()))
        db.execute(f"INSERT INTO store VALUES({','.join('?' * len(values))})", values)
    db.close()
