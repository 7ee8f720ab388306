"""What is a string or a number by its class alone is written as what it is."""

import enum
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron import Agent, Store
from elytron.concepts.extraction import checked
from elytron.remote.admitting import Admitting


class Word(str, enum.Enum):  # noqa: UP042 - that one calls itself by its value
    """As many programs have it: its text is the value, and it calls itself `Word.USER`."""

    USER = "user"
    TEXT = "We met at the harbour"
    OTHER = "We met at the mill"
    NAME = "Alice"


class Loud(str):
    def __str__(self) -> str:
        return self.upper()


class Level(enum.IntEnum):
    NONE = 0
    ALL = 1


class Share(float):
    def __str__(self) -> str:
        return "much"


KINDS: list[Any] = [Word, Loud]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_words_that_call_themselves_otherwise_is_held_and_whole(
    store: Store, kind: Any
) -> None:
    bob = store.agent("bob")
    user, text, other, name = (kind(word.value) for word in Word)
    bob.save(user, text, session=name, user=name, id=text, metadata={name: [user]})
    bob.save_many([{"role": user, "content": text, "session": name, "id": "many"}])
    bob.edit(text, other)
    bob.pin(text)
    first, second = bob.history(name)
    assert (first.role, first.content, first.session, first.user, first.id) == (
        "user", "We met at the mill", "Alice", "Alice", "We met at the harbour",
    )  # fmt: skip
    assert first.metadata == {"Alice": ["user"]}
    assert all(type(value) is str for value in (first.content, second.content, second.session))
    assert {hit.message.id for hit in bob.recall("met", session=name)} == {first.id, "many"}
    assert bob.check().ok
    assert bob.delete(text)
    assert bob.delete_session(name) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learned_in_such_words_is_held_and_whole(bob: Agent, kind: Any) -> None:
    user, text, other, name = (kind(word.value) for word in Word)
    bob.remember(text, about=[name], kind=user, session=name, id=user, metadata={name: name})
    bob.edit_memory(user, other)
    bob.remember(text, id="new", replaces=user)
    bob.relate(name, user, other)
    bob.set_concept(name, type=user, description=text)
    assert bob.memories()[0].content == "We met at the harbour"
    (fact,) = bob.relations()
    assert (fact.source, fact.relation, fact.target) == ("Alice", "user", "We met at the mill")
    details = bob.concept(name)
    assert details is not None
    assert (details.concept.type, details.concept.description) == ("user", "We met at the harbour")
    assert bob.check().ok


def test_an_agent_called_by_such_a_word_is_the_one_of_that_name(folder: Path) -> None:
    with elytron.open(folder, reserve_mb=0) as store:
        store.agent(Word.NAME).save("user", "Hello", id="a")
        assert store.agents() == ["Alice"]
        assert store.agent("Alice").get("a") is not None
        store.rename(Word.NAME, Word.USER)
        assert store.agents() == ["user"]
        assert store.delete(Word.USER).agent == "user"


def test_what_an_extractor_calls_by_such_a_word_is_taken_as_plain_text() -> None:
    answer = {
        "concepts": [{"name": Word.NAME, "type": Word.USER, "description": Word.TEXT}],
        "relations": [(Word.NAME, Word.USER, Word.OTHER)],
    }
    found = checked(answer)
    texts = [found.concepts[0].name, found.concepts[0].type, found.concepts[0].description]
    texts += [found.relations[0].relation, found.relations[0].source]
    assert texts == ["Alice", "user", "We met at the harbour", "user", "alice"]
    assert all(type(text) is str for text in texts)


def test_such_a_message_is_checked_and_sent_as_its_value() -> None:
    sent = Admitting({}).one({"role": Word.USER, "content": Word.TEXT, "id": Word.NAME})
    assert sent["id"] == "Alice"
    assert type(sent["id"]) is str


@pytest.mark.parametrize("number", [-0.0, Level.NONE, Level.ALL, Share(0.25)])
def test_a_share_of_any_kind_of_number_is_written_as_it_will_be_read(
    bob: Agent, number: float
) -> None:
    """SQLite keeps no minus of a zero."""
    bob.save("user", "Hello", id="a", importance=number)
    bob.save("user", "Hello again", id="b")
    bob.set_importance("b", number)
    bob.remember("Alice likes tea", importance=number, id="m")
    bob.relate("Alice", "likes", "tea", strength=number)
    bob.set_concept("Alice", confidence=number)
    assert [message.importance for message in bob.history()] == [float(number)] * 2
    assert bob.memories()[0].importance == float(number)
    assert bob.relations()[0].strength == float(number)
    assert bob.check().ok
    share = checked({"concepts": [{"name": "Alice", "confidence": number}]}).concepts[0].confidence
    assert repr(share) == repr(abs(float(number)))
