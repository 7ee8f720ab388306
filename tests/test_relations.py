"""Relations: facts about two concepts, told again without harm, closed rather than overwritten."""

from datetime import UTC, datetime, timedelta

import pytest

import elytron
from elytron import InvalidArgument
from ledgers import state

# On each kind of store; those marked `here` look at what one of this process has inside.
pytestmark = pytest.mark.contract

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
LONG = "x" * 201


def facts(relations: list[elytron.Relation]) -> set[str]:
    return {f"{one.source} {one.relation} {one.target}" for one in relations}


def spans(relations: list[elytron.Relation]) -> list[tuple[str, object, object]]:
    return sorted([(one.target, one.valid_from, one.valid_to) for one in relations], key=str)


def test_a_fact_comes_back_as_it_was_told_after_reopening(open_store):
    with open_store() as store:
        store.agent("bob").relate(
            " José ", "lives  in", "Lyon", strength=0.7, valid_from=NOW - DAY, valid_to=NOW + DAY
        )
    with open_store() as store:
        bob = store.agent("bob")
        assert bob.relations() == [
            elytron.Relation("José", "lives in", "Lyon", 0.7, NOW - DAY, NOW + DAY, None)
        ]
        assert {concept.name for concept in bob.concepts(origin="told")} == {"José", "Lyon"}
        assert bob.usage().edges == 1
        assert bob.check().ok


def test_facts_are_found_from_both_sides_in_any_spelling_newest_first(bob):
    bob.relate("Alice", "knows", "Bob")
    bob.relate("Carol", "knows", "alice")
    bob.relate("ALICE", "lives in", "Lyon")
    bob.relate("Bob", "lives in", "Paris")
    found = bob.relations("alicé")
    assert [one.relation for one in found] == ["lives in", "knows", "knows"]
    assert facts(found) == {"Alice knows Bob", "Carol knows Alice", "Alice lives in Lyon"}
    assert facts(bob.relations("Alice", relation="knows")) == {
        "Alice knows Bob",
        "Carol knows Alice",
    }
    assert facts(bob.relations(relation="lives in")) == {
        "Alice lives in Lyon",
        "Bob lives in Paris",
    }
    assert len(bob.relations(limit=3)) == 3
    assert bob.relations("nobody") == bob.relations(relation="Knows") == []


def test_the_same_fact_again_is_harmless_and_takes_what_is_given(bob):
    bob.relate("Alice", "lives in", "Lyon")
    before = state(bob)
    bob.relate("alice", "lives in", "LYON")
    assert state(bob) == before
    bob.relate("Alice", "lives in", "Lyon", strength=0.5, valid_from=NOW - 5 * DAY)
    bob.relate("Alice", "lives in", "Lyon", strength=0.5, valid_to=NOW + DAY)
    assert bob.relations() == [
        elytron.Relation("Alice", "lives in", "Lyon", 0.5, NOW - 5 * DAY, NOW + DAY)
    ]
    bob.relate("Alice", "lives in", "Lyon", strength=0.5)
    assert spans(bob.relations()) == [("Lyon", NOW - 5 * DAY, NOW + DAY)], "it holds still"


def test_a_time_that_does_not_touch_the_other_is_another_fact(bob):
    bob.relate("Alice", "works at", "Acme", valid_from=NOW - 9 * DAY, valid_to=NOW - 7 * DAY)
    bob.relate("Alice", "works at", "Acme", valid_from=NOW - 2 * DAY)
    bob.relate("Alice", "works at", "Acme", valid_from=NOW - 9 * DAY, valid_to=NOW - 7 * DAY)
    assert spans(bob.relations()) == [("Acme", NOW - 2 * DAY, None)]
    assert spans(bob.relations(as_of=NOW - 8 * DAY)) == [("Acme", NOW - 9 * DAY, NOW - 7 * DAY)]
    assert bob.relations(as_of=NOW - 5 * DAY) == []
    assert bob.usage().edges == 2
    bob.relate("Alice", "works at", "Acme", valid_from=NOW - 20 * DAY, valid_to=NOW - 15 * DAY)
    assert bob.usage().edges == 3, "before the one that holds now, so it is none of that"


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("end", [None, NOW + 30 * DAY, NOW + 90 * DAY])
def test_a_fact_told_now_holds_now_though_it_was_told_for_later(bob, replaces, end):
    bob.relate("Alice", "lives in", "Paris")
    bob.relate("Alice", "lives in", "Lyon", valid_from=NOW + 60 * DAY)
    for _ in range(2):
        bob.relate("Alice", "lives in", "Lyon", replaces=replaces, valid_to=end)
        lyon, *others = bob.relations("Alice")
        assert (lyon.target, lyon.valid_to) == ("Lyon", min(end or NOW + 60 * DAY, NOW + 60 * DAY))
        assert [other.target for other in others] == ([] if replaces else ["Paris"])
    ends = [fact.valid_to for fact in bob.relations("Lyon", as_of=NOW + 70 * DAY)]
    assert ends == [None if end == NOW + 30 * DAY else end]
    assert bob.usage().edges == 3


