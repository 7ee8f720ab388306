"""
Writes a store of this version with everything in it, for later versions to open.

    python tests/write_store.py             # at a release: makes tests/stores/VERSION/
    python tests/write_store.py --again     # the same, though it is there: before the release only

`store.tar.zst` is the folder as a killed process left it, `contents.json` what this version read
in it. `tests/test_released_stores.py` has the version at hand read the same.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import zstandard

import elytron

STORES = Path(__file__).parent / "stores"
PACKED_MAX_BYTES = 100_000  # of one version
UNPACKED_MAX_BYTES = 64 << 20
_NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
_LIMITS: dict[str, Any] = {
    "reserve_mb": 0,
    "max_total_mb": 64,
    "auto_cleanup": False,
    "graph_buffer_mb": 32,
    "graph_timeout_s": 60,
    "embed_query_timeout_s": 60,  # else words alone answer after two seconds
    "propose_concepts": False,  # which names are worth it is for each version to say
}


class _Lengths:
    """An embedder without any model, which says the same in each version and on each machine."""

    name = "lengths"

    def __call__(self, texts: Sequence[str], kind: str) -> list[list[float]]:
        return [[byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()] for text in texts]


# What each agent is opened with. Names that a person may type; the first holds everything.
AGENTS: dict[str, dict[str, Any]] = {
    "Alice's Café": {},
    "amie française": {"languages": "french"},
    "vectors": {"embedder": _Lengths()},
}


def opened(folder: Path, agent: str) -> elytron.Store:
    return elytron.open(folder, **_LIMITS, **AGENTS[agent])


def _say(agent: elytron.Agent, first: int, count: int, **marks: Any) -> None:
    """Messages of two people in two sessions, each with a word that no other has."""
    for n in range(first, first + count):
        agent.save(
            "user" if n % 2 == 0 else "assistant",
            f"Number {n} says word{n}word to Alice in Lyon: « déjà vu » 日本語 🙂",
            id=f"m{n}",
            session=f"s{n % 4 // 2}",
            user=("alice", "bob ☕")[n % 4 // 2] if n % 2 == 0 else None,
            at=_NOON + timedelta(hours=n),
            metadata={"n": n, "tags": ["tea", None, 1.5], "deep": {"é": [n]}},
            **marks,
        )


def _learn(agent: elytron.Agent) -> None:
    agent.remember("Alice prefers tea", id="tea", about=["Alice", "tea"], session="s0", pinned=True)
    agent.remember("Alice lives in Lyon", id="lyon", about=["Alice", "Lyon"], valid_from=_NOON)
    agent.remember(
        "Alice lives in Paris", id="paris", about=["Alice"], replaces="lyon",
        valid_from=_NOON + timedelta(days=30), importance=0.9, metadata={"by": "test"},
    )  # fmt: skip
    agent.remember("Alice has a cat", id="cat", kind="pet", valid_from=_NOON)
    agent.close_memory("cat", at=_NOON + timedelta(days=9))
    agent.set_concept("Lyon", type="place", description="a town", confidence=0.75)
    agent.relate("Alice", "lives in", "Lyon", valid_from=_NOON)
    agent.relate("Alice", "lives in", "Paris", replaces=True, valid_from=_NOON + timedelta(days=30))
    agent.relate("Alice", "knows", "Bob", strength=0.5)
    agent.relate("Bob", "owns", "boat", valid_from=_NOON)
    agent.unrelate("Bob", "owns", "boat", at=_NOON + timedelta(days=1))


def _everything(folder: Path) -> None:
    with opened(folder, "Alice's Café") as store:
        agent = store.agent("Alice's Café")
        _say(agent, 0, 60)
        _say(agent, 60, 4, importance=0.9)
        agent.pin("m3")
        agent.edit("m50", "What was edited says word50word")
        agent.save("user", "What was deleted", id="gone")
        agent.delete("gone")
        agent.save("user", "What was forgotten", id="other", session="s9", user="mallory")
        agent.forget(user="mallory")
        _learn(agent)
        agent.flush()
        agent.archive(older_than_days=0, keep=50)
        agent.restore(["m1"])
        agent.archive(older_than_days=0, keep=40)  # a second segment
        agent.memories("who prefers tea?")  # a use, which is counted
        agent.cypher("MATCH (m:Message) RETURN count(m)")
    with opened(folder, "amie française") as store:
        agent = store.agent("amie française")
        _say(agent, 0, 6)
        agent.save("user", "Les chevaux mangent des pommes.", id="chevaux")
    with opened(folder, "vectors") as store:
        agent = store.agent("vectors")
        _say(agent, 0, 6)
        agent.save("user", "One text that is said twice.", id="twice-1")
        agent.save("user", "One text that is said twice.", id="twice-2")
        agent.save("user", "This one declines its vector.", id="declined", embed=False)
        agent.flush()


def fill(folder: Path) -> None:
    """Make the store, save some more, and be killed: their commits are in the WAL alone."""
    _everything(folder)
    for name in AGENTS:  # left open
        agent = opened(folder, name).agent(name)
        _say(agent, 100, 5)
        agent.edit("m101", "Edited in the log: word101word")
    os.kill(os.getpid(), signal.SIGKILL)


def _plain(value: object) -> Any:
    """A record as JSON has it."""
    names = getattr(type(value), "__slots__", ())
    found = {name: getattr(value, name) for name in names}
    return json.loads(json.dumps(found, default=lambda odd: odd.isoformat(), ensure_ascii=False))


def _of_messages(agent: elytron.Agent) -> dict[str, Any]:
    usage = agent.usage()
    held = {message.id: _plain(message) for message in agent.messages()}
    both = {message.id: _plain(message) for message in agent.messages(archived=True)}
    asked = {key: f"word{key[1:]}word" for key in both if key.startswith("m")}
    return {
        "held": list(held.values()),
        "archived": [one for key, one in both.items() if key not in held],
        "sessions": [_plain(session) for session in agent.sessions()],
        "archived_count": usage.archived,
        "pinned_count": usage.pinned,
        "embedding_reasons": dict(usage.embeddings.reasons),
        "found": sorted(
            key
            for key, word in asked.items()
            if key in {hit.message.id for hit in agent.recall(word, archived=True)}
        ),
        "counted_by_the_graph": agent.cypher("MATCH (m:Message) RETURN count(m) AS messages"),
    }


def _of_knowledge(agent: elytron.Agent) -> dict[str, Any]:
    """What holds now, and what held on some days, so that what is closed is there too."""
    days = {str(day): _NOON + timedelta(days=day) for day in (-1, 0.5, 10, 40)}
    concepts = [_plain(concept) for concept in agent.concepts(limit=1000)]
    return {
        "memories": [_plain(memory) for memory in agent.memories()],
        "memories_then": {
            day: [_plain(memory) for memory in agent.memories(as_of=at)] for day, at in days.items()
        },
        # How often one is mentioned hangs on who linked what the WAL brought.
        "concepts": [
            {key: value for key, value in one.items() if key != "mentions"}
            for one in sorted(concepts, key=lambda one: str(one["name"]))
        ],
        "relations": [_plain(relation) for relation in agent.relations()],
        "relations_then": {
            day: [_plain(relation) for relation in agent.relations(as_of=at)]
            for day, at in days.items()
        },
    }


def contents(folder: Path) -> dict[str, Any]:
    """All that is in the store, by what the public verbs say."""
    found: dict[str, Any] = {}
    for name in AGENTS:
        with opened(folder, name) as store:
            agent = store.agent(name)
            agent.flush()
            # Knowledge first: a recall counts as a use.
            found[name] = {
                **_of_knowledge(agent),
                **_of_messages(agent),
                "wrong": [finding.what for finding in agent.check().findings],
            }
    return found


def pack(folder: Path) -> bytes:
    """The folder but for shared memory, which is of the machine that it was written on."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as file:
        for path in sorted(folder.rglob("*")):
            if path.name.endswith("-shm"):
                continue
            one = file.gettarinfo(path, path.relative_to(folder).as_posix())
            one.uid = one.gid = 0
            one.uname = one.gname = ""
            if one.isreg():
                file.addfile(one, io.BytesIO(path.read_bytes()))
            else:
                file.addfile(one)
    return zstandard.ZstdCompressor(level=19).compress(packed.getvalue())


def unpack(packed: bytes, folder: Path) -> None:
    data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=UNPACKED_MAX_BYTES)
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        file.extractall(folder, filter="data")


def main(arguments: list[str]) -> None:
    target = STORES / elytron.__version__
    if target.exists() and "--again" not in arguments:
        raise SystemExit(f"{target} is there; a released store is never written anew")
    with tempfile.TemporaryDirectory() as temporary:
        folder, copy = Path(temporary) / "store", Path(temporary) / "copy"
        killed = subprocess.run(
            [sys.executable, __file__, "--fill", str(folder)], check=False, timeout=120
        )
        if killed.returncode != -signal.SIGKILL:
            raise SystemExit(f"filling the store ended with {killed.returncode}")
        packed = pack(folder)
        unpack(packed, copy)
        found = contents(copy)
    if len(packed) > PACKED_MAX_BYTES:
        raise SystemExit(f"the store has {len(packed)} bytes; at most {PACKED_MAX_BYTES}")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    (target / "store.tar.zst").write_bytes(packed)
    text = json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True)
    (target / "contents.json").write_text(text + "\n", encoding="utf-8")
    print(f"{target}: {len(packed)} bytes packed")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fill"]:
        fill(Path(sys.argv[2]))
    main(sys.argv[1:])
