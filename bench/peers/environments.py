"""An environment for each peer, made from fresh: `venv` and pinned, hashed packages."""

import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workload

HERE = Path(__file__).parent
FOLDER = workload.ROOT / ".venv-peers"
PLOTS = "plots"
INSTALL_MAX_S = 600
IMPORT_MAX_S = 60
_SHOWN = {"elytron", "kuzu", "mem0ai", "qdrant-client", "langgraph-checkpoint-sqlite",
          "sqlite-vec", "pysqlite3-binary", "chromadb", "apsw", "numpy"}  # fmt: skip
_INSTALLED = """
import importlib.metadata, json, pathlib, sqlite3, sys, sysconfig
tools = ("pip", "setuptools", "_distutils_hack", "distutils-precedence", "__pycache__")
site = pathlib.Path(sysconfig.get_path("purelib"))
parts = [part for part in site.iterdir() if not part.name.startswith(tools)]
files = [file for part in parts for file in (part.rglob("*") if part.is_dir() else [part])]
names = {one.metadata["Name"].lower(): one.version for one in importlib.metadata.distributions()}
names = {name: version for name, version in names.items() if name not in ("pip", "setuptools")}
size = sum(file.stat().st_size for file in files if file.is_file())
print(json.dumps({"bytes": size, "packages": names, "sqlite": sqlite3.sqlite_version}))
"""
_IMPORTED = """
import json, pathlib, time
def rss():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1])
before, start = rss(), time.perf_counter()
{sentence}
took = time.perf_counter() - start
print(json.dumps([took, (rss() - before) * 4096]))
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the scoreboard: how it is called, and what runs it."""

    title: str
    module: str
    requirements: str | None  # of the file bench/peers/requirements-….txt
    vectors: bool

    @property
    def home(self) -> Path:
        return FOLDER / (self.requirements or "nothing")

    @property
    def python(self) -> Path:
        return self.home / "bin" / "python"


ENTRIES = {
    "elytron": Entry("Elytron, words", "peer_elytron", "elytron", False),
    "elytron-vectors": Entry("Elytron, words and vectors", "peer_elytron", "elytron-vectors", True),
    "handwritten": Entry("SQLite by hand", "peer_handwritten", None, False),
    "kuzu": Entry("Kuzu, the origin's pattern", "peer_kuzu", "kuzu", False),
    "mem0": Entry("mem0", "peer_mem0", "mem0", True),
    "langgraph": Entry("LangGraph SqliteStore", "peer_langgraph", "langgraph", False),
    "langgraph-vectors": Entry(
        "LangGraph, its index on", "peer_langgraph", "langgraph-vectors", True
    ),
    "chroma": Entry("Chroma", "peer_chroma", "chroma", True),
}


def _pip(python: Path, *arguments: str | Path) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        timeout=INSTALL_MAX_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"pip ended with {done.returncode}: {done.stderr[-1000:]}")


def make(name: str | None, *, wheel: Path | None = None, reuse: bool = False) -> Path:
    """The Python of an environment with what requirements-*name*.txt says, and our wheel."""
    home = FOLDER / (name or "nothing")
    python = home / "bin" / "python"
    if reuse and (home / ".ready").exists() and wheel is None:
        return python
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n", encoding="ascii")
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=INSTALL_MAX_S)
    if name:
        pinned = HERE / f"requirements-{name}.txt"
        _pip(python, "--require-hashes", "--only-binary", ":all:", "-r", pinned)
    if wheel:
        _pip(python, "--no-deps", wheel)
    (home / ".ready").touch()
    return python


def build_wheel(folder: Path) -> Path:
    """Elytron as somebody would get it, built of this tree by the environment that runs this."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-build-isolation", "--wheel-dir", folder, workload.ROOT],
        check=True,
        capture_output=True,
        timeout=INSTALL_MAX_S,
    )  # fmt: skip
    (wheel,) = folder.glob("elytron-*.whl")
    return wheel


def installed(entry: Entry) -> dict[str, Any]:
    """Bytes and packages, less pip and setuptools; the versions that matter."""
    found = json.loads(_output(entry.python, _INSTALLED))
    packages = found["packages"]
    versions = {name: packages[name] for name in sorted(_SHOWN & set(packages))}
    return {
        "bytes": found["bytes"] if packages else 0,
        "packages": len(packages),
        "versions": versions or {"sqlite": found["sqlite"]},
    }


def imported(entry: Entry, sentence: str, runs: int) -> dict[str, Any]:
    """Milliseconds and memory of the import alone: the median of some, after one that warms up."""
    program = _IMPORTED.format(sentence=sentence)
    found = [json.loads(_output(entry.python, program)) for _ in range(runs + 1)][1:]
    return {
        "ms": statistics.median(took for took, _ in found) * 1000,
        "rss_bytes": statistics.median(rss for _, rss in found),
    }


def _output(python: Path, program: str) -> str:
    done = subprocess.run(
        [python, "-c", program],
        capture_output=True,
        text=True,
        timeout=IMPORT_MAX_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{python.parent.parent.name}: {done.stderr[-1000:]}")
    return done.stdout.splitlines()[-1]