def test_what_is_replaced_is_closed_and_as_of_asks_the_past(bob):
    bob.relate("Alice", "lives in", "Lyon", valid_from=NOW - 9 * DAY)
    bob.relate("Alice", "lives in", "Nice", valid_from=NOW - 8 * DAY)
    bob.relate("Alice", "likes", "Lyon")
    bob.relate("Bob", "lives in", "Lyon")
    bob.relate("Alice", "lives in", "Paris", valid_from=NOW - 2 * DAY, replaces=True)
    assert facts(bob.relations()) == {
        "Alice lives in Paris", "Alice likes Lyon", "Bob lives in Lyon",
    }  # fmt: skip
    past = bob.relations("Alice", relation="lives in", as_of=NOW - 3 * DAY)
    assert spans(past) == [
        ("Lyon", NOW - 9 * DAY, NOW - 2 * DAY), ("Nice", NOW - 8 * DAY, NOW - 2 * DAY),
    ]  # fmt: skip
    before = state(bob), bob.relations()
    bob.relate("Alice", "lives in", "Paris", replaces=True)
    assert (state(bob), bob.relations()) == before


def test_what_replaces_without_a_time_begins_now(bob):
    bob.relate("Alice", "lives in", "Lyon")
    before = datetime.now(UTC)
    bob.relate("Alice", "lives in", "Paris", replaces=True)
    (now,) = bob.relations("Alice")
    (then,) = bob.relations("Alice", as_of=before)
    assert now.target == "Paris"
    assert then.target == "Lyon"
    assert now.valid_from == then.valid_to >= before


def test_a_known_fact_may_replace_others_too(bob):
    bob.relate("Alice", "lives in", "Lyon")
    bob.relate("Alice", "lives in", "Paris")
    bob.relate("Alice", "lives in", "Lyon", replaces=True)
    assert facts(bob.relations()) == {"Alice lives in Lyon"}
    assert facts(bob.relations(as_of=NOW - DAY)) == {"Alice lives in Lyon", "Alice lives in Paris"}


def test_a_fact_that_begins_later_is_not_replaced_by_one_that_would_hold_beside_it(bob):
    bob.relate("Alice", "lives in", "Paris", valid_from=NOW - 2 * DAY)
    before = state(bob), bob.relations()
    with pytest.raises(InvalidArgument, match=r"begins at .* after the new one.*`valid_to`"):
        bob.relate("Alice", "lives in", "Lyon", valid_from=NOW - 9 * DAY, replaces=True)
    assert (state(bob), bob.relations()) == before, "not even its concept was made"
    bob.relate(
        "Alice", "lives in", "Lyon", valid_from=NOW - 9 * DAY, valid_to=NOW - 2 * DAY, replaces=True
    )
    assert facts(bob.relations()) == {"Alice lives in Paris"}
    assert facts(bob.relations(as_of=NOW - 5 * DAY)) == {"Alice lives in Lyon"}


def test_a_fact_told_to_hold_past_several_that_begin_later_is_refused(bob):
    """Which of these is to end where cannot be told."""
    bob.relate("A", "in", "X", valid_from=NOW + 5 * DAY, valid_to=NOW + 6 * DAY)
    bob.relate("A", "in", "X", valid_from=NOW + 8 * DAY)
    with pytest.raises(InvalidArgument, match="2 times for later"):
        bob.relate("A", "in", "X", valid_to=NOW + 10 * DAY)
    assert bob.usage().edges == 2
    bob.relate("A", "in", "X")
    assert [one.valid_to for one in bob.relations("A")] == [NOW + 5 * DAY]


def test_a_fact_that_was_to_begin_later_never_holds_once_another_replaces_it(bob):
    bob.relate("Alice", "lives in", "Paris", valid_from=NOW + 2 * DAY)
    bob.relate("Alice", "lives in", "Lyon", replaces=True)
    assert (
        facts(bob.relations())
        == facts(bob.relations(as_of=NOW + 9 * DAY))
        == {"Alice lives in Lyon"}
    )
    assert bob.usage().edges == 2


