"""
Backing up: the agents of a store into a backup, one by one, while others go on saving.

An agent whose files are as they were at its last backup is passed over without being read. One
that is damaged, missing or emptied keeps the copy that it has: a copy is replaced only by one that
was verified, of the same ledger, and no older.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from elytron.archive import Archive, Manifest
from elytron.errors import Busy, Closed, Corrupt, DiskFull, ElytronError, Forked, NotFound
from elytron.ledger import deleted, files, surveys
from elytron.reports import AgentBackup, BackedUp, NotBackedUp
from elytron.upkeep import copying, kept, stamps
from elytron.upkeep.backup_files import BackupFiles, Copy
from elytron.upkeep.housekeeping import Housekeeping

_log = logging.getLogger("elytron.backup")
# After these the others would fail too.
_ENDING = (DiskFull, Closed, Forked)

_STAYED = deleted.Gone(0, None)

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
        gone = deleted.gone(store)
        kept.remove_deleted(backup, gone)
        names = _in_order(_names(store, held, wanted, copies), held, gone)
        there = {deleted.key_of(name) for name in {*names} & {*held}}
        removed: list[str] = []
        done: list[AgentBackup] = []
        failed: list[NotBackedUp] = []
        for number, name in enumerate(names):
            if on_progress is not None:
                on_progress(number, len(names))
            key = deleted.key_of(name)
            if key not in there and key not in gone:  # opening the others ended its renaming?
                gone = deleted.gone(store)
            try:
                one = _one(store, backup, upkeep, name, gone.get(key, _STAYED), there)
                if one is None:
                    removed.append(name)
                else:
                    done.append(one)
            except _ENDING:
                raise
            except ElytronError as error:
                _log.info("%r was not backed up: %s", name, error)
                failed.append(NotBackedUp(name, error))
                there.discard(key)
        at = datetime.now(UTC)
        backup.finish(at.isoformat(), failed=[one.agent for one in failed])
        beside = tuple(map(str, kept.paths(backup)))
        if on_progress is not None:
            on_progress(len(names), len(names))
    return BackedUp(str(to), at, tuple(done), tuple(failed), tuple(removed), beside)


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


def _in_order(names: list[str], held: Sequence[str], gone: dict[str, deleted.Gone]) -> list[str]:
    """Last come those whose copy is of one that is called otherwise now, or is not there."""

    there = frozenset(held)

    def is_late(name: str) -> bool:
        return name not in there or gone.get(deleted.key_of(name), _STAYED).heir is not None

    return sorted(names, key=is_late)


def _alone(name: str, store: Path) -> Corrupt:
    return Corrupt(
        f"what was called {name!r} was renamed, and the agent that it is now was not backed up"
        f" with it; its last backup stays: back up all agents of {store}, or restore this one if"
        " the other is lost"
    )


def _one(
    store: Path,
    backup: BackupFiles,
    upkeep: Housekeeping,
    name: str,
    gone: deleted.Gone,
    there: Collection[str],
) -> AgentBackup | None:
    """
    Back one agent up; None if it is there no more, and its copy is removed.

    Args:
        gone: when an agent of this name was deleted or renamed last. A copy from before is of that
            one, and what is in the store now has nothing to do with it.
        there: keys of agents that are in the store, and in the backup once this one has ended.
    """
    gone_us = gone.at_us
    former = _former(backup, name)
    is_gone = former is not None and former.at_us <= gone_us
    if is_gone and gone.heir is not None and gone.heir not in there:
        raise _alone(name, store)
    folder = files.agent_folder(store, name)
    if former is not None and not is_gone and former.settled and backup.has(former):
        stamp = stamps.take(folder, upkeep.archive_of(name).folder)
        if stamp.files == former.stamp:
            with files.translate_os_errors(backup.path):
                backup.tidy(former)
            return _report(former, copied_bytes=0)
    with upkeep.chores(name) as chores:
        if chores is None and is_gone and not files.may_hold_ledger(folder):
            if former is not None and gone.heir is not None:
                _let_go_renamed(former, gone.heir, backup, upkeep)
            backup.drop(name)
            return None
        if chores is None:
            raise Corrupt(
                f"{name!r} is not in {store} any more, and nothing says that it was deleted; its"
                f" last backup stays: restore it, or remove {backup.folder(name)} if it is of no"
                " use"
            )
        if former is not None and not is_gone and former.archived:
            _check_archive(name, former, upkeep.archive_of(name))
        files.check_outside(backup.folder(name), store)  # by a link, too
        backup.prepare(name, former)
        copy = copying.copy(chores.desk, backup)
        try:
            chores.desk.read(surveys.granted_bytes)
        except (Busy, Corrupt):  # it is another by now, and what was copied is of no use
            backup.remove(copy)
            raise
    copy = replace(copy, at_us=max(copy.at_us, gone_us + 1))  # whatever the clock says
    with files.translate_os_errors(backup.path):
        if former is not None and not is_gone:
            _let_go(copy, former, backup, upkeep.archive_of(name))
        before = _segments(backup, former)
        backup.commit(copy)
    new = [entry for entry in backup.entries(copy).entries if entry.name not in before.names]
    copied_bytes = copy.ledger.bytes + sum(entry.bytes for entry in new)
    return _report(copy, copied_bytes=copied_bytes)


def _check_archive(name: str, former: Copy, archive: Archive) -> None:
    """
    Raises:
        Corrupt: all of the archive is gone, even what says of which segments it is.
    """
    if copying.is_missing(archive):
        raise Corrupt(
            f"the archive of {name!r} is gone: {archive.folder} is empty, and its last backup has"
            f" {former.archived} archived messages; that stays: `elytron restore --from` it brings"
            " them back"
        )


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


def _let_go(copy: Copy, former: Copy, backup: BackupFiles, archive: Archive) -> None:
    """
    See that nothing is lost when the former copy goes. It is kept beside if something is that a
    repair has told of.

    Raises:
        Corrupt: the new copy is of an older state than the former, or of another ledger; but for
            one that was made anew of the former's and has all of its messages.
        OverBudget: too many are kept already.
    """
    try:
        if backup.has(former) and _is_repaired(copy, former, backup):
            if _lacks(copy, former, backup, archive):
                kept.keep(backup, former)
        else:
            _check_successor(copy, former, backup, archive)
    except ElytronError:
        backup.remove(copy)
        raise


def _let_go_renamed(former: Copy, heir: str, backup: BackupFiles, upkeep: Housekeeping) -> None:
    """The same of a copy whose agent has another name now, and was backed up under that."""
    for copy in backup.copies().values():
        if isinstance(copy, Copy) and deleted.key_of(copy.agent) == heir and backup.has(former):
            archive = upkeep.archive_of(copy.agent)
            if _is_repaired(copy, former, backup) and _lacks(copy, former, backup, archive):
                kept.keep(backup, former)


def _is_repaired(copy: Copy, former: Copy, backup: BackupFiles) -> bool:
    """Whether the ledger was repaired between two copies."""
    then_us, now_us = [
        copying.repaired_within(backup.folder(one.agent) / one.ledger.name)
        for one in (former, copy)
    ]
    return now_us > then_us


def _lacks(copy: Copy, former: Copy, backup: BackupFiles, archive: Archive) -> bool:
    """Whether the former copy has anything that is not there any more, for whatever reason."""
    if former.schema != copy.schema:  # it cannot be compared
        return True
    then, now = [
        copying.told_within(backup.folder(one.agent) / one.ledger.name) for one in (former, copy)
    ]
    changed = [one for one, told in then.messages.items() if told != now.messages.get(one)]
    return not (then.others <= now.others and archive.find(changed)[0].keys() >= {*changed})


def _check_successor(copy: Copy, former: Copy, backup: BackupFiles, archive: Archive) -> None:
    """
    Raises:
        Corrupt: as `_let_go`.
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
    if lost:
        raise Corrupt(
            f"the memory of {copy.agent!r} is not the one of its last backup, or older: it has"
            f" {copy.messages} messages and is at {copy.sequence}, the backup has"
            f" {former.messages} and is at {former.sequence}; that stays: back up to another"
            f" folder, or remove {backup.folder(copy.agent)} if this is meant"
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
