"""From afar: what a caller is told of a write, and what is waited for, when things go wrong."""

import asyncio
import contextlib
import gc
import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

import elytron
import elytron.aio
from elytron.errors import Closed, ElytronError, Forked, OutcomeUnknown, Unavailable
from impostors import OK

WAIT_MAX_S = 60
HTML = b"<html><h1>Bad Gateway</h1></html>"


# -- a proxy before the server, which answers in its place


WRITES: dict[str, Callable[[elytron.Agent], Any]] = {
    "save": lambda bob: bob.save("user", "Hello"),
    "save_many": lambda bob: bob.save_many([{"role": "user", "content": "Hello"}]),
    "submit": lambda bob: bob.submit("user", "Hello").result(WAIT_MAX_S),
    "import_": lambda bob: bob.import_([{"role": "user", "content": "Hello"}]),
    "relate": lambda bob: bob.relate("Alice", "knows", "Bob"),
    "delete": lambda bob: bob.delete("one"),
    "archive": lambda bob: bob.archive(),
}
ONCE = ("relate", "delete", "archive")


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize(
    ("sent", "kind"),
    [(HTML, "text/html"), (b'{"message": "timed out"}', "application/json")],
    ids=["html", "json"],
)
def test_a_write_that_a_proxy_answers_for_may_have_been_done(impostor, verb, status, sent, kind):
    """The proxy has passed it on, and knows no more of what became of it."""
    fake = impostor(lambda *_: (status, sent, kind))
    with elytron.connect(fake.url) as store, pytest.raises(OutcomeUnknown, match="may or may not"):
        WRITES[verb](store.agent("bob"))
    again = status == 503 and sent is HTML and verb not in ONCE
    assert len(fake.asked) == (4 if again else 1)


def test_a_read_that_a_proxy_answers_for_is_unavailable(impostor):
    fake = impostor(lambda *_: (502, HTML, "text/html"))
    with elytron.connect(fake.url) as store, pytest.raises(Unavailable, match="status 502"):
        store.agent("bob").history()


def test_a_fault_of_the_server_in_a_write_leaves_open_what_was_done(impostor):
    said = json.dumps({"error": "error", "message": "an unexpected error"}).encode()
    with elytron.connect(impostor(lambda *_: (500, said)).url) as store:
        with pytest.raises(OutcomeUnknown):
            store.agent("bob").delete("one")
        with pytest.raises(ElytronError, match="an unexpected error") as told:
            store.agent("bob").history()
    assert type(told.value) is ElytronError


def test_a_server_that_is_too_full_to_look_is_asked_again_and_nothing_was_done(impostor):
    full = (503, b"too many connections; raise --max-requests", "text/plain; charset=utf-8")
    fake = impostor(lambda *_: b"true" if len(fake.asked) == 3 else full)
    with elytron.connect(fake.url) as store:
        assert store.agent("bob").delete("one") is True
    always = impostor(lambda *_: full)
    with elytron.connect(always.url) as store, pytest.raises(Unavailable):
        store.agent("bob").delete("one")
    assert len(always.asked) == 4


def test_a_busy_server_after_a_proxys_answer_is_no_proof_that_nothing_was_done(impostor):
    busy = json.dumps({"error": "busy", "message": "Nothing was written"}).encode()
    fake = impostor(lambda *_: (503, HTML, "text/html") if len(fake.asked) == 1 else (503, busy))
    with elytron.connect(fake.url) as store, pytest.raises(OutcomeUnknown):
        store.agent("bob").save("user", "Hello")
    assert len(fake.asked) == 2


# -- a connection that closes while asyncio has writes under way


class Holding:
    """In the place of a server: remembers, but answers nothing until it may."""

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()

    def __call__(self, _verb: str, body: bytes, _near: object) -> Any:
        self.began.set()
        assert self.go_on.wait(WAIT_MAX_S)
        told = {"id": json.loads(body)["id"], "new": True, "embedding": "disabled"}
        return json.dumps(told).encode()


