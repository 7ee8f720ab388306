"""
The load of a proof: processes that do everything at once to two agents, and say what they do.

Each verb is announced before it is called and told again when it has returned, so that whoever
listens knows, of a process that was killed, what must be there and what may be. A text follows
from its id and version alone. Only one process changes what is in a given place of the store, so
what it has to be follows from the order in which it was told.
"""

import random
import select
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import elytron
from elytron.ledger import schema
from proof_nursery import Wire

AGENTS = ("Bob Technique", "bob_technique")
# Small, so that each limit is reached again and again.
SETTINGS: dict[str, Any] = {
    "max_db_size_mb": 12,
    "wal_limit_mb": 0.25,
    "max_message_kb": 32,
    "max_messages_per_agent": 300,
    "keep_messages": 100,
    "emergency_messages": 50,
    "max_total_mb": 64,
    "reserve_mb": 0.25,
    "change_max": 500,
    "page_cache_mb": 0.25,
    "cleanup_interval_hours": 0.01,
    "min_embed_chars": 10,
    "vector_dims": 8,
    "save_timeout_s": 60,
    "read_timeout_s": 30,
    "graph_timeout_s": 60,
}
# What may be in a verb's way under this load. Where nothing was written they say so.
NOT_WRITTEN = ("busy", "over-budget", "conflict", "not-found")
UNCERTAIN = ("outcome-unknown", "graph-unavailable", "deadline-exceeded", "embedder-unavailable")
_SECRETS_MAX = 3  # not yet forgotten
_MEMORIES_MAX = 40
_DIM = 16
_NAMES = "Alice Marseille Pascal Grenoble Hannah Toulouse Martin Lyon".split()


def embed(texts: list[str], kind: str) -> Any:
    """Vectors that follow from the texts."""
    rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=_DIM) for text in texts]
    return np.stack(rows).astype(np.float32)


def text_of(ident: str, version: int) -> str:
    """What the message, or memory, of this id says in this version."""
    dice = random.Random(f"{ident} {version}")
    words = dice.choices("river stone window garden letter winter".split(), k=dice.randrange(60))
    return f"{ident} in version {version} tells {dice.choice(_NAMES)} of {' '.join(words)}."


class Load:
    """One process's share of the load."""

    def __init__(self, wire: Wire, folder: str, name: str, seed: int) -> None:
        self.wire = wire
        self.folder = Path(folder)
        self.name = name  # of this life; no other process ever has it
        self.dice = random.Random(f"{seed} {name}")
        self.count = 0
        self.store = self._open()

    def _open(self) -> elytron.Store:
        with self.told("open"):
            return elytron.open(self.folder, embedder=embed, **SETTINGS)

    @contextmanager
    def told(self, verb: str, **what: Any) -> Iterator[None]:
        """Say what is to be done, and how it went; an error that may be is no end."""
        self.wire.tell(verb=verb, **what)
        try:
            yield
        except elytron.ElytronError as error:
            if error.code not in (*NOT_WRITTEN, *UNCERTAIN):
                raise
            sure = error.code in NOT_WRITTEN
            self.wire.tell(error=error.code, undone=sure, why=str(error)[:300])
        else:
            self.wire.tell(done=True)

    def run(self, turns: Any) -> None:
        """Take a turn after the other until told to pause, or nobody listens any more."""
        verbs, weights = zip(*turns, strict=True)
        while True:
            if select.select([self.wire.end], [], [], 0)[0]:
                if not self._obey():
                    return
                continue
            verb: Callable[[elytron.Agent], None] = self.dice.choices(verbs, weights)[0]
            verb(self.store.agent(self.dice.choice(AGENTS)))

    def _obey(self) -> bool:
        """
        Stand still until told to go on; False at the end of all.

        With the store closed, since threads behind an open one go on moving messages.
        """
        self.wire.lines()
        with self.told("close"):
            self.store.close()
        self.wire.tell(paused=True)
        self.wire.lines()
        if not self.wire.at_end:
            self.store = self._open()
        return not self.wire.at_end

    def next_id(self, kind: str) -> str:
        self.count += 1
        return f"{kind}.{self.name}.{self.count:05}"

    def reopen(self, agent: elytron.Agent) -> None:
        with self.told("close"):
            self.store.close()
        self.store = self._open()

    def checkpoint(self, agent: elytron.Agent) -> None:
        with self.told("reclaim", agent=agent.name):
            agent.reclaim()


def _saved(ident: str) -> dict[str, Any]:
    """A message of the load; forty make a session."""
    _, name, number = ident.split(".")
    session = f"{name}.{int(number) // 40}"
    return {"role": "user", "content": text_of(ident, 0), "id": ident, "session": session}


