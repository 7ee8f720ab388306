"""
Copying: one agent's ledger and archive, as they were at one moment, into the files of a backup.

Others go on saving meanwhile. SQLite copies the ledger from one snapshot, which is held no longer
than `read_timeout_s`, since the WAL cannot be cut while it is. The archive's manifest was the same
before the snapshot began and after, so the two are what a crash at that moment would have left,
and what opening mends. A copy is verified before it is counted; nothing here replaces anything.
"""

import contextlib
import errno
import logging
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import apsw

from elytron.archive import Archive, Manifest, manifest
from elytron.errors import Busy, Corrupt, DiskFull, Unavailable
from elytron.ledger import files, forks, integers, rows, schema, surveys
from elytron.ledger.beginning import repaired_us
from elytron.ledger.connection import STORAGE_ERRORS, translate
from elytron.ledger.database import Database
from elytron.ledger.files import sync_folder
from elytron.ledger.rows import CHECKSUMMED
from elytron.upkeep import stamps
from elytron.upkeep.backup_files import (
    SEGMENTS,
    BackupFiles,
    Copy,
    copy_file,
    new_name,
    sealed,
    write_file,
)
from elytron.upkeep.desk import Desk

_T = TypeVar("_T")
_log = logging.getLogger("elytron.backup")
_STEP_PAGES = 256  # a megabyte; after each the time is looked at
_ATTEMPTS_MAX = 5  # while other processes move messages
_PAGE = 500  # messages that are verified at once
_LINES_MAX = 100  # of what SQLite finds wrong
_NO_ROOM = (*files.NO_ROOM, errno.EFBIG)
_READING = (apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS)
# The last number of the ledger's one sequence, as `writes.py` goes on from it.
_FACTS = """
SELECT (SELECT count(*) FROM messages),
    max((SELECT ifnull(max(key), 0) FROM messages), (SELECT ifnull(max(seq), 0) FROM changes)),
    (SELECT value FROM meta WHERE name = 'agent'),
    (SELECT value FROM meta WHERE name = 'created_us')
"""

_MESSAGES = """
SELECT m.id, m.content, s.id, u.id, k.importance, k.pinned FROM messages m
    LEFT JOIN sessions s ON s.key = m.session LEFT JOIN users u ON u.key = m.user
    LEFT JOIN marks k ON k.key = m.key
"""
_OTHERS = """
SELECT 'memory', id, content, NULL, NULL FROM memories
UNION ALL SELECT 'concept', folded, NULL, NULL, NULL FROM concepts
UNION ALL SELECT 'fact', r.relation, s.folded, t.folded, CAST(r.valid_from_us AS TEXT)
    FROM relations r JOIN concepts s ON s.key = r.source JOIN concepts t ON t.key = r.target
"""

# By what became of each thing last. Where a ledger was made anew, its list begins with a change
# whose key is its own number.
_DELETED = f"""
SELECT key FROM changes WHERE op IN ({schema.SAVE}, {schema.DELETE}) GROUP BY key
HAVING max(CASE WHEN op = {schema.DELETE} THEN seq ELSE 0 END)
    > max(CASE WHEN op = {schema.SAVE} THEN seq ELSE 0 END)
    AND key < ifnull(
        (SELECT max(seq) FROM changes c WHERE c.op = {schema.DELETE} AND c.seq = c.key), 1 << 62)
"""

# But for concepts that follow from texts, and are found in them again.
_LEARNED = _OTHERS.replace(
    "FROM concepts\n",
    "FROM concepts WHERE origin = 0 OR type IS NOT NULL OR description IS NOT NULL\n",
)


class Facts(NamedTuple):
    """What a ledger says of itself."""

    messages: int
    sequence: int
    agent: str
    begun_us: int
    schema: int


