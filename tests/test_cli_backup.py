"""The commands `backup` and `restore --from`: what they print, and how they end."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import elytron
from backups import AT, home, make
from ledgers import contents, ledger_path
from test_cli import Outcome, run

Run = Callable[..., Outcome]
WAIT_MAX_S = 60


@pytest.fixture
def held(folder: Path) -> Run:
    """`elytron` on a store in which al and bob hold twenty messages each, and ten archived."""
    make(folder)
    return lambda *words, **more: run(*words, **{"store": folder, **more})


def test_a_backup_and_a_restore_from_it(held, tmp_path):
    made = held("backup", tmp_path / "backup")
    assert (made.code, made.err) == (0, "")
    rows = [line.split() for line in made.out.splitlines()]
    assert ["al", "copied", "20", "10"] in [row[:4] for row in rows]
    assert made.out.splitlines()[-1].startswith("2 agents copied, ")
    again = held("backup", tmp_path / "backup", "bob")
    assert ["bob", "unchanged", "20", "10"] in [line.split()[:4] for line in again.out.splitlines()]
    back = held("restore", "--from", tmp_path / "backup", store=tmp_path / "new")
    assert (back.code, back.err) == (0, "")
    assert ["bob", "restored", "20", "10"] in [line.split()[:4] for line in back.out.splitlines()]
    assert held("agents", "--json", store=tmp_path / "new").document[0]["messages"] == 20
    again = held("restore", "--from", tmp_path / "backup", store=tmp_path / "new")
    assert (again.code, again.out.count("the same")) == (0, 2)


def test_documents_for_programs(held, tmp_path):
    made = held("backup", tmp_path / "backup", "--json").document
    assert made.keys() == {"path", "at", "agents", "failed", "removed", "kept", "ok"}
    assert made["ok"] is True
    assert [(one["agent"], one["copied"], one["messages"]) for one in made["agents"]] == [
        ("al", True, 20),
        ("bob", True, 20),
    ]
    back = held("restore", "--from", tmp_path / "backup", "al", "--json", store=tmp_path / "new")
    assert back.document["agents"][0]["how"] == "new"
    assert [one["agent"] for one in back.document["agents"]] == ["al"]
    assert back.document["dry_run"] is False


def test_of_a_damaged_agent_the_others_are_backed_up_and_it_ends_with_8(held, folder, tmp_path):
    ledger_path(folder).write_bytes(b"")
    made = held("backup", tmp_path / "backup")
    assert made.code == 8
    assert "not done" in made.out
    assert "copied" in made.out
    assert made.err.startswith("elytron: ")
    told = held("backup", tmp_path / "backup", "--json")
    assert told.code == 8
    assert told.document["failed"][0]["cause"]["error"] == "corrupt"
    assert told.document["ok"] is False


def test_a_whole_memory_is_refused_then_replaced_and_its_files_are_named(held, folder, tmp_path):
    held("backup", tmp_path / "backup")
    held("save", "bob", "user", "new")
    refused = held("restore", "--from", tmp_path / "backup")
    assert refused.code == 4
    assert "--replace" in refused.err
    due = held("restore", "--from", tmp_path / "backup", "bob", "--replace", "--dry-run")
    assert due.out.startswith("Dry run")
    assert "to replace" in due.out
    done = held("restore", "--from", tmp_path / "backup", "bob", "--replace")
    assert done.code == 0
    (aside,) = home(folder).glob("replaced-*")
    assert aside.name in done.out.replace("\n", "").replace(" ", "")
    with elytron.open(folder) as store:
        assert store.agent("bob").usage().messages == 20


def test_a_damaged_memory_is_salvaged_and_its_files_are_named(held, folder, tmp_path):
    held("backup", tmp_path / "backup")
    ledger_path(folder).write_bytes(b"")
    done = held("restore", "--from", tmp_path / "backup", "bob")
    assert (done.code, "salvaged" in done.out) == (0, True)
    assert held("check", "bob").code == 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("backup",), 2, "Missing argument"),
        (("backup", "{store}/in"), 2, "store's own folder"),
        (("backup", "{tmp}"), 2, "no backup and not empty"),
        (("backup", "{tmp}/b", "eve"), 3, "no agent called 'eve'"),
        (("backup", "{tmp}/b", "--store", "{tmp}/none"), 3, "no agents"),
        (("restore",), 2, "Missing argument AGENT"),
        (("restore", "bob", "--replace"), 2, "go with --from"),
        (("restore", "bob", "--dry-run"), 2, "go with --from"),
        (("restore", "--from", "{tmp}/b", "--session", "s0"), 2, "go without --from"),
        (("restore", "--from", "{tmp}/none"), 3, "is no backup"),
        (("restore", "--from", "{store}", "bob"), 3, "is no backup"),
        (("agents", "--store", "{tmp}/backup"), 7, "restore --from"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_and_changes_nothing(
    held, folder, tmp_path, words, code, says
):
    held("backup", tmp_path / "backup")
    before = contents(tmp_path)
    told = held(*[word.format(store=folder, tmp=tmp_path) for word in words])
    assert told.code == code
    assert says in told.err
    assert len(told.err.splitlines()) == 1
    assert contents(tmp_path) == before


def test_restoring_from_the_archive_is_as_before(held):
    done = held("restore", "bob", "m1", "m2")
    assert (done.code, done.out.strip()) == (0, "restored 2 messages")
    assert held("restore", "bob", "--since", AT.isoformat(), "--json").document["restored"] == 8


def test_the_command_runs_as_a_program_too(held, folder, tmp_path):
    """In a process of its own, while this one has the store open and saves to it."""
    with elytron.open(folder) as store:
        store.agent("bob").save("user", "before")
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "elytron", "backup", str(tmp_path / "backup"),
             "--store", str(folder)],
            capture_output=True, text=True, timeout=WAIT_MAX_S, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        store.agent("bob").save("user", "after")
    report = elytron.restore_backup(tmp_path / "backup", tmp_path / "new")
    assert [one.messages for one in report.agents] == [20, 21]


def test_a_dry_run_finds_a_backup_good_though_the_memory_has_gone_on(held, tmp_path):
    held("backup", tmp_path / "backup")
    held("save", "bob", "user", "new")
    tried = held("restore", "--from", tmp_path / "backup", "--dry-run")
    assert (tried.code, tried.err) == (0, "")
    assert tried.out.startswith("Dry run: the backup was verified, and nothing was changed.")
    assert "needs --replace" in tried.out
    told = held("restore", "--from", tmp_path / "backup", "--dry-run", "--json").document
    assert [one["how"] for one in told["agents"]] == ["same", "differs"]
    assert (told["failed"], told["ok"]) == ([], True)


def test_a_dry_run_never_calls_a_damaged_backup_verified(held, tmp_path):
    held("backup", tmp_path / "backup")
    segment = next((tmp_path / "backup").rglob("segment-*"))
    segment.write_bytes(segment.read_bytes()[:-1] + b"!")
    for store in ({}, {"store": tmp_path / "new"}):
        tried = held("restore", "--from", tmp_path / "backup", "--dry-run", **store)
        assert tried.code == 8
        assert "verified" not in tried.out
        assert tried.out.startswith("Dry run: nothing was changed. 1 agent would not come back")
