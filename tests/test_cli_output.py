"""What reaches a person's eyes: hostile text, widths, terminals and pipes."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.text import Text

import elytron
from elytron.faces.columns import NARROW
from elytron.faces.matches import Matches
from elytron.faces.terminal import show
from elytron.faces.visible import clip, clip_name, human_bytes, json_safe, one_line, visible
from elytron.records import Hit, Message
from test_cli import Outcome, run

WAIT_MAX_S = 60
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FAMILY = "👩‍👩‍👧‍👦"
HOSTILE = {
    "markup": "[bold red]not red[/bold red] [link=http://x.example]here[/link] [/] :smile:",
    "escape": "before\x1b[2J\x1b]0;title\x07\x1b[31mafter",
    "c1": "a\x9b31mb\x85c\x90d",
    "return": "safe\rHIDDEN\x08\x08\x0b\x0c\x7f",
    "direction": "user\u202eevil\u2066\u2069\u202c",
    "hebrew": "שלום עולם, مرحبا بالعالم",
    "emoji": f"{FAMILY} 🏳️‍🌈 ok",
    "wide": "東京は日本の首都です" * 20,
    "long": "word " * 2000,
    "unbroken": "x" * 10_000,
    "lines": "one\ntwo\r\nthree\n\n\ttabbed\u2028same",
}


@pytest.fixture
def held(folder: Path) -> Callable[..., Outcome]:
    """`elytron` on a store in which bob holds every hostile text, also as names."""
    at = datetime.fromisoformat("2026-03-02T18:04:10+01:00")
    with elytron.open(folder) as store:
        bob = store.agent("bob")
        for name, text in HOSTILE.items():
            bob.save("user", f"zebra {text}", session=name, id=name, at=at, user="alice")
        bob.save("user", "zebra", session="[bold]s[/bold]", user="[red]u[/red]", id="names", at=at)
        bob.save("user", "zebra", session="東" * 200, user="京" * 200, id="wide names", at=at)
        store.agent("[red]agent").save("user", "zebra")
        store.agent("n" * 1000).save("user", "zebra")
    return lambda *words, **more: run(*words, store=folder, **more)


SHOWN = (
    ("history", "bob"),
    ("history", "bob", "--full", "--ids"),
    ("sessions", "bob"),
    ("recall", "bob", "zebra", "--limit", "20", "--why", "--ids"),
    ("recall", "bob", "zebra", "--limit", "20", "--full"),
    ("usage",),
    ("usage", "bob"),
    ("agents",),
    ("archive", "bob", "--older-than-days", "0", "--keep", "0", "--dry-run"),
    ("cleanup", "--dry-run"),
    ("check",),
    ("embed", "--embedder", "wordllama"),
    ("usage", "bob", "--set", "embedder=wordllama"),
    ("watch", "--count", "1"),
)


@pytest.mark.parametrize("columns", [20, 44, 79, 80, 120, 300])
@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_what_is_printed_is_text_that_fits(held, words, columns):
    shown = held(*words, COLUMNS=str(columns))
    assert (shown.code, shown.err) == (0, "")
    assert not {c for c in shown.out if c != "\n" and c in visible_controls()}
    room = min(max(columns, 44), 120)
    for line in shown.out.splitlines():
        assert cell_len(line) <= room
        assert line == line.rstrip()


def visible_controls() -> set[str]:
    """Every character that `visible` escapes."""
    codes = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
    codes += [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    return set(map(chr, codes))


def test_stored_text_is_shown_as_it_is_but_for_what_a_terminal_would_obey(held):
    shown = held("history", "bob", COLUMNS="120").out
    assert HOSTILE["markup"] in shown
    assert "before\\x1b[2J\\x1b]0;title\\x07\\x1b[31mafter" in shown
    assert "a\\x9b31mb\\x85c\\x90d" in shown
    assert "safe\\x0dHIDDEN\\x08\\x08\\x0b\\x0c\\x7f" in shown
    assert "user\\u202eevil\\u2066\\u2069\\u202c" in shown
    assert HOSTILE["hebrew"] in shown
    assert HOSTILE["emoji"] in shown
    assert "[bold]s[/bold]  2026-03-02" in shown


def test_no_letter_of_a_long_text_is_lost_when_it_is_shown_whole(held):
    shown = held("history", "bob", "unbroken", "--full", COLUMNS="80").out
    assert shown.count("x") == 10_000
    assert (
        held("recall", "bob", "zebra", "--session", "unbroken", "--full").out.count("x") == 10_000
    )
    assert held("history", "bob", "wide", "--full").out.count("首") == 20


def test_a_long_text_is_cut_and_says_by_how_much(held):
    shown = held("history", "bob", "unbroken").out
    assert shown.count("x") == 1000 - len("zebra ")
    assert "… (9,006 more" in shown


def test_a_hit_is_cut_to_where_the_words_of_the_question_stand(folder):
    with elytron.open(folder) as store:
        store.agent("bob").save("user", "word " * 1000 + "the needle is here" + " word" * 1000)
    shown = run("recall", "bob", "needle", store=folder).out
    assert "needle is here" in shown
    assert len(shown) < 700


@pytest.mark.parametrize("words", [("history", "bob"), ("recall", "bob", "zebra")], ids=" ".join)
def test_json_gives_back_exactly_what_was_stored(held, words):
    document = held(*words, "--json", "--limit", "20").document
    messages = [entry.get("message", entry) for entry in document]
    contents = {message["id"]: message["content"] for message in messages}
    assert {name: contents[name] for name in HOSTILE} == {
        name: f"zebra {text}" for name, text in HOSTILE.items()
    }


def test_json_holds_no_character_that_a_terminal_would_obey(held):
    for words in (("history", "bob"), ("agents",), ("usage",), ("context", "bob", "zebra")):
        shown = held(*words, "--json").out
        assert not {c for c in shown[:-1] if c in visible_controls()}


def test_a_narrow_table_keeps_names_and_numbers(held):
    wide, narrow = (held("agents", COLUMNS=str(n)).out for n in (NARROW, NARROW - 1))
    assert "first (UTC)" in wide
    assert "first (UTC)" not in narrow
    assert "bob" in narrow
    assert "last (UTC)" in narrow


def test_output_that_the_encoding_lacks_is_escaped_and_never_fails(folder):
    with elytron.open(folder) as store:
        store.agent("bob").save("user", "déjà vu 東 ✓")

    def printed(*words: str) -> bytes:
        return subprocess.run(
            [sys.executable, "-m", "elytron", *words, "--store", str(folder)],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            check=True,
            timeout=WAIT_MAX_S,
        ).stdout

    assert b"d\\xe9j\\xe0 vu \\u6771 \\u2713" in printed("history", "bob")
    assert b"===" not in printed("usage")
    # JSON is UTF-8 by its definition.
    (message,) = json.loads(printed("history", "bob", "--json").decode("utf-8"))
    assert message["content"] == "déjà vu 東 ✓"
    assert json.loads(printed("export", "bob").decode("utf-8"))["content"] == "déjà vu 東 ✓"


# -- on a terminal


def on_terminal(*words: object, columns: int = 80, **environ: str) -> str:
    """What the program writes to a terminal of that width, stdout and stderr together."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    left_out = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM", "LINES")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "elytron", *map(str, words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**kept, "TERM": "xterm-256color", **environ},
    )
    os.close(theirs)
    data = b""
    with contextlib.suppress(OSError):  # EIO is how Linux says that the other end was closed
        while part := os.read(ours, 65536):
            data += part
    os.close(ours)
    assert process.wait(WAIT_MAX_S) == 0, data.decode()
    return data.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colours_and_no_other_control_codes(held, folder):
    for words in SHOWN:
        if words[0] in ("watch", "check", "embed"):
            continue  # they draw over what they showed before
        shown = on_terminal(*words, "--store", folder)
        assert COLOUR.search(shown), words
        assert not {c for c in COLOUR.sub("", shown) if c != "\n" and c in visible_controls()}


