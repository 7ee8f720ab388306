"""
Opening: a file to import, as JSON or as a database, by how it begins.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from elytron.importers.source import DATABASE, Source, open_regular
from elytron.importers.tables import Tables, open_tables


@contextlib.contextmanager
def open_file(
    path: str | os.PathLike[str], *, store: Path | None = None
) -> Iterator[Source | Tables]:
    """
    Open a file for importing: a database of SQLite as `Tables`, anything else as a `Source`.

    Args and errors as `open_source` and `open_tables` have them.
    """
    path = Path(path)
    with open_regular(path, store) as file:
        if file.read(len(DATABASE)) != DATABASE:
            file.seek(0)
            yield Source(path, file)
            return
    # Closed by now: to close it later would drop the locks that SQLite holds on it.
    with open_tables(path) as tables:
        yield tables
