"""
Stdio: one client over stdin and stdout, until it ends.

That is when stdin ends, when a signal asks for it, and when the process that began it is gone even
though something still holds its end of the pipe. Requests under way are answered first.
"""

import logging
import os
import signal
import sys

import anyio

from elytron.faces.mcp.server import Face
from elytron.faces.mcp.tools import Profile
from elytron.faces.mcp.wire import Conversation, Wire

PARENT_CHECK_S = 0.5

_log = logging.getLogger("elytron.mcp")


def serve_stdio(profile: Profile, wire: Wire) -> None:
    """Serve until the client ends. A SIGTERM that comes later does not disturb the closing."""
    anyio.run(_serve, profile, wire)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


async def _serve(profile: Profile, wire: Wire) -> None:
    server = Face(profile).server()
    conversation = Conversation(wire)
    async with anyio.create_task_group() as tasks:
        if sys.platform != "win32":  # there a pipe ends with the process that held it
            tasks.start_soon(_end_on_signals, conversation)
            tasks.start_soon(_end_with_parent, conversation, wire.parent)
        async with conversation.streams() as (requests, answers):
            await server.run(requests, answers, server.create_initialization_options())
        tasks.cancel_scope.cancel()


async def _end_on_signals(conversation: Conversation) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            _log.info("ending, as %s asks", number.name)
            conversation.end()


async def _end_with_parent(conversation: Conversation, parent: int) -> None:
    """Looked at instead of asked for, as a signal would also come when a mere thread ends."""
    while os.getppid() == parent:
        await anyio.sleep(PARENT_CHECK_S)
    _log.info("ending, as the process that began this one is gone")
    conversation.end()
