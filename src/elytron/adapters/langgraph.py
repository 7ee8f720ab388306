"""
LangGraph: a `BaseStore` in an agent's memory.

Every item is one memory, found by its namespace and key without a search. A list of namespaces is
held beside them, so that a search reads only those that it is about.
"""
# mypy: disable-error-code="import-not-found, misc"

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from heapq import nlargest, nsmallest
from types import TracebackType
from typing import Any, Self, cast

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    SearchItem,
    SearchOp,
    ensure_embeddings,
    validate_op_namespace,
)

import elytron
from elytron.adapters import threads
from elytron.adapters.langgraph_held import Held
from elytron.adapters.langgraph_records import (
    FOREVER,
    Namespace,
    Record,
    fits,
    group,
    is_record,
    lives,
    matches,
    record_id,
    record_of,
)
from elytron.agent import Agent
from elytron.errors import ElytronError, InvalidArgument
from elytron.records import Memory
from elytron.store import Store

_log = logging.getLogger("elytron.adapters")
ROWS_MAX = 10_000  # items that are read at once; also the default of `max_query_rows`
SWEEP_MAX = 1000  # expired items that one use of the store deletes at most
_ASKED = 250  # hits that a search asks for first; the same for the first pages of one
_MORE_TIMES = 4  # that many more where too few of them fit
_KINDS_MAX = 100  # namespaces that one recall looks into
_INDEX = ("dims", "embed", "fields")
_TTL = ("default_ttl", "refresh_on_read", "omit_expired", "sweep_interval_minutes")

_Found = tuple[Memory, Record, float | None]  # the last is its score


