"""What a review of concepts and the graph showed, each with the test that would have found it."""

import gc
import time
import warnings
from pathlib import Path

import psutil
import pytest

import elytron
from elytron.graph.client import Behind, GraphState
from elytron.ledger import files
from elytron.ledger.learned import Name, Relate
from ledgers import ledger_path, query
from projecting import clients, fill, projecting, same


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_linking_ends_though_the_change_list_forgets_what_it_writes(folder):
    with elytron.open(folder, change_max=200, max_messages_per_agent=10_000) as store:
        bob = store.agent("bob")
        bob.relate("Alice", "knows", "Marc")
        for start in range(0, 1500, 500):
            bob.save_many(
                [
                    {"role": "user", "content": f"Alice said {n}", "id": f"m{n}"}
                    for n in range(start, start + 500)
                ]
            )
        bob.flush()
        assert bob.concept("Alice").concept.mentions == 1500
        bob.edit("m0", "nobody said that")
        bob.flush()
        assert bob.concept("Alice").concept.mentions == 1499


def extract(text: str) -> dict[str, object]:
    if "Zorblax" not in text:
        return {}
    return {
        "concepts": [{"name": "Marc", "type": "SECRETTYPE", "description": "SECRETTEXT"}],
        "relations": [("Marc", "SECRETREL", "Zorblax")],
    }


def extracted(store: elytron.Store, name: str = "bob") -> None:
    """Do now what the background does, extraction too; where that is at it, after it."""
    deadline = time.monotonic() + 60
    while store._agents.work_behind(name) is not False:
        assert time.monotonic() < deadline


def held_in(folder: Path, text: str) -> list[str]:
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    ]


# What is done before a text is erased; and how it is.
FIRST = {
    "nothing": lambda _: None,
    "archived": lambda bob: bob.archive(older_than_days=0, keep=0),
    "related": lambda bob: bob.relate("Marc", "knows", "Bob"),
    "remembered": lambda bob: bob.remember("He is tall", about=["Marc"]),
    "renamed": lambda bob: bob.set_concept("Marc", rename="Mark", confidence=0.9),
    "proposed": lambda _: None,
}
ERASING = {
    "forget": lambda bob: bob.forget(user="alice"),
    "delete": lambda bob: bob.delete("one"),
    "delete_session": lambda bob: bob.delete_session("a"),
    "edit": lambda bob: bob.edit("one", "Nobody was there"),
}


@pytest.mark.parametrize(
    ("first", "way"),
    [
        (first, way)
        for first in FIRST
        for way in ERASING
        if (first, way) != ("archived", "edit")  # an archived message cannot be edited
    ],
)
def test_erasing_a_text_erases_what_an_extractor_wrote_of_a_concept(folder, first, way):
    if first == "proposed":
        with elytron.open(folder) as store:
            bob = store.agent("bob")
            for n in range(4):
                bob.save("user", f"I saw Marc again, for time {n}", user="carol", session="b")
            bob.save("user", "Marc met Zorblax", user="alice", session="a", id="one")
            bob.flush()
            assert [concept.origin for concept in bob.concepts()] == ["proposed"]
    with elytron.open(folder, extract=extract) as store:
        bob = store.agent("bob")
        bob.save("user", "Marc met Zorblax", user="alice", session="a", id="one")
        extracted(store)
        bob.save("user", "I know Marc", user="carol", session="b")
        bob.flush()
        assert bob.concept("Marc").concept.description == "SECRETTEXT"
        FIRST[first](bob)
        ERASING[way](bob)
        bob.flush()
        extracted(store)
        assert bob.concept("Mark" if first == "renamed" else "Marc") or first == "archived"
        for concept in bob.concepts():
            assert (concept.type, concept.description) == (None, None)
        # What an archived message named is not known any more.
        assert bob.concept("Zorblax") is None or (first == "archived" and way != "forget")
        assert bob.check().ok
    assert query(folder, "SELECT * FROM described") == []
    for secret in ("SECRETTYPE", "SECRETTEXT", "SECRETREL"):
        assert not held_in(folder, secret)
    if first != "archived" or way == "forget":
        assert not held_in(folder, "Zorblax")


