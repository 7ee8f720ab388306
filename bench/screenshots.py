"""
The pictures of the dashboard in docs/screenshots, from a store with the demo's conversation.

`python bench/screenshots.py docs/screenshots` makes them anew; without a folder they are made and
thrown away. Needs Debian's `chromium`.
"""

import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import elytron
from elytron import importers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import dashboards

SIZE_MAX_KB = 150
WIDE, NARROW = (1280, 800), (360, 740)
QUESTION = "Which novel did Priya tell me to read on the train?"
FACTS = (
    ("Alice", "lives with", "Marc"),
    ("Alice", "sister of", "Sophie"),
    ("Marc", "plays", "Gaston"),
    ("Jeanne", "neighbour of", "Alice"),
    ("Sophie", "moves to", "Lisbon"),
)


def main() -> None:
    if not dashboards.CHROMIUM.exists():
        print(f"no picture is made: there is no {dashboards.CHROMIUM}")
        return
    with tempfile.TemporaryDirectory(prefix="elytron-pictures-") as folder:
        target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder)
        store = Path(folder) / "store"
        fill(store)
        # Small limits, so that there is something to see; nothing is cleaned up by itself.
        settings = {"max_messages_per_agent": 480, "max_db_size_mb": 8, "auto_cleanup": False}
        with dashboards.served(store, **settings) as address:
            taken = take(address, target)
    for path in taken:
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB" if path.exists() else path.name)


def fill(path: Path) -> None:
    """The demo's Bob, and some with less to tell."""
    carried = files("elytron") / "demo" / "conversation.jsonl"
    with elytron.open(path) as store, as_file(carried) as conversation:
        importers.import_file(store, conversation, agent="Bob")
        for source, relation, to in FACTS:
            store.agent("Bob").relate(source, relation, to)
        messages = list(store.agent("Bob").messages())
        for name, start, end in (
            ("Bob Technique", 0, 310),
            ("Madame D'Aubigny", 120, 330),
            ("night shift / support", 200, 290),
            ("Übersetzer", 400, 424),
        ):
            store.agent(name).save_many(messages[start:end])
            store.agent(name).flush()
        store.agent("Madame D'Aubigny").archive(older_than_days=0, keep=60)
        store.agent("Bob").related("Alice")  # its graph is built before anybody looks


def take(address: str, target: Path) -> list[Path]:
    """Take all of them; at most `SIZE_MAX_KB` each."""
    from playwright.sync_api import sync_playwright

    target.mkdir(parents=True, exist_ok=True)
    taken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(dashboards.CHROMIUM), args=list(dashboards.CHROMIUM_ARGUMENTS)
        )
        for name, path, size, scheme in (
            ("overview-light", "/", WIDE, "light"),
            ("overview-dark", "/", WIDE, "dark"),
            ("agent", "/agent?name=Bob", WIDE, "light"),
            ("recall", "/recall?name=Bob", WIDE, "light"),
            ("concepts", "/concepts?name=Bob", WIDE, "light"),
            ("cleanup", "/cleanup?name=Bob", WIDE, "light"),
            ("overview-narrow", "/", NARROW, "light"),
            ("recall-narrow", "/recall?name=Bob", NARROW, "dark"),
        ):
            page = browser.new_page(
                viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
            )
            page.goto(address + path)
            page.wait_for_function("window.did_handshake === true")
            prepare(page, name)
            taken.append(target / f"{name}.png")
            page.screenshot(path=taken[-1])
            size_kb = taken[-1].stat().st_size / 1024
            assert size_kb < SIZE_MAX_KB, f"{name} takes {size_kb:.0f} KB"
            page.close()
        browser.close()
    return taken


def prepare(page: Any, name: str) -> None:
    """Bring a page to what its picture is to show."""
    if name.startswith("recall"):
        page.get_by_label("Question").fill(QUESTION)
        page.keyboard.press("Enter")
        page.wait_for_selector(".hit")
    elif name == "concepts":
        page.get_by_role("navigation", name="Concepts").get_by_role("button", name="Alice").click()
        page.wait_for_selector(".detail h2:text('Alice')")
        page.wait_for_selector(".graph svg text:text('Alice')")
    elif name == "agent":
        page.wait_for_selector(".chart svg")
    elif name == "cleanup":
        page.get_by_label("Keep the newest").fill("420")
        page.get_by_label("Older than").fill("0")
        page.get_by_role("button", name="Show what would leave").click()
        page.locator("summary").click()
        page.wait_for_selector("details[open] table")


if __name__ == "__main__":
    main()
