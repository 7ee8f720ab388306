"""
Verbs that learn, embed, open and ask, while one call to the file system fails.

Method: see `every_call.py`, and `test_every_call_writing.py` for which calls are tried.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from elytron import Agent, Config, Store
from embedders import Hashing, by_hand
from every_call import PLENTY, SMALL, Bench, Verb
from faulty_calls import MODES

TRIES = 2
THEN = datetime(2024, 5, 8, tzinfo=UTC)
EMBEDDING = Config(**SMALL, enable_embeddings=True, embedder="function", embed_batch_max=8)


def embedding_store(folder: Path, config: Config) -> Store:
    store = Store(folder, config, embedder=Hashing())
    by_hand(store.agent("bob"))
    assert store._agents.embeddings is not None
    # An embedder that failed is left alone for a while; here it is the disk that does.
    store._agents.embeddings.calls._check_rested = lambda kind: None  # type: ignore[method-assign]
    return store


def open_another(bob: Agent) -> None:
    """Open the store once more, make an agent, read, and close it."""
    with Store(bob._agents.path, PLENTY) as store:
        assert len(store.agent("bob").history(limit=5)) == 5
        store.agent("eve").save("user", "I am new here.", id="hers")


VERBS: dict[str, Callable[[Agent], Any]] = {
    "remember": lambda bob: bob.remember(
        "New " + "word " * 2000, id="new", about=["Alice", "New"], session="new", replaces="old"
    ),
    "edit_memory": lambda bob: bob.edit_memory("old", "Edited"),
    "close_memory": lambda bob: bob.close_memory("old", at=THEN),
    "delete_memory": lambda bob: bob.delete_memory("old"),
    "relate": lambda bob: bob.relate("Alice", "lives in", "Paris", replaces=True),
    "unrelate": lambda bob: bob.unrelate("Alice", at=THEN),
    "set_concept": lambda bob: bob.set_concept("Alice", rename="Alicia"),
    "delete_concept": lambda bob: bob.delete_concept("Bruno"),
    "open": open_another,
    "embed": lambda bob: bob.embed(),
    "reembed": lambda bob: bob.reembed(),
}
STEPWISE = ("open", "embed", "reembed")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VERBS)
def test_whatever_was_reported_is_so_whichever_call_fails(
    bench: Bench, request: pytest.FixtureRequest, name: str, mode: str
) -> None:
    verb = Verb(VERBS[name], stepwise=name in STEPWISE)
    if "embed" in name:
        verb = verb._replace(config=EMBEDDING, open_store=embedding_store)
    proof = request.config.getoption("--proof", default=False)
    assert bench.try_all(verb, MODES[mode], at_most=None if proof else TRIES)


@pytest.mark.parametrize("mode", ["failing once", "full for good"])
def test_a_graph_costs_an_answer_at_most_whichever_call_fails(bench: Bench, mode: str) -> None:
    """The host's calls; those of the worker have their own tests."""
    verb = Verb(lambda bob: bob.cypher("MATCH (m:Message) RETURN count(m)"), stepwise=True)
    assert bench.try_all(verb, MODES[mode], at_most=2)
