"""
Plots of bench/peers/results.json, as SVG in docs/peers/: the same results give the same bytes.

Needs matplotlib, in an environment of its own; `run.py` calls it.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "docs" / "peers"
OURS, THEIRS = "#b3261e", "#8a8f98"
PLOTS: tuple[tuple[str, str, bool, Callable[[dict[str, Any]], float]], ...] = (
    (
        "saves",
        "Saves a second, one at a time (logarithmic; more is better)",
        True,
        lambda peer: peer["lone"]["a_second"],
    ),
    (
        "recall",
        "Recall among 5,000 messages, median ms (logarithmic; less is better)",
        True,
        lambda peer: peer["reading"]["recall"]["p50_ms"],
    ),
    (
        "churn",
        "All files after churn, bytes a message kept (less is better)",
        False,
        lambda peer: peer["churn"]["bytes"]["all"] / peer["churn"]["kept"],
    ),
    (
        "rss",
        "RSS after churn, MB (less is better)",
        False,
        lambda peer: peer["churn"]["rss_bytes"] / 1e6,
    ),
)


def draw(
    name: str, title: str, log: bool, value: Callable[[dict[str, Any]], float], results: Any
) -> None:
    bars: list[tuple[str, float, str]] = []
    for peer, found in results["peers"].items():
        label = results["titles"][peer]
        try:
            size = value(found)
        except KeyError:  # the table says why
            size, label = 0.0, f"{label} (failed)"
        bars.append((label, size, OURS if peer.startswith("elytron") else THEIRS))
    figure, axes = pyplot.subplots(figsize=(7.2, 0.42 * len(bars) + 0.9))
    titles, sizes, colours = zip(*reversed(bars), strict=True)
    drawn = axes.barh(titles, sizes, color=colours)
    labels = [f"{size:,.0f}" if size >= 10 else f"{size:.2g}" for size in sizes]
    axes.bar_label(drawn, labels, padding=4, fontsize=9)
    if log:
        least = min(size for size in sizes if size)
        axes.set_xscale("log")
        axes.set_xlim(10 ** math.floor(math.log10(least) - 0.2), max(sizes) * 4)
    else:
        axes.margins(x=0.12)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    figure.tight_layout()
    OUT.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT / f"{name}.svg", facecolor="white", metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    mpl.rcParams["svg.hashsalt"] = "elytron"
    mpl.rcParams["svg.fonttype"] = "none"  # words stay words, for search and for readers
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    for name, title, log, value in PLOTS:
        draw(name, title, log, value, results)


if __name__ == "__main__":
    main()
