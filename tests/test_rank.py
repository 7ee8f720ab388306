"""
Ranking is what docs/recall.md says it is, whatever the candidates.

Method: few sessions, positions, words and weights, so that ties and neighbours happen, against the
formula written down once more, plainly: each candidate by itself, neighbours looked up by place.
"""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from elytron import Config
from elytron.ledger.reads import Place
from elytron.recall.candidates import Candidates
from elytron.recall.rank import Looked, Ranked, rank, refine
from elytron.text import QueryTerm, hash_term

CONFIG = Config()
RED, GREEN, BLUE = (hash_term(word) for word in ("red", "green", "blue"))
TERMS = (
    QueryTerm("red", (RED,)),
    QueryTerm("green", (GREEN, hash_term("verd"))),
    QueryTerm("", (BLUE,)),  # a date that the question means and does not say
)
ALICE, BOB = 7, 8
PARTS = {"words", "neighbours", "vectors", "session", "concepts", "speaker", "role", "memory"}
LATE = {"asking", "when", "date", "importance"}

WEIGHTS = some.fixed_dictionaries(
    {
        "neighbour_weight": some.sampled_from([0, 0.6, 1]),
        "second_neighbour_weight": some.sampled_from([0, 0.4, 1]),
        "answer_weight": some.sampled_from([0, 1, 1.5]),
        "coverage_weight": some.sampled_from([0, 0.5, 1]),
        "vector_weight": some.sampled_from([0, 0.5, 1]),
        "vector_neighbour_weight": some.sampled_from([0, 0.2]),
        "length_prior_words": some.sampled_from([0, 6]),
        "session_weight": some.sampled_from([0, 0.5]),
        "concept_weight": some.sampled_from([0, 1]),
        "speaker_weight": some.sampled_from([1, 1.2]),
        "user_weight": some.sampled_from([0, 1, 1.5]),
        "memory_weight": some.sampled_from([0.5, 1]),
        "bm25_k1": some.sampled_from([0, 1.2]),
        "bm25_b": some.sampled_from([0, 0.9]),
    }
).map(lambda weights: Config(**weights))


@some.composite
def candidates(draw: Any) -> Candidates:
    spots = draw(some.sets(some.tuples(some.integers(1, 3), some.integers(0, 5)), max_size=9))
    spots = [*draw(some.permutations(sorted(spots))), *[None] * draw(some.integers(0, 2))]
    places = []
    for key, spot in enumerate(spots, 1):
        terms = draw(some.lists(some.sampled_from([RED, GREEN, BLUE, b"xyz"]), max_size=4))
        role = draw(some.sampled_from(["user", "assistant", "tool"])) if spot else "memory"
        user = draw(some.sampled_from([None, ALICE, BOB])) if spot else None
        session, position = spot or (-key, 0)
        size = draw(some.integers(0, 60))
        asks = draw(some.booleans())
        places.append(Place(key, session, position, user, role, size, b"".join(terms), asks))
    keys = [place.key for place in places]
    total = len(places) + draw(some.integers(0, 3))
    few = some.sets(some.sampled_from(keys)) if keys else some.just(set())
    with_vector = draw(some.just(set()) | few | some.just(set(keys)))
    return Candidates(
        places=tuple(places),
        accepted=frozenset(draw(few)),
        terms=tuple((term, draw(some.integers(1, max(1, total)))) for term in TERMS),
        total=total,
        mean_length=draw(some.floats(0, 5)),
        speakers=tuple(draw(some.lists(some.sampled_from([ALICE, BOB]), unique=True))),
        reached={key: draw(some.sampled_from([0.5, 2.0])) for key in draw(few)},
        cosines={key: draw(some.sampled_from([-0.2, 0.1, 0.5, 0.9])) for key in with_vector},
    )


# -- the formula once more


def idf(found: Candidates, frequency: int) -> float:
    return math.log(1 + (max(found.total - frequency, 0) + 0.5) / (frequency + 0.5))


def own(found: Candidates, place: Place, term: QueryTerm, config: Config) -> float:
    """BM25 of one term in one place, without its rarity."""
    count = sum(place.terms.count(hashed) for hashed in term.hashes)
    length = len(place.terms) / 3 / max(found.mean_length, 1)
    saturation = config.bm25_k1 * (1 - config.bm25_b + config.bm25_b * length)
    return count * (config.bm25_k1 + 1) / (count + saturation) if count else 0.0


