"""
A thousand agents of 20 messages each, touched in turn: failures, threads, descriptors, memory.

The second round reads and writes each once more, by then long put to rest.
"""

import gc
import tempfile
import time

import psutil

import elytron

AGENTS, MESSAGES = 1000, 20
RSS_TARGET_MB = 100


def main() -> None:
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder, elytron.open(folder) as store:
        store.agent("warm").save("user", "warm")
        gc.collect()
        rss, threads, descriptors = (
            process.memory_info().rss,
            process.num_threads(),
            process.num_fds(),
        )
        most_threads, most_descriptors = threads, descriptors
        start = time.perf_counter()
        for turn in range(2):
            for number in range(AGENTS):
                agent = store.agent(f"agent {number}")
                if turn == 0:
                    for line in range(MESSAGES):
                        agent.save("user", f"message {line} of agent {number}", session="s")
                else:
                    agent.save("user", "one more", session="s")
                    assert len(agent.history("s")) == MESSAGES + 1
                    assert agent.recall(f"message of agent {number}")
                most_threads = max(most_threads, process.num_threads())
                most_descriptors = max(most_descriptors, process.num_fds())
        took = time.perf_counter() - start
        grown_mb = (process.memory_info().rss - rss) / 2**20
        print(
            f"{AGENTS} agents, {MESSAGES} messages each, two rounds in {took:.1f} s: no failure;"
            f" at most {most_threads} threads and {most_descriptors} descriptors"
            f" (targets 40 and 400), RSS grew by {grown_mb:.1f} MB (target under {RSS_TARGET_MB})"
        )


if __name__ == "__main__":
    main()
