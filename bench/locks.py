"""
Eight processes writing to one SQLite file: the longest wait of one writer.

Compares SQLite's own busy handler with a lock file around each transaction, taken by the
kernel's queue (no deadline possible) and by polling as `ledger/lock.py` does.
"""

import fcntl
import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path

import apsw

PROCESSES, WRITES = 8, 800


def work(mode: str, folder: Path, results) -> None:
    db = apsw.Connection(str(folder / "file.db"))
    db.set_busy_timeout(60_000)
    db.pragma("synchronous", "full")
    db.wal_autocheckpoint(0)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    longest = 0.0
    for number in range(WRITES):
        start = time.perf_counter()
        if mode == "kernel":
            fcntl.flock(lock, fcntl.LOCK_EX)
        while mode == "polled":
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.0005 * (0.5 + random.random()))
        db.execute("BEGIN IMMEDIATE")
        longest = max(longest, time.perf_counter() - start)
        db.execute("INSERT INTO t VALUES(NULL, 'x')")
        db.execute("COMMIT")
        if number % 200 == 199 and mode != "sqlite":
            db.wal_checkpoint()
        if mode != "sqlite":
            fcntl.flock(lock, fcntl.LOCK_UN)
    results.put(longest)


def main() -> None:
    context = multiprocessing.get_context("spawn")
    for mode in ("sqlite", "kernel", "polled"):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            db = apsw.Connection(str(folder / "file.db"))
            db.pragma("journal_mode", "wal")
            db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
            db.close()
            results = context.SimpleQueue()
            start = time.perf_counter()
            crew = [
                context.Process(target=work, args=(mode, folder, results)) for _ in range(PROCESSES)
            ]
            for process in crew:
                process.start()
            longest = max(results.get() for _ in crew)
            for process in crew:
                process.join()
            rate = PROCESSES * WRITES / (time.perf_counter() - start)
            print(f"{mode:7} longest wait {longest:6.3f} s, {rate:6.0f} writes/s in all")


if __name__ == "__main__":
    main()
