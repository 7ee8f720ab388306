"""
Exporting: messages on their way into a file or a stream, in either format.

A file is written beside the one that it replaces, and takes its place once it is whole and on the
disk. Only what a rename would destroy is written into as it stands: a pipe, a terminal, a device.
"""

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from elytron.errors import InvalidArgument
from elytron.ledger.files import check_outside, sync_file, sync_folder, translate_os_errors
from elytron.lines import write_lines
from elytron.parquet import write_parquet
from elytron.records import Message

_NAME_KEPT = 40  # characters of a file's name in that of its part, so that any name has room
_UNSYNCED = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)  # a folder that cannot be synced at all


def write_messages(
    messages: Iterable[Message],
    target: str | Path | IO[str],
    *,
    format: str | None,
    on_progress: Callable[[int], None] | None,
    outside: Path | None = None,
) -> int:
    """`Agent.export` of these messages; a path has to lie *outside* of the store."""
    stream = not isinstance(target, str | Path)
    if stream and not callable(getattr(target, "write", None)):
        raise InvalidArgument(
            f"target must be a path or a text stream, not a {type(target).__name__}"
        )
    parquet = format == "parquet"
    if format is None:
        parquet = not stream and str(target).endswith(".parquet")
    if format not in (None, "jsonl", "parquet") or (stream and parquet):
        raise InvalidArgument(
            f"format must be `jsonl`, or for a path `parquet`; got {format!r:.50}"
        )
    if not isinstance(target, str | Path):
        return write_lines(messages, target, on_progress=on_progress)
    path = Path(target)
    if outside is not None:
        check_outside(path, outside)
    with translate_os_errors(path):
        found = _found(path)
        if found is None or stat.S_ISREG(found.st_mode):
            with _replaced(path, found, binary=parquet) as file:
                if parquet:
                    return write_parquet(messages, file, on_progress=on_progress)
                return write_lines(messages, file, on_progress=on_progress)
        if parquet:
            raise InvalidArgument(
                f"{path} is no regular file, and Parquet is written to one only; choose another"
                " path, or export JSON Lines (`jsonl`)"
            )
        with path.open("w", encoding="utf-8") as into:
            return write_lines(messages, into, on_progress=on_progress)


def _found(path: Path) -> os.stat_result | None:
    """What *path* leads to, through any links; None if there is nothing yet."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _replaced(path: Path, found: os.stat_result | None, *, binary: bool) -> Iterator[IO[Any]]:
    """
    A file to write to, which takes the place of what *path* leads to once the block ends well.

    Links stay, and so does the mode of the file that is replaced. It has a name of its own while
    it is written: two exports to one path do not meet.
    """
    # Not *path* itself: to rename over a link would put a file where the link is.
    place = Path(os.path.realpath(path))
    part = place.with_name(f"{place.name[:_NAME_KEPT]}.{secrets.token_hex(8)}.part")
    opener = partial(os.open, mode=0o666 if found is None else 0o600)
    file: IO[Any] = open(  # noqa: SIM115 - closed below, before it is renamed
        part, "xb" if binary else "x", encoding=None if binary else "utf-8", opener=opener
    )
    try:
        with file:
            if found is not None:
                _make_like(file.fileno(), found)
            yield file
            file.flush()
            sync_file(file.fileno())
        part.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):  # the error that brought us here is the one to tell
            part.unlink()
        raise
    try:
        sync_folder(place.parent)
    except OSError as error:  # one that may not be listed, or is on a file system without that
        if error.errno not in _UNSYNCED:
            raise


def _make_like(descriptor: int, found: os.stat_result) -> None:
    """Let a file be read by those who could read the one that it replaces, and by nobody else."""
    if sys.platform == "win32":  # rights are those of the folder there
        return
    with contextlib.suppress(OSError):  # a group that we are not in
        os.fchown(descriptor, -1, found.st_gid)
    with contextlib.suppress(OSError):  # only root gives files away
        os.fchown(descriptor, found.st_uid, -1)
    same_group = os.fstat(descriptor).st_gid == found.st_gid
    os.fchmod(descriptor, found.st_mode & (0o777 if same_group else 0o707))
