"""
Foreign: reads a database that a Kuzu program left behind, in a process of its own.

A program, not a module to import: any Python that has `kuzu` runs it by its path, and it needs
nothing else of ours. It opens the database read-only, writes what is in it to stdout, one JSON
object a line, in pages of bounded size, and ends. What becomes of that is decided by
`elytron.importers.kuzu`.

Lines have a `kind`: `database` first, then `topics concepts messages sessions memories relations`
with `rows`, and `end`; or `error` with a `code`, after which nothing follows.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import Any, Iterator, Sequence  # noqa: UP035 - any Python that kuzu runs on

PAGE_ROWS = 1000
PAGE_CHARS = 1 << 20
TEXT_MAX = 8 << 20  # characters of one value; longer ones are left out, and counted
ROWS_MAX = 5_000_000  # of one table: their ids are held in memory to put them in order
BUFFER_BYTES = 256 << 20
MAP_BYTES = 1 << 40
STORAGE_VERSION = 39  # Kuzu 0.11
SIDE_FILES = (".wal", ".shadow", ".wal.checkpoint")
_HEADER = struct.Struct("<4sQ")
_SPARE_BYTES = 64 << 20  # of the disk that a copy leaves free

# What the origin's programs made. Columns that an older file lacks are read as null.
NODES = {
    "User": ("id", "name", "email"),
    "Message": ("id", "role", "content", "timestamp", "session_id", "metadata"),
    "Session": ("id", "name", "topic", "created_at", "user_id"),
    "Concept": ("id", "name", "type", "description", "confidence"),
    "Topic": ("id", "name", "description", "category"),
    "Memory": ("id", "content", "importance", "created_at", "last_accessed"),
}
EMBEDDINGS = {
    "Message": "content_embedding",
    "Memory": "content_embedding",
    "Concept": "name_embedding",
}
RELATIONS = ("SENT", "RESPONDS_TO", "PART_OF", "MENTIONS", "DISCUSSES", "LEARNS", "RELATES_TO")
WEIGHTS = {"SENT": "weight", "DISCUSSES": "relevance", "LEARNS": "strength"}


class Refused(Exception):
    """The database cannot be read. `code` says which action that leaves."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.line = {"kind": "error", "code": code, "message": message[:500], **more}


class Database:
    """One open database: constant questions, and which columns there are to ask for."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.too_long = 0
        tables = self.rows("CALL show_tables() RETURN name, type")
        self.nodes = [name for name, kind in tables if kind == "NODE"]
        self.relations = [name for name, kind in tables if kind == "REL"]
        self._columns: dict[str, set[str]] = {}
        for name in (*NODES, *RELATIONS):
            if name in self.nodes or name in self.relations:
                found = self.rows(f"CALL table_info('{name}') RETURN name")
                self._columns[name] = {column for (column,) in found}

    def rows(self, query: str, **params: Any) -> list[tuple[Any, ...]]:
        """All rows of an answer, which is closed."""
        answer = self._connection.execute(query, params)
        try:
            found = []
            while answer.has_next():
                found.append(tuple(map(self._bounded, answer.get_next())))
                if len(found) > ROWS_MAX:
                    raise Refused("too-large", f"a table has more than {ROWS_MAX:,} rows")
            return found
        finally:
            answer.close()

    def count(self, query: str) -> int:
        return int(self.rows(query)[0][0])

    def has(self, table: str, column: str = "") -> bool:
        return table in self._columns and (not column or column in self._columns[table])

    def value(self, variable: str, table: str, column: str, kind: str = "STRING") -> str:
        """How a column is asked for, whatever its type in this file; null where it lacks it."""
        if not self.has(table, column):
            return "NULL"
        return f"CAST({variable}.{column} AS {kind})"

    def _bounded(self, value: Any) -> Any:
        if isinstance(value, str) and len(value) > TEXT_MAX:
            self.too_long += 1
            return None
        return value


def main(arguments: Sequence[str]) -> int:
    """
    Write what a database holds to stdout.

    Args:
        arguments: its path, and an empty folder for a copy, which is removed.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # are for whoever asked, and our stdin ends then
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    path, folder = map(Path, arguments)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code may print goes elsewhere
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    try:
        opened, copied = _at_rest(path, folder)
        for line in _read(opened, read_only=not copied):
            _write(out, line)
    except Refused as refused:
        _write(out, refused.line)
        return 1
    finally:  # whoever asked removes it, too, unless they were killed
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _write(out: Any, line: dict[str, Any]) -> None:
    out.write(json.dumps(line, ensure_ascii=True).encode() + b"\n")
    out.flush()


