"""
Agent, from afar: the verbs of one agent, each sent to where its store is.

What is in the table is forwarded as it is called. Only what is made of other verbs, or flows in
pieces, is written out here.
"""

import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from elytron.agent import Agent
from elytron.errors import Busy, InvalidArgument, OutcomeUnknown, Unavailable
from elytron.graph import wire
from elytron.records import Context, ImportReport, Message, Receipt
from elytron.remote import answers, calls, importing
from elytron.remote.admitting import Admitting
from elytron.remote.calls import AGENT_CALLS, Call
from elytron.remote.connection import MSGPACK, Connection, error_of
from elytron.remote.sending import encoded, with_id
from elytron.remote.submitted import Submitted
from elytron.verbs.exporting import write_messages
from elytron.verbs.parameters import check_parameters
from elytron.write.admission import check_timeout

_MESSAGE: "TypeAdapter[Message]" = TypeAdapter(Message)
_COUNTS: "TypeAdapter[list[int]]" = TypeAdapter(list[int])


class RemoteAgent(Agent):
    """
    One agent of a store elsewhere. Got from `RemoteStore.agent`; cheap; safe for many threads.

    Each verb does what `Agent` says of it, one round trip away.
    """

    def __init__(
        self, name: str, connection: Connection, admitting: Admitting, submitted: Submitted
    ) -> None:
        self.name = name
        self._connection = connection
        self._admitting = admitting
        self._submitted = submitted
        self.check_usable = connection.check_usable

    def flush(self, *, timeout_s: float | None = None) -> None:
        """See `Agent.flush`; also waits for what was submitted on this side."""
        started = time.monotonic()
        limit_s = None if timeout_s is None else check_timeout(timeout_s)
        self._connection.check_usable()  # what was submitted before a fork is the parent's
        if not self._submitted.wait(self.name, limit_s):
            raise Busy(f"what was submitted is not settled after {limit_s:g} s; flush again")
        if limit_s is not None:
            limit_s = max(0.001, limit_s - (time.monotonic() - started))
        self._call(AGENT_CALLS["flush"], {"timeout_s": limit_s})

    def messages(self, *, archived: bool = False) -> Iterator[Message]:
        """See `Agent.messages`; they flow in, a page at a time."""
        params = {"agent": self.name, "archived": json.dumps(bool(archived))}
        url = self._connection.url
        with self._connection.lines("messages", writes=False, params=params) as lines:
            count = 0
            for line in lines:
                told = answers.as_asked(url, "messages", _message, line, writes=False)
                if isinstance(told, Message):
                    count += 1
                    yield told
                elif "error" in told:
                    raise error_of(told)
                elif "end" in told:
                    return
        raise Unavailable(f"{url} broke off after {count} messages; ask again")

    def export(
        self,
        target: str | Path | IO[str],
        *,
        archived: bool = False,
        format: str | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> int:
        """See `Agent.export`. The file is on this side."""
        messages = self.messages(archived=archived)
        return write_messages(messages, target, format=format, on_progress=on_progress)

    def import_(
        self,
        messages: Iterable[Mapping[str, Any] | Message],
        *,
        skip_bad: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> ImportReport:
        """See `Agent.import_`. Sent in parts of at most 500 messages."""
        self._connection.check_usable()
        run = importing.Import(
            self.name,
            self._send_part,
            self._admitting,
            skip_bad=skip_bad,
            on_progress=on_progress,
        )
        return run.run(messages)

    def _send_part(self, body: bytes, skip_bad: bool) -> ImportReport:
        data = self._connection.ask(
            "import_",
            writes=True,
            repeats=True,
            params={"agent": self.name, "skip_bad": json.dumps(skip_bad)},
            body=body,
            kind="application/x-ndjson",
        )
        return answers.as_asked(
            self._connection.url,
            "import_",
            importing.REPORT.validate_json,
            data,
            writes=True,
        )

    def _admitted(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self._connection.check_usable()
        return self._admitting.one(arguments)

    def _submit_admitted(self, message: Mapping[str, Any]) -> "Future[Receipt]":
        return self._submitted.submit(self.name, message)

    def _submit_at_once(self, message: Mapping[str, Any]) -> "Future[Receipt] | None":
        """The same; None where there is no room for it now."""
        return self._submitted.submit_at_once(self.name, message)

    def _call(self, call: Call, arguments: dict[str, Any]) -> Any:
        return perform(self._connection, call, arguments, agent=self.name)


def _message(line: bytes) -> Message | dict[str, Any]:
    """A line of `messages`: one, or what is told beside them."""
    told = answers.told(line)
    if "error" in told or "message" not in told:  # an error has a message of its own
        return told
    return _MESSAGE.validate_python(told["message"])


def perform(
    connection: Connection, call: Call, arguments: dict[str, Any], *, agent: str | None = None
) -> Any:
    """Send one call, and read its answer as the verb's own records."""
    params = None if agent is None else {"agent": agent}
    told = arguments.pop("on_progress", None)
    body = encoded(call, arguments)
    verb = call.path.removeprefix(calls.PREFIX + "/")
    if call.long:
        return _perform_long(connection, call, verb, params, body, told)
    data = connection.ask(verb, writes=call.writes, repeats=call.repeats, params=params, body=body)
    return answers.as_asked(
        connection.url,
        call.verb,
        calls.result(call).validate_json,
        data,
        writes=call.writes,
    )


def _perform_long(
    connection: Connection,
    call: Call,
    verb: str,
    params: Mapping[str, str] | None,
    body: bytes,
    on_progress: Callable[..., None] | None,
) -> Any:
    read = functools.partial(answers.as_asked, connection.url, call.verb, writes=call.writes)
    with connection.lines(verb, writes=call.writes, params=params, body=body, beats=True) as lines:
        for line in lines:
            told = read(answers.told, line)
            if "progress" in told and on_progress is not None:
                on_progress(*read(_COUNTS.validate_python, told["progress"]))
            elif "error" in told:
                raise error_of(told)
            elif "result" in told:
                return read(calls.result(call).validate_python, told["result"])
    raise OutcomeUnknown(
        f"{connection.url} broke off, so `{call.verb}` may or may not be done; do it again"
    )


def _forwarded(call: Call) -> Callable[..., Any]:
    """A verb's method: its arguments as they were given, sent."""

    def method(self: RemoteAgent, *args: Any, **kwargs: Any) -> Any:
        given = call.signature.bind(self, *args, **kwargs).arguments
        arguments = {name: value for name, value in given.items() if name != "self"}
        if call.verb == "save":
            arguments = self._admitting.one(arguments)
        elif call.verb == "save_many":
            return _save_many(self, call, self._admitting.many(arguments["messages"]))
        elif call.verb == "remember":
            arguments = with_id(arguments, self._admitting.ids)
        return self._call(call, arguments)

    return method


def _save_many(agent: RemoteAgent, call: Call, messages: list[dict[str, Any]]) -> list[Receipt]:
    receipts: list[Receipt] = agent._call(call, {"messages": messages})
    if [receipt.id for receipt in receipts] != [message["id"] for message in messages]:
        raise answers.unreadable(agent._connection.url, call.verb, writes=True)
    return receipts


def _submit(self: RemoteAgent, role: str, content: str, **rest: Any) -> "Future[Receipt]":
    return self._submit_admitted(self._admitted({"role": role, "content": content, **rest}))


def _context(self: RemoteAgent, question: str, **rest: Any) -> Context:
    if rest.get("count_tokens") is not None:  # a function of this side
        return Agent.context(self, question, **rest)
    rest.pop("count_tokens", None)
    context: Context = self._call(AGENT_CALLS["context"], {"question": question, **rest})
    return context


def _cypher(
    self: RemoteAgent,
    query: str,
    params: Mapping[str, Any] | None = None,
    *,
    timeout_s: float | None = None,
) -> list[dict[str, Any]]:
    # As MessagePack, since a graph's values are more than JSON has.
    arguments = {"query": query, "params": check_parameters(params), "timeout_s": timeout_s}
    data = self._connection.ask(
        "cypher",
        writes=False,
        repeats=True,
        params={"agent": self.name},
        body=wire.pack_values(arguments),
        kind=MSGPACK,
        accept=MSGPACK,
    )
    rows: list[dict[str, Any]] = answers.as_asked(
        self._connection.url, "cypher", _rows, data, writes=False
    )
    return rows


def _rows(data: bytes) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = wire.unpack_values(data)
    except InvalidArgument as error:  # of what a caller gives, where it is used elsewhere
        raise ValueError("no MessagePack") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TypeError("no rows")
    return rows


_OWN: Mapping[str, Callable[..., Any]] = {
    "submit": _submit,
    "context": _context,
    "cypher": _cypher,
}
for _verb in (*AGENT_CALLS, *_OWN):
    if _verb not in vars(RemoteAgent):
        _method = _OWN.get(_verb) or _forwarded(AGENT_CALLS[_verb])
        setattr(RemoteAgent, _verb, functools.wraps(getattr(Agent, _verb))(_method))
