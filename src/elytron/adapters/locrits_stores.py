"""
Locrits stores: one open store for each base path of a process, however many services use it.

The first to come opens it, the last to go closes it. A database of the origin that lies where the
store is gets migrated before an agent is used: nobody starts empty beside their memory.
"""

import asyncio
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from elytron import aio, config_sources
from elytron.config import Config
from elytron.errors import InvalidArgument, InvalidSetting
from elytron.importers import kuzu, migrated
from elytron.store import Store

_log = logging.getLogger("elytron.adapters")
_T = TypeVar("_T")
_CONFIG = Path("config.yaml")
_CONFIG_MAX_BYTES = 1 << 20
_FILE = "kuzu.db"
_OLLAMA = "ollama"


@dataclass(frozen=True, slots=True)
class Wished:
    """The embedder that a program asks for; its settings may name another."""

    model: str = "nomic-embed-text"
    mode: str = _OLLAMA


async def on_thread(function: Callable[[], _T]) -> _T:
    """Run what may last on a thread of its own, which ends with it."""
    worker = ThreadPoolExecutor(1, thread_name_prefix="elytron-locrits")
    try:
        return await asyncio.get_running_loop().run_in_executor(worker, function)
    finally:
        worker.shutdown(wait=False)  # cancelled, it goes on without the loop


class SharedStore:
    """An open store and how many use it; `take` and `give_back` count."""

    def __init__(self, path: Path, wished: Wished) -> None:
        self.wished = wished
        self.store = aio.AsyncStore(path, settings(wished))
        self.uses = 0
        self._mutex = threading.Lock()
        self._ready: dict[str, threading.Lock] = {}

    def check_wish(self, wished: Wished) -> None:
        """
        Raises:
            InvalidSetting: it is open with another embedder, because a program asked for that.
        """
        config = self.store.config
        if wished != self.wished and config.enable_embeddings and not _names_embedder(_given()):
            raise InvalidSetting(
                f"{self.store.path} is open with {self.wished.model!r} ({self.wished.mode}), and"
                f" {wished.model!r} ({wished.mode}) is asked for; all services of a base path have"
                " one embedder: give them the same, or name it in the settings, as `embedder`"
            )

    def close(self) -> None:
        """As `AsyncStore.close`, for a thread that may wait."""
        self.store._store.close()
        if not self.store._store._agents.forked:
            self.store._pool.shutdown()

    def prepare(self, name: str) -> None:
        """
        Migrate the origin's database of this name, unless that was done. One caller at a time.

        Raises:
            As `importers.kuzu.migrate`.
        """
        with self._mutex:
            mine = self._ready.setdefault(name, threading.Lock())
        with mine:
            source = origin_database(self.store.path, name)
            if source is None:
                return
            mark = migrated.read(self.store.path, name)
            if mark is None:
                _migrate(self.store._store, source, name)
            elif mark != migrated.mark_of(source):
                _log.warning(
                    "%s was changed after it was migrated; to bring that over: elytron migrate"
                    " kuzu %s --agent NAME",
                    source,
                    source,
                )


_shared: dict[str, SharedStore] = {}
_guard = threading.Lock()
_registered = False


def _forget_in_fork() -> None:
    """A forked child has neither the threads nor the files of its parent."""
    global _guard
    _guard = threading.Lock()
    _shared.clear()


def _register() -> None:
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_in_fork)
    _registered = True


def take(base_path: Path, wished: Wished) -> SharedStore:
    """
    The open store of a base path. `give_back` must follow.

    Raises:
        InvalidSetting: the settings are wrong; or as `SharedStore.check_wish`.
    """
    key = os.path.realpath(base_path)
    with _guard:
        _register()
        if key not in _shared:
            _shared[key] = SharedStore(base_path, wished)
        else:
            _shared[key].check_wish(wished)
        _shared[key].uses += 1
        return _shared[key]


def give_back(shared: SharedStore) -> None:
    """
    End a use; the last one closes the store, which may wait for writes under way.

    Raises:
        Busy: some were still under way after `save_timeout_s`.
    """
    with _guard:
        shared.uses -= 1
        if shared.uses:
            return
        for key in [key for key, other in _shared.items() if other is shared]:
            del _shared[key]
    shared.close()


