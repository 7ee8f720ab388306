"""Concepts: one for all spellings, and where they occur; what the background writes of them."""

from datetime import UTC, datetime, timedelta

import pytest

import elytron
from elytron import Conflict, InvalidArgument, NotFound
from elytron.ledger import schema
from elytron.ledger.learned import (
    BY_EXTRACTOR,
    BY_TEXT,
    HEARD_MAX,
    Heard,
    LearnedRelation,
    Link,
    Linked,
    LinkResult,
    Looked,
    Mention,
    NewConcept,
)
from ledgers import changes_of, row_of, state, write
from links import mentions

# In a file and on a server.
pytestmark = pytest.mark.ledgers

NOW = datetime.now(UTC)
QUIET = {"link_concepts": False, "propose_concepts": False}  # nothing is linked but by the test


@pytest.fixture
def quiet(open_store) -> elytron.Agent:
    return open_store(**QUIET).agent("bob")


def names(concepts: list[elytron.Concept]) -> list[str]:
    return [concept.name for concept in concepts]


# -- names


@pytest.mark.parametrize("spelling", ["José", "jose", "JOSÉ", "Jose\u0301", " josé ", "jo\u0073é"])
def test_all_spellings_of_a_name_are_one_concept_and_the_first_is_shown(bob, spelling):
    bob.relate("José", "knows", "Lyon")
    bob.relate(spelling, "likes", "Paris")
    assert names(bob.concepts("jos")) == ["José"]
    assert bob.concept(spelling).concept.name == "José"


@pytest.mark.parametrize(
    "name", ["C++", "!!!", "🐍", "東京", "Café de Flore", "x" * 200, "a\u200db"]
)
def test_a_name_may_be_anything_that_is_printed(open_store, name):
    with open_store() as store:
        store.agent("bob").remember("x", about=[name])
    with open_store() as store:
        bob = store.agent("bob")
        assert bob.concept(name).concept.name == name
        assert bob.delete_concept(name)
        assert bob.concept(name) is None


def test_signs_that_are_no_words_tell_names_of_signs_apart(bob):
    bob.remember("x", about=["!!!", "???", "C++", "C"])
    assert len(bob.concepts()) == 3, "C++ and C have the same word"


def test_the_most_mentioned_come_first_and_filters_leave_the_rest_out(quiet):
    bob = quiet
    for n in range(3):
        bob.remember(f"{n}", about=["Alice", "Lyon"][: n + 1])
    bob.remember("more", about=["Lyonel", "Basel"])
    bob.set_concept("Lyon", type="place")
    bob.set_concept("Basel", type="place")
    found = bob.concepts()
    assert names(found) == ["Alice", "Lyon", "Basel", "Lyonel"]
    assert [one.mentions for one in found] == [3, 2, 1, 1]
    assert names(bob.concepts("lyo")) == ["Lyon", "Lyonel"]
    assert names(bob.concepts("É")) == ["Alice", "Basel", "Lyonel"]
    assert names(bob.concepts("l")) == ["Lyon", "Lyonel", "Alice", "Basel"], (
        "beginning with it first"
    )
    assert names(bob.concepts(type="place")) == ["Lyon", "Basel"]
    assert names(bob.concepts(limit=2)) == ["Alice", "Lyon"]
    assert names(bob.concepts(origin="told", limit=1)) == ["Alice"]
    assert bob.concepts(origin="proposed") == bob.concepts("zzz") == []


def test_a_concept_is_shown_with_where_it_occurs(open_store):
    bob = open_store().agent("bob")
    for n in range(7):
        bob.save("user", f"Alice said {n}", id=f"m{n}", at=NOW - timedelta(days=9 - n))
    bob.save("user", "Nobody", id="other")
    bob.remember("A friend", about=["Alice"], id="friend")
    bob.remember("It was so", about=["Alice"], id="past", valid_to=NOW - timedelta(days=1))
    bob.relate("Alice", "lives in", "Lyon")
    bob.relate("Bruno", "knows", "Alice")
    bob.relate("Bruno", "knows", "Lyon")
    shown = bob.concept("alice")
    assert shown.concept.mentions == 9
    assert [message.id for message in shown.examples] == ["m6", "m5", "m4", "m3", "m2"]
    assert [memory.id for memory in shown.memories] == ["friend"]
    assert {one.relation for one in shown.relations} == {"lives in", "knows"}
    assert shown.first_at == NOW - timedelta(days=9)
    assert shown.last_at == bob.get_memory("past").created
    assert bob.concept("nobody at all") is None


