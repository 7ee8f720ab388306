"""
Rank: from candidates to an order. Pure.

BM25 on the words, with our own k1 and b (FTS5 fixes them); then structure: a share of the scores
of the messages just before and after, and of the session's best; what the concepts that a message
names are worth; then the speaker whom the question names. On LoCoMo structure adds as much as an
embedding model does, see docs/performance.md.

Source: BM25, Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

from elytron.config import Config
from elytron.recall.candidates import Candidates
from elytron.text import HASH_BYTES

_SESSION_BEST = 3


@dataclass(frozen=True, slots=True)
class Ranked:
    """A message's key and score, the shares that make it up, and the words that matched."""

    key: int
    score: float
    why: dict[str, float]
    matched: tuple[str, ...]


def rank(found: Candidates, *, limit: int, config: Config) -> list[Ranked]:
    """The *limit* best of the accepted candidates, best first; ties by arrival."""
    words, matched = _word_scores(found, config)
    by_place = {(p.session, p.position): words[p.key] for p in found.places}
    near: dict[int, float] = {}
    sessions: defaultdict[int, list[float]] = defaultdict(list)
    for p in found.places:
        around = by_place.get((p.session, p.position - 1), 0.0)
        around += by_place.get((p.session, p.position + 1), 0.0)
        near[p.key] = config.neighbour_weight * around
        sessions[p.session].append(words[p.key] + near[p.key])
    lift = {
        session: config.session_weight
        * sum(sorted(scores, reverse=True)[:_SESSION_BEST])
        / min(_SESSION_BEST, len(scores))
        for session, scores in sessions.items()
    }
    named = found.speakers[0] if len(found.speakers) == 1 else None
    ranked = []
    for p in found.places:
        if p.key not in found.accepted:
            continue
        plain = words[p.key] + near[p.key] + lift[p.session]
        plain += config.concept_weight * found.reached.get(p.key, 0.0)
        spoken = plain * (config.speaker_weight - 1) if p.user == named is not None else 0.0
        if plain > 0:
            ranked.append((plain + spoken, -p.key, p.session, spoken))
    ranked.sort(reverse=True)
    return [
        Ranked(
            -minus_key,
            score,
            {
                "words": words[-minus_key],
                "neighbours": near[-minus_key],
                "session": lift[session],
                "concepts": config.concept_weight * found.reached.get(-minus_key, 0.0),
                "speaker": spoken,
            },
            tuple(matched[-minus_key]),
        )
        for score, minus_key, session, spoken in ranked[:limit]
    ]


def _word_scores(
    found: Candidates, config: Config
) -> tuple[dict[int, float], dict[int, list[str]]]:
    """BM25 of each place, and which words made it."""
    k1, b = config.bm25_k1, config.bm25_b
    weighed = [
        (term.word, term.hashes, _idf(found.total, frequency) * (k1 + 1))
        for term, frequency in found.terms
    ]
    scores: dict[int, float] = {}
    matched: dict[int, list[str]] = {}
    for place in found.places:
        terms = place.terms
        length = len(terms) / HASH_BYTES / max(found.mean_length, 1.0)
        saturation = k1 * (1 - b + b * length)
        score, names = 0.0, []
        for name, hashes, weight in weighed:
            count = sum([terms.count(hashed) for hashed in hashes])
            if count:
                score += weight * count / (count + saturation)
                names.append(name)
        scores[place.key] = score
        matched[place.key] = names
    return scores, matched


def _idf(total: int, frequency: int) -> float:
    """How much a word tells; positive even for one that stands in every message."""
    return math.log(1 + (max(total - frequency, 0) + 0.5) / (frequency + 0.5))
