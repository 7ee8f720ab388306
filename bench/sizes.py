"""
Bytes on the disk and RSS: of agents of 1, 1,000 and 5,000 messages, of an archive, of graphs and
their worker, and of servers. The sizes in docs/operations.md.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

import elytron
from messages import varied

MB = 1 << 20
COUNTS = (1, 1000, 5000)
AT_ONCE = 500


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def agents(folder: Path) -> None:
    print("messages | closed KB | KB while open | graph KB | worker MB | our own RSS MB")
    for count in COUNTS:
        place = folder / str(count)
        drafts = varied(count)
        with elytron.open(place, reserve_mb=0) as store:
            bob = store.agent("bob")
            for start in range(0, count, AT_ONCE):
                bob.save_many(drafts[start : start + AT_ONCE])
            bob.flush()
            opened, rss = on_disk(place), psutil.Process().memory_info().rss
            bob.cypher("MATCH (m:Message) RETURN count(m)")
            graph, worker = bob.usage().bytes.graph, store.usage().worker.rss_bytes or 0
        closed = on_disk(place) - graph
        kb = [closed // 1024, opened // 1024, graph // 1024]
        print(f"{count} | {kb[0]} | {kb[1]} | {kb[2]} | {worker // MB} | {rss // MB}")
    with elytron.open(folder / str(COUNTS[-1]), reserve_mb=0) as store:
        bob = store.agent("bob")
        bob.archive(older_than_days=0, keep=0)
        print(f"archived: {bob.usage().bytes.archive / COUNTS[-1]:.0f} bytes a message")


def servers(folder: Path) -> None:
    for words in (["serve", "--port", "0"], ["serve", "--port", "0", "--no-dashboard"]):
        command = [sys.executable, "-m", "elytron", *words, "--store", str(folder / "served")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            print(f"{' '.join(words)}: {psutil.Process(process.pid).memory_info().rss // MB} MB")
            process.terminate()


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        agents(Path(temporary))
        servers(Path(temporary))


if __name__ == "__main__":
    main()
