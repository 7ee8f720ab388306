"""Recall over concepts: what a question names leads, over a relation, to messages about another."""

from datetime import UTC, datetime, timedelta

import pytest

from elytron.recall import reach

# In a file and on a server.
pytestmark = pytest.mark.ledgers


def ids(hits):
    return [hit.message.id for hit in hits]


@pytest.fixture
def fill():
    def fill_one(bob):
        """Talk in sessions of one message, so that nothing is found for standing beside a hit."""
        bob.relate("Alice", "has a dog", "Rex")
        bob.relate("Alice", "lives in", "Annecy")
        talk = {
            "alice": "Alice bought new shoes.",
            "rex": "At night Rex snores by the stove.",
            "annecy": "There is fog over Annecy.",
            "other": "Somebody sleeps at the station.",
        }
        for key, content in talk.items():
            bob.save("user", content, id=key, session=key)
        bob.flush()
        return bob

    return fill_one


@pytest.fixture
def bob(bob, fill):
    return fill(bob)


def test_a_message_about_a_related_concept_is_found_without_a_word_of_the_question(bob):
    hits = {hit.message.id: hit for hit in bob.recall("Where does the dog of Alice sleep?")}
    assert hits["rex"].why["concepts"] > hits["annecy"].why["concepts"] > 0
    assert hits["rex"].why["words"] == 0
    assert hits["rex"].matched == ()
    assert hits["alice"].why["concepts"] == 0
    for hit in hits.values():
        assert hit.score == pytest.approx(sum(hit.why.values()))


def test_the_relation_that_the_question_speaks_of_counts_most(bob):
    assert ids(bob.recall("Where does Alice live?"))[:2] != ids(bob.recall("Alice's dog?"))[:2]
    assert "annecy" in ids(bob.recall("Where does Alice live?"))[:2]
    assert "rex" in ids(bob.recall("Alice's dog?"))[:2]


def test_a_concept_that_the_question_names_itself_counts_by_its_words_alone(bob):
    hits = {hit.message.id: hit for hit in bob.recall("Does Rex like Alice?")}
    assert {"rex", "alice", "annecy"} <= set(hits)
    assert hits["rex"].why["concepts"] == hits["alice"].why["concepts"] == 0


def test_relations_are_followed_in_both_directions_and_only_one_step(bob):
    assert "alice" in ids(bob.recall("Whose dog is Rex?"))
    assert "annecy" not in ids(bob.recall("Whose dog is Rex?"))


def test_a_relation_that_has_ended_leads_nowhere(bob):
    bob.unrelate("Alice", "has a dog", at=datetime.now(UTC) - timedelta(days=1))
    assert "rex" not in ids(bob.recall("the dog of Alice"))
    assert "annecy" in ids(bob.recall("the dog of Alice"))


def test_relations_are_followed_that_held_when_it_is_asked(bob):
    now = datetime.now(UTC)
    bob.unrelate("Alice", "has a dog", at=now - timedelta(days=1))
    bob.relate("Alice", "has a horse", "Juniper", valid_from=now - timedelta(hours=1))
    bob.save("user", "Juniper refused the fence.", id="horse", session="horse")
    bob.flush()
    assert "rex" in ids(bob.recall("the dog of Alice", at=now - timedelta(days=2)))
    assert "horse" not in ids(bob.recall("the horse of Alice", at=now - timedelta(days=2)))
    assert "horse" in ids(bob.recall("the horse of Alice"))


def test_the_filters_hold_for_what_is_reached(bob):
    assert ids(bob.recall("the dog of Alice", session="rex")) == ["rex"]
    assert ids(bob.recall("the dog of Alice", session="alice")) == ["alice"]
    assert bob.recall("the dog of Alice", role="assistant") == []


def test_a_name_that_no_message_has_leads_to_those_of_its_relations(bob):
    bob.relate("Zoé", "has a horse", "Juniper")
    bob.save("user", "Juniper refused the fence.", id="horse", session="horse")
    bob.flush()
    assert ids(bob.recall("zoe")) == ["horse"]


def test_with_no_weight_it_is_by_words_alone(open_store, fill):
    bob = fill(open_store(concept_weight=0).agent("bob"))
    hits = bob.recall("the dog of Alice")
    assert ids(hits) == ["alice"]
    assert hits[0].why["concepts"] == 0


def test_what_was_learned_since_counts_at_once(bob):
    assert ids(bob.recall("Priya's sister")) == []
    bob.relate("Priya", "sister of", "Anjali")
    bob.save("user", "Anjali studies glaciers", id="new", session="new")
    bob.flush()
    assert ids(bob.recall("Priya's sister")) == ["new"]
    bob.set_concept("Priya", rename="Priyanka")
    assert ids(bob.recall("Priya's sister")) == []
    assert ids(bob.recall("Priyanka's sister")) == ["new"]
    bob.delete_concept("Anjali")
    assert ids(bob.recall("Priyanka's sister")) == []


def test_what_is_reached_is_bounded_and_the_newest(bob):
    for number in range(3):
        bob.save_many(
            [
                {"role": "user", "content": f"Rex, day {number} {n}", "id": f"rex {number} {n}",
                 "session": f"{number} {n}"}
                for n in range(50)
            ]
        )  # fmt: skip
    bob.flush()
    found = [hit for hit in bob.recall("Alice", limit=200) if hit.why["concepts"]]
    assert reach.ADDED_MAX - 1 <= len(found) <= reach.ADDED_MAX
    assert "rex 2 49" in ids(found)
    assert "rex 0 0" not in ids(found)


def test_archived_messages_are_found_beside_them(open_store, fill):
    bob = open_store(emergency_messages=2).agent("bob")
    bob.save("user", "Alice had a cat", id="old 1")
    bob.save("user", "The cat of Alice ran off", id="old 2")
    fill(bob)
    bob.emergency_cleanup()
    held = {message.id for message in bob.messages()}
    assert {"rex", "annecy"} <= held
    hits = {
        hit.message.id: hit
        for hit in bob.recall("Does the dog of Alice like the cat?", archived=True)
    }
    assert hits["old 1"].archived
    assert hits["rex"].why["concepts"] > 0
