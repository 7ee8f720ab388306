"""
Successors: whether what an agent is now has all that the copy in a backup has, but for what was
meant to go.

A ledger that went on from the copy's has each number that was given away until then for the same
thing, or its list of changes says what became of that. Two that were one and the same and went on
apart, as by a snapshot or a backup that was put back, have given the same numbers to different
things. Of an archive the mark in its manifest tells: where that is another, it was begun or made
again since, and what is not in it may have been lost.
"""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import apsw

from elytron.archive import Archive, manifest
from elytron.errors import Corrupt
from elytron.ledger import files
from elytron.ledger.connection import STORAGE_ERRORS, translate
from elytron.upkeep import copying
from elytron.upkeep.backup_files import SEGMENTS, BackupFiles, Copy, checksum_of

_log = logging.getLogger("elytron.backup")
_SEGMENT_TIMEOUT_S = 1.0  # nobody changes the segments of a backup, whose lock we hold

# The rows that have a number, in every version of the schema. Ids never change, but for those of
# sessions and users, by a repair.
_NUMBERED = """
SELECT key, 1 AS kind, id FROM {0}.messages UNION ALL SELECT key, 4, id FROM {0}.memories
UNION ALL SELECT key, 2, NULL FROM {0}.sessions UNION ALL SELECT key, 3, NULL FROM {0}.users
UNION ALL SELECT key, 5, NULL FROM {0}.concepts
"""
_OTHERS_NUMBER = f"""
SELECT EXISTS (SELECT 1 FROM ({_NUMBERED.format("former")}) t JOIN ({_NUMBERED.format("main")}) n
    ON n.key = t.key WHERE n.kind <> t.kind OR n.id <> t.id)
"""
_CHANGES = "SELECT seq, op, kind, key FROM {}.changes WHERE seq BETWEEN ?1 AND ?2"
_OTHERS_CHANGE = f"""
SELECT EXISTS ({_CHANGES.format("main")} EXCEPT {_CHANGES.format("former")})
    OR EXISTS ({_CHANGES.format("former")} EXCEPT {_CHANGES.format("main")})
"""
_UNTOLD = """
SELECT EXISTS (SELECT 1 FROM former.{0} t LEFT JOIN main.{0} n ON n.key = t.key
    WHERE (n.key IS NULL OR n.content <> t.content)
    AND t.key NOT IN (SELECT key FROM main.changes WHERE seq > ?1))
"""


class Pair(NamedTuple):
    """
    A copy, the former one that it shall take the place of, and the agent's archive as it is now.

    `own` is the backup that has the former: the same, or one that was kept.
    """

    copy: Copy
    former: Copy
    backup: BackupFiles
    own: BackupFiles
    archive: Archive

    @property
    def now(self) -> Path:
        return self.backup.folder(self.copy.agent) / self.copy.ledger.name

    @property
    def then(self) -> Path:
        return self.own.folder(self.former.agent) / self.former.ledger.name


class Lost(NamedTuple):
    """How many archived messages of a copy are nowhere here, and whether some of it is here."""

    messages: int = 0
    in_part: bool = False


def is_repaired(pair: Pair) -> bool:
    """Whether the ledger was repaired between two copies of it."""
    now_us = copying.repaired_within(pair.now)
    if not now_us:
        return False
    try:
        return now_us > copying.repaired_within(pair.then)
    except Corrupt as error:  # of the copy; it may have been, and what is whole in it is kept
        _log.warning("%s", error)
        return True


def lacks(pair: Pair) -> bool:
    """Whether the former copy has, or may have, anything that is not there any more."""
    if pair.former.schema != pair.copy.schema:  # it cannot be compared
        return True
    said = copying.told_within(pair.now)
    try:
        former_said = copying.told_within(pair.then)
    except Corrupt as error:
        _log.warning("%s", error)
        return True
    texts = former_said.messages.items()
    changed = [one for one, text in texts if text != said.messages.get(one)]
    if not former_said.others <= said.others:
        return True
    return not pair.archive.find(changed)[0].keys() >= {*changed}


