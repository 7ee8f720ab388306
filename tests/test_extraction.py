"""`extract=`: what a caller's own function reads out of messages, and what if it fails."""

import contextlib
import logging
import threading
from collections import namedtuple
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import elytron
from elytron import ElytronError
from elytron.concepts.extraction import CONCEPTS_MAX, RELATIONS_MAX, checked
from elytron.errors import Unavailable
from elytron.ledger.schema import EXTRACTED, TOLD
from elytron.upkeep import extracting
from elytron.upkeep.extracting import Extracting
from links import mentions, origins, query

# In a file and on a server.
pytestmark = pytest.mark.ledgers

WAIT_S = 60
NAIVE = datetime(2020, 1, 1, tzinfo=UTC).replace(tzinfo=None)
LATEST = datetime.max.replace(tzinfo=timezone(-timedelta(hours=5)))


# -- what it may answer


def test_names_and_triples_are_enough():
    found = checked({"concepts": ["José", "jose"], "relations": [("José", "lives in", " Lyon\n")]})
    assert [concept.name for concept in found.concepts] == ["José", "Lyon"]
    (relation,) = found.relations
    assert relation == ("jose", "lives in", "lyon", 1.0, None)
    assert found.wrong == ()


@pytest.mark.parametrize("make", [dict, lambda **members: SimpleNamespace(**members)])
def test_mappings_and_objects_say_more(make):
    answer = make(
        concepts=[make(name="Lyon", type="city", description="on two rivers", confidence=0.25)],
        relations=[
            make(source="Lyon", relation="is in", target="France", strength=0.5,
                 valid_from="2020-01-01T00:00:00+02:00")
        ],
    )  # fmt: skip
    found = checked(answer)
    assert found.concepts[0] == ("Lyon", "lyon", "city", "on two rivers", 0.25)
    assert found.relations[0].strength == 0.5
    assert found.relations[0].valid_from == datetime(2019, 12, 31, 22, tzinfo=UTC)
    assert found.wrong == ()


def test_a_named_tuple_is_read_by_its_names():
    triple = namedtuple("Fact", "target relation source strength")("Lyon", "lives in", "Zoé", 0.5)
    (relation,) = checked({"relations": [triple]}).relations
    assert relation[:4] == ("zoe", "lives in", "lyon", 0.5)


@pytest.mark.parametrize(
    "answer", [None, {}, {"concepts": None}, {"concepts": [], "relations": ()}]
)
def test_nothing_is_an_answer(answer):
    assert checked(answer) == ((), (), ())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("Lyon", "the answer is a str"),
        ({"concepts": "Lyon"}, "concepts are a str, not a list"),
        ({"relations": {"a": 1}}, "relations are a dict"),
        ({"concepts": [""]}, "concept 1: its name has 0 characters"),
        ({"concepts": ["x" * 201]}, "concept 1: its name has 201 characters; it may have 1 to 200"),
        ({"concepts": ["a\u202eb"]}, "control character, at 1"),
        ({"concepts": [7]}, "concept 1: its name is missing"),
        ({"concepts": [{"name": "a", "type": 3}]}, "its type is a int, not text"),
        ({"concepts": [{"name": "a", "description": "x" * 2001}]}, "it may have 2000"),
        ({"concepts": [{"name": "a", "description": "\ud800"}]}, "half a one"),
        ({"concepts": [{"name": "a", "confidence": 1.5}]}, "is not between 0 and 1"),
        ({"concepts": [{"name": "a", "confidence": float("nan")}]}, "not a number"),
        ({"concepts": [{"name": "a", "confidence": True}]}, "not a number"),
        ({"relations": [("a", "b")]}, "relation 1: it has 2 parts"),
        ({"relations": ["abc"]}, "relation 1: its source is missing"),
        ({"relations": [("a", "is", "A")]}, "its source is its target"),
        ({"relations": [("a", "", "b")]}, "its relation has 0 characters"),
        ({"relations": [{"source": "a", "relation": "r", "target": "b", "valid_from": "May"}]},
         "no time in ISO form"),
        ({"relations": [{"source": "a", "relation": "r", "target": "b",
                         "valid_from": NAIVE}]}, "no time zone"),
        ({"relations": [{"source": "a", "relation": "r", "target": "b",
                         "valid_from": LATEST}]},
         "out of range"),
        ({"relations": [{"source": "a", "relation": "r", "target": "b", "valid_from": 3}]},
         "a int, not a time"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_left_out_and_said(answer, why):
    found = checked(answer)
    assert (found.concepts, found.relations) == ((), ())
    assert len(found.wrong) == 1
    assert why in found.wrong[0]


def test_one_bad_item_does_not_cost_the_others():
    found = checked({"concepts": ["Lyon", "", "Paris"], "relations": [("a", "b"), ("a", "b", "c")]})
    assert {concept.name for concept in found.concepts} == {"Lyon", "Paris", "a", "c"}
    assert len(found.relations) == 1
    assert len(found.wrong) == 2


def test_no_more_is_taken_than_the_bounds_say():
    many = iter(f"c{number}" for number in range(10**9))
    found = checked({"concepts": many, "relations": [("c0", f"r{n}", "c1") for n in range(1000)]})
    assert len(found.concepts) == CONCEPTS_MAX
    assert len(found.relations) == RELATIONS_MAX
    assert found.wrong == ("there are more than 50 concepts", "there are more than 100 relations")
    found = checked({"relations": [(f"s{n}", "is", f"t{n}") for n in range(60)]})
    assert len(found.concepts) == CONCEPTS_MAX
    assert len(found.wrong) == 20


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner, inner)
        | st.dictionaries(st.sampled_from(["name", "source", "relation", "target", "type"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["concepts", "relations"]), JUNK) | JUNK)
