"""The async face: the same verbs, and no write out of sight."""

import asyncio
import contextlib
import gc
import inspect
import threading
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import elytron
import elytron.aio
from elytron import open_agents
from elytron.aio import AsyncAgent, AsyncStore
from ledgers import lock_held

WAIT_S = 60


def verbs(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and inspect.isfunction(member)
    }


@pytest.mark.parametrize(
    ("plain", "asynchronous"), [(elytron.Agent, AsyncAgent), (elytron.Store, AsyncStore)]
)
def test_both_faces_have_the_same_verbs_with_the_same_signatures(
    plain: type, asynchronous: type
) -> None:
    ours, theirs = verbs(plain), verbs(asynchronous)
    assert ours.keys() == theirs.keys()
    for name, signature in ours.items():
        assert list(signature.parameters.values()) == list(theirs[name].parameters.values()), name


def test_open_takes_the_same_arguments_on_both_faces() -> None:
    assert list(inspect.signature(elytron.open).parameters.values()) == list(
        inspect.signature(elytron.aio.open).parameters.values()
    )


def test_every_verb_does_what_its_twin_does(folder: Path, tmp_path: Path) -> None:
    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            bob = store.agent("bob")
            assert await bob.exists() is False
            assert await bob.history() == []
            receipt = await bob.save("user", "I live in Lyon", session="s", user="alice")
            assert receipt.new
            await bob.save_many([{"role": "assistant", "content": "Noted", "session": "s"}])
            future = await bob.submit("user", "My cat is called Pixel", id="cat")
            assert (await asyncio.wrap_future(future)).id == "cat"
            await bob.flush()
            await bob.edit("cat", "My cat is called Vector")
            cat = await bob.get("cat")
            assert cat is not None
            assert cat.content == "My cat is called Vector"
            assert [m.content for m in await bob.history("s")] == ["I live in Lyon", "Noted"]
            assert {session.id for session in await bob.sessions()} == {"s", "default"}
            assert (await bob.recall("where does alice live?"))[0].message.id == receipt.id
            assert "Lyon" in (await bob.context("who lives in Lyon?")).text
            assert (await bob.usage()).messages == 3
            assert [m.id async for m in bob.messages()] == [
                m.id for m in await bob.history(limit=10)
            ]
            assert await bob.export(tmp_path / "out.jsonl") == 3
            assert (
                await bob.import_([{"role": "user", "content": "more", "id": "m"}])
            ).imported == 1
            assert await bob.reindex() == 4
            assert await bob.delete("cat") is True
            assert await bob.delete_session("s") == 2
            assert await store.agents() == ["bob"]
            assert (await store.usage()).agents[0].messages == 1
            assert store.path == folder
            assert store.config.queue_max == 10_000

    asyncio.run(use())


def _by_length(texts: Any, _kind: str) -> list[list[float]]:
    return [[1.0, float(len(text))] for text in texts]


def test_vectors_are_made_and_found_by_as_on_the_other_face(folder: Path) -> None:
    """What is forwarded: the function of `open`, `embed=`, `kinds`, `at`, progress."""
    told: list[tuple[int, int]] = []

    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            await store.agent("bob").save("user", "Zebras are striped animals", id="before")
        async with elytron.aio.open(folder, embedder=_by_length) as store:
            bob = store.agent("bob")
            declined = await bob.save("user", "Zebras graze in the evening", embed=False)
            assert declined.embedding == "declined"
            await bob.save("user", "Zebras sleep while standing", id="now")
            ended = datetime(2026, 3, 2, tzinfo=UTC)
            await bob.remember("The zebra lives in Lyon", id="then", valid_to=ended)
            await bob.flush()
            report = await bob.embed(on_progress=lambda done, total: told.append((done, total)))
            assert report.agent == "bob"
            assert (report.embedded + report.shared, report.left_out) == (1, {"declined": 1})
            assert told[-1] == (4, 4)
            anew = await bob.reembed()
            assert (anew.embedded + anew.shared, anew.held) == (3, 0)
            of_messages = await bob.recall("zebra", kinds=["message"])
            assert {hit.kind for hit in of_messages} == {"message"}
            earlier = datetime(2026, 3, 1, tzinfo=UTC)
            (then,) = await bob.recall("zebra", kinds=["memory"], at=earlier)
            assert then.message.id == "then"
            assert await bob.recall("zebra", kinds=["memory"]) == []
            packed = await bob.context("zebra", kinds=["memory"], at=earlier)
            assert [hit.message.id for hit in packed.hits] == ["then"]

    asyncio.run(use())


