"""
Metrics: a store's limits and costs as text that Prometheus reads.

For a program that serves its own metrics, and for `elytron usage --prometheus`. Needs the extra
`metrics`; its library is imported on use, and nothing is put into its process-wide registry.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from elytron.embed import policy
from elytron.errors import InvalidArgument
from elytron.faces import costs
from elytron.faces.costs import StoreCosts
from elytron.records import StoreUsage, Usage
from elytron.store import Store

if TYPE_CHECKING:
    from prometheus_client import Metric

_DAY_S = 86_400
_REASONS = (
    policy.EMBEDDED,
    policy.SHARED,
    policy.QUEUED,
    policy.DISABLED,
    policy.DECLINED,
    policy.BY_ROLE,
    policy.TOO_SHORT,
    policy.NO_ROOM,
    policy.REFUSED,
)
_KINDS = ("live", "dead", "wal", "words", "vectors", "graph", "archive", "aside")

# A sample: the values of its labels, and its own.
_Sample = tuple[Sequence[str], float]


def render(store: Store) -> bytes:
    """
    The text of all metrics of a store, in Prometheus' exposition format 0.0.4, UTF-8.

    Args:
        store: an open store. Each of its agents is opened in turn, as for `Store.usage`.

    Returns:
        What to answer with, as `text/plain; version=0.0.4; charset=utf-8`. Those of an agent have
        the label `agent`. One that cannot be read has `elytron_agent_readable` 0 and nothing
        else; while there is one, the metrics of the whole store are left out.

    Raises:
        InvalidArgument: `prometheus_client` is not installed.
        Closed, Forked: the store is of no use any more.

    Makes nothing on disk. Costs as `Store.usage`: some milliseconds an agent.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError as error:
        raise InvalidArgument(
            "metrics need prometheus_client; run: pip install 'elytron[metrics]'"
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StoreCollector(store))
    return generate_latest(registry)


