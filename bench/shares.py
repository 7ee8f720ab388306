"""
200 agents under one `max_total_mb`: who loses messages, and what the store takes.

A tenth of the agents talk a hundred times as much as the others. Each step is followed by a look:
an agent below its fair share must not lose a message while another is above its own.
"""

import random
import tempfile
import time
from pathlib import Path

import elytron
from messages import material, messages

AGENTS, CHATTY = 200, 20
ROUNDS = 30
TOTAL_MB = 100
MUCH, LITTLE = 200, 2


def on_disk(folder: Path) -> int:
    skipped = ("reserve",)
    return sum(
        [
            path.stat().st_size
            for path in folder.rglob("*")
            if path.is_file() and path.name not in skipped and not path.name.endswith("-shm")
        ]
    )


def main() -> None:
    texts, dice = material(), random.Random(7)
    names = [f"agent {number}" for number in range(AGENTS)]
    written = dict.fromkeys(names, 0)
    largest = 0
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        elytron.open(
            Path(folder) / "store",
            max_total_mb=TOTAL_MB,
            max_open_agents=20,
            keep_messages=0,
            max_messages_per_agent=10**5,
        ) as store,
    ):
        for _ in range(ROUNDS):
            for place, name in enumerate(names):
                count = MUCH if place < CHATTY else LITTLE
                store.agent(name).save_many(messages(count, texts, dice, first=written[name]))
                written[name] += count
            largest = max(largest, on_disk(store.path))
        seconds = time.perf_counter() - started
        usages = store.usage().agents
        uses = {u.agent: u.bytes.file + u.bytes.archive for u in usages}
        lost = {u.agent: written[u.agent] - u.messages for u in usages}
        dropped = sum([u.archive.dropped for u in usages])
        losers = [name for name, count in lost.items() if count]
        quiet = [name for name in losers if names.index(name) >= CHATTY]
        missing = sum(lost.values()) - sum([u.archived for u in usages]) - dropped
    print(f"{sum(written.values()):,} messages to {AGENTS} agents in {seconds:.0f} s")
    print(
        f"on the disk at most {largest / (TOTAL_MB << 20):.2f} of {TOTAL_MB} MB (a part is reserved"
        f" for WALs); an agent has {min(uses.values()) / 1e3:.0f} to"
        f" {max(uses.values()) / 1e3:.0f} KB"
    )
    print(
        f"{len(losers)} agents had messages archived, {len(quiet)} of the {AGENTS - CHATTY} quiet"
        f" ones among them (target none); {dropped:,} archived messages were dropped, reported"
    )
    assert not quiet, quiet
    assert not missing, f"{missing} messages are in neither place"
    assert largest <= TOTAL_MB << 20, "over the limit"


if __name__ == "__main__":
    main()
