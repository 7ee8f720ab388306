"""
The listing: which segments of a folder count, and how that changes.

A change is made in this order: new segments are written and synced, the manifest is replaced,
old segments are unlinked. So a process that dies between any two steps leaves every message in a
segment that is listed, or in one that `adopt` finds. Changes are made one at a time, under a lock
for threads and processes; readers take none.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from elytron.archive import manifest as manifests
from elytron.archive.durable import PART
from elytron.archive.entries import Entry, Manifest
from elytron.archive.segments import SEGMENT_NAME, examine
from elytron.errors import Busy, Conflict, Corrupt
from elytron.ledger.files import sync_folder, translate_os_errors
from elytron.ledger.lock import FileLock

LOCK = "lock"
PART_MAX_AGE_S = 3600
_log = logging.getLogger("elytron.archive")
_Key = tuple[int, int, int]


class Listing:
    """The manifest of one folder of segments. Safe for many threads and processes."""

    def __init__(self, folder: Path, *, timeout_s: float) -> None:
        self.folder = folder
        self._timeout_s = timeout_s
        self._mutex = threading.Lock()
        self._path = folder / manifests.FILE
        self._known: tuple[_Key, Manifest] | None = None

    def exists(self) -> bool:
        """Whether anything was ever archived. One `stat`."""
        with translate_os_errors(self.folder):
            return self.folder.is_dir()

    def manifest(self) -> Manifest:
        """
        What the archive holds, as of now. Costs a `stat` while nothing changes.

        If the manifest is damaged, or missing while there are segments, it is made again of
        those that can be read, with a warning. That takes as long as reading them all.

        Raises:
            Unavailable: the disk cannot be read, or a newer version wrote the manifest.
            Busy, DiskFull: only while a manifest is made again.
        """
        held = self._load()
        if held is not None:
            return held
        with translate_os_errors(self.folder):
            if not self._on_disk() and not self._path.exists():
                return Manifest()
        with self._locked():
            return self._load() or self._rebuild()

    @property
    def bytes(self) -> int:
        """What the archive takes on the disk: every segment, listed or not, and the manifest."""
        with translate_os_errors(self.folder):
            sizes = self._on_disk()
            with contextlib.suppress(FileNotFoundError):
                return sum(sizes.values()) + self._path.stat().st_size
            return sum(sizes.values())

    @property
    def folder_bytes(self) -> int:
        """All that lies in the folder, also what is being written."""
        total = 0
        with (
            translate_os_errors(self.folder),
            contextlib.suppress(FileNotFoundError),
            os.scandir(self.folder) as found,
        ):
            for file in found:
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                    total += file.stat(follow_symlinks=False).st_size
        return total

    def publish(
        self,
        *,
        add: Sequence[Entry] = (),
        remove: Collection[str] = (),
        needs: Collection[str] = (),
        dropped_messages: int = 0,
        dropped_segments: int = 0,
    ) -> None:
        """
        Have segments count, and others count no longer, in one step; unlink the latter.

        Segments that replace others take their place in the order. Adding what is listed
        already is harmless.

        Raises:
            Conflict: one to remove, or one in *needs*, is no longer listed, or the file of one to
                add is gone.
            DiskFull, Unavailable, Busy: nothing was changed either.
            OutcomeUnknown: the change may come undone in a power cut; no file was unlinked.
        """
        if not (add or remove or dropped_messages or dropped_segments):
            return
        if not self.exists():
            raise Conflict(f"{self.folder} is gone, and the segments in it; nothing was changed")
        with self._locked():
            held = self._load() or self._rebuild()
            new = manifests.changed(
                held,
                add=add,
                remove=remove,
                dropped_messages=dropped_messages,
                dropped_segments=dropped_segments,
            )
            if not held.names.issuperset(needs):
                raise Conflict(
                    f"a segment in {self.folder} was replaced meanwhile; nothing was changed"
                )
            sizes = self._on_disk()
            for entry in add:
                if entry.name not in held.names and sizes.get(entry.name) != entry.bytes:
                    raise Conflict(
                        f"archive segment {entry.name} was removed before it was published;"
                        " nothing was changed: write it again"
                    )
            self._commit(new)

    def discard(self, entries: Sequence[Entry]) -> None:
        """Remove segments that were written and will not be published. Listed ones stay."""
        if not entries:
            return
        with self._locked():
            held = self._load()
            if held is None:
                return  # `_rebuild` lists whatever it finds, so nothing may be taken from it
            for entry in entries:
                if entry.name not in held.names:
                    (self.folder / entry.name).unlink(missing_ok=True)

    def _adopt(
        self,
        names: Collection[str] | None,
        *,
        now_s: float,
        is_held: Callable[[Manifest, Entry], bool],
    ) -> list[Entry]:
        """List what is on the disk and not listed, but for what *is_held* knows elsewhere."""
        if not self.exists():
            return []
        with translate_os_errors(self.folder):
            self._remove_parts(now_s)
            held = self._load()
            on_disk = self._on_disk()
            if held is None and not on_disk and not self._path.exists():
                return []
            if held is not None and held.names.issuperset(on_disk):
                return []
        with self._locked():
            held = self._load()
            if held is None:
                return list(self._rebuild().entries)
            new = []
            unlisted = set(self._on_disk()) - held.names - set(held.removed)
            for entry in self._whole(unlisted if names is None else unlisted.intersection(names)):
                if is_held(held, entry):
                    _log.info("archive segment %s was left by a crash; removed", entry.name)
                    (self.folder / entry.name).unlink(missing_ok=True)
                else:
                    new.append(entry)
            if new:
                _log.warning("%d archive segments were not listed; they are again", len(new))
                self._commit(replace(held, entries=(*held.entries, *new)))
            else:
                sync_folder(self.folder)  # the manifest that names the removed may be new
                self._unlink(held.removed)
        return new

    def _strays(self) -> list[str]:
        """Segments on the disk that neither count nor wait to be unlinked."""
        held = self.manifest()
        with translate_os_errors(self.folder):
            return sorted(set(self._on_disk()) - held.names - set(held.removed))

    def _begin(self) -> None:
        """Make the folder and an empty manifest, so that a missing one is known to be lost."""
        with translate_os_errors(self.folder):
            if self._path.exists():
                return
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.folder)
            sync_folder(self.folder.parent)
        with self._locked():
            if self._load() is None and not self._on_disk():
                self._commit(Manifest(mark=manifests.new_mark(manifests.BEGUN)))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone, among threads and processes."""
        deadline = time.monotonic() + self._timeout_s
        held = False
        try:
            # Within, since Ctrl-C may strike between the two.
            held = self._mutex.acquire(timeout=self._timeout_s)
            if not held:
                raise Busy(
                    f"another thread changed {self.folder} for {self._timeout_s:g} s and nothing"
                    " was written; retry later, or raise `save_timeout_s`"
                )
            with translate_os_errors(self.folder):
                # Opened for each change: thousands of agents must not hold a descriptor each.
                lock = FileLock(self.folder / LOCK)
                with contextlib.closing(lock):
                    lock.acquire(deadline, self._timeout_s)
                    try:
                        yield
                    finally:
                        lock.release()
        finally:
            if held:
                self._mutex.release()

    def _load(self) -> Manifest | None:
        """The manifest, from memory if its file is the same; None if it is damaged or missing."""
        with translate_os_errors(self.folder):
            try:
                status = self._path.stat()
            except FileNotFoundError:
                return None
        key = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._known
        if known is not None and known[0] == key:
            return known[1]
        held = manifests.read(self._path)
        if held is not None:
            self._known = (key, held)
        return held

    def _commit(self, manifest: Manifest) -> None:
        """Replace the manifest, and unlink what no longer counts. Under the lock."""
        on_disk = self._on_disk()
        removed = tuple(name for name in manifest.removed if name in on_disk)
        mark = manifest.mark or manifests.new_mark(manifests.FOUND)
        manifests.write(self._path, replace(manifest, removed=removed, mark=mark))
        self._unlink(removed)

    def _unlink(self, names: Collection[str]) -> None:
        """
        Remove files that no longer count. The manifest that says so has to be durable.

        A failure is logged and no more: their names stay in the manifest until they are gone.
        """
        try:
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
            if names:
                sync_folder(self.folder)
        except OSError as error:
            _log.warning("%s: a removed segment is still there: %s", self.folder, error.strerror)

    def _rebuild(self) -> Manifest:
        """Make a manifest of every segment that can be read. Under the lock."""
        _log.warning("%s is damaged or missing; it is made again", self._path)
        mark = manifests.new_mark(manifests.BEGUN)  # what could not be read is not in it
        rebuilt = Manifest(tuple(self._whole(self._on_disk())), mark=mark)
        self._commit(rebuilt)
        return rebuilt

    def _whole(self, names: Collection[str]) -> list[Entry]:
        """Those of the segments that can be read to their end, in the order of their names."""
        entries = []
        for name in sorted(names):
            try:
                entries.append(examine(self.folder, name))
            except Corrupt as error:
                _log.warning("%s", error)
        return entries

    def _on_disk(self) -> dict[str, int]:
        """The segments in the folder, listed or not: name and bytes."""
        sizes = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as files:
            for file in files:
                if SEGMENT_NAME.fullmatch(file.name):
                    with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                        sizes[file.name] = file.stat(follow_symlinks=False).st_size
        return sizes

    def _remove_parts(self, now_s: float) -> None:
        for part in self.folder.glob(f"*{PART}"):
            with contextlib.suppress(FileNotFoundError):  # its writer is alive after all
                if part.stat().st_mtime < now_s - PART_MAX_AGE_S:
                    part.unlink()
