"""What reviews of vectors and recall found, each with the test that would have found it."""

import gc
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

import elytron
from elytron import Config, InvalidArgument, InvalidSetting
from elytron.embed.calls import Calls
from elytron.embed.connections import Answer
from elytron.embed.http import refused
from elytron.errors import EmbedderUnavailable
from elytron.ledger.embedded import ROW_BYTES
from embedders import Hashing, by_hand, step

MB = 1 << 20
PATIENT = {"embed_query_timeout_s": 60}  # else words alone answer after two seconds


def sentences(count, *, of="number"):
    return [f"A message with a text of its own, {of} {n}." for n in range(count)]


def with_vectors(agent, table="vectors"):
    with agent._agents.use(agent.name, create=False) as opened, opened.ledger.reading() as db:
        sql = f"SELECT m.id FROM {table} v JOIN messages m ON m.key = v.key"
        return {name for (name,) in db.execute(sql)}


# -- whose vectors go


def test_new_vectors_of_little_worth_do_not_push_out_those_of_pinned_messages(open_store):
    embedder = Hashing(300)
    room = 40 * (ROW_BYTES + embedder.dim)
    bob = open_store(embedder=embedder, max_vector_mb=room / MB, vector_dims=0).agent("bob")
    for n, text in enumerate(sentences(30, of="dear")):
        bob.save("user", text, id=f"dear {n}", pinned=True, importance=1)
    bob.flush()
    for n, text in enumerate(sentences(60, of="cheap")):
        bob.save("user", text, id=f"cheap {n}", importance=0)
    bob.flush()
    held = with_vectors(bob)
    assert {name for name in held if name.startswith("dear")} == {f"dear {n}" for n in range(30)}
    usage = bob.usage().embeddings
    assert usage.bytes <= room
    assert usage.reasons["embedded"] + usage.reasons["max_vector_mb"] == 90


def test_retention_rules_say_whose_vectors_stay(open_store):
    embedder = Hashing(600)
    room = 20 * (ROW_BYTES + embedder.dim)
    bob = open_store(
        embedder=embedder,
        max_vector_mb=room / MB,
        vector_dims=0,
        retention_rules=[{"session": "keep*", "pinned": True}],
    ).agent("bob")
    for n, text in enumerate(sentences(15, of="kept")):
        bob.save("user", text, id=f"kept {n}", session="keep these")
    bob.flush()
    for n, text in enumerate(sentences(40, of="other")):
        bob.save("user", text, id=f"other {n}")
    bob.flush()
    assert {f"kept {n}" for n in range(15)} <= with_vectors(bob)


# -- what is returned


def test_equal_texts_of_two_speakers_are_two_hits(open_store):
    bob = open_store().agent("bob")
    bob.save("user", "I love sushi", user="alice")
    bob.save("user", "I love sushi", user="marc")
    bob.save("user", "I love sushi", user="marc", session="again")
    bob.remember("I love sushi")
    hits = bob.recall("who loves sushi?")
    assert sorted((hit.message.user or "", hit.kind) for hit in hits) == [
        ("", "fact"),
        ("alice", "message"),
        ("marc", "message"),
    ]


def test_similarity_is_the_cosine_and_none_without_a_vector(open_store):
    bob = open_store(embedder=Hashing(), min_embed_chars=10, **PATIENT).agent("bob")
    bob.save("user", "A text about a ship.", id="long")
    bob.save("user", "ship", id="short")
    bob.flush()
    found = {hit.message.id: hit.similarity for hit in bob.recall("A text about a ship.")}
    assert found["long"] == pytest.approx(1, abs=0.02)
    assert found["short"] is None


@pytest.mark.parametrize("members", [{"user": "nobody"}, {"session": "none such"}])
def test_a_filter_that_names_nobody_finds_nothing(open_store, members):
    bob = open_store(embedder=Hashing()).agent("bob")
    for text in sentences(20):
        bob.save("user", text, user="alice")
    bob.flush()
    assert bob.recall("a message with a text", **members) == []


@pytest.mark.parametrize("kind", ["message", "memory"])
def test_a_kind_of_memories_cannot_be_one_of_the_words_of_kinds(open_store, kind):
    bob = open_store().agent("bob")
    with pytest.raises(InvalidArgument, match="kind"):
        bob.remember("A fact.", kind=kind)
    assert not bob.exists()


@pytest.mark.parametrize("kinds", ["fact", [], [1], [["x"]], ["x"] * 101, 3])
def test_kinds_that_are_none_are_refused(open_store, kinds):
    bob = open_store().agent("bob")
    with pytest.raises(InvalidArgument):
        bob.recall("anything", kinds=kinds)


# -- embedders as they are given


class Model:
    def __call__(self, texts, kind):
        return [[1.0, 2.0] for _ in texts]


async def later(texts, kind):
    return []


class Later:
    async def __call__(self, texts, kind):
        return []


@pytest.mark.parametrize("wrong", [Model, later, Later(), 5])
def test_what_cannot_be_called_for_vectors_is_refused_at_open(folder, wrong):
    with pytest.raises(InvalidArgument, match="function of"):
        elytron.open(folder, embedder=wrong)
    assert not folder.exists()


