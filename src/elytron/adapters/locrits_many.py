"""
Locrits many: the memories of all agents under one base path, as a Locrits program asks for them.
"""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elytron.adapters import locrits_stores as stores
from elytron.adapters.locrits_memory import KuzuMemoryService
from elytron.adapters.locrits_shapes import Row
from elytron.aio import AsyncStore
from elytron.errors import Closed, ElytronError


class MemoryManagerService:
    """
    Many agents by their names, each opened once, whoever asks first. Methods with a name do what
    that agent's `KuzuMemoryService` does. Safe for many threads and event loops.
    """

    def __init__(self, base_path: str | Path = "data/memory") -> None:
        self.base_path = Path(base_path)
        self._mutex = threading.Lock()
        self._services: dict[str, KuzuMemoryService] = {}
        self._shared: stores.SharedStore | None = None
        self._closed = False

    async def initialize(self) -> bool:
        """Open the store. Harmless if it is open. Raises as `KuzuMemoryService.initialize`."""
        if self._shared is None:
            await stores.on_thread(self._open)
        return True

    def _open(self) -> None:
        with self._mutex:
            if self._shared is None:
                self._shared = stores.take(self.base_path, stores.Wished())
            self._closed = False

    async def _store(self) -> AsyncStore:
        """The store, opened if nobody has yet."""
        if not self._closed:
            await self.initialize()
        shared = self._shared
        if shared is None:
            raise Closed(f"the memories of {self.base_path} were closed; initialize them again")
        return shared.store

    async def get_memory_service(self, locrit_name: str) -> KuzuMemoryService:
        """
        One agent's memory, opened.

        Raises:
            As `KuzuMemoryService.initialize`.
        """
        await self._store()
        with self._mutex:
            service = self._services.get(locrit_name)
            if service is None:
                service = KuzuMemoryService(locrit_name, self.base_path)
                self._services[locrit_name] = service
        await service.initialize()
        return service

    async def list_available_locrits(self) -> list[str]:
        """
        The names of all agents, sorted. One whose old database was not migrated yet is named as
        that database's folder.
        """
        names = await (await self._store()).agents()
        known = {slug for name in names for slug in stores.slugs(name)}
        waiting = await stores.on_thread(lambda: stores.origin_folders(self.base_path))
        return sorted([*names, *[folder for folder in waiting if folder not in known]])

    async def get_memory_stats(self) -> dict[str, Any]:
        """
        `{total_locrits, active_locrits, base_path, locrits}`; `locrits` has for each agent in the
        store its messages, sessions, concepts, memories, archived and size_mb.
        """
        usage = await (await self._store()).usage()
        with self._mutex:
            active = sorted(n for n, service in self._services.items() if service.is_initialized)
        return {
            "total_locrits": len(usage.agents),
            "active_locrits": active,
            "base_path": str(self.base_path),
            "locrits": {
                one.agent: {
                    "messages": one.messages,
                    "sessions": one.sessions,
                    "concepts": one.concepts,
                    "memories": one.memories,
                    "archived": one.archived,
                    "size_mb": one.bytes.total / (1 << 20),
                }
                for one in usage.agents
            },
        }

    async def close_locrit_memory(self, locrit_name: str) -> bool:
        """Close one agent's memory; whether it was open."""
        with self._mutex:
            service = self._services.pop(locrit_name, None)
        if service is None:
            return False
        opened = service.is_initialized
        await service.close()
        return opened

    async def close_all(self) -> None:
        """
        Close all of them. May be called twice.

        Raises:
            Busy: writes were still under way after `save_timeout_s`; the others are closed.
        """
        with self._mutex:
            services, self._services = list(self._services.values()), {}
            shared, self._shared = self._shared, None
            self._closed = True
        ended = await asyncio.gather(
            *[service.close() for service in services], return_exceptions=True
        )
        if shared is not None:
            await stores.on_thread(lambda: stores.give_back(shared))
        for error in ended:
            if isinstance(error, ElytronError):
                raise error

    async def close(self) -> None:
        """The same as `close_all`."""
        await self.close_all()

    async def save_message(
        self,
        locrit_name: str,
        role: str,
        content: str,
        session_id: str | None = None,
        user_id: str = "default",
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> str:
        """Save one message; its id."""
        service = await self.get_memory_service(locrit_name)
        return await service.save_message(role, content, session_id, user_id, metadata, **kwargs)

    async def get_conversation_history(
        self, locrit_name: str, session_id: str, limit: int = 50
    ) -> list[Row]:
        """The newest messages of a session, oldest first."""
        service = await self.get_memory_service(locrit_name)
        return await service.get_conversation_history(session_id, limit)

    async def search_memories(self, locrit_name: str, query: str, limit: int = 10) -> list[Row]:
        """The messages that answer a question, best first."""
        service = await self.get_memory_service(locrit_name)
        return await service.search_memories(query, limit)

    async def get_full_memory_summary(self, locrit_name: str) -> dict[str, Any]:
        """What an agent's memory holds, in short."""
        return await (await self.get_memory_service(locrit_name)).get_full_memory_summary()

    async def get_concept_details(
        self, locrit_name: str, concept_name: str, concept_type: str | None = None
    ) -> Row | None:
        """A concept, or None."""
        service = await self.get_memory_service(locrit_name)
        return await service.get_concept_details(concept_name, concept_type)

    async def get_related_concepts(
        self, locrit_name: str, concept_name: str, depth: int = 2
    ) -> list[Row]:
        """The concepts near one."""
        service = await self.get_memory_service(locrit_name)
        return await service.get_related_concepts(concept_name, depth)

    async def get_message_by_id(self, locrit_name: str, message_id: str) -> Row | None:
        """A message, or None."""
        return await (await self.get_memory_service(locrit_name)).get_message_by_id(message_id)

    async def get_session_by_id(self, locrit_name: str, session_id: str) -> Row | None:
        """A session, or None."""
        return await (await self.get_memory_service(locrit_name)).get_session_by_id(session_id)

    async def get_all_memories(self, locrit_name: str) -> list[Row]:
        """The memories of an agent, the newest first, at most `max_query_rows`."""
        return await (await self.get_memory_service(locrit_name)).get_all_memories()

    async def add_memory(
        self,
        locrit_name: str,
        content: str,
        importance: float = 0.5,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Remember something; its id."""
        service = await self.get_memory_service(locrit_name)
        return await service.add_memory(content, importance, metadata)

    async def edit_message(self, locrit_name: str, message_id: str, new_content: str) -> bool:
        """Replace a message's text; whether it was there."""
        service = await self.get_memory_service(locrit_name)
        return await service.edit_message(message_id, new_content)

    async def delete_message(self, locrit_name: str, message_id: str) -> bool:
        """Remove a message for good; whether it was there."""
        return await (await self.get_memory_service(locrit_name)).delete_message(message_id)

    async def delete_memory(self, locrit_name: str, memory_id: str) -> bool:
        """Remove a memory for good; whether it was there."""
        return await (await self.get_memory_service(locrit_name)).delete_memory(memory_id)

    async def edit_concept(
        self,
        locrit_name: str,
        concept_id: str,
        name: str | None = None,
        description: str | None = None,
        confidence: float | None = None,
    ) -> bool:
        """Change a concept; whether it was there."""
        service = await self.get_memory_service(locrit_name)
        return await service.edit_concept(concept_id, name, description, confidence)

    async def delete_concept(self, locrit_name: str, concept_id: str) -> bool:
        """Remove a concept; whether it was there."""
        return await (await self.get_memory_service(locrit_name)).delete_concept(concept_id)

    async def delete_session(self, locrit_name: str, session_id: str) -> bool:
        """Remove a session and its messages for good; whether it had any."""
        return await (await self.get_memory_service(locrit_name)).delete_session(session_id)

    async def clear_all_memory(self, locrit_name: str) -> bool:
        """Erase all that an agent holds."""
        return await (await self.get_memory_service(locrit_name)).clear_all_memory()
