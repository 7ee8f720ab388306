"""What a ledger says to SQLite while its verbs are used: statements, their values, their order."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import apsw

import elytron
from elytron import Agent
from elytron.ledger import (
    bundles,
    feeds,
    knowledge,
    ops,
    reads,
    rows,
    surveys,
    texts,
    vector_reads,
)
from elytron.ledger.embedded import EvictVectors, MendVectors, Reduced, ReduceVectors, SetProjection
from elytron.ledger.integers import Integers
from elytron.ledger.moves import TAKEN_OVER
from embedders import DIM, Hashing, query
from ledgers import row_of, write
from moved import ALL, talk

# Of SQLite alone: the server has other words, pages and files.
OF_SQLITE = ("words", "dbstat", "sqlite_", "pragma", "create ", "drop ", "vacuum", "user_version")
_TRANSACTION = ("begin", "commit", "rollback", "savepoint", "release")


class Said(NamedTuple):
    """A statement as it was put."""

    sql: str
    values: tuple[Any, ...]

    @property
    def kinds(self) -> str:
        return "".join(map(kind, self.values))

    @property
    def of_transaction(self) -> bool:
        return self.sql.strip().lower().startswith(_TRANSACTION)


def kind(value: object) -> str:
    """The letter by which the dialect knows a value's type."""
    match value:
        case None:
            return "n"
        case int():
            return "i"
        case float():
            return "f"
        case str():
            return "s"
        case bytes():
            return "b"
        case Integers():
            return "a"
        case list():
            return "t"
    raise AssertionError(f"nothing is known of a {type(value).__name__}")


@contextmanager
def recording(ledger: Callable[[str], bool]) -> Iterator[list[Said]]:
    """
    Note what is said to the files that *ledger* says yes to, in its order.

    A reader's transactions are left out: what all say can then be said again on one connection.
    """
    said: list[tuple[int, Said]] = []
    writers: set[int] = set()
    numbers = itertools.count()
    mutex = threading.Lock()

    def hook(db: apsw.Connection) -> None:
        if not ledger(db.filename):
            return
        number = next(numbers)

        def note(_cursor: apsw.Cursor, sql: str, values: Sequence[Any] | None) -> bool:
            sql = bundles.within(sql)  # as it is said to a server
            lowered = sql.strip().lower()
            with mutex:
                if lowered.startswith("begin immediate"):
                    writers.add(number)
                if not any(word in lowered for word in OF_SQLITE):
                    said.append((number, Said(sql.strip(), tuple(values or ()))))
            return True

        db.exec_trace = note

    found: list[Said] = []
    apsw.connection_hooks.append(hook)
    try:
        yield found
    finally:
        apsw.connection_hooks.remove(hook)
        found += [one for by, one in said if by in writers or not one.of_transaction]


SETTINGS: dict[str, Any] = {
    "wal_limit_mb": 1, "reserve_mb": 0.1, "auto_cleanup": False, "min_embed_chars": 1,
    "embed_query_timeout_s": 60,  # else what is asked of vectors is not said on a slow machine
}  # fmt: skip


def live(folder: Path) -> None:
    """Use each verb of an agent, in most of its ways; much is left at the end."""
    with elytron.open(folder, embedder=Hashing(), extract=_read, **SETTINGS) as store:
        bob = store.agent("bob")
        _talk(bob)
        _learn(bob)
        _keep(bob)
        _work(bob)
        _look(bob)


def end(folder: Path) -> None:
    """Use what takes away, until nothing is left."""
    other = Hashing(8, name="other")
    with elytron.open(folder, embedder=other, languages="french", **SETTINGS) as store:
        bob = store.agent("bob")
        bob.reindex()
        bob.reembed()
        bob.flush()
        bob.forget(user="alice")
        bob.delete_session("s1")
        bob.forget(user="carol")
        bob.clear()
    with elytron.open(folder, **SETTINGS) as store:
        store.agent("bob").usage()


def _read(text: str) -> Any:
    return (
        {"concepts": ["Lyon"], "relations": [("Alice", "lives in", "Lyon")]}
        if "Lyon" in text
        else None
    )


def _talk(bob: Agent) -> None:
    bob.save_many(talk(70))
    bob.save("user", "Alice lives in Lyon", session="s0", user="alice", pinned=True, id="lyon")
    bob.save("user", "Alice lives in Lyon", session="s1", user="bruno", id="same")
    bob.save("assistant", "What of 100% of it?", session="s1", metadata={"a": 1})
    bob.save("user", "Alice lives in Lyon", session="s0", user="alice", pinned=True, id="lyon")
    bob.flush()
    bob.history("s0", limit=5, before="m20")
    bob.history("s0", limit=5, before="m21")
    bob.history(limit=5)
    bob.history("nowhere")
    bob.sessions(limit=3)
    bob.recall("where does Alice live?", user="alice", session="s0", role="user")
    bob.recall("where does Alice live?", user="bruno", role="user")
    bob.recall("unique11x on 8 May 2024", since=datetime(2024, 1, 1, tzinfo=UTC), kinds=["fact"])
    bob.context("what was said of tea?")
    bob.get("m3")
    bob.edit("m3", "Another text of Bruno and Ghent")
    bob.delete("m4")
    bob.save("user", "A short one", session="short")
    bob.delete_session("short")
    bob.flush()
    bob.pin("m5")
    bob.unpin("m5")
    bob.set_importance("m6", 0.9)
    bob.usage()


