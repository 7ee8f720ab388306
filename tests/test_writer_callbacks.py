"""Callbacks of futures that a store settles, where its pool has one thread for them."""

from concurrent.futures import Future
from typing import Any

import pytest

from elytron.write import queue
from ledgers import lock_held
from writing import WAIT_S, Bench, Item


@pytest.fixture
def few(open_store):
    """Two agents of a store with one thread for what is submitted."""
    store = open_store(writer_threads=1, link_concepts=False)
    for name in ("bob", "eve"):
        store.agent(name).save("user", "Hello")
    return store.agent("bob"), store.agent("eve")


def told(future, work) -> "Future[Any]":
    """What comes of *work* in a callback of *future*."""
    outcome: Future[Any] = Future()

    def callback(_settled: object) -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks the future
            outcome.set_exception(error)

    future.add_done_callback(callback)
    return outcome


def test_a_callback_saves_to_an_agent_that_waits_for_the_callbacks_own_thread(few, folder):
    bob, eve = few
    with lock_held(folder):
        replied = told(bob.submit("user", "Question"), lambda: eve.save("user", "Reply"))
        waiting = eve.submit("user", "Before it")
    assert replied.result(WAIT_S).new
    assert waiting.result(WAIT_S).new
    assert [message.content for message in eve.history()] == ["Hello", "Before it", "Reply"]


def test_each_callback_of_a_batch_may_flush(few, folder):
    bob, _eve = few
    with lock_held(folder):
        futures = [bob.submit("user", f"Message {n}", id=f"m{n}") for n in range(40)]
        flushed = [told(future, bob.flush) for future in futures]
    for one in flushed:
        one.result(WAIT_S)
    assert all(future.result(WAIT_S).new for future in futures)


def test_a_callback_may_submit_and_wait_for_it_by_flush(few, folder):
    bob, eve = few

    def more() -> list[str]:
        eve.submit("user", "From the callback")
        bob.submit("user", "From the callback")
        eve.flush()
        bob.flush()
        return [agent.history()[-1].content for agent in (bob, eve)]

    with lock_held(folder):
        done = told(bob.submit("user", "First"), more)
    assert done.result(WAIT_S) == ["From the callback"] * 2


def test_a_callback_that_ends_its_thread_keeps_no_other_from_being_told(few, folder):
    bob, _eve = few

    def leave(_future: object) -> None:
        raise SystemExit

    with lock_held(folder):
        futures = [bob.submit("user", f"Message {n}") for n in range(6)]
        for future in futures:
            future.add_done_callback(leave)
    assert all(future.result(WAIT_S).new for future in futures)
    bob.flush()


def test_a_callback_writes_though_the_queue_is_full():
    """What fills it may be settled by the callback's own thread, and only after it."""
    b = Bench(items_max=1)
    other = queue.Item(Item("other"), 0.0, None)

    def reply() -> Any:
        b.quota.take(other, 0.0)
        try:
            return b.writer.call(Item("reply"))
        finally:
            b.quota.give_back([other])

    replied = told(b.writer.submit(Item("question")), reply)
    b.disk.gate.set()
    assert replied.result(WAIT_S) == "reply"