def test_flush_waits_for_no_call_that_may_need_its_own_thread(folder: Path) -> None:
    """Method: one thread, and a call that is made between the flush and its turn."""
    let_go = threading.Event()

    async def use() -> None:
        async with elytron.aio.open(folder, async_threads=1) as store:
            bob = store.agent("bob")
            await bob.save("user", "Hello")
            tasks = [
                asyncio.create_task(store._call(lambda: let_go.wait(WAIT_S))),
                asyncio.create_task(bob.flush()),
                asyncio.create_task(bob.save_many([{"role": "user", "content": "Later"}])),
            ]
            await asyncio.sleep(0)
            let_go.set()
            await asyncio.gather(*tasks)

    asyncio.run(use())


def test_flush_waits_for_what_a_cancelled_save_has_yet_to_queue(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Method: the save has not queued its message before the flush has begun to wait, and nothing is
    committed before the flush waits for just that, or does not.
    """
    entered, let_go = threading.Event(), threading.Event()
    queued: list[Future[elytron.Receipt]] = []
    done: list[bool] = []

    async def use() -> None:
        async with elytron.aio.open(folder, async_threads=2) as store:
            bob, agents = store.agent("bob"), store._store._agents
            await bob.save("user", "Hello")
            submit, link, lock = bob._agent.submit, agents.link, contextlib.ExitStack()

            def submit_late(*arguments: Any, **options: Any) -> "Future[elytron.Receipt]":
                entered.set()
                assert let_go.wait(WAIT_S)
                queued.append(submit(*arguments, **options))
                return queued[-1]

            def wait_for(futures: Any, timeout: float) -> Any:
                let_go.set()
                if set(queued) & set(futures):
                    lock.close()
                return wait(futures, timeout)

            def link_then(*arguments: Any, **options: Any) -> None:
                done.extend([future.done() for future in queued])
                lock.close()
                link(*arguments, **options)

            monkeypatch.setattr(bob._agent, "submit", submit_late)
            monkeypatch.setattr(agents, "link", link_then)
            monkeypatch.setattr(open_agents, "wait", wait_for)
            lock.enter_context(lock_held(folder))
            saving = asyncio.create_task(bob.save("user", "A long one. " * 1000))
            while not entered.is_set():
                await asyncio.sleep(0)
            saving.cancel()
            await bob.flush()
            assert done == [True]

    asyncio.run(use())


def test_a_close_that_is_cancelled_ends_the_threads_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, let_go = threading.Event(), threading.Event()

    async def use() -> None:
        store = elytron.aio.open(folder)
        await store.agent("bob").save("user", "Hello")
        close = store._store.close

        def close_late() -> None:
            entered.set()
            assert let_go.wait(WAIT_S)
            close()

        monkeypatch.setattr(store._store, "close", close_late)
        closing = asyncio.create_task(store.close())
        while not entered.is_set():
            await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        threads = {kind: named(kind) for kind in ("elytron-close", "elytron-async")}
        assert all(threads.values())
        let_go.set()
        for thread in threads["elytron-close"]:
            thread.join(WAIT_S)
        assert not named("elytron-async")

    asyncio.run(use())


def named(kind: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(kind)]


def test_a_cancelled_embed_goes_on_and_close_waits_for_it(folder: Path) -> None:
    """Method: the embedder holds the call until its awaiting was cancelled."""
    entered, let_go = threading.Event(), threading.Event()

    def slow(texts: Any, kind: str) -> list[list[float]]:
        entered.set()
        assert let_go.wait(WAIT_S)
        return _by_length(texts, kind)

    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            await store.agent("bob").save("user", "Zebras are striped animals")
        async with elytron.aio.open(folder, embedder=slow) as store:
            bob = store.agent("bob")
            embedding = asyncio.create_task(bob.embed())
            while not entered.is_set():
                await asyncio.sleep(0)
            embedding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await embedding
            let_go.set()
            await bob.flush()
            assert (await bob.usage()).embedded == 1

    asyncio.run(use())


def test_a_cancelled_save_is_committed_all_the_same(folder: Path) -> None:
    """
    Method: another connection holds the agent's lock file, so the save cannot end before the
    task is cancelled.
    """

    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            bob = store.agent("bob")
            await bob.save("user", "first")
            with lock_held(folder):
                saving = asyncio.create_task(bob.save("user", "second", id="second"))
                while not (await store.usage()).queued:
                    await asyncio.sleep(0)
                saving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await saving
            await bob.flush()
            held = await bob.get("second")
            assert held is not None
            assert held.content == "second"

    asyncio.run(use())


def test_cancelled_calls_that_waited_for_a_thread_are_done_all_the_same(folder: Path) -> None:
    """
    Method: the one thread of the pool counts tokens until it is let go; behind it wait a
    `save_many`, and a `save` for which an agent has to be opened. Both are cancelled.
    """
    entered, let_go = threading.Event(), threading.Event()

    def slow(_text: str) -> int:
        entered.set()
        assert let_go.wait(WAIT_S)
        return 1

    async def use() -> None:
        async with elytron.aio.open(folder, async_threads=1) as store:
            bob, eve = store.agent("bob"), store.agent("eve")
            await bob.save("user", "hello")
            blocking = asyncio.create_task(bob.context("hello", count_tokens=slow))
            while not entered.is_set():
                await asyncio.sleep(0)
            many = asyncio.create_task(
                bob.save_many([{"role": "user", "content": "many", "id": "many"}])
            )
            new = asyncio.create_task(eve.save("user", "new", id="new"))
            await asyncio.sleep(0)
            for task in (many, new):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            let_go.set()
            await blocking
            await bob.flush()
            await eve.flush()
            assert await bob.get("many") is not None
            assert await eve.get("new") is not None

    asyncio.run(use())


def test_a_cancelled_write_that_fails_is_no_complaint_of_asyncio(folder: Path) -> None:
    """Method: as above; the write that waits is an edit of what is not there."""
    complaints: list[object] = []
    entered, let_go = threading.Event(), threading.Event()

    def slow(_text: str) -> int:
        entered.set()
        assert let_go.wait(WAIT_S)
        return 1

    async def use() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        async with elytron.aio.open(folder, async_threads=1) as store:
            bob = store.agent("bob")
            await bob.save("user", "hello")
            blocking = asyncio.create_task(bob.context("hello", count_tokens=slow))
            while not entered.is_set():
                await asyncio.sleep(0)
            editing = asyncio.create_task(bob.edit("nothing", "hello"))
            await asyncio.sleep(0)
            editing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await editing
            let_go.set()
            await blocking
        del editing
        gc.collect()

    asyncio.run(use())
    assert not complaints


def test_closing_waits_for_writes_that_nobody_awaits_any_more(folder: Path) -> None:
    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            bob = store.agent("bob")
            for number in range(200):
                await bob.submit("user", f"message {number}", id=f"m{number}")

    asyncio.run(use())
    with elytron.open(folder) as store:
        assert [m.id for m in store.agent("bob").messages()] == [f"m{n}" for n in range(200)]


def test_many_tasks_save_at_once_and_none_is_lost(folder: Path) -> None:
    async def use() -> set[str]:
        async with elytron.aio.open(folder) as store:
            bob = store.agent("bob")
            receipts = await asyncio.gather(
                *(bob.save("user", f"message {number}") for number in range(300))
            )
            held = {m.id for m in await bob.history(limit=1000)}
            assert held == {receipt.id for receipt in receipts}
            return held

    assert len(asyncio.run(use())) == 300


def test_what_admission_refuses_is_raised_at_once(folder: Path) -> None:
    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            with pytest.raises(elytron.InvalidArgument):
                await store.agent("bob").submit("nobody", "x")
            with pytest.raises(elytron.InvalidArgument):
                await store.agent("bob").save("user", "")

    asyncio.run(use())
    assert not folder.exists()


def test_a_full_queue_makes_tasks_wait_and_not_the_loop(folder: Path) -> None:
    """Method: a quota of one message, of which none is committed while the loop goes round."""

    async def use() -> None:
        async with elytron.aio.open(folder, queue_max=1) as store:
            bob = store.agent("bob")
            await bob.save("user", "message 0")
            with lock_held(folder):
                saves = [bob.save("user", f"message {n}") for n in range(1, 10)]
                saving = [asyncio.create_task(save) for save in saves]
                for _ in range(100):
                    await asyncio.sleep(0)
                assert not any(task.done() for task in saving)
            await asyncio.gather(*saving)
            assert (await bob.usage()).messages == 10

    asyncio.run(use())


def test_nothing_is_left_running_after_close(folder: Path) -> None:
    before = set(threading.enumerate())

    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            bob = store.agent("bob")
            await bob.save("user", "hello")
            await bob.history()
        await store.close()  # twice is harmless
        with pytest.raises(elytron.Closed):
            await store.agent("bob").save("user", "too late")
        with pytest.raises(elytron.Closed):
            await store.agents()
        with pytest.raises(elytron.Closed):
            await bob.history()

    asyncio.run(use())
    assert set(threading.enumerate()) <= before


def test_reads_do_not_use_the_default_pool(folder: Path) -> None:
    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            bob = store.agent("bob")
            await bob.save("user", "hello")
            names: list[str] = []

            def note(_text: Any) -> int:
                names.append(threading.current_thread().name)
                return 1

            await bob.context("hello", count_tokens=note)
            assert names
            assert all(name.startswith("elytron-async") for name in names)

    asyncio.run(use())
