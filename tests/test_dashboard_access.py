"""
The dashboard where tokens are asked for: who gets in, what a session may do, and what stays where.

In a real browser against a server of its own; what no browser would send is sent by hand.
"""

import http.client
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest

import elytron
from dashboards import Seen, browser_of, served, watched
from elytron.faces.http import tokens

LIMIT, HELD = 40, 50
ALL_PAGES = ("/", "/health", "/agent", "/recall", "/conversations", "/concepts", "/cleanup")


class Place(NamedTuple):
    address: str
    store: Path
    token_file: Path
    log: Path
    browser: Any
    whole: str  # a token for everything
    reading: str  # one for everything, to read

    def url(self, path: str, name: str = "Bob") -> str:
        return f"{self.address}{path}?{urlencode({'name': name})}"

    def make(self, name: str, **options: Any) -> str:
        return tokens.add(self.token_file, name, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("dashboard_access")
    with elytron.open(folder / "store") as store:
        for name in ("Bob", "Eve"):
            texts = (f"{name} has {n} secrets" for n in range(HELD))
            store.agent(name).save_many({"role": "user", "content": text} for text in texts)
    token_file = folder / "tokens.json"
    whole = tokens.add(token_file, "whole")
    reading = tokens.add(token_file, "reading", writes=False)
    with ExitStack() as stack:
        browser = stack.enter_context(browser_of())
        address = stack.enter_context(
            served(
                folder / "store",
                tokens=token_file,
                log=folder / "log",
                max_messages_per_agent=LIMIT,
                auto_cleanup=False,
            )
        )
        log = folder / "log"
        yield Place(address, folder / "store", token_file, log, browser, whole, reading)


@pytest.fixture
def seen(place: Place) -> Iterator[Seen]:
    with watched(place.browser, place.address) as one:
        yield one


def log_in(seen: Seen, url: str, token: str) -> Any:
    page = seen.open(url)
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    page.wait_for_function("window.did_handshake === true")
    return page


def asked(
    place: Place, path: str, *, method: str = "GET", body: str = "", cookie: str = ""
) -> tuple[int, dict[str, str], str]:
    """An answer to what no browser would ask so; never redirected."""
    where = urlsplit(place.address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    try:
        headers = {"Cookie": cookie} if cookie else {}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        return answer.status, {name.lower(): v for name, v in answer.getheaders()}, text
    finally:
        connection.close()


def posted(place: Place, **fields: str) -> tuple[int, dict[str, str], str]:
    return asked(place, "/login", method="POST", body=urlencode(fields))


def session_of(place: Place, token: str) -> str:
    """A session's cookie, as a browser would send it."""
    _, headers, _ = posted(place, token=token)
    return headers["set-cookie"].partition(";")[0]


# -- getting in


@pytest.mark.parametrize("path", ALL_PAGES)
def test_without_a_session_every_page_leads_to_the_login(place: Place, path: str) -> None:
    for cookie in ("", "elytron_session=guessed", "elytron_session=", 'a="b'):
        status, headers, text = asked(place, f"{path}?name=Bob", cookie=cookie)
        assert status == 303
        assert headers["location"].startswith("/login")
        assert "secrets" not in text


def test_a_wrong_token_is_refused_and_the_right_one_leads_to_the_page_asked_for(
    place: Place,
) -> None:
    with watched(place.browser, place.address, expect_status={401}) as seen:
        page = seen.open(place.url("/recall", "Bob"))
        page.get_by_label("Token").fill("elytron_wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        assert page.get_by_role("alert").inner_text() == "No such token."
        page.get_by_label("Token").fill(place.reading)
        page.keyboard.press("Enter")
        page.wait_for_url(place.url("/recall", "Bob"))


def test_the_cookie_is_for_the_server_alone_and_nothing_else_holds_a_secret(
    place: Place, seen: Seen
) -> None:
    page = log_in(seen, f"{place.address}/", place.whole)
    (cookie,) = [c for c in seen.context.cookies() if c["name"] == "elytron_session"]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert cookie["expires"] == -1  # gone with the browser
    session = cookie["value"]
    assert place.whole not in session
    page.goto(place.url("/agent"))
    page.wait_for_function("window.did_handshake === true")
    kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    for secret in (place.whole, session):
        assert secret not in page.content()
        assert secret not in kept
        assert not [url for url in seen.requests if secret in url]
        assert secret not in place.log.read_text()


@pytest.mark.parametrize("other", ['prefs={"a":1}', "flag", "version=2", 'a="b', "=;;", "p=\xe9"])
def test_the_cookies_of_other_services_at_the_same_address_hide_ours_not(
    place: Place, other: str
) -> None:
    ours = session_of(place, place.reading)
    for cookie in (f"{other}; {ours}", f"{ours}; {other}", f"{other}; {ours}; {other}"):
        assert asked(place, "/", cookie=cookie)[0] == 200, cookie


def test_over_https_the_cookie_is_secure(place: Place) -> None:
    """As behind a proxy that speaks HTTPS: the browser tells from where the form was sent."""
    where = urlsplit(place.address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Origin": f"https://{where.netloc}",
    }
    connection.request("POST", "/login", urlencode({"token": place.whole}), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert "secure" in (answer.getheader("set-cookie") or "").lower()


@pytest.mark.parametrize(
    "target",
    ["//elsewhere.example/", "https://elsewhere.example/", "/agent?x=1", "/\\elsewhere", "/v1"],
)
def test_the_login_leads_to_our_own_pages_only(place: Place, target: str) -> None:
    status, headers, _ = posted(place, token=place.reading, next=target)
    assert (status, headers["location"]) == (303, "/")


def test_a_form_that_is_too_long_or_odd_is_refused(place: Place) -> None:
    assert posted(place, token="x" * 10_000)[0] == 413
    assert asked(place, "/login", method="POST", body="%ff=%00&&=&" + "&a=b" * 5)[0] == 401
    status, headers, text = asked(place, "/login", method="POST", body="&".join(["a=b"] * 11))
    assert (status, headers["cache-control"]) == (413, "no-store")
    assert "That is longer than any token." in text
    assert asked(place, "/login", method="PUT")[0] == 405
    assert asked(place, "/logout")[0] == 405
    assert asked(place, "/", method="POST", cookie=session_of(place, place.reading))[0] == 405


def test_pages_forbid_framing_and_foreign_sources(place: Place) -> None:
    cookie = session_of(place, place.reading)
    for path in ("/", "/login"):
        _, headers, _ = asked(place, path, cookie=cookie)
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert "no-store" in headers["cache-control"]
    assert "script" not in policy  # the login page has none


# -- what a session may do


def test_who_may_only_read_sees_no_button_that_writes(place: Place, seen: Seen) -> None:
    page = log_in(seen, place.url("/cleanup"), place.reading)
    assert f"{HELD - LIMIT}" in page.locator("section").first.inner_text()
    assert page.get_by_role("button", name="Archive").count() == 0
    assert "may only read" in page.locator("main").inner_text()


def test_a_button_pressed_after_the_right_to_write_is_gone_does_nothing(
    place: Place, seen: Seen
) -> None:
    """As an event that was forged: the page has the button, the token may not write any more."""
    page = log_in(seen, place.url("/cleanup"), place.make("downgraded"))
    button = page.get_by_role("button", name="Archive 1")
    button.click()
    agreed = page.get_by_role("button", name="Archive them")
    agreed.wait_for()
    token_text = place.token_file.read_text()
    changed = _without_writes(token_text, "downgraded")
    other = place.token_file.with_name("tokens.new")
    other.touch(0o600)
    other.write_text(changed)
    other.replace(place.token_file)  # at once: the server may be reading it
    agreed.click()
    page.locator(".told.bad").wait_for()
    assert "may only read" in page.locator(".told.bad").inner_text()
    page.locator(".q-dialog").wait_for(state="detached")
    page.locator(".told.bad").get_by_text("Close").click()
    page.locator(".told.bad").wait_for(state="detached")
    button.click()  # nor does it ask again
    page.locator(".told.bad").wait_for()
    assert page.locator(".q-dialog").count() == 0
    with elytron.open(place.store) as store:
        assert store.agent("Bob").usage().archived == 0


def _without_writes(text: str, name: str) -> str:
    import json

    held = json.loads(text)
    for entry in held["tokens"]:
        if entry["name"] == name:
            entry["writes"] = False
    return json.dumps(held)


def test_a_token_for_one_agent_shows_nothing_of_another(place: Place) -> None:
    token = place.make("of Bob", agents=["Bob"])
    with watched(place.browser, place.address, expect_status={403}) as seen:
        page = log_in(seen, f"{place.address}/", token)
        assert page.locator(".agent").count() == 1
        assert "Eve" not in page.content()
        assert f"Messages\n{HELD}" in page.locator(".facts").inner_text()
        for path in ("/agent", "/recall", "/conversations", "/concepts", "/cleanup"):
            page = seen.open(place.url(path, "Eve"))
            assert "Not for this token" in page.locator("main").inner_text()
            assert "secrets" not in page.content()
            page = seen.open(place.url(path, "nobody"))  # nor whether there is one
            assert "Not for this token" in page.locator("main").inner_text()
        page = seen.open(f"{place.address}/health")  # tells of the whole store
        assert "Not for this token" in page.locator("main").inner_text()


@pytest.mark.parametrize("path", ["/recall", "/cleanup"])
def test_a_token_taken_out_of_the_file_is_out_at_the_next_action(
    place: Place, seen: Seen, path: str
) -> None:
    page = log_in(seen, place.url(path), place.make("short lived"))
    tokens.remove(place.token_file, "short lived")
    if path == "/recall":
        page.get_by_label("Question").fill("secrets")
        page.keyboard.press("Enter")
    else:
        page.get_by_role("button", name="Show what would leave").click()
    page.wait_for_url(f"{place.address}/login")
    assert asked(place, "/", cookie=_cookie(seen))[0] == 303


def _cookie(seen: Seen) -> str:
    return "; ".join(f"{c['name']}={c['value']}" for c in seen.context.cookies())


def test_who_logs_out_is_out_on_all_his_pages(place: Place, seen: Seen) -> None:
    page = log_in(seen, place.url("/recall"), place.whole)
    cookie = _cookie(seen)
    other = seen.context.new_page()
    other.goto(f"{place.address}/")
    other.get_by_role("button", name="Log out").click()
    other.wait_for_url(f"{place.address}/login")
    assert not _cookie(seen)
    assert asked(place, "/", cookie=cookie)[0] == 303
    page.get_by_label("Question").fill("secrets")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{place.address}/login")


def test_a_socket_speaks_only_for_a_page_of_its_own_session(place: Place, seen: Seen) -> None:
    """Somebody who learned a page's id, from a log, gets nothing with it but his own pages."""
    page = log_in(seen, place.url("/recall"), place.whole)
    client = page.evaluate("window.clientId")
    path = f"/_nicegui_ws/socket.io/?EIO=4&transport=polling&client_id={client}"
    own = _cookie(seen)
    other = session_of(place, place.reading)
    assert asked(place, path)[0] == 403
    assert asked(place, path, cookie="elytron_session=guessed")[0] == 403
    assert asked(place, path, cookie=other)[0] == 403
    assert asked(place, path.partition("&client_id")[0], cookie=own)[0] == 403
    assert asked(place, path, cookie=own)[0] == 200


def test_an_event_for_a_page_that_this_socket_does_not_speak_for_is_not_heard(
    place: Place, seen: Seen
) -> None:
    page = log_in(seen, place.url("/recall"), place.whole)
    with watched(place.browser, place.address) as attacker:
        mine = log_in(attacker, place.url("/recall"), place.reading)
        victim = page.evaluate("window.clientId")
        listener = page.evaluate(
            """() => { for (const [id, e] of Object.entries(mounted_app.elements))
              if (e.text === 'Recall' && e.events.length) return [+id, e.events[0].listener_id] }"""
        )
        page.get_by_label("Question").fill("secrets")
        mine.evaluate(
            """([client, [id, listener]]) => window.socket.emit('event',
              {id, client_id: client, listener_id: listener, args: []})""",
            [victim, listener],
        )
        mine.get_by_label("Question").fill("secrets")
        mine.keyboard.press("Enter")
        mine.locator(".hit").first.wait_for()  # sent later, answered: the other was not heard
        assert page.locator(".hit").count() == 0
    page.keyboard.press("Enter")
    page.locator(".hit").first.wait_for()


# -- last: afterwards this address has to wait


def test_who_tries_many_tokens_has_to_wait(place: Place) -> None:
    answers = [posted(place, token=f"elytron_{n}")[0] for n in range(12)]
    assert answers[-1] == 429
    status, headers, text = posted(place, token=place.whole)
    assert status == 429  # the right one too, or it could be told apart
    assert 0 < int(headers["retry-after"]) <= 60
    assert "Too many wrong tokens" in text
    assert "Traceback" not in place.log.read_text()
