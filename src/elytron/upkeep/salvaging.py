"""
Salvaging: a new ledger from what is whole of a damaged one.

It is made beside the old one, from its pages, from logs that were set aside because SQLite had
stopped in them, from the archive, and from a backup if there is one. It is checked as any other
ledger, and only then takes the old one's place (`ledger/swapping.py`), which is kept. Words are
made anew from the texts; vectors and the graph by those who make them always.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypeVar

from elytron.archive import Archive, Archived
from elytron.config import Config
from elytron.errors import Busy, Corrupt, Unavailable
from elytron.ledger import files, frames, ops, rescued, schema, swapping
from elytron.ledger.connection import STORAGE_ERRORS, translate
from elytron.ledger.lock import FileLock
from elytron.ledger.opening import LedgerFile
from elytron.ledger.pages import Image
from elytron.ledger.pool import Slots
from elytron.ledger.rescued import Outline
from elytron.ledger.sqlite import Ledger
from elytron.ledger.uses import Uses
from elytron.reports import Salvaged
from elytron.text import Analyzer
from elytron.upkeep import checking, expelling, unread
from elytron.upkeep.clock import Clock
from elytron.upkeep.desk import Desk
from elytron.upkeep.gathering import Gathering, Source
from elytron.upkeep.restoring import returning_of
from elytron.upkeep.runs import Run

_T = TypeVar("_T")
_log = logging.getLogger("elytron.upkeep")
_MB = 1 << 20
_LOST_NAMED_MAX = 100
_RESTORED_AT_ONCE = 50


def salvage(
    store: Path,
    name: str,
    config: Config,
    *,
    analyzer: Analyzer,
    backup: Path | None = None,
    still: Callable[[], bool] = lambda: True,
) -> Salvaged:
    """
    Put a new ledger with all that is whole in the place of an agent's damaged one.

    No store of this process may have the agent open. Others that have it open go on with the
    new ledger, and lose nothing that was acknowledged to them before.

    Args:
        backup: another ledger file of this agent, for what is damaged or gone here. What is not
            there any more because it was deleted does not come back, as far as the list of
            changes tells.
        still: asked once nobody else can replace the ledger: whether it is the one that is meant.

    Raises:
        Corrupt: the files say that they are another agent's, or the backup is; or what was made
            is not whole. Nothing was replaced.
        Busy: others held the ledger's lock for `save_timeout_s`, have replaced it, or move messages
            between it and the archive.
        DiskFull, Unavailable: as they say; nothing was replaced.
    """
    folder = files.agent_folder(store, name)
    with files.translate_os_errors(folder):
        lock = FileLock(folder / files.LOCK)
    try:
        lock.acquire(time.monotonic() + config.save_timeout_s, config.save_timeout_s)
        if not lock.has_its_name():
            raise Busy(f"{name!r} was deleted just now; nothing was replaced: look again")
        swapping.finish(folder)
        _check_whose(folder, name)
        _check_alone(folder, name, still)
        with files.translate_os_errors(folder):
            shutil.rmtree(folder / swapping.PART, ignore_errors=True)  # of one that was cut short
            try:
                return _Salvage(folder, name, config, analyzer, backup).run()
            except BaseException:
                if not swapping.pending(folder):
                    shutil.rmtree(folder / swapping.PART, ignore_errors=True)
                raise
    finally:
        lock.close()


def _check_whose(folder: Path, name: str) -> None:
    try:
        marked = files.read_marker(folder)
    except Corrupt as error:  # it is written anew
        _log.warning("%s", error)
        return
    if marked is not None and marked != name:
        raise Corrupt(
            f"{folder} holds the memory of {marked!r}, not of {name!r}; it was left as it is"
        )


def _check_alone(folder: Path, name: str, still: Callable[[], bool]) -> None:
    """
    Raises:
        Busy: another process has made a new ledger just now; or it moves messages, and what it has
            copied to the archive and not removed here yet would be in both for ever.
    """
    if not still():
        raise Busy(
            f"the ledger of {name!r} was replaced by another process meanwhile; nothing was"
            " changed: check again"
        )
    if Run(folder).others():
        raise Busy(
            f"another process moves messages of {name!r} between ledger and archive; nothing was"
            " changed: retry, and if it hangs, end it"
        )


class _Salvage:
    """One salvage. Use once, under the ledger's lock."""

    def __init__(
        self, folder: Path, name: str, config: Config, analyzer: Analyzer, backup: Path | None
    ) -> None:
        self._folder = folder
        self._path = folder / files.LEDGER
        self._name = name
        self._analyzer = analyzer
        self._backup = backup
        self._archive = Archive(folder / files.ARCHIVE, timeout_s=config.save_timeout_s)
        held_bytes = files.file_size(self._path) + sum(map(files.file_size, self._logs()))
        if backup is not None:
            held_bytes += files.file_size(backup)
        # What was allowed to be there is allowed to be saved.
        self._config = replace(
            config,
            max_db_size_mb=config.max_db_size_mb + 4 * (held_bytes / _MB + 1),
            max_messages_per_agent=max(config.max_messages_per_agent, 100_000_000),
            max_total_mb=None,
            enable_embeddings=False,
        )
        self._new = LedgerFile(folder / swapping.PART, name, self._config, vfs=None)

    def _logs(self) -> list[Path]:
        return [*frames.aside(self._path), self._path.with_name(f"{self._path.name}-wal")]

    def _read_logs(self) -> Iterator[frames.Log]:
        return (log for log in map(frames.read, self._logs()) if log.count)

    def run(self) -> Salvaged:
        with contextlib.ExitStack() as images:
            main = images.enter_context(self._main())
            later = list(self._later(main, images))
            backup = images.enter_context(self._from_backup(main, later))
            report = self._fill(main, later, backup)
        aside = f"{swapping.ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        swapping.begin(self._folder, agent=self._name, new=self._new.path, aside=aside)
        swapping.finish(self._folder)
        report = replace(report, aside=str(self._folder / aside))
        kept = report.kept.get("messages", 0)
        _log.warning("%s: %d messages kept, %d lost", self._path, kept, report.lost)
        return report

    # -- sources

    @contextlib.contextmanager
    def _main(self) -> Iterator[Source]:
        """The ledger as SQLite would read it, if it could."""
        log = frames.read(self._logs()[-1])
        with _image(self._path, log) as image:
            found = rescued.outline(image)
            if found.agent is not None and found.agent != self._name:
                raise Corrupt(
                    f"{self._path} is the memory of {found.agent!r}, not of {self._name!r};"
                    " it was left as it is"
                )
            if image.schema_version() > schema.VERSION:
                raise Unavailable(
                    f"{self._path} has schema {image.schema_version()}; this version reads up to"
                    f" {schema.VERSION}: upgrade elytron"
                )
            yield Source(image, found)

    def _later(self, main: Source, images: contextlib.ExitStack) -> Iterator[Source]:
        """What stands in logs in commits that SQLite did not read."""

        @cache
        def archived() -> unread.Archived:
            found = list(self._archived(lambda one: (one.message.id, one.session_key)))
            return unread.Archived(frozenset(dict(found)), frozenset(dict(found).values()))

        for path in self._logs():
            log = frames.read(path)
            if log.count:
                at_us = path.stat().st_mtime_ns // 1000
                yield from unread.sources(
                    log, main, images, ledger=self._path, at_us=at_us, archived=archived
                )

    @contextlib.contextmanager
    def _from_backup(self, main: Source, later: list[Source]) -> Iterator[Source | None]:
        if self._backup is None:
            yield None
            return
        if not self._backup.is_file():
            raise Unavailable(f"{self._backup} is no file: name the ledger in a backup")
        log = frames.read(self._backup.with_name(f"{self._backup.name}-wal"))
        with _image(self._backup, log, is_whole=True) as image:
            outline = rescued.outline(image)
            if outline.agent != self._name:
                raise Corrupt(
                    f"{self._backup} is no backup of {self._name!r}, or cannot be read; nothing was"
                    " changed: look at its disk, and restore again"
                )
            yield Source(
                image,
                outline,
                skip=frozenset(self._gone(main, later, outline)),
                skip_ids=frozenset(self._archived(lambda archived: archived.message.id)),
            )

    def _gone(self, main: Source, later: list[Source], backup: Outline | None) -> dict[int, int]:
        """
        What was deleted, each key with its kind, and shall not come back: not what a repair took
        out of here since it was damaged; nor, from a *backup* from before it was made anew, what
        had a number that it has given away since.
        """
        gone, expelled = _deleted(main, later), expelling.expelled(self._folder)
        made_at = main.outline.made_at
        upto = made_at if backup is not None and backup.made_at != made_at else 0
        return {
            key: kind for key, kind in gone.items() if key not in expelled and not 0 < upto < key
        }

    def _archived(self, what: Callable[[Archived], _T]) -> Iterator[_T]:
        """Something of each message in the archive that can be read."""
        if not self._archive.exists():
            return
        for entry in self._archive.manifest().entries:
            try:
                for archived in self._archive.read(entry):
                    yield what(archived)
            except Corrupt as error:  # `check` names it
                _log.warning("%s", error)

    # -- the new ledger

    def _fill(self, main: Source, later: list[Source], backup: Source | None) -> Salvaged:
        sources = [main, *later, *([backup] if backup else [])]
        last = max([source.outline.last for source in sources])
        keys = self._archived(lambda archived: max(archived.key, archived.session_key))
        last = max([last, *keys])
        sessions: dict[int, str] = {}

        def session_id(key: int) -> str | None:
            if not sessions:
                named = self._archived(lambda a: (a.session_key, a.message.session))
                sessions.update(named)
            return sessions.get(key)

        self._new.folder.mkdir(parents=True)
        self._new.begin(lambda _deadline: contextlib.nullcontext())
        try:
            db = self._new.connect(create=False)
            try:
                gathering = Gathering(db, last=last, session_id=session_id)
                for source in sources:
                    gathering.take(source)
                gathering.hear(main)
                segments = []
                if self._archive.exists():
                    segments = [entry.name for entry in self._archive.manifest().entries]
                gathering.finish(self._gone(main, later, None))
                lost = self._lost(main, later, gathering.used)
                with self._desk() as desk:
                    returned = self._from_archive(desk, lost)
                    _verify(desk)
                gathering.note_moving(segments)
            finally:
                db.close()
        except STORAGE_ERRORS as error:
            raise translate(error, self._new.path) from error
        named = {one for one in lost.values() if one is not None} - returned
        return Salvaged(
            self._name,
            dict(main.taken),
            later=sum([source.taken["messages"] for source in later]),
            from_archive=len(returned),
            from_backup=0 if backup is None else backup.taken["messages"],
            lost=len(lost) - len(returned),
            lost_ids=tuple(sorted(named)[:_LOST_NAMED_MAX]),
            nameless=gathering.nameless,
            damaged_pages=main.outline.damaged_pages,
            log_pages=sum([unread.damaged_pages(log, main) for log in self._read_logs()]),
            held_nothing=main.outline.agent is not None
            and not (main.outline.messages or main.outline.damaged_pages),
        )

    def _lost(self, main: Source, later: list[Source], used: set[int]) -> dict[int, str | None]:
        """The messages that there were and that no source has whole, with their ids if known."""
        lost = main.outline.messages - used - _deleted(main, later).keys()
        return {key: main.outline.ids.get(key) for key in sorted(lost)}

    def _from_archive(self, desk: Desk, lost: dict[int, str | None]) -> set[str]:
        """Bring back what is lost here and stands in the archive; the ids of that."""
        ids = [one for one in lost.values() if one is not None]
        if not ids or not self._archive.exists():
            return set()
        found, _ = self._archive.find(ids)
        returning = [returning_of(desk, archived) for archived in found.values()]
        for start in range(0, len(returning), _RESTORED_AT_ONCE):
            desk.commit(ops.Restore(tuple(returning[start : start + _RESTORED_AT_ONCE])))
        return set(found)

    @contextlib.contextmanager
    def _desk(self) -> Iterator[Desk]:
        part = self._folder / swapping.PART
        uses = Uses.of(self._config.wal_limit_bytes)
        slots = Slots(in_use_max=2, spare_max=0)
        ledger = Ledger(part, self._name, self._config, slots=slots, upkeep=True, uses=uses)
        ledger.open(create=False)
        try:
            archive = Archive(ledger.folder / files.ARCHIVE, timeout_s=self._config.save_timeout_s)
            run = Run(ledger.folder)
            try:
                yield Desk(
                    self._name, ledger, archive, self._config, self._analyzer, Clock(), run, uses
                )
            finally:
                run.end()
        finally:
            ledger.close()


def _deleted(main: Source, later: list[Source]) -> dict[int, int]:
    """What was deleted, as far as the lists of changes tell."""
    return rescued.deleted_in([source.outline for source in (main, *later)])


def _verify(desk: Desk) -> None:
    """
    Index the words, and see that the new ledger is whole.

    Raises:
        Corrupt: it is not.
    """
    checking.reindex(desk)
    report = checking.check(desk, repair=True)
    if not report.ok:
        wrong = next(found.what for found in report.findings if not found.repaired)
        raise Corrupt(
            f"what was made of {desk.name!r} is not whole: {wrong}; nothing was replaced: restore"
            " it from a backup"
        )


@contextlib.contextmanager
def _image(path: Path, log: frames.Log, *, is_whole: bool = False) -> Iterator[Image]:
    """A ledger's pages, with those of its log up to the last commit that is whole."""
    valid = log.valid()
    image = Image(
        path,
        over=log.pages(range(1, valid + 1)),
        count=log.commits(valid) if valid else None,
        is_whole=is_whole,
    )
    try:
        yield image
    finally:
        image.close()
