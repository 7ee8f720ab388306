"""Health: worker, janitor, embedder, memory, threads, descriptors, and what last went wrong."""

from functools import partial

from nicegui import ui
from nicegui.element import Element

from elytron.faces.dashboard import looks
from elytron.faces.dashboard.frame import Shown, agent_path, page
from elytron.faces.dashboard.parts import box, empty, facts, link, words
from elytron.faces.usage_tables import janitor, reasons_in_words, worker
from elytron.faces.visible import clip_name, counted, human_bytes
from elytron.records import StoreUsage, Usage

PATH = "/health"
_NAME_SHOWN = 60  # characters
_AGENTS_MAX = 50


@page(PATH, "Health")
async def health(shown: Shown) -> None:
    shown.viewer.require(None)
    place = box("div", "cards")
    await _fill(shown, place)

    async def refresh() -> None:
        shown.viewer.require(None)
        await _fill(shown, place)

    ui.timer(
        shown.bounds.look_interval_s, partial(shown.act, refresh, by_itself=True), immediate=False
    )


async def _fill(shown: Shown, place: Element) -> None:
    """Show it as it is now; nothing here takes the focus but links to agents in trouble."""
    found = await shown.dashboard.looks.health()
    taken = looks.process()
    place.clear()
    with place:
        with box("section", "card"):
            words("h2", "This process")
            pairs = [
                ("Memory", human_bytes(taken.rss_bytes)),
                ("Threads", f"{taken.threads:,}"),
                ("Descriptors", f"{taken.descriptors:,}"),
            ]
            if found.usage is not None:
                pairs += _queue(found.usage)
            facts(pairs)
        if found.usage is None:
            with box("section", "card", role="alert"):
                words("h2", "The store as a whole cannot be read")
                words("p", found.error or "", "bad-text")
            return
        _parts(found.usage, shown)
        if not shown.dashboard.looks.few([one.agent for one in found.usage.agents]):
            words("p", f"Looked at {found.age_s:.0f} s ago: it takes opening every agent.", "soft")


def _queue(usage: StoreUsage) -> list[tuple[str, str]]:
    return [
        ("Of it SQLite", human_bytes(usage.sqlite_bytes)),
        ("Open agents", f"{usage.open_agents:,}"),
        ("Waiting writes", f"{usage.queued:,} ({human_bytes(usage.queued_bytes)})"),
        ("Reserve on disk", human_bytes(usage.reserve_bytes)),
    ]


def _parts(usage: StoreUsage, shown: Shown) -> None:
    with box("section", "card"):
        _title("Janitor", bad=bool(usage.janitor.last_error))
        words("p", janitor(usage.janitor).plain)
    with box("section", "card"):
        _title("Graph worker", bad=bool(usage.worker.last_error))
        words("p", worker(usage.worker).plain if usage.worker.starts else _NO_WORKER)
    with box("section", "card"):
        failing = [one for one in usage.agents if one.embeddings.last_error]
        _title("Embedder", bad=bool(failing))
        config = shown.dashboard.store.config
        if config.enable_embeddings:
            words("p", _embedded(usage))
        else:
            words("p", "Embeddings are off: recall goes by words. enable_embeddings turns them on.")
    with box("section", "card"):
        troubled = [(one, told) for one in usage.agents if (told := _troubles(one))]
        _title("Agents in trouble", bad=bool(troubled))
        if not troubled:
            words("p", f"None of {counted(len(usage.agents), 'agent', 'agents')}.")
        for one, told in troubled[:_AGENTS_MAX]:
            with box("div", "example"):
                link(clip_name(one.agent, _NAME_SHOWN), agent_path("/agent", one.agent), "name")
                for line in told:
                    words("p", line, "bad-text")
    if not usage.agents:
        empty("No agent has a memory here yet.", "elytron demo makes one.")


_NO_WORKER = "Not started yet: it starts with the first question to a graph."


def _title(text: str, *, bad: bool) -> None:
    with box("h2"):
        words("span", text)
        words("span", "trouble" if bad else "well", "state bad" if bad else "state")


def _embedded(usage: StoreUsage) -> str:
    counts: dict[str, int] = {}
    for one in usage.agents:
        for why, count in one.embeddings.reasons.items():
            counts[why] = counts.get(why, 0) + count
    models = {one.embeddings.model for one in usage.agents if one.embeddings.model}
    told = f"{sum(one.embedded for one in usage.agents):,} messages have a vector"
    rest = {why: n for why, n in counts.items() if why not in ("embedded", "shared")}
    without = f"; without: {reasons_in_words(rest)}" if rest else ""
    return f"{', '.join(sorted(models)) or 'no vector yet'}: {told}{without}."


def _troubles(usage: Usage) -> list[str]:
    told = []
    if usage.failed_writes:
        told.append(counted(usage.failed_writes, "failed write", "failed writes"))
    if usage.embeddings.last_error:
        told.append(f"embedder: {usage.embeddings.last_error}")
    if usage.graph.damaged:
        told.append(f"a damaged graph was set aside: {usage.graph.damaged}")
    if usage.archive.dropped:
        gone = counted(usage.archive.dropped, "message", "messages")
        told.append(f"{gone} left the archive at its limit, for good")
    return told
