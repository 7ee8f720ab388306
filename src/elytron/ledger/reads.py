"""Reads: each question to a ledger as SQL, on a connection lent by it."""

import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import apsw

from elytron.errors import Corrupt
from elytron.ledger import bundles, rows, space
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.schema import MESSAGE, SAVE
from elytron.records import GraphUsage, LedgerBytes, Message, Session, Usage
from elytron.reports import ArchiveUsage


@dataclass(frozen=True, slots=True)
class Filter:
    """Which messages may be hits. Times are in microseconds, from inclusive to exclusive."""

    session: str | None = None
    user: str | None = None
    role: str | None = None
    since_us: int | None = None
    until_us: int | None = None

    def where(self) -> tuple[str, tuple[Any, ...]]:
        """The conditions on `messages m` as SQL, each beginning with AND."""
        parts = (
            ("m.session = (SELECT key FROM sessions WHERE id = ?)", self.session),
            ("m.user = (SELECT key FROM users WHERE id = ?)", self.user),
            ("m.role = ?", self.role),
            ("m.at_us >= ?", self.since_us),
            ("m.at_us < ?", self.until_us),
        )
        used = [(sql, value) for sql, value in parts if value is not None]
        return "".join(f" AND {sql}" for sql, _ in used), tuple(value for _, value in used)


_PAGE_MAX_CHARACTERS = 8 << 20
_TIMES_END_US = 253_402_300_800_000_000  # the year 10000, where `datetime` ends
_SESSIONS = "SELECT key, id, created_us, checksum FROM sessions"
_USERS = "SELECT key, id, folded, created_us, checksum FROM users"
_PLACE = (
    "m.key, m.session, m.position, m.user, m.role, octet_length(m.content), m.terms,"
    " instr(m.content, '?') > 0"
)
_PLACE_COLUMNS = "iiiiiibi"
# With those before and after in the session, which the index of places has; those that are asked
# for by themselves too, so that one whose place is damaged is seen.
_AROUND = (
    f"SELECT {_PLACE} FROM messages m WHERE m.key IN (SELECT value FROM carray(?1) UNION ALL"
    " SELECT beside.key FROM carray(?1) c CROSS JOIN messages f ON f.key = c.value"
    " CROSS JOIN messages beside ON beside.session = f.session"
    " AND beside.position BETWEEN f.position - 1 AND f.position + 1)"
)


class Place(NamedTuple):
    """
    What ranking needs of a message: where it stands, who spoke, and its hashed terms.

    A memory stands alone: in a session that is none, which has the number of its key below zero.
    """

    key: int
    session: int
    position: int
    user: int | None
    role: str
    text_bytes: int
    terms: bytes
    asks: bool = False  # has a question mark


def history(
    db: Database, *, session: str | None, limit: int, before: str | None, source: object
) -> list[Message]:
    """The newest *limit* messages, oldest first, of a session or of all, before a message."""
    order, where = "m.key", "1"
    values: tuple[Any, ...] = ()
    session_key = None
    if session is not None:
        session_key = db.execute("SELECT key FROM sessions WHERE id = ?", (session,)).get
        order, where, values = "m.position", "m.session = ?", (session_key,)
    if before is not None:
        bound = db.execute(
            "SELECT key, session, position FROM messages WHERE id = ?", (before,)
        ).get
        if bound is None:
            return []
        # Positions are in the index; the keys of another session have to do with the rows.
        same = session_key is not None and bound[1] == session_key
        where += " AND m.position < ?" if same else " AND m.key < ?"
        values = (*values, bound[2] if same else bound[0])
    found = rows.fetch(
        db, f"{rows.SELECT_MESSAGES} WHERE {where} ORDER BY {order} DESC LIMIT ?", (*values, limit)
    )
    return [message for _, message in messages_of(db, reversed(found), source)]


