"""
Filling: an archive of which something is lost gets back what a backup has of it.

What left the ledger since the backup was made stands there in the ledger, and what was merged since
stands there in other segments. So each message that a backup has and that is nowhere here is
archived again. What was deleted since looks the same.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import apsw

from elytron.archive import Archive, Archived, Entry
from elytron.ledger import rows, surveys
from elytron.ledger.connection import STORAGE_ERRORS, translate
from elytron.upkeep.backup_files import SEGMENTS, BackupFiles, Copy
from elytron.upkeep.copying import unchanging
from elytron.upkeep.desk import Desk

_log = logging.getLogger("elytron.backup")
_PAGE = 500  # messages in memory at once


def fill(
    desk: Desk, backup: BackupFiles, copy: Copy, *, meant: Callable[[Archived], bool]
) -> list[str]:
    """Archive what a copy has and is neither held nor archived here; returns the ids."""
    folder = backup.folder(copy.agent)
    path = folder / copy.ledger.name
    held = desk.read(lambda db: rows.fetch(db, "SELECT key, id FROM messages"))
    keys, ids = {key for key, _ in held}, {one for _, one in held}
    listed = desk.archive.manifest().names
    others = [entry for entry in backup.entries(copy).entries if entry.name not in listed]
    segments = Archive(folder / SEGMENTS, timeout_s=desk.config.save_timeout_s)
    try:
        with unchanging(path) as db:

            def there() -> Iterator[Archived]:
                yield from itertools.chain.from_iterable(map(segments.read, others))
                yield from _stored(db, path)

            gone = {
                one.message.id
                for one in there()
                if one.message.id not in ids
                and one.key not in keys  # else it would count as held
                and meant(one)
            }
            gone -= desk.archive.find(gone)[0].keys()
            entries = desk.archive.write(_once(there(), set(gone)))
    except STORAGE_ERRORS as error:
        raise translate(error, path) from error
    if entries:
        desk.archive.publish(add=entries)
        _log.warning(
            "%d messages of the backup of %r, which were archived or deleted since, are in its"
            " archive again",
            sum([entry.messages for entry in entries]),
            copy.agent,
        )
    return sorted(gone)


def all_of_it(_archived: Archived) -> bool:
    """What is meant where the whole archive is lost."""
    return True


def within(lost: Sequence[Entry]) -> Callable[[Archived], bool]:
    """What is meant where segments are lost: what may have been in them, by its time."""

    def meant(archived: Archived) -> bool:
        at_us = rows.to_us(archived.message.at)
        return any(one.first_us <= at_us <= one.last_us for one in lost)

    return meant


def _stored(db: apsw.Connection, path: Path) -> Iterator[Archived]:
    """The messages of a ledger, as they are archived."""
    keys = surveys.keys(db, "SELECT key FROM messages ORDER BY key")
    for start in range(0, len(keys), _PAGE):
        for one in surveys.stored(db, keys[start : start + _PAGE], path)[0]:
            yield Archived(
                one.key,
                one.message,
                one.session_key,
                one.responds_to,
                one.arrived_us,
                one.embedding,
            )


def _once(messages: Iterable[Archived], wanted: set[str]) -> Iterator[Archived]:
    for one in messages:
        if one.message.id in wanted:
            wanted.remove(one.message.id)
            yield one
