"""What a question looks at: so many memories and vectors; and what lies beyond these."""

import pytest

from elytron.recall import candidates, nearest
from elytron.verbs import learning
from test_recall_vectors import Embedder, ids

# In a file and on a server.
pytestmark = pytest.mark.ledgers

np = pytest.importorskip("numpy")


@pytest.fixture
def open_bob(open_store):
    def open_one(**settings):
        # Patient, else words alone answer where the machine stands still for two seconds.
        patient = {"min_embed_chars": 0, "embed_query_timeout_s": 60}
        return open_store(embedder=Embedder(), **patient, **settings).agent("bob")

    return open_one


# -- vectors that are gone


@pytest.fixture
def few_gone_are_fetched(monkeypatch):
    """As many beside those wanted as else 256 are."""
    monkeypatch.setattr(nearest, "_GONE_MIN", 2)
    monkeypatch.setattr(nearest, "_GONE_SHARE", 10.0)


def test_those_that_are_gone_do_not_hide_what_lies_behind_them(open_bob, few_gone_are_fetched):
    bob = open_bob(vector_candidates_max=1)
    bob.save_many(
        {"role": "user", "content": f"dog dog {n}", "session": f"s{n}", "id": f"dog {n}"}
        for n in range(10)
    )
    bob.save("user", "A puppy by the sea", id="sea")
    bob.flush()
    assert ids(bob.recall("hound", limit=1)) != ["sea"]
    for n in range(10):
        bob.delete(f"dog {n}")
    assert ids(bob.recall("hound", limit=1)) == ["sea"]


def test_what_one_message_once_meant_does_not_hide_others(open_bob, few_gone_are_fetched):
    bob = open_bob(vector_candidates_max=2)
    bob.save("user", "That automobile needs tyres.", id="auto", session="dog")
    bob.save("user", "dog dog", id="dog", session="dog")
    bob.save("user", "A puppy by the sea", id="sea")
    bob.flush()
    for n in range(10):
        assert set(ids(bob.recall("hound", limit=2))) == {"dog", "sea"}
        bob.edit("dog", f"dog dog {n}")
        bob.flush()
    assert set(ids(bob.recall("hound", limit=2))) == {"dog", "sea"}


# -- memories


def test_of_each_kind_that_is_named_the_newest_memories_are_looked_at(open_store, monkeypatch):
    monkeypatch.setattr(candidates, "MEMORIES_MAX", 10)
    bob = open_store().agent("bob")
    bob.remember("The zebra has stripes.", kind="animal", id="zebra")
    for n in range(15):
        bob.remember(f"Note {n}", kind="note")
    assert ids(bob.recall("zebra", kinds=["animal", "note"])) == ["zebra"]
    assert ids(bob.recall("zebra", kinds=["animal"])) == ["zebra"]
    assert bob.recall("zebra") == []


def test_pinned_memories_are_looked_at_however_many_are_newer(open_store, monkeypatch):
    for module in (candidates, learning):
        monkeypatch.setattr(module, "MEMORIES_MAX", 10)
    bob = open_store().agent("bob")
    bob.remember("The zebra has stripes.", id="pinned", pinned=True)
    bob.remember("The zebra is fast.", id="not")
    for n in range(15):
        bob.remember(f"Note {n}", pinned=n == 12)
    assert ids(bob.recall("zebra")) == ["pinned"]
    assert [memory.id for memory in bob.memories("zebra")] == ["pinned"]
    bob.close_memory("pinned")
    assert bob.recall("zebra") == bob.memories("zebra") == []


@pytest.mark.parametrize("kinds", [None, ["fact"], ["memory"], ["fact", "message"]])
def test_a_memory_that_is_older_than_those_is_found_by_its_meaning(open_bob, monkeypatch, kinds):
    monkeypatch.setattr(candidates, "MEMORIES_MAX", 10)
    bob = open_bob()
    bob.remember("A puppy lives here.", id="closed")
    bob.close_memory("closed")
    bob.remember("A hound lives here.", id="hound")
    for n in range(25):
        bob.remember(f"The ocean was rough, day {n}.")
    bob.save("user", "Where are you driving?", id="said")
    bob.flush()
    found = ids(bob.recall("dog", kinds=kinds))
    assert found[0] == "hound"
    assert "closed" not in found
    assert bob.memories("dog", limit=1)[0].id == "hound"
