"""
Stores that earlier versions wrote are opened, read whole, and written to by this one.

They were left by a process that was killed: `tests/write_store.py` makes one at each release.
"""

import json
from pathlib import Path
from typing import Any

import pytest

import elytron
import write_store
from elytron.ledger import schema
from ledgers import query
from write_store import AGENTS, STORES

VERSIONS = sorted(path.name for path in STORES.iterdir())
ALL_MAX_BYTES = 1 << 20  # of all versions, in the repository
MAIN = "Alice's Café"


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def released(version: str, folder: Path) -> Path:
    """The folder of a store as that version left it."""
    write_store.unpack((STORES / version / "store.tar.zst").read_bytes(), folder)
    return folder


def recorded(version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STORES / version / "contents.json").read_bytes())
    return found


def missing(was: Any, now: Any, where: str) -> list[str]:
    """Where *now* differs from what *was*; members that came later are no difference."""
    if isinstance(was, dict) and isinstance(now, dict):
        places = [missing(was[key], now.get(key), f"{where}/{key}") for key in was]
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = enumerate(zip(was, now, strict=True))
        places = [missing(one, other, f"{where}/{n}") for n, (one, other) in pairs]
    else:
        return [] if was == now else [f"{where}: {was!r} is now {now!r}"]
    return [place for some in places for place in some]


def test_this_version_has_left_a_store_for_later_ones() -> None:
    assert elytron.__version__ in VERSIONS or "dev" in elytron.__version__, (
        "before the release run: python tests/write_store.py"
    )


def test_the_stores_that_are_kept_are_small() -> None:
    assert sum(path.stat().st_size for path in STORES.rglob("*.*")) <= ALL_MAX_BYTES


def test_all_that_an_earlier_version_held_is_read_as_it_was(released: Path, version: str) -> None:
    assert next(released.glob("agents/*/ledger.db-wal")).stat().st_size, "its log was never closed"
    was = recorded(version)
    for _ in range(2):  # the second time on what the first has brought up to date
        assert missing(was, write_store.contents(released), version) == []


@pytest.mark.parametrize("name", AGENTS)
def test_a_store_of_an_earlier_version_is_written_to(released: Path, name: str) -> None:
    with write_store.opened(released, name) as store:
        agent = store.agent(name)
        before = {message.id for message in agent.messages(archived=True)}
        again = agent.save("user", "Number 0 is taken", id="new", session="s0", user="alice")
        assert again.new
        assert agent.edit("m102", "Edited by a later version: quinceword") is None
        assert agent.delete("m103")
        agent.remember("Alice reads", id="reads", about=["Alice"])
        agent.relate("Alice", "visits", "Nice")
        agent.flush()
        assert agent.recall("quinceword")[0].message.id == "m102"
        assert agent.archive(older_than_days=0, keep=5).archived
        assert agent.restore(["m2"]).restored == 1
    with write_store.opened(released, name) as store:
        agent = store.agent(name)
        after = {message.id for message in agent.messages(archived=True)}
        assert after == before - {"m103"} | {"new"}
        memory = agent.get_memory("reads")
        assert memory is not None
        assert memory.content == "Alice reads"
        assert [one.target for one in agent.relations("Alice", relation="visits")] == ["Nice"]
        assert agent.check().ok
    (number,) = query(released, "PRAGMA user_version", agent=name)[0]
    assert number == schema.VERSION, "and its file is of this version's schema"


def test_who_was_spoken_to_in_an_earlier_version_is_forgotten(released: Path) -> None:
    with write_store.opened(released, MAIN) as store:
        agent = store.agent(MAIN)
        erased = agent.forget(user="alice", replies=False)
        assert erased.messages
        assert erased.archived
        assert not [one for one in agent.messages(archived=True) if one.user == "alice"]
        assert agent.check().ok


def test_a_memory_of_another_language_keeps_it(released: Path) -> None:
    name = "amie française"
    with write_store.opened(released, name) as store:
        (hit, *_) = store.agent(name).recall("un cheval mange une pomme")
        assert hit.message.id == "chevaux"
    with write_store.opened(released, MAIN) as store, pytest.raises(elytron.InvalidSetting):
        store.agent(name).recall("cheval")


def test_vectors_of_an_earlier_version_are_used_and_not_made_anew(released: Path) -> None:
    with write_store.opened(released, "vectors") as store:
        agent = store.agent("vectors")
        hit = agent.recall("One text that is said twice.")[0]
        assert hit.similarity == pytest.approx(1, abs=0.02)
        done = agent.embed()
        assert (done.held, done.embedded) == (8, 5), "five were in the log alone"
