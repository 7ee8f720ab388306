"""
Frame: what all pages have around them: the way in, the head, the theme, and who may look.
"""

import contextlib
import importlib.resources
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

from fastapi import Request
from nicegui import ui
from nicegui.element import Element

from elytron.aio import AsyncAgent, AsyncStore
from elytron.errors import ElytronError, InvalidArgument
from elytron.faces.dashboard.bounds import Bounds
from elytron.faces.dashboard.looks import Looks
from elytron.faces.dashboard.parts import box, button, link, notice, words
from elytron.faces.dashboard.sessions import Sessions, SignedOut, Viewer
from elytron.faces.visible import clip_name, one_line

CSS = (importlib.resources.files("elytron.faces.dashboard") / "style.css").read_text("utf-8")
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="17" r="12"'
    ' fill="#c0392b"/><path d="M16 5v24" stroke="#1d2025" stroke-width="2"/><circle cx="16" cy="7"'
    ' r="5" fill="#1d2025"/><circle cx="11" cy="15" r="2.2" fill="#1d2025"/><circle cx="21" cy="15"'
    ' r="2.2" fill="#1d2025"/><circle cx="11" cy="22" r="2.2" fill="#1d2025"/><circle cx="21"'
    ' cy="22" r="2.2" fill="#1d2025"/></svg>'
)
KEY = "elytron.dashboard"  # in a request's scope: (Dashboard, id of the session)
THEME_COOKIE = "elytron_theme"
_THEMES = {"system": None, "light": False, "dark": True}
_THEME_MAX_AGE_S = 365 * 86_400
_RESPONSE_TIMEOUT_S = 60.0  # beyond the deadlines of the store's own reads
_CHECK_INTERVAL_S = 10.0  # after which a page that is only looked at finds its session ended
_NAME_SHOWN = 60  # characters
AGENT_PAGES = (
    ("/agent", "Growth"),
    ("/recall", "Recall"),
    ("/conversations", "Conversations"),
    ("/concepts", "Concepts"),
    ("/cleanup", "Clean-up"),
)

_log = logging.getLogger("elytron.dashboard")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """
    What one dashboard's pages share.

    `opened` has, for each open page, the session that opened it.
    """

    store: AsyncStore
    sessions: Sessions
    looks: Looks
    bounds: Bounds
    opened: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shown:
    """One open page: whose it is, and which agent it is about, if any."""

    dashboard: Dashboard
    viewer: Viewer
    content: Element
    name: str = ""

    @property
    def agent(self) -> AsyncAgent:
        return self.dashboard.store.agent(self.name)

    @property
    def bounds(self) -> Bounds:
        return self.dashboard.bounds

    def rows(self, wanted: int) -> int:
        """So many rows of one read, or as many as the store allows."""
        return min(wanted, self.dashboard.store.config.max_query_rows)

    async def act(
        self,
        action: Callable[..., Awaitable[None]],
        *arguments: object,
        writes: bool = False,
        by_itself: bool = False,
    ) -> None:
        """
        Do what whoever looks asked for: if he may now, on the page's agent if it has one.

        What goes wrong is shown and ends here, with the page as it was. All handlers of a page
        go through this. What a page does *by_itself* does not keep its session alive.
        """
        with self.content:  # which stays, whatever is replaced within it
            try:
                self.viewer.access()
                if not by_itself:
                    self.viewer.use()
                if self.name:
                    self.viewer.require(self.name, writes=writes)
                await action(*arguments)
            except SignedOut:
                ui.navigate.to("/login")
            except ElytronError as error:
                notice(str(error), bad=True)
            except Exception as error:  # noqa: BLE001 - told below; its text may quote a message
                _log.error("a page failed with %s", _where(error))
                notice("That failed; the server's log says where.", bad=True)


Build = Callable[[Shown], Awaitable[None]]


def page(path: str, title: str, *, of_agent: bool = False) -> Callable[[Build], Build]:
    """Serve what a function builds at *path* in the frame; of one agent, named in the query."""

    def register(build: Build) -> Build:
        if of_agent:

            async def of_one(request: Request, name: str = "") -> None:
                await _show(request, build, path, title, name=name)

            shown: Callable[..., Awaitable[None]] = of_one
        else:

            async def of_all(request: Request) -> None:
                await _show(request, build, path, title, name=None)

            shown = of_all
        ui.page(path, title=f"{title} · Elytron", response_timeout=_RESPONSE_TIMEOUT_S)(shown)
        return build

    return register


async def _show(request: Request, build: Build, path: str, title: str, *, name: str | None) -> None:
    dashboard, session = request.scope[KEY]
    viewer = Viewer(dashboard.sessions, session)
    _remember(dashboard, session)
    ui.add_css(CSS)
    shown = Shown(dashboard, viewer, ui.context.client.content, name or "")
    with _told():
        viewer.access()
        _head(request, viewer, path)
        main = box("div", "page")
        ui.skip_link(target=main)
        with main, _told():
            if name is None:
                words("h1", title)
            else:
                await _agent_head(shown, path, title)
            await build(shown)
    if viewer.logs_in:
        ui.timer(_CHECK_INTERVAL_S, lambda: _check(viewer), immediate=False)


