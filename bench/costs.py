"""
Costs: the processor time of a save and of a recall, in a store below its limits and at them.

Agents, texts, settings and embedder are those of `soak.py`, asked by one thread: so nothing waits
for Python's lock, and what is told is what has to be done. A save is told with all that follows it,
on whatever thread: indexing, linking, embedding, and at the limits archiving. A recall is told as
of a thread that is alone, and as among others (`ledger/bundles.py`). Wall time is not told: it is
the machine's. Exits with 0 whatever it finds, unless a verb fails.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import elytron
from elytron.ledger import bundles
from soak import STOP_MAX_S, Load, Plan, embedder

BELOW_SHARE = 0.5  # of the messages that an agent may hold: so many are saved below the limits


class Cost(NamedTuple):
    """Milliseconds of processor time: of the process for a save, of its thread for a recall."""

    save_ms: float
    recall_ms: float
    recall_among_others_ms: float


class Costs:
    """One store, loaded by this thread alone."""

    def __init__(self, store: elytron.Store, plan: Plan) -> None:
        self._plan = plan
        self._load = Load(store, plan)
        self._agents = [store.agent(name) for name in self._load.names]
        self._dice = random.Random(1)

    def all_of(self, saves_each: int, recalls: int) -> Cost:
        save_ms, recall_ms = self.saves_ms(saves_each), self.recalls_ms(recalls)
        bundles.begin()  # as if another thread was reading
        try:
            return Cost(save_ms, recall_ms, self.recalls_ms(recalls))
        finally:
            bundles.end()

    def saves_ms(self, each: int) -> float:
        """What a save costs, of *each* to every agent."""
        count = each * self._plan.agents
        begun_s = process_s()
        for number in range(count):
            agent = number % self._plan.agents
            saved = self._load.saved[agent] + len(self._load.unsure[agent])
            self._load._save_one(agent, saved, self._dice)
        for one in self._agents:
            one.flush(timeout_s=STOP_MAX_S)
        return (process_s() - begun_s) / count * 1000

    def recalls_ms(self, count: int) -> float:
        """What a recall costs."""
        questions = [self._question() for _ in range(count)]
        begun_s = time.thread_time()
        for question in questions:
            self._dice.choice(self._agents).recall(question)
        return (time.thread_time() - begun_s) / count * 1000

    def _question(self) -> str:
        words = self._dice.choice(self._load._texts)
        return " ".join(self._dice.sample(words, min(len(words), self._dice.randint(3, 6))))

    @property
    def errors(self) -> dict[str, int]:
        return self._load.errors


def process_s() -> float:
    """Processor time of this process until now; that of its workers is not in it."""
    times = os.times()
    return times.user + times.system


def measure(folder: Path, plan: Plan, *, rounds: int, recalls: int) -> tuple[Cost, Cost]:
    """Medians of rounds, (below the limits, at them), of a new store in *folder*."""
    with elytron.open(folder, embedder=embedder, **plan.settings) as store:
        costs = Costs(store, plan)
        step = max(1, int(plan.messages_max * BELOW_SHARE) // rounds)
        below = [costs.all_of(step, recalls) for _ in range(rounds)]
        costs.saves_ms(2 * plan.messages_max)  # until messages leave all the time
        full = [costs.all_of(step, recalls) for _ in range(rounds)]
        if costs.errors:
            raise SystemExit(f"errors: {costs.errors}")
    return median(below), median(full)


def median(found: list[Cost]) -> Cost:
    return Cost._make(map(statistics.median, zip(*found, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recalls", type=int, default=100, help="in each round")
    arguments = parser.parse_args()
    plan = Plan(seconds=0, agents=arguments.agents)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            Path(folder) / "store", plan, rounds=arguments.rounds, recalls=arguments.recalls
        )
    for where, cost in zip(("below the limits", "at the limits"), found, strict=True):
        print(
            f"{where}: {cost.save_ms:.2f} ms of the process for a save with all that follows it,"
            f" {cost.recall_ms:.2f} ms of the thread for a recall, among others"
            f" {cost.recall_among_others_ms:.2f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
