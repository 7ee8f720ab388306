"""
A model: whatever is done in whatever order, the graph holds exactly what the ledger does.

A Hypothesis state machine on a real store, with a real worker. The ledger itself is the model,
read by plain SQL. Pages are small now and then, so that any sequence of changes is cut anywhere.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

import elytron
from elytron import Conflict, ElytronError, NotFound
from elytron.graph import batches
from elytron.graph.client import GraphClient
from projecting import clients, projecting, same

IDS = some.sampled_from([f"id-{n}" for n in range(8)])
SESSIONS = some.sampled_from(["one", "two"])
USERS = some.sampled_from([None, "alice", "carol"])
NAMES = some.sampled_from(["Alice", "Lyon", "tea", "José", "Ada Lovelace"])
OTHERS = some.sampled_from(["Bob", "Paris", "coffee"])
RELATIONS = some.sampled_from(["likes", "lives in"])
TEXTS = some.sampled_from(
    [
        "Alice lives in Lyon",
        "jose drinks tea",
        "nothing\n'\"`\\ to see",
        "ada lovelace met alice",
        "é🐞",
    ]
)
START = datetime(2024, 5, 8, tzinfo=UTC)
MAYBE_TIME = some.none() | some.integers(0, 5).map(lambda days: START + timedelta(days=days))


class Model(RuleBasedStateMachine):
    """One agent, its ledger and its graph."""

    client: GraphClient
    engine: str

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="elytron-graph-"))
        self.open()
        self.bob.save("user", "Alice begins", id="first", session="one", user="alice")
        self.said = 0
        self.pages = batches.PAGE_MAX, batches.BUILD_MAX

    def open(self) -> None:
        self.store = elytron.open(
            self.folder / "store", change_max=100, engine=self.engine, propose_concepts=False
        )

    def teardown(self) -> None:
        try:
            self.compare()
        finally:
            batches.PAGE_MAX, batches.BUILD_MAX = self.pages
            self.store.close()
            for graph in self.folder.rglob("graph"):
                self.client.release(graph)
            shutil.rmtree(self.folder)

    @property
    def bob(self) -> elytron.Agent:
        return self.store.agent("bob")

    # -- what is said

    @rule(drafts=some.lists(some.tuples(IDS, SESSIONS, USERS, TEXTS), min_size=1, max_size=5))
    def save(self, drafts: list[tuple[str, str, str | None, str]]) -> None:
        for name, session, user, text in drafts:
            self.said += 1
            with contextlib.suppress(Conflict):
                self.bob.save(
                    "user" if user else "assistant",
                    text,
                    id=name,
                    session=session,
                    user=user,
                    at=START + timedelta(minutes=self.said, milliseconds=1),
                    metadata={"n": self.said} if self.said % 3 == 0 else None,
                )

    @rule(id=IDS, text=TEXTS)
    def edit(self, id: str, text: str) -> None:
        with contextlib.suppress(NotFound):
            self.bob.edit(id, text)

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        self.bob.delete(id)

    @rule(session=SESSIONS)
    def delete_session(self, session: str) -> None:
        self.bob.delete_session(session)

    @rule(keep=some.integers(0, 4))
    def archive(self, keep: int) -> None:
        self.bob.archive(older_than_days=0, keep=keep)

    @rule(session=SESSIONS)
    def restore(self, session: str) -> None:
        self.bob.restore(session=session)

    @rule(user=some.sampled_from(["alice", "carol"]))
    def forget(self, user: str) -> None:
        self.bob.forget(user=user)

    # -- what is learned

    @rule(
        id=IDS,
        text=TEXTS,
        about=some.lists(NAMES, max_size=2),
        session=some.none() | SESSIONS,
        begin=MAYBE_TIME,
    )
    def remember(
        self, id: str, text: str, about: list[str], session: str | None, begin: datetime | None
    ) -> None:
        with contextlib.suppress(Conflict):
            self.bob.remember(
                text, about=about, session=session, valid_from=begin, id=f"memory-{id}"
            )

    @rule(id=IDS, text=TEXTS)
    def edit_memory(self, id: str, text: str) -> None:
        with contextlib.suppress(NotFound):
            self.bob.edit_memory(f"memory-{id}", text)

    @rule(id=IDS)
    def close_memory(self, id: str) -> None:
        with contextlib.suppress(ElytronError):
            self.bob.close_memory(f"memory-{id}")

    @rule(id=IDS)
    def delete_memory(self, id: str) -> None:
        self.bob.delete_memory(f"memory-{id}")

    @rule(source=NAMES, relation=RELATIONS, other=NAMES, replaces=some.booleans())
    def relate(self, source: str, relation: str, other: str, replaces: bool) -> None:
        with contextlib.suppress(ElytronError):
            self.bob.relate(source, relation, other, strength=0.5, replaces=replaces)

    @rule(source=NAMES)
    def unrelate(self, source: str) -> None:
        self.bob.unrelate(source)

    @rule(name=NAMES, other=OTHERS | NAMES, back=some.booleans())
    def rename(self, name: str, other: str, back: bool) -> None:
        """Names go round, so that one is another's within one page of changes."""
        with contextlib.suppress(Conflict, NotFound):
            self.bob.set_concept(*((other,) if back else (name,)), rename=name if back else other)

    @rule(name=NAMES, kind=some.sampled_from(["person", "place", None]))
    def describe(self, name: str, kind: str | None) -> None:
        with contextlib.suppress(NotFound):
            self.bob.set_concept(name, type=kind, description="x")

    @rule(name=NAMES)
    def delete_concept(self, name: str) -> None:
        self.bob.delete_concept(name)

    @rule()
    def link(self) -> None:
        self.bob.flush()

    # -- what happens to the graph

    @rule(page_max=some.sampled_from([1, 2, 3, 1000]))
    def compare(self, page_max: int = 1000) -> None:
        batches.PAGE_MAX = batches.BUILD_MAX = page_max
        with projecting(self.bob, self.client) as graph:
            same(graph)

    @rule()
    def project(self) -> None:
        batches.PAGE_MAX = batches.BUILD_MAX = 2
        with projecting(self.bob, self.client) as graph:
            graph.catch_up()

    @rule()
    def drop(self) -> None:
        with projecting(self.bob, self.client) as graph:
            graph.drop()

    @rule()
    def rebuild(self) -> None:
        with projecting(self.bob, self.client) as graph:
            graph.rebuild()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    @rule()
    def kill(self) -> None:
        pid = self.client.status().pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start_client() -> Iterator[Callable[[str], GraphClient]]:
    with clients() as start:
        yield start


@pytest.mark.parametrize(("engine", "examples"), [("ladybug", 25), ("kuzu", 5)])
def test_the_graph_holds_exactly_what_the_ledger_does(
    engine: str, examples: int, start_client: Callable[[str], GraphClient]
):
    machine = type("Machine", (Model,), {"client": start_client(engine), "engine": engine})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=30)
    )
