"""What the tests of every adapter may ask for: a store in a fresh folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import elytron

settings.register_profile(
    "same",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ELYTRON_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def open_store(folder: Path) -> Iterator[Callable[..., elytron.Store]]:
    """`elytron.open` on *folder* with settings as keywords; closed after the test."""
    opened: list[elytron.Store] = []

    def open_one(**settings: Any) -> elytron.Store:
        opened.append(elytron.open(folder, **settings))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., elytron.Store]) -> elytron.Store:
    return open_store()


@pytest.fixture
def bob(store: elytron.Store) -> elytron.Agent:
    return store.agent("Bob")
