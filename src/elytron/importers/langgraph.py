"""
LangGraph: the file of a `SqliteStore` (langgraph-checkpoint-sqlite).

Each item becomes the memory that `elytron.adapters.langgraph` keeps of it, so an imported store
goes on there with the same items.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from elytron.adapters.langgraph_records import (
    SPREAD,
    Namespace,
    Record,
    listed,
    remembered,
    spread_at,
)
from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.importers.pieces import LeftOut, Piece, Reading, Taught, bad
from elytron.importers.tables import Row, Tables, Value, as_json, as_text
from elytron.importers.times import iso_time
from elytron.records import BadLine

EXPIRED = "items whose time to live is over"
_TABLE = "store"
_COLUMNS = ("prefix", "key", "value", "created_at", "updated_at")
_LISTED_MAX = 10_000  # namespaces that the adapter reads of one list, unless it is told otherwise
_FILES = 8  # so many may be imported into one agent, and more where they have few namespaces
_TTL_COLUMNS = ("expires_at", "ttl_minutes")  # not in its first version


def is_store(tables: Tables) -> bool:
    """Whether it is the file of such a store."""
    return tables.columns.get(_TABLE, frozenset()).issuperset(_COLUMNS)


def reading(tables: Tables, config: Config) -> Reading:
    if not is_store(tables):
        raise InvalidArgument(
            f"{tables.path} has no table `{_TABLE}` with the columns {', '.join(_COLUMNS)};"
            " nothing was imported"
        )
    return Reading("row", lambda: _pieces(tables, config), "items")


def _pieces(tables: Tables, config: Config) -> Iterator[Piece]:
    has_ttl = tables.columns[_TABLE].issuperset(_TTL_COLUMNS)
    now = datetime.now(UTC)
    noted: Namespace | None = None
    namespaces, many = 0, spread_at(min(config.max_query_rows, _LISTED_MAX)) // _FILES
    columns = _COLUMNS + _TTL_COLUMNS if has_ttl else _COLUMNS
    for row in tables.rows(_TABLE, columns, order="prefix, key", config=config):
        if isinstance(row, BadLine):
            yield row
            continue
        place = f"key {row.values[1]!r:.60}"
        try:
            record = _record(row)
            expires = _time(row.values[5], "expires_at") if has_ttl else None
            if expires is not None and expires <= now:
                yield LeftOut(EXPIRED)
                continue
            memory = remembered(record, expires=expires)
        except InvalidArgument as error:
            yield bad(row.number, place, str(error))
            continue
        if record.namespace != noted:
            noted = record.namespace
            namespaces += 1
            if namespaces == many + 1:
                yield Taught(row.number, listed(SPREAD), place, aside=True)
            yield Taught(row.number, listed(noted, spread=namespaces > many), place, aside=True)
        yield Taught(row.number, memory, place)


def _record(row: Row) -> Record:
    prefix, key, value, created, updated, *ttl = row.values
    namespace = tuple(as_text(prefix, "prefix").split("."))
    if not all(namespace):
        raise InvalidArgument("`prefix` has an empty label; LangGraph allows none")
    created_at = _time(created, "created_at")
    if created_at is None:
        raise InvalidArgument("`created_at` is missing")
    minutes = ttl[1] if ttl else None
    if minutes is not None and not isinstance(minutes, int | float):
        raise InvalidArgument(f"`ttl_minutes` must be a number; it is {type(minutes).__name__}")
    return Record(
        namespace=namespace,
        key=as_text(key, "key"),
        value=_value(value),
        created_at=created_at,
        updated_at=_time(updated, "updated_at") or created_at,
        ttl_minutes=minutes,
        fields=None,
    )


def _time(value: Value, column: str) -> datetime | None:
    return None if value is None else iso_time(as_text(value, column), column)


def _value(value: Value) -> dict[str, Any]:
    """The library writes JSON as bytes into a column of text; others may write text."""
    if not isinstance(value, str | bytes):
        raise InvalidArgument(f"`value` must be JSON; it is {type(value).__name__}")
    found = as_json(value, "value")
    if not isinstance(found, dict):
        raise InvalidArgument(f"`value` must be an object; it is {type(found).__name__}")
    return found
