"""
Terminal: where people read: its width, its colours, and progress.

Nothing but text reaches a file or a pipe: no control codes, no blanks at the ends of lines.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from elytron.faces.output import emit

_WIDTH_MIN, _WIDTH_MAX = 44, 120  # columns; tables need some, and longer lines are hard to read


def console(*, stderr: bool = False) -> Console:
    """A console that reads no markup, finds no emoji and colours no numbers in what it is given."""
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    made.width = max(_WIDTH_MIN, min(made.width, _WIDTH_MAX))
    return made


def show(*parts: RenderableType) -> None:
    """Print for people, on stdout."""
    out = console()
    # Captured, and written by us: rich would leave the program on a closed pipe.
    with out.capture() as captured:
        for part in parts:
            out.print(part)
    text = captured.get()
    if not out.is_terminal:
        text = "\n".join([line.rstrip() for line in text.split("\n")])
    emit(text)


def redraws() -> bool:
    """Whether stdout is a terminal on which what was shown can be drawn over."""
    out = console()
    return out.is_terminal and not out.is_dumb_terminal


@contextlib.contextmanager
def live() -> Iterator[Callable[[Callable[[int], Iterable[RenderableType]]], None]]:
    """
    A place on the terminal that is drawn anew each time.

    Yields a function to call with another, which makes the parts for a number of lines.
    """
    out = console()
    with Live(console=out, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as now:

        def draw(parts: Callable[[int], Iterable[RenderableType]]) -> None:
            out.width = console().width  # the terminal may have another size by now
            now.update(Group(*parts(out.height)), refresh=True)

        yield draw


@contextlib.contextmanager
def progress(label: str, *, transient: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """
    A progress bar on stderr, if that is a terminal.

    Yields a function to call with (done, total), where the total may be None for not known;
    until its first call the bar only moves. A *transient* one is taken away at the end.
    """
    out = console(stderr=True)
    if not out.is_terminal:
        yield lambda _done, _total: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out, expand=True, transient=transient) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
