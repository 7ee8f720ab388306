"""
A model of vectors: whatever is done in whatever order, what is there has its vector and no other.

A Hypothesis state machine on a real store, with few texts, so that most are held several times and
their vector is shared and inherited. A plain dict has the messages and memories, and says of each
whether a step has dealt with it and whether its vector went for want of room.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import elytron
from elytron.errors import Conflict
from elytron.ledger import embedded
from elytron.upkeep import embedding
from embedders import Hashing, by_hand, check_vectors, covered, query, step, steps
from ledgers import write
from moved import ALL

DIM, DIMS = 16, 4
IDS = some.sampled_from([f"id-{n}" for n in range(12)])
TEXTS = some.sampled_from([f"A text that is held more than once, {n}" for n in range(5)])
USERS = some.sampled_from([None, "alice", "carol"])
EMBED = some.sampled_from([None, True, False])
REFUSED = "A text that nobody takes"
SETTINGS: dict[str, Any] = {
    "change_max": 100,
    "embed_batch_max": 3,
    "propose_concepts": False,
    "reserve_mb": 0,
    "vector_dims": DIMS,
}


class Vectors(RuleBasedStateMachine):
    """One agent beside a dict of what it holds; `waits` are those that a step is still to find."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(embedding, "FIT_MIN", 8)
        self.folder = Path(tempfile.mkdtemp(prefix="elytron-vectors-"))
        self.held: dict[str, dict[str, Any]] = {}
        self.archived: dict[str, dict[str, Any]] = {}
        self.memories: dict[str, dict[str, Any]] = {}
        self.store = self.opened()

    def opened(self) -> elytron.Store:
        embedder = Hashing(DIM, refused=REFUSED)
        store = elytron.open(self.folder / "store", embedder=embedder, **SETTINGS)
        store._upkeep.janitor.abandon()
        by_hand(store.agent("bob"))
        return store

    def teardown(self) -> None:
        self.store.close()
        self.patch.undo()
        shutil.rmtree(self.folder)

    @property
    def bob(self) -> elytron.Agent:
        return self.store.agent("bob")

    @property
    def all(self) -> dict[str, dict[str, Any]]:
        return self.held | self.memories

    def wanted(self) -> set[str]:
        """Those that have a vector once all is done."""
        return {
            key
            for key, one in self.all.items()
            if one["embed"] is not False and one["content"] != REFUSED and not one["no_room"]
        }

    # -- what is saved

    @rule(key=IDS, content=TEXTS | some.just(REFUSED), user=USERS, embed=EMBED)
    def save(self, key: str, content: str, user: str | None, embed: bool | None) -> None:
        message = {"content": content, "user": user, "role": "user", "embed": embed}
        known = self.held.get(key) or self.archived.get(key)
        if known is None:
            assert self.bob.save(id=key, **message).new
            self.held[key] = message | {"no_room": False}
        elif (known["content"], known["user"]) == (content, user):
            assert not self.bob.save(id=key, **message).new
        else:
            with pytest.raises(Conflict):
                self.bob.save(id=key, **message)

    @precondition(lambda self: self.held)
    @rule(data=some.data(), content=TEXTS)
    def edit(self, data: Any, content: str) -> None:
        key = data.draw(some.sampled_from(sorted(self.held)))
        self.bob.edit(key, content)
        self.held[key] |= {"content": content, "no_room": False}

    @rule(key=IDS)
    def delete(self, key: str) -> None:
        assert self.bob.delete(key) == (key in self.held or key in self.archived)
        self.held.pop(key, None)
        self.archived.pop(key, None)

    @rule(number=some.integers(0, 3), content=TEXTS)
    def remember(self, number: int, content: str) -> None:
        key = f"memory-{number}"
        if key in self.memories:
            self.bob.edit_memory(key, content)
        else:
            self.bob.remember(content, id=key)
        self.memories[key] = {"content": content, "embed": None, "no_room": False}

    @rule(number=some.integers(0, 3))
    def delete_memory(self, number: int) -> None:
        key = f"memory-{number}"
        assert self.bob.delete_memory(key) == (key in self.memories)
        self.memories.pop(key, None)

    # -- what leaves and comes back

    @rule()
    def archive(self) -> None:
        self.bob.archive(**ALL)
        self.archived |= self.held
        self.held.clear()

    @precondition(lambda self: self.archived)
    @rule(data=some.data())
    def restore(self, data: Any) -> None:
        key = data.draw(some.sampled_from(sorted(self.archived)))
        assert self.bob.restore([key]).restored == 1
        self.held[key] = self.archived.pop(key) | {"no_room": False}

    @rule(user=some.sampled_from(["alice", "carol"]))
    def forget(self, user: str) -> None:
        self.bob.forget(user=user)
        for place in (self.held, self.archived):
            for key in [key for key, one in place.items() if one["user"] == user]:
                del place[key]

    @precondition(lambda self: self.held)
    @rule(data=some.data())
    def evict(self, data: Any) -> None:
        """As for want of room: the vector goes from all who have it."""
        key = data.draw(some.sampled_from(sorted(self.held)))
        (owner,) = query(self.bob, "SELECT key FROM messages WHERE id = ?", (key,))
        had = covered(self.bob)
        owns = query(self.bob, "SELECT 1 FROM vectors WHERE key = ?", owner)
        while write(self.bob, embedded.EvictVectors(owner)):
            pass
        for other, content in had.items() if owns else ():
            if content == self.held[key]["content"]:
                self.all[other]["no_room"] = True

    # -- what is done behind

    @rule()
    def one_step(self) -> None:
        step(self.bob)

    @rule()
    def all_steps(self) -> None:
        steps(self.bob)
        assert set(covered(self.bob)) == self.wanted()
        counts = self.bob.usage().embeddings.reasons
        assert counts.get("embedded", 0) + counts.get("shared", 0) == len(
            self.wanted() & set(self.held)
        )
        assert counts.get("queued", 0) == 0
        assert sum(counts.values()) == len(self.held)

    @rule()
    def embed(self) -> None:
        self.bob.embed()
        for one in self.all.values():
            one["no_room"] = False
        assert set(covered(self.bob)) == self.wanted()

    @rule()
    def reembed(self) -> None:
        self.bob.reembed()
        for one in self.all.values():
            one["no_room"] = False
        assert set(covered(self.bob)) == self.wanted()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.opened()

    @rule()
    def check(self) -> None:
        assert self.bob.check().ok

    # -- what always holds

    @invariant()
    def each_vector_is_of_what_is_there(self) -> None:
        if self.bob.exists():
            check_vectors(self.bob, dim=DIM)
            assert set(covered(self.bob)) <= self.wanted()
            sizes = query(self.bob, "SELECT length(data) FROM vectors WHERE projection")
            assert {size for (size,) in sizes} <= {DIMS}


TestVectors = Vectors.TestCase
TestVectors.settings = settings(max_examples=40, stateful_step_count=40)
