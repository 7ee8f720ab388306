"""
OpenAI Agents: a `Session` of the Agents SDK, held in an agent's memory.

Each item of a conversation is a message: its words are found by `recall`, its metadata has the
item itself where that is more than a role and a text.
"""
# mypy: disable-error-code="import-not-found"

from typing import TYPE_CHECKING, Any

from agents.memory.session_settings import (
    SessionSettings,
    coerce_session_settings,
    resolve_session_limit,
)

from elytron.adapters import openai_items, threads
from elytron.adapters.reading import newest
from elytron.agent import Agent
from elytron.errors import Busy
from elytron.records import Message

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

_POPS_MAX = 100  # others that may take the last item before us


class ElytronSession:
    """
    A conversation of the OpenAI Agents SDK, in the memory of one agent.

    Items come back equal to what was added, in their order; several sessions, processes and
    threads may add to one. They are durable when `add_items` returns: all of one call, or none.

    What leaves for the archive at a limit is no longer among the items; `agent.restore(session=)`
    brings it back. `clear_session` removes it too. A message that was saved to the same session by
    other means is shown as an item of its role and text; one that `agent.edit` changed, as its item
    with the new text, or if that has several texts, as a call has, as one of role and text.

    Limits: an item has at most `max_message_kb` with its words, one call at most `wal_limit_mb`.
    """

    def __init__(
        self,
        session_id: str,
        agent: Agent,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        """
        Args:
            session_id: 1 to 200 characters: the `session` of the messages.
            agent: whose memory it is, from `store.agent(name)`.
            session_settings: its `limit` is how many items `get_items` gives if not asked.
        """
        self.session_id = session_id
        self.session_settings: SessionSettings | None = (
            SessionSettings()
            if session_settings is None
            else coerce_session_settings(session_settings)
        )
        self._agent: Agent = threads.check_synchronous(agent, "history", "an agent")

    async def get_items(self, limit: int | None = None) -> "list[TResponseInputItem]":
        """The newest *limit* items, oldest first; all if neither this nor the settings say."""
        wanted = resolve_session_limit(limit, self.session_settings)
        if wanted is not None and wanted < 0:
            wanted = None  # as the SDK's own sessions have it
        messages = await threads.run(lambda: newest(self._agent, self.session_id, limit=wanted))
        return [openai_items.item_of(message) for message in messages]

    async def add_items(self, items: "list[TResponseInputItem]") -> None:
        """Add items in one commit."""
        messages = [openai_items.message_of(item, self.session_id) for item in items]
        if messages:
            await threads.run(lambda: self._agent.save_many(messages))

    async def pop_item(self) -> "TResponseInputItem | None":
        """Remove the last item and return it; None if there is none."""
        message = await threads.run(self._pop)
        return None if message is None else openai_items.item_of(message)

    async def clear_session(self) -> None:
        """Remove all items, archived ones too."""
        await threads.run(lambda: self._agent.delete_session(self.session_id))

    def _pop(self) -> Message | None:
        for _ in range(_POPS_MAX):
            found = self._agent.history(self.session_id, limit=1)
            if not found:
                return None
            if self._agent.delete(found[0].id):
                return found[0]
        raise Busy(f"others removed the last item {_POPS_MAX} times before us; pop again")
