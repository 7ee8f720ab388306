"""
Overview: all agents, each against its limits.

Of a few agents all figures are kept fresh. Of many, those of the agents shown: each look opens an
agent. To sort many by size, all are looked at once, when that is asked for.
"""

from collections.abc import Sequence
from functools import partial

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from elytron.config import Config
from elytron.faces.costs import Unreadable
from elytron.faces.dashboard.frame import Shown, agent_path, page
from elytron.faces.dashboard.limits import LABELS, Against, against
from elytron.faces.dashboard.looks import Cost
from elytron.faces.dashboard.parts import Gauge, box, button, empty, facts, link, notice, words
from elytron.faces.usage_tables import nearest
from elytron.faces.visible import clip_name, human_bytes, one_line
from elytron.records import Usage

PATH = "/"
_PAGE_SIZE = 20  # agents
_NAME_SHOWN = 80  # characters
_ALARMS_MAX = 20
_SORTS = {
    "name": "Name",
    "fullest": "Fullest",
    "messages": "Messages",
    "size": "Size",
    "archive": "Archive",
}


@page(PATH, "Agents")
async def overview(shown: Shown) -> None:
    view = _Overview(shown)
    await view.build()
    ui.timer(
        shown.bounds.look_interval_s,
        partial(shown.act, view.refresh, by_itself=True),
        immediate=False,
    )


class _Row:
    """One agent in the list."""

    def __init__(self, name: str, config: Config) -> None:
        self._config = config
        self._before: Cost | None = None
        with box("li", "card agent"):
            with box("div", "agent-name"):
                link(clip_name(name, _NAME_SHOWN), agent_path("/agent", name), "name")
                self._coming = words("span", "", "soft")
            self._error = words("p", "", "bad-text")
            with box("div", "gauges") as self._bars:
                near = config.soft_limit_ratio
                self._gauges = {label: Gauge(label, near=near) for label in LABELS}
        self._error.set_visibility(False)

    def show(self, cost: Cost) -> None:
        """Show it as it is now; sends nothing if nothing changed."""
        if cost == self._before:
            return
        self._before = cost
        unreadable = isinstance(cost, Unreadable)
        self._error.set_visibility(unreadable)
        self._bars.set_visibility(not unreadable)
        if isinstance(cost, Unreadable):
            self._coming.text = "cannot be read"
            self._error.text = one_line(str(cost.cause))
            return
        self._coming.text = nearest(cost.forecast)
        for limit in against(cost, self._config):
            self._gauges[limit.label].show(limit.used, limit.maximum, limit.told)


