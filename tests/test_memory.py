"""Memory that nobody uses goes back to the system."""

import ctypes
import re
import subprocess
import sys
import threading

import psutil
import pytest

from elytron.upkeep.memory import Trimmer

MB = 2**20
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="there is no malloc_trim here: the C library gives back by itself, or not at all",
)


class Steps:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_it_is_given_back_at_most_once_in_half_a_minute():
    clock = Steps()
    trimmer = Trimmer(clock)
    given_back = []
    for _ in range(90):
        clock.now_s += 1
        given_back.append(trimmer.trim())
    assert given_back == ([False] * 29 + [True]) * 3


def test_what_a_thread_used_and_freed_is_the_systems_again():
    """Method: what is kept lies scattered among it, so malloc by itself gives nothing back."""
    clock = Steps()
    trimmer = Trimmer(clock)
    process = psutil.Process()
    kept: list[bytearray] = []

    def use() -> None:
        taken = [bytearray(20_000) for _ in range(5_000)]
        kept.extend(taken[::50])

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    before = process.memory_info().rss
    clock.now_s += 60
    assert trimmer.trim()
    assert process.memory_info().rss < before - 40 * MB
    assert len(kept) == 100


ARENAS = """
import ctypes, sys, tempfile, threading
from elytron.upkeep.memory import bound_arenas

print(bound_arenas())
begun = threading.Barrier(16)

def use():
    begun.wait()
    kept = [bytes(1000) for _ in range(1000)]
    begun.wait()

threads = [threading.Thread(target=use) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.parametrize(("said", "at_most"), [(None, 2), ("1", 1)])
def test_a_program_of_ours_has_two_arenas_or_what_its_environment_says(
    tmp_path, monkeypatch, said, at_most
):
    """Method: sixteen threads that allocate at once would have an arena each."""
    if said is not None:
        monkeypatch.setenv("MALLOC_ARENA_MAX", said)
    found = tmp_path / "arenas.xml"
    done = subprocess.run(
        [sys.executable, "-c", ARENAS, str(found)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(said is None)
    assert 1 <= len(re.findall("<heap nr=", found.read_text())) <= at_most