class Saver(Load):
    """Saves, in every way there is, and has the file made anew now and then."""

    last: tuple[str, str] | None = None

    def save(self, agent: elytron.Agent) -> None:
        ident = self.next_id("m")
        with self.told("save", agent=agent.name, ids=[ident]):
            assert agent.save(**_saved(ident)).new
            self.last = (agent.name, ident)

    def save_many(self, agent: elytron.Agent) -> None:
        ids = [self.next_id("m") for _ in range(self.dice.randint(2, 20))]
        with self.told("save", agent=agent.name, ids=ids):
            receipts = agent.save_many([_saved(ident) for ident in ids])
            assert [(receipt.id, receipt.new) for receipt in receipts] == [
                (ident, True) for ident in ids
            ]

    def submit(self, agent: elytron.Agent) -> None:
        """Several at once, of which each is told for itself."""
        ids = [self.next_id("m") for _ in range(5)]
        futures = []
        for ident in ids:
            self.wire.tell(verb="save", agent=agent.name, ids=[ident], part=ident)
            try:
                futures.append(agent.submit(**_saved(ident)))
            except elytron.ElytronError as error:
                if error.code not in NOT_WRITTEN:
                    raise
                self.wire.tell(error=error.code, undone=True, part=ident)
        for future in futures:
            error = future.exception(timeout=120)
            if error is None:
                self.wire.tell(done=True, part=future.result().id)
            else:
                assert isinstance(error, elytron.ElytronError)
                assert error.code in NOT_WRITTEN, error
        # Those whose future failed stay open: they may not be there.

    def save_again(self, agent: elytron.Agent) -> None:
        """As after a lost answer: it is held already, wherever, unless it was changed."""
        if self.last is None or self.last[0] != agent.name or changed(self.last[1]):
            return
        if self.count - int(self.last[1][-5:]) > 40:  # its session may be deleted by now
            return
        with self.told("read"):
            receipt = agent.save(**_saved(self.last[1]))
            assert not receipt.new, f"{self.last[1]} was lost: it could be saved again"
        self.last = None

    def read(self, agent: elytron.Agent) -> None:
        with self.told("read"):
            history = agent.history(limit=30)
            for message in history:
                assert message.content.startswith(message.id) or message.id.startswith("x.")
            if history:
                asked = self.dice.choice(history)
                agent.recall(asked.content, limit=3)

    def rebuild(self, agent: elytron.Agent) -> None:
        with self.told("rebuild", agent=agent.name):
            agent.reclaim(full=True)

    def back_up(self, agent: elytron.Agent) -> None:
        with self.told("backup"):
            self.store.backup(backup_of(self.folder))


def backup_of(folder: Path) -> Path:
    """Where the backup of a store is."""
    return folder.with_name(f"{folder.name}-backup")


def changed(ident: str) -> bool:
    """Whether a message is one of those that may be edited or deleted."""
    return int(ident[-5:]) % 3 == 0


class Changer(Load):
    """Edits, deletes, archives, restores and forgets."""

    def __init__(self, wire: Wire, folder: str, name: str, seed: int) -> None:
        super().__init__(wire, folder, name, seed)
        self.secrets: list[tuple[str, str]] = []

    def _any(self, agent: elytron.Agent) -> str | None:
        ids = [m.id for m in agent.history(limit=100) if m.id[0] == "m" and changed(m.id)]
        return self.dice.choice(ids) if ids else None

    def edit(self, agent: elytron.Agent) -> None:
        ident = self._any(agent)
        if ident is not None:
            self.count += 1
            version = 1 + int(self.name.rpartition("-")[2]) * 100_000 + self.count
            with self.told("edit", agent=agent.name, ids=[ident], version=version):
                agent.edit(ident, text_of(ident, version))

    def delete(self, agent: elytron.Agent) -> None:
        ident = self._any(agent)
        if ident is not None:
            with self.told("delete", agent=agent.name, ids=[ident]):
                agent.delete(ident)

    def delete_session(self, agent: elytron.Agent) -> None:
        """One that nobody adds to any more."""
        newest: dict[str, int] = {}
        for session in agent.sessions(limit=1000):
            name, _, number = session.id.partition(".")
            if number:
                newest[name] = max(newest.get(name, 0), int(number))
        old = [f"{name}.{number - 2}" for name, number in newest.items() if number >= 2]
        if old:
            session_id = self.dice.choice(old)
            with self.told("delete_session", agent=agent.name, session=session_id):
                agent.delete_session(session_id)

    def archive(self, agent: elytron.Agent) -> None:
        with self.told("archive", agent=agent.name):
            agent.archive(older_than_days=0, keep=self.dice.randint(10, 150))

    def restore(self, agent: elytron.Agent) -> None:
        newest = agent.history(limit=1)
        if newest:
            name, _, number = newest[0].session.partition(".")
            if number:
                with self.told("restore", agent=agent.name):
                    agent.restore(session=f"{name}.{max(0, int(number) - 1)}")

    def enforce(self, agent: elytron.Agent) -> None:
        with self.told("enforce", agent=agent.name):
            agent.enforce_limits()

    def emergency(self, agent: elytron.Agent) -> None:
        with self.told("emergency", agent=agent.name):
            agent.emergency_cleanup()

    def secret(self, agent: elytron.Agent) -> None:
        if len(self.secrets) >= _SECRETS_MAX:
            return self.forget(agent)
        token = f"zq{self.dice.getrandbits(64):016x}"
        ids = [self.next_id("x") for _ in range(4)]
        content = f"Nobody may ever know that {token} is the word of {token}."
        said = {"role": "user", "content": content, "session": f"{token}s", "user": token}
        with self.told("save", agent=agent.name, ids=ids, token=token):
            agent.save_many([{"id": ident, **said} for ident in ids])
        self.secrets.append((agent.name, token))
        return None

    def forget(self, agent: elytron.Agent) -> None:
        if self.secrets:
            name, token = self.secrets.pop(0)
            with self.told("forget", agent=name, token=token):
                self.store.agent(name).forget(user=token)


