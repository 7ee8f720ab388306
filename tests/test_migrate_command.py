"""`elytron migrate kuzu`: what it does and prints."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import elytron
from kuzu_databases import SPOKEN, make


def state_of(folder: Path) -> dict[str, str]:
    """A hash of each file under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a program with two agents; nothing may write to it."""
    base = tmp_path_factory.mktemp("origin")
    make(base / "bob_technique" / "kuzu.db", index=True)
    make(base / "dora" / "kuzu.db", killed=True)
    return base


def command(*arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "elytron", "migrate", *map(str, arguments)],
        cwd=cwd,
        env=dict(os.environ, COLUMNS="100"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_migrates_a_folder_of_agents(base: Path, tmp_path: Path) -> None:
    before = state_of(base)
    done = command("kuzu", base, "--zone", "Europe/Paris", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bob_technique" in done.stdout
    assert "dora" in done.stdout
    assert "embeddings of Message" in done.stdout
    assert "2 databases were left as they were" in done.stdout
    assert state_of(base) == before
    with elytron.open(tmp_path / "data" / "memory") as store:
        assert store.agents() == ["bob_technique", "dora"]


def test_the_command_prints_for_programs(base: Path, tmp_path: Path) -> None:
    done = command("kuzu", base / "dora", "--agent", "Dora D.", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)["agents"]
    assert (report["agent"], report["imported"]) == ("Dora D.", len(SPOKEN["messages"]))


def test_one_database_that_cannot_be_read_does_not_keep_the_others(
    base: Path, tmp_path: Path
) -> None:
    make(tmp_path / "origin" / "bob" / "kuzu.db")
    (tmp_path / "origin" / "ann").mkdir()
    (tmp_path / "origin" / "ann" / "kuzu.db").write_bytes(b"no")
    done = command("kuzu", tmp_path / "origin", "--json", cwd=tmp_path)
    assert done.returncode == 2
    printed = json.loads(done.stdout)
    assert [report["agent"] for report in printed["agents"]] == ["bob"]
    assert [failure["error"] for failure in printed["failed"]] == ["invalid-argument"]


def test_several_databases_do_not_go_into_one_agent(base: Path, tmp_path: Path) -> None:
    done = command("kuzu", base, "--agent", "Bob", cwd=tmp_path)
    assert done.returncode == 2
    assert "2 databases" in done.stderr
