"""
Candidates: the messages worth ranking for a question, with what ranking needs of each.

Words find them: the best by FTS5's own BM25, and their neighbours in the session, since a
question's words often stand in the message that the answer replies to. Concepts find some more,
see `reach.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import apsw

from elytron.config import Config
from elytron.ledger import reads
from elytron.recall.reach import Reach
from elytron.text import HASH_BYTES, QueryTerm, folded_words

_RARE_ENOUGH = 1000  # messages; reading so many postings costs half a millisecond
_NAME_WORDS_MAX = 3


@dataclass(frozen=True, slots=True)
class Candidates:
    """
    What one question found.

    Attributes:
        places: the found messages and their neighbours.
        accepted: keys of those that may be hits; the others only lend their score.
        terms: the question's words that stand in any message, with the number of messages.
        total: messages held.
        mean_length: their mean number of terms.
        speakers: keys of the users whom the question names.
        reached: what messages are worth for the concepts that they name, by key.
    """

    places: tuple[reads.Place, ...]
    accepted: frozenset[int]
    terms: tuple[tuple[QueryTerm, int], ...]
    total: int
    mean_length: float
    speakers: tuple[int, ...]
    reached: Mapping[int, float] = field(default_factory=dict)


def find(
    db: apsw.Connection,
    question: str,
    terms: tuple[QueryTerm, ...],
    accept: reads.Filter,
    *,
    limit: int,
    config: Config,
    source: object,
    reach: Callable[..., Reach] | None = None,
) -> Candidates | None:
    """
    Look the question's words up, in one snapshot. None if that leads to no message.

    Args:
        limit: the hits wanted; at least as many candidates are sought.
        reach: what concepts lead to, given `total`, the number of messages held.
        source: the ledger's name, for errors.
    """
    newest = reads.unindexed(db, source)
    frequencies = _frequencies(db, terms, newest)
    held = tuple(
        (term, sum(frequencies[hashed] for hashed in term.hashes))
        for term in terms
        if any(frequencies[hashed] for hashed in term.hashes)
    )
    total, length = reads.totals(db)
    total += len(newest)
    length += sum(len(place.terms) for place in newest) // HASH_BYTES
    reached = reach(total=total) if reach else Reach({})
    added = reached.messages(db)
    if not held and not added:
        return None
    keys = _by_words(db, held, frequencies, newest, accept, total=total, limit=limit, config=config)
    places = reads.places(db, list(dict.fromkeys(keys + added)), source)
    accepted = reads.accepted(db, [place.key for place in places], accept)
    return Candidates(
        places=tuple(places),
        accepted=frozenset(accepted),
        terms=held,
        total=total,
        mean_length=length / max(1, total),
        speakers=tuple(reads.users_named(db, _possible_names(question))),
        reached=reached.scores(db, list(accepted)),
    )


def _by_words(
    db: apsw.Connection,
    held: tuple[tuple[QueryTerm, int], ...],
    frequencies: dict[bytes, int],
    newest: list[reads.Place],
    accept: reads.Filter,
    *,
    total: int,
    limit: int,
    config: Config,
) -> list[int]:
    """The keys of the messages that hold the question's words best."""
    if not held:
        return []
    sought = _hashes(_selective(held, total=total, ratio=config.common_word_ratio), frequencies)
    wanted = max(limit, config.candidates_max)
    keys = reads.match(db, sought, accept, limit=wanted)
    if len(keys) < limit and len(sought) < sum(map(bool, frequencies.values())):
        # Too few hold the rare words, here or in what the filter leaves: seek the common ones.
        sought = _hashes([term for term, _ in held], frequencies)
        keys = reads.match(db, sought, accept, limit=wanted)
    keys += [place.key for place in newest if any(hashed in place.terms for hashed in sought)]
    return keys


def _hashes(terms: list[QueryTerm], frequencies: dict[bytes, int]) -> list[bytes]:
    return [hashed for term in terms for hashed in term.hashes if frequencies[hashed]]


def _frequencies(
    db: apsw.Connection, terms: tuple[QueryTerm, ...], newest: list[reads.Place]
) -> dict[bytes, int]:
    """In how many messages each of the terms stands, those not indexed yet among them."""
    hashes = {hashed for term in terms for hashed in term.hashes}
    indexed = reads.document_frequencies(db, hashes)
    return {
        hashed: indexed.get(hashed, 0) + sum([hashed in place.terms for place in newest])
        for hashed in hashes
    }


def _selective(
    held: tuple[tuple[QueryTerm, int], ...], *, total: int, ratio: float
) -> list[QueryTerm]:
    """
    The terms by which candidates are sought: not those in more than *ratio* of the messages, and
    in over 1000.

    An OR reads every posting of every word; at 100,000 messages leaving out the common ones
    takes 6 ms instead of 15 to 50. They still count in the ranking.
    """
    common = max(_RARE_ENOUGH, total * ratio)
    rare = [term for term, frequency in held if frequency <= common]
    return rare or [min(held, key=lambda pair: pair[1])[0]]


def _possible_names(question: str) -> list[str]:
    """Every run of one to three words of the question, folded as the users' ids are."""
    words = folded_words(question)
    return [
        " ".join(words[start : start + size])
        for size in range(1, _NAME_WORDS_MAX + 1)
        for start in range(len(words) - size + 1)
    ]
