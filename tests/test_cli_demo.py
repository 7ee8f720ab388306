"""The commands that pour a file into a memory: `elytron demo` and `elytron import`."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import elytron
from elytron.faces import demo
from elytron.faces.asking import Question, ask
from elytron.importers.passes import BAD_MAX
from ledgers import names
from test_cli import Outcome, run

ROOT = Path(__file__).parent.parent
CONVERSATION = Path(elytron.__file__).parent / "demo" / "conversation.jsonl"
DAYS = (
    ("8 May, 2023", "I went to a pottery class yesterday.", "Lovely, what did you make?"),
    ("12 June, 2023", "My zebra ran away.", "Oh no, the striped one?"),
)


@pytest.fixture
def locomo(tmp_path: Path) -> Path:
    """A file of the LoCoMo kind: one conversation, two questions that have an answer."""
    conversation: dict[str, Any] = {"speaker_a": "Ann", "speaker_b": "Ben"}
    for number, (day, first, second) in enumerate(DAYS, 1):
        conversation[f"session_{number}_date_time"] = f"1:56 pm on {day}"
        conversation[f"session_{number}"] = [
            {"speaker": "Ann", "dia_id": f"D{number}:1", "text": first},
            {"speaker": "Ben", "dia_id": f"D{number}:2", "text": second},
        ]
    questions = [
        {"question": "Whose zebra ran away?", "answer": "Ann's", "evidence": ["D2:1"]},
        {"question": "What is a giraffe?", "answer": 42, "evidence": ["D1:2"]},
    ]
    file = tmp_path / "ann and ben.json"
    sample = {"sample_id": "conv-1", "conversation": conversation, "qa": questions}
    file.write_text(json.dumps([sample]), encoding="utf-8")
    return file


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """A file of these lines, each a text or what JSON makes one of."""

    def write(*lines: object) -> Path:
        file = tmp_path / "chat.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        return file

    return write


def message(number: int, **more: object) -> dict[str, object]:
    return {"id": f"m{number}", "role": "user", "content": f"zebra {number}", **more}


# -- demo


def test_the_demo_shows_the_answers_with_dates_and_what_they_cost(temporary):
    shown = run("demo")
    assert (shown.code, shown.err) == (0, "")
    held = len(CONVERSATION.read_text(encoding="utf-8").splitlines())
    assert re.search(rf"{held} messages saved (durably|on \w+, .*) in \d+\.\d\d s: [\d,]+ a second",
                     " ".join(shown.out.split()))  # fmt: skip
    assert len(re.findall(r"(?m)^\? ", shown.out)) == 5
    assert len(re.findall(r"(?m)^ [123]  2026-\d\d-\d\d \d\d:\d\d  (alice|marc|assistant) ",
                          shown.out)) == 15  # fmt: skip
    assert "5 of 5 found among the first 10 hits" in shown.out
    assert "expected: 89 euros (the best hit)" in shown.out
    assert re.search(r"(?m)^(alice|marc) +\w+ +\d+$", shown.out)
    assert re.search(rf"Bob +{held} .* MB +\d\.\d% +━", shown.out)


def test_the_demo_leaves_nothing_behind_and_says_so(temporary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A store that is in use is not the place for a demo.
    shown = run("demo", store=tmp_path / "mine")
    assert "temporary and is removed now" in shown.out
    assert names(tmp_path) == {"temporary"}


def test_the_demo_is_kept_in_a_store_that_is_named(temporary, tmp_path):
    place = tmp_path / "kept"
    shown = run("demo", "--store", place)
    assert f"kept in {place}" in shown.out
    with elytron.open(place) as store:
        assert store.agents() == [demo.AGENT]
    again = run("demo", "--store", place).out
    assert "454 messages were held already; none was doubled" in again
    assert "5 of 5 found" in again


def test_what_the_demo_proposes_works_as_it_stands(temporary, tmp_path, monkeypatch, locomo, jsonl):
    monkeypatch.chdir(tmp_path)
    plain = jsonl(message(1))
    for words in (("demo",), ("demo", "--store", "kept here"), ("demo", locomo), ("demo", plain)):
        shown = run(*words).out
        commands = [shlex.split(line) for line in re.findall(r"(?m)^  elytron (.*)$", shown)]
        assert len(commands) == (3 if words in (("demo", locomo), ("demo", plain)) else 4)
        for command in commands:
            outcome = run(*command)
            assert (outcome.code, outcome.err) == (0, "")
            assert outcome.out


def test_the_demo_for_programs_has_all_that_people_see(temporary):
    document = run("demo", "--json").document
    assert sorted(document) == ["graph", "import", "kept", "questions", "store", "usage"]
    assert document["kept"] is False
    poured = document["import"]
    assert poured["imported"] == 454
    assert poured["messages_per_second"] == pytest.approx(454 / poured["seconds"])
    assert [asked["rank"] for asked in document["questions"]] == [1, 1, 1, 1, 1]
    for asked in document["questions"]:
        assert asked["hits"][0]["message"]["id"] in asked["evidence"]
        assert asked["milliseconds"] > 0
    assert document["usage"][0]["messages"] == 454
    asked = document["graph"]
    assert asked["agent"] == demo.AGENT
    assert {row["who"] for row in asked["rows"]} == {"alice", "marc"}
    assert asked["rows"][0]["messages"] >= asked["rows"][-1]["messages"] > 0
    assert asked["bytes"] == document["usage"][0]["graph"]["bytes"] > 0


def test_the_demo_with_a_file_asks_the_questions_of_that_file(temporary, locomo):
    shown = run("demo", locomo).out
    assert "? Whose zebra ran away?" in shown
    assert " 1  2023-06-12 13:56  Ann  session_2  ✓ expected" in shown
    assert "✓ expected: Ann's (the best hit)" in shown
    assert "no message holds a word of this question" in shown
    assert "✗ expected: 42 (not among the first 10 hits)" in shown
    assert "1 of 2 found" in shown


def test_the_demo_with_a_file_without_questions_says_so(temporary, jsonl):
    shown = run("demo", jsonl(message(1), message(2))).out
    assert "This file brings no questions" in shown
    assert "2 messages saved" in shown
    assert re.search(r"chat +2 ", shown)


def test_a_demo_of_a_bad_file_is_refused_and_leaves_nothing(temporary, tmp_path, jsonl):
    assert run("demo", jsonl("{")).code == 2
    assert run("demo", tmp_path / "not-there").code == 3
    assert not names(temporary)


def test_a_file_system_in_memory_is_not_called_durable():
    place = Path("/dev/shm")
    if demo.memory_type(place) is None:
        pytest.skip("no file system in memory is mounted here")
    poured = demo.Poured("x", (), 10, 0.5, 20.0)
    store = SimpleNamespace(shown=str(place / "store"), path=place / "store")
    assert "tmpfs, which no power cut survives" in demo.speed(poured, store)


def test_the_rank_of_an_answer_is_that_of_its_first_evidence(folder):
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        bob.save("user", "zebra zebra", id="best", session="a")
        bob.save("user", "A zebra, and much else beside it that counts for less.", id="second")
        evidence = (("best",), ("second",), ("second", "best"), ("other",), ())
        asked = ask(store, [Question("bob", "zebra?", "yes", ids) for ids in evidence])
    assert [answer.rank for answer in asked] == [1, 2, 1, None, None]
    assert [hit.message.id for hit in asked[0].hits] == ["best", "second"]


# -- import


def test_an_import_tells_what_it_did_for_each_agent(folder, jsonl):
    file = jsonl(message(1), message(2))
    first = run("import", file, store=folder)
    assert (first.code, first.err) == (0, "")
    assert re.search(r"(?m)^chat +2 +0 +0$", first.out)
    assert "2 messages saved" in first.out
    assert re.search(r"chat +2 .* MB", first.out), "the usage"
    again = run("import", file, store=folder)
    assert re.search(r"(?m)^chat +0 +2 +0$", again.out)
    assert "Nothing was new: 2 messages were held already; none was doubled." in again.out


def test_an_import_goes_into_the_agent_that_is_named(folder, jsonl, locomo):
    run("import", jsonl(message(1)), "--agent", "bob", store=folder)
    asked = run("import", locomo, "--agent", "carol", store=folder)
    assert "1 of 2 found" in asked.out
    with elytron.open(folder) as store:
        assert store.agents() == ["bob", "carol"]


def test_a_bad_line_ends_an_import_with_its_number_and_nothing_is_imported(folder, jsonl):
    refused = run("import", jsonl(message(1), "{", message(3)), store=folder)
    assert (refused.code, refused.out) == (2, "")
    assert "line 2" in refused.err
    assert len(refused.err.splitlines()) == 1
    assert not folder.exists()


def test_bad_lines_are_skipped_when_asked_and_the_first_20_are_shown_in_order(folder, jsonl):
    bad = ["{" if n % 2 else message(n, role="[bold]\x1b[31mrobot") for n in range(2, 32)]
    shown = run("import", jsonl(message(1), *bad), "--skip-bad", store=folder)
    assert shown.code == 0
    assert re.search(r"(?m)^chat +1 +0 +30$", shown.out)
    numbers = [int(n) for n in re.findall(r"(?m)^ *(\d+)  (?:it is|role)", shown.out)]
    assert numbers == list(range(2, 22))
    assert "and 10 more; `--json` lists the first 1,000" in shown.out
    assert "\x1b" not in shown.out
    document = run("import", jsonl(message(1), *bad), "--skip-bad", "--json", store=folder).document
    (report,) = document["agents"]
    assert report["already_held"] == 1
    assert {entry["line"] for entry in report["bad"]} == set(range(2, 32))


def test_more_bad_lines_than_are_reported_are_counted(folder, jsonl):
    shown = run("import", jsonl(*["{"] * (BAD_MAX + 7), message(1)), "--format", "jsonl",
                "--skip-bad", store=folder)  # fmt: skip
    assert re.search(rf"(?m)^chat +1 +0 +{BAD_MAX + 7:,}$", shown.out)
    assert f"and {BAD_MAX + 7 - 20:,} more" in shown.out


def test_an_import_asks_some_of_the_questions_that_its_file_brings(folder, locomo):
    shown = run("import", locomo, store=folder).out
    assert re.search(r"(?m)^conv-1 +4 +0 +0 +2 questions$", shown)
    assert "? Whose zebra ran away?\n 1  2023-06-12 13:56  Ann  session_2  ✓ expected" in shown
    assert shown.count("\n 1  ") == 1
    assert "\n 2  " not in shown
    assert "1 of 2 found among the first 10 hits" in shown
    assert "giraffe" not in run("import", locomo, "--questions", "1", store=folder).out
    assert "zebra" not in run("import", locomo, "--questions", "0", store=folder).out


def test_an_import_for_programs_is_its_report(folder, locomo):
    document = run("import", locomo, "--json", store=folder).document
    assert sorted(document) == ["agents", "file", "imported", "messages_per_second", "seconds"]
    assert document["file"] == str(locomo)
    assert document["imported"] == 4
    assert document["agents"] == [
        {
            "agent": "conv-1",
            "imported": 4,
            "already_held": 0,
            "bad": [],
            "left_out": {"questions": 2},
            "memories": 0,
            "concepts": 0,
            "relations": 0,
            "what": "messages",
        }
    ]
    assert run("import", locomo, "--json", store=folder).document["messages_per_second"] is None


def test_the_format_can_be_named(folder, jsonl):
    assert run("import", jsonl(message(1)), "--format", "jsonl", store=folder).code == 0
    assert run("import", jsonl(message(1)), "--format", "locomo", store=folder).code == 2


def test_the_real_conversations_are_imported_and_asked(folder):
    file = ROOT.parent / "shared" / "data" / "locomo-dev.json"
    if not file.exists():
        pytest.skip("the LoCoMo data is not beside the project")
    shown: Outcome = run("import", file, store=folder)
    assert shown.code == 0
    assert "2,960 messages saved" in shown.out
    assert shown.out.count("\n? ") == 5
