"""
Recall by meaning: what is found with vectors, beside words, under filters, and without them.

The embedder of most tests knows a few meanings and counts their words, so what it finds is plain.
"""

import threading
from datetime import UTC, datetime, timedelta

import pytest

import elytron
import ledgers
from elytron.ledger import vectors
from elytron.recall import candidates

# In a file and on a server.
pytestmark = pytest.mark.ledgers

np = pytest.importorskip("numpy")

MAY = datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
MEANINGS = (
    {"dog", "puppy", "hound", "chien"},
    {"car", "automobile", "driving", "voiture"},
    {"sea", "ocean", "beach", "mer"},
    {"illness", "flu", "fever", "grippe"},
)


def vector(text):
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    counts = [sum(word in meaning for word in words) for meaning in MEANINGS]
    return [*counts, 0.3]


def unit(text):
    numbers = vector(text)
    return [number / sum(n * n for n in numbers) ** 0.5 for number in numbers]


class Embedder:
    """Knows `MEANINGS`; remembers what it was asked; fails, hangs or errs when told to."""

    def __init__(self):
        self.asked = []
        self.failing = False
        self.width = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, texts, kind):
        if kind == "query":
            self.asked += texts
            self.gate.wait(30)
            if self.failing:
                raise ConnectionError("down")
            if self.width:
                return [[1.0] * self.width for _ in texts]
        return [vector(text) for text in texts]


@pytest.fixture
def embedder():
    made = Embedder()
    yield made
    made.gate.set()


@pytest.fixture
def open_bob(open_store, embedder):
    def open_one(**settings):
        # Patient, else words alone answer where the machine stands still for two seconds.
        patient = {"min_embed_chars": 0, "embedder": embedder, "embed_query_timeout_s": 60}
        settings = patient | settings
        return open_store(**settings).agent("bob")

    return open_one


@pytest.fixture
def bob(open_bob):
    return open_bob()


TALK = (
    ("puppy", "user", "alice", "home", "Our puppy chewed a slipper."),
    ("auto", "user", "carol", "road", "That automobile needs new tyres."),
    ("ocean", "assistant", None, "trip", "The ocean was rough."),
    ("flu", "user", "alice", "later", "I caught the flu in winter."),
)


def fill(bob):
    for n, (key, role, user, session, content) in enumerate(TALK):
        bob.save(role, content, id=key, user=user, session=session, at=MAY + timedelta(days=n))
    bob.flush()
    return bob


def ids(hits):
    return [hit.message.id for hit in hits]


# -- meaning and words


def test_a_paraphrase_is_found_first_and_without_vectors_not_at_all(open_bob):
    bob = fill(open_bob())
    for question, first in (("dog?", "puppy"), ("driving", "auto"), ("Any illness?", "flu")):
        hit = bob.recall(question)[0]
        assert (hit.message.id, hit.matched) == (first, ())
        assert hit.why["vectors"] > 0 == hit.why["words"]
        assert hit.score == pytest.approx(sum(hit.why.values()))
    assert open_bob(vector_weight=0).recall("dog?") == []


def test_the_only_message_there_is_is_found_by_its_meaning(bob):
    bob.save("user", "Our puppy chewed a slipper.", id="puppy")
    bob.flush()
    assert ids(bob.recall("dog")) == ["puppy"]


def test_words_and_meaning_together_are_best(bob):
    fill(bob)
    bob.save("user", "A hound barked at the slipper.", id="both", session="else")
    bob.flush()
    assert ids(bob.recall("the dog barked"))[:2] == ["both", "puppy"]


@pytest.mark.parametrize(
    "question", ["???", "🐞", "what did he do?", " " * 9000 + "dog", "x" * 20_000]
)
def test_any_question_is_answered_by_the_nearest(bob, question):
    fill(bob)
    assert bob.recall(question)
    assert bob.usage().embeddings.failures == 0