class _StoreCollector:
    """Looks at the store once for each text that is made."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterable["Metric"]:
        """Nothing: on being registered, a collector without this would be asked to collect."""
        return ()

    def collect(self) -> Iterator["Metric"]:
        found = costs.read_store(self._store)
        usages = [cost for cost in found.agents if isinstance(cost, Usage)]
        yield _readable(found)
        yield from _agent_gauges(usages, self._store.config.archive_full_bytes)
        yield from _agent_counters(usages)
        if found.usage is not None:
            yield from _store_gauges(found.usage)
            yield from _janitor_gauges(found.usage)
            yield from _worker_gauges(found.usage)
        yield from _embedding_metrics(usages)


def _gauge(
    name: str, doc: str, samples: Iterable[_Sample], labels: Sequence[str] = ("agent",)
) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"elytron_{name}", doc, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(
    name: str, doc: str, samples: Iterable[_Sample], labels: Sequence[str] = ("agent",)
) -> "Metric":
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"elytron_{name}", doc, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _readable(found: StoreCosts) -> "Metric":
    samples = [([cost.agent], float(isinstance(cost, Usage))) for cost in found.agents]
    return _gauge("agent_readable", "Whether the memory of the agent can be read.", samples)


def _agent_gauges(usages: Sequence[Usage], archive_full_bytes: int) -> Iterator["Metric"]:
    def each(name: str, doc: str, values: Iterable[float]) -> "Metric":
        return _gauge(name, doc, zip(([u.agent] for u in usages), values, strict=True))

    by_kind = [
        ([usage.agent, kind], float(getattr(usage.bytes, kind)))
        for usage in usages
        for kind in _KINDS
    ]
    doc = "Bytes by kind; words and vectors are parts of live, wal holds copies of live and dead."
    yield _gauge("agent_bytes", doc, by_kind, ("agent", "kind"))
    doc = "Bytes on disk that max_db_size_mb bounds."
    yield each("agent_used_bytes", doc, [u.bytes.total for u in usages])
    yield each("agent_limit_bytes", "Limit of used bytes.", [u.limit_bytes for u in usages])
    doc = "Bytes from which on an archive drops its oldest: seven eighths of max_archive_mb."
    yield each("agent_archive_limit_bytes", doc, [archive_full_bytes] * len(usages))
    yield each("agent_messages", "Messages held.", [u.messages for u in usages])
    yield each("agent_messages_limit", "Limit of messages held.", [u.max_messages for u in usages])
    doc = "Messages in the archive."
    yield each("agent_archived_messages", doc, [u.archived for u in usages])
    doc = "Messages that never leave for the archive."
    yield each("agent_pinned_messages", doc, [u.pinned for u in usages])
    yield each("agent_memories", "Memories held.", [u.memories for u in usages])
    yield each("agent_concepts", "Concepts held.", [u.concepts for u in usages])
    doc = "Relations, and mentions of concepts."
    yield each("agent_links", doc, [u.edges for u in usages])
    doc = "Writes of this process that wait."
    yield each("agent_queued_writes", doc, [u.queued for u in usages])
    forecasts = [
        ([usage.agent, limit], days * _DAY_S)
        for usage in usages
        for limit, days in usage.forecast.until.items()
        if days is not None
    ]
    doc = "Time until a limit is reached at the present rate; missing where none comes nearer."
    yield _gauge("agent_forecast_seconds", doc, forecasts, ("agent", "limit"))


def _agent_counters(usages: Sequence[Usage]) -> Iterator["Metric"]:
    doc = "Messages that left the archive at its limit, for good."
    dropped = [([usage.agent], float(usage.archive.dropped)) for usage in usages]
    yield _counter("archive_dropped_messages", doc, dropped)
    failed = [([usage.agent], float(usage.failed_writes)) for usage in usages]
    yield _counter("agent_failed_writes", "Writes of this process that failed.", failed)


def _embedding_metrics(usages: Sequence[Usage]) -> Iterator["Metric"]:
    by_reason = [
        ([usage.agent, reason], float(usage.embeddings.reasons.get(reason, 0)))
        for usage in usages
        for reason in _REASONS
    ]
    doc = "Messages by whether they have a vector (embedded, shared), or why not."
    yield _gauge("embeddings", doc, by_reason, ("agent", "reason"))
    sizes = [([usage.agent], float(usage.embeddings.bytes)) for usage in usages]
    yield _gauge("vector_bytes", "Vectors, of the limit `max_vector_mb`.", sizes)
    # The embedder is the whole store's, so each agent says the same.
    failures = max([usage.embeddings.failures for usage in usages], default=0)
    doc = "Calls of the embedder by this process that failed."
    yield _counter("embedder_failures", doc, [((), float(failures))], ())


def _one(name: str, doc: str, value: float | None) -> "Metric":
    """A metric of the whole store; without a sample where there is no value."""
    return _gauge(name, doc, [] if value is None else [((), value)], ())


def _store_gauges(usage: StoreUsage) -> Iterator["Metric"]:
    yield _one("store_agents", "Agents of the store.", len(usage.agents))
    yield _one("store_bytes", "Bytes on disk of the whole store.", usage.total_bytes)
    yield _one("store_limit_bytes", "Limit of these; missing if off.", usage.limit_bytes)
    yield _one("store_archive_bytes", "Bytes of all archives.", usage.archive_bytes)
    yield _one("store_reserve_bytes", "Bytes kept for a full disk.", usage.reserve_bytes)
    yield _one("open_agents", "Agents that this process has open.", usage.open_agents)
    yield _one("queued_writes", "Writes of this process that wait.", usage.queued)
    yield _one("queued_bytes", "The same in bytes.", usage.queued_bytes)
    yield _one("resident_memory_bytes", "Memory of this process.", usage.rss_bytes)
    yield _one("sqlite_memory_bytes", "Of this, what SQLite uses.", usage.sqlite_bytes)
    yield _one("threads", "Threads of this process.", usage.threads)
    yield _one("open_descriptors", "Open descriptors of this process.", usage.descriptors)


def _janitor_gauges(usage: StoreUsage) -> Iterator["Metric"]:
    janitor = usage.janitor
    running = float(janitor.running)
    yield _one("janitor_running", "Whether this process cleans up periodically.", running)
    yield _one("janitor_failures", "Clean-ups in a row that failed.", janitor.failures)
    last, next_ = _timestamp(janitor.last_run), _timestamp(janitor.next_run)
    yield _one("janitor_last_run_timestamp_seconds", "When it last cleaned up.", last)
    yield _one("janitor_next_run_timestamp_seconds", "When it will clean up next.", next_)


def _worker_gauges(usage: StoreUsage) -> Iterator["Metric"]:
    worker = usage.worker
    yield _one("graph_worker_running", "Whether this process has a worker.", float(worker.running))
    yield _one("graph_worker_memory_bytes", "Memory of the worker.", worker.rss_bytes)
    yield _one("graph_worker_open_graphs", "Graphs that the worker has open.", worker.open_graphs)
    doc = "Starts of the worker by this process; all but the first were after its end."
    yield _counter("graph_worker_starts", doc, [((), float(worker.starts))], ())


def _timestamp(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
