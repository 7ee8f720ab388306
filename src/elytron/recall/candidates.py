"""
Candidates: the messages worth ranking for a question, with what ranking needs of each.

Words find them: the best by FTS5's own BM25, and their neighbours in the session, since a
question's words often stand in the message that the answer replies to.
"""

from dataclasses import dataclass

import apsw

from elytron.config import Config
from elytron.ledger import reads
from elytron.text import QueryTerm, folded_words

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
    """

    places: tuple[reads.Place, ...]
    accepted: frozenset[int]
    terms: tuple[tuple[QueryTerm, int], ...]
    total: int
    mean_length: float
    speakers: tuple[int, ...]


def find(
    db: apsw.Connection,
    question: str,
    terms: tuple[QueryTerm, ...],
    accept: reads.Filter,
    config: Config,
) -> Candidates | None:
    """Look the question's words up, in one snapshot. None if none of them is held."""
    frequencies = reads.document_frequencies(db, {s for term in terms for s in term.stems})
    held = tuple(
        (term, sum(frequencies.get(stem, 0) for stem in term.stems))
        for term in terms
        if any(stem in frequencies for stem in term.stems)
    )
    if not held:
        return None
    total, mean_length = reads.totals(db)
    stems = _searched_stems(held, frequencies, total=total, ratio=config.common_word_ratio)
    keys = reads.match(db, stems, accept, limit=config.candidates_max)
    places = reads.places(db, keys)
    return Candidates(
        places=tuple(places),
        accepted=frozenset(reads.accepted(db, [place.key for place in places], accept)),
        terms=held,
        total=total,
        mean_length=mean_length,
        speakers=tuple(reads.users_named(db, _possible_names(question))),
    )


def _searched_stems(
    held: tuple[tuple[QueryTerm, int], ...],
    frequencies: dict[str, int],
    *,
    total: int,
    ratio: float,
) -> list[str]:
    """
    The stems by which candidates are sought: not those that stand nearly everywhere.

    An OR reads every posting of every word; at 100,000 messages leaving out the common ones
    takes 6 ms instead of 15 to 50. They still count in the ranking.
    """
    common = max(_RARE_ENOUGH, total * ratio)
    rare = [term for term, frequency in held if frequency <= common]
    if not rare:
        rare = [min(held, key=lambda pair: pair[1])[0]]
    return [stem for term in rare for stem in term.stems if stem in frequencies]


def _possible_names(question: str) -> list[str]:
    """Every run of one to three words of the question, folded as the users' ids are."""
    words = folded_words(question)
    return [
        " ".join(words[start : start + size])
        for size in range(1, _NAME_WORDS_MAX + 1)
        for start in range(len(words) - size + 1)
    ]
