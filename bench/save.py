"""
Durable saves, beside a hand-written SQLite table in the same run.

Prints ratios; the targets are those of docs/performance.md. The baseline is what a careful
person writes by hand: one table, an index on the session, FTS5, WAL, `synchronous=FULL`, one
transaction a message, one connection under one lock.
"""

import asyncio
import json
import statistics
import tempfile
import threading
import time
import uuid
from pathlib import Path

import apsw

import elytron
import elytron.aio

TEXT = (
    "Hey Caroline! Good to see you! I'm swamped with the kids and work."
    " What's up with you? Anything new?"
)
SAVERS = 16
ROOMY = {"max_db_size_mb": 1000, "max_messages_per_agent": 10**6}  # no limit is met here


class Baseline:
    """The table that a person would write by hand."""

    def __init__(self, path: Path) -> None:
        self.db = apsw.Connection(str(path))
        self.db.pragma("journal_mode", "wal")
        self.db.pragma("synchronous", "full")
        self.db.execute(
            "CREATE TABLE messages(key INTEGER PRIMARY KEY, id TEXT UNIQUE, session TEXT,"
            " user TEXT, role TEXT, content TEXT, at REAL, metadata TEXT)"
        )
        self.db.execute("CREATE INDEX messages_session ON messages(session, at)")
        self.db.execute(
            "CREATE VIRTUAL TABLE words USING fts5(content, content='messages',"
            " content_rowid='key', tokenize='porter')"
        )
        self.lock = threading.Lock()

    def save(self, role: str, content: str, session: str, user: str) -> str:
        message_id = str(uuid.uuid4())
        values = (message_id, session, user, role, content, time.time(), json.dumps({}))
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute("INSERT INTO messages VALUES(NULL, ?, ?, ?, ?, ?, ?, ?)", values)
            key = self.db.last_insert_rowid()
            self.db.execute("INSERT INTO words(rowid, content) VALUES(?, ?)", (key, content))
            self.db.execute("COMMIT")
        return message_id


def lone(save, count: int) -> list[float]:
    times = []
    for number in range(count):
        start = time.perf_counter()
        save("user", f"{TEXT} {number}")
        times.append(time.perf_counter() - start)
    return times


def threads(save, count: int) -> float:
    """Messages a second of 16 threads together."""
    barrier = threading.Barrier(SAVERS + 1)

    def work(mine: int) -> None:
        barrier.wait()
        for number in range(count):
            save("user", f"{TEXT} {mine} {number}")
        barrier.wait()

    crew = [threading.Thread(target=work, args=(mine,)) for mine in range(SAVERS)]
    for thread in crew:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    barrier.wait()
    took = time.perf_counter() - start
    for thread in crew:
        thread.join()
    return SAVERS * count / took


async def tasks(folder: Path, count: int) -> float:
    """Messages a second of 16 tasks together."""
    async with elytron.aio.open(folder, **ROOMY) as store:
        agent = store.agent("tasks")
        await agent.save("user", "warm")

        async def work(mine: int) -> None:
            for number in range(count):
                await agent.save("user", f"{TEXT} {mine} {number}", session="s", user="alice")

        start = time.perf_counter()
        await asyncio.gather(*(work(mine) for mine in range(SAVERS)))
        return SAVERS * count / (time.perf_counter() - start)


def median(values: list[float]) -> float:
    return statistics.median(values)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        baseline = Baseline(folder / "baseline.db")
        with elytron.open(folder / "store", **ROOMY) as store:
            agent = store.agent("Bob")

            def ours(role: str, content: str) -> None:
                agent.save(role, content, session="s", user="alice")

            def theirs(role: str, content: str) -> None:
                baseline.save(role, content, "s", "alice")

            lone(ours, 300)
            lone(theirs, 300)
            ratios, mine, other = [], [], []
            for _ in range(9):  # alternating, so that a busy disk is busy for both
                theirs_s, ours_s = lone(theirs, 300), lone(ours, 300)
                mine.append(median(ours_s))
                other.append(median(theirs_s))
                ratios.append(mine[-1] / other[-1])
            base_ms = median(other) * 1000
            print(
                f"lone save: baseline {base_ms:.3f} ms, elytron {median(mine) * 1000:.3f} ms,"
                f" ratio {median(ratios):.2f} (target at most 1.2)"
            )

            ordered = sorted(lone(ours, 5000))
            print(
                f"  over 5000: mean {statistics.mean(ordered) * 1000:.3f} ms,"
                f" p99 {ordered[4950] * 1000:.2f} ms, longest {ordered[-1] * 1000:.1f} ms"
            )

            ratios, rates = [], []
            for _ in range(5):
                base = threads(theirs, 100)
                rates.append(threads(ours, 200))
                ratios.append(rates[-1] / base)
            print(
                f"16 threads: {median(rates):.0f} messages/s,"
                f" {median(ratios):.2f} x the baseline under 16 (target at least 2)"
            )

            ratios, rates = [], []
            for number in range(5):
                base = threads(theirs, 100)
                rates.append(asyncio.run(tasks(folder / f"tasks{number}", 200)))
                ratios.append(rates[-1] / base)
            print(
                f"16 tasks: {median(rates):.0f} messages/s,"
                f" {median(ratios):.2f} x the baseline under 16 (target at least 2)"
            )

            ratios, rates = [], []
            for turn in range(5):
                base = 1 / median(lone(theirs, 200))
                messages = [
                    {"role": "user", "content": f"{TEXT} {turn} {n}", "session": "m", "user": "a"}
                    for n in range(2000)
                ]
                start = time.perf_counter()
                agent.save_many(messages)
                rates.append(len(messages) / (time.perf_counter() - start))
                ratios.append(rates[-1] / base)
            print(
                f"save_many of 2000: {median(rates):.0f} messages/s,"
                f" {median(ratios):.2f} x the lone baseline (target at least 5)"
            )


if __name__ == "__main__":
    main()
