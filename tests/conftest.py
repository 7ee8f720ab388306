"""What every test may ask for: a store in a fresh folder, and a fresh interpreter."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

import elytron
from backups import make_with_backup
from far import FarStore
from impostors import impostor  # noqa: F401
from ledgers import check_index, check_server_index, lock_held, query, query_server, row_locked
from postgres_server import (  # noqa: F401
    kept,
    kept_schema,
    own_kept,
    own_postgres,
    postgres,
    replicated,
    schema,
)

# The same examples each time, so that a run says something about the code and not about luck.
# `--hypothesis-profile=explore` looks for new ones.
_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "same", derandomize=True, deadline=None, database=None, suppress_health_check=_QUIET
)
settings.register_profile(
    "explore", deadline=None, database=None, max_examples=2000, suppress_health_check=_QUIET
)
settings.load_profile("same")

_RUN_MAX_S = 60
WHERE = ("here", "served", "postgres")
_DISK = "TESTS_DISK"  # where it is, for the workers of a run whose files are in memory
_MEMORY_DISK = Path("/dev/shm")
_MEMORY_FREE_MIN_BYTES = 4 << 30  # a run holds less than a quarter of it at once


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests has no say in them."""
    for name in [name for name in os.environ if name.startswith("ELYTRON_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a store may be made; not there yet."""
    return tmp_path / "store"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        action="store_true",
        help="what is marked `ledgers` on PostgreSQL too, as `make test-postgres` has it",
    )
    parser.addoption(
        "--proof",
        action="store_true",
        help="as many rounds as the figures of docs/guarantees.md say; minutes to an hour",
    )


def pytest_configure(config: pytest.Config) -> None:
    """
    Let tests have their files in memory, if there is plenty: half of a run is waiting for fsync.

    Nothing is lost by it, as no test cuts the power; those that are about a disk, or about what
    meets while one waits for it, are marked so. With TMPDIR set, or `--proof`, all have a disk.
    """
    if "TMPDIR" in os.environ or config.getoption("--proof"):
        return
    if not _MEMORY_DISK.is_dir() or not os.access(_MEMORY_DISK, os.W_OK):
        return
    free_bytes = shutil.disk_usage(_MEMORY_DISK).free
    if min(free_bytes, psutil.virtual_memory().available) >= _MEMORY_FREE_MIN_BYTES:
        os.environ[_DISK] = tempfile.gettempdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY_DISK)  # for processes, too


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there now stays: `gc.collect`, which some tests call at each step, leaves it out."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """
    So does what the tests of a file leave, such as modules and their caches: towards the end of a
    run one `gc.collect` took a third of a second, and a test that calls it at each step minutes.
    """
    done = yield
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        gc.freeze()
    return done


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder that is empty and goes with the test; on a disk if that is what it is about."""
    disk = os.environ.get(_DISK)
    if disk is None or request.node.get_closest_marker("disk") is None:
        yield tmp_path
    else:
        with tempfile.TemporaryDirectory(dir=disk, ignore_cleanup_errors=True) as name:
            yield Path(name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of the contract are run on each kind of store that they are about."""
    marked = {marker.name for marker in metafunc.definition.iter_markers()}
    if marked & {"contract", "ledgers"} and "where" in metafunc.fixturenames:
        left_out = {"served"} if marked & {"ledgers", "here"} else set()
        left_out |= {"postgres"} if "files" in marked else set()
        if "ledgers" in marked and not metafunc.config.getoption("--postgres"):
            left_out |= {"postgres"}
        metafunc.parametrize("where", [kind for kind in WHERE if kind not in left_out])


@pytest.fixture
def where() -> str:
    """Which kind of store a test is given; `here` unless it is one of the contract."""
    return "here"


@pytest.fixture
def server_place(where: str, request: pytest.FixtureRequest) -> tuple[str, str] | None:
    """The DSN and the schema of a store on a server; None for one of another kind."""
    if where != "postgres":
        return None
    return request.getfixturevalue("postgres").dsn(), request.getfixturevalue("kept_schema")


@pytest.fixture
def address(folder: Path, server_place: tuple[str, str] | None) -> tuple[str, dict[str, str]]:
    """Where the store is, as `elytron.open` is told it, in this process or another."""
    if server_place is None:
        return str(folder), {}
    dsn, name = server_place
    return dsn, {"files_path": str(folder), "postgres_schema": name}


@pytest.fixture
def open_store(
    address: tuple[str, dict[str, str]], where: str
) -> Iterator[Callable[..., elytron.Store]]:
    """`elytron.open` on the store, with settings as keywords; closed after the test."""
    opened: list[elytron.Store] = []

    def open_one(**settings: Any) -> elytron.Store:
        path, place = address
        if where == "served":
            opened.append(FarStore(Path(path), **settings))
        else:
            opened.append(elytron.open(path, **place, **settings))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def look(folder: Path, server_place: tuple[str, str] | None) -> Callable[..., list[Any]]:
    """Run SQL on the rows of bob, or of another *agent*, while no store is open in this process."""
    return partial(query_server, *server_place) if server_place else partial(query, folder)


@pytest.fixture
def check_words(folder: Path, server_place: tuple[str, str] | None) -> Callable[[], None]:
    """Assert that bob's word index is whole, while no store is open in this process."""
    return (
        partial(check_server_index, *server_place) if server_place else partial(check_index, folder)
    )


@pytest.fixture
def writer_elsewhere(
    folder: Path, server_place: tuple[str, str] | None
) -> Callable[[], AbstractContextManager[None]]:
    """Have bob's writers wait for the length of a block, as for a slow program beside us."""
    return partial(row_locked, *server_place) if server_place else partial(lock_held, folder)


@pytest.fixture
def store(open_store: Callable[..., elytron.Store]) -> elytron.Store:
    return open_store()


@pytest.fixture
def bob(store: elytron.Store) -> elytron.Agent:
    """An agent that holds nothing yet."""
    return store.agent("bob")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a backup of it, and one message more in the store; modules may have another."""
    return make_with_backup(tmp_path_factory.mktemp("template"))


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """The same, to be changed. The times and files that the backup noted are no more."""
    shutil.copytree(template, tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made, in this process and those that it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def start_script() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a script in a fresh interpreter, with pipes; killed after the test if still there."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(source), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=_RUN_MAX_S)


@pytest.fixture
def run_script(
    start_script: Callable[..., "subprocess.Popen[str]"],
) -> Callable[..., str]:
    """Run a script in a fresh interpreter to its end; what it printed. It has to succeed."""

    def run(source: str, *arguments: object) -> str:
        process = start_script(source, *arguments)
        printed, complaints = process.communicate(timeout=_RUN_MAX_S)
        assert process.returncode == 0, complaints
        assert not complaints, complaints
        return printed

    return run
