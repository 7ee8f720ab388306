"""Names in memory follow the ledger, and are found all the while."""

import pytest

from elytron.concepts.known import KnownNames

# In a file and on a server.
pytestmark = pytest.mark.ledgers


@pytest.fixture
def bob(open_store):
    """An agent whose concepts are those that it is told."""
    return open_store(propose_concepts=False).agent("bob")


def test_a_name_is_found_also_while_its_concept_is_read_anew(bob, monkeypatch):
    """Another thread that asks just then would else link its text to nobody, for good."""
    bob.relate("Alice", "knows", "Marc")
    assert bob.recall("Alice") == []
    plain, found = KnownNames._put, []

    def put(self, *given):
        if len(self):  # else it is only being made
            found.append(self.find("Alice said so"))
        return plain(self, *given)

    monkeypatch.setattr(KnownNames, "_put", put)
    bob.set_concept("Alice", description="a friend")
    assert bob.recall("Alice") == []
    bob.set_concept("Alice", confidence=0.5)
    assert bob.recall("Alice") == []
    assert len(found) == 2
    assert all(found)


def test_concepts_that_exchange_their_names_are_known_by_the_new_ones(bob):
    bob.relate("Alice", "knows", "Marc")
    assert bob.recall("Alice") == []
    for name, new in (("Alice", "Nobody"), ("Marc", "Alice"), ("Nobody", "Marc")):
        bob.set_concept(name, rename=new)
    assert bob.recall("Alice") == []
    with bob._agents.use("bob", create=False) as agent:
        known = agent.known
        assert [name in known for name in ("alice", "marc", "nobody")] == [True, True, False]
        called = [known.called(key) for key in known.find("Alice and Marc, and Nobody")]
        assert sorted(name for name, _ in called) == ["Alice", "Marc"]
    (fact,) = bob.relations()
    assert (fact.source, fact.target) == ("Marc", "Alice")
