"""
Graphs: which agents' graphs the worker holds, at most `max_open_graphs` of them.

The least recently used is given back to make room; so is one that another process waits for, one
that nobody used for a while, and, where memory runs short, every one that nobody uses.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from elytron.errors import Busy
from elytron.graph.engines import Limits
from elytron.graph.files import GraphFolder
from elytron.graph.held import HeldGraph

_ROOM_POLL_S = 0.02
_GIVE_BACK_S = 60.0  # for those who use a graph that is waited for


class Graphs:
    """Those in use or held. Safe for many threads."""

    def __init__(
        self,
        module: ModuleType,
        limits: Limits,
        *,
        max_open: int,
        idle_s: float,
        is_short: Callable[[], bool],
    ) -> None:
        self._module = module
        self._limits = limits
        self._max_open = max_open
        self._idle_s = idle_s
        self._is_short = is_short  # of memory, now that what was freed is given back
        self._changed = threading.Condition()
        self._graphs: dict[str, HeldGraph] = {}
        self._users: dict[str, int] = {}
        self._coming: set[str] = set()  # those about to be held
        self._giving_back: set[str] = set()

    @contextlib.contextmanager
    def using(self, folder: str) -> Iterator[HeldGraph]:
        """The graph in *folder*, which is an absolute and real path. Opens nothing yet."""
        with self._changed:
            graph = self._graphs.get(folder)
            if graph is None:
                where = GraphFolder(Path(folder), self._module.__name__)
                graph = HeldGraph(self._module, where, self._limits, self._make_room)
                self._graphs[folder] = graph
            self._users[folder] = self._users.get(folder, 0) + 1
        try:
            yield graph
        finally:
            with self._changed:
                self._users[folder] -= 1
                if not self._users[folder]:
                    del self._users[folder]
                    self._coming.discard(folder)
                    if not graph.held:
                        del self._graphs[folder]
                self._changed.notify_all()

    @property
    def held(self) -> int:
        with self._changed:
            return sum(graph.held for graph in self._graphs.values())

    @property
    def building(self) -> bool:
        with self._changed:
            return any(graph.building for graph in self._graphs.values())

    def look_after(self) -> None:
        """Give back what is waited for or idle. Raises EngineFailed."""
        now = time.monotonic()
        for folder, graph in self._snapshot():
            graph.abandon_if_idle()
            if now - graph.used_at > self._idle_s:
                self._give_back_now(folder, graph)
            elif graph.is_wanted() and folder not in self._giving_back:
                self._giving_back.add(folder)
                # It waits for those who use the graph, and whoever looks after all may not.
                threading.Thread(target=self._give_back, args=(folder, graph), daemon=True).start()

    def shrink(self) -> None:
        """Where memory runs short, give back those that nobody uses, the longest unused first."""
        for folder, graph in sorted(self._snapshot(), key=lambda one: one[1].used_at):
            if not self._is_short():
                return
            self._give_back_now(folder, graph)

    def interrupt(self) -> None:
        for _, graph in self._snapshot():
            graph.interrupt()

    def close(self, deadline: float) -> None:
        """Give back all of them. Raises Busy, EngineFailed."""
        for _, graph in self._snapshot():
            graph.give_back(deadline)

    def _snapshot(self) -> list[tuple[str, HeldGraph]]:
        with self._changed:
            return [(folder, graph) for folder, graph in self._graphs.items() if graph.held]

    def _give_back_now(self, folder: str, graph: HeldGraph) -> bool:
        given = graph.give_back_now()
        if given:
            self._forget(folder)
        return given

    def _give_back(self, folder: str, graph: HeldGraph) -> None:
        try:
            graph.give_back(time.monotonic() + _GIVE_BACK_S)
            self._forget(folder)
        except Busy:
            return  # it is tried again as long as somebody waits
        finally:
            self._giving_back.discard(folder)

    def _forget(self, folder: str) -> None:
        with self._changed:
            graph = self._graphs.get(folder)
            if graph is not None and not graph.held and folder not in self._users:
                del self._graphs[folder]
            self._changed.notify_all()

    def _make_room(self, graph: HeldGraph, deadline: float) -> None:
        """Called before *graph* is held, by whoever uses it alone. Raises Busy."""
        own = str(graph.folder.path)
        self.shrink()
        while True:
            with self._changed:
                taken = [
                    (folder, other)
                    for folder, other in self._graphs.items()
                    if folder != own and (other.held or folder in self._coming)
                ]
                if len(taken) < self._max_open:
                    self._coming.add(own)
                    return
            held = [one for one in taken if one[1].held]
            longest_unused_first = sorted(held, key=lambda one: one[1].used_at)
            if any(self._give_back_now(*one) for one in longest_unused_first):
                continue
            with self._changed:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise Busy(
                        f"all {self._max_open} graphs that may be open at once stayed in use; try"
                        " again, or raise `max_open_graphs`"
                    )
                self._changed.wait(min(left_s, _ROOM_POLL_S))