def _learn(bob: Agent) -> None:
    bob.remember("Alice prefers tea", id="tea", about=["Alice", "tea"], session="s0")
    bob.remember("Alice prefers coffee", id="coffee", about=["Alice"], replaces="tea")
    bob.remember("Alice prefers coffee", id="coffee", about=["Alice"], replaces="tea")
    bob.remember("Bruno knows Ghent", id="ghent", kind="note", session="new", metadata={"b": 2})
    bob.edit_memory("ghent", "Bruno knows Ghent and Bruges")
    bob.close_memory("ghent")
    bob.memories(about="Alice", kind="fact", session="s0")
    bob.memories("what does Alice prefer?")
    bob.get_memory("coffee")
    bob.relate("Alice", "lives in", "Ghent", replaces=True)
    bob.relate("Alice", "knows", "Bruno")
    bob.relate("Alice", "knows", "Bruno", strength=0.5)
    bob.relations("Alice")
    bob.relations(relation="knows")
    bob.concepts("ali", limit=5)
    bob.concepts(type="person", origin="told")
    bob.concept("Alice")
    bob.set_concept("Bruno", rename="Bruno B.", type="person", description="A friend")
    bob.flush()
    bob.recall("what does Alice drink in Ghent?")
    bob.related("Alice", depth=2)
    bob.path("Alice", "Bruno B.")
    bob.relate("Carol", "knows", "Alice")
    bob.cypher("MATCH (c:Concept) RETURN c.name LIMIT 3")
    bob.unrelate("Alice", "knows")
    bob.delete_concept("Bruno B.")
    bob.delete_memory("ghent")


def _keep(bob: Agent) -> None:
    bob.archive(older_than_days=0, keep=60, dry_run=True)
    bob.archive(**{**ALL, "keep": 40})
    bob.restore(["m1", "m2"])
    bob.enforce_limits()
    bob.check()
    list(bob.messages())
    bob.emergency_cleanup(dry_run=True)


def _work(bob: Agent) -> None:
    """What upkeep writes now and then, and what it does about somebody else's run."""
    write(bob, ops.Move(("segment-1", "segment-2"), "run-a"))
    write(bob, ops.Move((f"{TAKEN_OVER}segment-2",), "run-b"))
    write(bob, ops.NoteGone((1, 2)))
    bob.delete("m21")
    assert write(bob, ops.TakeOver(("run-a", "run-b"), "run-c")) == 2
    write(bob, ops.Moved((f"{TAKEN_OVER}segment-1", f"{TAKEN_OVER}segment-2"), "run-c"))
    write(bob, ops.Grant(1 << 30))
    write(bob, ops.Grant(None))
    write(
        bob,
        ops.PutName("users", rows.CHECKSUMMED["users"], row_of(bob, "users", "alice")[0], "x", 1),
    )
    write(bob, ops.Expel("concepts", rows.CHECKSUMMED["concepts"], 1))
    numbers = [number for (number,) in query(bob, "SELECT number FROM vectors ORDER BY number")]
    bob.delete("lyon")
    (name,) = query(bob, "SELECT name FROM embedder")[0]
    assert write(bob, SetProjection(name, 1, DIM, 4, 40, b"12345678"))
    reduced = tuple(Reduced(number, 0.5, b"abcd") for number in numbers[:5])
    assert write(bob, ReduceVectors(1, reduced)) == 5
    (key,) = query(bob, "SELECT key FROM vectors ORDER BY number LIMIT 1")[0]
    write(bob, EvictVectors((key,)))
    write(bob, MendVectors((numbers[6],), (), (key,)))
    write(bob, MendVectors())
    write(bob, ops.GoOn(10_000))


def _look(bob: Agent) -> None:
    """What is asked on the way to other things."""
    with bob._agents.use("bob", create=False) as opened:
        assert opened is not None
        with opened.ledger.reading() as db:
            keys = [message.key for message in surveys.worths(db)]
            surveys.keys_of(db, ["m30", "m31", "it's \\ \x10d"])
            texts.edited(db, keys[0], after=1)
            feeds.changed(db, keys, after=1)
            feeds.newest(db, "concepts", upto=1000, limit=3)
            feeds.replies(db, feeds.messages(db, keys[:9], "bob"), "bob")
            vector_reads.wrong(db)
            vector_reads.whole(db, dim=DIM, limit=4)
            vector_reads.count(db)
            vector_reads.worths(db, row_bytes=72, default_importance=0.5)
            vector_reads.worths_of(db, keys, default_importance=0.5)
            for accept in (reads.Filter(), reads.Filter("s0", "alice", "user", 0, 1 << 60)):
                vector_reads.newest(db, accept, limit=9, among=99)
            sought = knowledge.Sought(0)
            newest = knowledge.memory_terms(db, sought, limit=1, source="bob")
            knowledge.memory_terms_of(db, sought, [newest[0][0]], source="bob")
            reads.arrivals(db, since_us=0)
