"""Names: a text names a known concept by its whole words, in any case, the longest name first."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elytron.concepts.names import Names, folded_name
from elytron.text import folded_words


def found(text, *names):
    """Which of the names a text names."""
    known = Names((key, name, 1.0) for key, name in enumerate(names))
    return {names[key] for key in known.find(text)}


def test_a_name_is_found_as_whole_words_without_case_or_accents():
    for text in (
        "I met josé today",
        "JOSE!",
        "José's house",
        "(Jose)",
        "l'été de José",
        "Jose\u0301",
    ):
        assert found(text, "José") == {"José"}, text
    assert not found("the Joseph of Josephine", "José")
    assert not found("Lyons, Lyonnais", "Lyon")
    assert found("Ludwig\nvan   BEETHOVEN", "Ludwig van Beethoven")
    assert found("J’aime l’Oréal", "L'Oréal") == {"L'Oréal"}


def test_the_longest_name_wins_and_its_parts_are_found_elsewhere():
    names = ("New York", "New York Times", "York", "Times Square")
    assert found("I read the New York Times", *names) == {"New York Times"}
    assert found("the New York Times in New York", *names) == {"New York Times", "New York"}
    assert found("New York Times Square", *names) == {"New York Times"}
    assert found("New York Times Square", "New York", "York Times Square") == {"York Times Square"}
    assert found("old York, new times square", *names) == {"York", "Times Square"}


def test_the_confidence_is_that_of_the_concept():
    known = Names([(7, "Lyon", 0.3), (9, "Alice", 1.0)])
    assert known.find("Alice went to Lyon, and Lyon was full") == {7: 0.3, 9: 1.0}
    assert known.find("nobody went anywhere") == {}
    assert known.find("") == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("私は東京に住んでいます", {"東京"}),
        ("東京都に住む", {"東京都"}),  # neither 東京 nor 京都
        ("京都に行った", {"京都"}),
        ("東京 京都", {"東京", "京都"}),  # two runs are no 東京都
        ("我在北京大学学习", {"北京大学"}),
        ("나는 서울특별시에 산다", {"서울"}),
        ("ฉันอยู่กรุงเทพ", {"กรุงเทพ"}),
    ],
)
def test_a_name_is_found_within_a_run_of_a_script_without_spaces(text, names):
    assert found(text, "東京", "京都", "東京都", "北京", "北京大学", "서울", "กรุงเทพ") == names


def test_names_that_share_a_character_of_a_run_are_not_both_found():
    assert found("東京都に住む", "東京", "京都") == {"東京"}
    assert found("京都と東京", "東京", "京都") == {"東京", "京都"}


def test_other_scripts_are_found_too():
    assert found("मैं दिल्ली में रहता हूँ", "दिल्ली")
    assert found("Я живу в Москва-Сити", "москва")
    assert found("ΑΘΉΝΑ", "Αθήνα")
    assert found("𝐍𝐀𝐒𝐀 is fun", "Nasa")


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        ("Will", "Does Will come?", "Will you come? I will."),
        ("May", "I saw May.", "It may rain. May I?"),
        ("US", "US troops left the US.", "He told us. Us too."),
        ("The Who", "The Who played.", "the who knows, The who"),
        ("C", "I like C and Rust", "c is a letter. C'est ça."),
        ("It", "We watched It again.", "It rained. it"),
        ("the", "", "the The THE"),
        ("I", "", "I am. So am I."),
        ("7", "", "7 of 9"),
    ],
)
def test_a_name_that_is_an_ordinary_word_has_to_be_meant(name, yes, no):
    assert bool(found(yes, name)) == bool(yes)
    assert not found(no, name)


def test_a_name_of_signs_alone_is_never_found():
    assert not found("♥ !! ...", "♥", "!!", "...")
    assert folded_name("♥") == "♥"
    assert folded_name("  José   Bové ") == "jose bove"


def test_a_name_that_stays_is_never_taken_out(monkeypatch):
    """It is asked for by other threads meanwhile."""
    known = Names([(1, "Lyon", 1.0), (2, "Lyon Part-Dieu", 1.0)])
    monkeypatch.setattr(Names, "drop", lambda *_: pytest.fail("it was taken out"))
    known.put(1, "Lyon", 0.5)
    assert known.find("Lyon") == {1: 0.5}
    assert len(known) == 2


def test_a_name_can_be_changed_and_taken_away():
    known = Names([(1, "Lyon", 1.0), (2, "Lyon Part-Dieu", 1.0)])
    known.put(1, "Paris", 0.5)
    assert known.find("from Lyon Part-Dieu to Paris via Lyon") == {2: 1.0, 1: 0.5}
    known.drop(2)
    known.drop(2)
    assert known.find("from Lyon Part-Dieu to Paris") == {1: 0.5}
    assert len(known) == 1
    known.drop(1)
    assert not known.find("Paris")
    assert not len(known)


WORDS = st.sampled_from(["ada", "bob", "cy", "dee"])
PHRASE = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)


def reference(text, names):
    """The same by trying every name everywhere, longest first."""
    words = folded_words(text)
    places = [
        (len(wanted), -start, key)
        for key, name in enumerate(names)
        for wanted in [folded_words(name)]
        for start in range(len(words) - len(wanted) + 1)
        if words[start : start + len(wanted)] == wanted
    ]
    taken, keys = set(), set()
    for size, minus_start, key in sorted(places, reverse=True):
        span = set(range(-minus_start, -minus_start + size))
        if not span & taken:
            taken |= span
            keys.add(key)
    return keys


@given(st.lists(WORDS, max_size=9).map(" ".join), st.lists(PHRASE, max_size=6, unique=True))
def test_what_is_found_is_what_trying_every_name_everywhere_finds(text, names):
    known = Names((key, name, 1.0) for key, name in enumerate(names))
    assert set(known.find(text)) == reference(text, names)


@given(st.data())
def test_names_that_come_and_go_leave_what_was_built_from_those_left(data):
    known, held = Names(), {}
    for key, name in data.draw(st.lists(st.tuples(st.integers(0, 5), PHRASE | st.none()))):
        if name is None:
            known.drop(key)
            held.pop(key, None)
        elif name not in held.values():
            known.put(key, name, 1.0)
            held[key] = name
    fresh = Names((key, name, 1.0) for key, name in held.items())
    text = data.draw(st.lists(WORDS, max_size=9).map(" ".join))
    assert known.find(text) == fresh.find(text)
    assert len(known) == len(held)


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=20), max_size=5))
def test_any_text_and_any_name_will_do(text, names):
    known = Names((key, name, 1.0) for key, name in enumerate(names))
    assert set(known.find(text)) <= set(range(len(names)))


def test_a_lone_name_is_found_in_itself_among_twenty_thousand():
    dice = random.Random(3)
    words = [f"{a}{b}{c}q" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"]
    names = sorted({" ".join(dice.choices(words, k=dice.randint(1, 3))) for _ in range(20_000)})
    known = Names((key, name, 1.0) for key, name in enumerate(names))
    for key in dice.sample(range(len(names)), 200):
        assert key in known.find(names[key].title())
