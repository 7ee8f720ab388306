"""
Several processes on one agent: is each receipt true, is anything doubled, does anyone get an error?

Each process saves, edits, deletes, remembers, recalls and asks at its own pace, and writes down
what it is about to do and what was acknowledged. Afterwards the store is opened again and compared
with these notes: each message is there once with its content, and those of a process are in its
order. `--max-messages` makes the processes archive meanwhile; `--kill-every` kills one with SIGKILL
every so many seconds and starts another in its place; `--cypher-share 0` leaves the graph out.

Ends with 1 if a message is missing or doubled, if `check` finds something, or if a verb raised.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import elytron
from elytron.ledger import files, lock

AGENT, SESSIONS = "shared", 3
PAUSES_S = (0.0, 0.0, 0.0, 0.001, 0.002, 0.005, 0.01, 0.02)  # between two verbs, by process
WEIGHTS = {
    "save": 50, "save_many": 5, "edit": 6, "delete": 5, "remember": 4,
    "recall": 14, "history": 12, "get": 3, "cypher": 1.0, "archive": 0.3,
}  # fmt: skip
NAMES = "Alice Bruno Chloe Dmitri Elena Lyon Berlin Porto Kyoto Oslo".split()
SYLLABLES = "ba de fi go lu ma ne pi ro su ta ve".split()
WORDS = [one + two + three for one in SYLLABLES for two in SYLLABLES[:6] for three in SYLLABLES[6:]]
ARCHIVE_KEEP = 300
VERBS_MIN = 25  # of each process, however slow the machine is
START_MAX_S, END_MAX_S = 60, 120


class Notes:
    """What one process was about to do and did, one line each, whole even if it is killed."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, **line: Any) -> None:
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


class Crewman:
    """One of the processes."""

    def __init__(self, agent: elytron.Agent, name: str, notes: Notes) -> None:
        self._agent = agent
        self._name = name
        self._notes = notes
        self._random = random.Random(name)
        self._number = 0
        self._mine: list[str] = []  # ids of messages that can be edited or deleted
        self.lock_waits_s: list[float] = []

    def work(self, until_s: float, pause_s: float, weights: dict[str, float]) -> None:
        verbs, shares = list(weights), list(weights.values())
        for number in itertools.count():
            if number >= VERBS_MIN and time.monotonic() >= until_s:
                return
            verb = self._random.choices(verbs, shares)[0]
            begun_s = time.monotonic()
            try:
                getattr(self, f"_{verb}")()
            except elytron.NotFound:
                # What is edited may have left for the archive since: that is an answer.
                assert verb == "edit"
                self._notes.add(verb=verb, at=begun_s, moved=True)
            except Exception as error:  # noqa: BLE001 - counted: there must be none
                self._notes.add(verb=verb, at=begun_s, error=f"{type(error).__name__}: {error}")
            else:
                self._notes.add(verb=verb, at=begun_s, took=time.monotonic() - begun_s)
            if pause_s:
                time.sleep(pause_s)

    def _draft(self) -> dict[str, Any]:
        self._number += 1
        mark = f"{self._name}.{self._number}"
        return {
            "id": mark,
            "role": self._random.choice(("user", "assistant")),
            "content": f"{mark} {self._words(self._random.randint(3, 30))}",
            "session": f"{self._name}-{self._number % SESSIONS}",
            "user": self._name,
        }

    def _words(self, count: int) -> str:
        """Words of which every twentieth or so is a name."""
        some = self._random.choices(WORDS, k=count)
        if self._random.random() < count / 20:
            some[self._random.randrange(count)] = self._random.choice(NAMES)
        return " ".join(some)

    def _save(self) -> None:
        draft = self._draft()
        self._notes.add(will={draft["id"]: draft["content"]})
        mark = draft["id"]
        if self._number % 2:  # without one; the content says which it was
            del draft["id"]
        receipt = self._agent.save(**draft)
        assert receipt.new, "saved once, and held before"
        self._notes.add(did={mark: draft["content"]})
        self._mine.append(receipt.id)

    def _save_many(self) -> None:
        drafts = [self._draft() for _ in range(self._random.randint(2, 20))]
        contents = {draft["id"]: draft["content"] for draft in drafts}
        self._notes.add(will=contents)
        receipts = self._agent.save_many(drafts)
        assert [receipt.id for receipt in receipts] == list(contents)
        assert all(receipt.new for receipt in receipts)
        self._notes.add(did=contents)
        self._mine += contents

    def _edit(self) -> None:
        if not self._mine:
            return
        known = self._mine[-1]
        message = self._agent.get(known)
        if message is None:
            return  # in the archive by now
        mark = message.content.split()[0]
        content = f"{mark} edited {self._number} {self._words(2)}"
        self._notes.add(will={mark: content})
        self._agent.edit(known, content)
        self._notes.add(did={mark: content})

    def _delete(self) -> None:
        if not self._mine:
            return
        known = self._mine.pop()
        message = self._agent.get(known)
        if message is None:
            return
        mark = message.content.split()[0]
        self._notes.add(will={mark: None})
        assert self._agent.delete(known), "it is there, and nobody else deletes it"
        self._notes.add(did={mark: None})

    def _remember(self) -> None:
        self._number += 1
        known = f"{self._name}.memory.{self._number}"
        content = f"{known} likes {self._words(1)}"
        about = self._random.sample(NAMES, 2)
        self._agent.remember(content, about=about, id=known)
        self._notes.add(remembered={known: content})

    def _recall(self) -> None:
        self._agent.recall(self._words(3), limit=8)

    def _history(self) -> None:
        found = self._agent.history(f"{self._name}-0", limit=20)
        numbers = [int(message.content.split()[0].split(".")[1]) for message in found]
        assert numbers == sorted(numbers), "a conversation is in the order of saving"

    def _get(self) -> None:
        if self._mine:
            self._agent.get(self._random.choice(self._mine))

    def _cypher(self) -> None:
        rows = self._agent.cypher(
            "MATCH (u:User {id: $user})-[:SENT]->(m:Message) RETURN count(m) AS held",
            {"user": self._name},
        )
        assert len(rows) == 1

    def _archive(self) -> None:
        self._agent.archive(older_than_days=0, keep=ARCHIVE_KEEP)