def copy(desk: Desk, backup: BackupFiles) -> Copy:
    """
    Make a copy of an agent and verify it; it does not count yet.

    Raises:
        Corrupt: the agent is damaged. Busy: others changed its archive, or the copy took longer
            than `read_timeout_s`.
        DiskFull, Unavailable: the backup's disk.
    """
    folder = backup.folder(desk.name)
    _empty_wal(desk)
    stamp, settled = stamps.take_settled(desk.ledger.folder, desk.archive.folder)
    path = folder / new_name("ledger", ".db")
    try:
        with files.translate_os_errors(folder):
            held = _both(desk, backup, path)
            facts = facts_of(path, agent=desk.name, source=desk.ledger.source)
            ledger = sealed(path)
            archive = write_file(folder / new_name("archive", ".json"), manifest.serialised(held))
            sync_folder(folder / SEGMENTS)
            sync_folder(folder)
    except BaseException:
        with contextlib.suppress(OSError):  # the error that brought us here is the one to tell
            path.unlink(missing_ok=True)
        raise
    return Copy(
        desk.name,
        desk.clock.now_us(),
        facts.schema,
        facts.begun_us,
        facts.sequence,
        facts.messages,
        held.messages,
        ledger,
        archive,
        stamp.files,
        settled,
    )


def _empty_wal(desk: Desk) -> None:
    """So that closing the ledger leaves its stamp as it is, and saves have all of the WAL."""
    if not desk.ledger.file_sizes()[1]:
        return
    try:
        desk.ledger.empty_wal(time.monotonic())
    except Busy as error:
        _log.debug("%s is copied with its WAL: %s", desk.ledger.source, error)


def _both(desk: Desk, backup: BackupFiles, path: Path) -> Manifest:
    """Copy the ledger to *path*, and what is new in its archive; what the archive holds then."""
    for _ in range(_ATTEMPTS_MAX):
        held = _archive_of(desk)
        if not _segments(desk, backup, held) or not _ledger(desk, path, held):
            continue
        return held
    raise Busy(
        f"the archive of {desk.name!r} was changed {_ATTEMPTS_MAX} times while it was copied;"
        " its last backup stays: back up again later"
    )


def _archive_of(desk: Desk) -> Manifest:
    """What its archive lists, without the names of files that do not count any more."""
    return replace(desk.archive.manifest(), removed=())


def is_missing(archive: Archive) -> bool:
    """Whether nothing was ever archived, or all of it is gone."""
    if not archive.exists():
        return True
    listed = archive.manifest()  # made again of what is there, if it is missing
    return not listed.entries and not (archive.folder / manifest.FILE).exists()


def _segments(desk: Desk, backup: BackupFiles, held: Manifest) -> bool:
    """Copy those that the backup lacks; False if one has been replaced meanwhile."""
    for entry in held.entries:
        target = backup.segment(desk.name, entry)
        if files.file_size(target) == entry.bytes:
            continue
        try:
            copy_file(desk.archive.folder / entry.name, target, entry.checksum)
        except FileNotFoundError as error:
            if entry.name not in desk.archive.manifest().names:
                return False
            raise Corrupt(
                f"archive segment {entry.name} of {desk.name!r} is listed, and missing: run"
                " `elytron check`"
            ) from error
    return True


def _ledger(desk: Desk, path: Path, held: Manifest) -> bool:
    """Copy it from one snapshot; False if the archive does not list the same any more by then."""
    limit_s = desk.config.read_timeout_s
    deadline = time.monotonic() + limit_s
    with desk.ledger.reading(snapshot=True) as db:
        assert isinstance(db, apsw.Connection), "only files are backed up"
        db.execute("SELECT count(*) FROM meta").fetchall()  # here the snapshot begins
        if _archive_of(desk) != held:
            return False
        with _target(path) as target, target.backup("main", db, "main") as copying:
            while not copying.done:
                copying.step(_STEP_PAGES)
                if time.monotonic() > deadline:
                    raise Busy(
                        f"copying {desk.ledger.source} took longer than {limit_s:g} s, while"
                        " which its WAL cannot be cut; its last backup stays: back up when"
                        " the disk is less busy, or raise `read_timeout_s`"
                    )
    return True


