"""Servers with workers: those that fork with a store open, and those that start fresh ones."""

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import elytron
from ledgers import held

PAGE = Path(__file__).parents[1] / "docs" / "processes.md"
WORKERS = 4
WAIT_S = 60


def programs(name: str) -> list[str]:
    """The programs of the page that begin with this name."""
    found = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return [text for called, text in found if called == name]


PREFORKING = """
import os, sys, warnings, elytron

warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is the point
folder, workers = sys.argv[1], int(sys.argv[2])
store = elytron.open(folder)
bob = store.agent("bob")
bob.save("user", "From the parent, before", id="before")
bob.cypher("RETURN 1 AS one")
children = []
for number in range(workers):
    child = os.fork()
    if child:
        children.append(child)
        continue
    try:
        bob.save("user", "By the parent's store")
    except elytron.Forked as error:
        assert f"its fork {os.getpid()}: open the store anew" in str(error), error
    else:
        os._exit(2)
    store.close()  # harmless
    with elytron.open(folder) as anew:
        mine = anew.agent("bob")
        for n in range(20):
            assert mine.save("user", f"Worker {number} says {n}", id=f"{number}-{n}").new
        assert mine.recall(f"worker {number}")
        assert mine.cypher("MATCH (m:Message {id: 'before'}) RETURN count(m) AS n") == [{"n": 1}]
    sys.exit(0)
for n in range(20):
    bob.save("user", f"The parent says {n}", id=f"parent-{n}")
for child in children:
    _, status = os.waitpid(child, 0)
    assert status == 0, status
held = bob.usage().messages
assert bob.cypher("MATCH (m:Message) RETURN count(m) AS n") == [{"n": held}]
store.close()
print(held)
"""


def test_workers_forked_with_a_store_open_open_it_anew_and_leave_the_parent_whole(
    folder: Path, run_script: Callable[..., str]
) -> None:
    assert run_script(PREFORKING, folder, WORKERS) == f"{1 + 20 * (WORKERS + 1)}\n"
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        shown = list(held(bob))
        for who in ("parent", *map(str, range(WORKERS))):
            ours = [key for key in shown if key.startswith(f"{who}-")]
            assert ours == [f"{who}-{n}" for n in range(20)]
        assert bob.check().ok


PRELOADING = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
sys.path.insert(0, os.getcwd())
from memory import store

first = store()
assert store() is first, "opened once"
first.agent("Bob").save("system", "The server has started.")
children = []
for number in range(4):
    child = os.fork()
    if child:
        children.append(child)
        continue
    assert store() is not first, "opened anew"
    assert store() is store()
    for n in range(10):
        store().agent("Bob").save("user", f"Worker {number} says {n}")
    sys.exit(0)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
assert store() is first
print(store().agent("Bob").usage().messages)
"""


def test_the_recipe_for_servers_that_fork_works_as_printed(tmp_path: Path) -> None:
    """Nothing is closed by hand, and nobody is warned of a store that was never closed."""
    (memory,) = programs("memory.py")
    (tmp_path / "memory.py").write_text(memory, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELOADING],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "41\n", "")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str, Path]]:
    """The page's application under uvicorn with two workers: its process, its URL, its store."""
    (app,) = [text for text in programs("app.py") if "lifespan" in text]
    (tmp_path / "app.py").write_text(app, encoding="utf-8")
    with socket.socket() as chosen, (tmp_path / "log").open("wb") as log:
        # Kept, so that nobody else is given that port; the server may have it beside us.
        chosen.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        chosen.bind(("127.0.0.1", 0))
        port = str(chosen.getsockname()[1])
        if sys.platform != "linux":  # where two may not have one address
            chosen.close()
        command = [sys.executable, "-m", "uvicorn", "app:app", "--workers", "2", "--port", port]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        try:
            yield process, f"http://127.0.0.1:{port}", tmp_path / "data" / "memory"
        finally:
            if process.poll() is None:
                for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                    one.kill()
                process.wait(timeout=WAIT_S)


def post(url: str, content: str) -> bool:
    """Save a message; False if no worker took it."""
    asked = urllib.request.Request(f"{url}/Bob/messages?content={content}", method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=WAIT_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def until_taken(url: str, content: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not post(url, content):
        assert time.monotonic() < deadline, "no worker took it"
        time.sleep(0.05)


def workers_of(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(process.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]


def test_the_recipe_for_uvicorn_works_as_printed_though_a_worker_is_killed(
    served: tuple["subprocess.Popen[bytes]", str, Path],
) -> None:
    process, url, folder = served
    until_taken(url, "first")
    assert all([post(url, f"number-{n}") for n in range(30)])
    victim, *others = workers_of(process)
    assert others
    victim.kill()
    for n in range(30):
        until_taken(url, f"after-{n}")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=WAIT_S) in (0, -signal.SIGTERM)
    with elytron.open(folder) as store:
        saved = list(held(store.agent("Bob")).values())
        assert store.agent("Bob").check().ok
    assert set(saved) == {
        "first",
        *(f"{when}-{n}" for when in ("number", "after") for n in range(30)),
    }
