"""
Moving tables: what came from one store into another, agent by agent, for people.
"""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from elytron.faces.columns import NARROW, ROOMY, STRONG, Columns, Head
from elytron.faces.tables import name_of
from elytron.faces.visible import counted, one_line
from elytron.reports import StoreMigrated

_HEADS = (
    Head("agent", "name"),
    Head("", "time"),
    Head("messages", "number"),
    Head("archived", "number"),
    Head("memories", "number", room=ROOMY),
    Head("concepts", "number", room=ROOMY),
    Head("written", "number"),
    Head("checksum", "time", room=NARROW),
)
_SHOWN = 8  # digits of a checksum


def migrated(report: StoreMigrated) -> Iterator[RenderableType]:
    """What is in the target now, what is not, with why, and how far the source has gone on."""
    rows: list[tuple[RenderableType, ...]] = [
        (
            name_of(one.agent),
            Text("moved", "green") if one.written else Text("the same"),
            f"{one.messages:,}",
            f"{one.archived:,}",
            f"{one.memories:,}",
            f"{one.concepts:,}",
            f"{one.written:,}",
            one.checksum[:_SHOWN],
        )
        for one in report.agents
    ]
    rows += [(name_of(one.agent), Text("not done", "red")) for one in report.failed]
    yield Columns(_HEADS, rows)
    if report.failed:
        why = [(name_of(one.agent), Text(one_line(str(one.cause)))) for one in report.failed]
        yield ""
        yield Columns((Head("agent", "name"), Head("why not", "text")), why)
    if report.left_out:
        yield ""
        yield Text("not carried, since no agent is known for it:", "yellow")
        for path in report.left_out:
            yield Text(f"  {one_line(path)}")
    yield ""
    yield Text(
        f"{counted(len(report.agents), 'agent is', 'agents are')} whole in the target", STRONG
    )
    if report.behind:
        yield Text(
            f"the source has had {counted(report.behind, 'change', 'changes')} since: run it again"
            " to carry them",
            "yellow",
        )
