"""
Report tables: what a clean-up, a restore, a check, an embedding or an erasure did, for people.
"""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from elytron.embed.policy import NO_ROOM
from elytron.faces.columns import DIM, NARROW, ROOMY, STRONG, Columns, Head
from elytron.faces.costs import Unreadable
from elytron.faces.tables import moment, name_of
from elytron.faces.usage_tables import reasons_in_words, unreadable
from elytron.faces.visible import clip_name, counted, human_bytes, one_line
from elytron.reports import Checked, Cleanup, Embedded, Erased, Reclaimed, Restored

LEAVING_MAX = 20  # messages of a dry run that are shown
_ID_MAX = 40  # characters of an id, a name or a segment in a list
_SESSION_MAX = 60
_LISTED_MAX = 20  # ids or segments that are named
_DRY = "Dry run: nothing was changed."
_REASONS = {
    "age": "older than the limit of days",
    "count": "over the limit of messages",
    "bytes": "over the limit of bytes",
    "emergency": "the oldest half",
}


def cleanup(report: Cleanup) -> Iterator[RenderableType]:
    """What one clean-up took or, for a dry run, would take, and why."""
    if report.dry_run:
        yield Text(_DRY, "bold yellow")
    if report.leaving:
        yield _reasons(report)
    if report.dry_run:
        yield from _first_leaving(report)
    if report.leaving:
        yield ""
    yield Text(_outcome(report), STRONG)
    if report.short_messages or report.short_bytes:
        yield Text(_short(report), "red")


def _reasons(report: Cleanup) -> Columns:
    heads = (
        Head("reason", "name"),
        Head("messages", "number"),
        Head("bytes", "number"),
        Head("", "text"),
    )
    sizes: dict[str, int] = {}
    for message in report.leaving:
        sizes[message.reason] = sizes.get(message.reason, 0) + message.bytes
    rows: list[Sequence[RenderableType]] = [
        (reason, f"{count:,}", human_bytes(sizes[reason]), _REASONS.get(reason, ""))
        for reason, count in report.reasons.items()
    ]
    rows.append(("total", f"{len(report.leaving):,}", human_bytes(sum(sizes.values())), ""))
    return Columns(heads, rows)


def _first_leaving(report: Cleanup) -> Iterator[RenderableType]:
    if not report.leaving:
        return
    heads = (
        Head("said", "time"),
        Head("role", "time"),
        Head("session", "text"),
        Head("reason", "time"),
        Head("bytes", "number"),
        Head("id", "text", room=ROOMY),
    )
    first = report.leaving[:LEAVING_MAX]
    rows = [
        (
            moment(message.at),
            one_line(message.role),
            Text(clip_name(message.session, _SESSION_MAX)),
            one_line(message.reason),
            human_bytes(message.bytes),
            Text(clip_name(message.id, _ID_MAX)),
        )
        for message in first
    ]
    yield ""
    yield Columns(heads, rows)
    more = len(report.leaving) - len(first)
    if more:
        yield Text(f"and {more:,} more; `--json` lists them all", DIM)


def _outcome(report: Cleanup) -> str:
    held = f"of {counted(report.held, 'message', 'messages')}"
    freed = human_bytes(report.freed_bytes)
    if report.dry_run:
        return f"{len(report.leaving):,} {held} would go to the archive, some {freed}"
    given = human_bytes(report.given_back_bytes)
    lost = f"; {report.dropped:,} were dropped at `max_archive_mb`" if report.dropped else ""
    return f"{report.archived:,} {held} went to the archive, some {freed}; {given} given back{lost}"


def _short(report: Cleanup) -> str:
    """What no clean-up can take, because it is pinned."""
    over = []
    if report.short_messages:
        over.append(counted(report.short_messages, "message", "messages"))
    if report.short_bytes:
        over.append(human_bytes(report.short_bytes))
    return f"still {' and '.join(over)} over the limit, because the rest is pinned"


def cleanups(reports: Iterable[Cleanup | Unreadable], *, dry_run: bool) -> Iterator[RenderableType]:
    """One row an agent."""
    if dry_run:
        yield Text(_DRY, "bold yellow")
    heads = (
        Head("agent", "name"),
        Head("held", "number", room=NARROW),
        Head("would go" if dry_run else "archived", "number"),
        Head("why", "text", room=NARROW),
        Head("frees", "number"),
        Head("given back", "number", room=ROOMY if dry_run else 0),
        Head("over, pinned", "text"),
    )
    rows = [
        unreadable(report) if isinstance(report, Unreadable) else _cleanup_row(report)
        for report in reports
    ]
    yield Columns(heads, rows)


def _cleanup_row(report: Cleanup) -> tuple[RenderableType, ...]:
    over = []
    if report.short_messages:
        over.append(f"{report.short_messages:,}")
    if report.short_bytes:
        over.append(human_bytes(report.short_bytes))
    return (
        name_of(report.agent),
        f"{report.held:,}",
        f"{len(report.leaving) if report.dry_run else report.archived:,}",
        ", ".join(f"{count:,} {one_line(why)}" for why, count in report.reasons.items()),
        human_bytes(report.freed_bytes),
        human_bytes(report.given_back_bytes),
        Text(", ".join(over), "red"),
    )


