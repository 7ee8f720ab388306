"""
Tables: records laid out for people. Makes rich renderables; prints nothing.

Stored text comes in through `visible` and as `Text`, so that nothing in it is taken for markup
or obeyed by a terminal.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from rich.cells import cell_len
from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from elytron.faces.columns import DIM, STRONG, Bar, Columns, Head
from elytron.faces.costs import Costs, Unreadable
from elytron.faces.matches import Matches
from elytron.faces.visible import clip, clip_name, human_bytes, one_line, visible
from elytron.importers.passes import BAD_MAX, BEYOND
from elytron.records import Hit, ImportReport, Message, Session, Usage

_SPEAKER_MAX = 14  # columns
_NAME_MAX = 200  # characters of a name; longer ones are cut
_BAD_MAX = 20  # bad lines shown


def moment(at: datetime | None) -> str:
    """A time as it was said, to the minute, on the clock of whoever saved it."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"


def day(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d}"


def counted(count: int, one: str, many: str) -> str:
    """`1 message`, `1,204 messages`."""
    return f"{count:,} {one if count == 1 else many}"


def title(text: str) -> Rule:
    """The heading of a part of a longer output."""
    return Rule(Text(text, "bold cyan"), align="left", style=DIM)


def history(messages: Sequence[Message], *, text_max: int, ids: bool) -> Iterator[RenderableType]:
    """Messages under a heading for each session and day."""
    speaker_width = max((cell_len(_speaker(m)) for m in messages), default=0)
    start = 0
    for end in range(1, len(messages) + 1):
        here = messages[start]
        if end < len(messages) and _heading(messages[end]) == _heading(here):
            continue
        if start:
            yield ""
        session = clip_name(here.session, _NAME_MAX)
        yield Text.assemble((session, STRONG), ("  " + day(here.at), DIM))
        table = Table.grid(padding=(0, 2))
        table.add_column(width=5, style=DIM)
        table.add_column(width=speaker_width, no_wrap=True, style="cyan")
        table.add_column(ratio=1, overflow="fold")
        for message in messages[start:end]:
            said = Text(clip(visible(message.content), text_max))
            if ids:
                said.append(f"\nid {one_line(message.id)}", DIM)
            table.add_row(f"{message.at:%H:%M}", Text(_speaker(message)), said)
        yield table
        start = end


def _speaker(message: Message) -> str:
    return clip_name(message.speaker, _SPEAKER_MAX)


def _heading(message: Message) -> tuple[str, str]:
    return message.session, day(message.at)


def hits(
    found: Sequence[Hit],
    matches: Matches,
    *,
    text_max: int,
    why: bool = False,
    ids: bool = False,
    expected: Iterable[str] = (),
) -> Iterator[RenderableType]:
    """
    Hits, best first, each with its date, speaker and text.

    Args:
        matches: finds the words of the question, to be emphasised.
        expected: ids that are marked.
    """
    marked = set(expected)
    for rank, hit in enumerate(found, 1):
        message = hit.message
        head = Text.assemble(
            (f"{rank:>2}  ", STRONG),
            (moment(message.at), "green"),
            "  ",
            matches.emphasise(Text(_speaker(message), "cyan"), hit),
            (f"  {clip_name(message.session, _NAME_MAX)}", DIM),
        )
        if message.id in marked:
            head.append("  ✓ expected", "bold green")
        yield head
        text = matches.excerpt(visible(message.content), hit, limit=text_max)
        yield Padding(text, (0, 0, 0, 4))
        if why:
            shares = "  ".join(f"{name} {share:.2f}" for name, share in hit.why.items() if share)
            matched = ", ".join(map(one_line, hit.matched)) or "no word of its own"
            line = f"score {hit.score:.2f}: {shares}  matched: {matched}"
            yield Padding(Text(line, DIM), (0, 0, 0, 4))
        if ids:
            yield Padding(Text(f"id {one_line(message.id)}", DIM), (0, 0, 0, 4))


def sessions(found: Iterable[Session]) -> Columns:
    heads = (
        Head("session", "name"),
        Head("messages", "number"),
        Head("first (UTC)", "time", spare=True),
        Head("last (UTC)", "time"),
    )
    rows = [(_name(s.id), f"{s.messages:,}", moment(s.first_at), moment(s.last_at)) for s in found]
    return Columns(heads, rows)


