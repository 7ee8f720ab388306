"""The command line: every command doing its work, for people and for programs."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import elytron
from elytron import importers
from elytron.faces import exits, reference, writing
from elytron.faces.cli import main
from ledgers import names

ROOT = Path(__file__).parent.parent


class Outcome:
    """What one command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


def run(*words: object, store: Path | None = None, stdin: Any = None, **environ: str) -> Outcome:
    """Run one command in this process; an error that is not told in one line fails the test."""
    if store is not None:
        environ["ELYTRON_STORE"] = str(store)
    arguments = [str(word) for word in words]
    result = CliRunner().invoke(main, arguments, input=stdin, env=environ)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def elytron_command(folder: Path) -> Run:
    """`elytron` on the store in *folder*."""

    def command(*words: object, **more: Any) -> Outcome:
        return run(*words, store=folder, **more)

    return command


@pytest.fixture
def held(folder: Path, elytron_command: Run) -> Run:
    """The same, once bob holds two messages of alice and an answer, in two sessions."""
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        at = datetime.fromisoformat("2026-03-02T18:04:10+01:00")
        bob.save("user", "I live in Lyon.", session="web", user="alice", at=at, id="m1")
        later = at + timedelta(minutes=1)
        bob.save("assistant", "Noted, Lyon it is.", session="web", at=later, id="m2")
        bob.save("user", "I bought a disk.", session="shop", user="alice", at=later, id="m3")
    return elytron_command


# -- saving


def test_a_saved_message_is_held_as_it_was_given(elytron_command, folder):
    saved = elytron_command(
        "save", "bob", "user", "I live in Lyon.", "--session", "web", "--user", "alice",
        "--at", "2026-03-02T18:04+01:00", "--id", "m1", "--metadata", '{"channel": "web"}',
    )  # fmt: skip
    assert (saved.code, saved.out, saved.err) == (0, "saved m1\n", "")
    with elytron.open(folder) as store:
        (message,) = store.agent("bob").history()
    assert message.content == "I live in Lyon."
    assert (message.role, message.session, message.user) == ("user", "web", "alice")
    assert message.at == datetime.fromisoformat("2026-03-02T18:04+01:00")
    assert message.metadata == {"channel": "web"}


def test_a_message_is_saved_with_its_importance_and_pinned(elytron_command):
    elytron_command("save", "bob", "user", "a", "--importance", "0.9", "--pin")
    elytron_command("save", "bob", "user", "b")
    shown = elytron_command("history", "bob", "--json").document
    assert [(m["importance"], m["pinned"]) for m in shown] == [(0.9, True), (0.5, False)]


def test_saving_the_same_id_again_says_that_it_is_held(held):
    again = ("save", "bob", "user", "I live in Lyon.", "--session", "web", "--user", "alice")
    assert held(*again, "--id", "m1").out == "held already: m1\n"
    receipt = held(*again, "--id", "m1", "--json").document
    assert receipt == {"id": "m1", "new": False, "embedding": "disabled"}


def test_content_comes_from_stdin_without_its_last_newline(elytron_command):
    elytron_command("save", "bob", "user", "-", stdin="two\nlines, é\n")
    assert elytron_command("history", "bob", "--json").document[0]["content"] == "two\nlines, é"


def test_a_content_of_stdin_may_fill_the_limit_and_no_more(elytron_command):
    small = ("--set", "max_message_kb=1")
    assert elytron_command("save", "bob", "user", "-", *small, stdin="x" * 1024 + "\n").code == 0
    over = elytron_command("save", "bob", "user", "-", *small, stdin="x" * 1025)
    assert over.code == 2
    assert "more than 1024 bytes" in over.err


def test_a_value_may_begin_with_a_dash_after_two_dashes(elytron_command):
    assert elytron_command("save", "--json", "--", "-bob", "user", "--json").code == 0
    shown = elytron_command("history", "--json", "--", "-bob").document
    assert [message["content"] for message in shown] == ["--json"]


# -- reading


def test_history_shows_messages_under_their_session_and_day(held):
    shown = held("history", "bob").out.splitlines()
    assert shown == [
        "web  2026-03-02",
        "18:04  alice      I live in Lyon.",
        "18:05  assistant  Noted, Lyon it is.",
        "",
        "shop  2026-03-02",
        "18:05  alice      I bought a disk.",
    ]


def test_history_for_programs_is_the_library_s_messages(held):
    first, *others = held("history", "bob", "web", "--json").document
    assert first == {
        "id": "m1",
        "role": "user",
        "content": "I live in Lyon.",
        "at": "2026-03-02T18:04:10+01:00",
        "session": "web",
        "user": "alice",
        "metadata": {},
        "position": 0,
        "importance": 0.5,
        "pinned": False,
        "embed": None,
    }
    assert [message["id"] for message in others] == ["m2"]


