"""
Wire: what the client and the worker say to each other, as bytes.

A frame is its length in four bytes and then MessagePack; a frame over the limit is refused before
it is read. Times travel as microseconds since 1970 in UTC: the engines know no zones, so they are
naive in the worker and aware everywhere else. What each call means is decided elsewhere.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgpack

from elytron.errors import InvalidArgument

_LENGTH = struct.Struct(">I")
_FRAME_MIN_MAX_BYTES = 64 << 20  # a batch of the projection is some 4 MB
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - what the engines take is naive UTC
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME, _DATE, _SPAN, _DECIMAL, _UUID, _INT = range(6)
# Kuzu says `_id` where LadybugDB says `_ID`; one spelling for both.
_KEYS = {
    key.lower(): key
    for key in ("_ID", "_LABEL", "_SRC", "_DST", "_NODES", "_RELS")
}  # fmt: skip


class Statement(NamedTuple):
    """One Cypher statement: a constant text, and everything variable in its parameters."""

    text: str
    params: Mapping[str, Any] = {}


class Rows(NamedTuple):
    """What a question gave: plain Python values, times aware in UTC."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class GraphState(NamedTuple):
    """What the worker says of a graph after each call."""

    position: int | None  # last applied change of the ledger; None: there is no graph
    identity: str | None  # of ledger and projection version, as given to `begin`
    live: int  # rows, nodes and relations, as added and removed
    dead: int
    checkpoints: int  # since it was built
    bytes: int  # of all files of the graph
    set_aside: str | None  # why the last file was set aside as damaged, during this call


class Behind(Exception):
    """The graph is not where the caller needs it. Not an `ElytronError`: the projection acts."""

    def __init__(self, state: GraphState) -> None:
        super().__init__(state)
        self.state = state


class Request(NamedTuple):
    number: int
    verb: str
    folder: str
    timeout_s: float  # of the whole call
    again: bool  # the worker before this one died over it
    arguments: dict[str, Any]


class Answer(NamedTuple):
    number: int  # of the request; 0: about the worker itself
    kind: str  # "value", "behind", or the code of an error; for number 0 "hello" or "last-words"
    value: Any
    open_graphs: int
    retire: bool  # the worker has grown, and wants to be replaced


class FrameTooLarge(Exception):
    """A frame is over the limit; the stream cannot be read on."""


def frame_max_bytes(result_max_bytes: int) -> int:
    """The limit of one frame where results may have *result_max_bytes*."""
    return max(_FRAME_MIN_MAX_BYTES, 2 * result_max_bytes)


def frame(data: bytes, limit_bytes: int) -> bytes:
    """
    *data* with its length before it.

    Raises:
        FrameTooLarge: it is over the limit.
    """
    if len(data) > limit_bytes:
        raise FrameTooLarge(f"{len(data):,} bytes, over {limit_bytes:,}")
    return _LENGTH.pack(len(data)) + data


def read_frame(read: Callable[[int], bytes | None], limit_bytes: int) -> bytes | None:
    """
    The next frame; None at the end of the stream, also where it ends within a frame.

    Raises:
        FrameTooLarge: as the length claims.
    """
    head = read(_LENGTH.size)
    if not head or len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    if size > limit_bytes:
        raise FrameTooLarge(f"{size:,} bytes, over {limit_bytes:,}")
    data = read(size)
    return data if data is not None and len(data) == size else None


def pack_request(request: Request) -> bytes:
    """
    A request as bytes.

    Raises:
        InvalidArgument: a parameter has a type or a value that no graph takes.
    """
    try:
        return _pack(tuple(request), _extended)
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"a parameter has a lone surrogate at {error.start}; remove it"
        ) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"a parameter cannot be passed to the graph: {error!s:.200}"
        ) from error


def unpack_request(data: bytes) -> Request:
    return Request(*_unpack(data, _naive))


def pack_answer(answer: Answer) -> bytes:
    return _pack(tuple(answer), _plain)


def unpack_answer(data: bytes) -> Answer:
    return Answer(*_unpack(data, _aware))


