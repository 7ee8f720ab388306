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
NARROW = 72  # columns below which a table leaves out what can be spared
SLIM = 52  # below which there is room for names and numbers alone
ROOMY = 110  # and below which it has no room for extras
_BAR_COLUMNS = 20
_BAR_COLUMNS_MIN = 3
_LABEL_COLUMNS = 8
_HIGH, _FULL = 0.8, 0.95  # shares at which a bar changes colour


class Head(NamedTuple):
    """The head of a column, which is left out where a line has less than *room* columns."""

    text: str
    kind: str  # one of `_LOOKS`
    room: int = 0


_LOOKS: dict[str, dict[str, Any]] = {
    "name": {"overflow": "fold", "min_width": 8, "style": STRONG},
    "number": {"justify": "right", "no_wrap": True},
    "time": {"no_wrap": True},
    "text": {"overflow": "fold", "style": DIM},
    "bar": {"min_width": 6, "max_width": _BAR_COLUMNS},
    "gauge": {"min_width": _LABEL_COLUMNS, "max_width": _LABEL_COLUMNS + 11},
}


class Columns:
    """A table. A row may be shorter than the others."""

    def __init__(self, heads: Sequence[Head], rows: Sequence[Sequence[RenderableType]]) -> None:
        self._heads = heads
        self._rows = rows

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        kept = [i for i, head in enumerate(self._heads) if head.room <= options.max_width]
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style=DIM)
        for i in kept:
            table.add_column(self._heads[i].text, **_LOOKS[self._heads[i].kind])
        for row in self._rows:
            table.add_row(*[row[i] for i in kept if i < len(row)])
        yield table


class Bar:
    """
    How full something is, from 0 to 1; readable without colours too.

    A *label* stands before it, such as what the share is of, and alone where a line is short.
    """

    def __init__(self, share: float, *, label: str = "") -> None:
        self._share = min(max(share, 0.0), 1.0)
        self._label = f"{label:>{_LABEL_COLUMNS}} " if label else ""

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        full, empty = ("=", ".") if options.ascii_only else ("━", "─")
        width = min(options.max_width - len(self._label), _BAR_COLUMNS)
        if width < _BAR_COLUMNS_MIN and self._label:  # says nothing; the label does
            width = 0
        # Whatever is not empty shows.
        filled = min(width, max(round(self._share * width), 1 if self._share else 0))
        colour = "red" if self._share > _FULL else "yellow" if self._share > _HIGH else "green"
        yield Segment(self._label)
        yield Segment(full * filled, Style.parse(colour))
        yield Segment(empty * (width - filled), Style.parse(DIM))
