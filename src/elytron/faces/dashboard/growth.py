"""
Growth: one agent: what it holds, how fast that grows, and when which limit comes near.

History is what the messages themselves say: when each that is held was said. Of what has left
for the archive only the number is told.
"""

from functools import partial

from nicegui import ui

from elytron.faces.dashboard.days import BYTES_PER_MB, Spans, spans
from elytron.faces.dashboard.frame import Shown, page
from elytron.faces.dashboard.limits import LABELS, against
from elytron.faces.dashboard.parts import Gauge, box, empty, facts, table, words
from elytron.faces.tables import day
from elytron.faces.usage_tables import until
from elytron.faces.visible import counted, human_bytes
from elytron.records import Message, Usage

PATH = "/agent"
_PART = 500  # messages that are read at once
# Seen on light and on dark alike; text takes its colour from the style sheet.
_BAR, _TOTAL, _LINE = "#4f86c0", "#c0683c", "#80808055"


@page(PATH, "Growth", of_agent=True)
async def growth(shown: Shown) -> None:
    usage = await shown.agent.usage()
    config = shown.dashboard.store.config
    with box("section", "card"):
        words("h2", "Against its limits")
        with box("div", "gauges wide"):
            gauges = {label: Gauge(label, near=config.soft_limit_ratio) for label in LABELS}
        _set(gauges, usage, shown)
        facts(_held(usage))
    with box("section", "card"):
        words("h2", "Growth over time")
        _picture(spans(await _newest(shown)), usage)
    with box("section", "card"):
        words("h2", "When limits come near")
        _forecast(usage)

    async def refresh() -> None:
        cost = (await shown.dashboard.looks.costs([shown.name]))[shown.name]
        if isinstance(cost, Usage):
            _set(gauges, cost, shown)

    ui.timer(
        shown.bounds.look_interval_s, partial(shown.act, refresh, by_itself=True), immediate=False
    )


def _set(gauges: dict[str, Gauge], usage: Usage, shown: Shown) -> None:
    for limit in against(usage, shown.dashboard.store.config):
        gauges[limit.label].show(limit.used, limit.maximum, limit.told)


def _held(usage: Usage) -> list[tuple[str, str]]:
    size = usage.bytes
    pairs = [
        ("Messages", f"{usage.messages:,}"),
        ("Pinned", f"{usage.pinned:,}"),
        ("Archived", f"{usage.archived:,}"),
        ("Conversations", f"{usage.sessions:,}"),
        ("People", f"{usage.users:,}"),
        ("Memories", f"{usage.memories:,}"),
        ("Concepts", f"{usage.concepts:,}"),
        ("In use", human_bytes(size.live)),
        ("Unused", human_bytes(size.dead)),
        ("Write-ahead log", human_bytes(size.wal)),
        ("Words", human_bytes(size.words)),
        ("Graph", human_bytes(size.graph)),
    ]
    if usage.first_at is not None:
        pairs.append(("Said", f"{day(usage.first_at)} to {day(usage.last_at)}"))
    return pairs


async def _newest(shown: Shown) -> list[Message]:
    """The newest messages, within the bounds of what a picture is made of."""
    found: list[Message] = []
    size, before, most = 0, None, shown.rows(_PART)
    while len(found) < shown.bounds.growth_messages_max:
        part = await shown.agent.history(limit=most, before=before)
        found = part + found
        size += sum(len(message.content) for message in part)
        if len(part) < most or size > shown.bounds.growth_max_mb * BYTES_PER_MB:
            break
        before = part[0].id
    return found


def _picture(found: Spans, usage: Usage) -> None:
    if not found.counts:
        empty(
            "No message is held yet.",
            "Growth shows as messages are saved; archived ones are not in this picture.",
        )
        return
    each = {1: "a day", 7: "a week"}.get(found.days, f"each {found.days} days")
    told = f"Messages {each}, by when they were said (UTC): "
    if found.messages < usage.messages:
        told += f"the newest {found.messages:,} of {usage.messages:,} held."
    else:
        told += f"all {usage.messages:,} held."
    if usage.archived:
        told += f" {counted(usage.archived, 'message', 'messages')} in the archive are not in it."
    words("p", told, "soft")
    chart = ui.echart(_options(found), renderer="svg").classes("chart")
    chart.props["role"] = "img"
    chart.props["aria-label"] = told
    with box("details"):
        words("summary", "The same in numbers")
        rows = [
            [start, f"{count:,}", human_bytes(size)]
            for start, count, size in zip(found.starts, found.counts, found.bytes, strict=True)
            if count
        ]
        table("Messages over time", ["From", "Messages", "Text"], rows, numbers={1, 2})


def _options(found: Spans) -> dict[str, object]:
    return {
        "animation": False,
        "grid": {"left": 8, "right": 8, "top": 28, "bottom": 4, "containLabel": True},
        # Drawn, not made of HTML, and of days and numbers alone.
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True},
        "legend": {"top": 0, "left": 0, "selectedMode": False, "itemWidth": 14, "itemHeight": 8},
        "xAxis": {
            "type": "category",
            "data": list(found.starts),
            "axisTick": {"show": False},
            "axisLine": {"lineStyle": {"color": _LINE}},
        },
        "yAxis": [
            {"type": "value", "minInterval": 1, "splitLine": {"lineStyle": {"color": _LINE}}},
            {"type": "value", "minInterval": 1, "splitLine": {"show": False}},
        ],
        "series": [
            {
                "name": "messages",
                "type": "bar",
                "data": list(found.counts),
                "barMaxWidth": 26,
                "itemStyle": {"color": _BAR, "borderRadius": [3, 3, 0, 0]},
            },
            {
                "name": "in all (right)",
                "type": "line",
                "yAxisIndex": 1,
                "showSymbol": False,
                "data": list(found.totals),
                "lineStyle": {"color": _TOTAL, "width": 2},
                "itemStyle": {"color": _TOTAL},
            },
        ],
    }


def _forecast(usage: Usage) -> None:
    forecast = usage.forecast
    if not forecast.days or not forecast.messages_per_day:
        words("p", "Nothing arrived in the last week, so no limit comes nearer.", "soft")
        return
    size = human_bytes(round(forecast.bytes_per_day))
    rate = f"{forecast.messages_per_day:,.1f} messages and {size}"
    words("p", f"At {rate} a day, as in the last {forecast.days:,.0f} days:", "soft")
    coming = sorted((days, name) for name, days in forecast.until.items() if days is not None)
    if coming:
        facts([(name, until(days)) for days, name in coming])
    else:
        words("p", "no limit comes nearer.", "soft")
