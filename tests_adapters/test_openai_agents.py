"""The session of the OpenAI Agents SDK: what was added comes back, equal and in order."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from agents import (
    Agent,
    Model,
    ModelResponse,
    RunConfig,
    Runner,
    SQLiteSession,
    Usage,
    function_tool,
)
from agents.memory import Session, SessionSettings
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

import elytron
import elytron.aio
from elytron.adapters.openai_agents import ElytronSession
from programs import ROOT, documented, run_program

PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}
ITEMS: list[Any] = [
    {"role": "user", "content": "What is the weather in Lyon?"},
    {"content": "Answer briefly.", "role": "developer"},
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "And on this picture?"},
            PICTURE,
        ],
    },
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xyz"},
    {
        "type": "function_call",
        "call_id": "call_1",
        "name": "get_weather",
        "arguments": '{"city":"Lyon"}',
        "id": "fc_1",
        "status": "completed",
    },
    {"type": "function_call_output", "call_id": "call_1", "output": "Sunny, 21 degrees"},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [
            {"type": "output_text", "text": "It is sunny.", "annotations": [], "logprobs": []}
        ],
    },
    {"role": "user", "content": ""},
    {"role": "user", "content": " \n"},
    {"role": "user", "content": "a NUL \0 and half a pair \ud800"},
    {"role": "critic", "content": "a role that nobody knows"},
    {"type": "unheard_of", "numbers": [1, -2.5, 1e300, 10**40, 0.1 + 0.2], "none": None},
    {"type": "unheard_of", "deep": {"a": [[[{"b": True}]]]}, "": "an empty name"},
    {},
]


def test_it_is_a_session_for_the_sdk(bob: elytron.Agent) -> None:
    assert isinstance(ElytronSession("s", bob), Session)


def test_every_kind_of_item_comes_back_equal_and_in_order(bob: elytron.Agent) -> None:
    async def use() -> None:
        session = ElytronSession("s", bob)
        await session.add_items(ITEMS)
        assert await session.get_items() == ITEMS
        for item in ITEMS:
            await session.add_items([item])
        assert await session.get_items() == ITEMS + ITEMS

    asyncio.run(use())


def test_it_does_what_the_session_of_the_sdk_does(bob: elytron.Agent) -> None:
    async def use(session: Session) -> list[Any]:
        seen: list[Any] = [await session.get_items(), await session.pop_item()]
        await session.clear_session()
        await session.add_items([])
        await session.add_items(ITEMS[:5])
        for limit in (None, 0, 1, 3, 5, 6, -1):
            seen.append(await session.get_items(limit))
        seen.append(await session.pop_item())
        await session.add_items(ITEMS[5:7])
        seen.append(await session.get_items())
        seen.append([await session.pop_item() for _ in range(8)])
        await session.add_items(ITEMS)
        await session.clear_session()
        seen.append(await session.get_items())
        await session.add_items(ITEMS[:2])
        seen.append(await session.get_items())
        return seen

    theirs = SQLiteSession("s")
    expected = asyncio.run(use(theirs))
    theirs.close()
    assert asyncio.run(use(ElytronSession("s", bob))) == expected


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "type", "content", "text", "output"]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(["role", "type", "content"]) | st.text(), _JSON)))
def test_whatever_json_can_say_comes_back_equal(
    bob: elytron.Agent, added: list[dict[str, Any]]
) -> None:
    async def use() -> None:
        session = ElytronSession("s", bob)
        await session.clear_session()
        await session.add_items(added)  # type: ignore[arg-type]
        found = await session.get_items()
        assert found == added
        for item, given_item in zip(found, added, strict=True):
            if item.keys() != {"role", "content"}:
                assert list(item) == list(given_item), "names keep their order"

    asyncio.run(use())


def test_what_is_not_a_number_comes_back_as_such(bob: elytron.Agent) -> None:
    async def use() -> None:
        session = ElytronSession("s", bob)
        await session.add_items([{"type": "odd", "score": float("nan")}])  # type: ignore[list-item]
        (item,) = await session.get_items()
        assert str(item) == "{'type': 'odd', 'score': nan}"

    asyncio.run(use())


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"role": "user", "content": {1, 2}}, "not JSON"),
        ({"type": "huge", "n": 10**5000}, "not JSON"),
        ({"type": "huge", "output": "x" * 300_000}, "max_message_kb"),
        ({"role": "user", "content": "x" * 300_000}, "max_message_kb"),
    ],
)
def test_an_item_that_cannot_be_held_is_refused_with_all_of_its_call(
    bob: elytron.Agent, item: Any, why: str
) -> None:
    deep: Any = []
    for _ in range(2000):
        deep = [deep]

    async def use() -> None:
        session = ElytronSession("s", bob)
        await session.add_items([ITEMS[0]])
        for bad in (item, {"type": "deep", "output": deep}):
            with pytest.raises(elytron.InvalidArgument) as caught:
                await session.add_items([ITEMS[1], bad])
            assert "xxx" not in str(caught.value)
            if bad is item:
                assert why in str(caught.value)
        assert await session.get_items() == [ITEMS[0]]

    asyncio.run(use())


def test_long_items_are_held_whole_and_found_by_their_beginning(bob: elytron.Agent) -> None:
    item: Any = {"type": "function_call_output", "call_id": "c", "output": "Pixel " + "é" * 100_000}

    async def use() -> None:
        session = ElytronSession("s", bob)
        await session.add_items([item])
        assert await session.get_items() == [item]

    asyncio.run(use())
    assert bob.recall("Pixel")[0].message.role == "tool"


def test_items_are_found_by_their_words(bob: elytron.Agent) -> None:
    asyncio.run(ElytronSession("s", bob).add_items(ITEMS))
    (hit, *_) = bob.recall("sunny degrees")
    assert (hit.message.role, hit.message.content) == ("tool", "Sunny, 21 degrees")
    assert bob.recall("picture")[0].message.content == "And on this picture?"
    assert bob.recall("get_weather")[0].message.role == "assistant"


def test_messages_saved_by_other_means_are_items_too(bob: elytron.Agent) -> None:
    bob.save("user", "hello", session="s")
    bob.save("tool", "done", session="s", metadata={"call": 1})
    found = asyncio.run(ElytronSession("s", bob).get_items())
    assert found == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "done"}]


def test_an_item_that_was_edited_comes_back_with_its_new_text(bob: elytron.Agent) -> None:
    async def use() -> None:
        session = ElytronSession("s", bob)
        await session.add_items(ITEMS)
        for message in bob.history("s", limit=100):
            bob.edit(message.id, f"edited {message.position}")
        items: list[Any] = await session.get_items()
        assert items[0] == {"role": "user", "content": "edited 0"}
        assert items[2]["content"] == [{**ITEMS[2]["content"][0], "text": "edited 2"}, PICTURE]
        assert items[4] == {"role": "assistant", "content": "edited 4"}  # a call has several texts
        assert items[5] == {**ITEMS[5], "output": "edited 5"}
        assert items[6]["id"] == "msg_1"
        assert items[6]["content"][0]["text"] == "edited 6"
        assert all(f"edited {n}" in str(item) for n, item in enumerate(items))

    asyncio.run(use())


def test_sessions_do_not_see_each_other(bob: elytron.Agent, store: elytron.Store) -> None:
    async def use() -> None:
        one, two = ElytronSession("one", bob), ElytronSession("two", bob)
        other = ElytronSession("one", store.agent("Carol"))
        await one.add_items(ITEMS[:2])
        await two.add_items(ITEMS[2:3])
        assert await other.get_items() == []
        await two.clear_session()
        assert await one.get_items() == ITEMS[:2]

    asyncio.run(use())


def test_the_limit_of_the_settings_holds_where_none_is_asked_for(bob: elytron.Agent) -> None:
    async def use() -> None:
        session = ElytronSession("s", bob, session_settings=SessionSettings(limit=2))
        await session.add_items(ITEMS[:5])
        assert await session.get_items() == ITEMS[3:5]
        assert await session.get_items(4) == ITEMS[1:5]

    asyncio.run(use())


def test_long_conversations_are_read_whole(bob: elytron.Agent) -> None:
    added: list[Any] = [{"role": "user", "content": f"number {n}"} for n in range(1201)]

    async def use() -> None:
        session = ElytronSession("s", bob)
        await session.add_items(added)
        assert await session.get_items() == added
        assert await session.get_items(700) == added[-700:]

    asyncio.run(use())


def test_adding_at_the_same_time_keeps_each_call_together_and_in_order(
    bob: elytron.Agent, open_store: Callable[..., elytron.Store]
) -> None:
    """Twenty tasks add five calls of three items each; reopened, they are the same."""

    async def add() -> list[Any]:
        session = ElytronSession("s", bob)

        async def one(task: int) -> None:
            for call in range(5):
                await session.add_items(
                    [{"type": "part", "of": [task, call, part]} for part in range(3)]  # type: ignore[list-item]
                )

        await asyncio.gather(*[one(task) for task in range(20)])
        return await session.get_items()

    found = asyncio.run(add())
    places = [item["of"] for item in found]
    assert len(places) == 300
    for at in range(0, 300, 3):
        task, call, _ = places[at]
        assert places[at : at + 3] == [[task, call, part] for part in range(3)]
    for task in range(20):
        calls = [call for of, call, part in places if of == task and part == 0]
        assert calls == [0, 1, 2, 3, 4]
    reopened = ElytronSession("s", open_store().agent("Bob"))
    assert asyncio.run(reopened.get_items()) == found


def test_of_two_who_pop_at_once_each_gets_another_item(bob: elytron.Agent) -> None:
    added: list[Any] = [{"role": "user", "content": f"number {n}"} for n in range(40)]

    async def use() -> None:
        session = ElytronSession("s", bob)
        await session.add_items(added)
        popped = await asyncio.gather(*[session.pop_item() for _ in range(45)])
        held = [item for item in popped if item is not None]
        assert sorted(item["content"] for item in held) == sorted(  # type: ignore[typeddict-item]
            item["content"] for item in added
        )

    asyncio.run(use())


def test_what_was_archived_is_gone_from_the_items_until_it_is_restored(
    bob: elytron.Agent,
) -> None:
    added: list[Any] = [{"type": "part", "of": n} for n in range(6)]

    async def use() -> None:
        session = ElytronSession("s", bob)
        await session.add_items(added)
        bob.archive(older_than_days=0, keep=2)
        assert await session.get_items() == added[4:]
        bob.restore(session="s")
        assert await session.get_items() == added
        bob.archive(older_than_days=0, keep=2)
        await session.clear_session()
        assert bob.restore(session="s").restored == 0
        assert await session.get_items() == []

    asyncio.run(use())


def test_an_asynchronous_agent_is_refused_with_the_way_out(folder: Path) -> None:
    async def use() -> None:
        async with elytron.aio.open(folder) as store:
            with pytest.raises(elytron.InvalidArgument, match=r"elytron\.open"):
                ElytronSession("s", store.agent("Bob"))  # type: ignore[arg-type]

    asyncio.run(use())


class Scripted(Model):
    """Says what it was told to, one answer a turn, and keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[list[Any]] = []

    async def get_response(
        self, system_instructions: Any, input: Any, *args: Any, **more: Any
    ) -> ModelResponse:
        self.asked.append(list(input))
        return ModelResponse(output=[self.answers.pop(0)], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **more: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


def says(text: str) -> ResponseOutputMessage:
    part = ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])
    return ResponseOutputMessage(
        id="msg", type="message", role="assistant", status="completed", content=[part]
    )


