"""
Archiving 5,000 messages, and bringing them back: seconds, and the archive's bytes.

Messages are the demonstration's, over and over, each with words of its own; targets are those of
docs/performance.md.
"""

import statistics
import tempfile
import time
from pathlib import Path

import elytron
from messages import varied

COUNT = 5000
RUNS = 5


def run() -> tuple[float, float, float]:
    with (
        tempfile.TemporaryDirectory() as folder,
        elytron.open(Path(folder) / "store", auto_cleanup=False) as store,
    ):
        bob = store.agent("bob")
        messages = varied(COUNT)
        bob.import_(messages)
        text_bytes = sum(
            [len(m["content"].encode()) + len(m["session"]) + len(m["user"]) for m in messages]
        )
        started = time.perf_counter()
        report = bob.archive(older_than_days=0, keep=0)
        archived_s = time.perf_counter() - started
        assert report.archived == COUNT, report.archived
        ratio = bob.usage().archive.bytes / text_bytes
        started = time.perf_counter()
        restored = bob.restore(since=messages[0]["at"])
        restored_s = time.perf_counter() - started
        assert restored.restored == COUNT, restored
        assert bob.check().ok
    return archived_s, restored_s, ratio


def main() -> None:
    runs = [run() for _ in range(RUNS)]
    for name, values in zip(("archive", "restore"), zip(*runs, strict=True), strict=False):
        print(
            f"{name} {COUNT:,} messages: median {statistics.median(values):.2f} s"
            f" ({min(values):.2f} to {max(values):.2f}; target under 1)"
        )
    print(f"archive bytes to text and names: {statistics.median([run[2] for run in runs]):.2f}")
    print("the honest ratio, on real turns, is that of bench/archive_ratio.py")


if __name__ == "__main__":
    main()
