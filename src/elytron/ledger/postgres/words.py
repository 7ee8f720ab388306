"""
Words: the full-text index of an agent on PostgreSQL, and what is asked of it.

The index is in arrays of postings: which term stands in which message, how often, and how many
terms that message has. That is all that BM25 asks for, so the best are found without reading a
message. A row of `words` has the postings of a block of keys and a 64th of all terms: few rows are
written for 64 messages, and few are read for a word. Blocks are of keys, so that what leaves is
found whatever its words were.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from elytron.ledger import word_reads
from elytron.ledger.integers import Integers
from elytron.ledger.postgres.link import Link
from elytron.ledger.reads import Filter
from elytron.text import HASH_BYTES

BLOCK_KEYS = 512  # keys of one block
BUCKETS = 64  # shares of the terms
# A posting has 55 bits: 24 of the term, 9 of the message's place in its block, 4 of how often, 18
# of how many terms. A message in `word_blocks` has its place and its length alone.
_LENGTH_BITS, _TIMES_BITS, _PLACE_BITS = 18, 4, 9
_PLACE_AT = _LENGTH_BITS + _TIMES_BITS
_TERM_AT = _PLACE_AT + _PLACE_BITS
# If a word is in more messages, the best are not sought with it before it is known that it counts.
_HOLDING_MAX = 1000
_EACH_MAX = 63  # bits of a bigint that are no sign
_LENGTH_MAX, _TIMES_MAX = (1 << _LENGTH_BITS) - 1, (1 << _TIMES_BITS) - 1

_MINE = "agent_id = %(agent)s::uuid"
_PLACE = f"(posting >> {_PLACE_AT}) & {BLOCK_KEYS - 1}"
_KEY = f"block * {BLOCK_KEYS} + ({_PLACE})"
_OF_BLOCKS = f"{_MINE} AND block = ANY(%(blocks)s::bigint[])"
_FROM_BLOCKS = (
    "FROM unnest(%(blocks)s::bigint[], %(masks)s::bytea[]) leaving(in_block, mask)"
    f" WHERE {_OF_BLOCKS} AND block = in_block"
)
# All blocks are named, since the key begins with them: a bucket is looked up in each. An array out
# of a query is as long as any other for the planner, so that one plan does for all.
_POSTINGS = (
    f"(SELECT block, unnest(postings) AS posting FROM words WHERE {_MINE}"
    f" AND block = ANY(ARRAY(SELECT block FROM word_blocks WHERE {_MINE}))"
    " AND bucket = ANY(ARRAY(SELECT unnest(%(buckets)s::bigint[])))) postings"
)
_TERMS = "unnest(ARRAY(SELECT unnest(%(terms)s::bigint[])))"
_HOLDING = (
    f"SELECT term, count(*) AS holding FROM {_POSTINGS}"
    f" JOIN {_TERMS} term ON term = posting >> {_TERM_AT} GROUP BY term"
)
# BM25 as FTS5 has it: k1 = 1.2, b = 0.75, and a word in more than half of the messages weighs next
# to nothing. The postings are gone through once, and those of other terms left there.
_TIMES = f"((posting >> {_LENGTH_BITS}) & {_TIMES_MAX})"
_SCORED = (
    f"WITH found AS MATERIALIZED (SELECT term{{bits}}, block, posting FROM {_POSTINGS}"
    f" JOIN {{given}} ON term = posting >> {_TERM_AT}),"
    " holdings AS (SELECT term, count(*) AS holding FROM found GROUP BY term),"
    " held AS (SELECT coalesce(sum(cardinality(messages)), 0)::bigint AS messages,"
    f" coalesce(sum(terms), 0)::bigint AS terms FROM word_blocks WHERE {_MINE}),"
    " weights AS (SELECT term, 0.9 * messages::float8 / terms AS slope, 2.2 * greatest("
    "ln((greatest(messages::float8 - holding, 0) + 0.5) / (holding + 0.5)), 0.000001)::float8"
    " AS weight FROM holdings CROSS JOIN held),"
    f" scored AS (SELECT {_KEY} AS key{{has}},"
    f" sum(weight * {_TIMES} / ({_TIMES} + 0.3::float8 + slope * (posting & {_LENGTH_MAX})))"
    " AS score FROM found JOIN weights USING (term) GROUP BY 1)"
)
_BEST = " SELECT scored.key FROM scored{messages} WHERE true"
_ONLY_TERMS = {"bits": "", "given": f"{_TERMS} term", "has": ""}
_FIRST_OF = "{where} ORDER BY score DESC, scored.key LIMIT %(limit)s::bigint"
# One row: all that is asked of a question's words. The best only if no word is in too many.
_LOOKED = (
    _SCORED.format(**_ONLY_TERMS)
    + " SELECT messages, terms, ARRAY(SELECT term FROM holdings ORDER BY term),"
    " ARRAY(SELECT holding FROM holdings ORDER BY term),"
    " CASE WHEN (SELECT coalesce(max(holding), 0) FROM holdings) <= %(holding_max)s::bigint"
    f" THEN ARRAY({_BEST}{_FIRST_OF}) END FROM held"
)
_TERMS_AND_BITS = "unnest(%(terms)s::bigint[], %(bits)s::bigint[]) given(term, bits)"
_HAS_ALL_OF_ONE = " AND EXISTS (SELECT FROM unnest(%(ways)s::bigint[]) way WHERE way & has = way)"
_ADD_MESSAGES = (
    "INSERT INTO word_blocks (agent_id, block, messages, terms)"
    " SELECT %(agent)s::uuid, block, array_agg(message::integer),"
    f" sum(message & {_LENGTH_MAX})::bigint"
    " FROM unnest(%(blocks)s::bigint[], %(messages)s::bigint[]) given(block, message)"
    " GROUP BY block ON CONFLICT (agent_id, block) DO UPDATE SET"
    " messages = word_blocks.messages || excluded.messages,"
    " terms = word_blocks.terms + excluded.terms"
)
_ADD_POSTINGS = (
    "INSERT INTO words (agent_id, block, bucket, postings)"
    f" SELECT %(agent)s::uuid, place / {BUCKETS}, place %% {BUCKETS}, array_agg(posting)"
    " FROM unnest(%(places)s::bigint[], %(postings)s::bigint[]) given(place, posting)"
    " GROUP BY place ON CONFLICT (agent_id, block, bucket) DO UPDATE SET"
    " postings = words.postings || excluded.postings"
)
# What leaves is given as a bit for each place of a block.
_MESSAGE_LEAVES = f"get_bit(mask, message >> {_LENGTH_BITS}) = 1"
_DROP_MESSAGES = (
    f"UPDATE word_blocks w SET terms = terms - (SELECT coalesce(sum(message & {_LENGTH_MAX}), 0)"
    f" FROM unnest(messages) message WHERE {_MESSAGE_LEAVES})::bigint,"
    f" messages = ARRAY(SELECT message FROM unnest(messages) message WHERE NOT {_MESSAGE_LEAVES})"
    f" {_FROM_BLOCKS} AND EXISTS (SELECT FROM unnest(messages) message WHERE {_MESSAGE_LEAVES})"
    " RETURNING w.block"
)
_POSTING_LEAVES = f"get_bit(mask, {_PLACE}) = 1"
_DROP_POSTINGS = (
    "UPDATE words w SET postings = ARRAY(SELECT posting FROM unnest(postings) posting"
    f" WHERE NOT {_POSTING_LEAVES}) {_FROM_BLOCKS}"
    f" AND EXISTS (SELECT FROM unnest(postings) posting WHERE {_POSTING_LEAVES})"
)


def totals(db: Link) -> tuple[int, int]:
    """(messages, terms) that the index holds."""
    sql = (
        "SELECT coalesce(sum(cardinality(messages)), 0)::bigint, coalesce(sum(terms), 0)::bigint"
        f" FROM word_blocks WHERE {_MINE}"
    )
    messages, terms = db.native(sql)[0]
    return messages, terms


def document_frequencies(db: Link, hashes: Iterable[bytes]) -> dict[bytes, int]:
    """In how many indexed messages each term stands; those that stand in none are left out."""
    return _by_hash(db.native(_HOLDING, _sought(hashes)))


def vocabulary(db: Link) -> dict[str, int]:
    """Every term of the index as `rows.to_tokens` writes it, and in how many messages it stands."""
    sql = (
        f"SELECT posting >> {_TERM_AT}, count(*) FROM words"
        f" CROSS JOIN LATERAL unnest(postings) posting WHERE {_MINE} GROUP BY 1"
    )
    return {hashed.hex(): count for hashed, count in _by_hash(db.native(sql)).items()}


def look(
    db: Link, hashes: Iterable[bytes], accept: Filter | None, *, limit: int
) -> word_reads.Looked:
    """All that is asked of these terms, in one statement."""
    most = -1 if accept is None else _HOLDING_MAX
    values = {**_sought(hashes), "limit": limit, "holding_max": most}
    join, where = _accepted(accept or Filter(), values)
    ((messages, length, terms, holding, best),) = db.native(
        _LOOKED.format(messages=join, where=where), values
    )
    frequencies = _by_hash(zip(terms, holding, strict=True))
    return word_reads.Looked(frequencies, messages, length, best)


def match(db: Link, hashes: Iterable[bytes], accept: Filter, *, limit: int) -> list[int]:
    """The keys of the *limit* indexed messages that BM25 ranks first among those accepted."""
    values = {**_sought(hashes), "limit": limit}
    join, where = _accepted(accept, values)
    sql = (
        _SCORED.format(**_ONLY_TERMS) + _BEST.format(messages=join) + _FIRST_OF.format(where=where)
    )
    return [key for (key,) in db.native(sql, values)]


def match_days(
    db: Link,
    days: Iterable[Iterable[bytes]],
    hashes: Iterable[bytes],
    accept: Filter,
    *,
    limit: int,
) -> list[int]:
    """
    The keys of *limit* indexed messages that have all terms of one of these groups, and one of
    *hashes*, the best first; without these the newest.
    """
    groups, words = [set(day) for day in days], set(hashes)
    while len(set().union(*groups)) >= _EACH_MAX:  # two years of days
        groups.pop()
    of_days = sorted(set().union(*groups))
    each = [{term} for term in of_days]
    ways = [sum([1 << of_days.index(term) for term in group]) for group in groups]
    if not words:
        return _having(db, each, ways, accept, order="scored.key DESC", limit=limit)
    ways = [way | 1 << len(each) for way in ways]
    return _having(db, [*each, words], ways, accept, order="score DESC, scored.key", limit=limit)


def with_words(db: Link, words: Sequence[Iterable[bytes]], *, up_to: int, limit: int) -> list[int]:
    """
    The keys of the newest *limit* indexed messages, up to a key, that have a hash of each word.

    Of more than 63 words the first count.
    """
    each = [set(hashes) for hashes in words[:_EACH_MAX]]
    all_of_them = [(1 << len(each)) - 1]
    return _having(
        db, each, all_of_them, Filter(), order="scored.key DESC", limit=limit, up_to=up_to
    )


def _having(
    db: Link,
    each: Sequence[set[bytes]],
    ways: Sequence[int],
    accept: Filter,
    *,
    order: str,
    limit: int,
    up_to: int | None = None,
) -> list[int]:
    """
    The keys of messages that fit in one of some ways.

    Args:
        each: sets of terms, at most 63; a message has the nth if it has a term of it.
        ways: which of these a message must have, as bits.
    """
    terms = sorted(set().union(*each))
    values: dict[str, Any] = {
        **_sought(terms),
        "bits": Integers(
            sum([1 << nth for nth, one in enumerate(each) if term in one]) for term in terms
        ),
        "ways": Integers(ways),
        "limit": limit,
    }
    join, where = _accepted(accept, values)
    if up_to is not None:
        values["up_to"] = up_to
        where += " AND scored.key <= %(up_to)s::bigint"
    sql = (
        _SCORED.format(bits=", bits", given=_TERMS_AND_BITS, has=", bit_or(bits) AS has")
        + _BEST.format(messages=join)
        + f"{_HAS_ALL_OF_ONE}{where} ORDER BY {order} LIMIT %(limit)s::bigint"
    )
    return [key for (key,) in db.native(sql, values)]


def add(db: Link, pairs: Iterable[tuple[int, bytes]]) -> None:
    """
    Index messages, (key, hashed terms), in the caller's transaction. None of them may be in the
    index already.
    """
    where, what = list[int](), list[int]()  # postings and the block and bucket of each
    blocks, messages = list[int](), list[int]()
    for key, hashed in pairs:
        block, place = divmod(key, BLOCK_KEYS)
        times = dict[int, int]()
        for term in _split(hashed):
            times[term] = times.get(term, 0) + 1
        length = min(len(hashed) // HASH_BYTES, _LENGTH_MAX)
        first, same = block * BUCKETS, place << _PLACE_AT | length
        where += [first + term % BUCKETS for term in times]
        what += [
            term << _TERM_AT | min(count, _TIMES_MAX) << _LENGTH_BITS | same
            for term, count in times.items()
        ]
        blocks.append(block)
        messages.append(place << _LENGTH_BITS | length)
    if blocks:
        db.native(_ADD_MESSAGES, {"blocks": Integers(blocks), "messages": Integers(messages)})
        db.native(_ADD_POSTINGS, {"places": Integers(where), "postings": Integers(what)})


def remove(db: Link, keys: Iterable[int]) -> None:
    """
    Take messages out of the index, in the caller's transaction; those that are not in it are
    passed over.

    Reads the blocks in which they are, whose words are many: give it all that leave at once.
    """
    masks = dict[int, bytearray]()
    for key in keys:
        block, place = divmod(key, BLOCK_KEYS)
        mask = masks.setdefault(block, bytearray(BLOCK_KEYS // 8))
        mask[place // 8] |= 1 << place % 8
    blocks = {"blocks": Integers(masks)}
    given = {**blocks, "masks": [bytes(mask) for mask in masks.values()]}
    if not db.native(_DROP_MESSAGES, given):
        return
    db.native(_DROP_POSTINGS, given)
    for table, column in (("words", "postings"), ("word_blocks", "messages")):
        db.native(f"DELETE FROM {table} WHERE {_OF_BLOCKS} AND {column} = '{{}}'", blocks)


def reset(db: Link) -> None:
    """Empty the index, in the caller's transaction."""
    for table in ("words", "word_blocks"):
        db.native(f"DELETE FROM {table} WHERE {_MINE}")


