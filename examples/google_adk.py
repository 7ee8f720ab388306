"""
Google ADK with its long-term memory in Elytron.

Needs `pip install . google-adk`, in the project's folder. A made-up model takes the place of a
real one, so that this runs without a key and without a network.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.adk.tools.preload_memory_tool import PreloadMemoryTool
from google.genai import types

import elytron
from elytron.adapters.google_adk import ElytronMemoryService


class Parrot(BaseLlm):
    """Answers with what the memory brought to the question."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        texts = [part.text or "" for one in llm_request.contents for part in one.parts or []]
        known = [line for line in "\n".join(texts).splitlines() if line.startswith("user: ")]
        answer = known[0] if known else "Nice to meet you."
        yield LlmResponse(
            content=types.Content(role="model", parts=[types.Part(text=answer)]),
            usage_metadata=types.GenerateContentResponseUsageMetadata(total_token_count=1),
        )


async def ask(folder: Path, question: str) -> None:
    with elytron.open(folder) as store:
        memory = ElytronMemoryService(store)
        sessions = InMemorySessionService()  # forgets; the memory does not
        runner = Runner(
            app_name="demo",
            agent=LlmAgent(name="bob", model=Parrot(model="parrot"), tools=[PreloadMemoryTool()]),
            session_service=sessions,
            memory_service=memory,
        )
        session = await sessions.create_session(app_name="demo", user_id="alice")
        message = types.Content(role="user", parts=[types.Part(text=question)])
        async for event in runner.run_async(
            user_id="alice", session_id=session.id, new_message=message
        ):
            if event.content and event.content.parts:
                print(f"{question} -> {event.content.parts[0].text}")
        ended = await sessions.get_session(app_name="demo", user_id="alice", session_id=session.id)
        assert ended is not None
        await memory.add_session_to_memory(ended)
        print(f"  {store.agents()}: {memory.agent_of('demo', 'alice').usage().messages} messages")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(ask(Path(folder), "I am Alice and I live in Lyon."))
        # As after a restart: the store was closed, and is opened anew.
        asyncio.run(ask(Path(folder), "Where does Alice live?"))
