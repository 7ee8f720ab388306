"""
Archiving: messages from the ledger into the archive.

At every moment each message is durably in the one, in the other, or in both. The order is what
makes it so: segments are written, then the ledger notes that they are moving, then the manifest
lists them, then the messages are removed from the ledger, each commit of it only while the note
stands. Whoever finds an old note (`heal`) takes it over, so that a stopped archiving cannot go
on, and takes out of the archive what the ledger still has.
"""

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from elytron.archive import Archived, Entry
from elytron.archive.copies import Motion, unite
from elytron.archive.durable import PART
from elytron.archive.segments import SEGMENT_NAME, examine
from elytron.errors import Conflict, Corrupt, ElytronError
from elytron.ledger import files, frames, ops, surveys
from elytron.ledger.moves import TAKEN_OVER
from elytron.ledger.room import NoRoom
from elytron.reports import Cleanup, Leaving
from elytron.upkeep import reclaiming
from elytron.upkeep.desk import Desk
from elytron.upkeep.retention import Bounds, Fact, Leave, Plan, is_quiet, plan

_log = logging.getLogger("elytron.upkeep")
_PAGE = 500  # messages in memory at once
_PAGE_BYTES = 4 << 20  # the same in bytes
_CHUNK = 5000  # messages that leave between two looks at the whole
ROUNDS_MAX = 10  # when others change the archive at the same time
_SETTLED_MAX = 20  # segments of which all ids are in memory at once
_UNFINISHED_US = 60_000_000
_LISTING_BYTES, _ENTRY_BYTES = 4096, 300  # of a listing, and of each segment in it

Progress = Callable[[int, int], None]


def plan_for(desk: Desk, bounds: Bounds, *, stay: frozenset[str] = frozenset()) -> Plan:
    """
    What would leave by these bounds now.

    Args:
        stay: ids of messages that must not, since they are being written again.
    """
    now_us = desk.clock.now_us()
    held, eldest_us = desk.read(surveys.eldest)
    if is_quiet(held, eldest_us, now_us=now_us, bounds=bounds):
        return Plan((), held, 0, 0, 0)
    facts = [Fact._make(worth) for worth in desk.read(surveys.worths)]
    recent = desk.uses.last()
    if recent:
        facts = [
            fact._replace(used_us=recent[fact.key]) if fact.key in recent else fact
            for fact in facts
        ]
    if stay:
        kept = desk.read(lambda db: surveys.keys_of(db, stay))
        facts = [fact._replace(pinned=True) if fact.key in kept else fact for fact in facts]
    return plan(facts, now_us=now_us, bounds=bounds)


def described(desk: Desk, found: Plan, *, dry_run: bool) -> Cleanup:
    """A plan for people: messages by their ids, not keys."""
    leaving = []
    for start in range(0, len(found.leaving), _PAGE):
        part = found.leaving[start : start + _PAGE]
        messages = _read(desk, [leave.key for leave in part])[0]
        by_key = {stored.key: stored.message for stored in messages}
        leaving += [
            Leaving(m.id, m.session, m.role, m.at, leave.reason, leave.bytes)
            for leave in part
            if (m := by_key.get(leave.key)) is not None
        ]
    return Cleanup(
        desk.name,
        dry_run,
        tuple(leaving),
        held=found.held,
        freed_bytes=found.freed_bytes,
        short_bytes=found.short_bytes,
        short_messages=found.short_messages,
    )


def archive(desk: Desk, found: Plan, *, on_progress: Progress | None = None) -> int:
    """
    Move what a plan says into the archive; returns how many left the ledger.

    Raises:
        DiskFull, Busy: nothing was lost; what had left before is in the archive.
    """
    heal(desk)
    moved = 0
    total, done = len(found.leaving), 0
    _drop_excess(desk)
    for chunk in _chunks(found.leaving, limit_bytes=desk.config.archive_spare_bytes):

        def on_step(count: int) -> None:
            nonlocal done
            done += count
            if on_progress is not None:
                on_progress(done, total)

        sizes = {leave.key: leave.bytes for leave in chunk}
        _drop_excess(desk, new_bytes=sum(sizes.values()))
        moved += _archive_chunk(desk, sizes, on_step)
        _drop_excess(desk)
        desk.archive.merge(skip=lambda: moving(desk), room_bytes=lambda: _room_bytes(desk))
    if moved:
        desk.tidy()
        try:
            reclaiming.merge_due(desk)
        except NoRoom as error:  # it writes before it frees; the messages have left all the same
            _log.info("merging the words of %s is put off: %s", desk.ledger.source, error)
    return moved