class ElytronStore(BaseStore):
    """
    LangGraph's long-term memory in the memory of one agent.

    Give it an agent of its own: `agent.recall` finds its items beside messages, as JSON.

    `search` with a `query` finds by words, and by meaning where the agent's store has an embedder:
    then an item is found by its words at once and by its vector a moment later. Without a query
    the item last updated comes first. A value is what JSON can carry.

    Expired items are never shown. `sweep_ttl` deletes them, and so does any use of the store each
    `sweep_interval_minutes` where that is given. An item that is put again at the moment when
    another process sweeps it as expired may be lost: let one process sweep.

    A batch reads first and then writes, as LangGraph's own stores do; of several puts to one key
    the last counts. Each put is durable when it returns; those of a batch are not one transaction.

    Limits: an item has at most `max_message_kb`. A query finds at most *rows_max* items of each 100
    namespaces.
    """

    supports_ttl = True

    def __init__(
        self,
        agent: Agent,
        *,
        index: Mapping[str, Any] | None = None,
        ttl: Mapping[str, Any] | None = None,
        rows_max: int = ROWS_MAX,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """
        Args:
            agent: whose memory it is, from `store.agent(name)`.
            index: `fields`: the paths of an item that are searched, all of it if not given. What
                makes vectors is the embedder of the agent's store; see `from_path`.
            ttl: `default_ttl` in minutes, `refresh_on_read`, `sweep_interval_minutes`.
            rows_max: so many items are read at once; at most `max_query_rows`, of which it is the
                default.
            clock: by which items expire; for tests.
        """
        self.agent: Agent = threads.check_synchronous(agent, "remember", "an agent")
        if index is not None and index.get("embed") is not None:
            raise InvalidArgument(
                "`embed` belongs to the store that the agent is from: open that with `embedder=`,"
                " or use `ElytronStore.from_path`"
            )
        _check_names(index, _INDEX, "index")
        _check_names(ttl, _TTL, "ttl")
        self._fields = _fields(None if index is None else index.get("fields"))
        self.ttl_config = cast("Any", None if ttl is None else dict(ttl))
        interval = None if ttl is None else ttl.get("sweep_interval_minutes")
        self._sweep_s = None if interval is None else float(interval) * 60
        self._next_sweep = 0.0 if self._sweep_s is None else time.monotonic() + self._sweep_s
        self._rows_max = rows_max
        self._clock = clock
        self._held = Held(self.agent, rows_max=rows_max)
        self._owned: Store | None = None

    @classmethod
    def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        agent: str = "langgraph",
        index: Mapping[str, Any] | None = None,
        ttl: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Self:
        """
        Open the store at *path*, and close it with this one: use it in a `with` block.

        Args:
            agent: the name of the agent whose memory it is.
            index: as LangGraph has it; `embed` makes the vectors.
            settings: of `elytron.open`.
        """
        _check_names(index, _INDEX, "index")
        if index is not None and index.get("embed") is not None:
            settings["embedder"] = _embedder(index["embed"])
            index = {name: value for name, value in index.items() if name != "embed"}
        store = elytron.open(path, **settings)
        try:
            made = cls(store.agent(agent), index=index, ttl=ttl)
        except BaseException:
            store.close()
            raise
        made._owned = store
        return made

    def close(self) -> None:
        """Close what `from_path` opened. Idempotent."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def abatch(self, ops: Iterable[Op]) -> list[Any]:
        """See `batch`."""
        listed = list(ops)
        return await threads.run(lambda: self.batch(listed))

    def batch(self, ops: Iterable[Op]) -> list[Any]:
        """
        Do several things: reads see what was there before the writes.

        Raises:
            InvalidArgument, InvalidNamespaceError, ValueError: one of them is not acceptable.
                Nothing was written; but of a value that is too long, all that comes before it.
        """
        listed = list(ops)
        now = self._clock()
        puts: dict[str, PutOp] = {}
        for op in listed:
            validate_op_namespace(op)
            if isinstance(op, PutOp):
                if op.value is not None:
                    self._new(op, now).content()
                puts[record_id(op.namespace, op.key)] = op
        self._sweep_if_due()
        results = [None if isinstance(op, PutOp) else self._read(op, now) for op in listed]
        for op in puts.values():
            with self._held.writing:
                if op.value is None:
                    self._held.delete(op.namespace, op.key)
                else:
                    self._held.put(self._new(op, self._clock()))
        return results

    def sweep_ttl(self) -> int:
        """Delete all items that have expired; returns how many."""
        return sum(1 for _ in self._held.expired(self._clock))

    def _read(self, op: Op, now: datetime) -> Any:
        match op:
            case GetOp():
                return self._get(op, now)
            case SearchOp():
                found = self._search(op, now)[max(0, op.offset) :][: max(0, op.limit)]
                if op.refresh_ttl:
                    for memory, record, _ in found:
                        self._held.refresh(memory, record, now)
                return [_search_item(record, score) for _, record, score in found]
            case ListNamespacesOp():
                return self._list(op, now)
        raise ValueError(f"unknown operation {type(op).__name__}")

    # -- items

    def _get(self, op: GetOp, now: datetime) -> Item | None:
        memory = self._held.memory(op.namespace, op.key, now)
        if memory is None:
            return None
        record = record_of(memory)
        if op.refresh_ttl:
            self._held.refresh(memory, record, now)
        return _item(record)

    def _new(self, op: PutOp, now: datetime) -> Record:
        """What a put asks for, as if nothing were there."""
        if not isinstance(op.value, Mapping):
            raise InvalidArgument(f"a value must be a mapping; got {type(op.value).__name__}")
        if not isinstance(op.key, str):
            raise InvalidArgument(f"a key must be a string; got {type(op.key).__name__}")
        if op.ttl is not None and not (0 <= op.ttl < math.inf):
            raise InvalidArgument(f"ttl must be minutes, 0 or more; got {op.ttl!r:.50}")
        fields = self._fields if op.index is None else _fields(op.index or ())
        return Record(op.namespace, op.key, dict(op.value), now, now, op.ttl, fields)

    # -- searching

    def _search(self, op: SearchOp, now: datetime) -> list[_Found]:
        """What fits, best or newest first, as many as are asked for and passed over."""
        within = self._held.namespaces(tuple(op.namespace_prefix))
        wanted = max(0, op.offset) + max(0, op.limit)
        if op.query and op.query.strip():
            return self._recall(op, within, now, wanted)

        def newest(living: Iterator[Memory]) -> list[_Found]:
            found: Iterator[_Found] = ((memory, record_of(memory), None) for memory in living)
            fitting = (one for one in found if _wanted(one[1], op))
            return nsmallest(wanted, fitting, key=_newest_first)

        return self._held.living(within, now, newest)

    def _recall(
        self, op: SearchOp, within: list[Namespace], now: datetime, wanted: int
    ) -> list[_Found]:
        best: list[_Found] = []
        for first in range(0, len(within), _KINDS_MAX):
            kinds = [group(namespace) for namespace in within[first : first + _KINDS_MAX]]
            asked = min(_ASKED, self._rows_max)
            while True:
                hits = self.agent.recall(str(op.query), kinds=kinds, limit=asked, at=now)
                fitting = list(self._fitting(hits, op, now))
                if len(fitting) >= wanted or len(hits) < asked or asked == self._rows_max:
                    break
                asked = min(_MORE_TIMES * asked, self._rows_max)
            best = nlargest(wanted, [*best, *fitting], key=_worth)
        return best

    def _fitting(
        self, hits: Iterable[elytron.Hit], op: SearchOp, now: datetime
    ) -> Iterator[_Found]:
        for hit in hits:
            memory = hit.memory
            apart = memory is not None and not is_record(memory)
            if apart and memory is not None:
                if "of" not in memory.metadata:
                    continue  # somebody else's
                memory = self.agent.get_memory(str(memory.metadata["of"]))
            if memory is None or not lives(memory, now):
                continue
            record = record_of(memory)
            if apart == bool(record.fields) and record.fields != () and _wanted(record, op):
                yield memory, record, hit.score

    # -- namespaces

    def _list(self, op: ListNamespacesOp, now: datetime) -> list[Namespace]:
        wanted = [
            namespace
            for namespace in self._held.namespaces()
            if all(
                matches(namespace, condition.match_type, condition.path)
                for condition in op.match_conditions or ()
            )
        ]
        found = {namespace[: op.max_depth] for namespace in self._held.inhabited(wanted, now)}
        return sorted(found)[max(0, op.offset) :][: max(0, op.limit)]

    def _sweep_if_due(self) -> None:
        if self._sweep_s is None or time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + self._sweep_s
        try:
            with closing(self._held.expired(self._clock)) as expired:
                for number, _ in enumerate(expired, 1):
                    if number == SWEEP_MAX:
                        return
        except ElytronError as error:  # what was asked for is done all the same
            _log.warning(
                "expired items were not all deleted, the next sweep goes on: %s", error.code
            )


def _newest_first(found: _Found) -> tuple[Any, ...]:
    """An order in which the last update comes first."""
    record = found[1]
    return FOREVER - record.updated_at, record.namespace, record.key


def _worth(found: _Found) -> tuple[Any, ...]:
    """What is best is more. Of equals the newest, as recall picks them, so that pages follow."""
    _, record, score = found
    return score or 0.0, record.created_at, record.namespace, record.key


def _is_within(namespace: Namespace, op: SearchOp) -> bool:
    return namespace[: len(op.namespace_prefix)] == tuple(op.namespace_prefix)


def _wanted(record: Record, op: SearchOp) -> bool:
    """Whether a record is of the namespace that is asked for, and as the filter has it."""
    return _is_within(record.namespace, op) and all(
        fits(record.value.get(name), wanted) for name, wanted in (op.filter or {}).items()
    )


def _item(record: Record) -> Item:
    return Item(
        value=record.value,
        key=record.key,
        namespace=record.namespace,
        created_at=record.created_at,
        updated_at=record.updated_at,
    )


def _search_item(record: Record, score: float | None) -> SearchItem:
    return SearchItem(
        record.namespace, record.key, record.value, record.created_at, record.updated_at, score
    )


def _fields(paths: Iterable[str] | None) -> tuple[str, ...] | None:
    """The paths that are searched; None where one of them is the whole."""
    if paths is None:
        return None
    listed = tuple([paths] if isinstance(paths, str) else paths)
    return None if "$" in listed else listed


def _check_names(given: Mapping[str, Any] | None, known: tuple[str, ...], what: str) -> None:
    for name in given or ():
        if name not in known:
            raise InvalidArgument(f"`{what}` has no {name!r:.50}; it has {', '.join(known)}")


def _embedder(embed: Any) -> Callable[[list[str], str], list[list[float]]]:
    """LangGraph's embedding function as one of ours."""
    embeddings = ensure_embeddings(embed)

    def rows(texts: list[str], kind: str) -> list[list[float]]:
        if kind == "query":
            return [embeddings.embed_query(text) for text in texts]
        found: list[list[float]] = embeddings.embed_documents(list(texts))
        return found

    return rows
