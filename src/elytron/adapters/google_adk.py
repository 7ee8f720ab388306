"""
Google ADK: a `BaseMemoryService` in a store, with an agent's memory for each user of each app.

So users are kept apart by files, not by a filter. What was said in a session are messages, what
was added as a memory is one of ours.
"""
# mypy: disable-error-code="import-not-found, misc"

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.genai import types

from elytron.adapters import items, threads
from elytron.agent import Agent
from elytron.errors import InvalidArgument
from elytron.records import Hit
from elytron.store import Store
from elytron.text import unprintable_at
from elytron.write.admission import ID_MAX, QUESTION_MAX

if TYPE_CHECKING:
    from google.adk.events.event import Event
    from google.adk.sessions.session import Session

_log = logging.getLogger("elytron.adapters")
KIND = "adk memory"  # of what `add_memory` adds
DELETED = "adk deleted"  # kind and session of what says that an event is not to come back
FOUND_MAX = 10  # entries that a search gives, as ADK's own does
_CONTENT, _ENTRY, _AUTHOR = "adk_content", "adk_entry", "adk_author"
_PART_MAX = 1000  # events added at once; a report lists as many that it refused
_REASONS_MAX = 5  # of events that were refused, told in one error
_TOLD_MAX = 10_000  # changed events that are known to have been told
_CHANGED = "with other content"  # as an import says it
_WORDS = frozenset({"parts", "text"})
_ROLES = {"user": "user", "model": "assistant"}


