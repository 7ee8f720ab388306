"""The chat store for LlamaIndex: beside the one that LlamaIndex has, and in its `Memory`."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.base.llms.types import (
    ChatMessage,
    ImageBlock,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.memory import Memory
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

import elytron
from elytron.adapters.llamaindex import ElytronChatStore
from programs import ROOT, documented, run_program

ACTIVE, ARCHIVED = MessageStatus.ACTIVE, MessageStatus.ARCHIVED
MESSAGES = [
    ChatMessage(role="user", content="I am Alice and I live in Lyon."),
    ChatMessage(role="assistant", content="Hello Alice."),
    ChatMessage(role="user", content=""),
    ChatMessage(role="assistant", content=None),
    ChatMessage(role="model", content="a role that Elytron does not have"),
    ChatMessage(role="user", content="a NUL \0 in it"),
    ChatMessage(role="tool", content="21 degrees", additional_kwargs={"tool_call_id": "call_1"}),
    ChatMessage(
        role="assistant",
        blocks=[
            TextBlock(text="Two"),
            TextBlock(text="parts"),
            ToolCallBlock(tool_call_id="call_1", tool_name="weather", tool_kwargs={"city": "Lyon"}),
        ],
    ),
    ChatMessage(
        role="user",
        blocks=[TextBlock(text="And this picture?"), ImageBlock(image=b"\x89PNG\r\n\x1a\n0")],
    ),
]


def told(message: ChatMessage | None) -> Any:
    return None if message is None else message.model_dump(mode="json")


def test_every_kind_of_message_comes_back_equal_and_in_order(
    bob: elytron.Agent, open_store: Callable[..., elytron.Store]
) -> None:
    async def use() -> None:
        chats = ElytronChatStore(bob)
        await chats.add_messages("web", MESSAGES)
        for message in MESSAGES:
            await chats.add_message("web", message)
        reopened = ElytronChatStore(open_store().agent("Bob"))
        for found in (await chats.get_messages("web"), await reopened.get_messages("web")):
            assert [told(one) for one in found] == [told(one) for one in MESSAGES * 2]

    asyncio.run(use())
    assert bob.recall("picture")[0].message.content == "And this picture?"
    assert bob.recall("weather Lyon", role="assistant")[0].message.content.startswith("Two\nparts")


def test_a_message_that_was_edited_comes_back_with_its_new_text(bob: elytron.Agent) -> None:
    async def use() -> None:
        chats = ElytronChatStore(bob)
        await chats.add_messages("web", MESSAGES)
        for message in bob.history("web"):
            bob.edit(message.id, f"edited {message.position}")
        found = await chats.get_messages("web")
        assert [one.content for one in found] == [f"edited {n}" for n in range(len(MESSAGES))]
        tool, calls, picture = found[6:]
        assert (tool.role, tool.additional_kwargs) == ("tool", {"tool_call_id": "call_1"})
        assert told(calls) == told(ChatMessage(role="assistant", content="edited 7"))
        assert picture.blocks[1:] == MESSAGES[8].blocks[1:]

    asyncio.run(use())


KEYS = st.sampled_from(["web", "phone"])
STATUS = st.sampled_from([ACTIVE, ARCHIVED])
SOME = st.lists(st.integers(0, len(MESSAGES) - 1), max_size=4)
STEPS = st.one_of(
    st.tuples(st.just("add"), KEYS, SOME.filter(bool), STATUS),
    st.tuples(st.just("set"), KEYS, SOME, STATUS),
    st.tuples(st.just("delete"), KEYS, st.none() | STATUS),
    st.tuples(st.just("delete_oldest"), KEYS, st.integers(0, 4)),
    st.tuples(st.just("archive_oldest"), KEYS, st.integers(0, 4)),
    st.tuples(st.just("get"), KEYS, st.none() | STATUS, st.none() | st.integers(0, 4), st.none()),
    st.tuples(st.just("get"), KEYS, st.none() | STATUS, st.integers(0, 4), st.integers(0, 3)),
)


async def carry_out(chats: AsyncDBChatStore, step: Any) -> Any:
    what, key, *rest = step
    if what in ("add", "set"):
        numbers, status = rest
        verb = chats.add_messages if what == "add" else chats.set_messages
        return await verb(key, [MESSAGES[number] for number in numbers], status)
    if what == "delete":
        return await chats.delete_messages(key, rest[0])
    if what == "delete_oldest":
        return [told(one) for one in await chats.delete_oldest_messages(key, rest[0])]
    if what == "archive_oldest":
        return [told(one) for one in await chats.archive_oldest_messages(key, rest[0])]
    return [told(one) for one in await chats.get_messages(key, *rest)]


@settings(max_examples=40)
@given(steps=st.lists(STEPS, max_size=10))
def test_whatever_is_done_gives_what_the_store_of_llamaindex_gives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    async def use(ours: AsyncDBChatStore, theirs: SQLAlchemyChatStore) -> None:
        for step in steps:
            assert await carry_out(ours, step) == await carry_out(theirs, step), step
            for key in ("web", "phone"):
                for status in (None, ACTIVE, ARCHIVED):
                    assert await ours.count_messages(key, status) == await theirs.count_messages(
                        key, status
                    )
        assert sorted(await ours.get_keys()) == sorted(await theirs.get_keys())
        _, _ = await theirs._initialize()
        assert theirs._async_engine is not None
        await theirs._async_engine.dispose()

    with elytron.open(tmp_path_factory.mktemp("store")) as opened:
        asyncio.run(use(ElytronChatStore(opened.agent("Bob")), SQLAlchemyChatStore("chats")))


def test_one_message_is_removed_by_its_place(bob: elytron.Agent) -> None:
    async def use() -> None:
        chats = ElytronChatStore(bob)
        await chats.add_messages("web", MESSAGES[:3])
        assert told(await chats.delete_message("web", 1)) == told(MESSAGES[1])
        assert await chats.delete_message("web", 2) is None
        assert await chats.delete_message("web", -1) is None
        assert await chats.delete_message("nobody", 0) is None
        assert [told(one) for one in await chats.get_messages("web")] == [
            told(MESSAGES[0]),
            told(MESSAGES[2]),
        ]

    asyncio.run(use())


def test_active_messages_stay_at_a_limit_and_archived_ones_leave(bob: elytron.Agent) -> None:
    async def use() -> None:
        chats = ElytronChatStore(bob)
        await chats.add_messages("web", [ChatMessage(content=f"old {n}") for n in range(4)])
        await chats.add_messages("web", [ChatMessage(content=f"new {n}") for n in range(2)])
        assert len(await chats.archive_oldest_messages("web", 4)) == 4
        bob.archive(older_than_days=0, keep=0)
        assert [one.content for one in await chats.get_messages("web", None)] == ["new 0", "new 1"]
        bob.restore(session="web")
        assert await chats.count_messages("web", ARCHIVED) == 4
        bob.archive(older_than_days=0, keep=0)
        await chats.delete_messages("web", ARCHIVED)
        assert bob.restore(session="web").restored == 0
        assert await chats.count_messages("web", None) == 2

    asyncio.run(use())


def test_more_active_messages_than_may_be_held_are_refused(
    open_store: Callable[..., elytron.Store],
) -> None:
    async def use() -> None:
        chats = ElytronChatStore(open_store(max_messages_per_agent=20).agent("Bob"))
        await chats.add_messages("web", [ChatMessage(content=str(n)) for n in range(20)])
        with pytest.raises(elytron.OverBudget):
            await chats.add_message("web", ChatMessage(content="one more"))
        assert await chats.count_messages("web") == 20
        await chats.archive_oldest_messages("web", 10)
        await chats.add_message("web", ChatMessage(content="one more"))

    asyncio.run(use())


def test_a_message_that_is_too_long_is_refused_with_all_of_its_call(bob: elytron.Agent) -> None:
    async def use() -> None:
        chats = ElytronChatStore(bob)
        await chats.add_message("web", MESSAGES[0])
        for verb in (chats.add_messages, chats.set_messages):
            with pytest.raises(elytron.InvalidArgument, match="max_message_kb"):
                await verb("web", [MESSAGES[1], ChatMessage(content="x" * 300_000)])
        assert [told(one) for one in await chats.get_messages("web")] == [told(MESSAGES[0])]

    asyncio.run(use())


def test_adding_at_the_same_time_loses_nothing(bob: elytron.Agent) -> None:
    async def use() -> None:
        chats = ElytronChatStore(bob)
        await asyncio.gather(
            *[
                chats.add_messages("web", [ChatMessage(content=f"{n} {part}") for part in range(3)])
                for n in range(50)
            ]
        )
        found = [str(one.content).split() for one in await chats.get_messages("web")]
        assert len(found) == 150
        for at in range(0, 150, 3):
            assert [part for _, part in found[at : at + 3]] == ["0", "1", "2"]
            assert len({n for n, _ in found[at : at + 3]}) == 1
        gone = await asyncio.gather(*[chats.delete_oldest_messages("web", 10) for _ in range(8)])
        told_gone = [one.content for part in gone for one in part]
        assert len(told_gone) == len(set(told_gone))
        assert await chats.count_messages("web") == 150 - len(told_gone)

    asyncio.run(use())


def test_in_a_memory_the_oldest_messages_become_archived_ones(bob: elytron.Agent) -> None:
    """The same in a memory on our store and in one on LlamaIndex's own."""

    async def talk(chats: AsyncDBChatStore) -> tuple[list[Any], list[Any]]:
        memory = Memory.from_defaults(
            session_id="web",
            chat_store=chats,
            token_limit=60,
            token_flush_size=20,
            chat_history_token_ratio=0.5,
            tokenizer_fn=str.split,
        )
        for turn in range(12):
            await memory.aput(ChatMessage(role="user", content=f"question {turn} " + "word " * 3))
            await memory.aput(ChatMessage(role="assistant", content=f"answer {turn}"))
        shown = [told(one) for one in await memory.aget()]
        return shown, [told(one) for one in await chats.get_messages("web", ARCHIVED)]

    async def both() -> None:
        theirs = SQLAlchemyChatStore("chats")
        expected = await talk(theirs)
        assert theirs._async_engine is not None
        await theirs._async_engine.dispose()
        assert await talk(ElytronChatStore(bob)) == expected
        assert expected[1], "some were archived"

    asyncio.run(both())


def test_what_is_dumped_of_it_says_whose_memory_it_is_and_nothing_of_it(
    bob: elytron.Agent,
) -> None:
    chats = ElytronChatStore(bob)
    asyncio.run(chats.add_message("web", MESSAGES[0]))
    assert chats.model_dump() == {"agent": "Bob"}
    assert "Lyon" not in repr(chats)
    assert ElytronChatStore.class_name() == "ElytronChatStore"


def test_the_example_shows_that_a_conversation_outlives_its_program(tmp_path: Path) -> None:
    printed = run_program(str(ROOT / "examples" / "llamaindex.py"), cwd=tmp_path)
    assert "What did I say? -> You began with: I am Alice and I live in Lyon." in printed
    assert "4 messages" in printed


def test_the_documented_program_works_as_printed(tmp_path: Path) -> None:
    assert "Lyon" in run_program("-c", documented("LlamaIndex"), cwd=tmp_path)