def _remember(dashboard: Dashboard, session: str | None) -> None:
    client = ui.context.client
    dashboard.opened[client.id] = session
    client.on_delete(lambda: dashboard.opened.pop(client.id, None))


def _check(viewer: Viewer) -> None:
    try:
        viewer.access()
    except SignedOut:
        ui.navigate.to("/login")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Show what goes wrong while a page is built, in its place."""
    try:
        yield
    except ElytronError as error:
        ui.context.client.status_code = _STATUS.get(error.code, 500)
        with box("section", "card empty", role="alert"):
            told = _SAID.get(error.code, "That cannot be shown")
            words("h2", "No agent can be called so" if isinstance(error, _NoName) else told)
            words("p", str(error))
            link("Back to the agents", "/")
    except Exception as error:  # noqa: BLE001 - told below; its text may quote a message
        _log.error("a page failed with %s", _where(error))
        ui.context.client.status_code = 500
        with box("section", "card empty", role="alert"):
            words("h2", "That cannot be shown")
            words("p", "Something failed; the server's log says where.")


def _where(error: Exception) -> str:
    """An error for the log: its kind and place, without its text."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {place.name}, {place.filename}:{place.lineno}"


_STATUS = {"access-denied": 403, "not-found": 404, "invalid-argument": 400, "busy": 503}
_SAID = {
    "access-denied": "Not for this token",
    "not-found": "No such agent",
}


class _NoName(ElytronError):
    """No agent can have this name."""

    code = "invalid-argument"


class _NoAgent(ElytronError):
    """No agent of this name was ever written to."""

    code = "not-found"


async def _agent_head(shown: Shown, path: str, title: str) -> None:
    shown.viewer.require(shown.name)
    try:
        known = await shown.agent.exists()
    except InvalidArgument as error:
        raise _NoName(str(error)) from error
    called = clip_name(shown.name, _NAME_SHOWN)
    ui.page_title(f"{called} · {title} · Elytron")
    with box("div", "agent-head"):
        link("Agents", "/", "crumb")
        words("h1", one_line(shown.name), "name")
    if not known:
        raise _NoAgent(
            "nothing was ever saved under this name; elytron agents lists those there are"
        )
    with box("nav", "tabs", aria_label="Of this agent"):
        for target, label in AGENT_PAGES:
            tab = link(label, agent_path(target, shown.name))
            if target == path:
                tab.props["aria-current"] = "page"


def agent_path(path: str, name: str) -> str:
    """The address of an agent's page. It holds the agent's name, and nothing else ever."""
    return f"{path}?{urlencode({'name': name})}"


def _head(request: Request, viewer: Viewer, path: str) -> None:
    theme = request.cookies.get(THEME_COOKIE, "system")
    dark = ui.dark_mode(_THEMES.get(theme))
    with ui.header(fixed=False, elevated=False, add_scroll_padding=False).classes("top"):
        with link("", "/", "brand") as brand:
            box("span", "mark", aria_hidden="true")
            words("span", "Elytron")
        brand.props["aria-label"] = "Elytron, all agents"
        with box("nav", "main-nav", aria_label="Main"):
            for target, label in (("/", "Agents"), ("/health", "Health")):
                entry = link(label, target)
                if target == path:
                    entry.props["aria-current"] = "page"
        with box("div", "head-end"):
            _theme_button(theme if theme in _THEMES else "system", dark)
            if viewer.logs_in:
                words("span", clip_name(viewer.access().name, 24), "who")
                with box("form", method="post", action="/logout"):
                    leave = words("button", "Log out", "button quiet")
                    leave.props["type"] = "submit"


def _theme_button(theme: str, dark: ui.dark_mode) -> None:
    """Turns through system, light, dark; the choice is a cookie, so that no page flashes."""
    order = list(_THEMES)
    state = {"theme": theme}

    def tell(chosen: str) -> None:
        turned.text = f"\N{CIRCLE WITH LEFT HALF BLACK} {chosen}"
        turned.props["aria-label"] = f"Theme: {chosen}"

    def turn() -> None:
        state["theme"] = order[(order.index(state["theme"]) + 1) % len(order)]
        chosen = state["theme"]
        dark.value = _THEMES[chosen]
        tell(chosen)
        kept = f"{THEME_COOKIE}={chosen}; path=/; max-age={_THEME_MAX_AGE_S}; samesite=strict"
        ui.run_javascript(f"document.cookie = {kept!r}")

    turned = button("", turn, "quiet")
    tell(theme)
