"""Every way in, on PostgreSQL: the command line, HTTP, MCP, the dashboard and asyncio."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import dashboards
import elytron
import elytron.aio
from elytron.errors import InvalidArgument
from mcp_servers import over_stdio
from mcp_servers import run as run_async
from postgres_server import Server
from serving import Served, served, serving_process
from test_cli import Outcome, run
from test_http_streams import Listener

PASSWORD = "hunter2"  # of nobody: the server asks for none
IN_TEXT = (*"abc", "Zürich ☕", "x" * 5000)


class Place(NamedTuple):
    """A store on a server, as a person names it."""

    dsn: str
    schema: str
    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        return {"files_path": str(self.folder), "postgres_schema": self.schema}

    @property
    def words(self) -> list[str]:
        """The settings on a command line."""
        return [word for item in self.settings.items() for word in ("--set", "=".join(item))]

    @property
    def environment(self) -> dict[str, str]:
        given = {f"ELYTRON_{name.upper()}": value for name, value in self.settings.items()}
        return {"ELYTRON_STORE": self.dsn, **given}

    def open(self, **settings: Any) -> elytron.Store:
        return elytron.open(self.dsn, **self.settings, **settings)

    def command(self, *words: object, **more: Any) -> Outcome:
        """One command, which tells nobody the password."""
        done = run(*words, **self.environment, **more)
        assert PASSWORD not in done.out + done.err
        return done

    def ask(self, *words: object, **more: Any) -> Any:
        """The document of a command that has to go well."""
        done = self.command(*words, "--json", **more)
        assert done.code == 0, done.err
        return done.document


@pytest.fixture
def place(postgres: Server, kept_schema: str, folder: Path) -> Place:
    return Place(postgres.dsn(password=PASSWORD), kept_schema, folder)


# -- the command line


def test_the_commands_of_saving_and_asking_do_their_work(place: Place, tmp_path: Path) -> None:
    for number, text in enumerate(("I live in Lyon.", "I bought a disk.", "It is raining.")):
        said = ("save", "bob", "user", text, "--id", f"m{number}", "--session", "web")
        assert place.ask(*said)["id"] == f"m{number}"
    assert [m["id"] for m in place.ask("history", "bob")] == ["m0", "m1", "m2"]
    assert place.ask("sessions", "bob")[0]["id"] == "web"
    assert place.ask("recall", "bob", "where is Lyon?")[0]["message"]["id"] == "m0"
    assert "Lyon" in place.ask("context", "bob", "Lyon")["text"]
    place.ask("remember", "bob", "Alice lives in Lyon", "--about", "Alice", "--id", "k")
    assert place.ask("memories", "bob", "Lyon")[0]["id"] == "k"
    place.ask("relate", "bob", "Alice", "lives in", "Lyon")
    assert place.ask("relations", "bob")[0]["target"] == "Lyon"
    assert {c["name"] for c in place.ask("concepts", "bob")} >= {"Alice", "Lyon"}
    assert place.command("agents").out.count("bob") == 1
    place.ask("pin", "bob", "m1")
    assert place.ask("archive", "bob", "--older-than-days", "0", "--keep", "0")["archived"] == 2
    assert place.ask("restore", "bob", "m0")["restored"] == 1
    assert [one["ok"] for one in place.ask("check")] == [True]
    assert place.command("export", "bob", "--archived", "-o", tmp_path / "bob.jsonl").code == 0
    imported = place.ask("import", tmp_path / "bob.jsonl", "--agent", "eve")
    assert imported["agents"][0]["imported"] >= 3
    assert place.ask("reclaim", "bob")["agent"] == "bob"
    assert len(place.ask("cleanup")) == 2
    assert place.ask("reindex", "bob")
    assert place.ask("forget", "bob", "--session", "web", "--yes")["messages"] >= 1
    assert place.ask("history", "bob") == []


def test_what_is_shown_names_the_server_and_not_the_password(
    place: Place, postgres: Server
) -> None:
    shown = postgres.dsn().removesuffix("?sslmode=disable")
    empty = place.command("agents")
    assert (empty.code, shown in empty.err) == (0, True)
    with place.open() as store:
        assert (store.shown, store.path, store.usage().path) == (shown, place.folder, shown)
        store.agent("bob").save("user", "hello")
    for words in (("usage",), ("watch", "--count", "1"), ("check",), ("history", "bob")):
        assert place.command(*words).code == 0
    assert shown in place.command("usage").out
    assert place.ask("watch", "--count", "1")["path"] == place.ask("usage")["path"] == shown
    missing = place.command("history", "bo")
    assert (missing.code, f"in {shown}; did you mean 'bob'" in missing.err) == (3, True)
    demo = place.command("demo", "--store", place.dsn, "--json")
    assert (demo.code, demo.document["store"], demo.document["kept"]) == (0, shown, True)


def test_the_graph_is_asked_of_a_store_on_a_server(place: Place) -> None:
    with place.open() as store:
        store.agent("bob").relate("Alice", "lives in", "Lyon")
    query = "MATCH (a:Concept)-[r:RELATES_TO]->(b:Concept) RETURN a.name, r.relation, b.name"
    assert place.ask("cypher", "bob", query) == [
        {"a.name": "Alice", "r.relation": "lives in", "b.name": "Lyon"}
    ]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["backup", "copies"], 2, "elytron migrate store"),
        (["restore", "--from", "copies"], 2, "elytron migrate store"),
        (["agents", "--set", "max_total_mb=100"], 2, "max_db_size_mb"),
        (["agents", "--set", "postgres_schema=Has Blanks"], 2, "postgres_schema"),
        (["agents", "--store", f"mysql://me:{PASSWORD}@db/x"], 2, "postgresql://USER@HOST"),
        (["agents", "--store", f"postgresql://me:{PASSWORD}@[::1/x"], 2, "postgresql://USER"),
        (["agents", "--store", f"postgresql://me:x@{PASSWORD}@localhost/x"], 2, "%XX"),
        (["agents", "--store", f"postgresql://me:{PASSWORD}/@localhost/x"], 2, "%XX"),
        (["agents", "--store", f"postgresql://me:{PASSWORD}\udcff@localhost/x"], 2, "UTF-8"),
        (["restore", "--from", "copies", "--store", f"http://me:{PASSWORD}@db"], 2, "folder"),
        (["history", "nobody"], 3, "holds none"),
    ],
)
def test_what_a_store_on_a_server_cannot_do_is_refused_and_nothing_is_made(
    place: Place, words: list[str], code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.folder.parent.mkdir(exist_ok=True)
    monkeypatch.chdir(place.folder.parent)
    refused = place.command(*words)
    assert refused.code == code, refused.err
    assert told in refused.err
    assert list(place.folder.parent.iterdir()) == []


def test_a_server_that_is_not_there_is_told_without_the_password(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens there
        gone = f"postgresql://me:{PASSWORD}@127.0.0.1:{taken.getsockname()[1]}/x"
        refused = place.command("agents", "--store", gone)
    assert refused.code == 7
    assert "cannot be reached" in refused.err
    assert not place.folder.exists()


def test_a_dsn_is_text_and_no_path(place: Place) -> None:
    for bad in (Path(place.dsn), Path("postgres://localhost/x")):
        with pytest.raises(InvalidArgument, match="as str, not as a Path"):
            elytron.open(bad)
    with place.open() as store:
        store.agent("bob").save("user", "hello")
        with pytest.raises(InvalidArgument, match="elytron migrate store"):
            store.backup(place.folder.parent / "copies")


def test_the_program_in_a_process_of_its_own_takes_the_address_from_the_environment(
    place: Place,
) -> None:
    with place.open() as store:
        store.agent("bob").save("user", "hello", id="one")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "elytron", "history", "bob", "--json"],
        capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, **place.environment},
    )  # fmt: skip
    assert [one["id"] for one in json.loads(done.stdout)] == ["one"]
    assert done.stderr == ""


# -- over HTTP


@pytest.fixture
def where(place: Place) -> Iterator[Served]:
    with served(place.dsn, **place.settings) as one:  # type: ignore[arg-type]
        yield one


def test_a_store_on_a_server_is_served_over_http(where: Served) -> None:
    for number, text in enumerate(IN_TEXT[:3]):
        where.call("save", role="user", content=f"The cat {text}", id=f"m{number}")
    assert where.call("recall", question="cat b")[0]["message"]["id"] == "m1"
    assert [one["id"] for one in where.call("history")] == ["m0", "m1", "m2"]
    exported = where.request("GET", "/v1/export?agent=bob").data
    headers = {"Content-Type": "application/x-ndjson"}
    fields = {"agent": "copy"}
    report = where.request("POST", "/v1/import_", exported, fields=fields, headers=headers)
    assert report.json()["imported"] == 3
    assert where.request("GET", "/v1/export?agent=copy").data == exported
    assert where.request("GET", "/readyz").status == 200
    metrics = where.request("GET", "/metrics").data.decode()
    assert 'elytron_agent_messages{agent="bob"} 3' in metrics
    assert PASSWORD not in metrics


def test_events_tell_of_a_store_on_a_server(where: Served) -> None:
    where.call("save", role="user", content="one")
    listener = Listener(where, "?agent=bob&interval_s=0.2")
    try:
        name, usage = listener.next()
        assert (name, usage["messages"]) == ("usage", 1)
        where.call("save", role="user", content="two")
        while usage["messages"] != 2:
            name, usage = listener.next()
    finally:
        listener.close()


def test_the_served_store_says_its_address_and_not_the_password(place: Place) -> None:
    with serving_process(place.dsn, *place.words) as one:  # type: ignore[arg-type]
        one.call("save", role="user", content="hello")
        with elytron.connect(one.url) as far:
            assert [m.content for m in far.agent("bob").history()] == ["hello"]
            assert PASSWORD not in str(far.usage())


# -- over MCP


def test_an_mcp_client_remembers_and_recalls_on_a_server(place: Place) -> None:
    async def main() -> Any:
        async with over_stdio(place.dsn, *place.words, "--agent", "bob") as client:  # type: ignore[arg-type]
            await client.call_tool("remember", {"content": "Alice lives in Lyon."})
            return await client.call_tool("recall", {"question": "where does Alice live?"})

    found = run_async(main)
    assert found.structured_content["hits"][0]["content"] == "Alice lives in Lyon."
    with place.open() as store:
        assert store.agents() == ["bob"]


# -- the dashboard


def test_the_pages_of_the_dashboard_show_a_store_on_a_server(place: Place) -> None:
    with ExitStack() as stack:
        browser = stack.enter_context(dashboards.browser_of())
        with place.open() as store:
            bob = store.agent("bob")
            bob.save_many({"role": "user", "content": f"The cat {n} of Alice"} for n in range(30))
            bob.relate("Alice", "lives in", "Lyon")
        log = place.folder.parent / "log"
        address = stack.enter_context(
            dashboards.served(place.folder, dsn=place.dsn, log=log, **place.settings)
        )
        seen = stack.enter_context(dashboards.watched(browser, address))
        page = seen.open(f"{address}/")
        meter = page.locator(".agent").get_by_role("meter", name="Messages")
        assert meter.get_attribute("aria-valuetext").startswith("30 of 5,000")
        for path, text in (
            ("/agent", "all 30 held"),
            ("/recall", "bob"),
            ("/conversations", "The cat 29 of Alice"),
            ("/concepts", "Alice"),
            ("/cleanup", "bob"),
            ("/health", "janitor"),
        ):
            page = seen.open(f"{address}{path}?name=bob")
            page.get_by_text(text).first.wait_for(state="attached")
            assert PASSWORD not in page.content()


# -- asyncio


def test_the_verbs_are_awaited_on_a_server(place: Place) -> None:
    async def use() -> None:
        async with elytron.aio.open(place.dsn, **place.settings) as store:
            bob = store.agent("bob")
            assert await bob.exists() is False
            saves = [bob.save("user", text, id=f"m{n}") for n, text in enumerate(IN_TEXT)]
            assert all([receipt.new for receipt in await asyncio.gather(*saves)])
            await bob.flush()
            held = {message.id: message.content for message in await bob.history()}
            assert held == {f"m{n}": text for n, text in enumerate(IN_TEXT)}
            assert (await bob.recall("zürich"))[0].message.id == "m3"
            assert (await bob.check()).ok
            with pytest.raises(InvalidArgument, match="elytron migrate store"):
                await store.backup(place.folder.parent / "copies")

    asyncio.run(use())
