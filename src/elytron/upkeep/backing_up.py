"""
Backing up: the agents of a store into a backup, one by one, while others go on saving.

An agent whose files are as they were at its last backup is passed over without being read. One
that is damaged, missing or emptied keeps the copy that it has: a copy is replaced only by one that
was verified, of the same ledger, and no older. `successors.py` tells what that is.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from elytron.archive import Archive, Manifest
from elytron.errors import Closed, Corrupt, DiskFull, ElytronError, Forked, NotFound, Unavailable
from elytron.ledger import deleted, files, surveys
from elytron.reports import AgentBackup, BackedUp, NotBackedUp
from elytron.upkeep import copying, kept, stamps, successors
from elytron.upkeep.backup_files import AGENT, BackupFiles, Copy
from elytron.upkeep.housekeeping import Housekeeping
from elytron.upkeep.successors import Pair

_log = logging.getLogger("elytron.backup")
# After these the others would fail too.
_ENDING = (DiskFull, Closed, Forked)

Progress = Callable[[int, int], None]


class _Run(NamedTuple):
    """One backup: how far it is."""

    there: dict[str, bool]
    """Keys of agents that are in the store, and in the backup by the end: whether they are now."""
    circled: list[tuple[Path, Copy, str]]
    """Copies kept, and where, until the one of this key was backed up, who has what they are of."""


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
        fates = deleted.Fates(store)
        kept.remove_deleted(backup, fates)
        removed, failed = list[str](), list[NotBackedUp]()
        if wanted is None:
            removed, failed = _clear(store, backup, held, copies, fates)
        names = _names(store, held, wanted, copies, may_be_none=bool(removed or failed))
        names = _in_order(names, held, copies, fates)
        run = _Run({deleted.key_of(name): False for name in {*names} & {*held}}, [])
        done: list[AgentBackup] = []
        if wanted is None:
            failed += _unreadable(copies, names)
        for number, name in enumerate(names):
            if on_progress is not None:
                on_progress(number, len(names))
            key = deleted.key_of(name)
            if key not in run.there:  # opening the others may have ended its renaming
                fates = deleted.Fates(store)
            try:
                one = _one(store, backup, upkeep, name, fates, run)
                if one is None:
                    removed.append(name)
                else:
                    done.append(one)
                    run.there[key] = True
            except _ENDING:
                raise
            except ElytronError as error:
                _log.info("%r was not backed up: %s", name, error)
                failed.append(NotBackedUp(name, error))
                run.there.pop(key, None)
        _end_circles(backup, upkeep, run)
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
    copies: dict[str, Copy | ElytronError],
    *,
    may_be_none: bool = False,
) -> list[str]:
    """
    Raises:
        NotFound: one that is wanted is neither in the store nor in the backup, or there is none.
    """
    known = {*held, *(name for name, copy in copies.items() if isinstance(copy, Copy))}
    if not known and not may_be_none:
        raise NotFound(f"{store} holds no agents; nothing was backed up")
    if wanted is None:
        return sorted(known)
    for name in wanted:
        if name not in known:
            raise NotFound(f"{store} holds no agent called {name!r}; nothing was backed up")
    return list(dict.fromkeys(wanted))


def _clear(
    store: Path,
    backup: BackupFiles,
    held: Sequence[str],
    copies: dict[str, Copy | ElytronError],
    fates: deleted.Fates,
) -> tuple[list[str], list[NotBackedUp]]:
    """
    Remove what a run left that was stopped when it made the first copy of an agent, or removed the
    last, if that one was deleted or renamed since. There no copy counts, so that only the folder
    tells whose it was. Returns which are removed, and which are not and why, by their folders.
    """
    there = {deleted.key_of(name) for name in held}
    removed, failed = list[str](), list[NotBackedUp]()
    for folder in backup.folders():
        if isinstance(copies.get(folder.name), ElytronError):  # a copy, and damaged
            continue
        try:
            if AGENT in files.names_in(folder):
                continue
            if files.may_hold_ledger(store / "agents" / folder.name):  # its next copy removes it
                continue
            gone = fates.of(deleted.key_in(folder.name))
            if gone is not None and (gone.heir is None or gone.heir in there):
                backup.clear(folder)
                removed.append(folder.name)
            elif files.folder_bytes(folder):  # it may be all that there is of it
                raise _nobodys(folder, store)
        except _ENDING:
            raise
        except ElytronError as error:
            _log.info("%s was not removed: %s", folder, error)
            failed.append(NotBackedUp(folder.name, error))
    return removed, failed


def _nobodys(folder: Path, store: Path) -> Corrupt:
    return Corrupt(
        f"{folder} has no {AGENT}, so that no copy in it counts, and its agent is not in {store}"
        " any more, though nothing says that it was deleted; nothing was removed: remove the folder"
        " if it is of no use"
    )


def _unreadable(copies: dict[str, Copy | ElytronError], names: list[str]) -> list[NotBackedUp]:
    """Copies that cannot be read now, of agents that are not backed up anyway, by their folders."""
    ours = {files.folder_name(name) for name in names}
    return [
        NotBackedUp(folder, error)
        for folder, error in copies.items()
        if isinstance(error, Unavailable) and folder not in ours
    ]


def _in_order(
    names: list[str],
    held: Sequence[str],
    copies: dict[str, Copy | ElytronError],
    fates: deleted.Fates,
) -> list[str]:
    """Each behind the one that has what its copy is of; last those that are not there."""
    there, by_key = frozenset(held), {deleted.key_of(name): name for name in names}
    ordered: dict[str, None] = {}
    for first in sorted(names, key=lambda name: name not in there):
        way: dict[str, None] = {}
        name: str | None = first
        while name is not None and name not in ordered and name not in way:
            way[name] = None
            copy = copies.get(name)
            fate = fates.of(deleted.key_of(name), copy.at_us) if isinstance(copy, Copy) else None
            name = None if fate is None or fate.heir is None else by_key.get(fate.heir)
        ordered |= dict.fromkeys(reversed(way))
    return list(ordered)


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
    fates: deleted.Fates,
    run: _Run,
) -> AgentBackup | None:
    """
    Back one agent up; None if it is there no more, and its copy is removed.

    Args:
        fates: what became of the agent that the copy is of. If it was deleted or renamed, what is
            in the store now has nothing to do with it.
    """
    key = deleted.key_of(name)
    former = _former(backup, name)
    gone = None if former is None else fates.of(key, former.at_us)
    is_gone = gone is not None
    if gone is not None and gone.heir is not None and gone.heir not in run.there:
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
            if former is not None and gone is not None and gone.heir is not None:
                with files.translate_os_errors(backup.path):
                    _let_go_renamed(former, gone.heir, backup, upkeep, run)
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
        except ElytronError:  # it is another by now, and what was copied is of no use
            backup.remove(copy)
            raise
    copy = replace(copy, at_us=max(copy.at_us, fates.last_us(key) + 1))  # whatever the clock says
    with files.translate_os_errors(backup.path):
        if former is not None and not is_gone:
            _let_go(copy, former, backup, upkeep.archive_of(name))
        elif former is not None and gone is not None and gone.heir is not None:
            try:
                _let_go_renamed(former, gone.heir, backup, upkeep, run)
            except ElytronError:
                backup.remove(copy)
                raise
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
        raise _archive_gone(name, former, archive)


def _archive_gone(name: str, former: Copy, archive: Archive) -> Corrupt:
    return Corrupt(
        f"the archive of {name!r} is gone: {archive.folder} is empty, or was begun anew, and its"
        f" last backup has {former.archived} archived messages; that stays: `elytron restore"
        " --from` it brings them back"
    )


def _former(backup: BackupFiles, name: str) -> Copy | None:
    """The copy that there is. If what is said of it is damaged, that is said again, if it goes."""
    try:
        return backup.copy_of(name)
    except Corrupt as error:
        former = copying.found(backup, name)
        how = "the copy is" if former is None else "that is, by the files beside it,"
        _log.warning("%s; %s made anew", error, how)
    if former is not None and backup.has(former):
        with files.translate_os_errors(backup.path):
            backup.commit(former)
    return former


def _segments(backup: BackupFiles, former: Copy | None) -> Manifest:
    if former is None or not backup.has(former):
        return Manifest()
    return backup.entries(former)


def _let_go(copy: Copy, former: Copy, backup: BackupFiles, archive: Archive) -> None:
    """
    See that nothing is lost when the former copy goes. It is kept beside if something may be, and
    that was told: by a repair, or when an archive's listing was made again.

    Raises:
        Corrupt: the new copy is of an older state than the former, or of another ledger; but for
            one that was made anew of the former's and has all that this has. Or the archive was
            lost, and begun anew.
        OverBudget: too many are kept already.
    """
    pair = Pair(copy, former, backup, backup, archive)
    try:
        if not backup.has(former):
            if copy.begun_us != former.begun_us:  # what that lacks cannot be told
                raise _another(pair)
            _check_numbers(pair)
        elif _is_kept(pair):
            kept.keep(backup, former)
    except ElytronError:
        backup.remove(copy)
        raise


def _is_kept(pair: Pair) -> bool:
    """Whether the former copy has to be kept beside. Raises as `_let_go`."""
    if successors.is_repaired(pair):
        return successors.lacks(pair) or successors.of_archive(pair).messages > 0
    if pair.copy.begun_us != pair.former.begun_us:
        if successors.of_another(pair):
            raise _another(pair)
        return pair.copy.schema != pair.former.schema  # not all of it can be compared
    _check_numbers(pair)
    if not successors.is_further_on(pair):
        raise _another(pair)
    lost = successors.of_archive(pair)
    nothing_left = pair.former.archived and not lost.in_part
    if lost.messages and nothing_left and not pair.archive.manifest().dropped_messages:
        raise _archive_gone(pair.copy.agent, pair.former, pair.archive)
    return lost.messages > 0


def _check_numbers(pair: Pair) -> None:
    copy, former = pair.copy, pair.former
    if copy.begun_us == former.begun_us and copy.sequence < former.sequence:
        raise _another(pair)


def _another(pair: Pair) -> Corrupt:
    copy, former = pair.copy, pair.former
    return Corrupt(
        f"the memory of {copy.agent!r} is not the one of its last backup, or older: it has"
        f" {copy.messages} messages and is at {copy.sequence}, the backup has"
        f" {former.messages} and is at {former.sequence}; that stays: back up to another"
        f" folder, or remove {pair.backup.folder(copy.agent)} if this is meant"
    )


def _let_go_renamed(
    former: Copy, heir: str, backup: BackupFiles, upkeep: Housekeeping, run: _Run
) -> None:
    """The same of a copy whose agent has another name now, and was backed up under that."""
    if not run.there[heir] and backup.has(former):  # names in a circle: one has to be the first
        path = kept.keep(backup, former)
        if path is not None:
            run.circled.append((path, former, heir))
    elif backup.has(former) and _may_lack(heir, former, backup, backup, upkeep):
        kept.keep(backup, former)


def _end_circles(backup: BackupFiles, upkeep: Housekeeping, run: _Run) -> None:
    """What was kept until another had been backed up goes, unless something of it may be lost."""
    with files.translate_os_errors(backup.path):
        for path, former, heir in run.circled:
            if run.there.get(heir) and not _may_lack(
                heir, former, backup, BackupFiles(path), upkeep
            ):
                kept.remove(path)


def _may_lack(
    heir: str, former: Copy, backup: BackupFiles, own: BackupFiles, upkeep: Housekeeping
) -> bool:
    """Whether of a copy, which is in *own*, something may be lost that the one of *heir* lacks."""
    copies = [copy for copy in backup.copies().values() if isinstance(copy, Copy)]
    copy = next((one for one in copies if deleted.key_of(one.agent) == heir), None)
    if copy is None:
        return True
    archive = upkeep.archive_of(copy.agent)
    return successors.may_lack(Pair(copy, former, backup, own, archive))


def _report(copy: Copy, *, copied_bytes: int) -> AgentBackup:
    return AgentBackup(
        copy.agent,
        copied_bytes > 0,
        copy.messages,
        copy.archived,
        copied_bytes,
        datetime.fromtimestamp(copy.at_us / 1e6, UTC),
    )
