"""
The dashboard's first view on loopback: from asking for the page to the first paint, and to the
agents being there, with nothing in the browser's cache. Needs Debian's `chromium`.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import elytron

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import dashboards

ROUNDS = 9
TARGET_MS = 1000
AGENTS, MESSAGES = 12, 200
WATCH = """
window.shownMs = null;
new MutationObserver(() => {
  if (window.shownMs === null && document.querySelector('.agent .gauge-told')?.textContent)
    window.shownMs = performance.now();
}).observe(document, {subtree: true, childList: true, characterData: true});
"""


def main() -> None:
    if not dashboards.CHROMIUM.exists():
        print(f"the dashboard's first view is not measured: there is no {dashboards.CHROMIUM}")
        return
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="elytron-bench-") as folder:
        path = Path(folder) / "store"
        with elytron.open(path) as store:
            for n in range(AGENTS):
                texts = (
                    {"role": "user", "content": f"message {m} of {n}"} for m in range(MESSAGES)
                )
                store.agent(f"agent {n}").save_many(texts)
        with dashboards.served(path) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(dashboards.CHROMIUM), args=list(dashboards.CHROMIUM_ARGUMENTS)
            )
            paints, shown, sizes = [], [], []
            for _ in range(ROUNDS):
                context = browser.new_context()  # a cache of its own, which is empty
                context.add_init_script(WATCH)
                page = context.new_page()
                page.goto(address)
                page.wait_for_function("window.shownMs !== null")
                paints.append(_first_paint(page))
                shown.append(float(page.evaluate("window.shownMs")))
                sizes.append(float(page.evaluate(_SIZE)))
                context.close()
            browser.close()
    print(
        f"dashboard, {AGENTS} agents, cold cache, {ROUNDS} views: first contentful paint median"
        f" {statistics.median(paints):.0f} ms (worst {max(paints):.0f}), agents shown"
        f" {statistics.median(shown):.0f} ms (worst {max(shown):.0f}; target under {TARGET_MS}),"
        f" {statistics.median(sizes) / (1 << 20):.1f} MB"
    )


_SIZE = "performance.getEntriesByType('resource').reduce((sum, r) => sum + r.transferSize, 0)"
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def _first_paint(page: object) -> float:
    page.wait_for_function(f"{_PAINT} !== undefined")  # type: ignore[attr-defined]
    return float(page.evaluate(_PAINT))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
