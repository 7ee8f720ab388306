"""
Columns: a table that fits where it is printed, and a bar that shows how full something is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.table import Table

DIM = "dim"
STRONG = "bold"
NARROW = 72  # columns below which a table leaves its spare columns out
_BAR_COLUMNS = 20
_HIGH, _FULL = 0.8, 0.95  # shares at which a bar changes colour


class Head(NamedTuple):
    """The head of a column. A spare one is left out where there is little room."""

    text: str
    kind: str  # one of `_LOOKS`
    spare: bool = False


_LOOKS: dict[str, dict[str, Any]] = {
    "name": {"overflow": "fold", "min_width": 8, "style": STRONG},
    "number": {"justify": "right", "no_wrap": True},
    "time": {"no_wrap": True},
    "text": {"overflow": "fold", "style": DIM},
    "bar": {"min_width": _BAR_COLUMNS, "max_width": _BAR_COLUMNS},
}


class Columns:
    """A table. A row may be shorter than the others."""

    def __init__(self, heads: Sequence[Head], rows: Sequence[Sequence[RenderableType]]) -> None:
        self._heads = heads
        self._rows = rows

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        narrow = options.max_width < NARROW
        kept = [i for i, head in enumerate(self._heads) if not (narrow and head.spare)]
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style=DIM)
        for i in kept:
            table.add_column(self._heads[i].text, **_LOOKS[self._heads[i].kind])
        for row in self._rows:
            table.add_row(*[row[i] for i in kept if i < len(row)])
        yield table


class Bar:
    """How full something is, from 0 to 1; readable without colours too."""

    def __init__(self, share: float) -> None:
        self._share = min(max(share, 0.0), 1.0)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        full, empty = ("=", ".") if options.ascii_only else ("━", "─")
        width = min(options.max_width, _BAR_COLUMNS)
        # Whatever is not empty shows.
        filled = max(round(self._share * width), 1 if self._share else 0)
        colour = "red" if self._share > _FULL else "yellow" if self._share > _HIGH else "green"
        yield Segment(full * filled, Style.parse(colour))
        yield Segment(empty * (width - filled), Style.parse(DIM))