@contextlib.contextmanager
def _target(path: Path) -> Iterator[apsw.Connection]:
    """
    A new file for a ledger's copy.

    Raises:
        DiskFull, Unavailable: it cannot be written. Errors of reading the ledger are SQLite's.
    """
    target, failed_with = None, 0
    try:
        target = apsw.Connection(
            str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        )
        forks.guard_connection(target)
        try:
            # It does not count before it is synced as a whole.
            target.pragma("journal_mode", "off")
            target.pragma("synchronous", "off")
            yield target
        finally:
            failed_with = target.system_errno
            target.close()
    except apsw.Error as error:
        if isinstance(error, apsw.FullError) or (_is_of_writing(error) and failed_with in _NO_ROOM):
            raise DiskFull(
                f"no room left on the disk of {path.parent}, or none for a file so large; the last"
                " backup stays: free some"
            ) from error
        if target is None or _is_of_writing(error):
            raise Unavailable(
                f"{path.parent} cannot be written to: {error}; the last backup stays: look at its"
                " disk, and back up again"
            ) from error
        raise


def _is_of_writing(error: apsw.Error) -> bool:
    """Whether it came from the file that is written, of the two that are copied from and to."""
    if isinstance(error, apsw.IOError):
        return error.extendedresult not in _READING  # type: ignore[attr-defined]
    return isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError | apsw.PermissionsError)


def facts_of(path: Path, *, agent: str, source: object) -> Facts:
    """
    What the copy of a ledger says of itself, once each of its rows has been verified.

    Raises:
        Corrupt: it is damaged, or another agent's; *source* is named.
    """
    try:
        with unchanging(path) as db:
            _verify(db, source)
            if db.pragma("application_id") != schema.APPLICATION_ID:
                raise Corrupt(f"{source} is no Elytron ledger; it was left as it is")
            facts = facts_within(db)
    except STORAGE_ERRORS as error:
        raise translate(error, path if isinstance(error, apsw.IOError) else source) from error
    if facts.agent != agent:
        raise Corrupt(f"{source} is the memory of {facts.agent!r}, not of {agent!r}")
    return facts


def facts_within(db: Database) -> Facts:
    """What a ledger says of itself."""
    messages, sequence, agent, begun_us = db.execute(_FACTS).get
    begun_us = int(begun_us) if str(begun_us).isdecimal() else 0
    return Facts(messages, sequence, agent, begun_us, db.execute("PRAGMA user_version").get)


def repaired_within(path: Path) -> int:
    """When the copy of a ledger was repaired last; 0 if it never was."""
    return _asked(path, repaired_us)


def texts(db: Database) -> dict[str, int]:
    """By id, a hash of each message's text; good in this process alone."""
    return {one: hash(text) for one, text in db.execute("SELECT id, content FROM messages")}


def texts_within(path: Path) -> dict[str, int]:
    """The same of the copy of a ledger."""
    return _asked(path, texts)


class Told(NamedTuple):
    """
    What a ledger was told, as hashes that are good in this process alone: of each message with its
    session, user and mark, by id, and of all else.
    """

    messages: dict[str, int]
    others: set[int]


def told(db: Database) -> Told:
    """What a ledger of this version's schema was told."""
    messages = {row[0]: hash(tuple(row)) for row in db.execute(_MESSAGES)}
    return Told(messages, {hash(tuple(row)) for row in db.execute(_OTHERS)})


def told_within(path: Path) -> Told:
    """The same of the copy of a ledger."""
    return _asked(path, told)


def learned_within(path: Path) -> set[int]:
    """Hashes of the memories, facts and concepts in the same that do not follow from texts."""
    return _asked(path, lambda db: {hash(row) for row in db.execute(_LEARNED)})


def numbers(db: Database) -> dict[int, str]:
    """The ids of messages and memories by their numbers."""
    both = "SELECT key, id FROM messages UNION ALL SELECT key, id FROM memories"
    return dict(db.execute(both))


def numbers_within(path: Path) -> dict[int, str]:
    """The same of the copy of a ledger."""
    return _asked(path, numbers)


def ids_within(path: Path, keys: Collection[int]) -> set[str]:
    """The ids of the messages in the copy of a ledger that have these keys."""
    sql = "SELECT key, id FROM messages"
    return _asked(path, lambda db: {one for key, one in db.execute(sql) if key in keys})


