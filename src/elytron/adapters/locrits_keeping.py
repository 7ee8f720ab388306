"""
Locrits keeping: what a Locrits program does about size: counting, archiving, clearing.

What leaves goes to the archive, from which `restore` brings it back: nothing is only dropped.
"""

from typing import Any

from elytron.adapters.locrits_service import Service
from elytron.errors import InvalidArgument

_MB = 1 << 20
# Older than so many days, and how many stay: ever more severe, each only if the one before did not
# help. The last is as far as it goes, so it is never done again and again.
_STEPS = ((30, 1000), (7, 500))


class Keeping(Service):
    """Counting, archiving, giving space back."""

    async def get_message_count(self) -> int:
        """How many messages are held."""
        memory = await self._memory()
        return (await memory.usage()).messages

    async def cleanup_old_messages(self, max_messages: int = 5000) -> int:
        """Archive the oldest until *max_messages* are held; returns how many left."""
        memory = await self._memory()
        return (await memory.archive(older_than_days=0, keep=max_messages)).archived

    async def archive_old_messages(self, days_old: float = 30, keep_count: int = 1000) -> int:
        """
        Archive messages older than *days_old*, the oldest first, until *keep_count* are held.

        The newest *keep_count* always stay. Returns how many left. Age counts from when a message
        arrived here: what was migrated is as old as its migration, whatever its time.
        """
        memory = await self._memory()
        return (await memory.archive(older_than_days=days_old, keep=keep_count)).archived

    async def get_memory_usage(self) -> dict[str, Any]:
        """
        `{db_file_size_mb, process_memory_mb, message_count, estimated_embedding_size_mb}`: the
        files of this memory, the memory of this process, and what vectors take of those files.
        """
        import psutil

        memory = await self._memory()
        usage = await memory.usage()
        held = usage.embeddings.bytes
        vectors = usage.bytes.vectors if held else 0  # an empty table has a page, too
        return {
            "db_file_size_mb": usage.bytes.total / _MB,
            "process_memory_mb": psutil.Process().memory_info().rss / _MB,
            "message_count": usage.messages,
            "estimated_embedding_size_mb": vectors / _MB,
        }

    async def check_memory_limit(self, max_size_mb: float = 100) -> bool:
        """
        Bring this memory under a size, if it is over; returns whether it is under it now.

        Space that is not used is given back first. Only if that is not enough, messages of more
        than 30 days are archived, down to 1000; then those of more than 7 days, down to 500. What
        cannot be archived by that stays, however often this is called. Age counts from when a
        message arrived here, so in the first days after a migration nothing migrated leaves.
        """
        if not isinstance(max_size_mb, int | float) or not max_size_mb > 0:
            raise InvalidArgument(f"max_size_mb must be above 0; got {max_size_mb!r:.50}")
        memory = await self._memory()

        async def fits() -> bool:
            return (await memory.usage()).bytes.total <= max_size_mb * _MB

        if await fits():
            return True
        await memory.reclaim(full=True)
        for days, keep in _STEPS:
            if await fits():
                return True
            left = await memory.archive(older_than_days=days, keep=keep)
            if left.archived:
                await memory.reclaim(full=True)
        return await fits()

    async def emergency_cleanup(self) -> int:
        """
        Archive the oldest half, if `emergency_messages` or more are held, and give space
        back; returns how many left.
        """
        memory = await self._memory()
        return (await memory.emergency_cleanup()).archived
