"""What learning writes at once is bounded, and a ledger from before it is brought up to date."""

import random
import time
from typing import Any

import pytest

import elytron
from elytron.ledger import schema
from elytron.ledger.learned import (
    ClearLearned,
    DeleteConcept,
    DeleteMemory,
    ForgetLearned,
    Heard,
    LearnedRelation,
    Link,
    Linked,
    Mention,
    Name,
    NewConcept,
    Relate,
    SweepLearned,
    Unrelate,
)
from elytron.write.remembering import admit_memory
from ledgers import check_index, held, query

COUNT = 3000  # concepts, so that each index has many pages


def memory(bob: elytron.Agent, content: str, about: list[str], **more: Any) -> Any:
    given = {
        "kind": "fact", "importance": None, "pinned": False, "session": None, "valid_from": None,
        "valid_to": None, "metadata": None, "id": None, "replaces": None,
    }  # fmt: skip
    return admit_memory(
        content, about=about, config=bob._config, analyzer=bob._analyzer, ids=bob._ids,
        **given | more,
    )  # fmt: skip


def named(dice: random.Random) -> Name:
    number = dice.randrange(COUNT)
    return Name(f"C{number}", f"c{number}")


def ops(bob: elytron.Agent, sources: list[tuple[int, int]]) -> dict[str, Any]:
    """Ops of each kind, as large as they may come, in the order in which they are applied."""
    dice = random.Random(1)
    key, checksum = sources[0]
    every = tuple([
        Linked(number, schema.MESSAGE, told, tuple([Mention(named(dice).folded) for _ in range(5)]))
        for number, told in sources
    ])  # fmt: skip
    one = (Linked(key, schema.MESSAGE, checksum, tuple([Mention(f"n{n}") for n in range(200)])),)
    new = tuple([NewConcept(f"N{n}" + "é" * 150, f"n{n}", schema.PROPOSED) for n in range(200)])
    facts = tuple([
        LearnedRelation(named(dice).folded, "read", named(dice).folded, key) for _ in range(200)
    ])  # fmt: skip
    heard = tuple([Heard(f"h{dice.random()}", "H" * 50, 1, key) for _ in range(1000)])
    long = " ".join([f"{dice.random()}" for _ in range(5000)])
    return {
        "remember of many": memory(bob, "x", [named(dice).shown for _ in range(100)]),
        "remember of new": memory(bob, "x", [f"{n}" + "é" * 150 for n in range(100)], session="s"),
        "remember at length": memory(bob, long, ["C1"], id="long", session="s"),
        "relate": Relate(named(dice), "is", named(dice), 1.0, None, None, False, 1),
        "replace": Relate(Name("Hub", "hub"), "has", named(dice), 1.0, None, None, True, 10**15),
        "link of many": Link("links", 0, 1, every),
        "link again": Link("links", 1, 2, every[::-1]),
        "link of new": Link("links", 2, 3, one, new),
        "link of facts": Link("links", 3, 4, one, (), facts, (key,)),
        "link of heard": Link("links", 4, 5, one, (), (), (), heard),
        "unrelate": Unrelate("hub", None, None, 10**16),
        "delete a concept": DeleteConcept("c1", 200),
        "delete a memory": DeleteMemory("long", 8 * 4096 + 2 * bob._config.max_message_bytes),
        "forget": ForgetLearned((key,), (), 1 << 20),
        "sweep": SweepLearned((schema.PROPOSED,), 100, unlooked=True),
        "clear": ClearLearned(1 << 20),
    }  # fmt: skip


def test_no_op_writes_more_to_the_log_than_it_says(open_store):
    bob = open_store(link_concepts=False, max_db_size_mb=1000).agent("bob")
    bob.import_([{"role": "user", "content": f"message {n}"} for n in range(300)])
    dice = random.Random(2)
    with bob._agents.use("bob", create=False) as agent:
        ledger = agent.ledger
        later = time.monotonic() + 60

        def commit(written: list[Any]) -> None:
            for result in ledger.commit(written, later):
                assert not isinstance(result, Exception), result
            ledger.checkpoint()

        for start in range(0, 2 * COUNT, 200):
            pairs = [(named(dice), named(dice)) for _ in range(200)]
            commit([Relate(a, f"r{start}", b, 1.0, None, None, False, 1) for a, b in pairs])
        for n in range(60):
            commit(
                [Relate(Name("Hub", "hub"), "has", Name(f"C{n}", f"c{n}"), 1, None, None, False, 1)]
            )
        with ledger.reading() as db:
            sources = db.execute("SELECT key, checksum FROM messages ORDER BY key").fetchall()
        for kind, op in ops(bob, sources).items():
            ledger.empty_wal(later)
            (result,) = ledger.commit([op], later)
            assert not isinstance(result, Exception), (kind, result)
            assert ledger.file_sizes()[1] <= op.size_bytes, kind
    assert bob.check().ok


def test_what_was_saved_before_there_were_concepts_is_all_there(folder):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save("user", "Alice lives in Lyon", id="m", session="s", user="alice")
        bob.save("user", "Alice likes tea", id="n")
    for table in (
        "concepts", "mentions", "relations", "readers", "unlinked", "heard", "described",
    ):  # fmt: skip
        query(folder, f"DROP TABLE {table}")
    for table in ("embedder", "projections", "shared", "unembedded"):
        query(folder, f"DROP TABLE {table}")
    for index in ("memories_session", "memories_pinned"):
        query(folder, f"DROP INDEX {index}")
    query(folder, "CREATE TABLE edges(key INTEGER PRIMARY KEY)")
    query(folder, "CREATE TABLE concepts(key INTEGER PRIMARY KEY)")
    query(folder, "PRAGMA user_version = 2")
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        assert list(held(bob)) == ["m", "n"]
        bob.relate("Alice", "lives in", "Lyon")
        bob.flush()
        assert [message.id for message in bob.concept("alice").examples] == ["n", "m"]
        assert bob.check().ok
    check_index(folder, behind_ok=True)


@pytest.mark.parametrize("count", [1, 30, 120])
def test_the_change_list_stays_within_its_bound_whatever_is_learned(open_store, count):
    bob = open_store(link_concepts=False, change_max=100).agent("bob")
    for n in range(count):
        bob.remember("x", about=[f"C{n % 50}", f"D{n}"])
        bob.relate("Alice", "has", f"C{n}")
    assert bob.usage().changes <= 100
    bob.clear()
    assert bob.usage().changes <= 100
    assert bob.check().ok