class ElytronMemoryService(BaseMemoryService):
    """
    Long-term memory of Google ADK's agents.

    What one user of one app said is in the memory of the agent `agent_of(app, user)`; `clear` there
    forgets the user. Adding a session again adds what is new in it: an event has the same id each
    time, and one that was deleted does not come back. Only events with a text are held, since
    nothing else is searched. Events keep their content whole; what leaves for the archive at a
    limit is no longer found.

    Limits: an event has at most `max_message_kb` with its words. One that is longer with what is no
    text, such as a picture, is held with its words alone.
    """

    def __init__(self, store: Store, *, limit: int = FOUND_MAX) -> None:
        """
        Args:
            store: from `elytron.open`.
            limit: how many entries a search gives at most.
        """
        self._store: Store = threads.check_synchronous(store, "usage", "a store")
        self._limit = limit
        self._told: set[tuple[str, str]] = set()  # agent and id of changed events

    def agent_of(self, app_name: str, user_id: str) -> Agent:
        """Whose memory a user's is. No two users of no two apps have the same."""
        app, user = (name.replace("%", "%25").replace("/", "%2F") for name in (app_name, user_id))
        return self._store.agent(f"{app}/{user}")

    async def add_session_to_memory(self, session: "Session") -> None:
        """Add the events of a session that are not there yet; raises as `add_events_to_memory`."""
        await self.add_events_to_memory(
            app_name=session.app_name,
            user_id=session.user_id,
            events=session.events,
            session_id=session.id,
        )

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: "Sequence[Event]",
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """
        Add events that are not there yet, in commits of at most 500.

        Args:
            custom_metadata: has no meaning here, as in ADK's own service.

        Raises:
            InvalidArgument: some events cannot be held, as their text is too long, or are held with
                other content. All others are held. An event that has changed is told of once by
                each service; where it was a message of ours that changed, that stays as it is.
        """
        del custom_metadata
        agent = self.agent_of(app_name, user_id)
        messages, refused = [], []
        for event in events:
            if all(text.isspace() for text in _texts(event.content)):
                continue
            try:
                messages.append(_message(event, session_id))
            except InvalidArgument as error:
                refused.append(f"{event.id!r:.100}: {error}")
        refused += await threads.run(lambda: self._hold(agent, _without_deleted(agent, messages)))
        if refused:
            raise InvalidArgument(
                f"{len(refused)} events were not held, but all others are:"
                f" {'; '.join(refused[:_REASONS_MAX])}"
            )

    def _hold(self, agent: Agent, messages: list[dict[str, Any]]) -> list[str]:
        """Hold what can be held; returns what cannot, and why."""
        reasons = []
        for first in range(0, len(messages), _PART_MAX):
            refused = _refused(agent, messages[first : first + _PART_MAX])
            shorter = [_words_alone(message) for message, _ in refused]
            whole = {message["id"]: message for message, _ in refused}
            for message, reason in _refused(agent, shorter):
                if _CHANGED in reason and self._is_known(agent, whole[message["id"]], message):
                    _log.debug("an event is held with other content than it has in its session")
                    continue
                reasons.append(f"{message['id']!r:.100}: {reason}")
        return reasons

    def _is_known(self, agent: Agent, *tried: dict[str, Any]) -> bool:
        """Whether it is the message that has changed, not the event; or it was told before."""
        name = tried[0]["id"]
        held = agent.get(name)
        content = None if held is None else held.metadata.get(_CONTENT)
        if content is not None and content in [one["metadata"].get(_CONTENT) for one in tried]:
            return True
        told = (agent.name, name)
        if told in self._told:
            return True
        if len(self._told) >= _TOLD_MAX:
            self._told.clear()
        self._told.add(told)
        return False

    async def add_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        memories: Sequence[MemoryEntry],
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """
        Add memories, one commit each.

        Args:
            custom_metadata: added to that of each entry, which wins.
        """
        agent = self.agent_of(app_name, user_id)
        new = [_memory(entry, custom_metadata) for entry in memories]

        def add() -> None:
            for one in new:
                agent.remember(**one)

        await threads.run(add)

    async def search_memory(
        self, *, app_name: str, user_id: str, query: str
    ) -> SearchMemoryResponse:
        """What answers *query*, best first, of this user in this app alone."""
        if not query.strip():
            return SearchMemoryResponse()
        agent = self.agent_of(app_name, user_id)
        asked = query[:QUESTION_MAX]
        hits = await threads.run(lambda: agent.recall(asked, limit=self._limit))
        return SearchMemoryResponse(memories=[_entry(hit) for hit in hits if hit.kind != DELETED])

    async def delete_memory(
        self, *, app_name: str, user_id: str, memory_id: str | None = None
    ) -> None:
        """Delete what `search_memory` gave this id. Adding its session again does not add it."""
        if not memory_id:
            return
        agent = self.agent_of(app_name, user_id)

        def note() -> None:
            agent.remember("-", kind=DELETED, session=DELETED, id=_deleted_id(memory_id))

        def delete() -> None:
            held = agent.get(memory_id) is not None
            if held:  # first: stopped in between, it can be deleted again, and does not come back
                note()
            if agent.delete(memory_id) and not held:  # it was in the archive
                note()
            agent.delete_memory(memory_id)

        await threads.run(delete)


def _message(event: "Event", session_id: str | None) -> dict[str, Any]:
    """
    What is saved of an event.

    Raises:
        InvalidArgument: its time is none.
    """
    try:
        said = _said(_dumped(event.content), event.author)
    except (InvalidArgument, ValueError):  # its data are no JSON, or nested too deep
        role = event.content.role if event.content is not None else None
        parts = [{"text": text} for text in _texts(event.content)]
        said = _said({"role": role, "parts": parts}, event.author)
    try:
        at = datetime.fromtimestamp(event.timestamp, UTC)
    except (OverflowError, OSError, ValueError) as error:
        raise InvalidArgument(f"its timestamp is no time: {event.timestamp!r:.50}") from error
    return {**said, "session": session_id, "at": at, "id": _event_id(session_id, event.id)}


