"""
A disk that is really full: nothing acknowledged is lost, and with room again all goes on.

Method: a process of its own, in a namespace in which it may mount a small file system of memory.
"""

import functools
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
MOUNTED = 'mount -t tmpfs -o size=12m none "$1" && shift && exec "$@"'
BEGIN = """
    import os, sys
    from pathlib import Path
    disk = Path(sys.argv[1]); sys.path.insert(0, sys.argv[2])
    import elytron
    from elytron import DiskFull, ElytronError, OutcomeUnknown
    from embedders import Hashing, by_hand, check_vectors, covered

    SETTINGS = dict(wal_limit_mb=1, auto_cleanup=False, link_concepts=False)
    TEXT = "tea with milk " * 6000  # 84 KB
    acknowledged = set()

    def save(bob, name, text=TEXT):
        bob.save("user", f"{name} is here. {text}", id=name)
        acknowledged.add(name)

    def refused(work):
        try:
            return work() and None
        except (DiskFull, OutcomeUnknown) as error:
            assert "free some" in str(error) or "again" in str(error), repr(error)
            return error

    def fill():
        # to the last byte
        with (disk / "ballast").open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    pass
        assert os.statvfs(disk).f_bavail == 0

    def check_all(bob):
        found = [message.id for message in bob.messages(archived=True)]
        assert len(found) == len(set(found))
        assert acknowledged <= set(found)
        report = bob.check()
        assert report.ok, report.findings
"""
END = """
    with elytron.open(disk / "store", **SETTINGS) as store:
        check_all(store.agent("bob"))
    print("done")
"""


@functools.cache
def why_not() -> str | None:
    """Why this system lets us mount nothing; None if it does."""
    if shutil.which("unshare") is None:
        return "there is no `unshare`, with which a small file system could be mounted"
    tried = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return f"no small file system can be mounted: {tried.stderr}" if tried.returncode else None


def run(tmp_path: Path, work: str) -> None:
    """Do this on a file system of 12 MB."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    disk = tmp_path / "disk"
    disk.mkdir()
    source = "".join(textwrap.dedent(part) for part in (BEGIN, work, END))
    script = [sys.executable, "-W", "error", "-c", source, str(disk), HERE]
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", MOUNTED, "sh", str(disk), *script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.stdout == "done\n", done.stderr[-4000:]


SAVING = """
    with elytron.open(disk / "store", reserve_mb=2, **SETTINGS) as store:
        bob = store.agent("bob")
        for number in range(2000):
            if error := refused(lambda: save(bob, f"m{number}")):
                break
        assert isinstance(error, DiskFull | OutcomeUnknown) and len(acknowledged) > 30
        for number in range(20):
            error = refused(lambda: save(bob, f"more-{number}")) or error
        refused(lambda: bob.save_many([{"role": "user", "content": TEXT}] * 3))
        # It can still be read, and cleaned up with what was kept for that.
        assert bob.get("m3").content.endswith(TEXT)
        assert bob.recall("m5", limit=3)
        report = bob.emergency_cleanup()
        assert report.archived >= len(acknowledged) // 3, report
        check_all(bob)
        for number in range(10):
            save(bob, f"after-{number}")
        bob.flush()
        assert (disk / "store" / "reserve").stat().st_size == 2 << 20
        check_all(bob)
"""


def test_a_full_disk_refuses_saves_and_an_emergency_cleanup_makes_room(tmp_path: Path) -> None:
    """`reserve_mb` is what the segments are written into."""
    settings = SAVING.replace("SETTINGS", "(SETTINGS | dict(emergency_messages=20))")
    run(tmp_path, settings)


UPKEEP = """
    from moved import ALL
    with elytron.open(disk / "store", reserve_mb=0, **SETTINGS) as store:
        bob = store.agent("bob")
        for number in range(60):
            save(bob, f"m{number}", "tea " * 1000)
        bob.archive(older_than_days=0, keep=40)
        fill()
        works = [
            lambda: bob.archive(older_than_days=0, keep=5),
            lambda: bob.restore(["m1"]),
            lambda: bob.reclaim(full=True),
            lambda: bob.save_many([{"role": "user", "content": TEXT}] * 3),
            lambda: bob.remember(TEXT),
            lambda: bob.export(disk / "exported.jsonl"),
        ]
        met = [refused(work) for work in works]
        assert met[0] and met[-1] and sum(map(bool, met)) > 2, met
        assert not list(disk.glob("exported*"))
        check_all(bob)
        (disk / "ballast").unlink()
        for work in works:
            work()
        bob.delete("m1")
        acknowledged.discard("m1")
        check_all(bob)
        save(bob, "afterwards")
"""


def test_upkeep_on_a_full_disk_loses_nothing_and_goes_on_with_room(tmp_path: Path) -> None:
    run(tmp_path, UPKEEP)


EMBEDDING = """
    settings = SETTINGS | dict(reserve_mb=0, enable_embeddings=True, embed_batch_max=8)
    with elytron.open(disk / "store", embedder=Hashing(dim=512), **settings) as store:
        bob = by_hand(store.agent("bob"))
        for number in range(200):
            save(bob, f"m{number}", f"tea for all of us, {number} times")
        fill()
        assert refused(bob.embed)
        check_vectors(bob)
        assert len(bob.history(limit=500)) >= 200
        (disk / "ballast").unlink()
        bob.embed()
        check_vectors(bob)
        assert set(covered(bob)) == acknowledged
        check_all(bob)
"""


def test_embedding_on_a_full_disk_loses_no_vector_and_goes_on_with_room(tmp_path: Path) -> None:
    run(tmp_path, EMBEDDING)


GRAPH = """
    COUNT = "MATCH (m:Message) RETURN count(m) AS n"
    with elytron.open(disk / "store", reserve_mb=0, **SETTINGS) as store:
        bob = store.agent("bob")
        for number in range(30):
            save(bob, f"m{number}", "tea for all of us")
        if sys.argv[-1] == "built":
            assert bob.cypher(COUNT) == [{"n": 30}]
            save(bob, "late")
        fill()
        for _ in range(3):
            try:
                bob.cypher(COUNT)
            except ElytronError as error:
                full = DiskFull | OutcomeUnknown | elytron.GraphUnavailable
                assert isinstance(error, full), repr(error)
        assert len(bob.history(limit=100)) == len(acknowledged)
        (disk / "ballast").unlink()
        assert bob.cypher(COUNT) == [{"n": len(acknowledged)}]
        save(bob, "afterwards")
        assert bob.cypher(COUNT) == [{"n": len(acknowledged)}]
        check_all(bob)
"""


@pytest.mark.parametrize("built", [False, True], ids=["new", "built"])
def test_a_graph_on_a_full_disk_costs_an_answer_at_most(tmp_path: Path, built: bool) -> None:
    run(tmp_path, GRAPH.replace('sys.argv[-1] == "built"', str(built)))