def test_history_pages_back_by_the_ids_that_it_shows(held):
    newest = held("history", "bob", "--limit", "1", "--ids").out
    assert "id m3" in newest
    before = held("history", "bob", "--limit", "1", "--before", "m3", "--json").document
    assert [message["id"] for message in before] == ["m2"]


def test_an_unknown_session_is_empty_and_the_nearest_is_named(held):
    shown = held("history", "bob", "wbe")
    assert (shown.code, shown.out) == (0, "")
    assert shown.err == "no session is called 'wbe'; did you mean 'web'?\n"
    assert held("history", "bob", "wbe", "--json").document == []
    assert held("history", "bob", "web", "--before", "m1").err == "no messages\n"
    few = held("history", "bob", "wbe", "--limit", "9", "--set", "max_query_rows=9")
    assert (few.code, few.err) == (0, shown.err)


def test_sessions_are_listed_with_the_last_first(held):
    rows = [line.split() for line in held("sessions", "bob").out.splitlines()]
    assert [row[:2] for row in rows[2:]] == [["shop", "1"], ["web", "2"]]
    listed = held("sessions", "bob", "--json").document
    assert listed[1] == {
        "id": "web",
        "messages": 2,
        "first_at": "2026-03-02T17:04:10+00:00",
        "last_at": "2026-03-02T17:05:10+00:00",
    }


def test_recall_shows_the_best_hit_first_with_its_date_and_speaker(held):
    shown = held("recall", "bob", "which disk was bought?").out.splitlines()
    assert shown == [" 1  2026-03-02 18:05  alice  shop", "    I bought a disk."]


def test_recall_explains_its_scores_when_asked(held):
    plain = held("recall", "bob", "disk").out
    shown = held("recall", "bob", "disk", "--why", "--ids").out
    assert "score" not in plain
    assert "score" in shown
    assert "words" in shown
    assert "matched: disk" in shown
    assert "id m3" in shown


def test_recall_for_programs_has_the_message_the_score_and_why(held):
    (hit,) = held("recall", "bob", "disk", "--json").document
    assert sorted(hit) == [
        "archived", "kind", "matched", "memory", "message", "score", "similarity", "why",
    ]  # fmt: skip
    assert (hit["kind"], hit["memory"]) == ("message", None)
    assert hit["message"]["id"] == "m3"
    assert hit["matched"] == ["disk"]
    assert hit["why"]["words"] > 0


@pytest.mark.parametrize(
    ("only", "found"),
    [
        (("--session", "web"), {"m1", "m2"}),
        (("--user", "alice"), {"m1"}),
        (("--role", "assistant"), {"m2"}),
        (("--since", "2026-03-02T18:05+01:00"), {"m2"}),
        (("--until", "2026-03-02T17:05:00Z"), {"m1"}),
        (("--since", "2027-01-01"), set()),
        (("--session", "elsewhere"), set()),
    ],
)
def test_recall_is_narrowed_by_its_options(held, only, found):
    hits = held("recall", "bob", "Lyon", *only, "--json").document
    assert {hit["message"]["id"] for hit in hits} == found


def test_a_question_that_finds_nothing_is_no_error(held):
    shown = held("recall", "bob", "zebra")
    assert (shown.code, shown.out) == (0, "")
    assert shown.err == "nothing was found: no message holds a word of this question\n"
    assert held("recall", "bob", "zebra", "--json").document == []
    assert held("context", "bob", "zebra").code == 0
    assert held("context", "bob", "zebra", "--json").document["text"] == ""


def test_context_prints_the_text_for_a_prompt_and_nothing_else(held, folder):
    with elytron.open(folder) as store:
        expected = store.agent("bob").context("Lyon", max_tokens=100)
    assert held("context", "bob", "Lyon", "--max-tokens", "100").out == expected.text + "\n"
    document = held("context", "bob", "Lyon", "--max-tokens", "100", "--json").document
    assert document["text"] == expected.text
    assert document["tokens"] == expected.tokens
    assert [hit["message"]["id"] for hit in document["hits"]] == ["m1", "m2"]


def test_context_has_what_is_archived_where_that_is_asked_for(held):
    held("save", "bob", "user", "The zebra is in the attic")
    held("archive", "bob", "--older-than-days", "0", "--keep", "0")
    assert "attic" not in held("context", "bob", "zebra").out
    assert "attic" in held("context", "bob", "zebra", "--archived").out


