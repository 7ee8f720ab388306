"""The commands of limits: archiving, restoring, pinning, reclaiming, checking, forgetting."""

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import elytron
from elytron.ledger import files
from ledgers import contents, flip, ledger_path, names, query
from test_cli import Outcome, run

Run = Callable[..., Outcome]
WAIT_MAX_S = 60
AT = datetime(2026, 3, 2, 18, 4, tzinfo=UTC)
ALL = ("--older-than-days", "0", "--keep", "0")


@pytest.fixture
def held(folder: Path) -> Run:
    """`elytron` on a store in which bob holds 30 messages of two sessions, m0 pinned."""
    with elytron.open(folder) as store:
        store.agent("bob").save_many(
            {
                "id": f"m{n}",
                "role": "assistant" if n % 2 else "user",
                "content": f"zebra {n}",
                "session": "web" if n < 10 else "shop",
                "user": None if n % 2 else "alice",
                "at": AT,
                "pinned": n == 0,
            }
            for n in range(30)
        )
    return lambda *words, **more: run(*words, store=folder, **more)


def segments(folder: Path) -> list[Path]:
    """The archive's files of messages."""
    return sorted((files.agent_folder(folder, "bob") / "archive").glob("segment-*"))


# -- archiving


def test_a_dry_run_says_what_would_go_and_changes_nothing(held, folder):
    before = contents(folder)
    shown = held("archive", "bob", *ALL, "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    first, *lines = shown.out.splitlines()
    assert first == "Dry run: nothing was changed."
    rows = [line.split() for line in lines]
    assert ["age", "29"] in [row[:2] for row in rows]
    assert ["total", "29"] in [row[:2] for row in rows]
    assert sum(row[:2] == ["2026-03-02", "18:04"] for row in rows) == 20
    assert "and 9 more; `--json` lists them all" in lines
    assert lines[-1].startswith("29 of 30 messages would go to the archive, some ")
    after = contents(folder)
    assert {name: data for name, data in after.items() if not name.endswith(".lock")} == {
        name: data for name, data in before.items() if not name.endswith(".lock")
    }


def test_a_dry_run_for_programs_lists_every_message(held):
    report = held("archive", "bob", *ALL, "--dry-run", "--json").document
    assert report["dry_run"] is True
    assert report["reasons"] == {"age": 29}
    assert [message["id"] for message in report["leaving"]] == [f"m{n}" for n in range(1, 30)]
    first = report["leaving"][0]
    assert first["at"] == "2026-03-02T18:04:00+00:00"
    assert (first["role"], first["session"], first["reason"]) == ("assistant", "web", "age")
    assert first["bytes"] > 0
    assert (report["held"], report["archived"]) == (30, 0)


def test_what_is_archived_leaves_and_the_newest_stay(held):
    shown = held("archive", "bob", "--older-than-days", "0", "--keep", "5")
    assert shown.out.splitlines()[-1].startswith("24 of 30 messages went to the archive, some ")
    assert "Dry run" not in shown.out
    left = [message["id"] for message in held("history", "bob", "--json").document]
    assert left == ["m0", *(f"m{n}" for n in range(25, 30))]
    usage = held("usage", "bob", "--json").document
    assert (usage["messages"], usage["archived"], usage["pinned"]) == (6, 24, 1)
    assert "24 messages in 1 file" in held("usage", "bob").out


def test_archiving_without_days_or_a_number_goes_by_the_settings(held):
    assert "0 of 30 messages went" in held("archive", "bob").out
    few = ("--older-than-days", "0", "--set", "keep_messages=10", "--json")
    assert held("archive", "bob", *few).document["archived"] == 19


def test_what_is_over_a_limit_because_it_is_pinned_is_told(held):
    for n in range(1, 4):
        held("pin", "bob", f"m{n}")
    small = ("--set", "max_messages_per_agent=2", "--set", "keep_messages=0")
    document = held("cleanup", "bob", *small, "--dry-run", "--json").document[0]
    assert document["short_messages"] == 2
    shown = held("cleanup", "bob", *small, COLUMNS="120")
    assert shown.out.splitlines()[-1].split()[-1] == "2"
    assert [m["id"] for m in held("history", "bob", "--json").document] == ["m0", "m1", "m2", "m3"]


def test_an_emergency_archives_the_oldest_half(held):
    due = ("--set", "emergency_messages=20")
    dry = held("emergency", "bob", *due, "--dry-run")
    assert dry.out.startswith("Dry run: nothing was changed.\n")
    assert "would go to the archive" in dry.out
    assert len(held("history", "bob", "--json").document) == 30
    assert "15 of 30 messages went to the archive" in held("emergency", "bob", *due).out
    assert len(held("history", "bob", "--json").document) == 15


def test_an_emergency_that_is_none_says_from_how_many_messages_on_it_is_one(held):
    shown = held("emergency", "bob")
    assert (shown.code, "0 of 30 messages" in shown.out) == (0, True)
    assert shown.err == "30 messages are fewer than `emergency_messages`, 2,500: none leaves\n"


def test_a_cleanup_is_of_all_agents_with_a_row_for_each(held):
    held("save", "carol", "user", "hello")
    few = ("--set", "max_messages_per_agent=10", "--set", "keep_messages=5")
    dry = held("cleanup", *few, "--dry-run", COLUMNS="120").out.splitlines()
    assert dry[0] == "Dry run: nothing was changed."
    rows = [line.split() for line in dry[3:]]
    assert [row[:3] for row in rows] == [["bob", "30", "20"], ["carol", "1", "0"]]
    assert rows[0][3:5] == ["20", "count"]
    reports = held("cleanup", *few, "--json").document
    assert [(report["agent"], report["archived"]) for report in reports] == [
        ("bob", 20),
        ("carol", 0),
    ]


def test_a_store_without_agents_has_nothing_to_clean_up_or_check(folder):
    for words in (("cleanup",), ("check",)):
        shown = run(*words, store=folder)
        assert (shown.code, shown.out) == (0, "")
        assert "holds no agents" in shown.err
        assert run(*words, "--json", store=folder).document == []
    assert not folder.exists()


def test_one_damaged_agent_keeps_no_other_from_being_cleaned_up_or_checked(held, folder):
    held("save", "carol", "user", "hello")
    ledger_path(folder).write_bytes(b"")
    shown = held("cleanup")
    assert shown.code == 8
    assert "missing or empty" in shown.err
    assert shown.out.splitlines()[-1].startswith("carol ")
    damaged, sound = held("cleanup", "--json").document
    assert damaged["cause"]["error"] == "corrupt"
    assert sound["agent"] == "carol"
    shown = held("check")
    assert shown.code == 8
    assert "missing" in shown.out
    assert "--repair puts 1 of them right" in shown.err
    damaged, sound = held("check", "--json").document
    assert (damaged["ok"], damaged["findings"][0]["part"]) == (False, "file")
    assert (sound["agent"], sound["ok"]) == ("carol", True)


# -- coming back


@pytest.fixture
def archived(held: Run) -> Run:
    """The same, with all but m0 in the archive."""
    assert held("archive", "bob", *ALL).code == 0
    return held


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("m3",), 1),
        (("m3", "m4", "m5"), 3),
        (("--session", "web"), 9),
        (("--session", "web", "--since", "2026-03-02T18:04Z"), 9),
        (("--until", "2026-03-02T18:04Z"), 0),
        (("m3", "--session", "shop"), 0),
    ],
    ids=str,
)
def test_messages_come_back_by_id_session_and_time(archived, words, count):
    shown = archived("restore", "bob", *words)
    assert shown.out.splitlines()[0] == f"restored {count} message{'s' if count != 1 else ''}"
    assert len(archived("history", "bob", "--json").document) == 1 + count


