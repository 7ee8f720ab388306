"""
Locrits memory: one agent's memory as a Locrits program calls it: saving, reading back, changing.
"""

import logging
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from elytron.adapters import locrits_shapes as shapes
from elytron.adapters.locrits_asking import Asking
from elytron.adapters.locrits_keeping import Keeping
from elytron.aio import AsyncAgent
from elytron.errors import NotFound
from elytron.importers.kuzu_rows import SESSION_KIND
from elytron.records import Memory, Session

_log = logging.getLogger("elytron.adapters")
_RECENT = 10
_USER_LOOKS = 20  # messages of a session, among which its user is looked for

Row = shapes.Row


class KuzuMemoryService(Asking, Keeping):
    """One agent's memory under the origin's name. Safe for many threads and event loops."""

    async def save_message(
        self,
        role: str,
        content: str,
        session_id: str | None = None,
        user_id: str = "default",
        metadata: Mapping[str, Any] | None = None,
        generate_embedding: bool | None = None,
        **kwargs: Any,
    ) -> str:
        """
        Save one message; when this returns its id, it is durable.

        Args:
            session_id: its conversation; one is made if None, see `get_message_by_id`.
            user_id: who says it, if the role is `user`; other roles speak for themselves.
            generate_embedding: whether it gets a vector, in the background, where the settings
                enable them; None for all but system messages and those of 20 characters or fewer.
            kwargs: `message_id`, `timestamp`, `importance` and `pinned` are used
                as `Agent.save` does; others the origin took and ignored, and so they are here.

        Raises:
            As `Agent.save`.
        """
        memory = await self._memory()
        more = {name: kwargs.pop(name, None) for name in ("message_id", "timestamp", "importance")}
        pinned = bool(kwargs.pop("pinned", False))
        if kwargs:
            _log.debug("save_message: %d arguments have no meaning here", len(kwargs))
        receipt = await memory.save(
            role,
            content,
            session=session_id or f"session_{secrets.token_hex(8)}",
            user=user_id if role == "user" and user_id else None,
            at=_aware(more["timestamp"]),
            metadata=metadata,
            id=more["message_id"],
            importance=more["importance"],
            pinned=pinned,
            embed=shapes.wants_vector(role, content, asked=generate_embedding),
        )
        return receipt.id

    async def get_conversation_history(self, session_id: str, limit: int = 50) -> list[Row]:
        """The newest *limit* messages of a session, oldest first: `{id, role, content, timestamp,
        metadata}`."""
        if limit < 1:
            return []
        memory = await self._memory()
        found = await memory.history(session_id, limit=self._rows_max(limit))
        return [shapes.message(held) for held in found]

    async def get_message_by_id(self, message_id: str) -> Row | None:
        """`{id, role, content, timestamp, session_id, metadata}`, or None."""
        memory = await self._memory()
        found = await memory.get(message_id)
        return None if found is None else shapes.message_with_session(found)

    async def get_session_by_id(self, session_id: str) -> Row | None:
        """`{id, name, topic, created_at, user_id}`, or None. Reads the list of sessions."""
        memory = await self._memory()
        rows_max = self._rows_max(1 << 30)
        listed = await memory.sessions(limit=rows_max)
        for held in listed:
            if held.id == session_id:
                return await _session(memory, held)
        # There may be more than can be listed, which were last spoken in before all of these.
        said = await memory.history(session_id, limit=rows_max) if len(listed) == rows_max else []
        if not said:
            return None
        times = sorted(message.at for message in said)
        return await _session(memory, Session(session_id, len(said), times[0], times[-1]))

    async def get_all_memories(self) -> list[Row]:
        """
        `{id, content, importance, created_at, last_accessed}` of each, the newest first.

        At most `max_query_rows`, 10,000 by default: where there are more, the newest.
        """
        memory = await self._memory()
        found = await memory.memories(limit=self._rows_max(1 << 30))
        return [shapes.memory(held) for held in found if held.kind not in shapes.CARRIERS]

    async def get_full_memory_summary(self) -> dict[str, Any]:
        """`{locrit_name, statistics, recent_messages, sessions, top_concepts}`: the newest ten."""
        memory = await self._memory()
        usage = await memory.usage()
        recent = await memory.history(limit=_RECENT)
        sessions = await memory.sessions(limit=_RECENT)
        concepts = await memory.concepts(limit=_RECENT)
        return {
            "locrit_name": self.locrit_name,
            "statistics": {
                "total_messages": usage.messages,
                "total_sessions": usage.sessions,
                "total_concepts": usage.concepts,
                "total_users": usage.users,
            },
            "recent_messages": [shapes.message_with_session(held) for held in recent],
            "sessions": [
                {**await _session(memory, held), "message_count": held.messages}
                for held in sessions
            ],
            "top_concepts": [shapes.concept(held) for held in concepts],
        }

    async def add_memory(
        self, content: str, importance: float = 0.5, metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Remember something; returns its id. Raises as `Agent.remember`."""
        memory = await self._memory()
        receipt = await memory.remember(content, importance=importance, metadata=metadata)
        return receipt.id

    async def edit_message(self, message_id: str, new_content: str) -> bool:
        """Replace a message's text; whether it was there."""
        memory = await self._memory()
        try:
            await memory.edit(message_id, new_content)
        except NotFound:
            return False
        return True

    async def delete_message(self, message_id: str) -> bool:
        """Remove a message for good; whether it was there."""
        return await (await self._memory()).delete(message_id)

    async def delete_memory(self, memory_id: str) -> bool:
        """Remove a memory for good; whether it was there."""
        return await (await self._memory()).delete_memory(memory_id)

    async def edit_concept(
        self,
        concept_id: str,
        name: str | None = None,
        description: str | None = None,
        confidence: float | None = None,
    ) -> bool:
        """
        Change a concept, whose id is its name; whether it was there. A new name keeps its links.

        Raises:
            As `Agent.set_concept`.
        """
        memory = await self._memory()
        try:
            await memory.set_concept(
                concept_id, rename=name, description=description, confidence=confidence
            )
        except NotFound:
            return False
        return True

    async def delete_concept(self, concept_id: str) -> bool:
        """Remove a concept, whose id is its name, with its relations; whether it was there."""
        return await (await self._memory()).delete_concept(concept_id)

    async def delete_session(self, session_id: str) -> bool:
        """Remove a session and its messages for good, archived ones too; whether it had any."""
        memory = await self._memory()
        await memory.delete_memory(shapes.session_memory(session_id))
        return await memory.delete_session(session_id) > 0

    async def clear_all_memory(self) -> bool:
        """
        Erase all that this agent holds, in the archive too. True; what cannot be done raises.

        The origin's own database, if it lies there, is not touched and not migrated again.
        """
        await (await self._memory()).clear()
        return True


async def _session(memory: AsyncAgent, held: Session) -> Row:
    called: list[Memory] = await memory.memories(kind=SESSION_KIND, session=held.id, limit=1)
    newest = await memory.history(held.id, limit=_USER_LOOKS)
    user = next((message.user for message in newest if message.user is not None), None)
    return shapes.session(held, called[0] if called else None, user)


def _aware(at: Any) -> Any:
    """A time with a zone: the local one, as the origin meant it, where it has none."""
    naive = isinstance(at, datetime) and at.tzinfo is None
    return at.astimezone() if naive else at
