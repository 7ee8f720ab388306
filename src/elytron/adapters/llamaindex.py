"""
LlamaIndex: an `AsyncDBChatStore` in an agent's memory, for `Memory.from_defaults(chat_store=...)`.

A key is a session, each chat message one of ours. LlamaIndex's own status is in whether it is
pinned: active messages are, so that no limit moves them away; archived ones may leave for the
archive like any other.
"""
# mypy: disable-error-code="import-not-found, misc, untyped-decorator"

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import PrivateAttr, model_serializer
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

from elytron.adapters import items, threads
from elytron.adapters.reading import newest
from elytron.agent import Agent
from elytron.errors import InvalidArgument, NotFound
from elytron.records import ROLES, Message

_T = TypeVar("_T")
MESSAGE = "llamaindex_message"  # where in a message's metadata the chat message is
KEYS_MAX = 10_000  # the default of `max_query_rows`
# Of a message that is held they have to stay: by them one that was edited is known.
_WORDS = frozenset(
    "blocks text content title tool_name tool_kwargs tool_calls function name arguments".split()
)


class ElytronChatStore(AsyncDBChatStore):
    """
    Conversations of LlamaIndex in the memory of one agent.

    Chat messages come back equal, in the order of adding; all of one call are durable when it
    returns, or none are. Active ones never leave the memory: once `max_messages_per_agent` of them
    are held, adding raises `OverBudget`. Archived ones may leave for Elytron's archive at a limit,
    from where `agent.restore(session=key)` brings them back; till then no verb here shows them,
    but `delete_messages` removes them. A message saved to the session by other means counts as
    archived unless it is pinned. One that `agent.edit` changed comes back with its new text, and
    the rest as it was if it had a single text; else as one of role and text.

    Limits: a message has at most `max_message_kb` with its words; `get_keys` gives 10,000 keys.
    """

    _agent: Any = PrivateAttr()

    def __init__(self, agent: Agent) -> None:
        """
        Args:
            agent: whose memory it is, from `store.agent(name)`.
        """
        super().__init__()
        self._agent = threads.check_synchronous(agent, "history", "an agent")

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """The messages of a key, oldest first; of both statuses if None."""
        found = await self._of(key, status)
        found = found[max(0, offset or 0) :]
        return [_chat(one) for one in (found if limit is None or limit < 0 else found[:limit])]

    async def count_messages(
        self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE
    ) -> int:
        """How many messages a key has; of both statuses if None."""
        return len(await self._of(key, status))

    async def add_message(
        self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Add one message."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Add messages in one commit."""
        new = _saved(key, messages, status)
        if new:
            await threads.run(lambda: self._agent.save_many(new))

    async def set_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """
        Replace all messages of a key.

        The new ones are added before the old ones go: stopped in between, there are both.
        """
        new = _saved(key, messages, status)

        def replace() -> None:
            if not new:
                self._agent.delete_session(key)
                return
            old = self._all(key)
            self._agent.save_many(new)
            self._remove(old)

        await threads.run(replace)

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Remove the message at a place, counted from 0 among all of the key; None if none is."""

        def delete() -> list[Message]:
            found = self._all(key)
            return self._remove(found[idx : idx + 1]) if idx >= 0 else []

        return next(map(_chat, await threads.run(delete)), None)

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Remove the messages of a key; of both statuses if None. Elytron's archive too."""

        def delete() -> None:
            if status is None:
                self._agent.delete_session(key)
                return
            found: Iterable[Message] = self._all(key)
            if status is MessageStatus.ARCHIVED and self._agent.usage().archived:
                found = [one for one in self._agent.messages(archived=True) if one.session == key]
            self._remove(one for one in found if _is(one, status))

        await threads.run(delete)

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Remove the oldest *n* active messages, and return them."""
        return await self._with_oldest(key, n, self._remove)

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Make the oldest *n* active messages archived ones, and return them."""

        def archive(found: Iterable[Message]) -> list[Message]:
            return [one for one in found if self._unpinned(one)]

        return await self._with_oldest(key, n, archive)

    async def get_keys(self) -> list[str]:
        """
        The keys that have messages, the one last added to first.

        Raises:
            InvalidArgument: there are more than can be listed.
        """
        found = await threads.run(lambda: self._agent.sessions(limit=KEYS_MAX))
        if len(found) == KEYS_MAX:
            raise InvalidArgument(f"{KEYS_MAX} keys or more, and not all can be listed")
        return [session.id for session in found]

    @classmethod
    def class_name(cls) -> str:
        return "ElytronChatStore"

    @model_serializer()
    def dump_store(self) -> dict[str, Any]:
        """Whose memory it is. Nothing of it: that is durable where it is."""
        return {"agent": self._agent.name}

    # -- on a thread

    def _all(self, key: str) -> list[Message]:
        return newest(self._agent, key)

    def _remove(self, messages: Iterable[Message]) -> list[Message]:
        """Remove messages; returns those that nobody else had removed."""
        return [one for one in messages if self._agent.delete(one.id)]

    def _unpinned(self, message: Message) -> bool:
        """Let a message leave; False if another removed it."""
        try:
            self._agent.unpin(message.id)
        except NotFound:
            return False
        return True

    async def _of(self, key: str, status: MessageStatus | None) -> list[Message]:
        found = await threads.run(lambda: self._all(key))
        return [one for one in found if _is(one, status)]

    async def _with_oldest(
        self, key: str, n: int, do: Callable[[Iterable[Message]], list[Message]]
    ) -> list[ChatMessage]:
        def oldest() -> list[Message]:
            active = [one for one in self._all(key) if _is(one, MessageStatus.ACTIVE)]
            return do(active[: max(0, n)])

        return [_chat(one) for one in await threads.run(oldest)]


def _is(message: Message, status: MessageStatus | None) -> bool:
    return status is None or message.pinned == (status is MessageStatus.ACTIVE)


def _saved(
    key: str, messages: Sequence[ChatMessage], status: MessageStatus
) -> list[dict[str, Any]]:
    """What is saved of chat messages."""
    return [
        {**_content(message), "session": key, "pinned": status is MessageStatus.ACTIVE}
        for message in messages
    ]


def _content(message: ChatMessage) -> dict[str, Any]:
    data = message.model_dump(mode="json")
    role = data["role"] if data["role"] in ROLES else "assistant"
    text = message.content
    if text is not None and items.storable(text):
        plain = ChatMessage(role=role, content=text)
        if plain.model_dump(mode="json") == data:  # no more than a role and a text
            return {"role": role, "content": text}
    return {
        "role": role,
        "content": _searched(data),
        "metadata": {MESSAGE: items.dumps(data, "the message")},
    }


def _searched(data: dict[str, Any]) -> str:
    return items.words(items.texts(data, _WORDS), otherwise=f"[{data['role']}]")


def _chat(message: Message) -> ChatMessage:
    held = message.metadata.get(MESSAGE)
    data = None if held is None else json.loads(held)
    if data is not None and message.content != _searched(data):  # it was edited
        data = items.with_text(data, _WORDS, message.content)
    if data is None:
        return ChatMessage(role=message.role, content=message.content)
    return ChatMessage.model_validate(data)
