"""
Soak: a store at its limits under steady load, for as long as is wished, and what grows meanwhile.

Savers and readers keep to a pace; a function embeds every fifth message, concepts are linked, the
graphs of some agents are asked every few seconds. Limits are such that after a few minutes messages
are archived, segments dropped, space reclaimed and graphs rebuilt all the time. From then on the
slopes count: Theil and Sen's, of medians of blocks, with Sen's interval of 95 %.

Exits with 1 where a hard limit was passed or a message that was acknowledged is missing at the end.
`--minutes 120` on a machine with nothing else to do is what docs/performance.md tells of.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import itertools
import math
import random
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import numpy as np
import psutil

import elytron
from elytron.ledger.files import agent_folder
from messages import material
from slopes import quantiles, slope

MB = 1 << 20
SLOPE_TARGET_MB = 1.0  # an hour
EMBED_EVERY, EMBED_DIMS = 5, 64
ASKED_AGENTS = 4
COUNT = "MATCH (m:Message) RETURN count(m) AS messages"
SAID = "MATCH (u:User {id: $user})-[:SENT]->(m:Message) RETURN m.id ORDER BY m.key DESC LIMIT 5"
# Of the archives' limit: from there on the store counts as full. An eighth is kept free for what is
# there twice for a moment, and whole segments go.
FULL_SHARE = 0.65
STOP_MAX_S = 120.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is asked of the store, and what it may take."""

    seconds: float
    saves_per_s: float = 500
    recalls_per_s: float = 100
    agents: int = 20
    first: int = 0  # of their numbers, where several processes share a store's agents
    savers: int = 8
    readers: int = 4
    window_s: float = 5.0
    ask_every_s: float = 3.0
    messages_max: int = 1000
    db_mb: float = 24  # with room for a graph and the one built anew
    wal_mb: float = 1
    archive_mb: float = 1
    noise_bytes: int = 256  # of each message, which do not compress: the archives fill sooner
    settle_s: float = 0.0  # before slopes count, should the store be at its limits sooner

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "max_messages_per_agent": self.messages_max,
            "keep_messages": self.messages_max // 10,
            "max_db_size_mb": self.db_mb,
            "wal_limit_mb": self.wal_mb,
            "max_archive_mb": self.archive_mb,
            "max_message_kb": 64,
            "change_max": 4 * self.messages_max,
            "max_open_agents": max(4, self.agents),
            "cleanup_interval_hours": 0.05,
        }


