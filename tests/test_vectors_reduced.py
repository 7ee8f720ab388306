"""Vectors are reduced once an agent has enough of them, and mean the same before and after."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import elytron
from elytron import recall
from elytron.ledger import reads, vector_reads, vectors
from elytron.ledger.embedded import DropVectors
from elytron.recall.nearest import Nearest
from elytron.upkeep import embedding
from embedders import Hashing, by_hand, check_vectors, covered, query, step, steps, unit_row
from ledgers import query as closed_query
from quiet import alone

DIM, DIMS = 64, 16
COUNT = 60


class Meaning(Hashing):
    """Vectors that lie in a few directions, so that fewer dimensions can hold them."""

    def __call__(self, texts, kind):
        self.asked.append(list(texts))
        return np.stack([meaning(text) for text in texts])


def meaning(text):
    turned = np.random.default_rng(4).normal(size=(12, DIM)).astype(np.float32)
    row = unit_row(text, 12) @ turned
    return row / np.float32(np.linalg.norm(row))


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch):
    monkeypatch.setattr(embedding, "FIT_MIN", 40)


@pytest.fixture
def bob(open_store):
    return by_hand(open_store(embedder=Meaning(), vector_dims=DIMS).agent("bob"))


def text(number):
    return f"This is a message number {number}."


def save_all(bob, count=COUNT):
    bob.save_many({"role": "user", "content": text(n), "id": str(n)} for n in range(count))


def sizes(bob):
    return dict(query(bob, "SELECT length(data), count(*) FROM vectors GROUP BY 1"))


def near(bob, question, *, count=10):
    """(cosine, id) of the nearest, by way of the matrix and of the rows."""
    with bob._agents.use("bob", create=False) as agent:
        nearest = Nearest(config=bob._agents.config, source="bob")
        with agent.ledger.reading(snapshot=True) as db:
            keys = nearest.keys(db, vectors.state(db), question, count=count)
            scores = nearest.scores(db, question, keys)
            ids = dict(db.execute("SELECT key, id FROM messages"))
    return sorted(((score, ids[key]) for key, score in scores.items()), reverse=True)[:count]


def true_near(question, *, count=10, of=COUNT):
    scores = sorted(((float(meaning(text(n)) @ question), str(n)) for n in range(of)), reverse=True)
    return scores[:count]


def check_near(bob, *, of=COUNT):
    for number in range(5):
        question = meaning(f"A question of the number {number}")
        found, true = near(bob, question), true_near(question, of=of)
        shared = {one for _, one in found} & {one for _, one in true}
        assert len(shared) >= 8
        for (score, _), (expected, _) in zip(found, true, strict=True):
            assert abs(score - expected) < 0.05


def test_before_while_and_after_they_are_reduced_the_nearest_are_the_same(open_store):
    """With a small WAL the conversion takes many steps, in which both kinds are held."""
    bob = by_hand(
        open_store(embedder=Meaning(), vector_dims=DIMS, wal_limit_mb=0.25, max_message_kb=8).agent(
            "bob"
        )
    )
    save_all(bob)
    while query(bob, "SELECT count(*) FROM vectors") != [(COUNT,)]:
        assert step(bob)
    assert sizes(bob) == {DIM: COUNT}
    check_near(bob)
    assert step(bob)
    assert query(bob, "SELECT dims, input, fitted_on FROM projections") == [(12, DIM, COUNT)] or (
        query(bob, "SELECT dims, input FROM projections") == [(DIMS, DIM)]
    )
    mixed = 0
    while step(bob):
        mixed += len(sizes(bob)) == 2
        check_vectors(bob)
        check_near(bob)
    assert mixed > 3
    assert set(sizes(bob)) != {DIM}
    assert len(sizes(bob)) == 1
    check_near(bob)
    bob.save("user", text(COUNT), id=str(COUNT))
    steps(bob)
    assert len(sizes(bob)) == 1, "what is saved now is reduced at once"
    check_near(bob, of=COUNT + 1)
    assert bob.usage().embeddings.reduced_to == query(bob, "SELECT dims FROM projections")[0][0]
    check_vectors(bob)


def test_what_is_stopped_half_way_goes_on_after_opening(folder, open_store):
    settings = {"embedder": Meaning(), "vector_dims": DIMS, "wal_limit_mb": 0.25}
    with elytron.open(folder, max_message_kb=8, **settings) as store:
        bob = by_hand(store.agent("bob"))
        save_all(bob)
        while len(sizes(bob)) < 2:
            assert step(bob)
    bob = by_hand(open_store(max_message_kb=8, **settings).agent("bob"))
    check_near(bob)
    steps(bob)
    assert len(sizes(bob)) == 1
    check_near(bob)


def test_vectors_that_are_small_already_are_left_as_they_are(open_store):
    bob = by_hand(open_store(embedder=Meaning(), vector_dims=DIM).agent("bob"))
    save_all(bob)
    steps(bob)
    assert sizes(bob) == {DIM: COUNT}
    assert query(bob, "SELECT * FROM projections") == []


def test_with_no_dimensions_named_all_are_kept(open_store):
    bob = by_hand(open_store(embedder=Meaning(), vector_dims=0).agent("bob"))
    save_all(bob)
    steps(bob)
    assert sizes(bob) == {DIM: COUNT}


def test_made_anew_by_the_same_program_they_are_reduced_by_a_new_projection(bob):
    save_all(bob)
    steps(bob)
    (before,) = query(bob, "SELECT version FROM projections")
    bob.delete("0")
    bob.reembed()
    (after,) = query(bob, "SELECT version FROM projections")
    assert after > before
    assert {row[0] for row in query(bob, "SELECT projection FROM vectors")} == {after[0]}
    check_vectors(bob)
    bob.save("user", text(0), id="0")
    steps(bob)
    check_near(bob)


def test_another_program_follows_when_all_is_made_anew(folder, bob):
    """What it holds in memory, vectors and projection, is of a past that it takes for none else."""
    save_all(bob)
    steps(bob)
    with elytron.open(folder, embedder=Meaning(), vector_dims=DIMS) as store:
        other = by_hand(store.agent("bob"))
        other.save("user", text(COUNT), id=str(COUNT))
        steps(other)
        check_near(other, of=COUNT + 1)
        with bob._agents.use("bob", create=False) as agent:
            last = query(bob, "SELECT last FROM embedder")
            agent.nearest.forget()
        bob.reembed()
        assert query(bob, "SELECT last FROM embedder") > last, "no number is used twice"
        other.save("user", text(COUNT + 1), id=str(COUNT + 1))
        steps(other)
        check_near(other, of=COUNT + 2)
        check_vectors(other)
    check_near(bob, of=COUNT + 2)
    assert len(covered(bob)) == COUNT + 2


def test_what_was_reduced_before_all_vectors_were_dropped_is_not_written(bob):
    """As where another program makes all anew while this one's embedder is at work."""
    save_all(bob)
    steps(bob)
    bob.save("user", text(COUNT), id=str(COUNT))
    with bob._agents.use("bob", create=False) as agent:
        begun = agent.embedding.begin()
        rows = agent.embedding.ask(begun)
        more = True
        while more:
            _, more = agent.writer.call(DropVectors(1000))
        assert not agent.embedding.finish(begun, rows).applied
    assert query(bob, "SELECT * FROM embedder") == []
    bob.embed()
    check_vectors(bob)
    assert len(covered(bob)) == COUNT + 1
    assert "3" in {hit.message.id for hit in bob.recall(text(3))}