def _end_with_parent(folder: Path) -> None:
    """Whoever asked holds our stdin open as long as they live."""
    while os.read(0, 4096):
        continue
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(3)


def _at_rest(path: Path, folder: Path) -> tuple[Path, bool]:
    """
    The path to open, and whether it is a copy.

    Kuzu replays a log in memory when it opens read-only. Only a checkpoint that was cut short has
    to be finished in the file; that is done in a copy.
    """
    _check_header(path)
    shadow = Path(str(path) + ".shadow")
    if not shadow.exists() or not shadow.stat().st_size:
        return path, False
    _check_unlocked(path)
    files = [path, *(Path(str(path) + end) for end in SIDE_FILES)]
    files = [file for file in files if file.exists()]
    needed = 2 * sum(file.stat().st_size for file in files) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Refused("disk-full", f"a copy needs {needed:,} bytes of {folder.parent},"
                      f" which has {free:,} left")  # fmt: skip
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return folder / path.name, True


def _check_header(path: Path) -> None:
    if path.is_dir():
        if (path / "catalog.kz").exists():
            raise Refused("folder-format", "a folder with catalog.kz")
        raise Refused("not-a-database", "a folder, but not one of Kuzu")
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except OSError as error:
        raise Refused("unreadable", error.strerror or "it cannot be read") from error
    magic, version = _HEADER.unpack(head.ljust(_HEADER.size, b"\0"))
    if magic == b"LBUG":
        raise Refused("ladybug", "written by LadybugDB", version=version)
    if magic != b"KUZU":
        raise Refused("not-a-database", "it does not begin as a Kuzu database does")
    if version != STORAGE_VERSION:
        raise Refused("version", f"storage version {version}", version=version)


def _read(path: Path, *, read_only: bool) -> Iterator[dict[str, Any]]:
    try:
        kuzu = importlib.import_module("kuzu")
    except ImportError as error:
        raise Refused("no-kuzu", str(error)) from error
    database = connection = None
    try:
        database = kuzu.Database(
            str(path),
            read_only=read_only,
            buffer_pool_size=BUFFER_BYTES,
            max_db_size=MAP_BYTES,
            max_num_threads=2,
        )
        connection = kuzu.Connection(database)
        yield from lines(Database(connection))
    except (RuntimeError, MemoryError) as error:
        raise _told(path, str(error)) from error
    finally:
        if connection is not None:
            connection.close()
        if database is not None:
            database.close()


def _told(path: Path, message: str) -> Refused:
    """Which of the actions that Kuzu's words leave."""
    if "Could not set lock" in message:
        return Refused("locked", "another process has it open", pid=_holder(path))
    if "different version" in message:
        return Refused("version", message)
    if "not a valid Kuzu database" in message:
        return Refused("not-a-database", message)
    if "Cannot open file" in message or "Permission denied" in message:
        return Refused("unreadable", message)
    if "buffer pool is full" in message or "Unable to allocate memory" in message:
        return Refused("memory", message)
    if message.startswith(("Binder exception", "Parser exception", "Catalog exception")):
        return Refused("not-origin", message)
    return Refused("corrupt", message)


def _check_unlocked(path: Path) -> None:
    pid = _holder(path)
    if pid is not None:
        raise Refused("locked", "another process has it open", pid=pid)