def crew_main(arguments: argparse.Namespace) -> None:
    """What each process does: wait for the word, work, and tell of its waits for the lock."""
    notes = Notes(arguments.notes)
    waits_s: list[float] = []
    plain = lock.FileLock.acquire

    def timed(self: lock.FileLock, deadline: float, timeout_s: float) -> None:
        begun_s = time.monotonic()
        try:
            plain(self, deadline, timeout_s)
        finally:
            if self.path.name == files.LOCK:
                waits_s.append(time.monotonic() - begun_s)

    lock.FileLock.acquire = timed  # type: ignore[method-assign]
    settings = json.loads(arguments.settings)
    with elytron.open(arguments.folder, **settings) as store:
        crewman = Crewman(store.agent(AGENT), arguments.name, notes)
        print("ready", flush=True)
        until_s = float(sys.stdin.readline())
        crewman.work(until_s, arguments.pause_s, json.loads(arguments.weights))
        notes.add(waits=waits_s[:: max(1, len(waits_s) // 20_000)], longest=max(waits_s, default=0))


@dataclass
class Outcome:
    """What was seen of a run. Good if `wrong` is empty."""

    seconds: float
    wrong: list[str] = field(default_factory=list)
    took_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lock_waits_s: list[float] = field(default_factory=list)
    longest_lock_wait_s: float = 0.0
    messages: int = 0
    held: int = 0
    archived: int = 0
    moved: int = 0  # edits that came after their message had left for the archive
    killed_at_s: list[float] = field(default_factory=list)
    waits_after_kill_s: list[float] = field(default_factory=list)

    def rate(self, *verbs: str) -> float:
        return sum(len(self.took_s.get(verb, ())) for verb in verbs) / self.seconds


class Told:
    """All notes together: of each message what it may be now."""

    def __init__(self) -> None:
        self.may: dict[str, set[str | None]] = {}
        self.memories: dict[str, str] = {}

    def read(self, path: Path, outcome: Outcome) -> None:
        lines = path.read_bytes().split(b"\n")[:-1]  # the last may have been cut short
        for number, line in enumerate(lines):
            note = json.loads(line)
            for mark, content in note.get("will", {}).items():
                self.may.setdefault(mark, {None}).add(content)
            for mark, content in note.get("did", {}).items():
                self.may[mark] = {content}
            self.memories |= note.get("remembered", {})
            if "error" in note:
                outcome.wrong.append(f"{path.stem}: {note['verb']}: {note['error']}")
            if "took" in note:
                outcome.took_s[note["verb"]].append(note["took"])
                end_s = note["at"] + note["took"]
                if any(note["at"] <= at_s + 1 and end_s >= at_s for at_s in outcome.killed_at_s):
                    outcome.waits_after_kill_s.append(note["took"])
            outcome.moved += "moved" in note
            if "waits" in note:
                outcome.lock_waits_s += note["waits"]
                outcome.longest_lock_wait_s = max(outcome.longest_lock_wait_s, note["longest"])
                assert number == len(lines) - 1


def compare(folder: Path, settings: dict[str, Any], told: Told, outcome: Outcome) -> None:
    """
    Hold what the store has against what was told; what differs is added to the outcome.

    First as it was left, where a message may be in the ledger and in the archive, and is shown
    once; then once a clean-up has put that right.
    """
    with elytron.open(folder, **settings) as store:
        agent = store.agent(AGENT)
        outcome.wrong += differing(agent, told)
        agent.enforce_limits()
        outcome.wrong += [f"after a clean-up: {it}" for it in differing(agent, told)]
        outcome.wrong += [f"check: {finding}" for finding in agent.check().findings]
        usage = agent.usage()
        outcome.held, outcome.archived = usage.messages, usage.archived
        outcome.messages = len(list(agent.messages(archived=True)))
        if usage.messages + usage.archived != outcome.messages:
            outcome.wrong.append(
                f"{usage.messages} held, {usage.archived} archived, {outcome.messages} shown"
            )


def differing(agent: elytron.Agent, told: Told) -> Iterator[str]:
    """What of an agent's messages and memories is not as it was told."""
    by_mark: dict[str, list[elytron.Message]] = defaultdict(list)
    shown = list(agent.messages(archived=True))
    for message in shown:
        by_mark[message.content.split()[0]].append(message)
    for mark, found in by_mark.items():
        if len(found) > 1:
            yield f"{mark} is there {len(found)} times"
        if mark not in told.may:
            yield f"{mark} is there, and nobody saved it"
    for mark, may in told.may.items():
        has = by_mark[mark][0].content if mark in by_mark else None
        if has not in may:
            yield f"{mark} is {has!r}, and not one of {may!r}"
    counted = Counter(message.id for message in shown)
    yield from (f"the id {known} is there twice" for known, n in counted.items() if n > 1)
    yield from out_of_order(list(agent.messages()))
    for known, content in told.memories.items():
        memory = agent.get_memory(known)
        if memory is None or memory.content != content:
            yield f"the memory {known} is {memory and memory.content!r}"


def out_of_order(held: list[elytron.Message]) -> Iterator[str]:
    """In the order of arrival the numbers of each process rise, and positions in each session."""
    numbers, positions = defaultdict(list), defaultdict(list)
    for message in held:
        name, number = message.content.split()[0].split(".")
        numbers[name].append(int(number))
        positions[message.session].append(message.position)
    for kind, rising in (("process", numbers), ("session", positions)):
        for name, values in rising.items():
            if any(first >= second for first, second in itertools.pairwise(values)):
                yield f"the messages of the {kind} {name} are out of order"


class Crew:
    """The processes of a run. Ended with the block, whatever happens."""

    def __init__(self, folder: Path, settings: dict[str, Any], weights: dict[str, float]) -> None:
        self._folder = folder
        self._settings = settings
        self._weights = weights
        self._names = (f"p{number}" for number in range(10_000))
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.alive: dict[str, tuple[int, subprocess.Popen[str]]] = {}

    def start(self, pace: int) -> str:
        """Start one, with its pace; once it is ready, it waits for `go`."""
        name = next(self._names)
        process = subprocess.Popen(
            [
                sys.executable, __file__, "--work", "--name", name,
                "--folder", str(self._folder / "store"),
                "--notes", str(self.notes / f"{name}.jsonl"),
                "--pause-s", str(PAUSES_S[pace % len(PAUSES_S)]),
                "--settings", json.dumps(self._settings), "--weights", json.dumps(self._weights),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.alive[name] = pace, process
        return name

    def wait_ready(self, name: str) -> None:
        _, process = self.alive[name]
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", f"{name} did not start"

    def go(self, name: str, until_s: float) -> None:
        """Let it work."""
        _, process = self.alive[name]
        assert process.stdin is not None
        process.stdin.write(f"{until_s}\n")
        process.stdin.flush()

    def kill(self, name: str) -> int:
        """End one at once; its pace."""
        pace, process = self.alive.pop(name)
        process.kill()
        process.communicate(timeout=END_MAX_S)
        return pace

    def wait(self) -> list[str]:
        """Wait for all; names of those that did not end well."""
        failed = []
        for name, (_, process) in self.alive.items():
            process.communicate(timeout=END_MAX_S)
            if process.returncode:
                failed.append(f"{name} ended with {process.returncode}")
        self.alive.clear()
        return failed

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.alive):
            self.kill(name)


def run(
    folder: Path,
    *,
    seconds: float,
    processes: int = 8,
    settings: dict[str, Any] | None = None,
    weights: dict[str, float] | None = None,
    kill_every_s: float | None = None,
    chosen: random.Random | None = None,
) -> Outcome:
    """Let the processes work on a store in *folder*, then compare."""
    chosen = chosen or random.Random(7)
    outcome, settings = Outcome(seconds), settings or {}
    with Crew(folder, settings, weights or WEIGHTS) as crew:
        names = [crew.start(number) for number in range(processes)]
        for name in names:
            crew.wait_ready(name)
        until_s = time.monotonic() + seconds
        for name in names:
            crew.go(name, until_s)
        while kill_every_s and time.monotonic() + kill_every_s < until_s:
            time.sleep(kill_every_s * chosen.uniform(0.8, 1.2))
            outcome.killed_at_s.append(time.monotonic())
            name = crew.start(crew.kill(chosen.choice(list(crew.alive))))
            crew.wait_ready(name)
            crew.go(name, until_s)
        outcome.wrong += crew.wait()
        told = Told()
        for path in sorted(crew.notes.iterdir()):
            told.read(path, outcome)
    compare(folder / "store", settings, told, outcome)
    return outcome


def show(outcome: Outcome, say: Callable[[str], None]) -> None:
    say(
        f"{outcome.rate('save', 'save_many'):.0f} saving and {outcome.rate('recall'):.0f} recalling"
        f" calls/s; {outcome.messages} messages in the end, {outcome.archived} of them archived;"
        f" {outcome.moved} edits came too late for the ledger"
    )
    say("verb         calls     p50 ms    p99 ms  longest ms")
    for verb, took_s in sorted(outcome.took_s.items()):
        say(f"{verb:10} {len(took_s):7} {in_ms(took_s)}")
    if outcome.lock_waits_s:
        waits_s = [*outcome.lock_waits_s, outcome.longest_lock_wait_s]
        say(f"{'lock waits':10} {len(waits_s):7} {in_ms(waits_s)}")
    if outcome.killed_at_s:
        say(
            f"{len(outcome.killed_at_s)} killed; calls of the others within a second of it:"
            f" {in_ms(outcome.waits_after_kill_s)}"
        )
    say(f"{len(outcome.wrong)} things wrong" + "".join(f"\n  {it}" for it in outcome.wrong[:20]))


def in_ms(values_s: list[float]) -> str:
    values = sorted(values_s) or [0.0]
    p50, p99 = values[len(values) // 2], values[int(len(values) * 0.99)]
    return f"{p50 * 1e3:10.2f}{p99 * 1e3:10.1f}{values[-1] * 1e3:12.1f}"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--max-messages", type=int, help="archives meanwhile, by that limit")
    parser.add_argument("--kill-every", type=float, help="seconds between two SIGKILLs")
    parser.add_argument("--cypher-share", type=float, default=WEIGHTS["cypher"], help="percent")
    for name in ("--name", "--folder", "--notes", "--settings", "--weights"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--pause-s", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = options()
    if arguments.work:
        crew_main(arguments)
        return 0
    settings: dict[str, Any] = {"max_messages_per_agent": 1_000_000, "max_db_size_mb": 2000}
    if arguments.max_messages:
        settings = {"max_messages_per_agent": arguments.max_messages}
    weights = WEIGHTS | {"cypher": arguments.cypher_share}
    if not arguments.max_messages:
        weights["archive"] = 0.0
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack():
        outcome = run(
            Path(temporary),
            seconds=arguments.seconds,
            processes=arguments.processes,
            settings=settings,
            weights=weights,
            kill_every_s=arguments.kill_every,
        )
    print(f"{arguments.processes} processes on one agent for {arguments.seconds:g} s, {settings}")
    show(outcome, print)
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
