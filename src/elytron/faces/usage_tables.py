"""
Usage tables: what agents and stores hold and cost, beside their limits and when those come near.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from elytron.embed import policy
from elytron.faces.columns import DIM, NARROW, ROOMY, SLIM, Bar, Columns, Head
from elytron.faces.costs import Costs, Unreadable, nearest_limit, share_of
from elytron.faces.tables import day, moment, name_of
from elytron.faces.visible import clip_name, counted, human_bytes, one_line
from elytron.records import GraphUsage, StoreUsage, Usage
from elytron.reports import EmbeddingUsage, Forecast, JanitorUsage, WorkerUsage

# What a limit bounds, in a word; a setting's own name is long.
_BOUNDED = {
    "max_db_size_mb": "size",
    "max_messages_per_agent": "messages",
    "max_archive_mb": "archive",
    "max_total_mb": "store",
}
# Why a message has no vector.
_REASONS = {
    policy.QUEUED: "waiting",
    policy.DISABLED: "saved while embeddings were off",
    policy.DECLINED: "declined when saved",
    policy.BY_ROLE: "of other roles",
    policy.TOO_SHORT: "too short",
    policy.NO_ROOM: "no room",
    policy.REFUSED: "refused by the embedder",
}
_HOURS_MAX = 2  # days that are told in hours
_DAYS_MAX = 730  # days that are not told in years
_YEARS_MAX = 100
_WATCHED_NAME_MAX = 32  # characters of a name where every line counts


def agents(found: Costs) -> Columns:
    """One row an agent; one that cannot be read says so in its row."""
    heads = (
        Head("agent", "name"),
        Head("messages", "number"),
        Head("sessions", "number", room=NARROW),
        Head("first (UTC)", "time", room=NARROW),
        Head("last (UTC)", "time"),
        Head("size", "number"),
    )
    rows = [
        unreadable(cost)
        if isinstance(cost, Unreadable)
        else (
            name_of(cost.agent),
            f"{cost.messages:,}",
            f"{cost.sessions:,}",
            day(cost.first_at),
            day(cost.last_at),
            human_bytes(cost.bytes.total),
        )
        for cost in found
    ]
    return Columns(heads, rows)


def usages(found: Costs) -> Columns:
    """One row an agent, with a bar against its limit."""
    heads = (
        Head("agent", "name"),
        Head("messages", "number"),
        Head("size", "number"),
        Head("limit", "number", room=NARROW),
        Head("used", "number"),
        Head("", "bar", room=NARROW),
        Head("archived", "number", room=NARROW),
        Head("archive", "number", room=ROOMY),
        Head("nearest limit", "time", room=ROOMY),
    )
    rows = [
        unreadable(cost) if isinstance(cost, Unreadable) else _usage_row(cost) for cost in found
    ]
    return Columns(heads, rows)


def _usage_row(usage: Usage) -> tuple[RenderableType, ...]:
    share = share_of(usage.bytes.total, usage.limit_bytes)
    return (
        name_of(usage.agent),
        f"{usage.messages:,}",
        human_bytes(usage.bytes.total),
        human_bytes(usage.limit_bytes),
        f"{share:.1%}",
        Bar(share),
        f"{usage.archived:,}",
        human_bytes(usage.bytes.archive),
        nearest(usage.forecast),
    )


def unreadable(cost: Unreadable) -> tuple[RenderableType, ...]:
    return name_of(cost.agent), Text(cost.cause.code, "red")


def nearest(forecast: Forecast) -> str:
    """The limit that is reached first, as `messages in 12 d`; empty if none comes nearer."""
    found = nearest_limit(forecast)
    return "" if found is None else f"{_BOUNDED.get(found[0], found[0])} {until(found[1])}"


def until(days: float) -> str:
    """A time to come, as roughly as it is known: in hours, days or years."""
    if days <= 0:
        return "now"
    if days < _HOURS_MAX:
        return f"in {max(1, round(days * 24))} h"
    if days < _DAYS_MAX:
        return f"in {days:.0f} d"
    years = days / 365.25
    return f"in {years:.0f} y" if years <= _YEARS_MAX else f"in >{_YEARS_MAX} y"


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM)
    table.add_column(ratio=1, overflow="fold")
    return table


def details(usage: Usage | Unreadable, *, archive_limit_bytes: int) -> RenderableType:
    """What one agent holds, where its bytes are, and which limits come nearer."""
    if isinstance(usage, Unreadable):
        return ""
    size = usage.bytes
    table = _grid()
    held = (
        (usage.messages, "message", "messages"),
        (usage.sessions, "session", "sessions"),
        (usage.users, "user", "users"),
        (usage.memories, "memory", "memories"),
        (usage.concepts, "concept", "concepts"),
        (usage.edges, "link", "links"),
    )
    parts = [counted(count, one, many) for count, one, many in held if count]
    table.add_row("holds", ", ".join(parts) or "nothing")
    if usage.max_messages:
        room = f"{usage.messages:,} of at most {usage.max_messages:,} messages"
        table.add_row("room", f"{room}, {usage.pinned:,} pinned")
    if usage.first_at is not None:
        table.add_row("said", f"{moment(usage.first_at)} to {moment(usage.last_at)} (UTC)")
    table.add_row(
        "file",
        f"{human_bytes(size.file)}: {human_bytes(size.live)} live, {human_bytes(size.dead)} dead",
    )
    table.add_row("WAL", human_bytes(size.wal))
    indexes = f"{human_bytes(size.words)} words, {human_bytes(size.vectors)} vectors"
    table.add_row("indexes", f"{indexes}, {human_bytes(size.graph)} graph")
    for label, told in _vectors(usage.embeddings):
        table.add_row(label, told)
    if usage.graph.bytes:
        table.add_row("graph", _graph(usage.graph))
    table.add_row("archive", _archive(usage, archive_limit_bytes))
    if size.aside:
        kept = f"{human_bytes(size.aside)} kept by repairs and restores: delete it when all is well"
        table.add_row("set aside", Text(kept, "yellow"))
    if usage.archive.dropped:
        gone = counted(usage.archive.dropped, "message", "messages")
        table.add_row("dropped", Text(f"{gone} left the archive at its limit, for good", "red"))
    for label, text in _forecast(usage.forecast):
        table.add_row(label, text)
    if usage.queued or usage.failed_writes:
        table.add_row("writes", f"{usage.queued:,} waiting, {usage.failed_writes:,} failed")
    return table


def _vectors(usage: EmbeddingUsage) -> list[tuple[str, Text]]:
    """What made the vectors and their size, how many messages have one, and what went wrong."""
    rows = []
    if usage.model is not None:
        dims = f"{usage.dim:,} dimensions"
        if usage.reduced_to is not None:
            dims += f", {usage.reduced_to:,} kept"
        size = f"{human_bytes(usage.bytes)} of at most {human_bytes(usage.limit_bytes)}"
        rows.append(("vectors", Text(f"{one_line(usage.model)}, {dims}, {size}")))
    left_out = {why: count for why, count in usage.reasons.items() if why in _REASONS}
    if usage.model is not None or left_out.keys() - {policy.DISABLED}:
        own, shared = usage.reasons.get(policy.EMBEDDED, 0), usage.reasons.get(policy.SHARED, 0)
        have = counted(own + shared, "message", "messages")
        have += f", {shared:,} of them share one of an equal text" if shared else ""
        rows.append(("embedded", Text(have)))
        if left_out:
            rows.append(("without", Text(reasons_in_words(left_out))))
    if usage.failures or usage.last_error:
        rows.append(("embedder", _failures(usage)))
    return rows


def reasons_in_words(reasons: Mapping[str, int]) -> str:
    """Why how many have no vector, as `12 too short, 3 of other roles`; the most frequent first."""
    ordered = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count:,} {_REASONS.get(why, one_line(why))}" for why, count in ordered)


def _failures(usage: EmbeddingUsage) -> Text:
    """What was wrong with the embedder, in this process, and for how long it is left alone."""
    text = Text(style="yellow")
    if usage.failures:
        text.append(f"failed {counted(usage.failures, 'time', 'times')}")
    if usage.last_error:
        text.append(f"{': ' if usage.failures else ''}{one_line(usage.last_error)}")
    if usage.resting_s:
        text.append(f"; left alone for {max(1, round(usage.resting_s)):,} s")
    return text


def _graph(graph: GraphUsage) -> Text:
    """A graph's engine, when it was built and why, and what was set aside as damaged."""
    parts = [one_line(graph.engine or "being built")]
    if graph.built_at is not None:
        why = f" ({one_line(graph.built_because)})" if graph.built_because else ""
        parts.append(f"built {_clock(graph.built_at)}{why}")
    text = Text(", ".join(parts))
    if graph.damaged:
        text.append(f"; {one_line(graph.damaged)} was set aside as damaged", "yellow")
    return text