def page(db: Database, *, after_key: int, limit: int, source: object) -> list[tuple[int, Message]]:
    """
    (key, message) of the next messages in the order of arrival: at most *limit*, and no more
    than 8 MB of text if there is more than one.
    """
    found, size = [], 0
    cursor = db.execute(
        f"{rows.SELECT_MESSAGES} WHERE m.key > ? ORDER BY m.key LIMIT ?", (after_key, limit)
    )
    for row in cursor:
        if type(row[0]) is not int or row[0] <= after_key:
            raise Corrupt(f"{source}: messages are out of their order; the file was left as it is")
        after_key = row[0]
        found.append(row)
        size += len(row[12]) if isinstance(row[12], str) else 0
        if size > _PAGE_MAX_CHARACTERS:
            break
    cursor.close(True)
    return list(messages_of(db, found, source))


def message(db: Database, id: str, source: object) -> Message | None:
    found = rows.fetch(db, f"{rows.SELECT_MESSAGES} WHERE m.id = ?", (id,))
    return next((message for _, message in messages_of(db, found, source)), None)


def held(db: Database, keys: Collection[int], source: object) -> dict[int, rows.Held]:
    """
    These messages, of keys that were found in the same snapshot, as their rows have them, verified:
    `message` of those that are wanted whole.

    Raises:
        Corrupt: one of the rows is not what was written, or not where it was.
    """
    found = bundles.fetch(
        db,
        f"{rows.SELECT_MESSAGES} WHERE m.key IN (SELECT value FROM carray(?))",
        rows.MESSAGE_COLUMNS,
        (Integers(keys),),
    )
    sessions, users = _verified_ids(db, found, source)
    whole = {row[0]: rows.Held(row, sessions, users) for row in found}
    rows.check_there(whole, keys, "message", source)
    return whole


def messages(db: Database, keys: Collection[int], source: object) -> dict[int, Message]:
    """As `held`, each whole."""
    return {key: one.message() for key, one in held(db, keys, source).items()}


def messages_of(
    db: Database, found: Iterable[tuple[Any, ...]], source: object
) -> Iterator[tuple[int, Message]]:
    """
    (key, message) of rows of `SELECT_MESSAGES`; the ids that they name are verified too.

    Raises:
        Corrupt: one of the rows is not what was written.
    """
    found = list(found)
    sessions, users = _verified_ids(db, found, source)
    for row in found:
        yield row[0], rows.to_message(row, sessions, users)


def _verified_ids(
    db: Database, found: list[tuple[Any, ...]], source: object
) -> tuple[dict[int, str], dict[int, str]]:
    """The ids of the sessions and users of rows, by key; the rows are verified before."""
    for row in found:
        rows.verify(row, source)
        rows.verify_mark(row, source)
    sessions = _ids(db, _SESSIONS, {row[rows.SESSION] for row in found}, source)
    return sessions, _ids(db, _USERS, {row[rows.USER] for row in found} - {None}, source)


def session_ids(db: Database, keys: set[int], source: object) -> dict[int, str]:
    """The ids of sessions by key, verified."""
    return _ids(db, _SESSIONS, keys, source)


def user_ids(db: Database, keys: set[int], source: object) -> dict[int, str]:
    """The ids of users by key, verified."""
    return _ids(db, _USERS, keys, source)


def _ids(db: Database, select: str, keys: set[int], source: object) -> dict[int, str]:
    """The ids of sessions or users by key, verified."""
    named = {}
    if keys:
        sql = f"{select} WHERE key IN (SELECT value FROM carray(?))"
        columns = "i" * (1 + select.count(","))
        for *values, checksum in bundles.fetch(db, sql, columns, (Integers(sorted(keys)),)):
            if rows.checksum(tuple(values)) != checksum:
                raise Corrupt(
                    f"{source}: the row of session or user {values[0]} is damaged (its checksum"
                    " does not match); the file was left as it is"
                )
            named[values[0]] = values[1]
    if len(named) < len(keys):
        raise Corrupt(
            f"{source}: a session or user that messages name is missing; the file was left as it is"
        )
    return named


