"""
Alarms: hooks that are told when a limit comes near, and when it is reached.

They run on the janitor's thread, never within a save, and what they raise is logged.
"""

import logging
import threading
from collections.abc import Callable, Iterator

from elytron.config import Config
from elytron.errors import InvalidArgument
from elytron.ledger import surveys
from elytron.ledger.room import NoRoom
from elytron.reports import Alarm
from elytron.upkeep.chores import Chores

_log = logging.getLogger("elytron.upkeep")
_HOOKS_MAX = 100
_KNOWN_MAX = 30_000  # limits of which it is remembered that their hooks were told
_MB = 1 << 20

Hook = Callable[[Alarm], None]


class Alarms:
    """Tells each hook once when a limit passes a level, and again when it has been below."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._mutex = threading.Lock()
        self._hooks: list[Hook] = []
        self._levels: dict[tuple[str | None, str], str] = {}
        self._refused: set[tuple[str, str]] = set()
        self._dropped: dict[str, int] = {}  # messages, by agent, when its archive was looked at

    def add(self, hook: Hook) -> None:
        with self._mutex:
            if len(self._hooks) >= _HOOKS_MAX:
                raise InvalidArgument(
                    f"there are {_HOOKS_MAX} hooks already, which is the limit; let one call others"
                )
            self._hooks.append(hook)

    def forget(self, agent: str) -> None:
        """What its hooks were told of an agent is nothing to whoever has its name next."""
        with self._mutex:
            self._levels = {key: level for key, level in self._levels.items() if key[0] != agent}
            self._refused = {key for key in self._refused if key[0] != agent}
            self._dropped.pop(agent, None)

    def look(self, chores: Chores) -> list[tuple[str, float, float]]:
        """
        (limit, used, maximum) of an agent's limits, for `tell`: once the agent is given back, since
        a hook may call any verb.
        """
        return list(self._limits(chores)) if self._hooks else []

    def refused(self, agent: str, short: NoRoom) -> None:
        """
        Note that a write was refused at a limit of the agent's own; the hooks are told with the
        next `tell`. Of `max_total_mb` they are not: no agent is told of the store's.
        """
        if short.limit == "max_total_mb":
            return
        with self._mutex:
            if len(self._refused) < _KNOWN_MAX:
                self._refused.add((agent, short.limit))

    def _limits(self, chores: Chores) -> Iterator[tuple[str, float, float]]:
        desk, config = chores.desk, self._config
        messages = desk.read(lambda db: surveys.counts(db, ("messages",)))["messages"]
        yield "max_messages_per_agent", messages, config.max_messages_per_agent
        # The WAL has its own part of the limit, whether it is used or not.
        live = desk.pages().live_bytes + config.max_db_size_bytes - chores.room_bytes
        yield "max_db_size_mb", live / _MB, config.max_db_size_mb
        if desk.archive.exists():
            archive = desk.archive.usage()
            self._note_dropped(desk.name, archive.dropped)
            yield "max_archive_mb", archive.bytes / _MB, config.archive_full_bytes / _MB

    def _note_dropped(self, agent: str, dropped: int) -> None:
        """An archive that has dropped messages was at its limit, though it is below it again."""
        with self._mutex:
            before = self._dropped.pop(agent, dropped)
            if len(self._dropped) < _KNOWN_MAX:
                self._dropped[agent] = dropped
            if dropped > before and len(self._refused) < _KNOWN_MAX:
                self._refused.add((agent, "max_archive_mb"))

    def tell(self, agent: str | None, limit: str, used: float, maximum: float) -> None:
        """Tell the hooks, if this limit has passed a level since they were last told of it."""
        level = None
        with self._mutex:
            refused = (agent or "", limit) in self._refused
            self._refused.discard((agent or "", limit))
        if used >= maximum or refused:
            level = "hard"
        elif used >= self._config.soft_limit_ratio * maximum:
            level = "soft"
        with self._mutex:
            before = self._levels.pop((agent, limit), None)
            if level is not None and len(self._levels) < _KNOWN_MAX:
                self._levels[agent, limit] = level
            hooks = list(self._hooks)
        if level is None or level == before or (before == "hard" and level == "soft"):
            return
        alarm = Alarm(agent, limit, level, used, maximum)
        for hook in hooks:
            try:
                hook(alarm)
            except (Exception, SystemExit):  # noqa: BLE001 - a stranger's; it ends nothing here
                _log.exception("a hook failed at %s of %r", limit, agent)
