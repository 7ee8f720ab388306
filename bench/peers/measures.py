"""
One measure of one peer, in the peer's own environment; what it finds goes out as JSON lines.

    python measures.py MODULE VECTORS MEASURE FOLDER SMALL [ARGUMENTS]

`run.py` calls it. Linux only: memory, threads and descriptors are read from /proc.
"""

import contextlib
import importlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workload

AGENT = "agent-bob"
THREADS = 16
HELD, WRITTEN = 5_000, 30_000
AGENTS, EACH = 500, 10
TRIED = 200  # messages, to see how long many would take
WARM_QUESTIONS = 5
RAM = Path("/dev/shm")
RAM_MIN_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Size:
    """How long and how much; the small one tries the harness, and measures nothing."""

    save_s: float = 5.0
    warm: int = 50
    traced: int = 100
    held: int = HELD
    asked: int = 200
    ask_s: float = 8.0
    written: int = WRITTEN
    churn_s: float = 40.0
    agents: int = AGENTS
    agents_s: float = 30.0


SMALL = Size(0.5, 5, 10, 300, 20, 1.0, 1200, 5.0, 20, 5.0)


def words_of(error: BaseException) -> str:
    """The first line of an error, shortened, without the folder of this run."""
    text = " ".join(str(error).split())
    for part in text.split():
        if "/" in part:
            text = text.replace(part, "…")
    return f"{type(error).__name__}: {text[:120]}"


def latencies(times_s: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times_s)
    return {
        "count": len(ordered),
        "p50_ms": statistics.median(ordered) * 1000,
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
        "longest_ms": ordered[-1] * 1000,
    }


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def rss_bytes() -> int:
    """Of this process and of those that it started."""
    total, pids = 0, [os.getpid()]
    while pids:
        pid = pids.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += _status(pid, "VmRSS") * 1024
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += [int(one) for one in (task / "children").read_text().split()]
    return total


def on_disk(folder: Path) -> dict[str, int]:
    """Bytes that the files take; apart, what Elytron keeps in reserve and in its archive."""
    found = {"all": 0, "archive": 0, "reserve": 0}
    for path in folder.rglob("*"):
        if path.is_file():
            size = path.stat().st_blocks * 512
            found["all"] += size
            if "archive" in path.relative_to(folder).parts:
                found["archive"] += size
            elif "reserve" in path.name:
                found["reserve"] += size
    return found


def scratch_folder() -> Path | None:
    """Where an fsync costs nothing, for what is not timed; None for the usual place."""
    roomy = RAM.is_dir() and shutil.disk_usage(RAM).free >= RAM_MIN_BYTES
    return RAM if roomy else None


class Timer:
    """Whether there is time left."""

    def __init__(self, seconds: float) -> None:
        self._start = time.perf_counter()
        self._end = self._start + seconds

    def left(self) -> bool:
        return time.perf_counter() < self._end

    def took_s(self) -> float:
        return time.perf_counter() - self._start


