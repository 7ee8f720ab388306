"""
Checking: whether what is stored is what was written, and what can be put right.

Rows are verified by their checksums. What is derived from them, the word index, and what is left
half done can be made anew. A damaged row cannot, unless the archive has it; it is named.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import apsw

from elytron.archive import manifest
from elytron.errors import Busy, Corrupt, ElytronError
from elytron.ledger import ops, reads, rows, surveys, vector_reads
from elytron.ledger.connection import PAGE_BYTES, STORAGE_ERRORS
from elytron.ledger.embedded import REMOVED_PAGES, DropVectors, MendVectors
from elytron.ledger.schema import UNINDEXED_MAX
from elytron.records import Message
from elytron.reindex_run import reindex_all
from elytron.reports import Checked, Finding
from elytron.upkeep.archiving import heal, left_behind
from elytron.upkeep.desk import Desk

_log = logging.getLogger("elytron.upkeep")
_PAGE = 500  # messages
_KEYS_AFTER = "SELECT key FROM messages WHERE key > ? ORDER BY key LIMIT ?"
_ITS_TERMS = "SELECT content, terms FROM messages WHERE key = ?"
_NAMED_MAX = 100  # findings of one kind that are listed one by one

Progress = Callable[[int], None]


def check(desk: Desk, *, repair: bool, on_progress: Progress | None = None) -> Checked:
    """Look at everything; see `Agent.check`."""
    found = list(_file(desk))
    if any(not finding.repairable for finding in found):
        return Checked(desk.name, 0, 0, tuple(found))  # nothing further can be trusted
    messages, damaged = _messages(desk, on_progress)
    found += damaged
    found += _rest(desk)
    found += [_repaired(loose, repair, lambda: desk.sweep(())) for loose in _loose(desk)]
    found += _vectors(desk, repair=repair)
    words = _words(desk)
    if words is not None:
        found.append(_repaired(words, repair, lambda: _reindex(desk)))
    archived, of_archive = _archive(desk, repair=repair)
    found += of_archive
    return Checked(desk.name, messages, archived, tuple(found))


def _repaired(finding: Finding, repair: bool, work: Callable[[], object]) -> Finding:
    """The finding, repaired if that is wanted and goes."""
    if not repair:
        return finding
    try:
        work()
    except ElytronError as error:
        return Finding(finding.part, f"{finding.what}; repairing it failed: {error}", True)
    return Finding(finding.part, finding.what, True, True)


def _file(desk: Desk) -> Iterator[Finding]:
    """What SQLite itself finds wrong."""
    try:
        lines = desk.read(lambda db: rows.fetch(db, "PRAGMA integrity_check(20)"))
    except Busy:
        raise
    except ElytronError as error:
        yield Finding("file", str(error))
        return
    for (line,) in lines:
        if line != "ok":
            words = "words" in line
            yield Finding("words" if words else "file", line, repairable=words)


def _messages(desk: Desk, on_progress: Progress | None) -> tuple[int, list[Finding]]:
    """How many messages there are, and those that cannot be shown."""
    count, found, over = 0, list[Finding](), 0
    keys = desk.read(lambda db: surveys.keys(db, "SELECT key FROM messages ORDER BY key"))
    for start in range(0, len(keys), _PAGE):
        part = keys[start : start + _PAGE]
        whole, damaged = desk.read(partial(surveys.stored, keys=part, source="ledger"))
        count += len(whole) + len(damaged)
        over += max(0, len(found) + len(damaged) - _NAMED_MAX)
        named = damaged[: max(0, _NAMED_MAX - len(found))]
        if named:
            found += desk.read(partial(_why_damaged, keys=named))
        if on_progress is not None:
            on_progress(count)
    if over:
        found.append(Finding("messages", f"and {over} more rows"))
    return count, found


def _why_damaged(db: apsw.Connection, keys: list[int]) -> list[Finding]:
    """What is wrong with messages that cannot be shown: their own rows, or what these name."""
    found = []
    for key in keys:
        row = db.execute(f"SELECT {rows.STORED} FROM messages m WHERE m.key = ?", (key,)).get
        if row is not None and rows.checksum(row[:-1]) == row[-1]:
            what = f"message row {key} cannot be shown: its mark, session or user is damaged"
        else:
            what = f"message row {key} is not what was written"
        found.append(Finding("messages", what))
    return found


_ORPHANS = (
    ("marks", "marks of messages that are not there", "key NOT IN (SELECT key FROM messages)"),
    (
        "messages",
        "messages of sessions that are not there",
        "session NOT IN (SELECT key FROM sessions)",
    ),
    (
        "messages",
        "messages of users that are not there",
        "user IS NOT NULL AND user NOT IN (SELECT key FROM users)",
    ),
    (
        "memories",
        "memories of sessions that are not there",
        "session IS NOT NULL AND session NOT IN (SELECT key FROM sessions)",
    ),
    ("changes", "changes out of their order", "ordinal < 1 OR op NOT BETWEEN 1 AND 4"),
)
# What says nothing any more, so that taking it away is a repair.
_LOOSE = (
    (
        "concepts",
        "mentions of or by what is not there",
        "mentions",
        "concept NOT IN (SELECT key FROM concepts) OR (source NOT IN (SELECT key FROM messages)"
        " AND source NOT IN (SELECT key FROM memories))",
    ),
    (
        "relations",
        "relations of concepts that are not there",
        "relations",
        "source NOT IN (SELECT key FROM concepts) OR target NOT IN (SELECT key FROM concepts)",
    ),
)
_CHECKSUMMED = {
    "memories": (
        "key, id, content, kind, importance, pinned, session, valid_from_us, valid_to_us,"
        " created_us, metadata, checksum"
    ),
    "concepts": "key, name, folded, type, description, confidence, origin, created_us, checksum",
    "relations": (
        "key, source, relation, target, strength, valid_from_us, valid_to_us, learned_from,"
        " checksum"
    ),
    "users": "key, id, folded, created_us, checksum",
    "sessions": "key, id, created_us, checksum",
    "marks": "key, importance, pinned, checksum",
}


def _rest(desk: Desk) -> list[Finding]:
    """Orphans, the change list, and the other rows that have a checksum."""

    def look(db: apsw.Connection) -> list[Finding]:
        found = []
        for table, what, where in _ORPHANS:
            count = db.execute(f"SELECT count(*) FROM {table} WHERE {where}").get
            if count:
                found.append(Finding(table, f"{count} {what}"))
        gaps = db.execute("SELECT max(ordinal) - min(ordinal) + 1 - count(*) FROM changes").get
        if gaps:
            found.append(Finding("changes", f"{gaps} changes are missing in the list"))
        for table, columns in _CHECKSUMMED.items():
            for *values, checksum in db.execute(f"SELECT {columns} FROM {table}"):
                if rows.checksum(tuple(values)) != checksum:
                    found.append(Finding(table, f"row {values[0]} is not what was written"))
        return found

    return desk.read(look)


def _loose(desk: Desk) -> list[Finding]:
    """Mentions and relations that lost an end, by a deletion that was cut short or by damage."""

    def look(db: apsw.Connection) -> list[Finding]:
        found = []
        for part, what, table, where in _LOOSE:
            count = db.execute(f"SELECT count(*) FROM {table} WHERE {where}").get
            if count:
                found.append(Finding(part, f"{count} {what}", repairable=True))
        return found

    return desk.read(look)


def _vectors(desk: Desk, *, repair: bool) -> list[Finding]:
    """Vectors that are not what was made of a text that is there; without them `embed` makes it."""
    try:
        wrong = desk.read(vector_reads.wrong)
    except (*STORAGE_ERRORS, Corrupt) as error:
        wrong = vector_reads.Wrong([], [], [], counts=False, unusable=str(error))
    if wrong.unusable is not None:
        finding = Finding("vectors", f"none can be used: {wrong.unusable}", repairable=True)
        return [_repaired(finding, repair, lambda: _drop_vectors(desk))]
    whats = [
        (len(wrong.vectors), "vectors are damaged, or of what is not there"),
        (len(wrong.shared), "shares in vectors that are not there, or of what is not there"),
        (len(wrong.reasons), "reasons for no vector where there is one, or nothing to have one"),
    ]
    found = [
        Finding("vectors", f"{count} {what}", repairable=True) for count, what in whats if count
    ]
    if wrong.counts:
        found.append(Finding("vectors", "they are not as many as is noted", repairable=True))
    if not found:
        return []
    first = _repaired(found[0], repair, lambda: _mend_vectors(desk, wrong))  # all of it at once
    return [first, *[replace(finding, repaired=first.repaired) for finding in found[1:]]]


def _mend_vectors(desk: Desk, wrong: vector_reads.Wrong) -> None:
    at_once = max(1, desk.config.commit_bytes // (2 * REMOVED_PAGES * PAGE_BYTES))

    def parts(keys: list[int]) -> Iterator[tuple[int, ...]]:
        for start in range(0, len(keys), at_once):
            yield tuple(keys[start : start + at_once])

    for numbers in parts(wrong.vectors):
        desk.commit(MendVectors(numbers=numbers))
    for shared in parts(wrong.shared):
        desk.commit(MendVectors(shared=shared))
    for reasons in parts(wrong.reasons):
        desk.commit(MendVectors(reasons=reasons))
    desk.commit(MendVectors())


def _drop_vectors(desk: Desk) -> None:
    at_once = max(1, desk.config.commit_bytes // (2 * REMOVED_PAGES * PAGE_BYTES))
    more = True
    while more:
        _, more = desk.commit(DropVectors(at_once))


def _words(desk: Desk) -> Finding | None:
    """The first way in which the word index differs from the rows, if it does."""

    def look(db: apsw.Connection) -> str | None:
        indexed = db.execute("SELECT key FROM indexed").get
        newest = db.execute("SELECT ifnull(max(key), 0) FROM messages").get
        last = max(newest, db.execute("SELECT ifnull(max(seq), 0) FROM changes").get)
        if type(indexed) is not int or newest - indexed > 2 * UNINDEXED_MAX + _PAGE:
            return f"it ends at {indexed}, far behind {newest}"
        if indexed > last:  # what is saved up to there would never get into it
            return f"it ends at {indexed}, beyond {last}"
        expected: dict[str, int] = {}
        count = 0
        for (terms,) in db.execute("SELECT terms FROM messages WHERE key <= ?", (indexed,)):
            count += 1
            if type(terms) is not bytes:
                return "the words of a message are damaged"
            for term in set(rows.to_tokens(terms).split()):
                expected[term] = expected.get(term, 0) + 1
        held = reads.totals(db)[0]
        if held != count:
            return f"it has {held} messages, the ledger {count}"
        found = dict(rows.fetch(db, "SELECT term, doc FROM words_vocabulary"))
        wrong = sum([found.get(term) != docs for term, docs in expected.items()])
        wrong += len(found.keys() - expected.keys())
        return f"{wrong} words differ from the messages" if wrong else None

    try:
        what = desk.read(look)
    except (*STORAGE_ERRORS, Corrupt) as error:
        what = str(error)
    return None if what is None else Finding("words", f"the word index: {what}", repairable=True)


def _reindex(desk: Desk) -> None:
    """Make the index anew from the messages; a damaged one keeps the words that it has."""
    damaged: list[int] = []

    def page(after: int) -> list[tuple[int, Message]]:
        while keys := desk.read(partial(surveys.keys, sql=_KEYS_AFTER, values=(after, _PAGE))):
            whole, broken = desk.read(partial(surveys.stored, keys=keys, source=desk.ledger.path))
            damaged.extend(broken)
            if whole:
                return [(stored.key, stored.message) for stored in whole]
            after = keys[-1]
        return []

    desk.commit(ops.ResetWords())
    reindex_all(
        read=page,
        write=desk.commit,
        analyzer=desk.analyzer,
        commit_max_bytes=desk.config.commit_bytes,
        on_progress=None,
    )
    for key in dict.fromkeys(damaged):
        found = desk.read(partial(_one, key=key))
        if found is not None:
            content, terms = found
            terms = terms if type(terms) is bytes else b""
            desk.commit(ops.Reindex(((key, content, terms),), None, 300 + 10 * len(terms)))


def _one(db: apsw.Connection, key: int) -> Any:
    return db.execute(_ITS_TERMS, (key,)).get


def _heal(desk: Desk) -> None:
    heal(desk)
    if left_behind(desk):
        raise Busy("another process is moving messages now; check again later")


def _archive(desk: Desk, *, repair: bool) -> tuple[int, list[Finding]]:
    found = []
    half_done = left_behind(desk)
    if half_done:
        finding = Finding(
            "archive",
            f"{len(half_done)} segments were left half moved by a process that died",
            repairable=True,
        )
        found.append(_repaired(finding, repair, lambda: _heal(desk)))
    if not desk.archive.exists():
        return 0, found
    segments = desk.archive.folder.glob("segment-*")
    if any(segments) and manifest.read(desk.archive.folder / manifest.FILE) is None:
        held = desk.archive.manifest()  # which makes it again from the segments
        what = f"its manifest was damaged or missing; it lists {len(held.entries)} segments again"
        found.append(Finding("archive", what, repairable=True, repaired=True))
    for name, why in desk.archive.damaged().items():
        found.append(Finding("archive", f"segment {name}: {why}"))
    return desk.archive.manifest().messages, found