def test_an_embedder_beside_a_config_turns_embeddings_on(folder):
    for embedder in (Model(), "wordllama"):
        with elytron.open(folder, Config(queue_max=50), embedder=embedder) as store:
            assert store.config.enable_embeddings
            assert store.config.queue_max == 50
    with elytron.open(folder, Config(), embedder=Model(), enable_embeddings=False) as store:
        assert not store.config.enable_embeddings
    with elytron.open(folder, Config(embedder="wordllama")) as store:
        assert not store.config.enable_embeddings


def test_what_is_blank_as_far_as_it_is_read_is_short_and_not_queued(open_store):
    bob = open_store(embedder=Hashing(), max_message_kb=64).agent("bob")
    blank = " " * 9000 + "the end"
    assert bob.save("user", blank).embedding == "short"
    assert bob.save("user", blank + ".", embed=True).embedding == "short"
    bob.flush()
    assert bob.usage().embeddings.reasons == {"short": 2}


# -- threads and memory


def test_questions_wait_for_a_thread_rather_than_fail():
    """Eight at once of an embedder that two threads ask, each of which waits for the other."""

    class Together:
        name, dim = "together", 16
        both = threading.Barrier(2)

        def embed(self, texts, kind):
            self.both.wait(60)
            return Hashing()(texts, kind)

        def close(self):
            self.both.abort()

    calls = Calls(Together(), threads_max=2)
    try:
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(calls.question, f"question {n}", timeout_s=60) for n in range(8)]
            assert all(len(one.result(60)) for one in asked)
        assert calls.counts.failures == 0
    finally:
        calls.close()


def test_a_forgotten_store_leaves_no_thread_of_its_embedder(folder):
    store = elytron.open(folder, embedder=Hashing())
    bob = store.agent("bob")
    bob.save("user", sentences(1)[0])
    bob.flush()
    agents = bob._agents
    threads = list(agents.embeddings.calls._threads)
    assert threads
    threads += [agents.background._thread, agents.embeddings.background._thread]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del store, bob, agents
        gc.collect()
        for thread in threads:  # one of them may have been at work on it
            thread.join(60)
            assert not thread.is_alive()


def test_vectors_in_memory_are_given_back_where_all_take_too_much(open_store, monkeypatch):
    store = open_store(embedder=Hashing(), **PATIENT)
    agents = [store.agent(f"agent {n}") for n in range(3)]
    for agent in agents:
        for text in sentences(5):
            agent.save("user", text)
        agent.flush()
        agent.recall("a text")
    opened = store._agents
    monkeypatch.setattr(type(store.config), "max_ram_bytes", property(lambda _: 1))
    agents[2].recall("a text")
    held = {name: entry.nearest.bytes for name, entry in opened._entries.items()}
    assert held["agent 0"] == held["agent 1"] == 0
    assert held["agent 2"], "what is being asked stays"


# -- whom nothing is sent to, and who is too busy


def test_what_was_to_have_no_vector_gets_none_though_embeddings_were_off_then(folder):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        assert bob.save("user", "The safe opens with 4711.", id="secret", embed=False)
        bob.save("user", "The weather is as it was.", id="plain")
    embedder = Hashing()
    with elytron.open(folder, embedder=embedder) as store:
        bob = store.agent("bob")
        assert bob.embed().left_out == {"declined": 1}
        assert bob.usage().embeddings.reasons == {"declined": 1, "embedded": 1}
        assert with_vectors(bob) == {"plain"}
    assert not any("4711" in text for text in embedder.documents)


@pytest.mark.parametrize("status", [429, 503])
def test_a_rate_limit_that_names_no_time_refuses_no_text(open_store, status):
    """The short text by which it is seen whether an embedder is well passes such a limit."""

    def limits(texts, _kind):
        if any("text of its own" in text for text in texts):
            raise refused(Answer(status, {}, None), source="it", hints={}, now_s=0.0)

    embedder = Hashing(fail=limits)
    bob = by_hand(open_store(embedder=embedder).agent("bob"))
    for text in sentences(5):
        bob.save("user", text)
    with pytest.raises(EmbedderUnavailable, match=f"HTTP {status}; retry in 5 s"):
        step(bob)
    assert len(embedder.asked) == 1, "it is left alone at once"
    assert bob.usage().embeddings.reasons == {"queued": 5}
    embedder.fail = None
    bob.flush()
    assert bob.usage().embeddings.reasons == {"embedded": 5}


# -- who is refused, until another program has done what was advised


def test_who_was_refused_goes_on_once_another_program_made_the_vectors_anew(folder, open_store):
    with elytron.open(folder, embedder=Hashing()) as store:
        bob = store.agent("bob")
        bob.save("user", sentences(1)[0])
        bob.flush()
    bob = by_hand(open_store(embedder=Hashing(name="other")).agent("bob"))
    for _ in range(2):
        with pytest.raises(InvalidSetting, match="elytron reembed"):
            bob.recall("a text")
    with elytron.open(folder, embedder=Hashing(name="other")) as store:
        store.agent("bob").reembed()
    assert bob.recall("a text")
    assert bob.save("user", sentences(2)[1]).embedding == "queued"
    bob.flush()
    assert len(with_vectors(bob)) == 2
