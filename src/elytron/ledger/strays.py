"""Strays: what lies among the agents' folders of a store, and is of no agent that can be named."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from elytron.ledger import files, swapping


def strays(store: Path, named: Iterable[str]) -> list[Path]:
    """
    What lies among the agents' folders and is of none of the agents that are *named*, sorted.

    A folder in which nothing was ever completed, nor left, is none: it is begun by a first write.
    """
    ours = {files.folder_name(name) for name in named}
    with files.translate_os_errors(store / "agents"), contextlib.suppress(FileNotFoundError):
        return sorted(
            path
            for path in (store / "agents").iterdir()
            if path.name not in ours and (not path.is_dir() or _holds_something(path))
        )
    return []


def is_unfinished(folder: Path) -> bool:
    """
    Whether there is no memory in an agent's folder, only what a repair or a restore left that was
    stopped, or that one is writing now. Where a swap is pending, that may be the memory; and so may
    what was set aside.
    """
    with files.translate_os_errors(folder):
        if _holds_memory(folder) or not swapping.unfinished(folder):
            return False
        return not (swapping.pending(folder) or swapping.aside_folders(folder))


def _holds_something(folder: Path) -> bool:
    return _holds_memory(folder) or bool(swapping.unfinished(folder))


def _holds_memory(folder: Path) -> bool:
    return files.may_hold_ledger(folder) or (folder / files.ARCHIVE).exists()