class _Overview:
    """The page, and what is chosen on it."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._looks = shown.dashboard.looks
        self._config = shown.dashboard.store.config
        self._names: Sequence[str] = ()
        self._rows: dict[str, _Row] = {}
        self._costs: dict[str, Cost] = {}
        self._sort: str | None = None  # until one is chosen: the fullest first, if all are known
        self._filter = ""
        self._page = 0
        self._sorts: dict[str, TextElement] = {}
        self._alarmed: tuple[tuple[str, str], ...] = ()
        self._totalled: list[tuple[str, str]] = []

    async def build(self) -> None:
        shown = self._shown
        await self._look()
        self._alarms = box("div", "alarms", role="status")
        self._totals = box("div")
        with box("div", "toolbar") as self._toolbar:
            field = ui.input(
                "Filter by name", on_change=lambda event: shown.act(self._filtered, event.value)
            )
            field.props('outlined dense debounce="200" type="search"').classes("filter")
            with box("div", "sorts", role="group", aria_label="Sort by"):
                words("span", "Sort", "soft")
                for key, label in _SORTS.items():
                    self._sorts[key] = button(label, partial(shown.act, self._choose, key), "pill")
        self._note = box("div", "soft")
        self._list = box("ul", "agents")
        self._pager = box("nav", "pager", aria_label="Pages")
        self._render()

    async def refresh(self) -> None:
        """Look again; what changed changes in place, so that no focus is lost."""
        before, listed = self._names, list(self._rows)
        await self._look()
        if before != self._names:
            self._render()
            return
        for name in listed:
            if name in self._costs:
                self._rows[name].show(self._costs[name])
        self._render_alarms()
        self._render_totals()

    async def _look(self) -> None:
        allowed = self._shown.viewer.access()
        names = await self._looks.names()
        self._names = [name for name in names if allowed.allows(name, writes=False)]
        few = self._looks.few(self._names)
        wanted = self._names if few else self._visible()
        self._costs = {
            **self._looks.known(self._names),
            **await self._looks.costs(wanted),
        }

    async def _filtered(self, text: object) -> None:
        self._filter, self._page = str(text or "").casefold(), 0
        await self._turn()

    async def _choose(self, sort: str) -> None:
        """Sort by something; where that needs all agents to be looked at, do so."""
        if sort != "name" and not self._known_all():
            notice(f"Looking at {len(self._names):,} agents…")
            age_s = self._shown.bounds.survey_max_age_s
            self._costs = dict(await self._looks.costs(self._names, max_age_s=age_s))
        self._sort, self._page = sort, 0
        self._render()

    async def _turn_to(self, page: int) -> None:
        self._page = page
        await self._turn()

    async def _turn(self) -> None:
        await self._look()
        self._render()

    def _known_all(self) -> bool:
        return all(name in self._costs for name in self._names)

    # -- what is shown

    def _matching(self) -> list[str]:
        names = [name for name in self._names if self._filter in name.casefold()]
        sort = self._sort or ("fullest" if self._known_all() else "name")
        if sort == "name":
            return names
        return sorted(names, key=lambda name: -_weight(self._costs.get(name), sort, self._config))

    def _visible(self) -> list[str]:
        start = self._page * _PAGE_SIZE
        return self._matching()[start : start + _PAGE_SIZE]

    def _render(self) -> None:
        matching = self._matching()
        self._page = min(self._page, max(0, (len(matching) - 1) // _PAGE_SIZE))
        self._toolbar.set_visibility(len(self._names) > 1)
        sort = self._sort or ("fullest" if self._known_all() else "name")
        for key, made in self._sorts.items():
            made.props["aria-pressed"] = "true" if key == sort else "false"
        self._render_alarms()
        self._render_totals()
        self._note.clear()
        with self._note:
            if not self._looks.few(self._names):
                words("p", "There are many agents: figures are kept fresh for those shown.")
        self._list.clear()
        self._rows = {}
        with self._list:
            for name in self._visible():
                self._rows[name] = row = _Row(name, self._config)
                if name in self._costs:
                    row.show(self._costs[name])
            if not self._names:
                _nothing(self._shown.dashboard.store.shown)
            elif not matching:
                empty("No agent's name has that in it.", "Type less, or something else.")
        self._render_pager(len(matching))

    def _render_pager(self, matching: int) -> None:
        pages = -(-matching // _PAGE_SIZE)
        self._pager.clear()
        self._pager.set_visibility(pages > 1)
        with self._pager:
            if self._page > 0:
                button("Previous", partial(self._shown.act, self._turn_to, self._page - 1))
            words("span", f"Page {self._page + 1:,} of {max(1, pages):,}", "soft")
            if self._page + 1 < pages:
                button("Next", partial(self._shown.act, self._turn_to, self._page + 1))

    def _render_alarms(self) -> None:
        found = [
            (limit.share, name, limit)
            for name, cost in self._costs.items()
            if isinstance(cost, Usage)
            for limit in against(cost, self._config)
            if limit.share >= self._config.soft_limit_ratio
        ]
        told = tuple(
            (name, limit.said) for _, name, limit in sorted(found, reverse=True, key=_first)
        )
        if told == self._alarmed:
            return
        self._alarmed = told
        self._alarms.clear()
        with self._alarms:
            for name, said in told[:_ALARMS_MAX]:
                with box("p", "alarm"):
                    link(clip_name(name, _NAME_SHOWN), agent_path("/cleanup", name), "name")
                    words("span", said)

    def _render_totals(self) -> None:
        held = [cost for cost in self._costs.values() if isinstance(cost, Usage)]
        size = sum(cost.bytes.on_disk for cost in held)
        partly = "" if len(held) >= len(self._names) else f" of {len(held):,} looked at"
        pairs = [
            ("Agents", f"{len(self._names):,}"),
            (f"Messages{partly}", f"{sum(cost.messages for cost in held):,}"),
            (f"Archived{partly}", f"{sum(cost.archived for cost in held):,}"),
            (f"On disk{partly}", human_bytes(size)),
        ]
        limit = self._config.max_total_bytes
        if limit is not None and not partly and self._shown.viewer.may(None):
            pairs[-1] = ("On disk", f"{human_bytes(size)} of {human_bytes(limit)}")
        if pairs == self._totalled:
            return
        self._totalled = pairs
        self._totals.clear()
        with self._totals:
            if self._names:
                facts(pairs)


def _first(found: tuple[float, str, Against]) -> float:
    return found[0]


def _weight(cost: Cost | None, sort: str, config: Config) -> float:
    if cost is None:
        return -1.0
    if isinstance(cost, Unreadable):
        return float("inf")  # what is damaged comes first
    if sort == "fullest":
        return max(limit.share for limit in against(cost, config))
    found = {"messages": cost.messages, "size": cost.bytes.total, "archive": cost.bytes.archive}
    return found[sort]


def _nothing(store: str) -> None:
    empty(
        "No agent has a memory here yet.",
        "Save a first message, or pour the demo conversation in; this page shows it at once.",
        f"elytron demo --store {store}",
    )
