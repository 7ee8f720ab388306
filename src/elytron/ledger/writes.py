"""
Writes: each op as SQL, inside a transaction that the ledger has begun.

An op that fails with one of our errors has changed nothing yet, so its neighbours in the same
transaction stand; the one op of several steps, a `Save` of many, undoes itself by a savepoint.
"""

import time
from typing import Any

import apsw

from elytron.errors import Conflict, Corrupt, NotFound
from elytron.ledger import rows
from elytron.ledger.ops import Delete, DeleteSession, Edit, Op, Reindex, Save, SaveOne
from elytron.ledger.schema import DELETE, EDIT, MESSAGE, SAVE, SESSION, USER
from elytron.records import Draft, Receipt
from elytron.text import folded_words

_FIND_MESSAGE = f"SELECT {rows.STORED}, m.terms FROM messages m WHERE m.id = ?"
_FIND_SESSION = "SELECT key, next_position, last_key, last_speaker FROM sessions WHERE id = ?"
_ADD_MESSAGE = "INSERT INTO messages VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_ADD_WORDS = "INSERT INTO words(rowid, terms) VALUES(?, ?)"
_ADD_CHANGE = "INSERT INTO changes(op, kind, key) VALUES(?, ?, ?)"
_TOUCH_SESSION = """
UPDATE sessions SET messages = messages + 1, next_position = ?, last_key = ?, last_speaker = ?,
    first_us = min(ifnull(first_us, ?4), ?4), last_us = max(ifnull(last_us, ?4), ?4)
WHERE key = ?5
"""


def apply(db: apsw.Connection, op: Op, source: object) -> Any:
    """Apply one op. *source* names the ledger in errors."""
    match op:
        case SaveOne(draft):
            return _save(db, draft, source)
        case Save(drafts):
            return _save_many(db, drafts, source)
        case Edit():
            _edit(db, op, source)
        case Delete():
            return _delete(db, op.id)
        case DeleteSession():
            return _delete_session(db, op)
        case Reindex():
            _reindex(db, op)
    return None


