"""
Rank: from candidates to an order. Pure.

Two passes. The first scores every candidate by what the index knows of it: BM25 on the words, where
a word may also stand in the message just before or after, for an answer seldom repeats its
question; the nearness of the vectors; the best of the session; the concepts; the speaker whom the
question names. The second looks at the texts of the best fifty: a message that asks is seldom an
answer; what was asked for by its date or its time should tell one; what matters more comes first.

Every weight is a setting; docs/recall.md has the figures that chose it.

Source: BM25, Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from elytron.config import Config
from elytron.ledger.reads import Place
from elytron.recall.candidates import Candidates
from elytron.text import HASH_BYTES

LOOKED_AT = 50  # of the best, whose texts the second pass reads
_SESSION_BEST = 3
_HELD_NEAR = 0.5  # of a word that only a neighbour holds, in what of the question is covered
_WORD_BYTES = 5.5  # of text, for the length prior
_TINY = 1e-9

Why = dict[str, float]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A message's or memory's key and score, the shares that make it up, the words that matched."""

    key: int
    score: float
    why: Why
    matched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Looked:
    """
    What the second pass knows of a candidate.

    Attributes:
        same: by which equal ones are told: of two with equal ones only the better is a hit.
        asking: the share of its sentences that are questions.
        timed: whether it has a time expression.
        dated: 1 if it, or a time that it tells of, meets a date of the question; less if nearly.
    """

    same: Hashable
    importance: float
    pinned: bool
    asking: float = 0.0
    timed: bool = False
    dated: float = 0.0


# -- the first pass


def rank(found: Candidates, *, limit: int, config: Config) -> list[Ranked]:
    """
    The *limit* best of the accepted candidates, best first; ties by arrival.

    Scores are in units of BM25: where words and vectors are fused, the nearest vector is worth as
    much as the best words. What has no vector is judged by its words alone: to count it as far
    from the question makes some vectors worse than none. Some 3 us a candidate.
    """
    # In this order the neighbours of each stand beside it.
    places = sorted(found.places, key=attrgetter("session", "position"))
    words = _Words(places, found, config)
    best, share = words.best, config.vector_weight if found.cosines else 0.0
    near = _nearness(places, found.cosines, config) if share else [0.0] * len(places)
    parts = [1.0] * len(places)
    if share:
        cosines = found.cosines
        parts = [1 - share * (place.key in cosines or _short(place, config)) for place in places]
    base = [
        part * score + share * best * nearness
        for part, score, nearness in zip(parts, words.scores, near, strict=True)
    ]
    lift = _session_lift(places, base, config.session_weight)
    named = found.speakers[0] if len(found.speakers) == 1 else None
    dialogue, accepted, reached = found.dialogue, found.accepted, found.reached
    scored = []
    for n, place in enumerate(places):
        if place.key not in accepted:
            continue
        plain = base[n] + lift[place.session]
        if reached:
            plain += config.concept_weight * reached.get(place.key, 0.0)
        score = plain * _factor(place, named, dialogue, config)
        if score > 0:
            scored.append((score, -place.key, n))
    scored.sort(reverse=True)
    ranked = []
    for score, _, n in scored[:limit]:
        place = places[n]
        own, around = words.split(n)
        why = {
            "words": parts[n] * own,
            "neighbours": parts[n] * around,
            "vectors": share * best * near[n],
            "session": lift[place.session],
            "concepts": config.concept_weight * reached.get(place.key, 0.0),
        }
        _explain(why, place, named, dialogue, config)
        ranked.append(Ranked(place.key, score, why, words.matched(n)))
    return ranked


def _factor(place: Place, named: int | None, dialogue: bool, config: Config) -> float:
    """What a place's score is multiplied by, for who it is of."""
    factor = config.speaker_weight if place.user == named is not None else 1.0
    if dialogue and place.role == "user":
        factor *= config.user_weight
    if place.session < 0:
        factor *= config.memory_weight
    return factor


