"""
LangGraph held: the memories of one agent that are items of a LangGraph store, read and written.

By the verbs alone that every agent has, here or far away.
"""
# mypy: disable-error-code="import-not-found"

import json
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from langgraph.store.base import get_text_at_path

from elytron.adapters import items
from elytron.adapters.langgraph_records import (
    FOREVER,
    NAMESPACES,
    SPREAD,
    Namespace,
    Record,
    group,
    is_record,
    listed,
    lives,
    mark,
    namespace_id,
    namespace_of,
    parts,
    record_id,
    record_of,
    remembered,
    spread_at,
    words_group,
    words_id,
)
from elytron.agent import Agent
from elytron.errors import Busy, Conflict, NotFound
from elytron.records import Memory

_T = TypeVar("_T")
_log = logging.getLogger("elytron.adapters")
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)  # held by everything, also by what has expired
_TRIES_MAX = 10  # others that write the same item at the same moment
_REFRESH_SHARE = 0.01  # of its time to live: an item that has gained less is not written
# Of more namespaces than the first, all memories are read together where there are no more of them
# for each than the second: to read those costs about as much as a call.
_CALLS_MAX, _EACH_MAX = 50, 20
_AMONG_MAX = 50_000  # memories among which all that list namespaces are sought; else in each part


class Held:
    """
    The items in one agent's memory.

    `writing` is held while one is written, so that there is no put between a sweep's look at an
    item and its deletion.
    """

    def __init__(self, agent: Agent, *, rows_max: int) -> None:
        self.writing = threading.RLock()
        self._agent = agent
        self._rows_max = rows_max
        self._room = 0  # namespaces that may be listed before it is looked how many there are

    def memory(self, namespace: Namespace, key: str, now: datetime) -> Memory | None:
        """The memory of an item, if it lives."""
        memory = self._agent.get_memory(record_id(namespace, key))
        return memory if memory is not None and lives(memory, now) else None

    def put(self, new: Record) -> None:
        """Write an item, new or over the one that is there."""
        memory_id = record_id(new.namespace, new.key)
        before = _until_undisturbed(lambda: self._place(memory_id, new))
        _until_undisturbed(lambda: self._place_words(memory_id, new, before))

    def _place(self, memory_id: str, new: Record) -> Record | None:
        """Write the item itself; returns the one that was there."""
        expires = new.expires_at(new.updated_at)
        self._note_namespace(new.namespace)
        held = self._agent.get_memory(memory_id)
        if held is None:
            self._agent.remember(**remembered(new, expires=expires))
            self._note_namespace(new.namespace)  # if it was taken away as empty meanwhile
            return None
        before = record_of(held)
        if lives(held, new.updated_at):
            new = replace(new, created_at=before.created_at)
        self._agent.edit_memory(memory_id, new.content())
        ends = expires if held.valid_to is None else expires or FOREVER
        if ends != held.valid_to:
            self._agent.close_memory(memory_id, at=ends)
        return before

    def _place_words(self, memory_id: str, new: Record, before: Record | None) -> None:
        """Hold the words of the fields that are searched, where these are not all of the item."""
        found = [text for path in new.fields or () for text in get_text_at_path(new.value, path)]
        if not found:
            if before is not None and before.fields:
                self._agent.delete_memory(words_id(memory_id))
            return
        text = f"{items.words(found, otherwise='-')}\n{mark(new.namespace, new.key)}"
        if self._agent.get_memory(words_id(memory_id)) is not None:
            self._agent.edit_memory(words_id(memory_id), text)
            return
        self._agent.remember(
            text,
            kind=group(new.namespace),
            session=words_group(new.namespace),
            metadata={"of": memory_id},
            id=words_id(memory_id),
        )

    def delete(self, namespace: Namespace, key: str) -> None:
        memory_id = record_id(namespace, key)
        memory = self._agent.get_memory(memory_id)
        if memory is None:
            return
        if record_of(memory).fields:
            self._agent.delete_memory(words_id(memory_id))
        self._agent.delete_memory(memory_id)
        if not self.has_items(namespace, LONG_AGO):
            self._unlist(namespace)
            if self.has_items(namespace, LONG_AGO):  # put meanwhile
                self._note_namespace(namespace)

    def refresh(self, memory: Memory, record: Record, now: datetime) -> None:
        expires = record.expires_at(now)
        if expires is None or record.ttl_minutes is None:
            return
        if memory.valid_to is not None:
            gained_s = (expires - memory.valid_to).total_seconds()
            if gained_s < record.ttl_minutes * 60 * _REFRESH_SHARE:
                return
        try:
            self._agent.close_memory(memory.id, at=expires)
        except NotFound as error:
            _log.debug("an item was deleted while it was read: %s", error.code)

    def living(
        self, within: Sequence[Namespace], at: datetime, take: Callable[[Iterator[Memory]], _T]
    ) -> _T:
        """
        What *take* makes of the items of these namespaces that live at a time, in any order.

        It is asked again where they were disturbed while they were read, and has to begin anew.
        """
        known = frozenset(within)
        sessions: list[str | None] = [None]  # all of them
        if not self._are_many(within):
            sessions = [group(namespace) for namespace in within]

        def found() -> Iterator[Memory]:
            for session in sessions:
                for memory in self._pages(session=session, as_of=at):
                    if is_record(memory) and namespace_of(memory) in known:
                        yield memory

        return _until_undisturbed(lambda: take(found()))

    def inhabited(self, within: Sequence[Namespace], at: datetime) -> set[Namespace]:
        """Which of these namespaces have items that live at a time."""
        if self._are_many(within):
            return self.living(within, at, lambda found: set(map(namespace_of, found)))
        return {namespace for namespace in within if self.has_items(namespace, at)}

    def _are_many(self, within: Sequence[Namespace]) -> bool:
        """Whether to read all memories takes less than to ask for each of these namespaces."""
        count = len(within)
        return count > _CALLS_MAX and self._agent.usage().memories <= _EACH_MAX * count

    def _pages(self, **only: Any) -> Iterator[Memory]:
        """
        What `Agent.memories` gives, page by page.

        Raises:
            NotFound: the last of a page was deleted, so that it is not known what the next is.
        """
        last: Memory | None = None
        while True:
            before = None if last is None else last.id
            page = self._agent.memories(limit=self._rows_max, before=before, **only)
            if last is not None and not self._is_there(last):
                raise NotFound("the last item of a page was deleted meanwhile")
            yield from page
            if len(page) < self._rows_max:
                return
            last = page[-1]

    def _is_there(self, memory: Memory) -> bool:
        held = self._agent.get_memory(memory.id)
        return held is not None and held.created == memory.created  # not deleted and put anew

    def namespaces(self, prefix: Namespace = ()) -> list[Namespace]:
        """Those that begin with *prefix*, each once."""
        found = _until_undisturbed(lambda: self._listed(prefix))
        beginning = [one for one in found if one != SPREAD and one[: len(prefix)] == prefix]
        return list(dict.fromkeys(beginning))

    def _listed(self, prefix: Namespace) -> list[Namespace]:
        """Those that begin with *prefix*, and others."""
        found = [_labels(one) for one in self._pages(session=NAMESPACES, as_of=LONG_AGO)]
        if SPREAD not in found:
            return found
        sessions = parts(prefix)
        if len(sessions) > _CALLS_MAX and self._agent.usage().memories <= _AMONG_MAX:
            return [_labels(one) for one in self._pages(kind=NAMESPACES, as_of=LONG_AGO)]
        for session in sessions:
            found += [_labels(one) for one in self._pages(session=session, as_of=LONG_AGO)]
        return found

    def has_items(self, namespace: Namespace, at: datetime) -> bool:
        return bool(self._agent.memories(session=group(namespace), as_of=at, limit=1))

    def _note_namespace(self, namespace: Namespace) -> None:
        for spread in (False, True):
            if self._agent.get_memory(namespace_id(namespace, spread=spread)) is not None:
                return
        self._agent.remember(**listed(namespace, spread=self._is_spread()))

    def _is_spread(self) -> bool:
        """
        Whether a new namespace is listed in a part, as there are many.

        Looks at the list seldom: it has room for what other processes add meanwhile.
        """
        if self._agent.get_memory(namespace_id(SPREAD)) is not None:
            return True
        self._room -= 1
        if self._room > 0:
            return False
        many = spread_at(self._rows_max)
        self._room = max(1, many // 2)
        if len(self._agent.memories(session=NAMESPACES, as_of=LONG_AGO, limit=many)) < many:
            return False
        self._agent.remember(**listed(SPREAD))
        return True

    def _unlist(self, namespace: Namespace) -> None:
        for spread in (False, True):
            listing = namespace_id(namespace, spread=spread)
            if self._agent.get_memory(listing) is not None:
                self._agent.delete_memory(listing)

    def expired(self, clock: Callable[[], datetime]) -> Generator[None, None, None]:
        """Delete what has expired, one for each step."""
        for namespace in self.namespaces():
            before: str | None = None  # the last that lives: what has expired is gone by then
            more = True
            while more:
                found = self._agent.memories(
                    session=group(namespace), as_of=LONG_AGO, limit=self._rows_max, before=before
                )
                more = len(found) == self._rows_max
                for memory in found:
                    if self._expire(namespace, memory, clock):
                        yield
                    else:
                        before = memory.id

    def _expire(self, namespace: Namespace, memory: Memory, clock: Callable[[], datetime]) -> bool:
        """Delete an item if it has expired; returns whether it had."""
        if lives(memory, clock()):
            return False
        with self.writing:
            held = self._agent.get_memory(memory.id)
            if held is None or lives(held, clock()):
                return False
            self.delete(namespace, record_of(held).key)
        return True


def _labels(memory: Memory) -> Namespace:
    return tuple(json.loads(memory.metadata["namespace"]))


def _until_undisturbed(step: Callable[[], _T]) -> _T:
    """Do *step* again where another made or took away meanwhile what it had looked at."""
    for _ in range(_TRIES_MAX):
        try:
            return step()
        except (Conflict, NotFound) as error:
            _log.debug("items changed while they were read or written: %s", error.code)
    raise Busy(f"items were changed by others {_TRIES_MAX} times meanwhile; retry later")