def trim_changes(db: apsw.Connection, *, change_max: int) -> None:
    """Forget the oldest changes, a tenth at once, so that at most *change_max* are held."""
    first, last = db.execute(
        "SELECT (SELECT min(seq) FROM changes), (SELECT max(seq) FROM changes)"
    ).get
    if first is not None and last - first >= change_max:
        db.execute("DELETE FROM changes WHERE seq <= ?", (last - change_max * 9 // 10,))


def _save_many(db: apsw.Connection, drafts: tuple[Draft, ...], source: object) -> list[Receipt]:
    with db:  # a savepoint, since a transaction is open
        receipts = [_save(db, draft, source) for draft in drafts]
    return receipts


def _save(db: apsw.Connection, draft: Draft, source: object) -> Receipt:
    execute = db.execute
    held = execute(_FIND_MESSAGE, (draft.id,)).get
    if held is not None:
        _compare(db, held, draft, source)
        return Receipt(draft.id, False, held[10])
    session = execute(_FIND_SESSION, (draft.session,)).get
    if session is None:
        session = (_add_session(db, draft), 0, None, None)
    session_key, position, last_key, last_speaker = session
    user = None if draft.user is None else _user_key(db, draft)
    speaker = draft.user or draft.role
    execute(_ADD_CHANGE, (SAVE, MESSAGE, None))
    key = db.last_insert_rowid()
    row = (
        key,
        draft.id,
        session_key,
        position,
        user,
        last_key if last_speaker != speaker else None,
        draft.role,
        draft.at_us,
        draft.offset_min,
        draft.arrived_us,
        draft.embedding,
        draft.metadata,
        draft.content,
    )
    execute(_ADD_MESSAGE, (*row, rows.checksum(row), draft.terms))
    execute(_TOUCH_SESSION, (position + 1, key, speaker, draft.at_us, session_key))
    execute(_ADD_WORDS, (key, draft.words))
    return Receipt(draft.id, True, draft.embedding)


def _compare(db: apsw.Connection, held: tuple[Any, ...], draft: Draft, source: object) -> None:
    """Let a retry pass; refuse other content under a known id."""
    rows.verify(held, source)
    session = db.execute("SELECT id FROM sessions WHERE key = ?", (held[2],)).get
    user = None
    if held[4] is not None:
        user = db.execute("SELECT id FROM users WHERE key = ?", (held[4],)).get
    same = (session, user, held[6], held[11], held[12]) == (
        draft.session,
        draft.user,
        draft.role,
        draft.metadata,
        draft.content,
    )
    if not same or (draft.at_given and held[7] != draft.at_us):
        raise Conflict(
            f"id {draft.id!r} is held with other content; use a new id, or `edit` that message"
        )


def _add_session(db: apsw.Connection, draft: Draft) -> int:
    db.execute(_ADD_CHANGE, (SAVE, SESSION, None))
    row = (db.last_insert_rowid(), draft.session, draft.arrived_us)
    db.execute(
        "INSERT INTO sessions(key, id, created_us, checksum) VALUES(?, ?, ?, ?)",
        (*row, rows.checksum(row)),
    )
    return row[0]


def _user_key(db: apsw.Connection, draft: Draft) -> int:
    key: int | None = db.execute("SELECT key FROM users WHERE id = ?", (draft.user,)).get
    if key is not None:
        return key
    db.execute(_ADD_CHANGE, (SAVE, USER, None))
    folded = " ".join(folded_words(draft.user or ""))
    row = (db.last_insert_rowid(), draft.user, folded, draft.arrived_us)
    db.execute("INSERT INTO users VALUES(?, ?, ?, ?, ?)", (*row, rows.checksum(row)))
    return row[0]


def _edit(db: apsw.Connection, op: Edit, source: object) -> None:
    held = db.execute(_FIND_MESSAGE, (op.id,)).get
    if held is None:
        raise NotFound(f"no message has the id {op.id!r}; nothing was changed")
    rows.verify(held, source)
    row = (*held[:12], op.content)
    db.execute(
        "UPDATE messages SET content = ?, terms = ?, checksum = ? WHERE key = ?",
        (op.content, op.terms, rows.checksum(row), row[0]),
    )
    db.execute("DELETE FROM words WHERE rowid = ?", (row[0],))
    db.execute(_ADD_WORDS, (row[0], op.words))
    db.execute(_ADD_CHANGE, (EDIT, MESSAGE, row[0]))


def _delete(db: apsw.Connection, id: str) -> bool:
    found = db.execute("SELECT key, session FROM messages WHERE id = ?", (id,)).get
    if found is None:
        return False
    key, session = found
    _drop_message(db, key)
    _recount(db, session)
    return True


def _delete_session(db: apsw.Connection, op: DeleteSession) -> int:
    session = db.execute("SELECT key FROM sessions WHERE id = ?", (op.session,)).get
    if session is None:
        return 0
    keys = rows.fetch(
        db,
        "SELECT key FROM messages WHERE session = ? ORDER BY position LIMIT ?",
        (session, op.limit),
    )
    for (key,) in keys:
        _drop_message(db, key)
    _recount(db, session)
    if len(keys) < op.limit:
        db.execute("DELETE FROM sessions WHERE key = ?", (session,))
        db.execute(_ADD_CHANGE, (DELETE, SESSION, session))
    return len(keys)


def _drop_message(db: apsw.Connection, key: int) -> None:
    db.execute("DELETE FROM messages WHERE key = ?", (key,))
    db.execute("DELETE FROM words WHERE rowid = ?", (key,))
    db.execute("DELETE FROM vectors WHERE key = ?", (key,))
    db.execute("DELETE FROM edges WHERE source = ? OR target = ?", (key, key))
    db.execute(_ADD_CHANGE, (DELETE, MESSAGE, key))


def _recount(db: apsw.Connection, session: int) -> None:
    """Count a session anew after messages left it. Positions are not given out twice."""
    last = db.execute(
        "SELECT m.key, ifnull(u.id, m.role) FROM messages m LEFT JOIN users u ON u.key = m.user"
        " WHERE m.session = ? ORDER BY m.position DESC LIMIT 1",
        (session,),
    ).get or (None, None)
    db.execute(
        "UPDATE sessions SET last_key = ?, last_speaker = ?,"
        " (messages, first_us, last_us) = (SELECT count(*), min(at_us), max(at_us)"
        " FROM messages WHERE session = ?3) WHERE key = ?3",
        (*last, session),
    )


def _reindex(db: apsw.Connection, op: Reindex) -> None:
    for key, words, terms in op.entries:
        # Deleted in the meantime: nothing to index.
        db.execute("UPDATE messages SET terms = ? WHERE key = ?", (terms, key))
        if db.changes():
            db.execute("DELETE FROM words WHERE rowid = ?", (key,))
            db.execute(_ADD_WORDS, (key, words))
    db.execute("UPDATE meta SET value = ? WHERE name = 'languages'", (op.languages,))


def set_up(db: apsw.Connection, *, name: str, languages: str) -> None:
    """The first rows of a new ledger."""
    created_us = time.time_ns() // 1000
    for key, value in (("agent", name), ("languages", languages), ("created_us", created_us)):
        db.execute("INSERT INTO meta VALUES(?, ?)", (key, str(value)))


def identity(db: apsw.Connection, source: object) -> tuple[str, str]:
    """(agent, languages) as the ledger itself has them."""
    found = dict(rows.fetch(db, "SELECT name, value FROM meta"))
    if "agent" not in found or "languages" not in found:
        raise Corrupt(f"{source} does not say whose it is; the file was left as it is")
    return found["agent"], found["languages"]
