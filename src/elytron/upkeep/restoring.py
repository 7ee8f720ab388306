"""
Restoring: messages from the archive back into the ledger, to their old places.

The same order as in `archiving.py`, the other way round: the ledger notes that a segment's messages
are moving, takes them, and then they leave the segment. A message that was deleted while the note
stood does not come back.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from elytron.archive import Archived, Entry
from elytron.errors import Conflict, Corrupt, ElytronError
from elytron.ledger import ops, rows, surveys
from elytron.records import DEFAULT_IMPORTANCE, Draft, Message
from elytron.reports import Restored
from elytron.upkeep.archiving import ROUNDS_MAX, heal, settle
from elytron.upkeep.desk import Desk

_log = logging.getLogger("elytron.upkeep")
_PAGE = 500  # messages in one commit
_ROW_BYTES = 600  # of a message, besides its text and index


def restore(
    desk: Desk,
    wanted: Sequence[str] | None,
    *,
    session: str | None,
    since_us: int | None,
    until_us: int | None,
    on_progress: Callable[[int], None] | None,
) -> Restored:
    """Bring back what matches; see `Agent.restore`."""
    heal(desk)
    ids = None if wanted is None else frozenset(wanted)

    def matches(archived: Archived) -> bool:
        message = archived.message
        at_us = rows.to_us(message.at)
        return (
            (ids is None or message.id in ids)
            and (session is None or message.session == session)
            and (since_us is None or at_us >= since_us)
            and (until_us is None or at_us < until_us)
        )

    back = _Back(desk, on_progress)
    for _ in range(ROUNDS_MAX):
        back.replaced = False
        for entry in _candidates(desk, ids, since_us, until_us):
            back.take(entry, matches)
        if not back.replaced:
            break
    else:
        raise Conflict(
            f"others kept changing the archive of {desk.name!r}; repeat it."
            f" {back.restored} messages came back before"
        )
    absent = [name for name in dict.fromkeys(wanted or ()) if name not in back.seen]
    with desk.ledger.reading() as db:
        held = {name for name in absent if surveys.holds(db, id=name, key=0)}
    return Restored(
        desk.name,
        back.restored,
        back.held + len(held),
        tuple([name for name in absent if name not in held]),
        back.damaged,
    )


def _candidates(
    desk: Desk, ids: frozenset[str] | None, since_us: int | None, until_us: int | None
) -> list[Entry]:
    if not desk.archive.exists():
        return []
    entries = desk.archive.manifest().entries
    if ids is not None:
        names = {e.name for found in desk.archive.holding(ids).values() for e in found}
        entries = tuple([entry for entry in entries if entry.name in names])
    return [
        entry
        for entry in entries
        if (since_us is None or entry.last_us >= since_us)
        and (until_us is None or entry.first_us < until_us)
    ]


class _Back:
    """One restore: what came back so far. Use once."""

    def __init__(self, desk: Desk, on_progress: Callable[[int], None] | None) -> None:
        self._desk = desk
        self._on_progress = on_progress
        self.restored = self.held = 0
        self.replaced = False  # a segment, by another: what it held is to be looked for again
        self.seen: set[str] = set()
        self.damaged: dict[str, str] = {}

    def take(self, entry: Entry, matches: Callable[[Archived], bool]) -> None:
        """Bring back what matches in one segment, and take it out there."""
        desk = self._desk
        # Noted before it is read: whoever deletes from now on leaves a note too; and who is still
        # archiving what is in it stops.
        run = desk.run.begin()
        is_taken = desk.commit(ops.Move((entry.name,), run))
        try:
            found = [archived for archived in desk.archive.read(entry) if matches(archived)]
        except Corrupt as error:
            self._leave(entry, is_taken=is_taken)
            if self._is_replaced(entry):
                return
            self.damaged[entry.name] = str(error)
            _log.warning("%s", error)
            return
        if not found:
            self._leave(entry, is_taken=is_taken)
            return
        self.seen.update([archived.message.id for archived in found])
        try:
            for group in self._groups(found):
                if self._is_replaced(entry):  # perhaps to delete what we are to bring back
                    break
                came = desk.commit(ops.Restore(tuple(group), entry.name, run))
                self.restored += came
                self.held += len(group) - came
                if self._on_progress is not None:
                    self._on_progress(self.restored)
        except Conflict as error:  # another brings back what is in it: what it leaves is ours
            _log.info("%s", error)
            self.replaced = True
        except ElytronError as error:
            raise error.saying(f"{error}. {self.restored} messages came back before") from error
        finally:
            ids = [archived.message.id for archived in found]
            settle(desk, (entry.name,), notes=(entry.name,), ids=ids)

    def _leave(self, entry: Entry, *, is_taken: bool) -> None:
        """Of a segment nothing comes back."""
        if is_taken:
            settle(self._desk, (entry.name,), notes=(entry.name,))
        else:
            self._desk.commit(ops.Moved((entry.name,), self._desk.run.token))

    def _is_replaced(self, entry: Entry) -> bool:
        replaced = entry.name not in self._desk.archive.manifest().names
        self.replaced = self.replaced or replaced
        return replaced

    def _groups(self, found: Iterable[Archived]) -> Iterator[list[ops.Returning]]:
        limit_bytes = self._desk.config.commit_bytes
        group: list[ops.Returning] = []
        group_bytes = 0
        for archived in found:
            returning = returning_of(self._desk, archived)
            size_bytes = returning.draft.size_bytes + 4096
            if group and (group_bytes + size_bytes > limit_bytes or len(group) == _PAGE):
                yield group
                group, group_bytes = [], 0
            group.append(returning)
            group_bytes += size_bytes
        if group:
            yield group


def returning_of(desk: Desk, archived: Archived) -> ops.Returning:
    """An archived message as the ledger takes it back. It arrives now."""
    message = archived.message
    return ops.Returning(
        archived.key,
        archived.session_key,
        message.position,
        archived.responds_to,
        _draft(desk, message, archived.embedding),
    )


def _draft(desk: Desk, message: Message, embedding: str) -> Draft:
    terms = desk.analyzer.document(message.content, speaker=message.speaker, at=message.at)
    metadata = None
    if message.metadata:
        metadata = json.dumps(
            dict(message.metadata), ensure_ascii=False, allow_nan=False, sort_keys=True,
            separators=(",", ":"),
        )  # fmt: skip
    offset = message.at.utcoffset()
    assert offset is not None, "archived times have a zone"
    text_bytes = len(message.content.encode()) + len((metadata or "").encode())
    return Draft(
        message.id,
        message.role,
        message.content,
        message.session,
        message.user,
        rows.to_us(message.at),
        int(offset.total_seconds() / 60),
        True,
        desk.clock.now_us(),
        metadata,
        terms,
        _ROW_BYTES + text_bytes + 5 * len(terms),
        embedding,
        None if message.importance == DEFAULT_IMPORTANCE else message.importance,
        message.pinned,
    )
