"""Faults that a review of the faces found: of the client, and of what clients of MCP share."""

import asyncio
import contextlib
import gzip
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

import elytron
from elytron.adapters import items
from elytron.errors import (
    Busy,
    Closed,
    Conflict,
    DeadlineExceeded,
    InvalidArgument,
    OutcomeUnknown,
    Unavailable,
)
from elytron.faces.mcp import http as mcp_http
from elytron.faces.mcp import server as mcp_server
from elytron.faces.mcp.reference_profile import reference_profile
from elytron.importers import import_file
from elytron.remote import answers, submitted
from impostors import OK, Impostor
from mcp_servers import graphing

WAIT_MAX_S = 60
SECRET = "My cat is called Pixel"


def receipts(_verb: str, body: bytes, _near: object) -> bytes:
    """What a sound server says to `save_many`."""
    told = [
        {"id": one["id"], "new": True, "embedding": "disabled"}
        for one in json.loads(body)["messages"]
    ]
    return json.dumps(told).encode()


# -- what a caller is told of a write


def test_a_write_whose_answer_was_lost_is_never_told_as_not_done(impostor):
    """The server dies with the first attempt, so that the others find nobody."""

    def dies(_verb: str, _body: bytes, _near: object) -> None:
        fake.vanish()

    fake = impostor(dies)
    with elytron.connect(fake.url) as store, pytest.raises(OutcomeUnknown, match="may or may not"):
        store.agent("bob").save("user", SECRET)


@pytest.mark.parametrize(
    ("code", "status", "raised"),
    [
        ("busy", 503, OutcomeUnknown),
        ("disk-full", 507, OutcomeUnknown),
        ("conflict", 409, Conflict),
    ],
)
def test_after_a_lost_answer_a_refusal_tells_only_what_it_can_know(impostor, code, status, raised):
    """That an id is taken is so whatever became of the first attempt; that nothing was written
    is not."""

    def loses_then_refuses(_verb: str, _body: bytes, _near: object) -> Any:
        if len(fake.asked) == 1:
            return None
        return status, json.dumps({"error": code, "message": "Nothing was written"}).encode()

    fake = impostor(loses_then_refuses)
    with elytron.connect(fake.url) as store, pytest.raises(raised):
        store.agent("bob").save("user", SECRET)
    assert len(fake.asked) == 2


def test_a_server_that_closes_its_store_says_so_in_its_own_words(impostor):
    said = json.dumps({"error": "closed", "message": "the server is ending"}).encode()
    url = impostor(lambda *_: (503, said)).url
    with elytron.connect(url) as store, pytest.raises(Closed, match="the server is ending"):
        store.agent("bob").history()


@pytest.mark.parametrize(
    "sent",
    [b"no json", b"null", b"7", json.dumps({SECRET: 1}).encode(), b"[" * 100_000, b'["x"]'],
    ids=["words", "null", "number", "other", "deep", "list"],
)
def test_what_is_no_answer_is_an_error_of_ours_without_what_was_sent(impostor, sent):
    fake = impostor(lambda *_: sent)
    with elytron.connect(fake.url) as store:
        bob = store.agent("bob")
        reads = (
            bob.history,
            bob.usage,
            lambda: list(bob.messages()),
            lambda: bob.cypher("RETURN 1"),
        )
        for verb in reads:
            with pytest.raises(Unavailable) as told:
                verb()
            assert told.value.__cause__ is None
            assert SECRET not in str(told.value)
        for verb in (
            lambda: bob.save("user", SECRET),
            lambda: bob.save_many([{"role": "user", "content": SECRET}]),
            lambda: bob.submit("user", SECRET).result(WAIT_MAX_S),
            lambda: bob.import_([{"role": "user", "content": SECRET}]),
            bob.check,
        ):
            with pytest.raises(OutcomeUnknown) as told:
                verb()
            assert SECRET not in repr(told.value)


@pytest.mark.parametrize(
    "sent", [b"[]", b'[{"id": "other", "new": true, "embedding": "disabled"}]']
)
def test_receipts_of_other_messages_are_not_believed(impostor, sent):
    fake = impostor(lambda *_: sent)
    with elytron.connect(fake.url) as store:
        bob = store.agent("bob")
        with pytest.raises(OutcomeUnknown):
            bob.save_many([{"role": "user", "content": SECRET}])
        for _ in range(2):  # the second would wait behind the first for ever
            with pytest.raises(OutcomeUnknown):
                bob.submit("user", SECRET).result(WAIT_MAX_S)