def embedder(texts: Sequence[str], _kind: str) -> Any:
    """Numbers that depend on the words, at next to no cost."""
    rows = np.zeros((len(texts), EMBED_DIMS), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.split():
            row[sum(word.encode()) * 31 % EMBED_DIMS] += 1
        row[0] += 0.5
    return rows


class Sizes(NamedTuple):
    """Bytes on the disk, by their names alone: nothing is opened."""

    file: int
    wal: int
    graph: int
    archive: int


def sizes(folder: Path) -> Sizes:
    """Of one agent."""
    found = dict.fromkeys(Sizes._fields, 0)
    for path in folder.rglob("*"):
        size = 0
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed
            size = path.stat().st_size if path.is_file() else 0
        if path.name == "ledger.db":
            found["file"] += size
        elif path.name == "ledger.db-wal":
            found["wal"] += size
        elif "graph" in path.relative_to(folder).parts:
            found["graph"] += size
        elif "archive" in path.relative_to(folder).parts:
            found["archive"] += size
    return Sizes(**found)


class Load:
    """Threads that save, recall and ask at a pace, and what they met."""

    def __init__(self, store: elytron.Store, plan: Plan) -> None:
        self.plan = plan
        self.names = [f"agent {plan.first + number}" for number in range(plan.agents)]
        self.saved = [0] * plan.agents  # acknowledged, numbered from 0 in each agent
        self.unsure = [set[int]() for _ in range(plan.agents)]  # refused, or the outcome is unknown
        self.recalls = self.questions = 0
        self.errors: dict[str, int] = {}
        self.save_ms: list[float] = []
        self.recall_ms: list[float] = []
        self._agents = [store.agent(name) for name in self.names]
        self._texts = material()
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._savers = min(plan.savers, plan.agents)
        work = [(self._save, number) for number in range(self._savers)]
        work += [(self._recall, number) for number in range(plan.readers)]
        work += [(self._ask, 0)]
        self._threads = [
            threading.Thread(target=self._run, args=pair, name=f"soak-{n}")
            for n, pair in enumerate(work)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each end what it does. Raises what no thread may meet."""
        self._stop.set()
        for thread in self._threads:
            thread.join(STOP_MAX_S)
        if self._failed is not None:
            raise self._failed

    @property
    def failed(self) -> bool:
        return self._failed is not None

    def times(self) -> tuple[list[float], list[float]]:
        """How long saves and recalls took since this was last asked, in ms."""
        taken = self.save_ms, self.recall_ms
        self.save_ms, self.recall_ms = [], []
        return taken

    def _run(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 - `stop` raises it in the main thread
            self._failed = error

    def _ticks(self, every_s: float) -> Iterator[int]:
        """Numbers, one each *every_s*; whoever is late does not catch up more than a second."""
        due = time.monotonic()
        for number in itertools.count():
            due = max(due + every_s, time.monotonic() - 1)
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            yield number

    def _save(self, number: int) -> None:
        mine = range(number, self.plan.agents, self._savers)
        dice = random.Random(number)
        # A share of the pace for each agent, so that all of them are saved to alike.
        for tick in self._ticks(self.plan.agents / len(mine) / self.plan.saves_per_s):
            agent = mine[tick % len(mine)]
            self._save_one(agent, self.saved[agent] + len(self.unsure[agent]), dice)

    def _save_one(self, agent: int, number: int, dice: random.Random) -> None:
        one, other = dice.choice(self._texts), dice.choice(self._texts)
        begun = time.perf_counter()
        try:
            self._agents[agent].save(
                "user" if number % 2 == 0 else "assistant",
                " ".join(one[: (len(one) + 1) // 2] + other[len(other) // 2 :]),
                session=f"s{number // 20}",
                user="alice" if number % 2 == 0 else "bot",
                metadata={"noise": dice.randbytes(self.plan.noise_bytes).hex()},
                id=str(number),
                embed=number % EMBED_EVERY == 0,
            )
        except elytron.ElytronError as error:
            self.unsure[agent].add(number)
            self._count(error)
            return
        self.save_ms.append((time.perf_counter() - begun) * 1000)
        self.saved[agent] += 1

    def _recall(self, number: int) -> None:
        dice = random.Random(1000 + number)
        for _ in self._ticks(self.plan.readers / self.plan.recalls_per_s):
            words = dice.choice(self._texts)
            question = " ".join(dice.sample(words, min(len(words), dice.randint(3, 6))))
            begun = time.perf_counter()
            try:
                dice.choice(self._agents).recall(question)
            except elytron.ElytronError as error:
                self._count(error)
                continue
            self.recall_ms.append((time.perf_counter() - begun) * 1000)
            self.recalls += 1

    def _ask(self, _number: int) -> None:
        for tick in self._ticks(self.plan.ask_every_s):
            agent = self._agents[tick % min(ASKED_AGENTS, self.plan.agents)]
            try:
                agent.cypher(COUNT)
                agent.cypher(SAID, {"user": "alice"})
            except elytron.ElytronError as error:
                self._count(error)
                continue
            self.questions += 1

    def _count(self, error: elytron.ElytronError) -> None:
        self.errors[error.code] = self.errors.get(error.code, 0) + 1


class _Malloc(ctypes.Structure):
    """What glibc's `mallinfo2` returns, over all of its arenas."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def taken_bytes() -> float:
    """What the process has taken from malloc and not given back; not a number without glibc."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if ask is None:
        return math.nan
    ask.restype = _Malloc
    found = ask()
    return float(found.uordblks + found.hblkhd)


class Samples:
    """What was looked at in each window: numbers only, so that looking does not grow."""

    COLUMNS = (
        "second", "host_bytes", "taken_bytes", "worker_bytes", "sqlite_bytes", "blocks",
        "descriptors", "threads", "file_bytes", "wal_bytes", "graph_bytes", "archive_bytes",
        "saves_per_s", "recalls_per_s", "save_p50_ms", "save_p99_ms", "recall_p50_ms",
        "recall_p99_ms",
    )  # fmt: skip

    def __init__(self, store: elytron.Store, load: Load) -> None:
        self._store = store
        self._load = load
        self._process = psutil.Process()
        self._folders = [agent_folder(store.path, name) for name in load.names]
        self.columns = {name: array("d") for name in self.COLUMNS}
        self.largest = Sizes(0, 0, 0, 0)
        self.largest_total = 0
        self.worker_starts = 0
        self._begun = self._last = time.monotonic()
        self._counted = (0, 0)

    def __getitem__(self, name: str) -> "array[float]":
        return self.columns[name]

    def take(self) -> dict[str, float]:
        """Look now; what was seen."""
        now = time.monotonic()
        on_disk = [sizes(path) for path in self._folders]
        self.largest = Sizes(*map(max, zip(self.largest, *on_disk, strict=True)))
        self.largest_total = max(
            [self.largest_total, *[one.file + one.wal + one.graph for one in on_disk]]
        )
        saves, recalls = sum(self._load.saved), self._load.recalls
        took_s, self._last = max(1e-9, now - self._last), now
        save_ms, recall_ms = self._load.times()
        worker = self._store._agents.upkeep.graphs.worker()
        self.worker_starts = worker.starts
        total = Sizes(*map(sum, zip(*on_disk, strict=True)))
        row = dict(
            zip(
                self.COLUMNS,
                (
                    now - self._begun, self._process.memory_info().rss, taken_bytes(),
                    worker.rss_bytes,
                    apsw.memory_used(), sys.getallocatedblocks(), self._process.num_fds(),
                    self._process.num_threads(), *total,
                    (saves - self._counted[0]) / took_s, (recalls - self._counted[1]) / took_s,
                    *quantiles(save_ms), *quantiles(recall_ms),
                ),
                strict=True,
            )
        )  # fmt: skip
        self._counted = saves, recalls
        for name, value in row.items():
            self.columns[name].append(value)
        return row

    def full_at(self) -> int:
        """From which sample on slopes count; the middle, if that came later."""
        plan = self._load.plan
        full = FULL_SHARE * plan.archive_mb * MB * plan.agents
        held = self["archive_bytes"]
        looked = enumerate(zip(self["second"], held, strict=True))
        first = next(
            (n for n, (at_s, size) in looked if size >= full and at_s >= plan.settle_s), len(held)
        )
        return min(first + 1, len(held) // 2)


class Outcome(NamedTuple):
    """What a soak has shown."""

    samples: Samples
    load: Load
    free_bytes: int  # that the C library held for later, of what the process had at the end
    wrong: list[str]  # a limit passed, a message missing, damage: none is expected


def soak(
    folder: Path, plan: Plan, *, tell: Callable[[dict[str, float]], None] = lambda _: None
) -> Outcome:
    """Load a new store in *folder* for the plan's time, and look at the end that all is there."""
    with elytron.open(folder, embedder=embedder, **plan.settings) as store:
        load = Load(store, plan)
        for agent in load.names:  # all folders are there before anybody looks
            store.agent(agent).remember("This agent has begun", about=["Soak"])
        load.start()
        samples = Samples(store, load)
        wrong: list[str] = []
        end = time.monotonic() + plan.seconds
        pause = threading.Event()
        try:
            while time.monotonic() < end and not load.failed:
                pause.wait(min(plan.window_s, max(0.0, end - time.monotonic())))
                tell(samples.take())
        finally:
            load.stop()
        free_bytes = given_back_bytes()
        wrong += passed(samples, plan)
        for number, name in enumerate(load.names):
            wrong += missing(store.agent(name), load.saved[number], load.unsure[number], plan)
    return Outcome(samples, load, free_bytes, wrong)


def given_back_bytes() -> int:
    """What the process gives back when the C library is told to: it was in use by nobody."""
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
        if trim is not None:
            trim(0)
    return max(0, before - process.memory_info().rss)


def passed(samples: Samples, plan: Plan) -> list[str]:
    """Hard limits that were passed at some moment when it was looked."""
    found = (
        ("max_db_size_mb", samples.largest_total, plan.db_mb * MB),
        ("wal_limit_mb", samples.largest.wal, plan.wal_mb * MB),
        ("max_archive_mb", samples.largest.archive, plan.archive_mb * MB),
    )
    return [f"{name}: {size:,} of {most:,.0f} bytes" for name, size, most in found if size > most]


def missing(agent: elytron.Agent, saved: int, unsure: set[int], plan: Plan) -> list[str]:
    """What is wrong with an agent at the end: a message is held, archived, or told as dropped."""
    agent.flush(timeout_s=STOP_MAX_S)
    usage, wrong = agent.usage(), []
    if usage.messages > plan.messages_max:
        wrong.append(f"max_messages_per_agent: {usage.messages} of {plan.messages_max}")
    there = [int(message.id) for message in agent.messages(archived=True)]
    if len(there) != len(set(there)):
        wrong.append(f"{len(there) - len(set(there))} messages are there twice")
    acknowledged = set(range(saved + len(unsure))) - unsure
    gone = len(acknowledged - set(there))
    unsure_there = len(unsure & set(there))
    if not gone <= usage.archive.dropped <= gone + len(unsure) - unsure_there:
        wrong.append(f"{gone} are gone, and {usage.archive.dropped} were told as dropped")
    wrong += [f"{found.part}: {found.what}" for found in agent.check().findings]
    return [f"{agent.name}: {what}" for what in wrong]


def line_of(row: dict[str, float]) -> str:
    mb = {name: value / MB for name, value in row.items() if name.endswith("_bytes")}
    return (
        f"{row['second']:7.0f} s  host {mb['host_bytes']:6.1f} (taken"
        f" {mb['taken_bytes']:6.1f}) worker {mb['worker_bytes']:6.1f}"
        f" sqlite {mb['sqlite_bytes']:5.1f} MB, {row['blocks'] / 1000:5.0f}k blocks,"
        f" {row['descriptors']:3.0f} descriptors {row['threads']:3.0f} threads;"
        f" ledger {mb['file_bytes']:6.1f} wal {mb['wal_bytes']:5.2f} graph {mb['graph_bytes']:5.1f}"
        f" archive {mb['archive_bytes']:6.2f} MB; {row['saves_per_s']:5.0f} saves/s"
        f" {row['save_p50_ms']:5.1f}/{row['save_p99_ms']:6.1f} ms, {row['recalls_per_s']:4.0f}"
        f" recalls/s {row['recall_p50_ms']:5.1f}/{row['recall_p99_ms']:6.1f} ms"
    )


def report(outcome: Outcome) -> None:
    """The rates that were kept, and the slopes."""
    samples, load = outcome.samples, outcome.load
    since = samples.full_at()
    seconds = samples["second"][since:]
    for name in ("saves_per_s", "recalls_per_s", "save_p50_ms", "save_p99_ms", "recall_p50_ms",
                 "recall_p99_ms"):  # fmt: skip
        values = samples[name][since:]
        print(f"{name}: median of the windows {statistics.median(values):.1f}")
    print(
        f"{sum(load.saved):,} saves, {load.recalls:,} recalls, {load.questions:,} questions to"
        f" graphs, {samples.worker_starts} workers; errors {load.errors or 'none'}"
    )
    print(f"slopes from second {seconds[0]:.0f} on, {(seconds[-1] - seconds[0]) / 60:.1f} minutes:")
    for name in Samples.COLUMNS[1:12]:
        values = samples[name][since:]
        unit = MB if name.endswith("_bytes") else 1
        shown = slope(seconds, [value / unit for value in values])
        word = f"{name.removesuffix('_bytes')} MB" if unit == MB else name
        print(
            f"  {word}: {shown}; {min(values) / unit:.2f} to {max(values) / unit:.2f},"
            f" at first {values[0] / unit:.2f}, at last {values[-1] / unit:.2f}"
        )
    print(
        f"  of the host's RSS at the end {outcome.free_bytes / MB:.1f} MB were free, kept by malloc"
    )
    print(f"  (RSS target: under {SLOPE_TARGET_MB:g} MB an hour)")
    print("\n".join(outcome.wrong) or "nothing is missing, and no limit was passed")


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The options that say how much is asked of the store."""
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--settle-minutes", type=float, default=0)
    for name, kind in (
        ("saves_per_s", float), ("recalls_per_s", float), ("agents", int), ("messages_max", int),
        ("window_s", float), ("noise_bytes", int),
    ):  # fmt: skip
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=getattr(Plan, name))


def plan_of(arguments: argparse.Namespace) -> Plan:
    given = {
        name: value for name, value in vars(arguments).items() if name in Plan.__dataclass_fields__
    }
    return Plan(seconds=60 * arguments.minutes, settle_s=60 * arguments.settle_minutes, **given)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    add_plan(parser)
    parser.add_argument("--switch-interval-s", type=float, default=sys.getswitchinterval())
    parser.add_argument("--trace", action="store_true", help="where Python's memory grew; slow")
    arguments = parser.parse_args()
    sys.setswitchinterval(arguments.switch_interval_s)
    plan = plan_of(arguments)
    before = None
    if arguments.trace:
        tracemalloc.start(12)
        before = tracemalloc.take_snapshot()
    with tempfile.TemporaryDirectory() as folder:
        outcome = soak(
            Path(folder) / "store", plan, tell=lambda row: print(line_of(row), flush=True)
        )
    report(outcome)
    if before is not None:
        gc.collect()
        for grown in tracemalloc.take_snapshot().compare_to(before, "traceback")[:10]:
            print(grown, *grown.traceback.format(), sep="\n    ")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
