"""
Checking: whether what is stored is what was written, and what can be put right.

Rows are verified by their checksums. What is derived from them, the word index, and what is left
half done can be made anew. A damaged row cannot, unless the archive has it; it is named, and taken
out when a repair is asked for.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from elytron.archive import Archived, manifest
from elytron.errors import Busy, Corrupt, ElytronError
from elytron.ledger import files, frames, ops, rows, space, surveys, vector_reads, word_reads
from elytron.ledger.connection import PAGE_BYTES, STORAGE_ERRORS
from elytron.ledger.database import Database
from elytron.ledger.embedded import REMOVED_PAGES, DropVectors, MendVectors
from elytron.ledger.schema import UNINDEXED_MAX
from elytron.records import Message
from elytron.reindex_run import reindex_all
from elytron.reports import Checked, Finding
from elytron.upkeep.archiving import heal, left_behind
from elytron.upkeep.desk import Desk
from elytron.upkeep.doubles import doubles
from elytron.upkeep.expelling import Expelling
from elytron.upkeep.older import OfGraph, older
from elytron.upkeep.restoring import restore

_log = logging.getLogger("elytron.upkeep")
_PAGE = 500  # messages
_KEYS_AFTER = "SELECT key FROM messages WHERE key > ? ORDER BY key LIMIT ?"
_ITS_ID = "SELECT id FROM messages INDEXED BY sqlite_autoindex_messages_1 WHERE key = ?"
_ITS_TERMS = "SELECT content, terms FROM messages WHERE key = ?"
# Parts that only a new ledger mends: see `salvaging.py`.
FILE, LOG = "file", "log"
_NAMED_MAX = 100  # findings of one kind that are listed one by one
_MENDED_MAX = 10_000  # damaged rows that one check looks at, and a repair puts right
_ROW = "row {} is not what was written"

Progress = Callable[[int], None]


def check(
    desk: Desk,
    *,
    repair: bool,
    on_progress: Progress | None = None,
    graph: OfGraph = OfGraph(),  # noqa: B008 - immutable
) -> Checked:
    """Look at everything but the graph; see `Agent.check`."""
    found = list(_file(desk))
    if found and found[-1].part == FILE:
        return Checked(desk.name, 0, 0, tuple(found))  # nothing further can be trusted
    found += _logs(desk)
    # What stands in a log is to be read before anything moves or is taken out.
    repair = repair and not any(finding.part == LOG for finding in found)
    messages, damaged = _messages(desk, on_progress)
    with contextlib.closing(Expelling(desk)) as expelling:
        found += _cut(_taken_out(desk, damaged, expelling) if repair else damaged)
        found += _rest(desk, expelling if repair else None)
    found += [_repaired(loose, repair, lambda: desk.sweep(())) for loose in _loose(desk)]
    found += _vectors(desk, repair=repair)
    words = _words(desk)
    if words is not None:
        found.append(_repaired(words, repair, lambda: reindex(desk)))
    archived, highest, of_archive = _archive(desk, repair=repair)
    found += of_archive
    found += older(desk, LOG, archived=highest, graph=graph, repair=repair)
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
        lines = desk.read(space.faults)
    except Busy:
        raise
    except ElytronError as error:
        yield Finding(FILE, str(error), repairable=isinstance(error, Corrupt))
        return
    # Those of the file come last.
    for line in sorted(lines, key=lambda line: "words" not in line):
        yield Finding("words" if "words" in line else FILE, line, repairable=True)


def _logs(desk: Desk) -> Iterator[Finding]:
    """Logs that were set aside, since there are commits in them that SQLite did not read."""
    for path in frames.aside(desk.ledger.path):
        log = frames.read(path)
        lost = log.lost(log.valid())
        yield Finding(LOG, f"{lost or 'a log was set aside'}: {path}", repairable=True)


class _Damaged(NamedTuple):
    """A message that cannot be shown: since its own row is damaged, or what that names."""

    finding: Finding
    key: int
    id: str | None
    own: bool


def _messages(desk: Desk, on_progress: Progress | None) -> tuple[int, list[_Damaged]]:
    """How many messages there are, and those that cannot be shown."""
    count, found = 0, list[_Damaged]()
    keys = desk.read(lambda db: surveys.keys(db, "SELECT key FROM messages ORDER BY key"))
    for start in range(0, len(keys), _PAGE):
        part = keys[start : start + _PAGE]
        whole, damaged = desk.read(partial(surveys.stored, keys=part, source="ledger"))
        count += len(whole) + len(damaged)
        named = damaged[: max(0, _MENDED_MAX - len(found))]
        if named:
            found += desk.read(partial(_why_damaged, keys=named))
        if on_progress is not None:
            on_progress(count)
    return count, found


def _cut(damaged: list[_Damaged]) -> list[Finding]:
    """The findings of damaged messages, not too many of them."""
    found = [row.finding for row in damaged[:_NAMED_MAX]]
    if len(damaged) > _NAMED_MAX:
        found.append(Finding("messages", f"and {len(damaged) - _NAMED_MAX} more rows"))
    return found


def _why_damaged(db: Database, keys: list[int]) -> list[_Damaged]:
    """What is wrong with messages that cannot be shown: their own rows, or what these name."""
    found = []
    for key in keys:
        row = db.execute(f"SELECT {rows.STORED} FROM messages m WHERE m.key = ?", (key,)).get
        # By the index, which has it once more.
        id = db.execute(_ITS_ID, (key,)).get  # noqa: A001 - what it is called everywhere
        if row is None:  # deleted just now
            continue
        where = f"message row {key} ({_described(db, id, row)})"
        own = rows.checksum(row[:-1]) != row[-1]
        if not own:
            what = f"{where} cannot be shown: its mark, session or user is damaged"
        else:
            what = f"{where} is not what was written"
        named = id if type(id) is str else None
        found.append(_Damaged(Finding("messages", what), key, named, own))
    return found


def _described(db: Database, id: object, row: Any) -> str:
    """What is known of a damaged message, to look for it elsewhere; its numbers may be wrong."""
    session = db.execute("SELECT id FROM sessions WHERE key = ?", (row[rows.SESSION],)).get
    known = [f"id {id!r:.100}", f"session {session!r:.100}"]
    with contextlib.suppress(TypeError, OverflowError):
        known.append(f"said {rows.to_datetime(row[7]):%Y-%m-%d %H:%M}")
    return ", ".join(known)


def _taken_out(desk: Desk, damaged: list[_Damaged], expelling: Expelling) -> list[_Damaged]:
    """Damaged messages, put right from the archive, or else taken out."""
    back = _returned(desk, [row for row in damaged if row.own])
    left = [row.key for row in damaged if row.own and row.id not in back]
    why = _expelled(expelling, "messages", left)
    found = []
    for row in damaged:
        what = row.finding.what
        if row.own and row.id in back:
            finding = Finding("messages", f"{what}; it is back from the archive", True, True)
        elif row.own:
            finding = Finding("messages", f"{what}; {why[row.key]}")
        else:
            finding = row.finding
        found.append(row._replace(finding=finding))
    return found


def _returned(desk: Desk, damaged: list[_Damaged]) -> set[str]:
    """Bring back those damaged messages that the archive has too; their ids."""
    keys = {row.id: row.key for row in damaged if row.id is not None}
    found: dict[str, Archived] = {}
    if keys and desk.archive.exists():
        found, _ = desk.archive.find(keys)
    ids = [id for id, archived in found.items() if archived.key == keys[id]]  # noqa: A001
    if ids:
        # If that is cut short, they are in the archive, whole.
        list(desk.removing([(keys[one], None) for one in ids], sizes={}))
        restore(desk, ids, session=None, since_us=None, until_us=None, on_progress=None)
    return set(ids)


def _expelled(expelling: Expelling, table: str, keys: list[int]) -> dict[int, str]:
    """Take damaged rows out; what became of each."""
    try:
        count = expelling.take_out(table, keys)
    except ElytronError as error:
        return dict.fromkeys(keys, f"taking it out failed: {error}")
    lost = f"it is lost: what is left of it lies in {expelling.path}"
    return dict.fromkeys(keys, "too many are damaged: check again") | dict.fromkeys(
        keys[:count], lost
    )


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
    (
        "concepts",
        "notes of where the texts of concepts are from that are not there",
        "described",
        "concept NOT IN (SELECT key FROM concepts)",
    ),
)
_NAMELESS = (
    ("messages", "sessions", "session"),
    ("memories", "sessions", "session"),
    ("messages", "users", "user"),
)


def _rest(desk: Desk, expelling: Expelling | None) -> list[Finding]:
    """Orphans, the change list, and the other rows that have a checksum."""

    def look(db: Database) -> tuple[list[Finding], list[tuple[str, int]]]:
        found, wrong = [], []
        for table, what, where in _ORPHANS:
            count = db.execute(f"SELECT count(*) FROM {table} WHERE {where}").get
            if count:
                found.append(Finding(table, f"{count} {what}"))
        gaps = db.execute("SELECT max(ordinal) - min(ordinal) + 1 - count(*) FROM changes").get
        if gaps:
            found.append(Finding("changes", f"{gaps} changes are missing in the list"))
        for table, columns in rows.CHECKSUMMED.items():
            for *values, checksum in db.execute(f"SELECT {columns} FROM {table}"):
                if rows.checksum(tuple(values)) != checksum:
                    wrong.append((table, values[0]))
        return found, wrong

    found, wrong = desk.read(look)
    if expelling is None:
        return [*found, *[Finding(table, _ROW.format(key)) for table, key in wrong]]
    return [*found, *_put_right(desk, expelling, wrong)]


def _put_right(desk: Desk, expelling: Expelling, wrong: list[tuple[str, int]]) -> Iterator[Finding]:
    """Take damaged rows out, and write those anew that others hang on."""
    for table in rows.CHECKSUMMED:
        keys = [key for one, key in wrong if one == table][:_MENDED_MAX]
        if table not in ("sessions", "users"):
            for key, why in _expelled(expelling, table, keys).items():
                yield Finding(table, f"{_ROW.format(key)}; {why}")
            continue
        for key in keys:
            finding = Finding(table, _ROW.format(key), True)
            yield _repaired(finding, True, partial(expelling.name, table, key))
    for source, table, column in _NAMELESS:
        sql = (
            f"SELECT DISTINCT {column} FROM {source} WHERE {column} IS NOT NULL"
            f" AND {column} NOT IN (SELECT key FROM {table}) LIMIT {_MENDED_MAX}"
        )
        for key in desk.read(partial(surveys.keys, sql=sql)):
            try:
                what = f"what names it has it as {expelling.name(table, key)!r} now"
            except ElytronError as error:
                what = f"writing it anew failed: {error}"
            yield Finding(table, f"row {key} is missing; {what}")


def _loose(desk: Desk) -> list[Finding]:
    """Mentions and relations that lost an end, by a deletion that was cut short or by damage."""

    def look(db: Database) -> list[Finding]:
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

    def look(db: Database) -> str | None:
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
        held = word_reads.totals(db)[0]
        if held != count:
            return f"it has {held} messages, the ledger {count}"
        found = word_reads.vocabulary(db)
        wrong = sum([found.get(term) != docs for term, docs in expected.items()])
        wrong += len(found.keys() - expected.keys())
        return f"{wrong} words differ from the messages" if wrong else None

    try:
        what = desk.read(look)
    except (*STORAGE_ERRORS, Corrupt) as error:
        what = str(error)
    return None if what is None else Finding("words", f"the word index: {what}", repairable=True)


def reindex(desk: Desk) -> None:
    """Make the index anew from the messages; a damaged one keeps the words that it has."""
    damaged: list[int] = []

    def page(after: int) -> list[tuple[int, Message]]:
        while keys := desk.read(partial(surveys.keys, sql=_KEYS_AFTER, values=(after, _PAGE))):
            whole, broken = desk.read(partial(surveys.stored, keys=keys, source=desk.ledger.source))
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


def _one(db: Database, key: int) -> Any:
    return db.execute(_ITS_TERMS, (key,)).get


def _heal(desk: Desk) -> None:
    heal(desk)
    if left_behind(desk):
        raise Busy("another process is moving messages now; check again later")


def _archive(desk: Desk, *, repair: bool) -> tuple[int, int, list[Finding]]:
    """How many messages it has, the highest of their keys, and what is wrong."""
    found, highest = [], 0

    def see(archived: Archived) -> None:
        nonlocal highest
        highest = max(highest, archived.key, archived.session_key)

    half_done = left_behind(desk)
    if half_done:
        finding = Finding(
            "archive",
            f"{len(half_done)} segments were left half moved by a process that died",
            repairable=True,
        )
        found.append(_repaired(finding, repair, lambda: _heal(desk)))
    if not desk.archive.exists():
        return 0, 0, found
    path = desk.archive.folder / manifest.FILE
    with files.translate_os_errors(desk.archive.folder):
        is_listed = path.exists() or any(desk.archive.folder.glob("segment-*"))
    if is_listed and manifest.read(path) is None:
        held = desk.archive.manifest()  # which makes it again from the segments
        what = f"its manifest was damaged or missing; it lists {len(held.entries)} segments again"
        if not held.entries:
            what += ": if there were any, what was in them is lost"
        is_back = bool(held.entries)
        found.append(Finding("archive", what, repairable=is_back, repaired=is_back))
    for name, why in desk.archive.damaged(see).items():
        found.append(Finding("archive", f"segment {name}: {why}"))
    found += [_repaired(finding, repair, mend) for finding, mend in doubles(desk)]
    return desk.archive.manifest().messages, highest, found
