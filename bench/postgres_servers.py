"""
A PostgreSQL server for the measurements: on the disk, durable, and with a role that owns nothing.

A superuser is not held up by row-level security, so what is measured connects as `SERVICE`.
"""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg

import elytron
from elytron.ledger.postgres.schema import grants

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from postgres_server import Server, server

SERVICE = "elytron_app"
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "1GB",
    "min_wal_size": "256MB",
    "autovacuum": "on",
}


@contextlib.contextmanager
def running(parent: Path) -> Iterator[Server]:
    """A server whose folder is in *parent*, which is to be on a disk; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="elytron-bench-", dir=parent))
    folder.chmod(0o755)  # the server runs as another user
    try:
        with server(folder / "one", *[f"{key}={value}" for key, value in SETTINGS.items()]) as one:
            one.execute(f"CREATE ROLE {SERVICE} LOGIN")
            yield one
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Place:
    """A store on a server: its schema, made by the owner, and the folder of its files."""

    def __init__(self, one: Server, schema: str, files: Path) -> None:
        self.server = one
        self.dsn, self.schema, self.files = one.dsn(user=SERVICE), schema, files / schema
        with elytron.open(one.dsn(), files_path=str(self.files), postgres_schema=schema) as store:
            store.agent("first").save("user", "hello")
        one.execute(grants(schema, SERVICE))

    def open(self, **settings: Any) -> elytron.Store:
        """The store, as programs open it."""
        return elytron.open(
            self.dsn, files_path=str(self.files), postgres_schema=self.schema, **settings
        )

    def run(self, *statements: Any) -> list[Any]:
        """The rows of the last of these, run by the owner, who sees all agents."""
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            cursor = connection.execute(f"SET search_path TO {self.schema}")
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


def processor_s(one: Server) -> float:
    """Seconds of processor that the server's processes have taken which are running now."""
    taken = 0.0
    for process in one.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            taken += times.user + times.system
    return taken


def connections(one: Server) -> int:
    """Of the programs that are measured."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    return int(one.execute(sql, (SERVICE,))[0][0])


def written_bytes(one: Server) -> int:
    """How far the server's log has come: what a standby is sent."""
    return int(one.execute("SELECT (pg_current_wal_lsn() - '0/0')::bigint")[0][0])
