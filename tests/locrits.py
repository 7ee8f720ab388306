"""What the tests of the origin's classes have in common: a base path, and services on it."""

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from elytron.adapters import locrits_stores
from elytron.adapters.locrits import KuzuMemoryService

_T = TypeVar("_T")


def run(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(work)


def base_path() -> Any:
    """
    A fixture for a module to have as `base`: a base path, from whose parent the test runs.

    Nothing of it is shared with other tests, and all of it is closed at the end.
    """

    @pytest.fixture
    def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        monkeypatch.chdir(tmp_path)
        yield tmp_path / "memory"
        assert not locrits_stores._shared, "a service was left open"

    return base


class open_service:  # noqa: N801 - used as a function
    """A service, open for the length of an `async with`."""

    def __init__(self, base: Path, name: str = "Bob Technique") -> None:
        self._service = KuzuMemoryService(name, base)

    async def __aenter__(self) -> KuzuMemoryService:
        assert await self._service.initialize() is True
        return self._service

    async def __aexit__(self, *_: object) -> None:
        await self._service.close()


async def with_concepts(bob: KuzuMemoryService) -> None:
    """What another program may have told Elytron of."""
    memory = await bob._memory()
    await memory.relate("Alice", "lives in", "Lyon")
    await memory.relate("Lyon", "lies on", "Saône")
    await memory.set_concept("Lyon", type="place", description="A city", confidence=0.9)
    await memory.set_concept("Saône", confidence=0.2)
    await bob.save_message("user", "Alice likes Lyon", "s", "alice")
    await memory.flush()
