"""
Clicks on the dashboard of which the later is answered first: what was asked for last is shown.

In a process of its own, without a browser: the pages' own handlers on a real store, each of whose
answers waits until it is let go.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

import elytron

_START = """
    import asyncio, logging, sys
    from urllib.parse import urlencode
    import httpx
    from fastapi import FastAPI
    import elytron, elytron.aio
    from elytron.aio import AsyncAgent
    from elytron.faces.dashboard import Bounds, attach
    from elytron.faces.dashboard import cleanup, concepts, conversations, recalling
    logging.disable()
    WAIT_MAX_S = 30

    def noted(kind):
        "The views of this kind that pages make."
        views, begin = [], kind.__init__
        def begun(self, *given):
            begin(self, *given)
            views.append(self)
        kind.__init__ = begun
        return views

    def late(verb):
        "For each call of a verb from now on what lets its answer go."
        asked, answer = asyncio.Queue(), getattr(AsyncAgent, verb)
        async def answered(self, *given, **named):
            letting_go = asyncio.Event()
            asked.put_nowait(letting_go)
            found = await answer(self, *given, **named)
            await letting_go.wait()
            return found
        setattr(AsyncAgent, verb, answered)
        return asked

    async def click(view, asked, *clicks):
        "Do so much at once; what was asked for last is answered first."
        tasks = [asyncio.ensure_future(view._shown.act(*one)) for one in clicks]
        gates = [await asked.get() for _ in clicks]
        for task, gate in reversed(list(zip(tasks, gates))):
            gate.set()
            await task

    def said(element, which="said"):
        return [one.text for one in element.descendants() if which in one.classes]

    async def shown(path, do, **bounds):
        async with elytron.aio.open(sys.argv[1]) as store:
            app = FastAPI()
            attach(app, store, tokens=None, bounds=Bounds(**bounds))
            transport = httpx.ASGITransport(app=app)
            async with (
                asyncio.timeout(WAIT_MAX_S),
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
            ):
                assert (await client.get(f"{path}?{urlencode({'name': 'Bob'})}")).status_code == 200
                await do()
"""


@pytest.fixture
def filled(folder: Path, open_store: Callable[..., elytron.Store]) -> Path:
    """A store with an agent who has two conversations, and three of one message."""
    with open_store() as store:
        bob = store.agent("Bob")
        for session in ("c", "d", "e"):
            bob.save("user", f"Alone in {session}", session=session)
        for session in ("a", "b"):
            bob.save_many(
                {"role": "user", "content": f"{session}{n} in Lyon", "session": session}
                for n in range(6)
            )
        bob.relate("Alice", "lives in", "Lyon")
        bob.relate("Carol", "likes", "tea")
        bob.flush()
    return folder


def test_older_messages_are_shown_in_their_own_conversation_and_once(
    run_script: Callable[..., str], filled: Path
) -> None:
    printed = run_script(
        _START
        + """
    views = noted(conversations._Conversations)

    async def main():
        (view,) = views
        asked = late("history")
        older_of_a, older_of_b = (view._show_older, "a"), (view._show_older, "b")
        await click(view, asked, (view._open, "b"))
        await click(view, asked, older_of_b, (view._open, "a"))
        print(said(view._talk))
        await click(view, asked, older_of_a, older_of_a)
        print(said(view._talk))
        await click(view, asked, (view._open, "b"), (view._open, "a"))
        print(said(view._talk))
        await click(view, asked, older_of_a)
        await click(view, asked, older_of_a, older_of_a)
        print(said(view._talk), said(view._older, "button"))

    asyncio.run(shown("/conversations", main, messages_step=2))
    """,
        filled,
    )
    a = [f"a{n} in Lyon" for n in range(6)]
    assert printed.splitlines() == [str(a[4:]), str(a[2:]), str(a[4:]), f"{a} []"]


def test_conversations_that_a_second_click_asked_for_stay_listed(
    run_script: Callable[..., str], filled: Path
) -> None:
    printed = run_script(
        _START
        + """
    views = noted(conversations._Conversations)

    async def main():
        (view,) = views
        asked = late("sessions")
        await click(view, asked, (view._show_more,), (view._show_more,))
        print(len(said(view._list, "entry")), said(view._list, "quiet"))

    asyncio.run(shown("/conversations", main, sessions_step=1))
    """,
        filled,
    )
    assert printed == "3 ['Show more']\n"


def test_the_hits_are_those_of_the_question_asked_last(
    run_script: Callable[..., str], filled: Path
) -> None:
    printed = run_script(
        _START
        + """
    views = noted(recalling._Recall)

    async def main():
        (view,) = views
        asked = late("recall")
        await click(view, asked, (view._ask, "Lyon", False), (view._ask, "alone", False))
        print(sorted(said(view._found)))

    asyncio.run(shown("/recall", main))
    """,
        filled,
    )
    assert printed == "['Alone in c', 'Alone in d', 'Alone in e']\n"


def test_the_concept_and_the_names_are_those_asked_for_last(
    run_script: Callable[..., str], filled: Path
) -> None:
    printed = run_script(
        _START
        + """
    views = noted(concepts._Concepts)

    async def main():
        (view,) = views
        asked = late("concept")
        await click(view, asked, (view._open, "nobody"), (view._open, "Alice"))
        print(said(view._head, "name"))
        asked = late("concepts")
        await click(view, asked, (view._fill, "ali"), (view._fill, "tea"))
        print(said(view._list, "name"))

    asyncio.run(shown("/concepts", main))
    """,
        filled,
    )
    assert printed == "['Alice']\n['tea']\n"


def test_the_plan_is_of_what_was_asked_for_last(
    run_script: Callable[..., str], filled: Path
) -> None:
    printed = run_script(
        _START
        + """
    views = noted(cleanup._Plan)

    async def look(view, keep):
        view._prepare = lambda: cleanup._archive(view._shown, 0, keep)
        await view.look()

    async def main():
        _, view = views
        asked = late("archive")
        await click(view, asked, (look, view, 3), (look, view, 13))
        print([text for text in said(view._place, "button") if "Archive" in text])

    asyncio.run(shown("/cleanup", main))
    """,
        filled,
    )
    assert printed == "['Archive 2 messages now']\n"
