"""`elytron watch` and `elytron usage`: limits as they fill up, for people and for programs."""

import contextlib
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import elytron
from elytron.errors import Corrupt
from elytron.faces import costs, usage_tables, watching
from elytron.faces.costs import StoreCosts, Unreadable
from elytron.faces.terminal import show
from elytron.ledger import files
from elytron.records import LedgerBytes, StoreUsage, Usage
from elytron.reports import ArchiveUsage, Forecast, JanitorUsage
from ledgers import ledger_path, names
from test_cli import Outcome, run

Run = Callable[..., Outcome]
WAIT_MAX_S = 60
AT = datetime(2026, 3, 2, 18, 4, tzinfo=UTC)
MB = 1 << 20


@pytest.fixture
def held(folder: Path) -> Run:
    """`elytron` on a store in which bob holds 30 messages and carol one."""
    with elytron.open(folder) as store:
        messages = [{"role": "user", "content": f"zebra {n}", "id": f"m{n}"} for n in range(30)]
        store.agent("bob").save_many(messages)
        store.agent("carol").save("user", "hello")
    return lambda *words, **more: run(*words, store=folder, **more)


@pytest.fixture
def between_looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Instead of each pause do the next of these; returns the lengths of the pauses."""

    def arrange(*steps: Callable[[], object]) -> list[float]:
        left, waited = list(steps), list[float]()

        def pause(seconds: float) -> None:
            waited.append(seconds)
            left.pop(0)()

        monkeypatch.setattr(watching, "pause", pause)
        return waited

    return arrange


def rows(shown: str) -> list[list[str]]:
    """The words of the lines of each table of agents, without its head."""
    found, inside = [], False
    for line in shown.splitlines():
        if line.startswith("───"):
            inside = True
        elif not line.strip():
            inside = False
        elif inside:
            found.append(line.split())
    return found


# -- watching


def test_a_look_shows_each_agent_against_its_limits_the_fullest_first(held):
    small = ("--set", "max_messages_per_agent=40", "--set", "keep_messages=10")
    shown = held("watch", "--count", "1", *small, COLUMNS="120")
    assert (shown.code, shown.err) == (0, "")
    (bob, carol) = rows(shown.out)
    assert bob[:2] == ["bob", "30"]
    assert re.fullmatch("━{7,8}─{2,3}", bob[2])  # three quarters, in ten columns
    assert carol[:2] == ["carol", "1"]
    for part in ("2 agents", "reserve", "process", "0 writes waiting", "clean-up"):
        assert part in shown.out


def test_a_pipe_gets_one_table_after_the_other(held, between_looks):
    waited = between_looks(lambda: None, lambda: None)
    shown = held("watch", "--count", "3", "--interval", "7")
    assert waited == [7.0, 7.0]
    assert [row[0] for row in rows(shown.out)] == ["bob", "carol"] * 3
    assert "\x1b" not in shown.out


def test_agents_may_appear_and_disappear_meanwhile(held, folder, between_looks):
    def appear() -> None:
        with elytron.open(folder) as store:
            store.agent("dora").save("user", "hello")

    between_looks(appear, lambda: shutil.rmtree(files.agent_folder(folder, "carol")))
    shown = held("watch", "--count", "3")
    assert shown.code == 0
    assert [row[0] for row in rows(shown.out)] == [
        "bob", "carol",
        "bob", "carol", "dora",
        "bob", "dora",
    ]  # fmt: skip


def test_the_whole_store_may_appear_and_disappear_meanwhile(folder, between_looks):
    def appear() -> None:
        with elytron.open(folder) as store:
            store.agent("bob").save("user", "hello")

    between_looks(appear, lambda: shutil.rmtree(folder))
    shown = run("watch", "--count", "3", "--json", store=folder)
    assert shown.code == 0
    looks = [json.loads(line) for line in shown.out.splitlines()]
    assert [[agent["agent"] for agent in look["agents"]] for look in looks] == [[], ["bob"], []]


def test_an_agent_that_is_damaged_meanwhile_is_shown_and_hides_no_other(
    held, folder, between_looks
):
    between_looks(lambda: ledger_path(folder, "carol").write_bytes(b""))
    shown = held("watch", "--count", "2")
    assert shown.code == 0
    assert [row[0] for row in rows(shown.out)] == ["bob", "carol", "carol", "bob"]
    assert "corrupt" in shown.out


def test_one_agent_can_be_watched(held):
    assert [row[0] for row in rows(held("watch", "carol", "--count", "1").out)] == ["carol"]


def test_one_agent_that_is_watched_stands_below_the_totals_of_the_whole_store(held, folder):
    shown = held("watch", "carol", "--count", "1").out
    assert "2 agents, " in shown
    ledger_path(folder, "bob").write_bytes(b"")  # so that there is no usage of the whole store
    assert "2 agents, " in held("watch", "carol", "--count", "1").out


def test_watching_makes_nothing_on_disk(held, folder, tmp_path):
    before = names(folder)
    held("watch", "--count", "1")
    assert names(folder) == before
    assert run("watch", "--count", "1", store=tmp_path / "none").code == 0
    assert not (tmp_path / "none").exists()


def test_each_look_for_programs_is_one_line(held, between_looks):
    between_looks(lambda: held("save", "carol", "user", "more"))
    shown = held("watch", "--count", "2", "--json")
    first, second = map(json.loads, shown.out.splitlines())
    assert [agent["messages"] for agent in first["agents"]] == [30, 1]
    assert [agent["messages"] for agent in second["agents"]] == [30, 2]
    assert datetime.fromisoformat(first["at"]) <= datetime.fromisoformat(second["at"])
    assert {"path", "total_bytes", "limit_bytes", "rss_bytes", "janitor"} <= first.keys()


def test_ctrl_c_ends_it_with_0(held, between_looks):
    def interrupt() -> None:
        raise KeyboardInterrupt

    for words in ((), ("--json",)):
        between_looks(interrupt)
        shown = held("watch", *words)
        assert (shown.code, shown.err) == (0, "")
        assert "bob" in shown.out


def test_on_a_terminal_the_table_is_drawn_over(held, folder):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-m", "elytron", "watch", "--count", "2"),
            *("--interval", "0.1", "--store", str(folder)),
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
    )
    os.close(theirs)
    data = b""
    with contextlib.suppress(OSError):  # EIO is how Linux says that the other end was closed
        while part := os.read(ours, 65536):
            data += part
    os.close(ours)
    assert process.wait(WAIT_MAX_S) == 0, data.decode()
    shown = data.decode()
    assert "\x1b[1A" in shown  # the cursor goes up again
    assert "\x1b[?25l" in shown  # is hidden,
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # and shown again in the end
    assert shown.count("carol") >= 2


# -- usage


def test_usage_shows_room_archive_and_forecast(held):
    held("pin", "bob", "m3")
    held("archive", "bob", "--older-than-days", "0", "--keep", "4")
    shown = held("usage", "bob", COLUMNS="120").out
    assert "room     5 of at most 5,000 messages, 1 pinned" in shown
    assert "archive  25 messages in 1 file, " in shown
    assert "of at most 500.0 MB" in shown
    document = held("usage", "bob", "--json").document
    assert (document["pinned"], document["archived"], document["max_messages"]) == (1, 25, 5000)
    assert document["archive"]["messages"] == 25
    assert document["bytes"]["archive"] > 0
    assert sorted(document["forecast"]) == ["bytes_per_day", "days", "messages_per_day", "until"]


def test_usage_of_a_store_shows_its_limit_and_the_clean_up(held):
    shown = held("usage", "--set", "max_total_mb=1000").out
    assert "of at most 1,000.0 MB (" in shown
    assert "clean-up" in shown
    document = held("usage", "--json", "--set", "max_total_mb=1000").document
    assert document["limit_bytes"] == 1000 * MB
    assert sorted(document["janitor"]) == [
        "failures", "last_error", "last_run", "next_run", "running",
    ]  # fmt: skip


# -- made-up usages, laid out


def printed(*parts: object) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        show(*parts)  # type: ignore[arg-type]
    return out.getvalue()


def usage_of(name: str = "bob", **more: object) -> Usage:
    return Usage(name, 100 * MB, max_messages=5000, **more)  # type: ignore[arg-type]


def test_the_nearest_limit_is_the_one_that_comes_first():
    until = {"max_db_size_mb": 40.0, "max_messages_per_agent": 12.4, "max_archive_mb": None}
    assert usage_tables.nearest(Forecast(7, 1, 1, until)) == "messages in 12 d"
    assert usage_tables.nearest(Forecast(7, 0, 0, {"max_db_size_mb": None})) == ""
    assert usage_tables.nearest(Forecast()) == ""
    assert usage_tables.nearest(Forecast(7, 1, 1, {"max_new_thing": 0.0})) == "max_new_thing now"


def test_a_time_to_come_is_told_roughly():
    told = {0: "now", 0.01: "in 1 h", 1.5: "in 36 h", 2: "in 2 d", 729: "in 729 d"}
    told |= {731: "in 2 y", 36_525: "in 100 y", 1e9: "in >100 y"}
    assert {days: usage_tables.until(days) for days in told} == told


@given(st.floats(0, allow_nan=False))
def test_no_time_to_come_is_too_long_for_its_column(days):
    assert len(usage_tables.until(days)) <= 9


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.none() | st.floats(0, 9)),
)
def test_the_nearest_limit_is_never_later_than_another(until):
    found = costs.nearest_limit(Forecast(7, 1, 1, until))
    coming = [days for days in until.values() if days is not None]
    assert (None if found is None else found[1]) == min(coming, default=None)


def test_details_tell_what_was_dropped_and_each_limit_that_comes_nearer():
    archive = ArchiveUsage(1204, 3, 2 * MB, AT, AT, dropped=17, dropped_segments=1)
    until = {"max_db_size_mb": 40.0, "max_messages_per_agent": 12.0, "max_archive_mb": None}
    usage = usage_of(
        archive=archive,
        forecast=Forecast(7.0, 12.5, 2048.0, until),
        failed_writes=2,
        bytes=LedgerBytes(file=MB, archive=2 * MB, graph=3 * MB),
    )
    shown = printed(usage_tables.details(usage, archive_limit_bytes=500 * MB))
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "grows 12.5 messages a day, 2.0 KB a day, by the last 7 days" in lines
    assert "limits max_messages_per_agent in 12 d, max_db_size_mb in 40 d" in lines
    assert "dropped 17 messages left the archive at its limit, for good" in lines
    assert "1,204 messages in 3 files, 2.0 MB of at most 500.0 MB, an eighth of it kept free" in (
        " ".join(lines)
    )
    assert "writes 0 waiting, 2 failed" in lines


@pytest.mark.parametrize("failing", [False, True])
def test_the_clean_up_tells_when_it_ran_and_what_went_wrong(failing):
    error = "bob: \x1b[31mdisk full" if failing else None
    janitor = JanitorUsage(True, AT, AT, error, failures=2 if failing else 0)
    shown = str(usage_tables.janitor(janitor))
    assert shown.startswith("last 2026-03-0")
    assert ("failed 2 times in a row: bob: \\x1b[31mdisk full" in shown) == failing
    assert str(usage_tables.janitor(JanitorUsage())) == "not run yet, not running in this process"


@pytest.mark.parametrize("columns", ["44", "71", "72", "80", "120"])
def test_bars_are_as_long_as_what_is_used_at_any_width(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    usages: costs.Costs = [
        usage_of("empty"),
        usage_of("full", messages=5000, bytes=LedgerBytes(file=100 * MB, archive=500 * MB)),
        usage_of("over", messages=9000),
        Unreadable("damaged", Corrupt("it is")),
        Usage("without limits", 0, messages=9),
    ]
    shown = printed(usage_tables.bars(usages, archive_full_bytes=500 * MB, rows_max=None))
    by_name = {row[0]: row[1:] for row in rows(shown)}
    assert [*by_name][:3] == ["damaged", "over", "full"]
    assert by_name["damaged"] == ["corrupt"]
    assert set(by_name["full"][1]) == {"━"}
    assert set(by_name["over"][1]) == {"━"}
    assert set(by_name["empty"][1]) == {"─"}
    assert max(map(len, shown.splitlines())) <= int(columns)


@pytest.mark.parametrize("columns", ["52", "60", "80"])
def test_a_narrow_terminal_gives_up_bars_before_the_limit_that_comes_next(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    soon = Forecast(7.0, 9.0, 9.0, {"max_messages_per_agent": 12.0})
    usages: costs.Costs = [usage_of("bob", messages=454, forecast=soon)]
    shown = printed(usage_tables.bars(usages, archive_full_bytes=500 * MB, rows_max=None))
    (row,) = rows(shown)
    assert "454" in row
    assert row[-4:] == ["messages", "in", "12", "d"]
    assert any("━" in word for word in row) == (columns != "52")


def test_a_small_terminal_keeps_the_fullest_and_says_how_many_it_hides(tmp_path):
    usages: costs.Costs = [usage_of(f"a{n}", messages=n) for n in range(50)]
    look = StoreCosts(usages, None)
    with elytron.open(tmp_path / "none") as store:
        shown = printed(*watching._frame(store, look, rows_max=3))
    assert [row[0] for row in rows(shown)] == ["a49", "a48", "a47", "and"]
    assert shown.endswith("\nand 47 less full\n")


def test_an_archive_that_drops_its_oldest_is_fuller_than_what_is_nearly_full(tmp_path):
    with elytron.open(tmp_path / "none", max_archive_mb=8) as store:
        usages: costs.Costs = [
            usage_of("nearly", messages=4999),
            usage_of("drops", bytes=LedgerBytes(archive=7 * MB)),
        ]
        shown = printed(*watching._frame(store, StoreCosts(usages, None), rows_max=None))
    assert [row[0] for row in rows(shown)] == ["drops", "nearly"]


def test_what_is_known_of_a_store_adds_up_where_an_agent_cannot_be_read():
    usages: costs.Costs = [
        usage_of(bytes=LedgerBytes(file=5, wal=6, archive=7, aside=8)),
        Unreadable("damaged", Corrupt("it is")),
    ]
    assert StoreCosts(usages, None).total_bytes == 26
    whole = StoreUsage("d", (), 99, 0, 0, 0, 0, 0, 0)
    assert StoreCosts([], whole).total_bytes == 99
