"""
Soak by several processes: what `soak.py` does, with one store's agents shared out among them.

Each process has its share of the agents, of the pace and of the threads, and a graph worker of its
own; the settings of an agent are the same. Told are the sums, each window, and at the end the
slopes of each process and of all. Exits with 1 where a limit was passed or a message is missing.
"""

import argparse
import contextlib
import dataclasses
import itertools
import multiprocessing
import statistics
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from slopes import slope
from soak import (
    MB,
    SLOPE_TARGET_MB,
    STOP_MAX_S,
    Plan,
    add_plan,
    line_of,
    plan_of,
    report,
    soak,
)

_LATENCIES = "_ms"  # of these columns the worst process counts; "second" is the first's


def shares(plan: Plan, processes: int) -> list[Plan]:
    """The plan of each process, with agents of its own."""
    edges = [plan.agents * number // processes for number in range(processes + 1)]
    return [
        dataclasses.replace(
            plan,
            first=low,
            agents=high - low,
            saves_per_s=plan.saves_per_s * (high - low) / plan.agents,
            recalls_per_s=plan.recalls_per_s * (high - low) / plan.agents,
            savers=max(1, plan.savers // processes),
            readers=max(1, plan.readers // processes),
        )
        for low, high in itertools.pairwise(edges)
    ]


def work(folder: Path, plan: Plan, told: Connection) -> None:
    """One process: a row each window, then what its own end was, told when it is asked for."""
    outcome = soak(folder, plan, tell=told.send)
    told.send((sum(outcome.load.saved), outcome.samples.full_at(), outcome.wrong))
    with contextlib.suppress(EOFError):  # another has failed
        told.recv()  # one report after the other
    print(f"\nagents {plan.first} to {plan.first + plan.agents - 1}:")
    report(outcome)
    sys.stdout.flush()


def summed(rows: list[dict[str, float]]) -> dict[str, float]:
    """What all processes have together."""
    return {
        name: rows[0][name]
        if name == "second"
        else (max if name.endswith(_LATENCIES) else sum)(row[name] for row in rows)
        for name in rows[0]
    }


def soak_by(folder: Path, plans: list[Plan]) -> tuple[list[dict[str, float]], list[Any]]:
    """The sums of each window, and the end of each process; each has printed its report."""
    spawning = multiprocessing.get_context("spawn")
    pipes = [spawning.Pipe() for _ in plans]
    crew = [
        spawning.Process(target=work, args=(folder, plan, theirs))
        for plan, (_, theirs) in zip(plans, pipes, strict=True)
    ]
    for process, (_, theirs) in zip(crew, pipes, strict=True):
        process.start()
        theirs.close()  # its end is heard as one
    with contextlib.ExitStack() as stack:  # those who wait hear it when one has failed
        ours = [stack.enter_context(mine) for mine, _ in pipes]
        total: list[dict[str, float]] = []
        ends: list[Any] = []
        while not ends:
            told = [pipe.recv() for pipe in ours]
            ends = [one for one in told if isinstance(one, tuple)]
            if not ends:
                total.append(summed(told))
                print(line_of(total[-1]), flush=True)
        # One may have come to its end a window before another.
        told = [_end(pipe, one) for pipe, one in zip(ours, told, strict=True)]
        for process, pipe in zip(crew, ours, strict=True):
            pipe.send("report")
            process.join(STOP_MAX_S)
    return total, told


def _end(pipe: Connection, told: Any) -> tuple[int, int, list[str]]:
    while not isinstance(told, tuple):
        told = pipe.recv()
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    add_plan(parser)
    arguments = parser.parse_args()
    if not 1 <= arguments.processes <= arguments.agents:
        parser.error(f"--processes {arguments.processes}: 1 to --agents, {arguments.agents}")
    plans = shares(plan_of(arguments), arguments.processes)
    with tempfile.TemporaryDirectory() as folder:
        total, ends = soak_by(Path(folder) / "store", plans)
    tell_all(total, ends)
    return 1 if any(wrong for _, _, wrong in ends) else 0


def tell_all(total: list[dict[str, float]], ends: list[Any]) -> None:
    """The rates and slopes of all processes, from the moment on at which each was at its limits."""
    rows = total[max(since for _, since, _ in ends) :]
    seconds = [row["second"] for row in rows]
    print(f"\nall: {sum(saved for saved, _, _ in ends):,} saves, from second {seconds[0]:.0f} on:")
    for name in ("saves_per_s", "recalls_per_s"):
        print(f"{name}: median of the windows {statistics.median(row[name] for row in rows):.1f}")
    for name in ("host_bytes", "taken_bytes", "worker_bytes", "sqlite_bytes"):
        values = [row[name] / MB for row in rows]
        print(
            f"  {name.removesuffix('_bytes')} MB: {slope(seconds, values)};"
            f" {min(values):.2f} to {max(values):.2f}"
        )
    print(f"  (RSS target: under {SLOPE_TARGET_MB:g} MB an hour)")


if __name__ == "__main__":
    sys.exit(main())