def words(found: Candidates, place: Place, config: Config) -> float:
    at = {(one.session, one.position): one for one in found.places}
    worths = {
        0: 1.0,
        1: config.neighbour_weight,
        -1: config.neighbour_weight,
        2: config.second_neighbour_weight,
        -2: config.second_neighbour_weight,
    }
    near = {
        step: at[place.session, place.position + step]
        for step, worth in worths.items()
        if worth and (place.session, place.position + step) in at
    }
    if not any(one.role == "assistant" for one in found.places):
        for step in (-2, -1):  # what stands behind a question answers it
            if step in near and near[step].asks:
                worths[step] *= config.answer_weight
    score = covered = 0.0
    for term, frequency in found.terms:
        there = {step: own(found, one, term, config) for step, one in near.items()}
        rarity = idf(found, frequency)
        score += rarity * max([worths[step] * there[step] for step in near])
        beside = any(there.get(step) for step in (-1, 1))
        covered += rarity * (1 if there[0] else 0.5 if beside else 0)
    share = covered / sum(idf(found, frequency) for _, frequency in found.terms)
    return score * (1 - config.coverage_weight + config.coverage_weight * share)


def short(place: Place, config: Config) -> float:
    prior = config.length_prior_words * 5.5
    return math.exp(-place.text_bytes / prior) if prior else 0.0


def nearness(found: Candidates, config: Config) -> dict[int, float]:
    least = min(found.cosines.values())
    if max(found.cosines.values()) == least:
        least -= 1
    alone = {
        place.key: (found.cosines.get(place.key, least) - least) * (1 - short(place, config))
        for place in found.places
    }
    at = {(one.session, one.position): one.key for one in found.places}
    smooth = {
        place.key: alone[place.key]
        + config.vector_neighbour_weight
        * sum(
            alone[at[beside]]
            for beside in ((place.session, place.position - 1), (place.session, place.position + 1))
            if beside in at
        )
        for place in found.places
    }
    most = max(smooth.values()) or 1.0
    return {key: value / most for key, value in smooth.items()}


def scores(found: Candidates, config: Config) -> dict[int, float]:
    by_words = {place.key: words(found, place, config) for place in found.places}
    best = max(by_words.values(), default=0) or 1.0
    base = dict(by_words)
    share = config.vector_weight
    if found.cosines and share:
        near = nearness(found, config)
        for place in found.places:
            word = by_words[place.key]
            if place.key in found.cosines:
                base[place.key] = (1 - share) * word + share * best * near[place.key]
            else:
                base[place.key] = word * (1 - share * short(place, config))
    made = {}
    dialogue = any(place.role == "assistant" for place in found.places)
    for place in found.places:
        same = [base[one.key] for one in found.places if one.session == place.session]
        top = sorted(same)[-3:]
        score = base[place.key] + config.session_weight * sum(top) / len(top)
        score += config.concept_weight * found.reached.get(place.key, 0)
        if found.speakers == (place.user,):
            score *= config.speaker_weight
        if dialogue and place.role == "user":
            score *= config.user_weight
        if place.role == "memory":
            score *= config.memory_weight
        made[place.key] = score
    return {key: score for key, score in made.items() if key in found.accepted and score > 0}


@given(candidates(), WEIGHTS)
@example(Candidates((), frozenset(), (), 0, 0.0, ()), CONFIG)
def test_the_scores_are_those_of_the_formula(found, config):
    ranked = {one.key: one.score for one in rank(found, limit=100, config=config)}
    assert ranked == pytest.approx(scores(found, config), abs=1e-9)


@given(candidates(), some.integers(1, 9), WEIGHTS)
def test_the_order_is_by_score_then_arrival_and_why_adds_up(found, limit, config):
    every = rank(found, limit=100, config=config)
    assert told(rank(found, limit=limit, config=config)) == told(every[:limit])
    order = [(-one.score, one.key) for one in every]
    assert order == sorted(order)
    terms = {place.key: place.terms for place in found.places}
    for one in every:
        assert set(one.why) == PARTS
        assert sum(one.why.values()) == pytest.approx(one.score)
        held = {t.word for t in TERMS if t.word and any(h in terms[one.key] for h in t.hashes)}
        assert set(one.matched) == held