def settings(wished: Wished | None = None) -> Config:
    """
    The settings: the `memory:` block of the file named by ELYTRON_CONFIG, or else of `config.yaml`
    in the working directory; without that block the defaults. `ELYTRON_*` wins over either.

    Args:
        wished: the embedder, where they enable embeddings and name no `embedder`; its model, where
            they name no `embedding_model`.

    Raises:
        InvalidSetting: an unknown name in that block or a bad value; the file is no YAML; or
            embeddings are on, and neither the settings nor *wished* name an embedder known here.
    """
    given = _given()
    found = config_sources.load(given, None, os.environ)
    if wished is None or not found.enable_embeddings or _names_embedder(given):
        return found
    if wished.mode != _OLLAMA:
        raise InvalidSetting(
            f"`enable_embeddings` is on, and what inference_mode {wished.mode!r} means is not known"
            " here; name an `embedder` in the settings, as `embedder: wordllama`, or turn it off"
        )
    weakest = {"embedder": _OLLAMA, "embedding_model": wished.model}
    return config_sources.load({**weakest, **given}, None, os.environ)


def _names_embedder(given: Mapping[str, Any]) -> bool:
    return "embedder" in given or "ELYTRON_EMBEDDER" in os.environ


def _given() -> Mapping[str, Any]:
    """The program's settings for memories, by name, as they stand in a file; none without one."""
    named = os.environ.get("ELYTRON_CONFIG")
    path = Path(named) if named else _CONFIG
    found = _parsed(path, needed=bool(named))
    # The program's own file holds much else; one that was named may be all about memories.
    block = found.get("memory", found if named else None)
    if block is None:
        return {}
    if not isinstance(block, Mapping):
        raise InvalidSetting(f"settings file {path}: `memory:` must hold settings")
    return {str(name): value for name, value in block.items()}


def _parsed(path: Path, *, needed: bool) -> Mapping[str, Any]:
    """What a YAML file holds; nothing, if it is not there and not *needed*."""
    import yaml

    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG_MAX_BYTES + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not needed:
            return {}
        raise InvalidSetting(f"settings file {path} cannot be read: {error.strerror}") from error
    if len(data) > _CONFIG_MAX_BYTES:
        raise InvalidSetting(f"settings file {path} is over {_CONFIG_MAX_BYTES} bytes")
    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidSetting(f"settings file {path} is not YAML: {error!s:.500}") from error
    if found is None or (not isinstance(found, Mapping) and not needed):
        return {}
    if not isinstance(found, Mapping):
        raise InvalidSetting(f"settings file {path} must hold names and values")
    return found


def slugs(name: str) -> list[str]:
    """What the origin may have called an agent's folder: lower case, all else underscores."""
    lower = name.lower()
    return list(
        dict.fromkeys(
            (
                re.sub(r"[^a-z0-9]", "_", lower),
                re.sub(r"[^\w]", "_", lower),  # where letters with accents counted as letters
                re.sub(r"[^\w-]", "_", lower),
            )
        )
    )


def origin_database(base_path: Path, name: str) -> Path | None:
    """The origin's database of an agent, if there is one. Looks at names only."""
    for slug in slugs(name):
        path = base_path / slug / _FILE
        if path.exists():
            return path
    return None


def origin_folders(base_path: Path) -> list[str]:
    """The names of the folders that hold a database of the origin, sorted."""
    if not base_path.is_dir():
        return []
    return sorted(folder.name for folder in base_path.iterdir() if (folder / _FILE).exists())


def _migrate(store: Store, source: Path, name: str) -> None:
    """
    Raises:
        InvalidArgument: nothing of it could be taken, so the agent would start empty beside it.
    """
    report = kuzu.migrate(store, kuzu.Found(source, name))
    if report.bad and not store.agent(name).exists():
        raise InvalidArgument(
            f"nothing of {source} could be taken: {report.bad[0].reason}; `elytron migrate kuzu"
            " PATH` lists the rest. Move that folder away to start without it"
        )
    _log.log(
        logging.WARNING if report.bad else logging.INFO,
        "migrated %s: %d messages, %d memories, %d concepts; %d could not be taken",
        source,
        report.imported,
        report.memories,
        report.concepts,
        len(report.bad),
    )
