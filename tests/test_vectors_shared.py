"""Equal texts share one vector, and none is lost or left behind whoever goes meanwhile."""

import pytest

from elytron.embed import policy
from elytron.ledger import embedded, vector_reads
from elytron.ledger.schema import NO_VECTOR_GIVEN
from elytron.upkeep import embedding
from embedders import DIM, Hashing, by_hand, check_vectors, covered, query, steps
from ledgers import query as closed_query
from ledgers import row_of, write
from moved import ALL

SAME = "This is what all of them say."


@pytest.fixture
def embedder():
    return Hashing()


@pytest.fixture
def bob(open_store, embedder):
    # Else words alone answer after two seconds.
    return by_hand(open_store(embedder=embedder, embed_query_timeout_s=60).agent("bob"))


def save_same(bob, *ids):
    for one in ids:
        bob.save("user", SAME, id=one)


def owner(bob):
    """The id of the message or memory that has the only vector."""
    sql = "SELECT id FROM (SELECT key, id FROM messages UNION SELECT key, id FROM memories)"
    return query(bob, f"{sql} JOIN vectors USING (key)")[0][0]


def begun(bob):
    """A step up to the answer of the embedder: what is needed to end it."""
    with bob._agents.use("bob", create=False) as agent:
        found = agent.embedding.begin()
        return agent.embedding, found, agent.embedding.ask(found)


def test_equal_texts_are_embedded_once(bob, embedder):
    save_same(bob, "a", "b")
    bob.remember(SAME, id="memory")
    steps(bob)
    save_same(bob, "c")
    steps(bob)
    assert embedder.documents == [SAME]
    assert set(covered(bob)) == {"a", "b", "c", "memory"}
    check_vectors(bob, dim=DIM)
    assert bob.usage().embeddings.reasons == {policy.EMBEDDED: 1, policy.SHARED: 2}


@pytest.mark.parametrize("leave", ["delete", "edit", "archive", "forget"])
def test_when_its_owner_goes_another_inherits_the_vector(bob, embedder, leave):
    bob.save("user", SAME, id="a", user="alice")
    save_same(bob, "b")
    bob.pin("b")
    bob.remember(SAME, id="memory")
    steps(bob)
    assert owner(bob) == "a"
    match leave:
        case "delete":
            bob.delete("a")
        case "edit":
            bob.edit("a", "Something else that is said.")
        case "archive":
            bob.archive(**ALL)
        case "forget":
            bob.forget(user="alice")
    check_vectors(bob, dim=DIM)
    assert set(covered(bob)) == {"b", "memory"}
    assert embedder.documents == [SAME]
    bob.delete_memory("memory")
    assert owner(bob) == "b"
    bob.delete("b")
    assert query(bob, "SELECT * FROM vectors UNION ALL SELECT *, 0, 0, 0, 0, 0 FROM shared") == []
    check_vectors(bob)


def test_all_can_go_in_one_commit(bob):
    save_same(bob, *map(str, range(30)))
    steps(bob)
    bob.clear()
    assert query(bob, "SELECT key FROM vectors UNION ALL SELECT key FROM shared") == []
    check_vectors(bob)


def test_a_text_is_not_lost_when_the_vector_it_was_to_share_goes_meanwhile(bob):
    save_same(bob, "a")
    steps(bob)
    save_same(bob, "b")
    step = begun(bob)
    bob.delete("a")
    assert not step[0].finish(*step[1:]).applied
    steps(bob)
    assert set(covered(bob)) == {"b"}
    check_vectors(bob, dim=DIM)


@pytest.mark.parametrize("change", ["edit", "delete"])
def test_an_equal_text_of_the_same_step_is_not_lost_when_the_first_goes_meanwhile(bob, change):
    save_same(bob, "a", "b")
    step = begun(bob)
    bob.edit("a", "It says something else now.") if change == "edit" else bob.delete("a")
    assert step[0].finish(*step[1:]).applied
    assert set(covered(bob)) == {"b"}
    check_vectors(bob, dim=DIM)
    steps(bob)
    assert set(covered(bob)) == ({"a", "b"} if change == "edit" else {"b"})
    check_vectors(bob, dim=DIM)


def test_what_was_edited_while_it_was_embedded_gets_the_vector_of_its_new_text(bob):
    bob.save("user", "It said this at first.", id="a")
    step = begun(bob)
    bob.edit("a", "And then it said something else.")
    step[0].finish(*step[1:])
    assert covered(bob) == {}
    steps(bob)
    assert covered(bob) == {"a": "And then it said something else."}
    check_vectors(bob, dim=DIM)


