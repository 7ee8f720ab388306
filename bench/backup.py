"""
Backups of twenty agents of 5,000 messages: the first, one more with nothing new, and one with one
agent changed; then lone durable saves to one agent, alone and beside backups that copy it.
"""

import random
import tempfile
import threading
import time
from pathlib import Path

import elytron
from messages import material, messages

AGENTS = 20
HELD = 5_000
SAVES = 3_000
ROUNDS = 10  # copies of the agent that is saved to


def save_times(
    agent: elytron.Agent, count: int, stop: threading.Event | None = None
) -> list[float]:
    times = []
    while len(times) < count and not (stop is not None and stop.is_set()):
        started = time.perf_counter()
        agent.save("user", "Something that is said while a backup is made.", session="now")
        times.append((time.perf_counter() - started) * 1000)
    return times


def of_a_hundred(times: list[float], share: int) -> float:
    return sorted(times)[len(times) * share // 100]


def shown(times: list[float]) -> str:
    p50, p99 = of_a_hundred(times, 50), of_a_hundred(times, 99)
    return f"{len(times):,} saves: p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest {max(times):.1f} ms"


def main() -> None:
    dice, texts = random.Random(7), material()
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "backup"
        with elytron.open(Path(folder) / "store", max_messages_per_agent=10**6) as store:
            agents = [store.agent(f"agent {number}") for number in range(AGENTS)]
            for agent in agents:
                agent.import_(messages(HELD, texts, dice))
                agent.flush(timeout_s=600)

            def back_up(what: str) -> None:
                started = time.perf_counter()
                report = store.backup(to)
                took_s = time.perf_counter() - started
                assert report.ok, report.failed
                copied = [one for one in report.agents if one.copied]
                copied_mb = sum(one.copied_bytes for one in copied) / 1e6
                print(f"{what}: {took_s:.3f} s, {len(copied)} copied, {copied_mb:.1f} MB")

            back_up(f"first, {AGENTS} agents of {HELD:,} messages")
            back_up("nothing new")
            agents[0].save("user", "One thing more.")
            back_up("one agent changed")

            print("alone,", shown(save_times(agents[0], SAVES)))
            done = threading.Event()

            def copy() -> None:
                for _ in range(ROUNDS):
                    assert store.backup(to, agents=["agent 0"]).ok
                done.set()

            copying = threading.Thread(target=copy)
            copying.start()
            times = save_times(agents[0], 10**6, done)
            copying.join()
            print(f"beside {ROUNDS} copies of it,", shown(times))

        started = time.perf_counter()
        assert elytron.restore_backup(to, Path(folder) / "new").ok
        print(f"all restored to a new place: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