def _archive(usage: Usage, limit_bytes: int) -> str:
    held = usage.archive
    most = f"{human_bytes(limit_bytes)}, an eighth of it kept free"
    size = f"{human_bytes(held.bytes)} of at most {most}"
    if not held.messages:
        return f"empty, {size}"
    parts = counted(held.messages, "message", "messages"), counted(held.segments, "file", "files")
    said = f", said {day(held.first_at)} to {day(held.last_at)}" if held.first_at else ""
    return f"{parts[0]} in {parts[1]}, {size}{said}"


def _forecast(forecast: Forecast) -> list[tuple[str, str]]:
    """How fast it grows, and when each limit that comes nearer is reached, the first one first."""
    if not forecast.days:
        return []
    rate = f"{forecast.messages_per_day:,.1f} messages a day"
    size = f"{human_bytes(round(forecast.bytes_per_day))} a day"
    rows = [("grows", f"{rate}, {size}, by the last {forecast.days:,.0f} days")]
    coming = sorted((days, name) for name, days in forecast.until.items() if days is not None)
    limits = ", ".join(f"{name} {until(days)}" for days, name in coming)
    return [*rows, ("limits", limits or "none comes nearer")]


def total(store: str, agents: int, total_bytes: int, limit_bytes: int | None = None) -> Text:
    """The last line under the usage of a whole store."""
    size = human_bytes(total_bytes)
    if limit_bytes is not None:
        share = share_of(total_bytes, limit_bytes)
        size += f" of at most {human_bytes(limit_bytes)} ({share:.1%})"
    return Text(f"{counted(agents, 'agent', 'agents')}, {size} in {one_line(store)}", DIM)


