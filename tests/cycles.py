"""
Stores opened and closed, and agents put to rest, over and over: what each leaves behind.

Run as a program, in a process of its own, so that what it measures is nobody else's:
`python tests/cycles.py stores FOLDER COUNT` or `... agents FOLDER COUNT`. Prints samples in JSON.
"""

import asyncio
import contextlib
import gc
import json
import logging
import pathlib
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import elytron
import elytron.aio
from embedders import unit_row
from ledgers import ledger_path, lock_held

SAMPLES = 40  # of a run; the first tenth warms up
TRACED = 32  # each kind of cycle twice
HELD = 20  # messages of the agent that all cycles share
NAMES = 500  # of agents put to rest; fewer, if there are fewer cycles
GRAPH_EVERY = 100
CLOSINGS_MAX = 200
ENDING_MAX_S = 30.0  # of a thread
GONE_MAX_S = 5.0  # one that has ended, from the system's list
QUESTION = "what did number {} say of the weather in Lyon?"
NATIVE = psutil.Process().num_threads() - threading.active_count()  # threads of libraries


def embed(texts: Sequence[str], _kind: str) -> Any:
    return np.stack([unit_row(text) for text in texts])


def one_store(folder: Path, number: int, **settings: Any) -> None:
    with elytron.open(folder, **settings) as store:
        touch(store.agent("bob"), number)


def touch(bob: elytron.Agent, number: int) -> None:
    """Read and write, so that readers, writer, caches and background are all there."""
    bob.save("user", f"Number {number} speaks of the weather in Lyon", id=str(number))
    assert bob.recall(QUESTION.format(number))
    with contextlib.suppress(elytron.NotFound):  # in the first cycles
        bob.delete(str(number - HELD))


def plain(folder: Path, number: int) -> None:
    one_store(folder, number)


def with_a_graph(folder: Path, number: int) -> None:
    with elytron.open(folder) as store:
        touch(store.agent("bob"), number)
        assert store.agent("bob").cypher("MATCH (m:Message) RETURN count(m) AS n")[0]["n"]


def with_an_embedder(folder: Path, number: int) -> None:
    with elytron.open(folder / "embedded", embedder=embed) as store:
        touch(store.agent("bob"), number)
        store.agent("bob").flush()
        assert store.agent("bob").recall(QUESTION.format(number))


def with_an_archive(folder: Path, number: int) -> None:
    with elytron.open(folder / "archived", max_archive_mb=1) as store:
        bob = store.agent("bob")
        touch(bob, number)
        assert bob.archive(older_than_days=0, keep=0).archived
        assert bob.recall(QUESTION.format(number), archived=True)
        bob.forget(session="default")


def asynchronous(folder: Path, number: int) -> None:
    async def work() -> None:
        async with elytron.aio.open(folder) as store:
            bob = store.agent("bob")
            await bob.save("user", f"Number {number} speaks of the weather in Lyon", id=str(number))
            assert await bob.recall(QUESTION.format(number))
            with contextlib.suppress(elytron.NotFound):
                await bob.delete(str(number - HELD))

    asyncio.run(work())


def at_a_wrong_path(folder: Path, _number: int) -> None:
    path = folder.with_name("a file")
    path.write_text("")
    refused(elytron.Unavailable, lambda: elytron.open(path))


def with_a_damaged_agent(folder: Path, _number: int) -> None:
    damaged = folder.with_name("damaged")
    if not damaged.exists():
        with elytron.open(damaged) as store:
            store.agent("bob").save("user", "Hello")
        ledger_path(damaged).write_bytes(b"garbage" * 1000)
    with elytron.open(damaged) as store:
        refused(elytron.Corrupt, lambda: store.agent("bob").history())
        refused(elytron.Corrupt, lambda: store.agent("bob").save("user", "Hello"))


def closed_twice(folder: Path, number: int) -> None:
    store = elytron.open(folder)
    touch(store.agent("bob"), number)
    store.close()
    store.close()


def closed_while_a_write_waits(folder: Path, number: int) -> None:
    store = elytron.open(folder)
    with lock_held(folder):
        future = store.agent("bob").submit("user", f"Number {number}", id=str(number))
        assert not future.done()
    store.close()
    assert future.result(timeout=0).id == str(number)


def closed_too_early(folder: Path, number: int) -> None:
    """A write that cannot go on keeps its agent open; closed again, all is given back."""
    store = elytron.open(folder, save_timeout_s=0.05)
    with slow_threads_not_told():
        with lock_held(folder):
            future = store.agent("bob").submit("user", f"Number {number}", id=str(number))
            with contextlib.suppress(elytron.Busy):
                store.close()
            error = future.exception(timeout=30)
            assert error is None or isinstance(error, elytron.Busy)
        for _ in range(CLOSINGS_MAX):  # on a slow disk what waits takes longer than 50 ms
            with contextlib.suppress(elytron.Busy):
                store.close()
                return
    raise AssertionError(f"still open after {CLOSINGS_MAX} closings")