def test_two_who_embed_the_same_at_once_double_and_lose_nothing(bob):
    save_same(bob, "a", "b")
    bob.save("user", "And another text of mine.", id="c")
    with bob._agents.use("bob", create=False) as agent:
        first, second = agent.embedding.begin(), agent.embedding.begin()
        rows = agent.embedding.ask(first)
        by_backfill = first._replace(page=None)
        assert agent.embedding.finish(first, rows) == embedded.Added(True, 2, 1)
        assert agent.embedding.finish(by_backfill, rows) == embedded.Added(True, 0, 0, 3)
        assert not agent.embedding.finish(second, rows).applied, "the reader has moved"
    check_vectors(bob, dim=DIM)
    assert set(covered(bob)) == {"a", "b", "c"}
    with bob._agents.use("bob", create=False) as agent:  # once more, as one who found it held
        again = by_backfill._replace(held=frozenset(by_backfill.texts), texts={})
        assert agent.embedding.finish(again, {}).held == 3
    check_vectors(bob, dim=DIM)
    assert set(covered(bob)) == {"a", "b", "c"}


def test_all_who_share_a_vector_lose_it_for_want_of_room(bob):
    """However many they are: in steps, those who share it first."""
    save_same(bob, *map(str, range(20)))
    bob.save("user", "This one stays as it is.", id="stays")
    steps(bob)
    key, _ = row_of(bob, "messages", "0")
    assert query(bob, "SELECT key FROM vectors WHERE key = ?", (key,))
    count = 1
    while write(bob, embedded.EvictVectors((key,))):
        check_vectors(bob, dim=DIM)
        count += 1
    assert count == 20
    check_vectors(bob, dim=DIM)
    assert set(covered(bob)) == {"stays"}
    reasons = {policy.NO_ROOM: 20, policy.EMBEDDED: 1}
    assert bob.usage().embeddings.reasons == reasons


def test_of_what_went_before_its_vector_could_go_nothing_is_noted(bob):
    save_same(bob, "a")
    steps(bob)
    key, _ = row_of(bob, "messages", "a")
    bob.delete("a")
    write(bob, embedded.EvictVectors((key,)))
    assert query(bob, "SELECT * FROM unembedded") == []


@pytest.mark.parametrize("leave", ["delete", "archive", "edit"])
def test_a_reason_goes_with_its_message_even_where_there_never_was_a_vector(open_store, leave):
    bob = by_hand(open_store(embedder=Hashing(refused="nobody")).agent("bob"))
    bob.save("user", "A text that nobody takes.", id="a")
    steps(bob)
    assert query(bob, "SELECT reason FROM unembedded") == [(NO_VECTOR_GIVEN,)]
    assert bob.usage().embeddings.reasons == {policy.REFUSED: 1}
    match leave:
        case "delete":
            bob.delete("a")
        case "archive":
            bob.archive(**ALL)
        case "edit":
            bob.edit("a", "Short.")
            assert bob.usage().embeddings.reasons == {policy.TOO_SHORT: 1}
    assert query(bob, "SELECT * FROM unembedded") == []


def test_who_inherits_a_whole_vector_has_it_reduced_with_the_others(open_store, monkeypatch):
    monkeypatch.setattr(embedding, "FIT_MIN", 8)
    bob = by_hand(open_store(embedder=Hashing(64), vector_dims=4).agent("bob"))
    save_same(bob, "a", "b")
    for number in range(10):
        bob.save("user", f"This is a message number {number}.")
    with bob._agents.use("bob", create=False) as agent:
        while isinstance(found := agent.embedding.begin(), embedding.Begun):
            agent.embedding.finish(found, agent.embedding.ask(found))
        assert found, "fitted by now"
    assert {row[0] for row in query(bob, "SELECT projection FROM vectors")} == {0}
    bob.delete("a")
    check_vectors(bob, dim=64)
    steps(bob)
    assert 0 not in {row[0] for row in query(bob, "SELECT projection FROM vectors")}
    assert "b" in covered(bob)
    check_vectors(bob)


def test_a_damaged_vector_is_not_handed_on_as_if_it_were_whole(open_store, folder):
    store = open_store(embedder=Hashing())
    bob = by_hand(store.agent("bob"))
    save_same(bob, "a", "b")
    steps(bob)
    store.close()
    closed_query(folder, "UPDATE vectors SET scale = 5.0")
    bob = by_hand(open_store(embedder=Hashing()).agent("bob"))
    bob.delete("a")
    assert covered(bob) == {}
    assert bob.check(repair=True).ok
    bob.embed()
    assert set(covered(bob)) == {"b"}
    check_vectors(bob, dim=DIM)


def test_equal_texts_are_told_apart_from_those_that_nearly_are(bob):
    texts = ["This is just a text.", "This is just a text. ", "this is just a text."]
    assert len({vector_reads.digest(text) for text in texts}) == 3
    for text in texts:
        bob.save("user", text)
    steps(bob)
    check_vectors(bob, dim=DIM)
    assert bob.usage().embeddings.reasons == {policy.EMBEDDED: 3}


def test_the_function_is_told_which_texts_are_documents(bob, embedder):
    bob.save("user", "This is just a text.")
    steps(bob)
    bob.recall("what is just a text?")
    assert embedder.asked == [["This is just a text."], ["what is just a text?"]]
