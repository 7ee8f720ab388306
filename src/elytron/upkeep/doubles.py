"""
Doubles: messages that are in two places, as a check finds them.

Moving leaves none, but a file may have been copied back, or an older version have left some. While
anybody moves messages nothing is looked for: what is under way is in two places, and right so.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial

from elytron.archive import Entry
from elytron.archive.copies import twice, unite
from elytron.archive.segments import hash_id
from elytron.errors import Busy, Conflict, Corrupt
from elytron.ledger import ops, surveys
from elytron.ledger.database import Database
from elytron.reports import Finding
from elytron.upkeep.archiving import motion, moving, retried, settle
from elytron.upkeep.desk import Desk

_log = logging.getLogger("elytron.upkeep")
_PAGE = 500  # messages in memory at once


def doubles(desk: Desk) -> Iterator[tuple[Finding, Callable[[], object]]]:
    """
    What is wrong, and what mends it: of messages that are in the archive twice the last stays,
    which is the one that is shown, and of those that are both held and archived what is held.

    Costs half a second for a million archived messages, and then as much as reading those segments
    where hashes agree: a few of 100,000 messages, nearly all of a million. In memory four bytes for
    each, and 80 for each that is held.
    """
    for what, count, mend in (
        ("in the archive twice", _twice, _unite),
        ("both held and archived", _count_both, _keep_held),
    ):
        try:
            number = retried(partial(count, desk))
        except Conflict as error:  # the next check sees it
            _log.info("%s", error)
            continue
        if number:
            verb = "message is" if number == 1 else "messages are"
            yield Finding("archive", f"{number} {verb} {what}", True), partial(mend, desk)


def _twice(desk: Desk) -> int:
    found = twice(desk.archive).places
    return 0 if moving(desk) else len(found)


def _unite(desk: Desk) -> None:
    if unite(desk.archive, None, motion=partial(motion, desk)).left:
        raise Busy("another process is moving messages now; check again later")


def _count_both(desk: Desk) -> int:
    return sum([count for _, count in _both(desk)])


def _keep_held(desk: Desk) -> None:
    for entry, _ in _both(desk):
        # Noted as by a restore, so that nobody takes what it has for a copy that is sure to stay.
        desk.commit(ops.Move((entry.name,), desk.run.begin()))
        settle(desk, (entry.name,), notes=(entry.name,))


def _both(desk: Desk) -> list[tuple[Entry, int]]:
    """
    Segments with messages that the ledger has too, and whole, with how many.

    None while anybody moves messages. That is asked after the listing was read, so all that is
    listed had come to rest.

    Raises:
        Conflict: the archive was changed meanwhile.
    """
    entries = desk.archive.manifest().entries

    def look(db: Database) -> set[int]:
        if surveys.moving(db):
            return set()
        ids = (name for (name,) in db.execute("SELECT id FROM messages"))
        return {hash_id(name) for name in ids if type(name) is str}

    held = desk.read(look)
    found = []
    for entry in entries:
        suspects = held.intersection(desk.archive.hashes(entry))
        if suspects and (count := _held_of(desk, entry, suspects)):
            found.append((entry, count))
    if not desk.archive.manifest().names.issuperset([entry.name for entry in entries]):
        raise Conflict(f"the archive of {desk.name!r} was changed meanwhile; check again")
    return found


def _held_of(desk: Desk, entry: Entry, suspects: set[int]) -> int:
    """How many of a segment's messages are held; 0 if one of them is damaged there."""
    try:
        ids = [archived.message.id for archived in desk.archive.read(entry)]
    except Corrupt as error:  # a finding of its own; or it was replaced
        _log.info("%s", error)
        return 0
    ids = [one for one in ids if hash_id(one) in suspects]
    count = 0
    for start in range(0, len(ids), _PAGE):
        keys = desk.read(partial(surveys.keys_of, ids=ids[start : start + _PAGE]))
        whole, damaged = desk.read(partial(surveys.stored, keys=keys, source=desk.ledger.source))
        if damaged:
            return 0
        count += len(whole)
    return count
