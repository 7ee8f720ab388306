"""
The dashboard in a real browser, served by a process of its own, without tokens as on loopback.

Each page notes what it asks for and complains of: nothing may leave this machine, no script may
fail or come from a message.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

import elytron
from dashboards import Seen, browser_of, served, watched

SCRIPT = "<img src=x onerror=\"window.hacked='img'\"><script>window.hacked='script'</script>"
HOSTILE = f"../{SCRIPT} \"'`${{1}} 🐞 / ?&#"  # an agent's name may have all of that
SECRET = "the spare key is under the third flowerpot"
MESSAGES, FULL, LIMIT = 90, 85, 80
START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
AGENT_PAGES = ("/agent", "/recall", "/conversations", "/concepts", "/cleanup")
PAGES = ("/", "/health", *AGENT_PAGES)


class Place(NamedTuple):
    address: str
    store: Path
    log: Path
    browser: Any

    def url(self, path: str, name: str = "Bob") -> str:
        query = f"?{urlencode({'name': name})}" if path in AGENT_PAGES else ""
        return f"{self.address}{path}{query}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("dashboard")
    fill(folder / "store")
    with ExitStack() as stack:
        browser = stack.enter_context(browser_of())
        address = stack.enter_context(
            served(
                folder / "store",
                log=folder / "log",
                max_messages_per_agent=LIMIT,
                auto_cleanup=False,
            )
        )
        yield Place(address, folder / "store", folder / "log", browser)


def fill(path: Path) -> None:
    with elytron.open(path) as store:
        bob = store.agent("Bob")
        bob.save_many(
            {
                "role": "user" if n % 2 == 0 else "assistant",
                "content": f"Message {n} about the garden of Alice in Lyon.",
                "session": f"talk {n // 45}",
                "at": START + timedelta(hours=n),
            }
            for n in range(MESSAGES)
        )
        bob.relate("Alice", "lives in", "Lyon")
        bob.relate("Lyon", "lies in", "France")
        bob.remember(SECRET, about=["Alice"])
        bob.flush()
        hostile = store.agent(HOSTILE)
        hostile.save("user", SCRIPT, session=SCRIPT, user=SCRIPT[:200])
        hostile.relate(SCRIPT, SCRIPT, f"{SCRIPT} too")
        hostile.flush()
        store.agent("small").save_many({"role": "user", "content": text} for text in "ab")
        texts = (f"number {n}" for n in range(FULL))
        store.agent("full").save_many({"role": "user", "content": text} for text in texts)


@pytest.fixture
def seen(place: Place) -> Iterator[Seen]:
    with watched(place.browser, place.address) as one:
        yield one


# -- what each page shows


def test_the_overview_shows_each_agent_against_its_limits(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/"))
    rows = page.locator(".agent")
    assert rows.count() == 4
    bob = rows.filter(has=page.get_by_role("link", name="Bob", exact=True))
    meter = bob.get_by_role("meter", name="Messages")
    assert meter.get_attribute("aria-valuetext") == f"{MESSAGES} of {LIMIT} · full"
    assert meter.get_attribute("aria-valuenow") == "100"
    assert "max_messages_per_agent: 90 of 80" in page.locator(".alarms").inner_text()
    assert f"Messages\n{MESSAGES + FULL + 3}" in page.locator(".facts").inner_text()


def test_the_overview_sorts_and_filters(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/"))
    assert page.locator(".agent .name").first.inner_text() == "Bob"  # the fullest first
    page.get_by_role("button", name="Name").click()
    page.wait_for_function("document.querySelector('.agent .name').textContent !== 'Bob'")
    page.get_by_label("Filter by name").fill("SMA")
    page.wait_for_function("document.querySelectorAll('.agent').length === 1")
    assert page.locator(".agent .name").inner_text() == "small"
    page.get_by_label("Filter by name").fill("nobody is called so")
    page.get_by_text("No agent's name has that in it.").wait_for()


def test_what_is_saved_meanwhile_shows_by_itself(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/"))
    page.get_by_role("link", name="small").focus()
    with elytron.open(place.store) as store:
        store.agent("small").save("user", "hello again")
    row = page.locator(".agent").filter(has=page.get_by_role("link", name="small"))
    row.locator(f"[aria-valuetext='3 of {LIMIT}']").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "small"  # the focus stays


def test_growth_is_told_by_the_days_of_the_messages(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/agent"))
    page.locator(".chart svg").wait_for()
    assert f"all {MESSAGES} held" in page.locator("main").inner_text()
    page.get_by_text("The same in numbers").click()
    cells = page.get_by_role("region", name="Messages over time").locator("td")
    texts = cells.all_inner_texts()
    assert texts[:2] == ["2026-03-02", "15"]
    assert sum(int(count) for count in texts[1::3]) == MESSAGES


def test_recall_shows_hits_with_what_speaks_for_them(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/recall"))
    address = page.url
    page.get_by_label("Question").fill("flowerpot key")
    page.get_by_role("button", name="Recall").click()
    hit = page.locator(".hit").first
    hit.wait_for()
    assert SECRET in hit.inner_text()
    why = hit.get_by_role("list", name="Why").inner_text()
    assert "the question's words in it" in why
    with elytron.open(place.store) as store:
        best = store.agent("Bob").recall("flowerpot key")[0]
    assert f"{best.why['words']:+.2f}" in why
    assert f"score {best.score:.2f}" in hit.inner_text()
    assert page.url == address  # the question is in no address


def test_recall_says_when_nothing_is_found_or_the_question_is_refused(
    place: Place, seen: Seen
) -> None:
    page = seen.open(place.url("/recall"))
    page.get_by_label("Question").fill("zzzyx")
    page.keyboard.press("Enter")
    page.get_by_text("Nothing was found.").wait_for()
    page.get_by_label("Question").evaluate("field => field.removeAttribute('maxlength')")
    page.get_by_label("Question").fill("word " * 5000)
    page.keyboard.press("Enter")
    page.locator(".told.bad").wait_for()
    assert "20000" in page.locator(".told.bad").inner_text()
    page.get_by_label("Question").fill("flowerpot")  # and the page lives on
    page.keyboard.press("Enter")
    page.locator(".hit").first.wait_for()


def test_conversations_are_paged_back(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/conversations"))
    entries = page.get_by_role("navigation", name="Conversations").get_by_role("button")
    assert entries.count() == 2
    entries.filter(has_text="talk 0").click()
    page.locator("h2", has_text="talk 0").wait_for()
    messages = page.locator(".message .said")
    assert messages.count() == 30
    assert messages.last.inner_text().startswith("Message 44 ")
    page.get_by_role("button", name="Older messages").click()
    page.wait_for_function("document.querySelectorAll('.message').length === 45")
    assert messages.first.inner_text().startswith("Message 0 ")
    assert page.get_by_role("button", name="Older messages").count() == 0


def test_a_click_in_the_picture_of_concepts_moves_on(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/concepts"))
    listed = page.get_by_role("navigation", name="Concepts")
    listed.get_by_role("button", name="Alice").click()
    page.locator(".detail h2", has_text="Alice").wait_for()
    page.get_by_role("cell", name="lives in").wait_for()
    assert _cells(page, "Relations") == "Alice\nlives in\nLyon"
    page.locator(".graph svg text", has_text="France").wait_for()  # two relations away
    page.locator(".graph svg text", has_text="Lyon").click()
    page.locator(".detail h2", has_text="Lyon").wait_for()
    near = page.get_by_role("group", name="Near it")
    near.get_by_role("button", name="France").click()  # the same without the picture
    page.locator(".detail h2", has_text="France").wait_for()
    listed.get_by_label("Find by name").fill("lic")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('.entry').length === 1")


def _cells(page: Any, label: str) -> str:
    return "\n".join(page.get_by_role("region", name=label).locator("td").all_inner_texts())


def test_health_tells_of_worker_janitor_and_embedder(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/health"))
    text = page.locator("main").inner_text()
    for part in ("Janitor", "Graph worker", "Embedder", "Memory", "Threads", "Descriptors"):
        assert part in text
    assert "Embeddings are off" in text
    assert "None of 4 agents." in text


def test_an_agent_that_is_not_there_and_a_name_that_cannot_be_are_told(place: Place) -> None:
    with watched(place.browser, place.address, expect_status={404, 400}) as seen:
        page = seen.open(place.url("/agent", "nobody"))
        page.get_by_text("No such agent").wait_for()
        page = seen.open(place.url("/agent", ""))
        page.get_by_text("No agent can be called so").wait_for()
        assert page.get_by_role("link", name="Back to the agents").count() == 1


def test_a_store_without_agents_says_what_to_do(place: Place, tmp_path: Path, seen: Seen) -> None:
    with (
        served(tmp_path / "empty", log=tmp_path / "log") as address,
        watched(place.browser, address) as other,
    ):
        page = other.open(f"{address}/")
        assert "elytron demo --store" in page.locator("main").inner_text()
        page = other.open(f"{address}/health")
        assert "None of 0 agents." in page.locator("main").inner_text()
    assert not (tmp_path / "empty").exists()  # looking made nothing


def test_all_pages_of_a_store_that_reads_few_rows_at_once_are_shown(
    place: Place, tmp_path: Path
) -> None:
    with (
        served(place.store, log=tmp_path / "log", max_query_rows=5) as address,
        watched(place.browser, address) as seen,
    ):
        for path in AGENT_PAGES:
            page = seen.open(place._replace(address=address).url(path))
            assert page.get_by_role("alert").count() == 0, path
        page = seen.open(f"{address}/conversations?name=Bob")
        page.locator(".messages li").first.wait_for()
        page = seen.open(f"{address}/concepts?name=Bob")
        page.get_by_text("lives in").first.wait_for()


def test_a_damaged_memory_is_named_and_hides_no_other(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with elytron.open(path) as store:
        for name in ("whole", "broken"):
            store.agent(name).save("user", "hello")
    (ledger,) = [file for file in path.rglob("ledger.db") if "broken" in str(file)]
    with ledger.open("r+b") as file:
        file.write(b"x" * 200)
    with (
        served(path, log=tmp_path / "log") as address,
        watched(place.browser, address, expect_status={500}) as seen,
    ):
        page = seen.open(f"{address}/")
        rows = page.locator(".agent").all_inner_texts()
        assert "is damaged" in rows[0]
        assert "1 of 5,000" in rows[1]
        page = seen.open(f"{address}/agent?name=broken")
        assert "is damaged" in page.get_by_role("alert").inner_text()
        page = seen.open(f"{address}/health")
        assert "is damaged" in page.get_by_role("alert").inner_text()
        page = seen.open(f"{address}/agent?name=whole")
        page.locator(".chart svg").wait_for()
    assert "Traceback" not in (tmp_path / "log").read_text()


# -- the clean-up


def test_the_clean_up_takes_what_its_plan_said_and_only_when_confirmed(
    place: Place, seen: Seen
) -> None:
    with elytron.open(place.store, max_messages_per_agent=LIMIT, auto_cleanup=False) as store:
        plan = store.agent("full").enforce_limits(dry_run=True)
    leaving = [message.id for message in plan.leaving]
    assert leaving
    page = seen.open(place.url("/cleanup", "full"))
    first = page.locator("section").first
    assert f"{len(leaving)} messages of {FULL}" in first.inner_text()
    first.locator("summary").click()
    assert leaving[0] in first.inner_text()
    button = first.get_by_role("button", name=f"Archive {len(leaving)} messages now")
    button.click()
    page.get_by_role("button", name="Cancel").click()
    page.locator(".q-dialog").wait_for(state="detached")
    with elytron.open(place.store) as store:
        assert store.agent("full").usage().archived == 0
    button.click()
    page.get_by_role("button", name="Archive them").click()
    page.get_by_text(f"{len(leaving)} messages archived").wait_for()
    first.get_by_text("Nothing would leave.").wait_for()
    with elytron.open(place.store) as store:
        full = store.agent("full")
        assert full.usage().archived == len(leaving)
        assert not [held for held in leaving if full.get(held)]


def test_more_can_be_archived_by_age_and_number(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/cleanup", "small"))
    page.get_by_label("Older than").fill("0")
    page.get_by_label("Keep the newest").fill("0")
    page.get_by_role("button", name="Show what would leave").click()
    second = page.locator("section").nth(1)
    second.get_by_text(re.compile(r"^\d for their age$")).wait_for()
    planned = second.get_by_role("button", name="Archive").inner_text()
    page.get_by_label("Keep the newest").fill("1000")  # what was planned is what runs
    second.get_by_role("button", name=planned).click()
    page.get_by_role("button", name="Archive them").click()
    second.get_by_text("Nothing would leave.").wait_for()
    with elytron.open(place.store) as store:
        assert store.agent("small").usage().messages == 0
    page.get_by_label("Older than").fill("-1")
    page.get_by_role("button", name="Show what would leave").click()
    page.locator(".told.bad").wait_for()  # refused by the store, in its words
    assert "older_than_days" in page.locator(".told.bad").inner_text()


# -- what a message must never do


@pytest.mark.parametrize("path", AGENT_PAGES)
def test_script_in_names_and_messages_is_shown_as_text(place: Place, seen: Seen, path: str) -> None:
    page = seen.open(place.url(path, HOSTILE))
    if path == "/recall":
        page.get_by_label("Question").fill("window hacked onerror")
        page.keyboard.press("Enter")
        page.locator(".hit").first.wait_for()
        assert SCRIPT in page.locator(".hit").first.inner_text()
    if path == "/conversations":
        assert page.locator(".message .said").inner_text() == SCRIPT
    if path == "/concepts":
        page.get_by_role("navigation", name="Concepts").get_by_role("button").first.click()
        page.locator(".graph svg text", has_text="<img").first.wait_for()
        page.locator(".graph svg").hover(position={"x": 300, "y": 150})
        assert SCRIPT in _cells(page, "Relations")
        page.get_by_label("Find by name").fill(SCRIPT * 3)  # refused, with its text in the error
        page.keyboard.press("Enter")
        page.locator(".told.bad").wait_for()
    assert HOSTILE in page.locator("h1").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


def test_script_in_an_agents_name_is_text_in_the_list_and_its_link_works(
    place: Place, seen: Seen
) -> None:
    page = seen.open(place.url("/"))
    page.locator(".agent .name", has_text="onerror").click()
    page.locator("h1", has_text="onerror").wait_for()
    assert HOSTILE in page.locator("h1").inner_text()
    assert page.evaluate("window.hacked") is None


# -- for everybody


def test_the_way_to_an_answer_needs_no_mouse(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/"))
    page.keyboard.press("Tab")
    assert _focused(page) == "Skip to main content"
    _tab_to(page, "Bob")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"  # where the focus is can be seen
    page.keyboard.press("Enter")
    page.locator("h1", has_text="Bob").wait_for()
    page.wait_for_function("window.did_handshake === true")
    _tab_to(page, "Recall")
    page.keyboard.press("Enter")
    page.get_by_label("Question").wait_for()
    page.wait_for_function("window.did_handshake === true")
    _tab_to(page, "Question")
    page.keyboard.type("garden")
    page.keyboard.press("Enter")
    page.locator(".hit").first.wait_for()


def _focused(page: Any) -> str:
    return str(
        page.evaluate(
            "document.activeElement.ariaLabel ?? document.activeElement.textContent.trim()"
        )
    )


def _tab_to(page: Any, text: str) -> None:
    for _ in range(40):
        if _focused(page) == text:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no way to {text!r} by the keyboard")


@pytest.mark.parametrize("name", ["Bob", HOSTILE])
def test_no_page_scrolls_sideways_on_a_narrow_screen(place: Place, name: str) -> None:
    with watched(place.browser, place.address, viewport={"width": 360, "height": 740}) as seen:
        for path in PAGES:
            page = seen.open(place.url(path, name))
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path


CONTRAST = """
() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
      .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (!/, 0\\)$|^transparent$/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const faint = [];
  for (const element of document.querySelectorAll('main *, header *')) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest('svg, .q-field')) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(ground(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) faint.push(`${element.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return faint;
}
"""
UNNAMED = """
() => [...document.querySelectorAll('button, a, input, [role=meter], [role=img]')]
  .filter((e) => e.checkVisibility() && !e.ariaLabel && !e.textContent.trim()
    && !(e.labels && e.labels.length) && !e.closest('label'))
  .map((e) => e.outerHTML)
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_and_controls_have_names(place: Place, scheme: str) -> None:
    with watched(place.browser, place.address, color_scheme=scheme) as seen:
        for path in PAGES:
            page = seen.open(place.url(path))
            assert page.evaluate("document.body.classList.contains('body--dark')") is (
                scheme == "dark"
            )
            assert page.evaluate(CONTRAST) == [], path
            assert page.evaluate(UNNAMED) == [], path
            assert page.evaluate("document.querySelectorAll('h1').length") == 1


def test_the_theme_can_be_chosen_and_stays(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/"))
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    page.get_by_role("button", name="Theme: dark").wait_for()
    page.wait_for_function("document.cookie.includes('elytron_theme=dark')")
    page = seen.open(place.url("/health"))
    page.get_by_role("button", name="Theme: dark").wait_for()
    page.wait_for_function("document.body.classList.contains('body--dark')")


# -- what it leaves behind


def test_nothing_is_left_on_the_disk_in_the_browser_or_in_the_log(place: Place, seen: Seen) -> None:
    page = seen.open(place.url("/recall"))
    page.get_by_label("Question").fill("flowerpot")
    page.keyboard.press("Enter")
    page.locator(".hit").first.wait_for()
    page.evaluate("emitEvent('nothing'); logAndEmit('warning', 'flowerpot in the log')")
    page.get_by_label("Question").fill("spare key")
    page.keyboard.press("Enter")
    page.locator(".hit").first.wait_for()
    seen.complaints.clear()  # our own, just made
    assert page.evaluate("localStorage.length") == 0
    kept = page.evaluate("Object.keys(sessionStorage)")
    assert set(kept) <= {"__nicegui_tab_id", "__nicegui_tab_closed"}
    assert list((place.store.parent / "cwd").iterdir()) == []
    log = place.log.read_text()
    assert "flowerpot" not in log
    assert "Traceback" not in log