def test_a_run_with_tools_goes_on_where_the_last_one_ended(bob: elytron.Agent) -> None:
    """The same conversation in our session and in one of the SDK gives the same items."""

    @function_tool
    def weather(city: str) -> str:
        return f"sunny in {city}"

    call = ResponseFunctionToolCall(
        type="function_call", call_id="c1", name="weather", arguments='{"city": "Lyon"}', id="fc1"
    )

    async def talk(session: Session) -> tuple[list[Any], list[Any]]:
        model = Scripted(call, says("It is sunny."), says("You asked about Lyon."))
        agent = Agent(name="Bob", model=model, tools=[weather])
        silent = RunConfig(tracing_disabled=True)
        await Runner.run(agent, "Weather in Lyon?", session=session, run_config=silent)
        await Runner.run(agent, "What did I ask?", session=session, run_config=silent)
        return await session.get_items(), model.asked[-1]

    theirs = SQLiteSession("s")
    expected = asyncio.run(talk(theirs))
    theirs.close()
    assert asyncio.run(talk(ElytronSession("s", bob))) == expected
    assert len(expected[1]) == 5
    assert bob.recall("sunny in Lyon")[0].message.role == "tool"


def test_a_forked_process_has_threads_of_its_own(folder: Path, bob: elytron.Agent) -> None:
    asyncio.run(ElytronSession("s", bob).add_items(ITEMS[:1]))
    program = f"""
import asyncio, os, elytron
from elytron.adapters.openai_agents import ElytronSession
def items():
    with elytron.open({str(folder)!r}) as store:
        return asyncio.run(ElytronSession("s", store.agent("Bob")).get_items())
first = items()
child = os.fork()
if not child:
    os._exit(0 if items() == first else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0


def test_the_example_shows_that_a_conversation_outlives_its_program(tmp_path: Path) -> None:
    printed = run_program(str(ROOT / "examples" / "openai_agents.py"), cwd=tmp_path)
    assert "What did I say? -> You began with: I am Alice and I live in Lyon." in printed
    assert "4 items" in printed


def test_the_documented_program_works_as_printed(tmp_path: Path) -> None:
    printed = run_program("-c", documented("OpenAI Agents"), cwd=tmp_path)
    assert "Lyon" in printed