async def _began(holding: Holding) -> None:
    assert await asyncio.to_thread(holding.began.wait, WAIT_MAX_S)


def test_cancelled_writes_from_afar_that_waited_for_a_thread_are_done_all_the_same(impostor):
    holding = Holding()
    fake = impostor(holding)

    async def use() -> None:
        store = await elytron.aio.connect(fake.url, connections_max=1)
        bob = store.agent("bob")
        tasks = [asyncio.ensure_future(bob.remember(f"Hello {n}")) for n in range(30)]
        await _began(holding)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        closing = asyncio.ensure_future(store.close())
        holding.go_on.set()
        await closing

    asyncio.run(use())
    assert len(fake.asked) == 30


def test_closing_ends_soon_where_the_server_is_gone(impostor):
    """The first write finds that out for all of them."""
    holding = Holding()

    def dies(*told: Any) -> None:
        fake.vanish()
        holding(*told)

    fake = impostor(dies)

    async def use() -> list[Any]:
        store = await elytron.aio.connect(fake.url, connections_max=1)
        bob = store.agent("bob")
        tasks = [asyncio.ensure_future(bob.remember(f"Hello {n}")) for n in range(30)]
        await _began(holding)
        closing = asyncio.ensure_future(store.close())
        holding.go_on.set()
        await closing
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *_, last = asyncio.run(use())
    assert type(first) is OutcomeUnknown
    assert type(last) is Closed


def test_a_cancelled_write_from_afar_that_fails_is_no_complaint_of_asyncio(impostor):
    complaints: list[Any] = []
    holding = Holding()

    def refuses(*told: Any) -> Any:
        holding(*told)
        return 400, json.dumps({"error": "invalid-argument", "message": "no"}).encode()

    fake = impostor(refuses)

    async def use() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, told: complaints.append(told)
        )
        store = await elytron.aio.connect(fake.url, connections_max=1)
        task = asyncio.ensure_future(store.agent("bob").remember("Hello"))
        await _began(holding)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        holding.go_on.set()
        await store.close()
        del task
        gc.collect()

    asyncio.run(use())
    gc.collect()
    assert not complaints


# -- a fork, and connections


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("verb", ["flush", "delete", "rename", "close"])
def test_a_fork_waits_for_nothing_that_its_parent_has_submitted(impostor, verb):
    """Method: a save is under way for good; a child that hangs is ended by its alarm."""
    began, go_on = threading.Event(), threading.Event()

    def waits(_verb: str, _body: bytes, _near: object) -> None:
        began.set()
        go_on.wait(WAIT_MAX_S)

    with elytron.connect(impostor(waits).url) as store:
        bob = store.agent("bob")
        submitted: Future[elytron.Receipt] = bob.submit("user", "Hello")
        assert began.wait(WAIT_MAX_S)
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.alarm(WAIT_MAX_S)
                match verb:
                    case "flush":
                        bob.flush()
                    case "delete":
                        store.delete("bob")
                    case "rename":
                        store.rename("bob", "eve")
                    case "close":
                        store.close()
                        code = 0
            except Forked:
                code = 0
            finally:
                os._exit(code)
        ended = os.waitpid(child, 0)[1]
        go_on.set()
        assert ended == 0
        with pytest.raises(OutcomeUnknown):
            submitted.result(WAIT_MAX_S)


def test_listening_for_alarms_takes_no_connection_of_the_calls(impostor):
    listening = threading.Event()

    def answers(verb: str, _body: bytes, near: Any) -> bytes | None:
        if verb != "events":
            return b"[]"
        listening.set()
        near.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        near.recv(1)  # until the client goes away
        return None

    with elytron.connect(impostor(answers).url, connections_max=1) as store:
        store.on_alarm(lambda _alarm: None)
        assert listening.wait(WAIT_MAX_S)
        assert store.agent("bob").history() == []
