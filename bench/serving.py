"""
Over HTTP on loopback: what a call costs above one in the process, and what 32 clients get.

`elytron serve` in a process of its own, the clients in others, so all of it shares this machine's
cores. Each client has one connection and waits for each answer: `elytron.connect`, eight of them
in each of four processes; and the same with a hand-written request on a bare socket, which shows
what the server gives where a client costs nothing.
"""

import argparse
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import elytron
from messages import varied

CLIENTS, PROCESSES, AGENTS = 32, 4, 8
HELD = 5000
TARGET_PER_S = 1500
ROOMY = {"max_db_size_mb": 1000, "max_messages_per_agent": 10**6}
TEXT = "Hey Caroline! Good to see you! I'm swamped with the kids and work. Anything new?"
QUESTION = "What does Maya want to plant in the garden?"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """`elytron serve`; its URL."""
    settings = [f"--set={name}={value}" for name, value in ROOMY.items()]
    command = [sys.executable, "-m", "elytron", "serve", "--store", str(folder), "--port", "0"]
    command += ["--json", "--no-dashboard", "--max-requests-per-s", "1000000", *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(60)


def lone(save: Callable[[int], object], count: int) -> list[float]:
    times = []
    for number in range(count):
        started = time.perf_counter()
        save(number)
        times.append((time.perf_counter() - started) * 1000)
    return times


class BareSocket:
    """A client that costs next to nothing: it neither reads nor makes JSON."""

    def __init__(self, url: str, agent: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        body = json.dumps({"role": "user", "content": TEXT}).encode()
        head = (
            f"POST /v1/save?agent={agent} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body

    def save(self) -> None:
        self._socket.sendall(self._request)
        answer = self._socket.recv(65536)
        while not answer.endswith(b"}"):  # head and body may come apart
            answer += self._socket.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]


def work(
    url: str,
    clients: int,
    bare: bool,
    pause_s: float,
    started: Barrier,
    stop: Event,
    saved: object,
) -> None:
    """One process of clients; each saves until it is told to stop, with *pause_s* in between."""
    counts = [0] * clients
    base = multiprocessing.current_process()._identity[0] * clients

    def client(number: int) -> None:
        agent = f"agent{(base + number) % AGENTS}"
        if bare:
            save: Callable[[], object] = BareSocket(url, agent).save
        else:
            memory = elytron.connect(url, connections_max=1).agent(agent)

            def save() -> object:
                return memory.save("user", TEXT)

        started.wait()
        due = time.perf_counter()
        while not stop.is_set():
            save()
            counts[number] += 1
            due += pause_s
            if pause_s and (early := due - time.perf_counter()) > 0:
                time.sleep(early)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    saved.put(sum(counts))  # type: ignore[attr-defined]


def under_load(
    url: str, *, bare: bool, seconds: float, per_s: float | None = None
) -> tuple[float, list[float]]:
    """
    Saves a second of all clients together; milliseconds of each recall meanwhile.

    They save as fast as they can, or together *per_s* times a second.
    """
    pause_s = CLIENTS / per_s if per_s else 0.0
    started, stop = multiprocessing.Barrier(CLIENTS + 1), multiprocessing.Event()
    saved: multiprocessing.Queue[int] = multiprocessing.Queue()
    crew = [
        multiprocessing.Process(
            target=work, args=(url, CLIENTS // PROCESSES, bare, pause_s, started, stop, saved)
        )
        for _ in range(PROCESSES)
    ]
    for process in crew:
        process.start()
    with elytron.connect(url) as store:
        memory = store.agent("held")
        memory.recall(QUESTION)
        started.wait()
        begun = time.perf_counter()
        times = []
        while time.perf_counter() - begun < seconds:
            times += lone(lambda _: memory.recall(QUESTION), 1)
            time.sleep(0.02)
        stop.set()
        took = time.perf_counter() - begun
        total = sum([saved.get(timeout=60) for _ in crew])
    for process in crew:
        process.join(60)
    return total / took, times


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "served"
        with elytron.open(folder, **ROOMY) as store:
            store.agent("held").import_(varied(HELD))
        with served(folder) as url, elytron.open(Path(place) / "here", **ROOMY) as here:
            with elytron.connect(url) as there:
                near, far = here.agent("lone"), there.agent("lone")
                close, distant = [], []
                for _ in range(chosen.rounds * 3):  # in turns, so that both meet the same noise
                    close += lone(lambda n: near.save("user", f"{TEXT} {n}"), 200)
                    distant += lone(lambda n: far.save("user", f"{TEXT} {n}"), 200)
            above = statistics.median(distant) - statistics.median(close)
            print(
                f"one client, save p50: {statistics.median(close):.2f} ms in the process,", end=""
            )
            print(
                f" {statistics.median(distant):.2f} ms over HTTP: {above:.2f} ms more (at most 3)"
            )
            for bare, per_s in ((False, None), (True, None), (True, TARGET_PER_S)):
                rates, times = [], []
                for _ in range(chosen.rounds):
                    rate, some = under_load(url, bare=bare, seconds=chosen.seconds, per_s=per_s)
                    rates.append(rate)
                    times += some
                who = "bare sockets" if bare else "elytron.connect"
                how = f"no more than {per_s:,}" if per_s else "as fast as they can"
                shown = ", ".join(f"{rate:,.0f}" for rate in rates)
                print(
                    f"{CLIENTS} clients ({who}, {how}): {shown} durable saves a second;"
                    f"\n  recall of {HELD:,} messages meanwhile:"
                    f" p50 {statistics.median(times):.1f}, p99 {p99(times):.1f} ms of {len(times)}"
                )
    print("targets: at least 1,500 saves a second; recall p99 at most 50 ms")


if __name__ == "__main__":
    main()