def test_what_a_person_told_of_a_concept_stays_when_a_text_is_erased(folder):
    with elytron.open(folder, extract=extract) as store:
        bob = store.agent("bob")
        bob.save("user", "Marc met Zorblax", id="one")
        bob.save("user", "I know Marc")
        extracted(store)
        bob.set_concept("Marc", type="person")
        bob.edit("one", "Nobody was there")
        found = bob.concept("Marc").concept
        assert (found.type, found.description) == ("person", None)
        bob.set_concept("Marc", description="a friend")
        bob.delete("one")
        found = bob.concept("Marc").concept
        assert (found.type, found.description) == ("person", "a friend")


def test_what_another_text_told_of_a_concept_stays_when_one_is_erased(folder):
    with elytron.open(folder, extract=extract) as store:
        bob = store.agent("bob")
        bob.save("user", "Marc met Zorblax", id="one")
        extracted(store)
        bob.save("user", "Zorblax is back", id="two")
        extracted(store)
        bob.delete("two")
        assert bob.concept("Marc").concept.description == "SECRETTEXT"
        bob.edit("one", "Marc met Zorblax, I said")
        extracted(store)
        assert bob.concept("Marc").concept.description == "SECRETTEXT", "it says so still"


def marc_is_met(store):
    """Bob, to whom somebody said what is read of Marc, and one thing more."""
    bob = store.agent("bob")
    bob.save("user", "Marc met Zorblax", id="one")
    bob.save("user", "I know Marc")
    extracted(store)
    return bob


def test_what_an_earlier_version_did_not_note_is_erased_with_any_text_it_may_be_from(folder):
    with elytron.open(folder, extract=extract) as store:
        bob = marc_is_met(store)
        bob.flush()
    query(folder, "DELETE FROM described")
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.delete("one")
        found = bob.concept("Marc").concept
        assert (found.type, found.description) == (None, None)


def test_what_was_read_in_a_message_is_known_after_its_ledger_was_made_anew(folder):
    with elytron.open(folder, extract=extract) as store:
        bob = marc_is_met(store)
        bob.relate("Marc", "knows", "Bob")
    assert len(query(folder, "SELECT * FROM described")) == 1
    with ledger_path(folder).open("r+b") as file:
        file.write(bytes(4096))
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.check(repair=True)
        assert bob.concept("Marc").concept.description == "SECRETTEXT"
        bob.delete("one")
        assert bob.concept("Marc").concept.description is None


def test_a_damaged_concept_keeps_no_text_from_being_erased(folder):
    with elytron.open(folder, extract=extract) as store:
        bob = marc_is_met(store)
        bob.flush()
    query(folder, "UPDATE concepts SET confidence = 0.125 WHERE name = 'Marc'")
    with elytron.open(folder) as store:
        assert store.agent("bob").delete("one")
    assert query(folder, "SELECT type, description FROM concepts WHERE name = 'Marc'") == [
        (None, None)
    ]


def test_a_note_of_a_concept_that_is_not_there_is_found_and_taken_away(folder):
    with elytron.open(folder) as store:
        store.agent("bob").relate("Marc", "knows", "Bob")
    query(folder, "INSERT INTO described VALUES(99999, 1, 3)")
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        (finding,) = bob.check().findings
        assert finding.what.startswith("1 notes of where the texts of concepts are from")
        bob.check(repair=True)
        assert bob.check().ok
    assert query(folder, "SELECT * FROM described") == []


@pytest.mark.parametrize("way", ["delete", "delete_session", "archived"])
def test_a_deleted_message_takes_along_the_facts_that_were_read_in_it(folder, way):
    with elytron.open(folder, extract=extract) as store:
        bob = store.agent("bob")
        bob.save("user", "Marc met Zorblax", user="alice", session="a", id="one")
        bob.save("user", "good morning", user="carol", session="b")
        extracted(store)
        assert [fact.relation for fact in bob.relations("Marc")] == ["SECRETREL"]
        if way == "archived":
            bob.archive(older_than_days=0, keep=0)
            assert bob.relations("Marc"), "an archived message keeps its facts"
        if way == "delete":
            assert bob.delete("one")
        else:
            assert bob.delete_session("a") == 1
        assert bob.relations("Marc") == []
        assert bob.check().ok


