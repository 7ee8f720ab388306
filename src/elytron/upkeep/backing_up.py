"""
Backing up: the agents of a store into a backup, one by one, while others go on saving.

An agent whose files are as they were at its last backup is passed over without being read. One
that is damaged, missing or emptied keeps the copy that it has: a copy is replaced only by one that
was verified, of the same ledger, and no older.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from elytron.archive import Archive, Manifest
from elytron.errors import Closed, Corrupt, DiskFull, ElytronError, Forked, NotFound
from elytron.ledger import deleted, files, surveys
from elytron.reports import AgentBackup, BackedUp, NotBackedUp
from elytron.upkeep import copying, stamps
from elytron.upkeep.backup_files import BackupFiles, Copy
from elytron.upkeep.housekeeping import Housekeeping

_log = logging.getLogger("elytron.backup")
# After these the others would fail too.
_ENDING = (DiskFull, Closed, Forked)

Progress = Callable[[int, int], None]


def back_up(
    store: Path,
    to: Path,
    upkeep: Housekeeping,
    *,
    held: Sequence[str],
    wanted: Sequence[str] | None,
    on_progress: Progress | None = None,
) -> BackedUp:
    """
    See `Store.backup`.

    Args:
        held: the agents of the store.
        wanted: those that are meant; all if None, and those that only the backup has.
    """
    backup = BackupFiles(to)
    if not backup.exists():
        _names(store, held, wanted, {})  # a mistake makes no folder
    backup.begin(store)
    with backup.locked(writing=True):
        copies = backup.copies()
        names = _names(store, held, wanted, copies)
        gone = deleted.times(store)
        removed: list[str] = []
        done: list[AgentBackup] = []
        failed: list[NotBackedUp] = []
        for number, name in enumerate(names):
            if on_progress is not None:
                on_progress(number, len(names))
            try:
                one = _one(store, backup, upkeep, name, gone.get(deleted.key_of(name), 0))
                if one is None:
                    removed.append(name)
                else:
                    done.append(one)
            except _ENDING:
                raise
            except ElytronError as error:
                _log.info("%r was not backed up: %s", name, error)
                failed.append(NotBackedUp(name, error))
        at = datetime.now(UTC)
        backup.finish(at.isoformat(), failed=[one.agent for one in failed])
        if on_progress is not None:
            on_progress(len(names), len(names))
    return BackedUp(str(to), at, tuple(done), tuple(failed), tuple(removed))


def _names(
    store: Path,
    held: Sequence[str],
    wanted: Sequence[str] | None,
    copies: dict[str, Copy | Corrupt],
) -> list[str]:
    """
    Raises:
        NotFound: one that is wanted is neither in the store nor in the backup, or there is none.
    """
    known = {*held, *(name for name, copy in copies.items() if isinstance(copy, Copy))}
    if not known:
        raise NotFound(f"{store} holds no agents; nothing was backed up")
    if wanted is None:
        return sorted(known)
    for name in wanted:
        if name not in known:
            raise NotFound(f"{store} holds no agent called {name!r}; nothing was backed up")
    return list(dict.fromkeys(wanted))


def _one(
    store: Path, backup: BackupFiles, upkeep: Housekeeping, name: str, gone_us: int
) -> AgentBackup | None:
    """
    Back one agent up; None if it is there no more, and its copy is removed.

    Args:
        gone_us: when an agent of this name was deleted last. A copy from before is of that one, and
            what is in the store now has nothing to do with it.
    """
    former = _former(backup, name)
    is_gone = former is not None and former.at_us <= gone_us
    folder = files.agent_folder(store, name)
    if former is not None and not is_gone and former.settled and backup.has(former):
        stamp = stamps.take(folder, upkeep.archive_of(name).folder)
        if stamp.files == former.stamp:
            with files.translate_os_errors(backup.path):
                backup.tidy(former)
            return _report(former, copied_bytes=0)
    with upkeep.chores(name) as chores:
        if chores is None and is_gone and not files.may_hold_ledger(folder):
            backup.drop(name)
            return None
        if chores is None:
            raise Corrupt(
                f"{name!r} is not in {store} any more, and nothing says that it was deleted; its"
                f" last backup stays: restore it, or remove {backup.folder(name)} if it is of no"
                " use"
            )
        files.check_outside(backup.folder(name), store)  # by a link, too
        backup.prepare(name, former)
        copy = copying.copy(chores.desk, backup)
        try:
            chores.desk.read(surveys.granted_bytes)
        except Corrupt:  # it was deleted meanwhile, and what was copied is of no use
            backup.remove(copy)
            raise
    copy = replace(copy, at_us=max(copy.at_us, gone_us + 1))  # whatever the clock says
    with files.translate_os_errors(backup.path):
        if former is not None and not is_gone:
            _check_successor(copy, former, backup, upkeep.archive_of(name))
        before = _segments(backup, former)
        backup.commit(copy)
    new = [entry for entry in backup.entries(copy).entries if entry.name not in before.names]
    copied_bytes = copy.ledger.bytes + sum(entry.bytes for entry in new)
    return _report(copy, copied_bytes=copied_bytes)


def _former(backup: BackupFiles, name: str) -> Copy | None:
    """The copy that there is, if what is said of it can be read."""
    try:
        return backup.copy_of(name)
    except Corrupt as error:
        _log.warning("%s; it is made anew", error)
        return None


def _segments(backup: BackupFiles, former: Copy | None) -> Manifest:
    if former is None or not backup.has(former):
        return Manifest()
    return backup.entries(former)


def _check_successor(copy: Copy, former: Copy, backup: BackupFiles, archive: Archive) -> None:
    """
    Raises:
        Corrupt: the new copy is of an older state than the former, or of another ledger; but for
            one that was made anew of the former's and has all of its messages.
    """
    lost = 0
    if copy.begun_us != former.begun_us:
        held = _texts(backup, copy)
        missing = {
            one: text for one, text in _texts(backup, former).items() if text != held.get(one)
        }
        archived = archive.find(missing)[0]
        lost = sum([one not in archived for one in missing])
    elif copy.sequence < former.sequence:
        lost = former.sequence - copy.sequence
    if not lost:
        return
    backup.remove(copy)
    raise Corrupt(
        f"the memory of {copy.agent!r} is not the one of its last backup, or older: it has"
        f" {copy.messages} messages and is at {copy.sequence}, the backup has {former.messages}"
        f" and is at {former.sequence}; that stays: back up to another folder, or remove"
        f" {backup.folder(copy.agent)} if this is meant"
    )


def _texts(backup: BackupFiles, copy: Copy) -> dict[str, int]:
    """Hashes of the messages in a copy's ledger, by id; none if its file cannot be read."""
    path = backup.folder(copy.agent) / copy.ledger.name
    return copying.texts_within(path) if backup.has(copy) else {}


def _report(copy: Copy, *, copied_bytes: int) -> AgentBackup:
    return AgentBackup(
        copy.agent,
        copied_bytes > 0,
        copy.messages,
        copy.archived,
        copied_bytes,
        datetime.fromtimestamp(copy.at_us / 1e6, UTC),
    )
