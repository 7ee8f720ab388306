"""
Savers on PostgreSQL: threads that save to agents chosen at random, in one process or in several.

Run by `postgres.py`. A saver's messages are the demonstration's, joined at random; each agent has
one session and one user, which its savers know after the first two messages.
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import elytron
from messages import varied
from postgres_servers import Place, connections, processor_s, written_bytes

AGENTS = 100
SECONDS, ROUNDS = 6.0, 3


@dataclass(frozen=True)
class Saved:
    """What savers did in a while."""

    rate: float  # messages a second
    p50_ms: float
    p99_ms: float
    ours_us: float  # processor a message, of the programs
    server_us: float
    log_bytes: float  # a message, of the server's log
    rss_mb: float
    connections: int


def names(first: int = 0, last: int = AGENTS) -> list[str]:
    return [f"agent {number}" for number in range(first, last)]


class Savers:
    """Threads of this process that save when they are told to."""

    def __init__(self, store: elytron.Store, agents: Sequence[str], *, savers: int) -> None:
        self._agents = [store.agent(name) for name in agents]
        self._texts = varied(500)
        self._savers = savers
        for agent in self._agents:
            for _ in range(2):
                agent.save("user", "hello", session="s", user="alice")

    def run(self, seconds: float) -> list[float]:
        """Seconds that each save took."""
        took: list[list[float]] = [[] for _ in range(self._savers)]
        over = time.perf_counter() + seconds

        def work(mine: list[float], dice: random.Random) -> None:
            while (start := time.perf_counter()) < over:
                message, agent = dice.choice(self._texts), dice.choice(self._agents)
                agent.save(message["role"], message["content"], session="s", user="alice")
                mine.append(time.perf_counter() - start)

        crew = [
            threading.Thread(target=work, args=(mine, random.Random(number)))
            for number, mine in enumerate(took)
        ]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        return [each for mine in took for each in mine]


class Process:
    """Savers in a process of their own."""

    def __init__(self, place: Place, *, savers: int, first: int, last: int) -> None:
        command = [place.dsn, place.schema, place.files, savers, first, last]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *map(str, command)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def start(self, seconds: float) -> None:
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)

    def took(self) -> list[float]:
        found: list[float] = self._line()
        return found

    def end(self) -> None:
        self._process.communicate()


def measure(place: Place, run: Callable[[], list[float]], pids: Sequence[int]) -> list[Saved]:
    """Rounds of *run*, which are programs of *pids*."""
    processes = [psutil.Process(pid) for pid in pids]

    def ours_s() -> float:
        return sum([sum(process.cpu_times()[:2]) for process in processes])

    found = []
    for _ in range(ROUNDS):
        before = ours_s(), processor_s(place.server), written_bytes(place.server)
        took = sorted(run())
        count = len(took)
        after = ours_s(), processor_s(place.server), written_bytes(place.server)
        ours, server, log = [(b - a) / count for a, b in zip(before, after, strict=True)]
        found.append(
            Saved(
                count / SECONDS,
                took[count // 2] * 1000,
                took[count * 99 // 100] * 1000,
                ours * 1e6,
                server * 1e6,
                log,
                max([process.memory_info().rss for process in processes]) / 2**20,
                connections(place.server),
            )
        )
    return found


def in_one_process(place: Place, *, savers: int, **settings: Any) -> list[Saved]:
    with place.open(**settings) as store:
        crew = Savers(store, names(), savers=savers)
        return measure(place, lambda: crew.run(SECONDS), [psutil.Process().pid])


def in_processes(place: Place, *, processes: int, savers: int, apart: bool) -> list[Saved]:
    """
    Args:
        apart: each process has its own share of the agents, rather than all of them.
    """
    share = AGENTS // processes
    crews = [
        Process(
            place,
            savers=savers,
            first=number * share if apart else 0,
            last=(number + 1) * share if apart else AGENTS,
        )
        for number in range(processes)
    ]

    def run() -> list[float]:
        for crew in crews:
            crew.start(SECONDS)
        return [each for crew in crews for each in crew.took()]

    try:
        return measure(place, run, [crew.pid for crew in crews])
    finally:
        for crew in crews:
            crew.end()


def main(dsn: str, schema: str, files: Path, savers: int, first: int, last: int) -> None:
    with elytron.open(dsn, files_path=str(files), postgres_schema=schema) as store:
        crew = Savers(store, names(first, last), savers=savers)
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            print(json.dumps(crew.run(float(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *[int(each) for each in sys.argv[4:]])
