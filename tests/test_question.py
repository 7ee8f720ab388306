"""What a question says besides its words: whom it names, and what is left of it without them."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from elytron.recall.question import possible_names, without_names
from elytron.text import folded_words


@pytest.mark.parametrize(
    ("question", "names", "left"),
    [
        ("Where does Melanie paint?", ["melanie"], "Where does  paint?"),
        ("What is Melanie's favourite colour?", ["melanie"], "What is  favourite colour?"),
        ("What is Melanie\u2019s favourite colour?", ["melanie"], "What is  favourite colour?"),
        ("Où habite Zoé à Lyon ?", ["zoe"], "Où habite  à Lyon ?"),
        ("MELANIE or Caroline: who paints?", ["melanie", "caroline"], " or : who paints?"),
        ("Does Anna Maria Lopez paint?", ["anna maria lopez"], "Does  paint?"),
        ("Does Anna-Maria paint?", ["anna maria"], "Does  paint?"),
        ("Does Annabel paint?", ["anna"], "Does Annabel paint?"),
        ("Does anybody paint?", ["melanie"], "Does anybody paint?"),
        ("Does anybody paint?", [], "Does anybody paint?"),
    ],
)
def test_the_names_of_users_are_left_out(question, names, left):
    assert without_names(question, names) == left


def test_of_two_names_the_longer_one_is_taken():
    assert without_names("Does Anna Maria paint?", ["anna", "anna maria"]) == "Does  paint?"


@pytest.mark.parametrize(
    "question", ["Melanie", "Melanie?", "Who is Melanie?", "Et Melanie ?", "Melanie, Melanie's"]
)
def test_a_question_that_is_little_more_than_a_name_stays_as_it_is(question):
    assert without_names(question, ["melanie"]) == question


ALPHABET = "abé A'\u2019s.?-_\u00df\ufb01日本 \ud800"
QUESTIONS = some.text(ALPHABET, max_size=40)
NAMES = some.lists(some.text(ALPHABET, max_size=8).map(lambda t: " ".join(folded_words(t))))


@given(QUESTIONS, NAMES)
def test_whatever_the_names_only_they_are_taken_out(question, names):
    left = without_names(question, names)
    rest = iter(question)
    assert all(character in rest for character in left), "nothing is added, nothing moves"
    assert without_names(question, ["zzz"]) == question
    if question.strip():
        assert left.strip(), "something is left to be embedded"


@given(some.text(max_size=200))
def test_the_names_that_a_question_may_hold_are_its_runs_of_words(question):
    words = folded_words(question)
    names = possible_names(question)
    assert len(names) <= 3 * len(words)
    for name in names:
        assert 1 <= len(name.split(" ")) <= 3
        assert name in " ".join(words)
    assert set(words) <= set(names)


def test_a_question_of_20000_characters_is_done_with():
    question = "anna " * 4000
    assert len(possible_names(question)) == 3 * 4000 - 3
    assert without_names(question + "paints", ["anna"]).split() == ["paints"]