def test_a_question_of_a_model_that_is_gone_is_answered_by_words(bob):
    """All vectors were made anew, of another dimension, since it was embedded."""
    save_all(bob)
    steps(bob)
    asked = bob._question(text(3), 5, reads.Filter(), kinds=None, at=None)
    with bob._agents.use("bob", create=False) as agent:
        hits = recall.answer(
            agent.ledger,
            replace(asked, vector=meaning(text(3))[:-1]),
            config=bob._config,
            analyzer=bob._analyzer,
            nearest=agent.nearest,
        )
    assert "3" in {hit.message.id for hit in hits}
    assert {hit.similarity for hit in hits} == {None}


def test_a_damaged_vector_keeps_no_other_from_being_reduced(folder):
    settings = {"embedder": Meaning(), "vector_dims": DIMS, "wal_limit_mb": 0.25}
    with elytron.open(folder, max_message_kb=8, **settings) as store:
        bob = by_hand(store.agent("bob"))
        save_all(bob)
        while len(sizes(bob)) < 2:
            assert step(bob)
    numbers = closed_query(folder, "SELECT number FROM vectors WHERE projection = 0 LIMIT 6")
    for nth, damage in enumerate(("data = x'00'", "scale = 5.0", "data = 'abc'")):
        closed_query(folder, f"UPDATE vectors SET {damage} WHERE number = ?", numbers[nth])
    with elytron.open(folder, max_message_kb=8, **settings) as store:
        bob = by_hand(store.agent("bob"))
        steps(bob)
        assert query(bob, "SELECT count(*) FROM vectors WHERE projection = 0") == [(3,)]
        assert bob.check(repair=True).findings[0].what.startswith("3 vectors")
        assert bob.embed().embedded == 3
        check_vectors(bob)
        check_near(bob)


def test_the_vectors_of_messages_that_go_while_they_are_reduced_go_too(bob):
    save_all(bob)
    with bob._agents.use("bob", create=False) as agent:
        plain = agent.embedding._write

        def write(op, until_s):
            if type(op).__name__ == "ReduceVectors":
                bob.delete("7")
                bob.edit("8", "An edited message, as it is now.")
            return plain(op, until_s)

        agent.embedding._write = write
        try:
            steps(bob)
        finally:
            agent.embedding._write = plain
    check_vectors(bob)
    steps(bob)
    check_vectors(bob)
    assert len(covered(bob)) == COUNT - 1
    assert len(sizes(bob)) == 1


def test_memory_in_use_counts_what_vectors_take_and_puts_agents_to_rest(open_store):
    store = open_store(
        embedder=Meaning(), vector_dims=0, max_ram_mb=20, page_cache_mb=0.1,
        embed_query_timeout_s=60,
    )  # fmt: skip
    # It would use agents, and who was used last stays.
    alone(store)
    for name in ("bob", "carol"):
        agent = by_hand(store.agent(name))
        save_all(agent)
        steps(agent)
    bob = store.agent("bob")
    assert bob.usage().embeddings.memory_bytes == 0
    assert bob.recall("what has the number 3?")
    assert bob.usage().embeddings.memory_bytes >= COUNT * DIM
    agents = store._agents
    assert agents.vector_bytes == bob.usage().embeddings.memory_bytes
    assert agents.open_count == 2
    with bob._agents.use("bob", create=False) as agent:
        agent.nearest._matrix = SimpleNamespace(bytes=20 << 20)  # as if there were many more
    assert agents.vector_bytes >= 20 << 20
    store.agent("dave").save("user", text(1))
    store.agent("erin").save("user", text(1))
    assert agents.vector_bytes < 1 << 20
    assert bob.recall("what has the number 3?"), "it is opened and loaded again"


def test_counting_tells_how_many_there_are(bob):
    save_all(bob)
    steps(bob)
    with bob._agents.use("bob", create=False) as agent, agent.ledger.reading() as db:
        assert vector_reads.count(db) == COUNT