def sessions(db: Database, *, limit: int, source: object) -> list[Session]:
    """The sessions that hold messages, the one last spoken in first."""
    found = rows.fetch(
        db,
        # The last message of each session comes from the index; the rest only for those shown.
        "SELECT key, (SELECT count(*) FROM messages WHERE session = shown.key),"
        " (SELECT min(at_us) FROM messages WHERE session = shown.key),"
        " (SELECT max(at_us) FROM messages WHERE session = shown.key)"
        " FROM (SELECT key, last FROM (SELECT s.key, (SELECT m.key FROM messages m"
        " WHERE m.session = s.key ORDER BY m.position DESC LIMIT 1) AS last FROM sessions s) spoken"
        " WHERE last IS NOT NULL ORDER BY last DESC LIMIT ?) shown ORDER BY last DESC",
        (limit,),
    )
    ids = _ids(db, _SESSIONS, {row[0] for row in found}, source)
    return [
        Session(ids[key], count, to_time(first, source), to_time(last, source))
        for key, count, first, last in found
    ]


def newest(db: Database, session: str, *, limit: int) -> list[int]:
    """The keys of the newest *limit* messages of a session. Reads an index alone."""
    sql = (
        "SELECT key FROM messages WHERE session = (SELECT key FROM sessions WHERE id = ?)"
        " ORDER BY position DESC LIMIT ?"
    )
    return [key for (key,) in rows.fetch(db, sql, (session, limit))]


def unindexed(db: Database, source: object) -> list[Place]:
    """The newest messages, whose words are not in the index yet."""
    sql = f"SELECT {_PLACE} FROM messages m WHERE m.key > (SELECT key FROM indexed)"
    return _to_places(bundles.fetch(db, sql, _PLACE_COLUMNS), source)


def _to_places(found: list[tuple[Any, ...]], source: object) -> list[Place]:
    """
    Rows of `_PLACE` as places.

    They are not verified, for that takes the whole row, and only lend their scores: a wrong one
    costs an order, and is found out when the message is read. But they must be what they say.
    """
    if found:
        _, sessions, positions, _, _, sizes, terms, _ = zip(*found, strict=True)
        kinds = {*map(type, sessions), *map(type, positions), *map(type, sizes)}
        if kinds != {int} or {*map(type, terms)} != {bytes}:
            key = next(row[0] for row in found if not _is_place(row))
            raise Corrupt(f"{source}: message row {key} is damaged; the file was left as it is")
    return list(map(Place._make, found))


def _is_place(row: tuple[Any, ...]) -> bool:
    _, session, position, _, _, text_bytes, terms, _ = row
    numbers = type(session) is type(position) is type(text_bytes) is int
    return numbers and type(terms) is bytes


def to_time(at_us: object, source: object) -> datetime:
    if type(at_us) is not int or not 0 <= at_us < _TIMES_END_US:
        raise Corrupt(f"{source}: a message's time is damaged; the file was left as it is")
    return rows.to_datetime(at_us)


def names_nobody(db: Database, accept: Filter) -> bool:
    """Whether a filter names a session or user that is not there, so that nothing passes it."""
    for table, name in (("sessions", accept.session), ("users", accept.user)):
        sql = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE id = ?)"
        if name is not None and not db.execute(sql, (name,)).get:
            return True
    return False


def accepted(db: Database, keys: Sequence[int], accept: Filter) -> set[int]:
    """Those of *keys* that are messages, and pass the filter."""
    where, values = accept.where()
    sql = f"SELECT m.key FROM messages m WHERE m.key IN (SELECT value FROM carray(?)){where}"
    return set(bundles.fetch_keys(db, sql, (Integers(keys), *values)))


@functools.singledispatch
def places(db: Database, keys: Sequence[int], source: object) -> list[Place]:
    """
    The places of these messages and of those just before and after them in the session.

    Raises:
        Corrupt: a key is none, as a damaged index may give it.
    """
    raise TypeError(type(db).__name__)


