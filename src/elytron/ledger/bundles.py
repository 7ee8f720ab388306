"""
Bundles: all rows of a query in one step of the database, where other threads are at work.

apsw lets go of Python's lock for each row. Where threads wait for that lock, each row wakes one of
them, mostly for nothing, and waits for it again: a question reads hundreds of rows, and in
`bench/soak.py` a dozen threads are at work. So SQLite is asked for one row that has all of them, as
JSON, and of bytes as one run of hexadecimal. Whoever is alone gets them one by one, which is
cheaper then: `bench/costs.py` shows both.
"""

import contextlib
import functools
import json
from collections import deque
from collections.abc import Sequence
from typing import Any

import apsw

from elytron.ledger import rows
from elytron.ledger.database import Database

_STATEMENTS_MAX = 200
_HEAD, _TAIL = "WITH bundled(", " FROM bundled"
# One for each reader that is lent, and each commit that goes on, in this process. Whether it is
# exact decides nothing but speed.
_at_work: deque[None] = deque()


def begin() -> None:
    """To be called where a thread begins to read or to commit. `end` has to follow."""
    _at_work.append(None)


def end() -> None:
    """To be called where it ends."""
    with contextlib.suppress(IndexError):  # Ctrl-C struck where another's was begun
        _at_work.pop()


def _is_alone() -> bool:
    return len(_at_work) < 2


@functools.singledispatch
def fetch(db: Database, sql: str, columns: str, values: Sequence[Any] = ()) -> list[Any]:
    """
    All rows of a query, as tuples, in their order.

    Args:
        columns: a letter for each: b where bytes are expected (what is none may come as None), i
            where anything else is.
    """
    assert columns, "for databases that have to know it"
    return rows.fetch(db, sql, values)


@fetch.register
def _(db: apsw.Connection, sql: str, columns: str, values: Sequence[Any] = ()) -> list[Any]:
    if _is_alone():
        return rows.fetch(db, sql, values)
    try:
        found = db.execute(_bundled(sql, columns), values).get
    except apsw.SQLError:  # bytes in a damaged row, where JSON has no place for them
        return rows.fetch(db, sql, values)
    values_of = iter((found,) if len(columns) == 1 and columns != "b" else found)
    return list(
        zip(
            *[
                _cut(next(values_of), next(values_of))
                if letter == "b"
                else json.loads(next(values_of))
                for letter in columns
            ],
            strict=True,
        )
    )


def _cut(sizes: str, joined: str | None) -> list[bytes | None]:
    """The bytes of each row, of all of them in hexadecimal; None where there is no size."""
    data, start = bytes.fromhex(joined or ""), 0
    found: list[bytes | None] = []
    for size in json.loads(sizes):
        found.append(None if size is None else data[start : start + size])
        start += size or 0
    return found


@functools.singledispatch
def fetch_keys(db: Database, sql: str, values: Sequence[Any] = ()) -> list[int]:
    """The one column of a query."""
    return [key for (key,) in rows.fetch(db, sql, values)]


@fetch_keys.register
def _(db: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> list[int]:
    if _is_alone():
        return [key for (key,) in rows.fetch(db, sql, values)]
    keys: list[int] = json.loads(db.execute(_bundled(sql, "i"), values).get)
    return keys


def within(sql: str) -> str:
    """The query that a statement of ours bundles; any other statement as it is."""
    if not sql.startswith(_HEAD):
        return sql
    return sql[sql.index("(", len(_HEAD)) + 1 : sql.index(") SELECT json_group_array(")]


@functools.lru_cache(_STATEMENTS_MAX)
def _bundled(sql: str, columns: str) -> str:
    """An array for each column, which are read faster than one of rows; of bytes their sizes."""
    names = [f"c{place}" for place in range(len(columns))]
    arrays = [
        f"json_group_array(CASE typeof({name}) WHEN 'blob' THEN octet_length({name}) END),"
        f" group_concat(CASE typeof({name}) WHEN 'blob' THEN hex({name}) END, '')"
        if letter == "b"
        else f"json_group_array({name})"
        for name, letter in zip(names, columns, strict=True)
    ]
    return f"{_HEAD}{', '.join(names)}) AS ({sql}) SELECT {', '.join(arrays)}{_TAIL}"