def restored(report: Restored) -> Iterator[RenderableType]:
    """What came back from the archive, and what could not."""
    line = f"restored {counted(report.restored, 'message', 'messages')}"
    if report.already_held:
        line += f"; {report.already_held:,} held already"
    yield Text(line, STRONG)
    if report.missing:
        yield Text(f"not in the archive: {listed(report.missing)}", "yellow")
    if report.damaged:
        rows = [(name_of(name), one_line(why)) for name, why in report.damaged.items()]
        yield ""
        yield Columns((Head("damaged file", "name"), Head("why", "text")), rows[:_LISTED_MAX])
        if len(rows) > _LISTED_MAX:
            yield Text(f"and {len(rows) - _LISTED_MAX:,} more", DIM)


def listed(names: Sequence[str]) -> str:
    """The first of several names, and how many more there are."""
    shown = ", ".join(clip_name(name, _ID_MAX) for name in names[:_LISTED_MAX])
    more = len(names) - _LISTED_MAX
    return f"{shown} and {more:,} more" if more > 0 else shown


def reclaimed(report: Reclaimed) -> Iterator[RenderableType]:
    """A file's size before and after."""
    how = " by rebuilding the file" if report.rebuilt else ""
    yield _labelled(
        ("before", human_bytes(report.before_bytes)),
        ("after", human_bytes(report.after_bytes)),
        ("given back", human_bytes(report.given_back_bytes) + how),
    )
    if report.put_off:
        yield Text(f"not all: {one_line(report.put_off)}", "yellow")


def checks(reports: Sequence[Checked | Unreadable]) -> Iterator[RenderableType]:
    """How much was looked at, and all that is wrong."""
    heads = (
        Head("agent", "name"),
        Head("messages", "number"),
        Head("archived", "number"),
        Head("wrong", "number"),
        Head("repaired", "number"),
    )
    yield Columns(heads, [_check_row(report) for report in reports])
    rows = [
        (
            name_of(report.agent),
            Text(one_line(finding.part)),
            _state(repairable=finding.repairable, repaired=finding.repaired),
            Text(one_line(finding.what)),
        )
        for report in reports
        if isinstance(report, Checked)
        for finding in report.findings
    ]
    if rows:
        parts = Head("agent", "name"), Head("part", "time"), Head("", "time")
        yield ""
        yield Columns((*parts, Head("found", "text")), rows)


def _check_row(report: Checked | Unreadable) -> tuple[RenderableType, ...]:
    if isinstance(report, Unreadable):
        return unreadable(report)
    wrong = len(report.findings)
    return (
        name_of(report.agent),
        f"{report.messages:,}",
        f"{report.archived:,}",
        Text(f"{wrong:,}", "" if report.ok else "red"),
        f"{sum(finding.repaired for finding in report.findings):,}",
    )


def _state(*, repairable: bool, repaired: bool) -> Text:
    if repaired:
        return Text("repaired", "green")
    return Text("repairable", "yellow") if repairable else Text("damaged", "red")


def embeddings(reports: Sequence[Embedded | Unreadable]) -> Iterator[RenderableType]:
    """How many got a vector, one row an agent, and why others have none."""
    heads = (
        Head("agent", "name"),
        Head("embedded", "number"),
        Head("shared", "number"),
        Head("held already", "number", room=NARROW),
        Head("left out", "text"),
    )
    rows = [
        unreadable(report) if isinstance(report, Unreadable) else _embedded_row(report)
        for report in reports
    ]
    yield Columns(heads, rows)
    full = [r for r in reports if isinstance(r, Embedded) and r.left_out.get(NO_ROOM)]
    if full:
        agents = counted(len(full), "agent has", "agents have")
        yield ""
        yield Text(f"{agents} no more room; raise `max_vector_mb`, and embed again", "yellow")


def _embedded_row(report: Embedded) -> tuple[RenderableType, ...]:
    return (
        name_of(report.agent),
        f"{report.embedded:,}",
        f"{report.shared:,}",
        f"{report.held:,}",
        Text(reasons_in_words(report.left_out)),
    )


def erased(report: Erased) -> Iterator[RenderableType]:
    """A receipt of what was forgotten, and what still holds it."""
    counts = (
        ("messages held", report.messages),
        ("messages in the archive", report.archived),
        ("memories", report.memories),
        ("concepts", report.concepts),
        ("sessions", report.sessions),
        ("users", report.users),
    )
    if any(count for _, count in counts):
        yield Text(f"erased from the memory of {clip_name(report.agent, _SESSION_MAX)}:", STRONG)
        yield _labelled(*((label, f"{count:,}") for label, count in counts))
        yield ""
    if not report.remaining:
        yield Text("Nothing of it remains that is known of.")
        return
    yield Text("It may remain in:", "yellow")
    for place in report.remaining:
        yield Text(f"- {one_line(place)}")


def _labelled(*rows: tuple[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM)
    table.add_column(justify="left", overflow="fold")
    for label, text in rows:
        table.add_row(label, text)
    return table