def test_ids_that_are_not_in_the_archive_are_named_after_the_others_came_back(archived):
    shown = archived("restore", "bob", "m3", "nope", "m0")
    assert shown.code == 3
    assert shown.out.splitlines() == [
        "restored 1 message; 1 held already",
        "not in the archive: nope",
    ]
    assert shown.err == "elytron: not in the archive: 'nope'; 1 message came back\n"
    report = archived("restore", "bob", "nope", "--json").document
    assert (report["restored"], report["missing"], report["damaged"]) == (0, ["nope"], {})


def test_a_damaged_file_of_the_archive_is_named_and_ends_with_8(archived, folder):
    flip(segments(folder)[0], 150)
    restored = archived("restore", "bob", "--session", "web")
    assert restored.code == 8
    assert "restored 0 messages" in restored.out
    assert "damaged" in restored.out
    checked = archived("check", "bob")
    assert checked.code == 8
    assert "archive" in checked.out
    assert archived("check", "bob", "--json").document[0]["ok"] is False


def test_recall_finds_what_is_archived_only_when_asked_and_marks_it(archived):
    assert archived("recall", "bob", "zebra", "--json").document[0]["message"]["id"] == "m0"
    plain = archived("recall", "bob", "zebra", "--limit", "30").out
    assert "(archive)" not in plain
    found = archived("recall", "bob", "zebra", "--limit", "30", "--archived").out
    assert found.count("(archive)") == 29
    hits = archived("recall", "bob", "zebra", "--limit", "30", "--archived", "--json").document
    assert {hit["message"]["id"] for hit in hits if not hit["archived"]} == {"m0"}
    assert len(hits) == 30


