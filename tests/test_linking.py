"""Linking: texts are linked to the concepts that they name, whichever came first."""

import itertools
import json
import logging

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import elytron
from elytron import Busy, ElytronError
from elytron.concepts import proposals
from elytron.concepts.names import Names
from elytron.config import Config
from elytron.ledger import learned
from elytron.ledger.schema import PROPOSED, TOLD
from elytron.store import Store
from elytron.upkeep import following, linking, looking_back
from faulty_disk import NAME, FaultyDisk
from ledgers import query as closed_query
from links import heard, mentions, origins, query, steps
from quiet import alone

# In a file and on a server.
pytestmark = pytest.mark.ledgers


@pytest.fixture
def bob(open_store):
    """An agent whose concepts are those that it is told."""
    return alone(open_store(propose_concepts=False).agent("bob"))


@pytest.fixture
def small_steps(monkeypatch):
    """Steps of two texts and one concept, so that a few messages take many."""
    monkeypatch.setattr(linking, "_TEXTS_MAX", 2)
    monkeypatch.setattr(linking, "_CONCEPTS_MAX", 1)


def test_a_message_is_linked_to_the_concepts_it_names(bob):
    bob.relate("José", "lives in", "New York")
    bob.save("user", "jose loves NEW YORK", id="both")
    bob.save("user", "and who else?", id="none")
    bob.save("user", "The José story", id="one")
    bob.flush()
    assert mentions(bob) == {"both": {"José", "New York"}, "one": {"José"}}


def test_messages_from_before_the_concept_are_linked_to_it(bob):
    for number in range(150):
        bob.save("user", f"Number {number}: Lyon" if number % 10 == 0 else "x", id=str(number))
    bob.remember("Lyon has two rivers", id="memory")
    bob.flush()
    assert mentions(bob) == {}
    bob.relate("Lyon", "is in", "France")
    bob.save("user", "la France", id="late")
    bob.flush()
    expected = {str(number): {"Lyon"} for number in range(0, 150, 10)}
    assert mentions(bob) == expected | {"memory": {"Lyon"}, "late": {"France"}}
    assert query(bob, "SELECT * FROM unlinked") == []


@pytest.mark.parametrize("name", ["The Who", "C", "東京", "Café de Flore", "l'Oréal", "H2O"])
def test_older_messages_are_found_even_where_the_word_index_cannot_help(bob, name):
    bob.save_many(
        [{"role": "user", "content": f"about {name} and so on", "id": "it"}]
        + [{"role": "user", "content": f"other {number}"} for number in range(100)]
    )
    bob.flush()
    bob.relate(name, "is", "something else")
    bob.flush()
    assert mentions(bob) == {"it": {name}}


@pytest.mark.files  # nothing else is asked of a server than by others, but very often
@pytest.mark.parametrize("name", ["Lyon", "The Who"])
@pytest.mark.parametrize(
    ("module", "bound", "value"),
    [
        (linking, "_TEXTS_MAX", 200),
        (linking, "_TEXT_BYTES", 4000),
        (following, "_TEXT_BYTES", 4000),
        (looking_back, "_SCAN_BYTES", 4000),
    ],
)
def test_many_older_messages_are_found_in_several_steps(
    bob, monkeypatch, name, module, bound, value
):
    """By the word index and by reading; whichever bound of a step it is that ends one."""
    monkeypatch.setattr(module, bound, value)
    contents = [f"{name} {n}" + "x" * (n % 50) for n in range(650)]
    bob.save_many([{"role": "user", "content": text} for text in contents])
    bob.remember(f"{name} is old", id="memory")
    bob.flush()
    bob.relate(name, "is not", "Paris")
    bob.flush()
    assert len(mentions(bob)) == 651


@pytest.mark.files  # on a server, saving takes so long that the background has looked before
def test_very_many_concepts_made_later_are_looked_for_by_reading(bob):
    names = [f"name{number}x" for number in range(300)]
    bob.save_many([{"role": "user", "content": f"it is {name}", "id": name} for name in names])
    bob.flush()
    for name in names:
        bob.remember("a fact", about=[name])
    with steps(bob) as made:
        made.all()
        assert max(len(op.looked) for op in made.written) > looking_back._BY_INDEX_MAX
    assert {name: found for name, found in mentions(bob).items() if name in names} == {
        name: {name} for name in names
    }