def _chunks(leaving: Sequence[Leave], *, limit_bytes: int) -> Iterator[list[Leave]]:
    """What leaves, in parts: between two the archive is brought within its limit."""
    chunk: list[Leave] = []
    size_bytes = 0
    for leave in leaving:
        if chunk and (len(chunk) == _CHUNK or size_bytes + leave.bytes > limit_bytes):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(leave)
        size_bytes += leave.bytes
    if chunk:
        yield chunk


def _archive_chunk(desk: Desk, sizes: dict[int, int], on_step: Callable[[int], None]) -> int:
    pairs: list[tuple[int, int | None]] = []
    # From here on whoever deletes leaves a note, since we may have a copy already.
    token = desk.run.begin()
    run = f"run-{token}"
    desk.commit(ops.Move((run,), token))
    try:
        entries = desk.archive.write(_leaving(desk, sizes, pairs))
    except BaseException:
        _forget_note(desk, run)
        raise
    names = tuple([entry.name for entry in entries])
    if not names:
        desk.commit(ops.Moved((run,), token))
        return 0
    try:
        desk.commit(ops.Move(names, token))
        desk.archive.publish(add=entries)
    except BaseException:
        _discard(desk, entries)
        _forget_note(desk, run)
        raise
    left = {key for key, _ in pairs}
    for about, taken in desk.removing(pairs, segments=names, sizes=sizes):
        left.difference_update(taken.keys)
        on_step(about)
    if left:  # edited, marked, deleted or archived by another meanwhile: our copy is not the one
        settle(desk, names, notes=(*names, run), also=left)
    else:
        desk.commit(ops.Moved((*names, run), token))
    return len(pairs) - len(left)


def _forget_note(desk: Desk, run: str) -> None:
    """Take back the note of a run that moved nothing; if that fails, the next clean-up does."""
    try:
        desk.commit(ops.Moved((run,), desk.run.token))
    except ElytronError as error:  # the first error is the one to tell
        _log.info("%s", error)


def _discard(desk: Desk, entries: Sequence[Entry]) -> None:
    """Remove what was written and does not count; what was listed in spite of an error stays."""
    try:
        desk.archive.discard(entries)
    except ElytronError as error:  # the first error is the one to tell
        _log.warning("%d archive segments are left to the next clean-up: %s", len(entries), error)


def _leaving(
    desk: Desk, sizes: Mapping[int, int], pairs: list[tuple[int, int | None]]
) -> Iterator[Archived]:
    """The messages of these keys, a page at a time; notes each in *pairs*."""
    for keys in _pages(sizes):
        whole, damaged = _read(desk, keys)
        for key in damaged:
            _log.warning("%s: message row %d is damaged and stays", desk.ledger.source, key)
        for stored in whole:
            if stored.message.pinned:  # since the plan was made
                continue
            pairs.append((stored.key, stored.version))
            yield Archived(
                stored.key,
                stored.message,
                stored.session_key,
                stored.responds_to,
                stored.arrived_us,
                stored.embedding,
            )


def _pages(sizes: Mapping[int, int]) -> Iterator[list[int]]:
    """Keys in order, as many at once as may be in memory together."""
    page: list[int] = []
    page_bytes = 0
    for key in sorted(sizes):
        if page and (len(page) == _PAGE or page_bytes + sizes[key] > _PAGE_BYTES):
            yield page
            page, page_bytes = [], 0
        page.append(key)
        page_bytes += sizes[key]
    if page:
        yield page


def _read(desk: Desk, keys: Sequence[int]) -> tuple[list[surveys.Stored], list[int]]:
    return desk.read(lambda db: surveys.stored(db, keys, desk.ledger.source))


def _drop_excess(desk: Desk, *, new_bytes: int = 0) -> None:
    """Bring the archive down so far that *new_bytes* more stay within its limit."""
    if desk.archive.exists():
        limit_bytes = desk.config.max_archive_bytes - _beside_bytes(desk)
        drop_oldest(desk, max(0, limit_bytes - max(new_bytes, desk.config.archive_spare_bytes)))


