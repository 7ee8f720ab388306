"""What flows: exports and imports of any size, events, and answers that take long."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

import elytron
from elytron.errors import Corrupt
from elytron.faces.http import streams, tokens
from graphs import eventually
from serving import WAIT_MAX_S, Served, head, raw, served, status

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def where(folder: Path) -> Iterator[Served]:
    with served(folder) as one:
        yield one


def lines(messages: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def said(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"m{n}", "role": "user", "content": f"message {n} of Alice", **more}
        for n in range(count)
    ]


def import_(where: Served, body: Any, agent: str = "bob", **query: str) -> Any:
    return where.request(
        "POST", "/v1/import_", body, fields={"agent": agent, **query}, headers=NDJSON
    )


# Out and in.


def test_an_export_is_the_file_that_the_library_writes_and_goes_in_again(
    where: Served, tmp_path: Path
) -> None:
    assert where.store is not None
    where.call("save_many", messages=said(1234, at="2026-03-02T18:04:10+01:00"))
    answer = where.request("GET", "/v1/export?agent=bob")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    where.store.agent("bob").export(tmp_path / "bob.jsonl")
    assert answer.data == (tmp_path / "bob.jsonl").read_bytes()
    again = import_(where, answer.data, "copy")
    assert again.status == 200
    assert (again.json()["imported"], again.json()["already_held"]) == (1234, 0)
    assert where.request("GET", "/v1/export?agent=copy").data == answer.data
    assert import_(where, answer.data, "copy").json()["already_held"] == 1234


def test_an_export_has_the_archive_where_that_is_asked_for(folder: Path) -> None:
    with served(folder, emergency_messages=20) as where:
        where.call("save_many", messages=said(50))
        assert where.call("emergency_cleanup")["archived"] > 0
        assert where.request("GET", "/v1/export?agent=bob").data.count(b"\n") < 50
        assert where.request("GET", "/v1/export?agent=bob&archived=true").data.count(b"\n") == 50
        assert where.request("GET", "/v1/export?agent=bob&archived=yes").status == 400


def test_messages_come_whole_and_with_an_end(where: Served) -> None:
    where.call("save_many", messages=said(700))
    answer = where.request("POST", "/v1/messages?agent=bob")
    *messages, end = map(json.loads, answer.data.splitlines())
    assert [one["message"]["id"] for one in messages] == [f"m{n}" for n in range(700)]
    assert set(messages[0]["message"]) >= {"position", "at", "importance", "pinned"}
    assert end == {"end": 700}
    assert where.request("POST", "/v1/messages?agent=nobody").data == b'{"end": 0}\n'


def test_what_breaks_off_in_the_middle_does_not_look_whole(
    where: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    where.call("save_many", messages=said(700))
    page: Callable[..., Any] = elytron.Agent._page

    def damaged(agent: elytron.Agent, after: int) -> Any:
        if after:
            raise Corrupt("segment 2 is damaged")
        return page(agent, after)

    monkeypatch.setattr("elytron.agent.Agent._page", damaged)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        where.request("GET", "/v1/export?agent=bob")
    *messages, end = map(
        json.loads, where.request("POST", "/v1/messages?agent=bob").data.splitlines()
    )
    assert len(messages) == 500
    assert end["error"] == "corrupt"


def test_a_client_that_leaves_is_no_fault_of_the_server(
    where: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Method: a request sent ahead keeps the server from reading, so it learns only when it writes
    that nobody is there.
    """
    where.call("save_many", messages=said(700))
    for path in ("/v1/export?agent=bob", "/v1/hello") * 50:
        with socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S) as one:
            one.sendall(head("GET", path) * 5)
    assert where.request("GET", "/healthz").status == 200
    assert where.server is not None
    tasks = where.server.server_state.tasks
    eventually(lambda: not tasks, "nobody is answered any more")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_import_may_be_larger_than_a_request(folder: Path) -> None:
    with served(folder, limits={"max_request_mb": 0.05}) as where:
        body = lines(said(3000))
        assert len(body) > 2 * 50_000
        assert import_(where, body).json()["imported"] == 3000
        pieces = (body[at : at + 1000] for at in range(0, len(body), 1000))
        assert import_(where, pieces, "chunked").json()["imported"] == 3000