class RowsPacker:
    """A result on its way out of the worker, its bytes counted as it grows."""

    def __init__(self, columns: Sequence[str], *, rename: bool) -> None:
        self._columns = list(columns)
        self._rename = rename
        self._packed = bytearray()

    def add(self, row: Sequence[Any]) -> int:
        """Add a row; how many bytes all of them have now."""
        values = [_renamed(value) for value in row] if self._rename else list(row)
        self._packed += _pack(values, _plain)
        return len(self._packed)

    def value(self) -> tuple[list[str], bytes]:
        """What `rows_of` makes rows of, on the other side."""
        return self._columns, bytes(self._packed)


def rows_of(value: Any) -> Rows:
    columns, packed = value
    unpacker = msgpack.Unpacker(
        ext_hook=_aware, strict_map_key=False, max_buffer_size=max(1, len(packed))
    )
    unpacker.feed(packed)
    return Rows(tuple(columns), [tuple(row) for row in unpacker])


def statements_of(value: Any) -> Iterator[Statement]:
    return (Statement(text, params) for text, params in value)


def pack_values(value: Any) -> bytes:
    """
    Values of a graph as bytes, for whoever asks from elsewhere; `unpack_values` gives them back.

    Raises:
        InvalidArgument: as `pack_request`.
    """
    try:
        return _pack(value, _extended)
    except (TypeError, ValueError, OverflowError) as error:  # a UnicodeError is a ValueError
        raise InvalidArgument(f"a value cannot be sent: {error!s:.200}") from error


def unpack_values(data: bytes) -> Any:
    """
    What `pack_values` packed, of a stranger perhaps; times are aware.

    Raises:
        InvalidArgument: it is something else.
    """
    try:
        return _unpack(data, _aware)
    except (
        ValueError,
        TypeError,  # a list as the name of a member
        ArithmeticError,
        RecursionError,
        msgpack.UnpackException,
    ) as error:
        raise InvalidArgument("these bytes are not MessagePack as it is packed here") from error


def _pack(value: Any, default: Callable[[Any], Any]) -> bytes:
    packed: bytes = msgpack.packb(value, default=default)
    return packed


def _unpack(data: bytes, hook: Callable[[int, bytes], Any]) -> Any:
    return msgpack.unpackb(data, ext_hook=hook, strict_map_key=False)


def _extended(value: Any) -> Any:
    """What MessagePack has no type for, on its way to the worker."""
    match value:
        case datetime():
            return msgpack.ExtType(_TIME, _microseconds(value))
        case date():
            return msgpack.ExtType(_DATE, value.isoformat().encode())
        case timedelta():
            return msgpack.ExtType(_SPAN, str(value // _MICROSECOND).encode())
        case Decimal():
            return msgpack.ExtType(_DECIMAL, str(value).encode())
        case UUID():
            return msgpack.ExtType(_UUID, value.bytes)
        case int():  # beyond 64 bits
            return msgpack.ExtType(_INT, str(value).encode())
        case Mapping():
            return dict(value)
        case set() | frozenset() | range():
            return list(value)
    raise TypeError(f"a {type(value).__name__} is no value of a graph")


def _plain(value: Any) -> Any:
    """The same on its way back: what a reader would have to take apart becomes plain."""
    match value:
        case UUID():
            return str(value)
        case Decimal():  # sums of whole numbers come as such, too
            return int(value) if value == value.to_integral_value() else str(value)
    return _extended(value)


def _microseconds(time: datetime) -> bytes:
    since = time - (_NAIVE_EPOCH if time.tzinfo is None else _EPOCH)
    return str(since // _MICROSECOND).encode()


def _aware(code: int, data: bytes) -> Any:
    if code == _TIME:
        return _EPOCH + timedelta(microseconds=int(data))
    return _naive(code, data)


def _naive(code: int, data: bytes) -> Any:
    match code:
        case 0:
            return _NAIVE_EPOCH + timedelta(microseconds=int(data))
        case 1:
            return date.fromisoformat(data.decode())
        case 2:
            return timedelta(microseconds=int(data))
        case 3:
            return Decimal(data.decode())
        case 4:
            return UUID(bytes=data)
        case 5:
            return int(data)
    raise ValueError(f"unknown extension {code}")


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            _KEYS.get(key, key) if isinstance(key, str) else key: _renamed(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_renamed(inner) for inner in value]
    return value