def test_one_bad_item_of_an_answer_costs_the_others_nothing():
    from elytron.concepts.extraction import checked

    class Wicked:
        @property
        def name(self) -> str:
            raise RuntimeError("no name")

    def broken():
        yield "Lyon"
        raise RuntimeError("no more")

    answer = checked({"concepts": [{"name": "x", "confidence": 10**400}, Wicked(), "Alice"]})
    assert [concept.name for concept in answer.concepts] == ["Alice"]
    assert len(answer.wrong) == 2
    answer = checked({"concepts": broken(), "relations": [("Alice", "likes", "tea")]})
    assert [concept.name for concept in answer.concepts] == ["Lyon", "Alice", "tea"]
    assert answer.wrong == ("concepts ended with RuntimeError",)
    answer = checked({"concepts": ["\u0301", {"name": "y", "type": "a\x00b"}]})
    assert answer.concepts == ()


def test_a_store_that_is_forgotten_takes_its_worker_along(folder):
    store = elytron.open(folder, graph_timeout_s=60)
    bob = store.agent("bob")
    bob.save("user", "hello")
    bob.cypher("RETURN 1 AS one")
    process = psutil.Process(store.usage().worker.pid)
    behind = store._agents.background._thread
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del bob, store
        gc.collect()
        behind.join(60)  # it may have been at work on it
    assert [warning.category for warning in told] == [ResourceWarning]
    process.wait(timeout=60)


def test_a_graph_that_another_process_builds_meanwhile_is_forgotten_too(folder, monkeypatch):
    """The other process is a second store; it asks in the midst of the erasing."""
    from elytron.upkeep import erasing

    plain = erasing._note_gone
    with (
        elytron.open(folder, graph_timeout_s=60) as store,
        elytron.open(folder, graph_timeout_s=60) as other,
    ):
        bob = store.agent("bob")
        bob.save("user", "my word is xylophonequartz", user="alice")
        bob.save("user", "good morning", user="carol")

        def note_gone(*given):
            assert other.agent("bob").cypher("MATCH (m:Message) RETURN count(*) AS n") == [{"n": 2}]
            plain(*given)

        monkeypatch.setattr(erasing, "_note_gone", note_gone)
        bob.forget(user="alice")
        assert not held_in(files.agent_folder(folder, "bob") / "graph", "xylophonequartz")
        monkeypatch.undo()
        assert bob.cypher("MATCH (m:Message) RETURN count(*) AS n") == [{"n": 1}]


def test_questions_that_join_much_do_not_use_the_pool_up(folder):
    """A connection keeps what its earlier statements joined; some sixteen of these filled it."""
    with elytron.open(folder, graph_buffer_mb=32, max_worker_mb=256, graph_timeout_s=60) as store:
        bob = store.agent("bob")
        names = [f"concept {n}" for n in range(3000)]
        facts = [
            Relate(Name(a, a), "knows", Name(b, b), 1.0, None, None, False, 0)
            for step in range(1, 9)
            for a, b in zip(names, names[step:] + names[:step], strict=True)
        ]
        with store._agents.use("bob", create=True) as agent:
            for start in range(0, len(facts), 200):
                done = agent.ledger.commit(facts[start : start + 200], time.monotonic() + 30)
                assert not any(isinstance(one, Exception) for one in done)
                if agent.ledger.checkpoint_due():
                    agent.ledger.checkpoint()
        for n in range(24):
            (row,) = bob.cypher(
                "MATCH (a:Concept)-[r:RELATES_TO]->(b:Concept)-[q:RELATES_TO]->(c:Concept)"
                f" WHERE a.name < $name AND c.key > {n}"
                " RETURN count(*) AS n, max(r.strength) AS most, count(DISTINCT b.name) AS names",
                {"name": "concept 2"},
            )
            assert row["n"] > 0
        assert store.usage().worker.starts == 1


def test_builds_that_are_lost_with_the_worker_are_begun_again(folder, monkeypatch):
    """As when another agent's questions take more memory than the worker may have."""
    with elytron.open(folder) as store, clients() as start:
        client, bob = start("ladybug"), store.agent("bob")
        fill(bob, 50)
        plain, lost = client.load, [GraphState(None, None, 0, 0, 0, 0, None)] * 5

        def load(*arguments, **named):
            if lost:
                raise Behind(lost.pop())
            plain(*arguments, **named)

        monkeypatch.setattr(client, "load", load)
        with projecting(bob, client) as graph:
            same(graph)
        assert not lost
