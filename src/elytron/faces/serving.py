"""
Serving: the commands around the HTTP server: `serve` itself, and the tokens that it asks for.
"""

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import click

from elytron.aio import AsyncStore
from elytron.errors import InvalidArgument
from elytron.faces import documents
from elytron.faces.options import DEFAULT_STORE, Command, Place, common
from elytron.faces.output import note, say
from elytron.faces.visible import counted
from elytron.upkeep.memory import bound_arenas

DEFAULT_PORT = 7700
_NEEDED = ("httptools", "prometheus_client", "pydantic", "starlette", "uvicorn")


@click.command()
@common
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen. Other machines are let in only with --token-file.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=DEFAULT_PORT,
    show_default=True,
    help="On which port; 0 for any that is free.",
)
@click.option("--token-file", metavar="FILE", help="Ask for a token of this file.")
@click.option(
    "--allow-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="A further name of this server, as a proxy gives it; may be repeated.",
)
@click.option(
    "--allow-origin",
    "origins",
    metavar="URL",
    multiple=True,
    help="Pages from there may ask too, as https://example.org; may be repeated.",
)
@click.option(
    "--max-request-mb",
    type=float,
    metavar="MB",
    help="Of one request; 16 if not given.",
)
@click.option(
    "--request-timeout-s",
    type=float,
    metavar="SECONDS",
    help="For a request to arrive, and for an answer to be taken; 30 if not given.",
)
@click.option(
    "--max-requests",
    type=int,
    metavar="N",
    help="Connections at once; 256 if not given.",
)
@click.option(
    "--max-requests-per-s",
    type=float,
    metavar="N",
    help="Of one token, or else of one address; 5000 if not given.",
)
@click.option(
    "--max-streams",
    type=int,
    metavar="N",
    help="Live views at once, and as many exports; 32 if not given.",
)
@click.option(
    "--drain-timeout-s",
    type=float,
    metavar="SECONDS",
    help="How long requests under way may take to end; 30 if not given.",
)
@click.option("--no-dashboard", is_flag=True, help="Serve the verbs only.")
def serve(
    place: Place,
    host: str,
    port: int,
    token_file: str | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    no_dashboard: bool,
    **limits: float | None,
) -> None:
    """Serve a store over HTTP, until Ctrl-C or SIGTERM.

    All verbs are under /v1, described at /openapi.json; a page for people is at /. Without
    --token-file only this machine is let in. See docs/faces.md.

    JSON: one line once it serves: url, store, tokens (null where none is asked for), dashboard.
    """
    _check_installed(dashboard=not no_dashboard)
    bound_arenas()
    from elytron.faces.http import serving
    from elytron.faces.http.app import create_app
    from elytron.faces.http.limits import Limits
    from elytron.faces.http.tokens import Tokens

    bounds = Limits(**{name: value for name, value in limits.items() if value is not None})  # type: ignore[arg-type]
    tokens = None if token_file is None else Tokens(token_file)
    dashboard = not no_dashboard
    store = AsyncStore(place.path or DEFAULT_STORE, place.settled())
    listener = serving.listen(host, port, guarded=tokens is not None, hosts=hosts)
    with listener.socket:
        app = create_app(
            store,
            hosts=listener.hosts,
            origins=origins,
            tokens=tokens,
            limits=bounds,
            dashboard=dashboard,
        )
        document = {
            "url": listener.url,
            "store": store.shown,
            "tokens": None if tokens is None else len(tokens),
            "dashboard": dashboard,
        }
        server = serving.Server(
            app, bounds, sockets=dashboard, ready=lambda: _tell(place, document), ending=app.end
        )
        serving.run(server, listener, close=store.close)


def _tell(place: Place, document: dict[str, Any]) -> None:
    if place.as_json:
        documents.write_line(document)
        return
    count = document["tokens"]
    guarded = (
        "this machine only, no token asked for"
        if count is None
        else counted(count, "token", "tokens")
    )
    say(f"serving {document['store']} at {document['url']} ({guarded}); Ctrl-C ends it")


def _check_installed(*, dashboard: bool) -> None:
    for name in (*_NEEDED, *(("nicegui",) if dashboard else ())):
        if importlib.util.find_spec(name) is None:
            raise InvalidArgument(f"to serve, {name} is needed; run: pip install 'elytron[server]'")


@click.group()
def token() -> None:
    """Say who may ask a server.

    A token is shown once, when it is made; its file holds what it may do, and a hash. A server
    that runs notices a change of the file at once.
    """


def _file_option(text: str = "Where the tokens are.") -> Callable[[Command], Command]:
    return click.option("--token-file", metavar="FILE", required=True, help=text)


def _json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print for programs.")(command)


@token.command()
@click.argument("name")
@_file_option("Where the tokens are; made if it is not there.")
@click.option(
    "--agent",
    "agents",
    metavar="AGENT",
    multiple=True,
    help="It is for this one only; may be repeated. For all agents, and the store, if not given.",
)
@click.option("--read-only", is_flag=True, help="Nothing can be changed with it.")
@_json_option
def add(
    name: str, token_file: str, agents: tuple[str, ...], read_only: bool, as_json: bool
) -> None:
    """Make a token and print it.

    NAME is what it is known by, in lists and in the log. It is printed once and stands nowhere
    else; who loses it is given another.

    JSON: name, token, agents (null for all) and writes.
    """
    from elytron.faces.http import tokens

    made = tokens.add(token_file, name, agents=agents or None, writes=not read_only)
    if as_json:
        documents.write(
            {"name": name, "token": made, "agents": agents or None, "writes": not read_only}
        )
        return
    note(f"a token for {_reach(agents or None, writes=not read_only)}; it is shown only now:")
    say(made)


@token.command()
@click.argument("name")
@_file_option()
def remove(name: str, token_file: str) -> None:
    """Take a token out of the file. It stops to work at once."""
    from elytron.faces.http import tokens

    tokens.remove(token_file, name)
    note(f"{name} is removed")


@token.command("list")
@_file_option()
@_json_option
def list_(token_file: str, as_json: bool) -> None:
    """Say what each token may do.

    JSON: a list of name, agents (null for all) and writes.
    """
    from elytron.faces.http import tokens

    found = tokens.listed(token_file)
    if as_json:
        documents.write(
            [
                {
                    "name": access.name,
                    "agents": None if access.agents is None else sorted(access.agents),
                    "writes": access.writes,
                }
                for access in found
            ]
        )
        return
    for access in found:
        agents = None if access.agents is None else sorted(access.agents)
        say(f"{access.name}: {_reach(agents, writes=access.writes)}")


def _reach(agents: Iterable[str] | None, *, writes: bool) -> str:
    which = "all agents" if agents is None else ", ".join(agents)
    return f"{which}, {'to read and write' if writes else 'to read'}"