def test_names_are_up_to_date_even_where_their_changes_are_forgotten(open_store):
    bob = open_store(propose_concepts=False, change_max=100).agent("bob")
    bob.relate("Lyon", "is not", "Paris")
    bob.save("user", "x", id="1")
    with steps(bob) as made, bob._agents.use("bob", create=False) as opened:

        def known():
            with opened.ledger.reading(snapshot=True) as db:
                return made.known.at(db, "it")

        assert len(known()) == 2
        bob.relate("Annecy", "is not", "Paris")
        bob.delete_concept("Lyon")
        for number in range(250):
            bob.edit("1", f"x {number}")
        assert "annecy" in known()
        assert "lyon" not in known()
        assert len(known().find("from Lyon to Annecy and Paris")) == 2


def test_a_longer_name_takes_the_place_of_a_shorter_one(bob):
    bob.relate("New York", "is in", "America")
    bob.save("user", "I read the New York Times", id="paper")
    bob.flush()
    assert mentions(bob) == {"paper": {"New York"}}
    bob.relate("New York Times", "is a", "newspaper")
    bob.flush()
    assert mentions(bob) == {"paper": {"New York Times"}}


def test_an_edited_text_is_linked_anew_and_a_deleted_one_not_at_all(bob):
    bob.relate("Lyon", "is not", "Paris")
    bob.save("user", "in Lyon", id="message")
    bob.save("user", "in Paris", id="gone")
    bob.remember("in Lyon", id="memory", about=["Bridges"])
    bob.flush()
    bob.edit("message", "in Paris")
    bob.edit_memory("memory", "in Paris")
    bob.delete("gone")
    bob.flush()
    assert mentions(bob) == {"message": {"Paris"}, "memory": {"Paris", "Bridges"}}


def test_what_recurs_is_proposed_as_a_concept(store):
    bob = store.agent("bob")
    for number in range(2):
        bob.save("user", f"We went to Annecy, day {number}", id=str(number))
    bob.flush()
    assert heard(bob) == {"annecy": 2}
    bob.save("tool", "It is Annecy in Savoy", id="tool")
    bob.flush()
    assert heard(bob) == {"annecy": 2}, "tools write capitals for other reasons"
    bob.save("assistant", "So you like Annecy?", id="2")
    bob.save("user", "annecy, yes", id="3")
    bob.flush()
    assert origins(bob) == {"Annecy": PROPOSED}
    assert mentions(bob) == {key: {"Annecy"} for key in ("0", "1", "2", "3", "tool")}
    assert heard(bob) == {}
    (concept,) = bob.concepts()
    assert (concept.origin, concept.mentions) == ("proposed", 5)
    assert 0.3 <= concept.confidence <= 0.6


def test_a_message_that_is_read_again_is_not_heard_again(store):
    bob = store.agent("bob")
    bob.save("user", "We went to Annecy", id="1")
    bob.save("user", "I love Annecy", id="2")
    bob.flush()
    for number in range(5):
        bob.edit("1", f"We all went to Annecy, {number}")
        bob.flush()
    assert heard(bob) == {"annecy": 2}
    assert origins(bob) == {}


def test_nothing_is_proposed_or_linked_where_the_settings_say_so(open_store):
    bob = open_store(link_concepts=False).agent("bob")
    bob.relate("Annecy", "is in", "Savoy")
    for number in range(4):
        bob.save("user", f"We went to Annecy with Zoé, {number}")
    bob.flush()
    assert mentions(bob) == {}
    assert set(origins(bob)) == {"Annecy", "Savoy"}


def test_proposals_stop_at_the_number_of_concepts_and_links_do_not(open_store):
    bob = open_store(max_concepts=1).agent("bob")
    bob.remember("a fact", about=["Annecy"], id="m")
    for number in range(4):
        bob.save("user", f"We went to Annecy with Zoé, {number}", id=str(number))
    bob.flush()
    assert origins(bob) == {"Annecy": TOLD}
    assert mentions(bob) == {key: {"Annecy"} for key in ("m", "0", "1", "2", "3")}


