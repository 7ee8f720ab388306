"""
Verbs: a route for each, made from the table that the client reads too.

Each takes its arguments as a JSON object, makes one call on the store, and answers with the verb's
record as the command line's `--json` prints it. All are POST, since questions and messages do not
belong into URLs, which proxies and browsers write down; the agent's name is a query parameter,
since there are names that no path can carry, as `..` and `a/b`.
"""

from collections.abc import Iterator
from typing import Any

from anyio.to_thread import run_sync
from starlette.responses import Response, StreamingResponse

from elytron.aio import AsyncStore
from elytron.faces import graph_values
from elytron.faces.http import asked as requests
from elytron.faces.http import descriptions, streams
from elytron.faces.http.asked import Asked
from elytron.faces.http.routes import Answer, Route
from elytron.graph import wire
from elytron.ledger.files import check_name
from elytron.remote import calls
from elytron.remote.calls import AGENT_CALLS, STORE_CALLS, Call

_INLINE_BYTES = 65_536  # a longer body is read on a thread


def routes(store: AsyncStore) -> Iterator[Route]:
    """Those of *store*'s verbs, but for the ones that flow."""
    for call in (*AGENT_CALLS.values(), *STORE_CALLS.values()):
        answer = _of_store(call, store) if call.of_store else _of_agent(call, store)
        described = descriptions.of(call)
        yield Route(call.path, answer, described=described, writes=call.writes)


def _of_agent(call: Call, store: AsyncStore) -> Answer:
    async def answer(asked: Asked) -> Response:
        name = asked.agent(asked.parameters("agent"), writes=call.writes)
        packed = call.verb == "cypher" and asked.sends(requests.MSGPACK)
        arguments = await _arguments(call, asked, packed=packed)
        verb = getattr(store.agent(name), call.verb)
        if call.long and asked.accepts(requests.NDJSON):
            return StreamingResponse(
                streams.progressing(verb, arguments), media_type=requests.NDJSON
            )
        value = await verb(**arguments)
        if call.verb == "cypher":
            return await _rows(asked, value)
        return Response(await requests.encoded_aside(value), media_type=requests.JSON)

    return answer


def _of_store(call: Call, store: AsyncStore) -> Answer:
    async def answer(asked: Asked) -> Response:
        known = asked.parameters(*(["agent"] if call.named else []))
        names = call.verb == "agents"
        named = {}
        if call.named:
            named[call.named] = asked.agent(known, writes=call.writes)
        elif not names:
            asked.check(None, writes=call.writes)
        arguments = await _arguments(call, asked, packed=False) | named
        if call.beside:
            asked.check(check_name(arguments[call.beside]), writes=call.writes)
        verb = getattr(store, call.verb)
        if call.long and asked.accepts(requests.NDJSON):
            return StreamingResponse(
                streams.progressing(verb, arguments), media_type=requests.NDJSON
            )
        value = await verb(**arguments)
        if names:  # whoever asks is told of those that the token is for
            value = [agent for agent in value if asked.access.allows(agent, writes=False)]
        return Response(await requests.encoded_aside(value), media_type=requests.JSON)

    return answer


async def _rows(asked: Asked, rows: list[dict[str, Any]]) -> Response:
    """What a question to the graph found: as JSON, or with every type kept."""
    if asked.accepts(requests.MSGPACK):
        data = await run_sync(wire.pack_values, rows, limiter=requests.ASIDE)
        return Response(data, media_type=requests.MSGPACK)
    value = await requests.encoded_aside(graph_values.plain(rows))
    return Response(value, media_type=requests.JSON)


async def _arguments(call: Call, asked: Asked, *, packed: bool) -> dict[str, Any]:
    """
    The keyword arguments that a request's body holds; an empty one holds none.

    Raises:
        InvalidArgument: it is not JSON, or not these.
    """
    data = await asked.body()
    if data and not packed and not asked.sends(requests.JSON):
        raise asked.refuse_kind(requests.JSON)
    if packed:
        return calls.checked(call, wire.unpack_values(data))
    if len(data) > _INLINE_BYTES:
        return await run_sync(calls.read, call, data, limiter=requests.ASIDE)
    return calls.read(call, data or b"{}")
