"""
Latency of recall by words and of history, at 5,000 and 100,000 messages.

Messages are halves of the demonstration's, joined at random (seeded), in sessions of 20 over
months; questions are made of three to six words of a message. Every question is asked once,
so nothing is answered from a cache of ours.
"""

import random
import statistics
import tempfile
import time

import elytron
from messages import material, messages

SIZES = {5_000: 3.0, 100_000: 15.0}  # messages: target for the median recall in ms
HISTORY_TARGET_MS = 0.3
QUESTIONS = 300


def timed(call, arguments) -> list[float]:
    times = []
    for argument in arguments:
        start = time.perf_counter()
        call(argument)
        times.append((time.perf_counter() - start) * 1000)
    return times


def show(name: str, times: list[float], target_ms: float) -> None:
    ordered = sorted(times)
    print(
        f"{name}: median {statistics.median(times):.2f} ms,"
        f" p99 {ordered[len(ordered) * 99 // 100]:.2f} ms (median at most {target_ms:g})"
    )


def main() -> None:
    texts, dice = material(), random.Random(7)
    for size, target_ms in SIZES.items():
        with (
            tempfile.TemporaryDirectory() as folder,
            elytron.open(folder, max_db_size_mb=1000, max_messages_per_agent=10**6) as store,
        ):
            agent = store.agent("Bob")
            start = time.perf_counter()
            agent.import_(messages(size, texts, dice))
            took = time.perf_counter() - start
            usage = agent.usage()
            print(
                f"{size} messages: imported at {size / took:.0f}/s,"
                f" {usage.bytes.total / size:.0f} bytes each,"
                f" {usage.bytes.words / size:.0f} of them the word index"
            )
            questions = []
            for _ in range(QUESTIONS):
                words = dice.choice(texts)
                questions.append(" ".join(dice.sample(words, min(len(words), dice.randint(3, 6)))))
            timed(agent.recall, questions[:20])
            show("  recall", timed(agent.recall, questions), target_ms)
            sessions = [f"s{dice.randrange(size // 20)}" for _ in range(QUESTIONS)]
            agent.import_(
                {"role": "user", "content": f"line {n} of a long session", "session": "long"}
                for n in range(200)
            )
            show("  history(limit=50), short sessions", timed(agent.history, sessions), 0.3)
            show(
                "  history(limit=50), a long session",
                timed(agent.history, ["long"] * QUESTIONS),
                HISTORY_TARGET_MS,
            )


if __name__ == "__main__":
    main()
