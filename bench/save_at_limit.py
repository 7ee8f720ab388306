"""
Saves at `max_messages_per_agent`: how long the slowest wait, and for how many that is.

One agent of the default limits is filled to nearly as many messages as it may hold; then one
thread saves a thousand and a half more at a pace, so that messages leave for the archive three
times. Once as it is, where the janitor makes room before a save has to; once without its thread,
where the save that meets the limit waits until a tenth of all has left. By turns, in one run.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import elytron
from messages import material
from slopes import quantiles

FILLED, SAVES, SLOW_MS = 4_400, 1_500, 100.0


def waits_ms(folder: Path, *, saves_per_s: float, janitor: bool) -> list[float]:
    """How long each of the saves took."""
    texts, dice, waits = material(), random.Random(7), []
    with elytron.open(folder) as store:
        if not janitor:
            store._upkeep.janitor.start = lambda: None
        bob = store.agent("bob")
        bob.save_many(
            [{"role": "user", "content": " ".join(dice.choice(texts))} for _ in range(FILLED)]
        )
        bob.flush(timeout_s=300)
        due = time.monotonic()
        for _ in range(SAVES):
            due += 1 / saves_per_s
            time.sleep(max(0.0, due - time.monotonic()))
            begun = time.perf_counter()
            bob.save("user", " ".join(dice.choice(texts)))
            waits.append((time.perf_counter() - begun) * 1000)
        usage = bob.usage()
        assert usage.messages + usage.archived == FILLED + SAVES
    return waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--saves-per-s", type=float, default=50)
    arguments = parser.parse_args()
    found: dict[bool, list[list[float]]] = {True: [], False: []}
    for _ in range(arguments.rounds):
        for janitor in found:
            with tempfile.TemporaryDirectory() as folder:
                found[janitor].append(
                    waits_ms(
                        Path(folder) / "store",
                        saves_per_s=arguments.saves_per_s,
                        janitor=janitor,
                    )
                )
    for janitor, rounds in found.items():
        p50_ms, p99_ms = (
            statistics.median(some) for some in zip(*map(quantiles, rounds), strict=True)
        )
        slow = sum(wait > SLOW_MS for waits in rounds for wait in waits)
        print(
            f"{'room made ahead' if janitor else 'without the janitor'}: p50 {p50_ms:.1f} ms,"
            f" p99 {p99_ms:.1f} ms, longest {statistics.median(map(max, rounds)):.0f} ms"
            f" (medians of {len(rounds)} rounds); {slow} of {SAVES * len(rounds):,} saves over"
            f" {SLOW_MS:g} ms"
        )


if __name__ == "__main__":
    main()