def test_a_question_is_embedded_without_the_names_of_users(bob, embedder):
    fill(bob)
    bob.recall("What is Alice's dog, Carol?")
    bob.recall("Alice")
    assert embedder.asked == ["What is  dog, ?", "Alice"]


def test_what_has_no_vector_is_found_by_words_beside_what_has(bob):
    fill(bob)
    bob.save("user", "The zebra crossing is new.", id="zebra", session="z", embed=False)
    bob.flush()
    assert ids(bob.recall("zebra"))[0] == "zebra"
    assert ids(bob.recall("zebra or dog?"))[0] == "zebra"


def test_an_agent_of_nothing_or_without_vectors_is_answered_too(open_bob, open_store):
    assert open_bob().recall("dog") == open_bob().memories("dog") == []
    fill(open_store().agent("bob"))
    assert ids(open_bob().recall("slipper")) == ["puppy"]


# -- filters


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ({"session": "home"}, {"puppy"}),
        ({"session": "nowhere"}, set()),
        ({"user": "alice"}, {"puppy", "flu"}),
        ({"user": "nobody"}, set()),
        ({"role": "assistant"}, {"ocean"}),
        ({"since": MAY + timedelta(days=2)}, {"ocean", "flu"}),
        ({"until": MAY + timedelta(days=1)}, {"puppy"}),
        ({"kinds": ["memory"]}, set()),
    ],
)
def test_only_what_is_accepted_is_found_by_its_meaning(bob, accept, expected):
    fill(bob)
    for question in ("dog driving ocean fever", "dog", "sea"):
        found = set(ids(bob.recall(question, limit=50, **accept)))
        assert found <= expected
        assert bool(found) == bool(expected)


@pytest.mark.parametrize("accept", [{"session": "mine"}, {"user": "dana"}, {"kinds": ["fact"]}])
def test_what_a_filter_leaves_is_found_though_many_others_are_nearer(open_bob, accept):
    bob = open_bob(vector_candidates_max=1)
    bob.save_many(
        {"role": "user", "content": f"dog hound chien {n}", "session": f"s{n}", "user": "eve"}
        for n in range(30)
    )
    bob.save("user", "A puppy by the sea, by car", session="mine", user="dana", id="mine")
    bob.remember("A puppy by the sea, by car", kind="fact", id="fact")
    bob.flush()
    expected = "fact" if "kinds" in accept else "mine"
    assert ids(bob.recall("what dog", limit=1, **accept)) == [expected]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ({"user": "ben"}, {"ben 2"}),
        ({"role": "assistant"}, {"ann 1"}),
        ({"since": MAY + timedelta(days=1), "until": MAY + timedelta(days=2)}, {"ben 1", "cat 1"}),
        ({"since": MAY, "kinds": ["fact"]}, {"fact"}),
    ],
)
def test_who_shares_a_text_is_found_by_its_meaning_under_each_filter(bob, accept, expected):
    """Ann has the vector, and Cat the newest share of it: neither is all that there is."""
    for day in range(3):
        for user in ("ann", "ben", "cat"):
            role = "assistant" if (user, day) == ("ann", 1) else "user"
            name, at = f"{user} {day}", MAY + timedelta(days=day)
            bob.save(role, "A hound barked.", id=name, user=user, session=name, at=at)
    bob.remember("A hound barked.", kind="fact", id="fact")
    bob.remember("A hound barked.", kind="note", id="note")
    bob.flush()
    found = set(ids(bob.recall("dog", **accept)))
    assert found & expected
    assert found <= expected | {"ben 0", "ben 1"}


@pytest.mark.parametrize("accept", [{"user": "dana"}, {"until": MAY}, {"since": MAY}])
def test_what_a_filter_leaves_is_found_beyond_the_nearest_that_are_looked_at(
    open_bob, monkeypatch, accept
):
    monkeypatch.setattr(candidates, "_NEAR_MAX", 20)
    bob = open_bob(vector_candidates_max=2)
    others = [{"content": f"dog {n}", "session": f"s{n}", "at": MAY} for n in range(25)]
    others += [{"content": f"dog hound {n}", "session": f"t{n}", "at": MAY} for n in range(25)]
    if "since" in accept:
        others = [one | {"at": MAY - timedelta(days=1)} for one in others]
    bob.save_many(one | {"role": "user", "user": "eve"} for one in others)
    at = MAY + timedelta(days=1 if "since" in accept else -1)
    bob.save("user", "A puppy by the sea, by car", session="mine", user="dana", id="mine", at=at)
    bob.flush()
    assert ids(bob.recall("what dog", **accept)) == ["mine"]


