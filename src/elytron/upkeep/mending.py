"""
Mending: when a check asks for a new ledger, and what is said once there is one. Pure.
"""

from collections.abc import Iterator
from dataclasses import replace

from elytron.errors import ElytronError
from elytron.reports import Checked, Finding, Salvaged
from elytron.upkeep.checking import FILE, LOG

_NAMED_MAX = 10  # ids in one finding


def is_needed(report: Checked) -> bool:
    """Whether something is wrong that only a new ledger puts right."""
    return any(found.part in (FILE, LOG) and found.repairable for found in report.findings)


def is_about_ledger(report: Checked) -> bool:
    """Whether the ledger as a whole is damaged, or not what it was."""
    return any(found.part in (FILE, LOG) for found in report.findings)


def unreadable(name: str, error: ElytronError) -> Checked:
    """What is said of an agent that cannot be read at all."""
    return Checked(name, 0, 0, (Finding(FILE, str(error), repairable=True),))


def failed(report: Checked, error: ElytronError) -> Checked:
    """A report, when no new ledger could be made."""
    return replace(
        report,
        findings=tuple(
            [
                replace(found, what=f"{found.what}; repairing it failed: {error}")
                if found.part in (FILE, LOG)
                else found
                for found in report.findings
            ]
        ),
    )


def mended(before: Checked, made: Salvaged, after: Checked) -> Checked:
    """A report of what was found, what became of it, and what is still wrong."""
    found = [
        replace(one, repaired=True)
        for one in before.findings
        if one.part in (FILE, LOG) and one.repairable
    ]
    left = [one for one in after.findings if not one.repaired]
    return replace(after, findings=(*found, *_lost(made), *left))


def _lost(made: Salvaged) -> Iterator[Finding]:
    """What is not there any more. Said once: the new ledger knows nothing of it."""
    where = f"the damaged files lie in {made.aside}: `elytron restore --from` a backup completes it"
    if made.is_empty:
        yield Finding(
            FILE,
            "nothing was left of the ledger: it begins empty, with its archive as it was; " + where,
        )
        return
    if made.lost:
        ids = ", ".join(map(repr, made.lost_ids[:_NAMED_MAX]))
        more = ", ..." if len(made.lost_ids) > _NAMED_MAX else ""
        named = f" (ids {ids}{more})" if ids else ""
        yield Finding("messages", f"{made.lost} messages are lost{named}; {where}")
    if made.damaged_pages:
        yield Finding(
            FILE,
            f"{made.damaged_pages} pages were damaged: messages, memories, concepts or marks on"
            f" them may be lost; {where}",
        )
    if made.log_pages:
        yield Finding(
            LOG,
            f"{made.log_pages} pages stood damaged in the log: messages, memories, concepts or"
            f" marks on them may be lost; {where}",
        )
    if made.nameless:
        yield Finding(
            "sessions", f"the names of {made.nameless} sessions and users are lost; {where}"
        )
