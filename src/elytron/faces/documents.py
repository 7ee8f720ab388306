"""
Documents: what `--json` prints. The names are those of the library's records.

One document, indented on a terminal and on one line elsewhere; times in ISO 8601.
"""

import dataclasses
import io
import json
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from elytron.errors import ElytronError
from elytron.faces.output import emit
from elytron.faces.visible import json_safe
from elytron.records import Hit, LedgerBytes, Usage
from elytron.reports import (
    BackedUp,
    BackupRestored,
    Checked,
    Cleanup,
    EmbeddingUsage,
    Reclaimed,
    StoreMigrated,
)

# What a record works out from its fields, and programs want too.
_DERIVED: Mapping[type, tuple[str, ...]] = {
    Hit: ("kind",),
    LedgerBytes: ("total",),
    Usage: ("archived",),
    Cleanup: ("reasons",),
    Reclaimed: ("given_back_bytes",),
    Checked: ("ok",),
    BackedUp: ("ok",),
    BackupRestored: ("ok",),
    StoreMigrated: ("behind", "ok"),
    EmbeddingUsage: ("queued",),
}


def write(value: Any) -> None:
    """Print *value* as one JSON document, in UTF-8 whatever the terminal speaks."""
    indent = 2 if sys.stdout.isatty() else None
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=plain)
    emit(json_safe(text) + "\n", encoding="utf-8")


def write_line(value: Any) -> None:
    """The same on one line, on a terminal too: one of several documents."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=plain)
    emit(json_safe(text) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """A record, a time, a path or an error as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        names += _DERIVED.get(type(value), ())
        return {name: _by_name(getattr(value, name)) for name in names}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, ElytronError):
        return {"error": value.code, "message": str(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _by_name(value: Any) -> Any:
    """A tuple of named tuples as a list of mappings, which JSON would make lists of lists."""
    if isinstance(value, tuple) and value and hasattr(value[0], "_asdict"):
        return [row._asdict() for row in value]
    return value


class OutputLines(io.StringIO):
    """
    Stdout as a stream for an export: UTF-8 whatever the terminal speaks. Only on a terminal
    are characters escaped that it would act on; the value of each line is the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self._escape = sys.stdout.isatty()

    def write(self, text: str) -> int:
        emit(json_safe(text) if self._escape else text, encoding="utf-8")
        return len(text)
