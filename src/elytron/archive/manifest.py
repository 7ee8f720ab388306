"""
The manifest: which segments count. Its rename into place is the commit of every change.

One JSON object in `manifest.json`, whose first member is the checksum of every byte after it. It
is replaced whole, never written over. Its mark stays the same through all changes: where it is
another, what was listed before may be in the archive no more, and nobody can say why.
"""

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from elytron.archive.durable import PART, PartFile
from elytron.archive.entries import Entry, Manifest
from elytron.archive.segments import CHECKSUM_BYTES, SEGMENT_NAME
from elytron.errors import Conflict, OutcomeUnknown, Unavailable
from elytron.ledger.files import sync_folder, translate_os_errors

FILE = "manifest.json"
_FORMAT = 1
_FILE_MAX_BYTES = 64 << 20  # some 250,000 segments
# BEGUN with nothing, or made again of what was there; or FOUND without one, as versions before
# left it, and given one by the next change.
BEGUN, FOUND = "begun", "found"


def read(path: Path) -> Manifest | None:
    """
    The manifest in a file; None if there is none, or it is damaged.

    Raises:
        Unavailable: it cannot be read, or is of a newer version.
    """
    with translate_os_errors(path):
        try:
            with path.open("rb") as file:
                data = file.read(min(os.fstat(file.fileno()).st_size, _FILE_MAX_BYTES) + 1)
        except FileNotFoundError:
            return None
    return None if len(data) > _FILE_MAX_BYTES else parse(data, path)


def write(path: Path, manifest: Manifest) -> None:
    """
    Replace the manifest in a file, durably.

    Raises:
        DiskFull, Unavailable: the one before is still there.
        OutcomeUnknown: either may be there after a power cut.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}{PART}")
    with translate_os_errors(path):
        file = PartFile(path, part=part)
        try:
            file.write(serialised(manifest))
            file.take_place()
        except BaseException:
            file.abandon()
            raise
    try:
        sync_folder(path.parent)
    except OSError as error:
        raise OutcomeUnknown(
            f"{path} was replaced, but the disk failed before that was durable"
            f" ({error.strerror}); no message was removed: repeat it"
        ) from error


def parse(data: bytes, path: Path) -> Manifest | None:
    """What the bytes of a manifest say; None if a single one is not as it was written."""
    body = data[len(_head(b"")) :]
    if not data.startswith(_head(body)):
        return None
    try:
        value = json.loads(data)
        if value["format"] != _FORMAT:
            raise Unavailable(
                f"{path} has format {value['format']!r:.20}; this version reads {_FORMAT}:"
                " upgrade elytron"
            )
        return Manifest(
            tuple(_entry(members) for members in value["segments"]),
            _count(value["dropped_messages"]),
            _count(value["dropped_segments"]),
            tuple(_name(name) for name in value["removed"]),
            _marked(value.get("mark", "")),
        )
    except (ValueError, TypeError, LookupError, RecursionError):  # whole, and yet not ours
        return None


def serialised(manifest: Manifest) -> bytes:
    value = {
        "format": _FORMAT,
        "dropped_messages": manifest.dropped_messages,
        "dropped_segments": manifest.dropped_segments,
        "removed": manifest.removed,
        "mark": manifest.mark,
        "segments": [asdict(entry) for entry in manifest.entries],
    }
    body = json.dumps(value)[1:].encode()  # without its opening brace, which the head has
    return _head(body) + body


def changed(
    held: Manifest,
    *,
    add: Sequence[Entry],
    remove: Collection[str],
    dropped_messages: int,
    dropped_segments: int,
) -> Manifest:
    """
    *held* with segments added, in the place of those removed if there are any, else at the end.

    Raises:
        Conflict: one to remove is no longer listed, or one to add is listed otherwise.
    """
    listed = {entry.name: entry for entry in held.entries}
    missing = [name for name in remove if name not in listed]
    if missing:
        raise Conflict(
            f"{len(missing)} of {len(remove)} archive segments, such as {missing[0]}, were"
            " replaced by someone else meanwhile; nothing was changed: read the manifest again"
        )
    for entry in add:
        if listed.get(entry.name, entry) != entry:
            raise Conflict(f"archive segment {entry.name} is listed already, and differs")
    new = [entry for entry in add if entry.name not in listed]
    entries: list[Entry] = []
    for entry in held.entries:
        if entry.name in remove:
            entries.extend(new)
            new = []
        else:
            entries.append(entry)
    return Manifest(
        (*entries, *new),
        held.dropped_messages + dropped_messages,
        held.dropped_segments + dropped_segments,
        (*held.removed, *remove),
        held.mark,
    )


def new_mark(how: str) -> str:
    """A mark that no manifest has had."""
    return f"{how}-{secrets.token_hex(8)}"


def is_begun_after(now: Manifest, then: Manifest) -> bool:
    """Whether *now* is not *then* further on, but was begun, or made again, since. Pure."""
    if not (then.mark or then.entries):  # there was none
        return False
    return now.mark.startswith(BEGUN) and now.mark != then.mark


def _head(body: bytes) -> bytes:
    checksum = hashlib.blake2b(body, digest_size=CHECKSUM_BYTES).hexdigest()
    return f'{{"checksum": "{checksum}", '.encode()


def _entry(members: dict[str, Any]) -> Entry:
    entry = Entry(**members)
    for number in (entry.messages, entry.bytes, entry.text_bytes):
        _count(number)
    if not isinstance(entry.first_us, int) or not isinstance(entry.last_us, int):
        raise TypeError
    _name(entry.name)
    return entry


def _marked(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("no count")
    return value


def _name(value: object) -> str:
    """A segment's name and never another path, since what is named may be unlinked."""
    if not isinstance(value, str) or not SEGMENT_NAME.fullmatch(value):
        raise ValueError("no name of a segment")
    return value