def _beside_bytes(desk: Desk) -> int:
    """What is in the archive's folder and not listed; and the listing once more."""
    listed = desk.archive.manifest().entries
    beside_bytes = desk.archive.folder_bytes - sum([entry.bytes for entry in listed])
    return max(0, beside_bytes) + _LISTING_BYTES + _ENTRY_BYTES * len(listed)


def _room_bytes(desk: Desk) -> int:
    """How large a segment may be that is written in the place of others."""
    listed = sum([entry.bytes for entry in desk.archive.manifest().entries])
    free_bytes = desk.config.max_archive_bytes - listed - _beside_bytes(desk)
    return min(free_bytes, desk.config.archive_spare_bytes)


def drop_oldest(desk: Desk, limit_bytes: int) -> None:
    """Bring the archive down to its limit. What is dropped is gone, and is told."""
    dropped = desk.archive.drop_oldest(limit_bytes, skip=lambda: moving(desk))
    if dropped.segments:
        _log.warning(
            "the archive of %r was over its limit: its %d oldest segments with %d messages were"
            " dropped",
            desk.name,
            dropped.segments,
            dropped.messages,
        )


def moving(desk: Desk) -> frozenset[str]:
    """The segments that are on their way, whoever moves them."""
    return frozenset(name.removeprefix(TAKEN_OVER) for name, _ in desk.read(surveys.moving))


def left_behind(desk: Desk) -> list[str]:
    """
    The notes of dead runs.

    They have to be there before and after it is looked who is alive: a run may begin or end just
    then.
    """
    before = set(desk.read(surveys.moving))
    alive = desk.run.others() | {desk.run.token}
    return [note for note, run in before & set(desk.read(surveys.moving)) if run not in alive]


def heal(desk: Desk) -> int:
    """
    Put right what an archiving, or a restore, of a dead process left half done; returns how many
    messages were in both places.

    The ledger wins: what it holds leaves the archive. What living runs move is left to them. And
    all is left as it is while a damaged log lies beside the ledger: messages may have left in it.
    """
    if frames.aside(desk.ledger.path):
        _log.info("%s: what moved is put right after `elytron check --repair`", desk.ledger.source)
        return 0
    # What there is first, who is alive then: else what a run that begins in between has made is
    # taken for a dead one's, and that run is refused.
    noted = {run for _, run in desk.read(surveys.moving)}
    unlisted = _unlisted(desk)
    alive = desk.run.others()
    if not alive:
        _sweep(desk, unlisted)
        if desk.archive.exists():
            desk.archive.adopt(names=unlisted, now_s=desk.clock.now_us() / 1e6)
    dead = noted - alive  # ours too: what an attempt of this run before left, on a full disk, say
    if not dead or not desk.commit(ops.TakeOver(tuple(sorted(dead)), desk.run.begin())):
        return 0
    ours = [name for name, run in desk.read(surveys.moving) if run == desk.run.token]
    names = {note.removeprefix(TAKEN_OVER) for note in ours}
    listed = [entry for entry in desk.archive.manifest().entries if entry.name in names]
    # One that was listed and is no more was written anew, by who deleted something in it.
    replaced = {name for name in names if SEGMENT_NAME.fullmatch(name)} - unlisted
    ids = None  # of all, which in a large archive takes as long as reading it
    if not replaced and len(listed) <= _SETTLED_MAX:
        ids = [one for entry in listed for one in _ids(desk, entry)]
    settled = sorted(replaced.union([entry.name for entry in listed]))
    doubled = settle(desk, settled, notes=tuple(ours), ids=ids)
    if doubled:
        _log.info("%d messages of %r were in two places; now in one", doubled, desk.name)
    return doubled


def _unlisted(desk: Desk) -> set[str]:
    """Names of segments that are on the disk and not listed."""
    if not desk.archive.exists():
        return set()
    folder = desk.archive.folder
    with files.translate_os_errors(folder):
        names = {path.name for path in folder.iterdir() if SEGMENT_NAME.fullmatch(path.name)}
    listed = desk.archive.manifest()
    return names - listed.names - set(listed.removed)


def sweep(desk: Desk) -> None:
    """
    Remove segments that are not listed, whoever wrote them: for erasing, which looks through what
    is listed. Who is about to list one is refused, and begins again with what is left.
    """
    if desk.archive.exists():
        _discard_unlisted(desk, _unlisted(desk))


