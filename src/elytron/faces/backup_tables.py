"""
Backup tables: what a backup and a restore did, agent by agent, for people.
"""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from elytron.faces.columns import NARROW, STRONG, Columns, Head
from elytron.faces.tables import moment, name_of
from elytron.faces.visible import counted, human_bytes, one_line
from elytron.reports import AgentRestored, BackedUp, BackupRestored, NotBackedUp, NotRestored

_HEADS = (
    Head("agent", "name"),
    Head("", "time"),
    Head("messages", "number"),
    Head("archived", "number"),
)
_DONE = {"new": "restored", "same": "the same", "replaced": "replaced", "salvaged": "salvaged"}
_DUE = {
    "new": "to restore",
    "same": "the same",
    "replaced": "to replace",
    "salvaged": "to salvage",
    "differs": "needs --replace",
}


def backed_up(report: BackedUp) -> Iterator[RenderableType]:
    """What was copied, what had not changed, and what was not copied, with why."""
    heads = (*_HEADS, Head("copied", "number"), Head("as of", "time", room=NARROW))
    rows = [
        (
            name_of(one.agent),
            Text("copied", "green") if one.copied else Text("unchanged"),
            f"{one.messages:,}",
            f"{one.archived:,}",
            human_bytes(one.copied_bytes),
            moment(one.at),
        )
        for one in report.agents
    ]
    gone = [(name_of(name), Text("removed", "yellow"), "", "", "", "") for name in report.removed]
    yield Columns(heads, [*rows, *gone, *map(_failed, report.failed)])
    yield from _why(report.failed)
    yield from _kept(report.kept)
    copied = sum(one.copied for one in report.agents)
    written = human_bytes(sum(one.copied_bytes for one in report.agents))
    same = len(report.agents) - copied
    yield ""
    yield Text(
        f"{counted(copied, 'agent', 'agents')} copied, {written}; {same:,} unchanged", STRONG
    )


def restored(report: BackupRestored) -> Iterator[RenderableType]:
    """What came back, from when, where the former files lie, and what did not, with why."""
    if report.dry_run:
        yield Text(_dry(report), "bold yellow")
    words = _DUE if report.dry_run else _DONE
    rows = [
        (
            name_of(one.agent),
            Text(words[one.how], "" if one.how == "same" else "green"),
            f"{one.messages:,}",
            f"{one.archived:,}",
            moment(one.at),
        )
        for one in report.agents
    ]
    yield Columns((*_HEADS, Head("as of", "time")), [*rows, *map(_failed, report.failed)])
    yield from _why(report.failed)
    yield from _aside(report.agents)
    yield from _again(report.agents)
    yield from _kept(report.kept)


def _dry(report: BackupRestored) -> str:
    if not report.failed:
        return "Dry run: the backup was verified, and nothing was changed."
    failed = counted(len(report.failed), "agent", "agents")
    return f"Dry run: nothing was changed. {failed} would not come back: why stands below."


def _failed(one: NotBackedUp | NotRestored) -> tuple[RenderableType, ...]:
    return name_of(one.agent), Text("not done", "red")


def _why(failed: tuple[NotBackedUp, ...] | tuple[NotRestored, ...]) -> Iterator[RenderableType]:
    if failed:
        rows = [(name_of(one.agent), Text(one_line(str(one.cause)))) for one in failed]
        yield ""
        yield Columns((Head("agent", "name"), Head("why not", "text")), rows)


def _aside(agents: tuple[AgentRestored, ...]) -> Iterator[RenderableType]:
    rows = [(name_of(one.agent), Text(one_line(one.aside))) for one in agents if one.aside]
    if rows:
        yield ""
        yield Columns(
            (Head("agent", "name"), Head("former files, for you to delete", "text")), rows
        )


def _again(agents: tuple[AgentRestored, ...]) -> Iterator[RenderableType]:
    rows = [(name_of(one.agent), f"{one.again:,}") for one in agents if one.again]
    if rows:
        yield ""
        head = Head("archived again: lost, or deleted since the backup", "number")
        yield Columns((Head("agent", "name"), head), rows)


def _kept(paths: tuple[str, ...]) -> Iterator[RenderableType]:
    if paths:
        what = "copies kept since they may have what is nowhere else"
        head = Head(f"{what}: restore from them, or delete them", "text")
        yield ""
        yield Columns((head,), [(Text(one_line(path)),) for path in paths])
