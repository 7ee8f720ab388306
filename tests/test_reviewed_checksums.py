"""What no other test noticed when a checksum was not looked at: rows that are read to go on."""

from pathlib import Path

import pytest

import elytron
from elytron import Corrupt
from ledgers import query

SMALL = {"reserve_mb": 0, "link_concepts": False}
DAMAGES = {
    "a memory": "UPDATE memories SET content = 'x' WHERE id = 'tea'",
    "a concept": "UPDATE concepts SET name = 'Alise' WHERE folded = 'alice'",
    "a fact": "UPDATE relations SET strength = 0.6 WHERE strength = 0.5",
}


def begin(folder: Path) -> None:
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        bob.save("user", "Alice lives in Lyon", session="s")
        bob.remember("Alice likes tea", about=["Alice"], id="tea")
        bob.remember("Carol likes wine", about=["Carol"], id="wine")
        bob.relate("Alice", "lives in", "Lyon", strength=0.5)
        bob.relate("Carol", "lives in", "Nice")


def test_a_damaged_fact_is_not_written_over(folder: Path) -> None:
    """Of concepts that are whole, so that it is the fact which refuses."""
    begin(folder)
    query(folder, DAMAGES["a fact"])
    before = query(folder, "SELECT * FROM relations")
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        for refused in (
            lambda: bob.relate("Alice", "lives in", "Lyon"),
            lambda: bob.relate("Alice", "lives in", "Paris", replaces=True),
            lambda: bob.unrelate("Alice", "lives in"),
        ):
            with pytest.raises(Corrupt, match="relation row"):
                refused()
    assert query(folder, "SELECT * FROM relations") == before


def test_nothing_is_linked_by_a_damaged_text(folder: Path) -> None:
    begin(folder)
    query(folder, "UPDATE messages SET content = 'Carol lives in Lyon'")
    with elytron.open(folder, reserve_mb=0) as store:
        bob = store.agent("bob")
        bob.save("user", "Nice is by the sea", session="s")
        bob.flush()
        mentions = {concept.name: concept.mentions for concept in bob.concepts()}
        assert (mentions["Carol"], mentions["Nice"]) == (1, 1), "a memory; the other message"


@pytest.mark.parametrize("kind", DAMAGES)
def test_nothing_damaged_is_put_into_the_graph(folder: Path, kind: str) -> None:
    begin(folder)
    query(folder, DAMAGES[kind])
    with elytron.open(folder, **SMALL) as store, pytest.raises(Corrupt, match="is damaged"):
        store.agent("bob").cypher("MATCH (m:Message) RETURN m.content")
