"""From afar: the same verbs, nothing twice, and the truth where an answer is lost."""

import asyncio
import contextlib
import inspect
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProtocolError

import elytron
import elytron.aio
from elytron import (
    AccessDenied,
    Closed,
    Conflict,
    DeadlineExceeded,
    Forked,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from elytron.aio import AsyncAgent, AsyncStore
from elytron.aio.remote import AsyncRemoteAgent, AsyncRemoteStore
from elytron.faces.http import problems, tokens
from elytron.remote import attempts, calls
from elytron.remote.agent import RemoteAgent
from elytron.remote.connection import checked_url, error_of
from elytron.remote.store import RemoteStore
from serving import served

WAIT_MAX_S = 60
A_TIME = datetime(2026, 3, 2, 18, 4, 5, 678, tzinfo=UTC)


def verbs(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and inspect.isfunction(member)
    }


class Link:
    """A wire to a server that can be cut: the answers to requests that hold a word are lost."""

    def __init__(self, port: int) -> None:
        self.lose: bytes | None = None
        self.lost = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._open += [near, far]
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one of them is closed
            while request := near.recv(1 << 20):
                far.sendall(request)
                while b"\r\n\r\n" not in request or _more(request):
                    part = near.recv(1 << 20)
                    request += part
                    far.sendall(part)
                answer = far.recv(1 << 20)
                if self.lose is not None and self.lose in request:
                    self.lost += 1
                    self.lose = None
                    break
                near.sendall(answer)
                while _more(answer):
                    part = far.recv(1 << 20)
                    answer += part
                    near.sendall(part)
        near.close()
        far.close()

    def close(self) -> None:
        self._listener.close()
        for one in self._open:
            one.close()


def _more(data: bytes) -> bool:
    """Whether there is more to come of a request or an answer."""
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        return not body.endswith(b"0\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return len(body) < int(length or 0)


@pytest.fixture
def link(folder: Path) -> Iterator[Link]:
    with served(folder, graph_timeout_s=WAIT_MAX_S) as where:
        one = Link(where.port)
        yield one
        one.close()


@pytest.fixture
def bob(link: Link) -> Iterator[elytron.Agent]:
    with elytron.connect(link.url) as store:
        yield store.agent("bob")


def test_every_verb_of_an_agent_and_a_store_can_be_asked_from_afar():
    """What is not forwarded from the table is written out: nothing falls through to here."""
    own = set(vars(RemoteAgent))
    assert verbs(elytron.Agent).keys() <= own
    assert verbs(elytron.Store).keys() <= set(vars(RemoteStore))
    travelling = {*calls.AGENT_CALLS, *calls.STREAMED, *calls.MADE_OF_OTHERS}
    assert verbs(elytron.Agent).keys() == travelling


@pytest.mark.parametrize(
    ("near", "far"),
    [
        (elytron.Agent, RemoteAgent),
        (elytron.Store, RemoteStore),
        (AsyncAgent, AsyncRemoteAgent),
        (AsyncStore, AsyncRemoteStore),
    ],
)
def test_the_signatures_are_the_same_from_afar(near, far):
    ours, theirs = verbs(near), verbs(far)
    for name, signature in ours.items():
        assert list(signature.parameters.values()) == list(theirs[name].parameters.values()), name


def test_connect_takes_the_same_on_both_faces():
    assert (
        inspect.signature(elytron.connect).parameters
        == inspect.signature(elytron.aio.connect).parameters
    )


def test_a_store_from_afar_is_a_store(bob):
    assert isinstance(bob, elytron.Agent)


@pytest.mark.parametrize("verb", ["save", "save_many", "remember", "import_", "submit"])
def test_a_write_whose_answer_was_lost_is_asked_again_and_written_once(bob, link, verb):
    link.lose = b"Pixel"
    text = "My cat is called Pixel"
    match verb:
        case "save":
            bob.save("user", text)
        case "save_many":
            bob.save_many([{"role": "user", "content": text}])
        case "remember":
            bob.remember(text)
        case "import_":
            bob.import_([{"role": "user", "content": text}])
        case "submit":
            bob.submit("user", text).result(WAIT_MAX_S)
    assert link.lost == 1
    held = [message.content for message in bob.messages()]
    held += [memory.content for memory in bob.memories()]
    assert held == [text]


def test_a_receipt_after_a_lost_answer_says_that_it_was_held_already(bob, link):
    link.lose = b"Pixel"
    receipt = bob.save("user", "My cat is called Pixel")
    assert receipt.new is False
    assert bob.get(receipt.id) is not None


def test_a_deletion_whose_answer_was_lost_is_not_asked_again_but_told(bob, link):
    """A second one would say that there was nothing to delete."""
    bob.save("user", "Hello", id="one")
    link.lose = b'"one"'
    with pytest.raises(OutcomeUnknown, match="may or may not"):
        bob.delete("one")
    assert link.lost == 1
    assert bob.get("one") is None


def test_a_long_verb_that_breaks_off_says_that_its_outcome_is_unknown(bob, link):
    bob.save("user", "Hello", user="alice")
    link.lose = b"alice"
    with pytest.raises(OutcomeUnknown):
        bob.forget(user="alice")


def test_a_read_whose_answer_was_lost_is_asked_again(bob, link):
    bob.save("user", "Hello Pixel")
    link.lose = b"question"
    assert [hit.message.content for hit in bob.recall("Pixel")] == ["Hello Pixel"]
    assert link.lost == 1


def test_errors_are_those_of_the_verb_with_its_words(bob):
    bob.save("user", "Hello", id="one")
    with pytest.raises(Conflict, match="one"):
        bob.save("user", "Another", id="one")
    with pytest.raises(NotFound, match="no message has the id 'two'"):
        bob.edit("two", "Hello")
    with pytest.raises(InvalidArgument, match="limit"):
        bob.history(limit=0)
    with pytest.raises(TypeError, match="missing"):
        bob.recall()
    assert bob.usage().messages == 1


def test_progress_is_told_while_a_long_verb_runs(bob):
    bob.import_({"role": "user", "content": f"Hello {n}"} for n in range(1200))
    told: list[int] = []
    assert bob.check(on_progress=told.append).ok
    assert told
    assert told == sorted(told)


def test_an_error_in_the_callers_own_function_comes_back_to_the_caller(bob):
    bob.import_({"role": "user", "content": f"Hello {n}"} for n in range(1200))

    def stop(_done: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        bob.check(on_progress=stop)
    with pytest.raises(LookupError, match="enough"):
        bob.import_([{"role": "user", "content": "one more"}], on_progress=stop)
    assert bob.check().ok


def test_an_import_goes_in_parts_and_is_reported_whole(bob):
    told: list[int] = []
    messages = [{"role": "user", "content": f"Hello {n}", "id": f"m{n}"} for n in range(1201)]
    bad = [{"role": "nobody", "content": "x", "line": 77}, {"role": "user", "content": object()}]
    report = bob.import_([*messages, *bad], skip_bad=True, on_progress=told.append)
    assert (report.imported, report.already_held) == (1201, 0)
    assert [line.line for line in report.bad] == [77, 1203]
    assert told == [500, 1000, 1201]
    assert bob.import_(messages).already_held == 1201
    assert [message.id for message in bob.messages()] == [f"m{n}" for n in range(1201)]


def test_an_import_that_stops_says_how_far_it_came(bob):
    messages = [{"role": "user", "content": f"Hello {n}", "id": f"m{n}"} for n in range(600)]
    with pytest.raises(InvalidArgument, match=r"line 601: .*600 messages were imported"):
        bob.import_([*messages, {"role": "nobody", "content": "x"}])
    assert bob.usage().messages == 600


def test_values_of_a_graph_keep_their_types(bob):
    bob.save("user", "Hello", at=A_TIME)
    (row,) = bob.cypher(
        "MATCH (m:Message) RETURN m.at AS at, date($day) AS day, interval('2 days') AS span,"
        " $numbers[1] AS first",
        {"day": "2026-03-02", "numbers": [1, 2]},
    )
    assert row == {"at": A_TIME, "day": date(2026, 3, 2), "span": timedelta(days=2), "first": 1}


def test_a_context_counts_with_the_callers_own_function(bob):
    bob.save("user", "I live in Lyon")
    assert bob.context("Lyon").tokens > 0
    assert bob.context("Lyon", count_tokens=len).tokens == len(bob.context("Lyon").text)


def test_every_agents_name_arrives_as_it_is(link):
    names = ["..", ".", "a/b", "../../etc", "a?b&c=d#e", "%2e%2e", "ü🐞", " a b ", "\\", "agent=x"]
    with elytron.connect(link.url) as store:
        for name in names:
            store.agent(name).save("user", f"I am {name!r}")
        assert store.agents() == sorted(names)
        for name in names:
            assert [m.content for m in store.agent(name).history()] == [f"I am {name!r}"]


def test_after_close_every_verb_says_so(link):
    store = elytron.connect(link.url)
    bob = store.agent("bob")
    store.close()
    store.close()
    for verb in (
        lambda: bob.save("user", "x"),
        lambda: bob.history(),
        lambda: bob.submit("user", "x"),
        lambda: store.agents(),
        lambda: store.agent("eve"),
        lambda: next(bob.messages()),
    ):
        with pytest.raises(Closed):
            verb()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_of_the_process_is_told_to_connect_anew(bob):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            bob.save("user", "from the child")
            os.write(writing, b"saved")
        except Forked:
            os.write(writing, b"forked")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"forked"
    os.close(reading)
    os.close(writing)
    bob.save("user", "from the parent")


def test_where_nobody_answers_it_says_so_with_the_url():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # so that it is nobody else's, and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"no server answers at {url}") as told:
            elytron.connect(url)
    assert "host=" not in str(told.value)


def test_a_server_that_is_none_of_ours_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            one, _ = listener.accept()
            with one:
                one.recv(65536)
                one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unavailable, match="no `elytron serve`"):
            elytron.connect(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(WAIT_MAX_S)


def test_a_server_that_never_answers_is_given_up_after_the_timeout():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(DeadlineExceeded, match=r"0\.1 s"),
    ):
        elytron.connect(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.1)


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost", "ftp://localhost", "http://", "http://user:secret@localhost",
        "http://localhost?token=x", "http://localhost#x", "http://localhost:0", "http://[::1",
        "http://localhost:99999", "http://a b", "http://localhost\r\nX: y", 7, None,
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_refused(url):
    with pytest.raises(InvalidArgument):
        elytron.connect(url)


def test_a_url_may_have_a_path_before_and_a_slash_behind():
    assert checked_url("https://example.org/memory/") == "https://example.org/memory"


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"timeout_s": "x"}, {"connections_max": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        elytron.connect("http://localhost", **options)


def test_a_token_is_needed_where_it_is_asked_for_and_may_be_for_one_agent(folder, tmp_path):
    file = tmp_path / "tokens.json"
    whole = tokens.add(file, "whole")
    named = tokens.add(file, "named", agents=["bob"])
    reading = tokens.add(file, "reading", writes=False)
    with served(folder, tokens=file, token=whole) as where:
        for token in (None, "wrong", whole + "x"):
            with pytest.raises(AccessDenied):
                elytron.connect(where.url, token=token)
        with pytest.raises(AccessDenied):
            elytron.connect(where.url, token="with\nnewline")
        with elytron.connect(where.url, token=whole) as store:
            store.agent("bob").save("user", "Hello")
            store.agent("eve").save("user", "Hello")
            assert store.agents() == ["bob", "eve"]
        with elytron.connect(where.url, token=named) as store:
            assert store.agents() == ["bob"]
            store.agent("bob").save("user", "Hello")
            for verb in (store.agent("eve").history, store.usage, store.cleanup):
                with pytest.raises(AccessDenied):
                    verb()
        with elytron.connect(where.url, token=reading) as store:
            assert len(store.agent("bob").history()) == 2
            with pytest.raises(AccessDenied, match="only read"):
                store.agent("bob").save("user", "Hello")


def test_a_connection_is_entered_without_awaiting_it_first_or_awaited_and_closed(link):
    async def use() -> None:
        async with elytron.aio.connect(link.url) as store:
            assert await store.agents() == []
        with pytest.raises(Closed):
            await store.agents()
        store = await elytron.aio.connect(link.url)
        await store.close()
        with pytest.raises(Unavailable):
            async with elytron.aio.connect("http://127.0.0.1:9"):
                pass

    asyncio.run(use())


def test_the_async_face_has_the_same_from_afar(link):
    async def use() -> None:
        async with await elytron.aio.connect(link.url) as store:
            bob = store.agent("bob")
            await asyncio.gather(*[bob.save("user", f"Hello {n}") for n in range(40)])
            future = await bob.submit("user", "My cat is called Pixel", id="cat")
            assert (await asyncio.wrap_future(future)).id == "cat"
            await bob.flush()
            assert len([message async for message in bob.messages()]) == 41
            assert (await bob.recall("Pixel"))[0].message.id == "cat"
            assert await store.agents() == ["bob"]
            assert (await store.usage()).agents[0].messages == 41
        with pytest.raises(Closed):
            await bob.history()

    asyncio.run(use())


def test_an_error_from_afar_can_be_pickled_and_an_unknown_one_is_told():
    error = error_of({"error": "embedder-unavailable", "message": "no", "wait_s": 3})
    assert isinstance(error, elytron.EmbedderUnavailable)
    assert error.wait_s == 3
    unknown = error_of({"error": "of a later version", "message": "no"})
    assert type(pickle.loads(pickle.dumps(unknown))) is elytron.ElytronError


def test_only_what_can_do_no_harm_is_tried_again():
    unsent = (NewConnectionError(None, "x"), ConnectTimeoutError("x"))  # type: ignore[arg-type]
    for error in unsent:
        assert attempts.pause_failed(error, 0, repeats=False) is not None
        assert attempts.pause_failed(error, attempts.ATTEMPTS_MAX - 1, repeats=True) is None
    assert attempts.pause_failed(ProtocolError("x"), 0, repeats=False) is None
    assert attempts.pause_failed(ProtocolError("x"), 0, repeats=True) is not None
    told = {"Content-Type": "application/json"}
    for repeats in (True, False):
        full = b"too many connections; raise --max-requests"
        assert attempts.pause_refused(503, told, b"{}", 0, repeats=repeats) is None
        assert attempts.pause_refused(503, {}, full, 0, repeats=repeats) is not None
        assert (attempts.pause_refused(503, {}, b"<html>", 0, repeats=repeats) is None) != repeats
        for asked_s, pause_s in (("2", 2), ("9" * 5, 5)):
            more = {**told, "Retry-After": asked_s}
            assert attempts.pause_refused(429, more, b"{}", 0, repeats=repeats) == pause_s
        assert attempts.pause_refused(400, told, b"{}", 0, repeats=repeats) is None


def test_every_verb_that_is_asked_again_leaves_what_once_leaves():
    """Those that do not have to be left out are named here, so that a new one is thought about."""
    once = {call.verb for call in calls.AGENT_CALLS.values() if not call.repeats}
    assert once == {
        "relate", "close_memory", "delete", "delete_session", "delete_memory", "delete_concept",
        "unrelate", "archive", "enforce_limits", "emergency_cleanup", "restore", "reclaim",
        "forget", "clear",
    }  # fmt: skip


@pytest.mark.parametrize("retryable", [True, False])
def test_whether_to_ask_again_comes_along_with_an_error(retryable):
    """A server that cannot be reached may be there again; a path that is a file will not be."""
    error = elytron.Unavailable("the ledger's server is away", retryable=retryable)
    found = error_of(problems.body(error))
    assert type(found) is elytron.Unavailable
    assert (str(found), found.retryable) == (str(error), retryable)