def ids_but(path: Path, keys: Collection[int]) -> set[str]:
    """The ids of all others in it."""
    sql = "SELECT key, id FROM messages"
    return _asked(path, lambda db: {one for key, one in db.execute(sql) if key not in keys})


def deleted_keys(db: Database) -> set[int]:
    """
    The keys of what was deleted and did not come back, as far as the list of changes tells. Where
    the ledger was made anew, of what it was made of: it may have given other numbers away again.
    """
    return {key for (key,) in db.execute(_DELETED)}


def all_ids(db: Database) -> set[str]:
    """The ids of the messages in a ledger."""
    return {one for (one,) in db.execute("SELECT id FROM messages")}


def all_ids_within(path: Path) -> set[str]:
    """The same of the copy of a ledger."""
    return _asked(path, all_ids)


def _asked(path: Path, query: Callable[[apsw.Connection], _T]) -> _T:
    """What a query gives of the copy of a ledger."""
    try:
        with unchanging(path) as db:
            return query(db)
    except STORAGE_ERRORS as error:
        raise translate(error, path) from error


def found(backup: BackupFiles, name: str) -> Copy | None:
    """
    An agent's copy, where what is said of it is damaged, by the files that it is made of; None if
    these do not tell. So what is to take its place can be compared with it.
    """
    folder = backup.folder(name)
    names = files.names_in(folder)
    ledgers = [folder / one for one in names if one.startswith("ledger-") and one.endswith(".db")]
    listings = [folder / one for one in names if one.startswith("archive-")]
    if (len(ledgers), len(listings)) != (1, 1):
        return None
    (ledger,), (listing,) = ledgers, listings
    held = manifest.read(listing)
    try:
        facts = facts_of(ledger, agent=name, source=ledger)
    except (Corrupt, apsw.SQLError) as error:  # the latter of a file that is no ledger of ours
        _log.warning("%s", error)
        return None
    if held is None:
        return None
    with files.translate_os_errors(folder):
        return Copy(
            name,
            ledger.stat().st_mtime_ns // 1000,
            facts.schema,
            facts.begun_us,
            facts.sequence,
            facts.messages,
            held.messages,
            sealed(ledger),
            sealed(listing),
            stamp=[],
            settled=False,
        )


def place_of(path: Path) -> str:
    """A file that nobody writes, as SQLite opens it without locks and side files."""
    return f"file:{urllib.parse.quote(str(path.absolute()))}?immutable=1"


@contextlib.contextmanager
def unchanging(path: Path) -> Iterator[apsw.Connection]:
    """A connection to a file that nobody writes."""
    place = place_of(path)
    db = apsw.Connection(place, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    db.convert_binding = integers.bind
    forks.guard_connection(db)
    try:
        yield db
    finally:
        db.close()


def _verify(db: apsw.Connection, source: object) -> None:
    """
    Raises:
        Corrupt: the file is damaged, or a row is not what was written. The word index may be: it
            can be made anew.
    """
    lines = [line for (line,) in rows.fetch(db, f"PRAGMA quick_check({_LINES_MAX})")]
    wrong = [line for line in lines if line != "ok" and "words" not in line]
    if wrong or len(lines) == _LINES_MAX:
        raise _damaged(source, wrong[0] if wrong else lines[0])
    keys = surveys.keys(db, "SELECT key FROM messages ORDER BY key")
    for start in range(0, len(keys), _PAGE):
        _, damaged = surveys.stored(db, keys[start : start + _PAGE], source)
        if damaged:
            raise _damaged(source, f"message row {damaged[0]} is not what was written")
    for table, columns in CHECKSUMMED.items():
        for *values, checksum in db.execute(f"SELECT {columns} FROM {table}"):
            if rows.checksum(tuple(values)) != checksum:
                raise _damaged(source, f"row {values[0]} of {table} is not what was written")


def _damaged(source: object, what: str) -> Corrupt:
    return Corrupt(
        f"{source} is damaged: {what}; its last backup stays, and nothing was written to either:"
        " run `elytron check --repair`, then back up again"
    )
