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
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from operator import itemgetter

from elytron.config import Config
from elytron.ledger.reads import Place
from elytron.recall.candidates import Candidates
from elytron.text import HASH_BYTES

LOOKED_AT = 50  # of the best, whose texts the second pass reads
_SESSION_BEST = 3
_HELD_NEAR = 0.5  # of a word that only a neighbour holds, in what of the question is covered
_WORD_BYTES = 5.5  # of text, for the length prior
_TINY = 1e-9
_SESSION_AND_POSITION = itemgetter(Place._fields.index("session"), Place._fields.index("position"))

_LATE = ("asking", "when", "date", "importance")  # what the second pass sees

Why = dict[str, float]


@dataclass(frozen=True)
class Ranked:
    """
    A message's or memory's key and score, the shares that make it up, the words that matched.

    The last two are made when somebody asks for them: of most that are ranked nobody does.
    """

    key: int
    score: float
    explain: Callable[[], tuple[Why, tuple[str, ...]]] = field(compare=False, repr=False)

    @cached_property
    def _explained(self) -> tuple[Why, tuple[str, ...]]:
        return self.explain()

    @property
    def why(self) -> Why:
        return self._explained[0]

    @property
    def matched(self) -> tuple[str, ...]:
        return self._explained[1]


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
    places = sorted(found.places, key=_SESSION_AND_POSITION)
    words = _Words(places, found, config)
    best, share = words.best, config.vector_weight if found.cosines else 0.0
    near, parts, base = [0.0] * len(places), [1.0] * len(places), words.scores
    if share:
        cosines, short = found.cosines, _shortness(places, config)
        near = _nearness(places, cosines, short, config.vector_neighbour_weight)
        parts = [
            1 - share * (place.key in cosines or held_down)
            for place, held_down in zip(places, short, strict=True)
        ]
        worth = share * best
        base = [
            part * score + worth * nearness
            for part, score, nearness in zip(parts, words.scores, near, strict=True)
        ]
    lift = _session_lift(places, base, config.session_weight)
    scored = _scored(places, base, lift, found, config)
    scored.sort(reverse=True)
    named = _named(found)
    dialogue, reached = found.dialogue, found.reached

    def explain(n: int) -> tuple[Why, tuple[str, ...]]:
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
        return why, words.matched(n)

    return [Ranked(-key, score, partial(explain, n)) for score, key, n in scored[:limit]]


def _scored(
    places: Sequence[Place],
    base: Sequence[float],
    lift: Mapping[int, float],
    found: Candidates,
    config: Config,
) -> list[tuple[float, int, int]]:
    """(score, key below zero, place) of those accepted that are worth anything, in no order."""
    named, dialogue = _named(found), found.dialogue
    accepted, reached = found.accepted, found.reached
    factors: dict[tuple[int | None, str, bool], float] = {}  # few differ
    scored = []
    for n, place in enumerate(places):
        key, session, _, user, role, _, _, _ = place
        if key not in accepted:
            continue
        plain = base[n] + lift[session]
        if reached:
            plain += config.concept_weight * reached.get(key, 0.0)
        who = (user, role, session < 0)
        factor = factors.get(who)
        if factor is None:
            factor = factors[who] = _factor(place, named, dialogue, config)
        score = plain * factor
        if score > 0:
            scored.append((score, -key, n))
    return scored


