"""
Progress: a bar on stderr for a verb that may last, unless programs read what is printed.

Rich is imported only where a bar is shown.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

from elytron.agent import Agent
from elytron.errors import Corrupt
from elytron.faces.visible import clip_name

_NAME_SHOWN = 30  # characters of a name beside a bar
_PATIENCE_S = 1.0  # a verb that is over by then needs no bar

OnStep = Callable[[int, int | None], None]


@contextlib.contextmanager
def stepping(memory: Agent, doing: str, *, silent: bool) -> Iterator[OnStep | None]:
    """A bar for a verb that says (done, total), or nothing; taken away before its report."""
    if silent:
        yield None
        return
    from elytron.faces.terminal import progress

    label = f"{doing} {clip_name(memory.name, _NAME_SHOWN)}"
    with progress(label, transient=True) as on_progress:
        yield on_progress


@contextlib.contextmanager
def counting(
    memory: Agent, doing: str, *, silent: bool, archived: bool = False
) -> Iterator[Callable[[int], None] | None]:
    """A bar over all messages of an agent, with those *archived* where they count too."""
    with stepping(memory, doing, silent=silent) as on_progress:
        if on_progress is None:
            yield None
            return
        total: int | None
        try:
            usage = memory.usage()
            total = usage.messages + (usage.archived if archived else 0)
        except Corrupt:  # it is for the verb to say so, or to repair it
            total = None
        yield lambda done: on_progress(done, total)


@contextlib.contextmanager
def waiting(memory: Agent, doing: str, *, silent: bool) -> Iterator[None]:
    """A bar that only moves, for a verb that says nothing of itself; none if it is over soon."""
    if silent:
        yield
        return
    over = threading.Event()

    def show_later() -> None:
        if not over.wait(_PATIENCE_S):
            with stepping(memory, doing, silent=False):
                over.wait()

    bar = threading.Thread(target=show_later, name="elytron-progress", daemon=True)
    try:
        bar.start()  # in here, as Ctrl-C may come while it waits for the thread to begin
        yield
    finally:
        over.set()
        if bar.is_alive():
            bar.join()
