"""What `import elytron` costs: time and memory in a fresh interpreter, and no network."""

import statistics
import subprocess
import sys

ROUNDS = 15
TIME_TARGET_MS, RSS_TARGET_MB = 100, 35

# Peak RSS, so that nothing freed since is missed; a socket made or a name looked up ends it.
PROBE = """
import sys, time
def watch(event, args):
    if event.startswith("socket."):
        raise SystemExit(f"import touched the network: {event}")
sys.addaudithook(watch)
start = time.perf_counter()
import elytron
took = time.perf_counter() - start
elytron.open, elytron.Agent  # what the first use loads on top
used = time.perf_counter() - start
import resource
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(took * 1000, used * 1000, peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))
"""


def main() -> None:
    times, uses, peaks = [], [], []
    for _ in range(ROUNDS):
        out = subprocess.run(
            [sys.executable, "-c", PROBE], check=True, capture_output=True, text=True
        ).stdout.split()
        times.append(float(out[0]))
        uses.append(float(out[1]))
        peaks.append(float(out[2]))
    print(
        f"import elytron: median {statistics.median(times):.0f} ms, with all that `open` needs"
        f" {statistics.median(uses):.0f} ms (target under {TIME_TARGET_MS}),"
        f" {statistics.median(peaks):.1f} MB RSS (target under {RSS_TARGET_MB}), no socket touched"
    )


if __name__ == "__main__":
    main()