def test_a_concept_that_nothing_names_is_shown_empty(bob):
    bob.relate("Alice", "knows", "Bruno")
    bob.unrelate("Alice")
    shown = bob.concept("Alice")
    assert shown.concept.mentions == 0
    assert (shown.first_at, shown.last_at) == (None, None)
    assert (shown.examples, shown.memories, shown.relations) == ((), (), ())


# -- changing


def test_what_is_known_of_a_concept_is_changed_one_by_one(open_store):
    with open_store() as store:
        bob = store.agent("bob")
        bob.remember("x", about=["Lyon"], id="x")
        first = bob.set_concept("LYON", type="place")
        assert (first.name, first.type, first.description) == ("Lyon", "place", None)
        bob.set_concept("lyon", description="A city\nin France", confidence=0.5)
    with open_store() as store:
        bob = store.agent("bob")
        held = bob.concept("lyon").concept
        assert (held.type, held.description, held.confidence) == ("place", "A city\nin France", 0.5)
        assert bob.set_concept("lyon", type="", description="").type is None
        before = state(bob)
        assert bob.set_concept("lyon").description is None
        assert state(bob) == before, "nothing to change"


def test_a_renamed_concept_keeps_all_that_names_it(bob):
    bob.remember("x", about=["Bombay"], id="x")
    bob.relate("Bombay", "lies in", "India")
    assert bob.set_concept("bombay", rename="Mumbai").name == "Mumbai"
    assert bob.concept("Bombay") is None
    assert bob.get_memory("x").about == ("Mumbai",)
    assert bob.relations("mumbai")[0].source == "Mumbai"
    assert bob.set_concept("mumbai", rename="MUMBAI").name == "MUMBAI", "another spelling"
    with pytest.raises(Conflict, match="another concept"):
        bob.set_concept("mumbai", rename="india")
    assert names(bob.concepts()) == ["MUMBAI", "India"]
    assert bob.relate("Bombay", "was", "Mumbai") is None
    assert len(bob.concepts()) == 3
    assert bob.check().ok


def test_what_names_a_renamed_concept_stays_linked_when_another_is_made(open_store):
    """The texts that have the old name are looked through again, for the new concept."""
    bob = open_store(propose_concepts=False).agent("bob")
    bob.relate("Robert Smith", "knows", "New York")
    bob.save("user", "I met Robert Smith near the quartz tower", id="message")
    bob.save("user", "Robert Smith reads the New York Times in the quartz tower", id="paper")
    bob.remember("Robert Smith likes the quartz tower", id="memory")
    bob.set_concept("Robert Smith", rename="Bob Jones")
    bob.relate("quartz tower", "is in", "Portugal")
    bob.relate("New York Times", "is a", "newspaper")
    bob.flush()
    both = {"Bob Jones", "quartz tower"}
    assert mentions(bob) == {
        "message": both,
        "paper": both | {"New York Times"},
        "memory": both,
    }
    bob.edit("message", "I met him near the quartz tower")
    bob.flush()
    assert mentions(bob)["message"] == {"quartz tower"}


def test_a_deleted_concept_takes_its_relations_and_leaves_what_was_saved(look, open_store):
    with open_store() as store:
        bob = store.agent("bob")
        bob.save("user", "Alice is in Lyon", id="m")
        bob.remember("Alice likes tea", about=["Alice"], id="x")
        bob.relate("Alice", "lives in", "Lyon")
        bob.flush()
        assert bob.delete_concept("ALICE") is True
        assert bob.delete_concept("Alice") is False
        assert bob.get("m") is not None
        assert bob.get_memory("x").about == ()
        assert bob.relations() == []
        assert bob.memories(about="Alice") == []
        assert names(bob.concepts(origin="told")) == ["Lyon"]
        assert bob.check().ok
    assert look("SELECT count(*) FROM relations") == [(0,)]


def test_a_concept_with_more_ties_than_fit_one_commit_goes_whole(open_store, folder):
    bob = open_store(**QUIET, max_db_size_mb=10, wal_limit_mb=0.25, max_message_kb=16).agent("bob")
    for n in range(120):
        bob.remember(f"{n}", about=["Alice"])
        bob.relate("Alice", "knows", f"P{n}")
    assert bob.delete_concept("Alice")
    assert bob.check().ok
    assert bob.usage().edges == 0