def test_context_can_be_narrowed_too(held):
    document = held("context", "bob", "Lyon", "--role", "assistant", "--json").document
    assert [hit["message"]["id"] for hit in document["hits"]] == ["m2"]


def test_usage_shows_an_agent_beside_its_limit(held, folder):
    shown = held("usage", "bob", "--set", "max_db_size_mb=50").out
    assert "50.0 MB" in shown
    assert "3 messages, 2 sessions, 1 user" in shown
    assert "2026-03-02 17:04 to 2026-03-02 17:05 (UTC)" in shown
    document = held("usage", "bob", "--json").document
    with elytron.open(folder) as store:
        usage = store.agent("bob").usage()
    assert document["messages"] == usage.messages == 3
    assert document["limit_bytes"] == usage.limit_bytes
    assert document["bytes"]["file"] == usage.bytes.file
    assert document["bytes"]["total"] == document["bytes"]["file"] + document["bytes"]["wal"]
    assert document["first_at"] == "2026-03-02T17:04:10+00:00"


def test_usage_of_a_store_adds_its_agents_up(held, folder):
    held("save", "carol", "user", "hello")
    shown = held("usage").out
    assert "bob" in shown
    assert "carol" in shown
    assert "2 agents" in shown
    document = held("usage", "--json").document
    assert document["path"] == str(folder)
    assert [agent["agent"] for agent in document["agents"]] == ["bob", "carol"]
    with elytron.open(folder) as store:
        usage = store.usage()
    assert document["total_bytes"] == usage.total_bytes
    assert document["reserve_bytes"] == usage.reserve_bytes > 0
    assert "8.0 MB reserve" in shown


def test_agents_are_listed_by_name(held):
    held("save", "Carol", "user", "hello", "--at", "2026-03-09T10:00Z")
    head, _, *rows = [line.split() for line in held("agents").out.splitlines()]
    assert head[:3] == ["agent", "messages", "sessions"]
    assert [row[:5] for row in rows] == [
        ["Carol", "1", "1", "2026-03-09", "2026-03-09"],
        ["bob", "3", "2", "2026-03-02", "2026-03-02"],
    ]
    listed = held("agents", "--json").document
    assert [agent["name"] for agent in listed] == ["Carol", "bob"]
    assert sorted(listed[0]) == ["bytes", "first_at", "last_at", "messages", "name", "sessions"]


def test_an_empty_store_has_no_agents_and_costs_nothing(elytron_command, folder):
    shown = elytron_command("agents")
    assert (shown.code, shown.out) == (0, "")
    assert "holds no agents" in shown.err
    assert elytron_command("agents", "--json").document == []
    assert elytron_command("usage", "--json").document["total_bytes"] == 0
    assert "0 agents" in elytron_command("usage").out
    assert not folder.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("history", "bob"),
        ("sessions", "bob"),
        ("recall", "bob", "x"),
        ("context", "bob", "x"),
        ("usage", "bob"),
        ("export", "bob"),
        ("reindex", "bob"),
        ("delete", "bob", "m1"),
        ("delete", "bob", "--session", "web"),
        ("archive", "bob"),
        ("archive", "bob", "--dry-run"),
        ("restore", "bob", "m1"),
        ("reclaim", "bob"),
        ("cleanup", "bob"),
        ("emergency", "bob"),
        ("forget", "bob", "--user", "alice", "--yes"),
        ("clear", "bob", "--yes"),
        ("pin", "bob", "m1"),
        ("unpin", "bob", "m1"),
        ("check", "bob"),
        ("watch", "bob", "--count", "1"),
    ],
    ids=" ".join,
)
def test_an_agent_that_is_not_there_is_named_and_nothing_is_made(elytron_command, folder, words):
    refused = elytron_command(*words)
    assert (refused.code, refused.out) == (3, "")
    assert refused.err == f"elytron: no agent is called 'bob': {folder} holds none\n"
    assert not folder.exists()


def test_reading_makes_no_file_in_a_store_that_is_there(held, folder):
    before = names(folder)
    for words in (("history", "bo"), ("recall", "bo", "x"), ("usage", "bo"), ("agents",)):
        held(*words)
    assert names(folder) == before


def test_the_nearest_names_are_offered_whatever_their_case(held):
    held("save", "Bob Technique", "user", "hello")
    refused = held("usage", "BOB")
    assert refused.code == 3
    assert "did you mean 'bob'" in refused.err
    assert "did you mean 'Bob Technique'" in held("usage", "Bob Tecnique").err
    assert "did you mean" not in held("usage", "zebra").err


# -- moving and removing


