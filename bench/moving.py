"""
One agent of 5,000 messages, all linked, carried from a folder into another; and, where PostgreSQL's
address is given, there and back: `python bench/moving.py [postgresql://...]`.
"""

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import elytron
from messages import material, messages

HELD = 5_000


def carry(what: str, source: Any, target: Any, **settings: Any) -> None:
    """Carry all there is, twice; print what that took."""
    for run in ("all", "nothing new"):
        started, burned = time.perf_counter(), time.process_time()
        report = elytron.migrate_store(source, target, max_messages_per_agent=10**6, **settings)
        took_s, cpu_s = time.perf_counter() - started, time.process_time() - burned
        assert report.ok, report.failed
        (agent,) = report.agents
        print(
            f"{what}, {run}: {took_s:.2f} s ({cpu_s:.2f} s of CPU here), {agent.rows:,} rows,"
            f" {agent.written:,} written, {agent.rows / took_s:,.0f} rows a second"
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with elytron.open(folder / "from", max_messages_per_agent=10**6) as store:
            agent = store.agent("bob")
            agent.import_(messages(HELD, material(), random.Random(7)))
            agent.flush(timeout_s=600)
        carry("folder to folder", folder / "from", folder / "to")
        for address in sys.argv[1:]:
            settings = {"files_path": str(folder / "files"), "postgres_schema": "bench_moving"}
            carry("folder to PostgreSQL", folder / "from", address, **settings)
            carry("PostgreSQL to folder", address, folder / "back", **settings)


if __name__ == "__main__":
    main()
