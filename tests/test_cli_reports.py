"""Made-up reports, laid out for people: every part of them is told, and nothing in them obeyed."""

import contextlib
import io
from datetime import UTC, datetime

from elytron.faces import report_tables
from elytron.faces.terminal import show
from elytron.reports import Checked, Cleanup, Erased, Finding, Leaving, Reclaimed, Restored

AT = datetime(2026, 3, 2, 18, 4, tzinfo=UTC)


def _shown(parts: object) -> list[str]:
    """The lines that are printed for made-up reports."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        show(*parts)  # type: ignore[misc]
    return out.getvalue().splitlines()


HOSTILE = "\x1b[31m[bold]x[/bold]\nline"


def test_a_clean_up_tells_each_reason_with_its_bytes():
    leaving = [Leaving(f"m{n}", "s", "user", AT, "age", 1024) for n in range(3)]
    leaving += [Leaving("b", HOSTILE, "user", AT, "bytes", 2048)]
    report = Cleanup("bob", True, tuple(leaving), 9, 5120, short_bytes=4096, short_messages=1)
    lines = _shown(report_tables.cleanup(report))
    rows = [line.split()[:4] for line in lines]
    assert ["age", "3", "3.0", "KB"] in rows
    assert ["bytes", "1", "2.0", "KB"] in rows
    assert ["total", "4", "5.0", "KB"] in rows
    assert "\\x1b[31m[bold]x[/bold] line" in "\n".join(lines)
    assert lines[-2:] == [
        "4 of 9 messages would go to the archive, some 5.0 KB",
        "still 1 message and 4.0 KB over the limit, because the rest is pinned",
    ]


def test_a_restore_names_the_first_of_many_that_are_missing_or_damaged():
    missing = tuple(f"id-{n}" for n in range(25))
    damaged = {f"{n:03}.zst": HOSTILE for n in range(22)}
    lines = _shown(report_tables.restored(Restored("bob", 1000, 2, missing, damaged)))
    assert lines[0] == "restored 1,000 messages; 2 held already"
    assert "id-19 and 5 more" in " ".join(" ".join(lines).split())
    assert sum(line.startswith("0") for line in lines) == 20
    assert lines[-1] == "and 2 more"
    assert "\x1b" not in "".join(lines)


def test_a_reclaim_says_why_not_all_was_given_back():
    report = Reclaimed("bob", 3 << 20, 1 << 20, rebuilt=True, put_off="a reader was still at work")
    assert _shown(report_tables.reclaimed(report)) == [
        "before      3.0 MB",
        "after       1.0 MB",
        "given back  2.0 MB by rebuilding the file",
        "not all: a reader was still at work",
    ]


def test_a_check_lists_each_finding_with_what_became_of_it():
    findings = (
        Finding("words", HOSTILE, repairable=True),
        Finding("rows", "row 7 is damaged"),
        Finding("archive", "half done", repairable=True, repaired=True),
    )
    lines = _shown(report_tables.checks([Checked("bob", 1204, 5, findings)]))
    rows = [line.split() for line in lines]
    assert rows[2] == ["bob", "1,204", "5", "3", "1"]
    assert [row[2] for row in rows[-3:]] == ["repairable", "damaged", "repaired"]
    assert "\\x1b[31m[bold]x[/bold] line" in lines[-3]


def test_a_receipt_of_erasure_lists_where_text_may_remain():
    report = Erased("bob", 1204, 17, 3, 2, 1, 1, ("a backup", HOSTILE))
    lines = _shown(report_tables.erased(report))
    assert [line.rsplit(" ", 1)[1] for line in lines[1:7]] == ["1,204", "17", "3", "2", "1", "1"]
    assert lines[-3:] == ["It may remain in:", "- a backup", "- \\x1b[31m[bold]x[/bold] line"]
    clean = _shown(report_tables.erased(Erased("bob", 0, 0, 0, 0, 0, 0)))
    assert clean[-1] == "Nothing of it remains that is known of."
