"""
Mcp: the command that offers an agent's memory over the Model Context Protocol.

The protocol's library is imported once the command runs, since it comes with an extra.
"""

import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from elytron.agent import Agent
from elytron.errors import InvalidArgument
from elytron.faces import documents
from elytron.faces.options import Place, common, quoted
from elytron.faces.output import note, say
from elytron.store import Store
from elytron.upkeep.memory import bound_arenas

if TYPE_CHECKING:
    from elytron.faces.mcp.tools import Profile

PROFILES = ("memory", "reference")
DEFAULT_AGENT = "default"
DEFAULT_PORT = 7701  # beside that of `serve`
PATH = "/mcp"
_FILE_VARIABLE = "MEMORY_FILE_PATH"  # as the reference server has it


@click.command()
@common
@click.option(
    "--agent", metavar="NAME", default=DEFAULT_AGENT, show_default=True,
    help="Whose memory; made on the first write.",
)  # fmt: skip
@click.option(
    "--profile", type=click.Choice(PROFILES), default=PROFILES[0], show_default=True,
    help="The tools: three of ours, or the nine of the reference memory server.",
)  # fmt: skip
@click.option(
    "--memory-file", metavar="FILE", type=click.Path(path_type=Path),
    help="A memory.jsonl of the reference server, taken over once; for its profile else"
    f" {_FILE_VARIABLE}.",
)  # fmt: skip
@click.option("--http", is_flag=True, help="Streamable HTTP at /mcp, instead of stdio.")
@click.option("--host", metavar="HOST", help="With --http; 127.0.0.1 if not given.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N",
    help=f"With --http; {DEFAULT_PORT} if not given, 0 for any that is free.",
)  # fmt: skip
@click.option(
    "--token-file", metavar="FILE", type=click.Path(path_type=Path),
    help="With --http; who may ask. Needed for any host but this machine.",
)  # fmt: skip
@click.option(
    "--allow-host", "hosts", metavar="NAME", multiple=True,
    help="With --http; another name of this server. May be repeated.",
)  # fmt: skip
@click.option(
    "--allow-origin", "origins", metavar="URL", multiple=True,
    help="With --http; a site whose pages may ask. May be repeated.",
)  # fmt: skip
def mcp(
    place: Place, agent: str, profile: str, memory_file: Path | None, http: bool, **at: Any
) -> None:
    """Offer a memory to an AI client, over MCP.

    A client starts this and speaks to it over stdin and stdout: docs/mcp.md shows what to put into
    its settings. Tools: remember, recall and forget, or those of the reference memory server.
    Ends with its client. Any number may serve one agent at once. Needs the extra `mcp`.

    JSON: with --http one line once it serves: url, store, agent, profile, tokens (null where none
    is asked for). Else stdout belongs to the protocol.
    """
    _need_library(http=http)
    bound_arenas()
    if memory_file is None and profile == "reference" and os.environ.get(_FILE_VARIABLE):
        memory_file = Path(os.environ[_FILE_VARIABLE])
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)

    def opened(store: Store) -> "tuple[Agent, Profile]":
        from elytron.faces.mcp.first_start import take_over

        memory = store.agent(agent)
        if memory_file is not None:
            report = take_over(memory, memory_file, store=store.path)
            if report is not None:
                note(f"took over {report.imported:,} pieces of {memory_file}")
        return memory, _profile(memory, profile, store)

    if http:
        _serve_http(place, opened, **at)
    else:
        _serve_stdio(place, opened, **at)


def _need_library(*, http: bool) -> None:
    needed = {"mcp": "mcp"} | ({"httptools": "mcp,server"} if http else {})
    for module, extras in needed.items():
        if importlib.util.find_spec(module) is None:
            raise InvalidArgument(f"this needs more; run: pip install 'elytron[{extras}]'")


def _profile(memory: Agent, name: str, store: Store) -> "Profile":
    from elytron.faces.mcp.memory_profile import memory_profile
    from elytron.faces.mcp.reference_profile import reference_profile

    rows_max = store.config.max_query_rows
    if name == "memory":
        return memory_profile(memory, rows_max=rows_max)
    return reference_profile(memory, rows_max=rows_max)


def _serve_stdio(
    place: Place, opened: "Callable[[Store], tuple[Agent, Profile]]", **at: Any
) -> None:
    for option, value in at.items():
        if value:
            name = {"hosts": "allow-host", "origins": "allow-origin"}.get(option, option)
            raise InvalidArgument(
                f"--{name.replace('_', '-')} is for --http; add that, or leave it"
            )
    if sys.stdin is None:
        raise InvalidArgument("stdin is closed; a client has to start this, or add --http")
    if sys.stdin.isatty():
        note("a client is expected on stdin and stdout; Ctrl-C ends it (see docs/mcp.md)")
    from elytron.faces.mcp.wire import claim_wire

    wire = claim_wire()
    from elytron.faces.mcp.stdio import serve_stdio

    with place.open() as store:
        _, profile = opened(store)
        serve_stdio(profile, wire)


def _serve_http(
    place: Place,
    opened: "Callable[[Store], tuple[Agent, Profile]]",
    *,
    host: str | None,
    port: int | None,
    token_file: Path | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
) -> None:
    from elytron.faces.http import serving
    from elytron.faces.http.tokens import Tokens
    from elytron.faces.mcp.http import serve_http

    tokens = None if token_file is None else Tokens(token_file)
    listener = serving.listen(
        host or "127.0.0.1",
        DEFAULT_PORT if port is None else port,
        guarded=tokens is not None,
        hosts=hosts,
    )
    with listener.socket, place.open() as store:
        memory, profile = opened(store)
        document = {
            "url": f"{listener.url}{PATH}",
            "store": store.shown,
            "agent": memory.name,
            "profile": profile.name,
            "tokens": None if tokens is None else len(tokens),
        }
        serve_http(
            profile,
            listener,
            agent=memory.name,
            tokens=tokens,
            origins=origins,
            ready=lambda: _tell(place, document),
        )


def _tell(place: Place, document: dict[str, Any]) -> None:
    if place.as_json:
        documents.write_line(document)
        return
    count = document["tokens"]
    guarded = "this machine only, no token asked for" if count is None else f"{count} tokens"
    say(f"serving {quoted(document['agent'])} at {document['url']} ({guarded}); Ctrl-C ends it")
