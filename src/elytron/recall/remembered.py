"""
Remembered: which memories answer a question, by BM25 over their own words. Pure.

Memories are not in the index of messages: there are few beside them, and each is scored.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest

from elytron.config import Config
from elytron.text import HASH_BYTES, QueryTerm

Postings = Mapping[bytes, Sequence[int]]


def postings(held: Sequence[tuple[int, bytes]], hashes: Iterable[bytes]) -> Postings:
    """For each hashed term, which of the memories hold it: their places among *held*."""
    words = [terms for _, terms in held]
    every = b"".join(words)  # most words are in none, which is soon seen
    return {
        hashed: [place for place, one in enumerate(words) if hashed in one]
        if hashed in every
        else ()
        for hashed in hashes
    }


def rank_memories(
    held: Sequence[tuple[int, bytes]],
    terms: Sequence[QueryTerm],
    *,
    limit: int,
    config: Config,
    found: Postings | None = None,
) -> list[int]:
    """
    The keys of the *limit* memories that answer best, best first; of equals the newest.

    Args:
        held: (key, hashed terms) of each memory, newest first.
        found: the `postings` of these terms, where they are known.

    Some 50 ns for each term and memory, and more for those that hold it.

    Source: BM25, Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009.
    """
    if not held:
        return []
    if found is None:
        found = postings(held, {hashed for term in terms for hashed in term.hashes})
    k1, b = config.bm25_k1, config.bm25_b
    words = [terms_held for _, terms_held in held]
    mean = max(sum(map(len, words)) / HASH_BYTES / len(held), 1.0)
    scores: defaultdict[int, float] = defaultdict(float)
    for term in terms:
        counts: defaultdict[int, int] = defaultdict(int)
        for hashed in term.hashes:
            for place in found[hashed]:
                counts[place] += words[place].count(hashed)
        weight = math.log(1 + (len(held) - len(counts) + 0.5) / (len(counts) + 0.5)) * (k1 + 1)
        for place, count in counts.items():
            saturation = k1 * (1 - b + b * len(words[place]) / HASH_BYTES / mean)
            scores[place] += weight * count / (count + saturation)
    best = nsmallest(limit, [(-score, place) for place, score in scores.items()])
    return [held[place][0] for _, place in best]