def _accepted(accept: Filter, values: dict[str, Any]) -> tuple[str, str]:
    """What joins the messages, and the conditions of a filter on them; puts in its values."""
    named = f"(SELECT key FROM {{0}}s WHERE {_MINE} AND id = %({{0}})s::text)"
    parts = {
        "session": f"m.session = {named.format('session')}",
        "user": f'm."user" = {named.format("user")}',
        "role": "m.role = %(role)s::text",
        "since_us": "m.at_us >= %(since_us)s::bigint",
        "until_us": "m.at_us < %(until_us)s::bigint",
    }
    used = {name: value for name in parts if (value := getattr(accept, name)) is not None}
    if not used:
        return "", ""
    values.update(used)
    join = " JOIN messages m ON m.agent_id = %(agent)s::uuid AND m.key = scored.key"
    return join, "".join([f" AND {parts[name]}" for name in used])


def _sought(hashes: Iterable[bytes]) -> dict[str, Integers]:
    """Terms, and the buckets in which they are."""
    terms = [int.from_bytes(hashed, "big") for hashed in dict.fromkeys(hashes)]
    return {"terms": Integers(terms), "buckets": Integers({term % BUCKETS for term in terms})}


def _split(hashed: bytes) -> list[int]:
    return [
        int.from_bytes(hashed[at : at + HASH_BYTES], "big")
        for at in range(0, len(hashed), HASH_BYTES)
    ]


def _by_hash(found: Iterable[tuple[int, int]]) -> dict[bytes, int]:
    return {term.to_bytes(HASH_BYTES, "big"): count for term, count in found}
