"""Writes the tables of bench/peers/results.json between their markers in docs/performance.md."""

import json
from pathlib import Path

import tables

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "performance.md"
PLOTS = {
    "saves": "Saves a second",
    "recall": "Recall, median",
    "churn": "Bytes after churn",
    "rss": "RSS after churn",
}
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"


def placed(page: str, text: str) -> str:
    """*page* with *text* between the markers, and nothing else changed."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} has no {BEGIN} before a {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main() -> None:
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    plots = "\n".join(f"![{title}](peers/{name}.svg)" for name, title in PLOTS.items())
    text = f"{tables.markdown(results)}\n\n{plots}"
    PAGE.write_text(placed(page, text), encoding="utf-8")


if __name__ == "__main__":
    main()
