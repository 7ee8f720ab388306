"""
Damage: which file of a closed store, and what a failing disk does to it.

Each way of damaging takes bytes and gives bytes; None for a file that is gone.
"""

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import apsw

from elytron.ledger import files

PAGE = 4096
SECTOR = 512
_WAL_HEADER, _FRAME_HEADER = 32, 24
Way = Callable[[random.Random, bytearray, range, bytes], bytearray | None]


def flip(dice: random.Random, data: bytearray, at: range, _other: bytes) -> bytearray:
    data[dice.choice(at)] ^= 1 << dice.randrange(8)
    return data


def flip_ten(dice: random.Random, data: bytearray, at: range, other: bytes) -> bytearray:
    for _ in range(10):
        flip(dice, data, at, other)
    return data


def zero_page(dice: random.Random, data: bytearray, at: range, _other: bytes) -> bytearray:
    return _put(data, dice.choice(at) // PAGE * PAGE, bytes(PAGE))


def zero_sector(dice: random.Random, data: bytearray, at: range, _other: bytes) -> bytearray:
    return _put(data, dice.choice(at) // SECTOR * SECTOR, bytes(SECTOR))


def foreign_sector(dice: random.Random, data: bytearray, at: range, other: bytes) -> bytearray:
    start = dice.randrange(0, max(1, len(other) - SECTOR), SECTOR) if other else 0
    piece = other[start : start + SECTOR] or b"?" * SECTOR
    return _put(data, dice.choice(at) // SECTOR * SECTOR, piece)


def swapped_sectors(dice: random.Random, data: bytearray, at: range, _other: bytes) -> bytearray:
    one = dice.choice(at) // SECTOR * SECTOR
    two = dice.randrange(len(data)) // SECTOR * SECTOR
    first, second = bytes(data[one : one + SECTOR]), bytes(data[two : two + SECTOR])
    size = min(len(first), len(second))
    return _put(_put(data, one, second[:size]), two, first[:size])


def torn_end(dice: random.Random, data: bytearray, _at: range, _other: bytes) -> bytearray:
    return data[: dice.randrange(len(data))]


def garbage_appended(dice: random.Random, data: bytearray, _at: range, _other: bytes) -> bytearray:
    return data + dice.randbytes(dice.choice((1, 100, SECTOR, PAGE, 3 * PAGE + 7)))


def emptied(_dice: random.Random, _data: bytearray, _at: range, _other: bytes) -> bytearray:
    return bytearray()


def missing(_dice: random.Random, _data: bytearray, _at: range, _other: bytes) -> None:
    return None


def _put(data: bytearray, start: int, piece: bytes) -> bytearray:
    """Over what is there; the file gets no longer."""
    piece = piece[: len(data) - start]
    data[start : start + len(piece)] = piece
    return data


IN_PLACE: tuple[Way, ...] = (
    flip, flip_ten, zero_page, zero_sector, foreign_sector, swapped_sectors,
)  # fmt: skip
WHOLE: tuple[Way, ...] = (torn_end, garbage_appended, emptied, missing)


class Target(NamedTuple):
    """A kind of file, or a part of the ledger: its path in the store, and which bytes are meant."""

    kind: str
    path: str
    places: tuple[range, ...]  # empty: anywhere
    ways: tuple[Way, ...]


# Which part of the ledger the pages of a table belong to.
_PARTS = {"messages": "messages", "words": "words", "sqlite_schema": "header"}


def targets(store: Path, agent: str) -> list[Target]:
    """All that can be damaged in a closed store."""
    folder = files.agent_folder(store, agent)
    ledger = folder / files.LEDGER
    parts: dict[str, list[range]] = {"header": [range(PAGE)]}
    for part, page in _pages(ledger):
        parts.setdefault(part, []).append(range((page - 1) * PAGE, page * PAGE))
    place = str(ledger.relative_to(store))
    found = [Target(f"ledger: {part}", place, tuple(at), IN_PLACE) for part, at in parts.items()]
    found.append(Target("ledger", place, (), WHOLE))
    for path in sorted(store.rglob("*")):
        kind = _kind(path.relative_to(store))
        if path.is_file() and kind is not None and folder_of(path, folder):
            found.append(Target(kind, str(path.relative_to(store)), (), (*IN_PLACE, *WHOLE)))
    return found


def folder_of(path: Path, folder: Path) -> bool:
    """Whether a file is this agent's, or the whole store's."""
    return folder in path.parents or "agents" not in path.parts


def _kind(path: Path) -> str | None:
    name = path.name
    if "graph" in path.parts[:-1] and name not in ("lock", "wanted"):
        return (
            "graph"
            if "." in name and not name.endswith((".wal", ".json"))
            else "graph's side files"
        )
    if name.startswith("segment-"):
        return "archive segment"
    return {
        f"{files.LEDGER}-wal": "log",
        f"{files.LEDGER}-shm": "shared memory",
        files.MARKER: "marker",
        "elytron.json": "store's marker",
        "manifest.json": "archive manifest",
        "budget.db": "budget",
        "reserve": "reserve",
    }.get(name)


def _pages(ledger: Path) -> Iterator[tuple[str, int]]:
    """(part, page) of a closed ledger."""
    db = apsw.Connection(str(ledger), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        indexes = {
            name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type='index'")
        }
        without = {
            name
            for (name,) in db.execute(
                "SELECT name FROM sqlite_schema WHERE sql LIKE '%WITHOUT ROWID%'"
            )
        }
        on_disk = ledger.stat().st_size // PAGE
        for name, page in db.execute("SELECT name, pageno FROM dbstat ORDER BY pageno"):
            if page <= on_disk:
                rows = "rows" if name not in without else "other rows"
                yield (
                    _PARTS.get(name.partition("_")[0], "indexes" if name in indexes else rows),
                    page,
                )
    finally:
        db.close()


class Log(NamedTuple):
    """Frames of a log: where each begins, and which end a commit."""

    size: int
    commits: tuple[int, ...]  # offsets behind the frames that end one


def log_of(data: bytes) -> Log:
    salts = data[16:24]
    commits = []
    step = _FRAME_HEADER + PAGE
    for start in range(_WAL_HEADER, len(data) - step + 1, step):
        _, pages = struct.unpack(">II", data[start : start + 8])
        if data[start + 8 : start + 16] != salts:
            break
        if pages:
            commits.append(start + step)
    return Log(len(data), tuple(commits))


def whole_behind(before: bytes, after: bytes) -> int:
    """How many commits stand whole behind the first byte of a log that is not as it was."""
    same = next(
        (at for at, (one, two) in enumerate(zip(before, after, strict=False)) if one != two),
        min(len(before), len(after)),
    )
    step = _FRAME_HEADER + PAGE
    behind = 0
    for end in log_of(before).commits:
        start = end - step
        if start >= same and end <= len(after) and after[start:end] == before[start:end]:
            behind += 1
    return behind