def _explain(why: Why, place: Place, named: int | None, dialogue: bool, config: Config) -> None:
    """Note what each part of `_factor` adds."""
    score = sum(why.values())
    score = _scaled(why, "speaker", score, place.user == named is not None, config.speaker_weight)
    score = _scaled(why, "role", score, dialogue and place.role == "user", config.user_weight)
    _scaled(why, "memory", score, place.session < 0, config.memory_weight)


def _scaled(why: Why, name: str, score: float, applies: bool, weight: float) -> float:
    """The score times *weight*, where that applies; what it adds is noted under *name*."""
    why[name] = score * (weight - 1) if applies else 0.0
    return score + why[name]


class _Words:
    """BM25 of each place, each word of the question taken where it weighs most nearby."""

    def __init__(self, places: Sequence[Place], found: Candidates, config: Config) -> None:
        """
        Args:
            places: in the order of sessions and positions.
        """
        self._names = [term.word for term, _ in found.terms]
        idf = [_idf(found.total, frequency) for _, frequency in found.terms]
        self._idf = idf
        self._coverage = config.coverage_weight / max(sum(idf), _TINY)
        self._least = 1 - config.coverage_weight
        self._shares: dict[tuple[int, int], float] = {}  # by the bits of words held, and nearby
        self._own: list[list[float] | None] = []  # what each word weighs in each place
        self._held: list[int] = []  # which words each place holds, a bit each
        self._weigh(places, found, idf, config)
        # What each place has of words: its own weights, and its neighbours' at their worth.
        lists = [[own] if own else [] for own in self._own]
        answers = 1.0 if found.dialogue else config.answer_weight
        beside = [0] * len(places)
        for there, here, steps in self._neighbours(places):
            worth = config.neighbour_weight if steps == 1 else config.second_neighbour_weight
            own = self._own[there]
            if not worth or own is None:
                continue
            # What was asked is what is answered, in few of the same words.
            times = worth * answers if there < here and places[there].asks else worth
            lists[here].append([times * weight for weight in own])
            if steps == 1:
                beside[here] |= self._held[there]
        self.scores = [
            self._score(some, held, near)
            for some, held, near in zip(lists, self._held, beside, strict=True)
        ]
        self.best = max(self.scores, default=0.0) or 1.0

    def _weigh(
        self, places: Sequence[Place], found: Candidates, idf: Sequence[float], config: Config
    ) -> None:
        k1, b = config.bm25_k1, config.bm25_b
        weighed = [
            (1 << n, term.hashes, weight * (k1 + 1))
            for n, ((term, _), weight) in enumerate(zip(found.terms, idf, strict=True))
        ]
        mean = max(found.mean_length, 1.0) * HASH_BYTES
        for place in places:
            terms = place.terms
            saturation = k1 * (1 - b + b * len(terms) / mean)
            own, held = [], 0
            for bit, hashes, weight in weighed:
                count = terms.count(hashes[0])
                for other in hashes[1:]:
                    count += terms.count(other)
                if count:
                    held |= bit
                    own.append(weight * count / (count + saturation))
                else:
                    own.append(0.0)
            self._own.append(own if held else None)
            self._held.append(held)

    def _neighbours(self, places: Sequence[Place]) -> Iterator[tuple[int, int, int]]:
        """(a place that holds words, another, steps) where these are one or two in a session."""
        last = len(places) - 1
        for there, own in enumerate(self._own):
            if own is None:
                continue
            place = places[there]
            session, at = place.session, place.position
            for here in range(max(0, there - 2), min(last, there + 2) + 1):
                other = places[here]
                if here != there and other.session == session:
                    steps = abs(other.position - at)
                    if 1 <= steps <= 2:
                        yield there, here, steps

    def _score(self, lists: list[list[float]], held: int, beside: int) -> float:
        """Each word where it weighs most, scaled by the share of the question that is held."""
        if not lists:
            return 0.0
        best = sum(lists[0]) if len(lists) == 1 else sum(map(max, *lists))
        share = self._shares.get((held, beside))
        if share is None:
            covered = self._sum(held) + _HELD_NEAR * self._sum(beside & ~held)
            share = self._shares[held, beside] = self._least + self._coverage * covered
        return best * share

    def _sum(self, bits: int) -> float:
        """The idf of these words together."""
        return sum([weight for n, weight in enumerate(self._idf) if bits >> n & 1])

    def split(self, n: int) -> tuple[float, float]:
        """Of the score of a place, what its own words make, and what its neighbours add."""
        score, own = self.scores[n], self._own[n]
        if own is None:
            return 0.0, score
        alone = self._score([own], self._held[n], 0)
        return alone, score - alone

    def matched(self, n: int) -> tuple[str, ...]:
        """The words that a place holds itself."""
        held = self._held[n]
        return tuple([name for m, name in enumerate(self._names) if held >> m & 1 and name])


