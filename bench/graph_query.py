"""
Questions to a graph of 10,000 concepts and 50,000 relations: what is near, the shortest way, and
one row by its name in Cypher.

Targets are those of docs/performance.md.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import elytron
from elytron.config_values import ENGINES
from elytron.ledger.learned import Name, Relate

CONCEPTS, RELATIONS, MEMORIES = 10_000, 50_000, 2_000
AT_ONCE = 20
ROOMY = {"max_db_size_mb": 2000, "graph_build_timeout_s": 3600}


def names(dice: random.Random) -> Iterator[str]:
    """One name after the other, a few of them much more often."""
    while True:
        yield f"name {int(CONCEPTS * dice.random() ** 2)}"


def fill(bob: elytron.Agent, dice: random.Random) -> None:
    """Relations straight into the ledger, twenty a commit: `relate` brings each to the disk."""
    some = names(dice)
    relates = [
        Relate(
            Name(source, source),
            f"relation {number % 7}",
            Name(target, target),
            dice.random(),
            None,
            None,
            False,
            time.time_ns() // 1000,
        )
        for number, source, target in zip(range(RELATIONS), some, some, strict=False)
    ]
    bob.save("user", "hello")
    with bob._agents.use(bob.name, create=False) as opened:
        assert opened is not None
        for start in range(0, RELATIONS, AT_ONCE):
            for result in opened.ledger.commit(
                relates[start : start + AT_ONCE], time.monotonic() + 60
            ):
                assert isinstance(result, bool), result
    for number in range(MEMORIES):
        bob.remember(f"memory {number}", about=[next(some), next(some), next(some)])


def measure(title: str, calls: int, ask: Callable[[], Any]) -> None:
    waits, rows = [], 0
    for _ in range(calls):
        begun = time.perf_counter()
        found = ask()
        waits.append((time.perf_counter() - begun) * 1e3)
        rows += len(found or ())
    waits.sort()
    print(
        f"  {title}: median {statistics.median(waits):.2f} ms, 99 of 100 within"
        f" {waits[int(0.99 * len(waits))]:.2f} ms, {rows / calls:.1f} rows"
    )


def run(bob: elytron.Agent, engine: str) -> None:
    dice = random.Random(7)
    fill(bob, dice)
    bob.flush(timeout_s=600)
    some = names(dice)
    begun = time.perf_counter()
    (row,) = bob.cypher("MATCH (:Concept)-[r:RELATES_TO]->(:Concept) RETURN count(r) AS relations")
    print(
        f"{engine}: {bob.usage().concepts:,} concepts, {row['relations']:,} relations, built in"
        f" {time.perf_counter() - begun:.1f} s"
    )
    point = "MATCH (c:Concept {name: $name}) RETURN c.key"
    measure("a row by its name in Cypher", 2000, lambda: bob.cypher(point, {"name": next(some)}))
    measure("related(depth=1)", 200, lambda: bob.related(next(some), depth=1))
    measure("related(depth=2)", 200, lambda: bob.related(next(some), depth=2))
    measure("related(depth=3)", 200, lambda: bob.related(next(some), depth=3))
    measure("path", 200, lambda: bob.path(next(some), next(some)))


def main() -> None:
    for engine in ENGINES:
        with (
            tempfile.TemporaryDirectory() as folder,
            elytron.open(Path(folder) / "store", engine=engine, **ROOMY) as store,
        ):
            run(store.agent("bob"), engine)


if __name__ == "__main__":
    main()