class Measures:
    """Each method is one measure."""

    def __init__(self, module: str, folder: Path, size: Size, *, vectors: bool) -> None:
        self._module = importlib.import_module(module)
        self._folder, self._size, self._vectors = folder, size, vectors

    def _open(self, folder: Path | None = None, *, keep: int = 0) -> workload.Peer:
        folder = folder or self._folder
        folder.mkdir(parents=True, exist_ok=True)
        peer: workload.Peer = self._module.Peer(folder, vectors=self._vectors, keep=keep)
        return peer

    def first(self) -> dict[str, Any]:
        """From nothing to the first message kept: what is put off at import is paid here."""
        start = time.perf_counter()
        peer = self._open()
        peer.save(AGENT, next(workload.messages(1)))
        took = time.perf_counter() - start
        found = {"open_and_save_ms": took * 1000, "rss_bytes": rss_bytes()}
        peer.close()
        return found

    def lone(self) -> dict[str, Any]:
        """One message after the other, for some seconds."""
        peer = self._open()
        work = workload.messages(10**9)
        for _ in range(self._size.warm):
            peer.save(AGENT, next(work))
        times, timer = [], Timer(self._size.save_s)
        while timer.left():
            message = next(work)
            start = time.perf_counter()
            peer.save(AGENT, message)
            times.append(time.perf_counter() - start)
        found = {**latencies(times), "a_second": len(times) / sum(times)}
        peer.close()
        return found

    def threads(self) -> dict[str, Any]:
        """Sixteen threads on one agent, for some seconds; then what is held is compared."""
        peer = self._open()
        peer.save(AGENT, next(workload.messages(1, first=0)))
        size, kept, errors = self._size, [0], dict[str, int]()  # number 0 is that one
        barrier, mutex = threading.Barrier(THREADS + 1), threading.Lock()
        times: list[float] = []

        def work(mine: int) -> None:
            taken: list[int] = []
            took: list[float] = []
            barrier.wait()
            timer = Timer(size.save_s)
            for message in workload.messages(10**6, first=(mine + 1) * 10**7):
                if not timer.left():
                    break
                start = time.perf_counter()
                try:
                    peer.save(AGENT, message)
                except Exception as error:  # noqa: BLE001 counted, and told
                    with mutex:
                        errors[words_of(error)] = errors.get(words_of(error), 0) + 1
                else:
                    took.append(time.perf_counter() - start)
                    taken.append(message.number)
            with mutex:
                kept.extend(taken)
                times.extend(took)
            barrier.wait()

        crew = [threading.Thread(target=work, args=(mine,), daemon=True) for mine in range(THREADS)]
        for thread in crew:
            thread.start()
        barrier.wait()
        start = time.perf_counter()
        barrier.wait()
        took_s = time.perf_counter() - start
        held = workload.numbers(peer.texts(AGENT))
        found = {
            "a_second": (len(kept) - 1) / took_s,
            **latencies(times or [0.0]),
            "refused": sum(errors.values()),
            "words": max(errors, key=lambda words: errors[words], default=""),
            "lost": len(set(kept) - set(held)),
            "doubled": len(held) - len(set(held)),
        }
        peer.close()
        return found

    def traced(self) -> dict[str, Any]:
        """Saves between marks, for strace to see."""
        peer = self._open()
        work = workload.messages(10**6)
        for _ in range(self._size.warm):
            peer.save(AGENT, next(work))
        for _ in range(self._size.traced):
            message = next(work)
            os.access("/mark/begin", os.F_OK)
            peer.save(AGENT, message)
            os.access("/mark/end", os.F_OK)
        peer.close()
        return {"saves": self._size.traced}

    def reading(self) -> dict[str, Any]:
        """Recall and history among 5,000, and what that takes of memory."""
        size = self._size
        with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
            peer = self._open(Path(scratch) / "filled")
            peer.fill(AGENT, list(workload.messages(size.held)))
            peer.settle(AGENT)
            peer.close()
            shutil.copytree(Path(scratch) / "filled", self._folder, dirs_exist_ok=True)
        peer = self._open()
        found = {"recall": self._recall(peer), "history": self._history(peer)}
        found["rss_bytes"] = rss_bytes()
        peer.close()
        return found

    def _recall(self, peer: workload.Peer) -> dict[str, Any]:
        size, times, met = self._size, list[float](), 0
        asked = workload.questions(size.asked + WARM_QUESTIONS, size.held)
        start = time.perf_counter()
        for _, question in asked[:WARM_QUESTIONS]:
            peer.recall(AGENT, question, 10)
        warm_s = time.perf_counter() - start
        timer = Timer(size.ask_s)
        for number, question in asked[WARM_QUESTIONS:]:
            if not timer.left():
                break
            start = time.perf_counter()
            texts = peer.recall(AGENT, question, 10)
            times.append(time.perf_counter() - start)
            met += number in workload.numbers(texts)
        return {**latencies(times), "found": met / len(times), "warm_ms": warm_s * 1000}

    def _history(self, peer: workload.Peer) -> dict[str, Any]:
        size, times, wrong = self._size, list[float](), 0
        sessions = size.held // workload.SESSION_LENGTH
        timer = Timer(size.ask_s)
        for at in range(size.asked):
            if not timer.left():
                break
            which = at % sessions
            start = time.perf_counter()
            texts = peer.history(AGENT, f"s{which}", 50)
            times.append(time.perf_counter() - start)
            last = (which + 1) * workload.SESSION_LENGTH
            wrong += workload.numbers(texts) != list(range(last - 50, last))
        return {**latencies(times), "wrong": wrong}

    def churn(self) -> dict[str, Any]:
        """30,000 written and 5,000 kept; less of both, six to one, where time is too short."""
        size, timer = self._size, Timer(0)
        with tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
            folder = Path(scratch) / "churned"
            written = min(size.written, int(size.churn_s / self._a_message_s(folder / "trial")))
            shutil.rmtree(folder)
            keep = written * HELD // WRITTEN
            peer = self._open(folder, keep=keep)
            keys: deque[str] = deque()
            step = max(1, keep // 10)
            for start in range(0, written, step):
                count = min(step, written - start)
                keys += peer.fill(AGENT, list(workload.messages(count, first=start)))
                if surplus := max(0, len(keys) - keep):
                    peer.drop(AGENT, [keys.popleft() for _ in range(surplus)])
            peer.settle(AGENT)
            found = {"written": written, "keep": keep, "rss_bytes": rss_bytes()}
            held = workload.numbers(peer.texts(AGENT))
            found["kept"] = kept = len(held)  # a limit may let a few more go than it must
            found["wrong"] = sorted(held) != list(range(written - kept, written))
            peer.close()
            found["bytes"] = on_disk(folder)
            peer = self._open(folder, keep=keep)
            can = peer.compact(AGENT)
            peer.close()
            found["compacted_bytes"] = on_disk(folder) if can else None
            fresh = self._open(Path(scratch) / "fresh")
            fresh.fill(AGENT, list(workload.messages(kept, first=written - kept)))
            fresh.settle(AGENT)
            fresh.close()
            found["fresh_bytes"] = on_disk(Path(scratch) / "fresh")
            return {**found, "took_s": timer.took_s()}

    def _a_message_s(self, folder: Path) -> float:
        """What it takes to write one and let one go, by a short trial."""
        peer = self._open(folder)
        timer = Timer(0)
        keys = peer.fill(AGENT, list(workload.messages(TRIED)))
        peer.drop(AGENT, keys)
        took_s = timer.took_s()
        peer.close()
        return took_s / TRIED

    def agents(self) -> dict[str, Any]:
        """500 agents of ten messages each in this process, until one fails or time is over."""
        size = self._size
        peer, timer, done, failure = self._open(), Timer(size.agents_s), 0, ""
        messages = list(workload.messages(EACH))
        for number in range(size.agents):
            if not timer.left():
                break
            try:
                peer.fill(f"agent-{number}", messages)
            except Exception as error:  # noqa: BLE001 counted, and told
                failure = f"at agent {number + 1}: {words_of(error)}"
                break
            done += 1
        found = {
            "agents": done,
            "of": size.agents,
            "took_s": timer.took_s(),
            "failure": failure,
            "rss_bytes": rss_bytes(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": _status(os.getpid(), "Threads"),
        }
        peer.close()
        return found

    def writer(self, first: str, seconds: str, tell: Callable[[str], None]) -> dict[str, Any]:
        """
        Say what is held; at a line on stdin begin to save, and say so after each: one that is
        said and not held afterwards is lost.
        """
        peer = self._open()
        held = workload.numbers(peer.texts(AGENT))
        tell(json.dumps({"held": held}))
        sys.stdin.readline()
        errors: dict[str, int] = {}
        timer = Timer(float(seconds))
        for message in workload.messages(10**6, first=int(first)):
            if not timer.left():
                break
            try:
                peer.save(AGENT, message)
            except Exception as error:  # noqa: BLE001 counted, and told
                errors[words_of(error)] = errors.get(words_of(error), 0) + 1
            else:
                tell(str(message.number))
        took_s = timer.took_s()
        peer.close()
        return {"errors": errors, "took_s": took_s}


def main() -> None:
    module, vectors, name, folder, small, *arguments = sys.argv[1:]
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints is not ours

    def tell(line: str) -> None:
        os.write(out, f"{line}\n".encode())  # in one piece, and nothing kept back: it may be killed

    size = SMALL if small == "1" else Size()
    measures = Measures(module, Path(folder), size, vectors=vectors == "1")
    extra = [*arguments, tell] if name == "writer" else arguments
    tell(json.dumps(getattr(measures, name)(*extra)))
    os._exit(0)  # some libraries take long to end, or end with a message


if __name__ == "__main__":
    main()
