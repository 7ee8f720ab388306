"""Memories: remembered, found again, closed rather than overwritten, and gone when deleted."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

import elytron
from elytron import Conflict, InvalidArgument, InvalidSetting, NotFound, OverBudget
from ledgers import state

# On each kind of store; those marked `here` look at what one of this process has inside.
pytestmark = pytest.mark.contract

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
LONG = "x" * 201


def ids(memories: list[elytron.Memory]) -> list[str]:
    return [memory.id for memory in memories]


def test_a_memory_comes_back_as_it_was_told_after_reopening(open_store, check_words):
    paris = timezone(timedelta(hours=2))
    begin = datetime(2024, 5, 8, 12, tzinfo=paris)
    told = {
        "about": ["José", "Python", "jose"],
        "kind": "preference",
        "importance": 0.8,
        "pinned": True,
        "session": "web-42",
        "valid_from": begin,
        "valid_to": datetime(9000, 1, 1, tzinfo=UTC),
        "metadata": {"source": ["é", 1, None]},
        "id": "one",
    }
    with open_store() as store:
        receipt = store.agent("bob").remember("José likes Python\nand 🐍", **told)
        assert receipt == elytron.Receipt("one")
    with open_store() as store:
        bob = store.agent("bob")
        memory = bob.get_memory("one")
        assert memory.content == "José likes Python\nand 🐍"
        assert memory.about == ("José", "Python"), "each once, by its first spelling"
        assert (memory.kind, memory.importance, memory.pinned) == ("preference", 0.8, True)
        assert memory.session == "web-42"
        assert memory.valid_from == begin
        assert memory.valid_to == told["valid_to"]
        assert memory.metadata == told["metadata"]
        assert NOW - DAY < memory.created < NOW + DAY
        assert (memory.uses, memory.last_used) == (0, None)
        assert bob.memories() == [memory]
        usage = bob.usage()
        assert (usage.memories, usage.concepts, usage.edges, usage.sessions) == (1, 2, 2, 1)
        assert bob.sessions() == [], "no message was said in it"
        assert bob.check().ok
    check_words()


def test_a_memory_of_a_word_alone_has_the_defaults(bob):
    receipt = bob.remember("x")
    memory = bob.get_memory(receipt.id)
    assert memory == elytron.Memory(
        receipt.id, "x", "fact", (), 0.5, False, None, None, None, memory.created, {}
    )


def test_remembering_the_same_again_is_harmless_and_other_content_is_refused(folder, bob):
    said = {"id": "one", "about": ["Alice"], "session": "s", "metadata": {"a": 1}}
    assert bob.remember("Alice likes tea", **said).new
    before = state(bob)
    assert bob.remember("Alice likes tea", **said) == elytron.Receipt("one", new=False)
    for other in ({"kind": "rumour"}, {"session": "t"}, {"session": None}, {"metadata": {}},
                  {"valid_from": NOW}):  # fmt: skip
        with pytest.raises(Conflict, match="'one' is held with other content"):
            bob.remember("Alice likes tea", **said | other)
    with pytest.raises(Conflict):
        bob.remember("Alice likes coffee", **said)
    assert state(bob) == before


def test_a_retry_of_what_was_closed_since_is_harmless_too(bob):
    bob.remember("Alice lives in Lyon", id="lyon")
    bob.remember("Alice lives in Paris", id="paris", replaces="lyon")
    before = state(bob), bob.get_memory("lyon"), bob.get_memory("paris")
    assert not bob.remember("Alice lives in Lyon", id="lyon").new
    assert not bob.remember("Alice lives in Paris", id="paris", replaces="lyon").new
    assert (state(bob), bob.get_memory("lyon"), bob.get_memory("paris")) == before


BAD = {
    "no content": ({"content": ""}, "content is empty"),
    "blank content": ({"content": " \n"}, "content is empty"),
    "content that is a number": ({"content": 7}, "must be a string; got int"),
    "content that is too long": ({"content": "x" * 262_145}, r"262145.*262144.*`max_message_kb`"),
    "content with a NUL": ({"content": "a\0"}, "NUL character at 1"),
    "content with half a pair": ({"content": "a\ud800"}, "lone surrogate"),
    "one name for about": ({"about": "Alice"}, "about must be names"),
    "about a number": ({"about": 3}, "about must be names"),
    "about a mapping": ({"about": {"Alice": 1}}, "about must be names"),
    "a name that is a number": ({"about": ["Alice", 3]}, "must be a string; got 3"),
    "an empty name": ({"about": [""]}, "is empty"),
    "a blank name": ({"about": ["  "]}, "is empty"),
    "a name that is too long": ({"about": [LONG]}, "201 characters, at most 200"),
    "a name with a line end": ({"about": ["a\nb"]}, "control character at 1"),
    "a name that turns the line": ({"about": ["a\u202eb"]}, "control character at 1"),
    "a name with half a pair": ({"about": ["a\udc00"]}, "lone surrogate at 1"),
    "a name of an accent alone": ({"about": ["\u0301"]}, "nothing but accents"),
    "too many names": ({"about": [f"n{n}" for n in range(101)]}, "more than 100 names"),
    "an empty kind": ({"kind": ""}, "kind is empty"),
    "a kind that is a number": ({"kind": 1}, "kind must be a string"),
    "a kind that is too long": ({"kind": LONG}, "kind has 201 characters"),
    "an importance above 1": ({"importance": 1.01}, "from 0 to 1; got 1.01"),
    "an importance below 0": ({"importance": -0.1}, "from 0 to 1"),
    "an importance that is no number": ({"importance": float("nan")}, "from 0 to 1"),
    "an importance that is a switch": ({"importance": True}, "from 0 to 1"),
    "a pin that is a number": ({"pinned": 1}, "pinned must be true or false"),
    "an empty session": ({"session": ""}, "session is empty"),
    "a beginning without a zone": (
        {"valid_from": datetime(2024, 1, 1)}, "valid_from has no time zone"),  # noqa: DTZ001
    "an end that is text": ({"valid_to": "2024-01-01"}, "valid_to must be a datetime"),
    "an end before the beginning": (
        {"valid_from": NOW, "valid_to": NOW - DAY}, "valid_to is not after valid_from"),
    "an end at the beginning": (
        {"valid_from": NOW, "valid_to": NOW}, "valid_to is not after valid_from"),
    "a beginning before all years": (
        {"valid_from": datetime(1, 1, 1, tzinfo=timezone(DAY / 2))}, "outside the years"),
    "metadata that is a list": ({"metadata": [1]}, "metadata must be a mapping"),
    "metadata that is no JSON": ({"metadata": {"a": object()}}, "not JSON"),
    "metadata that is too long": (
        {"content": "x" * 200_000, "metadata": {"a": "x" * 100_000}}, "together have"),
    "an empty id": ({"id": ""}, "id is empty"),
    "an id with a bell": ({"id": "a\a"}, "at 1"),
    "an empty id to be replaced": ({"replaces": ""}, "replaces is empty"),
    "itself to be replaced": ({"id": "a", "replaces": "a"}, "cannot replace itself"),
    "an end that is past for what begins now": (
        {"replaces": "held", "valid_to": NOW - DAY}, "valid_to is in the past"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_value_is_named_and_nothing_is_written(bob, kind):
    values, message = BAD[kind]
    bob.remember("Held before", id="held", about=["Alice"], session="s")
    before = state(bob), bob.memories()
    with pytest.raises(InvalidArgument, match=message) as error:
        bob.remember(**{"content": "New", "session": "t", "about": ["Carol"]} | values)
    assert len(str(error.value)) < 300
    assert (state(bob), bob.memories()) == before


@pytest.mark.parametrize("asked", [
    {"question": ""}, {"question": "x" * 20_001}, {"question": 3}, {"about": ""}, {"kind": ""},
    {"session": ""}, {"as_of": datetime(2024, 1, 1)}, {"as_of": "now"}, {"limit": 0},  # noqa: DTZ001
    {"limit": 10_001}, {"limit": True}, {"before": ""}, {"before": 3},
    {"question": "Alice", "before": "one"},
])  # fmt: skip
def test_a_bad_question_is_refused(bob, asked):
    bob.remember("Alice")
    with pytest.raises(InvalidArgument):
        bob.memories(**asked)


def test_nothing_is_made_by_asking_or_by_taking_away(folder, bob):
    assert bob.memories() == bob.memories("Alice") == bob.memories(about="Alice") == []
    assert bob.get_memory("one") is None
    assert bob.delete_memory("one") is False
    for refused in (
        lambda: bob.edit_memory("one", "x"),
        lambda: bob.close_memory("one"),
        lambda: bob.remember("x", replaces="one"),
    ):
        with pytest.raises(NotFound, match="'one'; nothing was changed"):
            refused()
    assert not folder.exists()
    bob.remember("Another")
    for refused in (
        lambda: bob.edit_memory("one", "x"),
        lambda: bob.close_memory("one"),
        lambda: bob.remember("x", about=["Carol"], session="new", replaces="one"),
    ):
        with pytest.raises(NotFound, match="'one'; nothing was changed"):
            refused()
    assert (len(bob.memories()), bob.concepts(), bob.usage().sessions) == (1, [], 0)


# -- finding


def test_the_newest_come_first_and_each_filter_leaves_the_rest_out(bob):
    bob.remember("One", id="one", kind="fact", session="s", about=["Alice"])
    bob.remember("Two", id="two", kind="wish", session="s")
    bob.remember("Three", id="three", kind="wish", session="t", about=["ALICE", "Carol"])
    assert ids(bob.memories()) == ["three", "two", "one"]
    assert ids(bob.memories(limit=2)) == ["three", "two"]
    assert ids(bob.memories(kind="wish")) == ["three", "two"]
    assert ids(bob.memories(session="s")) == ["two", "one"]
    assert ids(bob.memories(about="alice")) == ["three", "one"]
    assert ids(bob.memories(about="alicé", session="s")) == ["one"]
    assert bob.memories(session="u") == bob.memories(about="nobody") == bob.memories(kind="x") == []


def test_memories_are_paged_back_without_a_gap_by_the_last_of_each_page(bob):
    for n in range(9):
        kind, session = ("wish", "s") if n % 3 else ("fact", "t")
        bob.remember(f"About {n}", id=f"m{n}", kind=kind, session=session, about=["Alice"])
    bob.close_memory("m7", at=NOW - DAY)
    bob.close_memory("m2", at=NOW + DAY)
    bob.edit_memory("m4", "It stays where it was")
    later = NOW + 2 * DAY
    for only in ({}, {"kind": "wish"}, {"session": "t"}, {"about": "alice"}, {"as_of": later}):
        whole = bob.memories(**only)
        paged = bob.memories(limit=2, **only)
        while page := bob.memories(limit=2, before=paged[-1].id, **only):
            paged += page
        assert paged == whole
        assert len(paged) > 2
    assert ids(bob.memories(before="m7")) == ["m6", "m5", "m4", "m3", "m2", "m1", "m0"]
    assert ids(bob.memories(before="m7", as_of=NOW - 2 * DAY)) == ids(bob.memories(before="m7"))
    assert bob.memories(before="m0") == []
    bob.delete_memory("m3")
    assert bob.memories(before="m3") == bob.memories(before="never there") == []
    with pytest.raises(InvalidArgument, match="`before` pages a list back"):
        bob.memories("Alice", before="m1")


def test_a_question_finds_the_best_first_by_stems_names_and_rare_words(bob):
    bob.remember("She prefers green tea to coffee", id="tea", about=["Alice"])
    bob.remember("Tea is grown in Assam, and tea in Kenya", id="assam")
    bob.remember("Il préfère le café", id="cafe", about=["Bruno"])
    bob.remember("Nothing of the kind", id="none")
    assert ids(bob.memories("teas")) == ["assam", "tea"], "more of it, and in any form"
    assert ids(bob.memories("what does Alice drink?")) == ["tea"], "found by what it is about"
    assert ids(bob.memories("Bruno préfère"))[0] == "cafe"
    assert bob.memories("zebra") == bob.memories("the of") == []
    assert ids(bob.memories("tea", about="Alice")) == ["tea"]
    assert ids(bob.memories("tea", kind="fact", session="none")) == []


def test_equal_memories_come_newest_first(bob):
    for n in range(5):
        bob.remember("the same words", id=f"m{n}")
    assert ids(bob.memories("words")) == ["m4", "m3", "m2", "m1", "m0"]


def test_being_found_by_a_question_is_counted(open_store):
    with open_store() as store:
        bob = store.agent("bob")
        bob.remember("Alice likes tea", id="tea")
        bob.remember("Carol likes wine", id="wine")
        for _ in range(3):
            bob.memories("tea")
        bob.save("user", "so that something is written at the end")
    with open_store() as store:
        bob = store.agent("bob")
        assert bob.get_memory("tea").uses == 3
        assert bob.get_memory("tea").last_used > bob.get_memory("tea").created
        assert (bob.get_memory("wine").uses, bob.get_memory("wine").last_used) == (0, None)
        assert bob.check().ok


def test_recall_returns_memories_beside_messages_and_history_does_not(bob):
    bob.remember("Alice likes orchids", session="s", id="k", kind="preference")
    bob.save("user", "I like orchids", session="s", id="m")
    hits = {hit.message.id: hit for hit in bob.recall("orchids")}
    assert set(hits) == {"m", "k"}
    assert (hits["k"].kind, hits["k"].message.role) == ("preference", "memory")
    assert hits["k"].memory == bob.get_memory("k")
    assert (hits["m"].kind, hits["m"].memory) == ("message", None)
    assert [hit.message.id for hit in bob.recall("orchids", kinds=["message"])] == ["m"]
    assert [hit.message.id for hit in bob.recall("orchids", kinds=["memory"])] == ["k"]
    assert [hit.message.id for hit in bob.recall("orchids", kinds=["fact"])] == []
    assert [hit.message.id for hit in bob.recall("orchids", user="alice")] == []
    assert [message.id for message in bob.history("s")] == ["m"]
    assert bob.usage().messages == 1


def test_an_agent_of_memories_alone_recalls_them(bob):
    bob.remember("Alice likes orchids", id="k", importance=0)
    bob.remember("Carol likes tea", id="tea")
    assert [hit.message.id for hit in bob.recall("orchids")] == ["k"]
    assert bob.recall("orchids")[0].message.session == "default"
    assert bob.recall("orchids", archived=True)[0].memory.id == "k"
    assert bob.context("orchids").text.endswith("memory: Alice likes orchids")
    assert bob.recall("zebra") == bob.recall("orchids", role="user") == []


def test_more_memories_than_usual_are_recalled_if_asked_for(bob):
    for n in range(70):
        bob.remember(f"Orchid number {n}")
    assert len(bob.recall("orchid", limit=100)) == 70


def test_memories_are_found_in_the_languages_that_were_set_since(open_store):
    with open_store(languages="english") as store:
        store.agent("bob").remember("Alice ist glücklich, sagen die Nachbarn", about=["Alice"])
    with open_store(languages="german") as store:
        bob = store.agent("bob")
        with pytest.raises(InvalidSetting, match="elytron reindex"):
            bob.memories("nachbar")
        bob.reindex()
        assert len(bob.memories("die glückliche")) == len(bob.memories("alice")) == 1
        assert bob.check().ok


# -- changing


def test_what_is_replaced_is_closed_and_the_past_is_still_found(bob):
    bob.remember("Alice lives in Lyon", id="lyon", valid_from=NOW - 9 * DAY)
    bob.remember("Alice lives in Paris", id="paris", valid_from=NOW - 2 * DAY, replaces="lyon")
    assert bob.get_memory("lyon").valid_to == bob.get_memory("paris").valid_from == NOW - 2 * DAY
    assert ids(bob.memories()) == ids(bob.memories("Alice")) == ["paris"]
    assert ids(bob.memories(as_of=NOW - 3 * DAY)) == ["lyon"]
    assert ids(bob.memories("Alice", as_of=NOW - 3 * DAY)) == ["lyon"]
    assert bob.memories(as_of=NOW - 10 * DAY) == []
    assert ids(bob.memories(as_of=NOW - 2 * DAY)) == ["paris"], "closed before, open from"
    assert bob.get_memory("lyon").content == "Alice lives in Lyon"


def test_what_replaces_without_a_time_begins_where_the_other_ends(bob):
    bob.remember("Old", id="old")
    before = datetime.now(UTC)
    bob.remember("New", id="new", replaces="old")
    assert bob.get_memory("old").valid_to == bob.get_memory("new").valid_from >= before
    assert ids(bob.memories(as_of=before - DAY)) == ["old"]
    assert ids(bob.memories()) == ["new"]


def test_what_has_ended_already_keeps_its_end(bob):
    bob.remember("Old", id="old", valid_to=NOW - 5 * DAY)
    bob.remember("New", id="new", replaces="old")
    assert bob.get_memory("old").valid_to == NOW - 5 * DAY


def test_what_begins_later_cannot_end_before(bob):
    bob.remember("Later", id="later", valid_from=NOW + DAY)
    assert bob.memories() == [], "not yet"
    assert ids(bob.memories(as_of=NOW + 2 * DAY)) == ["later"]
    before = state(bob)
    with pytest.raises(InvalidArgument, match="cannot end before that"):
        bob.remember("New", replaces="later", about=["Carol"], session="t", valid_from=NOW)
    with pytest.raises(InvalidArgument, match="cannot end before that"):
        bob.close_memory("later")
    assert state(bob) == before
    bob.close_memory("later", at=NOW + 3 * DAY)
    assert bob.get_memory("later").valid_to == NOW + 3 * DAY
    bob.remember("New", replaces="later", id="new")
    assert ids(bob.memories()) == ids(bob.memories(as_of=NOW + 2 * DAY)) == ["new"], "it never held"


def test_closing_says_until_when_and_may_be_corrected(bob):
    bob.remember("Held", id="held")
    bob.close_memory("held", at=NOW - DAY)
    assert bob.memories() == []
    assert ids(bob.memories(as_of=NOW - 2 * DAY)) == ["held"]
    bob.close_memory("held", at=NOW - 4 * DAY)
    bob.close_memory("held", at=NOW - 4 * DAY)
    assert bob.get_memory("held").valid_to == NOW - 4 * DAY
    with pytest.raises(InvalidArgument, match="time zone"):
        bob.close_memory("held", at=datetime(2024, 1, 1))  # noqa: DTZ001


def test_closing_without_a_time_leaves_what_has_ended_as_it_is(bob):
    bob.remember("Held", id="held", valid_from=NOW - 9 * DAY)
    bob.close_memory("held", at=NOW - 4 * DAY)
    bob.close_memory("held")
    assert bob.get_memory("held").valid_to == NOW - 4 * DAY
    bob.close_memory("held", at=NOW + 4 * DAY)
    bob.close_memory("held")
    assert NOW - DAY < bob.get_memory("held").valid_to < NOW + DAY


def test_editing_changes_the_words_and_nothing_else(bob):
    bob.remember("Alice likes te", id="one", about=["Alice"], importance=0.9, session="s")
    before = bob.get_memory("one")
    bob.edit_memory("one", "She likes tea")
    after = bob.get_memory("one")
    assert after.content == "She likes tea"
    assert (after.about, after.importance, after.session, after.created) == (
        before.about, 0.9, "s", before.created,
    )  # fmt: skip
    assert ids(bob.memories("tea")) == ids(bob.memories("alice")) == ["one"]
    assert bob.memories("te") == []
    for bad in ("", "x" * 262_145, 7, "a\0"):
        with pytest.raises(InvalidArgument):
            bob.edit_memory("one", bad)
    assert bob.get_memory("one") == after
    assert bob.check().ok


def test_deleting_takes_the_memory_and_leaves_what_it_was_about(look, store, bob):
    bob.remember("SecretMemory of Alice", id="one", about=["Alice"], session="s")
    bob.remember("Another", id="two")
    assert bob.delete_memory("one") is True
    assert bob.delete_memory("one") is False
    assert bob.get_memory("one") is None
    assert ids(bob.memories()) == ["two"]
    assert bob.memories("SecretMemory") == []
    assert [concept.name for concept in bob.concepts()] == ["Alice"]
    assert bob.usage().edges == 0
    assert bob.check().ok
    assert bob.remember("Anew", id="one").new
    store.close()
    assert look("SELECT count(*) FROM mentions") == [(0,)]


def test_a_session_stays_while_something_was_learned_in_it(bob):
    bob.save("user", "Hello", session="s")
    bob.remember("Alice", id="one", session="s")
    assert bob.delete_session("s") == 1
    assert bob.get_memory("one").session == "s"
    assert bob.check().ok
    assert bob.delete_memory("one")
    bob.save("user", "Later", session="s")
    assert bob.check().ok


# -- limits


def test_concepts_beyond_the_limit_are_refused_whole(open_store):
    bob = open_store(max_concepts=3, propose_concepts=False).agent("bob")
    bob.remember("One", about=["a", "b"])
    before = state(bob)
    with pytest.raises(OverBudget, match=r"3 concepts.*`max_concepts`"):
        bob.remember("Two", about=["b", "c", "d"], session="s")
    assert state(bob) == before
    bob.remember("Three", about=["b", "c"])
    with pytest.raises(OverBudget):
        bob.relate("c", "knows", "d")
    bob.relate("c", "knows", "a")
    assert bob.delete_concept("b")
    bob.remember("Two", about=["d"])
    assert bob.usage().concepts == 3


def test_a_full_memory_refuses_and_takes_again_what_fits_after_a_deletion(open_store):
    bob = open_store(max_db_size_mb=1, max_message_kb=60, reserve_mb=0).agent("bob")
    held: list[str] = []

    def fill() -> None:
        for n in range(100):
            held.append(bob.remember(f"{n} " + "word " * 10_000, about=[f"c{n}"]).id)

    with pytest.raises(OverBudget, match="`max_db_size_mb`"):
        fill()
    assert 5 < len(held) < 40
    assert [memory.id for memory in bob.memories()] == held[::-1]
    for key in held[:3]:
        assert bob.delete_memory(key)
    assert bob.remember("word " * 10_000).new
    assert bob.check().ok


def test_a_commit_that_would_not_fit_the_log_is_refused_with_both_numbers(open_store):
    bob = open_store(max_db_size_mb=1, wal_limit_mb=0.25, max_message_kb=16).agent("bob")
    with pytest.raises(InvalidArgument, match=r"about 100 names.*262144.*`wal_limit_mb`"):
        bob.remember("x", about=[f"n{n}" for n in range(100)])
    assert bob.remember("x", about=["a", "b", "c"]).new