def _nearness(places: Sequence[Place], cosines: Mapping[int, float], config: Config) -> list[float]:
    """
    How near each place is, above the least of them and of at most one; 0 for what has no vector.
    Short texts are held down: they come near to much by being short.
    """
    least, most = min(cosines.values()), max(cosines.values())
    if most - least < _TINY:
        least -= 1  # all are as near, or there is one alone
    alone = [
        (cosines.get(place.key, least) - least) * (1 - _short(place, config)) for place in places
    ]
    weight, last = config.vector_neighbour_weight, len(places) - 1
    near = list(alone)
    for n, place in enumerate(places):
        if n < last:
            after = places[n + 1]
            if after.session == place.session and after.position == place.position + 1:
                near[n] += weight * alone[n + 1]
                near[n + 1] += weight * alone[n]
    best = max(near, default=0.0) or 1.0
    return [
        one / best if place.key in cosines else 0.0 for place, one in zip(places, near, strict=True)
    ]


def _short(place: Place, config: Config) -> float:
    """How short a text is: from 1 for an empty one to 0."""
    prior = config.length_prior_words * _WORD_BYTES
    return math.exp(-place.text_bytes / prior) if prior else 0.0


def _session_lift(
    places: Sequence[Place], base: Sequence[float], weight: float
) -> dict[int, float]:
    """A share of the mean of each session's three best."""
    sessions: defaultdict[int, list[float]] = defaultdict(list)
    for place, score in zip(places, base, strict=True):
        sessions[place.session].append(score)
    return {
        session: weight
        * sum(sorted(scores, reverse=True)[:_SESSION_BEST])
        / min(_SESSION_BEST, len(scores))
        for session, scores in sessions.items()
    }


def _idf(total: int, frequency: int) -> float:
    """How much a word tells; positive even for one that stands in every message."""
    return math.log(1 + (max(total - frequency, 0) + 0.5) / (frequency + 0.5))


# -- the second pass


def refine(
    ranked: Sequence[Ranked],
    looked: Mapping[int, Looked],
    *,
    when: bool,
    limit: int,
    config: Config,
) -> list[Ranked]:
    """
    The *limit* best, once their texts are known; of equal ones the best alone.

    Args:
        ranked: the best of the first pass; those that *looked* does not have are left out.
        when: whether the question asks for a time.
    """
    again = [_refined(one, looked[one.key], when, config) for one in ranked if one.key in looked]
    again.sort(key=lambda one: (-one.score, one.key))
    seen, kept = set[Hashable](), list[Ranked]()
    for one in again:
        same = looked[one.key].same
        if same not in seen:
            seen.add(same)
            kept.append(one)
    return kept[:limit]


def _refined(one: Ranked, looked: Looked, when: bool, config: Config) -> Ranked:
    why = dict(one.why)
    score = one.score
    importance = 2 * (looked.importance - 0.5) * config.importance_weight
    factors = (
        ("asking", 1 - config.asking_weight * looked.asking),
        ("when", 1 + config.when_weight if when and looked.timed else 1.0),
        ("date", 1 + config.date_weight * looked.dated),
        ("importance", 1 + importance + config.pin_weight * looked.pinned),
    )
    for name, factor in factors:
        score = _scaled(why, name, score, factor != 1.0, max(0.0, factor))
    return Ranked(one.key, score, why, one.matched)