def _holder(path: Path) -> int | None:
    """The process that has the file locked against reading; None if that cannot be known."""
    if not sys.platform.startswith("linux") or struct.calcsize("P") != 8:
        return None
    import fcntl

    layout = struct.Struct("hhqqi4x")  # struct flock
    asked = layout.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    with path.open("rb") as file:
        kind, _, _, _, pid = layout.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(pid)


# -- what is in it


def lines(db: Database) -> Iterator[dict[str, Any]]:
    """Everything that a memory takes, then what it does not. The order is the importer's."""
    if not db.has("Message") and not db.has("Memory"):
        raise Refused("not-origin", f"its tables are {', '.join(sorted(db.nodes)[:20]) or 'none'}")
    counts = {name: db.count(f"MATCH (n:{name}) RETURN count(*)") for name in NODES if db.has(name)}
    yield {"kind": "database", "rows": counts, "left_out": _left_out(db)}
    for kind, table in (("topics", "Topic"), ("concepts", "Concept")):
        yield from _pages(kind, _nodes(db, table))
    yield from _pages("messages", _messages(db))
    yield from _pages("sessions", _sessions(db))
    yield from _pages("memories", _memories(db))
    yield from _pages("relations", _relations(db))
    yield {"kind": "end", "too_long": db.too_long}