def test_a_step_is_bounded_and_the_next_goes_on(bob, monkeypatch):
    monkeypatch.setattr(following, "_TEXT_BYTES", 1000)
    bob.relate("Lyon", "is not", "Paris")
    contents = ["Lyon " + "x" * 600, "Paris", "Lyon", "y" * 5000, *["Paris"] * 500]
    bob.save_many([{"role": "user", "content": text} for text in contents])
    with steps(bob) as made:
        made.all()
        sizes = [len(op.sources) for op in made.written if op.sources]
    assert sizes[:3] == [3, 1, 200]
    assert sum(sizes) == len(contents)
    assert sum(map(len, mentions(bob).values())) == 503


@pytest.mark.files
def test_an_op_never_is_larger_than_half_the_log(open_store):
    """Messages that name a hundred concepts each, in a memory with the smallest log."""
    bob = alone(open_store(propose_concepts=False, wal_limit_mb=0.25).agent("bob"))
    names = [f"name{number}x" for number in range(120)]
    for name in names:
        bob.remember("a fact", about=[name])
    bob.save_many([{"role": "user", "content": " ".join(names), "id": str(n)} for n in range(30)])
    with steps(bob) as made:
        made.all()
        assert max(op.size_bytes for op in made.written) <= bob._agents.config.wal_limit_bytes // 2
    found = mentions(bob)
    assert all(len(found[str(n)]) >= 10 for n in range(30)), "as many as fit"


