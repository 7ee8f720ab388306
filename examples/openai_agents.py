"""
The OpenAI Agents SDK with its conversation in Elytron.

Needs `pip install . openai-agents`, in the project's folder. A made-up model takes the place of a
real one, so that this runs without a key and without a network.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

import elytron
from elytron.adapters.openai_agents import ElytronSession


class Parrot(Model):
    """Answers with what the user said first."""

    async def get_response(
        self, system_instructions: Any, input: Any, *args: Any, **more: Any
    ) -> ModelResponse:
        said = [item["content"] for item in input if item.get("role") == "user"]
        text = ResponseOutputText(
            type="output_text", text=f"You began with: {said[0]}", annotations=[], logprobs=[]
        )
        message = ResponseOutputMessage(
            id=f"msg_{len(input)}",
            type="message",
            role="assistant",
            status="completed",
            content=[text],
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **more: Any) -> AsyncIterator[Any]:
        raise NotImplementedError("this model does not stream")


async def ask(folder: Path, question: str) -> None:
    with elytron.open(folder) as store:
        bob = store.agent("Bob")
        session = ElytronSession("web-42", bob)
        result = await Runner.run(
            Agent(name="Bob", model=Parrot()),
            question,
            session=session,
            run_config=RunConfig(tracing_disabled=True),
        )
        print(f"{question} -> {result.final_output}")
        hits = bob.recall("where does Alice live?")
        print(f"  {len(await session.get_items())} items; recall: {hits[0].message.content!r}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(ask(Path(folder), "I am Alice and I live in Lyon."))
        # As after a restart: the store was closed, and is opened anew.
        asyncio.run(ask(Path(folder), "What did I say?"))