def agents(found: Costs) -> Columns:
    """One row an agent; one that cannot be read says so in its row."""
    heads = (
        Head("agent", "name"),
        Head("messages", "number"),
        Head("sessions", "number", spare=True),
        Head("first (UTC)", "time", spare=True),
        Head("last (UTC)", "time"),
        Head("size", "number"),
    )
    rows = [
        _unreadable(cost)
        if isinstance(cost, Unreadable)
        else (
            _name(cost.agent),
            f"{cost.messages:,}",
            f"{cost.sessions:,}",
            day(cost.first_at),
            day(cost.last_at),
            human_bytes(cost.bytes.total),
        )
        for cost in found
    ]
    return Columns(heads, rows)


def usages(found: Costs) -> Columns:
    """One row an agent, with a bar against its limit."""
    heads = (
        Head("agent", "name"),
        Head("messages", "number"),
        Head("size", "number"),
        Head("limit", "number", spare=True),
        Head("used", "number"),
        Head("", "bar", spare=True),
    )
    rows = [
        _unreadable(cost) if isinstance(cost, Unreadable) else _usage_row(cost) for cost in found
    ]
    return Columns(heads, rows)


def _usage_row(usage: Usage) -> tuple[RenderableType, ...]:
    share = usage.bytes.total / usage.limit_bytes
    return (
        _name(usage.agent),
        f"{usage.messages:,}",
        human_bytes(usage.bytes.total),
        human_bytes(usage.limit_bytes),
        f"{share:.1%}",
        Bar(share),
    )


def _unreadable(cost: Unreadable) -> tuple[RenderableType, ...]:
    return _name(cost.agent), Text(cost.cause.code, "red")


def _name(name: str) -> Text:
    return Text(clip_name(name, _NAME_MAX))


def total(store: str, agents: int, total_bytes: int) -> Text:
    """The last line under the usage of a whole store."""
    return Text(
        f"{counted(agents, 'agent', 'agents')}, {human_bytes(total_bytes)} in {one_line(store)}",
        DIM,
    )


def usage_details(usage: Usage | Unreadable) -> RenderableType:
    """What one agent holds, and where its bytes are."""
    if isinstance(usage, Unreadable):
        return ""
    size = usage.bytes
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM)
    table.add_column(ratio=1, overflow="fold")
    held = (
        (usage.messages, "message", "messages"),
        (usage.sessions, "session", "sessions"),
        (usage.users, "user", "users"),
        (usage.memories, "memory", "memories"),
        (usage.concepts, "concept", "concepts"),
        (usage.edges, "relation", "relations"),
    )
    parts = [counted(count, one, many) for count, one, many in held if count]
    table.add_row("holds", ", ".join(parts) or "nothing")
    if usage.first_at is not None:
        table.add_row("said", f"{moment(usage.first_at)} to {moment(usage.last_at)} (UTC)")
    table.add_row(
        "file",
        f"{human_bytes(size.file)}: {human_bytes(size.live)} live, {human_bytes(size.dead)} dead",
    )
    table.add_row("WAL", human_bytes(size.wal))
    table.add_row(
        "indexes", f"{human_bytes(size.words)} words, {human_bytes(size.vectors)} vectors"
    )
    if usage.queued or usage.failed_writes:
        table.add_row("writes", f"{usage.queued:,} waiting, {usage.failed_writes:,} failed")
    return table


def imports(reports: Iterable[ImportReport]) -> Columns:
    """What an import did, one row an agent."""
    heads = (
        Head("agent", "name"),
        Head("imported", "number"),
        Head("already held", "number"),
        Head("skipped", "number"),
        Head("left out", "text"),
    )
    return Columns(heads, [_import_row(report) for report in reports])


def _import_row(report: ImportReport) -> tuple[RenderableType, ...]:
    left_out = dict(report.left_out or {})
    skipped = len(report.bad) + left_out.pop(BEYOND, 0)
    return (
        _name(report.agent),
        f"{report.imported:,}",
        f"{report.already_held:,}",
        Text(f"{skipped:,}", "red" if skipped else ""),
        Text(", ".join(f"{count:,} {one_line(why)}" for why, count in left_out.items())),
    )


def bad_lines(reports: Iterable[ImportReport]) -> Iterator[RenderableType]:
    """The first pieces that were skipped, and how many more there are."""
    reports = tuple(reports)
    bad = sorted((line for report in reports for line in report.bad), key=lambda bad: bad.line)
    if not bad:
        return
    yield ""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="red", no_wrap=True)  # the line, or the item
    table.add_column(ratio=1, overflow="fold")
    for line in bad[:_BAD_MAX]:
        table.add_row(f"{line.line:,}", Text(one_line(line.reason)))
    yield Text("skipped, by line or item:", DIM)
    yield table
    more = len(bad) - len(bad[:_BAD_MAX])
    more += sum((report.left_out or {}).get(BEYOND, 0) for report in reports)
    if more:
        yield Text(f"and {more:,} more; `--json` lists the first {BAD_MAX:,}", DIM)