def test_any_answer_is_read_without_an_error(answer):
    found = checked(answer)
    names = {concept.folded for concept in found.concepts}
    for relation in found.relations:
        assert {relation.source, relation.target} <= names


# -- the chore


class Model:
    """An extractor that answers as told, and keeps what it was asked."""

    def __init__(self, *answers):
        self.asked = []
        self.answers = list(answers)

    def __call__(self, text):
        self.asked.append(text)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer(text) if callable(answer) else answer


def reads_names(text):
    """Reads "A likes B" as a model would."""
    words = text.strip(".").split()
    return {"concepts": [words[-1]], "relations": [(words[0], words[1], words[-1])]}


@pytest.fixture
def extracts(open_store):
    """Makes the chore of an agent; without the background, which would do it by itself."""
    store = open_store(propose_concepts=False)
    bob = store.agent("bob")
    bob.save("user", "Hello", id="first")

    def make(extract, **options):
        with bob._agents.use("bob", create=False) as opened:
            config = bob._agents.config
            return Extracting(opened.ledger, opened.writer.call, extract, config=config, **options)

    make.bob = bob
    return make


def drain(chore):
    while chore.step():
        pass


def test_what_is_extracted_becomes_concepts_relations_and_mentions(extracts):
    bob, model = extracts.bob, Model(reads_names)
    bob.edit("first", "Zoé likes cheese")
    bob.save("tool", "Tools hate people", id="tool")
    bob.save("assistant", "Rex chases cars", id="second")
    chore = extracts(model)
    drain(chore)
    assert model.asked == ["Zoé likes cheese", "Rex chases cars"]
    bob.flush()
    assert origins(bob) == dict.fromkeys(["Zoé", "cheese", "Rex", "cars"], EXTRACTED)
    assert mentions(bob) == {"first": {"Zoé", "cheese"}, "second": {"Rex", "cars"}}
    found = {(r.source, r.relation, r.target, r.learned_from) for r in bob.relations()}
    assert found == {("Zoé", "likes", "cheese", "first"), ("Rex", "chases", "cars", "second")}
    drain(chore)
    assert len(model.asked) == 2, "each message once"


def test_a_concept_that_was_told_stays_told(extracts):
    bob = extracts.bob
    bob.relate("Zoé", "is", "a person")
    bob.edit("first", "zoe likes cheese")
    drain(extracts(Model(reads_names)))
    assert origins(bob) == {"Zoé": TOLD, "a person": TOLD, "cheese": EXTRACTED}


def test_an_edited_message_is_read_again_and_what_it_no_longer_says_goes(extracts):
    bob = extracts.bob
    bob.edit("first", "Zoé likes cheese")
    chore = extracts(Model(reads_names))
    drain(chore)
    bob.flush()
    bob.edit("first", "Zoé likes wine")
    drain(chore)
    bob.flush()
    assert mentions(bob) == {"first": {"Zoé", "wine"}}
    assert [relation.target for relation in bob.relations("Zoé")] == ["wine"]
    assert set(origins(bob)) == {"Zoé", "wine"}, "nothing else was known of the cheese"


