"""The dashboard as people meet it: `elytron serve`, and a browser that notes what its pages do."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ENDED_S = 60
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def served(
    store: Path,
    *,
    dsn: str | None = None,
    tokens: Path | None = None,
    log: Path | None = None,
    **settings: object,
) -> Iterator[str]:
    """
    The address of `elytron serve` on the store, or on that of a *dsn*, with *store* beside it. It
    ends with the block, and has to end well.
    """
    arguments = [sys.executable, "-W", "error", "-m", "elytron", "serve", "--json", "--port", "0"]
    arguments += ["--store", dsn or str(store), *(["--token-file", str(tokens)] if tokens else [])]
    # NiceGUI behaves otherwise where this is set, and what is tested is what people run.
    environment = {name: v for name, v in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    environment.update({f"ELYTRON_{name.upper()}": str(v) for name, v in settings.items()})
    work = store.parent / "cwd"
    work.mkdir(exist_ok=True)
    with (log or Path(os.devnull)).open("w") as complaints:
        process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            cwd=work,
            env=environment,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, f"the server did not start: {log and log.read_text()}"
            yield json.loads(line)["url"]
        finally:
            process.terminate()
            try:
                process.wait(ENDED_S)
            finally:
                process.kill()
                process.wait(ENDED_S)
                process.stdout.close()
    assert process.returncode == 0, log and log.read_text()


@contextmanager
def browser_of() -> Iterator[Any]:
    """A headless Chromium; the test is skipped where there is none."""
    import pytest

    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: the dashboard is tried in Debian's")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=list(CHROMIUM_ARGUMENTS)
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """A window with a cache and cookies of its own, and all that its pages did."""

    context: Any
    address: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    page: Any = None

    def open(self, url: str) -> Any:
        """Go to a page and wait until it can be used."""
        if self.page is None:
            self.page = self.context.new_page()
            self.page.set_default_timeout(60_000)
            self.page.on("request", lambda request: self.requests.append(request.url))
            self.page.on("websocket", lambda socket: self.requests.append(socket.url))
            self.page.on("console", self._note)
            self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
            self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(url)
        if self.page.locator("body.login").count() == 0:
            self.page.wait_for_function("window.did_handshake === true")
        return self.page

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


@contextmanager
def watched(
    browser: Any, address: str, *, expect_status: set[int] | None = None, **options: Any
) -> Iterator[Seen]:
    """
    A window, whose pages may ask nobody but *address* and complain of nothing but answers of
    *expect_status*.
    """
    seen = Seen(browser.new_context(**options), address)
    try:
        yield seen
    finally:
        seen.context.close()
    own = urlsplit(address).netloc
    assert {urlsplit(url).netloc for url in seen.requests if url[:5] != "data:"} <= {own}
    expected = [f"status of {status}" for status in expect_status or ()]
    unexpected = [c for c in seen.complaints if not any(known in c for known in expected)]
    assert unexpected == [], unexpected
