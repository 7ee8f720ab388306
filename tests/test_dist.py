"""What is given to others: a wheel and an sdist that hold what they should, and that work."""

import email
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import elytron

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "elytron"
STEM = f"elytron-{elytron.__version__}"
INFO = f"{STEM}.dist-info"
PROGRAM = """
import elytron, elytron.faces.cli
with elytron.open("memory") as store:
    store.agent("Bob").save("user", "I live in Lyon.", user="alice")
with elytron.open("memory") as store:
    print(store.agent("Bob").recall("who lives in Lyon?")[0].message.content)
print(elytron.__file__)
"""

pytestmark = pytest.mark.skipif(
    not PACKAGE.is_dir(), reason="the source was removed, so there is nothing to build from"
)


class Built(NamedTuple):
    wheel: Path
    sdist: Path


def run(*command: object, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(tree: Path, target: Path, *kinds: str) -> None:
    named = [word for kind in kinds for word in ("-t", kind)]
    run(sys.executable, "-m", "hatchling", "build", "-d", target, *named, folder=tree)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    target = tmp_path_factory.mktemp("dist")
    build(ROOT, target, "sdist", "wheel")
    return Built(target / f"{STEM}-py3-none-any.whl", target / f"{STEM}.tar.gz")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    held = set(contents(built.wheel))
    source = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in held if not name.startswith(INFO)} == source
    assert {
        "elytron/py.typed",
        "elytron/demo/conversation.jsonl",
        "elytron/faces/dashboard/style.css",
        f"{INFO}/licenses/LICENSE",
    } <= held


def test_the_wheel_says_what_it_is(built: Built) -> None:
    held = contents(built.wheel)
    said = email.message_from_bytes(held[f"{INFO}/METADATA"])
    assert said["Version"] == elytron.__version__
    assert said["License-Expression"] == "MIT"
    assert said["Requires-Python"] == ">=3.11"
    assert {"all", "client", "kuzu", "mcp", "server", "wordllama"} <= set(
        said.get_all("Provides-Extra", [])
    )
    assert said.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")
    assert b"elytron = elytron.faces.cli:main" in held[f"{INFO}/entry_points.txt"]


def test_the_sdist_holds_all_that_the_project_is_made_of(built: Built) -> None:
    """Tests, pages, pins and benches too: whoever has it can check what is promised."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so nothing says which files are the project's")
    project = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    with tarfile.open(built.sdist) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    assert held == project | {"PKG-INFO"}


def test_the_sdist_makes_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as file:
        file.extractall(tmp_path, filter="data")
    build(tmp_path / STEM, tmp_path / "again", "wheel")
    assert contents(tmp_path / "again" / built.wheel.name) == contents(built.wheel)


def test_the_wheel_works_where_it_is_installed(built: Built, tmp_path: Path) -> None:
    """Before all else on the path, as the environment of the tests has the source."""
    place = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(
        *(*pip, "install", "--quiet", "--no-index", "--no-deps", "--target", place, built.wheel),
        folder=tmp_path,
    )
    command = place / ("Scripts" if sys.platform == "win32" else "bin") / "elytron"
    said = run(command, "--version", folder=tmp_path, PYTHONPATH=str(place))
    assert said == f"elytron {elytron.__version__}\n"
    printed = run(
        *(sys.executable, "-W", "error", "-c", PROGRAM), folder=tmp_path, PYTHONPATH=str(place)
    )
    answer, origin = printed.splitlines()
    assert answer == "I live in Lyon."
    assert Path(origin).is_relative_to(place)
