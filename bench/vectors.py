"""
Recall with vectors, at 5,000, 100,000 and 1,000,000 messages: latency, bytes, memory; and what
embeddings in the background cost a save.

    python bench/vectors.py [sizes ...] [--save]

Messages are halves of the demonstration's, joined at random (seeded), in sessions of 20; each is
embedded by wordllama. Questions are three to six words of a message, embedded beforehand, since the
embedder's own time is not ours. RSS is that of a process which only asks, before the first question
and after the last; what is loaded once a process is loaded before, SQLite's caches are taken off.
"""

import argparse
import gc
import random
import statistics
import subprocess
import sys
import tempfile
import time

import apsw
import psutil

import elytron
from messages import material, messages, varied

TARGETS_MS = {5_000: 5.0, 100_000: 20.0, 1_000_000: 80.0}  # messages: median of recall
RSS_TARGET_BYTES = 64  # a message, from 100,000 on
QUESTIONS = 250  # as many as are remembered with their vectors, and a few less
SAVES, ROUNDS = 3000, 5
SAVE_TARGET = 1.1
SETTINGS = {
    "max_db_size_mb": 10_000,
    "max_messages_per_agent": 10_000_000,
    "max_vector_mb": 1000,
    "max_ram_mb": 4000,
    "link_concepts": False,
    "read_timeout_s": 600,
}


def rss_bytes() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss - apsw.memory_used()


def asked(texts: list[list[str]], dice: random.Random, count: int) -> list[str]:
    questions = []
    for _ in range(count):
        words = dice.choice(texts)
        questions.append(" ".join(dice.sample(words, min(len(words), dice.randint(3, 6)))))
    return questions


def filled(folder: str, size: int, texts: list[list[str]], dice: random.Random) -> None:
    with elytron.open(folder, embedder="wordllama", **SETTINGS) as store:
        agent = store.agent("Bob")
        start = time.perf_counter()
        # Each with a number of its own, so that no two texts are equal.
        numbered = enumerate(messages(size, texts, dice))
        agent.import_({**one, "content": f"{one['content']} {n}"} for n, one in numbered)
        imported = time.perf_counter()
        agent.flush(timeout_s=3600)
        embedded = time.perf_counter()
        usage = agent.usage()
        print(
            f"{size:,} messages: imported at {size / (imported - start):,.0f}/s, embedded at"
            f" {usage.embedded / (embedded - imported):,.0f}/s,"
            f" {usage.embeddings.reasons.get('embedded', 0):,} vectors of"
            f" {usage.embeddings.reduced_to or usage.embeddings.dim} dimensions, their rows"
            f" {usage.bytes.vectors / size:.0f} bytes a message, all {usage.bytes.total / size:.0f}"
        )


def recall(size: int) -> None:
    """Fill a store, and ask it in a process of its own, so that memory is that of asking alone."""
    with tempfile.TemporaryDirectory() as folder:
        filled(folder, size, material(), random.Random(7))
        subprocess.run(
            [sys.executable, __file__, "--ask", folder, str(size)], check=True, timeout=3600
        )


def ask(folder: str, size: int) -> None:
    questions = asked(material(), random.Random(9), QUESTIONS)
    with elytron.open(folder, embedder="wordllama", **SETTINGS) as store:
        with tempfile.TemporaryDirectory() as elsewhere:
            warm_up(elsewhere)
        agent = store.agent("Bob")
        for question in questions:
            store._agents.embeddings.calls.question(question, timeout_s=60)
        before = rss_bytes()
        start = time.perf_counter()
        agent.recall("the first question of all", limit=10)
        first_ms = (time.perf_counter() - start) * 1000
        times = []
        for question in questions:
            start = time.perf_counter()
            agent.recall(question, limit=10)
            times.append((time.perf_counter() - start) * 1000)
        grown = rss_bytes() - before
        times.sort()
        memory = agent.usage().embeddings.memory_bytes
        print(
            f"  recall: median {statistics.median(times):.2f} ms (at most"
            f" {TARGETS_MS.get(size, 0):g}), p99 {times[len(times) * 99 // 100]:.2f} ms; the"
            f" first, which loads the vectors, {first_ms:.0f} ms"
        )
        print(
            f"  memory: {memory / size:.1f} bytes a message for vectors; RSS grew by"
            f" {grown / size:.1f} bytes a message beyond page caches (at most"
            f" {RSS_TARGET_BYTES} from 100,000 on)"
        )


def warm_up(folder: str) -> None:
    """Load what is loaded once a process: numpy, the embedder, the words of dates."""
    with elytron.open(folder, embedder="wordllama") as store:
        agent = store.agent("warm")
        agent.save("user", "The embedder was loaded yesterday, on 3 May 2024, for all that follows")
        agent.flush()
        agent.recall("when was the embedder loaded, yesterday or in May 2024?")


def save_ms(embedder: str | None) -> list[float]:
    """Lone saves one after the other; with an embedder these are embedded meanwhile."""
    given = varied(SAVES)
    settings = {"max_messages_per_agent": 10**6, "max_db_size_mb": 1000, "link_concepts": False}
    if embedder:
        settings["embedder"] = embedder
    times = []
    with tempfile.TemporaryDirectory() as folder, elytron.open(folder, **settings) as store:
        agent = store.agent("Bob")
        agent.save("user", "a first message that opens the store and loads the embedder")
        agent.flush()
        for message in given:
            start = time.perf_counter()
            agent.save(**message)
            times.append((time.perf_counter() - start) * 1000)
        if embedder:
            agent.flush(timeout_s=60)
            assert agent.usage().embedded > SAVES // 2
    return times


def save() -> None:
    ratios = {"median": [], "mean": []}
    for number in range(ROUNDS):
        first, second = (None, "wordllama") if number % 2 else ("wordllama", None)
        found = {first: save_ms(first), second: save_ms(second)}
        for name, of in (("median", statistics.median), ("mean", statistics.fmean)):
            ratios[name].append(of(found["wordllama"]) / of(found[None]))
    print(
        f"a lone save with embeddings beside without, {ROUNDS} rounds of {SAVES:,}:"
        f" median {statistics.median(ratios['median']):.2f} (at most {SAVE_TARGET}),"
        f" mean {statistics.median(ratios['mean']):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[5_000, 100_000])
    parser.add_argument("--save", action="store_true", help="only what a save costs")
    parser.add_argument("--ask", nargs=2, metavar=("FOLDER", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        ask(arguments.ask[0], int(arguments.ask[1]))
        return
    if not arguments.save:
        for size in arguments.sizes:
            recall(size)
    save()


if __name__ == "__main__":
    main()