# -- bounds


def test_what_is_packed_small_does_not_fill_the_memory(impostor):
    packed = gzip.compress(b"[" + b" " * (32 << 20) + b"]")

    def bomb(_verb: str, _body: bytes, near: socket.socket) -> None:
        near.sendall(
            OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
        )

    with elytron.connect(impostor(bomb).url) as store, pytest.raises(Unavailable):
        store.agent("bob").history()


def test_an_answer_has_a_bound_whole_or_in_lines(impostor, monkeypatch):
    monkeypatch.setattr(answers, "ANSWER_MAX_BYTES", 1 << 20)

    def endless(_verb: str, _body: bytes, near: socket.socket) -> None:
        near.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            near.sendall(b"10000\r\n" + b"a" * 0x10000 + b"\r\n")

    with elytron.connect(impostor(endless).url) as store:
        bob = store.agent("bob")
        for verb in (bob.history, lambda: list(bob.messages())):
            with pytest.raises(DeadlineExceeded, match="over 1,048,576 bytes"):
                verb()
        with pytest.raises(OutcomeUnknown, match="over 1,048,576 bytes"):
            bob.check()


def test_an_answer_in_drops_is_given_up_after_the_timeout(impostor, monkeypatch):
    """Each drop comes within the timeout, so that no single wait takes too long."""
    given_up = threading.Event()

    def drips(_verb: str, _body: bytes, near: socket.socket) -> None:
        near.sendall(OK + b"Content-Length: 1000\r\n\r\n")
        for _ in range(1000):
            if given_up.wait(0.05):
                return
            near.sendall(b" ")

    with elytron.connect(impostor(drips).url) as store:
        monkeypatch.setattr(store._connection, "_timeout_s", 0.3)  # now that it is there
        with pytest.raises(DeadlineExceeded):
            store.agent("bob").history()
        given_up.set()


@pytest.fixture
def taken(impostor: Callable[..., Impostor]) -> Callable[..., Any]:
    """A function that connects with one connection, and takes it for good."""
    line = json.dumps({"progress": [1]}).encode() + b"\n"

    def streams(_verb: str, _body: bytes, near: socket.socket) -> bytes:
        near.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(line) + line + b"\r\n")
        near.recv(1)  # until the client goes away
        return b""

    @contextlib.contextmanager
    def take(timeout_s: float) -> Iterator[elytron.Store]:
        url = impostor(streams).url
        with (
            elytron.connect(url, connections_max=1) as store,
            store._connection.lines("check", writes=False, beats=True) as lines,
        ):
            assert next(lines)
            store._connection._timeout_s = timeout_s  # now that it is there
            yield store

    return take


def test_a_wait_for_a_free_connection_is_bounded(taken):
    with taken(0.3) as store, pytest.raises(Busy, match="connections_max"):
        store.agent("bob").save("user", SECRET)


def test_close_ends_those_who_wait_for_a_connection(taken, monkeypatch):
    outcome: list[BaseException] = []
    waits = threading.Event()
    looks: list[int] = []

    def call(bob: elytron.Agent) -> None:
        with contextlib.suppress(Closed):
            try:
                bob.history()
            except BaseException as error:
                outcome.append(error)
                raise

    with taken(WAIT_MAX_S) as store:
        bob, usable = store.agent("bob"), store._connection.check_usable

        def looking() -> None:
            looks.append(1)
            if len(looks) > 1:  # it looks again and again while it waits
                waits.set()
            usable()

        monkeypatch.setattr(store._connection, "check_usable", looking)
        caller = threading.Thread(target=call, args=(bob,), daemon=True)
        caller.start()
        assert waits.wait(WAIT_MAX_S)
        store.close()
        caller.join(WAIT_MAX_S / 2)
        assert not caller.is_alive()
    assert [type(error) for error in outcome] == [Closed]


@pytest.mark.parametrize("host", ["a..b", "a" * 300])
def test_a_host_that_can_be_none_is_refused_at_once(host):
    with pytest.raises(InvalidArgument):
        elytron.connect(f"http://{host}")


# -- what is submitted


