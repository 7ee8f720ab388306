"""Made-up reports, laid out for people: every part of them is told, and nothing in them obeyed."""

import contextlib
import io
from datetime import UTC, datetime

from elytron.errors import EmbedderUnavailable
from elytron.faces import report_tables, usage_tables
from elytron.faces.costs import Unreadable
from elytron.faces.terminal import show
from elytron.records import Usage
from elytron.reports import (
    Checked,
    Cleanup,
    Embedded,
    EmbeddingUsage,
    Erased,
    Finding,
    Leaving,
    Reclaimed,
    Restored,
)

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
    assert clean == ["Nothing of it remains that is known of."]


def test_what_was_embedded_has_a_row_an_agent_and_what_failed_its_code():
    left_out = {"short": 12, "role": 1204, "max_vector_mb": 3, HOSTILE: 1}
    reports = [
        Embedded("bob", 1204, 14, 3, left_out),
        Unreadable("eve", EmbedderUnavailable("down")),
        Embedded("[red]x[/red]", 0, 0, 7),
    ]
    lines = _shown(report_tables.embeddings(reports))
    rows = [line.split() for line in lines]
    assert rows[2][:5] == ["bob", "1,204", "14", "3", "1,204"]
    assert "\x1b" not in "".join(lines)
    assert ["eve", "embedder-unavailable"] in rows
    assert ["[red]x[/red]", "0", "0", "7"] in rows
    assert lines[-1] == "1 agent has no more room; raise `max_vector_mb`, and embed again"


def test_reasons_are_told_in_words_the_most_frequent_first():
    left_out = {"short": 12, "role": 1204, "max_vector_mb": 3, HOSTILE: 1}
    assert usage_tables.reasons_in_words(left_out) == (
        "1,204 of other roles, 12 too short, 3 no room, 1 \\x1b[31m[bold]x[/bold] line"
    )


def _usage_lines(embeddings: EmbeddingUsage) -> dict[str, str]:
    usage = Usage("bob", 100 << 20, embeddings=embeddings)
    lines = _shown([usage_tables.details(usage, archive_limit_bytes=0)])
    return {line[:10].strip(): line[10:].strip() for line in lines}


def test_vectors_are_told_of_with_what_is_kept_of_them_and_what_went_wrong():
    found = _usage_lines(
        EmbeddingUsage(
            "ollama:nomic-embed-text",
            768,
            128,
            {"embedded": 1200, "shared": 4, "queued": 3, "short": 40, "declined": 2, "refused": 1},
            bytes=3 << 20,
            limit_bytes=64 << 20,
            failures=3,
            last_error=HOSTILE,
            resting_s=7.6,
        )
    )
    assert found["vectors"].startswith("ollama:nomic-embed-text, 768 dimensions, 128 kept, 3.0 MB")
    assert found["embedded"] == "1,204 messages, 4 of them share one of an equal text"
    assert found["without"].startswith("40 too short, 3 waiting, 2 declined when saved, 1 refused")
    assert found["embedder"] == ("failed 3 times: \\x1b[31m[bold]x[/bold] line; left alone for 8 s")


def test_who_has_no_embeddings_reads_nothing_of_them():
    for nothing in (EmbeddingUsage(), EmbeddingUsage(reasons={"disabled": 40})):
        assert not {"vectors", "embedded", "without", "embedder"} & set(_usage_lines(nothing))
    waiting = _usage_lines(EmbeddingUsage(reasons={"queued": 1}))
    assert (waiting["embedded"], waiting["without"]) == ("0 messages", "1 waiting")
