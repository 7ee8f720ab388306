"""Forgetting what was learned: what only the forgotten named leaves no trace, the rest stays."""

import pytest

import elytron
from elytron import Busy, OutcomeUnknown
from elytron.ledger import schema
from elytron.ledger.learned import (
    BY_EXTRACTOR,
    BY_TEXT,
    ForgetLearned,
    Heard,
    LearnedRelation,
    Link,
    Linked,
    Mention,
    NewConcept,
)
from elytron.upkeep.desk import Desk
from ledgers import check_index, query, row_of, terms_of, write
from test_forget import traces

SMALL = {"reserve_mb": 0, "keep_messages": 0, "link_concepts": False}
ORIGINS = {"Proposed": schema.PROPOSED, "Extracted": schema.EXTRACTED}


def converse(bob: elytron.Agent) -> None:
    """Mallory has a session of her own, and shares one with Alice."""
    for n in (1, 2):
        bob.save("user", f"Hers {n}", session="hers", user="mallory", id=f"her-{n}")
    bob.save("user", "In shared", session="shared", user="mallory", id="her-3")
    bob.save("user", "Mine", session="shared", user="alice", id="alice-1")


def read(bob: elytron.Agent, id: str, *names: str, relations: tuple[str, ...] = ()) -> None:
    """Let these names be found in a message, and each of *relations* be read in it."""
    key, checksum = row_of(bob, "messages", id)
    why = (BY_TEXT, BY_EXTRACTOR)
    mentions = tuple([Mention(name.lower(), 0.5, BY_EXTRACTOR) for name in names])
    new = [
        NewConcept(name, name.lower(), origin, 0.5)
        for name in (*names, *relations)
        for start, origin in ORIGINS.items()
        if name.startswith(start)
    ]
    facts = [LearnedRelation("told", "has", name.lower(), key) for name in relations]
    source = Linked(key, schema.MESSAGE, checksum, mentions, why)
    heard = (Heard(f"heard {id}", f"HeardIn {id}", 1, key),)
    write(
        bob, Link(f"of {id}", 0, 1, (source,), tuple(new), tuple(facts), (key,), heard)
    )  # fmt: skip


def learn(bob: elytron.Agent) -> None:
    """Of each kind one that only Mallory named, and one that Alice did too."""
    bob.relate("Told", "knows", "Unnamed")
    bob.remember("LearnedIn hers", session="hers", about=["OnlyLearned", "Both"], id="mem-hers")
    bob.remember("LearnedIn shared", session="shared", about=["Shared"], id="mem-shared")
    bob.remember("LearnedIn none", about=["None"], id="mem-none")
    read(bob, "her-1", "ProposedHers", "Both", "OnlyLearned", relations=("ExtractedFact",))
    read(bob, "her-2", "ProposedHers", "ExtractedHers", "ProposedBoth", "Told")
    read(bob, "her-3", "ExtractedBoth")
    read(bob, "alice-1", "ProposedBoth", "ExtractedBoth", "Both", relations=("ExtractedKept",))


GONE = {
    "LearnedIn hers",
    "mem-hers",
    "ProposedHers",
    "ExtractedHers",
    "OnlyLearned",
    "ExtractedFact",
}
TRACES = {*GONE, *[name.lower() for name in GONE], "HeardIn", "heard "}
KEPT = {
    "Told",
    "Unnamed",
    "Shared",
    "None",
    "Both",
    "ProposedBoth",
    "ExtractedBoth",
    "ExtractedKept",
}


def learned(bob: elytron.Agent) -> tuple[set[str], set[str], set[str]]:
    """Memories, concepts, and the targets of relations."""
    return (
        {memory.content for memory in bob.memories()},
        {concept.name for concept in bob.concepts()},
        {relation.target for relation in bob.relations()},
    )


