"""What was learned, and the graph, for asyncio. Forwarding only; see `Agent` for each verb."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from elytron.aio.base import AsyncVerbs
from elytron.records import (
    Concept,
    ConceptDetails,
    GraphUsage,
    Memory,
    Receipt,
    Related,
    Relation,
)


class AsyncLearning(AsyncVerbs):
    """Memories, concepts, relations, Cypher."""

    async def remember(
        self,
        content: str,
        *,
        about: Iterable[str] = (),
        kind: str = "fact",
        importance: float | None = None,
        pinned: bool = False,
        session: str | None = None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
        replaces: str | None = None,
    ) -> Receipt:
        """See `Agent.remember`."""
        return await self._call_writing(
            lambda: self._agent.remember(
                content,
                about=about,
                kind=kind,
                importance=importance,
                pinned=pinned,
                session=session,
                valid_from=valid_from,
                valid_to=valid_to,
                metadata=metadata,
                id=id,
                replaces=replaces,
            )
        )

    async def memories(
        self,
        question: str | None = None,
        *,
        about: str | None = None,
        kind: str | None = None,
        session: str | None = None,
        as_of: datetime | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Memory]:
        """See `Agent.memories`."""
        return await self._call(
            lambda: self._agent.memories(
                question,
                about=about,
                kind=kind,
                session=session,
                as_of=as_of,
                limit=limit,
                before=before,
            )
        )

    async def get_memory(self, id: str) -> Memory | None:
        """See `Agent.get_memory`."""
        return await self._call(lambda: self._agent.get_memory(id))

    async def edit_memory(self, id: str, content: str) -> None:
        """See `Agent.edit_memory`."""
        await self._call_writing(lambda: self._agent.edit_memory(id, content))

    async def delete_memory(self, id: str) -> bool:
        """See `Agent.delete_memory`."""
        return await self._call_writing(lambda: self._agent.delete_memory(id))

    async def close_memory(self, id: str, *, at: datetime | None = None) -> None:
        """See `Agent.close_memory`."""
        await self._call_writing(lambda: self._agent.close_memory(id, at=at))

    async def relate(
        self,
        source: str,
        relation: str,
        target: str,
        *,
        strength: float = 1.0,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        replaces: bool = False,
    ) -> None:
        """See `Agent.relate`."""
        await self._call_writing(
            lambda: self._agent.relate(
                source,
                relation,
                target,
                strength=strength,
                valid_from=valid_from,
                valid_to=valid_to,
                replaces=replaces,
            )
        )

    async def unrelate(
        self,
        source: str,
        relation: str | None = None,
        target: str | None = None,
        *,
        at: datetime | None = None,
    ) -> int:
        """See `Agent.unrelate`."""
        return await self._call_writing(
            lambda: self._agent.unrelate(source, relation, target, at=at)
        )

    async def relations(
        self,
        name: str | None = None,
        *,
        relation: str | None = None,
        as_of: datetime | None = None,
        limit: int = 1000,
    ) -> list[Relation]:
        """See `Agent.relations`."""
        return await self._call(
            lambda: self._agent.relations(name, relation=relation, as_of=as_of, limit=limit)
        )

    async def concepts(
        self,
        question: str | None = None,
        *,
        type: str | None = None,
        origin: str | None = None,
        limit: int = 100,
    ) -> list[Concept]:
        """See `Agent.concepts`."""
        return await self._call(
            lambda: self._agent.concepts(question, type=type, origin=origin, limit=limit)
        )

    async def concept(self, name: str) -> ConceptDetails | None:
        """See `Agent.concept`."""
        return await self._call(lambda: self._agent.concept(name))

    async def set_concept(
        self,
        name: str,
        *,
        rename: str | None = None,
        type: str | None = None,
        description: str | None = None,
        confidence: float | None = None,
    ) -> Concept:
        """See `Agent.set_concept`."""
        return await self._call_writing(
            lambda: self._agent.set_concept(
                name, rename=rename, type=type, description=description, confidence=confidence
            )
        )

    async def delete_concept(self, name: str) -> bool:
        """See `Agent.delete_concept`."""
        return await self._call_writing(lambda: self._agent.delete_concept(name))

    async def related(
        self,
        name: str,
        *,
        depth: int = 2,
        relation: str | None = None,
        as_of: datetime | None = None,
        limit: int = 100,
    ) -> list[Related]:
        """See `Agent.related`."""
        return await self._call(
            lambda: self._agent.related(
                name, depth=depth, relation=relation, as_of=as_of, limit=limit
            )
        )

    async def path(
        self, source: str, target: str, *, max_depth: int = 6, as_of: datetime | None = None
    ) -> list[Relation] | None:
        """See `Agent.path`."""
        return await self._call(
            lambda: self._agent.path(source, target, max_depth=max_depth, as_of=as_of)
        )

    async def cypher(
        self,
        query: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[dict[str, Any]]:
        """See `Agent.cypher`."""
        return await self._call(lambda: self._agent.cypher(query, params, timeout_s=timeout_s))

    async def rebuild_graph(self) -> GraphUsage:
        """See `Agent.rebuild_graph`."""
        return await self._call(self._agent.rebuild_graph)