def test_an_export_can_be_imported_elsewhere(held, folder, tmp_path):
    target = tmp_path / "bob.jsonl"
    printed = held("export", "bob").out
    written = held("export", "bob", "-o", target)
    assert written.out == f"wrote 3 messages to {target}\n"
    assert target.read_text(encoding="utf-8") == printed == held("export", "bob", "-o", "-").out
    other = tmp_path / "other"
    assert run("import", target, "--agent", "bob", store=other).code == 0
    assert run("export", "bob", store=other).out == printed


def test_an_export_to_a_file_gives_a_receipt_to_programs(held, tmp_path):
    target = tmp_path / "bob.jsonl"
    receipt = held("export", "bob", "-o", target, "--json").document
    assert receipt == {"messages": 3, "file": str(target)}
    lines = held("export", "bob", "--json").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["m1", "m2", "m3"]


def test_reindex_makes_an_agent_answer_in_other_languages(held):
    german = ("--set", "languages=german")
    assert held("recall", "bob", "Lyon", *german).code == 2
    assert held("reindex", "bob", *german).out == "indexed 3 messages\n"
    assert held("recall", "bob", "Lyon", *german).code == 0
    assert held("reindex", "bob", "--json").document == {"messages": 3}


def test_delete_removes_a_message_or_a_session(held):
    assert held("delete", "bob", "m1").out == "deleted 1 message\n"
    assert held("delete", "bob", "m1").code == 3
    assert held("delete", "bob", "--session", "web", "--json").document == {"messages": 1}
    assert held("delete", "bob", "--session", "web").code == 3
    assert [m["id"] for m in held("history", "bob", "--json").document] == ["m3"]


def test_delete_takes_a_message_or_a_session_but_not_both(held):
    assert held("delete", "bob").code == 2
    assert held("delete", "bob", "m1", "--session", "web").code == 2
    assert len(held("history", "bob", "--json").document) == 3


# -- settings


def test_the_store_is_the_option_then_the_environment_then_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("save", "named", "user", "x", "--store", tmp_path / "a", store=tmp_path / "b")
    run("save", "from environment", "user", "x", store=tmp_path / "b")
    run("save", "by default", "user", "x")
    for place, agent in (("a", "named"), ("b", "from environment"), ("data/memory", "by default")):
        with elytron.open(tmp_path / place) as store:
            assert store.agents() == [agent]


def test_settings_come_from_the_option_then_the_environment_then_the_file(held, tmp_path):
    file = tmp_path / "elytron.yaml"
    file.write_text("max_db_size_mb: 10\n", encoding="utf-8")

    def limit(*words: object, **environ: str) -> int:
        return held("usage", "bob", "--json", *words, **environ).document["limit_bytes"] >> 20

    assert limit() == 100
    assert limit("--config", file) == limit(ELYTRON_CONFIG=str(file)) == 10
    assert limit("--config", file, ELYTRON_MAX_DB_SIZE_MB="20") == 20
    last = ("--set", "max_db_size_mb=30", "--set", "queue_max=7")
    assert limit("--config", file, *last, ELYTRON_MAX_DB_SIZE_MB="20") == 30


# -- the page about it all


def test_the_reference_is_in_step_with_the_commands():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference.markdown(), "python -m elytron.faces.reference > docs/cli.md"


GROUPS = ("token", "migrate")


@pytest.mark.parametrize(
    "name", [*[name for name in main.commands if name not in GROUPS], "migrate kuzu"]
)
def test_every_command_explains_itself(name):
    shown = run(*name.split(), "--help")
    assert shown.code == 0
    assert shown.out.startswith(f"Usage: elytron {name} ")
    for option in ("--store", "--config", "--set", "--json"):
        assert option in shown.out
    assert run(*name.split(), "-h").out == shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_the_commands_are_those_of_the_design():
    expected = (
        "demo import migrate save history sessions recall context remember memories relate"
        " unrelate relations concepts concept related path cypher graph usage watch agents export"
        " archive restore pin unpin cleanup emergency reclaim check backup reindex embed reembed"
        " rename delete forget clear serve token mcp"
    )
    assert list(main.commands) == expected.split()


def test_help_lists_the_commands_and_exit_codes_and_fits_80_columns():
    shown = run("--help")
    assert shown.code == 0
    for name in main.commands:
        assert f"\n  {name} " in shown.out
    for row in exits.EXITS:
        assert row.meaning in shown.out
    assert not [line for line in shown.out.splitlines()[1:] if line.endswith("...")]
    assert max(map(len, shown.out.splitlines())) <= 80


def test_the_version_is_the_package_s():
    assert run("--version").out == f"elytron {elytron.__version__}\n"


def test_the_formats_are_those_of_the_importers():
    assert ("auto", *importers.FORMATS) == writing.FORMATS