def test_a_failure_is_told_and_tried_again_and_nothing_is_lost(extracts, caplog):
    bob, model = extracts.bob, Model(ValueError("Hello"), KeyError("Hello"), {"concepts": ["Hi"]})
    chore = extracts(model)
    for _ in range(2):
        with pytest.raises(Unavailable, match="failed with") as error:
            chore.step()
        assert "Hello" not in str(error.value)
    drain(chore)
    assert set(origins(bob)) == {"Hi"}
    assert (chore.counts.messages, chore.counts.failures, chore.counts.passed_over) == (1, 2, 0)
    assert "Hello" not in caplog.text


def test_a_message_that_fails_three_times_is_passed_over(extracts, caplog):
    bob, model = extracts.bob, Model(*[ValueError("Hello")] * 3, {"concepts": ["Hi"]})
    bob.save("user", "second", id="second")
    chore = extracts(model)
    for _ in range(2):
        with pytest.raises(Unavailable):
            chore.step()
    with caplog.at_level(logging.WARNING, "elytron"):
        assert chore.step()
    assert "passed over" in caplog.text
    assert "Hello" not in caplog.text
    drain(chore)
    assert model.asked == ["Hello"] * 3 + ["second"]
    assert chore.counts.passed_over == 1
    assert chore.counts.last_error == "ValueError"


def test_where_everything_fails_it_is_the_function_and_messages_are_kept_longer(extracts):
    bob, model = extracts.bob, Model(ConnectionError())
    for number in range(4):
        bob.save("user", f"number {number}")
    chore, tries = extracts(model), []
    for _ in range(3 * 3 + 10):
        try:
            chore.step()
        except Unavailable:
            tries.append(len(model.asked))
    assert chore.counts.passed_over == 4
    assert model.asked.count("number 2") == 10


@pytest.mark.parametrize("answer", ["words", {"concepts": [7]}, {"relations": [()]}])
def test_a_useless_answer_is_counted_and_not_asked_for_again(extracts, answer):
    model = Model(answer)
    chore = extracts(model)
    drain(chore)
    drain(chore)
    assert len(model.asked) == 1
    assert chore.counts.left_out == 1
    assert chore.counts.failures == 0


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_answer_that_ends_the_program_when_it_is_read_is_a_failure(extracts, error):
    def broken():
        yield "a"
        raise error("Hello")

    chore = extracts(Model(lambda _: {"concepts": broken()}))
    with pytest.raises(Unavailable, match=error.__name__):
        chore.step()


def test_a_function_that_hangs_is_given_up_and_not_called_beside_itself(extracts):
    gate, entered, calls = threading.Event(), threading.Event(), []

    def hang(text):
        calls.append(text)
        entered.set()
        assert gate.wait(WAIT_S)

    chore = extracts(hang, timeout_s=0.05)
    with pytest.raises(Unavailable, match="TimeoutError"):
        chore.step()
    with pytest.raises(Unavailable, match="still at work"):
        chore.step()
    assert entered.wait(WAIT_S)
    assert len(calls) == 1
    (running,) = chore._hanging.calls.values()
    gate.set()
    running.result(WAIT_S)
    chore._timeout_s = WAIT_S
    drain(chore)
    assert calls == ["Hello", "Hello"]


def test_calls_that_hang_are_few_though_their_agents_are_put_to_rest(open_store):
    gate, entered, calls = threading.Event(), threading.Semaphore(0), []

    def hang(text):
        calls.append(text)
        entered.release()
        assert gate.wait(WAIT_S)

    store = open_store(propose_concepts=False, max_open_agents=1)
    store._agents.background.abandon()  # the test does it
    store._agents._extract = hang
    names = [f"agent {n}" for n in range(6)]
    for name in names:
        store.agent(name).save("user", f"I am {name}")
    refused = []
    for name in names * 2:
        with store._agents.use(name, create=False) as opened:
            opened.extracting._timeout_s = 0.05
            with pytest.raises(Unavailable) as told:
                opened.extracting.step()
            refused.append(str(told.value))
    for _ in range(extracting._HANGING_MAX):
        assert entered.acquire(timeout=WAIT_S)
    assert len(calls) == extracting._HANGING_MAX
    assert len([one for one in refused if "still at work" in one]) == 12 - len(calls)
    hanging = list(store._agents._hanging.calls.values())
    gate.set()
    for call in hanging:
        call.result(WAIT_S)
    for name in names:
        with store._agents.use(name, create=False) as opened:
            drain(opened.extracting)
    assert set(calls) == {f"I am {name}" for name in names}


