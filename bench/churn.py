"""
Churn: 100,000 messages written while 5,000 are held.

Samples the bytes on the disk and the process's RSS on the way, and compares the end with a fresh
store of the same messages. Targets are those of docs/performance.md.
"""

import random
import statistics
import tempfile
from pathlib import Path

import psutil

import elytron
from messages import material, messages

WRITTEN, HELD = 100_000, 5_000
COMMIT = 50
SAMPLE_EVERY = 20  # commits
LIMIT_MB = 8


def on_disk(folder: Path) -> int:
    """Ledger and WAL, by their names: nothing is opened."""
    return sum(
        [path.stat().st_size for path in folder.rglob("ledger.db*") if "shm" not in path.name]
    )


def slope(values: list[float]) -> float:
    """What is gained from the first to the last, by a straight line through all."""
    xs = range(len(values))
    return statistics.linear_regression(xs, values).slope * len(values)


def main() -> None:
    texts, dice = material(), random.Random(7)
    process = psutil.Process()
    settings = {"max_messages_per_agent": HELD, "max_db_size_mb": LIMIT_MB, "keep_messages": 100}
    sizes, rss = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        with elytron.open(path, **settings) as store:
            bob = store.agent("bob")
            for number in range(WRITTEN // COMMIT):
                bob.save_many(messages(COMMIT, texts, dice, first=number * COMMIT))
                sizes.append(on_disk(path))
                if number % SAMPLE_EVERY == 0:
                    rss.append(process.memory_info().rss)
            usage = bob.usage()
            report = bob.enforce_limits()
            bob.reclaim()
            kept = list(bob.messages())
            churned = on_disk(path)
        with elytron.open(Path(folder) / "fresh", **settings) as store:
            fresh_agent = store.agent("bob")
            for start in range(0, len(kept), COMMIT):
                fresh_agent.save_many(kept[start : start + COMMIT])
            fresh_agent.reclaim()
            fresh = on_disk(Path(folder) / "fresh")
    limit = LIMIT_MB << 20
    half = rss[len(rss) // 2 :]
    print(f"{WRITTEN:,} written, {usage.messages:,} held, {usage.archived:,} archived")
    print(f"bytes on the way: at most {max(sizes) / limit:.2f} of the limit of {LIMIT_MB} MB")
    print(
        f"bytes at the end: {churned / fresh:.2f} x a fresh store of the same"
        f" ({churned / 1e6:.2f} MB beside {fresh / 1e6:.2f}; at most 1.25)"
    )
    print(
        f"RSS: {rss[-1] / 1e6:.0f} MB, over the second half of the run {slope(half) / 1e6:+.2f} MB"
        f" by a straight line, {(max(half) - min(half)) / 1e6:.2f} MB between its extremes"
    )
    assert usage.messages + usage.archived == WRITTEN, "one was lost"
    assert max(sizes) <= limit, "over the limit"
    assert not report.short_bytes


if __name__ == "__main__":
    main()