def test_no_color_is_respected(held, folder):
    shown = on_terminal("recall", "bob", "zebra", "--store", folder, NO_COLOR="1")
    codes = {code for match in COLOUR.findall(shown) for code in match[2:-1].split(";")}
    assert not {code for code in codes if code.isdigit() and 30 <= int(code) <= 107}


def test_a_dumb_terminal_gets_plain_text(held, folder):
    assert "\x1b" not in on_terminal("recall", "bob", "zebra", "--store", folder, TERM="dumb")


def test_the_words_of_the_question_are_emphasised_on_a_terminal(folder):
    with elytron.open(folder) as store:
        store.agent("bob").save("user", "Two disks were replaced.", user="alice")
    shown = on_terminal("recall", "bob", "replace the disk", "--store", folder)
    assert re.search(r"Two \x1b\[1;33mdisks\x1b\[0m were \x1b\[1;33mreplaced\x1b\[0m\.", shown)


def test_tables_are_as_wide_as_the_terminal_lets_them(held, folder):
    for columns in (50, 80, 120):
        shown = COLOUR.sub("", on_terminal("history", "bob", "--store", folder, columns=columns))
        widths = [cell_len(line) for line in shown.splitlines()]
        assert columns - 12 <= max(widths) <= columns


def test_json_on_a_terminal_is_indented(held, folder):
    shown = on_terminal("history", "bob", "markup", "--json", "--store", folder)
    assert shown.startswith('[\n  {\n    "id": "markup"')
    assert json.loads(shown)[0]["content"] == f"zebra {HOSTILE['markup']}"