def test_an_export_has_the_archive_when_asked(archived, tmp_path):
    assert len(archived("export", "bob").out.splitlines()) == 1
    whole = archived("export", "bob", "--archived").out
    assert len(whole.splitlines()) == 30
    target = tmp_path / "bob.jsonl"
    receipt = archived("export", "bob", "--archived", "-o", target, "--json").document
    assert receipt == {"messages": 30, "file": str(target)}
    assert target.read_text(encoding="utf-8") == whole


@pytest.mark.parametrize("words", [("--format", "parquet"), ()], ids=str)
def test_an_export_is_parquet_by_its_option_or_its_name(archived, tmp_path, words):
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / ("bob.out" if words else "bob.parquet")
    assert archived("export", "bob", "--archived", "-o", target, *words).code == 0
    table = parquet.read_table(target)
    assert sorted(table.column("id").to_pylist()) == sorted(f"m{n}" for n in range(30))


# -- keeping


def test_a_pinned_message_stays_until_it_is_unpinned(held):
    assert held("pin", "bob", "m7").out == "pinned m7\n"
    held("archive", "bob", *ALL)
    assert [m["id"] for m in held("history", "bob", "--json").document] == ["m0", "m7"]
    assert held("unpin", "bob", "m7", "--json").document == {"id": "m7", "pinned": False}
    assert held("unpin", "bob", "m0").out == "unpinned m0\n"
    held("archive", "bob", *ALL)
    assert held("history", "bob", "--json").document == []
    assert held("pin", "bob", "m7").code == 3


def test_reclaim_says_before_after_and_what_was_given_back(held, folder):
    with elytron.open(folder) as store:
        store.agent("bob").save_many({"role": "user", "content": "x" * 9000} for _ in range(300))
    held("delete", "bob", "--session", "default")
    rows = dict(line.split("  ", 1) for line in held("reclaim", "bob").out.splitlines())
    assert {"before", "after", "given back"} <= rows.keys()
    document = held("reclaim", "bob", "--full", "--json").document
    assert document["rebuilt"] is True
    assert document["given_back_bytes"] == max(
        0, document["before_bytes"] - document["after_bytes"]
    )


def test_a_sound_memory_passes_its_check(archived):
    shown = archived("check")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[-1].split() == ["bob", "1", "29", "0", "0"]
    (report,) = archived("check", "bob", "--json").document
    assert (report["ok"], report["messages"], report["archived"]) == (True, 1, 29)
    assert report["findings"] == []


def test_what_a_check_finds_ends_with_8_until_it_is_repaired(held, folder):
    with elytron.open(folder) as store:  # so many that they are indexed for good
        # None of them equal to what is held: of equal texts only one is found.
        more = [{"role": "user", "content": f"zebra {n}"} for n in range(100, 1000)]
        store.agent("bob").save_many(more)
    query(folder, "INSERT INTO words(words) VALUES ('delete-all')")
    found = held("check", "bob", COLUMNS="120")
    assert found.code == 8
    assert found.out.splitlines()[-1].split()[:3] == ["bob", "words", "repairable"]
    assert found.err.startswith("elytron: 1 wrong in 1 agent of 1 that were checked; --repair ")
    repaired = held("check", "bob", "--repair", COLUMNS="120")
    assert (repaired.code, repaired.err) == (0, "")
    assert repaired.out.splitlines()[-1].split()[:3] == ["bob", "words", "repaired"]
    assert held("check", "bob").code == 0
    assert len(held("recall", "bob", "zebra", "--limit", "40", "--json").document) == 40


def test_what_cannot_be_repaired_says_where_to_turn(held, folder):
    query(folder, "UPDATE messages SET content = 'other' WHERE key = 3")
    found = held("check", "bob")
    assert found.code == 8
    assert "none can be repaired: restore a backup" in found.err
    tried = held("check", "bob", "--repair", "--json")
    assert tried.code == 8
    assert "restore the rest from a backup" in tried.err
    assert tried.document[0]["ok"] is False


