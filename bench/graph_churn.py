"""
Churn: a graph kept up to date while 100,000 messages pass through a store that holds 5,000.

A graph's file never gives space back; it is built anew when too much of it is dead. Samples its
size on the way, and compares the end with a fresh one. Targets are those of docs/performance.md.
"""

import random
import statistics
import tempfile
import time
from pathlib import Path

import elytron
from messages import material, messages

WRITTEN, HELD = 100_000, 5_000
COMMIT = 50
ASK_EVERY = 10  # commits
COUNT = "MATCH (m:Message) RETURN count(m) AS messages"


def main() -> None:
    texts, dice = material(), random.Random(7)
    settings = {"max_messages_per_agent": HELD, "keep_messages": 100}
    sizes, waits, builds = [], [], set()
    with (
        tempfile.TemporaryDirectory() as folder,
        elytron.open(Path(folder) / "store", **settings) as store,
    ):
        bob = store.agent("bob")
        for number in range(WRITTEN // COMMIT):
            bob.save_many(messages(COMMIT, texts, dice, first=number * COMMIT))
            if number % ASK_EVERY == 0:
                begun = time.perf_counter()
                bob.cypher(COUNT)
                waits.append(time.perf_counter() - begun)
                usage = bob.usage()
                builds.add(usage.graph.built_at)
                if usage.messages == HELD or number * COMMIT > 2 * HELD:
                    sizes.append(usage.graph.bytes)
        (row,) = bob.cypher(COUNT)
        churned = bob.usage().graph.bytes
        fresh = bob.rebuild_graph().bytes
        held = bob.usage().messages
    assert row["messages"] == held, "the graph is not what the ledger is"
    print(f"{WRITTEN:,} written, {held:,} held, asked {len(waits)} times")
    print(
        f"graph at the end: {churned / fresh:.2f} x a fresh one ({churned / 1e6:.2f} MB beside"
        f" {fresh / 1e6:.2f}; at most 1.5); on the way {statistics.mean(sizes) / fresh:.2f} x, at"
        f" most {max(sizes) / fresh:.2f} x"
    )
    print(
        f"built {len(builds)} times; a question, with bringing it up to date,"
        f" {statistics.median(waits) * 1e3:.0f} ms by the median, longest {max(waits):.2f} s"
    )


if __name__ == "__main__":
    main()
