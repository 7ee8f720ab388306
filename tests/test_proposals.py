"""Proposals: what a text may be about shows in how it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron.concepts import proposals
from elytron.concepts.names import Names
from elytron.concepts.proposals import Candidate, candidates, confidence
from elytron.text import folded_words


def names(text, **options):
    return {one.name for one in candidates(text, **options)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My name is Alice and I live in Lyon.", {"Alice", "Lyon"}),
        (
            "We met at the Café de Flore, near Place de l'Opéra.",
            {"Café de Flore", "Place de l'Opéra"},
        ),
        (
            "Je vais à la Côte d'Azur avec Zoé et Jean-Pierre.",
            {"Côte d'Azur", "Zoé", "Jean-Pierre"},
        ),
        ("It was Marie Curie who won.", {"Marie Curie"}),
        ("she studied at the University of Lyon", {"University of Lyon"}),
        ("we saw Vincent van Gogh and O'Brien", {"Vincent van Gogh", "O'Brien"}),
        ("J'ai vu L'Oréal hier.", {"Oréal"}),
        ("Thanks, Caroline! Hey Mel!", {"Caroline", "Mel"}),
        ("I asked Dr. Smith and Mme Dupont.", {"Smith", "Dupont"}),
        ("Alice's dog Rex hates Bob's cat", {"Rex", "Bob"}),
        ("мы живём в Москве", {"Москве"}),
    ],
)
def test_capitalised_words_within_a_sentence_are_names(text, expected):
    assert names(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Yesterday was fine. Painting helps! Really? Great: Nothing else.",
        "- Painting\n- Cooking\n1. Swimming",
        "so fun 😊 Painting is great",
        "on Monday in July, le Mardi, I said Hello and Bonjour",
        "I'm sure I've seen it, and I'll go. Moi, Je pense.",
        "I LOVE THIS SO MUCH, REALLY",
        "## Key Features of Python\n\n**Next Steps**",
        "See https://Example.com/Some/Page, me@Example.Com or ~/Documents/Some File.",
        "```\nclass FooBar:\n    Baz Qux\n```",
        "LOL OMG that is OK",
        'he was "so very happy!" and "I am"',
        "A Very Long Title Of Many Words Here appears",
        "",
    ],
)
def test_other_capitals_are_not(text):
    assert names(text) == set()


def test_what_begins_a_sentence_counts_only_with_what_follows():
    assert names("Lyon is big. Marie Curie was born. The Eiffel Tower stands.") == {
        "Marie Curie",
        "Eiffel Tower",
    }


def test_a_word_that_is_there_in_lower_case_too_is_no_name():
    assert names("my Garden is a garden, by Rex") == {"Rex"}


def test_acronyms_and_coined_names_show_by_themselves():
    assert names("это было давно НАСА, une ÉCOLE") == {"НАСА", "ÉCOLE"}
    assert names("FastAPI is fine. NASA too, and H2O. iPhone! use max_db_size") == {
        "FastAPI", "NASA", "H2O", "iPhone", "max_db_size",
    }  # fmt: skip
    assert names("I TOLD YOU ABOUT NASA BEFORE") == set()


def test_short_terms_in_quotes_are_taken():
    text = 'I read "Becoming Nicole", «Le Petit Prince», “deep work” and `pip install`; 「羅生門」'
    assert names(text) >= {
        "Becoming Nicole",
        "Le Petit Prince",
        "deep work",
        "pip install",
        "羅生門",
    }
    assert names('he said "this is a much longer sentence than that"') == set()


def test_where_nouns_have_capitals_only_what_shows_by_itself_is_taken():
    text = 'Ich habe den Hund in Berlin gesehen, mit FastAPI und "Faust".'
    assert names(text, capitals=False) == {"FastAPI", "Faust"}


def test_one_name_in_several_spellings_is_one_candidate():
    assert candidates("with José, then JOSE, then Jose") == [Candidate("jose", "JOSE")]


def test_confidence_grows_with_how_often_it_was_heard():
    assert [confidence(times) for times in (3, 4, 9, 1000)] == [0.3, 0.35, 0.6, 0.6]


@given(st.text(max_size=200))
def test_any_text_will_do_and_what_comes_of_it_is_a_name_within_bounds(text):
    for folded, name in candidates(text):
        assert folded == " ".join(folded_words(name))
        assert 2 <= len(name) <= 80


@given(
    st.lists(st.sampled_from("Ada Lyon de la the Bob's l'Oréal NASA FastAPI . , ! “ ” is".split()))
)
def test_a_text_names_what_was_proposed_from_it(words):
    """The one finds names by how they are written, the other by their words: they have to agree."""
    text = " ".join(words)
    found = candidates(text)
    known = Names((key, one.name, 1.0) for key, one in enumerate(found))
    longest = max((one for one in found), key=lambda one: len(one.folded), default=None)
    assert longest is None or found.index(longest) in known.find(text)


def test_the_number_of_candidates_and_the_text_looked_at_are_bounded():
    many = ", ".join(f"with Xa{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(300))
    assert len(candidates(many)) == 50
    assert names("a" * 20_000 + " with Lyon") == set()


@pytest.mark.timeout(100)  # which no text comes near; one that hangs would take an hour
@pytest.mark.parametrize(
    "piece", ["x", '"', "`", "A ", "A.", "«", "a/b", "'s", "```", "~/", "@", "_a", "Ab"]
)
def test_a_long_text_is_read_to_its_end(piece, monkeypatch):
    """A pattern that tries every way of reading a text never comes to that of one so long."""
    monkeypatch.setattr(proposals, "_TEXT_MAX", 1_000_000)
    candidates(piece * (1_000_000 // len(piece)))