def test_one_fact_does_not_replace_more_than_fit_into_one_commit(bob):
    for n in range(65):
        bob.relate("Alice", "knows", f"P{n}")
    before = state(bob)
    with pytest.raises(InvalidArgument, match=r"more than 64 facts.*`unrelate`"):
        bob.relate("Alice", "knows", "Nobody", replaces=True)
    assert state(bob) == before
    assert bob.unrelate("Alice", "knows", "P3") == 1
    bob.relate("Alice", "knows", "Nobody", replaces=True)
    assert facts(bob.relations()) == {"Alice knows Nobody"}


def test_unrelating_closes_what_is_meant_and_removes_nothing(bob):
    for relation in ("knows", "likes"):
        for target in ("Bob", "Carol"):
            bob.relate("Alice", relation, target)
    bob.relate("Bob", "knows", "Alice")
    assert bob.unrelate("alice", "knows", "BOB", at=NOW - DAY) == 1
    assert bob.unrelate("alice", "knows", "BOB") == 0
    assert bob.unrelate("Alice", target="Carol") == 2
    assert facts(bob.relations()) == {"Alice likes Bob", "Bob knows Alice"}
    assert bob.unrelate("Alice") == 1
    assert facts(bob.relations()) == {"Bob knows Alice"}
    assert len(bob.relations(as_of=NOW - 2 * DAY)) == bob.usage().edges == 5
    assert bob.unrelate("nobody") == bob.unrelate("Alice", target="nobody") == 0
    bob.relate("Alice", "knows", "Bob")
    assert bob.usage().edges == 6, "it holds again, from a time that is not known"
    assert bob.check().ok


def test_many_facts_are_closed_in_commits_that_fit(open_store):
    bob = open_store(max_db_size_mb=10, wal_limit_mb=0.25, max_message_kb=16).agent("bob")
    for n in range(150):
        bob.relate("Alice", "knows", f"P{n}")
    assert bob.unrelate("Alice") == 150
    assert bob.relations() == []
    assert bob.usage().bytes.wal <= 0.25 * 2**20


@pytest.mark.parametrize("values", [
    {"source": ""}, {"source": 3}, {"source": LONG}, {"source": "a\nb"}, {"target": " "},
    {"target": None}, {"target": "\u0301"}, {"relation": ""}, {"relation": LONG},
    {"relation": "a\0"}, {"relation": None}, {"strength": 1.1}, {"strength": -1},
    {"strength": "1"}, {"strength": None}, {"strength": float("nan")}, {"replaces": 1},
    {"valid_from": datetime(2024, 1, 1)}, {"valid_to": "now"},  # noqa: DTZ001
    {"valid_from": NOW, "valid_to": NOW}, {"valid_to": NOW - DAY, "replaces": True},
])  # fmt: skip
def test_a_bad_value_is_refused_and_nothing_is_written(folder, bob, values):
    with pytest.raises(InvalidArgument) as error:
        bob.relate(**{"source": "a", "relation": "b", "target": "c"} | values)
    assert len(str(error.value)) < 300
    assert not folder.exists()


@pytest.mark.parametrize("ask", [
    lambda bob: bob.unrelate(""),
    lambda bob: bob.unrelate("a", ""),
    lambda bob: bob.unrelate("a", None, ""),
    lambda bob: bob.unrelate("a", at=datetime(2024, 1, 1)),  # noqa: DTZ001
    lambda bob: bob.relations(""),
    lambda bob: bob.relations(relation=""),
    lambda bob: bob.relations(as_of=3),
    lambda bob: bob.relations(limit=0),
    lambda bob: bob.relations(limit=10_001),
])  # fmt: skip
def test_a_bad_question_is_refused(bob, ask):
    bob.relate("a", "b", "c")
    with pytest.raises(InvalidArgument):
        ask(bob)


def test_asking_for_facts_makes_nothing(folder, bob):
    assert bob.relations() == bob.relations("Alice") == []
    assert bob.unrelate("Alice") == 0
    assert not folder.exists()


def test_a_concept_may_be_related_to_itself(bob):
    bob.relate("Alice", "knows", "ALICE")
    assert facts(bob.relations("alice")) == {"Alice knows Alice"}
    assert bob.usage().concepts == 1