def of_another(pair: Pair) -> int:
    """How much of the former's, which is of a ledger that was begun at another time, is lost."""
    held = copying.texts_within(pair.now)
    texts = copying.texts_within(pair.then).items()
    missing = [one for one, text in texts if text != held.get(one)]
    archived = pair.archive.find(missing)[0]
    lost = sum([one not in archived for one in missing])
    lost += _archived_lost(pair.own, pair.former, pair.archive, held).messages
    if pair.former.schema == pair.copy.schema:
        learned = copying.learned_within(pair.then) - copying.learned_within(pair.now)
        lost += len(learned)
    return lost


def is_further_on(pair: Pair) -> bool:
    """Whether the ledger is what the former copy's, which is no newer, has become."""
    try:
        if _went_on(pair.now, pair.then, pair.former.sequence):
            return True
    except Corrupt as error:
        _log.warning("%s", error)
        if _is_as_written(pair):
            raise
    else:
        if _is_as_written(pair):
            return False
        _log.warning("%s is damaged", pair.then)
    return True  # as far as can be told: a damaged copy is no good, and is made anew


def _is_as_written(pair: Pair) -> bool:
    with files.translate_os_errors(pair.then):
        return checksum_of(pair.then) == pair.former.ledger.checksum


def _went_on(now: Path, then: Path, upto: int) -> bool:
    try:
        with copying.unchanging(now) as db:
            db.execute("ATTACH ? AS former", (copying.place_of(then),))
            # From where on each list of changes has all.
            known, former_known = (_known(db, which) for which in ("main", "former"))
            if db.execute(_OTHERS_NUMBER).get:
                return False
            if db.execute(_OTHERS_CHANGE, (max(known, former_known), upto)).get:
                return False
            if known > upto + 1:  # what became of a row may be forgotten
                return True
            tables = ("messages", "memories")
            return not any(db.execute(_UNTOLD.format(one), (upto,)).get for one in tables)
    except STORAGE_ERRORS as error:
        raise translate(error, then) from error


def _known(db: apsw.Connection, which: str) -> int:
    oldest = db.execute(f"SELECT seq, ordinal FROM {which}.changes ORDER BY seq LIMIT 1").get
    return 0 if oldest is None or oldest[1] <= 1 else int(oldest[0])


def of_archive(pair: Pair) -> Lost:
    """
    What the former has, and is neither in the ledger nor in the archive, if that was begun or made
    again since. In one that went on, what is not there was dropped or deleted; in such a one that
    looks the same, and is counted.
    """
    return lost_since(pair.own, pair.former, pair.archive, copying.all_ids_within(pair.now))


def lost_since(own: BackupFiles, former: Copy, archive: Archive, held: Collection[str]) -> Lost:
    """The same, where *held* are the ids in the ledger."""
    if not manifest.is_begun_after(archive.manifest(), own.entries(former)):
        return Lost()
    lost = _archived_lost(own, former, archive, held)
    try:
        found = copying.all_ids_within(own.folder(former.agent) / former.ledger.name)
    except Corrupt as error:  # a damaged copy is no good; its segments may be whole
        _log.warning("%s", error)
        return lost
    ids = found.difference(held)
    return Lost(len(ids - archive.find(ids)[0].keys()) + lost.messages, lost.in_part)


def _archived_lost(own: BackupFiles, former: Copy, archive: Archive, held: Collection[str]) -> Lost:
    lost, in_part, listed = 0, False, archive.manifest().names
    segments = Archive(own.folder(former.agent) / SEGMENTS, timeout_s=_SEGMENT_TIMEOUT_S)
    for entry in own.entries(former).entries:
        if entry.name in listed:
            in_part = True
            continue
        try:
            ids = {archived.message.id for archived in segments.read(entry)}.difference(held)
        except Corrupt as error:  # no good where it is, either
            _log.warning("%s", error)
            continue
        found = archive.find(ids)[0]
        in_part = in_part or bool(found)
        lost += len(ids) - len(found)
    return Lost(lost, in_part)


def may_lack(pair: Pair) -> bool:
    """Whether anything of the former copy may be lost, however that came about."""
    try:
        if is_repaired(pair):
            return lacks(pair) or of_archive(pair).messages > 0
        if pair.copy.begun_us != pair.former.begun_us:
            return pair.copy.schema != pair.former.schema or of_another(pair) > 0
        if pair.copy.sequence < pair.former.sequence or not is_further_on(pair):
            return True
        return of_archive(pair).messages > 0
    except Corrupt as error:
        _log.warning("%s", error)
        return True
