"""Conversations: the sessions of an agent, and what was said in one, paged back from its end."""

from collections.abc import Awaitable, Callable
from functools import partial

from nicegui.element import Element

from elytron.faces.dashboard.frame import Shown, page
from elytron.faces.dashboard.parts import box, button, empty, words
from elytron.faces.tables import moment
from elytron.faces.visible import clip, clip_name, counted, one_line
from elytron.records import Message, Session

PATH = "/conversations"
_NAME_SHOWN = 60  # characters
_TEXT_MAX = 20_000  # characters of a message


@page(PATH, "Conversations", of_agent=True)
async def conversations(shown: Shown) -> None:
    view = _Conversations(shown)
    await view.build()


class _Conversations:
    """The page, and which conversation is open on it."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._limit = shown.bounds.sessions_step
        self._wanted = ""
        self._oldest: str | None = None  # id of the oldest message shown, where older ones are held
        self._buttons: dict[str, Element] = {}

    async def build(self) -> None:
        with box("div", "split"):
            with box("nav", "card list", aria_label="Conversations"):
                words("h2", "Conversations")
                self._list = box("div", "entries")
            self._talk = box("section", "card talk", aria_label="Messages")
        sessions = await self._fill()
        if sessions:
            await self._open(sessions[0].id)
        else:
            with self._talk:
                empty(
                    "No conversation is held.",
                    "Messages show here as they are saved; archived ones can be restored.",
                )

    async def _fill(self) -> list[Session]:
        """List the conversations, the one last spoken in first."""
        limit = self._limit
        found = await self._shown.agent.sessions(limit=self._shown.rows(limit + 1))
        if self._limit != limit:
            return found  # more are wanted meanwhile
        self._list.clear()
        self._buttons = {}
        with self._list:
            for session in found[:limit]:
                self._buttons[session.id] = _entry(
                    session, partial(self._shown.act, self._open, session.id)
                )
            if len(found) > limit:
                button("Show more", partial(self._shown.act, self._show_more), "quiet")
        return found

    async def _show_more(self) -> None:
        self._limit += self._shown.bounds.sessions_step
        await self._fill()

    async def _open(self, session: str) -> None:
        self._wanted = session
        step = self._shown.rows(self._shown.bounds.messages_step)
        found = await self._shown.agent.history(session, limit=step)
        if self._wanted != session:
            return  # another was chosen meanwhile
        for other, entry in self._buttons.items():
            entry.props["aria-current"] = "true" if other == session else "false"
        self._talk.clear()
        with self._talk:
            words("h2", clip_name(session, _NAME_SHOWN))
            self._older = box("div", "older")
            self._messages = box("ol", "messages")
            with self._messages:
                for message in found:
                    _message(message)
        self._page_back(session, found, "Nothing of it is held any more; it is in the archive.")

    def _page_back(self, session: str, found: list[Message], gone: str) -> None:
        """Say how to see what is older than what was *found*, or what is *gone* if nothing was."""
        self._oldest = found[0].id if found and found[0].position > 0 else None
        self._older.clear()
        with self._older:
            if self._oldest is not None:
                button(
                    "Older messages", partial(self._shown.act, self._show_older, session), "quiet"
                )
            elif not found:
                words("p", gone, "soft")

    async def _show_older(self, session: str) -> None:
        step = self._shown.rows(self._shown.bounds.messages_step)
        messages, oldest = self._messages, self._oldest
        found = await self._shown.agent.history(session, limit=step, before=oldest)
        if self._messages is not messages or self._oldest != oldest:
            return  # another was opened meanwhile, or a second click has shown these
        with self._messages:
            for place, message in enumerate(found):
                _message(message).move(target_index=place)
        self._page_back(session, found, "What came before is in the archive.")


def _entry(session: Session, on_click: Callable[[], Awaitable[None]]) -> Element:
    entry = button("", on_click, "entry")
    with entry:
        words("span", clip_name(session.id, _NAME_SHOWN), "strong name")
        count = counted(session.messages, "message", "messages")
        words("span", f"{count} · {moment(session.last_at)}", "soft")
    return entry


def _message(message: Message) -> Element:
    side = "mine" if message.role == "assistant" else "theirs"
    with box("li", f"message {side}") as shown:
        with box("div", "line"):
            words("span", one_line(message.speaker), "strong")
            if message.user is not None:
                words("span", message.role, "soft")
            words("span", moment(message.at), "soft")
            if message.pinned:
                words("span", "pinned", "tag")
        words("p", clip(message.content, _TEXT_MAX), "said")
    return shown
