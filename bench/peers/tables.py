"""Results into tables: pure, and the same for the terminal and the page."""

from collections.abc import Callable, Iterable
from typing import Any

Cell = Callable[[dict[str, Any]], str]
MISSING = "–"


def number(value: float) -> str:
    """Three figures at most: 0.21, 3.4, 27, 1,540."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    if value >= 10:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def megabytes(value: float) -> str:
    return number(value / 1e6)


def _of(measure: str, render: Callable[[dict[str, Any]], str]) -> Cell:
    """A cell of one measure; of one that failed, why."""

    def cell(peer: dict[str, Any]) -> str:
        found = peer.get(measure)
        if found is None:
            return MISSING
        return f"failed: {found['failed']}" if "failed" in found else render(found)

    return cell


def _synced(found: dict[str, Any]) -> str:
    every = found["synced_before_return"] == found["saves"]
    share = "" if every else f" in {found['synced_before_return']} of {found['saves']}"
    return f"{'yes' if found['synced_before_return'] else 'no'}{share}, {number(found['a_save'])}"


def _threads(found: dict[str, Any]) -> str:
    refused = f", {found['refused']:,} refused" if found["refused"] else ""
    lost = f", {found['lost']:,} lost" if found["lost"] else ""
    return number(found["a_second"]) + refused + lost


def _times(found: dict[str, Any]) -> str:
    return f"{number(found['p50_ms'])} / {number(found['p99_ms'])}"


def _churn(found: dict[str, Any]) -> str:
    whole = (found["written"], found["kept"]) == (30_000, 5_000)
    scaled = "" if whole else f" ({found['written']:,} written, {found['kept']:,} kept)"
    wrong = ", not those that were to be kept" if found["wrong"] else ""
    return megabytes(found["bytes"]["all"]) + scaled + wrong


def _alone(found: dict[str, Any]) -> str:
    """Without what is kept on purpose: what was let go, in an archive, and a reserve."""
    sizes = found["bytes"]
    return megabytes(sizes["all"] - sizes["archive"] - sizes["reserve"])


def _compacted(found: dict[str, Any]) -> str:
    sizes = found["compacted_bytes"]
    if sizes is None:
        return "has none"
    return megabytes(sizes["all"] - sizes["archive"] - sizes["reserve"])


def _agents(found: dict[str, Any]) -> str:
    if found["failure"]:
        return f"{found['agents']}, then {found['failure'].split(': ', 1)[1][:80]}"
    over = "" if found["agents"] == found["of"] else ", then time was over"
    return f"{found['agents']}{over}"


def _together(found: dict[str, Any]) -> str:
    if found["refused_to_open"]:
        return "the second does not open"
    saved = f"{found['acknowledged']:,} saved"
    bad = [
        f"{found[key]:,} {word}"
        for key, word in (("errors", "refused"), ("lost", "lost"), ("doubled", "doubled"))
        if found[key]
    ]
    return ", ".join([saved, *(bad or ["none lost, doubled or refused"])])


def _kills(found: dict[str, Any]) -> str:
    if found["failure"]:
        return found["failure"][:60]
    doubled = f", {found['doubled']:,} doubled" if found["doubled"] else ""
    return f"opens each time, {found['lost']:,} of {found['acknowledged']:,} lost{doubled}"


TABLES: tuple[tuple[str, tuple[tuple[str, Cell], ...]], ...] = (
    (
        "Saving",
        (
            ("saves a second, one at a time", _of("lone", lambda f: number(f["a_second"]))),
            ("p50 / p99, ms", _of("lone", _times)),
            ("16 threads on one agent, a second", _of("threads", _threads)),
            ("on the disk before it returns; forced writes a save", _of("traced", _synced)),
        ),
    ),
    (
        "Asking, among 5,000 messages",
        (
            ("recall p50 / p99, ms", _of("reading", lambda f: _times(f["recall"]))),
            (
                "the message meant is among ten",
                _of("reading", lambda f: f"{f['recall']['found']:.0%}"),
            ),
            ("last 50 of a session, ms", _of("reading", lambda f: _times(f["history"]))),
            ("RSS, MB", _of("reading", lambda f: megabytes(f["rss_bytes"]))),
        ),
    ),
    (
        "After churn: 30,000 written, 5,000 kept",
        (
            ("all files, MB", _of("churn", _churn)),
            ("without archive and reserve", _of("churn", _alone)),
            ("after its own compaction", _of("churn", _compacted)),
            ("fresh, of the same", _of("churn", lambda f: megabytes(
                f["fresh_bytes"]["all"] - f["fresh_bytes"]["reserve"]))),
            ("RSS, MB", _of("churn", lambda f: megabytes(f["rss_bytes"]))),
        ),
    ),
    (
        "Agents, processes, kills",
        (
            ("500 agents of ten messages", _of("agents", _agents)),
            ("seconds", _of("agents", lambda f: number(f["took_s"]))),
            ("RSS, MB", _of("agents", lambda f: megabytes(f["rss_bytes"]))),
            ("descriptors", _of("agents", lambda f: f"{f['descriptors']:,}")),
            ("two processes on one agent", _of("together", _together)),
            ("kill -9, ten times", _of("kills", _kills)),
        ),
    ),
    (
        "What it takes",
        (
            ("import, ms", _of("imported", lambda f: number(f["ms"]))),
            ("and MB", _of("imported", lambda f: megabytes(f["rss_bytes"]))),
            ("import, open, first save, ms", _of("first", lambda f: number(f["open_and_save_ms"]))),
            ("RSS then, MB", _of("first", lambda f: megabytes(f["rss_bytes"]))),
            ("installed, MB", _of("installed", lambda f: megabytes(f["bytes"]))),
            ("packages", _of("installed", lambda f: str(f["packages"]))),
        ),
    ),
)  # fmt: skip


COMPARED: tuple[tuple[str, bool, str, tuple[str, ...]], ...] = (
    ("saves a second, one at a time", True, "lone", ("a_second",)),
    ("saves a second of 16 threads", True, "threads", ("a_second",)),
    ("recall, median", False, "reading", ("recall", "p50_ms")),
    ("history, median", False, "reading", ("history", "p50_ms")),
    ("bytes of all files after churn, a message kept", False, "churn", ("a_kept_message",)),
    ("RSS after churn", False, "churn", ("rss_bytes",)),
    ("RSS when asked among 5,000", False, "reading", ("rss_bytes",)),
    ("time of 500 agents, an agent", False, "agents", ("an_agent_s",)),
    ("RSS of 500 agents, an agent", False, "agents", ("an_agent_rss",)),
    ("import", False, "imported", ("ms",)),
    ("import, open and first save", False, "first", ("open_and_save_ms",)),
    ("installed bytes", False, "installed", ("bytes",)),
)


def figure(peer: dict[str, Any], measure: str, path: Iterable[str]) -> float | None:
    """One number of a peer's results; None where the measure failed or was not reached."""
    found: Any = peer.get(measure, {})
    if measure == "churn" and found.get("kept"):
        found = {**found, "a_kept_message": found["bytes"]["all"] / found["kept"]}
    if measure == "agents" and found.get("agents"):
        each = {"an_agent_s": "took_s", "an_agent_rss": "rss_bytes"}
        found = {key: found[name] / found["agents"] for key, name in each.items()}
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def behind(results: dict[str, Any]) -> str:
    """
    Where a peer is ahead of Elytron, and by how much: those that search vectors beside Elytron with
    vectors, the others beside Elytron by words.
    """
    lines, compared = [], 0
    for label, more_is_better, measure, path in COMPARED:
        ahead = []
        for name, peer in results["peers"].items():
            ours = "elytron-vectors" if name in results["vectors"] else "elytron"
            if name == ours or ours not in results["peers"]:
                continue
            mine = figure(results["peers"][ours], measure, path)
            other = figure(peer, measure, path)
            if mine is None or other is None:
                continue
            compared += 1
            ratio = (other or 1) / (mine or 1) if more_is_better else (mine or 1) / (other or 1)
            if ratio > 1:
                by = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"
                ahead.append(
                    f"{results['titles'][name]} {by} times"
                    if other
                    else f"{results['titles'][name]}, which needs none"
                )
        if ahead:
            lines.append(f"- {label}: {'; '.join(ahead)}")
    if not lines:
        return "No peer is ahead of Elytron in any of these." if compared else ""
    return "\n".join(["Peers that are ahead of Elytron, and how many times:", "", *lines])


