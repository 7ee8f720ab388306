"""
Reach: the messages that a question reaches over the concepts that it names.

"Where does Alice's dog sleep?" names Alice. A relation says that she has Rex, so the messages about
Rex are worth a look though they share no word with the question. What the relation is called counts
most where the question says so too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from elytron.concepts.known import KnownNames
from elytron.ledger import reaching
from elytron.ledger.database import Database
from elytron.text import Analyzer, QueryTerm

ADDED_MAX = 100  # messages that no word of the question found
_CONCEPTS_MAX = 32  # beyond those that the question names
_NAMED_MAX = 8
_RELATIONS_MAX = 100
_COUNTED_MAX = 1000
_QUESTION_MAX = 2000  # characters in which names are looked for
# Shares of a concept that is reached over a relation: one that the question speaks of, or another.
_SPOKEN_OF, _OTHER = 1.0, 0.3


@dataclass(frozen=True, slots=True)
class Reach:
    """What concepts a question reaches: key -> how much a message is worth for naming it."""

    worth: dict[int, float]

    def messages(self, db: Database) -> list[int]:
        """The newest messages that name them, at most 100; those of the rarest concepts first."""
        keys: dict[int, None] = {}
        for concept in sorted(self.worth, key=lambda key: -self.worth[key]):
            left = ADDED_MAX - len(keys)
            if left <= 0:
                break
            keys.update(dict.fromkeys(reaching.naming(db, concept, limit=left)))
        return list(keys)

    def scores(self, db: Database, keys: Sequence[int]) -> dict[int, float]:
        """What these messages are worth, where that is anything."""
        scores: dict[int, float] = {}
        for key, concept in reaching.among(db, keys, self.worth) if self.worth else ():
            scores[key] = scores.get(key, 0.0) + self.worth[concept]
        return scores


def reach(
    db: Database,
    known: KnownNames,
    question: str,
    terms: Sequence[QueryTerm],
    *,
    total: int,
    at_us: int,
    analyzer: Analyzer,
    source: object,
) -> Reach:
    """
    The concepts one relation away from those that a question names.

    Those that it names are not among them: their names are words of the question, and count as
    such already. Costs some 20 µs where it names none.

    Args:
        terms: the question's words.
        total: messages held.
        at_us: when it is asked; relations that hold then are followed.
    """
    named = list(known.at(db, source).find(question[:_QUESTION_MAX]))[:_NAMED_MAX]
    if not named:
        return Reach({})
    asked = {hashed for term in terms for hashed in term.hashes}
    shares: dict[int, float] = {}
    for _, relation, other, strength in reaching.related(
        db, named, at_us=at_us, limit=_RELATIONS_MAX
    ):
        if other not in named:
            words = analyzer.query(relation, terms_max=8)
            spoken = any(hashed in asked for word in words for hashed in word.hashes)
            share = strength * (_SPOKEN_OF if spoken else _OTHER)
            shares[other] = max(share, shares.get(other, 0.0))
    best = sorted(shares, key=lambda key: -shares[key])[:_CONCEPTS_MAX]
    counts = reaching.counts(db, best, most=_COUNTED_MAX)
    # As rare words do, rare concepts tell more.
    return Reach(
        {
            key: shares[key] * math.log(1 + (max(total - count, 0) + 0.5) / (count + 0.5))
            for key, count in counts.items()
            if count
        }
    )