def test_memories_that_hold_no_longer_do_not_stand_in_the_way(open_bob):
    bob = open_bob(vector_candidates_max=1)
    bob.remember("dog dog 0", id="0")
    for n in range(1, 20):
        bob.remember(f"dog dog {n}", id=str(n), replaces=str(n - 1))
    bob.close_memory("19")
    bob.save("user", "A puppy by the sea", id="now")
    bob.flush()
    assert ids(bob.recall("hound")) == ["now"]


# -- equal texts, changes, removals


def test_equal_texts_share_a_vector_and_one_is_shown(bob):
    for session in ("one", "two", "three"):
        bob.save("user", "Our puppy chewed a slipper.", id=session, session=session)
    bob.flush()
    assert bob.usage().embeddings.reasons == {"embedded": 1, "shared": 2}
    assert len(bob.recall("dog", limit=50)) == 1
    for session in ("one", "two", "three"):
        assert ids(bob.recall("dog", session=session)) == [session]


def test_equal_texts_do_not_take_the_places_of_others(bob):
    """More are looked at, until so many that differ are found as are asked for."""
    bob.save_many({"role": "user", "content": "puppy dog", "session": str(n)} for n in range(90))
    bob.save_many(
        {"role": "user", "content": f"The {n} dogs, and a puppy", "session": f"x{n}", "id": f"x{n}"}
        for n in range(5)
    )
    bob.flush()
    hits = bob.recall("puppy", limit=6)
    assert {hit.message.content for hit in hits} > {f"The {n} dogs, and a puppy" for n in range(5)}
    assert len(hits) == 6


def test_an_edited_message_is_found_by_its_new_meaning_alone(bob):
    fill(bob)
    bob.save("user", "A hound howled.", id="hound", session="far")
    bob.flush()
    bob.edit("puppy", "It is driving me along the coast.")
    assert ids(bob.recall("dog"))[0] == "hound", "at once, whether or not it has a vector again"
    bob.flush()
    assert ids(bob.recall("dog"))[0] == "hound"
    assert set(ids(bob.recall("voiture"))[:2]) == {"auto", "puppy"}


def test_what_is_deleted_is_not_found_and_who_shared_its_vector_is(bob):
    bob.save("user", "Our puppy chewed.", id="one", session="one")
    bob.save("user", "Our puppy chewed.", id="two", session="two")
    bob.save("user", "The ocean was rough.", id="ocean", session="three")
    bob.flush()
    assert ids(bob.recall("dog"))[0] in {"one", "two"}
    bob.delete("one")
    assert ids(bob.recall("dog"))[0] == "two"
    bob.delete("two")
    assert "two" not in ids(bob.recall("dog"))


def test_what_is_forgotten_is_not_found_by_its_meaning(bob):
    fill(bob)
    bob.remember("Alice has a hound.", id="fact", session="home")
    bob.flush()
    assert {"puppy", "fact"} <= set(ids(bob.recall("dog")))
    bob.forget(user="alice")
    bob.forget(session="home")
    assert set(ids(bob.recall("dog fever", limit=50))) <= {"auto", "ocean"}
    assert bob.memories("dog") == []


def test_with_the_archive_searched_meaning_still_counts(open_bob):
    bob = open_bob(emergency_messages=2)
    for n in range(4):
        bob.save("user", f"The zebra crossing, part {n}", id=f"z{n}", session=f"z{n}")
    fill(bob)
    bob.emergency_cleanup()
    assert "puppy" in {message.id for message in bob.messages()} or bob.usage().archived
    hits = bob.recall("zebra or fever", archived=True)
    assert {hit.message.id for hit in hits if hit.archived} == {"z0", "z1", "z2", "z3"}
    best = next(hit for hit in hits if hit.message.id == "flu")
    assert best.why["vectors"] > 0