@places.register
def _(db: apsw.Connection, keys: Sequence[int], source: object) -> list[Place]:
    _check_keys(keys, source)
    return _to_places(bundles.fetch(db, _AROUND, _PLACE_COLUMNS, (Integers(keys),)), source)


def _check_keys(keys: Sequence[int], source: object) -> None:
    if not all([type(key) is int for key in keys]):
        raise Corrupt(f"{source}: its word index is damaged; run `elytron check --repair`")


def users_named(db: Database, folded_names: Iterable[str]) -> dict[int, str]:
    """The users whose folded id is among these names: key -> that name."""
    found = db.execute(
        "SELECT u.key, u.folded FROM json_each(?) j CROSS JOIN users u ON u.folded = j.value",
        (list(folded_names),),
    )
    return dict(found)


def changes(
    db: Database, *, after: int, limit: int
) -> tuple[list[tuple[int, int, int, int]], bool]:
    """
    The next *limit* changes after a number, in order: (number, op, kind, key).

    That a message was saved is told by the message itself, while it is held; one that has been
    deleted since is told of by its deletion alone.

    Returns:
        (changes, complete). Not complete means that older ones have been forgotten since
        *after*, so the reader has to begin anew.
    """
    found = rows.fetch(
        db,
        "SELECT * FROM"
        " (SELECT seq, op, kind, key FROM changes WHERE seq > ?1 ORDER BY seq LIMIT ?2)"
        " UNION ALL"
        " SELECT * FROM"
        " (SELECT key, ?3, ?4, key FROM messages WHERE key > ?1 ORDER BY key LIMIT ?2)"
        " ORDER BY 1 LIMIT ?2",
        (after, limit, SAVE, MESSAGE),
    )
    oldest = db.execute("SELECT seq, ordinal FROM changes ORDER BY seq LIMIT 1").get
    forgotten = oldest is not None and oldest[1] > 1 and oldest[0] > after + 1
    return found, not forgotten


def arrivals(db: Database, *, since_us: int) -> tuple[int, bool, int | None]:
    """
    (how many of the messages held arrived from a time on, whether all did, when the ledger began).
    """
    count, total = db.execute(
        "SELECT count(*) FILTER (WHERE arrived_us >= ?), count(*) FROM messages", (since_us,)
    ).get
    begun = db.execute("SELECT value FROM meta WHERE name = 'created_us'").get
    return count, count == total, int(begun) if str(begun).isdecimal() else None


def usage(
    db: Database,
    *,
    file: int,
    wal: int,
    aside: int,
    archive: ArchiveUsage,
    graph: GraphUsage,
    source: object,
    **known: Any,
) -> Usage:
    """
    What a ledger holds and costs; *known* are the members of `Usage` that it cannot know.

    Counts rows, and reads the index and vector pages: about a millisecond per 4 MB.
    """
    kinds = ("messages", "sessions", "users", "memories", "concepts", "changes")
    edges = ("relations", "mentions")
    sql = "SELECT " + ", ".join([f"(SELECT count(*) FROM {kind})" for kind in (*kinds, *edges)])
    *numbers, relations, mentions = db.execute(sql).get
    counts = dict(zip(kinds, numbers, strict=True))
    counts["edges"] = relations + mentions
    counts["pinned"] = db.execute("SELECT count(*) FROM marks WHERE pinned").get
    first_us, last_us = db.execute("SELECT min(at_us), max(at_us) FROM messages").get
    pages = space.pages(db)
    words_bytes, vector_bytes = space.parts(db)
    return Usage(
        **known,
        **counts,
        first_at=None if first_us is None else to_time(first_us, source),
        last_at=None if last_us is None else to_time(last_us, source),
        bytes=LedgerBytes(
            file=file,
            # Pages that are still in the WAL alone count here too.
            live=pages.live_bytes,
            dead=pages.dead_bytes,
            wal=wal,
            words=words_bytes,
            vectors=vector_bytes,
            archive=archive.bytes,
            graph=graph.bytes,
            aside=aside,
        ),
        archive=archive,
        graph=graph,
    )