# -- forgetting


def test_forgetting_gives_a_receipt_that_says_what_remains(archived):
    shown = archived("forget", "bob", "--user", "alice", "--yes")
    assert (shown.code, shown.err) == (0, "")
    counts = [line.rsplit("  ", 1) for line in shown.out.splitlines()[1:3]]
    assert [[label.strip(), count.strip()] for label, count in counts] == [
        ["messages held", "1"],
        ["messages in the archive", "29"],
    ]
    assert "backups" in shown.out
    assert archived("recall", "bob", "zebra", "--archived", "--json").document == []


def test_forgetting_keeps_the_replies_when_asked(held):
    report = held("forget", "bob", "--user", "alice", "--keep-replies", "--yes", "--json").document
    assert (report["messages"], report["archived"], report["users"]) == (15, 0, 1)
    assert any("backups" in place for place in report["remaining"])
    assert {m["role"] for m in held("history", "bob", "--json").document} == {"assistant"}


def test_a_session_is_forgotten_and_the_others_stay(held):
    report = held("forget", "bob", "--session", "web", "--yes", "--json").document
    assert (report["messages"], report["sessions"]) == (10, 1)
    assert {m["session"] for m in held("history", "bob", "--json").document} == {"shop"}


def test_forgetting_who_is_not_there_says_so(held):
    for words in (("--user", "alcie"), ("--session", "wbe")):
        for more in ((), ("--json",)):
            shown = held("forget", "bob", *words, *more, "--yes")
            assert (shown.code, shown.out) == (3, "")
            assert words[1] in shown.err
    assert len(held("history", "bob", "--json").document) == 30


def test_a_memory_is_cleared_in_the_ledger_and_the_archive(archived):
    archived("save", "eve", "user", "hello")
    assert "erased from the memory of eve" in archived("clear", "eve", "--yes").out
    report = archived("clear", "bob", "--yes", "--json").document
    assert (report["messages"], report["archived"]) == (1, 29)
    usage = archived("usage", "bob", "--json").document
    assert (usage["messages"], usage["archived"]) == (0, 0)
    again = archived("clear", "bob", "--yes").out
    assert "backups" in again
    assert "erased from" not in again


@pytest.mark.parametrize(
    "words", [("forget", "bob", "--user", "alice"), ("clear", "bob")], ids=" ".join
)
def test_nothing_is_erased_where_nobody_can_be_asked(held, words):
    for more in ((), ("--json",)):
        refused = held(*words, *more, stdin="y\n")
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.startswith("elytron: nobody is there to be asked; nothing was erased")
    assert len(held("history", "bob", "--json").document) == 30


def asked(folder: Path, answer: str, *words: str) -> tuple[int, str]:
    """The exit code and the output of a program that is asked on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "elytron", *words, "--store", str(folder)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "dumb"},
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    data = b""
    with contextlib.suppress(OSError):  # EIO is how Linux says that the other end was closed
        while part := os.read(ours, 65536):
            data += part
    os.close(ours)
    return process.wait(WAIT_MAX_S), data.decode()


@pytest.mark.parametrize(
    ("words", "question"),
    [
        (("forget", "bob", "--user", "alice"), "Erase user 'alice' from the memory of 'bob' for"),
        (("forget", "bob", "--session", "web"), "Erase session 'web' from the memory of 'bob' for"),
        (("clear", "bob"), "Erase the whole memory of 'bob' for"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_on_a_terminal_it_asks_first_and_erases_on_a_yes_only(held, folder, words, question):
    code, shown = asked(folder, "n\n", *words)
    assert code == 2
    assert f"{question} good? [y/N]: " in shown
    assert "not confirmed; nothing was erased" in shown
    assert asked(folder, "\n", *words)[0] == 2
    assert asked(folder, "\x04", *words)[0] == 130  # the end of what is typed
    assert len(held("history", "bob", "--json").document) == 30
    code, shown = asked(folder, "y\n", *words)
    assert code == 0
    assert "erased from the memory of bob" in shown
    assert len(held("history", "bob", "--json").document) < 30


def test_who_is_not_there_is_told_before_anything_is_asked(held, folder):
    refused = held("clear", "bbo")
    assert refused.code == 3
    assert "did you mean 'bob'" in refused.err
    assert names(folder)
