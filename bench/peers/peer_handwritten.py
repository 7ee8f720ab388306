"""
What a good engineer writes in an afternoon, with the standard library alone.

One table for all agents, FTS5 beside it, WAL, `synchronous=FULL`, one connection under one lock.
"""
# ruff: noqa: ARG002  what one peer needs, another does not

import json
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import workload

SENTENCE = "import sqlite3"
_BUSY_S = 30


class Peer(workload.Peer):
    """The table, the index, the lock."""

    def __init__(self, folder: Path, *, vectors: bool, keep: int) -> None:
        self._db = sqlite3.connect(
            folder / "messages.db", timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._lock = threading.Lock()
        with self._transaction() as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS messages(key INTEGER PRIMARY KEY, id TEXT UNIQUE,"
                " agent TEXT, session TEXT, user TEXT, role TEXT, content TEXT, at REAL,"
                " metadata TEXT)"
            )
            db.execute("CREATE INDEX IF NOT EXISTS by_session ON messages(agent, session, at)")
            db.execute(
                "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(content,"
                " content='messages', content_rowid='key', tokenize='porter')"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _insert(self, db: sqlite3.Connection, agent: str, message: workload.Message) -> str:
        key = str(uuid.uuid4())
        row = (key, agent, message.session, "alice", message.role, message.text, time.time())
        done = db.execute(
            "INSERT INTO messages VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, json.dumps({}))
        )
        db.execute("INSERT INTO words(rowid, content) VALUES(?, ?)", (done.lastrowid, message.text))
        return key

    def save(self, agent: str, message: workload.Message) -> str:
        with self._transaction() as db:
            return self._insert(db, agent, message)

    def fill(self, agent: str, messages: Sequence[workload.Message]) -> list[str]:
        with self._transaction() as db:
            return [self._insert(db, agent, message) for message in messages]

    def recall(self, agent: str, question: str, limit: int) -> list[str]:
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question))
        with self._lock:
            found = self._db.execute(
                "SELECT m.content FROM words JOIN messages m ON m.key = words.rowid"
                " WHERE words MATCH ? AND m.agent = ? ORDER BY words.rank LIMIT ?",
                (words, agent, limit),
            ).fetchall()
        return [content for (content,) in found]

    def history(self, agent: str, session: str, limit: int) -> list[str]:
        with self._lock:
            found = self._db.execute(
                "SELECT content FROM messages WHERE agent = ? AND session = ?"
                " ORDER BY at DESC LIMIT ?",
                (agent, session, limit),
            ).fetchall()
        return [content for (content,) in reversed(found)]

    def drop(self, agent: str, keys: Sequence[str]) -> None:
        with self._transaction() as db:
            for key in keys:
                ((row, content),) = db.execute(
                    "SELECT key, content FROM messages WHERE id = ?", (key,)
                ).fetchall()
                db.execute(
                    "INSERT INTO words(words, rowid, content) VALUES('delete', ?, ?)",
                    (row, content),
                )
                db.execute("DELETE FROM messages WHERE key = ?", (row,))

    def compact(self, agent: str) -> bool:
        with self._lock:
            self._db.execute("INSERT INTO words(words) VALUES('optimize')")
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    def texts(self, agent: str) -> list[str]:
        with self._lock:
            found = self._db.execute(
                "SELECT content FROM messages WHERE agent = ?", (agent,)
            ).fetchall()
        return [content for (content,) in found]

    def close(self) -> None:
        self._db.close()