BAD = [
    lambda bob: bob.concepts(""), lambda bob: bob.concepts("a\nb"), lambda bob: bob.concepts(3),
    lambda bob: bob.concepts(type=""), lambda bob: bob.concepts(origin="heard"),
    lambda bob: bob.concepts(origin=1), lambda bob: bob.concepts(limit=0),
    lambda bob: bob.concept(""), lambda bob: bob.concept("x" * 201), lambda bob: bob.concept(None),
    lambda bob: bob.set_concept(""), lambda bob: bob.set_concept("Alice", rename=""),
    lambda bob: bob.set_concept("Alice", rename="a\0"),
    lambda bob: bob.set_concept("Alice", type=3),
    lambda bob: bob.set_concept("Alice", type="x" * 201),
    lambda bob: bob.set_concept("Alice", type=" "),
    lambda bob: bob.set_concept("Alice", description="x" * 2001),
    lambda bob: bob.set_concept("Alice", description="a\0"),
    lambda bob: bob.set_concept("Alice", description="a\ud800"),
    lambda bob: bob.set_concept("Alice", description=False),
    lambda bob: bob.set_concept("Alice", confidence=2),
    lambda bob: bob.set_concept("Alice", confidence="1"), lambda bob: bob.delete_concept(""),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_a_bad_value_is_refused_and_nothing_is_changed(quiet, number):
    quiet.remember("x", about=["Alice"])
    before = state(quiet), quiet.concepts()
    with pytest.raises(InvalidArgument):
        BAD[number](quiet)
    assert (state(quiet), quiet.concepts()) == before


def test_what_is_not_there_is_not_changed_and_nothing_is_made(folder, bob):
    assert bob.concepts() == []
    assert bob.concept("Alice") is None
    assert bob.delete_concept("Alice") is False
    with pytest.raises(NotFound):
        bob.set_concept("Alice", type="x")
    assert not folder.exists()
    bob.save("user", "Hello")
    with pytest.raises(NotFound, match="nothing was changed"):
        bob.set_concept("Alice", type="x")


# -- links


def linked(bob, id: str, *mentions: Mention, memory: bool = False, **more) -> Linked:
    """A source as it is now."""
    key, checksum = row_of(bob, "memories" if memory else "messages", id)
    kind = schema.MEMORY if memory else schema.MESSAGE
    return Linked(key, kind, checksum, mentions, **more)


def proposed(name: str, **more) -> NewConcept:
    return NewConcept(name, name.lower(), schema.PROPOSED, **{"confidence": 0.4} | more)


def named(bob, name: str) -> list[str]:
    found = bob.concept(name)
    return [message.id for message in found.examples] if found else []


def test_what_a_text_names_is_noted_once_and_told_as_a_change(quiet):
    quiet.save("user", "Alice is in Lyon", id="m")
    quiet.relate("Alice", "knows", "Bruno")
    link = Link("links", 0, 5, (linked(quiet, "m", Mention("alice", 0.9), Mention("nobody")),))
    assert write(quiet, link) == LinkResult(True, linked=1)
    assert named(quiet, "Alice") == ["m"]
    (key, _) = row_of(quiet, "messages", "m")
    assert changes_of(quiet)[-1] == (schema.LINK, schema.MESSAGE, key)
    again = Link("links", 5, 6, link.sources)
    before = changes_of(quiet)
    assert write(quiet, again) == LinkResult(True)
    assert changes_of(quiet) == before, "nothing differed"
    none = Link("links", 6, 7, (linked(quiet, "m"),))
    assert write(quiet, none).linked == 1
    assert named(quiet, "Alice") == []


def test_who_comes_second_is_told_so_and_changes_nothing(quiet):
    quiet.save("user", "Alice", id="m")
    quiet.relate("Alice", "knows", "Bruno")
    assert write(quiet, Link("links", 0, 5)).applied
    late = Link("links", 0, 9, (linked(quiet, "m", Mention("alice")),), concepts=(proposed("X"),))
    before = state(quiet)
    assert write(quiet, late) == LinkResult(applied=False)
    assert state(quiet) == before
    assert write(quiet, Link("links", 5, 0)).applied, "it may begin anew"
    assert write(quiet, Link("other", 0, 3)).applied, "each reader has its own"


def test_what_is_told_stays_whatever_the_text_says(quiet):
    quiet.remember("Alice", about=["Alice", "Bruno"], id="x")
    found = linked(quiet, "x", Mention("alice", 0.5), memory=True)
    assert write(quiet, Link("links", 0, 5, (found,))).linked == 0
    assert quiet.get_memory("x").about == ("Alice", "Bruno")
    extracted = linked(
        quiet, "x", Mention("bruno", 0.5, BY_EXTRACTOR), memory=True,
        replaces=(BY_TEXT, BY_EXTRACTOR),
    )  # fmt: skip
    assert write(quiet, Link("links", 5, 6, (extracted,))).linked == 0


def test_what_an_extractor_found_stays_when_only_names_were_looked_for(quiet):
    quiet.save("user", "She is in Lyon", id="m")
    quiet.relate("Alice", "lives in", "Lyon")
    both = (BY_TEXT, BY_EXTRACTOR)
    mentions = (Mention("alice", 0.8, BY_EXTRACTOR), Mention("lyon"))
    write(quiet, Link("links", 0, 1, (linked(quiet, "m", *mentions, replaces=both),)))
    write(quiet, Link("links", 1, 2, (linked(quiet, "m"),)))
    assert (named(quiet, "Alice"), named(quiet, "Lyon")) == (["m"], [])
    write(quiet, Link("links", 2, 3, (linked(quiet, "m", replaces=both),)))
    assert named(quiet, "Alice") == []


@pytest.mark.parametrize("meanwhile", ["edited", "deleted", "forgotten"])
def test_nothing_is_written_of_a_text_that_changed_meanwhile(look, quiet, store, meanwhile):
    quiet.save("user", "SecretName likes SecretThing", id="m", user="mallory")
    quiet.save("user", "Alice", id="n")
    source = linked(quiet, "m", Mention("secretname", 0.4))
    link = Link(
        "links", 0, 9, (source, linked(quiet, "n")),
        (proposed("SecretName"), proposed("SecretThing")),
        (LearnedRelation("secretname", "likes", "secretthing", source.key),), (source.key,),
        (Heard("secretword", "SecretWord", 1, source.key),),
    )  # fmt: skip
    if meanwhile == "edited":
        quiet.edit("m", "Nothing")
    elif meanwhile == "deleted":
        quiet.delete("m")
    else:
        quiet.forget(user="mallory")
    assert write(quiet, link) == LinkResult(True)
    assert quiet.concepts() == []
    assert quiet.relations() == []
    store.close()
    assert look("SELECT count(*) FROM heard") == [(0,)]


def test_new_concepts_are_made_only_where_something_names_them(quiet):
    quiet.save("user", "Alice", id="m")
    source = linked(quiet, "m", Mention("alice", 0.4))
    new = (proposed("Alice"), proposed("Unnamed"))
    assert write(quiet, Link("links", 0, 1, (source,), new)) == LinkResult(True, 1, 1)
    (held,) = quiet.concepts()
    assert (held.name, held.origin, held.confidence, held.mentions) == ("Alice", "proposed", 0.4, 1)


def test_a_surer_origin_counts_and_a_weaker_one_changes_nothing(quiet):
    quiet.save("user", "Alice", id="m")

    def link(before: int, origin: int, **more) -> None:
        source = linked(quiet, "m", Mention("alice", 0.4))
        new = NewConcept("ALICE", "alice", origin, **more)
        write(quiet, Link("links", before, before + 1, (source,), (new,)))

    link(0, schema.PROPOSED, confidence=0.4)
    link(1, schema.EXTRACTED, confidence=0.7, type="person", description="A friend")
    (held,) = quiet.concepts()
    assert (held.name, held.origin, held.confidence) == ("ALICE", "extracted", 0.7)
    assert (held.type, held.description) == ("person", "A friend")
    link(2, schema.PROPOSED, confidence=0.9, type="thing")
    assert quiet.concepts() == [held]
    quiet.remember("x", about=["alice"])
    (told,) = quiet.concepts()
    assert (told.origin, told.confidence, told.type) == ("told", 1.0, "person")


@pytest.mark.parametrize("how", ["set_concept", "remember", "relate"])
def test_naming_a_proposed_concept_confirms_it(quiet, how):
    quiet.save("user", "Alice", id="m")
    source = linked(quiet, "m", Mention("alice", 0.4))
    write(quiet, Link("links", 0, 1, (source,), (proposed("Alice"),)))
    if how == "set_concept":
        quiet.set_concept("alice")
    elif how == "remember":
        quiet.remember("x", about=["alice"])
    else:
        quiet.relate("Bruno", "knows", "alice")
    told = quiet.concepts("alice")[0]
    assert (told.origin, told.confidence) == ("told", 1.0)


def test_beyond_the_limit_what_was_not_told_is_counted_and_not_made(open_store):
    bob = open_store(**QUIET, max_concepts=2).agent("bob")
    bob.save("user", "A B C", id="m")
    new = tuple(proposed(name) for name in ("A", "B", "C", "D"))
    source = linked(bob, "m", *[Mention(one.folded) for one in new])
    result = write(bob, Link("links", 0, 1, (source,), new))
    assert (result.concepts, result.unmade) == (2, 2)
    assert bob.usage().concepts == 2


def test_what_was_read_in_a_message_is_known_by_it_and_read_anew_with_it(quiet):
    quiet.save("user", "Alice lives in Lyon", id="m")
    new = (proposed("Alice"), proposed("Lyon"), proposed("Nice"))

    def read(before: int, *targets: str) -> LinkResult:
        source = linked(quiet, "m")
        relations = [LearnedRelation("alice", "lives in", one, source.key) for one in targets]
        return write(
            quiet,
            Link("extracts", before, before + 1, (source,), new, tuple(relations), (source.key,)),
        )

    assert read(0, "lyon").relations == 1
    (fact,) = quiet.relations()
    assert (fact.source, fact.target, fact.learned_from) == ("Alice", "Lyon", "m")
    assert read(1, "lyon").relations == 0
    quiet.unrelate("Alice")
    assert read(2, "lyon").relations == 0, "a person has closed it"
    assert quiet.relations() == []
    assert read(3, "nice").relations == 1
    assert quiet.usage().edges == 1, "what is not read any more goes"
    quiet.relate("Alice", "lives in", "Nice")
    assert read(4).relations == 0
    assert quiet.relations()[0].learned_from is None, "told since, so it stays"


def test_what_was_read_stays_when_the_message_is_archived_and_goes_when_it_is_deleted(quiet):
    for name in ("m", "n"):
        quiet.save("user", name, id=name)
        source = linked(quiet, name)
        new = (proposed("Alice"), proposed(name * 3))
        relation = LearnedRelation("alice", "knows", name * 3, source.key)
        write(quiet, Link(name, 0, 1, (source,), new, (relation,), (source.key,)))
    quiet.archive(older_than_days=0, keep=0)
    assert {one.learned_from for one in quiet.relations()} == {None}
    quiet.restore(["m"])
    quiet.delete("n")
    assert {one.target: one.learned_from for one in quiet.relations()} == {"mmm": "m"}
    assert quiet.check().ok


def test_only_the_most_heard_and_newest_names_are_kept(look, quiet, store):
    quiet.save("user", "x", id="m")
    source = linked(quiet, "m")
    for start in range(0, HEARD_MAX + 500, 500):
        heard = tuple(
            Heard(f"n{n}", f"N{n}", 1 + (n % 10 == 0), source.key)
            for n in range(start, start + 500)
        )
        write(quiet, Link("links", start, start + 500, (source,), heard=heard))
    write(quiet, Link("links", HEARD_MAX + 500, 1, (), heard=(Heard("n0", "N0", 0, 0),)))
    store.close()
    counts = dict(look("SELECT times, count(*) FROM heard GROUP BY times"))
    assert counts == {2: HEARD_MAX // 10 + 49, 1: HEARD_MAX - HEARD_MAX // 10 - 50}


def test_a_concept_made_later_is_to_be_looked_for_in_older_texts(quiet):
    quiet.relate("Early", "knows", "Bird")
    assert unlinked(quiet) == {}
    quiet.save("user", "Alice", id="m")
    quiet.relate("Alice", "knows", "Early")
    alice, _ = row_of(quiet, "concepts", "alice", "folded")
    assert unlinked(quiet) == {alice: alice}
    step = Link("links", None, None, looked=(Looked(alice, alice, 3),))
    assert write(quiet, step).applied
    assert not write(quiet, step).applied
    assert unlinked(quiet) == {alice: 3}
    assert write(quiet, Link("links", None, None, looked=(Looked(alice, 3, 0),))).applied
    assert unlinked(quiet) == {}
    quiet.set_concept("Alice", rename="Alicia")
    assert unlinked(quiet).keys() == {alice}, "older texts may have the new name"
    quiet.delete_concept("Alicia")
    assert unlinked(quiet) == {}


def unlinked(bob) -> dict[int, int]:
    with bob._agents.use("bob", create=False) as agent, agent.ledger.reading() as db:
        return dict(db.execute("SELECT concept, key FROM unlinked").fetchall())


def test_a_proposed_concept_that_nothing_names_any_more_is_tidied_away(quiet):
    for name in ("m", "n"):
        quiet.save("user", name, id=name)
        source = linked(quiet, name, Mention(name * 3))
        looked = write(quiet, Link(name, 0, 1, (source,), (proposed(name * 3),)))
        assert looked.concepts == 1
    for concept, key in unlinked(quiet).items():
        write(quiet, Link("links", None, None, looked=(Looked(concept, key, 0),)))
    quiet.relate("Told", "knows", "Also")
    quiet.unrelate("Told")
    quiet.pin("n")
    assert len(quiet.concepts()) == 4
    assert quiet.archive(older_than_days=0, keep=0).archived == 1
    assert set(names(quiet.concepts())) == {"nnn", "Told", "Also"}
    assert quiet.check().ok