def test_what_was_learned_only_from_what_is_forgotten_goes_too(folder):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        converse(bob)
        learn(bob)
        assert traces(folder, TRACES), "it can be seen"
        erased = bob.forget(user="mallory")
        assert (erased.messages, erased.memories, erased.concepts) == (3, 1, 4)
        assert traces(folder, TRACES) == {}, "already while the store is open"
        memories, concepts, targets = learned(bob)
        assert memories == {"LearnedIn shared", "LearnedIn none"}
        assert concepts == KEPT
        assert targets == {"Unnamed", "ExtractedKept"}
        assert bob.relations(relation="has")[0].learned_from == "alice-1"
        assert bob.check().ok
        erased = bob.clear()
        assert (erased.memories, erased.concepts) == (2, len(KEPT))
        assert learned(bob) == (set(), set(), set())
        assert bob.usage().edges == 0
        assert bob.check().ok
    assert traces(folder, {"LearnedIn", *KEPT - {"None"}}) == {}
    check_index(folder)


def test_what_is_told_of_the_forgotten_stays_and_the_receipt_says_so(folder):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        bob.save("user", "Hello", user="Mallory")
        bob.remember("She prefers Python", about=["mallory"], id="told")
        bob.relate("Mallory", "lives in", "Lyon")
        bob.relate("Alice", "knows", "Mallory")
        told = [what for what in bob.forget(user="Mallory").remaining if "was told of" in what]
        assert len(told) == 1
        assert "told of 'Mallory' elsewhere (memories: 1, facts: 2)" in told[0]
        bob.remember("A name without a word", about=["🙂"])
        assert any("told of '🙂'" in what for what in bob.forget(user="🙂").remaining)
        bob.delete_memory("told")
        bob.delete_concept("Mallory")
        bob.save("user", "Hello", user="Mallory")
        remaining = bob.forget(user="Mallory").remaining
        assert not [what for what in remaining if "was told of" in what]


def test_what_an_import_told_of_a_concept_stays_when_a_text_that_names_it_goes(folder):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        bob.save("user", "I talked to Dana", id="said")
        bob.save("user", "And to Dana again", id="again")
        key, checksum = row_of(bob, "messages", "said")
        mention = Mention("dana", 1.0, BY_EXTRACTOR)
        new = NewConcept("Dana", "dana", schema.TOLD, 1.0, "person", "Told by whoever imports")
        source = Linked(key, schema.MESSAGE, checksum, (mention,), (BY_EXTRACTOR,))
        write(bob, Link("import", 0, 1, (source,), (new,), (), (), ()))
        assert bob.delete("said")
        details = bob.concept("Dana")
        assert (details.concept.type, details.concept.description) == (new.type, new.description)


def test_what_was_learned_from_archived_messages_goes_with_them(folder):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        converse(bob)
        learn(bob)
        assert bob.archive(older_than_days=0, keep=0).archived == 4
        assert traces(folder, TRACES), "it can be seen"
        erased = bob.forget(user="mallory")
        assert (erased.archived, erased.memories) == (3, 1)
        assert traces(folder, TRACES) == {}
        memories, concepts, targets = learned(bob)
        assert memories == {"LearnedIn shared", "LearnedIn none"}
        # In the archive a message names nothing.
        assert concepts == KEPT - {"Both", "ProposedBoth", "ExtractedBoth"}
        assert targets == {"Unnamed", "ExtractedKept"}
        assert bob.check().ok


def test_a_session_whose_last_messages_are_archived_keeps_what_was_learned(folder):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        converse(bob)
        bob.save("user", "Alice is here too", session="hers", user="alice", id="alice-2")
        bob.remember("LearnedIn hers", session="hers")
        bob.archive(older_than_days=0, keep=0)
        assert bob.forget(user="mallory").memories == 0
        assert len(bob.memories()) == 1
        assert bob.forget(session="hers").memories == 1
        assert bob.memories() == []


def test_a_session_that_holds_only_memories_is_forgotten_too(folder):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        bob.remember("SecretMemory", session="SecretSession", about=["SecretName"])
        bob.remember("Another", session="other", about=["Name"])
        marks = {"Secret", "secretname", terms_of("SecretMemory SecretName")}
        assert traces(folder, marks), "it can be seen"
        erased = bob.forget(session="SecretSession")
        assert (erased.messages, erased.memories, erased.concepts, erased.sessions) == (0, 1, 1, 1)
        assert traces(folder, marks) == {}
        assert learned(bob) == ({"Another"}, {"Name"}, set())
        assert bob.check().ok


