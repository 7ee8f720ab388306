"""
Bringing back: agents from a backup into a store.

What is done depends on what the store has of an agent: nothing, a whole memory, or a damaged one.
A copy is verified before anything is touched, and written beside before anything is moved. Nothing
that an agent had is deleted: it is set aside in the agent's folder. Between the first move and the
last the marker says that there is a memory and there is no ledger, so that a crash there leaves
what is known to be damaged, and never half a memory that looks whole.
"""

import contextlib
import dataclasses
import errno
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from elytron.archive import Archive, Manifest, manifest
from elytron.config import Config
from elytron.errors import Busy, Conflict, Corrupt, DiskFull, ElytronError, NotFound, Unavailable
from elytron.ledger import deleted, files, schema, swapping
from elytron.ledger.beginning import repaired_us
from elytron.ledger.files import sync_folder
from elytron.ledger.folder import FolderLedgers
from elytron.ledger.lock import FileLock
from elytron.reports import AgentRestored, BackupRestored, Finding, NotRestored
from elytron.text import Analyzer
from elytron.upkeep import archiving, checking, expelling, filling, kept, replacing, successors
from elytron.upkeep.backup_files import (
    BackupFiles,
    Copy,
    copy_file,
    not_in,
    remove_folder,
    write_file,
)
from elytron.upkeep.copying import (
    Facts,
    all_ids,
    deleted_keys,
    facts_within,
    ids_but,
    ids_within,
    is_missing,
    numbers,
    numbers_within,
    texts,
    texts_within,
    told,
    told_within,
)
from elytron.upkeep.desk import Desk
from elytron.upkeep.housekeeping import Housekeeping
from elytron.upkeep.runs import Run
from elytron.upkeep.salvaging import salvage

_log = logging.getLogger("elytron.backup")

Progress = Callable[[int, int], None]


def bring_back(
    source: Path,
    store: Path,
    config: Config,
    *,
    wanted: Sequence[str] | None,
    replace: bool,
    dry_run: bool,
    on_progress: Progress | None,
) -> BackupRestored:
    """See `elytron.restore_backup`."""
    files.check_store_path(store, allow_network=config.allow_network_path)
    backup = BackupFiles(source)
    if not backup.exists():
        raise NotFound(f"{source} is no backup: it has no {files.BACKUP}; nothing was changed")
    files.check_outside(store, source)
    done: list[AgentRestored] = []
    failed: list[NotRestored] = []
    with backup.locked(writing=False), _upkeep(store, config) as upkeep:
        copies = _chosen(backup, wanted)
        restore = _Restore(backup, store, config, upkeep, replace=replace, dry_run=dry_run)
        for number, (name, copy) in enumerate(copies.items()):
            if on_progress is not None:
                on_progress(number, len(copies))
            try:
                if isinstance(copy, ElytronError):
                    raise copy
                done.append(restore.one(copy))
            except DiskFull:
                raise
            except ElytronError as error:
                _log.info("%r was not restored: %s", name, error)
                failed.append(NotRestored(name, error))
        if on_progress is not None:
            on_progress(len(copies), len(copies))
        beside = tuple(map(str, kept.paths(backup)))
    return BackupRestored(str(store), str(source), dry_run, tuple(done), tuple(failed), beside)


@contextlib.contextmanager
def _upkeep(store: Path, config: Config) -> Iterator[Housekeeping]:
    upkeep = Housekeeping(FolderLedgers(store, config), config, Analyzer(config.languages))
    try:
        yield upkeep
    finally:
        upkeep.close()
        upkeep.finish()


def _chosen(backup: BackupFiles, wanted: Sequence[str] | None) -> dict[str, Copy | ElytronError]:
    """
    Raises:
        NotFound: there is no copy of one that is wanted.
    """
    copies = backup.copies()
    if wanted is None:
        return copies
    chosen: dict[str, Copy | ElytronError] = {}
    for name in wanted:
        found = copies.get(name) or copies.get(files.folder_name(name))
        if found is None:
            raise not_in(name, backup.path)
        chosen[name] = found
    return chosen


@dataclass(frozen=True, slots=True)
class _Present:
    """What a store has of an agent: which of its parts are whole, and how much is in them."""

    ledger: bool = False
    archive: bool = False
    is_same: bool = False
    messages: int = 0
    archived: int = 0
    expelled: frozenset[int] = frozenset()

    @property
    def is_whole(self) -> bool:
        return self.ledger and self.archive and not self.expelled


