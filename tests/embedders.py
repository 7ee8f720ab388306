"""Embedders that a test can watch, stop, and have fail; and what a ledger says of vectors."""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elytron import Agent
from elytron.ledger import vector_reads, vectors

WAIT_S = 60
DIM = 16


def unit_row(text: str, dim: int = DIM) -> NDArray[np.float32]:
    """Numbers that depend on the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    row = np.random.default_rng(seed).normal(size=dim).astype(np.float32)
    return row / np.float32(np.linalg.norm(row))


class Hashing:
    """
    A vector that depends on the text alone, so that a stored one can be checked.

    Args:
        refused: raises if one of the texts holds this.
        fail: called before each answer with (texts, kind); may raise.
    """

    def __init__(
        self,
        dim: int = DIM,
        *,
        name: str = "hashing",
        refused: str | None = None,
        fail: Callable[[Sequence[str], str], None] | None = None,
    ) -> None:
        self.dim = dim
        self.name = name
        self.refused = refused
        self.fail = fail
        self.asked: list[list[str]] = []

    @property
    def documents(self) -> list[str]:
        """All texts that were asked for, in order."""
        return list(itertools.chain.from_iterable(self.asked))

    def __call__(self, texts: Sequence[str], kind: str) -> Any:
        self.asked.append(list(texts))
        if self.fail is not None:
            self.fail(texts, kind)
        if self.refused is not None and any(self.refused in text for text in texts):
            raise ValueError("one of these")
        return np.stack([unit_row(text, self.dim) for text in texts])


class Gate:
    """Where calls of an embedder wait until they are let through."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, _texts: Sequence[str], _kind: str) -> None:
        self.reached.set()
        assert self.opened.wait(WAIT_S), "nobody opened the gate"


@contextmanager
def gate() -> Iterator[Gate]:
    """A gate that is open at the end, whatever happens, so that no thread waits there."""
    one = Gate()
    try:
        yield one
    finally:
        one.opened.set()


def down(_texts: Sequence[str], _kind: str) -> None:
    """An embedder that is not there."""
    raise ConnectionError("nobody is there")


def query(agent: Agent, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
    """Rows of the open ledger; none if there is no agent."""
    with agent._agents.use(agent.name, create=False) as opened:
        if opened is None:
            return []
        with opened.ledger.reading() as db:
            return db.execute(sql, values).fetchall()


def step(agent: Agent) -> bool:
    """One step of embedding, as the background does it; whether there is more."""
    return agent._agents.embed_behind(agent.name)


def steps(agent: Agent) -> int:
    """All that there are to do; how many."""
    for count in itertools.count(1):
        assert count < 10_000, "it has no end"
        if not step(agent):
            return count
    raise AssertionError


def by_hand(agent: Agent) -> Agent:
    """The agent, of a store in which nothing is embedded in the background: the test does it."""
    embeddings = agent._agents.embeddings
    assert embeddings is not None
    embeddings.background.abandon()
    return agent


def covered(agent: Agent) -> dict[str, str]:
    """Contents of the messages and memories that have a vector or a share in one, by id."""
    return dict(
        query(
            agent,
            "SELECT id, content FROM (SELECT key, id, content FROM messages UNION ALL"
            " SELECT key, id, content FROM memories) WHERE key IN"
            " (SELECT key FROM vectors UNION ALL SELECT s.key FROM shared s JOIN vectors v"
            " ON v.digest = s.digest)",
        )
    )


def check_vectors(agent: Agent, *, dim: int | None = None) -> None:
    """
    That each vector is of what is there, and of its present text, once; that who shares one shares
    what is there; and that what is counted is so.

    Args:
        dim: of `Hashing`, whose vectors they are; numbers are compared where they are whole.
    """
    with agent._agents.use(agent.name, create=False) as opened:
        assert opened is not None
        with opened.ledger.reading(snapshot=True) as db:
            contents = dict(
                db.execute(
                    "SELECT key, content FROM messages UNION SELECT key, content FROM memories"
                )
            )
            held = db.execute("SELECT * FROM vectors").fetchall()
            shared = db.execute("SELECT key, digest FROM shared").fetchall()
            reasons = db.execute("SELECT key, reason FROM unembedded").fetchall()
            state = vectors.state(db)
    owners = [row[1] for row in held]
    assert len({row[2] for row in held}) == len(held), "an equal text has two vectors"
    for number, key, digest, projection, scale, data, checksum in held:
        assert key in contents, f"vector {number} of what is not there"
        assert digest == vector_reads.digest(contents[key]), "a stale vector"
        assert checksum == vectors.checksum((key, digest, projection, scale, data))
        if dim is not None and not projection:
            row = np.frombuffer(data, np.int8) * np.float32(scale)
            expected = unit_row(contents[key], dim)
            assert float(row @ expected) > 0.99
    digests = {row[2] for row in held}
    for key, digest in shared:
        assert key in contents, "a share of what is not there"
        assert digest == vector_reads.digest(contents[key]), "a stale share"
        assert digest in digests, "a share in what is not there"
        assert key not in owners, "it has one and shares one"
    for key, _ in reasons:
        assert key in contents, "a reason of what is not there"
        assert key not in owners
        assert key not in dict(shared)
    if state is None:
        assert not held
        return
    assert state.bytes == sum(vectors.ROW_BYTES + len(row[5]) for row in held)
    assert state.last - state.removed == len(held)
    assert state.last >= max([row[0] for row in held], default=0)