def _pages(kind: str, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    page: list[dict[str, Any]] = []
    chars = 0
    for row in rows:
        size = sum(len(value) for value in row.values() if isinstance(value, str))
        if page and (len(page) == PAGE_ROWS or chars + size > PAGE_CHARS):
            yield {"kind": kind, "rows": page}
            page, chars = [], 0
        page.append(row)
        chars += size
    if page:
        yield {"kind": kind, "rows": page}


def _ids(db: Database, table: str, order: str) -> list[str]:
    """All ids of a table, by a column and then by themselves; those without it come first."""
    asked = f"{db.value('n', table, 'id')} AS id, {db.value('n', table, order)} AS at"
    found = db.rows(f"MATCH (n:{table}) RETURN {asked}")
    found.sort(key=lambda row: (row[1] or "", row[0] or ""))
    return [row[0] for row in found if row[0] is not None]


def _parts(db: Database, table: str, order: str = "id") -> Iterator[list[dict[str, Any]]]:
    """The rows of a table as mappings, in order. `UNWIND` finds each by the key's index."""
    if not db.has(table):
        return
    names = NODES[table]
    asked = ", ".join(f"{db.value('n', table, name, _kind(name))} AS {name}" for name in names)
    query = f"UNWIND $ids AS i MATCH (n:{table}) WHERE n.id = i RETURN {asked}"
    ids = _ids(db, table, order)
    for start in range(0, len(ids), PAGE_ROWS):
        part = ids[start : start + PAGE_ROWS]
        by_id = {row[0]: dict(zip(names, row)) for row in db.rows(query, ids=part)}  # noqa: B905 - strict= is of 3.10
        yield [by_id[key] for key in part if key in by_id]


def _kind(column: str) -> str:
    return "DOUBLE" if column in ("confidence", "importance") else "STRING"


def _nodes(db: Database, table: str) -> Iterator[dict[str, Any]]:
    for part in _parts(db, table):
        yield from part


def _messages(db: Database) -> Iterator[dict[str, Any]]:
    """Messages in the order of their times, each with who sent it and what it mentions."""
    confidence = db.value("r", "MENTIONS", "confidence", "DOUBLE")
    for part in _parts(db, "Message", "timestamp"):
        users = _linked(db, part, "(n:Message)<-[:SENT]-(o:User)", "SENT")
        sessions = _linked(db, part, "(n:Message)-[:PART_OF]->(o:Session)", "PART_OF")
        mentions = _linked(
            db, part, "(n:Message)-[r:MENTIONS]->(o:Concept)", "MENTIONS", confidence
        )
        for row in part:
            row["user"] = _first(users, row)
            row["session_id"] = row["session_id"] or _first(sessions, row)
            row["mentions"] = mentions.get(row["id"], [])
        yield from part


def _sessions(db: Database) -> Iterator[dict[str, Any]]:
    for part in _parts(db, "Session", "created_at"):
        topics = _linked(db, part, "(n:Session)-[:DISCUSSES]->(o:Topic)", "DISCUSSES")
        for row in part:
            row["topics"] = sorted(topic for topic, _ in topics.get(row["id"], ()))
        yield from part


def _memories(db: Database) -> Iterator[dict[str, Any]]:
    for part in _parts(db, "Memory", "created_at"):
        sessions = _linked(db, part, "(n:Memory)<-[:LEARNS]-(o:Session)", "LEARNS")
        for row in part:
            row["session"] = _first(sessions, row)
        yield from part


def _linked(
    db: Database, rows: list[dict[str, Any]], pattern: str, relation: str, weight: str = "NULL"
) -> dict[str, list[tuple[Any, ...]]]:
    """By id of a node: the ids of those it is related to, each with a weight."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    if db.has(relation):
        query = (
            f"UNWIND $ids AS i MATCH {pattern} WHERE n.id = i"
            f" RETURN n.id AS id, o.id AS other, {weight} AS weight"
        )
        for node, other, amount in db.rows(query, ids=[row["id"] for row in rows]):
            found.setdefault(node, []).append((other, amount))
    return found


def _first(linked: dict[str, list[tuple[Any, ...]]], row: dict[str, Any]) -> str | None:
    return min((other for other, _ in linked.get(row["id"], ())), default=None)


def _relations(db: Database) -> Iterator[dict[str, Any]]:
    if not db.has("RELATES_TO"):
        return
    kind = db.value("r", "RELATES_TO", "relationship_type")
    strength = db.value("r", "RELATES_TO", "strength", "DOUBLE")
    query = (
        "MATCH (a:Concept)-[r:RELATES_TO]->(b:Concept)"
        f" RETURN a.id AS source, {kind} AS relation, b.id AS target, {strength} AS strength"
    )
    names = ("source", "relation", "target", "strength")
    for row in sorted(db.rows(query), key=lambda row: tuple(map(str, row))):
        yield dict(zip(names, row))  # noqa: B905


def _left_out(db: Database) -> dict[str, int]:
    """How much there is of what a memory does not take, by reason."""
    counts = {}
    for table, column in EMBEDDINGS.items():
        if db.has(table, column):
            counts[f"embeddings of {table} (vectors are made anew, where they are wanted)"] = (
                db.count(f"MATCH (n:{table}) WHERE n.{column} IS NOT NULL RETURN count(*)")
            )
    for relation, column in WEIGHTS.items():
        if db.has(relation, column):
            query = f"MATCH ()-[r:{relation}]->() WHERE r.{column} <> 1.0 RETURN count(*)"
            counts[f"`{column}` of {relation} that is not 1"] = db.count(query)
    if db.has("User", "name"):
        query = "MATCH (u:User) WHERE u.name <> u.id AND u.name <> '' RETURN count(*)"
        counts["names of users that are not their ids"] = db.count(query)
    if db.has("User", "email"):
        query = "MATCH (u:User) WHERE u.email <> '' RETURN count(*)"
        counts["e-mail addresses of users"] = db.count(query)
    for name in db.nodes:
        if name not in NODES:
            query = f"MATCH (n:`{name}`) RETURN count(*)"
            counts[f"nodes of the table {name[:80]}, which is not the origin's"] = db.count(query)
    for name in db.relations:
        if name not in RELATIONS:
            query = f"MATCH ()-[r:`{name}`]->() RETURN count(*)"
            counts[f"relations {name[:80]}, which are not the origin's"] = db.count(query)
    return {reason: count for reason, count in counts.items() if count}


if __name__ == "__main__":
    # Beside this file lie modules of ours, which must not be taken for somebody else's.
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != here]
    sys.exit(main(sys.argv[1:]))