class _Restore:
    """One run over the agents of a backup."""

    def __init__(
        self,
        backup: BackupFiles,
        store: Path,
        config: Config,
        upkeep: Housekeeping,
        *,
        replace: bool,
        dry_run: bool,
    ) -> None:
        self._backup = backup
        self._store = store
        self._config = config
        self._upkeep = upkeep
        self._analyzer = Analyzer(config.languages)
        self._replace = replace
        self._dry_run = dry_run

    def one(self, copy: Copy) -> AgentRestored:
        """Bring one agent back, by what the store has of it."""
        if copy.schema > schema.VERSION:
            raise Unavailable(
                f"the backup of {copy.agent!r} has schema {copy.schema}; this version reads up to"
                f" {schema.VERSION}: upgrade elytron"
            )
        self._backup.verify(copy)
        folder = files.agent_folder(self._store, copy.agent)
        self._clear_beside(folder)
        if not files.may_hold_ledger(folder):
            return self._put(copy, "new")
        seen = files.file_id(folder / files.LEDGER)
        present = self._look(copy)
        if not present.is_whole:  # or a read failed, once
            present = self._look(copy)
        if not present.is_whole:
            return self._mend(copy, present, seen)
        if present.is_same:
            return _report(copy, "same")
        if not self._replace and self._dry_run:
            return _report(copy, "differs")
        if not self._replace:
            raise Conflict(
                f"{copy.agent!r} is in {self._store} and whole, with {present.messages} messages;"
                " nothing was changed: restore to another place, or add `--replace`"
                " (`replace=True`) to put the backup in its place"
            )
        if present.messages + present.archived and not copy.messages + copy.archived:
            raise Conflict(
                f"the backup of {copy.agent!r} is empty, and its memory holds {present.messages}"
                f" messages and {present.archived} archived; nothing was changed: `elytron clear`"
                " empties it, if that is meant"
            )
        return self._put(copy, "replaced")

    def _clear_beside(self, folder: Path) -> None:
        """Remove what was left by one that was stopped, also where this one has nothing to do."""
        with files.translate_os_errors(folder):
            if self._dry_run or not swapping.unfinished(folder):
                return
            with replacing.only(folder), self._locked(folder):  # a repair holds the second
                for path in swapping.unfinished(folder):
                    if path.name == swapping.BESIDE or not swapping.pending(folder):
                        path.unlink() if path.is_file() else remove_folder(path)

    def _look(self, copy: Copy) -> "_Present":
        """What the store has of an agent."""
        try:
            with self._upkeep.chores(copy.agent) as chores:
                if chores is None:
                    raise Conflict(f"{copy.agent!r} was removed meanwhile; restore it again")
                desk = chores.desk
                report = checking.check(desk, repair=False)
                parts = {found.part for found in report.findings if not _check_mends(found)}
                if parts - {files.ARCHIVE}:
                    return _Present()
                facts = desk.read(facts_within)
                is_its, is_anew = facts.begun_us == copy.begun_us, _is_made_anew(desk)
                if copy.archived and (is_its or is_anew) and is_missing(desk.archive):
                    parts.add(files.ARCHIVE)
                expelled = self._expelled(copy, desk) if is_its else frozenset[int]()
                if not is_its and is_anew and self._lost(copy, desk):
                    return _Present()
                here = (facts.begun_us, facts.sequence, report.messages, report.archived)
                there = (copy.begun_us, copy.sequence, copy.messages, copy.archived)
                is_same = here == there and self._is_same(copy, desk)
                if self._archive_lost(copy, desk, facts):
                    parts.add(files.ARCHIVE)
        except (Corrupt, Unavailable) as error:
            of_disk = getattr(error.__cause__, "errno", None) == errno.EIO
            if isinstance(error, Unavailable) and not (self._replace and of_disk):
                raise
            _log.info("%s", error)
            return _Present()
        return _Present(
            ledger=True,
            archive=not parts,
            is_same=is_same,
            messages=report.messages,
            archived=report.archived,
            expelled=expelled,
        )

    def _is_same(self, copy: Copy, desk: Desk) -> bool:
        """Whether a ledger that has come as far as the copy's says the same."""
        path = self._backup.folder(copy.agent) / copy.ledger.name
        if copy.schema != schema.VERSION:  # brought to this one without a change of what is said
            return desk.read(texts) == texts_within(path)
        return desk.read(told) == told_within(path)

    def _expelled(self, copy: Copy, desk: Desk) -> frozenset[int]:
        """Keys of messages that a repair took out here, since they were damaged, and a copy has."""
        keys = expelling.expelled(desk.ledger.folder)
        if not keys:
            return frozenset()
        path = self._backup.folder(copy.agent) / copy.ledger.name
        there = ids_within(path, keys) - desk.read(all_ids)
        archived = desk.archive.find(there)[0]
        return frozenset(keys) if there - archived.keys() else frozenset()

    def _lost(self, copy: Copy, desk: Desk) -> bool:
        """Whether a ledger that was made anew of a damaged one lacks what the copy has of it."""
        path = self._backup.folder(copy.agent) / copy.ledger.name
        held = desk.read(all_ids)
        gone = desk.read(deleted_keys) - expelling.expelled(desk.ledger.folder)
        missing = ids_but(path, gone) - held
        if not missing <= desk.archive.find(missing)[0].keys():
            return True
        return successors.lost_since(self._backup, copy, desk.archive, held).messages > 0

    def _archive_lost(self, copy: Copy, desk: Desk, facts: Facts) -> bool:
        """
        Whether an archive was begun anew without anything that the copy has of it. Of one that has
        a part, nobody can say whether the rest was lost or deleted since; it is asked for by a
        restore of a copy that was kept for that.
        """
        if facts.begun_us != copy.begun_us or facts.sequence < copy.sequence:
            return False
        held = desk.read(all_ids)
        lost = successors.lost_since(self._backup, copy, desk.archive, held)
        if not (copy.archived and lost.messages):
            return False
        if lost.in_part and self._backup.path.absolute().parent.name != kept.FOLDER:
            return False
        path = self._backup.folder(copy.agent) / copy.ledger.name
        then, now = numbers_within(path), desk.read(numbers)
        # Else the two went on apart, and what the copy has is not missing here.
        return all(one == now.get(key, one) for key, one in then.items())

    def _mend(self, copy: Copy, present: "_Present", seen: tuple[int, int] | None) -> AgentRestored:
        """Keep what is whole of a damaged memory, *seen*, and take the rest from the copy."""
        folder = files.agent_folder(self._store, copy.agent)
        if self._replace:
            return self._put(copy, "replaced")
        with files.translate_os_errors(folder):
            is_there = any((folder / name).exists() for name in replacing.ASIDE)
        if not is_there:
            return self._put(copy, "new")
        if self._dry_run:
            return _report(copy, "salvaged")
        with replacing.only(folder):
            return self._complete(copy, present, seen)

    def _complete(
        self, copy: Copy, present: "_Present", seen: tuple[int, int] | None
    ) -> AgentRestored:
        folder = files.agent_folder(self._store, copy.agent)
        source = self._backup.folder(copy.agent) / copy.ledger.name
        salvaged = None
        if not present.ledger:
            salvaged = salvage(
                self._store,
                copy.agent,
                self._config,
                analyzer=self._analyzer,
                backup=source,
                still=lambda: files.file_id(folder / files.LEDGER) == seen,
            )
        with self._upkeep.chores(copy.agent) as chores:
            assert chores is not None, "it was made anew"
            aside = None if salvaged is None else Path(salvaged.aside)
            aside, again = self._mend_archive(copy, chores.desk, aside)
            back = list[str]()
            if present.expelled:
                meant = present.expelled
                back = filling.fill(
                    chores.desk, self._backup, copy, meant=lambda one: one.key in meant
                )
            expelling.note_returned(folder, numbers_within(source).keys())
            if back:
                chores.restore(back, session=None, since_us=None, until_us=None, on_progress=None)
            report = checking.check(chores.desk, repair=True)
        if not report.ok:
            wrong = next(found.what for found in report.findings if not found.repaired)
            raise Corrupt(  # or the disk failed to read it, once
                f"{copy.agent!r} is still damaged where the backup has nothing: {wrong}; restore"
                " again, and if that says the same add `--replace` to put the backup in its place"
            )
        return replace(
            _report(copy, "salvaged", aside=aside),
            messages=report.messages,
            archived=report.archived,
            salvaged=salvaged,
            again=again,
        )

    def _mend_archive(self, copy: Copy, desk: Desk, aside: Path | None) -> tuple[Path | None, int]:
        """
        Put segments back that are listed and damaged, or the whole archive if it is gone.

        Returns where what was damaged is now: in *aside*, or in a folder that is made for it; and
        how many messages are in the archive again that were nowhere here.
        """
        archive = desk.archive.folder
        kept = {entry.name: entry for entry in self._backup.entries(copy).entries}
        if kept and is_missing(desk.archive):
            with files.translate_os_errors(archive):
                if archive.exists():
                    aside = aside or replacing.new_folder(desk.ledger.folder)
                    archive.replace(aside / files.ARCHIVE)
                return aside, self._put_archive(copy, desk)
        lost = []  # since the backup lists them not
        back = list[str]()
        listed = {entry.name: entry for entry in desk.archive.manifest().entries}
        with files.translate_os_errors(archive):
            for name in desk.archive.damaged():
                if name not in kept:
                    lost += [listed[name]] if name in listed else []
                    continue
                if aside is None:
                    aside = replacing.new_folder(desk.ledger.folder)
                if (archive / name).exists():
                    (archive / name).replace(aside / name)
                source = self._backup.segment(copy.agent, kept[name])
                copy_file(source, archive / name, kept[name].checksum)
                sync_folder(archive)
                back += [] if name in listed else [name]
        if back:  # the listing was made again while they were damaged
            desk.archive.adopt(names=back)
        again = list[str]()
        if successors.lost_since(self._backup, copy, desk.archive, desk.read(all_ids)).messages:
            again = filling.fill(desk, self._backup, copy, meant=filling.all_of_it)
        elif lost:
            again = filling.fill(desk, self._backup, copy, meant=filling.within(lost))
        return aside, len(again)

    def _put_archive(self, copy: Copy, desk: Desk) -> int:
        """
        The copy's archive, completed before it counts: a crash leaves it missing, or whole. Returns
        how many messages it was completed by.
        """
        beside = desk.ledger.folder / swapping.BESIDE
        with replacing.removed_if_stopped(beside):
            self._write_beside(copy, beside)
            archive = Archive(beside / files.ARCHIVE, timeout_s=self._config.save_timeout_s)
            desk = dataclasses.replace(desk, archive=archive)
            # What came back to the ledger since is held there, and nowhere else. What is on its
            # way is left to who moves it.
            held, listed = desk.read(all_ids), archive.manifest().names
            theirs = listed - archiving.moving(desk)
            archive.rewrite(lambda one: one.message.id in held, names=theirs)
            back = filling.fill(desk, self._backup, copy, meant=filling.all_of_it)
            archive.folder.replace(desk.ledger.folder / files.ARCHIVE)
            sync_folder(desk.ledger.folder)
        remove_folder(beside)
        return len(back)

    def _put(self, copy: Copy, how: str) -> AgentRestored:
        """Put the copy in its place; what is there is set aside."""
        if self._dry_run:
            return _report(copy, how)
        files.make_store(self._store)
        folder = files.agent_folder(self._store, copy.agent)
        with files.translate_os_errors(folder):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
            with replacing.only(folder), self._locked(folder):
                if how == "new" and files.has_ledger(folder):
                    raise Conflict(
                        f"{copy.agent!r} was saved to just now, so there is one; nothing was"
                        " changed: restore it again"
                    )
                if Run(folder).others():
                    raise Busy(
                        f"another process moves messages of {copy.agent!r} between ledger and"
                        " archive; nothing was changed: restore it again"
                    )
                beside = folder / swapping.BESIDE
                with replacing.removed_if_stopped(beside):
                    self._write_beside(copy, beside)
                    deleted.lift(self._store, copy.agent)
                aside = replacing.swap(folder, copy.agent)
        there = numbers_within(self._backup.folder(copy.agent) / copy.ledger.name)
        expelling.note_returned(folder, there.keys())
        return _report(copy, how, aside=aside)

    @contextlib.contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Nobody commits to the agent meanwhile."""
        limit_s = self._config.save_timeout_s
        with contextlib.closing(FileLock(folder / files.LOCK)) as lock:
            try:
                # Within, since Ctrl-C may strike between the two; to release twice is harmless.
                lock.acquire(time.monotonic() + limit_s, limit_s)
                yield
            finally:
                lock.release()

    def _write_beside(self, copy: Copy, beside: Path) -> None:
        """The copy's ledger and archive, durably, where they count for nothing yet."""
        remove_folder(beside)  # of a restore that was stopped
        beside.mkdir()
        source = self._backup.folder(copy.agent) / copy.ledger.name
        copy_file(source, beside / files.LEDGER, copy.ledger.checksum)
        held = self._backup.entries(copy)
        if held != Manifest() or held.mark:  # else what is archived next would be begun anew
            archive = beside / files.ARCHIVE
            archive.mkdir()
            for entry in held.entries:
                source = self._backup.segment(copy.agent, entry)
                copy_file(source, archive / entry.name, entry.checksum)
            write_file(archive / manifest.FILE, manifest.serialised(held))
            sync_folder(archive)
        sync_folder(beside)


def _is_made_anew(desk: Desk) -> bool:
    """Whether a ledger may have been made of a damaged one: files set aside alone do not tell."""
    return bool(desk.read(repaired_us) and swapping.aside_folders(desk.ledger.folder))


def _check_mends(found: Finding) -> bool:
    """Whether nothing of the backup is needed: it was repaired, or a check can do that."""
    return found.repaired or (found.repairable and found.part not in (checking.FILE, checking.LOG))


def _report(copy: Copy, how: str, *, aside: Path | None = None) -> AgentRestored:
    return AgentRestored(
        copy.agent,
        how,
        copy.messages,
        copy.archived,
        datetime.fromtimestamp(copy.at_us / 1e6, UTC),
        None if aside is None else str(aside),
    )