def grid(rows: Iterable[Iterable[str]]) -> str:
    """Markdown of rows, the first of them the heads; aligned, so that it reads as plain text."""
    cells = [[cell.replace("|", "/") for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    ruler = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], ruler, *lines[1:]])


def stamp(results: dict[str, Any]) -> str:
    """When, where and of what."""
    machine = results["machine"]
    versions: dict[str, str] = {}
    for peer in results["peers"].values():
        versions |= peer["installed"]["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    trial = "**A trial of the harness with small counts: no figure here means anything.** "
    return (
        f"{trial if results['small'] else ''}"
        f"Measured on {results['date']}: {machine['kernel']}, {machine['cores']} cores,"
        f" {machine['memory_gb']} GB, {machine['disk']}, CPython {machine['python']};"
        f" {listed}. One run, {results['took_s'] // 60 or 1} minutes."
    )


def markdown(results: dict[str, Any]) -> str:
    """Where peers are ahead, then all tables, one row per peer."""
    parts = [stamp(results), "### Where others are ahead", behind(results), "### The tables"]
    for title, columns in TABLES:
        heads = [title, *(head for head, _ in columns)]
        rows = [
            [results["titles"][name], *(cell(peer) for _, cell in columns)]
            for name, peer in results["peers"].items()
        ]
        parts.append(grid([heads, *rows]))
    return "\n\n".join(parts)