def _named(found: Candidates) -> int | None:
    """The user whom the question names, if it is one."""
    return found.speakers[0] if len(found.speakers) == 1 else None


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
            self._score(some, held, near) if some else 0.0
            for some, held, near in zip(lists, self._held, beside, strict=True)
        ]
        self.best = max(self.scores, default=0.0) or 1.0

    def _weigh(
        self, places: Sequence[Place], found: Candidates, idf: Sequence[float], config: Config
    ) -> None:
        k1, b = config.bm25_k1, config.bm25_b
        weighed = [
            (n, term.hashes[0], term.hashes[1:], weight * (k1 + 1))
            for n, ((term, _), weight) in enumerate(zip(found.terms, idf, strict=True))
        ]
        mean = max(found.mean_length, 1.0) * HASH_BYTES
        for place in places:
            terms = place.terms
            own, held, saturation = None, 0, 0.0
            for n, first, others, weight in weighed:
                count = terms.count(first)
                for other in others:
                    count += terms.count(other)
                if not count:
                    continue
                if own is None:  # most places hold none
                    own = [0.0] * len(weighed)
                    saturation = k1 * (1 - b + b * len(terms) / mean)
                held |= 1 << n
                own[n] = weight * count / (count + saturation)
            self._own.append(own)
            self._held.append(held)

    def _neighbours(self, places: Sequence[Place]) -> Iterator[tuple[int, int, int]]:
        """(a place that holds words, another, steps) where these are one or two in a session."""
        last = len(places) - 1
        for there, own in enumerate(self._own):
            if own is None:
                continue
            _, session, at, _, _, _, _, _ = places[there]
            for here in range(max(0, there - 2), min(last, there + 2) + 1):
                if here == there:
                    continue
                _, of, position, _, _, _, _, _ = places[here]
                if of == session:
                    steps = abs(position - at)
                    if 1 <= steps <= 2:
                        yield there, here, steps

    def _score(self, lists: list[list[float]], held: int, beside: int) -> float:
        """Each word where it weighs most, scaled by the share of the question that is held."""
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


def _nearness(
    places: Sequence[Place], cosines: Mapping[int, float], short: Sequence[float], weight: float
) -> list[float]:
    """
    How near each place is, above the least of them and of at most one; 0 for what has no vector.
    Short texts are held down: they come near to much by being short.

    Args:
        short: how short each is.
        weight: what a neighbour's nearness counts.
    """
    least, most = min(cosines.values()), max(cosines.values())
    if most - least < _TINY:
        least -= 1  # all are as near, or there is one alone
    alone = [0.0] * len(places)
    near: list[float] = []
    session = position = None
    for n, place in enumerate(places):
        cosine = cosines.get(place.key)
        one = 0.0
        if cosine is not None:
            one = alone[n] = (cosine - least) * (1 - short[n])
        near.append(one)
        if place.session == session and place.position == position:
            near[n - 1] += weight * one
            near[n] += weight * alone[n - 1]
        session, position = place.session, place.position + 1
    best = max(near, default=0.0) or 1.0
    return [
        one / best if place.key in cosines else 0.0 for place, one in zip(places, near, strict=True)
    ]


def _shortness(places: Sequence[Place], config: Config) -> list[float]:
    """How short each text is: from 1 for an empty one to 0."""
    prior = config.length_prior_words * _WORD_BYTES
    if not prior:
        return [0.0] * len(places)
    exp = math.exp
    return [exp(-place.text_bytes / prior) for place in places]


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
    again = []
    for one in ranked:
        if one.key in looked:
            factors = _late_factors(looked[one.key], when, config)
            score = one.score
            for factor in factors:
                score += score * (factor - 1)
            again.append((-score, one.key, one, factors))
    again.sort()
    seen, kept = set[Hashable](), list[Ranked]()
    for score, key, one, factors in again:
        same = looked[key].same
        if len(kept) < limit and same not in seen:
            seen.add(same)
            kept.append(Ranked(key, -score, partial(_late_explained, one, factors)))
    return kept


def _late_factors(looked: Looked, when: bool, config: Config) -> tuple[float, ...]:
    """What a score is multiplied by for each of `_LATE`."""
    importance = 2 * (looked.importance - 0.5) * config.importance_weight
    return (
        max(0.0, 1 - config.asking_weight * looked.asking),
        1 + config.when_weight if when and looked.timed else 1.0,
        max(0.0, 1 + config.date_weight * looked.dated),
        max(0.0, 1 + importance + config.pin_weight * looked.pinned),
    )


def _late_explained(one: Ranked, factors: tuple[float, ...]) -> tuple[Why, tuple[str, ...]]:
    why, score = dict(one.why), one.score
    for name, factor in zip(_LATE, factors, strict=True):
        score = _scaled(why, name, score, factor != 1.0, factor)
    return why, one.matched