def store_details(usage: StoreUsage) -> RenderableType:
    """What a store costs beside its agents."""
    table = _grid()
    archives = f"{human_bytes(usage.archive_bytes)} archives"
    table.add_row("of that", f"{archives}, {human_bytes(usage.reserve_bytes)} reserve")
    rss = f"{human_bytes(usage.rss_bytes)} memory, {human_bytes(usage.sqlite_bytes)} of it SQLite"
    threads = counted(usage.threads, "thread", "threads")
    table.add_row("process", f"{rss}; {threads}, {usage.descriptors:,} descriptors")
    waiting = counted(usage.queued, "write", "writes")
    table.add_row("queue", f"{waiting} waiting, {human_bytes(usage.queued_bytes)}")
    table.add_row("clean-up", janitor(usage.janitor))
    if usage.worker.starts:
        table.add_row("graphs", worker(usage.worker))
    return table


def worker(usage: WorkerUsage) -> Text:
    """The process that has the graphs open, and why it was last replaced."""
    if usage.running:
        memory, graphs = human_bytes(usage.rss_bytes), counted(usage.open_graphs, "graph", "graphs")
        text = Text(f"worker {usage.pid}: {graphs} open, {memory} memory")
    else:
        text = Text("the worker is not running")
    if usage.last_error:
        text.append(f"; started {usage.starts:,} times: {one_line(usage.last_error)}", "yellow")
    return text


def janitor(usage: JanitorUsage) -> Text:
    """When the periodic clean-up ran and will run, and what went wrong."""
    last = f"last {_clock(usage.last_run)}" if usage.last_run else "not run yet"
    parts = [last]
    if usage.next_run is not None:
        parts.append(f"next {_clock(usage.next_run)}")
    elif not usage.running:
        parts.append("not running in this process")
    text = Text(", ".join(parts))
    if usage.failures:
        times = counted(usage.failures, "time", "times")
        text.append(f"; failed {times} in a row", "red")
    if usage.last_error:
        text.append(f": {one_line(usage.last_error)}", "red")
    return text


def _clock(at: datetime) -> str:
    """A time of this machine's doing, on this machine's clock."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def bars(found: Costs, *, archive_full_bytes: int, rows_max: int | None) -> Columns:
    """One row an agent, the fullest first, each of its limits as a bar where there is room."""
    heads = (
        Head("agent", "name"),
        Head("messages", "gauge"),
        Head("size", "gauge"),
        Head("archive", "gauge", room=NARROW),
        Head("nearest limit", "time", room=SLIM),
    )
    ordered = sorted(found, key=lambda cost: -_fullness(cost, archive_full_bytes))
    rows = [_bars_row(cost, archive_full_bytes) for cost in ordered[:rows_max]]
    return Columns(heads, rows)


def _fullness(cost: Usage | Unreadable, archive_full_bytes: int) -> float:
    if isinstance(cost, Unreadable):
        return float("inf")  # what is damaged comes first
    return max(share for share, _ in _shares(cost, archive_full_bytes))


def _shares(usage: Usage, archive_full_bytes: int) -> Sequence[tuple[float, str]]:
    size = usage.bytes
    return (
        (share_of(usage.messages, usage.max_messages), f"{usage.messages:,}"),
        (share_of(size.total, usage.limit_bytes), human_bytes(size.total)),
        (share_of(size.archive, archive_full_bytes), human_bytes(size.archive)),
    )


def _bars_row(cost: Usage | Unreadable, archive_full_bytes: int) -> tuple[RenderableType, ...]:
    if isinstance(cost, Unreadable):
        return unreadable(cost)
    shares = _shares(cost, archive_full_bytes)
    bars = (Bar(share, label=label) for share, label in shares)
    return (Text(clip_name(cost.agent, _WATCHED_NAME_MAX)), *bars, nearest(cost.forecast))