def test_where_no_thread_can_be_begun_it_is_tried_again_later(extracts, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    chore = extracts(Model(None))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(Unavailable, match="start new thread"):
            chore.step()
    drain(chore)
    assert chore.counts.messages == 1
    assert chore.counts.failures == 0, "the function was not at fault"


def test_closing_waits_for_no_call(extracts):
    gate, entered = threading.Event(), threading.Event()

    def hang(text):
        entered.set()
        assert gate.wait(WAIT_S)

    chore = extracts(hang)
    assert not chore.step(stopping=entered.is_set)
    assert chore.counts.failures == 0, "it did not fail, it was left"
    (running,) = chore._hanging.calls.values()
    gate.set()
    running.result(WAIT_S)


def test_where_it_stands_is_kept_over_the_end_of_the_program(open_store):
    def begin(extract):
        store = open_store(propose_concepts=False)
        bob = store.agent("bob")
        with bob._agents.use("bob", create=True) as opened:
            config = bob._agents.config
            return store, bob, Extracting(opened.ledger, opened.writer.call, extract, config=config)

    first = Model(None)
    store, bob, chore = begin(first)
    bob.save("user", "one")
    bob.save("user", "two")
    drain(chore)
    bob.save("user", "three")
    store.close()
    second = Model(None)
    store, bob, chore = begin(second)
    bob.save("user", "four")
    drain(chore)
    assert (first.asked, second.asked) == (["one", "two"], ["three", "four"])


def test_a_damaged_concept_keeps_no_other_message_from_being_read(open_store, look):
    store = open_store(propose_concepts=False)
    bob = store.agent("bob")
    bob.relate("Zoé", "likes", "cheese")
    bob.save("user", "Zoé likes wine")
    bob.save("user", "Rex likes cars")
    store.close()
    look("UPDATE concepts SET confidence = 0.9 WHERE name = 'Zoé'")
    bob = open_store(propose_concepts=False).agent("bob")
    with bob._agents.use("bob", create=False) as opened:
        chore = Extracting(
            opened.ledger, opened.writer.call, Model(reads_names), config=bob._agents.config
        )
        drain(chore)
    assert chore.counts.passed_over == 1
    assert {"Rex", "cars"} <= set(origins(bob))


def test_a_large_answer_in_a_small_log_is_cut_and_not_refused(open_store):
    bob = open_store(propose_concepts=False, wal_limit_mb=0.25).agent("bob")
    bob.save("user", "Hello", id="first")
    answer = {
        "concepts": [{"name": f"c{n}" + "x" * 150, "description": "d" * 2000} for n in range(50)],
        "relations": [("c1", f"relation {n}", "c2") for n in range(100)],
    }
    with bob._agents.use("bob", create=False) as opened:
        drain(
            Extracting(opened.ledger, opened.writer.call, Model(answer), config=bob._agents.config)
        )
    assert origins(bob), "as much as fits"


def test_a_store_that_is_given_a_function_runs_it_in_the_background(folder):
    heard = threading.Event()

    def extract(text):
        heard.set()
        return reads_names(text)

    with elytron.open(folder, extract=extract, propose_concepts=False) as store:
        bob = store.agent("bob")
        bob.save("user", "Zoé likes cheese", id="first")
        assert heard.wait(WAIT_S)
        store._agents.background.stop(WAIT_S)  # after the step in hand
        for call in store._agents._hanging.calls.values():
            call.result(WAIT_S)  # the step did not wait for it, once it was to end
        if not query(bob, "SELECT * FROM concepts"):  # it was left in the middle of it
            with bob._agents.use("bob", create=False) as opened:
                try:
                    drain(opened.extracting)
                except ElytronError as error:
                    pytest.fail(str(error))
        assert set(origins(bob)) == {"Zoé", "cheese"}
        assert bob.usage().extraction == elytron.ExtractionUsage(messages=1)


def test_what_a_function_failed_at_is_told_with_the_usage(open_store):
    def extract(_text):
        raise ValueError("a secret")

    store = open_store(extract=extract)
    bob = store.agent("bob")
    assert bob.usage().extraction.failures == 0
    bob.save("user", "Zoé likes cheese")
    store._agents.background.stop(WAIT_S)  # whether it has begun or not
    with bob._agents.use("bob", create=False) as opened:
        while not opened.extracting.counts.passed_over:
            with contextlib.suppress(elytron.Unavailable):
                opened.extracting.step()
    usage = bob.usage().extraction
    assert (usage.messages, usage.failures, usage.passed_over) == (0, 3, 1)
    assert usage.last_error == "ValueError"


def test_the_bounds_on_time_are_named():
    assert 1 <= extracting.TIMEOUT_S <= 3600