def test_a_message_without_an_id_is_not_doubled_by_a_second_import(where: Served) -> None:
    body = lines([{"role": "user", "content": "the same"}] * 3)
    assert import_(where, body).json()["imported"] == 3
    assert import_(where, body).json()["already_held"] == 3


def test_a_bad_line_ends_an_import_and_what_came_before_it_is_kept(where: Served) -> None:
    body = lines(said(3)) + b"\n{nonsense\n" + lines(said(10)[5:])
    answer = import_(where, body)
    assert answer.status == 400
    told = answer.json()["message"]
    assert told.startswith("line 5: it is not JSON")
    assert "3 messages were imported" in told
    assert len(where.call("history")) == 3


def test_bad_lines_are_passed_over_and_listed_where_that_is_asked_for(where: Served) -> None:
    long = b'{"role": "user", "content": "' + b"x" * (5 << 20) + b'"}\n'
    body = (
        b"{nonsense\n"
        + lines([{"role": "nobody", "content": "x"}, {"line": 77, "role": "user", "content": ""}])
        + long
        + lines([{"role": "user", "content": "good"}, {"line": "x", "role": "user"}])
        + b'{"role": "user", "content": "\xff"}\n'
        + b'{"role": "user", "role": "user", "content": "a"}\n'
        + b'{"role": "user", "content": "last, without an end"}'
    )
    report = import_(where, body, skip_bad="true").json()
    assert report["imported"] == 2
    assert [bad["line"] for bad in report["bad"]] == [1, 2, 4, 6, 7, 8, 77]
    assert "over 4,194,304 bytes" in report["bad"][2]["reason"]
    assert report["left_out"] is None


def test_only_the_first_thousand_bad_lines_are_listed(where: Served) -> None:
    report = import_(where, b"{\n" * 1500 + lines(said(1)), skip_bad="true").json()
    assert report["imported"] == 1
    assert len(report["bad"]) == 1000
    assert report["left_out"] == {"bad lines that are not listed": 500}


