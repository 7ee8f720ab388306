"""`elytron.migrate_store` and a server: what can go wrong on the way, and the command itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import elytron
from cutter import Cutter
from elytron.ledger.postgres.tables import TABLES
from ledgers import flip, ledger_path, query
from migrating import Place, make, moved, rows, same
from postgres_server import Server


def at(server: Server, schema: str, files: Path) -> Place:
    return Place(server.dsn(), {"files_path": str(files), "postgres_schema": schema})


def test_a_connection_that_is_cut_leaves_what_the_next_run_goes_on_with(
    postgres: Server, schema: str, tmp_path: Path
) -> None:
    """Method: the way is cut at the nth message, later in each run; the last comes to its end."""
    source, target = Place(tmp_path / "from"), at(postgres, schema, tmp_path / "files")
    with source.open() as store:
        make(store)
    with Cutter(postgres.port) as cutter:
        behind = Place(postgres.dsn(port=cutter.port), target.settings)
        for number, nth in enumerate((60, 250, 600, 900)):
            cutter.arm(nth, after=number % 2 == 0)
            with pytest.raises((elytron.Unavailable, elytron.OutcomeUnknown)):
                moved(source, behind)
            assert cutter.fired
            cutter.settle(postgres)
        cutter.arm(0)
        moved(source, behind)
    same(source, target)
    found = postgres.execute(f"SELECT messages, bytes FROM {schema}.agents")
    assert found == [(90, weighed(postgres, schema))]


def weighed(server: Server, schema: str) -> int:
    """What all rows count, by what each does."""
    return sum(
        server.execute(f"SELECT coalesce(sum({table.size}), 0)::bigint FROM {schema}.{name}")[0][0]
        for name, table in TABLES.items()
        if table.size is not None
    )


def test_a_store_whose_archives_are_elsewhere_is_not_carried_without_them(
    postgres: Server, schema: str, tmp_path: Path
) -> None:
    source = at(postgres, schema, tmp_path / "files")
    with source.open() as store:
        store.agent("bob").save("user", "hello")
    wrong = at(postgres, schema, tmp_path / "others")
    with pytest.raises(elytron.Unavailable, match="files_path"):
        moved(wrong, Place(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_from_one_schema_into_another(postgres: Server, schema: str, tmp_path: Path) -> None:
    source = at(postgres, schema, tmp_path / "from")
    target = at(postgres, f"{schema}_2", tmp_path / "to")
    with source.open() as store:
        make(store)
    moved(source, target)
    same(source, target)
    with pytest.raises(elytron.InvalidArgument, match="files_path"):
        moved(source, at(postgres, f"{schema}_3", tmp_path / "from"))


# -- the command


def command(*arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "elytron", "migrate", "store", *map(str, arguments)],
        cwd=cwd,
        env=dict(os.environ, COLUMNS="100"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def source(tmp_path: Path) -> Place:
    found = Place(tmp_path / "from")
    with found.open() as store:
        make(store)
        store.agent("al").save("user", "hello")
    return found


def test_the_command_carries_a_store_to_a_server(
    source: Place, postgres: Server, schema: str, tmp_path: Path
) -> None:
    target = at(postgres, schema, tmp_path / "files")
    settings = [f"--set={name}={value}" for name, value in target.settings.items()]
    done = command("from", target.address, *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 agents are whole in the target" in done.stdout
    assert not done.stderr
    back = command(
        target.address, "back", "bob", "--json",
        *[f"--from-set={name}={value}" for name, value in target.settings.items()],
        cwd=tmp_path,
    )  # fmt: skip
    assert back.returncode == 0, back.stderr
    printed = json.loads(back.stdout)
    (agent,) = printed["agents"]
    assert (agent["agent"], agent["messages"], agent["again"]) == ("bob", 90, False)
    assert printed["ok"]
    assert printed["behind"] == 0
    assert rows(Place(tmp_path / "back")) == rows(source)


def test_the_command_ends_with_what_kept_an_agent(source: Place, tmp_path: Path) -> None:
    path = ledger_path(source.folder)
    flip(path, path.read_bytes().index(b"zebra 77 "))
    with Place(tmp_path / "to").open() as store:
        store.agent("al").save("user", "other")
    done = command("from", "to", cwd=tmp_path)
    assert done.returncode == 8
    assert "of messages is damaged" in done.stderr
    assert "other content" in done.stdout
    assert "zebra" not in done.stdout + done.stderr
    stray = source.folder / "agents" / "stray-1"
    stray.mkdir()
    (stray / "ledger.db").write_bytes(b"What is this?")
    told = command("from", "to", "al", "--json", cwd=tmp_path)
    assert told.returncode == 4
    assert not json.loads(told.stdout.splitlines()[0])["left_out"]
    query(source.folder, "DELETE FROM messages WHERE id = 'm77'")
    told = command("from", "to-2", cwd=tmp_path)
    assert told.returncode == 8
    assert str(stray.relative_to(tmp_path)) in told.stdout
    assert "2 agents are whole" in told.stdout
