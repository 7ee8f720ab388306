"""
Parquet: messages as a table of columns, for those who analyse them elsewhere.

Needs `pyarrow`, which the extra `parquet` brings; it is imported on use.
"""

import json
from collections.abc import Callable, Iterable
from itertools import islice
from typing import IO

from elytron.errors import InvalidArgument
from elytron.records import Message

_ROWS_AT_ONCE = 5000


def write_parquet(
    messages: Iterable[Message],
    file: IO[bytes],
    *,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """
    Write messages to a file, which stays open; returns how many.

    Columns: id, role, session, user, at (UTC, microseconds), offset_min, position, importance,
    pinned, metadata (JSON), content. Compressed with zstd.

    Raises:
        InvalidArgument: `pyarrow` is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InvalidArgument(
            "writing Parquet needs pyarrow; run: pip install 'elytron[parquet]'"
        ) from error
    text = pa.string()
    schema = pa.schema(
        [
            ("id", text),
            ("role", text),
            ("session", text),
            ("user", text),
            ("at", pa.timestamp("us", tz="UTC")),
            ("offset_min", pa.int16()),
            ("position", pa.int64()),
            ("importance", pa.float64()),
            ("pinned", pa.bool_()),
            ("metadata", text),
            ("content", text),
        ]
    )
    count = 0
    rest = iter(messages)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while part := list(islice(rest, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist([_row(one) for one in part], schema))
            count += len(part)
            if on_progress is not None:
                on_progress(count)
    return count


def _row(message: Message) -> dict[str, object]:
    offset = message.at.utcoffset()
    return {
        "id": message.id,
        "role": message.role,
        "session": message.session,
        "user": message.user,
        "at": message.at,
        "offset_min": 0 if offset is None else int(offset.total_seconds() / 60),
        "position": message.position,
        "importance": message.importance,
        "pinned": message.pinned,
        "metadata": json.dumps(dict(message.metadata), ensure_ascii=False),
        "content": message.content,
    }
