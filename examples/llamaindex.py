"""
LlamaIndex with its chat history in Elytron.

Needs `pip install . llama-index-core`, in the project's folder. A made-up model takes the place
of a real one, so that this runs without a key and without a network.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import CustomLLM, LLMMetadata
from llama_index.core.memory import Memory

import elytron
from elytron.adapters.llamaindex import ElytronChatStore


class Parrot(CustomLLM):
    """Answers with what the user said first."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        said = [message.content for message in messages if message.role == "user"]
        answer = ChatMessage(role="assistant", content=f"You began with: {said[0]}")
        return ChatResponse(message=answer)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise NotImplementedError("this model only chats")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError("this model does not stream")


async def ask(folder: Path, question: str) -> None:
    with elytron.open(folder) as store:
        bob = store.agent("Bob")
        memory = Memory.from_defaults(
            session_id="web-42", chat_store=ElytronChatStore(bob), tokenizer_fn=str.split
        )
        engine = SimpleChatEngine.from_defaults(llm=Parrot(), memory=memory)
        print(f"{question} -> {await engine.achat(question)}")
        hits = bob.recall("where does Alice live?")
        print(f"  {len(bob.history('web-42'))} messages; recall: {hits[0].message.content!r}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(ask(Path(folder), "I am Alice and I live in Lyon."))
        # As after a restart: the store was closed, and is opened anew.
        asyncio.run(ask(Path(folder), "What did I say?"))
