"""What every test may ask for: a store in a fresh folder, and a fresh interpreter."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import elytron
from far import FarStore

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
WHERE = ("here", "served")


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
        "--proof",
        action="store_true",
        help="as many rounds as the figures of docs/guarantees.md say; minutes to an hour",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of the contract are run on each kind of store."""
    contract = metafunc.definition.get_closest_marker("contract")
    here = metafunc.definition.get_closest_marker("here")
    if contract and not here and "where" in metafunc.fixturenames:
        metafunc.parametrize("where", WHERE)


@pytest.fixture
def where() -> str:
    """Which kind of store a test is given; `here` unless it is one of the contract."""
    return "here"


@pytest.fixture
def open_store(folder: Path, where: str) -> Iterator[Callable[..., elytron.Store]]:
    """`elytron.open` on *folder* with settings as keywords; closed after the test."""
    opened: list[elytron.Store] = []

    def open_one(**settings: Any) -> elytron.Store:
        opened.append(
            elytron.open(folder, **settings) if where == "here" else FarStore(folder, **settings)
        )
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., elytron.Store]) -> elytron.Store:
    return open_store()


@pytest.fixture
def bob(store: elytron.Store) -> elytron.Agent:
    """An agent that holds nothing yet."""
    return store.agent("bob")


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
