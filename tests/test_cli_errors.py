"""The command line when something is wrong: one line on stderr, and an exit code that says what."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import elytron
from elytron import errors
from elytron.faces import exits
from ledgers import ledger_path, lock_held, names
from test_cli import Outcome, run

Run = Callable[..., Outcome]
PROGRAM = [sys.executable, "-W", "error", "-m", "elytron"]
WAIT_MAX_S = 60


@pytest.fixture
def held(folder: Path) -> Run:
    """`elytron` on a store in which bob holds one message."""
    with elytron.open(folder) as store:
        store.agent("bob").save("user", "hello", id="m1")
    return lambda *words, **more: run(*words, store=folder, **more)


def refused(outcome: Outcome, code: int) -> str:
    """The message of an error that was told as it should be."""
    assert (outcome.code, outcome.out) == (code, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("elytron: ")
    return line.removeprefix("elytron: ")


# -- the table


def test_every_error_has_an_exit_code_of_its_own_kind():
    leaves = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(leaves) > 10
    told = {code for row in exits.EXITS for code in row.codes}
    assert {leaf.code for leaf in leaves} | {"interrupted"} == told
    numbers = {leaf.__name__: exits.number(leaf.code) for leaf in leaves}
    assert numbers == {
        "ElytronError": 1,
        "InvalidArgument": 2,
        "InvalidSetting": 2,
        "NotFound": 3,
        "Conflict": 4,
        "AccessDenied": 14,
        "Busy": 5,
        "OverBudget": 6,
        "DiskFull": 6,
        "Unavailable": 7,
        "Corrupt": 8,
        "OutcomeUnknown": 9,
        "Closed": 10,
        "Forked": 10,
        "GraphUnavailable": 11,
        "DeadlineExceeded": 12,
        "EmbedderUnavailable": 13,
    }


@pytest.mark.parametrize("row", exits.EXITS, ids=str)
def test_an_error_ends_the_program_with_the_code_of_its_row(row, capsys):
    for leaf in vars(errors).values():
        if isinstance(leaf, type) and leaf.code in row.codes:

            def program(leaf: type[Exception] = leaf) -> None:
                raise leaf("it is so")

            assert exits.run(program, as_json=False) == row.number
            assert capsys.readouterr() == ("", "elytron: it is so\n")


def test_an_error_of_a_code_that_is_not_in_the_table_ends_with_1():
    assert exits.number("invented") == 1


def test_an_error_for_programs_follows_on_a_line_of_its_own(held):
    outcome = held("usage", "bbo", "--json")
    line, document = outcome.err.splitlines()
    assert (outcome.code, outcome.out) == (3, "")
    assert json.loads(document) == {
        "error": "not-found",
        "message": line.removeprefix("elytron: "),
    }


def test_bad_usage_for_programs_is_told_the_same_way():
    _, document = run("agents", "--json", "--bogus").err.splitlines()
    assert json.loads(document)["error"] == "invalid-argument"
    # A value after two dashes is no option.
    assert len(run("usage", "--bogus", "--", "--json").err.splitlines()) == 1


# -- each code, provoked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sav",), "Did you mean 'save'?"),
        (("--store", "d", "agents"), "options go after the command"),
        (("save", "bob", "user"), "Missing argument 'CONTENT'"),
        (("agents", "surplus"), "unexpected extra argument"),
        (("history", "bob", "--limit", "many"), "'many' is not a valid integer"),
        (("history", "bob", "--limit", "0"), "from 1 to 10000"),
        (("context", "bob", "x", "--max-tokens", "0"), "max_tokens"),
        (("recall", "bob", " "), "question is empty"),
        (("recall", "bob", "x", "--role", "robot"), "role 'robot' is unknown"),
        (("recall", "bob", "x", "--since", "yesterday"), "'yesterday' is no ISO 8601 time"),
        (("recall", "bob", "x", "--since", "0001-01-01"), "out of range"),
        (("save", "bob", "robot", "x"), "role 'robot' is unknown"),
        (("save", "bob", "user", ""), "content is empty"),
        (("save", "", "user", "x"), "name must not be empty"),
        (("save", "bob", "user", "x", "--at", "2026-03-02T18:04"), "has no zone"),
        (("save", "bob", "user", "x", "--at", "2026-13-02"), "is no ISO 8601 time"),
        (("save", "bob", "user", "x", "--at", "1969-12-31T00:00Z"), "before 1970"),
        (("save", "bob", "user", "x", "--metadata", "{"), "not JSON"),
        (("save", "bob", "user", "x", "--metadata", "[1]"), "not a JSON object"),
        (("save", "bob", "user", "x", "--metadata", '{"a":' * 9999), "not JSON"),
        (("save", "bob", "user", "x", "--metadata", '{"a": NaN}'), "not JSON"),
        (("save", "bob", "user", "x", "--importance", "2"), "from 0 to 1"),
        (("save", "bob", "user", "x", "--importance", "much"), "'much' is not a valid float"),
        (("archive", "bob", "--older-than-days", "-1"), "older_than_days must be a number"),
        (("archive", "bob", "--older-than-days", "nan"), "older_than_days must be a number"),
        (("archive", "bob", "--keep", "1.5"), "'1.5' is not a valid integer"),
        (("archive", "bob", "--keep", "-1"), "keep must be a number"),
        (("restore", "bob"), "say what to restore"),
        (("restore", "bob", ""), "id is empty"),
        (("restore", "bob", "--since", "then"), "'then' is no ISO 8601 time"),
        (("forget", "bob", "--yes"), "either a --user or a --session"),
        (("forget", "bob", "--user", "a", "--session", "b", "--yes"), "either a --user or"),
        (("forget", "bob", "--user", "alice"), "add --yes"),
        (("clear", "bob"), "add --yes"),
        (("pin", "bob"), "Missing argument 'ID'"),
        (("pin", "bob", ""), "id is empty"),
        (("watch", "--interval", "0"), "0 is not in the range of 0.1 to 86,400"),
        (("watch", "--interval", "nan"), "nan is not in the range"),
        (("watch", "--count", "0"), "0 is not in the range"),
        (("usage", "bob", "--prometheus"), "for the whole store"),
        (("export", "bob", "--format", "parquet"), "name one with -o FILE"),
        (("export", "bob", "--format", "csv"), "'csv' is not one of"),
        (("agents", "--store", ""), "the path is empty"),
        (("agents", "--set", "queue_max"), "not NAME=VALUE"),
        (("agents", "--set", "queue_max=x"), "`queue_max` must be a whole number"),
        (("agents", "--set", "queue_mx=1"), "did you mean `queue_max`?"),
        (("agents", "--set", "path=x"), "unknown setting `path`"),
        (("agents", "--set", "config=x"), "unknown setting `config`"),
        (("agents", "--config", "not-there.yaml"), "cannot be read"),
        (("import", "x", "--format", "csv"), "'csv' is not one of"),
        (("import", "/"), "is a folder"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_a_bad_value_ends_with_2_and_says_what_is_wrong(held, folder, words, said):
    before = names(folder)
    assert said in refused(held(*words), 2)
    assert names(folder) == before


def test_a_bad_setting_in_the_environment_or_the_file_ends_with_2(held, tmp_path):
    refused(held("agents", ELYTRON_QUEUE_MAX="none"), 2)
    file = tmp_path / "bad.yaml"
    file.write_text("a: [\nb: }\n", encoding="utf-8")
    assert "is not YAML" in refused(held("agents", "--config", file), 2)


def test_a_bare_program_shows_its_help_and_ends_with_2():
    shown = run()
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.startswith("Usage: elytron ")


def test_bytes_that_are_no_text_are_refused_on_stdin(held):
    assert "stdin is not UTF-8 at byte 2" in refused(
        held("save", "bob", "user", "-", stdin=b"ab\xff"), 2
    )


def test_what_is_not_there_ends_with_3(held, tmp_path):
    refused(held("history", "carol"), 3)
    refused(held("delete", "bob", "m2"), 3)
    refused(held("delete", "bob", "--session", "elsewhere"), 3)
    refused(held("import", tmp_path / "not-there.jsonl"), 3)
    refused(held("pin", "bob", "m2"), 3)
    refused(held("unpin", "bob", "m2"), 3)


def test_an_id_with_other_content_ends_with_4(held):
    assert "'m1'" in refused(held("save", "bob", "user", "bye", "--id", "m1"), 4)


def test_a_lock_that_stays_taken_ends_with_5(held, folder):
    with lock_held(folder):
        refused(held("save", "bob", "user", "x", "--set", "save_timeout_s=0.02"), 5)


def test_an_agent_at_its_limit_ends_with_6(held):
    small = ("--set", "max_db_size_mb=3", "--set", "wal_limit_mb=1", "--set", "auto_cleanup=false")
    content = "x" * 60_000
    outcomes = [held("save", "bob", "user", "-", *small, stdin=content) for _ in range(60)]
    assert outcomes[0].code == 0
    assert "`max_db_size_mb`" in refused(outcomes[-1], 6)


def test_a_place_that_cannot_hold_a_store_ends_with_7(tmp_path):
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    assert "is a file" in refused(run("agents", "--store", file), 7)
    assert "is a file" in refused(run("save", "bob", "user", "x", "--store", file / "below"), 7)
    refused(run("agents", "--store", tmp_path / ("x" * 300)), 7)


def test_a_file_that_cannot_be_written_ends_with_7(held, tmp_path):
    refused(held("export", "bob", "-o", tmp_path), 7)
    refused(held("export", "bob", "-o", tmp_path / "no" / "folder"), 7)


def test_a_damaged_memory_ends_with_8_and_does_not_hide_the_others(held, folder):
    held("save", "carol", "user", "hello")
    ledger_path(folder).write_bytes(b"")
    refused(held("history", "bob"), 8)
    refused(held("usage", "bob", "--json") and held("history", "bob"), 8)
    for words in (("agents",), ("usage",)):
        shown = held(*words)
        assert shown.code == 8
        assert "missing or empty" in shown.err
        assert "corrupt" in shown.out
        assert "carol" in shown.out
    damaged, sound = held("agents", "--json").document
    assert damaged["agent"] == "bob"
    assert damaged["cause"]["error"] == "corrupt"
    assert sound["name"] == "carol"


# -- what a person can type or do


BAD_BYTES = "a\udcffb"  # how an argument arrives that is not UTF-8


@pytest.mark.parametrize(
    "words",
    [
        ("save", BAD_BYTES, "user", "x"),
        ("save", "bob", BAD_BYTES, "x"),
        ("save", "bob", "user", BAD_BYTES),
        ("save", "bob", "user", "x", "--session", BAD_BYTES),
        ("save", "bob", "user", "x", "--user", BAD_BYTES),
        ("save", "bob", "user", "x", "--id", BAD_BYTES),
        ("save", "bob", "user", "x", "--at", BAD_BYTES),
        ("save", "bob", "user", "x", "--metadata", f'{{"a": "{BAD_BYTES}"}}'),
        ("history", "bob", BAD_BYTES),
        ("history", "bob", "--before", BAD_BYTES),
        ("recall", "bob", "x", "--user", BAD_BYTES),
        ("delete", "bob", BAD_BYTES),
        ("restore", "bob", BAD_BYTES),
        ("restore", "bob", "--session", BAD_BYTES),
        ("forget", "bob", "--user", BAD_BYTES, "--yes"),
        ("forget", "bob", "--session", BAD_BYTES, "--yes"),
        ("pin", "bob", BAD_BYTES),
        ("cleanup", BAD_BYTES),
        ("check", BAD_BYTES),
        ("watch", BAD_BYTES, "--count", "1"),
        ("agents", "--set", f"{BAD_BYTES}=1"),
        ("agents", "--set", f"queue_max={BAD_BYTES}"),
        ("agents", "--config", BAD_BYTES),
        (BAD_BYTES,),
    ],
    ids=lambda words: ascii(" ".join(words)),
)
def test_arguments_that_are_not_utf_8_are_refused_by_name(held, words):
    refused(held(*words), 2)


@pytest.mark.parametrize("words", [("recall", "bob"), ("context", "bob")], ids=" ".join)
def test_a_question_that_is_not_utf_8_is_asked_by_the_words_that_are(held, words):
    assert "hello" in held(*words, "hello \udcff").out


def test_a_store_s_path_that_is_not_utf_8_is_refused(tmp_path):
    message = refused(run("save", "bob", "user", "hello", "--store", tmp_path / "caf\udce9"), 2)
    assert "is not UTF-8" in message  # of a long path the beginning is shown
    assert not names(tmp_path)


def test_a_file_s_name_that_is_not_utf_8_works_and_is_shown(held, tmp_path):
    place = tmp_path / "caf\udce9"
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system has no names that are not UTF-8")
    written = held("export", "bob", "-o", place / "out.jsonl")
    assert "caf\\udce9" in written.out
    receipt = held("export", "bob", "-o", place / "out.jsonl", "--json")
    assert receipt.document["file"] == str(place / "out.jsonl")
    assert held("import", place / "out.jsonl", "--agent", "carol").code == 0


def test_a_hostile_name_in_an_error_stays_one_line_of_text(held):
    for name in ("\x1b[31mred", "two\nlines", "\x9b2J", "right\u202eleft", "[bold]x[/bold]"):
        message = held("usage", "--", name).err
        assert len(message.splitlines()) == 1
        assert not {c for c in message[:-1] if not c.isprintable()}
        told = held("usage", "--json", "--", name).err.splitlines()
        assert not {c for c in "".join(told) if not c.isprintable()}


def test_a_very_long_name_does_not_flood_the_error(held):
    assert len(held("usage", "x" * 999).err) < 400


# -- in a process of its own


def start(*words: object, **more: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*PROGRAM, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **more,
    )


def finish(process: "subprocess.Popen[str]") -> Outcome:
    out, err = process.communicate(timeout=WAIT_MAX_S)
    return Outcome(process.returncode, out, err)


def test_the_module_is_the_program(folder):
    saved = finish(start("save", "bob", "user", "hello", "--id", "m1", "--store", folder))
    assert (saved.code, saved.out, saved.err) == (0, "saved m1\n", "")
    missing = finish(start("history", "bbo", "--store", folder))
    assert missing.code == 3
    assert missing.err == f"elytron: no agent is called 'bbo' in {folder}; did you mean 'bob'?\n"
    assert finish(start("--version")).out == f"elytron {elytron.__version__}\n"


def test_the_script_that_is_installed_is_the_program():
    script = Path(sys.executable).with_name("elytron")
    if not script.exists():
        pytest.skip("the package is not installed beside this interpreter")
    shown = subprocess.run(
        [script, "--version"], capture_output=True, text=True, check=True, timeout=WAIT_MAX_S
    )
    assert shown.stdout == f"elytron {elytron.__version__}\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [("export",), ("history",), ("history", "--json")], ids=" ".join)
def test_a_reader_that_goes_away_ends_the_program_quietly(folder, words, unbuffered):
    with elytron.open(folder) as store:
        # More than any pipe holds, so that the program cannot be done before.
        store.agent("bob").save_many({"role": "user", "content": "x" * 90_000} for _ in range(9))
    more = () if words[0] == "export" else ("--limit", "9")
    more += ("--full",) if words == ("history",) else ()
    environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    process = start(words[0], "bob", *words[1:], *more, "--store", folder, env=environ)
    assert process.stdout is not None
    assert process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(WAIT_MAX_S) == exits.CLOSED_PIPE


def test_the_exit_code_stays_where_there_is_no_room_for_the_error(held, folder):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no device here is always full")
    for more in ((), ("--json",)):
        with full.open("w") as errors_to:
            result = subprocess.run(
                [*PROGRAM, "pin", "bob", "nothing", "--store", str(folder), *more],
                stdout=subprocess.PIPE,
                stderr=errors_to,
                check=False,
                timeout=WAIT_MAX_S,
            )
        assert (result.returncode, result.stdout) == (exits.number("not-found"), b"")


def test_an_output_without_room_ends_with_6(held, folder):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no device here is always full")
    for words in (("export", "bob"), ("usage",), ("usage", "--json"), ("--help",)):
        place = () if words == ("--help",) else ("--store", folder)
        with full.open("w") as output:
            result = subprocess.run(
                [*PROGRAM, *map(str, (*words, *place))],
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=WAIT_MAX_S,
            )
        assert result.returncode == 6
        first = result.stderr.splitlines()[0]
        assert first == "elytron: the output cannot be used: No space left on device"


def test_streams_that_were_closed_from_the_beginning_hurt_nobody(held, folder):
    def code(words: str) -> int:
        line = f'exec "$0" -m elytron {words} --store "$1"'
        shell = ["/bin/sh", "-c", line, sys.executable, str(folder)]
        return subprocess.run(shell, check=False, timeout=WAIT_MAX_S).returncode

    assert code("agents >&-") == 0
    assert code("agents --json >&- 2>&-") == 0
    assert code("usage carol 2>&-") == 3
    assert code("save bob user - <&- 2>&-") == 2


def test_ctrl_c_ends_with_130_and_says_what_is_saved(folder, run_script):
    printed = run_script(
        """
        import signal, subprocess, sys
        source = '''
        import signal
        from elytron import importers
        def interrupted(*_, **__):
            signal.raise_signal(signal.SIGINT)
        importers.import_file = interrupted
        from elytron.faces.cli import main
        main()
        '''.replace(chr(10) + " " * 8, chr(10))
        command = [sys.executable, "-c", source, "import", "x.jsonl", "--store", sys.argv[1]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50)
        print(done.returncode, done.stderr)
        """,
        folder,
    )
    assert printed.strip() == "130 elytron: interrupted; what was saved until then is kept"


def test_nothing_but_the_message_reaches_a_program_that_reads_errors(folder):
    process = start("usage", "bob", "--json", "--store", folder)
    outcome = finish(process)
    assert outcome.code == 3
    assert json.loads(outcome.err.splitlines()[-1])["error"] == "not-found"


def test_rich_is_not_imported_for_programs(folder, run_script):
    run_script(
        """
        import contextlib, io, sys
        from elytron.faces.cli import main
        for words in (["--version"], ["save", "bob", "user", "x"], ["usage"], ["reindex", "bob"],
                      ["recall", "bob", "x"], ["export", "bob"], ["archive", "bob"], ["cleanup"],
                      ["remember", "bob", "x"], ["memories", "bob"], ["relations", "bob"],
                      ["relate", "bob", "a", "b", "c"], ["concepts", "bob"],
                      ["concept", "bob", "a"], ["cypher", "bob", "RETURN 1"], ["graph", "bob"],
                      ["path", "bob", "a", "c"], ["check"], ["reclaim", "bob"],
                      ["watch", "--count", "1"],
                      ["clear", "bob", "--yes"]):
            more = [] if words == ["--version"] else ["--json", "--store", sys.argv[1]]
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
                main([*words, *more])
            assert out.getvalue()
        assert not {"rich", "prometheus_client", "ladybug", "kuzu"} & sys.modules.keys()
        """,
        folder,
    )


def test_a_signal_is_what_the_exit_code_of_ctrl_c_says():
    assert exits.INTERRUPTED == 128 + signal.SIGINT
    assert os.name == "nt" or exits.CLOSED_PIPE == 128 + signal.SIGPIPE


def test_what_an_error_tells_to_do_is_there_to_be_done(held):
    """There is no command `edit`; and an id may be that of a memory."""
    clash = held("save", "bob", "user", "other", "--id", "m1")
    assert (clash.code, "use a new id, or `Agent.edit()` it" in clash.err) == (4, True)
    held("remember", "bob", "Alice prefers Python", "--id", "k1")
    missing = held("delete", "bob", "k1")
    assert (missing.code, "`--memory k1`" in missing.err) == (3, True)
    assert held("delete", "bob", "--memory", "k1").code == 0
