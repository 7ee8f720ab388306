"""
Kills: a crew of processes at work on one store, of which one after the other is killed.

A round is one SIGKILL (or one of each process at once) at a moment that a seed chooses: at any
time, or just after a process has said that it begins some verb. Another takes its place. Every few
rounds the others stand still, and all that is there is held against all that was acknowledged.
"""

import contextlib
import random
import selectors
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

import elytron
import proof_load
from proof_load import SETTINGS, backup_of
from proof_model import Line, Model, Told, out_of_order
from proof_nursery import Child, Nursery

CREW = ("saver", "saver", "changer", "learner")
WAIT_S = 120
# The verbs in whose midst a kill is most likely to hurt.
MOMENTS = (
    "open", "close", "reclaim", "rebuild", "archive", "restore", "enforce", "emergency", "forget",
    "delete_session", "save", "ask", "backup",
)  # fmt: skip
_ALL_AT_ONCE = 0.12
_AT_A_VERB = 0.5


class Crew:
    """The processes, and what they have said."""

    def __init__(self, nursery: Nursery, folder: Path, seed: int) -> None:
        self.nursery, self.folder, self.seed = nursery, folder, seed
        self.dice = random.Random(seed)
        self.model = Model()
        self.killed: Counter[str] = Counter()  # by the verb that was under way
        self.compared = 0
        self._selector = selectors.DefaultSelector()
        self._members: list[Child] = []
        self._told: dict[int, Told] = {}  # by process
        self._doing: dict[int, str] = {}
        self._paused: set[int] = set()
        self._rest: list[Told] = []  # of the dead
        self._lives = 0
        for place in range(len(CREW)):
            self._members.append(self._born(place))

    def _born(self, place: int) -> Child:
        self._lives += 1
        child = self.nursery.start(
            CREW[place],
            folder=str(self.folder),
            name=f"{CREW[place][0]}{place}-{self._lives}",
            seed=self.seed,
        )
        child.wire.end.settimeout(WAIT_S)
        self._told[child.pid] = Told()
        self._selector.register(child.wire.end, selectors.EVENT_READ, child)
        return child

    def listen(self, until_s: float, enough: Callable[[Child, Line], bool]) -> bool:
        """Hear what they say until that time, or until one says *enough*."""
        while (rest_s := until_s - time.monotonic()) > 0:
            for key, _ in self._selector.select(rest_s):
                child: Child = key.data
                if any(
                    [self._hear(child, line) and enough(child, line) for line in self._from(child)]
                ):
                    return True
                assert not child.wire.at_end, f"{child.pid} ended by itself"
        return False

    def _from(self, child: Child) -> list[Line]:
        return child.wire.lines()

    def _hear(self, child: Child, line: Line) -> bool:
        assert "failed" not in line, line["failed"]
        self._told[child.pid].hear(line)
        if "verb" in line:
            self._doing[child.pid] = line["verb"]
        elif "part" not in line:
            self._doing[child.pid] = "nothing"
        if "paused" in line:
            self._paused.add(child.pid)
        return True

    def kill_some(self) -> None:
        """One round."""
        everybody = self.dice.random() < _ALL_AT_ONCE
        places = list(range(len(CREW))) if everybody else [self.dice.randrange(len(CREW))]
        if self.dice.random() < _AT_A_VERB:
            verb = self.dice.choice(MOMENTS)
            # Whoever says it first is the one.
            said: list[Child] = []

            def begins(child: Child, line: Line) -> bool:
                if line.get("verb") == verb:
                    said.append(child)
                return bool(said)

            self.listen(time.monotonic() + 1.0, begins)
            if said and not everybody:
                places = [self._members.index(said[0])]
            # Short enough to hit the midst of it.
            self.listen(time.monotonic() + self.dice.random() ** 2 * 0.05, _never)
        else:
            self.listen(time.monotonic() + self.dice.uniform(0.02, 0.6), _never)
        for place in places:
            self._members[place].kill()
        for place in places:
            self._bury(self._members[place])
            self._members[place] = self._born(place)

    def _bury(self, child: Child) -> None:
        self._selector.unregister(child.wire.end)
        for line in child.to_end(WAIT_S):
            self._hear(child, line)
        self.killed[self._doing.pop(child.pid, "beginning")] += 1
        code = child.ended()
        assert code == -9, f"a process ended with {code} before it was killed"
        self._rest.append(self._told.pop(child.pid))

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """For the length of the block nobody does anything."""
        self._paused.clear()
        for child in self._members:
            child.wire.end.sendall(b"{}\n")
        all_paused = self.listen(
            time.monotonic() + WAIT_S, lambda *_: len(self._paused) == len(CREW)
        )
        assert all_paused, f"{self._doing} do not come to an end"
        told = [*self._rest, *self._told.values()]
        self._rest = []
        self.model.apply(doing for one in told for doing in one.taken())
        yield
        for child in self._members:
            child.wire.end.sendall(b"{}\n")

    def end(self) -> None:
        """Let all of them go; they close nothing, as a program that is forgotten."""
        for child in self._members:
            self._selector.unregister(child.wire.end)
            child.kill()
            child.ended()
        self._selector.close()

    # -- comparing

    def compare(self) -> list[str]:
        """What is wrong with the store, by all that was told."""
        self.compared += 1
        wrong: list[str] = []
        with elytron.open(self.folder, embedder=proof_load.embed, **SETTINGS) as store:
            for name in store.agents():
                agent = store.agent(name)
                for token in [t for t in self.model.in_doubt if self.model.secrets[t] == name]:
                    agent.forget(user=token)
                    self.model.forgot(token)
                agent.enforce_limits()
                agent.reclaim()
                wrong += self._messages(agent)
                wrong += self._learned(agent)
                wrong += [f"{name}: {finding}" for finding in agent.check().findings]
        wrong += leaks(self.folder, self.model.forgotten)
        return wrong

    def compare_backup(self) -> list[str]:
        """
        What is wrong with the backup into which the killed ones have written, once it is brought
        up to date: restored elsewhere it has to be all that the store is.
        """
        backup, elsewhere = backup_of(self.folder), self.folder.with_name("restored")
        with elytron.open(self.folder, embedder=proof_load.embed, **SETTINGS) as store:
            failed = store.backup(backup).failed
            was = {name: list(store.agent(name).messages(archived=True)) for name in store.agents()}
        shutil.rmtree(elsewhere, ignore_errors=True)
        failed += elytron.restore_backup(backup, elsewhere, **SETTINGS).failed
        wrong = [f"backup: {one}" for one in failed]
        with elytron.open(elsewhere, embedder=proof_load.embed, **SETTINGS) as store:
            for name, messages in was.items():
                agent = store.agent(name)
                wrong += [f"restored {name}: {finding}" for finding in agent.check().findings]
                if list(agent.messages(archived=True)) != messages:
                    wrong.append(f"{name} has other messages when it is restored")
        return wrong

    def _messages(self, agent: elytron.Agent) -> Iterator[str]:
        everything = list(agent.messages(archived=True))
        held = list(agent.messages())
        seen = {message.id: message.content for message in everything}
        if len(seen) != len(everything):
            twice = Counter(message.id for message in everything).most_common(5)
            yield f"{agent.name}: messages are there twice: {twice}"
        yield from self.model.compare(
            agent.name, "m", {ident: text for ident, text in seen.items() if ident[0] == "m"},
            proof_load.text_of,
        )  # fmt: skip
        secrets = {ident: text for ident, text in seen.items() if ident[0] == "x"}
        yield from self.model.compare(agent.name, "x", secrets, None)
        usage = agent.usage()
        if (usage.messages, usage.messages + usage.archived) != (len(held), len(everything)):
            yield (
                f"{agent.name}: {usage.messages} held and {usage.archived} archived, but"
                f" {len(held)} and all {len(everything)} are shown"
            )
        wrong = out_of_order(message.id for message in held)
        if wrong:
            yield f"{agent.name}: out of order: {wrong[:5]}"

    def _learned(self, agent: elytron.Agent) -> Iterator[str]:
        memories = {memory.id: memory.content for memory in agent.memories(limit=10_000)}
        yield from self.model.compare(agent.name, "k", memories, proof_load.text_of)
        relations = [one.source for one in agent.relations(limit=10_000)]
        if len(set(relations)) != len(relations):
            yield f"{agent.name}: relations are there twice"
        yield from self.model.compare(agent.name, "r", dict.fromkeys(relations, ""), None)


def _never(_child: Child, _line: Line) -> bool:
    return False


def leaks(folder: Path, tokens: set[str]) -> list[str]:
    """Files that hold a text which was forgotten; nobody has the store open in this process."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        with contextlib.suppress(FileNotFoundError):  # taken away just now
            data = path.read_bytes()
            if path.name.endswith(".zst"):
                with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                    data += reader.read()
            found += [f"{path.name} holds {token}" for token in tokens if token.encode() in data]
    return found
