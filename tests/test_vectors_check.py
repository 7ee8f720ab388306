"""Checking: wrong vectors are found, dropped, and made anew by `embed`; nothing else is."""

import pytest

import elytron
from elytron.embed import policy
from elytron.errors import Corrupt
from elytron.upkeep import embedding
from embedders import DIM, Hashing, by_hand, check_vectors, covered, query, steps
from ledgers import held
from ledgers import query as closed_query

SAME = "This is what all of them say."
PATIENT = {"embed_query_timeout_s": 60}  # else words alone answer after two seconds


def begin(folder, **settings):
    """A closed store: eight vectors, one of them shared by two others, and a reason."""
    with elytron.open(folder, embedder=Hashing(refused="nobody"), **settings) as store:
        bob = by_hand(store.agent("bob"))
        for number in range(7):
            bob.save("user", f"This is a message number {number}.", id=str(number))
        bob.save("user", SAME, id="a")
        bob.save("user", SAME, id="b")
        bob.remember(SAME, id="c")
        bob.save("user", "A text that nobody takes.", id="refused")
        steps(bob)
        assert len(covered(bob)) == 10
        assert bob.check().findings == ()


SHARED = "digest IN (SELECT digest FROM shared)"
FIRST = "SELECT digest FROM vectors WHERE number = 1"
DAMAGES = {
    "a scale": "UPDATE vectors SET scale = 9.0 WHERE number = 3",
    "data": "UPDATE vectors SET data = zeroblob(16) WHERE number = 3",
    "data of another size": "UPDATE vectors SET data = x'00' WHERE number = 3",
    "data that are a text": "UPDATE vectors SET data = 'abc' WHERE number = 3",
    "a digest": "UPDATE vectors SET digest = 1 WHERE number = 3",
    "a projection": "UPDATE vectors SET projection = 7 WHERE number = 3",
    "a vector of another": "UPDATE vectors SET key = 5000 WHERE number = 3",
    "a shared vector": f"UPDATE vectors SET checksum = 1 WHERE {SHARED}",
    "a shared vector that is gone": f"DELETE FROM vectors WHERE {SHARED}",
    "a vector that is gone": "DELETE FROM vectors WHERE number = 3",
    "a share of nothing": "INSERT INTO shared SELECT 5000, digest FROM vectors LIMIT 1",
    "a share in nothing": "UPDATE shared SET digest = digest + 1",
    "a share in another": f"UPDATE shared SET digest = ({FIRST})",
    "a share beside a vector": "INSERT INTO shared SELECT key, digest FROM vectors LIMIT 1",
    "a reason of nothing": "INSERT INTO unembedded VALUES(5000, 1)",
    "a reason that there is none of": "UPDATE unembedded SET reason = 9",
    "a reason beside a vector": "INSERT INTO unembedded SELECT key, 1 FROM vectors LIMIT 1",
    "bytes": "UPDATE embedder SET bytes = bytes + 1",
    "bytes that are a text": "UPDATE embedder SET bytes = 'many'",
    "the last number": "UPDATE embedder SET last = 2",
    "how many went": "UPDATE embedder SET removed = removed + 3",
    "no embedder": "DELETE FROM embedder",
    "an unknown projection": "UPDATE embedder SET projection = 7",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_wrong_is_dropped_and_can_be_made_anew(folder, kind):
    begin(folder)
    closed_query(folder, DAMAGES[kind])
    with elytron.open(folder) as store:  # no embedder is needed for it
        bob = store.agent("bob")
        before = held(bob)
        report = bob.check()
        assert not report.ok
        assert {(one.part, one.repairable, one.repaired) for one in report.findings} == {
            ("vectors", True, False)
        }
        report = bob.check(repair=True)
        assert report.ok
        assert all(one.repaired for one in report.findings)
        assert bob.check().findings == ()
        check_vectors(bob, dim=DIM)
        assert held(bob) == before
    with elytron.open(folder, embedder=Hashing()) as store:
        bob = by_hand(store.agent("bob"))
        made = bob.embed()
        check_vectors(bob, dim=DIM)
        assert set(covered(bob)) == {*map(str, range(7)), "a", "b", "c", "refused"}
        assert made.left_out == {}
        assert bob.check().findings == ()


def test_only_what_is_wrong_is_made_anew(folder):
    begin(folder)
    closed_query(folder, "UPDATE vectors SET scale = 9.0 WHERE number IN (2, 4)")
    embedder = Hashing()
    with elytron.open(folder, embedder=embedder) as store:
        bob = by_hand(store.agent("bob"))
        assert bob.check(repair=True).findings[0].what.startswith("2 vectors are damaged")
        bob.embed()
        assert len(embedder.documents) == 3, "two, and one that was refused before"


@pytest.mark.parametrize(
    "damage",
    ["UPDATE projections SET data = zeroblob(length(data))", "DELETE FROM projections"],
)
def test_a_damaged_projection_is_told_and_all_is_made_anew(folder, monkeypatch, damage):
    monkeypatch.setattr(embedding, "FIT_MIN", 6)
    begin(folder, vector_dims=4)
    closed_query(folder, damage)
    with elytron.open(folder, embedder=Hashing(), vector_dims=4, **PATIENT) as store:
        bob = by_hand(store.agent("bob"))
        with pytest.raises(Corrupt, match="elytron reembed"):
            bob.recall("number three")
        (finding,) = bob.check(repair=True).findings
        assert "none can be used" in finding.what
        assert covered(bob) == {}
        assert bob.recall("number three"), "by words"
    with elytron.open(folder, embedder=Hashing(), vector_dims=4) as store:
        bob = by_hand(store.agent("bob"))
        bob.embed()
        assert len(covered(bob)) == 11
        assert bob.recall("number three")
        assert bob.check().findings == ()
        assert query(bob, "SELECT DISTINCT projection > 0 FROM vectors") == [(1,)]


def test_reembedding_puts_a_damaged_projection_right(folder, monkeypatch):
    monkeypatch.setattr(embedding, "FIT_MIN", 6)
    begin(folder, vector_dims=4)
    closed_query(folder, "UPDATE projections SET checksum = 0")
    with elytron.open(folder, embedder=Hashing(refused="nobody"), vector_dims=4) as store:
        bob = by_hand(store.agent("bob"))
        assert bob.reembed().left_out == {policy.REFUSED: 1}
        assert bob.recall("number three")
        assert bob.check().findings == ()
