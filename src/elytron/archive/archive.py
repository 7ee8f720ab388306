"""
The archive of one agent: its messages, wherever they are in the segments.

Readers take no lock: a segment never changes, and a reader who finds one gone reads the manifest
again. How the listing changes is decided in `listing.py`.
"""

import itertools
import logging
import sys
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from elytron.archive.coding import encode, to_time
from elytron.archive.entries import Archived, Dropped, Entry, Manifest, Rewritten
from elytron.archive.listing import Listing
from elytron.archive.merging import plan_merge
from elytron.archive.segments import SegmentWriter, examine, hash_id, read_segment
from elytron.archive.trailers import Trailers, is_among
from elytron.errors import Conflict, Corrupt, ElytronError
from elytron.ledger.files import sync_folder, translate_os_errors
from elytron.reports import ArchiveUsage

_ATTEMPTS_MAX = 5  # when others change the archive at the same time
_log = logging.getLogger("elytron.archive")


class Archive(Listing):
    """Segments of archived messages. Safe for many threads and processes."""

    def __init__(self, folder: Path, *, timeout_s: float) -> None:
        """
        Nothing is made on the disk before the first message is written.

        Args:
            folder: `archive` in the agent's folder, which has to be there.
            timeout_s: how long a change waits for those of others.
        """
        super().__init__(folder, timeout_s=timeout_s)
        self._trailers = Trailers(folder)
        self._together: tuple[Manifest, array[int] | None] | None = None

    def write(self, messages: Iterable[Archived], *, written_us: int | None = None) -> list[Entry]:
        """
        Write segments, durably; they do not count until they are published.

        *messages* are taken one by one. A segment is closed at 5000 of them or 8 MB of lines.

        Args:
            written_us: when they left the ledger, if that is not now.

        Raises:
            InvalidArgument: a message that is no JSON or over 64 MB; what was written is removed.
            DiskFull, Unavailable, Busy: the same. What was published before is untouched.
        """
        written: list[Entry] = []
        writer: SegmentWriter | None = None
        before: Archived | None = None
        try:
            for archived in messages:
                line = encode(archived, before)
                if writer is None or not writer.has_room(len(line)):
                    if writer is None:
                        self._begin()
                    else:
                        written.append(writer.finish())
                    writer = SegmentWriter(self.folder, written_us=written_us)
                    line = encode(archived, None)
                writer.add(archived, line)
                before = archived
            if writer is not None:
                written.append(writer.finish())
                with translate_os_errors(self.folder):
                    sync_folder(self.folder)
        except BaseException:
            if writer is not None:
                writer.abandon()
            self._discard_after_error(written)
            raise
        return written

    def read(self, entry: Entry) -> Iterator[Archived]:
        """
        The messages of a segment, in order; its checksum is compared first.

        Raises:
            Corrupt: it is damaged in any way, or missing; also if another process has replaced
                it since, and then the manifest no longer lists it.
            Unavailable: it cannot be opened, though it may be well.
        """
        return read_segment(self.folder, entry)

    def holding(self, ids: Iterable[str]) -> dict[str, list[Entry]]:
        """
        For each id the segments that may hold it, by their trailers alone.

        One that does not is named once in a million times. One whose trailer is damaged is
        named for every id: reading it tells what is wrong.
        """
        asked = list(dict.fromkeys(ids))
        holding: dict[str, list[Entry]] = {one: [] for one in asked}
        for entry, some in self._holding(self.manifest(), asked):
            for one in some:
                holding[one].append(entry)
        return holding

    def hashes(self, entry: Entry) -> "array[int]":
        """The hashes of the ids in a segment, rising; none, if its trailer is damaged."""
        return self._trailers.hashes(entry.name)

    def find(self, ids: Iterable[str]) -> tuple[dict[str, Archived], dict[str, str]]:
        """
        The messages with these ids, and segments that may hold some but are damaged, with why.

        Of two messages with one id, the one that was archived later.
        """
        asked = list(dict.fromkeys(ids))
        for _ in range(_ATTEMPTS_MAX):
            found, damaged = self._find(self.manifest(), asked)
            if not damaged or self.manifest().names.issuperset(damaged):
                break  # else one was replaced meanwhile, and what it held is elsewhere
        return found, damaged

    def rewrite(
        self, drop: Callable[[Archived], bool], *, names: Collection[str] | None = None
    ) -> Rewritten:
        """
        Take messages out for good: each segment with one that *drop* names is written anew.

        *drop* is asked about a message more than once. Other segments stay as they are, to the
        byte. With *names* only those segments are read, unless one has been replaced since.

        Raises:
            Conflict: others kept changing the archive; some messages may be out already.
            DiskFull, Unavailable, Busy, OutcomeUnknown: the same; repeat it.
        """
        removed = 0
        added: list[str] = []

        def look(entry: Entry) -> list[str]:
            nonlocal removed
            if not any(drop(archived) for archived in self.read(entry)):
                return []
            new = self.replace([entry], (a for a in self.read(entry) if not drop(a)))
            removed += entry.messages - sum(kept.messages for kept in new)
            added.extend([kept.name for kept in new])
            return [kept.name for kept in new]

        damaged = self._visit(look, names)
        return Rewritten(removed, damaged, tuple(added))

    def replace(
        self, old: Sequence[Entry], messages: Iterable[Archived], *, needs: Collection[str] = ()
    ) -> list[Entry]:
        """
        Put segments with *messages* in the place of *old*; returns the new.

        Raises:
            Conflict: one of *old*, or of those named in *needs*, is no longer listed; nothing was
                changed.
        """
        # They did not leave the ledger again: what counts the arrivals of a week goes by that.
        weighed_us = sum([entry.written_us * entry.messages for entry in old])
        count = sum([entry.messages for entry in old])
        new = self.write(messages, written_us=weighed_us // count if count else None)
        try:
            self.publish(add=new, remove=[entry.name for entry in old], needs=needs)
        except BaseException:
            self._discard_after_error(new)
            raise
        return new

    def merge(
        self,
        *,
        skip: Callable[[], Collection[str]] = frozenset,
        room_bytes: Callable[[], int] = lambda: sys.maxsize,
    ) -> int:
        """
        Join small segments with their neighbours; returns by how many there are fewer.

        Afterwards a few small ones are left behind what is large (`merging.py`). Damaged ones are
        left as they are, and so are those that *skip* names; the rest is left to the next time if
        others are at it.

        Args:
            skip: asked once the listing is read, so that what is listed and not named then was
                listed before.
            room_bytes: what the segments that are joined may take at most; for a moment they are
                there twice.
        """
        fewer, broken = 0, set[str]()
        while True:
            entries = self.manifest().entries
            alone = {*skip(), *broken}
            for group in plan_merge(entries, skip=alone, bytes_max=room_bytes()):
                if sum([entry.bytes for entry in group]) > room_bytes():  # by others meanwhile
                    continue
                try:
                    messages = itertools.chain.from_iterable(map(self.read, group))
                    new = self.replace(group, _once(messages))
                except Conflict as error:
                    _log.info("%d archive segments were not merged: %s", len(group), error)
                    return fewer
                except Corrupt as error:
                    found = [entry.name for entry in group if self._why_damaged(entry) is not None]
                    if not found:  # one was replaced meanwhile, so others are at it
                        return fewer
                    _log.warning("%d archive segments were not merged: %s", len(found), error)
                    broken.update(found)
                    break
                fewer += len(group) - len(new)
            else:
                return fewer

    def drop_oldest(
        self, limit_bytes: int, *, skip: Callable[[], Collection[str]] = frozenset
    ) -> Dropped:
        """
        Drop whole segments until the others have at most *limit_bytes*; they are gone.

        The oldest first: that whose latest message is the earliest. Those that *skip* names stay;
        it is asked as by `merge`.

        Raises:
            Conflict: others kept changing the archive; nothing was dropped.
        """
        conflicts = 0
        while True:
            entries = self.manifest().entries
            oldest = _oldest(entries, limit_bytes=limit_bytes, skip=skip())
            dropped = Dropped(
                len(oldest),
                sum(entry.messages for entry in oldest),
                sum(entry.bytes for entry in oldest),
            )
            try:
                self.publish(
                    remove=[entry.name for entry in oldest],
                    dropped_messages=dropped.messages,
                    dropped_segments=dropped.segments,
                )
            except Conflict as error:
                conflicts = _next_attempt(conflicts, error)
            else:
                return dropped

    def adopt(
        self, *, names: Collection[str] | None = None, now_s: float | None = None
    ) -> list[Entry]:
        """
        List segments on the disk that the manifest does not: a process died before it could. Of
        these *names*, if given: those that came since may be of a process that is about to.

        Removed are those whose every message is listed elsewhere (left by a merge or a rewrite
        that did not come to its end), those that no longer counted, and unfinished files older
        than an hour by *now_s*, which is the clock's time unless given. What cannot be read is
        left where it is, with a warning in the log. If the manifest had to be made again, what
        is returned is all that it lists now.
        """
        return self._adopt(
            names, now_s=time.time() if now_s is None else now_s, is_held=self._is_held
        )

    def damaged(self, see: Callable[[Archived], object] = bool) -> dict[str, str]:
        """
        Read everything: the names of damaged segments, listed or not, each with why. *see* is
        given each message.
        """

        def look(entry: Entry) -> list[str]:
            for archived in self.read(entry):
                see(archived)
            return []

        found = self._visit(look, None)
        for name in self._strays():
            try:
                examine(self.folder, name)
            except Corrupt as error:
                found[name] = str(error)
        return found

    def written_since(self, at_us: int) -> int:
        """How many messages left the ledger from a time on, by the names of their segments."""
        entries = self.manifest().entries
        return sum([entry.messages for entry in entries if entry.written_us >= at_us])

    def usage(self) -> ArchiveUsage:
        held = self.manifest()
        entries = held.entries
        return ArchiveUsage(
            messages=held.messages,
            segments=len(entries),
            bytes=self.bytes,
            first_at=to_time(min(entry.first_us for entry in entries)) if entries else None,
            last_at=to_time(max(entry.last_us for entry in entries)) if entries else None,
            dropped=held.dropped_messages,
            dropped_segments=held.dropped_segments,
        )

    def _holding(self, held: Manifest, ids: Iterable[str]) -> Iterator[tuple[Entry, list[str]]]:
        """Each segment that may hold some of the ids, with which."""
        together = self._together
        if together is None or together[0] is not held:
            names = [entry.name for entry in held.entries]
            self._trailers.keep_only(frozenset(names))
            together = self._together = held, self._trailers.together(names, held.messages)
        by_hash = defaultdict(list)
        for one in ids:
            hashed_id = hash_id(one)
            if together[1] is None or is_among(together[1], hashed_id):
                by_hash[hashed_id].append(one)
        for entry in held.entries if by_hash else ():
            hashes = self._trailers.may_hold(entry.name, by_hash)
            if hashes:
                yield entry, [one for hashed_id in hashes for one in by_hash[hashed_id]]

    def _find(
        self, held: Manifest, ids: Iterable[str]
    ) -> tuple[dict[str, Archived], dict[str, str]]:
        found: dict[str, Archived] = {}
        damaged: dict[str, str] = {}
        for entry, some in self._holding(held, ids):
            wanted = set(some)
            try:
                for archived in self.read(entry):
                    if archived.message.id in wanted:
                        found[archived.message.id] = archived
            except Corrupt as error:
                damaged[entry.name] = str(error)
        return found, damaged

    def _is_held(self, held: Manifest, entry: Entry) -> bool:
        """Whether each message of *entry* is in a listed segment, and the same."""
        ids = [archived.message.id for archived in self.read(entry)]
        found, _ = self._find(held, ids)
        return all(found.get(archived.message.id) == archived for archived in self.read(entry))

    def _why_damaged(self, entry: Entry) -> str | None:
        """What is wrong with a segment that is still listed."""
        try:
            for _ in self.read(entry):
                pass
        except Corrupt as error:
            return str(error) if entry.name in self.manifest().names else None
        return None

    def _discard_after_error(self, written: Sequence[Entry]) -> None:
        try:
            self.discard(written)
        except ElytronError as error:  # the first error is the one to tell
            _log.warning("%d archive segments await `adopt`: %s", len(written), error)

    def _visit(
        self, look: Callable[[Entry], list[str]], names: Collection[str] | None
    ) -> dict[str, str]:
        """
        Have *look* at each segment once, or at those in *names*; it returns what it has added.

        Segments that others add or put in the place of one meanwhile are looked at too.

        Returns:
            Segments that are listed and damaged, each with why.
        """
        seen: set[str] = set()
        again: set[str] = set()
        damaged: dict[str, str] = {}
        conflicts = 0
        while True:
            held = self.manifest()
            if names is not None and not held.names.union(seen).issuperset(names):
                names = None  # one was replaced, and nobody says by which
            todo = [e for e in held.entries if e.name not in seen]
            todo = [e for e in todo if names is None or e.name in names]
            if not todo:
                return damaged
            for entry in todo:
                try:
                    seen.update(look(entry))
                except Corrupt as error:
                    if entry.name not in self.manifest().names:
                        conflicts = _next_attempt(conflicts, error)
                        break
                    if entry.name not in again and self._why_damaged(entry) is None:
                        again.add(entry.name)  # it is whole, and the disk failed for a moment
                        break
                    damaged[entry.name] = str(error)
                except Conflict as error:
                    conflicts = _next_attempt(conflicts, error)
                    break
                seen.add(entry.name)


def read_all(
    archive: Archive,
    *,
    wanted: Callable[[Entry], bool] = lambda _entry: True,
    on_damage: Callable[[Corrupt], None] | None = None,
    read: set[str] | None = None,
) -> Iterator[Archived]:
    """
    The messages of all segments, also while others are putting new ones in the place of old.

    A message may come twice then; none is passed over.

    Args:
        wanted: which segments to read.
        read: segments that have been read already, by name; those that are read are added.
        on_damage: told of a damaged segment, so that the others still come; else it is raised.
    """
    read = set() if read is None else read
    while entries := [
        entry for entry in archive.manifest().entries if entry.name not in read and wanted(entry)
    ]:
        for entry in entries:
            read.add(entry.name)
            try:
                yield from archive.read(entry)
            except Corrupt as error:
                if entry.name not in archive.manifest().names:
                    break  # replaced: what it held is in another, which is listed now
                if on_damage is None:
                    raise
                on_damage(error)


def _once(messages: Iterable[Archived]) -> Iterator[Archived]:
    """Each message once: two processes that archived the same, and died, leave it twice."""
    seen: dict[int, Archived] = {}
    for archived in messages:
        if seen.setdefault(archived.key, archived) is archived or seen[archived.key] != archived:
            yield archived


def _next_attempt(conflicts: int, error: ElytronError) -> int:
    if conflicts + 1 >= _ATTEMPTS_MAX:
        raise Conflict(
            f"others changed the archive {_ATTEMPTS_MAX} times meanwhile; repeat it"
        ) from error
    return conflicts + 1


def _oldest(entries: Sequence[Entry], *, limit_bytes: int, skip: Collection[str]) -> list[Entry]:
    """What has to go until the others have at most *limit_bytes*."""
    over_bytes = sum(entry.bytes for entry in entries) - limit_bytes
    oldest: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: (entry.last_us, entry.name)):
        if over_bytes > 0 and entry.name not in skip:
            oldest.append(entry)
            over_bytes -= entry.bytes
    return oldest