# -- the vectors in memory


def test_a_question_with_an_older_snapshot_does_not_load_all_anew(open_bob):
    bob = fill(open_bob())
    with bob._agents.use("bob", create=False) as agent, agent.ledger.reading(snapshot=True) as db:
        older, question = vectors.state(db), np.float32(unit("dog"))
        assert bob.recall("dog")
        bob.save("user", "A hound howled.", id="hound")
        bob.flush()
        assert "hound" in ids(bob.recall("dog"))
        loaded = agent.nearest._matrix
        assert loaded.last > older.last
        assert agent.nearest.keys(db, older, question, count=9)
        assert agent.nearest._matrix is loaded


def test_vectors_that_another_program_made_anew_are_used(open_bob):
    bob = fill(open_bob())
    assert bob.recall("dog")
    with bob._agents.use("bob", create=False) as agent:
        agent.nearest.forget = lambda: None  # as if it were not this program
        bob.delete("flu")
        bob.reembed()
    assert ids(bob.recall("dog"))[0] == "puppy"
    assert "flu" not in ids(bob.recall("fever"))
    bob.save("user", "A hound and a dog howled.", id="hound")
    bob.flush()
    assert ids(bob.recall("dog"))[0] == "hound"


# -- an embedder in trouble


def test_while_the_embedder_fails_words_answer(bob, embedder):
    fill(bob)
    bob._agents.embeddings.calls._clock_s = lambda: 1000.0  # the rest is one of seconds
    embedder.failing = True
    assert ids(bob.recall("slipper of the dog")) == ["puppy"]
    assert bob.recall("dog") == bob.memories("dog") == []
    assert bob.recall("cat") == []
    # Once may be for the question's sake; the second time it is left alone for a while.
    assert bob.usage().embeddings.failures == 2
    assert bob.usage().embeddings.resting_s > 0


def test_a_hanging_embedder_is_not_waited_for(open_bob, embedder):
    bob = fill(open_bob(embed_query_timeout_s=0.01))
    embedder.gate.clear()
    assert ids(bob.recall("slipper of the dog")) == ["puppy"]
    assert "did not answer within 0.01 s" in bob.usage().embeddings.last_error


def test_a_question_of_another_dimension_is_answered_by_words(bob, embedder):
    fill(bob)
    embedder.width = 7
    assert ids(bob.recall("slipper of the dog")) == ["puppy"]


def test_the_first_answer_of_another_dimension_is_not_believed(open_bob, open_store, embedder):
    fill(open_bob())
    embedder.width = 7
    assert ids(open_bob().recall("slipper of the dog")) == ["puppy"]


@pytest.mark.files  # a server keeps no value of another type, and none that is infinite
@pytest.mark.parametrize("damage", ["scale = 9e999", "scale = 'x'", "data = 'x'", "data = x'00'"])
def test_a_damaged_vector_costs_an_order_and_no_answer(open_store, folder, embedder, damage):
    with elytron.open(folder, embedder=embedder, min_embed_chars=0) as store:
        fill(store.agent("bob"))
    ledgers.query(folder, f"UPDATE vectors SET {damage} WHERE number = 2")
    bob = open_store(embedder=embedder, min_embed_chars=0).agent("bob")
    assert "auto" in ids(bob.recall("tyres"))
    assert bob.recall("slipper of the dog")[0].message.id == "puppy"


# -- memories


