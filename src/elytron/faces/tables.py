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

from elytron.faces.columns import DIM, NARROW, STRONG, Columns, Head
from elytron.faces.matches import Matches
from elytron.faces.visible import clip, clip_name, one_line, visible
from elytron.importers.passes import BAD_MAX, BEYOND
from elytron.records import Hit, ImportReport, Message, Session

_SPEAKER_MAX = 14  # columns
_NAME_MAX = 200  # characters of a name; longer ones are cut
_BAD_MAX = 20  # bad lines shown


def moment(at: datetime | None) -> str:
    """A time as it was said, to the minute, on the clock of whoever saved it."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"


def day(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d}"


def name_of(name: str) -> Text:
    """A name as it may stand in a table."""
    return Text(clip_name(name, _NAME_MAX))


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
    Hits, best first, each with its date, speaker and text. Those from the archive are marked, and
    memories, which have their kind in the place of the speaker.

    Args:
        matches: finds the words of the question, to be emphasised.
        expected: ids that are marked.
    """
    marked = set(expected)
    for rank, hit in enumerate(found, 1):
        message = hit.message
        head = Text(f"{rank:>2}  ", STRONG)
        head.append_text(_head(hit, matches))
        if message.id in marked:
            head.append("  ✓ expected", "bold green")
        yield head
        text = matches.excerpt(visible(message.content), hit, limit=text_max)
        yield Padding(text, (0, 0, 0, 4))
        if why:
            yield Padding(Text(_why(hit), DIM), (0, 0, 0, 4))
        if ids:
            yield Padding(Text(f"id {one_line(message.id)}", DIM), (0, 0, 0, 4))


def _head(hit: Hit, matches: Matches) -> Text:
    """When something was said or learned, by whom, where, and marks."""
    message, memory = hit.message, hit.memory
    speaker = _speaker(message) if memory is None else clip_name(memory.kind, _SPEAKER_MAX)
    session = message.session if memory is None else memory.session
    head = Text.assemble(
        (moment(message.at), "green"),
        "  ",
        matches.emphasise(Text(speaker, "cyan"), hit),
        (f"  {clip_name(session, _NAME_MAX)}" if session else "", DIM),
    )
    if memory is not None:
        head.append("  (memory)", "magenta")
    if hit.archived:
        head.append("  (archive)", "yellow")
    return head


def _why(hit: Hit) -> str:
    """What makes up a score: the parts that show in two digits."""
    shares = [f"{name} {share:.2f}" for name, share in hit.why.items() if round(share, 2)]
    matched = ", ".join(map(one_line, hit.matched)) or "no word of its own"
    score = f"score {hit.score:.2f}" + (": " if shares else "")
    return f"{score}{'  '.join(shares)}  matched: {matched}"


def sessions(found: Iterable[Session]) -> Columns:
    heads = (
        Head("session", "name"),
        Head("messages", "number"),
        Head("first (UTC)", "time", room=NARROW),
        Head("last (UTC)", "time"),
    )
    rows = [
        (name_of(s.id), f"{s.messages:,}", moment(s.first_at), moment(s.last_at)) for s in found
    ]
    return Columns(heads, rows)


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
        name_of(report.agent),
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
