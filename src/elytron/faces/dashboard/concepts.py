"""
Concepts: what is talked about, and a picture of what is near the chosen one.

The picture is for the eye; what it shows stands beside it as buttons and a table, for keyboards and
screen readers. Names in it are drawn, never made into HTML.
"""

from functools import partial

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from elytron.errors import ElytronError
from elytron.faces.dashboard.frame import Shown, page
from elytron.faces.dashboard.neighbourhood import Neighbourhood, neighbourhood, places
from elytron.faces.dashboard.parts import box, button, empty, facts, table, text_field, words
from elytron.faces.tables import moment
from elytron.faces.visible import clip, clip_name, counted, one_line
from elytron.records import Concept, ConceptDetails, Related

PATH = "/concepts"
_NAME_SHOWN = 40  # characters
_TOLD_SHOWN = 60
_LABEL_MAX = 22  # characters in the picture
_TEXT_MAX = 400  # characters of an example
_RELATIONS_MAX = 1000
_COLOURS = ("#c0683c", "#4f86c0", "#7d8a97")  # the chosen one, beside it, further away


@page(PATH, "Concepts", of_agent=True)
async def concepts(shown: Shown) -> None:
    view = _Concepts(shown)
    await view.build()


class _Concepts:
    """The page, and which concept is chosen on it."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._sought: str | None = None  # what is looked for among the names
        self._wanted = ""
        self._points: tuple[str, ...] = ()  # names in the picture
        self._buttons: dict[str, Element] = {}

    async def build(self) -> None:
        with box("div", "split"):
            with box("nav", "card list", aria_label="Concepts"):
                words("h2", "Concepts")
                self._field = text_field("Find by name", partial(self._shown.act, self._search))
                self._list = box("div", "entries")
            with box("section", "detail", aria_label="The chosen concept"):
                with box("div", "card"):
                    self._head = box("div", "stack")
                    # One chart for all that are chosen: a new one each time would break if it
                    # were removed before it is drawn.
                    self._chart: ui.echart | None = None
                    self._place = box("div")
                    self._near = box("div", "near", role="group", aria_label="Near it")
                self._rest = box("div", "detail")
        found = await self._fill(None)
        if found:
            with self._head:
                empty("Looking at the graph…", "The first look at a memory builds it.")
            # Once the page is there: to build a large graph takes longer than a page may.
            first = partial(self._shown.act, self._open, found[0].name, by_itself=True)
            ui.timer(0, first, once=True)
        else:
            with self._head:
                empty(
                    "No concept is known yet.",
                    "Names and terms that recur in messages are proposed by themselves; others are"
                    " told by remember and relate.",
                )

    async def _search(self) -> None:
        await self._fill(str(self._field.value or "").strip() or None)

    async def _fill(self, part: str | None) -> list[Concept]:
        self._sought = part
        most = self._shown.rows(self._shown.bounds.concepts_max)
        found = await self._shown.agent.concepts(part, limit=most)
        if self._sought != part:
            return found  # something else is looked for meanwhile
        self._list.clear()
        self._buttons = {}
        with self._list:
            for concept in found:
                entry = button("", partial(self._shown.act, self._open, concept.name), "entry")
                self._buttons[concept.name] = entry
                with entry:
                    words("span", clip_name(concept.name, _NAME_SHOWN), "strong name")
                    words("span", _kind(concept), "soft")
            if not found and part is not None:
                empty("No concept has that in its name.", "Type less, or something else.")
            elif len(found) == most:
                words("p", f"The {most} mentioned most. Find others by name.", "soft")
        return found

    async def choose_point(self, event: GenericEventArguments) -> None:
        """A click on the picture: what it says is a number, which leads to a name of ours."""
        told = event.args if isinstance(event.args, dict) else {}
        place, points = told.get("dataIndex"), self._points
        if told.get("dataType") == "node" and isinstance(place, int) and 0 <= place < len(points):
            await self._shown.act(self._open, points[place])

    async def _open(self, name: str) -> None:
        self._wanted = name
        details = await self._shown.agent.concept(name)
        if self._wanted != name:
            return  # another was chosen meanwhile
        if details is None:
            self._head.clear()
            with self._head:
                empty("There is no such concept any more.", "Choose another one.")
            return
        chosen, most = details.concept, self._shown.bounds.related_max
        related, trouble = await self._around(chosen.name)
        told = details.relations
        if related:
            limit = self._shown.rows(_RELATIONS_MAX)
            told = tuple(await self._shown.agent.relations(limit=limit))
        if self._wanted != name:
            return
        near = neighbourhood(chosen, related, told, limit=most)
        self._points = tuple(point.name for point in near.points)
        for other, entry in self._buttons.items():
            entry.props["aria-current"] = "true" if other == chosen.name else "false"
        self._show(details, trouble)
        self._picture(chosen.name, near)

    async def _around(self, name: str) -> tuple[dict[str, list[Related]], str]:
        """What the graph finds near a concept and its nearest; and why not, where it cannot."""
        agent, most = self._shown.agent, self._shown.rows(self._shown.bounds.related_max)
        try:
            found = {name: await agent.related(name, depth=2, limit=most)}
            nearest = [near.name for near in found[name] if near.depth == 1]
            for other in nearest[: self._shown.bounds.neighbours_asked]:
                found[other] = await agent.related(other, depth=1, limit=most)
        except ElytronError as error:  # it may be without its engine; the ledger still tells
            return {}, str(error)
        return found, ""

    def _show(self, details: ConceptDetails, trouble: str) -> None:
        """What is known of it, above and below the picture."""
        concept = details.concept
        self._head.clear()
        with self._head:
            words("h2", one_line(concept.name), "name")
            if concept.description:
                words("p", concept.description)
            facts(_facts(details))
            if trouble:
                words("p", f"Shown without the graph: {trouble}", "bad-text")
        self._rest.clear()
        with self._rest:
            with box("div", "card"):
                words("h3", "Relations that hold")
                _relations(details)
            with box("div", "card"):
                words("h3", "Where it is mentioned")
                if not details.examples:
                    words("p", "No message that is held names it.", "soft")
                for message in details.examples:
                    with box("div", "example"):
                        with box("div", "line"):
                            words("span", one_line(message.speaker), "strong")
                            words("span", moment(message.at), "soft")
                        words("p", clip(message.content, _TEXT_MAX), "said")

    def _picture(self, name: str, near: Neighbourhood) -> None:
        if self._chart is None:
            with self._place:
                self._chart = ui.echart(_options(near), renderer="svg").classes("graph")
            self._chart.on("componentClick", self.choose_point, ["dataType", "dataIndex"])
            self._chart.props["role"] = "img"
        else:
            self._chart.options.update(_options(near))
            self._chart.update()
        others = len(near.points) - 1
        self._chart.props["aria-label"] = (
            f"Picture of {counted(others, 'concept', 'concepts')} near {one_line(name)};"
            " the buttons below lead to the same"
        )
        self._near.clear()
        with self._near:
            for point in near.points[1:]:
                made = button("", partial(self._shown.act, self._open, point.name), "pill")
                with made:
                    words("span", clip_name(point.name, _NAME_SHOWN))
                    words("span", clip_name(point.told, _TOLD_SHOWN), "soft")
            if not others:
                words("p", "Nothing is near it: no relation, and nothing named with it.", "soft")


def _relations(details: ConceptDetails) -> None:
    rows = [
        [one_line(held.source), one_line(held.relation), one_line(held.target)]
        for held in details.relations
    ]
    if rows:
        table("Relations", ["From", "Relation", "To"], rows, numbers=set())
    else:
        words("p", "None was told. relate tells one.", "soft")
    for memory in details.memories[:5]:
        words("p", clip(memory.content, _TEXT_MAX), "said")


def _kind(concept: Concept) -> str:
    count = counted(concept.mentions, "mention", "mentions")
    return f"{count} · {one_line(concept.type)}" if concept.type else f"{count} · {concept.origin}"


def _facts(details: ConceptDetails) -> list[tuple[str, str]]:
    concept = details.concept
    pairs = [
        ("Type", one_line(concept.type or "none")),
        ("Known by", concept.origin),
        ("Confidence", f"{concept.confidence:.0%}"),
        ("Mentions", f"{concept.mentions:,}"),
    ]
    if details.first_at is not None:
        pairs += [("First", moment(details.first_at)), ("Last", moment(details.last_at))]
    return pairs


def _options(near: Neighbourhood) -> dict[str, object]:
    """The picture. What is in `name` is drawn as it stands; `id` is a number."""
    points = [
        {
            "id": str(n),
            "x": x,
            "y": y,
            "name": clip_name(point.name, _LABEL_MAX),
            "symbolSize": (40, 26, 15)[min(point.depth, 2)],
            "itemStyle": {"color": _COLOURS[min(point.depth, 2)]},
            "label": {"fontWeight": "bold" if point.depth == 0 else "normal"},
        }
        for n, (point, (x, y)) in enumerate(zip(near.points, places(near), strict=True))
    ]
    lines = [
        {
            "source": str(line.source),
            "target": str(line.target),
            "lineStyle": {"type": "solid" if line.told else "dashed", "width": 1.5},
            "value": clip_name(line.label, _LABEL_MAX),
            "label": {"show": line.told and 0 in (line.source, line.target), "formatter": "{c}"},
        }
        for line in near.lines
    ]
    return {
        "animation": False,
        "tooltip": {"show": False},
        "series": [
            {
                "type": "graph",
                "layout": "none",
                "left": "9%",
                "right": "9%",
                "top": 26,
                "bottom": 44,
                "preserveAspect": True,
                "roam": False,
                "data": points,
                "links": lines,
                "label": {"show": True, "position": "bottom", "fontSize": 12},
                "edgeLabel": {"fontSize": 11},
                "lineStyle": {"color": "#8a94a0", "opacity": 0.7, "curveness": 0.04},
                "emphasis": {"focus": "adjacency"},
            }
        ],
    }
