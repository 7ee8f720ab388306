"""
Looking at a store from outside: its files, its rows, and its lock.

Files are opened only while no store is open in this process: closing any descriptor on a
ledger drops SQLite's locks on it. `names` only lists, and may be used at any time.
"""

import contextlib
import fcntl
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw

from elytron import Agent, Config, Message
from elytron.ledger import files, rows, schema, word_reads
from elytron.ledger.postgres import dispatched as dispatched  # which registers itself
from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.ledger import Lending
from elytron.ledger.postgres.link import Link
from elytron.text import Analyzer


def ledger_path(store: Path, agent: str = "bob") -> Path:
    return files.agent_folder(store, agent) / files.LEDGER


def marker_path(store: Path, agent: str = "bob") -> Path:
    return files.agent_folder(store, agent) / files.MARKER


def wal_path(store: Path, agent: str = "bob") -> Path:
    return ledger_path(store, agent).with_name(files.LEDGER + "-wal")


def query(store: Path, sql: str, values: tuple[Any, ...] = (), *, agent: str = "bob") -> list[Any]:
    """Rows straight from a closed ledger."""
    db = apsw.Connection(str(ledger_path(store, agent)), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        return db.execute(sql, values).fetchall()
    finally:
        db.close()


@contextlib.contextmanager
def _linked(dsn: str, schema: str, agent: str) -> Iterator[Link]:
    link = Link.connect(parse(dsn).parameters(schema), time.monotonic() + 60)
    try:
        link.bind(Lending.agent_id(agent))
        yield link
    finally:
        link.close()


def query_server(
    dsn: str, schema: str, sql: str, values: tuple[Any, ...] = (), *, agent: str = "bob"
) -> list[Any]:
    """`query` for a store on a server: the same SQL, and only rows of this agent."""
    with _linked(dsn, schema, agent) as link:
        return link.execute(sql, values).fetchall()


@contextlib.contextmanager
def row_locked(dsn: str, schema: str, agent: str = "bob") -> Iterator[None]:
    """`lock_held` for a store on a server."""
    with _linked(dsn, schema, agent) as link:
        link.execute("BEGIN")
        link.native("SELECT FROM agents WHERE agent_id = %(agent)s::uuid FOR UPDATE")
        yield
        link.execute("ROLLBACK")


def names(folder: Path) -> set[str]:
    """Every path below *folder*, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below *folder*, but shared memory and an empty log, which hold nothing."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }
    return {name: data for name, data in found.items() if data or not name.endswith("-wal")}


class Copier:
    """A shell that copies folders as another process sees them, even while they are in use."""

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def copy(self, source: Path, target: Path) -> None:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        paths = f"{shlex.quote(str(source))} {shlex.quote(str(target))}"
        self._shell.stdin.write(f"cp -R {paths}; echo $?\n")
        assert self._shell.stdout.readline() == "0\n"

    def close(self) -> None:
        self._shell.communicate("exit\n", timeout=30)


def terms_of(text: str) -> bytes:
    """What a ledger holds of the words of a text, beside it: their hashes, in order."""
    analyzer = Analyzer(Config().languages)
    at = datetime(2024, 5, 8, tzinfo=UTC)
    dated = analyzer.document("", speaker="", at=at)
    return analyzer.document(text, speaker="", at=at).removesuffix(dated)


def flip(path: Path, offset: int, *, bit: int = 0) -> None:
    """Flip one bit of a closed file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def held(agent: Agent) -> dict[str, str]:
    """Contents by id, in the order of arrival."""
    return {message.id: message.content for message in agent.messages()}


def state(agent: Agent) -> tuple[list[Message], dict[str, Any]]:
    """All that an agent holds: its messages and the number of rows of each kind."""
    usage = agent.usage()
    kinds = ("messages", "sessions", "users", "memories", "concepts", "edges", "changes")
    return list(agent.messages()), {kind: getattr(usage, kind) for kind in kinds}


@contextlib.contextmanager
def lock_held(store: Path, agent: str = "bob") -> Iterator[None]:
    """Hold the lock of a ledger's writers, as a slow program beside us would."""
    with (files.agent_folder(store, agent) / files.LOCK).open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        fcntl.flock(file, fcntl.LOCK_UN)


def check_index(store: Path, agent: str = "bob", *, behind_ok: bool = False) -> None:
    """
    That a closed ledger is whole, and its word index says of each term just where it stands.

    The messages after the last one indexed have to be few, unless the indexing, which comes after
    the saving, may have failed: reading looks at them itself.
    """
    db = apsw.Connection(str(ledger_path(store, agent)), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        assert db.pragma("integrity_check") == "ok"
        db.execute("INSERT INTO words(words) VALUES('integrity-check')")
        _check_words(db, behind_ok=behind_ok)
    finally:
        db.close()


def check_server_index(dsn: str, schema: str, agent: str = "bob") -> None:
    """`check_index` for a store on a server."""
    with _linked(dsn, schema, agent) as link:
        _check_words(link)


def _check_words(db: Any, *, behind_ok: bool = False) -> None:
    indexed = db.execute("SELECT key FROM indexed").get
    messages = db.execute("SELECT key, terms FROM messages").fetchall()
    found = word_reads.vocabulary(db)
    totals = word_reads.totals(db)
    held = [rows.to_tokens(terms).split() for key, terms in messages if key <= indexed]
    assert behind_ok or len(messages) - len(held) < schema.UNINDEXED_MAX
    assert found == Counter(token for tokens in held for token in set(tokens))
    assert totals == (len(held), sum(len(tokens) for tokens in held))


def write(agent: Agent, op: Any) -> Any:
    """Apply one op to an agent's ledger, as the parts above do; its result."""
    return agent._write(op)


def row_of(agent: Agent, table: str, id: str, column: str = "id") -> tuple[int, int]:
    """The key and the checksum of a row, as a reader of an open ledger sees them."""
    with agent._agents.use(agent.name, create=False) as held:
        assert held is not None
        with held.ledger.reading() as db:
            found = db.execute(f"SELECT key, checksum FROM {table} WHERE {column} = ?", (id,)).get
    return found[0], found[1]


def changes_of(agent: Agent) -> list[tuple[int, int, int]]:
    """(op, kind, key) of the changes that are held, in order; no saves of messages."""
    with agent._agents.use(agent.name, create=False) as held:
        assert held is not None
        with held.ledger.reading() as db:
            return db.execute("SELECT op, kind, key FROM changes ORDER BY seq").fetchall()