def _sweep(desk: Desk, unlisted: set[str]) -> None:
    """
    Remove what a process wrote and died before it could list it.

    Nothing of theirs has left the ledger. A writer that is alive after all is refused when it
    comes to list them, and begins again.
    """
    if not desk.archive.exists():
        return
    folder = desk.archive.folder
    with files.translate_os_errors(folder):
        for part in folder.glob(f"*{PART}"):
            with contextlib.suppress(FileNotFoundError):  # finished just now
                # A writer that is alive after all cannot begin again without its file.
                if part.stat().st_mtime * 1e6 < desk.clock.now_us() - _UNFINISHED_US:
                    part.unlink()
    _discard_unlisted(desk, unlisted & _unlisted(desk))


def _discard_unlisted(desk: Desk, names: Collection[str]) -> None:
    folder = desk.archive.folder
    for name in sorted(names):
        try:
            desk.archive.discard([examine(folder, name)])
        except Corrupt as error:  # `check` names it; unless another has just removed it, too
            if (folder / name).exists():
                _log.warning("%s", error)


def _ids(desk: Desk, entry: Entry) -> list[str]:
    """The ids in a segment; none if it is damaged, which is logged."""
    try:
        return [archived.message.id for archived in desk.archive.read(entry)]
    except Corrupt as error:
        _log.warning("%s", error)
        return []


def settle(
    desk: Desk,
    names: Iterable[str],
    *,
    notes: tuple[str, ...],
    also: Collection[int] = (),
    ids: Collection[str] | None = (),
) -> int:
    """
    Take out of these segments what the ledger has, and the keys in *also*; out of the archive, but
    for one of each, the messages in *ids*, or all if that is None; then the notes.

    Another may have put others in their place, when it deleted something. Then all segments are
    looked through, but never while a third moves messages: what it has both archived and not yet
    removed is no copy. The notes stay then, and the next clean-up goes on. So they do if a third
    moves one of *ids*: which is to stay is known when it has ended.
    """
    dropped = 0
    own = {note.removeprefix(TAKEN_OVER) for note in notes}
    for _ in range(ROUNDS_MAX):
        replaced = False
        for name in names:
            count, gone, added = _drop_held(desk, name, also=also)
            dropped, replaced = dropped + count, replaced or gone
            own.update(added)
        if not replaced:
            united = unite(desk.archive, ids, motion=partial(motion, desk, own))
            dropped += united.removed
            if united.left:
                break
            desk.commit(ops.Moved(notes, desk.run.token))
            return dropped
        # Whose copies those in *also* were is not known any more.
        names, also, ids = desk.archive.manifest().names, (), None
        if moving(desk) - {note.removeprefix(TAKEN_OVER) for note in notes}:
            break
    _log.info("others change the archive of %r; what is in it twice awaits `heal`", desk.name)
    return dropped


def motion(desk: Desk, own: Collection[str] = ()) -> Motion:
    """Which segments other runs move; *own* give way to others."""
    noted = desk.read(surveys.moving)
    others = [name.removeprefix(TAKEN_OVER) for name, run in noted if run != desk.run.token]
    return Motion(frozenset(others), frozenset(own))


def _drop_held(
    desk: Desk, name: str, *, also: Collection[int]
) -> tuple[int, bool, tuple[str, ...]]:
    """
    (how many, whether another has put others in the place of the segment, and those that we put
    there).
    """
    replaced = False
    with desk.ledger.reading() as db:

        def stale(archived: Archived) -> bool:
            nonlocal replaced
            replaced = replaced or name not in desk.archive.manifest().names
            if replaced:  # this is of another segment
                return False
            message, key = archived.message, archived.key
            return (
                key in also
                or surveys.holds(db, id=message.id, key=key)
                or surveys.is_gone(db, id=message.id, session=message.session, key=key)
            )

        if name not in desk.archive.manifest().names:
            return 0, True, ()
        rewritten = desk.archive.rewrite(stale, names=(name,))
    _warn_of(rewritten.damaged)
    return rewritten.removed, replaced, rewritten.added


def _warn_of(damaged: Iterable[str]) -> None:
    for name in damaged:
        _log.warning("archive segment %s is damaged; it was left as it is", name)


def retried(work: Callable[[], int], times: int = 3) -> int:
    """Do again what another process has ended, some times."""
    for _ in range(times - 1):
        try:
            return work()
        except Conflict as error:
            _log.info("archiving is tried again: %s", error)
    return work()
