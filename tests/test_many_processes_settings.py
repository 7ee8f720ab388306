"""Programs that open one memory with different settings: each difference has a known end."""

from collections.abc import Callable
from pathlib import Path

import pytest

import elytron
from elytron import InvalidSetting, OverBudget
from embedders import Hashing
from quiet import at_rest

Open = Callable[..., elytron.Store]


def test_who_writes_in_other_languages_is_told_both_and_changes_nothing(
    store: elytron.Store, open_store: Open
) -> None:
    bob = store.agent("bob")
    bob.save("user", "I live in Lyon", id="one")
    other = open_store(languages=["german"]).agent("bob")
    for verb in (
        lambda: other.save("user", "Ich wohne in Lyon"),
        lambda: other.remember("Lyon ist schön"),
        lambda: other.recall("Lyon"),
    ):
        with pytest.raises(InvalidSetting, match=r"indexed for english,french.*german.*reindex"):
            verb()
    assert [message.id for message in other.history()] == ["one"], "what needs no words works"
    assert bob.recall("live")[0].message.id == "one"


def test_who_was_refused_for_languages_goes_on_once_another_program_indexed_anew(
    store: elytron.Store, open_store: Open, folder: Path
) -> None:
    store.agent("bob").save("user", "Ich wohne in Häusern", id="one")
    bob = open_store(languages=["german"]).agent("bob")
    for _ in range(2):
        with pytest.raises(InvalidSetting, match="elytron reindex"):
            bob.recall("Haus")
    with elytron.open(folder, languages=["german"]) as other:
        other.agent("bob").reindex()
    assert bob.recall("Haus")[0].message.id == "one"
    assert bob.save("user", "Sie wohnt in einem Haus").new


def test_who_has_another_embedder_writes_nothing_of_its_own(open_store: Open) -> None:
    first, second = Hashing(name="first"), Hashing(name="second")
    bob = open_store(embedder=first).agent("bob")
    bob.save("user", "I live in Lyon, as you know", id="one")
    bob.flush()
    other = open_store(embedder=second).agent("bob")
    with pytest.raises(InvalidSetting, match="reembed"):
        other.save("user", "I have moved to Porto, you know")
    assert bob.usage().embedded == 1


def test_the_lower_limit_holds_whenever_its_process_writes(
    store: elytron.Store, open_store: Open
) -> None:
    bob, tight = store.agent("bob"), open_store(max_messages_per_agent=10).agent("bob")
    for number in range(30):
        bob.save("user", f"Number {number}", id=str(number))
    assert bob.usage().messages == 30
    tight.save("user", "One more", id="more")
    at_rest(tight)  # its janitor was woken by that, and would meet what is saved below
    assert bob.usage().messages <= 10
    assert {message.id for message in bob.messages(archived=True)} == {
        *map(str, range(30)),
        "more",
    }
    for number in range(30, 40):
        bob.save("user", f"Number {number}", id=str(number))
    assert bob.usage().messages >= 11, "the other keeps to its own"


def test_who_may_not_archive_is_refused_where_another_would_make_room(open_store: Open) -> None:
    strict = open_store(max_messages_per_agent=5, auto_cleanup=False).agent("bob")
    bob = open_store(max_messages_per_agent=5).agent("bob")
    for number in range(5):
        strict.save("user", f"Number {number}")
    with pytest.raises(OverBudget, match="max_messages_per_agent"):
        strict.save("user", "One too many")
    bob.save("user", "There is room now")
    assert bob.usage().messages <= 5
    assert bob.usage().archived > 0


def test_two_engines_each_build_a_graph_of_their_own_and_both_answer(
    store: elytron.Store, open_store: Open, folder: Path
) -> None:
    pytest.importorskip("kuzu")
    bob, other = store.agent("bob"), open_store(engine="kuzu").agent("bob")
    for number in range(3):
        bob.save("user", f"Number {number}")
        for agent in (bob, other):
            (row,) = agent.cypher("MATCH (m:Message) RETURN count(m) AS held")
            assert row == {"held": number + 1}
