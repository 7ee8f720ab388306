"""
Graphs built and kept up to date: 5,000 and 100,000 messages from nothing, and a store that takes
2,000 messages a second while its graph is asked all the time.

Targets are those of docs/performance.md.
"""

import statistics
import tempfile
import threading
import time
from pathlib import Path

import elytron
from messages import varied

ROOMY = {
    "max_db_size_mb": 2000,
    "max_messages_per_agent": 10**6,
    "change_max": 10**6,
    "graph_build_timeout_s": 600,
}
COMMIT = 1000
RATE, STEADY_S, TICK_S = 2000, 20, 0.1
COUNT = "MATCH (m:Message) RETURN count(m) AS messages"


def build(folder: Path, count: int) -> None:
    with elytron.open(folder / f"built-{count}", **ROOMY) as store:
        bob, drafts = store.agent("bob"), varied(count)
        for start in range(0, count, COMMIT):
            bob.save_many(drafts[start : start + COMMIT])
        bob.flush(timeout_s=600)
        begun = time.perf_counter()
        (row,) = bob.cypher(COUNT)
        first_s = time.perf_counter() - begun
        begun = time.perf_counter()
        usage = bob.rebuild_graph()
        again_s = time.perf_counter() - begun
        print(
            f"{row['messages']:,} messages: built by the first question in {first_s:.2f} s, its"
            f" process started too; anew in {again_s:.2f} s, {count / again_s:,.0f} a second;"
            f" {usage.bytes / 1e6:.1f} MB"
        )


def keep_up(folder: Path) -> None:
    """Save at a fixed rate in one thread, ask in another. Linking is measured in `linking.py`."""
    with elytron.open(folder / "steady", link_concepts=False, **ROOMY) as store:
        bob = store.agent("bob")
        drafts = varied(RATE * STEADY_S)
        late_s = 0.0
        bob.save_many(drafts[:1])
        bob.cypher(COUNT)

        def save() -> None:
            nonlocal late_s
            begun, step = time.perf_counter(), int(RATE * TICK_S)
            for number, start in enumerate(range(1, len(drafts), step)):
                ahead_s = begun + number * TICK_S - time.perf_counter()
                late_s = max(late_s, -ahead_s)
                if ahead_s > 0:
                    time.sleep(ahead_s)
                bob.save_many(drafts[start : start + step])

        thread = threading.Thread(target=save)
        thread.start()
        waits = []
        while thread.is_alive():
            begun = time.perf_counter()
            bob.cypher(COUNT)
            waits.append(time.perf_counter() - begun)
        thread.join()
        begun = time.perf_counter()
        (row,) = bob.cypher(COUNT)
        last_s = time.perf_counter() - begun
        assert row["messages"] == len(drafts), "the graph is behind"
        print(
            f"{RATE:,} messages a second for {STEADY_S} s, at most {late_s:.2f} s late;"
            f" {len(waits)} questions meanwhile, each with all that was saved before it: median"
            f" {statistics.median(waits) * 1e3:.0f} ms, longest {max(waits) * 1e3:.0f} ms; the one"
            f" after the last message {last_s * 1e3:.0f} ms"
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in (5_000, 100_000):
            build(folder, count)
        keep_up(folder)


if __name__ == "__main__":
    main()
