"""
Expelling: rows that are not what was written leave the ledger, in which all else is whole.

While such a row stands there, whoever comes upon it gets an error: a list of all messages, an
export, the graph. So it is taken out when a repair is asked for, after its columns, whatever they
are now, were brought to the disk in a folder of their own. Sessions and users stay, since messages
hang on them: their names stand in an index once more, and when they began is told by what they
have. A restore brings back of messages what a backup has, and notes it there: what is deleted
afterwards was not taken out.
"""

import base64
import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from elytron.archive import read_all
from elytron.ledger import files, ops, rows, swapping
from elytron.ledger.carried import TABLES
from elytron.ledger.database import Database
from elytron.upkeep.desk import Desk

_log = logging.getLogger("elytron.upkeep")
FILE = "rows.jsonl"
_RETURNED = "returned.json"  # beside it: the keys of what came back from a backup
_NONE = (FileNotFoundError, NotADirectoryError)
_EVIDENCE_MAX_BYTES = 256 << 20  # of one repair
_COLUMNS = {**rows.CHECKSUMMED, "messages": rows.STORED}
_NAMES = {"sessions": "session", "users": "user"}


class Expelling:
    """One repair of one agent's rows. Use once; `close` it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._file: IO[str] | None = None
        self._left_bytes = _EVIDENCE_MAX_BYTES
        self.path = desk.ledger.folder / f"{swapping.ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"

    def take_out(self, table: str, keys: Sequence[int]) -> int:
        """
        Move rows out; returns how many of them, from the first on.

        Raises:
            DiskFull, Unavailable: as they say; no row left that is not kept.
        """
        kept = self._keep(table, keys)
        for key in keys[:kept]:
            while self._desk.commit(ops.Expel(table, _COLUMNS[table], key)):
                pass
        return kept

    def name(self, table: str, key: int) -> str:
        """Write the row of a session or user anew; returns its name."""
        self._keep(table, [key])
        what = _NAMES[table]
        times = f"SELECT arrived_us FROM messages WHERE {what} = ?"
        found = self._desk.read(lambda db: rows.fetch(db, times, (key,)))
        begun = min([at for (at,) in found if type(at) is int], default=0)
        name = f"lost-{what}-{key}"
        if table == "sessions" and self._desk.archive.exists():
            name = self._archived_name(key) or name
        if self._desk.read(lambda db: _has(db, table, name, key)):
            name = f"lost-{what}-{key}"
        named: str = self._desk.commit(ops.PutName(table, _COLUMNS[table], key, name, begun))
        return named

    def _archived_name(self, key: int) -> str | None:
        found = read_all(self._desk.archive, on_damage=lambda error: _log.warning("%s", error))
        return next((one.message.session for one in found if one.session_key == key), None)

    def _keep(self, table: str, keys: Sequence[int]) -> int:
        """Write rows durably, as many as there is room for; how many."""
        kept = 0
        with files.translate_os_errors(self.path):
            for key in keys:
                for line in self._lines(table, key):
                    self._left_bytes -= len(line)
                    if self._left_bytes < 0:
                        self._sync()
                        return kept
                    self._opened().write(line)
                kept += 1
            self._sync()
        return kept

    def _lines(self, table: str, key: int) -> Iterator[str]:
        """The row, and the facts about a concept, as lines of JSON."""
        wanted = [(table, "key = ?1")]
        if table == "concepts":
            wanted.append(("relations", "source = ?1 OR target = ?1"))
        if table == "messages":
            wanted.append(("marks", "key = ?1"))
        for name, where in wanted:
            query = partial(_rows, table=name, where=where, key=key)
            for row in self._desk.read(query):
                yield json.dumps({"table": name, "row": row}) + "\n"

    def _opened(self) -> IO[str]:
        if self._file is None:
            self.path.mkdir()
            files.sync_folder(self.path.parent)
            self._file = (self.path / FILE).open("x", encoding="utf-8")
        return self._file

    def _sync(self) -> None:
        if self._file is not None:
            self._file.flush()
            files.sync_file(self._file.fileno())
            files.sync_folder(self.path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _rows(db: Database, table: str, where: str, key: int) -> list[dict[str, Any]]:
    spec = TABLES[table]
    found = rows.fetch(db, f"SELECT {spec.listed} FROM {table} WHERE {where}", (key,))
    return [dict(zip(spec.columns, map(_plain, row), strict=True)) for row in found]


def _plain(value: Any) -> Any:
    """A value as JSON has it; bytes as {"base64": text}."""
    return {"base64": base64.b64encode(value).decode()} if type(value) is bytes else value


def _has(db: Database, table: str, name: str, key: int) -> bool:
    sql = f"SELECT 1 FROM {table} WHERE id = ? AND key <> ?"
    return db.execute(sql, (name, key)).get is not None


def expelled(folder: Path) -> set[int]:
    """The keys of messages that repairs took out of an agent's ledger, and that are not back."""
    keys = set[int]()
    for aside in swapping.aside_folders(folder):
        keys |= _keys_in(aside / FILE)
        keys -= _returned_in(aside / _RETURNED)
    return keys


def note_returned(folder: Path, keys: Iterable[int]) -> None:
    """Note, durably, what of all that was taken out is back: if it goes again, that is meant."""
    back = expelled(folder).intersection(keys)
    if not back:
        return
    for aside in swapping.aside_folders(folder):  # in each: the others may be removed
        here, path = _keys_in(aside / FILE) & back, aside / _RETURNED
        if here:
            with files.translate_os_errors(path):
                files.write_json(path, {"keys": sorted(_returned_in(path) | here)})


def _keys_in(path: Path) -> set[int]:
    keys = set[int]()
    with (
        files.translate_os_errors(path),
        contextlib.suppress(*_NONE),
        path.open(encoding="utf-8", errors="replace") as file,
    ):
        for line in file:
            match _parsed(line, path):
                case {"table": "messages", "row": {"key": int(key)}}:
                    keys.add(key)
    return keys


def _returned_in(path: Path) -> set[int]:
    with files.translate_os_errors(path), contextlib.suppress(*_NONE):
        match _parsed(path.read_text(encoding="utf-8", errors="replace"), path):
            case {"keys": list(keys)}:
                return {key for key in keys if type(key) is int}
    return set()


def _parsed(text: str, path: Path) -> object:
    try:
        return json.loads(text)
    except ValueError as error:  # cut short by a crash, or by hand
        _log.warning("%s: %s", path, error)
        return None
