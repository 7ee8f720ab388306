"""
Parts: what pages are put together from.

Text from the store goes into text nodes and into attributes by name, never into HTML, a class, a
style or a string of properties. `visible` makes what would turn or hide the text around it show.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from elytron.faces.costs import share_of
from elytron.faces.visible import one_line, visible

_NOTICE_MS = 6000
_FULL = 1.0


def box(tag: str, classes: str = "", **attributes: object) -> Element:
    """An element to put others in; underscores in names of attributes are hyphens."""
    element = ui.element(tag).classes(classes)
    for name, value in attributes.items():
        element.props[name.replace("_", "-")] = value
    return element


def words(tag: str, text: str, classes: str = "") -> TextElement:
    """An element that holds text."""
    return TextElement(tag=tag, text=visible(text)).classes(classes)


def link(text: str, path: str, classes: str = "") -> TextElement:
    """A link to one of our own pages."""
    anchor = words("a", text, classes)
    anchor.props["href"] = path
    return anchor


def button(
    text: str,
    on_click: Callable[..., Awaitable[None] | None],
    classes: str = "",
) -> TextElement:
    """A button that does something here."""
    made = words("button", text, f"button {classes}")
    made.props["type"] = "button"
    made.on("click", on_click, args=[])
    return made


def notice(text: str, *, bad: bool = False) -> None:
    """Tell whoever looks something, for a while; screen readers say it."""
    ui.notify(
        one_line(text),
        type="negative" if bad else "info",
        position="bottom",
        timeout=_NOTICE_MS,
        close_button="Close",
        classes="told bad" if bad else "told",
        icon="",
    )


def facts(pairs: list[tuple[str, str]]) -> None:
    """Names and values, side by side where there is room."""
    with box("dl", "facts"):
        for name, value in pairs:
            with box("div"):
                words("dt", name)
                words("dd", value)


def empty(title: str, hint: str, code: str = "") -> None:
    """What to show where there is nothing: why, and what to do."""
    with box("div", "empty"):
        words("p", title, "strong")
        words("p", hint, "soft")
        if code:
            words("code", code)


def table(label: str, heads: list[str], rows: list[list[str]], *, numbers: set[int]) -> None:
    """A table of texts, which scrolls by itself where it is wider than its place."""
    with (
        box("div", "scroll", tabindex="0", role="region", aria_label=label),
        box("table", "plain"),
    ):
        with box("thead"), box("tr"):
            for n, head in enumerate(heads):
                words("th", head, "number" if n in numbers else "").props["scope"] = "col"
        with box("tbody"):
            for row in rows:
                with box("tr"):
                    for n, text in enumerate(row):
                        words("td", text, "number" if n in numbers else "")


class Gauge:
    """A bar against a limit, told in words and numbers too."""

    def __init__(self, what: str, *, near: float) -> None:
        """*near* is the share of the limit from which on it is near."""
        self._near = near
        self._before: tuple[float, float, str] | None = None
        with box("div", "gauge"):
            with box("div", "gauge-head"):
                words("span", what)
                self._told = words("span", "", "gauge-told")
            self._track = box("div", "track", role="meter", aria_valuemin=0, aria_valuemax=100)
            self._track.props["aria-label"] = what
            with self._track:
                self._fill = box("div", "fill none").style("width: 0%")

    def show(self, used: float, limit: float, text: str) -> None:
        """Set it; *text* is used and limit for people. Sends nothing if nothing changed."""
        if self._before == (used, limit, text):
            return
        self._before = used, limit, text
        share = share_of(used, limit)
        state = "full" if share >= _FULL else "near" if share >= self._near else ""
        label = {"full": " · full", "near": " · near"}.get(state, "")
        self._told.text = f"{text}{label}"
        self._told.classes(replace=f"gauge-told {state}")
        self._fill.style(f"width: {min(share, 1.0) * 100:.1f}%")
        self._fill.classes(replace=f"fill {state}" if used else "fill none")
        self._track.props["aria-valuenow"] = round(min(share, 1.0) * 100)
        self._track.props["aria-valuetext"] = f"{text}{label}"


def text_field(label: str, on_enter: Callable[[], Any], *, placeholder: str = "") -> ui.input:
    """A line to type in; Enter does what it is for."""
    field = ui.input(label, placeholder=placeholder)
    field.props('outlined dense maxlength="20000" autocomplete="off" spellcheck="false"')
    field.on("keydown.enter", on_enter, args=[])
    return field