def test_many_memories_are_forgotten_in_commits_that_fit(folder):
    small = {**SMALL, "max_db_size_mb": 20, "wal_limit_mb": 0.25, "max_message_kb": 64}
    with elytron.open(folder, **small) as store:
        bob = store.agent("bob")
        for n in range(40):
            bob.remember(f"SecretMemory {n} " + "x" * 20_000, session="s", about=[f"Secret{n}"])
        erased = bob.forget(session="s")
        assert (erased.memories, erased.concepts) == (40, 40)
        assert bob.usage().bytes.wal <= 0.25 * 2**20
        assert traces(folder, {"Secret"}) == {}
        for n in range(40):
            bob.remember(f"SecretMemory {n} " + "x" * 20_000, about=[f"Secret{n}"])
            bob.relate(f"Secret{n}", "likes", "Secret")
        assert bob.clear().memories == 40
        assert traces(folder, {"Secret"}) == {}
        assert bob.check().ok


class Killed(BaseException):
    pass


def test_what_a_dead_process_left_half_forgotten_is_forgotten_by_the_next(folder, monkeypatch):
    """The nth commit of forgetting is the last, for each n; then it is done again."""
    plain = Desk.commit
    for nth in range(1, 100):
        place = folder / str(nth)
        store = elytron.open(place, **SMALL)
        bob = store.agent("bob")
        converse(bob)
        learn(bob)
        count = 0

        def commit(self, op, nth=nth):
            nonlocal count
            count += 1
            if count == nth:
                raise Killed
            return plain(self, op)

        with monkeypatch.context() as patch:
            patch.setattr(Desk, "commit", commit)
            try:
                bob.forget(user="mallory")
            except Killed:
                whole = False
            else:
                whole = True
        store.close()
        with elytron.open(place, **SMALL) as again:
            bob = again.agent("bob")
            bob.forget(user="mallory")
            assert traces(place, TRACES) == {}, nth
            assert learned(bob)[:2] == ({"LearnedIn shared", "LearnedIn none"}, KEPT), nth
            assert bob.check().ok
        if whole:
            assert nth > 5
            return
    raise AssertionError("it never came to its end")


def test_deleting_a_message_takes_what_was_heard_in_it_alone(folder):
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        converse(bob)
        learn(bob)
        bob.delete("her-1")
        assert bob.concept("ProposedHers").concept.mentions == 1
    assert [name for (name,) in query(folder, "SELECT name FROM heard ORDER BY name")] == [
        "HeardIn alice-1", "HeardIn her-2", "HeardIn her-3",
    ]  # fmt: skip


def test_what_is_read_while_it_is_being_forgotten_goes_too(folder, monkeypatch):
    """The background reads her message once more, just before it goes."""
    plain = Desk.remove
    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        converse(bob)
        bob.relate("Told", "knows", "Unnamed")

        def remove(self, *given, **more):
            read(bob, "her-1", "ProposedHers", relations=("ExtractedFact",))
            return plain(self, *given, **more)

        monkeypatch.setattr(Desk, "remove", remove)
        erased = bob.forget(user="mallory")
        assert (erased.messages, erased.concepts) == (3, 2)
        assert traces(folder, TRACES) == {}
        assert learned(bob)[1:] == ({"Told", "Unnamed"}, {"Unnamed"})
        assert bob.check().ok


def test_a_deletion_from_the_archive_that_was_cut_short_is_repeated_with_all_its_facts(
    folder, monkeypatch
):
    plain, cut = Desk.repeat, list[object]()

    def busy_once(self, op):
        if isinstance(op, ForgetLearned) and not cut:
            cut.append(op)
            raise Busy("another process is at it")
        return plain(self, op)

    with elytron.open(folder, **SMALL) as store:
        bob = store.agent("bob")
        converse(bob)
        learn(bob)
        assert bob.archive(older_than_days=0, keep=0).archived == 4
        monkeypatch.setattr(Desk, "repeat", busy_once)
        with pytest.raises(OutcomeUnknown):
            bob.delete("her-1")
        assert bob.delete("her-1")
        assert not bob.delete("her-1")
        assert "ExtractedFact" not in learned(bob)[2]
        assert bob.check().ok