@contextlib.contextmanager
def slow_threads_not_told() -> Iterator[None]:
    """That a thread takes longer than 50 ms to end is logged, and on a busy machine it may."""
    log = logging.getLogger("elytron.upkeep")

    def told(record: logging.LogRecord) -> bool:
        return "it ends by itself" not in record.msg

    log.addFilter(told)
    try:
        yield
    finally:
        log.removeFilter(told)


def refused(kind: type[Exception], call: Callable[[], Any]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


CYCLES = (
    plain, asynchronous, plain, with_an_embedder, plain, at_a_wrong_path, plain, with_an_archive,
    plain, with_a_damaged_agent, plain, closed_twice, plain, closed_while_a_write_waits, plain,
    closed_too_early,
)  # fmt: skip


def open_and_close(folder: Path, number: int) -> None:
    if number % GRAPH_EVERY == GRAPH_EVERY // 2:
        with_a_graph(folder, number)
    else:
        CYCLES[number % len(CYCLES)](folder, number)
    for thread in threading.enumerate():  # who closes a store waits for some only so long
        if thread.name.startswith("elytron-"):
            thread.join(ENDING_MAX_S)
            assert not thread.is_alive(), thread


def sample() -> dict[str, Any]:
    """What the process has now, once what nobody needs is gone."""
    tidy()
    process = psutil.Process()
    return {
        "rss_bytes": process.memory_info().rss,
        "threads": threads_of(process),
        "descriptors": process.num_fds(),
        "children": len(process.children()),
        "blocks": sys.getallocatedblocks(),
        "objects": owned(),
    }


def threads_of(process: psutil.Process) -> int:
    """Its threads in the system, where one that Python has seen end may be for a moment more."""
    deadline = time.monotonic() + GONE_MAX_S
    while (count := process.num_threads()) > NATIVE + threading.active_count():
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)
    return count


def tidy() -> None:
    gc.collect()
    # CPython's cache of methods keeps up to 4,096 names, a few more after each cycle.
    sys._clear_type_cache()


def owned() -> dict[str, int]:
    """How many objects of each of our types there are."""
    counts: Counter[str] = Counter()
    for one in gc.get_objects():
        name = f"{type(one).__module__}.{type(one).__qualname__}"
        if name.startswith("elytron."):
            counts[name] += 1
    return dict(counts)


def repeat(count: int, cycle: Callable[[int], None]) -> dict[str, Any]:
    """So many cycles with samples between them; then some more, in which memory is traced."""
    samples = []
    for number in range(count):
        cycle(number)
        if number % max(1, count // SAMPLES) == 0:
            samples.append(sample())
    samples.append(sample())
    tracemalloc.start(8)
    for number in range(count, count + TRACED):
        cycle(number)
    tidy()
    ours = [
        tracemalloc.Filter(True, f"{Path(elytron.__file__).parent}/*", all_frames=True),
        # The interpreter's table of names, in which parts of paths are, is now and then made anew.
        tracemalloc.Filter(False, pathlib.__file__),
    ]
    before = tracemalloc.take_snapshot().filter_traces(ours)
    for number in range(count + TRACED, count + 3 * TRACED):
        cycle(number)
    tidy()
    after = tracemalloc.take_snapshot().filter_traces(ours)
    tracemalloc.stop()
    grown = sorted(after.compare_to(before, "lineno"), key=lambda one: -one.size_diff)
    return {
        "samples": samples,
        "traced_bytes": sum([one.size_diff for one in grown]),
        "traced": [str(one) for one in grown[:5]],
    }


def put_to_rest(folder: Path, count: int) -> dict[str, Any]:
    """One store that has places for four agents, and hundreds that take turns."""
    names = min(NAMES, count)
    settings = {"max_open_agents": 4, "max_open_graphs": 2, "embedder": embed}
    with elytron.open(folder, **settings) as store:

        def cycle(number: int) -> None:
            agent = store.agent(f"agent {number % names}")
            touch(agent, number)
            if number % GRAPH_EVERY == GRAPH_EVERY // 2:
                assert agent.cypher("MATCH (m:Message) RETURN count(m) AS n")[0]["n"]

        return repeat(count, cycle)


def main() -> None:
    what, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if what == "stores":
        found = repeat(count, lambda number: open_and_close(folder, number))
    else:
        found = put_to_rest(folder, count)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
