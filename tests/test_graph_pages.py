"""Pages of changes, cut anywhere: whatever they are about, nothing is made twice or lost."""

from collections.abc import Callable, Iterator

import pytest

import elytron
from elytron.graph import batches
from elytron.graph.client import GraphClient
from projecting import clients, fill, projecting, same, why_built


@pytest.fixture
def client() -> Iterator[GraphClient]:
    with clients() as start:
        yield start("ladybug")


def names_go_round(bob: elytron.Agent) -> None:
    bob.set_concept("Alice", rename="Carol")
    bob.set_concept("Bert", rename="Alice")
    bob.set_concept("Carol", rename="Bert")


def a_renamed_concept_is_related(bob: elytron.Agent) -> None:
    bob.set_concept("Alice", rename="Alicia")
    bob.relate("Alicia", "saw", "Bert")
    bob.relate("Carol", "saw", "Alicia")
    bob.unrelate("Alicia", "likes")


def a_message_that_is_answered_changes(bob: elytron.Agent) -> None:
    bob.edit("m2", "Alice said more")
    bob.save("user", "Bert agrees", id="late", session="s0", user="bert")
    bob.edit("m4", "nothing")
    bob.delete("m3")
    bob.edit("late", "Alice agrees")


def an_id_is_used_again(bob: elytron.Agent) -> None:
    for text in ("one", "Alice and two"):
        bob.delete("m4")
        bob.save("user", text, id="m4", session="s0", user="alice")
        bob.delete_memory("fact")
        bob.remember(text, about=["Bert"], session="s0", id="fact")
        bob.delete_concept("Bert")


def messages_leave_and_return(bob: elytron.Agent) -> None:
    bob.archive(older_than_days=0, keep=1)
    bob.save("user", "meanwhile", session="s0")
    bob.restore(session="s0")
    bob.set_concept("Alice", type="person")


@pytest.mark.parametrize("page_max", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    "change",
    [
        names_go_round,
        a_renamed_concept_is_related,
        a_message_that_is_answered_changes,
        an_id_is_used_again,
        messages_leave_and_return,
    ],
)
def test_changes_may_be_cut_into_pages_anywhere(
    change: Callable[[elytron.Agent], None],
    page_max: int,
    store: elytron.Store,
    client: GraphClient,
    monkeypatch: pytest.MonkeyPatch,
):
    """What a page reads is newer than its changes, yet nothing is made twice or lost."""
    bob = store.agent("bob")
    fill(bob, 5)
    bob.relate("Alice", "likes", "Bert")
    bob.remember("Alice knows Bert", about=["Alice", "Bert"], session="s0", id="fact")
    bob.flush()
    monkeypatch.setattr(batches, "PAGE_MAX", page_max)
    with projecting(bob, client) as graph:
        same(graph)
        change(bob)
        same(graph)
        bob.flush()
        same(graph)
    assert why_built(store) == "there was none"
