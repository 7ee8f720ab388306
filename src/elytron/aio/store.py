"""Store and agent for asyncio: each verb forwarded to the one of the same name."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from elytron import config_sources
from elytron import store as stores
from elytron.aio.base import call
from elytron.aio.learning import AsyncLearning
from elytron.concepts.extraction import Extract
from elytron.config import Config
from elytron.embed.embedder import EmbedFunction
from elytron.records import (
    Context,
    Hit,
    ImportReport,
    Message,
    Receipt,
    Session,
    StoreUsage,
    Usage,
)
from elytron.reports import (
    Alarm,
    BackedUp,
    Checked,
    Cleanup,
    Deleted,
    Embedded,
    Erased,
    Reclaimed,
    Restored,
)

_T = TypeVar("_T")
_PART = 500  # messages of the archive that are read at once
_LONG = 4096  # characters; to index so many takes more than a millisecond of the loop


def open(  # noqa: A001 - `elytron.aio.open` is the public name
    path: str | os.PathLike[str],
    config: str | Path | Mapping[str, Any] | Config | None = None,
    *,
    embedder: str | EmbedFunction | None = None,
    extract: Extract | None = None,
    **settings: Any,
) -> "AsyncStore":
    """`elytron.open` for asyncio; use it in an `async with` block."""
    loaded = config_sources.load(config, stores.with_embedder(settings, embedder), os.environ)
    function = None if isinstance(embedder, str) else embedder
    return AsyncStore(path, loaded, embedder=function, extract=extract)


class AsyncStore:
    """`Store` for asyncio: the same verbs, awaited."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Config,
        *,
        embedder: EmbedFunction | None = None,
        extract: Extract | None = None,
    ) -> None:
        self._store = stores.Store(path, config, embedder=embedder, extract=extract)
        self._pool = ThreadPoolExecutor(config.async_threads, thread_name_prefix="elytron-async")

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def shown(self) -> str:
        return self._store.shown

    @property
    def config(self) -> Config:
        return self._store.config

    def agent(self, name: str) -> "AsyncAgent":
        """See `Store.agent`. Touches nothing, so it is not awaited."""
        return AsyncAgent(self._store.agent(name), self._pool)

    async def agents(self) -> list[str]:
        """See `Store.agents`."""
        return await self._call(self._store.agents)

    async def usage(self) -> StoreUsage:
        """See `Store.usage`."""
        return await self._call(self._store.usage)

    async def delete(self, name: str) -> Deleted:
        """See `Store.delete`."""
        return await self._call(lambda: self._store.delete(name))

    async def rename(self, old: str, new: str) -> None:
        """See `Store.rename`."""
        await self._call(lambda: self._store.rename(old, new))

    async def cleanup(self) -> bool:
        """See `Store.cleanup`."""
        return await self._call(self._store.cleanup)

    async def backup(
        self,
        to: str | os.PathLike[str],
        *,
        agents: Iterable[str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> BackedUp:
        """See `Store.backup`. *on_progress* is called on a thread of the pool."""
        return await self._call(
            lambda: self._store.backup(to, agents=agents, on_progress=on_progress)
        )

    def on_alarm(self, hook: Callable[[Alarm], None]) -> None:
        """See `Store.on_alarm`. Touches nothing, so it is not awaited."""
        self._store.on_alarm(hook)

    async def close(self) -> None:
        """See `Store.close`. Waits for writes whose awaiting was cancelled, too."""
        # Not on our pool, which it ends; a thread of its own ends with it.
        closer = ThreadPoolExecutor(1, thread_name_prefix="elytron-close")
        try:
            await call(closer, self._close_all)
            closer.shutdown(wait=True)  # it has ended all but its thread
        finally:
            closer.shutdown(wait=False)  # cancelled, it goes on without the loop

    def _close_all(self) -> None:
        self._close()
        self._pool.shutdown()

    def _close(self) -> None:
        self._store.close()

    async def _call(self, function: Callable[[], _T]) -> _T:
        self._store._agents.check_usable()  # a pool that was shut down would say it less well
        return await call(self._pool, function)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close()


class AsyncAgent(AsyncLearning):
    """`Agent` for asyncio: the same verbs, awaited. Each is described there."""

    async def save(
        self,
        role: str,
        content: str,
        *,
        session: str | None = None,
        user: str | None = None,
        at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
        importance: float | None = None,
        pinned: bool = False,
        embed: bool | None = None,
    ) -> Receipt:
        """See `Agent.save`. Cancelled, the write goes on."""
        future = await self.submit(
            role,
            content,
            session=session,
            user=user,
            at=at,
            metadata=metadata,
            id=id,
            importance=importance,
            pinned=pinned,
            embed=embed,
        )
        return await asyncio.wrap_future(future)

    async def save_many(self, messages: Iterable[Mapping[str, Any] | Message]) -> list[Receipt]:
        """See `Agent.save_many`."""
        return await self._call_writing(lambda: self._agent.save_many(messages))

    async def submit(
        self,
        role: str,
        content: str,
        *,
        session: str | None = None,
        user: str | None = None,
        at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str | None = None,
        importance: float | None = None,
        pinned: bool = False,
        embed: bool | None = None,
    ) -> "Future[Receipt]":
        """See `Agent.submit`; `asyncio.wrap_future` makes the future awaitable."""
        self._agent._agents.check_usable()  # first: in a fork a lock may be held for ever
        # A thread for a long text, and where the archive has to be asked for the id.
        archived = id is not None and self._agent._has_archive()
        if archived or (isinstance(content, str) and len(content) > _LONG):
            return await self._call_writing(
                lambda: self._agent.submit(
                    role,
                    content,
                    session=session,
                    user=user,
                    at=at,
                    metadata=metadata,
                    id=id,
                    importance=importance,
                    pinned=pinned,
                    embed=embed,
                )
            )
        draft = self._agent._admit(
            role,
            content,
            session=session,
            user=user,
            at=at,
            metadata=metadata,
            id=id,
            importance=importance,
            pinned=pinned,
            embed=embed,
        )
        # Queueing takes microseconds. A thread is worth it only for a long text, to wait for
        # room in the queue, or for an agent to be opened.
        op = self._agent._op(draft, id)
        future = self._agent._try_submit(op)
        if future is not None:
            return future
        return await self._call_writing(lambda: self._agent._submit(op))

    async def flush(self, *, timeout_s: float | None = None) -> None:
        """See `Agent.flush`."""
        self._agent._agents.check_usable()
        calls = self._agent._agents.calls.of(self.name)  # no later ones: they may need our thread
        await self._call(lambda: self._agent._flush(timeout_s, calls=calls))

    async def edit(self, id: str, content: str) -> None:
        """See `Agent.edit`."""
        await self._call_writing(lambda: self._agent.edit(id, content))

    async def delete(self, id: str) -> bool:
        """See `Agent.delete`."""
        return await self._call_writing(lambda: self._agent.delete(id))

    async def delete_session(self, session: str) -> int:
        """See `Agent.delete_session`."""
        return await self._call_writing(lambda: self._agent.delete_session(session))

    async def import_(
        self,
        messages: Iterable[Mapping[str, Any] | Message],
        *,
        skip_bad: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> ImportReport:
        """See `Agent.import_`. *on_progress* is called on a thread of the pool."""
        return await self._call_writing(
            lambda: self._agent.import_(messages, skip_bad=skip_bad, on_progress=on_progress)
        )

    async def reindex(self, *, on_progress: Callable[[int], None] | None = None) -> int:
        """See `Agent.reindex`. *on_progress* is called on a thread of the pool."""
        return await self._call_writing(lambda: self._agent.reindex(on_progress=on_progress))

    async def exists(self) -> bool:
        """See `Agent.exists`."""
        return await self._call(self._agent.exists)

    async def history(
        self, session: str | None = None, *, limit: int = 50, before: str | None = None
    ) -> list[Message]:
        """See `Agent.history`."""
        return await self._call(lambda: self._agent.history(session, limit=limit, before=before))

    async def get(self, id: str) -> Message | None:
        """See `Agent.get`."""
        return await self._call(lambda: self._agent.get(id))

    async def sessions(self, *, limit: int = 100) -> list[Session]:
        """See `Agent.sessions`."""
        return await self._call(lambda: self._agent.sessions(limit=limit))

    async def recall(
        self,
        question: str,
        *,
        limit: int = 8,
        session: str | None = None,
        user: str | None = None,
        role: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        archived: bool = False,
        kinds: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> list[Hit]:
        """See `Agent.recall`."""
        return await self._call(
            lambda: self._agent.recall(
                question,
                limit=limit,
                session=session,
                user=user,
                role=role,
                since=since,
                until=until,
                archived=archived,
                kinds=kinds,
                at=at,
            )
        )

    async def context(
        self,
        question: str,
        *,
        max_tokens: int = 800,
        limit: int = 50,
        count_tokens: Callable[[str], int] | None = None,
        session: str | None = None,
        user: str | None = None,
        role: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        archived: bool = False,
        kinds: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> Context:
        """See `Agent.context`. *count_tokens* is called on a thread of the pool."""
        return await self._call(
            lambda: self._agent.context(
                question,
                max_tokens=max_tokens,
                limit=limit,
                count_tokens=count_tokens,
                session=session,
                user=user,
                role=role,
                since=since,
                until=until,
                archived=archived,
                kinds=kinds,
                at=at,
            )
        )

    async def embed(self, *, on_progress: Callable[[int, int], None] | None = None) -> Embedded:
        """See `Agent.embed`. *on_progress* is called on a thread of the pool."""
        return await self._call_writing(lambda: self._agent.embed(on_progress=on_progress))

    async def reembed(self, *, on_progress: Callable[[int, int], None] | None = None) -> Embedded:
        """See `Agent.reembed`. *on_progress* is called on a thread of the pool."""
        return await self._call_writing(lambda: self._agent.reembed(on_progress=on_progress))

    async def usage(self) -> Usage:
        """See `Agent.usage`."""
        return await self._call(self._agent.usage)

    async def messages(self, *, archived: bool = False) -> AsyncIterator[Message]:
        """See `Agent.messages`; for `async for`."""
        seen, read = set[int](), set[str]()
        if archived:
            async for message in self._archived(seen, read):
                yield message
        after = 0
        while page := await self._call(partial(self._agent._page, after)):
            for key, message in page:
                if key not in seen:
                    yield message
            if archived:
                seen.update([key for key, _ in page])
            after = page[-1][0]
        if archived:
            async for message in self._archived(seen, read):
                yield message

    async def _archived(self, seen: set[int], read: set[str]) -> AsyncIterator[Message]:
        rest = self._agent._archived_messages(seen, read)
        while part := await self._call(lambda: list(islice(rest, _PART))):
            for message in part:
                yield message

    async def export(
        self,
        target: str | Path | IO[str],
        *,
        archived: bool = False,
        format: str | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """See `Agent.export`. A stream is written to on a thread of the pool."""
        return await self._call(
            lambda: self._agent.export(
                target, archived=archived, format=format, on_progress=on_progress
            )
        )

    async def pin(self, id: str) -> None:
        """See `Agent.pin`."""
        await self._call_writing(lambda: self._agent.pin(id))

    async def unpin(self, id: str) -> None:
        """See `Agent.unpin`."""
        await self._call_writing(lambda: self._agent.unpin(id))

    async def set_importance(self, id: str, importance: float) -> None:
        """See `Agent.set_importance`."""
        await self._call_writing(lambda: self._agent.set_importance(id, importance))

    async def archive(
        self,
        *,
        older_than_days: float | None = None,
        keep: int | None = None,
        dry_run: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Cleanup:
        """See `Agent.archive`. *on_progress* is called on a thread of the pool."""
        return await self._call_writing(
            lambda: self._agent.archive(
                older_than_days=older_than_days,
                keep=keep,
                dry_run=dry_run,
                on_progress=on_progress,
            )
        )

    async def enforce_limits(self, *, dry_run: bool = False) -> Cleanup:
        """See `Agent.enforce_limits`."""
        return await self._call_writing(lambda: self._agent.enforce_limits(dry_run=dry_run))

    async def emergency_cleanup(self, *, dry_run: bool = False) -> Cleanup:
        """See `Agent.emergency_cleanup`."""
        return await self._call_writing(lambda: self._agent.emergency_cleanup(dry_run=dry_run))

    async def restore(
        self,
        ids: Iterable[str] | str | None = None,
        *,
        session: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Restored:
        """See `Agent.restore`. *on_progress* is called on a thread of the pool."""
        return await self._call_writing(
            lambda: self._agent.restore(
                ids, session=session, since=since, until=until, on_progress=on_progress
            )
        )

    async def reclaim(self, *, full: bool = False) -> Reclaimed:
        """See `Agent.reclaim`."""
        return await self._call_writing(lambda: self._agent.reclaim(full=full))

    async def check(
        self, *, repair: bool = False, on_progress: Callable[[int], None] | None = None
    ) -> Checked:
        """See `Agent.check`. *on_progress* is called on a thread of the pool."""
        return await self._call_writing(
            lambda: self._agent.check(repair=repair, on_progress=on_progress)
        )

    async def forget(
        self, *, user: str | None = None, session: str | None = None, replies: bool = True
    ) -> Erased:
        """See `Agent.forget`."""
        return await self._call_writing(
            lambda: self._agent.forget(user=user, session=session, replies=replies)
        )

    async def clear(self) -> Erased:
        """See `Agent.clear`."""
        return await self._call_writing(self._agent.clear)
