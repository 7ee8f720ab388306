"""
Vector reads: texts that are to have a vector, and the vectors held, as SQL on a lent connection.

Vectors are not verified here: a wrong one costs an order, never a text, and `check` finds it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from elytron.errors import Corrupt
from elytron.ledger import bundles, rows, texts
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers
from elytron.ledger.reads import Filter
from elytron.ledger.schema import MESSAGE, NO_VECTOR_GIVEN, NO_VECTOR_ROOM
from elytron.ledger.vectors import any_noted, checksum, counted, projection_checksum, state

_KEYS = "(SELECT value FROM carray(?))"
_DIGEST_BYTES = 8
_REASONS = (NO_VECTOR_ROOM, NO_VECTOR_GIVEN)
# Who else has an equal text: for one question so many, the newest of so many looked through.
_SHARING_MAX, _SHARED_MAX = 1000, 10_000


class Wanted(NamedTuple):
    """
    A text and what is known of its vector.

    `embedding` is what admission said of it, None for a memory; `held` whether it has a vector,
    or a share in one.
    """

    key: int
    kind: int
    checksum: int
    role: str | None
    content: str
    embedding: str | None
    held: bool


class StoredVector(NamedTuple):
    """A vector: its number and owner, by what it was reduced, and its bytes times a scale."""

    number: int
    key: int
    projection: int
    scale: float
    data: bytes


class StoredProjection(NamedTuple):
    """Components in half precision; see the schema."""

    version: int
    input: int
    dims: int
    fitted_on: int
    last: int
    data: bytes


def digest(text: str | bytes) -> int:
    """63 bits by which equal texts are known; of a text or its UTF-8."""
    data = text.encode() if isinstance(text, str) else text
    found = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
    return int.from_bytes(found, "big") >> 1


def wanted(db: Database, found: Iterable[tuple[int, int]], source: object) -> list[Wanted]:
    """What there is to know of these (kind, key), in order of their keys; damaged ones left out."""
    whole = texts.texts(db, found, source)
    keys = Integers([text.key for text in whole])
    said = dict(
        rows.fetch(db, f"SELECT key, embedding FROM messages WHERE key IN {_KEYS}", (keys,))
    )
    held = {
        key
        for table in ("vectors", "shared")
        for key in bundles.fetch_keys(db, f"SELECT key FROM {table} WHERE key IN {_KEYS}", (keys,))
    }
    return [
        Wanted(
            text.key,
            text.kind,
            text.checksum,
            text.role,
            text.content,
            said[text.key] if text.kind == MESSAGE else None,
            text.key in held,
        )
        for text in whole
    ]


def before(db: Database, *, kind: int, key: int | None, limit: int) -> list[int]:
    """The keys of the *limit* newest messages or memories before a key, or of all."""
    table = "messages" if kind == MESSAGE else "memories"
    where = "" if key is None else "WHERE key < ?"
    values = (limit,) if key is None else (key, limit)
    sql = f"SELECT key FROM {table} {where} ORDER BY key DESC LIMIT ?"
    return [found for (found,) in rows.fetch(db, sql, values)]


def added(db: Database, *, after: int, limit: int) -> list[StoredVector]:
    """The next *limit* vectors after a number."""
    sql = (
        "SELECT number, key, projection, scale, data FROM vectors WHERE number > ?"
        " ORDER BY number LIMIT ?"
    )
    return list(map(StoredVector._make, rows.fetch(db, sql, (after, limit))))


def of_keys(db: Database, keys: Sequence[int]) -> list[tuple[int, int, float, bytes]]:
    """(key, projection, scale, data) of those of these messages and memories that have one."""
    found: list[tuple[int, int, float, bytes]] = bundles.fetch(
        db,
        f"SELECT key, projection, scale, data FROM vectors WHERE key IN {_KEYS}",
        "iiib",
        (Integers(keys),),
    )
    if _any_shared(db):
        found += rows.fetch(
            db,
            "SELECT s.key, v.projection, v.scale, v.data FROM shared s"
            f" CROSS JOIN vectors v ON v.digest = s.digest WHERE s.key IN {_KEYS}",
            (Integers(keys),),
        )
    return found


def _any_shared(db: Database) -> bool:
    """Looked at first: mostly nothing is, and then it need not be looked for."""
    return bool(db.execute("SELECT EXISTS (SELECT 1 FROM shared)").get)


def sharing(db: Database, keys: Sequence[int], accept: Filter | None) -> list[int]:
    """
    Those who share the vectors of these, at most a thousand: of each the newest, or with a filter
    the newest message that passes it, and the memories.
    """
    if not _any_shared(db):
        return []
    shared = f"FROM vectors v CROSS JOIN shared s ON s.digest = v.digest WHERE v.key IN {_KEYS}"
    if accept is None:
        sql = f"SELECT max(s.key) {shared} GROUP BY s.digest LIMIT ?"
        return [key for (key,) in rows.fetch(db, sql, (Integers(keys), _SHARING_MAX))]
    where, values = accept.where()
    sql = (
        f"SELECT max(f.key) FROM (SELECT s.key, s.digest {shared} ORDER BY s.key DESC LIMIT ?) f"
        f" LEFT JOIN messages m ON m.key = f.key WHERE m.key IS NULL OR (m.key IS NOT NULL{where})"
        " GROUP BY f.digest, CASE WHEN m.key IS NULL THEN f.key END LIMIT ?"
    )
    bound = (Integers(keys), _SHARED_MAX, *values, _SHARING_MAX)
    return [key for (key,) in rows.fetch(db, sql, bound)]


def newest(db: Database, accept: Filter, *, limit: int, among: int) -> list[int]:
    """The keys of the newest *limit* messages that pass a filter, *among* so many of all."""
    where, values = accept.where()
    sql = (
        "SELECT m.key FROM (SELECT n.key, n.session, n.user, n.role, n.at_us FROM messages n"
        f" ORDER BY n.key DESC LIMIT ?) m WHERE m.key IS NOT NULL{where}"
        " ORDER BY m.key DESC LIMIT ?"
    )
    return [key for (key,) in rows.fetch(db, sql, (among, *values, limit))]


def unreduced(db: Database, projection: StoredProjection, *, limit: int) -> list[StoredVector]:
    """Vectors that are still to be reduced by a projection, as `whole`."""
    where = "number <= ? AND projection <> ?"
    values = (projection.last, projection.version)
    return _verified(db, where, values, dim=projection.input, limit=limit)


def whole(db: Database, *, dim: int, limit: int) -> list[StoredVector]:
    """
    The first *limit* vectors that are not reduced. Damaged ones are left out, so that nothing is
    made of them that looks whole.
    """
    return _verified(db, "projection = 0", (), dim=dim, limit=limit)


def _verified(
    db: Database, where: str, values: tuple[int, ...], *, dim: int, limit: int
) -> list[StoredVector]:
    found = db.execute(
        "SELECT number, key, digest, projection, scale, data, checksum FROM vectors"
        f" WHERE {where} ORDER BY number",
        values,
    )
    fitting: list[StoredVector] = []
    for number, *row, written in found:
        key, _, of, scale, data = row
        if len(fitting) == limit:
            break
        if checksum(row) == written and len(data) == dim:
            fitting.append(StoredVector(number, key, of, scale, data))
    found.close(True)
    return fitting


def count(db: Database) -> int:
    """How many vectors there are. Reads their index."""
    return int(db.execute("SELECT count(*) FROM vectors").get)


def projection(db: Database, version: int, source: object) -> StoredProjection:
    """
    One projection.

    Raises:
        Corrupt: it is missing or not what was written; `elytron reembed` makes all anew.
    """
    found = db.execute("SELECT * FROM projections WHERE version = ?", (version,)).get
    if found is None or projection_checksum(found[:-1]) != found[-1]:
        raise Corrupt(
            f"{source}: the projection {version} of its vectors is missing or damaged; run"
            " `elytron reembed`"
        )
    return StoredProjection(*found[:-1])


class Wrong(NamedTuple):
    """
    What is wrong with vectors: the numbers of vectors and the keys of shares and reasons that are
    to go; whether the counts are wrong; and why all have to go, if so.
    """

    vectors: list[int]
    shared: list[int]
    reasons: list[int]
    counts: bool
    unusable: str | None


_TEXT_OF = (
    "CAST(ifnull(m.content, r.content) AS BLOB) FROM {0} v LEFT JOIN messages m ON m.key = v.key"
    " LEFT JOIN memories r ON r.key = v.key"
)


def wrong(db: Database) -> Wrong:
    """Look at each vector, share and reason, and at the text whose it is. Reads all of them."""
    held = state(db)
    count, newest, held_bytes = counted(db)
    unusable = None
    sizes: dict[int, int] = {}
    if held is None:
        unusable = f"{count} vectors are of no embedder" if count else None
    else:
        sizes[0] = held.dim
        if held.projection:
            try:
                sizes[held.projection] = projection(db, held.projection, "ledger").dims
            except Corrupt:
                unusable = "the projection that they are reduced by is missing or damaged"
    found: dict[int, int] = {}  # digest by key, of those that are whole
    vectors = []
    for number, *values, written, text in db.execute(
        f"SELECT v.number, v.key, v.digest, v.projection, v.scale, v.data, v.checksum, {_TEXT_OF}"
        " ORDER BY v.number".format("vectors")
    ):
        key, of, by, _, data = values
        fits = checksum(values) == written and len(data) == sizes.get(by)
        if fits and type(text) is bytes and digest(text) == of:
            found[key] = of
        else:
            vectors.append(number)
    digests = set(found.values())
    shared, sharing = [], set[int]()
    for key, of, text in db.execute(f"SELECT v.key, v.digest, {_TEXT_OF}".format("shared")):
        if type(text) is bytes and digest(text) == of and of in digests and key not in found:
            sharing.add(key)
        else:
            shared.append(key)
    reasons = [
        key
        for key, reason, text in db.execute(
            f"SELECT v.key, v.reason, {_TEXT_OF}".format("unembedded")
        )
        if text is None or reason not in _REASONS or key in found or key in sharing
    ]
    counts = held is not None and (
        (held.bytes, held.last - held.removed) != (held_bytes, count) or held.last < newest
    )
    return Wrong(vectors, shared, reasons, counts, unusable)


class Worth(NamedTuple):
    """
    What there is to know of a vector's owner when some have to go. A memory has the role `memory`;
    `bytes` are 0 of one that has no vector yet.
    """

    key: int
    importance: float
    pinned: bool
    used_us: int
    at_us: int
    role: str
    session: str
    bytes: int


_MESSAGE_WORTHS = """
SELECT m.key, ifnull(k.importance, ?1), ifnull(k.pinned, 0), ifnull(u.last_us, 0),
    max(m.at_us, m.arrived_us), m.role, s.id, {bytes} FROM {source} JOIN messages m ON m.key = {key}
    LEFT JOIN sessions s ON s.key = m.session LEFT JOIN marks k ON k.key = m.key
    LEFT JOIN uses u ON u.key = m.key
