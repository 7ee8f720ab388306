"""Rows: the checksum of a row, and messages as they go in and come out."""

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from elytron.errors import Corrupt
from elytron.ledger.database import Database
from elytron.records import DECLINED, DEFAULT_IMPORTANCE, Message
from elytron.text import HASH_BYTES

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_zones: dict[int, timezone] = {0: UTC}  # at most one for each minute from -1439 to 1439

# In the order of the checksum; session and user are keys here.
STORED = (
    "m.key, m.id, m.session, m.position, m.user, m.responds_to, m.role, m.at_us,"
    " m.offset_min, m.arrived_us, m.embedding, m.metadata, m.content, m.checksum"
)
# Of other tables, with it: the columns of a row's checksum, which is the last of them.
CHECKSUMMED = {
    "memories": (
        "key, id, content, kind, importance, pinned, session, valid_from_us, valid_to_us,"
        " created_us, metadata, checksum"
    ),
    "concepts": "key, name, folded, type, description, confidence, origin, created_us, checksum",
    "relations": (
        "key, source, relation, target, strength, valid_from_us, valid_to_us, learned_from,"
        " checksum"
    ),
    "users": "key, id, folded, created_us, checksum",
    "sessions": "key, id, created_us, checksum",
    "marks": "key, importance, pinned, checksum",
}
SELECT_MESSAGES = (
    f"SELECT {STORED}, k.importance, k.pinned, k.checksum"
    " FROM messages m LEFT JOIN marks k ON k.key = m.key"
)
MESSAGE_COLUMNS = "i" * 17  # as `bundles.fetch` has to know them
_JOINED = ["\x1f".join(["%s"] * count) for count in range(20)]  # twice as fast as `str.join`
SESSION, USER = 2, 4  # places in a row of `STORED`
_ROLE, _AT_US, _OFFSET_MIN = 6, 7, 8
_EMBEDDING, _CONTENT, _CHECKSUM = 10, 12, 13
_IMPORTANCE, _PINNED, _MARK_CHECKSUM = 14, 15, 16


def fetch(db: Database, sql: str, values: Sequence[Any] = ()) -> list[Any]:
    """All rows of a query, as tuples. The statement is at its end, so no snapshot stays open."""
    return db.execute(sql, values).fetchall()


def to_tokens(terms: bytes) -> str:
    """Hashed terms as the words of the full-text index: hexadecimal, separated by spaces."""
    return terms.hex(" ", HASH_BYTES)


def checksum(values: tuple[Any, ...]) -> int:
    """
    CRC-32 of a row's values.

    SQLite notices neither a flipped bit in a text page nor one in the WAL; this does. `str`
    and not `repr`, whose escapes change with Python's Unicode tables.
    """
    return zlib.crc32((_JOINED[len(values)] % values).encode())


def to_datetime(at_us: int, offset_min: int = 0) -> datetime:
    """Microseconds since 1970 as an aware time at the given UTC offset."""
    at = _EPOCH + timedelta(microseconds=at_us)
    if offset_min == 0:
        return at
    zone = _zones.get(offset_min)
    if zone is None:
        zone = _zones[offset_min] = timezone(timedelta(minutes=offset_min))
    return at.astimezone(zone)


def to_us(at: datetime) -> int:
    """An aware time as whole microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def verify(row: tuple[Any, ...], source: object) -> None:
    """
    Check a row that starts with `STORED`.

    Raises:
        Corrupt: the row is not what was written. Its text may be wrong, so it is not shown.
    """
    if checksum(row[:_CHECKSUM]) != row[_CHECKSUM]:
        raise Corrupt(
            f"{source}: message row {row[0]} is damaged (its checksum does not match);"
            " the file was left as it is: run `elytron check --repair`"
        )


def check_there(found: Collection[int], keys: Collection[int], kind: str, source: object) -> None:
    """
    Raises:
        Corrupt: an index has keys that the table has not. Where damage has put pages into each
            other's place, each of them is whole.
    """
    missing = [key for key in keys if key not in found]
    if missing:
        raise Corrupt(
            f"{source}: {kind} row {missing[0]}, one of {len(missing)}, is in an index and cannot"
            " be found; the file was left as it is: run `elytron check --repair`"
        )


def verify_mark(row: tuple[Any, ...], source: object) -> None:
    """
    Check the mark that a row of `SELECT_MESSAGES` ends with, if it has one.

    Raises:
        Corrupt: the mark is not what was written.
    """
    mark = (row[0], row[_IMPORTANCE], row[_PINNED])
    if row[_MARK_CHECKSUM] is not None and checksum(mark) != row[_MARK_CHECKSUM]:
        raise Corrupt(
            f"{source}: the mark of message row {row[0]} is damaged (its checksum does not"
            " match); the file was left as it is: run `elytron check --repair`"
        )


def to_message(
    row: tuple[Any, ...], sessions: Mapping[int, str], users: Mapping[int, str]
) -> Message:
    """
    A row of `SELECT_MESSAGES`, which `verify` and `verify_mark` have let pass, as a `Message`.

    Args:
        sessions, users: the ids of the keys that the row names.
    """
    return Message(
        row[1],
        row[_ROLE],
        row[_CONTENT],
        to_datetime(row[_AT_US], row[_OFFSET_MIN]),
        sessions[row[SESSION]],
        None if row[USER] is None else users[row[USER]],
        json.loads(row[11]) if row[11] else {},
        row[3],
        DEFAULT_IMPORTANCE if row[_IMPORTANCE] is None else row[_IMPORTANCE],
        bool(row[_PINNED]),
        False if row[_EMBEDDING] == DECLINED else None,
    )


class Held:
    """
    A message as its row has it: what ranking looks at, and `message` to make it a whole one, which
    few of those that are looked at become.
    """

    __slots__ = ("_row", "_sessions", "_users", "content", "importance", "pinned", "speaker")

    def __init__(
        self, row: tuple[Any, ...], sessions: Mapping[int, str], users: Mapping[int, str]
    ) -> None:
        """Arguments as of `to_message`."""
        self._row, self._sessions, self._users = row, sessions, users
        self.content: str = row[_CONTENT]
        user, importance = row[USER], row[_IMPORTANCE]
        self.speaker: str = row[_ROLE] if user is None else users[user]
        self.importance: float = DEFAULT_IMPORTANCE if importance is None else importance
        self.pinned = bool(row[_PINNED])

    @property
    def at(self) -> datetime:
        return to_datetime(self._row[_AT_US], self._row[_OFFSET_MIN])

    def message(self) -> Message:
        return to_message(self._row, self._sessions, self._users)


def varints(block: bytes) -> list[int]:
    """SQLite's variable-length integers: 7 bits a byte, high bit set while more follow."""
    numbers, value = [], 0
    for byte in block:
        value = value << 7 | (byte & 0x7F)
        if byte < 0x80:
            numbers.append(value)
            value = 0
    return numbers