def test_a_memory_is_found_beside_messages_by_its_meaning(bob):
    fill(bob)
    bob.remember("Alice keeps a hound called Rex.", id="rex", kind="fact", session="home")
    bob.flush()
    hits = {hit.message.id: hit for hit in bob.recall("chien")}
    assert {"rex", "puppy"} <= set(hits)
    rex = hits["rex"]
    assert rex.kind == rex.memory.kind == "fact"
    assert (rex.message.role, rex.message.content) == ("memory", rex.memory.content)
    assert (rex.message.session, rex.archived) == ("home", False)
    assert hits["puppy"].kind == "message"
    assert hits["puppy"].memory is None


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (None, {"puppy", "fact", "wish"}),
        (["message"], {"puppy"}),
        (["memory"], {"fact", "wish"}),
        (["wish"], {"wish"}),
        (["wish", "message"], {"wish", "puppy"}),
        (["memory", "message"], {"puppy", "fact", "wish"}),
        (["summary"], set()),
    ],
)
def test_only_the_kinds_asked_for_are_hits(bob, kinds, expected):
    bob.save("user", "Our puppy chewed a slipper.", id="puppy")
    bob.remember("A hound lives here.", id="fact", kind="fact")
    bob.remember("I want a chien.", id="wish", kind="wish")
    bob.flush()
    for question in ("dog", "puppy hound chien"):
        assert set(ids(bob.recall(question, kinds=kinds))) == expected


def test_memories_are_those_that_hold_when_it_is_asked(bob):
    bob.remember("The hound is Rex.", id="rex", valid_from=MAY, valid_to=MAY + timedelta(days=10))
    bob.remember("The hound is Fido.", id="fido", valid_from=MAY + timedelta(days=10))
    bob.flush()
    for days, expected in ((-1, []), (0, ["rex"]), (9, ["rex"]), (10, ["fido"]), (999, ["fido"])):
        at = MAY + timedelta(days=days)
        assert ids(bob.recall("dog", at=at)) == expected
        assert [memory.id for memory in bob.memories("dog", as_of=at)] == expected
    assert ids(bob.recall("dog hound")) == ["fido"]


def test_a_closed_memory_is_never_a_hit(bob):
    bob.remember("The hound is Rex.", id="rex")
    bob.flush()
    bob.close_memory("rex")
    assert bob.recall("dog hound") == bob.memories("dog hound") == []


def test_memories_answer_a_question_by_meaning_too(bob):
    bob.remember("A hound lives here.", id="hound", about=["Rex"])
    bob.remember("Rex is old.", id="old", kind="note", about=["Rex"])
    bob.remember("The ocean was rough.", id="ocean")
    bob.flush()
    assert bob.memories("dog")[0].id == "hound"
    assert {m.id for m in bob.memories("Rex, the dog")} >= {"hound", "old"}
    assert [m.id for m in bob.memories("dog", about="Rex", kind="note")] == ["old"]
    assert [m.id for m in bob.memories("dog", limit=1)] == ["hound"]


def test_being_found_by_its_meaning_is_counted_as_a_use(folder, embedder):
    patient = {"min_embed_chars": 0, "embed_query_timeout_s": 60}
    with elytron.open(folder, embedder=embedder, **patient) as store:
        bob = store.agent("bob")
        bob.remember("A hound lives here.", id="hound")
        bob.flush()
        for _ in range(2):
            assert bob.memories("dog")[0].id == "hound"
        assert bob.recall("dog")[0].message.id == "hound"
        bob.save("user", "so that something is written at the end")
    with elytron.open(folder) as store:
        assert store.agent("bob").get_memory("hound").uses == 3


# -- a real model


def test_a_real_model_finds_a_paraphrase(open_store):
    pytest.importorskip("wordllama")
    bob = fill(open_store(embedder="wordllama", embed_query_timeout_s=60).agent("bob"))
    bob.remember("Carol plays the violin in an orchestra.", id="violin")
    bob.flush()
    assert ids(bob.recall("Is someone sick with a virus?"))[0] == "flu"
    assert ids(bob.recall("Which vehicle has worn wheels?"))[0] == "auto"
    assert bob.memories("Who is a musician?")[0].id == "violin"
    assert bob.recall("musical instrument", kinds=["memory"])[0].memory.id == "violin"