class Sending:
    """In the place of a server: takes what is sent once it may."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go_on, self.began = threading.Event(), threading.Event()
        self.parts: list[list[str]] = []
        self._error = error

    def __call__(self, _agent: str, messages: list[Any]) -> list[Any]:
        self.began.set()
        assert self.go_on.wait(WAIT_MAX_S)
        self.parts.append([message["content"] for message in messages])
        if self._error is not None:
            raise self._error
        return [message["content"] for message in messages]


def test_what_is_submitted_while_it_closes_is_refused_and_nothing_is_left_unsettled():
    sending = Sending()
    queue = submitted.Submitted(sending, 2)
    first = queue.submit("bob", {"content": "1"})
    assert sending.began.wait(WAIT_MAX_S)
    closing = threading.Thread(target=queue.close)
    closing.start()
    with queue._changed:
        assert queue._changed.wait_for(lambda: queue._closing, WAIT_MAX_S)
    for _ in range(2):
        for agent in ("bob", "eve"):
            with pytest.raises(Closed):
                queue.submit(agent, {"content": "late"})
    sending.go_on.set()
    closing.join(WAIT_MAX_S)
    assert first.result(0) == "1"
    assert queue.wait("eve", 0)
    assert queue.wait("bob", 0)


def test_with_a_server_that_is_gone_each_part_is_tried_once_and_closing_ends():
    sending = Sending(Unavailable("gone"))
    queue = submitted.Submitted(sending, 1)
    outcomes = [queue.submit("bob", {"content": str(n)}) for n in range(2000)]
    closing = threading.Thread(target=queue.close)
    closing.start()
    with queue._changed:
        assert queue._changed.wait_for(lambda: queue._closing, WAIT_MAX_S)
    sending.go_on.set()
    closing.join(WAIT_MAX_S)
    assert not closing.is_alive()
    assert len(sending.parts) == 1
    errors = [type(outcome.exception(0)) for outcome in outcomes]
    tried = len(sending.parts[0])
    assert errors == [Unavailable] * tried + [Closed] * (2000 - tried)


def test_one_that_is_refused_fails_alone_and_the_order_stays():
    saved: list[str] = []
    hold, began = threading.Event(), threading.Event()

    def save_many(_agent: str, messages: list[Any]) -> list[Any]:
        began.set()
        assert hold.wait(WAIT_MAX_S)
        contents = [message["content"] for message in messages]
        if "bad" in contents:
            raise Conflict("bad")
        saved.extend(contents)
        return contents

    queue = submitted.Submitted(save_many, 4)
    outcomes = [queue.submit("bob", {"content": c}) for c in ("a", "b", "bad", "c")]
    hold.set()
    assert [type(one.exception(WAIT_MAX_S)) for one in outcomes] == [
        type(None), type(None), Conflict, type(None),
    ]  # fmt: skip
    queue.close()
    assert saved == ["a", "b", "c"]


def test_what_waits_to_be_sent_is_bounded_in_characters_too(monkeypatch):
    monkeypatch.setattr(submitted, "WAITING_MAX_CHARS", 100)
    monkeypatch.setattr(submitted, "_WAIT_S", 0.05)
    sending = Sending()
    queue = submitted.Submitted(sending, 1)
    queue.submit("bob", {"content": "x" * 300})  # one alone may be longer than all may be
    assert queue.submit_at_once("bob", {"content": "x"}) is None
    with pytest.raises(Busy, match="300 characters"):
        queue.submit("bob", {"content": "x"})
    sending.go_on.set()
    assert queue.wait("bob", WAIT_MAX_S)
    assert queue.submit_at_once("bob", {"content": "x" * 60}) is not None
    queue.close()


def test_a_full_queue_does_not_hold_up_an_event_loop(impostor, monkeypatch):
    monkeypatch.setattr(submitted, "WAITING_MAX", 2)
    go_on = threading.Event()

    def waits(verb: str, body: bytes, near: object) -> bytes:
        assert go_on.wait(WAIT_MAX_S)
        return receipts(verb, body, near)

    async def use(url: str) -> list[elytron.Receipt]:
        async with await elytron.aio.connect(url) as store:
            bob = store.agent("bob")
            saves = [asyncio.ensure_future(bob.save("user", f"m{n}")) for n in range(20)]
            for _ in range(5):
                await asyncio.sleep(0)  # each has begun, and most find no room
            go_on.set()  # never, if the loop waited for room
            return await asyncio.gather(*saves)

    assert len(asyncio.run(use(impostor(waits).url))) == 20


# -- alarms


def test_close_ends_the_thread_and_the_stream_of_alarms(impostor):
    """The stream stays open and silent, as that of a server where nothing happens."""
    told = {"agent": "bob", "limit": "max_db_size_mb", "level": "soft", "used": 9, "maximum": 10}
    sent = b"event: alarm\ndata: " + json.dumps(told).encode() + b"\n"

    def silent(_verb: str, _body: bytes, near: socket.socket) -> None:
        near.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(sent) + sent + b"\r\n")
        near.recv(1)

    heard = threading.Event()
    store = elytron.connect(impostor(silent).url)
    store.on_alarm(lambda _alarm: heard.set())
    assert heard.wait(WAIT_MAX_S)
    thread = store._alarms._thread
    store.close()
    thread.join(WAIT_MAX_S / 2)  # less than it waits for the next alarm
    assert not thread.is_alive()


def test_an_alarm_that_is_none_does_not_end_the_listening(impostor, monkeypatch):
    monkeypatch.setattr("elytron.remote.alarms._PAUSE_S", 0.01)
    again = threading.Event()

    def events(_verb: str, _body: bytes, _near: object) -> bytes:
        if len(fake.asked) > 1:
            again.set()
        return b"event: alarm\ndata: [1]\n\n"

    fake = impostor(events)
    with elytron.connect(fake.url) as store:
        store.on_alarm(lambda _alarm: None)
        assert again.wait(WAIT_MAX_S)


# -- MCP


def test_a_client_that_does_not_read_holds_up_no_other(bob, monkeypatch):
    monkeypatch.setattr(mcp_server, "TELL_MAX_S", 0.05)
    face = mcp_server.Face(reference_profile(bob))

    class Stalled:
        async def send_resource_updated(self, _uri: str) -> None:
            await anyio.sleep_forever()

    face._subscribers.update({str(n): Stalled() for n in range(3)})  # type: ignore[misc]

    async def main() -> bool:
        async with Client(face.server()) as client:
            with anyio.fail_after(WAIT_MAX_S):
                done = await client.call_tool("delete_relations", {"relations": []})
            return bool(done.is_error)

    assert not anyio.run(main)
    assert not face._subscribers


def test_a_standing_stream_ends_once_its_token_is_removed(monkeypatch):
    monkeypatch.setattr(mcp_http, "_LOOK_S", 0.01)
    held = [True]
    scope = {"elytron.access": True, "elytron.again": lambda: held[0]}

    async def main() -> Any:
        receive = mcp_http._Sessions(None, "bob")._until_end(scope, anyio.sleep_forever)  # type: ignore[arg-type]
        with anyio.move_on_after(0.1) as waiting:
            await receive()
        assert waiting.cancelled_caught, "it lasts while the token is held"
        held[0] = False
        with anyio.fail_after(WAIT_MAX_S):
            return await receive()

    assert anyio.run(main) == {"type": "http.disconnect"}


def test_an_entity_without_a_type_is_made_once(bob):
    call = graphing(bob)
    entity = {"name": "Alice", "entityType": "", "observations": ["likes tea"]}
    assert call("create_entities", entities=[entity]).structured_content == {"entities": [entity]}
    assert call("create_entities", entities=[entity]).structured_content == {"entities": []}
    typed = {**entity, "entityType": "person"}
    assert call("create_entities", entities=[typed]).structured_content == {"entities": [typed]}


# -- adapters


def test_what_holds_itself_twice_is_refused_at_once():
    """Followed from layer to layer it would be twice as much in each."""
    value: list[Any] = []
    value += [value, value]
    with pytest.raises(InvalidArgument, match="levels deep"):
        items.dumps(value)


# -- imports


@pytest.mark.skipif(not hasattr(os, "link"), reason="this system has no hard links")
def test_a_ledger_under_another_name_is_not_even_opened(store, bob, tmp_path, monkeypatch):
    """Closing another descriptor of it would drop the locks that SQLite holds on it."""
    bob.save("user", SECRET)
    (ledger,) = store.path.glob("agents/*/ledger.db")
    os.link(ledger, tmp_path / "notes.db")
    opened: list[Path] = []
    real = Path.open

    def opening(path: Path, *args: Any, **more: Any) -> Any:
        opened.append(path)
        return real(path, *args, **more)

    monkeypatch.setattr(Path, "open", opening)
    with pytest.raises(InvalidArgument, match="of the store itself"):
        import_file(store, tmp_path / "notes.db", agent="eve")
    assert tmp_path / "notes.db" not in opened