def test_a_client_that_goes_away_has_imported_whole_commits(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest is dropped, and the thread that waited for it is free again."""
    caplog.set_level(logging.WARNING)
    with served(folder, async_threads=1) as where:
        body = lines(said(2000))

        def pieces() -> Iterator[bytes]:
            yield body
            assert where.store is not None
            bob = where.store.agent("bob")
            eventually(lambda: bob.usage().messages >= 1500, "the first commits are done")
            raise ConnectionAbortedError

        with pytest.raises((ConnectionAbortedError, urllib3.exceptions.ProtocolError)):
            import_(where, pieces())
        assert len(where.call("history", limit=5000)) in (1500, 2000)
        # The one thread of the pool answers this, so it no longer waits for the client.
        assert where.call("exists") is True
    assert not caplog.records


def test_a_client_that_stops_sending_is_told_so(folder: Path) -> None:
    with served(folder, limits={"request_timeout_s": 2}) as where:
        kinds = ("Content-Type: application/x-ndjson", "Content-Length: 100000")
        sent = head("POST", "/v1/import_?agent=bob", *kinds) + lines(said(10))
        answer = raw(where, sent, end=False)
        assert status(answer) == 408
        assert b"nothing came for 2 s" in answer
        assert where.call("history") == []  # less than a commit


def test_imports_that_do_not_end_leave_threads_for_everybody_else(folder: Path) -> None:
    with served(folder, async_threads=2, save_timeout_s=2) as where:
        kinds = ("Content-Type: application/x-ndjson", "Content-Length: 100000")
        sent = head("POST", "/v1/import_?agent=bob", *kinds) + lines(said(10))
        with socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S) as one:
            one.sendall(sent)
            assert where.call("exists", "eve") is False
            refused = import_(where, lines(said(1)), "eve")
            assert refused.status == 503
            assert "`async_threads`" in refused.json()["message"]
        for _ in range(200):
            if import_(where, lines(said(1)), "eve").status == 200:
                break
        else:
            pytest.fail("an import that was given up still counts")


# Answers that take long.


def test_a_verb_that_takes_long_tells_how_far_it_is(
    where: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BEAT_S", 0.01)
    where.call("save_many", messages=said(600))
    for verb in ("reindex", "check", "rebuild_graph", "flush"):
        answer = where.request(
            "POST", f"/v1/{verb}?agent=bob", {}, headers={"Accept": "application/x-ndjson"}
        )
        assert answer.status == 200
        told = [json.loads(line) for line in answer.data.splitlines() if line]
        assert list(told[-1]) == ["result"], told[-1]
        assert all(list(one) == ["progress"] for one in told[:-1])


def test_a_verb_that_fails_while_it_tells_ends_with_its_error(where: Served) -> None:
    where.call("save", role="user", content="x")
    answer = where.request(
        "POST",
        "/v1/forget?agent=bob",
        {},
        headers={"Accept": "application/x-ndjson"},
    )
    told = json.loads(answer.data.splitlines()[-1])
    assert told["error"] == "invalid-argument"


def test_work_that_nobody_waits_for_any_more_ends_at_its_next_step(
    where: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: a verb of two steps, the second of which waits until the client has left."""
    began, left, ended = threading.Event(), threading.Event(), threading.Event()
    steps: list[int] = []

    def work(on_progress: Callable[[int], None]) -> int:
        try:
            for step in (1, 2):
                on_progress(step)
                steps.append(step)
                began.set()
                assert left.wait(WAIT_MAX_S)
        finally:
            ended.set()
        return 2

    async def reindex(agent: Any, *, on_progress: Callable[[int], None]) -> int:
        return await agent._call_writing(lambda: work(on_progress))

    monkeypatch.setattr("elytron.aio.AsyncAgent.reindex", reindex)
    with socket.create_connection(("127.0.0.1", where.port), timeout=WAIT_MAX_S) as one:
        kinds = ("Accept: application/x-ndjson", "Content-Length: 0")
        one.sendall(head("POST", "/v1/reindex?agent=bob", *kinds))
        assert began.wait(WAIT_MAX_S)
    assert where.server is not None
    tasks = where.server.server_state.tasks
    eventually(lambda: not tasks, "it is known that the client has left")
    left.set()
    assert ended.wait(WAIT_MAX_S)
    assert steps == [1]
    assert where.call("exists") is False
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Events.


class Listener:
    """A client of the events, read line by line."""

    def __init__(self, where: Served, query: str = "", token: str | None = None) -> None:
        self._pool = urllib3.PoolManager(retries=False, timeout=WAIT_MAX_S)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.answer = self._pool.request(
            "GET", f"{where.url}/v1/events{query}", preload_content=False, headers=headers
        )
        self._lines = self._split()

    def _split(self) -> Iterator[str]:
        rest = b""
        for part in self.answer.stream(1):
            rest += part
            if rest.endswith(b"\n"):
                yield rest.decode().rstrip("\n")
                rest = b""

    def next(self) -> tuple[str, Any]:
        """The next event: its name, and what it says."""
        name = ""
        for line in self._lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                return name, json.loads(line.removeprefix("data: "))
        return "", None

    def close(self) -> None:
        self.answer.close()
        self._pool.clear()


def test_events_tell_what_is_held_as_it_changes(where: Served) -> None:
    where.call("save", role="user", content="one")
    listener = Listener(where, "?agent=bob&interval_s=0.2")
    try:
        assert listener.answer.headers["Content-Type"].startswith("text/event-stream")
        name, usage = listener.next()
        assert (name, usage["messages"]) == ("usage", 1)
        where.call("save", role="user", content="two")
        while usage["messages"] != 2:
            name, usage = listener.next()
            assert name == "usage"
    finally:
        listener.close()


def test_events_of_the_whole_store_have_all_agents(where: Served) -> None:
    for agent in ("bob", "eve"):
        where.call("save", agent, role="user", content="one")
    listener = Listener(where)
    name, usage = listener.next()
    listener.close()
    assert name == "usage"
    assert [one["agent"] for one in usage["agents"]] == ["bob", "eve"]
    assert usage["threads"] > 0


def test_an_alarm_is_told_at_once_to_those_that_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    whole = tokens.add(file, "all")
    mine = tokens.add(file, "bob", agents=["bob"])
    with served(tmp_path / "store", tokens=file, token=whole) as where:
        for agent in ("bob", "eve"):
            where.call("save", agent, role="user", content="one")
        every = Listener(where, "?interval_s=300", whole)
        bob = Listener(where, "?interval_s=300", mine)
        assert [one["agent"] for one in every.next()[1]["agents"]] == ["bob", "eve"]
        first = bob.next()[1]
        assert [one["agent"] for one in first["agents"]] == ["bob"]
        assert set(first) == {"agents"}  # nothing of the store as a whole
        assert where.store is not None
        for agent, limit, used in (
            ("eve", "max_db_size_mb", 90.0),
            (None, "max_total_mb", 100.0),
            ("bob", "max_db_size_mb", 100.0),
        ):
            where.store._upkeep.alarms.tell(agent, limit, used, 100.0)
        assert [every.next()[1]["agent"] for _ in range(3)] == ["eve", None, "bob"]
        assert bob.next() == (
            "alarm",
            {"agent": "bob", "limit": "max_db_size_mb", "level": "hard", "used": 100.0,
             "maximum": 100.0},
        )  # fmt: skip
        every.close()
        bob.close()


def test_a_removed_token_ends_its_streams(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    tokens.add(file, "all")
    late = tokens.add(file, "late")
    with served(tmp_path / "store", tokens=file) as where:
        listener = Listener(where, "?interval_s=0.2", late)
        assert listener.next()[0] == "usage"
        tokens.remove(file, "late")
        while listener.next()[0]:
            pass  # what was under way
        listener.close()


def test_streams_are_bounded_and_come_free_again(folder: Path) -> None:
    with served(folder, limits={"max_streams": 2}) as where:
        listeners = [Listener(where) for _ in range(2)]
        for listener in listeners:
            listener.next()
        refused = where.request("GET", "/v1/events")
        assert refused.status == 503
        assert refused.json()["error"] == "busy"
        for listener in listeners:
            listener.close()
        for _ in range(200):
            again = Listener(where)
            if again.answer.status == 200:
                break
            again.close()
            threading.Event().wait(0.02)
        assert again.next()[0] == "usage"
        again.close()


def test_all_listeners_share_one_look_in_each_interval(
    where: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    usage = elytron.aio.AsyncAgent.usage

    async def counted(agent: Any) -> Any:
        looks.append(agent.name)
        return await usage(agent)

    monkeypatch.setattr("elytron.aio.AsyncAgent.usage", counted)
    listeners = [Listener(where, "?agent=bob&interval_s=300") for _ in range(5)]
    for listener in listeners:
        assert listener.next()[0] == "usage"
        listener.close()
    assert looks == ["bob"]


def test_the_end_of_the_server_ends_the_streams(folder: Path) -> None:
    with served(folder, limits={"drain_timeout_s": 10}) as where:
        listener = Listener(where, "?interval_s=300")
        listener.next()
        assert where.server is not None
        where.server.should_exit = True
        assert listener.next() == ("", None)  # ended, not broken off
        listener.close()


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "1e9", "x", "0.01", "1" * 50])
def test_an_interval_out_of_range_is_refused(where: Served, interval: str) -> None:
    assert where.request("GET", f"/v1/events?interval_s={interval}").status == 400


def test_so_many_exports_are_under_way_at_once_and_no_more(folder: Path) -> None:
    """One that is not read is under way; once its client has left, another may begin."""
    with served(folder, limits={"max_streams": 1}) as where:
        message = {"role": "user", "content": "x" * 200_000}
        for _ in range(6):
            where.call("save_many", messages=[message] * 15)
        with urllib3.PoolManager(retries=False, timeout=WAIT_MAX_S) as pool:
            url = f"{where.url}/v1/export?agent=bob"
            unread = pool.request("GET", url, preload_content=False)
            refused = where.request("GET", "/v1/export", fields={"agent": "bob"})
            assert (refused.status, refused.json()["error"]) == (503, "busy")
            assert "--max-streams" in refused.json()["message"]
            unread.close()
        deadline = time.monotonic() + WAIT_MAX_S
        while (again := where.request("GET", "/v1/export", fields={"agent": "bob"})).status != 200:
            assert time.monotonic() < deadline
        assert again.data.count(b"\n") == 90