def test_an_export_to_a_terminal_cannot_steer_it(held, folder):
    shown = on_terminal("export", "bob", "--store", folder)
    assert not {c for c in shown if c != "\n" and c in visible_controls()}
    contents = {line["id"]: line["content"] for line in map(json.loads, shown.splitlines())}
    assert contents["c1"] == f"zebra {HOSTILE['c1']}"


def test_an_import_an_export_and_a_reindex_show_their_progress_on_a_terminal(folder, tmp_path):
    file = tmp_path / "[bold]chat\x1b[31m.jsonl"
    lines = [json.dumps({"role": "user", "content": f"zebra {n}"}) for n in range(1200)]
    file.write_text("\n".join(lines), encoding="utf-8")
    place = ("--store", folder)
    for words, label in (
        (("import", file, "--agent", "bob"), "importing [bold]chat\\x1b[31m.jsonl"),
        (("export", "bob", "-o", tmp_path / "out.jsonl"), "exporting bob"),
        (("reindex", "bob"), "indexing bob"),
    ):
        shown = COLOUR.sub("", on_terminal(*words, *place))
        assert label in shown
        assert "1200/1200" in shown
        assert "1200/1200" not in on_terminal(*words, "--json", *place)


def test_a_pipe_gets_no_progress(folder, tmp_path):
    file = tmp_path / "chat.jsonl"
    file.write_text('{"role": "user", "content": "hello"}\n', encoding="utf-8")
    assert run("import", file, store=folder).err == ""


# -- the parts of it


def test_a_plain_text_that_is_shown_is_never_read_as_markup(capsys):
    show("[bold]x[/bold] :smile: 12", Text("[red]y[/red]"))
    assert capsys.readouterr().out == "[bold]x[/bold] :smile: 12\n[red]y[/red]\n"


def hit(content: str, *matched: str) -> Hit:
    at = datetime.fromisoformat("2026-03-02T18:04:10+01:00")
    return Hit(Message("m", "user", content, at, "s", None, {}, 0), 1.0, {}, matched)


def emphasised(question: str, text: str, *matched: str) -> list[str]:
    shown = Matches(question, ("english", "french")).emphasise(Text(text), hit(text, *matched))
    return [text[span.start : span.end] for span in shown.spans]


def test_only_the_words_that_matched_are_emphasised():
    text = "The disks of the disc-jockey, DISK."
    assert emphasised("which disk is it", text, "disk") == ["disks", "DISK"]
    assert emphasised("which disk is it", text) == []
    assert emphasised("combien de degrés ?", "Cent dix degres, un degré", "degrés") == [
        "degres",
        "degré",
    ]


def test_scripts_without_spaces_are_emphasised_by_pairs():
    assert emphasised("東京", "私は東京に住む", "東京") == ["東京"]


def test_visible_leaves_no_control_and_changes_nothing_else():
    for code in range(0x11000):
        character = chr(code)
        shown = visible(character)
        if character in visible_controls() or 0xD800 <= code <= 0xDFFF:
            if character not in "\n\t":
                assert shown == (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
                assert json.loads(json_safe(f'"{character}"')) == character
        else:
            assert shown == character
            assert json_safe(character) == character
    assert visible("a\tb\r\nc\n") == "a   b\nc\n"
    assert one_line(" a\n\n b\rc ") == "a b c"


def test_texts_are_cut_only_where_they_are_too_long():
    assert clip("abc", 3) == "abc"
    assert clip("abcde", 3) == "abc… (2 more characters)"
    assert clip_name("abc", 3) == "abc"
    assert clip_name("abcd", 3) == "ab…"


def test_bytes_are_told_in_units_of_1024():
    told = {0: "0 B", 1023: "1023 B", 1024: "1.0 KB", 1536: "1.5 KB", 1 << 20: "1.0 MB"}
    told |= {(1 << 20) - 1: "1.0 MB", 5 << 30: "5.0 GB", 1 << 50: "1,024.0 TB"}
    assert {count: human_bytes(count) for count in told} == told