"""
_MEMORY_WORTHS = """
SELECT r.key, r.importance, r.pinned, ifnull(r.last_used_us, 0), r.created_us, 'memory', s.id,
    {bytes} FROM {source} JOIN memories r ON r.key = {key}
    LEFT JOIN sessions s ON s.key = r.session
"""
_WORTHS = f"{_MESSAGE_WORTHS} UNION ALL {_MEMORY_WORTHS}"


def worths(db: Database, *, row_bytes: int, default_importance: float) -> list[Worth]:
    """All vectors in short, with the worth of the messages and memories that own them."""
    size = f"ifnull(octet_length(v.data), 0) + {row_bytes:d}"
    sql = _WORTHS.format(bytes=size, source="vectors v", key="v.key")
    return _to_worths(rows.fetch(db, sql, (default_importance,)))


def worths_of(db: Database, keys: Sequence[int], *, default_importance: float) -> list[Worth]:
    """The worth of messages and memories that have no vector yet."""
    sql = _WORTHS.format(bytes="0", source="carray(?2) c", key="c.value")
    return _to_worths(rows.fetch(db, sql, (default_importance, Integers(keys))))


def _to_worths(found: list[tuple[Any, ...]]) -> list[Worth]:
    return [
        Worth(key, importance, bool(pinned), used_us, at_us, str(role), str(session or ""), size)
        for key, importance, pinned, used_us, at_us, role, session, size in found
    ]


def reasons(db: Database) -> dict[tuple[str, bool, bool, int | None], int]:
    """
    How many messages there are by what admission said of their vectors, whether they have one or
    share one, and the reason why one that was to have one has none.

    Reads all messages: a millisecond for 10,000, and where there are vectors some 10.
    """
    if not any_noted(db):
        sql = "SELECT embedding, 0, 0, NULL, count(*) FROM messages GROUP BY 1"
    else:
        sql = (
            "SELECT m.embedding, v.key IS NOT NULL, s.key IS NOT NULL, u.reason, count(*)"
            " FROM messages m LEFT JOIN vectors v ON v.key = m.key"
            " LEFT JOIN shared s ON s.key = m.key LEFT JOIN unembedded u ON u.key = m.key"
            " GROUP BY 1, 2, 3, 4"
        )
    return {
        (str(said), bool(own), bool(share), reason): count
        for said, own, share, reason, count in rows.fetch(db, sql)
    }