@given(candidates(), some.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(found, random):
    shuffled = list(found.places)
    random.shuffle(shuffled)
    again = dataclasses.replace(found, places=tuple(shuffled))
    assert told(rank(again, limit=100, config=CONFIG)) == told(
        rank(found, limit=100, config=CONFIG)
    )


OFF = {
    "neighbours": {"neighbour_weight": 0, "second_neighbour_weight": 0},
    "vectors": {"vector_weight": 0},
    "session": {"session_weight": 0},
    "concepts": {"concept_weight": 0},
    "speaker": {"speaker_weight": 1},
    "role": {"user_weight": 1},
    "memory": {"memory_weight": 1},
}


@pytest.mark.parametrize("part", OFF)
@given(found=candidates())
def test_a_weight_of_nothing_switches_its_part_off(part, found):
    for one in rank(found, limit=100, config=Config(**OFF[part])):
        assert one.why[part] == 0


@given(candidates())
def test_vectors_of_no_weight_are_as_no_vectors(found):
    without = dataclasses.replace(found, cosines={})
    off = rank(found, limit=100, config=Config(vector_weight=0))
    assert told(off) == told(rank(without, limit=100, config=CONFIG))


@given(candidates())
def test_where_nothing_is_left_of_a_factor_it_is_no_hit(found):
    roles = {place.key: place.role for place in found.places}
    hits = rank(found, limit=100, config=Config(memory_weight=0))
    assert "memory" not in {roles[one.key] for one in hits}


def place(key: int, session: int, at: int, *hashes: bytes, size: int = 200) -> Place:
    return Place(key, session, at, None, "user", size, b"".join(hashes))


def found_of(*places: Place, cosines: dict[int, float] | None = None) -> Candidates:
    return Candidates(
        places,
        frozenset(one.key for one in places),
        tuple((term, 1) for term in TERMS),
        100,
        2.0,
        (),
        cosines=cosines or {},
    )


def keys(found: Candidates, **settings: Any) -> list[int]:
    return [one.key for one in rank(found, limit=100, config=Config(**settings))]


def test_a_neighbour_lends_words_but_not_more_than_its_own():
    asked, answer, other = place(1, 1, 0, RED, GREEN), place(2, 1, 1, b"xyz"), place(3, 2, 0, RED)
    why = {one.key: one.why for one in rank(found_of(asked, answer, other), limit=9, config=CONFIG)}
    assert why[1]["neighbours"] == 0 < why[1]["words"]
    assert why[2]["neighbours"] > 0 == why[2]["words"]
    assert keys(found_of(asked, answer, other), session_weight=0, neighbour_weight=0) == [1, 3]


def test_what_stands_behind_a_question_is_worth_more_than_what_stands_before_it():
    before, asked, behind = place(1, 1, 0), place(2, 1, 1, RED), place(3, 1, 2)
    assert keys(found_of(before, asked._replace(asks=True), behind)) == [2, 3, 1]
    assert keys(found_of(before, asked, behind)) == [2, 1, 3]


def test_a_neighbour_is_no_other_session_and_no_third_step():
    far, next_session = place(2, 1, 3, b"xyz"), place(3, 2, 1, b"xyz")
    assert keys(found_of(place(1, 1, 0, RED), far, next_session), session_weight=0) == [1]


def test_the_nearest_is_found_though_it_is_the_only_candidate():
    assert keys(found_of(place(1, 1, 0), cosines={1: 0.4})) == [1]
    assert keys(found_of(place(1, 1, 0), place(2, 2, 0), cosines={1: 0.4, 2: 0.4})) == [1, 2]


def test_what_has_no_vector_is_judged_by_its_words():
    """It is not held to be far: the vectors may have gone for want of room."""
    old, near, far = place(1, 1, 0, RED, GREEN), place(2, 2, 0, BLUE), place(3, 3, 0, RED)
    assert keys(found_of(old, near, far, cosines={2: 0.9, 3: 0.1}))[0] == 1
    assert keys(found_of(old, near, far, cosines={1: 0.1, 2: 0.9, 3: 0.1}))[0] == 2
    assert keys(found_of(old, near, far, cosines={1: 0.1, 2: 0.9, 3: 0.1}), vector_weight=0)[0] == 1


def test_a_damaged_ledger_in_which_two_share_a_place_is_still_ranked():
    twins = place(1, 1, 0, RED), place(2, 1, 0, GREEN)
    for one in rank(found_of(*twins), limit=9, config=CONFIG):
        assert one.why["neighbours"] == 0


# -- the second pass


LOOKED = some.builds(
    Looked,
    same=some.sampled_from("abc"),
    importance=some.sampled_from([0, 0.5, 1]),
    pinned=some.booleans(),
    asking=some.sampled_from([0, 0.5, 1]),
    timed=some.booleans(),
    dated=some.sampled_from([0, 0.5, 1]),
)
LATE_WEIGHTS = some.fixed_dictionaries(
    {
        "asking_weight": some.sampled_from([0, 0.3, 1]),
        "when_weight": some.sampled_from([0, 0.3]),
        "date_weight": some.sampled_from([0, 0.5]),
        "importance_weight": some.sampled_from([0, 0.1, 1]),
        "pin_weight": some.sampled_from([0, 0.1]),
    }
).map(lambda weights: Config(**weights))


def told(ranked: list[Ranked]) -> list[tuple[Any, ...]]:
    return [(one.key, one.score, one.why, one.matched) for one in ranked]


def ranked_of(key: int, score: float) -> Ranked:
    return Ranked(key, score, lambda: ({"words": score}, ()))


@some.composite
def ranked_and_looked(draw: Any) -> tuple[list[Ranked], dict[int, Looked]]:
    made = sorted(draw(some.lists(some.sampled_from([0.5, 1.0, 2.0]), max_size=8)), reverse=True)
    ranked = [ranked_of(key, score) for key, score in enumerate(made, 1)]
    return ranked, {one.key: draw(LOOKED) for one in ranked if draw(some.integers(0, 9))}


@given(ranked_and_looked(), some.booleans(), some.integers(1, 9), LATE_WEIGHTS)
def test_the_second_pass_multiplies_and_leaves_equal_texts_out(both, when, limit, config):
    ranked, looked = both
    factors = {}
    for key, one in looked.items():
        factor = (1 - config.asking_weight * one.asking) * (1 + config.date_weight * one.dated)
        factor *= 1 + config.when_weight * (when and one.timed)
        factor *= max(
            0.0,
            1
            + config.importance_weight * (2 * one.importance - 1)
            + config.pin_weight * one.pinned,
        )
        factors[key] = factor
    expected: dict[str, tuple[float, int]] = {}
    for one in ranked:
        if one.key in looked:
            found = (-one.score * factors[one.key], one.key)
            text = looked[one.key].same
            expected[text] = min(expected.get(text, found), found)
    hits = refine(ranked, looked, when=when, limit=limit, config=config)
    best = sorted(expected.values())[:limit]
    assert [hit.score for hit in hits] == pytest.approx([-score for score, _ in best])
    assert [(-hit.score, hit.key) for hit in hits] == sorted((-hit.score, hit.key) for hit in hits)
    for hit in hits:
        assert set(hit.why) == {"words"} | LATE
        assert sum(hit.why.values()) == pytest.approx(hit.score)
        assert hit.score >= 0


@given(ranked_and_looked())
def test_late_weights_of_nothing_change_nothing(both):
    ranked, looked = both
    off = Config(asking_weight=0, when_weight=0, date_weight=0, importance_weight=0, pin_weight=0)
    for hit in refine(ranked, looked, when=True, limit=9, config=off):
        assert hit.score == next(one.score for one in ranked if one.key == hit.key)
        assert {hit.why[part] for part in LATE} == {0}


def test_of_equal_texts_the_better_one_stays_and_the_next_takes_the_place():
    ranked = [ranked_of(1, 2.0), ranked_of(2, 1.9), ranked_of(3, 0.1)]
    same, other = Looked("same", 0.5, False), Looked("other", 0.5, False)
    for asking, first in ((0.0, 1), (1.0, 2)):
        looked = {1: dataclasses.replace(same, asking=asking), 2: same, 3: other}
        hits = refine(ranked, looked, when=False, limit=2, config=CONFIG)
        assert [hit.key for hit in hits] == [first, 3]
