"""The memory service for Google ADK: beside ADK's own, and in a run with its tools."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from google.adk.events.event import Event
from google.adk.memory.base_memory_service import BaseMemoryService
from google.adk.memory.in_memory_memory_service import InMemoryMemoryService
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions.session import Session
from google.genai import types

import elytron
import elytron.aio
from elytron.adapters.google_adk import ElytronMemoryService
from elytron.faces.http.app import create_app
from programs import ROOT, documented, run_program

ALICE = {"app_name": "demo", "user_id": "alice"}
WHEN = 1_790_000_000.25


def event(id: str, text: str | None = None, *, role: str = "user", **more: Any) -> Event:
    parts = more.pop("parts", None) or ([] if text is None else [types.Part(text=text)])
    return Event(
        id=id,
        author=more.pop("author", "user" if role == "user" else "weather_agent"),
        content=types.Content(role=role, parts=parts),
        timestamp=more.pop("timestamp", WHEN),
        **more,
    )


def session(*events: Event, id: str = "s1", app: str = "demo", user: str = "alice") -> Session:
    return Session(id=id, app_name=app, user_id=user, events=list(events))


async def found(service: BaseMemoryService, query: str, **who: Any) -> list[MemoryEntry]:
    return (await service.search_memory(**{**ALICE, **who, "query": query})).memories


def texts(entries: list[MemoryEntry]) -> list[str]:
    return [part.text or "" for entry in entries for part in entry.content.parts or []]


@pytest.fixture
def service(store: elytron.Store) -> ElytronMemoryService:
    return ElytronMemoryService(store)


@pytest.fixture
def far(folder: Path) -> Iterator[ElytronMemoryService]:
    """In a store that another thread serves, by what ADK brings of a server."""
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        async with elytron.aio.open(folder) as store:
            app = create_app(store, hosts=["127.0.0.1"])
            config = uvicorn.Config(app, http="h11", ws="none", log_level="critical")
            servers.append(uvicorn.Server(config))
            await servers[0].serve(sockets=[listening])

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            with elytron.connect(f"http://127.0.0.1:{listening.getsockname()[1]}") as store:
                yield ElytronMemoryService(store)
        finally:
            servers[0].should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def test_what_was_said_is_found_with_who_said_it_and_when(service: ElytronMemoryService) -> None:
    async def use() -> None:
        await service.add_session_to_memory(
            session(event("1", "I live in Lyon"), event("2", "It is sunny in Lyon", role="model"))
        )
        one, two = sorted(await found(service, "Lyon"), key=lambda entry: str(entry.id))
        assert (one.author, one.content.role) == ("user", "user")
        assert (two.author, two.content.role) == ("weather_agent", "model")
        assert one.timestamp == "2026-09-21T14:13:20.250000+00:00"
        assert texts([one, two]) == ["I live in Lyon", "It is sunny in Lyon"]

    asyncio.run(use())


def test_it_finds_what_the_service_of_adk_finds(service: ElytronMemoryService) -> None:
    """Ours may find more: a message counts for something if the ones around it have the words."""

    async def use(tried: BaseMemoryService) -> list[Any]:
        seen = []
        first = [event("1", "I live in Lyon"), event("2", "I have a cat"), event("3")]
        await tried.add_session_to_memory(session(*first))
        await tried.add_session_to_memory(session(*first, event("4", "The cat is called Pixel")))
        await tried.add_session_to_memory(session(event("5", "Bob hates Lyon"), user="bob"))
        await tried.add_session_to_memory(session(event("6", "Lyon again"), app="other"))
        await tried.add_session_to_memory(session(event("7", "The cat eats"), id="s2"))
        more = [event("8", "A cat and Lyon"), event("7", "The cat eats")]
        for _ in range(2):
            await tried.add_events_to_memory(**ALICE, events=more, session_id="s2")
        await tried.add_events_to_memory(**ALICE, events=[event("9", "A loose cat")])
        for who in (ALICE, {**ALICE, "user_id": "bob"}, {**ALICE, "app_name": "other"}):
            for query in ("Lyon", "cat", "zeppelin", "", "cat Pixel"):
                seen.append(sorted(texts(await found(tried, query, **who))))
        pixel = (await found(tried, "Pixel"))[0]
        await tried.delete_memory(**ALICE, memory_id=pixel.id)
        await tried.delete_memory(**ALICE, memory_id="nothing")
        await tried.delete_memory(**ALICE)
        await tried.add_session_to_memory(session(*first, event("4", "The cat is called Pixel")))
        seen.append(sorted(texts(await found(tried, "cat"))))
        return seen

    expected = asyncio.run(use(InMemoryMemoryService()))
    ours = asyncio.run(use(service))
    of_alice = {text for seen in ours[:5] for text in seen}
    for one, other in zip(ours, expected, strict=True):
        assert len(set(one)) == len(one)
        assert set(one) >= set(other)
        assert bool(one) == bool(other)
    assert (ours[5], ours[10]) == (["Bob hates Lyon"], ["Lyon again"])
    assert not of_alice & {"Bob hates Lyon", "Lyon again"}
    assert "Pixel" not in str(ours[-1])


PARTS: list[list[Any]] = [
    [types.Part(text="two"), types.Part(text="parts about pizza")],
    [
        types.Part(text="pizza picture"),
        types.Part(inline_data=types.Blob(mime_type="image/png", data=b"\x89PNG\xff\x00")),
    ],
    [
        types.Part(text="pizza call"),
        types.Part(function_call=types.FunctionCall(id="c1", name="bake", args={"n": 1.5})),
    ],
    [types.Part(text="pizza thought", thought=True)],
    [types.Part(text="pizza with NUL \0 in it")],
]


def test_every_kind_of_content_comes_back_equal(
    service: ElytronMemoryService, open_store: Callable[..., elytron.Store]
) -> None:
    async def use() -> None:
        events = [event(str(n), parts=parts, role="model") for n, parts in enumerate(PARTS)]
        await service.add_session_to_memory(session(*events))
        again = ElytronMemoryService(open_store())
        for one in (service, again):
            entries = sorted(await found(one, "pizza"), key=lambda entry: str(entry.id))
            assert [entry.content for entry in entries] == [event.content for event in events]

    asyncio.run(use())


def test_events_without_a_text_are_left_out(service: ElytronMemoryService) -> None:
    async def use() -> None:
        call = types.Part(function_call=types.FunctionCall(name="bake", args={}))
        await service.add_session_to_memory(
            session(event("1"), event("2", " \n"), event("3", parts=[call]), Event(author="user"))
        )
        assert not service.agent_of("demo", "alice").exists()

    asyncio.run(use())


def test_odd_names_are_never_one_user(service: ElytronMemoryService) -> None:
    async def use() -> None:
        pairs = [("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c"), ("A", "b/c"), ("a", "b"), ("a ", "b")]
        for app, user in pairs:
            await service.add_session_to_memory(
                session(event("1", f"pizza of {[app, user]}"), app=app, user=user)
            )
        for app, user in pairs:
            entries = await found(service, "pizza", app_name=app, user_id=user)
            assert texts(entries) == [f"pizza of {[app, user]}"]

    asyncio.run(use())


def test_odd_ids_of_sessions_and_events_are_held_once(service: ElytronMemoryService) -> None:
    async def use() -> None:
        for _ in range(2):
            for odd in ("x" * 300, "a\nb", "a/b", " "):
                await service.add_events_to_memory(
                    **ALICE, events=[event(odd, f"pizza {odd!r:.5}")]
                )
        assert len(await found(service, "pizza")) == 4

    asyncio.run(use())


def test_an_event_that_has_changed_is_refused(service: ElytronMemoryService) -> None:
    async def use() -> None:
        await service.add_session_to_memory(session(event("1", "I live in Lyon")))
        with pytest.raises(elytron.InvalidArgument, match="other content") as caught:
            await service.add_session_to_memory(session(event("1", "I live in Paris")))
        assert "Paris" not in str(caught.value)
        assert texts(await found(service, "live")) == ["I live in Lyon"]

    asyncio.run(use())


def test_events_are_held_in_a_store_far_away_and_those_that_cannot_be_are_named(
    far: ElytronMemoryService,
) -> None:
    async def use() -> None:
        await far.add_session_to_memory(session(event("1", "I live in Lyon")))
        whole = session(
            event("1", "I live in Paris"),
            event("2", "pizza " * 100_000),
            event("3", "I have a cat"),
        )
        with pytest.raises(elytron.InvalidArgument, match="2 events were not held") as caught:
            await far.add_session_to_memory(whole)
        assert "'s1/1': " in str(caught.value)
        assert "'s1/2': " in str(caught.value)
        assert sorted(texts(await found(far, "Lyon cat"))) == ["I have a cat", "I live in Lyon"]

    asyncio.run(use())


def test_an_event_that_cannot_be_held_keeps_no_other_out(service: ElytronMemoryService) -> None:
    async def use() -> None:
        whole = session(
            event("1", "I live in Lyon"),
            event("2", "pizza " * 100_000),
            event("3", "I like olives", timestamp=1e18),
            event("4", "I have a cat"),
        )
        for _ in range(2):
            with pytest.raises(elytron.InvalidArgument, match="2 events were not held") as caught:
                await service.add_session_to_memory(whole)
            assert "max_message_kb" in str(caught.value)
            assert "timestamp" in str(caught.value)
            assert "pizza" not in str(caught.value)
        held = texts(await found(service, "Lyon cat"))
        assert sorted(held) == ["I have a cat", "I live in Lyon"]

    asyncio.run(use())


def test_an_event_that_is_too_long_with_its_picture_is_held_with_its_words(
    service: ElytronMemoryService,
) -> None:
    async def use() -> None:
        picture = types.Blob(mime_type="image/png", data=b"x" * 300_000)
        deep: Any = {}
        for _ in range(120):
            deep = {"in": deep}
        bake = types.FunctionCall(name="bake", args=deep)
        answer = types.FunctionResponse(name="bake", response={"no JSON": object()})
        whole = session(
            event("1", parts=[types.Part(text="my cat"), types.Part(inline_data=picture)]),
            event("2", parts=[types.Part(text="my dog"), types.Part(function_call=bake)]),
            event("3", "I live in Lyon"),
            event("4", parts=[types.Part(text="my fish"), types.Part(function_response=answer)]),
        )
        for _ in range(2):
            await service.add_session_to_memory(whole)
        assert sorted(texts(await found(service, "cat dog fish Lyon"))) == [
            "I live in Lyon",
            "my cat",
            "my dog",
            "my fish",
        ]

    asyncio.run(use())


def test_a_message_that_was_edited_stays_so_when_its_session_is_added_again(
    service: ElytronMemoryService,
) -> None:
    """An event with more than a text shows that it is the same; of another it is told once."""

    async def use() -> None:
        call = types.Part(function_call=types.FunctionCall(id="c1", name="bake", args={"n": 1}))
        first = [event("1", parts=[types.Part(text="Lyon it is"), call]), event("2", "my cat")]
        await service.add_session_to_memory(session(*first))
        alice = service.agent_of("demo", "alice")
        alice.edit("s1/1", "Paris it is")
        await service.add_session_to_memory(session(*first))
        alice.edit("s1/2", "my dog")
        more = [*first, event("3", "my fish")]
        with pytest.raises(elytron.InvalidArgument, match="s1/2"):
            await service.add_session_to_memory(session(*more))
        await service.add_session_to_memory(session(*more))
        assert [one.content for one in alice.history("s1")] == ["Paris it is", "my dog", "my fish"]

    asyncio.run(use())


def test_what_was_edited_is_found_with_its_new_words(service: ElytronMemoryService) -> None:
    async def use() -> None:
        picture = types.Part(inline_data=types.Blob(mime_type="image/png", data=b"x"))
        lives = [types.Part(text="I live in Lyon"), picture]
        both = [types.Part(text="a cat"), types.Part(text="a dog")]
        await service.add_session_to_memory(
            session(event("1", parts=lives, role="model"), event("2", parts=both))
        )
        likes = types.Content(role="user", parts=[types.Part(text="Alice likes pizza"), picture])
        await service.add_memory(**ALICE, memories=[MemoryEntry(id="m1", content=likes)])
        alice = service.agent_of("demo", "alice")
        alice.edit("s1/1", "I live in Paris")
        alice.edit("s1/2", "a cat")
        alice.edit_memory("m1", "Alice likes sushi")
        entries = {entry.id: entry for entry in await found(service, "Paris sushi cat")}
        place, animal, food = entries["s1/1"], entries["s1/2"], entries["m1"]
        assert place.content.role == "model"
        assert place.content.parts == [types.Part(text="I live in Paris"), picture]
        assert food.content.parts == [types.Part(text="Alice likes sushi"), picture]
        assert animal.content.parts == [types.Part(text="a cat")]

    asyncio.run(use())


def test_memories_are_added_found_and_deleted(service: ElytronMemoryService) -> None:
    async def use() -> None:
        def of(text: str, **more: Any) -> MemoryEntry:
            return MemoryEntry(content=types.Content(parts=[types.Part(text=text)]), **more)

        given = of("Alice likes pizza", id="m1", author="bob", custom_metadata={"of": "test"})
        await service.add_memory(
            **ALICE,
            memories=[given, of("Alice likes olives", timestamp="yesterday")],
            custom_metadata={"of": "all", "by": "us"},
        )
        entries = {texts([entry])[0]: entry for entry in await found(service, "Alice likes")}
        pizza, olives = entries["Alice likes pizza"], entries["Alice likes olives"]
        assert (pizza.id, pizza.author) == ("m1", "bob")
        assert pizza.custom_metadata == {"of": "test", "by": "us"}
        assert pizza.content == given.content
        assert pizza.timestamp
        assert (olives.timestamp, olives.custom_metadata) == (
            "yesterday",
            {"of": "all", "by": "us"},
        )
        await service.delete_memory(**ALICE, memory_id=olives.id)
        assert texts(await found(service, "likes")) == ["Alice likes pizza"]
        assert await found(service, "likes", user_id="bob") == []
        with pytest.raises(elytron.InvalidArgument, match="not JSON"):
            await service.add_memory(**ALICE, memories=[of("bad")], custom_metadata={"bad": {1, 2}})

    asyncio.run(use())


def test_what_was_remembered_by_other_means_is_found_too(service: ElytronMemoryService) -> None:
    alice = service.agent_of("demo", "alice")
    alice.remember("Alice prefers Python", about=["Alice"])
    alice.save("user", "Python is fun", user="alice")
    entries = asyncio.run(found(service, "Python"))
    assert sorted(texts(entries)) == ["Alice prefers Python", "Python is fun"]


def test_what_was_deleted_from_the_archive_does_not_come_back(
    service: ElytronMemoryService,
) -> None:
    async def use() -> None:
        whole = session(event("1", "I live in Lyon"), event("2", "I have a cat"))
        await service.add_session_to_memory(whole)
        alice = service.agent_of("demo", "alice")
        alice.archive(older_than_days=0, keep=0)
        await service.add_session_to_memory(whole)
        assert await found(service, "Lyon") == []
        await service.delete_memory(**ALICE, memory_id="s1/1")
        await service.add_session_to_memory(whole)
        alice.restore(session="s1")
        assert texts(await found(service, "Lyon cat")) == ["I have a cat"]
        assert alice.usage().memories == 1
        await service.delete_memory(**ALICE, memory_id="nothing")
        assert alice.usage().memories == 1

    asyncio.run(use())


def test_a_long_question_is_asked_by_its_beginning(service: ElytronMemoryService) -> None:
    async def use() -> None:
        await service.add_session_to_memory(session(event("1", "I live in Lyon")))
        assert texts(await found(service, "Lyon " + "x" * 50_000)) == ["I live in Lyon"]

    asyncio.run(use())


def test_at_most_so_many_are_found(store: elytron.Store) -> None:
    async def use() -> None:
        service = ElytronMemoryService(store, limit=3)
        events = [event(str(n), f"pizza number {n}") for n in range(1200)]
        await service.add_session_to_memory(session(*events))
        assert len(await found(service, "pizza")) == 3
        assert service.agent_of("demo", "alice").usage().messages == 1200

    asyncio.run(use())


def test_adding_a_session_at_the_same_time_adds_it_once(service: ElytronMemoryService) -> None:
    async def use() -> None:
        whole = session(*[event(str(n), f"pizza number {n}") for n in range(50)])
        await asyncio.gather(*[service.add_session_to_memory(whole) for _ in range(10)])
        assert service.agent_of("demo", "alice").usage().messages == 50

    asyncio.run(use())


def test_an_asynchronous_store_is_refused_with_the_way_out(folder: Path) -> None:
    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            with pytest.raises(elytron.InvalidArgument, match=r"elytron\.open"):
                ElytronMemoryService(store)  # type: ignore[arg-type]

    asyncio.run(use())


def test_the_example_shows_that_the_memory_outlives_its_program(tmp_path: Path) -> None:
    printed = run_program(str(ROOT / "examples" / "google_adk.py"), cwd=tmp_path)
    assert "Where does Alice live? -> user: I am Alice and I live in Lyon." in printed


def test_the_documented_program_works_as_printed(tmp_path: Path) -> None:
    assert "Lyon" in run_program("-c", documented("Google ADK"), cwd=tmp_path)