def _said(content: dict[str, Any], author: str) -> dict[str, Any]:
    """Role, words and metadata of a content."""
    held: dict[str, Any] = {_AUTHOR: author}
    parts = content.get("parts") or []
    role = content.get("role")
    plain = len(parts) == 1 and parts[0].keys() == {"text"} and content.keys() <= {"parts", "role"}
    if not plain or role not in _ROLES or not items.storable(parts[0]["text"]):
        held[_CONTENT] = items.dumps(content, "the event's content")
        text = items.words([part["text"] for part in parts if part.get("text")], otherwise="-")
    else:
        text = parts[0]["text"]
    return {"role": "user" if role == "user" else "assistant", "content": text, "metadata": held}


def _words_alone(message: dict[str, Any]) -> dict[str, Any]:
    """The same message without what is no text."""
    held = message["metadata"]
    if _CONTENT not in held:
        return message
    content = json.loads(held[_CONTENT])
    parts = [{"text": part["text"]} for part in content["parts"] if part.get("text")]
    return {**message, **_said({**content, "parts": parts}, held[_AUTHOR])}


def _refused(agent: Agent, messages: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """Save messages; returns those that could not be, and why."""
    lines = [{**message, "line": number} for number, message in enumerate(messages, 1)]
    report = agent.import_(lines, skip_bad=True)
    return [(messages[bad.line - 1], bad.reason) for bad in report.bad]


def _memory(entry: MemoryEntry, more: Mapping[str, object] | None) -> dict[str, Any]:
    """What is remembered of an entry."""
    held = entry.model_dump(mode="json", exclude_none=True)
    held["custom_metadata"] = {**(more or {}), **entry.custom_metadata}
    return {
        "content": items.words(_texts(entry.content), otherwise="-"),
        "kind": KIND,
        "metadata": {_ENTRY: items.dumps(held, "the entry")},
        "id": entry.id or None,
    }


def _entry(hit: Hit) -> MemoryEntry:
    """A hit as ADK shows it, with its content as it was given, or with what it was edited to."""
    message = hit.message
    whole = message.metadata.get(_ENTRY)
    if whole is not None:
        entry = MemoryEntry.model_validate(json.loads(whole))
        entry.id = message.id
        entry.timestamp = entry.timestamp or message.at.isoformat()
        entry.content = _as_held(entry.content, message.content)
        return entry
    held = message.metadata.get(_CONTENT)
    if held is not None:
        content = types.Content.model_validate(json.loads(held))
    else:
        role = "user" if message.role == "user" else "model"
        content = types.Content(role=role, parts=[types.Part(text=message.content)])
    return MemoryEntry(
        id=message.id,
        content=_as_held(content, message.content),
        author=message.metadata.get(_AUTHOR) or message.speaker,
        timestamp=message.at.isoformat(),
    )


def _as_held(content: types.Content, text: str) -> types.Content:
    """A content as it was given; or, if what is held of it was edited, with that in it."""
    if text == items.words(_texts(content), otherwise="-"):
        return content
    edited = items.with_text(_dumped(content), _WORDS, text)
    if edited is not None:
        return types.Content.model_validate(edited)
    return types.Content(role=content.role, parts=[types.Part(text=text)])


def _texts(content: types.Content | None) -> Iterable[str]:
    parts = [] if content is None else content.parts or []
    return [part.text for part in parts if part.text]


def _dumped(content: types.Content | None) -> dict[str, Any]:
    found: dict[str, Any] = (
        {} if content is None else content.model_dump(mode="json", exclude_none=True)
    )
    return found


def _without_deleted(agent: Agent, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not agent.memories(session=DELETED, limit=1):
        return messages
    return [one for one in messages if agent.get_memory(_deleted_id(one["id"])) is None]


def _event_id(session_id: str | None, event_id: str) -> str:
    """The same each time an event is added, so that it is there once."""
    name = f"{session_id or ''}/{event_id}"
    if len(name) <= ID_MAX and unprintable_at(name) is None:
        return name
    return f"adk-{hashlib.sha256(items.dumps([session_id, event_id]).encode()).hexdigest()}"


def _deleted_id(memory_id: str) -> str:
    return f"adk-deleted-{hashlib.sha256(items.dumps(memory_id).encode()).hexdigest()}"