def test_nor_is_one_that_proposes(open_store):
    bob = alone(open_store(wal_limit_mb=0.25).agent("bob"))
    names = [f"with Xa{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(60)]
    bob.save_many([{"role": "user", "content": ", ".join(names), "id": str(n)} for n in range(5)])
    with steps(bob) as made:
        made.all()
        assert max(op.size_bytes for op in made.written) <= bob._agents.config.wal_limit_bytes // 2
    assert origins(bob)


@pytest.mark.files
def test_texts_are_seldom_looked_through_again_where_few_fit_into_an_op(open_store, monkeypatch):
    looked = itertools.count()
    candidates = proposals.candidates

    def counted(text, **options):
        next(looked)
        return candidates(text, **options)

    monkeypatch.setattr(proposals, "candidates", counted)
    bob = alone(open_store(wal_limit_mb=0.25).agent("bob"))
    for start in (0, 300):
        bob.save_many([{"role": "user", "content": f"we met Zoé, {start + n}"} for n in range(300)])
    with steps(bob) as made:
        made.all()
    assert 600 <= next(looked) < 2 * 600


def test_nothing_is_written_while_nothing_happens(bob):
    bob.relate("Lyon", "is not", "Paris")
    bob.save("user", "in Lyon", id="1")
    bob.flush()
    before = query(bob, "SELECT max(seq) FROM changes")
    with steps(bob) as made:
        for _ in range(3):
            assert made.all() == 0
            bob.delete("nobody")
        assert made.written == []
    assert query(bob, "SELECT max(seq) FROM changes") == before


@pytest.mark.files  # nothing else is asked of a server than by others, but very often
def test_who_fell_behind_the_changes_looks_at_all_texts_again(open_store, small_steps):
    """Edits whose changes are forgotten before they are looked at are not lost."""
    bob = alone(open_store(propose_concepts=False, change_max=100).agent("bob"))
    bob.relate("Lyon", "is not", "Paris")
    bob.save_many([{"role": "user", "content": "in Lyon", "id": str(n)} for n in range(20)])
    bob.remember("of Lyon", id="memory")
    bob.flush()
    with bob._agents.use("bob", create=False) as opened, opened.linking.turn:
        bob.edit("3", "in Paris")
        bob.edit_memory("memory", "of Paris")
        for number in range(200):
            bob.edit("5", f"in Rome {number}")
        bob.save("user", "Paris again", id="late")
    with steps(bob) as made:
        write, failures = made.linking._write, [Busy("first"), Busy("second")]

        def fail_first(op, until_s):
            if failures:
                raise failures.pop()
            return write(op, until_s)

        made.linking._write = fail_first
        for _ in range(2):
            with pytest.raises(Busy):
                made.linking.step()
        made.all()
        assert made.all() == 0
    expected = {str(n): {"Lyon"} for n in range(20) if n not in (3, 5)}
    expected |= {"3": {"Paris"}, "memory": {"Paris"}, "late": {"Paris"}}
    assert mentions(bob) == expected


def test_two_who_do_the_same_at_once_end_with_the_same(bob, small_steps):
    bob.relate("Lyon", "is not", "Paris")
    bob.save_many(
        [{"role": "user", "content": f"in {'Lyon' if n % 2 else 'Paris'}"} for n in range(30)]
    )
    bob.relate("in", "before", "Lyon part 2")
    with steps(bob) as one, steps(bob) as other:
        one.linking._write = lambda op, _until_s: (other.linking.step(), one._write(op))[1]
        while one.linking.step():
            pass
        assert not other.linking.step()
        assert not all(result.applied for result in one.results), "they did meet"
    assert sum(map(len, mentions(bob).values())) == 30


def test_a_text_that_changes_while_it_is_read_is_linked_as_it_is_then(bob):
    bob.relate("Lyon", "is not", "Paris")
    bob.save("user", "in Lyon", id="1")
    with steps(bob) as made:
        late = [lambda: bob.edit("1", "in Paris")]

        def write(op, _until_s):
            while late:
                late.pop()()
            return made._writer.call(op)

        made.linking._write = write
        made.all()
    assert mentions(bob) == {"1": {"Paris"}}


@pytest.mark.files  # a server keeps no text that is no Unicode
def test_a_damaged_text_is_passed_over(open_store, folder, caplog):
    store = open_store(propose_concepts=False, link_concepts=False)
    bob = store.agent("bob")
    bob.relate("Lyon", "is not", "Paris")
    for number in range(5):
        bob.save("user", "in Lyon", id=str(number))
    store.close()
    closed_query(folder, "UPDATE messages SET content = 'in Paris' WHERE id = '2'")
    closed_query(folder, "UPDATE messages SET content = CAST(x'ff' AS TEXT) WHERE id = '3'")
    closed_query(folder, "UPDATE concepts SET confidence = 0.9 WHERE name = 'Paris'")
    bob = open_store(propose_concepts=False).agent("bob")
    with caplog.at_level(logging.WARNING, "elytron"):
        bob.flush()
    assert set(mentions(bob)) == {"0", "1", "4"}
    bob.relate("in", "before", "Lyon itself")
    bob.save("user", "Lyon itself", id="later")
    bob.flush()
    assert set(mentions(bob)) == {"0", "1", "4", "later"}
    assert "passed over" in caplog.text
    assert "left out" in caplog.text
    assert "Lyon" not in caplog.text


def test_a_damaged_concept_keeps_nothing_else_from_being_linked(open_store, look):
    store = open_store()
    bob = store.agent("bob")
    bob.relate("Lyon", "is not", "Paris")
    store.close()
    look("UPDATE concepts SET confidence = 0.9 WHERE name = 'Paris'")
    bob = open_store().agent("bob")
    for number in range(5):
        bob.save("user", f"We went to Paris and Lyon with Zoé {number}", id=str(number))
    bob.flush()
    assert mentions(bob) == {str(number): {"Lyon", "Zoé"} for number in range(5)}


def test_every_fault_of_the_disk_leaves_links_that_the_next_steps_make_whole(tmp_path):
    """Method: fail the nth write or sync while linking, for each n until none fails any more."""
    disk = FaultyDisk()
    for call in ("xWrite", "xSync"):
        for nth in itertools.count(1):
            folder = tmp_path / f"{call}{nth}"
            config = Config(propose_concepts=False, reserve_mb=0)
            with Store(folder, config, vfs=NAME) as store:
                bob = store.agent("bob")
                bob.save("user", "in Lyon", id="early")
                bob.relate("Lyon", "is not", "Paris")
                bob.save("user", "in Paris", id="late")
                disk.arm(call, nth, apsw.IOError)
                try:
                    bob.flush()
                except ElytronError:
                    assert disk.fired
                fired = disk.fired
                disk.disarm()
                bob.flush()
                assert mentions(bob) == {"early": {"Lyon"}, "late": {"Paris"}}
            if not fired:
                break
        assert nth > 1, "nothing was written?"


def test_a_process_killed_between_two_steps_loses_no_link(start_script, open_store, address):
    script = """
        import json, os, sys
        import elytron
        from elytron.upkeep import linking, looking_back
        linking._TEXTS_MAX = 10
        path, place = sys.argv[1:]
        with elytron.open(path, propose_concepts=False, **json.loads(place)) as store:
            bob = store.agent("bob")
            with bob._agents.use("bob", create=True) as opened, opened.linking.turn:
                bob.relate("Lyon", "is not", "Paris")
                bob.save_many([{"role": "user", "content": f"in Lyon {n}"} for n in range(50)])
                opened.linking._step(float('inf'))
                opened.linking._step(float('inf'))
                print("ready", flush=True)
                sys.stdin.read()
    """
    path, place = address
    process = start_script(script, path, json.dumps(place))
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait(timeout=30)
    bob = open_store(propose_concepts=False).agent("bob")
    assert len(mentions(bob)) == 20
    bob.flush()
    assert len(mentions(bob)) == 50


NAME_WORDS = st.sampled_from(["ada", "bob", "cy", "dee", "東京"])
NAMES = st.lists(NAME_WORDS, min_size=1, max_size=2).map(" ".join)
TEXTS = st.lists(NAME_WORDS | st.sampled_from(["x", "y"]), min_size=1, max_size=5).map(" ".join)
IDS = st.sampled_from(["1", "2", "3"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), TEXTS),
        st.tuples(st.just("edit"), IDS, TEXTS),
        st.tuples(st.just("delete"), IDS),
        st.tuples(st.just("remember"), TEXTS),
        st.tuples(st.just("name"), NAMES),
        st.tuples(st.just("flush")),
        st.tuples(st.just("reopen")),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(done=STEPS)
def test_links_are_what_the_matcher_finds_whatever_came_first(tmp_path_factory, done):
    """Random writes, with steps of two texts; at the end every text is matched by itself."""
    folder = tmp_path_factory.mktemp("model")
    config = {"propose_concepts": False, "change_max": 100, "reserve_mb": 0}
    most = linking._TEXTS_MAX, linking._CONCEPTS_MAX
    linking._TEXTS_MAX, linking._CONCEPTS_MAX = 2, 1
    store = elytron.open(folder, **config)
    try:
        for number, (verb, *rest) in enumerate(done):
            bob = store.agent("bob")
            match verb:
                case "save":
                    bob.save("user", *rest, id=str(number))
                case "edit" if bob.get(rest[0]) is not None:
                    bob.edit(*rest)
                case "delete":
                    bob.delete(*rest) if bob.usage().messages else None
                case "remember":
                    bob.remember(*rest)
                case "name":
                    bob.remember("a fact", about=rest, id=f"about {rest[0]}")
                case "flush":
                    bob.flush()
                case "reopen":
                    store.close()
                    store = elytron.open(folder, **config)
        bob = store.agent("bob")
        bob.save("user", "the last")
        bob.flush()
        known = Names(query(bob, "SELECT key, name, confidence FROM concepts"))
        held = "SELECT key, content FROM messages UNION SELECT key, content FROM memories"
        expected = {
            (key, concept) for key, content in query(bob, held) for concept in known.find(content)
        }
        told = f"SELECT source, concept FROM mentions WHERE told = {learned.BY_TEXT}"
        assert set(query(bob, told)) == expected
        assert query(bob, "SELECT * FROM unlinked") == []
    finally:
        store.close()
        linking._TEXTS_MAX, linking._CONCEPTS_MAX = most
