"""
Server: a profile's tools, offered by the protocol's own library.

Each call runs on a thread, a bounded number at a time. What goes wrong comes back as a tool's
error, in words that a model can act on; nothing of what was said reaches a log.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp.shared.exceptions import MCPError

import elytron
from elytron.errors import AccessDenied, ElytronError
from elytron.faces.mcp.tools import Answer, Checker, Document, MemoryTool, Profile

THREADS_MAX = 8  # calls at work at once; others wait for their turn
SUBSCRIBERS_MAX = 1000  # sessions that are told of changes; beyond, the oldest is not any more
TELL_MAX_S = 1.0  # for telling one of a change; then it is not told any more
_ERROR_META = "elytron/error"

_log = logging.getLogger("elytron.mcp")
_T = TypeVar("_T")
Context = Any  # the library's, of one request
MayChange = Callable[[Context], bool]


def anyone_may_change(_ctx: Context) -> bool:
    """Where there are no tokens: who can start the server can do anything with it."""
    return True


class Face:
    """Answers the requests of all sessions of one server."""

    def __init__(self, profile: Profile, *, may_change: MayChange = anyone_may_change) -> None:
        """
        Args:
            may_change: whether whoever sent a request may change anything.
        """
        self._profile = profile
        self._may_change = may_change
        self._tools = {tool.name: tool for tool in profile.tools}
        self._checkers = {tool.name: Checker(tool) for tool in profile.tools}
        self._threads = anyio.CapacityLimiter(THREADS_MAX)
        self._turn = anyio.Lock()  # whoever asked first is first
        self._subscribers: dict[str, ServerSession] = {}
        self._bus = InMemorySubscriptionBus()
        self._listening = ListenHandler(self._bus, max_subscriptions=SUBSCRIBERS_MAX)

    def server(self) -> "Server[dict[str, Any]]":
        """The protocol's own server with these answers, to be run over any transport."""
        document: dict[str, Any] = {}
        if self._profile.document is not None:
            document = {
                "on_list_resources": self.list_resources,
                "on_list_resource_templates": self.list_templates,
                "on_read_resource": self.read_resource,
                "on_subscribe_resource": self.subscribe,
                "on_unsubscribe_resource": self.unsubscribe,
                "on_subscriptions_listen": self._listening,
            }
        return Server(
            "elytron",
            version=elytron.__version__,
            title="Elytron",
            instructions=self._profile.instructions,
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            **document,
        )

    def end(self) -> None:
        """End what would go on for ever: the answers to those who listen for changes."""
        self._listening.close()

    # -- tools

    async def list_tools(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """Those that whoever asks may call, all on one page."""
        _check_first_page(params)
        may_change = self._may_change(ctx)
        offered = [_listed(tool) for tool in self._profile.tools if tool.reads or may_change]
        return types.ListToolsResult(tools=offered)

    async def call_tool(
        self, ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = self._tools.get(params.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name:.100}")
        try:
            if not tool.reads and not self._may_change(ctx):
                raise AccessDenied(f"this token may only read, and `{tool.name}` changes something")
            arguments = params.arguments or {}
            self._checkers[tool.name].check(arguments)
            answer = await self._run(tool, arguments)
        except ElytronError as error:
            return _failed(error.code, str(error), retryable=error.retryable)
        except Exception as error:  # noqa: BLE001 - told to its caller, and without any text logged
            told = f"{_unexpected(tool.name, error)}; whether it was done is unknown"
            return _failed(ElytronError.code, told, retryable=False)
        if not tool.reads and self._profile.document is not None:
            await self._tell_of_change(self._profile.document.uri)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=answer.text)],
            structured_content=dict(answer.data),
        )

    async def _run(self, tool: MemoryTool, arguments: Mapping[str, Any]) -> Answer:
        call = partial(tool.run, arguments)
        if self._profile.in_order and not tool.reads:
            async with self._turn:
                return await self._on_thread(call)
        return await self._on_thread(call)

    async def _on_thread(self, call: Callable[[], _T]) -> _T:
        # Not given up when the client gives up: it may be halfway through a write.
        return await anyio.to_thread.run_sync(call, limiter=self._threads)

    # -- the document

    async def list_resources(
        self, _ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        _check_first_page(params)
        document = self._document
        resource = types.Resource(
            uri=document.uri,
            name=document.name,
            title=document.title,
            description=document.description,
            mime_type="application/json",
        )
        return types.ListResourcesResult(resources=[resource])

    async def list_templates(
        self, _ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        _check_first_page(params)
        return types.ListResourceTemplatesResult(resource_templates=[])

    async def read_resource(
        self, _ctx: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        self._check_uri(params.uri)
        try:
            text = await self._on_thread(self._document.read)
        except ElytronError as error:
            raise MCPError(types.INTERNAL_ERROR, f"{error.code}: {error}") from error
        except Exception as error:  # noqa: BLE001 - as of a tool
            raise MCPError(types.INTERNAL_ERROR, _unexpected(params.uri, error)) from None
        contents = types.TextResourceContents(
            uri=params.uri, mime_type="application/json", text=text
        )
        return types.ReadResourceResult(contents=[contents])

    async def subscribe(
        self, ctx: Context, params: types.SubscribeRequestParams
    ) -> types.EmptyResult:
        self._check_uri(params.uri)
        self._subscribers[_session_of(ctx)] = ctx.session
        if len(self._subscribers) > SUBSCRIBERS_MAX:
            del self._subscribers[next(iter(self._subscribers))]
        return types.EmptyResult()

    async def unsubscribe(
        self, ctx: Context, params: types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        self._check_uri(params.uri)
        self._subscribers.pop(_session_of(ctx), None)
        return types.EmptyResult()

    async def _tell_of_change(self, uri: str) -> None:
        """By the way of each era of the protocol. A session that is gone is told nothing."""
        async with anyio.create_task_group() as tasks:
            for key, session in list(self._subscribers.items()):
                tasks.start_soon(self._tell, key, session, uri)
        await self._bus.publish(ResourceUpdated(uri=uri))

    async def _tell(self, key: str, session: ServerSession, uri: str) -> None:
        """One that does not read what it is told keeps nobody waiting twice."""
        with anyio.move_on_after(TELL_MAX_S) as telling:
            await session.send_resource_updated(uri)
        if telling.cancelled_caught:
            self._subscribers.pop(key, None)

    @property
    def _document(self) -> Document:
        assert self._profile.document is not None, "only a profile with a document offers one"
        return self._profile.document

    def _check_uri(self, uri: object) -> None:
        if str(uri) != self._document.uri:
            raise MCPError(types.INVALID_PARAMS, f"Unknown resource; there is {self._document.uri}")


def _session_of(ctx: Context) -> str:
    """What tells the sessions of a server apart; over stdio there is one."""
    return "" if ctx.request is None else ctx.request.headers.get("mcp-session-id", "")


def _check_first_page(params: types.PaginatedRequestParams | None) -> None:
    if params is not None and params.cursor is not None:
        raise MCPError(types.INVALID_PARAMS, "Unknown cursor: everything is on the first page")


def _listed(tool: MemoryTool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.takes,
        output_schema=tool.gives,
        annotations=types.ToolAnnotations(
            read_only_hint=tool.reads,
            destructive_hint=tool.destroys,
            idempotent_hint=tool.repeats,
            open_world_hint=False,
        ),
    )


def _unexpected(what: str, error: Exception) -> str:
    """Note an error that nobody foresaw, without its words, which may quote a memory."""
    _log.error("%s failed: %s", what, type(error).__name__)
    return f"an unexpected {type(error).__name__}"


def _failed(code: str, message: str, *, retryable: bool) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=f"{code}: {message}")],
        is_error=True,
        _meta={_ERROR_META: {"code": code, "retryable": retryable}},
    )
