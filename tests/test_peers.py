"""The pure parts of the scoreboard: what peers are given, and how results become tables."""

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PEERS = Path(__file__).parent.parent / "bench" / "peers"


def module_of(name: str) -> ModuleType:
    """A script of that folder, which is not on the path but while the script is read."""
    spec = importlib.util.spec_from_file_location(name, PEERS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scripts() -> Any:
    before = set(sys.modules)
    sys.path.insert(0, str(PEERS))
    names = ("workload", "environments", "outside", "tables", "report", "measures")
    try:
        yield {name: module_of(name) for name in names}
    finally:
        sys.path.remove(str(PEERS))
        for name in (*names, "peer_handwritten"):
            if name not in before:
                sys.modules.pop(name, None)


def test_each_message_can_be_told_from_all_others_and_is_the_same_each_time(scripts):
    workload = scripts["workload"]
    made = list(workload.messages(300, first=50))
    assert made == list(workload.messages(300, first=50))
    assert workload.numbers([one.text for one in made]) == list(range(50, 350))
    assert made[50].session != made[49].session  # the hundredth begins another


def test_a_vector_has_unit_length_whatever_the_text(scripts):
    workload = scripts["workload"]
    for text in ("", "?!", "Alice lives in Lyon", "word " * 500):
        vector = workload.embed(text)
        assert len(vector) == workload.DIMS
        assert sum(value * value for value in vector) == pytest.approx(1)


def test_questions_are_words_of_a_message_that_is_held(scripts):
    workload = scripts["workload"]
    for number, question in workload.questions(20, 200):
        (message,) = workload.messages(1, first=number)
        assert set(question.split()) <= set(message.text.split())
        assert not workload.numbers([question])


def test_forced_writes_are_counted_between_the_marks_alone(scripts):
    """Also those that another thread begins and ends while the save waits."""
    trace = """\
7 fsync(3) = 0
7 access("/mark/begin", F_OK) = -1 ENOENT (No such file or directory)
7 fdatasync(4 <unfinished ...>
8 fsync(5) = 0
7 <... fdatasync resumed>) = 0
7 access("/mark/end", F_OK) = -1 ENOENT (No such file or directory)
8 fsync(5) = 0
7 faccessat2(AT_FDCWD, "/mark/begin", F_OK, 0) = -1 ENOENT
7 faccessat2(AT_FDCWD, "/mark/end", F_OK, 0) = -1 ENOENT
"""
    assert scripts["outside"].syncs(trace) == [2, 0]


def test_the_hand_written_store_passes_its_own_measures(scripts, tmp_path):
    sys.path.insert(0, str(PEERS))
    try:
        measures = scripts["measures"]
        # With time for all, also on a machine that stands still for a while.
        small = dataclasses.replace(measures.SMALL, churn_s=60.0, agents_s=60.0)
        board = measures.Measures("peer_handwritten", tmp_path, small, vectors=False)
    finally:
        sys.path.remove(str(PEERS))
    churn = board.churn()
    assert churn["written"] > churn["keep"] == churn["kept"]
    assert not churn["wrong"]
    agents = board.agents()
    assert (agents["agents"], agents["failure"]) == (agents["of"], "")


def results() -> dict[str, Any]:
    """One peer that measured all, one that failed at most."""
    sizes = {"all": 9_000_000, "archive": 2_000_000, "reserve": 4_000_000}
    times = {"p50_ms": 0.2126, "p99_ms": 1540.2, "a_second": 4321.0}
    whole = {
        "installed": {"bytes": 12_345_678, "packages": 9, "versions": {"apsw": "3.54.1.0"}},
        "imported": {"ms": 34.2, "rss_bytes": 9e6},
        "first": {"open_and_save_ms": 80.0, "rss_bytes": 3e7},
        "lone": times,
        "threads": {**times, "refused": 2276, "lost": 1},
        "traced": {"saves": 100, "synced_before_return": 100, "a_save": 1.0},
        "reading": {
            "recall": {**times, "found": 0.97},
            "history": {**times, "wrong": 0},
            "rss_bytes": 4e7,
        },
        "churn": {
            "written": 6000, "keep": 1000, "kept": 990, "wrong": False, "bytes": sizes,
            "rss_bytes": 5e7, "compacted_bytes": None, "fresh_bytes": sizes,
        },
        "agents": {
            "agents": 15, "of": 500, "took_s": 3.0, "failure": "at agent 16: RuntimeError: full",
            "rss_bytes": 7e8, "descriptors": 40,
        },
        "together": {"refused_to_open": [], "acknowledged": 900, "errors": 0, "lost": 3,
                     "doubled": 0},
        "kills": {"kills": 10, "acknowledged": 5000, "lost": 0, "doubled": 0, "failure": ""},
    }  # fmt: skip
    failed = {name: {"failed": "no answer in 240 s"} for name in whole}
    return {
        "date": "2026-11-29", "small": False, "took_s": 900, "dimensions": 256,
        "machine": {"cores": 2, "memory_gb": 23, "kernel": "Linux 6", "disk": "ext4",
                    "python": "3.11.7"},
        "titles": {"elytron": "Elytron", "one": "One", "other": "Other"}, "vectors": [],
        "peers": {
            "elytron": {**whole, "lone": {**times, "a_second": 2000.0}},
            "one": {**whole, "first": {"open_and_save_ms": 160.0, "rss_bytes": 3e7}},
            "other": {**failed, "installed": {**whole["installed"], "bytes": 0}},
        },
    }  # fmt: skip


def test_tables_say_what_was_measured_and_why_a_figure_is_missing(scripts):
    text = scripts["tables"].markdown(results())
    for said in (
        "4,320, 2,276 refused, 1 lost",
        "0.21 / 1,540",
        "9.0 (6,000 written, 990 kept)",
        "15, then RuntimeError: full",
        "900 saved, 3 lost",
        "opens each time, 0 of 5,000 lost",
        "yes, 1.0",
        "failed: no answer in 240 s",
        "2026-11-29",
        "apsw 3.54.1.0",
    ):
        assert said in text, said
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_the_page_says_where_elytron_is_behind_and_not_where_it_is_not(scripts):
    told = scripts["tables"].behind(results())
    assert "- saves a second, one at a time: One 2.2 times" in told
    assert "- installed bytes: Other, which needs none" in told
    assert len(told.splitlines()) == 4  # nothing of what is equal, failed, or better here


def test_the_report_changes_nothing_outside_its_markers(scripts):
    report = scripts["report"]
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.placed(page, "new") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    with pytest.raises(SystemExit, match="no <!-- peers:begin -->"):
        report.placed("a page without", "new")


@pytest.mark.parametrize(
    "path", sorted(PEERS.glob("requirements-*.txt")), ids=lambda path: path.name
)
def test_every_peer_is_pinned_with_hashes_and_brings_no_torch(path: Path) -> None:
    logical = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    lines = [line for line in logical if line.strip()]
    assert lines
    pinned = re.compile(r"[A-Za-z0-9._-]+==\S+( ;.*)?( +--hash=sha256:[0-9a-f]{64})+ *")
    assert not [line[:60] for line in lines if not pinned.fullmatch(line)]
    assert not [line for line in lines if line.startswith("torch")]
