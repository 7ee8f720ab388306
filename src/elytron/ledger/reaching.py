"""
Reaching: from concepts to the messages that name them, and over one relation to other concepts.

For recall, so nothing here is verified: a damaged row costs an order and is found out when the
message is read. Each read is bounded.
"""

from collections.abc import Iterable, Sequence

from elytron.ledger import rows
from elytron.ledger.database import Database
from elytron.ledger.integers import Integers

_HOLDS = "ifnull(valid_from_us <= ?2, 1) AND ifnull(valid_to_us > ?2, 1)"
_RELATED = f"""
SELECT * FROM (SELECT source, relation, target, strength FROM relations
    WHERE source = ?1 AND {_HOLDS} LIMIT ?3)
UNION ALL
SELECT * FROM (SELECT target, relation, source, strength FROM relations
    WHERE target = ?1 AND {_HOLDS} LIMIT ?3)
"""
_KINDS = [int, str, int, float]
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM mentions WHERE concept = ? LIMIT ?)"
_NAMING = """
SELECT m.key FROM mentions n CROSS JOIN messages m ON m.key = n.source
WHERE n.concept = ? ORDER BY n.source DESC LIMIT ?
"""
_AMONG = """
SELECT source, concept FROM mentions
WHERE source IN (SELECT value FROM carray(?)) AND concept IN (SELECT value FROM carray(?))
"""


def related(
    db: Database, concepts: Iterable[int], *, at_us: int, limit: int
) -> list[tuple[int, str, int, float]]:
    """
    (concept, relation, the other, strength) of the relations that hold at a time, in either
    direction; at most *limit* of each concept and direction.
    """
    found = (row for key in concepts for row in rows.fetch(db, _RELATED, (key, at_us, limit)))
    return [row for row in found if [type(value) for value in row] == _KINDS]


def counts(db: Database, concepts: Iterable[int], *, most: int) -> dict[int, int]:
    """How many messages and memories name each concept; counted no further than *most*."""
    return {key: int(db.execute(_COUNT, (key, most)).get) for key in concepts}


def naming(db: Database, concept: int, *, limit: int) -> list[int]:
    """The newest messages that name a concept."""
    return [key for (key,) in rows.fetch(db, _NAMING, (concept, limit))]


def among(db: Database, keys: Sequence[int], concepts: Iterable[int]) -> list[tuple[int, int]]:
    """(message, concept) of those of the messages that name one of the concepts."""
    return rows.fetch(db, _AMONG, (Integers(keys), Integers(concepts)))