class Learner(Load):
    """Remembers, relates, asks the graph, and waits for vectors."""

    def __init__(self, wire: Wire, folder: str, name: str, seed: int) -> None:
        super().__init__(wire, folder, name, seed)
        self.known: list[tuple[str, str]] = []

    def remember(self, agent: elytron.Agent) -> None:
        if len(self.known) >= _MEMORIES_MAX:
            return self.unlearn(agent)
        ident = self.next_id("k")
        about = self.dice.sample(_NAMES, 2)
        with self.told("save", agent=agent.name, ids=[ident]):
            agent.remember(text_of(ident, 0), id=ident, about=about)
            self.known.append((agent.name, ident))
        return None

    def unlearn(self, agent: elytron.Agent) -> None:
        if self.known:
            name, ident = self.known.pop(0)
            with self.told("delete", agent=name, ids=[ident]):
                self.store.agent(name).delete_memory(ident)

    def edit_memory(self, agent: elytron.Agent) -> None:
        if self.known:
            name, ident = self.dice.choice(self.known)
            self.count += 1
            with self.told("edit", agent=name, ids=[ident], version=self.count):
                self.store.agent(name).edit_memory(ident, text_of(ident, self.count))

    def relate(self, agent: elytron.Agent) -> None:
        ident = self.next_id("r")
        with self.told("save", agent=agent.name, ids=[ident]):
            agent.relate(ident, "leads to", self.dice.choice(_NAMES))

    def ask(self, agent: elytron.Agent) -> None:
        with self.told("ask", agent=agent.name):
            rows = agent.cypher(
                "MATCH (m:Message) RETURN m.id AS id, m.content AS content LIMIT 20"
            )
            for row in rows:
                assert row["content"].startswith(row["id"]) or row["id"].startswith("x.")
            agent.related(self.dice.choice(_NAMES))

    def context(self, agent: elytron.Agent) -> None:
        with self.told("read"):
            agent.context(f"what does {self.dice.choice(_NAMES)} know of the garden?")
            agent.memories("river stone")

    def flush(self, agent: elytron.Agent) -> None:
        with self.told("flush", agent=agent.name):
            agent.flush()


def saver(wire: Wire, **arguments: Any) -> None:
    one = Saver(wire, **arguments)
    one.run(
        [
            (one.save, 50), (one.save_many, 15), (one.submit, 10), (one.save_again, 5),
            (one.read, 5), (one.checkpoint, 3), (one.rebuild, 2), (one.reopen, 2),
            (one.back_up, 2),
        ]
    )  # fmt: skip


def changer(wire: Wire, **arguments: Any) -> None:
    one = Changer(wire, **arguments)
    one.run(
        [
            (one.edit, 30), (one.delete, 20), (one.delete_session, 4), (one.archive, 8),
            (one.restore, 5), (one.enforce, 3), (one.emergency, 2), (one.secret, 8),
            (one.forget, 4), (one.reopen, 2),
        ]
    )  # fmt: skip


def learner(wire: Wire, **arguments: Any) -> None:
    one = Learner(wire, **arguments)
    one.run(
        [
            (one.remember, 30), (one.unlearn, 8), (one.edit_memory, 15), (one.relate, 15),
            (one.ask, 3), (one.context, 5), (one.flush, 3), (one.checkpoint, 2), (one.reopen, 2),
        ]
    )  # fmt: skip


# -- opening, migrating, closing


def make_older(wire: Wire, folder: str, version: int) -> None:
    """A store as the version before made it, with all of it in the log."""
    older = schema.MIGRATIONS[:version]
    with (
        patch.object(schema, "MIGRATIONS", older),
        patch.object(schema, "VERSION", version),
        patch("elytron.ledger.vectors.any_noted", lambda _db: False),
    ):
        agent = elytron.open(folder).agent(AGENTS[0])
        ids = [f"m.old.{number:05}" for number in range(40)]
        agent.save_many([_saved(ident) for ident in ids])
    wire.tell(saved=ids)


def open_and_close(wire: Wire, folder: str, name: str) -> None:
    """Open, save twice, have the file made anew, close: the whole life of a small program."""
    with elytron.open(folder, embedder=embed, **SETTINGS) as store:
        agent = store.agent(AGENTS[0])
        for number in range(2):
            ident = f"m.{name}.{number:05}"
            agent.save(**_saved(ident))
            wire.tell(saved=[ident])
        agent.reclaim(full=True)
    wire.tell(closed=True)
