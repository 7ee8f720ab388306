"""
Lone durable saves while space is given back, beside the same without: their p99.

Of 40,000 messages 30,000 leave for the archive and what they took is given back, in a thread of
its own, while the main thread saves. Then the whole file is rebuilt, which saves have to wait for.
The target is that of docs/performance.md.
"""

import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import elytron
from messages import material, messages

HELD = 40_000
SAVES = 4_000


def save_times(bob: elytron.Agent, count: int, stop: threading.Event | None = None) -> list[float]:
    times = []
    while len(times) < count and not (stop is not None and stop.is_set()):
        started = time.perf_counter()
        bob.save("user", "Something that is said while the file gets smaller.", session="now")
        times.append((time.perf_counter() - started) * 1000)
    return times


def p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def main() -> None:
    dice = random.Random(7)
    with (
        tempfile.TemporaryDirectory() as folder,
        elytron.open(Path(folder) / "store", max_messages_per_agent=10**6) as store,
    ):
        bob = store.agent("bob")
        bob.import_(messages(HELD, material(), dice))
        quiet = save_times(bob, SAVES)

        def beside(chore: Callable[[], object]) -> tuple[list[float], object]:
            done, reports = threading.Event(), list[object]()

            def work() -> None:
                reports.append(chore())
                done.set()

            thread = threading.Thread(target=work)
            thread.start()
            times = save_times(bob, 10**6, done)
            thread.join()
            return times, reports[0]

        alone = p99(quiet)
        for name, chore in (
            ("archiving 30,000", lambda: bob.archive(older_than_days=0, keep=HELD // 4)),
            ("reclaiming", bob.reclaim),
            ("rebuilding (stated exception)", lambda: bob.reclaim(full=True)),
        ):
            times, report = beside(chore)
            print(
                f"{name}: {report.given_back_bytes / 1e6:.1f} MB given back beside {len(times):,}"
                f" saves; their p99 {p99(times):.2f} ms, {p99(times) / alone:.1f} x the"
                f" {alone:.2f} alone (at most 5); the longest {max(times):.0f} ms"
            )


if __name__ == "__main__":
    main()
